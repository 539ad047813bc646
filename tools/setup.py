"""Create the environment in .venv and install what is asked for, level by level.

    python3 tools/setup.py book            to build the site
    python3 tools/setup.py book run test   to execute and test the notebooks, too

A level is a section of requirements.txt (`# --- book`), or `models` (requirements-models.txt). It is
installed again only when its pins change: .venv/.levels holds what each level was installed from. Runs on
any Python 3 with nothing installed, so that it can say what is missing.
"""

from __future__ import annotations

import hashlib
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMPS = VENV / ".levels"
OLDEST = (3, 11)
WHAT = {
    "book": "what building the site needs",
    "run": "what running the notebooks needs (torch is large)",
    "test": "what testing needs",
    "models": "the model that the running example was taken from (90 MB)",
    "lab": "JupyterLab",
    "attnlib": "the book's own library",
}


def stop(message: str) -> None:
    """End with a message for the person who called make."""
    sys.exit("\n" + message)


def sections() -> dict[str, list[str]]:
    """The pins of each level, from the two requirements files."""
    found: dict[str, list[str]] = {}
    level = ""
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        heading = re.match(r"# --- (\w+)", line)
        text = line.split("#")[0].strip()
        if heading:
            level = heading.group(1)
            found[level] = []
        elif text:
            found[level].append(text)
    models = (ROOT / "requirements-models.txt").read_text(encoding="utf-8").splitlines()
    found["models"] = [line.split("#")[0].strip() for line in models if line.split("#")[0].strip()]
    return found


def find_python() -> str:
    """This Python, or a newer one on the path if this one is too old."""
    if sys.version_info[:2] >= OLDEST:
        return sys.executable
    for minor in (13, 12, 11):
        newer = shutil.which(f"python3.{minor}")
        if newer and starts(Path(newer)):
            print(f"Python here is {sys.version.split()[0]}; using python3.{minor}", flush=True)
            return newer
    stop(f"The book needs Python 3.11 or newer; this is {sys.version.split()[0]} and no newer one is on the path.\n"
         "Install one, then say which: make book PYTHON=python3.12")
    return ""


def starts(python: Path, *arguments: str) -> bool:
    """Whether a Python is there and runs (a shim or a link may lead nowhere)."""
    try:
        done = subprocess.run([str(python), *(arguments or ("-c", "pass"))], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def create() -> None:
    """Create .venv, or again if it is broken (an interrupted creation, a removed Python)."""
    if starts(PYTHON) and (STAMPS.exists() or starts(PYTHON, "-m", "pip", "--version")):
        return
    python = find_python()
    if VENV.exists():
        print(".venv is broken; creating it again", flush=True)
        shutil.rmtree(VENV)
    print("Creating the environment .venv ...", flush=True)
    made = subprocess.run([python, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if made.returncode or not starts(PYTHON, "-m", "pip", "--version"):
        shutil.rmtree(VENV, ignore_errors=True)
        text = made.stdout + made.stderr
        if "ensurepip" in text or "No module named venv" in text:
            stop("This Python cannot create environments: its module venv is missing or incomplete.\n"
                 "On Debian and Ubuntu: apt install python3-venv. Elsewhere: install Python from python.org.")
        stop("Creating .venv failed:\n" + text[-1500:])


def install(title: str, arguments: list[str]) -> None:
    """Run pip install, showing that it is alive; show its last lines if it fails."""
    # Python compiles what it imports, when it first does: compiling everything now doubles the time.
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off",
               "--no-compile"]
    pip = subprocess.Popen(command + arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in pip.stdout:
            lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    began = shown = time.monotonic()
    log: list[str] = []
    print(f"Installing {title} ...", flush=True)
    try:
        while True:
            try:
                line = lines.get(timeout=1)
                if line is None:
                    break
                log.append(line)
            except queue.Empty:
                pass
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                doing = next((text for text in reversed(log) if re.match(r"\s*(Collecting|Downloading|Installing)", text)), "")
                print(f"    {shown - began:4.0f} s  {doing.strip()[:80]}", flush=True)
    except KeyboardInterrupt:
        pip.terminate()
        stop("Interrupted; the next make goes on from here.")
    if pip.wait():
        stop(f"Installing {title} failed. pip says:\n" + "\n".join(log[-15:]))
    print(f"    done in {time.monotonic() - began:.0f} s", flush=True)


def bring(level: str, pins: list[str]) -> None:
    """Install one level unless it was installed from the same pins."""
    arguments = ["--no-deps", "--editable", "."] if level == "attnlib" else (["--no-deps"] if level == "models" else []) + pins
    basis = [*arguments, str(ROOT), (ROOT / "pyproject.toml").read_text(encoding="utf-8")] if level == "attnlib" else arguments
    wanted = hashlib.sha256("\n".join(basis).encode()).hexdigest()
    stamp = STAMPS / level
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    STAMPS.mkdir(exist_ok=True)
    stamp.unlink(missing_ok=True)  # an interrupted installation must not look like a whole one
    install(WHAT.get(level, level), arguments)
    stamp.write_text(wanted, encoding="utf-8")


def main() -> None:
    """Install the levels named on the command line."""
    pins = sections()
    unknown = [level for level in sys.argv[1:] if level not in pins]
    if unknown or len(sys.argv) < 2:
        stop(f"usage: python3 tools/setup.py LEVEL ...   levels: {', '.join(pins)}")
    create()
    for level in sys.argv[1:]:
        bring(level, pins[level])
    bring("attnlib", [])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("Interrupted; the next make goes on from here.")
