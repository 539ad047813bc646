"""Time the layers of chapter 14 at more widths and lengths than the chapter has time for, and record them.

    python -m tools.record_complexity            # rewrites chapters/data/14_complexity.json; ten minutes on one core

The layers, their costs, the timing and the two models are the chapter's own: the cells that define them are executed.
"""

from __future__ import annotations

import contextlib
import io

from attnlib import measure
from tools import chapters
from tools.record_recall_gru import bound

CHAPTER = "14_complexity"
OUT = chapters.ROOT / "chapters" / "data" / f"{CHAPTER}.json"
NEEDED = {"naive", "Layer", "build", "COSTS", "run_all", "PAIRS", "meets", "from_rates", "seconds_of", "all_meetings"}
RUNS = [  # width, heads, batch, longest sequence in widths
    (128, 2, 1, 32), (256, 4, 1, 16), (512, 8, 1, 8), (128, 2, 16, 16), (256, 4, 16, 8),
]
PEAK_SETUP = """
import torch
from torch.nn import functional as F
def naive(q, k, v): return torch.softmax(q / 8 @ k.mT, dim=-1) @ v
core = {core}
core(*torch.randn(3, 1, 4, 8, 64))
q, k, v = torch.randn(3, 1, 4, {n}, 64)
"""


def definitions() -> dict[str, object]:
    """Execute the chapter's imports and the cells that define `NEEDED`, in their order, and return what they define."""
    (chapter,) = chapters.find(chapters.ROOT, [CHAPTER])
    cells = [cell.source for cell in chapters.read_source(chapter).cells if cell.cell_type == "code"]
    chosen = [cells[0], *(source for source in cells[1:] if bound(source) & NEEDED)]
    if missing := NEEDED.difference(*map(bound, chosen)):
        raise chapters.ChapterError(f"{CHAPTER} does not define {', '.join(sorted(missing))}.")
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):  # what the cells print is not wanted here
        for source in chosen:
            exec(compile(source, CHAPTER, "exec"), names)
    return names


def one_run(names: dict, dim: int, heads: int, batch: int, widths: int) -> dict:
    """Time everything at one width, from half a width of tokens to `widths` widths."""
    lengths = [dim // 2]
    while lengths[-1] < widths * dim:
        lengths.append(2 * lengths[-1])
    names["torch"].manual_seed(0)
    made = names["build"](dim, heads)
    times, model = names["run_all"](made, lengths, dim, batch, repeats=7), names["from_rates"](made, dim, batch, repeats=25)
    seconds = {n: measure.medians(times[n]) for n in lengths}
    meetings = names["all_meetings"](times, model, dim, heads, batch)
    print(dim, batch, meetings, flush=True)
    return {
        "lengths": lengths, "heads": heads,
        "seconds": {name: [rounded(seconds[n].get(name)) for n in lengths] for name in seconds[lengths[0]]},
        "meetings": {name: {kind: n and round(n) for kind, n in kinds.items()} for name, kinds in meetings.items()},
    }


def rounded(seconds: float | None) -> float | None:
    """Three digits; None stays None."""
    return seconds and float(f"{seconds:.3g}")


def main() -> None:
    """Measure, and write the record."""
    names = definitions()
    runs = {f"d={dim} batch={batch}": one_run(names, dim, heads, batch, widths) for dim, heads, batch, widths in RUNS}
    peaks = {core: {str(n): measure.peak_memory(PEAK_SETUP.format(core=code, n=n), "core(q, k, v)") for n in (1024, 2048, 4096)}
             for core, code in (("naive", "naive"), ("fused", "F.scaled_dot_product_attention"))}
    measure.record(
        OUT, "CPU seconds of one forward call of the layers of chapter 14 and of their parts, medians of 7 rounds in turns, "
        "and of a product of two 512 x 512 matrices (matmul) in the same rounds; the lengths "
        "at which one passes another: counted in FLOPs, predicted from rates of runs of half a width and one width of tokens, found between the "
        "lengths measured (null: beyond them; the shortest: there already); bytes by which a process grows at most in naive and fused attention, 4 heads of 64",
        "python -m tools.record_complexity", {"runs": runs, "peak_bytes": peaks})


if __name__ == "__main__":
    main()
