"""What exercises on exact counts share: sizes that are different primes, and factors that are missing or too many."""

import itertools
import types

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43)


def primes(rng, names: str) -> types.SimpleNamespace:
    """Draw a different prime for every name: a factor that is missing in a product then has only one name."""
    words = names.split()
    drawn = rng.choice(PRIMES, size=len(words), replace=False)
    return types.SimpleNamespace(**{word: int(size) for word, size in zip(words, drawn, strict=True)})


def factor(got: int, want: int, dims: dict) -> str | None:
    """Say by which factor a count is wrong, if it is one or two of the sizes and a small power of 2: "lacks the factor seq_k".

    Parameters
    ----------
    got, want : int
        Two counts.
    dims : dict of str to int
        Names and sizes.

    Returns
    -------
    str or None
        How `got` is to be described; None if there is no such factor, or nothing is wrong.
    """
    if got <= 0 or want <= 0 or got == want:
        return None
    candidates = [{}]
    for count in (1, 2):
        for names in itertools.combinations(dims, count):
            for powers in itertools.product((1, -1, 2, -2), repeat=count):
                candidates.append(dict(zip(names, powers, strict=True)))
    for powers in candidates:
        over = under = 1
        for name, power in powers.items():
            over, under = (over * dims[name]**power, under) if power > 0 else (over, under * dims[name]**-power)
        for two in (1, 2, 4, 8, 16):
            for up, down in ((two, 1), (1, two)):
                if got * under * down == want * over * up:
                    return _words(powers, up, down, dims)
    return None


def _words(powers: dict, up: int, down: int, dims: dict) -> str:
    extra = [f"{n}{'²' * (p == 2)}" for n, p in powers.items() if p > 0] + [str(up)] * (up > 1)
    lacking = [f"{n}{'²' * (p == -2)}" for n, p in powers.items() if p < 0] + [str(down)] * (down > 1)
    said = []
    if extra:
        said.append("has " + " · ".join(extra) + " too often as a factor")
    if lacking:
        said.append("lacks the factor " + " · ".join(lacking))
    used = [f"{n} = {dims[n]}" for n in powers]
    return " and ".join(said) + (f" ({', '.join(used)})" if used else "")
