"""Grading a folder: what is read, what is run, what is credited, and what an interruption costs."""

import csv
import json
import subprocess
import sys

import pytest

from coursework import assign, form, get
from coursework.__main__ import main
from coursework.grading import grade, questions, seccomp, slicing, submissions
from coursework.grading.grade import GradingError
from coursework.grading.sandbox import NoSandbox, Sandbox
from coursework.grading.submissions import Submission
from coursework.running import identical
from coursework.wire import WireError, decode, encode
from tests.coursework.attacks import HONEST

RIGHT = get("stable_softmax").solution
NAMES = ["stable_softmax", "alibi_bias"]


def survey(text, names=NAMES):
    return slicing.survey(text.encode(), ".py", names)


def notebook(*cells):
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
        {"cell_type": "code", "source": c, "metadata": {}, "outputs": [], "execution_count": None} for c in cells]}).encode()


# --- slicing

def test_a_function_comes_with_what_it_needs_and_no_more():
    text = """
import numpy as np
import matplotlib.pyplot as plt
# %%
SCALE = 2
OTHER = slow()
# %%
def helper(x): return np.exp(x) * SCALE
def stable_softmax(scores): return helper(scores)
# %%
while True: pass
plt.plot(stable_softmax(OTHER))
print("done")
"""
    source = survey(text)["functions"]["stable_softmax"]["source"]
    assert source.split("\n\n") == ["import numpy as np", "SCALE = 2", "def helper(x): return np.exp(x) * SCALE",
                                    "def stable_softmax(scores): return helper(scores)"]


@pytest.mark.parametrize(("cells", "wanted"), [
    (["def f(x): return 1", "def f(x): return 2"], "return 2"),                                # the last one counts
    (["def f(x): return 1", "def f(x):\n    'doc'\n    raise NotImplementedError('stub')"], "return 1"),   # but not a stub
    (["def f(x): return 1", "def f(x): return ("], "return 1"),                                # nor a broken cell
    (["%matplotlib inline\ndef f(x): return 1"], "return 1"),
    (["!pip install x\ndef f(x):\n    %time y = 1\n    return 1"], "return 1"),
    (["%%bash\nrm -rf /", "def f(x): return 1"], "return 1"),
    (["f = lambda x: 1"], "lambda x: 1"),
    (["import math as m\ndef f(x, y=m.pi): return m"], "import math as m"),
    (["from numpy import *\ndef f(x): return exp(x)"], "from numpy import *"),
    (["try:\n    import torch\nexcept ImportError:\n    torch = None\ndef f(x): return torch"], "except ImportError"),
    (["table = {}\ntable['a'] = 1\ndef f(x): return table"], "table['a'] = 1"),
    (["for i in range(3):\n    t = i\ndef f(x): return t"], "for i in range(3)"),
    (["class C:\n    def g(self): return K\nK = 3\ndef f(x): return C().g()"], "K = 3"),
    (["import functools\n@functools.cache\ndef f(x): return 1"], "@functools.cache"),
    (["a = 1; b = 2\ndef f(x): return b"], "b = 2"),
])
def test_slices(cells, wanted):
    source = slicing.survey(notebook(*cells), ".ipynb", ["f"])["functions"]["f"]["source"]
    assert wanted in source
    compile(source, "f", "exec")


def test_main_blocks_and_loops_are_left_out():
    found = survey("def stable_softmax(s): return s\nif __name__ == '__main__':\n    while True: pass\n")
    assert "while" not in found["functions"]["stable_softmax"]["source"]


def test_shortcuts_are_flagged_and_own_functions_are_not():
    text = "import torch.nn.functional as F\ndef softmax(x): return x\ndef alibi_bias(x): return softmax(x)\n" \
           "def stable_softmax(x): return F.softmax(x)\n"
    found = survey(text)["functions"]
    assert found["stable_softmax"]["review"] == ["F.softmax"] and found["alibi_bias"]["review"] == []
    found = survey("from scipy.special import softmax as stable_softmax\ndef alibi_bias(x):\n    import os\n    return eval(x)\n")
    assert found["functions"]["alibi_bias"]["review"] == ["eval", "os"]


def test_unreadable_things_say_why():
    for data, suffix, why in ((b"\xff", ".ipynb", "UTF-8"), (b"{}", ".ipynb", "not a Jupyter notebook"),
                              (b"[" * 100_000, ".ipynb", "nested too deeply"), (b"[1]", ".ipynb", "not a Jupyter")):
        with pytest.raises(slicing.Unreadable, match=why):
            slicing.survey(data, suffix, NAMES)


# --- the wire

def test_what_crosses_the_wire_comes_back_the_same():
    import numpy as np

    rng = np.random.default_rng(5)
    for value in (None, True, 3, 2**80, -1.5, float("inf"), 1 + 2j, "x", (1, [2, {"a": np.arange(6).reshape(2, 3)}]),
                  np.array(3.0), np.zeros((0, 4), np.float32), np.array([True]), rng.normal(size=(2, 3))):
        back = decode(json.loads(json.dumps(encode(value))))
        assert identical(back, value), value
    copy = decode(json.loads(json.dumps(encode(rng))))
    assert copy.normal() == rng.normal()


@pytest.mark.parametrize("message", [
    {"array": ["<f8", [2], "AAAA"]}, {"array": ["O", [1], ""]}, {"array": ["<M8[s]", [1], "AAAAAAAAAAA="]}, {"array": ["|S8", [1], "AAAAAAAAAAA="]}, {"array": ["<f8", [-1], ""]}, {"array": ["<f8", [10**12], ""]}, {"nothing": 1},
    {"a": 1, "b": 2}, [1], {"tuple": [[1]]}, {"float": "1e5"}, {"int": "zz"}, {"dict": 3}, {"array": 1},
    {"tuple": [{"tuple": [{"tuple": [{"tuple": [{"tuple": [{"tuple": [{"tuple": [{"tuple": [1]}]}]}]}]}]}]}]},
])
def test_broken_messages_are_refused(message):
    with pytest.raises(WireError):
        decode(message)


# --- the folder

def hand_in(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


CLASS = {
    "ada": HONEST + RIGHT,
    "bea": HONEST,
    "cyd": "",
    "dot": HONEST + "\n# %%\n" + RIGHT + "\n# %%\n" + RIGHT + "\n# %%\n" + get("stable_softmax").stub,
    "eli": HONEST.replace("import numpy as np", "") + RIGHT.replace("np.exp(", "my_exp("),    # np is given; my_exp is nowhere
    "fay": HONEST + "\n# %%\ndef stable_softmax(scores):\n    return scores(\n",
    "gus": HONEST + "\n# %%\ndef stable_softmax(scores):\n    import numpy as np\n    p = np.exp(scores - scores.max(-1, keepdims=True))\n"
                    "    return p / p.sum(-1, keepdims=True)\n",
}
POINTS = {"ada": 8, "bea": 4, "cyd": 0, "dot": 8, "eli": 4, "fay": 4, "gus": 7}


@pytest.mark.xdist_group("sandbox")
def test_a_class_is_graded(tmp_path, trial, sandbox):
    hand_in(tmp_path / "in", **CLASS)
    results = grade.grade_folder(trial, tmp_path / "in", tmp_path / "out", jobs=2, mode=sandbox.mode)
    assert {r["student"]: r["points"] for r in results} == POINTS
    with open(tmp_path / "out" / "grades.csv", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert {s: float(row["points"]) for s, row in rows.items()} == POINTS
    assert "cell 2: " in rows["fay"]["remarks"] and "none of the functions" in rows["cyd"]["remarks"]
    hints = {r["student"]: {m["question"]: m["hint"] for m in r["marks"]} for r in results}
    assert "row that is all -inf" in hints["gus"]["stable_softmax"] and "NameError" in hints["eli"]["stable_softmax"]
    page = (tmp_path / "out" / "feedback" / "gus.html").read_text()
    assert "7 of 8 points" in page and "all -inf" in page and str(json.loads(grade_seed(tmp_path))) not in page


def grade_seed(tmp_path):
    return (tmp_path / "out" / "seed.txt").read_text().strip()


class Interrupted(Exception):
    pass


@pytest.mark.xdist_group("sandbox")
def test_an_interruption_loses_nothing_and_regrades_nothing(tmp_path, trial, sandbox, monkeypatch):
    hand_in(tmp_path / "in", **CLASS)
    graded = []
    real = questions.grade

    def counted(box, paper, submission):
        graded.append(submission.student)
        if len(graded) == 4:
            raise Interrupted
        return real(box, paper, submission)

    monkeypatch.setattr(questions, "grade", counted)
    with pytest.raises(Interrupted):
        grade.grade_folder(trial, tmp_path / "in", tmp_path / "out", mode=sandbox.mode)
    kept = {p.stem for p in (tmp_path / "out" / "graded").glob("*.json")}
    assert kept == set(graded[:3])
    monkeypatch.setattr(questions, "grade", lambda *a: (graded.append(a[2].student), real(*a))[1])
    graded.clear()
    results = grade.grade_folder(trial, tmp_path / "in", tmp_path / "out", mode=sandbox.mode)
    assert not kept & set(graded) and len(graded) == 4
    assert {r["student"]: r["points"] for r in results} == POINTS
    graded.clear()
    (tmp_path / "in" / "bea.py").write_text(CLASS["ada"])           # a new version is graded anew, the others are not
    results = grade.grade_folder(trial, tmp_path / "in", tmp_path / "out", mode=sandbox.mode)
    assert graded == ["bea"] and {r["student"]: r["points"] for r in results} == {**POINTS, "bea": 8}
    trial.questions[0].points = 5                                    # another assignment: everything is
    graded.clear()
    grade.grade_folder(trial, tmp_path / "in", tmp_path / "out", mode=sandbox.mode)
    assert sorted(graded) == sorted(CLASS)


@pytest.mark.xdist_group("sandbox")
def test_only_those_who_handed_in_are_listed(tmp_path, trial, sandbox):
    """A submission that was taken away, and results of another assignment, do not stay in the table."""
    hand_in(tmp_path / "in", ada=CLASS["ada"], bea=CLASS["bea"])
    out = tmp_path / "out"
    grade.grade_folder(trial, tmp_path / "in", out, mode=sandbox.mode)
    (tmp_path / "in" / "bea.py").unlink()
    grade.grade_folder(trial, tmp_path / "in", out, mode=sandbox.mode)
    assert [s["student"] for s in json.loads((out / "results.json").read_text())["students"]] == ["ada"]
    trial.questions[0].points = 5
    grade.grade_folder(trial, tmp_path / "in", out, part=(1, 10**6), mode=sandbox.mode)      # a part without students
    assert json.loads((out / "results.json").read_text())["students"] == []
    (tmp_path / "in" / "student").mkdir()
    with pytest.raises(GradingError, match="output of `build`"):
        grade.grade_folder(trial, tmp_path / "in", out, mode=sandbox.mode)


@pytest.mark.xdist_group("sandbox")
def test_parts_make_the_whole(tmp_path, trial, sandbox):
    hand_in(tmp_path / "in", **CLASS)
    out = tmp_path / "out"
    first = grade.grade_folder(trial, tmp_path / "in", out, part=(1, 2), mode=sandbox.mode)
    second = grade.grade_folder(trial, tmp_path / "in", out, part=(2, 2), mode=sandbox.mode)
    assert {r["student"] for r in first}.isdisjoint(r["student"] for r in second)
    assert {r["student"]: r["points"] for r in [*first, *second]} == POINTS
    assert {s["student"] for s in json.loads((out / "results.json").read_text())["students"]} == set(POINTS)


@pytest.mark.xdist_group("sandbox")
def test_what_fails_only_through_an_earlier_function_is_carried(tmp_path, sandbox):
    path = tmp_path / "two.yml"
    path.write_text("questions:\n  - {exercise: stable_softmax, name: softmax}\n  - {exercise: soft_dict, name: lookup}\n")
    made = assign.read(path)
    later = ("import numpy as np\ndef softmax(scores):\n    p = np.exp(scores)\n    return p / p.sum(axis=0)\n"
             "def lookup(query, keys, values, temperature):\n"
             "    return softmax((query @ keys.T - (keys**2).sum(-1) / 2) / temperature) @ values\n")
    paper = questions.Paper(made, seed=2)
    result = questions.grade(sandbox, paper, Submission("ada", later.encode(), ".py"))
    marks = {m["question"]: m for m in result["marks"]}
    assert marks["softmax"]["points"] == 0
    assert marks["lookup"]["points"] == 4 and marks["lookup"]["carried"]
    spoilt = later.replace("/ temperature", "* temperature")             # its own fault is not carried
    result = questions.grade(sandbox, paper, Submission("bob", spoilt.encode(), ".py"))
    assert result["points"] == 0 and not any(m["carried"] for m in result["marks"])


@pytest.mark.xdist_group("sandbox")
def test_a_question_under_its_published_name_is_pointed_out(tmp_path, sandbox):
    path = tmp_path / "named.yml"
    path.write_text("questions: [{exercise: stable_softmax, name: weigh}]\n")
    result = questions.grade(sandbox, questions.Paper(assign.read(path), 2), Submission("ada", RIGHT.encode(), ".py"))
    assert result["points"] == 0 and "There is one called stable_softmax; is it meant?" in result["marks"][0]["hint"]


@pytest.mark.xdist_group("sandbox")
def test_the_policy_on_shortcuts(tmp_path, sandbox):
    text = HONEST + "\n# %%\n" + RIGHT.replace("row_max = scores", "eval('1'); row_max = scores", 1)
    for policy, points in (("review", 8), ("allow", 8), ("refuse", 4)):
        path = tmp_path / f"{policy}.yml"
        path.write_text(f"library: {policy}\nquestions: [stable_softmax, alibi_bias]\n")
        result = questions.grade(sandbox, questions.Paper(assign.read(path), 1), Submission("ada", text.encode(), ".py"))
        assert result["points"] == points
        assert result["marks"][0]["review"] == ["eval"]


@pytest.mark.xdist_group("sandbox")
def test_a_reference_without_full_marks_stops_the_run(tmp_path, trial, sandbox, monkeypatch):
    """The sandbox that cannot run anything must not end in zeros for a class."""
    hand_in(tmp_path / "in", ada=CLASS["ada"])
    monkeypatch.setattr(questions, "MEGABYTES", 0)
    with pytest.raises(GradingError, match=r"reference solutions do not get full marks(.|\n)*Nothing was graded"):
        grade.grade_folder(trial, tmp_path / "in", tmp_path / "out", mode=sandbox.mode)
    assert not (tmp_path / "out" / "graded").exists()


@pytest.mark.xdist_group("sandbox")
def test_trusted_mode_says_what_it_does_not_protect_against(tmp_path, trial, capsys):
    hand_in(tmp_path / "in", **{k: CLASS[k] for k in ("ada", "gus")})
    results = grade.grade_folder(trial, tmp_path / "in", tmp_path / "out", mode="trusted")
    assert {r["student"]: r["points"] for r in results} == {"ada": 8, "gus": 7}
    said = capsys.readouterr().err
    assert "can read your files" in said and "the network" in said


def test_no_sandbox_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(NoSandbox, match=r"there is no bwrap.*there is no podman.*--trusted"):
        Sandbox()


def test_the_filter_is_whole():
    for machine, (audit, *_) in seccomp.SYSTEMS.items():
        program = seccomp.no_new_processes(machine)
        assert len(program) % 8 == 0 and audit.to_bytes(4, "little") in program
    assert seccomp.no_new_processes("vax") is None


# --- finding and reading

def test_submissions_are_found_in_every_form(tmp_path):
    (tmp_path / "ada.ipynb").write_bytes(notebook("x = 1"))
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "trial.ipynb").write_bytes(notebook("x = 2"))
    (tmp_path / "bob" / "notes.ipynb").write_bytes(notebook("x = 3"))
    (tmp_path / "cyd").mkdir()
    (tmp_path / "dan.docx").write_text("x")
    (tmp_path / "ada.py").write_text("x = 1")
    (tmp_path / ".DS_Store").write_text("")
    read = {s: submissions.read(s, p, "trial") for s, p in submissions.find(tmp_path)}
    assert set(read) == {"ada.ipynb", "ada.py", "bob", "cyd", "dan"}      # two files of one name stay two
    assert b"x = 2" in read["bob"].data and not read["bob"].problem
    assert "no notebooks" in read["cyd"].problem and ".docx" in read["dan"].problem


# --- assignments

@pytest.mark.parametrize(("text", "message"), [
    ("title: x", "expected `questions:`"),
    ("questions: []", "at least one entry"),
    ("questions: [nothing]", "no exercise called 'nothing'"),
    ("questions: [{exercise: stable_softmax, point: 3}]", "unknown point; known are exercise, name, points, rename, variant"),
    ("questions: [{exercise: stable_softmax, points: 0}]", "points is 0"),
    ("questions: [{exercise: stable_softmax, name: 2x}]", "'2x' cannot be the name"),
    ("questions: [{exercise: stable_softmax, name: def}]", "'def' cannot be the name"),
    ("questions: [{exercise: stable_softmax, name: check}]", "'check' cannot be the name"),
    ("questions: [{exercise: causal_mask, rename: [seq_q, x]}]", "expected a mapping"),
    ("questions: [{exercise: causal_mask, rename: {seq_q: seq_k}}]", "two of one name"),
    ("questions: [{exercise: stable_softmax, rename: {x: y}}]", "rename has x; stable_softmax takes scores"),
    ("questions: [{exercise: stable_softmax, variant: odd}]", "variant is 'odd'"),
    ("questions: [stable_softmax, stable_softmax]", "two questions have one name: stable_softmax"),
    ("library: maybe\nquestions: [stable_softmax]", "library is 'maybe'"),
    ("exercises_from: nowhere\nquestions: [stable_softmax]", "no folder beside it"),
    ("questions: [", "cannot be read"),
])
def test_a_faulty_assignment_says_which_line_of_thought_is_wrong(tmp_path, text, message):
    path = tmp_path / "a.yml"
    path.write_text(text)
    with pytest.raises(form.FormError) as error:
        assign.read(path)
    assert message in str(error.value)


def test_names_can_be_changed(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("questions:\n  - {exercise: stable_softmax, name: weigh, rename: {scores: s}}\n")
    question = assign.read(path).questions[0]
    assert question.stub.startswith("def weigh(s):") and "`weigh(s)`" in question.prompt
    space = {}
    exec("import numpy as np\n" + question.solution, space)
    import coursework

    assert coursework.verdict(space["weigh"], question.exercise).right
    assert coursework.verdict(lambda s: s * 0, question.exercise).status == "wrong"


def test_the_command_line_speaks_plainly(tmp_path, capsys):
    assert main(["build", str(tmp_path / "none.yml"), str(tmp_path / "out")]) == 1
    assert "there is no file" in capsys.readouterr().err
    (tmp_path / "in").mkdir()
    assert main(["grade", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "Which assignment?" in capsys.readouterr().err
    assert main(["list"]) == 0
    assert "stable_softmax" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["grade", "a", "b", "--shard", "3/2"])


def test_help_is_there():
    done = subprocess.run([sys.executable, "-m", "coursework", "--help"], capture_output=True, text=True, check=True)
    assert all(word in done.stdout for word in ("build", "grade", "export", "test", "list"))
