"""Exercise: the largest square tile that fits into fast memory."""

import math

from coursework import case, observe, wrong

TITLE = "How large may a tile be?"
CHAPTER = "19_memory_hierarchy"
POINTS = 4
GIVEN = "import math"
PROMPT = r"""
A program of a GPU has `memory` bytes of fast memory. For attention in square tiles it must hold at the same time a tile of queries, one of keys and one of values, each
`tile` rows of `dim` numbers of `nbytes` bytes, and the tile of scores between them, `tile` by `tile` numbers of 4 bytes. Write `largest_tile(memory, dim, nbytes)`, which
returns the largest `tile` that fits and is a power of two, as kernels want it, at least 16; and 0 if not even 16 fits. Exactly full is allowed. (Python ints.)
"""


def largest_tile(memory, dim, nbytes):
    # BEGIN SOLUTION
    tile = 0
    size = 16
    while 3 * size * dim * nbytes + 4 * size * size <= memory:
        tile, size = size, 2 * size
    return tile
    # END SOLUTION


def _need(tile, dim, nbytes):
    return 3 * tile * dim * nbytes + 4 * tile * tile


def cases(rng):
    yield case("an H100's 227 KiB, heads of 128 in bfloat16", 227 * 1024, 128, 2)
    yield case("an A100's 163 KiB, heads of 64 in float32", 163 * 1024, 64, 4)
    yield case("exactly full", _need(64, 80, 2), 80, 2)
    yield case("one byte short", _need(128, 96, 2) - 1, 96, 2)
    yield case("not even 16 fits", _need(16, 256, 4) - 1, 256, 4)
    yield case("just 16", _need(16, 256, 4), 256, 4)
    yield case("much memory", 2**31, 64, 2)
    for label in ("any size", "any other size"):
        yield case(label, int(rng.integers(20_000, 2_000_000)), int(rng.integers(16, 256)), int(rng.choice([2, 4])))


def _search(memory, fits):
    tile, size = 0, 16
    while fits(size):
        tile, size = size, 2 * size
    return tile


@wrong("You leave out the tile of scores. It is what grows with the square of `tile`.")
def no_scores(memory, dim, nbytes):
    return _search(memory, lambda t: 3 * t * dim * nbytes <= memory)


@wrong("Scores take 4 bytes each, whatever the numbers of queries and keys take.")
def scores_as_small(memory, dim, nbytes):
    return _search(memory, lambda t: (3 * t * dim + t * t) * nbytes <= memory)


@wrong("You count two tiles of vectors: queries, keys and values are three.")
def two_tiles(memory, dim, nbytes):
    return _search(memory, lambda t: 2 * t * dim * nbytes + 4 * t * t <= memory)


@wrong("Exactly full is allowed: compare with <=, not with <.")
def strictly(memory, dim, nbytes):
    return _search(memory, lambda t: _need(t, dim, nbytes) < memory)


@wrong("Where not even 16 rows fit, 0 is asked for.")
def at_least_sixteen(memory, dim, nbytes):
    return max(16, _search(memory, lambda t: _need(t, dim, nbytes) <= memory))


@wrong("You return the largest tile of all; it should be a power of two.")
def any_number(memory, dim, nbytes):
    tile = 0
    while _need(tile + 1, dim, nbytes) <= memory:
        tile += 1
    return tile if tile >= 16 else 0


@wrong("You return the first power of two that does *not* fit.")
def one_too_far(memory, dim, nbytes):
    return max(16, 2 * _search(memory, lambda t: _need(t, dim, nbytes) <= memory))


@wrong("Your search stops at some size (1024 or less); there is no such limit in the task.")
def capped(memory, dim, nbytes):
    return min(1024, _search(memory, lambda t: _need(t, dim, nbytes) <= memory))


@observe
def not_a_power_of_two(case, got, want):
    if got and (got < 16 or math.log2(got) % 1):
        return f"{got} is not 0 and not a power of two from 16 on."
    return None


@observe
def does_not_fit(case, got, want):
    memory, dim, nbytes = case.args
    if got and _need(got, dim, nbytes) > memory:
        return f"A tile of {got} needs {_need(got, dim, nbytes):,} bytes, and there are {memory:,}."
    return f"A tile of {2 * max(got, 8)} would fit too: it needs {_need(2 * max(got, 8), dim, nbytes):,} bytes of {memory:,}." if got < want else None
