"""How the block-sparse kernels are launched: as the others are, with tiles that divide a block."""

import functools

import torch
import triton
from torch.autograd.function import once_differentiable
from triton.runtime.interpreter import InterpretedFunction

from attnlib.kernels._launch import _near, _on, launch_delta, scale_of
from attnlib.kernels.blocks import blocks_dkdv_kernel, blocks_dq_kernel, blocks_forward_kernel
from attnlib.kernels.shipped import constants, shipped_for_blocks

KERNELS = {"forward": blocks_forward_kernel, "dkdv": blocks_dkdv_kernel, "dq": blocks_dq_kernel}


class BlockKernels(torch.autograd.Function):
    """`out` of block-sparse attention; saves q, k, v, out and lse, nothing of size seq²."""

    @staticmethod
    def forward(ctx, q, k, v, index, block_size):
        """q (batch, heads, seq_q, dim_head), k and v (batch, kv_heads, seq_k, ...)."""
        out, lse2 = launch_blocks_forward(q, k, v, index, block_size)
        ctx.save_for_backward(q, k, v, out, lse2)
        ctx.index, ctx.block_size = index, block_size
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        """Delta as for all pairs, then d_k with d_v by the lists of the blocks of keys, then d_q."""
        return *launch_blocks_backward(*ctx.saved_tensors, d_out, ctx.index, ctx.block_size), None, None


def launch_blocks_forward(q, k, v, index, block_size, tile=None):
    """(out, lse2); `tile` = (BLOCK_Q, BLOCK_K) instead of what is shipped."""
    q, k, v = (_near(x) for x in (q, k, v))
    batch, heads, seq_q, dim, kv_heads, seq_k, dim_v = *q.shape, *v.shape[1:]
    out, lse2 = q.new_empty(batch, heads, seq_q, dim_v), q.new_empty(batch, heads, seq_q, dtype=torch.float32)
    _launch("forward", batch * heads, seq_q, block_size, tile, q, k, v, out, lse2, *index.by_query, index.bits,
            q.stride(), k.stride(), v.stride(), out.stride(), scale_of(dim), heads, heads // kv_heads, seq_q, seq_k,
            _map_of(batch, index.by_query, seq_q, block_size), **constants(dim, dim_v))
    return out, lse2


def launch_blocks_backward(q, k, v, out, lse2, d_out, index, block_size, tile=None):
    """(d_q, d_k, d_v)."""
    q, k, v, d_out = (_near(x) for x in (q, k, v, d_out))
    batch, heads, seq_q, dim, kv_heads, seq_k, dim_v = *q.shape, *v.shape[1:]
    d_q, d_k, d_v = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta, known = launch_delta(out, d_out, torch.zeros_like(lse2)), constants(dim, dim_v)
    inputs, strides = (q, k, v, d_out, lse2, delta), [x.stride() for x in (q, k, v, d_out)]
    common = heads // kv_heads, seq_q, seq_k
    _launch("dkdv", batch * kv_heads, seq_k, block_size, tile, *inputs, d_k, d_v, *index.by_key, index.bits,
            *strides, d_k.stride(), d_v.stride(), scale_of(dim), kv_heads, *common, _map_of(batch, index.by_key, seq_k, block_size), **known)
    _launch("dq", batch * heads, seq_q, block_size, tile, *inputs, d_q, *index.by_query, index.bits,
            *strides, d_q.stride(), scale_of(dim), heads, *common, _map_of(batch, index.by_query, seq_q, block_size), **known)
    return d_q, d_k, d_v


def _map_of(batch, walk, seq, block_size):
    """How many of the batch share a map."""
    return batch // max(1, len(walk.order) // max(1, triton.cdiv(seq, block_size)))


def _launch(name, items, seq, block_size, tile, *args, **known):
    """One program for each tile of each block of each item: of queries, or for "dkdv" of keys."""
    if items * seq == 0:
        return
    x, kernel, axis = args[0], KERNELS[name], "BLOCK_K" if name == "dkdv" else "BLOCK_Q"
    known = {**known, "BLOCK": block_size}
    programs = items * triton.cdiv(seq, block_size)
    with _on(x):
        if isinstance(kernel, InterpretedFunction):
            block_q, block_k = tile or (16, 16)
            own = block_k if name == "dkdv" else block_q
            kernel[(programs * (block_size // own),)](*args, BLOCK_Q=block_q, BLOCK_K=block_k, **known)
            return
        width = max(known["DIM"], known["DIM_V"])
        choice = shipped_for_blocks(name, torch.cuda.get_device_capability(x.device), 8 * x.element_size(), width, block_size)
        choice = choice if tile is None else [each._replace(block_q=tile[0], block_k=tile[1]) for each in choice[-1:]]
        tuned = _tuned(name, tuple(choice), x.device.index, (seq - 1).bit_length())
        tuned[lambda meta: (programs * (block_size // meta[axis]),)](*args, **known)


@functools.cache
def _tuned(name, choice, device, magnitude):
    """The kernel, which times its tiles at its first call for each device, magnitude of the sequence, and kind of argument."""
    configs = [triton.Config({"BLOCK_Q": each.block_q, "BLOCK_K": each.block_k}, num_warps=each.warps, num_stages=each.stages)
               for each in choice]
    return triton.autotune(configs, key=["BLOCK", "DIM", "DIM_V"])(KERNELS[name])
