"""Exercise: two partial attention results become one, for problem sets on kernels and on distributed attention."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Two halves of the keys, one result"
CHAPTER = ""
POINTS, EDGE_POINTS = 5, 1
RETURNS = ("out", "lse")
PROMPT = r"""
The keys of an attention have been shared between two machines. Each has attended to its own keys and returns its finished result
`out` (..., seq_q, dim_v), already divided, and `lse` (..., seq_q): for each query the logarithm of the sum of exp(score) over its
keys. Write `merge_partial(out_a, lse_a, out_b, lse_b)`, which returns `(out, lse)` as they would be for all keys together. The lse
may be 10,000 or −10,000 without overflow or underflow. Where one side saw no key its `lse` is $-\infty$ and its `out` zeros: the
other side's result is returned. Where neither saw any, return $-\infty$ and zeros.
"""


def merge_partial(out_a, lse_a, out_b, lse_b):
    # BEGIN SOLUTION
    lse = np.logaddexp(lse_a, lse_b)  # (..., seq_q)
    shift = np.where(np.isneginf(lse), 0, lse)  # neither side saw a key
    share_a = np.exp(lse_a - shift)[..., None]  # (..., seq_q, 1)
    share_b = np.exp(lse_b - shift)[..., None]
    return share_a * out_a + share_b * out_b, lse
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q dim_v")

    def part(*lead, height=0.0, spread=1.0):
        return rng.normal(size=(*lead, s.seq_q, s.dim_v)), rng.normal(size=(*lead, s.seq_q)) * spread + height

    yield case("one head", *part(height=2.0), *part(height=2.0), dims=s)
    yield case("leading axes", *part(s.batch, s.heads, height=1.0), *part(s.batch, s.heads, height=3.0), dims=s)
    yield case("values far from 0", *(x + 100 for x in part()), *(x + 100 for x in part()), dims=s)
    yield case("an lse of 10,000", *part(height=10_000.0), *part(height=10_000.0), dims=s)
    yield case("an lse of -10,000", *part(height=-10_000.0), *part(height=-10_000.0), dims=s)
    yield case("sides of very different weight", *part(height=900.0), *part(height=-900.0), dims=s)
    height = np.where(np.arange(s.seq_q) % 2, 2000.0, -2000.0)
    yield case("queries of very different lse", *part(height=height), *part(height=height), dims=s)
    out_a, lse_a = part()
    out_b, lse_b = part(height=1.0)
    lse_a[0], out_a[0], lse_b[2], out_b[2] = -np.inf, 0, -np.inf, 0
    yield case("a query that saw nothing on one side", out_a, lse_a, out_b, lse_b, dims=s)
    out_a, lse_a = part()
    out_b, lse_b = part(height=1.0)
    lse_a[1], out_a[1], lse_b[1], out_b[1] = -np.inf, 0, -np.inf, 0
    yield case("a query that saw nothing on either side", out_a, lse_a, out_b, lse_b, edge=True, dims=s)


@wrong("exp of an lse of 10,000 overflows, and exp of -10,000 is 0, so that 0 is divided by 0. Only the difference of the two lse "
       "matters for the shares: what may you subtract from both?")
def overflows(out_a, lse_a, out_b, lse_b):
    a, b = np.exp(lse_a), np.exp(lse_b)
    return (a[..., None] * out_a + b[..., None] * out_b) / (a + b)[..., None], np.log(a + b)


@wrong("You take the plain mean of the two results. A side whose keys have larger scores, or more keys, must count for more: how "
       "much softmax weight would its keys have had together?")
def plain_mean(out_a, lse_a, out_b, lse_b):
    return (out_a + out_b) / 2, np.logaddexp(lse_a, lse_b)


@wrong("You weight the sides by their lse itself. It is a logarithm: the weights are proportional to its exponential (and an lse may "
       "be negative, a weight may not).")
def weights_are_logarithms(out_a, lse_a, out_b, lse_b):
    share = (lse_a / (lse_a + lse_b))[..., None]
    return share * out_a + (1 - share) * out_b, np.logaddexp(lse_a, lse_b)


@wrong("The shares are exchanged: the result of side a comes with the weight of side b.")
def exchanged(out_a, lse_a, out_b, lse_b):
    lse = np.logaddexp(lse_a, lse_b)
    shift = np.where(np.isneginf(lse), 0, lse)
    return np.exp(lse_b - shift)[..., None] * out_a + np.exp(lse_a - shift)[..., None] * out_b, lse


@wrong("You add the two results as if they were sums. Each has been divided by its own sum of powers already; their weights in the "
       "whole must add up to 1.")
def adds(out_a, lse_a, out_b, lse_b):
    return out_a + out_b, np.logaddexp(lse_a, lse_b)


@wrong("Your out is right, your lse is the sum of the two. What adds up are the sums of powers, not their logarithms.")
def adds_the_lse(out_a, lse_a, out_b, lse_b):
    return merge_partial(out_a, lse_a, out_b, lse_b)[0], lse_a + lse_b


@wrong("Your out is right, your lse is the larger of the two. The keys of the other side have powers of their own, which the next "
       "merge would miss.")
def larger_lse(out_a, lse_a, out_b, lse_b):
    return merge_partial(out_a, lse_a, out_b, lse_b)[0], np.maximum(lse_a, lse_b)


@wrong("You subtract one maximum for all queries. For a query far below it both powers become 0, and 0 is divided by 0: each "
       "row needs its own.")
def global_maximum(out_a, lse_a, out_b, lse_b):
    top = max(lse_a.max(), lse_b.max())
    a, b = np.exp(lse_a - top), np.exp(lse_b - top)
    return (a[..., None] * out_a + b[..., None] * out_b) / (a + b)[..., None], np.log(a + b) + top


@wrong("Your powers are measured from the larger lse and never divided by their sum: the weights of the two sides do not add up to 1.")
def not_divided(out_a, lse_a, out_b, lse_b):
    top = np.maximum(lse_a, lse_b)
    shift = np.where(np.isneginf(top), 0, top)
    a, b = np.exp(lse_a - shift)[..., None], np.exp(lse_b - shift)[..., None]
    return a * out_a + b * out_b, np.logaddexp(lse_a, lse_b)


@wrong("Your out is right; your lse is the logarithm of the sum of the shifted powers only. What was subtracted before exp has to be "
       "added again after log.")
def lse_without_the_shift(out_a, lse_a, out_b, lse_b):
    top = np.maximum(lse_a, lse_b)
    shift = np.where(np.isneginf(top), 0, top)
    return merge_partial(out_a, lse_a, out_b, lse_b)[0], np.log(np.exp(lse_a - shift) + np.exp(lse_b - shift))


@wrong("Right but where neither side saw a key: with both lse -inf, their difference is NaN, and so is each side's share of a "
       "total of 0.")
def both_empty(out_a, lse_a, out_b, lse_b):
    lse = np.logaddexp(lse_a, lse_b)
    return np.exp(lse_a - lse)[..., None] * out_a + np.exp(lse_b - lse)[..., None] * out_b, lse


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)


@observe
def lse_too_small(case, got, want):
    lse, larger = got[1], np.maximum(case.args[1], case.args[3])
    low = lse < larger - 1e-9 * (1 + np.abs(larger))
    if low.any():
        return (f"Your lse is smaller than the larger of lse_a and lse_b in {low.sum()} of {low.size} rows (the first: {lse[low].flat[0]:.4g} "
                f"from {case.args[1][low].flat[0]:.4g} and {case.args[3][low].flat[0]:.4g}). More keys can only add to a sum of powers.")


@observe
def lse_too_large(case, got, want):
    larger = np.maximum(case.args[1], case.args[3])
    high = got[1] > larger + np.log(2) + 1e-9 * (1 + np.abs(larger))
    if high.any() and np.isfinite(got[1]).all():
        return (f"Your lse is {got[1][high].flat[0]:.4g} for a query whose lse are {case.args[1][high].flat[0]:.4g} and "
                f"{case.args[3][high].flat[0]:.4g}. Two sums of powers together are at most twice the larger: at most ln 2 more.")


@observe
def shares(case, got, want):
    out_a, lse_a, out_b, lse_b = case.args
    difference = out_a - out_b
    if not np.isfinite(got[0]).all() or _near(got[0], want[0]).all() or (np.abs(difference) < 1e-12).any():
        return None
    a, b = (got[0] - out_b) / difference, (want[0] - out_b) / difference
    constant = np.ptp(a, axis=-1) < 1e-6 * (1 + np.abs(a).max(axis=-1))
    if not constant.all():
        return None
    a, b = a.mean(axis=-1, keepdims=True), b.mean(axis=-1, keepdims=True)
    wrong = ~_near(a, b)
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    said = f"In your out the first wrong row is {a[at]:.4g} · out_a + {1 - a[at]:.4g} · out_b, with lse_a = {lse_a[at[:-1]]:.4g} and lse_b = {lse_b[at[:-1]]:.4g}"
    if a[at] < -1e-9 or a[at] > 1 + 1e-9:
        return said + ": a share below 0 or above 1."
    if np.ptp(a) < 1e-6 and a.size > 1:
        return said + "; the shares are the same in every row, whatever the lse."
    if (np.sign(a - 0.5) == -np.sign(lse_a - lse_b)[..., None]).all():
        return said + ": in every row the side of smaller lse has the larger share."
    return said + f". The odds of two softmax weights are exp(lse_a − lse_b) = {np.exp(lse_a - lse_b)[at[:-1]]:.4g}."


@observe
def outside(case, got, want):
    low, high = np.minimum(case.args[0], case.args[2]), np.maximum(case.args[0], case.args[2])
    far = (got[0] < low - 1e-9 * (1 + np.abs(low))) | (got[0] > high + 1e-9 * (1 + np.abs(high)))
    if far.any() and np.isfinite(got[0]).all():
        return (f"Your out leaves the range between out_a and out_b in {far.sum()} of {far.size} numbers (the first: {got[0][far].flat[0]:.4g} from "
                f"{case.args[0][far].flat[0]:.4g} and {case.args[2][far].flat[0]:.4g}). A weighted mean of the two lies between them.")


@observe
def one_side_only(case, got, want):
    for i, name in ((0, "out_a"), (2, "out_b")):
        rows = _near(got[0], case.args[i]).all(axis=-1) & ~_near(got[0], want[0]).all(axis=-1)
        if rows.any() and np.isfinite(case.args[1][rows]).all() and np.isfinite(case.args[3][rows]).all():
            return f"In {rows.sum()} of {rows.size} rows your out is {name} alone, although both sides saw keys there."


@observe
def one_result_right(case, got, want):
    good = [_near(g, w).all() for g, w in zip(got, want, strict=True)]
    if good[1] and not good[0] and np.isfinite(got[0]).all():
        return "Your lse is right, your out is not. How large is each side's part of exp(lse)?"
    if good[0] and not good[1] and np.isfinite(got[1]).all():
        at = tuple(np.argwhere(~_near(got[1], want[1]))[0])
        return (f"Your out is right, your lse is not: {got[1][at]:.6g} is merged from lse_a = {case.args[1][at]:.4g} and lse_b = "
                f"{case.args[3][at]:.4g}. The next merge would give this result a wrong weight.")
