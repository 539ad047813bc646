"""Sparse attention. A predicate is turned back into the window, step or seed that each function takes."""

import functools
import itertools

import numpy as np
import torch

from attnlib import masks, sparse
from tests.contracts import alike, torch_variant

EVERYTHING = 10**6  # keys to each side: more than any test has
WINDOWS = [(*sides, masks.sliding_window(*sides)) for sides in itertools.product((0, 1, 2), (0, 1))]


def window_of(predicate):
    """(left, right) of a predicate that is a window."""
    if alike(predicate, None):
        return EVERYTHING, EVERYTHING
    if alike(predicate, masks.causal):
        return EVERYTHING, 0
    return next((left, right) for left, right, window in WINDOWS if alike(predicate, window))


def from_predicate(name, function, bad_calls, **about):
    """A variant from `function(q, k, v, predicate)` on tensors, which forms no weights."""
    def attend(q, k, v, mask):
        return function(q, k, v, mask), None

    variant = torch_variant(name, attend, bad_calls=bad_calls, **about)

    def run(q, k, v, predicate):
        return function(*(torch.from_numpy(each) for each in (q, k, v)), predicate).detach().numpy(), None

    def gradients(q, k, v, predicate, d_out):
        leaves = [torch.from_numpy(each).requires_grad_() for each in (q, k, v)]
        out = function(*leaves, predicate)
        return [each.numpy() for each in torch.autograd.grad(out, leaves, torch.from_numpy(d_out), materialize_grads=True)]

    object.__setattr__(variant, "run", run)
    object.__setattr__(variant, "gradients", gradients)
    return variant


def bad_calls(function, good, numbers):
    """Wrong calls of a function: of its arrays, and of each number (name, value, what the message must say)."""
    def zeros(*shape, dtype=torch.float64, device=None):
        return torch.zeros(shape, dtype=dtype, device=device)

    arrays = {"q": zeros(2, 6, 5, 6), "k": zeros(2, 3, 7, 6), "v": zeros(2, 3, 7, 4)}
    bad = [
        ("k", zeros(2, 3, 7, 5), "(2, 3, 7, 5)"), ("v", zeros(2, 3, 5, 4), "(2, 3, 5, 4)"), ("k", zeros(4, 3, 7, 6), "(4,)"),
        ("q", zeros(5, 6), "(5, 6)"), ("k", zeros(2, 3, 7, 6, dtype=torch.float32), "float32"),
        ("q", zeros(2, 6, 5, 6, dtype=torch.int64), "int64"), ("q", np.zeros((2, 6, 5, 6)), "ndarray"), ("v", None, "None"),
        ("v", zeros(2, 3, 7, 4, device="meta"), "meta"), ("q", zeros(2, 5, 5, 6), "5 heads"), *numbers,
    ]
    named = {"5 heads": "k"}  # blamed is the number of key heads
    return [(lambda name=name, value=value: function(**{**arrays, **good, name: value}), named.get(was, name), was)
            for name, value, was in bad]


def too_small(name, least):
    return [(name, least - 1, str(least - 1)), (name, 2.0, "float"), (name, True, "bool")]


def window(q, k, v, predicate):
    return sparse.sliding_window_attention(q, k, v, *window_of(predicate))


def dilated(q, k, v, predicate):
    left, step = (2, 2) if alike(predicate, masks.dilated(2, 2)) else (window_of(predicate)[0], 1)
    return sparse.dilated_attention(q, k, v, left, step)


def with_global(q, k, v, predicate):
    """A window, and one global token where the pattern has it."""
    if alike(predicate, masks.either(masks.global_tokens(1), masks.sliding_window(1, 1))):
        return sparse.global_window_attention(q, k, v, 1, 1, 1)
    return sparse.global_window_attention(q, k, v, 0, *window_of(predicate))


def everything(q_idx, k_idx):
    return (q_idx >= k_idx) | (q_idx < k_idx)


block_map = functools.lru_cache(None)(sparse.block_map)


def in_blocks(block_size):
    def run(q, k, v, predicate):
        found = block_map(predicate or everything, q.shape[-2], k.shape[-2], block_size)
        return sparse.block_sparse_attention(q, k, v, found)
    return run


def big_bird(q, k, v, predicate):
    """Big Bird; a window wide enough is everything."""
    blocks = 1 if alike(predicate, masks.bigbird(max(1, k.shape[-2]), 2)) else EVERYTHING
    return sparse.bigbird_attention(q, k, v, 2, window=blocks, causal=alike(predicate, masks.causal))


def chosen(query_block):
    def run(q, k, v, predicate):
        blocks = max(1, -(-k.shape[-2] // 4))                # all of them: then there is no choice to make
        return sparse.top_k_block_attention(q, k, v, blocks, 4, query_block, causal=predicate is not None)
    return run


BLIND = dict.fromkeys(["6 NaN that nobody may see reaches no result", "6 NaN that nobody may see reaches no gradient"],
                      "none of its patterns hides a key from every query")
NARROW = dict.fromkeys(["1 errs at most twice as much as PyTorch in lower precision", "2 the order of keys does not matter"],
                       "a dilated window never holds every key")
WINDOWED, BLOCKS = ("full", "causal", "window", "short window"), dict(predicate=masks.causal, block_size=2)

VARIANTS = [
    from_predicate("sparse.sliding_window_attention", window, patterns=WINDOWED, heads=heads, bad_calls=bad_calls(
        sparse.sliding_window_attention, dict(left=2), [*too_small("left", 0), *too_small("right", 0)]))
    if heads == (3, 3) else
    from_predicate(f"sparse.sliding_window_attention (heads {heads})", window, patterns=WINDOWED, heads=heads, bad_calls=bad_calls(
        sparse.sliding_window_attention, dict(left=2), []))
    for heads in ((3, 3), (6, 3), (3, 1))
] + [
    from_predicate("sparse.dilated_attention", dilated, patterns=("causal", "dilated"), heads=(6, 3), exempt=BLIND | NARROW, bad_calls=bad_calls(
        sparse.dilated_attention, dict(left=2, step=2), [*too_small("left", 0), *too_small("step", 1)])),
    from_predicate("sparse.global_window_attention", with_global, patterns=(*WINDOWED, "global"), heads=(6, 3), bad_calls=bad_calls(
        sparse.global_window_attention, dict(n_global=1, left=2), [*too_small("n_global", 0), *too_small("left", 0), *too_small("right", 0)])),
    from_predicate("sparse.block_sparse_attention", in_blocks(2), heads=(6, 3), bad_calls=bad_calls(
        sparse.block_sparse_attention, BLOCKS,
        [*too_small("block_size", 1), ("predicate", sparse.block_map(masks.causal, 4, 9), "seq_q = 4, seq_k = 9"),
         ("predicate", sparse.block_map(masks.padding(np.array([1, 2, 3])), 5, 7), "3 sequences")])),
    from_predicate("sparse.block_sparse_attention (blocks of 3)", in_blocks(3), bad_calls=bad_calls(
        sparse.block_sparse_attention, BLOCKS, [])),
    from_predicate("sparse.bigbird_attention", big_bird, patterns=("full", "causal", "bigbird"), heads=(6, 3), exempt=BLIND, bad_calls=bad_calls(
        sparse.bigbird_attention, dict(block_size=2), [*too_small("block_size", 1), *too_small("window", 0), *too_small("n_random", 0)])),
    from_predicate("sparse.top_k_block_attention", chosen(4), patterns=("full", "causal"), heads=(6, 3), exempt=BLIND, bad_calls=bad_calls(
        sparse.top_k_block_attention, dict(top_k=2, block_size=2),
        [*too_small("top_k", 1), *too_small("block_size", 1), *too_small("query_block", 1), ("top_k", 5, "5")])),
    from_predicate("sparse.top_k_block_attention (each query for itself)", chosen(1), patterns=("full", "causal"), exempt=BLIND, bad_calls=bad_calls(
        sparse.top_k_block_attention, dict(top_k=2, block_size=4), [("query_block", 3, "3")])),
]
