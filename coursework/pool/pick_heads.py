"""Exercise: a layer made of some of the heads of another."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "Pick heads"
CHAPTER = "06_multi_head"
POINTS = 4
PROMPT = r"""
Write `pick_heads(chosen, matrices, biases)` for a layer of heads 32 wide: `matrices` are `w_q`, `w_k`, `w_v` (dim, heads·32) and `w_o`
(heads·32, dim), used as `x @ w_q`; `biases` are `b_q`, `b_k`, `b_v` (heads·32,) and `b_o` (dim,). Head $h$ owns the numbers from $32h$ to
$32h + 31$. Return a pair, four matrices and four biases in the same order, of a layer that consists of the heads in the list `chosen`, in
that order. With a permutation of all heads the result of the layer must not change; with fewer heads the layer becomes cheaper and gives
what zeroing the others would. **Predict** first: which of the eight arrays change, and along which axis?
"""
RETURNS = ("matrices", "biases")
WIDTH = 32
NAMES = ("w_q", "w_k", "w_v", "w_o"), ("b_q", "b_k", "b_v", "b_o")


def pick_heads(chosen, matrices, biases):
    # BEGIN SOLUTION
    w_q, w_k, w_v, w_o = matrices
    b_q, b_k, b_v, b_o = biases
    own = np.concatenate([np.arange(32 * h, 32 * h + 32) for h in chosen])
    return ((w_q[:, own], w_k[:, own], w_v[:, own], w_o[own]),  # rows of w_o
            (b_q[own], b_k[own], b_v[own], b_o))  # b_o belongs to no head
    # END SOLUTION


def _layer(rng, dim, heads, dtype=float):
    width = heads * WIDTH
    matrices = tuple(rng.normal(size=shape).astype(dtype) for shape in [(dim, width)] * 3 + [(width, dim)])
    return matrices, tuple(rng.normal(size=n).astype(dtype) for n in [width] * 3 + [dim])


def _shuffled(rng, heads):
    """A permutation that is neither sorted, nor reversed, nor its own inverse."""
    return [int(h) for h in np.roll(np.arange(heads), rng.integers(1, (heads + 1) // 2))]


def cases(rng):
    s = sizes(rng, "heads dim", least=5, most=9)
    d = {"dim": s.dim, "heads·32": s.heads * WIDTH}
    yield case("a permutation of all heads", _shuffled(rng, s.heads), *_layer(rng, s.dim, s.heads), dims=d)
    last = int(rng.integers(2, s.heads))
    yield case("two heads, the later one first", [last, int(rng.integers(1, last))], *_layer(rng, s.dim, s.heads), dims=d)
    yield case("a single head", [int(rng.integers(1, s.heads))], *_layer(rng, s.dim, s.heads), dims=d)
    yield case("a layer as wide as all its heads together", [2, 0, 1], *_layer(rng, 3 * WIDTH, 3), dims={"dim": 3 * WIDTH})
    yield case("float32", _shuffled(rng, s.heads)[1:], *_layer(rng, s.dim, s.heads, np.float32), dims=d)


def _columns(chosen):
    return np.concatenate([np.arange(WIDTH * h, WIDTH * h + WIDTH) for h in chosen])


def _cut(own, matrices, biases):
    w_q, w_k, w_v, w_o = matrices
    b_q, b_k, b_v, b_o = biases
    return (w_q[:, own], w_k[:, own], w_v[:, own], w_o[own]), (b_q[own], b_k[own], b_v[own], b_o)


@wrong("`w_o` is left as it was: its rows still belong to the heads in their old order, or to heads that are gone.")
def keeps_w_o(chosen, matrices, biases):
    new, b = pick_heads(chosen, matrices, biases)
    return (*new[:3], matrices[3]), b


@wrong("You take columns of `w_o`. Its columns are the numbers of the layer's result; which of its axes meets the heads?")
def columns_of_w_o(chosen, matrices, biases):
    new, b = pick_heads(chosen, matrices, biases)
    own = _columns(chosen)
    return (*new[:3], matrices[3][:, own]), b


@wrong("The matrices are right and the biases are as they were. `b_q`, `b_k` and `b_v` are added to the heads' own columns.")
def keeps_biases(chosen, matrices, biases):
    return pick_heads(chosen, matrices, biases)[0], biases


@wrong("`b_k` is as it was. Softmax hides it from the result (it adds the same to all scores of a row), but a layer of these heads has "
       "their `b_k`.")
def keeps_b_k(chosen, matrices, biases):
    new, (b_q, _, b_v, b_o) = pick_heads(chosen, matrices, biases)
    return new, (b_q, biases[1], b_v, b_o)


@wrong("You cut `b_o` too. It is added once, after the heads have been summed: to which head should it belong?")
def cuts_b_o(chosen, matrices, biases):
    new, b = pick_heads(chosen, matrices, biases)
    return new, (*b[:3], biases[3][_columns(chosen)])


@wrong("`b_o` is scaled by the share of heads that are left. It belongs to no head: zeroing the others would leave it whole.")
def shares_b_o(chosen, matrices, biases):
    new, b = pick_heads(chosen, matrices, biases)
    return new, (*b[:3], biases[3] * len(chosen) * WIDTH / biases[0].size)


@wrong("You take the columns whose numbers stand in `chosen`, one for each head. A head is 32 columns wide.")
def single_columns(chosen, matrices, biases):
    return _cut(np.array(chosen), matrices, biases)


@wrong("The heads are right, but in ascending order: a mask of booleans forgets in which order they were chosen.")
def sorted_heads(chosen, matrices, biases):
    return _cut(_columns(sorted(chosen)), matrices, biases)


@wrong("You zero the other heads and keep their columns. That gives the same result, but the layer does not become cheaper.")
def zeroes(chosen, matrices, biases):
    w_q, w_k, w_v, w_o = matrices
    keep = np.isin(np.arange(w_o.shape[0]) // WIDTH, chosen)
    return (w_q, w_k, w_v, w_o * keep[:, None]), biases


@wrong("Every 32-wide block that you take begins one column too late. Head 0 owns the columns 0 to 31.")
def one_late(chosen, matrices, biases):
    return _cut((_columns(chosen) + 1) % matrices[3].shape[0], matrices, biases)


@wrong("A column that you give to head h is the h-th of every group of columns: heads are dealt out like cards. The columns of a head "
       "stand side by side.")
def dealt(chosen, matrices, biases):
    heads = matrices[3].shape[0] // WIDTH
    return _cut(np.concatenate([np.arange(WIDTH) * heads + h for h in chosen]), matrices, biases)


@wrong("Head h goes to place `chosen[h]` in your layer. The other way round: place i gets head `chosen[i]`.")
def inverse(chosen, matrices, biases):
    return _cut(_columns(np.argsort(chosen) if len(chosen) * WIDTH == matrices[3].shape[0] else chosen), matrices, biases)


@wrong("You return eight arrays in one row. A pair is asked for: four matrices, four biases.")
def flat(chosen, matrices, biases):
    new, b = pick_heads(chosen, matrices, biases)
    return (*new, *b)


@wrong("You remove the heads in `chosen` and keep the others.")
def removes(chosen, matrices, biases):
    heads = matrices[3].shape[0] // WIDTH
    left = [h for h in range(heads) if h not in chosen] or list(range(heads))
    return _cut(_columns(left), matrices, biases)


def _arrays(case, got, want):
    for k in range(2):
        yield from zip(NAMES[k], case.args[1 + k], got[k], want[k], strict=True)


def _same(a, b):
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-6)


def _holder(name, old, part):
    """Which head of the old layer a block of the new one is, along the axis of the heads; None if it is none."""
    axis = 0 if name == "w_o" else -1
    for h in range(old.shape[axis] // WIDTH):
        if _same(np.take(old, range(WIDTH * h, WIDTH * h + WIDTH), axis=axis), part):
            return h


def _clear(got, want):
    """Whether these are real, finite numbers, off by more than a lower precision would do; the rest is said elsewhere."""
    pairs = [pair for g, w in zip(got, want, strict=True) for pair in zip(g, w, strict=True)]
    return (all(g.dtype.kind == "f" and np.isfinite(g).all() for g, _ in pairs)
            and any(np.abs(g - w).max() > 1e-3 * np.abs(w).max() for g, w in pairs))


@observe
def some_are_as_they_were(case, got, want):
    if not _clear(got, want):
        return None
    bad = [(name, old, g) for name, old, g, w in _arrays(case, got, want) if not _same(g, w)]
    if bad and len(bad) < 7:
        right = 8 - len(bad)
        names = ", ".join(f"`{name}`" for name, _, _ in bad)
        kept = [name for name, old, g in bad if _same(g, old)]
        if len(kept) == len(bad):
            return f"{right} of your eight arrays are right; {names} {'is' if len(bad) == 1 else 'are'} as in the old layer."


@observe
def other_array(case, got, want):
    if not _clear(got, want):
        return None
    wants = [(name, w) for name, _, _, w in _arrays(case, want, want)]
    for name, _, g, w in _arrays(case, got, want):
        if not _same(g, w):
            other = next((n for n, theirs in wants if _same(g, theirs)), None)
            if other:
                return f"Your `{name}` is what `{other}` should be."


@observe
def b_o(case, got, want):
    if not _clear(got, want):
        return None
    others = all(_same(g, w) for name, _, g, w in _arrays(case, got, want) if name != "b_o")
    if others and not _same(got[1][3], want[1][3]):
        return "All is right but `b_o`, which you have changed. It is added once, after the heads."


@observe
def blocks(case, got, want):
    """Say which head stands where."""
    if not _clear(got, want):
        return None
    for name, old, g, w in _arrays(case, got, want):
        if name == "b_o" or _same(g, w):
            continue
        axis, word = (0, "rows") if name == "w_o" else (-1, "numbers" if name[0] == "b" else "columns")
        for place, asked in enumerate(case.args[0]):
            at = range(WIDTH * place, WIDTH * place + WIDTH)
            part = np.take(g, at, axis=axis)
            if _same(part, np.take(w, at, axis=axis)):
                continue
            h = _holder(name, old, part)
            if h is not None:
                return (f"The {word} {at[0]} to {at[-1]} of your `{name}` are those of head {h}; `chosen` asks for head {asked} at "
                        f"place {place}.")
            if not part.any():
                return f"The {word} {at[0]} to {at[-1]} of your `{name}` are zeros; they should be those of head {asked}."
            loose = np.isin(part, old).all()
            return (f"The {word} {at[0]} to {at[-1]} of your `{name}` are those of no head"
                    + (", though all their numbers come from the old one." if loose else " of the old layer.")
                    + f" They should be those of head {asked}, {WIDTH * asked} to {WIDTH * asked + WIDTH - 1}.")
