"""Generating one token: a cache that is allocated once against concatenation and against starting over."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attnlib import costs, measure
from attnlib.cache import KVCache, StreamingCache, apply_rope, decode_attention
from tools.bench.common import DIM_HEAD, HEADS, Bench, rounded, spread, times_row

NAME = "decode"
WHAT = (f"one step of generation after N - 1 tokens, {HEADS} query heads of width {DIM_HEAD}, float32: CPU time of one thread, "
        "medians over rounds in turns within one process, ratios with quartiles; bytes of tensors made during a step")
SINKS, KEPT = 4, 1020


def measure_it(bench: Bench) -> None:
    """All tables of this part."""
    seconds = {seq: one_length(bench, seq) for seq in (1024, 8192)}
    rows = [{"what": name, "time at 8192 over time at 1024": rounded(seconds[8192][name] / seconds[1024][name])} for name in seconds[1024]]
    bench.table("what a longer text costs", rows)


def one_length(bench: Bench, seq: int) -> dict[str, float]:
    """Steps with 8, 2 and 1 key/value heads; return the seconds."""
    q, calls, cached = torch.randn(1, HEADS, 1, DIM_HEAD), {}, {}
    for kv_heads in (8, 2, 1):
        calls |= steps(q, kv_heads, seq)
        cached[f"cache, {kv_heads} kv heads"] = costs.kv_cache_bytes(1, kv_heads, DIM_HEAD, seq, bytes_per_number=4)
    calls[f"streaming cache, {SINKS} + {KEPT} tokens, 8 kv heads"] = streaming(q)
    times = bench.times(calls)
    ratios = measure.ratios(times, to="cache, 8 kv heads")
    rows = []
    for name, call in calls.items():
        more = {"cache MiB": rounded(cached[name] / 2**20)} if name in cached else {}
        made = measure.allocated_bytes(call) / 2**20
        rows.append(times_row(times, name, **{"over cache, 8 kv heads": spread(ratios[name]), "made in a step MiB": rounded(made)}, **more))
    bench.table(f"one step, N = {seq}", rows)
    if seq == 8192:
        concatenated = measure.ratios(times, to="cache, 8 kv heads")["concatenation and SDPA, 8 kv heads"].median
        bench.bar(f"N = {seq}: concatenation over cache, 8 kv heads", concatenated, at_least=5)
        grouped = measure.ratios(times, to="cache, 2 kv heads")["cache, 8 kv heads"].median
        bench.bar(f"N = {seq}: cache with 8 kv heads over cache with 2", grouped, at_least=2)
    return measure.medians(times)


def steps(q: torch.Tensor, kv_heads: int, seq: int) -> dict:
    """A step with the cache, with the cache and SDPA, and with concatenation."""
    cache, (k, v) = KVCache(1, kv_heads, seq, DIM_HEAD), torch.randn(2, 1, kv_heads, 1, DIM_HEAD)
    cache.append(torch.randn(1, kv_heads, seq - 1, DIM_HEAD), torch.randn(1, kv_heads, seq - 1, DIM_HEAD))
    grown = [cache.keys.clone(), cache.values.clone()]

    def cached():
        cache.length = seq - 1  # so that every step is the same one
        return decode_attention(q, *cache.append(k, v))

    def cached_sdpa():
        cache.length = seq - 1
        return sdpa(q, *cache.append(k, v), enable_gqa=True)

    # As it is done: every step's keys are the next one's; some hundred steps make N 1% larger. Each array is the largest so
    # far, so the system hands out new pages at every step; where an allocator has room to reuse, it takes a third of the time.
    def concatenated():
        grown[:] = torch.cat([grown[0], k], -2), torch.cat([grown[1], v], -2)
        return sdpa(q, *grown, enable_gqa=True)

    # sums of up to some thousand float32 products, in different orders
    assert max((call() - cached()).abs().max() for call in (concatenated, cached_sdpa)) < 1e-5
    return {f"cache, {kv_heads} kv heads": cached, f"cache and SDPA, {kv_heads} kv heads": cached_sdpa,
            f"concatenation and SDPA, {kv_heads} kv heads": concatenated}


def streaming(q: torch.Tensor) -> object:
    """A step with sinks and a window: the keys are rotated anew, the memory stays the same."""
    cache, (k, v) = StreamingCache(1, HEADS, SINKS, KEPT, DIM_HEAD), torch.randn(2, 1, HEADS, 1, DIM_HEAD)
    cache.append(*torch.randn(2, 1, HEADS, SINKS + 2 * KEPT, DIM_HEAD))

    def step():
        cache.append(k, v)
        positions = cache.positions
        return decode_attention(apply_rope(q, positions.amax().view(1)), apply_rope(cache.keys, positions), cache.values)

    return step
