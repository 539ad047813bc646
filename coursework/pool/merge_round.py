"""Exercise: what a device has gathered on its way round the ring becomes one result."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "All parts at once"
CHAPTER = "24_many_devices"
POINTS, EDGE_POINTS = 5, 1
RETURNS = ("out", "lse")
PROMPT = r"""
A device has met the keys of all `ranks` devices, and kept what it computed with each: `outs` (ranks, ..., seq_q, dim_v), the finished
results of softmax attention over the keys of one device, already divided, and `lses` (ranks, ..., seq_q), for each query the logarithm of
the sum of exp(score) over the keys of that device. Write `merge_round(outs, lses)`, which merges all of them at once and returns
`(out, lse)`, (..., seq_q, dim_v) and (..., seq_q), as they would be for all keys together. An lse may be 10,000 or −10,000. Under a causal mask
a query sees no key of some devices: there `lses` is $-\infty$ and `outs` zeros, and they must not count. A query that sees no key of any
device gets $-\infty$ and zeros. (NumPy; the inputs stay as they are.)
"""


def merge_round(outs, lses):
    # BEGIN SOLUTION
    top = lses.max(axis=0)  # (..., seq_q)
    shift = np.where(np.isneginf(top), 0, top)  # nobody saw a key
    powers = np.exp(lses - shift)  # (ranks, ..., seq_q)
    total = powers.sum(axis=0)
    shares = powers / np.where(total == 0, 1, total)
    with np.errstate(divide="ignore"):
        return (shares[..., None] * outs).sum(axis=0), shift + np.log(total)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "ranks batch heads seq_q dim_v")

    def parts(*lead, height=0.0, spread=1.0):
        shape = (s.ranks, *lead, s.seq_q)
        return rng.normal(size=(*shape, s.dim_v)), rng.normal(size=shape) * spread + height

    def hidden(outs, lses, seen):
        return np.where(seen[..., None], outs, 0), np.where(seen, lses, -np.inf)

    yield case("one head", *parts(height=1.0), dims=s)
    yield case("leading axes", *parts(s.batch, s.heads), dims=s)
    outs, lses = parts()
    yield case("values far from 0", outs + 100, lses, dims=s)
    yield case("an lse of 10,000", *parts(height=10_000.0), dims=s)
    yield case("an lse of -10,000", *parts(height=-10_000.0), dims=s)
    yield case("devices of very different weight", *parts(spread=300.0), dims=s)
    high = np.where(np.arange(s.seq_q) % 2, 2000.0, -2000.0)
    yield case("queries of very different lse", *parts(height=high), dims=s)
    seen = np.arange(s.ranks)[:, None] <= np.arange(s.seq_q)
    yield case("a causal mask: some devices show no key", *hidden(*parts(), seen), dims=s)
    seen = seen & (np.arange(s.seq_q) != 1)
    yield case("a query that sees no key of any device", *hidden(*parts(), seen), edge=True, dims=s)


@wrong("You take the plain mean of the parts. A device whose keys have larger scores, or more keys, must count for more.")
def plain_mean(outs, lses):
    return outs.mean(axis=0), merge_round(outs, lses)[1]


@wrong("You add the parts as if they were sums. Each is divided by its own sum of powers already: their shares must add up to 1.")
def adds(outs, lses):
    return outs.sum(axis=0), merge_round(outs, lses)[1]


@wrong("exp of an lse of 10,000 overflows, and exp of -10,000 is 0, so that 0 is divided by 0. Only differences of lse matter for the "
       "shares: what may you subtract from all of them?")
def overflows(outs, lses):
    powers = np.exp(lses)
    total = powers.sum(axis=0)
    return (powers[..., None] * outs).sum(axis=0) / total[..., None], np.log(total)


@wrong("You subtract one maximum for all queries. For a query far below it all powers become 0: each row needs its own.")
def one_maximum(outs, lses):
    top = lses[np.isfinite(lses)].max()
    powers = np.exp(lses - top)
    total = powers.sum(axis=0)
    return (powers[..., None] * outs).sum(axis=0) / total[..., None], top + np.log(total)


@wrong("Your out is right; your lse is the largest of the parts. The keys of the other devices have powers of their own.")
def largest_lse(outs, lses):
    return merge_round(outs, lses)[0], lses.max(axis=0)


@wrong("Your out is right; your lse is the sum of the parts. What adds up are the sums of powers, not their logarithms.")
def sums_the_lse(outs, lses):
    return merge_round(outs, lses)[0], lses.sum(axis=0)


@wrong("Your out is right; your lse is that of the shifted powers. What was subtracted before exp has to be added again after log.")
def without_the_shift(outs, lses):
    out, lse = merge_round(outs, lses)
    return out, lse - np.where(np.isneginf(lses.max(axis=0)), 0, lses.max(axis=0))


@wrong("You merge two at a time and give both half of the weight every time: the last device counts for half of everything. What share "
       "do its keys have in what has been merged so far?")
def halves(outs, lses):
    out = outs[0]
    for other in outs[1:]:
        out = (out + other) / 2
    return out, merge_round(outs, lses)[1]


@wrong("You merge two at a time and forget to carry the lse on: the weight of what has been merged is then that of its first part alone.")
def first_lse(outs, lses):
    out, lse = outs[0], lses[0]
    for other, its in zip(outs[1:], lses[1:], strict=True):
        top = np.maximum(lse, its)
        top = np.where(np.isneginf(top), 0, top)
        a, b = np.exp(lse - top), np.exp(its - top)
        total = np.where(a + b == 0, 1, a + b)
        out = (a[..., None] * out + b[..., None] * other) / total[..., None]
    return out, merge_round(outs, lses)[1]


@wrong("You keep the part with the largest lse and drop the others. Softmax gives the others their share too.")
def winner_takes_all(outs, lses):
    best = lses.argmax(axis=0)[None, ..., None]
    return np.take_along_axis(outs, best, axis=0)[0], merge_round(outs, lses)[1]


@wrong("Right but where a query sees no key of any device: the largest lse is -inf there, and -inf - (-inf) is NaN.")
def nobody(outs, lses):
    top = lses.max(axis=0)
    powers = np.exp(lses - top)
    total = powers.sum(axis=0)
    return (powers[..., None] * outs).sum(axis=0) / total[..., None], top + np.log(total)


@observe
def averages(case, got, want):
    outs, lses = case.args
    if np.allclose(got[0], outs.mean(axis=0)):
        return "Your out is the plain mean of the parts. A device whose keys have larger scores, or more keys, must count for more."
    with np.errstate(all="ignore"):
        if np.allclose(got[0], (lses[..., None] * outs).sum(axis=0) / lses.sum(axis=0)[..., None], equal_nan=True):
            return "You weigh the parts with their lse. It is a logarithm: what turns it back into the sum that it stands for?"
        powers = np.exp(lses - lses.max())
        if np.allclose(got[0], (powers[..., None] * outs).sum(axis=0) / powers.sum(axis=0)[..., None], equal_nan=True):
            return ("Some queries have a far smaller lse than others, and all their powers became 0: the largest has to be taken over the "
                    "devices, for each query by itself.")


@observe
def parts_left(case, got, want):
    if not np.isfinite(got[0]).all():
        return "Your out holds NaN or infinity. Which numbers did you exponentiate, and what was divided by what?"
    right = [np.allclose(x, y) for x, y in zip(got, want, strict=True)]
    if all(right):
        return "Nearly: the difference is larger than rounding in float64. Is something added to a sum, or computed with fewer digits?"
    if right[0]:
        return "Your out is right, your lse is not. It is the logarithm of the sum of exp(score) over the keys of all devices."
    if right[1]:
        return "Your lse is right, your out is not. With which weights do the parts go into it, and do these add up to 1?"
