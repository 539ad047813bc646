"""Run a chapter as a plain script, to see what reading its code cannot show.

Chapters 02 to 07 run without torch and without IPython when the cells tagged torch-check are left out (so they run in a
browser). The others are not run: nbval executes them. What a check says of the unsolved stub, `sync.refused` reads.
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
    """Run a chapter of NUMPY_ONLY in a process of its own and return what it found."""
    if int(chapter.name[:2]) not in NUMPY_ONLY:
        return []
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
    sys.meta_path.insert(0, _Blocked())
    space: dict = {"__name__": "__main__", "display": print}
    found: list[Finding] = []
    for index, cell in enumerate(source.cells):
        if cell.cell_type != "code" or "torch-check" in tags(cell):
            continue
        place = at(chapter, source, index)
        try:
            execute(source.cells[index].source, f"<cell {index + 1}>", space)
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
    return found


def execute(code: str, name: str, space: dict) -> None:
    """Execute one cell in `space`, its source known to inspect, and keep quiet."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, name, "exec"), space)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")


if __name__ == "__main__":
    result = run(Chapter(Path(sys.argv[1]), sys.argv[2]))
    print(json.dumps([vars(finding) for finding in result]))
