"""Exercise: the scores of QK-norm, cosines times one number, which survive vectors of length 0."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Scores that cannot grow"
CHAPTER = "03_scores"
POINTS, EDGE_POINTS = 4, 1
PROMPT = r"""
Write `cosine_scores(q, k, scale)`: the cosine of every query with every key, times `scale` (the one number that QK-norm learns
{cite}`henry2020`, in place of a division by $\sqrt d$). `q` is (..., seq_q, dim_head), `k` is (..., seq_k, dim_head), with any leading axes; the
scores are (..., seq_q, seq_k). A query or key that is all zeros has score 0 with everything, not NaN. Short vectors count like long ones: the
scores do not depend on any length. Do not change `q` or `k`.
"""


def cosine_scores(q, k, scale):
    # BEGIN SOLUTION
    def unit(vectors):
        length = np.linalg.norm(vectors, axis=-1, keepdims=True)  # (..., seq, 1)
        return vectors / np.where(length == 0, 1, length)
    return scale * (unit(q) @ unit(k).swapaxes(-1, -2))  # (..., seq_q, seq_k)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k dim_head")
    flat = {name: size for name, size in vars(s).items() if name not in ("batch", "heads")}
    scale = float(rng.uniform(4, 6))

    def draw(*lead):
        return rng.normal(size=(*lead, s.seq_q, s.dim_head)), rng.normal(size=(*lead, s.seq_k, s.dim_head))

    yield case("a single head, scale 1", *draw(), 1.0, dims=flat)
    yield case(f"scale {scale:.3g}", *draw(), scale, dims=flat)
    yield case("leading axes", *draw(s.batch, s.heads), scale, dims=s)
    q, k = draw()
    yield case("vectors of very different length", q * 10.0 ** rng.permutation(np.linspace(-2, 2, s.seq_q))[:, None],
               k * 10.0 ** rng.permutation(np.linspace(-2, 2, s.seq_k))[:, None], scale, dims=flat)
    q, k = draw()
    yield case("very short vectors", 1e-7 * q, 1e-7 * k, scale, dims=flat)
    q, k = draw()
    yield case("one query", q[:1], k, scale, dims={"seq_k": s.seq_k, "dim_head": s.dim_head})
    both = rng.normal(size=(s.seq_q, s.dim_head))
    yield case("as many queries as keys", both, rng.normal(size=both.shape), scale, dims={"seq": s.seq_q, "dim_head": s.dim_head})
    q, k = draw()
    q[1], k[2] = 0, 0
    yield case("a query and a key that are all zeros", q, k, scale, edge=True, dims=flat)


def _score(q, k, scale, axis=-1, length=None):
    """The solution with other parts."""
    length = length or (lambda v: np.linalg.norm(v, axis=axis, keepdims=True))

    def unit(vectors):
        n = length(vectors)
        return vectors / np.where(n == 0, 1, n)
    return scale * (unit(q) @ unit(k).swapaxes(-1, -2))


@wrong("Right but for a vector that is all zeros: its length is 0, and 0 / 0 is NaN. What could you divide by there instead?")
def no_zero_vectors(q, k, scale):
    unit_q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    unit_k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    return scale * (unit_q @ unit_k.swapaxes(-1, -2))


@wrong("A small number that you add to the length keeps NaN away, and makes every cosine a little too small, that of a short vector much too "
       "small. Treat length 0 by itself.")
def adds_epsilon(q, k, scale):
    return _score(q, k, scale, length=lambda v: np.linalg.norm(v, axis=-1, keepdims=True) + 1e-8)


@wrong("You take any length below some small number for that number. A very short vector still has a direction: only length 0 is special.")
def clips_the_length(q, k, scale):
    return _score(q, k, scale, length=lambda v: np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-6))


@wrong("You divide by one length for the whole array. Every query and every key has a length of its own.")
def one_length(q, k, scale):
    return _score(q, k, scale, length=np.linalg.norm)


@wrong("You take the length along the sequence: feature by feature over all tokens. A vector's numbers are on the last axis.")
def along_the_sequence(q, k, scale):
    return _score(q, k, scale, axis=-2)


@wrong("Right for a single head. You take the length along axis 1, and with leading axes that is not the last: count from the end.")
def along_axis_1(q, k, scale):
    return _score(q, k, scale, axis=1)


@wrong("The queries are brought to length 1, the keys are not: a long key still gives large scores.")
def keys_not_normalised(q, k, scale):
    return _score(q, np.eye(k.shape[-1]), scale) @ k.swapaxes(-1, -2)


@wrong("The keys are brought to length 1, the queries are not: the length of a query still multiplies its row.")
def queries_not_normalised(q, k, scale):
    return q @ _score(np.eye(q.shape[-1]), k, scale)


@wrong("You divide by the sum of squares. The length of a vector is the square root of it.")
def squared_length(q, k, scale):
    return _score(q, k, scale, length=lambda v: (v**2).sum(axis=-1, keepdims=True))


@wrong("You divide by the sum of the absolute values. The length that a cosine is made with is the root of the sum of squares.")
def absolute_values(q, k, scale):
    return _score(q, k, scale, length=lambda v: np.abs(v).sum(axis=-1, keepdims=True))


@wrong("The cosines are right, and `scale` has no say: they are to be multiplied by it.")
def forgets_scale(q, k, scale):
    return cosine_scores(q, k, 1.0)


@wrong("You divide by `scale`. The scores are to be `scale` times the cosine.")
def divides_by_scale(q, k, scale):
    return cosine_scores(q, k, 1 / scale)


@wrong("You multiply both, the queries and the keys, by `scale`: it comes in twice.")
def scale_twice(q, k, scale):
    return cosine_scores(q, k, scale**2)


@wrong("You divide by √d on top. The cosine takes the place of that division: no score is to depend on the width.")
def root_d_too(q, k, scale):
    return cosine_scores(q, k, scale) / q.shape[-1] ** 0.5


@wrong("These are ordinary scaled dot products, times `scale`: lengths still count. Bring queries and keys to length 1 first.")
def dot_products(q, k, scale):
    return scale * (q @ k.swapaxes(-1, -2)) / q.shape[-1] ** 0.5


@wrong("These are plain dot products times `scale`: nothing has been brought to length 1.")
def plain_products(q, k, scale):
    return scale * (q @ k.swapaxes(-1, -2))


@wrong("Rows and columns are exchanged: queries stand down, keys across.")
def keys_down(q, k, scale):
    return cosine_scores(k, q, scale)


@wrong("Right for a single head. `.T` turns **all** axes around; with leading axes only the last two may change places.")
def turns_all_axes(q, k, scale):
    unit = [v / np.where((n := np.linalg.norm(v, axis=-1, keepdims=True)) == 0, 1, n) for v in (q, k)]
    return scale * (unit[0] @ unit[1].T)


@wrong("You take each token's mean away first. That is a correlation; a cosine leaves the vectors where they are.")
def correlation(q, k, scale):
    return cosine_scores(q - q.mean(axis=-1, keepdims=True), k - k.mean(axis=-1, keepdims=True), scale)


@wrong("You divide by the root of the **mean** square, as RMSNorm does: vectors come out with length √d, and every score d times too large.")
def root_mean_square(q, k, scale):
    return _score(q, k, scale, length=lambda v: np.sqrt((v**2).mean(axis=-1, keepdims=True)))


@wrong("`q` or `k` is changed by your function: `/=` writes into the caller's array.")
def in_place(q, k, scale):
    for v in (q, k):
        length = np.linalg.norm(v, axis=-1, keepdims=True)
        v /= np.where(length == 0, 1, length)
    return scale * (q @ k.swapaxes(-1, -2))


@observe
def zero_vectors(case, got, want):
    q, k, _ = case.args
    for name, zero, rows in (("query", ~q.any(axis=-1), got), ("key", ~k.any(axis=-1), np.swapaxes(got, -1, -2))):
        if zero.any() and not (rows[zero] == 0).all():
            i = int(np.argmax(zero))
            return f"The {name} {i} is all zeros. Its scores should be 0; the first of yours is {rows[zero].flat[0]:.3g}."
    zero = ~q.any(axis=-1)[..., :, None] | ~k.any(axis=-1)[..., None, :]
    if zero.any() and not np.isfinite(got[~zero]).all():
        return "Query 1 and key 2 are all zeros. Scores of other queries with other keys come out as NaN or infinity."


@observe
def short_vectors(case, got, want):
    q, k, _ = case.args
    longest = max(np.linalg.norm(v, axis=-1).max() for v in (q, k))
    if longest < 1e-3 and np.isfinite(got).all() and np.abs(got).max() < 0.999 * np.abs(want).max():
        return (f"All vectors here are shorter than {longest:.1g}, which does not change a cosine. Your largest score is {np.abs(got).max():.3g}, "
                f"expected {np.abs(want).max():.3g}. Is a small number added to a length, or is a length kept above one?")


@observe
def no_length_left(case, got, want):
    """Right for a single matrix, with one factor for the whole of it: a length of the whole array."""
    q, k, _ = case.args
    whole = np.sqrt((q**2).sum()) * np.sqrt((k**2).sum())
    if got.size > 2 and np.allclose(got * whole, case.args[2] * q @ np.swapaxes(k, -1, -2), rtol=1e-6, atol=0):
        return "All your dot products are divided by the same number: the length of all queries together times that of all keys together."


@observe
def lengths_of_one_side(case, got, want):
    """Right but for a factor to each row, or to each column: which length is still in it."""
    q, k, _ = case.args
    if not (np.isfinite(got).all() and np.abs(want).min() > 0) or min(want.shape[-2:]) < 2:
        return None
    ratio = got / want
    for name, vectors, axis in (("query", q, -1), ("key", k, -2)):
        factor = np.take(ratio, [0], axis=axis)
        if not np.allclose(ratio, factor, rtol=1e-5) or np.allclose(ratio, ratio.flat[0], rtol=1e-5):
            continue
        length = np.linalg.norm(vectors, axis=-1)
        factor = np.squeeze(factor, axis)
        power = next((p for p in (1, 2, -1) if np.allclose(factor / length**p, (factor / length**p).flat[0], rtol=1e-5, atol=0)), None)
        of = {1: f", and that factor grows with the length of the {name}", 2: f", and that factor grows with the square of the {name}'s length",
              -1: f", and that factor shrinks as the {name} gets longer"}.get(power, "")
        return f"Your scores are right up to a factor of each {name}'s own ({factor.flat[0]:.3g} for the first, {factor.flat[1]:.3g} for the next){of}."


@observe
def lengths_of_both_sides(case, got, want):
    """The expected scores times a power of both lengths, and perhaps a constant."""
    q, k, _ = case.args
    if not (np.isfinite(got).all() and np.abs(want).min() > 0) or min(want.shape[-2:]) < 2:
        return None
    q_length, k_length = np.linalg.norm(q, axis=-1)[..., :, None], np.linalg.norm(k, axis=-1)[..., None, :]
    for power, said in ((1, "grow with the lengths of query and key"), (2, "grow with the squares of the lengths of query and key"),
                        (-1, "shrink as query and key get longer")):
        rest = got / (want * q_length**power * k_length**power)
        if np.allclose(rest, rest.flat[0], rtol=1e-6, atol=0):
            tail = "" if np.isclose(rest.flat[0], 1, rtol=1e-6) else ", beside a constant factor"
            return f"Your scores {said}{tail}. A cosine knows directions alone."
    ratio = got / want
    apart = ratio[..., :1, :] * ratio[..., :, :1]
    if np.ptp(ratio) > 1e-3 and np.allclose(ratio * ratio[..., :1, :1], apart, rtol=1e-6, atol=0):
        return ("Your scores are right up to a factor of each query's own and one of each key's own, as if vectors had been divided by something other "
                "than their length.")


@observe
def another_factor(case, got, want):
    """A function of the scale in its place."""
    scale = case.args[2]
    if scale == 1 or not np.isfinite(got).all() or got.size < 3:
        return None
    cosine = want / scale
    for said, factor in (("the bare cosines", 1.0), ("its square", scale**2), ("1 over it", 1 / scale), ("its root", scale**0.5), ("1 over its root", scale**-0.5),
                         ("exp of it", np.exp(scale))):
        if np.allclose(got, factor * cosine, rtol=1e-7, atol=0):
            return f"Here `scale` is {scale:.4g}, and the factor before the cosines is {factor:.4g} in your result ({said})."
    if np.allclose(got, cosine + scale, rtol=1e-7):
        return f"You add `scale`, {scale:.4g}, to the cosines. They are to be multiplied by it."


@observe
def something_akin(case, got, want):
    """Functions of the cosine that are near at hand."""
    scale = case.args[2]
    if not np.isfinite(got).all() or got.size < 3:
        return None
    cosine = np.clip(want / scale, -1, 1)
    if (got > 0).all() and got.shape[-1] > 1 and np.allclose(got.sum(axis=-1), 1):
        return "Every row of your result is positive and sums to 1, as weights do. Scores before softmax are asked for."
    for said, value in (("the angles, in radians", np.arccos(cosine)), ("the angles, in degrees", np.degrees(np.arccos(cosine))),
                        ("1 minus the cosine, a distance", 1 - cosine), ("the squares of the cosines", cosine**2)):
        if np.allclose(got, value) or np.allclose(got, scale * value):
            return f"Your result holds {said}" + ("." if np.allclose(got, value) else ", times `scale`.")


@observe
def beyond_scale(case, got, want):
    scale = case.args[2]
    if np.isfinite(got).all() and np.abs(got).max() > scale * (1 + 1e-6):
        ratio = got.flat[0] / want.flat[0] if want.flat[0] else 0
        if ratio and np.allclose(got, ratio * want):
            return None                   # a constant factor: that is said better elsewhere
        return f"One of your scores is {got.flat[np.abs(got).argmax()]:.3g} with scale {scale:.3g}. No cosine is beyond 1, so no score is beyond the scale."


@observe
def one_sign(case, got, want):
    if (got >= 0).all() and np.allclose(got, np.abs(want)):
        return "Your scores have the right size and are never negative. Vectors that point away from each other have a negative cosine."
