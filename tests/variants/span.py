"""Adaptive span with hard edges, as causal attention; soft masks are compared by hand in `tests/test_span.py`."""

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnlib import masks, span
from tests.contracts import alike, by_hand
from tests.variants.hierarchy import variant, zeros


def wide_open(ramp, given=None):
    """Spans so long that every head sees all of its past."""
    def attend(q, k, v, predicate):
        assert predicate is None or alike(predicate, masks.causal)  # it is causal, whatever is asked for
        spans = torch.full((q.shape[1],), float(k.shape[-2]), dtype=q.dtype)
        return span.adaptive_span_attention(q, k, v, spans, ramp, None if given is None else q.new_zeros(given, q.shape[-1]))

    return attend


def causal_by_hand(q, k, v, _):
    return by_hand(q, k, v, masks.causal)


def causal_baseline(q, k, v):
    mask = torch.from_numpy(masks.to_array(masks.causal, q.shape[-2], k.shape[-2]))
    with sdpa_kernel(SDPBackend.MATH):
        return torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)), attn_mask=mask).numpy()


def bad_calls():
    good = {"q": zeros(2, 3, 5, 6), "k": zeros(2, 3, 7, 6), "v": zeros(2, 3, 7, 4), "span": zeros(3), "ramp": 2.0}
    bad = [
        ("q", zeros(5, 6), "(5, 6)"), ("q", zeros(2, 3, 5, 6, dtype=torch.int64), "int64"), ("q", np.zeros((2, 3, 5, 6)), "ndarray"),
        ("k", zeros(2, 3, 7, 5), "(2, 3, 7, 5)"), ("k", zeros(2, 2, 7, 6), "(2, 2, 7, 6)"), ("k", zeros(4, 3, 7, 6), "(4,)"),
        ("v", zeros(2, 3, 5, 4), "(2, 3, 5, 4)"), ("v", None, "None"), ("v", zeros(2, 3, 7, 4, dtype=torch.float32), "float32"),
        ("span", zeros(2), "(2,)"), ("span", 3.0, "float"), ("span", None, "None"), ("span", zeros(3, dtype=torch.int64), "int64"),
        ("span", zeros(3, device="meta"), "meta"), ("ramp", 0, "0"), ("ramp", -1.0, "-1.0"), ("ramp", "2", "str"), ("ramp", None, "None"),
        ("positions", zeros(4, 5), "(4, 5)"), ("positions", zeros(6), "(6,)"), ("positions", [0.0], "list"),
    ]
    return [(lambda name=name, value=value: span.adaptive_span_attention(**{**good, name: value}), name, was) for name, value, was in bad]


ALL_SEEN = "with every span wide open the last query sees every key; tests/test_span.py hides some"
EXEMPT = {
    "2 the order of keys does not matter": "it is causal, and which keys are near is what it is about",
    "6 NaN that nobody may see reaches no result": ALL_SEEN, "6 NaN that nobody may see reaches no gradient": ALL_SEEN,
}
ABOUT = dict(patterns=("causal",), exempt=EXEMPT, truth=causal_by_hand, baseline=causal_baseline, bad_calls=bad_calls())

VARIANTS = [
    variant("span.adaptive_span_attention (wide open)", wide_open(1.0), **ABOUT),
    variant("span.adaptive_span_attention (wide open, soft, with positions)", wide_open(7.5, given=140), **ABOUT),
]
