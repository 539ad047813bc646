"""Exercise: window, global tokens and drawn keys as one predicate."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Window, global tokens and some keys at random"
CHAPTER = "15_sparse"
POINTS = 5
PROMPT = r"""
Big Bird {cite}`zaheer2020` lets every query see its neighbourhood, a few global tokens, and some keys drawn at random. Write
`bigbird_rule(left, right, n_global, random_keys)`, which returns a **function** `predicate(q_idx, k_idx)`: True where the query at position
`q_idx` may see the key at position `k_idx`. A query sees its own position, up to `left` keys before it and `right` keys after it; the
first `n_global` positions are global: as keys they are seen by every query, as queries they see every key. `random_keys`, an integer
array (seq, n_random), holds in row i the positions that were drawn for query i (some may repeat; there may be none, n_random = 0).
`q_idx` and `k_idx` are integer arrays that broadcast against each other, such as (seq_q, 1) and (1, seq_k); the result is a boolean
array of their common shape. They hold positions, and may be a part of the sequence only. Nothing here is causal.
"""


def bigbird_rule(left, right, n_global, random_keys):
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
        raise TypeError(f"bigbird_rule returns a {type(predicate).__name__}, expected a function predicate(q_idx, k_idx)")
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

    def bigbird_rule(left, right, n_global, random_keys):
        return lambda q, k: join(near(q, k, left, right), is_global(q, k, n_global), drawn(q, k, random_keys))

    return bigbird_rule


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


def _grid(case):
    return np.broadcast_arrays(*case.args[4:])


def _facts(case, q, k):
    """What there is to know about one pair, rule by rule; which of them is met is left to the reader."""
    left, right, n_global, random_keys = case.args[:4]
    drawn = f", drawn for query {q}: {sorted(set(random_keys[int(q)].tolist()))}" if random_keys.size else ""
    start = case.args[4].ravel()[0]
    begins = f"; q_idx begins at {start} here" if case.args[4].shape[1] == 1 and start else ""
    return f"(left = {left}, right = {right}, n_global = {n_global}{drawn}{begins})"


def _where(case, wrong):
    """What all wrong pairs have in common, if it is more than one and can be said in few words."""
    q, k = (x[wrong] for x in _grid(case))
    n_global = case.args[2]
    tests = [("a query and its own position", q == k), ("a global query and some key", q < n_global),
             ("a global key and some query", k < n_global), ("a query and the key next to it", np.abs(q - k) == 1),
             ("a query and a later key", k > q), ("a query and an earlier key", k < q)]
    said = next((f", each of them {text}" for text, test in tests if test.all()), "") if len(q) > 2 else ""
    return f"{len(q)} such pair{'s' * (len(q) > 1)}{said}."


@observe
def all_or_nothing(case, got, want):
    if got.dtype.kind == "b" and (got.all() or not got.any()):
        left, right, n_global, random_keys = case.args[:4]
        return (f"Your predicate is {bool(got.flat[0])} for every pair (left = {left}, right = {right}, n_global = {n_global}, "
                f"{random_keys.shape[-1]} keys drawn for each query). Ask of each rule alone what it gives here.")


@observe
def lines_of_global_tokens(case, got, want):
    q, k = _grid(case)
    if got.dtype.kind != "b" or not case.args[2]:
        return None
    rows, columns = got[q < case.args[2]], got[k < case.args[2]]
    if rows.size and columns.size and rows.all() != columns.all():
        name, other = ("query", "key") if columns.all() else ("key", "query")
        return f"A global position, taken as a {other}, is True throughout in your result; taken as a {name} it is not."


@observe
def too_little(case, got, want):
    lacking = want & (got == 0)
    if lacking.any() and got.dtype.kind == "b":
        q, k = (int(x[lacking][0]) for x in _grid(case))
        return f"Query {q} may see key {k}, and yours says False {_facts(case, q, k)}. There are {_where(case, lacking)}"


@observe
def too_much(case, got, want):
    extra = ~want & (got != 0)
    if extra.any() and got.dtype.kind == "b":
        q, k = (int(x[extra][0]) for x in _grid(case))
        keys = case.args[3]
        back = f" Position {q} was drawn for query {k}, not the other way round." if keys.size and q in keys[k] and k not in keys[q] else ""
        return f"Query {q} may not see key {k}, and yours says True {_facts(case, q, k)}.{back} There are {_where(case, extra)}"


@observe
def numbers(case, got, want):
    if got.dtype.kind in "iuf" and ((got != 0) == want).all():
        return f"Your predicate is not 0 exactly where True is asked for, but holds numbers ({got.dtype}): it should hold booleans."
