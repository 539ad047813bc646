"""Exercise: softmax at any temperature, with both limits (chapter 4)."""

import numpy as np

from attnlib.reference import softmax
from coursework import case, observe, sizes, wrong

TITLE = "Temperature with its limits"
CHAPTER = "04_softmax"
POINTS, EDGE_POINTS = 3, 1
PROMPT = r"""
Write `soften(scores, temperature)`: `softmax` over the last axis of `scores` divided by the temperature, for finite scores and any
temperature $\ge 0$, however small, **including 0**, where all weight goes to the largest score of each row and exact ties share it
equally, and including `np.inf`, where every key gets the same. Nothing may be divided by zero (where it is tried, NumPy raises a
`FloatingPointError` here instead of warning). It should work on any leading axes, or none. Do not change `scores`.
"""
GIVEN = "import numpy as np\nfrom attnlib.reference import softmax"


def soften(scores, temperature):
    # BEGIN SOLUTION
    shifted = scores - scores.max(axis=-1, keepdims=True)  # largest: 0
    if temperature == 0:
        ties = shifted == 0
        return ties / ties.sum(axis=-1, keepdims=True)
    return softmax(shifted / temperature)  # may go to -inf, never to +inf
    # END SOLUTION


def drive(f, scores, temperature):
    """Call it so that a division by zero, or NaN out of numbers, is an error."""
    with np.errstate(divide="raise", invalid="raise", over="ignore", under="ignore"):
        return f(scores, temperature)


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k", least=4)
    shape = s.seq_q, s.seq_k
    yield case("temperature 1", rng.normal(size=shape), 1.0, dims=s)
    yield case("a temperature above 1", rng.normal(size=shape) * 2, float(rng.uniform(2, 3)), dims=s)
    yield case("leading axes, temperature below 1", rng.normal(size=(s.batch, s.heads, *shape)), float(rng.uniform(0.3, 0.5)), dims=s)
    large = rng.normal(size=shape) + 1000 * rng.integers(-2, 3, size=shape)
    large[:, 0], large[:, 1] = 2000, -2000
    yield case("scores near a million, temperature of hundreds", large + 1e6, float(rng.uniform(400, 700)), dims=s)
    yield case("temperature 0, scores near -1e-40", (rng.normal(size=shape) - 5) * 1e-40, 0, dims=s)
    tied = rng.integers(3, size=(s.batch, *shape)).astype(float)
    tied[:, 0, :2] = 5
    tied[:, 1, 0], tied[:, 1, 1] = 5, np.nextafter(5, 6)
    yield case("temperature 0 with ties", tied, 0.0, dims=s)
    yield case("infinite temperature", rng.normal(size=shape) * 3, np.inf, dims=s)
    yield case("one row, scores and temperature near 1e-20", rng.normal(size=s.seq_k) * 1e-20, float(rng.uniform(1e-20, 2e-20)), dims=s)
    yield case("a temperature of 1e-310", rng.normal(size=shape) + 8, 1e-310, edge=True, dims=s)


def _cold(scores):
    ties = scores == scores.max(axis=-1, keepdims=True)
    return ties / ties.sum(axis=-1, keepdims=True)


@wrong("At temperature 0 it divides by zero (`np.where` does so too: both of its branches are computed). Which keys share the weight there? "
       "You can find them by comparing alone.")
def divides_by_zero(scores, temperature):
    return softmax(scores / temperature)


@wrong("In place of 0 you take a very small temperature. Two scores that differ in their last digit then share the weight, although only one is the "
       "largest: at 0 only exact ties share.")
def almost_zero(scores, temperature):
    return softmax(scores / max(temperature, 1e-12))


@wrong("At temperature 0 one key takes everything even where several have the largest score: `argmax` names only the first of them.")
def first_of_ties(scores, temperature):
    if temperature == 0:
        return np.eye(scores.shape[-1])[scores.argmax(axis=-1)]
    return soften(scores, temperature)


@wrong("At temperature 0 each of the tied keys gets weight 1, so that such a row spends more than 1. They should share.")
def ties_do_not_share(scores, temperature):
    if temperature == 0:
        return (scores == scores.max(axis=-1, keepdims=True)).astype(float)
    return soften(scores, temperature)


@wrong("At temperature 0 you look for the largest score of the whole array. Every row has a largest score of its own.")
def global_maximum(scores, temperature):
    if temperature == 0:
        ties = scores == scores.max()
        return ties / np.maximum(ties.sum(axis=-1, keepdims=True), 1)
    return soften(scores, temperature)


@wrong("At temperature 0 every key gets the same. That is the other limit: the colder, the more goes to the largest score.")
def limits_exchanged(scores, temperature):
    if temperature == 0:
        return np.full(scores.shape, 1 / scores.shape[-1])
    return soften(scores, temperature)


@wrong("You multiply by the temperature, so that a hot row becomes sharp. A higher temperature should make leads smaller.")
def multiplies(scores, temperature):
    return _cold(scores) if temperature == 0 else softmax((scores - scores.max(axis=-1, keepdims=True)) * temperature)


@wrong("Your result does not depend on the temperature, unless it is 0.")
def ignores_it(scores, temperature):
    return _cold(scores) if temperature == 0 else softmax(scores)


@wrong("You divide the weights by the temperature, after softmax. That changes all of them by one factor and no lead at all: what should the "
       "temperature divide?")
def divides_the_weights(scores, temperature):
    return _cold(scores) if temperature == 0 else softmax(scores) / temperature


@wrong("You divide by the root of the temperature. The root belongs to the width of a head, in another place.")
def divides_by_the_root(scores, temperature):
    return _cold(scores) if temperature == 0 else softmax((scores - scores.max(axis=-1, keepdims=True)) / np.sqrt(temperature))


@wrong("You take powers of the weights. On paper that is the same; but weights that have underflowed to 0 stay 0, however hot you make the row. "
       "Apply the temperature before anything can underflow.")
def powers_of_weights(scores, temperature):
    if temperature == 0:
        return _cold(scores)
    weights = softmax(scores) ** (1 / temperature)
    return weights / weights.sum(axis=-1, keepdims=True)


@wrong("Right but for a temperature so small that a score divided by it is infinite: infinity minus infinity is NaN. Softmax forgets a common "
       "shift: which shift, made before the division, keeps the largest score finite?")
def overflows(scores, temperature):
    return _cold(scores) if temperature == 0 else softmax(scores / temperature)


@wrong("Your rows do not all spend 1; your columns do. The keys are on the last axis, also for the largest score at temperature 0.")
def over_queries(scores, temperature):
    if scores.ndim == 1:
        return soften(scores, temperature)
    return soften(scores.swapaxes(-1, -2), temperature).swapaxes(-1, -2)


@wrong("The array that was given is changed by your function: `/=` and `-=` write into the caller's scores.")
def in_place(scores, temperature):
    scores -= scores.max(axis=-1, keepdims=True)
    if temperature == 0:
        return _cold(scores)
    scores /= temperature
    return softmax(scores)


@observe
def cold_rows(case, got, want):
    scores, temperature = case.args
    if temperature != 0 or not np.isfinite(got).all():
        return None
    largest = scores == scores.max(axis=-1, keepdims=True)
    stray = ~largest & (np.abs(got) > 1e-12)
    if stray.any():
        at = tuple(int(i) for i in np.argwhere(stray)[0])
        lead = scores[at[:-1]].max() - scores[at]
        return (f"At temperature 0 key {at[-1]} of row {list(at[:-1])} gets {got[at]:.3g}, although its score is not the largest of its row "
                f"(it is lower by {lead:.2g}).")
    rows, ties = got.reshape(-1, got.shape[-1]), largest.reshape(-1, got.shape[-1])
    for row, tie in zip(rows, ties, strict=True):
        if not row.any():
            return "At temperature 0 a row of your result is all zeros. Every row has a largest score, and its key takes all of the weight."
        if tie.sum() > 1 and not np.allclose(row[tie], row[tie][0]):
            return f"{tie.sum()} keys of a row have its largest score; you give them {', '.join(f'{w:.3g}' for w in row[tie])}. Ties share equally."


@observe
def hot_rows(case, got, want):
    if case.args[1] == np.inf and np.isfinite(got).all() and np.ptp(got) > 1e-9:
        return (f"At infinite temperature your weights reach from {got.min():.3g} to {got.max():.3g}. Every key should get the same, 1/seq_k = "
                f"{1 / got.shape[-1]:.3g}.")


@observe
def order(case, got, want):
    """A larger score must not get a smaller weight."""
    scores = case.args[0]
    if not np.isfinite(got).all():
        return None
    at = np.argsort(scores, axis=-1)
    weights, along = np.take_along_axis(got, at, axis=-1), np.take_along_axis(scores, at, axis=-1)
    falls = (np.diff(weights, axis=-1) < -1e-9) & (np.diff(along, axis=-1) > 0)
    if falls.any():
        *row, i = (int(n) for n in np.argwhere(falls)[0])
        low, high = (int(at[(*row, n)]) for n in (i, i + 1))
        which = f" of row {row}" if row else ""
        return (f"Key {high}{which} has a larger score than key {low}, {along[(*row, i + 1)]:.6g} against {along[(*row, i)]:.6g}, and in your result a "
                "smaller weight.")


@observe
def another_temperature(case, got, want):
    """Which temperature the weights have, read off their leads."""
    scores, temperature = case.args
    if not 0 < temperature < np.inf or not (got > 0).all() or not np.isfinite(got).all() or got.shape[-1] < 2:
        return None
    logs, leads = np.log(got), scores - scores[..., :1]
    logs = logs - logs[..., :1]
    slope = (logs * leads).sum() / (leads * leads).sum()
    if not np.allclose(logs, slope * leads, rtol=1e-5, atol=1e-6):
        return None
    if np.isclose(slope, 1 / temperature, rtol=1e-5):
        total = got.sum(axis=-1).flat[0]
        return f"The leads between your keys are right for temperature {temperature:.4g}; the first row spends {total:.4g} in all, and should spend 1."
    if abs(slope) < 1e-9:
        return "Your weights are all equal, whatever the scores are."
    forms = [("its square", temperature**2), ("its root", temperature**0.5), ("1 over it", 1 / temperature), ("1 plus it", 1 + temperature),
             ("twice as high", 2 * temperature), ("half as high", temperature / 2)]
    name = next((f", {text}" for text, value in forms if np.isclose(1 / slope, value, rtol=1e-4)), "")
    return f"The leads between your weights are those of temperature {1 / slope:.4g}{name}; {temperature:.4g} is asked for."


@observe
def lost_keys(case, got, want):
    lost = (got == 0) & (want > 1e-6)
    if lost.any() and case.args[1] > 0:
        return (f"{lost.sum()} keys have weight exactly 0 in your result, among them one that should have {want[lost].max():.3g}: at temperature "
                f"{case.args[1]:.4g} its score is close enough to the largest.")
