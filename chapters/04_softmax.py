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
# # Turn scores into weights: softmax
#
# A row of {term}`scores <score>` says which keys suit a query. It does not yet say how much of each value
# to take. In this chapter you build the function that decides that, {term}`softmax`, and find out where it
# overflows, what it forgets, how sharp it can be and what its gradient does.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapter 3 (scores), exponentials and a little differentiation. **You will build** a softmax that survives any
# finite score and an empty row, its entropy, and its backward pass. **Time** about 45 minutes.
# The first figure shows where we are going.
# :::

# %%
import matplotlib.pyplot as plt
import numpy as np

from attnlib.data import real_head
from attnlib.plots import softmax as plots
from attnlib.reference import attention_scores

np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# The scores are real. *The animal didn't cross the street because it was too tired* has gone through three layers
# of a pretrained encoder (MiniLM {cite}`wang2020b`); the token vectors that come out enter one head
# of the next layer, the one in which *it* finds its noun. Its queries and keys you know from chapter 2, the scores from
# chapter 3. We follow the row of *it*.

# %%
head = real_head("pronoun")
q = head.x @ head.w_q + head.b_q       # (seq_q, dim_head)
k = head.x @ head.w_k + head.b_k       # (seq_k, dim_head)
scores = attention_scores(q, k)        # (seq_q, seq_k)

it, animal, street = (
    head.tokens.index(word) for word in ("it", "animal", "street"))
print(head.tokens)
print(scores[it])

# %% mystnb={"image": {"alt": "Two bar charts over the 15 tokens. The scores of the query “it” lie between about minus 3 and 3.6, more than half of them negative; the largest belongs to “animal”. The weights below are all positive; “animal” takes about two thirds, [CLS] about an eighth, most others almost nothing."}, "figure": {"caption": "Softmax turns any row of finite scores into shares: all positive, together exactly 1, and in the same order. A lead of 1.6 over the second-best key becomes a share five times as large.", "name": "fig-scores-and-weights"}}
plots.scores_and_weights(scores[it], head.weights[it], head.tokens, "it")
plt.show()

# %% [markdown]
# ## What must the function do?
#
# We want shares: every one at least zero, all of a row together exactly one, a larger score never worth a
# smaller share. The first thing one would try is to divide by the sum. What will that do to the row above, in
# which nine scores are negative?

# %%
divided = scores[it] / scores[it].sum()
print(f"the scores sum to {scores[it].sum():.2f},",
      f"the quotients to {divided.sum():.2f}; animal {divided[animal]:.2f}")
assert divided.argmin() == animal

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The result sums to 1, and is useless. The scores of *it* sum to a **negative** number, so the division turns
# every sign around: *animal*, the best key, gets the most negative share.
# :::
#
# Signs are the problem, so make everything positive first, without disturbing the order. The exponential does this. Attention has been
# normalised with it since its beginnings in translation {cite}`bahdanau2014`, and is in the transformer {cite}`vaswani2017`:
#
# $$A_j = \frac{e^{S_j}}{\sum_k e^{S_k}}$$
#
# where $S_j$ is the score of key $j$ and $A_j$ its {term}`weight`. Write it as it stands. The sum runs over the
# keys, which are the columns, so `axis=-1`.

# %%
def softmax_naive(scores):
    powers = np.exp(scores)
    return powers / powers.sum(axis=-1, keepdims=True)  # each row sums to 1


weights = softmax_naive(scores)                # (seq_q, seq_k)
assert np.allclose(weights.sum(axis=-1), 1)    # every query spends exactly 1
for j in (animal, 0, street):
    print(f"{head.tokens[j]:6} {weights[it, j]:.3f}")

# %% [markdown]
# Did the pretrained model get the same numbers? Its own weights are stored beside its projections. How close may we ask two float32
# computations to be? Numbers near 1 are about $10^{-7}$ apart. Behind every score stand sums of 384 products, and rounding errors of random sign
# grow like the root of their number. So we accept differences of up to $\sqrt{384}$ such steps: an estimate, not a proof.

# %% tags=["nbval-ignore-output"]
rounding = np.sqrt(384) * np.finfo(np.float32).eps    # 2.3e-6
difference = np.abs(weights - head.weights).max()
assert difference < rounding
print(f"largest difference to the model's own weights: {difference:.0e}")

# %% [markdown]
# Three lines of NumPy and a real head agree to float32's rounding. Everything else in this chapter is about those three lines.
#
# ## What does softmax forget?
#
# Add 5 to every score of the row. What happens to the weights?
#
# :::{dropdown} Your prediction, then ours
# Nothing. $e^{S+5} = e^5 e^S$, and the factor $e^5$ stands in the numerator and in every term of the sum.
# :::

# %%
shifted = softmax_naive(scores[it] + 5)
assert np.allclose(shifted, weights[it], atol=1e-6)  # scores round to 5e-7
print(shifted[:4], weights[it, :4])

# %% [markdown]
# Only **differences** between scores matter: a lead of 1 is worth a factor $e \approx 2.72$ in weight, wherever the row stands.
# *Animal* leads [CLS] by 1.64, so its weight should be $e^{1.64}$ times as large:

# %%
lead = scores[it, animal] - scores[it, 0]
ratio = weights[it, animal] / weights[it, 0]
print(f"lead {lead:.2f}, e^lead {np.exp(lead):.2f}, ratio {ratio:.2f}")
assert np.isclose(np.exp(lead), ratio)

# %% [markdown]
# In chapter 2 no weight depended on the bias $b_K$ of the keys. Now you see why: it adds $q \cdot b_K/\sqrt d$ to *every*
# score of a query's row, the same amount to each. Add a large one, with entries as large as those of the keys themselves. What happens to the weights? And what will training have made of this bias?

# %%
rng = np.random.default_rng(0)
large = rng.standard_normal(32, dtype="float32")  # entries about 1
biased = softmax_naive(attention_scores(q, k + large))
assert np.allclose(biased, weights, atol=1e-5)    # rounding only

of_q, of_k = np.abs(head.b_q).max(), np.abs(head.b_k).max()
print(f"trained biases, largest entry: queries {of_q:.3f}, keys {of_k:.3f}")
assert of_q > 100 * of_k

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Nothing happens: softmax forgets whatever is common to a row. A parameter that cannot change the result gets no gradient, beyond rounding, and you can see it in the trained
# model. Biases usually start at zero, and the key bias has hardly moved, while the query bias, which adds a different amount to each key, is over a hundred times larger. (With rotary positions, chapter 7, keys are turned by their position before the
# dot product; then their bias matters too.)
# :::

# %% [markdown]
# ## Where does it break?
#
# In exact arithmetic the shift is forgotten. A computer does not forget it. Add 1000 instead of 5:

# %%
with np.errstate(over="ignore", invalid="ignore"):  # we want to see it
    print(softmax_naive(scores[it] + 1000)[:4])

# %% [markdown]
# Each power became infinity, and infinity over infinity is *not a number*. Where is the limit? It is the logarithm of
# the largest number the format holds:

# %%
for dtype in (np.float64, np.float32, np.float16):
    most = float(np.finfo(dtype).max)
    print(f"{np.dtype(dtype).name}: largest number {most:.3g},",
          f"exp overflows above {np.log(most):.2f}")

# %% [markdown]
# A thousand is a made-up number. Eleven is not. The head in layer 0 that looks at the **previous token** is
# so sure of itself that its scores reach 30. Round them to float16, which takes half the memory of float32, and send them through our three lines.
# (The other format of 16 bits, bfloat16, spends them on range instead of digits: it overflows where float32 does.)

# %%
previous = real_head("previous")
sure = attention_scores(previous.x @ previous.w_q + previous.b_q,
                        previous.x @ previous.w_k + previous.b_k)
with np.errstate(over="ignore", invalid="ignore"):
    broken = softmax_naive(sure.astype(np.float16))
spoilt = np.isnan(broken).any(axis=-1)
print(f"largest score {sure.max():.1f};",
      f"rows with NaN: {spoilt.sum()} of {len(spoilt)}")

# %% [markdown]
# The model has done nothing wrong; our three lines have. The cure is the shift invariance we have just met. If a
# common shift changes nothing, *choose* the shift that brings the row's largest score to zero. Then no power exceeds
# $e^0 = 1$, and the sum of $M$ powers, one per key, lies between 1 and $M$: no power overflows, and nothing is divided by zero. (The sum still
# can, over more than some 65,500 equal scores in float16. It is one reason to keep sums in float32.)

# %% tags=["nbval-ignore-output"]
def softmax_shifted(scores):
    shifted = scores - scores.max(axis=-1, keepdims=True)  # largest: 0
    powers = np.exp(shifted)                               # largest: 1
    return powers / powers.sum(axis=-1, keepdims=True)


half = softmax_shifted(sure.astype(np.float16))
difference_half = np.abs(half - previous.weights).max()
print(f"float16, difference to the model's own: {difference_half:.0e}")
# float16 from 16 to 32 comes in steps of 1/64, so a score is off by 1/128 at
# most, and a weight by half of that (why a half: the gradient, below)
assert difference_half < 0.005

# %% [markdown]
# Small powers may now *under*flow to zero. For the weights that is harmless: one too small for the format becomes 0, an
# error below the format's smallest number. (For their logarithms it is not; see the second exercise.)
#
# Not every shift will do. Subtracting the row's mean, for instance, makes the scores look tame, and a row with one
# outlier can overflow all the same.

# %%
outlier = np.array([0.0] * 9 + [1000.0])
with np.errstate(over="ignore", invalid="ignore"):
    by_mean = softmax_naive(outlier - outlier.mean())
print("mean subtracted:   ", by_mean[-1])
print("maximum subtracted:", softmax_shifted(outlier)[-1])

# %% [markdown]
# ## Which axis?
#
# Each query spends 1 over the keys; keys are columns, so the sum runs over the **last** axis. Written with the wrong one,
# the code runs, the numbers lie between 0 and 1, and everything sums to 1 somewhere. The shape of the result cannot tell you.
# Which sums can?

# %%
wrong = softmax_shifted(scores.T).T              # normalised over queries
print("rows   :", wrong.sum(axis=-1)[:5])
print("columns:", wrong.sum(axis=-2)[:5])
assert not np.allclose(wrong.sum(axis=-1), 1)    # queries do not spend 1

# %% mystnb={"image": {"alt": "Two 15 by 15 maps of weights, queries down, keys across. On the left, over keys, most rows are dark at [CLS] and “it”, “the” and “cross” at their nouns. On the right, over queries, the [CLS] column is faint, the darkest cell is the row of “cross” at the column of “street”, and columns that no query cared for, such as “too” and “because”, have become visible."}, "figure": {"caption": "The same scores, normalised over keys (left, correct) and over queries (right, wrong). Over queries, keys compete for nothing: a key that suits nobody still hands out a full unit of weight.", "name": "fig-softmax-axis"}}
panels = {"over keys: correct": weights, "over queries: wrong": wrong}
plots.weight_maps(panels, head.tokens, height=3.4)
plt.show()

# %% [markdown]
# The sums over the keys can: among the first five queries one spends 0.4 and another 2.04, while the columns all sum to 1.
# Write `axis=-1`, not `axis=1`. They agree for a matrix; with a batch and heads in front, axis 1 is the
# heads.
#
# ## How sharp is a row?
#
# Divide the scores by a number $T$ before softmax, the {term}`temperature`. Leads shrink when $T$ is above 1 and grow when it
# is below. What becomes of the row of *it* as $T \to \infty$? As $T \to 0$?

# %%
for temperature in (0.1, 1.0, 10.0):
    row = softmax_shifted(scores[it] / temperature)
    print(f"T = {temperature:4}", row[:9])

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# A hot row forgets its scores: every key tends to $1/15 \approx 0.067$, and attention becomes a plain **mean** of the values. A cold row
# keeps only the largest score: softmax becomes **argmax**, and attention a hard lookup. Softmax is the smooth road between the two.
# :::
#
# One number says how far along that road a row is: its {term}`entropy`
#
# $$\operatorname{entropy}(A) = -\sum_j A_j \ln A_j$$
#
# in nats, the unit of the natural logarithm (a key of weight 0 adds 0). It is 0 when one key holds everything, and $\ln M$ when all $M$ keys
# share equally, so $e^{\text{entropy}}$ reads as an *effective number of keys*.

# %%
def entropy(weights):
    logs = np.log(np.where(weights > 0, weights, 1))  # p ln p -> 0 as p -> 0
    return -(weights * logs).sum(axis=-1)


for token in ("it", "cross", "[CLS]"):
    nats = entropy(weights)[head.tokens.index(token)]
    print(f"{token:>6}: {nats:.2f} nats, looks at about {np.exp(nats):.1f} keys")

# %% [markdown]
# *It* looks at about four keys, and [CLS] at hardly more than one. How does the entropy of *it* move with the temperature? Take the row at 61 temperatures.

# %%
curve = np.geomspace(0.05, 50, 61)
by_heat = softmax_shifted(scores[it] / curve[:, None])  # (61, seq_k)
entropies = entropy(by_heat)                            # (61,)
assert (np.diff(entropies) > 0).all()                   # hotter is vaguer
rows = {T: softmax_shifted(scores[it] / T) for T in (0.25, 1.0, 4.0)}

# %% mystnb={"image": {"alt": "Top: the weights of “it” at temperatures 0.25, 1 and 4; at 0.25 only “animal” is dark, at 1 also [CLS] is visible, at 4 all keys are pale. Bottom: entropy rises from 0 at temperature 0.05 along an S-shaped curve to ln 15, about 2.71, at temperature 50; the three temperatures are marked."}, "figure": {"caption": "Temperature moves one row between a hard lookup and a plain mean. Entropy only ever rises with temperature.", "name": "fig-temperature"}}
plots.temperatures(rows, head.tokens, curve, entropies)
plt.show()

# %% [markdown]
# Entropy rises with temperature for every row whose scores are not all equal: its slope over $T$ is the variance of the scores under the weights, divided by $T^3$.
#
# Temperature is the knob that chapter 3 turned without naming it: leaving out the division by $\sqrt d$ is a temperature of
# $1/\sqrt d$. Our head is $d = 32$ wide and was trained with the division. Take it away:

# %%
unscaled = softmax_shifted(scores * np.sqrt(32))
print(f"unscaled is T = {1 / np.sqrt(32):.2f}; rows with one key above 0.95:")
for label, each in (("scaled", weights), ("unscaled", unscaled)):
    print(f"{label:8} {(each.max(axis=-1) > 0.95).sum()} of {len(each)}")

# %% [markdown]
# ## What if a query may see nothing?
#
# A mask sets the scores of forbidden keys to $-\infty$ (chapter 3), and $e^{-\infty} = 0$ gives them weight exactly 0. In a batch of sentences of different
# lengths, or behind a sparse mask, some query may have *every* key masked. What should its weights be? What does our best version make of it?

# %%
empty = np.full(4, -np.inf)
with np.errstate(invalid="ignore"):
    print("-inf everywhere:", softmax_shifted(empty))

# %% [markdown]
# $-\infty - (-\infty)$ is NaN, and the layers that follow spread it. The popular way around it, $-10^9$ in place of $-\infty$, you saw in chapter 3:
# it looks fine and is worse, because the query then spends its weight evenly on **exactly the keys it must not see**.
#
# Shares of nothing cannot sum to 1. This book's contract, in every variant it builds, is that an empty row spends **nothing**: zeros, and zero
# gradients. Two small changes give this without an `if`. Take the maximum of the row *and the lowest finite number*: then
# it is finite even for a row of no keys at all, and $-\infty$ minus a finite number is $-\infty$: every power is 0. And where the sum is 0, divide by 1.

# %%
def softmax(scores):
    lowest = np.finfo(scores.dtype).min          # the lowest finite number
    row_max = scores.max(axis=-1, keepdims=True, initial=lowest)
    powers = np.exp(scores - row_max)            # no power exceeds 1
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)  # empty row: zeros


assert np.array_equal(softmax(empty), np.zeros(4))  # nothing spent
assert softmax(np.zeros((3, 0))).shape == (3, 0)    # no keys at all
assert np.array_equal(softmax(scores), softmax_shifted(scores))
softmax(np.array([[2.0, 1.0, -np.inf], [-np.inf, -np.inf, -np.inf]]))

# %% [markdown]
# From here on this function is `attnlib.reference.softmax`, and `entropy` from the section before is `attnlib.reference.entropy`: the package
# holds the lines you have just read, and a test compares them.
#
# :::{admonition} Elsewhere
# :class: tip
# `torch.softmax` gives NaN for an empty row. PyTorch's fused attention, `scaled_dot_product_attention`, gave NaN too in earlier releases; the one
# used here gives zeros on the CPU, as this book does. The cell below runs both. When you meet a library, try it on an empty row first.
# :::

# %% tags=["torch-check"]
import torch

theirs = torch.softmax(torch.tensor(scores), dim=-1)
assert np.allclose(softmax(scores), theirs.numpy(), atol=1e-6)
print("torch.softmax:  ", torch.softmax(torch.tensor(empty), dim=-1).numpy())

x = torch.ones(1, 1, 2, 4)                       # (batch, heads, seq, dim)
nobody = torch.zeros(2, 2, dtype=torch.bool)     # True = may attend
fused = torch.nn.functional.scaled_dot_product_attention
print("fused attention:", fused(x, x, x, attn_mask=nobody)[0, 0, 0].numpy())

# %% [markdown]
# ## What does its gradient do?
#
# Training moves scores, so we need to know how the weights answer. Stay in one row; $i$ and $j$ are two of its keys. In the derivative of
# $A_i = e^{S_i}/\sum_k e^{S_k}$ with respect to $S_j$, the denominator contributes $-A_i A_j$, and the numerator $A_i$ if $i = j$:
#
# $$\frac{\partial A_i}{\partial S_j} = A_i\,([i = j] - A_j)
# \qquad\text{or}\qquad J = \operatorname{diag}(A) - A A^\top$$
#
# where $[i = j]$ is 1 if $i = j$ and else 0, and $A$ stands for this one row, written as a column. $J$ is called the **Jacobian** of the row. Raising the score of key $j$ raises its own weight and lowers all others, in proportion to what they hold. Before you run the cell: what
# does each column of $J$ sum to?

# %% tags=["nbval-ignore-output"]
row = softmax(scores[it].astype(np.float64))
J = np.diag(row) - np.outer(row, row)      # (seq_k, seq_k)

step = 1e-6
nudge = step * np.eye(len(row))            # row j: nudge score j only
up, down = softmax(scores[it] + nudge), softmax(scores[it] - nudge)
measured = ((up - down) / (2 * step)).T    # column j: answers to score j
print(f"formula against measurement: {np.abs(J - measured).max():.0e}")
assert np.abs(J - measured).max() < 1e-9   # rounding 1e-16, over the step
assert np.allclose(J.sum(axis=0), 0)       # gained by one, lost by others

# %% mystnb={"image": {"alt": "A 15 by 15 signed map. The cell where “animal” answers to its own score is strongly positive, about 0.23; [CLS] answers to its own with about 0.1; the cells between “animal” and [CLS] are negative, about minus 0.08; nearly everything else is close to zero."}, "figure": {"caption": "The Jacobian of the row of “it”. Only keys that already hold weight can gain or lose it: for a key with weight zero, the gradient is zero too.", "name": "fig-softmax-jacobian"}}
plots.jacobian(J, head.tokens)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Zero. The weights always sum to 1, so whatever one gains the others lose. $J$ is symmetric, so its rows sum to zero as well, and that is the
# shift again: raising all scores together changes no weight.
# :::
#
# The backward pass does not build $J$, which for $M$ keys has $M^2$ entries per query. All it needs is $J$ (or $J^\top$, the same) times a
# gradient. Write $g_j$ for the gradient of the loss with respect to weight $A_j$ (called `d_weights`):
#
# $$(J g)_j = A_j\,\Big(g_j - \sum_k A_k\, g_k\Big)$$

# %%
def softmax_backward(weights, d_weights):
    # the mean of the gradient under the weights
    expected = (weights * d_weights).sum(axis=-1, keepdims=True)
    return weights * (d_weights - expected)


g = rng.normal(size=row.shape)
assert np.allclose(softmax_backward(row, g), J @ g)
assert not softmax_backward(softmax(empty), g[:4]).any()  # empty row: zeros

# %% [markdown]
# This is `attnlib.reference.softmax_backward`. Read it aloud, for a step *down* the gradient: *a score is pushed up by its weight, times how much more than the
# average its value would lower the loss.* That sentence explains
# how attention learns where to look, and also how it stops: if a row has put all its weight on one key, then that key **is** the average,
# every other weight is 0, and the gradient vanishes. How large is the Jacobian along the temperature road? (Its norm here is the most that
# the weights can move per small unit of the scaled scores $S/T$, both as Euclidean lengths; for the scores themselves divide by $T$.)

# %%
for T in (0.1, 0.25, 1.0, 4.0, 16.0):
    p = softmax(scores[it].astype(np.float64) / T)
    size = np.linalg.norm(np.diag(p) - np.outer(p, p), ord=2)
    print(f"T = {T:5}: entropy {entropy(p):.2f}, Jacobian norm {size:.1e}")

# %% [markdown]
# Cold rows are frozen: at $T = 0.1$ the norm has fallen by six orders of magnitude. Note the order of events, though: at $T = 0.25$ the entropy is
# already near zero while the norm is still a hundredth of its largest value here. The row is committed before it is frozen. At the other end, no row can
# answer more strongly than $\tfrac12$: in row $i$ of $J$ the diagonal entry is $A_i(1 - A_i)$ and the others together are minus that, so the sizes add up to $2A_i(1 - A_i) \le \tfrac12$,
# and for a symmetric matrix the largest such sum bounds the norm. Two keys that share evenly reach it:

# %%
even = np.array([0.5, 0.5])
size = np.linalg.norm(np.diag(even) - np.outer(even, even), ord=2)
print(f"{size:.3f}")

# %% [markdown]
# ### All of it at once
#
# Chapter 3 divided by $\sqrt d$ because unscaled scores grow with the width. Here is what becomes of the row of *it*, of its entropy and of its whole Jacobian, if the head were wider (with
# queries and keys of the same statistics), with the division and without it, hot and cold. Take the division away and widen the head: at which width does *animal* hold nine tenths of the row, and what is left there of
# its own entry of the Jacobian, which is never above 0.25? Which temperature undoes the missing division at width 64?

# %%
x = head.x.astype(np.float64)                 # so that the figure's numbers are the same on every machine
exact = attention_scores(x @ head.w_q + head.b_q, x @ head.w_k + head.b_k)[it]

# %%
from attnlib.widgets.softmax_explorer import SoftmaxExplorer

SoftmaxExplorer(
    exact, head.tokens, width=32,
    caption="The row of “it”. Divided by √d, neither weights nor entropy depend on the width; not divided, one key soon holds everything and the Jacobian goes out. "
            "Choose whose score is nudged: the framed column of the Jacobian holds who pays for it, and the table names them.")

# %%
for width in (1, 2, 4, 8, 16):
    p = softmax(exact * width**0.5)           # not divided
    print(f"width {width:2}: animal holds {p[animal]:.2f}, entropy {entropy(p):.2f}, its entry of J is {p[animal] * (1 - p[animal]):.3f}")

# %% [markdown]
# :::{dropdown} Your predictions, then ours
# At width 4, where 0.055 is left; at width 16 that is gone, too. And 8, the root of 64: a temperature divides, and so does $\sqrt d$. That is all the
# division is, a temperature that follows the width.
# :::

# %% [markdown]
# ## How long may a row be?
#
# Softmax gives every key with a finite score *something*. With a thousand keys, those somethings add up. Let one key lead all the others by a fixed
# margin and let the row grow. Which lead would you need to keep half of the weight among 10,000 keys?

# %%
lengths = np.geomspace(2, 100_000, 33).astype(int)


def best_share(margin, n):                       # one leader among n keys
    return softmax(np.array([margin] + [0.0] * (n - 1)))[0]


best = {margin: np.array([best_share(margin, n) for n in lengths])
        for margin in (2.0, 5.0, 10.0)}
for margin in (5.0, 8.0, 10.0):
    print(f"lead {margin:5}: {best_share(margin, 10_000):.3f} of 10,000 keys")

# %% mystnb={"image": {"alt": "Three falling curves on a logarithmic axis of 2 to 100,000 keys. With a lead of 2 the best key's weight is below one half from about 9 keys on; with a lead of 5 from about 150; with a lead of 10 from about 22,000. All keep falling."}, "figure": {"caption": "A fixed lead buys a fixed number of keys: the best key keeps half of the weight up to about e^lead rivals, and loses it beyond.", "name": "fig-dispersion"}}
plots.dispersion(lengths, best)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Each of the $M - 1$ others has $e^0 = 1$, so the leader holds $e^{\text{lead}} / (e^{\text{lead}} + M - 1)$. That is one half when $e^{\text{lead}} = M - 1$: for 10,000 keys a lead of
# $\ln 9999 = 9.21$.
# :::

# %%
needed = np.log(9_999)
assert np.isclose(best_share(needed, 10_000), 0.5)
print(f"lead needed: {needed:.2f}")

# %% [markdown]
# After training the projections are fixed, and the token vectors that enter a layer are normalised. So the leads that dot products can
# reach are bounded, and where nothing else enters the score, attention **must** disperse on long enough rows, however well it was trained
# {cite}`velickovic2024`. The paper measures it on tasks that ask for one item among many, such as the largest. The ways out change the premise: a
# window bounds the row, a bias such as ALiBi's (chapter 7) grows with distance, and a temperature may fall as the row spreads, as the paper tries.

# %% [markdown]
# ## What to remember
#
# | property | consequence | what showed it |
# |---|---|---|
# | forgets a common shift | subtract the maximum, and no power overflows; a key bias added to all keys alike does nothing | overflow, $b_K$ |
# | sums over keys, `axis=-1` | rows sum to 1, columns need not | wrong axis |
# | a lead of 1 is a factor $e$ | temperature, and $\sqrt d$, set the entropy | temperature |
# | positive for every finite score, until it underflows | $-\infty$ is the one sure mask; long rows disperse | empty row, dispersion |
# | empty row: zeros | no NaN, no leak | empty row |
# | $J = \operatorname{diag}(A) - AA^\top$ | gradient flows only where weight is; one-hot rows are frozen | Jacobian |
#
# **In practice.** Attention kernels in the manner of FlashAttention never hold a whole row: they keep a running maximum and a running sum, and rescale when the maximum
# grows {cite}`milakov2018,dao2022`. For the backward pass, FlashAttention-2 saves one number per row, the {term}`log-sum-exp` {cite}`dao2023`. You will build that in Part IV; the
# third exercise below is its seed. Such kernels often compute $2^{x \log_2 e}$ instead of $e^x$, because the hardware has a fast $2^x$, and keep scores, maximum and sum in float32 even when
# queries and keys are float16.
#
# **Shortcut taken here.** We looked at one head. In a network the lead itself is learned, and training can drive it up until entropy collapses {cite}`zhai2023`; normalising queries and
# keys {cite}`henry2020` or the spectral norm of the projections {cite}`zhai2023` are ways to hold it.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Write a softmax in which no power of a finite score overflows, and which gives a row that may see nothing zeros
#   instead of NaN.
# - Tell from the sums of rows and columns whether softmax ran over the wrong axis.
# - Turn the lead of one score over another into the ratio of their weights without computing a softmax.
# - Read the entropy of a row as a number of keys, say which way a temperature moves it, and name the one that undoes a
#   missing division by $\sqrt d$.
# - Multiply by the Jacobian of a row without building it, and check the formula against a measurement.
# - Compute the lead that the best key needs to keep half of the weight among any number of keys.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:soften", "ex-prompt"]
# ```{exercise} Temperature with its limits
# :label: ex-soften
# Write `soften(scores, temperature)`: `softmax` over the last axis of `scores` divided by the temperature, for finite scores and any
# temperature $\ge 0$, however small, **including 0**, where all weight goes to the largest score of each row and exact ties share it
# equally, and including `np.inf`, where every key gets the same. Nothing may be divided by zero (where it is tried, NumPy raises a
# `FloatingPointError` here instead of warning). It should work on any leading axes, or none. Do not change `scores`.
# ```


# %% tags=["ex:soften", "ex-stub"]
def soften(scores, temperature):
    raise NotImplementedError("replace this line")

# %% tags=["ex:soften", "ex-check"]
check(soften)

# %% tags=["ex:soften", "ex-solution", "hide-cell"]
def soften(scores, temperature):
    shifted = scores - scores.max(axis=-1, keepdims=True)  # largest: 0
    if temperature == 0:
        ties = shifted == 0
        return ties / ties.sum(axis=-1, keepdims=True)
    return softmax(shifted / temperature)  # may go to -inf, never to +inf


require(soften)

# %% [markdown] tags=["ex:log_softmax", "ex-prompt"]
# ```{exercise} Logarithms without a detour
# :label: ex-log-softmax
# Losses need $\ln A_j$, the logarithms of softmax weights. `np.log(softmax(scores))` gives $-\infty$ for a key whose weight underflows, although
# the logarithm itself is an ordinary number. Write `log_softmax(scores)` that is right for any finite scores, over the last axis, with any
# leading axes or none. The result has the shape of `scores`, which stays as it is. Hint: take the logarithm of the formula on paper first.
# ```


# %% tags=["ex:log_softmax", "ex-stub"]
def log_softmax(scores):
    raise NotImplementedError("replace this line")

# %% tags=["ex:log_softmax", "ex-check"]
check(log_softmax)

# %% tags=["ex:log_softmax", "ex-solution", "hide-cell"]
def log_softmax(scores):
    shifted = scores - scores.max(axis=-1, keepdims=True)
    # ln(e^s / sum) = s - ln sum
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


require(log_softmax)

# %% [markdown] tags=["ex:merge", "ex-prompt"]
# ```{exercise} Half a row at a time
# :label: ex-merge
# A row of scores is too long for your memory, so you see it in two halves. For each half you may keep its largest score, `row_max`, and the sum
# of its powers, `row_sum` $= \sum_j e^{S_j - \text{row\_max}}$, relative to that half's own maximum, nothing else. Write
# `merge(max_a, sum_a, max_b, sum_b)`: from these four numbers, return the maximum and the sum of the **whole** row, in this order, safe for
# scores like 1000 and −1000. In one half every key may be masked: its maximum is $-\infty$ and its sum 0 (never in both). This is the step that
# FlashAttention {cite}`dao2022` repeats for every block.
# ```


# %% tags=["ex:merge", "ex-stub"]
def merge(max_a, sum_a, max_b, sum_b):
    raise NotImplementedError("replace this line")

# %% tags=["ex:merge", "ex-check"]
check(merge)

# %% tags=["ex:merge", "ex-solution", "hide-cell"]
def merge(max_a, sum_a, max_b, sum_b):
    row_max = np.maximum(max_a, max_b)
    sum_a = sum_a * np.exp(max_a - row_max)  # each half is rescaled
    sum_b = sum_b * np.exp(max_b - row_max)
    return row_max, sum_a + sum_b


require(merge)

# %% [markdown] tags=["ex:with_duplicate", "ex-prompt"]
# ```{exercise} Twice the same key
# :label: ex-with-duplicate
# A sentence says the same word, *animal*, a second time, with exactly the same key. **Predict** first: do the weights of the two *animals*
# together equal the old weight of the one? Then write `with_duplicate(weights, j)`. `weights` (seq_k,) is one row that softmax made, so it sums
# to 1; the scores are not given. Return the row of weights (seq_k + 1,) after key `j` ($0 \le$ `j` $<$ seq_k) has been appended once more, at
# the end. Do not change `weights`.
# ```


# %% tags=["ex:with_duplicate", "ex-stub"]
def with_duplicate(weights, j):
    raise NotImplementedError("replace this line")

# %% tags=["ex:with_duplicate", "ex-check"]
check(with_duplicate)

# %% tags=["ex:with_duplicate", "ex-solution", "hide-cell"]
def with_duplicate(weights, j):
    longer = np.append(weights, weights[j])
    return longer / longer.sum()  # the new sum is 1 + weights[j]


require(with_duplicate)
twice = with_duplicate(weights[it], animal)
together = twice[animal] + twice[-1]
assert together > weights[it, animal]  # repeating draws attention
print(f"animal once: {weights[it, animal]:.3f}",
      f"  twice: {twice[animal]:.3f} + {twice[-1]:.3f} = {together:.3f}")

# %% [markdown] tags=["ex:explore_wide", "ex-prompt", "ex-open"]
# ```{exercise} Explore: the same head, another ending
# :label: ex-explore-wide
# `real_head("pronoun", "wide")` holds the sentence that ends in *too wide*, where *it* should mean the street. Compare the rows of *it*: scores, weights,
# entropy. What becomes of the lead of *animal* over *street*, and which key leads now? Does the head change its mind, or only its confidence?
# ```

# %% [markdown]
# **Sources.** Softmax in attention: {cite:t}`bahdanau2014`, {cite:t}`vaswani2017`. Running maximum and sum: {cite:t}`milakov2018`; in attention kernels: {cite:t}`dao2022`, {cite:t}`dao2023`. Dispersion: {cite:t}`velickovic2024`.
# Entropy collapse in training: {cite:t}`zhai2023`; normalised queries and keys: {cite:t}`henry2020`.
