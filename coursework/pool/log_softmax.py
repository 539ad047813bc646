"""Exercise: the logarithm of softmax where the weights themselves underflow (chapter 4)."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Logarithms without a detour"
CHAPTER = "04_softmax"
POINTS = 3
PROMPT = r"""
Losses need $\ln A_j$, the logarithms of softmax weights. `np.log(softmax(scores))` gives $-\infty$ for a key whose weight underflows, although
the logarithm itself is an ordinary number. Write `log_softmax(scores)` that is right for any finite scores, over the last axis, with any
leading axes or none. The result has the shape of `scores`, which stays as it is. Hint: take the logarithm of the formula on paper first.
"""


def log_softmax(scores):
    # BEGIN SOLUTION
    shifted = scores - scores.max(axis=-1, keepdims=True)
    # ln(e^s / sum) = s - ln sum
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k", least=4)
    yield case("a matrix of small scores", rng.normal(size=(s.seq_q, s.seq_k)), dims=s)
    yield case("one row", rng.normal(size=s.seq_k) + 2, dims=s)
    yield case("leading axes", rng.normal(size=(s.batch, s.heads, s.seq_q, s.seq_k)), dims=s)
    yield case("as many queries as keys", rng.normal(size=(s.seq_k, s.seq_k)), dims={"batch": s.batch, "seq_k": s.seq_k})
    yield case("scores near 10,000", rng.normal(size=(s.seq_q, s.seq_k)) + 10_000, dims=s)
    apart = rng.normal(size=(s.seq_q, s.seq_k))
    apart[:, 0] += 10_000  # one score far above the mean, and above the median
    apart[:, 2] -= 10_000
    apart[:, 3] += 10_000 - 741  # a weight, but one of few binary digits
    yield case("weights that underflow", apart, dims=s)
    unlike = rng.normal(size=(s.seq_q, s.seq_k))
    unlike[0] += 100_000
    unlike[1] -= 100_000
    yield case("rows of very different height", unlike, dims=s)
    yield case("one key", rng.normal(size=(s.seq_q, 1)) + 3, dims=s)
    yield case("float32", (rng.normal(size=(s.seq_q, s.seq_k)) * 60).astype(np.float32), dims=s)


def _softmax(scores, axis=-1):
    powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


@wrong("Minus infinity wherever the weight underflows to 0. Write the logarithm of the fraction as a difference: what is left of exp "
       "in the first term?")
def log_of_softmax(scores):
    return np.log(_softmax(scores))


@wrong("The formula is right and overflows: exp of a score of 10,000 is infinity, and so is the logarithm of the sum. What may you subtract from "
       "every score of a row without changing its weights?")
def not_shifted(scores):
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


@wrong("The sum is that of the shifted scores, the first term is not shifted: every row is too large by its own maximum. Both terms must "
       "be measured from the same number.")
def shifts_one_term(scores):
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@wrong("One maximum for the whole array. In a row far below it every power is 0, and the logarithm of their sum is minus infinity: each "
       "row needs its own.")
def global_maximum(scores):
    shifted = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@wrong("Exp of your result sums to 1 down the columns, not along the rows. The keys are on the last axis, and each query's row is a softmax of its own.")
def over_queries(scores):
    axis = -2 if scores.ndim > 1 else -1
    shifted = scores - scores.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


@wrong("A small number added before the logarithm keeps minus infinity away and puts a floor under the result: every key that underflows gets the "
       "same logarithm, and the others are no longer exact.")
def with_epsilon(scores):
    return np.log(_softmax(scores) + 1e-12)


@wrong("Weights below a floor are raised to it before the logarithm. The order among the keys that underflow is lost; their logarithms, "
       "−10,000 say, are ordinary numbers.")
def with_a_floor(scores):
    return np.log(np.maximum(_softmax(scores), np.finfo(scores.dtype).tiny))


@wrong("You subtract the sum of the powers, not its logarithm. The logarithm of a quotient is the difference of two logarithms.")
def without_the_log(scores):
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.exp(shifted).sum(axis=-1, keepdims=True)


@wrong("You divide by the logarithm of the sum. The quotient stands inside the logarithm: outside it becomes something else.")
def divides(scores):
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted / np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@wrong("Scores minus their maximum: the largest logarithm in each row is 0, as if that key had all the weight. The sum in the denominator is missing.")
def without_the_sum(scores):
    return scores - scores.max(axis=-1, keepdims=True)


@wrong("The sign is the other way round: weights are at most 1, so their logarithms are at most 0. The minus of a loss comes later.")
def sign(scores):
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=-1, keepdims=True)) - shifted


@wrong("Without `keepdims=True` the sums have one axis less: NumPy lines them up with the keys, and where there are as many queries as keys it does "
       "so without a word.")
def no_keepdims(scores):
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1))


@wrong("Right where the scores of a row lie close together. What you subtract (the mean of the row, or the like) can lie far below its largest score, and "
       "then that power still overflows. Which number makes every power at most 1?")
def subtracts_the_mean(scores):
    shifted = scores - scores.mean(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@wrong("The array that was given is changed by your function: `-=` and `out=` write into the caller's scores.")
def in_place(scores):
    scores -= scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def _near(a, b):
    return np.isclose(a, b, rtol=1e-4, atol=1e-5)


@observe
def minus_infinity(case, got, want):
    lost = np.isneginf(got)
    if lost.any() and not lost.all() and (np.exp(want[lost]) == 0).all() and np.isclose(got, want, rtol=1e-3, atol=1e-5)[~lost].all():
        return (f"Your result is minus infinity in {lost.sum()} of {lost.size} places, those whose weights underflow to 0 in "
                f"{case.args[0].dtype}. Their logarithms are ordinary numbers, the first {want[lost].flat[0]:.6g}.")


@observe
def all_alike(case, got, want):
    """The wrong entries all have one value: a floor, or what replaced minus infinity."""
    if not np.isfinite(got).all():
        return None
    off = ~np.isclose(got, want, rtol=1e-3, atol=1e-5)
    if off.sum() > 1 and np.isclose(got[off], got[off][0], rtol=1e-6).all() and np.ptp(want[off]) > 1:
        return (f"{off.sum()} entries of your result are {got[off][0]:.5g}, all alike. Numbers from {want[off].min():.5g} to "
                f"{want[off].max():.5g} are expected there.")


@observe
def another_base(case, got, want):
    for base in (2, 10):
        if got.size > 1 and want.any() and _near(got * np.log(base), want).all():
            return f"Your logarithms are to the base {base}; the natural logarithm is asked for."


@observe
def off_by_a_number_per_row(case, got, want):
    """Differences between keys are right, the level of each row is not."""
    gap = got - want
    if not np.isfinite(gap).all() or got.shape[-1] < 2 or not _near(gap, gap[..., :1]).all() or np.abs(gap).max() < 1e-3:
        return None
    scores = case.args[0].astype(float)
    offset, at = gap.reshape(-1, gap.shape[-1])[:, 0], int(np.argmax(np.abs(gap[..., 0])))
    total = np.exp(got.reshape(-1, gap.shape[-1])[at]).sum()
    sums = np.log(np.exp(scores - scores.max(axis=-1, keepdims=True)).sum(axis=-1))
    named = [("the largest score of its row", scores.max(axis=-1)), ("the mean score of its row", scores.mean(axis=-1)),
             ("the logarithm of the number of keys", np.full(offset.shape, np.log(got.shape[-1]))),
             ("the logarithm of the sum of the shifted powers", sums)]
    name = next((f", {text} {'more' if sign > 0 else 'less'} than it should be" for text, value in named for sign in (1, -1)
                 if _near(offset, sign * value.reshape(-1)).all()), "")
    which = f"row {at}" if offset.size > 1 else "the row"
    return (f"Within each row your differences between keys are right; the level is not. In {which} every entry is off by "
            f"{offset[at]:.4g}{name}. The exponentials of that row sum to {total:.4g}, and should sum to 1.")


@observe
def above_zero(case, got, want):
    if (np.isfinite(got) & (got > 1e-4)).any():
        return f"Your result holds {got[np.isfinite(got)].max():.4g}. A weight is at most 1, and its logarithm at most 0."


@observe
def exponentials(case, got, want):
    if not np.isfinite(got).all():
        return None
    sums = np.exp(got).sum(axis=-1)
    if not np.isclose(sums, 1, rtol=1e-3).all():
        worst = sums.flat[int(np.argmax(np.abs(sums - 1)))]
        if np.isclose(np.exp(got).sum(), 1):
            return "The exponentials of your whole result sum to 1 together; each row should."
        return f"Your result should hold the logarithms of weights, so that exp of a row sums to 1; in one of yours it sums to {worst:.4g}."


@observe
def differences(case, got, want):
    """A lead in the scores is a lead in the logarithms."""
    if not np.isfinite(got).all() or got.shape[-1] < 2:
        return None
    scores = case.args[0]
    ours = (got[..., 1] - got[..., 0]).flat[0]
    lead = (scores[..., 1] - scores[..., 0]).flat[0]
    if not _near(ours, lead):
        return (f"In the first row the score of key 1 is {lead:.4g} above that of key 0; your logarithm is {ours:.4g} above. The two "
                "should agree: what they have in common, the sum, cancels.")
