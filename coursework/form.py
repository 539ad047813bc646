"""The form of an exercise: one Python file that says everything about it.

A file `NAME.py` in `pool/` (or in an instructor's own folder) is the exercise called NAME. It holds

TITLE, PROMPT, POINTS
    What the learner reads (MyST Markdown) and what it is worth.
GIVEN
    Code that comes before the stub: imports, helpers. Default: NumPy as np.
def NAME(...)
    The reference. The stub is the same with the lines between ``# BEGIN SOLUTION`` and ``# END SOLUTION`` (or, without these, the
    whole body) taken out.
def cases(rng)
    Yields ``case(label, *args)``: inputs of distinct sizes, drawn from `rng`.
@wrong(hint)
    Marks a function as an answer that people really give; at least six, each with a hint of its own.
@observe
    Marks ``(case, got, want)``: a sentence about a wrong result, or None.
def verify(case, got)
    Instead of comparing with the reference, where several answers are right: a sentence, or None.
def drive(f, ...)
    How to use an answer that is not called with plain arrays (a kernel, a class, a loop); takes the case's arguments after `f`.
def heavy(rng)
    Cases for grading only, so large that the system itself enforces their `memory`.
RETURNS, CHAPTER, EDGE_POINTS, TOLERANCE, SECONDS, NEEDS, VARIANTS
    Optional, see `Exercise`.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

POOL = Path(__file__).parent / "pool"
BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
STUB = 'raise NotImplementedError("replace this line")'


class FormError(Exception):
    """An exercise file that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Case:
    """One call of the learner's function.

    Attributes
    ----------
    label : str
        What is special about these inputs, as it is said to the learner: "right for a single matrix".
    args, kwargs
        What the function is called with.
    edge : bool
        Whether it belongs to the corners of the task, which may be worth points of their own.
    dims : dict of str to int
        Names of sizes, all different, so that messages can speak of `seq_k` and not of 7.
    memory : int or None
        Bytes the call may hold at once beside its arguments.
    raises : type or None
        The exception that is asked for.
    """

    label: str
    args: tuple
    kwargs: dict = field(default_factory=dict)
    edge: bool = False
    dims: dict = field(default_factory=dict)
    memory: int | None = None
    raises: type | None = None


def case(label: str, *args, edge: bool = False, dims=None, memory: int | None = None, raises: type | None = None,
         **kwargs) -> Case:
    """Make a `Case`; `dims` may be what `sizes` returned."""
    return Case(label, args, kwargs, edge, dict(vars(dims) if hasattr(dims, "__dict__") else dims or {}), memory, raises)


def sizes(rng: np.random.Generator, names: str, least: int = 3, most: int = 11) -> types.SimpleNamespace:
    """Draw a different size for every name: `sizes(rng, "batch seq dim_head").seq`.

    Parameters
    ----------
    rng : numpy.random.Generator
    names : str
        Names separated by spaces.
    least, most : int
        Sizes lie between them, both included.
    """
    words = names.split()
    if most - least + 1 < len(words):
        raise ValueError(f"sizes: {len(words)} names, but only {most - least + 1} sizes from {least} to {most}")
    drawn = rng.choice(np.arange(least, most + 1), size=len(words), replace=False)
    return types.SimpleNamespace(**{word: int(size) for word, size in zip(words, drawn, strict=True)})


def wrong(hint: str) -> Callable:
    """Mark a function as a known wrong answer; `hint` is what its author is told."""
    def mark(function):
        function.coursework_hint = hint
        return function
    return mark


def observe(function: Callable) -> Callable:
    """Mark `function(case, got, want)`: it returns a sentence about a wrong result, or None.

    It is only asked where `got` has the structure and the shapes of `want`.
    """
    function.coursework_observer = True
    return function


@dataclass(frozen=True)
class Variant:
    """Another convention for the same exercise: it computes ``result(reference(*args(...)))``.

    Attributes
    ----------
    says : str
        The sentence that is added to the prompt.
    args : callable
        From the variant's arguments to the tuple of the book's.
    result : callable
        From the book's result to the variant's.
    hint : str
        What those are told who hand in the book's own version.
    """

    says: str
    args: Callable = lambda *args: args
    result: Callable = lambda result: result
    hint: str = "This follows the book's convention. The assignment asks for another one: read the prompt once more."


@dataclass
class Wrong:
    """A known wrong answer: its name, its hint, and how to compute it."""

    name: str
    hint: str
    function: Callable


@dataclass
class Exercise:
    """Everything about one exercise, read from its file.

    Attributes
    ----------
    name, title, prompt, points, given
        As in the file.
    edge_points : int
        How many of the points are for the cases marked `edge`; they count only if all others are right.
    chapter : str
        The chapter at whose end it stands, or "".
    returns : tuple of str
        Names of the results where there are several.
    needs : tuple of str
        Packages beside NumPy.
    tolerance : (float, float) or None
        Relative and absolute; None: by the precision of the inputs.
    seconds : float
        Limit for one run over all cases while grading.
    """

    name: str
    title: str
    prompt: str
    points: int
    given: str
    reference: Callable
    cases: Callable[[np.random.Generator], Iterator[Case]]
    wrongs: list[Wrong]
    observers: list[Callable]
    verify: Callable | None = None
    drive: Callable | None = None
    heavy: Callable | None = None
    edge_points: int = 0
    chapter: str = ""
    returns: tuple = ()
    needs: tuple = ()
    tolerance: tuple | None = None
    seconds: float = 5.0
    variants: dict = field(default_factory=dict)
    text: str = ""
    record: Any = None         # (cases, wants, known outcomes), in an edition without solutions

    @property
    def arguments(self) -> list[str]:
        """Names of the reference's arguments."""
        return list(inspect.signature(self.reference).parameters)

    @property
    def solution(self) -> str:
        """Source of the reference, without the markers."""
        return "\n".join(line for line in self._lines() if line.strip() not in (BEGIN, END))

    @property
    def stub(self) -> str:
        """Source of the reference with the solution taken out."""
        lines = self._lines()
        marks = [i for i, line in enumerate(lines) if line.strip() in (BEGIN, END)]
        node = ast.parse("\n".join(lines)).body[0]
        if not marks:
            body = node.body[1:] if ast.get_docstring(node) else node.body
            marks = [body[0].lineno - 2, len(lines)]
        out, position = [], 0
        for start, stop in zip(marks[::2], marks[1::2], strict=True):
            inside = next(line for line in lines[start + 1: stop] if line.strip())
            indent = inside[: len(inside) - len(inside.lstrip())]
            begin = start if lines[start].strip() == BEGIN else start + 1
            out += [*lines[position:begin], indent + STUB]
            position = stop + 1
        return "\n".join(out + lines[position:])

    def _lines(self) -> list[str]:
        node = next(n for n in ast.parse(self.text).body if getattr(n, "name", None) == self.name)
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        lines = self.text.splitlines()[first - 1: node.end_lineno]
        after = self.text.splitlines()[node.end_lineno: node.end_lineno + 1]
        return lines + [line for line in after if line.strip() == END]      # a last comment is not part of the node

    def draw(self, seed: int) -> list[Case]:
        """The cases of one seed, in order."""
        return list(self.cases(np.random.default_rng([seed, sum(self.name.encode())])))


def read(path: Path) -> Exercise:
    """Read an exercise from its file.

    Raises
    ------
    FormError
        If something is missing in it, or it cannot be imported.
    """
    name, where = path.stem, f"exercise {path.stem} ({path.name})"
    module_name = f"coursework.pool.{name}" if path.parent == POOL else f"coursework_private_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module      # so that inspect finds sources
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise FormError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    missing = [n for n in ("TITLE", "PROMPT", "POINTS", "cases", name) if not hasattr(module, n)]
    if missing:
        raise FormError(f"{where} lacks {', '.join(missing)}")
    own = [f for f in vars(module).values() if callable(f) and getattr(f, "__module__", "") == module_name]
    wrongs = [Wrong(f.__name__, f.coursework_hint, f) for f in own if hasattr(f, "coursework_hint")]
    optional = {n.lower(): getattr(module, n) for n in
                ("EDGE_POINTS", "CHAPTER", "RETURNS", "NEEDS", "TOLERANCE", "SECONDS", "VARIANTS") if hasattr(module, n)}
    exercise = Exercise(
        name=name, title=module.TITLE, prompt=module.PROMPT.strip(), points=module.POINTS,
        given=getattr(module, "GIVEN", "import numpy as np").strip(), reference=getattr(module, name),
        cases=module.cases, wrongs=wrongs, observers=[f for f in own if hasattr(f, "coursework_observer")],
        verify=getattr(module, "verify", None), drive=getattr(module, "drive", None),
        heavy=getattr(module, "heavy", None), text=path.read_text("utf-8"),
        **optional,
    )
    if not 0 <= exercise.edge_points < exercise.points:
        raise FormError(f"{where}: EDGE_POINTS is {exercise.edge_points}, expected from 0 to below POINTS")
    return exercise


_READ: dict[str, Exercise] = {}


def names() -> list[str]:
    """Names of all exercises in the pool, sorted."""
    return sorted(path.stem for path in POOL.glob("*.py") if not path.stem.startswith("_"))


def get(name: str) -> Exercise:
    """The exercise of that name from the pool.

    Raises
    ------
    ValueError
        If there is none; the message names those that are spelt alike.
    """
    if name not in _READ:
        path = POOL / f"{name}.py"
        if not POOL.exists():                  # an edition without solutions: what was recorded for it
            from coursework import recorded

            _READ.update(recorded.find(Path(__file__).parent))
            if name in _READ:
                return _READ[name]
        if not re.fullmatch(r"[A-Za-z]\w*", str(name)) or not path.exists():
            import difflib

            near = difflib.get_close_matches(str(name), [*names(), *_READ], n=3) or [*names(), *_READ][:3] + ["..."]
            raise ValueError(f"There is no exercise called {name!r}. Did you mean {', '.join(near)}?")
        _READ[name] = read(path)
    return _READ[name]
