"""Exercise: the causal mask for any number of queries and keys, for a first problem set and for decoding with a cache."""

import numpy as np

from coursework import Variant, case, observe, sizes, wrong

TITLE = "No looking ahead"
CHAPTER = ""
POINTS, EDGE_POINTS = 3, 1
PROMPT = r"""
Write `causal_mask(seq_q, seq_k)`, which returns a boolean array (seq_q, seq_k), `True` where a query may attend to a key: to its own
position and to all before it. The queries are the **last** positions of the sequence, as when a model decodes with a cache: the last
query stands at the last key, whatever the two numbers are. Where there are more queries than keys, the first of them stand before every
key and see nothing. Both numbers are at least 1.
"""

VARIANTS = {"from_the_start": Variant(
    "the queries are the **first** positions: query 0 stands at key 0, whatever the two numbers are. A query beyond the last key sees every "
    "key.",
    args=lambda seq_q, seq_k: (seq_k, seq_q), result=lambda mask: np.ascontiguousarray(mask[::-1, ::-1].T),
    hint="Your last query stands at the last key: the queries are aligned to the end, as in the book. Here query 0 is to stand at key 0.")}


def causal_mask(seq_q, seq_k):
    # BEGIN SOLUTION
    q_idx = np.arange(seq_k - seq_q, seq_k)[:, None]  # (seq_q, 1)
    k_idx = np.arange(seq_k)                          # (seq_k,)
    return k_idx <= q_idx                             # (seq_q, seq_k)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "seq small", 4, 8)
    more = s.small + int(rng.integers(2, 5))
    yield case("as many queries as keys", s.seq, s.seq, dims={"seq": s.seq})
    yield case("more keys than queries", s.small, more, dims={"seq_q": s.small, "seq_k": more})
    yield case("one query, at the end of a cache", 1, s.seq, dims={"seq_k": s.seq})
    yield case("one token", 1, 1)
    yield case("more queries than keys", more, s.small, edge=True, dims={"seq_q": more, "seq_k": s.small})


@wrong("Right for as many queries as keys. Otherwise your query 0 stands at key 0, and the last query does not stand at the last key: which "
       "key does query i stand at?")
def from_the_start(seq_q, seq_k):
    return np.tri(seq_q, seq_k, dtype=bool)


@wrong("Your queries do not see their own position: the diagonal is `False`. A token may always look at itself.")
def without_itself(seq_q, seq_k):
    return np.arange(seq_k) < np.arange(seq_k - seq_q, seq_k)[:, None]


@wrong("Yours is `True` exactly where it should be `False`. Some libraries mark what is **hidden**; here `True` says that a query may "
       "attend.")
def marks_the_hidden(seq_q, seq_k):
    return ~causal_mask(seq_q, seq_k)


@wrong("Your queries see their own position and everything **after** it: past and future are exchanged.")
def sees_the_future(seq_q, seq_k):
    return np.arange(seq_k) >= np.arange(seq_k - seq_q, seq_k)[:, None]


@wrong("Right for as many queries as keys. Where the two numbers differ, your diagonal is shifted to the wrong place: at which key should "
       "the first query stand, and at which the last?")
def shifted_the_wrong_way(seq_q, seq_k):
    return np.arange(seq_k) <= np.arange(seq_q)[:, None] - (seq_k - seq_q)


@wrong("Each query sees one key too many: the token right after its own position, which is the very one it is to predict.")
def one_too_many(seq_q, seq_k):
    return np.arange(seq_k) <= np.arange(seq_k - seq_q, seq_k)[:, None] + 1


@wrong("You return 0 and -inf, numbers to be added to the scores. That works as well, but here booleans are asked for: `True` where a query "
       "may attend.")
def additive(seq_q, seq_k):
    return np.where(causal_mask(seq_q, seq_k), 0.0, -np.inf)


@wrong("The places are right, and yours holds the numbers 0 and 1. A mask of numbers cannot be used as an index or with `~` as booleans "
       "can: which dtype is asked for?")
def zeros_and_ones(seq_q, seq_k):
    return causal_mask(seq_q, seq_k).astype(float)


@wrong("Keys stand down and queries across in your result: queries are rows, keys are columns.")
def keys_down(seq_q, seq_k):
    return causal_mask(seq_q, seq_k).T


@wrong("Yours has as many rows as columns, whatever the two numbers are. One row for each of seq_q queries and one column for each of seq_k "
       "keys are asked for.")
def all_positions(seq_q, seq_k):
    return np.tri(seq_k, dtype=bool)


def _one(i, things="key"):
    return f"{i} {things}" + ("s" if i != 1 else "")


@observe
def not_a_beginning(case, got, want):
    if got.dtype.kind != "b":
        return None
    gaps = (got[:, 1:] & ~got[:, :-1]).any(axis=1)
    if gaps.any():
        i = int(np.argmax(gaps))
        return (f"With seq_q = {case.args[0]} and seq_k = {case.args[1]}, your query {i} sees keys {np.flatnonzero(got[i]).tolist()}. "
                "What a query sees always begins at key 0 and has no gaps.")


@observe
def before_every_key(case, got, want):
    seq_q, seq_k = case.args
    if got.dtype.kind == "b" and seq_q > seq_k:
        early, late = got[: seq_q - seq_k], got[seq_q - seq_k:]
        if (late == want[seq_q - seq_k:]).all():
            return (f"Of {seq_q} queries and {seq_k} keys the last {seq_k} are right. The first {seq_q - seq_k} stand before every key; "
                    f"yours see {_one(int(early.sum()))} in all, and should see none.")
        if early.any():
            return (f"With {seq_q} queries and {seq_k} keys the first {seq_q - seq_k} queries stand before every key, and your query "
                    f"{int(np.argmax(early.any(axis=1)))} sees something.")


@observe
def same_shift_everywhere(case, got, want):
    if got.dtype.kind != "b":
        return None
    seq_q, seq_k = case.args
    extra = {int(n) for n in got.sum(axis=1) - want.sum(axis=1)}
    last = int(got[-1].sum())
    if len(extra) == 1 and seq_q > 1:
        n = extra.pop()
        return (f"With seq_q = {seq_q} and seq_k = {seq_k}, every query of yours sees {_one(abs(n))} too {'many' if n > 0 else 'few'}.")
    if last != seq_k:
        return (f"With seq_q = {seq_q} and seq_k = {seq_k}, your last query sees {last} of the {seq_k} keys. It stands at the last key, so "
                "it sees all of them.")


@observe
def rows_alike(case, got, want):
    if got.dtype.kind == "b" and len(got) > 2 and (got == got[0]).all():
        return f"All your queries see the same {_one(int(got[0].sum()))}. Each query stands at a position of its own."


@observe
def growth(case, got, want):
    if got.dtype.kind != "b" or len(got) < 3:
        return None
    seen = got.sum(axis=1)
    steps = np.diff(seen)[np.diff(want.sum(axis=1)) == 1]
    if len(steps) and (steps == steps[0]).all() and steps[0] != 1:
        return f"From one of your queries to the next the number of visible keys changes by {steps[0]}; it should grow by 1."
    i = int(np.argmax(seen != want.sum(axis=1)))
    return f"With seq_q = {case.args[0]} and seq_k = {case.args[1]}, your query {i} sees {_one(int(seen[i]))}, expected {want[i].sum()}."
