"""Decoding as two kernels: each program reads some of the keys of one key head, then the parts of each query are merged."""

import triton
import triton.language as tl

from attnlib.kernels.forward import attend_tile, head_start, load_tile


@triton.jit
def split_kernel(
    q, k, v, part_out, part_lse2, lengths, q_strides, k_strides, v_strides, scale, kv_heads, rows, seq_q, seq_k, part,
    RAGGED: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):
    """Result and base-2 log-sum-exp of the queries of one key head over `part` of its keys.

    q is (batch, kv_heads, rows, DIM): the newest seq_q queries of every query head that shares this key head, one head after
    the other, so that keys are read once for all of them. Launched with (batch · kv_heads, parts) programs; RAGGED: sequence b
    has lengths[b] keys, the rest is filling. part_out (batch · kv_heads, parts, rows, BLOCK_V), part_lse2 (…, parts, rows).
    """
    item, split = tl.program_id(0), tl.program_id(1)
    batch, kv_head = item // kv_heads, item % kv_heads
    stop = seq_k
    if RAGGED:
        stop = tl.load(lengths + batch)
    q_tile = load_tile(head_start(q, batch, kv_head, q_strides), 0, rows, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
    k_head, v_head = head_start(k, batch, kv_head, k_strides), head_start(v, batch, kv_head, v_strides)
    own = tl.arange(0, BLOCK_Q)
    last = own % seq_q + stop - seq_q                        # the last key that each row sees: aligned to the end

    row_max = tl.full([BLOCK_Q], -3e38, tl.float32)
    row_sum = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_V], tl.float32)
    first_k = split * part
    whole = tl.minimum(first_k + part, tl.maximum(stop - seq_q + 1, 0)) // BLOCK_K * BLOCK_K  # up to here every row sees every key
    end = tl.minimum(first_k + part, stop)
    for first in range(first_k, whole, BLOCK_K):
        k_tile = load_tile(k_head, first, stop, k_strides, BLOCK_K, DIM, BLOCK_D, True)
        v_tile = load_tile(v_head, first, stop, v_strides, BLOCK_K, DIM_V, BLOCK_V, True)
        acc, row_max, row_sum = attend_tile(q_tile, k_tile, v_tile, acc, row_max, row_sum, None, scale, False, PRECISION)
    for first in range(tl.maximum(first_k, whole), end, BLOCK_K):
        k_tile = load_tile(k_head, first, stop, k_strides, BLOCK_K, DIM, BLOCK_D, False)
        v_tile = load_tile(v_head, first, stop, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)
        seen = first + tl.arange(0, BLOCK_K)[None, :] <= last[:, None]
        acc, row_max, row_sum = attend_tile(q_tile, k_tile, v_tile, acc, row_max, row_sum, seen, scale, True, PRECISION)

    divisor = tl.maximum(row_sum, 1e-30)
    at = (item.to(tl.int64) * tl.num_programs(1) + split) * rows + own       # (item, split, row)
    columns = tl.arange(0, BLOCK_V)[None, :]
    tl.store(part_out + at[:, None] * BLOCK_V + columns, acc / divisor[:, None], mask=(own < rows)[:, None])
    tl.store(part_lse2 + at, tl.where(row_sum > 0, row_max + tl.log2(divisor), -float("inf")), mask=own < rows)


@triton.jit
def merge_kernel(part_out, part_lse2, out, lse2, parts, rows, DIM_V: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_S: tl.constexpr):
    """Merge the parts of one row: each counts 2^(its lse2), as in `attnlib.flash.merge_partial` (arXiv 1805.02867, Eq. 4)."""
    row = tl.program_id(0).to(tl.int64)                      # of all (batch, kv_heads, rows)
    item, own = row // rows, row % rows
    splits, columns = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_V)
    at = (item * parts + splits) * rows + own
    lse2s = tl.load(part_lse2 + at, mask=splits < parts, other=-float("inf"))
    largest = tl.maximum(tl.max(lse2s, axis=0), -3e38)       # finite, also where no part saw a key
    shares = tl.exp2(lse2s - largest)                        # (BLOCK_S,)
    total = tl.sum(shares, axis=0)
    pieces = tl.load(part_out + at[:, None] * BLOCK_V + columns[None, :], mask=(splits < parts)[:, None], other=0.0)
    merged = tl.sum(pieces * shares[:, None], axis=0) / tl.maximum(total, 1)
    tl.store(out + row * DIM_V + columns, merged.to(out.dtype.element_ty), mask=columns < DIM_V)
    tl.store(lse2 + row, tl.where(total > 0, largest + tl.log2(tl.maximum(total, 1)), -float("inf")))
