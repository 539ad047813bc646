"""Pins, file lengths, docstrings, and no traces of a machine."""

import json

import pytest

from tests.guards import house, show
from tools import record_recall_gru
from tools.chapters import ROOT, Chapter, read_source

GUARDS = [house.exact_pins, house.pyproject_agrees, house.imports_are_pinned, house.installed_equal_pins, house.file_lengths, house.docstrings,
          house.no_machine, house.links, house.records]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_house(guard):
    assert not guard(ROOT), show(guard(ROOT))


@pytest.mark.parametrize("guard", [g for g in GUARDS if g is not house.installed_equal_pins], ids=lambda guard: guard.__name__)
def test_the_sample_is_in_order(book: Chapter, guard):
    assert not guard(book.root), show(guard(book.root))


@pytest.mark.parametrize(("guard", "file", "old", "new", "message"), [
    (house.exact_pins, "requirements.txt", "numpy==2.4.6", "numpy>=2", "not an exact pin"),
    (house.exact_pins, "requirements.txt", "numpy==2.4.6", "numpy", "not an exact pin"),
    (house.exact_pins, "requirements.txt", "numpy==2.4.6", "numpy==2.*", "not an exact pin"),
    (house.exact_pins, "requirements.txt", "numpy==2.4.6", "numpy==2.4.6 ; python_version > '3'", "not an exact pin"),
    (house.exact_pins, "requirements.txt", "numpy==2.4.6", "numpy==2.4.6\nNumPy==2.4.7", "is pinned at"),
    (house.exact_pins, "requirements-models.txt", "==0.1.0", ">=0.1.0", "not an exact pin"),
    (house.pyproject_agrees, "pyproject.toml", "numpy>=2", "numpy>=3", "numpy==2.4.6 is pinned"),
    (house.pyproject_agrees, "pyproject.toml", "numpy>=2", "scipy", "does not pin"),
    (house.pyproject_agrees, "pyproject.toml", "torch>=2.6", "torch<2", "torch==2.13.0 is pinned"),
    (house.pyproject_agrees, "pyproject.toml", '["numpy>=2"]', "[]", "declares no dependencies"),
    (house.imports_are_pinned, "attnlib/reference.py", "import numpy", "import yaml\nimport numpy", "imports yaml"),
    (house.imports_are_pinned, "attnlib/reference.py", "import numpy", "from PIL import Image\nimport numpy", "imports PIL"),
    (house.installed_equal_pins, "requirements.txt", "pytest==9.2.0", "pytest==1.0.0", "pins pytest==1.0.0"),
    (house.installed_equal_pins, "requirements.txt", "pytest==9.2.0", "no-such-thing==1.0", "installed is nothing"),
    (house.installed_equal_pins, "requirements.txt", "# --- test", "# tests", "has no section"),
    (house.file_lengths, "attnlib/reference.py", "import numpy", "pass\n" * 200 + "import numpy", "the limit is 200"),
    (house.docstrings, "attnlib/reference.py", '"""The one', '# """The one', "has no docstring"),
    (house.docstrings, "attnlib/reference.py", "    Returns\n    -------\n", "", "no Returns section"),
    (house.docstrings, "attnlib/reference.py", "    scores : (..., seq_k)", "    values : (..., seq_k)", "do not list scores"),
    (house.docstrings, "attnlib/reference.py", "scores: np.ndarray", "scores", "scores has no annotation"),
    (house.docstrings, "attnlib/reference.py", " -> np.ndarray", "", "no annotation of what it returns"),
    (house.docstrings, "attnlib/reference.py", "import numpy", "def f(): pass\n\n\nimport numpy", "f: has no docstring"),
    (house.docstrings, "attnlib/reference.py", "import numpy", "@triton.jit\ndef f(x, y): pass\n\n\nimport numpy", "f: has no docstring"),
    (house.links, "README.md", "(attnlib/reference.py)", "(attnlib/gone.py)", "links to attnlib/gone.py"),
    (house.links, "README.md", "(attnlib/reference.py)", "(attnlib/gone.py#part)", "links to attnlib/gone.py"),
    (house.no_machine, "references.bib", "Attention", "/".join(["see ", "home", "me"]), ": names /"),
    (house.no_machine, "pyproject.toml", "sample", "/".join(["", "root", "x"]), ": names /"),
    (house.no_machine, "attnlib/reference.py", "The one", "pypi" + ".org", "names pypi"),
])
def test_guard_catches(book: Chapter, guard, file: str, old: str, new: str, message: str):
    path = book.root / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    findings = guard(book.root)
    assert any(message in str(finding) for finding in findings), show(findings)


def test_a_url_path_is_not_a_machine_path(book: Chapter):
    (book.root / "page.md").write_text("https://example.org/home/me and chapters/work/x and attnlib/tmp/y")
    assert not house.no_machine(book.root), show(house.no_machine(book.root))


@pytest.mark.parametrize(("change", "message"), [
    ({"date": ""}, "does not say its date"),
    ({"device": None}, "does not say its device"),
    ({"command": "python -m tools.nowhere --fast"}, "tools.nowhere, which does not exist"),
    ({"command": "python -m tools.folder sparse"}, ""),
    ({"command": "python -m tools.nothing sparse"}, "tools.nothing, which does not exist"),
    ({}, ""),
])
def test_a_record_without_its_origin_is_refused(tmp_path, change, message):
    """Planted: a recorded measurement that does not say where it comes from."""
    whole = {"what": "w", "command": "python -m tools.here", "device": "d", "versions": {"python": "3"}, "date": "2026-01-01"}
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "here.py").touch()
    for folder in ("folder", "nothing"):
        (tmp_path / "tools" / folder).mkdir()
    (tmp_path / "tools" / "folder" / "__main__.py").touch()
    (tmp_path / "chapters" / "data").mkdir(parents=True)
    (tmp_path / "chapters" / "data" / "sample.json").write_text(json.dumps({**whole, **change}), encoding="utf-8")
    found = house.records(tmp_path)
    assert [message in finding.what for finding in found] == ([True] if message else [])


def test_the_longer_training_is_the_chapter_s_own():
    """The script that records it finds the cells of chapter 1 that it executes, each name bound once."""
    chapter = Chapter(ROOT, record_recall_gru.CHAPTER)
    cells = [cell.source for cell in read_source(chapter).cells if cell.cell_type == "code"]
    for name in record_recall_gru.NEEDED:
        assert sum(name in record_recall_gru.bound(source) for source in cells) == 1, name
