"""Exercise: the roofline as a time."""

import numpy as np

from coursework import case, observe, wrong

TITLE = "How fast could it be?"
CHAPTER = "19_memory_hierarchy"
POINTS = 2
PROMPT = r"""
A program computes `flops` floating-point operations and moves `nbytes` bytes to and from memory. The processor computes at most `peak` operations a
second and moves at most `bandwidth` bytes a second, and it can do both at the same time. Write `least_time(flops, nbytes, peak, bandwidth)`, which returns
the least number of seconds that the program can take {cite}`williams2009`. All four may be numbers or arrays of one shape; `flops` or `nbytes` may be 0.
"""


def least_time(flops, nbytes, peak, bandwidth):
    # BEGIN SOLUTION
    return np.maximum(flops / peak, nbytes / bandwidth)
    # END SOLUTION


def cases(rng):
    peak, bandwidth = 10 ** rng.uniform(10, 14), 10 ** rng.uniform(9, 12)
    balance = peak / bandwidth
    yield case("bound by memory", balance * 1e6 / 7, 1e6, peak, bandwidth)
    yield case("bound by arithmetic", balance * 1e6 * 7, 1e6, peak, bandwidth)
    yield case("at the ridge", balance * 1e6, 1e6, peak, bandwidth)
    yield case("no arithmetic at all", 0.0, 3e6, peak, bandwidth)
    yield case("nothing moved", 5e9, 0.0, peak, bandwidth)
    flops = 10 ** rng.uniform(6, 13, size=(3, 5))
    yield case("arrays of programs", flops, 10 ** rng.uniform(5, 11, size=(3, 5)), np.full((3, 5), peak), np.full((3, 5), bandwidth))


@wrong("You add the two times. The processor computes and moves at the same time: the shorter of the two is hidden behind the longer.")
def adds(flops, nbytes, peak, bandwidth):
    return flops / peak + nbytes / bandwidth


@wrong("You take the shorter of the two times: nothing can be finished before the slower of its two parts is.")
def shorter(flops, nbytes, peak, bandwidth):
    return np.minimum(flops / peak, nbytes / bandwidth)


@wrong("You divide by the balance where a time is asked for: FLOPs over FLOP/s, and bytes over bytes/s, are seconds.")
def rate_for_time(flops, nbytes, peak, bandwidth):
    return np.minimum(peak, flops / np.maximum(nbytes, 1e-300) * bandwidth)


@wrong("Right for numbers, wrong for arrays: the larger of two arrays, place by place, is np.maximum. Python's max compares them as wholes.")
def larger_of_wholes(flops, nbytes, peak, bandwidth):
    return max(flops / peak, nbytes / bandwidth)


@wrong("flops or nbytes may be 0, and you divide one count by the other: compare the two times instead, each a count over a rate.")
def through_the_roofline(flops, nbytes, peak, bandwidth):
    return np.divide(flops, np.minimum(peak, np.divide(flops, nbytes) * bandwidth))


@wrong("You count the arithmetic alone: a program that moves much and computes little takes no time by that.")
def arithmetic_alone(flops, nbytes, peak, bandwidth):
    return flops / peak + 0 * nbytes


@wrong("You count the traffic alone: a product of large matrices takes hardly any time by that.")
def traffic_alone(flops, nbytes, peak, bandwidth):
    return nbytes / bandwidth + 0 * flops


@wrong("The two speeds are exchanged: operations are divided by the bandwidth, bytes by the peak.")
def exchanged(flops, nbytes, peak, bandwidth):
    return np.maximum(flops / bandwidth, nbytes / peak)


@observe
def twice(case, got, want):
    ratio = np.asarray(got) / np.asarray(want)
    if np.isfinite(ratio).all() and np.allclose(ratio, ratio.flat[0]) and not np.allclose(ratio, 1):
        return f"Your times are {ratio.flat[0]:.4g} times what they should be."
    return None
