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
# # How well does a key answer a query?
#
# A {term}`query` asks, {term}`keys <key>` answer, and one number says how well a key fits: the {term}`score`. In this chapter you compute all
# scores of a sentence at once, find out why they are divided by $\sqrt d$ and when that reason holds, meet the score that came before
# the dot product, and decide which keys a query may see at all.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapter 2 (queries and keys, and softmax as it is used there), the dot product, variance. **You will build** scaled dot-product scores, additive scores, and
# masks for the future and for padding, with a test that catches a mask used the wrong way round. **Time** about 70 minutes.
# :::

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

from attnlib.data import real_head
from attnlib.plots import scores as plots
from attnlib.reference import entropy, softmax, softmax_backward  # built in chapter 4

rng = np.random.default_rng(0)
np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# Queries and keys are those of chapter 2: the 15 tokens of the running sentence in the {term}`head` of MiniLM {cite}`wang2020b` in which *it* looks for
# its noun. (It is a good head for pictures, not an infallible one. End the sentence in *too wide*, so that *it* means the street, and its
# preference for *animal* shrinks but does not turn.)

# %%
def queries_and_keys(head):
    return head.x @ head.w_q + head.b_q, head.x @ head.w_k + head.b_k


head = real_head("pronoun")
x, tokens = head.x, head.tokens        # (seq, dim)
q, k = queries_and_keys(head)          # (seq_q, dim_head), (seq_k, dim_head)
it, animal, street = (tokens.index(word) for word in ("it", "animal", "street"))
for ending in ("tired", "wide"):
    row = real_head("pronoun", ending).weights[it]
    print(f"too {ending}: it → animal {row[animal]:.2f}, it → street {row[street]:.2f}")

# %% [markdown]
# ## What is one score?
#
# One score belongs to one query and one key. It multiplies them feature by feature and adds up, then divides by the square root of the
# head's width $d$, here $\sqrt{32}$. The division gets its own section; first look at what is computed, one score at a time.

# %%
def scores_by_loop(q, k):
    scores = np.empty((len(q), len(k)))
    for i, query in enumerate(q):
        for j, key in enumerate(k):
            scores[i, j] = sum(query * key) / len(query) ** 0.5
    return scores


slow = scores_by_loop(q, k)            # (seq_q, seq_k)
print(f"it → animal {slow[it, animal]:.2f}, it → street {slow[it, street]:.2f}")

# %% [markdown]
# Row $i$ belongs to query $i$, column $j$ to key $j$. Row times column, summed: the two loops are a matrix product, with the keys
# transposed {cite}`vaswani2017`:
#
# $$S = \frac{Q K^\top}{\sqrt d}$$

# %%
def attention_scores(q, k):
    return q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5          # (..., seq_q, seq_k)


scores = attention_scores(q, k)
assert np.allclose(scores, slow, atol=1e-5)  # float32 keeps about 7 digits
assert np.allclose(softmax(scores), head.weights, atol=1e-6)  # the model's own

# %% [markdown]
# From here on this is `attnlib.reference.attention_scores`. It swaps the last two axes instead of writing `k.T`, which turns *all* axes
# around. What comes out if you score the last three queries against all keys? And for a batch of 2 with 12 heads, 7 queries and 9 keys?

# %%
print(attention_scores(q[-3:], k).shape)
batch_q, batch_k = np.zeros((2, 12, 7, 32)), np.zeros((2, 12, 9, 32))
print(attention_scores(batch_q, batch_k).shape)

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# (3, 15) and (2, 12, 7, 9): a row for each query, a column for each key, whatever stands in front. Nothing in the formula asks for as many
# queries as keys. The numbers usually differ in {term}`cross-attention`, and when a model writes with a {term}`KV cache`.
# :::

# %% mystnb={"image": {"alt": "A 15 by 15 signed map, queries down, keys across. The [CLS] column is positive for every query and strongest in its first row. The framed row of “it” is strongly positive at “animal”, weaker at [CLS], “it” and “street”, and negative at most others. “cross” is strongly positive at “street”. Most of the remaining cells are pale or negative."}, "figure": {"caption": "All scores of one real head. In the row of *it*, *animal* stands out; in the row of *cross*, *street* does. Scores have both signs and no fixed range; only comparisons within a row will matter. The dark first column is an attention sink (chapter 5).", "name": "fig-score-map"}}
plots.score_map(scores, tokens, "it")
plt.show()

# %% [markdown]
# ## Two lengths and an angle
#
# Geometry says what a dot product is made of: $q \cdot k = |q|\,|k| \cos\theta$. Only the cosine knows whether query and key point the same way. What do the two
# lengths do?

# %%
q_length = np.linalg.norm(q, axis=-1)            # (seq_q,)
k_length = np.linalg.norm(k, axis=-1)            # (seq_k,)
lengths = np.outer(q_length, k_length)           # (seq_q, seq_k): |q| |k|
cosine = q @ k.T / lengths                       # (seq_q, seq_k), between -1 and 1
assert np.allclose(scores, lengths * cosine / 32**0.5, atol=1e-5)

print(f"|q| of it: {q_length[it]:.1f}")
for j in (animal, 0, street):
    print(f"{tokens[j]:7} |k| {k_length[j]:.1f}   cosine {cosine[it, j]:.2f}",
          f"  score {scores[it, j]:.2f}")

# %% [markdown]
# Is 0.42 much? Two random directions in $d$ dimensions have a cosine of 0 on average, with a standard deviation of $1/\sqrt d$, here
# $1/\sqrt{32} \approx 0.18$. But *animal* is the best of 15 keys, so compare it with the best of 15 random ones.

# %%
directions = rng.normal(size=(10_000, 2, 32))  # 10,000 pairs of a query and a key
directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
random_cosine = (directions[:, 0] * directions[:, 1]).sum(axis=-1)
best_of_15 = random_cosine[:9_990].reshape(-1, 15).max(axis=-1)  # (666,): rows of 15 keys
closest = cosine[it].max()
print(f"it: {closest:.2f}, an angle of {np.degrees(np.arccos(closest)):.0f}°")
print(f"random: standard deviation {random_cosine.std():.2f},",
      f"best of 15 {best_of_15.mean():.2f}, beats it in {(best_of_15 > closest).mean():.0%} of rows")

# %% [markdown]
# Unusual, but no miracle: roughly one random row in ten holds a key at least as close. Where angles crowd around 90°, 65° is enough to win.
#
# Now stretch the query of *it* to twice its length, and keep its direction. Does another key win? What happens to the weights, and
# to their {term}`entropy`? (It is 0 when one key holds all, and largest, $\ln 15 \approx 2.71$, when all share equally; chapter 4.)

# %%
for stretch in (0.5, 1, 2):
    row = softmax(attention_scores(stretch * q[[it]], k))[0]  # [[it]]: still a matrix
    best = row.argmax()
    print(f"{stretch:3} × query: {tokens[best]} {row[best]:.2f}, entropy {entropy(row):.2f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# *Animal* still wins, since every score of the row is multiplied by the same number. The **length of the query** only says how decided the row is:
# at twice the length *animal* takes 0.94 of the weight.
# :::
#
# The **length of a key** is different: it multiplies one *column*, so it competes with the other keys. A long key is loud, for queries that
# like it and for those that do not. How often does that decide who wins?

# %%
for name in ("pronoun", "same_word"):
    a, b = queries_and_keys(real_head(name))
    b_length = np.linalg.norm(b, axis=-1)
    by_score = (a @ b.T).argmax(-1)
    by_cosine = (a @ b.T / b_length).argmax(-1)  # |q| scales the whole row: no matter here
    differ = by_score != by_cosine
    print(f"{name:9}: {differ.sum()} of 15 winners differ, {(differ & (by_score == 0)).sum()} are [CLS];",
          f"|k| of [CLS] {b_length[0]:.1f}, median {np.median(b_length):.1f}")

# %% [markdown]
# In the head that finds nouns, never: the best angle wins every row. In the head that looks for the same word six rows
# change, and five of the six go to [CLS], whose key is almost twice as long as the median. Cosines alone would make a different head.
#
# ### A head on a sheet of paper
#
# Vectors of 32 numbers cannot be drawn, but the scores of *one* query can, without any loss. Take a plane that the query lies in. Whatever part of a key
# sticks out of that plane is at right angles to the query, so it adds nothing to the dot product: in the plane all scores of this query are exact. (We
# choose the plane in which the keys also spread out most. The sign of a direction is free; *animal* shall be on its positive side.)

# %%
def main_directions(points, count, positive):
    centred = points - points.mean(axis=0)
    found = np.linalg.svd(centred, full_matrices=False)[2][:count]      # (count, dim_head)
    return found * np.sign(found @ points[positive])[:, None]


vectors = [x.astype(float) @ w + b for w, b in ((head.w_q, head.b_q), (head.w_k, head.b_k), (head.w_v, head.b_v))]
query, keys, values = vectors[0][it], vectors[1], vectors[2]
along = query / np.linalg.norm(query)
across = main_directions(keys - np.outer(keys @ along, along), 1, animal)[0]   # at right angles to the query
plane = np.stack([along, across], axis=1)                           # (dim_head, 2)
assert np.allclose((keys @ plane) @ (query @ plane) / 32**0.5, scores[it], atol=1e-5)  # two numbers a key are enough

# %% [markdown]
# Move the query: which keys can be made to win, if no key is moved? Can *street*? And which way may a key move without any change?

# %%
from attnlib.widgets.score_geometry import ScoreGeometry

ScoreGeometry(
    query @ plane, keys @ plane, values @ main_directions(values, 2, animal).T, tokens, word="it", dim_head=32,
    caption="The query of “it” and the 15 keys of the head, in a plane through the query: every score is the real one. Thin lines join places of equal score. "
            "Drag the query, or a key: weights and output follow. (The values have a plane of their own; the output is their weighted mean in any plane.)")

# %% [markdown]
# Only the corners can win: the keys that a rubber band around all of them would touch. Whatever lies inside is beaten in every direction by some
# corner. Turn the query once around; and then the same question with all 32 dimensions, where a query for key $j$ is sought by turning it
# towards $j$, and away from whoever wins instead.

# %%
directions = [np.array([np.cos(angle), np.sin(angle)]) for angle in np.linspace(0, 2 * np.pi, 3600)]
in_the_plane = {int((keys @ plane @ direction).argmax()) for direction in directions}
print(len(in_the_plane), "of 15 can win in the plane:", *(tokens[j] for j in sorted(in_the_plane)))


def a_query_for(j, steps=1000):
    wish = keys[j] - keys.mean(axis=0)
    for _ in range(steps):
        winner = (keys @ wish).argmax()
        if winner == j:
            return True
        wish = wish + (keys[j] - keys[winner]) / np.linalg.norm(keys[j] - keys[winner])
    return False


print(sum(a_query_for(j) for j in range(15)), "of 15 in 32 dimensions")

# %% [markdown]
# :::{dropdown} Your predictions, then ours
# *Street* cannot win here: the way out is barred by [CLS] and *animal*. A key may move along a thin line, at right angles to the query: it keeps its score.
# In 32 dimensions every one of these keys is a corner. That is what the width of a head pays for: room for each key to be the answer to *some* question.
# (A head narrow enough, with keys enough, has keys that no query can choose.)
# :::
#
# ## Why divide by √d?
#
# The usual reason comes with an assumption that is easy to lose. *If* the $2d$ entries of $q$ and $k$ are independent, with mean 0 and variance 1, then each
# product $q_a k_a$ has mean 0 and variance 1. Variances of independent terms add, so the sum of $d$ such products has variance $d$ {cite}`vaswani2017` (footnote 4): $q \cdot k$ has standard deviation $\sqrt d$, and dividing by it brings the standard deviation back to 1. Entries like these are what a network can have
# **at initialisation**: random weights and normalised inputs. Measure it.

# %%
widths = np.array([16, 32, 64, 128, 256, 512, 1024])
seq_q, seq_k = 256, 64
draw_q = {d: rng.normal(size=(seq_q, d)) for d in widths}
draw_k = {d: rng.normal(size=(seq_k, d)) for d in widths}
unscaled = {d: draw_q[d] @ draw_k[d].T for d in widths}  # (seq_q, seq_k) each
scaled = {d: attention_scores(draw_q[d], draw_k[d]) for d in widths}

for d in (16, 64, 256, 1024):
    print(f"d = {d:4}: √d {d**0.5:4.0f}   unscaled {unscaled[d].std():5.2f}",
          f"  scaled {scaled[d].std():.2f}")
assert all(abs(scaled[d].std() - 1) < 0.1 for d in widths)  # a finite draw strays by about 2%

# %% [markdown]
# And if nobody divides? Then a wider head has larger scores from its very first step. What will a row of 64 keys look like at $d = 1024$, where scores
# have a standard deviation of 32: spread over many keys, or over a few? The exponential of the entropy reads as the number of keys a query looks at.

# %%
def mean_entropy(score_maps):
    return np.array([entropy(softmax(score_maps[d])).mean() for d in widths])


entropies = {"unscaled": mean_entropy(unscaled), "scaled": mean_entropy(scaled)}
print("entropy at d =", *(f"{d:5}" for d in widths), "  keys at 1024")
for label, values in entropies.items():
    print(f"{label:13} ", *(f"{value:5.2f}" for value in values), f"{np.exp(values[-1]):14.1f}")

# %% mystnb={"image": {"alt": "Two panels over the width d from 16 to 1024. Top: the standard deviation of unscaled scores follows the dashed line of the square root of d from 4 to 32; the scaled one stays at 1. Bottom: the mean entropy of unscaled rows falls from about 1.4 to 0.1 nats, the scaled one stays flat near 3.7, close to the dashed line of ln 64, about 4.16, where all keys share equally."}, "figure": {"caption": "Random queries and keys, 64 keys. Without the division the rows of a wide head collapse onto one key before anything has been learned; with it, the width no longer matters.", "name": "fig-scores-width"}}
spreads = {
    "unscaled": np.array([unscaled[d].std() for d in widths]),
    "scaled": np.array([scaled[d].std() for d in widths]),
}
plots.spread_and_entropy(widths, spreads, entropies, np.log(seq_k))
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Over hardly more than one key: 1.1 at $d = 1024$, and which one it is was decided by the
# random draw. Scaled rows look at about 40 of the 64, at every width.
# :::
#
# ### Is it the gradient?
#
# The paper itself *suspects* that large dot products push softmax "into regions where it has extremely small gradients" {cite}`vaswani2017`. Test the suspicion.
# First the softmax alone: how much can a unit change of the scores move the weights of a row, at most? That is the norm of its
# Jacobian, the matrix of the derivatives of the weights by the scores, which chapter 4 derives.

# %%
def jacobian_norm(weights):
    identity = np.eye(weights.shape[-1])
    # symmetric and with no negative eigenvalue, so the largest one is the norm
    J = weights[:, :, None] * (identity - weights[:, None, :])
    return np.linalg.eigvalsh(J)[:, -1]          # (seq_q,)


print("              mean                median")
print("          scaled  unscaled    scaled  unscaled")
for d in (16, 64, 256, 1024):
    s, u = jacobian_norm(softmax(scaled[d])), jacobian_norm(softmax(unscaled[d]))
    print(f"d = {d:4} {s.mean():7.2f} {u.mean():9.2f} {np.median(s):9.2f} {np.median(u):9.4f}")

# %% [markdown]
# Not at once. At $d = 16$ and 64 the unscaled rows answer *more* strongly than the scaled ones, and at 256 they still do on average. The
# entropy was down to 0.59 at $d = 64$ already: a row commits to a few keys long before its Jacobian fades. And the typical row (the median) fades long before the average, which
# lives on the few rows whose best two keys happen to come close to a tie.
#
# Second, follow the gradient one step further, to where training uses it. The score is $q \cdot k$ or $q \cdot k/\sqrt d$, so on its way back to the query
# the unscaled gradient is **not** divided by $\sqrt d$: a factor of 32 in its favour at $d = 1024$. Send a random gradient back:
# `softmax_backward` (chapter 4) takes it from the weights to the scores, and the product with the keys from there to the queries.

# %%
d_weights = rng.normal(size=(seq_q, seq_k))      # what arrives at the weights
print("              mean                median")
print("          scaled  unscaled    scaled  unscaled")
for d in (16, 64, 256, 1024):
    d_scaled = softmax_backward(softmax(scaled[d]), d_weights)      # (seq_q, seq_k)
    d_unscaled = softmax_backward(softmax(unscaled[d]), d_weights)
    s = np.linalg.norm(d_scaled @ draw_k[d] / d**0.5, axis=-1)      # (seq_q,)
    u = np.linalg.norm(d_unscaled @ draw_k[d], axis=-1)
    print(f"d = {d:4} {s.mean():7.2f} {u.mean():9.2f} {np.median(s):9.2f} {np.median(u):9.4f}")
    assert u.mean() > s.mean()
print(f"d = 1024: one in ten above {np.quantile(u, 0.9):.1f} unscaled,",
      f"none above {s.max():.1f} scaled")
assert np.quantile(u, 0.9) > 5 * s.max()

# %% [markdown]
# The average gradient does not vanish here; without scaling it is the larger one at every width we tried. It becomes a lottery: at
# $d = 1024$ a typical query receives about a hundredth of what it receives with scaling, and one in ten receives several times the most that
# any scaled query gets. So "unscaled scores have vanishing gradients" is at best half of the truth. In these draws wide rows are nearly one-hot from the
# start, at random, and the gradient that could repair them comes in very unequal portions.
#
# ## Does a trained head obey?
#
# Training is free to undo all this. The entries of real queries and keys need not have variance 1, and above all they need not be
# independent: the head *learns* to make some of them agree. Our head is 32 wide, so the assumption says $\sqrt{32} = 5.66$. The cell measures four heads of MiniLM, the ones this book picked for their clear patterns. Before you run it: is the
# standard deviation of their unscaled scores (the column *measured*) smaller, about equal, or larger? The column *independent* keeps the measured sizes and assumes only independence; *shuffled* is explained below.

# %%
names = ["same_word", "sink", "pronoun", "previous"]
measured, independent = [], []
print("           variance of    standard deviation of q·k")
print("             q      k     independent  shuffled  measured")
for name in names:
    a, b = queries_and_keys(real_head(name))
    independent.append((32 * (a**2).mean() * (b**2).mean()) ** 0.5)  # their own size
    measured.append((a @ b.T).std())
    # features of q meet the wrong features of k
    shuffled = np.mean([(a @ b[:, rng.permutation(32)].T).std() for _ in range(200)])
    print(f"{name:9} {a.var():5.2f}  {b.var():5.2f} {independent[-1]:13.1f}",
          f"{shuffled:8.1f} {measured[-1]:9.1f}")
print("divided by √32:", np.array(measured) / 32**0.5)

# %% mystnb={"image": {"alt": "Two bars for each of four trained heads: the standard deviation of q·k if entries of their actual size were independent, and as measured. same_word 4.1 and 6.1, sink 6.5 and 9.3, pronoun 8.8 and 10.2, previous 31.5 and 63.5. A dashed line marks 5.66, the square root of 32. In every head the measured bar is the taller one."}, "figure": {"caption": "What training made of the assumption. The left bars give up variance 1 and keep independence; the right bars are measured. In all four heads the products spread further than independent entries of the same size would.", "name": "fig-trained-spread"}}
bars = {"own size, independent": np.array(independent), "measured": np.array(measured)}
plots.trained_spreads(names, bars, 32**0.5)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Larger, in all four heads, and by very different amounts: 6.1 to 63.5. Divided by $\sqrt{32}$, that is 1.1 to 11.2; the assumption promised 1.
# :::
#
# Two things happened. Entries changed **size**: in *previous* their variance is above 5, which alone would give 31.5. And queries and keys became **aligned**: the directions along which the queries of a head are large are,
# more than by chance, those along which its keys are large. The column *shuffled* tests that reading. It pairs the features of $q$ with the wrong features of $k$, which keeps every size and every correlation within the
# queries and within the keys, and the excess is gone.
#
# So in a trained head $\sqrt d$ is a **convention**, not a normalisation. The model cannot do anything with it that it could not do without: the factor can be
# moved into the query projection, and not one attention weight changes.

# %%
w_folded, b_folded = head.w_q / 32**0.5, head.b_q / 32**0.5
folded = (x @ w_folded + b_folded) @ k.T         # no division any more
assert np.allclose(folded, scores, atol=1e-5)

# %% [markdown]
# What the division fixes is the place where training **starts**, and how much one step of training changes the scores. Where it ends is up to training. There are other
# choices:
#
# - **QK-norm**, in its first form, brings every query and key to length 1 and multiplies by one learned number instead of dividing by $\sqrt d$
#   {cite}`henry2020`; no score can then exceed that number. It is the first exercise below.
# - **Dividing by $d$** is the rule of the maximal update parametrisation, which wants settings found on a narrow model to serve a wide one {cite}`yang2022`. Its argument is about training,
#   not the start: once queries and keys are correlated, a sum of $d$ products grows like $d$, not like $\sqrt d$.
#
# ## A score need not be a product
#
# The first attention in neural translation {cite}`bahdanau2014` did not multiply. It **added** a projection of the decoder's state (in our words, the query) to a projection of an encoder's state (the key), and
# sent the sum through a $\tanh$ and a learned vector $w$:
#
# $$s_{ij} = w \cdot \tanh(q_i + k_j)$$
#
# where $q_i$, $k_j$ and $w$ all have width $d$. This is {term}`additive attention`. Every pair needs its
# own $\tanh$, so the pairs get an axis of their own before $w$ sums the features away.

# %%
def additive_scores(q, k, w):
    pairs = q[..., :, None, :] + k[..., None, :, :]  # (..., seq_q, seq_k, dim_head)
    return np.tanh(pairs) @ w                        # (..., seq_q, seq_k)


w = rng.normal(size=32)                              # untrained: MiniLM has none
added = additive_scores(q, k, w)
assert np.isclose(added[it, animal], w @ np.tanh(q[it] + k[animal]))
print(added.shape)

# %% [markdown]
# Does it need the $\tanh$? Leave it out, and look at the weights of two different queries.

# %%
without_tanh = (q[:, None, :] + k[None, :, :]) @ w   # (seq_q, seq_k)
rows = softmax(without_tanh)
for word in ("it", "cross"):
    print(f"{word:6}{rows[tokens.index(word), :5]}")
assert np.allclose(rows, rows[0], atol=1e-5)

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# All queries get the same weights. $w \cdot (q_i + k_j)$ is $w \cdot q_i + w \cdot k_j$, and the first term is the same for every key of the row. Softmax
# compares keys with each other, so what all of them share drops out (chapter 4 makes this precise). Without the nonlinearity the query is never heard. A product
# needs none: it already ties query and key together.
# :::
#
# What does each cost, for $N$ queries and $M$ keys? Per pair, the dot product takes $d$ multiplications and $d$ additions. The additive score takes $d$ additions, $d$ evaluations of
# $\tanh$, and then the same $2d$ operations with $w$. The order is the same, $N M d$. The difference is in how it runs: the first is one matrix product and stores
# $N M$ numbers; the second, written as above, stores $N M d$. (A kernel could
# keep those to itself, a tile at a time. It would still evaluate every $\tanh$, and hardware made for matrix products would hardly help.)

# %% tags=["nbval-ignore-output"]
a, b = rng.normal(size=(2, 256, 64)).astype(np.float32)
c = rng.normal(size=64).astype(np.float32)


def best_of_five(score):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        score()
        times.append(time.perf_counter() - start)
    return min(times)


slow_time = best_of_five(lambda: additive_scores(a, b, c))
ratio = slow_time / best_of_five(lambda: attention_scores(a, b))
print(f"additive scores take {ratio:.0f} times as long here")
assert ratio > 5  # we saw 100 to 200 on one core, so the margin is wide

# %% [markdown]
# Which is *better* is less settled. {cite:t}`vaswani2017` (section 3.2.1) report, from earlier work on translation, that the two perform similarly for small $d$ and that additive scores win
# for large $d$ **if the dot product is not scaled**; this is what made them scale it. {cite:t}`luong2015` compared several scores inside recurrent translators and got good
# results with products, poor ones with a variant of the additive form, without an explanation. We know of no result that settles it for large transformers. The reason {cite:t}`vaswani2017` give for the product is speed: "much faster and more
# space-efficient in practice", thanks to "highly optimized matrix multiplication code".
#
# ## Who may see whom?
#
# So far every query sees every key. Often some keys are out of bounds: the **future**, when a model learns to predict the next word, and **padding**, the filler that brings
# sentences of a batch to equal length. A {term}`mask` says which. In this book a mask is boolean, and `True` means **may attend**.
#
# The clearest way to write one is as a question about two positions. For the {term}`causal mask`: may the query at position `q_idx` see the key at
# position `k_idx`?

# %%
def causal(q_idx, k_idx):
    return k_idx <= q_idx


print(causal(5, 3), causal(5, 5), causal(5, 6))

# %% [markdown]
# This is `attnlib.masks.causal`, a **predicate**. It only compares, so it takes arrays as well as numbers. Give it all query positions as a column and all key positions as a
# row, and broadcasting asks the question for every pair:

# %%
q_idx = np.arange(8)[:, None]          # (seq_q, 1)
k_idx = np.arange(8)[None, :]          # (1, seq_k)
past = causal(q_idx, k_idx)            # (seq_q, seq_k)
print(past.astype(int)[:4])
assert np.array_equal(past, np.tril(np.ones((8, 8), bool)))

# %% [markdown]
# For a {term}`padding mask` the answer also depends on which sentence of the batch it is. Take two sentences of 8 and 5 tokens. A real key is one before its sentence's
# length; who asks does not matter. The four axes are those of batched scores: sentence, head, query, key.

# %%
def real_keys(lengths):
    def predicate(q_idx, k_idx):
        return k_idx < lengths[:, None, None, None]  # (batch, 1, 1, seq_k)
    return predicate


real = real_keys(np.array([8, 5]))(q_idx, k_idx)
print(real.shape, real[1, 0, 0].astype(int))

# %% [markdown]
# Two masks combine with **and**: a query may see a key if both allow it. Shapes broadcast as usual. How many of the 64 pairs does the shorter sentence keep?

# %%
allowed = past & real                  # (batch, 1, seq_q, seq_k)
print(allowed.shape, "pairs kept:", allowed.sum(axis=(-1, -2)).ravel())

# %% mystnb={"image": {"alt": "Three 8 by 8 grids, filled where a query may attend. Causal: the lower triangle with its diagonal. Padding with 5 real tokens: the first five columns, in every row. Both: the lower triangle cut off after the fifth column."}, "figure": {"caption": "Masks combine by *and*. Rows 5 to 7 of the right-hand mask belong to padding tokens. They look at real keys, nobody looks at them, and their results are thrown away.", "name": "fig-mask-gallery"}}
everyone = np.ones((8, 8), dtype=bool)
padded = everyone & real[1, 0]                   # (seq_q, seq_k)
plots.masks({"causal": past, "padding, length 5": padded, "both": allowed[1, 0]})
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# 36 of the full sentence, $8 \cdot 9/2$, and 30 of the shorter one: rows 0 to 4 keep $1 + 2 + 3 + 4 + 5 = 15$, and the three padding rows keep 5 each. The padding mask hides padding
# **keys**. It need not hide padding queries, and better does not: a row without any key is a special case that you will meet in a moment.
# :::
#
# The library has both, and two helpers: `both` combines predicates before they become arrays, and `to_array` holds the two `arange` lines.

# %%
from attnlib import masks

library = masks.both(causal, masks.padding(np.array([8, 5])))
assert np.array_equal(masks.to_array(library, 8), allowed)

# %% [markdown]
# ### What a mask does to a real head
#
# A mask works **on the scores**: forbidden ones become $-\infty$, so that their weight is $e^{-\infty} = 0$ and the allowed keys share everything. (Our head comes from an
# {term}`encoder` that was never trained with a causal mask; we put one on it to see what changes. Its token vectors come from earlier layers, which saw the whole sentence; only this head is masked.) This head's *the* looks for the noun it belongs to. Which words will suffer?

# %%
mask = masks.to_array(causal, len(tokens))        # (seq_q, seq_k)
blind = softmax(np.where(mask, scores, -np.inf))  # (seq_q, seq_k)
for i in (1, it):
    print(f"{tokens[i]:3} → animal: {head.weights[i, animal]:.2f},",
          f"causal {blind[i, animal]:.2f}")
assert np.allclose(blind.sum(axis=-1), 1) and not blind[~mask].any()

# %% mystnb={"image": {"alt": "Two 15 by 15 maps of weights. Left, without a mask, “the” in the second row looks at “animal” with 0.46, and “cross” looks at “street”. Right, with a causal mask, everything above the diagonal is empty: the first “the” has moved to [CLS], “cross” too, while the row of “it” is almost the same, dark at “animal”."}, "figure": {"caption": "The same head with and without a causal mask. Whatever looked back survives; whatever looked ahead has to spend its weight elsewhere, mostly on [CLS].", "name": "fig-causal-head"}}
panels = {"every key": head.weights, "causal": blind}
plots.weight_maps(panels, tokens, height=3.4)
plt.show()

# %% [markdown]
# *It* hardly notices, since its noun came before. *The* stands in front of its noun, and under a causal mask a word cannot look at what comes next.
#
# ## One query, eight keys: which row of the triangle?
#
# A model that writes computes one new query at a time and keeps the old keys in a cache. So there is 1 query and there are, say, 8 keys. The obvious causal mask for a 1 × 8
# score row is the lower triangle of a 1 × 8 matrix. Which keys does the new token see?

# %%
obvious = np.tril(np.ones((1, 8), dtype=bool))
print(obvious.astype(int))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Only key 0. The triangle starts in the upper left corner, as if our query stood at position 0. It stands at position 7 and may see all eight keys. No error is raised, nothing is NaN;
# the model has forgotten everything but its first token.
# :::
#
# The predicate is innocent: `causal` was given the wrong position. Where older keys come from a cache, the queries are the **last** positions and run up to
# the end. That is the one line that `to_array` adds to what you wrote above:

# %%
seq_q, seq_k = 3, 8                               # three new tokens, five cached
q_idx = np.arange(seq_k - seq_q, seq_k)[:, None]  # positions 5, 6, 7
to_end = causal(q_idx, k_idx)                     # (seq_q, seq_k)

assert np.array_equal(to_end, masks.to_array(causal, 3, 8))
assert np.array_equal(to_end, past[-3:])          # the last rows of the full mask
assert masks.to_array(causal, 1, 8).all()         # the newest token sees everything

# %% mystnb={"image": {"alt": "Two grids of 3 queries, at positions 5, 6 and 7, by 8 keys. Aligned to the start: query 5 sees only key 0, query 6 keys 0 and 1, query 7 keys 0 to 2. Aligned to the end: query 5 sees keys 0 to 5, query 6 keys 0 to 6, query 7 all eight."}, "figure": {"caption": "Three new queries and eight keys. Aligned to the start, each query misses the five latest keys it should see, its own among them. Aligned to the end, the mask is the last three rows of the full triangle.", "name": "fig-mask-alignment"}}
to_start = np.tril(np.ones((3, 8), dtype=bool))
panels = {"to the start: wrong here": to_start, "to the end": to_end}
plots.masks(panels, height=1.9, first_query=5)
plt.show()

# %% [markdown]
# Libraries disagree. `is_causal=True` in PyTorch's `scaled_dot_product_attention` aligns to the **start** ([issue 103082](https://github.com/pytorch/pytorch/issues/103082), and
# [108108](https://github.com/pytorch/pytorch/issues/108108), which proposes to change it); the end has to be asked for, with `causal_lower_right`. FlashAttention aligned to the start too before version 2.1, and
# to the end [since](https://github.com/Dao-AILab/flash-attention#21-change-behavior-of-causal-flag). In this book it is always the end.

# %% tags=["torch-check"]
import torch
from torch.nn.attention.bias import causal_lower_right

new, cached = torch.ones(1, 8), torch.ones(8, 8)  # every score is the same
units = torch.eye(8)                              # values: the result is the weights
function = torch.nn.functional.scaled_dot_product_attention
seen = function(new, cached, units, is_causal=True)
print("is_causal=True:    ", seen.numpy()[0])
seen = function(new, cached, units, attn_mask=causal_lower_right(1, 8))
print("causal_lower_right:", seen.numpy()[0])

# %% [markdown]
# ## True means what?
#
# Nothing in a boolean array says whether `True` means *look* or *do not look*. Both are in use, in one and the same library: for `scaled_dot_product_attention` in PyTorch `True` means may attend; for
# `torch.nn.MultiheadAttention` it means **ignored**. What happens if you get it the wrong way round? Chapter 5 builds the whole layer; a few lines are enough here.

# %%
def attend(x, mask):
    q, k = x @ head.w_q + head.b_q, x @ head.w_k + head.b_k
    weights = softmax(np.where(mask, attention_scores(q, k), -np.inf))
    return weights @ (x @ head.w_v + head.b_v)   # (seq, dim_v)


correct, inverted = attend(x, mask), attend(x, ~mask)
print(correct.shape, inverted.shape, np.isfinite(inverted).all())

# %% [markdown]
# Shapes agree, all numbers are finite, rows of weights sum to 1. (Only the last query, which now sees nothing, stands out: zeros here, NaN with a less careful softmax; more on it below.) No shape test notices. One question finds out: *if I change a token, which results move?* Replace *tired*, token 13, by another vector. Which rows should move under a causal mask?

# %%
changed = x.copy()
changed[13] = x[street]                          # any other vector will do


def rows_that_move(before, after):
    change = np.abs(after - before).max(axis=-1)  # (seq,)
    return np.flatnonzero(change > 1e-5)         # above the noise of float32


print("correct :", rows_that_move(correct, attend(changed, mask)))
print("inverted:", rows_that_move(inverted, attend(changed, ~mask)))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Only rows 13 and 14, the changed token and what comes after it. With the inverted mask *every earlier* row moves: each one reads the future and nothing else. (Row 13 does not: it sees the single key 14, and gives it everything
# whatever it asks.) A model trained like this sees the word it is asked to predict, so its training loss looks splendid.
# :::
#
# It happens to careful people. An inverted mask was found in a widely read teaching repository
# ([pull request 1062](https://github.com/rasbt/LLMs-from-scratch/pull/1062), which mends it and adds a test like the one above), and in one path of a released model's code
# ([transformers 38094](https://github.com/huggingface/transformers/pull/38094)). The fourth exercise asks you for a test that catches such a mask, and slyer ones. Here is the trap with PyTorch's
# own two conventions.

# %% tags=["torch-check"]
torch.manual_seed(0)
module = torch.nn.MultiheadAttention(embed_dim=8, num_heads=1, batch_first=True)
see = torch.from_numpy(masks.to_array(causal, 6))
one = torch.randn(1, 6, 8)
two = one.clone()
two[:, 4] += 1                                   # change token 4 of 0 to 5
calls = {
    "function(mask)": lambda z: function(z, z, z, attn_mask=see),
    "module(mask)": lambda z: module(z, z, z, attn_mask=see)[0],
    "module(~mask)": lambda z: module(z, z, z, attn_mask=~see)[0],
}
for call, layer in calls.items():
    first, second = layer(one)[0].detach(), layer(two)[0].detach()
    moved = (second - first).abs().amax(-1) > 1e-5   # False where NaN
    print(f"{call:14} moves rows {moved.nonzero().ravel().tolist()},",
          f"NaN in rows {first.isnan().any(-1).nonzero().ravel().tolist()}")

# %% [markdown]
# With the mask the wrong way round, rows 0 to 3 read token 4, which is in their future. Row 5 sees nothing and comes out as NaN, which is luck: it gives the mistake away.
#
# ## Before softmax, not after
#
# The same test settles another question. Could we compute the weights first, and set the forbidden ones to zero afterwards? No weight falls on the future then. Does anything
# of the future get through?

# %%
def attend_then_mask(x, mask):
    q, k = x @ head.w_q + head.b_q, x @ head.w_k + head.b_k
    late = softmax(attention_scores(q, k)) * mask  # too late
    return late @ (x @ head.w_v + head.b_v)


late = softmax(scores) * mask
print("rows 0, 1 and 6 sum to", late.sum(axis=-1)[[0, 1, 6]])
before, after = attend_then_mask(x, mask), attend_then_mask(changed, mask)
print("rows that move:", rows_that_move(before, after))

# %% [markdown]
# Rows no longer sum to 1, and the future **leaks**: row 6 moves when token 13 changes, and so do others. (Row 0 had given token 13 so little that its change stays below our threshold.) The forbidden weights are gone, but while they existed they took their share from the others; how much
# weight the past has left tells something about the future.
#
# Dividing each row by its new sum repairs both, in exact arithmetic: the common factor of the row cancels, and what is left is softmax over the allowed keys.

# %%
renormalised = late / late.sum(axis=-1, keepdims=True)
assert np.allclose(renormalised, blind, atol=1e-6)

loud = np.array([0.0, 1.0, 200.0], dtype=np.float32)  # the third key is forbidden
print("masked after: ", (softmax(loud) * [True, True, False])[:2])
print("masked before:", softmax(loud[:2]))

# %% [markdown]
# In floating point it does not always: a forbidden key with a large score pushes all allowed weights below the smallest number, and 0/0 is left. Mask before softmax, on the scores.
#
# ## Why −∞ and not −10⁹?
#
# Much code writes a large negative number instead of $-\infty$, or adds one: [BERT's own](https://github.com/google-research/bert/blob/master/modeling.py) adds $-10^4$ to the forbidden scores. As long as a query may see
# at least one key, and scores are of ordinary size, that is the same:

# %%
assert np.array_equal(softmax(np.where(mask, scores, np.float32(-1e9))), blind)
assert np.array_equal(softmax(scores + np.float32(-1e4) * ~mask), blind)

# %% [markdown]
# They part ways where a query may see **nothing**. That is not exotic. It takes a batch padded on the left, as is usual when several prompts are continued together, under a causal mask: the first queries are
# padding, and so is everything before them.

# %%
# three padding tokens in front
left_padded = masks.both(causal, lambda q_idx, k_idx: k_idx >= 3)
print(masks.to_array(left_padded, 8).any(axis=-1))

# %% [markdown]
# What weights should such a query get? None of these keys is allowed, so any weight at all is a leak. Try the usual ways on the first six scores of *it*.

# %%
some = scores[it, :6]                            # pretend that all six are forbidden
print("replace by -inf ", softmax(np.full_like(some, -np.inf)))
print("replace by -1e9 ", softmax(np.full_like(some, -1e9)))
print("add -1e4        ", softmax(some + np.float32(-1e4)))
print("add -1e9        ", softmax(some + np.float32(-1e9)))
print("add, in float64 ", softmax(some.astype(np.float64) - 1e9))
print("no mask at all  ", softmax(some))
assert np.spacing(np.float32(1e9)) == 64         # the next float32 is 64 away
assert float(np.finfo(np.float16).max) < 1e9     # float16 has no such number

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# - **Replaced by $-\infty$:** nothing is spent, because our softmax knows the case. Others give NaN, which spreads, but which you notice; chapter 4 shows both, and builds the one you have been using.
# - **Replaced by $-10^9$:** all scores are equal, so the query spends evenly over exactly the keys it must not see.
# - **Added $-10^4$:** every score has moved by the same amount, softmax looks only at differences, and the mask has done *nothing*. (Nearly: float32 keeps three decimals of a number near 10,000.)
# - **Added $-10^9$:** it depends on the number format. Float32 numbers near $10^9$ are 64 apart and swallow the scores, so the row is even; float64 keeps them, and the mask does nothing; float16 has no such number and makes it $-\infty$.
# :::
#
# So this book keeps three things apart. The mask is **boolean**. Forbidden scores are **replaced** by $-\infty$, before softmax. And softmax itself knows what an empty row is: it spends nothing.
#
# ## What to remember
#
# | rule | reason | what showed it |
# |---|---|---|
# | $S = QK^\top/\sqrt d$, queries down, keys across | one matrix product scores every pair | the loop |
# | length of a query: how decided; length of a key: how loud | it scales a row; it scales a column | stretched query, *same_word* |
# | $\operatorname{Var}(q \cdot k) = d$ for independent entries of mean 0, variance 1 | a fact about initialisation | {numref}`fig-scores-width` |
# | unscaled wide rows collapse; gradients become a lottery | entropy falls first | entropy, Jacobian, gradient at the query |
# | trained heads do not obey; $\sqrt d$ is a convention | alignment is what they learned | {numref}`fig-trained-spread` |
# | `True` = may attend; masks combine by *and* | the wrong polarity passes every test of shapes | change a future token |
# | causal: aligned to the **end** | the last query stands at the last key | {numref}`fig-mask-alignment` |
# | replace by $-\infty$, before softmax | after: the future leaks through the sum | row 6 moves |
#
# **In practice.** A fast kernel need not hold the mask as an array. PyTorch's FlexAttention takes a predicate (of batch, head and the two positions), and skips blocks of positions in which no pair is allowed {cite}`dong2024`. That is where a mask saves time; in this
# chapter every forbidden score was computed and then overwritten, which saves nothing (Part III). A mask is also the extreme case of a *bias* on the scores, 0 or $-\infty$;
# chapter 7 meets biases in between, which say how far away a key is.
#
# **Shortcut taken here.** The entropies in {numref}`fig-scores-width` come from independent normal numbers, not from an initialised network: there, queries and keys are projections of the same tokens, and their
# variance depends on how the inputs are normalised and how the weights are drawn. The last exercise measures it.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Say under which assumptions division by $\sqrt d$ keeps the variance of a score at 1 for every width, and measure
#   how far a trained head is from them.
# - Predict who wins, and how decidedly, when a query is stretched to twice its length, and what stretching a key does
#   instead.
# - Write causal and padding masks as questions about two positions, combine them, and count the pairs that are kept.
# - Write the causal mask of three new queries over eight keys, and notice a library that aligns it to the start.
# - Find out, by changing one token and watching which results move, whether a mask is used the wrong way round or after
#   softmax.
# - Predict what a query that may see nothing makes of $-\infty$, of $-10^9$ in its place, and of an added $-10^4$.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:cosine_scores", "ex-prompt"]
# ```{exercise} Scores that cannot grow
# :label: ex-cosine-scores
# Write `cosine_scores(q, k, scale)`: the cosine of every query with every key, times `scale` (the one number that QK-norm learns
# {cite}`henry2020`, in place of a division by $\sqrt d$). `q` is (..., seq_q, dim_head), `k` is (..., seq_k, dim_head), with any leading axes; the
# scores are (..., seq_q, seq_k). A query or key that is all zeros has score 0 with everything, not NaN. Short vectors count like long ones: the
# scores do not depend on any length. Do not change `q` or `k`.
# ```


# %% tags=["ex:cosine_scores", "ex-stub"]
def cosine_scores(q, k, scale):
    raise NotImplementedError("replace this line")

# %% tags=["ex:cosine_scores", "ex-check"]
check(cosine_scores)

# %% tags=["ex:cosine_scores", "ex-solution", "hide-cell"]
def cosine_scores(q, k, scale):
    def unit(vectors):
        length = np.linalg.norm(vectors, axis=-1, keepdims=True)  # (..., seq, 1)
        return vectors / np.where(length == 0, 1, length)
    return scale * (unit(q) @ unit(k).swapaxes(-1, -2))  # (..., seq_q, seq_k)


require(cosine_scores)
sure_q, sure_k = queries_and_keys(real_head("previous"))
print(f"highest score of “previous”: {attention_scores(sure_q, sure_k).max():.1f},",
      f"with scale 10: {cosine_scores(sure_q, sure_k, 10.0).max():.1f}")

# %% [markdown] tags=["ex:window", "ex-prompt"]
# ```{exercise} A window
# :label: ex-window
# Write `window(left, right)`, which returns a **predicate**: a function of two positions `q_idx` and `k_idx` that says whether the query may see
# the key, `True` or `False`. A query sees `left` keys before it, itself, and `right` keys after it. Its own position is not counted, so
# `window(2, 0)` shows three keys. The predicate must take arrays as well as numbers (a column of queries with a row of keys gives one row of
# booleans for each query), and arrays need `&` where numbers would do with `and`. (A window that is off by one raises no error and passes every
# shape test.)
# ```


# %% tags=["ex:window", "ex-stub"]
def window(left, right):
    raise NotImplementedError("replace this line")

# %% tags=["ex:window", "ex-check"]
check(window)

# %% tags=["ex:window", "ex-solution", "hide-cell"]
def window(left, right):
    def predicate(q_idx, k_idx):
        return (q_idx - k_idx <= left) & (k_idx - q_idx <= right)
    return predicate


require(window)

# %% [markdown] tags=["ex:same_document", "ex-prompt"]
# ```{exercise} Several documents in one row
# :label: ex-same-document
# To waste no padding, training often packs several documents into one sequence. `document` is an array of ints, and `document[i]` is the number
# of the document that position `i` belongs to. Write `same_document(document)`, which returns a **predicate**: a function of two positions
# `q_idx` and `k_idx` that is `True` where query and key are of the same document. Positions are ints or arrays of ints, which broadcast: a column
# of queries with a row of keys gives one row of booleans for each query. It has to work for **any** positions it is asked about, not only for the
# whole square.
# ```


# %% tags=["ex:same_document", "ex-stub"]
def same_document(document):
    raise NotImplementedError("replace this line")

# %% tags=["ex:same_document", "ex-check"]
check(same_document)

# %% tags=["ex:same_document", "ex-solution", "hide-cell"]
def same_document(document):
    def predicate(q_idx, k_idx):
        return document[q_idx] == document[k_idx]  # looked up: any positions will do
    return predicate


require(same_document)

# %% [markdown] tags=["ex:leaks_future", "ex-prompt"]
# ```{exercise} The test that was missing
# :label: ex-leaks-future
# Write `leaks_future(layer, x)`. `layer` is any function from token vectors (seq, dim) to results (seq, dim_v), and you cannot look inside.
# Return `True` if the result of any position depends on a **later** token, else `False`. Do not change `x`; tokens in it may repeat, or be all zeros.
# A leak of a few thousandths counts; rounding noise, a few millionths, does not. Your test is tried on layers that are in order and on layers
# that leak, some of them slyly: by one position, only from far away, only between the first tokens, at a single position, through a single
# number of a token, through the sum of a late mask, behind a normalisation, and outside of the attention altogether. A LayerNorm takes the
# mean of a token's numbers away and divides by their spread, so choose with care how you change a token.
# ```


# %% tags=["ex:leaks_future", "ex-stub"]
def leaks_future(layer, x):
    raise NotImplementedError("replace this line")

# %% tags=["ex:leaks_future", "ex-check"]
check(leaks_future)

# %% tags=["ex:leaks_future", "ex-solution", "hide-cell"]
def leaks_future(layer, x):
    before = layer(x)
    for t in range(1, len(x)):         # each in turn: a leak may start anywhere
        other = x.copy()
        other[t] = x[t, ::-1] + 1      # no sign, mean or length hides this
        if not np.allclose(layer(other)[:t], before[:t], atol=1e-4):
            return True                # a position before t has noticed
    return False


require(leaks_future)

# %% [markdown] tags=["ex:explore_init", "ex-prompt", "ex-open"]
# ```{exercise} Explore: a head that has not been trained
# :label: ex-explore-init
# Put random projections in place of the trained ones: entries of `w_q` and `w_k` normal with variance $1/384$, no bias, the real `x`. What is the standard deviation of the scaled scores, on average over a few draws? It is far from 1; which part of the assumption
# fails, and what would you have to do to `x`? (Look at the mean of `x**2`.) Then take the standard deviation 0.02, which BERT's code uses for its weights, and compare with the trained head.
# ```

# %% [markdown]
# **Sources.** Scaled dot product and the assumption behind it: {cite:t}`vaswani2017`. Additive scores: {cite:t}`bahdanau2014`; a comparison inside recurrent translators: {cite:t}`luong2015`. QK-norm:
# {cite:t}`henry2020`. Dividing by $d$: {cite:t}`yang2022`. Masks as predicates: {cite:t}`dong2024`. Collapsing entropy during training: {cite:t}`zhai2023`.
