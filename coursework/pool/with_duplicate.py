"""Exercise: what a repeated key does to a row of weights (chapter 4)."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Twice the same key"
CHAPTER = "04_softmax"
POINTS = 2
PROMPT = r"""
A sentence says the same word, *animal*, a second time, with exactly the same key. **Predict** first: do the weights of the two *animals*
together equal the old weight of the one? Then write `with_duplicate(weights, j)`. `weights` (seq_k,) is one row that softmax made, so it sums
to 1; the scores are not given. Return the row of weights (seq_k + 1,) after key `j` ($0 \le$ `j` $<$ seq_k) has been appended once more, at
the end. Do not change `weights`.
"""


def with_duplicate(weights, j):
    # BEGIN SOLUTION
    longer = np.append(weights, weights[j])
    return longer / longer.sum()  # the new sum is 1 + weights[j]
    # END SOLUTION


def _row(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def cases(rng):
    s = sizes(rng, "seq_k", least=5)
    dims = {"seq_k": s.seq_k, "seq_k + 1": s.seq_k + 1}
    yield case("a key in the middle", _row(rng.normal(size=s.seq_k)), int(rng.integers(2, s.seq_k - 2)), dims=dims)
    yield case("the first key", _row(rng.normal(size=s.seq_k)), 0, dims=dims)
    yield case("the last key", _row(rng.normal(size=s.seq_k)), s.seq_k - 1, dims=dims)
    sharp = rng.normal(size=s.seq_k)
    best = int(rng.integers(1, s.seq_k - 1))
    sharp[best] = sharp.max() + 3
    yield case("a key with most of the weight", _row(sharp), best, dims=dims)
    masked = rng.normal(size=s.seq_k)
    masked[[1, -2]] = -np.inf
    yield case("a row in which some weights are 0", _row(masked), 2, dims=dims)
    yield case("a key of weight 0", _row(masked), 1, dims=dims)
    yield case("equal weights", _row(np.zeros(s.seq_k)), int(rng.integers(1, s.seq_k)), dims=dims)
    yield case("one key alone", np.ones(1), 0, dims={"seq_k": 1, "seq_k + 1": 2})
    yield case("float32", _row(rng.normal(size=s.seq_k)).astype(np.float32), int(rng.integers(1, s.seq_k - 1)), dims=dims)


@wrong("Your row sums to more than 1: there is one key more, and nobody has given anything up for it. By what must the row be divided?")
def appended_only(weights, j):
    return np.append(weights, weights[j])


@wrong("You cut the old weight in two, so that the word as a whole gains nothing. Each of the two has the score that the one had, and so the same "
       "power e^score: what does the second power do to the sum?")
def cut_in_two(weights, j):
    longer = np.append(weights, weights[j] / 2)
    longer[j] /= 2
    return longer


@wrong("Both animals keep the old weight, and all other keys pay for it. The second power stands in the denominator of every key, so it "
       "shrinks all weights by one factor, those of the two as well.")
def others_pay(weights, j):
    longer = np.append(weights, weights[j])
    rest = 1 - weights[j]
    scaled = longer * (1 - 2 * weights[j]) / (rest if rest > 0 else 1)
    scaled[[j, -1]] = weights[j]
    return scaled


@wrong("The numbers are right, the copy stands in another place: beside the original. It should be the last key of the row.")
def beside_the_original(weights, j):
    longer = np.insert(weights, j, weights[j])
    return longer / longer.sum()


@wrong("The numbers are right, the copy stands in another place: in front of the row. It should be the last key.")
def in_front(weights, j):
    longer = np.append(weights[j], weights)
    return longer / longer.sum()


@wrong("You apply softmax to weights. It wants scores, and the weights are what has come out of it: they have been through exp once already.")
def softmax_again(weights, j):
    return _row(np.append(weights, weights[j]))


@wrong("Only the copy is made smaller: the old weights stay as they were, and the row sums to more than 1. The denominator is the same for every key.")
def copy_shrinks(weights, j):
    return np.append(weights, weights[j] / (1 + weights[j]))


@wrong("Your row has no new entry: key j has been given the weight of both. The two are keys of their own, each with a weight.")
def one_entry_for_both(weights, j):
    longer = weights.copy()
    longer[j] *= 2
    return longer / longer.sum()


@wrong("You have repeated the neighbour of key j, the one before it: Python counts from 0.")
def counts_from_one(weights, j):
    longer = np.append(weights, weights[j - 1])
    return longer / longer.sum()


@wrong("You divide by the number of keys. That makes a row sum to 1 only if all its entries were 1: what do yours sum to before the division?")
def divides_by_the_count(weights, j):
    return np.append(weights, weights[j]) / (len(weights) + 1)


@wrong("You treat the copy as a key with the average weight, 1/(seq_k + 1), and ignore which key it copies. Where does the score of key j come in?")
def average_copy(weights, j):
    n = len(weights)
    return np.append(weights * n / (n + 1), 1 / (n + 1))


@wrong("The row that was given is changed by your function: `/=` or `*=` writes into the caller's weights.")
def in_place(weights, j):
    share = weights[j] / (1 + weights[j])
    weights /= 1 + weights[j]
    return np.append(weights, share)


def _near(a, b):
    return np.isclose(a, b, rtol=1e-4, atol=1e-6)


@observe
def negative(case, got, want):
    if (got < 0).any():
        i = int(np.argmin(got))
        return f"Your weight of key {i} is {got[i]:.3g}. A weight cannot be negative."


@observe
def copies_differ(case, got, want):
    j = case.args[1]
    if np.isfinite(got).all() and not _near(got[j], got[-1]):
        return (f"Key {j} gets {got[j]:.3g} and its copy, at the end, {got[-1]:.3g}. Both have the same key and so the same score: softmax cannot "
                "tell them apart.")


@observe
def nobody_else_moves(case, got, want):
    weights, j = case.args
    others = np.arange(len(weights)) != j
    if weights[j] > 0 and weights[others].any() and _near(got[:-1], weights)[others].all():
        return f"All keys other than key {j} keep their old weights. One more power stands in the sum by which every key is divided."


@observe
def ratios_change(case, got, want):
    """Two keys whose scores have not changed must keep the ratio of their weights."""
    weights, j = case.args
    if not np.isfinite(got).all() or weights[j] == 0:
        return None
    rest = np.flatnonzero((np.arange(len(weights)) != j) & (weights > 0))
    if len(rest) < 2:
        return None
    a, b = rest[np.argmax(weights[rest])], rest[np.argmin(weights[rest])]
    for one, other in ((a, b), (j, a)):
        before, after = weights[one] / weights[other], got[one] / got[other]
        if np.isfinite(after) and not np.isclose(before, after, rtol=1e-4):
            return (f"Key {one} had {before:.3g} times the weight of key {other}; in your row it has {after:.3g} times as much. Neither score has "
                    "changed, and only the difference of two scores decides their ratio.")


@observe
def sums_to_another_number(case, got, want):
    total = got.sum()
    if np.isfinite(total) and total > 0 and not _near(total, 1) and _near(got / total, want).all():
        return f"The ratios between your weights are right; together they come to {total:.4g}, and a row spends exactly 1."
