"""The account of a computation, and the steps that everything else is put together from.

The convention throughout: FLOPs are those of matrix products, a multiplication and an addition are two; exponentials are
counted apart. Traffic and memory are counted in numbers: times 4 they are bytes of float32, times 2 of bfloat16.
"""

from dataclasses import dataclass, fields

from attnlib.costs._counts import counts

__all__ = ["Cost", "linear_cost", "matmul_cost", "norm_cost", "pointwise_cost", "softmax_cost"]


@dataclass(frozen=True)
class Cost:
    """What a computation takes, as exact counts. Costs add up, and an int times a cost is that many copies, as of layers.

    Attributes
    ----------
    flops, backward_flops : int
        FLOPs of the matrix products, forward and backward.
    exponentials : int
        Evaluations of exp, tanh, sigmoid or erf, forward.
    moved, backward_moved : int
        Numbers read from plus written to slow memory, if each step reads its inputs there and leaves its result there.
    parameters : int
        Learned numbers.
    kept : int
        Numbers that the forward pass has to keep for the backward pass, beside the parameters: activation memory.
    """

    flops: int = 0
    backward_flops: int = 0
    exponentials: int = 0
    moved: int = 0
    backward_moved: int = 0
    parameters: int = 0
    kept: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """One after the other.

        Parameters
        ----------
        other : Cost

        Returns
        -------
        Cost
        """
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Cost)))

    def __radd__(self, other: int) -> "Cost":
        """What `sum` begins with, 0, changes nothing.

        Parameters
        ----------
        other : 0

        Returns
        -------
        Cost
        """
        return self if other == 0 else NotImplemented

    def __rmul__(self, copies: int) -> "Cost":
        """Several copies, each with parameters of its own.

        Parameters
        ----------
        copies : int

        Returns
        -------
        Cost
        """
        if isinstance(copies, bool) or not isinstance(copies, int):
            return NotImplemented
        return Cost(*(copies * getattr(self, each.name) for each in fields(Cost)))

    def intensity(self, bytes_per_number: int = 4) -> float:
        """FLOPs for each byte moved, forward: the horizontal axis of a roofline.

        Parameters
        ----------
        bytes_per_number : int
            4 for float32, 2 for float16 and bfloat16.

        Returns
        -------
        float
        """
        return self.flops / (bytes_per_number * self.moved)


@counts()
def matmul_cost(rows: int, inner: int, columns: int, copies: int = 1) -> Cost:
    """Cost of a product of two activations, (rows, inner) by (inner, columns), `copies` times.

    Parameters
    ----------
    rows, inner, columns : int
        Sizes of the two factors.
    copies : int
        How many such products: batch times heads, say.

    Returns
    -------
    Cost
        2 · rows · inner · columns FLOPs a copy. The gradients of the factors are two products of the same three
        sizes, so everything backward is twice what it is forward; both factors are kept for them.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    flops = 2 * copies * rows * inner * columns
    factors = copies * (rows * inner + inner * columns)
    moved = factors + copies * rows * columns
    return Cost(flops, 2 * flops, moved=moved, backward_moved=2 * moved, kept=factors)


@counts()
def linear_cost(tokens: int, dim_in: int, dim_out: int, *, bias: bool = False, keeps_input: bool = True) -> Cost:
    """Cost of a product with a matrix of parameters, (tokens, dim_in) by (dim_in, dim_out).

    Parameters
    ----------
    tokens : int
        Rows: all positions of all sequences of a batch.
    dim_in, dim_out : int
        Widths.
    bias : bool
        Whether dim_out numbers are added, which is no matrix product and costs no FLOPs here.
    keeps_input : bool
        False where the step before keeps its result anyway, so that it is not counted twice.

    Returns
    -------
    Cost
        2 · tokens · dim_in · dim_out FLOPs: two for each parameter and token (arXiv 2001.08361, Section 2.1), and
        four backward.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    flops = 2 * tokens * dim_in * dim_out
    parameters = dim_in * dim_out + bias * dim_out
    moved = tokens * (dim_in + dim_out) + parameters
    return Cost(flops, 2 * flops, moved=moved, backward_moved=2 * moved, parameters=parameters,
                kept=keeps_input * tokens * dim_in)


@counts()
def softmax_cost(rows: int, columns: int) -> Cost:
    """Cost of softmax over rows of scores: no FLOPs by the convention, one exponential a score.

    Parameters
    ----------
    rows, columns : int
        Queries (times heads) and keys.

    Returns
    -------
    Cost
        Reads the scores and writes the weights; backward reads weights and their gradient and writes that of the
        scores. The weights are kept.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    scores = rows * columns
    return Cost(exponentials=scores, moved=2 * scores, backward_moved=3 * scores, kept=scores)


@counts()
def pointwise_cost(numbers: int, *, reads: int = 1, kept: int = 0, exponentials: int = 0) -> Cost:
    """Cost of a step that treats each number alone: an activation function, a sum, a product of gates.

    Parameters
    ----------
    numbers : int
        Size of the result.
    reads : int
        How many arrays of this size are read.
    kept, exponentials : int
        Numbers kept and exponentials taken, for each number of the result.

    Returns
    -------
    Cost
        No FLOPs by the convention. Backward it reads the gradient and what was kept and writes a gradient for
        each array it read.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    return Cost(exponentials=numbers * exponentials, moved=numbers * (reads + 1), backward_moved=numbers * (1 + kept + reads),
                kept=numbers * kept)


@counts()
def norm_cost(tokens: int, dim: int, *, centred: bool = True) -> Cost:
    """Cost of a layer normalisation, or of an RMS normalisation if it is not centred.

    Parameters
    ----------
    tokens, dim : int
        Rows, and the width that is normalised.
    centred : bool
        True for LayerNorm (scale and shift, and two statistics kept a row), False for RMSNorm (scale; one).

    Returns
    -------
    Cost
        No FLOPs by the convention.

    Raises
    ------
    ValueError, TypeError
        If a size is negative or not an int.
    """
    numbers, each = tokens * dim, 1 + centred
    return Cost(moved=2 * numbers + each * (dim + tokens), backward_moved=3 * numbers + each * (2 * dim + tokens),
                parameters=each * dim, kept=numbers + each * tokens)
