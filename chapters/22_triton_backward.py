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
# # Go back through attention without its weights
#
# The forward kernel of chapter 21 threw away every weight it made. The gradients are made of weights. In this chapter you write the kernels that bring them back, a tile at a time, and decide the question on which backward kernels differ: who adds to what? At the end `loss.backward()` runs through your kernels.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapter 5 (the gradients of attention), chapter 20 (the backward pass in tiles) and chapter 21 (programs, masks, `attend_tile`). **You will build** the three backward kernels of `attnlib.kernels` and the autograd function around them. **Time** about 60 minutes; the cells run in under a minute, in Triton's
# interpreter. Nothing on this page was timed on a GPU. {numref}`fig-backward-walks` is the chapter in one image.
# :::

# %%
import os
import re

os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: kernels run on the CPU, program after program

import matplotlib.pyplot as plt
import numpy as np
import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

torch.set_num_threads(1)
ATOMIC = r"\b(?:atom|red)\.[\w.]*add[\w.]*"  # how additions that nobody interrupts are spelt in PTX

# %%
from attnlib import kernels, masks
from attnlib.data import real_head
from attnlib.flash import flash_attention
from attnlib.kernels.forward import (
    forward_kernel,
    head_start,
    keys_reached,
    load_tile,
    seen_in_tile,
    store_tile,
    whose_tile,
)
from attnlib.kernels.shipped import compile_arguments, constants, shipped
from attnlib.plots import triton as plots
from attnlib.reference import attention, attention_backward, attention_scores

# %%
generator = torch.Generator().manual_seed(0)


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=generator).to(dtype)

# %% [markdown]
# ## What must be known?
#
# Chapter 5's gradients, for one head. $S = QK^\top/\sqrt d$ are the scores, $A$ the weights, $O = AV$ the result, $dX$ (chapter 20's $\partial X$) the gradient of the loss with respect to $X$, $dO$ the one that arrives:
#
# $$dV = A^\top dO,\qquad dA = dO\,V^\top,\qquad dS_{ij} = A_{ij}\,\bigl(dA_{ij} - \delta_i\bigr),\qquad dQ = \frac{dS\,K}{\sqrt d},\qquad dK = \frac{dS^\top Q}{\sqrt d}$$
#
# with $\delta_i = \sum_k A_{ik}\, dA_{ik}$, the mean of the row's gradient under its weights. A tile holds a few rows and a few columns of $A$. Two things in these formulas need a *whole* row: the division in $A$, and $\delta$. The first one was solved in chapter 20: with the {term}`log-sum-exp` $L_i$ of the row, $A_{ij} = e^{S_{ij} - L_i}$.
# On the real head:

# %%
head = real_head("pronoun")
x = head.x.astype(float)
q, k, v = x @ head.w_q + head.b_q, x @ head.w_k + head.b_k, x @ head.w_v + head.b_v
out, weights = attention(q, k, v)
scores = attention_scores(q, k)
lse = np.log(np.exp(scores).sum(-1, keepdims=True))
tile = np.exp(scores[4:8, 8:12] - lse[4:8])  # four queries, four keys, and nothing else
assert np.allclose(tile, weights[4:8, 8:12])
print("a tile of weights from its own scores and four numbers")

# %% [markdown]
# For $\delta$ chapter 20 had
#
# $$\delta_i = \sum_k A_{ik}\,(dO_i \cdot v_k) = dO_i \cdot \sum_k A_{ik}\, v_k = dO_i \cdot O_i$$
#
# with no weights in it at all: the sum over the keys was made in the forward pass, and is called $O$.

# %%
rng = np.random.default_rng(0)
d_out = rng.normal(size=out.shape)
by_weights = (weights * (d_out @ v.T)).sum(-1)
by_result = (d_out * out).sum(-1)
assert np.allclose(by_weights, by_result)
print(by_result[:4].round(3))

# %% [markdown]
# So two things are kept from the forward pass besides its inputs: the result, which the next layer has anyway, and one number for each row. What would the weights be, for 16 heads and 16,384 tokens in 16 bits?

# %%
heads, seq, dim = 16, 16384, 64
print(f"weights {heads * seq * seq * 2 / 2**30:.0f} GiB, lse {heads * seq * 4 / 2**20:.0f} MiB, q, k, v and out {4 * heads * seq * dim * 2 / 2**20:.0f} MiB")

# %% [markdown]
# ## The first kernel
#
# $\delta$, for a tile of queries. If the log-sum-exp is itself a result that somebody differentiates (for instance when partial results are merged), its gradient enters here. The derivative of $L_i$ by a score is that score's weight, so $dS$ gains $A_{ij}\, dL_i$: the same form as $-A_{ij}\,\delta_i$, with the other sign. The kernel stores $\delta_i - dL_i$ in place of $\delta_i$, and no other has to know.

# %%
@triton.jit
def delta_kernel(
    out, d_out, d_lse, delta, out_strides, d_out_strides, heads, seq_q,
    DIM_V: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_Q: tl.constexpr,
):
    batch, head, first_q = whose_tile(heads, seq_q, BLOCK_Q, False)
    o = load_tile(head_start(out, batch, head, out_strides), first_q, seq_q, out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
    d_o = load_tile(head_start(d_out, batch, head, d_out_strides), first_q, seq_q, d_out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
    rows = first_q + tl.arange(0, BLOCK_Q)
    at = (batch * heads + head).to(tl.int64) * seq_q + rows
    sums = tl.sum(o.to(tl.float32) * d_o.to(tl.float32), axis=1) - tl.load(d_lse + at, mask=rows < seq_q, other=0.0)
    tl.store(delta + at, sums, mask=rows < seq_q)

# %% [markdown]
# `attnlib.kernels.backward.delta_kernel`; its helpers are those of chapter 21. Try it on two sequences of four heads, 37 queries each:

# %%
some_out, some_d_out, some_d_lse = draw(2, 4, 37, 24), draw(2, 4, 37, 24), draw(2, 4, 37)
delta = torch.full_like(some_d_lse, torch.nan)
delta_kernel[(2 * 4 * 3,)](  # 2 sequences, 4 heads, 3 tiles of 16 for 37 queries
    some_out, some_d_out, some_d_lse, delta, some_out.stride(), some_d_out.stride(), 4, 37, DIM_V=24, BLOCK_V=32, BLOCK_Q=16)
expected = (some_out * some_d_out).sum(-1) - some_d_lse
assert torch.allclose(delta, expected, atol=1e-5)  # sums of 24 products near 1
print(tuple(delta.shape), "as expected")

# %% [markdown]
# ## Who adds to what?
#
# The forward pass had one choice: a program owns queries and walks over keys. Each result row belongs to one program, which writes it once. Backwards there are two kinds of results. $dQ_i$ sums over the keys that query $i$ sees, $dK_j$ and $dV_j$ over the queries that see key $j$. Suppose that one kernel does it all, with programs that own queries. Several programs
# then add to the same row of $dK$. Here is that situation in small: 16 programs, each adding its row of numbers to the same place.

# %%
@triton.jit
def add_rows(x, total, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    mine = tl.load(x + tl.program_id(0) * BLOCK + columns)
    tl.store(total + columns, tl.load(total + columns) + mine)  # read, add, write

# %%
rows = draw(16, 8)
total = torch.zeros(8)
add_rows[(16,)](rows, total, BLOCK=8)
print("right:", torch.allclose(total, rows.sum(0), atol=1e-5))

# %% [markdown]
# Right, and would you ship it?
#
# :::{dropdown} Your prediction, then ours
# No. The interpreter runs one program after the other. On a GPU sixteen programs may read the same old total at once; each adds its row, and the last one to write wins: up to fifteen rows are lost. A test in the interpreter **cannot** see this. It is the strongest reason for a design in which no two programs write to the same place.
# :::
#
# The hardware has a remedy, `tl.atomic_add`: read, add and write as one step that nobody interrupts.

# %%
@triton.jit
def add_rows_atomically(x, total, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    mine = tl.load(x + tl.program_id(0) * BLOCK + columns)
    tl.atomic_add(total + columns, mine)

# %%
atomic_total = torch.zeros(8)
add_rows_atomically[(16,)](rows, atomic_total, BLOCK=8)
assert torch.allclose(atomic_total, rows.sum(0), atol=1e-5)  # sums of 16 numbers near 1
for kernel in (add_rows, add_rows_atomically):
    adding = kernels.compile_report(kernel, (9, 0), signature={"x": "*fp32", "total": "*fp32", "BLOCK": "constexpr"}, constexprs={"BLOCK": 8})
    print(f"{kernel.fn.__name__}: atomic instructions {sorted(set(re.findall(ATOMIC, adding.text['ptx'])))}")

# %% [markdown]
# Both pass the same test; compiled for a GPU, only the second holds the instruction that loses nothing. But the order in which the programs come is left to chance, and floating-point sums depend on their order. How many different answers do 1000 orders give, in float32, for the sum of 64 tiles' contributions to one number?

# %%
parts = rng.normal(size=64).astype(np.float32)
sums = np.array([np.add.accumulate(rng.permutation(parts))[-1] for _ in range(1000)])  # one by one, in that order
print(f"{len(np.unique(sums))} different sums of the same 64 numbers")
assert len(np.unique(sums)) > 5

# %% mystnb={"image": {"alt": "A histogram of about two dozen bars on both sides of the exact sum, highest near it, reaching from 3 millionths below to 3 millionths above."}, "figure": {"caption": "64 numbers, added in 1000 orders in float32. All sums are right to rounding, and they differ.", "name": "fig-backward-orders"}}
plots.orders(sums.astype(float), parts.astype(float).sum())
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Two dozen, not a thousand: near their sum float32 has a number every 0.24 millionths, and almost every one of them in the range is met. Each is right to rounding, and none is *the* answer: with atomics a training run cannot be repeated to the bit, which makes bugs hard to find.
# :::
#
# The other remedy costs arithmetic: **two kernels**, each with owners. One has programs that own keys and walk over queries; it makes $dK$ and $dV$. The other has programs that own queries and walk over keys; it makes $dQ$. Each must make the weights of its tiles again. This is what this book does. Triton's tutorial makes the same two walks, one after the other in a single kernel. FlashAttention-2 makes
# everything in one walk, over the queries, and adds $dQ$ atomically {cite}`dao2023`; its package has a deterministic mode too, by its own account slightly slower and with more memory.

# %% mystnb={"image": {"alt": "Two copies of a causal 64 by 64 square in tiles of 16. Left, the second column of tiles is walked from the diagonal downwards in three steps. Right, the third row of tiles is walked from the left to the diagonal in three steps."}, "figure": {"caption": "The two walks. For d_k and d_v a program keeps a block of keys and meets the queries that see it, from the diagonal down. For d_q it keeps a block of queries and meets the keys they see, up to the diagonal.", "name": "fig-backward-walks"}}
plots.kernel_walks(masks.to_array(masks.causal, 64), 16)
plt.show()

# %% [markdown]
# ## A program that owns keys
#
# The tile step first. Keys are rows here and queries columns, so that the weights come out as $A^\top$, the way the product $A^\top dO$ wants them.

# %%
@triton.jit
def keys_tile(q, d_o, k, v, d_k, d_v, row_lse2, row_delta, seen, scale, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    scores = tl.dot(k, q.T, input_precision=PRECISION)       # (BLOCK_K, BLOCK_Q), computed again
    weights = tl.exp2(scores * scale - row_lse2[None, :])     # the weights of the forward pass: lse2 holds maximum and sum
    if MASKED:
        weights = tl.where(seen, weights, 0.0)
    d_v = tl.dot(weights.to(d_o.dtype), d_o, d_v, input_precision=PRECISION)
    d_weights = tl.dot(v, d_o.T, input_precision=PRECISION)  # (BLOCK_K, BLOCK_Q)
    d_scores = weights * (d_weights - row_delta[None, :])    # the softmax's own backward pass
    d_k = tl.dot(d_scores.to(q.dtype), q, d_k, input_precision=PRECISION)
    return d_k, d_v

# %% [markdown]
# `attnlib.kernels.backward.keys_tile`: the five formulas, but for $dQ$, and for the $1/\sqrt d$ of $dK$, which is multiplied in once, at the end. No maximum runs, nothing is rescaled; `row_lse2` is the log-sum-exp to the base 2, as the forward kernel left it. (In 16 bits the weights and `d_scores` are rounded to the inputs' format before their products; sums stay in float32.) And a query that sees nothing? Its $L$ is $-\infty$, so $2^{S - L}$ is infinite, and the mask puts zeros over all of it.
#
# How does the walk treat edges? Beyond the last query `load_tile` gives zeros for $q$ and $dO$, and the two row numbers are zero too:

# %%
LOG2E = tl.constexpr(1.4426950408889634)  # a number that kernels may read from outside; in Python LOG2E.value


@triton.jit
def load_row_numbers(lse2, delta, first, seq_q, BLOCK_Q: tl.constexpr):
    rows = first + tl.arange(0, BLOCK_Q)
    return tl.load(lse2 + rows, mask=rows < seq_q, other=0.0), tl.load(delta + rows, mask=rows < seq_q, other=0.0)

# %% [markdown]
# (`attnlib.kernels.backward.load_row_numbers`.) In chapter 21's forward pass a *key* of zeros took weight away. What does a *query* of zeros add to `d_k` and `d_v`? Follow it through `keys_tile` before you read on.
#
# :::{dropdown} Your prediction, then ours
# Nothing. Its weights are $2^{0 - 0} = 1$, so they do not vanish; but they multiply $dO = 0$ in $dV$, and $dA - \delta = 0 - 0$ makes $dS$ zero. So the walk over queries needs no mask at its end. Keys beyond the last one are rows of the tile that are never stored: whatever stands there harms nobody, because here no sum runs over keys.
# :::

# %%
@triton.jit
def dkdv_kernel(
    q, k, v, d_out, lse2, delta, d_k, d_v, q_strides, k_strides, v_strides, d_out_strides, d_k_strides, d_v_strides,
    scale, kv_heads, group, seq_q, seq_k,
    CAUSAL: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):
    batch, kv_head, first_k = whose_tile(kv_heads, seq_k, BLOCK_K, False)    # causal: the first keys have the longest walk, and come first as it is
    k_tile = load_tile(head_start(k, batch, kv_head, k_strides), first_k, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, False)
    v_tile = load_tile(head_start(v, batch, kv_head, v_strides), first_k, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)

    start, ahead = 0, seq_k - seq_q
    if CAUSAL:
        start = tl.maximum(first_k - ahead, 0) // BLOCK_Q * BLOCK_Q    # none of the queries before sees these keys
    steps = tl.maximum(tl.cdiv(seq_q - start, BLOCK_Q), 0)

    acc_k = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    acc_v = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    for step in range(group * steps):                        # two loops in one: over the query heads that share these keys, and their tiles
        head, first = kv_head * group + step // steps, start + step % steps * BLOCK_Q
        q_tile = load_tile(head_start(q, batch, head, q_strides), first, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
        d_o_tile = load_tile(head_start(d_out, batch, head, d_out_strides), first, seq_q, d_out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
        row = (batch.to(tl.int64) * kv_heads * group + head) * seq_q
        row_lse2, row_delta = load_row_numbers(lse2 + row, delta + row, first, seq_q, BLOCK_Q)
        seen = None
        if CAUSAL:
            seen = first_k + tl.arange(0, BLOCK_K)[:, None] <= first + tl.arange(0, BLOCK_Q)[None, :] + ahead
        acc_k, acc_v = keys_tile(q_tile, d_o_tile, k_tile, v_tile, acc_k, acc_v, row_lse2, row_delta, seen, scale, CAUSAL, PRECISION)

    d_k_tile = acc_k * (scale / LOG2E)                       # 1 / √DIM: scale holds log2(e) too
    store_tile(head_start(d_k, batch, kv_head, d_k_strides), d_k_tile, first_k, seq_k, d_k_strides, BLOCK_K, DIM, BLOCK_D)
    store_tile(head_start(d_v, batch, kv_head, d_v_strides), acc_v, first_k, seq_k, d_v_strides, BLOCK_K, DIM_V, BLOCK_V)

# %% [markdown]
# `attnlib.kernels.backward.dkdv_kernel`. With {term}`grouped-query attention` several query heads read the same keys, and their gradients add up. The program walks over the queries of all heads of its group, one head after the other, so even there every row of $dK$ has one owner. (The price is few programs where few heads hold keys. FlashAttention-2's package gives each *query* head its own $dK$ and $dV$ and sums over the group afterwards: more programs, and as many times the memory.) In its causal form the kernel compares positions in every tile it meets, also in those that are seen whole; `dq_kernel`, like the forward kernel, splits its walk in two.
#
# ## A program that owns queries
#
# For $dQ$ it is the forward kernel's walk once more, with another step:

# %%
@triton.jit
def queries_tile(q, d_o, k, v, d_q, row_lse2, row_delta, seen, scale, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    scores = tl.dot(q, k.T, input_precision=PRECISION)       # (BLOCK_Q, BLOCK_K), computed once more
    weights = tl.exp2(scores * scale - row_lse2[:, None])
    if MASKED:
        weights = tl.where(seen, weights, 0.0)
    d_weights = tl.dot(d_o, v.T, input_precision=PRECISION)
    d_scores = weights * (d_weights - row_delta[:, None])
    return tl.dot(d_scores.to(k.dtype), k, d_q, input_precision=PRECISION)

# %%
@triton.jit
def dq_kernel(
    q, k, v, d_out, lse2, delta, d_q, q_strides, k_strides, v_strides, d_out_strides, d_q_strides,
    scale, heads, group, seq_q, seq_k,
    CAUSAL: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):
    batch, head, first_q = whose_tile(heads, seq_q, BLOCK_Q, CAUSAL)     # causal: the longest work first
    q_tile = load_tile(head_start(q, batch, head, q_strides), first_q, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
    d_o_tile = load_tile(head_start(d_out, batch, head, d_out_strides), first_q, seq_q, d_out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
    row = (batch * heads + head).to(tl.int64) * seq_q
    row_lse2, row_delta = load_row_numbers(lse2 + row, delta + row, first_q, seq_q, BLOCK_Q)
    k_head = head_start(k, batch, head // group, k_strides)
    v_head = head_start(v, batch, head // group, v_strides)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)

    whole, stop = keys_reached(first_q, seq_q, seq_k, CAUSAL, BLOCK_Q, BLOCK_K)
    for first in range(0, whole, BLOCK_K):
        k_tile = load_tile(k_head, first, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, True)
        v_tile = load_tile(v_head, first, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, True)
        acc = queries_tile(q_tile, d_o_tile, k_tile, v_tile, acc, row_lse2, row_delta, None, scale, False, PRECISION)
    for first in range(whole, stop, BLOCK_K):
        k_tile = load_tile(k_head, first, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, False)
        v_tile = load_tile(v_head, first, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)
        seen = seen_in_tile(first_q, first, seq_q, seq_k, CAUSAL, BLOCK_Q, BLOCK_K)
        acc = queries_tile(q_tile, d_o_tile, k_tile, v_tile, acc, row_lse2, row_delta, seen, scale, True, PRECISION)
    d_q_head = head_start(d_q, batch, head, d_q_strides)
    store_tile(d_q_head, acc * (scale / LOG2E), first_q, seq_q, d_q_strides, BLOCK_Q, DIM, BLOCK_D)

# %% [markdown]
# `attnlib.kernels.backward.queries_tile` and `attnlib.kernels.backward.dq_kernel`. Here sums do run over keys, and the mask at their end is back. Why? Follow a key of zeros through `queries_tile`: its `d_scores` is not zero, but it multiplies $k = 0$. Take $\delta = 1$ and two queries, one with ordinary scores, one whose scores all lie far below zero:

# %%
far_below = torch.tensor([3.0, -150.0])                      # lse2 of the two
weight = torch.exp2(0 - far_below)                           # of a key of zeros
added = weight * (0 - 1.0) * 0.0                             # d_scores, times k
print(f"weights {weight.tolist()}, added to d_q {added.tolist()}")
assert added[0] == 0 and added[1].isnan()

# %% [markdown]
# Nothing is added, until the weight overflows: infinity times zero is not a number. For such rows the mask is kept.
#
# ## Into autograd
#
# PyTorch asks for two functions: one forward, which may save tensors, and one backward, which gets them back together with the gradients of the results. The launches, with small tiles so that our small sizes have several. (`constants` says what is known when a kernel is compiled: DIM, DIM_V, the powers of two above them, and PRECISION.)

# %%
TILE = {"BLOCK_Q": 16, "BLOCK_K": 16}


def programs(items, seq, block):
    return (items * triton.cdiv(seq, block),)


def about(q, k):  # what all kernels are told: scale with log2(e), query heads to a key head
    return float(LOG2E.value) / q.shape[-1] ** 0.5, q.shape[1] // k.shape[1]

# %%
def run_forward(q, k, v, causal):
    scale, group = about(q, k)
    batch, heads, seq_q, dim = q.shape
    out, lse2 = q.new_empty(*q.shape[:3], v.shape[-1]), q.new_empty(q.shape[:3], dtype=torch.float32)
    forward_kernel[programs(batch * heads, seq_q, TILE["BLOCK_Q"])](
        q, k, v, out, lse2, q.stride(), k.stride(), v.stride(), out.stride(), scale, heads, group, seq_q, k.shape[2],
        CAUSAL=causal, **constants(dim, v.shape[-1]), **TILE)
    return out, lse2

# %%
def run_backward(q, k, v, out, lse2, d_out, d_lse, causal):
    (batch, heads, seq_q, dim), (kv_heads, seq_k, dim_v), (scale, group) = q.shape, v.shape[1:], about(q, k)
    delta, d_q, d_k, d_v = (torch.empty_like(each) for each in (lse2, q, k, v))
    known = constants(dim, dim_v)
    delta_kernel[programs(batch * heads, seq_q, 16)](out, d_out, d_lse.contiguous(), delta, out.stride(), d_out.stride(), heads, seq_q,
                                                     DIM_V=dim_v, BLOCK_V=known["BLOCK_V"], BLOCK_Q=16)
    given, strides = (q, k, v, d_out, lse2, delta), [each.stride() for each in (q, k, v, d_out)]
    dkdv_kernel[programs(batch * kv_heads, seq_k, TILE["BLOCK_K"])](
        *given, d_k, d_v, *strides, d_k.stride(), d_v.stride(), scale, kv_heads, group, seq_q, seq_k, CAUSAL=causal, **known, **TILE)
    dq_kernel[programs(batch * heads, seq_q, TILE["BLOCK_Q"])](
        *given, d_q, *strides, d_q.stride(), scale, heads, group, seq_q, seq_k, CAUSAL=causal, **known, **TILE)
    return d_q, d_k, d_v

# %%
class FlashByTriton(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, causal):
        out, lse2 = run_forward(q, k, v, causal)
        ctx.save_for_backward(q, k, v, out, lse2)
        ctx.causal = causal
        return out, lse2 * np.log(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out, d_lse):
        return *run_backward(*ctx.saved_tensors, d_out, d_lse, ctx.causal), None

# %% [markdown]
# A gradient that arrives may be a view: `lse.sum()` sends back one number that claims to be many, with strides of 0. `d_out` comes with its strides; `d_lse`, whose places `delta_kernel` counts by itself, is made contiguous. Without that the kernel reads memory that is not its own.
#
# `once_differentiable` says that the backward pass has none of its own: who asks for a second derivative gets an error and not a wrong number. Saved is what we counted: $q$, $k$, $v$, the result, one number for each row. (The number is `lse2` and not `lse`: to turn it back would round it once more, and a weight is 2 to its power.)
#
# The library's function is the same, with tiles chosen for the GPU; it is behind `attnlib.kernels.attention`.
#
# ### Is it right?
#
# Two sequences, four query heads on two key heads, 37 queries, 53 keys, widths of 24 and 40, causal, and a loss in which the log-sum-exp takes part. The truth is float64:

# %%
shapes = (2, 4, 37, 24), (2, 2, 53, 24), (2, 2, 53, 40)
leaves = [draw(*shape).requires_grad_() for shape in shapes]
d_out, d_lse = draw(2, 4, 37, 40), draw(2, 4, 37)


def gradients(attend, leaves):
    out, lse = attend(*leaves)
    loss = (out * d_out).sum() + (lse * d_lse).sum()
    return torch.autograd.grad(loss, leaves)

# %%
ours = gradients(lambda q, k, v: FlashByTriton.apply(q, k, v, True), leaves)
truth = gradients(lambda q, k, v: flash_attention(q, k, v, causal=True, return_lse=True), [each.detach().double().requires_grad_() for each in leaves])
for name, mine, true in zip(("d_q", "d_k", "d_v"), ours, truth, strict=True):
    error = (mine - true).abs().max().item()
    assert error < 1e-5 * true.abs().max()  # some 80 times float32's spacing of 1.2e-7 at 1
    print(f"{name}: right to 1e-5 of its largest entry, {true.abs().max():.1f}")

# %% [markdown]
# The view of one number:

# %%
def of_sums(attend, leaves):
    out, lse = attend(*leaves)
    return torch.autograd.grad(out.sum() + lse.sum(), leaves)


sums_ours = of_sums(lambda q, k, v: FlashByTriton.apply(q, k, v, True), leaves)
sums_truth = of_sums(lambda q, k, v: flash_attention(q, k, v, causal=True, return_lse=True), leaves)
assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(sums_ours, sums_truth, strict=True))  # as above

# %% [markdown]
# And against the NumPy function of chapter 5, on the real head, where `attention_backward` writes the formulas out with all weights:

# %%
real = [torch.from_numpy(each).float()[None, None].requires_grad_() for each in (q, k, v)]  # of the real head, from the first section
out_real, _ = FlashByTriton.apply(*real, False)
sent = rng.normal(size=(15, v.shape[1]))
found = torch.autograd.grad(out_real, real, torch.from_numpy(sent).float()[None, None])
by_formula = attention_backward(sent, q, k, v, weights)
assert all(np.allclose(a[0, 0], b, atol=1e-5) for a, b in zip(found, by_formula, strict=True))
print("the real head's gradients agree")

# %% [markdown]
# ### Leave out delta
#
# A common mistake in a hand-written backward pass: $dS = A \circ dA$, as if weights did not compete. It runs, and the shapes are right. What property of a softmax gradient does it break, which a test could look for?

# %%
queries, keys, values = (each.detach() for each in leaves)
result, lse2 = run_forward(queries, keys, values, False)
scale, group = about(queries, keys)


def looked_at(delta):
    powers = queries @ keys.repeat_interleave(group, 1).mT * scale
    d_weights = d_out @ values.repeat_interleave(group, 1).mT
    return (torch.exp2(powers - lse2[..., None]) * (d_weights - delta)).sum(-1)

# %%
right, wrong = looked_at((result * d_out).sum(-1, keepdim=True)), looked_at(0)
print(f"sums of d_scores up to {right.abs().max():.3f}; delta forgotten, up to {wrong.abs().max():.3f}")
assert right.abs().max() < 1e-4 < 1 < wrong.abs().max()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Adding a constant to all scores of a row changes nothing (chapter 4), so the gradient along that direction is zero: each row of $dS$ **sums to zero** (to $dL_i$, where a gradient of the log-sum-exp arrives). Without $\delta$ it sums to $\delta_i$.
# :::
#
# ## What recomputing costs
#
# Count matrix products, each of $2\,n^2 d$ FLOPs per head (not causal). The forward pass has two: scores, and weights times values. A backward pass that kept the weights has four: $dV$, $dA$, $dQ$, $dK$. How many has one that makes the weights again, in one walk? And in our two walks?

# %%
products = {"forward": 2, "backward, weights kept": 4, "backward, one walk": 5, "backward, two walks": 4 + 3}
for name, count in products.items():
    print(f"{name:24} {count} products, {count / products['forward']:.1f} times the forward pass, n = 4096: {count * 2 * 4096**2 * 64 / 1e9:.1f} GFLOP per head")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Five: the scores once more. And seven: `keys_tile` has four products and `queries_tile` three, of which scores and $dA$ are made in both. That is 40% more than one walk, and is the price of owners. (TFLOP/s of backward passes are usually stated as if there were five, 2.5 times the forward pass {cite}`dao2023`, whatever the kernel really does.)
# :::
#
# Is it not better to keep the weights? Chapter 19 compared, for one pair of a query and a key on an H100, one product with writing the weight and reading it back, and found computing nine times cheaper. It left out the exponential, which it met one section later: 3.9 · 10¹² a second {cite}`shah2024`, beside 989 TFLOP/s of dense bf16 and 3.35 TB/s
# {cite}`nvidia2022`; all of them peaks, which no program reaches. Each walk makes one product and one exponential again, or reads one weight that was written once. (The seventh product, $dA$ for the second time, is made by two walks in either case.) Who wins, in picoseconds for each pair?

# %%
compute, memory, powers = 989e12, 3.35e12, 3.9e12  # FLOP, bytes, exponentials per second
for dim in (64, 128):
    for walks in (1, 2):
        again = 1e12 * walks * (2 * dim / compute + 1 / powers)
        kept = 1e12 * 2 * (1 + walks) / memory  # two bytes, written once, read by each walk
        print(f"dim {dim:3}, walks {walks}: again {again:.2f} ps, kept {kept:.2f} ps, {kept / again:.1f} times as long; exponential {1e12 * walks / powers / again:.0%} of again")
        assert kept > 1.5 * again

# %% mystnb={"image": {"alt": "Two straight lines on logarithmic axes over lengths from 1,024 to 65,536. The weights rise from 2 MiB to 8,192 MiB; inputs, result and lse from half a MiB to 32."}, "figure": {"caption": "What the backward pass has to keep for one head, 64 wide, in 16 bits: the weights, or the inputs, the result and one number for each row.", "name": "fig-backward-kept"}}
lengths = [1024, 4096, 16384, 65536]
plots.kept(lengths, {"weights": [2 * n * n / 2**20 for n in lengths],
                        "q, k, v, out and lse": [(4 * 64 * 2 + 4) * n / 2**20 for n in lengths]})
plt.show()

# %% [markdown]
# Recomputing is cheaper even in time, but 1.7 to 3.1 times and not nine: at 64 two thirds of its cost are the exponential, at 128 half. (The sums are pessimistic where the units work at the same time, and wider heads shrink the lead.) What decides is the memory. Selective recomputation {cite}`korthikanti2022` makes the same trade without a fused kernel: it drops scores and weights, and
# runs that part of the forward pass once more. How long our two walks take on a GPU has **not yet been measured**.
#
# ## What do they become?
#
# Which of the two kernels needs more registers, in tiles of one size? Count as in chapter 21: accumulators and, at times, two tiles of scores in float32 (`weights` and `d_weights`), divided by the threads.

# %%
requests, names = [], []
for kernel, name in ((dkdv_kernel, "dkdv"), (dq_kernel, "dq")):  # the tiles they are shipped with
    for capability in ((9, 0), (8, 0)):
        for dim in (64, 128):
            tile = shipped(name, capability, 16, dim)[0]
            requests.append(dict(kernel=kernel, capability=capability, **compile_arguments(kernel, tile, "bf16", dim, causal=True)))
            names.append((name, capability, dim, tile))

# %%
def counted(name, tile, dim):  # registers for what a program cannot do without
    sums = 2 * tile.block_k * dim if name == "dkdv" else tile.block_q * dim
    return (sums + 2 * tile.block_q * tile.block_k) // (32 * tile.warps)


reports = kernels.compile_reports(requests)
for (name, capability, dim, tile), each in zip(names, reports, strict=True):
    units = ", ".join(f"{count} {unit}" for unit, count in each.matrix_instructions.items())
    print(f"{name:4} {capability[0]}.{capability[1]} dim {dim:3}, {tile.block_q:3} x {tile.block_k:3}, {tile.warps} warps: counted {counted(name, tile, dim):3}, "
          f"{each.registers} registers, {each.spill_stores} B spilled, {each.shared // 1024:3} KiB shared, {units}")
assert all(each.spill_stores == 0 and each.matrix_instructions and each.registers > counted(name, tile, dim)
           for (name, _, dim, tile), each in zip(names, reports, strict=True))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# In tiles of one size `dkdv_kernel`: it carries two accumulators, `d_k` and `d_v`, where `dq_kernel` and the forward kernel carry one. On 9.0 it is therefore shipped with smaller tiles, on 8.0 with tiles of another shape; so the table shows no clear winner. The count is a floor, not a forecast: addresses,
# row numbers and operands come on top, 60 registers and more. Now give both kernels one tile, 64 queries by 128 keys at a width of 128: 192 and 96 by the count.
# :::

# %%
crowded = shipped("dkdv", (9, 0), 16, 128)[0]._replace(block_q=64)
crowded_reports = kernels.compile_reports([dict(kernel=kernel, capability=(9, 0), **compile_arguments(kernel, crowded, "bf16", 128, causal=True))
                                           for kernel in (dkdv_kernel, dq_kernel)])
print(*crowded_reports, sep="\n")
assert crowded_reports[0].spill_stores > 0 == crowded_reports[1].spill_stores

# %% [markdown]
# The floor told which of the two would spill, and nothing about how near the other comes to it. The table of shipped tiles was found this way, by compiling, and a test repeats it.
#
# ## To the bit
#
# Every entry of every gradient is summed by one program, in the order of its loop. So two runs with the same tiles on the same GPU agree to the last bit. To run them twice *here* would prove nothing: the interpreter repeats atomics to the bit too. What can be looked for is the instruction.

# %%
found = [re.findall(ATOMIC, each.text["ptx"]) for each in reports]
print(f"{len(found)} compiled kernels, atomic additions: {sum(map(len, found))}")
assert not any(found) and re.findall(ATOMIC, adding.text["ptx"])  # the search finds one where there is one

# %% [markdown]
# With *other* tiles the order of the sums is another. If tiles are chosen by timing, as the library does on a GPU, then a process may choose differently tomorrow; who needs the bits has to fix the tiles.

# %%
TILE.update(BLOCK_Q=32, BLOCK_K=32)
other = gradients(lambda q, k, v: FlashByTriton.apply(q, k, v, True), leaves)
TILE.update(BLOCK_Q=16, BLOCK_K=16)
for name, mine, theirs in zip(("d_q", "d_k", "d_v"), ours, other, strict=True):
    print(f"{name}: same bits {torch.equal(mine, theirs)}, within 1e-5 {torch.allclose(mine, theirs, atol=1e-5)}")

# %% [markdown]
# ## Use it

# %%
loss = FlashByTriton.apply(*leaves, True)[0].square().sum()
loss.backward()  # yours
by_library = torch.autograd.grad(kernels.attention(*leaves, causal=True, backend="triton").square().sum(), leaves)
by_torch = torch.autograd.grad(kernels.attention(*leaves, causal=True).square().sum(), leaves)
for leaf, library, by_tiles in zip(leaves, by_library, by_torch, strict=True):
    assert torch.allclose(leaf.grad, by_tiles, atol=1e-5) and torch.allclose(library, by_tiles, atol=1e-5)
print("your kernels, the library's, and torch tiles agree")

# %% [markdown]
# ## What to remember
#
# | idea | what showed it |
# |---|---|
# | `lse` brings a weight back from its own score; `delta` is $dO \cdot O$ and needs no weights | the real head |
# | give every result one owner: no atomics, no races, the same bits | 16 programs and one total; the sums in 1000 orders; no atomic instruction |
# | two walks make seven products, one walk makes five, keeping the weights four | the count |
# | and still recomputing beats reading, by these peaks, with the exponential counted | picoseconds for a pair |
# | zeros beyond the queries add nothing backwards; zeros beyond the keys add nothing until their weight overflows, and so are masked | `keys_tile`, `queries_tile`, a NaN |
# | rows of $dS$ sum to zero | without delta they do not |
#
# **In practice.** FlashAttention-2 gives each program keys, walks once over the queries, and adds $dQ$ atomically {cite}`dao2023`; FlashAttention-3 gives that adding to a warp of its own {cite}`shah2024`. Both make five products where we make seven, so our backward pass has ground to make up; how much it loses has to be measured.
#
# **Shortcut taken here.** The causal `dkdv_kernel` masks every tile. Dropout of weights is left out: it would need the same random numbers again in both walks, which kernels draw from a counter and a seed instead of keeping them {cite}`dao2022`.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Derive $\delta_i = dO_i \cdot O_i$, and name the two things besides the inputs that a backward kernel needs from the
#   forward pass.
# - Say what a race between programs loses, why the interpreter cannot show it, and which instruction to look for
#   instead.
# - Give every row of every gradient one owner, and count the matrix products that this costs against one walk with
#   atomics.
# - Decide on which side of a tile rows of zeros need a mask, and on which they do no harm.
# - Wrap kernels in an autograd function that saves what is needed and survives a gradient with strides of 0.
# - Find a forgotten $\delta$ by a sum that should be zero.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:weights_from_lse", "ex-prompt"]
# ```{exercise} The weights come back
# :label: ex-weights-from-lse
# Write `weights_from_lse(q, k, lse, seen)`: the softmax weights of one tile, (..., rows, keys), for queries `q` (..., rows, dim_head) and
# **some** of their keys `k` (..., keys, dim_head). `lse` (..., rows) is the logarithm of the sum of exp(score) over *all* keys of a query, with
# scores $q \cdot k/\sqrt{d}$, d = dim_head; `seen` (rows, keys) is True where a query may attend. So the rows of a tile need not sum to 1.
# What is not seen has weight 0, and a query with `lse` $= -\infty$ sees no key at all: zeros, not NaN.
# Scores of 10,000 must not overflow, and scores of -10,000 are as good as any: only their distance from `lse` counts.
# ```

# %% tags=["ex:weights_from_lse", "ex-stub"]
def weights_from_lse(q, k, lse, seen):
    raise NotImplementedError("replace this line")

# %% tags=["ex:weights_from_lse", "ex-check"]
check(weights_from_lse)

# %% tags=["ex:weights_from_lse", "ex-solution", "hide-cell"]
def weights_from_lse(q, k, lse, seen):
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    blind = np.isneginf(lse)
    seen = seen & ~blind[..., None]
    away = scores - np.where(blind, 0, lse)[..., None]
    return np.exp(np.where(seen, away, -np.inf))


require(weights_from_lse)

# %% [markdown] tags=["ex:scores_gradient", "ex-prompt"]
# ```{exercise} Back to the scores, from a tile
# :label: ex-scores-gradient
# Write `scores_gradient(weights, v, out, d_out, d_lse)`: the gradient with respect to the scores of one tile. `weights` (..., rows, keys)
# are the softmax weights of some queries for **some** of their keys, `v` (..., keys, dim_v) the values of those keys; `out` and `d_out`
# (..., rows, dim_v) are the finished result of the queries, over *all* their keys, and the gradient with respect to it. The log-sum-exp of
# each row is a result too: `d_lse` (..., rows) is the gradient with respect to it (the derivative of lse by a score is that score's
# weight). With $g_{ij} = \mathtt{d\_out}_i \cdot v_j$ softmax's backward pass is $A_{ij}\,(g_{ij} - \sum_k A_{ik}\, g_{ik})$, where $k$
# runs over all keys: they are not all here, and the sum can be had without them.
# ```

# %% tags=["ex:scores_gradient", "ex-stub"]
def scores_gradient(weights, v, out, d_out, d_lse):
    raise NotImplementedError("replace this line")

# %% tags=["ex:scores_gradient", "ex-check"]
check(scores_gradient)

# %% tags=["ex:scores_gradient", "ex-solution", "hide-cell"]
def scores_gradient(weights, v, out, d_out, d_lse):
    d_weights = d_out @ v.swapaxes(-1, -2)  # (..., rows, keys)
    delta = (d_out * out).sum(axis=-1) - d_lse  # (..., rows)
    return weights * (d_weights - delta[..., None])


require(scores_gradient)

# %% [markdown] tags=["ex:shared_value_gradient", "ex-prompt"]
# ```{exercise} A key head has several customers
# :label: ex-shared-value-gradient
# In grouped-query attention query head h reads the keys and values of head h // group, group = heads // kv_heads. Write
# `shared_value_gradient(weights, d_out, kv_heads)`: the gradient with respect to the values, (..., kv_heads, seq_k, dim_v), from the weights
# (..., heads, seq_q, seq_k) and the gradient of the results (..., heads, seq_q, dim_v). `kv_heads` divides `heads`; there may be any leading
# axes.
# ```

# %% tags=["ex:shared_value_gradient", "ex-stub"]
def shared_value_gradient(weights, d_out, kv_heads):
    raise NotImplementedError("replace this line")

# %% tags=["ex:shared_value_gradient", "ex-check"]
check(shared_value_gradient)

# %% tags=["ex:shared_value_gradient", "ex-solution", "hide-cell"]
def shared_value_gradient(weights, d_out, kv_heads):
    each = weights.swapaxes(-1, -2) @ d_out  # (..., heads, seq_k, dim_v)
    *lead, heads, seq_k, dim_v = each.shape
    grouped = each.reshape(*lead, kv_heads, heads // kv_heads, seq_k, dim_v)
    return grouped.sum(axis=-3)


require(shared_value_gradient)

# %% [markdown] tags=["ex:one-walk", "ex-prompt", "ex-open"]
# ```{exercise} One walk
# :label: ex-one-walk
# Write the backward pass in one walk: let `dkdv_kernel` also add `d_scoresᵀ k / √d` to `d_q` with `tl.atomic_add` (its `scale` holds log2(e) too; `d_q` is float32, since 16-bit sums of many parts lose digits, and starts at zero). Test it in the interpreter. Then argue: how many bytes of atomic additions does it make for one head with n = 16,384, d = 64 and 128 keys to a program, not causal, and how does that compare with the two products and the exponential it saves? Which of your tests
# would fail if you used `tl.load` and `tl.store` instead?
# ```
#
# ## Sources
#
# Algorithm 2 of FlashAttention-2 {cite}`dao2023` is the backward pass in tiles; $\delta = dO \cdot O$ is in FlashAttention's appendix {cite}`dao2022`.
