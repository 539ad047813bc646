"""Who may import whom inside attnlib, read from the syntax trees (imports inside functions count)."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.guards import Finding


@dataclass(frozen=True)
class Room:
    """What a room may import: packages from outside, and rooms of attnlib ("*": any but those in `never`)."""

    outside: frozenset[str]
    inside: frozenset[str]
    never: frozenset[str] = frozenset()


NUMPY = Room(frozenset({"numpy"}), frozenset({"reference", "positions", "masks", "costs"}))
TORCH = Room(frozenset({"numpy", "torch"}), frozenset({"*"}),
             frozenset({"reference", "positions", "plots", "widgets", "kernels"}))
ROOMS = {
    "": Room(frozenset(), frozenset()),  # attnlib/__init__.py: a map, no imports
    "reference": NUMPY,
    "positions": NUMPY,
    "masks": NUMPY,
    "costs": NUMPY,
    "data": Room(frozenset({"numpy", "torch", "safetensors"}), frozenset()),
    "measure": Room(frozenset({"numpy", "torch", "tqdm"}), frozenset({"costs"})),
    "plots": Room(frozenset({"numpy", "matplotlib"}), frozenset()),
    "widgets": Room(frozenset({"numpy", "anywidget", "ipywidgets", "traitlets"}), frozenset({"reference", "masks", "costs"})),
    "kernels": Room(frozenset({"numpy", "torch", "triton"}), frozenset({"*"}),
                    frozenset({"reference", "positions", "plots", "widgets"})),
    "models": Room(frozenset({"numpy", "torch", "safetensors", "tokenizers"}), TORCH.inside, TORCH.never),
}
LAZY = {"data": {"torch", "safetensors"}, "measure": {"tqdm"}}  # only inside functions there
OUTSIDERS = {"coursework", "tests", "tools", "chapters"}  # attnlib imports none of these, anywhere


def room_of(path: Path, root: Path) -> str:
    """The room a file belongs to: `plots` for attnlib/plots/style.py, "" for attnlib/__init__.py."""
    parts = path.relative_to(root / "attnlib").with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def import_rules(root: Path) -> list[Finding]:
    """Every import in attnlib is one its room allows."""
    found = []
    for path in sorted((root / "attnlib").rglob("*.py")):
        room = room_of(path, root)
        rule = NUMPY if room.startswith("_") else ROOMS.get(room, TORCH)
        for line, name, lazy in imports(path, root):
            where = f"{path.relative_to(root).as_posix()}:{line}"
            top, _, rest = name.partition(".")
            if top in OUTSIDERS:
                found.append(Finding(where, f"imports {name}", "attnlib stands alone"))
            elif top == "attnlib":
                target = rest.split(".")[0]
                private = target.startswith("_")
                if target in ("", room) or private or target in rule.inside:
                    continue
                if "*" not in rule.inside or target in rule.never:
                    found.append(Finding(where, f"room {room or 'attnlib'!r} imports attnlib.{target}",
                                         "see `Who may import whom` in CONTRIBUTING.md"))
            elif top not in sys.stdlib_module_names and top not in rule.outside:
                found.append(Finding(where, f"room {room or 'attnlib'!r} imports {top}",
                                     f"it may import {', '.join(sorted(rule.outside)) or 'nothing'} and the standard library"))
            elif top in LAZY.get(room, ()) and not lazy:
                found.append(Finding(where, f"room {room!r} imports {top} at the top", "import it inside the function"))
    return found


def imports(path: Path, root: Path) -> list[tuple[int, str, bool]]:
    """Every import of a file: (line, dotted name, whether it stands inside a function)."""
    package = list(path.relative_to(root).parent.parts)
    found: list[tuple[int, str, bool]] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node = ast.Module(body=node.orelse, type_ignores=[])  # annotations only: never executed
        if isinstance(node, ast.Import):
            found.extend((node.lineno, alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            deeper = module == "attnlib"  # `from attnlib import masks` imports a room
            found.extend((node.lineno, f"{module}.{alias.name}" if deeper else module, lazy) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant):
                found.append((node.lineno, str(node.args[0].value), True))
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found
