"""Exercise: a sliding window as a predicate, in which an error by one raises no error."""

import numpy as np

from coursework import Variant, case, observe, wrong

TITLE = "A window"
CHAPTER = "03_scores"
POINTS, EDGE_POINTS = 3, 1
PROMPT = r"""
Write `window(left, right)`, which returns a **predicate**: a function of two positions `q_idx` and `k_idx` that says whether the query may see
the key, `True` or `False`. A query sees `left` keys before it, itself, and `right` keys after it. Its own position is not counted, so
`window(2, 0)` shows three keys. The predicate must take arrays as well as numbers (a column of queries with a row of keys gives one row of
booleans for each query), and arrays need `&` where numbers would do with `and`. (A window that is off by one raises no error and passes every
shape test.)
"""

VARIANTS = {
    "counts_itself": Variant(
        "`left` and `right` both count the query itself: `window(3, 1)` shows three keys, the query's own and two before it. (With a 0, not even "
        "its own key is seen.)",
        args=lambda left, right: (left - 1, right - 1),
        hint="Your window does not count the query's own position, as in the book. Here both numbers count it."),
    "width": Variant(
        "the first argument is the width, the number of keys that a query sees in all, and the last of these keys stands as many places after "
        "the query as the second argument says: `window(4, 1)` shows two keys before the query, itself, and one after it.",
        args=lambda left, right: (left - right - 1, right),
        hint="You take the first number for the keys before the query, as in the book. Here it is the number of all keys in the window."),
}


def window(left, right):
    # BEGIN SOLUTION
    def predicate(q_idx, k_idx):
        return (q_idx - k_idx <= left) & (k_idx - q_idx <= right)
    return predicate
    # END SOLUTION


def drive(f, left, right, q_idx, k_idx):
    """Lists are positions to be asked about one pair at a time, as ints."""
    predicate = f(left, right)
    if not callable(predicate):
        raise TypeError(f"window(left, right) returns a {type(predicate).__name__}, expected a function of q_idx and k_idx")
    if isinstance(q_idx, list):
        return [[predicate(q, k) for k in k_idx] for q in q_idx]
    return predicate(q_idx, k_idx)


def _asked(label, left, right, q_idx, k_idx, edge=False):
    return case(f"{label}, window({left}, {right})", left, right, q_idx, k_idx, edge=edge)


def cases(rng):
    seq, new = int(rng.integers(11, 14)), int(rng.integers(3, 5))
    column, row = np.arange(seq)[:, None], np.arange(seq)[None, :]
    yield _asked("queries down, keys across", 4, 2, column, row)
    yield _asked("more after than before", int(rng.integers(1, 3)), 3, column, row)
    yield _asked("nothing after", int(rng.integers(2, 5)), 0, column, row)
    yield _asked("one pair at a time", 2, 1, [seq - 6, seq - 1], list(range(seq)))
    yield _asked("nothing before", 0, int(rng.integers(2, 5)), column, row)
    yield _asked("the last queries and all keys, as with a cache", 3, 1, column[-new:], row)
    yield _asked("one key for each query", 3, 1, rng.permutation(seq), rng.permutation(seq))
    yield _asked("itself only", 0, 0, column, row, edge=True)
    yield _asked("wider than the sequence", seq + 2, 0, column, row, edge=True)


def _made(allowed):
    """`window` from a condition on left, right and how far the key is ahead."""
    return lambda left, right: (lambda q_idx, k_idx: allowed(left, right, k_idx - q_idx))


@wrong("You count the query's own position: a window that shows `left` keys in all up to the query is one short. Its own is to come on top.")
def counts_itself(left, right):
    return _made(lambda left, right, ahead: (-ahead < left) & (ahead <= right))(left, right)


@wrong("Both sides of your window are one key short: `<` where the last key of the side should still be seen.")
def both_short(left, right):
    return _made(lambda left, right, ahead: (-ahead < left) & (ahead < right))(left, right)


@wrong("Your window is one key short on the right: count the keys after the query that it shows.")
def right_short(left, right):
    return _made(lambda left, right, ahead: (-ahead <= left) & (ahead < right))(left, right)


@wrong("Your window shows one key too many on the left: count the keys before the query that it shows.")
def one_too_many(left, right):
    return _made(lambda left, right, ahead: (-ahead <= left + 1) & (ahead <= right))(left, right)


@wrong("Left and right are exchanged: your window reaches `right` keys back and `left` keys ahead. The key that lies before a query has the "
       "smaller position.")
def exchanged(left, right):
    return window(right, left)


@wrong("Yours reaches as far ahead as it reaches back. It looks at the distance without its sign, so `right` has no say.")
def symmetric(left, right):
    return _made(lambda left, right, ahead: abs(ahead) <= left)(left, right)


@wrong("Yours sees the same number of keys to each side, the larger of the two numbers. Before and after have limits of their own.")
def larger_of_both(left, right):
    return window(max(left, right), max(left, right))


@wrong("You join the two conditions with *or*. Every key meets one of them, so everything is seen; both have to hold.")
def either(left, right):
    return _made(lambda left, right, ahead: (-ahead <= left) | (ahead <= right))(left, right)


@wrong("Yours is `True` outside the window and `False` inside. `True` means may attend.")
def hidden(left, right):
    return _made(lambda left, right, ahead: (-ahead > left) | (ahead > right))(left, right)


@wrong("Your window ends at the query: nothing after it is seen, whatever `right` says.")
def no_right(left, right):
    return _made(lambda left, right, ahead: (-ahead <= left) & (ahead <= 0))(left, right)


@wrong("Your window limits what lies ahead, and lets a query see everything before it, however far back.")
def no_left(left, right):
    return _made(lambda left, right, ahead: ahead <= right)(left, right)


@wrong("Your window lets a query see everything after it: `left` is kept, `right` sets no limit.")
def no_right_limit(left, right):
    return _made(lambda left, right, ahead: -ahead <= left)(left, right)


@wrong("Your queries do not see their own position. A window (0, 0) shows one key, the query's own.")
def without_itself(left, right):
    return _made(lambda left, right, ahead: (-ahead <= left) & (ahead <= right) & (ahead != 0))(left, right)


@wrong("You take `left` and `right` for positions in the sequence: which keys are seen does not depend on the query. They are distances from "
       "the query.")
def positions(left, right):
    return lambda q_idx, k_idx: (k_idx >= left) & (k_idx <= q_idx * 0 + left + right)


@wrong("Your result is right for numbers, and an error for arrays: `and`, `if` and a chain such as `a <= k_idx <= b` ask an array for one truth "
       "value. The prompt names what takes their place.")
def python_and(left, right):
    return lambda q_idx, k_idx: q_idx - left <= k_idx and k_idx <= q_idx + right


@wrong("Your window has the right width and stands in the wrong place: it is centred on the query. `left` keys before and `right` after are asked "
       "for.")
def centred(left, right):
    return _made(lambda left, right, ahead: (-ahead <= (left + right + 1) // 2) & (ahead <= (left + right) // 2))(left, right)


@wrong("You return numbers, 0 and 1. A mask of numbers cannot be combined with `~` as booleans can.")
def zeros_and_ones(left, right):
    return lambda q_idx, k_idx: ((q_idx - k_idx <= left) & (k_idx - q_idx <= right)) * 1


def _seen(case, got):
    """How far ahead the keys stand that each query is allowed: a list for each query, where all keys are asked about."""
    q_idx, k_idx = case.args[2:]
    if isinstance(q_idx, list):
        rows, queries, keys = np.asarray(got), np.array(q_idx), np.array(k_idx)
    elif np.ndim(q_idx) == 2:
        rows, queries, keys = np.asarray(got), q_idx[:, 0], k_idx[0]
    else:
        return None
    if rows.dtype.kind != "b" or rows.shape != (len(queries), len(keys)):
        return None
    return int(keys.max()), {int(q): (keys[row] - q).tolist() for q, row in zip(queries, rows, strict=True)}


def _keys(n):
    return f"{n} key" + ("s" if n != 1 else "")


@observe
def not_itself(case, got, want):
    left, right = case.args[:2]
    seen = _seen(case, got)
    if seen and not any(0 in ahead for ahead in seen[1].values()):
        return f"With window({left}, {right}) no query of yours sees its own position."


@observe
def with_gaps(case, got, want):
    left, right = case.args[:2]
    seen = _seen(case, got)
    for q, ahead in seen[1].items() if seen else ():
        if ahead and len(ahead) < ahead[-1] - ahead[0] + 1:
            return (f"With window({left}, {right}) your query {q} sees keys {[q + a for a in ahead]}. A window has no gaps.")


@observe
def how_many(case, got, want):
    """Asked of a query in the middle, so that the ends of the sequence cut nothing off, if there is one."""
    left, right = case.args[:2]
    seen = _seen(case, got)
    if not seen:
        return None
    last, rows = seen
    expected = _seen(case, want)[1]
    wrong = [q for q in rows if rows[q] != expected[q]]
    whole = [q for q in wrong if q - left >= 0 and q + right <= last] or wrong
    if not whole:
        return None
    q = whole[len(whole) // 2]
    before, after = sum(a < 0 for a in rows[q]), sum(a > 0 for a in rows[q])
    itself = "itself" if 0 in rows[q] else "not itself"
    reach = " It stands near one end of the sequence." if q - left < 0 or q + right > last else ""
    return (f"With window({left}, {right}) your query {q} of positions 0 to {last} sees {_keys(before)} before it, {itself}, and "
            f"{_keys(after)} after it.{reach}")


@observe
def pairs(case, got, want):
    left, right, q_idx, k_idx = case.args
    got = np.asarray(got)
    if isinstance(q_idx, list) or np.ndim(q_idx) != 1 or got.dtype.kind != "b" or (got == want).all():
        return None
    at = int(np.argmax(got != want))
    return f"With window({left}, {right}) you say {bool(got[at])} of query {q_idx[at]} and key {k_idx[at]}."
