"""How the kernels are launched: strides as they come, one program for each tile, tiles as shipped or as timed on the GPU."""

import contextlib
import functools
import math

import torch
import triton
from torch.autograd.function import once_differentiable
from triton.runtime.interpreter import InterpretedFunction

from attnlib.kernels.backward import delta_kernel, dkdv_kernel, dq_kernel
from attnlib.kernels.forward import forward_kernel
from attnlib.kernels.shipped import constants, shipped
from attnlib.kernels.softmax import softmax_kernel

KERNELS = {"forward": forward_kernel, "dkdv": dkdv_kernel, "dq": dq_kernel}


class Kernels(torch.autograd.Function):
    """(out, lse) of attention; saves q, k, v, out and lse, nothing of size seq²."""

    @staticmethod
    def forward(ctx, q, k, v, causal):
        """q (batch, heads, seq_q, dim_head), k and v (batch, kv_heads, seq_k, ...)."""
        out, lse2 = launch_forward(q, k, v, causal)
        ctx.save_for_backward(q, k, v, out, lse2)            # lse2 rather than lse: each rounding counts in an exponent
        ctx.causal = causal
        return out, lse2 * math.log(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out, d_lse):
        """Three kernels: delta, then d_k with d_v, then d_q."""
        return *launch_backward(*ctx.saved_tensors, d_out, d_lse, ctx.causal), None


def launch_forward(q, k, v, causal, tile=None):
    """(out, lse2); `tile` = (BLOCK_Q, BLOCK_K) instead of what is shipped."""
    q, k, v = (_near(x) for x in (q, k, v))
    batch, heads, seq_q, dim, kv_heads, seq_k, dim_v = *q.shape, *v.shape[1:]
    out, lse2 = q.new_empty(batch, heads, seq_q, dim_v), q.new_empty(batch, heads, seq_q, dtype=torch.float32)
    _launch("forward", batch * heads, seq_q, "BLOCK_Q", tile, max(seq_q, seq_k),
            q, k, v, out, lse2, q.stride(), k.stride(), v.stride(), out.stride(), scale_of(dim), heads, heads // kv_heads, seq_q, seq_k,
            CAUSAL=causal, **constants(dim, dim_v))
    return out, lse2


def launch_backward(q, k, v, out, lse2, d_out, d_lse, causal, tile=None):
    """(d_q, d_k, d_v)."""
    q, k, v, d_out = (_near(x) for x in (q, k, v, d_out))
    batch, heads, seq_q, dim, kv_heads, seq_k, dim_v = *q.shape, *v.shape[1:]
    d_q, d_k, d_v = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta, known = launch_delta(out, d_out, d_lse), constants(dim, dim_v)
    common = scale_of(dim), heads // kv_heads, seq_q, seq_k
    inputs, strides = (q, k, v, d_out, lse2, delta), [x.stride() for x in (q, k, v, d_out)]
    _launch("dkdv", batch * kv_heads, seq_k, "BLOCK_K", tile, max(seq_q, seq_k), *inputs, d_k, d_v, *strides, d_k.stride(), d_v.stride(),
            common[0], kv_heads, *common[1:], CAUSAL=causal, **known)
    _launch("dq", batch * heads, seq_q, "BLOCK_Q", tile, max(seq_q, seq_k), *inputs, d_q, *strides, d_q.stride(),
            common[0], heads, *common[1:], CAUSAL=causal, **known)
    return d_q, d_k, d_v


def launch_delta(out, d_out, d_lse):
    """delta (batch, heads, seq_q), float32."""
    batch, heads, seq_q, dim_v = out.shape
    delta = torch.empty(out.shape[:-1], dtype=torch.float32, device=out.device)
    if delta.numel():
        with _on(out):
            delta_kernel[(batch * heads * triton.cdiv(seq_q, 16),)](
                out, d_out, d_lse.contiguous(), delta, out.stride(), d_out.stride(), heads, seq_q,
                DIM_V=dim_v, BLOCK_V=constants(dim_v, dim_v)["BLOCK_V"], BLOCK_Q=16)
    return delta


def launch_softmax(x, out):
    """Fill out (rows, n_cols) with the softmax of the rows of x; both have neighbouring columns side by side."""
    rows, n_cols = x.shape
    block = triton.next_power_of_2(max(n_cols, 1))
    if rows and n_cols:
        with _on(x):
            softmax_kernel[(rows,)](x, out, x.stride(0), out.stride(0), n_cols, BLOCK=block, num_warps=softmax_warps(block))


def softmax_warps(block):
    """Warps for a row in a block of this length: at least 16 numbers to a thread before another joins."""
    return min(32, max(1, block // 512))


def scale_of(dim):
    """What a product of a query and a key is multiplied by: 1 / √dim, and log2(e) because the powers are of two."""
    return math.log2(math.e) / math.sqrt(dim)


def _launch(name, items, seq, axis, tile, longest, *args, **known):
    """One program for each tile of `axis` of each item."""
    if items * seq == 0:
        return
    x, kernel = args[0], KERNELS[name]
    with _on(x):
        if isinstance(kernel, InterpretedFunction):
            block_q, block_k = tile or (32, 32)
            kernel[(items * triton.cdiv(seq, block_q if axis == "BLOCK_Q" else block_k),)](
                *args, BLOCK_Q=block_q, BLOCK_K=block_k, **known)
            return
        width = max(known["DIM"], known["DIM_V"])
        choice = shipped(name, torch.cuda.get_device_capability(x.device), 8 * x.element_size(), width)
        choice = choice if tile is None else [each._replace(block_q=tile[0], block_k=tile[1]) for each in choice[-1:]]
        tuned = _tuned(name, tuple(choice), x.device.index, (longest - 1).bit_length())
        tuned[lambda meta: (items * triton.cdiv(seq, meta[axis]),)](*args, **known)


@functools.cache
def _tuned(name, choice, device, magnitude):
    """The kernel, which times the shipped tiles at its first call for each device, magnitude of the sequence, and kind of argument."""
    configs = [triton.Config({"BLOCK_Q": each.block_q, "BLOCK_K": each.block_k}, num_warps=each.warps, num_stages=each.stages)
               for each in choice]
    return triton.autotune(configs, key=["CAUSAL", "DIM", "DIM_V"])(KERNELS[name])


def _near(x):
    """x itself, or a copy where a tile of it would be so far spread that 32 bits do not reach across it."""
    return x if 256 * (abs(x.stride(-2)) + abs(x.stride(-1))) < 2**31 else x.clone(memory_format=torch.contiguous_format)


def _on(x):
    """Kernels are launched on the current device: make it that of x."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else contextlib.nullcontext()
