"""CPU time of functions measured in turns, their ratios, and the exponent of a power law."""

import contextlib
import gc
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from attnlib._shapes import takes

__all__ = ["Slope", "Spread", "Times", "cpu_times", "matmul_rate", "medians", "multiples", "ratios", "slope"]

MATMUL = "matmul"                                            # the name of the yardstick among the calls
LONG = 10                                                    # seconds; beyond this a progress bar is welcome


class Spread(NamedTuple):
    """A median and the quartiles around it.

    Attributes
    ----------
    median, low, high : float
        Half of the values lie between `low` and `high`, half of them below `median`.
    """

    median: float
    low: float
    high: float


class Slope(NamedTuple):
    """The exponent of a power law, fitted.

    Attributes
    ----------
    exponent : float
        p in value ∝ size^p.
    error : float
        Its standard error; NaN for two points, which always lie on a line.
    """

    exponent: float
    error: float


class Times(dict):
    """CPU seconds of one call, by name: a list with one entry for each round.

    Attributes
    ----------
    loops : dict of str to int
        How often each call was repeated within one measurement, to be long enough for the clock.
    matmul_flops : int
        FLOPs of the matrix product timed under the name ``"matmul"``; 0 if there was none.
    """

    def __init__(self, seconds: dict[str, list[float]], loops: dict[str, int], matmul_flops: int = 0):
        super().__init__(seconds)
        self.loops, self.matmul_flops = loops, matmul_flops


@takes(repeats="positive", warmup="count", matmul="positive", at_least="above 0", budget="above 0")
def cpu_times(
    calls: dict[str, Callable[[], Any]], repeats: int = 7, warmup: int = 1, *, matmul: int | None = None,
    at_least: float = 0.01, budget: float | None = None, progress: bool | None = None, seed: int = 0,
    clock: Callable[[], float] = time.process_time,
) -> Times:
    """Time several functions against each other: every round calls each of them once, in a new order.

    Runs on one torch thread with the garbage collector off, and puts both back as they were.

    Parameters
    ----------
    calls : dict of str to function
        Functions without arguments.
    repeats : int
        Rounds.
    warmup : int
        Calls of each function before anything is timed.
    matmul : int, optional
        Also time the product of two float32 matrices of this size, as ``"matmul"``: the yardstick of
        `matmul_rate` and `multiples`.
    at_least : float
        Seconds that one measurement must last: shorter calls are repeated within it.
    budget : float, optional
        CPU seconds after which no further round begins. At least three rounds are made (fewer if `repeats` is less).
    progress : bool, optional
        Whether to show a bar; by default one appears after ten seconds, if a terminal is there to see it.
    seed : int
        Of the generator that draws the orders.
    clock : function
        Returns seconds.

    Returns
    -------
    Times

    Raises
    ------
    ValueError, TypeError
        If there is nothing to call, an entry is no function, a call is named ``"matmul"`` beside the yardstick,
        or a number is out of range.
    """
    _check_calls(calls, matmul)
    if matmul is not None:
        calls = {**calls, MATMUL: _matmul(matmul)}
    names, order = list(calls), random.Random(seed)
    seconds = {name: [] for name in names}
    with one_thread(), no_garbage_collection():
        for name in names * warmup:
            calls[name]()
        loops = {name: _loops(calls[name], clock, at_least) for name in names}
        began = clock()
        for done in _rounds(repeats, progress):
            if budget is not None and done >= 3 and clock() - began > budget:
                break
            gc.collect(1)                                    # what the last round left, and only that
            order.shuffle(names)
            for name in names:
                seconds[name].append(_spent(calls[name], loops[name], clock) / loops[name])
    return Times({name: seconds[name] for name in calls}, loops, 2 * (matmul or 0) ** 3)


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """The median over rounds of each call's seconds.

    Parameters
    ----------
    times : Times
        From `cpu_times`.

    Returns
    -------
    dict of str to float
        CPU seconds.
    """
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def ratios(times: dict[str, list[float]], to: str) -> dict[str, Spread]:
    """How many times longer each call takes than one of them, compared round by round.

    Parameters
    ----------
    times : Times
        From `cpu_times`.
    to : str
        The call that all are divided by.

    Returns
    -------
    dict of str to Spread
        For each call (with 1 for `to` itself) the median and quartiles of its ratios within a round.

    Raises
    ------
    ValueError
        If nothing of the name `to` was timed.
    """
    _check_known("ratios", "to", to, times)
    return {name: _spread([mine / theirs for mine, theirs in zip(seconds, times[to], strict=True)])
            for name, seconds in times.items()}


def matmul_rate(times: Times) -> float:
    """The speed of a plain matrix product in the same rounds.

    Parameters
    ----------
    times : Times
        From ``cpu_times(..., matmul=size)``.

    Returns
    -------
    float
        FLOP/s, the median over rounds.

    Raises
    ------
    ValueError
        If no product was timed.
    """
    _check_known("matmul_rate", "matmul", MATMUL, times)
    return times.matmul_flops / statistics.median(times[MATMUL])


def multiples(times: Times, flops: dict[str, int]) -> dict[str, Spread]:
    """How many times longer calls take than their FLOPs would at the speed of a plain matrix product.

    Parameters
    ----------
    times : Times
        From ``cpu_times(..., matmul=size)``.
    flops : dict of str to int
        What each of the calls has to compute.

    Returns
    -------
    dict of str to Spread
        Time over (FLOPs / FLOP/s of the product in the same round): 1 is the ideal.

    Raises
    ------
    ValueError
        If no product was timed, or no call of that name.
    """
    _check_known("multiples", "matmul", MATMUL, times)
    for name in flops:
        _check_known("multiples", "flops", name, times)
    return {name: _spread([mine * times.matmul_flops / (product * count)
                           for mine, product in zip(times[name], times[MATMUL], strict=True)])
            for name, count in flops.items()}


def slope(sizes: Sequence[float], values: Sequence[float]) -> Slope:
    """The exponent p of value ∝ size^p: a least-squares line through the logarithms.

    Parameters
    ----------
    sizes, values : sequence of float
        Positive; at least two different sizes.

    Returns
    -------
    Slope
        The exponent and its standard error.

    Raises
    ------
    ValueError
        If the two are not equally long, something is not positive, or all sizes are the same.
    """
    if len(sizes) != len(values):
        raise ValueError(f"slope: values has {len(values)} entries, expected {len(sizes)}, as in sizes")
    for name, numbers in (("sizes", sizes), ("values", values)):
        if bad := [number for number in numbers if not number > 0]:
            raise ValueError(f"slope: {name} holds {bad[0]}, expected numbers above 0")
    if len(set(sizes)) < 2:
        raise ValueError(f"slope: sizes is {list(sizes)}, expected at least two different sizes")
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    exponent, intercept = statistics.linear_regression(x, y)
    unexplained = sum((b - exponent * a - intercept) ** 2 for a, b in zip(x, y, strict=True))
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    return Slope(exponent, math.sqrt(unexplained / (len(x) - 2) / spread) if len(x) > 2 else math.nan)


def _check_calls(calls, matmul):
    if not calls:
        raise ValueError("cpu_times: calls is empty, expected at least one function")
    for name, call in calls.items():
        if not callable(call):
            raise TypeError(f"cpu_times: calls[{name!r}] is of type {type(call).__name__}, expected a function")
    if matmul is not None and MATMUL in calls:
        raise ValueError(f"cpu_times: calls has the name {MATMUL!r}, which matmul = {matmul} uses")


def _check_known(where, argument, name, times):
    if name not in times:
        raise ValueError(f"{where}: {argument} is {name!r}, expected one that was timed: {', '.join(map(repr, times))}")


def _matmul(size):
    a, b = torch.randn(2, size, size, generator=torch.Generator().manual_seed(0))
    out = torch.empty(size, size)
    return lambda: torch.mm(a, b, out=out)


def _spent(call, loops, clock):
    began = clock()
    for _ in range(loops):
        call()
    return clock() - began


def _loops(call, clock, at_least):
    loops = 1
    while _spent(call, loops, clock) < at_least:
        loops *= 2
    return loops


def _spread(values):
    if len(values) == 1:
        return Spread(*values * 3)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run on one torch thread, and put the number back afterwards.

    Yields
    ------
    None
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage once, then not again until the end.

    Yields
    ------
    None
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _rounds(repeats, progress):
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return range(repeats)
    from tqdm import tqdm
    return tqdm(range(repeats), unit="round", leave=False, delay=0 if progress else LONG)
