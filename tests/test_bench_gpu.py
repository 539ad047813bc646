"""The GPU benchmark without a GPU: what it counts, compares and refuses, at tiny sizes with a clock of our own."""

import itertools

import pytest
import torch

from tools.bench import gpu

torch.set_num_threads(1)


def ticking():
    """A clock whose calls last 1, 2, 3, ... seconds, whatever they do."""
    count = itertools.count(1)
    return gpu.Clock("cpu", torch.float32, lambda call: (call(), float(next(count)))[1])


def test_rows_hold_rates_and_ratios(capsys):
    rows = gpu.attention_rows(ticking(), lengths=(8, 16), widths=(4,), dim=8, tokens=16)
    assert [(each["direction"], each["seq"], each["causal"]) for each in rows] == [
        (direction, seq, causal) for causal in (False, True) for seq in (8, 16) for direction in ("forward", "backward")]
    first = rows[0]                                          # 2 sequences of 8 tokens, 2 heads of 4: 4 · 64 · 4 · 2 · 2 FLOPs in 1 second
    assert first["TFLOP/s"]["attnlib.kernels"] == pytest.approx(4 * 64 * 4 * 2 * 2 / 1e12)
    assert first["speed over"] == {"MATH": 2.0}              # the second call lasted 2 seconds
    assert rows[1]["TFLOP/s"]["attnlib.kernels"] == pytest.approx(10 * 64 * 4 * 2 * 2 / 3 / 1e12)
    assert rows[4]["TFLOP/s"]["attnlib.kernels"] == pytest.approx(4 * 36 * 4 * 2 * 2 / 9 / 1e12)  # 8 · 9 / 2 pairs
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_an_opponent_that_computes_something_else_is_refused(monkeypatch):
    real = gpu.opponents
    monkeypatch.setattr(gpu, "opponents", lambda q, k, v, causal: real(q, k, v, causal) | {"FLASH_ATTENTION": lambda q, k, v: v})
    with pytest.raises(AssertionError, match=r"FLASH_ATTENTION and attnlib\.kernels differ by"):
        gpu.attention_rows(ticking(), lengths=(8,), widths=(4,), dim=8, tokens=8)


def test_sparse_time_is_set_against_dense_time_and_the_share_computed():
    patterns = {"window": gpu.masks.sliding_window(31), "causal": gpu.masks.causal}
    rows = gpu.sparse_rows(ticking(), seq=64, heads=1, width=4, block_size=16, patterns=patterns)
    assert [(each["pattern"], each["direction"]) for each in rows] == [
        (name, direction) for name in patterns for direction in ("forward", "backward")]
    assert [each["computed"] for each in rows[::2]] == [9 / 16, 10 / 16]   # rows of 1, 2, 3, 3 blocks; of 1, 2, 3, 4
    assert rows[0]["over dense times computed"] == pytest.approx(1 / (2 * 9 / 16))
    assert rows[3]["over dense times computed"] == pytest.approx(7 / (8 * 10 / 16))


def test_decoding_is_set_against_the_bytes_of_the_cache():
    rows = gpu.decode_rows(ticking(), bytes_per_second=64.0, batch=2, seq=8, heads=4, width=4, groups=(1, 4))
    assert [each["kv_heads"] for each in rows] == [4, 1]
    assert [each["least"] for each in rows] == [2 * 2 * 4 * 8 * 4 * 4 / 64, 2 * 2 * 1 * 8 * 4 * 4 / 64]
    assert rows[1]["over least"] == pytest.approx(3 / rows[1]["least"])


def test_nan_is_a_difference():
    with pytest.raises(AssertionError, match="differ by nan"):
        gpu.alike({"a": torch.zeros(2), "b": torch.tensor([0.0, torch.nan])}, torch.float32)


def test_the_roof_comes_from_the_two_speeds():
    found = gpu.roofline_rows(ticking(), seq=16, heads=2, width=4, size=8, copied=64)
    assert found["FLOP/s"] == 2 * 8**3 and found["bytes/s"] == 64          # 1 second, 2 seconds
    scores, values = found["steps"]["scores"], found["steps"]["values"]
    assert scores["least"] == pytest.approx(max(2 * 2 * 256 * 4 / 1024, 4 * 2 * (2 * 16 * 4 + 256) / 64))
    assert scores["FLOP/s"] == pytest.approx(2 * 2 * 256 * 4 / 3) and values["seconds"] == 5.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_written(capsys, monkeypatch):
    monkeypatch.setattr(gpu.measure, "record", lambda *_: pytest.fail("something was written"))
    assert gpu.main() == 2
    assert "nothing is measured and nothing is written" in capsys.readouterr().err
