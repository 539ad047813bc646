"""Several processes from one, as a notebook needs them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from attnlib.flash._parts import check_count


def torchrun(program: str, ranks: int, seconds: float = 120) -> str:
    """Run a Python program in several processes of this computer, as `torchrun` does; return what they print.

    Parameters
    ----------
    program : str
        Its text. Each process learns its rank from `torch.distributed.init_process_group("gloo")`.
    ranks : int
        How many processes.
    seconds : float
        After which all of them are ended: processes that wait for each other in vain would wait for long.

    Returns
    -------
    str

    Raises
    ------
    RuntimeError
        If one of them fails, with what it said, or they are not done in time.
    ValueError, TypeError
        If `program` is no text or `ranks` no int from 1.
    """
    if not isinstance(program, str):
        raise TypeError(f"torchrun: program is of type {type(program).__name__}, expected a str")
    check_count("torchrun", 1, ranks=ranks)
    library = str(Path(__file__).parents[2])
    paths = [library, *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "program.py")
        path.write_text(program, encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), str(path)]
        started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)})
        try:
            printed, said = started.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            started.terminate()                              # torchrun ends its processes, which a plain kill would leave behind
            started.communicate()
            raise RuntimeError(f"torchrun: {ranks} processes were not done after {seconds} seconds") from None
    if started.returncode:
        raise RuntimeError(f"torchrun: a process failed:\n{said}")
    return printed
