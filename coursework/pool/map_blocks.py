"""Exercise: which blocks of a mask have to be computed, and which of them need no mask."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Which blocks can be skipped?"
CHAPTER = "15_sparse"
POINTS, EDGE_POINTS = 4, 1
RETURNS = ("touched", "whole")
PROMPT = r"""
Code that computes attention block by block can skip a block of the scores in which no pair is allowed, and needs no mask in one in which
every pair is. Write `map_blocks(mask, block_q, block_k)`, which returns two boolean arrays, `(touched, whole)`. `mask` (..., seq_q,
seq_k) is True where a query may attend. It is cut into blocks of `block_q` queries by `block_k` keys, from the first query and the first key
on; where a length does not divide, the last block is smaller and consists of the pairs that exist. Both results are (..., blocks of
queries, blocks of keys): `touched` is True where **any** pair of the block is allowed, `whole` where **all** are.
"""


def map_blocks(mask, block_q, block_k):
    # BEGIN SOLUTION
    rows = np.arange(0, mask.shape[-2], block_q)  # where blocks begin
    columns = np.arange(0, mask.shape[-1], block_k)
    touched = np.logical_or.reduceat(mask, rows, axis=-2)
    touched = np.logical_or.reduceat(touched, columns, axis=-1)
    whole = np.logical_and.reduceat(mask, rows, axis=-2)
    whole = np.logical_and.reduceat(whole, columns, axis=-1)
    return touched, whole
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads block_q block_k blocks_q blocks_k", 2, 7)
    bq, bk = s.block_q, s.block_k
    names = {"block_q": bq, "block_k": bk, "blocks of queries": s.blocks_q, "blocks of keys": s.blocks_k}

    def drawn(seq_q, seq_k, *lead):
        """Blocks that are empty, whole, or one pair away from either."""
        shape = *lead, -(-seq_q // bq), -(-seq_k // bk)
        fill, flip = rng.random(shape) < 0.5, rng.random(shape) < 0.5
        fill[..., -1, :], fill[..., :, -1] = True, True
        fill[..., -1, ::2], fill[..., ::2, -1] = False, False
        flip[..., -1, :] = flip[..., :, -1] = False
        fill[..., 0, :2], flip[..., 0, :2] = [True, False], True
        mask = np.repeat(np.repeat(fill, bq, axis=-2), bk, axis=-1)[..., :seq_q, :seq_k].copy()
        for at in np.argwhere(flip):
            row, column = at[-2] * bq + rng.integers(bq), at[-1] * bk + rng.integers(bk)
            mask[(*at[:-2], min(row, seq_q - 1), min(column, seq_k - 1))] ^= True
        return mask

    q, k = s.blocks_q * bq, s.blocks_k * bk
    yield case("whole blocks", drawn(q, k), bq, bk, dims=names)
    yield case("leading axes", drawn(q, k, s.batch, s.heads), bq, bk, dims=vars(s))
    causal = np.arange(q)[:, None] >= np.arange(q)
    yield case("a causal mask", causal, bq, bk)
    band = np.abs(np.arange(24)[:, None] - np.arange(24)) <= 5
    yield case("a window", band, 4, 3)
    yield case("blocks of one pair", rng.random((5, 7)) < 0.5, 1, 1)
    yield case("lengths that blocks do not divide", drawn(q - 1, k - 1), bq, bk, edge=True)
    yield case("last blocks of a single query and a single key", drawn(q + 1, k + 1), bq, bk, edge=True)
    yield case("one block, larger than the mask", np.ones((3, 5), bool), 8, 9, edge=True)


def _cut(mask, block_q, block_k, fill=False, reduce_any=np.any, reduce_all=np.all):
    """Pad to whole blocks, then reduce over axes that hold one block's queries and keys."""
    pad = [(0, 0)] * (mask.ndim - 2) + [(0, -mask.shape[-2] % block_q), (0, -mask.shape[-1] % block_k)]
    full = np.pad(mask, pad, constant_values=fill)
    cut = full.reshape(*full.shape[:-2], full.shape[-2] // block_q, block_q, full.shape[-1] // block_k, block_k)
    return reduce_any(cut, axis=(-3, -1)), reduce_all(cut, axis=(-3, -1))


def _every(mask, block_q, block_k, say):
    """Ask `say` about every block by itself; for two axes or more."""
    flat = mask.reshape(-1, *mask.shape[-2:])
    made = np.array([[[say(m[i:i + block_q, j:j + block_k]) for j in range(0, m.shape[1], block_k)] for i in range(0, m.shape[0], block_q)]
                     for m in flat])
    return made.reshape(*mask.shape[:-2], *made.shape[1:])


@wrong("Right where blocks divide the lengths. You fill the last ones up with False, or ask for block_q · block_k allowed pairs: a smaller "
       "block is whole when all pairs that it has are allowed.")
def padded_with_false(mask, block_q, block_k):
    return _cut(mask, block_q, block_k)


@wrong("Right where blocks divide the lengths. You fill the last ones up with True: some of them count as touched for pairs that do not "
       "exist.")
def padded_with_true(mask, block_q, block_k):
    return _cut(mask, block_q, block_k, fill=True)


@wrong("What does not fill a whole block is cut off: the last queries and keys belong to no block of yours, and would never be attended to.")
def cut_off(mask, block_q, block_k):
    seq_q, seq_k = mask.shape[-2] // block_q * block_q, mask.shape[-1] // block_k * block_k
    return _cut(mask[..., :seq_q, :seq_k], block_q, block_k)


@wrong("The two results are in the wrong order: `touched` first, then `whole`.")
def wrong_order(*args):
    return map_blocks(*args)[::-1]


@wrong("Your `whole` is your `touched`. One allowed pair makes a block touched; how many make it whole?")
def any_twice(*args):
    touched, _ = map_blocks(*args)
    return touched, touched


@wrong("Your `touched` asks for all pairs of a block. A block with one allowed pair must be computed, too.")
def all_twice(*args):
    _, whole = map_blocks(*args)
    return whole, whole


@wrong("Your second result marks the blocks that do need a mask: touched, but not whole. Those that are whole are asked for.")
def partly(*args):
    touched, whole = map_blocks(*args)
    return touched, touched & ~whole


@wrong("Your second result marks the blocks in which no pair is allowed. Whole means that every pair is: True may attend.")
def empty_instead_of_whole(*args):
    touched, _ = map_blocks(*args)
    return touched, ~touched


@wrong("Both results follow the opposite polarity: you ask for pairs that are False. In this mask True may attend.")
def opposite(mask, block_q, block_k):
    return map_blocks(~mask, block_q, block_k)


@wrong("You look at the first pair of each block alone. The others may differ from it.")
def first_pair(mask, block_q, block_k):
    return mask[..., ::block_q, ::block_k], mask[..., ::block_q, ::block_k]


@wrong("You look at the corners of each block. For a causal mask that is enough; any pair inside may differ in others.")
def corners(mask, block_q, block_k):
    return tuple(_every(mask, block_q, block_k, lambda b, f=f: f([b[0, 0], b[0, -1], b[-1, 0], b[-1, -1]])) for f in (np.any, np.all))


@wrong("Your blocks are interleaved: every so many-th query falls into one block. A reshape to (blocks, size) keeps neighbours together; one to "
       "(size, blocks) does not.")
def interleaved(mask, block_q, block_k):
    n_q, n_k = -(-mask.shape[-2] // block_q), -(-mask.shape[-1] // block_k)
    pairs = [[mask[..., i::n_q, j::n_k] for j in range(n_k)] for i in range(n_q)]
    return tuple(np.stack([np.stack([f(p, axis=(-2, -1)) for p in row], axis=-1) for row in pairs], axis=-2) for f in (np.any, np.all))


@wrong("The sizes of the blocks are exchanged: `block_q` is for queries, which are the rows.")
def sizes_exchanged(mask, block_q, block_k):
    return map_blocks(mask, block_k, block_q)


@wrong("You combine all leading axes into one map. Each mask of a batch has blocks of its own.")
def one_map_for_all(mask, block_q, block_k):
    flat = mask.reshape(-1, *mask.shape[-2:])
    return map_blocks(flat.any(axis=0), block_q, block_k)[0], map_blocks(flat.all(axis=0), block_q, block_k)[1]


def _pairs(case, at):
    """The pairs of one block as a sentence."""
    mask, block_q, block_k = case.args
    part = mask[(*at[:-2], slice(at[-2] * block_q, (at[-2] + 1) * block_q), slice(at[-1] * block_k, (at[-1] + 1) * block_k))]
    lead = f" of the mask {tuple(at[:-2])}" if len(at) > 2 else ""
    smaller = " (a smaller one, at the end)" if part.size < block_q * block_k else ""
    said = "all" if part.all() else "none" if not part.any() else str(int(part.sum()))
    return f"block ({at[-2]}, {at[-1]}){lead}{smaller}", f"{said} of its {part.size} pairs {'is' if said in ('1', 'none') else 'are'} allowed"


@observe
def whole_without_a_touch(case, got, want):
    odd = got[1] & ~got[0]
    if odd.any():
        name, facts = _pairs(case, tuple(int(i) for i in np.argwhere(odd)[0]))
        return f"Your map calls {name} whole and not touched, which no block can be: {facts}."


@observe
def one_place(case, got, want):
    mask, block_q, block_k = case.args
    if mask.shape[-2] % block_q or mask.shape[-1] % block_k or (got[0] == want[0]).all():
        return None
    for i in range(block_q):
        for j in range(block_k):
            if (got[0] == mask[..., i::block_q, j::block_k]).all():
                return f"Your `touched` is what the pair ({i}, {j}) of each block says; the other {block_q * block_k - 1} have no say in it."


@observe
def a_block(case, got, want):
    for name, mine, right in (("touched", got[0], want[0]), ("whole", got[1], want[1])):
        off = mine != right
        if not off.any():
            continue
        mask, block_q, block_k = case.args
        last = np.zeros(off.shape, bool)
        last[..., -1, :] |= bool(mask.shape[-2] % block_q)
        last[..., -1] |= bool(mask.shape[-1] % block_k)
        where = " Every block that is wrong is a smaller one." if (last | ~off).all() else ""
        block, facts = _pairs(case, tuple(int(i) for i in np.argwhere(off)[0]))
        return (f"`{name}` is wrong for {off.sum()} of {off.size} blocks. In {block}, {facts}, and yours says "
                f"{bool(mine[off][0])}.{where}")
