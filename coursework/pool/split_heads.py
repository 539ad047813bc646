"""Exercise: cut the width into heads, for a problem set on multi-head attention."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Into heads"
CHAPTER = ""
POINTS = 3
PROMPT = r"""
Write `split_heads(x, heads)`, which cuts the last axis of `x` (..., seq, dim) into `heads` pieces of equal width and moves the heads in front
of the sequence: it returns (..., heads, seq, dim_head) with dim_head = dim / heads. Head `h` owns the columns from `h * dim_head` up to, but not
including, `(h + 1) * dim_head`. There may be any number of leading axes, or none. Where `heads` does not divide `dim`, raise a `ValueError`.
"""


def split_heads(x, heads):
    # BEGIN SOLUTION
    *lead, seq, dim = x.shape
    if dim % heads:
        raise ValueError(f"{heads} heads do not divide {dim} columns")
    x = x.reshape(*lead, seq, heads, dim // heads)  # (..., seq, heads, dim_head)
    return x.swapaxes(-2, -3)                       # (..., heads, seq, dim_head)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch documents seq heads dim_head", 2, 8)

    def draw(*shape):
        return rng.normal(size=(*shape, s.heads * s.dim_head))

    named = vars(s)
    yield case("one sequence", draw(s.seq), s.heads, dims={n: named[n] for n in ("batch", "seq", "heads", "dim_head")})
    yield case("as many tokens as heads", draw(s.batch, s.heads), s.heads, dims={n: named[n] for n in ("batch", "heads", "dim_head")})
    yield case("a batch", draw(s.batch, s.seq), s.heads, dims=s)
    yield case("two leading axes", draw(s.documents, s.batch, s.seq), s.heads, dims=s)
    yield case("one token", draw(s.batch, 1), s.heads, dims=s)
    yield case("one head", draw(s.batch, s.seq), 1, dims=s)
    yield case("heads of width 1", draw(s.batch, s.seq), s.heads * s.dim_head, dims=s)
    yield case("heads that do not divide the width", draw(s.batch, s.seq)[..., 1:], s.heads, dims=s, raises=ValueError)


@wrong("The shape is right, the numbers stand in the wrong places: `reshape` straight to (..., heads, seq, dim_head) cuts the **tokens** into pieces. "
       "First split the last axis, then exchange axes.")
def reshapes_at_once(x, heads):
    *lead, seq, dim = x.shape
    if dim % heads:
        raise ValueError
    return x.reshape(*lead, heads, seq, dim // heads)


@wrong("The heads still stand behind the sequence, (..., seq, heads, dim_head): with the heads in front, each head's matrix product is over "
       "tokens.")
def heads_behind(x, heads):
    *lead, seq, dim = x.shape
    if dim % heads:
        raise ValueError
    return x.reshape(*lead, seq, heads, dim // heads)


@wrong("Head h of yours owns every heads-th column, beginning at h. The columns of a head should lie side by side: which of the two new axes "
       "runs faster?")
def every_nth_column(x, heads):
    *lead, seq, dim = x.shape
    if dim % heads:
        raise ValueError
    return np.moveaxis(x.reshape(*lead, seq, dim // heads, heads), -1, -3)


@wrong("Each head holds its columns as rows: (..., heads, dim_head, seq). Tokens are rows: the last two axes have to change places.")
def columns_as_rows(x, heads):
    return split_heads(x, heads).swapaxes(-1, -2)


@wrong("It works for exactly one leading axis: the axes are counted from the front. Count from the end, so that there may be any number of "
       "leading axes.")
def one_batch_axis(x, heads):
    batch, seq, dim = x.shape
    if dim % heads:
        raise ValueError
    return x.reshape(batch, seq, heads, dim // heads).transpose(0, 2, 1, 3)


@wrong("It works for one sequence alone: the axes are counted from the front, and with leading axes they are others.")
def one_sequence(x, heads):
    seq, dim = x.shape
    if dim % heads:
        raise ValueError
    return x.reshape(seq, heads, dim // heads).transpose(1, 0, 2)


@wrong("Right but for a width that the heads do not divide: `//` rounds down, and the columns left over are dropped without a word. A "
       "`ValueError` is asked for.")
def drops_columns(x, heads):
    *lead, seq, dim = x.shape
    width = dim // heads
    return x[..., : heads * width].reshape(*lead, seq, heads, width).swapaxes(-2, -3)


@wrong("`/` makes a float even where the division comes out even, and a shape must be of whole numbers: which operator divides those?")
def float_width(x, heads):
    *lead, seq, dim = x.shape
    if dim % heads:
        raise ValueError
    return x.reshape(*lead, seq, heads, dim / heads).swapaxes(-2, -3)


@wrong("All your heads hold the same columns. Each head owns a piece of its own.")
def same_columns(x, heads):
    head = split_heads(x, heads)[..., :1, :, :]
    return np.repeat(head, heads, axis=-3)


@wrong("You return a list, one array for each head. One array with an axis for the heads is asked for.")
def list_of_heads(x, heads):
    return np.split(x, heads, axis=-1)


@wrong("The heads are moved to the very front, before all leading axes. Their place is right before the sequence.")
def heads_first(x, heads):
    return np.moveaxis(split_heads(x, heads), -3, 0)


def _source(case, got):
    """Of the first sequence: [head, token] -> the places in x (leading indices, token, column) of the numbers of that row."""
    x = case.args[0]
    if got.dtype.kind != "f":
        return None
    places = {float(value): np.unravel_index(i, x.shape) for i, value in enumerate(x.ravel())}
    first = got.reshape(-1, *got.shape[-3:])[0]
    return {(h, t): [tuple(map(int, places[float(value)])) if float(value) in places else None for value in row]
            for h, head in enumerate(first) for t, row in enumerate(head)}


@observe
def not_from_x(case, got, want):
    found = _source(case, got)
    if found and any(None in row for row in found.values()):
        return "Some of your numbers do not occur in x. Heads are cut out of x, and nothing is computed."


@observe
def other_tokens(case, got, want):
    found = _source(case, got)
    for (h, t), row in (found or {}).items():
        if None in row:
            return None
        tokens = sorted({place[-2] for place in row})
        if len(tokens) > 1:
            return f"Row {t} of head {h} holds numbers of the tokens {tokens}. Each row of a head belongs to one token."
        if tokens != [t]:
            return f"Row {t} of head {h} holds numbers of token {tokens[0]}. Row t of every head belongs to token t."


@observe
def other_columns(case, got, want):
    found = _source(case, got)
    width = case.args[0].shape[-1] // case.args[1]
    for (h, _), row in (found or {}).items():
        if None in row:
            return None
        columns = [place[-1] for place in row]
        if columns != list(range(h * width, (h + 1) * width)):
            wanted = f"{h * width} to {(h + 1) * width - 1}" if width > 1 else h * width
            return f"Head {h} of yours holds the columns {columns} of x; it should hold {wanted}."


@observe
def other_sequences(case, got, want):
    found = _source(case, got)
    leads = sorted({place[:-2] for row in (found or {}).values() for place in row if place})
    if leads and (len(leads) > 1 or any(leads[0])):
        return f"The heads of the first sequence hold numbers of the sequences at {leads[:4]} of the leading axes."
