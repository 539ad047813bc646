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
# # Why look twelve times at once?
#
# One {term}`head` gives each token one weighted mean. In this chapter you run several heads side by side, which is
# {term}`multi-head attention`: cut the projections into heads, attend in each, merge. You reproduce a complete attention layer of a
# real model, look at what its twelve heads do, take them away one at a time, and find out what heads cost and which
# part of them can be shared.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapter 5 (`attention`) and the shapes of arrays with leading axes. **You will build** `split_heads`, `merge_heads` and
# `multi_head_attention`, with {term}`grouped keys and values <grouped-query attention>` and {term}`cross-attention`. **Time** about 75 minutes.
# The picture of all twelve heads, {numref}`fig-twelve-heads`, shows where we are going.
# :::

# %%
import matplotlib.pyplot as plt
import numpy as np

from attnlib import costs
from attnlib.data import real_head, real_layer
from attnlib.masks import causal, to_array
from attnlib.plots import multi_head as plots
from attnlib.reference import attention, entropy, softmax

np.set_printoptions(precision=3, suppress=True)
rng = np.random.default_rng(0)

# %% [markdown]
# ## What can one head not deliver?
#
# A token asks two others how much water they carry: Anna and Ben. *Who* they are decides the {term}`weights <weight>`; *how much* they carry is in the
# {term}`values <value>`. One head with equal weights reports the mean. Try it in three worlds, one per row.

# %%
worlds = np.array([[2.0, 6.0], [3.0, 5.0], [4.0, 4.0]])  # litres of Anna, Ben
equal = np.array([0.5, 0.5])  # (seq_k,) one head's weights
print(worlds @ equal)

# %% [markdown]
# Four litres each time: what arrives cannot tell the worlds apart. Would unequal weights help? Choose any $p$ between 0 and 1 for Anna, $1 - p$ for Ben. Can you always find two
# different worlds that look the same?

# %%
for p in (0.75, 0.9, 1.0):
    one_head = np.array([p, 1 - p])
    step = np.array([1 - p, -p])  # one_head @ step is 0
    other = worlds[0] + 2 * step
    a, b = worlds[0] @ one_head, other @ one_head
    print(f"p = {p}: {worlds[0]} gives {a:.2f}, {other} gives {b:.2f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Always. A step along $(1-p,\; -p)$ changes the amounts and leaves $p\,a + (1-p)\,b$ as it was. With $p = 1$ the head reads Anna exactly, and knows nothing of Ben.
# :::
#
# A second head with other weights brings a second blend, and two different blends of two numbers can be taken apart again. The weights need not even be sharp:

# %%
two_heads = np.array([[0.75, 0.25], [0.25, 0.75]])  # (heads, seq_k)
blends = worlds @ two_heads.T                # (worlds, heads)
apart = blends @ np.linalg.inv(two_heads.T)  # (worlds, 2): a linear map
assert np.allclose(apart, worlds)
print("blends of world 0:", blends[0], "  taken apart:", apart[0])

# %% [markdown]
# That last product is a linear map of all the heads' results together. You will meet it below as $W_O$.
#
# One may hope that *wider* values save the single head. They do not: all tokens share one $W_V$, so projecting the blend and blending the
# projections are the same thing. What the blend of the token vectors has lost, no $W_V$ brings back.

# %%
carriers = rng.normal(size=(2, 8))  # (seq_k, dim): two token vectors
wide_v = rng.normal(size=(8, 100))  # (dim, dim_v): far wider than the vectors
assert np.allclose(equal @ (carriers @ wide_v), (equal @ carriers) @ wide_v)

# %% [markdown]
# Be exact about the claim. If the two amounts stood in *different coordinates* of the token vectors, one blend would hold both, each at half its size. And a
# second layer could ask for the second amount. What one head in one layer cannot do is tell *whose* content it is when both write it in the same place. The paper that introduced heads says it in one sentence: with a single head,
# averaging inhibits attending to different things at different positions {cite}`vaswani2017`.
#
# ## How do you cut a layer into heads?
#
# Our layer is the first of MiniLM {cite}`wang2020b`, whole: *The animal didn't cross the street because it was too tired*, 15 tokens of 384 numbers, 12 heads of
# $d = 32$. All heads' queries come from **one** product. Head $h$ owns columns $32h$ to $32h + 31$.

# %%
layer = real_layer()
q_all = layer.x @ layer.w_q + layer.b_q  # (seq, heads·dim_head)
k_all = layer.x @ layer.w_k + layer.b_k
v_all = layer.x @ layer.w_v + layer.b_v
print(layer.x.shape, "@", layer.w_q.shape, "->", q_all.shape)

# %% [markdown]
# `attention` works on the last two axes and takes any axes in front. So the heads must become an axis of their own, **in front of** the sequence. Two steps: cut the
# last axis in two, then move the new one forward.

# %%
def split_heads(x, heads):
    *lead, seq, width = x.shape
    x = x.reshape(*lead, seq, heads, width // heads)
    return x.swapaxes(-2, -3)  # (..., heads, seq, dim_head)


q, k, v = (split_heads(each, 12) for each in (q_all, k_all, v_all))
assert np.array_equal(q[2], q_all[:, 64:96])  # head 2: columns 64 to 95
print(q_all.shape, "->", q.shape)

# %% [markdown]
# Afterwards the heads go back side by side, by the same two steps in reverse.

# %%
def merge_heads(x):
    *lead, heads, seq, dim_head = x.shape
    x = x.swapaxes(-2, -3)  # (..., seq, heads, dim_head)
    return x.reshape(*lead, seq, heads * dim_head)


assert np.array_equal(merge_heads(q), q_all)

# %% [markdown]
# From here on these two are `attnlib.reference.split_heads` and `attnlib.reference.merge_heads`.
#
# ## What if you reshape straight?
#
# The shape you want is (12, 15, 32), and NumPy will give it to you in one step: `q_all.reshape(12, 15, 32)`. It is the classic mistake of this chapter, in PyTorch with `view`. Look
# at it small first: 4 tokens, 3 heads of 2 columns. Each number names its origin: 31 is token 3, column 1.

# %%
toy = 10 * np.arange(4)[:, None] + np.arange(6)  # (seq, heads·dim_head)
cut = split_heads(toy, 3)                        # (heads, seq, dim_head)
straight = toy.reshape(3, 4, 2)                  # the same shape
print("head 0, cut:", cut[0].tolist())
print("head 0, straight:", straight[0].tolist())

# %% mystnb={"image": {"alt": "Top: 4 rows of 6 numbers; columns 0 and 1 are blue, 2 and 3 orange, 4 and 5 green. Middle, cut: three blocks of 4 rows, the first all blue, the second all orange, the third all green. Bottom, straight: three blocks of 4 rows, each with all three colours; the first holds the whole of token 0 and a third of token 1."}, "figure": {"caption": "Colours are heads, the first digit is the token. Cut properly, a block is one head’s view of all tokens. Reshaped straight, it is all heads’ view of one token and a bit.", "name": "fig-cuts"}}
plots.cuts(toy, {"cut": cut, "straight": straight})
plt.show()

# %% [markdown]
# Now on the real layer. Before you run it: will there be an error? Will the rows of weights sum to 1? And which tokens meet in broken head 0?

# %%
right_out, right_weights = attention(q, k, v)
broken_out, broken_weights = attention(
    *(each.reshape(12, 15, 32) for each in (q_all, k_all, v_all))
)
sums = broken_weights.sum(axis=-1)
largest = np.abs(broken_weights - right_weights).max()
print("shapes equal:", broken_weights.shape == right_weights.shape)
print("rows sum to 1:", np.allclose(sums, 1, atol=1e-6))
print(f"largest difference of a weight: {largest:.2f}")

# %%
origin = np.arange(15).repeat(384).reshape(12, 15, 32)[..., 0]  # (heads, row)
print("rows of broken head 0 come from tokens ", origin[0])
print("rows of broken head 11 come from tokens", origin[11])
assert all(len(set(rows)) == 2 for rows in origin)  # two tokens per head

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# No error, and all rows sum to 1: softmax makes shares of anything. But broken head 0 holds the 12 heads of token 0 and 3 heads of token 1, and these 15 pieces attend to each other. No
# broken head ever sees more than **two** tokens of the sentence, and nothing would stop you from training such a network.
# :::
#
# Merging has the same trap: `right_out.reshape(15, 384)` instead of `merge_heads`. And the two mistakes undo each other: cut and merge again, and you are back where you began. So which test finds them? Try three: this *round trip*; a *shuffle* of
# the tokens, which must shuffle the results alike ({term}`equivariance`, chapter 5); and the *model*'s own result.
#
# Put four ways to cut and merge to these tests. The last deals the columns out like cards: head $h$ gets columns $h,\, h + 12,\, h + 24, \dots$ Which pair fails which test?

# %%
def straight_split(x, heads):
    return x.reshape(heads, len(x), -1)


def straight_merge(x):
    return x.reshape(x.shape[1], -1)


def dealt_split(x, heads):
    x = x.reshape(len(x), -1, heads)  # (seq, dim_head, heads)
    return np.moveaxis(x, -1, 0)      # (heads, seq, dim_head)


def dealt_merge(x):
    return np.moveaxis(x, 0, -1).reshape(x.shape[1], -1)


pairs = {
    "cut, merge": (split_heads, merge_heads),
    "cut, straight": (split_heads, straight_merge),
    "straight, straight": (straight_split, straight_merge),
    "dealt, dealt": (dealt_split, dealt_merge),
}

# %%
matrices = (layer.w_q, layer.w_k, layer.w_v, layer.w_o)
biases = (layer.b_q, layer.b_k, layer.b_v, layer.b_o)


def layer_with(x, split, merge):
    projected = zip(matrices[:3], biases[:3], strict=True)
    parts = (split(x @ w + b, 12) for w, b in projected)
    return merge(attention(*parts)[0]) @ layer.w_o + layer.b_o  # (seq, dim)


shuffle = rng.permutation(15)
print("                    round trip, shuffle, model")
for name, (split, merge) in pairs.items():
    result = layer_with(layer.x, split, merge)
    round_trip = np.array_equal(merge(split(q_all, 12)), q_all)
    shuffled = layer_with(layer.x[shuffle], split, merge)
    equivariant = np.allclose(shuffled, result[shuffle], atol=1e-4)
    equals_model = np.allclose(result, layer.out, atol=1e-4)  # up to 4
    print(f"{name:>18}: {round_trip!s:5} {equivariant!s:5} {equals_model}")

# %% [markdown]
# The round trip passes a broken pair. The shuffle needs no reference and catches both straight ones. It does not catch the dealt pair, and rightly
# so: dealing is another *convention*, as good as ours for a network trained with it, and wrong for weights that were stored in the other order. Only a comparison with the model's own numbers finds that. Keep both kinds of test.
#
# ## The whole layer in four lines
#
# Project, split, attend, merge, project. With $O_h$ for the result of head $h$, and $H$ heads (formulas count them from 1, the code from 0):
#
# $$\operatorname{MultiHead}(X) = [\,O_1\; O_2\; \cdots\; O_H\,]\;W_O$$
#
# First the essence, without biases or a mask:

# %%
def multi_head_short(x, w_q, w_k, w_v, w_o, heads):
    q, k, v = (split_heads(x @ w, heads) for w in (w_q, w_k, w_v))
    out, weights = attention(q, k, v)       # (..., heads, seq, dim_head)
    return merge_heads(out) @ w_o, weights  # (..., seq, dim)


x_small = rng.normal(size=(5, 12))    # (seq, dim): 5 tokens, 3 heads of 4
small = rng.normal(size=(4, 12, 12))  # w_q, w_k, w_v, w_o
short_out, short_weights = multi_head_short(x_small, *small, heads=3)
print(short_out.shape, short_weights.shape)

# %% [markdown]
# Is this the same as three separate heads, each with its own columns? Write the loop that it replaces.

# %%
looped = []
for first in (0, 4, 8):
    own = (x_small @ w[:, first : first + 4] for w in small[:3])  # q, k, v
    looped.append(attention(*own)[0])
assert np.allclose(np.concatenate(looped, axis=-1) @ small[3], short_out)

# %% [markdown]
# Now the full one. Four things are new: biases; a mask, handed on; a `context`, so that keys and values may come from another sequence; and `kv_heads`, so that several query heads may share keys and values. The last two
# have sections of their own below. Left at their defaults they change nothing.
# In the comments, · is the width of one head.

# %%
def multi_head_attention(
    x, w_q, w_k, w_v, w_o, heads, mask=None,
    *, context=None, kv_heads=None, biases=(0, 0, 0, 0),
):
    context = x if context is None else context     # None: self-attention
    kv_heads = heads if kv_heads is None else kv_heads
    b_q, b_k, b_v, b_o = biases
    q = split_heads(x @ w_q + b_q, heads)           # (..., heads, seq_q, ·)
    k = split_heads(context @ w_k + b_k, kv_heads)  # with kv_heads, seq_k
    v = split_heads(context @ w_v + b_v, kv_heads)
    k, v = (
        np.repeat(each, heads // kv_heads, axis=-3)  # (..., heads, seq_k, ·)
        for each in (k, v)
    )
    out, weights = attention(q, k, v, mask)       # (..., heads, seq_q, dim_v)
    return merge_heads(out) @ w_o + b_o, weights  # (..., seq_q, dim)


full_out, _ = multi_head_attention(x_small, *small, heads=3)
assert np.allclose(full_out, short_out, rtol=0, atol=1e-12)  # float64

# %% [markdown]
# This is `attnlib.reference.multi_head_attention`. A batch needs no further code: the axes are counted from the end.

# %%
batch = rng.normal(size=(2, 5, 12))  # (batch, seq, dim)
batch_out, batch_weights = multi_head_attention(batch, *small, heads=3)
alone, _ = multi_head_attention(batch[1], *small, heads=3)
assert np.allclose(batch_out[1], alone)
print(batch_out.shape, batch_weights.shape)

# %% [markdown]
# ## Is it the real thing?
#
# The file holds what the model itself computed for this layer: 12 maps of weights, and the result after the output projection. Compare.

# %% tags=["nbval-ignore-output"]
out, weights = multi_head_attention(layer.x, *matrices, 12, biases=biases)
weights_gap = np.abs(weights - layer.weights).max()
out_gap = np.abs(out - layer.out).max()
assert weights_gap < 1e-5  # float32: 7 digits of scores up to 30
assert out_gap < 1e-5      # entries up to 4, sums of 384 products
print(f"largest difference: weights {weights_gap:.0e}, out {out_gap:.0e}")

# %% [markdown]
# A complete attention layer of a pretrained model, from its own numbers, by the lines above. PyTorch's module does the same with another layout: its three input projections are
# *transposed* (used as `x @ w.T`) and *stacked* in one matrix. Two more of its habits are in the cell: it returns the **mean** over the heads unless told otherwise, and in its mask True means **may not** attend.

# %% tags=["torch-check", "nbval-ignore-output"]
import torch

torch.manual_seed(0)
t_module = torch.nn.MultiheadAttention(384, 12, batch_first=True).eval()
t_stacked = torch.tensor(np.concatenate([w.T for w in matrices[:3]]))
with torch.no_grad():
    t_module.in_proj_weight.copy_(t_stacked)  # (3·dim, dim)
    t_module.in_proj_bias.copy_(torch.tensor(np.concatenate(biases[:3])))
    t_module.out_proj.weight.copy_(torch.tensor(layer.w_o.T))
    t_module.out_proj.bias.copy_(torch.tensor(layer.b_o))
    t_x, may = torch.tensor(layer.x)[None], to_array(causal, 15)
    t_out, t_weights = t_module(  # ~: True is ignored
        t_x, t_x, t_x, attn_mask=torch.tensor(~may), average_attn_weights=False
    )
    t_mean = t_module(t_x, t_x, t_x)[1]

y_out, y_weights = multi_head_attention(
    layer.x, *matrices, 12, may, biases=biases
)
t_gap = np.abs(t_out[0].numpy() - y_out).max()
assert t_gap < 1e-5  # entries up to 1.5, float32
assert np.allclose(t_weights[0].numpy(), y_weights, atol=1e-5)
assert np.allclose(t_mean[0].numpy(), weights.mean(axis=0), atol=1e-5)
print(f"causal, largest difference {t_gap:.0e}; weights", tuple(t_mean.shape))

# %% [markdown]
# ## What do the twelve heads do?
#
# Look at them, all on one scale. Which of them could you name?

# %% mystnb={"image": {"alt": "Twelve 15 by 15 maps in four rows of three. Head 2 is a sharp dark line directly below the diagonal. Head 5 has a few dark cells left of the diagonal and a [CLS] column. Head 8 has a [CLS] column and isolated cells where the two “the” meet. Head 9 has one very dark cell, from [CLS] to [SEP]. Most others are pale all over, some with a faint [CLS] column."}, "figure": {"caption": "The twelve heads of one layer, reading one sentence. One is as sharp as a ruler, some have a few dark cells of their own, most are diffuse.", "name": "fig-twelve-heads"}}
head_names = [f"head {h}" for h in range(12)]
named = ["[CLS]", "didn", "street", "[SEP]"]
plots.gallery(layer.weights, head_names, layer.tokens, named)
plt.show()

# %% [markdown]
# Impressions deceive, so count. For each head: the mean weight on the previous token, on the next, on the other *the* (from one *the* to the other, both ways), on [CLS], and the number of keys a row is really looking at (chapter 4: the exponential of its entropy).

# %%
first_14, last_14 = np.arange(14), np.arange(1, 15)
before_me = weights[:, last_14, first_14].mean(axis=-1)  # (heads,)
after_me = weights[:, first_14, last_14].mean(axis=-1)
the_the = (weights[:, 1, 7] + weights[:, 7, 1]) / 2  # tokens 1 and 7
on_cls = weights[:, :, 0].mean(axis=-1)
keys_seen = np.exp(entropy(weights)).mean(axis=-1)
print("head  prev  next the–the [CLS] keys")
for h in range(12):
    print(f"{h:4} {before_me[h]:5.2f} {after_me[h]:5.2f} {the_the[h]:7.2f}",
          f"{on_cls[h]:5.2f} {keys_seen[h]:4.1f}")

# %% [markdown]
# Head 2 gives the previous token all it has. (Its 0.13 on [CLS] are two rows of 15: the first *the*, which comes after [CLS], and [CLS] itself, which has nothing before it.) Head 8 is the one in which the two *the* find each other: 0.35, where no other head gives them more than 0.08. The broadest heads spread a row over eleven or more of 15 keys. Head 5 looks like a vaguer head 2; read its rows where the word *didn't* was
# taken apart:

# %%
didn = layer.tokens.index("didn")
for query in ("'", "t"):
    row = weights[5, layer.tokens.index(query)]
    print(f"head 5: {query} → didn {row[didn]:.2f}")
sink = real_head("sink").weights[:, 0].mean()
print(f"a head of layer 3: mean weight on [CLS] {sink:.2f}")

# %% [markdown]
# In head 5 both remaining pieces of *didn't* look at its stem. A true {term}`attention sink` is not among the twelve: [CLS] gets at most 0.33 on average here, against 0.81 in the head of layer 3 that chapter 5 took apart.
#
# And the token *it*? It asks twelve questions at once. The key that gets most, head by head:

# %%
it = layer.tokens.index("it")
favourites = weights[:, it].argmax(axis=-1)  # (heads,)
most = weights[:, it].max(axis=-1)
pairs_of_it = zip(favourites, most, strict=True)
print(", ".join(f"{layer.tokens[j]} {m:.2f}" for j, m in pairs_of_it))

# %% [markdown]
# Six different favourites, [CLS] in half of the heads, and only in heads 2 and 5 does one key get more than all others together.
#
# Careful with the words. These are things the heads *do* on one sentence. What a head is *for* would be a claim about training and about what later layers make of it, and on another sentence some may do something else. In BERT, {cite:t}`clark2019` found the same kinds
# over many texts: heads that attend to fixed offsets, to delimiters, broadly over the whole sentence; some that match syntactic relations; and heads of one layer that often resemble each other.
#
# ### All of them
#
# The encoder has six such layers. Here are all 72 heads on both sentences of chapter 5, with one more measure: a weight says how much of a value is taken, not how long that value is. The product of weight and length
# (of the value as it arrives in the result, after $W_O$) is how much the token adds {cite}`kobayashi2020`. Three things to find: which head looks one word *ahead*; what a sink's four fifths on [CLS] are worth once lengths count; and in which head *it* looks
# hardest at *animal*.

# %%
from attnlib.data import real_attention

both = {ending: real_attention(ending) for ending in ("tired", "wide")}
print({ending: each.weights.shape for ending, each in both.items()})  # layers, heads, queries, keys

# %%
from attnlib.widgets.attention_explorer import AttentionExplorer

AttentionExplorer(
    {ending: each.tokens for ending, each in both.items()}, {ending: each.weights for ending, each in both.items()},
    {ending: each.norms for ending, each in both.items()}, query=it, key=layer.tokens.index("animal"), head=(3, 1), other=(3, 5),
    caption="Six layers of twelve heads, reading the sentence. Point at a word, focus it or tap it, to see its row alone; click a small square to see that head. "
            "Below the squares, choose which of the two pictures a click changes.")

# %%
tired = both["tired"]
ahead = tired.weights[:, :, first_14, last_14].mean(axis=-1)                 # (layers, heads)
sizes = tired.weights * tired.norms[:, :, None]                              # (layers, heads, seq_q, seq_k)
of_animal = tired.weights[:, :, it, layer.tokens.index("animal")]
for what, table in (("on the next token", ahead), ("it → animal", of_animal)):
    where = np.unravel_index(table.argmax(), table.shape)
    print(f"most {what}: layer {where[0]}, head {where[1]}, {table[where]:.2f}")
print(f"layer 3, head 5, on [CLS]: {tired.weights[3, 5, :, 0].mean():.2f} of the weight, {(sizes / sizes.sum(-1, keepdims=True))[3, 5, :, 0].mean():.2f} of weight × length;",
      f"from it alone {tired.weights[3, 5, it, 0]:.2f} and {(sizes / sizes.sum(-1, keepdims=True))[3, 5, it, 0]:.2f}")

# %% [markdown]
# :::{dropdown} Your findings, then ours
# Head 8 of layer 1 looks one word ahead, and by far not as sharply as head 2 of layer 0 looks back: 0.55. The sink is worth a fifth of what it seems: 0.81 of the weight, 0.17 once lengths count (means over all queries; for *it* alone 0.13), because the value of [CLS] is almost nothing there: a row that "looks at
# [CLS]" adds little at all. And *it* looks hardest at *animal* in head 11 of layer 5, by a hair before our pronoun head of layer 3: heads that do the same come more than once.
# :::
#
# ## What does $W_O$ do?
#
# The formula says: put the heads side by side, multiply by $W_O$. Cut $W_O$ into its rows, 32 per head, $W_O^{1}$ to $W_O^{H}$. A product of concatenated blocks is a sum of products:
#
# $$[\,O_1 \cdots O_H\,]\,W_O = O_1 W_O^{1} + \dots + O_H W_O^{H}$$

# %%
row_blocks = layer.w_o.reshape(12, 32, 384)  # (heads, dim_head, dim)
added = right_out @ row_blocks               # (heads, seq, dim)
assert np.allclose(added.sum(axis=0) + layer.b_o, layer.out, atol=1e-5)

# %% [markdown]
# So the heads do not hand their results to a mixer that needs all of them. Each **adds** its own vector of 384 numbers to the result, which is in turn added to the token (the {term}`residual stream` of chapter 8), and no head knows what the others add. Do they get in each other's way? If
# twelve vectors are at right angles to each other, the square of the sum's length is the sum of their squares.

# %%
print(f"sum of the heads' squares {(added**2).sum():.0f},",
      f"square of their sum {(added.sum(axis=0) ** 2).sum():.0f}")

# %% [markdown]
# Close. All in all the twelve contributions hardly reinforce or cancel each other. In 384 dimensions there is room: with its weights $A_h$, a head can add $A_h X\,W_V^{h} W_O^{h}$, and the product $W_V^{h} W_O^{h}$ is a
# 384 × 384 matrix whose rank, the number of independent directions it can produce, cannot exceed the 32 in its middle. (The value biases add one constant vector more, because rows sum to 1.)

# %%
w_v_heads = split_heads(layer.w_v, 12)    # (heads, dim, dim_head)
value_to_result = w_v_heads @ row_blocks  # (heads, dim, dim)
print("ranks:", np.linalg.matrix_rank(value_to_result))
print("rank of the whole W_O:", np.linalg.matrix_rank(layer.w_o))

# %% [markdown]
# The whole $W_O$ has full rank, 384 = 12 · 32: nothing is lost to overlap between the twelve subspaces. So what one head writes, the others cannot cancel completely, not even all together.
#
# The sum also tells what twelve heads have over one. Suppose all had the **same** map $A$. Then
#
# $$\sum_h A X\,W_V^{h} W_O^{h} = A X\,W_V W_O ,$$
#
# which is one head of full width. Heads are worth having only because their maps differ. How much do they, here? Give all twelve their mean map.

# %%
def change(result):
    return np.linalg.norm(result - layer.out) / np.linalg.norm(layer.out)


one_map = weights.mean(axis=0)                       # (seq, seq)
same_map = merge_heads(one_map @ v) @ layer.w_o + layer.b_o
single = one_map @ v_all @ layer.w_o + layer.b_o     # one head, 384 wide
assert np.allclose(same_map, single, atol=1e-5)
print(f"the result changes by {change(same_map):.2f} of its length")

# %% [markdown]
# ## Does every head matter?
#
# Because heads add, it is easy to take one away: leave out its term. Which head will be missed most? One of the sharp ones or one of the broad ones?

# %%
removed = np.array([change(layer.out - added[h]) for h in range(12)])
print("ranking:", np.argsort(-removed))
print("change: ", removed[np.argsort(-removed)])

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Head 4 by a hair, then the previous-token head 2. Head 4 is a broad one: its rows spread over eight keys.
# :::
#
# But what is it that head 4 adds? If it adds nearly the same vector to *every* token, that is a constant, and a constant could as well stand in the bias $b_O$. (If it is the same in other sentences, too, which one sentence
# cannot tell.) So a fairer way to take a head away is to replace what it adds by its mean over the tokens, and to count only what is lost beyond that.
# The mean and the deviations from it are at right angles, so their squares add up; the last line prints the mean's share of that sum. Which head will drop in the ranking?

# %%
varying = added - added.mean(axis=1, keepdims=True)  # (heads, seq, dim)
flattened = np.array([change(layer.out - varying[h]) for h in range(12)])
share = 1 - (flattened / removed) ** 2               # the mean's
print("ranking:", np.argsort(-flattened))
print("change: ", flattened[np.argsort(-flattened)])
print(f"constant share: head 4 {share[4]:.2f}, head 2 {share[2]:.2f}")

# %% mystnb={"image": {"alt": "Pairs of bars for twelve heads. Removed: head 4, 2 and 5 change the result by nearly a half, head 11 by less than a fifth. Replaced by its mean: head 2 still 0.41, heads 5 and 9 0.33, head 8 0.20, the others between 0.07 and 0.15, head 4 among them."}, "figure": {"caption": "How far the layer’s result moves without each head. Head 4 leads if you remove it, and drops behind if its mean stays: most of what it adds is the same for every token.", "name": "fig-head-importance"}}
plots.head_bars(
    {"head removed": removed,
     "replaced by its mean over the tokens": flattened},
    "change of the result, relative to its length", head_names,
)
plt.show()

# %% [markdown]
# The two rankings disagree about head 4 because they ask different questions, and neither asks the one that counts: does the *model* get worse? That needs the rest of the network and a task. Where it was measured, most heads of trained translation models and
# of BERT could be removed one at a time without a significant loss, and some layers did with a single head. But pruning heads in the whole model together did noticeable harm beyond 20% (translation) or 40% (BERT) of them {cite}`michel2019`. In an English–Russian translation model 38 of 48 encoder heads were pruned at a price of 0.15 BLEU, a score of translations out of 100; the heads with
# recognisable jobs went last {cite}`voita2019`. Both papers start from *trained* models. That heads can be spared afterwards does not say that training could have done without them.
#
# ## Do twelve heads cost twelve times as much?
#
# Keep the width of 384 and cut it into 1, 2, 12 or 384 heads, for a text of 512 tokens. Predict three columns: the parameters, the FLOPs (multiplications and additions) of all matrix products, the number of weights that softmax has to compute. `attnlib.costs` counts the first two.

# %%
for heads in (1, 2, 12, 384):
    flops = costs.attention_layer_flops(seq=512, dim=384, heads=heads)
    parameters = costs.attention_parameters(dim=384, heads=heads)
    print(f"{heads:3} heads of {384 // heads:3}: {parameters:,} parameters,",
          f"{flops / 1e6:.0f} MFLOP, {heads * 512**2:>11,} weights")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The first two do not depend on the number of heads: twelve heads do a twelfth of the work each. There are $4 \cdot 384^2$ parameters (biases left out); the projections take $8 \cdot 512 \cdot 384^2$ FLOPs, scores and results $4 \cdot 512^2 \cdot 384$. The **weights** do: one 512 × 512 map per head, an exponential per entry, and memory for all of them
# if the maps are kept.
# :::
#
# So more heads are free in FLOPs as they are usually counted, not free in exponentials and memory. And they become narrow. What does a narrow head lose?
#
# ### The bottleneck of a narrow head
#
# Scores are $QK^\top/\sqrt d$, a product with $d$ in the middle, so their rank is at most $d$, however long the text. Softmax hides this only thinly: $\ln A_{ij} = S_{ij} - L_i$ with one number $L_i$ per row (the
# {term}`log-sum-exp`), so the *logarithms* of the weights have rank at most $d + 1$. Feed 128 random tokens to a real head:

# %%
x_long = rng.normal(size=(128, 384))
head = real_head("same_word")
q_long, k_long = x_long @ head.w_q + head.b_q, x_long @ head.w_k + head.b_k
scores_long = q_long @ k_long.T / 32**0.5  # (128, 128)
log_weights = np.log(softmax(scores_long))
print("rank of scores:", np.linalg.matrix_rank(scores_long))
print("rank of log weights:", np.linalg.matrix_rank(log_weights))

# %% [markdown]
# A 128 × 128 map of weights whose logarithms have a higher rank cannot come out of this head exactly, whatever its matrices and whatever the tokens. {cite:t}`bhojanapalli2020` prove the two sides for a head as wide as the token vectors. If that is at least the number of tokens, and these are linearly independent, some matrices produce any map of positive weights. If it is less, there are tokens and maps
# for which none do. They propose to make heads as wide as the sequence is long.
#
# How near does a narrow head come? Take random scores as a target. The best approximation of rank $d$, in squared error, keeps the $d$ largest singular values. (Row means are taken out first, because softmax forgets them.)

# %%
target = rng.normal(size=(128, 128))
centred = target - target.mean(axis=-1, keepdims=True)
energy = np.linalg.svd(centred, compute_uv=False) ** 2  # largest first
for width in (2, 8, 32, 64, 127):
    missed = energy[width:].sum() / energy.sum()
    print(f"width {width:3}: misses {missed:.2f} of the target's variance")

# %% [markdown]
# A head of width 32 misses more than a third of this pattern over 128 tokens, whatever its matrices. (Without the row means the target has rank 127, so that width 127 misses nothing.) Over a sentence of 15 there is no such limit: the bottleneck begins where texts are longer than heads are wide.
#
# But who asks for a random map? Can a head of width **2** make each of 128 queries point at one key of its own, in any order you like? A {term}`permutation` matrix has rank 128.

# %%
angles = 2 * np.pi * np.arange(128) / 128
circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1)  # (seq_k, 2)
wanted = rng.permutation(128)  # query i should find key wanted[i]
for loudness in (10, 100, 1_000, 5_000):  # each query is its key, made long
    pointing = softmax(loudness * circle[wanted] @ circle.T)
    least = pointing[np.arange(128), wanted].min()
    print(f"scores up to {loudness:>5}: weight on the right key {least:.3f}")
upright = softmax(10 * np.eye(128))  # width 128: a direction for every key
print(f"width 128, scores up to 10: {np.diag(upright).min():.3f};",
      f"float16 steps at 5000: {np.spacing(np.float16(5000))}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It can. Rank limits the scores, not what softmax makes of them: put the keys on a circle, let each query be the key it wants. The price is loudness. Neighbours on the circle are so similar that the
# scores must reach 5,000 where a head of width 128 does with 10, and float16 knows only every fourth integer there.
# :::
#
# So be careful with *a narrow head cannot*. From two dimensions on it can point at any one key, if it may shout. What it cannot do is give an arbitrary mixture to every query at once. Width is a compromise to be found by experiment: in the original one, at constant computation, a single head was 0.9 BLEU below the best setting, and too many heads lost quality again {cite}`vaswani2017`.
#
# ## Must every head have its own keys and values?
#
# When a model writes text token by token, it keeps all keys and values it has computed, in the {term}`KV cache` (chapter 12), and reads all of them again for every new token; with long texts, reading them, not computing with them, is what limits the speed {cite}`shazeer2019`. Queries are not kept. So let several query heads **share** one key and value head: all of them
# in {term}`multi-query attention` {cite}`shazeer2019`, groups of neighbours in {term}`grouped-query attention` {cite}`ainslie2023`. How much does that save? (A key/value head keeps two vectors per token and layer.)

# %%
# key/value heads; both: 32 layers, 32 query heads, dim_head 128, 2 bytes each
published = {"Llama-2-7B": 32, "Llama-3-8B": 8}
one_layer = costs.attention_flops(heads=32, seq_q=1, seq_k=4096, dim_head=128)
for name, kv_heads in published.items():
    size = costs.kv_cache_bytes(
        layers=32, kv_heads=kv_heads, dim_head=128, seq=4096
    )
    print(f"{name}: {size / 4096 / 2**10:.0f} KiB per token,",
          f"{size / 2**30:.1f} GiB for 4096;",
          f"{32 * one_layer / size:.0f} FLOP per byte read")

for kv_heads in (12, 4, 1):
    parameters = costs.attention_parameters(384, 12, kv_heads)
    print(f"our layer with {kv_heads:2}: {parameters:,} parameters")

# %% [markdown]
# A quarter of the cache, and each byte read from it serves four heads instead of one. The projections shrink too.
#
# In the code it is one line, `np.repeat(each, heads // kv_heads, axis=-3)`: each key/value head is repeated for the query heads of its group. There is another function that repeats arrays, `np.tile`. Both give 12 heads. What is the difference?

# %%
print("np.repeat:", np.repeat(np.arange(4), 3))
print("np.tile:  ", np.tile(np.arange(4), 3))

# %% [markdown]
# Repeated, query heads 0, 1 and 2 share key head 0: *neighbours* form a group, the convention of the stored weights of Llama and its relatives. Tiled, head 1 is paired with key head 1, which belongs to another group. Again every shape is right, nothing fails, and rows sum to 1. A test that can fail: a grouped layer
# must equal a plain one in which each group's columns of $W_K$ and $W_V$ have been copied.

# %%
def copy_columns(w):  # query head h gets key/value head h // 3
    blocks = [w[:, 32 * (h // 3) : 32 * (h // 3) + 32] for h in range(12)]
    return np.concatenate(blocks, axis=1)


four_w = layer.w_k[:, :128], layer.w_v[:, :128]  # 4 key/value heads of 32
w_q, w_o = layer.w_q, layer.w_o
plain, _ = multi_head_attention(
    layer.x, w_q, *map(copy_columns, four_w), w_o, 12
)
grouped, _ = multi_head_attention(
    layer.x, w_q, *four_w, w_o, 12, kv_heads=4
)
assert np.allclose(grouped, plain, atol=1e-5)  # float32, entries up to 1.2

# %% [markdown]
# The same layer with `np.tile`:

# %%
q_12 = split_heads(layer.x @ w_q, 12)
four = [split_heads(layer.x @ w, 4) for w in four_w]
tiled, _ = attention(q_12, *(np.tile(each, (3, 1, 1)) for each in four))
off = np.linalg.norm(merge_heads(tiled) @ w_o - plain)
off /= np.linalg.norm(plain)
print(f"np.tile: the result is off by {off:.2f} of its length")

# %% tags=["torch-check"]
t_sdpa = torch.nn.functional.scaled_dot_product_attention
t_four = [torch.tensor(each)[None] for each in four]
t_out_12 = t_sdpa(torch.tensor(q_12)[None], *t_four, enable_gqa=True)[0]
assert np.allclose(merge_heads(t_out_12.numpy()) @ w_o, plain, atol=1e-5)
print("PyTorch's enable_gqa groups neighbours too")

# %% [markdown]
# ### Can a trained layer be converted?
#
# The paper on grouped queries starts from trained models: it takes the **mean** of the key and value projections in each group, and then trains on for 5% of the original compute {cite}`ainslie2023`. What does the first step alone do to our layer? Two functions: one pools columns, one measures.

# %%
def pool(columns, kv_heads, pick=np.mean):
    lead = columns.shape[:-1]
    groups = columns.reshape(*lead, kv_heads, 12 // kv_heads, 32)
    pooled = pick(groups, axis=-2)  # (..., kv_heads, dim_head)
    return pooled.reshape(*lead, kv_heads * 32)


def converted(kv_heads, matrices, biases, pick=np.mean):
    few, few_b = (
        (of_q, pool(of_k, kv_heads, pick), pool(of_v, kv_heads, pick), of_o)
        for of_q, of_k, of_v, of_o in (matrices, biases)  # both alike
    )
    result, _ = multi_head_attention(
        layer.x, *few, 12, kv_heads=kv_heads, biases=few_b
    )
    return change(result)

# %% [markdown]
# As a yardstick take the layer without any heads, in which only $b_O$ remains.

# %%
def first_of_group(groups, axis):
    return groups.take(0, axis)


counts = (12, 6, 4, 3, 2, 1)
nothing = change(np.broadcast_to(layer.b_o, layer.out.shape))
by_mean, by_first = (
    {12 // n: converted(n, matrices, biases, pick) for n in counts}
    for pick in (np.mean, first_of_group)
)
assert by_mean[1] < 1e-5  # groups of one: nothing changes
print(f"no heads at all: {nothing:.2f}")
for group, by in by_mean.items():
    print(f"{group:2} share: mean {by:.2f}, first {by_first[group]:.2f}")

# %% mystnb={"image": {"alt": "Two panels over the number of query heads that share one key/value head, from 1 to 32. Top: cache per token of a model of Llama’s shape falls from 512 KiB at 1 through 128 KiB at 4 to 16 KiB at 32. Bottom: change of our layer’s result without training on; the mean rises from 0 at 1 to 0.81 at 2 and 1.13 at 12; taking the first head lies above it at every point beyond 1; a dashed line at 1.14 marks all heads left out."}, "figure": {"caption": "Sharing divides the cache by the size of the group. Done to our trained layer without training on, it destroys the layer: with one shared head the result is about as wrong as without any heads.", "name": "fig-sharing"}}
groups = (1, 2, 4, 8, 16, 32)
cache = {g: costs.kv_cache_bytes(32, 32 // g, 128, 1) / 1024 for g in groups}
plots.sharing(
    cache, {name: 32 // n for name, n in published.items()},
    {"mean of the group": by_mean, "first of the group": by_first}, nothing,
)
plt.show()

# %% [markdown]
# Honest result: the mean is better than picking one, as the paper found after training on, and by this measure both are useless as they stand. Even pairs of neighbours move the result by 0.81 of its length. The training afterwards has to do the work.
#
# Chapter 2 tells us one reason. Turn the queries and keys of a head by the same orthogonal matrix (a rotation or a reflection), its values by another, and its rows of $W_O$ back again: no score and no result changes. But a mean of two heads, each turned its own way, does change. So the mean depends on a choice of coordinates that means nothing to this layer. (Under rotary positions, chapter 7, only turns that commute with their rotations are free.)

# %%
def turn(columns, r):
    return merge_heads(split_heads(np.atleast_2d(columns), 12) @ r)


def turned(r_k, r_v):  # (heads, dim_head, dim_head) each
    new_matrices, new_biases = (
        [turn(a, r) for a, r in zip(each[:3], (r_k, r_k, r_v), strict=True)]
        for each in (matrices, biases)
    )
    back = (r_v.swapaxes(-1, -2) @ row_blocks).reshape(384, 384)
    return (*new_matrices, back), (*new_biases, layer.b_o)


by_turn = []
for _ in range(5):
    random_turns, _r = np.linalg.qr(rng.normal(size=(2, 12, 32, 32)))
    random_turns = random_turns.astype(np.float32)
    assert converted(12, *turned(*random_turns)) < 1e-5  # the same layer
    by_turn.append(converted(6, *turned(*random_turns)))
print("pairs pooled, turned in 5 ways:", np.array(by_turn))

# %% [markdown]
# Five times the same layer, and five different amounts of damage. Choosing the turns so that the heads of a group agree *before* taking the mean is the idea of [Align Attention Heads Before Merging Them](https://arxiv.org/abs/2412.20677); the last exercise lets you try.
#
# ## Where do keys and values come from?
#
# From `context`: the cross-attention of chapter 2, now in all heads. Let the second clause, *because it was too tired*, look at the first only. Is that the same as self-attention over the whole sentence with a mask that lets every query see the first clause and nothing else? Predict, then compare.

# %%
clause_1, clause_2 = layer.x[:9], layer.x[9:]  # split before because
only_clause_1 = np.arange(15) < 9              # (seq_k,)
cross_out, cross_weights = multi_head_attention(
    clause_2, *matrices, 12, context=clause_1, biases=biases
)
masked_out, masked_weights = multi_head_attention(
    layer.x, *matrices, 12, only_clause_1, biases=biases
)
assert np.allclose(cross_out, masked_out[9:], atol=1e-5)
assert np.allclose(cross_weights, masked_weights[:, 9:, :9], atol=1e-6)
print(cross_out.shape, cross_weights.shape)

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Yes, to the last digits of float32. A key that is masked and a key that is absent are the same to softmax.
# :::

# %% [markdown]
# ## What to remember
#
# | property | consequence | cell that shows it |
# |---|---|---|
# | one head, one blend | several heads: several blends, and $W_O$ can take them apart | Anna and Ben |
# | cut the columns, *then* move the axis | reshaped straight, heads see two tokens; shapes and sums say nothing, equivariance does | {numref}`fig-cuts` |
# | equals a real layer, and PyTorch's module | transposed, stacked, mean over heads, True = ignored | real layer |
# | $[O_1 \cdots O_H]\,W_O = \sum_h O_h W_O^h$ | heads add, each through rank $\le d$; equal maps would be one head | sum of heads |
# | taking heads away | by zero or by the mean are different questions | {numref}`fig-head-importance` |
# | same FLOPs for any number of heads | weights and exponentials grow with it; scores have rank $\le d$ | counts, bottleneck |
# | sharing keys and values | cache divided by the group; neighbours share (`repeat`, not `tile`) | {numref}`fig-sharing` |
# | `context` | cross-attention is the same function | two clauses |
#
# **In practice.** Most libraries make queries, keys and values with one fused product and cut it afterwards, in orders that differ between models (third exercise). Fast kernels do not repeat the shared keys in memory: a group of query heads reads the same
# ones (first exercise). The paper on grouped queries shares heads in the decoder and leaves the encoder's self-attention alone {cite}`ainslie2023`: an encoder reads its text in one pass and keeps no cache, so our layer would gain little. {cite:t}`deepseek2024`
# compress keys and values into one short vector per token (with a small key beside it that carries the position) instead of sharing heads.
#
# **Shortcut taken here.** One layer, one sentence. Distances between results are not losses: the next layers may care about a small change and ignore a large one. And a head in a stack also works through what later heads read from it.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Construct two worlds that look the same to one head, and take them apart with a second.
# - Cut a layer into heads and merge them again, and name a test that catches a straight reshape without any reference.
# - Load a pretrained layer into `nn.MultiheadAttention`, minding its transposes, its stacking, its mean over heads and
#   its mask.
# - Describe what a head does by numbers you count, and say what such numbers do not tell about what it is for.
# - Take a head away by zero and by its mean, and say which question each of the two answers.
# - Say what grows when one width is cut into more heads, what does not, and how many bytes of cache shared key heads
#   save.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:grouped_attention", "ex-prompt"]
# ```{exercise} Share without copying
# :label: ex-grouped-attention
# Write `grouped_attention(q, k, v)` with `q` (..., heads, seq_q, dim_head) and `k`, `v` (..., kv_heads, seq_k, ·), where kv_heads divides
# heads. Neighbouring query heads share: with 6 heads and 2 key heads, heads 0, 1, 2 meet key head 0. Return `out`
# (..., heads, seq_q, dim_v) and `weights` (..., heads, seq_q, seq_k), and never build the repeated keys or values: the check measures memory.
# `attention(q, k, v)`, which returns `out` and `weights` and takes any leading axes, is given. Hint: to one key head, the queries of its
# whole group are just a longer list of queries. (Leaving the repetition to broadcasting inside `attention` is not enough: it blanks unused
# values for each query head, and that is a copy.)
# ```


# %% tags=["ex:grouped_attention", "ex-stub"]
def grouped_attention(q, k, v):
    raise NotImplementedError("replace this line")

# %% tags=["ex:grouped_attention", "ex-check"]
check(grouped_attention)

# %% tags=["ex:grouped_attention", "ex-solution", "hide-cell"]
def grouped_attention(q, k, v):
    *lead, heads, seq_q, dim_head = q.shape
    kv_heads, seq_k = k.shape[-3:-1]
    group = heads // kv_heads
    longer = q.reshape(*lead, kv_heads, group * seq_q, dim_head)
    out, weights = attention(longer, k, v)  # neighbours, one after the other
    return (out.reshape(*lead, heads, seq_q, v.shape[-1]),
            weights.reshape(*lead, heads, seq_q, seq_k))


require(grouped_attention)

# %% [markdown] tags=["ex:pick_heads", "ex-prompt"]
# ```{exercise} Pick heads
# :label: ex-pick-heads
# Write `pick_heads(chosen, matrices, biases)` for a layer of heads 32 wide: `matrices` are `w_q`, `w_k`, `w_v` (dim, heads·32) and `w_o`
# (heads·32, dim), used as `x @ w_q`; `biases` are `b_q`, `b_k`, `b_v` (heads·32,) and `b_o` (dim,). Head $h$ owns the numbers from $32h$ to
# $32h + 31$. Return a pair, four matrices and four biases in the same order, of a layer that consists of the heads in the list `chosen`, in
# that order. With a permutation of all heads the result of the layer must not change; with fewer heads the layer becomes cheaper and gives
# what zeroing the others would. **Predict** first: which of the eight arrays change, and along which axis?
# ```


# %% tags=["ex:pick_heads", "ex-stub"]
def pick_heads(chosen, matrices, biases):
    raise NotImplementedError("replace this line")

# %% tags=["ex:pick_heads", "ex-check"]
check(pick_heads)

# %% tags=["ex:pick_heads", "ex-solution", "hide-cell"]
def pick_heads(chosen, matrices, biases):
    w_q, w_k, w_v, w_o = matrices
    b_q, b_k, b_v, b_o = biases
    own = np.concatenate([np.arange(32 * h, 32 * h + 32) for h in chosen])
    return ((w_q[:, own], w_k[:, own], w_v[:, own], w_o[own]),  # rows of w_o
            (b_q[own], b_k[own], b_v[own], b_o))  # b_o belongs to no head


require(pick_heads)
backwards = pick_heads(list(range(12))[::-1], matrices, biases)
same_out, _ = multi_head_attention(
    layer.x, *backwards[0], heads=12, biases=backwards[1]
)
assert np.allclose(same_out, layer.out, atol=1e-5)  # the order is arbitrary

# %% [markdown] tags=["ex:unpack", "ex-prompt"]
# ```{exercise} Read other people's weights
# :label: ex-unpack
# Two ways to store $W_Q$, $W_K$, $W_V$ as one array `packed` (3·dim, dim), used as `x @ packed.T`. *Stacked*, as in
# `nn.MultiheadAttention`: all of $W_Q$, then $W_K$, then $W_V$. *Interleaved*, as in GPT-NeoX: the query rows of head 0, its key rows, its
# value rows, then head 1, and so on. Write `unpack(packed, heads, interleaved)`, which returns `w_q, w_k, w_v`, to be used as `x @ w_q`,
# each (dim, heads·dim_head) with heads·dim_head = dim: head 0 owns the first dim_head columns, head 1 the next, and so on.
# ```


# %% tags=["ex:unpack", "ex-stub"]
def unpack(packed, heads, interleaved):
    raise NotImplementedError("replace this line")

# %% tags=["ex:unpack", "ex-check"]
check(unpack)

# %% tags=["ex:unpack", "ex-solution", "hide-cell"]
def unpack(packed, heads, interleaved):
    dim = packed.shape[1]
    if interleaved:
        blocks = packed.reshape(heads, 3, dim // heads, dim)
        packed = blocks.swapaxes(0, 1)  # (3, heads, dim_head, dim)
    return tuple(part.T for part in packed.reshape(3, dim, dim))


require(unpack)

# %% [markdown] tags=["ex:explore_align", "ex-prompt", "ex-open"]
# ```{exercise} Explore: align before you pool
# :label: ex-explore-align
# For each head, find the orthogonal matrix $R$ that brings its columns of $W_K$, $W_K^{h}$, closest to those of the first head of its group: if $U \Sigma V^\top$ is the singular value decomposition of $(W_K^{h})^\top W_K^{\text{first}}$, then $R = U V^\top$. Do the same for the values, turn the layer with `turned`, and pool with `converted`. How much of the damage in {numref}`fig-sharing`
# goes away for pairs, and for one shared head? Would you group *neighbours*, or choose the groups by how well heads align?
# ```

# %% [markdown]
# **Sources.** Multi-head attention: {cite:t}`vaswani2017`. What heads do: {cite:t}`clark2019`; pruning them: {cite:t}`michel2019`, {cite:t}`voita2019`. The bottleneck: {cite:t}`bhojanapalli2020`. Shared keys and values: {cite:t}`shazeer2019`,
# {cite:t}`ainslie2023`.
