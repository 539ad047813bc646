"""Exercise: which tokens a rank holds, so that causal attention keeps all ranks equally busy."""

import numpy as np

from coursework import case, observe, wrong

TITLE = "Deal a text in zigzag"
CHAPTER = "24_many_devices"
POINTS = 3
TOLERANCE = (0, 0)
PROMPT = r"""
`ranks` devices share a text of `seq` tokens for causal attention. So that all have the same work, the text is cut into
2 · `ranks` stretches of equal length, and device number `rank`, counted from 0, holds two of them: the one that is `rank` stretches
from the beginning, and the one that is `rank` stretches from the end {cite}`grattafiori2024`. Write `zigzag_tokens(rank, ranks, seq)`,
which returns the positions of its tokens in the text, in ascending order, as an array of ints (seq / ranks,). 2 · `ranks` divides `seq`.
(Rotary embeddings of this device need exactly these numbers.)
"""


def zigzag_tokens(rank, ranks, seq):
    # BEGIN SOLUTION
    stretches = np.arange(seq).reshape(2 * ranks, -1)  # one a row
    return np.concatenate([stretches[rank], stretches[2 * ranks - 1 - rank]])
    # END SOLUTION


def cases(rng):
    def dealt(label, rank, ranks, size, edge=False):
        return case(label, rank, ranks, 2 * ranks * size, edge=edge, dims={"rank": rank, "ranks": ranks, "seq": 2 * ranks * size})

    size = int(rng.integers(3, 6))
    yield dealt("the first of four devices", 0, 4, size)
    yield dealt("a device in the middle", 2, 5, size + 1)
    yield dealt("the last device", 6, 7, size)
    yield dealt("many devices", int(rng.integers(20, 30)), 64, 2)
    yield dealt("one token a stretch", 1, 3, 1)
    yield dealt("one device alone", 0, 1, size)


@wrong("You give the device one stretch of neighbouring tokens. Under a causal mask the device with the end of the text then has most of the "
       "work: each device should hold something of the beginning and something of the end.")
def in_order(rank, ranks, seq):
    return np.arange(seq).reshape(ranks, -1)[rank]


@wrong("You deal tokens like cards, every `ranks`-th one. That nearly balances, and is called striped; here each device holds two stretches of "
       "neighbouring tokens.")
def striped(rank, ranks, seq):
    return np.arange(rank, seq, ranks)


@wrong("Your second stretch is one too late: the last of 2 · ranks stretches has the number 2 · ranks - 1, and belongs to device 0.")
def one_too_late(rank, ranks, seq):
    stretches = np.arange(seq).reshape(2 * ranks, -1)
    return np.concatenate([stretches[rank], stretches[(2 * ranks - rank) % (2 * ranks)]])


@wrong("Your second stretch is counted from the middle, not from the end: device 0, which has the least to do at the beginning, must get the "
       "very last stretch.")
def from_the_middle(rank, ranks, seq):
    stretches = np.arange(seq).reshape(2 * ranks, -1)
    return np.concatenate([stretches[rank], stretches[ranks + rank]])


@wrong("The right tokens, and the second stretch runs backwards. Positions are asked for in ascending order.")
def backwards(rank, ranks, seq):
    stretches = np.arange(seq).reshape(2 * ranks, -1)
    return np.concatenate([stretches[rank], stretches[2 * ranks - 1 - rank][::-1]])


@wrong("The right tokens, with the late stretch first. Positions are asked for in ascending order.")
def late_first(rank, ranks, seq):
    stretches = np.arange(seq).reshape(2 * ranks, -1)
    return np.concatenate([stretches[2 * ranks - 1 - rank], stretches[rank]])


@wrong("Your stretches are twice too long: the text is cut into 2 · ranks of them, and the device should hold seq / ranks tokens in all.")
def too_long(rank, ranks, seq):
    stretches = np.arange(seq).reshape(ranks, -1)
    return np.concatenate([stretches[rank], stretches[ranks - 1 - rank]])


@wrong("You return the first stretch alone. Which one does the device get from the end?")
def first_only(rank, ranks, seq):
    return np.arange(seq).reshape(2 * ranks, -1)[rank]


@wrong("You return the numbers of the two stretches. The positions of the tokens in them are asked for.")
def numbers_of_stretches(rank, ranks, seq):
    return np.array([rank, 2 * ranks - 1 - rank])


@observe
def another_device(case, got, want):
    rank, ranks, seq = case.args
    size = seq // (2 * ranks)
    other, offset = divmod(int(got[0]), size)
    if other != rank and other < ranks and offset == 0 and int(got[-1]) == seq - 1 - other * size:
        return f"These are the tokens of device {other}, and device {rank} of {ranks} was asked for. Devices are counted from 0."


@observe
def shifted(case, got, want):
    if len(set((got - want).tolist())) == 1 and got[0] != want[0]:
        return f"Every position is off by {int(got[0] - want[0])}. The first token of the text has position 0."


@observe
def same_tokens(case, got, want):
    if sorted(got.tolist()) == want.tolist():
        return "These are the right tokens, in another order: ascending is asked for."


@observe
def outside(case, got, want):
    beyond = [int(each) for each in got if not 0 <= each < case.args[2]]
    if beyond:
        return f"Position {beyond[0]} does not exist: the text has {case.args[2]} tokens, 0 to {case.args[2] - 1}."
