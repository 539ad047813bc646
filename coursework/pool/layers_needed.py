"""Exercise: how many layers of windows it takes to hear of a distant token."""

import math

from coursework import case, observe, wrong

TITLE = "How many layers?"
CHAPTER = "01_why_attention"
POINTS = 4
PROMPT = r"""
Every layer of a network sees a window: itself and `left` places to the left. Write `layers_needed(distance, left, dilated=False)`:
the smallest number of layers (an int) after which a token hears of the one `distance` back. Contiguous: every layer sees the tokens
0, 1, … `left` back. Dilated: layer $l = 0, 1, \dots$ sees those $0, s, 2s, \dots, \textit{left}\cdot s$ back, with
$s = (\textit{left}+1)^l$. `distance` is an int from 0 to 99,999, `left` an int from 1. Distance 0 needs no layer. Beware of logarithms in
floating point.
"""


def layers_needed(distance, left, dilated=False):
    # BEGIN SOLUTION
    layers, reached, step = 0, 0, 1
    while reached < distance:
        layers, reached = layers + 1, reached + left * step
        step *= left + 1 if dilated else 1
    return layers          # dilated: reached is (left + 1)^layers - 1
    # END SOLUTION


def drive(f, distances, left, dilated=None):
    """One call for each distance; without `dilated` the default is what counts."""
    return [f(d, left) if dilated is None else f(d, left, dilated=dilated) for d in distances]


def cases(rng):
    left = int(rng.integers(3, 8))
    some = sorted({1, *(int(d) for d in rng.integers(2, 200, size=12))})
    around = [left - 1, left, left + 1, 5 * left, 5 * left + 1, (left + 1) ** 3 - 1, (left + 1) ** 3]
    yield case(f"contiguous windows, left = {left}", [*some, *around], left, False)
    yield case(f"dilated windows, left = {left}", [*some, *around], left, True)
    yield case("`dilated` not given", some, left)
    yield case("left = 1, dilated", list(range(1, 18)), 1, True)
    for base in (5, 10):        # log(125, 5) comes out above 3, log(1000, 10) below 3
        powers = [base**power + d for power in range(1, 8) for d in (-1, 0, 1) if base**power + d < 99_999] + [99_999]
        yield case(f"powers of {base} and their neighbours, left = {base - 1}, dilated", powers, base - 1, True)
    yield case("from end to end of 100,000 tokens", [99_999, 4 * int(rng.integers(2000, 9000))], 4, False)
    yield case("distance 0", [0], left, False)
    yield case("distance 0, dilated", [0], left, True)


@wrong("You round the quotient down. A distance that is not a multiple of `left` needs one more layer for what is left over.")
def rounds_down(distance, left, dilated=False):
    layers, step = 0, 1
    while dilated and left * step + (left + 1) ** layers - 1 <= distance:
        layers, step = layers + 1, step * (left + 1)
    return layers if dilated else distance // left


@wrong("Right but for exact multiples of `left`, where you count one layer too many: quotient plus one is not rounding up.")
def one_more(distance, left, dilated=False):
    return layers_needed(distance, left, True) if dilated else distance // left + 1


@wrong("You count a window of `left` as left + 1 steps. It sees itself too, but a layer brings the signal only `left` places further.")
def counts_itself(distance, left, dilated=False):
    return layers_needed(distance, left, True) if dilated else -(-distance // (left + 1))


@wrong("The result does not depend on `dilated`: you treat all windows as contiguous.")
def never_dilated(distance, left, dilated=False):
    return math.ceil(distance / left)


@wrong("Rounding: the quotient of two logarithms is a little above or below a whole number exactly where it matters, as for 125 and 5. "
       "Count with whole numbers.")
def by_logarithms(distance, left, dilated=False):
    return math.ceil(math.log(distance + 1, left + 1)) if dilated else -(-distance // left)


@wrong("You take the logarithm of `distance`. After L dilated layers the farthest token that is heard is (left + 1)^L **- 1** back: "
       "at a power of left + 1 one more layer is needed.")
def forgets_the_one(distance, left, dilated=False):
    layers = 0
    while dilated and (left + 1) ** layers < distance:
        layers += 1
    return layers if dilated else -(-distance // left)


@wrong("Only the last layer's reach is counted. What the layers below it have brought is there as well: reaches add up.")
def last_layer_alone(distance, left, dilated=False):
    if not dilated:
        return -(-distance // left)
    layers, reached = 0, 0
    while reached < distance:
        reached = left * (left + 1) ** layers
        layers += 1
    return layers


@wrong("Your steps are 1, left, left², ...; a window of `left` covers left + 1 places with the token itself, so the next layer may step "
       "farther.")
def steps_of_left(distance, left, dilated=False):
    layers, reached, step = 0, 0, 1
    while reached < distance:
        layers, reached = layers + 1, reached + left * step
        step *= left if dilated else 1
    return layers


@wrong("Your steps double with every layer. Here they grow by the factor left + 1: layer l steps (left + 1)^l.")
def doubling(distance, left, dilated=False):
    layers, reached, step = 0, 0, 1
    while reached < distance:
        layers, reached = layers + 1, reached + left * step
        step *= 2 if dilated else 1
    return layers


@wrong("Distance 0 is the token itself, which it knows before any layer: 0 layers, yours says 1.")
def at_least_one(distance, left, dilated=False):
    return max(1, layers_needed(distance, left, dilated))


@wrong("Dilated and contiguous are exchanged: the short counts belong to dilated windows.")
def exchanged(distance, left, dilated=False):
    return layers_needed(distance, left, not dilated)


@wrong("The first layer already steps left + 1 in your count; it has l = 0, so its step is 1. Your layers skip the near tokens.")
def starts_late(distance, left, dilated=False):
    layers, reached, step = 0, 0, left + 1 if dilated else 1
    while reached < distance:
        layers, reached = layers + 1, reached + left * step
        step *= left + 1 if dilated else 1
    return layers


def _rows(case, got, want):
    """(distance, answered, right) of the wrong ones."""
    distances = case.args[0]
    return [(d, g, w) for d, g, w in zip(distances, got, want, strict=True) if g != w]


def _reach(layers, left, dilated):
    return (left + 1) ** layers - 1 if dilated else layers * left


@observe
def zero(case, got, want):
    wrong_rows = _rows(case, got, want)
    if wrong_rows and all(d == 0 for d, _, _ in wrong_rows):
        return f"At distance 0 a token asks for itself: no layer is needed. Yours says {wrong_rows[0][1]}."
    return None


@observe
def at_the_edges(case, got, want):
    distances, left = case.args[:2]
    dilated = len(case.args) > 2 and case.args[2]
    rows = _rows(case, got, want)
    what = "powers of left + 1, less one" if dilated else "multiples of left"
    full = {d for d, w in zip(distances, want, strict=True) if d == _reach(w, left, dilated)}
    beyond = {d for d, w in zip(distances, want, strict=True) if w and d == _reach(w - 1, left, dilated) + 1}
    off = {d for d, _, _ in rows}
    if off and len(off) < len(set(distances)):
        d, g, w = rows[0]
        if off <= full and g > w:
            return (f"Right but for distances that {w} layer{'s' * (w != 1)} just reach{'' if w != 1 else 'es'} ({what}): for distance {d}, left = {left} your count is {g}, "
                    f"one layer less does it.")
        if off <= beyond and g < w:
            return (f"Right but for distances just out of reach: for distance {d}, left = {left} your count is {g}, "
                    f"but {g} layers reach {_reach(g, left, dilated)} back.")
    return None


@observe
def constant_difference(case, got, want):
    gaps = {g - w for g, w in zip(got, want, strict=True)}
    if len(gaps) == 1 and len(got) > 2:
        gap = gaps.pop()
        return f"Your counts are {abs(gap)} too {'large' if gap > 0 else 'small'} for every distance."
    return None


@observe
def does_not_know_dilation(case, got, want):
    distances, left, *rest = case.args
    other = not (rest and rest[0])
    if all(g == 0 if d == 0 else g > 0 and _reach(g - 1, left, other) < d <= _reach(g, left, other)
           for d, g in zip(distances, got, strict=True)):
        return f"These are the counts for {'contiguous' if rest and rest[0] else 'dilated'} windows; asked for are {'dilated' if rest and rest[0] else 'contiguous'} ones."
    return None


@observe
def too_few(case, got, want):
    left, dilated = case.args[1], len(case.args) > 2 and case.args[2]
    for d, g, w in _rows(case, got, want):
        if g < w:
            steps = f"with steps {', '.join(str((left + 1) ** i) for i in range(min(max(g, 0), 3)))}{', ...' if g > 3 else ''}" if dilated and g > 0 else ""
            reach = _reach(max(g, 0), left, dilated) if g < 1000 or not dilated else None
            return f"For distance {d}, left = {left} you count {g} layers; {g} layers {steps + ' ' if steps else ''}reach only {reach} back."
    return None


@observe
def too_many(case, got, want):
    left, dilated = case.args[1], len(case.args) > 2 and case.args[2]
    for d, g, w in _rows(case, got, want):
        if g > w:
            return f"For distance {d}, left = {left} you count {g} layers, but fewer do: {w} layers reach {_reach(w, left, dilated)} back."
    return None
