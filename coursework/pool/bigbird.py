"""Exercise: window, global tokens and drawn keys as one predicate, for problem sets on sparse attention."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Window, global tokens and some keys at random"
CHAPTER = ""
POINTS = 5
PROMPT = r"""
Big Bird {cite}`zaheer2020` lets every query see its neighbourhood, a few global tokens, and some keys drawn at random. Write
`bigbird(left, right, n_global, random_keys)`, which returns a **function** `predicate(q_idx, k_idx)`: True where the query at position
`q_idx` may see the key at position `k_idx`. A query sees its own position, up to `left` keys before it and `right` keys after it; the
first `n_global` positions are global: as keys they are seen by every query, as queries they see every key. `random_keys`, an integer
array (seq, n_random), holds in row i the positions that were drawn for query i (some may repeat; there may be none, n_random = 0).
`q_idx` and `k_idx` are integer arrays that broadcast against each other, such as (seq_q, 1) and (1, seq_k); the result is a boolean
array of their common shape. They hold positions, and may be a part of the sequence only.
"""


def bigbird(left, right, n_global, random_keys):
    # BEGIN SOLUTION
    def predicate(q_idx, k_idx):
        near = (q_idx - k_idx <= left) & (k_idx - q_idx <= right)
        is_global = (q_idx < n_global) | (k_idx < n_global)
        drawn = random_keys[q_idx] == k_idx[..., None]  # (..., n_random)
        return near | is_global | drawn.any(axis=-1)

    return predicate
    # END SOLUTION


def drive(f, left, right, n_global, random_keys, q_idx, k_idx):
    predicate = f(left, right, n_global, random_keys)
    if not callable(predicate):
        raise TypeError(f"bigbird returns a {type(predicate).__name__}, expected a function predicate(q_idx, k_idx)")
    return predicate(q_idx, k_idx)


def cases(rng):
    s = sizes(rng, "left right n_random", 2, 4)
    seq = int(rng.integers(21, 26))
    q_idx, k_idx = np.arange(seq)[:, None], np.arange(seq)[None, :]
    drawn = np.array([rng.choice(seq, size=s.n_random, replace=False) for _ in range(seq)])
    none = np.empty((seq, 0), dtype=int)
    yield case("a window alone", s.left, s.right, 0, none, q_idx, k_idx)
    yield case("global tokens", 1, 1, 2, none, q_idx, k_idx)
    yield case("drawn keys", 0, 0, 0, drawn, q_idx, k_idx)
    yield case("all three", s.left, s.right, 1, drawn, q_idx, k_idx)
    yield case("queries and keys from the middle of the sequence", s.left, s.right, 2, drawn, q_idx[seq - 9:seq - 3], k_idx[:, 4:])
    q_idx, k_idx = rng.integers(0, seq, size=(2, 5, 9))
    yield case("a list of pairs, not a grid", s.left, s.right, 1, drawn, q_idx, k_idx)


def _predicate(near=None, is_global=None, drawn=None, join=None):
    """The solution with one of its lines replaced."""
    near = near or (lambda q, k, left, right: (q - k <= left) & (k - q <= right))
    is_global = is_global or (lambda q, k, n: (q < n) | (k < n))
    drawn = drawn or (lambda q, k, keys: (keys[q] == k[..., None]).any(axis=-1))
    join = join or (lambda a, b, c: a | b | c)

    def bigbird(left, right, n_global, random_keys):
        return lambda q, k: join(near(q, k, left, right), is_global(q, k, n_global), drawn(q, k, random_keys))

    return bigbird


@wrong("Your window is on the wrong side: `left` keys after the query, `right` before it. Left is towards the beginning of the "
       "sequence.")
def sides_exchanged(*args):
    return _predicate(near=lambda q, k, left, right: (k - q <= left) & (q - k <= right))(*args)


@wrong("Your window is one key too narrow on either side: `left` and `right` count keys beside the query's own position, so a distance of "
       "exactly `left` still belongs to it.")
def narrow_window(*args):
    return _predicate(near=lambda q, k, left, right: (q - k < left) & (k - q < right) | (q == k))(*args)


@wrong("Your window is `left` keys wide on both sides: `right` plays no part in it.")
def symmetric_window(*args):
    return _predicate(near=lambda q, k, left, right: abs(q - k) <= left)(*args)


@wrong("Global tokens are seen by everybody, but do not see everybody themselves: row 0 should be True throughout wherever there is a "
       "global token.")
def global_keys_only(*args):
    return _predicate(is_global=lambda q, k, n: (k < n) | (q != q))(*args)


@wrong("Global tokens see everybody, but are not seen by everybody: column 0 should be True throughout wherever there is a global "
       "token.")
def global_queries_only(*args):
    return _predicate(is_global=lambda q, k, n: (q < n) | (k != k))(*args)


@wrong("Only pairs of two global tokens are allowed by your rule. It is enough that one of the two is global.")
def both_global(*args):
    return _predicate(is_global=lambda q, k, n: (q < n) & (k < n))(*args)


@wrong("You have one global token too many: positions count from 0, so that the first n_global are 0 to n_global - 1.")
def one_global_too_many(*args):
    return _predicate(is_global=lambda q, k, n: (q <= n) | (k <= n))(*args)


@wrong("A key that was drawn for any query is seen by every query. Row i of `random_keys` is for query i alone.")
def drawn_for_all(*args):
    return _predicate(drawn=lambda q, k, keys: np.isin(k, keys) & (q == q))(*args)


@wrong("Queries and keys are exchanged in `random_keys`: its row i holds keys that query i sees, not queries that see key i.")
def drawn_transposed(*args):
    return _predicate(drawn=lambda q, k, keys: (keys[k] == q[..., None]).any(axis=-1))(*args)


@wrong("No drawn key is ever seen for its own sake: either `random_keys` plays no part in your result, or you ask for all of a row's "
       "keys to be equal to the key. One hit among them is enough.")
def no_drawn_keys(*args):
    return _predicate(drawn=lambda q, k, keys: (q != q) & (k != k))(*args)


@wrong("You ask for all three rules at once. A pair is allowed if any one of them allows it.")
def intersection(*args):
    return _predicate(join=lambda a, b, c: a & b & c)(*args)


@wrong("Of every query's drawn keys you use the first only: `random_keys` has n_random of them in a row.")
def first_drawn_only(*args):
    return _predicate(drawn=lambda q, k, keys: keys[q][..., 0] == k if keys.shape[1] else (q != q) & (k == k))(*args)


@wrong("Right on the whole grid, wrong on a part of it: you take row i of `random_keys` for the i-th row of `q_idx`. What `q_idx` holds "
       "are positions.")
def rows_by_place(*args):
    def drawn(q, k, keys):
        return (keys[np.arange(q.shape[0])[:, None]] == k[..., None]).any(axis=-1)
    return _predicate(drawn=drawn)(*args)


def _rules(case):
    left, right, n_global, random_keys, q_idx, k_idx = case.args
    q, k = np.broadcast_arrays(q_idx, k_idx)
    return q, k, {
        "it is within the window": (q - k <= left) & (k - q <= right),
        f"the key is one of the {n_global} global positions": k < n_global,
        f"the query is one of the {n_global} global positions": q < n_global,
        "the key stands in the query's row of random_keys": (random_keys[q] == k[..., None]).any(axis=-1),
    }


@observe
def all_or_nothing(case, got, want):
    if got.dtype.kind == "b" and (got.all() or not got.any()):
        return f"Your predicate is {bool(got.flat[0])} for every pair."


@observe
def a_rule_is_missing(case, got, want):
    if got.dtype.kind != "b":
        return None
    q, k, rules = _rules(case)
    for name, rule in rules.items():
        only = rule & ~np.any([other for key, other in rules.items() if key != name], axis=0)
        lacking = only & ~got
        if lacking.any():
            at = tuple(np.argwhere(lacking)[0])
            count = f"{lacking.sum()} of the {only.sum()}" if (got & only).any() else f"all {only.sum()}"
            return (f"Query {q[at]} may see key {k[at]}, because {name}; yours says False. That is so in {count} pairs which are allowed for "
                    f"that reason alone.{_where(q[lacking], k[lacking])}{_start(case)}")


def _where(q, k):
    for said, test in (("a query and its own position", q == k), ("a query and a later key", k > q), ("a query and an earlier key", k < q)):
        if test.all() and len(q) > 3:
            return f" Each of them is {said}."
    return ""


def _start(case):
    q_idx, k_idx = case.args[4:]
    if q_idx.ndim == 2 and q_idx.shape[1] == 1 and q_idx[0, 0]:
        return f" (Here q_idx begins at {q_idx[0, 0]} and k_idx at {k_idx[0, 0]}.)"
    return ""


@observe
def too_much(case, got, want):
    if got.dtype.kind != "b":
        return None
    left, right, n_global, random_keys, *_ = case.args
    q, k, _ = _rules(case)
    extra = got & ~want
    if extra.any():
        at = tuple(np.argwhere(extra)[0])
        drawn = f", drawn for it: {sorted(set(random_keys[q[at]].tolist()))}" if random_keys.size else ""
        return (f"Query {q[at]} may not see key {k[at]}, and yours says True (left = {left}, right = {right}, n_global = {n_global}{drawn}). There "
                f"are {extra.sum()} such pairs, {(extra & (k > q)).sum()} of them with the key after the query.{_start(case)}")


@observe
def numbers(case, got, want):
    if got.dtype.kind in "iuf" and ((got != 0) == want).all():
        return f"Your predicate is not 0 exactly where True is asked for, but holds numbers ({got.dtype}): it should hold booleans."
