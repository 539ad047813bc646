"""Exercise: an image cut into windows, shifted by less than a window (Swin)."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "An image in windows"
CHAPTER = "16_hierarchy_and_span"
POINTS = 3
PROMPT = r"""
In a Swin transformer {cite}`liu2021` every token attends within its own square window, and every second layer shifts the windows. Write
`cut_windows(x, window, shift)` for a picture `x` (..., height, width, dim) of tokens; `window`, the side of a window in tokens, divides height and
width, and `shift` is from 0 to window − 1. First the picture is moved up and to the left by `shift` rows and columns, cyclically: what leaves at
the top comes back at the bottom, what leaves on the left on the right, so that the token at (shift, shift) comes first. Then it is cut into windows.
Return (..., number of windows, window², dim): windows in reading order (row by row), and in each the tokens in reading order.
"""


def cut_windows(x, window, shift):
    # BEGIN SOLUTION
    x = np.roll(x, (-shift, -shift), axis=(-3, -2))
    *lead, height, width, dim = x.shape
    rows, columns = height // window, width // window
    x = x.reshape(*lead, rows, window, columns, window, dim)
    x = x.swapaxes(-4, -3)  # (..., rows, columns, window, window, dim)
    return x.reshape(*lead, rows * columns, window**2, dim)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch frames rows columns dim", 2, 6)
    window, shift = 4, int(rng.integers(1, 3)) * 2 - 1     # 1 or 3: not half a window

    def picture(window, *lead, rows=s.rows, columns=s.columns):
        return rng.normal(size=(*lead, rows * window, columns * window, s.dim))

    def names(window, rows=s.rows, columns=s.columns):
        return {"height": rows * window, "width": columns * window, "dim": s.dim}

    yield case("no shift", picture(window), window, 0)
    yield case("windows of one row of tokens after another", picture(2, rows=1), 2, 0)
    yield case("shifted windows", picture(window), window, shift)
    yield case("leading axes", picture(3, s.batch, s.frames), 3, 1)
    yield case("shifted by half a window", picture(window), window, 2)
    yield case("one window, shifted", picture(5, rows=1, columns=1), 5, 2)
    yield case("windows of one token", picture(1, rows=3, columns=4), 1, 0)
    h, w = s.rows * 3, s.columns * 3
    numbered = (100.0 * np.arange(h)[:, None] + np.arange(w))[..., None]
    yield case("tokens that name their row and column", numbered + np.zeros(2), 3, int(rng.integers(1, 3)))


def _cut(x, window, roll=(0, 0), order=None, inner=False):
    x = np.roll(x, roll, axis=(-3, -2))
    *lead, height, width, dim = x.shape
    x = x.reshape(*lead, height // window, window, width // window, window, dim).swapaxes(-4, -3)
    if order == "columns first":
        x = x.swapaxes(-5, -4)
    if inner:
        x = x.swapaxes(-3, -2)
    return x.reshape(*lead, -1, window**2, dim)


@wrong("Your windows are strips: the numbers are cut as they lie in memory, and a window's second row is there the rest of the picture's first. Split height and "
       "width into two axes each; which two then belong together?")
def strips(x, window, shift):
    x = np.roll(x, (-shift, -shift), axis=(-3, -2))
    *lead, height, width, dim = x.shape
    return x.reshape(*lead, height * width // window**2, window**2, dim)


@wrong("Right where shift is 0: yours leaves the picture where it is.")
def no_shift(x, window, shift):
    return _cut(x, window)


@wrong("Your picture is moved down and to the right. The token at (shift, shift) should come first.")
def other_way(x, window, shift):
    return _cut(x, window, (shift, shift))


@wrong("Your picture is moved up, but not to the left. The windows are shifted both ways.")
def height_only(x, window, shift):
    return _cut(x, window, (-shift, 0))


@wrong("Your picture is moved to the left, but not up. The windows are shifted both ways.")
def width_only(x, window, shift):
    return _cut(x, window, (0, -shift))


@wrong("You shift by half a window, whatever `shift` says.")
def half_a_window(x, window, shift):
    return _cut(x, window, (-(window // 2) * (shift > 0), -(window // 2) * (shift > 0)))


@wrong("You cut first and move the tokens afterwards, each within its own window: nothing passes from one window to another, and that is what the shift "
       "is for.")
def rolls_inside(x, window, shift):
    *lead, _, _, dim = x.shape
    cut = _cut(x, window).reshape(*lead, -1, window, window, dim)
    return np.roll(cut, (-shift, -shift), axis=(-3, -2)).reshape(*lead, -1, window**2, dim)


@wrong("What leaves at the top and on the left is lost in your picture, and zeros come in on the other side. It should come back there.")
def zeros_come_in(x, window, shift):
    moved = np.zeros_like(x)
    moved[..., :x.shape[-3] - shift, :x.shape[-2] - shift, :] = x[..., shift:, shift:, :]
    return _cut(moved, window)


@wrong("Your windows follow each other column by column. Reading order is row by row: the second window lies to the right of the first.")
def windows_by_columns(x, window, shift):
    return _cut(x, window, (-shift, -shift), "columns first")


@wrong("Within a window your tokens follow each other column by column: the second lies below the first. Reading order is row by row.")
def tokens_by_columns(x, window, shift):
    return _cut(x, window, (-shift, -shift), inner=True)


@wrong("Your windows are combs: each takes tokens from all over the picture, at equal distances. Tokens of a window are neighbours: after a reshape the "
       "axis of length `window` comes second.")
def combs(x, window, shift):
    x = np.roll(x, (-shift, -shift), axis=(-3, -2))
    *lead, height, width, dim = x.shape
    rows, columns = height // window, width // window
    x = x.reshape(*lead, window, rows, window, columns, dim)
    x = np.moveaxis(x, (-4, -2), (-5, -4))
    return x.reshape(*lead, rows * columns, window**2, dim)


@wrong("The number of windows in a row is taken for that in a column: your picture is treated as if height and width were exchanged.")
def sides_exchanged(x, window, shift):
    x = np.roll(x, (-shift, -shift), axis=(-3, -2))
    *lead, height, width, dim = x.shape
    rows, columns = width // window, height // window
    return x.reshape(*lead, rows, window, columns, window, dim).swapaxes(-4, -3).reshape(*lead, rows * columns, window**2, dim)


@wrong("You shift the first two axes of the array. With axes in front these are not height and width: count from the end.")
def shifts_the_first_axes(x, window, shift):
    if x.ndim == 3:
        return _cut(x, window, (-shift, -shift))
    return _cut(np.roll(x, (-shift, -shift), axis=(0, 1)), window)


def _picture(case):
    """The first picture with its tokens as a dict: bytes of a token -> (row, column), or None if tokens repeat."""
    x, window, shift = case.args
    first = x.reshape(-1, *x.shape[-3:])[0]
    places = {first[i, j].tobytes(): (i, j) for i in range(first.shape[0]) for j in range(first.shape[1])}
    return (places, first, window, shift) if len(places) == first.shape[0] * first.shape[1] else None


@observe
def invented(case, got, want):
    known = _picture(case)
    if known is None or got.dtype.kind != "f":
        return None
    places = known[0]
    mine = got.reshape(-1, *got.shape[-2:])[:want.shape[-3]] if got.ndim > 3 else got
    flat = mine.reshape(-1, mine.shape[-1])
    strange = [t for t in flat if t.astype(known[1].dtype).tobytes() not in places]
    if strange:
        zero = all((t == 0).all() for t in strange)
        return f"{len(strange)} of {len(flat)} tokens in your windows are not in the picture{': they are zeros' if zero else ''}. Tokens are to be moved, not changed."
    twice = len(flat) - len({t.tobytes() for t in flat})
    if twice:
        return f"{twice} of the picture's tokens are missing from your windows, and others are there more than once."


@observe
def moved_by(case, got, want):
    """Recognise the right cut of a picture that was moved otherwise: every token is off by the same."""
    known = _picture(case)
    if known is None or got.dtype.kind != "f":
        return None
    places, first, _, shift = known
    mine, right = ([places.get(t.tobytes()) for t in y.astype(first.dtype).reshape(-1, y.shape[-1])[:len(places)]] for y in (got, want))
    if None in mine:
        return None
    off = {tuple((b - a) % n for a, b, n in zip(*pair, first.shape, strict=False)) for pair in zip(right, mine, strict=True)}
    if len(off) == 1 and off != {(0, 0)}:
        wide = [shift + o - n * (shift + o > n // 2) for o, n in zip(off.pop(), first.shape, strict=False)]
        move = " and ".join(f"{'up' if n > 0 else 'down'} by {abs(n)}" if axis == 0 else f"to the {'left' if n > 0 else 'right'} by {abs(n)}"
                            for axis, n in enumerate(wide) if n)
        return f"Your windows are those of a picture that was moved {move or 'not at all'}; shift is {shift} here."


@observe
def which_token(case, got, want):
    """Name the first token that stands in a wrong place."""
    known = _picture(case)
    if known is None or got.dtype.kind != "f":
        return None
    places, first, window, shift = known
    mine, right = (y.astype(first.dtype).reshape(-1, y.shape[-2], y.shape[-1])[:want.shape[-3]] for y in (got, want))
    if any(t.tobytes() not in places for w in mine for t in w):
        return None
    size = f"(height = {first.shape[0]}, width = {first.shape[1]}, window = {window}, shift = {shift})"
    inside = [{places[t.tobytes()] for t in w} for w in right]
    mine_sets = [{places[t.tobytes()] for t in w} for w in mine]
    if mine_sets == inside:
        w, t = (int(n) for n in np.argwhere((mine != right).any(axis=-1))[0])
        at, asked = (places[y[w, t].tobytes()] for y in (mine, right))
        return f"Every window of yours has the right tokens, in another order: token {t} of window {w} comes from {at}, expected from {asked} {size}."
    if sorted(map(sorted, mine_sets)) == sorted(map(sorted, inside)):
        w = next(i for i, (a, b) in enumerate(zip(mine_sets, inside, strict=True)) if a != b)
        return f"Your windows are the right ones, in another order: your window {w} is that which should be number {inside.index(mine_sets[w])} {size}."
    w = next(i for i, (a, b) in enumerate(zip(mine_sets, inside, strict=True)) if a != b)
    t = next(i for i in range(window**2) if (mine[w, i] != right[w, i]).any())
    return (f"Token {t} of your window {w} comes from row {places[mine[w, t].tobytes()][0]} and column {places[mine[w, t].tobytes()][1]} of the picture; the one from "
            f"row {places[right[w, t].tobytes()][0]} and column {places[right[w, t].tobytes()][1]} belongs there {size}.")
