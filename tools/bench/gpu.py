"""The kernels on a GPU, against PyTorch's by name: time, TFLOP/s, and where naive attention sits under the roof.

    python -m tools.bench.gpu        # `make bench-gpu`: writes chapters/data/gpu-attention.json, -sparse, -decode and -roofline

Without a GPU it says so and writes nothing.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attnlib import costs, masks, measure, sparse
from tools.chapters import ROOT

LENGTHS, WIDTHS, TOKENS = (512, 1024, 2048, 4096, 8192, 16384), (64, 128), 16384  # batch · seq = TOKENS, as the papers have it
DIM = 2048  # heads · dim_head
COMMAND = "make bench-gpu"
PATTERNS = {"causal": masks.causal, "window 1024": masks.sliding_window(1023),
            "documents of 1000": masks.both(masks.causal, lambda q_idx, k_idx: q_idx // 1000 == k_idx // 1000)}


@dataclass(frozen=True)
class Clock:
    """How a call is timed, and on what.

    Attributes
    ----------
    device : str
        Where the tensors are.
    dtype : torch.dtype
        Of the tensors.
    seconds : function
        call -> seconds of one call.
    """

    device: str
    dtype: torch.dtype
    seconds: Callable[[Callable[[], object]], float]


def on_gpu(call: Callable[[], object], rounds: int = 20) -> float:
    """Seconds of one call on the GPU, the median of several, each with a cold L2 cache, from events on the device."""
    flush = torch.empty(2**26, dtype=torch.int32, device="cuda")
    call()
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for start, end in pairs:
        flush.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs) / 1e3


def opponents(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> dict[str, Callable]:
    """Every way to compute this attention, by name; each takes q, k, v."""
    from attnlib import kernels

    def named(backend: SDPBackend) -> Callable:
        def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            with sdpa_kernel(backend):
                return sdpa(q, k, v, is_causal=causal)
        return call

    calls = {"attnlib.kernels": lambda q, k, v: kernels.attention(q, k, v, causal)}
    if q.device.type == "cuda":
        calls |= {"FLASH_ATTENTION": named(SDPBackend.FLASH_ATTENTION), "CUDNN_ATTENTION": named(SDPBackend.CUDNN_ATTENTION), "flex_attention": flex(q, k, masks.causal if causal else None)}
    else:
        calls["MATH"] = named(SDPBackend.MATH)
    return calls


def flex(q: torch.Tensor, k: torch.Tensor, predicate: masks.Predicate | None) -> Callable:
    """PyTorch's flex_attention, compiled for this pattern."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    compiled, block_mask = torch.compile(flex_attention), None
    if predicate is not None:
        block_mask = create_block_mask(masks.as_mask_mod(predicate, q.shape[2], k.shape[2]), None, None, q.shape[2], k.shape[2], device=q.device)
    return lambda q, k, v: compiled(q, k, v, block_mask=block_mask)


def attention_rows(clock: Clock, lengths: tuple = LENGTHS, widths: tuple = WIDTHS, dim: int = DIM, tokens: int = TOKENS) -> list[dict]:
    """One row for each length, width, pattern and direction: seconds, TFLOP/s, and how they compare."""
    rows = []
    for width in widths:
        for causal in (False, True):
            for seq in lengths:
                shape = max(1, tokens // seq), dim // width, seq, width
                q, k, v = (torch.randn(shape, device=clock.device, dtype=clock.dtype, requires_grad=True) for _ in range(3))
                pairs = costs.causal_pairs(seq) if causal else seq * seq
                cost = costs.attention_cost(shape[1], seq, seq, width, pairs=pairs, batch=shape[0])
                calls = opponents(q, k, v, causal)
                with torch.no_grad():
                    alike({name: call(q, k, v) for name, call in calls.items()}, clock.dtype)
                    rows.append(row(clock, "forward", shape, causal, {name: bind(call, q, k, v) for name, call in calls.items()}, cost.flops))
                d_out = torch.randn_like(q)
                outs = {name: call(q, k, v) for name, call in calls.items()}
                back = {name: lambda out=out: torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True) for name, out in outs.items()}  # noqa: B023
                flops = 5 * cost.flops // 2                  # five products where forward has two
                rows.append(row(clock, "backward", shape, causal, back, flops))
    return rows


def bind(call: Callable, *args: torch.Tensor) -> Callable:
    """A call without arguments."""
    return lambda: call(*args)


def alike(outs: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Raise unless all compute the same: a few roundings of the dtype apart, for results of size 1."""
    first, *others = outs
    for name in others:
        difference = (outs[name].float() - outs[first].float()).abs().max().item()
        if not difference < 8 * torch.finfo(dtype).eps:
            raise AssertionError(f"{name} and {first} differ by {difference:.2e}: one of them computes something else")


def row(clock: Clock, direction: str, shape: tuple, causal: bool, calls: dict[str, Callable], flops: int) -> dict:
    """Time the calls, one after the other."""
    batch, heads, seq, width = shape
    seconds = {name: clock.seconds(call) for name, call in calls.items()}
    ours = seconds["attnlib.kernels"]
    found = {"direction": direction, "batch": batch, "heads": heads, "seq": seq, "dim_head": width, "causal": causal,
             "TFLOP/s": {name: flops / each / 1e12 for name, each in seconds.items()},
             "speed over": {name: each / ours for name, each in seconds.items() if name != "attnlib.kernels"}}
    print(f"{direction:8} {'causal' if causal else 'full':6} N = {seq:5} D = {width:3}  "
          + "  ".join(f"{name} {speed:6.1f}" for name, speed in found["TFLOP/s"].items()), flush=True)
    return found


def sparse_rows(clock: Clock, seq: int = 16384, heads: int = 16, width: int = 128, block_size: int = 128, patterns: dict = PATTERNS) -> list[dict]:
    """Time over (dense time times the share of blocks computed), forward and backward, and flex_attention's time over ours."""
    from attnlib import kernels

    q, k, v = (torch.randn(1, heads, seq, width, device=clock.device, dtype=clock.dtype, requires_grad=True) for _ in range(3))
    d_out, rows = torch.randn_like(q), []
    for name, predicate in patterns.items():
        found = sparse.block_map(predicate, seq, block_size=block_size)
        computed = np.minimum(found.kinds[0], 1).mean()      # as the kernels walk them: whole tiles, also at the ends
        calls = {"attnlib.kernels": lambda found=found: kernels.block_sparse_attention(q, k, v, found),
                 "dense": lambda: kernels.attention(q, k, v)}
        if q.device.type == "cuda":
            calls["flex_attention"] = bind(flex(q, k, predicate), q, k, v)
        outs = {each: call() for each, call in calls.items()}
        alike({each: out for each, out in outs.items() if each != "dense"}, clock.dtype)
        back = {each: lambda out=out: torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True) for each, out in outs.items()}
        for direction, timed in (("forward", calls), ("backward", back)):
            seconds = {each: clock.seconds(call) for each, call in timed.items()}
            ours = seconds["attnlib.kernels"]
            rows.append({"pattern": name, "direction": direction, "seq": seq, "block_size": block_size, "computed": float(computed),
                         "seconds": seconds, "over dense times computed": ours / (seconds["dense"] * float(computed)),
                         "speed over": {each: other / ours for each, other in seconds.items() if each != "attnlib.kernels"}})
            print(f"{direction:8} {name}: {computed:.1%} computed, time over dense times that "
                  f"{rows[-1]['over dense times computed']:.2f}", flush=True)
    return rows


def decode_rows(clock: Clock, bytes_per_second: float, batch: int = 16, seq: int = 32768, heads: int = 32, width: int = 128,
                groups: tuple = (1, 4, 8)) -> list[dict]:
    """One query for each sequence against a long cache: time over the bytes of the cache by the bandwidth."""
    from attnlib import kernels

    rows = []
    for group in groups:
        q = torch.randn(batch, heads, 1, width, device=clock.device, dtype=clock.dtype)
        k, v = (torch.randn(batch, heads // group, seq, width, device=clock.device, dtype=clock.dtype) for _ in range(2))
        calls = {"attnlib.kernels": lambda: kernels.decode_attention(q, k, v),  # noqa: B023
                 "SDPA": lambda: sdpa(q, k, v, enable_gqa=True)}             # noqa: B023
        with torch.no_grad():
            alike({name: call() for name, call in calls.items()}, clock.dtype)
            seconds = {name: clock.seconds(call) for name, call in calls.items()}
        least = 2 * k.nbytes / bytes_per_second
        rows.append({"batch": batch, "seq": seq, "heads": heads, "kv_heads": heads // group, "dim_head": width, "seconds": seconds,
                     "least": least, "over least": seconds["attnlib.kernels"] / least})
        print(f"decode   {heads // group} key heads: time over bytes by bandwidth {rows[-1]['over least']:.2f}", flush=True)
    return rows


def roofline_rows(clock: Clock, seq: int = 8192, heads: int = 16, width: int = 128, size: int = 8192, copied: int = 2**29) -> dict:
    """The two speeds of the device, and the three steps of naive attention under its roof."""
    a, b, c = (torch.randn(size, size, device=clock.device, dtype=clock.dtype) for _ in range(3))
    far = torch.zeros(copied, device=clock.device, dtype=torch.uint8)
    near = torch.empty_like(far)
    found = {"FLOP/s": 2 * size**3 / clock.seconds(lambda: torch.mm(a, b, out=c)), "bytes/s": 2 * copied / clock.seconds(lambda: near.copy_(far))}
    q, k, v = (torch.randn(heads, seq, width, device=clock.device, dtype=clock.dtype) for _ in range(3))
    scores = torch.bmm(q, k.mT)
    weights = torch.softmax(scores, -1)
    programs = {"scores": lambda: torch.bmm(q, k.mT, out=scores), "softmax": lambda: torch.softmax(scores, -1), "values": lambda: torch.bmm(weights, v)}
    steps, size_of = costs.attention_steps(heads, seq, seq, width), torch.finfo(clock.dtype).bits // 8
    found["steps"] = {}
    for name, program in programs.items():
        seconds, cost = clock.seconds(program), steps[name]
        least = max(cost.flops / found["FLOP/s"], size_of * cost.moved / found["bytes/s"])
        found["steps"][name] = {"seconds": seconds, "least": least, "FLOP per byte": cost.intensity(size_of), "FLOP/s": cost.flops / seconds}
    return found


def main() -> int:
    """Measure and record, or say that there is no GPU."""
    if not torch.cuda.is_available():
        print("There is no GPU here that PyTorch can use: nothing is measured and nothing is written.", file=sys.stderr)
        return 2
    clock, folder = Clock("cuda", torch.bfloat16, on_gpu), ROOT / "chapters" / "data"
    device = torch.cuda.get_device_name()
    what = "median of 20 calls timed by events on the device, L2 cache overwritten before each; bfloat16"
    measure.record(folder / "gpu-attention.json", what, COMMAND, {"gpu": device, "rows": attention_rows(clock)}, ["triton"])
    measure.record(folder / "gpu-sparse.json", what, COMMAND, {"gpu": device, "rows": sparse_rows(clock)}, ["triton"])
    roof = roofline_rows(clock)
    measure.record(folder / "gpu-roofline.json", what, COMMAND, {"gpu": device, **roof}, ["triton"])
    measure.record(folder / "gpu-decode.json", what, COMMAND, {"gpu": device, "rows": decode_rows(clock, roof["bytes/s"])}, ["triton"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
