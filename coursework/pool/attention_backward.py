"""Exercise: the gradients of attention, for a problem set on the backward pass (harder than softmax_backward, which is given)."""

import numpy as np

from attnlib.reference import attention, softmax_backward
from coursework import case, observe, sizes, wrong

TITLE = "Back through attention"
CHAPTER = ""
POINTS = 6
RETURNS = ("d_q", "d_k", "d_v")
GIVEN = """
import numpy as np
from attnlib.reference import softmax_backward
"""
PROMPT = r"""
Attention makes `weights` = softmax(q kᵀ / √dim_head) and `out` = weights v. Write `attention_backward(d_out, q, k, v, weights)`, which
returns `(d_q, d_k, d_v)`: the gradients of a loss with respect to `q` (..., seq_q, dim_head), `k` (..., seq_k, dim_head) and `v`
(..., seq_k, dim_v), given the one with respect to `out`, `d_out` (..., seq_q, dim_v), and the `weights` (..., seq_q, seq_k) of the forward pass.
There are any leading axes, the same in all arguments, or none. You have `softmax_backward(weights, d_weights)`, which returns the gradient with
respect to the scores; a masked key has weight 0 in it and gets gradient 0, so you need no mask.
"""


def attention_backward(d_out, q, k, v, weights):
    # BEGIN SOLUTION
    d_v = weights.swapaxes(-1, -2) @ d_out           # (..., seq_k, dim_v)
    d_weights = d_out @ v.swapaxes(-1, -2)           # (..., seq_q, seq_k)
    d_scores = softmax_backward(weights, d_weights)
    d_scores = d_scores / q.shape[-1] ** 0.5         # the scores were scaled
    d_q = d_scores @ k                               # (..., seq_q, dim_head)
    d_k = d_scores.swapaxes(-1, -2) @ q              # (..., seq_k, dim_head)
    return d_q, d_k, d_v
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k dim_head dim_v", 3, 9)

    def draw(*lead, seq_q=s.seq_q, seq_k=s.seq_k, dim_v=s.dim_v, mask=None):
        shapes = (seq_q, s.dim_head), (seq_k, s.dim_head), (seq_k, dim_v)
        q, k, v = (rng.normal(size=(*lead, *shape)) for shape in shapes)
        return rng.normal(size=(*lead, seq_q, dim_v)), q, k, v, attention(q, k, v, mask)[1]

    yield case("matrices", *draw(), dims=s)
    square = {"seq": s.seq_q, "dim_head": s.dim_head, "batch": s.batch}
    yield case("as many queries as keys, dim_v = dim_head", *draw(seq_k=s.seq_q, dim_v=s.dim_head), dims=square)
    yield case("one query", *draw(seq_q=1), dims=s)
    yield case("one leading axis", *draw(s.batch), dims=s)
    yield case("batch and heads", *draw(s.batch, s.heads), dims=s)
    mask = rng.random((s.seq_q, s.seq_k)) < 0.5
    mask[:, 0] = mask[1] = False
    yield case("hidden keys, a query that sees nothing", *draw(mask=mask), dims=s)
    yield case("one key", *draw(seq_k=1), dims=s)


def _backward(d_out, q, k, v, weights, scale=None, back=softmax_backward):
    d_weights = d_out @ v.swapaxes(-1, -2)
    d_scores = back(weights, d_weights) / (q.shape[-1] ** 0.5 if scale is None else scale)
    return d_scores @ k, d_scores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ d_out


@wrong("Your d_q and d_k are too large by √d: the forward pass divided the scores by √d, and the way back passes through this division, too.")
def no_scale(d_out, q, k, v, weights):
    return _backward(d_out, q, k, v, weights, 1)


@wrong("You divide by d on the way back. The division by √d stands once in the forward pass, so its factor stands once in each gradient.")
def scaled_twice(d_out, q, k, v, weights):
    return _backward(d_out, q, k, v, weights, q.shape[-1])


@wrong("d_q is scaled and d_k is not: both are reached through the same scaled scores.")
def scales_one(d_out, q, k, v, weights):
    d_q, d_k, d_v = _backward(d_out, q, k, v, weights)
    return d_q, d_k * q.shape[-1] ** 0.5, d_v


@wrong("You leave softmax out on the way back: the gradient with respect to the weights is used as if it were that of the scores.")
def without_softmax(d_out, q, k, v, weights):
    return _backward(d_out, q, k, v, weights, back=lambda weights, d_weights: d_weights)


@wrong("Through softmax you keep the diagonal term p(1 − p) alone. Raising one score also lowers the other weights of its row.")
def diagonal_of_softmax(d_out, q, k, v, weights):
    return _backward(d_out, q, k, v, weights, back=lambda weights, d_weights: weights * (1 - weights) * d_weights)


@wrong("Through softmax you multiply by the weights and forget that it also divides by the sum of its row.")
def exp_for_softmax(d_out, q, k, v, weights):
    return _backward(d_out, q, k, v, weights, back=lambda weights, d_weights: weights * d_weights)


@wrong("d_v would be right with the weights transposed: value j is heard by query i with weight [i, j], so the sum for d_v goes over the "
       "queries.")
def weights_not_transposed(d_out, q, k, v, weights):
    d_q, d_k, _ = _backward(d_out, q, k, v, weights)
    return d_q, d_k, weights @ d_out


@wrong("d_k would be right with the gradient of the scores transposed: key j is used in column j of the scores, so its gradient sums down "
       "this column.")
def scores_not_transposed(d_out, q, k, v, weights):
    d_q, _, d_v = _backward(d_out, q, k, v, weights)
    d_scores = softmax_backward(weights, d_out @ v.swapaxes(-1, -2)) / q.shape[-1] ** 0.5
    return d_q, d_scores @ q, d_v


@wrong("q and k have changed places: the gradient of a query is made of the keys it looked at, that of a key of the queries that looked at it.")
def keys_and_queries_exchanged(d_out, q, k, v, weights):
    d_scores = softmax_backward(weights, d_out @ v.swapaxes(-1, -2)) / q.shape[-1] ** 0.5
    return d_scores @ q, d_scores.swapaxes(-1, -2) @ k, weights.swapaxes(-1, -2) @ d_out


@wrong("Right values, wrong order: `(d_q, d_k, d_v)` is asked for.")
def values_first(d_out, q, k, v, weights):
    d_q, d_k, d_v = _backward(d_out, q, k, v, weights)
    return d_v, d_q, d_k


@wrong("Right for matrices; with leading axes the shapes no longer fit. `.T`, for one, turns **all** axes round, where only the last two "
       "should change places.")
def turns_all_axes(d_out, q, k, v, weights):
    d_scores = softmax_backward(weights, d_out @ v.T) / q.shape[-1] ** 0.5
    return d_scores @ k, d_scores.T @ q, weights.T @ d_out


@wrong("Your d_v is the gradient of `out` summed over the queries: every query counts with its weight there, not with 1.")
def unweighted_values(d_out, q, k, v, weights):
    d_q, d_k, _ = _backward(d_out, q, k, v, weights)
    return d_q, d_k, np.broadcast_to(d_out.sum(axis=-2, keepdims=True), v.shape).copy()


@wrong("The scale is taken from dim_v. It was the width of queries and keys that the scores were divided by the root of.")
def root_of_dim_v(d_out, q, k, v, weights):
    return _backward(d_out, q, k, v, weights, v.shape[-1] ** 0.5)


NAMES = ("d_q", "d_k", "d_v")


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9)


def _right(got, want):
    return [bool(_near(g, w).all()) for g, w in zip(got, want, strict=True)]


def _else(right):
    good = [name for name, ok in zip(NAMES, right, strict=True) if ok]
    return f"{' and '.join(good)} {'is' if len(good) == 1 else 'are'} right. " if good else ""


@observe
def a_common_factor(case, got, want):
    if min(w.size for w in want) < 2:
        return None
    ratios = []
    for g, w in zip(got, want, strict=True):
        ratio = np.median(g / np.where(w == 0, np.nan, w)) if (w != 0).all() else np.nan
        ratios.append(ratio if np.isfinite(ratio) and ratio and _near(g, ratio * w).all() else np.nan)
    off = [i for i in range(3) if np.isfinite(ratios[i]) and not _near(ratios[i], 1)]
    if off:
        right = _right(got, want)
        names = " and ".join(NAMES[i] for i in off)
        if all(_near(ratios[i], ratios[off[0]]) for i in off):
            ratio, sizes = ratios[off[0]], case.dims.items()
            form = next((f", that is {text}" for name, n in sizes for text, value in
                         ((f"√{name}", n**0.5), (f"1/√{name}", n**-0.5), (name, n), (f"1/{name}", 1 / n)) if abs(abs(ratio) / value - 1) < 1e-6), "")
            return f"{_else(right)}{names} {'is' if len(off) == 1 else 'are'} {ratio:.4g} times what is expected{form}."
        return f"{_else(right)}" + " and ".join(f"{NAMES[i]} is {ratios[i]:.4g} times what is expected" for i in off) + "."


@observe
def values(case, got, want):
    d_out, weights = case.args[0], case.args[4]
    right = _right(got, want)
    if not right[2]:
        seq_k = want[2].shape[-2]
        if weights.shape[-1] == weights.shape[-2] and _near(got[2], weights @ d_out).all():
            return f"{_else(right)}d_v would be right with the weights transposed."
        hidden = (weights == 0).all(axis=-2)
        if hidden.any() and seq_k > 1 and not _near(got[2], 0)[hidden].all():
            return f"{_else(right)}d_v is not 0 for a value that no query gave any weight to."


@observe
def a_hidden_pair(case, got, want):
    weights = case.args[4]
    right = _right(got, want)
    unseen, blind = (weights == 0).all(axis=-2), (weights == 0).all(axis=-1)
    if unseen.any() and not _near(got[1], 0)[unseen].all():
        return f"{_else(right)}d_k is not 0 for a key that no query gave any weight to."
    if blind.any() and not _near(got[0], 0)[blind].all():
        return f"{_else(right)}d_q is not 0 for a query that saw nothing."


@observe
def keys_cancel(case, got, want):
    """Adding one vector to all keys changes no weight, so the gradients of the keys sum to 0."""
    right = _right(got, want)
    sums, size = got[1].sum(axis=-2), np.abs(got[1]).max()
    if not right[0] and not right[1] and np.isfinite(size) and size and np.abs(sums).max() > 1e-6 * size:
        return (f"{_else(right)}The sum of your d_k over all keys is not 0 (its largest entry is {np.abs(sums).max():.3g}). It should be: adding one "
                "vector to every key changes no weight. What does softmax do on the way back?")


@observe
def one_is_wrong(case, got, want):
    right = _right(got, want)
    if any(right):
        bad = [name for name, ok in zip(NAMES, right, strict=True) if not ok]
        what = {"d_q": "the keys", "d_k": "the queries", "d_v": "the weights and d_out"}
        tail = f" It is made of the gradient of the scores and {what[bad[0]]}." if bad[0] != "d_v" else f" It is made of {what['d_v']} alone."
        return f"{_else(right)}{' and '.join(bad)} {'is' if len(bad) == 1 else 'are'} not.{tail if len(bad) == 1 else ''}"
