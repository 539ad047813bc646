"""Exercise: one step of generation with a preallocated cache."""

import numpy as np

from coursework import case, observe, sizes, wrong
from coursework.running import Noticed

TITLE = "One token, one step"
CHAPTER = "18_memory"
POINTS, EDGE_POINTS = 5, 1
RETURNS = ("out", "the new length", "cache_k", "cache_v")
PROMPT = r"""
Write `kv_cache_step(cache_k, cache_v, length, q, k, v)`, one step of generating with a cache that was allocated once. `cache_k`
(..., capacity, dim_head) and `cache_v` (..., capacity, dim_v) hold the keys and values of the `length` tokens so far in their first
`length` places; what stands in the other places is undefined, NaN included. `q`, `k` (..., 1, dim_head) and `v` (..., 1, dim_v) belong
to the new token. **Write** its key and value into the caches (the arrays themselves, no copies), then let its query attend to all
tokens including itself, with scores divided by √dim_head. Return `(out, length + 1)`, with `out` (..., 1, dim_v). If the cache
is full, raise a `ValueError` and write nothing.
"""


def kv_cache_step(cache_k, cache_v, length, q, k, v):
    # BEGIN SOLUTION
    if length == cache_k.shape[-2]:
        raise ValueError(f"the cache is full: {length} tokens")
    cache_k[..., length, :] = k[..., 0, :]
    cache_v[..., length, :] = v[..., 0, :]
    length = length + 1
    keys, values = cache_k[..., :length, :], cache_v[..., :length, :]
    scores = q @ keys.swapaxes(-1, -2) / q.shape[-1] ** 0.5  # (..., 1, length)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ values, length
    # END SOLUTION


def drive(f, cache_k, cache_v, length, q, k, v):
    """Feed the tokens one by one into copies of the caches; the caches are part of what is compared."""
    cache_k, cache_v, outs = cache_k.copy(), cache_v.copy(), []
    for t in range(q.shape[-2]):
        step = slice(t, t + 1)
        before = cache_k.copy(), cache_v.copy()
        try:
            result = f(cache_k, cache_v, length, q[..., step, :], k[..., step, :], v[..., step, :])
        except ValueError:
            full = length >= before[0].shape[-2]
            if full and not all(map(np.array_equal, before, (cache_k, cache_v), (True, True))):
                raise Noticed("the cache was full, and something was written into it before the ValueError") from None
            raise
        if not isinstance(result, tuple) or len(result) != 2:
            raise Noticed(f"kv_cache_step returns {_kind(result)}, expected two results: out and the new length")
        out, length = result
        if not isinstance(length, int | np.integer):
            raise Noticed(f"the second result is {_kind(length)}, expected the new length, a whole number")
        if not isinstance(out, np.ndarray):
            raise Noticed(f"the first result is {_kind(out)}, expected the array out")
        outs.append(out)
    return np.concatenate(outs, axis=-2) if len(outs) > 1 and outs[0].ndim > 1 else outs[0], int(length), cache_k, cache_v


def _kind(value):
    return f"{len(value)} results" if isinstance(value, tuple) else f"one {type(value).__name__}" if value is not None else "None"


def cases(rng):
    s = sizes(rng, "batch heads capacity dim_head dim_v", 5, 11)

    def inputs(length, *lead, steps=1, unused=np.nan):
        caches = [rng.normal(size=(*lead, s.capacity, width)) * 1.5 for width in (s.dim_head, s.dim_v)]
        for cache in caches:
            cache[..., length:, :] = rng.normal(size=cache[..., length:, :].shape) * 3 if unused is None else unused
        return [*caches, length, *(rng.normal(size=(*lead, steps, width)) * 1.5 for width in (s.dim_head, s.dim_head, s.dim_v))]

    yield case("a cache that is half full, zeros in its other places", *inputs(3, unused=0.0), dims=s)
    yield case("left-over numbers in the unused places", *inputs(2, unused=None), dims=s)
    yield case("leading axes", *inputs(3, s.batch, s.heads, unused=0.0), dims=s)
    yield case("the first token", *inputs(0, unused=0.0), dims=s)
    yield case("NaN in the unused places", *inputs(2), dims=s)
    yield case("four tokens one after the other", *inputs(1, s.heads, steps=4), dims=s)
    yield case("the last free place", *inputs(s.capacity - 1), dims=s)
    *before, q, k, v = inputs(3, s.batch, s.heads, unused=0.0)
    yield case("large scores, in each head others", *before, q * 3000, k * 3000, v, dims=s)
    yield case("a cache that is full", *inputs(s.capacity), edge=True, raises=ValueError)


def _attend(q, keys, values, scale=None, rowwise=True):
    scores = q @ keys.swapaxes(-1, -2) / (q.shape[-1] ** 0.5 if scale is None else scale)
    powers = np.exp(scores - scores.max(axis=-1 if rowwise else None, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=-1, keepdims=True) @ values


def _step(cache_k, cache_v, length, q, k, v, at=0, write_k=True, write_v=True, seen=1, plus=1, scale=None, rowwise=True):
    if length == cache_k.shape[-2]:
        raise ValueError("full")
    if write_k:
        cache_k[..., length + at, :] = k[..., 0, :]
    if write_v:
        cache_v[..., length + at, :] = v[..., 0, :]
    end = cache_k.shape[-2] if seen is None else length + seen
    return _attend(q, cache_k[..., :end, :], cache_v[..., :end, :], scale, rowwise), length + plus


@wrong("The new token does not see itself: its query attends to the tokens before it only, and with an empty cache to nothing at all.")
def misses_itself(*args):
    return _step(*args, seen=0)


@wrong("Your query attends to the whole capacity. The places beyond the tokens so far hold nothing that may be seen: even zeros take "
       "softmax weight.")
def whole_capacity(*args):
    return _step(*args, seen=None)


@wrong("`out` is right, but the caches are as they were: you build a longer array, or write into a copy, and the caller's cache never "
       "hears of the token.")
def concatenates(cache_k, cache_v, length, q, k, v):
    if length == cache_k.shape[-2]:
        raise ValueError("full")
    keys = np.concatenate([cache_k[..., :length, :], k], axis=-2)
    values = np.concatenate([cache_v[..., :length, :], v], axis=-2)
    return _attend(q, keys, values), length + 1


@wrong("You return the length you were given. The next step would overwrite the token you just wrote.")
def same_length(*args):
    return _step(*args, plus=0)


@wrong("You write one place too early: over the latest token that was in the cache. Positions count from 0; where is the first free "
       "place?")
def one_too_early(*args):
    return _step(*args, at=-1)


@wrong("You always write into the last place of the cache. The first free place is the one behind the tokens so far.")
def at_the_end(cache_k, cache_v, length, q, k, v):
    return _step(cache_k, cache_v, length, q, k, v, at=cache_k.shape[-2] - 1 - length)


@wrong("You subtract the largest score of the whole array. Where it is far above the scores of another head, all powers of that head are "
       "0, and 0 / 0 is NaN: take the largest of each row.")
def one_maximum(*args):
    return _step(*args, rowwise=False)


@wrong("The key is written, the value is not: the query finds what used to stand in that place of cache_v.")
def forgets_the_value(*args):
    return _step(*args, write_v=False)


@wrong("You move all tokens one place forward and write the new one last. That copies the whole cache in every step; the task keeps "
       "token i in place i.")
def rolls(cache_k, cache_v, length, q, k, v):
    if length == cache_k.shape[-2]:
        raise ValueError("full")
    cache_k[...], cache_v[...] = np.roll(cache_k, -1, axis=-2), np.roll(cache_v, -1, axis=-2)
    cache_k[..., -1:, :], cache_v[..., -1:, :] = k, v
    return _attend(q, cache_k[..., -length - 1:, :], cache_v[..., -length - 1:, :]), length + 1


@wrong("Your scores are not divided by √dim_head.")
def no_scale(*args):
    return _step(*args, scale=1)


@wrong("Your scores are divided by dim_head, not by its square root.")
def scaled_by_the_width(cache_k, cache_v, length, q, k, v):
    return _step(cache_k, cache_v, length, q, k, v, scale=q.shape[-1])


@wrong("Right but for a full cache: a slice behind the end is empty, NumPy writes nothing into it and says nothing. The task asks for a "
       "ValueError.")
def silent_when_full(cache_k, cache_v, length, q, k, v):
    cache_k[..., length:length + 1, :] = k
    cache_v[..., length:length + 1, :] = v
    return _attend(q, cache_k[..., :length + 1, :], cache_v[..., :length + 1, :]), length + 1


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)


@observe
def caches(case, got, want):
    length = case.args[2]
    for cache, before, after, new in (("cache_k", case.args[0], got[2], case.args[4]), ("cache_v", case.args[1], got[3], case.args[5])):
        changed = ~_near(before, after).all(axis=-1)
        places = changed.reshape(-1, changed.shape[-1]).any(axis=0)
        if not places.any():
            return f"Nothing has been written into {cache}: after the call it is as before."
        old = np.flatnonzero(places[:length])
        if len(old):
            return f"Place {old[0]} of {cache} held one of the {length} tokens so far, and your step has overwritten it."
        far = np.flatnonzero(places[length + new.shape[-2]:]) + length + new.shape[-2]
        if len(far):
            return f"Your step writes into place {far[0]} of {cache}. With {length} tokens before, they stand in places 0 to {length - 1}."
        first = after[..., length, :]
        if not _near(first, new[..., 0, :]).all():
            for name, other in (("q", case.args[3]), ("k", case.args[4]), ("v", case.args[5])):
                if other.shape[-1] == first.shape[-1] and other is not new and _near(first, other[..., 0, :]).all():
                    return f"In place {length} of {cache} stands the new token's {name}."
            return f"What stands in place {length} of {cache} after the call is not the new token's {'key' if cache == 'cache_k' else 'value'}."


@observe
def length_returned(case, got, want):
    if got[1] != want[1]:
        steps = case.args[3].shape[-2]
        return f"There were {case.args[2]} tokens and {'one has' if steps == 1 else f'{steps} have'} been added; the length you return is {got[1]}."


@observe
def other_keys(case, got, want):
    cache_k, cache_v, length, q = case.args[:4]
    out = got[0]
    if q.shape[-2] > 1 or out.dtype.kind != "f":
        return None
    full_k, full_v = want[2], want[3]
    capacity = cache_k.shape[-2]
    if np.isnan(out).any() and np.isnan(cache_k).any():
        return f"The places {length + 1} to {capacity - 1} of these caches hold NaN, and it has reached your out." if length + 1 < capacity else None
    if _near(out, _attend(q, cache_k[..., :length + 1, :], cache_v[..., :length + 1, :])).all():
        return f"Your out is that of the caches as they were before the call, with what stood in place {length} then."
    for first in range(capacity):
        for last in range(first, capacity):
            if (first, last) != (0, length) and _near(out, _attend(q, full_k[..., first:last + 1, :], full_v[..., first:last + 1, :])).all():
                which = f"the places {first} to {last}" if last > first else f"place {first} alone"
                return f"Your out is that of attending to {which}; with the new token the cache holds {length + 1}, in places 0 to {length}."


@observe
def other_scale(case, got, want):
    length, q = case.args[2:4]
    if q.shape[-2] > 1:
        return None
    named = {"1 (no scale at all)": 1.0, "dim_head": q.shape[-1], "√length": max(length, 1) ** 0.5, "√(length + 1)": (length + 1) ** 0.5,
             "√capacity": want[2].shape[-2] ** 0.5, "√dim_v": want[3].shape[-1] ** 0.5}
    for name, number in named.items():
        if _near(got[0], _attend(q, want[2][..., :length + 1, :], want[3][..., :length + 1, :], number)).all():
            return f"Your out is that of scores divided by {name}."


@observe
def caches_are_right(case, got, want):
    if all(_near(g, w).all() for g, w in zip(got[2:], want[2:], strict=True)) and np.isfinite(got[0]).all():
        off = np.abs(got[0] - want[0]).max() / np.abs(want[0]).max()
        if off > 1e-3:
            return "Both caches and the length are right after your call; out is not. What does the query attend to, and with which weights?"
