"""The kernels on a GPU, against PyTorch's by name: time, TFLOP/s, and where naive attention sits under the roof.

    python -m tools.bench.gpu        # `make bench-gpu`: writes chapters/data/gpu-attention.json and gpu-roofline.json

Without a GPU it says so and writes nothing.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attnlib import costs, measure
from tools.chapters import ROOT

LENGTHS, WIDTHS, TOKENS = (512, 1024, 2048, 4096, 8192, 16384), (64, 128), 16384  # batch · seq = TOKENS, as the papers have it
DIM = 2048  # heads · dim_head
COMMAND = "make bench-gpu"


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
        calls |= {"FLASH_ATTENTION": named(SDPBackend.FLASH_ATTENTION), "CUDNN_ATTENTION": named(SDPBackend.CUDNN_ATTENTION), "flex_attention": flex(q, k, causal)}
    else:
        calls["MATH"] = named(SDPBackend.MATH)
    return calls


def flex(q: torch.Tensor, k: torch.Tensor, causal: bool) -> Callable:
    """PyTorch's flex_attention, compiled for this pattern."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    compiled, block_mask = torch.compile(flex_attention), None
    if causal:
        block_mask = create_block_mask(lambda b, h, q_idx, k_idx: q_idx >= k_idx, None, None, q.shape[2], k.shape[2], device=q.device)
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
    measure.record(folder / "gpu-roofline.json", what, COMMAND, {"gpu": device, **roofline_rows(clock)}, ["triton"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
