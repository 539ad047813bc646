"""From a submitted notebook to the lines that one function needs. Reads text, runs none of it; standard library only.

Functions are found by name, wherever they stand, and only what they need comes along: imports, helpers, assignments. So
duplicated or reordered cells do not matter, a cell with a syntax error costs only what stands in it, and plots, prints,
checks and endless loops between the functions are not run at all.
"""

from __future__ import annotations

import ast
import json
import re
import symtable
from dataclasses import dataclass

LIBRARY = {"softmax", "log_softmax", "logsumexp", "scaled_dot_product_attention", "MultiheadAttention", "flex_attention",
           "multi_head_attention_forward", "Softmax", "TransformerEncoderLayer"}
UNUSUAL = {"eval", "exec", "__import__", "globals", "open", "os", "sys", "gc", "inspect", "ctypes", "subprocess", "socket",
           "threading", "signal", "importlib", "builtins", "tracemalloc"}


class Unreadable(Exception):
    """A submission that is no notebook and no Python file; the message says why."""


@dataclass
class Statement:
    """A top-level statement: where it stands, what it binds and what it uses."""

    cell: int
    text: str
    node: ast.stmt
    binds: set
    uses: set


def cells(data: bytes, suffix: str) -> list[str]:
    """The code cells of a notebook, or the parts of a Python file between its `# %%` lines.

    Raises
    ------
    Unreadable
        If the bytes are not a notebook, or not text.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("it is not UTF-8 text") from error
    if suffix == ".py":
        return re.split(r"(?m)^# %%.*$", text)
    try:
        nb = json.loads(text)
        found = []
        for cell in nb["cells"]:
            if cell["cell_type"] == "code":
                source = cell["source"]
                found.append(source if isinstance(source, str) else "".join(source))
        return found
    except RecursionError as error:
        raise Unreadable("it is nested too deeply") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable("it is not a Jupyter notebook that can be read") from error


def statements(sources: list[str]) -> tuple[list[Statement], dict[int, str]]:
    """All top-level statements of the cells that can be parsed, and for the others why not (by number, from 1)."""
    found, broken = [], {}
    for number, source in enumerate(sources, start=1):
        if re.match(r"\s*%%(?!time\b|timeit\b|capture\b)", source):
            continue                                        # a cell in another language
        source = re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source.replace("\t", "    "))
        try:
            tree = ast.parse(source)
            for node in tree.body:
                found.append(_statement(number, source, node))
        except SyntaxError as error:
            broken[number] = f"{error.msg} (line {error.lineno})"
        except (ValueError, RecursionError, MemoryError) as error:
            broken[number] = f"it cannot be parsed ({type(error).__name__})"
    return found, broken


def _statement(number: int, source: str, node: ast.stmt) -> Statement:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    lines = source.splitlines()[first - 1: node.end_lineno]
    text = "\n".join(lines)
    try:
        alone = len(ast.parse(text).body) == 1
    except SyntaxError:
        alone = False
    text = text if alone else ast.unparse(node)
    table = symtable.symtable(text, "cell", "exec")
    binds, uses = set(), set()
    for symbol in table.get_symbols():
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
            binds.add(symbol.get_name())
        if symbol.is_referenced():
            uses.add(symbol.get_name())
    for child in table.get_children():
        uses |= _globals(child)
    if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
        binds.add("*")
    if isinstance(node, ast.Assign | ast.AugAssign):         # table[0] = 1 belongs to table
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            while isinstance(target, ast.Attribute | ast.Subscript):
                target = target.value
                if isinstance(target, ast.Name):
                    binds.add(target.id)
    return Statement(number, text, node, binds, uses)


def _globals(table: symtable.SymbolTable) -> set:
    names = {s.get_name() for s in table.get_symbols() if s.is_global()}
    for child in table.get_children():
        names |= _globals(child)
    return names


def _is_def(s: Statement) -> bool:
    return isinstance(s.node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)


def _is_stub(s: Statement) -> bool:
    body = [n for n in getattr(s.node, "body", [])
            if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    if len(body) != 1 or not isinstance(body[0], ast.Raise):
        return False
    raised = body[0].exc.func if isinstance(body[0].exc, ast.Call) else body[0].exc
    return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"


def needed(all_statements: list[Statement], name: str) -> list[Statement]:
    """The statements that the function `name` needs, itself included, in their order; [] if it is not defined."""
    usable = [s for s in all_statements if not _is_main(s)]
    definitions = [s for s in usable if name in s.binds and not isinstance(s.node, ast.Import | ast.ImportFrom)]
    if not definitions:
        return []
    wanted, seen, kept = [name], set(), []
    while wanted:
        current = wanted.pop()
        if current in seen:
            continue
        seen.add(current)
        binding = [s for s in usable if current in s.binds]
        defs = [s for s in binding if _is_def(s)]
        real = [s for s in defs if not _is_stub(s)] or defs
        dropped = [s for s in defs if not any(s is r for r in real)]    # a stub pasted after the answer
        for s in binding:
            if not any(s is d for d in dropped) and not any(s is k for k in kept):
                kept.append(s)
                wanted += sorted(s.uses)
    stars = [s for s in usable if "*" in s.binds]
    return [s for s in usable if any(s is k for k in [*kept, *stars])]


def _is_main(s: Statement) -> bool:
    return isinstance(s.node, ast.If) and "__name__" in s.uses


def review(part: list[Statement]) -> list[str]:
    """What a person should look at in these statements: library shortcuts and unusual names."""
    own = set().union(*(s.binds for s in part if _is_def(s)), set())
    found = set()
    for s in part:
        for node in ast.walk(s.node):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or ""
                for alias in node.names:
                    whole = f"{module}.{alias.name}" if module else alias.name
                    if whole.split(".")[0] in {"attnlib", "coursework"} or alias.name in LIBRARY or \
                            whole.split(".")[0] in UNUSUAL:
                        found.add(whole)
            elif isinstance(node, ast.Attribute) and node.attr in LIBRARY | {"__globals__", "__subclasses__", "__code__"}:
                found.add(ast.unparse(node)[:60])
            elif isinstance(node, ast.Name) and node.id in LIBRARY | UNUSUAL and node.id not in own:
                found.add(node.id)
    return sorted(found)


def survey(data: bytes, suffix: str, names: list[str]) -> dict:
    """Everything the grader wants to know of a submission before it runs any of it.

    Returns
    -------
    dict
        "broken": {cell: why}, "functions": {name: {"source", "uses", "review"}} for those that are defined.
    """
    found, broken = statements(cells(data, suffix))
    functions = {}
    for name in names:
        part = needed(found, name)
        if part:
            uses = set().union(*(s.uses for s in part)) & (set(names) - {name})
            functions[name] = {"source": "\n\n".join(s.text for s in part), "uses": sorted(uses), "review": review(part)}
    return {"broken": {str(k): v for k, v in broken.items()}, "functions": functions}
