"""Sparse attention beyond the contracts: long enough for whole tiles, and that what is skipped is really skipped."""

import itertools

import numpy as np
import pytest
import torch

from attnlib import layers, masks, measure, sparse

torch.set_num_threads(1)
LENGTHS = [(300, 300), (130, 260), (260, 130), (1, 200)]


def draw(seq_q, seq_k, heads=4, kv_heads=2, dim_head=6, dim_v=5, dtype=torch.float64, batch=2):
    """Random q, k, v that ask for gradients."""
    generator = torch.Generator().manual_seed(seq_q * 1000 + seq_k)
    shapes = (batch, heads, seq_q, dim_head), (batch, kv_heads, seq_k, dim_head), (batch, kv_heads, seq_k, dim_v)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def dense(q, k, v, mask):
    """Masked attention with all scores, the keys repeated for the heads that share them."""
    group = q.shape[1] // k.shape[1]
    return layers.attention(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), mask)[0]


def assert_same(out, expected, inputs, bound=1e-12):
    """Results and gradients of two ways to compute the same; sums of some hundred numbers near 1, in float64."""
    d_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    for got, want in zip((out, *torch.autograd.grad(out, inputs, d_out)),
                         (expected, *torch.autograd.grad(expected, inputs, d_out)), strict=True):
        assert (got - want).abs().max() < bound


def array(predicate, q, k):
    return torch.from_numpy(masks.to_array(predicate, q.shape[-2], k.shape[-2]))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("sides", [(0, 0), (3, 0), (40, 17), (150, 0), (0, 9), (1000, 1000), (300, 1)])
def test_windows_of_many_tiles(lengths, sides):
    q, k, v = draw(*lengths)
    window = masks.sliding_window(*sides)
    assert_same(sparse.sliding_window_attention(q, k, v, *sides), dense(q, k, v, array(window, q, k)), (q, k, v))
    both = masks.either(masks.global_tokens(3), window)
    assert_same(sparse.global_window_attention(q, k, v, 3, *sides), dense(q, k, v, array(both, q, k)), (q, k, v))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("left", "step"), [(0, 1), (3, 2), (40, 3), (2, 300)])
def test_dilated_windows_of_many_tiles(lengths, left, step):
    q, k, v = draw(*lengths)
    expected = dense(q, k, v, array(masks.dilated(left, step), q, k))
    assert_same(sparse.dilated_attention(q, k, v, left, step), expected, (q, k, v))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("block_size", [7, 64, 128])
@pytest.mark.parametrize("predicate", [
    masks.causal, masks.sliding_window(30, 3), masks.padding(np.array([3, 200])), lambda q, k: (3 * q + 5 * k + q * k) % 4 != 1,
    masks.both(masks.causal, masks.padding(np.array([60, 0])))], ids=["causal", "window", "padding", "scattered", "causal padding"])
def test_blocks_of_any_predicate(lengths, block_size, predicate):
    q, k, v = draw(*lengths)
    out = sparse.block_sparse_attention(q, k, v, predicate, block_size)
    assert_same(out, dense(q, k, v, array(predicate, q, k)), (q, k, v))


@pytest.mark.parametrize("predicate", [masks.causal, masks.sliding_window(4, 2), masks.bigbird(40, 4), masks.dilated(3, 5)])
@pytest.mark.parametrize(("seq_q", "seq_k", "block_size"), [(40, 40, 8), (17, 40, 7), (40, 17, 5), (9, 9, 16)])
def test_a_block_map_says_what_the_mask_says(predicate, seq_q, seq_k, block_size):
    found = sparse.block_map(predicate, seq_q, seq_k, block_size)
    mask, computed = masks.to_array(predicate, seq_q, seq_k), 0
    for i, j in np.ndindex(-(-seq_q // block_size), -(-seq_k // block_size)):
        block = mask[i * block_size : (i + 1) * block_size, j * block_size : (j + 1) * block_size]
        assert found.kinds[0, i, j] == (2 if block.all() else 1 if block.any() else 0)
        computed += block.size * bool(block.any())
    assert found.fraction == computed / mask.size
    assert np.array_equal(found.seen[0].numpy(), mask.any(0))


def selection_mask(q, k, top_k, block_size, query_block, causal):
    """The pairs that chosen blocks allow, one block of queries at a time, by the words of the docstring."""
    (batch, heads, seq_q, dim_head), (kv_heads, seq_k) = q.shape, k.shape[1:3]
    starts, ahead, group = range(0, seq_k, block_size), seq_k - seq_q, heads // kv_heads
    mask = torch.zeros(batch, heads, seq_q, seq_k, dtype=torch.bool)
    means = [k[:, :, start : start + block_size].mean(2) for start in starts]
    together = {}
    for i in range(seq_q):
        if not causal or i + ahead >= 0:
            together.setdefault((i + ahead) // query_block, []).append(i)
    for (number, rows), b, g in ((each, b, g) for each in together.items() for b in range(batch) for g in range(kv_heads)):
        own = number * query_block // block_size
        there = [j for j in range(len(starts)) if not causal or j < own]
        total = torch.zeros(len(there), dtype=q.dtype)
        for h in range(g * group, (g + 1) * group):
            asks = q[b, h, rows[0]] if causal else q[b, h, rows].mean(0)
            if there:
                total += torch.softmax(torch.stack([asks @ means[j][b, g] for j in there]) / dim_head**0.5, 0)
        best = [there[at] for at in total.argsort(descending=True)[: top_k - causal].tolist()] + [own] * causal
        for i in rows:
            for j in best:
                for key in range(starts[j], min(starts[j] + block_size, seq_k)):
                    mask[b, g * group : (g + 1) * group, i, key] = not causal or key <= i + ahead
    return mask


@pytest.mark.parametrize("lengths", [(60, 60), (26, 52), (52, 26), (1, 30)])
@pytest.mark.parametrize(("block_size", "query_block", "top_k"), [(8, 8, 2), (8, 2, 3), (8, 1, 1), (13, 13, 2)])
@pytest.mark.parametrize("causal", [True, False])
def test_chosen_blocks_are_the_best(lengths, block_size, query_block, top_k, causal):
    q, k, v = draw(*lengths)
    mask = selection_mask(q.detach(), k.detach(), top_k, block_size, query_block, causal)
    out = sparse.top_k_block_attention(q, k, v, top_k, block_size, query_block, causal)
    assert_same(out, dense(q, k, v, mask), (q, k, v))


def leaks(attend, seq=48, at=29):
    """Whether changing the query, key and value of one token changes the result of an earlier one."""
    q, k, v = (x.detach() for x in draw(seq, seq))
    changed = [x.clone() for x in (q, k, v)]
    for x in changed:
        x[:, :, at] += 3
    return bool((attend(*changed)[:, :, :at] != attend(q, k, v)[:, :, :at]).any())


def test_no_later_token_takes_part_in_the_choice():
    assert not leaks(lambda q, k, v: sparse.top_k_block_attention(q, k, v, 2, 8))
    assert not leaks(lambda q, k, v: sparse.top_k_block_attention(q, k, v, 2, 8, 1))

    def mean_query(q, k, v):                                 # the usual mistake: the block's mean asks
        mean = q.unflatten(2, (-1, 8)).mean(3, keepdim=True).expand(-1, -1, -1, 8, -1).flatten(2, 3)
        mask = selection_mask(mean, k, 2, 8, 8, True)
        return dense(q, k, v, mask)

    assert leaks(mean_query)


@pytest.mark.parametrize(("query_block", "edges"), [(8, (0, 8, 32, 40)), (1, (0, 3, 17, 40))])
def test_chosen_blocks_in_chunks(query_block, edges):
    q, k, v = (x.detach() for x in draw(40, 40))
    whole = sparse.top_k_block_attention(q, k, v, 1, 8, query_block)
    for start, stop in itertools.pairwise(edges):
        part = sparse.top_k_block_attention(q[:, :, start:stop], k[:, :, :stop], v[:, :, :stop], 1, 8, query_block)
        assert (part - whole[:, :, start:stop]).abs().max() < 1e-13


# --- what is skipped is skipped ---------------------------------------------------------------------------------

def pairs_computed(attend, seq=1024, heads=2, dim_head=8):
    """Pairs of query and key for which both products are computed, forward; and forward and backward, in units of it."""
    q, k, v = draw(seq, seq, heads, heads, dim_head, dim_head, torch.float32, 1)
    forward = measure.flops(lambda: attend(q.detach(), k.detach(), v.detach()))
    both = measure.flops(lambda: attend(q, k, v).sum().backward())
    return forward / (4 * heads * dim_head), both / forward


SEQ = 1024
PATTERNS = {                                                 # name -> (attend, pairs that it may compute)
    "window": (lambda q, k, v: sparse.sliding_window_attention(q, k, v, 128), SEQ * (64 + 128)),
    "two-sided window": (lambda q, k, v: sparse.sliding_window_attention(q, k, v, 64, 64), SEQ * (64 + 128)),
    "dilated": (lambda q, k, v: sparse.dilated_attention(q, k, v, 128, 2), SEQ * (64 + 128)),
    "global": (lambda q, k, v: sparse.global_window_attention(q, k, v, 16, 128), SEQ * (64 + 128 + 16) + 16 * SEQ),
    "causal blocks": (lambda q, k, v: sparse.block_sparse_attention(q, k, v, masks.causal, 64), SEQ * (SEQ + 64) // 2),
    "big bird": (lambda q, k, v: sparse.bigbird_attention(q, k, v, 64), 64**2 * (16 * 5 + 16)),
    "chosen": (lambda q, k, v: sparse.top_k_block_attention(q, k, v, 3, 64), SEQ * 3 * 64 + 2 * 16 * 16),
    "planted: a mask alone": (lambda q, k, v: dense(q, k, v, array(masks.sliding_window(128), q, k)), SEQ * SEQ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_products_of_skipped_pairs_are_not_computed(name):
    attend, most = PATTERNS[name]
    pairs, both = pairs_computed(attend)
    print(f"{name}: {pairs:.0f} pairs computed, at most {most}, {most / SEQ**2:.1%} of all; with backward {both:.2f} times that")
    assert pairs <= most
    assert both <= 3.5 + 1e-9                                # seven products instead of two: scores are computed again
    assert (pairs == SEQ * SEQ) == name.startswith("planted")


@pytest.mark.parametrize("attend", [
    lambda q, k, v: sparse.sliding_window_attention(q, k, v, 128), lambda q, k, v: sparse.dilated_attention(q, k, v, 64, 4),
    lambda q, k, v: sparse.global_window_attention(q, k, v, 4, 128),
    lambda q, k, v: sparse.top_k_block_attention(q, k, v, 3, 64)], ids=["window", "dilated", "global", "chosen"])
def test_memory_grows_with_the_length_alone(attend):
    def bytes_for(seq):
        q, k, v = draw(seq, seq, 1, 1, 16, 16, torch.float32, 1)
        return measure.allocated_bytes(lambda: attend(q, k, v).sum().backward())

    small, large = bytes_for(2048), bytes_for(8192)
    assert large < 4.4 * small                               # four times as long; quadratic would be 16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    q, k, v = (x.detach().to(dtype) for x in draw(150, 150))
    for attend in (lambda *x: sparse.sliding_window_attention(*x, 40), lambda *x: sparse.top_k_block_attention(*x, 2, 32),
                   lambda *x: sparse.dilated_attention(*x, 4, 3), lambda *x: sparse.global_window_attention(*x, 4, 9),
                   lambda *x: sparse.block_sparse_attention(*x, masks.causal, 32)):
        out = attend(q, k, v)
        assert out.dtype == dtype
        assert torch.equal(out, attend(q.float(), k.float(), v.float()).to(dtype))


# --- merging --------------------------------------------------------------------------------------------------------

def test_two_partial_results_are_the_whole():
    q, k, v = (x.detach() for x in draw(5, 9, 2, 2))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    parts = []
    for keys in (slice(0, 4), slice(4, 9)):
        lse = torch.logsumexp(scores[..., keys], -1)
        parts += [torch.exp(scores[..., keys] - lse[..., None]) @ v[..., keys, :], lse]
    out, lse = sparse.merge_partial(*parts)
    assert (out - dense(q, k, v, None)).abs().max() < 1e-14
    assert (lse - torch.logsumexp(scores, -1)).abs().max() < 1e-14


def test_merging_nothing_with_nothing_gives_zeros_and_no_gradient():
    nothing = torch.zeros(3, 4, dtype=torch.float64), torch.full((3,), -torch.inf, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for x in (*nothing, *nothing)]
    out, lse = sparse.merge_partial(*inputs)
    assert not out.any()
    assert (lse == -torch.inf).all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(out.sum(), inputs))


def test_gradients_also_go_through_the_log_sum_exp():
    q, k, v = draw(6, 6, 1, 1, 3, 2, batch=1)

    def merged(q, k, v):
        return sparse.global_window_attention(q, k, v, 1, 2)

    assert torch.autograd.gradcheck(merged, (q, k, v))


# --- bad input ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda q, k, v: sparse.sliding_window_attention(q, k, v, -1), ValueError, "left is -1, expected at least 0"),
    (lambda q, k, v: sparse.sliding_window_attention(q, k[:, :, :, :5], v, 2), ValueError, "k has shape"),
    (lambda q, k, v: sparse.top_k_block_attention(q, k, v, 9, 8), ValueError, "top_k is 9, expected at most 3"),
    (lambda q, k, v: sparse.top_k_block_attention(q, k, v, 1, 8, 3), ValueError, "expected a divisor of block_size = 8"),
    (lambda q, k, v: sparse.block_sparse_attention(q, k, v, masks.causal, 0), ValueError, "block_size is 0"),
    (lambda q, k, v: sparse.block_sparse_attention(q, k, v, "causal"), TypeError, "predicate is of type str"),
    (lambda q, k, v: sparse.dilated_attention(q, k, v, 2, 0), ValueError, "step is 0"),
    (lambda q, k, v: sparse.bigbird_attention(q, k, v, 4, window=-1), ValueError, "window is -1"),
    (lambda q, k, v: sparse.block_map(masks.causal, -1), ValueError, "seq_q is -1"),
])
def test_wrong_calls_say_what_was_expected(call, error, words):
    with pytest.raises(error, match=words) as refusal:
        call(*draw(20, 20))
    print(refusal.value)
