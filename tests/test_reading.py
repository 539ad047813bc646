"""What helps readers along: each page's description, the time a chapter takes, the ticks of what they can do, the way on."""

import contextlib
import gzip
import json
import re
import shutil

import pytest
import yaml
from docutils.core import publish_doctree

from _ext import reading
from tests.guards import reading as guard
from tests.guards import show
from tests.pages.book import GENERATED, ROOT, Build, build, pages_in_toc
from tests.pages.book import site as site  # a fixture
from tests.pages.browser import MODES, TYPESET, accessibility, serve, settle
from tests.pages.browser import chromium as chromium  # a fixture
from tools import chapters
from tools import reading as rule
from tools.chapters import Chapter

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
    """Planted: a page that says what another says. One that says nothing gives its title; front matter comes first."""
    done = small_book(tmp_path, {
        "intro.md": "# Begin\n\nThis sentence stands on two pages, which is one too many for a book.\n",
        "twin.md": "# Twin\n\nThis sentence stands on two pages, which is one too many for a book.\n",
        "mute.md": "# Mute\n\n```\nx = 1\n```\n",
        "given.md": '---\ndescription: "Given \\"by hand\\" & kept."\n---\n\n# Given\n\nThis opening sentence is not what is wanted here, however long it is.\n',
        "meta.md": '---\nmyst:\n  html_meta:\n    description: By html_meta.\n---\n\n# Meta\n\nThis opening sentence is not what is wanted here, however long.\n',
    })
    assert done.returncode != 0
    assert "page twin says about itself what intro says: This sentence stands on two pages" in done.log
    assert done.log.count("says about itself") == 1
    assert said(tmp_path / "_build" / "html", "mute") == ["2. Mute, a page of Self-Attention, Step by Step."]
    assert said(tmp_path / "_build" / "html", "given") == ["Given &quot;by hand&quot; &amp; kept."]
    assert said(tmp_path / "_build" / "html", "meta") == ["By html_meta."]


# --- The time, and what one can do: said in the source ----------------------------------------------------------------

PLANTS = [  # guard, what is replaced in the sample, by what, what must be said
    (guard.time, "**Time** about 5 minutes", "**Time** about 10 minutes", "says that it takes about 10 minutes, the rule gives 5"),
    (guard.time, "**Time** about 5 minutes", "It takes a while", "says its time 0 times"),
    (guard.time, "**Time** about 5 minutes", "**Time** about 5 minutes. **Time** about 5 minutes", "says its time 2 times"),
    (guard.time, "# One.\n", f"# {'One. ' * 1200}\n", "says that it takes about 5 minutes, the rule gives 10"),
    (guard.abilities, "# :::{div} can-do", "# :::{div} other", "has 0 lists"),
    (guard.abilities, "# ## What you can now do", "# ## What you can do", "does not begin with"),
    (guard.abilities, "# - Break one rule.\n", "", "lists 2 abilities, expected 3 to 6"),
    (guard.abilities, "# - Break one rule.\n", "# - Break one rule.\n# - And one.\n# - And two.\n# - And three.\n# - And four.\n", "lists 7 abilities"),
    (guard.abilities, "# - Break one rule.\n", "# - Break one rule.\n# - Break one rule.\n", "lists an ability twice"),
    (guard.abilities, "# - Break one rule.\n", "# - break one rule\n", "is no sentence"),
    (guard.abilities, "# ## Exercises\n", "# Something else.\n", "right before the exercises"),
]


@pytest.fixture
def sample(tmp_path) -> Chapter:
    """The sample chapter's source, which is all that these guards read."""
    (tmp_path / "chapters").mkdir()
    shutil.copy2(ROOT / "tests" / "sample" / "chapters" / "04_sample.py", tmp_path / "chapters")
    return Chapter(tmp_path, "04_sample")


def test_the_sample_is_in_order(sample: Chapter):
    assert guard.time(sample) == guard.abilities(sample) == []


@pytest.mark.parametrize(("check", "old", "new", "message"), PLANTS, ids=[f"{each[0].__name__}: {each[3]}" for each in PLANTS])
def test_planted_in_the_source(sample: Chapter, check, old: str, new: str, message: str):
    text = sample.source.read_text(encoding="utf8")
    assert text.count(old) == 1
    sample.source.write_text(text.replace(old, new), encoding="utf8")
    assert any(message in str(finding) for finding in check(sample)), show(check(sample))


def cell(source: str, kind: str = "markdown", **metadata) -> dict:
    return {"cell_type": kind, "source": source, "metadata": metadata}


COUNTED = {  # what is in a cell -> what is counted
    "words": (cell("Two words, **and** `three` more; it's don't."), {"words": 7}),
    "a heading and a link": (cell("# A title\n\n[a link](https://example.org/a-b-c)"), {"words": 4}),
    "roles": (cell("{term}`attention <it>` {cite:t}`vaswani2017` {numref}`fig-x`"), {"words": 2}),
    "inline formulas": (cell("Let $a = b + c$ and $d$."), {"words": 2, "inline": 2}),
    "a displayed formula": (cell("See\n\n$$a = \\frac{b}{c}$$\n\nand go"), {"words": 3, "displayed": 1}),
    "a prediction": (cell(":::{dropdown} Your prediction\nNothing at all.\n:::"), {"words": 5, "predictions": 1}),
    "a box": (cell(":::{admonition} Before you start\n:class: note\nRead.\n:::"), {"words": 4}),
    "code": (cell("x = 1\n\n# why\nprint(x)\n", "code"), {"lines": 3}),
    "a list of lines, as a file has it": (cell(["x = 1\n", "y = 2"], "code"), {"lines": 2}),
    "a figure": (cell("plt.show()", "code", mystnb={"image": {"alt": "A."}}), {"lines": 1, "figures": 1}),
    "a figure that answers": (cell("from attnlib.widgets.a import A\n\nA()", "code"), {"lines": 2, "figures": 1}),
    "an exercise": (cell("Write `f`, with many words.", tags=["ex:f", "ex-prompt"]), {"exercises": 1}),
    "an open question": (cell("Why?", tags=["ex:why", "ex-prompt", "ex-open"]), {"exercises": 1}),
    "a solution": (cell("def f(): ...", "code", tags=["ex:f", "ex-solution", "hide-cell"]), {}),
    "what the page does not show": (cell("Take the folder.", tags=["remove-cell"]), {}),
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_counted(name: str):
    given, wanted = COUNTED[name]
    assert rule.count([given]) == rule.Counts(**wanted)


def test_minutes_follow_the_rule():
    assert rule.Counts(words=175 * 40).minutes == 40
    assert rule.Counts(words=175 * 40, lines=75, figures=10, predictions=5, displayed=5).minutes == 60  # 40 + 10 + 10
    assert (rule.Counts().minutes, rule.Counts(words=175 * 42).minutes, rule.Counts(words=175 * 43).minutes) == (5, 40, 45)
    assert rule.Counts(words=175 * 40, exercises=50).minutes == 40


def test_the_number_is_written_into_the_source(sample: Chapter, monkeypatch, capsys):
    text = sample.source.read_text(encoding="utf8")
    wrapped = text.replace("**Time** about 5 minutes", "**Time** about\n# 90 minutes, with a break; **20 minutes** for tea")
    sample.source.write_text(wrapped, encoding="utf8")
    monkeypatch.setattr(chapters, "ROOT", sample.root)
    assert rule.main(["--show"]) == 0 and sample.source.read_text(encoding="utf8") == wrapped
    assert rule.main([]) == 0 and sample.source.read_text(encoding="utf8") == wrapped.replace("90 minutes", "5 minutes")
    sample.source.write_text(text.replace("**Time**", "Time"), encoding="utf8")
    assert rule.main([]) == 1 and "it needs one" in capsys.readouterr().err


# --- On the pages -----------------------------------------------------------------------------------------------------

CHAPTERS = [page for page in pages_in_toc() if page.startswith("chapters/")]


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_says_how_long_it_takes(site: Build, page: str):
    """Under its title, and on the title page: the same number as in its box, from the notebook that the page is made of."""
    text = (site.html / f"{page}.html").read_text(encoding="utf8")
    (minutes,) = rule.stated((ROOT / f"{page}.py").read_text(encoding="utf8"))
    words = re.search(r'</h1>\s*<p class="reading-time">(.*?)</p>', text, re.DOTALL)[1]
    count = len(re.findall(r'<div class="exercise admonition"', text))
    assert re.sub("<[^>]*>", "", words) == f"About {minutes} minutes to read · {count} exercises"
    front = (site.html / "intro.html").read_text(encoding="utf8")
    assert re.findall(rf'<li><p><a [^>]*href="{page}\.html">.*?</a> <span class="chapter-list-minutes">(\d+) min<', front) == [str(minutes)]


def test_only_chapters_say_how_long_they_take(site: Build):
    assert [page for page in pages_in_toc() if page not in CHAPTERS
            and "reading-time" in (site.html / f"{page}.html").read_text(encoding="utf8")] == []


def test_previous_and_next(site: Build):
    """In the head and at the foot, in the order of the book; numbers in the titles; the part is named where it changes, only there."""
    pages = pages_in_toc()
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    part = {each["file"]: group["caption"] for group in toc["parts"] for chapter in group["chapters"] for each in (chapter, *chapter.get("sections", ()))}
    for i, page in enumerate(pages):
        text = (site.html / f"{page}.html").read_text(encoding="utf8")
        for rel, other in (("prev", pages[i - 1] if i else None), ("next", pages[i + 1] if i + 1 < len(pages) else None)):
            links = re.findall(rf'<link rel="{rel}" title="([^"]*)" href="([^"]*)"', text)
            shown = re.findall(rf'<a class="[^"]*" rel="{rel}" href="([^"]*)">(.*?)</a>', text, re.DOTALL)
            assert len(links) == len(shown) == (other is not None), (page, rel)
            if other is None:
                continue
            (title, address), (there, inside) = links[0], shown[0]
            assert address == there and (site.html / page).parent.joinpath(there).resolve() == (site.html / f"{other}.html").resolve()
            lines = [" ".join(re.sub("<[^>]*>", "", each).split()) for each in re.findall(r"<p\b.*?</p>", inside, re.DOTALL)]
            named = [part[other]] if other in part and part[other] != part.get(page) else []
            assert lines == [{"prev": "previous", "next": "next"}[rel], *named, title], (page, rel)
            if number := re.match(r"chapters/0*(\d+)_", other):
                assert title.startswith(f"{number[1]}. ")


# --- Ticks, in a browser ----------------------------------------------------------------------------------------------

FOUR, FIVE = "chapters/04_softmax", "chapters/05_self_attention"
BOXES = ".can-do input[type=checkbox]"


@pytest.fixture(scope="module")
def base(site: Build):
    with serve(site.html) as address:
        yield address


@contextlib.contextmanager
def reader(chromium, base: str, **settings):
    """One reader's browser: tabs that share what is kept, every complaint noted; `open(page)` gives a tab."""
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **settings})
    said: list[str] = []

    def open_(page: str, tab=None):
        if tab is None:
            tab = context.new_page()
            tab.on("pageerror", lambda error: said.append(str(error)))
            tab.on("console", lambda line: line.type in ("error", "warning") and said.append(line.text))
            tab.on("request", lambda asked: asked.url.startswith((base, "data:", "blob:")) or said.append(asked.url))
        tab.goto(f"{base}{page}.html", wait_until="load")
        tab.evaluate(TYPESET)
        return tab

    try:
        yield open_, said
    finally:
        context.close()


def marks(tab, where: str = ".bd-sidebar-primary") -> dict[str, str]:
    """The chapters that are marked, by file name -> what is said beside them."""
    return tab.evaluate("""(where) => Object.fromEntries([...document.querySelectorAll(where + " .can-do-mark")].map((mark) =>
        [(mark.closest("li").querySelector("a").href.split("/").pop() || "").replace(/[.]html.*$/, ""), mark.textContent.trim()]))""", where)


def see(tab, where: str, wanted: dict[str, str]) -> None:
    """Wait until the marks are these: the list of all abilities is asked for only when something is ticked."""
    for _ in range(40):
        if marks(tab, where) == wanted:
            return
        tab.wait_for_timeout(50)
    assert marks(tab, where) == wanted


@pytest.mark.parametrize("width", [1280, 360])
def test_ticks_are_kept_and_shown(chromium, base: str, width: int):
    """Tick by keyboard and by finger, reload, go on, see them on the title page, forget them, bring them back."""
    with reader(chromium, base, viewport={"width": width, "height": 800}, has_touch=True) as (open_, said):
        tab = open_(FOUR)
        boxes = tab.locator(BOXES)
        count = boxes.count()
        assert 3 <= count <= 6 and tab.locator(f"{BOXES}:checked").count() == 0
        assert marks(tab) == {} and tab.locator(".can-do-status").inner_text().startswith("Tick what you can do.")
        boxes.nth(0).focus()
        tab.keyboard.press("Space")
        tab.locator(".can-do label").nth(2).tap()
        assert [box.is_checked() for box in boxes.all()] == [True, False, True] + [False] * (count - 3)
        assert tab.locator(".can-do-status").inner_text() == f"2 of {count}. Ticks are kept in this browser only."
        assert tab.locator(".can-do-status").get_attribute("role") == "status"
        see(tab, ".bd-sidebar-primary", {"04_softmax": f"2 of {count}"})
        open_(FOUR, tab)
        assert [box.is_checked() for box in tab.locator(BOXES).all()][:3] == [True, False, True]
        open_(FIVE, tab)
        assert tab.locator(f"{BOXES}:checked").count() == 0
        see(tab, ".bd-sidebar-primary", {"04_softmax": f"2 of {count}"})
        open_("intro", tab)
        see(tab, ".chapter-list", {"04_softmax": f"2 of {count}"})
        forget = tab.locator(".can-do-forget button")
        assert forget.inner_text() == "Forget all ticks"
        forget.click()
        see(tab, ".chapter-list", {})
        assert marks(tab) == {} and tab.evaluate("localStorage.length") == len(theme_keys(tab))
        assert "forgotten" in tab.locator(".can-do-forget [role=status]").inner_text()
        forget.click()  # Bring them back
        see(tab, ".chapter-list", {"04_softmax": f"2 of {count}"})
        forget.click()
        open_(FOUR, tab)
        assert tab.locator(f"{BOXES}:checked").count() == 0 and marks(tab) == {}
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert said == []


def theme_keys(tab) -> list[str]:
    """What the theme itself keeps."""
    return tab.evaluate("Object.keys(localStorage).filter((key) => !key.startsWith('can-do:'))")


def test_tabs_agree(chromium, base: str):
    with reader(chromium, base) as (open_, said):
        one, other, front = open_(FOUR), open_(FOUR), open_("intro")
        one.locator(BOXES).nth(1).check()
        other.wait_for_function(f"document.querySelectorAll('{BOXES}')[1].checked")
        see(front, ".chapter-list", {"04_softmax": f"1 of {one.locator(BOXES).count()}"})
        other.locator(BOXES).nth(0).check()
        one.wait_for_function(f"document.querySelectorAll('{BOXES}')[0].checked")
        front.locator(".can-do-forget button").click()
        one.wait_for_function(f"document.querySelectorAll('{BOXES}:checked').length === 0")
        assert said == []


def test_ticks_stay_with_their_words(chromium, base: str):
    """Another order of the items moves no tick; words that are gone, and spoilt storage, count for nothing."""
    with reader(chromium, base) as (open_, said):
        tab = open_(FOUR)
        tab.locator(BOXES).nth(0).check()
        words = tab.locator(".can-do label").nth(0).inner_text()
        (key,) = tab.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('can-do:'))")
        tab.route(f"**/{FOUR}.html", lambda route: route.fulfill(body=turned_round(route.fetch().text()), content_type="text/html"))
        open_(FOUR, tab)
        (ticked,) = [each.inner_text() for each in tab.locator(".can-do li:has(:checked) label").all()]
        assert ticked == words and not tab.locator(BOXES).nth(0).is_checked() and tab.locator(BOXES).last.is_checked()
        tab.unroute(f"**/{FOUR}.html")
        for spoilt, wanted in (('["chapters/04_softmax#can-do-gone", "no/such/page#x", 7]', {}), ("{", {}), ("7", {}), ("null", {})):
            tab.evaluate("([key, value]) => localStorage.setItem(key, value)", [key, spoilt])
            open_(FOUR, tab)
            assert tab.locator(f"{BOXES}:checked").count() == 0 and marks(tab) == wanted
        tab.locator(BOXES).nth(1).check()
        see(tab, ".bd-sidebar-primary", {"04_softmax": f"1 of {tab.locator(BOXES).count()}"})
        assert said == []


def turned_round(page: str) -> str:
    start, end = page.index('<li id="can-do-'), page.index("</ul>", page.index('<li id="can-do-'))
    return page[:start] + "".join(reversed(re.findall(r"<li id=.*?</li>\s*", page[start:end], re.DOTALL))) + page[end:]


def test_the_list_of_all_abilities_is_asked_for_when_something_is_ticked(chromium, base: str):
    with reader(chromium, base) as (open_, said):
        tab, asked = open_(FOUR), []
        tab.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[-1].split("?")[0]))
        for page in (FIVE, "intro", FOUR):
            open_(page, tab)
            settle(tab)
        assert "progress.mjs" in asked and "abilities.json" not in asked
        tab.locator(BOXES).nth(0).check()
        see(tab, ".bd-sidebar-primary", {"04_softmax": f"1 of {tab.locator(BOXES).count()}"})
        tab.locator(BOXES).nth(1).check()
        settle(tab)
        assert asked.count("abilities.json") == 1 and said == []


def test_two_copies_on_one_host_do_not_mix(chromium, site: Build, tmp_path):
    (tmp_path / "one").symlink_to(site.html), (tmp_path / "two").symlink_to(site.html)
    with serve(tmp_path) as host, reader(chromium, host) as (open_, said):
        open_(f"one/{FOUR}").locator(BOXES).nth(0).check()
        assert open_(f"one/{FOUR}").locator(f"{BOXES}:checked").count() == 1
        assert open_(f"two/{FOUR}").locator(f"{BOXES}:checked").count() == 0 and said == []


@pytest.mark.parametrize("fails", ["getItem", "setItem", "localStorage"])
def test_without_storage_boxes_work_for_the_visit(chromium, base: str, fails: str):
    plant = ("const theirs = Storage.prototype.{0}; Storage.prototype.{0} = function (key, ...rest) {{"
             " if (String(key).startsWith('can-do:')) throw new DOMException('planted', 'SecurityError'); return theirs.call(this, key, ...rest); }}")
    if fails == "localStorage":  # as where a reader has forbidden it; the theme's own scripts complain, so give them one that keeps nothing
        plant = ("Object.defineProperty(window, 'localStorage', {get: () => {"
                 " if (/progress[.]mjs/.test(new Error().stack)) throw new DOMException('planted', 'SecurityError'); return {getItem: () => null, setItem() {}, removeItem() {}}; }})")
    with reader(chromium, base) as (open_, said):
        tab = open_("404")
        tab.add_init_script(plant.format(fails) if fails != "localStorage" else plant)
        said.clear()
        open_(FOUR, tab)
        for i in (0, 1):
            tab.locator(BOXES).nth(i).check()
        tab.locator(BOXES).nth(0).uncheck()
        assert [box.is_checked() for box in tab.locator(BOXES).all()][:2] == [False, True]
        assert "until you leave the page" in tab.locator(".can-do-status").inner_text()
        see(tab, ".bd-sidebar-primary", {"04_softmax": f"1 of {tab.locator(BOXES).count()}"})
        assert said == []


def test_without_script_a_plain_list(chromium, base: str):
    context = chromium.new_context(java_script_enabled=False)
    try:
        tab = context.new_page()
        tab.goto(f"{base}{FOUR}.html")
        items = tab.locator(".can-do li")
        assert 3 <= items.count() <= 6 and tab.locator(".can-do input").count() == 0
        assert all(len(each.inner_text()) > 20 for each in items.all()) and tab.locator(".can-do-status").inner_text() == ""
        tab.goto(f"{base}intro.html")
        assert tab.locator(".can-do-forget").inner_text() == "" and tab.locator(".chapter-list li").count() == len(CHAPTERS)
    finally:
        context.close()


def test_nothing_moves_when_ticks_are_shown(chromium, base: str):
    """Boxes, words and marks come into room that is kept for them: no element of the page changes its place, with ticks or without."""
    places = """() => [...document.querySelectorAll("article :is(h1, h2, p, li, div, pre), .bd-sidebar-primary a")]
        .filter((each) => !each.closest(".can-do p, mjx-container, .live-figure") && !each.matches(".can-do p, .can-do-forget")).map((each) => {
            const { x, y, width } = each.getBoundingClientRect(), beginning = each.closest("article, .bd-sidebar-primary").querySelector("h1, .toctree-l1 a");
            return [each.textContent.trim().slice(0, 12), Math.round(x), Math.round(y - beginning.getBoundingClientRect().y), Math.round(width)]; })"""
    for page in ("intro", FOUR):
        for width in (1280, 360):
            seen = []
            for script, ticked, planted in ((False, False, False), (True, False, False), (True, True, False), (True, True, page == "intro")):
                with reader(chromium, base, viewport={"width": width, "height": 800}) as (open_, _):
                    tab = open_("404")
                    tab.route("**/progress.mjs*", lambda route, script=script: route.continue_() if script else route.abort())
                    if ticked:
                        tab.evaluate("""async (base) => { const all = await (await fetch(base + "_static/reading/abilities.json")).json();
                            localStorage.setItem("can-do:" + new URL(base).pathname, JSON.stringify(Object.entries(all).flatMap(([page, items]) => items.map((item) => page + "#" + item)))); }""", base)
                    open_(page, tab)
                    if planted:
                        tab.add_style_tag(content=".can-do-forget { min-height: 0; }")
                    if ticked:
                        tab.wait_for_selector(".bd-sidebar-primary .can-do-mark", state="attached")
                    settle(tab)
                    seen.append(tab.evaluate(places))
            assert len(seen[0]) > 40
            plain, *others = [[each[1:] for each in places_seen] for places_seen in seen]
            assert others[0] == others[1] == plain, (page, width)
            assert (others[2] == plain) == (page != "intro"), "planted: no room is kept for the button"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", [1280, 360])
def test_ticked_pages_are_accessible(chromium, base: str, width: int, mode: str):
    with reader(chromium, base, viewport={"width": width, "height": 800}, color_scheme=mode) as (open_, said):
        tab = open_(FOUR)
        tab.locator(BOXES).nth(0).focus()
        tab.keyboard.press("Space")
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.id") == tab.locator(BOXES).nth(1).get_attribute("id")
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        for box in tab.locator(BOXES).all():
            assert tab.evaluate("(id) => document.querySelector(`label[for='${id}']`).textContent.trim().length > 20", box.get_attribute("id"))
        see(tab, ".bd-sidebar-primary", {"04_softmax": f"1 of {(count := tab.locator(BOXES).count())}"})
        assert accessibility(tab) == []
        open_("intro", tab)
        see(tab, ".chapter-list", {"04_softmax": f"1 of {count}"})
        assert accessibility(tab) == [] and said == []


def test_on_paper_the_boxes_are_empty(chromium, base: str):
    with reader(chromium, base) as (open_, _):
        tab = open_(FOUR)
        tab.locator(BOXES).nth(0).check()
        tab.emulate_media(media="print")
        assert not tab.locator(BOXES).nth(0).is_visible() and not tab.locator(".can-do-status").is_visible()
        box = tab.evaluate("getComputedStyle(document.querySelector('.can-do li'), '::before')['borderTopStyle']")
        assert box == "solid" and tab.locator(".can-do-mark").count() > 0 and not tab.locator(".can-do-mark").first.is_visible()


def test_the_scripts_weigh_little(site: Build):
    """What this adds to every page, gzipped: below 4 kB of script and style, and the script blocks nothing. The list is data, asked for on demand."""
    weight = {name: len(gzip.compress((site.html / "_static" / name).read_bytes(), 9))
              for name in ("reading/progress.mjs", "reading.css", "reading/abilities.json")}
    print(weight)
    assert weight["reading/progress.mjs"] + weight["reading.css"] < 4000
    known = json.loads((site.html / "_static" / "reading" / "abilities.json").read_text(encoding="utf8"))
    assert list(known) == CHAPTERS and all(3 <= len(items) == len({*items}) <= 6 for items in known.values())
    text = (site.html / f"{FOUR}.html").read_text(encoding="utf8")
    assert re.findall(r'id="(can-do-[0-9a-f]{6})"', text) == known[FOUR]
    assert re.search(r'<script[^>]*type="module"[^>]*progress\.mjs', text)


@pytest.mark.parametrize("width", [1200, 1280, 1440])
def test_the_text_does_not_wait_for_the_contents_beside_it(chromium, base: str, width: int):
    """The page's own contents stand behind the text in the file; until they have come, the text is as wide as it will be. Planted: no room kept."""
    article = "document.querySelector('article').getBoundingClientRect().width"
    with reader(chromium, base, viewport={"width": width, "height": 800}) as (open_, _):
        tab = open_(FOUR)
        final = tab.evaluate(article)
        tab.evaluate("document.querySelector('.bd-sidebar-secondary').remove()")
        assert tab.evaluate(article) == final
        if width < 1300:
            tab.add_style_tag(content=".bd-main .bd-content .bd-article-container { max-width: 50rem !important; }")
            assert tab.evaluate(article) > final
