"""What can only be seen over all chapters together."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.guards import Finding, at
from tests.guards.cells import all_of_the_pool
from tools import chapters


def unique_figures(root: Path) -> list[Finding]:
    """A figure's name is used once in the book."""
    found, seen = [], {}
    for chapter in chapters.find(root):
        source = chapters.read_source(chapter)
        for index, cell in enumerate(source.cells):
            name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            if name and name in seen:
                found.append(Finding(at(chapter, source, index), f"figure {name} is also in {seen[name]}", "another name"))
            seen.setdefault(name, chapter.name)
    return found


def unique_labels(root: Path) -> list[Finding]:
    """A label (of an exercise, say) is used once in the book."""
    found, seen = [], {}
    for chapter in chapters.find(root):
        source = chapters.read_source(chapter)
        for index, cell in enumerate(source.cells):
            for label in re.findall(r"^:(?:label|name):\s*(\S+)", cell.source, re.MULTILINE):
                if cell.cell_type == "markdown" and label in seen:
                    found.append(Finding(at(chapter, source, index), f"label {label} is also in {seen[label]}", "another label"))
                seen.setdefault(label, chapter.name)
    return found


ALL: list[Callable[[Path], list[Finding]]] = [unique_figures, unique_labels, all_of_the_pool]
