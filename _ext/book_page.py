"""What every page of the book needs: described figures, labelled solutions, a notebook to take away."""

import re
import sys
from pathlib import PurePosixPath

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import _MockObject
from sphinx.util import logging

logger = logging.getLogger(__name__)

LOOKS_LIKE_A_PATH = re.compile(r"^\S*(/|\\)\S*$|\.(png|svg|jpe?g|gif|webp|pdf)$", re.IGNORECASE)
HTML_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE | re.DOTALL)
HTML_ALT = re.compile(r"\balt\s*=\s*(\"[^\"]*\"|'[^']*')", re.IGNORECASE)
SOLUTION_TAG = "tag_ex-solution"
FOLDED_MENU = re.compile(r"(<a\b[^>]*>([^<]+)</a><details[^>]*><summary)(?=>)")


def bad_alt(alt: str | None) -> str | None:
    """Say what is wrong with an alternative text, or return None if it can stand."""
    if alt is None:
        return "has no alt text"
    if not alt.strip():
        return "has an empty alt text"
    if LOOKS_LIKE_A_PATH.search(alt.strip()):
        return f"has a file name for alt text ({PurePosixPath(alt.strip()).name})"
    return None


def warn_about_alt(app: Sphinx, doctree: nodes.document) -> None:
    """Warn (an error under -W) about each image that a screen reader could not read out.

    myst-nb falls back to the image's path, which checkers in the browser accept as a name.
    """
    for image in doctree.findall(nodes.image):
        if problem := bad_alt(image.get("alt")):
            logger.warning("figure %s: set the cell's metadata mystnb.image.alt, or :alt:", problem,
                           location=located(image), type="book", subtype="alt")
    for raw in doctree.findall(nodes.raw):
        for tag in HTML_IMAGE.findall(raw.astext()):
            alt = HTML_ALT.search(tag)
            if problem := bad_alt(alt and alt.group(1)[1:-1]):
                logger.warning("HTML image %s", problem, location=located(raw), type="book", subtype="alt")


def located(node: nodes.Node) -> nodes.Node:
    """Return the nearest ancestor that knows its line, so that the warning names the place."""
    while node.parent is not None and node.line is None and not node.source:
        node = node.parent
    return node


def label_solutions(app: Sphinx, doctree: nodes.document) -> None:
    """A hidden cell tagged ex-solution opens with the word Solution, not with 'Show code cell'."""
    for cell in doctree.findall(nodes.container):
        if SOLUTION_TAG in cell.get("classes", ()):
            cell["prompt_show"], cell["prompt_hide"] = "Show our solution", "Hide our solution"


def add_notebook(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Give the templates the address of the page's notebook (`notebook`) or None."""
    source = context.get("sourcename") or ""
    context["notebook"] = f"_sources/{source}" if source.endswith(".ipynb") else None
    context["notebook_name"] = PurePosixPath(source).name


def mend_roles(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Mend what others write: a collapsed cell is called by the words it shows, not 'Toggle hidden content';
    an entry of the bibliography is an item of its list (doc-biblioentry is deprecated); the empty corner of a
    table is a cell, not a heading."""
    if "body" in context:
        context["body"] = (
            context["body"]
            .replace('<summary aria-label="Toggle hidden content">', "<summary>")
            .replace('role="doc-biblioentry"', 'role="listitem"')
            .replace('<th class="head"><p></p></th>', "<td></td>")
        )


def name_menus(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """The button that unfolds a part of the menu is called by the page it belongs to; the theme gives it no name."""
    if write := context.get("generate_toctree_html"):
        def named(*args: object, **kwargs: object) -> str:
            return FOLDED_MENU.sub(r'\1 aria-label="Pages of: \2"', str(write(*args, **kwargs)))
        context["generate_toctree_html"] = named


def setup(app: Sphinx) -> dict:
    sys.path.insert(0, str(app.srcdir))  # the API page documents the library beside it, installed or not
    _MockObject.__or__ = _MockObject.__ror__ = lambda self, other: self  # annotations such as torch.Tensor | None
    app.connect("doctree-read", warn_about_alt)
    app.connect("doctree-read", label_solutions)
    app.connect("html-page-context", add_notebook)
    app.connect("html-page-context", mend_roles)
    app.connect("html-page-context", name_menus, priority=900)  # after the theme has put its function there
    return {"parallel_read_safe": True, "parallel_write_safe": True}
