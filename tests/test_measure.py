"""Measuring: turns, medians, ratios and slopes with a clock that is made up; memory with programs whose use is known."""

import gc
import itertools
import json
import math
import random
import sys
import time

import pytest
import torch

from attnlib import measure
from attnlib.measure import timing

MIB = 2**20
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the record of a process's peak")


class FakeClock:
    """A clock that moves only when a call says how long it takes."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def call(self, name, seconds):
        """A function that takes so many seconds; an iterator gives a new number every time."""
        def run():
            self.log.append(name)
            self.now += next(seconds) if hasattr(seconds, "__next__") else seconds
        return run


def timed(repeats=7, **seconds):
    clock = FakeClock()
    calls = {name: clock.call(name, each) for name, each in seconds.items()}
    return measure.cpu_times(calls, repeats, warmup=0, clock=clock), clock.log


# --- time ----------------------------------------------------------------------------------------------------------

def test_every_round_calls_everything_once_in_changing_orders():
    times, log = timed(repeats=20, a=1.0, b=2.0, c=3.0)
    rounds = [tuple(log[i : i + 3]) for i in range(3, 63, 3)]            # the first three calls calibrate
    assert len(log) == 63 and all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 3                                          # not one order, nor a rotation of it
    assert times == {"a": [1.0] * 20, "b": [2.0] * 20, "c": [3.0] * 20}
    assert timed(repeats=20, a=1.0, b=2.0, c=3.0)[1] == log              # the orders are drawn from a seed


def test_names_keep_their_places():
    assert list(timed(c=1.0, a=1.0, b=1.0)[0]) == ["c", "a", "b"]


def test_warmup_is_not_timed():
    clock = FakeClock()
    times = measure.cpu_times({"a": clock.call("a", itertools.chain([100.0, 100.0], itertools.repeat(1.0)))}, 5, 2, clock=clock)
    assert times == {"a": [1.0] * 5} and len(clock.log) == 2 + 1 + 5


@pytest.mark.parametrize(("seconds", "loops"), [(1.0, 1), (0.01, 1), (0.0099, 2), (0.001, 16), (0.0001, 128)])
def test_short_calls_are_repeated_until_the_clock_can_see_them(seconds, loops):
    times, _ = timed(a=seconds)
    assert times.loops == {"a": loops} and loops * seconds >= 0.01
    assert all(math.isclose(each, seconds) for each in times["a"])       # seconds of one call, not of the loop


def test_medians_are_medians():
    times, _ = timed(repeats=5, a=iter([9.0, 5.0, 1.0, 100.0, 2.0, 3.0]))  # the first calibrates
    assert measure.medians(times) == {"a": 3.0}


def test_ratios_compare_within_a_round():
    """A machine that slows down tenfold in the middle changes no ratio; the ratio of medians would change."""
    slow = [1.0, 1.0, 1.0, 10.0, 10.0]
    times, _ = timed(repeats=5, a=iter([1.0, *slow]), b=iter([1.0, *(2 * each for each in slow)]))
    assert measure.ratios(times, to="a") == {"a": (1.0, 1.0, 1.0), "b": (2.0, 2.0, 2.0)}


def test_a_spread_holds_the_quartiles():
    times, _ = timed(repeats=5, a=1.0, b=iter([1.0, 5.0, 1.0, 4.0, 2.0, 3.0]))
    assert measure.ratios(times, to="a")["b"] == measure.Spread(median=3.0, low=2.0, high=4.0)
    assert measure.ratios(timed(repeats=1, a=1.0, b=3.0)[0], to="a")["b"] == (3.0, 3.0, 3.0)


def test_a_budget_ends_the_rounds_but_leaves_three():
    clock = FakeClock()
    assert len(measure.cpu_times({"a": clock.call("a", 1.0)}, 100, clock=clock, budget=10.5)["a"]) == 11
    assert len(measure.cpu_times({"a": clock.call("a", 1.0)}, 100, clock=clock, budget=0.5)["a"]) == 3
    assert len(measure.cpu_times({"a": clock.call("a", 1.0)}, 2, clock=clock, budget=0.5)["a"]) == 2


def test_the_yardstick_is_timed_in_the_same_rounds(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(timing, "_matmul", lambda size: clock.call("matmul", 0.5))
    times = measure.cpu_times({"a": clock.call("a", 2.0)}, 10, 0, clock=clock, matmul=100)
    assert times["matmul"] == [0.5] * 10 and times.matmul_flops == 2 * 100**3
    rounds = [clock.log[i : i + 2] for i in range(2, 22, 2)]
    assert all(sorted(each) == ["a", "matmul"] for each in rounds) and ["a", "matmul"] in rounds and ["matmul", "a"] in rounds
    assert measure.matmul_rate(times) == 4e6
    assert measure.multiples(times, {"a": 4_000_000}) == {"a": (2.0, 2.0, 2.0)}  # 1 second's worth, done in 2


def test_the_yardstick_is_a_matrix_product():
    assert measure.flops(timing._matmul(30)) == 2 * 30**3
    a, b = torch.zeros(2, 4, 5), torch.zeros(2, 5, 7)
    for call in (lambda: torch.zeros(4, 7).addmm_(a[0], b[0]), lambda: torch.addmm(torch.zeros(4, 7), a[0], b[0], out=torch.zeros(4, 7))):
        assert measure.flops(call) == 2 * 4 * 5 * 7
    assert measure.flops(lambda: torch.zeros(2, 4, 7).baddbmm_(a, b)) == 2 * 2 * 4 * 5 * 7


def test_the_state_of_threads_and_garbage_is_put_back():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        clock = FakeClock()
        tick = clock.call("a", 1.0)
        measure.cpu_times({"a": lambda: (seen.append((torch.get_num_threads(), gc.isenabled())), tick())}, clock=clock)
        assert set(seen) == {(1, False)}
        assert torch.get_num_threads() == 2 and gc.isenabled()
        for call in (lambda: measure.cpu_times({"a": lambda: 1 / 0}), lambda: measure.allocated_bytes(lambda: 1 / 0)):
            with pytest.raises(ZeroDivisionError):
                call()
            assert torch.get_num_threads() == 2 and gc.isenabled()
        assert measure.allocated_bytes(lambda: torch.ones(4)) == 16      # and the profiler is off again
        gc.disable()
        measure.cpu_times({"a": tick}, clock=clock)
        assert not gc.isenabled()                                        # nor is it switched on where it was off
    finally:
        gc.enable()
        torch.set_num_threads(before)


def test_progress_is_shown_when_asked_for_or_to_a_terminal(monkeypatch, capsys):
    clock = FakeClock()
    calls = {"a": clock.call("a", 1.0)}
    measure.cpu_times(calls, clock=clock)
    assert capsys.readouterr().err == ""                                 # no terminal, no bar
    measure.cpu_times(calls, clock=clock, progress=True)
    assert "7" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert timing._rounds(7, None).delay == timing.LONG and timing._rounds(7, True).delay == 0
    assert timing._rounds(7, False) == range(7)


def test_real_time_is_cpu_time_of_one_call():
    """Twice the work takes longer, and sleeping takes nothing: both far from any doubt."""
    x = torch.randn(400, 400)
    times = measure.cpu_times({"sleeps": lambda: (x @ x, time.sleep(0.02)), "works": lambda: [x @ x for _ in range(40)]}, 3)
    assert measure.ratios(times, to="sleeps")["works"].median > 5


# --- slopes --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("power", [-1, 0, 0.5, 1, 2, 3])
def test_slopes_of_power_laws_are_exact(power):
    sizes = [3, 10, 100, 4000]
    fitted = measure.slope(sizes, [7.5 * size**power for size in sizes])
    assert abs(fitted.exponent - power) < 1e-12 and fitted.error < 1e-12  # a few float64 roundings of logarithms below 40


def test_the_error_of_a_slope_is_its_scatter():
    """Least squares by the textbook: over 20000 draws, the slopes scatter as much as the stated error says."""
    rng, sizes, slopes, errors = random.Random(0), [1, 2, 4, 8, 16], [], []
    for _ in range(20000):
        fitted = measure.slope(sizes, [size**2 * math.exp(rng.gauss(0, 0.1)) for size in sizes])
        slopes.append(fitted.exponent - 2)
        errors.append(fitted.error**2)
    scatter, stated = sum(each**2 for each in slopes) / 20000, sum(errors) / 20000
    assert abs(stated / scatter - 1) < 0.05                              # two variances, known to 1% and 0.6% each
    assert math.isnan(measure.slope([1, 2], [1, 3]).error)


# --- memory --------------------------------------------------------------------------------------------------------

def test_allocated_bytes_of_known_programs():
    x = torch.ones(1000)
    y = torch.ones(1000, requires_grad=True)
    square = torch.ones(64, 64)
    assert measure.allocated_bytes(lambda: None) == 0
    assert measure.allocated_bytes(lambda: torch.empty(1000)) == 4000
    assert measure.allocated_bytes(lambda: torch.empty(1000, dtype=torch.float64)) == 8000
    assert measure.allocated_bytes(lambda: [torch.empty(1000), torch.empty(500)]) == 6000
    assert measure.allocated_bytes(lambda: [torch.empty(1000).numel(), torch.empty(500).numel()]) == 4000  # not at one time
    assert measure.allocated_bytes(lambda: x.exp().exp().exp()) == 8000            # one is freed when the next is there
    assert measure.allocated_bytes(lambda: x.exp_()) == 0                          # in place
    assert measure.allocated_bytes(lambda: x.view(10, 100).mT[2:]) == 0            # views
    assert measure.allocated_bytes(lambda: square @ square) == 64 * 64 * 4
    assert measure.allocated_bytes(lambda: y.exp().exp().exp()) == 12000           # autograd keeps all three
    programs = [lambda: y.exp().exp().sum().backward()] * 3
    assert len({measure.allocated_bytes(program) for program in programs[1:]}) == 1   # the same every time


def test_allocated_bytes_sees_scratch_inside_an_operator():
    """Fused attention takes scratch space beyond its result, and far less than the scores would."""
    q, k, v = torch.randn(3, 1, 2, 256, 32)
    seen = measure.allocated_bytes(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))
    assert q.nbytes < seen < q.nbytes + 2 * 256 * 256 * 4


@LINUX
def test_peak_memory_sees_a_temporary_and_little_else():
    """Each planted block is 64 MiB; the docstring grants 1 MiB."""
    setup = "import torch; held = [torch.ones(16 * 2**20)]; small = torch.ones(4) + 1"
    assert abs(measure.peak_memory(setup, "x = torch.ones(16 * 2**20); del x; y = torch.ones(8 * 2**20)") - 64 * MIB) < MIB
    freed_before = setup + "; held.clear()"                              # must not be there to be used again, unseen
    assert abs(measure.peak_memory(freed_before, "x = torch.ones(16 * 2**20)") - 64 * MIB) < MIB
    assert measure.peak_memory(setup, "x = torch.empty(16 * 2**20); y = torch.ones(2**16)") < MIB  # reserved, never written


@LINUX
def test_peak_memory_tells_what_failed(monkeypatch):
    with pytest.raises(RuntimeError, match="peak_memory: ZeroDivisionError: division by zero"):
        measure.peak_memory("1 / 0", "pass")
    monkeypatch.setattr("attnlib.measure.memory.Path.exists", lambda path: False)
    with pytest.raises(NotImplementedError, match="needs Linux"):
        measure.peak_memory("pass", "pass")


# --- counts and records --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("causal", [False, True])
def test_flops_include_the_fused_attention(causal):
    q, k, v = (torch.randn(2, 3, seq, 16, requires_grad=True) for seq in (20, 30, 30))
    forward = 4 * 2 * 3 * 20 * 30 * 16

    def fused():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    assert measure.flops(lambda: torch.softmax(q @ k.mT, -1) @ v) == forward
    assert measure.flops(fused) == forward
    assert measure.flops(lambda: fused().sum().backward()) == forward + 5 * forward // 2  # scores again, and four products


def test_a_record_holds_its_origin_and_is_written_whole(tmp_path):
    path = tmp_path / "numbers.json"
    measure.record(path, "what it is", "python -m tools.bench", {"seconds": [1.5, 2]}, packages=["torch"])
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["seconds"] == [1.5, 2] and written["what"] == "what it is" and written["command"] == "python -m tools.bench"
    assert set(written["versions"]) == {"python", "torch"} and "one thread of" in written["device"] and len(written["date"]) == 10
    before = path.read_text(encoding="utf-8")
    for numbers, error in (({"date": 1}, "key 'date'"), ({"x": math.nan}, "not JSON compliant"), ({"x": object()}, "not JSON serial")):
        with pytest.raises((ValueError, TypeError), match=error):
            measure.record(path, "w", "c", numbers)
    assert path.read_text(encoding="utf-8") == before and list(tmp_path.iterdir()) == [path]


# --- wrong calls ---------------------------------------------------------------------------------------------------

def nothing():
    pass


TIMES = measure.Times({"a": [1.0]}, {"a": 1})


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: measure.cpu_times({}), ValueError, "cpu_times: calls is empty"),
    (lambda: measure.cpu_times({"a": 3}), TypeError, r"cpu_times: calls\['a'\] is of type int, expected a function"),
    (lambda: measure.cpu_times({"matmul": nothing}, matmul=8), ValueError, "'matmul', which matmul = 8 uses"),
    (lambda: measure.cpu_times({"a": nothing}, 0), ValueError, "cpu_times: repeats is 0, expected at least 1"),
    (lambda: measure.cpu_times({"a": nothing}, warmup=-1), ValueError, "cpu_times: warmup is -1"),
    (lambda: measure.cpu_times({"a": nothing}, at_least=0), ValueError, "cpu_times: at_least is 0, expected a number above 0"),
    (lambda: measure.cpu_times({"a": nothing}, budget=0), ValueError, "cpu_times: budget is 0"),
    (lambda: measure.cpu_times({"a": nothing}, matmul=1.5), TypeError, "cpu_times: matmul is of type float"),
    (lambda: measure.ratios(TIMES, to="b"), ValueError, "ratios: to is 'b', expected one that was timed: 'a'"),
    (lambda: measure.matmul_rate(TIMES), ValueError, "matmul_rate: matmul is 'matmul', expected one that was timed: 'a'"),
    (lambda: measure.multiples(TIMES, {"a": 1}), ValueError, "multiples: matmul is 'matmul'"),
    (lambda: measure.slope([1, 2], [1]), ValueError, "slope: values has 1 entries, expected 2, as in sizes"),
    (lambda: measure.slope([1, 0], [1, 2]), ValueError, "slope: sizes holds 0, expected numbers above 0"),
    (lambda: measure.slope([1, 2], [1, math.nan]), ValueError, "slope: values holds nan"),
    (lambda: measure.slope([2, 2], [1, 2]), ValueError, r"slope: sizes is \[2, 2\], expected at least two different sizes"),
    (lambda: measure.slope([], []), ValueError, "at least two different sizes"),
])
def test_wrong_calls_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
