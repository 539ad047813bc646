"""The shape of a chapter: short cells, predictions, exercises, sources."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from statistics import median

import coursework
from tests.guards import Finding, at, code_cells, exercise, tags
from tools import chapters
from tools import exercises as pool
from tools.chapters import Chapter
from tools.exercises import PARTS

MEDIAN, NINETY, LONGEST = 6, 15, 30  # lines of code in a cell: the median, nine in ten, all
PREDICTIONS, EXERCISES = 3, 3
DROPDOWN = re.compile(r"^(?::{3,}|`{3,})\{(?:dropdown|toggle)\}", re.MULTILINE)
CITE = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")


def parses(chapter: Chapter) -> list[Finding]:
    """Every code cell is Python alone: it parses, and has no magics."""
    source, found = chapters.read_source(chapter), []
    for index, cell in enumerate(source.cells):
        if cell.cell_type != "code":
            continue
        if not cell.source.strip():
            found.append(Finding(at(chapter, source, index), "is empty", "remove it"))
        if re.search(r"^\s*[%!]", cell.source, re.MULTILINE):
            found.append(Finding(at(chapter, source, index), "has a magic or a shell command", "write it in Python"))
            continue
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            found.append(Finding(at(chapter, source, index), f"is not Python: {error.msg}"))
    return found


def lines(text: str) -> int:
    """The lines of a cell that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


def lengths(chapter: Chapter) -> list[Finding]:
    """Cells are short: half of them at most 6 lines, nine in ten at most 15, none over 30."""
    source = chapters.read_source(chapter)
    sizes = {i: lines(cell.source) for i, cell in enumerate(source.cells) if cell.cell_type == "code"}
    found = [Finding(at(chapter, source, i), f"has {size} lines, the limit is {LONGEST}", "split it, with prose between")
             for i, size in sizes.items() if size > LONGEST]
    ordered = sorted(sizes.values())
    if not ordered:
        return [Finding(f"chapters/{chapter.name}.py", "has no code cell")]
    if median(ordered) > MEDIAN:
        found.append(Finding(f"chapters/{chapter.name}.py", f"half of its code cells have more than {MEDIAN} lines "
                             f"(median {median(ordered):g})", "one idea a cell"))
    if ordered[int(len(ordered) * 0.9)] > NINETY:
        long = [chapters.describe(source, i) for i, size in sizes.items() if size > NINETY]
        found.append(Finding(f"chapters/{chapter.name}.py", f"more than one code cell in ten has over {NINETY} lines: "
                             + "; ".join(long), "split them"))
    return found


def exercises(chapter: Chapter) -> list[Finding]:
    """At least three exercises, each with prompt, stub, check and solution, in this order, as the pool has them."""
    source, found = chapters.read_source(chapter), []
    parts: dict[str, list[tuple[int, str]]] = {}
    for index, cell in enumerate(source.cells):
        mine, name = tags(cell) & {*PARTS}, exercise(cell)
        if mine and not name:
            found.append(Finding(at(chapter, source, index), f"is tagged {', '.join(mine)} alone", "add the tag ex:<name>"))
        if name and len(mine) != 1:
            found.append(Finding(at(chapter, source, index), f"is tagged ex:{name} but not as one part of it",
                                 f"add one of {', '.join(PARTS)}"))
        for part in mine if name else ():
            wanted = "markdown" if part == "ex-prompt" else "code"
            if cell.cell_type != wanted:
                found.append(Finding(at(chapter, source, index), f"is {part} in a {cell.cell_type} cell", f"a {wanted} cell"))
            if part == "ex-prompt" and "ex-open" in tags(cell):
                continue
            parts.setdefault(name, []).append((index, part))
            found += _in_step(chapter, source, index, name, part)
            if part == "ex-solution" and "hide-cell" not in tags(cell):
                found.append(Finding(at(chapter, source, index), "solution is not folded", "add the tag hide-cell"))
    whole = 0
    for name, seen in parts.items():
        order = [part for _, part in seen]
        if sorted(order, key=PARTS.index) != order or set(order) != set(PARTS):
            found.append(Finding(at(chapter, source, seen[0][0]), f"exercise {name} has {', '.join(order)}",
                                 f"it needs {', '.join(PARTS)}, in this order"))
        else:
            whole += 1
    if whole < EXERCISES:
        found.append(Finding(f"chapters/{chapter.name}.py", f"has {whole} whole exercises, at least {EXERCISES} are needed"))
    return found


def _in_step(chapter: Chapter, source, index: int, name: str, part: str) -> list[Finding]:
    """A cell of an exercise is what its file in the pool says."""
    place = at(chapter, source, index)
    if name not in coursework.names():
        return [Finding(place, f"belongs to {name}, which coursework/pool/ lacks", "write the exercise there first")]
    exercise = coursework.get(name)
    if exercise.chapter not in ("", chapter.name):
        return [Finding(place, f"belongs to {name}, whose CHAPTER is {exercise.chapter}")]
    if pool.follows(part, source.cells[index].source, pool.render(exercise)[part]):
        return []
    return [Finding(place, f"differs from coursework/pool/{name}.py",
                    f"edit the exercise there, then `python -m tools.exercises {chapter.name[:2]}`")]


def all_of_the_pool(root: Path) -> list[Finding]:
    """Every exercise of the pool that names a chapter stands in it."""
    standing = {(chapter.name, exercise(cell)) for chapter in chapters.find(root)
                for cell in chapters.read_source(chapter).cells if exercise(cell)}
    return [Finding(f"coursework/pool/{name}.py", f"says CHAPTER = {wanted!r}, but {wanted} has no such exercise")
            for name in coursework.names()
            if (wanted := coursework.get(name).chapter) and (wanted, name) not in standing]


def predictions(chapter: Chapter) -> list[Finding]:
    """At least three questions with a folded answer, the exercises not counted."""
    source = chapters.read_source(chapter)
    count = sum(len(DROPDOWN.findall(cell.source)) for cell in source.cells
                if cell.cell_type == "markdown" and not exercise(cell))
    if count >= PREDICTIONS:
        return []
    return [Finding(f"chapters/{chapter.name}.py", f"has {count} predictions, at least {PREDICTIONS} are needed",
                    "ask before the cell and fold the answer away in a {dropdown}")]


def sources(chapter: Chapter) -> list[Finding]:
    """The chapter cites papers, and every key it cites is in the bibliography."""
    source, found, count = chapters.read_source(chapter), [], 0
    bibliography = chapter.root / "references.bib"
    known = set(re.findall(r"^@\w+\{\s*([^,\s]+)", bibliography.read_text(encoding="utf-8"), re.MULTILINE)
                if bibliography.exists() else ())
    for index, cell in enumerate(source.cells):
        if cell.cell_type != "markdown":
            continue
        for key in (k.strip() for group in CITE.findall(cell.source) for k in group.split(",")):
            count += 1
            if key not in known:
                found.append(Finding(at(chapter, source, index), f"cites {key}, which references.bib lacks"))
    return found + ([] if count else [Finding(f"chapters/{chapter.name}.py", "cites nothing", "{cite}`key` at the claim")])


def names(chapter: Chapter) -> list[Finding]:
    """A function or class is defined once in a chapter (an exercise's stub and solution aside)."""
    source, found, seen = chapters.read_source(chapter), [], {}
    for index, cell, tree in code_cells(source):
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not exercise(cell):
                if node.name in seen:
                    found.append(Finding(at(chapter, source, index), f"defines {node.name} again",
                                         "another name for another meaning (softmax_naive)"))
                seen[node.name] = index
    return found
