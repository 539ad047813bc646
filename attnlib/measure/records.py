"""What a call computes as torch counts it, what it runs on, and records of measurements."""

import contextlib
import datetime
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["device", "flops", "record"]


def flops(call: Callable[[], Any]) -> int:
    """FLOPs of the matrix products in a call, as torch counts them (`FlopCounterMode`): 2 for a multiply and add.

    torch's counter passes over the fused attention of CPUs and over products that are added in place (``addmm_``,
    ``baddbmm_``); they are counted here: the first like that of GPUs, all pairs of query and key, also with ``is_causal``.

    Parameters
    ----------
    call : function
        Without arguments; a backward pass inside it is counted too.

    Returns
    -------
    int
    """
    from torch.utils import flop_counter  # takes a second to import
    aten, count, count_backward = torch.ops.aten, flop_counter.sdpa_flop_count, flop_counter.sdpa_backward_flop_count
    formulas = {
        aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1],           # shapes, not tensors
        aten.baddbmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * a[2] * b[2],
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda d, q, k, v, *_, **__: count_backward(d, q, k, v)}
    with flop_counter.FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        call()
    return counter.get_total_flops()


def device() -> str:
    """What this runs on, for a record: processor, cores, vector instructions, system.

    Returns
    -------
    str
    """
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as lines:
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    vectors = torch.backends.cpu.get_cpu_capability()
    return f"one thread of {name}, {os.cpu_count()} cores, {vectors} ({platform.machine()}, {platform.system()})"


def record(path: str | Path, what: str, command: str, numbers: dict[str, Any],
           packages: Sequence[str] = ("numpy", "torch")) -> None:
    """Write measurements to a JSON file, with everything a reader needs to judge them; whole or not at all.

    Parameters
    ----------
    path : path
        Of the file, which is replaced.
    what : str
        What was measured, in words.
    command : str
        That measures it again.
    numbers : dict
        The measurements, named; they stand beside ``what``, ``command``, ``device``, ``versions`` and ``date``.
    packages : sequence of str
        Whose versions are recorded, beside Python's.

    Raises
    ------
    ValueError
        If `numbers` uses one of the five names.
    """
    origin = {"what": what, "command": command, "device": device(),
              "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
              "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    if taken := sorted(origin.keys() & numbers.keys()):
        raise ValueError(f"record: numbers has the key {taken[0]!r}, which the record itself uses")
    text = json.dumps({**origin, **numbers}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=Path(path).parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
