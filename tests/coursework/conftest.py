"""What the coursework tests share: a sandbox if there is one, and a small assignment."""

import os
import textwrap

import pytest

from coursework import assign
from coursework.grading.sandbox import NoSandbox, Sandbox

ASSIGNMENT = """
title: A trial
questions:
  - stable_softmax
  - alibi_bias
"""


@pytest.fixture(scope="session")
def sandbox():
    """A working sandbox; where there must be one, its absence is a failure."""
    try:
        with Sandbox() as made:
            yield made
    except NoSandbox as error:
        if os.environ.get("REQUIRE_SANDBOX"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def trial(tmp_path):
    """An assignment of two questions, four points each."""
    path = tmp_path / "course" / "trial.yml"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(ASSIGNMENT))
    made = assign.read(path)
    for question in made.questions:
        question.exercise.seconds = 3.0
    return made
