"""Exercise: rotary positions as a multiplication of complex numbers."""

import numpy as np

from attnlib.positions import position_angles
from coursework import case, observe, sizes, wrong

TITLE = "RoPE in one multiplication"
CHAPTER = "07_positions"
POINTS = 4
PROMPT = r"""
Read each neighbouring pair of columns as one complex number. Then turning it by an angle is a multiplication by
$e^{\mathrm i\,\text{angle}}$. Write `complex_rope(x, positions)`, which turns `x` (..., seq, dim), dim even, in the *interleaved* layout
(columns $2i$ and $2i + 1$ are a pair), on any leading axes; row $t$ of the last two axes stands at `positions[t]`, `positions` is (seq,).
The result has the shape of `x` and holds real numbers. `position_angles(positions, dim)`, the angle of each pair at each position
(seq, dim / 2), is given. (Hint: `x[..., 0::2] + 1j * x[..., 1::2]`.)
"""
GIVEN = "import numpy as np\n\nfrom attnlib.positions import position_angles"


def complex_rope(x, positions):
    # BEGIN SOLUTION
    numbers = x[..., 0::2] + 1j * x[..., 1::2]  # (..., seq, dim / 2)
    angles = position_angles(positions, x.shape[-1])  # (seq, dim / 2)
    numbers = numbers * np.exp(1j * angles)
    # (..., seq, dim / 2, 2)
    pairs = np.stack([numbers.real, numbers.imag], axis=-1)
    return pairs.reshape(x.shape)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq half", least=3, most=7)
    dim = 2 * (s.half + 2)
    d = {"seq": s.seq, "dim": dim}
    whole = {"batch": s.batch, "heads": s.heads, "seq": s.seq, "dim": dim}
    yield case("one matrix, positions from 0", rng.normal(size=(s.seq, dim)), np.arange(s.seq), dims=d)
    places = np.sort(rng.choice(np.arange(1, 50), size=s.seq, replace=False))
    yield case("positions with gaps", rng.normal(size=(s.seq, dim)), places, dims=d)
    yield case("leading axes", rng.normal(size=(s.batch, s.heads, s.seq, dim)), places, dims=whole)
    square = 2 * s.half
    yield case("as many heads as rows", rng.normal(size=(2, square, square, dim + 2)), np.arange(square) + 3)
    yield case("a single row, far away", rng.normal(size=(1, dim)), np.array([int(rng.integers(10_000, 20_000))]), dims={"dim": dim})
    yield case("a single pair", rng.normal(size=(s.seq, 2)), places, dims={"seq": s.seq})
    yield case("negative positions and halves", rng.normal(size=(s.seq, dim)), np.arange(s.seq) / 2 - 2, dims=d)


def _turned(x, angles):
    """x in the interleaved layout, turned by angles."""
    a, b = x[..., 0::2], x[..., 1::2]
    return np.stack([a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)], axis=-1).reshape(x.shape)


@wrong("This is RoPE in the other layout, half-split: column i is paired with i + dim/2. Here neighbours are a pair.")
def half_split(x, positions):
    half = x.shape[-1] // 2
    numbers = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * position_angles(positions, x.shape[-1]))
    return np.concatenate([numbers.real, numbers.imag], axis=-1)


@wrong("The pairs are turned right and put back in the wrong place: all real parts first, then all imaginary parts. In x they alternate.")
def halves_joined(x, positions):
    out = complex_rope(x, positions)
    return np.concatenate([out[..., 0::2], out[..., 1::2]], axis=-1)


@wrong("You turn the other way round, by minus the angle. What is e to the i · angle for a small positive angle?")
def turns_back(x, positions):
    return _turned(x, -position_angles(positions, x.shape[-1]))


@wrong("Real and imaginary part are exchanged: the odd column became the real part. Seen from the even one, that turns the other way.")
def exchanged(x, positions):
    numbers = (x[..., 1::2] + 1j * x[..., 0::2]) * np.exp(1j * position_angles(positions, x.shape[-1]))
    return np.stack([numbers.real, numbers.imag], axis=-1).reshape(x.shape)


@wrong("Your `positions` have no effect: rows are counted 0, 1, 2, ... instead. A cache starts in the middle of a text.")
def counts_rows(x, positions):
    return complex_rope(x, np.arange(x.shape[-2]))


@wrong("Every pair is turned by the position itself, in radians. Each pair has its own speed, and `position_angles` knows it.")
def one_speed(x, positions):
    return _turned(x, positions[:, None] + 0 * position_angles(positions, x.shape[-1]))


@wrong("The angles are taken for one half of the width: the speeds of your pairs fall too fast. Which dim does `position_angles` "
       "want?")
def speeds_of_half_the_width(x, positions):
    speeds = 10000.0 ** (-np.arange(0, x.shape[-1], 2) / (x.shape[-1] // 2))
    return _turned(x, positions[:, None] * speeds)


@wrong("You return the complex numbers, half as wide as `x`. Real and imaginary parts have to go back into neighbouring columns.")
def stays_complex(x, positions):
    return (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * position_angles(positions, x.shape[-1]))


@wrong("You turn the real part and lose the imaginary one: each pair holds the same number twice.")
def real_twice(x, positions):
    return np.repeat(complex_rope(x, positions)[..., 0::2], 2, axis=-1)


@wrong("With leading axes, your positions belong to the heads instead of the rows. The rows are on the last axis but one.")
def positions_on_the_heads(x, positions):
    if x.ndim < 4 or x.shape[-3] != len(positions):
        return complex_rope(x, positions)
    return complex_rope(x.swapaxes(-2, -3), positions).swapaxes(-2, -3)


@wrong("The array that was given is changed: you write the turned numbers into `x` itself.")
def in_place(x, positions):
    x[...] = complex_rope(x, positions)
    return x


@wrong("You write back the new even column before the odd one is computed from the old: half of each pair is turned twice.")
def too_early(x, positions):
    angles = position_angles(positions, x.shape[-1])
    out = x.copy()
    out[..., 0::2] = out[..., 0::2] * np.cos(angles) - out[..., 1::2] * np.sin(angles)
    out[..., 1::2] = out[..., 0::2] * np.sin(angles) + out[..., 1::2] * np.cos(angles)
    return out


def _near(a, b):
    return np.isclose(a, b, rtol=1e-7, atol=1e-9)


def _angles(a, x):
    ratio = (a[..., 0::2] + 1j * a[..., 1::2]) / (x[..., 0::2] + 1j * x[..., 1::2])
    return np.angle(ratio)


def _clear(got, want):
    """Whether these are real, finite numbers, off by more than a lower precision would do; the rest is said elsewhere."""
    return (got.dtype.kind == "f" and np.isfinite(got).all()
            and np.abs(got - want).max() > 1e-3 * np.abs(want).max())


@observe
def a_reflection(case, got, want):
    if not _clear(got, want):
        return None
    x, positions = case.args
    mirrored = x.copy()
    mirrored[..., 1::2] *= -1
    by = _angles(got, mirrored)
    if by.ndim > 2 or len(positions) < 2:
        return None
    turned = position_angles(positions, x.shape[-1])
    for sign in (1, -1):
        for offset in (0, np.pi / 2, np.pi, -np.pi / 2):
            if _near(np.exp(1j * by), np.exp(1j * (sign * turned + offset))).all():
                return ("Your pairs are mirrored before or after they are turned: one of the two columns has the wrong sign, or they are "
                        "exchanged.")


@observe
def all_by_another_angle(case, got, want):
    if not _clear(got, want):
        return None
    x, positions = case.args
    have = _angles(got, x)
    if not _near(np.hypot(got[..., 0::2], got[..., 1::2]), np.hypot(x[..., 0::2], x[..., 1::2])).all():
        return None
    turned = np.exp(1j * have)
    for sign, says in ((1, ""), (-1, "the other way, ")):
        for factor in (2, 0.5, 2 * np.pi, np.pi / 180, 180 / np.pi):
            if _near(turned, np.exp(1j * sign * factor * position_angles(positions, x.shape[-1]))).all():
                return f"Every pair is turned {says}by {factor:.4g} times its angle."
        for shift in (1, -1):
            if _near(turned, np.exp(1j * sign * position_angles(positions + shift, x.shape[-1]))).all():
                return f"Every row is turned {says}as if it stood at its position {'plus' if shift > 0 else 'minus'} 1."


@observe
def position_zero(case, got, want):
    if not _clear(got, want):
        return None
    x, positions = case.args
    for t in np.flatnonzero(positions == 0):
        if not _near(got[..., t, :], x[..., t, :]).all():
            if _near(np.sort(got[..., t, :]), np.sort(x[..., t, :])).all():
                return f"Row {t} stands at position 0, where nothing is to be turned; yours has its numbers in another order."
            old, new = x[..., t, :2].reshape(-1, 2)[0], got[..., t, :2].reshape(-1, 2)[0]
            return (f"Row {t} stands at position 0, where nothing is to be turned: its first pair is ({old[0]:.3g}, {old[1]:.3g}) and has "
                    f"become ({new[0]:.3g}, {new[1]:.3g}) in your result.")


@observe
def lengths(case, got, want):
    if not _clear(got, want):
        return None
    x = case.args[0]
    of = [np.hypot(a[..., 0::2], a[..., 1::2]) for a in (got, x)]
    if not _near(*of).all():
        if _near((got**2).sum(axis=-1), (x**2).sum(axis=-1)).all():
            return "Each row keeps its length, but its neighbouring pairs do not: the columns that you turn together are not neighbours."
        at = tuple(int(i) for i in np.argwhere(~_near(*of))[0])
        return (f"Turning changes no length, but pair {at[-1]} of row {at[-2]} had the length {of[1][at]:.4g} and has {of[0][at]:.4g} "
                "in your result.")


@observe
def by_which_angle(case, got, want):
    if not _clear(got, want):
        return None
    x, positions = case.args
    have, asked = _angles(got, x).round(9), _angles(want, x)
    turned = np.exp(1j * have)
    good = _near(turned, np.exp(1j * asked))
    if good.all():
        return None
    if good[..., 0].all() and good.shape[-1] > 1:
        p = int(np.argmax(~good.all(axis=tuple(range(good.ndim - 1)))))
        t = int(np.argmax(~good[..., p].reshape(-1, good.shape[-2]).all(axis=0)))
        return (f"Pair 0 is turned right, pair {p} is not: at position {positions[t]:.4g} by {have[..., t, p].flat[0]:.4g} "
                f"radians, expected {asked[..., t, p].flat[0]:.4g}. Each pair has its own speed.")
    at = tuple(int(i) for i in np.argwhere(~good)[0])
    return (f"Pair {at[-1]} of row {at[-2]}, at position {positions[at[-2]]:.4g}, is turned by {have[at]:.4g} radians, expected "
            f"{asked[at]:.4g} (up to whole turns).")
