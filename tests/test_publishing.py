"""The site works wherever it is put; with an address in _config.yml it says where it lives, and without one nothing is missing."""

import re
import shutil
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from PIL import Image

from _ext import addresses
from _ext.addresses import AddressError
from tests.pages.book import ROOT, Build, build, own_addresses, pages_in_toc
from tests.pages.book import site as site  # a fixture
from tests.pages.browser import Findings, accessibility, opened
from tests.pages.browser import chromium as chromium  # a fixture
from tests.pages.links import broken, loaded_from_elsewhere, read_all
from tests.pages.live import live, need_pyodide
from tests.pages.published import host, tied

HERE, THERE = "https://github.com/someone/self-attention", "https://someone.github.io/self-attention/"
UNKNOWN = ("gone.html", "chapters/gone.html", "chapters/gone/", "no/such/folder/gone.html")


# --- The whole site, under a sub-path ----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def under(site: Build):
    with host(site.html) as address:
        yield address


def test_nothing_ties_the_site_to_one_place(site: Build):
    assert tied(site.html, own_addresses().site) == []
    assert (site.html / ".nojekyll").exists()


def test_the_redirection_has_an_icon_of_its_own(site: Build):
    """Otherwise a browser may ask for one at the host's top, which is not ours."""
    icon = re.search(r'<link rel="icon" href="([^"]+)"', (site.html / "index.html").read_text(encoding="utf-8"))
    assert icon and (site.html / icon[1]).is_file()


def test_pages_under_a_sub_path(chromium, under: str):
    """From the title page by the links a reader follows: next, formulas, pictures, the notebook, previous."""
    found, notation = Findings(), Findings()
    with opened(chromium, under, "search", findings=found) as tab:
        tab.goto(under)
        tab.wait_for_url("**/intro.html")
        tab.locator(".prev-next-area a.right-next").click()
        tab.wait_for_url("**/chapters/01_*.html")
        broken_pictures = "[...document.images].filter((each) => !each.complete || !each.naturalWidth).map((each) => each.src)"
        tab.evaluate("for (const each of document.images) each.loading = 'eager'")
        tab.wait_for_function("[...document.images].every((each) => each.complete)")
        assert tab.locator("article img").count() > 0
        assert tab.evaluate(broken_pictures) == []
        with tab.expect_download() as offered:
            if tab.locator("details.page-menu").count():
                tab.locator("details.page-menu > summary").click()
            tab.locator("a[download]").click()
        assert Path(offered.value.path()).read_bytes() == (ROOT / "chapters" / offered.value.suggested_filename).read_bytes()
        tab.locator(".prev-next-area a.left-prev").click()
        tab.wait_for_url("**/intro.html")
    with opened(chromium, under, "appendix/notation", findings=notation) as tab:
        assert tab.locator("mjx-container").count() > 10 and tab.locator("mjx-merror").count() == 0
    assert found.faults() == [] and notation.faults() == []
    assert all(address.startswith((under, "data:", "blob:")) for address in found.loaded | notation.loaded)


def test_search_under_a_sub_path(chromium, under: str):
    with opened(chromium, under, "chapters/04_softmax") as tab:
        tab.locator(".bd-sidebar-primary .search-button__button").click()
        tab.keyboard.type("logsumexp")
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"{under}search.html?q=logsumexp*")
        tab.wait_for_selector("#search-results li a", timeout=10_000)
        first = tab.locator("#search-results li a").first
        assert first.evaluate("(link) => link.href").startswith(under)
        first.click()
        tab.wait_for_selector("article h1")


def test_cells_and_figures_under_a_sub_path(chromium, site: Build, under: str):
    """What a page loads only when it is asked to, by its own scripts: a figure's module, a worker, Pyodide, the library."""
    need_pyodide()
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    try:
        with live(context, under, "chapters/04_softmax") as on:
            on.tab.wait_for_selector(".live-figure svg")
            assert "animal" in on.run(2) and on.state(2) == "done"
            assert on.findings.faults() == []
    finally:
        context.close()


def look_at_unknown(chromium, under: str, address: str) -> Findings:
    """Visit an address that the site does not know; its own page must be whole, and every link of it lead somewhere."""
    found = Findings()
    with opened(chromium, under, address.removesuffix(".html"), findings=found) if address.endswith(".html") else \
            opened(chromium, under, address + "?", findings=found) as tab:
        tab.wait_for_function("document.documentElement.style.visibility === '' && window.bootstrap !== undefined")
        assert tab.locator("article h1").inner_text() == "There is no such page"
        assert tab.evaluate("document.documentElement.dataset.theme") == "light"
        assert tab.evaluate("getComputedStyle(document.querySelector('.bd-sidebar-primary')).position") != "static"  # it has its style
        links = tab.evaluate("[...document.querySelectorAll('a[href]:not([href^=\"#\"])')].map((link) => link.href.split('#')[0])")
        assert len(links) > 2 and all(link.startswith(under) for link in links)
        statuses = tab.evaluate("async (links) => Object.fromEntries(await Promise.all([...new Set(links)].map("
                                "async (link) => [link, (await fetch(link, {method: 'HEAD'})).status])))", links)
        assert set(statuses.values()) == {200}, {link: status for link, status in statuses.items() if status != 200}
        assert tab.evaluate("document.querySelector('#pst-skip-link a').href") == tab.url + "#main-content"
        assert accessibility(tab) == []
        tab.locator(".not-found input[type=search]").fill("softmax")
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"{under}search.html?q=softmax*")
        tab.wait_for_selector("#search-results li a", timeout=10_000)
    assert found.external == []
    return found


@pytest.mark.parametrize("address", UNKNOWN)
def test_unknown_addresses(chromium, under: str, address: str):
    """Nothing but the unknown page itself is missing where its folder is one of the site's or its top; elsewhere the search
    for the top asks each folder above, once."""
    found = look_at_unknown(chromium, under, address)
    tries = [each for each in found.missing if each.endswith("_static/logo.svg")]
    assert len(found.missing) - len(tries) == 1
    assert len(tries) == (3 if address.startswith("no/") else 0)


def test_unknown_page_lists_every_chapter(site: Build):
    text = (site.html / "404.html").read_text(encoding="utf8")
    body = text[text.index('<section class="not-found">'):]
    for page in pages_in_toc()[1:]:
        if page.startswith("chapters/"):
            assert f'data-address="{page}.html"' in body, page


# --- A small book, with an address and without -------------------------------------------------------------------

def small_book(folder: Path, repository: str = "") -> Build:
    """Two pages and a notebook under this book's own settings, at an address."""
    folder.mkdir(exist_ok=True)
    for name in ("_ext", "_static", "_templates", "tools"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy2(ROOT / "references.bib", folder / "references.bib")
    (folder / "chapters").mkdir()
    text = (ROOT / "_config.yml").read_text(encoding="utf8")
    for key, value in (("url", repository), ("branch", "main"), ("baseurl", "")):
        text, found = re.subn(rf"^  {key}: .*$", f'  {key}: "{value}"', text, flags=re.MULTILINE)
        assert found == 1, key
    (folder / "_config.yml").write_text(text, encoding="utf8")
    (folder / "intro.md").write_text("# A small book\n\nIts first paragraph says, in one sentence, what \"this\" page & book hold.\n\n"
                                     "[Softmax](chapters/04_small) {cite}`vaswani2017`\n", encoding="utf8")
    (folder / "chapters" / "04_small.ipynb").write_text(NOTEBOOK, encoding="utf8")
    (folder / "chapters" / "04_small.py").write_text("# %% [markdown]\n# # Small", encoding="utf8")
    (folder / "works.md").write_text("# Works\n\nThe works that are cited here, each with its authors, title and year.\n\n```{bibliography}\n```\n", encoding="utf8")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: intro\nparts:\n  - caption: All\n    numbered: true\n    chapters:\n"
                                     "      - file: chapters/04_small\n      - file: works\n", encoding="utf8")
    return build(folder)


NOTEBOOK = """{"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
 "cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Small <and> short\\n\\nA chapter of one paragraph, which says enough."},
  {"cell_type": "markdown", "id": "b", "metadata": {"tags": ["remove-cell"]}, "source": "HIDDEN ON THE PAGE"}]}"""


@pytest.fixture(scope="module")
def addressed(tmp_path_factory) -> Build:
    return small_book(tmp_path_factory.mktemp("addressed"), HERE)


@pytest.fixture(scope="module")
def unaddressed(tmp_path_factory) -> Build:
    return small_book(tmp_path_factory.mktemp("unaddressed"))


def links(done: Build, page: str) -> dict[str, str]:
    """The entries of a page's menu: words -> address."""
    text = (done.html / f"{page}.html").read_text(encoding="utf8")
    menu = re.search(r'<div class="article-header-buttons">(.*?)</div>', text, re.DOTALL)[1]
    return {re.sub(r"<[^>]*>", "", words).strip(): address.replace("&amp;", "&")
            for address, words in re.findall(r'<a\b[^>]*?href="([^"]*)"[^>]*>(.*?)</a>', menu, re.DOTALL)}


def said(done: Build, page: str) -> dict[str, str]:
    """The card of a page: property -> content."""
    text = (done.html / f"{page}.html").read_text(encoding="utf8")
    return dict(re.findall(r'<meta (?:property|name)="((?:og|twitter):[^"]*)" content="([^"]*)"', text))


def test_without_an_address_nothing_is_missing(unaddressed: Build):
    assert unaddressed.returncode == 0 and "WARNING" not in unaddressed.log, unaddressed.log[-3000:]
    assert links(unaddressed, "intro") == {}
    assert links(unaddressed, "chapters/04_small") == {"Notebook": "../_sources/chapters/04_small.ipynb"}
    for page in ("intro", "chapters/04_small", "index", "404"):
        assert said(unaddressed, page) == {}
        assert 'rel="canonical"' not in (unaddressed.html / f"{page}.html").read_text(encoding="utf8")
    assert not (unaddressed.html / "sitemap.xml").exists()  # there is no address to write
    assert (unaddressed.html / "robots.txt").read_text() == "User-agent: *\nDisallow:\n"
    assert tied(unaddressed.html) == []


def test_the_menu_of_a_page(addressed: Build):
    assert addressed.returncode == 0 and "WARNING" not in addressed.log, addressed.log[-3000:]
    assert links(addressed, "intro") == {
        "Edit this page": f"{HERE}/edit/main/intro.md", "Repository": HERE,
        "Open an issue": f"{HERE}/issues/new?title=%E2%80%9CA%20small%20book%E2%80%9D%3A%20"}
    chapter = links(addressed, "chapters/04_small")
    assert chapter == {
        "Download": "../_sources/chapters/04_small.ipynb",
        "Open in Colab": "https://colab.research.google.com/github/someone/self-attention/blob/main/chapters/04_small.ipynb",
        "Open in Binder": "https://mybinder.org/v2/gh/someone/self-attention/main?urlpath=lab%2Ftree%2Fchapters%2F04_small.ipynb",
        "Edit this page": f"{HERE}/edit/main/chapters/04_small.py",  # not the notebook, which is made from it
        "Open an issue": f"{HERE}/issues/new?title=%E2%80%9CSmall%20%3Cand%3E%20short%E2%80%9D%3A%20", "Repository": HERE}
    assert links(addressed, "search") == {} and links(addressed, "404") == {}
    assert "HIDDEN" not in (addressed.html / "chapters" / "04_small.html").read_text(encoding="utf8")


def test_what_pages_say_about_themselves(addressed: Build):
    for page, title in (("intro", "A small book"), ("chapters/04_small", "4. Small &lt;and&gt; short"), ("works", "2. Works")):
        text, card = (addressed.html / f"{page}.html").read_text(encoding="utf8"), said(addressed, page)
        assert f'<link rel="canonical" href="{THERE}{page}.html" />' in text
        assert (card["og:url"], card["og:title"]) == (f"{THERE}{page}.html", title)
        assert card["og:image"] == f"{THERE}_static/card.png" and (addressed.html / "_static" / "card.png").exists()
    assert said(addressed, "intro")["og:description"] == "Its first paragraph says, in one sentence, what “this” page &amp; book hold."
    assert said(addressed, "index")["og:url"] == f"{THERE}intro.html"  # the address people share
    assert 'rel="canonical"' not in (addressed.html / "404.html").read_text(encoding="utf8")


def test_sitemap_and_robots(addressed: Build):
    tree = ElementTree.parse(addressed.html / "sitemap.xml")
    listed = [each.text for each in tree.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    assert listed == [f"{THERE}{page}.html" for page in ("intro", "chapters/04_small", "works")]
    assert all((addressed.html / unquote(each.removeprefix(THERE))).is_file() for each in listed)
    assert f"\nSitemap: {THERE}sitemap.xml\n" in (addressed.html / "robots.txt").read_text()


def test_with_an_address_the_site_still_works_anywhere(addressed: Build):
    pages = read_all(addressed.html)
    del pages[addressed.html / "404.html"]  # looked at below
    assert tied(addressed.html, THERE) == []
    assert broken(addressed.html, pages) == []
    assert loaded_from_elsewhere(addressed.html, pages) == []


def test_unknown_page_of_an_addressed_site(chromium, addressed: Build):
    """Where it is published its links work without scripts; a copy elsewhere asks nothing of the published one."""
    text = (addressed.html / "404.html").read_text(encoding="utf8")
    assert f'<a href="{THERE}chapters/04_small.html"' in text and f'<form class="bd-search d-flex align-items-center" action="{THERE}search.html"' \
        in re.sub(r"\s+", " ", text)
    noscript = re.findall(r"<noscript>(<link.*?)</noscript>", text)
    assert len(noscript) == 1 and f'href="{THERE}_static/book.css' in noscript[0]
    with host(addressed.html) as under:
        look_at_unknown(chromium, under, "works/gone.html")


def test_the_menu_by_keyboard_and_pointer(chromium, addressed: Build):
    with host(addressed.html) as under:
        for width in (1280, 360):
            found = Findings()
            with opened(chromium, under, "chapters/04_small", width=width, findings=found) as tab:
                summary, entries = tab.locator("details.page-menu > summary"), tab.locator("details.page-menu li a")
                assert not entries.first.is_visible()
                summary.focus()
                tab.keyboard.press("Enter")
                assert entries.count() == 6 and entries.last.is_visible()
                for entry in entries.all():
                    box = entry.bounding_box()
                    assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] >= 24
                assert accessibility(tab) == []
                tab.keyboard.press("Tab")
                assert tab.evaluate("document.activeElement.textContent.trim()") == "Download"
                tab.keyboard.press("Escape")
                assert not entries.first.is_visible()
                assert tab.evaluate("document.activeElement.localName") == "summary"
                summary.click()
                tab.mouse.click(20, 700)
                assert not entries.first.is_visible()
                assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert found.external == found.console == found.missing == []


# --- Addresses, good and bad -------------------------------------------------------------------------------------

GOOD = [  # repository, branch, base address -> repository, published address
    (("", "", ""), ("", "")),
    ((None, None, None), ("", "")),
    ((f"{HERE}/", "", ""), (HERE, THERE)),
    ((f"{HERE}.git", "main", ""), (HERE, THERE)),
    (("https://github.com/Some-One/Some-One.github.io", "main", ""), ("https://github.com/Some-One/Some-One.github.io", "https://some-one.github.io/")),
    ((HERE, "main", "https://book.example.org"), (HERE, "https://book.example.org/")),
    (("", "", "https://example.org/a/b"), ("", "https://example.org/a/b/")),
    (("https://gitlab.com/group/inner/book", "main", ""), ("https://gitlab.com/group/inner/book", "")),
]
BAD = [("github.com/someone/book", "", ""), ("http://github.com/someone/book", "", ""), ("https://github.com/someone", "", ""),
       ("https://github.com/someone/book/tree/main", "", ""), ("git@github.com:someone/book", "", ""), ("https://github.com/OWNER NAME/x", "", ""),
       ("https://github.com/someone/book?x", "", ""), ("https://github.com//book", "", ""), (HERE, "two words", ""), (HERE, "-x", ""),
       (HERE, "main", "example.org/book"), (HERE, "main", "https://example.org/book/index.html"), (HERE, "main", "ftp://example.org/"),
       (HERE, "main", "https://example.org/<x>/")]


@pytest.mark.parametrize(("given", "wanted"), GOOD)
def test_addresses_are_completed(given, wanted):
    found = addresses.read(*given)
    assert (found.repository, found.site) == wanted


@pytest.mark.parametrize("given", BAD)
def test_a_wrong_address_is_named(given):
    with pytest.raises(AddressError, match=r"^_config\.yml, (repository: url|repository: branch|html: baseurl): is .*, expected "):
        addresses.read(*given)


def test_a_wrong_address_stops_the_build(tmp_path):
    done = small_book(tmp_path / "wrong", "github.com/someone/book")
    assert done.returncode != 0 and "repository: url: is 'github.com/someone/book', expected https://github.com/OWNER/REPOSITORY" in done.log


def test_other_hosts_get_what_they_have():
    lab = addresses.read("https://gitlab.com/group/inner/book")
    assert lab.edit("a.md") == "https://gitlab.com/group/inner/book/-/edit/main/a.md"
    assert lab.issue("a b") == "https://gitlab.com/group/inner/book/-/issues/new?issue[title]=a%20b"
    assert lab.colab("a.ipynb") == ""  # it reads from GitHub only
    assert lab.binder("a.ipynb") == "https://mybinder.org/v2/gl/group%2Finner%2Fbook/main?urlpath=lab%2Ftree%2Fa.ipynb"
    own = addresses.read("https://git.example.org/me/book", "try/this")
    assert own.edit("a.md") == own.issue("x") == own.colab("a.ipynb") == own.page("a") == ""
    assert own.binder("a.ipynb") == "https://mybinder.org/v2/git/https%3A%2F%2Fgit.example.org%2Fme%2Fbook/try%2Fthis?urlpath=lab%2Ftree%2Fa.ipynb"


# --- The card, the citation ------------------------------------------------------------------------------------------

def test_the_card_is_what_the_tool_draws():
    """Compared as pictures: 1200 x 630, and all but a few edges of letters equal (another FreeType may draw those otherwise)."""
    import json

    from tools import card

    data = ROOT / "attnlib" / "data"
    tokens = json.loads((data / "minilm.json").read_text(encoding="utf8"))["tokens"]
    with np.load(data / "minilm_heads.npz") as arrays:
        weights = arrays["pronoun/weights"]
    committed = Image.open(ROOT / "_static" / "card.png")
    assert committed.size == card.SIZE == (1200, 630)
    assert (ROOT / "_static" / "card.png").stat().st_size < 300_000
    fresh, there = (np.asarray(each.convert("RGB"), dtype=int) for each in (card.draw(tokens, weights), committed))
    assert (np.abs(fresh - there).max(-1) > 60).mean() < 0.002
    other = np.asarray(card.draw(tokens, np.roll(weights, 1, axis=1)).convert("RGB"), dtype=int)  # another head is another card
    assert (np.abs(other - there).max(-1) > 60).mean() > 0.01


def test_citation_file():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["type"] == "software"
    assert cited["version"] == project["version"] and cited["license"] == project["license"]
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in project["authors"]]
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))
    assert cited["title"] == config["title"] and cited.get("repository-code", "") in ("", config["repository"]["url"])
    allowed = {"cff-version", "message", "title", "abstract", "type", "authors", "version", "license", "keywords", "date-released",
               "repository-code", "url", "references"}
    assert set(cited) <= allowed


# --- Each checker catches what is planted for it -------------------------------------------------------------------

FRAME = '<!doctype html><html lang="en"><head><title>Planted</title>{}</head><body>{}</body></html>'
PLANTED = {
    "a link from the top of the host": ("", '<a href="/chapters/a.html">a</a>', "<a> /chapters/a.html"),
    "a picture from the top": ("", '<img alt="a" src="/_images/a.png">', "<img> /_images/a.png"),
    "a link to the published copy": ("", f'<a href="{THERE}a.html">a</a>', f"<a> {THERE}a.html"),
    "a form": ("", '<form action="/search.html"></form>', "<form> /search.html"),
    "a redirection": ('<meta http-equiv="refresh" content="0; url=/intro.html">', "", "<meta> /intro.html"),
    "a style of the published copy": (f'<link rel="stylesheet" href="{THERE}a.css">', "", f"<link> {THERE}a.css"),
    "a host without a scheme": ("", '<img alt="a" src="//example.org/a.png">', "<img> //example.org/a.png"),
    "a file of this machine": ("", '<a href="file:///a.html">a</a>', "<a> file:///a.html"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_ties_are_caught(tmp_path: Path, name: str):
    head, body, wanted = PLANTED[name]
    (tmp_path / "planted.html").write_text(FRAME.format(head, body), encoding="utf8")
    assert tied(tmp_path, THERE) == [f"planted.html: {wanted}"]


def test_a_tie_in_a_style_sheet_is_caught(tmp_path: Path):
    (tmp_path / "page.html").write_text(FRAME.format(
        f'<link rel="canonical" href="{THERE}page.html" /><meta property="og:url" content="{THERE}page.html" />',
        '<a href="other.html">fine</a><a href="https://example.org/">fine</a>'), encoding="utf8")
    assert tied(tmp_path, THERE) == []
    (tmp_path / "a.css").write_text("a { background: url(/_static/a.png) } b { background: url('b.png') }", encoding="utf8")
    assert tied(tmp_path, THERE) == ["a.css: url(/_static/a.png)"]
