"""The wall: a process without network, files, processes or the grader's secrets, through bubblewrap (or podman)."""

from __future__ import annotations

import compileall
import json
import os
import selectors
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import coursework
from coursework.grading.seccomp import no_new_processes

PACKAGE = Path(coursework.__file__).resolve().parent
STAGED = ("running.py", "wire.py", "grading/__init__.py", "grading/slicing.py", "grading/worker.py")
SCRATCH, REPLY = 64 << 20, 16 << 20                    # bytes of scratch files, and of all replies of one process
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0",
               "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TRITON_INTERPRET": "1",
               "PYTHONDONTWRITEBYTECODE": "1"}
TRUSTED = """--trusted: the code of the submissions runs as an ordinary process of yours. It is limited in time and memory, and
cannot change a score by patching Python; but it can read your files, the hidden tests and other submissions among them,
use the network, start processes and delete what you can delete. Use it for code that you have read, or inside a
container that you throw away."""


class NoSandbox(Exception):
    """Nothing here can hold code that is not trusted; the message says what was tried and what to do."""


@dataclass
class Ending:
    """How a process ended: its lines, the seconds it took, and why it was stopped ("" if it was not)."""

    lines: list = field(default_factory=list)
    seconds: float = 0.0
    stopped: str = ""


class Sandbox:
    """Runs worker processes; use it as a context manager.

    Parameters
    ----------
    mode : str
        "bubblewrap", "podman", "trusted", or "" for the first of the first two that works here.
    hidden : sequence of Path
        Folders that must not be seen inside even where they lie below one that is: submissions, results.

    Raises
    ------
    NoSandbox
        If the one asked for, or any, does not work here.
    """

    def __init__(self, mode: str = "", hidden=()):
        self.hidden = [Path(p).resolve() for p in hidden]
        self.stage = Path(tempfile.mkdtemp(prefix="coursework-"))
        for name in STAGED:
            target = self.stage / "coursework" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PACKAGE / name, target)
        (self.stage / "coursework" / "__init__.py").touch()
        compileall.compile_dir(self.stage, quiet=2)
        reasons = {}
        for candidate in [mode] if mode else ["bubblewrap", "podman"]:
            self.mode = candidate
            reasons[candidate] = self._probe()
            if not reasons[candidate]:
                return
        self.close()
        raise NoSandbox("No sandbox works here. " + " ".join(f"{m}: {r}." for m, r in reasons.items())
                        + " Install bubblewrap (Debian, Fedora: package bubblewrap) on Linux and allow user namespaces; or "
                          "grade with --trusted, which protects against accidents only.")

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was staged."""
        shutil.rmtree(self.stage, ignore_errors=True)

    def _probe(self) -> str:
        """Why this mode does not work, or ""."""
        program = {"bubblewrap": "bwrap", "podman": "podman"}.get(self.mode)
        if program and not shutil.which(program):
            return f"there is no {program}"
        ending = self.run({"kind": "survey", "data": "", "suffix": ".py", "names": [], "seconds": 20}, 20)
        if ending.lines and '"functions"' in ending.lines[0]:
            return ""
        return f"a trial run failed ({(ending.stopped or 'no reply').strip()[:300]})"

    def command(self, seccomp: int = -1) -> list[str]:
        """The command that starts a worker."""
        worker = "coursework/grading/worker.py"
        python = ["-I", "-S", "-B"]
        if self.mode == "trusted":
            return [sys.executable, *python, str(self.stage / worker)]
        seen = self._seen()
        if self.mode == "podman":
            mounts = [f"--volume={p}:{p}:ro" for p in seen] + [f"--volume={self.stage}:/stage:ro"]
            environment = [f"--env={k}={v}" for k, v in ENVIRONMENT.items()]
            return ["podman", "run", "--rm", "--interactive", "--network=none", "--read-only", "--cap-drop=all",
                    "--security-opt=no-new-privileges", "--pids-limit=64", "--tmpfs=/tmp:size=64m", "--memory=4g",
                    *mounts, *environment, "--workdir=/tmp", "docker.io/library/debian:stable-slim",
                    sys.executable, *python, f"/stage/{worker}"]
        wall = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534",
                "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv"]
        for key, value in ENVIRONMENT.items():
            wall += ["--setenv", key, value]
        wall += ["--proc", "/proc", "--dev", "/dev", "--size", str(SCRATCH), "--tmpfs", "/tmp"]   # first: Python may lie below it
        for path in seen:
            if path.is_symlink():
                wall += ["--symlink", os.readlink(path), str(path)]
            else:
                wall += ["--ro-bind", str(path), str(path)]
        for path in self._masked(seen):
            wall += ["--size", "4096", "--tmpfs", str(path)]
        wall += ["--ro-bind", str(self.stage), "/stage", "--chdir", "/tmp", "--remount-ro", "/"]
        if seccomp >= 0:
            wall += ["--seccomp", str(seccomp)]
        return [*wall, "--", sys.executable, *python, f"/stage/{worker}"]

    @staticmethod
    def _seen() -> list[Path]:
        """What has to be seen inside: the system's libraries, Python, and its packages."""
        system = [Path(p) for p in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache") if os.path.lexists(p)]
        python = {Path(p).absolute() for p in (sys.base_prefix, sys.prefix, sysconfig.get_path("purelib"),
                                               sysconfig.get_path("platlib"))}
        python |= {Path(os.path.realpath(sys.executable)).parent.parent}
        inside = [p for p in sorted(python) if not any(p != q and p.is_relative_to(q) for q in {*system, *python})]
        return system + inside

    def _masked(self, seen: list[Path]) -> list[Path]:
        """What must not be seen although it lies below something that is."""
        secret = [PACKAGE, *self.hidden]
        return [p for p in secret if any(p.is_relative_to(q) and p != q for q in seen) and p.is_dir()]

    def run(self, request: dict, seconds: float) -> Ending:
        """Send a request to a new worker; collect its lines until it ends, or is stopped.

        Parameters
        ----------
        request : dict
            What `worker.main` reads.
        seconds : float
            Wall time; then the worker and all it may have started are killed.
        """
        began = time.perf_counter()
        ending, handle, program = Ending(), -1, no_new_processes() if self.mode == "bubblewrap" else None
        if program:
            handle = os.memfd_create("seccomp", 0)
            os.write(handle, program)
            os.lseek(handle, 0, os.SEEK_SET)
        environment = {**ENVIRONMENT, **({"HOME": str(self.stage), "TMPDIR": str(self.stage)})} if self.mode == "trusted" else None
        with tempfile.TemporaryFile() as inbox, tempfile.TemporaryFile() as complaints:
            packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
            inbox.write(json.dumps({**request, "packages": packages}).encode())
            inbox.seek(0)
            process = subprocess.Popen(
                self.command(handle), stdin=inbox, stdout=subprocess.PIPE, stderr=complaints, cwd=self.stage,
                pass_fds=(handle,) if program else (), env=environment, start_new_session=True)
            if program:
                os.close(handle)
            try:
                self._collect(process, ending, began + seconds)
            finally:
                _kill(process)
                process.stdout.close()
            complaints.seek(0)
            said = complaints.read(2000).decode(errors="replace")
        if not ending.stopped and process.returncode not in (0, None) and not ending.lines:
            ending.stopped = f"ended with code {process.returncode} {said}"
        ending.seconds = time.perf_counter() - began
        return ending

    @staticmethod
    def _collect(process: subprocess.Popen, ending: Ending, deadline: float) -> None:
        """Read lines until the end of the output, the deadline, or too much."""
        buffer, total = bytearray(), 0
        os.set_blocking(process.stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                left = deadline - time.perf_counter()
                if left <= 0 or not selector.select(left):
                    ending.stopped = "time"
                    break
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    break
                total += len(data)
                if total > REPLY:
                    ending.stopped = "output"
                    break
                buffer += data
        ending.lines = buffer.decode("utf-8", errors="replace").splitlines()


def _kill(process: subprocess.Popen) -> None:
    """End a worker and everything it has started; with bubblewrap the whole process namespace goes."""
    for kill in (lambda: os.killpg(process.pid, 9), process.kill):
        try:
            kill()
        except (ProcessLookupError, PermissionError):
            pass
    process.wait()
