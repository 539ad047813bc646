"""Exercise: scaled dot-product scores, for a first problem set."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Scaled dot products"
CHAPTER = ""
POINTS = 2
PROMPT = r"""
Write `attention_scores(q, k)`, the scores of scaled dot-product attention, $S = Q K^\top / \sqrt d$ {cite}`vaswani2017`. `q` is
(..., seq_q, dim_head), one query a row, and `k` is (..., seq_k, dim_head), one key a row; return (..., seq_q, seq_k), one row per query
and one column per key. There may be any number of leading axes (batch, heads), or none, and those of `q` and `k` need only broadcast: all
batches may share one set of keys. The width $d$ is that of one query. No softmax yet, and `q` and `k` stay as they are.
"""


def attention_scores(q, k):
    # BEGIN SOLUTION
    return q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5  # (..., seq_q, seq_k)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k dim_head")

    def pair(*lead, seq_q=s.seq_q, dim=s.dim_head):
        return rng.normal(size=(*lead, seq_q, dim)), rng.normal(size=(*lead, s.seq_k, dim))

    yield case("two matrices", *pair(), dims=s)
    yield case("one query", *pair(seq_q=1), dims=s)
    yield case("as many queries as keys", *pair(seq_q=s.seq_k), dims={n: v for n, v in vars(s).items() if n != "seq_q"})
    q, k = pair()
    yield case("vectors far from 0", q + 50, k - 20, dims=s)
    yield case("one leading axis", *pair(s.batch), dims=s)
    yield case("batch and heads", *pair(s.batch, s.heads), dims=s)
    yield case("keys that all batches share", pair(s.batch, s.heads)[0], pair(s.heads)[1], dims=s)
    yield case("width 1", *pair(dim=1), dims=s)


@wrong("Your scores are the plain dot products. They spread more the wider the vectors are: what are they to be divided by?")
def unscaled(q, k):
    return q @ k.swapaxes(-1, -2)


@wrong("You divide by the width d. A sum of d products of independent numbers spreads like √d, not like d: divided by d, the scores of "
       "wide vectors are all nearly 0.")
def by_the_width(q, k):
    return q @ k.swapaxes(-1, -2) / q.shape[-1]


@wrong("You multiply by √d where the scores are to be divided by it: the wider the vectors, the larger yours become, twice over.")
def times_the_root(q, k):
    return q @ k.swapaxes(-1, -2) * q.shape[-1] ** 0.5


@wrong("You divide by the root of the number of keys. The spread of a dot product comes from the number of terms in its sum: how many "
       "numbers does one query hold?")
def root_of_the_keys(q, k):
    return q @ k.swapaxes(-1, -2) / k.shape[-2] ** 0.5


@wrong("Right for two matrices. With leading axes your width is read from axis 1, which is then no longer the last: count axes from the "
       "end.")
def width_from_axis_1(q, k):
    return q @ k.swapaxes(-1, -2) / q.shape[1] ** 0.5


@wrong("Right for two matrices; with leading axes the shapes no longer fit. `.T`, for one, turns **all** axes round, where only the last two "
       "should change places.")
def turns_all_axes(q, k):
    return q @ k.T / q.shape[-1] ** 0.5


@wrong("`reshape` does not transpose: it gives the keys the right shape and reads their numbers in the old order, so that the columns "
       "mix parts of several keys.")
def reshapes(q, k):
    return q @ k.reshape(*k.shape[:-2], k.shape[-1], k.shape[-2]) / q.shape[-1] ** 0.5


@wrong("Keys stand down and queries across in your result. Queries are rows here: row i holds the scores of query i.")
def keys_down(q, k):
    return k @ q.swapaxes(-1, -2) / q.shape[-1] ** 0.5


@wrong("The axes are exchanged by position, as for exactly two leading axes. With none, or one, there is no axis 3: name the last two "
       "axes so that any number may stand in front.")
def four_axes_only(q, k):
    return q @ k.transpose(0, 1, 3, 2) / q.shape[-1] ** 0.5


@wrong("Your rows sum to 1: softmax has been applied. The scores before it are asked for, any real numbers.")
def weights(q, k):
    powers = np.exp(attention_scores(q, k) - attention_scores(q, k).max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@wrong("You divide by the lengths of the vectors: these are cosines, and a query twice as long would get the same scores. Divide by one "
       "number that depends on the width alone.")
def cosines(q, k):
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return q @ (k / np.linalg.norm(k, axis=-1, keepdims=True)).swapaxes(-1, -2)


@wrong("The array that was given is changed by your function: `/=` writes into the caller's queries.")
def in_place(q, k):
    q /= q.shape[-1] ** 0.5
    return q @ k.swapaxes(-1, -2)


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9)


@observe
def rows_sum_to_one(case, got, want):
    if got.shape[-1] > 1 and (got >= 0).all() and _near(got.sum(axis=-1), 1).all():
        return "Every row of your result is positive and sums to 1, as weights do. The scores before softmax are asked for."
    if got.shape[-2] > 1 and (got >= 0).all() and _near(got.sum(axis=-2), 1).all():
        return "Every column of your result is positive and sums to 1, as weights do. The scores before softmax are asked for."


@observe
def the_divisor(case, got, want):
    width = case.args[0].shape[-1]
    divisors = want * width**0.5 / got
    divisor = divisors.flat[0]
    if not np.isfinite(divisors).all() or not _near(divisors, divisor).all() or divisor <= 0 or got.size < 2:
        return None
    if abs(divisor / width**0.5 - 1) < 1e-3:
        return f"You divide by {divisor:.9g}, where √d is {width**0.5:.9g}: a small constant was added, or precision is lost on the way."
    sizes = [f"{name}" for name, n in case.dims.items() if abs(divisor / n**0.5 - 1) < 1e-9]
    return f"Your scores are the dot products divided by {divisor:.6g}{f', the root of {sizes[0]}' if sizes else ''}. √d is {width**0.5:.6g} here."


@observe
def not_dot_products(case, got, want):
    q, k = case.args
    distance = ((q[..., :, None, :] - k[..., None, :, :]) ** 2).sum(axis=-1)
    for name, other in (("squared distance", distance), ("distance", np.sqrt(distance))):
        ratio = got.flat[0] / other.flat[0]
        if np.isfinite(ratio) and ratio != 0 and _near(got, ratio * other).all():
            return f"Your scores are {ratio:.3g} times the {name} of query and key: no dot product."
    if got.size > 1 and _near(got, abs(want)).all():
        return "The negative scores have lost their sign."


@observe
def a_number_per_row(case, got, want):
    ratio = got / want
    if got.shape[-1] > 1 and np.isfinite(ratio).all() and not _near(ratio, ratio.flat[0]).all():
        if _near(ratio, ratio[..., :1]).all():
            low, high = ratio.min(), ratio.max()
            return f"Each row is what is expected times a number of its own, from {low:.3g} to {high:.3g}: one number, for all, is asked for."
        if got.shape[-2] > 1 and _near(ratio, ratio[..., :1, :]).all():
            low, high = ratio.min(), ratio.max()
            return f"Each column is what is expected times a number of its own, from {low:.3g} to {high:.3g}: one number, for all, is asked for."


@observe
def a_number_per_row_added(case, got, want):
    gap = got - want
    if got.shape[-1] > 1 and np.isfinite(gap).all() and np.ptp(gap) > 1e-6 and _near(gap, gap[..., :1]).all():
        return "In each row all your scores are off by the same number: something was added to, or taken from, whole rows."


@observe
def same_in_all(case, got, want):
    if got.ndim > 2 and len(got) > 1 and _near(got, got[:1]).all() and not _near(want, want[:1]).all():
        return f"Your scores are the same for all {len(got)} members of the first axis, though their queries differ."
