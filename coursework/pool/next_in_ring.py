"""Exercise: query and key matrices that make every token look at the next one."""

import numpy as np

from coursework import case, wrong

TITLE = "Two matrices for “look at the next token”"
CHAPTER = "02_queries_keys_values"
POINTS = 4
PROMPT = r"""
Token vectors that hold nothing but a position: token $i$ is row $i$ of the identity, `x = np.eye(n)`. Write `next_in_ring(n)`, which
returns `w_q, w_k`, two matrices of one shape with `n` rows, such that in `softmax(x @ w_q @ (x @ w_k).T / np.sqrt(d))`, softmax over each
row and $d$ being the common width of `w_q` and `w_k`, every token $i$ gives the **next** one, $i + 1$, a weight of more than 0.99; after
the last comes the first. It should work for any $n$ from 2 to 100. Then show on paper that no `w_q = w_k` can do it.
"""
RETURNS = ("w_q", "w_k")


def next_in_ring(n):
    # BEGIN SOLUTION
    # On paper: with w_q = w_k, take the token whose query q is longest. Its
    # dot product with any other is at most |q| times the other's length, so
    # at most |q|², the one with itself. No other token can get more than
    # half of its row, let alone 0.99.
    ask = np.roll(np.eye(n), 1, axis=1)      # row i asks for position i + 1
    # a score of 10 against 0, whatever n: e^10 is over 22,000
    return 10 * np.sqrt(n) * ask, np.eye(n)
    # END SOLUTION


def cases(rng):
    few, some, many = (int(n) for n in (rng.integers(4, 9), rng.integers(12, 30), rng.integers(40, 90)))
    yield case(f"n = {few}", few, dims={"n": few})
    yield case("three tokens", 3, dims={"n": 3})
    yield case(f"n = {some}", some, dims={"n": some})
    yield case(f"n = {many}", many, dims={"n": many})
    yield case("100 tokens", 100, dims={"n": 100})
    yield case("two tokens", 2, dims={"n": 2})


def _faulty(got, n):
    """What is wrong with the result as a thing, before any weight is computed."""
    if got is None:
        return "The function returns None. Is there a `return`?"
    if not isinstance(got, tuple | list) or len(got) != 2:
        what = f"{len(got)} results" if isinstance(got, tuple | list) else "one result"
        return f"Your function returns {what}, expected two, separated by a comma: `w_q, w_k`."
    for name, w in zip(("w_q", "w_k"), got, strict=True):
        if not isinstance(w, np.ndarray) or w.dtype.kind not in "biuf":
            return f"{name} should be an array of real numbers."
        if w.ndim != 2:
            return f"{name} has shape {w.shape}, expected a matrix with n = {n} rows."
    shapes = f"w_q has shape {got[0].shape}, w_k {got[1].shape}"
    if got[0].shape != got[1].shape:
        return f"{shapes}; the two should have one shape, ({n}, d)."
    if got[0].shape[0] != n or got[0].shape[1] == 0:
        return f"{shapes}, expected (n, d) with n = {n}: one row for each token, since x is the identity."
    for name, w in zip(("w_q", "w_k"), got, strict=True):
        if not np.isfinite(w).all():
            return f"{name} holds NaN or infinity."
    return None


def _weights(w_q, w_k):
    w_q, w_k = w_q.astype(float), w_k.astype(float)
    scores = w_q @ w_k.T / np.sqrt(w_q.shape[1])
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def verify(case, got):
    n = case.args[0]
    said = _faulty(got, n)
    if said:
        return said
    with np.errstate(all="ignore"):
        weights = _weights(*got)
    if not np.isfinite(weights).all():
        return "The scores overflow. A score needs to be larger than the others by 10 or so, not by 1e300."
    i, best = np.arange(n), weights.argmax(axis=-1)
    if (weights[i, (i + 1) % n] > 0.99).all():
        return None
    right = best == (i + 1) % n
    second = np.sort(weights, axis=-1)[:, -2]
    clear = right & (weights.max(axis=-1) > 1.001 * second)
    if clear.all():
        weak = int(weights.max(axis=-1).argmin())
        return (f"n = {n}: every token gives its largest weight to the next one, but token {weak} gives it {weights[weak].max():.2g} only; "
                "more than 0.99 is asked for. How much larger than the others must one score be, among so many?")
    twins = " (Your w_q and w_k are equal.)" if np.array_equal(*got) else ""
    if np.ptp(weights) < 1e-3:
        return f"n = {n}: every token gives the same weight, {1 / n:.2g}, to all: your scores are (nearly) all equal.{twins}"
    if clear[:-1].all() and n > 2:
        last = (f"the same weight, {weights[-1, 0]:.2g}, to all" if np.ptp(weights[-1]) < 1e-3 else
                f"{weights[-1, 0]:.2g} to token 0 and {weights[-1].max():.2g} to token {int(best[-1])}")
        return f"n = {n}: the last token alone looks elsewhere: it gives {last}. After the last comes the first."
    if (second > 0.999 * weights.max(axis=-1)).all():
        tied = np.flatnonzero(weights[0] > 0.999 * weights[0].max())[:2]
        if (weights[i, (i + 1) % n] < 1e-3).all():
            return f"n = {n}: no token gives any weight to the next one; token 0 gives {weights[0].max():.2g} to token {tied[0]} and others.{twins}"
        return (f"n = {n}: in every row several tokens share the largest weight: token 0 gives {weights[0].max():.2g} to token {tied[0]} "
                f"and to token {tied[1]}.{twins}")
    shift = int(best[0])
    if (best == i).all():
        return f"n = {n}: every token gives its largest weight ({weights[0, 0]:.2g}) to itself, expected to the next one.{twins}"
    if n > 2 and (best == (i - 1) % n).all():
        return f"n = {n}: every token gives its largest weight to the one **before** it: token 1 looks at token 0, expected at token 2."
    if (best == (i + shift) % n).all():
        return f"n = {n}: every token i gives its largest weight to token i + {shift} (counted in the ring), expected to i + 1."
    if (best == best[0]).all():
        return f"n = {n}: every token gives its largest weight to the same one, token {int(best[0])}.{twins}"
    bad = int(np.argmin(clear))
    order = [int(j) for j in np.argsort(-weights[bad]) if j != (bad + 1) % n]
    return (f"n = {n}: token {bad} gives {weights[bad, (bad + 1) % n]:.2g} to token {(bad + 1) % n}, the next one, and "
            f"{weights[bad, order[0]]:.2g} to token {order[0]}.{twins}")


@wrong("Every token looks at the one before it: your roll goes the wrong way. Write down row 0 for n = 3: at which place does "
       "it have to hold its large number?")
def previous(n):
    return 10 * np.sqrt(n) * np.roll(np.eye(n), -1, axis=1), np.eye(n)


@wrong("Your matrix is not a ring: the row of the last token is empty, so its scores are all 0 and it looks at everyone alike. After "
       "the last comes the first.")
def open_chain(n):
    return 10 * np.sqrt(n) * np.eye(n, k=1), np.eye(n)


@wrong("Right for few tokens only: the scores are divided by the root of the width, and your width is n. As n grows, your score of 10 "
       "shrinks: let the factor grow with it.")
def forgets_the_scale(n):
    return 10 * np.roll(np.eye(n), 1, axis=1), np.eye(n)


@wrong("The right token gets the largest weight, but not by far: scores of 1 against 0, divided by √n, leave the row nearly flat. What makes "
       "a softmax sharp?")
def soft(n):
    return np.roll(np.eye(n), 1, axis=1), np.eye(n)


@wrong("The next token's score is larger by 5, whatever n. e^5 is 148: enough against two or three other tokens, and not against 99.")
def barely(n):
    return 5 * np.sqrt(n) * np.roll(np.eye(n), 1, axis=1), np.eye(n)


@wrong("You turn both matrices in the same way. The two turns cancel in the dot product: every token finds itself.")
def both_turned(n):
    ring = np.roll(np.eye(n), 1, axis=1)
    return 10 * np.sqrt(n) * ring, ring


@wrong("w_q and w_k are equal. The longest query then scores highest with itself: no such pair of matrices can do it.")
def shared(n):
    w = (100 * n) ** 0.25 * np.roll(np.eye(n), 1, axis=1)
    return w, w


@wrong("You return the product of the two matrices, which says where to look. The exercise asks for the two of them, with w_q @ w_k.T "
       "equal to it.")
def product_only(n):
    return 10 * np.sqrt(n) * np.roll(np.eye(n), 1, axis=1)


@wrong("Your keys look for the next token, your queries say who they are: with the roles exchanged, everyone "
       "finds the one before.")
def exchanged(n):
    return np.eye(n), 10 * np.sqrt(n) * np.roll(np.eye(n), 1, axis=1)


@wrong("Every token looks two places ahead. You turn queries **and** keys, in opposite directions, and in the dot product the two turns "
       "add up.")
def twice(n):
    return 10 * np.sqrt(n) * np.roll(np.eye(n), 1, axis=1), np.roll(np.eye(n), -1, axis=1)


@wrong("The large number of your last row has slipped into the first: without an `axis`, np.roll turns the whole matrix as one "
       "long row. Look at your w_q for n = 3.")
def rolled_flat(n):
    return 10 * np.sqrt(n) * np.roll(np.eye(n), 1), np.eye(n)
