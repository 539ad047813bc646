"""Exercise: the gradient of the scores of one tile, with delta from the result instead of from the whole row."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Back to the scores, from a tile"
CHAPTER = "22_triton_backward"
POINTS = 5
RETURNS = ("d_scores",)
PROMPT = r"""
Write `scores_gradient(weights, v, out, d_out, d_lse)`: the gradient with respect to the scores of one tile. `weights` (..., rows, keys)
are the softmax weights of some queries for **some** of their keys, `v` (..., keys, dim_v) the values of those keys; `out` and `d_out`
(..., rows, dim_v) are the finished result of the queries, over *all* their keys, and the gradient with respect to it. The log-sum-exp of
each row is a result too: `d_lse` (..., rows) is the gradient with respect to it (the derivative of lse by a score is that score's
weight). With $g_{ij} = \mathtt{d\_out}_i \cdot v_j$ softmax's backward pass is $A_{ij}\,(g_{ij} - \sum_k A_{ik}\, g_{ik})$, where $k$
runs over all keys: they are not all here, and the sum can be had without them.
"""


def scores_gradient(weights, v, out, d_out, d_lse):
    # BEGIN SOLUTION
    d_weights = d_out @ v.swapaxes(-1, -2)  # (..., rows, keys)
    delta = (d_out * out).sum(axis=-1) - d_lse  # (..., rows)
    return weights * (d_weights - delta[..., None])
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads rows keys rest dim_v")

    def inputs(*lead, lse=True, height=0.0, all_here=False):
        keys = s.keys if all_here else s.keys + s.rest
        scores = rng.normal(size=(*lead, s.rows, keys)) * 1.5
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        v, d_out = rng.normal(size=(*lead, keys, s.dim_v)) + height, rng.normal(size=(*lead, s.rows, s.dim_v))
        d_lse = rng.normal(size=(*lead, s.rows)) if lse else np.zeros((*lead, s.rows))
        return weights[..., : s.keys].copy(), v[..., : s.keys, :].copy(), weights @ v, d_out, d_lse

    yield case("all keys in the tile, no gradient of lse", *inputs(lse=False, all_here=True), dims=s)
    yield case("some of the keys, no gradient of lse", *inputs(lse=False), dims=s)
    yield case("some of the keys", *inputs(), dims=s)
    yield case("values far from 0", *inputs(height=30.0), dims=s)
    yield case("leading axes", *inputs(s.batch, s.heads), dims=s)


@wrong("Right where all keys are in the tile. The mean of the gradient has to run over all keys of a query: which two things that you hold have "
       "already summed over them?")
def mean_of_the_tile(weights, v, out, d_out, d_lse):
    d_weights = d_out @ v.swapaxes(-1, -2)
    delta = (weights * d_weights).sum(axis=-1) - d_lse
    return weights * (d_weights - delta[..., None])


@wrong("You leave out the sum over the keys: softmax's weights are not independent of each other, what one gains the others lose.")
def no_delta(weights, v, out, d_out, d_lse):
    return weights * (d_out @ v.swapaxes(-1, -2) + d_lse[..., None])


@wrong("The gradient of lse is missing. lse is a result like out, and a score moves it by its weight.")
def no_lse(weights, v, out, d_out, d_lse):
    delta = (d_out * out).sum(axis=-1)
    return weights * (d_out @ v.swapaxes(-1, -2) - delta[..., None])


@wrong("The gradient of lse enters with the wrong sign: it adds weight times d_lse to the gradient of a score.")
def sign_of_lse(weights, v, out, d_out, d_lse):
    delta = (d_out * out).sum(axis=-1) + d_lse
    return weights * (d_out @ v.swapaxes(-1, -2) - delta[..., None])


@wrong("d_lse is added to every score alike. A score moves lse by its own weight.")
def lse_without_weight(weights, v, out, d_out, d_lse):
    delta = (d_out * out).sum(axis=-1)
    return weights * (d_out @ v.swapaxes(-1, -2) - delta[..., None]) + d_lse[..., None]


@wrong("The factor `weights` is missing: a key of weight zero has no gradient.")
def no_weights(weights, v, out, d_out, d_lse):
    delta = (d_out * out).sum(axis=-1) - d_lse
    return d_out @ v.swapaxes(-1, -2) - delta[..., None]


@wrong("delta is one number for each query: your sum runs over the queries as well.")
def delta_over_all(weights, v, out, d_out, d_lse):
    delta = (d_out * out).sum(axis=(-2, -1))
    return weights * (d_out @ v.swapaxes(-1, -2) - delta[..., None, None] + d_lse[..., None])


@observe
def off_by_a_multiple_of_the_weights(case, got, want):
    weights = case.args[0]
    ratio = (got - want) / weights
    if np.isfinite(ratio).all() and np.ptp(ratio, axis=-1).max() < 1e-6 * max(np.abs(ratio).max(), 1) and np.abs(ratio).max() > 1e-6:
        return (f"In each row your result differs from the expected one by its weights times one number ({ratio.flat[0]:.3g} in the first row): what is "
                "subtracted from g is another.")


@observe
def without_lse_right(case, got, want):
    d_lse = case.args[4]
    rest = got - want
    if d_lse.any() and np.allclose(rest, rest[..., :1]) and not np.allclose(rest, 0):
        return "Your result differs from the expected one by the same number for all keys of a row."


@observe
def gradient_where_no_weight(case, got, want):
    weights = case.args[0]
    small = weights < np.quantile(weights, 0.1)
    if np.isfinite(got).all() and np.abs(got[small]).mean() > 5 * np.abs(want[small]).mean() + 1e-9:
        return "Keys with little weight have a gradient as large as others in your result; each should be in proportion to its weight."
