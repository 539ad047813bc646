"""Every exercise of the pool can be trusted: by itself, without its solution, and through the wall."""

import ast
import json
import re

import numpy as np
import pytest

import coursework
from coursework import PUBLIC_SEED, assign, build, form, judging, recorded, selftest
from coursework.grading import questions, slicing
from coursework.judging import judge

NAMES = coursework.names()
TORCH = {"torch", "triton"}


def question(name):
    exercise = form.get(name)
    return assign.Question(exercise, exercise.points, exercise)


def assignment(*names):
    return assign.Assignment("all", "All", [question(name) for name in names])


def test_there_are_enough():
    assert len(NAMES) >= 25


@pytest.mark.parametrize("name", NAMES)
def test_references_are_right_and_wrong_answers_get_their_own_hints(name):
    found, _ = selftest.faults(form.get(name))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", NAMES)
def test_the_edition_without_solutions_says_the_same(name):
    exercise = form.get(name)
    edition = recorded.load(json.loads(json.dumps(recorded.record(exercise, PUBLIC_SEED, build.sources(question(name))))))
    cases, wants, known = edition.record
    pool = exercise.draw(PUBLIC_SEED)
    for function, wanted in [(exercise.reference, None), *((w.function, w.hint) for w in exercise.wrongs)]:
        said = judge(edition, cases, selftest.outcomes(edition, function, cases), wants, known)
        assert said.right if wanted is None else said.hint == wanted
    theirs = judge(exercise, pool, selftest.outcomes(exercise, exercise.wrongs[0].function, pool), known=[])
    mine = judge(edition, cases, selftest.outcomes(edition, exercise.wrongs[0].function, cases), wants, [])
    assert mine.hint == theirs.hint                       # the observers came along


@pytest.mark.parametrize("name", NAMES)
def test_a_student_notebook_holds_no_solution(name):
    exercise = form.get(name)
    nb = build.notebook(assignment(name))
    code = "\n".join(c.source for c in nb.cells)
    data = json.dumps(build.sources(question(name)))
    body = [line.strip() for line in exercise.solution.splitlines()[1:] if len(line.strip()) > 25
            and "raise " not in line and "np.exp(scores - scores.max(" not in line]   # softmax alone solves nothing
    shown = assign.given(exercise) + exercise.prompt + exercise.stub
    for line in body:
        if line not in shown:
            assert line not in code and line not in data, f"handed out: {line}"
    assert "{cite}" not in code and "{term}" not in code and "{ref}" not in code and "{numref}" not in code


@pytest.mark.xdist_group("sandbox")
@pytest.mark.parametrize("name", NAMES)
def test_the_reference_gets_full_marks_through_the_wall(name, sandbox):
    exercise = form.get(name)
    for package in exercise.needs:
        pytest.importorskip(package)
    lost = questions.trial(sandbox, questions.Paper(assignment(name), seed=3))
    assert not lost, lost


@pytest.mark.xdist_group("sandbox")
@pytest.mark.parametrize("name", [n for n in NAMES if form.get(n).heavy])
def test_heavy_cases_are_refused_by_the_system_itself(name, sandbox):
    """The wrong answer that holds too much is refused even if it has lied about its memory."""
    exercise = form.get(name)
    wasteful = [w for w in exercise.wrongs if "memory" in w.name]
    assert wasteful, "name the wrong answer that is right but holds too much so that `memory` is in its name"
    paper = questions.Paper(assignment(name), seed=3)
    lie = ("import tracemalloc, _tracemalloc\ntracemalloc.get_traced_memory = _tracemalloc.get_traced_memory = lambda: (0, 0)\n"
           "import sys\nsys.modules['coursework.running'].tracemalloc.get_traced_memory = lambda: (0, 0)\n")
    found, _ = slicing.statements([exercise.text])
    for wrong in wasteful:
        part = [s.text for s in slicing.needed(found, wrong.name) if (getattr(s.node, "module", None) or "").split(".")[0] not in ("coursework", "attnlib")]
        answer = "\n\n".join(part) + f"\n\ndef {name}(*args):\n    return {wrong.name}(*args)\n"
        answer = re.sub(r"(?m)^@wrong\((?:.|\n)*?\)\n(?=def )", "", answer)
        tried = questions.attempt(sandbox, paper, [(question(name), [assign.given(exercise), lie + answer])])[name]
        *light, heavy = tried.verdicts
        assert all(v.right for v in light), light           # the lie is believed there: only memory is wrong with it
        assert not heavy.right and "MemoryError" in heavy.hint


@pytest.mark.parametrize("name", [n for n in NAMES if form.get(n).variants])
def test_variants(name):
    """The book's answer is refused with the variant's own hint; the variant's solution is right, by itself."""
    base = form.get(name)
    for key, variant in base.variants.items():
        exercise = assign.varied(base, "renamed", {}, key)
        asked = assign.Question(exercise, base.points, base, key)
        space: dict = {}
        exec(assign.given(exercise) + "\n\n" + asked.solution, space)
        for seed in selftest.SEEDS:
            cases = exercise.draw(seed)
            known = [(w, selftest.outcomes(exercise, w.function, cases)) for w in exercise.wrongs]
            assert judge(exercise, cases, selftest.outcomes(exercise, space["renamed"], cases), known=known).right
            said = judge(exercise, cases, selftest.outcomes(exercise, base.reference, cases), known=known)
            assert said.hint == variant.hint
        assert variant.says.replace(f"{name}(", "renamed(") in asked.prompt


@pytest.mark.parametrize("name", NAMES)
def test_files_keep_to_the_form(name):
    exercise = form.get(name)
    tree = ast.parse(exercise.text)
    assert ast.get_docstring(tree)
    assert "BEGIN SOLUTION" not in exercise.solution and "END SOLUTION" not in exercise.stub
    assert "NotImplementedError" in exercise.stub
    lowered = exercise.prompt.lower()
    assert not any(word in lowered for word in ("{numref}", "{ref}", "simply", "obviously"))


def test_a_check_that_accepts_a_wrong_answer_is_caught():
    """The guard on the pool itself: a reference that is wrong, and a wrong answer that is right, are both found."""
    import dataclasses

    exercise = form.get("stable_softmax")
    broken = dataclasses.replace(exercise, wrongs=[*exercise.wrongs[1:],
                                                   form.Wrong("fine", "This hint is never earned by anybody.", exercise.reference)])
    assert any("fine is accepted" in s for s in selftest.faults(broken)[0])
    two = dataclasses.replace(exercise, wrongs=[*exercise.wrongs, form.Wrong("again", "Another hint for the same mistake.",
                                                                             exercise.wrongs[0].function)])
    assert any("again gets another hint" in s for s in selftest.faults(two)[0])
    few = dataclasses.replace(exercise, wrongs=exercise.wrongs[:2])
    assert any("expected at least 6" in s for s in selftest.faults(few)[0])

    def constant(rng):
        yield form.case("always the same", np.ones((2, 3)))

    same = dataclasses.replace(exercise, cases=constant)
    assert any("same inputs" in s for s in selftest.faults(same)[0])


def test_samples_recognise_and_refuse():
    array = np.arange(100.0).reshape(10, 10)
    sample = judging.Sampled.of(array)
    assert sample.agrees(array, np.isclose) and not sample.agrees(array + 1, np.isclose)
    assert not sample.agrees(array.reshape(4, 25), np.isclose) and not sample.agrees(array.astype(int), np.isclose)
