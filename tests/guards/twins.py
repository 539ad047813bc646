"""The book and the library are one text: a function that both define is the same code in both.

Compared are syntax trees without docstrings, annotations and decorators. A chapter's definition of a name
that several rooms define (attention, in NumPy and in torch) must equal one of them. In an exercise the stub
is exempt and the solution is compared; a check's helpers are compared like everything else.
"""

from __future__ import annotations

import ast
import difflib
import re
from pathlib import Path

from tests.guards import Finding, at, code_cells, tags
from tools import chapters
from tools.chapters import Chapter

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class _Bare(ast.NodeTransformer):
    """Drops what a twin may differ in."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns, node.decorator_list = None, []
        return self._without_docstring(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = []
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is not None:
            return ast.Assign(targets=[node.target], value=node.value)
        node.annotation = ast.Constant(value=None)
        return node

    def _without_docstring(self, node: Definition) -> ast.AST:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        self.generic_visit(node)
        return node


def bare(node: Definition) -> str:
    """The code of a definition, without docstrings, annotations and decorators, in one normal form."""
    copy = ast.parse(ast.unparse(node)).body[0]
    return ast.unparse(ast.fix_missing_locations(_Bare().visit(copy)))


def library(root: Path) -> dict[str, dict[str, str]]:
    """Every public top-level definition of attnlib: name -> {module: bare code}."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((root / "attnlib").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, Definition) and not node.name.startswith("_"):
                found.setdefault(node.name, {})[module] = bare(node)
    return found


def room(module: str) -> str:
    """The room that a module belongs to, which re-exports what its files define: attnlib.costs for attnlib.costs.steps."""
    return ".".join(module.split(".")[:2])


def twins(chapter: Chapter) -> list[Finding]:
    """Each function or class that the chapter and attnlib both define is the same code."""
    known, source, found = library(chapter.root), chapters.read_source(chapter), []
    prose = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    for index, cell, tree in code_cells(source):
        if "ex-stub" in tags(cell):
            continue
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                for target in node.targets:
                    if isinstance(target, ast.Name) and target.id in known:
                        found.append(Finding(at(chapter, source, index), f"{target.id} is a lambda here and a function in "
                                             "attnlib", "write it with def, as the library does"))
            if not isinstance(node, Definition) or node.name not in known:
                continue
            mine, theirs = bare(node), known[node.name]
            if mine not in theirs.values():
                module, code = max(theirs.items(), key=lambda item: difflib.SequenceMatcher(None, mine, item[1]).ratio())
                change = "\n".join(difflib.unified_diff(mine.splitlines(), code.splitlines(), f"chapter {node.name}",
                                                        f"{module}.{node.name}", lineterm="", n=1))
                found.append(Finding(at(chapter, source, index), f"{node.name} is not the code of {module}.{node.name}",
                                     f"make them equal, or give this version another name\n{change}"))
            elif "ex-solution" not in tags(cell) and not any(
                    re.search(rf"\b{re.escape(name)}\.{node.name}\b", prose) for module in theirs for name in (module, room(module))):
                module = room(next(m for m, code in theirs.items() if code == mine))
                found.append(Finding(at(chapter, source, index), f"the text never says that {node.name} is in the library",
                                     f"mention `{module}.{node.name}` after this cell"))
    return found
