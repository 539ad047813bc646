"""Nothing that a submission does gains it a point, shows it a secret, or takes the grader down."""

import csv
import json
import zipfile

import numpy as np
import pytest

from coursework import PUBLIC_SEED, get
from coursework.grading import grade, questions
from coursework.grading.submissions import Submission
from coursework.judging import expected
from tests.coursework.attacks import ATTACKS, HONEST

pytestmark = pytest.mark.xdist_group("sandbox")


@pytest.fixture
def paper(trial):
    return questions.Paper(trial, seed=7)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_gains_nothing(name, sandbox, paper):
    source = HONEST + "\n# %%\n" + ATTACKS[name]
    result = questions.grade(sandbox, paper, Submission("mallory", source.encode(), ".py"))
    points = {mark["question"]: mark["points"] for mark in result["marks"]}
    assert points["stable_softmax"] == 0, result
    assert points["alibi_bias"] == 4, result                     # the wall stands, and the rest is still graded
    assert "LEAK" not in json.dumps(result)


def test_right_answers_do_get_points(sandbox, paper):
    """The control: the same file with a right answer gets all."""
    right = get("stable_softmax").solution
    result = questions.grade(sandbox, paper, Submission("ada", (HONEST + "\n# %%\n" + right).encode(), ".py"))
    assert result["points"] == 8


def test_replaying_public_answers_gains_nothing(sandbox, paper):
    exercise = get("stable_softmax")
    cases = exercise.draw(PUBLIC_SEED)
    table = {case.args[0].tobytes(): want.tolist() for case, want in zip(cases, expected(exercise, cases), strict=True)}
    source = (f"import numpy as np\nfrom numpy import nan, inf\n_TABLE = {table!r}\n"
              "def stable_softmax(scores):\n    return np.array(_TABLE.get(scores.tobytes(), 0.0))\n")
    replayed = {}
    exec(source, replayed)
    assert all(np.array_equal(replayed["stable_softmax"](c.args[0]), w) for c, w in
               zip(cases, expected(exercise, cases), strict=True))     # it does know the public ones
    result = questions.grade(sandbox, paper, Submission("mallory", source.encode(), ".py"))
    assert result["points"] == 0
    assert result["marks"][0]["hint"] == questions.UNSEEN


def test_hidden_inputs_never_reach_the_feedback(sandbox, paper):
    """An answer that shouts its inputs is heard only for the public ones, in a process that never saw others."""
    source = ("_all = []\ndef stable_softmax(scores):\n    _all.append(float(scores.flat[0]))\n"
              "    raise ValueError(' '.join(f'{x:.12g}' for x in _all))\n")
    result = questions.grade(sandbox, paper, Submission("mallory", source.encode(), ".py"))
    said = result["marks"][0]["hint"]
    public = {f"{c.args[0].flat[0]:.12g}" for c in get("stable_softmax").draw(PUBLIC_SEED)}
    hidden = {f"{c.args[0].flat[0]:.12g}" for cases, _ in paper.sets["stable_softmax"][1:] for c in cases} - public
    assert any(number in said for number in public)
    assert not any(number in said for number in hidden)


def test_files_that_are_traps(tmp_path, trial, sandbox):
    folder, out = tmp_path / "handed-in", tmp_path / "out"
    folder.mkdir()
    right = HONEST + get("stable_softmax").solution
    (folder / "ada.py").write_text(right)
    (folder / "bob.py").symlink_to(folder / "ada.py")
    (folder / "carol").mkdir()
    (folder / "carol" / "trial.py").symlink_to(folder / "ada.py")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "trial.py").write_text(right)
    (folder / "dan").symlink_to(tmp_path / "elsewhere")
    with zipfile.ZipFile(folder / "eve.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("trial.ipynb", b"0" * (64 << 20))
    with zipfile.ZipFile(folder / "frank.zip", "w") as archive:
        archive.writestr("../../outside.py", right)
    (folder / "grace.ipynb").write_text("[" * 200_000)
    (folder / "heidi.ipynb").write_text(json.dumps({"cells": 3}))
    (folder / "ivan.ipynb").write_bytes(b"\xff\xfe\x00")
    (folder / "judy.py").write_text("(" * 50_000 + ")" * 50_000)
    (folder / "=cmd|calc.py").write_text(right)
    (folder / "kim.ipynb").write_text(json.dumps({"nbformat": 4, "cells": [
        {"cell_type": "code", "source": "x" * 100}, {"cell_type": "code", "source": [right]}]}))
    results = {r["student"]: r for r in grade.grade_folder(trial, folder, out, jobs=2, mode=sandbox.mode)}
    unread = {s for s, r in results.items() if r["points"] is None}
    assert unread == {"bob", "carol", "dan", "eve", "grace", "heidi", "ivan"}
    assert all(results[s]["problem"] for s in unread)            # said why, never silently nothing
    assert all("symbolic link" in results[s]["problem"] for s in ("bob", "dan"))
    assert {s for s, r in results.items() if r["points"] == 8} == {"ada", "frank", "=cmd|calc", "kim"}
    assert results["judy"]["points"] == 0 and results["judy"]["broken"]
    assert not (tmp_path / "outside.py").exists() and not (tmp_path.parent / "outside.py").exists()
    with open(out / "grades.csv", newline="") as file:
        first = [row[0] for row in csv.reader(file)]
    assert "'=cmd|calc" in first                                   # no formula for a spreadsheet


def test_pages_show_text_as_text(tmp_path, trial, sandbox):
    folder, out = tmp_path / "handed-in", tmp_path / "out"
    folder.mkdir()
    (folder / "<b>mallory.py").write_text(HONEST + "\n# %%\n" + ATTACKS["text that asks for points"])
    grade.grade_folder(trial, folder, out, mode=sandbox.mode)
    pages = [p.read_text() for p in (out / "feedback").glob("*.html")]
    assert len(pages) == 1 and "<script" not in pages[0] and "<b>" not in pages[0]
    assert "&lt;script&gt;" in pages[0]
