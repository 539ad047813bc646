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
# # Tell tokens apart by where they stand: positions
#
# Attention reads a set. Nothing you have built so far knows that *animal* comes before *street*. In this chapter you first
# see what that costs a real model, then build the three ways in which today's models put order back, sinusoids, rotations and
# biases, and then measure which of them still work on sequences longer than any seen in training.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapters 3 to 6, sines and cosines, and rotation in the plane. **You will build** {term}`sinusoids`, {term}`RoPE`, {term}`ALiBi`, and an
# experiment that trains with the backward pass of chapter 5. **Time** about 50 minutes. The last figure is where we are going.
# :::

# %%
import matplotlib.pyplot as plt
import numpy as np

from attnlib.data import real_head, real_layer
from attnlib.masks import causal, to_array
from attnlib.plots import positions as plots
from attnlib.reference import attention, attention_backward, attention_scores, softmax

np.set_printoptions(precision=3, suppress=True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## What can attention not see?
#
# The vectors that enter MiniLM's first layer are a sum: a row of the word table, a row of the position table and a vector for the segment, then
# layer normalisation. All the parts are in the book's data file, so we can leave one out.

# %%
layer = real_layer()


def layer_norm(x):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + layer.norm_epsilon) * layer.norm_scale + layer.norm_shift


x_words = layer_norm(layer.word_vectors + layer.segment_vector)                                # no positions
x_both = layer_norm(layer.word_vectors + layer.position_vectors + layer.segment_vector)
assert np.allclose(x_both, layer.x, atol=1e-5)  # what the model itself feeds to its first layer

# %% [markdown]
# Take the head of that layer that looks for equal words, feed it the vectors **without** positions, and
# exchange *animal* and *street*. *The street didn't cross the animal because it was too tired* means something else. Which outputs change?

# %%
same_word = real_head("same_word")


def read(head, x):
    return attention(x @ head.w_q + head.b_q, x @ head.w_k + head.b_k, x @ head.w_v + head.b_v)


order = np.arange(15)
order[[2, 8]] = order[[8, 2]]                  # exchange "animal" and "street"
out, weights = read(same_word, x_words)
out_swapped, weights_swapped = read(same_word, x_words[order])
print("output of “it” changes by", np.abs(out_swapped[10] - out[10]).max().round(5))
assert np.allclose(out_swapped, out[order], atol=1e-5)

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# None. The two exchanged rows come out exchanged, and every other token gets exactly what it got before. Permuting the tokens
# permutes the outputs and does nothing else: without positions a self-attention layer is **permutation-{term}`equivariant <equivariance>`**
# {cite}`lee2018`. Chapter 5 showed it for a layer; here it has taken the meaning out of a sentence.
# :::
#
# Now the head that looks at the **previous token**. It needs order more than any other. Feed it words and positions, words alone, and
# positions alone.

# %%
previous = real_head("previous")
x_positions = layer_norm(layer.position_vectors + layer.segment_vector)
maps = {}
for title, x in (("both", x_both), ("words only", x_words), ("positions only", x_positions)):
    maps[title] = read(previous, x)[1]
    print(f"{title:>15}: mean weight on the token to the left {np.diagonal(maps[title], offset=-1).mean():.2f}")

# %% mystnb={"image": {"alt": "Three maps of weights for the previous-token head. With both parts and with positions only, a sharp dark line runs just below the diagonal. With words only the line is gone and weight is scattered over a few columns."}, "figure": {"caption": "A head that reads positions and nothing else: with the words removed its weights stay, with the positions removed they are lost.", "name": "fig-previous-without-positions"}}
plots.weight_maps(maps, layer.tokens, height=2.9)
plt.show()

# %% [markdown]
# MiniLM **learns** its position table, one row for each of 512 positions {cite}`devlin2018`. It is the simplest
# scheme, and it has an end: there is no row for a 513th token. The other schemes compute what they need, for any position.
#
# ## Which numbers make a good clock?
#
# Write a position in binary and its last bit flips at every step, the next at every second step, and so on: fast digits and slow digits. {cite:t}`vaswani2017` use smooth
# digits. Pair $i$ of the columns turns at its own speed $\omega_i$, and holds the sine and the cosine of its angle:
#
# $$p_{2i} = \sin(\omega_i\, t), \qquad p_{2i+1} = \cos(\omega_i\, t), \qquad \omega_i = 10000^{-2i/D}$$
#
# for position $t$ and width $D$. The first pair turns by 1 radian per token, the last about 10,000 times more slowly.

# %%
def position_angles(positions, dim, base=10000.0):
    speeds = base ** (-np.arange(0, dim, 2) / dim)           # (dim / 2,), radians per position
    return positions[..., None] * speeds                     # (..., seq, dim / 2)


def sinusoids(seq, dim):
    angles = position_angles(np.arange(seq), dim)            # (seq, dim / 2)
    vectors = np.empty((seq, dim))
    vectors[:, 0::2] = np.sin(angles)
    vectors[:, 1::2] = np.cos(angles)
    return vectors


clock = sinusoids(128, 64)
assert clock.shape == (128, 64)
print(clock[:3, :6])

# %% [markdown]
# These are `attnlib.positions.position_angles` and `attnlib.positions.sinusoids`. How similar are two positions? Multiply all of them
# with each other. Does the dot product of positions 3 and 10 differ from that of positions 103 and 110?

# %%
similarity = clock @ clock.T                                  # (seq, seq)
print(f"3 and 10: {similarity[3, 10]:.3f}   103 and 110: {similarity[103, 110]:.3f}")
for distance in (1, 7, 50):
    along = np.diagonal(similarity, offset=distance)
    assert np.allclose(along, along[0])                       # the same all along the diagonal

# %% mystnb={"image": {"alt": "Top: a map of 128 position vectors of width 64; the left columns alternate quickly down the positions, the right columns hardly change. Bottom: the dot product against distance starts at 32, drops steeply to about 20 within ten positions, and wavers around 15 to 20 with small ripples up to distance 127."}, "figure": {"caption": "Sinusoids are a clock with fast and slow hands. The dot product of two positions depends on their distance only.", "name": "fig-sinusoids"}}
plots.sinusoid_map(clock, similarity[0])
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It does not: $\sin a \sin b + \cos a \cos b = \cos(a - b)$, so the dot product is $\sum_i \cos(\omega_i (t - t'))$. Only the distance is left.
# :::
#
# That is the promise of sinusoids, and here is the catch. A head does not multiply the position vectors with each other. It multiplies them
# *after* $W_Q$ and $W_K$. Put a matrix in between and look along a diagonal again:

# %%
w_q, w_k = rng.normal(size=(2, 64, 32)) / 8
projected = attention_scores(clock @ w_q, clock @ w_k)
along = np.diagonal(projected, offset=-7)
print("scores at distance 7, over the sequence:", along[::30])
assert along.std() > 0.5 * projected.std()      # the same distance, very different scores

# %% [markdown]
# Along a diagonal, where the distance is fixed, scores now vary, more than half as much as over the whole map. A relative rule is *possible* for such a head: a shift by $s$ positions is a fixed rotation of each pair, so a
# suitable $W_Q W_K^\top$ can undo it (the first exercise builds that rotation). But the head has to learn it, and only sees it at the positions of its training
# data. Then there are the cross terms: the sinusoids are added to the word vectors, and words and positions share the same columns from then on.
#
# ## Why not rotate?
#
# If we want scores that depend on distance whatever the projections are, position must come in **after** the projections. {cite:t}`su2021` turn each pair of columns of a
# query or key by an angle proportional to its position. Turning both by the same amount changes no dot product, so only the *difference* of positions can matter. In one pair:

# %%
def turn(pair, angle):
    return np.array([pair[0] * np.cos(angle) - pair[1] * np.sin(angle),
                     pair[0] * np.sin(angle) + pair[1] * np.cos(angle)])


query, key = np.array([1.0, 0.0]), np.array([-0.6, 0.8])
here = np.array([turn(query, 0.3 * 5), turn(key, 0.3 * 2)])      # query at position 5, key at 2, 0.3 radians per position
later = np.array([turn(query, 0.3 * 9), turn(key, 0.3 * 6)])     # both four positions later
print(f"dot products: {here[0] @ here[1]:.3f} and {later[0] @ later[1]:.3f}")
assert np.isclose(here[0] @ here[1], later[0] @ later[1])

# %% mystnb={"image": {"alt": "Two panels with a query arrow and a key arrow of length one in the plane. In the right panel both arrows are turned further by the same angle; the angle between them is unchanged."}, "figure": {"caption": "Four positions later both arrows have turned by the same angle. The angle between them, and so the score, has not changed.", "name": "fig-turning-pair"}}
plots.turning_pair(here, later)
plt.show()

# %% [markdown]
# A head of width $d$ has $d/2$ pairs, each with its own speed, the same speeds as above. Which columns form a pair? The paper
# takes neighbours, $2i$ and $2i+1$ (*interleaved*); many libraries take $i$ and $i + d/2$ (*half-split*), which slices faster. Both are RoPE.

# %%
def apply_rope(x, positions, base=10000.0, interleaved=False):
    angles = position_angles(positions, x.shape[-1], base)   # (..., seq, dim / 2)
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    turned = a * cos - b * sin, a * sin + b * cos            # two of (..., seq, dim / 2)
    if interleaved:
        return np.stack(turned, axis=-1).reshape(*turned[0].shape[:-1], 2 * half)
    return np.concatenate(turned, axis=-1)


# %% [markdown]
# This is `attnlib.positions.apply_rope`. Three properties, on the real queries and keys of the head for *it*. They are the reasons for the design:

# %%
head = real_head("pronoun")
q, k = head.x @ head.w_q + head.b_q, head.x @ head.w_k + head.b_k
at = np.arange(15)

rotated = attention_scores(apply_rope(q, at), apply_rope(k, at))
moved = attention_scores(apply_rope(q, at + 100), apply_rope(k, at + 100))
assert np.allclose(rotated, moved, atol=1e-3)                                             # only differences matter
assert np.allclose(np.linalg.norm(apply_rope(q, at), axis=-1), np.linalg.norm(q, axis=-1))  # lengths are kept
assert np.allclose(apply_rope(q, np.zeros(15)), q)                                        # position 0 changes nothing
print(f"all positions moved by 100: scores change by less than 0.001: {np.abs(rotated - moved).max() < 1e-3}")

# %% [markdown]
# Values are not rotated: position decides *who* is looked at, not *what* is handed over. In a cache, keys are stored after rotation, each with its own
# position once and for all, which works because only differences matter.
#
# One thing that you proved in chapter 4 is no longer true. A bias on the keys used to shift a whole row by a constant, and so could not
# matter. Does it matter now? Give the keys a bias of ordinary size:

# %%
bias = rng.standard_normal(32, dtype="float32")
effect = {}
for name, place in (("plain", np.zeros(15)), ("RoPE", at)):
    with_bias = softmax(attention_scores(apply_rope(q, place), apply_rope(k + bias, place)))
    effect[name] = np.abs(with_bias - softmax(attention_scores(apply_rope(q, place), apply_rope(k, place)))).max()
    print(f"{name:>5}: a key bias changes a weight by up to {effect[name]:.2f}")
assert effect["plain"] < 1e-5 < 0.1 < effect["RoPE"]

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It matters. The bias is turned by the *key's* position, so it adds a different amount to each key: a preference for certain distances, whatever the key's content. (This head was not
# trained with RoPE; the point is the algebra.)
# :::
#
# ### The mistake: the other pairing
#
# Weights trained with one pairing are used with code for the other. Shapes fit, norms are kept, scores depend on distance only. Nothing fails. What is wrong?

# %%
trained_as = attention_scores(apply_rope(q, at, interleaved=True), apply_rope(k, at, interleaved=True))
run_as = attention_scores(apply_rope(q, at), apply_rope(k, at))
print("row of “it”, first keys, interleaved:", trained_as[10, :5])
print("row of “it”, first keys, half-split :", run_as[10, :5])
assert not np.allclose(trained_as, run_as, atol=0.1)

# %% [markdown]
# The scores are different numbers. Column 1 used to be the partner of column 0 at the fastest speed; now it is the partner of column 17 at another. The cure is to
# reorder the columns of $W_Q$ and $W_K$ once, when the weights are loaded: even columns first, then the odd ones. Then half-split code computes exactly what interleaved code did.

# %%
columns = np.concatenate([np.arange(0, 32, 2), np.arange(1, 32, 2)])
reordered = attention_scores(apply_rope(q[:, columns], at), apply_rope(k[:, columns], at))
assert np.allclose(reordered, trained_as, atol=1e-4)
print(columns)

# %% [markdown]
# ### Does RoPE forget distant tokens?
#
# It is often said that rotation makes scores decay with distance. The paper derives a *bound* that decays (Section 3.4.3). What do the scores themselves do? Take 200 random vectors, use each as query and as key, and let
# the distance grow; and beside it one random query with a random key.

# %%
distances = np.arange(0, 400)
same = rng.normal(size=(200, 1, 64))                                              # each serves as query and as key
mean = (apply_rope(same, distances[:1]) * apply_rope(np.repeat(same, 400, axis=1), distances)).sum(-1).mean(0)
one_q, one_k = rng.normal(size=(2, 64))
single = apply_rope(np.tile(one_k, (400, 1)), distances) @ one_q
mean, single = mean / mean[0], single / np.linalg.norm(one_q) / np.linalg.norm(one_k)  # as cosines
print("mean, at distances 0, 10, 100, 399:", mean[[0, 10, 100, 399]])
print("one pair, at the same distances   :", single[[0, 10, 100, 399]])
assert np.argmax(single) > 100                                                    # its best distance is far away

# %% mystnb={"image": {"alt": "Two curves of cosine against distance from 0 to 400. The mean over equal queries and keys falls from 1 to about two thirds within ten positions and then ripples slowly down to about 0.2. The curve of one random pair swings irregularly around zero and is highest far away."}, "figure": {"caption": "Where query and key are alike, rotation lowers the score with distance on average, in ripples. For other pairs there is no such rule: a trained head can prefer any distance.", "name": "fig-rope-distance"}}
plots.rotation_scores(distances, mean, single)
plt.show()

# %% [markdown]
# Decay is a property of the average over *matching* queries and keys, not of RoPE. This random pair likes a distance beyond 100 best.
#
# ## Why not charge for distance?
#
# ALiBi {cite}`press2021` adds nothing to the vectors and turns nothing. It subtracts from each score a price per position of distance,
# a different price $m_h$ in each head:
#
# $$S_{ij} = \frac{q_i \cdot k_j}{\sqrt d} - m_h\,(i - j), \qquad j \le i$$

# %%
def alibi_slopes(heads):
    power = 2 ** (int(heads).bit_length() - 1)               # the largest power of two not above heads
    slopes = 2.0 ** (-8 / power * np.arange(1, power + 1))
    extra = 2.0 ** (-4 / power * np.arange(1, 2 * power, 2))  # every other slope for twice as many heads
    return np.concatenate([slopes, extra[: heads - power]])


def alibi_bias(heads, seq_q, seq_k=None):
    seq_k = seq_q if seq_k is None else seq_k
    q_idx = np.arange(seq_k - seq_q, seq_k)[:, None]         # (seq_q, 1), aligned to the end
    nearness = -np.abs(q_idx - np.arange(seq_k))             # (seq_q, seq_k), 0 at the query's own position
    return alibi_slopes(heads)[:, None, None] * nearness     # (heads, seq_q, seq_k)


print("slopes of 8 heads:", alibi_slopes(8))
print("one query after three keys, head 1:", alibi_bias(8, 1, 4)[0])

# %% [markdown]
# They are `attnlib.positions.alibi_slopes` and `attnlib.positions.alibi_bias`. You know from chapter 4 what a lead is worth: a price of $m$ per position multiplies the weight by $e^{-m}$ per position. At what distance has an equally good key lost 99% of
# its weight in head 1, where $m = \tfrac12$? In head 8, where $m = \tfrac1{256}$?

# %%
for number in (1, 4, 8):
    slope = alibi_slopes(8)[number - 1]
    print(f"head {number}: factor 0.01 at distance {np.log(100) / slope:.0f}")

# %% mystnb={"image": {"alt": "Three lower-triangular maps of 32 by 32. In head 1 only a narrow band below the diagonal is dark; in head 4 the band is wide and fades slowly; in head 8 the triangle is almost evenly dark."}, "figure": {"caption": "The factor that ALiBi puts on an equally good key: from a narrow window in the first head to almost none of a window in the last.", "name": "fig-alibi"}}
plots.bias_maps(alibi_bias(8, 32), [0, 3, 7])
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# $e^{-mt} = 0.01$ at $t = \ln(100)/m$: after 9 positions in head 1, after 1179 in head 8. The slopes are fixed, not learned, so what a head can reach is decided before training.
# :::
#
# ## What works beyond the training length?
#
# Positions are learned on sequences of some length and then used on longer ones. Which scheme survives? We train and measure, with NumPy and
# the backward pass of chapter 5.
#
# **The task.** Each token carries eight random numbers, its content; about every fifth token is *marked*. Every query shall return the content of the **latest** marked token, itself included.
# Content and mark say which tokens qualify. Only position says which of them is the latest.

# %%
def draw(rng, size, seq):
    content = rng.normal(size=(size, seq, 8))
    marked = rng.random((size, seq)) < 0.2
    marked[:, 0] = True                                                          # so that every query has an answer
    latest = np.maximum.accumulate(np.where(marked, np.arange(seq), 0), axis=1)  # (size, seq): index of the answer
    return content, marked, latest


content, marked, latest = draw(rng, 1, 12)
print(marked[0].astype(int))
print(latest[0])

# %% [markdown]
# **The model.** One causal head of width 32 on vectors of width 32. Its values are the contents themselves, so that nothing but the weights is on trial. We learn $W_Q$ and $W_K$
# (and the table, for learned positions) under five schemes: *none*, *learned*, *sinusoids*, *RoPE* and *ALiBi* with the steepest slope of eight heads, $m = \tfrac12$.

# %%
WIDTH, TRAINED = 32, 32


def forward(scheme, x, params):
    seq = x.shape[-2]
    if scheme == "sinusoids":
        x = x + sinusoids(seq, WIDTH)
    if scheme == "learned":
        x = x + params["table"][:seq]                             # there are no more rows than this
    q, k = x @ params["w_q"], x @ params["w_k"]                   # (size, seq, WIDTH)
    if scheme == "RoPE":
        q, k = apply_rope(q, np.arange(seq)), apply_rope(k, np.arange(seq))
    scores = attention_scores(q, k)
    if scheme == "ALiBi":
        scores = scores + alibi_bias(8, seq)[0]
    return x, q, k, softmax(np.where(to_array(causal, seq), scores, -np.inf))


# %% [markdown]
# **The gradients.** `attention_backward` gives the gradients of queries and keys. A rotation is undone by the opposite rotation, so RoPE's backward pass is RoPE with the
# positions negated. Biases and masks need nothing: they are constants that were added.

# %%
def gradients(scheme, x, q, k, weights, content, wanted, params):
    target = np.take_along_axis(content, wanted[..., None], axis=1)
    d_out = 2 * (weights @ content - target) / wanted.size         # squared error, mean over queries
    d_q, d_k, _ = attention_backward(d_out, q, k, content, weights)
    if scheme == "RoPE":
        back = -np.arange(x.shape[-2])
        d_q, d_k = apply_rope(d_q, back), apply_rope(d_k, back)
    grads = {"w_q": np.einsum("bsd,bse->de", x, d_q), "w_k": np.einsum("bsd,bse->de", x, d_k)}
    if scheme == "learned":
        grads["table"] = (d_q @ params["w_q"].T + d_k @ params["w_k"].T).sum(axis=0)
    return grads


# %% [markdown]
# **The training.** 400 steps of Adam {cite}`kingma2014` on batches of 16 sequences of 32 tokens.

# %%
def adam(params, grads, memory, step, rate=3e-3):
    for name, grad in grads.items():
        first, second = memory.setdefault(name, (0, 0))
        first, second = 0.9 * first + 0.1 * grad, 0.99 * second + 0.01 * grad**2
        memory[name] = first, second
        params[name] = params[name] - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)


def tokens(content, marked, embed):
    plain = np.concatenate([content, marked[..., None], np.ones_like(content[..., :1])], axis=-1)
    return plain @ embed                                           # (size, seq, WIDTH)


# %%
def train(scheme, seed, answer, steps=400):
    rng = np.random.default_rng(seed)
    embed = rng.normal(size=(10, WIDTH)) / np.sqrt(10)
    params = {name: rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH) for name in ("w_q", "w_k")}
    if scheme == "learned":
        params["table"] = 0.02 * rng.normal(size=(TRAINED, WIDTH))
    memory = {}
    for step in range(1, steps + 1):
        content, marked, latest = draw(rng, 16, TRAINED)
        x, q, k, weights = forward(scheme, tokens(content, marked, embed), params)
        adam(params, gradients(scheme, x, q, k, weights, content, answer(latest), params), memory, step)
    return embed, params


# %% [markdown]
# **The measure.** The weight that the last 16 queries put on the right token, on sequences of 32 (as trained) up to 512.
# Before you run it, rank the five schemes at length 512.

# %%
LENGTHS = [32, 64, 128, 256, 512]


def weight_on_answer(scheme, embed, params, seq, answer):
    if scheme == "learned" and seq > TRAINED:
        return np.nan                                              # no such rows: it cannot run at all
    content, marked, latest = draw(np.random.default_rng(99), 8, seq)
    weights = forward(scheme, tokens(content, marked, embed), params)[-1]
    return np.take_along_axis(weights, answer(latest)[..., None], axis=-1)[:, -16:].mean()


def measure(answer, seeds=(0, 1, 2)):
    results = {}
    for scheme in ("none", "learned", "sinusoids", "RoPE", "ALiBi"):
        trained = [train(scheme, seed, answer) for seed in seeds]
        results[scheme] = np.array([[weight_on_answer(scheme, *each, n, answer) for n in LENGTHS] for each in trained])
    return results


# %% tags=["nbval-ignore-output"]
recent = measure(lambda latest: latest)
for scheme, by_length in recent.items():
    print(f"{scheme:>10}", by_length.mean(axis=0).round(2))

mean_at = {scheme: dict(zip(LENGTHS, by_length.mean(axis=0), strict=True)) for scheme, by_length in recent.items()}
assert min(mean_at[scheme][32] for scheme in ("learned", "sinusoids", "RoPE")) > 0.85       # solved, as trained
assert mean_at["none"][32] < 0.4                                                             # not without positions
assert mean_at["sinusoids"][128] < 0.2                                                       # collapses
assert 0.4 < mean_at["RoPE"][512] < mean_at["RoPE"][32] - 0.1                                # erodes
assert abs(mean_at["ALiBi"][512] - mean_at["ALiBi"][32]) < 0.1 < 0.95 - mean_at["ALiBi"][32]  # flat, never best

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# *ALiBi* is the only one that does not care about length, and at the training length the worst of the four that know positions. *RoPE* starts well and erodes. *Sinusoids* collapse within
# a few times the training length: the head has learned its relative rule only at the positions it saw. *Learned* positions cannot run at all. *None* spreads its weight over all
# the marked tokens: a single causal head cannot tell them apart.
# :::
#
# So ALiBi wins? Be careful: the task asked for the *latest*, and a price on distance is a prejudice for exactly that. Ask the same schemes for the **oldest** marked token instead, which is always the first of the
# sequence, and nothing else in the experiment changes.

# %% tags=["nbval-ignore-output"]
oldest = measure(np.zeros_like)
for scheme, by_length in oldest.items():
    print(f"{scheme:>10}", by_length.mean(axis=0).round(2))

mean_old = {scheme: dict(zip(LENGTHS, by_length.mean(axis=0), strict=True)) for scheme, by_length in oldest.items()}
assert mean_old["ALiBi"][32] < 0.1                                       # its price forbids the answer, even as trained
assert mean_old["RoPE"][64] < 0.3 < 0.6 < mean_old["sinusoids"][64]      # now sinusoids hold longer than RoPE
assert mean_old["learned"][32] > 0.9
print("what ALiBi charges for 31 positions:", -alibi_bias(8, 32)[0, -1, 0])

# %% mystnb={"image": {"alt": "Two panels of weight on the right token against sequence length from 32 to 512. For the latest mark: ALiBi is flat near 0.8, RoPE starts above 0.9 and falls to about 0.65, sinusoids start at 0.9 and are near 0 from 128 on, learned positions exist only at 32, none starts at 0.2 and falls. For the oldest token: learned reaches 1 at 32 only, sinusoids start at 1 and fall, with a wide band over seeds, to 0 at 512, RoPE starts near 0.75 and is near 0 from 64 on, ALiBi and none are near 0."}, "figure": {"caption": "Beyond the training length nothing works by itself. A scheme extrapolates where its built-in prejudice agrees with the task: recency for ALiBi and RoPE, absolute position for sinusoids. Lines are means of three seeds, bands their range.", "name": "fig-extrapolation"}}
plots.extrapolation(LENGTHS, {"return the latest mark": recent, "return the oldest mark": oldest}, TRAINED)
plt.show()

# %% [markdown]
# The ranking turns around. ALiBi cannot do the task even at the length it was trained on: to reach back 31 positions it would have to overcome a price of 15.5. RoPE knows differences only, and the first token has no fixed
# distance. Sinusoids know absolute positions and hold on longest. There is no scheme that extrapolates as such. This is one head, one width, two made tasks; what carries over is the question to ask of any claim about
# length: *what does the task need to know, position or distance, near or far?*
#
# **And none at all?** Decoders without any position signal can be trained and do well {cite}`haviv2022`, in some length-generalisation tests better than with one {cite}`kazemnejad2023`: behind a causal mask the first token sees one key, the second two,
# and deeper layers can read that (chapter 5). One layer, as here, could not.

# %% [markdown]
# ## What to remember
#
# | scheme | where it enters | depends on | has an end | prejudice |
# |---|---|---|---|---|
# | learned table | added to token vectors | absolute position | yes: the table's length | none |
# | sinusoids | added to token vectors | absolute position; distance can be learned | no, but rules learned inside do not hold outside | none |
# | RoPE | turns queries and keys, in every layer | distance | no, but unseen distances are unseen angles | weak: matching vectors score lower far away |
# | ALiBi | subtracted from scores, in every layer | distance | no | strong: near before far |
# | none | nowhere | the causal mask, through depth | no | |
#
# **In practice.** RoPE is the scheme of most current decoders (Llama, Qwen, Mistral among them), in the half-split layout in most open code. To use them on longer inputs, positions are squeezed or the base is raised and the model is trained a little
# further {cite}`chen2023,peng2023`; both change which angles stand for which distance. BERT-like encoders have learned tables. Relative positions were first learned as vectors per distance {cite}`shaw2018`; the third exercise builds their simplest form.
#
# **Shortcut taken here.** Our experiment has one head and separates position from everything else. In a deep model, layers can pass positions on, and heads with different speeds or slopes divide the work.

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["ex:shift_matrix", "ex-prompt"]
# ```{exercise} A shift is a rotation
# :label: ex-shift-matrix
# Write `shift_matrix(steps, dim)`, a (dim, dim) matrix with `sinusoids(seq, dim)[t] @ shift_matrix(s, dim) == sinusoids(seq, dim)[t + s]` for every position `t`. It must not depend on `t`: this is how a head
# *could* learn "the token four to the left". Recall $\sin(a + b) = \sin a \cos b + \cos a \sin b$ and $\cos(a+b) = \cos a \cos b - \sin a \sin b$.
# ```

# %% tags=["ex:shift_matrix", "ex-stub"]
def shift_matrix(steps, dim):
    raise NotImplementedError("replace this line")

# %% tags=["ex:shift_matrix", "ex-solution", "hide-cell"]
def shift_matrix(steps, dim):
    matrix = np.zeros((dim, dim))
    for i, angle in enumerate(position_angles(np.array([steps]), dim)[0]):
        cos, sin = np.cos(angle), np.sin(angle)
        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[cos, -sin], [sin, cos]]  # a row (sin, cos) times this
    return matrix

# %% tags=["ex:shift_matrix", "ex-check"]
for steps in (1, 4, -3):
    assert np.allclose(clock[10:50] @ shift_matrix(steps, 64), clock[10 + steps : 50 + steps])
assert np.allclose(shift_matrix(3, 8) @ shift_matrix(3, 8).T, np.eye(8))  # a rotation

# %% [markdown] tags=["ex:complex_rope", "ex-prompt"]
# ```{exercise} RoPE in one multiplication
# :label: ex-complex-rope
# Read each neighbouring pair of columns as one complex number. Then turning it by an angle is a multiplication by $e^{\mathrm i\,\text{angle}}$. Write `complex_rope(x, positions)` for the
# *interleaved* layout, on any leading axes. (Hint: `x[..., 0::2] + 1j * x[..., 1::2]`.)
# ```

# %% tags=["ex:complex_rope", "ex-stub"]
def complex_rope(x, positions):
    raise NotImplementedError("replace this line")

# %% tags=["ex:complex_rope", "ex-solution", "hide-cell"]
def complex_rope(x, positions):
    numbers = x[..., 0::2] + 1j * x[..., 1::2]                                   # (..., seq, dim / 2)
    numbers = numbers * np.exp(1j * position_angles(positions, x.shape[-1]))
    return np.stack([numbers.real, numbers.imag], axis=-1).reshape(x.shape)

# %% tags=["ex:complex_rope", "ex-check"]
batch = np.random.default_rng(1).normal(size=(2, 3, 5, 8))                      # (batch, heads, seq, dim_head)
places = np.array([0, 1, 5, 6, 40])
assert np.allclose(complex_rope(batch, places), apply_rope(batch, places, interleaved=True))
assert not np.allclose(complex_rope(batch, places), apply_rope(batch, places))  # the other layout is something else

# %% [markdown] tags=["ex:relative_bias", "ex-prompt"]
# ```{exercise} Learned distances
# :label: ex-relative-bias
# Write `relative_bias(table, seq_q, seq_k)`: a bias for each query and key, looked up by the distance *query position − key position*, clipped to $[-c, c]$. `table` has $2c + 1$ entries, `table[0]` for distance $-c$ (a key
# $c$ or more *after* the query), `table[c]` for distance 0. Queries are the last `seq_q` of the `seq_k` positions.
# ```

# %% tags=["ex:relative_bias", "ex-stub"]
def relative_bias(table, seq_q, seq_k):
    raise NotImplementedError("replace this line")

# %% tags=["ex:relative_bias", "ex-solution", "hide-cell"]
def relative_bias(table, seq_q, seq_k):
    reach = len(table) // 2
    distance = np.arange(seq_k - seq_q, seq_k)[:, None] - np.arange(seq_k)     # (seq_q, seq_k)
    return table[np.clip(distance, -reach, reach) + reach]

# %% tags=["ex:relative_bias", "ex-check"]
table = np.array([-2.0, -1.0, 0.0, 10.0, 20.0])                                 # distances -2 … 2
assert np.array_equal(relative_bias(table, 4, 4)[3], [20, 20, 10, 0])           # the last query
assert np.array_equal(relative_bias(table, 4, 4)[0], [0, -1, -2, -2])           # the first
assert np.array_equal(relative_bias(table, 1, 4), relative_bias(table, 4, 4)[3:])  # decoding: aligned to the end
causal_part = np.tri(6, dtype=bool)
priced = -0.5 * np.abs(np.arange(-5, 6.0))                                       # ALiBi is a table that is not learned
assert np.allclose(relative_bias(priced, 6, 6)[causal_part], alibi_bias(8, 6)[0][causal_part])

# %% [markdown] tags=["ex:explore_base", "ex-prompt", "ex-open"]
# ```{exercise} Explore: squeeze the positions
# :label: ex-explore-base
# Give the trained RoPE heads of this chapter the positions `np.arange(seq) * 32 / seq` instead of `np.arange(seq)`, so that no angle is new to them. Which of the two tasks gets better beyond length 32, and which worse? Explain it by what
# happens to the distance between neighbours. Then train with a `base` of 100 instead of 10,000.
# ```

# %% [markdown]
# **Sources.** Sinusoids: {cite:t}`vaswani2017`. RoPE: {cite:t}`su2021`. ALiBi: {cite:t}`press2021`. Relative positions: {cite:t}`shaw2018`. Without positions: {cite:t}`haviv2022`, {cite:t}`kazemnejad2023`. Equivariance: {cite:t}`lee2018`.
