"""From what came of the calls to a verdict and one hint. Nothing here runs the learner's code."""

from __future__ import annotations

import textwrap
import warnings
from dataclasses import dataclass

import numpy as np

from coursework.form import Case, Exercise
from coursework.observing import Array, look, named, pieces
from coursework.running import Outcome, Strange, call, identical

BEFORE = "before any call: "        # how the grader's worker begins the message of an answer that could not be defined


@dataclass(frozen=True)
class Verdict:
    """What is said about an answer.

    Attributes
    ----------
    name : str
        The exercise.
    status : str
        "right", "wrong" or "not attempted".
    hint : str
        One observation; "" where all is right.
    source : str
        Where the hint comes from: "known" (a known wrong answer), "fault" (an exception, a changed argument, a wrong
        type), "observation", or "difference".
    failed, passed : tuple of str
        Labels of the cases.
    core : bool
        Whether all cases but the edge cases are right.
    """

    name: str
    status: str
    hint: str = ""
    source: str = ""
    failed: tuple = ()
    passed: tuple = ()
    core: bool = False

    @property
    def right(self) -> bool:
        """Whether the answer is right on every case."""
        return self.status == "right"

    def __str__(self) -> str:
        if self.right:
            return f"✓ {self.name}: right in all {len(self.passed)} cases."
        if self.status == "not attempted":
            return f"○ {self.name}: not attempted yet."
        lines = _wrapped(f"✗ {self.name}: not yet. {self.hint}", "  ")
        lines += _wrapped(f"  Wrong for: {'; '.join(self.failed)}.", "    ") if self.passed else ["  Wrong in all cases."]
        lines += _wrapped(f"  Right for: {'; '.join(self.passed)}.", "    ") if self.passed else []
        return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    """Lines that fit a page and a notebook."""
    return textwrap.wrap(text, 78, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True)
class Sampled:
    """Some entries of a known wrong result, enough to recognise it by."""

    shape: tuple
    kind: str
    where: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray, most: int = 32) -> Sampled:
        """Take at most so many entries, spread evenly."""
        where = np.unique(np.linspace(0, array.size - 1, min(most, array.size)).astype(int)) if array.size else np.arange(0)
        return cls(array.shape, array.dtype.kind, where, array.reshape(-1)[where])

    def agrees(self, array, close) -> bool:
        """Whether an array could be the one that was sampled."""
        return (isinstance(array, np.ndarray) and array.shape == self.shape and array.dtype.kind == self.kind
                and bool(np.all(close(array.reshape(-1)[self.where], self.values))))


def closeness(exercise: Exercise, case: Case):
    """The comparison for one case: (a, b) -> array of bool, by the precision of the inputs unless the exercise says.

    Float64 results of two right answers differ by rounding only, some 1e-13 here; 1e-8 leaves room for long sums and
    cancellation, and refuses an added 1e-6. Float32: 1e-4 by the same reasoning.
    """
    half = any((isinstance(a, np.ndarray) and a.dtype == np.float32) or "float32" in str(getattr(a, "dtype", ""))
               for a in case.args)
    relative, absolute = exercise.tolerance or ((1e-4, 1e-5) if half else (1e-8, 1e-10))

    def close(a, b):
        return np.isclose(a, b, rtol=relative, atol=absolute, equal_nan=True)

    return close


def same(a: Outcome, b: Outcome, close) -> bool:
    """Whether two outcomes are one: the same exception, or values that agree, and the same arguments changed."""
    if a.error or b.error:
        return a.error == b.error
    return a.modified == b.modified and alike(a.value, b.value, close)


def alike(a, b, close) -> bool:
    """Whether two pieces of plain data agree, numbers within the tolerance; `b` may hold samples."""
    if isinstance(b, Sampled):
        return b.agrees(a, close)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (type(a) is type(b) and a.shape == b.shape and a.dtype.kind == b.dtype.kind
                and (identical(a, b) if a.dtype.kind in "biu" else bool(np.all(close(a, b)))))
    if isinstance(a, tuple | list):
        return isinstance(b, tuple | list) and len(a) == len(b) and all(alike(x, y, close) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(alike(a[key], b[key], close) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return bool(close(a, b))
    return not isinstance(a, Strange) and type(a) is type(b) and a == b


def _structure(got, want, subject: str = "the result") -> str | None:
    """A fault of type, before any number is looked at."""
    if got is None and want is not None:
        return "The function returns None. Is there a `return`?" if subject == "the result" else f"{subject} is None."
    if isinstance(want, tuple | list):
        if not isinstance(got, tuple | list):
            return f"{subject} is {_type(got)}, expected {len(want)} results, separated by commas."
        if len(got) != len(want):
            return f"{subject} has {len(got)} parts, expected {len(want)}."
        return next(filter(None, (_structure(g, w, f"result {i + 1} of {len(want)}")
                                  for i, (g, w) in enumerate(zip(got, want, strict=True)))), None)
    if isinstance(want, dict):
        return None if isinstance(got, dict) and got.keys() == want.keys() else f"{subject} should be a dict with the keys {list(want)}."
    if isinstance(want, np.ndarray) and want.ndim and not isinstance(got, np.ndarray):
        return f"{subject} is {_type(got)}, expected an array of shape {want.shape}."
    numbers = (bool, int, float, complex)
    if isinstance(want, numbers) or (isinstance(want, np.ndarray) and want.ndim == 0):
        got = got.item() if isinstance(got, np.ndarray) and got.ndim == 0 else got
        want = want.item() if isinstance(want, np.ndarray) else want
        if not isinstance(got, numbers):
            return f"{subject} is {_type(got)}, expected one number."
        if isinstance(want, bool) != isinstance(got, bool):
            return f"{subject} is {_type(got)}, expected {_type(want)}."
        if isinstance(want, int) and not isinstance(got, int):
            return f"{subject} is {_type(got)}, expected a whole number (int): counts are exact."
        return None
    if type(got) is not type(want) and not isinstance(want, np.ndarray):
        return f"{subject} is {_type(got)}, expected {_type(want)}."
    return None


def _type(value) -> str:
    """What a result is, with its article: "an array", "an int"."""
    word = value.kind if isinstance(value, Strange) else "array" if isinstance(value, np.ndarray) else type(value).__name__
    return f"{'an' if word[0] in 'aeiouAEIOU' else 'a'} {word}"


def fault(exercise: Exercise, case: Case, outcome: Outcome, want) -> tuple[str, str] | None:
    """What is wrong with one outcome before its values are compared: (hint, source), or None."""
    if outcome.error == "Noticed":
        return outcome.message[:1].upper() + outcome.message[1:], "fault"
    if case.raises:
        if outcome.error and case.raises.__name__ in (outcome.bases or (outcome.error,)):
            return None
        if outcome.error:
            return f"Here a {case.raises.__name__} is asked for; yours raises {outcome.error}: {outcome.message}", "fault"
        return f"Here a {case.raises.__name__} is asked for; yours returns something.", "fault"
    if outcome.error:
        at = f" (line {outcome.line} of your function)" if outcome.line else ""
        shapes = ", ".join(f"{n} {named(a.shape, case.dims)}" if hasattr(a, "shape") else f"{n} = {a}"
                           for n, a in zip(exercise.arguments, case.args, strict=False)
                           if hasattr(a, "shape") or isinstance(a, bool | int | float))
        if outcome.message.startswith(BEFORE):         # nothing was called yet
            return f"Its definitions cannot be run: {outcome.error}: {outcome.message.removeprefix(BEFORE)}.", "fault"
        says = f": {outcome.message}" if outcome.message else ""
        return f"It raises {outcome.error}{says}{at}." + (f" The arguments: {shapes}." if shapes else ""), "fault"
    if outcome.modified:
        which = ", ".join(f"`{exercise.arguments[m] if isinstance(m, int) and m < len(exercise.arguments) else m}`"
                          for m in outcome.modified)
        return f"It changes its argument {which}. The caller still needs it: work on a new array.", "fault"
    if exercise.verify is None:
        said = _structure(outcome.value, want)
        if said:
            return said[0].upper() + said[1:], "fault"
    return None


def is_wrong(exercise: Exercise, case: Case, outcome: Outcome, want) -> bool:
    """Whether one outcome is wrong."""
    if fault(exercise, case, outcome, want) is not None:
        return True
    if case.raises:
        return False
    if case.memory is not None and outcome.peak > case.memory:
        return True
    if exercise.verify:
        return bool(exercise.verify(case, outcome.value))
    close = closeness(exercise, case)
    for got, right, _ in pieces(outcome.value, want, exercise.returns):
        if isinstance(right, str | None | type(None)):
            if got != right:
                return True
            continue
        if isinstance(got, int) and isinstance(right, int):
            if got != right:                          # counts are exact, whatever their size
                return True
            continue
        got, right = np.asarray(got), np.asarray(right)
        if got.shape != right.shape or _other_kind(got, right):
            return True
        if not np.all(got == right if right.dtype.kind in "biuO" else close(got, right)):
            return True
    return False


def _other_kind(got: np.ndarray, want: np.ndarray) -> bool:
    whole = got.dtype.kind in "iu" and want.dtype.kind in "iuf"
    return got.dtype.kind != want.dtype.kind and not whole


def same_shapes(got, want) -> bool:
    """Whether two results of one structure hold arrays of the same shapes and kinds: what an observer may rely on."""
    if _structure(got, want):
        return False
    return all(np.shape(g) == np.shape(w) and not _other_kind(np.asarray(g), np.asarray(w)) for g, w, _ in pieces(got, want, ()))


def _look(exercise: Exercise, case: Case, outcome: Outcome, want) -> tuple[str, str]:
    """The best that can be said about values that are wrong."""
    if case.memory is not None and outcome.peak > case.memory:
        return (f"The values may be right, but it holds {outcome.peak / 1e6:.1f} MB at once beside its arguments; "
                f"{case.memory / 1e6:.1f} MB are allowed here.", "observation")
    if exercise.verify:
        return exercise.verify(case, outcome.value), "observation"
    for observer in exercise.observers if same_shapes(outcome.value, want) else ():
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                said = observer(case, outcome.value, want)
        except Exception:
            continue                                  # one that cannot cope with this result has nothing to say
        if said:
            return said[0].upper() + said[1:], "observation"
    close = closeness(exercise, case)
    plainly = None
    for got, right, subject in pieces(outcome.value, want, exercise.returns):
        if isinstance(right, str | None | type(None)):
            if got != right:
                plainly = plainly or f"{subject} is {got!r}, expected {right!r}."
            continue
        if isinstance(got, int) and isinstance(right, int) and max(abs(got), abs(right)) > 2**53:
            plainly = plainly or f"{subject[0].upper()}{subject[1:]} is {got}, expected {right}."
            continue
        array = Array(np.asarray(got), np.asarray(right), case.dims, case.args, close, subject)
        if array.got.shape == array.want.shape and not array.differs.any() and not _other_kind(array.got, array.want):
            continue
        said = look(array)
        if said:
            return said[0].upper() + said[1:], "observation"
        plainly = plainly or _difference(array)
    return plainly or "The result differs.", "difference"


def _difference(a: Array) -> str:
    at = tuple(int(i) for i in np.argwhere(a.differs)[0])
    place = f" at [{', '.join(map(str, at))}]" if at else ""
    return f"{a.subject[0].upper() + a.subject[1:]}{place} is {_number(a.got[at])}, expected {_number(a.want[at])}."


def _number(value) -> str:
    return str(value) if isinstance(value, bool | np.bool_ | int | np.integer) else f"{value:.6g}"


_KNOWN: dict = {}


def expected(exercise: Exercise, cases: list[Case]) -> list:
    """What the reference returns; None where an exception is asked for."""
    return [None if c.raises else call(exercise.reference, c.args, c.kwargs, exercise.drive).value for c in cases]


def _known(exercise: Exercise, seed: int | None, cases: list[Case]) -> list:
    """Outcomes of every known wrong answer, kept for the seed that learners meet."""
    if seed is None or (exercise.name, seed) not in _KNOWN:
        made = []
        for known in exercise.wrongs:
            with np.errstate(all="ignore"):
                made.append((known, [call(known.function, c.args, c.kwargs, exercise.drive, c.memory) for c in cases]))
        if seed is None:
            return made
        _KNOWN[exercise.name, seed] = made
    return _KNOWN[exercise.name, seed]


def judge(exercise: Exercise, cases: list[Case], outcomes: list[Outcome], wants: list | None = None,
          known: list | None = None, seed: int | None = None) -> Verdict:
    """Judge the outcomes of one answer.

    Parameters
    ----------
    exercise, cases, outcomes
        What was asked, and what came of it, case by case.
    wants : list, optional
        Expected values, if they are at hand (`expected`).
    known : list of (Wrong, outcomes), optional
        Outcomes of the known wrong answers, if they are at hand.
    seed : int, optional
        Under which to keep the outcomes of the known wrong answers for the next time.
    """
    if all(o.error == "NotImplementedError" for o in outcomes):
        return Verdict(exercise.name, "not attempted", "It still raises NotImplementedError.")
    wants = expected(exercise, cases) if wants is None else wants
    rows = list(zip(cases, outcomes, wants, strict=True))
    bad = [is_wrong(exercise, *row) for row in rows]
    failed = tuple(c.label for c, b in zip(cases, bad, strict=True) if b)
    passed = tuple(c.label for c, b in zip(cases, bad, strict=True) if not b)
    core = not any(b for c, b in zip(cases, bad, strict=True) if not c.edge)
    if not failed:
        return Verdict(exercise.name, "right", passed=passed, core=True)
    for wrong, theirs in _known(exercise, seed, cases) if known is None else known:
        if all(same(mine, other, closeness(exercise, c)) and _heavy(c, mine) == _heavy(c, other)
               for c, mine, other in zip(cases, outcomes, theirs, strict=True)):
            return Verdict(exercise.name, "wrong", wrong.hint, "known", failed, passed, core)
    return _said(exercise, [row for row, b in zip(rows, bad, strict=True) if b], _leading(cases, bad), failed, passed, core)


def _said(exercise: Exercise, wrong_rows: list, before: str, failed: tuple, passed: tuple, core: bool) -> Verdict:
    """The verdict on an answer that is no known one: what is seen in the first wrong case that is more than nearly right."""
    nearly = None
    for row in wrong_rows:
        hint, source = fault(exercise, *row) or _look(exercise, *row)
        if "nearly right" not in hint.lower():
            hint += " In other cases it is nearly right, off as by a small constant or an approximation." if nearly else ""
            break
        nearly = nearly or (hint, source)
    else:
        hint, source = nearly
    return Verdict(exercise.name, "wrong", before + hint, source, failed, passed, core)


def _leading(cases: list[Case], bad: list[bool]) -> str:
    """Said first where an answer is right for all inputs without leading axes and wrong for all, and only, those with them."""
    axes = [next((a.ndim for a in c.args if isinstance(a, np.ndarray)), 0) for c in cases]
    good, wrong = ([n for n, b in zip(axes, bad, strict=True) if b is which] for which in (False, True))
    if good and wrong and max(good) < min(wrong):
        return "Right without leading axes, wrong with them. "
    return ""


def _heavy(case: Case, outcome: Outcome) -> bool:
    return case.memory is not None and outcome.peak > case.memory


def score(exercise: Exercise, verdict: Verdict, points: float | None = None) -> float:
    """Points for a verdict: all, or those for the core where only edge cases are wrong."""
    points = exercise.points if points is None else points
    if verdict.right:
        return points
    share = (exercise.points - exercise.edge_points) / exercise.points
    return round(points * share, 2) if verdict.core and exercise.edge_points else 0.0
