"""Exercise: the derivative of a loss with respect to the temperature of softmax."""

import numpy as np

from attnlib.reference import softmax, softmax_backward
from coursework import case, observe, sizes, wrong

TITLE = "Learn the temperature"
CHAPTER = "05_self_attention"
POINTS = 4
PROMPT = r"""
Some models learn how sharp a head should be {cite}`henry2020`. Let the weights be $\operatorname{softmax}(S/T)$ and the result be the
weights times `v`. Write `temperature_gradient(d_out, v, scores, temperature)`, the derivative of the loss with respect to the one number
$T$: `d_out` (..., seq_q, dim_v) is the gradient that arrives at the result, `v` is (..., seq_k, dim_v), `scores` (..., seq_q, seq_k) is
$S$, and you return **one** number, whatever the leading axes. `softmax(scores)` and `softmax_backward(weights, d_weights)` are given.
**Predict** first: if the values with high scores are the ones that lower the loss, is it positive or negative?
"""
GIVEN = "import numpy as np\n\nfrom attnlib.reference import softmax, softmax_backward"


def temperature_gradient(d_out, v, scores, temperature):
    # BEGIN SOLUTION
    weights = softmax(scores / temperature)
    # gradient of S / T
    d_scaled = softmax_backward(weights, d_out @ v.swapaxes(-1, -2))
    # d(S / T) / dT = -S / T²
    return -(d_scaled * scores).sum() / temperature**2
    # END SOLUTION


def _draw(rng, s, *lead):
    shapes = (*lead, s.seq_q, s.dim_v), (*lead, s.seq_k, s.dim_v), (*lead, s.seq_q, s.seq_k)
    return [rng.normal(size=shape) for shape in shapes]


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k dim_v")
    flat = {name: size for name, size in vars(s).items() if name not in ("batch", "heads")}
    yield case("a temperature above 1", *_draw(rng, s), rng.uniform(2.1, 2.9), dims=flat)
    yield case("a temperature below 1", *_draw(rng, s), rng.uniform(0.4, 0.6), dims=flat)
    yield case("temperature 1", *_draw(rng, s), 1.0, dims=flat)
    yield case("leading axes", *_draw(rng, s, s.batch, s.heads), rng.uniform(1.3, 1.7), dims=s)
    d_out, v, scores = _draw(rng, s)
    yield case("values far from 0", d_out, v + 10_000, scores, rng.uniform(1.3, 1.7), dims=flat)
    yield case("scores far from 0", d_out, v, scores + 2000, rng.uniform(1.3, 1.7), dims=flat)
    good = np.array([[-1.0], [0.0]]), np.array([[rng.uniform(0.5, 1.5), 0.0]])
    yield case("one query and two keys, of which the one with the high score lowers the loss", np.ones((1, 1)), *good, 1.3)
    yield case("a single key", d_out, v[:1], scores[:, :1], 1.7, dims={"seq_q": s.seq_q, "dim_v": s.dim_v})


@wrong("The sign is wrong: as T grows, S/T shrinks. If the values with high scores lower the loss, is it cooling or warming "
       "that helps?")
def forgets_the_minus(d_out, v, scores, temperature):
    return -temperature_gradient(d_out, v, scores, temperature)


@wrong("One factor 1/T is missing. What is the derivative of S/T with respect to T?")
def divides_once(d_out, v, scores, temperature):
    return temperature * temperature_gradient(d_out, v, scores, temperature)


@wrong("There is one factor 1/T too many: scores that are divided by T already are divided by T² once more.")
def divides_three_times(d_out, v, scores, temperature):
    return temperature_gradient(d_out, v, scores, temperature) / temperature


@wrong("This is the derivative with respect to 1/T, the factor in front of the scores. The loss is wanted as a function of T: "
       "what links a small step in T with one in 1/T?")
def with_respect_to_the_inverse(d_out, v, scores, temperature):
    return -temperature_gradient(d_out, v, scores, temperature) * temperature**2


@wrong("Your weights are softmax of the scores themselves: right at temperature 1 only. At which weights does the loss stand when T "
       "is not 1?")
def weights_at_one(d_out, v, scores, temperature):
    d_scaled = softmax_backward(softmax(scores), d_out @ v.swapaxes(-1, -2))
    return -(d_scaled * scores).sum() / temperature**2


@wrong("The gradient of the weights is taken for that of the scaled scores. Between them stands softmax, and its backward step.")
def skips_softmax(d_out, v, scores, temperature):
    return -(d_out @ v.swapaxes(-1, -2) * scores).sum() / temperature**2


@wrong("You multiply by the weights and forget what softmax_backward subtracts: adding one number to all values changes your answer, "
       "although it only moves every result alike.")
def forgets_the_mean(d_out, v, scores, temperature):
    d_scaled = softmax(scores / temperature) * (d_out @ v.swapaxes(-1, -2))
    return -(d_scaled * scores).sum() / temperature**2


@wrong("You sum the gradient of the scaled scores as it is: each of its rows sums to 0. By how much does each scaled score move when "
       "T does?")
def sums_the_rows(d_out, v, scores, temperature):
    weights = softmax(scores / temperature)
    return -softmax_backward(weights, d_out @ v.swapaxes(-1, -2)).sum() / temperature**2


@wrong("You take a mean over queries and keys. T acts on every score, and the effects on the loss add up.")
def takes_the_mean(d_out, v, scores, temperature):
    return temperature_gradient(d_out, v, scores, temperature) / scores.size


@wrong("You take the mean over the queries. One T serves them all, and their effects on the loss add up.")
def mean_over_queries(d_out, v, scores, temperature):
    return temperature_gradient(d_out, v, scores, temperature) / scores.shape[-2]


@wrong("Your result has a number for each query. They all share one T: what becomes of their gradients?")
def one_per_query(d_out, v, scores, temperature):
    d_scaled = softmax_backward(softmax(scores / temperature), d_out @ v.swapaxes(-1, -2))
    return -(d_scaled * scores).sum(axis=-1) / temperature**2


def _near(a, b):
    return bool(np.isclose(a, b, rtol=1e-7, atol=1e-10))


def _slightly(got, want):
    """Whether a number is off by no more than a lower precision would do, or is complex; that is said elsewhere."""
    return isinstance(got, complex) or abs(got - want) < 1e-3 * abs(want)


@observe
def nothing(case, got, want):
    if not np.isfinite(got):
        return f"Your gradient is {got}."
    if abs(got) < 1e-9 < abs(want):
        return "Your gradient is 0 to rounding, as if no small step in T could change the loss."


@observe
def built_from_other_pieces(case, got, want):
    """Compare with sums of other pieces, up to the sign and a power of T."""
    d_out, v, scores, t = case.args
    if _slightly(got, want):
        return None
    d_weights = d_out @ v.swapaxes(-1, -2)
    weights = softmax(scores / t)
    right = softmax_backward(weights, d_weights)
    at_one = softmax_backward(softmax(scores), d_weights)
    out = (weights @ v * d_out).sum()
    pieces = [("the right number", right * scores), ("what comes out with the weights of temperature 1", at_one * scores),
              ("what comes out if nothing is subtracted in softmax's backward step", weights * d_weights * scores),
              ("what comes out without softmax's backward step", d_weights * scores),
              ("what comes out with weights of scores times T, not over T",
               softmax_backward(softmax(scores * t), d_weights) * scores),
              ("what comes out if softmax's backward step is handed scores in place of weights",
               softmax_backward(scores / t, d_weights) * scores),
              ("the same, with scores that are not divided by T", softmax_backward(scores, d_weights) * scores),
              ("the loss itself (d_out times the result, summed)", out)]
    for name, piece in pieces:
        for power in (-2, -1, -3, 0, -4):
            number = piece.sum() * t**power
            if abs(number) < 1e-9 or not _near(abs(got), abs(number)):
                continue
            if name != pieces[0][0]:
                return f"Up to the sign and powers of T, your gradient is {name} (T = {t:.3g} here)."
            minus, factor = "minus " if got * want < 0 else "", {0: "", 1: "T times "}.get(power + 2, f"T to the power {power + 2} times ")
            return f"Your gradient is {minus}{factor}{name} (T = {t:.3g} here)."


@observe
def a_size(case, got, want):
    if abs(want) < 1e-9 or _slightly(got, want):
        return None
    ratio = got / want
    for name, size in case.dims.items():
        for factor, says in ((size, f"{name} times"), (1 / size, f"1/{name} of"), (size**0.5, f"√{name} times"),
                             (size**-0.5, f"1/√{name} of")):
            if _near(abs(ratio), factor):
                return f"Your gradient is {'minus ' if ratio < 0 else ''}{says} the right number, with {name} = {size}."
    for one, size in case.dims.items():
        for two, other in case.dims.items():
            if one < two and _near(abs(ratio) * size * other, 1):
                return f"Your gradient is {'minus ' if ratio < 0 else ''}the right number divided by {one} · {two}."


@observe
def beside_a_nudge(case, got, want):
    d_out, v, scores, t = case.args
    if _slightly(got, want):
        return None
    step = 1e-4

    def loss(temperature):
        return (d_out * (softmax(scores / temperature) @ v)).sum()

    slope = (loss(t + step) - loss(t - step)) / (2 * step)
    if abs(got - want) < 0.05 * abs(want):
        return (f"Your gradient is {got:.6g}; the derivative is {want:.6g}. It agrees to few digits only, as a quotient of differences with a "
                "coarse step does.")
    sign = " It has the other sign." if _near(got, -want) else ""
    return (f"From T = {t:.3g} to {t + step:.5g} the loss (d_out times the result, summed) changes by {slope:.4g} for each unit of T; "
            f"your gradient says {got:.4g}.{sign}")
