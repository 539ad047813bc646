"""Exercise: the mask of several documents packed into one sequence, as a predicate that can be asked about any positions."""

import numpy as np

from coursework import case, observe, wrong

TITLE = "Several documents in one row"
CHAPTER = "03_scores"
POINTS, EDGE_POINTS = 3, 1
PROMPT = r"""
To waste no padding, training often packs several documents into one sequence. `document` is an array of ints, and `document[i]` is the number
of the document that position `i` belongs to. Write `same_document(document)`, which returns a **predicate**: a function of two positions
`q_idx` and `k_idx` that is `True` where query and key are of the same document. Positions are ints or arrays of ints, which broadcast: a column
of queries with a row of keys gives one row of booleans for each query. It has to work for **any** positions it is asked about, not only for the
whole square.
"""


def same_document(document):
    # BEGIN SOLUTION
    def predicate(q_idx, k_idx):
        return document[q_idx] == document[k_idx]  # looked up: any positions will do
    return predicate
    # END SOLUTION


def drive(f, document, q_idx, k_idx):
    predicate = f(document)
    if not callable(predicate):
        raise TypeError(f"same_document(document) returns a {type(predicate).__name__}, expected a function of q_idx and k_idx")
    return predicate(q_idx, k_idx)


def _packed(rng, sizes):
    """Documents one after the other, each of its own length; some of their numbers follow each other, some do not."""
    return np.repeat(rng.integers(2, 5) + np.cumsum([0, *rng.permutation([1, 1, 2, 3])])[:len(sizes)], sizes)


def _square(seq):
    return np.arange(seq)[:, None], np.arange(seq)[None, :]


def cases(rng):
    sizes = rng.permutation([1, 2, 3, 4])
    document = _packed(rng, [*sizes, 2])
    seq = len(document)
    yield case("the whole square", document, *_square(seq), dims={"seq": seq})
    edges = np.cumsum(sizes)
    yield case("a single pair, of one document", document, seq - 1, seq - 2)
    yield case("a single pair, of two documents", document, int(edges[1]), int(edges[1]) - 1)
    new = int(rng.integers(3, 6))
    yield case("the last queries and all keys, as with a cache", document, np.arange(seq - new, seq)[:, None], np.arange(seq)[None, :],
               dims={"new": new, "seq": seq})
    some_q = rng.permutation(seq)[:new + 1]
    some_k = rng.permutation(seq)[:new + 3]
    yield case("some queries and some keys, in any order", document, some_q[:, None], some_k[None, :],
               dims={"seq_q": new + 1, "seq_k": new + 3})
    yield case("pairs, one key for each query", document, rng.permutation(seq), rng.permutation(seq), dims={"seq": seq})
    mixed = rng.permutation(np.repeat([4, 0, 7], [3, 4, 5]))
    mixed[-2:] = mixed[0]
    yield case("documents that take turns", mixed, *_square(12), edge=True, dims={"seq": 12})
    yield case("a sequence of one document", np.full(7, 3), *_square(7), edge=True, dims={"seq": 7})


@wrong("You return the whole square, whichever positions are asked about. For one pair, one answer; for two queries, two rows: look up the "
       "documents of `q_idx` and `k_idx` when the predicate is called.")
def whole_square(document):
    return lambda q_idx, k_idx: document[:, None] == document[None, :]


@wrong("You compare the positions with each other, so a token sees only itself. It is the documents at these positions that have to agree.")
def compares_positions(document):
    return lambda q_idx, k_idx: np.asarray(q_idx == k_idx)


@wrong("Yours is `True` where query and key are of **different** documents. `True` means may attend.")
def other_documents(document):
    return lambda q_idx, k_idx: document[q_idx] != document[k_idx]


@wrong("You allow only keys up to the query's own position. That is the causal mask; it can be combined with this one, but the question here "
       "is about documents alone.")
def causal_too(document):
    return lambda q_idx, k_idx: (document[q_idx] == document[k_idx]) & (k_idx <= q_idx)


@wrong("A query sees its own document and all earlier ones: you compare the numbers of the documents with `<=`. They have to be equal.")
def earlier_documents_too(document):
    return lambda q_idx, k_idx: document[k_idx] <= document[q_idx]


@wrong("You return the number of the document where the two agree. Asked for is whether they do: booleans.")
def numbers(document):
    return lambda q_idx, k_idx: np.where(document[q_idx] == document[k_idx], document[q_idx], 0)


@wrong("You compare `document` with the positions themselves: `q_idx` is a place in `document`, not the number of a document.")
def takes_positions_for_documents(document):
    return lambda q_idx, k_idx: np.isin(q_idx, document) & (document[k_idx] == q_idx)


@wrong("You return one truth value for all pairs together. Each pair has an answer of its own: leave `==` between arrays as it is.")
def one_answer(document):
    return lambda q_idx, k_idx: bool(np.all(document[q_idx] == document[k_idx]))


@wrong("Right for positions that start at 0. You take the **shape** of what is asked, not the positions: the last two queries of a sequence "
       "get the rows of the first two.")
def counts_rows(document):
    def predicate(q_idx, k_idx):
        q = np.arange(np.size(q_idx)).reshape(np.shape(q_idx))
        k = np.arange(np.size(k_idx)).reshape(np.shape(k_idx))
        return document[q] == document[k]
    return predicate


@wrong("Right where a document is one stretch. You ask whether a new document begins between the two positions; a document may come back, and "
       "then its parts still belong together.")
def stretches(document):
    run = np.cumsum(np.r_[0, np.diff(document) != 0])
    return lambda q_idx, k_idx: run[q_idx] == run[k_idx]


@wrong("Each position sees itself and its two neighbours where these are of its document: you look at adjacent positions only. Any two "
       "positions of one document see each other.")
def neighbours_only(document):
    return lambda q_idx, k_idx: (document[q_idx] == document[k_idx]) & (np.abs(q_idx - k_idx) <= 1)


@wrong("You give a matrix of all queries with all keys, whatever is asked. For two ints one answer is expected, for two equally long arrays "
       "one for each pair: what does `==` between two looked-up arrays do by itself?")
def always_a_matrix(document):
    return lambda q_idx, k_idx: np.array([[document[i] == document[j] for j in np.ravel(k_idx)] for i in np.ravel(q_idx)])


@wrong("You return numbers, 0 and 1. A mask of numbers cannot be combined with `~` as booleans can: leave what `==` gives as it is.")
def zeros_and_ones(document):
    return lambda q_idx, k_idx: (document[q_idx] == document[k_idx]).astype(int)


@wrong("You return 0 and -inf, numbers to be added to the scores. Here booleans are asked for: `True` where a query may attend.")
def additive(document):
    return lambda q_idx, k_idx: np.where(document[q_idx] == document[k_idx], 0.0, -np.inf)


def _pair(case, where):
    """The first marked pair in words: positions and documents."""
    document, q_idx, k_idx = case.args
    q, k = np.broadcast_arrays(q_idx, k_idx)
    at = tuple(np.argwhere(where)[0])
    i, j = int(q[at]), int(k[at])
    return i, j, int(document[i]), int(document[j])


@observe
def by_place_asked(case, got, want):
    document, q_idx, _ = case.args
    got = np.asarray(got)
    if got.dtype.kind != "b" or got.ndim != 2 or np.ndim(q_idx) != 2 or (q_idx[:, 0] == np.arange(len(q_idx))).all():
        return None
    first = document[:got.shape[0], None] == document[None, :got.shape[1]]
    if (got == first).all() and (got != want).any():
        return (f"Asked about queries {q_idx[:, 0].tolist()}, you give the rows of queries 0 to {len(got) - 1}.")


@observe
def always_the_same(case, got, want):
    got = np.asarray(got)
    if got.dtype.kind == "b" and got.size > 1 and (got == got.flat[0]).all() and not np.all(want == got):
        return f"You say {got.flat[0]} of all {got.size} pairs. Of {int(np.sum(want))} it is true that both are of one document."


@observe
def missed(case, got, want):
    got = np.asarray(got)
    if got.dtype.kind != "b" or not (want & ~got).any():
        return None
    i, j, one, _ = _pair(case, want & ~got)
    document = case.args[0]
    between = document[min(i, j): max(i, j) + 1]
    more = " Positions of other documents lie between them." if (between != one).any() else ""
    return f"You say False of query {i} and key {j}. Both are of document {one}.{more}"


@observe
def invented(case, got, want):
    got = np.asarray(got)
    if got.dtype.kind != "b" or not (got & ~want).any():
        return None
    i, j, one, other = _pair(case, got & ~want)
    return f"You say True of query {i} and key {j}. Position {i} is of document {one}, position {j} of document {other}."
