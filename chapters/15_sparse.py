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
# # When does leaving out save anything?
#
# Most pairs of tokens in a long text have nothing to say to each other. Leave them out, and the square is gone; that is the idea of sparse attention.
# In this chapter you leave them out the usual way, with a mask, and save nothing. Then you write attention that skips, for windows, for any pattern, for blocks
# that the content chooses, and you hold each one to the same test: the share of pairs it computes, beside the share of the time it takes.
#
# :::{admonition} Before you start
# :class: note
# **You need** [chapter 3](03_scores.ipynb) (masks as predicates), [chapter 5](05_self_attention.ipynb), and from [chapter 14](14_complexity.ipynb) the rule that time follows what is computed, as long as the products are large. **You will build** a window that
# skips, a map of blocks, block-sparse attention for any predicate, a dilated window without a sparse product in it, and a selection by content. **Time** about 65 minutes; the cells run in
# half a minute. {numref}`fig-sparse-shares` shows where we are going.
# :::

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional as F

from attnlib import masks, measure, sparse
from attnlib.layers import attention
from attnlib.plots import sparse as plots

torch.set_num_threads(1)
torch.set_printoptions(precision=3, sci_mode=False)
rng = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randn(shape, generator=rng)

# %% [markdown]
# ## What does a mask save?
#
# Take a {term}`window`: each query sees 128 keys to its left and itself. Of 2048 × 2048 pairs that leaves one in sixteen. PyTorch's own attention takes the mask
# as an argument. Will it be sixteen times faster, twice as fast, as fast as without, or slower?

# %%
heads, n, d, left = 4, 2048, 64, 128
q, k, v = (draw(1, heads, n, d) for _ in range(3))
window = torch.from_numpy(masks.to_array(masks.sliding_window(left), n))
print(f"allowed: {window.float().mean():.3f} of all pairs")

# %% tags=["nbval-ignore-output"]
calls = {
    "all pairs": lambda: F.scaled_dot_product_attention(q, k, v),
    "window by a mask": lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=window),
}
times = measure.cpu_times(calls, repeats=5)
masked = measure.ratios(times, to="all pairs")["window by a mask"]
print(f"with the mask: {masked.median:.2f} times the time")
assert masked.median > 0.5  # one pair in sixteen is left; half the time is not

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# No faster, and on the processor that made this page slower. The products are computed for all pairs, then most of their results are overwritten with $-\infty$. The mask only adds work.
# :::
#
# Count it. The counter knows the fused kernel by a formula in which no mask occurs, so ask it about the readable `attention` of chapter 5, where it sees every product. How many {term}`FLOPs <FLOP>` does the mask save there?

# %%
dense = measure.flops(lambda: attention(q, k, v))
hidden = measure.flops(lambda: attention(q, k, v, window))
print(f"all pairs {dense:,}, with the mask {hidden:,}")
assert hidden == dense == 4 * heads * n * n * d  # none: a mask is no product

# %% [markdown]
# ## Skip, instead of hiding
#
# A query at position $i$ needs the keys $i - 128$ to $i$. Its neighbour needs nearly the same ones. So take a *block* of queries together, cut out the slice of keys that any of them needs, and do ordinary
# attention on that; a small mask takes care of the corners. (Where there are fewer queries than keys, the queries are the last positions, as in chapter 3.)

# %%
def window_in_blocks(q, k, v, left, right=0, block=64):
    (seq_q, seq_k), out = (q.shape[-2], k.shape[-2]), []
    ahead = seq_k - seq_q                                    # query i stands at key i + ahead
    for start in range(0, seq_q, block):
        stop = min(start + block, seq_q)
        near = slice(max(0, start + ahead - left), max(0, stop + ahead + right))  # the keys that the block needs
        distance = torch.arange(seq_k)[near] - torch.arange(start, stop)[:, None] - ahead  # (block, keys)
        mask = (distance >= -left) & (distance <= right)
        out.append(attention(q[..., start:stop, :], k[..., near, :], v[..., near, :], mask)[0])
    return torch.cat(out, dim=-2)

# %% [markdown]
# It is the same function as before, to rounding, and it is `attnlib.sparse.window_in_blocks`:

# %%
skipped = window_in_blocks(q, k, v, left)
by_mask = calls["window by a mask"]()
assert torch.allclose(skipped, by_mask, atol=1e-5)  # weighted means of up to 129 numbers, in float32

# %% [markdown]
# A block of 64 queries needs $64 + 128$ keys. What share of the FLOPs do you expect, and what share of the time?

# %%
counted = measure.flops(lambda: window_in_blocks(q, k, v, left))
print(f"counted {counted / dense:.4f} of the FLOPs; (64 + 128) / 2048 = {(64 + 128) / n:.4f}")

# %% tags=["nbval-ignore-output"]
calls["window in blocks"] = lambda: window_in_blocks(q, k, v, left)
shares = measure.ratios(measure.cpu_times(calls, repeats=5), to="all pairs")
print(f"measured {shares['window in blocks'].median:.2f} of the time")
assert shares["window in blocks"].median < shares["window by a mask"].median

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# A little under 192/2048 of the FLOPs (the first blocks have fewer keys), and a larger share of the time: our attention is plain PyTorch, softmax and mask as steps of their own, while the dense
# one is a single fused kernel. Skipping wins against that by the size of what it skips.
# :::
#
# Why not a block for every query, which would compute nothing in vain? Count the pairs that blocks of each size compute, for each pair that is needed, and take the time.

# %%
sizes = [1, 4, 16, 64, 256, 1024]
needed = window.sum().item()


def computed(block):
    starts = np.arange(0, n, block)
    return sum(block * (min(n, start + block) - max(0, start - left)) for start in starts)


in_vain = np.array([computed(block) / needed for block in sizes])
print(dict(zip(sizes, in_vain.round(2).tolist(), strict=True)))

# %% tags=["nbval-ignore-output"]
by_size = {block: lambda block=block: window_in_blocks(q, k, v, left, block=block) for block in sizes}
by_size = measure.medians(measure.cpu_times(by_size, repeats=3))
print({block: f"{1000 * seconds:.0f} ms" for block, seconds in by_size.items()})
assert by_size[1] > 2 * by_size[64]  # nothing computed in vain, and far slower

# %% mystnb={"image": {"alt": "Two panels over blocks of 1 to 1024 queries. The pairs computed per pair needed rise from 1 to nearly 9; the time falls steeply from 1 to 64 and then rises again."}, "figure": {"caption": "Small blocks compute nothing in vain and large blocks compute fast. The best size lies between.", "name": "fig-sparse-blocks"}} tags=["nbval-ignore-output"]
plots.block_sizes(sizes, in_vain, np.array(list(by_size.values())))
plt.show()
assert 1 < min(by_size, key=by_size.get) < 1024  # the best size lies between

# %% [markdown]
# A block of $b$ queries, in a window of $w$ keys that counts the query itself, computes $(b + w - 1)/w$ times what is needed (a little less where the text begins), and the products must be large enough to run at speed (chapter 14). That is the compromise of every sparse
# attention in this chapter, on GPUs too: **a block is computed whole or not at all.**
#
# ## Any pattern: a map of blocks
#
# A window is one {term}`mask` among many. Cut any mask into blocks and ask of each: is there an allowed pair in it?

# %%
def touched_blocks(mask, block):
    padded = F.pad(mask, (0, -mask.shape[1] % block, 0, -mask.shape[0] % block))
    blocks = padded.unflatten(1, (-1, block)).unflatten(0, (-1, block))  # (blocks_q, block, blocks_k, block)
    return blocks.any(dim=3).any(dim=1)


corner = torch.from_numpy(masks.to_array(masks.sliding_window(3), 12))
touched_blocks(corner, 4).int()

# %% [markdown]
# The function is `attnlib.sparse.touched_blocks`. Now four patterns of the literature, drawn for 64 tokens and blocks of 8: a window, a dilated window and a window with global tokens {cite}`beltagy2020`, and Big Bird's
# mixture of neighbouring, first and random blocks {cite}`zaheer2020`. (The *strided* pattern of the first sparse Transformer is a window in one head and a dilated window in another {cite}`child2019`.) All are predicates of `attnlib.masks`. Each query of the first two may see itself and eight keys before it, which are the nearest or every seventh, `dilated(8, 7)`; a global token sees all and is seen by all. Which of the four touches the most blocks?

# %%
causal = masks.causal
PATTERNS = {
    "window": masks.sliding_window(8),
    "dilated": masks.dilated(8, 7),
    "global": masks.both(causal, masks.either(masks.global_tokens(2), masks.sliding_window(8))),
    "Big Bird": masks.both(causal, masks.bigbird(64, 8)),
}
drawn = {name: torch.from_numpy(masks.to_array(predicate, 64)) for name, predicate in PATTERNS.items()}
touched = {name: touched_blocks(mask, 8) for name, mask in drawn.items()}
for name, mask in drawn.items():
    print(f"{name:9} {mask.float().mean():.3f} of the pairs, {touched[name].float().mean():.3f} of the blocks")

# %% mystnb={"image": {"alt": "Four squares of 64 by 64 pairs with the touched blocks framed: a band along the diagonal, nine thin diagonals that touch every block below the diagonal, a band with a column, and whole blocks."}, "figure": {"caption": "A frame marks a touched block: what is framed is computed. The dilated window allows fewer pairs than the plain one and touches every block of the past.", "name": "fig-sparse-patterns"}}
plots.patterns({name: mask.numpy() for name, mask in drawn.items()}, {name: each.numpy() for name, each in touched.items()}, 8)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The dilated window, by far: its few pairs are spread so evenly that no block of the past is spared. (It allows fewer than the plain one only because more of its keys would lie before the first token.) Sparsity that is spread over all blocks saves nothing.
# :::
#
# How bad is the worst case, single pairs at random? A share $p$ of all pairs leaves a block of $b^2$ pairs untouched with probability $(1-p)^{b^2}$. For one pair in a hundred and blocks of 16:

# %%
scattered = torch.rand(1024, 1024, generator=rng) < 0.01
share = touched_blocks(scattered, 16).float().mean()
print(f"predicted {1 - 0.99**256:.3f}, counted {share:.3f}")
assert abs(share - (1 - 0.99**256)) < 0.02  # 4096 blocks: standard deviation 0.004

# %% [markdown]
# With the map, attention for *any* mask is one loop: for each row of blocks, gather the keys of the touched ones.

# %%
def block_sparse_in_rows(q, k, v, mask, block):
    touched, out = touched_blocks(mask, block), []
    for i, row in enumerate(touched):
        rows = slice(i * block, (i + 1) * block)
        keys = row.repeat_interleave(block)[: k.shape[-2]].nonzero().squeeze(-1)  # positions of the touched keys
        out.append(attention(q[..., rows, :], k[..., keys, :], v[..., keys, :], mask[rows][:, keys])[0])
    return torch.cat(out, dim=-2)

# %% [markdown]
# It is `attnlib.sparse.block_sparse_in_rows`. For every pattern: the same result as with a mask, and the FLOPs of the touched blocks, exactly.

# %%
short = [draw(1, 2, 64, 16) for _ in range(3)]
whole = measure.flops(lambda: attention(*short))
for name, mask in drawn.items():
    assert torch.allclose(block_sparse_in_rows(*short, mask, 8), attention(*short, mask)[0], atol=1e-5)
    flops = measure.flops(lambda mask=mask: block_sparse_in_rows(*short, mask, 8))
    print(f"{name:9} {flops / whole:.3f} of the FLOPs")
    assert flops == whole * touched[name].float().mean().item()

# %% [markdown]
# The library's `block_sparse_attention` does the same from a predicate, which it turns into a map with `block_map`. It also knows which blocks are allowed *whole* and need no mask; and a map, once made, serves every call. That is how
# PyTorch's `flex_attention` works too, which compiles a kernel for the pattern {cite}`dong2024`.
#
# ## Can the dilated window be saved?
#
# Its pairs are not disordered, only in the wrong order. With step 8, position 24 sees 16, 8 and 0 and is seen by 32, 40 …; with 23 or 25 it has nothing to do. So sort the positions into classes by their remainder: within a class, the dilated window is
# a plain one.

# %%
def dilated_in_classes(q, k, v, left, step):
    if q.shape[-2] % step:
        raise ValueError(f"dilated_in_classes: step is {step}, expected a divisor of the length {q.shape[-2]}")
    q, k, v = (x.unflatten(-2, (-1, step)).transpose(-2, -3) for x in (q, k, v))  # (..., step, seq / step, width)
    return window_in_blocks(q, k, v, left).transpose(-2, -3).flatten(-3, -2)      # (..., seq, dim_v)

# %%
step = 8
mask = torch.from_numpy(masks.to_array(masks.dilated(32, step), n))
in_rows = measure.flops(lambda: block_sparse_in_rows(q, k, v, mask, 64))
in_classes = measure.flops(lambda: dilated_in_classes(q, k, v, 32, step))
assert torch.allclose(dilated_in_classes(q, k, v, 32, step), attention(q, k, v, mask)[0], atol=1e-5)
print(f"in blocks of the text {in_rows / dense:.3f} of the FLOPs, in classes {in_classes / dense:.3f}")

# %% [markdown]
# In the text a block reads 5 of 32, or 0.156, fewer at the beginning. In classes, eight of 256 tokens, it reads 64 + 32 keys of 2048, or 0.047, again fewer at the beginning. (The length is a multiple of the step here; the library's `dilated_attention` takes any.)
#
# Not a single product became sparse; the *order* changed. This is `attnlib.sparse.dilated_in_classes`. The general rule: **sparsity pays when a permutation makes it into blocks**, and looking for such an order is a good part of designing sparse attention. Reformer sorts tokens by a hash of their vectors, which similar ones tend to share, for the same
# reason {cite}`kitaev2020`.
#
# ## Two parts, one result
#
# A window with global tokens has two regular parts, a band and a few columns. Each can be computed alone. But softmax divides by a sum over *all* keys, so results of the parts cannot be added. What has to be kept beside each result so that they can be merged?
#
# :::{dropdown} Your prediction, then ours
# One number for each row: the {term}`log-sum-exp` $L$ of its scores. Part $a$ carries the weight $e^{L_a}$ of the total $e^{L_a} + e^{L_b}$.
# :::

# %%
def merge_partial(out_a, lse_a, out_b, lse_b):
    blind = (lse_a == -torch.inf) & (lse_b == -torch.inf)    # no key in either part: -inf minus -inf would be NaN
    lse_a, lse_b = lse_a.masked_fill(blind, 0), lse_b.masked_fill(blind, 0)
    share_b = torch.sigmoid(lse_b - lse_a)                   # e^lse_b / (e^lse_a + e^lse_b)
    out = torch.lerp(out_a, out_b, share_b.unsqueeze(-1))    # (1 - share_b) · out_a + share_b · out_b
    return out, torch.logaddexp(lse_a, lse_b).masked_fill(blind, -torch.inf)

# %%
def part(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


first, second = ([x[..., keys, :] for x in (k, v)] for keys in (slice(0, 700), slice(700, n)))
merged, _ = merge_partial(*part(q, *first), *part(q, *second))
print(f"largest difference {(merged - attention(q, k, v)[0]).abs().max():.0e}")
assert torch.allclose(merged, attention(q, k, v)[0], atol=1e-5)

# %% [markdown]
# Exact, up to rounding: it is `attnlib.flash.merge_partial`, and `global_window_attention` is a window and a few columns, merged; the window leaves the global keys out, or they would count twice. (The few rows of the global queries are computed in full.) FlashAttention goes from tile to tile in the same way {cite}`dao2022`; it keeps $L$ as two numbers a row, the running maximum and the running sum of [chapter 4](04_softmax.ipynb) {cite}`milakov2018`.
#
# ## How far does it see?
#
# A window of four keys before the query is short. But layers are stacked: what the second layer reads has already read its own window. Measure the {term}`receptive field` with gradients: which tokens does the last result of a stack depend on?

# %%
def field(masks_of_layers, tokens=64, width=16):
    x = (0.1 * draw(1, tokens, width)).double().requires_grad_()  # small: no weight underflows to 0
    h = x
    for mask in masks_of_layers:
        h = h + attention(h, h, h, mask)[0]
    (gradient,) = torch.autograd.grad(h[0, -1].sum(), x)
    return int((gradient[0].abs().sum(-1) > 0).sum())


near = torch.from_numpy(masks.to_array(masks.sliding_window(4), 64))
[field([near] * depth) for depth in (1, 2, 3, 4)]

# %% [markdown]
# Each layer adds `left` = 4. Predict before the next cell: windows that are dilated by 1, 2, 4, 8 from layer to layer, with four keys before each query; the window with two global tokens; and of Big Bird in blocks of 4
# (each sees itself, the one before, the first, and one at random if it lies in the past) only whether it grows faster than the window.

# %%
def mask_of(predicate, tokens=64):
    return torch.from_numpy(masks.to_array(masks.both(causal, predicate), tokens))


with_global = mask_of(masks.either(masks.global_tokens(2), masks.sliding_window(4)))
big_bird = mask_of(masks.bigbird(64, 4))
wider = [mask_of(masks.dilated(4, 2**layer)) for layer in range(4)]
fields = {
    "window": [field([near] * depth) for depth in (1, 2, 3, 4)],
    "dilated, 1 2 4 8": [field(wider[:depth]) for depth in (1, 2, 3, 4)],
    "two global tokens": [field([with_global] * depth) for depth in (1, 2, 3, 4)],
    "Big Bird": [field([big_bird] * depth) for depth in (1, 2, 3, 4)],
}
for name, counts in fields.items():
    print(f"{name:18} {counts}")
assert fields["window"] == [5, 9, 13, 17]

# %% mystnb={"image": {"alt": "Number of tokens within reach after one to four layers: the window grows by four a layer, the dilated windows double, Big Bird starts at 16 and gains about twelve a layer."}, "figure": {"caption": "A window gains its width with each layer; steps that double from layer to layer double the reach. Random blocks shorten the way; causal global tokens alone do not.", "name": "fig-sparse-reach"}}
plots.receptive_fields(fields)
plt.show()

# %% [markdown]
# :::{dropdown} Your predictions, then ours
# Steps that double from layer to layer about double the reach: $1 + 4(1 + 2 + 4 + 8) = 61$ of 64 tokens after four layers. Two global tokens add only themselves as long as everything is causal: the first two positions cannot look *ahead* to collect anything. Big Bird starts with four blocks of 4 and grows faster than the window, because each block in reach brings its neighbour *and* its random block; how much faster depends on where those fall. In an encoder, where the first positions may look ahead,
# two layers suffice from everywhere to everywhere: token → global token → token.
# :::

# %%
two_sided = torch.from_numpy(masks.to_array(masks.either(masks.global_tokens(1), masks.sliding_window(1, 1)), 64))
print("encoder, one global token:", [field([two_sided] * depth) for depth in (1, 2)])
assert field([two_sided] * 2) == 64

# %% [markdown]
# Within reach does not mean well seen: each layer averages, and what arrives after four averages is faint. The gradient of a stack says *whether*, not *how much*.
#
# ### Put a pattern together
#
# Blocks and reach pull in different directions; here are both, for any mixture of the parts. **Predict** before you try. The dilated window from above, `dilated(8, 7)`, stands in each of four layers: how many of 128 tokens reach the last one? A plain window of as many keys brings 33. And the *strided* pattern, eight near tokens and every eighth one, here in one head: how many layers connect everything with its past, and which of the causal blocks does it spare?

# %%
from attnlib.widgets import PatternExplorer

PatternExplorer(
    "sliding window", seq=128, block=16,
    caption="The first square shows the blocks that a pattern makes a kernel compute, the second the layer with which each key arrives at each query. Choose a pattern or put one together, change the blocks, and click a row to follow its token. The line of code is the predicate, as to_array and block_map take it. The numbers behind the names are those of the papers on arXiv.")

# %% [markdown]
# :::{dropdown} Your predictions, then ours
# Nineteen, and no more with any number of layers: only tokens whose distance is a multiple of 7 ever meet. That is why the steps must differ from layer to layer, or from head to head. The strided pattern connects everything in two layers, with 12 % of the pairs; but in blocks of 16 it spares none of the causal ones. It needs a quarter of the pairs of causal attention and computes them all.
# :::
#
# So a pattern has to be good twice: short ways *and* whole blocks. Big Bird draws in blocks for that reason. Choose it with 256 tokens in blocks of 16, and take its first block away. What is left, neighbours and one random block, computes less than a quarter of all pairs. Neighbours alone would take 15 layers from one end to the other; how many layers does the draw save? (Raise the layers, and read the sentence below the squares.) The same in numbers:

# %%
strided, drawn, near = (
    PatternExplorer(name, seq=seq, block=16, depth=depth, parts=parts).computed() for name, seq, depth, parts in (
        ("strided (1904.10509)", 128, 2, {}), ("Big Bird (2007.14062)", 256, 6, {"first": 0}), ("Big Bird (2007.14062)", 256, 6, {"first": 0, "drawn": 0})))
causal_pairs, causal_blocks = 128 * 129 // 2, 8 * 9 // 2 * 16**2
print(f"strided: {strided['pairs'] / 128**2:.2f} of the pairs, {strided['inside'] / causal_blocks:.2f} of the causal blocks, all within reach: {strided['all'][1] == causal_pairs}")
for name, each in (("near and random", drawn), ("near", near)):
    print(f"{name:15} {each['inside'] / 256**2:.2f} of the FLOPs; within reach by layer:", *(f"{pairs / 256**2:.2f}" for pairs in each["all"]))
assert PatternExplorer("dilated (2004.05150)", seq=128, block=16, depth=8).computed()["reached"][-1] == 19
assert drawn["all"][4] < drawn["all"][5] == 256**2  # six layers: the draw saves nine

# %% [markdown]
# ## Let the content choose
#
# All patterns so far are fixed before the text is known. Instead, let each block of queries look for the blocks it needs. Scoring all keys would bring the square back; so score a *summary* of each block, the mean of its keys, and read only the best blocks in full. Native Sparse
# Attention reads in three ways side by side, summaries of blocks, chosen blocks and a window; this is the second of them, with a mean in place of its learned summary {cite}`yuan2025`. Mixture of Block Attention takes the mean, too {cite}`lu2025`. In both each query chooses for itself, where here a block of queries chooses together.

# %%
def chosen_in_rows(q, k, v, top_k, block):
    if q.shape[-2] % block:
        raise ValueError(f"chosen_in_rows: block is {block}, expected a divisor of the length {q.shape[-2]}")
    k_blocks, v_blocks = k.unflatten(-2, (-1, block)), v.unflatten(-2, (-1, block))  # (..., blocks, block, width)
    means, out = k_blocks.mean(-2), []                                              # (..., blocks, dim_head)
    for i, rows in enumerate(q.unflatten(-2, (-1, block)).unbind(-3)):              # (..., block, dim_head)
        scores = (means[..., :i, :] @ rows[..., 0, :, None]).squeeze(-1)            # of the blocks before: (..., i)
        best = scores.topk(min(top_k - 1, i)).indices
        chosen = torch.cat([best, best.new_full((*best.shape[:-1], 1), i)], -1)     # and its own
        keys, values = (torch.take_along_dim(x, chosen[..., None, None], -3).flatten(-3, -2) for x in (k_blocks, v_blocks))
        position = (chosen[..., None] * block + torch.arange(block)).flatten(-2)    # (..., keys)
        mask = position[..., None, :] <= i * block + torch.arange(block)[:, None]   # (..., block, keys)
        out.append(attention(rows, keys, values, mask)[0])
    return torch.cat(out, dim=-2)

# %% [markdown]
# (`attnlib.sparse.chosen_in_rows`.) Why does only the *first* query of a block do the asking, and not the mean of all its queries? Try the mean. Change the last token of a text, and see whether anything before it notices.

# %%
def earlier_change(ask, block=16, tokens=128):
    q, k, v = (draw(1, tokens, 8) for _ in range(3))
    changed = q.clone()
    changed[:, -1] += 20                                     # the query of the last token
    before, after = (chosen_in_rows(ask(each, block), k, v, 2, block) for each in (q, changed))
    same_query = slice(tokens - block + 1, tokens - 1)       # earlier rows of the last block, but for its first
    return (after - before)[:, same_query].abs().max().item()


def by_first(q, block):
    return q


def by_mean(q, block):
    blocks = q.unflatten(-2, (-1, block)).clone()
    blocks[..., 0, :] = blocks.mean(-2)                      # what the selection sees
    return blocks.flatten(-3, -2)


print(f"the first asks: {earlier_change(by_first):.3f}; the mean asks: {earlier_change(by_mean):.3f}")
assert earlier_change(by_first) == 0 < earlier_change(by_mean)

# %% [markdown]
# With the mean, a later token changes what an earlier one reads: the choice **leaks the future**, although every attended pair is causal. The mask is right and the model cheats; a loss that is too good is all you would see of it in training. (The rows
# compared have the same query, and see the same past, before and after.) The price of letting the first ask: the others of its block read what *it* wanted. In the fourth exercise every query asks for itself.
#
# ### The needle
#
# Does the choice find what a window misses? Hide one key in 2048 random ones, in the direction of the query that asks and `strength` times as long as the others are on average. The query stands in the last block; read 256 keys besides that one, in blocks of 8, 32 or 128, and ask how often the needle is among them. At random it would be
# about one time in eight.

# %%
def found(block, strength, trials=200, tokens=2048, width=64, read=256):
    query = F.normalize(draw(trials, width), dim=-1)
    keys = draw(trials, tokens, width)
    keys[:, 5] = strength * width**0.5 * query               # the needle, in block 0
    scores = keys.unflatten(1, (-1, block)).mean(2) @ query.unsqueeze(-1)
    best = scores.squeeze(-1)[:, :-1].topk(read // block).indices
    return (best == 0).any(-1).float().mean().item()


STRENGTHS = (0.5, 1, 2, 4)
print("strength ", *(f"{strength:6}" for strength in STRENGTHS))
rates = {block: [found(block, strength) for strength in STRENGTHS] for block in (8, 32, 128)}
for block, each in rates.items():
    print(f"block {block:3}", *(f"{rate:6.2f}" for rate in each))
assert rates[8][1] > rates[32][1] > rates[128][1]

# %% [markdown]
# A window with `left` below 2042 never finds it. The choice finds it when the block is small or the needle is long, and misses it when the mean drowns it: in a mean of $b$ keys the needle counts $1/b$, the noise of the others $1/\sqrt b$. The signal falls behind like $1/\sqrt b$, so a block four times as large
# needs a needle twice as long: read the table along its diagonals, where the rates change little.
#
# Keys at random are the worst case for a mean. In trained models, keys that lie together tend to get similar weights {cite}`yuan2025`; and a model that is trained *with* the choice can adapt its keys to the mean {cite}`lu2025`, or learn a better summary {cite}`yuan2025`.
#
# ## The band is a view
#
# `window_in_blocks` computes a mask for each block, and exponentials that the mask then throws away. The library's `sliding_window_attention` does without both (but for the tiles at the ends of the text), by a way to look at memory. A tile of $b$ queries and $b + w - 1$ keys is stored row after row. In row $i$ the window
# is the $w$ numbers from column $i$ on. So from one row of the band to the next it is one row *and one column*:

# %%
rows, width = 4, 3
columns = rows + width - 1
tile = torch.arange(rows * columns).view(rows, columns)
band = tile.as_strided((rows, width), (columns + 1, 1))
print(tile, band, sep="\n")

# %% mystnb={"image": {"alt": "A tile of 4 by 6 numbered places with a diagonal band of width 3 shaded; below, the same 24 places as one line, in which the four rows of the band are stretches of 3 places separated by gaps of 4."}, "figure": {"caption": "The band is regular in memory: stretches of w places, each columns + 1 after the one before.", "name": "fig-sparse-band"}}
plots.band_in_memory(rows, width)
plt.show()

# %% [markdown]
# No number was copied: `band` *is* the tile's memory, seen with another stride. Maxima, exponentials and sums run over the view, over what is needed and nothing else. But the product with the values takes the whole tile, so what lies beside the band has to be zero by then. A second view holds the gaps between the rows of the band.
# Which entries are in it here?

# %%
gaps = tile.as_strided((rows - 1, rows), (columns + 1, 1), width)
print(gaps)
assert sorted([*band.flatten().tolist(), *gaps.flatten().tolist()]) == list(range(rows * columns))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# All the others: the right end of one row and the left end of the next, together always $b$ places. Band and gaps cover the tile without overlap, so a single step sets to zero all that is not needed.
# :::
#
# What is that worth? The readable form against the library's, for the window of 128 (all are timed again, so the first three differ a little from before):

# %% tags=["nbval-ignore-output"]
calls["library"] = lambda: sparse.sliding_window_attention(q, k, v, left)
assert torch.allclose(calls["library"](), skipped, atol=1e-5)
times = measure.cpu_times(calls, repeats=5)
shares = measure.ratios(times, to="all pairs")
print({name: f"{share.median:.2f}" for name, share in shares.items()})
assert shares["library"].median < shares["window in blocks"].median

# %% [markdown]
# ## Predicted and measured
#
# Now the test for all of them. The prediction is one number, the share of pairs that is computed, counted in FLOPs; the measurement is the share of the time of dense attention, PyTorch's fused kernel. For 4096 tokens, with the library's functions: `window` sees
# 255 keys before the query, and so does its map of blocks; `dilated` sees 255 in steps of 4, `chosen` 4 blocks of 128. These are causal. `global`, with 64 global tokens and 256 keys to either side, and Big Bird look both ways, as in an encoder.

# %%
n = 4096
q, k, v = (draw(1, heads, n, d) for _ in range(3))
maps = {
    "blocks: window": sparse.block_map(masks.sliding_window(255), n, block_size=128),
    "blocks: Big Bird": sparse.block_map(masks.bigbird(n, 128), n, block_size=128),
    "blocks: causal": sparse.block_map(masks.causal, n, block_size=128),
}
maps["blocks: causal"]

# %%
CALLS = {
    "all pairs": lambda: F.scaled_dot_product_attention(q, k, v),
    "window": lambda: sparse.sliding_window_attention(q, k, v, 255),
    "dilated": lambda: sparse.dilated_attention(q, k, v, 255, 4),
    "global": lambda: sparse.global_window_attention(q, k, v, 64, 256, 256),
    "chosen": lambda: sparse.top_k_block_attention(q, k, v, 4, 128),
}
for name, found_map in maps.items():
    CALLS[name] = lambda found_map=found_map: sparse.block_sparse_attention(q, k, v, found_map)
predicted = {name: measure.flops(call) / measure.flops(CALLS["all pairs"]) for name, call in CALLS.items()}
print({name: round(share, 3) for name, share in predicted.items()})

# %% tags=["nbval-ignore-output"]
ratios = measure.ratios(measure.cpu_times(CALLS, repeats=5), to="all pairs")
measured = {name: ratios[name].median for name in CALLS}
for name, share in measured.items():
    print(f"{name:17} predicted {predicted[name]:.3f}  measured {share:.3f}  {share / predicted[name]:.2f} times")
assert all(share < 4 * predicted[name] for name, share in measured.items())  # a wide margin: other programs run
assert all(share < 0.6 for name, share in measured.items() if name not in ("all pairs", "blocks: causal"))

# %% mystnb={"image": {"alt": "Pairs of bars for eight ways to attend: the share of pairs computed and the share of the time of dense attention; the second is longer than the first for each of the seven sparse ones, and short where the first is short."}, "figure": {"caption": "Time follows the pairs that are computed, for every pattern, because whole blocks are skipped.", "name": "fig-sparse-shares"}} tags=["nbval-ignore-output"]
plots.predicted_and_measured(predicted, measured)
plt.show()
assert measured["window"] < measured["blocks: causal"] < 2  # in the order predicted

# %% [markdown]
# The prediction is too low by a factor, the last column above, which depends little on the pattern. What is missing from it: softmax and mask as steps of their own, where the dense one is a single fused kernel; gathering; Python's loop over blocks; and blocks too small for the full rate.
#
# One processor and one run are not much of a measurement. So the same has been recorded by `make bench`: 8 heads, longer texts, two runs of several rounds. Here is the causal window of 256 keys at 16,384 tokens, against other
# implementations of the same window and against dense *causal* attention, which PyTorch computes without the upper triangle when it is told `is_causal=True`:

# %%
with open("data/bench-sparse.json") as file:
    record = json.load(file)


def recorded(title):  # for each row, what the runs measured
    tables = [run["tables"][title] for run in record["runs"]]
    return {rows[0]["what"]: rows for rows in zip(*tables, strict=True)}


print(record["device"], record["command"], record["date"], sep="\n")
others = recorded("causal window of 256 keys and itself, N = 16384")
others.pop("matmul")
for name, runs in others.items():
    print(f"{name:37}", *(f"{run['CPU ms']:6.0f} ms ({run['over attnlib'][0]:4.1f})" for run in runs))

# %%
least = {name: min(run["over attnlib"][0] for run in runs) for name, runs in others.items()}
assert least["flex_attention, compiled, block mask"] > 1
assert least["local-attention"] > 3 and least["SDPA, causal, dense"] > 10
print(f"pairs of dense causal attention for one of the window: {(16384 + 1) / 2 / 257:.0f}")

# %% [markdown]
# Each run, and in brackets how many times our time. More than ten times faster than dense, for some thirty times fewer pairs; the rest is what the factor above takes away. And now all patterns of the library, at 8192 tokens. Predicted is the share of
# blocks times the time of dense attention; how many times that do they take?

# %%
forward, both_ways = (recorded(f"patterns, {way}, N = 8192") for way in ("forward", "forward and backward"))
yardstick = both_ways.pop("SDPA, all pairs")
print("    blocks   time / (blocks × dense time): forward; with backward")
for name, runs in both_ways.items():
    factors = [[run["over dense times share"][0] for run in each] for each in (forward[name], runs)]
    print(f"{runs[0]['share of blocks']:10.3f}  ", "; ".join(" ".join(f"{x:.2f}" for x in each) for each in factors), "", name)
    assert 0.8 < min(map(min, factors)) and max(map(max, factors)) < 3

# %% [markdown]
# From one block in thirty to one in two, the time is the predicted one times a factor that stays below three, with the backward pass too. But mind the yardstick. Dense attention computes *all* pairs here, and a causal model does not need them:

# %%
told = recorded("forward and backward, window 256, N = 8192")["SDPA, causal"]
of_all = [causal["CPU ms"] / every["CPU ms"] for causal, every in zip(told, yardstick, strict=True)]
mapped = [run["over dense"] for run in both_ways["block_sparse_attention(causal), blocks of 128"]]
print("dense attention told that it is causal:", np.round(of_all, 2), " our map of causal blocks:", np.round(mapped, 2))
assert 0.4 < min(of_all) and max(of_all) < 0.7 and min(mapped) > 0.9 * max(of_all)

# %% [markdown]
# Compared with a dense kernel that skips the upper triangle, each causal pattern gains about half as much as the table says, and our map of causal blocks has nothing left to gain. Sparse attention has to beat the best dense one, not the first at hand.
#
# And how does the cost grow? The exponents of time and of peak memory for the window, from 4096 to 32,768 tokens:

# %%
growth = recorded("growth of the window, 256 keys and itself; peak memory is what comes on top of q, k, v")
for run in growth["slope"]:
    print({name: round(value, 2) for name, value in run.items() if name != "what"})
    assert all(0.7 < value < 1.3 for name, value in run.items() if name != "what")

# %% [markdown]
# All near 1: the square is gone.
#
# ## What to remember
#
# | claim | shown by |
# |---|---|
# | a mask saves nothing | equal FLOPs, and no less time, with one pair in sixteen allowed |
# | a block is computed whole or not at all | a block of $b$ in a window of $w$ computes $(b+w-1)/w$ times what is needed |
# | fine-grained sparsity touches every block | a dilated window; one random pair in a hundred |
# | order can turn it into blocks | dilated windows in classes |
# | partial results merge exactly | one log-sum-exp a row |
# | the yardstick is the best dense kernel | told that it is causal, it takes about half the time |
# | layers widen the view | +`left` a layer; doubling steps double it; causal global tokens do not |
# | content can choose, if the summary shows it | the needle; and the choice must not see the future |
# | time follows computed pairs | {numref}`fig-sparse-shares` |
#
# ## In practice
#
# **Windows.** Encoders for long documents came first: Longformer with a window and a few global tokens {cite}`beltagy2020`, Big Bird with random blocks besides {cite}`zaheer2020`. What has lasted is the plain window, mixed with layers that see everything and connect what is far apart. In
# the encoder ModernBERT every third layer is such a layer, and the others have windows of 128 tokens {cite}`warner2024`. Among decoders, Mistral 7B had a window of 4096 in all layers {cite}`jiang2023`; Gemma 2 alternates windows and full layers {cite}`gemma2024`; Gemma 3 has five layers
# with windows of 1024 to each full one, to keep the cache small {cite}`gemma2025`; gpt-oss alternates windows of 128 and full layers, and each of its heads has a learned number in the denominator of the softmax, an {term}`attention sink` that needs no token {cite}`openai2025`.
#
# **Selection by content** keeps every token available and pays for few; the cache stays as long as the text. Native Sparse Attention learns summaries of blocks and adds a window {cite}`yuan2025`; Mixture of Block Attention scores blocks by the mean of their keys, and has served Kimi's long requests {cite}`lu2025`.
# DeepSeek-V3.2 chooses single tokens, 2048 for each query, by a small indexer that scores all earlier ones (so that the square remains, at a lower price), and was trained on from a dense model {cite}`deepseek2025`. Single tokens, and yet no contradiction to this chapter: all heads of a query share
# keys and values and read the same tokens, so the rows of a product are that query's heads, and each key that was fetched serves all of them.
#
# **Shortcut taken here.** Our patterns are applied to random queries and keys, which tells you what they cost and not what they lose. What a trained model loses depends on whether it was trained with the pattern: a window put on a model that never had one breaks it as soon as the text is longer than the window
# and its first tokens, the sinks, fall out; keeping four of them mends most of that {cite}`xiao2023`.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Show by a count and by the clock what an attention mask saves.
# - Write attention over a window that skips, and compute how many pairs a block size computes for each one that is
#   needed.
# - Predict the share of blocks that pairs scattered at random leave untouched.
# - Reorder positions so that a dilated window becomes a plain one.
# - Merge the results of two sets of keys exactly, and say what must be kept of each.
# - Find out whether a selection by content lets the future decide what the past reads.
# :::

# %% [markdown]
# ## Exercises
#
# The exercises are in NumPy.

# %%
from coursework import check, require

# %% [markdown] tags=["ex:map_blocks", "ex-prompt"]
# ```{exercise} Which blocks can be skipped?
# :label: ex-map-blocks
# Code that computes attention block by block can skip a block of the scores in which no pair is allowed, and needs no mask in one in which
# every pair is. Write `map_blocks(mask, block_q, block_k)`, which returns two boolean arrays, `(touched, whole)`. `mask` (..., seq_q,
# seq_k) is True where a query may attend. It is cut into blocks of `block_q` queries by `block_k` keys, from the first query and the first key
# on; where a length does not divide, the last block is smaller and consists of the pairs that exist. Both results are (..., blocks of
# queries, blocks of keys): `touched` is True where **any** pair of the block is allowed, `whole` where **all** are.
# ```

# %% tags=["ex:map_blocks", "ex-stub"]
def map_blocks(mask, block_q, block_k):
    raise NotImplementedError("replace this line")

# %% tags=["ex:map_blocks", "ex-check"]
check(map_blocks)

# %% tags=["ex:map_blocks", "ex-solution", "hide-cell"]
def map_blocks(mask, block_q, block_k):
    rows = np.arange(0, mask.shape[-2], block_q)  # where blocks begin
    columns = np.arange(0, mask.shape[-1], block_k)
    touched = np.logical_or.reduceat(mask, rows, axis=-2)
    touched = np.logical_or.reduceat(touched, columns, axis=-1)
    whole = np.logical_and.reduceat(mask, rows, axis=-2)
    whole = np.logical_and.reduceat(whole, columns, axis=-1)
    return touched, whole


require(map_blocks)

# %% [markdown] tags=["ex:attend_in_window", "ex-prompt"]
# ```{exercise} A window without the square
# :label: ex-attend-in-window
# Write `attend_in_window(q, k, v, left)`: causal softmax attention with scores $QK^\mathsf T/\sqrt{d}$, d = dim_head, in which a
# query sees its own position and at most `left` positions before it. `q` is (..., seq_q, dim_head), `k` (..., seq_k, dim_head),
# `v` (..., seq_k, dim_v), with seq_q ≤ seq_k: the queries are the last seq_q positions, so that the last query stands at the last key.
# Return `out`, (..., seq_q, dim_v). Scores of 10,000 must not overflow. Never build scores, or a mask, of all pairs: the memory may
# grow with seq_q · `left`, but not with seq_q · seq_k, and for long inputs it is measured.
# ```

# %% tags=["ex:attend_in_window", "ex-stub"]
def attend_in_window(q, k, v, left):
    raise NotImplementedError("replace this line")

# %% tags=["ex:attend_in_window", "ex-check"]
check(attend_in_window)

# %% tags=["ex:attend_in_window", "ex-solution", "hide-cell"]
def attend_in_window(q, k, v, left):
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    out = np.empty((*q.shape[:-1], v.shape[-1]))
    for i in range(seq_q):
        own = i + seq_k - seq_q  # the query's position
        seen = slice(max(0, own - left), own + 1)
        scores = q[..., i:i + 1, :] @ k[..., seen, :].swapaxes(-1, -2)
        scores = scores / q.shape[-1] ** 0.5  # (..., 1, left + 1)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = powers / powers.sum(axis=-1, keepdims=True)
        out[..., i:i + 1, :] = weights @ v[..., seen, :]
    return out


require(attend_in_window)

# %% [markdown] tags=["ex:bigbird_rule", "ex-prompt"]
# ```{exercise} Window, global tokens and some keys at random
# :label: ex-bigbird-rule
# Big Bird {cite}`zaheer2020` lets every query see its neighbourhood, a few global tokens, and some keys drawn at random. Write
# `bigbird_rule(left, right, n_global, random_keys)`, which returns a **function** `predicate(q_idx, k_idx)`: True where the query at position
# `q_idx` may see the key at position `k_idx`. A query sees its own position, up to `left` keys before it and `right` keys after it; the
# first `n_global` positions are global: as keys they are seen by every query, as queries they see every key. `random_keys`, an integer
# array (seq, n_random), holds in row i the positions that were drawn for query i (some may repeat; there may be none, n_random = 0).
# `q_idx` and `k_idx` are integer arrays that broadcast against each other, such as (seq_q, 1) and (1, seq_k); the result is a boolean
# array of their common shape. They hold positions, and may be a part of the sequence only. Nothing here is causal.
# ```

# %% tags=["ex:bigbird_rule", "ex-stub"]
def bigbird_rule(left, right, n_global, random_keys):
    raise NotImplementedError("replace this line")

# %% tags=["ex:bigbird_rule", "ex-check"]
check(bigbird_rule)

# %% tags=["ex:bigbird_rule", "ex-solution", "hide-cell"]
def bigbird_rule(left, right, n_global, random_keys):
    def predicate(q_idx, k_idx):
        near = (q_idx - k_idx <= left) & (k_idx - q_idx <= right)
        is_global = (q_idx < n_global) | (k_idx < n_global)
        drawn = random_keys[q_idx] == k_idx[..., None]  # (..., n_random)
        return near | is_global | drawn.any(axis=-1)

    return predicate


require(bigbird_rule)

# %% [markdown] tags=["ex:top_k_blocks", "ex-prompt"]
# ```{exercise} Which blocks are worth reading?
# :label: ex-top-k-blocks
# Some sparse attention lets each query choose which blocks of keys to read. Write `top_k_blocks(q, k, block, top)` for causal
# self-attention: `q` and `k` are (..., seq, dim_head); keys b · `block` to (b + 1) · `block` − 1 form block b, and the last block may be
# shorter. The score of a query with a block is its dot product with the **mean** of the block's keys. Every query keeps the block in
# which it stands itself, whatever its score; that counts as one of `top` (at least 1). Of the blocks that lie wholly before that one it
# keeps the `top` − 1 with the highest scores, or all if there are fewer; of two equal scores the earlier block is taken first. Later
# blocks are never kept. Return a boolean array (..., seq, n_blocks), True where the query keeps the block.
# ```

# %% tags=["ex:top_k_blocks", "ex-stub"]
def top_k_blocks(q, k, block, top):
    raise NotImplementedError("replace this line")

# %% tags=["ex:top_k_blocks", "ex-check"]
check(top_k_blocks)

# %% tags=["ex:top_k_blocks", "ex-solution", "hide-cell"]
def top_k_blocks(q, k, block, top):
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


require(top_k_blocks)

# %% [markdown] tags=["ex:explore_summary", "ex-prompt", "ex-open"]
# ```{exercise} Explore: another summary
# :label: ex-explore-summary
# The mean drowns a single needle. Keep two vectors for each block instead: of each component $c$ the largest entry $u_c$ and the smallest $l_c$ among its keys. No key of the block can score higher with $q$ than $\sum_c \max(q_c u_c, q_c l_c)$; rank the blocks by this bound, as Quest does {cite}`tang2024`.
# Which rates in the table rise, and which fall? Why do short needles suffer? And what does this summary cost?
# ```

# %% [markdown]
# **Sources.** Block-sparse patterns: {cite:t}`child2019`; windows, dilation, global tokens: {cite:t}`beltagy2020`; random blocks and why they suffice in theory: {cite:t}`zaheer2020`; sorting by content: {cite:t}`kitaev2020`; chosen blocks: {cite:t}`yuan2025`, {cite:t}`lu2025`, {cite:t}`tang2024`; chosen tokens: {cite:t}`deepseek2025`; masks compiled into block maps: {cite:t}`dong2024`; merging: {cite:t}`milakov2018`, {cite:t}`dao2022`.
