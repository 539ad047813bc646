"""Exercise: a bias for each query and key, looked up by their distance."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Learned distances"
CHAPTER = "07_positions"
POINTS = 3
PROMPT = r"""
Write `relative_bias(table, seq_q, seq_k)`: a bias (seq_q, seq_k) for each query and key, looked up by the distance *query position − key
position*, clipped to $[-c, c]$. `table` has $2c + 1$ entries, `table[0]` for distance $-c$ (a key $c$ or more *after* the query),
`table[c]` for distance 0. Queries are the last `seq_q` of the `seq_k` positions.
"""


def relative_bias(table, seq_q, seq_k):
    # BEGIN SOLUTION
    reach = len(table) // 2
    q_idx = np.arange(seq_k - seq_q, seq_k)[:, None]         # (seq_q, 1)
    distance = q_idx - np.arange(seq_k)                      # (seq_q, seq_k)
    return table[np.clip(distance, -reach, reach) + reach]
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "few seq", least=4, most=12)
    seq_q, seq_k = sorted((s.few, s.seq))
    table = rng.normal(size=next(n for n in (7, 5, 9) if n not in (seq_q, seq_k)))
    d = {"seq_k": seq_k, "2c + 1": len(table)}
    yield case("as many queries as keys", table, seq_k, seq_k, dims=d)
    yield case("fewer queries than keys", table, seq_q, seq_k, dims={"seq_q": seq_q, **d})
    yield case("a single query, as when decoding with a cache", table, 1, seq_k, dims=d)
    yield case("a table that reaches farther than the sequence", rng.normal(size=2 * seq_k + 5), seq_q, seq_k,
               dims={"seq_q": seq_q, "seq_k": seq_k})
    yield case("a table of three entries, and a long sequence", rng.normal(size=3), 20, 30, dims={"seq_q": 20, "seq_k": 30})
    yield case("a table of one entry", rng.normal(size=1), seq_q, seq_k, dims={"seq_q": seq_q, "seq_k": seq_k})
    slope = rng.uniform(0.3, 0.7)
    yield case("ALiBi as a table", -slope * np.abs(np.arange(1 - seq_k, seq_k)), seq_k, seq_k, dims={"seq_k": seq_k})
    yield case("one query, one key", table, 1, 1)


def _distance(seq_q, seq_k):
    return np.arange(seq_k - seq_q, seq_k)[:, None] - np.arange(seq_k)


@wrong("Your distance is key minus query: keys before the query get the biases of keys after it. The distance to an earlier key is "
       "positive.")
def key_minus_query(table, seq_q, seq_k):
    reach = len(table) // 2
    return table[np.clip(-_distance(seq_q, seq_k), -reach, reach) + reach]


@wrong("Right where there are as many queries as keys. With fewer, your first query stands at position 0; they are the **last** "
       "positions.")
def from_the_start(table, seq_q, seq_k):
    reach = len(table) // 2
    distance = np.arange(seq_q)[:, None] - np.arange(seq_k)
    return table[np.clip(distance, -reach, reach) + reach]


@wrong("The distance itself is the index, and distance 0 reads `table[0]`: negative indices count from the end of the table. Where does "
       "distance 0 stand?")
def without_the_offset(table, seq_q, seq_k):
    reach = len(table) // 2
    return table[np.clip(_distance(seq_q, seq_k), -reach, reach)]


@wrong("The distances are not clipped, or to too wide a range (the table has 2c + 1 entries): beyond its end there is none, and below its "
       "start a negative index reads from the other end.")
def not_clipped(table, seq_q, seq_k):
    return table[_distance(seq_q, seq_k) + len(table) // 2]


@wrong("Distances that are too large start again at the other end of the table: a remainder is not a limit.")
def wraps_around(table, seq_q, seq_k):
    return table[(_distance(seq_q, seq_k) + len(table) // 2) % len(table)]


@wrong("You take the distance without its sign: a key two before the query and a key two after it get one bias. They have an entry each.")
def absolute(table, seq_q, seq_k):
    reach = len(table) // 2
    return table[np.clip(np.abs(_distance(seq_q, seq_k)), 0, reach) + reach]


@wrong("All keys after the query get one bias, that of distance 0: the clip stops at 0 where it should stop at -c.")
def clips_at_zero(table, seq_q, seq_k):
    reach = len(table) // 2
    return table[np.clip(_distance(seq_q, seq_k), 0, reach) + reach]


@wrong("You clip one entry too early on the far side: distance c never reads the last entry of the table.")
def clips_early(table, seq_q, seq_k):
    reach = len(table) // 2
    return table[np.clip(_distance(seq_q, seq_k), -reach, max(reach - 1, -reach)) + reach]


@wrong("Queries run across and keys down in your result: (seq_k, seq_q). Rows belong to queries.")
def transposed(table, seq_q, seq_k):
    return relative_bias(table, seq_q, seq_k).T


@wrong("Everything is one place off: a query's own position reads the entry of distance 1. Distance 0 is `table[c]`.")
def one_off(table, seq_q, seq_k):
    reach = len(table) // 2
    return table[np.clip(_distance(seq_q, seq_k) + 1, -reach, reach) + reach]


@wrong("You return the clipped distances. They are where to look; what stands there in the table?")
def the_distances(table, seq_q, seq_k):
    reach = len(table) // 2
    return np.clip(_distance(seq_q, seq_k), -reach, reach).astype(float)


def _entries(case, got):
    """For each bias the index in the table at which it stands, -1 where it does not occur; None if entries repeat."""
    table = case.args[0]
    if len(set(table)) < len(table):
        return None
    same = got[..., None] == table
    return np.where(same.any(axis=-1), same.argmax(axis=-1), -1)


def _clear(got, want):
    """Whether these are real, finite numbers, off by more than a lower precision would do; the rest is said elsewhere."""
    return (got.dtype.kind == "f" and np.isfinite(got).all()
            and np.abs(got - want).max() > 1e-3 * np.abs(want).max())


@observe
def not_from_the_table(case, got, want):
    if not _clear(got, want):
        return None
    strange = ~np.isin(got, case.args[0])
    if strange.any():
        i, j = map(int, np.argwhere(strange)[0])
        return f"Your bias at ({i}, {j}) is {got[i, j]:.4g}, which is no entry of the table. Entries are looked up, not computed."


@observe
def along_a_diagonal(case, got, want):
    if not _clear(got, want):
        return None
    a, b = got[1:, 1:], got[:-1, :-1]
    if (a != b).any():
        i, j = map(int, np.argwhere(a != b)[0])
        return (f"Query {i + 1} and key {j + 1} are as far from each other as query {i} and key {j}, but your biases differ: "
                f"{a[i, j]:.3g} and {b[i, j]:.3g}. Only the distance counts.")


@observe
def own_position(case, got, want):
    if not _clear(got, want):
        return None
    table = case.args[0]
    at = _entries(case, got)
    reach = len(table) // 2
    if at is not None and at[-1, -1] != reach:
        side = "the entry of distance 0" if at[-1, -1] < 0 else f"table[{at[-1, -1]}], the entry of distance {at[-1, -1] - reach}"
        return f"The last query stands at the last key, distance 0, so it reads table[{reach}] there; yours reads {side}."


@observe
def which_entry(case, got, want):
    """Say which entry a wrong bias is, by the distance it belongs to."""
    if not _clear(got, want):
        return None
    table, seq_q, seq_k = case.args
    at, reach = _entries(case, got), len(table) // 2
    if at is None or (at < 0).any():
        return None
    wrong_ones = np.argwhere(got != want)
    i, j = map(int, wrong_ones[0])
    position, distance = seq_k - seq_q + i, seq_k - seq_q + i - j
    asked = int(np.clip(distance, -reach, reach))
    clipped = f", clipped to {asked}" if asked != distance else ""
    sides = {bool(seq_k - seq_q + a - b > 0) for a, b in wrong_ones}
    where = {frozenset({True}): " All that is wrong concerns keys before the query.",
             frozenset({False}): " All that is wrong concerns keys after the query."}.get(frozenset(sides), "")
    return (f"Query {i} stands at position {position}, key {j} at {j}: the distance is {distance}{clipped}, so table[{asked + reach}] is "
            f"asked for. Yours is table[{at[i, j]}], the entry of distance {at[i, j] - reach}.{where}")
