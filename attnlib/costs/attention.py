"""Softmax attention: its two products, its layer, naive and fused, whole or over some of the pairs."""

from attnlib.costs._counts import counts
from attnlib.costs.steps import Cost, linear_cost, matmul_cost, softmax_cost

__all__ = ["attention_cost", "attention_flops", "attention_layer_cost", "attention_layer_flops", "attention_parameters",
           "attention_steps", "decode_cost", "kv_cache_bytes"]


@counts()
def attention_flops(heads: int, seq_q: int, seq_k: int, dim_head: int, dim_v: int | None = None) -> int:
    """FLOPs of the two products of attention, Q Kᵀ and A V, without projections.

    Parameters
    ----------
    heads, seq_q, seq_k : int
        Numbers of heads, queries and keys.
    dim_head, dim_v : int
        Widths of keys and of values per head; `dim_v` defaults to `dim_head`.

    Returns
    -------
    int
        2 · heads · seq_q · seq_k · (dim_head + dim_v); with seq_q = seq_k = n and heads · dim_head = d, 4n²d.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    dim_v = dim_head if dim_v is None else dim_v
    return 2 * heads * seq_q * seq_k * (dim_head + dim_v)


@counts()
def attention_parameters(dim: int, heads: int, kv_heads: int | None = None, dim_head: int | None = None) -> int:
    """Numbers in the four projections of multi-head attention, without biases.

    Parameters
    ----------
    dim : int
        Width of the model.
    heads, kv_heads : int
        Query heads, and key/value heads (default: as many).
    dim_head : int
        Width per head; defaults to dim / heads.

    Returns
    -------
    int
        dim · dim_head · (2 · heads + 2 · kv_heads); 4·dim² for plain multi-head attention.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int, or `heads` does not divide `dim` where `dim_head` is not given.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    dim_head = _width("attention_parameters", dim, heads) if dim_head is None else dim_head
    return dim * dim_head * (2 * heads + 2 * kv_heads)


@counts()
def attention_layer_flops(
    seq: int, dim: int, heads: int, kv_heads: int | None = None, dim_head: int | None = None
) -> int:
    """FLOPs of a self-attention layer's forward pass: the four projections and the two products.

    Parameters
    ----------
    seq : int
        Tokens.
    dim, heads, kv_heads, dim_head : int
        As in `attention_parameters`.

    Returns
    -------
    int
        8nd² + 4n²d for plain multi-head attention over n tokens of width d.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int, or `heads` does not divide `dim` where `dim_head` is not given.
    """
    dim_head = _width("attention_layer_flops", dim, heads) if dim_head is None else dim_head
    projections = 2 * seq * attention_parameters(dim, heads, kv_heads, dim_head)
    return projections + attention_flops(heads, seq, seq, dim_head)


@counts()
def attention_steps(
    heads: int, seq_q: int, seq_k: int, dim_head: int, dim_v: int | None = None, *, batch: int = 1
) -> dict[str, Cost]:
    """Cost of naive attention step by step: scores, softmax, values (arXiv 2205.14135, Algorithms 0 and 3).

    Parameters
    ----------
    heads, seq_q, seq_k, dim_head, dim_v : int
        As in `attention_flops`; keys and values have as many heads as queries.
    batch : int
        Sequences.

    Returns
    -------
    dict of str to Cost
        Under "scores", "softmax" and "values". Each step reads its inputs from slow memory and writes its result there,
        so the scores and the weights cross it four times.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    dim_v = dim_head if dim_v is None else dim_v
    copies = batch * heads
    weights_kept = Cost(kept=-copies * seq_q * seq_k)                           # by softmax already
    return {
        "scores": matmul_cost(seq_q, dim_head, seq_k, copies),                  # Q Kᵀ
        "softmax": softmax_cost(copies * seq_q, seq_k),
        "values": matmul_cost(seq_q, seq_k, dim_v, copies) + weights_kept,      # A V
    }


@counts()
def attention_cost(
    heads: int, seq_q: int, seq_k: int, dim_head: int, dim_v: int | None = None, *, kv_heads: int | None = None,
    pairs: int | None = None, fused: bool = False, batch: int = 1,
) -> Cost:
    """Cost of attention without projections, over all pairs of a query and a key or over some.

    Parameters
    ----------
    heads, seq_q, seq_k, dim_head, dim_v : int
        As in `attention_flops`.
    kv_heads : int
        Heads of keys and values, default `heads`; fewer are read, not computed with.
    pairs : int
        Scores computed in one head, default seq_q · seq_k. A causal or sparse pattern that really skips computes
        fewer: see `attnlib.costs.patterns`.
    fused : bool
        False: scores and weights go through slow memory, as in `attention_steps`. True: neither leaves fast memory; this is the
        least traffic possible, inputs read once and results written once, which a kernel approaches where keys and values
        are read from slow memory about once (arXiv 2205.14135, 2307.08691). It keeps one log-sum-exp a query instead of the weights, and computes the
        scores again in the backward pass: five products instead of four.
    batch : int
        Sequences.

    Returns
    -------
    Cost

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    dim_v, kv_heads = (dim_head if dim_v is None else dim_v), (heads if kv_heads is None else kv_heads)
    scores = batch * heads * (seq_q * seq_k if pairs is None else pairs)
    queries, out = batch * heads * seq_q * dim_head, batch * heads * seq_q * dim_v
    keys, values = batch * kv_heads * seq_k * dim_head, batch * kv_heads * seq_k * dim_v
    inputs, lse = queries + keys + values, batch * heads * seq_q
    flops = 2 * scores * (dim_head + dim_v)
    if fused:
        return Cost(
            flops, 2 * flops + 2 * scores * dim_head, scores, moved=inputs + out + lse,
            backward_moved=(inputs + 2 * out + lse) + inputs,                   # with out and its gradient; three gradients
            kept=inputs + out + lse,
        )
    moved = inputs + out + 2 * scores                                           # by the two products
    return Cost(flops, 2 * flops, scores, moved=moved + 2 * scores, backward_moved=2 * moved + 3 * scores, kept=inputs + scores)


@counts()
def attention_layer_cost(
    seq: int, dim: int, heads: int, kv_heads: int | None = None, dim_head: int | None = None, *,
    context: int | None = None, pairs: int | None = None, fused: bool = False, bias: bool = False, batch: int = 1,
) -> Cost:
    """Cost of an attention layer: projections, attention, output projection.

    Parameters
    ----------
    seq, dim, heads, kv_heads, dim_head : int
        As in `attention_layer_flops`.
    context : int
        Tokens that keys and values are made from: cross-attention, or a memory in front. Default: the same `seq` tokens.
    pairs : int
        Scores computed in one head, as in `attention_cost`.
    fused : bool
        As in `attention_cost`.
    bias : bool
        Whether the projections have biases.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        8nd² + 4n²d FLOPs for plain self-attention. Kept are the input, queries, keys, values, what attention keeps, and its
        result once. Queries, keys and values are one product if they come from the same tokens.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int, or `heads` does not divide `dim` where `dim_head` is not given.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    dim_head = _width("attention_layer_cost", dim, heads) if dim_head is None else dim_head
    width, width_kv = heads * dim_head, kv_heads * dim_head
    if context is None:
        projections = [linear_cost(batch * seq, dim, width + 2 * width_kv, bias=bias)]
    else:
        projections = [linear_cost(batch * seq, dim, width, bias=bias), linear_cost(batch * context, dim, 2 * width_kv, bias=bias)]
    attention = attention_cost(heads, seq, seq if context is None else context, dim_head, kv_heads=kv_heads, pairs=pairs,
                               fused=fused, batch=batch)
    back = linear_cost(batch * seq, width, dim, bias=bias, keeps_input=not fused)
    return sum([*projections, attention, back])


@counts()
def decode_cost(heads: int, seq_k: int, dim_head: int, *, kv_heads: int | None = None, batch: int = 1) -> Cost:
    """Cost of attention for one new token against a cache: one query a sequence, all keys and values read once.

    Parameters
    ----------
    heads, seq_k, dim_head : int
        Query heads, tokens in the cache, width per head.
    kv_heads : int
        Key/value heads, default `heads`.
    batch : int
        Sequences, each with a cache of its own.

    Returns
    -------
    Cost
        About heads / kv_heads FLOPs for each byte of a two-byte cache (arXiv 1911.02150, 2305.13245): the traffic
        decides. Nothing is kept: decoding has no backward pass.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    whole = attention_cost(heads, 1, seq_k, dim_head, kv_heads=kv_heads, fused=True, batch=batch)
    return Cost(whole.flops, exponentials=whole.exponentials, moved=whole.moved - batch * heads)  # no log-sum-exp


@counts()
def kv_cache_bytes(
    layers: int, kv_heads: int, dim_head: int, seq: int, batch: int = 1, bytes_per_number: int = 2
) -> int:
    """Bytes of the keys and values kept while generating (arXiv 2211.05102, Section 3.3).

    Parameters
    ----------
    layers, kv_heads, dim_head : int
        Shape of the model.
    seq, batch : int
        Tokens kept per sequence, and sequences.
    bytes_per_number : int
        2 for float16 and bfloat16.

    Returns
    -------
    int
        2 · layers · kv_heads · dim_head · seq · batch · bytes_per_number.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    return 2 * layers * kv_heads * dim_head * seq * batch * bytes_per_number


def _width(where, dim, heads):
    if heads < 1 or dim % heads:
        raise ValueError(f"{where}: heads is {heads}, expected a positive divisor of dim = {dim}")
    return dim // heads
