"""Exercise: which blocks of keys a query keeps."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Which blocks are worth reading?"
CHAPTER = "15_sparse"
POINTS, EDGE_POINTS = 6, 1
PROMPT = r"""
Some sparse attention lets each query choose which blocks of keys to read. Write `top_k_blocks(q, k, block, top)` for causal
self-attention: `q` and `k` are (..., seq, dim_head); keys b · `block` to (b + 1) · `block` − 1 form block b, and the last block may be
shorter. The score of a query with a block is its dot product with the **mean** of the block's keys. Every query keeps the block in
which it stands itself, whatever its score; that counts as one of `top` (at least 1). Of the blocks that lie wholly before that one it
keeps the `top` − 1 with the highest scores, or all if there are fewer; of two equal scores the earlier block is taken first. Later
blocks are never kept. Return a boolean array (..., seq, n_blocks), True where the query keeps the block.
"""


def top_k_blocks(q, k, block, top):
    # BEGIN SOLUTION
    seq = k.shape[-2]
    starts = range(0, seq, block)
    means = [k[..., b:b + block, :].mean(axis=-2) for b in starts]
    scores = q @ np.stack(means, axis=-1)  # (..., seq, n_blocks)
    own = np.arange(seq)[:, None] // block  # (seq, 1)
    index = np.arange(len(starts))  # (n_blocks,)
    scores = np.where(index < own, scores, -np.inf)
    scores = np.where(index == own, np.inf, scores)  # always first
    order = np.argsort(-scores, axis=-1, kind="stable")  # best block first
    rank = np.argsort(order, axis=-1)  # place of each block in that order
    return (rank < top) & (index <= own)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads dim_head", 4, 7)

    def inputs(seq, *lead):
        return rng.normal(size=(*lead, seq, s.dim_head)), rng.normal(size=(*lead, seq, s.dim_head))

    whole, shorter = ({"seq": seq, "n_blocks": 8, "dim_head": s.dim_head} for seq in (24, 23))
    yield case("whole blocks", *inputs(24), 3, 3, dims=whole)
    yield case("a last block that is shorter", *inputs(23), 3, 3, dims=shorter)
    yield case("leading axes", *inputs(23, s.batch, s.heads), 3, 4, dims={**vars(s), **shorter})
    yield case("top = 1: the own block alone", *inputs(20), 3, 1)
    yield case("top larger than the number of blocks", *inputs(20), 3, 30)
    yield case("blocks of one key", *inputs(12), 1, 4)
    q, k = inputs(24)
    yield case("scores that grow along the sequence", np.abs(q), k + np.arange(24)[:, None] / 3, 3, 3, dims=whole)
    yield case("scores that fall along the sequence", np.abs(q), k - np.arange(24)[:, None] / 3, 3, 3, dims=whole)
    q, k = (rng.integers(-3, 4, size=(80, s.dim_head)).astype(float) for _ in range(2))
    k = np.concatenate([k[:20]] * 4)  # five blocks, four times
    yield case("blocks of equal score", q, k, 4, 6, edge=True, dims={"seq": 80, "n_blocks": 20, "dim_head": s.dim_head})


def _scores(q, k, block, summary=None):
    """Scores of queries with blocks, by the mean of their keys or another summary of them."""
    starts = range(0, k.shape[-2], block)
    if summary == "largest":
        return np.stack([(q @ k[..., b:b + block, :].swapaxes(-1, -2)).max(axis=-1) for b in starts], axis=-1)
    if summary == "first":
        return q @ np.stack([k[..., b, :] for b in starts], axis=-1)
    if summary == "last":
        return q @ np.stack([k[..., min(b + block, k.shape[-2]) - 1, :] for b in starts], axis=-1)
    if summary == "interleaved":
        return q @ np.stack([k[..., b::len(starts), :].mean(axis=-2) for b in range(len(starts))], axis=-1)
    return q @ np.stack([k[..., b:b + block, :].mean(axis=-2) for b in starts], axis=-1)


def _keep(scores, block, top, own_first=True, causal=True, own_extra=False, flip=False, late=False, at_least=False):
    seq, count = scores.shape[-2:]
    own, index = np.arange(seq)[:, None] // block, np.arange(count)
    allowed = index < own if own_first else index <= own
    allowed = allowed | ((index > own) & (not causal))
    scores = np.where(allowed, -scores if flip else scores, -np.inf)
    if own_first:
        scores = np.where(index == own, -np.inf if own_extra else np.inf, scores)
    if at_least:
        nth = -np.sort(-scores, axis=-1)[..., min(top, count) - 1:min(top, count)]
        return (scores >= nth) & (allowed | (index == own))
    if late:
        rank = np.argsort(np.argsort(-scores[..., ::-1], axis=-1, kind="stable"), axis=-1)[..., ::-1]
    else:
        rank = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1)
    return (rank < top) & allowed | ((index == own) & own_first)


@wrong("The own block is kept only if its score is among the best. It is to be kept always: a query has to be able to see itself.")
def own_block_competes(q, k, block, top):
    return _keep(_scores(q, k, block), block, top, own_first=False)


@wrong("A query of yours keeps blocks that lie after its own. The attention is causal: of what is still to come nothing may be read, not "
       "even a mean.")
def not_causal(q, k, block, top):
    return _keep(_scores(q, k, block), block, top, causal=False)


@wrong("You keep `top` blocks before the own one, and the own one on top of these: one too many. The own block counts as one of `top`.")
def own_block_extra(q, k, block, top):
    return _keep(_scores(q, k, block), block, top, own_extra=True)


@wrong("You keep the blocks of lowest score: argsort sorts upwards.")
def lowest(q, k, block, top):
    return _keep(_scores(q, k, block), block, top, flip=True)


@wrong("Of two blocks of equal score you take the later one; the task takes the earlier. Is the sort stable, and in which direction does it "
       "go?")
def later_of_equals(q, k, block, top):
    return _keep(_scores(q, k, block), block, top, late=True)


@wrong("Where two blocks have the same score you keep both, and so more than `top` in all: a comparison with the lowest score that is kept "
       "does not count.")
def all_equals(q, k, block, top):
    return _keep(_scores(q, k, block), block, top, at_least=True)


@wrong("Your score is that of the best key in a block; the task takes the block's mean key.")
def best_key(q, k, block, top):
    return _keep(_scores(q, k, block, "largest"), block, top)


@wrong("Your score is that of the first key of a block; the task takes the mean of the block's keys.")
def first_key(q, k, block, top):
    return _keep(_scores(q, k, block, "first"), block, top)


@wrong("Your blocks are interleaved: every n_blocks-th key falls into one block. Keys of one block stand next to each other.")
def interleaved(q, k, block, top):
    return _keep(_scores(q, k, block, "interleaved"), block, top)


@wrong("You keep the latest blocks, whatever the scores: your choice does not depend on q and k.")
def latest(q, k, block, top):
    own, index = np.arange(k.shape[-2])[:, None] // block, np.arange(-(-k.shape[-2] // block))
    return np.broadcast_to((index <= own) & (own - index < top), (*k.shape[:-1], len(index))).copy()


@wrong("All queries of yours choose by the same scores, summed over queries. Each query chooses for itself.")
def one_choice_for_all(q, k, block, top):
    scores = _scores(q, k, block)
    return _keep(np.broadcast_to(scores.mean(axis=-2, keepdims=True), scores.shape), block, top)


@wrong("You choose by the size of the score without its sign: a very negative score is the worst one, not one of the best.")
def absolute(q, k, block, top):
    return _keep(np.abs(_scores(q, k, block)), block, top)


@wrong("The last block is missing in your result where it is shorter than the others: it counts as a block, too.")
def whole_blocks_only(q, k, block, top):
    count = k.shape[-2] // block
    return _keep(_scores(q, k, block), block, top)[..., :count]


def _first(mask):
    return tuple(int(i) for i in np.argwhere(mask)[0])


@observe
def later_or_own(case, got, want):
    block = case.args[2]
    if got.dtype.kind != "b":
        return None
    own, index = np.arange(got.shape[-2])[:, None] // block, np.arange(got.shape[-1])
    later, missing = got & (index > own), ~got & (index == own)
    if later.any():
        *_, i, b = _first(later)
        return f"Query {i} stands in block {i // block} and keeps block {b}, which is still to come ({later.sum()} such pairs)."
    if missing.any():
        *_, i, b = _first(missing)
        return f"Query {i} does not keep block {b}, in which it stands itself ({missing.sum()} of {missing.any(axis=-1).size} queries)."


@observe
def numbers_of_blocks(case, got, want):
    block, top = case.args[2:]
    if got.dtype.kind != "b":
        return None
    mine, right = got.sum(axis=-1), want.sum(axis=-1)
    if (mine != right).any():
        at = _first(mine != right)
        there = at[-1] // block + 1
        return (f"Query {at[-1]} keeps {mine[at]} block{'s' * int(mine[at] != 1)}. top = {top}, and up to its own there are {there}: {right[at]} expected ({(mine != right).sum()} of "
                f"{mine.size} queries keep another number).")


@observe
def another_choice(case, got, want):
    q, k, block = case.args[:3]
    if got.dtype.kind != "b" or (got.sum(axis=-1) != want.sum(axis=-1)).any():
        return None
    rows = np.argwhere((got != want).any(axis=-1))
    pairs = []                                  # (scores of a block's keys) for one block kept and one left out, row by row
    for at in map(tuple, rows):
        blocks = [int(np.flatnonzero(x[at] & ~y[at])[0]) for x, y in ((got, want), (want, got))]
        pairs.append((blocks, [k[at[:-1]][b * block:(b + 1) * block] @ q[at] for b in blocks]))
    (mine, right), (scores, others) = pairs[0]
    query = rows[0][-1]
    if np.isclose(scores.mean(), others.mean(), rtol=1e-12, atol=1e-12):
        return f"The numbers of blocks are right. Query {query} keeps block {mine} and not block {right}, whose score is the same: which one comes first?"
    said = (f"The numbers of blocks are right, the choice is not in {len(rows)} of {want.size // want.shape[-1]} rows: query {query} keeps block {mine} with "
            f"a score of {scores.mean():.4g} and not block {right} with {others.mean():.4g}.")
    for name, best in (("first key", lambda x: x[0]), ("last key", lambda x: x[-1]), ("best key", np.max), ("worst key", np.min),
                       ("score without its sign", lambda x: abs(x.mean()))):
        if len(pairs) > 3 and block > 1 and all(best(a) > best(b) for _, (a, b) in pairs):
            return f"{said} In all these rows the {name} of the block you keep is higher."
    if len(pairs) > 3 and all(a > b for (a, b), _ in pairs):
        return f"{said} In all these rows the block you keep is the later one."
    return said
