"""Exercise: attention to the local keys and to the few best of a large memory, in one softmax."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "A few from a large memory"
CHAPTER = ""
POINTS, EDGE_POINTS = 6, 1
RETURNS = ("out", "found")
PROMPT = r"""
Memorizing Transformers {cite}`wu2022` keep keys and values of long ago in a memory, and let each query attend to the few of them that match it
best, beside the local ones. Write `attend_to_nearest(q, k, v, memory_k, memory_v, top_k)`. `q` is (..., seq_q, dim_head), `k` and `v` are
(..., seq_k, dim_head) and (..., seq_k, dim_v), `memory_k` and `memory_v` are (..., size, dim_head) and (..., size, dim_v). All scores are dot
products divided by √dim_head. **Each query** of each head picks the `top_k` memory keys of highest score, or all if there are fewer; **one** softmax
over these and over all local keys (nothing is masked) gives its weights. Return `(out, found)`: `out` (..., seq_q, dim_v), and the places of the
memory keys that each query picked, (..., seq_q, min(top_k, size)), in increasing order. Scores of 10,000 must not overflow.
"""


def attend_to_nearest(q, k, v, memory_k, memory_v, top_k):
    # BEGIN SOLUTION
    far, near = (q @ keys.swapaxes(-1, -2) / q.shape[-1] ** 0.5
                 for keys in (memory_k, k))  # (..., seq_q, size or seq_k)
    found = np.sort(np.argsort(-far, axis=-1)[..., :top_k], axis=-1)
    kept = np.full(far.shape, -np.inf)
    np.put_along_axis(kept, found, np.take_along_axis(far, found, -1), -1)
    scores = np.concatenate([kept, near], axis=-1)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    out = weights @ np.concatenate([memory_v, v], axis=-2)
    return out, found
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch heads seq_q seq_k dim_head dim_v", 3, 9)
    size, top = int(rng.integers(14, 20)), int(rng.integers(2, 5))
    names = {"seq_q": s.seq_q, "seq_k": s.seq_k, "dim_head": s.dim_head, "dim_v": s.dim_v, "size": size}

    def inputs(*lead, size=size, seq_q=s.seq_q):
        shapes = (seq_q, s.dim_head), (s.seq_k, s.dim_head), (s.seq_k, s.dim_v), (size, s.dim_head), (size, s.dim_v)
        return [rng.normal(size=(*lead, *shape)) * 1.5 for shape in shapes]

    yield case("one head", *inputs(), top, dims=names)
    yield case("leading axes", *inputs(s.batch, s.heads), top, dims={"batch": s.batch, "heads": s.heads, **names})
    yield case("one memory key per query", *inputs(s.heads), 1, dims=names)
    yield case("one query, as when generating", *inputs(seq_q=1), top, dims=names)
    q, k, v, far_k, far_v = inputs()
    yield case("values of the memory far from those at hand", q, k, v, far_k, far_v + 30, top, dims=names)
    far_k = far_k * np.exp(rng.normal(size=(size, 1)))
    yield case("memory keys of very different lengths", q, k, v, far_k, far_v, top, dims=names)
    yield case("large scores", q * 100, k * 100, v, far_k * 100, far_v, top, dims=names)
    yield case("top_k as large as the memory", *inputs(), size, edge=True, dims=names)
    yield case("a memory smaller than top_k", *inputs(size=3), 12, edge=True)
    yield case("an empty memory", *inputs(size=0), top, edge=True)


def _softmax(scores, stable=True):
    powers = np.exp(scores - (scores.max(axis=-1, keepdims=True) if stable else 0))
    return powers / powers.sum(axis=-1, keepdims=True)


def _places(rank, top_k):
    return np.sort(np.argsort(-rank, axis=-1, kind="stable")[..., :top_k], axis=-1)


def _is_there(memory_k):
    return memory_k.shape[-2] > 0


def _joint(q, k, v, memory_k, memory_v, top_k, rank=None, scale=None, far_scale=None, stable=True, report=None, local=True):
    """The solution with one of its parts replaced; `rank` decides which memory keys are picked."""
    scale = q.shape[-1] ** 0.5 if scale is None else scale
    far, near = q @ memory_k.swapaxes(-1, -2) / (far_scale or scale), q @ k.swapaxes(-1, -2) / scale
    found = _places(far if rank is None else np.broadcast_to(rank(q, memory_k, far), far.shape), top_k)
    kept = np.full(far.shape, -np.inf)
    np.put_along_axis(kept, found, np.take_along_axis(far, found, -1), -1)
    scores = np.concatenate([kept, near if local else np.full(near.shape, -np.inf)], axis=-1)
    return _softmax(scores, stable) @ np.concatenate([memory_v, v], axis=-2), found if report is None else report(found)


@wrong("Your query attends to the whole memory. Only the `top_k` keys it has picked take part in the softmax.")
def whole_memory(q, k, v, memory_k, memory_v, top_k):
    out, _ = _joint(q, k, v, memory_k, memory_v, max(memory_k.shape[-2], 1))
    return out, _joint(q, k, v, memory_k, memory_v, top_k)[1]


@wrong("You pick the memory keys of **lowest** score: argsort sorts upwards.")
def lowest(*args):
    return _joint(*args, rank=lambda q, keys, far: -far)


@wrong("You pick by the size of the score without its sign: a very negative score is the worst match, not one of the best.")
def absolute(*args):
    return _joint(*args, rank=lambda q, keys, far: np.abs(far))


@wrong("You pick the memory keys that lie closest to the query. The score is a dot product, and a long key may score higher than a close one.")
def by_euclid(*args):
    return _joint(*args, rank=lambda q, keys, far: -((q[..., :, None, :] - keys[..., None, :, :]) ** 2).sum(axis=-1))


@wrong("You pick by the angle between query and key. The score is the dot product, in which the length of a key counts.")
def by_cosine(*args):
    return _joint(*args, rank=lambda q, keys, far: far / np.linalg.norm(keys, axis=-1)[..., None, :])


@wrong("All queries of yours share one choice of memory keys. Each query picks its own.")
def one_choice_for_all(*args):
    return _joint(*args, rank=lambda q, keys, far: far.mean(axis=-2, keepdims=True))


@wrong("You pick one memory key too few, or count one of the local keys among the top_k. The local keys come on top of what is picked.")
def one_too_few(q, k, v, memory_k, memory_v, top_k):
    return _joint(q, k, v, memory_k, memory_v, top_k - 1)


@wrong("There is a softmax for the memory and one for the local keys, and you average the two results. One softmax over both lets a query spend "
       "all it has on one side.")
def two_softmaxes(q, k, v, memory_k, memory_v, top_k):
    out, found = _joint(q, k, v, memory_k, memory_v, top_k, local=not _is_there(memory_k))
    near = _softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5) @ v
    return (out + near) / 2, found


@wrong("There is a softmax for the memory and one for the local keys, and you add the two results: the weights of a row then sum to 2.")
def two_softmaxes_added(q, k, v, memory_k, memory_v, top_k):
    out, found = two_softmaxes(q, k, v, memory_k, memory_v, top_k)
    return 2 * out, found


@wrong("Your query attends to what it picked from the memory and to nothing else. The local keys belong to the same softmax.")
def memory_only(q, k, v, memory_k, memory_v, top_k):
    return _joint(q, k, v, memory_k, memory_v, top_k, local=not _is_there(memory_k))


@wrong("What is picked is right, and has no influence on `out`: that is plain attention to the local keys.")
def local_only(q, k, v, memory_k, memory_v, top_k):
    return _softmax(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5) @ v, _joint(q, k, v, memory_k, memory_v, top_k)[1]


@wrong("Memory keys that were not picked get the score 0, and a score of 0 takes softmax weight. They are not to be seen at all.")
def zeros_for_the_rest(q, k, v, memory_k, memory_v, top_k):
    far, near = (q @ x.swapaxes(-1, -2) / q.shape[-1] ** 0.5 for x in (memory_k, k))
    found = _places(far, top_k)
    kept = np.zeros(far.shape)
    np.put_along_axis(kept, found, np.take_along_axis(far, found, -1), -1)
    return _softmax(np.concatenate([kept, near], axis=-1)) @ np.concatenate([memory_v, v], axis=-2), found


@wrong("The scores with the memory are not divided by √dim_head, those with the local keys are. In one softmax they have to be of one kind.")
def memory_unscaled(*args):
    return _joint(*args, far_scale=1.0)


@wrong("Your scores are not divided by √dim_head.")
def no_scale(*args):
    return _joint(*args, scale=1.0)


@wrong("Your powers overflow for scores of 10,000. What may be subtracted from all scores of a row, and is the row more than one of its two parts?")
def overflows(*args):
    return _joint(*args, stable=False)


@wrong("Your out is right. `found` is in the order of the scores; increasing places are asked for.")
def found_by_score(q, k, v, memory_k, memory_v, top_k):
    out, _ = _joint(q, k, v, memory_k, memory_v, top_k)
    return out, np.argsort(-(q @ memory_k.swapaxes(-1, -2)), axis=-1)[..., :top_k]


def _near(a, b):
    return np.allclose(a, b, rtol=1e-6, atol=1e-9)


@observe
def what_was_picked(case, got, want):
    q, _, _, memory_k, _, _ = case.args
    mine, right = np.sort(got[1], axis=-1), want[1]
    size = memory_k.shape[-2]
    if (got[1] == right).all() or not right.size:
        return None
    if (mine == right).all():
        return "Your queries pick the right memory keys, and `found` is not in increasing order."
    if (mine < 0).any() or (mine >= size).any():
        return f"`found` holds {int(mine.min()) if (mine < 0).any() else int(mine.max())}; the places of the memory are 0 to {size - 1}."
    at = tuple(int(n) for n in np.argwhere((mine != right).any(axis=-1))[0])
    far = (q @ memory_k.swapaxes(-1, -2))[at] / q.shape[-1] ** 0.5
    odd, lost = (sorted(set(a) - set(b)) for a, b in ((mine[at].tolist(), right[at].tolist()), (right[at].tolist(), mine[at].tolist())))
    name = f"Query {at[-1]}" if len(at) == 1 else f"Query {at}"
    if not odd:
        return f"{name} names a memory key more than once in your `found`."
    return f"{name} picks memory key {odd[0]}, of score {far[odd[0]]:.3g}, and not key {lost[0]}, of score {far[lost[0]]:.3g}."


@observe
def how_the_sides_are_joined(case, got, want):
    q, k, v, memory_k, memory_v, _ = case.args
    if got[0].dtype.kind != "f" or not np.isfinite(got[0]).all() or not memory_k.shape[-2]:
        return None
    far, near = np.empty(want[0].shape), np.empty(want[0].shape)
    for at in np.ndindex(want[1].shape[:-1]):                   # what each side says by itself
        for out, keys, values in ((far, memory_k[at[:-1]][want[1][at]], memory_v[at[:-1]][want[1][at]]), (near, k[at[:-1]], v[at[:-1]])):
            out[at] = _softmax(keys @ q[at] / len(q[at]) ** 0.5) @ values
    for rows in zip(*(x.reshape(-1, x.shape[-1]) for x in (got[0], want[0], far, near)), strict=True):
        mine, right, a, b = rows
        if _near(mine, right) or len(mine) < 3:
            continue
        shares, *_ = np.linalg.lstsq(np.stack([a, b], axis=-1), mine, rcond=None)
        if _near(shares[0] * a + shares[1] * b, mine):
            shares = shares.round(9) + 0.0
            total = f", together {shares.sum():.4g}" if not np.isclose(shares.sum(), 1) else ""
            asked, *_ = np.linalg.lstsq(np.stack([a, b], axis=-1), right, rcond=None)
            return (f"The first row of your out that is wrong is {shares[0]:.4g} times what the picked memory keys say among themselves plus {shares[1]:.4g} "
                    f"times what the local ones say{total}; expected are {asked[0]:.4g} and {asked[1]:.4g}.")
        return None


@observe
def only_out_is_wrong(case, got, want):
    if (got[1] == want[1]).all() and np.isfinite(got[0]).all() and np.abs(got[0] - want[0]).max() > 1e-3 * np.abs(want[0]).max():
        return "The right memory keys are picked; your out is not their share and that of the local keys. Which values belong to which weights, and are all scores divided by √dim_head?"
