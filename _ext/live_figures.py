"""Put the scripts of the interactive figures where the pages find them, and load them only where there is a figure."""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset

MODULES = Path(__file__).parent.parent / "attnlib" / "widgets"
FOLDER = "live-figures"
FIGURE = 'class="live-figure"'


def copy_modules(app: Sphinx, exception: Exception | None) -> None:
    """Copy each figure's ES module, and the style they share, beside the loader in `_static/live-figures`."""
    if exception is None and app.builder.format == "html":
        for path in [*sorted(MODULES.glob("*.mjs")), MODULES / "figure.css"]:
            copy_asset(str(path), str(Path(app.outdir) / "_static" / FOLDER))


def load_where_needed(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """A page with a figure loads the loader and the style; no other page does."""
    if FIGURE in context.get("body", ""):
        app.add_css_file(f"{FOLDER}/figure.css")
        app.add_js_file(f"{FOLDER}/load.mjs", type="module")


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", load_where_needed)
    app.connect("build-finished", copy_modules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
