"""What helps a reader find and follow the book: what each page says about itself to those who search."""

from __future__ import annotations

import html
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

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
    """What a page says about itself: `description:` of its front matter, or how it opens."""
    given = app.env.metadata.get(page, {}).get("description")
    return str(given or (opening(doctree) if doctree is not None else "") or ADDED.get(page, "").format(title=app.config.html_title))


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


def same_or_none(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Warn (an error under -W) about a page without a description, and about one that says what another says."""
    said: dict[str, str] = app._descriptions
    mine = context.get("description", "")
    if not mine and (doctree is not None or pagename in ADDED):
        logger.warning("page %s has no description: begin it with a sentence, or give `description:` in its front matter", pagename,
                       type="book", subtype="description")
    elif mine and said.setdefault(mine, pagename) != pagename:
        logger.warning("page %s says about itself what %s says: %s", pagename, said[mine], mine, type="book", subtype="description")


def begin(app: Sphinx) -> None:
    app._descriptions = {}


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", begin)
    app.connect("html-page-context", describe, priority=750)  # before the card of the page is written
    app.connect("html-page-context", same_or_none, priority=760)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
