"""The families that are not softmax over one set of keys: chosen blocks, linear attention, memories."""

from attnlib.costs._counts import counts
from attnlib.costs.attention import attention_cost, attention_layer_cost
from attnlib.costs.steps import Cost, linear_cost, matmul_cost, pointwise_cost

__all__ = ["compression_cost", "delta_rule_cost", "knn_memory_cost", "linear_attention_cost", "top_k_block_cost", "transformer_xl_cost"]


@counts("block_size", "group")
def top_k_block_cost(
    heads: int, seq: int, dim_head: int, block_size: int, k: int, *, kv_heads: int | None = None, group: int = 1,
    causal: bool = True, batch: int = 1,
) -> Cost:
    """Cost of attention to the k best blocks, selection included (in the manner of arXiv 2502.11089, Section 3.3.2).

    Parameters
    ----------
    heads, seq, dim_head : int
        Sizes; `block_size` divides the sequence into blocks, the last may be shorter.
    block_size, k : int
        Keys in a block, and blocks each group of queries chooses.
    kv_heads : int
        Key/value heads, default `heads`.
    group : int
        Neighbouring queries that choose together.
    causal : bool
        Whether a group reads no block after its own, and so fewer than k at the beginning.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        Selection scores one query for each group against every block's mean key, 2 · heads · ⌈n/group⌉ · ⌈n/b⌉ · d FLOPs: it
        still grows with n², b · group times slower. It has no gradient: choosing is a step function.

    Raises
    ------
    ValueError, TypeError
        If a size is negative, a block or a group is empty, k exceeds the number of blocks, or one is not an int.
    """
    blocks, groups = -(-seq // block_size), -(-seq // group)
    if k > blocks:
        raise ValueError(f"top_k_block_cost: k is {k}, expected at most the number of blocks, {blocks}")
    choice = matmul_cost(groups, dim_head, blocks, batch * heads)
    read = sum(min(k, i * group // block_size + 1) if causal else k for i in range(groups))  # blocks, by all groups
    chosen = attention_cost(heads, seq, seq, dim_head, kv_heads=kv_heads, pairs=read * group * block_size, fused=True, batch=batch)
    return Cost(choice.flops, moved=choice.moved) + chosen


@counts("chunk")
def linear_attention_cost(
    heads: int, seq: int, dim_features: int, dim_v: int, chunk: int | None = None, *, normalised: bool = True,
    gated: bool = False, batch: int = 1,
) -> Cost:
    """Cost of linear attention without projections (arXiv 2006.16236; chunks as in 2312.06635, Section 4.1).

    Parameters
    ----------
    heads, seq : int
        Sizes.
    dim_features, dim_v : int
        Width of φ(q) and φ(k), and of the values.
    chunk : int
        None: token by token, or not causal. Else causal in chunks: inside one, the masked product of all pairs.
    normalised : bool
        Whether results are divided by the sum of the weights: one more column of values, all ones.
    gated : bool
        Whether every key channel decays by a learned factor: an exponential each for queries and for keys, no product.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        4nfd FLOPs a head for writing φ(k)ᵀv and reading φ(q)S, and in chunks of c 2nc(f + d) more: linear in n.
        In chunks it is two products of the whole sequence with states in between, one state a chunk kept; token by
        token the state is read and written at every step, and (unless it is computed again) kept at every step.

    Raises
    ------
    ValueError, TypeError
        If a size is negative, `chunk` is less than 1, or one is not an int.
    """
    dim_v = dim_v + normalised
    copies, states = batch * heads, (seq if chunk is None else -(-seq // chunk))
    state = copies * states * dim_features * dim_v
    flops = 4 * copies * seq * dim_features * dim_v
    rows = copies * seq * (2 * dim_features + dim_v)                            # φ(q), φ(k), v
    moved = rows + copies * seq * dim_v + 2 * state
    gates = pointwise_cost(2 * copies * seq * dim_features, reads=2, kept=1, exponentials=1) if gated else Cost()
    cost = Cost(flops, 2 * flops, moved=moved, backward_moved=2 * moved, kept=rows + state) + gates
    if chunk is None:
        return cost
    pairs = copies * (seq // chunk * chunk**2 + (seq % chunk) ** 2)
    inside = 2 * pairs * (dim_features + dim_v)
    return cost + Cost(inside, 2 * inside, moved=2 * pairs, backward_moved=4 * pairs, kept=pairs)


@counts("chunk")
def delta_rule_cost(heads: int, seq: int, dim_head: int, dim_v: int, chunk: int | None = None, *, batch: int = 1) -> Cost:
    """Cost of the delta rule without projections (arXiv 2102.11174; in chunks 2406.06484, Section 3.2).

    Parameters
    ----------
    heads, seq, dim_head, dim_v : int
        Sizes.
    chunk : int
        None: token by token. Else in chunks: the corrections of one chunk are a triangular system.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        6nd·dim_v FLOPs a head: read what the key holds, write the correction, read for the query. In chunks of c, for
        each: K Kᵀ and Q Kᵀ, 4c²d; the triangular system with dim_v right-hand sides by substitution, c(c-1)·dim_v;
        Q Kᵀ times the corrections, 2c²·dim_v; and the three products with the state. Backward twice as many, but for the
        system: solved once more, and its matrix gets a gradient by a whole product of 2c²·dim_v.

    Raises
    ------
    ValueError, TypeError
        If a size is negative, `chunk` is less than 1, or one is not an int.
    """
    copies, states = batch * heads, (seq if chunk is None else -(-seq // chunk))
    state = copies * states * dim_head * dim_v
    rows = copies * seq * (2 * dim_head + dim_v + 1)                            # q, k, v, and the step size
    flops = 6 * copies * seq * dim_head * dim_v
    moved = rows + copies * seq * dim_v + 2 * state
    cost = Cost(flops, 2 * flops, moved=moved, backward_moved=2 * moved, kept=rows + state + copies * seq * dim_v)
    if chunk is None:
        return cost
    tail, whole = seq % chunk, seq // chunk
    pairs = copies * (whole * chunk**2 + tail**2)
    products = pairs * (4 * dim_head + 2 * dim_v)
    solve = copies * dim_v * (whole * chunk * (chunk - 1) + tail * max(0, tail - 1))
    return cost + Cost(products + solve, 2 * products + solve + 2 * pairs * dim_v, moved=4 * pairs, backward_moved=8 * pairs, kept=2 * pairs)


@counts()
def transformer_xl_cost(seq: int, memory: int, dim: int, heads: int, *, batch: int = 1) -> Cost:
    """Cost of a Transformer-XL layer on one segment (arXiv 1901.02860, Section 3.3 and Appendix B).

    Parameters
    ----------
    seq, memory : int
        Tokens of the segment, and hidden states remembered before it, which get keys and values anew.
    dim, heads : int
        Width of the model, and heads, a divisor.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        A layer with seq + memory keys, and for the distances a projection of seq + memory sinusoids and a second product of
        queries with them: 6 instead of 4 FLOPs for each pair and channel. Two bias vectors of `dim` numbers.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int, or `heads` does not divide `dim`.
    """
    keys = seq + memory
    layer = attention_layer_cost(seq, dim, heads, context=keys, batch=batch)
    distances = linear_cost(keys, dim, dim)                                     # one table for the whole batch
    second = matmul_cost(batch * seq, dim // heads, keys, heads)                # the table again: no batch of its own
    return sum([layer, distances, second, Cost(parameters=2 * dim)])


@counts("rate")
def compression_cost(tokens: int, dim: int, rate: int, *, learned: bool = True, batch: int = 1) -> Cost:
    """Cost of compressing memories that fall out of the window (arXiv 1911.05507, Section 3.1).

    Parameters
    ----------
    tokens, dim : int
        Old hidden states, a multiple of `rate` of them, and their width.
    rate : int
        How many become one.
    learned : bool
        A convolution with kernel and stride `rate`; False: their mean, which costs no product.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        2 · tokens · dim² FLOPs for a convolution, whatever the rate.

    Raises
    ------
    ValueError, TypeError
        If a size is negative, `rate` is less than 1 or does not divide `tokens`, or one is not an int.
    """
    if tokens % rate:
        raise ValueError(f"compression_cost: tokens is {tokens}, expected a multiple of rate = {rate}")
    if learned:
        return linear_cost(batch * tokens // rate, rate * dim, dim)
    return Cost(moved=batch * dim * (tokens + tokens // rate), backward_moved=batch * dim * (tokens + tokens // rate))


@counts()
def knn_memory_cost(heads: int, seq: int, memory: int, k: int, dim_head: int, *, batch: int = 1) -> Cost:
    """Cost of looking k memories up for every query, and of attending to them (arXiv 2203.08913, Section 3.1).

    Parameters
    ----------
    heads, seq, dim_head : int
        Sizes of the queries.
    memory : int
        Keys and values stored for each head, searched exhaustively.
    k : int
        How many are taken, at most `memory`.
    batch : int
        Sequences, each with a memory of its own.

    Returns
    -------
    Cost
        The search is 2 · memory · dim_head FLOPs a query without a gradient; attending to what was found, which is gathered for
        each query, 4 · k · dim_head.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int, or k exceeds `memory`.
    """
    if k > memory:
        raise ValueError(f"knn_memory_cost: k is {k}, expected at most the number of memories, {memory}")
    search = matmul_cost(seq, dim_head, memory, batch * heads)
    found = attention_cost(1, 1, k, dim_head, batch=batch * heads * seq)        # k keys of its own for each query
    return Cost(search.flops, moved=search.moved) + found
