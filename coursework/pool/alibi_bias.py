"""Exercise: linear biases for distance, for a problem set on positions (numbers of heads that are powers of two)."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "A price for distance"
CHAPTER = ""
POINTS = 4
PROMPT = r"""
Write `alibi_bias(heads, seq_q, seq_k)`, the numbers that ALiBi {cite}`press2021` adds to the scores before softmax: an array (heads, seq_q, seq_k) of
−slope · distance. The distance is that of the query's position from the key's, the same in both directions. The queries are the **last** positions:
the last query stands at the last key. Head `h`, counted from 0, has the slope $2^{-8(h + 1)/\mathrm{heads}}$, so that the slopes of 8 heads are
1/2, 1/4, up to 1/256. `heads` is a power of two (1, 2, 4, ...), and seq_q is at most seq_k. No mask is asked for.
"""


def alibi_bias(heads, seq_q, seq_k):
    # BEGIN SOLUTION
    slopes = 2.0 ** (-8 * np.arange(1, heads + 1) / heads)  # (heads,)
    q_idx = np.arange(seq_k - seq_q, seq_k)[:, None]        # (seq_q, 1)
    distance = np.abs(q_idx - np.arange(seq_k))             # (seq_q, seq_k)
    return -slopes[:, None, None] * distance                # (heads, seq_q, seq_k)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "small seq", 5, 7)
    more = s.small + int(rng.integers(3, 7))
    more += more == 8
    yield case("as many queries as keys", 4, s.seq, s.seq, dims={"heads": 4, "seq": s.seq})
    yield case("more keys than queries", 4, s.small, more, dims={"heads": 4, "seq_q": s.small, "seq_k": more})
    yield case("eight heads", 8, s.small, more, dims={"heads": 8, "seq_q": s.small, "seq_k": more})
    yield case("sixteen heads", 16, s.small, more, dims={"heads": 16, "seq_q": s.small, "seq_k": more})
    yield case("one head", 1, s.small, more, dims={"seq_q": s.small, "seq_k": more})
    yield case("one query, at the end of a cache", 2, 1, more, dims={"heads": 2, "seq_k": more})


def _bias(heads, seq_q, seq_k, slopes=None, shift=None, price=np.abs):
    slopes = 2.0 ** (-8 * np.arange(1, heads + 1) / heads) if slopes is None else slopes
    shift = seq_k - seq_q if shift is None else shift
    return -slopes[:, None, None] * price(np.arange(seq_q)[:, None] + shift - np.arange(seq_k))


@wrong("Your biases are positive: they reward distance. A far key should lose score, the more the farther.")
def rewards_distance(heads, seq_q, seq_k):
    return -alibi_bias(heads, seq_q, seq_k)


@wrong("Right for as many queries as keys. Otherwise your query 0 stands at key 0; it is the last query that stands at the last key.")
def from_the_start(heads, seq_q, seq_k):
    return _bias(heads, seq_q, seq_k, shift=0)


@wrong("Keys after the query get a positive bias in yours: the difference of positions has a sign, and a distance has none.")
def signed_distance(heads, seq_q, seq_k):
    return _bias(heads, seq_q, seq_k, price=lambda gap: gap)


@wrong("Keys after the query get no price in yours: the distance counts in both directions.")
def free_future(heads, seq_q, seq_k):
    return _bias(heads, seq_q, seq_k, price=lambda gap: np.maximum(gap, 0))


@wrong("You hide the keys after the query as well. Here the price of distance alone is asked for; a causal mask comes in addition where it is "
       "wanted.")
def causal(heads, seq_q, seq_k):
    bias = alibi_bias(heads, seq_q, seq_k)
    return np.where(np.arange(seq_k) > np.arange(seq_k - seq_q, seq_k)[:, None], -np.inf, bias)


@wrong("The slope of head 0 is 1 in yours: its exponent is counted from 0. For 8 heads the first slope is 1/2 and the last 1/256.")
def slopes_from_one(heads, seq_q, seq_k):
    return _bias(heads, seq_q, seq_k, 2.0 ** (-8 * np.arange(heads) / heads))


@wrong("Your slopes are 1/2, 1/4, 1/8 and so on, however many heads there are: that is right for 8. The last head has the slope 1/256 for any number of heads.")
def slopes_of_eight(heads, seq_q, seq_k):
    return _bias(heads, seq_q, seq_k, 0.5 ** np.arange(1, heads + 1))


@wrong("The heads come in reverse order: head 0 is the one with the steepest slope.")
def flattest_first(heads, seq_q, seq_k):
    return _bias(heads, seq_q, seq_k)[::-1]


@wrong("All your heads have the same slope: each looks at another range, because its slope is another.")
def one_slope(heads, seq_q, seq_k):
    return _bias(heads, seq_q, seq_k, np.full(heads, 2.0 ** (-8 / heads)))


@wrong("Your slopes fall in equal steps. Each head's slope should be that of the head before times a constant factor.")
def slopes_in_equal_steps(heads, seq_q, seq_k):
    return _bias(heads, seq_q, seq_k, np.linspace(2.0 ** (-8 / heads), 2.0**-8, heads))


@wrong("The price grows with the square of the distance. ALiBi is linear: twice as far costs twice as much.")
def squared(heads, seq_q, seq_k):
    return _bias(heads, seq_q, seq_k, price=np.square)


@wrong("The heads stand on the last axis in yours. To be added to scores (batch, heads, seq_q, seq_k) they have to come first.")
def heads_last(heads, seq_q, seq_k):
    return np.moveaxis(alibi_bias(heads, seq_q, seq_k), 0, -1)


@wrong("Your slopes are whole numbers, or zeros: a negative power of an integer was cut off, or refused. One of the two numbers has to be a float.")
def whole_numbers(heads, seq_q, seq_k):
    return alibi_bias(heads, seq_q, seq_k).astype(int)


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-12)


def _zero_of(got):
    """For head 0: the key at which each query pays nothing, or None where that is not exactly one."""
    free = got[0] == 0
    return np.argmax(free, axis=1) if (free.sum(axis=1) == 1).all() else None


@observe
def own_position(case, got, want):
    if got.dtype.kind != "f":
        return None
    own, right = _zero_of(got), _zero_of(want)
    if own is not None and (own != right).any():
        i = int(np.argmax(own != right))
        return (f"With seq_q = {case.args[1]} and seq_k = {case.args[2]}, your query {i} pays nothing for key {own[i]}. It stands at key {right[i]}.")
    if own is None and (got[0] == 0).all():
        return "The biases of head 0 are all 0 in yours."
    diagonal = got[0][np.arange(got.shape[1]), right]
    if (diagonal != 0).any():
        i = int(np.argmax(diagonal != 0))
        return f"Your query {i} pays {-diagonal[i]:.4g} in head 0 for the key at its own position, {right[i]}; that distance is 0."


@observe
def sign(case, got, want):
    if got.dtype.kind == "f" and (got > 0).any():
        at = tuple(int(i) for i in np.argwhere(got > 0)[0])
        return f"Your bias of query {at[1]} for key {at[2]} is {got[at]:.4g} in head {at[0]}: no distance should raise a score."


@observe
def slopes_are_wrong(case, got, want):
    if got.dtype.kind != "f":
        return None
    ratio = got / want
    first = np.array([r[np.isfinite(r)][:1] for r in ratio]).reshape(-1)
    if len(first) < len(got) or not all(_near(r[np.isfinite(r)], f).all() for r, f in zip(ratio, first, strict=True)):
        return None
    right = 2.0 ** (-8 * np.arange(1, len(got) + 1) / len(got))
    slopes = first * right
    if not _near(slopes, right).all():
        few = "" if len(slopes) <= 4 else ", ..."
        return (f"Distances are right, slopes are not: your {len(slopes)} heads have {', '.join(f'{x:.4g}' for x in slopes[:4])}{few}; expected "
                f"{', '.join(f'{x:.4g}' for x in right[:4])}{few}.")


@observe
def distances_are_wrong(case, got, want):
    if got.dtype.kind != "f":
        return None
    right = 2.0 ** (-8 * np.arange(1, len(got) + 1) / len(got))
    distance = -got / right[:, None, None]
    if _near(distance, distance[:1]).all() and np.isfinite(distance).all():
        i = tuple(int(n) for n in np.argwhere(~_near(distance[0], -want[0] / right[0]))[0])
        return (f"Slopes are right, distances are not: query {i[0]} of {case.args[1]} and key {i[1]} of {case.args[2]} are {distance[0][i]:.4g} apart in yours, "
                f"expected {-want[0][i] / right[0]:.0f}.")


@observe
def hidden(case, got, want):
    gone = got == -np.inf
    if gone.any() and _near(got, want)[~gone].all():
        return f"Right but for {gone[0].sum()} pairs per head that you hide with −inf. No mask is asked for."
