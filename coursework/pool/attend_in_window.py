"""Exercise: causal attention over a window without the full matrix."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "A window without the square"
CHAPTER = "15_sparse"
POINTS = 5
PROMPT = r"""
Write `attend_in_window(q, k, v, left)`: causal softmax attention with scores $QK^\mathsf T/\sqrt{d}$, d = dim_head, in which a
query sees its own position and at most `left` positions before it. `q` is (..., seq_q, dim_head), `k` (..., seq_k, dim_head),
`v` (..., seq_k, dim_v), with seq_q ≤ seq_k: the queries are the last seq_q positions, so that the last query stands at the last key.
Return `out`, (..., seq_q, dim_v). Scores of 10,000 must not overflow. Never build scores, or a mask, of all pairs: the memory may
grow with seq_q · `left`, but not with seq_q · seq_k, and for long inputs it is measured.
"""


def attend_in_window(q, k, v, left):
    # BEGIN SOLUTION
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    out = np.empty((*q.shape[:-1], v.shape[-1]))
    for i in range(seq_q):
        own = i + seq_k - seq_q  # the query's position
        seen = slice(max(0, own - left), own + 1)
        scores = q[..., i:i + 1, :] @ k[..., seen, :].swapaxes(-1, -2)
        scores = scores / q.shape[-1] ** 0.5  # (..., 1, left + 1)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = powers / powers.sum(axis=-1, keepdims=True)
        out[..., i:i + 1, :] = weights @ v[..., seen, :]
    return out
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q dim_head dim_v", 4)
    later = {**vars(s), "seq_k": s.seq_q + 12}

    def inputs(seq_q, seq_k, *lead):
        return [rng.normal(size=(*lead, seq, width)) * 1.5 for seq, width in
                ((seq_q, s.dim_head), (seq_k, s.dim_head), (seq_k, s.dim_v))]

    yield case("as many queries as keys", *inputs(s.seq_q, s.seq_q), 2, dims=s)
    yield case("more keys than queries", *inputs(s.seq_q, later["seq_k"]), 3, dims=later)
    yield case("leading axes", *inputs(s.seq_q, later["seq_k"], s.batch, s.heads), 2, dims=later)
    yield case("left = 0: every query sees itself alone", *inputs(s.seq_q, s.seq_q), 0, dims=s)
    yield case("a window longer than the sequence", *inputs(s.seq_q, s.seq_q), 25, dims=s)
    yield case("one query, as when generating", *inputs(1, later["seq_k"]), 3, dims=later)
    q, k, v = inputs(s.seq_q, later["seq_k"])
    q, k = q * 100, k * 100
    yield case("large scores", q, k, v + 20, 3, dims=later)
    q, k, v = (rng.normal(size=(seq, width)) for seq, width in ((300, 4), (301, 4), (301, 3)))
    yield case("a long input", q, k, v, 8, memory=340_000, dims={"seq_q": 300, "seq_k": 301, "dim_head": 4, "dim_v": 3})


def heavy(rng):
    yield case("a very long input", *(rng.normal(size=(seq, width)) for seq, width in ((8000, 4), (8001, 4), (8001, 3))), 8,
               memory=15_000_000)


def _masked(q, k, v, allowed, scale=None):
    """Full attention over the pairs that are allowed."""
    scores = q @ k.swapaxes(-1, -2) / (q.shape[-1] ** 0.5 if scale is None else scale)
    weights = np.where(allowed, np.exp(scores - np.where(allowed, scores, -np.inf).max(axis=-1, keepdims=True)), 0)
    return weights @ v / weights.sum(axis=-1, keepdims=True)


def _distance(q, k, shift=None):
    shift = k.shape[-2] - q.shape[-2] if shift is None else shift
    return np.arange(q.shape[-2])[:, None] + shift - np.arange(k.shape[-2])


def _loop(q, k, v, left, right=0, shift=None, scale=None, least=0, stable=True):
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    out = np.empty((*q.shape[:-1], v.shape[-1]))
    for i in range(seq_q):
        own = i + (seq_k - seq_q if shift is None else shift)
        seen = slice(own - left if least is None else max(least, own - left), own + right + 1)
        scores = q[..., i:i + 1, :] @ k[..., seen, :].swapaxes(-1, -2) / (q.shape[-1] ** 0.5 if scale is None else scale)
        powers = np.exp(scores - (scores.max(axis=-1, keepdims=True, initial=-np.inf) if stable else 0))
        out[..., i:i + 1, :] = powers / powers.sum(axis=-1, keepdims=True) @ v[..., seen, :]
    return out


@wrong("The values are right, but scores or a mask of all pairs are built: twice the length takes four times the memory. Which keys does "
       "one query need?")
def too_much_memory(q, k, v, left):
    distance = np.arange(q.shape[-2])[:, None] + k.shape[-2] - q.shape[-2] - np.arange(k.shape[-2])
    scores = np.where((distance >= 0) & (distance <= left), q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


@wrong("Your window is one key too narrow: `left` counts the positions before the query's own, which is seen as well.")
def narrow(q, k, v, left):
    return _loop(q, k, v, max(left - 1, 0))


@wrong("Your window is one key too wide: with left = 0 a query sees itself alone, and yours looks at the position before it.")
def wide(q, k, v, left):
    return _loop(q, k, v, left + 1)


@wrong("A query of yours does not see its own position. The window is the own position and `left` before it.")
def without_itself(q, k, v, left):
    return _loop(q, k, v, left, right=-1)


@wrong("Right where there are as many queries as keys. With more keys the queries are the last positions: query 0 does not stand at "
       "key 0.")
def aligned_to_the_start(q, k, v, left):
    return _loop(q, k, v, left, shift=0)


@wrong("Your window lies on both sides of the query. Attention is to be causal: nothing after the own position.")
def both_sides(q, k, v, left):
    return _loop(q, k, v, left, right=left)


@wrong("Right but near the beginning: own − left is negative there, and a slice that begins at a negative number counts from the end.")
def negative_start(q, k, v, left):
    return _loop(q, k, v, left, least=None)


@wrong("Near the beginning your window is filled up with zeros. A key of zeros has score 0 and takes softmax weight: there it must not "
       "be seen at all.")
def zeros_in_front(q, k, v, left):
    pad = [(0, 0)] * (k.ndim - 2) + [(left, 0), (0, 0)]
    return _loop(q, np.pad(k, pad), np.pad(v, pad), left)


@wrong("Your scores are not divided by √dim_head.")
def no_scale(q, k, v, left):
    return _loop(q, k, v, left, scale=1)


@wrong("Your scores are divided by dim_head, not by its square root.")
def scaled_by_the_width(q, k, v, left):
    return _loop(q, k, v, left, scale=q.shape[-1])


@wrong("Your powers overflow for scores of 10,000. What may be subtracted from all scores of a window?")
def overflows(q, k, v, left):
    return _loop(q, k, v, left, stable=False)


@wrong("The window is not applied: your queries see everything before them.")
def causal_only(q, k, v, left):
    return _loop(q, k, v, k.shape[-2])


@observe
def which_keys(case, got, want):
    q, k, v, left = case.args
    if case.memory is not None or got.dtype.kind != "f":
        return None
    seq_q, seq_k, lead = q.shape[-2], k.shape[-2], (0,) * (q.ndim - 2)
    q, k, v, got, want = (x[lead] for x in (q, k, v, got, want))
    for i in np.flatnonzero(~np.isclose(got, want, rtol=1e-6, atol=1e-9).all(axis=-1)):
        own = i + seq_k - seq_q
        for first in range(seq_k):
            for last in range(first, seq_k):
                if np.allclose(got[i], _masked(q[i:i + 1], k[first:last + 1], v[first:last + 1], True)[0], rtol=1e-6, atol=1e-9):
                    begin = max(0, own - left)
                    return (f"Query {i} stands at position {own} and should see the keys {begin} to {own}; your result for it is that of "
                            f"{f'the keys {first} to {last}' if first < last else f'key {first} alone'} (left = {left}, seq_q = {seq_q}, seq_k = {seq_k}).")
        return None


@observe
def another_scale(case, got, want):
    q, k, v, left = case.args
    if case.memory is not None or got.dtype.kind != "f":
        return None
    distance = _distance(q, k)
    allowed = (distance >= 0) & (distance <= left)
    named = {"1 (no scale at all)": 1.0, "dim_head": q.shape[-1], "1/√dim_head (multiplied instead)": q.shape[-1] ** -0.5, "seq_k": k.shape[-2],
             "√seq_k": k.shape[-2] ** 0.5, "√dim_v": v.shape[-1] ** 0.5, "√left": left**0.5 or 1.0, "√(left + 1)": (left + 1) ** 0.5}
    for name, number in named.items():
        if np.allclose(got, _masked(q, k, v, allowed, number), rtol=1e-6, atol=1e-9):
            return f"Your result is that of scores divided by {name}."


@observe
def only_the_beginning(case, got, want):
    q, k, _, left = case.args
    if case.memory is not None or got.shape[-2] < 2:
        return None
    rows = np.isclose(got, want, rtol=1e-6, atol=1e-9).all(axis=-1).reshape(-1, got.shape[-2]).all(axis=0)
    full = np.arange(len(rows)) + k.shape[-2] - q.shape[-2] >= left
    bad = " They are NaN." if np.isnan(got).any() else ""
    if full.any() and not full.all() and rows[full].all():
        return (f"Right for all queries that have left = {left} keys before them, wrong for {(~rows).sum()} of the {(~full).sum()} near the beginning "
                f"that have fewer.{bad}")
    if full.any() and not full.all() and (rows == ~full).all():
        return (f"Right for the {(~full).sum()} queries near the beginning that have fewer than left = {left} keys before them, wrong for all "
                f"others: where does the window begin?{bad}")


@observe
def multiples_or_means(case, got, want):
    q, k, v, left = case.args
    if case.memory is not None or got.dtype.kind != "f" or not np.isfinite(got).all():
        return None
    seen = [slice(max(0, i + k.shape[-2] - q.shape[-2] - left), i + k.shape[-2] - q.shape[-2] + 1) for i in range(q.shape[-2])]
    if np.allclose(got, np.stack([v[..., each, :].mean(axis=-2) for each in seen], axis=-2), rtol=1e-6, atol=1e-9):
        return "Your out is the plain mean of the values in the window: q and k play no part in it."
    ratio = got / want
    if (np.ptp(ratio, axis=-1) < 1e-6 * np.abs(ratio).max(axis=-1)).all():
        last = ratio[..., -1, 0].flat[0]
        return f"The rows of your out are multiples of the right ones, {last:.4g} times in the last: what do the weights of a row sum to?"


@observe
def leaves_the_range(case, got, want):
    q, k, v, left = case.args
    if case.memory is not None or got.dtype.kind != "f" or not np.isfinite(got).all():
        return None
    low, high = v.min(axis=-2, keepdims=True), v.max(axis=-2, keepdims=True)
    far = (got < low - 1e-7 * (1 + np.abs(low))) | (got > high + 1e-7 * (1 + np.abs(high)))
    if far.any():
        return "Your out leaves the range of all values, which a weighted mean of them cannot."
    own = np.arange(q.shape[-2]) + k.shape[-2] - q.shape[-2]
    seen = [v[..., max(0, p - left):p + 1, :] for p in own]
    out = [i for i, x in enumerate(seen) if ((got[..., i, :] < x.min(axis=-2) - 1e-7) | (got[..., i, :] > x.max(axis=-2) + 1e-7)).any()]
    if out:
        return (f"Your result for query {out[0]} leaves the range of the values in its window (positions {max(0, own[out[0]] - left)} to {own[out[0]]}): "
                "something else has weight in it.")
