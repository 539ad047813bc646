"""What the parts share: tables, bars, records, and libraries that may be missing.

A part is a module with NAME, WHAT and `measure_it(bench)`, which fills a `Bench`.
"""

from __future__ import annotations

import datetime
import importlib
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from types import ModuleType

import torch

from attnlib import measure
from tools.chapters import ROOT

HEADS, DIM_HEAD = 8, 64


class Bench:
    """The tables and bars of one run, printed as they come.

    Attributes
    ----------
    rounds : int
        Rounds of each measurement.
    tables : dict of str to list of dict
        Title -> rows, each a dict of column -> value.
    bars : list of dict
        What was asked for, what was measured, whether it was met.
    versions : dict of str to str
        Of the libraries compared with, ``"not installed"`` for those that are missing.
    """

    def __init__(self, rounds: int):
        self.rounds, self.tables, self.bars, self.versions = rounds, {}, [], {}

    def table(self, title: str, rows: list[dict]) -> None:
        """Keep a table, and print it."""
        self.tables[title] = rows
        columns = list({column: None for row in rows for column in row})
        cells = [columns, *([shown(row.get(column, "")) for column in columns] for row in rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
        print(f"\n{title}")
        for line in cells:
            print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                                   for i, (cell, width) in enumerate(zip(line, widths, strict=True))), flush=True)

    def bar(self, what: str, measured: float, at_least: float | None = None, at_most: float | None = None) -> None:
        """Compare a measured figure with what was asked for."""
        met = (at_least is None or measured >= at_least) and (at_most is None or measured <= at_most)
        wanted = " and ".join(f"{word} {bar:g}" for word, bar in (("at least", at_least), ("at most", at_most)) if bar is not None)
        self.bars.append({"what": what, "wanted": wanted, "measured": rounded(measured), "met": met})
        print(f"  {'met    ' if met else 'NOT MET'}  {what}: {measured:.3g}, wanted {wanted}", flush=True)

    def times(self, calls: dict[str, Callable | None], **options: object) -> measure.Times:
        """Time the calls that are there; None stands for a library that is missing."""
        return measure.cpu_times({name: call for name, call in calls.items() if call}, self.rounds, progress=None, **options)

    def other(self, package: str, module: str) -> ModuleType | None:
        """Import a library to compare with, or note that it is not installed."""
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            self.versions[package] = "not installed" if error.name == module else f"not usable: {error}"
            return None
        self.versions[package] = metadata.version(package)
        return found


def run(part: ModuleType, runs: int, rounds: int) -> None:
    """Measure one part, several times if asked, and record it in chapters/data."""
    made = []
    for number in range(1, runs + 1):
        print(f"\n=== {part.NAME}, run {number} of {runs}: {measure.device()}", flush=True)
        made.append(in_fresh_process(part.__name__, rounds))
    versions = [run.pop("compared_with") for run in made][-1]
    path = ROOT / "chapters" / "data" / f"bench-{part.NAME}.json"
    command = f"python -m tools.bench {part.NAME} --runs {runs} --rounds {rounds}"
    measure.record(path, part.WHAT, command, {"compared_with": versions, "runs": made})
    print(f"\nrecorded in {path.relative_to(ROOT)}", flush=True)


def in_fresh_process(module: str, rounds: int) -> dict:
    """One run of a part in a process of its own: what an earlier run left in caches and allocators is gone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(one_run, module, rounds).result()


def one_run(module: str, rounds: int) -> dict:
    """Measure one part: bars and tables, when, and under what load."""
    bench = Bench(rounds)
    before = {"at": datetime.datetime.now(datetime.UTC).strftime("%H:%M UTC"), "load_before": round(os.getloadavg()[0], 1)}
    torch.set_num_threads(1)  # also for what is compiled
    torch.manual_seed(0)
    importlib.import_module(module).measure_it(bench)
    return {**before, "load_after": round(os.getloadavg()[0], 1), "bars": bench.bars, "tables": bench.tables,
            "compared_with": bench.versions}


def draw(seq: int, kv_heads: int = HEADS, gradients: bool = False) -> list[torch.Tensor]:
    """Random q, k, v: (1, heads, seq, dim_head) and two of (1, kv_heads, seq, dim_head)."""
    return [torch.randn(1, heads, seq, DIM_HEAD, requires_grad=gradients) for heads in (HEADS, kv_heads, kv_heads)]


def with_backward(attend: Callable, seq: int) -> Callable:
    """A call that does a forward and a backward pass."""
    inputs, d_out = draw(seq, gradients=True), torch.randn(1, HEADS, seq, DIM_HEAD)
    return lambda: torch.autograd.grad(attend(*inputs), inputs, d_out)


def times_row(times: measure.Times, name: str, **more: object) -> dict:
    """The first columns of a row: name and milliseconds."""
    return {"what": name, "CPU ms": rounded(1000 * measure.medians(times)[name]), **more}


def spread(found: measure.Spread) -> list[float]:
    """A median with its quartiles, as three numbers."""
    return [rounded(each) for each in found]


def rounded(number: float) -> float:
    """To four digits."""
    return float(f"{number:.4g}")


def shown(value: object) -> str:
    """A cell of a printed table."""
    if isinstance(value, list):
        return f"{value[0]:.3g} ({value[1]:.3g} to {value[2]:.3g})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
