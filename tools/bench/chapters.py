"""Execute every chapter afresh, write nothing, and print what each holds and how long it takes."""

from __future__ import annotations

import time
from statistics import median

from tools import chapters, notebooks
from tools.chapters import Chapter

HEADINGS = ("chapter", "code cells", "median", "90%", "longest", "figures", "kB", "seconds", "CPU s")


def row(chapter: Chapter) -> tuple:
    """Measure one chapter: cells, lines a cell, figures, size, and one execution."""
    stored = chapters.read_notebook(chapter)
    figures = sum("image/png" in out.get("data", {}) for cell in (stored.cells if stored else [])
                  for out in cell.get("outputs", []))
    nb = chapters.read_source(chapter)
    starts = chapters.lines(nb)
    sizes = sorted(sum(bool(line.strip()) for line in cell.source.splitlines())
                   for cell in nb.cells if cell.cell_type == "code")
    began, used = time.perf_counter(), notebooks.cpu_seconds()
    notebooks.execute(chapter, nb, starts)
    return (chapter.name, len(sizes), f"{median(sizes):g}", sizes[int(len(sizes) * 0.9)], sizes[-1], figures,
            chapter.notebook.stat().st_size // 1000 if stored else "-",
            f"{time.perf_counter() - began:.1f}", f"{notebooks.cpu_seconds() - used:.1f}")


def main(names: list[str]) -> None:
    """Print one line per chapter named, or for all."""
    layout = "{:<26}" + " {:>10}" * (len(HEADINGS) - 1)
    print(layout.format(*HEADINGS))
    for chapter in chapters.find(chapters.ROOT, names):
        print(layout.format(*row(chapter)), flush=True)
