"""Check one chapter, or several: make its notebook, then run every guard and strict nbval on it.

    python -m tools.check NAME ...          everything (two to three times the chapter's own time)
    python -m tools.check NAME ... --read   only what can be told by reading (a second)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time

from tools import chapters, notebooks
from tools.chapters import Chapter, ChapterError
from tools.testing import nbval_command


def ruff(wanted: list[Chapter]) -> bool:
    """Lint the sources; print what ruff says."""
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", *(str(c.source) for c in wanted)],
                          cwd=chapters.ROOT, check=False)
    return done.returncode == 0


def guards(wanted: list[Chapter], running: bool) -> int:
    """Run the guards and print their findings; return how many there are."""
    from tests.guards.chapter import READING, RUNNING

    count = 0
    for chapter in wanted:
        for guard in READING + (RUNNING if running else []):
            for finding in guard(chapter):
                print(finding)
                count += 1
    return count


def nbval(wanted: list[Chapter]) -> bool:
    """Execute the notebooks again and compare every output."""
    command = nbval_command(*(str(c.notebook.relative_to(chapters.ROOT)) for c in wanted))
    with tempfile.TemporaryDirectory() as private:
        done = subprocess.run(command, cwd=chapters.ROOT, env=notebooks.kernel_environment(private), check=False)
    return done.returncode == 0


def main() -> int:
    """Read the command line; return 0 when every chapter named is in order."""
    parser = argparse.ArgumentParser(prog="python -m tools.check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--read", action="store_true", help="execute nothing")
    options = parser.parse_args()
    began = time.perf_counter()
    try:
        wanted = chapters.find(chapters.ROOT, options.names)
        good = ruff(wanted)
        if not options.read:
            good &= notebooks.build(wanted) == 0
        good &= guards(wanted, running=not options.read) == 0
        if good and not options.read:
            good &= nbval(wanted)
    except ChapterError as error:
        print(error, file=sys.stderr)
        good = False
    names = ", ".join(chapter.name for chapter in wanted) if good else "not in order, see above"
    print(f"{'in order: ' if good else ''}{names} ({time.perf_counter() - began:.0f} s)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
