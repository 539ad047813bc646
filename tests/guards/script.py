"""Run a chapter as a plain script, to see two things that reading its code cannot show.

Chapters 02 to 07 run without torch when the cells tagged torch-check are left out (so they would run in a
browser), and every exercise's check says of the unsolved stub that it is not attempted.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import io
import json
import linecache
import os
import subprocess
import sys
import traceback
from pathlib import Path

from tests.guards import Finding, at, tags
from tests.guards.hygiene import NUMPY_ONLY
from tools import chapters
from tools.chapters import Chapter


def runs_as_script(chapter: Chapter) -> list[Finding]:
    """Run the chapter in a process of its own and return what it found."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
                   "PYTHONPATH": os.pathsep.join([str(chapter.root), str(chapters.ROOT)])}
    done = subprocess.run([sys.executable, "-m", "tests.guards.script", str(chapter.root), chapter.name],
                          cwd=chapter.source.parent, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return [Finding(f"chapters/{chapter.name}.py", "could not be run as a script", done.stderr.strip()[-500:])]
    return [Finding(**finding) for finding in json.loads(done.stdout.splitlines()[-1])]


class _Blocked(importlib.abc.MetaPathFinder):
    """Makes torch look as if it were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "triton"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def run(chapter: Chapter) -> list[Finding]:
    """Execute the chapter's cells in this process."""
    source = chapters.read_source(chapter)
    without_torch = int(chapter.name[:2]) in NUMPY_ONLY
    if without_torch:
        sys.meta_path.insert(0, _Blocked())
    space: dict = {"__name__": "__main__", "display": print}
    found: list[Finding] = []
    for index, cell in enumerate(source.cells):
        if cell.cell_type != "code" or (without_torch and "torch-check" in tags(cell)):
            continue
        place = at(chapter, source, index)
        try:
            said = execute(source.cells[index].source, f"<cell {index + 1}>", space)
        except ModuleNotFoundError as error:
            torch = error.name and error.name.split(".")[0] == "torch"
            found.append(Finding(place, "needs torch" if torch else f"fails: {error}",
                                 "tag it torch-check if nothing else depends on it" if torch else ""))
            break
        except Exception as error:
            last = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<cell")][-1]
            found.append(Finding(place, f"fails as a script, line {last}: {type(error).__name__}: {error}",
                                 "does it depend on a torch-check cell, or on IPython?"))
            break
        if "ex-check" in tags(cell) and "not attempted" not in said:
            found.append(Finding(place, f"says {said.strip()[:80]!r} of the unsolved stub", "check(f) comes right after the stub"))
    return found


def execute(code: str, name: str, space: dict) -> str:
    """Execute one cell in `space`, its source known to inspect; return what it printed."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, name, "exec"), space)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
    return printed.getvalue()


if __name__ == "__main__":
    result = run(Chapter(Path(sys.argv[1]), sys.argv[2]))
    print(json.dumps([vars(finding) for finding in result]))
