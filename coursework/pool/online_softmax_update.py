"""Exercise: one step of the online softmax, for problem sets on kernels."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "One step of the online softmax"
CHAPTER = ""
POINTS, EDGE_POINTS = 5, 1
RETURNS = ("row_max", "row_sum", "out")
PROMPT = r"""
Write `online_softmax_update(row_max, row_sum, out, scores, v)`, which takes one more block of keys into a running softmax-weighted
sum {cite}`milakov2018`. For the keys so far, `row_max` (..., seq_q) is the largest score of each query, `row_sum` (..., seq_q) the sum
of exp(score − row_max) and `out` (..., seq_q, dim_v) the sum of exp(score − row_max) · value, **not yet divided**. The new block
brings `scores` (..., seq_q, block), $-\infty$ where masked, and its values `v` (..., block, dim_v). Return the three quantities for
all keys including the new ones, as new arrays. Before the first block `row_max` is $-\infty$ and the other two are 0; scores of
10,000 must not overflow, and a query that has still seen only masked keys keeps $-\infty$, 0 and zeros, never NaN.
"""


def online_softmax_update(row_max, row_sum, out, scores, v):
    # BEGIN SOLUTION
    new_max = np.maximum(row_max, scores.max(axis=-1))  # (..., seq_q)
    shift = np.where(np.isneginf(new_max), 0, new_max)  # nothing seen yet
    rescale = np.exp(row_max - shift)  # what is summed used the old maximum
    powers = np.exp(scores - shift[..., None])  # (..., seq_q, block)
    row_sum = rescale * row_sum + powers.sum(axis=-1)
    out = rescale[..., None] * out + powers @ v  # (..., seq_q, dim_v)
    return new_max, row_sum, out
    # END SOLUTION


def _state(rng, lead, seq_q, dim_v, height=0.0):
    """A consistent state after five keys whose scores lie around `height`."""
    scores = rng.normal(size=(*lead, seq_q, 5)) + height
    row_max = scores.max(axis=-1)
    powers = np.exp(scores - row_max[..., None])
    return row_max, powers.sum(axis=-1), powers @ rng.normal(size=(*lead, 5, dim_v))


def _new(lead, seq_q, dim_v):
    return np.full((*lead, seq_q), -np.inf), np.zeros((*lead, seq_q)), np.zeros((*lead, seq_q, dim_v))


def cases(rng):
    s = sizes(rng, "batch heads seq_q block dim_v")
    lead = (s.batch, s.heads)

    def block(height=0.0, lead=(), length=s.block):
        return rng.normal(size=(*lead, s.seq_q, length)) + height, rng.normal(size=(*lead, length, s.dim_v))

    yield case("the first block", *_new((), s.seq_q, s.dim_v), *block(), dims=s)
    yield case("a block that does not raise the maximum", *_state(rng, (), s.seq_q, s.dim_v, 6.0), *block(-1.0), dims=s)
    scores, v = block()
    scores[::2] += 4
    scores[1::2] -= 4
    yield case("a block that raises the maximum of some queries", *_state(rng, (), s.seq_q, s.dim_v), scores, v, dims=s)
    yield case("leading axes", *_state(rng, lead, s.seq_q, s.dim_v), *block(0.5, lead), dims=s)
    yield case("a block of one key", *_state(rng, (), s.seq_q, s.dim_v), *block(1.0, length=1), dims=s)
    scores, v = block(10_000.0)
    scores[0] -= 20_000
    yield case("large scores", *_state(rng, (), s.seq_q, s.dim_v, 9_999.0), scores, v, dims=s)
    scores, v = block()
    scores[:, 0] = -np.inf
    scores[1] = -np.inf
    yield case("a block of which one query sees nothing", *_state(rng, (), s.seq_q, s.dim_v), scores, v, dims=s)
    scores, v = block()
    scores[1] = -np.inf
    yield case("a query that has seen nothing yet", *_new((), s.seq_q, s.dim_v), scores, v, edge=True, dims=s)


@wrong("What was summed before is added as it is. Those powers were measured from the old maximum; where the block raises the "
       "maximum they are too large. By which factor?")
def never_rescales(row_max, row_sum, out, scores, v):
    new_max = np.maximum(row_max, scores.max(axis=-1))
    powers = np.exp(scores - np.where(np.isneginf(new_max), 0, new_max)[..., None])
    return new_max, row_sum + powers.sum(axis=-1), out + powers @ v


@wrong("row_sum is right and out is not: `row_sum` is rescaled to the new maximum, `out` still holds powers measured from the old "
       "one.")
def rescales_the_sum_only(row_max, row_sum, out, scores, v):
    new_max = np.maximum(row_max, scores.max(axis=-1))
    shift = np.where(np.isneginf(new_max), 0, new_max)
    powers = np.exp(scores - shift[..., None])
    return new_max, np.exp(row_max - shift) * row_sum + powers.sum(axis=-1), out + powers @ v


@wrong("The factor for the old sums is upside down: when the maximum rises, old powers must become smaller, and yours grow (and "
       "overflow on the first block).")
def rescales_upwards(row_max, row_sum, out, scores, v):
    new_max = np.maximum(row_max, scores.max(axis=-1))
    shift = np.where(np.isneginf(new_max), 0, new_max)
    rescale = np.exp(shift - row_max)
    powers = np.exp(scores - shift[..., None])
    return new_max, rescale * row_sum + powers.sum(axis=-1), rescale[..., None] * out + powers @ v


@wrong("Your row_max is the maximum of the new block alone. Where an earlier score was larger, the running maximum falls, and the "
       "old sums are blown up instead of left alone.")
def maximum_of_the_block(row_max, row_sum, out, scores, v):
    new_max = scores.max(axis=-1)
    shift = np.where(np.isneginf(new_max), 0, new_max)
    rescale = np.exp(row_max - shift)
    powers = np.exp(scores - shift[..., None])
    return new_max, rescale * row_sum + powers.sum(axis=-1), rescale[..., None] * out + powers @ v


@wrong("Right but for a query that has seen nothing yet: its maximum is still -inf, and -inf - (-inf) is NaN. What may be "
       "subtracted there instead?")
def no_empty_rows(row_max, row_sum, out, scores, v):
    new_max = np.maximum(row_max, scores.max(axis=-1))
    rescale = np.exp(row_max - new_max)
    powers = np.exp(scores - new_max[..., None])
    return new_max, rescale * row_sum + powers.sum(axis=-1), rescale[..., None] * out + powers @ v


@wrong("Your `out` comes back divided by row_sum. The caller divides once, after the last block; the next call would take a mean "
       "for a sum.")
def divides(row_max, row_sum, out, scores, v):
    row_max, row_sum, out = online_softmax_update(row_max, row_sum, out, scores, v)
    return row_max, row_sum, out / np.where(row_sum == 0, 1, row_sum)[..., None]


@wrong("You take one maximum over all queries. Each row needs its own: in a row far below that number every power is 0 or nearly, "
       "and row_max is not that row's largest score.")
def global_maximum(row_max, row_sum, out, scores, v):
    new_max = np.maximum(row_max, scores.max())
    shift = np.where(np.isneginf(new_max), 0, new_max)
    rescale = np.exp(row_max - shift)
    powers = np.exp(scores - shift[..., None])
    return new_max, rescale * row_sum + powers.sum(axis=-1), rescale[..., None] * out + powers @ v


@wrong("The new powers are measured from the maximum of their own block, the old ones from the running maximum. Where the two "
       "differ, the sums add numbers of different scale: measure both from the same maximum.")
def two_origins(row_max, row_sum, out, scores, v):
    block_max = scores.max(axis=-1)
    new_max = np.maximum(row_max, block_max)
    rescale = np.exp(row_max - np.where(np.isneginf(new_max), 0, new_max))
    powers = np.exp(scores - np.where(np.isneginf(block_max), 0, block_max)[..., None])
    return new_max, rescale * row_sum + powers.sum(axis=-1), rescale[..., None] * out + powers @ v


@wrong("The arrays that were given are changed by your function: `*=`, `+=` and `out=` write into the caller's state.")
def in_place(row_max, row_sum, out, scores, v):
    new_max = np.maximum(row_max, scores.max(axis=-1))
    shift = np.where(np.isneginf(new_max), 0, new_max)
    rescale = np.exp(row_max - shift)
    powers = np.exp(scores - shift[..., None])
    row_sum *= rescale
    row_sum += powers.sum(axis=-1)
    out *= rescale[..., None]
    out += powers @ v
    return new_max, row_sum, out


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)


@observe
def maximum_falls(case, got, want):
    before, scores = case.args[0], case.args[3]
    fell = got[0] < before
    if fell.any():
        i = int(np.argwhere(fell.reshape(-1, fell.shape[-1]).any(axis=0))[0, 0])
        return (f"Your row_max falls in {fell.sum()} of {fell.size} rows (query {i} is the first): the largest score so far can only "
                "stay or rise.")
    low = got[0] < scores.max(axis=-1)
    if low.any():
        return f"In {low.sum()} of {low.size} rows your row_max is smaller than a score of the new block."
    high = got[0] > np.maximum(before, scores.max(axis=-1))
    if high.any():
        return f"In {high.sum()} of {high.size} rows your row_max is larger than every score of that row, old or new."


@observe
def block_alone(case, got, want):
    seen = want[1] > 0
    if np.isneginf(case.args[0]).all():
        return None
    alone = np.exp(case.args[3] - np.where(seen, want[0], 0)[..., None])
    if _near(got[1], alone.sum(axis=-1)).all() and not _near(got[1], want[1]).all():
        return "Your row_sum is that of the new block alone: what had been summed before is lost."
    if _near(got[1], want[1]).all() and _near(got[2], alone @ case.args[4]).all():
        return "row_max and row_sum are right, but your out is that of the new block alone: what had been summed before is lost."


@observe
def quotient_is_right(case, got, want):
    seen = want[1] > 0
    if not (np.isfinite(got[1]).all() and np.isfinite(got[2]).all()):
        return None
    with np.errstate(all="ignore"):
        quotients = got[2] / got[1][..., None], want[2] / want[1][..., None]
    if seen.any() and _near(got[2], quotients[1])[seen].all():
        return "Your out is the finished weighted mean: it has been divided by row_sum. Here it is to stay a sum."
    if seen.any() and _near(quotients[0], quotients[1])[seen].all() and not _near(got[1], want[1]).all():
        return ("out / row_sum would be right, but row_sum and out themselves are not: both are multiplied by the same number per row, "
                f"{(got[1] / want[1])[seen].flat[0]:.3g} in the first. They are not measured from row_max.")


@observe
def where_the_maximum_rises(case, got, want):
    before = case.args[0]
    rose = want[0] > before
    for index, name in ((1, "row_sum"), (2, "out")):
        good = _near(got[index], want[index])
        good = good.all(axis=-1) if index == 2 else good
        if rose.any() and (~rose).any() and (good == ~rose).all():
            return f"Your {name} is right for queries whose maximum stays and wrong for every query whose maximum the block raises."
        if rose.any() and (~rose).any() and (good == rose).all():
            return f"Your {name} is right for queries whose maximum the block raises and wrong for every query whose maximum stays."


@observe
def too_small_a_sum(case, got, want):
    low = (got[1] < 1 - 1e-9) & (want[1] > 0)
    if low.any():
        return (f"Your row_sum is {got[1][low].flat[0]:.3g} in some row. Measured from the maximum, the largest score itself adds "
                "exp(0) = 1, so it is at least 1.")
