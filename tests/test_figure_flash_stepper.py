"""The flash stepper: its counts against the library's, its walk on the real head, and every way to move it."""

import json
from pathlib import Path

import numpy as np
import pytest

from attnlib import costs, data, widgets
from attnlib.reference import attention, attention_scores
from tests.pages.browser import chromium as chromium  # a fixture
from tests.pages.browser import settle
from tests.pages.figures import alive, computed_on_page, furthest, state_on_page


def real(**given) -> widgets.FlashStepper:
    """The running example's pronoun head: where the walk stands, the maximum of "it" rises."""
    head = data.real_head("pronoun")
    x = head.x.astype(float)
    scores = attention_scores(x @ head.w_q + head.b_q, x @ head.w_k + head.b_k)
    options = {"dim_head": 32, "tile_q": 4, "tile_k": 2, "query": head.tokens.index("it"), "causal": True, **given}
    return widgets.FlashStepper(scores, x @ head.w_v + head.b_v, head.tokens, **options)


def at_the_end(figure: widgets.FlashStepper) -> list[dict]:
    """What is computed at the steps that write a block of outputs."""
    kinds = [kind for kind, *_ in figure.computed()["walk"]]
    found = []
    for step in [i for i, kind in enumerate(kinds) if kind == "store"]:
        figure.step = step
        found.append(figure.computed())
    return found


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("tiles", [(4, 2), (4, 4), (1, 1), (15, 15), (7, 4)])
def test_the_walk_ends_at_attention(tiles, causal, reverse):
    figure = real(tile_q=tiles[0], tile_k=tiles[1], causal=causal, reverse=reverse)
    final = at_the_end(figure)
    out = np.concatenate([np.asarray(each["out"]) / np.asarray(each["sum_after"])[:, None] for each in final])
    head = data.real_head("pronoun")
    x = head.x.astype(float)
    mask = np.tril(np.ones((15, 15), bool)) if causal else None
    expected, _ = attention(*(x @ w + b for w, b in ((head.w_q, head.b_q), (head.w_k, head.b_k), (head.w_v, head.b_v))), mask)
    assert np.abs(out - expected).max() < 1e-3  # scores and values are stored to four digits
    assert max(max(each["off"]) for each in final) < 1e-14  # against attention on the stored ones


@pytest.mark.parametrize("tiles", [(4, 2), (4, 4), (1, 1), (15, 1), (7, 4)])
def test_the_bytes_are_those_of_the_library(tiles):
    tile_q, tile_k = tiles
    figure = real(tile_q=tile_q, tile_k=tile_k)
    done = at_the_end(figure)[-1]
    pairs = sum((stop - start) * (last - first) for kind, start, stop, first, last in done["walk"] if kind == "tile")
    assert pairs == costs.causal_pairs(15, 15, tile_q, tile_k)
    assert done["moved"][1] == done["moved"][3] == 4 * costs.attention_cost(1, 15, 15, 32).moved
    keys = sum(last - first for *_, first, last in done["walk"])
    assert done["moved"][0] == done["moved"][2] == 4 * (15 * 32 + 64 * keys + 15 * 33)
    if tile_q == 15:  # one block of queries: everything is read once
        assert done["moved"][2] == 4 * costs.attention_cost(1, 15, 15, 32, fused=True).moved


def test_the_first_state_makes_its_point():
    figure = real()
    now, it = figure.computed(), 10 - 8
    assert now["walk"][figure.step] == ["tile", 8, 12, 2, 4]
    assert now["max_after"][it] > now["max_before"][it] and now["rescale"][it] < 0.25
    assert len(figure.static()) < 10_000


def test_a_forgotten_rescale_is_seen(chromium, tmp_path: Path):
    """Plant the chapter's mistake in the module: the comparison with the library finds it, and the sentence too."""
    figure = real()
    with alive(chromium, figure, tmp_path) as tab:
        right = (tmp_path / "flash_stepper.mjs").read_text()
        wrong = right.replace("total: rescale * total + sum(powers)", "total: total + sum(powers)")
        assert wrong != right
        (tmp_path / "forgets.mjs").write_text(wrong)
        states = [json.loads(json.dumps(figure.state()))]
        ours = json.loads(json.dumps(figure.computed()))
        assert furthest(ours, computed_on_page(tab, "flash_stepper", states)[0])[0] < 1e-12
        assert furthest(ours, computed_on_page(tab, "forgets", states)[0])[0] > 0.1


def line(tab) -> str:
    settle(tab)
    return tab.locator(".lf-line").inner_text()


def test_by_mouse(chromium, tmp_path: Path):
    figure = real()
    with alive(chromium, figure, tmp_path) as tab:
        assert "1 of 4 maxima rise. For “it” from 1.98 to 3.63" in line(tab)
        tab.get_by_role("button", name="Forward").click()
        assert "Queries 8 to 11, keys 4 to 5" in line(tab) and "factor 1" in line(tab)
        tab.get_by_role("button", name="Back").click()
        assert state_on_page(tab)["step"] == figure.step
        box = tab.locator(".fs-map").bounding_box()
        unit = box["width"] / 340
        cell = (340 - 62 - 6) / 15
        tab.mouse.click(box["x"] + unit * (62 + 0.5 * cell), box["y"] + unit * (58 + 5.5 * cell))
        assert "Queries 4 to 7, keys 0 to 1: the first keys that “t” sees" in line(tab)
        assert state_on_page(tab)["query"] == 5
        before = state_on_page(tab)
        tab.mouse.click(box["x"] + unit * (62 + 14.5 * cell), box["y"] + unit * (58 + 0.5 * cell))  # a tile that is skipped
        settle(tab)
        assert state_on_page(tab) == before
        tab.locator(".fs-row").nth(3).click()
        settle(tab)
        assert state_on_page(tab)["query"] == 7
        tab.get_by_role("button", name="Next rise of a maximum").click()
        settle(tab)
        now = widgets.FlashStepper(before["scores"], before["values_of"], before["words"], dim_head=32, tile_q=4, tile_k=2, causal=True,
                                   step=state_on_page(tab)["step"]).computed()
        assert any(a is not None and b > a for a, b in zip(now["max_before"], now["max_after"], strict=True))
        tab.get_by_role("button", name="Start again").click()
        settle(tab)
        assert state_on_page(tab) == json.loads(json.dumps(figure.state()))


def test_by_keyboard(chromium, tmp_path: Path):
    figure = real()
    with alive(chromium, figure, tmp_path) as tab:
        step = tab.get_by_label("Step", exact=True)
        step.focus()
        tab.keyboard.press("ArrowRight")
        settle(tab)
        assert state_on_page(tab)["step"] == figure.step + 1
        assert step.get_attribute("aria-valuetext") == "14 of 28, tile queries 8 to 11, keys 4 to 5"
        tab.keyboard.press("End")
        assert "divided by its sum" in line(tab) and tab.get_by_role("button", name="Forward").is_disabled()
        tab.get_by_label("Look at query").select_option("10 it")
        assert "Queries 8 to 11, keys 0 to 1" in line(tab)  # gone to where it is
        tab.get_by_label("Queries in a tile").focus()
        tab.keyboard.press("End")
        assert "Queries 0 to 14, keys 0 to 1" in line(tab) and state_on_page(tab)["tile_q"] == 15
        assert "less" in tab.locator(".fs-note").last.inner_text()  # all queries at once: fewer bytes than naively
        tab.get_by_label("causal").focus()
        tab.keyboard.press("Space")
        tab.get_by_label("keys from right to left").focus()
        tab.keyboard.press("Space")
        settle(tab)
        now = state_on_page(tab)
        assert now["causal"] is False and now["reverse"] is True
        tab.get_by_label("Fast memory").focus()
        tab.keyboard.press("Home")
        settle(tab)
        assert "it does not fit" in tab.locator(".fs-note").first.inner_text()
        tab.wait_for_function("document.querySelector('.lf-spoken').textContent.length > 0", timeout=5000)


def test_by_finger(chromium, tmp_path: Path):
    figure = real()
    with alive(chromium, figure, tmp_path, width=360) as tab:
        finger = tab.context.new_cdp_session(tab)
        for name, step in (("Forward", figure.step + 1), ("Back", figure.step)):
            box = tab.get_by_role("button", name=name).bounding_box()
            assert box["height"] >= 35
            at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
            finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
            finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
            tab.wait_for_function(f"document.querySelector('figure.lf-alive').model.get('step') === {step}")


def test_play_stops_and_heeds_reduced_motion(chromium, tmp_path: Path):
    figure = real(step=25)  # two steps from the end
    with alive(chromium, figure, tmp_path) as tab:
        tab.emulate_media(reduced_motion="no-preference")
        tab.get_by_role("button", name="Play").click()
        tab.wait_for_function("document.querySelector('figure.lf-alive').model.get('step') === 27", timeout=15_000)
        tab.get_by_role("button", name="Play").wait_for(timeout=5000)  # it came to rest
        tab.get_by_role("button", name="Play").click()
        tab.wait_for_function("document.querySelector('figure.lf-alive').model.get('step') === 1", timeout=15_000)
        tab.emulate_media(reduced_motion="reduce")
        settle(tab)
        assert tab.get_by_role("button", name="Play").count() == tab.get_by_role("button", name="Pause").count() == 0
        rests = state_on_page(tab)["step"]
        tab.wait_for_timeout(1500)  # longer than one step of the play
        assert state_on_page(tab)["step"] == rests


GOOD = {"scores": np.zeros((2, 3)), "values": np.ones((3, 2)), "words": ["a", "b", "c"], "dim_head": 2, "tile_q": 1, "tile_k": 2}


@pytest.mark.parametrize("arguments, message", [
    ({"scores": np.zeros(3)}, r"scores has shape \(3,\), expected \(seq_q, seq_k\), each from 1 to 24"),
    ({"scores": np.zeros((2, 25))}, r"scores has shape \(2, 25\)"),
    ({"values": np.ones((2, 2))}, r"values has shape \(2, 2\), expected \(3, dim_v\)"),
    ({"scores": np.full((2, 3), np.nan)}, "scores holds nan, expected finite numbers"),
    ({"words": ["a"]}, "words has 1 entries, expected 3"),
    ({"queries": ["a"]}, "queries has 1 entries, expected 2"),
    ({"scores": np.zeros((4, 3))}, "queries is missing, expected 4 tokens"),
    ({"dim_head": 0}, "dim_head is 0, expected 1 to 1024"),
    ({"tile_q": 3}, "tile_q is 3, expected 1 to 2"),
    ({"tile_k": 0}, "tile_k is 0, expected 1 to 3"),
    ({"query": 2}, "query is 2, expected 0 to 1"),
    ({"step": 8}, "step is 8, expected 0 to 7"),
    ({"fast": 1000}, "fast is 1000, expected one of 512, 1024"),
])
def test_it_refuses(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.FlashStepper(**{**GOOD, **arguments})
