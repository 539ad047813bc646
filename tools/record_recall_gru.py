"""Train the GRU of chapter 1 longer than the chapter has time for, and record how it does.

    python -m tools.record_recall_gru            # rewrites chapters/data/01_recall_gru.json; three minutes on one core

The task, the training, the exam and the network are the chapter's own: the cells that define them are executed.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import io
import json
import platform
from importlib import metadata

from tools import chapters

CHAPTER = "01_why_attention"
OUT = chapters.ROOT / "chapters" / "data" / "01_recall_gru.json"
NEEDED = {"rng", "make_recall", "Reader", "train", "exam", "RecurrentReader"}  # a name -> the one cell that binds it
SEEDS, CHECKPOINTS, EVERY = (0, 1, 2), 6, 1000
STEP_SIZES = (0.005, 0.01, 0.02)


def bound(source: str) -> set[str]:
    """Return the names that a cell binds at its top level by `def`, `class` or `=`."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def definitions() -> dict[str, object]:
    """Execute the chapter's cells that define `NEEDED`, in their order, and return what they define."""
    (chapter,) = chapters.find(chapters.ROOT, [CHAPTER])
    cells = [cell.source for cell in chapters.read_source(chapter).cells if cell.cell_type == "code"]
    chosen = [source for source in cells if bound(source) & NEEDED]
    if missing := NEEDED.difference(*map(bound, chosen)):
        raise chapters.ChapterError(f"{CHAPTER} does not define {', '.join(sorted(missing))}.")
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):  # what the cells print is not wanted here
        for source in chosen:
            exec(compile(source, CHAPTER, "exec"), names)
    return names


def shares(names: dict[str, object], seed: int, checkpoints: int, lr: float) -> list[float]:
    """Train one GRU of width 64 and return its share of right answers at each checkpoint, to 2 digits."""
    names["rng"] = names["np"].random.default_rng(seed)  # the one `train` draws its stories from
    names["torch"].manual_seed(seed)
    gru, found = names["RecurrentReader"](width=64), []
    for _ in range(checkpoints):
        names["train"](gru, EVERY, lr=lr)
        found.append(round(float(names["exam"](gru).mean()), 2))
    print(f"seed {seed}, step size {lr}: {found}", flush=True)
    return found


def main() -> None:
    """Train, and write the record."""
    names = definitions()
    long = [shares(names, seed, CHECKPOINTS, 0.01) for seed in SEEDS]
    by_size = {str(lr): [found[0] for found in long] if lr == 0.01 else
               [shares(names, seed, 1, lr)[0] for seed in SEEDS] for lr in STEP_SIZES}
    record = {
        "what": "share of right answers of RecurrentReader(width=64) of chapter 1 on stories of 8 pairs",
        "how": "make_recall, train, exam and RecurrentReader are the chapter's own cells; for each seed "
               "np.random.default_rng(seed) and torch.manual_seed(seed), then six times train(gru, 1000, lr=0.01), "
               "each followed by exam(gru).mean(); other step sizes: once train(gru, 1000, lr=...)",
        "command": "python -m tools.record_recall_gru",
        "device": f"one CPU core ({platform.machine()})",
        "versions": {"python": platform.python_version(),
                     **{name: metadata.version(name) for name in ("numpy", "torch")}},
        "date": datetime.date.today().isoformat(),
        "seeds": SEEDS,
        "steps": [EVERY * (i + 1) for i in range(CHECKPOINTS)],
        "share_right": long,
        "after_1000_steps_by_step_size": by_size,
    }
    OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
