"""Source and notebook say the same, and the notebook's outputs are whole, current and clean."""

from __future__ import annotations

import json
import re

from tests.guards import Finding, at, tags
from tools import chapters
from tools.chapters import Chapter, ChapterError
from tools.inputs import differences, inputs

BYTES = 400_000
MACHINE = re.compile(r"(?<![\w.:/-])/(?:home|root|Users|tmp|work|opt|mnt|private|var|usr)/[\w.-]+|\b[A-Z]:\\\\?[\w.-]+"
                     r"|site-packages|ipykernel_\d+")
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")


def in_sync(chapter: Chapter) -> list[Finding]:
    """The notebook has the source's cells and was executed from what its outputs depend on now."""
    place, redo = f"chapters/{chapter.name}.ipynb", f"`make notebooks` (or `make check CH={chapter.name}`)"
    try:
        source, nb = chapters.read_source(chapter), chapters.read_notebook(chapter)
    except (ChapterError, SyntaxError) as error:
        return [Finding(f"chapters/{chapter.name}", str(error))]
    if nb is None:
        return [Finding(place, "is missing", redo)]
    found = []
    whole, nb = nb, chapters.own(nb)
    here, there = chapters.keys(nb), chapters.keys(source)
    for index, key in enumerate(there):
        if key not in here:
            found.append(Finding(at(chapter, source, index), "is not in the notebook",
                                 f"{redo}; if the notebook is the newer one, `make adopt CH={chapter.name}`"))
    for index, key in enumerate(here):
        if key not in there:
            found.append(Finding(f"{place} {chapters.describe(nb, index)}", "is not in the source",
                                 f"`make adopt CH={chapter.name}` if it was written in Jupyter, otherwise {redo}"))
    if not found and here != there:
        found.append(Finding(place, "has its cells in another order than the source", redo))
    try:
        wanted = chapters.with_installing(chapter, source)
    except ChapterError as error:
        return [Finding("_config.yml", str(error))]
    if [cell.source for cell in whole.cells if chapters.derived(cell)] != [wanted.cells[1].source]:
        found.append(Finding(place, "does not say, or not as _config.yml has it, how to install the library", redo))
    elif not found and chapters.form(whole) != chapters.form(wanted):
        found.append(Finding(place, "was saved by Jupyter, which adds metadata", redo))
    record = nb.metadata.get("attnlib", {})
    for name in differences(record.get("inputs", {}), inputs(chapter.root, source)):
        what = "its code cells" if name == "code" else name
        found.append(Finding(place, f"was executed before {what} changed", redo))
    if chapters.outputs_digest(nb) != record.get("outputs"):
        found.append(Finding(place, "has outputs that `make notebooks` did not write", redo))
    return found


def executed(chapter: Chapter) -> list[Finding]:
    """Every code cell ran, in order from 1, without an error and without writing to stderr."""
    nb = chapters.read_notebook(chapter)
    found, number = [], 0
    for index, cell in enumerate(nb.cells if nb else []):
        if cell.cell_type != "code":
            continue
        number += 1
        place = f"chapters/{chapter.name}.ipynb {chapters.describe(nb, index)}"
        if cell.execution_count != number:
            found.append(Finding(place, f"has execution count {cell.execution_count}, expected {number}: a cell without a "
                                 "count is never compared by nbval", "`make notebooks`"))
        for out in cell.outputs:
            if out.output_type == "error":
                found.append(Finding(place, f"ends in {out.ename}", "catch an intended error and print it"))
            if out.output_type == "stream" and out.name == "stderr":
                found.append(Finding(place, f"writes to stderr: {out.text.strip()[:80]}", "mend the cause of the warning"))
    return found


def refused(chapter: Chapter) -> list[Finding]:
    """Each exercise's check says of the unsolved stub that it is not attempted, in the output that nbval compares."""
    nb = chapters.read_notebook(chapter)
    found = []
    for index, cell in enumerate(nb.cells if nb else []):
        if "ex-check" not in tags(cell):
            continue
        said = "".join(out.text for out in cell.outputs if out.output_type == "stream")
        if "not attempted" not in said or "nbval-ignore-output" in tags(cell):
            found.append(Finding(f"chapters/{chapter.name}.ipynb {chapters.describe(nb, index)}",
                                 f"says {said.strip()[:80]!r} of the unsolved stub, or is not compared", "check(f) comes right after the stub"))
    return found


def clean(chapter: Chapter) -> list[Finding]:
    """The notebook is small and holds nothing of the machine that executed it."""
    if not chapter.notebook.exists():
        return []
    place = f"chapters/{chapter.name}.ipynb"
    found = []
    size = chapter.notebook.stat().st_size
    if size >= BYTES:
        found.append(Finding(place, f"has {size // 1000} kB, the limit is {BYTES // 1000} kB", "make its figures smaller"))
    nb = chapters.read_notebook(chapter)
    for index, cell in enumerate(nb.cells):
        text = json.dumps([cell.source, *(data for data in cell.get("outputs", []))], ensure_ascii=False)
        text = re.sub(r'"image/(?:png|jpeg)": "[^"]*"', "", text)
        where = f"{place} {chapters.describe(nb, index)}"
        for match in MACHINE.finditer(text):
            found.append(Finding(where, f"names a place on one machine: {match[0]}", "print something that is the same everywhere"))
        for match in ADDRESS.finditer(text):
            found.append(Finding(where, f"shows an address in memory ({match[0]}), never twice the same",
                                 "print what the object means"))
    return found


def figures(chapter: Chapter) -> list[Finding]:
    """Every cell that shows a picture shows one, with an alternative text and a caption."""
    nb, found = chapters.read_notebook(chapter), []
    for index, cell in enumerate(nb.cells if nb else []):
        shown = [out for out in cell.get("outputs", []) if set(IMAGES) & set(out.get("data", {}))]
        where = f"chapters/{chapter.name}.ipynb {chapters.describe(nb, index)}"
        stated = cell.metadata.get("mystnb", {})
        alt = str(stated.get("image", {}).get("alt", ""))
        caption = str(stated.get("figure", {}).get("caption", ""))
        name = str(stated.get("figure", {}).get("name", ""))
        if not shown:
            if alt or caption:
                found.append(Finding(where, "states a figure but shows no picture", "end the cell with plt.show()"))
            continue
        if len(shown) > 1:
            found.append(Finding(where, f"shows {len(shown)} pictures with one alternative text", "one picture a cell"))
        if problem := bad_sentence(alt):
            found.append(Finding(where, f"alternative text {problem}", "say in a sentence what the picture shows: "
                                 'mystnb={"image": {"alt": "..."}, "figure": {"caption": "...", "name": "fig-..."}}'))
        if problem := bad_sentence(caption):
            found.append(Finding(where, f"caption {problem}", "say in a sentence what follows from the picture"))
        elif caption.strip() == alt.strip():
            found.append(Finding(where, "caption repeats the alternative text", "the caption draws the conclusion"))
        if not name.startswith("fig-"):
            found.append(Finding(where, f"figure is named {name!r}", "a name that begins with fig-"))
    return found


def bad_sentence(text: str) -> str:
    """Say why `text` is not a sentence that describes something, or return an empty string."""
    if not text.strip():
        return "is missing"
    if re.search(r"\.(png|svg|jpe?g)\b|[\w-]+/[\w-]+\.\w+", text):
        return f"is a file name: {text[:60]}"
    if len(text.split()) < 4 or not re.match(r"[A-Z0-9$'\"“‘{]", text.strip()) or text.strip()[-1] not in ".!?)”’":
        return f"is not a sentence: {text[:60]!r}"
    return ""


def compared(chapter: Chapter) -> list[Finding]:
    """nbval compares every code cell, or the cell asserts its claim itself."""
    found, source = [], chapters.read_source(chapter)
    for index, cell in enumerate(source.cells):
        if cell.cell_type != "code":
            continue
        where = at(chapter, source, index)
        told = tags(cell) | {line.strip("# \t").lower().replace("_", "-") for line in cell.source.splitlines()
                             if re.match(r"\s*#\s*(NBVAL|PYTEST)_", line)}
        for tag in sorted(told & {"nbval-skip", "pytest-validate-ignore-output", "raises-exception",
                                  "nbval-raises-exception", "nbval-test-name"}):
            found.append(Finding(where, f"is marked {tag}", "every cell runs, and none ends in an error"))
        if "nbval-ignore-output" in told and not re.search(r"^\s*assert\b", cell.source, re.MULTILINE):
            found.append(Finding(where, "is not compared and asserts nothing", "assert its claim in the same cell"))
    return found
