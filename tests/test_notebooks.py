"""Every chapter obeys the guards, and every guard catches what it is there for."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import nbformat
import pytest

from tests.guards import Finding, book_wide, cells, hygiene, script, show, sync
from tests.guards.chapter import READING, RUNNING
from tests.guards.twins import twins
from tools import chapters, testing
from tools.chapters import ROOT, Chapter

CHAPTERS = chapters.find(ROOT)
Guard = Callable[[Chapter], list[Finding]]


def named(value: object) -> str:
    return getattr(value, "name", None) or getattr(value, "__name__", "")


def test_there_are_chapters():
    assert CHAPTERS


@pytest.mark.parametrize("guard", [guard for guard in READING if guard is not twins], ids=named)  # test_twins.py has it
@pytest.mark.parametrize("chapter", CHAPTERS, ids=named)
def test_chapter(chapter: Chapter, guard: Guard):
    findings = guard(chapter)
    assert not findings, show(findings)


@pytest.mark.parametrize("chapter", [chapter for chapter in CHAPTERS if int(chapter.name[:2]) in hygiene.NUMPY_ONLY], ids=named)
def test_chapter_runs_without_torch(chapter: Chapter):
    findings = script.runs_as_script(chapter)
    assert not findings, show(findings)


@pytest.mark.parametrize("guard", book_wide.ALL, ids=named)
def test_whole_book(guard):
    findings = guard(ROOT)
    assert not findings, show(findings)


@pytest.mark.parametrize("guard", READING + RUNNING, ids=named)
def test_the_sample_is_in_order(book: Chapter, guard: Guard):
    """So a finding in a broken copy comes from what was broken."""
    assert not guard(book), show(guard(book))


# Each breaks one thing in the source: guard, what to replace, by what, and a piece of the message.
IN_SOURCE = [
    (cells.parses, "require(stable_softmax)", "require(stable_softmax) ==", "not Python"),
    (cells.parses, "print(len(scores))", "%timeit len(scores)", "magic"),
    (cells.parses, "# %%\ndef softmax", "# %%\n\n# %%\ndef softmax", "is empty"),
    (cells.lengths, "print(len(scores))", "print(len(scores))\n" * 31, "the limit is 30"),
    (cells.lengths, "require(causal_mask)\n", "require(causal_mask)\n" * 16 + "\n# %%\n" + "1\n" * 16, "one code cell in ten"),
    (cells.lengths, "# %% [markdown]\n# # What", "# %%\n" + "\n# %%\n".join(["1\n" * 7] * 20) + "\n# %% [markdown]\n# # What",
     "median 7"),
    (cells.names, "print(len(scores))", "def softmax(scores):\n    return scores", "defines softmax again"),
    (cells.exercises, 'tags=["ex:causal_mask", "ex-solution", "hide-cell"]', 'tags=["ex:causal_mask", "ex-solution"]', "not folded"),
    (cells.exercises, '# %% tags=["ex:causal_mask", "ex-check"]\ncheck(causal_mask)', "", "exercise causal_mask has"),
    (cells.exercises, '# %% tags=["ex:causal_mask", "ex-check"]\ncheck(causal_mask)', "", "2 whole exercises"),
    (cells.exercises, "check(causal_mask)", "print(causal_mask)", "differs from coursework/pool/causal_mask.py"),
    (cells.exercises, "    return k_idx <= q_idx ", "    return k_idx < q_idx ", "differs from coursework/pool/causal_mask.py"),
    (cells.exercises, "\nrequire(causal_mask)", "", "differs from coursework/pool/causal_mask.py"),
    (cells.exercises, "\nrequire(causal_mask)", "\nrequire(causal_mask)\n# A remark, and something to try.\nprint(1)", ""),
    (cells.exercises, 'def causal_mask(seq_q, seq_k):\n    raise NotImplementedError("replace this line")',
     "def causal_mask(seq_q, seq_k):\n    pass", "differs from coursework/pool/causal_mask.py"),
    (cells.exercises, "position and to all before it", "position and to some before it", "differs from coursework/pool/causal_mask.py"),
    (cells.exercises, "ex:causal_mask", "ex:no_such_thing", "which coursework/pool/ lacks"),
    (cells.exercises, "ex:causal_mask", "ex:soft_dict", "whose CHAPTER is 02_queries_keys_values"),
    (cells.exercises, 'tags=["ex:causal_mask", "ex-check"]', 'tags=["ex-check"]', "is tagged ex-check alone"),
    (cells.predictions, ":::{dropdown} Third", ":::{note} Third", "2 predictions"),
    (cells.sources, "{cite}`vaswani2017`", "{cite}`nobody1999`", "cites nobody1999"),
    (cells.sources, " {cite}`vaswani2017`", "", "cites nothing"),
    (hygiene.downloads, "print(len(scores))", "import urllib.request", "imports urllib.request"),
    (hygiene.downloads, "print(len(scores))", "torch.hub.load('a', 'b')", "calls torch.hub.load"),
    (hygiene.downloads, "print(len(scores))", "'https://example.org/x'", "holds an address"),
    (hygiene.quiet, "print(len(scores))", "import warnings", "imports warnings"),
    (hygiene.quiet, "print(len(scores))", "np.seterr(all='ignore')", "uses np.seterr"),
    (hygiene.quiet, "print(len(scores))", "import os\nos.environ['A'] = 'b'", "uses os.environ"),
    (hygiene.quiet, "print(len(scores))", "import os\nos.environ['TRITON_INTERPRET'] = '0'", "uses os.environ"),
    (hygiene.seeded, "default_rng(0)", "default_rng()", "without a seed"),
    (hygiene.seeded, "print(len(scores))", "np.random.seed(0)", "calls np.random.seed"),
    (hygiene.seeded, "print(len(scores))", "np.random.randn(3)", "calls np.random.randn"),
    (hygiene.seeded, "print(len(scores))", "import random", "imports random"),
    (hygiene.seeded, "print(len(scores))", "np.random.default_rng(1)", "a second generator"),
    (hygiene.seeded, "print(len(scores))", "def draw(seed):\n    return np.random.default_rng(seed)", ""),
    (hygiene.seeded, "torch.zeros(1)", "torch.randn(1)", "torch.randn"),
    (hygiene.torch_aside, "print(len(scores))", "import torch", "imports torch"),
    (hygiene.torch_aside, "print(len(scores))", "from attnlib.layers import attention", "imports attnlib.layers"),
    (hygiene.torch_aside, "require(stable_softmax)", "require(stable_softmax)\ntorch.ones(1)", "uses torch, made in a torch-check"),
    (hygiene.torch_aside, "import torch\n", "import torch\nscores = torch.zeros(1)\n", "binds scores"),
    (sync.compared, "assert np.allclose(softmax(scores), reference.softmax(scores))\n", "", "not compared and asserts nothing"),
    (sync.compared, 'tags=["torch-check"]', 'tags=["torch-check", "nbval-skip"]', "marked nbval-skip"),
    (sync.compared, "print(len(scores))", "# NBVAL_SKIP", "marked nbval-skip"),
    (sync.in_sync, "print(len(scores))", "print(len(scores) + 1)", "is not in the notebook"),
    (sync.in_sync, "print(len(scores))", "print(len(scores) + 1)", "executed before its code cells changed"),
    (sync.in_sync, "position and to all before it", "position and to some before it", "is not in the notebook"),
    (sync.in_sync, '"Three bars, each', '"Three columns, each', "is not in the notebook"),
    (sync.in_sync, '# %% [markdown] tags=["ex:stable_softmax", "ex-prompt"]', '# %% [markdown] jupyter={"a": 1}', "unknown cell metadata"),
    (script.runs_as_script, 'tags=["torch-check"]', "", "needs torch"),
    (script.runs_as_script, "import torch\n", "import torch\nlater = 1\n", ""),
    (script.runs_as_script, "require(stable_softmax)", "require(softmax, \"stable_softmax\")", "fails as a script, line 9: Mistaken"),
]


@pytest.mark.parametrize(("guard", "old", "new", "message"), IN_SOURCE, ids=lambda value: getattr(value, "__name__", None))
def test_guard_catches_in_the_source(book: Chapter, guard: Guard, old: str, new: str, message: str):
    text = book.source.read_text(encoding="utf-8")
    assert old in text
    book.source.write_text(text.replace(old, new), encoding="utf-8")
    if not message:  # a control: a change that breaks nothing
        assert not guard(book), show(guard(book))
    else:
        assert any(message in str(finding) for finding in guard(book)), show(guard(book))


def strip(nb):
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []


def shown(nb):
    return next(out for cell in nb.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {}))


def pictured(nb):
    return next(cell for cell in nb.cells if any("image/png" in out.get("data", {}) for out in cell.get("outputs", [])))


def checked(nb):
    return next(cell for cell in nb.cells if "ex-check" in cell.metadata.get("tags", []))


def printed(nb):
    return next(out for cell in nb.cells for out in cell.get("outputs", []) if out.output_type == "stream")


def add_output(**output):
    return lambda nb: nb.cells[2].outputs.append(nbformat.v4.new_output(**output))


# Each breaks one thing in the notebook: guard, what to do to it, and a piece of the message.
IN_NOTEBOOK = [
    (sync.executed, strip, "execution count None"),
    (sync.executed, lambda nb: nb.cells[3].update(execution_count=7), "execution count 7"),
    (sync.executed, add_output(output_type="error", ename="ValueError", evalue="", traceback=[]), "ends in ValueError"),
    (sync.executed, add_output(output_type="stream", name="stderr", text="a warning"), "writes to stderr"),
    (sync.refused, lambda nb: checked(nb).outputs[0].update(text="well done\n"), "says 'well done' of the unsolved stub"),
    (sync.refused, lambda nb: checked(nb).update(outputs=[]), "says '' of the unsolved stub"),
    (sync.refused, lambda nb: checked(nb).metadata.tags.append("nbval-ignore-output"), "or is not compared"),
    (sync.in_sync, strip, "outputs that `make notebooks` did not write"),
    (sync.in_sync, lambda nb: printed(nb).update(text="[0.7 0.2 0.1]\n"), "outputs that `make notebooks` did not write"),
    (sync.in_sync, lambda nb: shown(nb).data.update({"image/png": "AAAA"}), "outputs that `make notebooks` did not write"),
    (sync.in_sync, lambda nb: nb.cells[0].update(source="edited"), "is not in the source"),
    (sync.in_sync, lambda nb: nb.cells.pop(3), "is not in the notebook"),
    (sync.in_sync, lambda nb: nb.cells.reverse(), "in another order"),
    (sync.in_sync, lambda nb: nb.cells[0].update(id="abc"), "was saved by Jupyter"),
    (sync.in_sync, lambda nb: nb.cells[3].metadata.update(scrolled=True), "was saved by Jupyter"),
    (sync.in_sync, lambda nb: nb.cells.pop(1), "how to install the library"),
    (sync.in_sync, lambda nb: nb.cells[1].update(source="pip install it"), "how to install the library"),
    (sync.in_sync, lambda nb: nb.cells.insert(3, nb.cells.pop(1)), "was saved by Jupyter"),
    (sync.in_sync, lambda nb: nb.metadata.language_info.update(version="3.11.7"), "was saved by Jupyter"),
    (sync.clean, lambda nb: printed(nb).update(text="/".join(["", "home", "me", "x.npz"])), "a place on one machine"),
    (sync.clean, lambda nb: printed(nb).update(text="<object at 0x7f0123456789>"), "an address in memory"),
    (sync.clean, lambda nb: shown(nb).data.update({"image/png": "A" * 500_000}), "the limit is 400 kB"),
    (sync.in_sync, lambda nb: nb.metadata.update(jupytext={"formats": "ipynb,py"}), "was saved by Jupyter"),
    (sync.figures, lambda nb: pictured(nb).metadata.mystnb.pop("image"), "alternative text is missing"),
    (sync.figures, lambda nb: pictured(nb).metadata.mystnb.image.update(alt="../_images/04_1.png"), "is a file name"),
    (sync.figures, lambda nb: pictured(nb).metadata.mystnb.image.update(alt="bars"), "is not a sentence"),
    (sync.figures, lambda nb: pictured(nb).metadata.mystnb.pop("figure"), "caption is missing"),
    (sync.figures, lambda nb: pictured(nb).metadata.mystnb.figure.update(caption=pictured(nb).metadata.mystnb.image.alt),
     "repeats the alternative text"),
    (sync.figures, lambda nb: pictured(nb).metadata.mystnb.figure.update(name="bars"), "figure is named 'bars'"),
    (sync.figures, lambda nb: pictured(nb).outputs.append(shown(nb)), "2 pictures"),
    (sync.figures, lambda nb: pictured(nb).update(outputs=[]), "shows no picture"),
]


@pytest.mark.parametrize(("guard", "damage", "message"), IN_NOTEBOOK, ids=lambda value: getattr(value, "__name__", None))
def test_guard_catches_in_the_notebook(book: Chapter, guard: Guard, damage, message: str):
    nb = chapters.read_notebook(book)
    damage(nb)
    book.notebook.write_text(json.dumps(nb), encoding="utf-8")
    assert any(message in str(finding) for finding in guard(book)), show(guard(book))


def test_a_changed_library_file_makes_the_notebook_stale(book: Chapter):
    path = book.root / "attnlib" / "reference.py"
    path.write_text(path.read_text().replace("keepdims=True)", "keepdims=True) * 1", 1))
    assert [f.what for f in sync.in_sync(book)] == ["was executed before attnlib/reference.py changed"]


def test_a_changed_pin_makes_the_notebook_stale(book: Chapter):
    path = book.root / "requirements.txt"
    path.write_text(path.read_text().replace("numpy==2.4.6", "numpy==2.4.7"))
    assert [f.what for f in sync.in_sync(book)] == ["was executed before numpy changed"]


def test_book_wide_guards_catch(book: Chapter):
    twice = Chapter(book.root, "05_again")
    twice.source.write_text(book.source.read_text())
    whats = [finding.what for guard in book_wide.ALL for finding in guard(book.root)]
    assert any("fig-sample" in what for what in whats) and any("ex-causal-mask" in what for what in whats)
    assert any("has no such exercise" in what for what in whats)          # the pool's own, which the sample does not hold


def nbval(chapter: Chapter) -> subprocess.CompletedProcess:
    return subprocess.run(testing.nbval_command("-p", "no:cacheprovider", f"--rootdir={chapter.root}", "-c", os.devnull,
                                                str(chapter.notebook)), capture_output=True, text=True, check=False)


def test_nbval_catches_an_edited_output_but_not_a_stripped_notebook(book: Chapter):
    """The second half is why `sync.executed` exists."""
    nb = chapters.read_notebook(book)
    printed(nb).update(text="[0.7 0.2 0.1]\n")
    nbformat.write(nb, book.notebook)
    assert nbval(book).returncode == 1
    strip(nb)
    nbformat.write(nb, book.notebook)
    assert nbval(book).returncode == 0


def test_a_test_run_loses_no_exit_code(monkeypatch, tmp_path, capsys):
    """A failing linter, a failing test, no test at all and a crash each make the whole run fail."""
    def ends(code: str) -> int:
        monkeypatch.setattr(testing, "pytest", lambda *arguments: [sys.executable, "-c", code])
        monkeypatch.setattr(sys, "argv", ["testing", "tests"])
        return testing.main()

    assert ends("import sys; sys.exit(0)") == 0
    assert ends("import sys; sys.exit(1)") == 1
    assert ends("import sys; sys.exit(5)") == 1
    assert ends("import os; os.abort()") == 1
    assert "1 failed" in capsys.readouterr().out.splitlines()[-1]


def test_a_cell_that_nbval_did_not_see_fails_the_run(book: Chapter, monkeypatch, tmp_path):
    cells = sum(cell.cell_type == "code" for cell in chapters.read_notebook(book).cells)
    monkeypatch.setattr(testing.chapters, "ROOT", book.root)
    for seen, code in ((cells, 0), (cells - 1, 1)):
        monkeypatch.setattr(testing, "run", lambda *a, seen=seen: testing.Result("chapters", 0, 1.0, passed=seen))
        result = testing.run_chapters(tmp_path)
        assert result.code == code and ("NOT ALL COMPARED" in result.note) is bool(code)
    book.notebook.unlink()
    assert testing.run_chapters(tmp_path).code == 1
