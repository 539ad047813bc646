"""Exercise: find out, by calls alone, which tokens a layer lets see which."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Who sees whom?"
CHAPTER = "05_self_attention"
POINTS = 5
PROMPT = r"""
A test that finds leaks. Write `who_sees_whom(layer, x)`: `layer` is any function from token vectors (seq, dim) to results (seq, dim_v).
Return a boolean array (seq, seq), True at (i, j) if the result of token $i$ changes when token $j$ is replaced by another vector of about
the same size. Use nothing but calls of `layer`, and leave `x` as it was. A change counts if any number moves by more than $10^{-9}$, up or
down. A layer may look at the direction of a token alone, or take the mean of its numbers away first: a vector twice as long, or with 1
added to every number, may be the same token to it.
"""


def who_sees_whom(layer, x):
    # BEGIN SOLUTION
    before = layer(x)
    sees = np.zeros((len(x), len(x)), dtype=bool)
    for j in range(len(x)):
        changed = x.copy()
        changed[j] = changed[j][::-1] + 1  # another vector, same size
        moved = np.abs(layer(changed) - before).max(axis=-1)  # (seq,)
        sees[:, j] = moved > 1e-9  # column j: who noticed
    return sees
    # END SOLUTION


def make(spec):
    """The layer that a description stands for."""
    kind = spec["kind"]

    def attend(x, then_mask=False):
        mask = spec["mask"]
        scores = (x @ spec["w_q"]) @ (x @ spec["w_k"]).T / spec["w_q"].shape[1] ** 0.5
        scores = scores if then_mask else np.where(mask, scores, -np.inf)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = powers / powers.sum(axis=-1, keepdims=True)
        return (weights * mask if then_mask else weights) @ (x @ spec["w_v"])

    def neighbour(x):  # how far the token to the left has moved; token 0 looks at the last
        return np.roll(np.sqrt(((x - spec["start"]) ** 2).sum(axis=-1, keepdims=True)), 1, axis=0)

    def circle(angle):  # no number stands still, and neither the sum nor the length changes
        return np.cos(angle) * np.array([1, -1, 0]) + np.sin(angle) * np.array([1, 1, -2]) / 3**0.5

    def unit(x):  # blind to the length of a token
        return x / np.sqrt((x**2).sum(axis=-1, keepdims=True) + 1e-300)

    def centred(x):  # blind to the mean of a token
        return x - x.mean(axis=-1, keepdims=True)

    layers = {
        "attention": attend,
        "leaky": lambda x: attend(x, then_mask=True),
        "directions": lambda x: attend(unit(x)),
        "centred": lambda x: attend(centred(x)),
        "falls": lambda x: np.hstack([0 * neighbour(x), -neighbour(x)]),
        "cancels": lambda x: np.hstack([0 * neighbour(x), circle(neighbour(x))]),
        "faint": lambda x: 10 + np.hstack([3e-7 * neighbour(x), 0 * neighbour(x)]),
        "noisy": lambda x: x + 1e-13 * x.sum(axis=0),
    }
    return layers[kind]


def drive(function, spec, x):
    return function(make(spec), x)


def cases(rng):
    s = sizes(rng, "seq dim dim_head dim_v", least=4)
    x = rng.normal(size=(s.seq, s.dim))
    w_q, w_k = rng.normal(size=(2, s.dim, s.dim_head)) / s.dim**0.5
    w_v = rng.normal(size=(s.dim, s.dim_v))

    def spec(kind, mask=None):
        if mask is None:
            return {"kind": kind, "start": x}
        return {"kind": kind, "mask": mask, "w_q": w_q, "w_k": w_k, "w_v": w_v}

    causal = np.tri(s.seq, dtype=bool)
    pair = np.eye(s.seq, dtype=bool) | np.eye(s.seq, k=-3, dtype=bool)
    yield case("attention behind a causal mask", spec("attention", causal), x, dims=s)
    yield case("tokens that see themselves and the third to the left", spec("attention", pair), x, dims=s)
    yield case("a mask that comes after softmax, and leaks", spec("leaky", causal), x, dims=s)
    yield case("no mask, and lengths do not count", spec("directions", np.ones_like(causal)), x, dims=s)
    yield case("a layer that takes a token's mean away first", spec("centred", causal), x, dims=s)
    d = {"seq": s.seq, "dim": s.dim}
    yield case("results that can only fall", spec("falls"), x, dims=d)
    yield case("changes that keep the sum and the length of a result", spec("cancels"), x, dims=d)
    yield case("a change of about 0.000001", spec("faint"), x, dims=d)
    yield case("rounding noise near 1e-13", spec("noisy"), x, dims=d)


def _scan(layer, x, replace=lambda token: token[::-1] + 1, notices=None):
    """The solution with other parts."""
    notices = notices or (lambda after, before: np.abs(after - before).max(axis=-1) > 1e-9)
    before = layer(x)
    sees = np.zeros((len(x), len(x)), dtype=bool)
    for j in range(len(x)):
        changed = x.copy()
        changed[j] = replace(changed[j])
        sees[:, j] = notices(layer(changed), before)
    return sees


@wrong("Rows and columns are exchanged: at (i, j) you say whether token j notices token i. Who looks is the row.")
def writes_rows(layer, x):
    return _scan(layer, x).T


@wrong("You look for changes with a sign: a number that falls is missed unless another one rises. Up or down counts.")
def rises_only(layer, x):
    return _scan(layer, x, notices=lambda after, before: (after - before).max(axis=-1) > 1e-9)


@wrong("You make one number of each result, a sum or a length, before you compare: changes that cancel in it are missed. "
       "Any one number of the result that moves counts.")
def sums_first(layer, x):
    return _scan(layer, x, notices=lambda after, before: np.abs(after.sum(axis=-1) - before.sum(axis=-1)) > 1e-9)


@wrong("You look at the first number of each result only. A change may show in any of them.")
def first_column(layer, x):
    return _scan(layer, x, notices=lambda after, before: np.abs(after - before)[:, 0] > 1e-9)


@wrong("Every number of a result has to move before you count it. One is enough.")
def all_columns(layer, x):
    return _scan(layer, x, notices=lambda after, before: np.abs(after - before).min(axis=-1) > 1e-9)


@wrong("Rounding that moves a number by 1e-13 counts as seeing in your answer. Do you compare exactly, or put an enormous vector "
       "in the token's place?")
def exact(layer, x):
    return _scan(layer, x, notices=lambda after, before: (after != before).any(axis=-1))


@wrong("A change of about 1e-6 passes as none in your answer; from 1e-9 on it counts. Is your tolerance too wide (that of allclose is, "
       "unless you set it), or the new vector too close to the old one?")
def default_tolerance(layer, x):
    return _scan(layer, x, notices=lambda after, before: ~np.isclose(after, before).all(axis=-1))


@wrong("You only make the token longer: a layer that looks at directions alone cannot tell. Replace it by a vector with another direction.")
def scales(layer, x):
    return _scan(layer, x, replace=lambda token: 2 * token)


@wrong("You add one and the same number to all numbers of the token: a layer that takes the mean away first cannot tell.")
def shifts(layer, x):
    return _scan(layer, x, replace=lambda token: token + 1)


@wrong("You replace a token by NaN and look where NaN comes out. 0 · NaN is NaN, so a weight of exactly 0 looks like sight: "
       "replace it by numbers.")
def nan_marks(layer, x):
    before = layer(x)
    sees = np.zeros((len(x), len(x)), dtype=bool)
    for j in range(len(x)):
        changed = x.copy()
        changed[j] = np.nan
        sees[:, j] = np.isnan(layer(changed)).any(axis=-1) & ~np.isnan(before).any(axis=-1)
    return sees


@wrong("Your tokens stay replaced: when token j has its turn, all before it are still changed. They have to be restored, or copied "
       "afresh.")
def never_restores(layer, x):
    before, changed = layer(x), x.copy()
    sees = np.zeros((len(x), len(x)), dtype=bool)
    for j in range(len(x)):
        changed[j] = changed[j][::-1] + 1
        sees[:, j] = np.abs(layer(changed) - before).max(axis=-1) > 1e-9
    return sees


@wrong("The array `x` that was handed in is changed by your function: `changed = x` is another name for it, not a copy.")
def no_copy(layer, x):
    before = layer(x)
    sees = np.zeros((len(x), len(x)), dtype=bool)
    for j in range(len(x)):
        changed = x
        changed[j] = changed[j][::-1] + 1
        sees[:, j] = np.abs(layer(changed) - before).max(axis=-1) > 1e-9
    return sees


@wrong("Every token notices everything, whatever the layer. Do you replace token j alone (a row of `x`), and ask each row of the result "
       "for itself whether it has moved?")
def changes_a_coordinate(layer, x):
    before = layer(x)
    sees = np.zeros((len(x), len(x)), dtype=bool)
    for j in range(len(x)):
        changed = x.copy()
        changed[:, j % x.shape[1]] += 1
        sees[:, j] = np.abs(layer(changed) - before).max(axis=-1) > 1e-9
    return sees


@wrong("You return how much each result moves. Whether it moves by more than 1e-9 is asked: booleans.")
def amounts(layer, x):
    before = layer(x)
    moved = np.zeros((len(x), len(x)))
    for j in range(len(x)):
        changed = x.copy()
        changed[j] = changed[j][::-1] + 1
        moved[:, j] = np.abs(layer(changed) - before).max(axis=-1)
    return moved


@observe
def transposed(case, got, want):
    if got.dtype.kind == "b" and (got == want.T).all():
        return "Your array is right with rows and columns exchanged: at (i, j) it should say whether token i notices a change of token j."


@observe
def sees_nothing(case, got, want):
    if got.dtype.kind != "b":
        return None
    if not got.any():
        return "Your array is False everywhere: no token seems to notice any change."
    if (got == np.tri(len(got), dtype=bool)).all() and "mask" not in case.args[0]:
        return "Your array is True on and below the diagonal and False above it, whatever the layer may see."


def _change(case, j):
    """By how much every number of the result moves when token j is replaced: (seq, dim_v)."""
    spec, x = case.args
    layer, changed = make(spec), x.copy()
    changed[j] = changed[j][::-1] + 1
    return layer(changed) - layer(x)


@observe
def missed(case, got, want):
    if got.dtype.kind != "b" or not (want & ~got).any():
        return None
    i, j = map(int, np.argwhere(want & ~got)[0])
    change = _change(case, j)[i]
    most = np.abs(change).argmax()
    falls = " All of its numbers that move fall." if (change < 1e-12).all() else ""
    cancel = " The changes add up to 0." if abs(change.sum()) < 1e-12 and not falls else ""
    return (f"You say False at ({i}, {j}), but if token {j} is replaced the result of token {i} moves: number {most} of it "
            f"by {change[most]:.2g}.{falls}{cancel}")


@observe
def invented(case, got, want):
    if got.dtype.kind != "b" or not (got & ~want).any():
        return None
    i, j = map(int, np.argwhere(got & ~want)[0])
    most = np.abs(_change(case, j)[i]).max()
    by = "not at all" if most == 0 else f"by {most:.1g} at most, as rounding does"
    return f"You say True at ({i}, {j}), but if token {j} alone is replaced the result of token {i} moves {by}."
