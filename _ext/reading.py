"""What helps a reader find and follow the book.

- Each page says in a sentence what it is (`<meta name="description">`).
- Each chapter says under its title how long it takes to read, by the rule in `tools.reading`, and how many exercises it has.
- The list in a chapter's ``:::{div} can-do`` gets an address for each of its items; `reading/progress.mjs` makes them boxes to tick.
- ``{chapter-list}`` is the table of contents of the title page, with those times.
- The links to the previous and the next page name the part of the book where another one begins.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import reading as rule  # noqa: E402

logger = logging.getLogger(__name__)

# --- Descriptions -----------------------------------------------------------------------------------------------------

SHORTEST, ENOUGH, LONGEST = 50, 80, 160  # characters of a description: search engines show about 160
UNFIT = "\0"  # stands for what is no text: a formula, a line of code
NAME = re.compile(r"[A-Za-z][\w.]*")
SENTENCE_ENDS = re.compile(r"(?:(?<=[.?!])|(?<=[.?!][”’\")]))\s+(?=[A-Z“‘\"(])")
ENDED = re.compile(r"[.?!…][”’\")]*$")
CLAUSE_ENDS = re.compile(r"[;:,](?= )| [–—](?= )")
GIVEN = re.compile(r'<meta\b[^>]*\bname="description"[^>]*>')
CONTENT = re.compile(r'\bcontent="([^"]*)"')
ADDED = {  # pages that have no source
    "search": "Search every page of {title}: chapters, exercises, glossary and library.",
    "404": "There is no page at this address. Here are the contents of {title}, and a search box.",
}


def plain(node: nodes.Node) -> str:
    """The text of a node as it is read aloud; `UNFIT` in the place of each formula and piece of code. A single name may stay."""
    if isinstance(node, nodes.math | nodes.math_block | nodes.image | nodes.raw):
        return UNFIT
    if isinstance(node, nodes.literal):
        return node.astext() if NAME.fullmatch(node.astext()) else UNFIT
    if isinstance(node, nodes.footnote_reference):
        return ""
    if isinstance(node, nodes.Text) or not node.children:
        return node.astext()
    return "".join(plain(child) for child in node.children)


def opening(doctree: nodes.document) -> str:
    """The first sentences of a page that stand in no box, up to `LONGEST` characters; a paragraph more while they are few.

    A sentence with a formula or with code in it ends them, and so does what is no sentence or leads over to what is no text. Where they are fewer
    than `ENOUGH` characters and the next one is too long, it is taken up to the end of a clause, with an ellipsis; no word is cut.
    """
    text = ""
    for paragraph in doctree.findall(nodes.paragraph):
        if not isinstance(paragraph.parent, nodes.section | nodes.document | nodes.container):
            continue
        for sentence in SENTENCE_ENDS.split(" ".join(plain(paragraph).split())):
            if UNFIT in sentence or not ENDED.search(sentence):
                if len(text) >= SHORTEST:
                    return text
                text = ""  # what follows does not go on from here
                break
            longer = f"{text} {sentence}".strip()
            if len(longer) > LONGEST:
                ends = [match.start() for match in CLAUSE_ENDS.finditer(longer[:LONGEST - 1]) if match.start() >= max(SHORTEST, len(text) + 20)]
                return longer[:ends[-1]] + "…" if ends and len(text) < ENOUGH else text
            text = longer
        if len(text) >= ENOUGH:
            break
    return text


def description(app: Sphinx, page: str, doctree: nodes.document | None) -> str:
    """What a page says about itself: `description:` of its front matter, or how it opens; a page without a sentence gives its title."""
    if given := app.env.metadata.get(page, {}).get("description"):
        return str(given)
    book = app.config.html_title
    if doctree is None:
        return ADDED.get(page, "").format(title=book)
    return opening(doctree) or f"{title(app, page)}, a page of {book}."


def describe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Put the description into the page's head, and into its context for whoever needs it (cards do)."""
    tags = context.get("metatags") or ""
    if found := GIVEN.search(tags):  # the page's own, by html_meta
        content = CONTENT.search(found[0])
        context["description"] = html.unescape(content[1]) if content else ""
        return
    context["description"] = said = description(app, pagename, doctree)
    if said:
        context["metatags"] = f'{tags}\n    <meta name="description" content="{html.escape(said)}" />'


def warn_about_twins(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Warn (an error under -W) about a page that says about itself what another says: who searches could not tell them apart."""
    said: dict[str, str] = app._descriptions
    mine = context.get("description", "")
    if mine and said.setdefault(mine, pagename) != pagename:
        logger.warning("page %s says about itself what %s says: %s Give one of them `description:` in its front matter.", pagename, said[mine], mine,
                       type="book", subtype="description")


# --- How long it takes ------------------------------------------------------------------------------------------------

def counts(app: Sphinx, page: str) -> rule.Counts | None:
    """What there is to read on a page that is a notebook; None for others."""
    path = Path(app.env.doc2path(page))
    if path.suffix != ".ipynb":
        return None
    if page not in app._counts:
        app._counts[page] = rule.count(json.loads(path.read_text("utf-8"))["cells"])
    return app._counts[page]


def exercises(number: int) -> str:
    return f"{number} exercise{'' if number == 1 else 's'}"


def say_time(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Under a chapter's title: how long it takes, and how many exercises wait at its end."""
    if doctree is None or not (found := counts(app, pagename)):
        return
    said = f"About {found.minutes} minutes to read"
    if found.exercises:
        there = any("exercises" in section["ids"] for section in doctree.findall(nodes.section))
        words = exercises(found.exercises)
        said += " · " + (f'<a href="#exercises">{words}</a>' if there else words)
    context["body"] = context["body"].replace("</h1>", f'</h1>\n<p class="reading-time">{said}</p>', 1)


# --- The chapters on the title page -----------------------------------------------------------------------------------

class chapter_list(nodes.General, nodes.Element):
    """Stands for the list until the numbers of the chapters are known."""


class ChapterList(Directive):
    """``{chapter-list}``: the chapters by part, each with the minutes it takes, and how these are counted."""

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        env.__dict__.setdefault("chapter_lists", set()).add(env.docname)
        return [chapter_list()]


def renew_lists(app: Sphinx, env, added: set, changed: set, removed: set) -> list[str]:
    """A page that lists the chapters is read again when any page has changed."""
    return sorted(env.__dict__.get("chapter_lists", set()) & env.found_docs) if added | changed | removed else []


def parts(app: Sphinx) -> list[tuple[str, list[str]]]:
    """The parts of the book: (name, pages), in order."""
    if (found := app._parts) is None:
        app._parts = found = [(tree.get("caption") or "", [name for _, name in tree["entries"]])
                              for tree in app.env.get_doctree(app.config.root_doc).findall(addnodes.toctree)]
    return found


def title(app: Sphinx, page: str) -> str:
    """The title of a page with its chapter's number, as the table of contents has it."""
    number = app.env.toc_secnumbers.get(page, {}).get("")
    return (f"{number[0]}. " if number else "") + app.env.titles[page].astext()


def list_chapters(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the list where it is asked for."""
    for place in list(doctree.findall(chapter_list)):
        box = nodes.container(classes=["chapter-list"])
        for name, pages in parts(app):
            timed = [(page, found) for page in pages if (found := counts(app, page))]
            if not timed:
                continue
            box += nodes.paragraph("", name, classes=["chapter-list-part"])
            items = nodes.bullet_list()
            for page, found in timed:
                link = nodes.reference("", title(app, page), internal=True, refuri=app.builder.get_relative_uri(docname, page))
                minutes = nodes.inline("", f"{found.minutes} min", classes=["chapter-list-minutes"])
                items += nodes.list_item("", nodes.paragraph("", "", link, nodes.Text(" "), minutes))
            box += items
        box += nodes.paragraph("", (
            f"Minutes are for reading, by one rule for all chapters: {rule.WORDS_A_MINUTE} words a minute, {rule.SECONDS_A_LINE} seconds for a "
            f"line of code, {rule.SECONDS_A_STOP} for a figure, a formula or a question to you. Exercises come on top."), classes=["chapter-list-rule"])
        box += nodes.paragraph(classes=["can-do-forget"])  # where the script offers to forget all ticks
        place.replace_self(box)


# --- What you can now do ----------------------------------------------------------------------------------------------

CAN_DO = "can-do"


def items(doctree: nodes.document) -> list[nodes.list_item]:
    """The abilities that a page lists."""
    return [item for box in doctree.findall(nodes.container) if CAN_DO in box.get("classes", ()) for item in box.findall(nodes.list_item)]


def name_items(app: Sphinx, doctree: nodes.document) -> None:
    """Each ability gets an address made from its own words: its place in the list does not matter, another wording is another ability."""
    named = []
    for item in items(doctree):
        name = f"{CAN_DO}-{hashlib.sha256(' '.join(item.astext().split()).encode()).hexdigest()[:6]}"
        if name in named:
            logger.warning("the same ability twice: %s", item.astext(), location=item, type="book", subtype="can-do")
        item["ids"] = [name]
        named.append(name)
    app.env.__dict__.setdefault("can_do", {})[app.env.docname] = named
    for box in list(doctree.findall(nodes.container)):
        if CAN_DO in box.get("classes", ()):
            box += nodes.paragraph(classes=["can-do-status"])  # where the script says how many are ticked; its room is kept


def forget_items(app: Sphinx, env, docname: str) -> None:
    env.__dict__.setdefault("can_do", {}).pop(docname, None)


def all_items(app: Sphinx) -> str:
    """Every page's abilities, for the script: {page: [name]} in the order of the book."""
    known = app.env.__dict__.get("can_do", {})
    return json.dumps({page: known[page] for _, pages in parts(app) for page in pages if known.get(page)}, separators=(",", ":"))


def add_script(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """The script, on every page of the book: what is ticked on one is shown beside its chapter on all."""
    if doctree is not None:
        version = hashlib.sha256(all_items(app).encode()).hexdigest()[:8]
        app.add_js_file("reading/progress.mjs", type="module", **{"data-page": pagename, "data-abilities": f"abilities.json?v={version}"})


def write_items(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        folder = Path(app.outdir) / "_static" / "reading"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "abilities.json").write_text(all_items(app) + "\n", "utf-8")


# --- Previous and next ------------------------------------------------------------------------------------------------

def name_neighbours(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Where the previous or the next page belongs to another part, the link names that part (the titles have their numbers already)."""
    def below(page: str) -> list[str]:
        return [page, *(each for child in app.env.toctree_includes.get(page, ()) for each in below(child))]

    part = {each: name for name, pages in parts(app) for page in pages for each in below(page)}
    for which in ("prev", "next"):
        if not (there := context.get(which)):
            continue
        page = app.builder.relations[pagename][1 if which == "prev" else 2]
        there["part"] = part.get(page, "") if part.get(page) != part.get(pagename) else ""
        number = app.env.toc_secnumbers.get(page, {}).get("")
        if number and not re.match(rf"{number[0]}\.", re.sub("<[^>]*>", "", there["title"])):
            there["title"] = f"{number[0]}. {there['title']}"


def begin(app: Sphinx) -> None:
    app._descriptions, app._counts, app._parts = {}, {}, None


def setup(app: Sphinx) -> dict:
    app.add_node(chapter_list)
    app.add_directive("chapter-list", ChapterList)
    app.connect("builder-inited", begin)
    app.connect("env-get-outdated", renew_lists)
    app.connect("env-purge-doc", forget_items)
    app.connect("doctree-read", name_items)
    app.connect("doctree-resolved", list_chapters)
    app.connect("html-page-context", say_time)
    app.connect("html-page-context", name_neighbours)
    app.connect("html-page-context", add_script)
    app.connect("html-page-context", describe, priority=750)  # before the card of the page is written
    app.connect("html-page-context", warn_about_twins, priority=760)
    app.connect("build-finished", write_items)
    return {"parallel_read_safe": False, "parallel_write_safe": False, "env_version": 1}
