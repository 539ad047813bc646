"""Grade the one submission of a Gradescope container: `python -m coursework.grading.gradescope FILE.yml FOLDER results.json`."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

from coursework import assign
from coursework.grading import questions, submissions
from coursework.grading.grade import write
from coursework.grading.sandbox import NoSandbox, Sandbox


def results(assignment: assign.Assignment, folder: Path) -> dict:
    """Grade what lies in `folder`; the result in Gradescope's form (`tests` with score, max_score, output)."""
    paper = questions.Paper(assignment, secrets.randbits(31))
    submission = submissions.read("submission", folder, assignment.name)
    try:
        sandbox = Sandbox(hidden=[folder])
    except NoSandbox:
        sandbox = Sandbox("trusted")
    with sandbox:
        lost = questions.trial(sandbox, paper)
        if lost:
            return {"score": 0, "output": "The autograder does not work here; nothing was graded. " + " ".join(lost)}
        graded = questions.grade(sandbox, paper, submission)
    said = f"Graded in a {sandbox.mode} process."
    if graded["points"] is None:
        return {"score": 0, "output": f"This submission could not be read: {graded['problem']}. {said}"}
    cells = "".join(f"\nCode cell {c} was left out: {why}." for c, why in graded["broken"].items())
    tests = [{"name": m["question"], "score": m["points"], "max_score": m["of"], "status": "passed" if m["points"] == m["of"] else "failed",
              "output": m["hint"] or "Right."} for m in graded["marks"]]
    return {"score": graded["points"], "output": said + cells, "tests": tests}


def main(arguments: list[str]) -> int:
    """Write the results file; 0 always, so that Gradescope shows what it says."""
    assignment, folder, out = arguments
    write(Path(out), json.dumps(results(assign.read(Path(assignment)), Path(folder)), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
