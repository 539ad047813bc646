"""Exercise: how many sequences fit into memory at once while a model generates."""

from coursework import case, observe, wrong

TITLE = "How many readers at once?"
CHAPTER = "14_complexity"
POINTS, EDGE_POINTS = 3, 1
GIVEN = ""
TOLERANCE = (0, 0)
PROMPT = r"""
A machine with `memory` bytes serves a language model. The model's `parameters` numbers must fit, once for all; what is left holds, for every
sequence that is being generated, the key and the value of each of its tokens, in every layer and for every key/value head. Write
`largest_batch(memory, parameters, layers, kv_heads, dim_head, seq, bytes_per_number)`: how many sequences of `seq` tokens each fit at the same
time, with keys and values of width `dim_head` per head and `bytes_per_number` bytes for each number of parameters, keys and values. Return a
whole number as an `int`, 0 if not one fits. All sizes are at least 1 and may be so large that a float would not hold them exactly.
"""


def largest_batch(
    memory, parameters, layers, kv_heads, dim_head, seq, bytes_per_number
):
    # BEGIN SOLUTION
    left = memory - parameters * bytes_per_number
    one = 2 * layers * kv_heads * dim_head * seq * bytes_per_number  # k and v
    return max(0, left // one)
    # END SOLUTION


def _one(layers, kv_heads, dim_head, seq, width):
    return 2 * layers * kv_heads * dim_head * seq * width


def cases(rng):
    def machine(label, fits, more, parameters=None, width=2, edge=False, **fixed):
        """Memory for `fits` sequences, and `more` of another (a share, or bytes if whole)."""
        layers, kv_heads, dim_head, seq = (fixed.get(n, int(rng.integers(a, b)) * 2 + 1) for n, a, b in
                                           (("layers", 10, 40), ("kv_heads", 1, 6), ("dim_head", 16, 64), ("seq", 500, 4000)))
        one = _one(layers, kv_heads, dim_head, seq, width)
        parameters = int(rng.integers(3, 9)) * one // 2 + 1 if parameters is None else parameters
        extra = more if isinstance(more, int) else int(more * one)
        return case(label, parameters * width + fits * one + extra, parameters, layers, kv_heads, dim_head, seq, width, edge=edge)

    yield machine("numbers of two bytes", int(rng.integers(5, 60)), 0.3)
    yield machine("numbers of four bytes", int(rng.integers(5, 60)), 0.8, width=4)
    yield machine("one byte for a number", int(rng.integers(20, 60)), 0.4, width=1)
    yield case("a real model on a card of 80 GB", 80 * 10**9, 8_030_261_248, 32, 8, 128, int(rng.integers(4000, 9000)), 2)
    yield machine("one key/value head and a short text", int(rng.integers(300, 900)), 0.5, kv_heads=1, seq=9)
    yield machine("memory that is used up to the last byte", int(rng.integers(5, 30)), 0, edge=True)
    yield machine("one byte short of another sequence", int(rng.integers(5, 30)), -1, edge=True)
    yield machine("room for the parameters and nothing else", 0, 0.6, edge=True)
    yield machine("not even room for the parameters", -2, 0.5, edge=True)
    big = int(rng.integers(3, 9)) * 10**21 + int(rng.integers(10**6))
    yield machine("numbers too large for a float", big, -1, kv_heads=1, edge=True)


def _fit(memory, parameters, layers, kv_heads, dim_head, seq, width, held=2, weights=None, charge=None):
    left = memory - (parameters * width if weights is None else weights)
    one = held * layers * kv_heads * dim_head * seq * (width if charge is None else charge)
    return max(0, left // one)


@wrong("Your sequences keep half of what they need: beside the key of a token its value has to be kept.")
def keys_only(*args):
    return _fit(*args, held=1)


@wrong("You keep three vectors per token and head. A query is used once, for its own token, and then never again.")
def queries_too(*args):
    return _fit(*args, held=3)


@wrong("The model's parameters take no room in your count. They have to be in memory, once, before a single sequence is.")
def no_parameters(*args):
    return _fit(*args, weights=0)


@wrong("You take `parameters` for bytes. They are numbers, each of bytes_per_number bytes.")
def parameters_as_bytes(memory, parameters, *rest):
    return _fit(memory, parameters, *rest, weights=parameters)


@wrong("Keys and values are counted as numbers, memory in bytes: how many bytes does each of these numbers take?")
def cache_as_numbers(*args):
    return _fit(*args, charge=1)


@wrong("Every sequence of yours brings its own copy of the parameters. They are there once, whoever reads.")
def parameters_for_each(memory, parameters, layers, kv_heads, dim_head, seq, width):
    return memory // (parameters * width + _one(layers, kv_heads, dim_head, seq, width))


@wrong("You keep keys and values of one layer. Each layer has its own.")
def one_layer(memory, parameters, layers, kv_heads, dim_head, seq, width):
    return _fit(memory, parameters, 1, kv_heads, dim_head, seq, width)


@wrong("You keep keys and values of one head per layer. Each key/value head has its own.")
def one_head(memory, parameters, layers, kv_heads, dim_head, seq, width):
    return _fit(memory, parameters, layers, 1, dim_head, seq, width)


@wrong("You keep one token per sequence. All seq of them are still to be attended to.")
def one_token(memory, parameters, layers, kv_heads, dim_head, seq, width):
    return _fit(memory, parameters, layers, kv_heads, dim_head, 1, width)


@wrong("You round up: the last of your sequences has only a part of the memory that it needs.")
def rounds_up(memory, parameters, layers, kv_heads, dim_head, seq, width):
    return max(0, -(-(memory - parameters * width) // _one(layers, kv_heads, dim_head, seq, width)))


@wrong("Right where the parameters fit. Where they do not, your answer is below 0; the number of sequences is then 0.")
def negative(memory, parameters, layers, kv_heads, dim_head, seq, width):
    return (memory - parameters * width) // _one(layers, kv_heads, dim_head, seq, width)


@wrong("Right until numbers get large: `/` makes a float, which keeps 16 digits. Python divides whole numbers exactly with another sign.")
def through_a_float(memory, parameters, layers, kv_heads, dim_head, seq, width):
    return max(0, int((memory - parameters * width) / _one(layers, kv_heads, dim_head, seq, width)))


@wrong("You leave one place free. A sequence that fills the memory to the last byte does fit.")
def strictly_less(memory, parameters, layers, kv_heads, dim_head, seq, width):
    return max(0, (memory - parameters * width - 1) // _one(layers, kv_heads, dim_head, seq, width))


@observe
def below_zero(case, got, want):
    if got < 0:
        memory, parameters, *_, width = case.args
        return f"You return {got}. The parameters take {parameters * width} bytes of {memory}; no machine serves fewer than 0 sequences."


@observe
def nearly(case, got, want):
    if got != want and abs(got - want) <= 1 + abs(want) // 10**12:
        memory, parameters, *shape = case.args
        one = _one(*shape)
        left = memory - parameters * shape[-1]
        if want > 10**15:
            return f"With numbers of this size yours is off by {abs(got - want)}: has a float been in between?"
        if left < 0:
            return f"The parameters alone take {-left} bytes more than there are, so that no sequence fits; you return {got}."
        if got > want:
            return f"Your {got} would take {got * one} bytes beside the parameters, and {left} are left."
        return f"{left} bytes are left beside the parameters. What would {got + 1} take, at {one} bytes each? You return {got}."


@observe
def other_bytes(case, got, want):
    """Say what one sequence takes in the count that was handed in, if the parameters are right."""
    memory, parameters, *shape = case.args
    names = dict(zip(("layers", "kv_heads", "dim_head", "seq", "bytes_per_number"), shape, strict=True))
    if got <= 10 or want <= 10 or want > 10**15:
        return None
    left, one = memory - parameters * shape[-1], _one(*shape)
    for words, count in (("half", one // 2), ("twice", one * 2), ("four times", one * 4), ("eight times", one * 8)):
        if got == left // count:
            return f"What one sequence takes in your count is {words} what it should be; the parameters are right."
    for name, size in names.items():
        for count, words in ((one // size, f"lacks the factor {name}"), (one * size, f"has the factor {name} twice")):
            if got == left // count:
                return f"What one sequence takes {words} in your count (= {size}); the rest is right."
    for times in (2, 3, 4, 8):
        if got == max(0, memory - times * parameters * shape[-1]) // one:
            return f"One sequence is right in your count; the parameters take {times} times what they should."


@observe
def how_far_off(case, got, want):
    memory, parameters, *shape = case.args
    one, weights = _one(*shape), parameters * shape[-1]
    if got > want:
        return (f"You say that {got} sequences fit. Parameters and keys and values of so many take {(weights + got * one) / memory:.4g} times the memory "
                f"(parameters {weights:.4g} bytes, one sequence {one:.4g}, memory {memory:.4g}).")
    if got < want:
        return (f"You say that {got} sequences fit. With so many, {1 - (weights + got * one) / memory:.3g} of the memory would be free, room for "
                f"{want - got} more (parameters {weights:.4g} bytes, one sequence {one:.4g}, memory {memory:.4g}).")
