"""Exercise: how many tiles causal attention has to compute."""

from coursework import case, observe, wrong

TITLE = "Which tiles are left?"
CHAPTER = "20_flash"
POINTS = 4
PROMPT = r"""
Attention of `seq_q` queries to `seq_k` keys is computed in tiles of `tile_q` queries by `tile_k` keys, beginning at the first query and the first key; the last tiles of a
row or column may be smaller. It is causal, aligned to the end: query i sees the keys up to i + `seq_k` − `seq_q`, the last query sees the last key. Write
`tiles_computed(seq_q, seq_k, tile_q, tile_k)`, the number of tiles in which at least one query sees at least one key: those that have to be computed {cite}`dao2022`. (Python ints;
where `seq_q` is larger than `seq_k`, the first queries see nothing.)
"""


def tiles_computed(seq_q, seq_k, tile_q, tile_k):
    # BEGIN SOLUTION
    count = 0
    for start in range(0, seq_q, tile_q):
        last_query = min(start + tile_q, seq_q) - 1  # sees most of its tile
        keys = max(0, last_query + 1 + seq_k - seq_q)  # how many
        count += -(-keys // tile_k)
    return count
    # END SOLUTION


def cases(rng):
    yield case("whole tiles", 64, 64, 16, 16)
    yield case("tiles wider than high", 96, 96, 16, 32)
    yield case("tiles higher than wide", 96, 96, 32, 8)
    yield case("lengths that no tile divides", 107, 107, 16, 24)
    yield case("more keys than queries", 40, 100, 16, 16)
    yield case("one query", 1, 77, 8, 16)
    yield case("more queries than keys", 100, 40, 16, 16)
    yield case("one tile for all", 30, 30, 64, 64)
    yield case("tiles of one pair", 9, 9, 1, 1)
    yield case("other sizes", *(int(each) for each in rng.integers(40, 120, 2)), 16, 8)


def _count(seq_q, seq_k, tile_q, tile_k, seen):
    tiles = 0
    for first in range(0, seq_q, tile_q):
        for start in range(0, seq_k, tile_k):
            tiles += any(seen(i, j) for i in range(first, min(first + tile_q, seq_q)) for j in range(start, min(start + tile_k, seq_k)))
    return tiles


@wrong("You count all tiles, those in the future too: nobody sees anything there, and they are skipped.")
def all_tiles(seq_q, seq_k, tile_q, tile_k):
    return -(-seq_q // tile_q) * -(-seq_k // tile_k)


@wrong("You align the diagonal to the start: with more keys than queries, as in decoding, the last query sees the last key.")
def from_the_start(seq_q, seq_k, tile_q, tile_k):
    return _count(seq_q, seq_k, tile_q, tile_k, lambda i, j: j <= i)


@wrong("You leave out the tiles on the diagonal, which hold seen and unseen pairs: they have to be computed, and masked.")
def without_the_diagonal(seq_q, seq_k, tile_q, tile_k):
    whole = 0
    for first in range(0, seq_q, tile_q):
        whole += max(0, min(seq_k, first + 1 + seq_k - seq_q)) // tile_k
    return whole


@wrong("You look at the first query of each row of tiles. The last one sees more, and if it sees anything the tile is computed.")
def by_the_first_query(seq_q, seq_k, tile_q, tile_k):
    return sum(-(-max(0, first + 1 + seq_k - seq_q) // tile_k) for first in range(0, seq_q, tile_q))


@wrong("You take half of all tiles. The diagonal makes it more than half, and lengths that differ make it something else.")
def half(seq_q, seq_k, tile_q, tile_k):
    return -(-seq_q // tile_q) * -(-seq_k // tile_k) // 2


@wrong("You count pairs and divide by the size of a tile: a tile with a single seen pair is computed whole.")
def pairs_over_size(seq_q, seq_k, tile_q, tile_k):
    pairs = sum(max(0, min(seq_k, i + 1 + seq_k - seq_q)) for i in range(seq_q))
    return -(-pairs // (tile_q * tile_k))


@wrong("Query i does not see itself in your count: it sees the keys up to i + seq_k − seq_q, that one included.")
def not_itself(seq_q, seq_k, tile_q, tile_k):
    return _count(seq_q, seq_k, tile_q, tile_k, lambda i, j: j < i + seq_k - seq_q)


@wrong("Height and width of a tile are exchanged.")
def exchanged(seq_q, seq_k, tile_q, tile_k):
    return _count(seq_q, seq_k, tile_k, tile_q, lambda i, j: j <= i + seq_k - seq_q)


@wrong("The last, smaller tiles are missing: a rest of queries or keys is a tile too.")
def whole_tiles_only(seq_q, seq_k, tile_q, tile_k):
    return sum(max(0, first + tile_q + seq_k - seq_q) // tile_k for first in range(0, seq_q - tile_q + 1, tile_q))


@observe
def by_how_many(case, got, want):
    seq_q, seq_k, tile_q, tile_k = case.args
    if isinstance(got, int):
        return (f"For {seq_q} queries and {seq_k} keys in tiles of {tile_q} by {tile_k} you get {got}, {abs(got - want)} too "
                f"{'many' if got > want else 'few'}.")
    return None
