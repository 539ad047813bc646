"""Exact counts in Python ints: FLOPs, parameters, bytes. A multiplication and an addition are two FLOPs.

Counts cover matrix products only, as is usual; softmax and norms are left out and are small beside them
(chapter 14 measures how small). Python ints never overflow, also in a browser.
"""

__all__ = ["attention_flops", "attention_layer_flops", "attention_parameters", "kv_cache_bytes"]


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
    _sizes("attention_flops", heads=heads, seq_q=seq_q, seq_k=seq_k, dim_head=dim_head, dim_v=dim_v)
    return 2 * heads * seq_q * seq_k * (dim_head + dim_v)


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
    _sizes("attention_parameters", dim=dim, heads=heads, kv_heads=kv_heads)
    if dim_head is None:
        if heads < 1 or dim % heads:
            raise ValueError(f"attention_parameters: heads is {heads}, expected a positive divisor of dim = {dim}")
        dim_head = dim // heads
    _sizes("attention_parameters", dim_head=dim_head)
    return dim * dim_head * (2 * heads + 2 * kv_heads)


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
    _sizes("attention_layer_flops", seq=seq)
    projections = 2 * seq * attention_parameters(dim, heads, kv_heads, dim_head)
    return projections + attention_flops(heads, seq, seq, dim // heads if dim_head is None else dim_head)


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
    _sizes("kv_cache_bytes", layers=layers, kv_heads=kv_heads, dim_head=dim_head, seq=seq, batch=batch,
           bytes_per_number=bytes_per_number)
    return 2 * layers * kv_heads * dim_head * seq * batch * bytes_per_number


def _sizes(where, **sizes):
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"{where}: {name} is of type {type(size).__name__}, expected an int")
        if size < 0:
            raise ValueError(f"{where}: {name} is {size}, expected at least 0")
