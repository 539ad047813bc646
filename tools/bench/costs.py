"""Counted in advance against counted while running: FLOPs of layers and of sparse patterns, bytes of caches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attnlib import costs, layers, linear, masks, measure, sparse
from attnlib.cache import KVCache
from tools.bench.common import DIM_HEAD, HEADS, Bench, draw, rounded

NAME = "costs"
WHAT = ("FLOPs of matrix products and bytes of memory: attnlib.costs in advance, torch's counter and allocator while running; "
        "exact counts, the same on every machine")
SEQ, DIM = 2048, HEADS * DIM_HEAD


def measure_it(bench: Bench) -> None:
    """All tables of this part."""
    rows = [row(name, cost, call) for name, cost, call in (*attentions(), *networks())]
    bench.table(f"FLOPs, N = {SEQ}, width {DIM}", rows)
    for way in ("forward", "backward"):  # a first state of zeros needs no gradient, which saves the backward pass a little
        bench.bar(f"layers: largest error of the prediction, {way}", max(abs(each[f"{way} over predicted"] - 1) for each in rows),
                  at_most={"forward": 0.0, "backward": 0.02}[way])
    bench.table(f"sparse patterns, forward, N = {SEQ}: what tiles compute beyond what is needed", list(tiles()))
    rows = []
    for kv_heads in (8, 2, 1):
        made = measure.allocated_bytes(partial(KVCache, 1, kv_heads, 8192, DIM_HEAD))
        rows.append({"what": f"KV cache, {kv_heads} heads, 8192 tokens", "bytes": made,
                     "predicted": costs.kv_cache_bytes(1, kv_heads, DIM_HEAD, 8192, bytes_per_number=4)})
    bench.table("bytes", rows)
    bench.bar("caches whose bytes were predicted wrongly", sum(each["bytes"] != each["predicted"] for each in rows), at_most=0)


def row(name: str, cost: costs.Cost, call: Callable) -> dict:
    """Predicted and counted FLOPs of a call that returns a result with gradients."""
    forward = measure.flops(call)
    backward = measure.flops(lambda: call().sum().backward()) - forward
    return {"what": name, "predicted": cost.flops, "forward": forward, "forward over predicted": rounded(forward / cost.flops),
            "backward predicted": cost.backward_flops, "backward": backward,
            "backward over predicted": rounded(backward / cost.backward_flops)}


def attentions() -> list[tuple]:
    """Softmax attention, naive and fused, and linear attention."""
    q, k, v = draw(SEQ, gradients=True)
    naive = costs.attention_cost(HEADS, SEQ, SEQ, DIM_HEAD)
    fused = costs.attention_cost(HEADS, SEQ, SEQ, DIM_HEAD, fused=True)
    return [
        ("attention, naive", naive, lambda: layers.attention(q, k, v)[0]),
        ("attention, fused", fused, lambda: sdpa(q, k, v)),
        ("linear attention, chunks of 64", costs.linear_attention_cost(HEADS, SEQ, DIM_HEAD, DIM_HEAD, 64),
         lambda: linear.linear_attention(q, k, v, chunk=64)[0]),
    ]


def networks() -> list[tuple]:
    """Whole layers with their projections: PyTorch's own modules."""
    x = torch.randn(1, SEQ, DIM, requires_grad=True)
    attention, gru, cell = layers.MultiHeadAttention(DIM, HEADS), torch.nn.GRU(DIM, DIM), torch.nn.LSTMCell(DIM, DIM)

    def lstm():  # by its cell: torch's counter passes over the fused layer
        state, outs = (torch.zeros(1, DIM), torch.zeros(1, DIM)), []
        for token in x.unbind(1):
            state = cell(token, state)
            outs.append(state[0])
        return torch.stack(outs)

    convolution = torch.nn.Conv1d(DIM, DIM, 3, padding=1)
    return [
        ("attention layer", costs.attention_layer_cost(SEQ, DIM, HEADS), lambda: attention(x)[0]),
        ("GRU", costs.gru_cost(SEQ, DIM), lambda: gru(x.transpose(0, 1))[0]),
        ("LSTM", costs.lstm_cost(SEQ, DIM), lstm),
        ("convolution of 3", costs.convolution_cost(SEQ, DIM, 3), lambda: convolution(x.transpose(1, 2))),
    ]


def tiles() -> list[dict]:
    """FLOPs that a pattern needs, and those that are computed because tiles are rectangles."""
    q, k, v = draw(SEQ)
    left, globals_ = 256, 64
    causal, bigbird = masks.causal, masks.bigbird(SEQ, 64, window=3, n_global=2, n_random=3)
    needed = {
        "window 256": (costs.window_pairs(SEQ, SEQ, left), lambda: sparse.sliding_window_attention(q, k, v, left)),
        "window 256 to each side": (costs.window_pairs(SEQ, SEQ, left, left), lambda: sparse.sliding_window_attention(q, k, v, left, left)),
        "dilated, 256 keys, step 4": (costs.dilated_pairs(SEQ, SEQ, left, 4), lambda: sparse.dilated_attention(q, k, v, left, 4)),
        "64 global and window 256": (costs.global_window_pairs(SEQ, globals_, left, left),
                                     lambda: sparse.global_window_attention(q, k, v, globals_, left, left)),
        "blocks of 128, causal": (costs.causal_pairs(SEQ), lambda: sparse.block_sparse_attention(q, k, v, causal, 128)),
        "BigBird, 3 + 2 + 3 blocks of 64": (int(masks.to_array(bigbird, SEQ).sum()), lambda: sparse.block_sparse_attention(q, k, v, bigbird, 64)),
    }
    for name, (pairs, call) in needed.items():
        flops, counted = costs.attention_cost(HEADS, SEQ, SEQ, DIM_HEAD, pairs=pairs).flops, measure.flops(call)
        yield {"what": name, "needed": flops, "computed": counted, "computed over needed": rounded(counted / flops),
               "share of all pairs": rounded(counted / costs.attention_flops(HEADS, SEQ, SEQ, DIM_HEAD))}
