"""Every page in a real browser: two widths, two colour modes, nothing wrong with any of them."""

from pathlib import Path

import pytest

from tests.pages.book import GENERATED, Build, pages_in_toc
from tests.pages.book import site as site  # a fixture
from tests.pages.browser import NEEDS, WIDTHS, Findings, accessibility, gzipped_kb, opened, serve, visit
from tests.pages.browser import chromium as chromium  # a fixture

PAGES = [*pages_in_toc(), *GENERATED]
MOST_KB = 1000  # a page's weight, gzipped, figures included


@pytest.fixture(scope="session")
def base(site: Build):
    with serve(site.html) as address:
        yield address


@pytest.mark.parametrize("page", PAGES)
def test_page(chromium, site: Build, base: str, page: str):
    faults, loaded = [], set()
    for name, width in WIDTHS.items():
        for mode, found in visit(chromium, base, page, width).items():
            assert found.theme == mode, "the page follows the reader's colour mode"
            faults += [f"{name}, {mode}: {fault}" for fault in found.faults()]
            loaded |= found.loaded
    assert not faults, "\n".join(faults)
    assert not icon_fonts(loaded), "an icon that _static/icons.css does not draw"
    weight = gzipped_kb(site.html, base, loaded)
    print(f"{page}: {weight:.0f} kB gzipped")
    assert weight < MOST_KB


def icon_fonts(loaded: set[str]) -> list[str]:
    """The theme's icon font, 156 kB, among what a visit loaded."""
    return [url for url in loaded if "fontawesome" in url]


def test_a_page_loads_what_it_needs(chromium, base: str):
    """No MathJax without a formula, no search index before a search; and another icon would be seen to load its font."""
    findings = Findings()
    with opened(chromium, base, "intro", findings=findings) as tab:
        assert not [url for url in findings.loaded if "mathjax" in url or "searchindex" in url] and not icon_fonts(findings.loaded)
        tab.evaluate("document.querySelector('article').insertAdjacentHTML('beforeend', '<i class=\"fa-solid fa-heart\"></i>')")
        tab.evaluate("document.fonts.ready.then(() => new Promise((done) => setTimeout(done, 300)))")
        assert icon_fonts(findings.loaded)


def test_mathematics_is_typeset(chromium, base: str):
    """From the site's own copy of MathJax, with MathML for screen readers."""
    with opened(chromium, base, "appendix/notation") as tab:
        assert tab.locator("mjx-container").count() > 10
        assert tab.locator("mjx-assistive-mml").count() > 10
        assert tab.locator("mjx-merror").count() == 0


def test_search_finds_and_is_accessible(chromium, base: str):
    with opened(chromium, base, "intro") as tab:
        tab.locator(".bd-sidebar-primary .search-button__button").click()
        assert tab.locator("#pst-search-dialog[open]").count() == 1
        assert accessibility(tab) == []
        tab.keyboard.type("softmax")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#search-results li a", timeout=10_000)


def test_the_colour_mode_can_be_chosen(chromium, base: str):
    with opened(chromium, base, "intro", mode="light") as tab:
        seen = set()
        for _ in range(3):
            tab.locator(".article-header-buttons .theme-switch-button").click()
            seen.add(tab.evaluate("document.documentElement.dataset.theme"))
        assert seen == {"light", "dark"}


def test_a_word_of_the_title_picture_can_be_chosen(chromium, base: str):
    """By keyboard: the chosen word is marked in both sentences, and the numbers change with it."""
    with opened(chromium, base, "intro", width=WIDTHS["phone"]) as tab:
        def numbers() -> str:
            return tab.locator(".al-keys").first.inner_text()

        before = numbers()
        chosen = tab.locator(".al-queries button", has_text="animal").first
        chosen.focus()
        tab.keyboard.press("Enter")
        assert chosen.get_attribute("aria-pressed") == "true"
        assert tab.locator(".al-queries button[aria-pressed=true]").count() == 2
        assert numbers() != before
        assert accessibility(tab) == []


# --- Each checker catches what is planted for it -----------------------------------------------------------------

FRAME = '<!doctype html><html lang="en"><head><title>Planted</title></head><body><main><h1>Planted</h1>{}</main></body></html>'
PLANTED = {  # page, where it must be found, what must be named
    "nothing": ("<p>Nothing wrong.</p>", None, ""),
    "an image from elsewhere": ('<img alt="A dot." src="https://example.org/dot.png">', "external", "example.org"),
    "an error in a script": ("<script>throw new Error('planted')</script>", "console", "planted"),
    "an error said": ("<script>console.error('planted')</script>", "console", "planted"),
    "a file that is missing": ('<img alt="A dot." src="gone.png">', "missing", "gone.png"),
    "a button without a name": ("<button></button>", "accessibility", "button-name"),
    "an image without alt": ('<img src="dot.svg">', "accessibility", "image-alt"),
    "pale text": ('<p style="color: #bbb; background: #fff">pale</p>', "accessibility", "color-contrast"),
    "pale code": (
        '<div class="highlight"><pre><span style="color: #000">dark</span><span style="color: #bbb">pale</span></pre></div>',
        "accessibility", "color-contrast"),
    "a wide box": ('<div style="width: 900px">wide</div>', "sticking_out", "<div"),
    "a wide box cut off": ('<div style="overflow: hidden"><p style="width: 900px">wide</p></div>', "sticking_out", "<p"),
    "a box that only a mouse can scroll": (
        '<div style="overflow-x: auto; width: 200px"><p style="width: 900px">wide</p></div>', "mouse_only", "<div"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted(chromium, tmp_path: Path, name: str):
    text, kind, said = PLANTED[name]
    (tmp_path / "planted.html").write_text(FRAME.format(text), encoding="utf8")
    (tmp_path / "dot.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>', encoding="utf8")
    (tmp_path / "favicon.ico").write_bytes(b"")
    with serve(tmp_path) as address:
        found = visit(chromium, address, "planted", WIDTHS["phone"], modes=("light",))["light"]
    if kind is None:
        assert found.faults() == []
    else:
        assert any(said in fault for fault in getattr(found, kind)), found


def test_without_chromium_one_sentence_says_so(without_chromium):
    skipped, failed = without_chromium
    assert skipped.returncode == 0 and NEEDS in " ".join(skipped.stdout.split())
    assert failed.returncode == 1


@pytest.fixture
def without_chromium(tmp_path):
    """Run one planted test in a process that has no Chromium: as it is, and where Chromium is required."""
    import os
    import subprocess
    import sys

    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}",
               f"{__file__}::test_planted[nothing]"]
    bare = {**os.environ, "CHROMIUM": str(tmp_path / "no-such-browser"), "REQUIRE_CHROMIUM": "0", "COLUMNS": "400"}
    bare.pop("PYTEST_XDIST_WORKER", None)
    bare.pop("PYTEST_ADDOPTS", None)

    def run(env: dict) -> subprocess.CompletedProcess:
        return subprocess.run(command, cwd=Path(__file__).parents[1], env=env, capture_output=True, text=True)

    return run(bare), run({**bare, "REQUIRE_CHROMIUM": "1"})
