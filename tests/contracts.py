"""What every attention variant of the library promises; the variants stand in `tests/variants/`.

A new variant is one line in a table there. Each function marked `@contract` takes a variant and raises
`AssertionError` where the promise is broken; `tests/test_contracts.py` calls all of them on all
variants, and on variants with planted mistakes.

A variant is seen through `run(q, k, v, predicate)` with NumPy arrays (batch, heads, seq, width) and
a predicate from `attnlib.masks` (None: every query sees every key). The truth it is compared with is
written out by hand below, loop by loop, and shares nothing with the library; a family that is not
softmax attention brings its own truth, written out likewise.
"""

import contextlib
import itertools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnlib import masks

torch.set_num_threads(1)  # everything here is tiny: threads would only wait for each other

CONTRACTS = {}

PATTERNS = {
    "full": None,
    "causal": masks.causal,
    "window": masks.sliding_window(2, 1),
    "short window": masks.sliding_window(1),                         # with more keys than queries, nobody sees the first
    "scattered": lambda q, k: (3 * q + 5 * k + q * k) % 4 != 1,
    "some blind": lambda q, k: (k <= q) & (q % 3 != 1),             # every third query sees nothing
    "some hidden": lambda q, k: (k % 3 != 1) & (k - q <= 2),        # every third key is seen by nobody
    "padding": masks.padding(np.array([3, 6])),
    "dilated": masks.dilated(2, 2),
    "global": masks.either(masks.global_tokens(1), masks.sliding_window(1, 1)),
    "bigbird": masks.bigbird(8, 2, window=1, n_global=1, n_random=1),
    "causal padding": masks.both(masks.causal, masks.padding(np.array([5, 0]))),
}


@dataclass(frozen=True)
class Variant:
    """One way to compute attention, as the contracts see it.

    Attributes
    ----------
    name : str
        ``room.function``, perhaps followed by `` (the way it is used)``.
    run : function
        (q, k, v, predicate) -> (out, weights), `weights` None where the variant forms none.
    bad_calls : list of (call, argument, was)
        Wrong calls: a function without arguments, the argument to blame, and what it was, as text.
    gradients : function, optional
        (q, k, v, predicate, d_out) -> (d_q, d_k, d_v).
    heads : (int, int)
        Query heads and key/value heads to test with.
    same_width : bool
        Whether values must be as wide as keys.
    patterns : tuple of str
        Which of `PATTERNS` it can do.
    dtypes : tuple of str
        What it computes in, beside float64.
    exempt : dict of str to str
        Contract that does not apply -> why. It must indeed fail, or the exemption is refused.
    truth : function, optional
        (q, k, v, predicate) -> (out, weights or None) in float64, written out by hand; softmax attention's by default.
    bound : function, optional
        (q, k, v=None) -> how far apart two correct float64 results may lie (`rounding`, which is softmax attention's).
    baseline : function, optional
        (q, k, v) in low precision -> out, as PyTorch's own operations give it; softmax attention's by default.
    """

    name: str
    run: Callable
    bad_calls: list
    gradients: Callable | None = None
    heads: tuple[int, int] = (3, 3)
    same_width: bool = False
    patterns: tuple[str, ...] = tuple(PATTERNS)
    dtypes: tuple[str, ...] = ("float32",)
    exempt: dict[str, str] = field(default_factory=dict)
    truth: Callable | None = None
    bound: Callable | None = None
    baseline: Callable | None = None

    def true(self, q, k, v, predicate):
        return (self.truth or by_hand)(q, k, v, predicate)

    def close(self, q, k, v=None):
        return (self.bound or rounding)(q, k, v)

    def draw(self, seq_q=5, seq_k=7, dim_head=6, dim_v=4, dtype="float64", batch=2):
        """Random q, k, v: the same ones whenever the same sizes are asked for."""
        text = f"{self.heads} {seq_q} {seq_k} {dim_head} {dim_v} {batch}"
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        heads, kv_heads = self.heads
        dim_v = dim_head if self.same_width else dim_v
        shapes = (batch, heads, seq_q, dim_head), (batch, kv_heads, seq_k, dim_head), (batch, kv_heads, seq_k, dim_v)
        return [rng.normal(size=shape).astype(dtype) for shape in shapes]

    def own_patterns(self, *only):
        return [(name, PATTERNS[name]) for name in (only or PATTERNS) if name in self.patterns]

    def grads(self, q, k, v, predicate, d_out):
        assert self.gradients is not None, f"{self.name} has no gradients"
        return self.gradients(q, k, v, predicate, d_out)


def contract(name):
    def register(function):
        CONTRACTS[name] = function
        return function
    return register


# --- the truth ---------------------------------------------------------------------------------------------

def who_sees_whom(predicate, batch, seq_q, seq_k):
    """(batch, seq_q, seq_k) bool: the predicate asked with one pair of Python ints at a time, last query = last key."""
    seen = np.ones((batch, seq_q, seq_k), bool)
    for b, i, j in np.ndindex(seen.shape) if predicate is not None else ():
        at = i + seq_k - seq_q, j
        seen[b, i, j] = predicate(*at, b) if getattr(predicate, "per_batch", False) else predicate(*at)
    return seen


def by_hand(q, k, v, predicate):
    """Attention one query at a time, in float64 with exactly rounded sums: (out, weights)."""
    q, k, v = (each.astype(np.float64) for each in (q, k, v))
    batch, heads, seq_q, dim_head = q.shape
    kv_heads, seq_k, dim_v = v.shape[1:]
    seen = who_sees_whom(predicate, batch, seq_q, seq_k)
    out, weights = np.zeros((batch, heads, seq_q, dim_v)), np.zeros((batch, heads, seq_q, seq_k))
    for b, h, i in np.ndindex(batch, heads, seq_q):
        g = h * kv_heads // heads                            # neighbouring query heads share keys and values
        keys = [j for j in range(seq_k) if seen[b, i, j]]
        if not keys:
            continue
        scores = [math.fsum(q[b, h, i] * k[b, g, j]) / math.sqrt(dim_head) for j in keys]
        powers = [math.exp(score - max(scores)) for score in scores]
        for j, power in zip(keys, powers, strict=True):
            weights[b, h, i, j] = power / math.fsum(powers)
        for c in range(dim_v):
            out[b, h, i, c] = math.fsum(weights[b, h, i, j] * v[b, g, j, c] for j in keys)
    return out, weights


def rounding(q, k, v=None):
    """How far apart two correct float64 results may lie, from the textbook bounds on rounding.

    A sum of n products errs by at most n·u times the sum of their magnitudes (u = 2^-53), which
    Cauchy-Schwarz bounds for scores by |q||k|. An error of δ in two scores, the row's own and its
    maximum, changes a power by a factor of about 1 ± 2δ, numerator and denominator alike. Sums over
    the keys add seq_k·u each, exponential and division a few u. Both sides err.
    """
    if 0 in (q.size, k.size):
        return 0.0
    u, dim_head, seq_k = np.finfo(np.float64).eps / 2, q.shape[-1], k.shape[-2]
    reach = np.linalg.norm(q, axis=-1).max() * np.linalg.norm(k, axis=-1).max() / math.sqrt(dim_head)
    relative = 4 * (dim_head + 4) * u * reach + (2 * seq_k + 16) * u
    return 2 * relative * (1.0 if v is None else np.abs(v).max())


def pytorchs_own(q, k, v):
    """Softmax attention over all keys by PyTorch's plain operations, in the dtype of the inputs."""
    group = q.shape[1] // k.shape[1]
    tensors = [torch.from_numpy(each) for each in (q, np.repeat(k, group, 1), np.repeat(v, group, 1))]
    with sdpa_kernel(SDPBackend.MATH):
        return torch.nn.functional.scaled_dot_product_attention(*tensors).numpy()


def alike(predicate, other, seq=24):
    """Whether two predicates mean the same pattern (None: everything), as far as `seq` positions show."""
    full = masks.either(masks.causal, masks.negate(masks.causal))
    return np.array_equal(masks.to_array(predicate or full, seq), masks.to_array(other or full, seq))


def assert_within(bound, got, expected, what):
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    assert np.isfinite(got).all(), f"{what}: not finite"
    difference = np.abs(got - expected).max(initial=0)
    assert difference <= bound, f"{what}: differs by {difference:.2e}, rounding allows {bound:.2e}"


# --- the contracts, numbered as in the house rules -------------------------------------------------------------

@contract("1 equals the truth in float64")
def equals_the_truth(variant):
    for name, predicate in variant.own_patterns():
        q, k, v = variant.draw()
        out, weights = variant.run(q, k, v, predicate)
        true_out, true_weights = variant.true(q, k, v, predicate)
        assert_within(variant.close(q, k, v), out, true_out, f"out, {name}")
        if weights is not None:
            assert_within(variant.close(q, k), weights, true_weights, f"weights, {name}")


@contract("1 errs at most twice as much as PyTorch in lower precision")
def errs_little(variant):
    for dtype in variant.dtypes:
        error = allowed = floor = 0
        for sizes in ((17, 65, 24, 40), (9, 129, 32, 16), (25, 33, 48, 12)):  # the worst entry of several draws
            q, k, v = variant.draw(*sizes, dtype, batch=1)
            truth, _ = variant.true(q, k, v, None)
            out, _ = variant.run(q, k, v, None)
            assert str(out.dtype) == dtype, f"{dtype} in, {out.dtype} out"
            baseline = (variant.baseline or pytorchs_own)(q, k, v)
            error, allowed = max(error, np.abs(out - truth).max()), max(allowed, np.abs(baseline - truth).max())
            floor = max(floor, np.spacing(np.abs(truth).max().astype(dtype)))  # PyTorch may be lucky: one last digit
        print(f"{dtype}: error {error:.2e}, PyTorch's own {allowed:.2e}")
        assert error <= 2 * allowed + floor, f"{dtype}: error {error:.2e}, PyTorch's own {allowed:.2e}"


@contract("2 rows of weights sum to 1")
def rows_sum_to_one(variant):
    for name, predicate in variant.own_patterns():
        q, k, v = variant.draw()
        ones = np.ones_like(v)
        out, weights = variant.run(q, k, ones, predicate)
        sighted = who_sees_whom(predicate, 2, 5, 7).any(-1)[:, None, :]
        sums = np.broadcast_to(sighted, out.shape[:-1]).astype(float)
        for column in np.moveaxis(out, -1, 0):
            assert_within(variant.close(q, k), column, sums, f"mean of ones, {name}")
        if weights is not None:
            assert (weights >= 0).all(), f"negative weights, {name}"
            assert_within(variant.close(q, k), weights.sum(-1), sums, f"row sums, {name}")


@contract("2 the order of keys does not matter")
def order_of_keys(variant):
    assert "full" in variant.patterns, "needs every query to see every key"
    q, k, v = variant.draw()
    order = np.random.default_rng(2).permutation(7)
    out, _ = variant.run(q, k, v, None)
    shuffled, _ = variant.run(q, k[:, :, order], v[:, :, order], None)
    assert_within(variant.close(q, k, v), shuffled, out, "keys and values in another order")


@contract("3 what a query may not see changes nothing in its row")
def unseen_changes_nothing(variant):
    compared = 0
    for name, predicate in variant.own_patterns():
        q, k, v = variant.draw()
        seen = who_sees_whom(predicate, 2, 5, 7)
        out, _ = variant.run(q, k, v, predicate)
        for j in range(7):
            k2, v2 = k.copy(), v.copy()
            k2[:, :, j] += 3
            v2[:, :, j] -= 5
            changed = (variant.run(q, k2, v2, predicate)[0] != out).any(axis=(1, 3))  # (batch, seq_q)
            compared += (~seen[:, :, j]).sum()
            assert not changed[~seen[:, :, j]].any(), f"key {j} changes a row that does not see it, {name}"
            assert changed[seen[:, :, j]].all(), f"key {j} does not change a row that sees it, {name}"
    assert compared, "no pattern hides anything"


@contract("3 what a query may not see gets no gradient from it")
def unseen_gets_no_gradient(variant):
    compared = 0
    for name, predicate in variant.own_patterns():
        q, k, v = variant.draw()
        seen = who_sees_whom(predicate, 2, 5, 7)
        for i in range(5):
            d_out = np.zeros((*q.shape[:-1], v.shape[-1]))
            d_out[:, :, i] = 1 + np.arange(v.shape[-1])
            d_q, d_k, d_v = variant.grads(q, k, v, predicate, d_out)
            others = [other for other in range(5) if other != i]
            assert not d_q[:, :, others].any(), f"query {i} sends a gradient to another query, {name}"
            reached = (d_k.any(axis=(1, 3)) | d_v.any(axis=(1, 3)))  # (batch, seq_k)
            compared += (~seen[:, i]).sum()
            assert not reached[~seen[:, i]].any(), f"query {i} sends a gradient to a key it does not see, {name}"
            assert reached[seen[:, i]].all(), f"query {i} sends no gradient to a key it sees, {name}"
    assert compared, "no pattern hides anything"


@contract("4 causal is aligned to the end")
def aligned_to_the_end(variant):
    assert "causal" in variant.patterns, "cannot be causal"
    for seq_q, seq_k in ((1, 7), (3, 7), (7, 3)):
        q, k, v = variant.draw(seq_q, seq_k)
        out, _ = variant.run(q, k, v, masks.causal)
        assert_within(variant.close(q, k, v), out, variant.true(q, k, v, masks.causal)[0], f"seq_q {seq_q}, seq_k {seq_k}")
        v[:, :, -1] += 1
        changed = (variant.run(q, k, v, masks.causal)[0] != out).any(axis=(0, 1, 3))
        assert changed.tolist() == [False] * (seq_q - 1) + [True], "only the last query sees the last key"


@contract("5 a query that sees nothing gets zeros")
def blind_rows_are_zero(variant):
    found = 0
    for seq_q, seq_k in ((5, 7), (7, 4)):
        for name, predicate in variant.own_patterns():
            q, k, v = variant.draw(seq_q, seq_k)
            blind = ~who_sees_whom(predicate, 2, seq_q, seq_k).any(-1)
            found += blind.sum()
            for result in variant.run(q, k, v, predicate):
                if result is not None:
                    assert np.isfinite(result).all(), f"not finite, {name}"
                    assert not result.swapaxes(1, 2)[blind].any(), f"a blind query gets something, {name}"
    assert found, "no pattern leaves a query blind"


@contract("5 a query that sees nothing has zero gradients")
def blind_gradients_are_zero(variant):
    found = 0
    for seq_q, seq_k in ((5, 7), (7, 4)):
        for name, predicate in variant.own_patterns():
            q, k, v = variant.draw(seq_q, seq_k)
            blind = ~who_sees_whom(predicate, 2, seq_q, seq_k).any(-1)
            found += blind.sum()
            d_q, d_k, d_v = variant.grads(q, k, v, predicate, np.ones((*q.shape[:-1], v.shape[-1])))
            assert all(np.isfinite(each).all() for each in (d_q, d_k, d_v)), f"gradient not finite, {name}"
            assert not d_q.swapaxes(1, 2)[blind].any(), f"a blind query gets a gradient, {name}"
    assert found, "no pattern leaves a query blind"


def poisoned(variant):
    """(pattern's name, predicate, clean q, k, v, poisoned k, v, (batch, seq_k) bool: seen by nobody)."""
    found = 0
    for name, predicate in variant.own_patterns():
        q, k, v = variant.draw()
        hidden = ~who_sees_whom(predicate, 2, 5, 7).any(axis=1)
        found += hidden.sum()
        for poison in (np.nan, np.inf, -np.inf):
            bad_k, bad_v = k.copy(), v.copy()
            bad_k.swapaxes(1, 2)[hidden] = poison
            bad_v.swapaxes(1, 2)[hidden] = poison
            yield f"{name}, {poison}", predicate, (q, k, v), (bad_k, bad_v), hidden
    assert found, "no pattern hides a key from every query"


@contract("6 NaN that nobody may see reaches no result")
def nan_reaches_no_result(variant):
    for name, predicate, (q, k, v), (bad_k, bad_v), _ in poisoned(variant):
        with np.errstate(invalid="ignore"):                  # inf · 0 in a score that is masked
            results = variant.run(q, bad_k, bad_v, predicate)
        for got, clean in zip(results, variant.run(q, k, v, predicate), strict=True):
            if clean is not None:
                assert_within(variant.close(q, k, v), got, clean, f"with poison, {name}")


@contract("6 NaN that nobody may see reaches no gradient")
def nan_reaches_no_gradient(variant):
    for name, predicate, (q, _, v), (bad_k, bad_v), hidden in poisoned(variant):
        d_out = np.ones((*q.shape[:-1], v.shape[-1]))
        with np.errstate(invalid="ignore"):
            got = variant.grads(q, bad_k, bad_v, predicate, d_out)
        assert all(np.isfinite(each).all() for each in got), f"gradient not finite, {name}"
        assert not any(each.swapaxes(1, 2)[hidden].any() for each in got[1:]), f"a hidden key gets a gradient, {name}"


@contract("7 any length and any width")
def any_size(variant):
    sizes = [(1, 1, 1, 1), (1, 7, 3, 5), (3, 1, 6, 4), (5, 0, 6, 4), (0, 5, 6, 4), (13, 17, 7, 5), (8, 16, 4, 8), (31, 33, 12, 3)]
    for size in sizes:
        for name, predicate in variant.own_patterns("full", "causal"):
            q, k, v = variant.draw(*size, batch=1)
            try:
                out, _ = variant.run(q, k, v, predicate)
                gradients = variant.grads(q, k, v, predicate, np.ones_like(out)) if variant.gradients else ()
            except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
                raise AssertionError(f"(seq_q, seq_k, dim_head, dim_v) = {size}, {name}: {error}") from error
            assert_within(variant.close(q, k, v), out, variant.true(q, k, v, predicate)[0], f"{size}, {name}")
            assert all(np.isfinite(each).all() for each in gradients), f"gradient not finite, {size}, {name}"


def slopes(loss, arrays, which, step, together):
    """Central differences of loss(*arrays) -> (batch,) by each entry of arrays[which], a sequence at a time.

    No sequence touches another (contract 1 compares two with their truths), so one entry of each is moved at once;
    `together` also moves all the entries of one sequence in one call, each in a copy of its own.
    """
    array = arrays[which]
    entries = array[0].size
    moves = step * np.eye(entries).reshape(entries, *array.shape[1:])
    if together:
        copies = [np.repeat(each, entries, axis=0) for each in arrays]
        up, down = ([*copies[:which], copies[which] + sign * moves, *copies[which + 1:]] for sign in (1, -1))
        return ((loss(*up) - loss(*down)) / (2 * step)).reshape(array.shape)
    found = []
    for move in moves:
        up, down = ([*arrays[:which], array + sign * move, *arrays[which + 1:]] for sign in (1, -1))
        found.append((loss(*up) - loss(*down)) / (2 * step))
    return np.stack(found, axis=1).reshape(array.shape)


@contract("8 gradients match finite differences")
def gradients_match(variant):
    step = np.finfo(np.float64).eps ** (1 / 3)               # balances truncation (step²) and rounding (eps / step)
    for name, predicate in variant.own_patterns("full", "causal", "some blind", "padding", "window"):
        by_sequence = getattr(predicate, "per_batch", False)  # such a mask belongs to two sequences, in this order
        arrays = variant.draw(3, 4, 3, 2, batch=2 if by_sequence else 1)
        d_out = np.random.default_rng(8).normal(size=(*arrays[0].shape[:-1], arrays[2].shape[-1]))

        def loss(q, k, v, predicate=predicate, d_out=d_out):
            return (variant.run(q, k, v, predicate)[0] * d_out).sum(axis=(1, 2, 3))

        for which, gradient in enumerate(variant.grads(*arrays, predicate, d_out)):
            numeric = slopes(loss, arrays, which, step, together=not by_sequence)
            # step² times a third derivative; with unit-variance inputs those stay well below 1000
            assert_within(1000 * step**2, gradient, numeric, f"gradient, {name}")


@contract("9 in chunks equals whole")
def chunks_equal_whole(variant):
    for name, predicate in variant.own_patterns("causal", "window"):
        predicate = masks.both(predicate, masks.causal)
        q, k, v = variant.draw(7, 7)
        whole, _ = variant.run(q, k, v, predicate)
        for edges in ((0, 1, 3, 7), range(8)):
            for start, stop in itertools.pairwise(edges):
                chunk, _ = variant.run(q[:, :, start:stop], k[:, :, :stop], v[:, :, :stop], predicate)
                assert_within(variant.close(q, k, v), chunk, whole[:, :, start:stop], f"queries {start} to {stop}, {name}")


@contract("10 scores of ±10000 overflow nothing")
def large_scores(variant):
    for dtype in ("float64", *variant.dtypes):
        for name, predicate in variant.own_patterns("full", "causal"):
            q, k, v = variant.draw(dtype=dtype)
            largest = np.abs(q @ np.repeat(k, q.shape[1] // k.shape[1], 1).mT).max() / q.shape[-1] ** 0.5
            q = q * (1e4 / largest)
            try:
                with np.errstate(over="raise", invalid="raise", divide="raise"):
                    out, _ = variant.run(q, k, v, predicate)
            except FloatingPointError as error:
                raise AssertionError(f"{dtype}, {name}: {error}") from error
            assert np.isfinite(out).all(), f"not finite, {dtype}, {name}"
            if dtype == "float64":
                assert_within(variant.close(q, k, v), out, variant.true(q, k, v, predicate)[0], name)
            if variant.gradients:
                gradients = variant.grads(q, k, v, predicate, np.ones_like(out))
                assert all(np.isfinite(each).all() for each in gradients), f"gradient not finite, {dtype}, {name}"


@contract("11 arguments are left as they were")
def arguments_are_left(variant):
    for _, predicate in variant.own_patterns():
        q, k, v = variant.draw()
        with untouched(q, k, v):
            out, _ = variant.run(q, k, v, predicate)
        if variant.gradients:
            d_out = np.ones_like(out)
            with untouched(q, k, v, d_out):
                variant.grads(q, k, v, predicate, d_out)


@contract("12 wrong calls are refused by name")
def wrong_calls_are_refused(variant):
    assert variant.bad_calls, "no wrong calls to try"
    for call, argument, was in variant.bad_calls:
        try:
            call()
        except (ValueError, TypeError) as error:
            for needed in (f": {argument} ", was, "expected"):
                assert needed in str(error), f"{needed!r} is missing in: {error}"
        except Exception as error:
            raise AssertionError(f"{argument} is {was}: {type(error).__name__}: {error}") from error
        else:
            raise AssertionError(f"{argument} is {was}: accepted")


# --- how variants are called -----------------------------------------------------------------------------------

@contextlib.contextmanager
def untouched(*arrays):
    """Assert that the arrays, or tensors, hold the same afterwards."""
    arrays = [each.detach().numpy() if isinstance(each, torch.Tensor) else each for each in arrays if each is not None]
    before = [each.copy() for each in arrays]
    yield
    for array, old in zip(arrays, before, strict=True):
        assert np.array_equal(array, old, equal_nan=True), "an argument was modified"


def mask_of(predicate, q, k):
    return None if predicate is None else masks.to_array(predicate, q.shape[-2], k.shape[-2])


def numpy_variant(name, attend, backward=None, **about):
    """A variant from `attend(q, k, v, mask)` on NumPy arrays and `backward(d_out, q, k, v, weights)`."""
    def run(q, k, v, predicate):
        mask = mask_of(predicate, q, k)
        with untouched(mask):
            return attend(q, k, v, mask)

    def gradients(q, k, v, predicate, d_out):
        return backward(d_out, q, k, v, run(q, k, v, predicate)[1])

    about.setdefault("bad_calls", bad_attention_calls(attend, np.asarray))
    return Variant(name, run, gradients=backward and gradients, **about)


def torch_variant(name, attend, **about):
    """A variant from `attend(q, k, v, mask)` on tensors; its gradients are autograd's."""
    def call(q, k, v, predicate):
        mask = mask_of(predicate, q, k)
        mask = mask if mask is None else torch.from_numpy(mask)
        with untouched(mask):
            return attend(q, k, v, mask)

    def run(q, k, v, predicate):
        out, weights = call(*(torch.from_numpy(each) for each in (q, k, v)), predicate)
        return out.detach().numpy(), weights if weights is None else weights.detach().numpy()

    def gradients(q, k, v, predicate, d_out):
        leaves = [torch.from_numpy(each).requires_grad_() for each in (q, k, v)]
        out, _ = call(*leaves, predicate)
        return [each.numpy() for each in torch.autograd.grad(out, leaves, torch.from_numpy(d_out), materialize_grads=True)]

    about.setdefault("bad_calls", bad_attention_calls(attend, torch.from_numpy))
    return Variant(name, run, gradients=gradients, **about)


def bad_attention_calls(attend, array):
    """Wrong calls of a function (q, k, v, mask) on arrays that `array` makes from NumPy's."""
    def zeros(*shape, dtype="float64"):
        return array(np.zeros(shape, dtype))

    good = {"q": zeros(2, 3, 5, 6), "k": zeros(2, 3, 7, 6), "v": zeros(2, 3, 7, 4), "mask": None}
    foreign = torch.zeros(2, 3, 5, 6) if isinstance(good["q"], np.ndarray) else np.zeros((2, 3, 5, 6))
    bad = [
        ("k", zeros(2, 3, 7, 5), "(2, 3, 7, 5)"),
        ("v", zeros(2, 3, 5, 4), "(2, 3, 5, 4)"),
        ("k", zeros(4, 3, 7, 6), "(4, 3)"),
        ("q", zeros(6), "(6,)"),
        ("k", zeros(2, 3, 7, 6, dtype="float32"), "float32"),
        ("q", zeros(2, 3, 5, 6, dtype="int64"), "int64"),
        ("mask", zeros(5, 7), "float64"),
        ("mask", zeros(5, 5, dtype=bool), "(5, 5)"),
        ("mask", zeros(4, 1, 5, 7, dtype=bool), "(4, 1)"),
        ("q", [[0.0, 1.0]], "list"),
        ("q", foreign, type(foreign).__name__),
        ("v", None, "None"),
    ]
    if isinstance(good["q"], torch.Tensor):
        bad.append(("v", torch.zeros(2, 3, 7, 4, dtype=torch.float64, device="meta"), "meta"))
        bad.append(("mask", torch.ones(5, 7, dtype=torch.bool, device="meta"), "meta"))
    return [(lambda name=name, value=value: attend(**{**good, name: value}), name, was) for name, value, was in bad]


def judge(variant, name):
    """Hold a variant to a contract; where it is exempt, see that the exemption is explained and needed."""
    if name not in variant.exempt:
        CONTRACTS[name](variant)
        return
    assert variant.exempt[name].strip(), f"{variant.name} is exempt from {name!r} without a reason"
    try:
        CONTRACTS[name](variant)
    except AssertionError:
        return
    raise AssertionError(f"{variant.name} keeps {name!r}: remove the exemption")
