"""Exercise: how many bytes the keys and values of generation take, for problem sets on costs."""

from coursework import case, observe, wrong
from coursework.observing import factor

TITLE = "The memory of generation"
CHAPTER = ""
POINTS = 2
GIVEN = ""
TOLERANCE = (0, 0)
PROMPT = r"""
While a model generates, it keeps the key and the value of every token it has seen, in every layer and for every key/value head
{cite}`pope2022`. Write `kv_cache_bytes(layers, kv_heads, dim_head, seq, batch, bytes_per_number)`: the bytes that takes for `batch`
sequences of `seq` tokens each, with keys and values of width `dim_head` and numbers of `bytes_per_number` bytes (2 for bfloat16).
Several query heads may share a key/value head; the number of query heads plays no part. Return an exact Python `int`.
"""


def kv_cache_bytes(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    # BEGIN SOLUTION
    numbers = 2 * layers * kv_heads * dim_head * seq * batch  # 2: k and v
    return numbers * bytes_per_number
    # END SOLUTION


NAMES = ("layers", "kv_heads", "dim_head", "seq", "batch")
PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43)


def cases(rng):
    def counted(label, width, **fixed):
        drawn = rng.choice(PRIMES, size=5, replace=False)  # a missing factor then has only one name
        dims = {name: int(size) for name, size in zip(NAMES, drawn, strict=True)} | fixed | {"bytes_per_number": width}
        return case(label, *dims.values(), dims=dims)

    yield counted("six different sizes", 3)
    yield counted("float32", 4)
    yield counted("one byte per number", 1)
    yield counted("a long context", 2, layers=61, seq=int(rng.integers(100_000, 1_000_000)) * 2 + 1)
    yield counted("all query heads share one key/value head", 2, kv_heads=1)
    yield counted("no token yet", 2, seq=0)


@wrong("Your count is half of what is asked for. What is kept of each token beside its key?")
def keys_only(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    return layers * kv_heads * dim_head * seq * batch * bytes_per_number


@wrong("You keep three vectors per token. A query is used once, for its own token; nobody asks for it again.")
def queries_too(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    return 3 * layers * kv_heads * dim_head * seq * batch * bytes_per_number


@wrong("You count numbers, and bytes are asked for. How many bytes does each number take?")
def numbers(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    return 2 * layers * kv_heads * dim_head * seq * batch


@wrong("You count bits. The task asks for bytes, and bytes_per_number is in bytes already.")
def bits(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    return 16 * layers * kv_heads * dim_head * seq * batch * bytes_per_number


@wrong("You count one layer. The keys of one layer are of no use to another: each keeps its own.")
def one_layer(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    return 2 * kv_heads * dim_head * seq * batch * bytes_per_number


@wrong("You count one sequence. Each sequence of the batch has keys and values of its own.")
def one_sequence(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    return 2 * layers * kv_heads * dim_head * seq * bytes_per_number


@wrong("Your memory grows with the square of the length: that is what scores do, and they are not kept. How many keys does one more "
       "token add?")
def squares_the_length(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    return 2 * layers * kv_heads * dim_head * seq**2 * batch * bytes_per_number


@wrong("You count one key/value head per layer. Query heads may share, but every key/value head has keys of its own.")
def one_head(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    return 2 * layers * dim_head * seq * batch * bytes_per_number


@wrong("Every width is 2 bytes to you. `bytes_per_number` says how many there are, and it need not be 2.")
def always_half_precision(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    return 4 * layers * kv_heads * dim_head * seq * batch


@wrong("You divide by 1024 somewhere: the task asks for bytes, not for KiB, MiB or GiB, and a division by `//` loses the rest.")
def kibibytes(layers, kv_heads, dim_head, seq, batch, bytes_per_number):
    return 2 * layers * kv_heads * dim_head * seq * batch * bytes_per_number // 1024

@observe
def no_tokens(case, got, want):
    if want == 0 and got != 0:
        return f"Before the first token nothing is kept; yours counts {got} bytes."


@observe
def one_more(case, got, want):
    seq, difference = case.args[3], got - want
    per_token = want // seq if seq else 0
    if difference and per_token and abs(difference) in (per_token, 2 * per_token):
        tokens = abs(difference) // per_token
        return f"Your count is that of {tokens} token{'s' * (tokens > 1)} {'more' if difference > 0 else 'fewer'} than the {seq} of each sequence."


@observe
def by_afactor(case, got, want):
    said = factor(got, want, case.dims)
    if said:
        return f"Your count {said}."
    for power, unit in ((1, "kilobytes"), (2, "megabytes"), (3, "gigabytes")):
        for base in (1000, 1024):
            if got and abs(got * base**power - want) < base**power:
                return f"Your count is what is expected divided by {base**power}: {unit}, not bytes."


@observe
def scores_kept(case, got, want):
    seq, extra = case.args[3], got - want
    if extra > 0 and seq > 1 and extra % (seq * seq) == 0:
        return (f"Beside the keys and values you count {extra // seq**2} · seq² more (seq = {seq}): scores or weights are not kept from one "
                "token to the next.")


@observe
def ratio(case, got, want):
    width = case.args[5]
    if got % width:
        return f"Your count is not a whole multiple of bytes_per_number = {width}."
    if want and got > 0:
        return f"Your count is {got / want:.8g} times what is expected."
