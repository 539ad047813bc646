"""Exercise: softmax under a mask, for a first problem set."""

import itertools

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Softmax under a mask"
CHAPTER = ""
POINTS, EDGE_POINTS = 4, 1
PROMPT = r"""
Write `masked_softmax(scores, mask)`: softmax over the last axis of `scores` (..., seq_q, seq_k), among the allowed keys only. `mask` is
boolean, `True` where a query may attend, and broadcasts to the scores, for example (seq_q, seq_k) or (batch, 1, 1, seq_k). A key that is not
allowed gets a weight of **exactly** 0, whatever its score, and the allowed keys of a row share 1 between them. A row without an allowed key
gives zeros, not NaN and not a uniform row. Scores of 10,000 must not overflow, nor make the others vanish where they are masked. Do not
change `scores`.
"""


def masked_softmax(scores, mask):
    # BEGIN SOLUTION
    scores = np.where(mask, scores, -np.inf)
    row_max = scores.max(axis=-1, keepdims=True)
    row_max = np.where(np.isneginf(row_max), 0, row_max)  # an empty row
    powers = np.exp(scores - row_max)                     # 0 where masked
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)
    # END SOLUTION


def _mask(rng, *shape):
    """Some keys allowed and some not, in every row; no row in the first half of the keys alone."""
    mask = rng.random(shape) < 0.6
    mask[..., 0], mask[..., -1] = rng.random(shape[:-1]) < 0.5, True
    mask[..., 1] = False
    return mask


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k", 4, 11)
    scores = rng.normal(size=(s.seq_q, s.seq_k))
    yield case("a matrix", scores, _mask(rng, s.seq_q, s.seq_k), dims=s)
    yield case("a mask that allows everything", scores * 2, np.ones((s.seq_q, s.seq_k), bool), dims=s)
    batch = rng.normal(size=(s.batch, s.heads, s.seq_q, s.seq_k))
    yield case("leading axes, one mask for all", batch, _mask(rng, s.seq_q, s.seq_k), dims=s)
    lengths = rng.integers(1, s.seq_k, size=s.batch)
    yield case("a padding mask (batch, 1, 1, seq_k)", batch, (np.arange(s.seq_k) < lengths[:, None])[:, None, None], dims=s)
    large = 3 * rng.normal(size=(s.seq_q, s.seq_k))
    large[0] += 10_000
    large[1] -= 10_000
    yield case("rows of very different height", large, _mask(rng, s.seq_q, s.seq_k), dims=s)
    apart, mask = rng.normal(size=(s.seq_q, s.seq_k)), _mask(rng, s.seq_q, s.seq_k)
    apart[:, -1] += 3000
    mask[:, 0] = True
    yield case("scores far apart in one row", apart, mask, dims=s)
    high, mask = rng.normal(size=(s.seq_q, s.seq_k)), _mask(rng, s.seq_q, s.seq_k)
    yield case("masked scores of 10,000", np.where(mask, high, 10_000), mask, dims=s)
    mask = _mask(rng, s.seq_q, s.seq_k)
    mask[2] = False
    yield case("a row without an allowed key", rng.normal(size=(s.seq_q, s.seq_k)), mask, edge=True, dims=s)


def _softmax(scores):
    return masked_softmax(scores, True)


@wrong("You mask after softmax: what the hidden keys had taken is lost, and the rows sum to less than 1. The hidden keys must not take part "
       "in the sum at all.")
def masks_the_weights(scores, mask):
    return _softmax(scores) * mask


@wrong("A score of 0 is not 'nothing': exp(0) is 1, and the hidden keys still get weight. Which score has the power 0?")
def zero_scores(scores, mask):
    return _softmax(scores * mask)


@wrong("The allowed keys have weight 0 and the hidden ones share 1: `True` says that a query **may** attend.")
def polarity(scores, mask):
    return masked_softmax(scores, ~mask)


@wrong("Right but for a row without an allowed key, which becomes uniform: a large negative number in place of -inf makes all its keys equally "
       "bad, and softmax does not mind how bad.")
def large_negative(scores, mask):
    return _softmax(np.where(mask, scores, -1e30))


@wrong("You add a large negative number to hidden scores. It is not large enough for hidden scores of 10,000, and in a row without an allowed "
       "key all keep a weight. Put another number **in place of** the score.")
def adds_a_penalty(scores, mask):
    return _softmax(scores + np.where(mask, 0, -1e4))


@wrong("Right but for a row without an allowed key: its largest score is -inf, -inf - (-inf) is NaN, and the sum of its powers is 0 at best: two places where a row of NaN can arise.")
def no_empty_rows(scores, mask):
    scores = np.where(mask, scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@wrong("The maximum that you subtract includes the hidden scores. Where one of them is 10,000, every allowed power becomes 0: the maximum is to "
       "be taken among the allowed.")
def maximum_of_all(scores, mask):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True)) * mask
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)


@wrong("exp of a score of 10,000 overflows to infinity, and infinity / infinity is NaN. What may you subtract from every score of a row "
       "without changing its softmax?")
def naive(scores, mask):
    powers = np.exp(np.where(mask, scores, -np.inf))
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)


@wrong("You subtract the mean of the allowed scores. A score far above it still overflows: only the maximum makes every power at most 1.")
def subtracts_the_mean(scores, mask):
    count = np.broadcast_to(mask, scores.shape).sum(axis=-1, keepdims=True)
    mean = np.where(mask, scores, 0).sum(axis=-1, keepdims=True) / np.where(count == 0, 1, count)
    powers = np.exp(np.where(mask, scores - mean, -np.inf))
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)


@wrong("You subtract the largest score of the whole array. In a row far below it every power becomes 0: take the maximum of each row.")
def global_maximum(scores, mask):
    scores = np.where(mask, scores, -np.inf)
    powers = np.exp(scores - scores.max())
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)


@wrong("Your columns sum to 1 (where a column has an allowed place), your rows do not: the keys of one query, on the last axis, compete for "
       "its weight.")
def over_queries(scores, mask):
    mask = np.broadcast_to(mask, scores.shape)
    return masked_softmax(scores.swapaxes(-1, -2), mask.swapaxes(-1, -2)).swapaxes(-1, -2)


@wrong("Your result does not depend on the mask: it is the softmax of all scores.")
def ignores_the_mask(scores, mask):
    return _softmax(scores)


@wrong("The scores that were given are changed by your function: assigning to `scores[...]` writes into the caller's array.")
def in_place(scores, mask):
    scores[~np.broadcast_to(mask, scores.shape)] = -np.inf
    return masked_softmax(scores, mask)


@wrong("The mask is added to the scores as a number: `True` counts 1 and `False` counts 0, so hidden keys lose a little and still get weight.")
def adds_the_mask(scores, mask):
    return _softmax(scores + mask)


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9)


@observe
def no_mask_at_all(case, got, want):
    gap = np.log(got) - case.args[0]                       # of a softmax: one number for a whole row
    if not np.all(case.args[1]) and _near(gap, gap[..., :1]).all() and _near(got.sum(axis=-1), 1).all():
        return "Your result does not depend on the mask: it is the softmax of all scores."


@observe
def weight_on_hidden(case, got, want):
    mask = np.broadcast_to(case.args[1], got.shape)
    leak = ~mask & (np.abs(got) > 0) & mask.any(axis=-1, keepdims=True)
    if leak.any():
        at = tuple(int(i) for i in np.argwhere(leak)[0])
        size = "" if np.abs(got[leak]).max() > 1e-6 else " That is little, but exactly 0 is asked for."
        return (f"{leak.sum()} of {(~mask).sum()} hidden keys have a weight: query {at[-2]} gives {got[at]:.3g} to key {at[-1]}, which it may "
                f"not see.{size}")


@observe
def empty_row(case, got, want):
    mask = np.broadcast_to(case.args[1], got.shape)
    empty = ~mask.any(axis=-1)
    if empty.any() and not _near(got, want)[empty].all() and _near(got, want)[~empty].all():
        row = got[empty][0]
        what = "NaN" if np.isnan(row).any() else f"weights that sum to {row.sum():.3g}"
        return f"Right but for the query that may see no key: it gets {what}, and should get zeros."


@observe
def proportions(case, got, want):
    mask = np.broadcast_to(case.args[1], got.shape)
    sums = np.where(mask, got, 0).sum(axis=-1, keepdims=True)
    if np.isfinite(sums).all() and (sums > 0).all() and _near(np.where(mask, got, 0) / sums, want).all():
        low, high = sums.min(), sums.max()
        return f"The allowed keys share their weight in the right proportions, but a row's sum is not 1: yours are from {low:.3g} to {high:.3g}."


@observe
def lost_weight(case, got, want):
    mask, scores = np.broadcast_to(case.args[1], got.shape), np.broadcast_to(case.args[0], got.shape)
    gone = (got == 0) & (want > 1e-6)
    if gone.any() and np.isfinite(got).all():
        at = tuple(int(i) for i in np.argwhere(gone)[0])
        rows = gone.any(axis=-1)
        return (f"In {rows.sum()} of {rows.size} rows an allowed key has weight 0 that should not: query {at[-2]}, key {at[-1]}, expected "
                f"{want[at]:.3g}. The allowed scores of this row lie from {np.where(mask, scores, np.inf)[at[:-1]].min():.4g} to "
                f"{np.where(mask, scores, -np.inf)[at[:-1]].max():.4g}: what is exp of what you make of them?")


@observe
def ties(case, got, want):
    """Keys of different scores that have the same weight."""
    mask, scores = np.broadcast_to(case.args[1], got.shape), np.broadcast_to(case.args[0], got.shape)
    if not np.isfinite(got).all():
        return None
    for row in np.argwhere((mask & (got > 1e-12)).sum(axis=-1) > 1):
        at = tuple(row)
        keys = np.flatnonzero(mask[at] & (got[at] > 1e-12))
        for a, b in itertools.pairwise(keys):
            if got[at][a] == got[at][b] and abs(scores[at][a] - scores[at][b]) > 1e-3:
                return (f"Query {at[-1]} gives keys {a} and {b} the same weight, {got[at][a]:.4g}, though their scores are "
                        f"{scores[at][a]:.5g} and {scores[at][b]:.5g}.")


@observe
def rows_without_hidden(case, got, want):
    mask = np.broadcast_to(case.args[1], got.shape)
    right, open_rows = _near(got, want).all(axis=-1), mask.all(axis=-1)
    if open_rows.any() and not open_rows.all() and (right == open_rows).all():
        return "Right for queries that may see every key, wrong for all others."
