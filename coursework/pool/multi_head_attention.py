"""Exercise: several heads in one layer, for a problem set that has built attention and the splitting of heads before (both are given)."""

import numpy as np

from attnlib.reference import attention, merge_heads, split_heads
from coursework import case, observe, sizes, wrong

TITLE = "Many heads, one layer"
CHAPTER = ""
POINTS = 4
RETURNS = ("out", "weights")
GIVEN = """
import numpy as np
from attnlib.reference import attention, merge_heads, split_heads
"""
PROMPT = r"""
Write `multi_head_attention(x, w_q, w_k, w_v, w_o, heads)`, self-attention with several heads {cite}`vaswani2017`, which returns
`(out, weights)`. `x` is (..., seq, dim), with any leading axes or none; `w_q` and `w_k` are (dim, heads · dim_head), `w_v` is (dim, heads · dim_v),
each used as `x @ w`, and head 0 owns the first columns. All heads attend at once; their results, side by side, go through `w_o` (heads · dim_v,
dim). `out` is (..., seq, dim) and `weights` (..., heads, seq, seq). You have `attention(q, k, v)`, which returns `(out, weights)` and takes any
leading axes; `split_heads(x, heads)` from (..., seq, heads · width) to (..., heads, seq, width); and `merge_heads(x)`, which undoes it.
"""


def multi_head_attention(x, w_q, w_k, w_v, w_o, heads):
    # BEGIN SOLUTION
    q = split_heads(x @ w_q, heads)         # (..., heads, seq, dim_head)
    k = split_heads(x @ w_k, heads)
    v = split_heads(x @ w_v, heads)         # (..., heads, seq, dim_v)
    out, weights = attention(q, k, v)
    return merge_heads(out) @ w_o, weights  # (..., seq, dim)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch documents seq heads dim_head dim_v", 3, 9)
    dim = s.heads * s.dim_head + 1

    def draw(*lead, seq=s.seq, heads=s.heads, dim=dim, dim_head=s.dim_head, dim_v=s.dim_v):
        widths = (dim, heads * dim_head), (dim, heads * dim_head), (dim, heads * dim_v), (heads * dim_v, dim)
        return rng.normal(size=(*lead, seq, dim)), *(rng.normal(size=shape) / dim**0.5 for shape in widths), heads

    yield case("one sequence", *draw(), dims=s)
    yield case("as many tokens as heads", *draw(s.batch, seq=s.heads), dims={n: v for n, v in vars(s).items() if n != "seq"})
    yield case("a batch", *draw(s.batch), dims=s)
    yield case("two leading axes", *draw(s.documents, s.batch), dims=s)
    yield case("one head", *draw(s.batch, heads=1), dims=s)
    yield case("square matrices", *draw(s.batch, dim=s.heads * s.dim_head, dim_v=s.dim_head),
               dims={n: v for n, v in vars(s).items() if n != "dim_v"})
    yield case("one token", *draw(s.batch, seq=1), dims=s)


def _layer(x, w_q, w_k, w_v, w_o, heads, attend=attention, merge=merge_heads):
    q, k, v = (split_heads(x @ w, heads) for w in (w_q, w_k, w_v))
    out, weights = attend(q, k, v)
    return merge(out) @ w_o, weights


@wrong("The heads' results are side by side, and `w_o` has not been used: no head can reach the columns of another without it.")
def without_w_o(x, w_q, w_k, w_v, w_o, heads):
    q, k, v = (split_heads(x @ w, heads) for w in (w_q, w_k, w_v))
    out, weights = attention(q, k, v)
    return merge_heads(out), weights


@wrong("There is one head as wide as all: `heads` has no effect on your weights. Each head is to compare its own columns of queries and keys.")
def one_wide_head(x, w_q, w_k, w_v, w_o, heads):
    out, weights = attention(x @ w_q, x @ w_k, x @ w_v)
    return out @ w_o, weights


@wrong("The heads are cut out with one `reshape`: that cuts tokens into pieces, and a row of a head holds several columns of one "
       "token or of several tokens. `split_heads` exchanges two axes as well.")
def splits_by_reshape(x, w_q, w_k, w_v, w_o, heads):
    q, k, v = ((x @ w).reshape(*x.shape[:-2], heads, x.shape[-2], -1) for w in (w_q, w_k, w_v))
    out, weights = attention(q, k, v)
    return merge_heads(out) @ w_o, weights


@wrong("The weights are right. The heads are merged with one `reshape`, so that a row of yours holds several tokens of one head: `merge_heads` "
       "exchanges two axes first.")
def merges_by_reshape(x, w_q, w_k, w_v, w_o, heads):
    return _layer(x, w_q, w_k, w_v, w_o, heads, merge=lambda out: out.reshape(*x.shape[:-1], -1))


@wrong("`out` is right. Your weights are a mean over the heads: every head's own weights are asked for.")
def mean_of_the_weights(x, w_q, w_k, w_v, w_o, heads):
    out, weights = _layer(x, w_q, w_k, w_v, w_o, heads)
    return out, weights.mean(axis=-3)


@wrong("You return `out` alone. The pair `(out, weights)` is asked for.")
def out_alone(x, w_q, w_k, w_v, w_o, heads):
    return _layer(x, w_q, w_k, w_v, w_o, heads)[0]


@wrong("Queries and keys have changed places: `w_q` is used for the keys and `w_k` for the queries, so that each weight is that of the pair turned "
       "round before softmax.")
def queries_for_keys(x, w_q, w_k, w_v, w_o, heads):
    return _layer(x, w_k, w_q, w_v, w_o, heads)


@wrong("The heads attend in the wrong layout: `attention` compares along the last two axes, and yours are (heads, width) there. The heads are "
       "compared with each other, token by token.")
def compares_heads(x, w_q, w_k, w_v, w_o, heads):
    q, k, v = (split_heads(x @ w, heads).swapaxes(-2, -3) for w in (w_q, w_k, w_v))
    out, weights = attention(q, k, v)
    return out.reshape(*x.shape[:-1], -1) @ w_o, weights


@wrong("The vectors themselves are cut into heads before the projections: each head is to see all columns of x. Project first, then split.")
def splits_x_first(x, w_q, w_k, w_v, w_o, heads):
    parts = split_heads(x, heads)
    q, k, v = (parts @ split_heads(w[: parts.shape[-1]], heads) for w in (w_q, w_k, w_v))
    out, weights = attention(q, k, v)
    return merge_heads(out) @ w_o, weights


@wrong("The heads run in the wrong columns: head 0 of yours owns every heads-th column of the projections, where it should own the first ones.")
def every_nth_column(x, w_q, w_k, w_v, w_o, heads):
    q, k, v = (np.moveaxis((x @ w).reshape(*x.shape[:-1], -1, heads), -1, -3) for w in (w_q, w_k, w_v))
    out, weights = attention(q, k, v)
    return merge_heads(out) @ w_o, weights


@wrong("The scores are divided by the root of the whole width, heads · dim_head. Each head's dot product has dim_head terms.")
def whole_width(x, w_q, w_k, w_v, w_o, heads):
    return _layer(x, w_q / heads**0.5, w_k, w_v, w_o, heads)


@wrong("The scores are scaled twice: `attention` divides by √dim_head already.")
def scaled_twice(x, w_q, w_k, w_v, w_o, heads):
    return _layer(x, w_q / (w_q.shape[-1] // heads) ** 0.5, w_k, w_v, w_o, heads)


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9)


@observe
def out_from_right_weights(case, got, want):
    x, _, _, w_v, w_o, heads = case.args
    if not _near(got[1], want[1]).all() or _near(got[0], want[0]).all():
        return None
    mixed = want[1] @ split_heads(x @ w_v, heads)
    merged = merge_heads(mixed)
    if w_o.shape[0] == w_o.shape[1] and _near(got[0], merged).all():
        return "Your weights are right; your `out` has not passed through w_o."
    if w_o.shape[0] == w_o.shape[1] and _near(got[0], merged @ w_o.T).all():
        return "Your weights are right; w_o has been used transposed."
    if _near(got[0], merge_heads(mixed[..., ::-1, :, :]) @ w_o).all():
        return "Your weights are right; the heads' results stand side by side in reverse order."
    if _near(got[0], want[0] + x).all():
        return "Your weights are right; your `out` has x added to it. The layer alone is asked for, without the residual."
    if heads > 1 and x.shape[-2] > 1:
        pieces = split_heads(x @ w_v, heads).swapaxes(-1, -2) if x.shape[-2] == w_v.shape[1] // heads else None
        if pieces is not None and _near(got[0], merge_heads(want[1] @ pieces) @ w_o).all():
            return "Your weights are right; the values of each head have been transposed."
        return "Your weights are right: look at the values, at how the heads are put together, and at w_o."


@observe
def weights_alone(case, got, want):
    if _near(got[0], want[0]).all() and not _near(got[1], want[1]).all():
        return "`out` is right, and the weights that you return are not those it was made with."


@observe
def weights_of_other_heads(case, got, want):
    heads = case.args[5]
    if heads > 1 and case.args[0].shape[-2] > 1 and np.isfinite(got[1]).all():
        if _near(got[1], got[1][..., :1, :, :]).all():
            return f"All {heads} heads of yours have the same weights; each has columns of its own in w_q and w_k."
        right = [h for h in range(heads) if _near(got[1][..., h, :, :], want[1][..., h, :, :]).all()]
        if 0 < len(right) < heads:
            return f"The weights of the heads {right} are right, those of the other {heads - len(right)} are not."
        if _near(got[1], want[1].swapaxes(-1, -2)).all():
            return "Your weights are right but for rows and columns, which are exchanged."


@observe
def another_scale(case, got, want):
    """Weights that are a softmax of dot products times one number."""
    weights, (x, w_q, w_k, _, _, heads) = got[1], case.args
    if x.shape[-2] < 3 or weights.dtype.kind != "f" or not (weights > 0).all() or not _near(weights.sum(axis=-1), 1).all():
        return None
    width = w_q.shape[-1] // heads
    for name, a, b in (("", w_q, w_k), ("w_q and w_k in each other's place", w_k, w_q), ("keys made with w_q", w_q, w_q),
                       ("queries made with w_k", w_k, w_k)):
        dots = split_heads(x @ a, heads) @ split_heads(x @ b, heads).swapaxes(-1, -2)
        steps, wanted = np.diff(np.log(weights), axis=-1), np.diff(dots, axis=-1)
        ratio = np.median(steps / wanted)
        if ratio == 0 or not np.allclose(steps, ratio * wanted, rtol=1e-5, atol=1e-7):
            continue
        if ratio < 0:
            return "Your weights prefer the smallest dot products: the scores have the opposite sign."
        if name:
            return f"Your weights are those of {name}."
        if abs(ratio * width**0.5 - 1) > 1e-6:
            return f"Your weights are those of dot products divided by {1 / ratio:.5g}; √dim_head is {width**0.5:.5g} here."


@observe
def hides_the_future(case, got, want):
    weights = got[1]
    if weights.shape[-1] > 1 and (np.triu(np.abs(weights), 1) == 0).all():
        return "No query of yours sees a token after its own: no mask is asked for here."
