"""The memory room's variants: attention by content and distance, and attention to the nearest keys of a memory.

Relative attention gets the same vector for a distance wherever it occurs, and the same two biases. For the attention with a memory
the first half of the keys is the memory, the rest is local.
"""

import math

import numpy as np
import torch

from attnlib import masks
from attnlib.memory import knn_attention, relative_attention
from tests.contracts import bad_attention_calls, by_hand, rounding, torch_variant, who_sees_whom

CAUSAL = ("causal", "some blind", "dilated", "causal padding")


# --- content and distance -------------------------------------------------------------------------------------------

def of_distance(t, heads, dim_head):
    """The key of distance t, (heads, dim_head): the same wherever it is asked for."""
    return np.random.default_rng([t, heads, dim_head]).normal(size=(heads, dim_head))


def biases(heads, dim_head):
    return np.random.default_rng([heads, dim_head]).normal(size=(2, heads, dim_head))


def distance_keys(seq_k, heads, dim_head):
    rows = [of_distance(t, heads, dim_head) for t in range(seq_k - 1, -1, -1)]
    return np.array(rows).reshape(seq_k, heads, dim_head).swapaxes(0, 1)


def relative(q, k, v, mask):
    heads, dim_head = q.shape[-3], q.shape[-1]
    r, u, w = (torch.from_numpy(each).to(q.dtype)
               for each in (distance_keys(k.shape[-2], heads, dim_head), *biases(heads, dim_head)))
    return relative_attention(q, k, v, r, u, w, mask)


def relative_by_hand(q, k, v, predicate):
    """One pair at a time: the four terms of the paper, each a sum of its own."""
    q, k, v = (each.astype(np.float64) for each in (q, k, v))
    (batch, heads, seq_q, dim_head), (seq_k, dim_v) = q.shape, v.shape[2:]
    seen, (u, w) = who_sees_whom(predicate, batch, seq_q, seq_k), biases(heads, dim_head)
    out, weights = np.zeros((batch, heads, seq_q, dim_v)), np.zeros((batch, heads, seq_q, seq_k))
    for b, h, i in np.ndindex(batch, heads, seq_q):
        scores = {}
        for j in range(seq_k):
            distance = i + seq_k - seq_q - j
            if distance >= 0 and seen[b, i, j]:
                r = of_distance(distance, heads, dim_head)[h]
                terms = (q[b, h, i] * k[b, h, j], q[b, h, i] * r, u[h] * k[b, h, j], w[h] * r)
                scores[j] = math.fsum(map(math.fsum, terms)) / math.sqrt(dim_head)
        powers = {j: math.exp(score - max(scores.values())) for j, score in scores.items()}
        for j, power in powers.items():
            weights[b, h, i, j] = power / math.fsum(powers.values())
        for c in range(dim_v) if scores else ():
            out[b, h, i, c] = math.fsum(weights[b, h, i, j] * v[b, h, j, c] for j in scores)
    return out, weights


def as_one_product(q, k):
    """Queries and keys twice as wide whose products bound what relative attention adds up."""
    heads, dim_head = q.shape[1], q.shape[-1]
    u, w = biases(heads, dim_head)[:, :, None].astype(q.dtype)
    r = np.broadcast_to(distance_keys(k.shape[-2], heads, dim_head).astype(q.dtype), k.shape)
    return np.concatenate([q + u, q + w], -1), np.concatenate([k, r], -1)


def relative_bound(q, k, v=None):
    wide_q, wide_k = as_one_product(q, k)
    furthest = np.linalg.norm(wide_k[..., q.shape[-1]:], axis=-1).max(initial=0)
    wide_k = np.concatenate([k, np.full_like(k, furthest / math.sqrt(q.shape[-1]))], -1)
    return rounding(wide_q * math.sqrt(2), wide_k, v)        # scores are divided by √dim_head, not √(2 · dim_head)


def plain_relative(q, k, v):
    """The same by PyTorch's plain operations, each pair's distance key looked up; causal."""
    q, k, v = (torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in (q, k, v))
    (heads, seq_q, dim_head), seq_k = q.shape[1:], k.shape[2]
    r, u, w = (torch.from_numpy(each).to(q.dtype) for each in (distance_keys(seq_k, heads, dim_head), *biases(heads, dim_head)))
    distance = torch.arange(seq_k - seq_q, seq_k)[:, None] - torch.arange(seq_k)
    pairs = r[:, (seq_k - 1 - distance).clamp(0, seq_k - 1)]  # (heads, seq_q, seq_k, dim_head)
    scores = (q + u[:, None]) @ k.mT + ((q + w[:, None]).unsqueeze(-2) @ pairs.mT).squeeze(-2)
    scores = (scores / dim_head**0.5).masked_fill(distance < 0, -torch.inf)
    return (scores.softmax(-1) @ v).numpy()


def nowhere(q, k, v, mask):
    """No distance and no bias means anything: softmax attention, causal."""
    _, heads, seq_k, dim_head = k.shape
    return relative_attention(q, k, v, q.new_zeros(heads, seq_k, dim_head), *q.new_zeros(2, heads, dim_head), mask)


def causal_by_hand(q, k, v, predicate):
    return by_hand(q, k, v, predicate or masks.causal)


def plain_causal(q, k, v):
    q, k, v = map(torch.from_numpy, (q, k, v))
    hidden = ~torch.from_numpy(masks.to_array(masks.causal, q.shape[2], k.shape[2]))
    return ((q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf).softmax(-1) @ v).numpy()


def bad_relative_calls():
    def zeros(*shape, dtype=torch.float64):
        return torch.zeros(shape, dtype=dtype)

    good = {"q": zeros(2, 3, 5, 6), "k": zeros(2, 3, 7, 6), "v": zeros(2, 3, 7, 4), "r": zeros(3, 7, 6),
            "content_bias": zeros(3, 6), "position_bias": zeros(3, 6)}
    bad = [("r", zeros(3, 5, 6), "(3, 5, 6)"), ("r", zeros(3, 7, 5), "(3, 7, 5)"), ("r", zeros(2, 7, 6), "(2,)"),
           ("content_bias", zeros(3, 5), "(3, 5)"), ("position_bias", zeros(4, 6), "(4,)"),
           ("position_bias", zeros(3, 6, dtype=torch.float32), "float32"), ("content_bias", None, "None")]
    own = [(lambda name=name, value=value: relative_attention(**{**good, name: value}), name, was) for name, value, was in bad]
    return own + bad_attention_calls(
        lambda q, k, v, mask: relative_attention(q, k, v, good["r"], zeros(3, 6), zeros(3, 6), mask), torch.from_numpy)


# --- the nearest keys of a memory -----------------------------------------------------------------------------------

def with_memory(top_k, gate=None):
    """Attention whose first half of keys is a memory; weights are put at the places of the keys."""
    def attend(q, k, v, mask):
        half, gates = k.shape[-2] // 2, None if gate is None else torch.full(q.shape[-3:-2], gate, dtype=q.dtype)
        far, near = (None, None) if mask is None else (mask[..., :half], mask[..., half:])
        out, weights, found = knn_attention(q, k[..., half:, :], v[..., half:, :], k[..., :half, :], v[..., :half, :], top_k,
                                            gates, near, far)
        placed = torch.zeros(*weights.shape[:-1], half, dtype=weights.dtype)
        placed = placed.scatter_add(-1, found, weights[..., : found.shape[-1]])
        return out, torch.cat([placed, weights[..., found.shape[-1]:]], dim=-1)

    return attend


def memory_by_hand(top_k, gate=None):
    """One query at a time: which keys it finds, then the shares."""
    def shares(scores, keys):
        powers = {j: math.exp(scores[j] - max(scores[key] for key in keys)) for j in keys}
        return {j: power / math.fsum(powers.values()) for j, power in powers.items()}

    def truth(q, k, v, predicate):
        q, k, v = (each.astype(np.float64) for each in (q, k, v))
        (batch, heads, seq_q, dim_head), (seq_k, dim_v) = q.shape, v.shape[2:]
        seen, half = who_sees_whom(predicate, batch, seq_q, seq_k), seq_k // 2
        out, weights = np.zeros((batch, heads, seq_q, dim_v)), np.zeros((batch, heads, seq_q, seq_k))
        for b, h, i in np.ndindex(batch, heads, seq_q):
            scores = {j: math.fsum(q[b, h, i] * k[b, h, j]) / math.sqrt(dim_head) for j in range(seq_k) if seen[b, i, j]}
            far = sorted((j for j in scores if j < half), key=lambda j: -scores[j])[:top_k]
            near = [j for j in scores if j >= half]
            if gate is None or not far or not near:
                parts = [(1, shares(scores, far + near))]
            else:
                parts = [(gate, shares(scores, far)), (1 - gate, shares(scores, near))]
            for part, own in parts:
                for j, share in own.items():
                    weights[b, h, i, j] = part * share
                    out[b, h, i] += part * share * v[b, h, j]
        return out, weights

    return truth


def plain_memory(top_k, gate):
    """The same by PyTorch's plain operations, without masks."""
    def run(q, k, v):
        q, k, v = (torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in (q, k, v))
        half, scores = k.shape[2] // 2, q @ k.mT / q.shape[-1] ** 0.5
        least = scores[..., :half].topk(min(top_k, half)).values[..., -1:]
        scores[..., :half] = scores[..., :half].masked_fill(scores[..., :half] < least, -torch.inf)
        if gate is None:
            return (scores.softmax(-1) @ v).numpy()
        far, near = scores[..., :half].softmax(-1) @ v[:, :, :half], scores[..., half:].softmax(-1) @ v[:, :, half:]
        return (gate * far + (1 - gate) * near).numpy()

    return run


def bad_memory_calls():
    def zeros(*shape, dtype=torch.float64):
        return torch.zeros(shape, dtype=dtype)

    good = {"q": zeros(2, 3, 5, 6), "k": zeros(2, 3, 7, 6), "v": zeros(2, 3, 7, 4), "memory_k": zeros(2, 3, 8, 6),
            "memory_v": zeros(2, 3, 8, 4), "top_k": 2}
    bad = [("memory_k", zeros(2, 3, 8, 5), "(2, 3, 8, 5)"), ("memory_v", zeros(2, 3, 7, 4), "(2, 3, 7, 4)"),
           ("memory_v", zeros(2, 3, 8, 5), "(2, 3, 8, 5)"), ("memory_k", zeros(4, 3, 8, 6), "(4, 3)"),
           ("memory_k", zeros(2, 3, 8, 6, dtype=torch.float32), "float32"), ("memory_k", None, "None"),
           ("top_k", -1, "-1"), ("top_k", 2.0, "float"), ("gate", zeros(4), "(4,)"), ("gate", 0.5, "float"),
           ("memory_mask", torch.ones(5, 7, dtype=torch.bool), "(5, 7)"), ("memory_mask", zeros(5, 8), "float64")]
    own = [(lambda name=name, value=value: knn_attention(**{**good, name: value}), name, was) for name, value, was in bad]
    return own + bad_attention_calls(
        lambda q, k, v, mask: knn_attention(q, k, v, good["memory_k"], good["memory_v"], 2, mask=mask), torch.from_numpy)


CHUNKS = {"9 in chunks equals whole":
          "the memory is half of the keys here, so other keys for every chunk; test_memory.py keeps it and cuts the rest"}
ORDER, UNFOUND = "2 the order of keys does not matter", "3 what a query may not see changes nothing in its row"
NO_GRADIENT = "3 what a query may not see gets no gradient from it"

VARIANTS = [
    torch_variant(
        "memory.relative_attention", relative, patterns=CAUSAL, truth=relative_by_hand, bound=relative_bound, baseline=plain_relative,
        bad_calls=bad_relative_calls(), exempt={ORDER: "its scores depend on where a key stands: that is its purpose"}),
    torch_variant(
        "memory.relative_attention (distances that mean nothing)", nowhere, patterns=CAUSAL, truth=causal_by_hand, baseline=plain_causal,
        bad_calls=bad_relative_calls(),
        exempt={ORDER: "it is causal: another order shows a query other keys"}),
    torch_variant("memory.knn_attention (all are found)", with_memory(1000), bad_calls=bad_memory_calls()),
    torch_variant(
        "memory.knn_attention", with_memory(2), truth=memory_by_hand(2), baseline=plain_memory(2, None), bad_calls=bad_memory_calls(),
        exempt={**CHUNKS, ORDER: "the order decides which keys are local and which stand in the memory",
                UNFOUND: "a key that is not among the nearest changes nothing either",
                NO_GRADIENT: "a key that is not among the nearest gets no gradient either"}),
    torch_variant(
        "memory.knn_attention (gated)", with_memory(1000, 0.3), truth=memory_by_hand(1000, 0.3), baseline=plain_memory(1000, 0.3),
        bad_calls=bad_memory_calls(), exempt={**CHUNKS, ORDER: "the order decides which keys are local and which stand in the memory"}),
]
