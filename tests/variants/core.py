"""The first rooms' variants: the reference's functions and the torch layers.

Multi-head layers are seen as variants through identity projections, which hand each head its own q, k, v.
"""

import functools

import numpy as np
import torch

from attnlib import layers, reference
from tests.contracts import numpy_variant, torch_variant, untouched


def side_by_side(x):
    """(batch, heads, seq, width) -> (batch, seq, heads·width), NumPy or torch."""
    cat = torch.cat if isinstance(x, torch.Tensor) else np.concatenate
    return cat([x[:, h] for h in range(x.shape[1])], -1)


def apart(x, heads):
    """The inverse of `side_by_side`."""
    stack, width = torch.stack if isinstance(x, torch.Tensor) else np.stack, x.shape[-1] // heads
    return stack([x[..., h * width : (h + 1) * width] for h in range(heads)], 1)


def reference_layer(q, k, v, mask):
    (_, heads, _, dim_head), (_, kv_heads, _, dim_v) = q.shape, v.shape
    dim = max(heads * dim_head, kv_heads * (dim_head + dim_v), heads * dim_v)

    def pad(x):
        return np.concatenate([x, np.zeros((*x.shape[:-1], dim - x.shape[-1]), x.dtype)], -1)

    x, context = pad(side_by_side(q)), pad(np.concatenate([side_by_side(k), side_by_side(v)], -1))
    w_q, w_k = np.eye(dim, heads * dim_head, dtype=q.dtype), np.eye(dim, kv_heads * dim_head, dtype=q.dtype)
    w_v = np.eye(dim, kv_heads * dim_v, -kv_heads * dim_head, dtype=q.dtype)
    w_o = np.eye(heads * dim_v, dim, dtype=q.dtype)
    with untouched(x, context, w_q, w_k, w_v, w_o):
        out, weights = reference.multi_head_attention(
            x, w_q, w_k, w_v, w_o, heads, mask, context=context, kv_heads=kv_heads)
    return apart(out[..., : heads * dim_v], heads), weights


@functools.cache
def identity_layer(dim, heads, kv_heads, dim_head, dtype):
    layer = layers.MultiHeadAttention(dim, heads, kv_heads, dim_head=dim_head, bias=False).to(dtype)
    with torch.no_grad():
        for linear, skipped in ((layer.to_q, 0), (layer.to_k, 0), (layer.to_v, kv_heads * dim_head), (layer.to_out, 0)):
            linear.weight.copy_(torch.from_numpy(np.eye(*linear.weight.shape, skipped)))
    return layer


def torch_layer(q, k, v, mask):
    (_, heads, _, dim_head), kv_heads = q.shape, k.shape[1]
    dim = max(heads, 2 * kv_heads) * dim_head
    layer = identity_layer(dim, heads, kv_heads, dim_head, q.dtype)
    pad = torch.nn.functional.pad
    x = pad(side_by_side(q), (0, dim - heads * dim_head))
    context = pad(torch.cat([side_by_side(k), side_by_side(v)], -1), (0, dim - 2 * kv_heads * dim_head))
    with untouched(x, context):
        out, weights = layer(x, context, mask)
    return apart(out[..., : heads * dim_head], heads), weights


def bad_reference_layer_calls():
    def w(*shape, dtype="float64"):
        return np.zeros(shape, dtype)

    good = dict(x=w(2, 5, 12), w_q=w(12, 24), w_k=w(12, 12), w_v=w(12, 6), w_o=w(12, 12), heads=4, kv_heads=2)
    bad = [
        ("x", w(2, 5, 13), "(12, 24)", "w_q"), ("x", w(12), "(12,)", "x"), ("x", w(2, 5, 12, dtype="int64"), "int64", "x"),
        ("context", w(2, 7, 13), "(2, 7, 13)", "context"), ("context", w(3, 7, 12), "(3,)", "context"),
        ("w_q", w(12, 22), "(12, 22)", "w_q"), ("w_k", w(12, 14), "(12, 14)", "w_k"), ("w_v", w(12, 7), "(12, 7)", "w_v"),
        ("w_o", w(10, 12), "(10, 12)", "w_o"), ("w_o", w(16, 12), "(16, 12)", "w_o"), ("w_o", w(12, 11), "(12, 11)", "w_o"),
        ("w_v", w(12, 6, dtype="float32"), "float32", "w_v"), ("w_v", torch.zeros(12, 6), "Tensor", "w_v"),
        ("heads", 4.0, "float", "heads"), ("heads", 0, "0", "heads"), ("heads", None, "None", "heads"),
        ("kv_heads", 3, "3", "kv_heads"), ("kv_heads", "2", "str", "kv_heads"),
        ("biases", (0, 0), "2 entries", "biases"), ("biases", 0, "int", "biases"),
        ("biases", (w(5), 0, 0, 0), "(5,)", "biases[0]"), ("biases", (0, w(12), 0.5, 0), "float", "biases[2]"),
        ("mask", w(5, 5), "float64", "mask"), ("mask", w(2, 5, 5, dtype=bool), "(2, 5, 5)", "mask"),
        ("mask", w(5, 6, dtype=bool), "(5, 6)", "mask"),
    ]
    return [(lambda n=name, value=value: reference.multi_head_attention(**{**good, n: value}), blamed, was)
            for name, value, was, blamed in bad]


def bad_torch_layer_calls():
    layer = layers.MultiHeadAttention(12, 4, 2)
    x = torch.zeros(2, 5, 12)
    bad = [
        ("x", {"x": torch.zeros(2, 5, 13)}, "(2, 5, 13)"), ("x", {"x": torch.zeros(12)}, "(12,)"),
        ("x", {"x": np.zeros((2, 5, 12), "float32")}, "ndarray"), ("x", {"x": x.double()}, "float64"),
        ("x", {"x": x.long()}, "int64"), ("x", {"x": x.to("meta")}, "meta"), ("x", {"x": None}, "None"),
        ("context", {"x": x, "context": torch.zeros(2, 7, 11)}, "(2, 7, 11)"),
        ("context", {"x": x, "context": torch.zeros(3, 7, 12)}, "(3,)"),
        ("context", {"x": x, "context": torch.zeros(2, 7, 12).double()}, "float64"),
        ("mask", {"x": x, "mask": torch.zeros(5, 5)}, "float32"),
        ("mask", {"x": x, "mask": torch.ones(4, 4, dtype=torch.bool)}, "(4, 4)"),
        ("mask", {"x": x, "mask": torch.ones(2, 3, 5, 5, dtype=torch.bool)}, "(2, 3"),
    ]
    made = [
        ("dim", ("12", 3), "str"), ("dim", (0, 3), "0"), ("heads", (12, 5), "5"), ("heads", (12, 0), "0"),
        ("heads", (12, 3.0), "float"), ("kv_heads", (12, 4, 3), "3"), ("kv_heads", (12, 4, 0), "0"),
    ]
    calls = [(lambda arguments=arguments: layer(**arguments), name, was) for name, arguments, was in bad]
    return calls + [(lambda sizes=sizes: layers.MultiHeadAttention(*sizes), name, was) for name, sizes, was in made]


NO_BACKWARD = dict.fromkeys(
    ["3 what a query may not see gets no gradient from it", "5 a query that sees nothing has zero gradients",
     "6 NaN that nobody may see reaches no gradient", "8 gradients match finite differences"],
    "the NumPy layer is forward only; its gradients are those of reference.attention and of matrix products")

POISON_IN_BACKWARD = {
    "6 NaN that nobody may see reaches no gradient":
        "attention_backward is the chapter's five lines, and its docstring says that 0 · NaN reaches the gradients"}

VARIANTS = [
    numpy_variant("reference.attention", reference.attention, reference.attention_backward, exempt=POISON_IN_BACKWARD),
    numpy_variant("reference.multi_head_attention", reference_layer, bad_calls=bad_reference_layer_calls(), exempt=NO_BACKWARD),
    numpy_variant("reference.multi_head_attention (grouped)", reference_layer, heads=(6, 3), bad_calls=bad_reference_layer_calls(), exempt=NO_BACKWARD),
    numpy_variant("reference.multi_head_attention (multi-query)", reference_layer, heads=(3, 1), bad_calls=bad_reference_layer_calls(), exempt=NO_BACKWARD),
    torch_variant("layers.attention", layers.attention),
    torch_variant("layers.MultiHeadAttention", torch_layer, same_width=True, bad_calls=bad_torch_layer_calls()),
    torch_variant("layers.MultiHeadAttention (grouped)", torch_layer, heads=(6, 3), same_width=True, bad_calls=bad_torch_layer_calls()),
    torch_variant("layers.MultiHeadAttention (multi-query)", torch_layer, heads=(3, 1), same_width=True, bad_calls=bad_torch_layer_calls()),
]
