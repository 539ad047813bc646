"""Exercise: three projections out of one packed array, stored in either of two orders."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Read other people's weights"
CHAPTER = "06_multi_head"
POINTS = 4
PROMPT = r"""
Two ways to store $W_Q$, $W_K$, $W_V$ as one array `packed` (3·dim, dim), used as `x @ packed.T`. *Stacked*, as in
`nn.MultiheadAttention`: all of $W_Q$, then $W_K$, then $W_V$. *Interleaved*, as in GPT-NeoX: the query rows of head 0, its key rows, its
value rows, then head 1, and so on. Write `unpack(packed, heads, interleaved)`, which returns `w_q, w_k, w_v`, to be used as `x @ w_q`,
each (dim, heads·dim_head) with heads·dim_head = dim: head 0 owns the first dim_head columns, head 1 the next, and so on.
"""
RETURNS = ("w_q", "w_k", "w_v")


def unpack(packed, heads, interleaved):
    # BEGIN SOLUTION
    dim = packed.shape[1]
    if interleaved:
        blocks = packed.reshape(heads, 3, dim // heads, dim)
        packed = blocks.swapaxes(0, 1)  # (3, heads, dim_head, dim)
    return tuple(part.T for part in packed.reshape(3, dim, dim))
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "heads dim_head", least=4, most=7)
    dim = s.heads * s.dim_head
    d = {"heads": s.heads, "dim_head": s.dim_head, "dim": dim}
    packed = rng.normal(size=(3 * dim, dim))
    yield case("stacked", packed, s.heads, False, dims=d)
    yield case("interleaved", packed, s.heads, True, dims=d)
    other = rng.normal(size=(9 * s.heads, 3 * s.heads))
    yield case("interleaved, three heads", other, 3, True, dims={"dim_head": s.heads, "dim": 3 * s.heads})
    yield case("interleaved, one head", packed, 1, True, dims={"dim": dim})
    yield case("interleaved, heads of width 1", rng.normal(size=(3 * s.heads, s.heads)), s.heads, True, dims={"heads": s.heads})
    yield case("stacked, in float32", packed.astype(np.float32), s.dim_head, False, dims={"dim": dim})


@wrong("The parts are right, but not transposed: `packed` is used as `x @ packed.T`, your arrays as `x @ w_q`.")
def not_transposed(packed, heads, interleaved):
    return tuple(w.T for w in unpack(packed, heads, interleaved))


@wrong("You cut into three thirds whatever `interleaved` says. In the interleaved order, the first third holds the query, key and value "
       "rows of the first heads.")
def always_stacked(packed, heads, interleaved):
    return unpack(packed, heads, False)


@wrong("You read every array as interleaved. Where all of W_Q comes first, that deals its rows out to W_Q, W_K and W_V.")
def always_interleaved(packed, heads, interleaved):
    return unpack(packed, heads, True)


@wrong("Stacked and interleaved are exchanged: your answer to `interleaved=True` is that for `False`, and the other way round.")
def flag_reversed(packed, heads, interleaved):
    return unpack(packed, heads, not interleaved)


@wrong("You deal single rows out: 0 to the queries, 1 to the keys, 2 to the values, 3 to the queries again. It is blocks of dim_head "
       "rows that take turns.")
def deals_rows(packed, heads, interleaved):
    if interleaved:
        return tuple(packed[i::3].T for i in range(3))
    return unpack(packed, heads, False)


@wrong("Interleaved, you cut into blocks of `heads` rows. A head has dim_head rows, and there are `heads` of them: which "
       "number is the length of a block?")
def blocks_of_heads(packed, heads, interleaved):
    return unpack(packed, packed.shape[1] // heads, interleaved)


@wrong("Interleaved, you name the three before the heads when you cut: that reads three parts and in each the heads, which is the stacked "
       "order. The first axis of a reshape runs slowest: what changes slowest in `packed`?")
def three_first(packed, heads, interleaved):
    dim = packed.shape[1]
    if interleaved:
        packed = packed.reshape(3, heads, dim // heads, dim).swapaxes(0, 1)
    return tuple(part.T for part in packed.reshape(3, dim, dim))


@wrong("Queries and keys are exchanged. In both orders the queries come first.")
def keys_first(packed, heads, interleaved):
    w_q, w_k, w_v = unpack(packed, heads, interleaved)
    return w_k, w_q, w_v


@wrong("Keys and values are exchanged: the order is queries, keys, values.")
def values_second(packed, heads, interleaved):
    w_q, w_k, w_v = unpack(packed, heads, interleaved)
    return w_q, w_v, w_k


@wrong("Your arrays are reshaped where they should be transposed: they have the right shape, but a row of `packed` does not "
       "become a column.")
def reshaped(packed, heads, interleaved):
    dim = packed.shape[1]
    return tuple(part.reshape(dim, dim) for part in packed.T.reshape(3, dim, dim))


@wrong("Interleaved, the columns of a head are not side by side in your arrays: column 0 of every head comes first, then column 1 of every "
       "head. Head h should own dim_head neighbouring columns.")
def heads_dealt(packed, heads, interleaved):
    parts = unpack(packed, heads, interleaved)
    dim = packed.shape[1]
    if not interleaved:
        return parts
    return tuple(w.reshape(dim, heads, dim // heads).swapaxes(1, 2).reshape(dim, dim) for w in parts)


@wrong("You return one array with all three side by side. Three are asked for.")
def one_array(packed, heads, interleaved):
    return np.concatenate(unpack(packed, heads, interleaved), axis=1)


def _owner(case, row):
    """What a row of packed belongs to."""
    packed, heads, interleaved = case.args
    dim = packed.shape[1]
    width = dim // heads
    if interleaved:
        head, rest = divmod(row, 3 * width)
        part, place = divmod(rest, width)
    else:
        part, rest = divmod(row, dim)
        head, place = divmod(rest, width)
    return ("query", "key", "value")[part], head, place


def _origin(case, column):
    """The row of packed that equals a column, or None."""
    hit = (case.args[0] == column).all(axis=1)
    return int(hit.argmax()) if hit.any() else None


def _clear(got, want):
    """Whether these are real, finite numbers, off by more than a lower precision would do; the rest is said elsewhere."""
    pairs = list(zip(got, want, strict=True))
    return (all(g.dtype.kind == "f" and np.isfinite(g).all() for g, _ in pairs)
            and any(np.abs(g - w).max() > 1e-3 * np.abs(w).max() for g, w in pairs))


@observe
def transposed_parts(case, got, want):
    if not _clear(got, want):
        return None
    if all(np.array_equal(g, w.T) for g, w in zip(got, want, strict=True)):
        return "Each of your three arrays is right transposed: rows of `packed` should become columns."


@observe
def other_part(case, got, want):
    if not _clear(got, want):
        return None
    for name, g, w in zip(RETURNS, got, want, strict=True):
        for other, theirs in zip(RETURNS, want, strict=True):
            if np.array_equal(g, theirs) and not np.array_equal(g, w):
                return f"Your `{name}` is what `{other}` should be."


@observe
def rows_of_others(case, got, want):
    """Say where the first wrong column comes from."""
    if not _clear(got, want):
        return None
    order = "interleaved" if case.args[2] else "stacked"
    for name, g, w in zip(RETURNS, got, want, strict=True):
        for c in np.flatnonzero((g != w).any(axis=0)):
            row = _origin(case, g[:, c])
            if row is not None:
                part, head, place = _owner(case, row)
                right = _origin(case, w[:, c])
                return (f"Column {c} of your `{name}` is row {row} of `packed`. In the {order} order that is row {place} of head {head}'s "
                        f"{part} part; row {right} should stand there.")
            row = _origin(case, g[c])
            if row is not None:
                return f"Row {c} of your `{name}` is row {row} of `packed`: rows of `packed` should become columns."


@observe
def mixed_columns(case, got, want):
    if not _clear(got, want):
        return None
    for name, g in zip(RETURNS, got, strict=True):
        found = np.isin(g, case.args[0])
        if found.all() and all(_origin(case, column) is None for column in g.T):
            return (f"All numbers of your `{name}` stand somewhere in `packed`, but no column of it is a row of `packed`: rows have been "
                    "cut up.")
        if not found.all():
            return f"{(~found).sum()} numbers of your `{name}` do not occur in `packed` at all."
