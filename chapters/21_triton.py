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
# # Write a GPU kernel, and read what it becomes
#
# A kernel is a function that a GPU runs many times at once, each time on another piece of the data. In this chapter you write two: softmax, one row to a program, and FlashAttention's forward pass, one tile of queries to a program. You run them without a
# GPU, in an interpreter. Then you compile them, still without a GPU, and read in the result whether they would run well: registers, shared memory, matrix instructions.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapter 4 (softmax, rows that see nothing), the parts of a GPU from chapter 19, the running maximum and sum of FlashAttention (chapter 20), and Linux, for which Triton is made. **You will build** the forward kernel of `attnlib.kernels`. **Time** about 65 minutes; the cells run in under a minute.
# No number on this page was measured on a GPU: what is said about speed stops where the compiler's own account stops. {numref}`fig-triton-tiles` shows where you are going; its words come on the way.
# :::

# %%
import math
import os

os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: kernels run on the CPU, program after program

import matplotlib.pyplot as plt
import numpy as np
import torch
import triton
import triton.language as tl

from attnlib import kernels, masks
from attnlib.data import real_head
from attnlib.flash import flash_attention
from attnlib.kernels.forward import store_tile
from attnlib.kernels.shipped import Tile, compile_arguments, shipped
from attnlib.plots import triton as plots
from attnlib.reference import attention_scores, softmax

# %%
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=generator).to(dtype)

# %% [markdown]
# Triton {cite}`tillet2019`, a C-like language at first, is one inside Python today: functions under `@triton.jit` look like array code, and are compiled for the GPU. With the interpreter on, NumPy runs them instead. (On a machine with a GPU, leave out the line about the environment and make tensors with `device="cuda"`; the kernels are the same.) The scores are the real ones of chapter 4: 15 tokens, the head that looks for the noun of *it*.

# %%
head = real_head("pronoun")
scores = attention_scores(head.x @ head.w_q + head.b_q, head.x @ head.w_k + head.b_k)
scores = torch.from_numpy(scores)  # (15, 15), float32
print(tuple(scores.shape), scores.dtype)

# %% [markdown]
# ## One program to a row
#
# A GPU consists of *multiprocessors*, each with its own *registers* for the numbers at hand, a piece of fast *shared memory*, and *matrix units*, which multiply small matrices in one instruction. A *program* lives on one multiprocessor, as many *threads*, each of which computes with a few of the numbers.
#
# To begin with, the last step of softmax alone: divide each row by its sum.

# %%
@triton.jit
def shares_kernel(x_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)             # which program am I? (0: along the first axis of the launch)
    columns = tl.arange(0, BLOCK)      # 0, 1, ..., BLOCK - 1
    inside = columns < n_cols
    x = tl.load(x_ptr + row * n_cols + columns, mask=inside, other=0.0)
    shares = x / tl.sum(x, axis=0)
    tl.store(out_ptr + row * n_cols + columns, shares, mask=inside)

# %% [markdown]
# Every line of its body but the first is about a **block**, here of `BLOCK` numbers, and a block is always a power of two long: known to the compiler (`tl.constexpr`), which deals its numbers out to threads. A tensor arrives as a **pointer**, the place of its first number; `x_ptr + row * n_cols + columns` is a block of 16 places.
# A row has 15 numbers, so the **mask** says which of the places are ours; what is not loaded counts as `other`.
#
# `shares_kernel[(15,)]` launches 15 **programs**, which differ in nothing but `tl.program_id(0)`.

# %%
powers = scores.exp()
out = torch.full_like(powers, torch.nan)
shares_kernel[(15,)](powers, out, 15, BLOCK=16)
assert torch.allclose(out, powers / powers.sum(-1, keepdim=True))
print(out[8, :4])

# %% mystnb={"image": {"alt": "Three rows of 15 numbers lie one after the other in memory. Below, each of three programs covers 16 places that begin at its row; the sixteenth place, hatched, is the first one of the next row."}, "figure": {"caption": "A block of 16 lies over a row of 15. The mask keeps its last place from being read as part of the row, and from being overwritten in the row that follows.", "name": "fig-triton-memory"}}
plots.programs_on_memory(3, 15, 16)
plt.show()

# %% [markdown]
# ## What if the mask is missing?
#
# The same kernel without masks. Which of the 15 rows will be wrong, and what else happens? Both tensors lie at the start of a larger piece of memory, filled with sevens, so that we can see.

# %%
@triton.jit
def shares_without_mask(x_ptr, out_ptr, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n_cols + columns)
    tl.store(out_ptr + row * n_cols + columns, x / tl.sum(x, axis=0))

# %%
x_memory, out_memory = torch.full((2, 15 * 15 + 4), 7.0)
x_memory[: 15 * 15] = powers.flatten()
shares_without_mask[(15,)](x_memory, out_memory, 15, BLOCK=16)
unmasked = out_memory[: 15 * 15].view(15, 15)
wrong = (unmasked - out).abs().amax(-1) > 1e-6
print(f"wrong rows: {wrong.sum()} of 15; behind the matrix: {out_memory[15 * 15:]}")
assert wrong.all() and out_memory[15 * 15] != 7

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# All of them. Each sum contains the first number of the next row, and the last row's sum contains whatever lay behind the matrix. Each program also writes 16 numbers: the sixteenth goes to the next row, whose own program then writes over it, *here*, where program 1 runs after program 0. On a GPU programs
# run in any order, and who wins is chance. The last program has written into memory that belongs to somebody else.
# :::
#
# No error was raised. Nor would there be on a GPU, as a rule: accesses out of bounds that land in memory of the same process go unnoticed (NVIDIA's `compute-sanitizer` looks for them; PyTorch's caching allocator hides many from it). A test that uses only widths of 16, 32 and 64 would have passed. This is why the tests of this book's kernels use 37, 53 and 97.
#
# ## Your turn: softmax
#
# The sum of a row was content with zeros beyond its end. Softmax also needs a maximum. What may stand beyond the end now? (Here the rows may also be apart from each other in memory, by a **stride** larger than their length.)

# %%
from coursework import check, require

# %% [markdown] tags=["ex:row_softmax_kernel", "ex-prompt"]
# ```{exercise} Softmax as a kernel
# :label: ex-row-softmax-kernel
# Write the Triton kernel `row_softmax_kernel(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK)`: softmax of every row of a float32
# matrix. It is launched with one program per row. Row r has `n_cols` numbers, which begin at `x_ptr` + r · `x_stride` (a stride counts
# numbers, not bytes); its result goes to `n_cols` places from `out_ptr` + r · `out_stride`. Both strides may be larger than `n_cols` and
# may differ: what stands between the rows is unknown (NaN included) and must not be read into a result, nor be written over. `BLOCK` is
# a power of two, at least `n_cols`, and is known when the kernel is compiled. Scores of 10,000 must not overflow, and single scores may be
# $-\infty$. Without a GPU the kernel runs in Triton's interpreter.
# ```

# %% tags=["ex:row_softmax_kernel", "ex-stub"]
@triton.jit
def row_softmax_kernel(
    x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr
):
    raise NotImplementedError("replace this line")

# %% tags=["ex:row_softmax_kernel", "ex-check"]
check(row_softmax_kernel)

# %% tags=["ex:row_softmax_kernel", "ex-solution", "hide-cell"]
@triton.jit
def row_softmax_kernel(
    x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < n_cols
    scores = tl.load(
        x_ptr + row * x_stride + columns, mask=inside, other=-float("inf")
    )
    powers = tl.exp(scores - tl.max(scores, axis=0))
    weights = powers / tl.sum(powers, axis=0)
    tl.store(out_ptr + row * out_stride + columns, weights, mask=inside)


require(row_softmax_kernel)

# %% [markdown]
# The library's version differs in three points. It takes float16, bfloat16 and float32, computes in float32 and writes in the format of `out`; its row number has 64 bits, since row times stride may pass $2^{31}$; and a row of $-\infty$ alone gives zeros (this book's contract, chapter 4), by two maxima and no `if`.

# %%
@triton.jit
def softmax_kernel(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)                      # 64 bits: row · stride may pass 2^31
    columns = tl.arange(0, BLOCK)
    inside = columns < n_cols
    scores = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=-float("inf")).to(tl.float32)
    row_max = tl.maximum(tl.max(scores, axis=0), -3e38)      # finite, also where every score is -inf
    powers = tl.exp(scores - row_max)                        # the largest is 1, so the sum is at least 1
    weights = powers / tl.maximum(tl.sum(powers, axis=0), 1)
    tl.store(out_ptr + row * out_stride + columns, weights.to(out_ptr.dtype.element_ty), mask=inside)

# %%
masked = scores.clone()
masked[3] = -torch.inf
weights = torch.empty_like(masked)
softmax_kernel[(15,)](masked, weights, 15, 15, 15, BLOCK=16)
assert np.allclose(weights, softmax(masked.numpy()), atol=1e-6)  # chapter 4's, to float32's rounding
assert not weights[3].any()
print(weights[8, :4], "and a row of -inf:", weights[3, :4])

# %% [markdown]
# From here on it is `attnlib.kernels.softmax.softmax_kernel`, launched by `attnlib.kernels.row_softmax`.
#
# What does one kernel gain over five? (PyTorch's own softmax is one, too.) Written out as `max`, subtract, `exp`, `sum`, divide they are five, and each reads its input from the GPU's memory and writes its result back. How many times does an entry travel, in five kernels and in one?

# %%
steps = {"max": 1, "subtract": 2, "exp": 2, "sum": 1, "divide": 2}  # reads and writes of the whole matrix
mib = 4096 * 4096 * 4 / 2**20
print(f"five kernels: {sum(steps.values())} times {mib:.0f} MiB, one kernel: 2 times")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Eight times against two (rows of single numbers, such as the maxima, not counted). Softmax does a handful of operations on each number it moves, so that on a GPU the memory decides (chapter 19 shows by how much), and a quarter of the traffic should take about a quarter of the time. This is all that **fusing** is: keep the numbers where they are
# until you are done with them. FlashAttention fuses softmax with the matrix products on both of its sides.
# :::
#
# ## From rows to tiles
#
# The second kernel works on *tiles*: BLOCK_Q queries against BLOCK_K keys. Tensors are (batch, heads, seq, dim_head), and each axis has its stride, whatever the layout. So the place of a head's matrix, and of a tile inside it, is arithmetic on pointers:

# %%
@triton.jit
def head_start(matrix, batch, head, strides):
    return matrix + tl.cast(batch, tl.int64) * strides[0] + tl.cast(head, tl.int64) * strides[1]

# %%
@triton.jit
def load_tile(matrix, first, seq, strides, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, WHOLE: tl.constexpr):
    rows, columns = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    at = matrix + tl.cast(first, tl.int64) * strides[2]      # 64 bits: offsets may pass 2^31
    at = at + (rows[:, None] * strides[2] + columns[None, :] * strides[3])   # within a tile 32 bits suffice: `kernels.attention` checks it
    if WHOLE and BLOCK_D == DIM:                             # a width that is no power of two keeps its mask
        tile = tl.load(at)                                   # nothing can stick out, and a mask costs time
    else:
        tile = tl.load(at, mask=(first + rows < seq)[:, None] & (columns < DIM)[None, :], other=0.0)
    return tile

# %% [markdown]
# These are `attnlib.kernels.forward.head_start` and `attnlib.kernels.forward.load_tile`. A head of 24 numbers goes into a tile 32 wide, with zeros to the right of it. Will those zeros change a product of a query and a key? The mirror image, `store_tile`, is in the same file. Try the pair: copy rows 32 to 47 of a head with 37 rows.

# %%
@triton.jit
def copy_kernel(x, out, strides, first, seq, DIM: tl.constexpr):
    tile = load_tile(head_start(x, 0, 1, strides), first, seq, strides, 16, DIM, 32, False)
    store_tile(head_start(out, 0, 1, strides), tile, first, seq, strides, 16, DIM, 32)

# %%
x = draw(1, 2, 37, 24)
out = torch.zeros_like(x)
copy_kernel[(1,)](x, out, x.stride(), 32, 37, DIM=24)
changed = (out != 0).nonzero()
print("heads, rows written:", sorted({tuple(each) for each in changed[:, 1:3].tolist()}))
assert torch.equal(out[0, 1, 32:], x[0, 1, 32:])

# %% [markdown]
# Five rows, and not a sixth. (The zeros add nothing to $q \cdot k$: that padding is harmless. Keep the question in mind for the other direction.)
#
# ## The step that carries the equation
#
# A tile of scores, and the online softmax of chapter 20. Two details are the GPU's. Powers are of two, because its special function unit computes $2^x$; so `scale` is $\log_2 e/\sqrt d$. And the product with `scale` is not made by itself: `scores * scale - new_max` is *one* instruction for each score, a fused multiply-add.

# %%
@triton.jit
def attend_tile(q, k, v, out, row_max, row_sum, seen, scale, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    scores = tl.dot(q, k.T, input_precision=PRECISION)       # (BLOCK_Q, BLOCK_K), in float32
    if MASKED:
        scores = tl.where(seen, scores, -float("inf"))
    new_max = tl.maximum(row_max, tl.max(scores, axis=1) * scale)
    powers = tl.exp2(scores * scale - new_max[:, None])      # scale and subtract: one instruction for each score
    rescale = tl.exp2(row_max - new_max)                     # what stood under the old maximum shrinks
    row_sum = row_sum * rescale + tl.sum(powers, axis=1)
    out = tl.dot(powers.to(v.dtype), v, out * rescale[:, None], input_precision=PRECISION)
    return out, new_max, row_sum

# %% [markdown]
# It is `attnlib.kernels.forward.attend_tile`. `MASKED` is known when the kernel is compiled, so the `if` costs nothing: Triton makes code for one branch. The powers are rounded to the format of the values before the second product, because a matrix unit wants both of its inputs in the same format; it *adds* in float32, to the third argument of `tl.dot`: here what has been gathered so far.
#
# `input_precision` matters for float32 alone: without it NVIDIA's GPUs since the A100 round the inputs of the product to TF32, which has 10 bits after the leading one instead of 23. The interpreter does not. What passes here would fail there.
#
# ## Who does what?
#
# Programs have one number each, so it has to say which head of which sequence, and which queries:

# %%
@triton.jit
def whose_tile(heads, seq, BLOCK: tl.constexpr, LAST_FIRST: tl.constexpr):
    tiles = tl.cdiv(seq, BLOCK)
    item, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if LAST_FIRST:
        tile = tiles - 1 - tile
    return item // heads, item % heads, tile * BLOCK

# %% [markdown]
# `attnlib.kernels.forward.whose_tile`. A GPU starts programs, in practice, in the order of their numbers, as many as it has room for, and the next when one is done. Under a causal mask the last queries have the longest walk. Does it matter whether they are begun last or first? Play it through: 32 tiles of queries, of which number i walks i + 1 tiles of keys, on six units
# (an H100 SXM has 132 multiprocessors {cite}`nvidia2022`, and more heads to deal out).

# %%
def schedule(lengths, units):
    free, bars = np.zeros(units), []
    for length in lengths:             # the next program goes to the first unit that is free
        unit = int(free.argmin())
        bars.append((unit, free[unit], length))
        free[unit] += length
    return bars


short_first, long_first = schedule(range(1, 33), 6), schedule(range(32, 0, -1), 6)
for name, bars in (("shortest first", short_first), ("longest first", long_first)):
    print(f"{name}: done after {max(start + length for _, start, length in bars):.0f} tiles; evenly shared: {sum(range(33)) / 6:.0f}")
for tiles in (32, 128):
    end = max(start + length for _, start, length in schedule(range(1, tiles + 1), 6))
    print(f"{tiles:3} tiles, shortest first: {end / (tiles * (tiles + 1) / 12):.2f} of an even share")

# %% mystnb={"image": {"alt": "Two timelines of six units. With the shortest programs first, the bars grow longer to the right and the units finish far apart; with the longest first, the short ones fill the gaps at the end and all units finish nearly together."}, "figure": {"caption": "The same programs in two orders. Long ones begun last leave units idle at the end.", "name": "fig-triton-schedule"}}
plots.schedules({"shortest first": short_first, "longest first": long_first}, 6)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It matters while there are few programs for each unit, that is, for small batches, few heads and texts that are not very long: with 128 tiles in place of 32 the same six units lose 4% at the end, not 16%. Begun first, the long ones leave the short ones to fill the gaps. The kernel's `LAST_FIRST` is this within each head (the heads follow each other, so that with many of them it gains
# less than here); schedulers call it *longest processing time first*.
# :::
#
# The walk itself: which keys does a tile of queries need, and where must it look at single pairs?

# %%
@triton.jit
def keys_reached(first_q, seq_q, seq_k, CAUSAL: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    whole, stop = seq_k, seq_k
    if CAUSAL:                                               # query i sees the keys up to i + seq_k - seq_q
        whole = tl.minimum(tl.maximum(first_q + 1 + seq_k - seq_q, 0), seq_k)
        stop = tl.minimum(tl.maximum(first_q + BLOCK_Q + seq_k - seq_q, 0), seq_k)
    return whole // BLOCK_K * BLOCK_K, stop

# %%
@triton.jit
def seen_in_tile(first_q, first_k, seq_q, seq_k, CAUSAL: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    keys = first_k + tl.arange(0, BLOCK_K)[None, :]
    seen = keys < seq_k
    if CAUSAL:
        seen = seen & (keys <= first_q + tl.arange(0, BLOCK_Q)[:, None] + seq_k - seq_q)
    return seen

# %% [markdown]
# `attnlib.kernels.forward.keys_reached` and `attnlib.kernels.forward.seen_in_tile`. Take 37 queries and 53 keys, causal, in tiles of 16 by 16: three rows of four tiles. (The queries are the *last* ones: query 0 of 37 sees the keys 0 to 16, the last query sees the last key.) How many of the twelve are computed, and how many of those need a mask? Decide first; then let the kernel's functions answer, and hold the answer against the mask itself.

# %%
@triton.jit
def reach_kernel(whole_ptr, stop_ptr, seq_q, seq_k):
    first_q = whose_tile(1, seq_q, 16, True)[2]
    whole, stop = keys_reached(first_q, seq_q, seq_k, True, 16, 16)
    tl.store(whole_ptr + first_q // 16, whole)
    tl.store(stop_ptr + first_q // 16, stop)

# %%
whole, stop = torch.zeros(2, 3, dtype=torch.int32)
reach_kernel[(3,)](whole, stop, 37, 53)
print("no masks before key", whole.tolist(), "- nothing from key", stop.tolist())

# %%
seen = masks.to_array(masks.causal, 37, 53)
kinds = np.zeros((3, 4), int)  # 0 skipped, 1 without masks, 2 with masks
for i, j in np.ndindex(3, 4):
    pairs = np.zeros((16, 16), bool)
    part = seen[16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
    pairs[: len(part), : part.shape[1]] = part
    pairs[len(part):] = pairs[0]  # rows beyond the last query are never stored
    kinds[i, j] = 0 if not part.any() else 1 if pairs.all() else 2
by_reach = [[1 if 16 * j + 16 <= a else 2 if 16 * j < b else 0 for j in range(4)] for a, b in zip(whole, stop, strict=True)]
print(kinds.tolist())
assert (kinds == by_reach).all()

# %% mystnb={"image": {"alt": "A grid of three rows of four tiles over a staircase of visible pairs. In the first row one tile is unmasked, one is masked and two are skipped; in the second two are unmasked and one is masked; in the third three are unmasked and one is masked. Program 0 has the lowest row."}, "figure": {"caption": "One head, 37 queries, 53 keys, causal. Each program walks along its row, first without masks, then with them; white tiles are never touched. The tiles stick out over the ends: masks, again.", "name": "fig-triton-tiles"}}
plots.tile_map(kinds, seen, 16, 16, np.array([2, 1, 0]))
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Nine are computed, three of them with masks. The last tile of program 0 needs its mask twice, for the diagonal and for the end of the keys. On long sequences nearly all of the work runs without masks: in each row only the tiles on the diagonal have them. And where there are as many queries as keys, nearly half of all tiles are skipped.
# :::
#
# ## The forward kernel
#
# All parts are there.

# %%
@triton.jit
def forward_kernel(
    q, k, v, out, lse2, q_strides, k_strides, v_strides, out_strides, scale, heads, group, seq_q, seq_k,
    CAUSAL: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):
    batch, head, first_q = whose_tile(heads, seq_q, BLOCK_Q, CAUSAL)     # causal: the last see most keys, so begin with them
    q_tile = load_tile(head_start(q, batch, head, q_strides), first_q, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
    k_head = head_start(k, batch, head // group, k_strides)  # `group` query heads share the keys of one
    v_head = head_start(v, batch, head // group, v_strides)
    row_max = tl.full([BLOCK_Q], -3e38, tl.float32)          # not -inf: a query that sees no key must not become NaN
    row_sum = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_V], tl.float32)

    whole, stop = keys_reached(first_q, seq_q, seq_k, CAUSAL, BLOCK_Q, BLOCK_K)
    for first in range(0, whole, BLOCK_K):                   # no mask on keys in here
        k_tile = load_tile(k_head, first, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, True)
        v_tile = load_tile(v_head, first, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, True)
        acc, row_max, row_sum = attend_tile(q_tile, k_tile, v_tile, acc, row_max, row_sum, None, scale, False, PRECISION)
    for first in range(whole, stop, BLOCK_K):                # on the diagonal, and at the end of the keys
        k_tile = load_tile(k_head, first, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, False)
        v_tile = load_tile(v_head, first, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)
        seen = seen_in_tile(first_q, first, seq_q, seq_k, CAUSAL, BLOCK_Q, BLOCK_K)
        acc, row_max, row_sum = attend_tile(q_tile, k_tile, v_tile, acc, row_max, row_sum, seen, scale, True, PRECISION)

    divisor = tl.maximum(row_sum, 1e-30)                     # where a query sees a key the sum is about 1 or more; where not, it is 0
    out_head = head_start(out, batch, head, out_strides)
    store_tile(out_head, acc / divisor[:, None], first_q, seq_q, out_strides, BLOCK_Q, DIM_V, BLOCK_V)
    rows = first_q + tl.arange(0, BLOCK_Q)
    row_lse2 = tl.where(row_sum > 0, row_max + tl.log2(divisor), -float("inf"))
    tl.store(lse2 + (batch * heads + head).to(tl.int64) * seq_q + rows, row_lse2, mask=rows < seq_q)

# %% [markdown]
# This is `attnlib.kernels.forward.forward_kernel`, all of it. Between its first load and its last store nothing is meant to leave the chip: scores, powers, maximum, sum and the unfinished result live in registers, as long as there are enough. The {term}`log-sum-exp` goes out with the result, to the base 2, for the backward pass of the next chapter.
#
# Launching is bookkeeping: allocate the results, pass the strides, one program for each tile of queries.

# %%
def launch(q, k, v, causal=False, block_q=16, block_k=16):
    batch, heads, seq_q, dim = q.shape
    out, lse2 = torch.full_like(q, torch.nan), torch.full(q.shape[:3], torch.nan)
    grid = (batch * heads * triton.cdiv(seq_q, block_q),)
    forward_kernel[grid](
        q, k, v, out, lse2, q.stride(), k.stride(), v.stride(), out.stride(), math.log2(math.e) / dim**0.5, heads,
        heads // k.shape[1], seq_q, k.shape[2], CAUSAL=causal, DIM=dim, DIM_V=dim, BLOCK_D=triton.next_power_of_2(dim),
        BLOCK_V=triton.next_power_of_2(dim), BLOCK_Q=block_q, BLOCK_K=block_k, PRECISION="ieee")
    return out, lse2

# %% [markdown]
# Is it right? Two sequences, four query heads on two key heads, 37 queries, 53 keys, 24 wide: nothing is a multiple of anything. The truth is float64. How far off may float32 be? As far as twice what PyTorch's own attention is in float32: the rule of the flash-attention authors' tests.

# %%
def errors(q, k, v, causal, **tile):
    group = q.shape[1] // k.shape[1]
    seen = torch.from_numpy(masks.to_array(masks.causal, q.shape[2], k.shape[2])) if causal else None
    keys, values = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    truth = sdpa(q.double(), keys.double(), values.double(), attn_mask=seen)
    theirs = sdpa(q, keys, values, attn_mask=seen)
    return [(each.double() - truth).abs().max().item() for each in (launch(q, k, v, causal, **tile)[0], theirs)]

# %%
q, k, v = draw(2, 4, 37, 24), draw(2, 2, 53, 24), draw(2, 2, 53, 24)
for causal in (False, True):
    ours, theirs = errors(q, k, v, causal)
    assert ours <= 2 * theirs + 1e-7, (ours, theirs)  # and a last digit near 1, should PyTorch happen to be exact
print("float32: within twice PyTorch's own error")

# %% [markdown]
# The same in float16, with other tiles, with one query, with scores that rise along the row so that the maximum moves in every tile:

# %%
rising = torch.linspace(-3, 3, 53)[:, None]
for dtype, least in ((torch.float32, 1e-6), (torch.float16, 2e-3)):  # a last digit of results up to about 4
    for queries in (q, q[:, :, -1:]):
        for block_k in (16, 32):
            given = (queries + 1).to(dtype), (k + rising).to(dtype), v.to(dtype)
            ours, theirs = errors(*given, True, block_k=block_k)
            assert ours <= 2 * theirs + least, (dtype, ours, theirs)
print("8 more cases: within twice PyTorch's own error")

# %% [markdown]
# ## Zeros are not nothing
#
# In the copy above, a row beyond the end was filled with zeros and not stored, and all was well. Keys beyond the end are filled with zeros too. Suppose that the second loop forgot its mask, as if 64 keys were there, eleven of them zero. Which score does a query give to a key of zeros, and what becomes of its row?

# %%
padded_k, padded_v = (torch.nn.functional.pad(each, (0, 0, 0, 11)) for each in (k, v))
right, lse2 = launch(q, k, v)
careless, careless_lse2 = launch(q, padded_k, padded_v)
lost = 1 - torch.exp2(lse2 - careless_lse2)  # share of the careless sum that is not in the right one
print(f"weight on keys that are not there: {lost.min():.2f} to {lost.max():.2f} of a row")
assert lost.min() > 0.02

# %%
assert torch.allclose(careless, right * (1 - lost)[..., None], atol=1e-5)  # a row shrinks by what it lost, all of it alike
print(f"results, in the median: {(careless / right).median():.2f} of what they should be")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# A score of 0, and $e^0 = 1$ takes part in the sum: an ordinary key, like any other, with a value of zero. The results shrink, all in the same proportion within a row, and look plausible. Padding with zeros is harmless along `dim_head`, where products are summed, and wrong along the keys, where powers are. There $-\infty$ is the padding,
# which is the mask's work.
# :::
#
# ## What does the interpreter not see?
#
# It executes the arithmetic, program after program. So it tests formulas, indices and masks, for the shapes you try. It does not show that the kernel
#
# * compiles (on a GPU the axis that a product sums over is at least 16 long; the interpreter multiplies any),
# * fits: a program has at most 255 registers per thread, and tens to hundreds of KiB of shared memory,
# * uses the matrix units, and loads ahead while it computes,
# * rounds alike: a fused multiply-add rounds once, NumPy twice,
# * does not depend on the order of its programs: here one ends before the next begins, so that two that write to the same place never race,
# * reads only what belongs to it: here a read beyond the end of a tensor returns something or other, and what a mask keeps out is 0 without `other`, which on a GPU is undefined,
# * is right in bfloat16, which the interpreter (of Triton 3.7) stores as integers (`attnlib` refuses it there).
#
# The first four can be read in what the compiler makes, and it runs anywhere; the last three need a GPU, or care.
#
# ## What does it become?
#
# `attnlib.kernels.compile_report` compiles a kernel for a GPU that need not be there and reads the result with the assembler and disassembler that come in Triton's package. It does so in a process of its own, since this one interprets. The types of all 22 arguments have to be said; `compile_arguments` says them for attention's kernels. An H100 or H200 is compute capability 9.0:

# %%
tile = Tile(block_q=128, block_k=64, warps=8, stages=3)
report = kernels.compile_report(forward_kernel, (9, 0), **compile_arguments(forward_kernel, tile, "bf16", dim=64))
print(report)

# %% [markdown]
# A **warp** is 32 threads that are given their instructions together; a program of eight warps has 256. A **register** is a number of 32 bits that a thread holds; a multiprocessor has 65,536 of them, divided among the threads that live on it, so that 8 warps have at most 255 each, 16 warps 128, and 32 warps 64. What finds no register is **spilled** to memory. HGMMA is the instruction of this chip's matrix units. **Stages** say for how many tiles of keys, and of values, shared memory has room: one is worked on while the others are on their way. (The 65,536 bytes are three stages of two tiles of 64 by 64 numbers, 48 KiB, and the 16 KiB of the queries, which this chip's matrix units read from there.)
#
# Between the source and the machine lie five texts. The product of queries and keys, in each of them:

# %%
marks = {"ttir": "tt.dot ", "ttgir": "warp_group_dot ", "llir": "wgmma.mma_async", "ptx": "wgmma.mma_async", "sass": "HGMMA"}
for stage, mark in marks.items():
    lines = report.text[stage].splitlines()
    line = next(each for each in lines if mark in each).strip()
    print(f"{stage:5} {len(lines):5} lines   {line[line.index(mark):][:72]}")

# %% [markdown]
# *ttir* is Triton's own language: your program, tile by tile. In *ttgir* tiles have layouts, that is, threads know which numbers are theirs, and loads have become asynchronous. *llir* is LLVM's language, for one thread; *ptx* is NVIDIA's assembly, as a rule for this chip and later ones (`wgmma` is an exception, for 9.0 alone), and *sass* is what the chip executes.
#
# ### One rounding or two?
#
# Is "one instruction for each score" true? A tile of 128 by 64 among 256 threads is 32 scores to a thread, and the text has two loops: 64 multiply-adds and 64 powers, and little beside them.

# %%
counts = {name: report.text["sass"].count(f" {name} ") for name in ("FFMA", "MUFU.EX2")}
print(counts, "for", 2 * 128 * 64 // 256, "scores")
assert all(64 <= count < 80 for count in counts.values())

# %% [markdown]
# It is, and it has a price. `new_max` was rounded when it was multiplied; `scores * scale` inside the multiply-add is not. What is the power of the largest score, $2^{s c - m}$ with $m = s c$ rounded? For scores near 10,000, with the multiply-add played in float64, where the product of two float32 numbers is exact:

# %%
scale = np.float32(math.log2(math.e) / 8)                     # dim_head 64
top = np.linspace(70_000, 90_000, 1000, dtype=np.float32)     # products of a query and a key
twice = np.exp2(top * scale - top * scale)                    # the interpreter: both terms rounded alike
once = np.exp2((top.astype(np.float64) * scale - top * scale).astype(np.float32))
print(f"rounded twice: {twice.min():.4f} to {twice.max():.4f}, once: {once.min():.4f} to {once.max():.4f}")
assert (twice == 1).all() and once.min() < 0.9998

# %% [markdown]
# So the largest power is 1 in the interpreter and almost 1 on a GPU. Now look at `divisor`. A row that sees a key has a power of 1 in its sum, so that `tl.maximum(row_sum, 1)` would look as good, and every test on this page would pass. What would it do to a query that sees one key, with such a score?
#
# :::{dropdown} Our answer
# On a GPU, and there alone, it may get as little as 0.9997 of its value: its sum is 0.9997, and it is divided by 1. As a floor any number will do that lies above 0 and far below the sum of a row with a key in it, such as 1e-30. (For scores of ordinary size the difference is in float32's last digits; and our softmax is free of it, because there the maximum is subtracted from the very number it was taken from.)
# :::
#
# ### Predict the registers
#
# How many registers does a thread need? Do the sum for a tile of 128 queries by 128 keys, `dim_head` 64, with four warps. The unfinished result is 128 by 64, the scores are 128 by 128, and the powers wait in 16 bits for the second product while the result is still there.

# %%
threads = 4 * 32
need = {"result": 128 * 64 / threads, "scores": 128 * 128 / threads, "powers, two to a register": 128 * 128 / 2 / threads}
print({name: int(count) for name, count in need.items()}, "sum", int(sum(need.values())))

# %% [markdown]
# 256, without addresses, maxima and sums, and there are 255; if all of it is alive at once. (It need not be: scores may become powers bit by bit.) What does the compiler do? And which of these would fit: eight warps; 64 keys to a tile; a head 128 wide?

# %%
candidates = [(64, 64, 4, 64), (128, 64, 4, 64), (128, 128, 4, 64), (128, 128, 8, 64), (128, 64, 4, 128), (128, 128, 4, 128), (128, 128, 8, 128)]
requests = [dict(kernel=forward_kernel, capability=(9, 0), **compile_arguments(forward_kernel, Tile(bq, bk, warps, 2), "bf16", dim))
            for bq, bk, warps, dim in candidates]
found = kernels.compile_reports(requests)

# %%
for (bq, bk, warps, dim), each in zip(candidates, found, strict=True):
    least = (bq * dim + bq * bk * 3 // 2) // (32 * warps)
    print(f"{bq:3} x {bk:3}, {warps} warps, dim {dim:3}: sum {least:3}, {each.registers} registers, {each.spill_stores:4} B spilled, {each.shared // 1024:3} KiB shared,"
          f" {each.programs_per_multiprocessor} at once")

# %% mystnb={"image": {"alt": "Bars of registers per thread for seven tiles. Small tiles and those with eight warps stay below 255 and fit; a tile of 128 by 128 with four warps is at 255 and spills, and with heads 128 wide it spills far more."}, "figure": {"caption": "Registers per thread. What does not fit is spilled: written to memory and read again.", "name": "fig-triton-registers"}}
labels = [f"{bq} x {bk}, {warps} warps, dim {dim}" for bq, bk, warps, dim in candidates]
plots.registers(labels, [each.registers for each in found], [each.spill_stores for each in found])
plt.show()

# %%
by_tile = dict(zip(candidates, found, strict=True))
assert all(each.matrix_instructions for each in found)
assert by_tile[128, 128, 4, 64].spill_stores and by_tile[128, 128, 4, 128].spill_stores > by_tile[128, 128, 4, 64].spill_stores
assert not by_tile[128, 128, 8, 64].spill_stores and not by_tile[128, 128, 8, 128].spill_stores
assert by_tile[128, 64, 4, 128].spill_stores  # although its sum is 224
more = [each.registers - (bq * dim + bq * bk * 3 // 2) // (32 * warps) for (bq, bk, warps, dim), each in by_tile.items() if not each.spill_stores]
assert 40 <= min(more) and max(more) <= 100

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Four warps spill at 128 by 128: numbers without a register go to *local memory*, which is ordinary, slow memory with another name (behind the caches, while there is room in them). Eight warps have twice the registers and halve the need of each thread. 64 keys halve the scores. A head 128 wide doubles the result, and spills at 64 keys already, although its sum is 224: in this table, where nothing spills, the compiler takes 40 to 100 registers more than
# the sum, for addresses, maxima, and what the next step waits for. The sum tells where it gets tight; only the compiler tells what fits (the last exercise has a tile with a sum of 256 that does). The kernel's author chooses between a large tile, which
# reads keys and values less often, and several small programs at once, which hide each other's waiting; *programs at once* is the last column.
# :::
#
# ### Another chip, other formats
#
# The same tile for an A100 (8.0), in float32, in float32 rounded to TF32, and without the promise that `q`, `k` and `v` begin at multiples of 16 bytes. (`attrs` holds such promises, by an argument's position; `constexprs` what is fixed when the kernel is compiled.) Which of the four still use matrix units? Which still loads ahead, with keys and values waiting in shared memory?

# %%
same = compile_arguments(forward_kernel, Tile(64, 64, 8, 3), "bf16", 64)
single = compile_arguments(forward_kernel, Tile(64, 64, 8, 3), "fp32", 64)
rounded = {**single, "constexprs": {**single["constexprs"], "PRECISION": "tf32"}}
tensors = (0,), (1,), (2,)  # the positions of q, k and v
unaligned = {**same, "attrs": {at: each for at, each in same["attrs"].items() if at not in tensors}}
variants = {
    "9.0, bf16": dict(capability=(9, 0), **same), "8.0, bf16": dict(capability=(8, 0), **same),
    "9.0, fp32": dict(capability=(9, 0), **single), "9.0, fp32 as tf32": dict(capability=(9, 0), **rounded),
    "9.0, bf16, unaligned": dict(capability=(9, 0), **unaligned)}
for name, each in zip(variants, kernels.compile_reports([dict(kernel=forward_kernel, **each) for each in variants.values()]), strict=True):
    print(f"{name:20} {each.matrix_instructions or 'no matrix units'}, {each.shared // 1024} KiB shared, {each.text['ptx'].count('cp.async')} cp.async, {each.spill_stores} B spilled")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The A100 has matrix units of an older kind (HMMA), which take their numbers from registers. Exact float32 has none: its products run on the ordinary units, and at this tile it spills (the shipped one is smaller, see below); TF32 has its matrix units back, and 13 bits less. Without aligned pointers the loads are no longer copied ahead in the background (`cp.async` is that instruction): everything is right, the matrix units are used, and the kernel waits for memory. PyTorch's
# allocator aligns its tensors; a slice such as `x[..., 1:]` is not aligned.
# :::
#
# ### What is shipped
#
# `attnlib.kernels` comes with a table of tiles (queries, keys, warps, stages), for two classes of GPU and three widths of head, in which nothing spills: a test compiles all of them, with the causal mask and without. On a GPU it times the candidates at the first call and keeps the fastest.

# %%
for bits in (16, 32):
    for width in (64, 128, 256):
        print(f"{bits} bits, heads {width:3} wide:", [tuple(each) for each in shipped("forward", (9, 0), bits, width)])

# %% [markdown]
# How fast they are has **not yet been measured**: this page was made without a GPU. What can be said from here, of the formats of 16 bits, is that nothing spills, that the matrix units do the products and that loads run ahead (float32, multiplied exactly, has no matrix units); a kernel that fails one of these is slow, and one that passes all three may still be. FlashAttention-3, one of the opponents it will be held
# against, also overlaps the softmax of one tile with the products of the next {cite}`shah2024`, which this kernel leaves to the hardware's scheduler.
#
# ## Use it
#
# `attnlib.kernels.attention` calls the kernel for tensors on a GPU and `attnlib.flash` for others; with the interpreter on you can insist. It says in one sentence what it cannot do.

# %%
out = kernels.attention(q, k, v, causal=True, backend="triton")
assert torch.equal(kernels.attention(q, k, v, causal=True), flash_attention(q, k, v, causal=True))
print(f"largest difference to the tiles in torch below 1e-6: {(out - flash_attention(q, k, v, causal=True)).abs().max().item() < 1e-6}")
assert torch.allclose(out, launch(q, k, v, True, 32, 32)[0], atol=1e-6)
try:
    kernels.attention(q.double(), k.double(), v.double(), backend="triton")
except TypeError as error:
    print(error)

# %% [markdown]
# ## What to remember
#
# | idea | what showed it |
# |---|---|
# | a program is told its number and nothing else; it works on blocks, powers of two | shares, softmax |
# | masks on loads *and* stores: without them nothing fails, and everything is wrong | {numref}`fig-triton-memory`, sevens |
# | zeros pad sums, $-\infty$ pads softmax | maxima; eleven keys that are not there |
# | no masks in the middle, masks on the edge, nothing beyond | {numref}`fig-triton-tiles` |
# | the interpreter tests the arithmetic, except for its roundings; the compiler tells registers, spills, matrix units | {numref}`fig-triton-registers` |
# | registers: about the numbers of the tile divided by threads, and some; at most 255 | 128 by 128 with four and eight warps |
#
# **In practice.** Triton's own tutorial has a kernel of this family; PyTorch's flex_attention generates one for a mask you write {cite}`dong2024`. FlashAttention-3 divides its warps into those that load and those that compute {cite}`shah2024`, which Triton's blocks do not show. (Triton can be asked to divide the warps itself, by `tl.range(..., warp_specialize=True)`: in Triton 3.7 for Blackwell alone, and for simple loops.)
#
# **Shortcut taken here.** Loads go through pointers; chips from 9.0 on also have a unit that fetches whole tiles by a descriptor (TMA), which spares threads the addresses. The kernel leaves it out to stay readable on both classes of GPU.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Write a kernel in which each program finds its row by its number, and mask its loads and its stores.
# - Choose what stands beyond the end: zeros where products are summed, $-\infty$ where powers are.
# - Decide for a causal tile whether it is skipped, computed without a mask or computed with one.
# - Name what the interpreter cannot show, and where to look for it without a GPU.
# - Estimate the registers of a tile, and find spills and matrix instructions in a compile report.
# :::

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["ex:column_mean_kernel", "ex-prompt"]
# ```{exercise} Odd lengths
# :label: ex-column-mean-kernel
# This kernel writes the mean of each column of a float32 matrix, `n_rows` by `n_cols`, whose rows follow each other in memory. It is
# launched with as many programs as blocks of `BLOCK_C` columns are needed, and walks down the rows in blocks of `BLOCK_R`:
#
#     columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
#     total = tl.zeros([BLOCK_C], tl.float32)
#     for first in range(0, n_rows, BLOCK_R):
#         rows = first + tl.arange(0, BLOCK_R)
#         x = tl.load(x_ptr + rows[:, None] * n_cols + columns[None, :])
#         total += tl.sum(x, axis=0)
#     tl.store(out_ptr + columns, total / n_rows)
#
# It is right where `BLOCK_R` divides `n_rows` and `BLOCK_C` divides `n_cols`. Write `column_mean_kernel(x_ptr, out_ptr, n_rows, n_cols,
# BLOCK_R, BLOCK_C)`, which is right for all sizes. What stands before and after the matrix is unknown, NaN included, and nothing may be
# written beyond the `n_cols` places of `out`. (A load beyond the matrix may return anything, or end the program: mask it too.)
# ```

# %% tags=["ex:column_mean_kernel", "ex-stub"]
@triton.jit
def column_mean_kernel(
    x_ptr, out_ptr, n_rows, n_cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    raise NotImplementedError("replace this line")

# %% tags=["ex:column_mean_kernel", "ex-check"]
check(column_mean_kernel)

# %% tags=["ex:column_mean_kernel", "ex-solution", "hide-cell"]
@triton.jit
def column_mean_kernel(
    x_ptr, out_ptr, n_rows, n_cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], tl.float32)
    for first in range(0, n_rows, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        inside = (rows < n_rows)[:, None] & (columns < n_cols)[None, :]
        at = x_ptr + rows[:, None] * n_cols + columns[None, :]
        total += tl.sum(tl.load(at, mask=inside, other=0.0), axis=0)
    tl.store(out_ptr + columns, total / n_rows, mask=columns < n_cols)


require(column_mean_kernel)

# %% [markdown] tags=["ex:weighted_mean_kernel", "ex-prompt"]
# ```{exercise} The missing line
# :label: ex-weighted-mean-kernel
# Program r of this kernel computes $\sum_j \mathrm{softmax}(s_r)_j\, v_j$ for row r of float32 scores (`n_cols` to a row, rows follow each
# other) and one vector of values, in blocks of `BLOCK`:
#
#     row = tl.program_id(0)
#     row_max, row_sum, total = -float("inf"), 0.0, 0.0
#     for first in range(0, n_cols, BLOCK):
#         columns = first + tl.arange(0, BLOCK)
#         inside = columns < n_cols
#         scores = tl.load(scores_ptr + row * n_cols + columns, mask=inside, other=-float("inf"))
#         v = tl.load(v_ptr + columns, mask=inside, other=0.0)
#         new_max = tl.maximum(row_max, tl.max(scores, axis=0))
#         powers = tl.exp(scores - new_max)
#         row_sum = row_sum + tl.sum(powers, axis=0)
#         total = total + tl.sum(powers * v, axis=0)
#         row_max = new_max
#     tl.store(out_ptr + row, total / row_sum)
#
# It passes a test in which the first block holds the largest score of every row, and fails others. Write
# `weighted_mean_kernel(scores_ptr, v_ptr, out_ptr, n_cols, BLOCK)`, mended. All scores are finite; scores of 10,000 must not overflow.
# ```

# %% tags=["ex:weighted_mean_kernel", "ex-stub"]
@triton.jit
def weighted_mean_kernel(
    scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr
):
    raise NotImplementedError("replace this line")

# %% tags=["ex:weighted_mean_kernel", "ex-check"]
check(weighted_mean_kernel)

# %% tags=["ex:weighted_mean_kernel", "ex-solution", "hide-cell"]
@triton.jit
def weighted_mean_kernel(
    scores_ptr, v_ptr, out_ptr, n_cols, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    row_max, row_sum, total = -float("inf"), 0.0, 0.0
    for first in range(0, n_cols, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < n_cols
        at = scores_ptr + row * n_cols + columns
        scores = tl.load(at, mask=inside, other=-float("inf"))
        v = tl.load(v_ptr + columns, mask=inside, other=0.0)
        new_max = tl.maximum(row_max, tl.max(scores, axis=0))
        rescale = tl.exp(row_max - new_max)  # 0 in the first block
        powers = tl.exp(scores - new_max)
        row_sum = row_sum * rescale + tl.sum(powers, axis=0)
        total = total * rescale + tl.sum(powers * v, axis=0)
        row_max = new_max
    tl.store(out_ptr + row, total / row_sum)


require(weighted_mean_kernel)

# %% [markdown] tags=["ex:larger-tile", "ex-prompt", "ex-open"]
# ```{exercise} A larger tile
# :label: ex-larger-tile
# Predict, before you compile: registers per thread, spills and shared memory of `forward_kernel` with 256 queries by 64 keys, head 64 wide, eight warps and three stages, for 9.0. Do the sum as above, for shared memory too (tiles of keys and values, in 16 bits, times stages; what else is shared?). Then compile it, and
# explain the difference. Is there a number of warps for which 256 by 128 fits?
# ```
#
# ## Sources
#
# The kernel follows Algorithm 1 of FlashAttention-2 {cite}`dao2023`; skipping tiles that a causal mask hides, and masks on the diagonal alone, are described there too. Triton is {cite:t}`tillet2019`.
