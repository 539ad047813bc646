"""Exercise: sine and cosine position vectors, for a problem set on positions."""

import numpy as np

from coursework import Variant, case, observe, sizes, wrong

TITLE = "Sines and cosines for positions"
CHAPTER = ""
POINTS = 3
PROMPT = r"""
Write `sinusoids(seq, dim)`, the position vectors of {cite}`vaswani2017`: an array (seq, dim), row `t` for position `t`, beginning with position 0.
Pair `i` of columns, with `i` from 0 to dim / 2 − 1, holds a sine and a cosine of the same angle, $t \cdot 10000^{-2i / \mathrm{dim}}$ in radians: the
sine in column `2i`, the cosine in column `2i + 1`. `dim` is even; `seq` is at least 1.
"""

VARIANTS = {"sines_first": Variant(
    "the first dim / 2 columns hold the sines of all pairs in order, the last dim / 2 the cosines.",
    result=lambda vectors: np.concatenate([vectors[:, 0::2], vectors[:, 1::2]], axis=1),
    hint="Your sines and cosines alternate, as in the book. Here all sines come first, then all cosines.")}


def sinusoids(seq, dim):
    # BEGIN SOLUTION
    speeds = 10000.0 ** (-np.arange(0, dim, 2) / dim)  # (dim / 2,)
    angles = np.arange(seq)[:, None] * speeds          # (seq, dim / 2)
    vectors = np.empty((seq, dim))
    vectors[:, 0::2] = np.sin(angles)
    vectors[:, 1::2] = np.cos(angles)
    return vectors
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "seq half", 4, 9)
    yield case("a few positions", s.seq, 2 * s.half + 10, dims={"seq": s.seq, "dim": 2 * s.half + 10})
    yield case("as many positions as columns", 2 * s.half, 2 * s.half, dims={"seq": 2 * s.half})
    yield case("two columns", s.seq, 2, dims={"seq": s.seq, "dim": 2})
    yield case("one position", 1, 2 * s.half, dims={"dim": 2 * s.half})
    long = 300 + int(rng.integers(100))
    yield case("many positions", long, 8, dims={"seq": long, "dim": 8})


def _vectors(seq, dim, exponent=None, base=10000.0, start=0):
    exponent = -np.arange(0, dim, 2) / dim if exponent is None else exponent
    angles = (start + np.arange(seq)[:, None]) * base**exponent
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(seq, dim)


@wrong("All your sines come first, then all cosines. Each sine should stand beside the cosine of the same angle: which columns are those of pair i?")
def halves(seq, dim):
    vectors = sinusoids(seq, dim)
    return np.concatenate([vectors[:, 0::2], vectors[:, 1::2]], axis=1)


@wrong("Sine and cosine have changed places: at position 0 all sines are 0.")
def cosines_first(seq, dim):
    return sinusoids(seq, dim).reshape(seq, dim // 2, 2)[..., ::-1].reshape(seq, dim)


@wrong("Your positions begin with 1: row 0 is that of position 0, whose sines are 0 and whose cosines are 1.")
def from_one(seq, dim):
    return _vectors(seq, dim, start=1)


@wrong("Your exponent is i / dim for pair i. The slowest pair should turn nearly 10,000 times slower than the fastest; yours turns nearly 100 times "
       "slower.")
def half_the_exponent(seq, dim):
    return _vectors(seq, dim, -np.arange(dim // 2) / dim)


@wrong("Your exponent goes from 0 in steps of 4 / dim: pair i counts twice. If `i` in your code is the column, it is 2i already.")
def twice_the_exponent(seq, dim):
    return _vectors(seq, dim, -2 * np.arange(0, dim, 2) / dim)


@wrong("Each column has a speed of its own, so the sine and the cosine of a pair are those of different angles. Both columns of a pair share one "
       "exponent.")
def a_speed_for_each_column(seq, dim):
    angles = np.arange(seq)[:, None] * 10000.0 ** (-np.arange(dim) / dim)
    return np.where(np.arange(dim) % 2 == 0, np.sin(angles), np.cos(angles))


@wrong("Your angles grow with the pair, up to nearly 10,000 radians per position: the sign of the exponent is the wrong way round.")
def faster_and_faster(seq, dim):
    return _vectors(seq, dim, np.arange(0, dim, 2) / dim)


@wrong("All your pairs turn at the same speed, one radian per position: the exponent has no effect.")
def one_speed(seq, dim):
    return _vectors(seq, dim, np.zeros(dim // 2))


@wrong("The slowest pair of yours turns exactly 10,000 times slower than the fastest, because the exponents end at 1. They go up to 2i / dim with i "
       "= dim / 2 − 1, which is below 1.")
def up_to_one(seq, dim):
    return _vectors(seq, dim, -np.linspace(0, 1, dim // 2))


@wrong("The base is not 10000 in your angles: how many times slower should the last pair turn than the first?")
def base_1000(seq, dim):
    return _vectors(seq, dim, base=1000.0)


@wrong("The pairs come in reverse order: pair 0, in columns 0 and 1, is the fastest.")
def slowest_first(seq, dim):
    return _vectors(seq, dim, (-np.arange(0, dim, 2) / dim)[::-1])


@wrong("Positions stand across and columns down in your result: row t holds the vector of position t.")
def positions_across(seq, dim):
    return sinusoids(seq, dim).T


@wrong("You divide the whole by √dim, or scale it otherwise: each number should be a sine or a cosine as it is.")
def scaled(seq, dim):
    return sinusoids(seq, dim) / dim**0.5


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9)


@observe
def position_0(case, got, want):
    row = got[0]
    if not _near(row, want[0]).all():
        if _near(row, 0).all() or _near(row, 1).all():
            return f"Row 0 of yours is all {row[0]:.0f}. At position 0 every angle is 0: what are its sine and its cosine?"
        if _near(row[: len(row) // 2], 0).all() and _near(row[len(row) // 2:], 1).all():
            return "Row 0 of yours holds zeros in its first half and ones in its second. It should hold 0, 1, 0, 1, and so on."
        if _near(row[: len(row) // 2], 1).all() and _near(row[len(row) // 2:], 0).all():
            return "Row 0 of yours holds ones in its first half and zeros in its second. It should hold 0, 1, 0, 1, and so on."
        return f"Row 0 of yours begins with {row[0]:.4g}, {row[1]:.4g}. At position 0 every angle is 0, so it should hold 0, 1, 0, 1, and so on."


@observe
def out_of_range(case, got, want):
    if np.isfinite(got).all() and np.abs(got).max() > 1 + 1e-9:
        return f"Yours holds numbers up to {np.abs(got).max():.4g}; no sine or cosine is larger than 1."


@observe
def pairs_of_length_one(case, got, want):
    lengths = got[:, 0::2] ** 2 + got[:, 1::2] ** 2
    off = ~_near(lengths, 1)
    if off.any() and np.isfinite(got).all():
        i = int(np.argmax(off.any(axis=0)))
        return (f"Sin² + cos² of a pair should be 1. In yours, columns {2 * i} and {2 * i + 1} give {lengths[off[:, i], i][0]:.4g} in some row: they do not hold "
                "sine and cosine of the same angle.")


@observe
def speed_of_a_pair(case, got, want):
    if len(got) < 2 or got.dtype.kind != "f" or not np.isfinite(got).all() or np.abs(got - want).max() < 1e-3:
        return None
    turns, right = np.arctan2(got[1, 0::2], got[1, 1::2]), np.arctan2(want[1, 0::2], want[1, 1::2])
    off = ~_near(turns, right)
    if off.all() and len(off) > 1:
        return f"From position 0 to 1 pair 0 turns by {turns[0].round(9) + 0.0:.4g} radians (up to whole turns) in yours; it should turn by 1."
    if off.any():
        i = int(np.argmax(off))
        words = "pair 0 is right, all others are not" if i == 1 and off[1:].all() and len(off) > 2 else f"pair {i} is the first that is off"
        return f"Of the speeds, {words}: pair {i} turns by {turns[i]:.6g} radians per position in yours, and should by {right[i]:.6g}."


@observe
def later_positions(case, got, want):
    rows, gap = ~_near(got, want).all(axis=1), np.abs(got - want).max()
    if gap < 1e-3:
        return f"Yours is nearly right, off by {gap:.1g} at most: the angles have lost precision on the way, as in float32."
    if len(got) > 2 and rows.any() and not rows[:2].any():
        return f"Positions 0 to {int(np.argmax(rows)) - 1} are right; position {int(np.argmax(rows))} is the first that is not."
