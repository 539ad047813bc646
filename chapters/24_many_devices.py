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
# # What if no single device can hold the text?
#
# Tiles made the memory of attention linear in the length (chapter 20). Linear is not nothing: keep what the layers of a large model need of a million tokens for the backward pass, and one device is not enough. In this chapter you cut the *text* into pieces, one for each device, and
# let the keys and values go round. Every device ends with its part of the result that one large device would have computed, the same but for rounding.
#
# :::{admonition} Before you start
# :class: note
# **You need** tiles, the log-sum-exp and `merge_partial` from chapter 20, and grouped heads from chapter 6. **You will build** ring attention, the zigzag order that keeps all devices busy, and a program that runs in several processes. **Time** about 45 minutes; the cells run in
# under half a minute, without a GPU. {numref}`fig-ring-rounds` is the chapter in one image.
# :::

# %%
import inspect
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from attnlib import costs, flash, ring
from attnlib.flash import flash_attention
from attnlib.plots import ring as plots
from attnlib.ring._rounds import Ring

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)

# %% [markdown]
# ## What fills a device?
#
# Take one attention layer of the size of Llama 3 8B {cite}`grattafiori2024`: 32 query heads, 8 key heads, 128 wide, two bytes a number; and a text of a million tokens ($2^{20}$: thousands and millions of tokens are powers of two here). Scores are never stored. How much memory do queries, keys, values and the result take?

# %%
HEADS, KV_HEADS, DIM_HEAD, MILLION = 32, 8, 128, 2**20


def layer_gib(seq):
    return (2 * HEADS + 2 * KV_HEADS) * DIM_HEAD * seq * 2 / 2**30  # q and out, k and v


for devices in (1, 8, 64):
    print(f"{devices:2} devices: {layer_gib(MILLION // devices):6.3f} GiB each for one layer, {32 * layer_gib(MILLION // devices):5.0f} for 32")

# %% [markdown]
# Twenty gibibytes for one layer. Training keeps them for every layer until the backward pass comes, 640 GiB in all, or has to compute them again; an H200 has 141 GB {cite}`nvidia2024`. Cut the text into 8 pieces, and each device holds an eighth. This is called *context parallelism*. Which parts of a Transformer block does such a cut disturb?
#
# :::{dropdown} Your prediction, then ours
# Attention alone. Projections, normalisations, the MLP and the loss treat each token by itself: forward, a device does them for the tokens it has, and needs to ask nobody. (Backward the gradients of the weights are summed over all devices, once a training step, as with any batch that is shared out.) In attention a query must meet *all* keys it may see, and most of these are elsewhere.
# :::
#
# ## Who has to travel?
#
# Chapter 20 ended with this: attention over some of the keys, as a pair of result and {term}`log-sum-exp`, is all that the rest needs to know. Two such pairs $(O_a, L_a)$ and $(O_b, L_b)$ merge into one, each result weighted by its sum of powers $e^{L}$:
#
# $$O = \frac{e^{L_a} O_a + e^{L_b} O_b}{e^{L_a} + e^{L_b}}, \qquad L = \log\left(e^{L_a} + e^{L_b}\right).$$
#
# That is `merge_partial`. So a device can attend to the keys it has, then to those of another device, and merge. Either the queries travel with their unfinished results, or the keys and values do. Which would you send?

# %%
tokens = MILLION // 8
unfinished = (DIM_HEAD + 1) * 4  # bytes of a result and its log-sum-exp: sums that go on are kept in float32
sent = {"keys and values": 2 * KV_HEADS * DIM_HEAD * 2, "queries, result, log-sum-exp": HEADS * (DIM_HEAD * 2 + unfinished)}
for what, bytes_per_token in sent.items():
    print(f"{what}: {bytes_per_token * tokens / 2**20:.0f} MiB a step")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Keys and values: grouped heads make them small, and they need no float32 sums beside them. (Where a long text is cached already and few new queries come, it is the other way round.)
# :::
#
# Let the devices, or *ranks*, stand in a ring. In every step each rank attends to the keys and values at hand, then passes them to the next rank and takes those of the rank before. After as many steps as there are ranks, every query has met every key. That is Ring Attention {cite}`liu2023b`.

# %% mystnb={"image": {"alt": "Four circles of four devices each, one circle a step. Each device keeps its own queries; the keys and values move on by one device from step to step, so that in step 3 each device holds those of its successor."}, "figure": {"caption": "Queries stay, keys and values go round. After four steps every query has met every key, and beside its own piece no device has held more than the one at hand and the one on its way.", "name": "fig-ring-rounds"}}
plots.rounds(4)
plt.show()

# %% [markdown]
# One process can play all ranks: lists take the place of devices, and turning a list by one is the message.

# %%
def ring_in_one_process(q, k, v):
    held, results = list(zip(k, v, strict=True)), [None] * len(q)
    for step in range(len(q)):
        for rank in range(len(q)):
            part = flash_attention(q[rank], *held[rank], return_lse=True)
            results[rank] = part if step == 0 else flash.merge_partial(*results[rank], *part)
        held = held[-1:] + held[:-1]                         # everybody passes on to the next
    return torch.cat([out for out, _ in results], dim=-2)

# %%
q, k, v = (draw(1, heads, 96, 16) for heads in (4, 2, 2))    # grouped heads
q_pieces, k_pieces, v_pieces = (x.chunk(4, dim=-2) for x in (q, k, v))
whole = flash_attention(q, k, v)
difference = (ring_in_one_process(q_pieces, k_pieces, v_pieces) - whole).abs().max()
print(f"four ranks agree with one device: {bool(difference < 1e-14)}")
assert difference < 1e-14  # sums of 96 numbers near 1 in float64

# %% [markdown]
# Rounding apart, this is the same function. Every rank meets the keys in another order (rank 2 in the order 2, 1, 0, 3), and merging does not mind.
#
# ### The mistake that looks right
#
# What if every step counted the same, and the four results were averaged? Each of them is a proper attention over a quarter of the keys.

# %%
quarters = [[flash_attention(mine, *theirs) for theirs in zip(k_pieces, v_pieces, strict=True)] for mine in q_pieces]
averaged = torch.cat([torch.stack(four).mean(dim=0) for four in quarters], dim=-2)
error = ((averaged - whole).norm() / whole.norm()).item()
print(f"averages differ from the result by {error:.2f} of its length")
assert error > 0.1

# %% [markdown]
# A piece of the text with larger scores deserves more of the weight: the share $e^{L}$ that its log-sum-exp stands for.
#
# ## A causal ring is half idle
#
# In a decoder a query sees no later token. With four ranks that hold the text in order, rank 0 has the beginning: after its own keys there is nothing more for it to see. How much time does the {term}`causal mask` save, if in each step all wait for the slowest? `costs.ring_steps` counts, step by step, the pairs of query and key that each rank has to compute: with 1024 tokens a rank, $1024^2 = 1{,}048{,}576$ against a piece that it sees whole, and $1024 \cdot 1025 / 2$ against its own.

# %%
in_order = costs.ring_steps(4096, 4, zigzag=False)
for step, scores in enumerate(in_order):
    print(f"step {step}: scores computed by each rank", scores)

# %%
def busy(steps):
    """The work that is done, over the work that all ranks could do while the slowest of each step is at it."""
    return sum(map(sum, steps)) / sum(len(each) * max(each) for each in steps)


spent = sum(max(each) for each in in_order) / (4 * 1024**2)
print(f"time against full attention: {spent:.3f}; share of time in which ranks are busy: {busy(in_order):.2f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Next to nothing: only the first step, where everybody is on the diagonal, gets shorter. Half of all scores are skipped, and the time saved is an eighth; with more ranks it is less still, and the busy share goes to a half. Striped Attention described this imbalance {cite}`brandon2023`.
# :::
#
# The way out: deal the text so that every rank has some of the beginning and some of the end. Cut it into twice as many stretches as ranks (`chunks` in code; the piece of a rank is two of them), and give rank $r$ the $r$-th from the front and the $r$-th from the end. This *zigzag* order was used to train Llama 3 {cite}`grattafiori2024`; Striped Attention deals tokens like
# cards instead {cite}`brandon2023`.

# %%
def chunks_of(rank, ranks, zigzag=True):
    return [rank, 2 * ranks - 1 - rank] if zigzag else [rank]


for rank in range(4):
    print(f"rank {rank} holds stretches {chunks_of(rank, 4)} of 0 to 7")

# %% [markdown]
# With tensors, there and back:

# %%
def zigzag_split(x, ranks, axis=-2):
    chunks = x.chunk(2 * ranks, axis)
    return [torch.cat([chunks[i] for i in chunks_of(rank, ranks)], axis) for rank in range(ranks)]


def zigzag_merge(pieces, axis=-2):
    halves = [piece.chunk(2, axis) for piece in pieces]
    return torch.cat([first for first, _ in halves] + [last for _, last in reversed(halves)], axis)


positions = torch.arange(16)
print([piece.tolist() for piece in zigzag_split(positions, 4, axis=0)])
assert torch.equal(zigzag_merge(zigzag_split(positions, 4, axis=0), axis=0), positions)

# %% [markdown]
# These three are `attnlib.ring.chunks_of`, `attnlib.ring.zigzag_split` and `attnlib.ring.zigzag_merge`. Everything that belongs to a token is dealt in the same way, *its position too*: rotary embeddings (chapter 7) must be given the numbers printed here, not 0 to 3 on every rank.
#
# A rank now has two stretches of queries, and meets two of keys. Which of the four pairs are there to compute, and where is a mask needed?

# %%
def chunk_pairs(mine, theirs, causal=True):
    pairs = [(i, j) for i in range(len(mine)) for j in range(len(theirs))]
    if not causal:
        return [(i, j, False) for i, j in pairs]
    return [(i, j, mine[i] == theirs[j]) for i, j in pairs if theirs[j] <= mine[i]]


for owner in (1, 0, 3, 2):                                   # as they come by at rank 1
    print(f"rank 1 meets keys of rank {owner}: pairs {chunk_pairs(chunks_of(1, 4), chunks_of(owner, 4))}")

# %% [markdown]
# This is `attnlib.ring.chunk_pairs`. In $(i, j)$ the $i$-th stretch of my two meets the $j$-th of theirs; `True` marks the diagonal. Except with its own keys a rank always has two of the four pairs to compute, and no mask at all: against an earlier rank both its stretches see the first of the two, against a later rank its last stretch sees both. Count.

# %%
zigzag = costs.ring_steps(4096, 4, zigzag=True)
for step, scores in enumerate(zigzag):
    print(f"step {step}: scores computed by each rank", scores)
taken = [sum(max(each) for each in steps) for steps in (in_order, zigzag)]
print(f"time against full attention: {taken[1] / (4 * 1024**2):.3f}, busy {busy(zigzag):.2f} of it; {taken[0] / taken[1]:.2f} times as fast")
assert sum(map(sum, zigzag)) == sum(map(sum, in_order)) == costs.causal_pairs(4096)

# %% mystnb={"image": {"alt": "Two triangles of tiles, coloured by the rank that computes them. In order, rank 0 has one half tile and rank 3 has three and a half; in zigzag every colour covers two bands, a shorter one and a longer one below it, with the same area in all."}, "figure": {"caption": "Who computes what, and in which step (the number in the tile). In order, the last rank has seven times the work of the first; in zigzag all have the same.", "name": "fig-ring-who"}}
plots.who_computes({"in order": [chunks_of(rank, 4, zigzag=False) for rank in range(4)], "zigzag": [chunks_of(rank, 4) for rank in range(4)]})
plt.show()

# %% [markdown]
# How far does this go? With more ranks the speedup approaches a limit. Which?

# %%
for ranks in (2, 4, 16, 64):
    slow, fast = (sum(max(each) for each in costs.ring_steps(2**16, ranks, zigzag=zigzag)) for zigzag in (False, True))
    print(f"{ranks:2} ranks: {slow / fast:.2f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Two: zigzag takes half the time of full attention, in order takes the whole of it, but for the first step. With few ranks the first step is a larger part. Computed, not measured: in practice transfers and kernels that are less efficient on small pieces take their share. Striped Attention reports up to 1.45 times the throughput of whole training steps at 256 thousand tokens, and 1.65 times at 786 thousand on 16 TPUs {cite}`brandon2023`.
# :::
#
# Do GPUs keep to such counts? Others have measured it, with heads as in our layer, eight ranks and 8192 tokens on each. First the count:

# %%
for name, zigzag_order in (("in order", False), ("zigzag", True)):
    print(f"{name:8}: busy {busy(costs.ring_steps(8 * 8192, 8, zigzag=zigzag_order)):.1%} of the time")

# %% [markdown]
# [ring-flash-attention](https://github.com/zhuzilin/ring-flash-attention/blob/01c8baf5eafc95c1a255690bcdb5359b600d765a/README.md) reports, for eight A100 GPUs, forward and backward, 52.5% of the speed that its kernel reaches without a ring if the text is in order, and 89.8% in zigzag; forward alone 51.4% and 81.7%.
# What the count leaves out, messages and smaller pieces among it, costs 1 to 2 percentage points in order and 10 to 18 in zigzag; why zigzag loses more, the page does not say. (Their figures, not ours.)
#
# ## Now with real processes
#
# The library's ring talks through `torch.distributed`. Its heart is a generator: it sends the keys and values at hand *before* it lets the caller compute with them, so that the next ones are under way meanwhile.

# %%
print(inspect.getsource(Ring.go_round))

# %% [markdown]
# `pass_on` starts to send to the next rank and to receive from the one before, and returns at once; `wait` gives what has come.
#
# A program for the ring is started as often as there are ranks, by `torchrun`, and each copy learns from environment variables (`RANK`, `WORLD_SIZE`) who it is. All copies execute the same lines; `rank` tells them apart. `gloo` is the library that carries messages between CPUs; on GPUs it becomes `nccl`, and each process first chooses a GPU of its own with `torch.cuda.set_device` and puts its tensors there. Three ranks, not two: in a ring of two the next is also the one before, and nobody would notice that a program sends the wrong way. (`ring.torchrun` writes the program to a file, runs `torchrun --standalone --nproc-per-node 3` on it (one machine, three processes), and ends it should it hang. `count_sent` counts the bytes that a rank sends. To check its part, every rank also computes the whole text alone, which no real program would.)

# %%
PROGRAM = """
import torch
import torch.distributed as dist
from attnlib.flash import flash_attention
from attnlib.ring import count_sent, ring_attention, zigzag_split

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, ranks = dist.get_rank(), dist.get_world_size()
generator = torch.Generator().manual_seed(0)
text = [torch.randn(1, heads, 480, 32, generator=generator, dtype=torch.float64) for heads in (4, 2, 2)]
mine = [zigzag_split(x, ranks)[rank].requires_grad_() for x in text]
with count_sent() as forward:
    out = ring_attention(*mine, causal=True)
with count_sent() as backward:
    gradients = torch.autograd.grad(out.square().sum(), mine)

whole = [x.requires_grad_() for x in text]
expected = flash_attention(*whole, causal=True)
expected = [expected, *torch.autograd.grad(expected.square().sum(), whole)]
error = max((a - zigzag_split(b, ranks)[rank]).abs().max().item() for a, b in zip([out, *gradients], expected))
lines = [None] * ranks
dist.all_gather_object(lines, f"{rank} {error} {forward['bytes']} {backward['bytes']}")
if rank == 0:
    print(*lines, sep="\\n", flush=True)                    # one process speaks for all
dist.destroy_process_group()
"""

# %%
found = [line.split() for line in ring.torchrun(PROGRAM, ranks=3).splitlines()]
for rank, error, *_ in found:
    print(f"rank {rank}: result and three gradients agree with one process: {float(error) < 1e-12}")
    assert float(error) < 1e-12  # sums of 480 numbers near 1 in float64

# %% [markdown]
# Three processes that see nothing of each other but messages, and the gradients are right too. How does the backward pass go?
#
# ## Backwards round the ring
#
# One could let autograd differentiate the merges. It would keep the partial result of every step, and with it the keys and values that came by: in the end every rank would hold those of the whole text. There is a better way, and chapter 20 has it already: with the log-sum-exp of the **whole** row, and $\delta$, for each row the dot product of its result with the result's gradient, every tile gives its own share of all gradients, independently of the others. A piece of keys from another device is nothing but a large tile:

# %%
def shares_of_gradients(q, d_out, lse, delta, k, v):          # d_out: the gradient that comes from above
    group, scale = q.shape[1] // k.shape[1], q.shape[-1] ** -0.5
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))   # for each query head
    weights = torch.exp(q @ k.mT * scale - lse.unsqueeze(-1))    # of the whole row: over this piece they sum to less than 1
    d_scores = weights * (d_out @ v.mT - delta) * scale
    d_k, d_v = (x.unflatten(1, (-1, group)).sum(2) for x in (d_scores.mT @ q, weights.mT @ d_out))
    return d_scores @ k, d_k, d_v

# %% [markdown]
# What each rank keeps is its own piece: queries, keys, values, result, and one number a row. So keys and values have to go round once more. And $\partial K$ and $\partial V$ of a piece are sums over the queries of *all* ranks: they follow their keys round the ring, every rank adds its share, and at the end they come home.

# %%
def ring_backward_in_one_process(rows, k, v):
    d_q = [torch.zeros_like(q) for q, *_ in rows]            # rows: (q, d_out, lse, delta) of each rank
    held = [(*piece, *(torch.zeros_like(x) for x in piece)) for piece in zip(k, v, strict=True)]
    for _ in rows:
        for rank, mine in enumerate(rows):
            k_now, v_now, *d_kv = held[rank]
            for total, share in zip((d_q[rank], *d_kv), shares_of_gradients(*mine, k_now, v_now), strict=True):
                total += share
        held = held[-1:] + held[:-1]                         # (k, v, d_k, d_v): gradients travel with their keys
    return [torch.cat(pieces, dim=-2) for pieces in (d_q, *list(zip(*held, strict=True))[2:])]

# %%
leaves = [x.clone().requires_grad_() for x in (q, k, v)]
d_out = draw(*whole.shape)
expected = torch.autograd.grad(flash_attention(*leaves), leaves, d_out)
lse = flash_attention(q, k, v, return_lse=True)[1]
delta = (d_out * whole).sum(-1, keepdim=True)
of_rank = list(zip(q_pieces, d_out.chunk(4, -2), lse.chunk(4, -1), delta.chunk(4, -2), strict=True))
for name, got, want in zip("qkv", ring_backward_in_one_process(of_rank, k_pieces, v_pieces), expected, strict=True):
    print(f"d_{name} agrees with one device: {bool((got - want).abs().max() < 1e-13)}")
    assert (got - want).abs().max() < 1e-13                  # sums of 96 numbers near 1 in float64

# %% [markdown]
# Here the sums go the whole way round. One message can be saved, and the library saves it: a rank keeps its own share at home, the sum starts at the next rank, and the two meet when it comes home. How many bytes does a rank send forward, and how many backward?

# %%
forward, backward = costs.ring_bytes(3, kv_heads=2, seq=480, dim_head=32, bytes_per_number=8, bytes_per_gradient=8)
print(f"by the formula: {forward} forward, {backward} backward")
for rank, _, sent_forward, sent_backward in found:
    print(f"rank {rank} sent: {sent_forward} forward, {sent_backward} backward")
    assert (int(sent_forward), int(sent_backward)) == (forward, backward)
half = costs.ring_bytes(3, kv_heads=2, seq=480, dim_head=32)
print(f"backward / forward: {backward // forward} in float64, {half[1] // half[0]} in bfloat16 with gradients in float32")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Forward each rank passes on all pieces of keys and values but one. Backward the same again, and as many numbers of gradients: twice as much, and with half-precision inputs three times, because sums that grow from rank to rank are kept in float32.
# :::
#
# ## Three ways to share a text
#
# The ring is not the only one. Take $R$ ranks and a text of $n$ tokens. **All-gather**: every rank collects all keys and values first, then computes alone. It sends the same number of bytes as the ring, and holds all $R$ pieces at once; in the ring a rank holds three, its own, the one at hand and the one on its way. Llama 3 did this all the same {cite}`grattafiori2024`: in its largest model, with 8 key heads for 128 query heads, the keys of a text are small beside its queries, and any mask can be applied once all keys are
# there. **All-to-all** (Ulysses): the ranks exchange queries, keys and values so that each has the *whole* text for *some heads*, computes alone, and exchanges the result back {cite}`jacobs2023`: of its own $n/R$ tokens each keeps one part in $R$ and sends the others, so $\frac{R-1}{R} \cdot \frac{n}{R} \cdot 2 (h + h_{kv}) d$ numbers for $h$ query heads, $h_{kv}$ key heads and a width of $d$. Under a causal mask all have the same work without any zigzag. What does each send, for 128 thousand tokens of our layer?

# %%
SEQ = 2**17
counts, table = [2, 4, 8, 16, 32], {}
for name, heads, kv_heads in (("32 key heads", 32, 32), ("8 key heads", 32, 8)):
    table[f"ring, {name}"] = [costs.ring_bytes(ranks, kv_heads, SEQ, DIM_HEAD)[0] / 2**20 for ranks in counts]
    table[f"all-to-all, {name}"] = [costs.ulysses_bytes(ranks, heads, SEQ, DIM_HEAD, kv_heads)[0] / 2**20 if kv_heads % ranks == 0
                                    else float("nan") for ranks in counts]
print(f"{'MiB, by devices':26}", *(f"{ranks:7}" for ranks in counts))
for name, values in table.items():
    print(f"{name:26}", *(f"{value:7.0f}" for value in values))

# %% mystnb={"image": {"alt": "MiB sent by each device against the number of devices, both axes logarithmic. The two ring lines rise to nearly twice their first value and flatten; the two all-to-all lines fall steadily, the one with 8 key heads ends at 8 devices."}, "figure": {"caption": "Bytes sent by each device, forward, one layer. Round the ring their number grows towards that of all keys and values; all-to-all sends less the more devices there are, until the heads run out.", "name": "fig-ring-traffic"}}
plots.traffic(counts, table)
plt.show()

# %% [markdown]
# Round the ring each device sends $(R - 1)/R$ of all keys and values: more devices do not make it less. All-to-all sends its own tokens once, and so becomes cheaper with every device; but it needs a key head for each (or copies of them): hence the `nan`, and the line that ends at 8. The two can be combined, all-to-all within a machine and a ring between machines {cite}`fang2024`. And where few new tokens meet a long cache that lies spread over the devices, the *queries* go round, which are fewer {cite}`yang2024c`. And bytes are not time: the ring's messages can hide behind computation.
#
# ## When does the ring cost nothing?
#
# In a step a rank with $c$ tokens, $h$ query heads and $h_{kv}$ key heads computes $4 c^2 d$ FLOPs a query head (two products, each $2 c^2 d$) and sends $2 c d$ numbers a key head (keys and values). Both grow with $c$, the one with its square. From some length on, the message has arrived before it is needed. With $F$ FLOPs and $B$ bytes a second and two bytes a number:
#
# $$\frac{4 c^2 d\, h}{F} \ge \frac{4 c\, d\, h_{kv}}{B} \quad\Longleftrightarrow\quad c \ge \frac{F}{B} \cdot \frac{h_{kv}}{h} .$$
#
# The paper has this condition for $h_{kv} = h$ {cite}`liu2023b`. Take an A100 by its maker's figures: 312 TFLOP/s in bfloat16, 300 GB/s each way to the GPUs of the same machine, and a link of 12.5 GB/s (100 Gbit/s) to others. How many tokens must each device have, forward?

# %%
def least_tokens(flops, bytes_per_second, heads, kv_heads, causal):
    return (1 + causal) * flops / bytes_per_second * kv_heads / heads


for link, speed in (("in one machine", 300e9), ("between machines", 12.5e9)):
    full, grouped, causal = (least_tokens(312e12, speed, *each) for each in ((32, 32, False), (32, 8, False), (32, 8, True)))
    print(f"{link:16}: {full:7.0f}, with 8 key heads for 32 {grouped:6.0f}, and causal in zigzag {causal:6.0f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# About a thousand within a machine and 25 thousand between machines. Grouped heads divide it by four; a causal mask doubles it, because half of the computation is gone and none of the bytes. All from peak rates: a kernel that reaches half of its peak hides its messages behind half as many tokens, and a link that reaches half of its own needs twice as many. Backward a step takes 5 products instead of 2 and, with gradients in float32, three times the bytes: 6/5 as many tokens. The eight A100 above had 8192 tokens each, far more than the 520 that this asks for inside one machine, and yet 10 to 18 points were missing in zigzag: the condition says when messages *can* hide, not that everything else is free.
# :::
#
# This is arithmetic with the maker's figures. On several GPUs this book's ring **has been neither run nor measured yet**. What follows was measured.
#
# ## What four processes on one computer show
#
# Not speed: they share two cores, and their "network" is memory. Errors and bytes do not depend on that, and the CPU time of each rank's own thread hardly does. They are recorded (`python -m tools.record_ring`): 8192 tokens, 4 heads over 2 key heads, 64 wide, float32, causal.

# %%
record = json.loads(Path("data/24_ring.json").read_text())
runs = {(run["ranks"], run["placement"]): run for run in record["runs"]}
print(record["device"])
for (ranks, placement), run in runs.items():
    multiple = max(a / b for a, b in zip(run["errors"], record["pytorch_errors"], strict=True))
    print(f"{ranks} process(es), {placement:8}: error of result and gradients at most {multiple:.1f} times PyTorch's own in one process")
    assert multiple < 2

# %%
sizes = record["sizes"]
for (ranks, _), run in runs.items():
    formula = costs.ring_bytes(ranks, sizes["kv_heads"], sizes["seq"], sizes["dim_head"], bytes_per_number=4)
    assert all((each["bytes_forward"], each["bytes_backward"]) == formula for each in run["of_rank"])
print("every rank of every run sent what the formula says")

# %% [markdown]
# And the work? Add up the columns of the counts in order, further up: 1 : 3 : 5 : 7 for four ranks.

# %%
def seconds(placement):
    return [each["cpu_seconds_forward"] for each in runs[4, placement]["of_rank"]]


alone, uncut = (runs[1, name]["of_rank"][0]["cpu_seconds_forward"] for name in ("zigzag", "in order"))
shares = {name: [sum(each) / costs.causal_pairs(8192) for each in zip(*costs.ring_steps(8192, 4, zigzag=name == "zigzag"), strict=True)]
          for name in ("in order", "zigzag")}
for name in shares:
    print(f"{name:8}:", *(f"{each:.2f}" for each in seconds(name)), "s")
both = [max(seconds(name)) for name in shares]
print(f"one process alone: {alone:.2f} s if it cuts the text in two as zigzag does, {uncut:.2f} s if not; slowest of four, in order / zigzag: {both[0] / both[1]:.1f} (by scores {taken[0] / taken[1]:.2f})")
assert max(seconds("in order")) > 4 * min(seconds("in order")) and max(seconds("zigzag")) < 1.2 * min(seconds("zigzag"))

# %% mystnb={"image": {"alt": "Bars of CPU seconds for four ranks. In order they rise from 0.06 to 0.29; in zigzag all four stand near 0.18. Black marks, the shares that the count of scores predicts, lie close to the tops of the bars."}, "figure": {"caption": "Four processes, 8192 tokens. Marks: the share of all scores that a rank computes, times the seconds of one process alone, with two stretches. In zigzag all ranks have the same to do.", "name": "fig-ring-work"}}
plots.work({name: seconds(name) for name in shares}, {name: [share * alone for share in each] for name, each in shares.items()})
plt.show()

# %% [markdown]
# The slowest rank sets the pace: 0.29 s in order, 0.18 s in zigzag. That is 1.6 times as fast, where the scores say 1.75. Rank 0 lies above its mark: all its work is on the diagonal, where tiles are computed whole, the scores that the mask then drops included.
#
# ## What to remember
#
# | claim | true? | what showed it |
# |---|---|---|
# | a text must fit into one device for exact attention | no: pieces merge by their log-sum-exp | four ranks, one result |
# | partial results are averaged | weighted by $e^{\text{lse}}$ | the average is off |
# | a causal mask halves the time of a ring | only if the work is dealt evenly: zigzag | scores a step, CPU seconds |
# | the backward pass differentiates the merges | no: every piece gives its share, with the whole row's log-sum-exp | a ring of gradients, three processes |
# | the ring sends less than an all-gather | as much; it *holds* less, and hides it | `costs.ring_bytes` |
# | messages are free | from $c \ge (F/B)(h_{kv}/h)$ tokens a device on | the maker's figures |
#
# **In practice.** [Megatron-LM](https://docs.nvidia.com/megatron-core/developer-guide/latest/apidocs/core/core.ssm.mamba_context_parallel.html) and PyTorch's `context_parallel` (in `torch.distributed.tensor.experimental`) split a text in zigzag as here; Llama 3 trained with an all-gather of keys and values in place of the ring {cite}`grattafiori2024`. PyTorch's `context_parallel`, still called experimental, gathers by default and can pass round instead. The local step is a fused kernel in all of them; the ring needs one that returns the log-sum-exp.
#
# **Shortcut taken here.** A step is computed with the torch tiles of chapter 20, and one process group does everything. Real programs combine this cut with others (of weights, of layers, of the batch), and pack several documents into one text, which unbalances the zigzag again.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Decide whether queries or keys should travel, from the heads and the bytes of each.
# - Count the scores of every rank in every step of a causal ring, and deal a text so that all have equally many.
# - Merge what came from several devices, and say why their average is wrong.
# - Send gradients round the ring with their keys, and compute the bytes that a device sends forward and backward.
# - Find the number of tokens per device from which messages can hide behind the computation.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:merge_round", "ex-prompt"]
# ```{exercise} All parts at once
# :label: ex-merge-round
# A device has met the keys of all `ranks` devices, and kept what it computed with each: `outs` (ranks, ..., seq_q, dim_v), the finished
# results of softmax attention over the keys of one device, already divided, and `lses` (ranks, ..., seq_q), for each query the logarithm of
# the sum of exp(score) over the keys of that device. Write `merge_round(outs, lses)`, which merges all of them at once and returns
# `(out, lse)`, (..., seq_q, dim_v) and (..., seq_q), as they would be for all keys together. An lse may be 10,000 or −10,000. Under a causal mask
# a query sees no key of some devices: there `lses` is $-\infty$ and `outs` zeros, and they must not count. A query that sees no key of any
# device gets $-\infty$ and zeros. (NumPy; the inputs stay as they are.)
# ```

# %% tags=["ex:merge_round", "ex-stub"]
def merge_round(outs, lses):
    raise NotImplementedError("replace this line")

# %% tags=["ex:merge_round", "ex-check"]
check(merge_round)

# %% tags=["ex:merge_round", "ex-solution", "hide-cell"]
def merge_round(outs, lses):
    top = lses.max(axis=0)  # (..., seq_q)
    shift = np.where(np.isneginf(top), 0, top)  # nobody saw a key
    powers = np.exp(lses - shift)  # (ranks, ..., seq_q)
    total = powers.sum(axis=0)
    shares = powers / np.where(total == 0, 1, total)
    with np.errstate(divide="ignore"):
        return (shares[..., None] * outs).sum(axis=0), shift + np.log(total)


require(merge_round)

# %% [markdown] tags=["ex:zigzag_tokens", "ex-prompt"]
# ```{exercise} Deal a text in zigzag
# :label: ex-zigzag-tokens
# `ranks` devices share a text of `seq` tokens for causal attention. So that all have the same work, the text is cut into
# 2 · `ranks` stretches of equal length, and device number `rank`, counted from 0, holds two of them: the one that is `rank` stretches
# from the beginning, and the one that is `rank` stretches from the end {cite}`grattafiori2024`. Write `zigzag_tokens(rank, ranks, seq)`,
# which returns the positions of its tokens in the text, in ascending order, as an array of ints (seq / ranks,). 2 · `ranks` divides `seq`.
# (Rotary embeddings of this device need exactly these numbers.)
# ```

# %% tags=["ex:zigzag_tokens", "ex-stub"]
def zigzag_tokens(rank, ranks, seq):
    raise NotImplementedError("replace this line")

# %% tags=["ex:zigzag_tokens", "ex-check"]
check(zigzag_tokens)

# %% tags=["ex:zigzag_tokens", "ex-solution", "hide-cell"]
def zigzag_tokens(rank, ranks, seq):
    stretches = np.arange(seq).reshape(2 * ranks, -1)  # one a row
    return np.concatenate([stretches[rank], stretches[2 * ranks - 1 - rank]])


require(zigzag_tokens)

# %% [markdown] tags=["ex:bytes_sent", "ex-prompt"]
# ```{exercise} What goes round the ring
# :label: ex-bytes-sent
# In ring attention `ranks` devices share a text of `seq` tokens evenly {cite}`liu2023b`. Forward, the keys and values of every device travel
# round the ring until every other device has had them. Backward they travel once more, and the gradients of keys and of values too: they start
# at the first device after their owner, gather the share of every other device, and go home at the end. Write
# `bytes_sent(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient)`, which returns `(forward, backward)`: the bytes that **one**
# device sends for one layer and one sequence, as exact Python ints. Keys and values have `kv_heads` heads of width `dim_head` and numbers of
# `bytes_per_number` bytes, their gradients numbers of `bytes_per_gradient` bytes. `ranks` divides `seq`; one device alone sends nothing.
# ```

# %% tags=["ex:bytes_sent", "ex-stub"]
def bytes_sent(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    raise NotImplementedError("replace this line")

# %% tags=["ex:bytes_sent", "ex-check"]
check(bytes_sent)

# %% tags=["ex:bytes_sent", "ex-solution", "hide-cell"]
def bytes_sent(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    piece = 2 * kv_heads * (seq // ranks) * dim_head  # keys and values of one device
    numbers = (ranks - 1) * piece                     # every piece but one comes by
    return numbers * bytes_per_number, numbers * (bytes_per_number + bytes_per_gradient)


require(bytes_sent)

# %% [markdown] tags=["ex:explore_stripes", "ex-prompt", "ex-open"]
# ```{exercise} Explore: stripes
# :label: ex-explore-stripes
# Striped Attention gives rank $r$ the tokens $r$, $r + R$, $r + 2R$ and so on {cite}`brandon2023`. Which mask does a rank need against the keys of an earlier rank, and which against those of a later one? Write it down for $R = 2$ and 8 tokens, count the scores of each rank in each step, and compare with zigzag: which of the two is balanced exactly?
# ```

# %% [markdown]
# **Sources.** The ring: {cite:t}`liu2023b`; its imbalance under a causal mask, and stripes: {cite:t}`brandon2023`; zigzag and all-gather at scale: {cite:t}`grattafiori2024`; all-to-all: {cite:t}`jacobs2023`; the backward pass of a tile: {cite:t}`dao2023`.
