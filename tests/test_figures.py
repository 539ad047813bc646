"""The figures that answer: the browser's arithmetic against the library's, and every way to move them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from attnlib import data, widgets
from attnlib.widgets._figure import bundled
from tests.pages.browser import STICKING_OUT, WIDTHS, Findings, accessibility, opened, settle
from tests.pages.browser import chromium as chromium  # a fixture
from tests.pages.figures import FIGURES, MODULES, alive, computed_on_page, furthest, page_of, state_on_page

STATES = 60
# Both sides compute in float64 but exp may differ in the last bit, and sums run in another order.
NEAR = 1e-12


@pytest.mark.parametrize("name", FIGURES)
def test_the_browser_computes_what_the_library_does(chromium, tmp_path: Path, name: str):
    rng = np.random.default_rng(0)
    figures = [FIGURES[name](rng) for _ in range(STATES)]
    states = [json.loads(json.dumps(figure.state())) for figure in figures]
    with alive(chromium, figures[0], tmp_path) as tab:
        there = computed_on_page(tab, figures[0].module, states)
    differences = [furthest(json.loads(json.dumps(figure.computed())), other)
                   for figure, other in zip(figures, there, strict=True)]
    print(f"{name}: {STATES} states, largest difference {max(differences)}")
    assert max(differences)[0] <= NEAR, max(differences)


def test_a_wrong_number_is_seen():
    right = {"weights": [0.25, 0.75], "name": "a"}
    assert furthest(right, right)[0] == 0
    assert furthest(right, {"weights": [0.25, 0.75 + 1e-9], "name": "a"})[0] > NEAR
    assert furthest(right, {"weights": [0.25], "name": "a"})[0] == np.inf
    assert furthest(right, {"weights": [0.25, None], "name": "a"})[0] == np.inf
    assert furthest(right, {"weights": [0.25, 0.75], "name": "b"})[0] == np.inf
    assert furthest({"a": float("nan")}, {"a": float("nan")})[0] == np.inf


def test_figures_with_a_module_each_share_no_name(chromium, tmp_path: Path):
    """As in JupyterLab, where two figures of one notebook hold a copy of the shared module each: labels must find their own control."""
    rng = np.random.default_rng(6)
    figures = [FIGURES[name](rng) for name in ("cost_calculator", "cost_calculator", "pattern_explorer", "softmax_explorer")]
    sources = [(bundled(figure.module), json.loads(json.dumps(figure.state()))) for figure in figures]
    with alive(chromium, figures[0], tmp_path) as tab:
        ids, lost = tab.evaluate("""async (sources) => {
          document.querySelector("main").replaceChildren();
          for (const [source, state] of sources) {
            const { default: figure } = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
            const el = document.querySelector("main").appendChild(document.createElement("div"));
            figure.render({ model: { get: (name) => state[name], set() {}, save_changes() {}, on() {}, off() {} }, el });
          }
          return [[...document.querySelectorAll("main [id]")].map((node) => node.id),
                  [...document.querySelectorAll("main label[for]")].filter((label) => !label.parentElement.contains(label.control)).length];
        }""", sources)
    assert len(ids) > 40 and len(set(ids)) == len(ids) and lost == 0


@pytest.mark.parametrize("name", FIGURES)
def test_the_page_is_in_order(chromium, tmp_path: Path, name: str):
    """No error, no request elsewhere, nothing sticks out, and axe is content, in both widths and modes."""
    figure = FIGURES[name](np.random.default_rng(1))
    for width in WIDTHS.values():
        findings = Findings()
        with alive(chromium, figure, tmp_path, width, findings=findings) as tab:
            tab.locator(".lf-numbers summary").click()
            assert tab.evaluate(STICKING_OUT) == []
            for mode in ("light", "dark"):
                tab.emulate_media(color_scheme=mode, reduced_motion="reduce")
                settle(tab)
                assert accessibility(tab) == []
        assert findings.faults() == []


@pytest.mark.parametrize("name", FIGURES)
def test_the_numbers_are_there_without_a_script(chromium, tmp_path: Path, name: str):
    figure = FIGURES[name](np.random.default_rng(2))
    with page_of(figure, tmp_path) as base:
        (tmp_path / f"{figure.module}.mjs").write_text("throw new Error('broken')")
        findings = Findings()
        with opened(chromium, base, "index", findings=findings) as tab:
            tab.wait_for_function("document.documentElement.dataset.figures === 'ready'")
            cells = tab.locator("figure.live-figure td").all_inner_texts()
        assert cells == [cell for row in figure.rows() for cell in row]
        assert len(findings.console) == 1 and figure.module in findings.console[0]


@pytest.mark.parametrize("name", FIGURES)
def test_the_table_on_the_page_is_the_one_in_python(chromium, tmp_path: Path, name: str):
    """Once alive, the figure writes the same rows itself."""
    figure = FIGURES[name](np.random.default_rng(3))
    with alive(chromium, figure, tmp_path) as tab:
        tab.locator(".lf-numbers summary").click()
        tab.wait_for_selector(".lf-numbers tbody tr", state="attached")  # written when the fold says that it has opened
        rows = [row.locator("th, td").all_inner_texts() for row in tab.locator(".lf-numbers tbody tr").all()]
        heads = tuple(tab.locator(".lf-numbers thead th").all_inner_texts())
    assert rows == figure.rows()
    assert heads == figure.columns


@pytest.mark.parametrize("name", FIGURES)
def test_the_bundle_draws_as_the_two_files_do(chromium, tmp_path: Path, name: str):
    """What JupyterLab gets, one text, draws the same figure from a blob address."""
    figure = FIGURES[name](np.random.default_rng(4))
    with alive(chromium, figure, tmp_path) as tab:
        same = tab.evaluate("""async (source) => {
          const page = document.querySelector("figure.lf-alive");
          const { default: module } = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
          const el = document.createElement("div");
          document.querySelector("main").append(el);
          await module.render({ model: page.model, el });
          const plain = (node) => node.innerHTML.replace(/lf-[a-z]+-[a-z0-9]+-\\d+/g, "");
          return plain(el.firstChild) === plain(page);
        }""", bundled(figure.module))
    assert same


def test_bundling_needs_the_shared_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "common.mjs").write_text("export const x = 1;\n")
    (tmp_path / "lone.mjs").write_text("export default {};\n")
    monkeypatch.setattr("attnlib.widgets._figure.FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"lone\.mjs: 0 import lines"):
        bundled("lone")


def test_every_figure_is_tested():
    modules = {path.stem for path in MODULES.glob("*.mjs")} - {"common"}
    assert set(FIGURES) == modules == {getattr(widgets, name).module for name in widgets.__all__}


def test_the_output_of_a_cell_is_the_figure_with_its_numbers():
    figure = FIGURES["score_geometry"](np.random.default_rng(5))
    shown, _ = figure._repr_mimebundle_()
    assert shown["application/vnd.jupyter.widget-view+json"]["model_id"] == figure.model_id
    assert shown["text/html"] == figure.static()
    assert not re.search(r" at 0x|model_id", shown["text/html"] + shown["text/plain"])


# Score geometry ---------------------------------------------------------------------------------------------------------


def real_pronoun() -> widgets.ScoreGeometry:
    """The query of "it" and the keys of the running example's pronoun head, in a plane through that query."""
    head = data.real_head("pronoun")
    it = head.tokens.index("it")
    query, keys, values = (head.x[i] @ w + b for i, w, b in ((it, head.w_q, head.b_q), (slice(None), head.w_k, head.b_k),
                                                              (slice(None), head.w_v, head.b_v)))
    first = query / np.linalg.norm(query)
    rest = keys - np.outer(keys @ first, first)
    plane = np.stack([first, np.linalg.svd(rest)[2][0]])
    values_plane = np.linalg.svd(values)[2][:2]
    return widgets.ScoreGeometry(query @ plane.T, keys @ plane.T, values @ values_plane.T, head.tokens, word="it", dim_head=32)


def test_a_plane_through_the_query_keeps_the_real_weights():
    head = data.real_head("pronoun")
    weights = real_pronoun().computed()["weights"]
    assert np.abs(weights - head.weights[head.tokens.index("it")]).max() < 1e-4  # places are stored to four digits


def centre(tab, selector: str) -> tuple[float, float]:
    box = tab.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_score_geometry_by_mouse(chromium, tmp_path: Path):
    figure = real_pronoun()
    with alive(chromium, figure, tmp_path) as tab:
        x, y = centre(tab, ".lf-query circle:not(.lf-reach)")
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x - 60, y - 80, steps=5)
        tab.mouse.up()
        settle(tab)
        now = state_on_page(tab)
        unit = (now["query"][1] - figure.query[1]) / 80
        assert unit > 0 and np.isclose(now["query"][0], figure.query[0] - 60 * unit, atol=unit)  # as far as the pointer went
        moved = widgets.ScoreGeometry(now["query"], now["keys_at"], now["values_at"], now["words"], dim_head=32)
        top = max(moved.rows(), key=lambda row: row[2])
        assert tab.locator(".lf-line").inner_text().startswith(top[0])
        x, y = centre(tab, ".lf-key:nth-of-type(3) circle")
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x + 20, y, steps=3)
        tab.mouse.up()
        after = state_on_page(tab)
        assert sum(a != b for a, b in zip(after["keys_at"], now["keys_at"], strict=True)) == 1
        tab.get_by_role("button", name="Start again").click()
        settle(tab)
        assert state_on_page(tab)["query"] == figure.query and state_on_page(tab)["keys_at"] == figure.keys_at


def test_score_geometry_by_keyboard(chromium, tmp_path: Path):
    figure = real_pronoun()
    with alive(chromium, figure, tmp_path) as tab:
        for _ in range(4):
            tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == "query of it, across"
        before = tab.evaluate("document.activeElement.getAttribute('aria-valuetext')")
        tab.keyboard.press("ArrowUp")
        tab.keyboard.press("Shift+ArrowLeft")
        settle(tab)
        now = state_on_page(tab)["query"]
        assert now[1] > figure.query[1] and now[0] < figure.query[0]
        assert np.isclose(figure.query[0] - now[0], 5 * (now[1] - figure.query[1]))
        assert tab.evaluate("document.activeElement.getAttribute('aria-valuetext')") != before
        tab.get_by_label("Point for the arrow keys").select_option("key of animal")
        settle(tab)
        tab.get_by_label("Point for the arrow keys").focus()
        tab.keyboard.press("Tab")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == "key of animal, across"
        tab.keyboard.press("ArrowDown")
        settle(tab)
        assert state_on_page(tab)["keys_at"][figure.words.index("animal")] != figure.keys_at[figure.words.index("animal")]
        tab.wait_for_function("document.querySelector('.lf-spoken').textContent.length > 0", timeout=5000)
        assert "animal" in tab.locator(".lf-spoken").inner_text()


def test_score_geometry_by_touch(chromium, tmp_path: Path):
    figure = real_pronoun()
    with alive(chromium, figure, tmp_path, width=360) as tab:
        x, y = centre(tab, ".lf-query .lf-reach")
        finger = tab.context.new_cdp_session(tab)
        points = [(x + 6, y + 8), (x - 20, y - 10), (x - 34, y - 32)]
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": points[0][0], "y": points[0][1]}]})
        for at in points[1:]:
            finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": at[0], "y": at[1]}]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        settle(tab)
        now = state_on_page(tab)["query"]
        assert now[0] < figure.query[0] and np.isclose(now[1] - figure.query[1], figure.query[0] - now[0])
        assert tab.evaluate("scrollY") == 0  # the page did not move with the finger


@pytest.mark.parametrize("arguments, message", [
    ({"keys": [[1, 2, 3]]}, r"keys has shape \(1, 3\), expected \(n, 2\)"),
    ({"values": [[0, 0]]}, r"values has shape \(1, 2\), expected \(2, 2\)"),
    ({"words": ["a"]}, "words has 1 entries, expected 2"),
    ({"query": [np.nan, 0]}, "query holds nan, expected finite numbers"),
    ({"dim_head": 0}, "dim_head is 0, expected at least 1"),
])
def test_score_geometry_refuses(arguments: dict, message: str):
    good = {"query": [1, 0], "keys": [[1, 0], [0, 1]], "values": [[1, 0], [0, 1]], "words": ["a", "b"]}
    with pytest.raises(ValueError, match=message):
        widgets.ScoreGeometry(**{**good, **arguments})


# Softmax ----------------------------------------------------------------------------------------------------------------


def real_row() -> widgets.SoftmaxExplorer:
    """The scaled scores of "it" in the running example's pronoun head."""
    head = data.real_head("pronoun")
    it = head.tokens.index("it")
    scores = (head.x[it] @ head.w_q + head.b_q) @ (head.x @ head.w_k + head.b_k).T / np.sqrt(32)
    return widgets.SoftmaxExplorer(scores, head.tokens, width=32)


def test_softmax_explorer_by_keyboard(chromium, tmp_path: Path):
    figure = real_row()
    with alive(chromium, figure, tmp_path) as tab:
        width = tab.get_by_label("Width d")
        width.focus()
        for _ in range(3):
            tab.keyboard.press("ArrowRight")
        settle(tab)
        assert state_on_page(tab)["width"] == 256 and width.get_attribute("aria-valuetext") == "256"
        divided = tab.locator(".lf-line").inner_text()
        tab.get_by_label("divide by").focus()
        tab.keyboard.press("Space")
        settle(tab)
        assert state_on_page(tab)["scaled"] is False
        alone = tab.locator(".lf-line").inner_text()
        assert alone != divided and alone.startswith("animal gets 100 %. Entropy 0.00")
        tab.get_by_label("Temperature").focus()
        tab.keyboard.press("End")
        settle(tab)
        assert state_on_page(tab)["temperature"] == 8
        tab.wait_for_function("document.querySelector('.lf-spoken').textContent.length > 0", timeout=5000)


def test_softmax_explorer_by_mouse_and_finger(chromium, tmp_path: Path):
    figure = real_row()
    with alive(chromium, figure, tmp_path, width=360) as tab:
        street = figure.words.index("street")
        box = tab.locator(".lf-matrix").bounding_box()
        tab.mouse.click(box["x"] + box["width"] * (10 + 320 / 15 * (street + 0.5)) / 340, box["y"] + 30)
        settle(tab)
        assert state_on_page(tab)["picked"] == street
        assert "Raise the score of street" in tab.locator(".lf-line").inner_text()
        tab.locator(".lf-bar", has_text="tired").dispatch_event("click")
        settle(tab)
        assert figure.words[state_on_page(tab)["picked"]] == "tired"
        slider = tab.get_by_label("Temperature").bounding_box()
        tab.mouse.click(slider["x"] + 3, slider["y"] + slider["height"] / 2)
        settle(tab)
        assert state_on_page(tab)["temperature"] == 0.125
        tab.get_by_role("button", name="Start again").click()
        settle(tab)
        assert state_on_page(tab) == json.loads(json.dumps(figure.state()))


@pytest.mark.parametrize("arguments, message", [
    ({"scores": [1.0]}, r"scores has shape \(1,\), expected \(n,\), n from 2 to 24"),
    ({"scores": [[1.0, 2.0]]}, r"scores has shape \(1, 2\)"),
    ({"scores": [1.0, np.inf]}, "scores holds inf, expected finite numbers"),
    ({"words": ["a", "b", "c"]}, "words has 3 entries, expected 2"),
    ({"width": 0}, "width is 0, expected 1 to 1024"),
    ({"temperature": 0.0}, r"temperature is 0\.0, expected 0\.125 to 8"),
    ({"picked": 2}, "picked is 2, expected 0 to 1"),
])
def test_softmax_explorer_refuses(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.SoftmaxExplorer(**{"scores": [1.0, 2.0], "words": ["a", "b"], **arguments})
