"""Exercise: what a streaming cache keeps, and at which positions it says that it stands."""

import itertools

import numpy as np

from coursework import case, observe, wrong
from coursework.running import Noticed

TITLE = "What a streaming cache remembers"
CHAPTER = "18_memory"
POINTS, EDGE_POINTS = 3, 1
RETURNS = ("kept", "positions")
PROMPT = r"""
A streaming cache {cite}`xiao2023` keeps of a text, however long, the first `sinks` tokens and the last `window` tokens, the newest among them. Write
`streaming_positions(length, sinks, window)` for a cache that has been fed `length` tokens, numbered from 0. Return two whole-number arrays of the same
length, `(kept, positions)`: the numbers of the tokens that are in the cache, in the order of the text and each of them once; and the positions
that its keys are rotated by, which count **in the cache**, from 0 for its oldest key, not in the text. `sinks` is at least 0,
`window` at least 1; as long as there is room for all tokens, all are kept.
"""


def streaming_positions(length, sinks, window):
    # BEGIN SOLUTION
    first = np.arange(min(sinks, length))
    last = np.arange(max(sinks, length - window), length)  # may be empty
    kept = np.concatenate([first, last])
    return kept, np.arange(len(kept))
    # END SOLUTION


def drive(f, length, sinks, window):
    """The two lists as text, so that lists of other lengths can be talked about; lists will do for arrays."""
    got = f(length, sinks, window)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Noticed("two results are asked for, separated by a comma: the tokens that are kept, and their positions.")
    for name, part in zip(("kept", "positions"), got, strict=True):
        if np.ndim(part) != 1 or (len(part) and np.asarray(part).dtype.kind not in "iu"):
            raise Noticed(f"`{name}` is to be an array of whole numbers with one axis; yours is {_kind(part)}.")
    return tuple(" ".join(str(int(n)) for n in part) for part in got)


def _kind(part):
    if isinstance(part, np.ndarray):
        return f"an array of {part.dtype} with {part.ndim} ax{'is' if part.ndim == 1 else 'es'}"
    return f"a {type(part).__name__}"


def cases(rng):
    def fed(label, sinks, window, length, edge=False):
        return case(label, length, sinks, window, edge=edge, dims={"length": length, "sinks": sinks, "window": window})

    sinks, window = int(rng.integers(2, 5)), int(rng.integers(6, 10))
    full = sinks + window
    yield fed("a long text", sinks, window, int(rng.integers(40, 90)))
    yield fed("a few tokens more than there is room for", sinks, window, full + 3)
    yield fed("one token more than there is room for", sinks, window, full + 1)
    yield fed("exactly as many tokens as there is room for", sinks, window, full)
    yield fed("more tokens than the window, and still room for all", sinks, window, full - 1)
    yield fed("fewer tokens than sinks and window each", sinks, window, 1)
    yield fed("a cache larger in sinks than in recent tokens", window, sinks, int(rng.integers(40, 90)))
    yield fed("no sinks: a plain window", 0, window, int(rng.integers(40, 90)), edge=True)
    yield fed("no token yet", sinks, window, 0, edge=True)


def _cache(kept):
    return kept, np.arange(len(kept))


@wrong("`kept` is right. Your positions are those in the text, and they grow without end; a model that has only seen short texts is lost there. The keys count "
       "in the cache.")
def positions_in_the_text(*args):
    kept, _ = streaming_positions(*args)
    return kept, kept.copy()


@wrong("Right once the text is long. Before that your window reaches back into the sinks, and these tokens are kept twice.")
def sinks_twice(length, sinks, window):
    return _cache(np.concatenate([np.arange(min(sinks, length)), np.arange(max(0, length - window), length)]))


@wrong("Your window is `window` tokens with the sinks among them. The sinks come on top: there is room for sinks + window.")
def window_counts_the_sinks(length, sinks, window):
    return streaming_positions(length, sinks, max(window - sinks, 0))


@wrong("Your window has one token too many: the newest token is one of the last `window`.")
def window_without_the_newest(length, sinks, window):
    return streaming_positions(length, sinks, window + 1)


@wrong("Your window has one token too few.")
def window_too_short(length, sinks, window):
    return streaming_positions(length, sinks, window - 1)


@wrong("The newest token is missing from your cache: tokens count from 0, so the last of `length` has the number length - 1.")
def without_the_newest(length, sinks, window):
    kept, _ = streaming_positions(length, sinks, window)
    return _cache(kept[kept < length - 1])


@wrong("Your cache holds a window and nothing else. The first tokens are to stay: that is what keeps such a model stable.")
def no_sinks(length, sinks, window):
    return streaming_positions(length, 0, window)


@wrong("Your cache is filled once and never lets go: it keeps the beginning of the text. After the sinks it is the last tokens that stay.")
def keeps_the_beginning(length, sinks, window):
    return _cache(np.arange(min(length, sinks + window)))


@wrong("Before there are `sinks` tokens, yours keeps some that nobody has fed yet.")
def tokens_not_fed(length, sinks, window):
    return _cache(np.unique(np.r_[:sinks, max(0, length - window):length]))


@wrong("Your positions run backwards, as distances from the newest token. The oldest key has position 0.")
def distances(*args):
    kept, positions = streaming_positions(*args)
    return kept, positions[::-1].copy()


@wrong("`kept` is right. Your positions are the places of a ring buffer, where the newest key may stand before older ones. They are to follow the order of "
       "the text.")
def places_in_a_ring(length, sinks, window):
    kept, _ = streaming_positions(length, sinks, window)
    return kept, np.where(kept < sinks, kept, sinks + (kept - sinks) % window)


@wrong("`kept` is right. Your positions count from 1.")
def from_one(*args):
    kept, positions = streaming_positions(*args)
    return kept, positions + 1


@wrong("`kept` is right. Your positions are counted from the end of the text, so that the oldest key has not position 0 once tokens have been let go.")
def end_in_the_text(length, sinks, window):
    kept, positions = streaming_positions(length, sinks, window)
    return kept, positions + length - len(kept)


@wrong("The two results are in the wrong order: the tokens kept first, then their positions.")
def wrong_order(*args):
    return streaming_positions(*args)[::-1]


def _numbers(text):
    return [int(n) for n in text.split()]


def _fed(case):
    return "(length = {}, sinks = {}, window = {})".format(*case.args)


@observe
def what_is_kept(case, got, want):
    if got[0] != want[0]:
        return _about_kept(_numbers(got[0]), _numbers(want[0]), *case.args, _fed(case))


@observe
def positions(case, got, want):
    if got[0] != want[0] or got[1] == want[1]:
        return None
    kept, mine, fed = _numbers(got[0]), _numbers(got[1]), _fed(case)
    if len(mine) != len(kept):
        return f"Your cache holds {len(kept)} tokens, which is right, and has {len(mine)} positions for them {fed}."
    if mine[0] != 0:
        return f"`kept` is right. The oldest key of the cache has position 0; yours has {mine[0]} {fed}."
    at = next(i for i, (a, b) in enumerate(itertools.pairwise(mine)) if b - a != 1)
    return (f"`kept` is right. From token {kept[at]} to token {kept[at + 1]}, its neighbour in the cache, your position goes from {mine[at]} to "
            f"{mine[at + 1]} {fed}.")


def _about_kept(kept, right, length, sinks, window, fed):
    lost, odd = sorted(set(right) - set(kept)), sorted(set(kept) - set(right))
    count = f"your cache holds {len(kept)} token{'s' * (len(kept) != 1)}, and there is room for {sinks + window}"
    twice = [n for n in kept if kept.count(n) > 1]
    if twice:
        return f"Token {twice[0]} is in your cache more than once {fed}."
    unfed = [n for n in odd if not 0 <= n < length]
    if unfed:
        return f"Your cache holds token {unfed[-1]}; those fed so far are {f'0 to {length - 1}' if length else 'none'} {fed}."
    if not lost and not odd:
        return f"You keep the right tokens, not in the order of the text: {_few(kept)} {fed}."
    if lost and odd:
        return f"Your cache lacks {_few(lost)} and holds {_few(odd)} instead {fed}."
    if odd:
        return f"Your cache holds {_few(odd)} as well, which should have been let go: {count} {fed}."
    which = "sinks" if lost[-1] < sinks else "recent tokens" if lost[0] >= sinks else "sinks and recent tokens"
    return f"Your cache lacks {_few(lost)}, {which}: {count} {fed}."


def _few(numbers):
    return f"token {numbers[0]}" if len(numbers) == 1 else f"tokens {', '.join(map(str, numbers[:4]))}{' …' if len(numbers) > 4 else ''}"
