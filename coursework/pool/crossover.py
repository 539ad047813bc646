"""Exercise: from which length on attention's own products dominate a layer."""

from coursework import case, observe, wrong

TITLE = "When does the square matter?"
CHAPTER = "14_complexity"
POINTS, EDGE_POINTS = 4, 1
GIVEN = ""
TOLERANCE = (0, 0)
PROMPT = r"""
A transformer layer of width `dim` reads n tokens. Count the FLOPs of its matrix products, 2abc for an (a, b) by a (b, c) matrix, of
which there are two kinds. *Weights*: the projections to queries and back (`dim` × `dim` each), those to keys and values
(`dim` × `kv_heads` · dim_head each, where dim_head = `dim` / `heads`, a whole number), and `ff_matrices` matrices of the feed-forward
network (`dim` × `ff` or `ff` × `dim`: 2 of them, or 3 where it is gated). *Pairs*: the scores $QK^\mathsf T$ and the weighted
values $AV$ of all `heads` heads over all n² pairs; no mask saves anything. Write `crossover(dim, heads, kv_heads, ff, ff_matrices)`: the
smallest whole n for which the pairs cost **at least** as much as the weights, as an `int`. For plain attention without feed-forward
network it is 2 · `dim`, with one of the usual size (`ff` = 4 · `dim`) it is 6 · `dim`.
"""


def crossover(dim, heads, kv_heads, ff, ff_matrices):
    # BEGIN SOLUTION
    dim_kv = kv_heads * dim // heads
    weights = 2 * (2 * dim * dim + 2 * dim * dim_kv + ff_matrices * dim * ff)
    pairs = 4 * dim  # n * weights <= n * n * pairs
    return -(-weights // pairs)  # division that rounds up
    # END SOLUTION


def cases(rng):
    def layer(label, heads, kv_heads, ff, matrices, edge=False, width=None):
        dim_head = width or int(rng.integers(5, 40)) * 2
        dim = heads * dim_head
        ff = ff if ff is not None else int(rng.integers(5, 40)) * 2 + 1
        return case(label, dim, heads, kv_heads, ff, matrices, edge=edge)

    yield layer("attention alone", 8, 8, 0, 2)
    dim = int(rng.integers(5, 90)) * 16
    yield case("a feed-forward network of four times the width", dim, 16, 16, 4 * dim, 2)
    yield layer("a feed-forward network of another width", 6, 6, None, 2)
    yield layer("query heads that share keys and values", 12, 3, None, 2)
    yield layer("one key/value head", 7, 1, 0, 2)
    yield case("a gated network of a real model", 4096, 32, 8, 14336, 3)
    yield layer("two costs that never are quite equal", 8, 2, 4 * int(rng.integers(5, 40)) + 3, 3, edge=True)


def _weights(dim, heads, kv_heads, ff, ff_matrices):
    return 4 * dim * dim + 4 * dim * (kv_heads * dim // heads) + 2 * ff_matrices * dim * ff


@wrong("You stop at 2 · dim: that is plain attention without anything else. The feed-forward network, and key/value heads that are "
       "shared, change what the weights cost.")
def twice_the_width(dim, heads, kv_heads, ff, ff_matrices):
    return 2 * dim


@wrong("You give the keys and values as many heads as the queries. With fewer key/value heads their projections are narrower.")
def all_heads(dim, heads, kv_heads, ff, ff_matrices):
    return -(-_weights(dim, heads, heads, ff, ff_matrices) // (4 * dim))


@wrong("The feed-forward network is missing from your weights: it is part of the layer.")
def no_feed_forward(dim, heads, kv_heads, ff, ff_matrices):
    return -(-_weights(dim, heads, kv_heads, 0, 2) // (4 * dim))


@wrong("Right for a plain feed-forward network, wrong for a gated one: you count two matrices there, whatever `ff_matrices` says.")
def always_two_matrices(dim, heads, kv_heads, ff, ff_matrices):
    return -(-_weights(dim, heads, kv_heads, ff, 2) // (4 * dim))


@wrong("You count one product over the pairs. After the softmax the weights are multiplied with the values: how many FLOPs are there for "
       "one pair in all?")
def scores_only(dim, heads, kv_heads, ff, ff_matrices):
    return -(-_weights(dim, heads, kv_heads, ff, ff_matrices) // (2 * dim))


@wrong("You round down where the two costs meet between two whole numbers: at the length you return the pairs still cost less than the "
       "weights.")
def rounds_down(dim, heads, kv_heads, ff, ff_matrices):
    return _weights(dim, heads, kv_heads, ff, ff_matrices) // (4 * dim)


@wrong("You ask for more than equal. Where the two costs are equal the pairs cost at least as much, and that n is asked for.")
def strictly_more(dim, heads, kv_heads, ff, ff_matrices):
    return _weights(dim, heads, kv_heads, ff, ff_matrices) // (4 * dim) + 1


@wrong("You count the key projection or the value projection, not both; they have the same shape, and there are two.")
def one_of_keys_and_values(dim, heads, kv_heads, ff, ff_matrices):
    return -(-(4 * dim * dim + 2 * dim * (kv_heads * dim // heads) + 2 * ff_matrices * dim * ff) // (4 * dim))


@wrong("You leave out the projection of the result back to the width of the model.")
def no_projection_back(dim, heads, kv_heads, ff, ff_matrices):
    return -(-(2 * dim * dim + 4 * dim * (kv_heads * dim // heads) + 2 * ff_matrices * dim * ff) // (4 * dim))


@wrong("You charge the pairs of one head only. Each head has its own n² scores, of width dim / heads.")
def pairs_of_one_head(dim, heads, kv_heads, ff, ff_matrices):
    return -(-_weights(dim, heads, kv_heads, ff, ff_matrices) // (4 * dim // heads))


@wrong("You count a weight once per token as one FLOP, and a pair as two per number: a multiplication and an addition are two FLOPs on both "
       "sides.")
def parameters_against_flops(dim, heads, kv_heads, ff, ff_matrices):
    return -(-_weights(dim, heads, kv_heads, ff, ff_matrices) // (8 * dim))


@observe
def not_a_length(case, got, want):
    if got < 1:
        return f"You return {got}, which is no number of tokens."


@observe
def fixed_multiple(case, got, want):
    dim = case.args[0]
    if got in (dim, 2 * dim, 4 * dim, 6 * dim, 8 * dim):
        return f"You return {got // dim} · dim here, and {want / dim:.3g} · dim is right. What else does the answer depend on?"


@observe
def constant_factor(case, got, want):
    dim, heads = case.args[:2]
    for factor, words in ((2, "2"), (4, "4"), (heads, f"heads = {heads}"), (dim, f"dim = {dim}"), (dim // heads, f"dim_head = {dim // heads}")):
        if abs(got - want * factor) <= factor or abs(got * factor - want) <= factor:
            return (f"Your n is {'larger' if got > want else 'smaller'} than expected by a factor of {words}: one of the two costs has it too often or not "
                    "at all.")


@observe
def made_of(case, got, want):
    dim, heads, kv_heads, ff, _ = case.args
    sizes = {"dim": dim} | ({"kv_heads · dim_head": kv_heads * (dim // heads)} if kv_heads != heads else {}) | ({"ff": ff} if ff else {})
    counts = [0, 0.5, 1, 1.5, 2, 2.5, 3, 4]
    made = {(): 0}
    for name, size in sizes.items():
        made = {(*parts, (name, count)): total + count * size for parts, total in made.items() for count in counts}
    like = [parts for parts, total in made.items() if total == got]
    if len(like) == 1 and abs(got - want) > 1:
        words = " + ".join(f"{count:g} · {name}" for name, count in like[0] if count)
        return f"Your n is {words} here. Each matrix of the layer has a share in n: which of them is too small or too large?"


@observe
def too_soon_or_too_late(case, got, want):
    sizes = f"(dim, heads, kv_heads, ff, ff_matrices = {', '.join(map(str, case.args))})"
    if got == want - 1:
        return f"At your n = {got} the pairs still cost less than the weights; one token more is enough {sizes}."
    if got == want + 1:
        return f"At your n = {got} the pairs do cost as much as the weights, but one token fewer is enough already {sizes}."
    if got < want:
        return f"At your n = {got} the pairs still cost less than the weights, {got / want:.3g} times as much {sizes}."
    return f"At your n = {got} the pairs cost {got / want:.3g} times as much as the weights already {sizes}."
