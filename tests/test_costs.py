"""Costs against counting, against PyTorch's own counter and module, and against published sizes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnlib import costs, layers

SHAPES = [  # seq, dim, heads, kv_heads, dim_head
    (7, 12, 3, None, None), (5, 12, 4, 2, None), (9, 12, 6, 1, None), (1, 5, 1, 1, None), (6, 10, 3, 3, 4), (3, 8, 4, 2, 5),
]


def product_flops(rows, inner, columns):
    """FLOPs of a matrix product, one multiplication and one addition at a time."""
    flops = 0
    for _ in range(rows * columns):
        for _ in range(inner):
            flops += 2
    return flops


@pytest.mark.parametrize(("heads", "seq_q", "seq_k", "dim_head", "dim_v"), [(3, 5, 7, 6, 4), (1, 1, 9, 2, 2), (2, 4, 0, 3, 3), (5, 2, 3, 4, None)])
def test_attention_flops_equal_counting(heads, seq_q, seq_k, dim_head, dim_v):
    wide = dim_head if dim_v is None else dim_v
    counted = heads * (product_flops(seq_q, dim_head, seq_k) + product_flops(seq_q, seq_k, wide))
    assert costs.attention_flops(heads, seq_q, seq_k, dim_head, dim_v) == counted


@pytest.mark.parametrize(("seq", "dim", "heads", "kv_heads", "dim_head"), SHAPES)
def test_layer_costs_equal_pytorch_on_our_layer(seq, dim, heads, kv_heads, dim_head):
    layer = layers.MultiHeadAttention(dim, heads, kv_heads, dim_head=dim_head, bias=False)
    assert costs.attention_parameters(dim, heads, kv_heads, dim_head) == sum(p.numel() for p in layer.parameters())
    counter = FlopCounterMode(display=False)
    with counter:
        layer(torch.zeros(2, seq, dim))
    assert 2 * costs.attention_layer_flops(seq, dim, heads, kv_heads, dim_head) == counter.get_total_flops()  # a batch of 2


def test_layer_costs_equal_pytorch_on_its_own_layer():
    module = torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
    assert costs.attention_parameters(12, 3) == sum(p.numel() for p in module.parameters())
    counter, x = FlopCounterMode(display=False), torch.zeros(1, 7, 12)
    with counter:
        module(x, x, x)
    assert costs.attention_layer_flops(7, 12, 3) == counter.get_total_flops()


def test_the_textbook_formulas():
    for n, d, heads in ((1, 8, 1), (16, 8, 2), (100, 64, 4)):
        assert costs.attention_parameters(d, heads) == 4 * d**2
        assert costs.attention_flops(heads, n, n, d // heads) == 4 * n**2 * d
        assert costs.attention_layer_flops(n, d, heads) == 8 * n * d**2 + 4 * n**2 * d
    # scores pass projections at n = 2d
    products = [costs.attention_flops(1, n, n, 64) for n in (127, 128, 129)]
    projections = [costs.attention_layer_flops(n, 64, 1) - product for n, product in zip((127, 128, 129), products, strict=True)]
    assert products[0] < projections[0] and products[1] == projections[1] and products[2] > projections[2]


def test_published_cache_sizes():
    kib = 1024
    assert costs.kv_cache_bytes(32, 32, 128, 1) == 512 * kib             # Llama-2-7B, fp16, per token
    assert costs.kv_cache_bytes(32, 8, 128, 1) == 128 * kib              # Llama-3-8B: 8 KV heads for 32
    assert costs.kv_cache_bytes(32, 8, 128, 8192, batch=16) == 16 * kib**3  # 16 GiB
    assert costs.kv_cache_bytes(32, 32, 128, 1, bytes_per_number=4) == 1024 * kib


def test_cache_size_equals_the_tensors():
    cache = [torch.zeros(2, 3, 5, 7, 4, dtype=torch.bfloat16) for _ in range(6)]  # (k and v, batch, kv_heads, seq, dim_head)
    assert costs.kv_cache_bytes(6, 5, 4, 7, batch=3) == sum(t.numel() * t.element_size() for t in cache)


def test_counts_are_python_ints_of_any_size():
    huge = costs.attention_flops(10**6, 10**9, 10**9, 10**6)
    assert huge == 4 * 10**30 and type(huge) is int          # 64 bits hold no more than 9.2 · 10^18
