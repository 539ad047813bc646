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
# # What does this sample show?
#
# A chapter in miniature that breaks no rule {cite}`vaswani2017`. The tests break one rule at a time in a copy. **Time** about 5 minutes.

# %%
import numpy as np

from attnlib import reference

rng = np.random.default_rng(0)
scores = np.array([2.0, 1.0, 0.0])


# %%
def softmax(scores):
    """The chapter's own docstring may differ."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


print(softmax(scores).round(3))

# %% [markdown]
# From here on this is `attnlib.reference.softmax`.
#
# :::{dropdown} First prediction
# One.
# :::
#
# :::{dropdown} Second prediction
# Two.
# :::
#
# :::{dropdown} Third prediction
# Three.
# :::

# %% tags=["nbval-ignore-output"]
assert np.allclose(softmax(scores), reference.softmax(scores))
print(len(scores))

# %% mystnb={"image": {"alt": "Three bars, each lower than the one before it."}, "figure": {"caption": "A larger score never gets a smaller share.", "name": "fig-sample"}}
import matplotlib.pyplot as plt

plt.figure(figsize=(1, 1))
plt.bar([1, 2, 3], softmax(scores))
plt.show()

# %% tags=["torch-check"]
import torch

assert torch.is_tensor(torch.zeros(1))

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Break one rule.
# - Name the guard that
#   catches it.
# - Mend it.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:stable_softmax", "ex-prompt"]
# ```{exercise} Softmax that survives
# :label: ex-stable-softmax
# Write `stable_softmax(scores)`: softmax over the last axis, on any leading axes. Scores of 10,000 must not overflow, scores may be
# $-\infty$, and a row in which **every** score is $-\infty$ gives zeros, not NaN and not a uniform row. Do not change `scores`.
# ```

# %% tags=["ex:stable_softmax", "ex-stub"]
def stable_softmax(scores):
    raise NotImplementedError("replace this line")

# %% tags=["ex:stable_softmax", "ex-check"]
check(stable_softmax)

# %% tags=["ex:stable_softmax", "ex-solution", "hide-cell"]
def stable_softmax(scores):
    row_max = scores.max(axis=-1, keepdims=True)
    row_max = np.where(np.isneginf(row_max), 0, row_max)  # an empty row: any finite number will do
    powers = np.exp(scores - row_max)
    row_sum = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(row_sum == 0, 1, row_sum)


require(stable_softmax)

# %% [markdown] tags=["ex:causal_mask", "ex-prompt"]
# ```{exercise} No looking ahead
# :label: ex-causal-mask
# Write `causal_mask(seq_q, seq_k)`, which returns a boolean array (seq_q, seq_k), `True` where a query may attend to a key: to its own
# position and to all before it. The queries are the **last** positions of the sequence, as when a model decodes with a cache: the last
# query stands at the last key, whatever the two numbers are. Where there are more queries than keys, the first of them stand before every
# key and see nothing. Both numbers are at least 1.
# ```

# %% tags=["ex:causal_mask", "ex-stub"]
def causal_mask(seq_q, seq_k):
    raise NotImplementedError("replace this line")

# %% tags=["ex:causal_mask", "ex-check"]
check(causal_mask)

# %% tags=["ex:causal_mask", "ex-solution", "hide-cell"]
def causal_mask(seq_q, seq_k):
    q_idx = np.arange(seq_k - seq_q, seq_k)[:, None]  # (seq_q, 1)
    k_idx = np.arange(seq_k)                          # (seq_k,)
    return k_idx <= q_idx                             # (seq_q, seq_k)


require(causal_mask)

# %% [markdown] tags=["ex:padding_mask", "ex-prompt"]
# ```{exercise} Nobody looks at padding
# :label: ex-padding-mask
# A batch holds sequences of unequal length, filled up **at the end** to seq_k tokens. Write `padding_mask(lengths, seq_k)`: `lengths` (batch,)
# are whole numbers from 0 to seq_k, how many tokens of each sequence are real. Return a boolean array (batch, 1, 1, seq_k), `True` where a key
# is real and may be attended to. The two axes of length 1 let it broadcast to scores (batch, heads, seq_q, seq_k): padding **keys** are
# hidden from every head and every query; padding queries are left alone.
# ```

# %% tags=["ex:padding_mask", "ex-stub"]
def padding_mask(lengths, seq_k):
    raise NotImplementedError("replace this line")

# %% tags=["ex:padding_mask", "ex-check"]
check(padding_mask)

# %% tags=["ex:padding_mask", "ex-solution", "hide-cell"]
def padding_mask(lengths, seq_k):
    real = np.arange(seq_k) < lengths[:, None]  # (batch, seq_k)
    return real[:, None, None, :]               # (batch, 1, 1, seq_k)


require(padding_mask)
