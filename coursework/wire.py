"""Plain data as JSON and back: what crosses the wall between the grader and the learner's code.

Arrays travel as dtype, shape and raw bytes in base64. Nothing is ever unpickled, and what comes back is checked before it is
believed: known dtypes only, as many bytes as the shape says, no deep nesting.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

from coursework.running import Outcome, Strange

DTYPES = {np.dtype(t).str for t in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")}
DEPTH, TEXT = 6, 10_000


class WireError(Exception):
    """A message that is not what it should be."""


def encode(value: Any) -> Any:
    """Turn plain data (and what cases hand in: tensors, generators) into what `json` can write.

    Raises
    ------
    TypeError
        If there is no way to write it: a case may hold arrays, numbers, texts and containers of these.
    """
    if value is None or isinstance(value, bool | str):
        return value[:TEXT] if isinstance(value, str) else value
    if isinstance(value, np.ndarray) and value.dtype.str in DTYPES:
        return {"array": [value.dtype.str, list(value.shape), _text(np.ascontiguousarray(value))]}
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, int):
        return value if abs(value) < 2**53 else {"int": hex(value)[:TEXT]}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, complex):
        return {"complex": [encode(value.real), encode(value.imag)]}
    if isinstance(value, tuple | list):
        return {type(value).__name__ if type(value) in (tuple, list) else "tuple": [encode(part) for part in value]}
    if isinstance(value, dict):
        return {"dict": [[str(key), encode(part)] for key, part in value.items()]}
    if isinstance(value, Strange):
        return {"strange": value.kind[:100]}
    if isinstance(value, np.random.Generator):
        return {"generator": encode(value.bit_generator.state)}
    if hasattr(value, "detach"):
        return {"tensor": [encode(value.detach().cpu().numpy()), bool(value.requires_grad)]}
    raise TypeError(f"a case may hold arrays, numbers, texts, tuples, lists and dicts; this is a {type(value).__name__}")


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def decode(value: Any, depth: int = 0) -> Any:
    """The inverse of `encode`.

    Raises
    ------
    WireError
        If it is not something that `encode` writes.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth > DEPTH or not isinstance(value, dict) or len(value) != 1:
        raise WireError("not a value")
    (kind, body), = value.items()
    try:
        if kind == "array":
            return _array(*body)
        if kind in ("tuple", "list"):
            parts = [decode(part, depth + 1) for part in body]
            return tuple(parts) if kind == "tuple" else parts
        if kind == "dict":
            return {str(key): decode(part, depth + 1) for key, part in body}
        if kind == "int":
            return int(body, 16)
        if kind == "float":
            return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[body]
        if kind == "complex":
            return complex(decode(body[0]), decode(body[1]))
        if kind == "strange":
            return Strange(str(body)[:100])
        if kind == "generator":
            made = np.random.default_rng()
            made.bit_generator.state = decode(body, depth)
            return made
        if kind == "tensor":
            import torch

            return torch.tensor(decode(body[0])).requires_grad_(body[1])
    except WireError:
        raise
    except Exception as error:
        raise WireError(f"a broken {kind}") from error
    raise WireError(f"no kind {kind!r}")


def _array(dtype: str, shape: list, text: str) -> np.ndarray:
    if dtype not in DTYPES or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 8:
        raise WireError("a broken array")
    data = base64.b64decode(text, validate=True)
    if math.prod(shape) * np.dtype(dtype).itemsize != len(data):
        raise WireError("an array with other data than its shape says")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def encode_outcome(outcome: Outcome) -> dict:
    """An outcome as JSON-ready data."""
    return {"value": encode(outcome.value), "error": outcome.error[:100], "message": outcome.message[:300],
            "line": outcome.line, "modified": list(outcome.modified), "peak": outcome.peak, "bases": list(outcome.bases)[:20]}


def decode_outcome(message: Any) -> Outcome:
    """The inverse of `encode_outcome`; raises `WireError` unless it has that form."""
    if not isinstance(message, dict):
        raise WireError("not an outcome")
    line, peak, modified, bases = (message.get(k) for k in ("line", "peak", "modified", "bases"))
    error, text = message.get("error"), message.get("message")
    if not (type(line) is int and type(peak) is int and isinstance(error, str) and isinstance(text, str)
            and isinstance(modified, list) and all(isinstance(m, int | str) for m in modified)
            and isinstance(bases, list) and all(isinstance(b, str) for b in bases)):
        raise WireError("not an outcome")
    return Outcome(decode(message.get("value")), error[:100], text[:300], line, tuple(modified), peak, tuple(bases))
