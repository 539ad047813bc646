"""Exercise: one step of linear attention whose state forgets, each key channel at its own rate."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "A state that forgets"
CHAPTER = "17_linear"
POINTS = 3
RETURNS = ("out", "the new state")
PROMPT = r"""
Gated linear attention {cite}`yang2023` keeps of the past one matrix per head, `state` (..., dim_head, dim_v), and lets it fade before each new
token is written: row i, which belongs to number i of keys and queries, is multiplied by `decay[..., i]`, a number from 0 (forget all) to 1
(forget nothing); then the outer product of key and value is added; then the query reads, q · state. Write
`gated_linear_step(q, k, v, decay, state)` for one token: `q`, `k` and `decay` are (..., dim_head), `v` is (..., dim_v). Return `(out, state)`:
`out` (..., dim_v), and a **new** state. There is no feature map, no scale and no division by a sum.
"""


def gated_linear_step(q, k, v, decay, state):
    # BEGIN SOLUTION
    written = k[..., :, None] * v[..., None, :]  # (..., dim_head, dim_v)
    state = decay[..., :, None] * state + written
    out = q[..., None, :] @ state  # (..., 1, dim_v)
    return out[..., 0, :], state
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads dim_head dim_v")

    def token(*lead, dim_v=s.dim_v):
        q, k, v = (rng.normal(size=(*lead, width)) for width in (s.dim_head, s.dim_head, dim_v))
        return [q, k, v, rng.uniform(0.2, 0.9, size=q.shape), rng.normal(size=(*lead, s.dim_head, dim_v))]

    yield case("one head", *token(), dims=s)
    yield case("leading axes", *token(s.batch, s.heads), dims=s)
    yield case("values as wide as keys", *token(dim_v=s.dim_head), dims={"dim_head": s.dim_head})
    q, k, v, decay, state = token(s.heads)
    yield case("nothing is forgotten: decay 1", q, k, v, np.ones_like(decay), state, dims=s)
    yield case("everything is forgotten: decay 0", q, k, v, np.zeros_like(decay), state, dims=s)
    yield case("the first token: a state of zeros", q, k, v, decay, np.zeros_like(state), dims=s)
    yield case("a state far from 0", q, k, v, decay, state + 40, dims=s)
    yield case("one number per key, one per value", *(x[..., :1] for x in (q, k, v, decay)), state[..., :1, :1])


def _read(q, state):
    return (q[..., None, :] @ state)[..., 0, :]


def _written(k, v):
    return k[..., :, None] * v[..., None, :]


@wrong("Your state does not fade: what was written long ago counts as much as the new token. `decay` has to come in.")
def never_fades(q, k, v, decay, state):
    state = state + _written(k, v)
    return _read(q, state), state


@wrong("The new token fades in the step in which it is written. First the old state fades, then the token is added.")
def fades_the_new_token(q, k, v, decay, state):
    state = decay[..., :, None] * (state + _written(k, v))
    return _read(q, state), state


@wrong("You multiply columns of the state by `decay`. It has a number for each key channel: which axis of the state is that?")
def columns_fade(q, k, v, decay, state):
    state = decay[..., None, :] * state + _written(k, v)
    return _read(q, state), state


@wrong("All rows of your state fade alike, by the mean of `decay`. Each row has its own rate.")
def one_rate_for_all(q, k, v, decay, state):
    state = decay.mean(axis=-1)[..., None, None] * state + _written(k, v)
    return _read(q, state), state


@wrong("Your new state is right. Your query has read the old one: it should see its own token, too.")
def reads_the_old_state(q, k, v, decay, state):
    return _read(q, state), decay[..., :, None] * state + _written(k, v)


@wrong("Your new state is right. Your query reads it faded, but before its own token has been added.")
def reads_before_writing(q, k, v, decay, state):
    faded = decay[..., :, None] * state
    return _read(q, faded), faded + _written(k, v)


@wrong("You write the new token with 1 - decay, as a moving average does. Here it is written in full, however much is forgotten.")
def moving_average(q, k, v, decay, state):
    state = decay[..., :, None] * state + (1 - decay)[..., :, None] * _written(k, v)
    return _read(q, state), state


@wrong("Your rates are turned round: decay 1 should forget nothing, and yours forgets everything.")
def forgets_the_complement(q, k, v, decay, state):
    state = (1 - decay)[..., :, None] * state + _written(k, v)
    return _read(q, state), state


@wrong("You take exp of `decay`, as if it were a logarithm. It is the factor itself, from 0 to 1.")
def as_a_logarithm(q, k, v, decay, state):
    state = np.exp(decay)[..., :, None] * state + _written(k, v)
    return _read(q, state), state


@wrong("Both results are right, in the wrong order: `out` first, then the state.")
def wrong_order(*args):
    return gated_linear_step(*args)[::-1]


@wrong("Your state is right. It is read with the key; the query is what asks.")
def reads_with_the_key(q, k, v, decay, state):
    state = decay[..., :, None] * state + _written(k, v)
    return _read(k, state), state


@wrong("Your query is divided by √dim_head. In this task nothing is scaled.")
def scaled(q, k, v, decay, state):
    out, state = gated_linear_step(q, k, v, decay, state)
    return out / q.shape[-1] ** 0.5, state


@wrong("The outer product is transposed: rows of the state belong to numbers of the key, columns to numbers of the value.")
def transposed_product(q, k, v, decay, state):
    state = decay[..., :, None] * state + v[..., :, None] * k[..., None, :]
    return _read(q, state), state


@wrong("`decay` fades the query before it reads, not the state: the new state has forgotten nothing, and the token just written fades, too.")
def fades_the_query(q, k, v, decay, state):
    state = state + _written(k, v)
    return _read(q * decay, state), state


def _near(a, b):
    return np.allclose(a, b, rtol=1e-6, atol=1e-9)


def _finite(got):
    return all(x.dtype.kind == "f" and np.isfinite(x).all() for x in got)


@observe
def how_a_row_is_made(case, got, want):
    """Each row of the new state as so much of the old row and so much of the new token, where that explains it."""
    _, k, v, decay, state = case.args
    if not _finite(got) or _near(got[1], want[1]) or state.shape[-1] < 3 or not state.any():
        return None
    dim_head, dim_v = state.shape[-2:]
    mine, old, rate, key, value = (x.reshape(-1, *x.shape[x.ndim - n:])[0] for x, n in ((got[1], 2), (state, 2), (decay, 1), (k, 1), (v, 1)))
    bad = np.flatnonzero(~np.isclose(mine, want[1].reshape(-1, dim_head, dim_v)[0], rtol=1e-6, atol=1e-9).all(axis=-1))
    if not len(bad):
        return None
    i = int(bad[0])
    shares, *_ = np.linalg.lstsq(np.stack([old[i], key[i] * value], axis=-1), mine[i], rcond=None)
    if not _near(shares[0] * old[i] + shares[1] * key[i] * value, mine[i]):
        return f"Row {i} of your new state is no mixture of row {i} of the old one and of k[{i}] · v: what else has come into it?"
    return (f"Row {i} of your new state is {shares[0]:.3g} times that of the old one plus {shares[1]:.3g} times k[{i}] · v, with decay[{i}] = "
            f"{rate[i]:.3g}. {len(bad)} of {dim_head} rows differ from what is asked for.")


@observe
def what_was_read(case, got, want):
    q, k, v, decay, state = case.args
    if not _finite(got) or not _near(got[1], want[1]) or _near(got[0], want[0]):
        return None
    faded, token = decay[..., :, None] * state, _written(k, v)
    reads = {"the old state": state, "the faded state without the new token": faded, "the new token's outer product alone": token,
             "a state that has not faded": state + token, "a state in which the new token has faded, too": decay[..., :, None] * (state + token),
             "a state that has faded twice": decay[..., :, None] ** 2 * state + token,
             "the new state, faded once more": decay[..., :, None] * want[1]}
    for name, other in reads.items():
        if _near(got[0], _read(q, other)):
            return f"Your new state is right; your out is what {name} answers to q."
    for name, other in (("k", k), ("decay", decay), ("q · decay", q * decay)):
        if _near(got[0], _read(other, want[1])):
            return f"Your new state is right; your out is what it answers to {name} instead of q."
    scale = float(np.median(got[0] / want[0]))
    if _near(got[0], scale * want[0]):
        return f"Your new state is right; your out is {scale:.4g} times what it answers to q."
    return "Your new state is right; your out is not what it answers to q."


@observe
def read_and_state_disagree(case, got, want):
    if _finite(got) and not _near(got[0], _read(case.args[0], got[1])):
        return "Your out is not what your own new state answers to q."
