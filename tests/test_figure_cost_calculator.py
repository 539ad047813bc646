"""The cost calculator: published sizes to the last parameter, and every way to move it."""

import json
import re
from pathlib import Path

import pytest

from attnlib import costs, widgets
from attnlib.widgets.cost_calculator import PRESETS
from tests.pages.browser import chromium as chromium  # a fixture
from tests.pages.browser import settle
from tests.pages.figures import alive, state_on_page

PUBLISHED = {  # parameters of the released models, as their files hold them
    "GPT-2 (2019)": 124_439_808, "Mistral 7B (2310.06825)": 7_241_732_096, "Llama 3 8B (2407.21783)": 8_030_261_248,
    "Llama 3 70B (2407.21783)": 70_553_706_496, "Llama 3 405B (2407.21783)": 405_853_388_800,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_released_models_to_the_last_parameter(name: str):
    assert int(widgets.CostCalculator(name).computed()["parameters"]) == PUBLISHED[name]


def test_gpt_3_has_175_billion_parameters():
    assert round(int(widgets.CostCalculator("GPT-3 175B (2005.14165)").computed()["parameters"]) / 1e9) == 175


def test_two_flops_a_parameter_and_token_beside_attention():
    """The rule of thumb of Kaplan et al. (2020): the model of 405 billion takes 2 FLOPs for each parameter outside the embedding."""
    figure = widgets.CostCalculator("Llama 3 405B (2407.21783)", context=1)
    now = {key: int(value) for key, value in figure.computed().items()}
    embedding, norms = 128256 * 16384, (2 * 126 + 1) * 16384
    assert now["projections"] + now["mlp"] + now["unembedding"] == 2 * (now["parameters"] - embedding - norms)


def test_the_crossovers_are_the_smallest_such_lengths():
    for causal in (True, False):
        figure = widgets.CostCalculator(causal=causal)
        n = int(figure.computed()["meeting"])
        for length, more in ((n, True), (n - 1, False)):
            now = {key: int(value) for key, value in widgets.CostCalculator(causal=causal, context=length).computed().items()}
            assert (now["products"] >= now["projections"] + now["mlp"] + now["unembedding"]) is more
        full = int(figure.computed()["full"])
        weights = int(figure.computed()["weights"])
        assert costs.kv_cache_bytes(32, 8, 128, full) >= weights > costs.kv_cache_bytes(32, 8, 128, full - 1)


def test_by_keyboard(chromium, tmp_path: Path):
    figure = widgets.CostCalculator()
    with alive(chromium, figure, tmp_path) as tab:
        first = tab.locator(".lf-line").last.inner_text()
        tab.get_by_label("Context, tokens").focus()
        for _ in range(3):
            tab.keyboard.press("ArrowRight")
        settle(tab)
        assert state_on_page(tab)["context"] == 65536 and tab.get_by_label("Context, tokens").get_attribute("aria-valuetext") == "65,536"
        assert tab.locator(".lf-line").last.inner_text() != first
        tab.get_by_label("Model", exact=True).select_option("Llama 3 405B (2407.21783)")
        settle(tab)
        now = state_on_page(tab)
        assert {name: now[name] for name in PRESETS["Llama 3 405B (2407.21783)"]} == PRESETS["Llama 3 405B (2407.21783)"]
        wanted = widgets.CostCalculator("Llama 3 405B (2407.21783)", context=65536)
        tab.locator(".lf-numbers summary").press("Enter")
        settle(tab)
        rows = [row.locator("th, td").all_inner_texts() for row in tab.locator(".lf-numbers tbody tr").all()]
        assert rows == wanted.rows()
        tab.wait_for_function("document.querySelector('.lf-spoken').textContent.length > 0", timeout=5000)


def test_another_shape_by_mouse(chromium, tmp_path: Path):
    with alive(chromium, widgets.CostCalculator(), tmp_path) as tab:
        tab.get_by_text("Another shape").click()
        tab.get_by_label("heads of keys and values").select_option("32")
        settle(tab)
        assert state_on_page(tab)["kv_heads"] == 32 and state_on_page(tab)["preset"] == ""
        assert re.search(r"takes 4\.00 GiB", tab.locator(".lf-line").last.inner_text())  # four times the 1 GiB of grouped heads
        tab.get_by_label("query heads").focus()
        tab.keyboard.press("Home")
        settle(tab)
        assert state_on_page(tab)["heads"] == 4 and state_on_page(tab)["kv_heads"] == 4  # still a divisor
        tab.get_by_role("button", name="Start again").click()
        settle(tab)
        assert state_on_page(tab) == json.loads(json.dumps(widgets.CostCalculator().state()))


def test_by_finger(chromium, tmp_path: Path):
    with alive(chromium, widgets.CostCalculator(), tmp_path, width=360) as tab:
        finger = tab.context.new_cdp_session(tab)
        box = tab.get_by_label("Context, tokens").bounding_box()
        at = {"x": box["x"] + box["width"] - 4, "y": box["y"] + box["height"] / 2}
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        tab.wait_for_function("document.querySelector('figure.lf-alive').model.get('context') > 1000000")


@pytest.mark.parametrize("arguments, message", [
    ({"preset": "GPT-5"}, "preset is 'GPT-5', expected one of"),
    ({"context": 0}, "context is 0, expected a whole number from 1"),
    ({"batch": 1.5}, r"batch is 1\.5, expected a whole number"),
    ({"shape": {"width": 3}}, "shape names 'width', expected some of"),
    ({"shape": {"kv_heads": 5}}, "kv_heads is 5, expected a divisor of heads = 32"),
    ({"shape": {"dim": True}}, "dim is True, expected a whole number"),
])
def test_it_refuses(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.CostCalculator(**arguments)
