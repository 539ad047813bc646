"""Flash attention as a kernel: one program computes the results of one tile of queries."""

import triton
import triton.language as tl


@triton.jit
def load_tile(matrix, first, seq, strides, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, WHOLE: tl.constexpr):
    """Rows first, first + 1, ... of a matrix (seq, DIM), as (ROWS, BLOCK_D); zeros beyond its edges.

    `strides` are those of the whole (batch, heads, seq, DIM) tensor. WHOLE: all rows are known to exist.
    """
    rows, columns = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    at = matrix + tl.cast(first, tl.int64) * strides[2]      # 64 bits: offsets may pass 2^31
    at = at + (rows[:, None] * strides[2] + columns[None, :] * strides[3])   # within a tile 32 bits suffice: seen to at the launch
    if WHOLE and BLOCK_D == DIM:
        tile = tl.load(at)                                   # nothing can stick out, and a mask costs time
    else:
        tile = tl.load(at, mask=(first + rows < seq)[:, None] & (columns < DIM)[None, :], other=0.0)
    return tile


@triton.jit
def store_tile(matrix, tile, first, seq, strides, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write a tile (ROWS, BLOCK_D) to rows first, first + 1, ... of a matrix (seq, DIM), and nothing beyond its edges."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    at = matrix + tl.cast(first, tl.int64) * strides[2]
    at = at + (rows[:, None] * strides[2] + columns[None, :] * strides[3])
    tl.store(at, tile.to(matrix.dtype.element_ty), mask=(first + rows < seq)[:, None] & (columns < DIM)[None, :])


@triton.jit
def head_start(matrix, batch, head, strides):
    """Where the (seq, dim) matrix of one head begins in a tensor (batch, heads, seq, dim)."""
    return matrix + tl.cast(batch, tl.int64) * strides[0] + tl.cast(head, tl.int64) * strides[1]


@triton.jit
def whose_tile(heads, seq, BLOCK: tl.constexpr, LAST_FIRST: tl.constexpr):
    """(batch, head, first row) of this program's tile: the programs of one head are neighbours, and share what they read."""
    tiles = tl.cdiv(seq, BLOCK)
    item, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if LAST_FIRST:
        tile = tiles - 1 - tile
    return item // heads, item % heads, tile * BLOCK


@triton.jit
def keys_reached(first_q, seq_q, seq_k, CAUSAL: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """(whole, stop): a tile of queries sees all tiles of keys before `whole`, nothing from key `stop` on, and part of what is between."""
    whole, stop = seq_k, seq_k
    if CAUSAL:                                               # query i sees the keys up to i + seq_k - seq_q
        whole = tl.minimum(tl.maximum(first_q + 1 + seq_k - seq_q, 0), seq_k)
        stop = tl.minimum(tl.maximum(first_q + BLOCK_Q + seq_k - seq_q, 0), seq_k)
    return whole // BLOCK_K * BLOCK_K, stop


@triton.jit
def seen_in_tile(first_q, first_k, seq_q, seq_k, CAUSAL: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """Which pairs of a tile there are, and may meet: bool (BLOCK_Q or 1, BLOCK_K)."""
    keys = first_k + tl.arange(0, BLOCK_K)[None, :]
    seen = keys < seq_k
    if CAUSAL:
        seen = seen & (keys <= first_q + tl.arange(0, BLOCK_Q)[:, None] + seq_k - seq_q)
    return seen


@triton.jit
def attend_tile(q, k, v, out, row_max, row_sum, seen, scale, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    """Add the keys of one tile to the running result of some queries (arXiv 2307.08691, Algorithm 1, lines 8 to 10).

    q (BLOCK_Q, BLOCK_D), k (BLOCK_K, BLOCK_D), v (BLOCK_K, BLOCK_V), out (BLOCK_Q, BLOCK_V) not yet divided, row_max and
    row_sum (BLOCK_Q,), seen (BLOCK_Q, BLOCK_K) where MASKED. `scale` holds log2(e): powers are of two, not of e.
    """
    scores = tl.dot(q, k.T, input_precision=PRECISION)       # (BLOCK_Q, BLOCK_K), in float32
    if MASKED:
        scores = tl.where(seen, scores, -float("inf"))
    new_max = tl.maximum(row_max, tl.max(scores, axis=1) * scale)
    powers = tl.exp2(scores * scale - new_max[:, None])      # scale and subtract: one instruction for each score
    rescale = tl.exp2(row_max - new_max)                     # what stood under the old maximum shrinks
    row_sum = row_sum * rescale + tl.sum(powers, axis=1)
    out = tl.dot(powers.to(v.dtype), v, out * rescale[:, None], input_precision=PRECISION)
    return out, new_max, row_sum


@triton.jit
def forward_kernel(
    q, k, v, out, lse2, q_strides, k_strides, v_strides, out_strides, scale, heads, group, seq_q, seq_k,
    CAUSAL: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):
    """`out`, and `lse2`, the base-2 logarithm of the row's sum of powers, of BLOCK_Q queries of one head.

    Launched with one program for each tile of queries of each head.
    """
    batch, head, first_q = whose_tile(heads, seq_q, BLOCK_Q, CAUSAL)     # causal: the last see most keys, so begin with them
    q_tile = load_tile(head_start(q, batch, head, q_strides), first_q, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
    k_head = head_start(k, batch, head // group, k_strides)  # `group` query heads share the keys of one
    v_head = head_start(v, batch, head // group, v_strides)
    row_max = tl.full([BLOCK_Q], -3e38, tl.float32)          # not -inf: a query that sees no key must not become NaN
    row_sum = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_V], tl.float32)

    whole, stop = keys_reached(first_q, seq_q, seq_k, CAUSAL, BLOCK_Q, BLOCK_K)
    for first in range(0, whole, BLOCK_K):                   # no masks in here
        k_tile = load_tile(k_head, first, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, True)
        v_tile = load_tile(v_head, first, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, True)
        acc, row_max, row_sum = attend_tile(q_tile, k_tile, v_tile, acc, row_max, row_sum, None, scale, False, PRECISION)
    for first in range(whole, stop, BLOCK_K):                # on the diagonal, and at the end of the keys
        k_tile = load_tile(k_head, first, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, False)
        v_tile = load_tile(v_head, first, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)
        seen = seen_in_tile(first_q, first, seq_q, seq_k, CAUSAL, BLOCK_Q, BLOCK_K)
        acc, row_max, row_sum = attend_tile(q_tile, k_tile, v_tile, acc, row_max, row_sum, seen, scale, True, PRECISION)

    divisor = tl.maximum(row_sum, 1e-30)                     # where a query sees a key the sum is about 1 or more; where not, it is 0
    out_head = head_start(out, batch, head, out_strides)
    store_tile(out_head, acc / divisor[:, None], first_q, seq_q, out_strides, BLOCK_Q, DIM_V, BLOCK_V)
    rows = first_q + tl.arange(0, BLOCK_Q)
    row_lse2 = tl.where(row_sum > 0, row_max + tl.log2(divisor), -float("inf"))
    tl.store(lse2 + (batch * heads + head).to(tl.int64) * seq_q + rows, row_lse2, mask=rows < seq_q)
