"""Exercise: one step of linear attention whose state overwrites and forgets (the gated delta rule)."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "A state that corrects itself"
CHAPTER = "17_linear"
POINTS, EDGE_POINTS = 4, 1
RETURNS = ("out", "the new state")
PROMPT = r"""
A linear attention with the delta rule {cite}`schlag2021` writes into its state only what the state does not say yet. Write
`delta_rule_step(q, k, v, beta, decay, state)`, one step of it with forgetting: first the whole `state` (..., dim_head, dim_v) is multiplied by the
number `decay`; then the faded state is asked what it says to the key, k · state; the difference between `v` and that, times the number `beta`, is
written under the key (an outer product is added); then the query reads the new state, q · state. `q` and `k` are (..., dim_head), `v` is
(..., dim_v); `beta` and `decay` are arrays (...) of numbers from 0 to 1. Keys come as unit vectors. Return `(out, state)`: `out` (..., dim_v), and a
**new** state. There is no feature map, no scale and no division by a sum.
"""


def delta_rule_step(q, k, v, beta, decay, state):
    # BEGIN SOLUTION
    state = decay[..., None, None] * state
    said = (k[..., None, :] @ state)[..., 0, :]  # (..., dim_v)
    change = beta[..., None] * (v - said)
    state = state + k[..., :, None] * change[..., None, :]
    return (q[..., None, :] @ state)[..., 0, :], state
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads dim_head dim_v")

    def token(*lead, dim_head=s.dim_head, dim_v=s.dim_v):
        q, k, v = (rng.normal(size=(*lead, width)) for width in (dim_head, dim_head, dim_v))
        k = k / np.linalg.norm(k, axis=-1, keepdims=True)
        beta, decay = (rng.uniform(low, high, size=lead) for low, high in ((0.3, 0.6), (0.7, 0.9)))
        return [q, k, v, beta, decay, rng.normal(size=(*lead, dim_head, dim_v))]

    yield case("one head", *token(), dims=s)
    yield case("leading axes", *token(s.batch, s.heads), dims=s)
    q, k, v, beta, decay, state = token(s.heads)
    one = np.ones_like(beta)
    yield case("nothing is forgotten: decay 1", q, k, v, beta, one, state, dims=s)
    yield case("the new value counts alone: beta 1", q, k, v, one, decay, state, dims=s)
    yield case("beta and decay 1, and the query is the key", k.copy(), k, v, one, one, state, dims=s)
    yield case("a state far from 0", q, k, v, beta, decay, state + 40, dims=s)
    yield case("nothing is written: beta 0", q, k, v, 0 * one, decay, state, edge=True, dims=s)
    yield case("everything is forgotten: decay 0", q, k, v, beta, 0 * one, state, edge=True, dims=s)
    yield case("the first token: a state of zeros", q, k, v, beta, decay, np.zeros_like(state), edge=True, dims=s)


def _read(q, state):
    return (q[..., None, :] @ state)[..., 0, :]


def _step(q, k, v, beta, decay, state, fade_first=True, fade=True, new=1, old=1, ask=None, beta_v=True, beta_old=True):
    """The solution with one of its parts replaced."""
    beta, decay = beta[..., None], decay[..., None, None]
    faded = decay * state if fade else state
    said = _read(k if ask is None else ask, faded if fade_first else state)
    change = new * (beta if beta_v else 1) * v - old * (beta if beta_old else 1) * said
    state = faded + k[..., :, None] * change[..., None, :]
    return _read(q, state), state


@wrong("You add the new value to what the state says already. The difference between `v` and what is there is to be written.")
def adds(*args):
    return _step(*args, old=0)


@wrong("You ask the state what it says before it has faded, and so take away more than is left of it.")
def asks_before_fading(*args):
    return _step(*args, fade_first=False)


@wrong("What the state says has faded twice in your difference: asked of the faded state, its answer has faded already.")
def answer_fades_twice(q, k, v, beta, decay, state):
    return _step(q, k, v, beta, decay, state, old=decay[..., None])


@wrong("Nothing fades in your state: `decay` has to come in before anything is asked or written.")
def never_fades(*args):
    return _step(*args, fade=False)


@wrong("You take away the whole of what the state says, and write `beta` times the new value. `beta` belongs to the difference: with beta 0 the "
       "state keeps what it says.")
def beta_on_the_value_only(*args):
    return _step(*args, beta_old=False)


@wrong("You write the whole of the new value, and take away `beta` times the old. `beta` belongs to the difference of the two.")
def beta_on_the_old_only(*args):
    return _step(*args, beta_v=False)


@wrong("`beta` plays no part: the whole difference is written, whatever it says.")
def no_beta(*args):
    return _step(*args, beta_v=False, beta_old=False)


@wrong("The sign of the difference is turned round: with beta 1 the state should say `v` to the key, and yours moves away from it.")
def sign_turned(*args):
    return _step(*args, new=-1, old=-1)


@wrong("You ask the state with the query. What is overwritten is what it says to the key.")
def asks_with_the_query(q, *rest):
    return _step(q, *rest, ask=q)


@wrong("Your new state is right. Your query has read the state as it was before: it should see its own token, too.")
def reads_the_old_state(q, k, v, beta, decay, state):
    return _read(q, state), _step(q, k, v, beta, decay, state)[1]


@wrong("Your new state is right. Your query has read the faded state, before anything was written.")
def reads_before_writing(q, k, v, beta, decay, state):
    return _read(q, decay[..., None, None] * state), _step(q, k, v, beta, decay, state)[1]


@wrong("The new token fades in the step in which it is written: you multiply by `decay` at the end. First the state fades, then it is asked "
       "and written.")
def fades_at_the_end(q, k, v, beta, decay, state):
    state = decay[..., None, None] * _step(q, k, v, beta, np.ones_like(decay), state)[1]
    return _read(q, state), state


@wrong("You mix the old state and the new token by `beta`: the whole state shrinks by 1 - beta. Only what the state says to this key "
       "is to be overwritten.")
def shrinks_all(q, k, v, beta, decay, state):
    state = (1 - beta)[..., None, None] * decay[..., None, None] * state + k[..., :, None] * (beta[..., None] * v)[..., None, :]
    return _read(q, state), state


@wrong("`beta` and `decay` are exchanged: `beta` says how much is written, `decay` how much stays.")
def exchanged(q, k, v, beta, decay, state):
    return _step(q, k, v, decay, beta, state)


@wrong("Both results are right, in the wrong order: `out` first, then the state.")
def wrong_order(*args):
    return _step(*args)[::-1]


@wrong("Your state is right. It is read with the key; the query is what asks.")
def reads_with_the_key(q, k, v, beta, decay, state):
    state = _step(q, k, v, beta, decay, state)[1]
    return _read(k, state), state


def _near(a, b):
    return np.allclose(a, b, rtol=1e-6, atol=1e-9)


def _finite(got):
    return all(x.dtype.kind == "f" and np.isfinite(x).all() for x in got)


@observe
def how_the_state_is_made(case, got, want):
    """The new state as so much of the old one and, under the key, so much of v and of what the old state says."""
    _, k, v, beta, decay, state = case.args
    if not _finite(got) or _near(got[1], want[1]):
        return None
    new, k, v, state, right = (x.reshape(-1, *x.shape[x.ndim - n:]) for x, n in ((got[1], 2), (k, 1), (v, 1), (state, 2), (want[1], 2)))
    at = next(i for i in range(len(new)) if not _near(new[i], right[i]))
    new, k, v, state, beta, decay = new[at], k[at], v[at], state[at], beta.flat[at], decay.flat[at]
    if not state.any():
        x = float(np.median(k @ new / v))
        return (f"In an empty state only k and x · v are to be found afterwards; yours has x = {x:.4g} with beta = {beta:.3g}."
                if _near(np.outer(k, x * v), new) else "From an empty state yours becomes something else than k, v and a factor.")
    parts = {"the old state": state, "(k, v)": np.outer(k, v), "(k, what the old state says to k)": np.outer(k, k @ state)}
    columns = np.stack([x.ravel() for x in parts.values()], axis=-1)
    shares, *_ = np.linalg.lstsq(columns, new.ravel(), rcond=None)
    if not _near(columns @ shares, new.ravel()):
        return (f"Your new state is made of something else than the old state, the product of k and v, and that of k and what the old state says to k "
                f"(beta = {beta:.3g}, decay = {decay:.3g}).")
    said = ", ".join(f"{share:.4g} · {name}" for name, share in zip(parts, shares, strict=True) if abs(share) > 1e-9)
    return f"Your new state is the sum of {said}; the pairs are outer products. Here beta = {beta:.3g} and decay = {decay:.3g}."


@observe
def what_was_read(case, got, want):
    q, k, _, _, decay, state = case.args
    if not _finite(got) or not _near(got[1], want[1]) or _near(got[0], want[0]):
        return None
    reads = {"the old state answers to q": _read(q, state), "the faded state answers to q, before anything is written": _read(q, decay[..., None, None] * state),
             "the new state answers to k": _read(k, want[1]), "the old state answers to k": _read(k, state),
             "the new state, faded once more, answers to q": _read(q, decay[..., None, None] * want[1])}
    for name, other in reads.items():
        if _near(got[0], other):
            return f"Your new state is right; your out is what {name}."
    scale = float(np.median(got[0] / want[0]))
    if _near(got[0], scale * want[0]):
        return f"Your new state is right; your out is {scale:.4g} times what it answers to q."
    return "Your new state is right; your out is not what it answers to q."


@observe
def read_and_state_disagree(case, got, want):
    if _finite(got) and not _near(got[0], _read(case.args[0], got[1])):
        return "Your out is not what your own new state answers to q."
