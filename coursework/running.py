"""Calling an answer on the cases, and keeping what came of it as plain data.

The same lines run in a notebook and inside the grader's sandbox: NumPy and the standard library only.
"""

from __future__ import annotations

import inspect
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = "biufc"                # the kinds of NumPy arrays that are data


class Strange:
    """Stands for a result that is not data: the name of its type is all that is kept."""

    def __init__(self, kind: str):
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Noticed(Exception):
    """Raised by an exercise's `drive` to say in its own words what an answer did wrong; the text becomes the hint."""


@dataclass
class Outcome:
    """What came of one call.

    Attributes
    ----------
    value : Any
        The result as plain data (see `plain`), if there is one.
    error, message : str
        Name and text of the exception, or "".
    line : int
        Line of the answer's own source on which it arose, 0 if unknown.
    modified : tuple of int or str
        Arguments that the call has changed: positions and names.
    peak : int
        Bytes held at once beside the arguments; measured only where the case limits them.
    """

    value: Any = None
    error: str = ""
    message: str = ""
    line: int = 0
    modified: tuple = ()
    peak: int = 0
    bases: tuple = field(default=())


def plain(value: Any, depth: int = 0) -> Any:
    """Turn a result into NumPy arrays, numbers, strings, None, tuples and dicts of these; the rest into `Strange`."""
    if value is None or type(value) in (bool, int, float, complex, str):
        return value
    if type(value).__module__.split(".")[0] == "torch" and hasattr(value, "detach"):
        tensor = value.detach().cpu()
        tensor = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
        return np.array(tensor.numpy())
    if isinstance(value, np.generic):
        return value.item() if value.dtype.kind in KINDS and not isinstance(value, np.longdouble) else Strange("NumPy scalar")
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in KINDS:
            return Strange(f"array of {value.dtype}")
        if isinstance(value, np.ma.MaskedArray):
            return Strange("masked array")
        return np.array(value, copy=True, subok=False)
    if depth < 4 and isinstance(value, tuple | list):
        parts = [plain(part, depth + 1) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if depth < 4 and type(value) is dict:
        return {str(key): plain(part, depth + 1) for key, part in value.items()}
    return Strange(type(value).__name__)


def copied(value: Any) -> Any:
    """A copy of an argument that shares no memory with it."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, tuple | list):
        return type(value)(copied(part) for part in value)
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    if hasattr(value, "clone"):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, np.random.Generator):
        made = np.random.default_rng()
        made.bit_generator.state = value.bit_generator.state
        return made
    return value


def identical(a: Any, b: Any) -> bool:
    """Whether two pieces of plain data are the same to the last bit (NaN equals NaN)."""
    if isinstance(a, np.ndarray):
        return (isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape
                and a.tobytes() == b.tobytes())
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(identical(a[key], b[key]) for key in a)
    return type(a) is type(b) and (a == b or a != a)


def call(function: Callable, args: tuple, kwargs: dict, drive: Callable | None = None,
         memory: int | None = None) -> Outcome:
    """Call an answer once, on copies of the arguments.

    Parameters
    ----------
    function : callable
        The answer.
    args, kwargs
        Arguments.
    drive : callable, optional
        ``drive(function, *args, **kwargs)`` is called instead.
    memory : int, optional
        If given, `peak` is measured (with `tracemalloc`, which NumPy reports its arrays to).
    """
    given, named = copied(args), copied(kwargs)
    if memory is not None:
        tracemalloc.start()
    try:
        result = drive(function, *given, **named) if drive else function(*given, **named)
        outcome = Outcome(plain(result))
    except Exception as error:
        outcome = Outcome(error=type(error).__name__, message=str(error)[:300], line=_line(error, function),
                          bases=tuple(kind.__name__ for kind in type(error).__mro__))
    finally:
        if memory is not None:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    outcome.peak = peak if memory is not None else 0
    changed = [i for i, (a, b) in enumerate(zip(args, given, strict=True)) if _changed(a, b)]
    outcome.modified = (*changed, *(key for key in kwargs if _changed(kwargs[key], named[key])))
    return outcome


def _changed(before: Any, after: Any) -> bool:
    if isinstance(before, np.random.Generator) or callable(before):
        return False                       # drawing from a generator is what it is for
    return not identical(plain(before), plain(after))


def _line(error: BaseException, function: Callable) -> int:
    """The line, counted from the `def`, at which the answer was when the exception arose."""
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    found, trace = 0, error.__traceback__ or sys.exc_info()[2]
    while trace is not None:
        if code is not None and trace.tb_frame.f_code is code:
            found = trace.tb_lineno - code.co_firstlineno + 1
        trace = trace.tb_next
    return found
