"""What attention is compared with, and what stands around it: recurrence, convolution, MLP, blocks; and where two costs meet."""

from collections.abc import Callable

from attnlib.costs._counts import counts
from attnlib.costs.attention import attention_layer_cost
from attnlib.costs.steps import Cost, linear_cost, norm_cost, pointwise_cost

__all__ = ["block_cost", "convolution_cost", "decoder_block_cost", "gru_cost", "lstm_cost", "meeting_point", "mlp_cost", "rnn_cost"]


@counts()
def rnn_cost(seq: int, dim: int, dim_in: int | None = None, *, bias: bool = False, batch: int = 1) -> Cost:
    """Cost of a plain recurrent layer, h ← tanh(x W + h U).

    Parameters
    ----------
    seq, dim : int
        Tokens, and width of the state.
    dim_in : int
        Width of the input, default `dim`.
    bias : bool
        Whether W and U each have biases, as in PyTorch.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        4nd² FLOPs. The products with U wait for each other, and each reads U again. Kept: input, and every state.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    return _recurrent(1, 1, seq, dim, dim_in, bias, batch, kept=1, exponentials=1) + Cost(kept=batch * dim)


@counts()
def gru_cost(seq: int, dim: int, dim_in: int | None = None, *, bias: bool = False, batch: int = 1) -> Cost:
    """Cost of a gated recurrent unit in PyTorch's form (arXiv 1406.1078), which resets after the product.

    Parameters
    ----------
    seq, dim, dim_in : int
        As in `rnn_cost`.
    bias : bool
        As in `rnn_cost`.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        12nd² FLOPs: three gates. Kept for each token: the state before, two gates, the candidate, what is reset, and the
        candidate's distance from the state (for the form h + (1 - z)(candidate - h)).

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    return _recurrent(3, 1, seq, dim, dim_in, bias, batch, kept=6, exponentials=3)


@counts()
def lstm_cost(seq: int, dim: int, dim_in: int | None = None, *, bias: bool = False, batch: int = 1) -> Cost:
    """Cost of a long short-term memory layer (Hochreiter and Schmidhuber, 1997, with a forget gate).

    Parameters
    ----------
    seq, dim, dim_in : int
        As in `rnn_cost`.
    bias : bool
        As in `rnn_cost`.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        16nd² FLOPs: four gates. Kept for each token: four gates, the state and the cell before, and the cell's tanh.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    return _recurrent(4, 2, seq, dim, dim_in, bias, batch, kept=7, exponentials=5)


def _recurrent(gates, states, seq, dim, dim_in, bias, batch, *, kept, exponentials):
    step = linear_cost(batch, dim, gates * dim, bias=bias, keeps_input=False)   # h U, once a token
    return sum([
        linear_cost(seq * batch, dim if dim_in is None else dim_in, gates * dim, bias=bias),  # X W, all tokens at once
        Cost(seq * step.flops, seq * step.backward_flops, 0, seq * step.moved, seq * step.backward_moved, step.parameters),
        pointwise_cost(seq * batch * dim, reads=2 * gates + states, kept=kept, exponentials=exponentials),
        Cost(moved=seq * batch * dim * (states - 1)),                           # a second state is written, too
    ])


@counts("kernel")
def convolution_cost(
    seq: int, dim: int, kernel: int, dim_in: int | None = None, *, depthwise: bool = False, bias: bool = False, batch: int = 1
) -> Cost:
    """Cost of a 1-D convolution over a sequence padded so that its length stays.

    Parameters
    ----------
    seq, dim : int
        Tokens, and width of the result.
    kernel : int
        Neighbouring tokens that each result is made from.
    dim_in : int
        Width of the input, default `dim`; not with `depthwise`.
    depthwise : bool
        Each channel by itself.
    bias : bool
        Whether `dim` numbers are added.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        2nkd² FLOPs, 2nkd if depthwise; products with padding are counted, as PyTorch does.

    Raises
    ------
    ValueError, TypeError
        If a size is negative, `kernel` is less than 1, or one is not an int.
    """
    dim_in = dim if dim_in is None else dim_in
    taps = kernel * (1 if depthwise else dim_in)                                # products behind each number of the result
    flops, parameters = 2 * batch * seq * taps * dim, taps * dim + bias * dim
    moved = batch * seq * (dim_in + dim) + parameters
    return Cost(flops, 2 * flops, moved=moved, backward_moved=2 * moved, parameters=parameters, kept=batch * seq * dim_in)


@counts()
def mlp_cost(tokens: int, dim: int, hidden: int, *, gated: bool = False, bias: bool = False) -> Cost:
    """Cost of a transformer's feed-forward network: up, GELU, down; or gated (SwiGLU, arXiv 2002.05202).

    Parameters
    ----------
    tokens, dim, hidden : int
        Rows (all positions of all sequences), width, and the width between, most often 4 · dim.
    gated : bool
        Three matrices: one of two hidden vectors goes through SiLU and multiplies the other.
    bias : bool
        Whether the matrices have biases.

    Returns
    -------
    Cost
        4 · tokens · dim · hidden FLOPs, or 6 if gated: 16nd² for n tokens and hidden = 4d.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    up = linear_cost(tokens, dim, hidden * (1 + gated), bias=bias)
    bend = pointwise_cost(tokens * hidden, kept=1, exponentials=1)
    gate = pointwise_cost(tokens * hidden, reads=2, kept=2) if gated else Cost()
    return sum([up, bend, gate, linear_cost(tokens, hidden, dim, bias=bias)])


@counts()
def block_cost(
    seq: int, dim: int, heads: int, hidden: int | None = None, kv_heads: int | None = None, dim_head: int | None = None, *,
    gated: bool = False, centred: bool = True, pairs: int | None = None, fused: bool = False, bias: bool = False, batch: int = 1,
) -> Cost:
    """Cost of a transformer block: norm, attention, sum, norm, MLP, sum (pre-norm, arXiv 2002.04745).

    Parameters
    ----------
    seq, dim, heads, kv_heads, dim_head : int
        As in `attention_layer_cost`.
    hidden : int
        Width inside the MLP, default 4 · dim.
    gated, centred : bool
        A gated MLP; LayerNorm (True) or RMSNorm (False).
    pairs : int
        As in `attention_cost`.
    fused, bias : bool
        As in `attention_layer_cost`; `bias` for the MLP too.
    batch : int
        Sequences.

    Returns
    -------
    Cost
        24nd² + 4n²d FLOPs for the usual MLP: the quadratic part is the larger from n = 6d on.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int, or `heads` does not divide `dim` where `dim_head` is not given.
    """
    hidden, tokens = (4 * dim if hidden is None else hidden), batch * seq
    around = 2 * (norm_cost(tokens, dim, centred=centred) + pointwise_cost(tokens * dim, reads=2))
    attention = attention_layer_cost(seq, dim, heads, kv_heads, dim_head, pairs=pairs, fused=fused, bias=bias, batch=batch)
    return sum([around, attention, mlp_cost(tokens, dim, hidden, gated=gated, bias=bias)])


@counts()
def decoder_block_cost(
    seq: int, context: int, dim: int, heads: int, hidden: int | None = None, *, fused: bool = False, bias: bool = False,
    batch: int = 1,
) -> Cost:
    """Cost of an encoder-decoder's second block: self-attention, cross-attention to the encoded text, MLP (arXiv 1706.03762).

    Parameters
    ----------
    seq, context : int
        Tokens written, and tokens read by the encoder.
    dim, heads : int
        As in `attention_layer_cost`.
    hidden : int
        Width inside the MLP, default 4 · dim.
    fused, bias : bool
        As in `block_cost`.
    batch : int
        Sequences.

    Returns
    -------
    Cost

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int, or `heads` does not divide `dim`.
    """
    cross = attention_layer_cost(seq, dim, heads, context=context, fused=fused, bias=bias, batch=batch)
    around = norm_cost(batch * seq, dim) + pointwise_cost(batch * seq * dim, reads=2)
    return block_cost(seq, dim, heads, hidden, fused=fused, bias=bias, batch=batch) + around + cross


def meeting_point(rising: Callable[[int], int], other: Callable[[int], int], most: int = 2**60) -> int | None:
    """The smallest n from 1 at which one cost is no longer below another, exactly, in ints.

    Parameters
    ----------
    rising, other : function of int
        Two costs as functions of n, whose difference changes its sign once at most, as for polynomials such as
        8nd² + 4n²d against 16nd².
    most : int
        Largest n to consider.

    Returns
    -------
    int or None
        The smallest n with rising(n) ≥ other(n); 1 if `rising` never is below; None if it still is at `most`.

    Raises
    ------
    TypeError
        If `rising` or `other` is not a function.
    """
    for name, cost in {"rising": rising, "other": other}.items():
        if not callable(cost):
            raise TypeError(f"meeting_point: {name} is of type {type(cost).__name__}, expected a function of n")
    high = 1
    while rising(high) < other(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2                                                             # below there, or 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rising(middle) < other(middle) else (low, middle)
    return high
