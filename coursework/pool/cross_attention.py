"""Exercise: queries from one sequence, keys and values from another; for a problem set on encoders and decoders."""

import numpy as np

from attnlib.reference import softmax
from coursework import case, observe, sizes, wrong

TITLE = "Look into another sequence"
CHAPTER = ""
POINTS = 4
RETURNS = ("out", "weights")
GIVEN = """
import numpy as np
from attnlib.reference import softmax
"""
PROMPT = r"""
Write `cross_attention(x, context, w_q, w_k, w_v)`, with which the tokens of one sequence look into another, and return `(out, weights)`. The
tokens of `x` (..., seq_q, dim) ask; those of `context` (..., seq_k, dim) are compared and mixed. `w_q` and `w_k` are (dim, dim_head), `w_v` is
(dim, dim_v), each used as `x @ w`; the scores are dot products divided by √dim_head. `out` is (..., seq_q, dim_v), `weights` is
(..., seq_q, seq_k), and there may be any leading axes or none. You have `softmax(scores)`, over the last axis.
"""


def cross_attention(x, context, w_q, w_k, w_v):
    # BEGIN SOLUTION
    q = x @ w_q                                           # (..., seq_q, dim_head)
    k, v = context @ w_k, context @ w_v                   # (..., seq_k, ·)
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5  # (..., seq_q, seq_k)
    weights = softmax(scores)
    return weights @ v, weights                           # (..., seq_q, dim_v)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k dim dim_head dim_v", 4, 10)  # from 4, so that no root of one is another

    def draw(*lead, seq_q=s.seq_q, seq_k=s.seq_k, shift=0.0):
        return (rng.normal(size=(*lead, seq_q, s.dim)), rng.normal(size=(*lead, seq_k, s.dim)) + shift,
                *(rng.normal(size=(s.dim, width)) for width in (s.dim_head, s.dim_head, s.dim_v)))

    yield case("two sequences", *draw(), dims=s)
    yield case("sequences of the same length", *draw(seq_q=s.seq_k), dims={n: v for n, v in vars(s).items() if n != "seq_q"})
    yield case("one query", *draw(seq_q=1), dims=s)
    yield case("a context of one token", *draw(seq_k=1), dims=s)
    yield case("a context far from 0", *draw(shift=5.0), dims=s)
    yield case("a batch", *draw(s.batch), dims=s)
    yield case("two leading axes", *draw(s.batch, s.heads), dims=s)


def _attend(q, k, v, scale=None):
    weights = softmax(q @ k.swapaxes(-1, -2) / (q.shape[-1] ** 0.5 if scale is None else scale))
    return weights @ v, weights


@wrong("`context` has no effect on your result: queries, keys and values all come from x. That is self-attention.")
def self_attention(x, context, w_q, w_k, w_v):
    return _attend(x @ w_q, x @ w_k, x @ w_v)


@wrong("x and context have changed places: yours has one row of weights per token of the context. Who asks, and who is asked?")
def context_asks(x, context, w_q, w_k, w_v):
    return _attend(context @ w_q, x @ w_k, x @ w_v)


@wrong("Your values come from x. What is mixed is what was looked at: each value belongs to the same token as its key.")
def values_from_x(x, context, w_q, w_k, w_v):
    return _attend(x @ w_q, context @ w_k, x @ w_v)


@wrong("Your keys come from x and your values from the context: a token of x is compared with x and receives from the context, though key and value "
       "should be two vectors of one token.")
def keys_from_x(x, context, w_q, w_k, w_v):
    return _attend(x @ w_q, x @ w_k, context @ w_v)


@wrong("x has no effect on your result: queries, keys and values all come from the context.")
def context_alone(x, context, w_q, w_k, w_v):
    return _attend(context @ w_q, context @ w_k, context @ w_v)


@wrong("x and context are joined into one sequence, and the tokens of x look at themselves, too. Here they look at the context alone.")
def joined(x, context, w_q, w_k, w_v):
    both = np.concatenate([x, context], axis=-2)
    return _attend(x @ w_q, both @ w_k, both @ w_v)


@wrong("w_q and w_k have changed places: the queries are made with `w_k` and the keys with `w_q`.")
def matrices_exchanged(x, context, w_q, w_k, w_v):
    return _attend(x @ w_k, context @ w_q, context @ w_v)


@wrong("Your scores are not divided by √dim_head: the weights come out too sharp.")
def unscaled(x, context, w_q, w_k, w_v):
    return _attend(x @ w_q, context @ w_k, context @ w_v, 1)


@wrong("You divide the scores by the root of the width of x. The dot product is one of queries and keys: how wide are those?")
def root_of_dim(x, context, w_q, w_k, w_v):
    return _attend(x @ w_q, context @ w_k, context @ w_v, x.shape[-1] ** 0.5)


@wrong("You divide the scores by dim_head and not by its root: the weights come out too even.")
def by_the_width(x, context, w_q, w_k, w_v):
    return _attend(x @ w_q, context @ w_k, context @ w_v, w_q.shape[-1])


@wrong("`softmax` goes over the last axis; in your array that is the queries. The weights of one query over the keys should sum to 1.")
def over_queries(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    weights = softmax(k @ q.swapaxes(-1, -2) / q.shape[-1] ** 0.5).swapaxes(-1, -2)
    return weights @ v, weights


@wrong("The weights are right; `out` mixes the tokens of the context as they are. `w_v` has not been used.")
def without_w_v(x, context, w_q, w_k, w_v):
    weights = cross_attention(x, context, w_q, w_k, w_v)[1]
    return weights @ context, weights


@wrong("You return `out` alone. The pair `(out, weights)` is asked for.")
def out_alone(x, context, w_q, w_k, w_v):
    return cross_attention(x, context, w_q, w_k, w_v)[0]


@wrong("Right for matrices; with leading axes the shapes no longer fit. `.T`, for one, turns **all** axes round, where only the last two "
       "should change places.")
def turns_all_axes(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    weights = softmax(q @ k.T / q.shape[-1] ** 0.5)
    return weights @ v, weights


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9)


@observe
def whose_values(case, got, want):
    x, context, _, w_k, w_v = case.args
    if not _near(got[1], want[1]).all() or _near(got[0], want[0]).all():
        return None
    if w_k.shape == w_v.shape and _near(got[0], want[1] @ context @ w_k).all():
        return "Your weights are right; `out` mixes the keys, not the values."
    if _near(got[0], want[0] + (x @ w_v)).all():
        return "Your weights are right; your `out` has something of x added to it."
    if context.shape[-2] > 1 and _near(got[0], got[0][..., :1, :]).all() and got[0].shape[-2] > 1:
        return "Your weights are right; all rows of your `out` are the same."
    return "Your weights are right: it is `out` that is not the mean of the values, `context @ w_v`, under these weights."


@observe
def out_right(case, got, want):
    if _near(got[0], want[0]).all() and not _near(got[1], want[1]).all():
        return "`out` is right; what you return as weights is not what it was made with."


@observe
def same_for_every_query(case, got, want):
    weights = got[1]
    if weights.shape[-2] > 1 and weights.shape[-1] > 1 and _near(weights, weights[..., :1, :]).all():
        return "All your queries have the same weights: does your result depend on x?"


@observe
def sharper(case, got, want):
    x, context, w_q, w_k, _ = case.args
    weights = got[1]
    if context.shape[-2] < 3 or weights.dtype.kind != "f" or not (weights > 1e-200).all() or not _near(weights.sum(axis=-1), 1).all():
        return None
    one = np.eye(x.shape[-1])
    for name, a, b in (("", w_q, w_k), ("w_q and w_k in each other's place", w_k, w_q), ("keys made with w_q", w_q, w_q),
                       ("queries made with w_k", w_k, w_k), ("x and context as they are, before w_q and w_k", one, one)):
        dots = (x @ a) @ (context @ b).swapaxes(-1, -2)
        steps, wanted = np.diff(np.log(weights), axis=-1), np.diff(dots, axis=-1)
        ratio = np.median(steps / wanted)
        if not ratio or not np.allclose(steps, ratio * wanted, rtol=1e-5, atol=1e-6):
            continue
        if ratio < 0:
            return "Your weights prefer the smallest dot products: the scores have the opposite sign."
        if name:
            return f"Your weights are those of {name}."
        if abs(ratio * w_q.shape[1] ** 0.5 - 1) > 1e-6:
            return f"Your weights are those of dot products divided by {1 / ratio:.5g}; √dim_head is {w_q.shape[1] ** 0.5:.5g} here."


@observe
def masked(case, got, want):
    hidden = got[1] == 0
    if hidden.any() and not hidden.all() and (want[1] > 1e-9)[hidden].all():
        at = tuple(int(i) for i in np.argwhere(hidden)[0])
        return f"Query {at[-2]} gives no weight to key {at[-1]}. Every token of x may see the whole context: no mask is asked for."
