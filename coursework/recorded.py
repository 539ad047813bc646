"""An edition of an assignment without solutions: inputs, right results and known wrong results as data.

What `build` hands out beside a student notebook. `check` works with it as with the pool, hints included, and nothing in
it computes a right answer. The exercise's own observers travel as source: they look at results, they do not make them.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import numpy as np

from coursework.form import Case, Exercise, Wrong
from coursework.running import call
from coursework.wire import decode, decode_outcome, encode, encode_outcome

FILES = ("*_checks.json",)
FORMAT = 1


def _exact(outcome) -> dict:
    return encode_outcome(outcome)


def record(exercise: Exercise, seed: int, sources: dict[str, str]) -> dict:
    """Everything `check` needs of an exercise, as JSON-ready data.

    Parameters
    ----------
    exercise : Exercise
    seed : int
        Of the inputs.
    sources : dict
        Source of "observers", "verify", "drive", each able to stand alone; "" where there is none.
    """
    cases = exercise.draw(seed)
    wants = [None if c.raises else call(exercise.reference, c.args, c.kwargs, exercise.drive).value for c in cases]
    known = []
    for wrong in exercise.wrongs:
        with np.errstate(all="ignore"):
            known.append([wrong.hint, [_exact(call(wrong.function, c.args, c.kwargs, exercise.drive, c.memory))
                                       for c in cases]])
    body = {
        "cases": [[c.label, encode(c.args), encode(c.kwargs), c.edge, c.dims, c.memory,
                   c.raises.__name__ if c.raises else None] for c in cases],
        "wants": [encode(w) for w in wants], "known": known, "sources": sources,
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
    known = [(Wrong("", hint, print), [decode_outcome(o) for o in outcomes]) for hint, outcomes in body["known"]]
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
