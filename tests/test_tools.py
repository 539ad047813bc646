"""The tools behind make: notebooks from sources and back, the environment, the site, the server."""

import base64
import http.client
import io
import re
import subprocess
import sys
import threading
import tomllib

import nbformat
import numpy as np
import pytest
from PIL import Image

from tools import chapters, inputs, notebooks, serve, setup, site
from tools.chapters import ROOT, Chapter, ChapterError


def replace(path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def change_cell(book: Chapter, old: str, new: str) -> None:
    """Edit the notebook as a person in Jupyter would."""
    nb = chapters.read_notebook(book)
    (cell,) = [cell for cell in nb.cells if old in cell.source]
    cell.source = cell.source.replace(old, new)
    nbformat.write(nb, book.notebook)


@pytest.fixture
def no_kernel(monkeypatch):
    """Fail if anything is executed."""
    def refuse(*arguments):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(notebooks, "execute", refuse)
    monkeypatch.setattr(notebooks, "ProcessPoolExecutor", Here)


class Here:
    """Runs tasks in this process, where monkeypatch can reach them."""

    def __init__(self, max_workers):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        task = Future()
        try:
            task.set_result(function(*arguments))
        except Exception as error:
            task.set_exception(error)
        return task


# --- building

def test_an_unchanged_chapter_is_not_executed(book: Chapter, no_kernel):
    before = book.notebook.read_bytes()
    assert notebooks.assess(book).kind == "current"
    assert notebooks.build([book]) == 0 and book.notebook.read_bytes() == before


def test_building_twice_gives_the_same_bytes(book: Chapter):
    before = book.notebook.read_bytes()
    assert notebooks.build([book], force=True) == 0
    assert book.notebook.read_bytes() == before


def test_changed_text_is_renewed_without_executing(book: Chapter, no_kernel):
    replace(book.source, "A chapter in miniature", "A small chapter")
    assert notebooks.build([book]) == 0
    nb = chapters.read_notebook(book)
    assert "A small chapter" in nb.cells[0].source and nb.cells[3].outputs
    assert notebooks.assess(book).kind == "current"


def test_a_notebook_saved_by_jupyter_is_tidied_without_executing(book: Chapter, no_kernel):
    before = book.notebook.read_bytes()
    nb = chapters.read_notebook(book)
    nb.metadata.language_info["version"] = "3.11.7"
    nb.cells[3].metadata["scrolled"] = True
    nbformat.write(nb, book.notebook)
    assert notebooks.assess(book).kind == "prose" and notebooks.build([book]) == 0
    assert book.notebook.read_bytes() == before


@pytest.mark.parametrize(("file", "old", "new", "stale"), [
    ("chapters/04_sample.py", "print(len(scores))", "print(len(scores) + 1)", True),
    ("attnlib/reference.py", "return powers /", "return 1 * powers /", True),
    ("attnlib/__init__.py", '"""A lib', 'VERSION = 1\n"""A lib', True),
    ("requirements.txt", "matplotlib==3.11.2", "matplotlib==3.11.3", True),
    ("attnlib/reference.py", "Turn each row", "Make each row", False),
    ("attnlib/reference.py", "    powers =", "    # the powers\n    powers =", False),
    ("requirements.txt", "pytest==9.2.0", "pytest==9.2.1", False),
])
def test_what_makes_a_notebook_stale(book: Chapter, file: str, old: str, new: str, stale: bool):
    replace(book.root / file, old, new)
    assert (notebooks.assess(book).kind == "stale") is stale


def test_a_data_file_that_the_library_ships_counts(book: Chapter):
    folder = book.root / "attnlib" / "data"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "head.npz").write_bytes(b"one")
    replace(book.source, "from attnlib import reference", "from attnlib import data, reference")
    nb = chapters.read_source(book)
    before = inputs.inputs(book.root, nb)
    (folder / "head.npz").write_bytes(b"two")
    assert inputs.differences(before, inputs.inputs(book.root, nb)) == ["attnlib/data/head.npz"]


def test_an_import_inside_a_function_of_the_library_counts(book: Chapter):
    (book.root / "attnlib" / "masks.py").write_text("X = 1\n")
    replace(book.root / "attnlib" / "reference.py", "    powers =", "    from . import masks\n    powers =")
    assert "attnlib/masks.py" in inputs.inputs(book.root, chapters.read_source(book))


def test_an_error_keeps_the_old_notebook_and_says_where(book: Chapter, capsys):
    before = book.notebook.read_bytes()
    replace(book.source, "require(causal_mask)", "wrong = causal_mask(1, 1)\nassert wrong == 4")
    assert notebooks.build([book]) == 1
    message = capsys.readouterr().err
    line = book.source.read_text().splitlines().index("assert wrong == 4") + 1
    assert f"chapters/04_sample.py:{line}: cell" in message and "AssertionError" in message
    assert book.notebook.read_bytes() == before
    assert [path.name for path in book.source.parent.iterdir() if path.name.startswith(".")] == []


def test_a_dead_kernel_is_reported(book: Chapter, capsys):
    replace(book.source, "print(len(scores))", "import os\nos._exit(1)")
    assert notebooks.build([book]) == 1
    assert "04_sample.py" in capsys.readouterr().err


def test_an_interrupted_write_leaves_the_old_notebook(book: Chapter, monkeypatch):
    before = book.notebook.read_bytes()
    monkeypatch.setattr(chapters.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        chapters.write_notebook(book, chapters.read_notebook(book))
    assert book.notebook.read_bytes() == before
    assert [path.name for path in book.source.parent.iterdir() if path.name.startswith(".")] == []


def test_widgets_get_the_same_ids_each_time(book: Chapter):
    replace(book.source, "print(len(scores))", "import ipywidgets\nipywidgets.IntSlider(3, description='x')")
    texts = []
    for _ in range(2):
        assert notebooks.build([book], force=True) == 0
        texts.append(book.notebook.read_text())
    assert texts[0] == texts[1] and "IntSliderModel" in texts[0]
    nb = chapters.read_notebook(book)
    (view,) = [out.data[chapters.VIEW] for cell in nb.cells for out in cell.get("outputs", []) if chapters.VIEW in out.get("data", {})]
    assert view["model_id"] in nb.metadata.widgets[chapters.WIDGETS]["state"]


def test_solutions_open_folded_in_jupyterlab(book: Chapter):
    nb = chapters.read_notebook(book)
    folded = [cell for cell in nb.cells if cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert len(folded) == 3 and all("ex-solution" in cell.metadata.tags for cell in folded)


# --- the one cell that no source has

def installing(book: Chapter) -> str:
    (cell,) = [cell for cell in chapters.read_notebook(book).cells if chapters.derived(cell)]
    assert chapters.read_notebook(book).cells.index(cell) == 1 and "remove-cell" in cell.metadata.tags
    return cell.source


def test_a_notebook_says_how_to_install_the_library(book: Chapter, no_kernel):
    """One sentence; it knows the repository as soon as _config.yml does, and nothing is executed for that."""
    assert 'run `pip install -e ".[torch,plots,widgets,grading]"` in it' in installing(book)
    (book.root / "_config.yml").write_text("repository: {url: 'https://github.com/someone/book', branch: trunk}\n")
    assert notebooks.assess(book) == notebooks.State("prose", ["the sentence on installing the library"])
    assert notebooks.build([book]) == 0 and notebooks.assess(book).kind == "current"
    text = installing(book)
    assert "!git clone --quiet --depth 1 --branch trunk https://github.com/someone/book book && pip install" in text
    assert len([line for line in text.splitlines() if line.endswith((".", ":"))]) == 1  # one sentence
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert f"./book[{','.join(extras)}]" in text  # chapters need all of them
    (book.root / "_config.yml").write_text("repository: {url: 'github.com/someone/book'}\n")
    with pytest.raises(ChapterError, match=r"repository: url: is 'github\.com/someone/book', expected https://"):
        notebooks.assess(book)
    assert notebooks.build([book]) == 1


def test_edits_of_that_cell_are_nobody_s(book: Chapter, no_kernel):
    """Changed, removed or copied, it is written anew, and never taken into the source."""
    source, made = book.source.read_text(encoding="utf-8"), book.notebook.read_bytes()
    for edit in (lambda nb: nb.cells[1].update(source="gone"), lambda nb: nb.cells.pop(1), lambda nb: nb.cells.append({**nb.cells[1], "id": "other"})):
        nb = chapters.read_notebook(book)
        edit(nb)
        nbformat.write(nbformat.from_dict(nb), book.notebook)
        assert notebooks.assess(book).kind == "prose"
        assert "already says" in notebooks.adopt(book)
        assert book.source.read_text(encoding="utf-8") == source
        assert notebooks.build([book]) == 0 and book.notebook.read_bytes() == made


# --- edits made in Jupyter

def test_edited_cells_are_named_and_not_overwritten(book: Chapter, no_kernel, capsys):
    change_cell(book, "print(len(scores))", "print(len(scores) * 2)")
    before = book.notebook.read_bytes()
    assert notebooks.build([book], force=True) == 1
    message = capsys.readouterr().err
    assert "not overwritten" in message and "make adopt CH=04_sample" in message and "assert np.allclose" in message
    assert book.notebook.read_bytes() == before


@pytest.mark.parametrize("edit", [
    lambda nb: nb.cells.insert(2, nbformat.v4.new_code_cell("1 + 1")),
    lambda nb: nb.cells.pop(3),
    lambda nb: nb.cells.insert(2, nb.cells.pop(3)),
    lambda nb: nb.cells[5].metadata.update(tags=["hide-input"]),
], ids=["added", "removed", "moved", "tagged"])
def test_every_kind_of_edit_is_seen_and_adopted(book: Chapter, no_kernel, edit):
    nb = chapters.read_notebook(book)
    edit(nb)
    nbformat.write(nb, book.notebook)
    assert notebooks.assess(book).kind == "edited"
    notebooks.adopt(book)
    assert chapters.keys(chapters.read_source(book)) == chapters.keys(chapters.read_notebook(book))
    assert notebooks.assess(book).kind != "edited"


def test_adopting_changes_only_the_edited_cell(book: Chapter):
    before = book.source.read_text(encoding="utf-8")
    change_cell(book, "print(len(scores))", "print(len(scores) * 2)")
    notebooks.adopt(book)
    assert book.source.read_text(encoding="utf-8") == before.replace("print(len(scores))", "print(len(scores) * 2)")


def test_adopting_refuses_to_lose_newer_lines_of_the_source(book: Chapter):
    change_cell(book, "print(len(scores))", "print(len(scores) * 2)")
    replace(book.source, "check(causal_mask)", "check(causal_mask, 'causal_mask')")
    with pytest.raises(ChapterError, match=r"check\(causal_mask, 'causal_mask'\)"):
        notebooks.adopt(book)


def test_adopting_refuses_an_older_notebook(book: Chapter):
    replace(book.source, "print(len(scores))", "print(len(scores) * 2)")
    with pytest.raises(ChapterError, match="the source that is newer"):
        notebooks.adopt(book)


def test_a_notebook_from_elsewhere_is_not_overwritten(book: Chapter, no_kernel):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")]), book.notebook)
    assert notebooks.build([book]) == 1


def test_edits_can_be_thrown_away(book: Chapter):
    change_cell(book, "print(len(scores))", "print(len(scores) * 2)")
    assert notebooks.build([book], discard=True) == 0 and notebooks.assess(book).kind == "current"


def test_chapters_are_found_by_number_name_and_path():
    name = chapters.find(ROOT)[0].name
    for word in (name, name[:2], name[:2].lstrip("0"), f"chapters/{name}.py", f"{name}.ipynb"):
        assert [chapter.name for chapter in chapters.find(ROOT, [word])] == [name]
    with pytest.raises(ChapterError, match="no chapter of that name"):
        chapters.find(ROOT, ["99"])


# --- the environment

@pytest.fixture
def environment(tmp_path, monkeypatch):
    """`setup` on an empty folder, with a list of what pip would have been asked."""
    for name in ("requirements.txt", "requirements-models.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "STAMPS", tmp_path / ".venv" / ".levels")
    (tmp_path / ".venv").mkdir()
    asked: list[list[str]] = []
    monkeypatch.setattr(setup, "install", lambda title, arguments: asked.append(arguments))
    monkeypatch.setattr(setup, "create", lambda: None)
    monkeypatch.setattr(sys, "argv", ["setup.py", "book", "run"])
    return asked


def test_levels_install_their_own_section_once(environment):
    setup.main()
    book, run, library = environment
    assert any(pin.startswith("jupyter-book==") for pin in book) and not any(pin.startswith("torch") for pin in book)
    assert any(pin.startswith("torch==") for pin in run)
    assert library == ["--no-deps", "--editable", "."]
    setup.main()
    assert len(environment) == 3


def test_changed_pins_install_their_level_again(environment):
    setup.main()
    replace(setup.ROOT / "requirements.txt", "matplotlib==", "matplotlib==0+")
    setup.main()
    assert len(environment) == 4 and any(pin.startswith("matplotlib==0+") for pin in environment[-1])


def test_comments_in_the_pins_install_nothing(environment):
    setup.main()
    replace(setup.ROOT / "requirements.txt", "# --- run", "# a remark\n# --- run")
    setup.main()
    assert len(environment) == 3


def test_an_interrupted_installation_leaves_no_stamp(environment, monkeypatch):
    setup.main()
    replace(setup.ROOT / "requirements.txt", "matplotlib==", "matplotlib==0+")
    monkeypatch.setattr(setup, "install", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        setup.main()
    assert sorted(path.name for path in setup.STAMPS.iterdir()) == ["attnlib", "book"]


def test_an_old_python_is_told_so(monkeypatch):
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 6))
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer"):
        setup.find_python()


def test_a_newer_python_is_found_if_it_runs(monkeypatch):
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 6))
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"no-such-folder/{name}" if name == "python3.13" else sys.executable)
    assert setup.find_python() == sys.executable  # 3.13 is a shim that leads nowhere


def test_a_python_without_venv_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(setup.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "ensurepip is not available"))
    with pytest.raises(SystemExit, match="apt install python3-venv"):
        setup.create()
    assert not (tmp_path / ".venv").exists()


def test_pip_failing_shows_its_last_lines(monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "pip")
    (tmp_path / "pip").write_text("#!/bin/sh\necho could not find it\nexit 1\n")
    (tmp_path / "pip").chmod(0o755)
    with pytest.raises(SystemExit, match="could not find it"):
        setup.install("something", [])


# --- the site

@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A tree that `site` builds with a stand-in for Jupyter Book, and a count of the builds."""
    for name in ("intro.md", "_toc.yml", "chapters/04_a.ipynb", "chapters/04_a.py", "attnlib/reference.py", "_static/book.css"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    script = "import pathlib, sys; html = pathlib.Path(sys.argv[1], '_build', 'html'); html.mkdir(parents=True)\n" \
             "[(html / (p.stem + '.html')).write_text(p.read_text()) for p in pathlib.Path('.').rglob('*.ipynb')]\n" \
             "(html / 'index.html').write_text('index')\nsys.exit(pathlib.Path('warn').exists())"
    monkeypatch.setattr(site, "command", lambda output, root: [sys.executable, "-c", script, str(output)])
    return tmp_path


def built(root, capsys) -> bool:
    site.build(root)
    return "Building" in capsys.readouterr().out


def test_an_unchanged_site_is_not_built_again(pages, capsys):
    assert built(pages, capsys) and not built(pages, capsys)
    (pages / "chapters" / "04_a.py").write_text("a source is not part of the site")
    assert not built(pages, capsys)


@pytest.mark.parametrize("file", ["intro.md", "_toc.yml", "chapters/04_a.ipynb", "attnlib/reference.py", "_static/book.css"])
def test_a_changed_or_deleted_file_builds_the_site_again(pages, capsys, file: str):
    built(pages, capsys)
    (pages / file).write_text("changed")
    assert built(pages, capsys)
    (pages / file).unlink()
    assert built(pages, capsys)


def test_a_deleted_page_is_gone_and_a_new_one_there(pages, capsys):
    built(pages, capsys)
    assert (pages / "_build" / "html" / "04_a.html").exists()
    (pages / "chapters" / "04_a.ipynb").rename(pages / "chapters" / "05_b.ipynb")
    built(pages, capsys)
    assert not (pages / "_build" / "html" / "04_a.html").exists() and (pages / "_build" / "html" / "05_b.html").exists()


def test_a_site_with_warnings_is_built_again_and_reported(pages, capsys):
    (pages / "warn").touch()
    assert site.build(pages) is False
    assert built(pages, capsys)
    (pages / "warn").unlink()
    assert site.build(pages) is True


def test_a_failed_build_keeps_the_old_site(pages, monkeypatch, capsys):
    site.build(pages)
    (pages / "intro.md").write_text("changed")
    monkeypatch.setattr(site, "command", lambda output, root: [sys.executable, "-c", "raise SystemExit('no')"])
    assert site.build(pages) is False and "no" in capsys.readouterr().err
    assert (pages / "_build" / "html" / "index.html").exists()


def test_the_server_says_which_port_is_taken_and_takes_another(tmp_path, capsys):
    (tmp_path / "index.html").write_text("the book")
    with serve.server(tmp_path, 18_400) as first, serve.server(tmp_path, first.server_address[1]) as second:
        assert second.server_address[1] > first.server_address[1]
        assert f"Port {first.server_address[1]} is taken" in capsys.readouterr().out
        threading.Thread(target=second.serve_forever, daemon=True).start()
        ask = http.client.HTTPConnection(serve.LOOPBACK, second.server_address[1], timeout=5)
        ask.request("GET", "/")
        answer = ask.getresponse()
        assert answer.read() == b"the book" and answer.getheader("Cache-Control") == "no-cache"
        second.shutdown()
    assert first.server_address[0] == "127.0.0.1"


# --- the commands

def test_help_lists_every_command():
    makefile = (ROOT / "Makefile").read_text()
    commands = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  make ([\w-]+)", listed, re.MULTILINE) == commands
    assert {"book", "site", "test", "lab", "notebooks", "adopt", "lint", "bench", "help"} <= set(commands)


def test_a_missing_python_is_told_so():
    done = subprocess.run(["make", "book", "PYTHON=no-such-python"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "make book PYTHON=" in done.stderr


def test_ci_calls_the_command_of_the_readme():
    ci, readme = (ROOT / ".ci" / "run").read_text(), (ROOT / "README.md").read_text()
    assert "make test" in ci and "make test" in readme and "REQUIRE_CHROMIUM=1" in ci
    assert "set -euo pipefail" in ci and "|| true" not in ci


def test_the_makefile_loses_no_exit_code():
    makefile = (ROOT / "Makefile").read_text()
    assert not re.search(r"^\t-|\|\| true|[^|]\|[^|]", makefile, re.MULTILINE)


def encoded_png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return base64.b64encode(file.getvalue()).decode("ascii")


def decoded_png(encoded: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")).astype(int)


def test_a_stored_figure_looks_as_it_was_drawn():
    """A chart becomes lighter; where 256 colours would show, the figure keeps all of its own."""
    squares = np.random.default_rng(1).integers(0, 200, size=(40, 40), dtype=np.uint8).repeat(8, 0).repeat(9, 1)
    chart = np.stack([squares, 255 - squares, np.full_like(squares, 200)], axis=-1)  # a map in 200 colours
    rough = np.random.default_rng(0).integers(0, 256, size=(80, 80, 3), dtype=np.uint8)  # far more than 256 colours
    for pixels in (chart, rough):
        stored = chapters.lighter_png(encoded_png(pixels))
        assert np.abs(decoded_png(stored) - pixels).max() < 8
    assert len(chapters.lighter_png(encoded_png(chart))) < 0.8 * len(encoded_png(chart))  # one byte a pixel, not three
