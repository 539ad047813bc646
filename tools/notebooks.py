"""Make the notebooks from the chapter sources, and take edits made in Jupyter back.

    python -m tools.notebooks status               what is current, and why the rest is not
    python -m tools.notebooks build [NAME ...]     execute what changed and write the notebooks
    python -m tools.notebooks adopt NAME           take cells edited in Jupyter back into the source

NAME is a chapter: `04`, `04_softmax` or a path.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from tools import chapters
from tools.chapters import Chapter, ChapterError
from tools.inputs import differences, inputs

CELL_SECONDS = 300  # a cell that takes longer hangs
CHAPTER_SECONDS = 60  # of CPU time: the budget of a whole chapter
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass
class State:
    """How a notebook stands to its source: `current`, `prose`, `stale`, `missing` or `edited`."""

    kind: str
    reasons: list[str] = field(default_factory=list)


def edited_cells(nb: NotebookNode, source: NotebookNode) -> list[str]:
    """Name the cells of `nb` that somebody changed, added, removed or moved after it was made.

    A change that stands in the source too (an adopted one) does not count, nor one of the derived cell, which is written anew.
    """
    nb = chapters.own(nb)
    wanted, made, now = chapters.keys(source), list(nb.metadata.get("attnlib", {}).get("cells", [])), chapters.keys(nb)
    if now in (made, wanted):
        return []
    named = []
    for tag, a, b, c, d in difflib.SequenceMatcher(a=made, b=now, autojunk=False).get_opcodes():
        if tag != "equal":
            named += [chapters.describe(nb, i) for i in range(c, d) if now[i] not in wanted]
        if tag == "delete":
            named += [f"removed: {chapters.describe(source, wanted.index(key))}" for key in made[a:b]
                      if key in wanted and key not in now]
    return named or ["the order of the cells"]


def assess(chapter: Chapter) -> State:
    """Compare a chapter's notebook with its source and everything its outputs depend on."""
    source = chapters.read_source(chapter)
    nb = chapters.read_notebook(chapter)
    if nb is None:
        return State("missing", ["there is no notebook yet"])
    edited = edited_cells(nb, source)
    if edited:
        return State("edited", edited)
    record = nb.metadata.get("attnlib", {})
    changed = differences(record.get("inputs", {}), inputs(chapter.root, source))
    if changed:
        return State("stale", ["its code cells" if name == "code" else name for name in changed])
    if chapters.outputs_digest(nb) != record.get("outputs"):
        return State("stale", ["outputs that were not written by `make notebooks`"])
    if chapters.keys(nb) != chapters.keys(source):
        return State("prose", ["its text (the code is unchanged, so nothing has to run)"])
    whole = chapters.with_installing(chapter, source)
    if [cell.source for cell in nb.cells if chapters.derived(cell)] != [whole.cells[1].source]:
        return State("prose", ["the sentence on installing the library"])
    if chapters.form(nb) != chapters.form(whole):
        return State("prose", ["what Jupyter added when it saved the file"])
    return State("current")


def located(chapter: Chapter, nb: NotebookNode, starts: list[int], index: int, error: Exception) -> ChapterError:
    """Say where in the source an executed cell failed, with the end of its traceback."""
    if isinstance(error, CellExecutionError):
        trace = re.sub(r"\x1b\[[0-9;]*m", "", str(error.traceback)).strip().splitlines()
        trace = [line for line in trace if line.strip()]
        inside = [int(m[1]) for m in re.finditer(r"Cell In\[\d+\], line (\d+)", "\n".join(trace))]
        what = "\n".join(f"    {line}" for line in trace[-12:])
    else:
        inside = []
        what = "    " + (f"no result after {CELL_SECONDS} s" if isinstance(error, CellTimeoutError) else str(error))
    blank = nb.cells[index].source
    text = chapter.source.read_text(encoding="utf-8").splitlines()
    first = starts[index] + 1
    while blank.strip() and first <= len(text) and not text[first - 1].strip():
        first += 1  # blank lines between the marker and the code are not part of the cell
    line = first + (inside[0] - 1 if inside else 0)
    where = f"chapters/{chapter.name}.py:{line}: {chapters.describe(nb, index)} failed"
    return ChapterError(f"{where}\n{what}\n    The old notebook, if any, is as it was.")


def kernel_environment(private: str) -> dict[str, str]:
    """Return the environment that a chapter runs in: one thread, this Python, nobody's own start-up files."""
    own = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # the kernel draws inline
    return own | ONE_THREAD | {"IPYTHONDIR": private, "JUPYTER_PREFER_ENV_PATH": "1"}


def execute(chapter: Chapter, nb: NotebookNode, starts: list[int]) -> None:
    """Run every cell of `nb` in a fresh kernel of this environment, in the chapters' folder (in place)."""
    at = [0]
    with tempfile.TemporaryDirectory() as private:
        client = NotebookClient(
            nb, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False, store_widget_state=True,
            coalesce_streams=True, extra_arguments=["--log-level=ERROR"],  # its start-up remarks are not for us
            resources={"metadata": {"path": str(chapter.source.parent)}},
            on_cell_start=lambda cell, cell_index: at.__setitem__(0, cell_index),
        )
        try:
            client.execute(env=kernel_environment(private))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise located(chapter, nb, starts, at[0], error) from None


def cpu_seconds() -> float:
    """CPU time of all finished child processes, so also of the kernels that have shut down."""
    try:
        import resource
    except ImportError:
        return 0.0  # Windows does not tell
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make(chapter: Chapter, reuse: bool) -> str:
    """Write one notebook, executing it unless `reuse` (its outputs are current); return a line to print."""
    nb = chapters.with_installing(chapter, chapters.read_source(chapter))
    record = {"inputs": inputs(chapter.root, nb), "cells": chapters.keys(nb)}
    starts = chapters.lines(nb)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    began, used = time.perf_counter(), cpu_seconds()
    if reuse:
        old = chapters.read_notebook(chapter)
        done = [cell for cell in old.cells if cell.cell_type == "code"]
        for cell, before in zip(code, done, strict=True):
            cell.outputs, cell.execution_count = before.outputs, before.execution_count
        if "widgets" in old.metadata:
            nb.metadata["widgets"] = old.metadata.widgets
    else:
        execute(chapter, nb, starts)
        chapters.normalise(nb, chapter.name)
    nb.metadata["attnlib"] = {**record, "outputs": chapters.outputs_digest(nb)}
    chapters.write_notebook(chapter, nb)
    if reuse:
        return f"{chapter.name}: text renewed, outputs kept"
    used = cpu_seconds() - used
    line = f"{chapter.name}: executed {len(code)} code cells in {time.perf_counter() - began:.1f} s ({used:.1f} s CPU)"
    return line + (f"\n    over the budget of {CHAPTER_SECONDS} s CPU" if used > CHAPTER_SECONDS else "")


def build(wanted: list[Chapter], force: bool = False, discard: bool = False, jobs: int = 1) -> int:
    """Bring the notebooks of `wanted` up to date; return the number of chapters that failed."""
    failures, todo = [], []
    for chapter in wanted:
        try:
            state = assess(chapter)
        except (ChapterError, SyntaxError) as error:
            failures.append(f"{chapter.name}: {error}")
            continue
        if state.kind == "edited" and not discard:
            cells = "".join(f"\n    {cell}" for cell in state.reasons)
            failures.append(
                f"{chapter.name}: not overwritten, its notebook has edits that its source lacks:{cells}\n"
                f"    Keep them with `make adopt CH={chapter.name}`, or throw them away with\n"
                f"    `python -m tools.notebooks build {chapter.name} --discard`.")
        elif state.kind != "current" or force:
            why = ", ".join(state.reasons) if state.kind != "current" else "forced"
            print(f"{chapter.name}: to do ({why})", flush=True)
            todo.append((chapter, state.kind == "prose" and not force))
        else:
            print(f"{chapter.name}: current", flush=True)
    with ProcessPoolExecutor(max_workers=max(1, min(jobs, len(todo)))) as pool:
        running = {pool.submit(make, chapter, reuse): chapter for chapter, reuse in todo}
        for number, task in enumerate(as_completed(running), start=1):
            try:
                print(f"[{number}/{len(todo)}] {task.result()}", flush=True)
            except Exception as error:  # one broken chapter must not hide the others
                kind = "" if isinstance(error, ChapterError) else f"{type(error).__name__}: "
                failures.append(f"{running[task].name}: {kind}{error}")
                print(f"[{number}/{len(todo)}] {running[task].name}: FAILED", flush=True)
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return len(failures)


def adopt(chapter: Chapter) -> str:
    """Take the notebook's cells into the source, leaving untouched cells and the header as they are."""
    source, nb = chapters.read_source(chapter), chapters.read_notebook(chapter)
    if nb is None:
        raise ChapterError(f"{chapter.name}: there is no notebook to adopt from.")
    nb = chapters.own(nb)
    old, new = chapters.keys(source), chapters.keys(nb)
    if old == new:
        return f"{chapter.name}: the source already says what the notebook says"
    record = nb.metadata.get("attnlib", {}).get("cells", [])
    if not edited_cells(nb, source):
        raise ChapterError(f"{chapter.name}: nobody edited the notebook; it is the source that is newer. "
                           "Run `make notebooks`.")
    newer = [chapters.describe(source, i) for i, key in enumerate(old) if key not in record and key not in new]
    if record and newer:
        raise ChapterError(f"{chapter.name}: the source has changed since the notebook was made, too:"
                           + "".join(f"\n    {cell}" for cell in newer)
                           + "\n    Bring both together by hand: adopting would lose these.")
    header, *body = chapters.blocks(chapter.source.read_text(encoding="utf-8"))
    result, count = [header], 0
    for tag, a, b, c, d in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if tag == "equal":
            result += body[a:b]
            continue
        count += max(b - a, d - c)
        result += [written(cell) for cell in nb.cells[c:d]]
    text = "".join(block if block.endswith("\n\n") else block.rstrip("\n") + "\n\n" for block in result)
    temporary = chapter.source.with_suffix(".py.tmp")
    temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    os.replace(temporary, chapter.source)
    return f"{chapter.name}: {count} cell(s) taken into chapters/{chapter.name}.py"


def written(cell: NotebookNode) -> str:
    """Write one cell in the source form, with its `# %%` line."""
    bare = nbformat.v4.new_notebook()
    make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
    bare.cells.append(make(cell.source.rstrip(), metadata=chapters.kept(cell)))
    return chapters.blocks(jupytext.writes(bare, fmt="py:percent"))[1]


def main(arguments: list[str] | None = None) -> int:
    """Read the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("build", "adopt", "status"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--force", action="store_true", help="execute even what is current")
    parser.add_argument("--discard", action="store_true", help="throw away edits made in Jupyter")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="chapters at a time")
    parser.add_argument("--root", type=Path, default=chapters.ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        wanted = chapters.find(options.root, options.names)
        if options.command == "build":
            return 1 if build(wanted, options.force, options.discard, options.jobs) else 0
        if options.command == "adopt":
            if len(options.names) != 1:
                raise ChapterError("adopt takes one chapter: make adopt CH=04_softmax")
            print(adopt(wanted[0]))
            return 0
        states = {chapter.name: assess(chapter) for chapter in wanted}
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1
    for name, state in states.items():
        print(f"{name:<28} {state.kind:<8} {', '.join(state.reasons)}")
    return 0 if all(state.kind == "current" for state in states.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
