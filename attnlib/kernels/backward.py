"""The backward pass as three kernels: delta for each query, then d_k and d_v by tiles of keys, then d_q by tiles of queries."""

import triton
import triton.language as tl

from attnlib.kernels.forward import head_start, keys_reached, load_tile, seen_in_tile, store_tile, whose_tile

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def delta_kernel(
    out, d_out, d_lse, delta, out_strides, d_out_strides, heads, seq_q,
    DIM_V: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_Q: tl.constexpr,
):
    """delta (batch, heads, seq_q), the sum of d_out · out of each query less its d_lse (arXiv 2307.08691, Algorithm 2, line 4)."""
    batch, head, first_q = whose_tile(heads, seq_q, BLOCK_Q, False)
    o = load_tile(head_start(out, batch, head, out_strides), first_q, seq_q, out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
    d_o = load_tile(head_start(d_out, batch, head, d_out_strides), first_q, seq_q, d_out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
    rows = first_q + tl.arange(0, BLOCK_Q)
    at = (batch * heads + head).to(tl.int64) * seq_q + rows
    sums = tl.sum(o.to(tl.float32) * d_o.to(tl.float32), axis=1) - tl.load(d_lse + at, mask=rows < seq_q, other=0.0)
    tl.store(delta + at, sums, mask=rows < seq_q)


@triton.jit
def load_row_numbers(lse2, delta, first, seq_q, BLOCK_Q: tl.constexpr):
    """lse2 and delta of the queries first, first + 1, ...; zeros beyond the last."""
    rows = first + tl.arange(0, BLOCK_Q)
    return tl.load(lse2 + rows, mask=rows < seq_q, other=0.0), tl.load(delta + rows, mask=rows < seq_q, other=0.0)


@triton.jit
def keys_tile(q, d_o, k, v, d_k, d_v, row_lse2, row_delta, seen, scale, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    """Add what the queries of one tile give to the gradients of some keys and values. Keys are rows here, queries columns."""
    scores = tl.dot(k, q.T, input_precision=PRECISION)       # (BLOCK_K, BLOCK_Q), computed again
    weights = tl.exp2(scores * scale - row_lse2[None, :])     # the weights of the forward pass: lse2 holds maximum and sum
    if MASKED:
        weights = tl.where(seen, weights, 0.0)
    d_v = tl.dot(weights.to(d_o.dtype), d_o, d_v, input_precision=PRECISION)
    d_weights = tl.dot(v, d_o.T, input_precision=PRECISION)  # (BLOCK_K, BLOCK_Q)
    d_scores = weights * (d_weights - row_delta[None, :])    # the softmax's own backward pass
    d_k = tl.dot(d_scores.to(q.dtype), q, d_k, input_precision=PRECISION)
    return d_k, d_v


@triton.jit
def dkdv_kernel(
    q, k, v, d_out, lse2, delta, d_k, d_v, q_strides, k_strides, v_strides, d_out_strides, d_k_strides, d_v_strides,
    scale, kv_heads, group, seq_q, seq_k,
    CAUSAL: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):
    """d_k and d_v of BLOCK_K keys of one key head: a walk over all queries, of all query heads, that see them."""
    batch, kv_head, first_k = whose_tile(kv_heads, seq_k, BLOCK_K, False)
    k_tile = load_tile(head_start(k, batch, kv_head, k_strides), first_k, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, False)
    v_tile = load_tile(head_start(v, batch, kv_head, v_strides), first_k, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)

    start, ahead = 0, seq_k - seq_q
    if CAUSAL:
        start = tl.maximum(first_k - ahead, 0) // BLOCK_Q * BLOCK_Q    # none of the queries before sees these keys
    steps = tl.maximum(tl.cdiv(seq_q - start, BLOCK_Q), 0)

    acc_k = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    acc_v = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    # Beyond the last query all is zero and adds nothing; beyond the last key stand numbers without meaning, never stored.
    for step in range(group * steps):                        # one query head after the other, of those that share these keys
        head, first = kv_head * group + step // steps, start + step % steps * BLOCK_Q
        q_tile = load_tile(head_start(q, batch, head, q_strides), first, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
        d_o_tile = load_tile(head_start(d_out, batch, head, d_out_strides), first, seq_q, d_out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
        row = (batch.to(tl.int64) * kv_heads * group + head) * seq_q
        row_lse2, row_delta = load_row_numbers(lse2 + row, delta + row, first, seq_q, BLOCK_Q)
        seen = None
        if CAUSAL:
            seen = first_k + tl.arange(0, BLOCK_K)[:, None] <= first + tl.arange(0, BLOCK_Q)[None, :] + ahead
        acc_k, acc_v = keys_tile(q_tile, d_o_tile, k_tile, v_tile, acc_k, acc_v, row_lse2, row_delta, seen, scale, CAUSAL, PRECISION)

    d_k_tile = acc_k * (scale / LOG2E)                       # 1 / √DIM: scale holds log2(e) too
    store_tile(head_start(d_k, batch, kv_head, d_k_strides), d_k_tile, first_k, seq_k, d_k_strides, BLOCK_K, DIM, BLOCK_D)
    store_tile(head_start(d_v, batch, kv_head, d_v_strides), acc_v, first_k, seq_k, d_v_strides, BLOCK_K, DIM_V, BLOCK_V)


@triton.jit
def queries_tile(q, d_o, k, v, d_q, row_lse2, row_delta, seen, scale, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    """Add what the keys of one tile give to the gradients of some queries."""
    scores = tl.dot(q, k.T, input_precision=PRECISION)       # (BLOCK_Q, BLOCK_K), computed once more
    weights = tl.exp2(scores * scale - row_lse2[:, None])
    if MASKED:
        weights = tl.where(seen, weights, 0.0)
    d_weights = tl.dot(d_o, v.T, input_precision=PRECISION)
    d_scores = weights * (d_weights - row_delta[:, None])
    return tl.dot(d_scores.to(k.dtype), k, d_q, input_precision=PRECISION)


@triton.jit
def dq_kernel(
    q, k, v, d_out, lse2, delta, d_q, q_strides, k_strides, v_strides, d_out_strides, d_q_strides,
    scale, heads, group, seq_q, seq_k,
    CAUSAL: tl.constexpr, DIM: tl.constexpr, DIM_V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):
    """d_q of BLOCK_Q queries of one head: the forward pass's walk over the keys, once more."""
    batch, head, first_q = whose_tile(heads, seq_q, BLOCK_Q, CAUSAL)     # causal: the longest work first
    q_tile = load_tile(head_start(q, batch, head, q_strides), first_q, seq_q, q_strides, BLOCK_Q, DIM, BLOCK_D, False)
    d_o_tile = load_tile(head_start(d_out, batch, head, d_out_strides), first_q, seq_q, d_out_strides, BLOCK_Q, DIM_V, BLOCK_V, False)
    row = (batch * heads + head).to(tl.int64) * seq_q
    row_lse2, row_delta = load_row_numbers(lse2 + row, delta + row, first_q, seq_q, BLOCK_Q)
    k_head = head_start(k, batch, head // group, k_strides)
    v_head = head_start(v, batch, head // group, v_strides)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)

    whole, stop = keys_reached(first_q, seq_q, seq_k, CAUSAL, BLOCK_Q, BLOCK_K)
    for first in range(0, whole, BLOCK_K):
        k_tile = load_tile(k_head, first, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, True)
        v_tile = load_tile(v_head, first, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, True)
        acc = queries_tile(q_tile, d_o_tile, k_tile, v_tile, acc, row_lse2, row_delta, None, scale, False, PRECISION)
    for first in range(whole, stop, BLOCK_K):
        k_tile = load_tile(k_head, first, seq_k, k_strides, BLOCK_K, DIM, BLOCK_D, False)
        v_tile = load_tile(v_head, first, seq_k, v_strides, BLOCK_K, DIM_V, BLOCK_V, False)
        seen = seen_in_tile(first_q, first, seq_q, seq_k, CAUSAL, BLOCK_Q, BLOCK_K)
        acc = queries_tile(q_tile, d_o_tile, k_tile, v_tile, acc, row_lse2, row_delta, seen, scale, True, PRECISION)
    d_q_head = head_start(d_q, batch, head, d_q_strides)
    store_tile(d_q_head, acc * (scale / LOG2E), first_q, seq_q, d_q_strides, BLOCK_Q, DIM, BLOCK_D)
