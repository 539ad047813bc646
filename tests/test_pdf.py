"""The printed book: a small site becomes a PDF that is right, and what is wrong is refused; pages of the real site print well."""

import io
import re
from pathlib import Path

import pikepdf
import pypdfium2
import pytest

from _ext.book_offline import mathjax_folder
from tests.pages.book import Build
from tests.pages.book import site as site  # a fixture
from tests.pages.browser import TYPESET, opened, serve
from tests.pages.browser import chromium as chromium  # a fixture
from tools import pdf

ROOT = Path(__file__).resolve().parents[1]

# --- A book of three pages, as the builder writes them -----------------------------------------------------------------------

MENU = """<nav class="bd-links"><ul><li class="toctree-l1"><a href="#">A small book</a></li></ul>
<p class="caption">Part I. Numbers</p><ul><li class="toctree-l1"><a href="chapters/01_one.html">1. One</a></li>
<li class="toctree-l1"><a href="chapters/02_two.html">2. Two</a></li></ul>
<p class="caption">Appendices</p><ul><li class="toctree-l1"><a href="appendix/words.html">Words</a></li>
<li class="toctree-l1"><a href="appendix/api.html">Modules</a></li></ul></nav>"""
SOLUTION = """<div class="cell tag_ex-solution"><details class="hide"><summary><p>Show our solution</p></summary>
<div class="cell_input"><div class="highlight"><pre><span></span>answer = 6 * 7  # kept for the end</pre></div></div></details></div>"""
TEXT = "<p>Long enough to fill some lines of paper, so that what follows is pushed on to later pages. " + "More words. " * 60 + "</p>"
ROW = "<tr>" + "".join(f"<td>column{number:02}</td>" for number in range(12)) + "</tr>"
LONG = "total = " + " + ".join(f"value_{number}" for number in range(40))

SHORT = "short = " + "x" * 40 + " " * 40


def page(title: str, body: str, menu: str = "", up: str = "../") -> str:
    return f"""<!DOCTYPE html><html lang="en" data-theme="dark"><head><title>{title}</title><link rel="stylesheet" href="{up}_static/print.css">
<script>window.MathJax = {{"options": {{"enableMenu": false}}}}</script><script defer src="{up}_static/mathjax/tex-chtml.js"></script></head>
<body>{menu}<article class="bd-article"><section id="top"><h1>{title}<a class="headerlink" href="#top">#</a></h1>{body}</section></article></body></html>"""


def small(folder: Path, **more: str) -> Path:
    """Write the book's pages; `more` adds to one of them."""
    for name in ("chapters", "appendix", "_static"):
        (folder / name).mkdir(parents=True)
    (folder / "_static" / "print.css").write_text((ROOT / "_static" / "print.css").read_text(encoding="utf8"), encoding="utf8")
    (folder / "_static" / "mathjax").symlink_to(mathjax_folder(), target_is_directory=True)
    first = page("A small book", "<p>Begin with <a href='chapters/01_one.html'>one</a>.</p>" + more.get("root", ""), MENU, "")
    (folder / "index.html").write_text(first, encoding="utf8")
    (folder / "chapters" / "01_one.html").write_text(page("1. One", f"""
<p>See <a href="02_two.html#last">the end of two</a> and <a href="../appendix/api.html#x">a module</a>.</p>{TEXT * 6}
<section id="more"><h2>1.1. More<a class="headerlink" href="#more">#</a></h2>{TEXT}<div class="highlight"><pre>{LONG}</pre></div>
<div class="highlight"><pre>{SHORT}<span class="c1"># moves up to its line</span></pre></div>
<details class="sd-dropdown"><summary>Your prediction, then ours</summary><p>It was folded on the page.</p></details></section>
<section id="exercises"><h2>1.2. Exercises</h2><div class="admonition exercise" id="ex-answer"><p class="admonition-title">Exercise 1.1 (Answer)</p>
<p>What is it?</p></div>{SOLUTION}</section>{more.get("one", "")}"""), encoding="utf8")
    (folder / "chapters" / "02_two.html").write_text(page("2. Two", f"""{TEXT * 3}<p>Then <span class="math">\\(e^x\\)</span>:</p>
<div class="math">\\[{" + ".join(f"a_{{{number}}} x^{{{number}}}" for number in range(16))}\\]</div><table>{ROW * 3}</table>
<section id="more"><h2>2.1. More</h2>{TEXT * 5}</section><section id="last"><h2>2.2. Last</h2><p>Back to <a href="01_one.html#more">more</a>.</p></section>
{more.get("two", "")}"""), encoding="utf8")
    (folder / "appendix" / "words.html").write_text(page("Words", "<p>One, two.</p>"), encoding="utf8")
    (folder / "appendix" / "api.html").write_text(page("Modules", "<p id='x'>Not printed.</p>"), encoding="utf8")
    return folder


@pytest.fixture(scope="module")
def book(chromium, tmp_path_factory) -> tuple[bytes, dict]:
    return pdf.printed(chromium, small(tmp_path_factory.mktemp("pdf") / "site"))


def texts(made: bytes) -> list[str]:
    return [sheet.get_textpage().get_text_range() for sheet in pypdfium2.PdfDocument(made)]


def test_every_page_is_there_once_and_in_order(book):
    made, facts = book
    everything = "\n".join(texts(made))
    assert [(entry["level"], entry["title"]) for entry in facts["toc"]] == [
        (0, "About this book"), (0, "Part I. Numbers"), (1, "1. One"), (2, "1.1. More"), (2, "1.2. Exercises"), (1, "2. Two"), (2, "2.1. More"),
        (2, "2.2. Last"), (0, "Appendices"), (1, "Words"), (0, "Solutions"), (1, "1. One")]
    assert "Not printed" not in everything
    assert facts["sheets"] == len(texts(made)) >= 10
    assert "#" not in re.sub(r"# (kept for the end|moves up)", "", everything), "no signs that only a mouse can use"


def test_contents_and_margins_show_the_right_pages(book):
    """Read from the PDF's text alone: the number beside each entry is a page on which the heading stands, and whose head says so."""
    made, facts = book
    read = [pdf.plain(text) for text in texts(made)]
    shown = read[1].removeprefix("2asmallbookcontents")
    for entry in facts["toc"]:
        title = pdf.plain(entry["title"])
        page = facts["places"][entry["id"]]
        assert shown.startswith(f"{title}{page}") and title in read[page - 1], entry
        shown = shown.removeprefix(f"{title}{page}")
    assert shown == ""
    heads = [read[number - 1].startswith((f"{number}asmallbook", f"aboutthisbook{number}", f"1one{number}", f"2two{number}", f"words{number}", f"solutions{number}"))
             for number in range(1, len(read) + 1)]
    assert [number for number, right in enumerate(heads, start=1) if not right] == [
        1, *(facts["places"][entry["id"]] for entry in facts["toc"] if entry["id"].startswith("part-"))], "all but the title and the parts"
    assert f"theendoftwop{facts['places']['chapters-02-two--last']}" in "".join(read), "links to other chapters name the page"


def test_solutions_stand_at_the_end_and_predictions_in_place(book):
    made, facts = book
    read = texts(made)
    back = facts["places"]["solutions"]
    assert not any("kept for the end" in text for text in read[: back - 1])
    assert "kept for the end" in read[back - 1]
    assert f"asolutionisonpage{back}" in pdf.plain("".join(read[: back - 1]))
    assert f"page {facts['places']['chapters-01-one--ex-answer']}" in read[back - 1]
    assert sum("itwasfoldedonthepage" in pdf.plain(text) for text in read) == 1


def test_outline_links_and_metadata(book):
    made, facts = book
    with pikepdf.open(io.BytesIO(made)) as file:
        number = {sheet.objgen: index for index, sheet in enumerate(file.pages, start=1)}
        with file.open_outline() as outline:
            found = []

            def walk(items, level: int) -> None:
                for item in items:
                    found.append((level, item.title, number[item.destination[0].objgen]))
                    walk(item.children, level + 1)

            walk(outline.root, 0)
        assert found == [(0, "Contents", 2)] + [(entry["level"], entry["title"], facts["places"][entry["id"]]) for entry in facts["toc"]]
        links = [str(mark.get("/Dest", "")).lstrip("/") for sheet in file.pages for mark in sheet.get("/Annots", []) if mark.Subtype == "/Link"]
        assert "chapters-02-two--last" in links and "chapters-01-one--more" in links and "solution--chapters-01-one--ex-answer" in links
        assert all(str(name).lstrip("/") in facts["places"] for name in links), "every link ends in the book"
        assert file.docinfo["/Title"] == "A small book" and file.docinfo["/Author"] == pdf.AUTHOR and "/Creator" not in file.docinfo
        assert file.Root.Lang == "en-GB" and file.Root.MarkInfo.Marked and file.Root.PageMode == "/UseOutlines"
        spoken = {str(part.Alt) for part in file.objects if isinstance(part, pikepdf.Dictionary) and part.get("/S") == "/Figure" and "/Alt" in part}
        fonts = {str(name.get("/BaseFont", "")) for name in file.objects if isinstance(name, pikepdf.Dictionary) and name.get("/Type") == "/Font"}
    assert "e^x" in spoken, "formulas have alternative text"
    assert any("SourceSerif" in name for name in fonts) and any("IBMPlexMono" in name for name in fonts)
    assert all("+" in name for name in fonts if name), "every font is embedded, as the part that is used"


def test_nothing_leaves_the_text_block(book):
    """The long line of code wraps and is whole; the wide formula and table shrink to the width of the text. (What leaves it is cut off.)"""
    made, _ = book
    everything = pdf.plain("".join(texts(made)))
    assert pdf.plain(LONG) in everything
    assert any(re.search(r"^short = x{40}\s+# moves up to its line\s*$", text, re.MULTILINE) for text in texts(made)), "a comment comes nearer first"
    assert everything.count("column11") == 3
    for sheet in pypdfium2.PdfDocument(made):
        held, (width, _) = sheet.get_textpage(), sheet.get_size()
        for index in range(held.count_rects()):
            left, bottom, right, top = held.get_rect(index)
            if held.get_text_bounded(left, bottom, right, top).strip():
                assert 70 < left and right < width - 70


def test_american_paper(chromium, tmp_path):
    made, _ = pdf.printed(chromium, small(tmp_path / "site"), "letter")
    assert {tuple(map(round, sheet.get_size())) for sheet in pypdfium2.PdfDocument(made)} == {(612, 792)}


# --- What is wrong is refused, and named --------------------------------------------------------------------------------------


def test_planted_faults(chromium, tmp_path):
    site = small(
        tmp_path / "site",
        root="<p style='margin-left: -12mm'>outside</p>",
        one="<p><a href='02_two.html#gone'>a dead link</a> </p><span class='math'>\\(\\frac\\)</span>",
        two=f"<p style='width: 900px'>far too wide</p><div class='highlight'><pre style='min-width: 900px'>{LONG}</pre></div>")
    with pytest.raises(pdf.Unprintable) as refused:
        pdf.printed(chromium, site)
    said = str(refused.value)
    for part in ("a link to #chapters-02-two--gone leads nowhere", "MathJax: Missing argument for", "reaches from 0 to 900, the text from 0 to 597 px: far", "<p class=\"\"> reaches from -45", "<pre class=\"\"> reaches from 0 to 9"):
        assert part in said, said


def test_a_picture_from_another_host_is_refused(chromium, tmp_path):
    with pytest.raises(pdf.Unprintable, match=r"It was refused https://example\.org/x\.png"):
        pdf.printed(chromium, small(tmp_path / "site", one="<p><img src='https://example.org/x.png' alt=''></p>"))


def test_a_place_that_the_pdf_does_not_name(chromium, tmp_path, monkeypatch):
    places = pdf.places
    monkeypatch.setattr(pdf, "places", lambda made: {name: place for name, place in places(made).items() if name != "chapters-02-two--last"})
    with pytest.raises(pdf.Unprintable, match=r"no page number for chapters-02-two--last\n.*“2\.2\. Last” has no place in the PDF"):
        pdf.printed(chromium, small(tmp_path / "site"))


def test_wrong_page_numbers_are_noticed(book):
    """The check that reads the finished pages: a moved heading, a missing one, and margins that count from elsewhere."""
    made, facts = book
    right = facts["places"]
    assert pdf.check(made, facts["toc"], right) == []
    moved = {**right, "chapters-02-two": right["chapters-02-two"] + 1}
    assert pdf.check(made, facts["toc"], moved) == [f"the contents do not give page {moved['chapters-02-two']} for “2. Two”"] or any(
        "2. Two" in fault for fault in pdf.check(made, facts["toc"], moved))
    del moved["chapters-02-two"]
    assert "“2. Two” has no place in the PDF" in pdf.check(made, facts["toc"], moved)
    with pikepdf.open(io.BytesIO(made)) as file:
        file.add_blank_page()
        del file.pages[2]
        other = io.BytesIO()
        file.save(other)
    said = "\n".join(pdf.check(other.getvalue(), facts["toc"], right))
    assert "is not on page" in said and "at its head" in said and "is empty" in said


def test_without_a_browser_or_a_site(monkeypatch, tmp_path, capsys, chromium):
    old = tmp_path / "book.pdf"
    old.write_bytes(b"the old one")
    with pytest.raises(pdf.Unprintable, match="no built site"):
        pdf.printed(chromium, tmp_path)
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "none"))
    assert pdf.main(["--site", str(tmp_path), "--out", str(old)]) == 1
    assert "There is no Chromium" in capsys.readouterr().err
    monkeypatch.setattr(pdf.importlib.util, "find_spec", lambda name: None)
    assert pdf.main(["--site", str(tmp_path), "--out", str(old)]) == 1
    assert "playwright" in capsys.readouterr().err
    assert old.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [old]


# --- Pages of the real site on paper ------------------------------------------------------------------------------------------

# What a reader sees of each element: its colours, and what is done to pictures.
LOOKS = """() => [...document.querySelectorAll("article, article *")].filter((one) => one.getClientRects().length).map((one) => {
  const { color, backgroundColor, borderTopColor, borderLeftColor, filter, mixBlendMode } = getComputedStyle(one);
  return [one.tagName + "." + (one.className.baseVal ?? one.className), color, backgroundColor, borderTopColor, borderLeftColor, filter, mixBlendMode].join(" ");
})"""
SHOWN = "(selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility({ contentVisibilityAuto: true }) && one.getClientRects().length).length"
HIDDEN = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-area, .bd-footer, .headerlink, .copybtn, .live-bar, .live-figure input, " \
    ".tag_ex-solution pre, #jb-print-docs-body"


CUT = "[...document.querySelectorAll('article pre')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"


def on_paper(tab) -> dict:
    """What a page looks like on A4, printed from a light screen and from a dark one."""
    tab.set_viewport_size({"width": 660, "height": 930})  # A4 less the margins
    looks = {}
    for mode in ("dark", "light"):
        tab.emulate_media(media="print", color_scheme=mode, reduced_motion="reduce")
        tab.wait_for_function("(mode) => document.documentElement.dataset.theme === mode", arg=mode)
        looks[mode] = tab.evaluate(LOOKS)
    return {"same": looks["dark"] == looks["light"], "inverted": any("invert" in look for look in looks["dark"]), "title": tab.evaluate(SHOWN, "article h1"),
            "screen": tab.evaluate(SHOWN, HIDDEN), "answers": tab.evaluate(SHOWN, "details.sd-dropdown .sd-summary-content"), "cut": tab.evaluate(CUT)}


@pytest.mark.parametrize("name", ["chapters/04_softmax", "chapters/21_triton"])
def test_a_page_on_paper(chromium, site: Build, name: str):
    """Printed from a dark screen it looks as from a light one; menus and solutions are gone, folded answers are not; nothing is cut."""
    with serve(site.html) as base, opened(chromium, base, name) as tab:
        tab.evaluate(TYPESET)
        answers = tab.locator("details.sd-dropdown").count()
        assert answers > 2
        assert on_paper(tab) == {"same": True, "inverted": False, "title": 1, "screen": 0, "answers": answers, "cut": 0}
        # Each of these can fail: without the sheet they do.
        tab.evaluate("document.querySelector('link[href*=\"print.css\"]').remove()")
        without = on_paper(tab)
        assert not without["same"] and without["inverted"] and without["screen"] > 0 and without["answers"] == 0 and without["cut"] > 0
