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
# # Can attention be exact and never hold its scores?
#
# Softmax divides by a sum over the whole row, and to be safe it first needs the largest score of the whole row. It looks as if a row had to be complete before anything can be done with it. In this chapter you compute attention a
# tile at a time and forget each tile at once. The result is the same, to rounding; the memory is not. Then you do the same backwards.
#
# :::{admonition} Before you start
# :class: note
# **You need** [chapter 4](04_softmax.ipynb) (softmax does not care what is subtracted from a row), [chapter 5](05_self_attention.ipynb) (the gradients of attention) and from [chapter 14](14_complexity.ipynb) how FLOPs and memory are counted; what fast and slow memory are is in [chapter 19](19_memory_hierarchy.ipynb). **You will build** the online
# softmax, FlashAttention's forward pass and its backward pass, as `attnlib.flash` has them. **Time** about 55 minutes; the cells run in half a minute. {numref}`fig-flash-walk` is the algorithm in one image.
# :::

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional as F

from attnlib import costs, layers, masks, measure
from attnlib.data import real_head
from attnlib.flash import flash_attention, merge_partial
from attnlib.plots import flash as plots
from attnlib.reference import attention, attention_scores

torch.set_num_threads(1)
rng = np.random.default_rng(0)
generator = torch.Generator().manual_seed(0)


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=generator, dtype=dtype)

# %% [markdown]
# ## What is held?
#
# Two heads, 2048 tokens, 64 wide. The inputs are 1 MiB each. How much memory does attention take at its peak, if scores and weights are ordinary arrays? And how much for twice as many tokens?

# %%
def peak(attend, seq, heads=2, width=64):
    q, k, v = (draw(1, heads, seq, width) for _ in range(3))
    return measure.allocated_bytes(lambda: attend(q, k, v)) / 2**20


naive = {seq: peak(lambda q, k, v: layers.attention(q, k, v)[0], seq) for seq in (1024, 2048, 4096)}
for seq, mib in naive.items():
    print(f"{seq} tokens: {mib:6.1f} MiB, one array of scores {2 * seq * seq * 4 / 2**20:.0f} MiB")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Two arrays of 32 MiB, if you counted scores and weights; a bare softmax would hold those. This layer holds three at once, products, scaled scores and weights, and a mask. (The inputs are not counted.) With twice the tokens it is four times as much. At 131,072 tokens a single head's scores are 64 GiB.
# :::
#
# PyTorch's fused attention, one call for the whole of it, gives the same result up to rounding. What does it hold?

# %%
fused = peak(F.scaled_dot_product_attention, 2048)
print(f"2048 tokens, fused: {fused:.1f} MiB")
assert fused < naive[2048] / 20

# %% [markdown]
# The result is 1 MiB; the rest is working space, and nothing of the size of the scores. So it can be done, and the rest of the chapter is how.
#
# ## One key at a time
#
# Take one query of the real head: *it*, in *the animal didn't cross the street because it was too tired*, with 15 keys to go through. Its scores come one after the other. What must you remember of the ones that are gone?
#
# With a fixed number $c$ subtracted from all scores the result is $\sum_j e^{s_j - c} v_j \,/\, \sum_j e^{s_j - c}$: two running sums. The trouble is $c$: it should be the largest score, and that may still come. But a power that was taken
# too large can be shrunk afterwards, $e^{s - m_{\text{old}}} \cdot e^{m_{\text{old}} - m_{\text{new}}} = e^{s - m_{\text{new}}}$, and the same factor does for the whole sum.

# %%
def online_softmax_update(row_max, row_sum, out, scores, v):
    new_max = np.maximum(row_max, scores.max(axis=-1, initial=-np.inf))  # (..., seq_q)
    shift = np.where(np.isneginf(new_max), 0, new_max)       # nothing seen yet: any finite shift will do
    rescale = np.exp(row_max - shift)                        # what has been summed used the old maximum
    powers = np.exp(scores - shift[..., None])               # (..., seq_q, block)
    row_sum = rescale * row_sum + powers.sum(axis=-1)
    out = rescale[..., None] * out + powers @ v              # (..., seq_q, dim_v)
    return new_max, row_sum, out

# %% [markdown]
# This is the {term}`online softmax` {cite}`milakov2018`, with values; it is `attnlib.reference.online_softmax_update`. Feed it one key at a time and look at the first two of its three running quantities.

# %%
head = real_head("pronoun")
it = head.tokens.index("it")
x = head.x.astype(float)
queries, keys, values = x @ head.w_q + head.b_q, x @ head.w_k + head.b_k, x @ head.w_v + head.b_v
scores = attention_scores(queries[it : it + 1], keys)
state = np.array([-np.inf]), np.zeros(1), np.zeros((1, values.shape[1]))
walk = []
for j in range(len(head.tokens)):
    state = online_softmax_update(*state, scores[:, j : j + 1], values[j : j + 1])
    walk.append((state[0][0], state[1][0]))
    if j < 4 or j == len(head.tokens) - 1:
        print(f"{head.tokens[j]:8} score {scores[0, j]:5.2f}   row_max {walk[-1][0]:5.2f}   row_sum {walk[-1][1]:5.2f}")

# %% [markdown]
# Two numbers and a vector, whatever the length. When the last key is in, one division is left:

# %%
row_max, row_sum, out = state
expected, weights = attention(queries, keys, values)
difference = np.abs(out / row_sum[:, None] - expected[it]).max()
print(f"the running result agrees with attention: {difference < 1e-14}")
assert difference < 1e-14  # sums of 15 numbers near 1 in float64

# %% mystnb={"image": {"alt": "Two panels over the tokens of the sentence. Above, the scores of the query it as dots and the running maximum as a staircase; below, the running sum, which drops at each step of the staircase and grows between."}, "figure": {"caption": "The running maximum is a staircase. At each step everything that was summed before shrinks by the same factor.", "name": "fig-flash-online"}}
plots.running(scores[0], np.array(walk), head.tokens)
plt.show()

# %% [markdown]
# How often does the staircase step, its first stair included? If the keys come in random order, the $j$-th is the largest so far with probability $1/j$: about $\ln n$ steps in a row of $n$. What do you expect for 4096 keys?

# %%
rows = rng.normal(size=(500, 4096))
steps = (rows == np.maximum.accumulate(rows, axis=1)).sum(axis=1).mean()
harmonic = sum(1 / j for j in range(1, 4097))
print(f"measured {steps:.1f} steps, 1 + 1/2 + ... + 1/4096 = {harmonic:.1f}")
assert abs(steps - harmonic) < 0.5  # standard error 0.12 over 500 rows

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Nine, the first key included. Most updates of the maximum change nothing. So a kernel that does *not* rescale goes wrong at about eight keys of 4096, and at fewer blocks. That makes a mistake hard to see that comes below.
# :::
#
# Must it be the maximum that is subtracted? The factor is right for any two numbers; the maximum only keeps the powers from overflowing. So let the number lag behind, and move it only where a score is more than $\ln 256$ above it: no power is then larger than 256. How many of the nine steps are left, and how exact is the result?

# %%
def lagging_update(shift, row_sum, out, scores, v):
    highest = np.maximum(shift, scores.max(axis=-1))
    new_shift = np.where(highest > shift + np.log(256), highest, shift)  # always at the first block, where shift is -inf
    rescale, powers = np.exp(shift - new_shift), np.exp(scores - new_shift[..., None])
    return new_shift, rescale * row_sum + powers.sum(axis=-1), rescale[..., None] * out + powers @ v


lagging, moves = (np.full(500, -np.inf), np.zeros(500), np.zeros((500, 8))), 0
for j in range(4096):
    before, lagging = lagging[0], lagging_update(*lagging, rows[:, j : j + 1], rows[:8, j][None])  # any values will do
    moves += (lagging[0] > before).mean()
print(f"{moves:.2f} steps instead of {steps:.2f}")
exact = np.exp(rows) @ rows[:8].T / np.exp(rows).sum(axis=1, keepdims=True)  # scores below 6: nothing overflows
assert moves < 1.2 and np.abs(lagging[2] / lagging[1][:, None] - exact).max() < 1e-13  # sums of 4096 in float64

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Hardly one besides the first, and exact to rounding: sum and result share the number, whatever it is, and the division removes it. FlashAttention-4 does this, with 256, on Blackwell GPUs, whose matrix units have become faster while the other units hardly have {cite}`zadouri2026`. What must not happen is that the number moves and what was summed does not.
# :::
#
# ## The mistake that tests let through
#
# Leave the factor out. Would a test with random numbers notice?

# %%
def forgets_to_rescale(row_max, row_sum, out, scores, v):
    new_max = np.maximum(row_max, scores.max(axis=-1, initial=-np.inf))
    powers = np.exp(scores - new_max[..., None])
    return new_max, row_sum + powers.sum(axis=-1), out + powers @ v


def in_blocks(update, scores, v, block):
    state = np.full(len(scores), -np.inf), np.zeros(len(scores)), np.zeros((len(scores), v.shape[1]))
    for start in range(0, scores.shape[1], block):
        state = update(*state, scores[:, start : start + block], v[start : start + block])
    return state[2] / state[1][:, None]

# %% [markdown]
# It is right where the first block holds the largest score of the row. Let a test compare one query, 144 keys and blocks of 128, so that the second block is short. How often does the broken code pass?

# %%
trials = [(rng.normal(size=(1, 144)), rng.normal(size=(144, 8))) for _ in range(1000)]
passed = np.mean([np.allclose(in_blocks(forgets_to_rescale, s, v, 128), in_blocks(online_softmax_update, s, v, 128))
                  for s, v in trials])
print(f"it passes {passed:.3f} of the tests")
assert abs(passed - 128 / 144) < 0.04  # four standard deviations of a share over 1000 trials

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Eight times in nine, $128/144$: whenever the maximum falls into the first block. So a test of tiled attention needs scores that *rise* along the row, as well as lengths that no block divides. (With many queries chance helps: all of them must have their maximum in the first block.) The last exercise of
# [chapter 21](21_triton.ipynb) hides this bug in a kernel.
# :::

# %%
rising = np.linspace(-3, 3, 144)[None]
off = np.abs(in_blocks(forgets_to_rescale, rising, trials[0][1], 64) - in_blocks(online_softmax_update, rising, trials[0][1], 64)).max()
print(f"with rising scores it is off by {off:.2f}")
assert off > 0.1

# %% [markdown]
# ## A tile of queries and keys
#
# One key at a time would be slow: no matrix product is left. Take a *tile*, a block of queries against a block of keys. Its scores are one matrix product, the update of the result another, and between the two stand a few passes over an
# array that is small enough for fast memory: a core's cache here, the shared memory and registers of a GPU in the next chapters. That is FlashAttention {cite}`dao2022`; computing attention in parts that need little memory is older {cite}`rabe2021`.
#
# The library's tile works in place, on torch tensors, and in powers of two, because that is the power a GPU has an instruction for: $e^s = 2^{s \log_2 e}$, and the factor $\log_2 e$ goes into the product, where it is free. So does the scale. (`torch.addmm(C, A, B, beta=β, alpha=α)` is $\beta C + \alpha AB$, here written into an array that is there already. A name that ends in `_` works in place: `powers` is `scores`, overwritten. `out` is a view of the whole result.)

# %%
LOG2E = np.log2(np.e)


def forward_tile(q, k, v, out, row_max, row_sum, scores, seen=None):
    torch.addmm(scores, q, k.T, beta=0, alpha=LOG2E / q.shape[-1] ** 0.5, out=scores)
    if seen is not None:
        scores.masked_fill_(~seen, -torch.inf)
    new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
    powers = scores.sub_(new_max).exp2_()
    rescale = torch.exp2(row_max - new_max)                  # what stood under the old maximum shrinks
    row_sum.mul_(rescale).add_(powers.sum(-1, keepdim=True))
    out.mul_(rescale).addmm_(powers, v)
    row_max.copy_(new_max)

# %% [markdown]
# It is `attnlib.flash`'s own. Around it, two loops: over blocks of queries, and for each of them over all keys. `out` is divided at the end, and beside it one number is kept for each query, the {term}`log-sum-exp` $L_i = m_i + \log \ell_i$ of its maximum $m_i$ and its sum $\ell_i$ (`row_max`, `row_sum`). Inside the tiles it is in base 2 like everything else, $L_i \log_2 e$, hence the name `lse2`; `flash_attention` hands out $L_i$ itself.

# %%
def flash_forward(q, k, v, tile_q=128, tile_k=256):
    out, lse2 = torch.zeros(len(q), v.shape[1], dtype=q.dtype), torch.empty(len(q), 1, dtype=q.dtype)
    for start in range(0, len(q), tile_q):
        rows = slice(start, min(start + tile_q, len(q)))
        row_max = torch.full((rows.stop - start, 1), torch.finfo(q.dtype).min, dtype=q.dtype)
        row_sum = torch.zeros_like(row_max)
        for first in range(0, len(k), tile_k):
            keys = slice(first, min(first + tile_k, len(k)))
            scores = torch.empty(rows.stop - start, keys.stop - first, dtype=q.dtype)
            forward_tile(q[rows], k[keys], v[keys], out[rows], row_max, row_sum, scores)
        out[rows] /= row_sum
        lse2[rows] = row_max + row_sum.log2()
    return out, lse2

# %% [markdown]
# The maximum starts at the lowest finite number and not at $-\infty$, so that a row that sees nothing never computes $\infty - \infty$. (No mask is passed here. The library passes `seen`, and divides by 1 where a sum is 0: such a row is zeros.)
#
# Is it exact? Ordinary attention in float32 has rounding errors of its own. Take float64 for the truth and measure both.

# %%
q, k, v = (draw(1000, 64) for _ in range(3))
truth = layers.attention(q.double(), k.double(), v.double())[0]
errors = {"tiles": flash_forward(q, k, v)[0], "ordinary": layers.attention(q, k, v)[0]}
errors = {name: (out.double() - truth).abs().max().item() for name, out in errors.items()}
print(f"the tiles err at most twice as much as ordinary attention: {errors['tiles'] < 2 * errors['ordinary']}")  # twice is for luck
assert errors["tiles"] < 2 * errors["ordinary"] < 1e-5

# %% [markdown]
# The same function, with rounding of the same size: no approximation anywhere. (It is not the same to the last *bit*, because sums are taken in another order; two fused kernels differ from each other in the same way.)
#
# Now watch the walk. Six queries and ten keys of the head, in tiles of 3 by 4, causal as in a decoder; the blocks of keys are taken from right to left. Which tiles are not needed? And in which of them will the running maximum rise?

# %%
small = attention_scores(queries[4:10], keys[:10])
seen = masks.to_array(masks.causal, 6, 10)
pictures = []
for rows in (slice(0, 3), slice(3, 6)):
    state = np.full(3, -np.inf), np.zeros(3), np.zeros((3, values.shape[1]))
    for columns in (slice(8, 10), slice(4, 8), slice(0, 4)):
        if seen[rows, columns].any():
            tile = np.where(seen[rows, columns], small[rows, columns], -np.inf)
            state = online_softmax_update(*state, tile, values[columns])
            pictures.append((rows, columns, state[0], state[1]))
print(f"{len(pictures)} tiles of 6 are computed")
assert all((pictures[last][2] > pictures[last - 1][2]).all() for last in (1, 4))  # all maxima rise at the last tile

# %% mystnb={"image": {"alt": "Five small copies of a matrix of 6 by 10 scores, one for each tile visited: the tile is outlined, tiles already gone are pale, and at the side stand the running maximum and sum of the three rows of the tile."}, "figure": {"caption": "The walk: a block of queries meets one block of keys after the other. Only the outlined tile exists; what remains of those before it are two numbers for each row, and the running result.", "name": "fig-flash-walk"}}
plots.walk(small, seen, pictures)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The last tile of the first three queries lies wholly in the future and is skipped; tiles on the diagonal are computed and masked. Any order of tiles gives the same end. In this one [CLS], the largest score of all six rows, comes last: every maximum rises at the last tile of its row, and every sum that stood there shrinks. From left to right no maximum would ever rise, and the broken update from above would draw the same picture. For long texts this saves half of the work, and any other {term}`mask` saves what it leaves of the tiles ([chapter 15](15_sparse.ipynb)).
# :::
#
# Now walk yourself, over the whole head and its 15 tokens. It starts where the maximum of *it* rises for the last time. Before you press anything: at which tile would that be if the keys were taken from right to left? And would larger tiles of queries move more bytes, or fewer?

# %%
from attnlib.widgets.flash_stepper import FlashStepper

FlashStepper(
    attention_scores(queries, keys), values, head.tokens, dim_head=32, tile_q=4, tile_k=2, query=it, causal=True,
    caption="Only the framed tile of scores exists; of those before it, each row keeps a maximum, a sum and an unfinished output. Where a maximum rises, "
            "what was summed shrinks by one factor. Step on; then take the keys from right to left, and make the tiles of queries larger until they no longer fit.")

# %% [markdown]
# :::{dropdown} Your predictions, then ours
# At the same one, of *animal* and *didn*: the largest score of a row is the largest in any order, and what came before it is all that shrinks. Fewer: a tile of queries that is twice as high reads all keys and values half as often. (With 15 queries the number of blocks falls at 4, 5, 8 and 15 only, and in between a higher tile crosses the diagonal sooner, so that less is skipped: compare 4, 8 and 15, or take *causal* away.) That is why kernels choose it high, as far as fast memory and registers allow. (With 15 tokens and tiles this small the walk moves *more* than all scores would: tiles pay from a certain height on, which the figure names.)
# :::
#
# ## What it costs
#
# `attnlib.flash.flash_attention` is these loops for all heads, with tiles of 512 queries and at most 1024 keys; with a causal mask a tile ends at the last key that its queries see. First the memory: what do you expect for 1024, 2048 and 4096 tokens, where ordinary attention took the squares above?

# %%
tiled = {seq: peak(flash_attention, seq) for seq in naive}
for seq, mib in tiled.items():
    print(f"{seq} tokens: {mib:4.1f} MiB in tiles, {naive[seq]:6.1f} with all scores")
slope = measure.slope(list(tiled), list(tiled.values())).exponent
assert slope < 1.1 and measure.slope(list(naive), list(naive.values())).exponent > 1.8

# %% mystnb={"image": {"alt": "Peak memory over the number of tokens on logarithmic axes: all scores rise with slope two, tiles with slope one or less, far below."}, "figure": {"caption": "Memory with all scores grows with the square of the length, in tiles with the length.", "name": "fig-flash-memory"}}
plots.memory(list(naive), {"all scores": list(naive.values()), "in tiles": list(tiled.values())})
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The result itself (two heads, 64 wide: 1 MiB for 2048 tokens), and one tile of 2 MiB, whatever the length.
# :::
#
# And the FLOPs?

# %%
q, k, v = (draw(1, 2, 2048, 64) for _ in range(3))
counted = {"all scores": measure.flops(lambda: layers.attention(q, k, v)), "tiles": measure.flops(lambda: flash_attention(q, k, v)),
           "causal tiles": measure.flops(lambda: flash_attention(q, k, v, causal=True))}
for name, flops in counted.items():
    print(f"{name:13} {flops / 1e9:.2f} GFLOP")
assert counted["tiles"] == counted["all scores"] == costs.attention_flops(2, 2048, 2048, 64)

# %% [markdown]
# Not one less of the products, which is what we count; the rescaling adds a little. (Causal: four blocks of 512 queries meet 1, 2, 3 and 4 times 512 keys, 10 parts of 16.) **FlashAttention is not linear attention**: its time still grows with the square. It saves memory, and *traffic*: the scores never travel to slow memory and back. On a GPU, whose arithmetic is far faster than its memory, that is worth more than any FLOP ([chapter 19](19_memory_hierarchy.ipynb) counts it; on a GPU this book has **not measured yet**). On
# a CPU it holds as well. Here is the time, in turns with ordinary attention, with a bare softmax (which has no masks to look after, and is the fairer opponent) and with PyTorch's fused kernel, which is this algorithm in C++:

# %% tags=["nbval-ignore-output"]
def bare(q, k, v):
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v


calls = {"all scores": lambda: layers.attention(q, k, v), "bare softmax": lambda: bare(q, k, v),
         "tiles": lambda: flash_attention(q, k, v), "fused": lambda: F.scaled_dot_product_attention(q, k, v)}
shares = measure.ratios(measure.cpu_times(calls, repeats=9), to="fused")
for name, share in shares.items():
    print(f"{name:12} {share.median:.2f} times the fused kernel's time")
assert shares["tiles"].median < shares["bare softmax"].median

# %% [markdown]
# A few dozen lines of Python come close to the kernel on our machine. All four compute the same two products; what the first two add is passes over arrays of 32 MiB, far more than a core's own cache holds: `layers.attention` makes more of them, for its masks.
#
# So much for your machine. With eight heads of 64 and on ours, by `make bench PART=flash`; each number is `attnlib.flash` over PyTorch's kernel, with the quartiles of the rounds:

# %%
with open("data/bench-flash.json") as file:
    record = json.load(file)
print(record["device"], record["command"], record["date"], sep="\n")
over = {(way, pairs, seq): rows[0]["over SDPA"] for run in record["runs"] for way in ("forward", "forward and backward")
        for pairs in ("all pairs", "causal") for seq in (1024, 4096, 8192) for rows in [run["tables"][f"{way}, {pairs}, N = {seq}"]]}
for (way, pairs, seq), (median, low, high) in over.items():
    print(f"{way:20} {pairs:9} {seq:5} tokens: {median:.2f} ({low:.2f} to {high:.2f})")

# %%
for row in record["runs"][-1]["tables"]["peak memory beyond the inputs, N = 8192"]:
    print(f"{row['what']:31} {row['attnlib.flash MiB']:5.1f} MiB; PyTorch {row['SDPA MiB']:5.1f} MiB")
assert max(over[way, "all pairs", seq][0] for way in ("forward", "forward and backward") for seq in (4096, 8192)) < 1.4
assert max(over, key=lambda at: over[at][0]) == ("forward", "causal", 1024)

# %% [markdown]
# Causal and short it is furthest behind: a tile on the diagonal is computed whole, and half of it is thrown away.
#
# ### What size should a tile be?
#
# Each block of queries reads all keys and values once. So larger blocks of queries read less, until the tile no longer fits. Count the numbers read for 16,384 tokens, width 64, against the ones that ordinary attention writes and reads as scores:

# %%
seq, width = 16384, 64
for tile_q in (1, 16, 128, 1024):
    print(f"blocks of {tile_q:4} queries: {seq // tile_q * seq * 2 * width / 1e6:8.0f} million numbers of keys and values")
print(f"scores written and read, twice: {4 * seq * seq / 1e6:8.0f} million")

# %% [markdown]
# With one query at a time the tiles would read more than the scores they avoid: two vectors of 64 for each pair. With 128 queries it is a quarter of those. In general it is $2 n^2 d / b$ for blocks of $b$ queries, however the keys are cut. As $b$ rows of width $d$ must fit into a fast memory of $M$ numbers, $b \approx M/d$ and the traffic is
# $\Theta(n^2 d^2 / M)$, which no exact algorithm beats for all $M$ from $d$ to $nd$ {cite}`dao2022`. For $d = 64$ and $M = 50{,}000$, $d^2/M$ is a twelfth.
#
# ## Backwards, without the weights
#
# Training needs gradients, and the gradients of attention (chapter 5) are made of the weights, which nobody kept. Must the tiles be stored after all?
#
# :::{dropdown} Your prediction, then ours
# No: a tile of weights is computed again from $q$, $k$ and the one number $L_i$ of each row, $A_{ij} = e^{S_{ij} - L_i}$. No running maximum, no second pass: the row's sum is known now.
# :::

# %%
q, k, v = (draw(300, 16, dtype=torch.float64) for _ in range(3))
out, lse2 = flash_forward(q, k, v)
again = torch.exp2(q[:50] @ k.T * LOG2E / 16**0.5 - lse2[:50])
weights = layers.attention(q, k, v)[1][:50]
assert (again - weights).abs().max() < 1e-14  # both are the quotient of a power and a sum, in float64
print("the weights are back, from one number for each row")

# %% [markdown]
# Write $\partial X$ for the gradient of the loss with respect to $X$; $S$ are the scaled scores, $A$ the weights, $O$ the result. Softmax's gradient needs one more number for each row: $\partial S_{ij} = A_{ij} (\partial A_{ij} - \delta_i)$ with $\delta_i = \sum_j A_{ij}\, \partial A_{ij}$, a sum over *all* keys. Does that need a pass of its own over all tiles? With $\partial A = \partial O\, V^\top$,
#
# $$\delta_i = \sum_j A_{ij}\, (\partial O_i \cdot V_j) = \partial O_i \cdot \sum_j A_{ij} V_j = \partial O_i \cdot O_i .$$

# %%
d_out = draw(300, 16, dtype=torch.float64)
whole = layers.attention(q, k, v)[1]
over_all_keys = (whole * (d_out @ v.T)).sum(-1)
delta = (d_out * out).sum(-1)
assert (over_all_keys - delta).abs().max() < 1e-13
print("a sum over 300 keys is a product of two vectors of 16")

# %% [markdown]
# So the backward pass keeps $q$, $k$, $v$, the result, and one number per row. One tile of it:

# %%
def backward_tile(q, k, v, d_out, lse2, delta, d_q, d_k, d_v, scores, d_weights, seen=None):
    scale = q.shape[-1] ** -0.5
    torch.addmm(-lse2, q, k.T, alpha=LOG2E * scale, out=scores)          # scores less lse2, in one call
    if seen is not None:
        scores.masked_fill_(~seen, -torch.inf)
    weights = scores.exp2_()
    d_v.addmm_(weights.T, d_out)
    d_scores = torch.addmm(-delta, d_out, v.T, out=d_weights).mul_(weights)
    d_q.addmm_(d_scores, k, alpha=scale)
    d_k.addmm_(d_scores.T, q, alpha=scale)

# %% [markdown]
# Five products; the first is the one that is done again {cite}`dao2023`. Nothing runs along the row any more: every tile adds to three gradients, in any order.

# %%
def flash_backward(q, k, v, out, lse2, d_out, tile=128):
    d_q, d_k, d_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    delta = (d_out * out).sum(-1, keepdim=True)
    for start in range(0, len(q), tile):
        for first in range(0, len(k), tile):
            rows, keys = slice(start, start + tile), slice(first, first + tile)
            scores = torch.empty(len(q[rows]), len(k[keys]), dtype=q.dtype)
            backward_tile(q[rows], k[keys], v[keys], d_out[rows], lse2[rows], delta[rows], d_q[rows], d_k[keys], d_v[keys],
                          scores, torch.empty_like(scores))
    return d_q, d_k, d_v

# %%
leaves = [x.clone().requires_grad_() for x in (q, k, v)]
expected = torch.autograd.grad(layers.attention(*leaves)[0], leaves, d_out)
for name, got, want in zip("qkv", flash_backward(q, k, v, out, lse2, d_out), expected, strict=True):
    difference = (got - want).abs().max()
    print(f"d_{name} agrees with autograd: {bool(difference < 1e-12)}")
    assert difference < 1e-12  # sums of 300 numbers in float64

# %% [markdown]
# How many FLOPs does the recomputation add? Ordinary attention has 2 products forward and 4 backward. Predict the ratio of the sums.

# %%
def both_ways(attend):
    q, k, v = (draw(1, 1, 512, 64).requires_grad_() for _ in range(3))
    return lambda: torch.autograd.grad(attend(q, k, v).sum(), (q, k, v))


ordinary, flash = measure.flops(both_ways(lambda *x: layers.attention(*x)[0])), measure.flops(both_ways(flash_attention))
print(f"forward and backward: {flash / ordinary:.4f} times the FLOPs; 7/6 = {7 / 6:.4f}")
assert flash * 6 == ordinary * 7

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# $(2 + 5)/(2 + 4)$, a sixth more. Fewer bytes for more FLOPs: on a GPU it is *faster* to compute the weights again than to read them back {cite}`dao2022`. And what is kept for the backward pass, for every layer of a network until its gradient comes, falls from the square to the length:
# :::

# %%
def saved(attend, seq):
    sizes = {}                                               # by address: what two steps keep counts once
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.update({x.untyped_storage().data_ptr(): x.nbytes}) or x, lambda x: x):
        attend(*(draw(1, 1, seq, 64).requires_grad_() for _ in range(3)))
    return sum(sizes.values()) / 2**20


for seq in (1024, 2048):
    print(f"{seq} tokens: {saved(lambda *x: layers.attention(*x)[0], seq):5.2f} MiB kept with all scores, "
          f"{saved(bare, seq):5.2f} by a bare softmax, {saved(flash_attention, seq):4.2f} in tiles")

# %% [markdown]
# ### A second mistake
#
# It is tempting to keep the log-sum-exp of one tile, here of the first 128 keys, instead of the row's. Everything runs, and in that tile the weights of a row even sum to 1. What goes wrong?

# %%
wrong_lse = torch.logsumexp(q @ k[:128].T / 16**0.5, -1, keepdim=True) * LOG2E
d_q = flash_backward(q, k, v, out, wrong_lse, d_out)[0]
print(f"d_q is off by {(d_q - expected[0]).abs().max() / expected[0].abs().max():.1f} times its largest entry")
like = F.cosine_similarity(d_q, expected[0], dim=-1).min()
print(f"cosine between each row of d_q and what it should be: at least {like:.3f}")
assert (d_q - expected[0]).abs().max() > 0.5 * expected[0].abs().max()

# %% [markdown]
# The weights of a tile are shares of the *row*; they sum to 1 over all tiles together. With the log-sum-exp of the first 128 keys each comes out too large, and within a row by the same factor: d_q points the right way and is too long. A loss that falls all the same would hide it.
#
# ## Parts that are computed apart
#
# The pair (result, log-sum-exp) is all that the rest of the row needs to know. So parts of a row can be computed anywhere, in any order, and merged: chapter 15 merged a window with global tokens by `merge_partial`,
#
# $$O = \frac{e^{L_1} O_1 + e^{L_2} O_2}{e^{L_1} + e^{L_2}}, \qquad L = \log(e^{L_1} + e^{L_2}),$$
#
# with the larger $L$ subtracted first. It is the online update once more, with a part in place of a key. Cut the keys into four parts, and merge them in two orders.

# %%
q, k, v = (draw(1, 1, 200, 16, dtype=torch.float64) for _ in range(3))
parts = [flash_attention(q, k[:, :, at : at + 50], v[:, :, at : at + 50], return_lse=True) for at in range(0, 200, 50)]


def merged(order):
    result = parts[order[0]]
    for i in order[1:]:
        result = merge_partial(*result, *parts[i])
    return result[0]


one, other, direct = merged([0, 1, 2, 3]), merged([2, 0, 3, 1]), flash_attention(q, k, v)
assert max((one - direct).abs().max(), (other - direct).abs().max()) < 1e-14
print("four parts, in either order: attention over all keys")

# %% [markdown]
# Merging is associative and commutative, up to rounding. That is how one query is spread over many processors when a model generates (chapter 23), and how one text is spread over many devices ([chapter 24](24_many_devices.ipynb)).
#
# ## What to remember
#
# | claim | true? | what showed it |
# |---|---|---|
# | softmax needs the whole row before anything can be divided | a running maximum and sum will do, and one factor | one key at a time |
# | FlashAttention approximates | exact, with rounding of the same size | float64 |
# | FlashAttention has linear cost | linear *memory*; the FLOPs are the same forward, a sixth more with the backward pass | counted |
# | the backward pass needs the weights | it needs one number for each row | `lse`, and $\delta_i = \partial O_i \cdot O_i$ |
# | it is faster because it computes less | it moves less: $\Theta(n^2 d^2/M)$ numbers instead of $n^2$ | reads of keys and values |
# | random tests find a missing rescale | one query and a short last block: they miss it eight times in nine; scores that rise find it | the broken update |
#
# **In practice.** `F.scaled_dot_product_attention` runs this algorithm wherever it can: on CPUs, and on GPUs through FlashAttention-2 {cite}`dao2023`, cuDNN or, in float32 for instance, a third kernel called memory-efficient. FlashAttention-2 moved the division to the end, as here, and gave each block of queries a worker of its own, an order of loops that its paper credits to Triton's kernel; FlashAttention-3 overlaps the products with the
# softmax of another tile on Hopper GPUs {cite}`shah2024`; FlashAttention-4 is for Blackwell {cite}`zadouri2026`.
#
# **Shortcut taken here.** Tiles are walked one after the other by one thread. A GPU runs a program for each block of queries at the same time; in the backward pass two of them must not add to the same gradient at once. FlashAttention-2 adds to d_q atomically; Triton's tutorial and this book walk twice, keys in one loop and queries in another, for two more products ([chapter 22](22_triton_backward.ipynb)).

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Compute softmax attention one key at a time with two numbers and a vector, and finish it with one division.
# - Say how often a running maximum steps in a row of random scores, and write a test that a missing rescale cannot
#   pass.
# - Write FlashAttention's forward pass in tiles, and say which of its costs still grow with the square.
# - Compute how many queries a tile must hold for the tiles to read less than the scores that they avoid.
# - Bring a tile of weights back from one number per row, and replace a sum over all keys by a product of two vectors.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:tiled_attention", "ex-prompt"]
# ```{exercise} Attention that never holds its scores
# :label: ex-tiled-attention
# Write `tiled_attention(q, k, v, block)`: softmax attention with scores $QK^\mathsf T/\sqrt{d}$, d = dim_head, and no mask, computed from
# `block` keys at a time {cite}`dao2022`. `q` is (..., seq_q, dim_head), `k` (..., seq_k, dim_head), `v` (..., seq_k, dim_v). Return
# `(out, lse)`: the finished result (..., seq_q, dim_v), and for each query the logarithm of the sum of exp(score) over all keys,
# (..., seq_q). The last block may be shorter; a block may also be longer than the sequence. Scores of 10,000 must not overflow. At no
# time may more than a few arrays of shape (..., seq_q, `block`) exist: for long inputs the memory is measured.
# ```

# %% tags=["ex:tiled_attention", "ex-stub"]
def tiled_attention(q, k, v, block):
    raise NotImplementedError("replace this line")

# %% tags=["ex:tiled_attention", "ex-check"]
check(tiled_attention)

# %% tags=["ex:tiled_attention", "ex-solution", "hide-cell"]
def tiled_attention(q, k, v, block):
    row_max = np.full(q.shape[:-1], -np.inf)  # (..., seq_q)
    row_sum = np.zeros(q.shape[:-1])
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for start in range(0, k.shape[-2], block):
        tile = slice(start, start + block)
        scores = q @ k[..., tile, :].swapaxes(-1, -2) / q.shape[-1] ** 0.5
        new_max = np.maximum(row_max, scores.max(axis=-1))
        powers = np.exp(scores - new_max[..., None])  # (..., seq_q, block)
        rescale = np.exp(row_max - new_max)
        row_sum = rescale * row_sum + powers.sum(axis=-1)
        out = rescale[..., None] * out + powers @ v[..., tile, :]
        row_max = new_max
    return out / row_sum[..., None], row_max + np.log(row_sum)


require(tiled_attention)

# %% [markdown] tags=["ex:tiles_computed", "ex-prompt"]
# ```{exercise} Which tiles are left?
# :label: ex-tiles-computed
# Attention of `seq_q` queries to `seq_k` keys is computed in tiles of `tile_q` queries by `tile_k` keys, beginning at the first query and the first key; the last tiles of a
# row or column may be smaller. It is causal, aligned to the end: query i sees the keys up to i + `seq_k` − `seq_q`, the last query sees the last key. Write
# `tiles_computed(seq_q, seq_k, tile_q, tile_k)`, the number of tiles in which at least one query sees at least one key: those that have to be computed {cite}`dao2022`. (Python ints;
# where `seq_q` is larger than `seq_k`, the first queries see nothing.)
# ```

# %% tags=["ex:tiles_computed", "ex-stub"]
def tiles_computed(seq_q, seq_k, tile_q, tile_k):
    raise NotImplementedError("replace this line")

# %% tags=["ex:tiles_computed", "ex-check"]
check(tiles_computed)

# %% tags=["ex:tiles_computed", "ex-solution", "hide-cell"]
def tiles_computed(seq_q, seq_k, tile_q, tile_k):
    count = 0
    for start in range(0, seq_q, tile_q):
        last_query = min(start + tile_q, seq_q) - 1  # sees most of its tile
        keys = max(0, last_query + 1 + seq_k - seq_q)  # how many
        count += -(-keys // tile_k)
    return count


require(tiles_computed)

# %% [markdown] tags=["ex:tile_gradients", "ex-prompt"]
# ```{exercise} One tile of the backward pass
# :label: ex-tile-gradients
# Write `tile_gradients(q, k, v, d_out, lse, delta)`, what one tile adds to the gradients of attention {cite}`dao2023`. `q` (..., rows, dim_head) and
# `d_out` (..., rows, dim_v) are some queries and the loss's gradient with respect to their results, `k` (..., columns, dim_head) and `v`
# (..., columns, dim_v) some of the keys and values. For these queries and **all** keys of the sequence, `lse` (..., rows) is the logarithm of the sum of
# exp(score), and `delta` (..., rows) the sum of `d_out` · out over the width, out being the finished result. Scores are $q \cdot k / \sqrt{d}$, d = dim_head.
# Return `(d_q, d_k, d_v)`, this tile's share of each, in the shapes of `q`, `k` and `v`. There is no mask. (NumPy, any leading axes; the inputs stay as
# they are.)
# ```

# %% tags=["ex:tile_gradients", "ex-stub"]
def tile_gradients(q, k, v, d_out, lse, delta):
    raise NotImplementedError("replace this line")

# %% tags=["ex:tile_gradients", "ex-check"]
check(tile_gradients)

# %% tags=["ex:tile_gradients", "ex-solution", "hide-cell"]
def tile_gradients(q, k, v, d_out, lse, delta):
    scale = q.shape[-1] ** -0.5
    weights = np.exp(q @ k.swapaxes(-1, -2) * scale - lse[..., None])  # (..., rows, columns)
    d_v = weights.swapaxes(-1, -2) @ d_out
    d_weights = d_out @ v.swapaxes(-1, -2)
    d_scores = weights * (d_weights - delta[..., None])
    return d_scores @ k * scale, d_scores.swapaxes(-1, -2) @ q * scale, d_v


require(tile_gradients)

# %% [markdown] tags=["ex:explore_tiles", "ex-prompt", "ex-open"]
# ```{exercise} Explore: the best tile
# :label: ex-explore-tiles
# Time `flash_forward` for one head of 4096 tokens with tiles of 32 to 2048 queries and keys (`measure.cpu_times` takes them in turns). Where is it fastest, how large is that tile in bytes, and how large are the caches of your processor (`lscpu` lists them on Linux, `sysctl -a | grep cache` on a Mac)? Predict, then try, what float64 does to the best size.
# ```

# %% [markdown]
# **Sources.** One pass: {cite:t}`milakov2018`; memory that does not grow with the square: {cite:t}`rabe2021`; tiles, traffic and the backward pass: {cite:t}`dao2022`; the order of loops and the form of the backward pass used here: {cite:t}`dao2023`; Hopper: {cite:t}`shah2024`; the lagging maximum, Blackwell: {cite:t}`zadouri2026`.
