"""Adaptive spans against a loop over pairs, against a plain window, and what they cost."""

import math

import numpy as np
import pytest
import torch

from attnlib import costs, layers, masks, span
from attnlib.measure import flops
from tests.contracts import rounding
from tests.variants.hierarchy import zeros

SIZES = [(5, 7), (7, 5), (1, 1), (16, 16), (13, 30), (30, 13), (3, 0), (1, 40), (41, 43), (0, 4)]


def draw(seq_q, seq_k, heads=3, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=(2, heads, seq, width))) for seq, width in ((seq_q, 5), (seq_k, 5), (seq_k, 4))]


def by_hand(q, k, v, spans, ramp, positions=None):
    """Σ m exp(s) v / Σ m exp(s), one pair at a time with exactly rounded sums, as the paper writes it."""
    q, k, v = (x.detach().numpy() for x in (q, k, v))
    (batch, heads, seq_q, dim_head), (seq_k, dim_v) = q.shape, v.shape[2:]
    out = np.zeros((batch, heads, seq_q, dim_v))
    for b, h, i in np.ndindex(batch, heads, seq_q):
        powers, values = [], []
        for j in range(min(seq_k, i + seq_k - seq_q + 1)):
            away = i + seq_k - seq_q - j
            if positions is not None and away >= len(positions):
                continue
            m = min(max((ramp + spans[h] - away) / ramp, 0), 1)
            key = k[b, h, j] + (0 if positions is None else positions[away].detach().numpy())
            powers.append(m * math.exp(math.fsum(q[b, h, i] * key) / math.sqrt(dim_head)))
            values.append(v[b, h, j])
        total = math.fsum(powers)
        for c in range(dim_v if total else 0):
            out[b, h, i, c] = math.fsum(p * value[c] for p, value in zip(powers, values, strict=True)) / total
    return out


@pytest.mark.parametrize(("seq_q", "seq_k"), SIZES)
@pytest.mark.parametrize("ramp", [1.0, 2.5, 8])
@pytest.mark.parametrize("distances", [None, 1, 4, 60])
def test_equals_the_paper_pair_by_pair(seq_q, seq_k, ramp, distances):
    q, k, v = draw(seq_q, seq_k)
    spans = [0.0, 2.3, 11.0]
    positions = None if distances is None else torch.from_numpy(np.random.default_rng(1).normal(size=(distances, 5)))
    out = span.adaptive_span_attention(q, k, v, torch.tensor(spans, dtype=torch.float64), ramp, positions)
    expected = by_hand(q, k, v, spans, ramp, positions)
    keys = k if positions is None else torch.cat([k.flatten(0, 2), 3 * positions])        # at most this long, added up
    # the mask's own rounding: a few u of 1, or of (ramp + span) / ramp at its end, where it is small and counts little
    assert out.shape == expected.shape
    bound = rounding(q.numpy(), keys.numpy(), v.numpy()) + 1e-14 if v.numel() else 0
    assert np.abs(out.numpy() - expected).max(initial=0) <= 4 * bound


@pytest.mark.parametrize("left", [0, 1, 5, 20, 70])
def test_whole_spans_and_a_ramp_of_one_are_a_window(left):
    q, k, v = draw(40, 50)
    out = span.adaptive_span_attention(q, k, v, torch.full((3,), float(left), dtype=torch.float64), 1.0)
    mask = torch.from_numpy(masks.to_array(masks.sliding_window(left), 40, 50))
    assert (out - layers.attention(q, k, v, mask)[0]).abs().max() <= rounding(q.numpy(), k.numpy(), v.numpy())


@pytest.mark.parametrize("block_size", [1, 2, 7, 16, 64, 100])
def test_blocks_do_not_matter(block_size):
    q, k, v = (x[:, 0] for x in draw(37, 45))
    expected = span.span_head(q, k, v, 9, 6.5, 3.0)
    assert (span.span_head(q, k, v, 9, 6.5, 3.0, block_size=block_size) - expected).abs().max() <= rounding(q.numpy(), k.numpy(), v.numpy())


def test_soft_mask():
    distance = torch.arange(-2, 9)
    assert span.span_mask(distance, 3, 4.0).tolist() == [0, 0, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    assert span.span_reach(torch.tensor([3.0, 3.1, 0.0, 0.0]), 4.0) == [6, 7, 3, 3]
    assert span.span_reach(torch.tensor([0.0]), 0.5) == [0]


@pytest.mark.parametrize("ramp", [0.5, 1.0, 2.5, 8.0, 32.0])
def test_reach_is_where_the_mask_ends(ramp):
    spans = torch.cat([torch.arange(0, 12, 0.37), torch.arange(12.0)])
    for z, left in zip(spans, span.span_reach(spans, ramp), strict=True):
        mask = span.span_mask(torch.arange(64), z, ramp)
        assert mask[left] > 0 and not mask[left + 1:].any()


def test_softmax_is_renormalised_and_overflows_nowhere():
    mask = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0], [1e-30, 0.0, 0.0]])
    weights = span.span_softmax(torch.tensor([[1e4, 1e4, 3e4]]).expand(3, 3), mask)
    assert torch.allclose(weights, torch.tensor([[2 / 3, 1 / 3, 0], [0, 0, 0], [1, 0, 0]]))
    # the largest score lies beyond the span: dividing out a softmax over all keys, as some code does, gives 0 / 0 here
    far = span.span_softmax(torch.tensor([[0.0, 200.0]]), torch.tensor([[1.0, 0.0]]))
    assert far.tolist() == [[1, 0]]


def test_gradcheck_with_spans_and_positions():
    q, k, v = (x[:1, :2].requires_grad_() for x in draw(6, 7))
    spans = torch.tensor([1.3, 4.6], dtype=torch.float64, requires_grad=True)
    positions = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: span.adaptive_span_attention(*x[:4], 2.5, x[4]), (q, k, v, spans, positions))


def test_spans_learn_from_the_ramp_alone():
    """A span whose ramp covers no key gets no gradient: the mask is 1 wherever there are keys."""
    q, k, v = draw(6, 6)
    spans = torch.tensor([20.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    out = span.adaptive_span_attention(q, k, v, spans, 2.0)
    gradient = torch.autograd.grad((out * torch.arange(4)).sum(), spans)[0]
    assert gradient[0] == 0 and gradient[1] != 0 and gradient[2] != 0


def test_what_is_out_of_reach_reaches_nobody():
    """NaN in keys that no head's band touches stays out, in results and gradients; one within reach of a block does not."""
    q, k, v = draw(4, 200)
    clean = span.adaptive_span_attention(q, k, v, torch.full((3,), 5.0, dtype=torch.float64), 3.0)
    for x in (k, v):
        x[..., :200 - 4 - 7, :] = torch.nan
    k.requires_grad_()
    out = span.adaptive_span_attention(q, k, v, torch.full((3,), 5.0, dtype=torch.float64), 3.0)
    assert torch.equal(out, clean)
    gradient = torch.autograd.grad(out.sum(), k)[0]
    assert torch.isfinite(gradient).all() and not gradient[..., :189, :].any() and gradient[..., 189:, :].any()


def test_unseen_keys_change_nothing():
    q, k, v = draw(20, 20)
    spans = torch.tensor([0.0, 2.5, 7.0], dtype=torch.float64)
    clean, reach = span.adaptive_span_attention(q, k, v, spans, 2.0), span.span_reach(spans, 2.0)
    for j in range(20):
        k2, v2 = k.clone(), v.clone()
        k2[..., j, :] += 3
        v2[..., j, :] -= 5
        changed = (span.adaptive_span_attention(q, k2, v2, spans, 2.0) != clean).any(-1).any(0)
        for h, left in enumerate(reach):
            assert changed[h].tolist() == [j <= i <= j + left for i in range(20)]


@pytest.mark.parametrize("spans", [[10.0, 50.0, 200.0], [0.0, 0.0, 0.0], [400.0, 3.0, 3.0]])
def test_time_follows_the_spans(spans):
    """Counted, not timed: blocks of queries, each with its own keys and those within reach before it, head by head."""
    q, k, v = draw(512, 512)
    tensor = torch.tensor(spans, dtype=torch.float64)
    counted = flops(lambda: span.adaptive_span_attention(q, k, v, tensor, 4.0))
    reach = span.span_reach(tensor, 4.0)
    blocks = [max(16, left // 4) for left in reach]
    pairs = sum(-(-512 // block) * block * (left + block) for left, block in zip(reach, blocks, strict=True))
    assert counted == 2 * 2 * (5 + 4) * pairs                # batch, multiply and add, two products
    assert costs.adaptive_span_pairs(512, reach) <= pairs < 3 * 512 * 520


# --- the layer -----------------------------------------------------------------------------------------------------

def test_layer_is_its_parts():
    torch.manual_seed(0)
    layer = span.AdaptiveSpanAttention(12, 3, max_span=9, ramp=2.0, start=0.5).double()
    x = torch.randn(2, 20, 12, dtype=torch.float64)
    q, k, v = (to(x).reshape(2, 20, 3, 4).transpose(1, 2) for to in (layer.to_q, layer.to_k, layer.to_v))
    heads = by_hand(q, k, v, [4.5] * 3, 2.0, layer.positions)
    expected = layer.to_out(torch.from_numpy(heads).transpose(1, 2).reshape(2, 20, 12))
    assert (layer(x) - expected).abs().max() <= 1e-12
    assert layer.reach() == [6, 6, 6] and layer.penalty().item() == 4.5


def test_layer_never_looks_beyond_its_largest_span():
    layer = span.AdaptiveSpanAttention(12, 3, max_span=9, ramp=4.0)
    assert layer.reach() == [9, 9, 9]
    x = torch.randn(30, 12, requires_grad=True)
    reached = torch.autograd.grad(layer(x)[20].sum(), x)[0].any(-1).nonzero().flatten().tolist()
    assert reached == list(range(11, 21))


def test_spans_stay_in_their_bounds():
    layer = span.AdaptiveSpanAttention(12, 3, max_span=9, ramp=4.0)
    layer.fraction.data.copy_(torch.tensor([-0.5, 0.5, 1.5]))
    assert layer.span.tolist() == [0, 4.5, 9]
    layer.keep_in_bounds()
    assert layer.fraction.tolist() == [0, 0.5, 1]


def test_penalty_pulls_each_span_alike():
    layer = span.AdaptiveSpanAttention(12, 3, max_span=9, ramp=4.0)
    layer.penalty().backward()
    assert torch.allclose(layer.fraction.grad, torch.full((3,), 9 / 3))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_layer_takes_any_leading_axes(lead):
    layer = span.AdaptiveSpanAttention(12, 3, max_span=9, ramp=4.0).double()
    x = torch.randn(*lead, 8, 12, dtype=torch.float64)
    for index in np.ndindex(lead):
        assert (layer(x)[index] - layer(x[index])).abs().max() <= 1e-12


@pytest.mark.parametrize(("call", "message"), [
    (lambda: span.span_mask(torch.arange(3), 2.0, 0), "span_mask: ramp is 0, expected a number above 0"),
    (lambda: span.span_mask(3, 2.0, 1), "span_mask: distance is of type int, expected"),
    (lambda: span.span_reach(zeros(2, 2), 1), "span_reach: span has shape (2, 2), expected (heads,)"),
    (lambda: span.span_softmax(zeros(3, 4), zeros(3, 5)), "span_softmax: mask has shape (3, 5), expected"),
    (lambda: span.span_softmax(zeros(3, 4), torch.ones(3, 4, dtype=torch.bool)), "span_softmax: mask has dtype bool, expected"),
    (lambda: span.span_head(zeros(5, 4), zeros(6, 4), zeros(6, 4), -1, 2.0, 1.0), "span_head: left is -1, expected at least 0"),
    (lambda: span.span_head(zeros(5, 4), zeros(6, 4), zeros(6, 4), 3, 2.0, 1.0, block_size=0), "span_head: block_size is 0, expected"),
    (lambda: span.AdaptiveSpanAttention(12, 5, 9, 2.0), "AdaptiveSpanAttention: heads is 5, expected a positive divisor of dim = 12"),
    (lambda: span.AdaptiveSpanAttention(12, 3, -1, 2.0), "AdaptiveSpanAttention: max_span is -1, expected"),
    (lambda: span.AdaptiveSpanAttention(12, 3, 9, 0), "AdaptiveSpanAttention: ramp is 0, expected"),
    (lambda: span.AdaptiveSpanAttention(12, 3, 9, 2.0)(torch.zeros(5, 11)), "AdaptiveSpanAttention: x has shape (5, 11), expected"),
])
def test_wrong_calls_are_refused_by_name(call, message):
    with pytest.raises((ValueError, TypeError)) as refused:
        call()
    assert message in str(refused.value)
