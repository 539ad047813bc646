"""Exercise: how much of a result did each token contribute, along the result's own direction?"""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Who made this result?"
CHAPTER = "02_queries_keys_values"
POINTS = 3
PROMPT = r"""
The result of query $i$ is a sum of contributions, weight $p_{ij}$ times value $v_j$. Lengths of contributions ignore that contributions
can point against each other. Write `shares_of_out(weights, v)`, from weights (seq_q, seq_k) and values (seq_k, dim_v), of shape
(seq_q, seq_k): how far contribution $j$ goes **in the direction of** query $i$'s result, as a share of that result's length, so that
every row sums to 1. Shares can be negative. No result is the zero vector. (All before $W_O$: a value's length is not strictly a
property of the head.) **Predict** first: if a token contributes the longest vector of all to a result, is its share large?
"""


def shares_of_out(weights, v):
    # BEGIN SOLUTION
    # The longest contribution may stand nearly at right angles to the sum
    # of all; its share is then near 0.
    result = weights @ v              # (seq_q, dim_v)
    along = weights * (result @ v.T)  # (seq_q, seq_k): contribution j · result i
    return along / (result**2).sum(axis=-1, keepdims=True)
    # END SOLUTION


def _weights(rng, seq_q, seq_k):
    powers = np.exp(rng.normal(size=(seq_q, seq_k)))
    return powers / powers.sum(axis=-1, keepdims=True)


def cases(rng):
    s = sizes(rng, "seq_q seq_k dim_v")
    against = rng.uniform(1, 2, size=(s.seq_k, s.dim_v))
    against[0] *= -1
    yield case("a contribution that points against the others", _weights(rng, s.seq_q, s.seq_k), against, dims=s)
    few, many = sorted((s.seq_q, s.seq_k))
    mean = rng.normal(size=s.dim_v)
    yield case("more keys than queries", _weights(rng, few, many), mean + rng.normal(size=(many, s.dim_v)),
               dims={"seq_q": few, "seq_k": many, "dim_v": s.dim_v})
    yield case("more queries than keys", _weights(rng, many, few), mean + rng.normal(size=(few, s.dim_v)),
               dims={"seq_q": many, "seq_k": few, "dim_v": s.dim_v})
    across = np.zeros((s.seq_k, s.dim_v))
    across[:, 0] = rng.uniform(1, 2, size=s.seq_k)
    across[0] = 30 * np.eye(s.dim_v)[1]
    across[1] = -across[0]
    weights = np.full((s.seq_q, s.seq_k), 1 / s.seq_k)
    yield case("the longest contributions at right angles to the result", weights, across, dims=s)
    masked = np.tril(_weights(rng, s.seq_k, s.seq_k))
    masked /= masked.sum(axis=-1, keepdims=True)
    yield case("causal weights", masked, mean + rng.normal(size=(s.seq_k, s.dim_v)), dims={"seq": s.seq_k, "dim_v": s.dim_v})
    yield case("a short result: small values", _weights(rng, s.seq_q, s.seq_k), 1e-5 * (mean + rng.normal(size=(s.seq_k, s.dim_v))), dims=s)
    yield case("a single key", np.ones((s.seq_q, 1)), rng.normal(size=(1, s.dim_v)), dims={"seq_q": s.seq_q, "dim_v": s.dim_v})
    yield case("a single query, values of width 1", _weights(rng, 1, s.seq_k), 3 + rng.normal(size=(s.seq_k, 1)), dims={"seq_k": s.seq_k})


@wrong("Your shares are of the lengths of the contributions. A length does not know where a vector points: two long contributions can "
       "cancel each other.")
def by_length(weights, v):
    lengths = weights * np.linalg.norm(v, axis=-1)
    return lengths / lengths.sum(axis=-1, keepdims=True)


@wrong("Each of your numbers is a length along the result, and each row sums to the result's length. It should sum to 1: as a share of that "
       "length.")
def a_length(weights, v):
    result = weights @ v
    return weights * (result @ v.T) / np.linalg.norm(result, axis=-1, keepdims=True)


@wrong("Your numbers are the dot products of contribution and result. Their rows sum to the squared length of the result; "
       "they should sum to 1.")
def dot_products(weights, v):
    return weights * (weights @ v @ v.T)


@wrong("Your numbers are cosines: the length of the contribution has been divided out, so that a tiny contribution counts as much "
       "as a long one.")
def cosines(weights, v):
    result = weights @ v
    return result @ v.T / np.linalg.norm(result, axis=-1, keepdims=True) / np.linalg.norm(v, axis=-1)


@wrong("The weights are missing from the contributions: a value with almost no weight counts as much as the others. A contribution is "
       "weight times value.")
def values_only(weights, v):
    result = weights @ v
    return result @ v.T / (result**2).sum(axis=-1, keepdims=True)


@wrong("Your shares are never negative, though a contribution can point against the result. Why should its sign be dropped?")
def absolute(weights, v):
    along = np.abs(weights * (weights @ v @ v.T))
    return along / along.sum(axis=-1, keepdims=True)


@wrong("You divide by the squared length of **all** results together. Each query has a result of its own, and its row should sum to 1.")
def all_results(weights, v):
    result = weights @ v
    return weights * (result @ v.T) / (result**2).sum()


@wrong("Your columns sum to 1, your rows do not: the contributions to one result are spread over the keys.")
def over_queries(weights, v):
    along = weights * (weights @ v @ v.T)
    return along / along.sum(axis=0, keepdims=True)


@wrong("These are the weights themselves. A weight is only one of two factors of what a token contributes.")
def just_weights(weights, v):
    return weights * 1.0


@wrong("Your shares are of the **squared** lengths along the result, so a large one counts too much and no one can be negative.")
def squares(weights, v):
    along = (weights * (weights @ v @ v.T)) ** 2
    return along / along.sum(axis=-1, keepdims=True)


@wrong("You divide each length by the length of the result. These need not sum to 1 in a row: a contribution counts only as far as it goes "
       "in the direction of the result.")
def lengths_over_result(weights, v):
    return weights * np.linalg.norm(v, axis=-1) / np.linalg.norm(weights @ v, axis=-1, keepdims=True)


@wrong("The direction is that of the plain mean of the values, the same for every query. Each query has a result of its own.")
def one_direction(weights, v):
    along = weights * (v @ v.mean(axis=0))
    return along / along.sum(axis=-1, keepdims=True)


def _close(a, b):
    return np.allclose(a, b, rtol=1e-6, atol=1e-9)


@observe
def nearly(case, got, want):
    error = np.abs(got - want).max()
    if error < 1e-5:
        return f"Nearly right: off by {error:.1g} at most. A lower precision, or a small constant that was added, does that."
    return None


@observe
def unweighted(case, got, want):
    weights = case.args[0]
    none = weights == 0
    if (np.abs(got[none]) > 1e-9).any():
        i, j = np.argwhere(none & (np.abs(got) > 1e-9))[0]
        return f"Query {i} gives key {j} no weight at all, and yet its share of the result is {got[i, j]:.3g}."
    return None


@observe
def never_negative(case, got, want):
    if want.min() < -1e-6 and (got >= 0).all():
        i, j = np.unravel_index(want.argmin(), want.shape)
        return (f"None of your shares is negative. Contribution {j} points against the result of query {i} here (their dot product is below 0), "
                f"and you give it {got[i, j]:.3g}.")
    return None


@observe
def right_angles(case, got, want):
    if "right angles" in case.label and np.abs(got[:, :2]).max() > 1e-9 and np.isfinite(got).all():
        return (f"Contributions 0 and 1 stand at right angles to the result and cancel each other, so they go nowhere in its direction. "
                f"You give them {got[0, 0]:.3g} and {got[0, 1]:.3g}.")
    return None


@observe
def factor_per_row(case, got, want):
    weights, v = case.args
    if not np.isfinite(got).all() or _close(got.sum(axis=-1), 1):
        return None
    factors = got.sum(axis=-1)                     # the right shares sum to 1
    if not _close(got, factors[:, None] * want):
        return None
    length = np.linalg.norm(weights @ v, axis=-1)
    known = {"the result's length": length, "the result's squared length": length**2, "1 over the result's length": 1 / length,
             "1 over its squared length": 1 / length**2, "the square of the row's weights, summed": (weights**2).sum(axis=-1)}
    name = next((f", {name}" for name, numbers in known.items() if _close(factors, numbers)), "")
    return (f"Within a row your shares stand in the right proportions, but rows do not sum to 1: row 0 sums to {factors[0]:.3g}{name}.")


@observe
def factor_per_key(case, got, want):
    big = np.abs(want) > 1e-6
    if len(want) < 2 or not big.all():
        return None
    factors = (got / want)[0]
    if _close(got, factors * want) and np.ptp(factors) > 1e-6:
        return ("Each column of your result is the right one times a factor that depends on the key alone "
                f"({factors[0]:.3g} for key 0, {factors[1]:.3g} for key 1). What belongs to a key alone is its value.")
    return None


@observe
def proportional_to_weights(case, got, want):
    weights = case.args[0]
    if weights.shape[1] > 1 and (np.abs(weights) > 0).all() and _close(got / weights, (got / weights)[:, :1]):
        return "Within each row your shares are proportional to the weights: the values make no difference."
    return None


@observe
def weights_dropped(case, got, want):
    weights = case.args[0]
    big = np.abs(want) > 1e-9
    if weights.shape[1] < 3 or not big.all() or np.ptp(weights, axis=-1).min() < 1e-6:
        return None
    ratio = got * weights / want
    if _close(ratio, ratio[:, :1]):
        return "Within each row your shares go with value · result alone: how large the weight is makes no difference."
    return None


@observe
def lengths_dropped(case, got, want):
    weights, v = case.args
    if weights.shape[1] < 3 or not (np.abs(want) > 1e-9).all() or not np.isfinite(got).all():
        return None
    ratio = got * weights * np.linalg.norm(v, axis=-1) / want
    if _close(ratio, ratio[:, :1]):
        return "Within each row your shares go with the angle alone: how long a contribution is makes no difference."
    return None


@observe
def same_direction_for_all(case, got, want):
    weights, v = case.args
    if len(weights) < 2 or len(v) <= v.shape[1] or v.shape[1] < 2 or (weights == 0).any() or not np.isfinite(got).all():
        return None
    directions, *_ = np.linalg.lstsq(v, (got / weights).T, rcond=None)          # (dim_v, seq_q): along what row i measures
    if not _close(v @ directions, (got / weights).T):
        return None
    units = directions / np.linalg.norm(directions, axis=0)
    if _close(np.abs(units.T @ units), 1):
        return "All your rows measure along one and the same direction. Each query has a result of its own."
    return None


@observe
def geometry(case, got, want):
    weights, v = case.args
    i, j = np.unravel_index(np.nan_to_num(np.abs(got - want), nan=0).argmax(), want.shape)
    part, result = weights[i, j] * v[j], weights[i] @ v
    lengths = np.linalg.norm(part), np.linalg.norm(result)
    if min(lengths) == 0 or not np.isfinite(got).all() or len(result) == 1 or _close(got.sum(axis=0), 1):
        return None
    total = got[i].sum()
    tail = "" if _close(total, 1) else f" (All shares of query {i} should sum to 1; yours sum to {total:.3g}.)"
    angle = np.degrees(np.arccos(np.clip(part @ result / lengths[0] / lengths[1], -1, 1)))
    return (f"Contribution {j} to query {i} has length {lengths[0]:.3g} and stands at {angle:.0f} degrees to the result, whose length is "
            f"{lengths[1]:.3g}. You give it a share of {got[i, j]:.3g}: how far does it go in the result's direction?{tail}")
