"""Runs a page's cells in the browser: state kept between cells, last expressions shown, short tracebacks, figures.

The worker calls `needs(code)` to learn what has to be loaded first, then `run(code, number)`. Importing matplotlib takes
10 MB; a cell that only imports it does not wait for that. The import is kept and done when a cell uses its name.
"""

import ast
import base64
import io
import linecache
import sys
import traceback

MOST_TEXT = 200_000  # characters of a cell's output: a loop that prints without end must not fill the page
FIGURES = ("matplotlib", "attnlib.plots")

space = {"__name__": "__main__"}
postponed: dict[str, ast.stmt] = {}  # name -> the import that will bind it
send = print  # the worker puts its own function here: send(kind, text)


class TooMuch(Exception):
    """More output than a page can hold."""


class Stream(io.TextIOBase):
    """Hands on what is printed, in pieces, and no more than `MOST_TEXT` of it."""

    def __init__(self, name: str) -> None:
        self.name, self.waiting, self.sent = name, "", 0

    def write(self, text: str) -> int:
        self.waiting += text
        self.sent += len(text)
        if self.sent > MOST_TEXT:
            self.flush()
            self.sent = 0
            raise TooMuch(f"more than {MOST_TEXT:,} characters of output: stopped")
        if len(self.waiting) > 2000 or "\n" in text:
            self.flush()
        return len(text)

    def flush(self) -> None:
        if self.waiting:
            send(self.name, self.waiting)
            self.waiting = ""


def loaded_names(tree: ast.AST) -> set[str]:
    """Every name that some code reads."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def figure_imports(tree: ast.Module) -> list[tuple[ast.stmt, set[str]]]:
    """The imports of drawing modules at the top of a cell, each with the names that it binds."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            if all(alias.name.split(".")[0] == "matplotlib" or alias.name.startswith("attnlib.plots") for alias in node.names):
                found.append((node, {alias.asname or alias.name.split(".")[0] for alias in node.names}))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(FIGURES):
            found.append((node, {alias.asname or alias.name for alias in node.names}))
    return found


def needs(code: str) -> list[str]:
    """Which packages have to be loaded before `code` can run: ["matplotlib"] or nothing."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return []
    used = loaded_names(tree)
    own = {name for _, names in figure_imports(tree) for name in names}
    inside = any(isinstance(node, ast.Import | ast.ImportFrom) and "matplotlib" in ast.unparse(node)
                 for outer in tree.body if not isinstance(outer, ast.Import | ast.ImportFrom) for node in ast.walk(outer))
    return ["matplotlib"] if inside or used & (own | set(postponed)) else []


def prepare() -> None:
    """Once matplotlib is there: no word about its fonts, and `show` waits for the end of the cell, where figures are sent."""
    import logging

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    from matplotlib import pyplot

    pyplot.show = lambda *args, **kwargs: None


def run(code: str, number: int) -> str:
    """Run one cell; what it prints, shows and draws is sent on the way. Returns "" or the last line of its error."""
    name = f"cell {number}"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    out, error = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Stream("stdout"), Stream("stderr")
    try:
        tree = ast.parse(code, name)
        used = loaded_names(tree)
        for node, names in figure_imports(tree):
            if not names & used:
                tree.body.remove(node)
                postponed.update(dict.fromkeys(names, node))
        for node in {id(postponed[each]): postponed[each] for each in used & set(postponed)}.values():
            exec(compile(ast.Module([node], []), name, "exec"), space)
            for each in [each for each, kept in postponed.items() if kept is node]:
                del postponed[each]
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), space)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), space)
            if value is not None:
                sys.stdout.flush()
                space["_"] = value
                show(value)
        figures()
        return ""
    except BaseException as problem:
        sys.stdout.flush()
        text = short(problem)
        send("error", text)
        return text.splitlines()[-1]
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.sent = -10**9  # what is left over is sent, whatever it is
            stream.flush()
        sys.stdout, sys.stderr = out, error


def show(value: object) -> None:
    """Send the value of a last expression as Jupyter shows it: as HTML if it can, else as text."""
    html = getattr(value, "_repr_html_", None)
    if callable(html) and (text := html()):
        send("html", text)
    else:
        send("result", repr(value)[:MOST_TEXT])


def figures() -> None:
    """Send the open figures as PNG, as the notebook draws them, and close them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    for number in pyplot.get_fignums():
        file = io.BytesIO()
        pyplot.figure(number).savefig(file, format="png", bbox_inches="tight")
        send("figure", base64.b64encode(file.getvalue()).decode("ascii"))
    pyplot.close("all")


def short(problem: BaseException) -> str:
    """A traceback of the reader's own lines only."""
    if isinstance(problem, SyntaxError) and problem.filename and problem.filename.startswith("cell "):
        return "".join(traceback.format_exception_only(problem)).replace('  File "', "  ").replace('", line', ", line").rstrip()
    own = [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename.startswith("cell ")]
    lines = [f"  {frame.filename}, line {frame.lineno}" + (f", in {frame.name}" if frame.name != "<module>" else "")
             + f"\n    {frame.line}" for frame in own[-6:]]
    said = "".join(traceback.format_exception_only(problem)).rstrip()
    return "\n".join([*lines, said])
