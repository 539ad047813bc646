"""For instructors: build assignments, grade submissions, export to other tools.

    python -m coursework list
    python -m coursework build ASSIGNMENT.yml OUT/
    python -m coursework grade SUBMISSIONS/ OUT/ [--assignment FILE.yml] [--jobs N] [--shard i/n] [--trusted]
    python -m coursework export otter|nbgrader|gradescope ASSIGNMENT.yml OUT/
    python -m coursework test [NAME or FOLDER ...]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import coursework
from coursework import assign, form, selftest
from coursework.form import FormError


def _part(text: str) -> tuple[int, int]:
    try:
        i, n = (int(word) for word in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected i/n, as in 1/4") from None
    if not 1 <= i <= n:
        raise argparse.ArgumentTypeError(f"{text!r}: i should lie from 1 to n")
    return i, n


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m coursework", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the exercises of the pool")
    test = commands.add_parser("test", help="whether exercises can be trusted: references, wrong answers, hints")
    test.add_argument("what", nargs="*", help="names, or folders with exercises of your own; default: the pool")
    build = commands.add_parser("build", help="student notebooks from an assignment")
    build.add_argument("assignment", type=Path)
    build.add_argument("out", type=Path)
    grade = commands.add_parser("grade", help="grade a folder of submissions")
    grade.add_argument("submissions", type=Path)
    grade.add_argument("out", type=Path)
    grade.add_argument("--assignment", metavar="FILE.yml", help="default: the only one beside the submissions or results")
    grade.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="submissions at a time")
    grade.add_argument("--shard", type=_part, default=(1, 1), metavar="i/n", help="only part i of n, for several machines")
    how = grade.add_mutually_exclusive_group()
    how.add_argument("--trusted", action="store_true", help="no sandbox: only for code that you have read")
    how.add_argument("--sandbox", choices=("bubblewrap", "podman"), default="", help="default: the first that works")
    export = commands.add_parser("export", help="the assignment for another grading tool")
    export.add_argument("tool", choices=("otter", "nbgrader", "gradescope"))
    export.add_argument("assignment", type=Path)
    export.add_argument("out", type=Path)
    return parser


def _list() -> int:
    print(f"{'exercise':<28} points  chapter  title")
    for name in coursework.names():
        e = form.get(name)
        print(f"{name:<28} {e.points:^6}  {e.chapter[:2] or '-':^7}  {e.title}\n{'':<28} takes {', '.join(e.arguments)}"
              + "".join(f"\n{'':<28} variant {key}: {v.says.strip()}" for key, v in e.variants.items()))
    return 0


def _test(what: list[str]) -> int:
    exercises = []
    for word in what or coursework.names():
        folder = Path(word)
        if folder.is_dir():
            there = [form.read(p) for p in sorted(folder.glob("*.py")) if not p.stem.startswith("_")]
            if not there:
                raise FormError(f"{word} holds no exercises: expected files NAME.py")
            exercises += there
        elif "/" in word or word.endswith(".py"):
            if not folder.is_file():
                raise FormError(f"there is no file or folder {word}")
            exercises.append(form.read(folder))
        else:
            exercises.append(form.get(word))
    failed = 0
    for exercise in exercises:
        found, seconds = selftest.faults(exercise)
        failed += bool(found)
        slowest = f"{1000 * max(seconds, default=0):.0f} ms"
        print(f"{exercise.name}: known wrong answers: {len(exercise.wrongs)}; slowest verdict {slowest}; "
              + ("in order" if not found else "NOT in order"))
        for sentence in dict.fromkeys(sentence.split(": ", 1)[1] if sentence.startswith("seed ") else sentence for sentence in found):
            print(f"  {sentence}")
    return 1 if failed else 0


def _grade(options) -> int:
    from tqdm import tqdm

    from coursework.grading import grade

    if options.jobs < 1:
        raise grade.GradingError(f"--jobs is {options.jobs}, expected at least 1")
    assignment = grade.find_assignment(options.assignment, options.submissions, options.out)
    mode = "trusted" if options.trusted else options.sandbox
    count = [0]

    def bar(items, total):
        count[0] = total
        return tqdm(items, total=total, desc=assignment.name, unit="submission")

    results = grade.grade_folder(assignment, options.submissions, options.out, options.jobs, options.shard, mode, bar)
    unread = [r["student"] for r in results if r["points"] is None]
    print(f"{len(results)} submissions, {count[0]} graded now; results in {options.out}/grades.csv, results.json and feedback/")
    if unread:
        print(f"{len(unread)} could not be read and have no points: {', '.join(unread)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Read the command line; 0 if all went well."""
    options = _parser().parse_args(arguments)
    from coursework.grading.grade import GradingError
    from coursework.grading.sandbox import NoSandbox

    try:
        if options.command == "list":
            return _list()
        if options.command == "test":
            return _test(options.what)
        if options.command == "build":
            from coursework import build

            for path in build.build(assign.read(options.assignment), options.out):
                print(path)
            return 0
        if options.command == "export":
            from coursework import export

            for path in export.export(options.tool, assign.read(options.assignment), options.out):
                print(path)
            return 0
        return _grade(options)
    except (FormError, GradingError, NoSandbox, ValueError, OSError) as error:
        print(f"coursework: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. What was finished is kept: run the same command again to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
