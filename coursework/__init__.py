"""Coursework: exercises that answer with a hint, assignments made of them, and grading out of process.

    check(f)        prints a verdict on the learner's function `f` and, where it is wrong, one hint
    require(f)      the same as an error: raises `Mistaken` unless `f` is right; for tests
    verdict(f)      the same as an object

`f` is recognised by its name; say `check(f, "stable_softmax")` if yours is called otherwise. The exercises
are one file each in `coursework/pool/` (`coursework.form` says what stands in one); `names()` lists them.
Needs NumPy only; an exercise on torch or Triton imports them itself.

    python -m coursework --help     for instructors: build, grade and export assignments
"""

from collections.abc import Callable

from coursework.form import Case, Exercise, FormError, Variant, case, get, names, observe, read, sizes, wrong
from coursework.judging import Verdict, judge
from coursework.running import call

__all__ = ["Case", "Exercise", "FormError", "Mistaken", "Variant", "Verdict", "case", "check", "get", "names", "observe",
           "read", "require", "sizes", "verdict", "wrong"]

PUBLIC_SEED = 1


class Mistaken(AssertionError):
    """Raised by `require`: the answer is not right; the message is the verdict."""


def verdict(f: Callable, name: str | Exercise | None = None, seed: int = PUBLIC_SEED) -> Verdict:
    """Try an answer on the cases of one seed.

    Parameters
    ----------
    f : callable
        The answer.
    name : str or Exercise, optional
        The exercise, if it is not called as `f` is.
    seed : int
        Which inputs; learners meet those of seed 1.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If there is no such exercise.
    """
    if name is None and not getattr(f, "__name__", None):
        kind = type(f).__name__
        raise ValueError(f"check: f is a {kind}, expected the function itself: check(f), not check(f(...))")
    exercise = name if isinstance(name, Exercise) else get(name or f.__name__)
    if not callable(f):
        return Verdict(exercise.name, "wrong", f"This is a {type(f).__name__}, expected a function: check(f), not check(f(...)).",
                       "fault")
    cases, wants, known = exercise.record or (exercise.draw(seed), None, None)
    outcomes = [call(f, c.args, c.kwargs, exercise.drive, c.memory) for c in cases]
    if exercise.record:
        return judge(exercise, cases, outcomes, wants, known)
    return judge(exercise, cases, outcomes, seed=None if isinstance(name, Exercise) else seed)


def check(f: Callable, name: str | Exercise | None = None) -> None:
    """Print a verdict on an answer and, where it is wrong, one hint (see `verdict`)."""
    print(verdict(f, name))


def require(f: Callable, name: str | Exercise | None = None) -> None:
    """Raise `Mistaken` with the verdict unless the answer is right (see `verdict`)."""
    said = verdict(f, name)
    if not said.right:
        raise Mistaken(str(said))
