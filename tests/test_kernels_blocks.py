"""The block-sparse kernels in Triton's interpreter, the lists they walk, and mistakes planted in both."""

import math

import numpy as np
import pytest
import torch

from attnlib import kernels, masks, sparse

pytest.importorskip("triton")
from attnlib.kernels import _launch_blocks, blocks, index, shipped
from tests.kernel_rule import DEVICE, HALF, draw, here, judge, planted_file

torch.set_num_threads(1)


def far(q_idx, k_idx):
    """Only what lies at least 20 positions back: the first queries see nothing, the last keys are seen by nobody."""
    return k_idx <= q_idx - 20


def scattered(q_idx, k_idx):
    """A third of the pairs, without order; no block is whole, no two are alike."""
    return (q_idx * 7919 + k_idx * 104729 + q_idx * k_idx) % 3 == 0


DOCUMENTS = masks.both(masks.causal, lambda q_idx, k_idx: q_idx // 20 == k_idx // 20)
PATTERNS = {"all": lambda q_idx, k_idx: abs(q_idx) + k_idx >= 0, "causal": masks.causal, "window": masks.sliding_window(20, 5),
            "big bird": masks.bigbird(96, 16, 1, 1, 1), "documents": DOCUMENTS, "far": far, "scattered": scattered,
            "padding": masks.padding(np.array([97, 30]))}

#        batch, heads, kv_heads, seq_q, seq_k, dim, dim_v, pattern, block_size, tile
CASES = [(1, 1, 1, 64, 64, 32, 32, "all", 32, (32, 32)),                 # whole blocks only
         (1, 2, 1, 37, 53, 24, 40, "causal", 32, (16, 32)),              # odd lengths and widths, a group of heads, two tiles to a block
         (1, 1, 1, 60, 60, 16, 16, "window", 48, (16, 16)),              # a block that is no power of two: 6 bytes to a row of bits
         (1, 1, 1, 96, 96, 16, 16, "big bird", 16, (16, 16)),
         (2, 2, 2, 50, 50, 16, 24, "documents", 32, (32, 16)),
         (1, 1, 1, 50, 50, 16, 16, "far", 32, (16, 16)),                 # blind queries, unseen keys, empty lists on both sides
         (1, 1, 1, 40, 57, 16, 16, "scattered", 32, (32, 32)),
         (2, 2, 1, 33, 97, 16, 16, "padding", 32, (32, 32)),             # another map for each sequence
         (1, 2, 1, 33, 1, 16, 16, "all", 16, (16, 16))]


def mask_of(pattern, seq_q, seq_k):
    """bool (seq_q, seq_k), or (batch, 1, seq_q, seq_k)."""
    return torch.from_numpy(masks.to_array(PATTERNS[pattern], seq_q, seq_k)).to(DEVICE)


def lists_of(pattern, seq_q, seq_k, block_size):
    found = sparse.block_map(PATTERNS[pattern], seq_q, seq_k, block_size)
    return found, index.block_index(found)


def ours(q, k, v, d_out, pattern, block_size, tile):
    """{out, lse, d_q, d_k, d_v} by the kernels."""
    lists = lists_of(pattern, q.shape[-2], k.shape[-2], block_size)[1].to(DEVICE)
    out, lse2 = _launch_blocks.launch_blocks_forward(q, k, v, lists, block_size, tile)
    d_q, d_k, d_v = _launch_blocks.launch_blocks_backward(q, k, v, out, lse2, d_out, lists, block_size, tile)
    return {"out": out, "lse": lse2 * math.log(2), "d_q": d_q, "d_k": d_k, "d_v": d_v}


def check(case, dtype, tile=None):
    """The rule, for one case; a sequence with a map of its own is judged by itself."""
    *_, pattern, block_size, own = case
    q, k, v, d_out, d_lse = draw(case, dtype)
    got, seen = ours(q, k, v, d_out, pattern, block_size, tile or own), mask_of(pattern, *case[3:5])
    if seen.ndim == 2:
        return judge((q, k, v, d_out, 0 * d_lse), dtype, seen, got)
    return max(judge([x[i:i + 1] for x in (q, k, v, d_out, 0 * d_lse)], dtype, seen[i, 0], {name: x[i:i + 1] for name, x in got.items()})
               for i in range(len(q)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_errs_at_most_twice_as_much_as_pytorch(case):
    print(f"{check(case, torch.float32):.2f} times PyTorch's own error")


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("case", [CASES[1], CASES[5]], ids=str)
def test_half_precision_errs_at_most_twice_as_much_as_pytorch(case, dtype):
    print(f"{check(case, dtype):.2f} times PyTorch's own error")


@pytest.mark.skipif(DEVICE == "cpu", reason="what is shipped is for GPUs")
@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_shipped_tiles_err_at_most_twice_as_much_as_pytorch(case, dtype):
    q, k, v, d_out, d_lse = draw(case, dtype)
    seen = mask_of(case[7], *case[3:5])
    if seen.ndim == 2:
        judge((q, k, v, d_out, 0 * d_lse), dtype, seen, ours(q, k, v, d_out, *case[7:9], None))


PLANTS = [  # what is changed in attnlib/kernels/blocks.py, and the case that must notice
    ("range(begin * PER_BLOCK, middle * PER_BLOCK)", "range((begin + 1) * PER_BLOCK, middle * PER_BLOCK)", 0),   # a block is left out
    ("range(middle * PER_BLOCK, end * PER_BLOCK)", "range(middle * PER_BLOCK, (end - 1) * PER_BLOCK)", 1),
    ("row_sum, seen, scale, True", "row_sum, seen, scale, False", 1),    # the bits are not heeded
    ("[:, :, None] >> tl.arange(0, 8)", "[:, :, None] >> (7 - tl.arange(0, 8))", 1),   # read from the other end
    ("rows * (BLOCK // 8) + columns", "rows * (BLOCK // 8) + 0 * columns", 2),         # only the first byte of each row
    ("first_q % BLOCK, within", "0, within", 2),                         # the second tile of a block reads the bits of the first
    ("within, first_k % BLOCK", "within, 0", 2),
    ("BLOCK_Q, BLOCK_K).T", "BLOCK_Q, BLOCK_K)", 2),                     # queries taken for keys
    ("sequence * rows + row, row", "row, row", 7),                       # every sequence walks the first one's lists
    ("sequence = batch // map_of", "sequence = batch * 0", 7),
    ("range(group * steps)", "range(steps)", 1),                         # the first head of each group only
    ("blocks + middle + entry // PER_BLOCK", "blocks + begin + entry // PER_BLOCK", 1),
    ("head // group", "head % group", 1),
    ("acc * (scale / LOG2E)", "acc * scale", 1),
]


@pytest.mark.parametrize(("right", "wrong", "case"), PLANTS, ids=lambda text: str(text)[:40])
def test_a_planted_mistake_is_noticed(right, wrong, case, tmp_path, monkeypatch):
    planted = planted_file(blocks, right, wrong, tmp_path)
    for name in _launch_blocks.KERNELS:
        monkeypatch.setitem(_launch_blocks.KERNELS, name, getattr(planted, f"blocks_{name}_kernel"))
    with pytest.raises(AssertionError, match=r"error|not finite|-inf"), np.errstate(all="ignore"):
        check(CASES[case], torch.float32)


def walked(walk, sequences):
    """[{row: [(block, whether whole, pattern)]}] of each sequence, entry by entry."""
    first, partial, blocks_, pattern, _ = (x.tolist() for x in walk)
    rows = len(partial) // sequences
    return [{row: [(blocks_[i], i < partial[at], pattern[i]) for i in range(first[at], first[at + 1])]
             for row, at in enumerate(range(sequence * rows, (sequence + 1) * rows))} for sequence in range(sequences)]


def assert_lists_say_what_the_predicate_says(pattern, seq_q, seq_k, block_size, lists):
    """The mask, put together again from the lists of either side, is the predicate's; every list is in order."""
    truth = np.broadcast_to(masks.to_array(PATTERNS[pattern], seq_q, seq_k), (2, 1, seq_q, seq_k))[:, 0]
    sequences = len(sparse.block_map(PATTERNS[pattern], seq_q, seq_k, block_size).rows)
    bits = np.unpackbits(lists.bits.numpy(), axis=-1, bitorder="little")[..., :block_size].astype(bool)
    for walk, turned in ((lists.by_query, False), (lists.by_key, True)):
        for sequence, rows in enumerate(walked(walk, sequences)):
            mask = np.zeros((seq_q + block_size, seq_k + block_size), bool)
            for row, entries in rows.items():
                assert entries == sorted(entries, key=lambda each: (not each[1], each[0])), "whole blocks first, then by place"
                for block, whole, pattern_ in entries:
                    q_at, k_at = (block, row) if turned else (row, block)
                    at = np.s_[q_at * block_size:(q_at + 1) * block_size, k_at * block_size:(k_at + 1) * block_size]
                    assert not mask[at].any(), "a block stands twice"
                    assert not whole or (k_at + 1) * block_size <= seq_k, "a whole block reaches beyond the last key"
                    mask[at] = True if whole else bits[pattern_]
            assert (mask[:seq_q, :seq_k] == truth[sequence]).all() and not mask[:, seq_k:].any()
        lengths = np.diff(walk.first).reshape(sequences, -1)
        order = walk.order.numpy().reshape(sequences, -1)
        assert (np.sort(order) == np.arange(lengths.shape[1])).all()
        assert (np.diff(np.take_along_axis(lengths, order, 1)) <= 0).all(), "not the longest first"


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("seq_q", "seq_k", "block_size"), [(96, 96, 16), (70, 101, 32), (101, 70, 48), (5, 3, 64)])
def test_lists_say_what_the_predicate_says(pattern, seq_q, seq_k, block_size):
    if pattern == "padding" and seq_k < 97:
        pytest.skip("padding is made for at least 97 keys")
    assert_lists_say_what_the_predicate_says(pattern, seq_q, seq_k, block_size, lists_of(pattern, seq_q, seq_k, block_size)[1])


@pytest.mark.parametrize("spoil", [
    lambda walk: walk._replace(blocks=walk.blocks.flip(0)), lambda walk: walk._replace(partial=walk.first[1:]),
    lambda walk: walk._replace(pattern=0 * walk.pattern), lambda walk: walk._replace(order=walk.order.flip(0))], ids=range(4))
def test_wrong_lists_are_noticed(spoil):
    lists = lists_of("causal", 101, 70, 32)[1]
    with pytest.raises(AssertionError):
        assert_lists_say_what_the_predicate_says("causal", 101, 70, 32, lists._replace(by_query=spoil(lists.by_query)))


def test_equal_blocks_share_a_pattern():
    causal, window, scattered_ = (lists_of(name, 512, 512, 32)[1].bits for name in ("causal", "window", "scattered"))
    assert causal.shape == (1, 32, 4)                        # the triangle on the diagonal
    assert len(window) == 3                                  # one block back, the diagonal, one ahead
    assert len(scattered_) > 3
    sizes = [sum(x.numel() for walk in lists_of("window", n, n, 32)[1][:2] for x in walk) for n in (512, 1024)]
    assert sizes[1] / sizes[0] == pytest.approx(2, abs=0.1)  # the lists grow with the length, not with its square


def test_nothing_to_walk():
    for seq_q, seq_k in ((0, 0), (0, 5), (5, 0)):
        lists = lists_of("causal", seq_q, seq_k, 16)[1]
        assert lists.by_query.blocks.numel() == lists.by_key.blocks.numel() == 0
        q, k = torch.zeros(1, 1, seq_q, 16, device=DEVICE, requires_grad=True), torch.zeros(1, 1, seq_k, 16, device=DEVICE, requires_grad=True)
        out = kernels.block_sparse_attention(q, k, k, masks.causal, 16, backend="triton")
        assert out.shape == (1, 1, seq_q, 16) and not out.any()
        assert all(not g.any() for g in torch.autograd.grad(out.sum(), (q, k)))


def test_leading_axes_autograd_and_the_same_bits_again():
    q, k, v, d_out, _ = draw(CASES[7])
    q, k, v, d_out = q[:, None].repeat(1, 2, 1, 1, 1), k[:, None], v[:, None], d_out[:, None].repeat(1, 2, 1, 1, 1)
    found = sparse.block_map(PATTERNS["padding"], *CASES[7][3:5], 32)
    results = []
    for backend in ("triton", "triton", "torch"):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = kernels.block_sparse_attention(*leaves, found, backend=backend)
        results.append([out, *torch.autograd.grad(out, leaves, d_out)])
    for once, again, by_torch in zip(*results, strict=True):
        assert torch.equal(once, again)
        torch.testing.assert_close(once, by_torch, rtol=1e-5, atol=1e-4)     # float32 both
    assert [*vars(found)["_lists"]] == [q.device], "the lists were not kept with the map"


def test_what_nobody_sees_reaches_nothing():
    q, k, v, d_out, _ = draw(CASES[5])
    k[:, :, -1] = v[:, :, -1] = torch.nan
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = kernels.block_sparse_attention(*leaves, far, 32, backend="triton")
    assert all(torch.isfinite(x).all() for x in (out, *torch.autograd.grad(out, leaves, d_out)))


def test_what_is_saved_does_not_grow_with_the_square():
    q, k, v, *_ = (x.requires_grad_() for x in draw(CASES[0]))
    out = kernels.block_sparse_attention(q, k, v, masks.causal, 32, backend="triton")
    saved = out.grad_fn.next_functions[0][0].saved_tensors if not hasattr(out.grad_fn, "index") else out.grad_fn.saved_tensors
    assert sum(x.numel() for x in saved) == q.numel() + k.numel() + v.numel() + out.numel() + out[..., 0].numel()
    (slope,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@here
def test_on_a_cpu_it_is_the_sparse_rooms_own():
    q, k, v, *_ = draw(CASES[1], torch.float64)
    assert torch.equal(kernels.block_sparse_attention(q, k, v, masks.causal, 32), sparse.block_sparse_attention(q, k, v, masks.causal, 32))


@pytest.mark.parametrize(("changed", "error", "said"), [
    ({"block_size": 24}, ValueError, "block_size is 24, expected a multiple of 16"),
    ({"block_size": 0}, ValueError, "block_size is 0, expected at least 1"),
    ({"predicate": sparse.block_map(masks.causal, 4, 5, 16)}, ValueError, "seq_k = 5, expected one for 4, 4"),
    ({"predicate": "causal"}, TypeError, "predicate is of type str, expected a function"),
    ({"backend": "gpu"}, ValueError, "backend is 'gpu', expected None"),
    ({"dim": 512}, ValueError, "q has dim_head = 512, expected 1 to 256"),
    ({"dim": 0}, ValueError, "q has dim_head = 0, expected 1 to 256"),
    ({"dtype": torch.float64}, TypeError, "q has dtype float64, expected float16, bfloat16 or float32"),
    pytest.param({"dtype": torch.bfloat16}, TypeError, "q has dtype bfloat16, expected float16 or float32: Triton's interpreter", marks=here),
])
def test_wrong_calls(changed, error, said):
    q = torch.zeros(1, 1, 4, changed.get("dim", 16), dtype=changed.get("dtype", torch.float32), device=DEVICE)
    given = {"predicate": masks.causal, "block_size": 16, "backend": "triton"}
    with pytest.raises(error) as caught:
        kernels.block_sparse_attention(q, q, q, **{name: changed.get(name, value) for name, value in given.items()})
    assert said in str(caught.value)


def test_tiles_divide_the_block():
    for block_size in (16, 48, 64, 128, 256):
        for kernel in ("forward", "dkdv", "dq"):
            tiles = shipped.shipped_for_blocks(kernel, (9, 0), 16, 64, block_size)
            assert tiles and len(set(tiles)) == len(tiles)
            assert all(block_size % each.block_q == block_size % each.block_k == 0 for each in tiles)
    assert shipped.shipped_for_blocks("dq", (9, 0), 16, 64, 128) == shipped.shipped("dq", (9, 0), 16, 64)
    assert all(max(each[:2]) == 64 for each in shipped.shipped_for_blocks("forward", (9, 0), 16, 128, 64))
    with pytest.raises(ValueError, match="block_size is 24, expected a multiple of 16"):
        shipped.shipped_for_blocks("forward", (9, 0), 16, 64, 24)
