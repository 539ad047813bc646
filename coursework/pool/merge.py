"""Exercise: maximum and sum of a row seen in two halves, the step of FlashAttention (chapter 4)."""

import numpy as np

from coursework import case, observe, wrong

TITLE = "Half a row at a time"
CHAPTER = "04_softmax"
POINTS, EDGE_POINTS = 3, 1
RETURNS = ("row_max", "row_sum")
PROMPT = r"""
A row of scores is too long for your memory, so you see it in two halves. For each half you may keep its largest score, `row_max`, and the sum
of its powers, `row_sum` $= \sum_j e^{S_j - \text{row\_max}}$, relative to that half's own maximum, nothing else. Write
`merge(max_a, sum_a, max_b, sum_b)`: from these four numbers, return the maximum and the sum of the **whole** row, in this order, safe for
scores like 1000 and −1000. In one half every key may be masked: its maximum is $-\infty$ and its sum 0 (never in both). This is the step that
FlashAttention {cite}`dao2022` repeats for every block.
"""


def merge(max_a, sum_a, max_b, sum_b):
    # BEGIN SOLUTION
    row_max = np.maximum(max_a, max_b)
    sum_a = sum_a * np.exp(max_a - row_max)  # each half is rescaled
    sum_b = sum_b * np.exp(max_b - row_max)
    return row_max, sum_a + sum_b
    # END SOLUTION


def _half(rng, height, keys):
    scores = rng.normal(size=keys) + height
    return float(scores.max()), float(np.exp(scores - scores.max()).sum())


def cases(rng):
    def halves(height_a, height_b):
        """Two halves of different lengths whose maxima lie about so high."""
        length_a, length_b = rng.choice(np.arange(3, 10), size=2, replace=False)
        (max_a, sum_a), (max_b, sum_b) = _half(rng, 0, length_a), _half(rng, 0, length_b)
        return height_a + max_a / 8, sum_a, height_b + max_b / 8, sum_b

    yield case("the second half leads", *halves(0.5, 2.0))
    yield case("the first half leads", *halves(2.5, 0.75))
    yield case("both maxima below 0", *halves(-3.0, -1.5))
    max_a, sum_a, _, sum_b = halves(1.0, 1.0)
    yield case("equal maxima", max_a, sum_a, max_a, sum_b)
    yield case("scores of 1000", *halves(1001.0, 999.5))
    yield case("scores of -1000", *halves(-1001.0, -999.5))
    yield case("1000 in one half and -1000 in the other", *halves(1000.0, -1000.0))
    yield case("-1000 in one half and 1000 in the other", *halves(-1000.0, 1000.0))
    max_a, sum_a, _, _ = halves(1.5, 0.0)
    halved = [(max_a, sum_a), (-np.inf, 0.0)]
    first = int(rng.integers(2))
    yield case("a half in which every key is masked", *halved[first], *halved[1 - first], edge=True)


@wrong("Your row_max is right; the two sums are added as they came. The sum of the half with the smaller maximum is measured from that maximum: by "
       "which factor is each of its powers too large?")
def never_rescales(max_a, sum_a, max_b, sum_b):
    return np.maximum(max_a, max_b), sum_a + sum_b


@wrong("Your factor is upside down. Measured from a larger maximum, powers become smaller: yours grow.")
def rescales_upwards(max_a, sum_a, max_b, sum_b):
    row_max = np.maximum(max_a, max_b)
    return row_max, sum_a * np.exp(row_max - max_a) + sum_b * np.exp(row_max - max_b)


@wrong("Your row_sum is measured from max_a, whichever half leads. It is right where the first half holds the maximum; where the second does, "
       "the sum belongs to another maximum than the one you return.")
def from_the_first(max_a, sum_a, max_b, sum_b):
    return np.maximum(max_a, max_b), sum_a + sum_b * np.exp(max_b - max_a)


@wrong("Your row_sum is measured from max_b, whichever half leads. It is right where the second half holds the maximum; where the first does, "
       "the sum belongs to another maximum than the one you return.")
def from_the_second(max_a, sum_a, max_b, sum_b):
    return np.maximum(max_a, max_b), sum_a * np.exp(max_a - max_b) + sum_b


@wrong("The factors are exchanged: the sum of the first half is rescaled with the maximum of the second, and the other way round.")
def exchanged(max_a, sum_a, max_b, sum_b):
    row_max = np.maximum(max_a, max_b)
    return row_max, sum_a * np.exp(max_b - row_max) + sum_b * np.exp(max_a - row_max)


@wrong("You go back to the powers of the scores themselves. Near 1000 these are infinite and near -1000 they are 0, and nothing can be saved after "
       "that. Which difference do you need instead of the two maxima?")
def by_way_of_zero(max_a, sum_a, max_b, sum_b):
    row_max = np.maximum(max_a, max_b)
    return row_max, (sum_a * np.exp(max_a) + sum_b * np.exp(max_b)) / np.exp(row_max)


@wrong("Both halves are rescaled with one factor, e to the minus difference of the maxima. The half that holds the maximum is measured "
       "from it already.")
def both_shrink(max_a, sum_a, max_b, sum_b):
    return np.maximum(max_a, max_b), (sum_a + sum_b) * np.exp(-abs(max_a - max_b))


@wrong("Only the half with the larger maximum is counted. The keys of the other half are in the row too, with smaller powers.")
def winner_takes_all(max_a, sum_a, max_b, sum_b):
    return (max_a, sum_a) if max_a >= max_b else (max_b, sum_b)


@wrong("The logarithm of the sum is returned (log-sum-exp, with the maximum in it). Here the maximum and the sum itself are asked for, the sum "
       "relative to that maximum.")
def log_sum_exp(max_a, sum_a, max_b, sum_b):
    row_max, row_sum = merge(max_a, sum_a, max_b, sum_b)
    return row_max, row_max + np.log(row_sum)


@wrong("Both numbers are right, in the other order: first the maximum, then the sum.")
def other_order(max_a, sum_a, max_b, sum_b):
    return merge(max_a, sum_a, max_b, sum_b)[::-1]


@wrong("You rescale by the quotient of two maxima. Powers are of e: which factor turns e^(s − old) into e^(s − new)?")
def by_quotients(max_a, sum_a, max_b, sum_b):
    row_max = np.maximum(max_a, max_b)
    return row_max, sum_a * max_a / row_max + sum_b * max_b / row_max


@wrong("The difference of the maxima is the factor, without exp. A maximum that rises by 1 makes every old power smaller by a factor e.")
def without_exp(max_a, sum_a, max_b, sum_b):
    row_max = np.maximum(max_a, max_b)
    return row_max, sum_a * (max_a - row_max) + sum_b * (max_b - row_max)


def _near(a, b):
    return bool(np.isclose(a, b, rtol=1e-6, atol=0))


@observe
def another_maximum(case, got, want):
    max_a, _, max_b, _ = case.args
    if not _near(got[0], want[0]):
        if got[0] in (max_a, max_b):
            return f"Your row_max is {got[0]:.4g}, the smaller of {max_a:.4g} and {max_b:.4g}: in the whole row there is a larger score."
        return f"Your row_max is {got[0]:.4g}; the maxima of the halves are {max_a:.4g} and {max_b:.4g}, and the row's is one of them."


@observe
def measured_from(case, got, want):
    """The sum would be right with another number in place of row_max."""
    max_a, _, max_b, _ = case.args
    for name, origin in (("max_a", max_a), ("max_b", max_b), ("0", 0.0), ("max_a + max_b", max_a + max_b),
                         ("the mean of the two maxima", (max_a + max_b) / 2)):
        if origin != want[0] and _near(got[1], want[1] * np.exp(want[0] - origin)) and got[1] > 0:
            return f"Your row_sum is the sum of the powers measured from {name} ({origin:.4g}), and your row_max is {got[0]:.4g}."


@observe
def one_half(case, got, want):
    max_a, sum_a, max_b, sum_b = case.args
    for name, this, top in (("first", sum_a, max_a), ("second", sum_b, max_b)):
        if _near(got[1], this * np.exp(top - want[0])) or _near(got[1], this):
            return f"Your row_sum holds the powers of the {name} half alone."


@observe
def means(case, got, want):
    """A combination of the right two summands other than their sum."""
    max_a, sum_a, max_b, sum_b = case.args
    a, b = sum_a * np.exp(max_a - want[0]), sum_b * np.exp(max_b - want[0])
    if min(a, b) > 1e-9:
        for name, value in (("their mean", (a + b) / 2), ("their difference", abs(a - b)), ("their product", a * b)):
            if _near(got[1], value):
                return f"Measured from the common maximum the halves come to {a:.4g} and {b:.4g}, and your row_sum is {name}."


@observe
def out_of_bounds(case, got, want):
    max_a, sum_a, max_b, sum_b = case.args
    lead = (sum_a if max_a >= max_b else 0.0) + (sum_b if max_b >= max_a else 0.0)
    if np.isnan(got[1]):
        return None
    if got[1] < lead * (1 - 1e-9):
        return (f"Your row_sum is {got[1]:.4g}. The half that holds the row's maximum brings {lead:.4g} already, as it stands, and the other "
                "half can only add to it.")
    if got[1] > (sum_a + sum_b) * (1 + 1e-9):
        return (f"Your row_sum is {got[1]:.4g}, more than {sum_a:.4g} and {sum_b:.4g} together. The maximum of the whole row is at least that "
                "of each half, so powers measured from it are no larger than before.")


@observe
def the_other_half(case, got, want):
    max_a, sum_a, max_b, sum_b = case.args
    if max_a == max_b or not np.isfinite(got[1]):
        return None
    (low, of_low), (high, of_high) = sorted([(max_a, sum_a), (max_b, sum_b)])
    if of_low > 0 and not _near(got[1], want[1]):
        return (f"The half whose maximum is lower, by {high - low:.4g}, has sum {of_low:.4g}. If the other half's sum stays as it is, in your "
                f"row_sum {of_low:.4g} has become {got[1] - of_high:.4g}. What should a power become that was measured from a number too low by that?")
