"""Exercise: the matrix that moves sinusoidal position vectors by some steps, whatever the position."""

import numpy as np

from attnlib.positions import position_angles, sinusoids
from coursework import case, observe, sizes, wrong

TITLE = "A shift is a rotation"
CHAPTER = "07_positions"
POINTS = 5
PROMPT = r"""
`sinusoids(seq, dim)` (seq, dim) holds in columns $2i$ and $2i + 1$ of row $t$ the sine and the cosine of $\omega_i t$, and
`position_angles(positions, dim)` (seq, dim / 2) the angles $\omega_i t$ themselves, for an array of positions; both are given. Write
`shift_matrix(steps, dim)`, a (dim, dim) matrix with `sinusoids(seq, dim)[t] @ shift_matrix(s, dim) == sinusoids(seq, dim)[t + s]` for
all positions `t` and `t + s` from 0 on; `steps` may be negative. It must not depend on `t`: this is how a head *could* learn "the token four to the left".
Recall $\sin(a + b) = \sin a \cos b + \cos a \sin b$ and $\cos(a+b) = \cos a \cos b - \sin a \sin b$.
"""
GIVEN = "import numpy as np\n\nfrom attnlib.positions import position_angles, sinusoids"


def shift_matrix(steps, dim):
    # BEGIN SOLUTION
    matrix = np.zeros((dim, dim))
    angles = position_angles(np.array([steps]), dim)[0]      # (dim / 2,)
    for i, angle in enumerate(angles):
        cos, sin = np.cos(angle), np.sin(angle)
        block = slice(2 * i, 2 * i + 2)
        # a row (sin, cos) times this
        matrix[block, block] = [[cos, -sin], [sin, cos]]
    return matrix
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "half steps", least=4, most=11)
    dim = 2 * s.half
    yield case("one step", 1, dim, dims={"dim": dim})
    yield case("several steps", s.steps, dim, dims={"dim": dim})
    yield case("steps to the left", -int(rng.integers(2, 9)), dim, dims={"dim": dim})
    yield case("no step at all", 0, dim, dims={"dim": dim})
    yield case("a single pair", s.steps, 2)
    yield case("many steps, width 64", int(rng.integers(100, 999)), 64, dims={"dim": 64})


def _blocks(angles, block):
    """A matrix with a 2 by 2 block on the diagonal for each angle."""
    matrix = np.zeros((2 * len(angles), 2 * len(angles)))
    for i, angle in enumerate(angles):
        matrix[2 * i: 2 * i + 2, 2 * i: 2 * i + 2] = block(np.cos(angle), np.sin(angle))
    return matrix


def _angles(steps, dim):
    return position_angles(np.array([steps]), dim)[0]


@wrong("Your matrix shifts the other way, as if it stood on the left of a column. Here a **row** is multiplied: (sin, cos) times your "
       "block.")
def for_columns(steps, dim):
    return shift_matrix(steps, dim).T


@wrong("Every pair is turned by the same angle. Each turns at its own speed: slow pairs move less in the same number of steps.")
def one_speed(steps, dim):
    return _blocks(np.full(dim // 2, float(steps)), lambda cos, sin: [[cos, -sin], [sin, cos]])


@wrong("Your matrix is for one step, whatever `steps` is.")
def single_step(steps, dim):
    return shift_matrix(1, dim)


@wrong("You move entries of the vector to other places. The shift is one of the **position**: no column takes the place of "
       "another, each pair is turned.")
def rolls_the_identity(steps, dim):
    return np.roll(np.eye(dim), steps, axis=1)


@wrong("You pair column i with column i + dim/2. Here the sine and the cosine of one angle are neighbours.")
def half_split(steps, dim):
    cos, sin = np.diag(np.cos(_angles(steps, dim))), np.diag(np.sin(_angles(steps, dim)))
    return np.block([[cos, -sin], [sin, cos]])


@wrong("Both sines have the same sign in your blocks: that is no rotation. Which of the two formulae has a minus?")
def both_plus(steps, dim):
    return _blocks(_angles(steps, dim), lambda cos, sin: [[cos, sin], [sin, cos]])


@wrong("The minus stands at a cosine: your blocks mirror each pair. In the formula for cos(a + b), what is subtracted?")
def mirrors(steps, dim):
    return _blocks(_angles(steps, dim), lambda cos, sin: [[cos, sin], [sin, -cos]])


@wrong("Sines and cosines have changed places in your blocks: with no step at all the matrix should change nothing.")
def exchanged(steps, dim):
    return _blocks(_angles(steps, dim), lambda cos, sin: [[sin, -cos], [cos, sin]])


@wrong("Only the cosines are there. A pair's new sine takes something from its old cosine too: half of each formula is missing.")
def cosines_only(steps, dim):
    return _blocks(_angles(steps, dim), lambda cos, sin: [[cos, 0], [0, cos]])


@wrong("Your speeds fall too fast: the exponent of 10,000 is -2i / dim, and -4i / dim in your blocks. Which dim does "
       "`position_angles` want?")
def speeds_too_low(steps, dim):
    speeds = 10000.0 ** (-2 * np.arange(0, dim, 2) / dim)
    return _blocks(steps * speeds, lambda cos, sin: [[cos, -sin], [sin, cos]])


@wrong("Your matrix for -3 steps is that for 3: the sign of `steps` is lost.")
def sign_lost(steps, dim):
    return shift_matrix(abs(steps), dim)


@wrong("Every second block is missing: blocks start at 0, 2, 4, ..., one for each pair.")
def leaves_gaps(steps, dim):
    matrix = shift_matrix(steps, dim)
    keep = np.arange(dim) // 2 % 2 == 0
    return np.where(keep[:, None], matrix, 0)


@wrong("You compute the outer product of two position vectors. It gives the right row at one position only, up to a factor: it has rank 1.")
def outer_product(steps, dim):
    clock = sinusoids(abs(steps) + 1, dim)
    return np.outer(clock[0], clock[-1]) / (dim / 2)


def _near(a, b):
    return np.isclose(a, b, rtol=1e-7, atol=1e-9)


def _clock(positions, dim):
    angles = position_angles(np.asarray(positions), dim)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(angles), dim)


def _clear(got, want):
    """Whether these are real, finite numbers, off by more than a lower precision would do; the rest is said elsewhere."""
    return (got.dtype.kind == "f" and np.isfinite(got).all()
            and np.abs(got - want).max() > 1e-3 * np.abs(want).max())


@observe
def goes_elsewhere(case, got, want):
    """Another shift than the one that is asked for."""
    if not _clear(got, want):
        return None
    steps, dim = case.args
    moved = _clock(range(20, 30), dim) @ got
    for other in sorted(range(-12, 13), key=abs) + [-steps, 2 * steps, steps + 1, steps - 1]:
        if other != steps and _near(moved, _clock(np.arange(20, 30) + other, dim)).all():
            return (f"Your matrix takes position 20 to {20 + other}, and 21 to {21 + other}; {20 + steps} and {21 + steps} are asked for: "
                    f"steps = {steps}.")


@observe
def outside_the_blocks(case, got, want):
    if not _clear(got, want):
        return None
    dim = case.args[1]
    pair = np.arange(dim) // 2
    outside = (pair[:, None] != pair) & (np.abs(got) > 1e-6)
    if outside.any():
        i, j = map(int, np.argwhere(outside)[0])
        return (f"Your matrix mixes pairs: entry ({i}, {j}) is {got[i, j]:.3g}, so column {j} of the shifted vector takes something from "
                f"column {i}. They belong to pairs {i // 2} and {j // 2}, which turn at different speeds.")


@observe
def kind_of_block(case, got, want):
    if not _clear(got, want):
        return None
    dim = case.args[1]
    for i in range(dim // 2):
        block, asked = (a[2 * i: 2 * i + 2, 2 * i: 2 * i + 2] for a in (got, want))
        if _near(block, asked).all():
            continue
        where = f"The block of pair {i}, rows and columns {2 * i} and {2 * i + 1}, "
        if not block.any():
            return where + "is all zeros."
        length = np.hypot(*block.T)
        for k, pair in enumerate(("(1, 0)", "(0, 1)")):
            if not _near(length[k], 1):
                return where + f"is no rotation: it makes of (sin, cos) = {pair} a pair of length {length[k]:.4g}. Turning keeps the length, 1."
        if not _near(block[0] @ block[1], 0):
            return where + "is no rotation: its two rows are not perpendicular."
        if block[0, 0] * block[1, 1] - block[0, 1] * block[1, 0] < 0:
            return where + "mirrors its pair (its determinant is -1) where it should turn it."
        turned = np.arctan2(block[1, 0], block[0, 0]).round(9)
        right = np.arctan2(asked[1, 0], asked[0, 0]).round(9)
        return where + (f"turns its pair by {turned:.4g} radians, expected {right:.4g} (up to whole turns)."
                        + (" Earlier pairs are right." if i else ""))
