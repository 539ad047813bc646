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
# A chapter in miniature that breaks no rule {cite}`vaswani2017`. The tests break one rule at a time in a copy.

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

# %% [markdown] tags=["ex:one", "ex-prompt"]
# ```{exercise} One
# :label: ex-one
# Write `one(x)`.
# ```


# %% tags=["ex:one", "ex-stub"]
def one(x):
    raise NotImplementedError("replace this line")


# %% tags=["ex:one", "ex-solution", "hide-cell"]
def one(x):
    return x + 1


# %% tags=["ex:one", "ex-check"]
assert one(1) == 2

# %% [markdown] tags=["ex:two", "ex-prompt"]
# ```{exercise} Two
# :label: ex-two
# Write `two(x)`.
# ```


# %% tags=["ex:two", "ex-stub"]
def two(x):
    raise NotImplementedError("replace this line")


# %% tags=["ex:two", "ex-solution", "hide-cell"]
def two(x):
    return x + 2


# %% tags=["ex:two", "ex-check"]
assert two(1) == 3

# %% [markdown] tags=["ex:three", "ex-prompt"]
# ```{exercise} Three
# :label: ex-three
# Write `three(x)`.
# ```


# %% tags=["ex:three", "ex-stub"]
def three(x):
    raise NotImplementedError("replace this line")


# %% tags=["ex:three", "ex-solution", "hide-cell"]
def three(x):
    return x + 3


# %% tags=["ex:three", "ex-check"]
assert three(1) == 4
