"""Train the heads of chapter 16 from several seeds, and where spans go wrong, and record what they learned.

    python -m tools.record_adaptive_span         # rewrites chapters/data/16_adaptive_span.json; five minutes on one core

The task, the training, the exam and the network are the chapter's own: the cells that define them are executed.
"""

from __future__ import annotations

import ast
import contextlib
import io

from attnlib import costs, measure
from tools import chapters
from tools.record_recall_gru import bound

CHAPTER = "16_hierarchy_and_span"
OUT = chapters.ROOT / "chapters" / "data" / "16_adaptive_span.json"
NEEDED = {"RANGES", "make_copies", "Copier", "train", "exam"}
STEPS, EVERY, SEQ = 1000, 20, 4096
RUNS = [("as in the chapter", seed, {}) for seed in range(5)] + [
    ("no noise", seed, {"noise": 0.0}) for seed in range(3)] + [
    ("penalty ten times larger", seed, {"penalty": 0.2}) for seed in range(3)]


def definitions() -> dict[str, object]:
    """Execute the chapter's imports and the cells that define `NEEDED`, in their order, and return what they define."""
    (chapter,) = chapters.find(chapters.ROOT, [CHAPTER])
    cells = [cell.source for cell in chapters.read_source(chapter).cells if cell.cell_type == "code"]
    imports = [ast.unparse(node) for source in cells for node in _body(source)
               if isinstance(node, ast.Import | ast.ImportFrom) and "coursework" not in ast.unparse(node)]
    chosen = [source for source in cells if bound(source) & NEEDED]
    if missing := NEEDED.difference(*map(bound, chosen)):
        raise chapters.ChapterError(f"{CHAPTER} does not define {', '.join(sorted(missing))}.")
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for source in imports + chosen:
            exec(compile(source, CHAPTER, "exec"), names)
    return names


def _body(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def run(names: dict[str, object], name: str, seed: int, options: dict[str, float]) -> dict[str, object]:
    """Train one network from one seed, as the chapter does, and return what its heads learned."""
    names["torch"].manual_seed(seed)
    names["torch"].set_num_threads(1)
    model = names["Copier"]()
    history = names["train"](model, names["np"].random.default_rng(seed), STEPS, **options)
    reach = sorted(model.attend.reach())
    right = [round(float(share), 2) for share in names["exam"](model)]
    open_pairs, pairs = (costs.adaptive_span_pairs(SEQ, each) for each in ([64] * 4, reach))
    print(f"{name}, seed {seed}: reach {reach}, right {right}", flush=True)
    return {"name": name, "seed": seed, **options, "reach": reach, "right": right,
            "off": [round(r / known - 1, 3) for r, known in zip(reach, names["RANGES"], strict=True)],
            "pairs_saved": round(open_pairs / pairs, 2), "history": history[::EVERY].tolist()}


def main() -> None:
    """Train all, and write the record."""
    names = definitions()
    measure.record(
        OUT, what="reach (keys before the query whose soft mask is not 0) that the four heads of chapter 16 learned, in order of length, "
        "on a task that needs the tokens 6, 12, 24 and 48 places before; right answers by distance; scores of four heads of reach 64 "
        f"at {SEQ} tokens over those of the learned ones; reach by head every {EVERY} steps",
        command="python -m tools.record_adaptive_span",
        numbers={"ranges": list(names["RANGES"]), "steps": list(range(0, STEPS, EVERY)), "runs": [run(names, *each) for each in RUNS]})


if __name__ == "__main__":
    main()
