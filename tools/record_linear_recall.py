"""Train the six readers of chapter 17 from three seeds and at three widths, and record what they recall.

    python -m tools.record_linear_recall         # rewrites chapters/data/17_linear_recall.json; ten minutes on one core

The task, the readers, the training and the exam are the chapter's own: the cells that define them are executed.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import platform
from importlib import metadata

from attnlib import linear
from tools import chapters
from tools.record_recall_gru import bound

CHAPTER = "17_linear"
OUT = chapters.ROOT / "chapters" / "data" / "17_linear_recall.json"
NEEDED = {"rng", "make_story", "read", "RecallReader", "train_recall", "exam_recall"}
USES = ("delta_rule_attention", "elu_plus_one", "gated_linear_attention", "linear_attention", "taylor_features")
RULES, COPIES, WIDTHS, SEEDS = ("softmax", "linear", "Taylor", "sum", "gated", "delta"), (1, 2), (8, 16, 32), (0, 1, 2)
LEFT_OUT = {("Taylor", 32)}  # 1057 features: as long as all others together
PAIRS, STEPS = (4, 8, 16, 32, 64), 600


def definitions() -> dict[str, object]:
    """Execute the chapter's cells that define `NEEDED`, in their order, and return what they define."""
    (chapter,) = chapters.find(chapters.ROOT, [CHAPTER])
    cells = [cell.source for cell in chapters.read_source(chapter).cells if cell.cell_type == "code"]
    chosen = [source for source in cells if bound(source) & NEEDED]
    if missing := NEEDED.difference(*map(bound, chosen)):
        raise chapters.ChapterError(f"{CHAPTER} does not define {', '.join(sorted(missing))}.")
    names: dict[str, object] = {name: getattr(linear, name) for name in USES}  # the chapter's own, says the twins' test
    with contextlib.redirect_stdout(io.StringIO()):  # what the cells print is not wanted here
        for source in chosen:
            exec(compile(source, CHAPTER, "exec"), names)
    return names


def recalled(names: dict[str, object], rule: str, copies: int, dim_head: int, seed: int) -> list[float]:
    """Train one reader and return its share of right answers for each number of pairs, to 3 digits."""
    names["torch"].manual_seed(seed)
    reader = names["RecallReader"](rule, dim_head)
    names["train_recall"](reader, copies, STEPS, names["torch"].Generator().manual_seed(seed))
    found = [round(names["exam_recall"](reader, copies, pairs), 3) for pairs in PAIRS]
    print(f"{rule}, {copies}, width {dim_head}, seed {seed}: {found}", flush=True)
    return found


def main() -> None:
    """Train, and write the record."""
    names = definitions()
    runs = [{"rule": rule, "copies": copies, "dim_head": width,
             "share_right": [recalled(names, rule, copies, width, seed) for seed in SEEDS]}
            for width in WIDTHS for copies in COPIES for rule in RULES if (rule, width) not in LEFT_OUT]
    record = {
        "what": "share of right answers of the RecallReader of chapter 17, by number of pairs in the story",
        "how": "make_story, read, RecallReader, train_recall and exam_recall are the chapter's own cells; for each seed "
               f"torch.manual_seed(seed), then train_recall(RecallReader(rule, dim_head), copies, {STEPS}, "
               "torch.Generator().manual_seed(seed)), then exam_recall(reader, copies, pairs)",
        "command": "python -m tools.record_linear_recall",
        "device": f"one CPU core ({platform.machine()})",
        "versions": {"python": platform.python_version(),
                     **{name: metadata.version(name) for name in ("numpy", "torch")}},
        "date": datetime.date.today().isoformat(),
        "seeds": SEEDS,
        "pairs": PAIRS,
        "runs": runs,
    }
    OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
