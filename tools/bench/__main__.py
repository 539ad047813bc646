"""Measure, print, record.

    python -m tools.bench                        # everything: half an hour on one core
    python -m tools.bench sparse --runs 2        # one part, measured twice; rewrites chapters/data/bench-sparse.json
    python -m tools.bench chapters 04_softmax    # one line per chapter; records nothing

Everything runs on one thread, in CPU time, in one process per run, in turns (`attnlib.measure.cpu_times`). To compare
with another library, make it importable; one that is not there is named as such.
"""

from __future__ import annotations

import argparse
import sys

from tools.bench import chapters, common, costs, decode, flash, linear, sparse
from tools.chapters import ChapterError

PARTS = {part.NAME: part for part in (sparse, linear, decode, flash, costs)}


def main() -> int:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", nargs="?", choices=[*PARTS, "chapters"], help="default: all")
    parser.add_argument("names", nargs="*", help="which chapters")
    parser.add_argument("--runs", type=int, default=1, help="how often to measure everything anew")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each measurement")
    asked = parser.parse_args()
    if asked.names and asked.part != "chapters":
        parser.error(f"only chapters have names, not {asked.part}")
    for name, part in PARTS.items():
        if asked.part in (None, name):
            common.run(part, asked.runs, asked.rounds)
    if asked.part in (None, "chapters"):
        chapters.main(asked.names)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ChapterError as error:
        sys.exit(str(error))
