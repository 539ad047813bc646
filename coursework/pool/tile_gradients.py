"""Exercise: the five products of FlashAttention's backward pass, on one tile."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "One tile of the backward pass"
CHAPTER = "20_flash"
POINTS = 6
RETURNS = ("d_q", "d_k", "d_v")
PROMPT = r"""
Write `tile_gradients(q, k, v, d_out, lse, delta)`, what one tile adds to the gradients of attention {cite}`dao2023`. `q` (..., rows, dim_head) and
`d_out` (..., rows, dim_v) are some queries and the loss's gradient with respect to their results, `k` (..., columns, dim_head) and `v`
(..., columns, dim_v) some of the keys and values. For these queries and **all** keys of the sequence, `lse` (..., rows) is the logarithm of the sum of
exp(score), and `delta` (..., rows) the sum of `d_out` · out over the width, out being the finished result. Scores are $q \cdot k / \sqrt{d}$, d = dim_head.
Return `(d_q, d_k, d_v)`, this tile's share of each, in the shapes of `q`, `k` and `v`. There is no mask. (NumPy, any leading axes; the inputs stay as
they are.)
"""


def tile_gradients(q, k, v, d_out, lse, delta):
    # BEGIN SOLUTION
    scale = q.shape[-1] ** -0.5
    weights = np.exp(q @ k.swapaxes(-1, -2) * scale - lse[..., None])  # (..., rows, columns)
    d_v = weights.swapaxes(-1, -2) @ d_out
    d_weights = d_out @ v.swapaxes(-1, -2)
    d_scores = weights * (d_weights - delta[..., None])
    return d_scores @ k * scale, d_scores.swapaxes(-1, -2) @ q * scale, d_v
    # END SOLUTION


def _inputs(rng, s, *lead):
    q, d_out = rng.normal(size=(*lead, s.rows, s.dim_head)), rng.normal(size=(*lead, s.rows, s.dim_v))
    keys, values = (rng.normal(size=(*lead, 3 * s.columns, width)) for width in (s.dim_head, s.dim_v))
    scores = q @ keys.swapaxes(-1, -2) / s.dim_head**0.5
    lse = np.log(np.exp(scores).sum(axis=-1))
    out = np.exp(scores - lse[..., None]) @ values
    return q, keys[..., : s.columns, :], values[..., : s.columns, :], d_out, lse, (d_out * out).sum(axis=-1)


def cases(rng):
    s = sizes(rng, "batch heads rows columns dim_head dim_v")
    yield case("a tile of a longer sequence", *_inputs(rng, s), dims=s)
    yield case("leading axes", *_inputs(rng, s, s.batch, s.heads), dims=s)
    q, k, v, d_out, lse, delta = _inputs(rng, s)
    yield case("a tile of one key", q, k[:1], v[:1], d_out, lse, delta, dims={**vars(s), "columns": 1})
    yield case("values far from 0", q, k, v + 100, d_out, lse, delta + 100 * d_out.sum(axis=-1), dims=s)
    square = {**vars(s), "columns": s.rows, "dim_v": s.dim_head}
    yield case("as many keys as queries, as wide values as keys", *_inputs(rng, type(s)(**square)),
               dims={name: square[name] for name in ("batch", "heads", "dim_head")})
    shift = 9_000 + rng.normal(size=s.rows)
    raised = np.concatenate([q, shift[:, None] * (s.dim_head + 1) ** 0.5], axis=-1)
    lifted = np.concatenate([k, np.ones((s.columns, 1))], axis=-1)
    scores = raised @ lifted.T / (s.dim_head + 1) ** 0.5
    lse = scores.max(axis=-1) + 1
    yield case("scores and lse of 9,000", raised, lifted, v, d_out, lse, delta, dims={name: size for name, size in vars(s).items() if name != "dim_head"})
    yield case("scores and lse of -9,000", -raised, lifted, v, d_out, (-raised @ lifted.T / (s.dim_head + 1) ** 0.5).max(axis=-1) + 1, delta,
               dims={name: size for name, size in vars(s).items() if name != "dim_head"})


def _tile(q, k, v, d_out, lse, delta, *, weights=None, scale_in=None, scale_out=None, minus=None):
    scale = q.shape[-1] ** -0.5
    weights = np.exp(q @ k.swapaxes(-1, -2) * (scale if scale_in is None else scale_in) - lse[..., None]) if weights is None else weights
    d_scores = weights * (d_out @ v.swapaxes(-1, -2) - (delta[..., None] if minus is None else minus))
    scale = scale if scale_out is None else scale_out
    return d_scores @ k * scale, d_scores.swapaxes(-1, -2) @ q * scale, weights.swapaxes(-1, -2) @ d_out


def _softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@wrong("Your weights sum to 1 within the tile. They are shares of the whole row: what is subtracted before the power is `lse`, not something "
       "that you compute from the tile.")
def softmax_of_the_tile(q, k, v, d_out, lse, delta):
    return _tile(q, k, v, d_out, lse, delta, weights=_softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5))


@wrong("d_v is right, d_q and d_k are not: delta is missing. Raising one score lowers the other weights of the row, and that is what delta stands "
       "for.")
def without_delta(q, k, v, d_out, lse, delta):
    return _tile(q, k, v, d_out, lse, delta, minus=0)


@wrong("d_v is right. In d_q and d_k you subtract a delta of this tile, the sum of weights · d_weights over its keys; the sum goes over all keys of "
       "the row, and it is handed to you.")
def delta_of_the_tile(q, k, v, d_out, lse, delta):
    weights = np.exp(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5 - lse[..., None])
    return _tile(q, k, v, d_out, lse, delta, minus=(weights * (d_out @ v.swapaxes(-1, -2))).sum(axis=-1, keepdims=True))


@wrong("d_v is right, d_q and d_k are too large by √dim_head: scores were divided by it on the way forward, and so are their gradients.")
def no_scale_backward(q, k, v, d_out, lse, delta):
    return _tile(q, k, v, d_out, lse, delta, scale_out=1)


@wrong("d_v is right, d_q and d_k are divided by dim_head where it should be √dim_head: the scale counts once.")
def scale_twice(q, k, v, d_out, lse, delta):
    return _tile(q, k, v, d_out, lse, delta, scale_out=1 / q.shape[-1])


@wrong("The weights that you compute again use scores that are not divided by √dim_head.")
def no_scale_forward(q, k, v, d_out, lse, delta):
    with np.errstate(over="ignore", invalid="ignore"):
        return _tile(q, k, v, d_out, lse, delta, scale_in=1)


@wrong("Right for moderate scores; exp(score) and exp(lse) overflow on their own. Subtract before you take the power.")
def quotient_of_powers(q, k, v, d_out, lse, delta):
    with np.errstate(all="ignore"):
        weights = np.exp(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5) / np.exp(lse)[..., None]
        return _tile(q, k, v, d_out, lse, delta, weights=weights)


@wrong("Your weights mix two bases: `lse` is a natural logarithm here, so the power is exp(score − lse). For powers of two both are multiplied by "
       "log₂ e.")
def bases_mixed(q, k, v, d_out, lse, delta):
    weights = np.exp2(q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5 * np.log2(np.e) - lse[..., None])
    return _tile(q, k, v, d_out, lse, delta, weights=weights)


@wrong("Your weights are powers of two of score − lse, which is measured in powers of e: multiply by log₂ e, or use exp.")
def powers_of_two(q, k, v, d_out, lse, delta):
    weights = np.exp2(q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5 - lse[..., None])
    return _tile(q, k, v, d_out, lse, delta, weights=weights)


@wrong("d_scores lacks the weights: d_weights − delta has to be multiplied by them, number by number.")
def forgets_the_weights(q, k, v, d_out, lse, delta):
    d_scores, scale = d_out @ v.swapaxes(-1, -2) - delta[..., None], q.shape[-1] ** -0.5
    weights = np.exp(q @ k.swapaxes(-1, -2) * scale - lse[..., None])
    return d_scores @ k * scale, d_scores.swapaxes(-1, -2) @ q * scale, weights.swapaxes(-1, -2) @ d_out


@wrong("The sign of d_q and d_k is the wrong way round: delta minus d_weights.")
def sign(q, k, v, d_out, lse, delta):
    d_q, d_k, d_v = _tile(q, k, v, d_out, lse, delta)
    return -d_q, -d_k, d_v


@wrong("You change an array that was given: `-=` or `*=` wrote into it.")
def in_place(q, k, v, d_out, lse, delta):
    found = _tile(q, k, v, d_out, lse, delta)
    d_out -= delta[..., None]
    return found


@observe
def which_are_right(case, got, want):
    names = ("d_q", "d_k", "d_v")
    right = [np.allclose(a, b, rtol=1e-6, atol=1e-8) for a, b in zip(got, want, strict=True)]
    if any(right) and not all(right):
        good = " and ".join(name for name, ok in zip(names, right, strict=True) if ok)
        bad = " and ".join(name for name, ok in zip(names, right, strict=True) if not ok)
        return f"{good} {'is' if sum(right) == 1 else 'are'} right; the mistake is in {bad}."
    return None


@observe
def off_by_a_factor(case, got, want):
    for name, a, b in zip(("d_q", "d_k", "d_v"), got, want, strict=True):
        ratio = a.flat[0] / b.flat[0]
        if np.isfinite(ratio) and not np.isclose(ratio, 1) and np.allclose(a, ratio * b, rtol=1e-6):
            return f"Your {name} is {ratio:.4g} times what it should be, everywhere."
    return None
