"""Student notebooks from an assignment: prompts, stubs and checks; no solutions."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from coursework import PUBLIC_SEED, assign, recorded
from coursework.assign import Assignment, Question
from coursework.grading import slicing

HERE = Path(__file__).parent
EDITION = ("__init__.py", "form.py", "judging.py", "observing.py", "recorded.py", "running.py", "wire.py")
ROLES = [
    (re.compile(r"\{cite(?::\w)?\}`([^`]*)`"), lambda m: "[" + m[1] + "]"),
    (re.compile(r"\{term\}`([^<`]*?)\s*(?:<[^>]*>)?`"), lambda m: m[1]),
    (re.compile(r"\{(?:doc|ref|numref)\}`([^<`]*?)\s*(?:<[^>]*>)?`"), lambda m: m[1]),
    (re.compile(r"\{(?:math)\}`([^`]*)`"), lambda m: f"${m[1]}$"),
]
INTRO = """# {title}

Fill in the functions. Run the `check` cell after each: it tries your function on several inputs and, where it is not right yet,
tells you one thing it has seen. You may run it as often as you like. Grading uses other inputs of the same kind.
If `from coursework import check` fails, put the folder `coursework` that came with this notebook beside it.

What counts is the **last** definition of each function in this notebook, with whatever imports and helpers it needs.
Plots, prints and loops between the functions are not run while grading. Keep the functions' names. {points} points in all."""


def plain_markdown(text: str, cited: dict | None = None) -> str:
    """MyST Markdown with its roles turned into what every notebook shows."""
    for pattern, replace in ROLES:
        text = pattern.sub(replace, text)
    for key, name in (cited or {}).items():
        text = text.replace(f"[{key}]", f"({name})")
    return text


def citations() -> dict[str, str]:
    """Citation keys of the book's bibliography -> author and year, if it is at hand."""
    path = HERE.parent / "references.bib"
    if not path.exists():
        return {}
    found = {}
    for entry in re.split(r"(?m)^@", path.read_text("utf-8"))[1:]:
        key = re.match(r"\w+\{([^,]+),", entry)
        author, year = (re.search(rf"(?im)^\s*{f}\s*=\s*[{{\"](.*?)[}}\"],?\s*$", entry) for f in ("author", "year"))
        if key and author and year:
            first, *others = re.split(r"\s+and\s+", author[1])
            name = first.split(",")[0] if "," in first else first.split()[-1]
            found[key[1]] = f"{name.strip('{}')}{' et al.' if len(others) > 1 else ''}, {year[1]}"
    return found


def sources(question: Question) -> dict:
    """Source of observers, `verify` and `drive`, with what they need and nothing that solves the exercise."""
    base, exercise = question.base, question.exercise
    observers = [o.__name__ for o in exercise.observers]
    wanted = [*observers, *(n for n in ("verify", "drive") if getattr(exercise, n))]
    if not wanted:
        return {"code": "", "observers": []}
    found, _ = slicing.statements([base.text])
    keep = []
    for name in wanted:
        keep += [s for s in slicing.needed(found, name) if not any(s is k for k in keep)]
    pieces = []
    for s in found:
        if not any(s is k for k in keep):
            continue
        module = getattr(s.node, "module", None) or ""
        if base.name in s.binds or any(w.name in s.binds for w in base.wrongs):
            raise assign.FormError(f"{base.name}: its observers, verify or drive use the solution, which cannot be handed out")
        if module.startswith("attnlib."):
            pieces += assign.spell_out(module, [a.name for a in s.node.names])
        elif module in ("coursework.observing", "coursework.running"):   # these come with `check`
            pieces.append(s.text)
        elif module.startswith("coursework"):
            continue
        else:
            pieces.append(s.text)
    return {"code": "\n\n".join(pieces), "observers": observers}


def notebook(assignment: Assignment, solutions: bool = False):
    """The assignment as a notebook node; with `solutions`, the instructor's copy."""
    import nbformat.v4 as v4

    nb = v4.new_notebook(metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                                   "language_info": {"name": "python"}})
    cited, number = citations(), 0

    def add(make, text, **metadata):
        nonlocal number
        nb.cells.append(make(text, id=f"{assignment.name[:40]}-{number}".replace("_", "-"), metadata=metadata))
        number += 1

    add(v4.new_markdown_cell, INTRO.format(title=assignment.title, points=assignment.points))
    shared = []
    for question in assignment.questions:
        for line in assign.given(question.exercise, without=[q.name for q in assignment.questions]).split("\n\n\n"):
            piece = line.strip("\n")
            if piece and piece not in shared:
                shared.append(piece)
    imports = [p for p in shared if not p.startswith(("def ", "class ", "@"))]
    lines = list(dict.fromkeys(line for p in imports for line in p.splitlines()))
    setup = "\n".join([*lines, "", "from coursework import check"])
    add(v4.new_code_cell, setup)
    helpers = [p for p in shared if p not in imports]
    if helpers:
        add(v4.new_markdown_cell, "These helpers are given; leave them as they are.")
        add(v4.new_code_cell, "\n\n\n".join(helpers))
    for i, question in enumerate(assignment.questions, start=1):
        add(v4.new_markdown_cell, f"## {i}. {question.base.title} ({question.points} point{'s' * (question.points != 1)})\n\n"
            + plain_markdown(question.prompt, cited))
        if solutions:
            add(v4.new_code_cell, question.solution, tags=["solution"])
        else:
            add(v4.new_code_cell, question.stub, tags=["answer"])
        add(v4.new_code_cell, f"check({question.name})", tags=["check"])
    return nb


def checks(assignment: Assignment) -> dict:
    """What `check` needs in a student's folder: no solutions, see `recorded`."""
    return {"exercises": [recorded.record(q.exercise, PUBLIC_SEED, sources(q)) for q in assignment.questions]}


def build(assignment: Assignment, out: Path) -> list[Path]:
    """Write an assignment: `student/` to hand out, `instructor/` to keep, and a copy of the YAML file.

    Parameters
    ----------
    assignment : Assignment
    out : Path
        A folder; it is made. Files of the same names are replaced, others left alone.

    Returns
    -------
    list of Path
        What was written.
    """
    import nbformat

    out = Path(out)
    data = checks(assignment)                           # everything that can fail, before anything is written
    student, instructor = out / "student", out / "instructor"
    (student / "coursework").mkdir(parents=True, exist_ok=True)
    instructor.mkdir(parents=True, exist_ok=True)
    written = [student / f"{assignment.name}.ipynb", instructor / f"{assignment.name}_solutions.ipynb"]
    nbformat.write(notebook(assignment), written[0])
    nbformat.write(notebook(assignment, solutions=True), written[1])
    for folder in (instructor, student):                # beside both notebooks, so that `check` knows their names
        (folder / "coursework").mkdir(exist_ok=True)
        for name in EDITION:
            shutil.copyfile(HERE / name, folder / "coursework" / name)
        recording = folder / "coursework" / f"{assignment.name}_checks.json"
        recording.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    needs = sorted({n for q in assignment.questions for n in q.exercise.needs})
    requirements = student / "requirements.txt"
    requirements.write_text("\n".join(["numpy>=2", *needs, "jupyterlab>=4"]) + "\n", "utf-8")
    written += [recording, requirements]
    if assignment.path:
        copy = out / f"{assignment.name}.yml"
        if copy.resolve() != assignment.path.resolve():
            said = assignment.path.read_text("utf-8")
            own = re.search(r"(?m)^exercises_from:\s*(.*?)\s*(?:#.*)?$", said)
            if own:                                     # the copy lies elsewhere, the folder does not
                folder = (assignment.path.parent / own[1].strip("'\"")).resolve()
                said = said.replace(own[0], f"exercises_from: {folder.as_posix()}")
            copy.write_text(said, "utf-8")
        written.append(copy)
    return written
