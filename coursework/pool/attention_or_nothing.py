"""Exercise: attention with one more key, invisible, that a query may choose instead of a real one."""

import numpy as np

from attnlib.reference import attention_scores, softmax
from coursework import case, observe, sizes, wrong

TITLE = "Attention that may decline"
CHAPTER = "05_self_attention"
POINTS, EDGE_POINTS = 4, 1
PROMPT = r"""
A head that finds nothing should not need a sink. Write `attention_or_nothing(q, k, v)`, in which every row competes with one more,
invisible key whose score is 0 and whose value is zero (PyTorch's `add_zero_attn`; {cite:t}`xiao2023` pretrain a model with it, under the
name *Zero Sink*): the weights are $e^{S_j}/(1 + \sum_m e^{S_m})$, where $S$ (..., seq_q, seq_k) are the scaled scores of `q`
(..., seq_q, dim_head) and `k` (..., seq_k, dim_head). Return `out` (..., seq_q, dim_v) and the weights (..., seq_q, seq_k) of the **real**
keys only. Scores of $\pm 1000$ must not overflow, not even where it would cancel later, and any leading axes should work.
`attention_scores(q, k)` and `softmax(scores)` (over the last axis) are given.
"""
GIVEN = "import numpy as np\n\nfrom attnlib.reference import attention_scores, softmax"
RETURNS = ("out", "weights")


def attention_or_nothing(q, k, v):
    # BEGIN SOLUTION
    scores = attention_scores(q, k)
    null = np.zeros_like(scores[..., :1])  # one more column, all zeros
    longer = np.concatenate([scores, null], axis=-1)
    weights = softmax(longer)[..., :-1]
    return weights @ v, weights
    # END SOLUTION


def drive(function, q, k, v):
    with np.errstate(over="raise", invalid="raise"):  # an overflow counts even if it cancels later
        return function(q, k, v)


def _draw(rng, s, *lead):
    shapes = (*lead, s.seq_q, s.dim_head), (*lead, s.seq_k, s.dim_head), (*lead, s.seq_k, s.dim_v)
    return [rng.normal(size=shape) for shape in shapes]


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k dim_head dim_v")
    flat = {name: size for name, size in vars(s).items() if name not in ("batch", "heads")}
    yield case("a single head", *_draw(rng, s), dims=flat)
    yield case("leading axes", *_draw(rng, s, s.batch, s.heads), dims=s)
    q, k, v = _draw(rng, s)
    yield case("values far from 0", q, k, v + 100, dims=flat)
    yield case("keys that suit no query", np.abs(q), -np.abs(k), v, dims=flat)
    yield case("one query, one key", q[:1], k[:1], v[:1], dims={"dim_head": s.dim_head, "dim_v": s.dim_v})
    loud = 1 + rng.uniform(0, 0.001, size=(2, s.seq_q, 4))
    near = 500 + rng.uniform(0, 1, size=(2, s.seq_k, 4))
    v = rng.normal(size=(2, s.seq_k, s.dim_v))
    yield case("scores near 1000", loud, near, v, edge=True)
    yield case("scores near -1000", loud, -near, v, edge=True)
    mixed = loud * np.where(np.arange(s.seq_q) == 1, 1, 0.002)[:, None]
    yield case("a row of scores near 1000 above rows near 2", mixed, near, v, edge=True)


def _return(weights, v):
    return weights @ v, weights


@wrong("This is ordinary attention: your real weights sum to 1, so that nothing is left for the invisible key. Where does the 1 in the "
       "denominator go?")
def ordinary(q, k, v):
    return _return(softmax(attention_scores(q, k)), v)


@wrong("You divide by 1 + the sum **after** softmax, where that sum is 1 already: every weight is halved, whether the keys suit or not. "
       "The 1 has to meet the powers themselves.")
def halves(q, k, v):
    weights = softmax(attention_scores(q, k))
    return _return(weights / (1 + weights.sum(axis=-1, keepdims=True)), v)


@wrong("You subtract the row's largest score from the real scores, but the 1 in the denominator stays 1. The invisible key's score is 0 "
       "**before** anything is subtracted; what is it after?")
def unshifted_null(q, k, v):
    scores = attention_scores(q, k)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return _return(powers / (1 + powers.sum(axis=-1, keepdims=True)), v)


@wrong("The formula is right on paper, but exp of a score of 1000 overflows. Can you state the task so that `softmax`, which does not "
       "overflow, sees the invisible key too?")
def overflows(q, k, v):
    powers = np.exp(attention_scores(q, k))
    return _return(powers / (1 + powers.sum(axis=-1, keepdims=True)), v)


@wrong("The powers of the scores are safe, but the invisible key's power, exp(-maximum), overflows where all scores are near -1000. "
       "Which maximum includes the invisible key?")
def null_overflows(q, k, v):
    scores = attention_scores(q, k)
    row_max = scores.max(axis=-1, keepdims=True)
    powers = np.exp(scores - row_max)
    return _return(powers / (np.exp(-row_max) + powers.sum(axis=-1, keepdims=True)), v)


@wrong("You subtract the largest score of the whole array. In a row far below it every power becomes 0, the invisible key's "
       "too: take a maximum for each row.")
def global_maximum(q, k, v):
    scores = attention_scores(q, k)
    row_max = np.maximum(scores.max(), 0)
    powers = np.exp(scores - row_max)
    row_sum = np.exp(-row_max) + powers.sum(axis=-1, keepdims=True)
    return _return(powers / np.where(row_sum == 0, 1, row_sum), v)


@wrong("The invisible key's column is still in your weights, so there is one key too many. Return those of the real keys.")
def keeps_the_column(q, k, v):
    scores = attention_scores(q, k)
    weights = softmax(np.concatenate([scores, np.zeros_like(scores[..., :1])], axis=-1))
    return weights[..., :-1] @ v, weights


@wrong("You put the invisible key first and remove the last column: what you return are the weights of the invisible key and of "
       "all real keys but the last.")
def removes_the_other_end(q, k, v):
    scores = attention_scores(q, k)
    return _return(softmax(np.concatenate([np.zeros_like(scores[..., :1]), scores], axis=-1))[..., :-1], v)


@wrong("After the invisible key is removed you let the rows sum to 1 again: that undoes the competition, and gives "
       "ordinary attention to rounding where a key suits, and 0 / 0 where none does.")
def renormalises(q, k, v):
    scores = attention_scores(q, k)
    weights = softmax(np.concatenate([scores, np.zeros_like(scores[..., :1])], axis=-1))[..., :-1]
    return _return(weights / weights.sum(axis=-1, keepdims=True), v)


@wrong("Your queries compete for keys: the extra entry of 0 stands in a row of its own, and each **column** is normalised. "
       "Along which axis does a query choose?")
def extra_row(q, k, v):
    scores = attention_scores(q, k)
    longer = np.concatenate([scores, np.zeros_like(scores[..., :1, :])], axis=-2)
    return _return(softmax(longer.swapaxes(-1, -2)).swapaxes(-1, -2)[..., :-1, :], v)


@wrong("The denominator has one invisible key for **each** real one, that is 1 per key: seq_k of them instead of a single one.")
def one_for_each(q, k, v):
    scores = attention_scores(q, k)
    weights = softmax(np.concatenate([scores, np.zeros_like(scores)], axis=-1))[..., : scores.shape[-1]]
    return _return(weights, v)


@wrong("The invisible key's score is 1 in your code, so its power is e. A score of 0 has the power 1: that is the 1 in the denominator.")
def scores_one(q, k, v):
    scores = attention_scores(q, k)
    return _return(softmax(np.concatenate([scores, np.ones_like(scores[..., :1])], axis=-1))[..., :-1], v)


@wrong("Your scores are not divided by √dim_head: weights are sharper than they should be. `attention_scores` does it.")
def unscaled(q, k, v):
    scores = q @ k.swapaxes(-1, -2)
    return _return(softmax(np.concatenate([scores, np.zeros_like(scores[..., :1])], axis=-1))[..., :-1], v)


@wrong("You return `out` alone. The weights of the real keys are asked for too.")
def only_out(q, k, v):
    return attention_or_nothing(q, k, v)[0]


def _near(a, b):
    return np.isclose(a, b, rtol=1e-8, atol=1e-10)


def _clear(got, want):
    """Whether these are real, finite numbers, off by more than a lower precision would do; the rest is said elsewhere."""
    pairs = list(zip(got, want, strict=True))
    return (all(g.dtype.kind == "f" and np.isfinite(g).all() for g, _ in pairs)
            and any(np.abs(g - w).max() > 1e-3 * np.abs(w).max() for g, w in pairs))


@observe
def out_beside_weights(case, got, want):
    if not _clear(got, want):
        return None
    v = case.args[2]
    if _near(got[1], want[1]).all():
        if _near(got[0], softmax(attention_scores(*case.args[:2])) @ v).all():
            return "Your weights are right, but your out is that of ordinary attention: it is not your weights times v."
        if _near(got[0], v.mean(axis=-2, keepdims=True) * (1 - want[1].sum(axis=-1, keepdims=True)) + want[0]).all():
            return "Your weights are right, but your out gives the invisible key the mean of the values. Its value is zero."
        return ("Your weights are right, but your out is not your weights times v: they differ by up to "
                f"{np.abs(got[0] - want[0]).max():.3g}.")


@observe
def rows_without_a_rest(case, got, want):
    if not _clear(got, want):
        return None
    rows = got[1].sum(axis=-1)
    if _near(rows, 1).all() and not _near(want[1].sum(axis=-1), 1).all():
        return ("Each row of your real weights sums to 1: nothing is left for the invisible key, which should get "
                f"{1 - want[1].sum(axis=-1).flat[0]:.3g} of row 0.")


@observe
def outside_0_and_1(case, got, want):
    if not _clear(got, want):
        return None
    if (got[1] < -1e-12).any():
        return f"One of your weights is negative ({got[1].min():.3g}): no power of e is."
    rows = got[1].sum(axis=-1)
    if (rows > 1 + 1e-9).any():
        return f"The real weights of a row sum to {rows.max():.4g}, more than 1. The invisible key's share cannot be negative."


def _null_power(weights, powers):
    """What stands beside the sum of the powers in the denominator, for every row; None if the proportions differ."""
    ratio = powers / weights
    if not _near(ratio, ratio[..., :1]).all():
        return None
    return ratio[..., 0] - powers.sum(axis=-1)


@observe
def power_of_the_null(case, got, want):
    if not _clear(got, want):
        return None
    scores = attention_scores(*case.args[:2])
    if np.abs(scores).max() > 100:
        return None
    null = _null_power(got[1], np.exp(scores))
    if null is None or not np.isfinite(null).all():
        return None
    if np.ptp(null) < 1e-6:
        return (f"Within each row your weights have the right proportions, but the invisible key counts as {null.flat[0]:.4g} "
                "in every denominator, where e⁰ = 1 should stand.")
    if _near(null, np.exp(scores.max(axis=-1))).all():
        return ("Within each row your weights have the right proportions, but the invisible key counts as much as the row's best key. "
                "Its score is 0 whatever the others are.")
    return ("Within each row your weights have the right proportions, but the invisible key counts as "
            f"{null.min():.3g} in one denominator and as {null.max():.3g} in another, where e⁰ = 1 should stand.")


@observe
def other_scores(case, got, want):
    if not _clear(got, want):
        return None
    q, k, _ = case.args
    tried = (1, "not divided by anything"), (1 / q.shape[-1], "divided by dim_head"), (k.shape[-2] ** -0.5, "divided by √seq_k")
    for factor, says in tried:
        powers = np.exp(q @ k.swapaxes(-1, -2) * factor)
        if np.isfinite(powers).all() and _near(got[1], powers / (1 + powers.sum(axis=-1, keepdims=True))).all():
            return f"Your weights are right for scores that are {says}; the scaled scores are divided by √dim_head."


@observe
def where_nothing_suits(case, got, want):
    if not _clear(got, want):
        return None
    if want[1].max() < 1e-9 < np.abs(got[1]).max():
        return ("Every score is near -1000 here, so the invisible key takes all; your real weights of row 0 sum to "
                f"{got[1].sum(axis=-1).flat[0]:.3g}.")


@observe
def wrong_proportions(case, got, want):
    if not _clear(got, want):
        return None
    scores, weights = attention_scores(*case.args[:2]), got[1]
    away = scores - scores[..., :1]
    if want[1].max() < 1e-9:
        return None
    off = (np.abs(away) < 50) & ~np.isclose(weights, weights[..., :1] * np.exp(away), rtol=1e-3, atol=1e-9)
    if off.any():
        *row, j = map(int, np.argwhere(off)[0])
        row = tuple(row)
        return (f"In row {row[0] if len(row) == 1 else list(row)} key 0 has weight {weights[row][0]:.3g} and key {j} has "
                f"{weights[row][j]:.3g}, but their scores are {scores[row][0]:.4g} and {scores[row][j]:.4g}: the second weight should be "
                f"{np.exp(away[row][j]):.3g} times the first.")
