"""How long a chapter takes to read: one rule for all of them, from what is in its cells.

    python -m tools.reading           write the minutes into each chapter's "Before you start"
    python -m tools.reading --show    count, and write nothing

The rule, exercises and their solutions aside:

- **Words**: 175 a minute. Most adults read English non-fiction at 175 to 300 words a minute, silently (Brysbaert 2019, "How many
  words do we read per minute? A review and meta-analysis of reading rate", Journal of Memory and Language 109); this is no light
  reading, so the slow end. An inline formula counts as two words.
- **Lines of code**: 8 seconds each, blank ones not counted. Who looks for faults needs 18 or more (200 lines an hour: Kemerer and
  Paulk 2009, "The impact of design and code reviews on software quality", IEEE Transactions on Software Engineering 35); here the
  text around a cell says what it does.
- **Formulas** set off from the text, **figures**, and **predictions** (a question whose answer is folded away): 30 seconds each.

The eight seconds are the one number that was calibrated, once, on the book as a whole: of all whole numbers it is the one with which
the first eighteen chapters together come nearest to what their authors had estimated, 19 hours 45 minutes. No chapter has a number
of its own. The result is rounded to 5 minutes. What cells print is not counted, and neither is the time that they run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS_A_MINUTE, WORDS_A_FORMULA = 175, 2
SECONDS_A_LINE, SECONDS_A_STOP = 8, 30
ROUNDED_TO = 5
DISPLAYED = re.compile(r"\$\$.+?\$\$", re.DOTALL)
INLINE = re.compile(r"\$[^$\n]+(?:\n[^$\n]+)?\$")
PREDICTION = re.compile(r"^(?::{3,}|`{3,})\{(?:dropdown|toggle)\}", re.MULTILINE)
NOT_READ = re.compile(r"^(?::{3,}|`{3,}).*?(?=\{|$)\{?\w*\}?|^:[\w-]+:.*$|\{cite(?::\w+)?\}`[^`]*`|\{\w+\}(?=`)|<[^>]*>|\]\([^)]*\)", re.MULTILINE)
WORD = re.compile(r"\w+(?:[-'’.,]\w+)*")
STATED = re.compile(r"(\*\*Time\*\*\s+(?:#\s+)?about\s+(?:#\s+)?)(\d+)(?=\s+(?:#\s+)?minutes)")


@dataclass(frozen=True)
class Counts:
    """What there is to read in a chapter."""

    words: int = 0
    inline: int = 0
    displayed: int = 0
    lines: int = 0
    figures: int = 0
    predictions: int = 0
    exercises: int = 0

    @property
    def exact(self) -> float:
        """Minutes, not rounded."""
        return ((self.words + WORDS_A_FORMULA * self.inline) / WORDS_A_MINUTE
                + (SECONDS_A_LINE * self.lines + SECONDS_A_STOP * (self.displayed + self.figures + self.predictions)) / 60)

    @property
    def minutes(self) -> int:
        """Minutes, as they are said: a multiple of 5, at least 5."""
        return max(ROUNDED_TO, ROUNDED_TO * round(self.exact / ROUNDED_TO))


def count(cells: Iterable[Mapping[str, Any]]) -> Counts:
    """Count what is in the cells of a notebook, as its file has them (or its source: `chapters.read_source`)."""
    sums = dict.fromkeys(Counts.__dataclass_fields__, 0)
    for cell in cells:
        tags = set(cell["metadata"].get("tags", ()))
        text = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        if any(tag.startswith("ex:") for tag in tags):
            sums["exercises"] += "ex-prompt" in tags
        elif "remove-cell" in tags:
            continue
        elif cell["cell_type"] == "code":
            sums["lines"] += sum(bool(line.strip()) for line in text.splitlines())
            sums["figures"] += "image" in cell["metadata"].get("mystnb", {}) or "attnlib.widgets" in text
        elif cell["cell_type"] == "markdown":
            sums["predictions"] += len(PREDICTION.findall(text))
            text, found = DISPLAYED.subn(" ", text)
            sums["displayed"] += found
            text, found = INLINE.subn(" ", text)
            sums["inline"] += found
            sums["words"] += len(WORD.findall(NOT_READ.sub(" ", text)))
    return Counts(**sums)


def stated(text: str) -> list[int]:
    """The minutes that a chapter says it takes: one number, in its "Before you start"."""
    return [int(found[2]) for found in STATED.finditer(text)]


def main(arguments: list[str]) -> int:
    from tools import chapters

    total = 0.0
    for chapter in chapters.find(chapters.ROOT):
        counts = count(chapters.read_source(chapter).cells)
        total += counts.exact
        path: Path = chapter.source
        text = path.read_text(encoding="utf-8")
        said = stated(text)
        print(f"{chapter.name}: {counts.minutes} minutes ({counts.exact:.1f}), says {', '.join(map(str, said)) or 'nothing'}; {counts}")
        if "--show" not in arguments and said != [counts.minutes]:
            if len(said) != 1:
                print(f"chapters/{chapter.name}.py says its time {len(said)} times; it needs one `**Time** about N minutes`", file=sys.stderr)
                return 1
            path.write_text(STATED.sub(rf"\g<1>{counts.minutes}", text), encoding="utf-8")
    print(f"together {total:.0f} minutes" + ("" if "--show" in arguments else "; now `make notebooks`"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
