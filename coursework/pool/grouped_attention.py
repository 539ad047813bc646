"""Exercise: grouped-query attention in which query heads share keys and values without copies of them."""

import numpy as np

from attnlib.reference import attention
from coursework import case, observe, sizes, wrong

TITLE = "Share without copying"
CHAPTER = "06_multi_head"
POINTS, EDGE_POINTS = 6, 2
PROMPT = r"""
Write `grouped_attention(q, k, v)` with `q` (..., heads, seq_q, dim_head) and `k`, `v` (..., kv_heads, seq_k, ·), where kv_heads divides
heads. Neighbouring query heads share: with 6 heads and 2 key heads, heads 0, 1, 2 meet key head 0. Return `out`
(..., heads, seq_q, dim_v) and `weights` (..., heads, seq_q, seq_k), and never build the repeated keys or values: the check measures memory.
`attention(q, k, v)`, which returns `out` and `weights` and takes any leading axes, is given. Hint: to one key head, the queries of its
whole group are just a longer list of queries. (Leaving the repetition to broadcasting inside `attention` is not enough: it blanks unused
values for each query head, and that is a copy.)
"""
GIVEN = "import numpy as np\n\nfrom attnlib.reference import attention"
RETURNS = ("out", "weights")


def grouped_attention(q, k, v):
    # BEGIN SOLUTION
    *lead, heads, seq_q, dim_head = q.shape
    kv_heads, seq_k = k.shape[-3:-1]
    group = heads // kv_heads
    longer = q.reshape(*lead, kv_heads, group * seq_q, dim_head)
    out, weights = attention(longer, k, v)  # neighbours, one after the other
    return (out.reshape(*lead, heads, seq_q, v.shape[-1]),
            weights.reshape(*lead, heads, seq_q, seq_k))
    # END SOLUTION


def _draw(rng, s, lead, heads, kv_heads, seq_q=None):
    shapes = ((*lead, heads, seq_q or s.seq_q, s.dim_head), (*lead, kv_heads, s.seq_k, s.dim_head), (*lead, kv_heads, s.seq_k, s.dim_v))
    return [rng.normal(size=shape) for shape in shapes]


def cases(rng):
    s = sizes(rng, "batch seq_q seq_k dim_head dim_v", least=7, most=12)
    d = {name: size for name, size in vars(s).items() if name != "batch"}
    few, more = (2, 3) if rng.integers(2) else (3, 2)
    yield case("no leading axes", *_draw(rng, s, (), 6, few), dims={**d, "heads": 6, "kv_heads": few})
    yield case("a leading axis", *_draw(rng, s, (s.batch,), 6, more), dims={**vars(s), "heads": 6, "kv_heads": more})
    yield case("two leading axes", *_draw(rng, s, (2, s.batch), 4, 2), dims={**vars(s), "heads": 4, "kv_heads": 2})
    yield case("one key head for all", *_draw(rng, s, (s.batch,), 6, 1), dims={**vars(s), "heads": 6, "kv_heads": 1})
    yield case("a key head for each head", *_draw(rng, s, (s.batch,), 4, 4), dims={**vars(s), "heads": 4})
    yield case("a single query", *_draw(rng, s, (), 6, few, seq_q=1), dims={n: size for n, size in d.items() if n != "seq_q"})
    many = [rng.normal(size=shape) for shape in ((32, 1, 64), (1, 1024, 64), (1, 1024, 64))]
    yield case("memory, with 32 heads and one key head", *many, edge=True, memory=8 * many[1].nbytes,
               dims={"heads": 32, "seq_k": 1024, "dim_head": 64})


def heavy(rng):
    many = [rng.normal(size=shape) for shape in ((32, 1, 64), (1, 16_384, 64), (1, 16_384, 64))]
    yield case("memory, with 32 heads and a long key head", *many, edge=True, memory=8 * many[1].nbytes)


@wrong("The values are right, but keys or values were copied for each query head: repeating them builds the copies, and so does "
       "broadcasting inside `attention`. What can be reshaped instead, without being copied?")
def too_much_memory(q, k, v):
    group = q.shape[-3] // k.shape[-3]
    return attention(q, np.repeat(k, group, axis=-3), np.repeat(v, group, axis=-3))


@wrong("Your heads share in turns: head h meets key head h modulo kv_heads. Neighbouring heads share, so key head 0 belongs to the "
       "first whole group.")
def tiles(q, k, v):
    ones = (1,) * (q.ndim - 3)
    group = q.shape[-3] // k.shape[-3]
    return attention(q, np.tile(k, (*ones, group, 1, 1)), np.tile(v, (*ones, group, 1, 1)))


@wrong("All heads meet key head 0; the other keys and values are never read.")
def first_only(q, k, v):
    first = q.shape[-3]
    return attention(q, np.repeat(k[..., :1, :, :], first, axis=-3), np.repeat(v[..., :1, :, :], first, axis=-3))


@wrong("All heads meet one and the same key head, the mean of all. Each key head serves its own group as it is.")
def averages_keys(q, k, v):
    one = [np.repeat(a.mean(axis=-3, keepdims=True), q.shape[-3], axis=-3) for a in (k, v)]
    return attention(q, *one)


@wrong("You make the heads fewer: each group's queries are averaged into one. Keys and values are shared, queries are not: as many heads "
       "come out as go in.")
def pools_queries(q, k, v):
    *lead, _, seq_q, dim_head = q.shape
    return attention(q.reshape(*lead, k.shape[-3], -1, seq_q, dim_head).mean(axis=-3), k, v)


@wrong("What you return still has the groups as one long list of queries: the axis of heads has only kv_heads entries. Cut it again into "
       "heads.")
def stays_long(q, k, v):
    *lead, _, _, dim_head = q.shape
    return attention(q.reshape(*lead, k.shape[-3], -1, dim_head), k, v)


@wrong("The results are right, but an axis of their own is left for the groups: heads are asked for as **one** axis.")
def stays_apart(q, k, v):
    out, weights = grouped_attention(q, k, v)
    *lead, heads, seq_q, _ = q.shape
    kv_heads = k.shape[-3]
    return tuple(a.reshape(*lead, kv_heads, heads // kv_heads, seq_q, -1) for a in (out, weights))


@wrong("`out` is right, but the weights are not cut back into heads.")
def weights_stay_long(q, k, v):
    out, _ = grouped_attention(q, k, v)
    return out, stays_long(q, k, v)[1]


@wrong("Your `out` is cut in the wrong order: you read the long list as if the heads of a group took turns, query by query. It holds all "
       "queries of one head, then all of the next.")
def cuts_by_query(q, k, v):
    *lead, heads, seq_q, dim_head = q.shape
    kv_heads = k.shape[-3]
    group = heads // kv_heads
    out, weights = attention(q.reshape(*lead, kv_heads, group * seq_q, dim_head), k, v)
    return tuple(a.reshape(*lead, kv_heads, seq_q, group, -1).swapaxes(-2, -3).reshape(*lead, heads, seq_q, -1) for a in (out, weights))


@wrong("You return `weights` first. `out` comes first, then `weights`.")
def weights_first(q, k, v):
    return grouped_attention(q, k, v)[::-1]


@wrong("You return `out` alone. The weights are asked for too.")
def only_out(q, k, v):
    return grouped_attention(q, k, v)[0]


@wrong("The scores are not divided by √dim_head.")
def unscaled(q, k, v):
    return grouped_attention(q * q.shape[-1] ** 0.5, k, v)


@wrong("The scores are divided by √dim_head twice: `attention` does it already.")
def scaled_twice(q, k, v):
    return grouped_attention(q / q.shape[-1] ** 0.5, k, v)


@wrong("You join the keys of all key heads into one long list: every query then chooses among the keys of all heads at once.")
def joins_the_keys(q, k, v):
    *lead, heads, seq_q, dim_head = q.shape
    every = [a.reshape(*lead, 1, -1, a.shape[-1]) for a in (k, v)]
    out, weights = attention(q.reshape(*lead, 1, -1, dim_head), *every)
    parts = weights.reshape(*lead, heads, seq_q, k.shape[-3], -1).sum(axis=-2)
    return out.reshape(*lead, heads, seq_q, -1), parts


def _near(a, b):
    return bool(np.isclose(a, b, rtol=1e-7, atol=1e-9).all())


def _alone(case, head, kv_head):
    """One query head with one key head."""
    q, k, v = case.args
    return attention(q[..., head, :, :], k[..., kv_head, :, :], v[..., kv_head, :, :])


def _clear(got, want):
    """Whether these are real, finite numbers, off by more than a lower precision would do; the rest is said elsewhere."""
    pairs = list(zip(got, want, strict=True))
    return (all(g.dtype.kind == "f" and np.isfinite(g).all() for g, _ in pairs)
            and any(np.abs(g - w).max() > 1e-3 * np.abs(w).max() for g, w in pairs))


@observe
def wrong_partner(case, got, want):
    """Say which key head a query head has met."""
    if not _clear(got, want):
        return None
    q, k, _ = case.args
    heads, kv_heads = q.shape[-3], k.shape[-3]
    for index, name in ((1, "weights"), (0, "out")):
        for head in range(heads):
            if _near(got[index][..., head, :, :], want[index][..., head, :, :]):
                continue
            for other in range(kv_heads):
                if _near(got[index][..., head, :, :], _alone(case, head, other)[index]):
                    return (f"In your {name} head {head} of {heads} has met key head {other}; it should be key head "
                            f"{head * kv_heads // heads} of {kv_heads}. Neighbours share.")
            for other in range(heads):
                if other != head and _near(got[index][..., head, :, :], want[index][..., other, :, :]):
                    return f"What you return as {name} of head {head} is that of head {other}."


@observe
def one_of_two(case, got, want):
    if not _clear(got, want):
        return None
    for right, wrong_one, says in ((0, 1, "out is right, weights are not"), (1, 0, "weights are right, out is not")):
        if _near(got[right], want[right]) and not _near(got[wrong_one], want[wrong_one]):
            rows = got[wrong_one].reshape(-1, got[wrong_one].shape[-1])
            moved = _near(np.sort(rows, axis=0), np.sort(want[wrong_one].reshape(rows.shape), axis=0))
            return f"Of your results {says}." + (" Its rows are all there, in another order." if moved else "")


@observe
def rows_elsewhere(case, got, want):
    """Rows that are right, but at another head and query."""
    if not _clear(got, want):
        return None
    heads = case.args[0].shape[-3]
    first = tuple(0 for _ in range(want[1].ndim - 3))
    have, asked = got[1][first], want[1][first]
    if _near(have, asked) or heads == 1:
        return None
    head, query = map(int, np.argwhere(~np.isclose(have, asked, rtol=1e-7, atol=1e-9).all(axis=-1))[0])
    hits = np.argwhere(np.isclose(asked, have[head, query], rtol=1e-7, atol=1e-9).all(axis=-1))
    if len(hits):
        return (f"What you return as the weights of head {head}, query {query} is the row of head {hits[0][0]}, query {hits[0][1]}: the long "
                "list was put together in one order and taken apart in another.")


@observe
def blended(case, got, want):
    """The same for all heads of a group, or normalised over too many keys."""
    if not _clear(got, want):
        return None
    heads, kv_heads = case.args[0].shape[-3], case.args[1].shape[-3]
    group = heads // kv_heads
    if group > 1 and _near(got[1][..., 1:group, :, :], got[1][..., :1, :, :]):
        return f"Heads 0 to {group - 1} have the same weights in your result. They share keys, but each has its own queries."
    rows = got[1].sum(axis=-1)
    if not _near(rows, 1):
        return (f"The rows of your weights sum to between {rows.min():.3g} and {rows.max():.3g}: a query spends 1 on the keys of its own "
                "key head.")
