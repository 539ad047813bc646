"""Exercise: the gradient of softmax, for a problem set on the backward pass."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Back through softmax"
CHAPTER = ""
POINTS = 4
PROMPT = r"""
Write `softmax_backward(weights, d_weights)`. `weights` (..., seq_q, seq_k) is what softmax made of some scores, over the last axis;
`d_weights`, of the same shape, is the gradient of a loss with respect to the weights. Return the gradient with respect to the scores, in
the same shape. Do not build a matrix (seq_k, seq_k) for each row: a cache of a thousand keys would need a million numbers per query, and a
case limits your memory. A masked key has weight 0 and gets gradient 0; a row may hold zeros only. There may be any leading axes, or one row
alone, and both arrays stay as they are.
"""


def softmax_backward(weights, d_weights):
    # BEGIN SOLUTION
    expected = (weights * d_weights).sum(axis=-1, keepdims=True)  # mean of the gradient
    return weights * (d_weights - expected)
    # END SOLUTION


def _weights(rng, *shape, size=1.0):
    powers = np.exp(size * rng.normal(size=shape))
    return powers / powers.sum(axis=-1, keepdims=True)


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k")
    yield case("a matrix", _weights(rng, s.seq_q, s.seq_k), rng.normal(size=(s.seq_q, s.seq_k)), dims=s)
    yield case("one row", _weights(rng, s.seq_k), rng.normal(size=s.seq_k), dims=s)
    yield case("leading axes", _weights(rng, s.batch, s.heads, s.seq_q, s.seq_k),
               rng.normal(size=(s.batch, s.heads, s.seq_q, s.seq_k)), dims=s)
    yield case("as many queries as keys", _weights(rng, s.seq_k, s.seq_k), rng.normal(size=(s.seq_k, s.seq_k)),
               dims={"batch": s.batch, "seq_k": s.seq_k})
    yield case("gradients far from 0", _weights(rng, s.seq_q, s.seq_k), 100 + rng.normal(size=(s.seq_q, s.seq_k)), dims=s)
    masked = _weights(rng, s.seq_q, s.seq_k, size=3.0)
    masked[:, 0], masked[1] = 0, 0
    masked /= np.maximum(masked.sum(axis=-1, keepdims=True), 1e-300)
    yield case("masked keys and an empty row", masked, rng.normal(size=(s.seq_q, s.seq_k)), dims=s)
    yield case("sharp rows", _weights(rng, s.seq_q, s.seq_k, size=30.0), rng.normal(size=(s.seq_q, s.seq_k)), dims=s)
    long = 500 + int(rng.integers(100))
    yield case("long rows, in little memory", _weights(rng, 2, long), rng.normal(size=(2, long)), memory=10 * 2 * long * 8 + 20_000)


def heavy(rng):
    yield case("very long rows, in little memory", _weights(rng, 2, 6000), rng.normal(size=(2, 6000)), memory=10 * 2 * 6000 * 8)


@wrong("You multiply by p(1 − p), the diagonal of the Jacobian alone. Raising one score also lowers all other weights of the row: these terms "
       "are missing.")
def diagonal_alone(weights, d_weights):
    return weights * (1 - weights) * d_weights


@wrong("You multiply by the weights alone, as for exp. Softmax also divides by the sum of the row, and that depends on every score.")
def like_exp(weights, d_weights):
    return weights * d_weights


@wrong("The mean that you take away counts all keys alike. Which mean of the gradient does a row with uneven weights call for?")
def plain_mean(weights, d_weights):
    return weights * (d_weights - d_weights.mean(axis=-1, keepdims=True))


@wrong("You take away the sum of the gradients of a row, not weighted: a key with weight 0 should have no say in it.")
def plain_sum(weights, d_weights):
    return weights * (d_weights - d_weights.sum(axis=-1, keepdims=True))


@wrong("The sum goes over the queries: the gradient of one query depends on the weights of another. Softmax went along the keys, and its "
       "gradient does too.")
def over_queries(weights, d_weights):
    axis = -2 if weights.ndim > 1 else -1
    return weights * (d_weights - (weights * d_weights).sum(axis=axis, keepdims=True))


@wrong("Without `keepdims=True` the sums have one axis less: NumPy lines them up with the keys, and where there are as many queries as keys "
       "it does so without a word.")
def no_keepdims(weights, d_weights):
    return weights * (d_weights - (weights * d_weights).sum(axis=-1))


@wrong("The sign is the wrong way round everywhere: the gradient should push scores up where d_weights is above the row's mean.")
def sign(weights, d_weights):
    return weights * ((weights * d_weights).sum(axis=-1, keepdims=True) - d_weights)


@wrong("The mean has the wrong sign: it is added where it should be taken away. Does a constant added to every d_weights of a row still change "
       "nothing?")
def adds_the_mean(weights, d_weights):
    return weights * (d_weights + (weights * d_weights).sum(axis=-1, keepdims=True))


@wrong("The factor in front is missing: you take the mean away and do not multiply by the weights, so a key with weight 0 gets a gradient.")
def no_factor(weights, d_weights):
    return d_weights - (weights * d_weights).sum(axis=-1, keepdims=True)


@wrong("Only the first of the two terms carries the weight: the mean has to be multiplied by it too, or a masked key gets a gradient.")
def factor_on_one_term(weights, d_weights):
    return weights * d_weights - (weights * d_weights).sum(axis=-1, keepdims=True)


@wrong("The values are right. Your Jacobian, a matrix (seq_k, seq_k) for every row, is too large: multiply it out on paper first, and see what "
       "is left of p pᵀ times a vector.")
def too_much_memory(weights, d_weights):
    jacobian = weights[..., None] * (np.eye(weights.shape[-1]) - weights[..., None, :])
    return (jacobian @ d_weights[..., None])[..., 0]


@wrong("You sum over the whole array, not row by row: each row has a mean of its own.")
def sum_of_all(weights, d_weights):
    return weights * (d_weights - (weights * d_weights).sum())


@wrong("You change an array that was given: `-=` or `*=` writes into the caller's gradient.")
def in_place(weights, d_weights):
    d_weights -= (weights * d_weights).sum(axis=-1, keepdims=True)
    return weights * d_weights


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9)


@observe
def gradient_for_hidden(case, got, want):
    empty = ~case.args[0].any(axis=-1)
    if empty.any() and np.isnan(got[empty]).any() and np.isfinite(got[~empty]).all():
        return "In the row whose weights are all 0 your gradient is NaN: something is divided by the sum of the weights, or by a weight."
    hidden = (case.args[0] == 0) & ~_near(got, 0) & np.isfinite(got)
    if hidden.any() and _near(got, want)[case.args[0] > 0].all():
        return f"Right but for keys of weight 0: {hidden.sum()} of them get a gradient, and no small change of their score changes anything."


@observe
def off_by_the_weights(case, got, want):
    """got − want is the weights times a number per row: another number was taken away."""
    weights, d_weights = case.args
    gap = (want - got) / np.where(weights == 0, 1, weights)
    gap = np.where(weights == 0, np.nan, gap)
    first = np.nanmax(gap, axis=-1, keepdims=True)
    if np.isfinite(got).all() and weights.shape[-1] > 2 and (np.isnan(gap) | np.isclose(gap, first, rtol=1e-5, atol=1e-7)).all():
        taken = ((weights * d_weights).sum(axis=-1, keepdims=True) + first).flat[0].round(12) + 0.0
        right = (weights * d_weights).sum(axis=-1).flat[0]
        return (f"In each row your result is weights · (d_weights − a number), which is the right form. In the first row your number is {taken:.4g}; "
                f"it should be {right:.4g}.")


@observe
def a_factor_per_entry(case, got, want):
    weights, d_weights = case.args
    inner = d_weights - (weights * d_weights).sum(axis=-1, keepdims=True)
    ratio = got / inner
    for name, factor in (("weights²", weights**2), ("√weights", weights**0.5), ("1 − weights", 1 - weights),
                         ("weights · (1 − weights)", weights * (1 - weights))):
        if np.isfinite(ratio).all() and _near(ratio, factor).all():
            return f"What you take away from d_weights is right; the factor in front is {name}."


@observe
def rows_do_not_cancel(case, got, want):
    sums = got.sum(axis=-1)
    size = np.abs(got).max()
    if np.isfinite(got).all() and np.abs(sums).max(initial=0) > 1e-6 * size:
        worst = sums.flat[int(np.argmax(np.abs(sums)))]
        return (f"A row of your gradient sums to {worst:.3g}. Every row should sum to 0: adding one number to all scores of a row does not "
                "change its weights.")
