"""Exercise: into how many parts the keys of decoding are cut."""

import math

from coursework import case, observe, wrong

TITLE = "Work for every multiprocessor"
CHAPTER = "23_block_sparse_kernel"
POINTS = 4
GIVEN = "import math"
PROMPT = r"""
In decoding, each of `batch` sequences has `kv_heads` key heads of `seq_k` keys, which are read in tiles of `block_k` (the last tile may be smaller). Every
key head is cut into parts of the same number of tiles (the last part may have fewer), and each part of each key head of each sequence is a
program. Large parts are better: each part has to be merged. Write `tiles_per_part(batch, kv_heads, seq_k, block_k, processors)`, which returns the largest
number of tiles to a part with which there are at least as many programs as `processors`; 1 if there are too few tiles for that; and all tiles of
a key head in one part where that already is enough. (Python ints; `seq_k` is at least 1.)
"""


def tiles_per_part(batch, kv_heads, seq_k, block_k, processors):
    # BEGIN SOLUTION
    tiles = -(-seq_k // block_k)
    for part in range(tiles, 1, -1):
        if batch * kv_heads * -(-tiles // part) >= processors:
            return part
    return 1
    # END SOLUTION


def cases(rng):
    yield case("one sequence on 132 multiprocessors", 1, 8, 32768, 64, 132)
    yield case("sixteen sequences", 16, 8, 32768, 64, 132)
    yield case("more programs than processors without a cut", 64, 8, 8192, 64, 132)
    yield case("too few tiles", 1, 1, 500, 64, 132)
    yield case("one key head", 1, 1, 100_000, 128, 108)
    yield case("keys that tiles do not divide", 1, 2, 64 * 35 + 1, 64, 12)
    yield case("just enough", 2, 4, 4096, 64, 64)
    yield case("parts that do not divide the tiles", 1, 4, 640, 64, 12)
    yield case("any sizes", int(rng.integers(1, 6)), int(rng.integers(2, 9)), int(rng.integers(20_000, 60_000)), 64, int(rng.integers(100, 180)))


def _search(batch, kv_heads, tiles, processors, programs):
    for part in range(tiles, 1, -1):
        if programs(batch, kv_heads, tiles, part) >= processors:
            return part
    return 1


@wrong("You forget the batch: every sequence has programs of its own.")
def without_batch(batch, kv_heads, seq_k, block_k, processors):
    return tiles_per_part(1, kv_heads, seq_k, block_k, processors)


@wrong("You forget the key heads: every one of them has programs of its own.")
def without_heads(batch, kv_heads, seq_k, block_k, processors):
    return tiles_per_part(batch, 1, seq_k, block_k, processors)


@wrong("You return the number of parts; asked for is the number of tiles in one.")
def number_of_parts(batch, kv_heads, seq_k, block_k, processors):
    return -(-seq_k // block_k) // tiles_per_part(batch, kv_heads, seq_k, block_k, processors)


@wrong("You count keys; asked for is a number of tiles.")
def keys(batch, kv_heads, seq_k, block_k, processors):
    return block_k * tiles_per_part(batch, kv_heads, seq_k, block_k, processors)


@wrong("Larger parts may do. For each size of part count its parts rounded up: a last part with fewer tiles is a program, too.")
def last_part_forgotten(batch, kv_heads, seq_k, block_k, processors):
    return _search(batch, kv_heads, -(-seq_k // block_k), processors, lambda b, h, tiles, part: b * h * (tiles // part))


@wrong("The last, smaller tile is missing: round the number of tiles up.")
def last_tile_forgotten(batch, kv_heads, seq_k, block_k, processors):
    tiles = seq_k // block_k
    return _search(batch, kv_heads, tiles, processors, lambda b, h, tiles, part: b * h * -(-tiles // part))


@wrong("At least as many programs as processors: exactly as many is enough.")
def more_than(batch, kv_heads, seq_k, block_k, processors):
    return tiles_per_part(batch, kv_heads, seq_k, block_k, processors + 1)


@wrong("You divide the tiles by the parts that are needed, and round up. With so large parts there may be fewer of them than you planned: count again.")
def divided_and_rounded_up(batch, kv_heads, seq_k, block_k, processors):
    return math.ceil(-(-seq_k // block_k) / math.ceil(processors / (batch * kv_heads)))


@wrong("Where one part is enough for every processor, the keys are not cut at all: all tiles of a key head in one part.")
def always_cut(batch, kv_heads, seq_k, block_k, processors):
    return min(tiles_per_part(batch, kv_heads, seq_k, block_k, processors), max(1, -(-seq_k // block_k) // 2))


@observe
def how_many(case, got, want):
    batch, kv_heads, seq_k, block_k, processors = case.args
    tiles = len(range(0, seq_k, block_k))
    if not 1 <= got <= tiles:
        return f"There are {tiles} tiles; a part cannot have {got}."
    programs = batch * kv_heads * -(-tiles // int(got))
    if programs < processors and got > 1:
        return f"Parts of {got} of {tiles} tiles give {programs} programs for {processors} processors."
    return f"Parts of {got} of {tiles} tiles give {programs} programs for {processors} processors; larger ones are still enough." if got < want else None
