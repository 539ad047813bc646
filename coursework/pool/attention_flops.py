"""Exercise: FLOPs of the two products of attention, for problem sets on costs."""

from coursework import case, observe, wrong
from coursework.observing import factor

TITLE = "What two matrix products cost"
CHAPTER = ""
POINTS = 2
GIVEN = ""
TOLERANCE = (0, 0)
PROMPT = r"""
Write `attention_flops(heads, seq_q, seq_k, dim_head, dim_v)`: how many FLOPs the two matrix products of attention take, the scores
$QK^\mathsf T$ and the weighted values $AV$, for all heads of one sequence. A multiplication and an addition are two FLOPs, so that a
product of an (a, b) by a (b, c) matrix counts 2abc. Projections, softmax and scaling are left out, and nothing is saved by a mask.
`dim_v`, the width of the values, may differ from `dim_head`, that of queries and keys. Return an exact Python `int`.
"""


def attention_flops(heads, seq_q, seq_k, dim_head, dim_v):
    # BEGIN SOLUTION
    scores = 2 * seq_q * dim_head * seq_k  # (seq_q, d) @ (d, seq_k)
    values = 2 * seq_q * seq_k * dim_v  # (seq_q, seq_k) @ (seq_k, dim_v)
    return heads * (scores + values)
    # END SOLUTION


NAMES = ("heads", "seq_q", "seq_k", "dim_head", "dim_v")
PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43)


def cases(rng):
    def counted(label, times=1, **fixed):
        drawn = rng.choice(PRIMES, size=5, replace=False)  # a missing factor then has only one name
        dims = {name: int(size) * times for name, size in zip(NAMES, drawn, strict=True)} | fixed
        return case(label, *dims.values(), dims=dims)

    yield counted("five different sizes")
    yield counted("five larger sizes", 64)
    yield counted("one query, as when generating", seq_q=1)
    yield counted("one head", heads=1)
    n = int(rng.integers(1000, 5000))
    yield case("self-attention, values as wide as keys", 12, n, n, 64, 64, dims={"heads": 12, "seq_q": n, "dim_head": 64})
    yield counted("no key at all", seq_k=0)


@wrong("Your count is half of what is asked for: you count a multiplication and an addition as one.")
def multiply_adds(heads, seq_q, seq_k, dim_head, dim_v):
    return heads * seq_q * seq_k * (dim_head + dim_v)


@wrong("You count the scores only. The weights are multiplied with the values after the softmax, and that is a matrix product too.")
def scores_only(heads, seq_q, seq_k, dim_head, dim_v):
    return 2 * heads * seq_q * seq_k * dim_head


@wrong("Your count does not depend on dim_v: it charges the second product with the width of the keys. What are the shapes in A V?")
def one_width(heads, seq_q, seq_k, dim_head, dim_v):
    return 4 * heads * seq_q * seq_k * dim_head


@wrong("You count one head. The result has to be for all of them.")
def forgets_heads(heads, seq_q, seq_k, dim_head, dim_v):
    return 2 * seq_q * seq_k * (dim_head + dim_v)


@wrong("You square the number of queries. There is one score for every pair of a query and a key, and there may be more keys than "
       "queries.")
def squares_queries(heads, seq_q, seq_k, dim_head, dim_v):
    return 2 * heads * seq_q**2 * (dim_head + dim_v)


@wrong("You square the number of keys. There is one score for every pair of a query and a key; with a cache there is one query and "
       "there are many keys.")
def squares_keys(heads, seq_q, seq_k, dim_head, dim_v):
    return 2 * heads * seq_k**2 * (dim_head + dim_v)


@wrong("You count a dot product of width d as d multiplications and d - 1 additions. That is exact for paper and pencil; the convention "
       "of the task is 2abc for a matrix product.")
def one_addition_less(heads, seq_q, seq_k, dim_head, dim_v):
    return heads * seq_q * (seq_k * (2 * dim_head - 1) + dim_v * (2 * seq_k - 1))


@wrong("You multiply the two widths. The two products are done one after the other: their costs add up.")
def widths_multiplied(heads, seq_q, seq_k, dim_head, dim_v):
    return 2 * heads * seq_q * seq_k * dim_head * dim_v


@wrong("You save half for a causal mask. The task leaves no pair out: count the whole rectangle of scores.")
def causal_half(heads, seq_q, seq_k, dim_head, dim_v):
    return heads * seq_q * (seq_k + 1) * (dim_head + dim_v)


@wrong("The first product is right. The second is charged 2 · seq_q · seq_q · dim_v: which length do rows of the weights have?")
def weights_are_square(heads, seq_q, seq_k, dim_head, dim_v):
    return 2 * heads * (seq_q * seq_k * dim_head + seq_q * seq_q * dim_v)

@observe
def negative(case, got, want):
    if got < 0:
        return f"Your count is negative: {got}."


@observe
def no_keys(case, got, want):
    if want == 0 and got != 0:
        return f"Without any key both products are empty and cost 0; yours counts {got}."


@observe
def by_afactor(case, got, want):
    said = factor(got, want, case.dims)
    if said:
        return f"Your count {said}."


@observe
def more_per_score(case, got, want):
    heads, seq_q, seq_k, dim_head = case.args[:4]
    scores, extra = heads * seq_q * seq_k, got - want
    if extra and scores and extra % scores == 0 and abs(extra) <= 8 * scores:
        each = f"{abs(extra) // scores} {'more' if extra > 0 else 'fewer'}"
        return f"For every score (there are {scores}) you count {each} than is asked for. Only the two matrix products belong to the count."
    square = 2 * (heads * dim_head) ** 2
    if extra > 0 and (extra % (square * max(seq_q, 1)) == 0 or extra % (square * max(seq_k, 1)) == 0):
        return "Your count is too large by multiples of (heads · dim_head)², times tokens: projections are to be left out."


@observe
def per_score(case, got, want):
    heads, seq_q, seq_k, dim_head, dim_v = case.args
    scores = heads * seq_q * seq_k
    if scores and got % scores:
        return f"There are {scores} scores (heads · seq_q · seq_k), and your count is not a multiple of that: {got / scores:.4g} times."
    if not scores:
        return None
    each = got // scores
    made = [" + ".join([f"{a} · dim_head"] * (a > 0) + [f"{b} · dim_v"] * (b > 0))
            for a in range(7) for b in range(7) if a * dim_head + b * dim_v == each]
    like = f", that is {made[0]}" if len(made) == 1 and made[0] else ""
    return (f"For each of the {scores} scores your count has {each} FLOPs{like}, with dim_head = {dim_head} and dim_v = {dim_v}. What does one score take "
            "part in?")
