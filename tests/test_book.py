"""The book builds from its tracked files with no warning at all, and a planted fault stops it."""

import importlib
import json
import re
import shutil
import textwrap

import numpy as np
import pytest

import attnlib
from tests.pages.book import GENERATED, ROOT, Build, build, own_addresses, pages_in_toc
from tests.pages.book import site as site  # a fixture
from tests.pages.links import broken, loaded_from_elsewhere, read_all


def test_builds_without_a_warning(site: Build):
    """PyTorch and matplotlib cannot be imported during this build, so it shows that they are not needed."""
    assert site.returncode == 0, site.log[-6000:]
    assert "WARNING" not in site.log, site.log[-6000:]


def test_every_page_is_there(site: Build):
    built = {str(path.relative_to(site.html).with_suffix("")) for path in read_all(site.html)}
    assert built - {"index"} == {*pages_in_toc(), *GENERATED}


def test_links_and_anchors_lead_somewhere(site: Build):
    assert broken(site.html, read_all(site.html)) == []


def test_nothing_is_loaded_from_elsewhere(site: Build):
    assert loaded_from_elsewhere(site.html, read_all(site.html), own_addresses().site) == []


def test_every_figure_is_described(site: Build):
    """In the finished pages too, whatever wrote the image. Only the logo, beside its own name, says nothing."""
    for path, page in read_all(site.html).items():
        for address, alt in page.images:
            if address.endswith("_static/logo.svg") or (path.name == "404.html" and address.startswith("data:image/svg+xml")):
                assert alt == ""
            else:
                assert alt and not re.search(r"\.(png|svg|jpe?g)$", alt) and "/" not in alt.split()[0], (path, address)


def test_no_title_repeats_its_number(site: Build):
    """The table of contents numbers the chapters; a heading '4 · Softmax' would read '4. 4 · Softmax'."""
    text = (site.html / "intro.html").read_text(encoding="utf8")
    titles = re.findall(r'<li class="toctree-l[12][^"]*"><a[^>]*>\s*(.*?)\s*</a>', text, re.DOTALL)
    assert len(titles) >= len(pages_in_toc()) - 1
    assert [title for title in titles if re.match(r"\d+\. *\d", title)] == []


@pytest.mark.parametrize("chapter", [page for page in pages_in_toc() if page.startswith("chapters/")])
def test_the_notebook_offered_is_the_chapter(site: Build, chapter: str):
    page = read_all(site.html)[site.html / f"{chapter}.html"]
    (address,) = {address for tag, address in page.links if tag == "a" and address.endswith(".ipynb") and "://" not in address}
    offered = (site.html / chapter).parent / address
    assert offered.resolve().read_bytes() == (ROOT / f"{chapter}.ipynb").read_bytes()


def test_the_title_page_says_what_the_data_say():
    """intro.md describes the picture in words: falls by more than half, to [CLS], street still behind animal."""
    data = ROOT / "attnlib" / "data"
    tokens = json.loads((data / "minilm.json").read_text(encoding="utf8"))["tokens"]
    with np.load(data / "minilm_heads.npz") as arrays:
        tired, wide = (arrays[f"pronoun/{name}"][tokens.index("it")] for name in ("weights", "weights_wide"))
    at = tokens.index
    freed = tired[at("animal")] - wide[at("animal")]
    assert wide[at("animal")] < tired[at("animal")] / 2
    assert wide[at("[CLS]")] - tired[at("[CLS]")] > freed / 2
    assert wide[at("street")] < wide[at("animal")]
    assert ":query: 10" in (ROOT / "intro.md").read_text(encoding="utf8") and tokens[10] == "it"


def test_the_library_page_leaves_no_room_out():
    """A page for every room of attnlib, a folder as one, but for the files that hold one chapter's figures; it shows all that is public."""
    pages = {page.stem: page.read_text(encoding="utf8") for page in (ROOT / "appendix" / "api").glob("*.md")}
    named = {name for text in pages.values() for name in re.findall(r"automodule:: (attnlib\.\S+)", text)}
    assert {f"](api/{page}.md)" for page in pages} == set(re.findall(r"\]\(api/\w+\.md\)", (ROOT / "appendix" / "api.md").read_text(encoding="utf8")))
    map_lines = re.findall(r"^(\w+)  +(\S.*?)  +\S.*$", attnlib.__doc__, re.MULTILINE)[1:]
    for room, what in map_lines:  # the map of the package and that of the page say the same
        assert f"(api/{room}.md) | {what} |" in (ROOT / "appendix" / "api.md").read_text(encoding="utf8"), room
    assert {room for room, _ in map_lines} | {"coursework"} == set(pages)
    rooms = {path.relative_to(ROOT).with_suffix("") for path in (ROOT / "attnlib").rglob("*.py")}
    rooms = {room.parent if room.name == "__init__" else room for room in rooms}
    names = {".".join(room.parts[:2]) for room in rooms if not any(part.startswith("_") for part in room.parts)}
    assert named == names - {"attnlib", "attnlib.plots"} | {"attnlib.plots.style"}
    for room in named - {"attnlib.plots.style"}:
        module = importlib.import_module(room)
        public = {name for name, each in vars(module).items()
                  if not name.startswith("_") and getattr(each, "__module__", "").startswith(f"{room}.")}
        assert public <= {*module.__all__}, f"{room} imports what its page does not show"


def test_bibliography_keys_and_years():
    """A key is surname and year, the year is that of the arXiv number."""
    entries = re.findall(r"@\w+\{(\w+),(.*?)\n\}", (ROOT / "references.bib").read_text(encoding="utf8"), re.DOTALL)
    assert len(entries) == len({key for key, _ in entries})
    for key, fields in entries:
        assert re.fullmatch(r"[a-z]+\d{4}[a-c]?", key), key
        number = re.search(r"eprint = \{(\d\d)\d\d\.\d{4,5}\}", fields)
        year = re.search(r"year = \{(\d{4})\}", fields).group(1)
        assert year in key, key
        assert number is None or f"20{number.group(1)}" == year, key
    eprints = re.findall(r"eprint = \{([\d.]+)\}", (ROOT / "references.bib").read_text(encoding="utf8"))
    assert len(eprints) == len(set(eprints))


# --- A small book with this book's own settings, in which faults are planted ------------------------------------

SOUND = {"intro.md": "# A small book\n\nSee [the other page](other.md) {cite}`vaswani2017`.\n",
         "other.md": "# Other\n\n```{image} _static/logo.svg\n:alt: A causal matrix.\n```\n\n```{bibliography}\n```\n"}
FAULTS = {  # text of the page, what the build must say
    "reference": ("{ref}`nowhere`", "undefined label"),
    "link": ("[gone](no_such_page.md)", "no_such_page"),
    "anchor": ("[gone](#no-such-heading)", "no-such-heading"),
    "citation": ("{cite}`nobody1900`", "nobody1900"),
    "term": ("{term}`no such word`", "no such word"),
    "no alt": ("```{image} _static/logo.svg\n```", "has no alt text"),
    "empty alt": ('<img src="_static/logo.svg" alt="">', "empty alt text"),
    "path as alt": ("```{image} _static/logo.svg\n:alt: _static/logo.svg\n```", "file name for alt"),
}
NOTEBOOK_WITHOUT_ALT = {
    "nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Notebook"},
        {"cell_type": "code", "id": "b", "metadata": {}, "source": "figure", "execution_count": 1, "outputs": [
            {"output_type": "display_data", "metadata": {}, "data": {"image/png":
             "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="}}]},
    ],
}


def small_book(folder, pages: dict[str, str]) -> Build:
    for name in ("_config.yml", "references.bib"):
        shutil.copy2(ROOT / name, folder / name)
    for name in ("_ext", "_static", "_templates", "tools"):
        shutil.copytree(ROOT / name, folder / name)
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf8")
    files = "".join(f"      - file: {name.rsplit('.', 1)[0]}\n" for name in pages if name != "intro.md")
    (folder / "_toc.yml").write_text(
        f"format: jb-book\nroot: intro\nparts:\n  - caption: All\n    chapters:\n{files}", encoding="utf8")
    return build(folder)


def test_a_sound_small_book_builds(tmp_path):
    done = small_book(tmp_path, SOUND)
    assert done.returncode == 0, textwrap.shorten(done.log[-3000:], 3000)


def test_planted_faults_stop_the_build(tmp_path):
    """All in one build, each on its own page, each named by the log."""
    pages = {f"fault_{i}.md": f"# Fault {i}\n\n{text}\n" for i, (text, _) in enumerate(FAULTS.values())}
    done = small_book(tmp_path, {**SOUND, **pages, "figure.ipynb": json.dumps(NOTEBOOK_WITHOUT_ALT)})
    assert done.returncode != 0
    for i, (fault, (_, said)) in enumerate(FAULTS.items()):
        named = [line for line in done.log.splitlines() if f"fault_{i}.md" in line and "WARNING" in line]
        assert any(said in line for line in named), (fault, named)
    assert re.search(r"figure\.ipynb.*WARNING.*has no alt text", done.log)


def test_one_broken_reference_is_enough(tmp_path):
    """With keep-going the build finishes; its exit code must still say that it failed."""
    done = small_book(tmp_path, {**SOUND, "fault.md": "# Fault\n\n{ref}`nowhere`\n"})
    assert done.returncode != 0 and "undefined label" in done.log


def test_a_dead_link_and_a_foreign_script_are_caught(tmp_path):
    """The checkers of finished pages, on a page with one fault of each kind."""
    (tmp_path / "page.html").write_text(
        '<a href="gone.html">x</a><a href="#nowhere">x</a><a id="here" href="#here">x</a><img src="gone.png" alt="x">'
        '<a href="https://example.org/">only a link</a><script src="https://example.org/a.js"></script>')
    pages = read_all(tmp_path)
    assert [fault.split(": ")[1].split(" leads")[0] for fault in broken(tmp_path, pages)] == [
        "<a> gone.html", "<a> #nowhere", "<img> gone.png"]
    assert loaded_from_elsewhere(tmp_path, pages) == ["page.html: <script> https://example.org/a.js"]


def test_a_chapter_has_the_number_of_its_file(site: Build):
    """Parts that are not written yet leave a gap, on the page, in the menu and in the names of figures."""
    menu = (site.html / "intro.html").read_text(encoding="utf8")
    chapters = [page for page in pages_in_toc() if page.startswith("chapters/")]
    assert chapters
    for page in chapters:
        number = int(page.removeprefix("chapters/")[:2])
        text = (site.html / f"{page}.html").read_text(encoding="utf8")
        assert re.search(rf'<h1><span class="section-number">{number}\. ?</span>', text), page
        assert f'caption-number">Figure {number}.1 ' in text, page
        assert re.search(rf'href="{page}\.html">\s*{number}\. ', menu), page
