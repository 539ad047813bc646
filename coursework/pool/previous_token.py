"""Exercise: queries and keys, written by hand, that make every token look one to the left."""

import numpy as np

from coursework import case, wrong

TITLE = "A previous-token head by hand"
CHAPTER = "05_self_attention"
POINTS = 4
PROMPT = r"""
Let `x` be the identity matrix of size $n$: token $i$ is the one-hot vector of its position. Write `previous_token(n)`, which returns
`w_q` and `w_k`, both $(n, d)$ with any $d$ you like, such that scaled dot-product attention with queries `x @ w_q` and keys `x @ w_k`
gives at least 0.99 of every row (but the first, which may do what it likes) to the token one to the left, for any $n$ from 2 to 500.
No mask, no training. Mind $\sqrt d$, and mind that in a long row the same lead in score buys a smaller share.
"""
RETURNS = ("w_q", "w_k")
LEAST = 0.99 - 1e-9  # rounding is forgiven


def previous_token(n):
    # BEGIN SOLUTION
    lead = np.log(99 * n) + 1  # its weight: 1 / (1 + (n - 1) e^-lead)
    w_q = lead * n**0.5 * np.eye(n)  # query i says “i”; √n undoes 1 / √d
    w_k = np.eye(n, k=1)  # key j says “j + 1”, so query i meets key i - 1
    return w_q, w_k
    # END SOLUTION


def cases(rng):
    for low, high, label in ((3, 9, "a short row"), (15, 40, "a row of some tens"), (60, 120, "a row of about a hundred")):
        yield case(label, int(rng.integers(low, high)))
    yield case("two tokens", 2)
    yield case("500 tokens", 500)


def _weights(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _badly_formed(n, got):
    if got is None:
        return "The function returns None. Is there a `return`?"
    if not isinstance(got, tuple | list) or len(got) != 2:
        return "Two results are expected, `w_q` and `w_k`, separated by a comma."
    for name, array in zip(RETURNS, got, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            return f"`{name}` is expected to be an array of real numbers."
        if array.ndim != 2 or array.shape[0] != n or array.shape[1] < 1:
            return f"`{name}` has shape {array.shape}, expected ({n}, d): a row for each of the n = {n} coordinates of a token."
        if not np.isfinite(array).all():
            return f"`{name}` holds NaN or infinity."
    if got[0].shape != got[1].shape:
        return f"`w_q` is {got[0].shape[1]} wide and `w_k` {got[1].shape[1]}: queries and keys are compared, so they need one width."


def verify(case, got):
    n = case.args[0]
    said = _badly_formed(n, got)
    if said:
        return said
    with np.errstate(all="ignore"):
        q, k = (array.astype(float) for array in got)
        raw = q @ k.T
        weights = _weights(raw / q.shape[1] ** 0.5)
    if not np.isfinite(raw).all():
        return "The scores q @ kᵀ overflow to infinity."
    left = np.diag(weights, -1)
    if (left >= LEAST).all():
        return None
    return _where_it_looks(weights) or _how_much(n, q, raw, left)


def _where_it_looks(weights):
    """A sentence about the direction of the gaze, if it is the same wrong one in every row."""
    n = len(weights)
    if np.ptp(weights) < 1e-9:
        return f"With n = {n} every weight is 1/{n}: all scores of a row are equal, so no key stands out."
    best = weights.argmax(axis=-1)
    rows = np.arange(n)
    clear = weights.max(axis=-1) > weights.min(axis=-1) + 1e-9
    if (best == rows)[1:].all():
        return (f"Every token looks at itself: with n = {n} row 1 gives {weights[1, 1]:.3g} to token 1 and {weights[1, 0]:.3g} to token 0. "
                "Which key should query 1 meet?")
    for shift, says in ((1, "one to the **right**"), (-2, "two to the left"), (2, "two to the right")):
        inside = clear & (rows + shift >= 0) & (rows + shift < n) & (rows > 0)
        if inside.any() and (best == rows + shift)[inside].all():
            i = int(np.argmax(inside))
            return f"The largest weight of each row stands {says}: with n = {n} query {i} gives {weights[i].max():.3g} to key {best[i]}."
    if (best[1:] == best[1]).all() and n > 2:
        return f"With n = {n} every query but the first gives its largest weight to one and the same key, {best[1]}."
    return None


def _how_much(n, q, raw, left):
    """A sentence about rows that look the right way, but not hard enough, or that fail one by one."""
    i = int(left.argmin()) + 1
    share = f"With n = {n} query {i} gives {left[i - 1]:.3g} to the token one to the left, less than 0.99."
    few = left < LEAST
    if few.sum() < few.size:
        return share + f" That is so in {few.sum()} of {few.size} rows; the others are right."
    if (np.diag(_weights(raw), -1) >= LEAST).all():
        return share + f" Without the division of the scores by √d = √{q.shape[1]} it would be enough."
    lead = (raw / q.shape[1] ** 0.5)[i]
    others = np.delete(lead, i - 1).max()
    if lead[i - 1] <= others:
        return share + " Its score is not the largest of its row."
    return share + (f" Its scaled score leads by {lead[i - 1] - others:.3g}, and {n - 1} other keys share the rest: against one "
                    f"of them the lead is e^{lead[i - 1] - others:.3g} to 1.")


@wrong("Every token looks at itself: query i and key i say the same. Which key should query i meet, and what must that key say?")
def itself(n):
    w_q, _ = previous_token(n)
    return w_q, np.eye(n)


@wrong("Your tokens look one to the right: key j says “j - 1”, so query i meets key i + 1. Try n = 3 with a pencil.")
def key_of_the_one_before(n):
    w_q, _ = previous_token(n)
    return w_q, np.eye(n, k=-1)


@wrong("Your queries say “i + 1” and your keys say “j”: query i meets key i + 1, which is on the right. What should query i ask for?")
def query_for_the_next(n):
    w_q, w_k = previous_token(n)
    return w_q @ w_k, np.eye(n)


@wrong("The two arrays come back in the wrong order, `w_k` before `w_q`: then each token looks to the right instead of the left.")
def swapped(n):
    w_q, w_k = previous_token(n)
    return w_k, w_q


@wrong("The right key has the best score, but the lead is divided by √d before softmax, which leaves too little. How large must the "
       "product of query and key be, so that its √d-th part is still enough?")
def forgets_the_root(n):
    return (np.log(99 * n) + 1) * np.eye(n), np.eye(n, k=1)


@wrong("Plain one-hot queries and keys: the right key wins by a score of 1/√d and gets hardly more than any other. Softmax needs a lead "
       "of several units: how many?")
def one_hot(n):
    return np.eye(n), np.eye(n, k=1)


@wrong("Your lead is the same for every n: enough in short rows, too little in long ones, where hundreds of other keys share the "
       "rest. How must the lead grow with n?")
def fixed_lead(n):
    return 8 * n**0.5 * np.eye(n), np.eye(n, k=1)


@wrong("Your lead is e^lead = 99 to 1 against **one** other key. A row has n - 1 of them, and they all count in the denominator.")
def one_rival(n):
    return (np.log(99) + 0.01) * n**0.5 * np.eye(n), np.eye(n, k=1)


@wrong("You divide by √d yourself, and attention does so once more. The lead has to survive that division.")
def divides_too(n):
    return (np.log(99 * n) + 1) / n**0.5 * np.eye(n), np.eye(n, k=1)


@wrong("Your tokens look two to the left: the key is shifted by two. Off by one; try n = 3 with a pencil.")
def two_to_the_left(n):
    w_q, _ = previous_token(n)
    return w_q, np.eye(n, k=2)


@wrong("You return the weights that you would like to see. Two projections are asked for, from which attention **makes** such weights.")
def the_weights_themselves(n):
    return np.eye(n, k=-1)


@wrong("The lead has the wrong sign: each query gives its left neighbour the **least** of all.")
def repels(n):
    w_q, w_k = previous_token(n)
    return -w_q, w_k
