"""The Triton kernels, run in Triton's interpreter: float64 goes in rounded to float32."""

import functools

import numpy as np
import torch

from attnlib import kernels, masks
from tests.contracts import Variant, alike, rounding


def attend(q, k, v, predicate):
    """`kernels.attention` on tensors, computed in float32 where they are float64."""
    causal = predicate is not None and alike(predicate, masks.causal)
    given = q.dtype
    q, k, v = (x.float() if given == torch.float64 else x for x in (q, k, v))
    return kernels.attention(q, k, v, causal, backend="triton").to(given)


def run(q, k, v, predicate, attend=attend):
    return attend(*(torch.from_numpy(each) for each in (q, k, v)), predicate).detach().numpy(), None


def gradients(q, k, v, predicate, d_out, attend=attend):
    leaves = [torch.from_numpy(each).requires_grad_() for each in (q, k, v)]
    found = torch.autograd.grad(attend(*leaves, predicate), leaves, torch.from_numpy(d_out), materialize_grads=True)
    return [each.numpy() for each in found]


def single(q, k, v=None):
    """What `rounding` allows in float64, in units of float32's rounding: its arguments are rounded too, which the bound's slack holds."""
    return rounding(q, k, v) * float(np.finfo(np.float32).eps / np.finfo(np.float64).eps)


def zeros(*shape, dtype=torch.float32, device=None):
    return torch.zeros(shape, dtype=dtype, device=device)


GOOD = {"q": zeros(2, 6, 5, 6), "k": zeros(2, 3, 7, 6), "v": zeros(2, 3, 7, 4), "backend": "triton"}
BAD = [
    ("k", zeros(2, 3, 7, 5), "(2, 3, 7, 5)"), ("v", zeros(2, 3, 5, 4), "(2, 3, 5, 4)"), ("k", zeros(4, 3, 7, 6), "(4,)"),
    ("q", zeros(5, 6), "(5, 6)"), ("k", zeros(2, 3, 7, 6, dtype=torch.float16), "float16"), ("q", zeros(2, 6, 5, 6, dtype=torch.int64), "int64"),
    ("q", np.zeros((2, 6, 5, 6)), "ndarray"), ("v", None, "None"), ("v", zeros(2, 3, 7, 4, device="meta"), "meta"),
    ("q", zeros(2, 5, 5, 6), "5 heads"), ("backend", "cuda", "cuda"), ("v", zeros(2, 3, 7, 512), "512"), ("v", zeros(2, 3, 7, 0), "0"),
]
BLAMED = {"5 heads": "k"}                                    # the number of key heads
ALL_SEEN = "the last query sees every key, with and without `causal`; what NaN does inside a tile is in the docstring"
NO_FLOAT64 = "computes in float32 at most, too coarse for finite differences; tests/test_kernels.py compares with float64 gradients"

def attend_in_blocks(q, k, v, predicate):
    """`kernels.block_sparse_attention` likewise, with blocks of 16."""
    given = q.dtype
    q, k, v = (x.float() if given == torch.float64 else x for x in (q, k, v))
    predicate = predicate or (lambda q_idx, k_idx: abs(q_idx) + k_idx >= 0)
    return kernels.block_sparse_attention(q, k, v, predicate, 16, backend="triton").to(given)


BLOCKS = GOOD | {"predicate": masks.causal, "block_size": 16}
BAD_BLOCKS = [*BAD, ("predicate", None, "None"), ("block_size", 24, "24"), ("block_size", 0, "0"), ("block_size", 16.0, "float")]

VARIANTS = [                                                 # one key head to a query head is tried in tests/test_kernels.py
    Variant("kernels.attention (grouped heads)", run, [(lambda name=name, value=value: kernels.attention(**{**GOOD, name: value}), BLAMED.get(was, name), was)
                                                       for name, value, was in BAD],
            gradients=gradients, heads=(4, 2), patterns=("full", "causal"), dtypes=("float32", "float16"), bound=single,
            exempt={"8 gradients match finite differences": NO_FLOAT64, "6 NaN that nobody may see reaches no result": ALL_SEEN,
                    "6 NaN that nobody may see reaches no gradient": ALL_SEEN}),
    Variant("kernels.block_sparse_attention (grouped heads)", functools.partial(run, attend=attend_in_blocks),
            [(lambda name=name, value=value: kernels.block_sparse_attention(**{**BLOCKS, name: value}), BLAMED.get(was, name), was)
             for name, value, was in BAD_BLOCKS],
            gradients=functools.partial(gradients, attend=attend_in_blocks), heads=(4, 2),
            patterns=("full", "causal", "some blind", "padding"), dtypes=("float32", "float16"), bound=single,
            exempt={"8 gradients match finite differences": NO_FLOAT64}),
]
