"""Run a chapter as a plain script, to see two things that reading its code cannot show.

Chapters 02 to 07 run without torch when the cells tagged torch-check are left out (so they would run in a
browser), and every exercise's check refuses the unsolved stub.
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

from tests.guards import Finding, at, exercise, tags
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
    checks = {exercise(cell): index for index, cell in enumerate(source.cells) if "ex-check" in tags(cell)}
    found: list[Finding] = []
    for index, cell in enumerate(source.cells):
        if cell.cell_type != "code" or (without_torch and "torch-check" in tags(cell)):
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
            last = traceback.extract_tb(error.__traceback__)[-1].lineno
            found.append(Finding(place, f"fails as a script, line {last}: {type(error).__name__}: {error}",
                                 "does it depend on a torch-check cell, or on IPython?"))
            break
        if "ex-stub" in tags(cell) and exercise(cell) in checks:
            check = checks[exercise(cell)]
            try:
                execute(source.cells[check].source, f"<cell {check + 1}>", dict(space))
            except NotImplementedError:
                continue
            except Exception as error:
                found.append(Finding(at(chapter, source, check), "fails on the stub before it calls it: "
                                     f"{type(error).__name__}: {error}", "the check needs only what the stub's reader has"))
            else:
                found.append(Finding(at(chapter, source, check), "passes with the unsolved stub",
                                     "assert something about what the function returns"))
    return found


def execute(code: str, name: str, space: dict) -> None:
    """Execute one cell in `space`, its source known to inspect, its output thrown away."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, name, "exec"), space)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")


if __name__ == "__main__":
    result = run(Chapter(Path(sys.argv[1]), sys.argv[2]))
    print(json.dumps([vars(finding) for finding in result]))
