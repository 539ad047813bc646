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
# # How far does a head have to look?
#
# A query that looks at everything pays for everything, whether it uses it or not. This chapter builds
# three ways to spend less on distance, each of which computes less for real. {term}`Shifted windows <shifted windows>` pass news on from layer to layer. *Two levels* show every token near by
# and one summary for each block far away. And with an {term}`adaptive span`, each head learns how far back it looks at all.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapters 5 and 6 (attention, heads), the {term}`window` and the {term}`receptive field`, and PyTorch's tensors and gradients. **You will build** the attention of Swin, with its shift, mask, bias and
# merging, in one and two dimensions; coarse-then-fine attention; and heads with a learned span. **Time** about 90 minutes, with a good place
# for a break before *What if far away were a summary?*; the cells run in half a minute. {numref}`fig-learned-spans` shows where we are going.
# :::

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from attnlib import costs, measure
from attnlib.data import real_layer
from attnlib.layers import attention
from attnlib.plots import hierarchy_and_span as plots

torch.set_num_threads(1)
torch.set_printoptions(precision=3, sci_mode=False)
generator = torch.Generator().manual_seed(0)
rng = np.random.default_rng(0)

# %% [markdown]
# ## What do real heads need?
#
# Our twelve heads of MiniLM {cite}`wang2020b` read a sentence of 15 tokens ([chapter 6](06_multi_head.ipynb)). For each head: what share of its {term}`weight` goes to tokens at most $r$ places away?

# %%
layer = real_layer()
places = np.arange(15)
away = np.abs(places[:, None] - places)          # (seq_q, seq_k)
within = np.array([(layer.weights * (away <= r)).sum(-1).mean(-1)
                   for r in range(15)]).T        # (heads, 15)
for h in (2, 5, 9):
    print(f"head {h}: up to 1 away {within[h, 1]:.2f}, 4 {within[h, 4]:.2f}")

# %% mystnb={"image": {"alt": "Curves of twelve heads over distance, rising to 1. Head 2 reaches 1.00 at distance 1. Heads 4 and 5 rise faster than the rest up to 2 tokens. The other nine rise slowly and together, with about half of their weight within 4 tokens or less."}, "figure": {"caption": "One head of the layer needs one token, some need a few, and most of them spread over the whole sentence.", "name": "fig-real-distances"}}
plots.distances(within, {2: "head 2", 5: "head 5", 9: "head 9"})
plt.show()

# %% [markdown]
# Head 2 needs its query's neighbours alone, and could be computed with three keys per query instead of 15. Head 9 could not. Equal weights would put 0.19 within 1 token and 0.51 within 4; head 9 stays below both. No single
# window fits both, and a sentence of 15 tokens says nothing yet about the heads of a long document. Keep this in mind: the first two methods of this chapter fix
# the shape of the look beforehand, for all heads alike; the last one lets each head decide.
#
# ## Cut the line into windows
#
# The cheapest rule: cut the sequence into windows of $m$ tokens, attend within each. An image is cut the same way, along both axes, and *tokens of one window* then means a small square.
# Here is a function for a **grid** with any number of axes. `unfold(axis, m, m)` cuts an axis into pieces of $m$ and puts the new axis last; `.mT` exchanges the last two axes.

# %%
def window_partition(x, window):
    lead = x.dim() - 1 - len(window)
    for axis, size in enumerate(window, start=lead):
        x = x.unfold(axis, size, size)  # (..., *counts, dim, *window)
    x = x.flatten(lead, lead + len(window) - 1)  # (..., windows, dim, ...)
    return x.flatten(lead + 2).mT  # (..., windows, tokens, dim)

# %%
image = torch.tensor([[10 * row + column for column in range(6)]
                      for row in range(4)])[..., None]  # (4, 6, 1)
print(window_partition(image, (2, 3))[..., 0])

# %% [markdown]
# Each row is one window of 2 × 3 tokens; the digits name row and column. From here on this is `attnlib.hierarchy.window_partition`, and its inverse is `window_merge`.
#
# What do windows cost? With windows of $m$ tokens each query meets $m$ keys, so an $n$-token line needs $nm$ {term}`scores <score>` instead of $n^2$; an image of $h \times w$ tokens in windows of $m \times m$ needs $hwm^2$ {cite}`liu2021`.
# Swin's first layers work on 56 × 56 tokens, each made from a *patch* of 4 × 4 pixels, in windows of 7 × 7:

# %%
windows = costs.shifted_window_pairs([56, 56], 7)
print(f"windows: {windows:,} scores, all pairs: {56**4:,}")
print("fewer by a factor of", 56**4 // windows)

# %% [markdown]
# ## Does news cross a cut?
#
# Before the next cell: 32 tokens, windows of 8, no shift. After how many layers does the output at position 15 depend on all inputs?
#
# We measure it: {term}`gradient reach <gradient reach>` is the set of inputs that get a gradient from one output. The layer is `attnlib`'s; you
# build the function inside it in a moment. Each layer adds its result to its input (a residual connection).

# %%
from attnlib.hierarchy import ShiftedWindowAttention


def reached(shifts, seq=32, window=8, query=15):
    torch.manual_seed(0)
    x = torch.randn(seq, 16, requires_grad=True)
    y, rows = x, []
    for shift in shifts:
        y = y + ShiftedWindowAttention(16, 2, (window,), (shift,))(y)
        grad, = torch.autograd.grad(y[query].sum(), x, retain_graph=True)
        rows.append(grad.any(dim=-1))
    return torch.stack(rows).numpy()  # (layers, seq)

# %% [markdown]
# Run it with four layers whose cuts are all at 8, 16 and 24.

# %%
never = reached([0, 0, 0, 0])
print("inputs reached after 1 to 4 layers:", never.sum(-1))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# After no number of layers. Windows that are cut at the same places in every layer are four separate networks. Position 15 is the last of its window and will never hear of
# its neighbour 16.
# :::
#
# The remedy is in the name of Swin (*shifted windows*): every second layer moves the cuts by half a window {cite}`liu2021`. What was at an edge is now in the middle.

# %%
shifted = reached([0, 4, 0, 4])
print("with shifts:", shifted.sum(-1))

# %% mystnb={"image": {"alt": "Two panels over 32 input positions, one row per number of layers from 1 to 4. Top, the same cuts in every layer: positions 8 to 15 are filled in all rows. Bottom, cuts moved by half a window in every second layer: 8 positions, then 8 to 23, then 0 to 23, then all 32."}, "figure": {"caption": "With equal cuts nothing ever leaves its window. With shifted ones the reach grows by about one window for each layer.", "name": "fig-window-reach"}}
plots.reaches({"cuts at 8, 16, 24 in every layer": never,
               "cuts moved by 4 in layers 2 and 4": shifted}, query=15)
plt.show()

# %% [markdown]
# The reach grows by about a window per layer, as in a stack of convolutions. A line of 3136 tokens, as many as 56 × 56, would take some 400 layers with these windows; this is where *merging* will help.
#
# ## How do you shift without odd windows?
#
# Moved cuts leave half a window at each end. On an 8 × 8 image with windows of 4 × 4, a shift by 2 gives nine windows of four shapes, instead of four of one shape. Swin's trick is to *roll* the image by the shift, so that what
# falls off on one side comes back on the other: again four windows, all of them 4 × 4.

# %% mystnb={"image": {"alt": "Two grids of 8 × 8 squares. Left, in place: cuts after 2 and 6 rows and columns make nine windows labelled 0 to 8, of sizes 2 and 4. Right, rolled: four windows of 4 × 4; the first holds only label 4, the second 5 and 3, the third 7 and 1, the last 8, 6, 2 and 0."}, "figure": {"caption": "Rolling turns nine windows into four of one shape, and brings tokens together that are far apart in the image: in the last window, those of all four corners. Numbers and colours name the nine windows.", "name": "fig-shift-regions"}}
at = (torch.arange(8) - 2) // 4 + 1              # 0, 1 or 2 along one axis
region = 3 * at[:, None] + at                    # (8, 8), 0 to 8
rolled = torch.roll(region, (-2, -2), (0, 1))
plots.regions(region.numpy(), rolled.numpy(), window=4, shift=2)
plt.show()

# %% [markdown]
# The last window holds tokens from all four corners of the image. Nothing in the arithmetic knows that they are not neighbours. Now break it on purpose: **forget the mask**.
# We need the rest of the function first. It rolls, cuts, attends, merges and rolls back; `mask` is ours to choose for now.

# %%
from attnlib.hierarchy import window_merge


def windows_with(mask, x, window, shift):
    rolled = torch.roll(x, [-s for s in shift], (0, 1))
    inside = window_partition(rolled, window)    # (windows, tokens, dim)
    out, _ = attention(inside, inside, inside, mask)
    merged = window_merge(out, window, tuple(x.shape[:2]))
    return torch.roll(merged, shift, (0, 1))

# %%
def change_at(mask, source=(0, 3)):
    x = torch.randn(8, 8, 16, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[source] += 1
    pair = [windows_with(mask, each, (4, 4), (2, 2)) for each in (x, other)]
    return (pair[1] != pair[0]).any(dim=-1)      # (8, 8)

# %% [markdown]
# The token in the top row, column 3, is changed. Which outputs change, without a mask?

# %%
leaking = change_at(None)
print("rows that change:", leaking.any(dim=1).nonzero().flatten().tolist())

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Rows 0 and 1 (columns 2 to 5), which hold its window, and rows 6 and 7: the *bottom* of the image. The top row looks at the bottom row as if they touched. No shape is wrong, no loss explodes; a network trained this way believes that images are printed on a doughnut.
# :::
#
# Two tokens belong together if no cut lies between them. Along one axis a cut lies before $s$, $s + m$, $s + 2m$ and so on, so the number of the window is $\lfloor (p - s)/m \rfloor$, −1 before the first cut. Label
# every token with these numbers, roll the labels along with the image, and compare within each window. Where windows do not divide the image it will be padded at its end; padding gets a label of its own, −2.

# %%
def shift_mask(grid, window, shift):
    labels = []
    for size, m, s in zip(grid, window, shift, strict=True):
        at = torch.arange(size + -size % m)  # positions, padded
        labels.append(torch.where(at < size, (at - s) // m, -2))
    regions = torch.stack(torch.meshgrid(*labels, indexing="ij"), dim=-1)
    regions = torch.roll(
        regions, [-s for s in shift], dims=list(range(len(shift)))
    )
    regions = window_partition(regions, window)  # (windows, tokens, axes)
    return (regions[:, :, None] == regions[:, None]).all(dim=-1)

# %%
masks = shift_mask((8, 8), (4, 4), (2, 2))       # (windows, tokens, tokens)
print("pairs allowed, of 256 in each window:", masks.sum((1, 2)).tolist())

# %% mystnb={"image": {"alt": "Two maps of 8 × 8 outputs; the changed input in the top row, column 3, is marked by a cross. Left, without the mask, the top two and the bottom two rows change in columns 2 to 5. Right, with the mask, only rows 0 and 1 change in these columns."}, "figure": {"caption": "Without the mask a change at the top edge reaches the bottom edge. With it, it stays in its own window.", "name": "fig-shift-leak"}}
clean = change_at(masks)
assert not clean[2:].any() and not clean[:, :2].any() and not clean[:, 6:].any()
plots.influence({"no mask": leaking.numpy(), "shift_mask": clean.numpy()}, (0, 3))
plt.show()

# %% [markdown]
# The first window needs no mask (all 256 pairs), the two at an edge keep half of their pairs, the corner a quarter: 64 of 256. This is the price of rolling: the masked scores are computed and thrown away. It is `attnlib.hierarchy.shift_mask`.
#
# ## Where within the window?
#
# Attention does not know where a token stands ([chapter 7](07_positions.ipynb)). Swin adds to each score a learned number for the *offset* between query and key, one table per head:
#
# $$\operatorname{Attention}(Q, K, V) = \operatorname{softmax}\bigl(QK^\top/\sqrt{d} + B\bigr)V$$
#
# In a window of $m_1 \times m_2$ tokens there are $(2m_1 - 1)(2m_2 - 1)$ offsets. Which entry does a pair use? Number its offsets like a two-digit number. In a window of 7 × 7 each lies between −6 and 6; add 6,
# and the entry is 13 · (rows + 6) + (columns + 6):

# %%
def relative_position_index(window):
    index = 0
    for m, at in zip(
        window,
        torch.meshgrid(*map(torch.arange, window), indexing="ij"),
        strict=True,
    ):
        offset = at.reshape(-1, 1) - at.reshape(1, -1)  # from 1 - m to m - 1
        index = index * (2 * m - 1) + offset + m - 1
    return index

# %%
print(relative_position_index((4,)))
assert relative_position_index((7, 7)).unique().numel() == 13 * 13

# %% [markdown]
# Along each diagonal the same number: the same offset. A window of 7 × 7 has 2401 pairs and 169 biases per head. This is `attnlib.hierarchy.relative_position_index`. Now everything at once, with padding for sizes that do not divide (`F.pad` wants the last axis first, and for each axis how much before it and how much after):

# %%
def shifted_window_attention(q, k, v, window, shift, bias=None):
    grid = q.shape[-1 - len(window):-1]
    axes = list(range(-1 - len(window), -1))
    pad = [end for size, m in zip(grid, window, strict=True)
           for end in (-size % m, 0)][::-1]
    back = [-s for s in shift]
    q, k, v = (
        window_partition(
            torch.roll(F.pad(x, (0, 0, *pad)), back, axes), window
        )
        for x in (q, k, v)
    )
    scores = q @ k.mT / q.shape[-1] ** 0.5  # (..., windows, tokens, tokens)
    scores = scores if bias is None else scores + bias.unsqueeze(-3)
    mask = shift_mask(tuple(grid), window, shift).to(q.device)
    weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)
    padded = tuple(
        size + -size % m for size, m in zip(grid, window, strict=True)
    )
    out = torch.roll(window_merge(weights @ v, window, padded), shift, axes)
    return out[(..., *map(slice, grid), slice(None))]  # (..., *grid, dim_v)

# %% [markdown]
# It is `attnlib.hierarchy.shifted_window_attention`. The oracle is one line of thought: attention over the *whole* image with a mask that lets two tokens see each other if no cut lies between them. An image of 7 × 9, windows of 4 × 3, shifts of 2 and 1:

# %%
q, k, v = (torch.randn(2, 7, 9, 8, generator=generator, dtype=torch.float64)
           for _ in range(3))                    # (heads, *grid, dim_head)
local = shifted_window_attention(q, k, v, (4, 3), (2, 1))
rows, columns = (torch.arange(7) - 2) // 4, (torch.arange(9) - 1) // 3
number = (10 * rows[:, None] + columns).flatten()           # (63,)
whole = number[:, None] == number                           # (63, 63)
expected, _ = attention(*(x.flatten(1, 2) for x in (q, k, v)), whole)
assert torch.allclose(local.flatten(1, 2), expected, rtol=0, atol=1e-12)
print("63 tokens, a mask over", whole.numel(), "pairs: the same result")

# %% [markdown]
# The library's tests compare the layer with Hugging Face's Swin on random weights too, and find one difference worth knowing: where windows do not divide the image, that code pads
# with zeros and lets the padding take part as {term}`keys <key>`. Ours is seen by nobody.
#
# ## Merge, and the window grows
#
# A window of 7 × 7 stays small however many layers follow. So Swin shrinks the image instead: after a few layers, four neighbours (2 × 2) are put side by side, normalised, and projected to twice the width. The same window now covers twice the distance. Cutting into windows of two is all the code it needs.

# %%
class PatchMerging(nn.Module):
    def __init__(self, dim, axes=2):
        super().__init__()
        self.axes, self.norm = axes, nn.LayerNorm(2**axes * dim)
        self.reduce = nn.Linear(2**axes * dim, 2 * dim, bias=False)

    def forward(self, x):
        grid = x.shape[-1 - self.axes:-1]
        pad = [end for size in grid for end in (size % 2, 0)][::-1]
        cells = window_partition(
            F.pad(x, (0, 0, *pad)), (2,) * self.axes
        ).flatten(-2)  # (..., windows, 2^axes·dim)
        half = [-(-size // 2) for size in grid]
        return self.reduce(self.norm(cells)).unflatten(-2, half)

# %%
print(tuple(PatchMerging(96)(torch.zeros(56, 56, 96)).shape))

# %% [markdown]
# It is `attnlib.hierarchy.PatchMerging`. Four levels of the smallest Swin, 96 numbers per token at first. What do you expect: does the cost of the scores rise or fall from level to level, and what does one window cover?

# %%
side, dim = 56, 96
for level in range(1, 5):
    scores = costs.shifted_window_pairs([side, side], 7)
    gflop = 4 * scores * dim / 1e9               # two products, 2 FLOPs each
    print(f"level {level}: {side:2} × {side:2} tokens of {dim:3}: "
          f"{gflop:.3f} GFLOP, a window covers {7 * 56 // side:2} patches")
    side, dim = side // 2, 2 * dim

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It halves: a quarter of the tokens, twice as wide. At the fourth level there are 7 × 7 tokens: one window holds the whole image, and attention in it is full, provided that nothing is shifted there. (Swin leaves the shift out where the window covers the grid; `shift_mask` would cut it in four.)
# :::
#
# Predicted counts are worth little unchecked. Count what one layer does on an image of 28 × 28, with PyTorch's own counter:

# %%
two_d = ShiftedWindowAttention(192, 6, (7, 7), (3, 3))
small = torch.randn(28, 28, 192, generator=generator)
counted = measure.flops(lambda: two_d(small))
projections = 4 * 2 * 28 * 28 * 192 * 192
predicted = projections + 4 * costs.shifted_window_pairs([28, 28], 7) * 192
assert counted == predicted
print(f"{counted / 1e6:.0f} MFLOP, {projections / counted:.0%} in projections")

# %% [markdown]
# To the last FLOP of the matrix products, which are all that this counter counts. At this width, windows make attention so cheap that the four {term}`projections <projection>` are most of the layer: halving the scores again would gain next to nothing.
#
# What does merging do to the reach? A line of 256 tokens, windows of 8, alternate shifts, and a merge after every two layers. We count the inputs that reach one output.

# %%
def reach_of(merging, depth=6, seq=256):
    torch.manual_seed(0)
    x = torch.randn(seq, 8, requires_grad=True)
    y, sizes = x, []
    for i in range(depth):
        if merging and i in (2, 4):
            y = PatchMerging(y.shape[-1], axes=1)(y)
        y = y + ShiftedWindowAttention(y.shape[-1], 2, (8,), (4 * (i % 2),))(y)
        middle = y[y.shape[0] // 2].sum()
        grad, = torch.autograd.grad(middle, x, retain_graph=True)
        sizes.append(int(grad.any(dim=-1).sum()))
    return sizes

# %%
print("shifts alone:      ", reach_of(False))
print("shifts and merging:", reach_of(True))

# %% [markdown]
# By windows alone the reach grows by 8 a layer; with merging, by 8, then 16, then 32. That is the hierarchy: {term}`receptive fields <receptive field>` that grow
# exponentially with the levels, while the cost of the scores falls (that of the projections stays, at 0.23 GFLOP a layer: a quarter of the tokens, four times the matrix). The price is that the last level no longer has one vector per token. A classifier needs one vector in the end, and detectors read all levels {cite}`liu2021`; but the last level alone cannot predict
# the next token at every position. What would be a hierarchy that keeps every token?
#
# :::{admonition} A good place for a break
# :class: tip
# Windows in place: cut, shift, mask, merge. The second half keeps the sequence as it is.
# :::
#
# ## What if far away were a summary?
#
# A query attends token by token to its own block and the ones beside it, and to **one summary** for each block further away, all in one {term}`softmax`. A block's summary: the mean of its keys, the mean of its {term}`values <value>`. Blocks at the end may be shorter, so we keep the count.

# %%
def block_means(x, block_size):
    seq = x.shape[-2]
    blocks = -(-seq // block_size)
    counts = (
        seq - block_size * torch.arange(blocks, device=x.device)
    ).clamp(max=block_size)
    x = F.pad(x, (0, 0, 0, -seq % block_size)).unflatten(
        -2, (blocks, block_size)
    )  # (..., blocks, block_size, dim)
    return x.sum(dim=-2) / counts[:, None], counts

# %% [markdown]
# Seven tokens in blocks of three:

# %%
means, held = block_means(torch.arange(14.0).reshape(7, 2), 3)
print(means.tolist(), held.tolist())

# %% [markdown]
# Now think before you run. A block holds 16 tokens with *equal* keys and equal values. Replace them by their summary. Beside it stand 4 other tokens with the same score. What share should the block have, and what share will it get?

# %%
score = torch.zeros(5)                           # the summary, 4 tokens
print("share of the block:", f"{torch.softmax(score, 0)[0]:.3f}")
score[0] += torch.tensor(16.0).log()
print("with log 16 added:", f"{torch.softmax(score, 0)[0]:.3f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It should have 16/20 = 0.8, as its tokens would. It gets 1/5, because softmax counts entries, not tokens. The logarithm of the count, added to the score, turns $e^{s}$ into $16\,e^{s}$, and the summary stands for its tokens exactly.
# :::
#
# Exactly as long as the keys of the block are equal. If they differ, the mean key is an approximation, and one in a known direction: $\sum_j e^{q \cdot k_j} \ge b\, e^{q \cdot \bar{k}}$ (the exponential is convex), so **a summary never counts for more, before the row is normalised, than its tokens together would**, and for less the more
# their scores differ. The fine-near, coarse-far softmax is the idea of focal self-attention {cite}`yang2021`, there with learned pooling; the logarithm is the one that Token Merging adds when it fuses tokens {cite}`bolya2022`.
# H-Transformer-1D {cite}`zhu2021` goes on to many levels, each twice as coarse, and coarsens the {term}`queries <query>` too.
#
# Who sees what? Blocks of queries are `rows`. For each row first the tokens of its neighbourhood, then all blocks; in the {term}`causal <causal mask>` case only whole blocks of the past may be summarised. `near` says how many blocks on each side count as near.

# %%
def two_level_mask(rows, seq_k, block_size, causal=False, near=1):
    row = rows[:, None, None]
    width = (near + 1 + near * (not causal)) * block_size
    q_idx = row * block_size + torch.arange(
        block_size, device=rows.device)[:, None]      # (rows, block_size, 1)
    k_idx = (row - near) * block_size + torch.arange(
        width, device=rows.device)                    # (rows, 1, width)
    block = torch.arange(-(-seq_k // block_size), device=rows.device)
    fine = (k_idx >= 0) & (k_idx < seq_k) & ((k_idx <= q_idx) | (not causal))
    coarse = (block < row - near) | (block > row + near) & (not causal)
    return torch.cat(
        [each.expand(-1, block_size, -1) for each in (fine, coarse)], dim=-1)

# %%
seen = two_level_mask(torch.arange(4), 16, 4, causal=True)
print("row 3, its first query: tokens", seen[3, 0, :8].int().tolist(),
      "summaries", seen[3, 0, 8:].int().tolist())

# %% [markdown]
# The query at position 12 sees tokens 8 to 12 one by one, and the summaries of blocks 0 and 1. The attention: `unfold` hands each row its neighbourhood as a view, and one softmax runs over both levels.

# %%
def two_level_attention(q, k, v, block_size, causal=False, near=1):
    seq_q, seq_k = q.shape[-2], k.shape[-2]
    own, lead = divmod(seq_k - seq_q, block_size)  # first query: block, place
    rows = torch.arange(own, own + max(1, -(-(lead + seq_q) // block_size)),
                        device=q.device)
    q = F.pad(q, (0, 0, lead, len(rows) * block_size - lead - seq_q))
    q = q.unflatten(-2, (len(rows), block_size))  # (..., rows, block_size, ·)

    mask = two_level_mask(rows, seq_k, block_size, causal, near)
    width = (near + 1 + near * (not causal)) * block_size
    start = (own - near) * block_size
    ends = (0, 0, -start,
            start + width + (len(rows) - 1) * block_size - seq_k)
    fine_k, fine_v = (F.pad(x, ends).unfold(-2, width, block_size)
                      for x in (k, v))           # (..., rows, dim, width)
    (means_k, counts), (means_v, _) = (
        block_means(k, block_size), block_means(v, block_size))

    scores = torch.cat([q @ fine_k, q @ means_k.unsqueeze(-3).mT], dim=-1)
    scores = scores / q.shape[-1] ** 0.5
    scores = scores + F.pad(counts.to(q.dtype).log(), (width, 0))
    blind = ~mask.any(dim=-1, keepdim=True)
    scores = scores.masked_fill(~mask & ~blind, -torch.inf)
    weights = torch.softmax(scores, dim=-1).masked_fill(blind, 0)
    out = (weights[..., :width] @ fine_v.mT
           + weights[..., width:] @ means_v.unsqueeze(-3))
    return out.flatten(-3, -2)[..., lead:lead + seq_q, :]

# %% [markdown]
# These are `attnlib.hierarchy.block_means`, `attnlib.hierarchy.two_level_mask` and `attnlib.hierarchy.two_level_attention`. Two tests that can fail: with blocks of one token nothing is summarised but single tokens, so the result must be full attention; and with blocks of equal tokens nothing is lost either.

# %%
def draw(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)

# %%
q, k, v = draw(50, 16), draw(50, 16), draw(50, 16)
single = two_level_attention(q, k, v, block_size=1)
assert torch.allclose(single, attention(q, k, v)[0], rtol=0, atol=1e-12)

# %%
equal_k, equal_v = (x[:7].repeat_interleave(8, dim=0)[:50] for x in (k, v))
pooled = two_level_attention(q, equal_k, equal_v, block_size=8)
full, _ = attention(q, equal_k, equal_v)
assert torch.allclose(pooled, full, rtol=0, atol=1e-12)

# %% [markdown]
# ### The cheapest block
#
# Each of $n$ queries meets at most $3b$ tokens near by and about $n/b$ summaries. What $b$ makes $3b + n/b$ smallest, and how does the cost then grow with $n$?

# %%
n = 4096
blocks = [8, 16, 32, 64, 128, 256]
pairs = [costs.two_level_pairs(n, near=1, block=b) for b in blocks]
counted = [measure.flops(lambda b=b: two_level_attention(*[draw(n, 16)] * 3, b))
           for b in blocks]
share = [p / n**2 for p in pairs]
print("predicted:", [f"{s:.3f}" for s in share])
print("counted:  ", [f"{c / (4 * 16 * n**2):.3f}" for c in counted])
print("√(n/3) =", round((n / 3) ** 0.5))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# $b = \sqrt{n/3}$ (37 here): there the slope $3 - n/b^2$ is zero and both terms are equal. Then it is $2\sqrt{3}\; n\sqrt{n}$ scores: $O(n^{1.5})$, between a window's $O(n)$ and full attention's $O(n^2)$. Around its best value the cost is flat, so a power of two will do. More levels, each coarser, bring it down to $O(n)$ {cite}`zhu2021`.
# :::
#
# FLOPs are not seconds. Against PyTorch's fused attention, 8192 tokens, two heads of 64:

# %% tags=["nbval-ignore-output"]
q, k, v = (torch.randn(2, 8192, 64, generator=generator) for _ in range(3))
times = measure.cpu_times({
    "full": lambda: F.scaled_dot_product_attention(q[None], k[None], v[None]),
    "two levels": lambda: two_level_attention(q, k, v, block_size=64),
}, repeats=3)
faster = measure.ratios(times, to="two levels")["full"].median
fewer = 8192**2 / costs.two_level_pairs(8192, near=1, block=64)
assert faster > 1.5
print(f"fewer scores: {fewer:.0f}×, faster: {faster:.1f}×")

# %% [markdown]
# Faster, by much less than the counts promise: our lines write every score, mask and weight to memory, several times; the fused function is one program (a *kernel*) that keeps them in fast memory, in small tiles ([chapter 14](14_complexity.ipynb)). Where seconds matter, the skipping must be done inside a kernel.
#
# ### What it loses
#
# How far is the result from full attention? As the **error** we take the length of the difference over the length of full attention's result: 0 is exact, 1 as bad as answering zero. It depends on the keys, and we can have it both ways. First, keys that have nothing to do with their neighbours. Second, keys that change slowly along the sequence, as neighbouring patches of an image do. Third, a *needle*: one far key that
# equals one query. Full attention gives it most of the weight. Which of the three suffers most, and from which block size on?

# %%
def error(q, k, v, block_size, rows=slice(None)):
    full, _ = attention(q, k, v)
    out = two_level_attention(q, k, v, block_size)
    return ((out - full)[rows].norm() / full[rows].norm()).item()

# %%
def slowly(seq, dim, keep=0.98):
    steps = draw(seq, dim)
    for i in range(1, seq):
        steps[i] = keep * steps[i - 1] + (1 - keep**2) ** 0.5 * steps[i]
    return steps                                 # still of variance 1

# %%
q, k, v = draw(1024, 64), draw(1024, 64), draw(1024, 64)
smooth_k, smooth_v = slowly(1024, 64), slowly(1024, 64)
q[900] = k[100]                                  # the needle
_, weights = attention(q, k, v)
print(f"full attention gives the needle {weights[900, 100]:.2f}")

# %%
blocks = [1, 2, 4, 8, 16, 32, 64]
errors = {
    "unrelated neighbours": [error(q, k, v, b) for b in blocks],
    "slow change": [error(q, smooth_k, smooth_v, b) for b in blocks],
    "the needle": [error(q, k, v, b, 900) for b in blocks],
}
for name, values in errors.items():
    print(f"{name:>20}:", [f"{value:.2f}" for value in values])

# %% mystnb={"image": {"alt": "Two panels over block sizes 1 to 64. Top: the share of all scores falls from 1 at blocks of 1 to about 0.1 at 16 and rises again to about 0.2 at 64; a dashed line near 18 marks the square root of n over 3. Bottom, errors: the needle goes from 0 to 0.9 already at blocks of 2 and stays near 1; unrelated neighbours rise to about 0.8; slow change stays far lower, rising gradually."}, "figure": {"caption": "Summaries are good where neighbours are alike. A single token that matters is lost as soon as it shares its block.", "name": "fig-two-levels"}}
share = [costs.two_level_pairs(1024, 1, b) / 1024**2 for b in blocks]
plots.levels(blocks, share, errors, best=(1024 / 3) ** 0.5)
plt.show()

# %% [markdown]
# The needle, from blocks of two on: a mean cannot say *which* of its tokens it was. Two levels suit content that is smooth (images, first of all), and summaries that are *trained* to keep what is needed. For finding a name 3000 tokens back they are
# the wrong tool, unless they only point the way: in Native Sparse Attention one branch attends to compressed blocks (by a learned map, not a mean), and its scores choose the blocks that a second branch reads token by token. A third branch is a sliding window, each branch has a softmax of its own, and a learned gate mixes their results {cite}`yuan2025`.
#
# ## Let the head decide
#
# Back to the heads of the first figure. Some need one token, some need them all. Rather than one window for everyone, let each head *learn* its own {cite}`sukhbaatar2019`. A window's length is a whole number, and
# nothing whole has a derivative; so the edge of the window is made soft. With $x$ the distance from query to key, $z$ the **span** of the head, and a ramp of $R$ tokens:
#
# $$m_z(x) = \min\Bigl[\max\bigl[\tfrac{1}{R}(R + z - x),\, 0\bigr],\, 1\Bigr]$$
#
# for $x \ge 0$. Keys after the query ($x < 0$) count 0.

# %%
def span_mask(distance, span, ramp):
    return ((ramp + span - distance) / ramp).clamp(0, 1) * (distance >= 0)

# %%
print(span_mask(torch.arange(10), span=3, ramp=4.0))

# %% [markdown]
# 1 up to distance $z = 3$, then down over 4 steps. At distance 7 = $z + R$ and beyond it is exactly 0: these keys need not be computed. The largest distance that is *not* 0 is the head's **reach**, $\lceil z + R \rceil - 1$ tokens before the query. The authors' code counts
# the ramp in the same way, but keeps as many keys as the longest head of the layer needs ([adaptive_span.py](https://github.com/facebookresearch/adaptive-span)), and **reach is what we shall call the learned span** when we compare it with a known one.
#
# The mask multiplies the exponentials, before the row is normalised:
#
# $$a_{ij} = \frac{m_z(i - j)\,\exp(s_{ij})}{\sum_l m_z(i - l)\,\exp(s_{il})}$$
#
# for the query at position $i$ and the key at $j$. As always the row's maximum is taken out first, here the maximum *of the keys that count*.

# %%
def span_softmax(scores, mask):
    scores = scores.masked_fill(mask == 0, -torch.inf)
    row_max = scores.detach().amax(dim=-1, keepdim=True).clamp(
        min=torch.finfo(scores.dtype).min)
    powers = mask * torch.exp(scores - row_max)
    row_sum = powers.sum(dim=-1, keepdim=True)
    return powers / row_sum.masked_fill(row_sum == 0, 1)

# %%
soft = span_mask(torch.tensor([[7, 5, 3, 0]]), 3, 4.0)   # (seq_q, seq_k)
print(soft, span_softmax(torch.zeros(1, 4), soft))

# %% [markdown]
# The weights sum to 1, and the key at distance 5 gets half of a full share. These are `attnlib.span.span_mask` and `attnlib.span.span_softmax`. Through which keys does $z$ get a gradient? Predict, for a span of 3 and a ramp of 4, then look.

# %%
z = torch.tensor(3.0, requires_grad=True)
for distance in range(10):
    slope, = torch.autograd.grad(span_mask(torch.tensor(distance), z, 4.0), z)
    print(distance, slope.item(), end="; ")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Only through keys on the ramp (PyTorch counts its two ends in). A head hears about $z$ from the keys in the narrow zone where it is about to stop looking, and from nowhere else. What lies beyond cannot pull. Keep that in mind.
# :::
#
# ### Only as many keys as needed
#
# A mask alone saves nothing, as with rolling: what it hides has been computed. So one head works on blocks of queries, each with its own keys and `left` before them, `left` being the reach. `unfold` cuts overlapping pieces
# without copying. `positions` holds one learned vector per distance; the paper adds it to the key, so that a query can ask for a *distance* as well as for a content.

# %%
def span_head(q, k, v, left, span, ramp, positions=None, block_size=None):
    (seq_q, dim_head), seq_k = q.shape[-2:], k.shape[-2]
    block_size = max(16, left // 4) if block_size is None else block_size
    first, width = seq_k - seq_q, left + block_size
    rows = max(1, -(-seq_q // block_size))
    q = F.pad(q, (0, 0, 0, rows * block_size - seq_q)).unflatten(
        -2, (rows, block_size))
    ends = (0, 0, left - first, first + rows * block_size - seq_k)
    k, v = (F.pad(x, ends).unfold(-2, width, block_size) for x in (k, v))

    column = torch.arange(width, device=q.device)
    distance = torch.arange(
        block_size, device=q.device)[:, None] + left - column
    k_idx = first - left + block_size * torch.arange(
        rows, device=q.device)[:, None, None] + column
    real = (k_idx >= 0) & (k_idx < seq_k) & (distance <= left)
    mask = span_mask(distance, span, ramp).to(q.dtype) * real

    scores = q @ k                               # (..., rows, block_size, width)
    if positions is not None:
        by_distance = q @ positions[:left + 1].mT
        scores = scores + by_distance.gather(
            -1, distance.clamp(0, left).expand(scores.shape))
    weights = span_softmax(scores / dim_head**0.5, mask)
    return (weights @ v.mT).flatten(-3, -2)[..., :seq_q, :]

# %% [markdown]
# This is `attnlib.span.span_head`; `adaptive_span_attention` calls it once per head, with that head's own reach. The oracle: a dense table of all pairs, masked by the same $m_z$.

# %%
q, k, v, z = draw(40, 8), draw(40, 8), draw(40, 8), 6.5
distance = torch.arange(40)[:, None] - torch.arange(40)
dense = span_softmax(q @ k.mT / 8**0.5, span_mask(distance, z, 3.0).double())
banded = span_head(q, k, v, left=9, span=z, ramp=3.0)  # ⌈6.5 + 3⌉ - 1
assert torch.allclose(banded, dense @ v, rtol=0, atol=1e-12)

# %% [markdown]
# And it does compute less. A head of 4096 tokens, at three reaches:

# %%
q = torch.randn(4096, 64, generator=generator)
for left in (31, 255, 4095):
    used = measure.flops(lambda left=left: span_head(q, q, q, left, left, 1.0))
    ideal = 4 * 64 * costs.adaptive_span_pairs(4096, [left])
    print(f"reach {left:4}: {used / 1e6:7.0f} MFLOP, the band alone {ideal / 1e6:.0f}")

# %% [markdown]
# The surplus is the blocks' corners, which are computed and masked. At full reach it is more than *all* pairs would cost (4295 MFLOP): the upper triangle, keys that would stand before the first token, and a fifth block with only 4 queries in it.
# A band pays while it is short beside the sequence.

# %% [markdown]
# ## A task whose ranges we know
#
# Do heads learn the spans they need? On language nobody knows what they need. So we make a task that fixes it. A sequence of random coin tosses, +1 or −1; at every position, give **the sum of the last 8, of the last 16, of the last 32, of the last 64** (divided by $\sqrt{r}$, so that all four have variance 1). Four heads, and each answer is read from *one* head, so that there is no doubt who needs what:
# the furthest key needed stands 7, 15, 31 and 63 tokens before the query. (A head with equal weights gives the *mean* of $r$ tokens; the reading after it multiplies by $\sqrt r$. The head's work is to stop at the right place.) As in anything real, not all can be predicted: the answers carry noise of size 0.3.

# %%
from attnlib.span import AdaptiveSpanAttention

WINDOWS = (8, 16, 32, 64)


def make_sums(rng, noise=0.3, batch=8, seq=160):
    tokens = rng.integers(2, size=(batch, seq))
    total = np.cumsum(2.0 * tokens - 1, axis=1)
    far = max(WINDOWS)
    sums = [(total[:, far:] - total[:, far - r:seq - r]) / r**0.5
            for r in WINDOWS]
    answers = np.stack(sums, axis=-1)            # (batch, seq - 64, 4)
    return tokens, answers + noise * rng.normal(size=answers.shape)

# %% [markdown]
# The network: four heads side by side, each with its own small reading of its result.

# %%
class FourHeads(nn.Module):
    def __init__(self, start=0.0, dim=16, max_span=80, ramp=4.0):
        super().__init__()
        self.embed = nn.Embedding(2, dim)
        self.heads = nn.ModuleList(
            AdaptiveSpanAttention(dim, 1, max_span, ramp, start)
            for _ in WINDOWS)
        self.answers = nn.ModuleList(nn.Linear(dim, 1) for _ in WINDOWS)

    def forward(self, tokens):
        x, pairs = self.embed(tokens), zip(self.heads, self.answers, strict=True)
        out = [answer(head(x)) for head, answer in pairs]
        return torch.cat(out, dim=-1)[:, max(WINDOWS):]

    def reach(self):
        return [head.reach()[0] for head in self.heads]

# %% [markdown]
# Each head is the library's `AdaptiveSpanAttention`: projections, `adaptive_span_attention`, and two kinds of learned numbers, the vectors per distance and a fraction with $z = S \cdot \text{fraction}$, where $S = 80$ is the longest span allowed. The heads start **closed**, at $z = 0$, as in the authors' code. The loss gets a penalty,
#
# $$L = L_{\text{task}} + \frac{\lambda}{H}\sum_i z_i$$
#
# for the $H = 4$ heads: looking far costs. After each step spans are brought back into $[0, S]$, as in the authors' code too. In the last third of the training the step size falls to zero, so that the spans can settle.

# %%
def train(model, rng, steps=500, make=make_sums, penalty=0.002):
    spans = [head.fraction for head in model.heads]
    rest = [p for n, p in model.named_parameters() if "fraction" not in n]
    groups = [{"params": rest}, {"params": spans, "lr": 0.003}]
    optimiser = torch.optim.Adam(groups, lr=0.005, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, 3 * (1 - step / steps)))
    history = []
    for _ in range(steps):
        tokens, answers = map(torch.from_numpy, make(rng))
        loss = F.mse_loss(model(tokens), answers.float())
        price = sum(head.penalty() for head in model.heads) / len(spans)
        optimiser.zero_grad()
        (loss + penalty * price).backward()
        optimiser.step()
        schedule.step()
        for head in model.heads:
            head.keep_in_bounds()
        history.append(model.reach())
    return np.array(history)                     # (steps, heads)


@torch.no_grad()
def exam(model, make=make_sums):
    tokens, answers = make(np.random.default_rng(1), noise=0.0, batch=64)
    missed = model(torch.from_numpy(tokens)).numpy() - answers
    return (missed**2).mean((0, 1))              # (4,); knowing nothing: 1

# %% [markdown]
# What do you expect of the reaches: shorter than needed, as the penalty wants, or longer, because of the ramp? By how much?

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
model = FourHeads()
history = train(model, rng)
needed, learned = [r - 1 for r in WINDOWS], model.reach()
off = np.abs(np.array(learned) / needed - 1)
assert off.max() < 0.2 and exam(model).max() < 0.05
print("needed", needed, "learned", learned, "error", exam(model).round(3))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Exactly what is needed, or a token beside it. A key that is missing costs, a key too many costs (through the penalty and through what it adds), and the ramp is no obstacle: a head may raise the scores of the keys on its ramp, and the renormalised weights come out equal. So the penalty
# pulls until the last needed key hangs on the foot of the ramp. The span $z$ itself lies *below* what is needed, by up to $R$; the reach lies at it. That is why the definition had to be settled before.
# :::

# %% mystnb={"image": {"alt": "Four soft masks over distance from 0 to 80. Each is 1 up to about four tokens before one of the dashed lines at 7, 15, 31 and 63, is still above zero at the line, and zero one token behind it."}, "figure": {"caption": "The learned soft masks. Each head sees as far as its answer needs, and no further.", "name": "fig-learned-spans"}}
spans = torch.cat([head.span.detach() for head in model.heads])
learned_masks = span_mask(torch.arange(81), spans[:, None], 4.0)
plots.learned_spans(learned_masks.numpy(), needed)
plt.show()

# %% [markdown]
# ### What it saves
#
# At 4096 tokens, all four heads at the largest span allowed, and at the learned spans:

# %% tags=["nbval-ignore-output"]
many = torch.randint(2, (1, 4096), generator=generator)
wide = FourHeads(start=1.0)
used = [measure.flops(lambda m=m: m(many)) for m in (wide, model)]
with torch.no_grad():
    times = measure.cpu_times({"wide": lambda: wide(many),
                               "learned": lambda: model(many)})
faster = measure.ratios(times, to="learned")["wide"].median
ideal = [costs.adaptive_span_pairs(4096, each) for each in ([80] * 4, learned)]
assert ideal[0] > 2 * ideal[1] and used[1] < used[0]
print(f"scores in the bands: {ideal[0] / ideal[1]:.1f}× fewer; "
      f"FLOPs of all: {used[0] / used[1]:.1f}×; time: {faster:.1f}×")

# %% [markdown]
# The bands hold 2.7 times fewer scores. FLOPs and time fall by less: the projections stay, blocks have corners, and at spans this short much of the time goes into things that are not products. With spans of thousands the bands are what counts. The paper's models allow a span of 8192 characters, and learn small
# contexts in the low layers and very large ones in the last {cite}`sukhbaatar2019`.
#
# ## Where spans go wrong
#
# One seed is no law. The record below was made by `python -m tools.record_adaptive_span` with the cells of this page, three seeds each.

# %%
with open("data/16_adaptive_span.json") as file:
    record = json.load(file)


def show(name):
    for run in record["runs"]:
        if run["name"] == name:
            print(run["reach"], "needed", run["needed"],
                  "error", [round(e, 2) for e in run["error"]])


show("sums, closed")

# %%
worst = [max(map(abs, run["off"])) for run in record["runs"]
         if run["name"] == "sums, closed"]
saved = [run["pairs_saved"] for run in record["runs"]
         if run["name"] == "sums, closed"]
assert len(worst) >= 3 and max(worst) < 0.2
print("largest deviation:", max(worst), " scores saved:", saved)

# %% [markdown]
# Sums are a friendly task: every step further back is worth a little more. Now one that is not. **Copy** the token that stood 8, 16, 32 or 64 places before. Nothing on the way there is of any use. Closed heads, 150 steps (by then all four heads of the sums had opened, as the next figure shows); what will they do?

# %%
def make_copies(rng, noise=0.3, batch=8, seq=160):
    tokens = rng.integers(2, size=(batch, seq))
    far = max(WINDOWS)
    answers = np.stack([2.0 * tokens[:, far - r:seq - r] - 1
                        for r in WINDOWS], axis=-1)
    return tokens, answers + noise * rng.normal(size=answers.shape)

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
closed = FourHeads(start=0.0)
train(closed, rng, 150, make_copies)
assert max(closed.reach()) < 8 and exam(closed, make_copies).min() > 0.8
print("reach", closed.reach(), "error", exam(closed, make_copies).round(2))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# They stay closed. Only the keys on the ramp have a say in $z$, and none of them knows anything; the penalty alone speaks. A learned span follows a *gradient of usefulness*. It does not search.
# :::
#
# The same heads started wide open see the key they need from the first step, and only have to let go of the rest:

# %%
show("copies, open")

# %% mystnb={"image": {"alt": "Two panels of reach over 500 training steps, four curves each, with dashed lines at what each head needs. Left, sums from closed heads: the curves rise from 1 and stop at 7, 15, 31 and 63. Right, copies from open heads: they fall from 80 and stop at 8, 16, 32 and 64."}, "figure": {"caption": "A span grows where every step helps, and shrinks to what is needed where it began wide enough. Dashed: what the heads need, for copies one token more than for sums. Colours as in {numref}`fig-learned-spans`.", "name": "fig-span-paths"}}
runs = {run["name"]: run for run in record["runs"] if run["seed"] == 0}
paths = {name: np.array(runs[name]["history"])
         for name in ("sums, closed", "copies, open")}
needs = {name: runs[name]["needed"] for name in paths}
plots.span_paths(np.array(record["steps"]), paths, needs)
plt.show()

# %% [markdown]
# **The ramp is the feeler.** Our heads start closed with a ramp of 4, so each feels 3 keys before its own. We tried a ramp of 2 first, which feels one, in the same training:

# %%
show("sums, closed, ramp 2")

# %% [markdown]
# In two seeds of three, heads stay closed, and one stops at 7 of the 31 that it needs. Our reading of it: while a head can still do nothing with what it sees, the penalty alone pulls, and later one key is too little of a hint. The wider the ramp, the more a closed head feels. (In the authors' code a ramp is 32 tokens by default.)
#
# **The penalty's taste.** $\lambda$ pulls all spans alike, so a learned span is at best as long as the loss will pay for, *step by step*; it is not the range of what is there. With $\lambda$ one hundred times as large:

# %%
show("sums, closed, penalty 0.2")

# %% [markdown]
# No head opens at all. Our reading again: a key that is fully in would bring the sum of 8 an eighth of its variance, but a gradient sees only the first step: a key at the foot of the ramp, with next to no weight yet, and that is not worth $\lambda/H = 0.05$. So to read a learned span as "this head needs $n$ tokens" is right only together with
# its start, its ramp, and the price it was learned at.

# %% [markdown]
# ## What to remember
#
# | property | consequence | cell that shows it |
# |---|---|---|
# | windows with equal cuts | four networks side by side: nothing crosses, in any number of layers | {numref}`fig-window-reach` |
# | shifted cuts | reach grows by a window per layer | {numref}`fig-window-reach` |
# | rolling needs `shift_mask` | without it, opposite edges touch, and nothing tells you | {numref}`fig-shift-leak` |
# | merging | half the cost of the scores per level, twice the distance per window; no longer a vector per token | four levels |
# | a summary stands for $b$ tokens | add $\log b$; exact for equal keys, too little weight otherwise | share of the block |
# | two levels | $2\sqrt3\,n\sqrt n$ scores at $b = \sqrt{n/3}$; a needle in a far block is lost | {numref}`fig-two-levels` |
# | soft mask with a span | the edge of a window gets a gradient, but only along the ramp | {numref}`fig-learned-spans` |
# | reach per head | heads compute what they use: count bands, not masks | reach 31, 255, 4095 |
# | only the ramp has a gradient | spans follow usefulness step by step; they do not search | {numref}`fig-span-paths` |
#
# **In practice.** Hierarchies with windows made transformers the backbone of detection and segmentation {cite}`liu2021`. They are not the only way: a *plain* vision transformer, with a few layers of full attention among unshifted windows and
# good pre-training, competes with them in detection {cite}`li2022`. In language, fixed windows are what is used: Longformer mixes windows with a few global tokens {cite}`beltagy2020`, Gemma 3 has five layers of sliding windows for each layer of full attention {cite}`gemma2025`. A fixed pattern makes kernels and
# caches simple; a span per head makes every head a shape of its own. And summaries returned as guides for selection in Native Sparse Attention {cite}`yuan2025`.
#
# **Shortcut taken here.** Swin's block has norms, an MLP and a residual stream around the attention; ours had the attention alone. Its successors changed the scores and the bias too. Each of our answers is read from one head; where heads share the work, spans are learned too, but nobody can say which range was "known" for which head. And our band is plain PyTorch: a kernel would skip its corners.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Predict how many inputs reach one output through a stack of windows, with and without shifts and merging, and
#   measure it with a gradient.
# - Roll an image before it is cut into windows, and find out by changing one token whether opposite edges touch.
# - Give one summary the weight of the tokens it stands for, and say when that is exact and to which side it errs.
# - Choose the block size with the fewest scores for two levels, and name the content for which two levels fail.
# - Write the soft edge by which a head learns its span, say which keys can pull on it, and why a closed head may stay
#   closed.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:cut_windows", "ex-prompt"]
# ```{exercise} An image in windows
# :label: ex-cut-windows
# In a Swin transformer {cite}`liu2021` every token attends within its own square window, and every second layer shifts the windows. Write
# `cut_windows(x, window, shift)` for a picture `x` (..., height, width, dim) of tokens; `window`, the side of a window in tokens, divides height and
# width, and `shift` is from 0 to window − 1. First the picture is moved up and to the left by `shift` rows and columns, cyclically: what leaves at
# the top comes back at the bottom, what leaves on the left on the right, so that the token at (shift, shift) comes first. Then it is cut into windows.
# Return (..., number of windows, window², dim): windows in reading order (row by row), and in each the tokens in reading order.
# ```

# %% tags=["ex:cut_windows", "ex-stub"]
def cut_windows(x, window, shift):
    raise NotImplementedError("replace this line")

# %% tags=["ex:cut_windows", "ex-check"]
check(cut_windows)

# %% tags=["ex:cut_windows", "ex-solution", "hide-cell"]
def cut_windows(x, window, shift):
    x = np.roll(x, (-shift, -shift), axis=(-3, -2))
    *lead, height, width, dim = x.shape
    rows, columns = height // window, width // window
    x = x.reshape(*lead, rows, window, columns, window, dim)
    x = x.swapaxes(-4, -3)  # (..., rows, columns, window, window, dim)
    return x.reshape(*lead, rows * columns, window**2, dim)


require(cut_windows)

# %% [markdown] tags=["ex:region_mask", "ex-prompt"]
# ```{exercise} Windows that were not one
# :label: ex-region-mask
# A Swin transformer {cite}`liu2021` moves a picture of `height` by `width` tokens up and to the left by `shift`, cyclically, before it cuts it into
# square windows of side `window`. In the last windows tokens then meet that lie at opposite ends of the picture. Write
# `region_mask(height, width, window, shift)`: a boolean array (number of windows, window², window²), True where two tokens of a window **may attend** to
# each other, that is where, on each axis, either both have come round from the other end or neither has. Windows follow each other in
# reading order (row by row), and so do the tokens of a window. `window` divides height and width; `shift` is from 0 to window − 1.
# ```


# %% tags=["ex:region_mask", "ex-stub"]
def region_mask(height, width, window, shift):
    raise NotImplementedError("replace this line")

# %% tags=["ex:region_mask", "ex-check"]
check(region_mask)

# %% tags=["ex:region_mask", "ex-solution", "hide-cell"]
def region_mask(height, width, window, shift):
    row, column = np.indices((height, width))  # places after the move
    region = 2 * (row >= height - shift) + (column >= width - shift)
    cut = region.reshape(height // window, window, width // window, window)
    cut = cut.swapaxes(1, 2).reshape(-1, window**2)  # one row per window
    return cut[:, :, None] == cut[:, None, :]


require(region_mask)

# %% [markdown] tags=["ex:span_weights", "ex-prompt"]
# ```{exercise} A window with a slope
# :label: ex-span-weights
# With an adaptive span {cite}`sukhbaatar2019` every head learns how far back it looks. A key at distance x before its query (0 for the query's own
# position) counts $m(x) = \min(1, \max(0, (R + z - x) / R))$: in full up to z, then less and less, and from z + R on not at all. Write
# `span_weights(scores, span, ramp)`: `scores` (..., heads, seq_q, seq_k), scaled already, `span` (heads,), one z ≥ 0 for each head, and the number
# `ramp` = R > 0. Queries are the last `seq_q` of the `seq_k` positions (there may be more queries than keys), and keys after a query do not
# count. Return the weights, of the shape of `scores`: $m_{ij}\, e^{s_{ij}} / \sum_j m_{ij}\, e^{s_{ij}}$, zeros in a row where nothing counts. Scores of
# ±10,000 must neither overflow nor leave a row 0/0, wherever the largest one stands.
# ```

# %% tags=["ex:span_weights", "ex-stub"]
def span_weights(scores, span, ramp):
    raise NotImplementedError("replace this line")

# %% tags=["ex:span_weights", "ex-check"]
check(span_weights)

# %% tags=["ex:span_weights", "ex-solution", "hide-cell"]
def span_weights(scores, span, ramp):
    seq_q, seq_k = scores.shape[-2:]
    distance = np.arange(seq_k - seq_q, seq_k)[:, None] - np.arange(seq_k)
    m = np.clip((ramp + span[:, None, None] - distance) / ramp, 0, 1)
    m = np.where(distance >= 0, m, 0)  # (heads, seq_q, seq_k)
    counted = np.where(m > 0, scores, -np.inf)
    top = counted.max(axis=-1, keepdims=True)
    powers = m * np.exp(counted - np.where(np.isfinite(top), top, 0))
    total = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(total > 0, total, 1)


require(span_weights)

# %% [markdown] tags=["ex:explore_second_moment", "ex-prompt", "ex-open"]
# ```{exercise} Explore: a better summary
# :label: ex-explore-second-moment
# A summary gets too little weight when the scores in its block differ. If they were spread like a normal distribution with variance $\sigma^2$, then $\tfrac1b\sum_j e^{s_j} \approx e^{\bar s + \sigma^2/2}$, and $\sigma^2 = q^\top C q / d$ with the
# covariance $C$ of the keys in the block. Add half of it to the score, at first with the whole of $C$, then with its diagonal only. Draw the error over block sizes for the three kinds of keys again. What happens to the needle, and why can no correction of the *weight* find it?
# ```

# %% [markdown]
# **Sources.** Shifted windows, their mask, bias and merging: {cite:t}`liu2021`. Two levels: {cite:t}`yang2021`, {cite:t}`zhu2021`, {cite:t}`yuan2025`; the logarithm of the count: {cite:t}`bolya2022`. Adaptive span: {cite:t}`sukhbaatar2019`.
