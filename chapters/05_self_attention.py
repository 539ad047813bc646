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
# # Build self-attention in ten lines, forward and backward
#
# You have {term}`queries <query>`, {term}`keys <key>` and {term}`values <value>`, {term}`scores <score>` and
# {term}`softmax`. In this chapter you put them together into {term}`self-attention`, check the result against a real
# model to the last digits of float32, find out what the finished layer can and cannot do, and then run it
# backwards: every gradient by hand.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapters 2 to 4 and the chain rule. **You will build** `attention` and `attention_backward`, the two functions
# that everything later in this book is compared with. **Time** about 70 minutes, with a good
# place for a break before *How does it learn?*
# The first figure shows the whole forward pass for one token.
# :::

# %%
import matplotlib.pyplot as plt
import numpy as np

from attnlib.data import real_head, real_layer
from attnlib.masks import causal, to_array
from attnlib.plots import self_attention as plots
from attnlib.reference import attention_scores, softmax, softmax_backward

np.set_printoptions(precision=3, suppress=True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## What happens to one token?
#
# We stay with *The animal didn't cross the street because it was too tired*, inside the head in which *it* looks for its
# noun. Fifteen {term}`token vectors <token vector>` come in, 384 numbers each. Three {term}`projections <projection>`
# make 32 numbers of each.

# %%
head = real_head("pronoun")
q = head.x @ head.w_q + head.b_q  # (seq_q, dim_head)
k = head.x @ head.w_k + head.b_k  # (seq_k, dim_head)
v = head.x @ head.w_v + head.b_v  # (seq_k, dim_v)
it, animal, street = (head.tokens.index(word) for word in ("it", "animal", "street"))
print("x", head.x.shape, "  q", q.shape, "  k", k.shape, "  v", v.shape)

# %% [markdown]
# Take one query, that of *it*, and do everything in the order in which you would do it on paper: a score with each key, a share for each
# key, and then a walk along the values in which each is added in proportion to its share.

# %%
row = np.array([q[it] @ key for key in k]) / 32**0.5  # (seq_k,) one score per key
shares = softmax(row)                                 # (seq_k,) sums to 1
mixed = np.zeros(32, dtype=v.dtype)                   # (dim_v,)
for share, value in zip(shares, v, strict=True):
    mixed += share * value  # a little of each value
print(f"animal {shares[animal]:.2f}, [CLS] {shares[0]:.2f}, street {shares[street]:.2f}")
v_cls, v_animal = np.linalg.norm(v[[0, animal]], axis=-1)
print(f"value of animal {v_animal:.2f} long, of [CLS] {v_cls:.2f}; result {np.linalg.norm(mixed):.2f} long")

# %% mystnb={"image": {"alt": "From left to right for the query “it”: bars of 15 scores, longest at “animal”; bars of 15 weights, “animal” near 0.64 and [CLS] near 0.12; a signed map with one row of 32 numbers per key, in which only the row of “animal” is strongly coloured. Below it the sum of all rows looks almost like the row of “animal”."}, "figure": {"caption": "One token’s walk through attention. Its result is the sum of the coloured rows; here that is mostly the value of “animal”. The row of [CLS] is pale although its weight is the second largest: its value is short.", "name": "fig-walk"}}
plots.walk(row, shares, v, head.tokens, "it")
plt.show()

# %% [markdown]
# The result is a **weighted mean** of the values. It replaces nothing yet: in a transformer it is projected once more and added to the
# token's own vector (chapter 8).
#
# ## How do all tokens do it at once?
#
# Each query does the same with its own row of scores, and no query needs another's result. So the loops become two
# matrix products, with softmax between them {cite}`vaswani2017`:
#
# $$O = \operatorname{softmax}\!\Big(\frac{QK^\top}{\sqrt d}\Big)\,V$$

# %%
scores = attention_scores(q, k)  # (seq_q, dim_head) @ (dim_head, seq_k) -> (seq_q, seq_k)
weights = softmax(scores)  # (seq_q, seq_k), rows sum to 1
out = weights @ v  # (seq_q, seq_k) @ (seq_k, dim_v) -> (seq_q, dim_v)
assert np.allclose(out[it], mixed, atol=1e-5)  # row 10 is what the loop found
print(scores.shape, weights.shape, out.shape)

# %% [markdown]
# Read the shapes once more. `seq_k` is summed away: the result has one row per **query**, as wide as the **values**. The
# width of queries and keys has gone already in the scores.
#
# A slip that Python will not notice: `weights.T @ v`. In self-attention the shapes fit, because there are as many queries as
# keys. What does each row of that result contain, and how would you notice?

# %%
flipped = weights.T @ v  # runs, and has the right shape
assert flipped.shape == out.shape
same_value = np.ones((15, 1), np.float32)  # a mean of equal values is that value
print("weights   @ ones:", (weights @ same_value)[:5, 0])
print("weights.T @ ones:", (weights.T @ same_value)[:5, 0])

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Row $j$ now adds up the values of all *queries that looked at* $j$, weighted by how hard they looked. Those weights are a column of
# $A$ and sum to anything: to 8.1 for [CLS]. **Constant values** expose it in one line, and so does any input with a different number of
# queries and keys. Keep both in your tests. (The transposed product is no nonsense; you will meet it in the
# backward pass, where it belongs.)
# :::
#
# ## Where does the mask go?
#
# Between scores and softmax, as $-\infty$. Chapter 3 tried the other order, weights first and then cross out what is forbidden, and the future leaked.
# How widely? Put a {term}`causal mask` on our head, change one key that only the last query may see, and count the rows that notice.

# %%
allowed = to_array(causal, 15)  # (seq_q, seq_k), True = may attend
k_other = k.copy()
k_other[-1] *= 2  # a key that only the last query may see
scores_other = attention_scores(q, k_other)


def mask_then_softmax(scores):
    return softmax(np.where(allowed, scores, -np.inf))


def softmax_then_mask(scores):
    return softmax(scores) * allowed


for weigh in (mask_then_softmax, softmax_then_mask):
    moved = np.abs(weigh(scores_other) - weigh(scores)).max(axis=-1)  # (seq_q,)
    print(f"{weigh.__name__}: {(moved > 1e-6).sum()} of 15 rows notice")  # beyond rounding

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# One, and all fifteen. Every forbidden key competes for weight before it is crossed out, so what is left for the allowed keys depends on keys that the query must
# not see. (In exact arithmetic, dividing each row by its new sum repairs this; chapter 3 shows where floating point does not.)
# :::
#
# ## Can a value nobody sees do harm?
#
# Weight 0 times a value is 0, one would think. Now let the last slot of memory be padding that nobody has filled: it holds NaN. Every query is forbidden to
# look at it. How many of the 15 results are spoilt?

# %%
v_unfilled = v.copy()
v_unfilled[-1] = np.nan  # a slot that nobody has written to
hide_last = np.ones((15, 15), dtype=bool)
hide_last[:, -1] = False  # and that nobody may see
masked = softmax(np.where(hide_last, scores, -np.inf))
with np.errstate(invalid="ignore"):
    spoilt = np.isnan(masked @ v_unfilled).any(axis=-1)
print(f"largest weight on it: {masked[:, -1].max()};  results with NaN: {spoilt.sum()} of 15")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# All of them: $0 \cdot \text{NaN} = \text{NaN}$, and a matrix product multiplies everything. The mask protects the scores, because `np.where` *replaces* what is
# forbidden. It does not protect the sum.
# :::
#
# So leave a value out of the sum if every query gives it weight 0. The line `used` below asks, for each key, whether *any* query gave it weight (`axis=-2` runs over the queries);
# `[..., None]` makes a column of the answers, one beside each row of `v`. With it the function is complete.

# %%
def attention(q, k, v, mask=None):
    scores = attention_scores(q, k)  # (..., seq_q, seq_k)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)  # weight exactly 0 after softmax
    weights = softmax(scores)                     # (..., seq_q, seq_k), rows sum to 1
    used = weights.any(axis=-2)[..., None]        # (..., seq_k, 1)
    out = weights @ np.where(used, v, 0)          # (..., seq_q, dim_v)
    return out, weights


assert np.allclose(attention(q, k, v)[0], out, atol=1e-6)  # without a mask nothing has changed
filled, unfilled = (attention(q, k, values, hide_last)[0] for values in (v, v_unfilled))
assert np.allclose(filled, unfilled, atol=1e-6)  # NaN stays where it was

# %% [markdown]
# This is `attnlib.reference.attention`, and from here on you may import it. It works with any number of leading axes, batch and heads: the axes
# it names are counted from the end.
#
# Be exact about what `used` promises: protection from positions that **no** query may see, such as padding or the unfilled part of a {term}`cache <KV cache>`. Under a causal mask
# the last value is seen by the last query, so it is used, and a NaN in it spoils the earlier rows as well, by the same $0 \cdot \text{NaN}$:

# %%
with np.errstate(invalid="ignore"):
    spoilt = np.isnan(attention(q, k, v_unfilled, allowed)[0]).any(axis=-1)
print(f"rows with NaN under a causal mask: {spoilt.sum()} of 15")

# %% [markdown]
# ## Is it the real thing?
#
# Here is the whole layer once more with nothing imported but NumPy, from token vectors to result. Ten lines.

# %%
def self_attention(x, w_q, w_k, w_v, b_q, b_k, b_v, mask=True):
    q, k, v = x @ w_q + b_q, x @ w_k + b_k, x @ w_v + b_v  # (..., seq, dim_head)
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5   # (..., seq, seq): chapter 3
    scores = np.where(mask, scores, -np.inf)
    lowest = np.finfo(scores.dtype).min
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=lowest))
    row_sum = powers.sum(axis=-1, keepdims=True)
    weights = powers / np.where(row_sum == 0, 1, row_sum)  # chapter 4
    used = weights.any(axis=-2)[..., None]
    out = weights @ np.where(used, v, 0)  # (..., seq, dim_v)
    return out, weights


def projections(head):
    return head.w_q, head.w_k, head.w_v, head.b_q, head.b_k, head.b_v

# %% [markdown]
# The four heads that this book carries around come with the attention weights that the model itself computed (run by the transformers library).
# Compare.

# %% tags=["nbval-ignore-output"]
heads = {name: real_head(name) for name in ("pronoun", "sink", "previous", "same_word")}
for name, each in heads.items():
    _, yours = self_attention(each.x, *projections(each))
    difference = np.abs(yours - each.weights).max()
    assert difference < 1e-6  # weights up to 1, from float32 sums over 384 products
    print(f"{name:>10}, layer {each.layer}, head {each.head}: largest difference {difference:.0e}")

# %% mystnb={"image": {"alt": "Three 15 by 15 maps. The first two, your weights and the model’s, look identical: dark cells from “the” to “animal”, from “cross” to “street”, from “it” to “animal”, and a dark [CLS] column. The third, their difference magnified a million times, is pale; its strongest cells stand in the [CLS] column, where the weights are neither near 0 nor near 1."}, "figure": {"caption": "Ten lines of NumPy beside a pretrained model. Their difference, magnified a million times, is the rounding of float32. It fades where a weight A is near 0 or near 1, because softmax passes on an error of the score in proportion to A(1 − A).", "name": "fig-beside-the-model"}}
yours = self_attention(head.x, *projections(head))[1]
plots.beside_the_model(yours, head.weights, head.tokens)
plt.show()

# %% [markdown]
# That checks the weights. The model does not keep the result of a single head, only the sum over the heads of a layer, after one more projection. For the
# first layer we have all twelve heads, so `out` can be checked too. (Why a sum, and what `w_o` does, is chapter 6.)

# %% tags=["nbval-ignore-output"]
layer = real_layer()
total = np.tile(layer.b_o, (15, 1))  # (seq, dim)
for first in range(0, 384, 32):
    own = slice(first, first + 32)  # this head's columns
    columns = [w[:, own] for w in (layer.w_q, layer.w_k, layer.w_v)]
    own_out, _ = self_attention(layer.x, *columns, layer.b_q[own], layer.b_k[own], layer.b_v[own])
    total += own_out @ layer.w_o[own]
difference = np.abs(total - layer.out).max()
assert difference < 1e-5  # entries up to 4, float32 sums over 384 products
print(f"layer 0, largest difference to the model's own result: {difference:.0e}")

# %% tags=["torch-check", "nbval-ignore-output"]
import torch

t_fused = torch.nn.functional.scaled_dot_product_attention
for t_name, t_head in heads.items():
    t_w, t_b = projections(t_head)[:3], projections(t_head)[3:]
    t_qkv = [t_head.x @ w + b for w, b in zip(t_w, t_b, strict=True)]
    t_gap = np.abs(t_fused(*map(torch.tensor, t_qkv)).numpy() - attention(*t_qkv)[0]).max()
    assert t_gap < 1e-5  # float32 means of values about 4 long
    print(f"{t_name:>10}: your out against PyTorch's fused attention {t_gap:.0e}")
t_spoilt = t_fused(*map(torch.tensor, (q, k, v_unfilled)), attn_mask=torch.tensor(hide_last))
assert t_spoilt.isnan().all()
print("PyTorch's result with NaN in the hidden value:", t_spoilt[0, :3])

# %% [markdown]
# PyTorch's fused attention agrees with you, and it does not guard against the unfilled value: on the CPU, in the release this book pins, every result is NaN.
# When you use it, clear your buffers.
#
# ## Does attention know about order?
#
# Shuffle the rows of `x`. What happens to the weights and to the result?

# %%
order = rng.permutation(15)  # row i now holds what stood in row order[i]
out_shuffled, weights_shuffled = self_attention(head.x[order], *projections(head))
assert np.allclose(out_shuffled, out[order], atol=1e-5)  # same rows, new order
assert np.allclose(weights_shuffled, weights[order][:, order], atol=1e-6)  # rows and columns move
print("result of “it”, old place:", out[it, :4])
print("result of “it”, new place:", out_shuffled[order == it][0, :4])

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Every result moves along with its token and is otherwise unchanged. Each token is still compared with the same
# fourteen others and itself, and a sum does not care in which order it is taken.
# :::
#
# This property is called {term}`equivariance` under {term}`permutations <permutation>`: permute the input, and the output is permuted in the same way {cite}`lee2018`. It is
# not {term}`invariance`, which would mean that the output does not change. There is an invariance inside, though: for a fixed query, the keys **together with
# their values** are an unordered collection.

# %%
together, _ = attention(q, k[order], v[order])
keys_only, _ = attention(q, k[order], v)
assert np.allclose(together, out, atol=1e-5)  # invariant
print(f"keys and values permuted: largest change {np.abs(together - out).max():.2f}")
print(f"keys permuted alone:      largest change {np.abs(keys_only - out).max():.2f}")

# %% [markdown]
# But this model can tell *the animal crossed the street* from *the street crossed the animal*. How? Not through the layer. At the very bottom of the network a vector
# for each **position** was added to the vector of each word, and our `x` has carried that ever since. Shuffling the rows of `x` shuffled the positions
# *inside* them too. The layer is equivariant; the model, from words to result, is not.
#
# The first layer shows both. Rebuild its input from words and positions. They are added, together with one more vector, here the same for every token, that tells two
# joined texts apart (the *segment*), and the sum is normalised, which chapter 8 explains:

# %%
def embed(words, positions):
    vectors = words + positions + layer.segment_vector  # (seq, dim)
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    size = np.sqrt(vectors.var(axis=-1, keepdims=True) + layer.norm_epsilon)
    return centred / size * layer.norm_scale + layer.norm_shift


rebuilt = embed(layer.word_vectors, layer.position_vectors)
assert np.allclose(rebuilt, layer.x, atol=1e-5)  # float32

# %% [markdown]
# Now turn the sentence back to front in two ways: reverse the finished rows, or reverse the words and let each *place* keep its position vector. We watch
# the head that looks at the previous token. Which way does it look in each case?

# %%
previous = heads["previous"]
back = np.arange(15)[::-1]
rows_reversed = self_attention(layer.x[back], *projections(previous))[1]
x_reversed = embed(layer.word_vectors[back], layer.position_vectors)
words_reversed = self_attention(x_reversed, *projections(previous))[1]
print(f"rows reversed: weight one to the right at least {np.diag(rows_reversed, 1).min():.2f}")
print(f"words reversed: weight one to the left at least {np.diag(words_reversed, -1).min():.2f}")

# %% mystnb={"image": {"alt": "Three 15 by 15 maps of the previous-token head. A line marks the main diagonal. In the original sentence the dark cells lie directly below it. With the rows of x reversed they lie directly above. With the words reversed but positions kept they lie below it again."}, "figure": {"caption": "Queries on the line would look at themselves. Reversing the rows of x turns the picture around: the head still finds the token that used to stand before. Reversing the words under fixed positions does not: the head follows the positions.", "name": "fig-orders"}}
reversed_tokens = layer.tokens[::-1]
plots.orders({"original": (previous.weights, layer.tokens),
              "rows of x reversed": (rows_reversed, reversed_tokens),
              "words reversed": (words_reversed, reversed_tokens)})
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# With reversed rows it looks to the **right**: the query of position 5 looks for the vector that says “position 4”, and that vector now stands on its other side. With reversed words
# it looks to the **left** as always, at whatever word now stands there.
# :::
#
# ### Does a causal mask know about order?
#
# The word *the* occurs twice. Leave the positions out, and both become the same vector. Without a mask they must then get the same result. And with
# a causal mask?

# %%
bare = embed(layer.word_vectors, 0)  # no positions anywhere
same_word = projections(heads["same_word"])
assert np.array_equal(bare[1], bare[7])  # “the” and “the”
free, _ = self_attention(bare, *same_word)
ordered, _ = self_attention(bare, *same_word, mask=allowed)
print(f"between the two results, no mask:     {np.linalg.norm(free[1] - free[7]):.2f}")
print(f"between the two results, causal mask: {np.linalg.norm(ordered[1] - ordered[7]):.2f}")

# %% [markdown]
# The first *the* sees two tokens, the second eight. Attention under a causal mask is not equivariant: the mask **leaks order**. It even leaks a count. Take the barest
# case: queries of zero, so that each query spreads its weight evenly over the $n$ keys it sees, and independent random values of variance 1. A mean of $n$ such numbers
# has a standard deviation of $1/\sqrt n$, so the *size* of the result tells roughly where it stands ({cite:t}`chi2023` find this in models with random and with trained weights). And if the first token's value is recognisable, its weight $1/n$
# tells it exactly.

# %%
random_q, random_k, random_v = rng.normal(size=(3, 32, 256, 64))  # 32 sequences of 256
triangle, places = to_array(causal, 256), np.arange(1, 257)
even_out, even_weights = attention(0 * random_q, random_k, random_v, triangle)
random_out, _ = attention(random_q, random_k, random_v, triangle)
curves = {"zero queries": (even_out**2).mean(axis=(0, 2)) ** 0.5,
          "random queries": (random_out**2).mean(axis=(0, 2)) ** 0.5}  # (seq,)
assert np.allclose(1 / even_weights[0, :, 0], places)  # the position, exactly
assert np.allclose(curves["zero queries"], places**-0.5, rtol=0.08)  # of 2048 numbers: 5 standard errors

# %% mystnb={"image": {"alt": "Size of the result against the number of keys seen, both axes logarithmic. With zero queries the curve follows the dashed line one over the square root of n from 1 down to 1/16. With random queries it falls too, and lies above."}, "figure": {"caption": "No position has been fed in anywhere, and yet the size of the results, here averaged over 32 sequences, falls with their position.", "name": "fig-position-leak"}}
plots.position_leak(places, curves)
plt.show()

# %% [markdown]
# Causal language models trained without any {term}`positional encoding` do learn where they are: absolute positions can be read out of their layers, and
# they come close to models with encodings {cite}`haviv2022`. That a causal transformer whose first token is always the same can represent absolute and relative positions without any encoding has been proved by
# construction {cite}`kazemnejad2023`. An {term}`encoder` without positions cannot: it has no mask that could tell, and sees a bag of words. How positions are put in is chapter 7.
#
# ## Why a mean, and not the best match?
#
# A dictionary returns one value. Attention could do that too: take the key with the highest score, and return its value. Compare.

# %%
def hard_lookup(q, k, v):
    return v[attention_scores(q, k).argmax(axis=-1)]  # (seq_q, dim_v): one value each, no mixing


nudge = 1e-3 * rng.normal(size=q.shape).astype(np.float32)
hard_moved = np.abs(hard_lookup(q + nudge, k, v) - hard_lookup(q, k, v)).max()
soft_moved = np.abs(attention(q + nudge, k, v)[0] - out).max()
assert hard_moved == 0 < soft_moved  # the winner stays the winner
print(f"queries nudged: hard lookup moves by {hard_moved:.3f}, soft lookup by {soft_moved:.3f}")

# %% [markdown]
# The hard lookup does not answer at all. Its result is constant until another key overtakes, and then it jumps: the gradient is **zero almost everywhere**, and
# training by gradients cannot improve a query or a key. The {term}`soft lookup` answers to small nudges, because every key has a say. That is
# why attention mixes. (Hard attention can be trained by other means: {cite:t}`xu2015` draw one place at random according to the weights, and use a rule from reinforcement
# learning.)
#
# ## What can a mean of values not do?
#
# Weights are at least zero and sum to 1, so each result lies in the convex hull of the values: in every coordinate, indeed in every direction, it lies between the smallest and the
# largest value.

# %%
for name, each in heads.items():
    v_each = each.x @ each.w_v + each.b_v
    out_each, _ = self_attention(each.x, *projections(each))
    assert (out_each >= v_each.min(axis=0) - 1e-5).all()  # float32 rounding
    assert (out_each <= v_each.max(axis=0) + 1e-5).all()
    spread = np.ptp(out_each, axis=0) / np.ptp(v_each, axis=0)  # (dim_v,) largest minus smallest
    print(f"{name:>10}: spread of out over spread of v, mean {spread.mean():.2f}")
assert (flipped > v.max(axis=0) + 1e-5).any()  # weights.T @ v leaves the hull

# %% [markdown]
# A head can select and average. It cannot exaggerate: in no direction does its result lie further out than the outermost value. Three of the four heads pull the
# results together, the sink head to a seventh of the spread; the previous-token head selects, and loses next to nothing. Stack layers of nothing but attention, with projections
# that are small enough, and all tokens converge to one and the same vector, doubly exponentially fast in depth; {term}`residual connections <residual stream>` and MLPs work against
# that {cite}`dong2021`. Chapter 8 puts them in.
#
# The mean tames only the values, not the map as a whole. Weights depend on products of inputs, and if inputs may be as large as they like, no constant bounds how
# fast the result can change. In mathematical terms, dot-product self-attention is not Lipschitz {cite}`kim2020`.
#
# ## Does a high weight mean importance?
#
# Back to the sink head of chapter 2, in which every token gives [CLS], which stands for no word, more than half of its weight. How much of the results comes from there? Begin with the lengths of the values.

# %%
sink = heads["sink"]
v_sink = sink.x @ sink.w_v + sink.b_v
out_sink, weights_sink = self_attention(sink.x, *projections(sink))
assert (weights_sink[:, 0] > 0.5).all()  # every token, [CLS] itself included
lengths = np.linalg.norm(v_sink, axis=-1)  # (seq_k,) length of each value
others = lengths[1:].mean()
print(f"[CLS] {lengths[0]:.2f}, the others {others:.2f} on average: {others / lengths[0]:.0f} times as long")

# %% [markdown]
# What a token contributes to a result is its weight times its value, a vector. Take the length of that vector.

# %%
parts = weights_sink * lengths             # (seq_q, seq_k) lengths of weight · value
for token in ("[CLS]", "because"):
    column = sink.tokens.index(token)
    share = parts[:, column].sum() / parts.sum()
    print(f"{token}: mean weight {weights_sink[:, column].mean():.2f}, share of all lengths {share:.2f}")

# %% mystnb={"image": {"alt": "Three bar charts over 15 keys. Mean weight: [CLS] about 0.81, all others under 0.04. Length of the value: [CLS] 0.12, all others between 2.5 and 3.7. Mean length of weight times value: “because” about 0.12, [CLS] about 0.10, the others 0.02 to 0.05."}, "figure": {"caption": "In the sink head, [CLS] takes 0.81 of the weight, but its value is a twenty-fifth as long as the others’ are on average. Multiplied, it contributes less than “because”, which gets 0.03 of the weight.", "name": "fig-value-weighted"}}
mean_weight = weights_sink.mean(axis=0)
plots.product_bars({"mean weight, over the queries": mean_weight, "length of the value": lengths},
                   "mean length of weight · value", sink.tokens, mark="[CLS]")
plt.show()

# %% [markdown]
# This is the {term}`attention sink`: a head that finds nothing must still spend its weight, and this one spends it on a key whose value is nearly zero. (Chapter 2 took the share of [CLS] row by row and
# then the mean, and got a little more; here the lengths of all rows are added up first.) Measured by the length of weight · value, after the output projection, attention to special tokens in BERT is small in general, although their weights are large
# {cite}`kobayashi2020`. In large causal models the sink is most often the first token {cite}`xiao2023,gu2024`.
#
# So is [CLS] unimportant to this head? Intervene, in two ways: set its **value** to zero, or forbid its **key**. Which changes the results more?

# %%
v_silenced = v_sink.copy()
v_silenced[0] = 0
out_silenced = weights_sink @ v_silenced                  # first intervention

no_sink = np.ones((15, 15), dtype=bool)
no_sink[:, 0] = False
out_hidden, _ = self_attention(sink.x, *projections(sink), mask=no_sink)  # second

# %% [markdown]
# Two sets of results. How far have they moved from the model's own?

# %%
print(f"the model's own results: mean length {np.linalg.norm(out_sink, axis=-1).mean():.2f}")
for name, changed in (("value set to zero", out_silenced), ("key forbidden", out_hidden)):
    change = np.linalg.norm(changed - out_sink, axis=-1).mean()
    length = np.linalg.norm(changed, axis=-1).mean()
    print(f"{name}: mean change {change:.2f}, mean length {length:.2f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Forbidding the key, by far. Without its value the results change by 0.10, and they are only 0.36 long to begin with: this head says little. Without its key the weight it
# soaked up is handed to the other tokens, and the results become five times as long as they were. The key is important *because* its value is not: it keeps the head quiet.
# Language models break when their {term}`cache <KV cache>` keeps only the latest tokens and drops the first, and this is the reason that has been given {cite}`xiao2023`.
# :::
#
# Hold on to three readings of one number. The **weight** says where the head looked. Weight times the length of the value says how much came from there (and even
# these lengths may cancel in the sum). An **intervention** says what would be different without it. They can disagree, as they do here. Whether weights *explain* a model's decision is
# contested: in recurrent models with attention they often disagree with gradients, and quite different weights can give the same prediction {cite}`jain2019`; against that, the answer depends on what
# one calls an explanation, and such alternative weights do badly when they are put to a test of their usefulness {cite}`wiegreffe2019`. Treat weights as evidence, not as explanation.
#
# ## How does it learn?
#
# Training needs the gradient of a loss $\mathcal L$ with respect to everything that went in. The layers above hand us $\partial\mathcal L/\partial O$, one number for every number of `out`; call it
# `d_out`, and the gradients we are after `d_q`, `d_k`, `d_v`. We go back through the three steps in reverse order.
#
# **The weighted mean**, $O_{ic} = \sum_j A_{ij} V_{jc}$, with $i$ for the query, $j$ for the key, and $c$ for the column of the value. A value is used by all queries, so its gradient collects from all of them. A weight touches one query's result:
#
# $$\frac{\partial\mathcal L}{\partial V_{jc}} = \sum_i A_{ij}\,\frac{\partial\mathcal L}{\partial O_{ic}}
# \qquad
# \frac{\partial\mathcal L}{\partial A_{ij}} = \sum_c \frac{\partial\mathcal L}{\partial O_{ic}}\,V_{jc}$$
#
# The first is $A^\top$ times `d_out`: the transposed product from above, now in its place. The second is `d_out` times $V^\top$.
#
# **Softmax** you have from chapter 4: `softmax_backward`.
#
# **The scores**, $S = QK^\top/\sqrt d$, by the product rule, once for each factor:
#
# $$\frac{\partial\mathcal L}{\partial Q} = \frac{1}{\sqrt d}\,\frac{\partial\mathcal L}{\partial S}\,K
# \qquad
# \frac{\partial\mathcal L}{\partial K} = \frac{1}{\sqrt d}\Big(\frac{\partial\mathcal L}{\partial S}\Big)^{\!\top} Q$$

# %%
def attention_backward(d_out, q, k, v, weights):
    d_v = weights.swapaxes(-1, -2) @ d_out  # (..., seq_k, dim_v)
    d_weights = d_out @ v.swapaxes(-1, -2)  # (..., seq_q, seq_k)
    d_scores = softmax_backward(weights, d_weights) / q.shape[-1] ** 0.5
    d_q = d_scores @ k                   # (..., seq_q, dim_head)
    d_k = d_scores.swapaxes(-1, -2) @ q  # (..., seq_k, dim_head)
    return d_q, d_k, d_v

# %% [markdown]
# This is `attnlib.reference.attention_backward`. (Dividing by $\sqrt d$ in the same line means that its `d_scores` is, strictly, the gradient of the dot products before scaling.) No mask
# appears: where it forbade a key the weight is 0, and softmax's gradient passes nothing through a zero weight.
#
# Never trust a gradient that you have not measured. Nudge every single number, in float64, and watch a loss. We take a random weighting of `out`, so that no entry
# and no direction is left out; its gradient `d_out` is that weighting.

# %%
def numeric_gradient(f, array, step=1e-5):
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        nudged = np.zeros_like(array)
        nudged[index] = step
        gradient[index] = (f(array + nudged) - f(array - nudged)) / (2 * step)
    return gradient

# %% [markdown]
# We test under a causal mask, so that the mask is tested too.

# %%
x64, *projections64 = (np.float64(array) for array in (head.x, *projections(head)))
q64, k64, v64 = (x64 @ w + b for w, b in zip(projections64[:3], projections64[3:], strict=True))
out64, weights64 = attention(q64, k64, v64, allowed)
d_out = rng.normal(size=out64.shape)
d_q, d_k, d_v = attention_backward(d_out, q64, k64, v64, weights64)

# %% tags=["nbval-ignore-output"]
def loss(q, k, v):
    return (d_out * attention(q, k, v, allowed)[0]).sum()


measured = (numeric_gradient(lambda q: loss(q, k64, v64), q64),
            numeric_gradient(lambda k: loss(q64, k, v64), k64),
            numeric_gradient(lambda v: loss(q64, k64, v), v64))
for name, formula, nudging in zip(("d_q", "d_k", "d_v"), (d_q, d_k, d_v), measured, strict=True):
    gap = np.abs(formula - nudging).max()
    print(f"{name}: largest entry {np.abs(formula).max():.1f}, formula against nudging {gap:.0e}")
    assert gap < 1e-8  # rounding of the loss over the step, plus a term of step²

# %% [markdown]
# ### Through the projections
#
# One step further back: $Q = XW_Q + b_Q$, and the same for keys and values. The token vectors are used **three times**, so their gradient is a sum of three. One of the three
# bias gradients is zero. Which?

# %%
d_w_q, d_w_k, d_w_v = (x64.T @ d for d in (d_q, d_k, d_v))      # (dim, dim_head)
d_b_q, d_b_k, d_b_v = (d.sum(axis=0) for d in (d_q, d_k, d_v))  # (dim_head,)
w_q64, w_k64, w_v64 = projections64[:3]
d_x = d_q @ w_q64.T + d_k @ w_k64.T + d_v @ w_v64.T  # (seq, dim)
for name, gradient in {"b_q": d_b_q, "b_k": d_b_k, "b_v": d_b_v}.items():
    print(f"largest entry of the gradient of {name}: {np.abs(gradient).max():.2f}")
assert np.abs(d_b_k).max() < 1e-12  # zero, but for rounding

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# That of $b_K$. Chapter 4 showed that softmax forgets it: it shifts a whole row of scores alike. (Unless keys are rotated
# by their position after the bias is added, chapter 7.) A parameter that changes nothing has gradient zero, beyond rounding.
# :::
#
# PyTorch's autograd should find the same seven gradients as you.

# %% tags=["torch-check", "nbval-ignore-output"]
import torch

t_leaves = [torch.tensor(array, requires_grad=True) for array in (x64, *projections64)]
t_x, t_w, t_b = t_leaves[0], t_leaves[1:4], t_leaves[4:]
t_qkv = [t_x @ w + b for w, b in zip(t_w, t_b, strict=True)]
t_fused = torch.nn.functional.scaled_dot_product_attention
t_fused(*t_qkv, attn_mask=torch.tensor(allowed)).backward(torch.tensor(d_out))
t_mine = {"d_x": d_x, "d_w_q": d_w_q, "d_w_k": d_w_k, "d_w_v": d_w_v,
          "d_b_q": d_b_q, "d_b_k": d_b_k, "d_b_v": d_b_v}
for t_leaf, (t_name, t_yours) in zip(t_leaves, t_mine.items(), strict=True):
    t_gap = np.abs(t_leaf.grad.numpy() - t_yours).max()
    assert t_gap < 1e-10  # float64 carries 16 digits
    print(f"{t_name}: largest difference {t_gap:.0e}")

# %% [markdown]
# One more identity, because the fast kernels of Part IV live on it (FlashAttention calls the number $D_i$ {cite}`dao2022`). `softmax_backward` needs, for each row, the mean of `d_weights` under the weights. You can have that
# number without the weights. Swap the two sums, and the inner one is $O_{ic}$:
#
# $$\sum_j A_{ij}\sum_c \frac{\partial\mathcal L}{\partial O_{ic}} V_{jc} = \sum_c \frac{\partial\mathcal L}{\partial O_{ic}}\, O_{ic}$$

# %%
through_the_row = (weights64 * (d_out @ v64.T)).sum(axis=-1)  # needs all the weights
assert np.allclose(through_the_row, (d_out * out64).sum(axis=-1))  # needs only out and d_out
print("first rows:", through_the_row[:4])

# %% [markdown]
# ### What about tokens that may not be seen?
#
# They must not change anything, and nothing may flow back to them through their key or value. (A hidden token may still ask: its own query is another matter.) And a query that may see nothing: zeros, and zero gradients. State it, and let the computer refuse if it is not so.

# %%
visible = hide_last.copy()
visible[4] = False  # and query 4 may see nothing at all
out_visible, weights_visible = attention(q64, k64, v64, visible)
g_q, g_k, g_v = attention_backward(d_out, q64, k64, v64, weights_visible)
assert not g_k[-1].any() and not g_v[-1].any()  # the hidden token gets no gradient
assert not out_visible[4].any() and not g_q[4].any()  # the blind query: zeros, exactly
k_wild, v_wild = k64.copy(), v64.copy()
k_wild[-1], v_wild[-1] = 1e6, -1e6  # anything at all in its place
assert np.array_equal(attention(q64, k_wild, v_wild, visible)[0], out_visible)
print("hidden token: no influence, no gradient; blind query: zeros")

# %% [markdown]
# In the backward pass the promise is smaller than in the forward pass: NaN in a hidden value does reach `d_weights`, and $0\cdot\text{NaN}$ spoils `d_q` and `d_k`. Padding
# has to hold finite numbers if you train on it.
#
# ## Who gets the credit?
#
# Gradients become clear when the loss is one you can picture. Suppose we want the result of *it* to be closer to the value of *street*:
#
# $$\mathcal L = \tfrac12\,\lVert o_{\text{it}} - v_{\text{street}}\rVert^2$$
#
# and we hold the values fixed. Which scores of *it* does a gradient step raise? *Street*'s, certainly. Which one second most?

# %%
def miss(out):
    return 0.5 * ((out[it] - v64[street]) ** 2).sum()


out_it, weights_it = attention(q64, k64, v64)  # no mask, as in the encoder
d_miss = np.zeros_like(out_it)
d_miss[it] = out_it[it] - v64[street]  # only the row of “it” matters

# %% [markdown]
# `softmax_backward` says: weight, times how much better than the average the key's value is for the loss. Take the two factors apart.

# %%
d_weights_it = (d_miss @ v64.T)[it]  # (seq_k,) loss per unit of weight: less is better
better = weights_it[it] @ d_weights_it - d_weights_it  # > 0: better than the average
push = weights_it[it] * better  # minus the gradient of the scores
assert np.allclose(push, -softmax_backward(weights_it[it], d_weights_it))
for j in np.argsort(-push)[[0, 1, 2, -1]]:
    print(f"{head.tokens[j]:>6}: weight {weights_it[it, j]:.2f} · better {better[j]:4.1f} = push {push[j]:5.2f}")

# %% mystnb={"image": {"alt": "Three bar charts over the keys of “it”. Weight: “animal” 0.64, [CLS] 0.12, the rest small. How much better than the average value: “street” highest at about 24, “the” and “cross” next, “animal” about minus 4. Push on the score, their product: “street” and [CLS] upwards, about 1.2 and 1.0, “animal” down by 2.8, almost nothing elsewhere."}, "figure": {"caption": "Credit is weight times advantage. “street” has the best value and little weight, “animal” much weight and a bad value; [CLS] gains because its value, nearly zero, is better than that of “animal”.", "name": "fig-credit"}}
plots.product_bars({"weight": weights_it[it], "how much better than the average": better},
                   "push on the score: their product", head.tokens, mark="street")
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# [CLS]. Its value is nearly zero: nowhere near *street*, but to move towards it is to move away from *animal*, and that helps. To first order a key is not judged by whether its value is right, only by
# whether it is **better than the current mean**, and it is heard in proportion to the weight it already has. The values of the second *the* and of *cross* are much better than
# that of [CLS]; they have almost no weight, so their scores hardly move.
# :::
#
# Does the gradient keep its promise? Move the query of *it* against its gradient. To first order, a step $\eta$ should lower the loss by $\eta\,\lVert\partial\mathcal L/\partial q\rVert^2$.

# %%
d_q_it = attention_backward(d_miss, q64, k64, v64, weights_it)[0]  # zero but in one row
ratios = {}
print(f"weight it→street before: {weights_it[it, street]:.3f}")
for eta in (1.0, 0.1, 0.01, 0.001):
    stepped, weights_stepped = attention(q64 - eta * d_q_it, k64, v64)
    ratios[eta] = (miss(out_it) - miss(stepped)) / (eta * (d_q_it**2).sum())
    print(f"step {eta:5}: {weights_stepped[it, street]:.3f}, actual fall / predicted {ratios[eta]:.4f}")
assert 9 < (ratios[0.01] - 1) / (ratios[0.001] - 1) < 11  # a tenth of the step, a tenth of the miss

# %% [markdown]
# The weight on *street* rises, and the prediction becomes exact as the step shrinks: the gradient is right, and the error left is of second order.
#
# A real optimiser cannot move the query of one token. It moves $W_Q$ (and $b_Q$, left alone here), which **all** tokens share. Only the row of *it* has a gradient, so $\partial\mathcal L/\partial W_Q = x_{\text{it}}^\top\, \partial\mathcal L/\partial q_{\text{it}}$, a column times a row. Every
# other query moves as well, in proportion to $x_i \cdot x_{\text{it}}$. Which tokens are pulled along?

# %%
eta = 0.001
w_q_stepped = w_q64 - eta * x64.T @ d_q_it
q_stepped = x64 @ w_q_stepped + projections64[3]
likeness = x64 @ x64[it]  # (seq,)
assert np.allclose(q_stepped - q64, -eta * likeness[:, None] * d_q_it[it])

# %% [markdown]
# Every query has moved along the same direction, by its likeness to *it*. Now the weights:

# %%
_, weights_shared = attention(q_stepped, k64, v64)
largest = np.abs(weights_shared - weights_it).max(axis=-1)  # (seq_q,)
print(f"it→street {weights_it[it, street]:.3f} to {weights_shared[it, street]:.3f}")
print(f"x·x_it is positive for {(likeness > 0).sum()} of 15 tokens")
for j in np.argsort(-likeness)[[0, 1, 2, -1]]:
    print(f"{head.tokens[j]:>6}: x·x_it {likeness[j]:5.1f}, largest change of a weight {largest[j]:.3f}")

# %% [markdown]
# *It* itself moves 114.7 times as far as with the same step on its query alone, where its weight on *street* stayed at 0.052: that is its product with itself. And almost every token has a positive product with *it*, so one lesson for one pronoun shifts the questions of the whole sentence. That is how
# a lesson generalises, and also how it disturbs what other tokens have learned.
#
# ## What does the backward pass cost in memory?
#
# `attention_backward` takes `weights`: the forward pass has to keep a (seq, seq) array for every head and every sequence until the gradient comes back. In float32, beside the four arrays that are proportional to the
# length (q, k, v and out, 64 wide):

# %%
for n in (1_024, 8_192, 65_536):
    kept, linear = 4 * n * n, 4 * 4 * n * 64  # 4 bytes a number
    print(f"{n:>6} tokens: weights {kept // 2**20:>6,} MiB, q k v out {linear // 2**20:>2} MiB")

# %% [markdown]
# Sixteen GiB, for one head of one layer and one sequence. The way out is to compute the weights a second time, block by block, when the gradient comes back {cite}`rabe2021`. FlashAttention
# keeps two numbers per row for this, its largest score and its sum of powers {cite}`dao2022`; FlashAttention-2 keeps one, their {term}`log-sum-exp` {cite}`dao2023`. With the identity above, that is its backward pass; you build it in Part IV.
#
# ## What does dropout do to the rows?
#
# Attention dropout, where a model uses it, sets each **weight** to zero with some probability $p$ during training, *after* softmax, and divides the others by $1 - p$. What do the rows
# sum to?

# %%
keep = rng.random((2000, *weights.shape)) < 0.9  # 2000 draws, p = 0.1
row_sums = (keep * weights / 0.9).sum(axis=-1)   # (2000, seq_q)
print("one draw, sums of the first rows:", row_sums[0, :5])
within = (np.abs(row_sums - 1) < 0.01).mean()
print(f"rows within 0.01 of 1: {within:.2f};  mean of all sums: {row_sums.mean():.2f}")
assert np.abs(row_sums.mean(axis=0) - 1).max() < 0.04  # 5 standard errors of a one-key row

# %% [markdown]
# To 1 **on average**, and hardly ever exactly. A row with nearly all its weight on one key sums to 1.11 nine times out of ten, and to nearly 0 otherwise. The result is then no longer
# a mean of the values, so the hull above holds only when dropout is off. In training mode `nn.MultiheadAttention` hands out these weights, and people report it as a bug
# ([PyTorch issue 42929](https://github.com/pytorch/pytorch/issues/42929)). Switch to evaluation mode before you look at weights.
#
# ## What to remember
#
# | property | consequence | cell that shows it |
# |---|---|---|
# | $O = \operatorname{softmax}(QK^\top/\sqrt d)\,V$ | one row per query, as wide as the values; equal to a real model's head | ten lines |
# | mask before softmax, never after | rows sum to 1, and nothing leaks through the denominator | where the mask goes |
# | $0\cdot\text{NaN}$ is NaN | a mask protects scores, not values | `used` |
# | equivariant in its rows | order has to come in through `x`, or through the mask | shuffled rows, *the* – *the* |
# | a mean of the values | differentiable, and never outside their hull | hard lookup, hull |
# | weight, weight · value, intervention | three different questions | the sink head |
# | push on a score = weight × (better than the mean) | credit goes where weight already is | *it* and *street* |
# | backward keeps (seq, seq) weights | quadratic memory, unless they are recomputed | bytes |
#
# **In practice.** Where speed matters, nobody calls three functions with the weights in between. `torch.nn.functional.scaled_dot_product_attention` and the FlashAttention kernels return `out` without them: inside a fused kernel the
# weights never exist as a whole. If you want to look at them you have to compute them again, as here, or take a slower path (the transformers library calls it *eager*; the model's weights in this chapter come from it). Dropout, the causal mask and the scale are arguments of the one fused call.
#
# **Shortcut taken here.** We read contributions before the output projection; in the paper on vector norms they are measured after it, because $W_O$ may shrink some directions {cite}`kobayashi2020`. And
# we took one head alone, with a loss of our own making; in training the gradient of one head arrives through all the layers above.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Write self-attention from token vectors to result in NumPy alone, and check the weights against a pretrained head's
#   own.
# - Expose `weights.T @ v` in one line, although nothing is wrong with its shape.
# - Say which results a NaN in an unfilled slot reaches if no query may see the slot, and which if only the last one
#   may.
# - Predict which way a previous-token head looks when the rows of `x` are reversed, and which way when the words are.
# - Derive the gradients of queries, keys and values, and convince a sceptic by nudging every single number.
# - Work out which scores of a row a gradient step raises, and why a key with a useless value can come second.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:who_sees_whom", "ex-prompt"]
# ```{exercise} Who sees whom?
# :label: ex-who-sees-whom
# A test that finds leaks. Write `who_sees_whom(layer, x)`: `layer` is any function from token vectors (seq, dim) to results (seq, dim_v).
# Return a boolean array (seq, seq), True at (i, j) if the result of token $i$ changes when token $j$ is replaced by another vector of about
# the same size. Use nothing but calls of `layer`, and leave `x` as it was. A change counts if any number moves by more than $10^{-9}$, up or
# down. A layer may look at the direction of a token alone, or take the mean of its numbers away first: a vector twice as long, or with 1
# added to every number, may be the same token to it.
# ```


# %% tags=["ex:who_sees_whom", "ex-stub"]
def who_sees_whom(layer, x):
    raise NotImplementedError("replace this line")

# %% tags=["ex:who_sees_whom", "ex-check"]
check(who_sees_whom)

# %% tags=["ex:who_sees_whom", "ex-solution", "hide-cell"]
def who_sees_whom(layer, x):
    before = layer(x)
    sees = np.zeros((len(x), len(x)), dtype=bool)
    for j in range(len(x)):
        changed = x.copy()
        changed[j] = changed[j][::-1] + 1  # another vector, same size
        moved = np.abs(layer(changed) - before).max(axis=-1)  # (seq,)
        sees[:, j] = moved > 1e-9  # column j: who noticed
    return sees


require(who_sees_whom)

# %% [markdown] tags=["ex:attention_or_nothing", "ex-prompt"]
# ```{exercise} Attention that may decline
# :label: ex-attention-or-nothing
# A head that finds nothing should not need a sink. Write `attention_or_nothing(q, k, v)`, in which every row competes with one more,
# invisible key whose score is 0 and whose value is zero (PyTorch's `add_zero_attn`; {cite:t}`xiao2023` pretrain a model with it, under the
# name *Zero Sink*): the weights are $e^{S_j}/(1 + \sum_m e^{S_m})$, where $S$ (..., seq_q, seq_k) are the scaled scores of `q`
# (..., seq_q, dim_head) and `k` (..., seq_k, dim_head). Return `out` (..., seq_q, dim_v) and the weights (..., seq_q, seq_k) of the **real**
# keys only. Scores of $\pm 1000$ must not overflow, not even where it would cancel later, and any leading axes should work.
# `attention_scores(q, k)` and `softmax(scores)` (over the last axis) are given.
# ```


# %% tags=["ex:attention_or_nothing", "ex-stub"]
def attention_or_nothing(q, k, v):
    raise NotImplementedError("replace this line")

# %% tags=["ex:attention_or_nothing", "ex-check"]
check(attention_or_nothing)

# %% tags=["ex:attention_or_nothing", "ex-solution", "hide-cell"]
def attention_or_nothing(q, k, v):
    scores = attention_scores(q, k)
    null = np.zeros_like(scores[..., :1])  # one more column, all zeros
    longer = np.concatenate([scores, null], axis=-1)
    weights = softmax(longer)[..., :-1]
    return weights @ v, weights


require(attention_or_nothing)
_, null_weights = attention_or_nothing(q64, k64, v64)
print(f"it→animal {weights_it[it, animal]:.3f} becomes {null_weights[it, animal]:.3f}")

# %% [markdown] tags=["ex:temperature_gradient", "ex-prompt"]
# ```{exercise} Learn the temperature
# :label: ex-temperature-gradient
# Some models learn how sharp a head should be {cite}`henry2020`. Let the weights be $\operatorname{softmax}(S/T)$ and the result be the
# weights times `v`. Write `temperature_gradient(d_out, v, scores, temperature)`, the derivative of the loss with respect to the one number
# $T$: `d_out` (..., seq_q, dim_v) is the gradient that arrives at the result, `v` is (..., seq_k, dim_v), `scores` (..., seq_q, seq_k) is
# $S$, and you return **one** number, whatever the leading axes. `softmax(scores)` and `softmax_backward(weights, d_weights)` are given.
# **Predict** first: if the values with high scores are the ones that lower the loss, is it positive or negative?
# ```


# %% tags=["ex:temperature_gradient", "ex-stub"]
def temperature_gradient(d_out, v, scores, temperature):
    raise NotImplementedError("replace this line")

# %% tags=["ex:temperature_gradient", "ex-check"]
check(temperature_gradient)

# %% tags=["ex:temperature_gradient", "ex-solution", "hide-cell"]
def temperature_gradient(d_out, v, scores, temperature):
    weights = softmax(scores / temperature)
    # gradient of S / T
    d_scaled = softmax_backward(weights, d_out @ v.swapaxes(-1, -2))
    # d(S / T) / dT = -S / T²
    return -(d_scaled * scores).sum() / temperature**2


require(temperature_gradient)
good_value, leading = np.array([[-1.0], [0.0]]), np.array([[1.0, 0.0]])
rises = temperature_gradient(np.ones((1, 1)), good_value, leading, 1.0)
print(f"good values with high scores: gradient {rises:.2f}, so a step against it cools")

# %% [markdown] tags=["ex:previous_token", "ex-prompt"]
# ```{exercise} A previous-token head by hand
# :label: ex-previous-token
# Let `x` be the identity matrix of size $n$: token $i$ is the one-hot vector of its position. Write `previous_token(n)`, which returns
# `w_q` and `w_k`, both $(n, d)$ with any $d$ you like, such that scaled dot-product attention with queries `x @ w_q` and keys `x @ w_k`
# gives at least 0.99 of every row (but the first, which may do what it likes) to the token one to the left, for any $n$ from 2 to 500.
# No mask, no training. Mind $\sqrt d$, and mind that in a long row the same lead in score buys a smaller share.
# ```


# %% tags=["ex:previous_token", "ex-stub"]
def previous_token(n):
    raise NotImplementedError("replace this line")

# %% tags=["ex:previous_token", "ex-check"]
check(previous_token)

# %% tags=["ex:previous_token", "ex-solution", "hide-cell"]
def previous_token(n):
    lead = np.log(99 * n) + 1  # its weight: 1 / (1 + (n - 1) e^-lead)
    w_q = lead * n**0.5 * np.eye(n)  # query i says “i”; √n undoes 1 / √d
    w_k = np.eye(n, k=1)  # key j says “j + 1”, so query i meets key i - 1
    return w_q, w_k


require(previous_token)
_, copied = attention(*previous_token(500), np.eye(500))  # x is the identity, so q = w_q
print("n = 500, weight one to the left:", np.diag(copied, -1)[:4])

# %% [markdown] tags=["ex:explore_wide", "ex-prompt", "ex-open"]
# ```{exercise} Explore: tired and wide
# :label: ex-explore-wide-contributions
# `real_head("pronoun", "wide")` is the same head in the sentence that ends in *too wide*. Compare the row of *it* in both: weights, lengths of weight times value, and the two interventions of the
# sink section on *animal* and on *street*. The weights move towards *street*, but *animal* keeps more. By how much does each of the three readings put *animal* ahead, in either sentence? And [CLS], which now has the largest
# weight: is it a sink here too?
# ```

# %% [markdown]
# **Sources.** The layer: {cite:t}`vaswani2017`. Equivariance: {cite:t}`lee2018`. Order from the mask: {cite:t}`haviv2022`, {cite:t}`kazemnejad2023`, {cite:t}`chi2023`. Hard attention: {cite:t}`xu2015`. Limits of the mean: {cite:t}`dong2021`,
# {cite:t}`kim2020`. A learned temperature: {cite:t}`henry2020`. Weights and values: {cite:t}`kobayashi2020`; sinks: {cite:t}`xiao2023`, {cite:t}`gu2024`; the dispute: {cite:t}`jain2019`, {cite:t}`wiegreffe2019`. The backward pass in
# blocks: {cite:t}`rabe2021`, {cite:t}`dao2022`, {cite:t}`dao2023`.
