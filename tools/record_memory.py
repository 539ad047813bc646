"""Train the readers of chapter 18 with three seeds each, and record what they recall.

    python -m tools.record_memory            # rewrites chapters/data/18_memory.json; fifteen minutes on one core

The task, the networks, the memories, the training and the exam are the chapter's own: the cells that define them are executed.
"""

from __future__ import annotations

import ast
import datetime
import json
import platform
from importlib import metadata

from tools import chapters

CHAPTER = "18_memory"
OUT = chapters.ROOT / "chapters" / "data" / "18_memory.json"
SEEDS = (0, 1, 2)
READERS = {  # name -> kind of attention, memory in training, steps, layers
    "no memory": ("Recurrent", "no_memory", 100, 1),
    "segment, 16 rows": ("Recurrent", "one_segment", 150, 1),
    "compressive, 16 + 8": ("Recurrent", "compressive", 250, 1),
    "search, 4 found": ("Searching", "NearestMemory", 120, 1),
    "two layers, 16 rows each": ("Recurrent", "one_segment", 800, 2),
    "two layers, without the stop": ("Recurrent", "open_segment", 800, 2),
}
BETWEEN = "{}, fact two segments ago, by whether the segment between asked for it"


def definitions() -> dict[str, object]:
    """Execute the imports, definitions and constants of the chapter's cells, in their order, and return what they define."""
    (chapter,) = chapters.find(chapters.ROOT, [CHAPTER])
    names: dict[str, object] = {}
    for cell in chapters.read_source(chapter).cells:
        if cell.cell_type != "code" or any(tag.startswith("ex:") for tag in cell.metadata.get("tags", [])):
            continue
        kept = [node for node in ast.parse(cell.source).body
                if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
                or (isinstance(node, ast.Assign) and all(map(_capital, node.targets)))]
        exec(compile(ast.Module(kept, []), CHAPTER, "exec"), names)
    wanted = {"make_text", "exam", "train", "new_reader", *(each for kind, make, *_ in READERS.values() for each in (kind, make))}
    if missing := sorted(wanted.difference(names)):
        raise chapters.ChapterError(f"{CHAPTER} does not define {', '.join(missing)}.")
    return names


def _capital(target: object) -> bool:
    """Whether an assignment's target is a constant such as SEQ, or a tuple of them."""
    parts = getattr(target, "elts", [target])
    return all(getattr(part, "id", "").isupper() for part in parts)


def shares(names: dict[str, object], name: str, seed: int) -> dict[str, object]:
    """Train one reader; return its share of right answers by segments since, to 3 digits, also with memories it was not trained with."""
    kind, make, steps, depth = READERS[name]
    reader = names["new_reader"](names[kind], seed=seed, depth=depth)
    names["train"](reader, names[make], steps, names["np"].random.default_rng(seed))
    exams = {name: make}
    if name == "segment, 16 rows":
        exams |= {"4 sinks + 16": "sinks", "full memory": "everything"}
    if name == "compressive, 16 + 8":
        exams |= {"compressive, two facts": make}
    found: dict[str, object] = {"asked": asked_between(names, reader, names[make])} if depth == 2 else {}
    for title, maker in exams.items():
        right = names["exam"](reader, names[maker], facts=2 if title.endswith("two facts") else 1)
        found[title] = [round(float(share), 3) for share in right]
        print(f"seed {seed}, {title}: {found[title]}", flush=True)
    return found


def asked_between(names: dict[str, object], reader: object, make: object) -> dict[str, float]:
    """Share right of questions about a fact two segments ago, by whether the segment between asked for the same fact."""
    np, torch = names["np"], names["torch"]
    text, answers, ago = names["make_text"](np.random.default_rng(1), 1000)
    with torch.no_grad():
        right = (reader(text, make).argmax(dim=-1).numpy() == answers)[:, -1]
    two_ago = ago[:, -1] == 2
    asked = (ago[:, -2] == 1).any(axis=-1)[:, None] & two_ago
    return {"asked": round(float(right[asked].mean()), 3), "not asked": round(float(right[two_ago & ~asked].mean()), 3)}


def main() -> None:
    """Train, and write the record."""
    names = definitions()
    names["torch"].set_num_threads(1)
    recall: dict[str, list[list[float]]] = {}
    between: dict[str, list[dict[str, float]]] = {}
    for name in READERS:
        for seed in SEEDS:
            found = shares(names, name, seed)
            if "asked" in found:
                between.setdefault(BETWEEN.format(name), []).append(found.pop("asked"))
            for title, of_title in found.items():
                recall.setdefault(title, []).append(of_title)
    record = {
        "what": "share of right answers in the last of six segments, by segments since the fact was told (0 to 5); one row per seed",
        "how": "for each seed: new_reader(kind, seed=seed, depth=layers), train(reader, memory, steps, np.random.default_rng(seed)), "
               "exam(reader, memory); all are the chapter's own cells. '4 sinks + 16' and 'full memory' examine the readers of "
               "'segment, 16 rows' with another memory; 'compressive, two facts' examines those of 'compressive, 16 + 8'",
        "command": "python -m tools.record_memory",
        "device": f"one CPU core ({platform.machine()})",
        "versions": {"python": platform.python_version(),
                     **{package: metadata.version(package) for package in ("numpy", "torch")}},
        "date": datetime.date.today().isoformat(),
        "seeds": SEEDS,
        "steps_and_layers": {name: {"steps": steps, "layers": depth} for name, (_, _, steps, depth) in READERS.items()},
        "recall": recall,
        **between,
    }
    OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
