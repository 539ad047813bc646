"""Block-sparse attention as kernels: the walks of `forward.py` and `backward.py`, over a list of blocks instead of all of them."""

import triton
import triton.language as tl

from attnlib.kernels.backward import LOG2E, keys_tile, load_row_numbers, queries_tile
from attnlib.kernels.forward import attend_tile, head_start, load_tile, store_tile


@triton.jit
def whose_row(heads, seq, order, map_of, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """(batch, head, row of the map, first of TILE queries or keys) of this program: of one head the longest lists first."""
    rows = tl.cdiv(seq, BLOCK)
    tiles = rows * (BLOCK // TILE)
    item, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    batch = item // heads
    sequence = batch // map_of                               # `map_of` batches share one map
    row = tl.load(order + sequence * rows + tile // (BLOCK // TILE))
    return batch, item % heads, sequence * rows + row, row * BLOCK + tile % (BLOCK // TILE) * TILE


@triton.jit
def seen_in_pattern(bits, pattern, first_q, first_k, BLOCK: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """Whether queries first_q, ... of a block may see its keys first_k, ...: bool (BLOCK_Q, BLOCK_K), of one bit for each pair."""
    rows, columns = first_q + tl.arange(0, BLOCK_Q)[:, None], first_k // 8 + tl.arange(0, BLOCK_K // 8)[None, :]
    found = tl.load(bits + tl.cast(pattern, tl.int64) * (BLOCK * (BLOCK // 8)) + (rows * (BLOCK // 8) + columns))
    each = found[:, :, None] >> tl.arange(0, 8).to(tl.uint8)[None, None, :] & 1      # (BLOCK_Q, BLOCK_K / 8, 8)
    return tl.reshape(each, [BLOCK_Q, BLOCK_K]) != 0


@triton.jit
def blocks_forward_kernel(
    q, k, v, out, lse2, first, partial, blocks, pattern, order, bits, q_strides, k_strides, v_strides, out_strides,
    scale, heads, group, seq_q, seq_k, map_of,
    BLOCK: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):
    """`out` and `lse2` of BLOCK_Q queries of one head, from the blocks of keys in their row's list.

    Tiles divide a block: BLOCK is a multiple of BLOCK_Q and of BLOCK_K.
    """
    batch, head, row, first_q = whose_row(heads, seq_q, order, map_of, BLOCK, BLOCK_Q)
    q_tile = load_tile(head_start(q, batch, head, q_strides), first_q, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
    k_head, v_head = head_start(k, batch, head // group, k_strides), head_start(v, batch, head // group, v_strides)
    row_max, row_sum = tl.full([BLOCK_Q], -3e38, tl.float32), tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_V], tl.float32)

    PER_BLOCK: tl.constexpr = BLOCK // BLOCK_K               # steps in a block
    begin, middle, end = tl.load(first + row), tl.load(partial + row), tl.load(first + row + 1)
    for step in range(begin * PER_BLOCK, middle * PER_BLOCK):            # blocks allowed whole: no masks in here
        first_k = tl.load(blocks + step // PER_BLOCK) * BLOCK + step % PER_BLOCK * BLOCK_K
        k_tile = load_tile(k_head, first_k, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, True)
        v_tile = load_tile(v_head, first_k, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, True)
        acc, row_max, row_sum = attend_tile(q_tile, k_tile, v_tile, acc, row_max, row_sum, None, scale, False, PRECISION)
    for step in range(middle * PER_BLOCK, end * PER_BLOCK):
        within = step % PER_BLOCK * BLOCK_K
        first_k = tl.load(blocks + step // PER_BLOCK) * BLOCK + within
        k_tile = load_tile(k_head, first_k, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, False)
        v_tile = load_tile(v_head, first_k, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)
        seen = seen_in_pattern(bits, tl.load(pattern + step // PER_BLOCK), first_q % BLOCK, within, BLOCK, BLOCK_Q, BLOCK_K)
        acc, row_max, row_sum = attend_tile(q_tile, k_tile, v_tile, acc, row_max, row_sum, seen, scale, True, PRECISION)

    divisor = tl.maximum(row_sum, 1e-30)
    out_head = head_start(out, batch, head, out_strides)
    store_tile(out_head, acc / divisor[:, None], first_q, seq_q, out_strides, BLOCK_Q, DIM_V, BLOCK_V)
    at = first_q + tl.arange(0, BLOCK_Q)
    row_lse2 = tl.where(row_sum > 0, row_max + tl.log2(divisor), -float("inf"))
    tl.store(lse2 + (batch * heads + head).to(tl.int64) * seq_q + at, row_lse2, mask=at < seq_q)


@triton.jit
def blocks_dkdv_kernel(
    q, k, v, d_out, lse2, delta, d_k, d_v, first, partial, blocks, pattern, order, bits,
    q_strides, k_strides, v_strides, d_out_strides, d_k_strides, d_v_strides, scale, kv_heads, group, seq_q, seq_k, map_of,
    BLOCK: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):
    """d_k and d_v of BLOCK_K keys of one key head: for each query head that shares it, the blocks of queries in their list."""
    batch, kv_head, row, first_k = whose_row(kv_heads, seq_k, order, map_of, BLOCK, BLOCK_K)
    k_tile = load_tile(head_start(k, batch, kv_head, k_strides), first_k, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, False)
    v_tile = load_tile(head_start(v, batch, kv_head, v_strides), first_k, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)
    acc_k = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    acc_v = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)

    PER_BLOCK: tl.constexpr = BLOCK // BLOCK_Q
    begin, middle, end = tl.load(first + row), tl.load(partial + row), tl.load(first + row + 1)
    steps = (middle - begin) * PER_BLOCK
    for step in range(group * steps):
        head, entry = kv_head * group + step // steps, step % steps
        first_q = tl.load(blocks + begin + entry // PER_BLOCK) * BLOCK + entry % PER_BLOCK * BLOCK_Q
        q_tile = load_tile(head_start(q, batch, head, q_strides), first_q, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
        d_o_tile = load_tile(head_start(d_out, batch, head, d_out_strides), first_q, seq_q, d_out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
        at = (batch.to(tl.int64) * kv_heads * group + head) * seq_q
        row_lse2, row_delta = load_row_numbers(lse2 + at, delta + at, first_q, seq_q, BLOCK_Q)
        acc_k, acc_v = keys_tile(q_tile, d_o_tile, k_tile, v_tile, acc_k, acc_v, row_lse2, row_delta, None, scale, False, PRECISION)
    steps = (end - middle) * PER_BLOCK
    for step in range(group * steps):
        head, entry = kv_head * group + step // steps, step % steps
        within = entry % PER_BLOCK * BLOCK_Q
        first_q = tl.load(blocks + middle + entry // PER_BLOCK) * BLOCK + within
        q_tile = load_tile(head_start(q, batch, head, q_strides), first_q, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
        d_o_tile = load_tile(head_start(d_out, batch, head, d_out_strides), first_q, seq_q, d_out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
        at = (batch.to(tl.int64) * kv_heads * group + head) * seq_q
        row_lse2, row_delta = load_row_numbers(lse2 + at, delta + at, first_q, seq_q, BLOCK_Q)
        at = pattern + middle + entry // PER_BLOCK
        seen = seen_in_pattern(bits, tl.load(at), within, first_k % BLOCK, BLOCK, BLOCK_Q, BLOCK_K).T    # keys are rows here
        acc_k, acc_v = keys_tile(q_tile, d_o_tile, k_tile, v_tile, acc_k, acc_v, row_lse2, row_delta, seen, scale, True, PRECISION)

    d_k_tile = acc_k * (scale / LOG2E)
    store_tile(head_start(d_k, batch, kv_head, d_k_strides), d_k_tile, first_k, seq_k, d_k_strides, BLOCK_K, DIM, BLOCK_D)
    store_tile(head_start(d_v, batch, kv_head, d_v_strides), acc_v, first_k, seq_k, d_v_strides, BLOCK_K, DIM_V, BLOCK_V)


@triton.jit
def blocks_dq_kernel(
    q, k, v, d_out, lse2, delta, d_q, first, partial, blocks, pattern, order, bits,
    q_strides, k_strides, v_strides, d_out_strides, d_q_strides, scale, heads, group, seq_q, seq_k, map_of,
    BLOCK: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):
    """d_q of BLOCK_Q queries of one head: the forward pass's walk once more."""
    batch, head, row, first_q = whose_row(heads, seq_q, order, map_of, BLOCK, BLOCK_Q)
    q_tile = load_tile(head_start(q, batch, head, q_strides), first_q, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
    d_o_tile = load_tile(head_start(d_out, batch, head, d_out_strides), first_q, seq_q, d_out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
    at = (batch * heads + head).to(tl.int64) * seq_q
    row_lse2, row_delta = load_row_numbers(lse2 + at, delta + at, first_q, seq_q, BLOCK_Q)
    k_head = head_start(k, batch, head // group, k_strides)
    v_head = head_start(v, batch, head // group, v_strides)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)

    PER_BLOCK: tl.constexpr = BLOCK // BLOCK_K
    begin, middle, end = tl.load(first + row), tl.load(partial + row), tl.load(first + row + 1)
    for step in range(begin * PER_BLOCK, middle * PER_BLOCK):
        first_k = tl.load(blocks + step // PER_BLOCK) * BLOCK + step % PER_BLOCK * BLOCK_K
        k_tile = load_tile(k_head, first_k, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, True)
        v_tile = load_tile(v_head, first_k, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, True)
        acc = queries_tile(q_tile, d_o_tile, k_tile, v_tile, acc, row_lse2, row_delta, None, scale, False, PRECISION)
    for step in range(middle * PER_BLOCK, end * PER_BLOCK):
        within = step % PER_BLOCK * BLOCK_K
        first_k = tl.load(blocks + step // PER_BLOCK) * BLOCK + within
        k_tile = load_tile(k_head, first_k, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, False)
        v_tile = load_tile(v_head, first_k, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)
        seen = seen_in_pattern(bits, tl.load(pattern + step // PER_BLOCK), first_q % BLOCK, within, BLOCK, BLOCK_Q, BLOCK_K)
        acc = queries_tile(q_tile, d_o_tile, k_tile, v_tile, acc, row_lse2, row_delta, seen, scale, True, PRECISION)
    d_q_head = head_start(d_q, batch, head, d_q_strides)
    store_tile(d_q_head, acc * (scale / LOG2E), first_q, seq_q, d_q_strides, BLOCK_Q, DIM, BLOCK_D)
