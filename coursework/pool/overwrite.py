"""Exercise: write into a sum of outer products so that the last value counts (the delta rule)."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "A state that can change its mind"
CHAPTER = "01_why_attention"
POINTS = 3
PROMPT = r"""
A story says *a 3* and later *a 5*. A state (dim, values) that sums the outer products of keys and values answers a key `k` with
`k @ state`, so it returns the mixture of both. Write `overwrite(state, k, v)`, which returns a **new** state (dim, values) that answers
the unit vector `k` (dim,) with exactly `v` (values,), whatever it answered before, and answers every vector perpendicular to `k` as before.
`state` itself stays as it is. Hint: what does the old state say to `k`, and what is missing?
"""


def overwrite(state, k, v):
    # BEGIN SOLUTION
    return state + np.outer(k, v - k @ state)      # add what is missing
    # END SOLUTION


def _unit(rng, dim):
    k = rng.normal(size=dim)
    return k / np.linalg.norm(k)


def cases(rng):
    s = sizes(rng, "dim values")
    yield case("any state, any unit vector", rng.normal(size=(s.dim, s.values)), _unit(rng, s.dim), rng.normal(size=s.values), dims=s)
    one_hot = np.eye(s.dim)[rng.integers(s.dim)]
    yield case("a one-hot key", rng.normal(size=(s.dim, s.values)), one_hot, rng.normal(size=s.values), dims=s)
    basis = np.linalg.qr(rng.normal(size=(s.dim, s.dim)))[0]
    stored = basis[:2].T @ rng.normal(size=(2, s.values))
    yield case("a key that is stored already", stored, basis[0], rng.normal(size=s.values), dims=s)
    yield case("a key perpendicular to all that is stored", stored, basis[2], rng.normal(size=s.values), dims=s)
    yield case("an empty state", np.zeros((s.dim, s.values)), _unit(rng, s.dim), rng.normal(size=s.values), dims=s)
    yield case("as many values as dimensions", rng.normal(size=(s.dim, s.dim)), _unit(rng, s.dim), rng.normal(size=s.dim),
               dims={"dim": s.dim})
    yield case("a state far from 0", 100 + rng.normal(size=(s.dim, s.values)), _unit(rng, s.dim), rng.normal(size=s.values), dims=s)
    yield case("one dimension, one value", rng.normal(size=(1, 1)), np.array([-1.0]), rng.normal(size=1))


@wrong("You add the new value to what is there: asked for `k`, the state answers the old value plus the new one. What has to be "
       "taken away from `v` before you add it?")
def adds(state, k, v):
    return state + np.outer(k, v)


@wrong("The new state knows `k` and nothing else: everything that was stored for other vectors is gone. Start from the old state.")
def replaces(state, k, v):
    return np.outer(k, v) + 0 * state


@wrong("The old answer to `k` is erased, and `v` is not written in its place: the new state answers `k` with zeros.")
def erases(state, k, v):
    return state - np.outer(k, k @ state)


@wrong("The values come out right, but the state that was handed in is changed: `+=` writes into the caller's array. "
       "Return a new one.")
def in_place(state, k, v):
    state += np.outer(k, v - k @ state)
    return state


@wrong("You write `v` into the row where `k` is largest. That is right for a one-hot key only: any other unit vector has a part in "
       "every row of the state.")
def writes_a_row(state, k, v):
    new = state.copy()
    new[np.argmax(k)] = v
    return new


@wrong("You take `state @ k` for the old answer. Keys belong to the rows of the state (dim, values): which product "
       "of `k` and `state` has one number per value?")
def asks_the_columns(state, k, v):
    return state + np.outer(k, v - state @ k)


@wrong("The old answer goes in with the wrong sign: asked for `k`, the new state says `v` plus **twice** the old answer.")
def wrong_sign(state, k, v):
    return state + np.outer(k, v + k @ state)


@wrong("The old answer is subtracted from every row of the state, so that all vectors notice. Take it away in the direction of `k` alone.")
def subtracts_everywhere(state, k, v):
    return state - k @ state + np.outer(k, v)


@wrong("You have gone half of the way: asked for `k`, the new state answers the mean of the old value and the new one.")
def halfway(state, k, v):
    return state + np.outer(k, v - k @ state) / 2


@wrong("What was stored is scaled down in every direction when something new is written. Vectors perpendicular to `k` "
       "must be answered as before.")
def decays(state, k, v):
    return state - k @ k * state / len(k) + np.outer(k, v - k @ state)


def _same(a, b):
    return np.allclose(a, b, rtol=1e-8, atol=1e-9)


def _rounding(a, b):
    return np.abs(a - b).max() < 1e-3 * (np.abs(b).max() + 1e-3)      # lower precision, a small constant: said elsewhere


def _short(row):
    shown = ", ".join(f"{number:.3g}" for number in row[:3])
    return f"[{shown}{', ...' if len(row) > 3 else ''}]"


@observe
def answer_to_k(case, got, want):
    state, k, v = case.args
    before, now = k @ state, k @ got
    if _rounding(now, v) or not np.isfinite(now).all():
        return None
    for what, says in ((before, "what the old state answered"), (before + v, "the old answer plus `v`"),
                       (v - before, "`v` minus the old answer"), (before - v, "the old answer minus `v`"),
                       ((before + v) / 2, "the mean of the old answer and `v`"), (0 * v, "zeros"), (-v, "minus `v`")):
        if _same(now, what):
            return f"Asked for `k`, your new state answers {says}; it should answer exactly `v`."
    way = (now - before) @ (v - before) / ((v - before) @ (v - before))
    if _same(now, before + way * (v - before)) and len(v) > 1:
        return f"Asked for `k`, your new state goes {way:.3g} of the way from the old answer to `v`; it should go all of it."
    return f"Asked for `k`, your new state answers {_short(now)}; it should answer `v`, that is {_short(v)}."


def _others(case, got):
    """What the old and the new state say to everything perpendicular to k; None if k has no such company."""
    state, k, _ = case.args
    others = np.eye(len(k)) - np.outer(k, k)
    before, now = others @ state, others @ got
    return None if _rounding(now, before) or not np.isfinite(now).all() else (before, now)


@observe
def others_scaled(case, got, want):
    seen = _others(case, got)
    if seen is None:
        return None
    before, now = seen
    if _same(now, 0 * now):
        return "`k` is answered right, but vectors perpendicular to `k` now get zeros: what the state knew of them is lost."
    big = np.abs(before) > 1e-6
    ratio = np.median(now[big] / before[big]) if big.any() else np.nan
    if np.isfinite(ratio) and _same(now, ratio * before):
        return f"`k` is answered right, but vectors perpendicular to `k` get {ratio:.3g} times the answer they got before."
    return None


@observe
def others_notice(case, got, want):
    seen = _others(case, got)
    if seen is None:
        return None
    before, now = seen
    rows = (np.abs(got - case.args[0]) > 1e-9).any(axis=1)
    only = f" Your function has changed row {np.argmax(rows)} of the state and no other." if rows.sum() == 1 < rows.size else ""
    return ("`k` is answered right, but vectors perpendicular to `k` are answered differently than before "
            f"(by up to {np.abs(now - before).max():.2g}).{only}")
