"""Cells that run on the page: all of them, top to bottom, against the notebooks; stopping, editing, checking, failing."""

import fnmatch
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from tests.pages.book import ROOT, Build, pages_in_toc
from tests.pages.book import site as site  # a fixture
from tests.pages.browser import COLOUR_RULES, STICKING_OUT, Findings, accessibility, opened, serve
from tests.pages.browser import chromium as chromium  # a fixture
from tests.pages.live import IDLE, button, cells, need_python, run, runnable, stored, unfold, unlike, written
from tools import pyodide

LIVE = [page for page in pages_in_toc()
        if any(fnmatch.fnmatch(page, each) for each in yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]["live_cells"])]
pytestmark = pytest.mark.xdist_group("live")


@pytest.fixture(scope="module")
def base(site: Build):
    need_python(site.html)
    with serve(site.html) as address:
        yield address




def test_every_numpy_chapter_is_live():
    assert [page.split("/")[1][:2] for page in LIVE] == ["02", "03", "04", "05", "06", "07"]


@pytest.mark.parametrize("page", LIVE)
def test_all_cells_run_top_to_bottom_and_print_what_the_notebook_prints(chromium, base: str, page: str):
    findings = Findings()
    with opened(chromium, base, page, findings=findings) as tab:
        unfold(tab)
        kept, ran, faults = stored(page), 0, []
        for number, (cell, was) in enumerate(zip(cells(tab), kept, strict=True), start=1):
            if not runnable(cell):
                continue
            status = run(tab, cell)
            ran += 1
            if not re.fullmatch(r"\d+ ms|\d+\.\d s", status):
                faults.append(f"cell {number}: {status}; {written(cell)[:300]}")
                break
            if "nbval-ignore-output" not in was["tags"] and (difference := unlike(written(cell), was["text"])):
                faults.append(f"cell {number}: {difference}")
            if cell.locator(".live-output img").count() != was["figures"]:
                faults.append(f"cell {number}: {cell.locator('.live-output img').count()} figures, expected {was['figures']}")
    assert not faults, "\n".join(faults)
    assert findings.faults() == []
    assert ran >= 40 and ran >= 0.85 * len(kept)  # a few need PyTorch, or are figures of their own


def test_a_different_output_is_seen():
    assert unlike("weight 0.64 of it", "weight 0.64\nof it") is None
    assert unlike("weight 0.65", "weight 0.64") is None  # one in the last digit
    assert unlike("weight 0.66", "weight 0.64")
    assert unlike("weight 0.64", "share 0.64")
    assert unlike("3 of 15", "4 of 15")  # whole numbers are exact
    assert unlike("-1e-3", "1e-3")
    assert unlike("", "0.64")


def test_a_cell_runs_those_above_it_and_shares_their_names(chromium, base: str):
    with opened(chromium, base, "chapters/04_softmax") as tab:
        all_cells = cells(tab)
        assert re.fullmatch(r"\d+ ms|\d+\.\d s", run(tab, all_cells[4]))
        assert all(each.locator(".live-status").inner_text() for each in all_cells[:5])
        assert all_cells[5].locator(".live-status").inner_text() == ""
        button(all_cells[5], "Edit").click()
        all_cells[5].locator("textarea").fill("total = scores[it].sum()\nf'{head.tokens[it]}: {total:.1f}'")
        tab.keyboard.press("Shift+Enter")
        tab.wait_for_function(IDLE)
        assert written(all_cells[5]).startswith("'it: ")


def test_stop_ends_a_loop_without_end_and_python_begins_anew(chromium, base: str):
    with opened(chromium, base, "chapters/02_queries_keys_values") as tab:
        first = cells(tab)[0]
        button(first, "Edit").click()
        first.locator("textarea").fill("x = 1\nwhile True:\n    pass")
        button(first, "Run").click()
        tab.wait_for_function("/Running … [1-9]/.test(document.querySelector('.live-status').textContent)", timeout=60_000)
        button(first, "Stop").click()
        tab.wait_for_function(IDLE)
        assert first.locator(".live-status").inner_text() == "stopped"
        first.locator("textarea").fill("'x' in globals()")
        run(tab, first)
        assert written(first) == "False"


def test_output_without_end_is_cut(chromium, base: str):
    with opened(chromium, base, "chapters/02_queries_keys_values") as tab:
        first = cells(tab)[0]
        button(first, "Edit").click()
        first.locator("textarea").fill("while True:\n    print('again')")
        assert run(tab, first) == "error"
        text = written(first)
        assert text.endswith("TooMuch: more than 200,000 characters of output: stopped") and 190_000 < len(text) < 220_000


def test_errors_show_the_readers_lines_only(chromium, base: str):
    with opened(chromium, base, "chapters/02_queries_keys_values") as tab:
        first, second = cells(tab)[:2]
        button(first, "Edit").click()
        first.locator("textarea").fill("import numpy as np\ndef f(x):\n    return x @ np.ones(3)\n\nf(np.ones(2))")
        assert run(tab, first) == "error"
        lines = written(first).splitlines()
        assert lines[:4] == ["  cell 1, line 5", "    f(np.ones(2))", "  cell 1, line 3, in f", "    return x @ np.ones(3)"]
        assert lines[4].startswith("ValueError: matmul") and len(lines) == 5
        status = run(tab, second)
        assert status == "not run: cell 1 above ends with an error"
        first.locator("textarea").fill("def f(:\n    pass")
        run(tab, first)
        assert written(first).splitlines()[0].strip() == "cell 1, line 1" and "SyntaxError" in written(first)


def test_an_exercise_wrong_then_right(chromium, base: str):
    with opened(chromium, base, "chapters/04_softmax") as tab:
        unfold(tab)
        stub = next(cell for cell in cells(tab) if "tag_ex-stub" in cell.get_attribute("class"))
        name = re.search(r"def (\w+)", stub.locator("pre").first.inner_text())[1]
        tag = next(each for each in stub.get_attribute("class").split() if each.startswith("tag_ex:") or (each.startswith("tag_ex-") and "stub" not in each))
        check = next(cell for cell in cells(tab) if "tag_ex-check" in cell.get_attribute("class") and tag in cell.get_attribute("class"))
        spec = importlib.util.spec_from_file_location("pool", ROOT / "coursework" / "pool" / f"{name}.py")
        exercise = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(exercise)
        text = (ROOT / "coursework" / "pool" / f"{name}.py").read_text()
        head = re.search(rf"^def {name}\(.*?\):\n", text, re.MULTILINE | re.DOTALL)[0]
        hint, wrong = re.search(r'@wrong\("(.*?)"\)\ndef \w+(\(.*?)\n\n\n', text, re.DOTALL).groups()
        button(stub, "Edit").click()
        stub.locator("textarea").fill(f"import numpy as np\n\ndef {name}{wrong}")
        run(tab, check)
        said = re.sub(r"\s+", " ", written(check))
        assert "not yet" in said and re.sub(r'"?\s+"?', " ", hint)[:40] in said
        body = re.search(r"# BEGIN SOLUTION\n(.*?)\n\s*# END SOLUTION", text, re.DOTALL)[1]
        stub.locator("textarea").fill(f"import numpy as np\n\n{head}{body}")
        run(tab, check)
        assert "not yet" not in written(check) and name in written(check)


def test_what_is_written_stays_until_reset(chromium, base: str):
    with opened(chromium, base, "chapters/02_queries_keys_values") as tab:
        first = cells(tab)[0]
        button(first, "Edit").click()
        was = first.locator("textarea").input_value()
        first.locator("textarea").fill("1 + 1")
        tab.reload()
        tab.wait_for_selector("html[data-live='ready']", state="attached")
        first = cells(tab)[0]
        assert first.locator("textarea").input_value() == "1 + 1"
        button(first, "Reset").click()
        assert first.locator("textarea").count() == 0 and first.locator("pre").first.inner_text().strip() == was
        tab.reload()
        tab.wait_for_selector("html[data-live='ready']", state="attached")
        assert cells(tab)[0].locator("textarea").count() == 0


def test_active_cells_are_accessible_and_fit_a_phone(chromium, base: str):
    findings = Findings()
    for width in (1280, 360):
        with opened(chromium, base, "chapters/04_softmax", width=width, findings=findings) as tab:
            all_cells = cells(tab)
            run(tab, all_cells[3])
            button(all_cells[1], "Edit").click()
            assert tab.evaluate("document.activeElement.tagName") == "TEXTAREA"
            assert tab.evaluate(STICKING_OUT) == []
            if width == 360:
                assert float(tab.evaluate("parseFloat(getComputedStyle(document.activeElement).fontSize)")) >= 16  # or phones zoom in
            for mode in ("light", "dark"):
                tab.emulate_media(color_scheme=mode, reduced_motion="reduce")
                assert accessibility(tab, () if mode == "light" else COLOUR_RULES) == []
    assert findings.faults() == []


def test_the_keyboard_gets_out_of_the_editor(chromium, base: str):
    with opened(chromium, base, "chapters/04_softmax") as tab:
        first = cells(tab)[0]
        button(first, "Edit").press("Enter")
        tab.keyboard.press("Tab")
        assert first.locator("textarea").input_value().count("    ") >= 1 and tab.evaluate("document.activeElement.tagName") == "TEXTAREA"
        tab.keyboard.press("Escape")
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.tagName") != "TEXTAREA"


def test_without_pythons_files_the_buttons_explain(chromium, base: str):
    with opened(chromium, base, "intro") as tab:
        tab.route("**/04_softmax.html", lambda route: route.fulfill(
            response=(got := route.fetch()), body=got.text().replace("&quot;ready&quot;: true", "&quot;ready&quot;: false")))
        tab.goto(f"{base}chapters/04_softmax.html")
        tab.wait_for_selector("html[data-live='ready']", state="attached")
        assert "was built without Python" in run(tab, cells(tab)[0])
    with opened(chromium, base, "chapters/04_softmax") as tab:
        tab.route("**/*.wasm", lambda route: route.abort())
        assert run(tab, cells(tab)[0]).startswith("Python could not be started")
        tab.unroute("**/*.wasm")
        assert re.fullmatch(r"\d+ ms|\d+\.\d s", run(tab, cells(tab)[0]))  # and it can be tried again


def test_a_page_opened_as_a_file_says_so(chromium, site: Build):
    context = chromium.new_context()
    tab = context.new_page()
    tab.goto((site.html / "chapters" / "04_softmax.html").as_uri())
    note = tab.locator(".live-note").inner_text()
    context.close()
    assert "opened as a file" in note


def test_other_chapters_load_nothing_of_it(site: Build):
    for page in pages_in_toc():
        text = (site.html / f"{page}.html").read_text(encoding="utf8")
        assert ("live/live.mjs" in text) == ('name="live-cells"' in text) == (page in LIVE), page


# Fetching ---------------------------------------------------------------------------------------------------------------


def test_files_are_checked_and_nothing_is_left_half_written(tmp_path: Path, capsys):
    wanted = pyodide.wanted()
    assert {"pyodide.asm.wasm", "numpy-2.0.2-cp312-cp312-pyodide_2024_0_wasm32.whl"} <= wanted.keys()

    def corrupt(folder, lacking):
        """A source of damaged files."""
        pyodide.put(folder, next(iter(lacking)), b"not it", next(iter(lacking.values())))

    def offline(folder, lacking):
        """A source that is not there."""
        raise OSError("no route to host")

    assert pyodide.bring(tmp_path, (corrupt, offline)) is False
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr()
    assert "checksum is not Pyodide's own" in said.err and "no route to host" in said.err and "builds without it" in said.out


def test_the_second_source_takes_over_and_whole_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import hashlib

    contents = {"a": b"first", "b": b"second"}
    monkeypatch.setattr(pyodide, "wanted", lambda: {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()})

    def half(folder, lacking):
        """Brings one file, then breaks off."""
        pyodide.put(folder, "a", contents["a"], lacking["a"])
        raise OSError("gone")

    def rest(folder, lacking):
        """Brings what it is asked for."""
        assert set(lacking) == {"b"}
        pyodide.put(folder, "b", contents["b"], lacking["b"])

    assert pyodide.bring(tmp_path, (half, rest)) is True
    assert pyodide.bring(tmp_path, ()) is True  # nothing to fetch
    (tmp_path / "a").write_bytes(b"damaged")
    assert pyodide.missing(tmp_path).keys() == {"a"}


def test_the_pages_library_imports_numpy_alone(tmp_path: Path):
    """What goes into book.zip is enough for itself, in an interpreter that sees nothing else of the book."""
    import subprocess
    import sys
    import zipfile

    sys.path.insert(0, str(ROOT / "_ext"))
    import live_cells

    archive = tmp_path / "book.zip"
    archive.write_bytes(live_cells.library(["chapters/0[2-7]_*"]))
    assert archive.read_bytes() == live_cells.library(["chapters/0[2-7]_*"])  # the same, byte for byte
    zipfile.ZipFile(archive).extractall(tmp_path / "lib")
    code = ("import attnlib.reference, attnlib.positions, attnlib.masks, attnlib.costs, attnlib.data, coursework, runner, sys; "
            "attnlib.data.real_head('pronoun'); print(coursework.names()); "
            "assert not {'torch', 'matplotlib', 'yaml', 'nbformat'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = ['{tmp_path / 'lib'}', *{[each for each in sys.path if each.endswith('site-packages')]!r}]; "
                           f"sys.path_importer_cache.clear(); {code}"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
