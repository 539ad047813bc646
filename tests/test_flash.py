"""FlashAttention in torch beyond the contracts: many tiles, the log-sum-exp, what is kept and what is skipped."""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attnlib import masks, measure
from attnlib.flash import _tiles, flash_attention, merge_partial
from tests.test_sparse import array, assert_same, dense, draw

torch.set_num_threads(1)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 48 queries and 32 keys, backward the other way round, so that a few hundred tokens are many."""
    for name, size in (("TILE_Q", 48), ("TILE_K", 32), ("BACK_Q", 32), ("BACK_K", 48)):
        monkeypatch.setattr(_tiles, name, size)


PREDICATES = {
    "causal": masks.causal, "window": masks.sliding_window(30, 3), "padding": masks.padding(np.array([3, 200])),
    "scattered": lambda q, k: (3 * q + 5 * k + q * k) % 4 != 1, "causal padding": masks.both(masks.causal, masks.padding(np.array([60, 0]))),
}


@pytest.mark.parametrize("lengths", [(300, 300), (130, 260), (260, 130), (1, 200)])
@pytest.mark.parametrize("predicate", [None, *PREDICATES.values()], ids=["full", *PREDICATES])
@pytest.mark.parametrize("causal", [False, True])
def test_many_tiles(small_tiles, lengths, predicate, causal):
    q, k, v = draw(*lengths)
    both = [each for each in (predicate, masks.causal if causal else None) if each]
    mask = array(masks.both(*both), q, k) if both else None
    for given in [predicate] if predicate is None else [predicate, array(predicate, q, k)]:
        assert_same(flash_attention(q, k, v, causal, given), dense(q, k, v, mask), (q, k, v))


def test_a_mask_for_each_head(small_tiles):
    q, k, v = draw(70, 90)
    mask = torch.rand(2, 4, 70, 90, generator=torch.Generator().manual_seed(3)) < 0.3
    for part in (mask, mask[:1], mask[:, :1], mask[0], mask[0, 0], mask[:, :, :1], mask[..., :1]):
        assert_same(flash_attention(q, k, v, mask=part), dense(q, k, v, part.expand(2, 4, 70, 90)), (q, k, v))


def test_any_leading_axes():
    q, k, v = (torch.randn(3, 1, 2, 4, 9, 5, dtype=torch.float64), torch.randn(2, 2, 2, 11, 5, dtype=torch.float64),
               torch.randn(1, 2, 11, 6, dtype=torch.float64))
    out = flash_attention(q, k, v, causal=True)
    assert out.shape == (3, 2, 2, 4, 9, 6)
    whole = k.expand(3, 2, 2, 2, 11, 5), v.expand(3, 2, 2, 2, 11, 6)
    for at in np.ndindex(3, 2, 2):
        own = [x[at] for x in (q.expand(3, 2, 2, 4, 9, 5), *whole)]
        # the same products in the same order
        assert torch.equal(out[at], flash_attention(*own, causal=True))
    assert flash_attention(q[0, 0, 0], k[0, 0], v[0], causal=True).shape == (4, 9, 6)


def test_transposed_inputs_are_read_where_they_lie(small_tiles):
    """Layers hand over (batch, seq, heads, dim_head) transposed; gradients come back in any layout."""
    q, k, v = (torch.randn(2, 100, 4, 8, dtype=torch.float64).transpose(1, 2).requires_grad_() for _ in range(3))
    assert_same(flash_attention(q, k, v, causal=True), dense(q, k, v, array(masks.causal, q, k)), (q, k, v))


@pytest.mark.parametrize("causal", [False, True])
def test_lse_and_its_gradient(small_tiles, causal):
    q, k, v = draw(100, 70)
    scores = q @ k.repeat_interleave(2, 1).mT / 6**0.5
    if causal:
        scores = scores.masked_fill(~array(masks.causal, q, k), -torch.inf)
    out, lse = flash_attention(q, k, v, causal, return_lse=True)
    expected = scores.logsumexp(-1)
    sighted = expected > -torch.inf
    assert torch.equal(lse == -torch.inf, ~sighted) and (30 if causal else 0) == (~sighted[0, 0]).sum()
    assert (lse - expected)[sighted].abs().max() < 1e-12      # sums of a hundred numbers near 1
    d_lse = torch.randn(lse.shape, generator=torch.Generator().manual_seed(5), dtype=lse.dtype)
    both = [(torch.where(sighted, each, 0) * d_lse).sum() + result.square().sum()
            for each, result in ((lse, out), (expected, dense(q, k, v, array(masks.causal, q, k) if causal else None)))]
    for got, want in zip(torch.autograd.grad(both[0], (q, k)), torch.autograd.grad(both[1], (q, k)), strict=True):
        assert (got - want.nan_to_num(0)).abs().max() < 1e-11


def test_parts_merge_into_the_whole(small_tiles):
    q, k, v = draw(60, 150)
    parts = [flash_attention(q, k[:, :, keys], v[:, :, keys], return_lse=True) for keys in (slice(0, 90), slice(90, 150))]
    assert_same(merge_partial(*parts[0], *parts[1])[0], flash_attention(q, k, v), (q, k, v))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    q, k, v = (each.detach().to(dtype) for each in draw(200, 300, dim_head=32, dim_v=32))
    out = flash_attention(q, k, v)
    assert out.dtype == dtype
    truth = flash_attention(*(each.double() for each in (q, k, v)))
    # rounding the result to half precision, half a unit in the last place, and nothing else of that size
    assert ((out.double() - truth).abs() <= 0.51 * torch.finfo(dtype).eps * truth.abs() + 1e-6).all()


def test_nothing_of_the_size_of_the_scores_is_kept_or_made():
    """4096 tokens, two heads: the scores would be 128 MiB. q, k, v are 1 MiB each."""
    q, k, v = (torch.randn(1, 2, 4096, 32, requires_grad=True) for _ in range(3))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        flash_attention(q, k, v)
    assert sum(kept) == 4 * q.numel() + 2 * 4096             # q, k, v, out and a number for each row
    made = measure.allocated_bytes(lambda: torch.autograd.grad(flash_attention(q, k, v).sum(), (q, k, v)))
    assert made < 12 * 2**20                                 # out, its gradient, three gradients, two tiles of 1 MiB
    with_scores = measure.allocated_bytes(lambda: torch.autograd.grad(dense(q, k, v, None).sum(), (q, k, v)))
    assert with_scores > 128 * 2**20                         # planted: the same check sees the scores


@pytest.mark.parametrize(("predicate", "causal"), [
    (masks.causal, False), (None, True), (masks.sliding_window(100), False), (masks.sliding_window(100), True)])
def test_tiles_that_nobody_sees_are_skipped(monkeypatch, small_tiles, predicate, causal):
    pairs = []
    real = _tiles.forward_tile
    monkeypatch.setattr(_tiles, "forward_tile", lambda *args: pairs.append(args[6].numel()) or real(*args))
    q, k, v = (each.detach() for each in draw(1920, 1920, heads=1, kv_heads=1, batch=1))
    flash_attention(q, k, v, causal, predicate)
    seen = masks.to_array(predicate or masks.causal, 1920)
    touched = seen.reshape(1920 // 48, 48, 1920 // 32, 32).any((1, 3)).sum() * 48 * 32
    assert seen.sum() <= sum(pairs) <= touched < 0.6 * 1920**2


def test_gradients_of_gradients_are_refused():
    q, k, v = draw(5, 5)
    (d_q,) = torch.autograd.grad(flash_attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        d_q.sum().backward()


def test_under_no_grad_nothing_is_kept():
    q, k, v = draw(50, 50)
    with torch.no_grad():
        assert not flash_attention(q, k, v).requires_grad
    assert (flash_attention(q, k, v) - sdpa(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))).abs().max() < 1e-13


# --- planted mistakes --------------------------------------------------------------------------------------------

def planted(name):
    """The tile functions with one line wrong."""
    forward, backward = _tiles.forward_tile, _tiles.backward_tile

    def forgets_to_rescale(q, k, v, out, row_max, row_sum, scores, seen=None):
        before = out.clone(), row_sum.clone(), row_max.clone()
        forward(q, k, v, out, row_max, row_sum, scores, seen)
        first = before[2] == torch.finfo(q.dtype).min
        shrunk = torch.exp2(before[2] - row_max)
        out.add_(torch.where(first, 0, before[0] * (1 - shrunk)))
        row_sum.add_(torch.where(first, 0, before[1] * (1 - shrunk)))

    def forgets_delta(*args):
        backward(*args[:5], torch.zeros_like(args[5]), *args[6:])

    def takes_the_tiles_own_lse(q, k, v, d_out, lse2, *rest):
        scores = q @ k.T * _tiles.LOG2E / q.shape[-1] ** 0.5
        own = torch.logsumexp(scores / _tiles.LOG2E, -1, keepdim=True) * _tiles.LOG2E
        backward(q, k, v, d_out, own, *rest)

    return {"forgets_to_rescale": ("forward_tile", forgets_to_rescale), "forgets_delta": ("backward_tile", forgets_delta),
            "takes_the_tiles_own_lse": ("backward_tile", takes_the_tiles_own_lse)}[name]


@pytest.mark.parametrize("name", ["forgets_to_rescale", "forgets_delta", "takes_the_tiles_own_lse"])
def test_mistakes_are_seen(monkeypatch, small_tiles, name):
    monkeypatch.setattr(_tiles, *planted(name))
    q, k, v = draw(100, 100)
    with pytest.raises(AssertionError):
        assert_same(flash_attention(q, k, v), dense(q, k, v, None), (q, k, v))


def test_a_loop_that_drops_the_last_short_tile_is_seen(monkeypatch, small_tiles):
    monkeypatch.setattr(_tiles, "stretches", lambda start, stop, step: [slice(at, at + step) for at in range(start, stop - step + 1, step)])
    q, k, v = draw(100, 100)
    with pytest.raises(AssertionError):
        assert_same(flash_attention(q, k, v), dense(q, k, v, None), (q, k, v))
