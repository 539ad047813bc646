"""A chapter in its two forms: the source `NN_name.py` and the notebook `NN_name.ipynb` made from it.

The source is jupytext's py:percent. The notebook is the same cells, executed. Both are read here into
the same notebook nodes, so that everything else can compare them cell by cell.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbformat import NotebookNode
from PIL import Image, ImageChops

from _ext import addresses

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"^# %%(?!%)", re.MULTILINE)
KEPT = ("tags", "mystnb")  # the cell metadata that belongs to the source; everything else is an editor's own
FOLDED = {"hide-cell", "hide-input"}  # such cells open folded in JupyterLab, as they do on the page
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
WIDGETS = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


INSTALL = "install-attnlib"  # the tag and the id of the one cell that no source has
ALONE = "If `import attnlib` fails because this notebook was opened on its own, "
TAKE_THE_FOLDER = ALONE + ("take the book's whole folder, run `pip install -e \".[torch,plots,widgets,grading]\"` in it, and open the notebook from its "
                           "folder `chapters`.")
FETCH = ALONE + """run these two lines in a new cell above the first one (they fetch the book and install its library):

```python
!git clone --quiet --depth 1 --branch {branch} {repository} book && pip install --quiet "./book[torch,plots,widgets,grading]"
%cd book/chapters
```"""


class ChapterError(Exception):
    """Something a chapter's author has to put right; the message says what and how."""


@dataclass(frozen=True)
class Chapter:
    """One chapter of the book at `root`, by its name (`04_softmax`)."""

    root: Path
    name: str

    @property
    def source(self) -> Path:
        return self.root / "chapters" / f"{self.name}.py"

    @property
    def notebook(self) -> Path:
        return self.root / "chapters" / f"{self.name}.ipynb"


def installing(root: Path) -> NotebookNode:
    """The cell that tells whoever opened a notebook alone how to get the library; pages do not show it.

    Not editable installation: that would be seen only by the next kernel. The folder is needed too: some chapters read its `data`.
    """
    path = root / "_config.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    repository = config.get("repository") or {}
    try:
        found = addresses.read(repository.get("url"), repository.get("branch"), (config.get("html") or {}).get("baseurl"))
    except addresses.AddressError as error:
        raise ChapterError(str(error)) from None
    text = FETCH.format(branch=found.branch, repository=found.repository) if found.repository else TAKE_THE_FOLDER
    return nbformat.v4.new_markdown_cell(text, id=INSTALL, metadata={"tags": [INSTALL, "remove-cell"]})


def derived(cell: NotebookNode) -> bool:
    """Whether a cell of a notebook is the one that no source has."""
    return cell.get("id") == INSTALL or INSTALL in cell.metadata.get("tags", [])


def own(nb: NotebookNode) -> NotebookNode:
    """The same notebook without the derived cell: the cells that its source has."""
    return nbformat.from_dict({**nb, "cells": [cell for cell in nb.cells if not derived(cell)]})


def with_installing(chapter: Chapter, nb: NotebookNode) -> NotebookNode:
    """Put the derived cell after the title (in place)."""
    nb.cells.insert(1, installing(chapter.root))
    return nb


def find(root: Path, wanted: Iterable[str] = ()) -> list[Chapter]:
    """Return the chapters named in `wanted` (`04`, `04_softmax` or a path), or all of them."""
    names = sorted(p.stem for p in (root / "chapters").glob("[0-9][0-9]_*.py"))
    chosen = []
    for word in wanted:
        stem = re.sub(r"\.(py|ipynb)$", "", Path(word).name)
        stem = stem.zfill(2) if stem.isdigit() else stem
        hits = [n for n in names if n == stem] or [n for n in names if n.startswith(stem)]
        if len(hits) != 1:
            raise ChapterError(f"{word}: {'several chapters' if hits else 'no chapter'} of that name. "
                               f"There are: {', '.join(hits or names) or 'none yet'}.")
        chosen += hits
    return [Chapter(root, name) for name in (chosen or ([] if list(wanted) else names))]


def digest(*parts: str | bytes) -> str:
    """A short fingerprint of some text or bytes (12 hexadecimal digits of SHA-256)."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else part)
        sha.update(b"\0")
    return sha.hexdigest()[:12]


def kept(cell: NotebookNode) -> dict:
    """The part of a cell's metadata that its source states."""
    return {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}


def key(cell: NotebookNode) -> str:
    """What makes two cells the same cell: kind, text and stated metadata, as one fingerprint."""
    return digest(cell.cell_type, cell.source.rstrip(), json.dumps(kept(cell), sort_keys=True))


def keys(nb: NotebookNode) -> list[str]:
    """The keys of all cells that the source has, in order."""
    return [key(cell) for cell in nb.cells if not derived(cell)]


def form(nb: NotebookNode) -> list:
    """Everything of a notebook but its own cells' text and outputs: what an editor adds when it saves, and the derived cell."""
    about = {name: value for name, value in nb.metadata.items() if name not in ("attnlib", "widgets")}
    return [about, [[cell.id, cell.metadata, *([cell.cell_type, cell.source] if derived(cell) else [])] for cell in nb.cells]]


def describe(nb: NotebookNode, index: int) -> str:
    """Name a cell in a message: its place, its kind and its first line."""
    cell = nb.cells[index]
    first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "(empty)")
    return f"cell {index + 1} ({cell.cell_type}: {first[:60]})"


def blocks(text: str) -> list[str]:
    """Split a source into its header and one block per cell, each beginning with its `# %%` line."""
    starts = [match.start() for match in MARKER.finditer(text)]
    return [text[a:b] for a, b in zip([0, *starts], [*starts, len(text)], strict=True)]


def read_source(chapter: Chapter) -> NotebookNode:
    """Read the source as a notebook without outputs; each cell knows the `line` of its marker."""
    text = chapter.source.read_text(encoding="utf-8")
    parsed = jupytext.reads(text, fmt="py:percent")
    starts = [text.count("\n", 0, match.start()) + 1 for match in MARKER.finditer(text)]
    if len(starts) != len(parsed.cells):
        raise ChapterError(f"chapters/{chapter.name}.py: {len(starts)} `# %%` lines but {len(parsed.cells)} cells. "
                           "Text before the first marker, or a marker inside a string?")
    nb = nbformat.v4.new_notebook(metadata=METADATA)
    seen: dict[str, int] = {}
    for cell, line in zip(parsed.cells, starts, strict=True):
        if cell.cell_type not in ("code", "markdown"):
            raise ChapterError(f"chapters/{chapter.name}.py:{line}: a {cell.cell_type} cell; use code or markdown.")
        strange = sorted(set(cell.metadata) - {*KEPT, "lines_to_next_cell"})
        if strange:
            raise ChapterError(f"chapters/{chapter.name}.py:{line}: unknown cell metadata {', '.join(strange)}; "
                               f"a cell may state {' and '.join(KEPT)}.")
        base = digest(cell.cell_type, cell.source)[:8]
        seen[base] = seen.get(base, 0) + 1
        cell_id = base if seen[base] == 1 else f"{base}-{seen[base]}"
        metadata = kept(cell)
        if FOLDED & set(metadata.get("tags", [])) and cell.cell_type == "code":
            metadata["jupyter"] = {"source_hidden": True}
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        nb.cells.append(make(cell.source, id=cell_id, metadata=metadata))
        nb.cells[-1].line = line
    return nb


def lines(nb: NotebookNode) -> list[int]:
    """Take the source lines off the cells again (a notebook file has no place for them)."""
    return [cell.pop("line", 0) for cell in nb.cells]


def read_notebook(chapter: Chapter) -> NotebookNode | None:
    """Read the notebook, or None if there is none."""
    if not chapter.notebook.exists():
        return None
    try:
        return nbformat.read(chapter.notebook, as_version=4)
    except Exception as error:  # nbformat raises many kinds for a broken file
        raise ChapterError(f"chapters/{chapter.name}.ipynb is not a readable notebook ({error}). "
                           "Delete it and run `make notebooks`.") from error


def outputs_digest(nb: NotebookNode) -> str:
    """A fingerprint of everything that executing has written into a notebook."""
    seen = [[cell.execution_count, cell.outputs] for cell in nb.cells if cell.cell_type == "code"]
    return digest(json.dumps([seen, nb.metadata.get("widgets", {})], sort_keys=True))


def normalise(nb: NotebookNode, name: str) -> None:
    """Remove from a freshly executed notebook what differs from one run to the next (in place)."""
    nb.metadata = nbformat.from_dict({**METADATA, **({"widgets": nb.metadata.widgets} if "widgets" in nb.metadata
                                                     else {})})
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        for out in cell.get("outputs", []):
            out.pop("transient", None)
            if VIEW in out.get("data", {}) and "text/html" in out.data:  # a figure that brings its own static form
                out.data.pop(VIEW)
            if "image/png" in out.get("data", {}):
                out.data["image/png"] = lighter_png(out.data["image/png"])
    if not any(VIEW in out.get("data", {}) for cell in nb.cells for out in cell.get("outputs", [])):
        nb.metadata.pop("widgets", None)  # nothing on the page needs the state of a widget
    state = nb.metadata.get("widgets", {}).get(WIDGETS, {}).get("state")
    if state:
        shown = [out.data[VIEW]["model_id"] for cell in nb.cells for out in cell.get("outputs", [])
                 if VIEW in out.get("data", {})]
        text = nbformat.writes(nb)
        for number, old in enumerate(dict.fromkeys([*shown, *state])):  # as shown, then as created
            text = text.replace(old, (digest(name, str(number)) + digest(str(number), name) + "0" * 8))
        nb.update(nbformat.reads(text, as_version=4))


def lighter_png(encoded: str, visible: int = 8) -> str:
    """Store a figure with a palette of 256 colours, half the size or less, if no pixel changes by `visible` of 255."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    reduced = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    change = ImageChops.difference(picture, reduced.convert("RGB")).getextrema()  # (least, most) per channel
    file = io.BytesIO()
    kept = reduced if max(most for _, most in change) < visible else picture
    kept.save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def write_notebook(chapter: Chapter, nb: NotebookNode) -> None:
    """Write the notebook in one step: a reader sees the old file or the new one, never half of it."""
    nbformat.validate(nb)
    handle, temporary = tempfile.mkstemp(dir=chapter.notebook.parent, prefix=f".{chapter.name}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(nbformat.writes(nb) + "\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, chapter.notebook)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
