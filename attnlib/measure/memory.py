"""Memory: the peak of a process, and the exact bytes of the tensors alive at one time."""

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from attnlib.measure.timing import no_garbage_collection, one_thread

__all__ = ["allocated_bytes", "peak_memory"]


def peak_memory(setup: str, statement: str) -> int:
    """By how many bytes a program's memory grows at most while a statement runs, in a fresh process.

    Counts resident memory, so it also sees what libraries allocate without telling torch; memory that is
    reserved but never written is not resident. What an empty statement costs is subtracted. The answer is
    good to about 1 MiB. A library's first call loads code and buffers: let `setup` make one small call first.

    Parameters
    ----------
    setup : str
        Python code that runs first and is not counted; it may import, and leaves names for `statement`.
    statement : str
        Python code to measure.

    Returns
    -------
    int
        Bytes beyond what stood after `setup`.

    Raises
    ------
    NotImplementedError
        If the system is not Linux, which alone can reset a process's peak.
    RuntimeError
        If the code fails; the message ends with its own error.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise NotImplementedError("peak_memory: needs Linux, where a process can reset the record of its peak")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # what is freed goes back at once
    done = subprocess.run([sys.executable, "-c", "from attnlib.measure.memory import _in_fresh_process as run; run()"],
                          input=json.dumps([setup, statement]), env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"peak_memory: {done.stderr.strip().splitlines()[-1]}")
    return max(0, int(done.stdout.splitlines()[-1]))


def allocated_bytes(call: Callable[[], Any]) -> int:
    """The most bytes of tensors, made during a call, that are alive at one time; exact and the same every time.

    Counts every block that torch's CPU allocator gives out: results, temporaries and what autograd keeps,
    and the scratch space of torch's own operators. It does not see what other libraries allocate for
    themselves (the matrix products' packed copies), nor NumPy's arrays. Blocks allocated before the call do
    not count; they should outlive it, because torch does not always know the size of those.

    Parameters
    ----------
    call : function
        Without arguments; what it returns counts as alive to the end.

    Returns
    -------
    int
        Bytes.
    """
    profiler = torch._C._autograd                            # torch.profiler reads the same records, 1000 times slower
    config = torch.autograd.ProfilerConfig(torch.autograd.ProfilerState.CPU, False, True, False, False, False,
                                           torch._C._profiler._ExperimentalConfig())
    with one_thread(), no_garbage_collection():
        profiler._enable_profiler_legacy(config)
        try:
            call()
        finally:
            records = profiler._disable_profiler_legacy()
    live = peak = 0
    for event in (event for thread in records for event in thread):
        if event.kind() == "memory_alloc":                   # freeing is an allocation of fewer than 0 bytes
            live += event.cpu_memory_usage()
            peak = max(peak, live)
    return peak


def _in_fresh_process():
    """Read setup and statement from standard input, print the statement's peak in bytes."""
    setup, statement = json.load(sys.stdin)
    torch.set_num_threads(1)
    names = {}
    exec(setup, names)
    nothing, code = compile("pass", "statement", "exec"), compile(statement, "statement", "exec")
    baseline = min(_growth(nothing, names) for _ in range(3))
    print(_growth(code, names) - baseline)


def _growth(code, names):
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)                     # what setup freed is not there to be used again
    Path("/proc/self/clear_refs").write_text("5")            # the peak starts anew from here
    before = _resident("VmRSS")
    exec(code, names)
    return _resident("VmHWM") - before


def _resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))
