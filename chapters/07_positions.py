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
# Take the positions out of the token vectors and the mask off the scores, and attention cannot tell that *animal* comes before *street* (chapter 5). In this chapter you
# see what that costs a real head, build three ways of putting order back, sinusoids, rotations and biases, and then measure which of them
# still work on sequences longer than any seen in training.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapters 3 to 6, sines and cosines, and rotation in the plane. **You will build** {term}`sinusoids`, {term}`RoPE`, {term}`ALiBi`, and an
# experiment that trains with the backward pass of chapter 5. **Time** about 55 minutes.
# The last figure, {numref}`fig-extrapolation`, is where we are going.
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
# As in chapter 5, we rebuild what enters MiniLM's first layer: a row of the word table, a row of the position table and a vector for the segment are
# added and normalised. So we can leave one out.

# %%
layer = real_layer()


def embed(words, positions):
    vectors = words + positions + layer.segment_vector       # (seq, dim)
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    size = np.sqrt(vectors.var(axis=-1, keepdims=True) + layer.norm_epsilon)
    return centred / size * layer.norm_scale + layer.norm_shift


inputs = {"both": embed(layer.word_vectors, layer.position_vectors),
          "words only": embed(layer.word_vectors, 0),
          "positions only": embed(0, layer.position_vectors)}
assert np.allclose(inputs["both"], layer.x, atol=1e-5)       # float32: what the model itself reads

# %% [markdown]
# Exchange *animal* and *street*: *The street didn't cross the animal because it was too tired* means something else. Take the head that looks for
# equal words. How much does its output for *it* change, without positions and with them?

# %%
def read(head, x):
    return attention(x @ head.w_q + head.b_q, x @ head.w_k + head.b_k,
                     x @ head.w_v + head.b_v)


same_word, it = real_head("same_word"), layer.tokens.index("it")
words_told = layer.word_vectors
words_exchanged = words_told.copy()
words_exchanged[[2, 8]] = words_told[[8, 2]]                 # “animal” and “street”

# %%
def length(x):
    return np.linalg.norm(x, axis=-1)


change = {}
for title, positions in (("without", 0), ("with", layer.position_vectors)):
    told, exchanged = (read(same_word, embed(words, positions))[0][it]
                       for words in (words_told, words_exchanged))
    change[title] = length(exchanged - told) / length(told)
    print(f"{title:>7} positions: “it” changes by {change[title]:.1%}")
assert change["without"] < 1e-5 < 1e-3 < change["with"]      # float32 rounding, and a change

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Without positions it does not change at all: the layer is **{term}`equivariant <equivariance>`** under permutations {cite}`lee2018`, so the two exchanged rows come out
# exchanged and every other token gets what it got before. Who failed to cross whom is lost. With positions there is a difference, if a small one, for the layers above to build on.
# :::
#
# Now the head that looks at the **previous token**. Feed it words and positions, words alone, and positions alone.

# %%
previous = real_head("previous")
maps = {title: read(previous, x)[1] for title, x in inputs.items()}
for title, each in maps.items():
    to_left = np.diagonal(each, offset=-1)                   # (14,) each token but the first
    print(f"{title:>15}: mean weight one to the left {to_left.mean():.2f}")
assert np.abs(maps["both"] - maps["positions only"]).max() < 0.05

# %% mystnb={"image": {"alt": "Three maps of weights for the previous-token head. With both parts and with positions only, a sharp dark line runs just below the diagonal. With words only the line is gone and weight is scattered, most of it over a few columns."}, "figure": {"caption": "On this sentence the head goes by positions: with the words removed its weights stay, with the positions removed they are lost.", "name": "fig-previous-without-positions"}}
plots.weight_maps(maps, layer.tokens, height=2.9)
plt.show()

# %% [markdown]
# MiniLM has a table of {term}`learned positions`, one row for each of 512, as BERT has {cite}`devlin2018`. No formula is needed, and the table has an end: there is no row for
# a 513th token. The other schemes compute what they need, for any position.
#
# ## Which numbers make a good clock?
#
# Write a position in binary and its last bit flips at every step, the next at every second step, and so on: fast digits and slow digits. {cite:t}`vaswani2017` use smooth
# digits. Pair $i$ of the columns turns at its own speed $\omega_i$, and holds the sine and the cosine of its angle:
#
# $$p_{2i} = \sin(\omega_i\, t), \qquad p_{2i+1} = \cos(\omega_i\, t), \qquad \omega_i = 10000^{-2i/D}$$
#
# where $p$ is the vector of position $t$, and $D$ its width. The first pair turns by 1 radian per token, the last, in wide vectors, nearly 10,000 times more slowly.

# %%
def position_angles(positions, dim, base=10000.0):
    speeds = base ** (-np.arange(0, dim, 2) / dim)           # (dim / 2,), radians per position
    return positions[..., None] * speeds                     # (..., seq, dim / 2)


slowest = position_angles(np.array([1]), 64)[0, -1]
print(f"width 64: the first is {1 / slowest:.0f} times faster than the last")

# %%
def sinusoids(seq, dim):
    angles = position_angles(np.arange(seq), dim)            # (seq, dim / 2)
    vectors = np.empty((seq, dim))
    vectors[:, 0::2] = np.sin(angles)
    vectors[:, 1::2] = np.cos(angles)
    return vectors


clock = sinusoids(128, 64)
print(clock[:3, :6])

# %% [markdown]
# These are `attnlib.positions.position_angles` and `attnlib.positions.sinusoids`. How similar are two positions? Take all dot
# products. Does the dot product of positions 3 and 10 differ from that of positions 103 and 110?

# %%
similarity = clock @ clock.T                                  # (seq, seq)
print(f"3 and 10:    {similarity[3, 10]:.3f}")
print(f"103 and 110: {similarity[103, 110]:.3f}")

# %%
for distance in (1, 7, 50):
    along = np.diagonal(similarity, offset=distance)
    assert np.allclose(along, along[0])                       # the same all along the diagonal

# %% mystnb={"image": {"alt": "Top: a map of 128 position vectors of width 64; the left columns alternate quickly down the positions, the right columns hardly change. Bottom: the dot product against distance starts at 32, drops steeply to about 21 within ten positions, and then sinks slowly, in ripples, to about 11 at distance 127."}, "figure": {"caption": "Sinusoids are a clock with fast and slow hands (stripes: sine and cosine alternate). The dot product of two positions depends on their distance only.", "name": "fig-sinusoids"}}
plots.sinusoid_map(clock, similarity[0])
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It does not: $\sin a \sin b + \cos a \cos b = \cos(a - b)$, so the dot product is $\sum_i \cos(\omega_i (t - t'))$. Only the distance is left.
# :::
#
# That is the promise of sinusoids, and here is the catch. A head does not compare the position vectors themselves. It compares them
# *after* $W_Q$ and $W_K$. Draw these at random and look along a diagonal again:

# %%
w_q, w_k = rng.normal(size=(2, 64, 32)) / 8
projected = attention_scores(clock @ w_q, clock @ w_k)
along = np.diagonal(projected, offset=-7)
print("scores at distance 7:", along[::30])
print(f"standard deviation {along.std():.2f}, of all {projected.std():.2f}")
assert along.std() > 0.5 * projected.std()      # the same distance, very different scores

# %% [markdown]
# Along a diagonal, where the distance is fixed, scores now vary, more than half as much as over the whole map. A relative rule is *possible*
# for such a head. A shift by $s$ positions is a fixed rotation of each pair (the first exercise builds it). If $W_Q W_K^\top$ is that
# rotation, on as many pairs as the head's width allows, the score compares $p$ at $t + s$ with $p$ at $t'$: it depends on $t - t'$ only and is largest $s$ tokens away.
#
# But the head has to learn it, and sees only the positions of its training data. And the sinusoids are added to the word vectors, so a score is a sum of four
# products: word with word, position with position, and two that mix them.
#
# ## Why not rotate?
#
# If we want scores that depend on distance whatever the projections are, position must come in **after** the projections. In {term}`RoPE`, {cite:t}`su2021` turn each pair of columns of a
# query or key by an angle proportional to its position. Turning both by the same amount changes no dot product, so only the *difference* of positions can matter. In one
# pair, at 0.3 radians per position:

# %%
def turn(pair, angle):
    return np.array([pair[0] * np.cos(angle) - pair[1] * np.sin(angle),
                     pair[0] * np.sin(angle) + pair[1] * np.cos(angle)])

# %%
query, key = np.array([1.0, 0.0]), np.array([-0.6, 0.8])
here = np.array([turn(query, 0.3 * 5), turn(key, 0.3 * 2)])   # query at position 5, key at 2
later = np.array([turn(query, 0.3 * 9), turn(key, 0.3 * 6)])  # both four positions later
print(f"dot products: {here[0] @ here[1]:.3f} and {later[0] @ later[1]:.3f}")
assert np.isclose(here[0] @ here[1], later[0] @ later[1])

# %% mystnb={"image": {"alt": "Two panels with a query arrow and a key arrow of length one in the plane. In the right panel both arrows are turned further by the same angle; the angle between them is unchanged."}, "figure": {"caption": "Four positions later both arrows have turned by the same angle. The angle between them, and so the score, has not changed.", "name": "fig-turning-pair"}}
plots.turning_pair(here, later)
plt.show()

# %% [markdown]
# A head of width $d$ has $d/2$ pairs, each with its own speed, the same speeds as above. Which columns form a pair? The paper
# takes neighbours, $2i$ and $2i+1$ (*interleaved*); many libraries take $i$ and $i + d/2$ (*half-split*), which keeps each
# half contiguous in memory. Both are RoPE.

# %%
def apply_rope(x, positions, base=10000.0, interleaved=False):
    angles = position_angles(positions, x.shape[-1], base)   # (..., seq, dim / 2)
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    half = x.shape[-1] // 2
    a, b = ((x[..., 0::2], x[..., 1::2]) if interleaved
            else (x[..., :half], x[..., half:]))
    turned = a * cos - b * sin, a * sin + b * cos            # two of (..., seq, dim / 2)
    if interleaved:
        return np.stack(turned, axis=-1).reshape(            # a, b, a, b, …
            *turned[0].shape[:-1], 2 * half)
    return np.concatenate(turned, axis=-1)

# %% [markdown]
# This is `attnlib.positions.apply_rope`. The angles are computed in float64, and only sine and cosine are cast to the dtype of `x`. A position held in half precision would already be wrong:

# %%
print(int(np.float32(2049)), int(np.float16(2049)))

# %% [markdown]
# Three properties are the reasons for the design: only differences of positions matter, lengths are kept, and position 0 changes nothing. See them on the
# real queries and keys of the head for *it*. (It was not trained with RoPE, and MiniLM's own positions are still in its `x`; the point is the algebra.)

# %%
head = real_head("pronoun")
q, k = head.x @ head.w_q + head.b_q, head.x @ head.w_k + head.b_k
at = np.arange(15)

rotated = attention_scores(apply_rope(q, at), apply_rope(k, at))
moved = attention_scores(apply_rope(q, at + 100), apply_rope(k, at + 100))
assert np.allclose(rotated, moved, atol=1e-5)                # only differences matter (float32)
print("row of “it”, positions from 0:  ", rotated[it, :5])
print("row of “it”, positions from 100:", moved[it, :5])

# %%
assert np.allclose(length(apply_rope(q, at)), length(q))     # lengths are kept
assert np.allclose(apply_rope(q, np.zeros(15)), q)           # position 0 changes nothing

# %% [markdown]
# Values are not rotated: position decides *who* is looked at, not *what* is handed over. And because only differences matter, a {term}`cache <KV cache>` can store each key
# after rotation, with its own position, once and for all. (A cache that renumbers its positions, as {cite:t}`xiao2023` do, stores keys before rotation.)
#
# One thing that you proved in chapter 4 is no longer true. A bias on the keys used to shift a whole row by a constant, and so could not
# matter. Does it matter now? Give the keys a bias of ordinary size:

# %%
bias = rng.standard_normal(32, dtype="float32")


def rope_weights(q, k, places):
    return softmax(attention_scores(apply_rope(q, places),
                                    apply_rope(k, places)))


# %%
effect = {}
for name, places in (("plain", np.zeros(15)), ("RoPE", at)):   # all at 0: no rotation
    unbiased = rope_weights(q, k, places)
    effect[name] = np.abs(rope_weights(q, k + bias, places) - unbiased).max()
    print(f"{name:>5}: a weight changes by up to {effect[name]:.2f}")
assert effect["plain"] < 1e-5 < 0.1 < effect["RoPE"]         # float32 rounding, and a real change

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It matters. The bias is turned by the *key's* position, so it adds a different amount to each key: a preference of the query for certain distances, whatever the key's content.
# :::
#
# ### The mistake: the other pairing
#
# Weights trained with one pairing are used with code for the other. Shapes fit, norms are kept, scores depend on distance only. Nothing fails. What is wrong?

# %%
trained_as = attention_scores(apply_rope(q, at, interleaved=True),
                              apply_rope(k, at, interleaved=True))
print("row of “it”, interleaved:", trained_as[it, :5])
print("row of “it”, half-split :", rotated[it, :5])
assert np.abs(trained_as - rotated).max() > 1

# %% [markdown]
# The scores are different numbers. Column 1 used to be the partner of column 0 at the fastest speed; now it is the partner of column 17 at another. The cure is to
# reorder the columns of each head's $W_Q$ and $W_K$ (and of their biases) once, when the weights are loaded: even columns first, then the odd ones. Queries and keys then come out reordered, and
# half-split code gives the scores that interleaved code gave.

# %%
columns = np.concatenate([np.arange(0, 32, 2), np.arange(1, 32, 2)])
reordered = attention_scores(apply_rope(q[:, columns], at),
                             apply_rope(k[:, columns], at))
assert np.allclose(reordered, trained_as, atol=1e-5)         # float32 rounding
print(columns)

# %% [markdown]
# ### Does RoPE forget distant tokens?
#
# It is often said that rotation makes scores decay with distance. The paper derives a *bound* that decays ({cite:t}`su2021`, Section 3.4.3). What do the scores themselves do? Take 200 random vectors, use each as query and as key, and let
# the distance grow; then pair each with another random key.

# %%
distances = np.arange(400)
random_q, random_k = rng.normal(size=(2, 200, 64))


def rope_by_distance(q, k):
    copies = np.repeat(q[:, None], 400, axis=1)              # (200, 400, 64)
    return (apply_rope(copies, distances) @ k[..., None])[..., 0]  # (200, 400)


# %%
alike = rope_by_distance(random_q, random_q)
mixed = rope_by_distance(random_q, random_k)
mean = alike.mean(axis=0) / alike[:, 0].mean()
print("equal vectors, mean, at 0, 10, 100, 399:", mean[[0, 10, 100, 399]])
assert np.allclose(mean[:128], similarity[0] / 32, atol=0.05)  # the curve of the sinusoids

# %%
best = mixed.argmax(axis=1)                                  # the distance each pair likes best
print(f"other pairs, best beyond distance 100: {(best > 100).mean():.0%}")
assert (best > 100).mean() > 0.6

# %% mystnb={"image": {"alt": "Two curves of cosine against distance from 0 to 399. The mean over equal queries and keys falls from 1 to about two thirds within ten positions and then sinks, in ripples, to about 0.2. The curve of one random pair wanders between minus 0.4 and 0.1 without a trend and is highest at the far end."}, "figure": {"caption": "Where query and key are alike, rotation lowers the score with distance on average, in ripples. For other pairs there is no such rule: a trained head can prefer distant keys.", "name": "fig-rope-distance"}}
single = mixed[0] / length(random_q[0]) / length(random_k[0])   # as a cosine
plots.rotation_scores(distances, mean, single)
plt.show()

# %% [markdown]
# Decay is a property of the average over *matching* queries and keys, not of RoPE: there each pair adds $\cos(\omega_i t)$ times its squared length, so the mean is
# the curve of {numref}`fig-sinusoids` again. Where query and key are unrelated, about as many pairs like a distance
# beyond 100 best as there are such distances among the 400.
#
# ## Why not charge for distance?
#
# ALiBi {cite}`press2021` adds nothing to the vectors and turns nothing. It subtracts from each scaled score a price per position of distance,
# a different price $m_h$ in each head:
#
# $$S_{ij} = \frac{q_i \cdot k_j}{\sqrt d} - m_h\,(i - j), \qquad j \le i$$
#
# With $H$ heads, $H$ a power of two, head $h = 1, \dots, H$ has $m_h = 2^{-8h/H}$. For other numbers take the slopes of the next smaller power of two, and then every other slope
# of twice that power.

# %%
def alibi_slopes(heads):
    power = 2 ** (int(heads).bit_length() - 1)               # the largest power of two not above heads
    slopes = 2.0 ** (-8 / power * np.arange(1, power + 1))
    extra = 2.0 ** (-4 / power * np.arange(1, 2 * power, 2))  # every other slope for twice as many heads
    return np.concatenate([slopes, extra[: heads - power]])


print("slopes of 8 heads:", alibi_slopes(8))

# %%
def alibi_bias(heads, seq_q, seq_k=None):
    seq_k = seq_q if seq_k is None else seq_k
    q_idx = np.arange(seq_k - seq_q, seq_k)[:, None]         # (seq_q, 1), aligned to the end
    nearness = -np.abs(q_idx - np.arange(seq_k))             # (seq_q, seq_k), 0 at the query's own position
    return alibi_slopes(heads)[:, None, None] * nearness     # (heads, seq_q, seq_k)


print("one query after three keys, head 1:", alibi_bias(8, 1, 4)[0])

# %% [markdown]
# They are `attnlib.positions.alibi_slopes` and `attnlib.positions.alibi_bias`. You know from chapter 4 what a lead is worth: a price of $m$ per position multiplies a key's weight, relative to the others, by $e^{-m}$ per position. At what distance has a key only 1% of
# the weight of an equally good key at the query's own place, in head 1, where $m = \tfrac12$? In head 8, where $m = \tfrac1{256}$?

# %%
for number in (1, 4, 8):
    slope = alibi_slopes(8)[number - 1]
    print(f"head {number}: 1% at distance {np.log(100) / slope:.0f}")

# %% mystnb={"image": {"alt": "Three lower-triangular maps of 32 by 32. In head 1 only a narrow band below the diagonal is dark; in head 4 the band is wide and fades slowly; in head 8 the triangle is almost evenly dark."}, "figure": {"caption": "The factor that ALiBi puts on an equally good key: from a narrow window in the first head to hardly any limit in the last.", "name": "fig-alibi"}}
plots.bias_maps(alibi_bias(8, 32), [0, 3, 7])
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# $e^{-mt} = 0.01$ at $t = \ln(100)/m$: about 9 positions in head 1, 1179 in head 8. The slopes are fixed, not learned: how much better a distant key has to be is decided before training.
# :::
#
# ## What works beyond the training length?
#
# A model is trained on sequences of some length and then used on longer ones. Which scheme survives? We train and measure, with NumPy and
# the backward pass of chapter 5.
#
# **The task.** Each token carries eight random numbers, its content; about every fifth token is *marked*. Every query shall return the content of the **latest** marked token, itself included.
# The mark says which tokens qualify. Only position says which of them is the latest.

# %%
def draw(rng, *shape):
    content = rng.normal(size=(*shape, 8))                       # shape is (..., seq)
    marked = rng.random(shape) < 0.2
    marked[..., 0] = True                                        # so that every query has an answer
    at_marks = np.where(marked, np.arange(shape[-1]), 0)
    latest = np.maximum.accumulate(at_marks, axis=-1)            # (..., seq): index of the answer
    return content, marked, latest

# %%
content, marked, latest = draw(rng, 12)
print(marked.astype(int))
print(latest)

# %% [markdown]
# **The model.** One causal head of width 32 on vectors of width 32. Content, mark and a constant enter through a fixed random matrix. The values are the contents themselves, so that nothing but the weights
# is on trial. We learn $W_Q$ and $W_K$ (and the table, for learned positions) under five schemes: *none*, *learned*, *sinusoids*, *RoPE* and *ALiBi* with the steepest slope of eight heads, $m = \tfrac12$. Four
# runs, each with its own matrices and data, are computed side by side along a leading axis.

# %%
WIDTH, TRAINED, RUNS = 32, 32, 4


def tokens(content, marked, into):
    constant = np.ones_like(marked, dtype=float)
    extra = np.stack([marked, constant], axis=-1)                # (runs, size, seq, 2)
    return np.concatenate([content, extra], axis=-1) @ into      # (runs, size, seq, WIDTH)


# %%
def add_positions(scheme, x, params):
    seq = x.shape[-2]
    if scheme == "sinusoids":
        return x + sinusoids(seq, WIDTH)
    if scheme == "learned":
        return x + params["table"]                               # TRAINED rows: no other length fits
    return x


# %%
def forward(scheme, x, params, queries):
    seq = x.shape[-2]
    q, k = x @ params["w_q"], x @ params["w_k"]                  # (runs, size, seq, WIDTH)
    if scheme == "RoPE":
        q, k = apply_rope(q, np.arange(seq)), apply_rope(k, np.arange(seq))
    q = q[..., seq - queries :, :]                               # the last ones are enough to test
    scores = attention_scores(q, k)                              # (runs, size, queries, seq)
    if scheme == "ALiBi":
        scores = scores + alibi_bias(8, queries, seq)[0]
    allowed = to_array(causal, queries, seq)
    return q, k, softmax(np.where(allowed, scores, -np.inf))


# %% [markdown]
# **The gradients.** `attention_backward` gives the gradients of queries and keys. A rotation is undone by the opposite rotation, so RoPE's backward pass is RoPE with the
# positions negated. Biases and masks need nothing: they are constants that were added. The loss is the squared error, averaged over the queries of a run.

# %%
def query_key_gradients(scheme, q, k, weights, content, wanted):
    target = np.take_along_axis(content, wanted[..., None], axis=-2)
    d_out = 2 * (weights @ content - target) / wanted[0].size
    d_q, d_k, _ = attention_backward(d_out, q, k, content, weights)
    if scheme == "RoPE":
        back = -np.arange(q.shape[-2])
        d_q, d_k = apply_rope(d_q, back), apply_rope(d_k, back)
    return d_q, d_k                                              # (runs, size, seq, WIDTH)


# %%
def parameter_gradients(scheme, x, d_q, d_k, params):
    grads = {"w_q": x.swapaxes(-1, -2) @ d_q, "w_k": x.swapaxes(-1, -2) @ d_k}
    if scheme == "learned":
        grads["table"] = (d_q @ params["w_q"].swapaxes(-1, -2)
                          + d_k @ params["w_k"].swapaxes(-1, -2))
    return {name: grad.sum(axis=1, keepdims=True)                # over the sequences of a batch
            for name, grad in grads.items()}


# %% [markdown]
# **The training.** 400 steps of Adam {cite}`kingma2014` on batches of 16 sequences of 32 tokens. Adam divides a running mean of each gradient by the root of a running mean of
# its square. The learning rate was changed after a first run, from 3e-3 to 1e-2: of four
# rates, 1e-3 to 3e-2, it is the best at the training length, on the mean over schemes and both tasks below. In the code, `answer` is a function that turns `latest` into the index wanted, so that the task can be exchanged.

# %%
def adam(params, grads, memory, step, rate=1e-2):
    for name, grad in grads.items():
        first, second = memory.get(name, (0, 0))
        first = 0.9 * first + 0.1 * grad
        second = 0.99 * second + 0.01 * grad**2
        memory[name] = first, second
        move = first / (1 - 0.9**step)
        move = move / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        params[name] = params[name] - rate * move


# %%
def start(scheme, rng):
    into = rng.normal(size=(RUNS, 1, 10, WIDTH)) / 10**0.5
    params = {name: rng.normal(size=(RUNS, 1, WIDTH, WIDTH)) / WIDTH**0.5
              for name in ("w_q", "w_k")}
    if scheme == "learned":
        params["table"] = 0.02 * rng.normal(size=(RUNS, 1, TRAINED, WIDTH))
    return into, params


# %%
def train(scheme, answer, rng, steps=400):
    into, params = start(scheme, rng)
    memory = {}
    for step in range(1, steps + 1):
        content, marked, latest = draw(rng, RUNS, 16, TRAINED)
        x = add_positions(scheme, tokens(content, marked, into), params)
        q, k, weights = forward(scheme, x, params, TRAINED)
        d_q, d_k = query_key_gradients(
            scheme, q, k, weights, content, answer(latest))
        grads = parameter_gradients(scheme, x, d_q, d_k, params)
        adam(params, grads, memory, step)
    return into, params


# %% [markdown]
# **The measure.** The weight that the last 16 queries put on the right token, on sequences of 32 (as trained) up to 512, one mean for each run.
# Before you run it, rank the five schemes at length 512.

# %%
LENGTHS = [32, 64, 128, 256, 512]


def weight_on_answer(scheme, into, params, seq, answer):
    if scheme == "learned" and seq > TRAINED:
        return np.full(RUNS, np.nan)                             # it cannot run at all
    content, marked, latest = draw(np.random.default_rng(99), RUNS, 16, seq)
    x = add_positions(scheme, tokens(content, marked, into), params)
    weights = forward(scheme, x, params, 16)[-1]                 # (runs, size, 16, seq)
    wanted = answer(latest)[..., -16:, None]
    return np.take_along_axis(weights, wanted, axis=-1).mean(axis=(1, 2, 3))


# %%
def measure(answer):
    results = {}
    for scheme in ("none", "learned", "sinusoids", "RoPE", "ALiBi"):
        trained = train(scheme, answer, np.random.default_rng(0))
        tests = [weight_on_answer(scheme, *trained, seq, answer)
                 for seq in LENGTHS]
        results[scheme] = np.stack(tests, axis=-1)               # (runs, lengths)
        print(f"{scheme:>10}", results[scheme].mean(axis=0).round(2))
    return results


# %% tags=["nbval-ignore-output"]
recent = measure(lambda latest: latest)
at_32 = {scheme: runs[:, 0].mean() for scheme, runs in recent.items()}
solved = min(at_32["learned"], at_32["sinusoids"], at_32["RoPE"])
rope, alibi = recent["RoPE"].mean(axis=0), recent["ALiBi"].mean(axis=0)
assert solved > 0.85 and at_32["none"] < 0.4                     # not without positions
assert recent["sinusoids"][:, 2].max() < 0.2                     # collapsed at 128, in each run
assert 0.4 < rope[-1] < rope[0] - 0.1                            # erodes
assert np.ptp(alibi) < 0.1 and alibi[0] < min(0.85, solved - 0.05)  # flat, never best

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# *ALiBi* is the one that does not care about length, and at the training length the worst of the four that know positions. *RoPE* starts best and erodes: at 512 it is no longer clearly better or worse than ALiBi. *Sinusoids* collapse within
# a few times the training length: the head has learned its relative rule only at the positions it saw. *Learned* positions cannot run at all. *None* spreads its weight over all
# the marked tokens: a single head without positions cannot tell them apart. In language models, {cite:t}`press2021` found sinusoids to extrapolate
# worst, rotations better and ALiBi best.
# :::
#
# How can ALiBi be so flat? Nothing but its price tells one marked token from another, and training does not change the price. Take all the marked tokens as equally good and let nothing else be seen:

# %%
_, marks, newest = draw(rng, 100, TRAINED)
visible = marks[:, None] & to_array(causal, TRAINED)             # (100, seq, seq)
priced = softmax(np.where(visible, alibi_bias(8, TRAINED)[0], -np.inf))
share = np.take_along_axis(priced, newest[..., None], axis=-1)[:, -16:].mean()
print(f"weight on the latest mark by price alone: {share:.2f}")
assert np.abs(recent["ALiBi"].mean(axis=0) - share).max() < 0.1

# %% [markdown]
# So is a price on distance the safe choice? Be careful: the task asked for the *latest*, and a price on distance is a prejudice for exactly that. Ask the same schemes for the **oldest** marked token instead, which is always the first of the
# sequence, and nothing else in the experiment changes. Rank the schemes again, at 32 and at 64.

# %% tags=["nbval-ignore-output"]
oldest = measure(np.zeros_like)
assert oldest["ALiBi"].max() < 0.1                               # not even as trained
assert oldest["learned"][:, 0].min() > 0.9
assert oldest["RoPE"][:, 0].min() > 0.6 > 0.2 > oldest["RoPE"][:, 1].max()
assert oldest["sinusoids"][:, 1].mean() > 0.6                    # they hold longer than RoPE

# %% mystnb={"image": {"alt": "Two panels of weight on the right token against sequence length from 32 to 512. For the latest mark: ALiBi is flat near 0.8, RoPE starts above 0.9 and falls to about 0.7, its band overlapping that of ALiBi at 512, sinusoids start near 0.9 and are near 0 from 128 on, learned positions exist only at 32, none starts at a quarter and falls. For the oldest mark: learned reaches 1, at 32 only, sinusoids start at 1 and fall, with a wide band over the runs, to nearly 0 at 512, RoPE starts near 0.95 and is near 0 from 64 on, none starts at a fifth and falls, ALiBi is at 0."}, "figure": {"caption": "Beyond the training length a scheme works as far as what it has built in suits the task: nearness for ALiBi, differences for RoPE, absolute positions for sinusoids. Lines are means of four runs, bands their range.", "name": "fig-extrapolation"}}
tasks = {"return the latest mark": recent, "return the oldest mark": oldest}
plots.extrapolation(LENGTHS, tasks, TRAINED)
plt.show()

# %% [markdown]
# The ranking turns around. ALiBi cannot do the task even at the length it was trained on: nothing but position tells the marked tokens apart, and there the oldest pays most. RoPE knows differences only, and the
# first token stands at no fixed difference from the queries: up to 32 “the farther, the better” will do, and larger distances were never trained. Sinusoids know absolute positions and hold on longest.
#
# How far does this reach? It is one head, one width, two made tasks. We repeated it off the page with the other three learning rates, five times the steps, larger and smaller starting matrices, token vectors and sinusoids scaled up and down
# against each other, and a base of 100. Beyond the training length sinusoids lost the latest mark (where large token vectors drowned them, they had not learned it well either), and RoPE the oldest, each time. How fast RoPE erodes, and so whether it ends above or below ALiBi, does depend on the settings: with a base of 100
# it erodes less (the last exercise). What carries over is the question to ask of any claim about length: *what does the task need to know, position or distance, near or far?*
#
# **And none at all?** Decoders without any position signal can be trained and do well {cite}`haviv2022`, in some length-generalisation tests better than with one {cite}`kazemnejad2023`: behind a causal mask the first token sees one key, the second two,
# and deeper layers can read that (chapter 5). Our single layer, which is asked for weights and has nothing above it, cannot.

# %% [markdown]
# ## What to remember
#
# | scheme | where it enters | depends on | has an end | prejudice |
# |---|---|---|---|---|
# | learned table | added to token vectors | absolute position | yes: the table's length | none |
# | sinusoids | added to token vectors | absolute position; distance can be learned | no, but what was learned inside may not hold outside | none |
# | RoPE | turns queries and keys, in each layer | difference of positions | no, but slow pairs meet angles they have not seen | weak: matching vectors score lower far away |
# | ALiBi | subtracted from scores, in each layer | distance | no | near before far, strongly where the slope is steep |
# | none | nowhere | the causal mask, through depth | no | |
#
# **In practice.** RoPE is the scheme of most current decoders (Llama, Qwen, Mistral among them), in the half-split layout in most open code. For longer inputs, positions are squeezed
# {cite}`chen2023`, or the speeds are changed pair by pair, the slow ones most {cite}`peng2023`, and the model is trained a little further; both change which angles stand for which distance. BERT has a learned table.
# Relative positions were first learned as vectors, one per distance {cite}`shaw2018`; the third exercise builds a simpler form, one number per distance.
#
# **Shortcut taken here.** Our experiment has one head and separates position from everything else. In a deep model, layers can pass positions on, and heads with different speeds or slopes divide the work.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Prove that the dot product of the sinusoids of two positions depends on their distance alone, and show that after
#   random projections it does not.
# - Rotate queries and keys in either pairing, and repair weights that were trained with the other.
# - Say why a bias on the keys matters once keys are rotated, and what RoPE's backward pass is.
# - Compute how far back an equally good key must stand for an ALiBi head to give it one per cent of the weight.
# - Ask of a claim about longer sequences whether the task needs position or distance, near or far, and predict which
#   scheme fails.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:shift_matrix", "ex-prompt"]
# ```{exercise} A shift is a rotation
# :label: ex-shift-matrix
# `sinusoids(seq, dim)` (seq, dim) holds in columns $2i$ and $2i + 1$ of row $t$ the sine and the cosine of $\omega_i t$, and
# `position_angles(positions, dim)` (seq, dim / 2) the angles $\omega_i t$ themselves, for an array of positions; both are given. Write
# `shift_matrix(steps, dim)`, a (dim, dim) matrix with `sinusoids(seq, dim)[t] @ shift_matrix(s, dim) == sinusoids(seq, dim)[t + s]` for
# all positions `t` and `t + s` from 0 on; `steps` may be negative. It must not depend on `t`: this is how a head *could* learn "the token four to the left".
# Recall $\sin(a + b) = \sin a \cos b + \cos a \sin b$ and $\cos(a+b) = \cos a \cos b - \sin a \sin b$.
# ```


# %% tags=["ex:shift_matrix", "ex-stub"]
def shift_matrix(steps, dim):
    raise NotImplementedError("replace this line")

# %% tags=["ex:shift_matrix", "ex-check"]
check(shift_matrix)

# %% tags=["ex:shift_matrix", "ex-solution", "hide-cell"]
def shift_matrix(steps, dim):
    matrix = np.zeros((dim, dim))
    angles = position_angles(np.array([steps]), dim)[0]      # (dim / 2,)
    for i, angle in enumerate(angles):
        cos, sin = np.cos(angle), np.sin(angle)
        block = slice(2 * i, 2 * i + 2)
        # a row (sin, cos) times this
        matrix[block, block] = [[cos, -sin], [sin, cos]]
    return matrix


require(shift_matrix)

# %% [markdown] tags=["ex:complex_rope", "ex-prompt"]
# ```{exercise} RoPE in one multiplication
# :label: ex-complex-rope
# Read each neighbouring pair of columns as one complex number. Then turning it by an angle is a multiplication by
# $e^{\mathrm i\,\text{angle}}$. Write `complex_rope(x, positions)`, which turns `x` (..., seq, dim), dim even, in the *interleaved* layout
# (columns $2i$ and $2i + 1$ are a pair), on any leading axes; row $t$ of the last two axes stands at `positions[t]`, `positions` is (seq,).
# The result has the shape of `x` and holds real numbers. `position_angles(positions, dim)`, the angle of each pair at each position
# (seq, dim / 2), is given. (Hint: `x[..., 0::2] + 1j * x[..., 1::2]`.)
# ```


# %% tags=["ex:complex_rope", "ex-stub"]
def complex_rope(x, positions):
    raise NotImplementedError("replace this line")

# %% tags=["ex:complex_rope", "ex-check"]
check(complex_rope)

# %% tags=["ex:complex_rope", "ex-solution", "hide-cell"]
def complex_rope(x, positions):
    numbers = x[..., 0::2] + 1j * x[..., 1::2]  # (..., seq, dim / 2)
    angles = position_angles(positions, x.shape[-1])  # (seq, dim / 2)
    numbers = numbers * np.exp(1j * angles)
    # (..., seq, dim / 2, 2)
    pairs = np.stack([numbers.real, numbers.imag], axis=-1)
    return pairs.reshape(x.shape)


require(complex_rope)

# %% [markdown] tags=["ex:relative_bias", "ex-prompt"]
# ```{exercise} Learned distances
# :label: ex-relative-bias
# Write `relative_bias(table, seq_q, seq_k)`: a bias (seq_q, seq_k) for each query and key, looked up by the distance *query position − key
# position*, clipped to $[-c, c]$. `table` has $2c + 1$ entries, `table[0]` for distance $-c$ (a key $c$ or more *after* the query),
# `table[c]` for distance 0. Queries are the last `seq_q` of the `seq_k` positions.
# ```


# %% tags=["ex:relative_bias", "ex-stub"]
def relative_bias(table, seq_q, seq_k):
    raise NotImplementedError("replace this line")

# %% tags=["ex:relative_bias", "ex-check"]
check(relative_bias)

# %% tags=["ex:relative_bias", "ex-solution", "hide-cell"]
def relative_bias(table, seq_q, seq_k):
    reach = len(table) // 2
    q_idx = np.arange(seq_k - seq_q, seq_k)[:, None]         # (seq_q, 1)
    distance = q_idx - np.arange(seq_k)                      # (seq_q, seq_k)
    return table[np.clip(distance, -reach, reach) + reach]


require(relative_bias)
priced = -0.5 * np.abs(np.arange(-5, 6.0))                   # ALiBi is a table that is not learned
assert np.allclose(relative_bias(priced, 6, 6), alibi_bias(8, 6)[0])

# %% [markdown] tags=["ex:explore_base", "ex-prompt", "ex-open"]
# ```{exercise} Explore: squeeze the positions
# :label: ex-explore-base
# Train the RoPE heads of both tasks again with `train`, and keep them this time. Then test them with the positions `np.arange(seq) * 32 / seq` instead of `np.arange(seq)` in `forward`, so that no
# difference of positions is larger than any they were trained on. Which of the two tasks gets better at length 256, and which worse? Explain it by what
# happens to the distance between neighbours. Then train with a `base` of 100 instead of 10,000 (in `forward` and in
# `query_key_gradients`, where the rotation is undone), and find out why RoPE erodes less. How many pairs make a full turn within 32 tokens, for either base?
# ```

# %% [markdown]
# **Sources.** Sinusoids: {cite:t}`vaswani2017`. RoPE: {cite:t}`su2021`. ALiBi: {cite:t}`press2021`. Relative positions: {cite:t}`shaw2018`. Without positions: {cite:t}`haviv2022`, {cite:t}`kazemnejad2023`. Equivariance: {cite:t}`lee2018`.
