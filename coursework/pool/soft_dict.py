"""Exercise: a lookup that becomes a dictionary when cold, with vectors for keys."""

import numpy as np

from attnlib.reference import softmax
from coursework import case, observe, sizes, wrong

TITLE = "A dictionary with vectors for keys"
CHAPTER = "02_queries_keys_values"
POINTS = 4
PROMPT = r"""
Write `soft_dict(query, keys, values, temperature)`: softmax of fits divided by `temperature`, then the mean of the values under these
shares. Each row of `keys` (entries, dim) is a key, and `values` holds one number (or row) for each. It has to behave like a dictionary
when cold: if the query **equals** one of the keys (any distinct vectors, of any lengths) and the temperature tends to 0, it returns that
key's value. As the temperature grows, it tends to the mean of all values. It should take one query (dim,) or a matrix of them, one per row.
The plain dot product fails: ask for a key $(1, 0)$ when there is also a key $(2, 0)$. So let the fit of a query $q$ and a key $k$ be
$-\tfrac12\lVert q - k\rVert^2$, which is largest for the *nearest* key. Hint: expand it. `softmax` (over the last axis) is given.
"""
GIVEN = "import numpy as np\nfrom attnlib.reference import softmax"


def soft_dict(query, keys, values, temperature):
    # BEGIN SOLUTION
    # -|q - k|²/2, but for |q|²/2, which is the same for all keys
    fits = query @ keys.T - (keys**2).sum(axis=-1) / 2
    return softmax(fits / temperature) @ values
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "queries entries dim dim_v")
    query, keys = rng.normal(size=(s.queries, s.dim)), rng.normal(size=(s.entries, s.dim))
    numbers, rows = rng.normal(size=s.entries), rng.normal(size=(s.entries, s.dim_v))
    d = vars(s)
    shown = {name: d[name] for name in ("queries", "entries", "dim")}
    yield case("one-hot values, so that the result is the shares", query, keys, np.eye(s.entries), rng.uniform(2, 3), dims=shown)
    yield case("one query, one number for each key", query[0], keys, numbers, rng.uniform(0.4, 0.6), dims=shown)
    yield case("a matrix of queries, a row for each key", query, keys, rows, rng.uniform(1.5, 2), dims=s)
    lengths = np.arange(1, s.entries + 1)[:, None]
    parallel = lengths * rng.normal(size=s.dim)
    yield case("cold, parallel keys: each key asks for its own value", parallel, parallel, 10 + numbers, 1e-3, dims=shown)
    yield case("a single query in a matrix, a single key", query[:1], keys[:1], rows[:1], 1.0, dims={"dim": s.dim, "dim_v": s.dim_v})
    yield case("hot", 3 * query, 3 * keys, numbers, 1e7, dims=shown)
    yield case("keys far from 0", query + 20, keys + 20, rows, 0.7, dims=s)
    yield case("as many keys as coordinates", query, rng.normal(size=(s.dim, s.dim)), rng.normal(size=s.dim), 1.0,
               dims={"queries": s.queries, "dim": s.dim})


@wrong("These are the shares of the plain dot product. A long key beats a nearer one: which term of "
       "-½‖q - k‖² keeps long keys in check?")
def dot_product(query, keys, values, temperature):
    return softmax(query @ keys.T / temperature) @ values


@wrong("The differences between your fits are twice as large as they should be: the half is missing, so that it is as if the "
       "temperature were half of what it is.")
def no_half(query, keys, values, temperature):
    fits = 2 * query @ keys.T - (keys**2).sum(axis=-1)
    return softmax(fits / temperature) @ values


@wrong("Your fit takes the whole of the key's squared length away, but the dot product only once. What stands before each term when "
       "-½‖q - k‖² is expanded?")
def whole_square(query, keys, values, temperature):
    return softmax((query @ keys.T - (keys**2).sum(axis=-1)) / temperature) @ values


@wrong("The squared length of the key comes in with the wrong sign: your longest keys win even more than with the plain dot product.")
def wrong_sign(query, keys, values, temperature):
    return softmax((query @ keys.T + (keys**2).sum(axis=-1) / 2) / temperature) @ values


@wrong("Your farthest keys get the largest shares. A distance is small where the fit is good: one sign is missing.")
def farthest(query, keys, values, temperature):
    fits = (keys**2).sum(axis=-1) / 2 - query @ keys.T
    return softmax(fits / temperature) @ values


@wrong("Your fit is minus the distance; the exercise asks for minus half of its **square**. Both find the nearest key, but the shares differ.")
def not_squared(query, keys, values, temperature):
    gaps = np.sqrt(((query[..., None, :] - keys) ** 2).sum(axis=-1))
    return softmax(-gaps / temperature) @ values


@wrong("Your fits are multiplied by the temperature instead of divided by it: cold and hot have changed places.")
def multiplied(query, keys, values, temperature):
    fits = query @ keys.T - (keys**2).sum(axis=-1) / 2
    return softmax(fits * temperature) @ values


@wrong("You divide the keys by their lengths. Two parallel keys are then one and the same, and a query that equals one of them gets the "
       "mean of both values.")
def unit_keys(query, keys, values, temperature):
    unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    return softmax(query @ unit.T / temperature) @ values


@wrong("You divide the dot product by the temperature, and not the other term of the fit. The temperature belongs to the whole fit.")
def half_divided(query, keys, values, temperature):
    return softmax(query @ keys.T / temperature - (keys**2).sum(axis=-1) / 2) @ values


@wrong("Your result is the value of the nearest key, whatever the temperature. A soft lookup mixes the values: every key "
       "gets a share.")
def nearest(query, keys, values, temperature):
    return values[(query @ keys.T - (keys**2).sum(axis=-1) / 2).argmax(axis=-1)]


@wrong("exp of your fits overflows, or becomes 0 for every key, once they are divided by a small temperature: the shares are then "
       "NaN. The softmax that you are given has a remedy for it.")
def own_softmax(query, keys, values, temperature):
    powers = np.exp((query @ keys.T - (keys**2).sum(axis=-1) / 2) / temperature)
    return powers / powers.sum(axis=-1, keepdims=True) @ values


@wrong("The result for the matrix of queries mixes up its rows: shares have to sum to 1 over the keys of one query, not over the queries.")
def over_queries(query, keys, values, temperature):
    fits = (query @ keys.T - (keys**2).sum(axis=-1) / 2) / temperature
    powers = np.exp(fits - fits.max(axis=0))
    return powers / powers.sum(axis=0) @ values


def _shows_shares(case):
    keys, values = case.args[1:3]
    return values.shape == (len(keys),) * 2 and np.array_equal(values, np.eye(len(keys)))


@observe
def shares_seen(case, got, want):
    query, keys, _, temperature = case.args
    if not _shows_shares(case) or not (got > 0).all() or not np.allclose(got.sum(axis=-1), 1):
        return None                                       # said elsewhere
    fits, dots, squares = (a - a.mean(axis=-1, keepdims=True) for a in (
        temperature * np.log(got), query @ keys.T, np.broadcast_to((keys**2).sum(axis=-1), got.shape)))
    (a, b), *_ = np.linalg.lstsq(np.stack([dots.ravel(), squares.ravel()], axis=-1), fits.ravel(), rcond=None)
    if not np.allclose(a * dots + b * squares, fits, atol=1e-8):
        return None
    if np.isclose(b, -a / 2) and abs(a - 1) < 1e-3:
        return None                                       # nearly right: said elsewhere
    if np.isclose(b, -a / 2) and a > 0:
        known = {"the temperature": temperature, "the temperature squared": temperature**2, "the root of the temperature": temperature**0.5,
                 "the root of dim": keys.shape[1] ** 0.5, "1/√dim": keys.shape[1] ** -0.5, "1/temperature": 1 / temperature}
        origin = next((f", which is {name}" for name, number in known.items() if np.isclose(a, number)), "")
        return f"Your shares find the nearest key, but your fits differ from each other {a:.3g} times as much as expected{origin}."
    shown = f"{a:.3g} q·k {'+' if b > 0 else '-'} {abs(b):.3g} ‖k‖²"
    return f"Your shares are those of the fit {shown} (divided by the temperature). What does the fit that is asked for come to?"


@observe
def shares_and_distances(case, got, want):
    query, keys, _, temperature = case.args
    if not _shows_shares(case) or not np.allclose(got.sum(axis=-1), 1) or (got < 0).any() or np.abs(got - want).max() < 1e-3:
        return None
    if ((got < 1e-12) | (got > 1 - 1e-12)).all():
        return "Each of your shares is 0 or 1, at a temperature of more than 2: every key should get a share."
    squares = ((query[:, None] - keys) ** 2).sum(axis=-1)
    near, most = squares.argmin(axis=-1), got.argmax(axis=-1)
    cosines = (query @ keys.T) / np.linalg.norm(query, axis=-1, keepdims=True) / np.linalg.norm(keys, axis=-1)
    if (got > 0).all():
        fits, angles = (a - a.mean(axis=-1, keepdims=True) for a in (temperature * np.log(got), cosines))
        factor = (fits * angles).sum() / (angles**2).sum()
        if factor > 0 and np.allclose(fits, factor * angles, atol=1e-8):
            return ("Your shares go with the angle between query and key alone: two keys of the same direction and different length get "
                    "the same share, and only one of them can be the nearest.")
    for i in np.flatnonzero(near != most):
        return (f"Your query {i} gives its largest share to key {most[i]}, at a squared distance of {squares[i, most[i]]:.3g}; "
                f"key {near[i]} is nearer, at {squares[i, near[i]]:.3g}.")
    far = squares[0].argmax()
    if not (got[0, [near[0], far]] > 0).all():
        return None
    found, right = temperature * np.log(got[0, near[0]] / got[0, far]), (squares[0, far] - squares[0, near[0]]) / 2
    return (f"For query 0, the fits of its nearest and its farthest key differ by {found:.3g} in your result; half the difference of their "
            f"squared distances is {right:.3g}.")


@observe
def cold_lookup(case, got, want):
    _, _, values, temperature = case.args
    if temperature > 0.01 or not np.isfinite(got).all():
        return None
    i = int(np.argmax(~np.isclose(got, values)))
    taken = np.flatnonzero(np.isclose(values, got[i]))
    what = f"that of key {taken[0]}" if taken.size else "no key's value"
    return (f"Query {i} equals key {i}, whose value is {values[i]:.4g}; your result is {got[i]:.4g}, {what}. "
            "Several of these keys point the same way and differ in length.")


@observe
def hot_mean(case, got, want):
    _, _, values, temperature = case.args
    if temperature < 1e5 or np.allclose(got, values.mean(axis=0), rtol=1e-3, atol=1e-3):
        return None
    if np.isclose(np.asarray(got)[..., None], values).any(axis=-1).all():
        return "The temperature is 1e7 here, and each of your results is the value of one key alone. It should be nearly the mean of all values."
    return "The temperature is 1e7 here, and your result is not the mean of all values."


@observe
def outside(case, got, want):
    values = case.args[2]
    low, high = values.min(axis=0), values.max(axis=0)
    slack = 1e-6 * np.abs(values).max()
    if not np.isfinite(got).all() or ((got >= low - slack) & (got <= high + slack)).all():
        return None
    return ("Your result lies outside the range of the values (from the smallest to the largest). A mean does not: do your shares sum to 1 "
            "for each query, and is none negative?")


@observe
def rows_alike(case, got, want):
    if np.ndim(got) and len(got) > 1 and np.allclose(got, got[:1]) and not np.allclose(want, want[:1]):
        return "Your result is the same for every query: it does not depend on what is asked."
    return None


@observe
def far_away(case, got, want):
    if case.args[1].mean() > 10:
        return ("Query and keys have both been moved by 20 here. No distance has changed by that, so no share should: "
                "does your fit depend on the differences alone?")
    return None
