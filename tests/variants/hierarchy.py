"""Two-level attention, exact with blocks of one token, and windows as large as the grid, as variants of full attention.

What is theirs alone (summaries, shifts, bias, padding) is compared with loops written out by hand in
`tests/test_hierarchy.py`; here they keep the contracts where they coincide with attention, and two-level attention
with real blocks keeps them against a truth of its own.
"""

import math

import numpy as np
import torch

from attnlib import hierarchy, masks
from tests.contracts import Variant, alike, rounding, untouched


def two_levels_by_hand(block_size, near):
    """(q, k, v, predicate) -> out of `two_level_attention`, one query at a time with exactly rounded sums."""
    def truth(q, k, v, predicate):
        q, k, v = (each.astype(np.float64) for each in (q, k, v))
        (batch, heads, seq_q, dim_head), (seq_k, dim_v) = q.shape, v.shape[2:]
        out = np.zeros((batch, heads, seq_q, dim_v))
        for b, h, i in np.ndindex(batch, heads, seq_q):
            position = i + seq_k - seq_q
            keys, values, counts = [], [], []
            for start in range(0, seq_k, block_size):
                tokens = range(start, min(seq_k, start + block_size))
                away = start // block_size - position // block_size
                if abs(away) <= near:
                    for j in tokens:
                        if predicate is None or predicate(position, j):
                            keys.append(k[b, h, j])
                            values.append(v[b, h, j])
                            counts.append(1)
                elif predicate is None or away < 0:
                    keys.append([math.fsum(k[b, h, j, c] for j in tokens) / len(tokens) for c in range(dim_head)])
                    values.append([math.fsum(v[b, h, j, c] for j in tokens) / len(tokens) for c in range(dim_v)])
                    counts.append(len(tokens))
            if not keys:
                continue
            scores = [math.fsum(q[b, h, i] * key) / math.sqrt(dim_head) for key in np.array(keys)]
            powers = [n * math.exp(score - max(scores)) for n, score in zip(counts, scores, strict=True)]
            for c in range(dim_v):
                out[b, h, i, c] = math.fsum(p * value[c] for p, value in zip(powers, values, strict=True)) / math.fsum(powers)
        return out, None

    return truth


def mean_rounding(block_size):
    """`rounding`, with the means' own: a sum of `block_size` numbers and a division, in keys and in values; a logarithm more."""
    def bound(q, k, v=None):
        if 0 in (q.size, k.size):
            return 0.0
        u = np.finfo(np.float64).eps / 2
        reach = np.linalg.norm(q, axis=-1).max() * np.linalg.norm(k, axis=-1).max() / math.sqrt(q.shape[-1])
        own = 2 * (4 * (block_size + 2) * u * reach + (block_size + 2 + 8 * math.log(block_size)) * u)
        return rounding(q, k, v) + own * (1.0 if v is None else np.abs(v).max())

    return bound


def pooled_baseline(block_size, near):
    """Two levels by PyTorch's plain operations in the precision of the inputs: a dense matrix of all scores, twice."""
    def baseline(q, k, v):
        q, k, v = map(torch.from_numpy, (q, k, v))
        seq_q, seq_k = q.shape[-2], k.shape[-2]
        start = range(0, seq_k, block_size)
        means_k, means_v = (torch.stack([x[..., s:s + block_size, :].mean(-2) for s in start], -2) for x in (k, v))
        counts = torch.tensor([min(block_size, seq_k - s) for s in start], dtype=q.dtype)
        row = torch.arange(seq_k - seq_q, seq_k) // block_size
        fine = (row[:, None] - torch.arange(seq_k) // block_size).abs() <= near
        far = (row[:, None] - torch.arange(len(counts))).abs() > near
        scores = torch.cat([q @ k.mT, q @ means_k.mT], -1) / q.shape[-1] ** 0.5
        scores[..., seq_k:] += counts.log()
        return (torch.softmax(scores.masked_fill(~torch.cat([fine, far], -1), -torch.inf), -1) @ torch.cat([v, means_v], -2)).numpy()

    return baseline


def two_levels(**options):
    def attend(q, k, v, predicate):
        causal = predicate is not None
        assert alike(predicate, masks.causal if causal else None)
        return hierarchy.two_level_attention(q, k, v, causal=causal, **options)

    return attend


def one_window(q, k, v, predicate):
    """A line in one window: full attention. Queries fewer than keys stand at the end of the line."""
    missing = k.shape[-2] - q.shape[-2]
    assert predicate is None and missing >= 0, "a query without a place on the grid"
    q = torch.nn.functional.pad(q, (0, 0, missing, 0))
    out = hierarchy.shifted_window_attention(q, k, v, (q.shape[-2] + 2,), (0,))
    return out[..., missing:, :]


def one_square(q, k, v, predicate):
    """The same as an image of one row, in a window of three rows: padding in all directions but sideways, and a bias of zeros."""
    missing = k.shape[-2] - q.shape[-2]
    assert predicate is None and missing >= 0, "a query without a place on the grid"
    q = torch.nn.functional.pad(q, (0, 0, missing, 0))
    (columns, bias), grid = (q.shape[-2], 3 * q.shape[-2]), [x.unsqueeze(-3) for x in (q, k, v)]
    out = hierarchy.shifted_window_attention(*grid, (3, columns), (0, 0), q.new_zeros(1, bias, bias))
    return out.squeeze(-3)[..., missing:, :]


def variant(name, attend, **about):
    def run(q, k, v, predicate):
        tensors = [torch.from_numpy(each) for each in (q, k, v)]
        with untouched(*tensors):
            return attend(*tensors, predicate).numpy(), None

    def gradients(q, k, v, predicate, d_out):
        leaves = [torch.from_numpy(each).requires_grad_() for each in (q, k, v)]
        out = attend(*leaves, predicate)
        return [each.numpy() for each in torch.autograd.grad(out, leaves, torch.from_numpy(d_out), materialize_grads=True)]

    return Variant(name, run, gradients=gradients, **about)


def zeros(*shape, dtype=torch.float64, device=None):
    return torch.zeros(shape, dtype=dtype, device=device)


def bad_two_levels():
    good = {"q": zeros(2, 3, 5, 6), "k": zeros(2, 3, 7, 6), "v": zeros(2, 3, 7, 4), "block_size": 2}
    bad = [
        ("q", zeros(6), "(6,)"), ("q", zeros(2, 3, 5, 6, dtype=torch.int64), "int64"), ("q", np.zeros((2, 3, 5, 6)), "ndarray"),
        ("k", zeros(2, 3, 7, 5), "(2, 3, 7, 5)"), ("k", zeros(4, 3, 7, 6), "(4, 3)"), ("k", zeros(2, 3, 7, 6, dtype=torch.float32), "float32"),
        ("v", zeros(2, 3, 5, 4), "(2, 3, 5, 4)"), ("v", None, "None"), ("v", zeros(2, 3, 7, 4, device="meta"), "meta"),
        ("block_size", 0, "0"), ("block_size", 2.0, "float"), ("block_size", None, "None"), ("near", -1, "-1"), ("near", 1.5, "float"),
    ]
    return [(lambda name=name, value=value: hierarchy.two_level_attention(**{**good, name: value}), name, was) for name, value, was in bad]


def bad_windows():
    good = {"q": zeros(2, 3, 4, 6, 5), "k": zeros(2, 3, 4, 6, 5), "v": zeros(2, 3, 4, 6, 2), "window": (2, 3), "shift": (1, 0)}
    bad = [
        ("q", zeros(5), "(5,)"), ("q", [[0.0]], "list"), ("q", zeros(2, 3, 4, 6, 5, dtype=torch.int64), "int64"),
        ("k", zeros(2, 3, 4, 6, 4), "(2, 3, 4, 6, 4)"), ("k", zeros(2, 3, 4, 5, 5), "(2, 3, 4, 5)"), ("k", zeros(2, 3, 1, 6, 5), "(2, 3, 1, 6, 5)"),
        ("v", zeros(2, 3, 4, 6, 2, dtype=torch.float32), "float32"), ("v", None, "None"), ("v", zeros(2, 3, 4, 6, 2, device="meta"), "meta"),
        ("window", 2, "2"), ("window", [2, 3], "[2, 3]"), ("window", (0, 3), "(0, 3)"), ("window", (2.0, 3), "(2.0, 3)"), ("window", (), "()"),
        ("shift", (2, 0), "(2, 0)"), ("shift", (1,), "(1,)"), ("shift", (-1, 0), "(-1, 0)"), ("shift", 1, "1"),
        ("bias", zeros(3, 6, 5), "(3, 6, 5)"), ("bias", zeros(3, 5, 5), "(3, 5, 5)"), ("bias", [0.0], "list"),
    ]
    return [(lambda name=name, value=value: hierarchy.shifted_window_attention(**{**good, name: value}), name, was) for name, value, was in bad]


ALL_SEEN = "every key is seen by the last query: nothing but the future can be hidden"
NOT_CAUSAL = "windows are two-sided; causal order has no meaning on an image"
ONE_GRID = "queries and keys are the tokens of one grid, which is never empty; tests/test_hierarchy.py tries sizes"
LEVELS = {"6 NaN that nobody may see reaches no result": ALL_SEEN, "6 NaN that nobody may see reaches no gradient": ALL_SEEN}
POOLED = {
    **LEVELS,
    "2 the order of keys does not matter": "keys are summarised with their neighbours: their order says which these are",
}
WINDOWS = {
    **dict.fromkeys(LEVELS, "all tokens are in one window: nobody is hidden (padding is tried in tests/test_hierarchy.py)"),
    **dict.fromkeys(["3 what a query may not see changes nothing in its row", "3 what a query may not see gets no gradient from it",
                     "5 a query that sees nothing gets zeros", "5 a query that sees nothing has zero gradients"],
                    "in one window everyone sees everyone, and in any window at least itself"),
    "4 causal is aligned to the end": NOT_CAUSAL,
    "7 any length and any width": ONE_GRID,
}

VARIANTS = [
    variant("hierarchy.two_level_attention (blocks of 1: exact)", two_levels(block_size=1), patterns=("full", "causal"),
            exempt=LEVELS, bad_calls=bad_two_levels()),
    variant("hierarchy.two_level_attention (one block for all: exact)", two_levels(block_size=140, near=0), patterns=("full", "causal"),
            exempt=LEVELS, bad_calls=bad_two_levels()),
    variant("hierarchy.two_level_attention (blocks of 2)", two_levels(block_size=2), patterns=("full", "causal"), exempt=POOLED,
            truth=two_levels_by_hand(2, 1), bound=mean_rounding(2), baseline=pooled_baseline(2, 1), bad_calls=bad_two_levels()),
    variant("hierarchy.two_level_attention (blocks of 3, none near)", two_levels(block_size=3, near=0), patterns=("full", "causal"),
            exempt=POOLED, truth=two_levels_by_hand(3, 0), bound=mean_rounding(3), baseline=pooled_baseline(3, 0), bad_calls=bad_two_levels()),
    variant("hierarchy.shifted_window_attention (a line in one window)", one_window, patterns=("full",), exempt=WINDOWS, bad_calls=bad_windows()),
    variant("hierarchy.shifted_window_attention (an image in one window)", one_square, patterns=("full",), exempt=WINDOWS, bad_calls=bad_windows()),
]
