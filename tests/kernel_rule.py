"""The rule that every kernel of attention is held to, in the interpreter or on a GPU; and mistakes planted in a kernel's source."""

import importlib.util
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE = os.environ.get("KERNELS_ON", "cpu")                 # "cuda" by `make test-gpu`: the kernels as they are compiled
HALF = [torch.float16] + [torch.bfloat16] * (DEVICE == "cuda")           # the interpreter computes bfloat16 wrongly
here = pytest.mark.skipif(DEVICE != "cpu", reason="is about processors without a GPU")
LEAVES = ("d_q", "d_k", "d_v")


def draw(case, dtype=torch.float32, seed=0):
    """q, k, v, and the gradients to send back through out and lse."""
    batch, heads, kv_heads, seq_q, seq_k, dim, dim_v = case[:7]
    rng = np.random.default_rng(seed)
    shapes = (heads, seq_q, dim), (kv_heads, seq_k, dim), (kv_heads, seq_k, dim_v), (heads, seq_q, dim_v), (heads, seq_q)
    q, k, v, d_out, d_lse = (torch.from_numpy(rng.normal(size=(batch, *shape))) for shape in shapes)
    q = 2 * q + 0.5 * torch.linspace(-3, 3, dim)             # scores that differ: the maximum moves from tile to tile
    k = k + 0.5 * torch.linspace(-3, 3, dim) * torch.linspace(-1, 2, seq_k)[:, None]
    return [x.to(DEVICE, dtype) for x in (q, k, v, d_out)] + [d_lse.to(DEVICE, torch.float32)]


def expected(q, k, v, d_out, d_lse, seen, how):
    """{out, lse, d_q, d_k, d_v} by `how`, of inputs as they come; seen (seq_q, seq_k) bool; blind queries give zeros."""
    q, k, v = (x.detach().clone().requires_grad_() for x in (q, k, v))
    sighted = seen.any(-1)
    group = q.shape[1] // k.shape[1]
    keys, values = (x.repeat_interleave(group, 1) for x in (k, v))
    out, lse = how(q[:, :, sighted], keys, values, seen[sighted])
    loss = (out * d_out[:, :, sighted]).sum() + (lse * d_lse[:, :, sighted]).sum().to(out.dtype)
    found = dict(zip(LEAVES, torch.autograd.grad(loss, (q, k, v)), strict=True))
    found["out"], found["lse"] = torch.zeros_like(d_out), torch.full(d_lse.shape, -torch.inf, dtype=lse.dtype)
    found["out"][:, :, sighted], found["lse"][:, :, sighted] = out.detach(), lse.detach()
    return {name: x.detach() for name, x in found.items()}


def by_hand(q, k, v, seen):
    """Softmax attention as the formula has it."""
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def pytorchs_own(q, k, v, seen):
    """The same by PyTorch's own attention, in the precision of its inputs."""
    with sdpa_kernel(SDPBackend.MATH):
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return out, (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf).logsumexp(-1)


def room(q, k, v, d_out, d_lse, seen, true):
    """What recomputing costs: PyTorch keeps the weights, a flash backward has them again from lse, and meets sums that cancel.

    In units of rounding, to first order: an error in lse, which is as large as its last digit, multiplies a weight; d_weights and
    delta are two sums of the same products in another order, and their difference may be nothing.
    """
    group = q.shape[1] // k.shape[1]
    keys, values = (x.repeat_interleave(group, 1) for x in (k, v))
    scale, lse = q.shape[-1] ** -0.5, true["lse"][..., None]
    weights = (q @ keys.mT * scale - lse).exp().masked_fill(~seen, 0)
    digits = 1 + lse.abs().nan_to_num(posinf=0)              # |lse| in units of 1
    sums = d_out.abs() @ values.abs().mT + (d_out * true["out"]).abs().sum(-1, keepdim=True) + d_lse.abs()[..., None]

    def shared(x):
        return x.unflatten(1, (-1, group)).sum(2)
    terms = weights * digits * sums * scale
    return {"out": 0 * true["out"], "lse": 0 * d_lse, "d_q": terms @ keys.abs(), "d_k": shared(terms.mT @ q.abs()),
            "d_v": shared((weights * digits).mT @ d_out.abs())}


def judge(inputs, dtype, seen, got):
    """Assert the rule: an error at most twice PyTorch's own in the same precision, one last digit for its luck, and `room`.

    inputs: q, k, v, d_out, d_lse; got: {out, lse, d_q, d_k, d_v}. Returns the worst error in units of what PyTorch errs.
    """
    true = expected(*(x.double() for x in inputs), seen, by_hand)
    base = expected(*inputs, seen, pytorchs_own)
    worst, slack = 0.0, room(*(x.double() for x in inputs), seen, true)
    for name, truth in true.items():
        blind = truth == -torch.inf
        assert torch.equal(got[name] == -torch.inf, blind), f"{name}: -inf at other places"
        truth, mine, theirs = (x.double().masked_fill(blind, 0) for x in (truth, got[name], base[name]))
        assert torch.isfinite(mine).all(), f"{name}: not finite"
        error, allowed = (mine - truth).abs().max().item(), (theirs - truth).abs().max().item()
        largest = truth.abs().max().item()
        floor = torch.finfo(dtype).eps * 2.0 ** math.floor(math.log2(largest)) if largest else 0.0  # its last digit
        floor += 2**-24 * slack[name].max().item()           # lse and sums are float32 whatever the inputs are
        assert error <= 2 * allowed + floor, f"{name}: error {error:.1e}, PyTorch's own {allowed:.1e}, floor {floor:.1e}"
        worst = max(worst, error / max(allowed, floor))
    return worst


def planted_file(module, right, wrong, folder):
    """The module once more, from a copy of its file in `folder` with a mistake in it: Triton reads a kernel's source from its file."""
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert right in source, "the source has changed: plant the mistake again"
    path = folder / f"planted_{Path(module.__file__).stem}.py"
    path.write_text(source.replace(right, wrong), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    planted = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(planted)
    return planted
