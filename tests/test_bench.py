"""`make bench` without its measurements: bars, tables, libraries that are missing, what is recorded."""

import json
import os
import sys
import types

import numpy as np
import pytest

from attnlib import masks, measure
from tests.guards import house, show
from tools.bench import __main__ as command
from tools.bench import common, sparse


@pytest.mark.parametrize(("value", "bars", "met", "wanted"), [
    (1.9, {"at_most": 1.9}, True, "at most 1.9"), (1.91, {"at_most": 1.9}, False, "at most 1.9"),
    (4, {"at_least": 4}, True, "at least 4"), (3.99, {"at_least": 4}, False, "at least 4"),
    (1.2, {"at_least": 0.95, "at_most": 1.1}, False, "at least 0.95 and at most 1.1"), (float("nan"), {"at_most": 1}, False, "at most 1"),
])
def test_a_bar_is_met_or_not(value, bars, met, wanted, capsys):
    bench = common.Bench(3)
    bench.bar("speed", value, **bars)
    assert bench.bars[0]["met"] is met and bench.bars[0]["wanted"] == wanted
    assert ("NOT MET" in capsys.readouterr().out) is not met


def test_a_missing_library_is_named(capsys, monkeypatch):
    bench = common.Bench(1)
    assert bench.other("no-such-library", "no_such_library") is None
    assert bench.versions == {"no-such-library": "not installed"}
    monkeypatch.setattr(bench, "other", lambda package, module: bench.versions.setdefault("local-attention", "not installed") and None)
    monkeypatch.setattr(sparse, "flex", lambda q, k, v: lambda: sparse.sparse.sliding_window_attention(q, k, v, sparse.WINDOW))
    sparse.against_others(bench, lambda q, k, v: sparse.sparse.sliding_window_attention(q, k, v, sparse.WINDOW), 512)
    (rows,) = bench.tables.values()
    assert {"what": "local-attention", "CPU ms": "not installed"} in rows
    assert "not installed" in capsys.readouterr().out


def test_an_opponent_that_computes_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(sparse, "flex", lambda q, k, v: lambda: sparse.sparse.sliding_window_attention(q, k, v, sparse.WINDOW - 1))
    with pytest.raises(AssertionError, match="flex_attention, compiled, block mask computes something else"):
        sparse.against_others(common.Bench(1), lambda q, k, v: sparse.sparse.sliding_window_attention(q, k, v, sparse.WINDOW), 512)


@pytest.mark.parametrize("predicate", [masks.causal, masks.sliding_window(5), masks.sliding_window(3, 9), masks.global_tokens(3),
                                       masks.bigbird(48, 8), lambda q, k: k == 47 - q, lambda q, k: k < 0 * q])
def test_blocks_touched_are_counted(predicate):
    mask = np.broadcast_to(masks.to_array(predicate, 48), (48, 48))
    touched = [mask[i : i + 8, j : j + 8].any() for i in range(0, 48, 8) for j in range(0, 48, 8)]
    assert sparse.blocks_touched(predicate, 48, 8) == pytest.approx(np.mean(touched), rel=1e-6)  # a mean in float32


def test_a_run_is_recorded_with_its_origin(tmp_path, monkeypatch, capsys):
    def measure_it(bench):
        bench.table("figures", [{"what": "a", "ms": 1.23456}, {"what": "b", "ratio": [1.0, 0.5, 2.0]}])
        bench.bar("speed", 2.0, at_least=3)
        bench.other("no-such-library", "no_such_library")

    (tmp_path / "chapters" / "data").mkdir(parents=True)
    (tmp_path / "tools" / "bench").mkdir(parents=True)
    (tmp_path / "tools" / "bench" / "__main__.py").touch()
    part = types.ModuleType("sample_part")
    part.NAME, part.WHAT, part.measure_it = "sample", "a sample", measure_it
    monkeypatch.setitem(sys.modules, "sample_part", part)
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr(common, "in_fresh_process", common.one_run)
    common.run(part, runs=2, rounds=5)
    record = json.loads((tmp_path / "chapters" / "data" / "bench-sample.json").read_text(encoding="utf-8"))
    assert not house.records(tmp_path), show(house.records(tmp_path))
    assert len(record["runs"]) == 2 and record["runs"][0]["tables"]["figures"][0] == {"what": "a", "ms": 1.23456}
    assert record["runs"][1]["bars"] == [{"what": "speed", "wanted": "at least 3", "measured": 2.0, "met": False}]
    assert record["compared_with"] == {"no-such-library": "not installed"} and record["command"].endswith("--runs 2 --rounds 5")
    out = capsys.readouterr().out
    assert "1.235" in out and "1 (0.5 to 2)" in out and "NOT MET" in out


def process_number(bench):
    bench.table("process", [{"what": os.getpid()}])


measure_it = process_number                                  # as a part, this file tells which process measures it


def test_every_run_has_a_process_of_its_own():
    numbers = {common.in_fresh_process("tests.test_bench", 1)["tables"]["process"][0]["what"] for _ in range(2)}
    assert len(numbers) == 2 and os.getpid() not in numbers


def test_the_command_runs_what_it_names(monkeypatch):
    ran = []
    monkeypatch.setattr(common, "run", lambda part, runs, rounds: ran.append((part.NAME, runs, rounds)))
    monkeypatch.setattr(command.chapters, "main", lambda names: ran.append(("chapters", *names)))
    for arguments in (["decode", "--runs", "2"], ["chapters", "04_softmax"], []):
        monkeypatch.setattr(command.sys, "argv", ["bench", *arguments])
        assert command.main() == 0
    assert ran[:2] == [("decode", 2, 9), ("chapters", "04_softmax")]
    assert [name for name, *_ in ran[2:]] == [*command.PARTS, "chapters"]
    monkeypatch.setattr(command.sys, "argv", ["bench", "decode", "04_softmax"])
    with pytest.raises(SystemExit):
        command.main()


def test_figures_are_rounded_not_changed():
    assert common.rounded(1234.5678) == 1235 and common.rounded(1.23456e-7) == 1.235e-7
    assert common.spread(measure.Spread(1.00004, 0.5, 2)) == [1.0, 0.5, 2.0]
