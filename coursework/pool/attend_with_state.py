"""Exercise: causal linear attention as a recurrence."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Attention with a state of constant size"
CHAPTER = "17_linear"
POINTS = 5
PROMPT = r"""
Linear attention {cite}`katharopoulos2020` replaces exp(q · k) by φ(q) · φ(k), with φ(x) = x + 1 where x > 0 and eˣ elsewhere (that is
elu(x) + 1), applied number by number. Write the causal form `attend_with_state(q, k, v)`: query i gets
$\sum_{j \le i} \phi(q_i)\cdot\phi(k_j)\, v_j \,/ \sum_{j \le i} \phi(q_i)\cdot\phi(k_j)$, with no scale. Go through the tokens
one by one and keep nothing of the past but two running sums, one of shape (..., dim_head, dim_v) and one of shape (..., dim_head):
for a long sequence the memory is measured. `q` and `k` are (..., seq, dim_head), `v` is (..., seq, dim_v); return (..., seq, dim_v).
"""


def attend_with_state(q, k, v):
    # BEGIN SOLUTION
    q, k = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    state = np.zeros((*k.shape[:-2], k.shape[-1], v.shape[-1]))  # sum of φ(k) v
    norm = np.zeros((*k.shape[:-2], k.shape[-1]))  # sum of φ(k)
    out = np.empty(v.shape)
    for t in range(v.shape[-2]):
        state = state + k[..., t, :, None] * v[..., t, None, :]
        norm = norm + k[..., t, :]
        total = (q[..., t, :] * norm).sum(axis=-1, keepdims=True)
        out[..., t, :] = (q[..., t, None, :] @ state)[..., 0, :] / total
    return out
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq dim_head dim_v")

    def tokens(*lead, seq=s.seq):
        return [rng.normal(size=(*lead, seq, width)) for width in (s.dim_head, s.dim_head, s.dim_v)]

    yield case("one head", *tokens(), dims=s)
    yield case("leading axes", *tokens(s.batch, s.heads), dims=s)
    yield case("one token", *tokens(seq=1), dims=s)
    q, k, v = tokens()
    yield case("values far from 0", q, k, v + 50, dims=s)
    q, k, v = tokens()
    yield case("large queries and keys", q * 30, k * 30 + 900, v, dims=s)
    q, k, v = tokens()
    yield case("queries of -40 throughout", np.full_like(q, -40.0), k, v, dims=s)
    long = [rng.normal(size=(240, width)) for width in (24, 24, 21)]
    yield case("a long sequence", *long, memory=450_000, dims={"seq": 240, "dim_head": 24, "dim_v": 21})


def heavy(rng):
    yield case("a very long sequence", *(rng.normal(size=(10_000, width)) for width in (32, 32, 28)), memory=15_000_000)


def _phi(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def _recurrence(q, k, v, phi_q=_phi, phi_k=_phi, before=False, divide=True):
    q, k = phi_q(q), phi_k(k)
    state, norm = np.zeros((*k.shape[:-2], k.shape[-1], v.shape[-1])), np.zeros((*k.shape[:-2], k.shape[-1]))
    out = np.empty(v.shape)
    for t in range(v.shape[-2]):
        read = state, norm
        state, norm = state + k[..., t, :, None] * v[..., t, None, :], norm + k[..., t, :]
        read = read if before else (state, norm)
        total = (q[..., t, :] * read[1]).sum(axis=-1, keepdims=True)
        out[..., t, :] = (q[..., t, None, :] @ read[0])[..., 0, :] / (total if divide else 1)
    return out


@wrong("Every query of yours sees the whole sequence: only the last row is right. The sums have to grow as you go, and each query reads "
       "them as they are at its own place.")
def not_causal(q, k, v):
    q, k = _phi(q), _phi(k)
    return q @ (k.swapaxes(-1, -2) @ v) / (q @ k.sum(axis=-2)[..., None])


@wrong("Each query reads the sums before its own token has been added, so the first divides 0 by 0. A query sees its own token, too.")
def misses_itself(q, k, v):
    return _recurrence(q, k, v, before=True)


@wrong("Your result is the weighted sum of the values, not their weighted mean: the division by the sum of φ(q) · φ(k) is missing.")
def not_divided(q, k, v):
    return _recurrence(q, k, v, divide=False)


@wrong("You divide by the number of tokens seen. The weights are not 1 each: what they sum to depends on the query and is what the "
       "second running sum is for.")
def divides_by_count(q, k, v):
    return _recurrence(q, k, v, divide=False) / np.arange(1, v.shape[-2] + 1)[:, None]


@wrong("This is softmax attention. Here exp(q · k) is replaced by a product of two vectors φ(q) and φ(k), so that sums over the past can "
       "be kept without the queries to come.")
def softmax_attention(q, k, v):
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    scores = np.where(np.tri(q.shape[-2], dtype=bool), scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


@wrong("Your φ is elu without the 1: it is negative for negative numbers, and weights that may be negative can sum to 0.")
def elu_without_one(q, k, v):
    return _recurrence(q, k, v, lambda x: _phi(x) - 1, lambda x: _phi(x) - 1)


@wrong("Your φ is 0 for negative numbers. The φ of the task is eˣ there: small, but never 0.")
def relu(q, k, v):
    return _recurrence(q, k, v, lambda x: np.maximum(x, 0), lambda x: np.maximum(x, 0))


@wrong("A row of yours is 0 / 0. You compute (eˣ - 1) + 1, and for x = -40 adding the 1 leaves exactly 0: eˣ has been rounded away. Keep the two "
       "branches apart: x + 1 where x > 0, eˣ itself elsewhere.")
def elu_literally(q, k, v):
    def phi(x):
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0))) + 1

    return _recurrence(q, k, v, phi, phi)


@wrong("You take φ(x) = eˣ everywhere. Where x is positive it is x + 1 (and eˣ of a large number overflows).")
def exponential(q, k, v):
    return _recurrence(q, k, v, np.exp, np.exp)


@wrong("φ is applied to one of queries and keys only. Both have to be positive for the weights to be.")
def phi_of_keys_only(q, k, v):
    return _recurrence(q, k, v, lambda x: x)


@wrong("φ is applied to one of queries and keys only, and it is the keys that go without. Both have to be positive.")
def phi_of_queries_only(q, k, v):
    return _recurrence(q, k, v, _phi, lambda x: x)


@wrong("You divide queries by √dim_head before φ. There is no scale in this task: φ is no exponential, and the scale would not cancel.")
def scaled(q, k, v):
    return _recurrence(q / q.shape[-1] ** 0.5, k, v)


@wrong("The values are right, but your memory grows with the sequence: all pairs of tokens, or the sums at every place, are held at once. "
       "Which of them does the next token need?")
def too_much_memory(q, k, v):
    q, k = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    weights = np.tril(q @ k.swapaxes(-1, -2))
    return weights @ v / weights.sum(axis=-1, keepdims=True)


def _near(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9)


def _numbers(case, got):
    return got.dtype.kind == "f" and case.memory is None and np.isfinite(got).all()


@observe
def multiples(case, got, want):
    if not _numbers(case, got) or want.shape[-2] < 2:
        return None
    ratio = got / want
    if (np.ptp(ratio, axis=-1) < 1e-7 * np.abs(ratio).max(axis=-1)).all() and not _near(ratio[..., -1, 0], 1).all():
        return (f"Each row of your out is a multiple of the right one ({ratio[..., 0, 0].flat[0]:.3g} times in row 0, {ratio[..., -1, 0].flat[0]:.3g} times "
                "in the last): the weighted sum of values is right, what it is divided by is not.")


@observe
def only_the_last_row(case, got, want):
    if _numbers(case, got) and got.shape[-2] > 2:
        rows = _near(got, want).all(axis=-1).reshape(-1, got.shape[-2]).all(axis=0)
        if rows[-1] and not rows[:-1].any():
            return "Only the last row is right: earlier queries see more than what stands before them."


@observe
def nothing_but_itself(case, got, want):
    v = case.args[2]
    if _numbers(case, got) and not _near(got[..., 0, :], v[..., 0, :]).all():
        ratio = got[..., 0, :] / v[..., 0, :]
        which = "out[..., 0, :] should be v[..., 0, :]" if v.ndim > 2 else "row 0 of your out should be v[0]"
        said = f"Query 0 sees its own token alone, so {which}, whatever q and k are"
        if np.ptp(ratio, axis=-1).max() < 1e-6 * np.abs(ratio).max():
            return f"{said}; it is {ratio.flat[0]:.4g} times that. What should the weights of a row sum to?"
        return f"{said}; it is not."


@observe
def leaves_the_range(case, got, want):
    v = case.args[2]
    if not _numbers(case, got):
        return None
    low, high = np.minimum.accumulate(v, axis=-2), np.maximum.accumulate(v, axis=-2)
    out = (got < low - 1e-7 * (1 + np.abs(low))) | (got > high + 1e-7 * (1 + np.abs(high)))
    if out.any():
        rows = out.any(axis=-1)
        whole = ((got >= v.min(axis=-2, keepdims=True) - 1e-7) & (got <= v.max(axis=-2, keepdims=True) + 1e-7)).all()
        past = " They do lie within the range of all values of the sequence: has the future been seen?" if whole else ""
        return (f"In {rows.sum()} of {rows.size} rows your out leaves the range of the values seen so far (the first: query "
                f"{int(np.argwhere(rows)[0][-1])}), which a mean with positive weights cannot.{past}")


@observe
def equal_weights(case, got, want):
    v = case.args[2]
    if _numbers(case, got) and v.shape[-2] > 2:
        mean = np.cumsum(v, axis=-2) / np.arange(1, v.shape[-2] + 1)[:, None]
        if _near(got, mean).all():
            return "Your out is the plain mean of the values seen so far: q and k play no part in it."
        if _near(got, v).all():
            return "Each row of your out is its own value: nothing of the past is kept."


@observe
def one_weight(case, got, want):
    v = case.args[2]
    if not _numbers(case, got) or v.ndim != 2 or v.shape[0] < 2:
        return None
    step = v[1] - v[0]
    share, right = (float((x[1] - v[0]) @ step / (step @ step)) for x in (got, want))
    if np.allclose(got[1], v[0] + share * step, atol=1e-9) and abs(share - right) > 1e-6:
        q, k = case.args[:2]
        kinds = {"softmax without scale": np.exp(k[:2] @ q[1]), "softmax": np.exp(k[:2] @ q[1] / len(q[1]) ** 0.5), "q · k without φ": k[:2] @ q[1]}
        like = next((f" That is what {name} would give." for name, w in kinds.items() if _near(share, w[1] / w.sum())), "")
        return f"Query 1 gives the weight {share:.4g} to its own token and {1 - share:.4g} to token 0; expected are {right:.4g} and {1 - right:.4g}.{like}"


@observe
def from_the_second_token_on(case, got, want):
    if _numbers(case, got) and got.shape[-2] > 2:
        rows = _near(got, want).all(axis=-1).reshape(-1, got.shape[-2]).all(axis=0)
        if rows[0] and not rows[1:].any():
            return "Row 0 is right, in which there is only one token; as soon as two are to be weighted, yours differs. φ, or what is kept?"
        if rows[0] and rows[1] and not rows[2:].any():
            return "Rows 0 and 1 are right and no later one: what happens to the running sums after the second token?"
