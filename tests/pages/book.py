"""Build the book as a stranger would: from the tracked files only, with every warning an error."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from _ext import addresses
from tools import pyodide

ROOT = Path(__file__).resolve().parents[2]
ABSENT = Path(__file__).parent / "absent"  # modules named torch and matplotlib that refuse to be imported
GENERATED = ("search", "404")  # pages that are added to those of the table of contents


def own_addresses() -> addresses.Addresses:
    """Where this copy of the book lives, as its _config.yml has it: tests pass in a copy with an address, too."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))
    return addresses.read(config["repository"]["url"], config["repository"]["branch"], config["html"]["baseurl"])


@dataclass(frozen=True)
class Build:
    html: Path
    returncode: int
    log: str


def pages_in_toc(toc: Path = ROOT / "_toc.yml") -> list[str]:
    """Every page of the table of contents, as its address without the ending."""
    contents = yaml.safe_load(toc.read_text(encoding="utf8"))
    entries = [entry for part in contents["parts"] for chapter in part["chapters"] for entry in (chapter, *chapter.get("sections", ()))]
    return [contents["root"]] + [entry["file"] for entry in entries]


def copy_tracked(target: Path) -> None:
    """Copy what git tracks, as it stands in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def build(tree: Path) -> Build:
    """Run jupyter-book on a tree; warnings are errors, unresolved references are warnings."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", ".", "-W", "-n", "--keep-going", "--all"]
    env = {**os.environ, "PYTHONPATH": str(ABSENT), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return Build(tree / "_build" / "html", done.returncode, done.stdout)


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Build:
    """The whole book, built once per test run, however many workers share it."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    tree, log, code = shared / "book", shared / "book.log", shared / "book.returncode"
    with open(shared / "book.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not code.exists():
            tree.mkdir()
            copy_tracked(tree)
            with contextlib.suppress(pyodide.Missing):  # without it the book builds too; tests/test_live.py then complains
                pyodide.bring()
            if pyodide.VENDOR.is_dir():
                (tree / "_vendor").symlink_to(ROOT / "_vendor", target_is_directory=True)
            done = build(tree)
            log.write_text(done.log, encoding="utf8")
            code.write_text(str(done.returncode))
    return Build(tree / "_build" / "html", int(code.read_text()), log.read_text(encoding="utf8"))
