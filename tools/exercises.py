"""An exercise in a chapter: four cells that are made from its file in `coursework/pool/`.

    python -m tools.exercises [NAME ...]    write the cells of all exercises that stand in these chapters (default: all)

The pool is the source; a guard requires that the cells are what it says. A chapter may go on after `require(...)` in the cell of
the solution: with a remark, or with something to try.
"""

from __future__ import annotations

import argparse
import re
import sys

import coursework
from coursework import Exercise
from tools import chapters
from tools.chapters import ROOT, Chapter, ChapterError

PARTS = ("ex-prompt", "ex-stub", "ex-check", "ex-solution")


def label(name: str) -> str:
    """The label that text refers to: `ex-row-sums` for `row_sums`."""
    return "ex-" + name.replace("_", "-")


def render(exercise: Exercise) -> dict[str, str]:
    """The text of each of the four cells."""
    return {
        "ex-prompt": f"```{{exercise}} {exercise.title}\n:label: {label(exercise.name)}\n{exercise.prompt}\n```",
        "ex-stub": exercise.stub,
        "ex-check": f"check({exercise.name})",
        "ex-solution": f"{exercise.solution}\n\n\nrequire({exercise.name})",
    }


def follows(part: str, text: str, wanted: str) -> bool:
    """Whether a cell is what the pool says; after a solution more may come."""
    text = text.rstrip()
    return text == wanted or (part == "ex-solution" and text.startswith(wanted + "\n"))


def rewrite(chapter: Chapter) -> list[str]:
    """Bring the cells of a chapter's exercises into step; return the names of those that changed."""
    text = chapter.source.read_text(encoding="utf-8")
    parts, changed = chapters.blocks(text), []
    for index, block in enumerate(parts):
        head, _, body = block.partition("\n")
        found = re.search(r'"ex:(\w+)", "(ex-\w+)"', head)
        if not found or '"ex-open"' in head:
            continue
        name, part = found.groups()
        if part not in PARTS:
            raise ChapterError(f"chapters/{chapter.name}.py: {name} has a cell {part}; it may have {', '.join(PARTS)}")
        wanted = render(coursework.get(name))[part]
        plain = re.sub(r"(?m)^# ?", "", body).strip() if part == "ex-prompt" else body.strip()
        if follows(part, plain, wanted):
            continue
        if part == "ex-solution" and f"\nrequire({name})" in plain:
            wanted += plain.split(f"\nrequire({name})", 1)[1].rstrip()
        if part == "ex-prompt":
            wanted = "\n".join(f"# {line}".rstrip() for line in wanted.splitlines())
        blank = "\n\n\n" if index + 1 < len(parts) and parts[index + 1].split("\n", 1)[1][:4] in ("def ", "clas") else "\n\n"
        parts[index] = f"{head}\n{wanted}{blank if index + 1 < len(parts) else chr(10)}"
        changed.append(f"{name} ({part})")
    if changed:
        chapter.source.write_text("".join(parts), encoding="utf-8")
    return changed


def main() -> int:
    """Read the command line; say what was rewritten."""
    parser = argparse.ArgumentParser(prog="python -m tools.exercises", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    try:
        for chapter in chapters.find(ROOT, parser.parse_args().names):
            for what in rewrite(chapter):
                print(f"chapters/{chapter.name}.py: {what} rewritten")
    except (ChapterError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
