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
# finite score and an empty row, its entropy, and its backward pass. **Time** about 40 minutes.
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

it = head.tokens.index("it")
print(head.tokens)
print(scores[it])

# %% mystnb={"image": {"alt": "Two bar charts over the 15 tokens. The scores of the query “it” lie between minus 3 and 3.6, more than half of them negative; the largest belongs to “animal”. The weights below are all positive; “animal” takes about two thirds, [CLS] about an eighth, most others almost nothing."}, "figure": {"caption": "Softmax turns any row of scores into shares: all positive, together exactly 1, and in the same order. A lead of 1.6 over the second-best key becomes a share five times as large.", "name": "fig-scores-and-weights"}}
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
print("sums to", divided.sum().round(3))
print(dict(zip(head.tokens, divided.round(2), strict=True))["animal"])

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The result sums to 1, and is useless. The scores of *it* sum to a **negative** number, so the division turns
# every sign around: *animal*, the best key, gets the most negative share.
# :::
#
# Signs are the problem, so make everything positive first, without disturbing the order. The exponential does this
# {cite}`vaswani2017`:
#
# $$A_j = \frac{e^{S_j}}{\sum_m e^{S_m}}$$
#
# where $S_j$ is the score of key $j$ and $A_j$ its {term}`weight`. Write it as it stands. The sum runs over the
# keys, which are the columns, so `axis=-1`.

# %%
def softmax_naive(scores):
    powers = np.exp(scores)
    return powers / powers.sum(axis=-1, keepdims=True)  # each row sums to 1


weights = softmax_naive(scores)                # (seq_q, seq_k)
assert np.allclose(weights.sum(axis=-1), 1)    # every query spends exactly 1
print(f"animal {weights[it, 2]:.3f}   [CLS] {weights[it, 0]:.3f}   street {weights[it, 8]:.3f}")

# %% [markdown]
# Did the pretrained model get the same numbers? Its own weights are stored beside its projections.

# %% tags=["nbval-ignore-output"]
difference = np.abs(weights - head.weights).max()
assert difference < 1e-6                       # float32 carries about 7 digits
print(f"largest difference to the model's own weights: {difference:.0e}")

# %% [markdown]
# Three lines of NumPy and a real head agree to float32's last digits. Everything else in this chapter is about those three lines.
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
assert np.allclose(shifted, weights[it], atol=1e-6)
print(shifted[:4], weights[it, :4])

# %% [markdown]
# Only **differences** between scores matter: a lead of 1 is worth a factor $e \approx 2.72$ in weight, wherever the row stands.
# *Animal* leads [CLS] by 1.64, so its weight should be $e^{1.64}$ times as large:

# %%
lead = scores[it, 2] - scores[it, 0]
ratio = weights[it, 2] / weights[it, 0]
print(f"lead {lead:.2f}, e^lead {np.exp(lead):.2f}, ratio of weights {ratio:.2f}")
assert np.isclose(np.exp(lead), ratio)

# %% [markdown]
# This has a consequence for real models. The projection of the keys has a bias $b_K$. It adds $q \cdot b_K/\sqrt d$ to *every*
# score of a query's row, the same amount to each. What happens to the weights if we add a large one? And what will training have made of this bias?

# %%
rng = np.random.default_rng(0)
biased = softmax_naive(attention_scores(q, k + rng.standard_normal(32, dtype="float32")))  # entries of ordinary size, about 1
assert np.allclose(biased, weights, atol=1e-5)
print("trained biases, largest entry: queries", np.abs(head.b_q).max().round(3), "  keys", np.abs(head.b_k).max().round(3))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Nothing happens: softmax forgets whatever is common to a row. A parameter that cannot change the result gets no gradient, beyond rounding, and you can see it in the trained
# model: its key bias has hardly left zero, while the query bias, which adds a different amount to each key, is over a hundred times larger. (With rotary positions, chapter 7, keys are turned by their position before the
# dot product; then their bias matters too.)
# :::

# %% [markdown]
# ## Where does it break?
#
# In exact arithmetic the shift is forgotten. A computer does not forget it. Add 1000 instead of 5:

# %%
with np.errstate(over="ignore", invalid="ignore"):  # the overflow is what we want to see
    print(softmax_naive(scores[it] + 1000)[:4])

# %% [markdown]
# Each power became infinity, and infinity over infinity is *not a number*. Where is the limit? It is the logarithm of
# the largest number the format holds:

# %%
for dtype in (np.float64, np.float32, np.float16):
    print(f"{np.dtype(dtype).name}: exp overflows above {np.log(float(np.finfo(dtype).max)):.2f}")

# %% [markdown]
# A thousand is a made-up number. Eleven is not. The head in layer 0 that looks at the **previous token** is
# so sure of itself that its scores reach 30. Run it in float16, as graphics cards do to save memory:

# %%
previous = real_head("previous")
sure = attention_scores(previous.x @ previous.w_q + previous.b_q, previous.x @ previous.w_k + previous.b_k)
with np.errstate(over="ignore", invalid="ignore"):
    broken = softmax_naive(sure.astype(np.float16))
print(f"largest score {sure.max():.1f};", f"rows with NaN: {np.isnan(broken).any(axis=-1).sum()} of {len(broken)}")

# %% [markdown]
# The model has done nothing wrong; our three lines have. The cure is the shift invariance we have just met. If a
# common shift changes nothing, *choose* the shift that brings the row's largest score to zero. Then no power exceeds
# $e^0 = 1$, and the sum is at least 1: no overflow, no division by zero.

# %%
def softmax_shifted(scores):
    shifted = scores - scores.max(axis=-1, keepdims=True)  # the largest score becomes 0
    powers = np.exp(shifted)                               # so no power exceeds 1
    return powers / powers.sum(axis=-1, keepdims=True)


half = softmax_shifted(sure.astype(np.float16))
assert np.isfinite(half).all()
print(f"float16, largest difference to the model's own weights: {np.abs(half - previous.weights).max():.3f}")

# %% [markdown]
# Small powers may now *under*flow to zero. For the weights that is harmless: one too small for the format becomes 0, an
# error below the format's smallest number. (For their logarithms it is not; see the second exercise.)
#
# Not every shift will do. Subtracting the row's mean, for instance, makes the scores look tame, and a row with one
# outlier overflows all the same.

# %%
outlier = np.array([0.0] * 9 + [1000.0])
with np.errstate(over="ignore", invalid="ignore"):
    by_mean = softmax_naive(outlier - outlier.mean())
print("mean subtracted:", by_mean[-1], "  maximum subtracted:", softmax_shifted(outlier)[-1])

# %% [markdown]
# ## Which axis?
#
# Each query spends 1 over the keys; keys are columns, so the sum runs over the **last** axis. Written with the wrong one,
# the code runs, the numbers lie between 0 and 1, and everything sums to 1 somewhere. The shape of the result cannot tell you.
# Which sums can?

# %%
wrong = softmax_shifted(scores.T).T                 # normalised over the queries
print("rows   :", wrong.sum(axis=-1)[:5])
print("columns:", wrong.sum(axis=-2)[:5])
assert not np.allclose(wrong.sum(axis=-1), 1)       # the queries do not spend 1

# %% mystnb={"image": {"alt": "Two 15 by 15 maps of weights, queries down, keys across. On the left, over keys, most rows are dark at [CLS] and “it”, “the” and “cross” at their nouns. On the right, over queries, the [CLS] column is faint, the darkest cell is the row of “cross” at the column of “street”, and columns that no query cared for, such as “too” and “because”, have become visible."}, "figure": {"caption": "The same scores, normalised over keys (right) and over queries (wrong). Over queries, keys compete for nothing: a key that suits nobody still hands out a full unit of weight.", "name": "fig-softmax-axis"}}
plots.weight_maps({"over keys: correct": weights, "over queries: wrong": wrong}, head.tokens, height=3.4)
plt.show()

# %% [markdown]
# Write `axis=-1`, not `axis=1`. They agree for a matrix; with a batch and heads in front, axis 1 is the
# heads.
#
# ## How sharp is a row?
#
# Divide the scores by a number $T$ before softmax, the {term}`temperature`. Leads shrink when $T$ is above 1 and grow when it
# is below. What becomes of the row of *it* as $T \to \infty$? As $T \to 0$?

# %%
for temperature in (0.1, 1.0, 10.0):
    print(f"T = {temperature:4}", softmax_shifted(scores[it] / temperature)[:9])

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# A hot row forgets its scores: every key tends to $1/15 \approx 0.067$, and attention becomes a plain **mean** of the values. A cold row
# keeps only the largest score: softmax becomes **argmax**, and attention a hard lookup. Softmax is the smooth road between the two.
# :::
#
# One number says how far along that road a row is: its {term}`entropy` $H = -\sum_j A_j \ln A_j$, in nats. It is 0 when one
# key holds everything, and $\ln n$ when all $n$ share equally, so $e^H$ reads as *how many keys the query is really looking at*.

# %%
def entropy(weights):
    logs = np.log(np.where(weights > 0, weights, 1))  # p ln p -> 0 as p -> 0
    return -(weights * logs).sum(axis=-1)


for token in ("it", "cross", "[CLS]"):
    H = entropy(weights)[head.tokens.index(token)]
    print(f"{token:>6}: entropy {H:.2f} nats, looks at about {np.exp(H):.1f} keys")

# %%
curve = np.geomspace(0.05, 50, 61)
entropies = entropy(softmax_shifted(scores[it] / curve[:, None]))  # (61,): one row of weights per temperature
assert (np.diff(entropies) > 0).all()                               # hotter is always vaguer
rows = {T: softmax_shifted(scores[it] / T) for T in (0.25, 1.0, 4.0)}

# %% mystnb={"image": {"alt": "Top: the weights of “it” at temperatures 0.25, 1 and 4; at 0.25 only “animal” is dark, at 1 also [CLS] is visible, at 4 all keys are pale. Bottom: entropy rises from 0 at temperature 0.05 along an S-shaped curve to ln 15, about 2.71, at temperature 50; the three temperatures are marked."}, "figure": {"caption": "Temperature moves one row between a hard lookup and a plain mean. Entropy only ever rises with temperature.", "name": "fig-temperature"}}
plots.temperatures(rows, head.tokens, curve, entropies)
plt.show()

# %% [markdown]
# This is the knob that chapter 3 turned without naming it: leaving out the division by $\sqrt d$ is a temperature of
# $1/\sqrt d$. This head is $d = 32$ wide. Without the division it would run at $T = 0.18$:

# %%
unscaled = softmax_shifted(scores * np.sqrt(32))
print(f"mean entropy: scaled {entropy(weights).mean():.2f}, unscaled {entropy(unscaled).mean():.2f}")
print(f"rows with one key above 0.99: scaled {(weights.max(-1) > 0.99).sum()}, unscaled {(unscaled.max(-1) > 0.99).sum()}")

# %% [markdown]
# ## What if a query may see nothing?
#
# A mask sets the scores of forbidden keys to $-\infty$ (chapter 3), and $e^{-\infty} = 0$ gives them weight exactly 0. In a batch of sentences of different
# lengths, or behind a sparse mask, some query may have *every* key masked. What should its weights be? What does each of our versions make of it?

# %%
empty = np.full(4, -np.inf)
with np.errstate(invalid="ignore"):
    print("-inf everywhere:", softmax_shifted(empty))
print("-1e9 everywhere:", softmax_shifted(np.full(4, -1e9)))

# %% [markdown]
# Two bad answers. $-\infty - (-\infty)$ is NaN, which then spreads through the whole network. The popular $-10^9$
# looks fine and is worse: after the shift every score is 0, so a query that may see nothing spends its weight evenly on **exactly the keys it
# must not see**, padding and future included. (In float16 $-10^9$ does not even exist; it rounds to $-\infty$.)
#
# Shares of nothing cannot sum to 1. This book's contract, in every variant it builds, is that an empty row spends **nothing**: zeros, and zero
# gradients. One trick gives this without an `if`. Take the maximum of the row *and the lowest finite number*: then
# it is finite for every row, even for a row of no keys at all.

# %%
def softmax(scores):
    lowest = np.finfo(scores.dtype).min                      # makes the maximum finite in every row
    row_max = scores.max(axis=-1, keepdims=True, initial=lowest)
    powers = np.exp(scores - row_max)                        # the largest score becomes 0, no power exceeds 1
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)       # an empty row stays all zeros


assert np.array_equal(softmax(empty), np.zeros(4))           # nothing to see, nothing spent
assert softmax(np.zeros((3, 0))).shape == (3, 0)             # no keys at all
assert np.array_equal(softmax(scores), softmax_shifted(scores))
softmax(np.array([[2.0, 1.0, -np.inf], [-np.inf, -np.inf, -np.inf]]))

# %% [markdown]
# From here on this function is `attnlib.reference.softmax` and the one above `attnlib.reference.entropy`: the package
# holds the lines you have just read, and a test compares them.
#
# :::{admonition} Elsewhere
# :class: tip
# `torch.softmax` gives NaN for an empty row. PyTorch's fused attention gave NaN too in earlier releases, and now keeps the same contract as
# this book; the cell below runs both. When you meet a library, try it on an empty row first.
# :::

# %% tags=["torch-check"]
import torch

theirs = torch.softmax(torch.tensor(scores), dim=-1)
assert np.allclose(softmax(scores), theirs.numpy(), atol=1e-6)         # equal where a row has a key
print("torch.softmax, empty row:", torch.softmax(torch.full((4,), -torch.inf), dim=-1))

x, nobody = torch.ones(2, 4), torch.zeros(2, 2, dtype=torch.bool)
print("fused attention, empty row:", torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=nobody)[0])

# %% [markdown]
# ## What does its gradient do?
#
# Training moves scores, so we need to know how the weights answer. Differentiate $A_i = e^{S_i}/\sum_m e^{S_m}$ with respect to $S_j$:
#
# $$\frac{\partial A_i}{\partial S_j} = A_i\,([i = j] - A_j)
# \qquad\text{or}\qquad J = \operatorname{diag}(A) - A A^\top$$
#
# Raising the score of key $j$ raises its own weight and lowers all others, in proportion to what they hold. Before you run the cell: what
# does each column of $J$ sum to?

# %% tags=["nbval-ignore-output"]
row = softmax(scores[it].astype(np.float64))
J = np.diag(row) - np.outer(row, row)      # (seq_k, seq_k)

step = 1e-6
nudge = step * np.eye(len(row))            # row j: nudge the score of key j only
measured = (softmax(scores[it] + nudge) - softmax(scores[it] - nudge)) / (2 * step)
print(f"formula against measurement: {np.abs(J - measured.T).max():.0e}")
assert np.allclose(J, measured.T, atol=1e-8)
assert np.allclose(J.sum(axis=0), 0)       # what one key gains the others lose

# %% mystnb={"image": {"alt": "A 15 by 15 signed map. The cell where “animal” answers to its own score is strongly positive, about 0.23; [CLS] answers to its own with about 0.1; the cells between “animal” and [CLS] are negative, about minus 0.08; nearly everything else is close to zero."}, "figure": {"caption": "The Jacobian of the row of “it”. Only keys that already hold weight can gain or lose it: for a key with weight zero, the gradient is zero too.", "name": "fig-softmax-jacobian"}}
plots.jacobian(J, head.tokens)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Zero. The weights always sum to 1, so whatever one gains the others lose. It is the shift again: $J$ times the vector of ones is zero as well,
# because a common shift changes no weight.
# :::
#
# Nobody builds $J$: for $n$ keys it has $n^2$ entries per query. What the backward pass needs is $J$ times a
# gradient. Write $g_j$ for the gradient of the loss with respect to weight $A_j$ (called `d_weights`):
#
# $$(J g)_j = A_j\,\Big(g_j - \sum_m A_m\, g_m\Big)$$

# %%
def softmax_backward(weights, d_weights):
    expected = (weights * d_weights).sum(axis=-1, keepdims=True)  # mean of the gradient under the weights
    return weights * (d_weights - expected)


g = rng.normal(size=row.shape)
assert np.allclose(softmax_backward(row, g), J @ g)

# %% [markdown]
# This is `attnlib.reference.softmax_backward`. Read it aloud: *a score moves by its weight, times how much better than the average its value would be.* That sentence explains
# how attention learns, and also how it stops learning: if a row has put all its weight on one key, then that key **is** the average,
# every other weight is 0, and the gradient vanishes. How large is the Jacobian along the temperature road? (Its norm here is the most that
# a unit change of the scaled scores $S/T$ can move the weights; for the scores themselves divide by $T$.)

# %%
for T in (0.1, 0.25, 1.0, 4.0, 16.0):
    p = softmax(scores[it].astype(np.float64) / T)
    size = np.linalg.norm(np.diag(p) - np.outer(p, p), ord=2)
    print(f"T = {T:5}: entropy {entropy(p):.2f}, Jacobian norm {size:.1e}")

# %% [markdown]
# Cold rows are frozen: at $T = 0.1$ the norm has fallen by six orders of magnitude. Note the order of events, though: at $T = 0.25$ the entropy is
# already near zero while the Jacobian still passes a hundredth of the best value. The row is committed before it is frozen. At the other end, no row can
# answer more strongly than $\tfrac12$: the sizes in row $i$ of $J$ add up to $2A_i(1 - A_i)$, and for a symmetric matrix the largest such sum bounds
# the norm. Two keys that share evenly reach it:

# %%
fifty_fifty = np.array([0.5, 0.5])
print(np.linalg.norm(np.diag(fifty_fifty) - np.outer(fifty_fifty, fifty_fifty), ord=2))

# %% [markdown]
# ## How long may a row be?
#
# Softmax gives every key *something*. With a thousand keys, those somethings add up. Let one key lead all the others by a fixed
# margin and let the row grow. Which lead would you need to keep half of the weight among 10,000 keys?

# %%
lengths = np.geomspace(2, 100_000, 33).astype(int)
best = {}
for lead in (2.0, 5.0, 10.0):
    best[lead] = np.array([softmax(np.array([lead] + [0.0] * (n - 1)))[0] for n in lengths])

at_10k = {lead: softmax(np.array([lead] + [0.0] * 9_999))[0] for lead in (5.0, 9.21, 10.0)}
print({lead: at_10k[lead].round(3) for lead in at_10k})

# %% mystnb={"image": {"alt": "Three falling curves on a logarithmic axis of 2 to 100,000 keys. With a lead of 2 the best key's weight is below one half from about 8 keys on; with a lead of 5 from about 150; with a lead of 10 from about 22,000. All tend to zero."}, "figure": {"caption": "A fixed lead buys a fixed number of keys: the best key keeps half of the weight up to about e^lead rivals, and loses it beyond.", "name": "fig-dispersion"}}
plots.dispersion(lengths, best)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The leader holds $e^{\text{lead}} / (e^{\text{lead}} + n - 1)$, which is one half when $e^{\text{lead}} = n - 1$: for 10,000 keys a lead of
# $\ln 9999 = 9.21$.
# :::
#
# After training the projections are fixed, and the token vectors that enter a layer are normalised. So the leads a head can
# reach are bounded, and on long enough rows its attention **must** disperse, however well it was trained
# {cite}`velickovic2024`. The paper measures it on tasks that ask for one item among many, such as the largest.

# %% [markdown]
# ## What to remember
#
# | property | consequence | cell that shows it |
# |---|---|---|
# | forgets a common shift | subtract the maximum: safe in any precision; key biases never matter | overflow, $b_K$ |
# | sums over keys, `axis=-1` | rows sum to 1, columns need not | wrong axis |
# | a lead of 1 is a factor $e$ | temperature, and $\sqrt d$, set the entropy | temperature |
# | never exactly zero for finite scores | only $-\infty$ masks; long rows disperse | empty row, dispersion |
# | empty row: zeros | no NaN, no leak | contract |
# | $J = \operatorname{diag}(A) - AA^\top$ | gradient flows only where weight is; certain rows are frozen | Jacobian |
#
# **In practice.** Fused kernels never hold a whole row: they keep a running maximum and a running sum, rescale when the maximum grows
# {cite}`milakov2018`, and save one number per row for the backward pass, the {term}`log-sum-exp`. You will build that in Part IV; the
# third exercise below is its seed. Many compute $2^{x \log_2 e}$ instead of $e^x$, because the hardware has a fast $2^x$. Most sum in float32 even when scores are float16.
#
# **Shortcut taken here.** We looked at one head. In a network the lead itself is learned, and training can drive it up until rows freeze; norms on queries and
# keys {cite}`henry2020` or on the weights' scale {cite}`zhai2023` are ways to hold it.

# %% [markdown]
# ## Exercises

# %% [markdown] tags=["ex:soften", "ex-prompt"]
# ```{exercise} Temperature with its limits
# :label: ex-soften
# Write `soften(scores, temperature)` for any temperature $\ge 0$, **including 0**, where all weight goes to the largest score and ties share it equally,
# and including `np.inf`, where every key gets the same. Nothing may be divided by zero. It should work on any leading axes.
# ```

# %% tags=["ex:soften", "ex-stub"]
def soften(scores, temperature):
    raise NotImplementedError("replace this line")

# %% tags=["ex:soften", "ex-solution", "hide-cell"]
def soften(scores, temperature):
    if temperature == 0:
        ties = scores == scores.max(axis=-1, keepdims=True)
        return ties / ties.sum(axis=-1, keepdims=True)
    return softmax(scores / temperature)

# %% tags=["ex:soften", "ex-check"]
assert np.allclose(soften(scores, 1.0), softmax(scores))
with np.errstate(divide="raise", invalid="raise"):                           # no division by zero
    assert np.array_equal(soften(np.array([3.0, 3.0, 0.0]), 0), [0.5, 0.5, 0])   # ties share
assert np.allclose(soften(scores, np.inf), 1 / 15)                           # infinitely hot: the mean
assert np.argmax(soften(scores[it], 0)) == 2                                 # hard lookup: animal

# %% [markdown] tags=["ex:log_softmax", "ex-prompt"]
# ```{exercise} Logarithms without a detour
# :label: ex-log-softmax
# Losses need $\ln A_j$. `np.log(softmax(scores))` gives $-\infty$ for a key whose weight underflows, although the logarithm itself is an ordinary
# number. Write `log_softmax(scores)` that is right for any finite scores. Hint: take the logarithm of the formula on paper first.
# ```

# %% tags=["ex:log_softmax", "ex-stub"]
def log_softmax(scores):
    raise NotImplementedError("replace this line")

# %% tags=["ex:log_softmax", "ex-solution", "hide-cell"]
def log_softmax(scores):
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))  # ln(e^s / sum) = s - ln sum

# %% tags=["ex:log_softmax", "ex-check"]
assert np.allclose(np.exp(log_softmax(scores)), softmax(scores))
far = np.array([1e4, 0.0, -1e4])
assert np.array_equal(log_softmax(far), [0.0, -1e4, -2e4])   # np.log(softmax(far)) is [0, -inf, -inf]
assert np.allclose(log_softmax(far + 1e5), log_softmax(far))

# %% [markdown] tags=["ex:merge_rows", "ex-prompt"]
# ```{exercise} Half a row at a time
# :label: ex-merge-rows
# A row of keys is too long for your memory, so you see it in two halves. For each half you may keep its largest score and the sum of its powers,
# `row_max` and `row_sum` (relative to that half's own maximum), nothing else. Write `merge(max_a, sum_a, max_b, sum_b)`, which returns the maximum
# and the sum of the **whole** row, safe for scores like 1000 and $-1000$.
# This is the step that FlashAttention repeats for every block.
# ```

# %% tags=["ex:merge_rows", "ex-stub"]
def merge(max_a, sum_a, max_b, sum_b):
    raise NotImplementedError("replace this line")

# %% tags=["ex:merge_rows", "ex-solution", "hide-cell"]
def merge(max_a, sum_a, max_b, sum_b):
    row_max = np.maximum(max_a, max_b)
    row_sum = sum_a * np.exp(max_a - row_max) + sum_b * np.exp(max_b - row_max)  # each half is rescaled
    return row_max, row_sum

# %% tags=["ex:merge_rows", "ex-check"]
def halves(scores, cut):
    parts = scores[:cut], scores[cut:]
    return [f(part) for part in parts for f in (np.max, lambda p: np.exp(p - p.max()).sum())]


for long_row in (scores[it], np.array([1000.0, 999.0, -1000.0, 1001.0])):
    row_max, row_sum = merge(*halves(long_row, 2))
    assert np.allclose(np.exp(long_row - row_max) / row_sum, softmax(long_row), atol=1e-6)

# %% [markdown] tags=["ex:duplicate_key", "ex-prompt"]
# ```{exercise} Twice the same key
# :label: ex-duplicate
# The word *animal* appears a second time, with exactly the same key. **Predict** first: do the weights of the two *animals* together equal the
# old weight of the one? Then write `with_duplicate(weights, j)`: from a row of **weights** alone (no scores), the row of $n + 1$ weights after key $j$
# has been appended once more.
# ```

# %% tags=["ex:duplicate_key", "ex-stub"]
def with_duplicate(weights, j):
    raise NotImplementedError("replace this line")

# %% tags=["ex:duplicate_key", "ex-solution", "hide-cell"]
def with_duplicate(weights, j):
    longer = np.append(weights, weights[j])
    return longer / longer.sum()  # the old sum was 1; the new one is 1 + weights[j]

# %% tags=["ex:duplicate_key", "ex-check"]
twice = with_duplicate(weights[it], 2)
assert np.allclose(twice, softmax(np.append(scores[it], scores[it, 2])), atol=1e-6)
assert twice[2] + twice[-1] > weights[it, 2]      # repeating a word draws attention to it
print(f"animal once: {weights[it, 2]:.3f}   twice: {twice[2]:.3f} + {twice[-1]:.3f} = {twice[2] + twice[-1]:.3f}")

# %% [markdown] tags=["ex:explore_wide", "ex-prompt", "ex-open"]
# ```{exercise} Explore: the same head, another ending
# :label: ex-explore-wide
# `real_head("pronoun", "wide")` holds the sentence that ends in *too wide*, where *it* should mean the street. Compare the rows of *it*: scores, weights,
# entropy. Which changed more, the lead of *animal* over *street* or the entropy? Does the head change its mind, or only its confidence?
# ```

# %% [markdown]
# **Sources.** Softmax in attention: {cite:t}`vaswani2017`. Running maximum and sum: {cite:t}`milakov2018`. Dispersion: {cite:t}`velickovic2024`.
# Entropy collapse in training: {cite:t}`zhai2023`; normalised queries and keys: {cite:t}`henry2020`.
