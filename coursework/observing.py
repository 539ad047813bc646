"""What can be seen in a wrong result, said as an observation about one array: `look(got, want, dims, args)`.

Each function here takes an `Array` and returns a sentence or None. They are asked in the order of `LOOKS`; the first that
has something to say is heard. Every sentence states what was seen ("your columns sum to 1, your rows do
not"), never what the author must have thought.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass
class Array:
    """A wrong array beside the right one, with the names of the sizes; `subject` is how it is called."""

    got: np.ndarray
    want: np.ndarray
    dims: dict
    args: tuple
    close: object              # (a, b) -> bool, in the tolerance of the exercise
    subject: str = "the result"

    @property
    def differs(self) -> np.ndarray:
        """Where got is not want (same shape)."""
        return ~self.close(self.got, self.want)

    def same(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Whether two arrays agree everywhere."""
        return a.shape == b.shape and bool(np.all(self.close(a, b)))


def named(shape: tuple, dims: dict) -> str:
    """A shape with the names of its sizes: `(seq_q=5, seq_k=7)`."""
    names = {size: name for name, size in dims.items()}
    return "(" + ", ".join(f"{names[n]}={n}" if n in names else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def shape(a: Array) -> str | None:
    """Another shape: transposed, an axis too few or too many, another axis."""
    got, want = a.got.shape, a.want.shape
    if got == want:
        return None
    tail = ""
    if sorted(got) == sorted(want) and len(got) > 1:
        tail = " The sizes are right, their order is not."
        if any(a.same(a.got.transpose(order), a.want) for order in itertools.permutations(range(len(got)))
               if tuple(got[i] for i in order) == want):
            tail = " With its axes in the other order it would be right."
    elif len(got) == len(want) + 1 and 1 in got and tuple(n for n in got if n != 1) == tuple(n for n in want if n != 1):
        tail = " There is an axis of length 1 too many."
    elif len(got) == len(want) - 1 and tuple(n for n in want if n != 1) == tuple(n for n in got if n != 1):
        tail = " An axis of length 1 is missing."
    elif len(want) > len(got) and want[len(want) - len(got):] == got:
        tail = " The leading axes are missing."
    elif np.prod(got) == np.prod(want):
        tail = " It holds as many numbers, arranged otherwise."
    return f"{a.subject} has shape {named(got, a.dims)}, expected {named(want, a.dims)}.{tail}"


def kind(a: Array) -> str | None:
    """Booleans asked for and numbers returned, or the other way round, or whole numbers."""
    words = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "real numbers", "c": "complex numbers"}
    got, want = words[a.got.dtype.kind], words[a.want.dtype.kind]
    if got == want or (want == "real numbers" and got == "whole numbers" and a.same(a.got.astype(float), a.want)):
        return None
    hint = " Casting to whole numbers cut off what came after the point." if want == "real numbers" and got == "whole numbers" else ""
    return f"{a.subject} holds {got} ({a.got.dtype}), expected {want}.{hint}"


def not_finite(a: Array) -> str | None:
    """NaN or infinity where there should be a number, and in which rows."""
    if a.got.dtype.kind not in "fc":
        return None
    bad = ~np.isfinite(a.got) & np.isfinite(a.want)
    if not bad.any():
        lost = np.isfinite(a.got) & ~np.isfinite(a.want)
        return f"{a.subject} is finite in {lost.sum()} places where {_word(a.want[lost][0])} is expected." if lost.any() else None
    what = "NaN" if np.isnan(a.got[bad]).all() else _word(a.got[bad][0]) if np.isinf(a.got[bad]).all() else "NaN or infinity"
    return f"{a.subject} holds {what} in {_where(bad)}, where a finite number is expected.{_extreme(a.args)}"


def _extreme(args: tuple) -> str:
    """What exp makes of the largest or smallest number that came in, if it cannot hold it."""
    numbers = [x[np.isfinite(x)] for x in args if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    numbers += [np.array([float(x)]) for x in args if isinstance(x, float) and np.isfinite(x)]
    most, least = max((x.max(initial=0) for x in numbers), default=0), min((x.min(initial=0) for x in numbers), default=0)
    if most > 709:
        return f" Numbers up to {most:,.0f} come in here, and exp of that is infinite."
    return f" Numbers down to {least:,.0f} come in here, and exp of that is 0." if least < -745 else ""


def _word(value: float) -> str:
    return "NaN" if np.isnan(value) else "infinity" if value > 0 else "minus infinity"


def _where(mask: np.ndarray) -> str:
    """Say which entries a mask marks, by rows where whole rows are marked."""
    count, total = int(mask.sum()), mask.size
    if count == total:
        return "every place" if total > 1 else "its only place"
    if mask.ndim >= 2:
        rows = mask.all(axis=-1)
        if (rows == mask.any(axis=-1)).all():
            return f"{int(rows.sum())} of {rows.size} rows (all of such a row)"
    return f"{count} of {total} places"


def booleans(a: Array) -> str | None:
    """A mask with the opposite meaning, or with too much or too little in it."""
    if a.want.dtype.kind != "b" or a.want.ndim == 0:
        return None
    if (a.got == ~a.want).all():
        return f"{a.subject} is True exactly where it should be False."
    for order in itertools.permutations(range(a.got.ndim)):
        if order != tuple(range(a.got.ndim)) and a.same(a.got.transpose(order), a.want):
            return f"{a.subject} is right with its axes {' and '.join(str(i) for i, o in enumerate(order) if i != o)} exchanged."
    more, less = a.got & ~a.want, ~a.got & a.want
    parts = [f"True in {m.sum()} places where False is expected, the first at {_first(m, a.dims)}" if i == 0 else
             f"False in {m.sum()} places where True is expected, the first at {_first(m, a.dims)}"
             for i, m in enumerate((more, less)) if m.any()]
    side = _side(more | less, a.dims)
    return f"{a.subject} is {' and '.join(parts)}.{side}"


def _first(mask: np.ndarray, dims: dict) -> str:
    at = tuple(int(i) for i in np.argwhere(mask)[0])
    names = {size: name for name, size in dims.items()}
    if mask.ndim == 2 and all(n in names for n in mask.shape):
        return f"[{', '.join(f'{names[n]} {i}' for n, i in zip(mask.shape, at, strict=True))}]"
    return f"[{', '.join(map(str, at))}]"


def _side(mask: np.ndarray, dims: dict) -> str:
    """Where in a matrix the faults lie, if that can be said in few words; of a diagonal only where queries meet keys."""
    if mask.ndim < 2 or min(mask.shape[-2:]) < 2 or mask.all():
        return ""
    names = {size: name for name, size in dims.items()}
    met = mask.shape[-1] == mask.shape[-2] or all(names.get(n, "").startswith("seq") for n in mask.shape[-2:])
    flat = mask.reshape(-1, *mask.shape[-2:]).any(axis=0)
    rows, columns = np.nonzero(flat)
    shift = flat.shape[1] - flat.shape[0]          # the last query stands at the last key
    tests = [("on the diagonal", columns - rows == shift), ("in the first row", rows == 0),
             ("in the last row", rows == flat.shape[0] - 1), ("in the first column", columns == 0),
             ("in the last column", columns == flat.shape[1] - 1), ("above the diagonal", columns - rows > shift),
             ("below the diagonal", columns - rows < shift)]
    where = next((text for text, test in tests if test.all() and (met or "diagonal" not in text)), "")
    return f" All of it lies {where}." if where else ""


def unchanged(a: Array) -> str | None:
    """The result is one of the arguments, or all zeros."""
    for i, argument in enumerate(a.args):
        if isinstance(argument, np.ndarray) and argument.size and a.same(a.got, argument):
            return f"{a.subject} equals argument {i + 1}, as it was given."
    if a.got.size and not a.got.any() and a.want.any():
        return f"{a.subject} is all zeros."
    return None


def constant(a: Array) -> str | None:
    """A constant factor or a constant difference, with the sizes it may have come from."""
    if a.want.dtype.kind not in "fiu" or a.want.size < 2 or a.got.dtype.kind not in "fiu":
        return None
    got, want = a.got.astype(float), a.want.astype(float)
    finite = np.isfinite(got) & np.isfinite(want)
    big = finite & (np.abs(want) > 1e-6 * (np.abs(want[finite]).max(initial=0) or 1))
    if not big.any() or not np.isfinite(got).all() == np.isfinite(want).all():
        return None
    if a.same(got, -want):
        return f"{a.subject} has the opposite sign everywhere."
    ratio = np.median(got[big] / want[big])
    if np.isfinite(ratio) and ratio != 0 and finite.any() and a.same(np.where(finite, got / ratio, want), want):
        return f"{a.subject} is {ratio:.4g} times what is expected, everywhere{_origin(ratio, a.dims)}."
    offset = np.median((got - want)[finite])
    if np.ptp(want[finite]) > 1e-9 and a.same(np.where(finite, got - offset, want), want):
        return f"{a.subject} is larger than expected by the same number everywhere: {offset:.4g}{_origin(offset, a.dims)}."
    return None


def _origin(number: float, dims: dict) -> str:
    """A size, its root, or one over them, that equals a number (the first, if there are several)."""
    forms = [("{}", lambda n: n), ("√{}", lambda n: n**0.5), ("1/{}", lambda n: 1 / n), ("1/√{}", lambda n: n**-0.5),
             ("{}²", lambda n: n * n), ("2·{}", lambda n: 2 * n), ("ln {}", lambda n: np.log(n))]
    for form, value in forms:
        for name, size in dims.items():
            if size > 1 and np.isclose(abs(number), value(size), rtol=1e-6):
                return f" (that is {form.format(name)}, with {name} = {size})"
    return ""


def sums(a: Array) -> str | None:
    """Rows that should sum to 1, and what sums to 1 instead."""
    if a.want.dtype.kind != "f" or a.want.ndim < 1 or not a.want.size or not np.isfinite(a.want).all():
        return None
    wanted = a.want.sum(axis=-1)
    if (a.want < 0).any() or not np.isclose(wanted, np.round(wanted)).all() or not np.isin(np.round(wanted), (0, 1)).all():
        return None
    rows = a.got.sum(axis=-1)
    if np.allclose(rows, wanted, rtol=1e-6):
        return None
    others = [axis for axis in range(a.got.ndim - 1) if np.allclose(a.got.sum(axis=axis), 1)]
    if others:
        return f"your columns sum to 1, your rows do not (in {a.subject}, sums along axis {others[-1] - a.got.ndim} are 1)."
    if a.got.ndim > 1 and np.isclose(a.got.sum(), 1):
        return f"all of {a.subject} together sums to 1; each row should."
    empty = (np.round(wanted) == 0) & (np.abs(rows) > 1e-6)
    if empty.any() and np.allclose(rows[~empty], wanted[~empty]):
        return f"{a.subject}: a row that may spend nothing should be all zeros; yours sums to {rows[empty].flat[0]:.3g}."
    return f"the rows of {a.subject} should sum to 1; yours sum to between {rows.min():.3g} and {rows.max():.3g}."


def rearranged(a: Array) -> str | None:
    """The right numbers in other places: transposed, reversed, shifted, permuted."""
    got, want = a.got, a.want
    if got.ndim == 0 or got.size < 3 or got.dtype.kind not in "fiub":
        return None
    for order in itertools.permutations(range(got.ndim)):
        if order != tuple(range(got.ndim)) and a.same(got.transpose(order), want):
            return f"{a.subject} is right with its axes {' and '.join(str(i) for i, o in enumerate(order) if i != o)} exchanged."
    for axis in range(-1, -got.ndim - 1, -1):
        if got.shape[axis] > 1:
            if a.same(np.flip(got, axis), want):
                return f"{a.subject} is in reverse order along axis {axis}."
            for steps in (1, -1):
                if got.shape[axis] > 2 and a.same(np.roll(got, steps, axis), want):
                    return f"{a.subject} is shifted by one along axis {axis}."
    for axis in range(-1, -got.ndim - 1, -1):
        if got.shape[axis] > 2 and _permuted(a, axis):
            return f"{a.subject} holds the right slices along axis {axis}, in another order."
    if a.same(np.sort(got, axis=None), np.sort(want, axis=None)):
        return f"{a.subject} holds the right numbers, in other places."
    return None


def _permuted(a: Array, axis: int) -> bool:
    ours, theirs = (list(np.moveaxis(x, axis, 0)) for x in (a.want, a.got))
    for part in theirs:
        hit = next((i for i, other in enumerate(ours) if a.same(part, other)), None)
        if hit is None:
            return False
        ours.pop(hit)
    return True


def mostly(a: Array) -> str | None:
    """Right but for one side, one row, one slice: where the faults lie."""
    wrong = a.differs
    if wrong.all() or a.got.ndim == 0:
        return None
    side = _side(wrong, a.dims)
    if side:
        return f"{a.subject} is right in {(~wrong).sum()} of {wrong.size} places.{side}"
    for axis in range(a.got.ndim):
        along = wrong.any(axis=tuple(i for i in range(a.got.ndim) if i != axis))
        if along.sum() == 1 and along.size > 2:
            return f"{a.subject} is right but for index {int(np.argmax(along))} of axis {axis - a.got.ndim}."
        if not along[0] and along[1:].all() and along.size > 2:
            return f"{a.subject} is right at index 0 of axis {axis - a.got.ndim} and wrong at all others."
    return None


def rough(a: Array) -> str | None:
    """Almost right: a small constant, a lower precision, an approximation."""
    if a.want.dtype.kind != "f" or a.got.dtype.kind != "f" or not np.isfinite(a.got).all():
        return None
    error = np.abs(a.got - a.want).max(initial=0)
    scale = np.abs(a.want[np.isfinite(a.want)]).max(initial=0)
    if 0 < error < 1e-4 * scale:
        return (f"{a.subject} is nearly right: off by {error:.1g} at most. A small constant that was added, a lower "
                "precision, or an approximation does that.")
    return None


LOOKS = (kind, shape, not_finite, booleans, unchanged, rough, constant, sums, rearranged, mostly)


def look(a: Array) -> str | None:
    """The first thing that can be said about a wrong array, or None."""
    for see in LOOKS:
        if a.got.shape != a.want.shape and see not in (kind, shape):
            return None
        with np.errstate(all="ignore"):
            said = see(a)
        if said:
            return said
    return None


def factor(got: int, want: int, dims: dict) -> str | None:
    """Say which of the sizes, or two of them, with a small power of 2, a count has too often or lacks; None if that is not it."""
    if got <= 0 or want <= 0 or got == want:
        return None
    none = [(1, "")]
    sizes = [(n**p, name + "²" * (p == 2)) for name, n in dims.items() for p in (1, 2)]
    for up, more in none + sizes:
        for down, fewer in none + sizes:
            for two in (0, 1, 2, 3, 4, -1, -2, -3, -4):
                over, under = up * 2 ** max(two, 0), down * 2 ** max(-two, 0)
                if got * under == want * over:
                    extra = " · ".join(filter(None, [more, str(2**two) if two > 0 else ""]))
                    lacking = " · ".join(filter(None, [fewer, str(2**-two) if two < 0 else ""]))
                    parts = [f"has {extra} too often as a factor"] * bool(extra) + [f"lacks the factor {lacking}"] * bool(lacking)
                    used = [f"{name} = {n}" for name, n in dims.items() if name in (more.strip("²"), fewer.strip("²"))]
                    return " and ".join(parts) + (f" ({', '.join(used)})" if used else "")
    return None


def pieces(got, want, names: tuple, subject: str = "the result") -> Iterator[tuple]:
    """Walk through two results of the same structure; yield (got, want, subject) for every array or number."""
    if isinstance(want, tuple | list):
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            label = f"`{names[i]}`" if i < len(names) else f"result {i + 1} of {len(want)}" if subject == "the result" else f"{subject}[{i}]"
            yield from pieces(g, w, (), label)
    elif isinstance(want, dict):
        for key in want:
            yield from pieces(got[key], want[key], (), f"{subject}[{key!r}]")
    else:
        yield got, want, subject
