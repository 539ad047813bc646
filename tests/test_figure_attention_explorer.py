"""The attention explorer: what it keeps of the real weights, and every way to move it."""

import re
from pathlib import Path

import numpy as np
import pytest

from attnlib import data, widgets
from attnlib.widgets.attention_explorer import packed, unpacked
from tests.pages.browser import chromium as chromium  # a fixture
from tests.pages.browser import settle
from tests.pages.figures import alive, state_on_page


@pytest.fixture(scope="module")
def real() -> widgets.AttentionExplorer:
    found = {ending: data.real_attention(ending) for ending in ("tired", "wide")}
    return widgets.AttentionExplorer(
        {ending: each.tokens for ending, each in found.items()}, {ending: each.weights for ending, each in found.items()},
        {ending: each.norms for ending, each in found.items()}, query=10, key=2, head=(3, 1), other=(3, 5))


def test_packing_keeps_numbers_to_half_a_step():
    shares = np.random.default_rng(0).uniform(size=(3, 7))
    shares[0, :2] = 0, 1
    kept = unpacked(packed(shares), (3, 7))
    assert np.abs(kept - shares).max() <= 0.5 / 4095 + 1e-12  # half a step, and float64's rounding
    assert kept[0, 0] == 0 and kept[0, 1] == 1


def test_the_figure_holds_the_real_heads(real):
    for ending in ("tired", "wide"):
        found = data.real_attention(ending)
        kept = unpacked(real.shares[ending], found.weights.shape)
        assert np.abs(kept - found.weights).max() <= 0.5 / 4095 + 1e-6  # the clipping of float32 rows at 1
        assert np.abs(np.reshape(real.lengths[ending], found.norms.shape) - found.norms).max() <= 0.005 + 1e-6
    assert np.abs(data.real_attention().weights[3, 1] - data.real_head("pronoun").weights).max() == 0


def test_by_mouse(chromium, tmp_path: Path, real):
    with alive(chromium, real, tmp_path) as tab:
        assert "layer 3, head 1 gives most weight to animal (0.64)" in tab.locator(".lf-line").inner_text()
        board = tab.locator(".ae-board").bounding_box()
        at = board["x"] + board["width"] * 2.5 / 12, board["y"] + board["height"] * 0.5 / 6
        tab.mouse.move(*at)
        assert tab.locator(".ae-tip").inner_text().startswith("layer 0, head 2: it → animal")
        tab.mouse.click(*at)
        settle(tab)
        assert state_on_page(tab)["head"] == [0, 2]
        assert "layer 0, head 2 gives most weight to because" in tab.locator(".lf-line").inner_text()  # the token before
        tab.get_by_label("compared", exact=True).check()
        tab.mouse.click(board["x"] + 3, board["y"] + board["height"] - 3)
        settle(tab)
        assert state_on_page(tab)["other"] == [5, 0] and state_on_page(tab)["head"] == [0, 2]
        shown = tab.get_by_role("group", name="query, head shown")
        shown.get_by_role("button", name="tired").hover()
        settle(tab)
        assert tab.locator(".lf-line").inner_text().startswith("From tired:")
        assert state_on_page(tab)["query"] == 10  # looked at, not chosen
        shown.get_by_role("button", name="tired").click()
        settle(tab)
        assert state_on_page(tab)["query"] == 13


def test_by_keyboard(chromium, tmp_path: Path, real):
    with alive(chromium, real, tmp_path) as tab:
        tab.get_by_label("Sentence ends in").focus()
        tab.keyboard.press("ArrowDown")
        settle(tab)
        assert state_on_page(tab)["sentence"] == "wide"
        wide = data.real_attention("wide").weights[3, 1, 10]
        favourite = re.search(r"head 1 gives most weight to (\S+) \((0\.\d\d)\)", tab.locator(".lf-line").inner_text())
        assert favourite[1] == data.real_attention("wide").tokens[wide.argmax()] and abs(float(favourite[2]) - wide.max()) < 0.006
        shown = tab.get_by_role("group", name="query, head shown")
        shown.get_by_role("button", name="because").focus()
        settle(tab)
        assert tab.locator(".lf-line").inner_text().startswith("From because:")
        tab.keyboard.press("Enter")
        settle(tab)
        assert state_on_page(tab)["query"] == 9
        assert not tab.get_by_label("Key of the pair").is_visible()
        tab.get_by_label("Small squares show").select_option("one pair, in every head")
        tab.get_by_label("Key of the pair").select_option("animal")
        settle(tab)
        weights = data.real_attention("wide").weights[:, :, 9, 2]
        layer, head = np.unravel_index(weights.argmax(), weights.shape)
        assert f"Of all heads, layer {layer}, head {head} gives animal most: {weights.max():.2f}" in tab.locator(".lf-line").inner_text()


def test_by_finger(chromium, tmp_path: Path, real):
    with alive(chromium, real, tmp_path, width=360) as tab:
        finger = tab.context.new_cdp_session(tab)
        board = tab.locator(".ae-board").bounding_box()
        x, y = board["x"] + board["width"] * 8.5 / 12, board["y"] + board["height"] * 0.5 / 6
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        tab.wait_for_function("document.querySelector('figure.lf-alive').model.get('head')[1] === 8")
        assert state_on_page(tab)["head"] == [0, 8]


def test_lengths_change_the_picture_of_a_sink(chromium, tmp_path: Path, real):
    """A head that gives [CLS] four fifths of its weight: times the length of its value, it is far less."""
    found = data.real_attention()
    parts = found.weights[3, 5, 10] * found.norms[3, 5]
    with alive(chromium, real, tmp_path) as tab:
        tab.get_by_label("Show", exact=True).select_option("weight × length of the value")
        tab.locator(".lf-numbers summary").click()
        settle(tab)
        first = tab.locator(".lf-numbers tbody tr").first.locator("th, td").all_inner_texts()
    assert first[0] == "[CLS]" and abs(float(first[2]) - parts[0] / parts.sum()) < 0.006 < found.weights[3, 5, 10, 0] - float(first[2])


GOOD = {"tokens": {"a": ["x", "y"]}, "weights": {"a": np.full((1, 2, 2, 2), 0.5)}, "norms": {"a": np.ones((1, 2, 2))}}


@pytest.mark.parametrize("arguments, message", [
    ({"norms": {"b": np.ones((1, 2, 2))}}, r"have the names \['a'\], \['a'\] and \['b'\], expected the same"),
    ({"weights": {"a": np.full((2, 2, 2), 0.5)}}, r"weights\['a'\] has shape \(2, 2, 2\), expected \(layers, heads, 2, 2\)"),
    ({"norms": {"a": np.ones((1, 2, 3))}}, r"norms\['a'\] has shape \(1, 2, 3\), expected \(1, 2, 2\)"),
    ({"weights": {"a": np.full((1, 2, 2, 2), 2.0)}}, r"weights\['a'\] goes from 2.0 to 2.0, expected 0 to 1"),
    ({"norms": {"a": -np.ones((1, 2, 2))}}, r"norms\['a'\] holds a negative"),
    ({"query": 2}, "query is 2, expected 0 to 1"),
    ({"other": (1, 0)}, r"other is \[1, 0\], expected a layer from 0 to 0 and a head from 0 to 1"),
    ({"measure": "size"}, "measure is 'size', expected 'weights' or 'norms'"),
    ({"overview": "all"}, "overview is 'all'"),
    ({"sentence": "c"}, r"sentence is 'c', expected one of \['a'\]"),
])
def test_it_refuses(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.AttentionExplorer(**{**GOOD, "other": (0, 1), **arguments})
