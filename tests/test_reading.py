"""What helps readers along: each page's description, the time a chapter takes, the ticks of what they can do, the way on."""

import re
import shutil

import pytest
from docutils.core import publish_doctree

from _ext import reading
from tests.pages.book import GENERATED, ROOT, Build, build, pages_in_toc
from tests.pages.book import site as site  # a fixture

# --- Descriptions ---------------------------------------------------------------------------------------------------


def said(html, page: str) -> list[str]:
    """Every description that a page gives."""
    tags = re.findall(r'<meta\b[^>]*\bname="description"[^>]*>', (html / f"{page}.html").read_text(encoding="utf8"))
    return [re.search(r'content="([^"]*)"', tag)[1] for tag in tags]


def test_every_page_describes_itself_alone(site: Build):
    found = {page: said(site.html, page) for page in [*pages_in_toc(), *GENERATED]}
    assert [page for page, texts in found.items() if len(texts) != 1] == []
    texts = {page: texts[0] for page, texts in found.items()}
    assert len(set(texts.values())) == len(texts)
    assert said(site.html, "index") == said(site.html, pages_in_toc()[0])  # it leads there
    assert {page: text for page, text in texts.items() if not 50 <= len(text.replace("&amp;", "&")) <= 160 or text[-1] not in ".?!…"} == {}
    assert {page: text for page, text in texts.items() if re.search(r"[\\$`{}\0]|\w\(\)|->|==|:math:", text)} == {}, "code or TeX"


LONG = "This sentence is far too long for a description, since it goes on, and on, with one clause after another, until nobody who reads " \
    "a page of results would still follow it; and here it ends."
OPENINGS = {  # text of a page -> its description
    "one sentence": ("It says enough about what this page is for, in one plain sentence.", "It says enough about what this page is for, in one plain sentence."),
    "as many as fit": (f"A first sentence of a page that says what it is. {'A second one. ' * 9}",
                       f"A first sentence of a page that says what it is.{' A second one.' * 8}"),
    "too long": (LONG, "This sentence is far too long for a description, since it goes on, and on, with one clause after another…"),
    "short, then too long": (f"Short. {LONG}", "Short. This sentence is far too long for a description, since it goes on, and on, with one clause after another…"),
    "long enough, then too long": (f"These are eighty characters and more, so that nothing needs to be added to them here. {LONG}",
                                   "These are eighty characters and more, so that nothing needs to be added to them here."),
    "a formula": ("The first has one, :math:`x^2`, and is left out. So is what follows.\n\nThe next paragraph has none, and is what we see of this page.",
                  "The next paragraph has none, and is what we see of this page."),
    "code": ("Call ``softmax(x)`` and be happy.\n\nThe next paragraph has ``attnlib`` in it, which is a name, and can be read.",
             "The next paragraph has attnlib in it, which is a name, and can be read."),
    "a sentence, then code": ("This sentence says enough about the page to stand alone. Call ``softmax(x)``.\n\nNot this.",
                              "This sentence says enough about the page to stand alone."),
    "what leads over to a table": ("This one leads over to something that is not there:\n\nThis one says what the page is for, and can stand alone.",
                                   "This one says what the page is for, and can stand alone."),
    "a box": (".. note:: This stands in a box, is long enough for it, and is not how the page opens.\n\nThis is how the page opens: with a sentence of its own.",
              "This is how the page opens: with a sentence of its own."),
    "a quotation": ("“Attention is quadratic.” Both sides of this argument are right and neither of them tells you what to do.",
                    "“Attention is quadratic.” Both sides of this argument are right and neither of them tells you what to do."),
    "nothing": (".. code::\n\n   x = 1", ""),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_how_a_page_opens(name: str):
    text, wanted = OPENINGS[name]
    assert reading.opening(publish_doctree(f"Title\n=====\n\n{text}\n")) == wanted


def small_book(folder, pages: dict[str, str]) -> Build:
    """Pages under this book's own settings; each path is a file, the first one is the root."""
    for name in ("_ext", "_static", "_templates", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("references.bib", "_config.yml"):
        shutil.copy2(ROOT / name, folder / name)
    for name, text in pages.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf8")
    root, *others = (name.rsplit(".", 1)[0] for name in pages if not name.endswith(".py"))
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: {root}\nparts:\n  - caption: Part I. All\n    numbered: true\n    chapters:\n"
                                     + "".join(f"      - file: {name}\n" for name in others), encoding="utf8")
    return build(folder)


def test_planted_descriptions_stop_the_build(tmp_path):
    """Planted: a page that says what another says, and one that says nothing. Front matter comes first; a quotation mark is no end."""
    done = small_book(tmp_path, {
        "intro.md": "# Begin\n\nThis sentence stands on two pages, which is one too many for a book.\n",
        "twin.md": "# Twin\n\nThis sentence stands on two pages, which is one too many for a book.\n",
        "mute.md": "# Mute\n\n```\nx = 1\n```\n",
        "given.md": '---\ndescription: "Given \\"by hand\\" & kept."\n---\n\n# Given\n\nThis opening sentence is not what is wanted here, however long it is.\n',
        "meta.md": '---\nmyst:\n  html_meta:\n    description: By html_meta.\n---\n\n# Meta\n\nThis opening sentence is not what is wanted here, however long.\n',
    })
    assert done.returncode != 0
    assert "page twin says about itself what intro says: This sentence stands on two pages" in done.log
    assert "page mute has no description" in done.log
    assert "page given" not in done.log and "page meta" not in done.log
    assert said(tmp_path / "_build" / "html", "given") == ["Given &quot;by hand&quot; &amp; kept."]
    assert said(tmp_path / "_build" / "html", "meta") == ["By html_meta."]
