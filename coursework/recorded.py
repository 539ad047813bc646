"""An edition of an assignment without solutions: inputs, right results and known wrong results as data.

What `build` hands out beside a student notebook. `check` works with it as with the pool, hints included, and nothing in
it computes a right answer. The exercise's own observers travel as source: they look at results, they do not make them.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np

from coursework.form import Case, Exercise, Wrong
from coursework.judging import Sampled
from coursework.running import call
from coursework.wire import decode, decode_outcome, encode, encode_outcome

FILES = ("*_checks.json",)
FORMAT = 1


def _sampled(outcome) -> dict:
    """An outcome of a known wrong answer; large arrays shrink to samples, which is all that recognising it takes."""
    return encode_outcome(dataclasses.replace(outcome, value=_shrunk(outcome.value)))


def _shrunk(value):
    if isinstance(value, np.ndarray) and value.size > 32:
        s = Sampled.of(value)
        return {"sampled": [list(s.shape), s.kind, s.where, s.values]}
    if isinstance(value, tuple | list):
        return type(value)(_shrunk(part) for part in value)
    return value


def _grown(value):
    if isinstance(value, dict) and list(value) == ["sampled"]:
        shape, kind, where, values = value["sampled"]
        return Sampled(tuple(shape), kind, where, values)
    if isinstance(value, tuple | list):
        return type(value)(_grown(part) for part in value)
    return value


def record(exercise: Exercise, seed: int, sources: dict, known: bool = True) -> dict:
    """Everything `check` needs of an exercise, as JSON-ready data.

    Parameters
    ----------
    exercise : Exercise
    seed : int
        Of the inputs.
    sources : dict
        "code" that defines observers, `verify` and `drive` and stands alone, and the names of the "observers".
    known : bool
        Whether to record the known wrong answers too.
    """
    cases = exercise.draw(seed)
    wants = [None if c.raises else call(exercise.reference, c.args, c.kwargs, exercise.drive).value for c in cases]
    outcomes = []
    for wrong in exercise.wrongs if known else ():
        with np.errstate(all="ignore"):
            outcomes.append([wrong.hint, [_sampled(call(wrong.function, c.args, c.kwargs, exercise.drive, c.memory))
                                       for c in cases]])
    body = {
        "cases": [[c.label, encode(c.args), encode(c.kwargs), c.edge, c.dims, c.memory,
                   c.raises.__name__ if c.raises else None] for c in cases],
        "wants": [encode(w) for w in wants], "known": outcomes, "sources": sources,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(body).encode(), 9)).decode()
    return {"format": FORMAT, "name": exercise.name, "points": exercise.points, "edge_points": exercise.edge_points,
            "arguments": exercise.arguments, "returns": list(exercise.returns), "tolerance": exercise.tolerance,
            "needs": list(exercise.needs), "data": packed}


def load(said: dict) -> Exercise:
    """The inverse of `record`: an exercise that can judge and cannot solve."""
    import builtins
    import inspect

    body = json.loads(zlib.decompress(base64.b64decode(said["data"])))
    cases = [Case(label, decode(args), decode(kwargs), edge, dims, memory, getattr(builtins, raises) if raises else None)
             for label, args, kwargs, edge, dims, memory, raises in body["cases"]]
    known = [(Wrong("", hint, print), [_recalled(o) for o in outcomes]) for hint, outcomes in body["known"]]
    space: dict = {"observe": lambda f: f}
    exec(body["sources"].get("code", ""), space)

    def reference(*_):
        raise NotImplementedError("this edition holds no solutions")

    reference.__signature__ = inspect.Signature(
        [inspect.Parameter(a, inspect.Parameter.POSITIONAL_OR_KEYWORD) for a in said["arguments"]])
    return Exercise(
        name=said["name"], title=said["name"], prompt="", points=said["points"], given="", reference=reference,
        cases=lambda rng: iter(cases), wrongs=[], observers=[space[n] for n in body["sources"].get("observers", [])],
        verify=space.get("verify"), drive=space.get("drive"), edge_points=said["edge_points"],
        returns=tuple(said["returns"]), needs=tuple(said["needs"]),
        tolerance=tuple(said["tolerance"]) if said["tolerance"] else None,
        record=(cases, [decode(w) for w in body["wants"]], known),
    )


def _recalled(said: dict):
    outcome = decode_outcome(said)
    return dataclasses.replace(outcome, value=_grown(outcome.value))


def find(folder: Path) -> dict[str, Exercise]:
    """The exercises recorded in the `*_checks.json` files of a folder, by name."""
    found = {}
    for pattern in FILES:
        for path in sorted(folder.glob(pattern)):
            for said in json.loads(path.read_text("utf-8"))["exercises"]:
                if said.get("format") != FORMAT:
                    raise ValueError(f"{path.name} was made by another version of coursework; ask for a new one")
                found[said["name"]] = load(said)
    return found


def require_packed(f, packed: str) -> None:
    """Raise `Mistaken` unless `f` is right on the inputs that were packed into a text (see `coursework.export`)."""
    from coursework import require

    require(f, load(json.loads(zlib.decompress(base64.b64decode(packed)))))
