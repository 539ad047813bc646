"""Exercise: attention itself, for a first problem set."""

import numpy as np

from attnlib.reference import softmax
from coursework import case, observe, sizes, wrong

TITLE = "Attention"
CHAPTER = ""
POINTS, EDGE_POINTS = 5, 1
RETURNS = ("out", "weights")
GIVEN = """
import numpy as np
from attnlib.reference import softmax
"""
PROMPT = r"""
Write `attention(q, k, v, mask=None)`, scaled dot-product attention $\operatorname{softmax}(Q K^\top / \sqrt d)\, V$
{cite}`vaswani2017`, which returns the pair `(out, weights)`. `q` is (..., seq_q, dim_head), `k` (..., seq_k, dim_head) and `v`
(..., seq_k, dim_v), with any leading axes or none; `weights` is (..., seq_q, seq_k) and `out` (..., seq_q, dim_v). `mask` is boolean, `True` where a
query may attend, and broadcasts to the scores; without one every query sees every key. A key that is hidden takes no part: its weight is
exactly 0 and the others of its row share 1. A query that sees nothing gets zeros in both results. You have `softmax(scores)`, over the last
axis: it takes $-\infty$, and a row of nothing else becomes zeros.
"""


def attention(q, k, v, mask=None):
    # BEGIN SOLUTION
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5  # (..., seq_q, seq_k)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    weights = softmax(scores)                             # rows sum to 1
    return weights @ v, weights                           # (..., seq_q, dim_v)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k dim_head dim_v", 4, 10)  # from 4, so that no root of one is another

    def draw(*lead, seq_q=s.seq_q, size=1.0):
        shapes = (seq_q, s.dim_head), (s.seq_k, s.dim_head), (s.seq_k, s.dim_v)
        q, k, v = (rng.normal(size=(*lead, *shape)) for shape in shapes)
        return size * q, k, v + 2

    def mask(*lead):
        allowed = rng.random((*lead, s.seq_q, s.seq_k)) < 0.5
        allowed[..., 0], allowed[..., 1], allowed[..., 2] = False, True, rng.random((*lead, s.seq_q)) < 0.5
        return allowed

    yield case("matrices, no mask", *draw(), dims=s)
    yield case("one query", *draw(seq_q=1), dims=s)
    yield case("a mask", *draw(), mask(), dims=s)
    yield case("leading axes, no mask", *draw(s.batch, s.heads), dims=s)
    yield case("leading axes, one mask for all", *draw(s.batch, s.heads), mask(), dims=s)
    yield case("a mask of its own for each batch", *draw(s.batch, s.heads), mask(s.batch, 1), dims=s)
    yield case("scores of a thousand", *draw(size=1000.0), mask(), dims=s)
    q, k, v = draw()
    q[:, 0], k[0, 0] = 2 + rng.random(s.seq_q), 5000
    yield case("a hidden key with a score of thousands", q, k, v, mask(), dims=s)
    empty = mask()
    empty[1] = False
    yield case("a query that sees nothing", *draw(), empty, edge=True, dims=s)


def _attend(q, k, v, mask=None, scale=None, weigh=lambda weights: weights):
    scores = q @ k.swapaxes(-1, -2) / (q.shape[-1] ** 0.5 if scale is None else scale)
    weights = weigh(softmax(scores if mask is None else np.where(mask, scores, -np.inf)))
    return weights @ v, weights


@wrong("Your scores are not scaled: before softmax the dot products are to be divided by a number that depends on the width. Without it the "
       "weights are too sharp.")
def unscaled(q, k, v, mask=None):
    return _attend(q, k, v, mask, 1)


@wrong("You divide the scores by the width d and not by its root: the weights come out too even.")
def by_the_width(q, k, v, mask=None):
    return _attend(q, k, v, mask, q.shape[-1])


@wrong("You divide the scores by the root of the number of keys. What makes dot products large is the number of terms in their sum: the "
       "width of a query.")
def root_of_the_keys(q, k, v, mask=None):
    return _attend(q, k, v, mask, k.shape[-2] ** 0.5)


@wrong("You mask after softmax: the weight that hidden keys had taken is lost, and the rows sum to less than 1. Mask the scores.")
def masks_the_weights(q, k, v, mask=None):
    return _attend(q, k, v, None, weigh=lambda weights: weights if mask is None else weights * mask)


@wrong("You mask after softmax and divide by what is left. That is right on paper; where a hidden key has a huge score it takes all the weight, "
       "and nothing is left to divide by. Mask the scores.")
def masks_and_divides(q, k, v, mask=None):
    def weigh(weights):
        weights = weights if mask is None else weights * mask
        row_sum = weights.sum(axis=-1, keepdims=True)
        return weights / np.where(row_sum == 0, 1, row_sum)

    return _attend(q, k, v, None, weigh=weigh)


@wrong("Softmax is applied twice: its result, all numbers from 0 to 1, goes into softmax once more, and the weights come out nearly even.")
def softmax_twice(q, k, v, mask=None):
    return _attend(q, k, v, mask, weigh=softmax)


@wrong("Your queries see exactly the keys that are hidden from them: here `True` says that a query **may** attend.")
def polarity(q, k, v, mask=None):
    return _attend(q, k, v, None if mask is None else ~mask)


@wrong("A hidden key gets the score 0, and exp(0) is 1: it still has weight. Which score has the power 0?")
def zero_scores(q, k, v, mask=None):
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    weights = softmax(scores if mask is None else scores * mask)
    return weights @ v, weights


@wrong("Right but for a query that sees nothing: it should get zeros, and yours spreads its weight over all keys. A large negative number is "
       "not the same as -inf there.")
def large_negative(q, k, v, mask=None):
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    weights = softmax(scores if mask is None else np.where(mask, scores, -1e9))
    return weights @ v, weights


@wrong("The weights of each **key** sum to 1 over the queries, those of a query do not. It is the keys of one query that compete: softmax "
       "goes along them.")
def over_queries(q, k, v, mask=None):
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    scores = scores if mask is None else np.where(mask, scores, -np.inf)
    weights = softmax(scores.swapaxes(-1, -2)).swapaxes(-1, -2)
    return weights @ v, weights


@wrong("The mask has no effect on your result: queries spend weight on keys that are hidden from them.")
def ignores_the_mask(q, k, v, mask=None):
    return _attend(q, k, v)


@wrong("You return `out` alone. The pair `(out, weights)` is asked for.")
def out_alone(q, k, v, mask=None):
    return _attend(q, k, v, mask)[0]


@wrong("The two results are exchanged: first `out`, then `weights`.")
def exchanged(q, k, v, mask=None):
    return _attend(q, k, v, mask)[::-1]


@wrong("`out` is right, and the second result holds the scores: return the weights, after softmax.")
def scores_for_weights(q, k, v, mask=None):
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    return _attend(q, k, v, mask)[0], scores if mask is None else np.where(mask, scores, -np.inf)


@wrong("Right for matrices; with leading axes the shapes no longer fit. `.T`, for one, turns **all** axes round, where only the last two "
       "should change places.")
def turns_all_axes(q, k, v, mask=None):
    scores = q @ k.T / q.shape[-1] ** 0.5
    weights = softmax(scores if mask is None else np.where(mask, scores, -np.inf))
    return weights @ v, weights


@wrong("Right as long as there is a mask. Without one `mask` is None, and `np.where` takes None for False everywhere: all keys are hidden.")
def none_hides_all(q, k, v, mask=None):
    scores = np.where(mask, q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5, -np.inf)
    weights = softmax(scores)
    return weights @ v, weights


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)


def _allowed(case):
    q, k = case.args[:2]
    shape = (*q.shape[:-1], k.shape[-2])
    return np.broadcast_to(case.args[3] if len(case.args) > 3 else True, shape)


@observe
def weights_right_out_wrong(case, got, want):
    if not _near(got[1], want[1]).all() or _near(got[0], want[0]).all():
        return None
    v = case.args[2]
    if _near(got[0], want[1] @ (v - v.mean(axis=-1, keepdims=True))).all():
        return "Your weights are right; your `out` is a sum of values whose mean has been taken away."
    seen = want[1].any(axis=-1)
    ratio = got[0] / want[0]
    if np.isfinite(ratio).all() and _near(ratio, ratio.flat[0]).all():
        return f"Your weights are right, and your `out` is {ratio.flat[0]:.4g} times what these weights make of the values."
    if not seen.all() and _near(got[0], want[0])[seen].all():
        return "Your weights are right, and `out` too but for the query that sees nothing: its row of `out` should be zeros."
    return "Your weights are right; it is `out` that is not what these weights make of the values."


@observe
def out_right_weights_wrong(case, got, want):
    if _near(got[0], want[0]).all() and not _near(got[1], want[1]).all():
        shown = _allowed(case).any(axis=-1)
        if not shown.all() and _near(got[1], want[1])[shown].all():
            return (f"`out` is right, and the weights too but for the query that sees nothing: its row of weights sums to "
                    f"{got[1][~shown].sum(axis=-1).flat[0]:.3g}, and should be zeros.")
        return "`out` is right; what you return as weights is not what it was made with."


@observe
def weight_on_hidden(case, got, want):
    allowed, weights = _allowed(case), got[1]
    leak = ~allowed & (np.abs(weights) > 0) & allowed.any(axis=-1, keepdims=True)
    if leak.any():
        at = tuple(int(i) for i in np.argwhere(leak)[0])
        size = "" if np.abs(weights[leak]).max() > 1e-6 else " That is little, but exactly 0 is asked for."
        return (f"{leak.sum()} of {(~allowed).sum()} hidden keys have a weight: query {at[-2]} gives {weights[at]:.3g} to key {at[-1]}, which "
                f"it may not see.{size}")
    empty = ~allowed.any(axis=-1)
    if empty.any() and not _near(got[1], want[1])[empty].all() and _near(got[1], want[1])[~empty].all():
        row = weights[empty][0]
        return (f"Right but for the query that sees nothing: it gets {'NaN' if np.isnan(row).any() else f'weights that sum to {row.sum():.3g}'}"
                ", and should get zeros.")


@observe
def nothing_for_an_allowed_key(case, got, want):
    gone = (got[1] == 0) & (want[1] > 1e-6)
    if gone.any() and np.isfinite(got[1]).all():
        at = tuple(int(i) for i in np.argwhere(gone)[0])
        given = "which the mask allows" if len(case.args) > 3 else "though no mask was given"
        return f"Query {at[-2]} gives no weight at all to key {at[-1]}, {given}; {want[1][at]:.3g} is expected."


@observe
def another_temperature(case, got, want):
    """The weights are a softmax of the right scores times a number: say by which."""
    weights = got[1]
    if weights.dtype.kind != "f" or not (np.isfinite(weights).all() and _near(weights.sum(axis=-1), want[1].sum(axis=-1)).all()):
        return None
    scores = case.args[0] @ case.args[1].swapaxes(-1, -2) / case.args[0].shape[-1] ** 0.5
    both = (weights > 1e-12) & (want[1] > 1e-12)
    if not (both[..., 1:] & both[..., :-1]).any():
        return None
    pair = both[..., 1:] & both[..., :-1]
    logs = np.log(np.where(both, weights, 1))
    steps, wanted = np.diff(logs, axis=-1)[pair], np.diff(scores, axis=-1)[pair]
    ratio = steps[0] / wanted[0]
    if pair.sum() > 1 and np.allclose(steps, ratio * wanted, rtol=1e-5, atol=1e-7) and abs(ratio - 1) > 1e-6:
        divisor = case.args[0].shape[-1] ** 0.5 / ratio
        if divisor < 0:
            return "The weights prefer the keys with the smallest dot products: your scores have the opposite sign."
        names = [name for name, n in case.dims.items() if abs(divisor / n**0.5 - 1) < 1e-6]
        return (f"Your weights are those of dot products divided by {divisor:.5g}{f', the root of {names[0]}' if names else ''}, where "
                f"√d = {case.args[0].shape[-1] ** 0.5:.5g} is asked for: they are too {'sharp' if ratio > 1 else 'even'}.")


@observe
def not_a_mean(case, got, want):
    v, allowed = case.args[2], _allowed(case)
    shown = allowed.any(axis=-1, keepdims=True)
    low, high = v.min(axis=-2, keepdims=True), v.max(axis=-2, keepdims=True)
    outside = ((got[0] < low - 1e-9) | (got[0] > high + 1e-9)) & shown
    if outside.any() and np.isfinite(got[0]).all() and _near(got[1].sum(axis=-1), want[1].sum(axis=-1)).all():
        return (f"Your weights sum to 1, and yet {outside.sum()} of {outside.size} numbers in `out` lie outside the range of the values: `out` is "
                "not their mean under these weights.")
