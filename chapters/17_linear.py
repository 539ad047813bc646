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
# # What if the memory had a fixed size?
#
# Attention keeps every key and every value, and every query looks at all of them. In this chapter you take the exponential out of
# softmax. Then the past can be summed up in one matrix, the {term}`state`, whose size does not depend on how much has been read. You build
# {term}`linear attention` in its three forms, find out what the sum forgets, and repair some of it, with gates and with the {term}`delta rule`.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapters 4 and 5 (softmax, attention), [chapter 1](01_why_attention.ipynb)'s recall task, and a little PyTorch: from here on we use its tensors, gradients and
# modules. **You will build** feature maps, a causal linear attention that is many times faster than softmax attention on long sequences, a state
# that fades and a state that can be overwritten. **Time** about 90 minutes, with a good place for a break before *What does a sum forget?*; the cells run in half a
# minute. {numref}`fig-linear-times` shows what is bought, {numref}`fig-linear-recall` what is paid.
# :::

# %%
import functools
import json

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from attnlib import costs, measure
from attnlib.data import real_head
from attnlib.plots import linear as plots

torch.set_num_threads(1)
torch.set_printoptions(precision=3, sci_mode=False)
rng = torch.Generator().manual_seed(0)


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=rng, dtype=dtype)

# %% [markdown]
# ## What stands in the way?
#
# Leave softmax out for a moment. Then attention is a product of three matrices, and a product may be bracketed as you like:
#
# $$(Q K^\top)\, V = Q\, (K^\top V)$$
#
# On the left stands a table of all pairs of tokens, on the right a small matrix between them. Both give the same. (`.mT` below transposes the last two axes.) What do they cost, for 2048 tokens of width 64? (An $a \times b$ matrix times a $b \times c$ matrix takes $2abc$ operations.)

# %%
n, d = 2048, 64
q, k, v = draw(n, d), draw(n, d), draw(n, d)
assert torch.allclose((q @ k.mT) @ v, q @ (k.mT @ v))

# %%
pairs_first = measure.flops(lambda: (q @ k.mT) @ v)
state_first = measure.flops(lambda: q @ (k.mT @ v))
assert pairs_first == 4 * n**2 * d
assert state_first == 4 * n * d**2
print(f"{pairs_first / 1e9:.2f} GFLOP against {state_first / 1e9:.3f}:",
      f"{pairs_first / state_first:.0f} times")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# $4n^2d$ against $4nd^2$ operations: $n/d = 32$ times fewer, and the advantage doubles with the length.
# :::
#
# What stands in the way is softmax. The weight of key $j$ for query $i$ is $e^{q_i \cdot k_j / \sqrt d}$ over the row's sum, and an
# exponential of a product cannot be bracketed anew: $q_i$ and $k_j$ are locked in together. It would be unlocked by a function $\phi$, a {term}`feature map`, with
#
# $$\phi(q) \cdot \phi(k) = e^{q \cdot k / \sqrt d}.$$
#
# No finite number of features does this exactly: the exponential's series never ends. {cite:t}`katharopoulos2020` turn the
# question around. Any $\phi$ with positive products gives *some* attention, with weights that are positive and can be made to sum to 1:
#
# $$A_{ij} = \frac{\phi(q_i) \cdot \phi(k_j)}{\sum_m \phi(q_i) \cdot \phi(k_m)}$$
#
# They take $\phi(x) = \operatorname{elu}(x) + 1$, number by number: $x + 1$ where $x$ is positive, $e^x$ elsewhere. As many features as dimensions, and never negative.
#
# ## The formula as it stands
#
# PyTorch has `F.elu`, so the map is one line. Which of these four numbers will be wrong?

# %%
def elu_plus_one_literal(x):
    return F.elu(x) + 1


x = torch.tensor([2.0, 0.0, -5.0, -20.0])
print("literal:", elu_plus_one_literal(x).tolist())
print("e^-20  :", x[-1].exp().item())

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The last. $\operatorname{elu}(-20) = e^{-20} - 1$ is $-1$ to the last digit of float32, so adding 1 leaves **exactly zero**: the digits of $e^x$ were rounded away before the 1 came back.
# :::
#
# Does it matter? Look at a query whose coordinates are all strongly negative:

# %%
shy = torch.full((1, 4), -20.0)              # a query
some_k = draw(3, 4, dtype=torch.float32)
raw = elu_plus_one_literal(shy) @ elu_plus_one_literal(some_k).mT  # (1, 3)
print("weights:", (raw / raw.sum(dim=-1, keepdim=True)).tolist())
assert raw.sum() == 0                        # 0 / 0

# %% [markdown]
# *Not a number*, and the layers that follow spread it. (Many implementations are written this way, some with a small number added to the denominator, which turns NaN into zeros; models whose queries stay near zero never notice.) Keep the two branches apart, and nothing is lost:

# %%
def elu_plus_one(x):
    return x.clamp(max=0).exp() + x.relu()


print(elu_plus_one(x))
raw = elu_plus_one(shy) @ elu_plus_one(some_k).mT
print("weights:", raw / raw.sum(dim=-1, keepdim=True))
assert torch.allclose(elu_plus_one(x), torch.where(x > 0, x + 1, x.exp()))

# %% [markdown]
# ## Is it still attention?
#
# The weights are positive and sum to 1, so it is a weighted mean of values. Is it *the same* weighted mean? The book's pretrained heads were trained with softmax. Give one of
# them, *it* looking for its noun, the other weights. By hand first:

# %%
def linear_weights(q, k, feature_map):
    raw = feature_map(q) @ feature_map(k).mT   # (seq_q, seq_k)
    return raw / raw.sum(dim=-1, keepdim=True)


def inside(name):
    head = real_head(name)
    q, k = head.x @ head.w_q + head.b_q, head.x @ head.w_k + head.b_k
    parts = (torch.tensor(each).double() for each in (q, k, head.weights))
    return head.tokens, *parts  # (seq,), (seq, dim_head) twice, (seq, seq)


tokens, head_q, head_k, softmax_weights = inside("pronoun")
it, animal = tokens.index("it"), tokens.index("animal")

# %% [markdown]
# For softmax, *it* puts 0.64 of its weight on *animal*. How much, do you think, with $\operatorname{elu} + 1$?

# %%
by_elu = linear_weights(head_q, head_k, elu_plus_one)
print(f"it -> animal: softmax {softmax_weights[it, animal]:.2f},",
      f"elu + 1 {by_elu[it, animal]:.2f}, equal shares {1 / len(tokens):.2f}")
assert by_elu[it, animal] < 0.2

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Little more than an equal share. The exponential turns a *lead* in the score into a *factor* in the weight; a product of these features grows at most like the product of the lengths of $q$ and $k$. The head's queries
# and keys were made for the exponential. A model trained with $\phi$ from the start learns other ones; but "replace softmax by something linear" is not a change one makes to a finished model for free.
# :::
#
# Can a better $\phi$ come closer? Two answers. The exponential's series, cut after the square, needs a constant, the coordinates and their products: $1 + d + d^2$ features {cite}`arora2024`.

# %%
def taylor_features(x):
    x = x / x.shape[-1] ** 0.25
    squares = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) / 2**0.5
    return torch.cat([torch.ones_like(x[..., :1]), x, squares], dim=-1)


s = head_q @ head_k.mT / 32**0.5                     # the scores
products = taylor_features(head_q) @ taylor_features(head_k).mT
assert torch.allclose(products, 1 + s + s**2 / 2)    # never below 1/2
print(taylor_features(head_q).shape[-1], "features")

# %% [markdown]
# The other is chance. For Gaussian directions $w$, the mean of $e^{w \cdot x - |x|^2/2}\, e^{w \cdot y - |y|^2/2}$ is exactly $e^{x \cdot y}$. So a number of random directions gives
# positive features whose products are right *on average*, the Performer's {cite}`choromanski2020`. Directions that are perpendicular to one another, in groups of $d$, err less than independent ones.

# %%
from attnlib.linear import random_directions


def positive_random_features(x, directions):
    x = x / x.shape[-1] ** 0.25
    exponents = x @ directions.mT - x.square().sum(dim=-1, keepdim=True) / 2
    return exponents.exp() / len(directions) ** 0.5


directions = random_directions(64, 32).double()      # (features, dim_head)
group = directions[:32] / directions[:32].norm(dim=-1, keepdim=True)
assert torch.allclose(group @ group.mT, torch.eye(32).double(), atol=1e-6)

# %% [markdown]
# From here on the three maps are `attnlib.linear.elu_plus_one`, `attnlib.linear.taylor_features` and `attnlib.linear.positive_random_features`. How far are the weights from the head's own? We
# count the share of weight that lies in the wrong place, half the sum of the differences of a row, on average over rows: 0 is perfect, 1 the worst.

# %%
def misplaced(weights, truth):
    return ((weights - truth).abs().sum(dim=-1) / 2).mean().item()


def by_chance(q, k, features, seed):
    w = random_directions(features, 32, seed).double()
    return linear_weights(q, k, lambda x: positive_random_features(x, w))


sizes = [16, 64, 256, 1024, 4096]
fixed, chance, spectra, largest = {}, {}, {}, {}
for name in ("same_word", "pronoun", "previous"):
    _, q, k, truth = inside(name)
    maps = {"elu + 1": elu_plus_one, "Taylor": taylor_features}
    fixed[name] = {label: misplaced(linear_weights(q, k, phi), truth)
                   for label, phi in maps.items()}
    chance[name] = [sum(misplaced(by_chance(q, k, m, seed), truth)
                        for seed in range(5)) / 5 for m in sizes]
    spectra[name] = torch.linalg.svdvals(truth).numpy()
    largest[name] = (q @ k.mT / 32**0.5).abs().max().item()

# %%
print(" " * 20, "elu  Taylor   random, features:")
print(" " * 20, f"{32:3}   {1057}  ", *(f"{m:5}" for m in sizes))
for name in fixed:
    elu, taylor = fixed[name].values()
    shares = " ".join(f"{share:5.2f}" for share in chance[name])
    print(f"{name:9} |s| < {largest[name]:2.0f}",
          f"{elu:5.2f} {taylor:6.2f}  {shares}")

# %% [markdown]
# `elu + 1` is far off everywhere. Thousands of random features, for a head 32 wide, still misplace a quarter to a half of the weight. With enough features the error falls with the root of their number. But how many are *enough* can grow exponentially with the squared length of queries and keys, and these heads are not there yet. The Taylor map
# does best where the scores $s$ are small, and fails where they are not: its $1 + s + s^2/2$ is no exponential at 20.
# "Linear attention approximates softmax" is true of soft heads and many features. It is safer to think of it as a layer of its own.
#
# ## How many features would it take?
#
# There is a floor under all of this, whatever the map. A table of products of $F$ features is a product of an $N \times F$ and an $F \times M$ matrix: its **rank is at most $F$**, and dividing rows by their sums does not change the rank. Softmax has no such bound (here without a mask, every query sees every key):

# %%
long_q, long_k = draw(300, 8), draw(300, 8)
soft = torch.softmax(4 * long_q @ long_k.mT / 8**0.5, dim=-1)
flat = linear_weights(long_q, long_k, elu_plus_one)
rank = torch.linalg.matrix_rank
for name, weights in (("softmax", soft), ("elu + 1", flat)):
    print(f"{name}: 300 tokens, width 8, rank {rank(weights).item()}")
assert rank(flat) <= 8 < rank(soft)

# %% [markdown]
# Which of the three heads above needs a high rank? The singular values of its weights tell: the best table of rank $F$, in squared error, keeps the $F$ largest and loses the rest. A head whose values fall fast needs few features.

# %% mystnb={"image": {"alt": "Left: 15 singular values of three heads' weights. Those of “previous” stay near 1 almost to the last; those of “pronoun” and “same_word” fall quickly. Right: weight in the wrong place against the number of random features, 16 to 4096 on a logarithmic axis; all three fall slowly, “previous” from nearly 0.8 to about a half, the others to about 0.3; crosses at 32 features mark elu + 1, far off for all three; stars at 1057 features mark the Taylor map, which is lowest for “same_word” and highest for “previous”."}, "figure": {"caption": "Left: a head that looks one token to the left is nearly a permutation, and a map needs about as many features as there are tokens to hold it. Right: what three feature maps make of the same heads (crosses: elu + 1, at 32 features).", "name": "fig-linear-rank"}}
plots.features_needed(spectra, sizes, chance, fixed, taylor=1057)
plt.show()

# %% [markdown]
# *Every token looks one to the left* is the simplest pattern there is, and the one with the highest rank: nearly all its singular values are 1. On 15 tokens 32 features suffice in principle; on a thousand tokens they cannot, whoever chooses them. (A model
# can still look one to the left, with a short convolution or a {term}`window`.)
#
# These heads see in both directions. What if a {term}`causal mask` cuts off the upper triangle? Will the rank still be at most 8?

# %%
triangle = (elu_plus_one(long_q) @ elu_plus_one(long_k).mT).tril()
print("whole triangle: rank", rank(triangle).item())
for border in (20, 150, 280):
    block = triangle[border:, :border]           # later queries, earlier keys
    print(f"across token {border}: rank {rank(block).item()}")
    assert rank(block) <= 8 < rank(triangle)

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# No: cutting comes after the product and makes the rank as high as it likes. What stays bounded is everything that crosses a border. Take any token; what *later* queries see of *earlier* keys has rank 8 at most. The past reaches the future through a door as wide as the features, and the next section shows the door itself.
# :::
#
# ## Token by token
#
# Now the gain. Let query $i$ see the tokens up to itself. In the *quadratic form* that is a triangle of products (`.tril()` sets everything above the diagonal to 0):

# %%
def quadratic(q, k, v):
    raw = (elu_plus_one(q) @ elu_plus_one(k).mT).tril()  # (seq, seq)
    return raw @ v / raw.sum(dim=-1, keepdim=True)

# %% [markdown]
# But the query can be pulled out of the sum over what it sees:
#
# $$O_i = \frac{\sum_{j \le i} \phi(q_i) \cdot \phi(k_j)\, v_j}{\sum_{j \le i} \phi(q_i) \cdot \phi(k_j)}
# = \frac{\phi(q_i)\, S_i}{\phi(q_i) \cdot z_i}, \qquad S_i = \sum_{j \le i} \phi(k_j)^\top v_j, \quad z_i = \sum_{j \le i} \phi(k_j).$$
#
# Vectors are rows, so $\phi(k)^\top v$ is an outer product: $S_i$ is a matrix of features by values, $z_i$ a vector, and both are sums that the next token continues. Attention has become a recurrent network {cite}`katharopoulos2020`.

# %%
def recurrent(q, k, v):
    q, k = elu_plus_one(q), elu_plus_one(k)
    state = torch.zeros(k.shape[-1], v.shape[-1]).to(v)  # S
    total = torch.zeros(k.shape[-1]).to(v)               # z
    rows = []
    for q_i, k_i, v_i in zip(q, k, v, strict=True):
        state = state + torch.outer(k_i, v_i)
        total = total + k_i
        rows.append(q_i @ state / (q_i @ total))
    return torch.stack(rows)

# %%
q, k, v = draw(200, 16), draw(200, 16), draw(200, 16)
truth = quadratic(q, k, v)
assert torch.allclose(recurrent(q, k, v), truth, rtol=0, atol=1e-12)

# %% [markdown]
# Look at the loop as if it trained something. $S$ is a matrix of weights; each token changes it by an outer product, and a query is run through it. {cite:t}`schlag2021` recall an idea of the early 1990s: one network, slow,
# *programs* the weights of another, fast, while it reads. In chapter 1 you wrote this state by hand.
#
# How much is kept? A {term}`KV cache` grows by a key and a value per token; the state has $d \cdot d_v$ numbers and $d$ for the total, from the first token to the last. After how many tokens is the cache larger, at $d = d_v = 64$?

# %%
state_size = 64 * 64 + 64
lengths = [2**i for i in range(17)]
cache = [costs.kv_cache_bytes(1, 1, 64, n, bytes_per_number=1)
         for n in lengths]                           # bytes of 1: numbers
crossing = state_size / (2 * 64)
print(f"the cache passes the state at {crossing:.1f} tokens; after",
      f"{lengths[-1]} it is {cache[-1] / state_size:.0f} times as large")

# %% mystnb={"image": {"alt": "Numbers kept per head over tokens read, both logarithmic. The cache of keys and values is a straight line that rises from about a hundred at one token to over eight million at 65,536. The state is a level line at 4160. They cross at about 32 tokens."}, "figure": {"caption": "What has to be kept to go on reading. The state is larger than the cache only for the first few dozen tokens.", "name": "fig-linear-kept"}}
both = {"keys and values": cache, "state": [state_size] * len(lengths)}
plots.kept(lengths, both, crossing)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# After $(d + 1)/2$ tokens: 33. A *long* context for a head of width 64 begins with the second sentence.
# :::
#
# ## Neither one nor all
#
# The recurrence does the fewest operations, and it is slow: thousands of tiny steps, each waiting for the last. The quadratic form is one large product, and it does too much. Between them lies a third
# form. Cut the sequence into *chunks*. Inside a chunk, use the triangle; for everything before it, use the state.
#
# Two habits make it short. $\phi$ is applied outside, so `q` and `k` are features here. And the total needs no lines of its own: give every token one value more, *always 1*. In the result this extra column is the sum of the weights, and the last line of `chunked` divides by it.

# %%
def linear_chunk(q, k, v, state):
    scores = (q @ k.mT).tril()  # inside the chunk
    return q @ state + scores @ v, state + k.mT @ v

# %% [markdown]
# The state walks from chunk to chunk:

# %%
def in_chunks(step, state, chunk, *sequences):
    outs = []
    cut = (each.split(chunk, dim=-2) for each in sequences)
    for parts in zip(*cut, strict=True):
        out, state = step(*parts, state)
        outs.append(out)
    return torch.cat(outs, dim=-2), state

# %%
def chunked(q, k, v, chunk):
    q, k, v = elu_plus_one(q), elu_plus_one(k), F.pad(v, (0, 1), value=1.0)
    state = torch.zeros(q.shape[-1], v.shape[-1]).to(v)
    out, _ = in_chunks(linear_chunk, state, chunk, q, k, v)
    return out[..., :-1] / out[..., -1:]

# %% [markdown]
# What is a chunk of one token? And one as long as the sequence?

# %%
for chunk in (1, 7, 64, 200):  # 7 and 64 do not divide 200
    assert torch.allclose(chunked(q, k, v, chunk), truth, rtol=0, atol=1e-12)

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# One token: the recurrence. All tokens: the quadratic form. One function holds all three, and gives the same for each.
# :::
#
# Per token and head a chunk of $C$ costs $4Cd$ operations inside (the whole square is computed, `.tril()` throws half away) and $4d^2$ with the state: the fewest at $C = 1$. Which $C$ is fastest? Eight heads, 2048 tokens, in float32:

# %% tags=["nbval-ignore-output"]
wide = [draw(8, 2048, 64, dtype=torch.float32) for _ in range(3)]  # q, k, v
empty = torch.zeros(64, 64)
chunks = [1, 4, 16, 64, 256, 1024, 2048]
runs = {str(c): functools.partial(in_chunks, linear_chunk, empty, c, *wide)
        for c in chunks}
gflop = torch.tensor([measure.flops(run) / 1e9 for run in runs.values()])
spent = measure.medians(measure.cpu_times(runs, repeats=3))
spent = torch.tensor([spent[str(c)] for c in chunks])
print("GFLOP", gflop, "\nms   ", 1000 * spent)
assert gflop.argmin() == 0

# %% mystnb={"image": {"alt": "Two panels over tokens per chunk, 1 to 2048. Operations stay level up to about 16 and then rise in proportion to the chunk. Time falls steeply from chunk 1 to a broad minimum around 16 to 256 and rises again."}, "figure": {"caption": "The fewest operations are not the least time. Chunks of one waste time on tiny steps, one chunk for all wastes operations.", "name": "fig-linear-chunks"}} tags=["nbval-ignore-output"]
plots.chunk_sizes(chunks, gflop.numpy(), spent.numpy())
assert 2 * spent[2:5].min() < spent[[0, -1]].min()  # the middle wins
plt.show()

# %% [markdown]
# The fastest lies in between, over a broad range: large enough that a product keeps the processor busy, small enough to stay in its cache. (RetNet {cite}`sun2023` and GLA {cite}`yang2023` are trained in such a form; on a GPU the chunk also
# has to feed the matrix units.) These are `attnlib.linear.linear_chunk` and `attnlib.linear.in_chunks`; the room's `linear_attention(q, k, v, causal=True, feature_map=elu_plus_one)` adds heads that share keys, queries aligned to the end, a state to hand in and
# get back, and the checks. It applies $\phi$ chunk by chunk. Here it is beside PyTorch's own softmax attention.

# %% tags=["nbval-ignore-output"]
from attnlib.linear import linear_attention


def race(n):
    q, k, v = (draw(1, 8, n, 64, dtype=torch.float32) for _ in range(3))
    softmax = functools.partial(F.scaled_dot_product_attention, is_causal=True)
    return measure.medians(measure.cpu_times({
        "softmax": lambda: softmax(q, k, v),
        "linear": lambda: linear_attention(q, k, v)}, repeats=3))


tokens_read = [512, 1024, 2048, 4096, 8192]
races = [race(n) for n in tokens_read]
seconds = {name: [each[name] for each in races] for name in races[0]}
assert all(t > 0 for each in seconds.values() for t in each)

# %% tags=["nbval-ignore-output"]
for name, each in seconds.items():
    slope = measure.slope(tokens_read[1:], each[1:]).exponent
    row = " ".join(f"{1000 * t:7.1f}" for t in each)
    print(f"{name:8}{row} ms, slope {slope:.2f}")
gain = seconds["softmax"][-1] / seconds["linear"][-1]
print(f"at {tokens_read[-1]} tokens linear is {gain:.1f} times as fast")
assert gain > 4

# %% mystnb={"image": {"alt": "CPU time over tokens, 512 to 8192, both axes logarithmic. Softmax rises with slope two and linear attention with slope one; they lie close together at 512 tokens and about a factor of ten apart at 8192."}, "figure": {"caption": "What is bought: time proportional to the length. One thread, 8 heads of width 64, causal, forward pass.", "name": "fig-linear-times"}} tags=["nbval-ignore-output"]
plots.times(tokens_read, seconds)
assert seconds["linear"][-1] < 4 * seconds["linear"][-2]  # doubling: about 2
plt.show()

# %% [markdown]
# In the limit, doubling the length doubles the time of linear attention and quadruples that of softmax; the slopes are on their way there. At short lengths there is nothing to gain: the kernel for softmax attention is excellent, and there $n$ is no larger than a few $d$.
#
# Generating token by token, the state goes from call to call. Nothing else of the past is kept, and no step costs more than the first:

# %%
q, k, v = (each[None] for each in (q, k, v))  # one head: (heads, seq, width)
state, rows = None, []
for i in range(200):
    one = slice(i, i + 1)
    row, state = linear_attention(q[:, one], k[:, one], v[:, one], state=state)
    rows.append(row)
assert torch.allclose(torch.cat(rows, dim=-2)[0], truth, rtol=0, atol=1e-12)
print("the state:", tuple(state.shape))  # 16 features, 16 values and the 1

# %% [markdown]
# (Training needs gradients, and the backward pass wants the states again. Keeping one per *token* would cost $d \cdot d_v$ numbers each; autograd keeps one per *chunk*.)
#
# ## What does a sum forget?
#
# *A good place for a break. What follows is the price.*
#
# Store $n$ pairs in a state by summing, $S = \sum_j k_j^\top v_j$, with keys of length 1 and no $\phi$, and ask for each of them. What comes back to $k_i$?
#
# $$k_i S = v_i + \sum_{j \ne i} (k_i \cdot k_j)\, v_j$$
#
# Its own value, and *crosstalk*. For keys in random directions $(k_i \cdot k_j)^2$ is $1/d$ on average, so the squared error should be $(n - 1)/d$ times the size of a value. At $n = d$ that is as large as the answer.
#
# A sum is one way to fill a matrix. What is the best one? To answer all $n$ questions exactly, $S$ must solve $K S = V$, and *least squares*, in code `pinv(k) @ v`, finds the best $S$ there is. How far does it get?

# %%
def unit(*shape):
    return F.normalize(draw(*shape), dim=-1)


def error(state, k, v):
    return ((k @ state - v).square().mean() / v.square().mean()).item()

# %%
dim, filled = 64, [1, 8, 16, 32, 48, 64, 80, 96, 128]
by_sum, best = [], []
for n in filled:
    k, v = unit(20, n, dim), draw(20, n, 8)  # 20 trials
    by_sum.append(error(k.mT @ v, k, v))
    best.append(error(torch.linalg.pinv(k) @ v, k, v))

# %%
expected = [(n - 1) / dim for n in filled]
for n, *row in zip(filled, by_sum, expected, best, strict=True):
    print("{:4} pairs: sum {:.2f} (predicted {:.2f})  best {:.2f}".format(n, *row))
assert all(abs(got - want) < 0.1 * want + 0.02
           for got, want in zip(by_sum, expected, strict=True))
assert max(best[:6]) < 1e-12 < min(best[6:])

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The prediction for the sum holds. And the best possible state is **exact up to $n = d$ pairs and for not one more**: 64 equations per value, then no longer enough unknowns. Between the two curves lies what a cleverer way of writing can gain; beyond $d$ pairs no rule of writing is
# exact with keys of this width: an error of $(n - d)/n$ is left on average. Only more features help, which is why they matter. (An answer that only has to *point to the right digit* survives some error, as in chapter 1.)
# :::
#
# The limit is not about linear attention. *Anything* that reads with a state of $b$ bits can tell at most $2^b$ pasts apart, and so cannot give back every text of more than $b$ bits; {cite:t}`jelassi2024` prove it and see it in trained models, {cite:t}`arora2024` measure the trade between the size of the state and recall.
#
# ## A state that fades
#
# A sum never forgets, so it is full when the story is long. Let it fade: before each token multiply the state by a decay between 0 and 1, one number per channel of the key.
#
# $$S_t = \operatorname{diag}(a_t)\, S_{t-1} + k_t^\top v_t$$
#
# A constant per head is RetNet's {cite}`sun2023`; one number per head computed from the token, Mamba-2's {cite}`dao2024`; one per channel, gated linear attention's {cite}`yang2023`. None of them divides by a total, and nor do we from now on: layer norms take care of the scale. Token by token it is one line:

# %%
def gated_recurrent(q, k, v, log_decay):
    state, rows = torch.zeros(k.shape[-1], v.shape[-1]).to(v), []
    for q_t, k_t, v_t, g_t in zip(q, k, v, log_decay, strict=True):
        state = g_t.exp()[:, None] * state + torch.outer(k_t, v_t)
        rows.append(q_t @ state)
    return torch.stack(rows)

# %%
q, k, v = draw(64, 16), draw(64, 16), draw(64, 16)
mild = F.logsigmoid(draw(64, 16) + 3)             # decays near 0.95
print(f"decays from {mild.exp().min():.2f} to {mild.exp().max():.2f}")

# %% [markdown]
# For chunks we need the quadratic form. Between writing at $j$ and reading at $i$, channel $c$ fades by the product of its decays from $j+1$ to $i$. With $b_i$ for the product from the *beginning* to $i$, that is $b_i / b_j$, so it can be
# shared out: multiply queries by $b$, divide keys by $b$. One line, and right:

# %%
def gated_naive(q, k, v, log_decay):
    b = log_decay.cumsum(dim=-2).exp()            # (seq, dim_head)
    return ((q * b) @ (k / b).mT).tril() @ v


truth = gated_recurrent(q, k, v, mild)
assert torch.allclose(gated_naive(q, k, v, mild), truth, atol=1e-8)

# %% [markdown]
# Now let the state forget in earnest: every decay 0.1, in float32, as a model computes. What happens, and at which token?

# %% tags=["nbval-ignore-output"]
strong = torch.full((64, 16), 0.1).log()
broken = gated_naive(q.float(), k.float(), v.float(), strong)
bad = ~broken.isfinite().all(dim=-1)
print(f"{bad.sum()} of 64 rows are not finite,",
      f"the first is row {bad.int().argmax()}")
assert bad.int().argmax() in (37, 38)
assert gated_recurrent(q, k, v, strong.double()).isfinite().all()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Rows count from 0, so row 37 holds $b = 0.1^{38}$, less than $1.2 \cdot 10^{-38}$, the smallest number that float32 holds at full precision. There, or a row later, $k / b$ becomes infinite (which of the two depends on how the processor treats smaller numbers); what follows is infinity minus infinity, or infinity times a $b_i$ that has become 0: not a number. The factor that was wanted, $b_i / b_j$, is an ordinary number between 0 and 1. It is the two halves that are impossible.
# :::
#
# The cure: never form $b$. Add up the *logarithms* of exactly those decays that lie between $j$ and $i$, and take the exponential at the end. With one decay per head that is a table of sums. With one per channel it would be a table per channel, too large. So halve the chunk. A
# query in the late half and a key in the early half are separated by the border: the key fades *up to the border*, the query's view *since the border*, both factors at most 1, and the pair is an ordinary matrix product again. The pairs inside each half are the same problem, half as long.
#
# With four tokens 0 1 | 2 3: query 3 and key 0 are separated by the border. The key fades by $a_1$ up to it, the query's view by $a_2 a_3$ since it, and $a_1 a_2 a_3$ is the factor wanted. What is left are the pairs (1, 0) and (3, 2), the same problem with two tokens. Below, the halves are joined from the bottom up: blocks of 1, of 2, of 4. (You may skip the code on a first reading; the assertions after it compare it with the loop.)

# %%
def _sum_after(log_decay):
    later = F.pad(log_decay, (0, 0, 0, 1))[..., 1:, :]
    return later.flip(-2).cumsum(dim=-2).flip(-2)


def decayed_scores(q, k, log_decay):
    seq = q.shape[-2]
    if log_decay.shape[-1] == 1:
        steps = log_decay.expand(*log_decay.shape[:-1], seq).tril(-1)
        return (q @ k.mT) * steps.cumsum(dim=-2).exp().tril()
    missing = 2 ** (seq - 1).bit_length() - seq if seq else 1  # to a power of 2
    q, k, log_decay = (
        F.pad(each, (0, 0, 0, missing)) for each in (q, k, log_decay))
    scores = (q * k).sum(dim=-1)[..., None, None]    # blocks of one token
    while (size := scores.shape[-1]) < q.shape[-2]:  # join neighbouring blocks
        (_, late_q), (early_k, _), (early, late) = (
            each.unflatten(-2, (-1, 2, size)).unbind(-3)
            for each in (q, k, log_decay))
        late_q = late_q * late.cumsum(dim=-2).exp()  # faded since the border
        early_k = early_k * _sum_after(early).exp()  # faded up to the border
        top, bottom = scores.unflatten(-3, (-1, 2)).unbind(-3)
        bottom = torch.cat([late_q @ early_k.mT, bottom], dim=-1)
        scores = torch.cat([F.pad(top, (0, size)), bottom], dim=-2)
    return scores.squeeze(-3)[..., :seq, :seq]

# %% [markdown]
# The chunk is then `linear_chunk` with fading at three places: what queries see of the state, the pairs inside, and what is left of everything at the end.

# %%
def gated_chunk(q, k, v, log_decay, state):
    since_start = log_decay.cumsum(dim=-2).exp()
    out = (q * since_start) @ state + decayed_scores(q, k, log_decay) @ v
    whole = log_decay.sum(dim=-2, keepdim=True).exp().mT
    return out, whole * state + (k * _sum_after(log_decay).exp()).mT @ v

# %%
zeros = torch.zeros(16, 16)
for log_decay, chunk in ((mild, 16), (mild, 64), (strong.double(), 64)):
    out, _ = in_chunks(gated_chunk, zeros.double(), chunk, q, k, v, log_decay)
    assert torch.allclose(out, gated_recurrent(q, k, v, log_decay), atol=1e-12)
out, _ = gated_chunk(q.float(), k.float(), v.float(), strong, zeros)
assert out.isfinite().all()  # float32, where the naive form failed

# %% [markdown]
# `attnlib.linear.decayed_scores` and `attnlib.linear.gated_chunk` are these; `attnlib.linear.gated_linear_attention(q, k, v, log_decay)` adds heads and checks. It even takes a decay of exactly 0, whose logarithm is $-\infty$: everything before is forgotten, and nothing else happens.
#
# ## A state that corrects itself
#
# Fading forgets everything alike. What if one fact has changed and the others have not? Ask the state first, and write only **what is missing**:
#
# $$S_t = S_{t-1} + \beta_t\, k_t^\top \left(v_t - k_t S_{t-1}\right)$$
#
# With $\beta = 1$ and $|k| = 1$ the state answers $k_t$ with exactly $v_t$ afterwards. It is the *delta rule* of Widrow and Hoff, a step of gradient descent on $\tfrac12|kS - v|^2$, used as a layer by {cite:t}`schlag2021`. In chapter 1 you wrote it as an exercise. It looks hopelessly serial: what a token writes depends on all
# that was written before.
#
# Take one chunk, and call what token $t$ writes $u_t$ (a row). The state before $t$ is $S_0 + \sum_{j<t} k_j^\top u_j$, so
#
# $$u_t = \beta_t \Big( v_t - k_t S_0 - \sum_{j < t} (k_t \cdot k_j)\, u_j \Big).$$
#
# Stack the rows: $(I + L)\,U = \beta\,(V - K S_0)$, with $L_{tj} = \beta_t\, k_t \cdot k_j$ for $j < t$ and 0 elsewhere. That is a triangular system, and one call solves it {cite}`yang2024a`. Below, $L$ is `overlap`, the right-hand side `missing`, and $U$ `writes`. With the writes in place of the values, the rest is `linear_chunk` as it stands.

# %%
def delta_chunk(q, k, v, beta, state):
    overlap = beta * (k @ k.mT).tril(-1)  # how far earlier keys meet mine
    missing = beta * (v - k @ state)      # as far as the state knows
    writes = torch.linalg.solve_triangular(
        overlap, missing, upper=False, unitriangular=True)
    return linear_chunk(q, k, writes, state)

# %% [markdown]
# Is it the recurrence?

# %%
def delta_recurrent(q, k, v, beta):
    state, rows = torch.zeros(k.shape[-1], v.shape[-1]).to(v), []
    for q_t, k_t, v_t, beta_t in zip(q, k, v, beta, strict=True):
        state = state + torch.outer(k_t, beta_t * (v_t - k_t @ state))
        rows.append(q_t @ state)
    return torch.stack(rows)

# %%
k = F.normalize(k, dim=-1)
beta = torch.rand(64, 1, generator=rng, dtype=torch.float64)
for chunk in (1, 7, 64):
    out, _ = in_chunks(delta_chunk, zeros.double(), chunk, q, k, v, beta)
    assert torch.allclose(out, delta_recurrent(q, k, v, beta), atol=1e-12)

# %% [markdown]
# (`unitriangular` supplies the $I$.) This is `attnlib.linear.delta_chunk`. The library's `delta_rule_attention(q, k, v, beta)` is this with heads, and with a `log_decay` as well: fade, then correct, which is Gated DeltaNet {cite}`yang2024b`.
#
# ## Four states, one changed fact
#
# Four facts, under four perpendicular keys: 1, 2, 3, 4. Then the second changes: it is now 9. What does each state answer to the four keys: the sum, the gate (which fades by 0.8 at each step), the delta rule, and both together? Write down four numbers for each before you run it.

# %%
from attnlib.linear import delta_rule_attention, gated_linear_attention

four = torch.linalg.qr(draw(8, 8)).Q[:4]
which, facts = torch.tensor([0, 1, 2, 3, 1]), torch.tensor([1.0, 2, 3, 4, 9])
k, v = four[which][None], facts[None, :, None].double()  # (heads, 5, ·)
decay = torch.full((1, 5, 1), 0.8).log().double()
ones = torch.ones(1, 5).double()
states = {"sum": gated_linear_attention(k, k, v, 0 * decay)[1],
          "gated": gated_linear_attention(k, k, v, decay)[1],
          "delta": delta_rule_attention(k, k, v, ones)[1],
          "gated delta": delta_rule_attention(k, k, v, ones, decay)[1]}
for name, state in states.items():
    print(f"{name:12}", (four @ state[0])[:, 0])

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The sum answers 11 to the changed key: both values at once. The gate has faded all facts, whether they changed or not, and still mixes 9 with what is left of 2. The delta rule answers 9, and 1, 3, 4 as before; with the gate it answers 9, and the others have faded.
# :::
#
# Does it then forget nothing? Turn to a new page: *everything* known so far is obsolete. The delta rule can only overwrite key by key, and only keys that come up again. A decay of 0 clears the state in one step. Each repairs what the other cannot, which is the case for using both {cite}`yang2024b`.

# %%
decay[0, 4] = -torch.inf           # a new page begins with the fifth token
_, cleared = delta_rule_attention(k, k, v, ones, decay)
answers, only = (four @ cleared[0])[:, 0], torch.tensor([0.0, 9, 0, 0])
print("new page:   ", answers.round(decimals=3).abs())  # abs: no -0
assert torch.allclose(answers, only.double(), atol=1e-12)

# %% [markdown]
# And when keys are *not* perpendicular? Back to the experiment that filled the state. Each pair is now written once by the delta rule, in order.

# %%
by_delta, last_ones = [], []
for n in filled:
    k, v = unit(20, n, dim), draw(20, n, 8)
    _, state = delta_rule_attention(k, k, v, torch.ones(20, n).double())
    by_delta.append(error(state, k, v))
    last_ones.append(error(state, k[:, -1:], v[:, -1:]))
for n, *row in zip(filled, by_delta, best, last_ones, strict=True):
    print("{:4} pairs: delta {:.2f}  best {:.2f}  last pair {:.2f}".format(n, *row))
assert all(a < b for a, b in zip(by_delta[2:], by_sum[2:], strict=True))
assert max(last_ones) < 1e-12

# %% mystnb={"image": {"alt": "Relative squared error over pairs per key dimension, 0 to 2. The sum follows the dashed straight line of the prediction and passes 1 at one pair per dimension. The delta rule rises more slowly and bends; it reaches 1 only at two pairs per dimension. The best possible state is exactly 0 up to one pair per dimension and then rises."}, "figure": {"caption": "Random keys, 64 dimensions. The sum's crosstalk grows without limit; the delta rule, which reads before it writes, stays between the sum and the best any state can do.", "name": "fig-linear-interference"}}
ratio = [n / dim for n in filled]
ways = {"sum": by_sum, "delta rule": by_delta, "best possible": best}
plots.interference(ratio, ways, expected)
plt.show()

# %% [markdown]
# The last pair is always exact; writing it has disturbed the ones before, by as much as their keys overlap with its own. One pass is not the best state. Many passes over the same pairs come as near to it as you like where an exact one exists (this is Kaczmarz's method for linear equations), but a model
# reads its text once.

# %%
k, v, state = unit(20, 32, dim), draw(20, 32, 8), None
ones = torch.ones(20, 32).double()
for _ in range(50):
    _, state = delta_rule_attention(k, k, v, ones, state=state)
print(f"32 pairs, 50 passes: {error(state, k, v):.4f}")
assert error(state, k, v) < by_delta[filled.index(32)] / 50

# %% [markdown]
# ## Does training find a way around?
#
# So far the keys were random. A model *learns* its keys, and might arrange them better. Set up recall once more, in the purest form: 64 letters, 16 digits; a letter and its digit arrive together as one token, so nothing has to be paired up first; afterwards the letters
# are asked for. One layer, one head. In the task *once* every letter of a story occurs once. In *twice* every letter occurs twice, and the **last** digit counts.

# %%
LETTERS, DIGITS = 64, 16


def make_story(pairs, copies, batch=64, rng=rng):
    distinct = pairs // copies
    names = torch.rand(batch, LETTERS, generator=rng).argsort(dim=1)
    names = names[:, :distinct]
    slots = torch.rand(batch, pairs, generator=rng).argsort(dim=1) % distinct
    digits = torch.randint(DIGITS, (batch, pairs), generator=rng)
    here = slots[:, None] == torch.arange(distinct)[:, None]
    last = (here * torch.arange(pairs)).amax(dim=-1)  # where it stood last
    return names.gather(1, slots), digits, names, digits.gather(1, last)


letters, digits, asked, answers = make_story(6, 2, batch=1)
pairs = zip(letters[0].tolist(), digits[0].tolist(), strict=True)
print("story ", list(pairs))
print("asked ", asked[0].tolist(), "answers", answers[0].tolist())

# %% [markdown]
# Six readers differ in one line each: softmax; linear attention with either feature map; and three states of plain unit keys, which sum, fade, or correct. Decays and betas are computed from the token.

# %%
def read(rule, q, k, v, beta, log_decay):
    if rule == "softmax":
        return F.scaled_dot_product_attention(q, k, v)
    if rule in ("linear", "Taylor"):
        phi = elu_plus_one if rule == "linear" else taylor_features
        return linear_attention(q, k, v, causal=False, feature_map=phi)[0]
    q, k, none = F.normalize(q, dim=-1), F.normalize(k, dim=-1), q[..., :0, :]
    if rule == "delta":
        _, state = delta_rule_attention(none, k, v, beta)
    else:
        fade = log_decay if rule == "gated" else torch.zeros_like(log_decay)
        _, state = gated_linear_attention(none, k, v, fade)
    return q @ state

# %%
class RecallReader(nn.Module):
    def __init__(self, rule, dim_head, dim=64):
        super().__init__()
        self.rule = rule
        self.letter = nn.Embedding(LETTERS, dim)
        self.digit = nn.Embedding(DIGITS, dim)
        self.to_q = nn.Linear(dim, dim_head, bias=False)
        self.to_k = nn.Linear(dim, dim_head, bias=False)
        self.to_v = nn.Linear(dim, DIGITS, bias=False)
        self.to_beta = nn.Linear(dim, 1)
        self.to_decay = nn.Linear(dim, dim_head)
        self.to_out = nn.Linear(DIGITS, DIGITS)

    def forward(self, letters, digits, asked):
        asked = self.letter(asked)
        x = self.letter(letters) + self.digit(digits)  # (batch, pairs, dim)
        log_decay = F.logsigmoid(self.to_decay(x) + 4)  # begins near 1
        parts = self.to_q(asked), self.to_k(x), self.to_v(x), log_decay
        q, k, v, log_decay = (each.unsqueeze(-3) for each in parts)  # one head
        beta = self.to_beta(x).sigmoid().mT            # (batch, 1, pairs)
        out = read(self.rule, q, k, v, beta, log_decay)
        return self.to_out(out.squeeze(-3))

# %%
def train_recall(reader, copies, steps, rng):
    optimiser = torch.optim.Adam(reader.parameters(), 0.003)
    for _ in range(steps):
        distinct = torch.randint(1, 64 // copies + 1, (), generator=rng)
        *story, answers = make_story(copies * int(distinct), copies, rng=rng)
        loss = F.cross_entropy(reader(*story).flatten(0, 1), answers.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@torch.no_grad()
def exam_recall(reader, copies, pairs):
    made = torch.Generator().manual_seed(1)  # the same stories for all
    *story, answers = make_story(pairs, copies, batch=500, rng=made)
    return (reader(*story).argmax(dim=-1) == answers).float().mean().item()

# %% [markdown]
# Every head here is **8 wide**. Predict: how many of 32 letters, each told once, does softmax attention recall? How many the sum? And who can do *twice*?

# %% tags=["nbval-ignore-output"]
stored = [4, 8, 16, 32, 64]
torch.manual_seed(0)
shares = {}
for rule, copies in (("softmax", 1), ("sum", 1), ("softmax", 2), ("delta", 2)):
    reader = RecallReader(rule, dim_head=8)
    train_recall(reader, copies, 400, rng)
    shares[rule, copies] = [exam_recall(reader, copies, n) for n in stored]
    print(f"{rule:8}", "once " if copies == 1 else "twice",
          " ".join(f"{share:.2f}" for share in shares[rule, copies]))
assert min(shares["softmax", 1]) > 0.95 and shares["sum", 1][3] < 0.8
assert max(shares["softmax", 2]) < 0.65 and shares["delta", 2][0] > 0.8

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Softmax recalls everything, with keys 8 wide: 64 directions in 8 dimensions are apart enough for an exponential to tell them apart. The sum falls with every letter told. In *twice* it is the other way around: softmax attention sees both digits of a letter, and *nothing in it knows which
# came later*, so it is right about one time in two: $\tfrac12 (1 + \tfrac1{16}) = 0.53$. The delta rule knows the order by construction. (Give softmax attention positions, [chapter 7](07_positions.ipynb), and it can learn to prefer the later one.)
# :::
#
# One seed proves little. Three seeds, all six rules and three widths take some minutes, so we read the record (`python -m tools.record_linear_recall` makes it anew, from the cells above).

# %%
with open("data/17_linear_recall.json") as file:
    record = json.load(file)
assert record["pairs"] == stored
recorded = {(run["rule"], run["copies"], run["dim_head"]):
            torch.tensor(run["share_right"]) for run in record["runs"]}
rules = ("softmax", "linear", "Taylor", "sum", "gated", "delta")
print("share right at 32 pairs, mean of three seeds")
print("keys of width      8    16    32")
for copies, task in ((1, "once"), (2, "twice")):
    for rule in rules:
        row = (recorded[rule, copies, width][:, 3].mean()
               for width in (8, 16, 32) if (rule, copies, width) in recorded)
        print(f"{task:6}{rule:8}", " ".join(f"{share:5.2f}" for share in row))

# %% mystnb={"image": {"alt": "Two panels, right answers over pairs in the story, 4 to 64, keys of width 16. Once: softmax and Taylor stay at 1; sum, gated and delta fall to about three quarters at 64 pairs; linear with elu plus one falls to less than one half. Twice: delta begins near 1 and falls with the number of pairs; gated lies below it; the other rules begin near one half, where softmax and Taylor stay, while elu plus one falls to a third."}, "figure": {"caption": "What is paid. Keys 16 wide, one layer, three seeds. Thin lines are single seeds. Once: the sum lies under the gate and the delta rule; recall falls where the state is too small, and softmax’s memory is never too small. Twice: only rules that can change what they stored can follow a change.", "name": "fig-linear-recall"}}
panels = {task: {rule: recorded[rule, copies, 16].numpy() for rule in rules}
          for task, copies in (("once", 1), ("twice", 2))}
plots.recall(stored, panels, chance=1 / DIGITS)
plt.show()

# %% [markdown]
# *Once.* Softmax recalls everything at every width: what it keeps grows with the story. The sum, the gate, the delta rule and $\operatorname{elu}+1$ lose letters as the story grows, later if they have more features; the Taylor map of keys 16 wide loses none up to 64, the longest story we tell. How many pairs does each hold, if we ask for nine right answers in ten?

# %%
print("pairs held, once; in brackets the features")
for rule in ("linear", "sum", "delta", "Taylor"):
    for width in (8, 16, 32):
        if (rule, 1, width) in recorded:
            share = recorded[rule, 1, width].mean(dim=0)
            held = max(n for n, s in zip(stored, share, strict=True) if s >= 0.9)
            features = 1 + width + width**2 if rule == "Taylor" else width
            print(f"{rule:7} {held:3} ({features})", end="   ")
    print()
at_32 = {case: shares[:, 3] for case, shares in recorded.items()}  # by seed
assert recorded["softmax", 1, 8].min() > 0.99
assert (at_32["Taylor", 1, 8] > at_32["sum", 1, 8] + 0.2).all()
assert (at_32["delta", 2, 16] > at_32["gated", 2, 16] + 0.05).all()
assert (at_32["gated", 2, 16] > at_32["sum", 2, 16] + 0.2).all()

# %% [markdown]
# Doubling the features buys two to four times the pairs, and they may come from wider keys or from a richer map of the same keys. They are not worth the same: Taylor's 73 features of keys 8 wide hold what the sum needs 32 for. (We tell stories of doubled lengths up to 64: a 64 means *64 or more*.) The features of $\operatorname{elu} + 1$ are all positive, so no two keys can be perpendicular, and it holds least. The gate and the delta rule gain
# nothing here: no letter comes twice, so there is nothing to fade or to correct, and a trained read-out lives with the crosstalk that the delta rule avoids.
#
# *Twice.* Nothing without a sense of order, softmax included, gets beyond about 0.53, and where the state is small the crosstalk costs more. The gate can prefer the later digit by fading the earlier one, along with everything else. The delta rule is made for this, and does best, within the size of its state.
#
# ## What to remember
#
# | | softmax attention | sum, $\phi(q)\phi(k)$ | gated | delta rule |
# |---|---|---|---|---|
# | what is kept | every key and value | one matrix | one matrix | one matrix |
# | time over length $n$ | $n^2$ | $n$ | $n$ | $n$ |
# | rank across a border | up to $n$ | at most the features | at most the features | at most the features |
# | forgets | nothing | nothing, it blurs | everything alike | what is overwritten |
# | a changed fact | needs positions | mixes old and new | prefers the new | replaces |
# | exact recall of $n$ pairs | as near as you like, if keys of one length differ and scores are large | if keys are perpendicular | no, it fades | the last pair always; all, if keys are perpendicular |
#
# | property | consequence | what showed it |
# |---|---|---|
# | $(QK^\top)V = Q(K^\top V)$ | $n/d$ times fewer operations, if no softmax stands between | two brackets |
# | one function, three forms | a chunk of one is the recurrence, a chunk of all is quadratic, between them it is fast | chunk sizes |
# | positive $\phi$, accurate to its last digit | `F.elu(x) + 1` is 0 where $e^x$ is not | the shy query |
# | decays are sums of logarithms | never divide by a product of decays | 0.1 in float32 |
# | writes solve a triangular system | the delta rule is parallel inside a chunk | `delta_chunk` |
#
# **In practice.** As of 2026, few large models are linear throughout; the pattern is the *hybrid*. Kimi Linear has three layers of a gated delta rule, with a decay per channel, for each layer of softmax attention {cite}`kimi2025`; Qwen3-Next likewise has three Gated DeltaNet layers {cite}`yang2024b` to one. MiniMax-01 put one softmax layer after
# every seven of linear attention {cite}`minimax2025`; its successor MiniMax-M2 [returned to softmax in every layer](https://news.aibase.com/news/22592). RWKV-7 {cite}`peng2025`, without any softmax layer, uses a generalised delta rule with gates per channel. Mamba-2 {cite}`dao2024` is the scalar gate of this chapter in other words. The softmax layers of a hybrid do the recall, the linear ones most of
# the work at constant memory. {cite:t}`arora2023` find that most of the gap in language modelling between attention and models without it is recall.
#
# **Shortcut taken here.** Real layers add a short convolution before queries, keys and values, output gates and norms after, and decays that start near 1. On GPUs the chunk is one fused kernel that keeps states in fast memory and recomputes the inside of chunks in the backward pass instead of keeping it, as our autograd does. Training
# and inference keep the state in float32 even where everything else is bfloat16; so does `attnlib.linear`.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Bracket attention without softmax so that its cost is linear, and say what softmax locks together.
# - Write causal linear attention as a triangle, as a recurrence and in chunks, and explain why the chunk in the middle
#   is fastest.
# - Compute after how many tokens a KV cache is larger than the state.
# - Predict the error of a state that sums, and how many pairs the best possible state of that width holds exactly.
# - Predict about where a product of decays breaks in float32, and rewrite it so that no factor exceeds 1.
# - Predict what a state that sums, fades, corrects or does both answers after one fact has changed.
# :::

# %% [markdown]
# ## Exercises
#
# The exercises are in NumPy, with any number of leading axes in front. The chapter's loops are for one head: `np.outer` and `@` between vectors do not carry over.

# %%
from coursework import check, require

# %% [markdown] tags=["ex:attend_with_state", "ex-prompt"]
# ```{exercise} Attention with a state of constant size
# :label: ex-attend-with-state
# Linear attention {cite}`katharopoulos2020` replaces exp(q · k) by φ(q) · φ(k), with φ(x) = x + 1 where x > 0 and eˣ elsewhere (that is
# elu(x) + 1), applied number by number. Write the causal form `attend_with_state(q, k, v)`: query i gets
# $\sum_{j \le i} \phi(q_i)\cdot\phi(k_j)\, v_j \,/ \sum_{j \le i} \phi(q_i)\cdot\phi(k_j)$, with no scale. Go through the tokens
# one by one and keep nothing of the past but two running sums, one of shape (..., dim_head, dim_v) and one of shape (..., dim_head):
# for a long sequence the memory is measured. `q` and `k` are (..., seq, dim_head), `v` is (..., seq, dim_v); return (..., seq, dim_v).
# ```

# %% tags=["ex:attend_with_state", "ex-stub"]
def attend_with_state(q, k, v):
    raise NotImplementedError("replace this line")

# %% tags=["ex:attend_with_state", "ex-check"]
check(attend_with_state)

# %% tags=["ex:attend_with_state", "ex-solution", "hide-cell"]
def attend_with_state(q, k, v):
    q, k = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    state = np.zeros((*k.shape[:-2], k.shape[-1], v.shape[-1]))  # sum of φ(k) v
    norm = np.zeros((*k.shape[:-2], k.shape[-1]))  # sum of φ(k)
    out = np.empty(v.shape)
    for t in range(v.shape[-2]):
        state = state + k[..., t, :, None] * v[..., t, None, :]
        norm = norm + k[..., t, :]
        total = (q[..., t, :] * norm).sum(axis=-1, keepdims=True)
        out[..., t, :] = (q[..., t, None, :] @ state)[..., 0, :] / total
    return out


require(attend_with_state)

# %% [markdown] tags=["ex:gated_linear_step", "ex-prompt"]
# ```{exercise} A state that forgets
# :label: ex-gated-linear-step
# Gated linear attention {cite}`yang2023` keeps of the past one matrix per head, `state` (..., dim_head, dim_v), and lets it fade before each new
# token is written: row i, which belongs to number i of keys and queries, is multiplied by `decay[..., i]`, a number from 0 (forget all) to 1
# (forget nothing); then the outer product of key and value is added; then the query reads, q · state. Write
# `gated_linear_step(q, k, v, decay, state)` for one token: `q`, `k` and `decay` are (..., dim_head), `v` is (..., dim_v). Return `(out, state)`:
# `out` (..., dim_v), and a **new** state. There is no feature map, no scale and no division by a sum.
# ```

# %% tags=["ex:gated_linear_step", "ex-stub"]
def gated_linear_step(q, k, v, decay, state):
    raise NotImplementedError("replace this line")

# %% tags=["ex:gated_linear_step", "ex-check"]
check(gated_linear_step)

# %% tags=["ex:gated_linear_step", "ex-solution", "hide-cell"]
def gated_linear_step(q, k, v, decay, state):
    written = k[..., :, None] * v[..., None, :]  # (..., dim_head, dim_v)
    state = decay[..., :, None] * state + written
    out = q[..., None, :] @ state  # (..., 1, dim_v)
    return out[..., 0, :], state


require(gated_linear_step)

# %% [markdown] tags=["ex:delta_rule_step", "ex-prompt"]
# ```{exercise} A state that corrects itself
# :label: ex-delta-rule-step
# A linear attention with the delta rule {cite}`schlag2021` writes into its state only what the state does not say yet. Write
# `delta_rule_step(q, k, v, beta, decay, state)`, one step of it with forgetting: first the whole `state` (..., dim_head, dim_v) is multiplied by the
# number `decay`; then the faded state is asked what it says to the key, k · state; the difference between `v` and that, times the number `beta`, is
# written under the key (an outer product is added); then the query reads the new state, q · state. `q` and `k` are (..., dim_head), `v` is
# (..., dim_v); `beta` and `decay` are arrays (...) of numbers from 0 to 1. Keys come as unit vectors. Return `(out, state)`: `out` (..., dim_v), and a
# **new** state. There is no feature map, no scale and no division by a sum.
# ```

# %% tags=["ex:delta_rule_step", "ex-stub"]
def delta_rule_step(q, k, v, beta, decay, state):
    raise NotImplementedError("replace this line")

# %% tags=["ex:delta_rule_step", "ex-check"]
check(delta_rule_step)

# %% tags=["ex:delta_rule_step", "ex-solution", "hide-cell"]
def delta_rule_step(q, k, v, beta, decay, state):
    state = decay[..., None, None] * state
    said = (k[..., None, :] @ state)[..., 0, :]  # (..., dim_v)
    change = beta[..., None] * (v - said)
    state = state + k[..., :, None] * change[..., None, :]
    return (q[..., None, :] @ state)[..., 0, :], state


require(delta_rule_step)

# %% [markdown] tags=["ex:explore_hybrid", "ex-prompt", "ex-open"]
# ```{exercise} Explore: one layer of softmax among linear ones
# :label: ex-explore-hybrid
# Give `RecallReader` two heads side by side, one that sums and one of softmax over the last 8 pairs only. What does the pair recall that neither does alone? Then give the softmax head every pair, and take the sum away again: how much of the sum's work was needed?
# ```

# %% [markdown] tags=["ex:explore_beta", "ex-prompt", "ex-open"]
# ```{exercise} Explore: beyond one
# :label: ex-explore-beta
# With $|k| = 1$ the delta rule multiplies the state's component along $k$ by $1 - \beta$ before it writes. Write the value 0 under the same key ten times with $\beta = 0.5$, 1, 2 and 3, into a state that is not empty, and watch its component along $k$. What does the state with $\beta = 2$ know about the *number* of tokens read that the others forget?
# ```

# %% [markdown]
# **Sources.** Linear attention: {cite:t}`katharopoulos2020`; random features: {cite:t}`choromanski2020`; Taylor features and the trade of state for recall: {cite:t}`arora2024`. Fast weights and the delta rule: {cite:t}`schlag2021`; in chunks: {cite:t}`yang2024a`. Gates: {cite:t}`sun2023`, {cite:t}`yang2023`,
# {cite:t}`dao2024`; both: {cite:t}`yang2024b`, {cite:t}`kimi2025`. Limits of a state: {cite:t}`jelassi2024`, {cite:t}`arora2023`.
