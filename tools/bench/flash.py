"""Exact attention in tiles against PyTorch's fused kernel and against ordinary attention: time and memory."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attnlib import layers, masks, measure
from attnlib.flash import flash_attention
from tools.bench.common import DIM_HEAD, HEADS, Bench, draw, rounded, spread, times_row, with_backward

NAME = "flash"
WHAT = (f"attention in tiles with {HEADS} heads of width {DIM_HEAD} in float32: CPU time of one thread, medians over rounds in turns "
        "within one process, ratios with quartiles; peak memory of fresh processes, beyond the inputs")
LENGTHS = (256, 1024, 4096, 8192)
ORDINARY = 1024  # the longest at which ordinary attention, too, is timed
PEAK_SETUP = """
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa
from attnlib.flash import flash_attention
call = {call}
def run(q, k, v):
    out = call(q, k, v)
    return torch.autograd.grad(out, (q, k, v), torch.ones_like(out)) if {backward} else out
make = lambda n: [torch.randn(1, {heads}, n, {width}, requires_grad={backward}) for _ in range(3)]
small = run(*make(512))
q, k, v = make({seq})
del small
"""


def measure_it(bench: Bench) -> None:
    """All tables of this part."""
    for causal in (False, True):
        for seq in LENGTHS:
            against_others(bench, seq, causal)
    peaks(bench, LENGTHS[-1])


def against_others(bench: Bench, seq: int, causal: bool) -> None:
    """One length: forward, and forward with backward."""
    calls = {"attnlib.flash": partial(flash_attention, causal=causal), "SDPA": partial(sdpa, is_causal=causal)}
    if seq <= ORDINARY:
        mask = masks.to_array(masks.causal, seq) if causal else None
        calls["all scores"] = partial(ordinary, mask=mask)
    q, k, v = draw(seq)
    truth = calls["SDPA"](q, k, v)
    for name, call in calls.items():
        # sums of some thousand float32 products of numbers near 1, in different orders
        assert (call(q, k, v) - truth).abs().max() < 1e-5, f"{name} computes something else"
    how = "causal" if causal else "all pairs"
    for direction, wrap in (("forward", lambda call: partial(call, q, k, v)), ("forward and backward", lambda call: with_backward(call, seq))):
        times = bench.times({name: wrap(call) for name, call in calls.items()})
        over = measure.ratios(times, to="SDPA")
        bench.table(f"{direction}, {how}, N = {seq}", [times_row(times, name, **{"over SDPA": spread(over[name])}) for name in calls])
        limit = 1.17 if direction != "forward" else 1.35 if causal else 1.25
        if seq >= (8192 if causal or direction != "forward" else 1024):
            bench.bar(f"{direction}, {how}, N = {seq}: over SDPA", over["attnlib.flash"].median, at_most=limit)


def ordinary(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: object) -> torch.Tensor:
    """Attention with all its scores."""
    return layers.attention(q, k, v, mask if mask is None else torch.from_numpy(mask))[0]


def peaks(bench: Bench, seq: int) -> None:
    """Memory beyond the inputs, in processes of their own."""
    rows = []
    for causal in (False, True):
        for backward in (False, True):
            found = {}
            for name, call in (("attnlib.flash", f"lambda q, k, v: flash_attention(q, k, v, {causal})"),
                               ("SDPA", f"lambda q, k, v: sdpa(q, k, v, is_causal={causal})")):
                setup = PEAK_SETUP.format(call=call, backward=backward, heads=HEADS, width=DIM_HEAD, seq=seq)
                found[name] = measure.peak_memory(setup, "out = run(q, k, v)")
            what = f"{'causal' if causal else 'all pairs'}, {'forward and backward' if backward else 'forward'}"
            rows.append({"what": what, **{f"{name} MiB": rounded(value / 2**20) for name, value in found.items()}})
            bench.bar(f"peak memory, {what}, N = {seq}: over SDPA", found["attnlib.flash"] / found["SDPA"], at_most=1.3)
    bench.table(f"peak memory beyond the inputs, N = {seq}", rows)
