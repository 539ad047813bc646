"""Exercise: the mask for a batch of sequences of unequal length, for a first problem set."""

import numpy as np

from coursework import Variant, case, observe, sizes, wrong

TITLE = "Nobody looks at padding"
CHAPTER = ""
POINTS, EDGE_POINTS = 3, 1
PROMPT = r"""
A batch holds sequences of unequal length, filled up **at the end** to seq_k tokens. Write `padding_mask(lengths, seq_k)`: `lengths` (batch,)
are whole numbers from 0 to seq_k, how many tokens of each sequence are real. Return a boolean array (batch, 1, 1, seq_k), `True` where a key
is real and may be attended to. The two axes of length 1 let it broadcast to scores (batch, heads, seq_q, seq_k): padding **keys** are
hidden from every head and every query; padding queries are left alone.
"""

VARIANTS = {"padding_first": Variant(
    "the padding stands **before** the real tokens, so that the last key of every sequence is real (unless its length is 0).",
    result=lambda mask: np.ascontiguousarray(mask[..., ::-1]),
    hint="Your first keys are the real ones: padding stands at the end, as in the book. Here it stands before the real tokens.")}


def padding_mask(lengths, seq_k):
    # BEGIN SOLUTION
    real = np.arange(seq_k) < lengths[:, None]  # (batch, seq_k)
    return real[:, None, None, :]               # (batch, 1, 1, seq_k)
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "batch seq_k", 4, 9)
    lengths = rng.integers(1, s.seq_k - 1, size=s.batch)
    lengths[:2] = 1, s.seq_k - 2
    yield case("sequences of unequal length", rng.permutation(lengths), s.seq_k, dims=s)
    full = rng.permutation(lengths)
    full[int(rng.integers(s.batch))] = s.seq_k
    yield case("a sequence without padding", full, s.seq_k, dims=s)
    yield case("one sequence", rng.integers(2, s.seq_k - 1, size=1), s.seq_k, dims={"seq_k": s.seq_k})
    yield case("as many sequences as keys", rng.permutation(np.arange(1, s.seq_k + 1)), s.seq_k, dims={"seq_k": s.seq_k})
    yield case("sequences of one token", np.ones(s.batch, dtype=int), 1, dims={"batch": s.batch})
    empty = rng.permutation(lengths)
    empty[int(rng.integers(s.batch))] = 0
    yield case("a sequence of length 0", empty, s.seq_k, edge=True, dims=s)


@wrong("One padding token of every sequence counts as real (unless there is none). A sequence of length 3 shows 3 keys.")
def one_too_many(lengths, seq_k):
    return (np.arange(seq_k) <= lengths[:, None])[:, None, None, :]


@wrong("One real token of every sequence is hidden. A sequence of length 3 shows 3 keys.")
def one_too_few(lengths, seq_k):
    return (np.arange(seq_k) < lengths[:, None] - 1)[:, None, None, :]


@wrong("Yours is `True` exactly for the padding. Some libraries mark what is to be **ignored**; here `True` says that a key may be attended "
       "to.")
def marks_the_padding(lengths, seq_k):
    return ~padding_mask(lengths, seq_k)


@wrong("The right number of keys is hidden in each sequence, at the wrong end: on which side of the real tokens does the padding stand?")
def other_side(lengths, seq_k):
    return padding_mask(lengths, seq_k)[..., ::-1]


@wrong("The mask has two axes, (batch, seq_k). Against scores (batch, heads, seq_q, seq_k) NumPy would line its batch up with seq_q: the "
       "axes for heads and queries have to be there, with length 1.")
def two_axes(lengths, seq_k):
    return padding_mask(lengths, seq_k)[:, 0, 0]


@wrong("One axis is missing: with shape (batch, 1, seq_k) NumPy would line your batch up with the heads. Count the axes of the scores.")
def three_axes(lengths, seq_k):
    return padding_mask(lengths, seq_k)[:, 0]


@wrong("Your mask is as wide as the longest sequence of the batch. The batch is padded to seq_k, and the mask has to cover all of it.")
def as_wide_as_the_longest(lengths, seq_k):
    return padding_mask(lengths, int(lengths.max()))


@wrong("You return 0 and -inf, numbers to be added to the scores. That works as well, but here booleans are asked for: `True` where a key is "
       "real.")
def additive(lengths, seq_k):
    return np.where(padding_mask(lengths, seq_k), 0.0, -np.inf)


@wrong("The places are right, and yours holds the numbers 0 and 1. Which dtype is asked for?")
def zeros_and_ones(lengths, seq_k):
    return padding_mask(lengths, seq_k).astype(int)


@wrong("Padding **queries** are hidden too: your mask has a row per query, and rows without any key. Results of padding queries are thrown "
       "away; hiding the keys is enough.")
def queries_too(lengths, seq_k):
    real = padding_mask(lengths, seq_k)
    return real & real.swapaxes(-1, -2)


@wrong("Every sequence gets the same mask, that of the longest (or as if it were): the keys beyond its own end are still visible in a shorter "
       "one.")
def same_for_all(lengths, seq_k):
    return padding_mask(np.full_like(lengths, lengths.max()), seq_k)


@observe
def not_a_beginning(case, got, want):
    if got.dtype.kind != "b":
        return None
    rows = got[:, 0, 0]
    gaps = (rows[:, 1:] & ~rows[:, :-1]).any(axis=1)
    if gaps.any():
        i = int(np.argmax(gaps))
        return (f"For sequence {i}, of length {case.args[0][i]}, your visible keys are {np.flatnonzero(rows[i]).tolist()}. Real tokens come "
                "first, without gaps.")


@observe
def another_sequence(case, got, want):
    if got.dtype.kind != "b":
        return None
    lengths, counts = case.args[0], got.sum(axis=-1).ravel()
    if len(lengths) > 2 and (counts != lengths).any():
        if (counts == counts[0]).all():
            return f"All your sequences have {counts[0]} visible keys, though the lengths are {lengths.tolist()}."
        if sorted(counts) == sorted(lengths):
            return f"Your sequences have {counts.tolist()} visible keys, the lengths are {lengths.tolist()}: right numbers, wrong order."


@observe
def count_of_keys(case, got, want):
    if got.dtype.kind != "b":
        return None
    lengths, counts = case.args[0], got.sum(axis=-1).ravel()
    off = counts - lengths
    inner = lengths < case.args[1]
    if len(lengths) > 1 and off.any():
        if inner.any() and (off[inner] == off[inner][0]).all() and off[inner][0]:
            n = abs(off[inner][0])
            return f"Every sequence that has padding shows {n} key{'s' if n > 1 else ''} too {'many' if off[inner][0] > 0 else 'few'}."
        if (off != 0).sum() == 1:
            i = int(np.argmax(off != 0))
            return f"Your mask is right but for sequence {i}, of length {lengths[i]}: it shows {counts[i]} keys."
    if off.any():
        i = int(np.argmax(off != 0))
        return f"Your sequence {i} shows {counts[i]} of {case.args[1]} keys; its length is {lengths[i]}."
