# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Walk only the blocks that matter
#
# Chapter 15 skipped blocks in PyTorch. For a causal mask or a window a GPU kernel can compute which ones; for any pattern, it is told: it gets a list. In this chapter you make that list from a map of blocks, write the kernel that walks it, and count what the walk costs: forward, backward, and in decoding, where one query meets a long cache.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapter 15 (maps of blocks), chapter 21 (the forward kernel, compile reports) and chapter 22 (two walks backwards); for decoding chapters 18 (the KV cache) and 19 (FLOPs per byte). **You will build** the lists and the block-sparse kernel of `attnlib.kernels`, and a small model of how its programs share a GPU. **Time** about 65 minutes; the cells run in under a minute, in Triton's interpreter.
# Nothing on this page was timed on a GPU. {numref}`fig-blocks-lists` is what the kernel reads.
# :::

# %%
import os

os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: kernels run on the CPU, program after program

import heapq
import inspect
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import torch
import triton
import triton.language as tl
from torch.nn.attention.flex_attention import create_block_mask

# %%
from attnlib import costs, kernels, masks, sparse
from attnlib.kernels.backward import dkdv_kernel, dq_kernel
from attnlib.kernels.blocks import blocks_dkdv_kernel, blocks_dq_kernel
from attnlib.kernels.forward import attend_tile, forward_kernel, head_start, load_tile, store_tile
from attnlib.kernels.index import block_index
from attnlib.kernels.shipped import compile_arguments, constants, shipped_for_blocks
from attnlib.plots import block_kernel as plots

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
rng = np.random.default_rng(0)


def draw(*shape):
    return torch.randn(shape, generator=generator)

# %% [markdown]
# ## What is left to walk?
#
# Seven patterns for 16,384 tokens, all causal: no pattern beyond that, two {term}`windows <window>` (of 256 and 1024 keys, the query's own among them), 64 global tokens with the larger window, 128 keys of which each is the eighth before the next (every eighth of the last 1024), sixteen documents of random length, and Big Bird's mixture.

# %%
n = 16384
document = np.searchsorted(np.sort(rng.choice(np.arange(1, n), 15, replace=False)), np.arange(n), side="right")
PATTERNS = {
    "causal": masks.causal,
    "window 256": masks.sliding_window(255),
    "window 1024": masks.sliding_window(1023),
    "global": masks.both(masks.causal, masks.either(masks.global_tokens(64), masks.sliding_window(1023))),
    "dilated": masks.dilated(127, 8),
    "documents": masks.both(masks.causal, lambda q_idx, k_idx: document[q_idx] == document[k_idx]),
    "Big Bird": masks.both(masks.causal, masks.bigbird(n, 128)),
}
maps = {name: sparse.block_map(predicate, n, block_size=128) for name, predicate in PATTERNS.items()}

# %% [markdown]
# A dense kernel that is handed one of these {term}`masks <mask>` takes every step of its walk, 16,384 of them, 128 rows of 128 {term}`tiles <tile>`, whatever the mask hides: **masking is not skipping**. The kernel of chapter 21 knows the causal mask and leaves out what lies beyond the diagonal. A kernel that walks lists takes one step for each touched block. Which of the six sparse patterns allows the fewest pairs, and which has the fewest steps?

# %%
def allowed_pairs(found):                                    # [0]: one map for the whole batch; a bias of 0 is an allowed pair, -inf is none
    seen_in_partial = sum(int((row.bias == 0).sum()) for row in found.rows[0])
    return int((found.kinds == 2).sum()) * found.block_size**2 + seen_in_partial


dense = (n // 128) * (n // 128 + 1) // 2  # what chapter 21's kernel walks under a causal mask
steps = {name: int((found.kinds > 0).sum()) for name, found in maps.items()}
print(f"dense {128 * 128} steps, causal {dense}; in a row of the map for window 256 {steps['window 256'] / 128:.1f} of 128 blocks")
for name, found in maps.items():
    print(f"{name:11} {allowed_pairs(found) / n**2:6.2%} of the pairs, {steps[name]:5} steps, {int((found.kinds == 2).sum()):5} of them whole;"
          f" {steps[name] / dense:.3f} of dense causal")
assert steps["causal"] == dense

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The dilated window allows the fewest pairs, half as many as the window of 256, and takes as many steps as the window of 1024, because it touches the same blocks and fills none. Fewest steps has the window of 256. What a kernel saves is counted in blocks.
# :::
#
# ## From a map to lists
#
# A map says for each block of queries and each block of keys: 0, nothing to compute; 1, some pairs; 2, all pairs. A program has one row of blocks. It could read the row of the map and step over zeros: for the window of 256 that is 128 looks for three steps. So turn each row into a list, and put all lists into one array, one after the other: `first[i]` says where row i's begins, and `first[i + 1]` where it ends. (*Compressed sparse rows*, as in
# any library for sparse matrices.) Within a row the whole blocks come first, and `partial[i]` is where the others begin. Why sort them so?
#
# :::{dropdown} Your prediction, then ours
# So that the kernel is two loops, one without masks and one with, as in chapter 21, and no `if` within a loop. (The order of the blocks changes the result by rounding alone: the online softmax takes keys in any order.)
# :::

# %%
from coursework import check, require

# %% [markdown] tags=["ex:block_lists", "ex-prompt"]
# ```{exercise} Lists from a map
# :label: ex-block-lists
# `kinds` is a map of blocks, (blocks_q, blocks_k) ints: 0 for a block that is left out, 1 for a partial one, 2 for one that is allowed whole.
# Write `block_lists(kinds)`, which returns three arrays of ints, `first`, `partial` and
# `blocks`, in this order. `blocks` holds the numbers of the blocks of keys, row after row; in each row
# the whole ones come first, then the partial ones, both in ascending order. `first`, with blocks_q + 1 entries, says where the list of each
# row begins in `blocks`, and last where the last list ends. `partial`, with blocks_q entries, says where the partial blocks of each row begin:
# where its list ends, if it has none. Rows may be empty, and so may the map.
# ```


# %% tags=["ex:block_lists", "ex-stub"]
def block_lists(kinds):
    raise NotImplementedError("replace this line")

# %% tags=["ex:block_lists", "ex-check"]
check(block_lists)

# %% tags=["ex:block_lists", "ex-solution", "hide-cell"]
def block_lists(kinds):
    first, partial, blocks = [0], [], []
    for row in kinds:
        blocks.extend(np.flatnonzero(row == 2))
        partial.append(len(blocks))
        blocks.extend(np.flatnonzero(row == 1))
        first.append(len(blocks))
    return np.array(first), np.array(partial, dtype=int), np.array(blocks, dtype=int)


require(block_lists)

# %% [markdown]
# The library has no loop: it sorts all blocks of the map at once, by row, within it by kind, and within that by column.

# %%
def lists_of(kinds):                                         # (blocks_q, blocks_k)
    row, column = np.nonzero(kinds)
    kind = kinds[row, column].astype(int)
    sort = np.lexsort((column, -kind, row))                  # by row; in it whole blocks first; in those by column
    row, column, kind = row[sort], column[sort], kind[sort]
    first = np.searchsorted(row, np.arange(len(kinds) + 1))  # one more than rows: where the last list ends
    partial = first[:-1] + np.bincount(row[kind == 2], minlength=len(kinds))
    return first, partial, column

# %% [markdown]
# The library's `attnlib.kernels.index.block_index` does this for several maps at once, by rows and by columns; it returns two `Walk`s, `by_query` (rows) and `by_key` (columns), and bits. A `Walk` is (`first`, `partial`, `blocks`, `pattern`, `order`); the last two come below.

# %%
index = {name: block_index(found) for name, found in maps.items()}
for name, found in maps.items():
    walk = index[name].by_query
    for mine, theirs in zip(lists_of(found.kinds[0]), (walk.first, walk.partial, walk.blocks), strict=True):
        assert np.array_equal(mine, theirs)
    assert len(walk.blocks) == steps[name]
print("the same lists for all seven patterns")

# %% [markdown]
# Small enough to draw: 128 tokens in blocks of 16, a window of 48 keys, and 16 global tokens.

# %%
small = masks.both(masks.causal, masks.either(masks.global_tokens(16), masks.sliding_window(47)))
small_map = sparse.block_map(small, 128, block_size=16)
small_index = block_index(small_map)
first, partial, blocks = lists_of(small_map.kinds[0])
print("row 7:", [int(each) for each in blocks[first[7]:first[8]]], "of which the last", first[8] - partial[7], "are partial")

# %% mystnb={"image": {"alt": "Left, a square of eight by eight blocks: a band along the diagonal, whole in its middle and partial on both rims, and a first column that is whole. Right, for each row its blocks as a short list of numbers, the whole ones first."}, "figure": {"caption": "The map and its lists. A row's list holds the numbers of its blocks of keys, whole ones first; a program reads its own row's list and no other.", "name": "fig-blocks-lists"}}
plots.map_and_lists(small_map.kinds[0], first, partial, blocks)
plt.show()

# %% [markdown]
# ## Bits for the edges
#
# In a partial block the kernel needs to know which pairs are allowed. The dense kernel computed that from positions; a list can serve *any* pattern only if the answer comes as data. One bit a pair, 8 to a byte, the first key in the lowest bit:

# %%
corner = masks.to_array(masks.sliding_window(47), 128)[112:, 64:80]  # 16 queries, 16 keys
packed = np.packbits(corner, axis=1, bitorder="little")     # (16 queries, 2 bytes)
row, column = 3, 2
byte, bit = packed[row, column // 8], column % 8
print(f"row {row} of the corner: bytes {packed[row]}; key {column} is bit {bit} of {byte}: {byte >> bit & 1}, allowed: {corner[row, column]}")
assert all((packed[i, j // 8] >> j % 8 & 1) == corner[i, j] for i, j in np.ndindex(16, 16))

# %% [markdown]
# Many blocks have the same bits: on the diagonal of a causal mask they are all the same triangle. Each *different* block is stored once, and an entry of the list has the number of its *bit pattern* (`pattern` in the code). How many bit patterns do you expect for causal, for a window, for documents, and for single pairs at random?

# %%
scattered = rng.random((2048, 2048)) < 0.01
index["one pair in 100, n = 2048"] = block_index(sparse.block_map(lambda q_idx, k_idx: scattered[q_idx, k_idx], 2048, block_size=128))
for name, each in index.items():
    length = 2048 if "2048" in name else n
    lists = sum(4 * part.numel() for part in each.by_query)  # the backward pass has those of by_key, too
    print(f"{name:26} {len(each.bits):4} bit patterns; lists {lists / 1024:5.1f} KiB, bits {each.bits.numel() / 1024:5.1f} KiB;"
          f" a mask {length**2 / 2**20:.0f} MiB")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# One for causal; two for a window, its near and its far edge (three if blocks do not divide its length: then the far edge runs through two; more if they do not divide the sequence); up to a few for each document, because documents begin anywhere in a block; for random pairs as many as blocks, and then the bits are as long as the mask in bits, an eighth of its bytes. (A mask of Booleans takes a byte for each pair.) Both windows need the same 4 KiB of bits. PyTorch's `flex_attention` has lists like these, too; in partial
# blocks it calls the mask's own formula, compiled into the kernel {cite}`dong2024`, which needs no bits, and a compilation for each formula.
# :::
#
# ## The kernel
#
# Three parts are new; all others come from chapter 21. First: which row does a program have? A block may hold several tiles of queries, so `BLOCK // TILE` programs share a row's list. And `order` names the rows with the longest lists first, of which more below.

# %%
@triton.jit
def whose_row(heads, seq, order, map_of, BLOCK: tl.constexpr, TILE: tl.constexpr):
    rows = tl.cdiv(seq, BLOCK)
    tiles = rows * (BLOCK // TILE)
    item, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    batch = item // heads
    sequence = batch // map_of                               # `map_of` batches share one map
    row = tl.load(order + sequence * rows + tile // (BLOCK // TILE))
    return batch, item % heads, sequence * rows + row, row * BLOCK + tile % (BLOCK // TILE) * TILE

# %% [markdown]
# Second: a tile of bits. Each byte is loaded once and spread over its eight keys, by an axis that is folded away again.

# %%
@triton.jit
def seen_in_pattern(bits, pattern, first_q, first_k, BLOCK: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    rows, columns = first_q + tl.arange(0, BLOCK_Q)[:, None], first_k // 8 + tl.arange(0, BLOCK_K // 8)[None, :]
    found = tl.load(bits + tl.cast(pattern, tl.int64) * (BLOCK * (BLOCK // 8)) + (rows * (BLOCK // 8) + columns))
    each = found[:, :, None] >> tl.arange(0, 8).to(tl.uint8)[None, None, :] & 1      # (BLOCK_Q, BLOCK_K / 8, 8)
    return tl.reshape(each, [BLOCK_Q, BLOCK_K]) != 0

# %% [markdown]
# They are `attnlib.kernels.blocks.whose_row` and `attnlib.kernels.blocks.seen_in_pattern`. Third, the walk. Compare it with `forward_kernel`: `range(0, whole)` has become a range over the list, and the place of the keys is *loaded* where it was counted.

# %%
@triton.jit
def blocks_forward_kernel(q, k, v, out, lse2, first, partial, blocks, pattern, order, bits, q_strides, k_strides, v_strides, out_strides,
                          scale, heads, group, seq_q, seq_k, map_of, BLOCK: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr,
                          BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr):
    batch, head, row, first_q = whose_row(heads, seq_q, order, map_of, BLOCK, BLOCK_Q)
    q_tile = load_tile(head_start(q, batch, head, q_strides), first_q, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
    k_head, v_head = head_start(k, batch, head // group, k_strides), head_start(v, batch, head // group, v_strides)
    row_max, row_sum = tl.full([BLOCK_Q], -3e38, tl.float32), tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_V], tl.float32)

    PER_BLOCK: tl.constexpr = BLOCK // BLOCK_K               # steps in a block
    begin, middle, end = tl.load(first + row), tl.load(partial + row), tl.load(first + row + 1)
    for step in range(begin * PER_BLOCK, middle * PER_BLOCK):            # blocks allowed whole: no masks in here
        first_k = tl.load(blocks + step // PER_BLOCK) * BLOCK + step % PER_BLOCK * BLOCK_K
        k_tile = load_tile(k_head, first_k, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, True)
        v_tile = load_tile(v_head, first_k, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, True)
        acc, row_max, row_sum = attend_tile(q_tile, k_tile, v_tile, acc, row_max, row_sum, None, scale, False, PRECISION)
    for step in range(middle * PER_BLOCK, end * PER_BLOCK):
        within = step % PER_BLOCK * BLOCK_K
        first_k = tl.load(blocks + step // PER_BLOCK) * BLOCK + within
        k_tile = load_tile(k_head, first_k, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, False)
        v_tile = load_tile(v_head, first_k, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)
        seen = seen_in_pattern(bits, tl.load(pattern + step // PER_BLOCK), first_q % BLOCK, within, BLOCK, BLOCK_Q, BLOCK_K)
        acc, row_max, row_sum = attend_tile(q_tile, k_tile, v_tile, acc, row_max, row_sum, seen, scale, True, PRECISION)

    divisor = tl.maximum(row_sum, 1e-30)
    out_head = head_start(out, batch, head, out_strides)
    store_tile(out_head, acc / divisor[:, None], first_q, seq_q, out_strides, BLOCK_Q, DIM_V, BLOCK_V)
    at = first_q + tl.arange(0, BLOCK_Q)
    row_lse2 = tl.where(row_sum > 0, row_max + tl.log2(divisor), -float("inf"))
    tl.store(lse2 + (batch * heads + head).to(tl.int64) * seq_q + at, row_lse2, mask=at < seq_q)

# %% [markdown]
# This is `attnlib.kernels.blocks.blocks_forward_kernel`. A tile is not a block: BLOCK is the grain of the *list*, and tiles divide it, so that one list serves kernels with different tiles. The step itself, `attend_tile`, is chapter 21's without a change.

# %%
def launch(q, k, v, lists, block, block_q=16, block_k=16):
    batch, heads, seq_q, dim = q.shape
    out, lse2 = torch.full_like(q, torch.nan), torch.full(q.shape[:3], torch.nan)
    grid = (batch * heads * triton.cdiv(seq_q, block) * (block // block_q),)
    blocks_forward_kernel[grid](
        q, k, v, out, lse2, *lists.by_query, lists.bits, q.stride(), k.stride(), v.stride(), out.stride(), math.log2(math.e) / dim**0.5,
        heads, heads // k.shape[1], seq_q, k.shape[2], batch, BLOCK=block, BLOCK_Q=block_q, BLOCK_K=block_k,
        **constants(dim, dim))
    return out, lse2

# %% [markdown]
# ### Is it right?
#
# The rule of chapter 21: the truth is float64, and the kernel may be off by twice what PyTorch's own attention is in float32, plus one last digit. Two sequences, two query heads on one key head, lengths that no block divides, tiles of 16 by 32 and of 32 by 16 in blocks of 32; our patterns in small, and single pairs at random.

# %%
def errors(q, k, v, predicate, block, **tile):
    found = sparse.block_map(predicate, q.shape[2], k.shape[2], block_size=block)
    truth = sparse.block_sparse_attention(q.double(), k.double(), v.double(), found)
    mask = torch.from_numpy(masks.to_array(predicate, q.shape[2], k.shape[2]))
    keys, values = (each.repeat_interleave(q.shape[1] // k.shape[1], 1) for each in (k, v))
    theirs = torch.nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
    return [(each.double() - truth).abs().max().item() for each in (launch(q, k, v, block_index(found), block, **tile)[0], theirs)]

# %%
q, k, v = draw(2, 2, 101, 24), draw(2, 1, 117, 24), draw(2, 1, 117, 24)
cases = {
    "window": masks.sliding_window(40), "global": small, "dilated": masks.dilated(9, 5), "Big Bird": masks.bigbird(117, 32),
    "documents": masks.both(masks.causal, lambda q_idx, k_idx: q_idx // 45 == k_idx // 45),
    "scattered": lambda q_idx, k_idx: scattered[q_idx, k_idx] | (q_idx == k_idx)}
for i, (name, predicate) in enumerate(cases.items()):
    tile = {"block_q": (16, 32)[i % 2], "block_k": (32, 16)[i % 2]}
    ours, theirs = errors(q, k, v, predicate, 32, **tile)
    assert ours <= 2 * theirs + 1e-7, (name, ours, theirs)
print(f"{len(cases)} patterns: within twice PyTorch's own error")

# %% [markdown]
# And does it really skip? A poisoned key tells: put NaN into the values of every block that row 7's list does not name. A masked dense attention multiplies the NaN by a weight of zero, which is NaN.

# %%
q, k, v = draw(1, 1, 128, 16), draw(1, 1, 128, 16), draw(1, 1, 128, 16)
named = {int(each) for each in blocks[first[7]:first[8]]}
poison = [j for j in range(8) if j not in named]
spoilt = v.clone()
spoilt.view(8, 16, 16)[poison] = torch.nan
by_list, _ = launch(q, k, spoilt, small_index, 16)
by_mask = torch.nn.functional.scaled_dot_product_attention(q, k, spoilt, attn_mask=torch.from_numpy(masks.to_array(small, 128)))
print(f"blocks {poison} poisoned; NaN in rows 112 to 127: by list {by_list[0, 0, 112:].isnan().any()}, by mask {by_mask[0, 0, 112:].isnan().any()}")
assert not by_list[0, 0, 112:].isnan().any()

# %% [markdown]
# ### The block that is not quite whole
#
# Let every pair be allowed, among 100 tokens in blocks of 32. The last block of keys has four keys, all of them allowed, and the map calls it whole, as it should. In the list it goes to the loop without masks. What does that loop read?
#
# Try it. Our 100 rows are cut out of a longer tensor, as the rows of a cache often are.

# %%
everyone = masks.sliding_window(100, 100)
ragged_map = sparse.block_map(everyone, 100, block_size=32)
right = block_index(ragged_map)
first_c, partial_c, blocks_c = (torch.tensor(each, dtype=torch.int32) for each in lists_of(ragged_map.kinds[0]))
careless = right._replace(by_query=right.by_query._replace(first=first_c, partial=partial_c, blocks=blocks_c))
cut = [draw(1, 1, 128, 16)[:, :, :100] for _ in range(3)]
(result, lse2), (wrong, wrong_lse2) = (launch(*cut, each, 32) for each in (right, careless))
lost = 1 - torch.exp2(lse2 - wrong_lse2)
print(f"the kinds of a row: {ragged_map.kinds[0, 0].tolist()}")
print(f"by the kinds as they are, {lost.median():.2f} of a row's weight falls on keys that are not there")
assert lost.min() > 0.02 and torch.allclose(result, torch.nn.functional.scaled_dot_product_attention(*cut), atol=1e-5)

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# 28 rows of whatever lies behind the last key, and they count: 28 of 128 places, 0.22 if all weighed alike. Nothing fails. So `block_index` calls a last block that is shorter *partial*, and the zeros in its bits keep out what lies behind; `lists_of` above agreed with it because 128 divides 16,384, and because under a causal mask the last block is partial as a rule. Rows of *queries* beyond the end do no harm: they are not stored.
# :::
#
# ## What does it become?
#
# The compiler's account, beside the dense kernels with the same tile, for an H100 or H200 and heads 64 wide. What will the lists cost: registers, shared memory, spills?

# %%
pairs = {"forward": (forward_kernel, blocks_forward_kernel), "dkdv": (dkdv_kernel, blocks_dkdv_kernel), "dq": (dq_kernel, blocks_dq_kernel)}
tiles = {name: shipped_for_blocks(name, (9, 0), 16, 64, 128)[0] for name in pairs}
requests = [dict(kernel=kernel, capability=(9, 0), **compile_arguments(kernel, tiles[name], "bf16", 64, causal=True))
            for name, both in pairs.items() for kernel in both]
found = kernels.compile_reports(requests)
reports = dict(zip(pairs, zip(found[::2], found[1::2], strict=True), strict=True))

# %%
for name, both in reports.items():
    for kind, each in zip(("dense", "lists"), both, strict=True):
        print(f"{name:7} {kind} {tiles[name].block_q:3} x {tiles[name].block_k}: {each.registers} registers, {each.spill_stores} B spilled,"
              f" {each.shared / 1024:5.1f} KiB shared, {each.matrix_instructions}, {each.programs_per_multiprocessor} at once")
assert all(each.spill_stores == 0 and "HGMMA" in each.matrix_instructions for both in reports.values() for each in both)

# %% [markdown]
# Nothing spills, and the matrix units do the products. The one thing that differs in all three alike is shared memory, and it has one cause. (Twice the HGMMA in `dkdv` are two loops in the text where the dense kernel has one.) Compare it with one bit for each pair of a tile:

# %%
for name, (without, with_lists) in reports.items():
    more = with_lists.shared - without.shared
    print(f"{name:7} {more:,} bytes more; {tiles[name].block_q} x {tiles[name].block_k} / 8 = {tiles[name].block_q * tiles[name].block_k // 8:,}")
    assert 8 * more == tiles[name].block_q * tiles[name].block_k

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The bits: the compiler hands a tile's bytes from the threads that load them to the threads that hold the scores, through shared memory, and that is all. (A loader that asks for a 32-bit word *for each pair* is shorter, and has them all fetched ahead into shared memory: an open exercise below measures it.) The walk itself, a handful of numbers and one more load for each step, takes no room that one could see. Registers go up in two of the kernels, to 224 and 238 of 255, and down in the third. Whole blocks fetch no bits; how many of a pattern's steps are whole the first table says, and for the window of 1024 it is seven in nine.
# :::
#
# ## How large is a block?
#
# A small block computes less in vain. Count it for five patterns and blocks of 16 to 256. (A block is touched if one of its four quarters is, so the map for 16 holds the others.)

# %%
sizes, computed = [16, 32, 64, 128, 256], {}
for name in ("window 256", "window 1024", "documents", "dilated", "Big Bird"):
    touched, needed = sparse.block_map(PATTERNS[name], n, block_size=16).kinds[0] > 0, allowed_pairs(maps[name])
    computed[name] = []
    for size in sizes:
        computed[name].append(int(touched.sum()) * size**2 / needed)
        touched = touched.reshape(len(touched) // 2, 2, -1, 2).any((1, 3))
    assert np.isclose(computed[name][3] * needed, steps[name] * 128**2)  # as the map for 128 said
    print(f"{name:11}", "  ".join(f"{size}: {each:4.2f}" for size, each in zip(sizes, computed[name], strict=True)))

# %% [markdown]
# What does a large block buy? A step with a tile of $b$ queries and $b$ keys loads keys and values, $2 \cdot 2bd$ bytes in bfloat16, and makes two products of $2b^2d$ FLOPs: $b$ FLOPs for each byte it loads, from the cache or from memory. In this kernel tiles divide blocks, so small blocks mean small tiles. (One that gathers several small blocks of keys into a tile escapes that, on the side of the keys.) And the matrix units have a shape: chapter 21's instruction was `HGMMA.64x64x16`, and the first number is rows. Which of these sizes can use it?

# %%
tile_for = {size: shipped_for_blocks("forward", (9, 0), 16, 64, size)[0] for size in sizes}  # chip 9.0, 16-bit, heads 64 wide
asked = [dict(kernel=blocks_forward_kernel, capability=(9, 0), **compile_arguments(blocks_forward_kernel, tile, "bf16", 64, block_size=size))
         for size, tile in tile_for.items() if size != 128]   # that one we have
new = iter(kernels.compile_reports(asked))
by_size = {size: reports["forward"][1] if size == 128 else next(new) for size in sizes}
for size, each in by_size.items():
    print(f"blocks of {size:3}, tiles of {tile_for[size].block_q:3} x {tile_for[size].block_k:3}: {each.registers:3} registers,"
          f" {each.matrix_instructions}, {each.programs_per_multiprocessor} at once")

# %%
shapes = {size: sorted(set(re.findall(r"wgmma\.mma_async\S*\.(m\d+)n", by_size[size].text["ptx"]))) for size in sizes}
print("rows of the instruction for matrix products, by size of a block:", shapes)
print("block size of flex_attention by default:", inspect.signature(create_block_mask).parameters["BLOCK_SIZE"].default)
assert shapes[64] == shapes[128] == ["m64"] and not shapes[32]

# %% mystnb={"image": {"alt": "Above, pairs computed per pair allowed over the side of a block, 16 to 256: both windows, documents and Big Bird rise slowly from near 1, the larger window least, and Big Bird fast from 128 to 256; the dilated window lies near nine and rises to ten. Below, FLOPs per byte double with each size up to 128 and stay there; 16 and 32 use HMMA, from 64 on HGMMA."}, "figure": {"caption": "What a larger block computes in vain, and what a smaller one cannot use. From 64 on the kernel compiles to the newer matrix instruction.", "name": "fig-blocks-sizes"}}
plots.block_sizes(sizes, computed, [tile_for[size].block_q for size in sizes], [next(iter(by_size[size].matrix_instructions)) for size in sizes])
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# From 64 on. The H100's own instruction for matrix products, `wgmma` in PTX and HGMMA in the machine's code, takes 64 rows at a time; with 16 or 32 the compiler falls back on the A100's, HMMA. With blocks of 16 the window of 256 computes 1.06 pairs for each allowed one, with blocks of 128 1.50; the small blocks pay for that with an eighth of the FLOPs per byte, and with the older instruction. So blocks of 64 or 128 are the usual grain on this chip: 128 is the default of `flex_attention`.
# Big Bird's own blocks are 128 wide here, and a block of 256 pays for that. For the dilated window no size helps: it needs another order of the tokens (chapter 15).
# :::
#
# The last column of the compiler's account, *at once*, speaks for small tiles: several programs at once hide each other's waiting. Where the balance lies in time has **not yet been measured**.
#
# ## Who goes first?
#
# Under a causal mask the dense kernel began with the long rows. Lists have any lengths. As in chapter 21, play it through: a program for each list, each taking as long as its list has entries, on as many slots as the GPU has, one after the other to the first slot that is free. An H100 SXM has 132 multiprocessors {cite}`nvidia2022`, and the report says that one program of this kernel fits into each.

# %%
def makespan(lengths, slots):
    free = [0] * slots                                       # when each slot is free again
    for length in lengths:
        heapq.heapreplace(free, free[0] + int(length))       # the first that is free takes the next
    return max(free)

# %% [markdown]
# Three orders: rows as they are numbered, head after head; the longest list first in each head, which is the library's `order`; the longest first among all heads. Four heads have 4 · 128 programs, about four for each slot, sixteen have sixteen. The end of the last program, over an even share of the work:

# %%
def ends(lengths, heads, slots):
    orders = {"as numbered": np.tile(lengths, heads), "longest first in each head": np.tile(np.sort(lengths)[::-1], heads),
              "longest first of all": np.repeat(np.sort(lengths)[::-1], heads)}
    return {name: makespan(each, slots) * slots / each.sum() for name, each in orders.items()}


slots = 132 * reports["forward"][1].programs_per_multiprocessor
for heads in (4, 16):
    for name in ("causal", "window 1024", "documents", "global"):
        lengths = np.diff(index[name].by_query.first)
        print(f"{heads:2} heads, {name:11}", ", ".join(f"{order} {end:.2f}" for order, end in ends(lengths, heads, slots).items()))

# %% [markdown]
# Sorting matters where lists differ, and where there are few programs for each slot: documents with four heads end at 1.42 in the library's order, which sorts each head by itself, and at 1.05 if the longest of *all* heads begin. With sixteen heads it is 1.11 and 1.01. For the window any order will do. (For jobs begun in this order, the longest first, the end is at most $4/3 - 1/(3P)$ times that of the *best possible* order on $P$ units {cite}`graham1969`. The best order may itself lie above the even share: one program can be longer than it.)
#
# This is a model of waiting, not a measured time: steps do not all take the same, and programs of different key heads that run side by side share no keys in the cache, where those of one do.
#
# ## Backwards: the lists turned round
#
# For `d_k` and `d_v` a program has keys and walks over the queries that see them (chapter 22). It needs the same map by columns: `by_key`. With it every entry of a gradient has one owner again, nobody adds to what another one writes, and two runs with the same tiles on the same GPU agree to the bit. (In the interpreter they would in any case; so look for chapter 22's instruction.)

# %%
for found, each in ((maps["documents"], index["documents"]), (small_map, small_index)):
    turned = lists_of(found.kinds[0].T)
    assert all(np.array_equal(a, b) for a, b in zip(turned, each.by_key[:3], strict=True))
print("block of keys 0 is seen by", small_index.by_key.blocks[: small_index.by_key.first[1]].tolist(), "(0 comes last: it is partial)")

# %%
leaves = [draw(1, heads, 75, 24).requires_grad_() for heads in (2, 1, 1)]
sent = draw(1, 2, 75, 24)


def gradients(attend, given):
    return torch.autograd.grad((attend(*given, small, block_size=32) * sent.to(given[0].dtype)).sum(), given)


def by_kernels(*given, block_size):
    return kernels.block_sparse_attention(*given, block_size=block_size, backend="triton")


ours = gradients(by_kernels, leaves)
truth = gradients(sparse.block_sparse_attention, [each.detach().double().requires_grad_() for each in leaves])
assert all((a - b).abs().max() < 1e-5 * b.abs().max() for a, b in zip(ours, truth, strict=True))  # some 100 roundings of 1e-7
added = [re.findall(r"\b(?:atom|red)\.[\w.]*add[\w.]*", reports[name][1].text["ptx"]) for name in ("dkdv", "dq")]
assert not any(added)
print(f"gradients: right to 1e-5 of the largest; atomic additions in the two kernels: {[len(each) for each in added]}")

# %% [markdown]
# The kernels `attnlib.kernels.blocks.blocks_dkdv_kernel` and `blocks_dq_kernel` are chapter 22's with these lists, as the forward kernel is chapter 21's. One thing is new. Sixteen heads, the pattern with 64 global tokens: forward, no list has more than ten entries. How many has the longest list of `by_key`, and how long does that one program take, compared with everything else?

# %%
assert reports["dkdv"][1].programs_per_multiprocessor * 132 == slots  # as many as forward
turned = {name: np.diff(index[name].by_key.first) for name in ("window 1024", "documents", "global", "Big Bird")}
for name, lengths in turned.items():
    even = 16 * lengths.sum() / slots
    print(f"{name:11} longest list {lengths.max():3}, even share of 16 heads {even:5.1f}")
finish = {name: ends(lengths, 16, slots) for name, lengths in turned.items()}

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# 128: a global block of keys is seen by all blocks of queries, and one program owns it. With few heads that program alone is longer than an even share of all the rest, and no order helps: it is the **critical path**. With Big Bird it is so even for sixteen heads, 128 against 53.6.
# :::
#
# The remedy is to cut long lists, give each part its own program, and add up the parts afterwards in a fixed order, which keeps the bits. In the model, which does not count the adding up, with parts of at most 16 entries:

# %%
def cut_lists(lengths, most):
    return np.concatenate([[most] * (each // most) + [each % most] for each in lengths.tolist()])


for name, lengths in turned.items():
    finish[name]["the same, cut to 16"] = ends(cut_lists(lengths, 16), 16, slots)["longest first of all"]
    print(f"{name:11}", ", ".join(f"{order} {end:.2f}" for order, end in finish[name].items()))

# %% mystnb={"image": {"alt": "For four patterns, bars for four orders. The window and documents end near one in every order. The global pattern ends at about 1.7 unless the longest of all heads come first. Big Bird ends at 3.1, at 2.4 with the longest first of all, and near one only when long lists are cut."}, "figure": {"caption": "The walk over queries, 16 heads, 16,384 tokens, 132 slots: when the last program ends, by the model. One list of all queries holds everybody up.", "name": "fig-blocks-critical"}}
plots.finish(finish)
plt.show()

# %% [markdown]
# The library does **not** cut lists: it is one place where it leaves time unused. {term}`Grouped-query attention <grouped-query attention>` makes it worse: four query heads on a key head mean a quarter of the programs, each four times as long.

# %%
for kv_heads in (16, 4):
    lengths = turned["global"] * (16 // kv_heads)
    print(f"16 heads on {kv_heads:2}:", ", ".join(f"{order} {end:.2f}" for order, end in ends(lengths, kv_heads, slots).items()))

# %% [markdown]
# ## Decoding: one query, a long cache
#
# In decoding there is one query for each head, and a {term}`KV cache` of all earlier keys (chapter 18). The list has one row. Take 32 query heads, 128 wide, and 32,768 tokens. How many FLOPs for each byte, with 32 key heads and with 8?

# %%
peak, rate = 989e12, 3.35e12  # of an H100 SXM: dense bfloat16, and its memory
print(f"balance of the chip: {peak / rate:.0f} FLOP/byte")
for kv_heads in (32, 8, 1):
    cost = costs.decode_cost(32, 32768, 128, kv_heads=kv_heads)
    memory, arithmetic = 2 * cost.moved / rate, cost.flops / peak
    print(f"{kv_heads:2} key heads: {cost.intensity(2):5.2f} FLOP/byte; at least {1e6 * memory:6.1f} us to read, {1e6 * arithmetic:.2f} us to compute")

# %% [markdown]
# As many FLOPs for each byte as query heads share a key (two FLOPs for each of them, and a number has two bytes), and the chip's balance is 295 at its published peaks {cite}`nvidia2022`: **memory decides**, and sharing keys saves time only if memory sends them *once* for all that share them; a cache may see to that, a kernel can make sure. So `attnlib.kernels.decode_attention` packs the queries of a group into one tile. A tile has at least 16 rows; with four queries, twelve are padding, which costs arithmetic that nobody misses.
#
# And there is too little to deal out: one program for each of 8 key heads, and a single sequence. How many of 132 multiprocessors have work?

# %%
for batch in (1, 4, 16):
    programs = batch * 8
    splits = math.ceil(132 / programs)
    print(f"batch {batch:2}: {programs:3} programs; {splits:2} parts each give {programs * splits}")

# %% [markdown]
# Eight: the other 124 look on. So cut the keys into parts, give each part a program, and merge; this is *flash-decoding* {cite}`dao2023b`. Each part leaves its result and its {term}`log-sum-exp`, and chapter 15 showed what to do with them, two at a time. Here as many as there are:

# %%
@triton.jit
def merge_kernel(part_out, part_lse2, out, lse2, parts, rows, DIM_V: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_S: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)                      # of all (batch, kv_heads, rows)
    item, own = row // rows, row % rows
    splits, columns = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_V)
    at = (item * parts + splits) * rows + own
    lse2s = tl.load(part_lse2 + at, mask=splits < parts, other=-float("inf"))
    largest = tl.maximum(tl.max(lse2s, axis=0), -3e38)       # finite, also where no part saw a key
    shares = tl.exp2(lse2s - largest)                        # (BLOCK_S,)
    total = tl.sum(shares, axis=0)
    pieces = tl.load(part_out + at[:, None] * BLOCK_V + columns[None, :], mask=(splits < parts)[:, None], other=0.0)
    merged = tl.sum(pieces * shares[:, None], axis=0) / tl.maximum(total, 1)
    tl.store(out + row * DIM_V + columns, merged.to(out.dtype.element_ty), mask=columns < DIM_V)
    tl.store(lse2 + row, tl.where(total > 0, largest + tl.log2(tl.maximum(total, 1)), -float("inf")))

# %% [markdown]
# It is `attnlib.kernels.decode.merge_kernel`. Parts come as (items, parts, rows, BLOCK_V), an item being the key head of a sequence and rows the queries of its group; a program merges one of them. Three parts of a cache of 300 keys, made in PyTorch; the third is empty for this query, as happens when sequences of a batch have different lengths:

# %%
q, k, v = draw(1, 32), draw(300, 32), draw(300, 32)
scores = q @ k.T / 32**0.5
pieces = [scores[:, :200].softmax(-1) @ v[:200], scores[:, 200:].softmax(-1) @ v[200:], torch.zeros(1, 32)]
lse2s = torch.stack([scores[:, :200].logsumexp(-1), scores[:, 200:].logsumexp(-1), torch.tensor([-torch.inf])]) / math.log(2)
out, lse2 = torch.empty(1, 32), torch.empty(1)
merge_kernel[(1,)](torch.stack(pieces), lse2s, out, lse2, 3, 1, DIM_V=32, BLOCK_V=32, BLOCK_S=4)
assert torch.allclose(out, scores.softmax(-1) @ v, atol=1e-6) and torch.isclose(lse2 * math.log(2), scores.logsumexp(-1))
print("merged: the whole row's result, and its log-sum-exp")

# %% [markdown]
# The first kernel, `attnlib.kernels.decode.split_kernel`, is the forward kernel's walk from one key to another. Both together, eight query heads on two key heads, two sequences of different length, 1 to 8 parts:

# %%
q, k, v, lengths = draw(2, 8, 1, 32), draw(2, 2, 300, 32), draw(2, 2, 300, 32), torch.tensor([300, 77])
truth = kernels.decode_attention(q.double(), k.double(), v.double(), lengths)
found = {splits: kernels.decode_attention(q, k, v, lengths, splits=splits, backend="triton") for splits in (1, 2, 4, 8)}
assert all((each - truth).abs().max() < 1e-6 for each in found.values())  # means of up to 300 numbers near 1
print(f"1, 2, 4 and 8 parts: within 1e-6; the same bits in 1 and in 4 {torch.equal(found[1], found[4])}")

# %% [markdown]
# The same to rounding, not to the bit: another number of parts is another order of sums. Who needs the bits fixes `splits` and the length of the cache; left to the library, chip and batch decide. The parts cost a little: each is written and read again. (For the cache of 32,768 keys and 8 key heads the library aims at two programs for each of 132 multiprocessors, 33 parts; 512 tiles of 64 keys in parts of 16 are 32.)

# %%
for parts in (1, 8, 17, math.ceil(512 / math.ceil(512 / 33))):
    extra = 2 * 4 * 32 * (128 + 1) * parts                   # result and log-sum-exp of 32 heads in float32, written and read
    print(f"{parts:2} parts: {extra / (2 * 2 * 8 * 32768 * 128):.2%} of the cache's bytes")

# %% [markdown]
# ### Sparse decoding
#
# With one query the map has one row. What does a window of 1024 keys read?

# %%
one_row = block_index(sparse.block_map(masks.sliding_window(1023), 1, 32768, block_size=128)).by_query
print("blocks", one_row.blocks.tolist(), f"of 256: {len(one_row.blocks) / 256:.1%} of the cache")
near = costs.decode_cost(32, 1024, 128, kv_heads=8)
print(f"at least {1e6 * 2 * near.moved / rate:.2f} us")

# %%
q, k, v = draw(1, 4, 1, 32), draw(1, 2, 300, 32), draw(1, 2, 300, 32)
by_map = sparse.block_sparse_attention(q, k, v, masks.sliding_window(63), block_size=32)
by_slice = kernels.decode_attention(q, k[:, :, -64:], v[:, :, -64:], backend="triton")
assert torch.allclose(by_map, by_slice, atol=1e-6)
print("decoding with a window is decoding of the last keys")

# %% [markdown]
# No list is needed: the last keys are a slice. (With a sink of a few first tokens, chapter 18, they are two slices, merged.) No key is read in vain (a map reads a ninth block as soon as the newest key is not the last of its block), and what is saved is traffic, all but a thirty-second of it. The cache itself can be cut to the window then; patterns that choose keys by content must keep it, and read a part {cite}`yuan2025`.
#
# ## Where does it pay?
#
# What is known here are counts. A sparse kernel takes a share of the dense kernel's steps, its **density**, and each of its steps may take longer than a dense one: an address that is loaded, bits, shorter walks that have to begin and end. Call that factor the overhead. Sparse is faster where density times overhead is below 1. We set a bar before any measurement, an overhead of at most 1.3:

# %%
for name in ("window 256", "window 1024", "documents", "Big Bird"):
    density = steps[name] / steps["causal"]
    print(f"{name:11} density {density:.3f}: faster as long as a step takes less than {1 / density:.1f} dense ones; if it takes 1.3, {1 / density / 1.3:.1f} times as fast")

# %% [markdown]
# The overhead has **not yet been measured**: this page was made without a GPU. The bar that the kernel is to meet is set beforehand: for the window of 1024 keys at 16,384 tokens, time over (dense causal time × density) at most 1.3. The last column says what that would mean, if it holds for the others too; they are predictions.
#
# On the other side of the account: short sequences, where the dense kernel has few steps and a list saves few of them; patterns that touch all blocks; and maps that are made anew at every call, which asks the predicate about all $n^2$ pairs. Make the map once.
#
# ## Use it

# %%
q, k, v = draw(1, 2, 53, 24), draw(1, 1, 53, 24), draw(1, 1, 53, 24)
kept = sparse.block_map(small, 53, block_size=32)           # once
out = kernels.block_sparse_attention(q, k, v, kept, backend="triton")  # in every step
assert torch.allclose(out, sparse.block_sparse_attention(q, k, v, kept), atol=1e-6)
try:
    kernels.block_sparse_attention(q, k, v, small, block_size=24, backend="triton")
except ValueError as error:
    print(error)

# %% [markdown]
# ## What to remember
#
# | idea | what showed it |
# |---|---|
# | steps are entries of lists; masking is not skipping | seven patterns; NaN in blocks that no list names |
# | whole blocks first, so that most steps know no mask; a shorter last block is partial | {numref}`fig-blocks-lists`; keys that are not there |
# | edges are bits, stored once for equal blocks | one bit pattern for causal, two for a window of whole blocks |
# | blocks of 64 to 128: less computed in vain against matrix units and FLOPs per byte | {numref}`fig-blocks-sizes` |
# | a list of all queries is the critical path of the backward pass | {numref}`fig-blocks-critical` |
# | decoding is bound by memory: read a key once for its group, split the keys, merge through the log-sum-exp | FLOPs per byte; 1 to 8 parts |
#
# **In practice.** `flex_attention` walks lists of whole and of partial blocks in a generated kernel {cite}`dong2024`; Native Sparse Attention chooses its blocks by content, the same ones for all heads that share a key head, so that the kernel reads them once for all {cite}`yuan2025`. The first sparse transformers came with block-sparse kernels of their own {cite}`child2019`.
#
# **Shortcut taken here.** The map is made on the CPU, from a predicate. Patterns that depend on the content need lists made on the GPU, in every layer and every step, and this can cost as much as it saves.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Count the steps of a pattern in blocks, and predict which of two patterns is cheaper when the one with fewer pairs
#   is not.
# - Turn a map of blocks into lists, whole blocks first, and pack the edges into bits that equal blocks share.
# - Show with NaN in blocks that no list names that a kernel skips, and say what a mask would have done.
# - Choose a size of block from what it computes in vain, the FLOPs per byte of its tiles and the instruction that it
#   can use.
# - Find the one list that holds up the backward pass, and say what cutting it would gain.
# - Say how many parts a long cache must be cut into so that every multiprocessor has work, and merge them.
# :::

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["ex:turn_lists", "ex-prompt"]
# ```{exercise} Turn the lists round
# :label: ex-turn-lists
# The backward pass needs lists by columns. `blocks[first[i]:first[i + 1]]` are the columns in which row i has a block, in any order; `columns`
# says how many columns there are. Write `turn_lists(first, blocks, columns)`, which returns the same lists by columns, two arrays of ints:
# `first`, with `columns` + 1 entries, and `rows`, where the list of column j holds the rows that have a block in it, in ascending order. A map of all
# rows and columns does not fit into memory: do without it. Rows and columns may be empty. (NumPy's sorts keep equal numbers in their order if you
# ask for `kind="stable"`.)
# ```

# %% tags=["ex:turn_lists", "ex-stub"]
def turn_lists(first, blocks, columns):
    raise NotImplementedError("replace this line")

# %% tags=["ex:turn_lists", "ex-check"]
check(turn_lists)

# %% tags=["ex:turn_lists", "ex-solution", "hide-cell"]
def turn_lists(first, blocks, columns):
    rows = np.repeat(np.arange(len(first) - 1), np.diff(first))  # of each entry
    lengths = np.bincount(blocks, minlength=columns)
    ends = np.cumsum(lengths)
    return np.concatenate([[0], ends]), rows[np.argsort(blocks, kind="stable")]


require(turn_lists)

# %% [markdown] tags=["ex:list_sums_kernel", "ex-prompt"]
# ```{exercise} A kernel that walks a list
# :label: ex-list-sums-kernel
# A float32 matrix of `n_rows` by `n_cols`, whose rows follow each other in memory, is cut into blocks of `BLOCK` by `BLOCK`; the last blocks of
# either side may be smaller. Only some blocks count. The list of row i of blocks is `blocks_ptr[first_ptr[i]]` up to, and without,
# `blocks_ptr[first_ptr[i + 1]]` (int32): numbers of blocks of columns. Write the Triton kernel `list_sums_kernel(x_ptr, first_ptr, blocks_ptr, out_ptr,
# n_rows, n_cols, BLOCK)`: for each row of the matrix the sum of those of its numbers that stand in listed blocks, into the `n_rows` places
# of `out`. It is launched with one program for each row of blocks. What stands around the matrix is unknown, and nothing may be written beyond
# `out`. A list may be empty: then its sums are 0.
# ```

# %% tags=["ex:list_sums_kernel", "ex-stub"]
@triton.jit
def list_sums_kernel(
    x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr
):
    raise NotImplementedError("replace this line")

# %% tags=["ex:list_sums_kernel", "ex-check"]
check(list_sums_kernel)

# %% tags=["ex:list_sums_kernel", "ex-solution", "hide-cell"]
@triton.jit
def list_sums_kernel(
    x_ptr, first_ptr, blocks_ptr, out_ptr, n_rows, n_cols, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    rows = row * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(first_ptr + row), tl.load(first_ptr + row + 1)
    for entry in range(begin, end):
        columns = tl.load(blocks_ptr + entry) * BLOCK + tl.arange(0, BLOCK)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        at = x_ptr + rows[:, None] * n_cols + columns[None, :]
        total += tl.sum(tl.load(at, mask=inside, other=0.0), axis=1)
    tl.store(out_ptr + rows, total, mask=rows < n_rows)


require(list_sums_kernel)

# %% [markdown] tags=["ex:tiles_per_part", "ex-prompt"]
# ```{exercise} Work for every multiprocessor
# :label: ex-tiles-per-part
# In decoding, each of `batch` sequences has `kv_heads` key heads of `seq_k` keys, which are read in tiles of `block_k` (the last tile may be smaller). Every
# key head is cut into parts of the same number of tiles (the last part may have fewer), and each part of each key head of each sequence is a
# program. Large parts are better: each part has to be merged. Write `tiles_per_part(batch, kv_heads, seq_k, block_k, processors)`, which returns the largest
# number of tiles to a part with which there are at least as many programs as `processors`; 1 if there are too few tiles for that; and all tiles of
# a key head in one part where that already is enough. (Python ints; `seq_k` is at least 1.)
# ```

# %% tags=["ex:tiles_per_part", "ex-stub"]
def tiles_per_part(batch, kv_heads, seq_k, block_k, processors):
    raise NotImplementedError("replace this line")

# %% tags=["ex:tiles_per_part", "ex-check"]
check(tiles_per_part)

# %% tags=["ex:tiles_per_part", "ex-solution", "hide-cell"]
def tiles_per_part(batch, kv_heads, seq_k, block_k, processors):
    tiles = -(-seq_k // block_k)
    for part in range(tiles, 1, -1):
        if batch * kv_heads * -(-tiles // part) >= processors:
            return part
    return 1


require(tiles_per_part)

# %% [markdown] tags=["ex:a-load-a-pair", "ex-prompt", "ex-open"]
# ```{exercise} A load for each pair
# :label: ex-a-load-a-pair
# `seen_in_pattern` loads each byte once, (rows, bytes), and makes pairs of it. The short way is to load for each pair the byte it stands in, (rows, keys), and shift. Write that version, and one with words of 32 bits instead of bytes. See to it that the interpreter agrees on all patterns of this chapter; then compile the kernel with each, for 8.0 (an A100) and 9.0, and compare shared memory, registers, spills and the number of instructions. Which of the two is fetched ahead, and why not the other?
# ```

# %% [markdown]
# ## Sources
#
# Lists of whole and partial blocks are those of `flex_attention` {cite}`dong2024`, the tile steps those of FlashAttention-2 {cite}`dao2023`; merging by the log-sum-exp follows from the online softmax {cite}`milakov2018`. Grouped queries are {cite:t}`ainslie2023`, with {cite:t}`shazeer2019` before them, who counted the memory traffic of decoding.
