"""What is handed out: student notebooks without solutions that run on NumPy alone, and exports in other tools' forms."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

import coursework
from coursework import assign, build, export, form
from coursework.__main__ import main
from tools.chapters import ROOT

SETS = sorted((ROOT / "coursework" / "assignments").glob("*.yml"))
# A stranger's machine: Python, NumPy, and what is in the student's folder.
RUN = """
import importlib.abc, json, sys
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"attnlib", "torch", "triton", "yaml", "nbformat", "matplotlib", "tqdm", "IPython"} - allowed:
            raise ModuleNotFoundError(f"not on a student's machine: {name}", name=name)
allowed = set(sys.argv[2:])
sys.meta_path.insert(0, Nothing())
sys.path[:] = [p for p in sys.path if p not in (HERE, "")]
sys.path.insert(0, ".")
space = {"__name__": "__main__"}
import linecache
for number, cell in enumerate(json.load(open(sys.argv[1]))["cells"]):
    if cell["cell_type"] == "code":
        text = "".join(cell["source"])
        name = f"<cell {number}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compile(text, name, "exec"), space)
"""


def run(folder: Path, notebook: Path, needs=()) -> str:
    done = subprocess.run([sys.executable, "-I", "-c", RUN.replace("HERE", repr(str(ROOT))), str(notebook), *needs],
                          cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Each problem set that comes with the book, built."""
    made = {}
    for path in SETS:
        assignment = assign.read(path)
        out = tmp_path_factory.mktemp(assignment.name)
        build.build(assignment, out)
        made[assignment.name] = (assignment, out)
    return made


@pytest.mark.parametrize("name", [p.stem for p in SETS])
def test_a_student_starts_from_nothing(built, name):
    """The notebook runs as handed out, on NumPy alone (and what its exercises say they need), and every check says so."""
    assignment, out = built[name]
    needs = {n for q in assignment.questions for n in q.exercise.needs}
    if any(importlib.util.find_spec(n) is None for n in needs):
        pytest.skip(f"needs {', '.join(sorted(needs))}")
    printed = run(out / "student", out / "student" / f"{name}.ipynb", needs)
    assert printed.count("not attempted yet") == len(assignment.questions)
    solved = run(out / "instructor", out / "instructor" / f"{name}_solutions.ipynb", needs)
    assert solved.count("✓") == len(assignment.questions), solved


@pytest.mark.parametrize("name", [p.stem for p in SETS])
def test_notebooks_are_valid_and_small(built, name):
    assignment, out = built[name]
    nb = nbformat.read(out / "student" / f"{name}.ipynb", as_version=4)
    nbformat.validate(nb)
    assert len({c.id for c in nb.cells}) == len(nb.cells)
    assert sum(c.source.startswith("## ") for c in nb.cells) == len(assignment.questions)
    size = sum(p.stat().st_size for p in (out / "student").rglob("*") if p.is_file())
    assert size < 6_000_000, size
    assert not (out / "student" / "coursework" / "pool").exists()


def test_no_question_is_solved_by_what_another_is_given(built):
    """Neither under its own name (the learner's is used) nor, silently, under another."""
    for assignment, _ in built.values():
        names = [q.name for q in assignment.questions]
        for q in assignment.questions:
            text = assign.given(q.exercise, without=names)
            for other in assignment.questions:
                assert f"def {other.name}(" not in text and f"def {other.base.name}(" not in text


def test_an_assignment_that_gives_itself_away_is_refused(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("questions:\n  - multi_head_attention\n  - {exercise: split_heads, name: cut}\n")
    with pytest.raises(form.FormError, match="question multi_head_attention hands out split_heads, which solves question cut"):
        assign.read(path)
    path.write_text("questions: [soft_dict, {exercise: stable_softmax, name: rowwise}]\n")
    with pytest.raises(form.FormError, match="question soft_dict is given softmax, which solves question rowwise"):
        assign.read(path)
    path.write_text("questions: [soft_dict, {exercise: stable_softmax, name: softmax}]\n")
    assert "def softmax" not in build.notebook(assign.read(path)).cells[1].source
    path.write_text("questions: [multi_head_attention, by_hand]\n")
    with pytest.raises(form.FormError, match="multi_head_attention and by_hand are given different versions of attention"):
        assign.read(path)
    path.write_text("questions: [multi_head_attention, split_heads]\n")
    made = assign.read(path)
    assert "def split_heads" not in build.notebook(made).cells[1].source


def test_the_book_version_is_wrong_in_a_variant(built):
    assignment, out = built["ps1"]
    question = next(q for q in assignment.questions if q.variant)
    nb = json.loads((out / "instructor" / "ps1_solutions.ipynb").read_text())
    cells = [{**c, "source": f"{question.base.solution}\n\n\ndef {question.name}(*args):\n    return {question.base.name}(*args)"}
             if c["cell_type"] == "code" and f"def {question.name}(" in "".join(c["source"]) else c for c in nb["cells"]]
    changed = out / "instructor" / "book.ipynb"
    changed.write_text(json.dumps({**nb, "cells": cells}))
    printed = run(out / "student", changed, ())
    assert question.base.variants[question.variant].hint in " ".join(printed.split())


def test_own_exercises(tmp_path):
    """The example of the instructors' guide, as printed there, works; and an unfinished one is told so."""
    guide = (ROOT / "appendix" / "instructors.md").read_text()
    code = guide.split("```python\n")[1].split("```")[0]
    own = tmp_path / "own"
    own.mkdir()
    (own / "row_max.py").write_text(code)
    assert main(["test", str(own)]) == 1                   # it has one wrong answer; six are asked for
    (tmp_path / "mine.yml").write_text("exercises_from: own\nquestions: [row_max, stable_softmax]\n")
    assert main(["build", str(tmp_path / "mine.yml"), str(tmp_path / "out")]) == 0
    printed = run(tmp_path / "out" / "student", tmp_path / "out" / "instructor" / "mine_solutions.ipynb")
    assert printed.count("✓") == 2


def test_the_learners_page_shows_what_check_says():
    import numpy as np

    page = (ROOT / "appendix" / "exercises.md").read_text()

    def merge(max_a, sum_a, max_b, sum_b):
        raise NotImplementedError

    def added(max_a, sum_a, max_b, sum_b):
        return np.maximum(max_a, max_b), sum_a + sum_b

    for answer in (merge, added, form.get("merge").reference):
        assert f"```\n{coursework.verdict(answer, 'merge')}\n```" in page


def test_the_yaml_of_the_guide_is_an_assignment(tmp_path):
    guide = (ROOT / "appendix" / "instructors.md").read_text()
    path = tmp_path / "guide.yml"
    path.write_text(guide.split("```yaml\n")[1].split("```")[0])
    made = assign.read(path)
    assert [q.name for q in made.questions] == ["stable_softmax", "who_may_see"] and made.points == 8


# --- exports: their form; each was also loaded by its own tool, see the guide for instructors

@pytest.fixture
def assignment(tmp_path):
    path = tmp_path / "course" / "hw.yml"
    path.parent.mkdir()
    path.write_text("title: Homework\nquestions: [{exercise: stable_softmax, points: 5}, alibi_bias]\n")
    return assign.read(path)


def test_nbgrader(assignment, tmp_path):
    export.export("nbgrader", assignment, tmp_path / "out")
    nb = nbformat.read(tmp_path / "out" / "source" / "hw" / "hw.ipynb", as_version=4)
    nbformat.validate(nb)
    graded = {c.metadata.nbgrader.grade_id: c for c in nb.cells if "nbgrader" in c.metadata}
    assert set(graded) == {"answer-stable_softmax", "test-stable_softmax", "answer-alibi_bias", "test-alibi_bias"}
    assert graded["test-stable_softmax"].metadata.nbgrader.points == 5 and graded["test-alibi_bias"].metadata.nbgrader.grade
    assert "### BEGIN HIDDEN TESTS" in graded["test-alibi_bias"].source and "### BEGIN SOLUTION" in graded["answer-alibi_bias"].source
    run(tmp_path / "out" / "source" / "hw", tmp_path / "out" / "source" / "hw" / "hw.ipynb")      # its tests pass on the solutions


def test_nbgrader_hidden_tests_can_fail(assignment, tmp_path):
    export.export("nbgrader", assignment, tmp_path / "out")
    path = tmp_path / "out" / "source" / "hw" / "hw.ipynb"
    nb = json.loads(path.read_text())
    for c in nb["cells"]:
        if c["metadata"].get("nbgrader", {}).get("grade_id") == "answer-alibi_bias":
            c["source"] = "def alibi_bias(heads, seq_q, seq_k):\n    return np.zeros((heads, seq_q, seq_k))"
        c["source"] = "".join(c["source"]).replace("require(alibi_bias)", "")       # only the hidden tests are left
    path.write_text(json.dumps(nb))
    with pytest.raises(AssertionError, match="Mistaken"):
        run(path.parent, path)


def test_otter(assignment, tmp_path):
    export.export("otter", assignment, tmp_path / "out")
    nb = nbformat.read(tmp_path / "out" / "hw.ipynb", as_version=4)
    nbformat.validate(nb)
    raw = [c.source.splitlines()[0] for c in nb.cells if c.cell_type == "raw"]
    assert raw == ["# ASSIGNMENT CONFIG", *["# BEGIN QUESTION", "# BEGIN SOLUTION", "# END SOLUTION", "# BEGIN TESTS", "# END TESTS",
                                            "# END QUESTION"] * 2]
    assert (tmp_path / "out" / "coursework" / "hw_checks.json").exists()


def test_gradescope_grades_in_its_own_tree(assignment, tmp_path):
    export.export("gradescope", assignment, tmp_path / "out")
    source, folder = tmp_path / "source", tmp_path / "submission"
    with zipfile.ZipFile(tmp_path / "out" / "autograder.zip") as archive:
        assert {"setup.sh", "run_autograder", "hw.yml"} <= set(archive.namelist())
        archive.extractall(source)
    folder.mkdir()
    (folder / "hw.ipynb").write_text(nbformat.writes(build.notebook(assignment, solutions=True)))
    done = subprocess.run([sys.executable, "-m", "coursework.grading.gradescope", "hw.yml", str(folder), str(tmp_path / "results.json")],
                          cwd=source, env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["score"] == 9 and [t["max_score"] for t in results["tests"]] == [5, 4]
    assert "process" in results["output"]


@pytest.mark.parametrize("tool", ["nbgrader", "otter", "gradescope"])
def test_each_export_says_what_its_scores_are_worth(assignment, tmp_path, tool):
    export.export(tool, assignment, tmp_path / "out")
    note = (tmp_path / "out" / "README.md").read_text()
    assert "can be trusted for" in note and "python -m coursework grade" in note


def test_an_unknown_tool(assignment, tmp_path):
    with pytest.raises(ValueError, match="expected one of nbgrader, otter, gradescope"):
        export.export("moodle", assignment, tmp_path / "out")
