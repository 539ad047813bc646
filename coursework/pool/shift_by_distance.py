"""Exercise: from scores with distances to scores with keys, the relative shift of Transformer-XL."""

import numpy as np

from coursework import Variant, case, observe, sizes, wrong

TITLE = "From distances to keys"
CHAPTER = "18_memory"
POINTS, EDGE_POINTS = 5, 1
PROMPT = r"""
In Transformer-XL {cite}`dai2019` a part of the score depends on the query and on how far back the key stands. It is cheap to score each query
with each **distance** once: `scores` (..., seq_q, seq_k) holds in row i and column c the score of query i with distance seq_k − 1 − c, so that
the last column is distance 0. Write `shift_by_distance(scores)`, which returns, in the same shape, the scores with **keys**: entry (i, j) is that of
query i with the distance at which key j stands before it. Queries are the last `seq_q` of the `seq_k` positions (query i stands at
i + seq_k − seq_q); a key after the query gets −∞, and so does a whole row whose query stands before all keys (there may be more queries
than keys). Try to do without a loop.
"""


VARIANTS = {"near_first": Variant(
    "Column c of `scores` holds the score with distance c, so that the first column is distance 0.",
    args=lambda scores: (scores[..., ::-1],),
    hint="Your last column is distance 0, as in the book. Here the first one is: column c holds the score with distance c.")}


def shift_by_distance(scores):
    # BEGIN SOLUTION
    seq_q, seq_k = scores.shape[-2:]
    i, j = np.arange(seq_q)[:, None], np.arange(seq_k)
    distance = i + seq_k - seq_q - j  # (seq_q, seq_k)
    column = np.clip(seq_k - 1 - distance, 0, seq_k - 1)
    shifted = scores[..., i, column]  # each row to the left, its own way
    return np.where(distance >= 0, shifted, -np.inf)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k", 3, 8)
    few, many = sorted((s.seq_q, s.seq_k))
    more = {"seq_q": few, "seq_k": many}
    yield case("as many queries as keys", rng.normal(size=(many, many)), dims={"seq": many})
    yield case("more keys than queries", rng.normal(size=(few, many)), dims=more)
    yield case("leading axes", rng.normal(size=(s.batch, s.heads, few, many)), dims={"batch": s.batch, "heads": s.heads, **more})
    yield case("one query, as when generating", rng.normal(size=(1, many)), dims={"seq_k": many})
    yield case("scores far from 0", rng.normal(size=(few, many)) - 1000, dims=more)
    yield case("numbers that name their own row and distance", 100.0 * np.arange(few)[:, None] + np.arange(many)[::-1], dims=more)
    yield case("more queries than keys", rng.normal(size=(many, few)), edge=True, dims={"seq_q": many, "seq_k": few})
    yield case("one key", rng.normal(size=(few, 1)), edge=True, dims={"seq_q": few})


def _shift(scores, column, allowed=None, fill=-np.inf):
    """Pick a column for each pair by a rule (i, j, seq_q, seq_k), with an empty value where the key comes after the query."""
    seq_q, seq_k = scores.shape[-2:]
    i, j = np.arange(seq_q)[:, None], np.arange(seq_k)
    wanted = np.broadcast_to(column(i, j, seq_q, seq_k), (seq_q, seq_k))
    seen = j <= i + seq_k - seq_q if allowed is None else allowed(i, j, seq_q, seq_k)
    return np.where(seen, scores[..., i, np.clip(wanted, 0, seq_k - 1)], fill)


def _right(i, j, seq_q, seq_k):
    return j + seq_q - 1 - i


@wrong("Your rows have not moved: each column still belongs to one distance. Key j is at another distance from every query.")
def only_masked(scores):
    return _shift(scores, lambda i, j, seq_q, seq_k: j + 0 * i)


@wrong("Your rows have moved the wrong way. The last query needs no shift, it is as far from every key as its columns say; the earlier a query "
       "is, the farther its row moves.")
def by_its_own_index(scores):
    return _shift(scores, lambda i, j, seq_q, seq_k: j + i)


@wrong("Your rows have moved to the right. The last query's row stays where it is, and row i has to move to the left by seq_q - 1 - i.")
def to_the_right(scores):
    return _shift(scores, lambda i, j, seq_q, seq_k: j - (seq_q - 1 - i))


@wrong("Right where there are as many queries as keys. With fewer, your rows move by seq_k - 1 - i: query 0 does not stand at key 0.")
def moves_by_keys(scores):
    return _shift(scores, lambda i, j, seq_q, seq_k: j + seq_k - 1 - i)


@wrong("Right where there are as many queries as keys. Otherwise the wrong keys are hidden: query i stands at i + seq_k - seq_q, and keys up to there "
       "are not in its future.")
def mask_from_the_start(scores):
    return _shift(scores, _right, lambda i, j, seq_q, seq_k: j <= i)


@wrong("What the query may see is right. Keys after it hold numbers that belong to no distance, those of the next row or of the same row's beginning: they "
       "are to be -∞.")
def reshape_without_mask(scores):
    *lead, seq_q, seq_k = scores.shape
    padded = np.concatenate([np.zeros((*lead, seq_q, 1)), scores], axis=-1)
    return padded.reshape(*lead, seq_k + 1, seq_q)[..., 1:, :].reshape(scores.shape)


@wrong("What the query may see is right. Your rows go round in a circle: what leaves on the left comes back on the right, on keys after the query. "
       "Those are to be -∞.")
def rolled(scores):
    seq_q, seq_k = scores.shape[-2:]
    i, j = np.arange(seq_q)[:, None], np.arange(seq_k)
    return scores[..., i, (j + seq_q - 1 - i) % seq_k]


@wrong("What the query may see is right. Keys after it are 0, and to a softmax 0 is a score like any other: -∞ is asked for.")
def zeros_after(scores):
    return _shift(scores, _right, fill=0.0)


@wrong("Your distances run backwards: key j gets the score of the mirrored distance. Which column holds distance 0?")
def mirrored(scores):
    return _shift(scores[..., ::-1], _right)


@wrong("Everything is one distance off: a query's own key, at distance 0, reads distance 1.")
def one_off(scores):
    return _shift(scores, lambda i, j, seq_q, seq_k: j + seq_q - 2 - i)


@wrong("You hide the query's own key as well. It stands at distance 0, and only keys after it are to be -∞.")
def hides_itself(scores):
    return _shift(scores, _right, lambda i, j, seq_q, seq_k: j < i + seq_k - seq_q)


@wrong("A very negative number is not -∞: where all keys of a row are hidden, a softmax would spread its weights over them all the same.")
def large_negative(scores):
    return _shift(scores, _right, fill=-1e9)


def _after(case):
    seq_q, seq_k = case.args[0].shape[-2:]
    return np.arange(seq_k) > np.arange(seq_q)[:, None] + seq_k - seq_q


@observe
def what_is_hidden(case, got, want):
    if got.dtype.kind != "f":
        return None
    after = np.broadcast_to(_after(case), got.shape)
    shown, hidden = after & ~np.isneginf(got), ~after & np.isneginf(got)
    seq_q, seq_k = got.shape[-2:]
    sizes_of = f"(seq_q = {seq_q}, seq_k = {seq_k})"
    if hidden.any():
        i, j = (int(n) for n in np.argwhere(hidden)[0][-2:])
        return f"Query {i} stands at position {i + seq_k - seq_q}, and your score for key {j} is -∞, which is not after it {sizes_of}."
    if shown.any():
        i, j = (int(n) for n in np.argwhere(shown)[0][-2:])
        rest = " All keys that are not after the query are right." if np.isclose(got, want)[~after].all() and not after.all() else ""
        return (f"Query {i} stands at position {i + seq_k - seq_q}, and key {j} comes after it; your score for it is {got[shown][0]:.4g} instead of -∞ "
                f"{sizes_of}.{rest}")


@observe
def one_way_for_all(case, got, want):
    """All rows moved by the same number of places."""
    scores, seen = case.args[0], np.isfinite(got) & np.isfinite(want)
    for steps in range(-scores.shape[-1] + 1, scores.shape[-1]):
        if scores.shape[-2] > 2 and np.isclose(got, np.roll(scores, steps, axis=-1))[seen].all():
            return f"Every row of yours has moved by {abs(steps)} to the {'left' if steps < 0 else 'right'}. How far is the first query from the last?"


@observe
def another_row(case, got, want):
    off = ~np.isclose(got, want) & np.isfinite(want)
    if not off.any():
        return None
    scores = case.args[0].reshape(-1, *got.shape[-2:])
    at = np.argwhere(off.reshape(scores.shape))[0]
    lead, i, j = (int(n) for n in at)
    seq_q, seq_k = scores.shape[1:]
    value, position = got.reshape(scores.shape)[lead, i, j], i + seq_k - seq_q
    asked = f"Query {i} stands at position {position}, key {j} is {position - j} before it (seq_q = {seq_q}, seq_k = {seq_k})"
    for other in [i, *range(seq_q)]:
        hits = np.flatnonzero(np.isclose(scores[lead, other], value))
        if len(hits):
            distance = seq_k - 1 - int(hits[0])
            row = "its score" if other == i else f"the score of query {other}"
            return f"{asked}; yours reads {row} with distance {distance}."
    return f"{asked}; your {value:.4g} is none of the scores that came in. They are to be moved, not computed."
