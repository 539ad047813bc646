"""The guards: each is a function that reads a tree and returns a list of findings, empty when all is well.

The tests call them on this repository, and on copies in which something has been broken on purpose;
`make check CH=...` calls those that concern one chapter.
"""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from tools import chapters
from tools.chapters import Chapter


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, what, and what to do about it."""

    where: str
    what: str
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" → {self.todo}" if self.todo else "")


def show(findings: list[Finding]) -> str:
    """Render findings for a failing test, one a line."""
    return "\n" + "\n".join(str(finding) for finding in findings)


def tags(cell: NotebookNode) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def exercise(cell: NotebookNode) -> str:
    """The name of the exercise that a cell belongs to, or an empty string."""
    return next((tag.removeprefix("ex:") for tag in sorted(tags(cell)) if tag.startswith("ex:")), "")


def at(chapter: Chapter, nb: NotebookNode, index: int) -> str:
    """The place of a cell: `chapters/04_softmax.py:79 cell 8`, clickable in most editors."""
    line = f":{nb.cells[index].line}" if "line" in nb.cells[index] else ""
    return f"chapters/{chapter.name}.py{line} {chapters.describe(nb, index)}"


def code_cells(nb: NotebookNode) -> list[tuple[int, NotebookNode, ast.Module]]:
    """All code cells that parse, with their index and syntax tree."""
    found = []
    for index, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            try:
                found.append((index, cell, ast.parse(cell.source)))
            except SyntaxError:
                continue  # `unparsable` names these
    return found


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a name or a chain of attributes, otherwise an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def tracked(root: Path) -> list[Path]:
    """The files of the project: what git tracks or would add, or every file where there is no git."""
    listing = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"],
                             capture_output=True, text=True, check=False)
    names = listing.stdout.splitlines() if listing.returncode == 0 else [
        p.relative_to(root).as_posix() for p in root.rglob("*")]
    return sorted(root / name for name in names if (root / name).is_file())
