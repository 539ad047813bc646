"""The same assignment for other grading tools, with a plain word on what their scores can be trusted for."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from pathlib import Path

from coursework import assign, build, recorded
from coursework.assign import Assignment
from coursework.build import EDITION, HERE

HIDDEN_SEED = 20_011
CAUTION = {
    "nbgrader": """nbgrader runs its tests in the same Python process as the student's code. A submission that replaces `require`, or that
reads the hidden tests while they run, gets full marks, and hidden tests appear in the feedback pages. Endless loops stop at the
cell's time limit; a duplicated cell can fail a whole submission.""",
    "otter": """Otter-Grader runs its tests in the same Python process as the student's code, and reads back what that process has
pickled. A submission that replaces `require` gets full marks; hidden tests can be read by the code that is graded. `otter run` has no time
limit for endless loops.""",
    "gradescope": """Gradescope runs this autograder in a container of its own for each submission, so a student cannot reach other
submissions. Inside, bubblewrap is tried first; most such containers do not allow it, and then the autograder runs with `--trusted`: scores
still come from hidden inputs and are decided outside the student's process, but a determined submission can read the
tests in the container, `seed.txt` among them. The results say which of the two was used.""",
}
NOTE = """# {title}, for {tool}

Made by `python -m coursework export {tool}`. {how}

**What these scores can be trusted for.** {caution}

So they are good for practice and for students you trust. For marks that count, grade the same notebooks with
`python -m coursework grade`, where every answer runs in a process without files, network or tests, and is judged outside it.
"""
HOW = {
    "nbgrader": "Copy `source/` into your nbgrader course folder, then `nbgrader generate_assignment {name}`.",
    "otter": "Run `otter assign {name}.ipynb dist` in this folder; `dist/student` is for the students, `dist/autograder` for you.",
    "gradescope": "Upload `autograder.zip` as the autograder of a programming assignment; students get the notebook that "
                  "`python -m coursework build` makes, and hand in `{name}.ipynb`.",
}


def export(tool: str, assignment: Assignment, out: Path) -> list[Path]:
    """Write an assignment in another tool's form.

    Parameters
    ----------
    tool : str
        "nbgrader", "otter" or "gradescope".
    assignment : Assignment
    out : Path
        A folder; it is made.

    Returns
    -------
    list of Path
        What was written; `README.md` among it says how to use it and what its scores can be trusted for.

    Raises
    ------
    ValueError
        If there is no such tool.
    """
    makers = {"nbgrader": nbgrader, "otter": otter, "gradescope": gradescope}
    if tool not in makers:
        raise ValueError(f"export: tool is {tool!r}, expected one of {', '.join(makers)}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = makers[tool](assignment, out)
    note = out / "README.md"
    note.write_text(NOTE.format(title=assignment.title, tool=tool, how=HOW[tool].format(name=assignment.name),
                                caution=CAUTION[tool].replace("\n", " ")), "utf-8")
    return [*written, note]


def _hidden(assignment: Assignment) -> dict[str, str]:
    """For each question other inputs and their right results, packed into a text."""
    made = {}
    for q in assignment.questions:
        said = recorded.record(q.exercise, HIDDEN_SEED, build.sources(q), known=False)
        made[q.name] = base64.b64encode(zlib.compress(json.dumps(said).encode(), 9)).decode()
    return made


def _edition(assignment: Assignment, folder: Path) -> list[Path]:
    """Copy what `check` needs into `folder/coursework`; nothing in it solves an exercise."""
    target = folder / "coursework"
    target.mkdir(parents=True, exist_ok=True)
    for name in EDITION:
        shutil.copyfile(HERE / name, target / name)
    checks = target / f"{assignment.name}_checks.json"
    checks.write_text(json.dumps(build.checks(assignment), indent=1) + "\n", "utf-8")
    return [checks]


def nbgrader(assignment: Assignment, out: Path) -> list[Path]:
    """A source folder for nbgrader (cell metadata of schema 3)."""
    import nbformat

    folder = out / "source" / assignment.name
    written, hidden = _edition(assignment, folder), _hidden(assignment)
    nb, questions = build.notebook(assignment, solutions=True), {q.name: q for q in assignment.questions}

    def meta(cell, key, **about):
        cell.metadata["nbgrader"] = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False,
                                     "grade_id": key, **about}

    pending = iter(assignment.questions)
    tests = []
    for cell in nb.cells:
        tags = cell.metadata.pop("tags", [])
        if "solution" in tags:
            question = next(pending)
            stub = question.stub.splitlines()
            head = [line for line in stub if "NotImplementedError" not in line]
            body = question.solution
            opening = "\n".join(head)
            if len(head) == 1 and body.startswith(opening):
                body = opening + "\n    ### BEGIN SOLUTION" + body[len(opening):] + "\n    ### END SOLUTION"
            else:
                body = "### BEGIN SOLUTION\n" + body + "\n### END SOLUTION"
            cell.source = body
            meta(cell, f"answer-{question.name}", solution=True)
        elif "check" in tags:
            name = cell.source.removeprefix("check(").removesuffix(")")
            cell.source = (f"from coursework import require\nfrom coursework.recorded import require_packed\n\nrequire({name})\n"
                           f"### BEGIN HIDDEN TESTS\nrequire_packed({name}, \"{hidden[name]}\")\n### END HIDDEN TESTS")
            meta(cell, f"test-{name}", grade=True, locked=True, points=questions[name].points)
            tests.append(name)
    path = folder / f"{assignment.name}.ipynb"
    nbformat.write(nb, path)
    return [path, *written]


def otter(assignment: Assignment, out: Path) -> list[Path]:
    """A master notebook for `otter assign`."""
    import nbformat
    import nbformat.v4 as v4

    written, hidden = _edition(assignment, out), _hidden(assignment)
    requirements = out / "requirements.txt"
    needs = sorted({n for q in assignment.questions for n in q.exercise.needs})
    requirements.write_text("\n".join(["numpy>=2", *needs]) + "\n", "utf-8")
    plain = build.notebook(assignment, solutions=True)
    config = ["# ASSIGNMENT CONFIG", f"name: {assignment.name}", "init_cell: true", "export_cell: false", "check_all_cell: false",
              "requirements: requirements.txt", "files:", *(f"  - coursework/{p}" for p in (*EDITION, written[0].name)),
              "generate:", "  show_hidden: false"]
    nb = v4.new_notebook(metadata=plain.metadata)
    questions = iter(assignment.questions)

    def add(make, text):
        nb.cells.append(make(text, id=f"{assignment.name[:40]}-{len(nb.cells)}".replace("_", "-")))

    add(v4.new_raw_cell, "\n".join(config))
    prompt = None
    for cell in plain.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags:
            q = next(questions)
            add(v4.new_raw_cell, f"# BEGIN QUESTION\nname: {q.name}\npoints:\n  - 0\n  - {q.points}")
            add(v4.new_markdown_cell, prompt)
            add(v4.new_raw_cell, "# BEGIN SOLUTION")
            add(v4.new_code_cell, f'""" # BEGIN PROMPT\n{q.stub}\n""" # END PROMPT\n# BEGIN SOLUTION NO PROMPT\n{q.solution}\n# END SOLUTION')
            add(v4.new_raw_cell, "# END SOLUTION")
            add(v4.new_raw_cell, "# BEGIN TESTS")
            add(v4.new_code_cell, f"from coursework import require\nrequire({q.name})")
            add(v4.new_code_cell, f'# HIDDEN\nfrom coursework.recorded import require_packed\nrequire_packed({q.name}, "{hidden[q.name]}")')
            add(v4.new_raw_cell, "# END TESTS")
            add(v4.new_raw_cell, "# END QUESTION")
        elif "check" in tags:
            continue
        elif cell.source.startswith("## "):
            prompt = cell.source
        else:
            add(v4.new_markdown_cell if cell.cell_type == "markdown" else v4.new_code_cell, cell.source)
    path = out / f"{assignment.name}.ipynb"
    nbformat.write(nb, path)
    return [path, requirements, *written]


SETUP = """#!/usr/bin/env bash
set -e
apt-get update && apt-get install -y --no-install-recommends bubblewrap python3 python3-venv
python3 -m venv /autograder/venv
/autograder/venv/bin/pip install {packages}
"""
RUN = """#!/usr/bin/env bash
cd /autograder/source
PYTHONPATH=. /autograder/venv/bin/python -m coursework.grading.gradescope {name}.yml /autograder/submission /autograder/results/results.json
"""


def gradescope(assignment: Assignment, out: Path) -> list[Path]:
    """An autograder archive: the coursework package, the assignment, `setup.sh` and `run_autograder`."""
    import zipfile

    needs = sorted({n for q in assignment.questions for n in q.exercise.needs})
    archive = out / "autograder.zip"
    text = assignment.path.read_text("utf-8")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, body in (("setup.sh", SETUP.format(packages=" ".join(["numpy", "pyyaml", "nbformat", "tqdm", *needs]))),
                           ("run_autograder", RUN.format(name=assignment.name))):
            about = zipfile.ZipInfo(name)
            about.external_attr = 0o755 << 16
            file.writestr(about, body)
        for package in (HERE, assign.ATTNLIB):
            for path in sorted(package.rglob("*.py")):
                if not {"__pycache__", "plots", "widgets"} & set(path.parts):
                    file.write(path, path.relative_to(HERE.parent).as_posix())
        file.writestr(f"{assignment.name}.yml", text)
        for q in assignment.questions:                         # exercises of the instructor's own
            own = assignment.path.parent / _own(text) / f"{q.base.name}.py" if _own(text) else None
            if own and own.exists():
                file.write(own, f"{_own(text)}/{own.name}")
    return [archive]


def _own(text: str) -> str:
    import yaml

    return (yaml.safe_load(text) or {}).get("exercises_from", "").strip("/")
