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
# # What does a token ask, offer and hand over?
#
# A {term}`token` that needs something from the others has to say what it looks for. The others have to say what they
# offer. And then something has to be handed over. {term}`Attention <attention>` gives each of these three jobs a matrix of its own. In this
# chapter you take the three matrices out of a real pretrained {term}`head`, see what each one does, and find out which of their
# numbers mean anything.
#
# :::{admonition} Before you start
# :class: note
# **You need** matrix products, dot products, and the rank and the inverse of a matrix. **You will build** a soft lookup by hand, then the
# queries, keys and values of a real head, and read the one matrix that its scores depend on. **Time** about 55 minutes.
# The first figure shows what the three lines of this chapter make of a real sentence.
# :::

# %%
import matplotlib.pyplot as plt
import numpy as np

from attnlib.data import real_head, real_layer
from attnlib.plots import queries_keys_values as plots
from attnlib.reference import softmax

np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# *The animal didn't cross the street because it was too tired* has gone through three layers of a pretrained {term}`encoder`
# (all-MiniLM-L6-v2, a descendant of MiniLM {cite}`wang2020b`). Out come 15 {term}`token vectors <token vector>`, each 384 wide, and enter 12 heads of the next layer side by
# side. We follow one of the 12. Our file of it holds float32; we compute in float64, so that what is equal in algebra also looks
# equal on the screen.

# %%
head = real_head("pronoun")
tokens, x = head.tokens, head.x.astype(np.float64)
w_q, w_k, w_v = (w.astype(np.float64) for w in (head.w_q, head.w_k, head.w_v))
b_q, b_k, b_v = (b.astype(np.float64) for b in (head.b_q, head.b_k, head.b_v))
print(*tokens)
print("x", x.shape, "  w_q", w_q.shape, "  b_q", b_q.shape)

# %% [markdown]
# [CLS] and [SEP] are not words: the encoder sets them at the start and the end of every input. Each token vector is multiplied by three matrices. Papers call this a {term}`projection`: 384 numbers go in, 32 come out.

# %%
q = x @ w_q + b_q  # (seq, dim_head) queries: what each token looks for
k = x @ w_k + b_k  # (seq, dim_head) keys: by what it can be found
v = x @ w_v + b_v  # (seq, dim_head) values: what it hands over
print(q.shape, k.shape, v.shape)

# %% [markdown]
# In the picture every row is a token. On top are 96 of the 384 coordinates of `x`, number 99 among them; it comes back near the end.

# %% mystnb={"image": {"alt": "Four signed maps with one row per token. On top the token vectors, 15 rows, 96 of their 384 coordinates; the row of [CLS] is blank but for one dark square at coordinate 99. Below, side by side, queries, keys and values, 15 rows of 32 coordinates each; the three look nothing like one another. Among the queries and the keys [CLS] is as strong as any row, in the map of the values its row is blank."}, "figure": {"caption": "One vector per token goes in; three come out, for three roles. One row of the values is almost empty: [CLS] asks and offers like any other token, and hands over next to nothing.", "name": "fig-three-roles"}}
plots.three_roles(x, q, k, v, tokens, first=32)
plt.show()

# %% [markdown]
# Those three lines are the whole subject. Why a lookup needs them, why there are three and not one, which of the 32
# coordinates you may read anything into, and why a network would let a token hand over nothing: that is the rest of the chapter.
#
# ## From a dictionary to a soft lookup
#
# A Python dictionary compares what you ask for with its keys. One key is equal, and you get its value; or none is, and
# you get an error.

# %%
price = {"banana": 20, "lemon": 60, "orange": 30}
print(price["lemon"], price.get("mango", "KeyError"))

# %% [markdown]
# A {term}`soft lookup` describes keys and question by numbers and asks *how well* each key fits. Here every fruit is described by
# two numbers, sweet and sour. The fit is a dot product, and the fits of all keys, divided by their sum, are **shares**.

# %%
keys = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])  # banana, lemon, orange: (sweet, sour)
prices = np.array([20.0, 60.0, 30.0])
mango = np.array([3.0, 1.0])  # the query

fits = keys @ mango
print("fits", fits)

# %% [markdown]
# What should a mango cost? Work it out on paper: shares first, then the mean of the prices under these shares.

# %%
shares = fits / fits.sum()
assert np.isclose(shares.sum(), 1)
print("shares", shares, "  price", (shares @ prices).round(3))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The fits are 6, 2 and 4, the shares $\tfrac12, \tfrac16, \tfrac13$, and the price is $10 + 10 + 10 = 30$.
# :::
#
# Three things have changed from the dictionary. **Every** key answers, by degree. The result is a **mixture** of values and need not
# be one of them. And a question needs no equal among the keys to get an answer. (If nothing fits at all, our shares divide 0 by 0; what replaces them below answers even then.)
#
# The dictionary is still in there. If the keys are unit vectors at right angles and the query equals one of them, its share is 1 and the others are 0:

# %%
one_hot = np.eye(3)  # banana, lemon, orange: nothing in common
fits_lemon = one_hot @ one_hot[1]
print(fits_lemon / fits_lemon.sum() @ prices)

# %% [markdown]
# {cite:t}`vaswani2017` describe attention so: it maps a {term}`query` and a set of {term}`key`–{term}`value` pairs to an output, and the output is a weighted sum
# of the values. What a sentence adds to the fruit shop: the tokens themselves are the entries, every token also asks, and all three descriptions are learned.
#
# ## The same lookup in a real head
#
# Each of the 15 queries meets each of the 15 keys. Queries are rows, keys are columns, here and everywhere in this book.
# Two details are promises for now. {term}`Scores <score>` are divided by $\sqrt{32}$, the root of the head's {term}`width` (chapter 3 says why). And because real scores can be
# negative, dividing by the sum gives no shares; {term}`softmax` does. You build it in chapter 4. Until then: it
# turns each row of real numbers into positive shares that sum to 1, the larger the score the larger the share.

# %%
scores = q @ k.T / np.sqrt(32)  # (seq_q, seq_k)
weights = softmax(scores)       # (seq_q, seq_k), rows sum to 1
out = weights @ v               # (seq_q, dim_head)
assert np.allclose(weights.sum(axis=-1), 1)
print(scores.shape, weights.shape, out.shape)

# %% [markdown]
# The same three steps as in the shop: fits, shares, mean. Did the pretrained model find the same shares? The {term}`weights <weight>` it computes
# itself are stored beside its projections.

# %% tags=["nbval-ignore-output"]
difference = np.abs(weights - head.weights).max()
assert difference < 1e-6  # the model computed in float32, about 7 digits
print(f"largest difference to the model's own weights: {difference:.0e}")

# %%
it, animal, street, cls = (tokens.index(word) for word in ("it", "animal", "street", "[CLS]"))
for j in np.argsort(-weights[it])[:4]:
    print(f"it -> {tokens[j]:7} score {scores[it, j]:5.2f}   weight {weights[it, j]:.3f}")

# %% [markdown]
# In this head *it* gives 64% of its attention to *animal* and 5% to *street*. That is why we picked it, and it
# is one sentence. At the end of the chapter we change the sentence so that *it* means the street. Will the head follow?
#
# ## Could the token vectors compare themselves?
#
# Why project at all? Token vectors are vectors: similar tokens point in similar directions. Let each be its own query and its own key (and divide by the root of *their* width, 384).
# Which token will *it* find most similar? Which next?

# %%
raw = x @ x.T / np.sqrt(384)  # (seq, seq): no projections
order = np.argsort(-raw[it])
print([f"{tokens[j]} {raw[it, j]:.2f}" for j in order[:4]])
print("animal comes in place", 1 + list(order).index(animal), "of", len(tokens))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Itself, by far; then *was*, its neighbour, and the first *the*. *Animal* comes eighth. Similarity finds what is **like** *it*.
# A pronoun needs something unlike itself: a noun.
# :::
#
# It is the same in every row. Turn these similarities into weights, and every token looks at itself first:

# %%
to_itself = np.diag(softmax(raw))
assert (softmax(raw).argmax(axis=-1) == np.arange(15)).all()
print(f"weight on itself: smallest {to_itself.min():.2f}, median {np.median(to_itself):.2f}, largest {to_itself.max():.2f}")

# %% mystnb={"image": {"alt": "Two signed 15 by 15 maps. Left, raw similarity: a strong diagonal, everything else weak; the dot for “it” is at “was”. Right, projected scores: no diagonal, a strong [CLS] column, many negative entries; the dots of the first “the”, of “it” and of [SEP] are at “animal”, that of “cross” at “street”, most others at [CLS]."}, "figure": {"caption": "Raw similarity (left) is symmetric, and finds the token itself. Projected scores (right) are not symmetric, and find other tokens. A dot marks each query's best key other than itself: for “it” that is “was” on the left and “animal” on the right.", "name": "fig-raw-and-projected"}}
plots.score_maps({"token vectors: x · x / √384": raw, "projected: q · k / √32": scores}, tokens, best=True)
plt.show()

# %% [markdown]
# So a query must not describe what the token *is*. It must describe what the token *looks for*, in the same language in which keys describe what
# can be found. That takes learned matrices. Does it take two?
#
# ## Why not one matrix for queries and keys?
#
# Try it on the trained head: use its queries as keys. Before you run the cell: is a token's score with itself always the largest in its row? And is
# it if the *keys* serve as both?

# %%
for name, both in (("queries as keys", q), ("keys as queries", k)):
    shared = both @ both.T / np.sqrt(32)
    assert np.allclose(shared, shared.T)  # what i scores j, j scores i
    best = shared.argmax(axis=-1)
    print(f"{name}: itself first in {(best == np.arange(15)).sum()} of 15 rows,",
          [f"{tokens[i]} -> {tokens[best[i]]}" for i in range(15) if best[i] != i],
          f" weight it -> animal {softmax(shared)[it, animal]:.4f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Nearly always, not always. But for $\sqrt{32}$ the score with itself is $q_i \cdot q_i = \lVert q_i \rVert^2$. Another token $j$ beats it only if its vector is **longer**,
# by enough to make up for the angle between the two. With the keys as queries that happens twice. With the queries as keys it does not happen. Either way *it* has lost *animal*. (How
# often it happens hangs on something arbitrary. You will see below.)
# :::
#
# Two limits come with sharing, whatever is learned, if the vectors go into the dot product as they are. Scores are symmetric. And no two tokens can both prefer the other to themselves: from
# $\lVert q_i - q_j \rVert^2 \ge 0$ follows $q_i \cdot q_j \le \tfrac12 (\lVert q_i \rVert^2 + \lVert q_j \rVert^2)$, and what is at most the mean of two numbers cannot be above both.
#
# Sharing is not absurd, if you then deal with the diagonal. Reformer {cite}`kitaev2020` sorts queries and keys into buckets and compares only
# within a bucket; it shares the two projections, so that a token's query and key fall into the same one. It scales every key to length 1, after which no other key can beat the token's own,
# and forbids a token to attend to itself unless it has nothing else to attend to. The paper reports no loss from this on its two data sets, one of text and one of images. What we did above is cruder: we
# took one of two matrices away from a head that was trained with both.
#
# Separate matrices let the head be asymmetric. Is ours? Split the scores into a part that is the same in both directions and a part that changes sign:

# %%
symmetric = (scores + scores.T) / 2
antisymmetric = (scores - scores.T) / 2
assert np.allclose(symmetric + antisymmetric, scores)
squared = (antisymmetric**2).sum()  # the two parts are orthogonal: squares add up
print(f"antisymmetric share of the squared scores: {squared / (scores**2).sum():.2f}")
of_cls = (antisymmetric[cls]**2).sum() + (antisymmetric[:, cls]**2).sum()
print(f"of this, in the row and the column of [CLS]: {of_cls / squared:.2f}")
assert (scores[:, cls] > 0).all() and (scores[cls, 1:] < 0).all()  # [CLS] is token 0

# %% mystnb={"image": {"alt": "Two signed 15 by 15 maps. Left, the symmetric part: strongest at [CLS] with itself, then between “animal” and “it”, “animal” and the first “the”, “cross” and “street”. Right, the antisymmetric part: the [CLS] column is strongly positive and the [CLS] row equally negative; elsewhere weaker entries of both signs."}, "figure": {"caption": "The scores, taken apart. Nearly half of what differs by direction (in squares) concerns one token: everyone scores [CLS] above zero, and [CLS] scores everyone but itself below.", "name": "fig-asymmetry"}}
plots.score_maps({"same both ways": symmetric, "changes sign": antisymmetric}, tokens)
plt.show()

# %%
the = 1  # the first "the", the one before "animal"
for i, j in ((animal, cls), (the, animal), (it, animal)):
    print(f"{tokens[i]:>6} -> {tokens[j]:6}  score {scores[i, j]:5.2f}, weight {weights[i, j]:.3f};"
          f"   back: score {scores[j, i]:5.2f}, weight {weights[j, i]:.3f}")

# %% [markdown]
# *Animal* scores [CLS] at 5.33; [CLS] scores *animal* at −1.28. No symmetric head can do that.
#
# Look at the second line, though. The scores between *the* and *animal* differ by 0.6 only, and the weights by a factor of nearly nine. Most of that is not the scores' doing. Each row is
# divided up for itself, and in the row of *animal* stands [CLS] with its 5.33. Weights are asymmetric in general **even if** scores are symmetric.
#
# ## One matrix decides
#
# Forget the biases for a moment. Write $x_i$ for row $i$ of `x`, $W_Q$ and $W_K$ for `w_q` and `w_k`, and $d = 32$ for the width of the head. The score $S_{ij}$ of query $i$ with key $j$ is then
#
# $$\sqrt d\, S_{ij} = (x_i W_Q)(x_j W_K)^\top = x_i\, \big(W_Q W_K^\top\big)\, x_j^\top$$
#
# Only the product $W_Q W_K^\top$ appears. It takes two token vectors and returns a number: a *bilinear form*. All scores of all
# sentences are in this one matrix, and the asymmetry too: scores are symmetric for every possible $x$ exactly if $W_Q W_K^\top$ is. What is its rank?

# %%
bilinear = w_q @ w_k.T                      # (dim, dim)
content = x @ bilinear @ x.T / np.sqrt(32)  # (seq_q, seq_k): scores without biases
assert np.allclose(content, (x @ w_q) @ (x @ w_k).T / np.sqrt(32))
print("shape", bilinear.shape, "  rank", np.linalg.matrix_rank(bilinear))
print("numbers: as one matrix", bilinear.size, "  as two factors", w_q.size + w_k.size)

# %% [markdown]
# The product of a 384 × 32 and a 32 × 384 matrix has rank at most 32. So the two projections are a cheap way to write one large matrix of
# low rank, a sixth of the numbers, and they leave only 32 numbers per token to be compared.
#
# ### What does the head look for?
#
# Move $W_K$ to the other side: $q_i \cdot k_j = q_i W_K^\top x_j^\top$ plus what $b_K$ adds. So $q_i W_K^\top$ is a vector of width 384, a
# *direction among token vectors*, and a score says how far a token vector goes in this direction. This is the query in a language we can compare with tokens:

# %%
wanted = q @ w_k.T  # (seq_q, dim): what each query looks for, as a token vector
cosine = x @ wanted[it] / np.linalg.norm(x, axis=-1) / np.linalg.norm(wanted[it])
for j in (animal, it, street):
    print(f"what “it” looks for, and the token vector of {tokens[j]:7} cosine {cosine[j]:.2f}")
assert cosine.argmax() == animal

# %% [markdown]
# What *it* looks for points most towards *animal*, and not particularly towards *it*. None of the cosines is large, and none can be:
# `wanted` is made of directions that $W_K$ reads, and only the part of $x_j$ in these directions counts.
#
# ### What does the head not see?
#
# How much of a token vector could you delete before any key changes? Take the 32-dimensional subspace that $W_K$ reads, keep that part of $x$, and compare.

# %%
basis, _ = np.linalg.qr(w_k)  # (dim, 32), orthonormal: the directions W_K reads
seen = x @ basis @ basis.T    # (seq, dim): the part inside
hidden = x - seen
assert np.allclose(seen @ w_k, x @ w_k)                # the keys do not notice
assert np.allclose((x + 100 * hidden) @ w_k, x @ w_k)  # nor this
print(f"share of the squared length that the keys see: {(seen**2).sum() / (x**2).sum():.3f}, by chance {32 / 384:.3f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# 89% of the squared length can go. The other 352 directions are invisible to this head's keys, whatever stands in them. Queries and values read 32-dimensional
# subspaces of their own. That is not waste. It leaves room for 12 heads to read 12 different things from the same vector.
# :::
#
# ### What do the biases do?
#
# With biases, the dot product has four terms:
#
# $$q_i \cdot k_j = \underbrace{x_i W_Q W_K^\top x_j^\top}_{\text{who meets whom}} + \underbrace{b_Q W_K^\top x_j^\top}_{\text{key } j \text{ alone}} + \underbrace{x_i W_Q\, b_K^\top + b_Q b_K^\top}_{\text{the same for every key}}$$
#
# One of the two biases can be deleted without changing a single weight. Which? (Softmax, you will see in chapter 4, forgets what is common to a whole row.)

# %%
per_key = b_q @ (x @ w_k).T / np.sqrt(32)  # (seq_k,): added to every row alike
without_b_k = content + per_key
without_b_q = content + (x @ w_q @ b_k)[:, None] / np.sqrt(32)

assert np.allclose(softmax(without_b_k), weights)
assert per_key[cls] > 0 and (per_key[1:] < 0).all()
print(f"without b_k: [CLS] gets {softmax(without_b_k)[:, cls].mean():.2f} of an average row, with it {weights[:, cls].mean():.2f}")
print(f"without b_q: [CLS] gets {softmax(without_b_q)[:, cls].mean():.2f}")
print("what b_q adds:", {tokens[j]: float(per_key[j].round(2)) for j in np.argsort(-per_key)[[0, 1, 2, -1]]})

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# $b_K$ can go. Its terms are the same for all keys of a row. $b_Q$ cannot: it gives every key an advantage or a handicap of its own, the same for all queries.
# In this head it is a question that every token asks besides its own, and only [CLS] answers to it: 0.94 for [CLS], less than zero for everyone else.
# :::
#
# If nothing depends on $b_K$, then its gradient is zero but for rounding, and training has no reason to move it. Look at 12 heads at once (of the first layer, the only one that our files hold whole):

# %%
layer = real_layer()
lengths_q, lengths_k = (np.linalg.norm(b.reshape(12, 32), axis=-1) for b in (layer.b_q, layer.b_k))
print(f"length of b_q: {lengths_q.min():.2f} to {lengths_q.max():.2f}")
print(f"length of b_k: {lengths_k.min():.4f} to {lengths_k.max():.4f}")
assert lengths_k.max() < lengths_q.min() / 100

# %% [markdown]
# Whisper's [attention layer](https://github.com/openai/whisper/blob/main/whisper/model.py) leaves $b_K$ out: query and value have a bias, the key has none.
#
# ## What is a coordinate of a query worth?
#
# You have 32 numbers for *it*. Does the seventh mean something? Take any invertible 32 × 32 matrix $R$ and change both projections:
#
# $$W_Q \to W_Q R, \qquad W_K \to W_K R^{-\top}, \qquad\text{so that}\qquad W_Q R\, (W_K R^{-\top})^\top = W_Q R R^{-1} W_K^\top = W_Q W_K^\top$$
#
# ($R^{-\top}$ is the inverse, transposed. The biases go along.) Every query and every key is now another vector. What happens to the scores?

# %%
rng = np.random.default_rng(0)
R = rng.normal(size=(32, 32))  # any invertible matrix will do
inverse_t = np.linalg.inv(R).T

q_new = x @ (w_q @ R) + b_q @ R
k_new = x @ (w_k @ inverse_t) + b_k @ inverse_t
scores_new = q_new @ k_new.T / np.sqrt(32)
assert np.allclose(scores_new, scores)  # not one score has moved

# %% mystnb={"image": {"alt": "Three panels. Top: 32 bars, the coordinates of the query “it” as trained, between about minus 3 and 4. Middle: 32 bars of another size and pattern, between about minus 14 and 12, the same query in another basis. Bottom: the scores over the 15 keys, circles for the one basis and crosses for the other, each cross inside its circle."}, "figure": {"caption": "Two heads with different queries and different keys, and the same scores. Nothing in the head's behaviour can tell you which one you have.", "name": "fig-same-scores"}}
plots.same_scores({"as trained": q[it], "in another basis": q_new[it]},
                  {"as trained": scores[it], "in another basis": scores_new[it]}, tokens)
plt.show()

# %% [markdown]
# Physicists call such a freedom a *gauge*. It says what is real about a head: whatever $R$ cannot change. Now test a habit. It is tempting to ask how similar the query
# and the key of one token are, or whether its query is a long one, or two queries alike:

# %%
def cosine_of(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


for name, one, other in (("as trained", q, k), ("other basis", q_new, k_new)):
    print(f"{name:12} length of q(it) {np.linalg.norm(one[it]):5.2f},  cosine of q(it) and k(it) {cosine_of(one[it], other[it]):.3f},"
          f"  of q(it) and q(the) {cosine_of(one[it], one[the]):.3f}")
    print(f"{'':12} keys as queries: itself first in {((other @ other.T).argmax(axis=-1) == np.arange(15)).sum()} of 15 rows")

# %% [markdown]
# Four numbers, all changed, and one and the same head. Lengths of queries, cosines between a query and a key or between two queries, a single coordinate: none belongs to the head. Nor does what
# we found with one matrix for both: the 13 rows of 15 were an accident of the basis. (The two limits of sharing hold in every basis.) Dot products of queries with keys do belong to the head, up to the constant per query that $b_K$ adds and softmax
# forgets, and so do the vectors `wanted` and the product $W_Q W_K^\top$. So {numref}`fig-three-roles` shows *that* the three roles differ, and you should read nothing into the
# pattern of a row.
#
# {cite:t}`elhage2021` look at heads in this way: queries, keys and values are by-products, and two products remain,
# $W_Q W_K^\top$, which decides *where* to look, and $W_V W_O$, which decides *what* is carried over. They call them
# the QK and the OV circuit. The matrix $W_O$ comes in chapter 6; it turns a head's 32 numbers into 384 again.
#
# ## Why a third matrix?
#
# A key is what a token is found by. That need not be what it has to say. In the dictionary nobody would hand over the word *lemon*; you want its price. In the first
# attention for neural translation {cite}`bahdanau2014` the vectors that were found were themselves handed over, unprojected. Let us hand over the token vectors, and compare with the values:

# %%
mixed = weights @ x                         # (seq_q, dim): no W_V at all
assert np.allclose(mixed @ w_v + b_v, out)  # projecting afterwards is the same

# %% [markdown]
# Mixing and projecting commute: both are linear, and because the weights of a row **sum to 1** the bias comes through whole. So $W_V$ may as well
# come after the mixing: out of a mixture of whole token vectors it selects the 32 directions that this head carries on. And $b_V$ is added to every result alike, whatever
# the sentence: it could be moved into the bias after $W_O$. Of the three biases only $b_Q$ changes what the head does with a sentence.
#
# ### Who contributed to the result?
#
# The output of *it* is a sum of 15 vectors, weight times value. Keep them apart. [CLS] has the second-largest weight of the row, 0.124. Will it also be the second-largest
# contribution?

# %%
parts = weights[..., None] * v  # (seq_q, seq_k, dim_head)
assert np.allclose(parts.sum(axis=1), out)
sizes = np.linalg.norm(parts[it], axis=-1)  # (seq_k,)
for j in np.argsort(-weights[it])[:4]:
    print(f"{tokens[j]:7} weight {weights[it, j]:.3f}   length of its value {np.linalg.norm(v[j]):.2f}   contribution {sizes[j]:.3f}")
print("[CLS] is contribution number", 1 + (sizes > sizes[cls]).sum(),
      f"  cosine of the result and v(animal): {cosine_of(out[it], v[animal]):.3f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It comes eighth, and nearly all of the result is *animal*. The value of [CLS] has a length of 0.20, that of *animal* 4.28. This is the blank row of {numref}`fig-three-roles`.
# :::
#
# A weight is only one of two factors of what a token contributes; the other is the length of its value. {cite:t}`kobayashi2020` made this point (with values after $W_O$), and found that BERT's attention
# to special tokens such as [CLS] and [SEP] shrinks when both factors count. Does that hold here too? Take the whole head, and a second head of the same layer, in which nearly everybody looks at [CLS]:

# %%
sink = real_head("sink")
v_sink = sink.x @ sink.w_v + sink.b_v
sizes_sink = np.linalg.norm(sink.weights[..., None] * v_sink, axis=-1)  # (seq_q, seq_k)
for name, shown, lengths in (("pronoun", weights, np.linalg.norm(parts, axis=-1)), ("sink", sink.weights, sizes_sink)):
    by_length = lengths / lengths.sum(axis=-1, keepdims=True)
    print(f"{name:8} [CLS] gets {shown[:, cls].mean():.2f} of the weight and {by_length[:, cls].mean():.2f} of the lengths")
assert sizes_sink[it].argmax() == cls  # the longest contribution even so
print(f"length of the result of it: {np.linalg.norm(out[it]):.2f} and {np.linalg.norm(sink.weights[it] @ v_sink):.2f}")

# %% mystnb={"image": {"alt": "Bar charts for the query “it” in two heads. Weights, top: in the pronoun head “animal” has 0.64 and [CLS] 0.12; in the sink head [CLS] has 0.81 and every other token under 0.03. Lengths of weight times value, below on one scale: in the pronoun head “animal” reaches 2.7 and [CLS] is barely visible; in the sink head every bar is below 0.11, [CLS] included."}, "figure": {"caption": "What gets weight, and what is handed over. In the sink head [CLS] takes four fifths of the weight of “it”, and the whole head then says next to nothing.", "name": "fig-contributions"}}
plots.contributions({"pronoun head": weights[it], "sink head": sink.weights[it]},
                    {"pronoun head": sizes, "sink head": sizes_sink[it]}, tokens)
plt.show()

# %% [markdown]
# It does: on average [CLS] has 0.54 of the weight but 0.15 of the lengths in the one head, 0.81 but 0.19 in the other.
#
# The rows of weights must sum to 1, so a head cannot decline to look. It can look at a token that hands over almost nothing. A key that draws such weight whoever asks is called an {term}`attention sink`, and the weight
# is no sign that its content matters {cite}`xiao2023`. {cite:t}`clark2019`, who saw many heads of BERT look at [SEP], suggested reading it as such a *no-op*.
#
# How does the head keep the value of [CLS] so small, when its key draws more than half of all attention? Look at its token vector in {numref}`fig-three-roles`: blank, but for one dark square.

# %%
squares = x[cls]**2 / (x[cls]**2).sum()
spot = squares.argmax()
print(f"coordinate {spot} holds {squares[spot]:.1%} of the squared length of x[CLS]")
for name, w in (("W_Q", w_q), ("W_K", w_k), ("W_V", w_v)):
    directions, _ = np.linalg.qr(w)         # (dim, 32): the subspace that w reads, as above
    visible = (directions**2).sum(axis=-1)  # (dim,): share of each coordinate that lies in it
    print(f"{name} sees {visible[spot]:.2%} of it, of a coordinate on average {visible.mean():.2%}")
assert visible.argmin() == spot  # of all 384, the one that W_V sees least

# %% [markdown]
# [CLS] lives in one coordinate. $W_Q$ and $W_K$ see it a little better than the average one, and of all 384 coordinates it is the one that $W_V$ sees least. So this token can be found and has
# next to nothing to say. With one matrix for keys and values, what a token is found by would be handed over too, and $W_O$ would have to get rid of it again. (Coordinates of *token vectors* are not free, as those of queries are: all heads and the normalisation before them share
# one basis.)
#
# One caution, in the spirit of the last section. Values have a gauge of their own, $W_V \to W_V R$ and $W_O \to R^{-1} W_O$, so the length of a value is not strictly a property of the head either. What is:
# the length after $W_O$, which is what the paper measures. Our file has $W_O$ for the first layer only. There the head *same word* also has a small [CLS] value; does it survive?

# %%
start = 32 * real_head("same_word").head
columns = slice(start, start + 32)  # the head's own columns of the whole layer's matrices
v_same = layer.x @ layer.w_v[:, columns] + layer.b_v[columns]
carried = v_same @ layer.w_o[columns]  # (seq, dim): what each token would add
for name, rows in (("before W_O", v_same), ("after W_O", carried)):
    sizes_same = np.linalg.norm(rows, axis=-1)
    print(f"{name:11} [CLS] {sizes_same[cls]:.2f}, median {np.median(sizes_same):.2f}")

# %% [markdown]
# ## Three mistakes that no shape betrays
#
# Queries, keys and values have the same shape, so whoever swaps them gets no error. Here are two of the mistakes. Which of them would a test of shapes or of row sums catch?

# %%
swapped = softmax(k @ q.T / np.sqrt(32))  # roles exchanged
for_keys = weights @ k                    # handed over: the keys
assert swapped.shape == weights.shape and np.allclose(swapped.sum(axis=-1), 1)
assert for_keys.shape == out.shape
print(f"swapped roles: largest error in a weight {np.abs(swapped - weights).max():.2f};",
      "it ->", tokens[swapped[it].argmax()], f"{swapped[it, animal]:.2f}")
print(f"keys handed over: cosine with the right result {cosine_of(for_keys[it], out[it]):.2f}")

# %% [markdown]
# Neither. The swapped head even sends *it* to *animal*, so a look at the favourite row will not find the mistake either: that score is high in both directions (2.37 back, as you saw above). Comparing **all** numbers with a
# model you trust finds it at once.
#
# The third is about storage. This book writes $xW$, with a matrix of shape (in, out). `torch.nn.Linear` stores (out, in) and computes $xW^\top$. For one head, 384 × 32, a forgotten
# transpose is an error. A layer's full matrix is square:

# %%
right = layer.x @ layer.w_q
wrong = layer.x @ layer.w_q.T
assert right.shape == wrong.shape  # 384 x 384 either way
print(f"relative error {np.linalg.norm(wrong - right) / np.linalg.norm(right):.2f}")

try:
    x @ w_q.T
except ValueError as error:
    print("one head:", str(error).split(":")[0], "raises ValueError")

# %% [markdown]
# ## Swap one argument: cross-attention
#
# Nothing so far required that queries and keys come from the same sequence. Give the queries one source and the keys and values another:

# %%
def look(source, context):
    queries = source @ w_q + b_q                              # (seq_q, dim_head)
    found, handed = context @ w_k + b_k, context @ w_v + b_v  # (seq_k, dim_head): always the same tokens
    shares = softmax(queries @ found.T / np.sqrt(32))         # (seq_q, seq_k)
    return shares @ handed, shares


out_again, weights_again = look(x, x)
assert np.allclose(out_again, out) and np.allclose(weights_again, weights)

# %% [markdown]
# `look(x, x)` is {term}`self-attention` {cite}`cheng2016`. `look(x, context)` is {term}`cross-attention`: in the translation model of {cite:t}`vaswani2017` the unfinished
# translation asks and the source sentence answers. The only difference is where keys and values come from. The two must come from the **same** tokens, one value for each key; the number of
# queries is free. Which shapes do you expect when the last 6 tokens ask the first 9?

# %%
part_out, part_weights = look(x[9:], x[:9])
print("out", part_out.shape, "  weights", part_weights.shape)
print(f"it -> animal {part_weights[1, animal]:.2f} among 9 keys, {weights[it, animal]:.2f} among 15")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# `out` has one row per **query**, `weights` one row per query and one column per **key**: (6, 32) and (6, 9). *Animal* gets more than before because the keys that are
# missing held some of the weight.
# :::
#
# That one argument can be swapped also makes a good experiment. In *... because it was too **wide***, *it* means the street. The tokens are the same but for one, so we can let
# the *it* of each sentence question the tokens of either.
#
# Two questions before you run it. Does the head find the street when the sentence says *wide*? And if the row changes: is it because *it* **asks** something else, or because the
# other tokens **offer** something else?

# %%
wide = real_head("pronoun", "wide").x.astype(np.float64)
sources = {"tired": x, "wide": wide}
rows = {f"{asks} asks {answers}": look(sources[asks], sources[answers])[1][it] for asks in sources for answers in sources}
for name, row in rows.items():
    print(f"{name:17} animal {row[animal]:.2f}   street {row[street]:.2f}   [CLS] {row[cls]:.2f}")

# %% mystnb={"image": {"alt": "Four rows of weights of the query “it” over the 15 tokens. Where the “it” of the tired sentence asks, animal gets 0.64 and 0.68. Where the “it” of the wide sentence asks, [CLS] gets 0.39 and 0.36, animal 0.25 and 0.27, street 0.12 and 0.13. Which sentence answers makes little difference."}, "figure": {"caption": "The row follows whoever asks. Given the other sentence's keys, “it” finds what it found before: the ending has changed its question, hardly the answers.", "name": "fig-who-asks"}}
plots.rows_of_weights(rows, [*tokens[:13], "tired/wide", tokens[14]])
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The head does not find the street. *Animal* falls to 0.27 and *street* rises to 0.13, less than half of that; the largest share goes to [CLS], which hands over next to nothing. The head becomes unsure and does not
# change its mind. And it is the **question** that changed: the upper two rows are alike, and so are the lower two. Three layers earlier *it* was the same word in both sentences; what it has since read there is in its query.
# :::
#
# This head was trained for self-attention, and the two sentences come from one model, so their vectors speak the same language. A real cross-attention learns projections of its own for its two sources.
#
# ## What to remember
#
# | | says | what is real about it |
# |---|---|---|
# | query $q_i = x_i W_Q + b_Q$ | what token $i$ looks for | its dot products with keys, up to a constant; `wanted` $= q_i W_K^\top$ |
# | key $k_j = x_j W_K + b_K$ | what token $j$ is found by | its dot products with queries |
# | value $v_j = x_j W_V + b_V$ | what it hands over | what $W_O$ makes of it |
# | $W_Q W_K^\top$ | where to look | all of it: rank at most $d$, in general not symmetric |
# | $b_Q$ | a question that every token asks | its effect on each key |
# | $b_K$ | nothing | no weight depends on it (until chapter 7) |
# | $b_V$ | the same in every result | could be moved behind $W_O$ |
# | weight | a share of the row | times the value, for what it contributes |
# | source of $K$ and $V$ | self- or cross-attention | nothing else differs |
#
# **In practice.** All heads' projections are one matrix product, often one for $Q$, $K$ and $V$ together. The formulas of {cite:t}`vaswani2017` have no biases; BERT, and with it MiniLM, has all three. That only products count can be used for speed: DeepSeek-V2 {cite}`deepseek2024` keeps one short vector per token and layer in
# its {term}`KV cache`, plus a small rotated key that all heads share. The rest of a key would be that vector times one more matrix. As with $W_K$ above, this matrix can move to the query's side, so that at inference the rest of the keys need not be computed.
#
# **Shortcuts taken here.** One head, one sentence, no batch. The contributions in {numref}`fig-contributions` are lengths before $W_O$. And the freedom of $R$ is that of plain dot products. Rotary positions (chapter 7) and norms on queries and keys {cite}`henry2020`
# come between projection and dot product, and leave only those $R$ that commute with them. Rotary positions also make $b_K$ matter, because they turn it differently for each key. Training does notice the basis: Adam treats every entry by itself, and weight decay penalises lengths that $R$ changes. What the head computes does not.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Take queries, keys and values of a pretrained head out of its three matrices, and arrive at the model's own weights.
# - Split the dot product of a query and a key with biases into four terms, and say which bias no weight depends on.
# - Test with any invertible matrix whether something read off a head (a coordinate, a length, a cosine) belongs to the
#   head or to its basis.
# - Say which two limits one matrix for both queries and keys brings with it, and why weights can be asymmetric even
#   where scores are symmetric.
# - Rank the tokens by what they contribute to a result, not by their weights, and recognise a sink.
# - Turn self-attention into cross-attention by one argument, and write down the shapes of result and weights first.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:soft_dict", "ex-prompt"]
# ```{exercise} A dictionary with vectors for keys
# :label: ex-soft-dict
# Write `soft_dict(query, keys, values, temperature)`: softmax of fits divided by `temperature`, then the mean of the values under these
# shares. Each row of `keys` (entries, dim) is a key, and `values` holds one number (or row) for each. It has to behave like a dictionary
# when cold: if the query **equals** one of the keys (any distinct vectors, of any lengths) and the temperature tends to 0, it returns that
# key's value. As the temperature grows, it tends to the mean of all values. It should take one query (dim,) or a matrix of them, one per row.
# The plain dot product fails: ask for a key $(1, 0)$ when there is also a key $(2, 0)$. So let the fit of a query $q$ and a key $k$ be
# $-\tfrac12\lVert q - k\rVert^2$, which is largest for the *nearest* key. Hint: expand it. `softmax` (over the last axis) is given.
# ```


# %% tags=["ex:soft_dict", "ex-stub"]
def soft_dict(query, keys, values, temperature):
    raise NotImplementedError("replace this line")

# %% tags=["ex:soft_dict", "ex-check"]
check(soft_dict)

# %% tags=["ex:soft_dict", "ex-solution", "hide-cell"]
def soft_dict(query, keys, values, temperature):
    # -|q - k|²/2, but for |q|²/2, which is the same for all keys
    fits = query @ keys.T - (keys**2).sum(axis=-1) / 2
    return softmax(fits / temperature) @ values


require(soft_dict)

# %% [markdown] tags=["ex:next_in_ring", "ex-prompt"]
# ```{exercise} Two matrices for “look at the next token”
# :label: ex-next-in-ring
# Token vectors that hold nothing but a position: token $i$ is row $i$ of the identity, `x = np.eye(n)`. Write `next_in_ring(n)`, which
# returns `w_q, w_k`, two matrices of one shape with `n` rows, such that in `softmax(x @ w_q @ (x @ w_k).T / np.sqrt(d))`, softmax over each
# row and $d$ being the common width of `w_q` and `w_k`, every token $i$ gives the **next** one, $i + 1$, a weight of more than 0.99; after
# the last comes the first. It should work for any $n$ from 2 to 100. Then show on paper that no `w_q = w_k` can do it.
# ```


# %% tags=["ex:next_in_ring", "ex-stub"]
def next_in_ring(n):
    raise NotImplementedError("replace this line")

# %% tags=["ex:next_in_ring", "ex-check"]
check(next_in_ring)

# %% tags=["ex:next_in_ring", "ex-solution", "hide-cell"]
def next_in_ring(n):
    # On paper: with w_q = w_k, take the token whose query q is longest. Its
    # dot product with any other is at most |q| times the other's length, so
    # at most |q|², the one with itself. No other token can get more than
    # half of its row, let alone 0.99.
    ask = np.roll(np.eye(n), 1, axis=1)      # row i asks for position i + 1
    # a score of 10 against 0, whatever n: e^10 is over 22,000
    return 10 * np.sqrt(n) * ask, np.eye(n)


require(next_in_ring)

# %% [markdown] tags=["ex:sorted_basis", "ex-prompt"]
# ```{exercise} A basis in which coordinates do have an order
# :label: ex-sorted-basis
# Scores depend on $W_Q$ and $W_K$ only through the product $W_Q W_K^\top$. So the basis is free: choose a good one. Write
# `sorted_basis(w_q, w_k)`, both of shape (dim, dim_head) with dim_head ≤ dim, which returns two matrices of the same shapes with the same
# product $W_Q W_K^\top$, such that in both the columns are orthogonal to each other, the $m$-th column is as long in the one as in the
# other, and lengths fall from left to right. Then coordinate 0 is the direction in which this head compares most strongly. Hint: singular
# value decomposition (`np.linalg.svd`) of the product, and share each singular value fairly.
# ```


# %% tags=["ex:sorted_basis", "ex-stub"]
def sorted_basis(w_q, w_k):
    raise NotImplementedError("replace this line")

# %% tags=["ex:sorted_basis", "ex-check"]
check(sorted_basis)

# %% tags=["ex:sorted_basis", "ex-solution", "hide-cell"]
def sorted_basis(w_q, w_k):
    d = w_q.shape[1]
    # strengths fall; all but d of them are zero
    left, strengths, right = np.linalg.svd(w_q @ w_k.T)
    root = np.sqrt(strengths[:d])
    return left[:, :d] * root, right[:d].T * root


require(sorted_basis)
a, _ = sorted_basis(w_q, w_k)  # of the pronoun head
print("strengths of coordinates 0, 1, 15, 31:", np.diag(a.T @ a)[[0, 1, 15, 31]])

# %% [markdown] tags=["ex:shares_of_out", "ex-prompt"]
# ```{exercise} Who made this result?
# :label: ex-shares-of-out
# The result of query $i$ is a sum of contributions, weight $p_{ij}$ times value $v_j$. Lengths of contributions ignore that contributions
# can point against each other. Write `shares_of_out(weights, v)`, from weights (seq_q, seq_k) and values (seq_k, dim_v), of shape
# (seq_q, seq_k): how far contribution $j$ goes **in the direction of** query $i$'s result, as a share of that result's length, so that
# every row sums to 1. Shares can be negative. No result is the zero vector. (All before $W_O$: a value's length is not strictly a
# property of the head.) **Predict** first: if a token contributes the longest vector of all to a result, is its share large?
# ```


# %% tags=["ex:shares_of_out", "ex-stub"]
def shares_of_out(weights, v):
    raise NotImplementedError("replace this line")

# %% tags=["ex:shares_of_out", "ex-check"]
check(shares_of_out)

# %% tags=["ex:shares_of_out", "ex-solution", "hide-cell"]
def shares_of_out(weights, v):
    # The longest contribution may stand nearly at right angles to the sum
    # of all; its share is then near 0.
    result = weights @ v              # (seq_q, dim_v)
    along = weights * (result @ v.T)  # (seq_q, seq_k): contribution j · result i
    return along / (result**2).sum(axis=-1, keepdims=True)


require(shares_of_out)
# In the sink head [CLS] contributes the longest vector to “it”, nearly at right angles to the result.
print(f"it: animal in the pronoun head {shares_of_out(weights, v)[it, animal]:.2f},",
      f"[CLS] in the sink head {shares_of_out(sink.weights, v_sink)[it, cls]:.2f}")

# %% [markdown] tags=["ex:explore_symmetry", "ex-prompt", "ex-open"]
# ```{exercise} Explore: jobs and symmetry
# :label: ex-explore-symmetry
# `real_head("previous")` looks one token to the left, `real_head("same_word")` looks at equal words. **Predict** for which of the two the antisymmetric share of the scores is smaller, and why; then measure it. Next, look at
# `bilinear` of both heads instead of their scores on this sentence. Does the order stay the same? What does that tell you about judging a head by one sentence?
# ```

# %% [markdown]
# **Sources.** Query, key, value: {cite:t}`vaswani2017`; found and handed over in one: {cite:t}`bahdanau2014`; attention inside one sequence: {cite:t}`cheng2016`. Shared queries and keys: {cite:t}`kitaev2020`. Weight times value:
# {cite:t}`kobayashi2020`; looking at separators: {cite:t}`clark2019`. The two circuits: {cite:t}`elhage2021`, and at work in {cite:t}`olsson2022`.
