"""Exercise: FLOPs per byte of attention in steps, and fused."""

from coursework import case, observe, wrong

TITLE = "FLOPs per byte"
CHAPTER = "19_memory_hierarchy"
POINTS = 4
PROMPT = r"""
Write `naive_intensity(seq_q, seq_k, dim, nbytes, fused)`: the {term}`arithmetic intensity` of attention, in FLOPs per byte moved, for one head of width
`dim` (queries, keys and values alike) with numbers of `nbytes` bytes. A multiplication and an addition are two FLOPs; count the two matrix products only. If `fused` is False, there are three
steps, $QK^\mathsf T$, softmax and $AV$, and each reads its inputs from memory and writes its result there {cite}`dao2022`. If it is True, the queries, keys and values
are read once and the result is written once, and nothing else is moved.
"""


def naive_intensity(seq_q, seq_k, dim, nbytes, fused):
    # BEGIN SOLUTION
    flops = 2 * seq_q * seq_k * (dim + dim)
    moved = 2 * seq_q * dim + 2 * seq_k * dim  # queries and result, keys and values
    if not fused:
        moved += 4 * seq_q * seq_k  # scores written, read; weights written, read
    return flops / (moved * nbytes)
    # END SOLUTION


def cases(rng):
    for label, fused in (("in steps", False), ("fused", True)):
        yield case(f"a long text, {label}", 4096, 4096, 64, 2, fused)
        yield case(f"a short text, {label}", int(rng.integers(20, 90)), int(rng.integers(100, 200)), 48, 4, fused)
        yield case(f"one query against a cache, {label}", 1, int(rng.integers(5000, 9000)), 128, 2, fused)
        yield case(f"wide heads, {label}", 300, 500, 256, 4, fused)


def _count(seq_q, seq_k, dim, nbytes, fused, *, flops=4, crossings=4, vectors=(2, 2)):
    moved = vectors[0] * seq_q * dim + vectors[1] * seq_k * dim + (0 if fused else crossings * seq_q * seq_k)
    return flops * seq_q * seq_k * dim / (moved * nbytes)


@wrong("Half of the FLOPs are missing: a multiplication and an addition are two, and there are two products, queries times keys and weights times values.")
def multiply_adds(seq_q, seq_k, dim, nbytes, fused):
    return _count(seq_q, seq_k, dim, nbytes, fused, flops=2)


@wrong("In steps, the scores cross memory twice in your count and the weights not at all. Softmax reads scores and writes weights, and the second product reads those.")
def scores_only(seq_q, seq_k, dim, nbytes, fused):
    return _count(seq_q, seq_k, dim, nbytes, fused, crossings=2)


@wrong("In steps, three crossings of a (seq_q, seq_k) array are too few: written by the first product, read and written by softmax, read by the second product.")
def three_crossings(seq_q, seq_k, dim, nbytes, fused):
    return _count(seq_q, seq_k, dim, nbytes, fused, crossings=3)


@wrong("The result is missing: it is written too.")
def no_result(seq_q, seq_k, dim, nbytes, fused):
    return _count(seq_q, seq_k, dim, nbytes, fused, vectors=(1, 2))


@wrong("The values are missing: keys and values are both read.")
def no_values(seq_q, seq_k, dim, nbytes, fused):
    return _count(seq_q, seq_k, dim, nbytes, fused, vectors=(2, 1))


@wrong("Queries and result have seq_q rows, keys and values have seq_k: two of each. Reading 3nd and writing nd is the same only where both lengths are n.")
def as_if_square(seq_q, seq_k, dim, nbytes, fused):
    return _count(seq_q, seq_k, dim, nbytes, fused, vectors=(3, 1))


@wrong("You divide by the numbers moved, not by their bytes.")
def numbers(seq_q, seq_k, dim, nbytes, fused):
    return _count(seq_q, seq_k, dim, 1, fused)


@wrong("The fused count moves the scores too: in a fused kernel they never reach memory.")
def never_fused(seq_q, seq_k, dim, nbytes, fused):
    return _count(seq_q, seq_k, dim, nbytes, False)


@wrong("Your two cases are exchanged: fused is the one that moves less.")
def exchanged(seq_q, seq_k, dim, nbytes, fused):
    return _count(seq_q, seq_k, dim, nbytes, not fused)


@wrong("You return bytes per FLOP, upside down.")
def upside_down(seq_q, seq_k, dim, nbytes, fused):
    return 1 / _count(seq_q, seq_k, dim, nbytes, fused)


@observe
def off_by_a_factor(case, got, want):
    ratio = got / want
    for factor in (2, 4, 0.5, 0.25, 8, 0.125):
        if abs(ratio / factor - 1) < 1e-9:
            return f"You get {factor:g} times the right number: which of the counts is off by that?"
    return None
