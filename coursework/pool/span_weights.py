"""Exercise: attention weights under the soft mask of an adaptive span."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "A window with a slope"
CHAPTER = "16_hierarchy_and_span"
POINTS, EDGE_POINTS = 5, 1
PROMPT = r"""
With an adaptive span {cite}`sukhbaatar2019` every head learns how far back it looks. A key at distance x before its query (0 for the query's own
position) counts $m(x) = \min(1, \max(0, (R + z - x) / R))$: in full up to z, then less and less, and from z + R on not at all. Write
`span_weights(scores, span, ramp)`: `scores` (..., heads, seq_q, seq_k), scaled already, `span` (heads,), one z ≥ 0 for each head, and the number
`ramp` = R > 0. Queries are the last `seq_q` of the `seq_k` positions (there may be more queries than keys), and keys after a query do not
count. Return the weights, of the shape of `scores`: $m_{ij}\, e^{s_{ij}} / \sum_j m_{ij}\, e^{s_{ij}}$, zeros in a row where nothing counts. Scores of
±10,000 must neither overflow nor leave a row 0/0, wherever the largest one stands.
"""


def span_weights(scores, span, ramp):
    # BEGIN SOLUTION
    seq_q, seq_k = scores.shape[-2:]
    distance = np.arange(seq_k - seq_q, seq_k)[:, None] - np.arange(seq_k)
    m = np.clip((ramp + span[:, None, None] - distance) / ramp, 0, 1)
    m = np.where(distance >= 0, m, 0)  # (heads, seq_q, seq_k)
    counted = np.where(m > 0, scores, -np.inf)
    top = counted.max(axis=-1, keepdims=True)
    powers = m * np.exp(counted - np.where(np.isfinite(top), top, 0))
    total = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(total > 0, total, 1)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k", 3, 8)
    few, many = sorted((s.seq_q, s.seq_k))
    many = many + 9
    names = {"heads": s.heads, "seq_q": few, "seq_k": many}

    def spans(low, high):
        return rng.uniform(low, high, size=s.heads)

    square = {"heads": s.heads, "seq": many}
    yield case("as many queries as keys", rng.normal(size=(s.heads, many, many)), spans(1.2, 5), 3, dims=square)
    yield case("more keys than queries", rng.normal(size=(s.heads, few, many)), spans(2.2, 6), 4.0, dims=names)
    yield case("leading axes", rng.normal(size=(s.batch, s.heads, few, many)), spans(1.2, 5), 3.0, dims={"batch": s.batch, **names})
    yield case("one query, as when generating", rng.normal(size=(s.heads, 1, many)), spans(2.2, 6), 2.0, dims={"heads": s.heads, "seq_k": many})
    yield case("a span of 0", rng.normal(size=(s.heads, many, many)), np.zeros(s.heads), 4.0, dims=square)
    yield case("whole numbers for the spans, a ramp of 1", rng.normal(size=(s.heads, many, many)), rng.integers(1, 6, size=s.heads), 1.0, dims=square)
    yield case("scores of 10,000", rng.normal(size=(s.heads, many, many)) * 1e4, spans(1.2, 5), 3.0, dims=square)
    far = rng.normal(size=(s.heads, few, many))
    far[..., 0] = 9000
    yield case("the largest score beyond the span", far, spans(0.3, 1.5), 2.0, dims=names)
    ahead = rng.normal(size=(s.heads, many, many))
    ahead[..., -1] = 9000
    yield case("the largest score in the future", ahead, spans(1.2, 5), 3.0, dims=square)
    yield case("more queries than keys", rng.normal(size=(s.heads, many, few)), spans(1.2, 5), 3.0, edge=True,
               dims={"heads": s.heads, "seq_q": many, "seq_k": few})


def _distance(array, shift=None):
    rows, columns = array.shape[-2:]
    return np.arange(rows)[:, None] + (columns - rows if shift is None else shift) - np.arange(columns)


def _soft(scores, span, ramp, shift=None, absolute=False, causal=True):
    distance = _distance(scores, shift)
    m = np.clip((ramp + np.reshape(span, (-1, 1, 1)) - (np.abs(distance) if absolute else distance)) / ramp, 0, 1)
    return np.where((distance >= 0) | (not causal), m, 0)


def _weights(scores, m, stable=True):
    """The solution from its mask on."""
    counted = np.where(m > 0, scores, -np.inf)
    top = counted.max(axis=-1, keepdims=True) if stable else np.zeros((1, 1))
    powers = m * np.exp(counted - np.where(np.isfinite(top), top, 0))
    total = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(total > 0, total, 1)


@wrong("The ramp lies before z in your mask: at distance z nothing counts any more. Up to z everything counts in full; the ramp comes after it.")
def ramp_before_span(scores, span, ramp):
    return _weights(scores, _soft(scores, np.asarray(span) - ramp, ramp))


@wrong("Your mask has no slope: a key counts in full or not at all, and so nothing could tell a head to look a little farther. What is m between z and "
       "z + R?")
def hard_window(scores, span, ramp):
    return _weights(scores, 1.0 * (_soft(scores, span, ramp) == 1))


@wrong("Your mask lets every key that counts at all count in full. Between z and z + R it counts less and less.")
def hard_window_to_the_end(scores, span, ramp):
    return _weights(scores, 1.0 * (_soft(scores, span, ramp) > 0))


@wrong("Your rows do not sum to 1: the weights of a whole softmax are multiplied by m and left so. The sum below the line takes m as well.")
def not_normalised_again(scores, span, ramp):
    m = _soft(scores, span, ramp)
    return m * _weights(scores, 1.0 * (_distance(scores) >= 0) * np.ones_like(m))


@wrong("Right unless the largest score is beyond the span or in the future: your row is then 0/0, or all zeros. Which scores may the maximum be taken "
       "over?")
def maximum_over_all(scores, span, ramp):
    m = _soft(scores, span, ramp)
    powers = m * np.exp(scores - scores.max(axis=-1, keepdims=True))
    total = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(total > 0, total, 1)


@wrong("Right unless the largest score is beyond the span: you take the maximum over all keys up to the query, and those that do not count may hold it.")
def maximum_over_the_past(scores, span, ramp):
    m = _soft(scores, span, ramp)
    counted = np.where(_distance(scores) >= 0, scores, -np.inf)
    top = counted.max(axis=-1, keepdims=True)
    powers = m * np.exp(counted - np.where(np.isfinite(top), top, 0))
    total = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(total > 0, total, 1)


@wrong("Your powers overflow for scores of 10,000. What may be subtracted from the scores of a row without changing its weights?")
def overflows(scores, span, ramp):
    return _weights(scores, _soft(scores, span, ramp), stable=False)


@wrong("You multiply the scores by m. A score of 0 has the power 1, so that keys far away count, and negative scores grow; it is the power that is "
       "multiplied.")
def multiplies_the_scores(scores, span, ramp):
    m = _soft(scores, span, ramp)
    return _weights(scores * m, 1.0 * (_distance(scores) >= 0) * np.ones_like(m))


@wrong("You add m to the scores. That is a gentle preference for what is near; a key beyond the span still counts.")
def adds_to_the_scores(scores, span, ramp):
    m = _soft(scores, span, ramp)
    return _weights(scores + m, 1.0 * (_distance(scores) >= 0) * np.ones_like(m))


@wrong("Keys after the query count in your weights: there x is negative, and m by its formula 1.")
def sees_the_future(scores, span, ramp):
    return _weights(scores, _soft(scores, span, ramp, causal=False))


@wrong("You take the distance without its sign: keys after the query count, as far ahead as others lie behind.")
def both_sides(scores, span, ramp):
    return _weights(scores, _soft(scores, span, ramp, absolute=True, causal=False))


@wrong("Right where there are as many queries as keys. Otherwise query 0 does not stand at key 0: the queries are the last positions.")
def aligned_to_the_start(scores, span, ramp):
    return _weights(scores, _soft(scores, span, ramp, shift=0))


@wrong("All your heads look as far back as one of them. Each has its own entry of `span`.")
def one_span_for_all(scores, span, ramp):
    return _weights(scores, _soft(scores, np.asarray(span)[:1], ramp))


@wrong("All your heads have the mean of the spans. Each has its own entry of `span`.")
def mean_span(scores, span, ramp):
    return _weights(scores, _soft(scores, np.mean(span), ramp))


@wrong("Your own position is at distance 1. It is at distance 0, and the key before it at 1.")
def distance_from_one(scores, span, ramp):
    return _weights(scores, _soft(scores, np.asarray(span) - 1, ramp))


def _rows(case, got, want):
    """The first wrong row that is not blind: (head, query, mine, right, scores, z)."""
    scores, span, _ = case.args
    off = ~np.isclose(got, want, rtol=1e-6, atol=1e-9).all(axis=-1) & (want.sum(axis=-1) > 0) & np.isfinite(got).all(axis=-1)
    if not off.any():
        return None
    at = tuple(int(n) for n in np.argwhere(off)[0])
    return at[-2], at[-1], got[at], want[at], scores[at], float(np.asarray(span)[at[-2]])


@observe
def blind_rows(case, got, want):
    blind = want.sum(axis=-1) == 0
    if blind.any() and np.isclose(got, want)[~blind].all():
        return f"Right in every row that has a key to look at; rows of queries that stand before all keys should be zeros (yours: {got[blind][0][:3].round(3).tolist()} …)."


@observe
def not_a_number(case, got, want):
    odd = np.isnan(got).any(axis=-1)
    if got.dtype.kind == "f" and odd.any():
        at = tuple(int(n) for n in np.argwhere(odd)[0])
        return (f"Row {at[-1]} of head {at[-2]} is not a number. Often the maximum taken out stands at a key that does not count, so that all the powers are 0: "
                f"take the maximum of the keys that count.")


@observe
def future(case, got, want):
    odd = (_distance(got) < 0) & ~np.isclose(got, 0, atol=1e-12) & ~np.isnan(got)
    if got.dtype.kind == "f" and odd.any():
        at = tuple(int(n) for n in np.argwhere(odd)[0])
        return f"Query {at[-2]} stands at position {at[-2] + got.shape[-1] - got.shape[-2]}, and yours gives {got[at]:.3g} to key {at[-1]}, which comes after it."


@observe
def scores_have_no_say(case, got, want):
    """Rows of one head are the same, distance by distance, whatever the scores are."""
    rows, columns = got.shape[-2:]
    if rows != columns or got.dtype.kind != "f" or not np.isfinite(got).all() or rows < 3:
        return None
    shares = got[..., -1, :] / got[..., -1:, -1]
    for query in range(1, rows):
        mine = got[..., query, :query + 1]
        if not np.allclose(mine / mine[..., -1:], shares[..., columns - query - 1:], rtol=1e-6, atol=1e-12):
            return None
    return "In each head your weights depend on the distance alone: the scores play no part in them."


@observe
def beyond_the_span(case, got, want):
    reach = np.reshape(case.args[1], (-1, 1, 1)) + case.args[2]
    odd = (_distance(got) >= reach) & ~np.isclose(got, 0, atol=1e-12)
    if got.dtype.kind == "f" and np.isfinite(got).all() and odd.any():
        at = tuple(int(n) for n in np.argwhere(odd)[0])
        z, distance = float(np.asarray(case.args[1])[at[-3]]), int(_distance(got)[at[-2:]])
        return (f"Head {at[-3]} has z = {z:.3g} and R = {case.args[2]:g}: a key at distance {distance} does not count, and yours gives {got[at]:.3g} to one "
                f"(query {at[-2]}, key {at[-1]}).")


@observe
def mask_behind_the_weights(case, got, want):
    """What m must have been, from the ratio of weights to powers, relative to the query's own key."""
    found = _rows(case, got, want) if got.dtype.kind == "f" else None
    if found is None:
        return None
    head, query, mine, right, scores, z = found
    ramp, distance = case.args[2], _distance(got)[query]
    seen = (distance >= 0) & (right > 1e-250)
    if (scores[seen] - scores[seen].max() < -600).any() or mine[distance == 0] <= 0:
        return None
    with np.errstate(all="ignore"):
        m = mine / np.exp(scores - scores[distance == 0][0])
    m = m / m[distance == 0][0]
    wanted = np.clip((ramp + z - distance) / ramp, 0, 1)
    bad = np.flatnonzero((distance >= 0) & ~np.isclose(m, wanted, rtol=1e-6, atol=1e-9))
    if not len(bad):
        return "The shares of the keys among each other are right in your rows; their sum is not."
    j = int(bad[-1])
    return (f"In row {query} of head {head} (z = {z:.3g}, R = {ramp:g}) yours counts key {j}, at distance {distance[j]}, {m[j]:.4g} times as much, beside its power, "
            f"as the query's own key; expected is {wanted[j]:.4g}.")
