"""Exercise: the gradient of values that several query heads share."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "A key head has several customers"
CHAPTER = "22_triton_backward"
POINTS = 4
RETURNS = ("d_v",)
PROMPT = r"""
In grouped-query attention query head h reads the keys and values of head h // group, group = heads // kv_heads. Write
`shared_value_gradient(weights, d_out, kv_heads)`: the gradient with respect to the values, (..., kv_heads, seq_k, dim_v), from the weights
(..., heads, seq_q, seq_k) and the gradient of the results (..., heads, seq_q, dim_v). `kv_heads` divides `heads`; there may be any leading
axes.
"""


def shared_value_gradient(weights, d_out, kv_heads):
    # BEGIN SOLUTION
    each = weights.swapaxes(-1, -2) @ d_out  # (..., heads, seq_k, dim_v)
    *lead, heads, seq_k, dim_v = each.shape
    grouped = each.reshape(*lead, kv_heads, heads // kv_heads, seq_k, dim_v)
    return grouped.sum(axis=-3)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch seq_q seq_k dim_v", 5, 11)

    def inputs(heads, *lead, seq_k=s.seq_k):
        powers = np.exp(rng.normal(size=(*lead, heads, s.seq_q, seq_k)) * 1.5)
        return powers / powers.sum(-1, keepdims=True), rng.normal(size=(*lead, heads, s.seq_q, s.dim_v))

    yield case("a key head for each query head", *inputs(3), 3, dims=s)
    yield case("groups of three", *inputs(6), 2, dims=s)
    yield case("groups of two", *inputs(6), 3, dims=s)
    yield case("one key head for all", *inputs(4), 1, dims=s)
    yield case("leading axes", *inputs(4, s.batch), 2, dims=s)
    yield case("one key", *inputs(4, seq_k=1), 2, dims=s)


def _each(weights, d_out):
    return weights.swapaxes(-1, -2) @ d_out


@wrong("You take the mean over the heads of a group. A value is read by each of them, and the effects on the loss add up.")
def mean_of_group(weights, d_out, kv_heads):
    each = _each(weights, d_out)
    return each.reshape(*each.shape[:-3], kv_heads, -1, *each.shape[-2:]).mean(axis=-3)


@wrong("Your groups are heads h, h + kv_heads, h + 2 kv_heads, ...: right for h % kv_heads. Here neighbouring heads share, h // group.")
def heads_interleaved(weights, d_out, kv_heads):
    each = _each(weights, d_out)
    return each.reshape(*each.shape[:-3], -1, kv_heads, *each.shape[-2:]).sum(axis=-4)


@wrong("Only the first query head of each group enters your gradient.")
def first_of_group(weights, d_out, kv_heads):
    each = _each(weights, d_out)
    return each[..., :: each.shape[-3] // kv_heads, :, :].copy()


@wrong("Only the first kv_heads query heads enter your gradient.")
def first_heads(weights, d_out, kv_heads):
    return _each(weights, d_out)[..., :kv_heads, :, :].copy()


@wrong("The weights are averaged over the group before the product, and the gradients too: a product of sums is not the sum of products.")
def sums_before_product(weights, d_out, kv_heads):
    w = weights.reshape(*weights.shape[:-3], kv_heads, -1, *weights.shape[-2:]).sum(axis=-3)
    g = d_out.reshape(*d_out.shape[:-3], kv_heads, -1, *d_out.shape[-2:]).sum(axis=-3)
    return w.swapaxes(-1, -2) @ g


@wrong("You sum over all heads and give every key head the same gradient.")
def sum_of_all_heads(weights, d_out, kv_heads):
    total = _each(weights, d_out).sum(axis=-3, keepdims=True)
    return np.repeat(total, kv_heads, axis=-3)


@wrong("Groups are looked for in the first axis: right without leading axes.")
def groups_in_first_axis(weights, d_out, kv_heads):
    each = _each(weights, d_out)
    if each.ndim == 3:
        return each.reshape(kv_heads, -1, *each.shape[1:]).sum(axis=1)
    lead, heads = each.shape[0], each.shape[-3]
    mixed = each.reshape(-1, *each.shape[-2:]).reshape(heads // kv_heads, -1, *each.shape[-2:]).sum(axis=0)
    return mixed.reshape(lead, -1, *each.shape[-2:])


@observe
def one_of_the_group(case, got, want):
    weights, d_out, kv_heads = case.args
    each, group = _each(weights, d_out), weights.shape[-3] // kv_heads
    for h in range(each.shape[-3]):
        if group > 1 and np.allclose(got[..., 0, :, :], each[..., h, :, :]):
            return f"Your first key head has the gradient of query head {h} alone; {group} query heads read it."


@observe
def wrong_partners(case, got, want):
    weights, d_out, kv_heads = case.args
    each, heads = _each(weights, d_out), weights.shape[-3]
    for a in range(heads):
        for b in range(a + 1, heads):
            if heads // kv_heads == 2 and (a, b) != (0, 1) and np.allclose(got[..., 0, :, :], each[..., a, :, :] + each[..., b, :, :]):
                return f"Your first key head sums query heads {a} and {b}; heads 0 and 1 read it."


@observe
def all_the_same(case, got, want):
    if got.shape[-3] > 1 and np.allclose(got, got[..., :1, :, :]):
        return "All key heads have the same gradient in your result."
