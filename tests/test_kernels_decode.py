"""Decoding with split keys, in Triton's interpreter: against float64, for every split, with filling, and with mistakes planted."""

import numpy as np
import pytest
import torch

from attnlib import cache, kernels
from attnlib.kernels import decode
from tests.kernel_rule import DEVICE, HALF, planted_file

torch.set_num_threads(1)

#        heads, kv_heads, seq_q, seq_k, dim, dim_v
CASES = [(4, 4, 1, 64, 32, 32), (8, 2, 1, 100, 24, 40), (6, 1, 1, 33, 16, 16), (4, 2, 3, 70, 20, 8), (2, 1, 5, 3, 16, 16), (2, 2, 1, 1, 64, 64)]


def draw(case, dtype=torch.float32, batch=2):
    heads, kv_heads, seq_q, seq_k, dim, dim_v = case
    rng = np.random.default_rng(sum(case))
    shapes = (batch, heads, seq_q, dim), (batch, kv_heads, seq_k, dim), (batch, kv_heads, seq_k, dim_v)
    q, k, v = (torch.from_numpy(rng.normal(size=shape)) for shape in shapes)
    k = k + torch.linspace(-1, 2, seq_k, dtype=k.dtype)[:, None] * torch.linspace(-1, 1, dim, dtype=k.dtype)  # the maximum moves from part to part
    return [x.to(DEVICE, dtype) for x in (2 * q, k, v)]


def check(q, k, v, lengths=None, splits=None):
    """An error at most twice PyTorch's own in the same precision, and a few last digits for its luck."""
    got = kernels.decode_attention(q, k, v, lengths, splits, backend="triton")
    truth = kernels.decode_attention(*(x.double() for x in (q, k, v)), lengths, backend="torch")
    plain = kernels.decode_attention(q, k, v, lengths, backend="torch")
    assert got.shape == truth.shape and got.dtype == q.dtype
    error, allowed = (got - truth).abs().max().item(), (plain - truth).abs().max().item()
    floor = 4 * torch.finfo(q.dtype).eps * truth.abs().max().clamp(min=1e-3).item()
    assert error <= 2 * allowed + floor, f"error {error:.1e}, PyTorch's own {allowed:.1e}"


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("splits", [None, 1, 2, 3, 100])
def test_every_split_gives_the_same(case, splits):
    check(*draw(case), splits=splits)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision(case):
    for dtype in HALF:
        check(*draw(case, dtype))


def test_lengths_hide_the_filling():
    q, k, v = draw((4, 2, 1, 90, 16, 24), batch=4)
    lengths = torch.tensor([90, 1, 47, 16], device=DEVICE)
    check(q, k, v, lengths, splits=4)
    for b, length in enumerate(lengths.tolist()):            # what lies behind may be anything
        k[b, :, length:], v[b, :, length:] = torch.nan, torch.inf
    check(q, k, v, lengths, splits=4)
    out = kernels.decode_attention(q, k, v, torch.tensor([3, 0, 5, 0], device=DEVICE), backend="triton")
    assert not out[[1, 3]].any() and torch.isfinite(out).all()


def test_strides_and_leading_axes():
    q, k, v = draw((4, 2, 2, 50, 16, 16))
    whole = kernels.decode_attention(q, k, v, splits=2, backend="triton")
    spread = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(kernels.decode_attention(*spread, splits=2, backend="triton"), whole)
    assert torch.equal(kernels.decode_attention(q[0], k[0], v[0], splits=2, backend="triton"), whole[0])
    assert torch.equal(kernels.decode_attention(q[None], k[None], v[None], torch.tensor(50, device=DEVICE), 2, "triton"), whole[None])


@pytest.mark.skipif(DEVICE != "cpu", reason="is about processors without a GPU")
def test_on_a_cpu_it_is_the_caches_own():
    q, k, v = draw(CASES[3], torch.float64)
    assert torch.equal(kernels.decode_attention(q, k, v), cache.decode_attention(q, k, v))


@pytest.mark.skipif(DEVICE != "cpu", reason="some of these are not looked for on a GPU, which would have to wait")
@pytest.mark.parametrize(("change", "error", "says"), [
    ({"splits": 0}, ValueError, "splits is 0, expected at least 1"),
    ({"splits": 2.0}, TypeError, "splits is of type float, expected an int"),
    ({"lengths": [1, 2]}, TypeError, "lengths is of type list, expected an int32 or int64 tensor"),
    ({"lengths": torch.tensor([1.0, 2.0])}, TypeError, r"lengths is of type torch\.float32, expected"),
    ({"lengths": torch.tensor([1, 2, 3])}, ValueError, r"lengths has shape \(3,\), expected one that broadcasts to \(2,\)"),
    ({"lengths": torch.tensor([1, 71])}, ValueError, "lengths is 1 to 71, expected 0 to 70"),
    ({"q": torch.zeros(2, 4, 40, 20)}, ValueError, "q has 2 heads of 40 queries to a key head, expected at most 64 in all"),
    ({"q": torch.zeros(2, 3, 1, 20)}, ValueError, "k has shape .* expected"),
    ({"backend": "cuda"}, ValueError, "backend is 'cuda', expected"),
])
def test_wrong_calls(change, error, says):
    q, k, v = draw(CASES[3])
    with pytest.raises(error, match=f"decode_attention: {says}"):
        kernels.decode_attention(**{"q": q, "k": k, "v": v, "backend": "triton", **change})


PLANTS = [
    ("shares = tl.exp2(lse2s - largest)", "shares = tl.where(splits < parts, 1.0, 0.0)"),          # a plain mean of the parts
    ("last = own % seq_q + stop - seq_q", "last = own // 1 * 0 + stop - 1"),                       # later queries' keys are seen
    ("first_k = split * part", "first_k = split * part + BLOCK_K * (split > 0)"),                  # a tile lost between two parts
    ("end = tl.minimum(first_k + part, stop)", "end = stop"),                                      # parts overlap
    ("row_max + tl.log2(divisor)", "row_max"),                                                     # the sum is missing in lse
]


@pytest.mark.parametrize(("right", "wrong"), PLANTS, ids=lambda text: text[:30])
def test_a_planted_mistake_is_noticed(right, wrong, tmp_path, monkeypatch):
    planted = planted_file(decode, right, wrong, tmp_path)
    monkeypatch.setattr(decode, "split_kernel", planted.split_kernel)
    monkeypatch.setattr(decode, "merge_kernel", planted.merge_kernel)
    with pytest.raises(AssertionError):
        check(*draw((4, 2, 3, 70, 20, 8)), splits=3)
