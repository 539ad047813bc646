"""What a chapter tells its reader about itself: the time it takes, and what one can do after it."""

from __future__ import annotations

import re

from tests.guards import Finding, at
from tools import chapters, reading
from tools.chapters import Chapter

HEADING, EXERCISES = "## What you can now do", "## Exercises"
LEAST, MOST = 3, 6
LIST = re.compile(r"^:{3,}\{div\} can-do$", re.MULTILINE)
ITEM = re.compile(r"^- (.+?)(?=\n- |\n:::|\Z)", re.MULTILINE | re.DOTALL)


def time(chapter: Chapter) -> list[Finding]:
    """The minutes in "Before you start" are those that the rule gives, which the page shows under the title."""
    said = reading.stated(chapter.source.read_text(encoding="utf-8"))
    counted = reading.count(chapters.read_source(chapter).cells).minutes
    if said == [counted]:
        return []
    if len(said) == 1:
        return [Finding(f"chapters/{chapter.name}.py", f"says that it takes about {said[0]} minutes, the rule gives {counted}",
                        "`python -m tools.reading` writes the number")]
    return [Finding(f"chapters/{chapter.name}.py", f"says its time {len(said)} times", "once, in its first box: **Time** about N minutes")]


def abilities(chapter: Chapter) -> list[Finding]:
    """One list of three to six things that the reader can now do, right before the exercises, each a sentence of its own."""
    source, found = chapters.read_source(chapter), []
    lists = [i for i, cell in enumerate(source.cells) if cell.cell_type == "markdown" and LIST.search(cell.source)]
    if len(lists) != 1:
        return [Finding(f"chapters/{chapter.name}.py", f"has {len(lists)} lists of what the reader can now do, expected one",
                        f"a cell with `{HEADING}` and a list in `:::{{div}} can-do`")]
    index = lists[0]
    text, place = source.cells[index].source, at(chapter, source, index)
    if not text.startswith(f"{HEADING}\n"):
        found.append(Finding(place, f"does not begin with `{HEADING}`"))
    following = source.cells[index + 1].source if index + 1 < len(source.cells) else ""
    if not following.startswith(EXERCISES):
        found.append(Finding(place, "does not stand right before the exercises", f"the next cell begins with `{EXERCISES}`"))
    items = [" ".join(item.split()) for item in ITEM.findall(text)]
    if not LEAST <= len(items) <= MOST:
        found.append(Finding(place, f"lists {len(items)} abilities, expected {LEAST} to {MOST}"))
    if len(set(items)) < len(items):
        found.append(Finding(place, "lists an ability twice"))
    found += [Finding(place, f"{item[:40]!r} is no sentence", "begin with a capital, end with a full stop")
              for item in items if not (item[0].isupper() and item.endswith("."))]
    return found
