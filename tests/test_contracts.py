"""Every attention variant keeps every contract, and every contract can fail.

The second half plants mistakes that real implementations have had, one at a time, in an attention
that is otherwise right, and asserts which contract refuses it.
"""

import importlib
import importlib.util
import pkgutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import attnlib
from attnlib import masks
from attnlib._shapes import takes
from tests.contracts import CONTRACTS, alike, judge, mask_of, numpy_variant, torch_variant
from tests.variants import VARIANTS
from tests.variants.core import POISON_IN_BACKWARD, apart, side_by_side
from tools.chapters import ROOT


@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_contract(variant, name):
    judge(variant, name)


def attention_rooms():
    """room -> names of its public attention functions and classes."""
    found = {}
    for module in pkgutil.iter_modules(attnlib.__path__):
        if module.name == "data":  # recorded weights: nothing is computed there
            continue
        room = importlib.import_module(f"attnlib.{module.name}")
        names = [name for name in getattr(room, "__all__", []) if name.lower().endswith("attention")]
        found |= {f"{module.name}.{name}": None for name in names}
    return list(found)


def missing_lines(public, variants):
    return set(public) - {variant.name.split(" (")[0] for variant in variants}


ELSEWHERE = {  # what cannot be called like the others: it needs several processes, or is about the newest queries only
    "ring.ring_attention": "tests/test_ring.py", "kernels.decode_attention": "tests/test_kernels_decode.py",
}
LAYERS = {  # modules with weights of their own around a function of the table; tests/test_hierarchy.py and test_span.py hold them
    "hierarchy.ShiftedWindowAttention": "hierarchy.shifted_window_attention",
    "span.AdaptiveSpanAttention": "span.adaptive_span_attention",
}


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="without Triton, which is made for Linux, the kernels are left out")
def test_every_attention_of_the_library_stands_in_the_table():
    assert missing_lines(attention_rooms(), VARIANTS) == {*LAYERS, *ELSEWHERE}
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())
    assert not missing_lines(LAYERS.values(), VARIANTS)
    assert missing_lines(attention_rooms(), [each for each in VARIANTS if each.name != "reference.attention"]) - {*LAYERS, *ELSEWHERE} == {"reference.attention"}  # a missing line is seen


def test_exemptions_name_contracts():
    for variant in VARIANTS:
        assert variant.exempt.keys() <= CONTRACTS.keys()


@pytest.mark.parametrize(("reason", "complaint"), [("it is special", "remove the exemption"), ("  ", "without a reason")])
def test_an_exemption_must_be_needed_and_explained(reason, complaint):
    name = "1 equals the truth in float64"
    with pytest.raises(AssertionError, match=complaint):
        judge(replace(VARIANTS[0], exempt={name: reason}), name)


# --- planted mistakes ------------------------------------------------------------------------------------------

NOTES = dict(q="float ... seq_q dim_head", k="float ... seq_k dim_head", v="float ... seq_k dim_v", mask="bool ... seq_q seq_k")


def mistaken(mistake=None):
    """Attention in NumPy, right but for the mistake."""
    def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None):
        given, scale = q.dtype, q.shape[-1] ** 0.5
        if mistake == "half precision inside" and given == np.float32:
            q, k, v = (each.astype(np.float16) for each in (q, k, v))
        if mistake == "single precision inside":
            q, k, v = (each.astype(np.float32) for each in (q, k, v))
        if mistake == "scales in place":
            q /= scale
            scale = 1
        if mistake == "modifies the mask" and mask is not None:
            np.logical_not(mask, out=mask)
            mask = ~mask
        if mistake == "pairs columns up":
            q, k = q[..., : q.shape[-1] // 2 * 2], k[..., : q.shape[-1] // 2 * 2]
        scale = {"forgets to scale": 1, "divides by d": scale**2, "scales by a float64": np.sqrt(np.float64(q.shape[-1])),
                 "scales by the wrong axis": q.shape[-2] ** 0.5}.get(mistake, scale)
        scores = q @ k.mT / scale
        if mistake == "prefers late keys":
            scores = scores + 0.1 * np.arange(k.shape[-2])
        if mask is not None and mistake != "masks after softmax":
            mask = ~mask if mistake == "reads the mask the other way" else mask
            fill = {"fills with -1e9": np.float64(-1e9), "fills with 0": 0.0}.get(mistake, -np.inf)
            scores = scores + np.where(mask, 0, -1e9) if mistake == "adds -1e9" else np.where(mask, scores, fill)
        axis = -2 if mistake == "softmax over queries" else -1
        if mistake == "needs a key":
            scores.max(axis=-1)
        low = None if mistake == "NaN in an empty row" else np.finfo(scores.dtype).min
        row_max = 0 if mistake == "powers without the maximum" else scores.max(
            axis=axis, keepdims=True, **({} if low is None or axis == -2 else {"initial": low}))
        powers = np.exp(scores - row_max)
        row_sum = powers.sum(axis=axis, keepdims=True)
        weights = powers / (row_sum if mistake == "NaN in an empty row" else np.where(row_sum == 0, 1, row_sum))
        if mistake == "masks after softmax" and mask is not None:
            weights = np.where(mask, weights, 0)
        if mistake != "0 times NaN":
            v = np.where(weights.any(axis=-2)[..., None], v, 0)
        out = weights @ v
        return (out, weights) if mistake == "scales by a float64" else (out.astype(given), weights.astype(given))

    return attend if mistake == "checks nothing" else takes(**NOTES)(attend)


def backward(mistake=None):
    def gradients(d_out, q, k, v, weights):
        if mistake == "forgets the mask in the backward pass":
            weights = mistaken()(q, k, v)[1]
        d_weights = d_out @ v.mT
        expected = 0 if mistake == "forgets softmax's normaliser" else (weights * d_weights).sum(-1, keepdims=True)
        d_scores = weights * (d_weights - expected)
        if mistake == "modifies d_out":
            d_out *= 2
        scale = 1 if mistake == "forgets to scale in the backward pass" else q.shape[-1] ** 0.5
        return d_scores @ k / scale, d_scores.mT @ q / scale, weights.mT @ d_out

    return gradients


def start_aligned(variant):
    """The mask's first query stands at the first key."""
    def run(q, k, v, predicate):
        if predicate is None or getattr(predicate, "per_batch", False):
            return variant.run(q, k, v, predicate)
        return mistaken()(q, k, v, np.array(predicate(np.arange(q.shape[-2])[:, None], np.arange(k.shape[-2]))))
    return replace(variant, run=run)


def with_heads(mistake):
    """Attention over heads that are cut, shared or joined in a wrong way."""
    def attend(q, k, v, mask=None):
        heads, group = q.shape[1], q.shape[1] // k.shape[1]
        share = (lambda x: np.tile(x, (1, group, 1, 1))) if mistake == "tiles shared heads" else (lambda x: np.repeat(x, group, 1))
        if mistake == "splits heads without transposing":
            q = side_by_side(q).reshape(q.shape)
        out, weights = mistaken()(q, share(k), share(v), mask)
        if mistake == "merges heads without transposing":
            out = apart(out.reshape(out.shape[0], out.shape[2], -1), heads)
        return out, weights

    return attend


def torch_mistaken(mistake):
    def attend(q, k, v, mask=None):
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if mask is None:
            return torch.softmax(scores, -1) @ v, None
        if mistake == "adds -inf and hides the NaN":
            return torch.softmax(scores + torch.where(mask, 0, -torch.inf), -1).nan_to_num() @ v, None
        blind = ~mask.any(-1, keepdim=True)
        weights = torch.softmax(scores.masked_fill(~mask & ~blind, -torch.inf), -1).masked_fill(blind, 0)
        return weights @ v.masked_fill(~mask.any(-2).unsqueeze(-1), 0), None  # k is left as it is

    return attend


RIGHT = numpy_variant("right", mistaken(), backward(), exempt=POISON_IN_BACKWARD)
PLANTED = {
    mistake: (numpy_variant(mistake, mistaken(mistake), backward(), exempt=POISON_IN_BACKWARD), contracts)
    for mistake, contracts in {
        "softmax over queries": ["1 equals the truth in float64", "2 rows of weights sum to 1"],
        "forgets to scale": ["1 equals the truth in float64"],
        "divides by d": ["1 equals the truth in float64"],
        "scales by the wrong axis": ["1 equals the truth in float64"],
        "single precision inside": ["1 equals the truth in float64"],
        "half precision inside": ["1 errs at most twice as much as PyTorch in lower precision"],
        "scales by a float64": ["1 errs at most twice as much as PyTorch in lower precision"],
        "prefers late keys": ["2 the order of keys does not matter"],
        "masks after softmax": ["2 rows of weights sum to 1", "3 what a query may not see changes nothing in its row"],
        "reads the mask the other way": ["3 what a query may not see changes nothing in its row", "4 causal is aligned to the end"],
        "fills with 0": ["3 what a query may not see changes nothing in its row", "2 rows of weights sum to 1"],
        "fills with -1e9": ["5 a query that sees nothing gets zeros"],
        "adds -1e9": ["5 a query that sees nothing gets zeros"],
        "NaN in an empty row": ["5 a query that sees nothing gets zeros"],
        "0 times NaN": ["6 NaN that nobody may see reaches no result"],
        "pairs columns up": ["7 any length and any width"],
        "needs a key": ["7 any length and any width"],
        "powers without the maximum": ["10 scores of ±10000 overflow nothing"],
        "scales in place": ["11 arguments are left as they were"],
        "modifies the mask": ["11 arguments are left as they were"],
        "checks nothing": ["12 wrong calls are refused by name"],
    }.items()
} | {
    mistake: (numpy_variant(mistake, mistaken(), backward(mistake), exempt=POISON_IN_BACKWARD), contracts)
    for mistake, contracts in {
        "forgets to scale in the backward pass": ["8 gradients match finite differences"],
        "forgets softmax's normaliser": ["8 gradients match finite differences"],
        "forgets the mask in the backward pass": [
            "3 what a query may not see gets no gradient from it", "5 a query that sees nothing has zero gradients"],
        "modifies d_out": ["11 arguments are left as they were"],
    }.items()
} | {
    "starts the mask at the first key": (
        start_aligned(RIGHT), ["4 causal is aligned to the end", "9 in chunks equals whole"]),
    "merges heads without transposing": (
        numpy_variant("merge", with_heads("merges heads without transposing")), ["1 equals the truth in float64"]),
    "splits heads without transposing": (
        numpy_variant("split", with_heads("splits heads without transposing")), ["1 equals the truth in float64"]),
    "tiles shared heads": (
        numpy_variant("tile", with_heads("tiles shared heads"), heads=(6, 3)), ["1 equals the truth in float64"]),
    "adds -inf and hides the NaN": (
        torch_variant("hide", torch_mistaken("adds -inf and hides the NaN")), ["5 a query that sees nothing has zero gradients"]),
    "leaves NaN in hidden keys": (
        torch_variant("leave", torch_mistaken("leaves NaN in hidden keys")), ["6 NaN that nobody may see reaches no gradient"]),
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_attention_that_mistakes_are_planted_in_is_right(name):
    judge(RIGHT, name)


@pytest.mark.parametrize(("mistake", "name"), [(mistake, name) for mistake, (_, names) in PLANTED.items() for name in names])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the mistakes overflow and divide by zero
def test_a_planted_mistake_is_refused(mistake, name):
    variant, _ = PLANTED[mistake]
    with pytest.raises(AssertionError) as refusal:
        CONTRACTS[name](variant)
    print(f"{mistake}: refused by {name!r}: {refusal.value}")


def test_every_contract_refuses_some_mistake():
    assert {name for _, names in PLANTED.values() for name in names} == set(CONTRACTS)


def test_the_right_layer_parts_pass_where_the_planted_ones_fail():
    for mistake, heads in (("none", (3, 3)), ("none", (6, 3))):
        judge(numpy_variant("right heads", with_heads(mistake), heads=heads), "1 equals the truth in float64")
    assert mask_of(None, np.zeros((1, 2)), np.zeros((3, 2))) is None


def test_patterns_are_told_apart():
    assert alike(masks.both(masks.sliding_window(2, 1), masks.causal), masks.sliding_window(2))
    assert alike(None, lambda q, k: q == q)
    assert not alike(masks.sliding_window(2), masks.sliding_window(3))
