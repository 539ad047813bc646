"""What runs a cell inside the page's worker: the same displays as a notebook's, short tracebacks, bounded output.

Plain Python, packed into the wheel that the pages load; the worker (`worker.mjs`) calls `needs`, `arrived` and `run`.
Everything a cell says goes to one function ``emit(kind, data)``: kinds are text (``stdout``, ``stderr``, ``result``,
``error``), ``html`` and ``image`` (the bytes of a PNG).
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.abc
import importlib.machinery
import io
import linecache
import pprint
import sys
import time
import traceback
import types
from collections.abc import Callable

MOST_TEXT = 100_000  # characters a cell may print; a loop that never ends must not fill the reader's memory
MOST_IMAGES = 20
EAGER, PAUSE = 200, 0.05  # so many pieces of text are sent at once, later ones every 50 ms
ELSEWHERE = {"torch": "PyTorch", "triton": "Triton", "ipywidgets": "ipywidgets"}
FIGURES, WIDGETS = "matplotlib", "traitlets"  # loaded when a cell first needs them

Emit = Callable[[str, object], None]
space = types.ModuleType("__main__")  # the names of the page's cells


# --- Matplotlib comes when a figure is drawn, not when it is imported: most readers never wait for it ----------------

class NotLoaded(AttributeError):
    """A figure was asked for before Matplotlib came (by a route that `needs` does not see)."""


class Later(types.ModuleType):
    """Stands for a module of Matplotlib, or one that imports it, until it is needed."""

    __path__: list = []

    def __getattr__(self, name: str) -> object:
        if _later.waiting or name.startswith("__"):
            raise NotLoaded("Matplotlib is loaded for cells that draw; this one does so in a roundabout way. Run it again after a "
                            "cell with a figure." if not name.startswith("__") else name)
        return getattr(importlib.import_module(self.__name__), name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    waiting = True

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if self.waiting and (name.split(".")[0] == FIGURES or name == "attnlib.plots" or name.startswith("attnlib.plots.")):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Later(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


_later = _Finder()


def needs(source: str) -> list[str]:
    """The packages that a cell needs and that are not there yet."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    wanted = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] == FIGURES or node.module.startswith("attnlib.plots."):
                wanted.add(FIGURES)
            if node.module.startswith("attnlib.widgets"):
                wanted.add(WIDGETS)
        elif isinstance(node, ast.Import):
            wanted |= {WIDGETS for name in node.names if name.name.startswith("attnlib.widgets")}
    lazily = {(a.asname or a.name).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)
              for a in node.names if FIGURES in a.name or (getattr(node, "module", None) or a.name).startswith("attnlib.plots")}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if used & lazily or any(isinstance(vars(space).get(name), Later) for name in _reached(used)):
        wanted.add(FIGURES)
    return sorted(package for package in wanted if package not in _here)


_here: set[str] = set()
_screens: list[Screen] = []  # of the cell that runs


def _reached(names: set[str]) -> set[str]:
    """These names, and those that the reader's functions among them use, and so on."""
    seen: set[str] = set()
    todo = set(names)
    while todo:
        name = todo.pop()
        seen.add(name)
        codes = [getattr(vars(space).get(name), "__code__", None)]
        while codes:
            if (code := codes.pop()) is not None:
                todo |= set(code.co_names) - seen
                codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return seen


def arrived(package: str) -> None:
    """Say that a package has been loaded: what stood in its place gives way."""
    _here.add(package)
    if package != FIGURES:
        return
    _later.waiting = False
    for name in [name for name, module in sys.modules.items() if isinstance(module, Later)]:
        del sys.modules[name]
        parent, _, own = name.rpartition(".")
        if parent in sys.modules and isinstance(vars(sys.modules[parent]).get(own), Later):
            delattr(sys.modules[parent], own)
    importlib.invalidate_caches()
    pyplot = importlib.import_module("matplotlib.pyplot")
    pyplot.show = _show
    for name, value in list(vars(space).items()):
        if isinstance(value, Later):
            setattr(space, name, importlib.import_module(value.__name__))


# --- What a cell shows ----------------------------------------------------------------------------------------------

class TooMuch(BaseException):
    """More output than a page should hold. Not an Exception: a bare `except Exception` does not stop it."""


class Screen:
    """Where one cell's output goes, in order and within bounds."""

    def __init__(self, emit: Emit) -> None:
        self.emit, self.length, self.images, self.sent, self.last = emit, 0, 0, 0, 0.0
        self.kind, self.parts = "stdout", []

    def text(self, kind: str, text: str) -> None:
        """Show text, at once at first, later in larger pieces."""
        if kind != self.kind:
            self.flush()
            self.kind = kind
        room = MOST_TEXT - self.length
        self.length += len(text)
        if room > 0 and text:
            self.parts.append(text[:room])
        if self.sent < EAGER or time.monotonic() - self.last > PAUSE or len(text) >= room:
            self.flush()
        if len(text) > room:
            raise TooMuch

    def flush(self) -> None:
        """Send what has been kept back."""
        if self.parts:
            self.emit(self.kind, "".join(self.parts))
            self.sent, self.last, self.parts = self.sent + 1, time.monotonic(), []

    def show(self, kind: str, data: object) -> None:
        """Show something that is not a stream."""
        self.flush()
        if kind == "image":
            self.images += 1
            if self.images > MOST_IMAGES:
                raise TooMuch
            self.emit(kind, data)
        else:
            self.length += len(data)
            self.emit(kind, data if len(data) <= MOST_TEXT else data[:MOST_TEXT] + "\n…")
            if self.length > 2 * MOST_TEXT:
                raise TooMuch


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a cell."""

    encoding = "utf-8"

    def __init__(self, screen: Screen, kind: str) -> None:
        self.screen, self.kind = screen, kind

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.screen.text(self.kind, str(text))
        return len(text)

    def flush(self) -> None:
        self.screen.flush()


def plain(value: object) -> str:
    """The text of a value, as a notebook shows it: long containers over several lines."""
    text = repr(value)
    if len(text) > 79 and isinstance(value, dict | list | tuple | set | frozenset) and "\n" not in text:
        return pprint.pformat(value, width=79, compact=False, sort_dicts=False)
    return text


def drawn(figure: object) -> bytes:
    """A Matplotlib figure as PNG, cut to what is drawn, as in a notebook."""
    file, engine = io.BytesIO(), figure.get_layout_engine()
    if engine is not None:  # once: cutting to what is drawn draws twice, and would lay out twice, the slowest part here
        engine.execute(figure)
        figure.set_layout_engine("none")
    figure.savefig(file, format="png", bbox_inches="tight", dpi=figure.dpi)
    if engine is not None:
        figure.set_layout_engine(engine)
    return file.getvalue()


def figures(screen: Screen) -> None:
    """Show every open figure and close it."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or isinstance(pyplot, Later):
        return
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        pyplot.close(figure)
        screen.show("image", drawn(figure))


def _show(*args: object, **kwargs: object) -> None:
    """What `plt.show()` is on the page."""
    for screen in _screens:
        figures(screen)


def display(screen: Screen, *values: object) -> None:
    """Show values as the last line of a cell does."""
    for value in values:
        pyplot = sys.modules.get("matplotlib.pyplot")
        if hasattr(value, "savefig") and pyplot is not None:
            pyplot.close(value)
            screen.show("image", drawn(value))
            continue
        bundle = getattr(value, "_repr_mimebundle_", None)
        found = bundle() if callable(bundle) and not isinstance(value, type) else {}
        found = (found[0] if isinstance(found, tuple) else found) or {}
        as_html = getattr(value, "_repr_html_", None)
        markup = found.get("text/html") or (as_html() if callable(as_html) and not isinstance(value, type) else None)
        if markup:
            screen.show("html", markup)
        else:
            screen.show("result", plain(value))


# --- One cell -------------------------------------------------------------------------------------------------------

def complaint(error: BaseException, name: str) -> str:
    """An error as the reader needs it: the lines of the page's cells, not those of the libraries, then what is wrong."""
    last = "".join(traceback.format_exception_only(error)).rstrip()
    if isinstance(error, SyntaxError) and error.filename == name:
        mark = " " * max((error.offset or 1) - 1, 0) + "^"
        text = (error.text or "").rstrip("\n")
        return f"{name}, line {error.lineno}\n    {text}\n    {mark}\n{type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("cell ")]
    lines = []
    for i, frame in enumerate(frames):
        if len(frames) > 8 and 3 <= i < len(frames) - 3:
            if i == 3:
                lines.append(f"… {len(frames) - 6} more")
            continue
        inside = "" if frame.name == "<module>" else f", in {frame.name}"
        lines += [f"{frame.filename}, line {frame.lineno}{inside}", f"    {frame.line}"]
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in ELSEWHERE:
        last += f"\n{ELSEWHERE[error.name.split('.')[0]]} does not run in a browser: take the notebook, and run it on your machine."
    return "\n".join([*lines, last])


def run(number: int, source: str, emit: Emit) -> bool:
    """Run one cell; return whether it ended without an error."""
    name, screen = f"cell {number}", Screen(emit)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Stream(screen, "stdout"), Stream(screen, "stderr")
    space.display = lambda *values: display(screen, *values)
    _screens[:] = [screen]
    try:
        tree = ast.parse(source, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), vars(space))
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), vars(space))
            if value is not None:
                space._ = value
                display(screen, value)
        figures(screen)
        return True
    except TooMuch:
        screen.parts = []
        emit("error", f"Stopped: a cell may show {MOST_TEXT:,} characters and {MOST_IMAGES} figures on the page.")
        return False
    except BaseException as error:
        screen.length = 0
        screen.flush()
        emit("error", complaint(error, name)[:MOST_TEXT])
        return False
    finally:
        screen.flush()
        sys.stdout, sys.stderr = before


def _no_input(prompt: str = "") -> str:
    raise EOFError("input() has nobody to ask on the page: write the value into the cell")


def prepare() -> None:
    """Once, before the first cell."""
    vars(space).update(__name__="__main__", __builtins__=builtins)
    sys.modules["__main__"] = space  # where inspect and pickle look for what the cells define
    builtins.input = _no_input
    sys.meta_path.insert(0, _later)
