"""Record what several processes on one machine show of ring attention: errors, bytes sent, and the work of each rank.

    python -m tools.record_ring        4 minutes; writes chapters/data/24_ring.json

Processes are started by torchrun and talk through gloo. They share the cores of one machine, so that seconds on the wall say nothing
about devices; recorded are the seconds that each rank's own thread computes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

from attnlib import measure, ring
from attnlib.flash import flash_attention
from tools import chapters

OUT = chapters.ROOT / "chapters" / "data" / "24_ring.json"
BATCH, HEADS, KV_HEADS, SEQ, DIM_HEAD = 1, 4, 2, 8192, 64
RANKS, REPEATS = (1, 2, 4), 5


def draw() -> list[torch.Tensor]:
    """q, k, v and d_out of the whole sequence, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(BATCH, heads, SEQ, DIM_HEAD, generator=generator) for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)]


def pieces(x: torch.Tensor, ranks: int, zigzag: bool) -> list[torch.Tensor]:
    """One piece a rank."""
    return ring.zigzag_split(x, ranks) if zigzag else list(x.chunk(ranks, -2))


def errors(got: list[torch.Tensor], leaves: list[torch.Tensor], d_out: torch.Tensor) -> list[float]:
    """Largest differences from float64 of out, d_q, d_k, d_v."""
    truth = [x.detach().double().requires_grad_() for x in leaves]
    out = flash_attention(*truth, causal=True)
    expected = [out, *torch.autograd.grad(out, truth, d_out.double())]
    return [(x.double() - y).abs().max().item() for x, y in zip(got, expected, strict=True)]


def of_this_rank(zigzag: bool) -> dict[str, object]:
    """What one process of torchrun finds, and rank 0 the errors of the whole."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    q, k, v, d_out = (pieces(x, ranks, zigzag)[rank] for x in draw())
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    found: dict[str, list[float]] = {"forward": [], "backward": []}
    for _ in range(REPEATS):
        dist.barrier()
        with ring.count_sent() as sent:
            start = time.thread_time()
            out = ring.ring_attention(*leaves, causal=True, zigzag=zigzag)
            middle, bytes_forward = time.thread_time(), sent["bytes"]
            gradients = torch.autograd.grad(out, leaves, d_out)
            found["backward"].append(time.thread_time() - middle)
            found["forward"].append(middle - start)
    mine = {"rank": rank, "bytes_forward": bytes_forward, "bytes_backward": sent["bytes"] - bytes_forward,
            **{f"cpu_seconds_{name}": round(statistics.median(each), 4) for name, each in found.items()}}
    whole = []
    for piece in (out.detach(), *gradients):
        gathered = [torch.empty_like(piece) for _ in range(ranks)]
        dist.all_gather(gathered, piece.contiguous())
        whole.append(ring.zigzag_merge(gathered) if zigzag else torch.cat(gathered, -2))
    if rank == 0:
        *inputs, d_whole = draw()
        mine["errors"] = errors(whole, inputs, d_whole)
    return mine


def process(place: str) -> None:
    """One process of torchrun: measures both placements and leaves them in `place`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {name: of_this_rank(zigzag) for name, zigzag in (("zigzag", True), ("in order", False))}
    (Path(place) / f"{dist.get_rank()}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def pytorch_errors() -> list[float]:
    """The same differences of PyTorch's own attention in float32, in one process."""
    *inputs, d_out = draw()
    leaves = [x.requires_grad_() for x in inputs]
    out = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True)
    return errors([out.detach(), *torch.autograd.grad(out, leaves, d_out)], leaves, d_out)


def main() -> None:
    """Launch, and write the record."""
    runs = []
    for ranks in RANKS:
        with tempfile.TemporaryDirectory() as place:
            subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m",
                            "tools.record_ring", place], cwd=chapters.ROOT, check=True, timeout=300)
            found = [json.loads((Path(place) / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(ranks)]
        for name in ("zigzag", "in order"):
            runs.append({"ranks": ranks, "placement": name, "errors": found[0][name].pop("errors"), "of_rank": [each[name] for each in found]})
    measure.record(OUT, "causal ring attention in float32 in several processes on one machine: largest differences of out, d_q, d_k and d_v "
                        f"from float64, bytes sent, and median CPU seconds of each rank's thread over {REPEATS} repeats",
                   "python -m tools.record_ring",
                   {"sizes": {"batch": BATCH, "heads": HEADS, "kv_heads": KV_HEADS, "seq": SEQ, "dim_head": DIM_HEAD},
                    "pytorch_errors": pytorch_errors(), "runs": runs}, packages=("torch",))


if __name__ == "__main__":
    process(sys.argv[1]) if len(sys.argv) > 1 else main()
