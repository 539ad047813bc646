"""Keep every request on the site: MathJax from its package, and no script that loads from elsewhere."""

from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset

# `tex-chtml.js` is MathJax's own bundle of TeX input and CommonHTML output; it fetches the fonts beside it,
# and one small file of `extensions` when a formula uses a macro outside the base set (\cancel, \bra, ...).
MATHJAX_BUNDLE = "tex-chtml.js"
MATHJAX_FOLDERS = ("output/chtml/fonts/woff-v2", "input/tex/extensions")


def mathjax_folder() -> Path:
    """Where the package sphinx-mathjax-offline keeps MathJax (its module name is not an identifier)."""
    spec = find_spec("sphinx-mathjax-offline")
    if spec is None or not spec.submodule_search_locations:
        raise ExtensionError("MathJax is missing: pip install -r requirements.txt")
    return Path(spec.submodule_search_locations[0]) / "static" / "mathjax"


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    source, target = mathjax_folder(), Path(app.outdir) / "_static" / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    copy_asset(str(source / MATHJAX_BUNDLE), str(target))
    for folder in MATHJAX_FOLDERS:
        copy_asset(str(source / folder), str(target / folder))


def use_local_mathjax(app: Sphinx, config) -> None:
    config.mathjax_path = f"mathjax/{MATHJAX_BUNDLE}"


def silence_thebe(app: Sphinx, config) -> None:
    """Jupyter Book always loads sphinx-thebe, whose scripts (emitted twice) look for a remote kernel."""
    for event in app.events.listeners.values():
        for listener in list(event):
            if listener.handler.__module__.startswith("sphinx_thebe"):
                app.disconnect(listener.id)


def drop_thebe_style(app: Sphinx, pagename, templatename, context, doctree) -> None:
    # in place: what other extensions add for this page goes to the same list
    context["css_files"][:] = [sheet for sheet in context["css_files"] if "thebe" not in str(sheet.filename)]


def drop_idle_mathjax(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Sphinx gives MathJax to a page that only lists pages with formulas; without one of its own it need not load 260 kB."""
    if 'class="math' not in context.get("body", ""):
        context["script_files"][:] = [script for script in context["script_files"]
                                      if script.filename != f"_static/{app.config.mathjax_path}" and "window.MathJax" not in script.attributes.get("body", "")]


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", use_local_mathjax)
    app.connect("config-inited", silence_thebe)
    app.connect("html-page-context", drop_thebe_style)
    app.connect("html-page-context", drop_idle_mathjax, priority=900)  # after Sphinx's own handler
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
