"""Sparse attention: the sliding window against its ideal and against others, its growth, and every other pattern."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attnlib import masks, measure, sparse
from tools.bench.common import DIM_HEAD, HEADS, Bench, draw, rounded, spread, times_row, with_backward

NAME = "sparse"
WHAT = (f"sparse attention with {HEADS} heads of width {DIM_HEAD} in float32: CPU time of one thread, medians over rounds in "
        "turns within one process, ratios with quartiles; peak memory of fresh processes")
WINDOW = 256
PEAK_SETUP = """
import torch
from attnlib.sparse import sliding_window_attention as attend
def run(q, k, v, backward):
    out = attend(q, k, v, {window})
    return torch.autograd.grad(out, (q, k, v), torch.ones_like(out)) if backward else out
make = lambda n: [torch.randn(1, {heads}, n, {width}, requires_grad={backward}) for _ in range(3)]
small = run(*make({window} * 2), {backward})
q, k, v = make({seq})
del small
"""


def measure_it(bench: Bench) -> None:
    """All tables of this part."""
    window = partial(sparse.sliding_window_attention, left=WINDOW)
    for seq in (4096, 16384):
        against_others(bench, window, seq)
    backward(bench, window, 8192)
    growth(bench, window)
    patterns(bench, 8192)


def against_others(bench: Bench, window: object, seq: int) -> None:
    """One length: time over the ideal, 4·N·w·d at the speed of a matrix product, and over ours."""
    q, k, v = draw(seq)
    calls = {"attnlib.sparse": lambda: window(q, k, v), "flex_attention, compiled, block mask": flex(q, k, v),
             "local-attention": local(bench, q, k, v), "SDPA, causal, dense": lambda: sdpa(q, k, v, is_causal=True)}
    if seq <= 4096:
        mask = torch.from_numpy(masks.to_array(masks.sliding_window(WINDOW), seq))
        calls["SDPA, boolean mask"] = lambda: sdpa(q, k, v, attn_mask=mask)
    truth = calls["attnlib.sparse"]()
    for name, call in calls.items():  # those that compute the same pattern give the same result
        if call and "dense" not in name:
            # sums of some hundred float32 products, in different orders
            assert (call() - truth).abs().max() < 1e-5, f"{name} computes something else"
    times = bench.times(calls, matmul=1024)
    ideal = measure.multiples(times, dict.fromkeys([name for name in times if name != "matmul"], 4 * seq * WINDOW * HEADS * DIM_HEAD))
    to_ours = measure.ratios(times, to="attnlib.sparse")
    rows = [times_row(times, name, **{"over the ideal": spread(ideal[name]), "over attnlib": spread(to_ours[name])})
            if call else {"what": name, "CPU ms": bench.versions[name]} for name, call in calls.items()]
    rows.append(times_row(times, "matmul", **{"GFLOP/s": rounded(measure.matmul_rate(times) / 1e9)}))
    bench.table(f"causal window of {WINDOW} keys and itself, N = {seq}", rows)
    if seq == 16384:
        bench.bar(f"N = {seq}: window over the ideal", ideal["attnlib.sparse"].median, at_most=1.9)
        bench.bar(f"N = {seq}: flex_attention over window", to_ours["flex_attention, compiled, block mask"].median, at_least=1)
        if "local-attention" in to_ours:
            bench.bar(f"N = {seq}: local-attention over window", to_ours["local-attention"].median, at_least=4)


def flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> object:
    """PyTorch's flex_attention, compiled, with the block mask of the window (on CPUs it has no backward pass)."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    block_mask = create_block_mask(masks.as_mask_mod(masks.sliding_window(WINDOW), q.shape[2], k.shape[2]), None, None, q.shape[2], k.shape[2], device="cpu")
    compiled = torch.compile(flex_attention)
    return torch.no_grad()(lambda: compiled(q, k, v, block_mask=block_mask))


def local(bench: Bench, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> object:
    """The package local-attention, told to see exactly the window."""
    found = bench.other("local-attention", "local_attention")
    if found is None:
        return None
    attend = found.LocalAttention(window_size=WINDOW, causal=True, look_backward=1, exact_windowsize=True, use_rotary_pos_emb=False)
    return torch.no_grad()(lambda: attend(q, k, v))


def backward(bench: Bench, window: object, seq: int) -> None:
    """Forward and backward pass together."""
    calls = {"attnlib.sparse": window, "SDPA, causal": partial(sdpa, is_causal=True)}
    times = bench.times({name: with_backward(call, seq) for name, call in calls.items()})
    to_ours = measure.ratios(times, to="attnlib.sparse")
    bench.table(f"forward and backward, window {WINDOW}, N = {seq}",
                [times_row(times, name, **{"over attnlib": spread(to_ours[name])}) for name in calls])
    bench.bar(f"forward and backward, N = {seq}: causal dense SDPA over window", to_ours["SDPA, causal"].median, at_least=6)


def growth(bench: Bench, window: object) -> None:
    """From 4k to 32k tokens: slopes of time and of peak memory."""
    sizes, inputs = [4096, 8192, 16384, 32768], {}
    for seq in sizes:
        inputs[seq] = draw(seq)
    times = bench.times({f"forward {seq}": partial(window, *inputs[seq]) for seq in sizes}
                        | {f"both {seq}": with_backward(window, seq) for seq in sizes})
    seconds, rows = measure.medians(times), []
    found: dict[str, list] = {"forward": [], "both": [], "peak": [], "peak both": []}
    for seq in sizes:
        peaks = [measure.peak_memory(
            PEAK_SETUP.format(window=WINDOW, heads=HEADS, width=DIM_HEAD, seq=seq, backward=backward), f"out = run(q, k, v, {backward})")
            for backward in (False, True)]
        found["forward"].append(seconds[f"forward {seq}"])
        found["both"].append(seconds[f"both {seq}"])
        found["peak"].append(peaks[0])
        found["peak both"].append(peaks[1])
        rows.append({"what": f"N = {seq}", "forward ms": rounded(1000 * seconds[f"forward {seq}"]),
                     "with backward ms": rounded(1000 * seconds[f"both {seq}"]), "peak MiB": rounded(peaks[0] / 2**20),
                     "with backward MiB": rounded(peaks[1] / 2**20), "q, k, v MiB": 3 * seq * HEADS * DIM_HEAD * 4 / 2**20})
    slopes = {name: measure.slope(sizes, values) for name, values in found.items()}
    rows.append({"what": "slope", **dict(zip(("forward ms", "with backward ms", "peak MiB", "with backward MiB"),
                                             (rounded(each.exponent) for each in slopes.values()), strict=True))})
    rows.append({"what": "its standard error", **dict(zip(("forward ms", "with backward ms", "peak MiB", "with backward MiB"),
                                                          (rounded(each.error) for each in slopes.values()), strict=True))})
    bench.table(f"growth of the window, {WINDOW} keys and itself; peak memory is what comes on top of q, k, v", rows)
    bench.bar("slope of time, 4k to 32k, forward", slopes["forward"].exponent, at_least=0.95, at_most=1.1)
    bench.bar("slope of time, 4k to 32k, with backward", slopes["both"].exponent, at_least=0.95, at_most=1.1)
    bench.bar("slope of peak memory, forward", slopes["peak"].exponent, at_most=1.1)
    bench.bar("slope of peak memory, with backward", slopes["peak both"].exponent, at_most=1.1)


def blocks_touched(predicate: masks.Predicate, seq: int, block: int) -> float:
    """The share of (block, block) tiles of the score matrix in which a predicate lets some query see some key."""
    columns = torch.arange(seq)
    rows = [predicate(columns[i : i + block, None], columns).expand(block, seq).unflatten(1, (-1, block)).any(2).any(0)
            for i in range(0, seq, block)]
    return float(torch.stack(rows).float().mean())


def patterns(bench: Bench, seq: int) -> None:
    """Every pattern: time over what dense attention would take for the blocks computed."""
    q, k, v = draw(seq)
    left, wide, tile = WINDOW, 1024, 64  # windows are counted in tiles of 64 by 64
    every, window = masks.either, masks.sliding_window
    calls = {  # call, and the share of blocks it has to compute
        f"sliding_window_attention({left})": (
            partial(sparse.sliding_window_attention, left=left), blocks_touched(window(left), seq, tile)),
        f"sliding_window_attention({wide})": (
            partial(sparse.sliding_window_attention, left=wide), blocks_touched(window(wide), seq, tile)),
        f"sliding_window_attention({left}, {left})": (
            partial(sparse.sliding_window_attention, left=left, right=left), blocks_touched(window(left, left), seq, tile)),
        f"dilated_attention({left}, step=4)": (  # four classes of seq / 4 positions, each with a window
            partial(sparse.dilated_attention, left=left, step=4), blocks_touched(window(left), seq // 4, tile) / 4),
        f"global_window_attention({tile}, {left}, {left})": (
            partial(sparse.global_window_attention, n_global=tile, left=left, right=left),
            blocks_touched(every(masks.global_tokens(tile), window(left, left)), seq, tile)),
    }
    for name, predicate, size in (
        ("causal", masks.causal, 128), (f"window {wide}", window(wide), 128),
        ("BigBird: 3 + 2 + 3 blocks", masks.bigbird(seq, 64, window=3, n_global=2, n_random=3), 64),
        ("documents of 1000", lambda q_idx, k_idx: (q_idx // 1000 == k_idx // 1000) & (k_idx <= q_idx), 128),
    ):
        found = sparse.block_map(predicate, seq, block_size=size)
        calls[f"block_sparse_attention({name}), blocks of {size}"] = (
            partial(sparse.block_sparse_attention, predicate=found), blocks_touched(predicate, seq, size))
    top = 16
    calls[f"top_k_block_attention({top} of {seq // tile}, {tile})"] = (  # the first blocks of queries have fewer to choose from
        partial(sparse.top_k_block_attention, top_k=top, block_size=tile),
        sum(min(top, i + 1) for i in range(seq // tile)) / (seq // tile) ** 2)
    for direction, wrap in (("forward", lambda call: partial(call, q, k, v)), ("forward and backward", lambda call: with_backward(call, seq))):
        times = bench.times({"SDPA, all pairs": wrap(sdpa)} | {name: wrap(call) for name, (call, _) in calls.items()})
        to_dense = measure.ratios(times, to="SDPA, all pairs")
        rows = [times_row(times, "SDPA, all pairs", **{"share of blocks": 1.0})]
        for name, (_, share) in calls.items():
            over = measure.Spread(*(each / share for each in to_dense[name]))
            rows.append(times_row(times, name, **{"share of blocks": rounded(share), "over dense": rounded(to_dense[name].median),
                                                  "over dense times share": spread(over)}))
        bench.table(f"patterns, {direction}, N = {seq}", rows)
        for row in rows[1:] if direction == "forward" else ():
            bench.bar(f"N = {seq}, {row['what']}: over dense time times share of blocks", row["over dense times share"][0], at_most=1.5)
