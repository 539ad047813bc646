"""Exercise: which tokens of a shifted window were neighbours before the shift (Swin)."""

import numpy as np

from coursework import Variant, case, observe, wrong

TITLE = "Windows that were not one"
CHAPTER = "16_hierarchy_and_span"
POINTS, EDGE_POINTS = 5, 1
PROMPT = r"""
A Swin transformer {cite}`liu2021` moves a picture of `height` by `width` tokens up and to the left by `shift`, cyclically, before it cuts it into
square windows of side `window`. In the last windows tokens then meet that lie at opposite ends of the picture. Write
`region_mask(height, width, window, shift)`: a boolean array (number of windows, window², window²), True where two tokens of a window **may attend** to
each other, that is where, on each axis, either both have come round from the other end or neither has. Windows follow each other in
reading order (row by row), and so do the tokens of a window. `window` divides height and width; `shift` is from 0 to window − 1.
"""


VARIANTS = {"blocked": Variant(
    "`True` marks the pairs that may **not** attend to each other, as `nn.MultiheadAttention` takes it.",
    result=lambda mask: ~mask,
    hint="Your True may attend, as in the book. Here True marks what is hidden.")}


def region_mask(height, width, window, shift):
    # BEGIN SOLUTION
    row, column = np.indices((height, width))  # places after the move
    region = 2 * (row >= height - shift) + (column >= width - shift)
    cut = region.reshape(height // window, window, width // window, window)
    cut = cut.swapaxes(1, 2).reshape(-1, window**2)  # one row per window
    return cut[:, :, None] == cut[:, None, :]
    # END SOLUTION


def cases(rng):
    def grid(label, rows, columns, window, shift, edge=False):
        return case(label, rows * window, columns * window, window, shift, edge=edge,
                    dims={"windows": rows * columns, "window²": window**2})

    rows, columns = (int(n) for n in rng.permutation([2, 3, 4])[:2])
    yield grid("a shift of one", rows, columns, 4, 1)
    yield grid("a shift of three in a window of four", rows, columns, 4, 3)
    yield grid("a shift of two in a window of five", columns, rows, 5, 2)
    yield grid("a single row of windows", 1, int(rng.integers(3, 6)), 3, 1)
    yield grid("a single column of windows", int(rng.integers(3, 6)), 1, 3, 2)
    yield grid("one window for the whole picture", 1, 1, 5, 2)
    yield grid("no shift", rows, columns, 3, 0, edge=True)
    yield grid("windows of one token", rows, columns, 1, 0, edge=True)


def _regions(label, height, width, window, columns_first=False, tokens_first=False, strips=False):
    """The windows of a picture of labels, and who shares one; `label` may be a stack of pictures that all have to agree."""
    masks = []
    for picture in label if isinstance(label, tuple) else (label,):
        cut = np.asarray(picture).reshape(height // window, window, width // window, window)
        cut = cut.swapaxes(1, 2)
        if columns_first:
            cut = cut.swapaxes(0, 1)
        if tokens_first:
            cut = cut.swapaxes(2, 3)
        cut = cut.reshape(-1, window**2) if not strips else np.asarray(picture).reshape(-1, window**2)
        masks.append(cut[:, :, None] == cut[:, None, :])
    return np.all(masks, axis=0)


def _flags(height, width, row_cut, column_cut):
    row, column = np.indices((height, width))
    return row >= row_cut, column >= column_cut


@wrong("Every pair of yours may attend. After the move the last windows hold tokens from opposite ends of the picture: where in such a window "
       "does the seam lie?")
def all_true(height, width, window, shift):
    return np.ones((height * width // window**2, window**2, window**2), bool)


@wrong("Your mask has the opposite polarity: it is True exactly where it should be False. What does True mean here?")
def opposite(*args):
    return ~region_mask(*args)


@wrong("You mind what comes round from top to bottom, not what comes round from left to right.")
def rows_only(height, width, window, shift):
    return _regions(_flags(height, width, height - shift, width - shift)[0], height, width, window)


@wrong("You mind what comes round from left to right, not what comes round from top to bottom.")
def columns_only(height, width, window, shift):
    return _regions(_flags(height, width, height - shift, width - shift)[1], height, width, window)


@wrong("You ask whether two tokens agree on one of the axes. They have to agree on both.")
def either_axis(height, width, window, shift):
    a, b = _flags(height, width, height - shift, width - shift)
    return _regions(a, height, width, window) | _regions(b, height, width, window)


@wrong("You add the two marks, and so a token that has come round from the top gets the number of one that has come round from the left. There are four "
       "kinds of tokens, not three.")
def three_regions(height, width, window, shift):
    a, b = _flags(height, width, height - shift, width - shift)
    return _regions(a * 1 + b, height, width, window)


@wrong("You know two kinds of tokens, those that have come round on some axis and those that have not. In the last window there are four kinds.")
def two_regions(height, width, window, shift):
    a, b = _flags(height, width, height - shift, width - shift)
    return _regions(a | b, height, width, window)


@wrong("You split the windows of the first row and column. The picture moves up and to the left, so what comes round stands in the **last** rows and columns.")
def at_the_beginning(height, width, window, shift):
    return _regions(_flags(height, width, shift, shift), height, width, window)


@wrong("Your last windows are split at the wrong place: the first window - shift of their rows are at home there, and `shift` of them have come round.")
def split_the_other_way(height, width, window, shift):
    return _regions(_flags(height, width, height - window + shift, width - window + shift), height, width, window)


@wrong("Your seam is one row and column off: `shift` rows come round, the last of the picture.")
def one_off(height, width, window, shift):
    return _regions(_flags(height, width, height - shift - 1, width - shift - 1), height, width, window)


@wrong("You split by half a window, whatever `shift` says.")
def half_a_window(height, width, window, shift):
    half = window // 2 if shift else 0
    return _regions(_flags(height, width, height - half, width - half), height, width, window)


@wrong("Your windows follow each other column by column. Reading order is row by row: the second window lies to the right of the first.")
def windows_by_columns(height, width, window, shift):
    return _regions(_flags(height, width, height - shift, width - shift), height, width, window, columns_first=True)


@wrong("Your picture of regions is cut into strips: a reshape alone takes a window's tokens as they lie in memory, from the row's beginning on.")
def cut_into_strips(height, width, window, shift):
    return _regions(_flags(height, width, height - shift, width - shift), height, width, window, strips=True)


@wrong("Within a window your tokens follow each other column by column. Reading order is row by row.")
def tokens_by_columns(height, width, window, shift):
    a, b = _flags(height, width, height - shift, width - shift)
    return _regions((a, b), height, width, window, tokens_first=True)


def _place(case, w, t):
    """Row and column, after the move, of token t of window w, and how it came there."""
    height, width, window, shift = case.args
    across = width // window
    row, column = w // across * window + t // window, w % across * window + t % window
    ways = [text for text, round_ in (("from the top", row >= height - shift), ("from the left", column >= width - shift)) if round_]
    return f"({row}, {column}), {'come round ' + ' and '.join(ways) if ways else 'at home'}"


@observe
def itself(case, got, want):
    own = np.diagonal(got, axis1=1, axis2=2)
    if not own.all():
        w, t = (int(n) for n in np.argwhere(~own)[0])
        return f"Token {t} of your window {w} may not attend to itself; it has come from the same place as itself, wherever that was."


@observe
def one_way_only(case, got, want):
    odd = got != got.swapaxes(1, 2)
    if odd.any():
        w, a, b = (int(n) for n in np.argwhere(odd)[0])
        return f"In your window {w} token {a} {'may' if got[w, a, b] else 'may not'} attend to token {b}, and the other way round it is not so. Neighbours are so both ways."


@observe
def which_windows(case, got, want):
    height, width, window, shift = case.args
    size = f"(height = {height}, width = {width}, window = {window}, shift = {shift})"
    mine, right = (~m.all(axis=(1, 2)) for m in (got, want))
    if (mine == right).all():
        return None
    if not right.any():
        return f"Yours hides pairs in {mine.sum()} of {len(mine)} windows, and nothing is to be hidden here {size}."
    extra = np.flatnonzero(mine & ~right)
    if len(extra):
        return (f"Yours hides pairs in window {extra[0]}, in which no token has come round. The windows are {height // window} by {width // window}, "
                f"numbered row by row {size}.")
    return f"In window {np.flatnonzero(right & ~mine)[0]} yours lets all attend to all; some of its tokens have come round {size}."


@observe
def which_pair(case, got, want):
    w, a, b = (int(n) for n in np.argwhere(got != want)[0])
    height, width, window, shift = case.args
    return (f"In window {w} your token {a} {'may' if got[w, a, b] else 'may not'} attend to token {b}. After the move the first stands at {_place(case, w, a)}; the "
            f"second at {_place(case, w, b)} (height = {height}, width = {width}, window = {window}, shift = {shift}).")
