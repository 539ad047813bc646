"""Exercise: FLOPs of stacked LSTM layers, and how many of their steps have to wait for each other."""

from coursework import case, observe, wrong
from coursework.observing import factor

TITLE = "What a recurrent network costs, and how long it waits"
CHAPTER = "14_complexity"
POINTS, EDGE_POINTS = 4, 1
GIVEN = ""
TOLERANCE = (0, 0)
RETURNS = ("flops", "steps")
PROMPT = r"""
An LSTM layer {cite}`hochreiter1997`, in today's form with a forget gate, reads `seq` tokens one after the other. For each token it computes three gates and one candidate, each
$W x_t + U h_{t-1}$ with matrices of its own: $W$ takes the layer's input to `dim` numbers, $U$ takes the layer's state, `dim` numbers, to
`dim` numbers. `layers` such layers are stacked: the first reads inputs of width `dim_in`, every other reads the states of the one below. Write
`cost_of_lstm(seq, dim_in, dim, layers)`, which returns two exact `int`s, `(flops, steps)`. `flops`: 2abc for a product of an (a, b) by a
(b, c) matrix, the first state counted like all others; biases and everything done number by number are left out. `steps`: a layer at token t
can start once the same layer at token t − 1 and the layer below at token t are done, and takes one step; any number of them may run in
the same step. After how many steps, at the earliest, are all done? With no token at all both results are 0.
"""


def cost_of_lstm(seq, dim_in, dim, layers):
    # BEGIN SOLUTION
    first = 4 * dim * (dim_in + dim)  # numbers in W and U, four of each
    others = (layers - 1) * 4 * dim * (dim + dim)
    flops = 2 * seq * (first + others)  # each is used once per token
    steps = seq + layers - 1 if seq else 0  # layer l runs l steps later
    return flops, steps
    # END SOLUTION


NAMES = ("seq", "dim_in", "dim")
PRIMES = (101, 113, 127, 137, 149, 163, 179, 193, 211, 229)


def cases(rng):
    def counted(label, layers, edge=False, times=1, **fixed):
        drawn = rng.choice(PRIMES, size=3, replace=False)  # a missing factor then has only one name
        dims = {name: int(size) * times for name, size in zip(NAMES, drawn, strict=True)} | fixed | {"layers": layers}
        return case(label, *dims.values(), edge=edge, dims=dims)

    yield counted("one layer", 1)
    yield counted("three layers", 3)
    yield counted("seven layers of larger sizes", 7, times=64)
    yield counted("one token", 5, seq=1)
    yield counted("more layers than tokens", 9, seq=2)
    n, d = int(rng.integers(1000, 5000)), int(rng.integers(60, 90)) * 8
    yield case("inputs as wide as the states", n, d, d, 2, dims={"seq": n, "dim": d, "layers": 2})
    yield counted("no token at all", 3, seq=0, edge=True)


def _cost(seq, dim_in, dim, layers, gates=4, per=2, below=None, kept=1, read=1, steps=None):
    """The solution with one of its parts replaced."""
    below = dim if below is None else below
    flops = per * seq * gates * dim * (read * dim_in + kept * dim + (layers - 1) * (read * below + kept * dim))
    return flops, (seq + layers - 1 if seq else 0) if steps is None else steps


@wrong("Your flops are half of what is asked for: you count a multiplication and an addition as one.")
def multiply_adds(*args):
    return _cost(*args, per=1)


@wrong("Your flops lack the products with the state. Beside its input, what does the layer multiply by a matrix at every token?")
def no_recurrent_matrices(*args):
    return _cost(*args, kept=0)


@wrong("Your flops lack the products with the inputs: you count those with the state only.")
def recurrent_matrices_only(*args):
    return _cost(*args, read=0)


@wrong("You count one pair of matrices per layer, as in a plain recurrent network. How many does an LSTM have?")
def plain_network(*args):
    return _cost(*args, gates=1)


@wrong("You count the three gates and forget the candidate: what is to be written into the cell is a product of its own, too.")
def three_gates(*args):
    return _cost(*args, gates=3)


@wrong("Your flops are those of one layer, however many are stacked.")
def one_layer(seq, dim_in, dim, layers):
    return _cost(seq, dim_in, dim, 1)[0], _cost(seq, dim_in, dim, layers)[1]


@wrong("Every layer of yours reads inputs of width dim_in. Only the first does: what do the others read, and how wide is it?")
def all_read_the_input(seq, dim_in, dim, layers):
    return _cost(seq, dim_in, dim, layers, below=dim_in)


@wrong("Your flops do not depend on dim_in: you take all matrices to be dim × dim, and the first layer's input may be wider or narrower.")
def all_square(seq, dim_in, dim, layers):
    return _cost(seq, dim, dim, layers)


@wrong("You leave out the products with the state at the first token, since it is zero there. That saves something on paper; the task counts it "
       "like all others.")
def first_state_is_free(seq, dim_in, dim, layers):
    flops, steps = _cost(seq, dim_in, dim, layers)
    return flops - 8 * layers * dim * dim * (seq > 0), steps


@wrong("Your flops add what is done number by number: biases, gates applied, activations. The task counts matrix products alone.")
def with_the_biases(seq, dim_in, dim, layers):
    flops, steps = _cost(seq, dim_in, dim, layers)
    return flops + 4 * seq * dim * layers, steps


@wrong("Your flops are right. Your steps are one for every token and layer, as if only one could run at a time: while layer 1 reads token 0, "
       "which token can layer 0 be at?")
def one_at_a_time(seq, dim_in, dim, layers):
    return _cost(seq, dim_in, dim, layers, steps=seq * layers)


@wrong("Your flops are right. Your steps are those of one layer: the upper layers have still to read the last token when the first is done "
       "with it.")
def steps_of_one_layer(seq, dim_in, dim, layers):
    return _cost(seq, dim_in, dim, layers, steps=seq)


@wrong("Your flops are right. Your steps are one too many: with one layer and one token there is one step.")
def one_step_too_many(seq, dim_in, dim, layers):
    return _cost(seq, dim_in, dim, layers, steps=seq + layers if seq else 0)


@wrong("Your flops are right. Your steps are one per layer, as if all tokens of a layer ran at once. Attention can do that; here a token waits "
       "for the state after the one before it.")
def one_step_per_layer(seq, dim_in, dim, layers):
    return _cost(seq, dim_in, dim, layers, steps=layers if seq else 0)


@wrong("Right wherever there are tokens. Without any there is nothing to wait for, and yours still takes steps.")
def steps_without_tokens(seq, dim_in, dim, layers):
    return _cost(seq, dim_in, dim, layers, steps=seq + layers - 1)


@wrong("The two results are in the wrong order: flops first, then steps.")
def wrong_order(*args):
    return _cost(*args)[::-1]


@observe
def nothing_to_do(case, got, want):
    if case.args[0] == 0:
        return f"Without a token nothing is computed; yours says {got[0]} FLOPs and {got[1]} steps."


@observe
def flops_by_a_factor(case, got, want):
    said = factor(got[0], want[0], case.dims)
    if said:
        return f"Your count of flops {said}."


@observe
def made_of(case, got, want):
    """Take the count apart, where the sizes allow only one way."""
    seq, dim_in, dim, layers = case.args
    if got[0] == want[0] or "dim_in" not in case.dims:
        return None
    if got[0] % seq:
        return (f"The same is done for every token, so your flops should be a multiple of seq = {seq}; they are {got[0]}. Is something counted "
                "once that is done for each of them?")
    per_token = got[0] // seq
    if per_token % dim:
        return f"Every product gives dim = {dim} numbers, so flops per token should be a multiple of that; yours are {per_token}."
    each, right = per_token // dim, 8 * dim_in + (16 * layers - 8) * dim
    if abs(each - right) <= 8 * layers:
        return (f"For one token, and one number of the states, you count {each} FLOPs, {abs(each - right)} {'more' if each > right else 'fewer'} than is asked "
                "for: too little for a matrix product. The count is 2abc for each of those and nothing else.")
    made = [(a, b) for a in range(8 * layers + 9) for b in range(16 * layers + 9) if a * dim_in + b * dim == each]
    if len(made) == 1:
        a, b = made[0]
        return (f"For one token, and one number of the states, your flops are {a} · dim_in + {b} · dim with {layers} layer{'s' * (layers > 1)} "
                f"(together {each}; expected are {right}). How many products is each width part of, in which layers?")
    return f"For one token, and one number of the states, you count {each} FLOPs (dim_in = {dim_in}, dim = {dim}, layers = {layers})."


@observe
def steps_too_few_or_many(case, got, want):
    seq, _, _, layers = case.args
    if got[1] == want[1]:
        return None
    least = max(seq, layers)
    right = "Your flops are right. " if got[0] == want[0] else ""
    if got[1] < least:
        return (f"{right}With {seq} token{'s' * (seq > 1)} and {layers} layer{'s' * (layers > 1)} your steps are {got[1]}, and a chain of {least} that wait "
                "for each other is easily found: along the tokens of one layer, or up through the layers at one token.")
    more = "more than needed" if got[1] > want[1] else "too few: the longest chain turns a corner"
    return (f"{right}With {seq} token{'s' * (seq > 1)} and {layers} layer{'s' * (layers > 1)} your steps are {got[1]}, {more}. Draw tokens to the right and "
            "layers upwards, and write into each cell the step in which it runs.")
