"""The forms that chapter 15 shows: equal to dense attention, and the fast forms equal to them."""

import pytest
import torch

from attnlib import layers, masks, sparse

torch.set_num_threads(1)


def draw(seq_q, seq_k=None):
    """q, k, v with gradients: two sequences, three heads."""
    generator = torch.Generator().manual_seed(seq_q)
    seq_k = seq_q if seq_k is None else seq_k
    shapes = (2, 3, seq_q, 6), (2, 3, seq_k, 6), (2, 3, seq_k, 5)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def assert_all_same(inputs, *results):
    """Results and gradients, to the rounding of sums of some hundred numbers near 1 in float64."""
    d_out = torch.randn(results[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = [(out, *torch.autograd.grad(out, inputs, d_out)) for out in results]
    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            assert (got - want).abs().max() < 1e-12


@pytest.mark.parametrize(("seq_q", "seq_k"), [(150, 150), (40, 130), (130, 40), (1, 1)])
@pytest.mark.parametrize("sides", [(0, 0), (9, 0), (70, 5), (500, 500)])
def test_window(seq_q, seq_k, sides):
    inputs = draw(seq_q, seq_k)
    mask = torch.from_numpy(masks.to_array(masks.sliding_window(*sides), seq_q, seq_k))
    assert_all_same(inputs, layers.attention(*inputs, mask)[0], sparse.window_in_blocks(*inputs, *sides),
                    sparse.sliding_window_attention(*inputs, *sides))


@pytest.mark.parametrize("predicate", [masks.causal, masks.sliding_window(9, 3), masks.bigbird(75, 8), masks.dilated(3, 7)])
@pytest.mark.parametrize(("seq_q", "seq_k", "block"), [(75, 75, 8), (20, 75, 16), (75, 75, 100)])
def test_blocks(predicate, seq_q, seq_k, block):
    inputs = draw(seq_q, seq_k)
    mask = torch.from_numpy(masks.to_array(predicate, seq_q, seq_k))
    assert_all_same(inputs, layers.attention(*inputs, mask)[0], sparse.block_sparse_in_rows(*inputs, mask, block),
                    sparse.block_sparse_attention(*inputs, predicate, block))
    assert (sparse.touched_blocks(mask, block).numpy() == (sparse.block_map(predicate, seq_q, seq_k, block).kinds[0] > 0)).all()


@pytest.mark.parametrize(("left", "step"), [(0, 1), (4, 3), (50, 5)])
def test_dilated(left, step):
    inputs = draw(150)
    mask = torch.from_numpy(masks.to_array(masks.dilated(left, step), 150))
    assert_all_same(inputs, layers.attention(*inputs, mask)[0], sparse.dilated_in_classes(*inputs, left, step),
                    sparse.dilated_attention(*inputs, left, step))


@pytest.mark.parametrize(("top_k", "block"), [(1, 8), (3, 8), (5, 16), (2, 40)])
def test_chosen(top_k, block):
    inputs = draw(80)
    assert_all_same(inputs, sparse.chosen_in_rows(*inputs, top_k, block), sparse.top_k_block_attention(*inputs, top_k, block))


def test_all_blocks_chosen_is_causal_attention():
    inputs = draw(48)
    mask = torch.from_numpy(masks.to_array(masks.causal, 48))
    assert_all_same(inputs, layers.attention(*inputs, mask)[0], sparse.chosen_in_rows(*inputs, 6, 8))


def test_a_window_off_by_one_is_seen():
    inputs = draw(100)
    with pytest.raises(AssertionError):
        assert_all_same(inputs, sparse.window_in_blocks(*inputs, 10), sparse.sliding_window_attention(*inputs, 9))


@pytest.mark.parametrize(("call", "words"), [
    (lambda q, k, v: sparse.window_in_blocks(q, k, v, -1), "left is -1"),
    (lambda q, k, v: sparse.dilated_in_classes(q, k, v, 2, 7), "step is 7, expected a divisor of the length 80"),
    (lambda q, k, v: sparse.chosen_in_rows(q, k, v, 2, 7), "block is 7, expected a divisor of the length 80"),
    (lambda q, k, v: sparse.block_sparse_in_rows(q, k, v, torch.ones(3, 3, dtype=torch.bool), 4), r"\(3, 3\)"),
])
def test_wrong_calls(call, words):
    with pytest.raises(ValueError, match=words):
        call(*draw(80))
