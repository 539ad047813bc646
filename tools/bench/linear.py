"""Linear attention and its kin against softmax attention, and that they are what they claim to be."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attnlib import linear, measure
from tools.bench.common import DIM_HEAD, HEADS, Bench, draw, rounded, spread, times_row, with_backward

NAME = "linear"
WHAT = (f"causal linear attention with {HEADS} heads of width {DIM_HEAD} in float32: CPU time of one thread, medians over rounds "
        "in turns within one process, ratios with quartiles")


def measure_it(bench: Bench) -> None:
    """All tables of this part."""
    exactness(bench)
    seconds = {seq: against_softmax(bench, seq) for seq in (1024, 4096, 16384)}
    rows = []
    for name in next(iter(seconds.values())):
        fitted = measure.slope(list(seconds), [each[name] for each in seconds.values()])
        rows.append({"what": name, "slope": rounded(fitted.exponent), "its standard error": rounded(fitted.error)})
    bench.table("growth of time from 1k to 16k tokens", rows)


def family(seq: int) -> dict:
    """The kinds of linear attention, called with q, k, v."""
    log_decay = torch.nn.functional.logsigmoid(torch.randn(1, HEADS, seq, DIM_HEAD) + 4)
    beta = torch.sigmoid(torch.randn(1, HEADS, seq))

    def delta(q, k, v):
        return linear.delta_rule_attention(q, torch.nn.functional.normalize(k, dim=-1), v, beta)[0]

    return {"linear, chunked": lambda q, k, v: linear.linear_attention(q, k, v)[0],
            "gated": lambda q, k, v: linear.gated_linear_attention(q, k, v, log_decay)[0], "delta rule": delta}


def against_softmax(bench: Bench, seq: int) -> dict[str, float]:
    """One length, forward and with the backward pass; return the seconds."""
    q, k, v = draw(seq)
    causal = partial(sdpa, is_causal=True)
    calls = {"SDPA, causal": causal, **family(seq)}
    times = bench.times({name: partial(call, q, k, v) for name, call in calls.items()}
                        | {f"{name}, with backward": with_backward(call, seq) for name, call in calls.items()})
    faster = {}
    for name in calls:
        for end in ("", ", with backward"):
            faster[name + end] = measure.Spread(*sorted(1 / each for each in measure.ratios(times, to="SDPA, causal" + end)[name + end]))
            low, median, high = faster[name + end]
            faster[name + end] = measure.Spread(median, low, high)
    bench.table(f"N = {seq}", [times_row(times, name, **{"times faster than SDPA": spread(faster[name])}) for name in times])
    if seq == 16384:
        bench.bar(f"N = {seq}: linear attention, times faster than SDPA", faster["linear, chunked"].median, at_least=8)
    return measure.medians(times)


def exactness(bench: Bench) -> None:
    """Chunked against quadratic: φ(q) φ(k)ᵀ, masked, rows divided by their sums."""
    rows = []
    for seq in (100, 1024, 2048):
        q, k, v = draw(seq)
        scores = (linear.elu_plus_one(q) @ linear.elu_plus_one(k).mT).tril()
        expected = scores @ v / scores.sum(-1, keepdim=True)
        error = (linear.linear_attention(q, k, v)[0] - expected).abs().max().item()
        rows.append({"what": f"N = {seq}", "largest difference": rounded(error), "largest entry": rounded(expected.abs().max().item())})
        bench.bar(f"N = {seq}: chunked against quadratic, largest difference", error, at_most=1e-5)
    bench.table("chunked against its own quadratic form, float32", rows)
