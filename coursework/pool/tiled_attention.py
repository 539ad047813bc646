"""Exercise: attention over blocks of keys, for problem sets on kernels."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Attention that never holds its scores"
CHAPTER = "20_flash"
POINTS = 7
RETURNS = ("out", "lse")
PROMPT = r"""
Write `tiled_attention(q, k, v, block)`: softmax attention with scores $QK^\mathsf T/\sqrt{d}$, d = dim_head, and no mask, computed from
`block` keys at a time {cite}`dao2022`. `q` is (..., seq_q, dim_head), `k` (..., seq_k, dim_head), `v` (..., seq_k, dim_v). Return
`(out, lse)`: the finished result (..., seq_q, dim_v), and for each query the logarithm of the sum of exp(score) over all keys,
(..., seq_q). The last block may be shorter; a block may also be longer than the sequence. Scores of 10,000 must not overflow. At no
time may more than a few arrays of shape (..., seq_q, `block`) exist: for long inputs the memory is measured.
"""


def tiled_attention(q, k, v, block):
    # BEGIN SOLUTION
    row_max = np.full(q.shape[:-1], -np.inf)  # (..., seq_q)
    row_sum = np.zeros(q.shape[:-1])
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for start in range(0, k.shape[-2], block):
        tile = slice(start, start + block)
        scores = q @ k[..., tile, :].swapaxes(-1, -2) / q.shape[-1] ** 0.5
        new_max = np.maximum(row_max, scores.max(axis=-1))
        powers = np.exp(scores - new_max[..., None])  # (..., seq_q, block)
        rescale = np.exp(row_max - new_max)
        row_sum = rescale * row_sum + powers.sum(axis=-1)
        out = rescale[..., None] * out + powers @ v[..., tile, :]
        row_max = new_max
    return out / row_sum[..., None], row_max + np.log(row_sum)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q block dim_head dim_v")

    def inputs(seq_k, *lead, seq_q=s.seq_q):
        return [rng.normal(size=(*lead, seq, width)) * 1.5 for seq, width in
                ((seq_q, s.dim_head), (seq_k, s.dim_head), (seq_k, s.dim_v))]

    longer, whole = {**vars(s), "seq_k": 2 * s.block + s.block // 2 + 20}, {**vars(s), "seq_k": s.block * 4}
    longer["seq_k"] += longer["seq_k"] % s.block == 0
    if whole["seq_k"] in vars(s).values():
        del whole["seq_k"]
    yield case("all keys in one block", *inputs(s.block), s.block, dims=s)
    yield case("several full blocks", *inputs(4 * s.block), s.block, dims=whole)
    yield case("a last block that is shorter", *inputs(longer["seq_k"]), s.block, dims=longer)
    yield case("a block longer than the sequence", *inputs(s.block - 1), s.block, dims=s)
    yield case("leading axes", *inputs(longer["seq_k"], s.batch, s.heads), s.block, dims=longer)
    yield case("blocks of one key", *inputs(longer["seq_k"]), 1, dims=longer)
    q, k, v = inputs(longer["seq_k"])
    q[:2], k[:, 0] = 0, np.linspace(300, 900, len(k))
    q[:2, 0] = 40, -40
    yield case("large scores that rise, or fall, from block to block", q, k, v + 100, s.block, dims=longer)
    long = {"seq_q": 40, "seq_k": 1503, "dim_head": 4, "dim_v": 3, "block": 16}
    q, k, v = rng.normal(size=(40, 4)), rng.normal(size=(1503, 4)), rng.normal(size=(1503, 3))
    yield case("many keys", q, k, v, 16, memory=100_000, dims=long)


def heavy(rng):
    q, k, v = (rng.normal(size=(seq, width)) for seq, width in ((1000, 4), (40_003, 4), (40_003, 3)))
    yield case("very many keys", q, k, v, 500, memory=40_000_000)


def _whole(q, k, v):
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    row_max = scores.max(axis=-1)
    powers = np.exp(scores - row_max[..., None])
    row_sum = powers.sum(axis=-1)
    return powers @ v / row_sum[..., None], row_max + np.log(row_sum)


def _loop(q, k, v, block, scale=None, rescale_sum=True, rescale_out=True, running=True, stop=None):
    row_max, row_sum = np.full(q.shape[:-1], -np.inf), np.zeros(q.shape[:-1])
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for start in range(0, k.shape[-2] if stop is None else stop, block):
        tile = slice(start, start + block)
        scores = q @ k[..., tile, :].swapaxes(-1, -2) / (q.shape[-1] ** 0.5 if scale is None else scale)
        new_max = np.maximum(row_max, scores.max(axis=-1)) if running else scores.max(axis=-1)
        powers, rescale = np.exp(scores - new_max[..., None]), np.exp(row_max - new_max)
        row_sum = (rescale if rescale_sum else 1) * row_sum + powers.sum(axis=-1)
        out = (rescale[..., None] if rescale_out else 1) * out + powers @ v[..., tile, :]
        row_max = new_max
    return out / row_sum[..., None], row_max + np.log(row_sum)


@wrong("The values are right, but all scores are held at once, or tiles much larger than `block`: the memory grows with seq_k. Which sums "
       "can be kept instead?")
def too_much_memory(q, k, v, block):
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    row_max = scores.max(axis=-1)
    powers = np.exp(scores - row_max[..., None])
    row_sum = powers.sum(axis=-1)
    return powers @ v / row_sum[..., None], row_max + np.log(row_sum)


@wrong("Right with one block, wrong with several: you divide out by the running sum after every block, and go on with the quotient as if "
       "it were the sum. Divide once, at the end.")
def divides_every_block(q, k, v, block):
    row_max, row_sum = np.full(q.shape[:-1], -np.inf), np.zeros(q.shape[:-1])
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for start in range(0, k.shape[-2], block):
        scores = q @ k[..., start:start + block, :].swapaxes(-1, -2) / q.shape[-1] ** 0.5
        new_max = np.maximum(row_max, scores.max(axis=-1))
        powers, rescale = np.exp(scores - new_max[..., None]), np.exp(row_max - new_max)
        row_sum = rescale * row_sum + powers.sum(axis=-1)
        out = (rescale[..., None] * out + powers @ v[..., start:start + block, :]) / row_sum[..., None]
        row_max = new_max
    return out, row_max + np.log(row_sum)


@wrong("Right with one block, wrong with several: what was summed in earlier blocks was measured from a smaller maximum. By which factor "
       "does it have to shrink when the maximum rises?")
def never_rescales(q, k, v, block):
    return _loop(q, k, v, block, rescale_sum=False, rescale_out=False)


@wrong("Your lse is right, your out is not: the running sum is rescaled when the maximum rises, the running out is not.")
def rescales_the_sum_only(q, k, v, block):
    return _loop(q, k, v, block, rescale_out=False)


@wrong("The running maximum is that of the latest block alone. Where an earlier score was larger, powers overflow and what had been summed "
       "is blown up: a running maximum never falls.")
def maximum_of_the_block(q, k, v, block):
    return _loop(q, k, v, block, running=False)


@wrong("You leave out the last block where it is shorter than the others: whole blocks are not all keys.")
def whole_blocks_only(q, k, v, block):
    return _loop(q, k, v, block, stop=k.shape[-2] // block * block)


@wrong("You take the plain mean of the blocks' results. A block with larger scores has to count for more: each of them has an lse of its "
       "own.")
def mean_of_blocks(q, k, v, block):
    parts = [_whole(q, k[..., i:i + block, :], v[..., i:i + block, :]) for i in range(0, k.shape[-2], block)]
    return np.mean([out for out, _ in parts], axis=0), np.logaddexp.reduce([lse for _, lse in parts])


@wrong("Your lse is the running maximum plus the sum of powers: the logarithm of that sum is asked for.")
def no_logarithm(q, k, v, block):
    out, lse = _loop(q, k, v, block)
    row_max = (q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5).max(axis=-1)
    return out, row_max + np.exp(lse - row_max)


@wrong("Your lse is the logarithm of the sum of shifted powers: the maximum that was subtracted is missing in it.")
def lse_without_the_maximum(q, k, v, block):
    out, lse = _loop(q, k, v, block)
    return out, lse - np.max([(q @ k[..., i:i + block, :].swapaxes(-1, -2)).max(axis=-1) for i in range(0, k.shape[-2], block)],
                             axis=0) / q.shape[-1] ** 0.5


@wrong("Your out is right; your lse is 1.443 times what it should be, a logarithm to base 2 as inside the library's tile. Multiply it by ln 2.")
def lse_in_base_2(q, k, v, block):
    out, lse = _loop(q, k, v, block)
    return out, lse / np.log(2)


@wrong("Your powers are of two, and your scores are not multiplied by log₂ e: 2^(s · log₂ e) is e^s, 2^s is not.")
def powers_of_two(q, k, v, block):
    out, lse = _loop(q * np.log(2), k, v, block)
    return out, lse / np.log(2)


@wrong("Your scores are not divided by √dim_head.")
def no_scale(q, k, v, block):
    return _loop(q, k, v, block, scale=1)


@wrong("Your scores are divided by dim_head, not by its square root.")
def scaled_by_the_width(q, k, v, block):
    return _loop(q, k, v, block, scale=q.shape[-1])


@wrong("Your scores are exponentiated as they are: 10,000 overflows. The running sums have to be measured from the largest score so far.")
def no_maximum(q, k, v, block):
    row_sum, out = 0, 0
    for start in range(0, k.shape[-2], block):
        powers = np.exp(q @ k[..., start:start + block, :].swapaxes(-1, -2) / q.shape[-1] ** 0.5)
        row_sum, out = row_sum + powers.sum(axis=-1), out + powers @ v[..., start:start + block, :]
    return out / row_sum[..., None], np.log(row_sum)


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-8).all()


def _usable(case, got):
    return case.memory is None and all(x.dtype.kind == "f" and np.isfinite(x).all() for x in got)


@observe
def another_scale(case, got, want):
    q, k, v, block = case.args
    if not _usable(case, got):
        return None
    named = {"dim_head": q.shape[-1], "dim_v": v.shape[-1], "seq_q": q.shape[-2], "seq_k": k.shape[-2], "block": block}
    scales = {"1 (no scale at all)": 1.0, "1/√dim_head (multiplied instead)": q.shape[-1] ** -0.5}
    scales |= {name: float(n) for name, n in named.items()} | {f"√{name}": n**0.5 for name, n in named.items() if name != "dim_head"}
    for number in scales.values():
        if not np.isclose(number, q.shape[-1] ** 0.5):
            out, lse = _whole(q * (q.shape[-1] ** 0.5 / number), k, v)
            if _near(got[0], out) or _near(got[1], lse):
                names = " or ".join(name for name, other in scales.items() if other == number)
                return f"Your result is that of scores divided by {names}."


@observe
def some_of_the_keys(case, got, want):
    q, k, v, block = case.args
    seq_k = k.shape[-2]
    if not _usable(case, got):
        return None
    starts = range(0, seq_k, block)
    for first in starts:
        for stop in [i for i in (*starts, *range(1, seq_k + 1)) if first < i <= seq_k]:
            if (first, stop) == (0, seq_k):
                continue
            out, lse = _whole(q, k[..., first:stop, :], v[..., first:stop, :])
            which = [name for name, g, w in (("out", got[0], out), ("lse", got[1], lse)) if _near(g, w)]
            if which:
                return (f"Your {' and '.join(which)} would be right if there were only the keys {first} to {stop - 1}; there are {seq_k}, in blocks of "
                        f"{block}.")


@observe
def blocks_by_themselves(case, got, want):
    q, k, v, block = case.args
    if not _usable(case, got) or k.shape[-2] <= block:
        return None
    parts = [_whole(q, k[..., i:i + block, :], v[..., i:i + block, :]) for i in range(0, k.shape[-2], block)]
    if _near(got[0], sum(out for out, _ in parts)):
        return "Your out is the sum of what attention over each block alone gives: every block's weights sum to 1, all of them together should."
    if _near(got[1], sum(lse for _, lse in parts)):
        return "Your lse is the sum of the lse of the blocks. What adds up are the sums of powers."
    if _near(got[1], np.max([lse for _, lse in parts], axis=0)):
        return "Your lse is the largest of the lse of the blocks."


@observe
def what_the_lse_is(case, got, want):
    q, k = case.args[:2]
    if not _usable(case, got) or _near(got[1], want[1]):
        return None
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    row_max = scores.max(axis=-1)
    for name, value in (("the largest score of the row", row_max), ("the sum of powers, without logarithm", np.exp(want[1])),
                        ("the sum of shifted powers, without logarithm and maximum", np.exp(want[1] - row_max)),
                        ("the largest score times the sum", row_max * np.exp(want[1] - row_max)),
                        ("maximum minus logarithm", 2 * row_max - want[1]),
                        ("the lse of the scores before they are scaled", _whole(q * q.shape[-1] ** 0.5, k, k)[1])):
        if _near(got[1], value):
            return f"Your lse is {name}."
    if (got[1] < row_max - 1e-9).any():
        return "Your lse is smaller than the largest score of its row: a sum of powers holds that score's power, too."


@observe
def not_a_mean(case, got, want):
    v = case.args[2]
    if not _usable(case, got):
        return None
    low, high = v.min(axis=-2, keepdims=True), v.max(axis=-2, keepdims=True)
    far = (got[0] < low - 1e-7 * (1 + np.abs(low))) | (got[0] > high + 1e-7 * (1 + np.abs(high)))
    if far.any():
        factor = got[0] / want[0]
        each = np.ptp(factor, axis=-1) < 1e-6 * np.abs(factor).max(axis=-1)
        end = f" Its rows are multiples of the right ones, {factor.flat[0]:.4g} times in the first: divided by what?" if each.all() else ""
        return f"Your out leaves the range of the values, which a weighted mean of them cannot.{end}"


@observe
def several_blocks(case, got, want):
    k, block = case.args[1], case.args[3]
    count = -(-k.shape[-2] // block)
    good = [name for name, g, w in zip(RETURNS, got, want, strict=True) if _near(g, w)]
    off = max(np.abs(g - w).max() / np.abs(w).max() for g, w in zip(got, want, strict=True))
    if _usable(case, got) and off > 1e-3:
        side = f"your {good[0]} is right, your {RETURNS[1 - RETURNS.index(good[0])]} is not" if good else "neither out nor lse is right"
        if count > 1:
            return f"With {count} blocks of {block} keys or fewer, {side}. What happens to the running sums from one block to the next?"
        return f"With a single block, {side}: nothing has to be rescaled there yet."
