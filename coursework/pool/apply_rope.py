"""Exercise: rotary positions in the half-split layout, for a problem set on positions."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Turn by the position"
CHAPTER = ""
POINTS = 5
PROMPT = r"""
Write `apply_rope(x, positions, base=10000.0)`, rotary positions {cite}`su2021` in the half-split layout. `x` (..., seq, dim) holds queries or keys of
one head, `dim` is even, and `positions` (seq,) says where each row stands: any numbers, in any order, not only 0, 1, 2. Pair `i`, with `i` from 0 to
dim / 2 − 1, consists of columns `i` and `i + dim / 2`. In a row at position $t$ it turns by the angle $t \cdot \mathrm{base}^{-2i / \mathrm{dim}}$ in radians, from
the first of its two columns towards the second: (1, 0) becomes (cos, sin). Return a new array of the shape of `x`, with any leading axes or none.
"""


def apply_rope(x, positions, base=10000.0):
    # BEGIN SOLUTION
    dim = x.shape[-1]
    speeds = base ** (-np.arange(0, dim, 2) / dim)  # (dim / 2,)
    angles = positions[:, None] * speeds            # (seq, dim / 2)
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = x[..., : dim // 2], x[..., dim // 2:]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq half", 3, 8)
    dim = 2 * s.half + 10
    named = {"batch": s.batch, "heads": s.heads, "seq": s.seq, "dim": dim}

    def x(*lead, seq=s.seq, dim=dim):
        return rng.normal(size=(*lead, seq, dim))

    yield case("positions 0, 1, 2, ...", x(), np.arange(s.seq), dims=named)
    yield case("positions that begin later", x(), np.arange(s.seq) + int(rng.integers(20, 90)), dims=named)
    yield case("positions in any order, some negative", x(), rng.permutation(np.arange(s.seq) * 7 - 10), dims=named)
    yield case("batch and heads", x(s.batch, s.heads), np.arange(s.seq) + 3, dims=named)
    yield case("another base", x(), np.arange(s.seq) + 1, 500.0, dims=named)
    yield case("one pair", x(dim=2), np.arange(s.seq) + 2, dims={"batch": s.batch, "heads": s.heads, "seq": s.seq})
    yield case("one row", x(seq=1), np.array([17]), dims={n: v for n, v in named.items() if n != "seq"})
    yield case("as many rows as pairs", x(seq=dim // 2), np.arange(dim // 2) + 1, dims={"batch": s.batch, "dim": dim})


def _turn(x, angles, sign=1):
    half = x.shape[-1] // 2
    a, b, cos, sin = x[..., :half], x[..., half:], np.cos(angles), sign * np.sin(angles)
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def _angles(x, positions, base=10000.0):
    dim = x.shape[-1]
    return positions[:, None] * base ** (-np.arange(0, dim, 2) / dim)


@wrong("Your pairs are neighbouring columns, 2i and 2i + 1. That is the other layout: here column i turns with column i + dim / 2.")
def interleaved(x, positions, base=10000.0):
    angles = _angles(x, positions, base)
    a, b, cos, sin = x[..., 0::2], x[..., 1::2], np.cos(angles), np.sin(angles)
    return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)


@wrong("You turn the wrong way round: by a quarter turn, (1, 0) should become (0, 1), and in yours it becomes (0, −1).")
def backwards(x, positions, base=10000.0):
    return _turn(x, _angles(x, positions, base), -1)


@wrong("Two layouts are mixed: columns are paired as halves, and the angles are laid out for neighbours, each twice in a row. The two columns of a "
       "pair then turn by different angles.")
def mixed_layouts(x, positions, base=10000.0):
    angles = np.repeat(_angles(x, positions, base), 2, axis=-1)
    half = x.shape[-1] // 2
    turned = np.concatenate([-x[..., half:], x[..., :half]], axis=-1)
    return x * np.cos(angles) + turned * np.sin(angles)


@wrong("`positions` has no effect on your result: row t is turned as if it stood at position t.")
def counts_rows(x, positions, base=10000.0):
    return _turn(x, _angles(x, np.arange(x.shape[-2]), base))


@wrong("`base` has no effect on your result: it is 10000 whatever is handed in.")
def fixed_base(x, positions, base=10000.0):
    return _turn(x, _angles(x, positions))


@wrong("Your exponent is i / dim for pair i; it should be 2i / dim. The slow pairs turn too fast in yours.")
def half_the_exponent(x, positions, base=10000.0):
    return _turn(x, positions[:, None] * base ** (-np.arange(x.shape[-1] // 2) / x.shape[-1]))


@wrong("The sign of the exponent is the wrong way round: your pairs turn faster and faster with i, and all but the first should turn slower.")
def faster_and_faster(x, positions, base=10000.0):
    return _turn(x, positions[:, None] * base ** (np.arange(0, x.shape[-1], 2) / x.shape[-1]))


@wrong("The second half of each row is not turned: both columns of a pair change, a into a cos − b sin and b into another mixture of the two.")
def first_half_alone(x, positions, base=10000.0):
    half = x.shape[-1] // 2
    return np.concatenate([_turn(x, _angles(x, positions, base))[..., :half], x[..., half:]], axis=-1)


@wrong("The second column of each pair is computed from the new first column, not from the old one: keep the old values until both new ones are "
       "made.")
def one_after_the_other(x, positions, base=10000.0):
    half, angles = x.shape[-1] // 2, _angles(x, positions, base)
    a, b = x[..., :half], x[..., half:]
    a = a * np.cos(angles) - b * np.sin(angles)
    return np.concatenate([a, a * np.sin(angles) + b * np.cos(angles)], axis=-1)


@wrong("Both sines have the same sign in yours. A rotation has one minus: with two pluses (or two minuses) vectors change their length.")
def no_minus(x, positions, base=10000.0):
    half, angles = x.shape[-1] // 2, _angles(x, positions, base)
    a, b, cos, sin = x[..., :half], x[..., half:], np.cos(angles), np.sin(angles)
    return np.concatenate([a * cos + b * sin, a * sin + b * cos], axis=-1)


@wrong("You add sines and cosines of the position to x, as for sinusoidal position vectors. Rotary positions turn the vectors; zeros should stay "
       "zeros.")
def adds(x, positions, base=10000.0):
    angles = _angles(x, positions, base)
    return x + np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


@wrong("You multiply each column by a cosine alone: the part of the other column of its pair, with the sine, is missing.")
def cosine_alone(x, positions, base=10000.0):
    angles = _angles(x, positions, base)
    return x * np.concatenate([np.cos(angles), np.cos(angles)], axis=-1)


@wrong("Your array x is changed by the function: a slice of an array is a view, and assigning to it writes into the caller's vectors.")
def in_place(x, positions, base=10000.0):
    x[...] = apply_rope(x, positions, base)
    return x


@wrong("Your result holds the pairs side by side, interleaved, though they were taken from the halves: put the first columns of all pairs first, "
       "then the second ones.")
def stacks_the_pairs(x, positions, base=10000.0):
    turned = apply_rope(x, positions, base)
    half = x.shape[-1] // 2
    return np.stack([turned[..., :half], turned[..., half:]], axis=-1).reshape(x.shape)


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9)


def _lengths(x):
    half = x.shape[-1] // 2
    return np.hypot(x[..., :half], x[..., half:])


@observe
def whole_row_length(case, got, want):
    before, after = np.linalg.norm(case.args[0], axis=-1), np.linalg.norm(got, axis=-1)
    off = ~_near(before, after)
    if off.any() and np.isfinite(got).all():
        return f"A rotation keeps lengths. In yours a row of length {before[off][0]:.4g} comes back with length {after[off][0]:.4g}."


@observe
def position_0(case, got, want):
    x, at_0 = case.args[0], case.args[1] == 0
    if at_0.any() and not _near(got, x)[..., at_0, :].all():
        return "A row at position 0 turns by no angle at all: it should come back as it was, and in yours it does not."


@observe
def pair_length(case, got, want):
    if got.dtype.kind != "f":
        return None
    before, after = _lengths(case.args[0]), _lengths(got)
    if np.isfinite(got).all() and not _near(before, after).all():
        neighbours = np.hypot(got[..., 0::2], got[..., 1::2]), np.hypot(case.args[0][..., 0::2], case.args[0][..., 1::2])
        if _near(*neighbours).all():
            return "Neighbouring columns keep their common length in yours: it is columns i and i + dim / 2 that should turn together."
        return "Whole rows keep their length in yours, pairs do not: columns i and i + dim / 2 should exchange with each other and with no other."


@observe
def angle_of_a_pair(case, got, want):
    x, positions = case.args[:2]
    half = x.shape[-1] // 2
    if got.dtype.kind != "f":
        return None
    z, y = x[..., :half] + 1j * x[..., half:], got[..., :half] + 1j * got[..., half:]
    t = want[..., :half] + 1j * want[..., half:]
    turned, right = np.angle(y / z), np.angle(t / z)
    if not np.isfinite(turned).all():
        return None
    if _near(turned, -right).all():
        return "All your angles are right but for their sign: you turn the other way round."
    off = ~(np.abs(np.exp(1j * turned) - np.exp(1j * right)) < 1e-7)
    pairs = off.reshape(-1, half).any(axis=0)
    rows = off.any(axis=-1).reshape(-1, x.shape[-2]).any(axis=0)
    if pairs.any() and not pairs.all():
        i = int(np.argmax(pairs))
        at = tuple(np.argwhere(off[..., i])[0])
        return (f"Of the pairs, {i} is the first that is off: at position {positions[at[-1]]} it turns by {turned[(*at, i)]:.5g} radians in yours, expected "
                f"{right[(*at, i)]:.5g} (up to whole turns).")
    if rows.any() and not rows.all() and half > 1:
        j = int(np.argmax(rows))
        return f"Rows {np.flatnonzero(~rows).tolist()} are right, row {j} at position {positions[j]} is not: its pair 0 turns by {turned.reshape(-1, x.shape[-2], half)[0, j, 0]:.5g}."
    if pairs.any():
        return (f"Your pairs keep their lengths and turn by wrong angles: in the last row, at position {positions[-1]}, pair 0 turns by "
                f"{turned.reshape(-1, half)[-1, 0]:.5g} radians, expected {right.reshape(-1, half)[-1, 0]:.5g} (up to whole turns).")
