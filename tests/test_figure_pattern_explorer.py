"""The pattern explorer: its pairs, blocks and reach against the library's, and every way to move it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from attnlib import costs, masks, measure, sparse, widgets
from attnlib.layers import attention
from attnlib.widgets.pattern_explorer import PATTERNS
from tests.pages.browser import chromium as chromium  # a fixture
from tests.pages.browser import settle
from tests.pages.figures import FIGURES, alive, state_on_page


def test_what_is_written_is_what_is_drawn():
    rng = np.random.default_rng(4)
    for _ in range(60):
        figure = FIGURES["pattern_explorer"](rng)
        now = figure.computed()
        predicate = eval(now["written"], {"masks": masks})
        mask = np.ones((figure.seq, figure.seq), bool) if predicate is None else masks.to_array(predicate, figure.seq)
        assert ["".join(map(str, row)) for row in mask.astype(int)] == now["mask"]


def test_blocks_and_flops_are_the_library_s():
    rng = np.random.default_rng(5)
    for _ in range(30):
        figure = FIGURES["pattern_explorer"](rng)
        now, n = figure.computed(), figure.seq
        blocks = sparse.block_map(figure.predicate(figure.depth), n, block_size=figure.block)
        assert ["".join(map(str, row)) for row in blocks.kinds[0]] == now["kinds"]
        assert round(blocks.fraction * n * n) == now["inside"]
        assert now["flops"] == {"dense": costs.attention_flops(1, n, n, 64), "blocks": costs.attention_cost(1, n, n, 64, pairs=now["inside"], fused=True).flops,
                                "pairs": costs.attention_cost(1, n, n, 64, pairs=now["pairs"], fused=True).flops}


def test_the_readable_attention_computes_these_flops():
    figure = widgets.PatternExplorer("sliding window", seq=64, block=8)
    q, k, v = (torch.zeros(1, 1, 64, 64) for _ in range(3))
    mask = torch.from_numpy(masks.to_array(figure.predicate(), 64))
    assert measure.flops(lambda: sparse.block_sparse_in_rows(q, k, v, mask, 8)) == figure.computed()["flops"]["blocks"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_reach_is_what_gradients_find(pattern: str):
    """What the last result of a stack with residual connections depends on."""
    figure = widgets.PatternExplorer(pattern, seq=48, block=4, depth=3)
    x = (0.1 * torch.randn(1, 48, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()  # small: no weight is 0
    h, found = x, []
    for layer in (1, 2, 3):
        h = h + attention(h, h, h, torch.from_numpy(masks.to_array(figure.predicate(layer), 48)))[0]
        (gradient,) = torch.autograd.grad(h[0, -1].sum(), x, retain_graph=True)
        found.append(int((gradient[0].abs().sum(-1) > 0).sum()))
    assert found == figure.computed()["reached"]


def test_by_mouse(chromium, tmp_path: Path):
    with alive(chromium, widgets.PatternExplorer("sliding window", seq=64, block=8), tmp_path) as tab:
        assert "Token 63 is reached by 9 tokens after one layer, by 33 after 4." in tab.locator(".lf-line").inner_text()
        board = tab.locator(".pe-board").first.bounding_box()
        cell = board["width"] / 64
        at = lambda i, j: (board["x"] + (j + 0.5) * cell, board["y"] + (i + 0.5) * cell)  # noqa: E731
        tab.mouse.move(*at(40, 33))
        assert tab.locator(".ae-tip").first.inner_text() == "query 40, key 33: needed; arrives with layer 1"
        tab.mouse.move(*at(40, 46))
        assert tab.locator(".ae-tip").first.inner_text() == "query 40, key 46: computed in vain; not within 4 layers"
        tab.mouse.move(*at(40, 10))
        assert tab.locator(".ae-tip").first.inner_text() == "query 40, key 10: skipped; arrives with layer 4"
        tab.mouse.click(*at(20, 3))
        settle(tab)
        assert state_on_page(tab)["query"] == 20 and "Token 20 is reached by 9 tokens" in tab.locator(".lf-line").inner_text()
        tab.mouse.move(*at(20, 3))
        tab.mouse.down()
        tab.mouse.move(*at(5, 3), steps=4)
        tab.mouse.up()
        settle(tab)
        assert state_on_page(tab)["query"] == 5
        tab.get_by_text("Put a pattern together").click()
        assert not tab.get_by_label("how many", exact=True).is_visible()
        tab.get_by_role("checkbox", name="Global tokens").check()
        settle(tab)
        assert tab.locator(".pe-code").inner_text() == "masks.both(masks.causal, masks.either(masks.sliding_window(8, 0), masks.global_tokens(2)))"
        assert state_on_page(tab)["pattern"] == "" and tab.get_by_label("how many", exact=True).is_visible()
        tab.get_by_role("button", name="Start again").click()
        settle(tab)
        assert state_on_page(tab) == json.loads(json.dumps(widgets.PatternExplorer("sliding window").state()))


def test_by_keyboard(chromium, tmp_path: Path):
    with alive(chromium, widgets.PatternExplorer("causal", seq=32, block=8), tmp_path) as tab:
        tab.get_by_label("Pattern", exact=True).select_option("Longformer (2004.05150)")
        tab.get_by_label("Tokens", exact=True).focus()
        tab.keyboard.press("ArrowRight")
        settle(tab)
        now = state_on_page(tab)
        assert now["seq"] == 36 and now["query"] == 35  # the last token stays the one that is followed
        assert {name: now[name] for name in PATTERNS["Longformer (2004.05150)"]} == PATTERNS["Longformer (2004.05150)"]
        assert "2 layers connect every token with every other." in tab.locator(".lf-line").inner_text()
        tab.get_by_label("Token followed", exact=True).focus()
        tab.keyboard.press("Home")
        tab.get_by_label("Layers", exact=True).focus()
        tab.keyboard.press("Home")
        settle(tab)
        assert state_on_page(tab)["query"] == 0 and "Token 0 is reached by 36 tokens after one layer." in tab.locator(".lf-line").inner_text()
        tab.get_by_label("Tokens", exact=True).focus()
        tab.keyboard.press("Home")
        settle(tab)
        tab.locator(".lf-numbers summary").press("Enter")
        settle(tab)
        rows = [row.locator("th, td").all_inner_texts() for row in tab.locator(".lf-numbers tbody tr").all()]
        assert rows == widgets.PatternExplorer("Longformer (2004.05150)", seq=8, depth=1, query=0).rows()
        tab.wait_for_function("document.querySelector('.lf-spoken').textContent.length > 0", timeout=5000)


def test_by_finger(chromium, tmp_path: Path):
    with alive(chromium, widgets.PatternExplorer(), tmp_path, width=360) as tab:
        finger = tab.context.new_cdp_session(tab)
        board = tab.locator(".pe-board").first.bounding_box()
        at = {"x": board["x"] + board["width"] / 2, "y": board["y"] + board["height"] * 10.5 / 64}
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        tab.wait_for_function("document.querySelector('figure.lf-alive').model.get('query') === 10")


def test_the_drawing_has_the_colours_of_the_mask(chromium, tmp_path: Path):
    """Pixel by pixel: needed, computed in vain, skipped."""
    figure = widgets.PatternExplorer("dilated (2004.05150)", seq=48, block=8)
    with alive(chromium, figure, tmp_path) as tab:
        settle(tab)
        pixels = tab.evaluate("""() => {
          const canvas = document.querySelector(".pe-board canvas"), n = canvas.width;
          return Array.from(new Uint32Array(canvas.getContext("2d").getImageData(0, 0, n, n).data.buffer));
        }""")
    now = figure.computed()
    wanted = [2 if now["mask"][i][j] == "1" else int(now["kinds"][i // 8][j // 8] != "0") for i in range(48) for j in range(48)]
    pairs = set(zip(wanted, pixels, strict=True))
    assert len(pairs) == 3 == len({colour for _, colour in pairs})


@pytest.mark.parametrize("arguments, message", [
    ({"pattern": "Reformer"}, "pattern is 'Reformer', expected one of"),
    ({"seq": 30}, "seq is 30, expected a multiple of 4 from 8 to 256"),
    ({"seq": 260}, "seq is 260, expected"),
    ({"block": 5}, r"block is 5, expected one of \[1, 2, 4, 8, 16, 32\]"),
    ({"depth": 0}, "depth is 0, expected a whole number from 1 to 8"),
    ({"query": 64}, "query is 64, expected a whole number from 0 to 63"),
    ({"parts": {"stride": 2}}, "parts names 'stride', expected some of"),
    ({"parts": {"left": 1.5}}, r"left is 1\.5, expected a whole number from 0 to 64"),
    ({"parts": {"causal": 1}}, "causal is 1, expected True or False"),
])
def test_it_refuses(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.PatternExplorer(**arguments)
