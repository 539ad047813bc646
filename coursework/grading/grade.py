"""Grading a folder of submissions: `grades.csv`, `results.json` and a page of feedback for each student.

Every finished submission is written at once to `OUT/graded/`, so an interruption loses at most those under way. A second run
over the same submissions takes these results as they are; a changed submission or assignment is graded anew.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import secrets
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from coursework import assign
from coursework.assign import Assignment
from coursework.grading import feedback, questions, submissions
from coursework.grading.sandbox import TRUSTED, Sandbox


class GradingError(Exception):
    """Grading cannot go on; the message says why and what to do."""


def write(path: Path, text: str) -> None:
    """Write a file in one step: the old one or the new one is there, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def secret_seed(out: Path) -> int:
    """The seed of the hidden inputs: drawn once for an output folder and kept in it."""
    path = out / "seed.txt"
    if not path.exists():
        write(path, f"{secrets.randbits(31)}\n")
        path.chmod(0o600)
    try:
        return int(path.read_text())
    except ValueError as error:
        raise GradingError(f"{path} should hold one whole number. Delete it and {out}/graded to start afresh.") from error


def fingerprint(assignment: Assignment, seed: int) -> str:
    """Of all that decides about points: a result is only good for the assignment it was made with."""
    parts = [str(seed), assignment.library]
    for q in assignment.questions:
        parts += [q.base.text, q.name, str(q.points), q.variant, json.dumps(q.rename, sort_keys=True)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def shard(student: str, part: tuple[int, int]) -> bool:
    """Whether a student belongs to part i of n, the same on every machine."""
    return zlib.crc32(student.encode()) % part[1] == part[0] - 1


def _filename(student: str) -> str:
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in student)[:80]
    return safe if safe == student else f"{safe}-{zlib.crc32(student.encode()):08x}"


def stored(out: Path, student: str, digest: str) -> dict | None:
    """A finished result for exactly this submission and assignment, or None."""
    try:
        result = json.loads((out / "graded" / f"{_filename(student)}.json").read_text("utf-8"))
        return result if result["digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def grade_folder(assignment: Assignment, folder: Path, out: Path, jobs: int = 1, part: tuple[int, int] = (1, 1),
                 mode: str = "", progress=None) -> list[dict]:
    """Grade every submission in a folder.

    Parameters
    ----------
    assignment : Assignment
    folder, out : Path
        Submissions, and where the results go; `out` may hold results of an earlier run.
    jobs : int
        How many at a time.
    part : (int, int)
        Grade only part i of n; the others can be done by other machines into the same `out`.
    mode : str
        See `Sandbox`.
    progress : callable, optional
        Wraps the iterator of finished results, as `tqdm` does.

    Returns
    -------
    list of dict
        One result for each student of this part, by name.

    Raises
    ------
    GradingError
        If the reference does not get full marks here, or there is nothing to grade.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise GradingError(f"{folder} is not a folder with submissions" + (f"; did you mean {folder.parent}?" if folder.is_file() else ""))
    found = submissions.find(folder)
    if not found:
        raise GradingError(f"{folder} holds no submissions: expected NAME.ipynb, NAME.py, NAME.zip or folders")
    paper = questions.Paper(assignment, secret_seed(out))
    stamp = fingerprint(assignment, paper.seed)
    results, waiting = {}, []
    if any(path.name in ("student", "instructor") for _, path in found):
        raise GradingError(f"{folder} looks like the output of `build`, not like submissions")
    for student, path in found:
        if not shard(student, part):
            continue
        submission = submissions.read(student, path, assignment.name)
        digest = f"{stamp[:16]}-{submission.digest}"
        done = stored(out, student, digest)
        if done:
            results[student] = done
        else:
            waiting.append((submission, digest))
    if waiting:
        with Sandbox(mode, hidden=(folder, out, *([assignment.path.parent] if assignment.path else []))) as sandbox:
            if mode == "trusted":
                print(TRUSTED, file=sys.stderr)
            print(f"Grading the reference solutions first ({sandbox.mode}) ...", file=sys.stderr, flush=True)
            if lost := questions.trial(sandbox, paper):
                raise GradingError("The reference solutions do not get full marks on this machine, so nobody's would:\n  "
                                   + "\n  ".join(lost) + "\nNothing was graded.")
            _grade_all(sandbox, paper, waiting, out, jobs, results, progress or (lambda items, **_: items))
    ordered = [results[student] for student in sorted(results)]
    report(assignment, out, stamp, {student for student, _ in found})
    return ordered


def _grade_all(sandbox, paper, waiting, out, jobs, results, progress) -> None:
    def one(submission, digest):
        result = questions.grade(sandbox, paper, submission)
        return {**result, "digest": digest}

    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        running = [pool.submit(one, *item) for item in waiting]
        for done in progress(as_completed(running), total=len(running)):
            result = done.result()
            name = _filename(result["student"])
            write(out / "graded" / f"{name}.json", json.dumps(result, indent=1, ensure_ascii=False))
            write(out / "feedback" / f"{name}.html", feedback.page(paper.assignment, result))
            results[result["student"]] = result
    except KeyboardInterrupt:
        print("\nFinishing the submissions under way ...", file=sys.stderr, flush=True)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def report(assignment: Assignment, out: Path, stamp: str, present: set[str]) -> None:
    """Write `grades.csv` and `results.json` from all finished results in `out`, those of other parts included.

    Results of another assignment, or of students whose submission is there no more, are left out (and left alone).
    """
    finished = []
    for path in sorted((out / "graded").glob("*.json")):
        try:
            result = json.loads(path.read_text("utf-8"))
            if result["student"] in present and result["digest"].startswith(stamp[:16]):
                finished.append(result)
        except (ValueError, KeyError, TypeError):
            continue                                  # half a file cannot arise here; somebody else's is not ours
    finished.sort(key=lambda r: r["student"])
    rows = io.StringIO()
    table = csv.writer(rows)
    named = [q.name for q in assignment.questions]
    table.writerow(["student", "points", "of", "status", *named, "remarks"])
    for r in finished:
        marks = {m["question"]: m for m in r["marks"]}
        remarks = [r["problem"]] if r["problem"] else []
        remarks += [f"code cell {cell}: {why}" for cell, why in r["broken"].items()]
        remarks += [f"look at {n}: {', '.join(m['review'])}" for n, m in marks.items() if m["review"]]
        remarks += [f"{n}: {feedback.WORDS[m['status']]}" for n, m in marks.items() if m["status"] not in ("right", "wrong")]
        table.writerow([_cell(r["student"]), "" if r["points"] is None else f"{r['points']:g}", r["of"], r["status"],
                        *(f"{marks[n]['points']:g}" if n in marks else "" for n in named), _cell("; ".join(remarks))])
    write(out / "grades.csv", rows.getvalue())
    public = [{k: v for k, v in r.items() if k != "digest"} for r in finished]
    write(out / "results.json", json.dumps({"assignment": assignment.name, "title": assignment.title,
                                            "questions": [{"name": q.name, "points": q.points} for q in assignment.questions],
                                            "students": public}, indent=1, ensure_ascii=False) + "\n")


def _cell(text: str) -> str:
    """A text that a spreadsheet will not take for a formula."""
    return "'" + text if text[:1] in "=+-@\t\r" and text else text


def find_assignment(asked: str | None, folder: Path, out: Path) -> Assignment:
    """The assignment named on the command line, or the only one beside the submissions or the results.

    Raises
    ------
    GradingError
        If there is none, or several.
    """
    if asked:
        return assign.read(Path(asked))
    near = [p for place in (out, folder, folder.parent) for p in sorted(place.glob("*.yml"))] if folder.is_dir() else []
    if len({p.resolve() for p in near}) != 1:
        raise GradingError(f"Which assignment? {len(near)} .yml files lie beside {folder} and {out}: use --assignment FILE.yml")
    return assign.read(near[0])
