"""What a notebook's outputs are derived from: its code, the library it imports, data files and pins.

A notebook is executed again when one of these changes, and only then. Comments and docstrings do not
count (a reworded docstring does not make seven chapters stale); where a chapter shows a docstring or a
source text, nbval compares what it printed.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

from tools.chapters import digest

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;#]+)", re.MULTILINE)
NOT_DATA = (".py", ".pyc", ".md", ".mjs", ".css")  # what runs in the reader's browser changes nothing that is stored
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def without_prose(text: str) -> str:
    """Return Python text without comments, docstrings and blank lines."""
    rows = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            rows[row - 1] = rows[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DEFINITIONS) and ast.get_docstring(node) is not None:
            doc = node.body[0]
            if rows[doc.lineno - 1][: doc.col_offset].strip() == "":  # not `def f(): "one line"`
                rows[doc.lineno - 1 : doc.end_lineno] = [""] * (doc.end_lineno - doc.lineno + 1)
    return "\n".join(row.rstrip() for row in rows if row.strip())


def imported(tree: ast.AST, package: str = "") -> set[str]:
    """Return every dotted name that `tree` may import, in functions too, with all its prefixes."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if dotted.startswith("attnlib.") and dotted.replace(".", "").isidentifier():
                names.add(dotted)
    return {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}


def module_file(root: Path, name: str) -> Path | None:
    """Return the file of an attnlib module, or None if `name` is something else."""
    if name.split(".")[0] != "attnlib":
        return None
    path = root.joinpath(*name.split("."))
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)


def library(root: Path, names: Iterable[str]) -> tuple[set[Path], set[str]]:
    """Follow imports from `names`; return the attnlib files reached and every name imported on the way."""
    files, seen, queue = set(), set(), list(names)
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        file = module_file(root, name)
        if file:
            files.add(file)
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            queue += imported(ast.parse(file.read_text(encoding="utf-8")), package)
    return files, seen


def inputs(root: Path, nb: NotebookNode) -> dict[str, str]:
    """Return what the outputs of `nb` depend on, each with its fingerprint or version.

    Keys are `code`, the files of attnlib, data files, and the pinned packages that the chapter reaches.
    """
    code = [cell.source.rstrip() for cell in nb.cells if cell.cell_type == "code"]
    found = {"code": digest(*code)}
    names = set()
    for cell in code:
        try:
            names |= imported(ast.parse(cell))
        except SyntaxError:
            continue  # executing it will say so, with the place
    files, names = library(root, names)
    for file in sorted(files):
        found[file.relative_to(root).as_posix()] = digest(without_prose(file.read_text(encoding="utf-8")))
        if file.name == "__init__.py":  # a package brings its data files along
            for extra in sorted(p for p in file.parent.iterdir() if p.is_file() and p.suffix not in NOT_DATA):
                found[extra.relative_to(root).as_posix()] = digest(extra.read_bytes())
    recorded = root / "chapters" / "data"
    for extra in sorted(recorded.glob("*")) if recorded.is_dir() else []:
        if any(extra.name in cell for cell in code):
            found[extra.relative_to(root).as_posix()] = digest(extra.read_bytes())
    pins = dict(PIN.findall((root / "requirements.txt").read_text(encoding="utf-8")))
    return found | {name: pins[name] for name in sorted(pins) if name in names}


def differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Name the inputs that changed between two records."""
    return [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
