"""Train the heads of chapter 16 from several seeds, and where spans go wrong, and record what they learned.

    python -m tools.record_adaptive_span         # rewrites chapters/data/16_adaptive_span.json; five minutes on one core

The task, the training, the exam and the network are the chapter's own: the cells that define them are executed.
"""

from __future__ import annotations

import ast

from attnlib import costs, measure
from tools import chapters
from tools.record_recall_gru import bound

CHAPTER = "16_hierarchy_and_span"
OUT = chapters.ROOT / "chapters" / "data" / "16_adaptive_span.json"
NEEDED = {"WINDOWS", "make_sums", "FourHeads", "train", "exam", "make_copies"}
STEPS, EVERY, SEQ, WIDEST, SEEDS = 500, 10, 4096, 80, (0, 1, 2)
# name -> how the network is made, the task, keys needed beyond the task's window, how it is trained
RUNS = {
    "sums, closed": ({}, "make_sums", -1, {}),
    "copies, open": ({"start": 1.0}, "make_copies", 0, {}),
    "sums, closed, ramp 2": ({"ramp": 2.0}, "make_sums", -1, {}),
    "sums, closed, penalty 0.2": ({}, "make_sums", -1, {"penalty": 0.2}),
    "copies, closed": ({}, "make_copies", 0, {}),
}


def definitions() -> dict[str, object]:
    """Execute the chapter's imports and its definitions of `NEEDED`, in their order, and return what they define."""
    (chapter,) = chapters.find(chapters.ROOT, [CHAPTER])
    names: dict[str, object] = {}
    for cell in chapters.read_source(chapter).cells:
        if cell.cell_type != "code" or any(tag.startswith("ex:") for tag in cell.metadata.get("tags", [])):
            continue
        for node in ast.parse(cell.source).body:
            wanted = isinstance(node, ast.Import | ast.ImportFrom) and "coursework" not in ast.unparse(node)
            if wanted or bound(ast.unparse(node)) & NEEDED:
                exec(compile(ast.unparse(node), CHAPTER, "exec"), names)
    if missing := NEEDED - names.keys():
        raise chapters.ChapterError(f"{CHAPTER} does not define {', '.join(sorted(missing))}.")
    return names


def run(names: dict[str, object], name: str, seed: int) -> dict[str, object]:
    """Train one network from one seed, as the chapter does, and return what its heads learned."""
    made, task, beyond, trained = RUNS[name]
    make = names[task]
    names["torch"].manual_seed(seed)
    names["torch"].set_num_threads(1)
    model = names["FourHeads"](**made)
    history = names["train"](model, names["np"].random.default_rng(seed), STEPS, make, **trained)
    reach, needed = model.reach(), [window + beyond for window in names["WINDOWS"]]
    wide, pairs = (costs.adaptive_span_pairs(SEQ, each) for each in ([WIDEST] * len(reach), reach))
    print(f"{name}, seed {seed}: reach {reach}, needed {needed}", flush=True)
    return {"name": name, "seed": seed, **made, **trained, "reach": reach, "needed": needed,
            "off": [round(r / known - 1, 3) for r, known in zip(reach, needed, strict=True)],
            "error": [round(float(each), 3) for each in names["exam"](model, make)],
            "pairs_saved": round(wide / pairs, 2), "history": history[::EVERY].tolist()}


def main() -> None:
    """Train all, and write the record."""
    names = definitions()
    measure.record(
        OUT, what="reach (keys before the query whose soft mask is not 0) that the four heads of chapter 16 learned, beside the known one "
        "that their task needs; mean squared error of each answer without noise (knowing nothing: 1); scores of four heads of reach "
        f"{WIDEST} at {SEQ} tokens over those of the learned ones; reach by head every {EVERY} steps",
        command="python -m tools.record_adaptive_span",
        numbers={"steps": list(range(0, STEPS, EVERY)), "runs": [run(names, name, seed) for name in RUNS for seed in SEEDS]})


if __name__ == "__main__":
    main()
