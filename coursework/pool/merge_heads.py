"""Exercise: put the heads side by side again, for a problem set on multi-head attention."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Heads side by side"
CHAPTER = ""
POINTS = 2
PROMPT = r"""
Write `merge_heads(x)`, which puts the results of all heads side by side: `x` is (..., heads, seq, dim_head), and the result (..., seq, heads ·
dim_head) holds for each token the numbers of head 0, then those of head 1, and so on. There may be any number of leading axes before the heads, or
none. `x` itself keeps its shape.
"""


def merge_heads(x):
    # BEGIN SOLUTION
    *lead, heads, seq, dim_head = x.shape
    x = x.swapaxes(-2, -3)                           # (..., seq, heads, dim_head)
    return x.reshape(*lead, seq, heads * dim_head)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch documents seq heads dim_head", 2, 8)
    named = vars(s)

    def draw(*shape):
        return rng.normal(size=shape)

    yield case("one sequence", draw(s.heads, s.seq, s.dim_head), dims={n: named[n] for n in ("batch", "seq", "heads", "dim_head")})
    yield case("as many tokens as heads", draw(s.batch, s.heads, s.heads, s.dim_head),
               dims={n: named[n] for n in ("batch", "heads", "dim_head")})
    yield case("a batch", draw(s.batch, s.heads, s.seq, s.dim_head), dims=s)
    yield case("two leading axes", draw(s.documents, s.batch, s.heads, s.seq, s.dim_head), dims=s)
    yield case("one token", draw(s.batch, s.heads, 1, s.dim_head), dims=s)
    yield case("one head", draw(s.batch, 1, s.seq, s.dim_head), dims=s)
    yield case("heads of width 1", draw(s.batch, s.heads, s.seq, 1), dims=s)


@wrong("The shape is right, the numbers stand in the wrong places: a row of yours holds several tokens of one head. Before `reshape`, heads and "
       "width have to be neighbours.")
def reshapes_at_once(x):
    *lead, heads, seq, dim_head = x.shape
    return x.reshape(*lead, seq, heads * dim_head)


@wrong("The numbers of the heads alternate: a number of head 0, one of head 1, and so on. Those of one head should stay together: which of the two "
       "axes that you merge runs faster?")
def alternating(x):
    *lead, heads, seq, dim_head = x.shape
    return np.moveaxis(x, -3, -1).reshape(*lead, seq, heads * dim_head)


@wrong("The heads are summed up. They should stand side by side, so that the next projection can tell them apart.")
def sums(x):
    return x.sum(axis=-3)


@wrong("You take the mean of the heads. They should stand side by side, so that the next projection can tell them apart.")
def means(x):
    return x.mean(axis=-3)


@wrong("It works for exactly one leading axis: the axes are counted from the front. Count from the end, so that there may be any number of "
       "leading axes.")
def one_batch_axis(x):
    batch, heads, seq, dim_head = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, seq, heads * dim_head)


@wrong("Heads and tokens have changed places, and the last two axes are still two: (..., seq, heads, dim_head). One axis is to hold both.")
def not_merged(x):
    return np.ascontiguousarray(x.swapaxes(-2, -3))


@wrong("The heads stand below each other: (..., heads · seq, dim_head). Each token should keep one row.")
def below_each_other(x):
    *lead, heads, seq, dim_head = x.shape
    return x.reshape(*lead, heads * seq, dim_head)


@wrong("The heads stand side by side in reverse order: the numbers of head 0 come first.")
def reversed_heads(x):
    return merge_heads(x[..., ::-1, :, :])


@wrong("Right for one sequence. With leading axes the pieces are taken along the first axis, which is then the batch and not the heads.")
def loops_over_the_first_axis(x):
    return np.concatenate(list(x), axis=-1)


def _source(case, got):
    """For each row of the first matrix of the result: the places in x (leading indices, head, token, number); None: not in x."""
    x = case.args[0]
    if got.dtype.kind != "f":
        return []
    places = {float(value): np.unravel_index(i, x.shape) for i, value in enumerate(x.ravel())}
    rows = got.reshape(-1, *got.shape[-2:])[0]
    return [[tuple(map(int, places[float(value)])) if float(value) in places else None for value in row] for row in rows]


@observe
def not_from_x(case, got, want):
    if any(None in row for row in _source(case, got)):
        return "Some of your numbers do not occur in x. Heads are put side by side, and nothing is computed."


@observe
def tokens_in_a_row(case, got, want):
    for t, row in enumerate(_source(case, got)):
        tokens = sorted({place[-2] for place in row if place})
        if len(tokens) > 1:
            shape = "" if case.args[0].ndim == 3 else f" (x has shape {case.args[0].shape}: count axes from the back)"
            return f"Row {t} of yours holds numbers of the tokens {tokens}{shape}. Each row belongs to one token, with all its heads."
        if tokens and tokens != [t]:
            return f"Row {t} of yours holds the numbers of token {tokens[0]}."


@observe
def heads_in_a_row(case, got, want):
    width = case.args[0].shape[-1]
    for row in _source(case, got)[:1]:
        heads = [place[-3] for place in row if place]
        if heads != [i // width for i in range(len(heads))]:
            return (f"From left to right, row 0 begins with numbers of the heads {', '.join(map(str, heads[: 2 * width]))}; expected are {width} of head 0, "
                    "then as many of head 1, and so on.")
        numbers = [place[-1] for place in row[:width] if place]
        if numbers != list(range(width)):
            return f"Head 0 is where it should be, and its numbers stand in the order {numbers}."


@observe
def other_sequences(case, got, want):
    leads = sorted({place[:-3] for row in _source(case, got) for place in row if place})
    if leads and (len(leads) > 1 or any(leads[0])):
        return f"The first matrix of your result holds numbers from {leads[:4]} of the leading axes."
