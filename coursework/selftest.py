"""Whether an exercise can be trusted: its reference is accepted, and every wrong answer refused with its own hint."""

from __future__ import annotations

import time
import zlib

import numpy as np

from coursework.form import Exercise
from coursework.judging import expected, is_wrong, judge, same_shapes
from coursework.running import call, identical
from coursework.wire import encode

SEEDS = range(5)
LEAST_WRONG = 6


def standalone(exercise: Exercise, text: str):
    """The function that `text` defines, with nothing around it but what the learner is given."""
    space: dict = {"__name__": "exercise"}
    source = f"{exercise.given}\n\n{text}\n"
    filename = f"<{exercise.name} {zlib.crc32(source.encode())}>"      # one name per text: Triton reads sources late
    code = compile(source, filename, "exec")
    _lines_for_inspect(filename, source)
    exec(code, space)
    return space[exercise.name]


def _lines_for_inspect(filename: str, text: str) -> None:
    import linecache

    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)


def outcomes(exercise: Exercise, function, cases) -> list:
    """Call a function on every case, without NumPy's warnings (wrong answers divide by zero)."""
    with np.errstate(all="ignore"):
        return [call(function, c.args, c.kwargs, exercise.drive, c.memory) for c in cases]


def faults(exercise: Exercise) -> tuple[list[str], list[float]]:
    """Everything that is wrong with an exercise, one sentence each, and the seconds of each check.

    Checked on five seeds: the reference is right; every known wrong answer is refused, with its own hint and no other's; the
    stub is "not attempted". Further: at least six wrong answers with different hints; inputs that are the same
    for the same seed and others for another; sizes of different names differ; the solution runs with nothing but `GIVEN`.
    """
    found, seconds = [], []
    hints = [w.hint for w in exercise.wrongs]
    if len(hints) < LEAST_WRONG:
        found.append(f"known wrong answers: {len(hints)}, expected at least {LEAST_WRONG}")
    found += [f"two wrong answers have the hint {h!r}" for h in set(hints) if hints.count(h) > 1]
    found += [f"the hint of {w.name} has {len(w.hint)} characters, expected 30 to 400" for w in exercise.wrongs
              if not 30 <= len(w.hint) <= 400]
    try:
        solution, stub = standalone(exercise, exercise.solution), standalone(exercise, exercise.stub)
    except Exception as error:
        return [*found, f"the solution does not stand alone: {type(error).__name__}: {error}"], seconds
    for seed in SEEDS:
        cases, again = exercise.draw(seed), exercise.draw(seed)
        if not all(identical(_data(a), _data(b)) for a, b in zip(cases, again, strict=True)):
            found.append(f"seed {seed} draws different inputs each time")
        if len({c.label for c in cases}) < len(cases):
            found.append(f"seed {seed}: two cases have one label")
        found += [f"seed {seed}, {c.label}: sizes are not distinct: {c.dims}" for c in cases
                  if len(set(c.dims.values())) < len(c.dims)]
        wants = expected(exercise, cases)
        known = [(w, outcomes(exercise, w.function, cases)) for w in exercise.wrongs]
        said = judge(exercise, cases, outcomes(exercise, solution, cases), wants, known)
        if not said.right:
            found.append(f"seed {seed}: the reference is refused: {said}")
        said = judge(exercise, cases, outcomes(exercise, stub, cases), wants, known)
        if said.status != "not attempted":
            found.append(f"seed {seed}: the stub is {said.status}: {said}")
        for wrong, theirs in known:
            began = time.perf_counter()
            said = judge(exercise, cases, theirs, wants, known)
            seconds.append(time.perf_counter() - began)
            if said.right:
                found.append(f"seed {seed}: {wrong.name} is accepted")
            elif said.hint != wrong.hint:
                found.append(f"seed {seed}: {wrong.name} gets another hint: {said.hint}")
            found += [f"seed {seed}: {sentence}" for sentence in _raising(exercise, cases, theirs, wants)]
            alone = judge(exercise, cases, theirs, wants, [])
            if not alone.hint:
                found.append(f"seed {seed}: nothing is said about {wrong.name} if it is not known")
    if all(identical(_data(a), _data(b)) for a, b in zip(exercise.draw(0), exercise.draw(1), strict=False)):
        found.append("all seeds draw the same inputs")
    return found, seconds


def _raising(exercise: Exercise, cases, theirs, wants) -> list[str]:
    """Observers that do not survive a wrong answer (`judge` passes over them in silence)."""
    found = []
    for case, outcome, want in zip(cases, theirs, wants, strict=True):
        if exercise.verify or outcome.error or case.raises or not is_wrong(exercise, case, outcome, want) or not same_shapes(
                outcome.value, want):
            continue
        for observer in exercise.observers:
            try:
                with np.errstate(all="ignore"):
                    observer(case, outcome.value, want)
            except Exception as error:
                found.append(f"the observer {observer.__name__} raises {type(error).__name__}: {error}")
    return found


def _data(case):
    return encode([list(case.args), dict(case.kwargs)])
