"""Exercise: softmax that survives large scores and empty rows."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Softmax that survives"
CHAPTER = ""
POINTS, EDGE_POINTS = 4, 1
PROMPT = r"""
Write `stable_softmax(scores)`: softmax over the last axis, on any leading axes. Scores of 10,000 must not overflow, scores may be
$-\infty$, and a row in which **every** score is $-\infty$ gives zeros, not NaN and not a uniform row. Do not change `scores`.
"""


def stable_softmax(scores):
    # BEGIN SOLUTION
    row_max = scores.max(axis=-1, keepdims=True)
    row_max = np.where(np.isneginf(row_max), 0, row_max)  # an empty row: any finite number will do
    powers = np.exp(scores - row_max)
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k")
    scores = rng.normal(size=(s.seq_q, s.seq_k))
    yield case("a matrix of small scores", scores, dims=s)
    yield case("leading axes", rng.normal(size=(s.batch, s.heads, s.seq_q, s.seq_k)), dims=s)
    yield case("one row", rng.normal(size=s.seq_k), dims=s)
    large = rng.normal(size=(s.seq_q, s.seq_k)) * 3
    large[:, 0] += 10_000
    yield case("large scores", large, dims=s)
    unlike = rng.normal(size=(s.seq_q, s.seq_k))
    unlike[0] += 2000
    unlike[1] -= 2000
    yield case("rows of very different height", unlike, dims=s)
    wide = rng.normal(size=(s.seq_q, s.seq_k))
    wide[:, 1] = -5000
    wide[:, 2] = -5001
    wide[0, 0] += 1500
    yield case("a row with large differences", wide, dims=s)
    masked = rng.normal(size=(s.seq_q, s.seq_k))
    masked[:, 0] = -np.inf
    yield case("some scores are -inf", masked, dims=s)
    empty = rng.normal(size=(s.seq_q, s.seq_k))
    empty[1] = -np.inf
    yield case("a row that is all -inf", empty, edge=True, dims=s)


@wrong("exp of a score of 10,000 overflows to infinity, and infinity / infinity is NaN. What may you subtract from "
       "every score of a row without changing its softmax?")
def naive(scores):
    powers = np.exp(scores)
    return powers / powers.sum(axis=-1, keepdims=True)


@wrong("Right but for a row that is all -inf: its largest score is -inf, -inf - (-inf) is NaN, and the sum of its "
       "powers is 0 at best: two places where a row of NaN can arise.")
def no_empty_rows(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@wrong("You subtract the largest score of the whole array. In a row far below it every power becomes 0 and the row divides "
       "0 by 0: take the maximum of each row.")
def global_maximum(scores):
    powers = np.exp(scores - scores.max())
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)


@wrong("Your columns sum to 1, your rows do not. The keys are on the last axis: a query's row is what has to sum to 1.")
def over_queries(scores):
    row_max = scores.max(axis=0, keepdims=True)
    row_max = np.where(np.isneginf(row_max), 0, row_max)
    powers = np.exp(scores - row_max)
    row_sum = powers.sum(axis=0, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)


@wrong("You subtract the mean of the row. A score far above the mean still overflows: only the maximum makes every "
       "power at most 1.")
def subtracts_the_mean(scores):
    powers = np.exp(scores - scores.mean(axis=-1, keepdims=True))
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)


@wrong("The array that was given is changed by your function: `-=` and `out=` write into the caller's scores.")
def in_place(scores):
    row_max = scores.max(axis=-1, keepdims=True)
    scores -= np.where(np.isneginf(row_max), 0, row_max)
    powers = np.exp(scores)
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)


@wrong("An empty row becomes uniform. Replacing -inf by a large negative number loses the difference between 'nothing may be "
       "seen' and 'everything is equally bad'.")
def uniform_empty_row(scores):
    scores = np.where(np.isneginf(scores), -1e30, scores)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@observe
def not_positive(case, got, want):
    if (got < 0).any():
        return "Some weights are negative; exp of a real number never is."
