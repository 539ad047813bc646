"""A site that anyone can publish: menu, addresses for search engines and cards, sitemap, and the page for unknown addresses.

Everything here follows from the addresses in `_config.yml` (see `addresses`). Without any, the site is complete: no button leads
nowhere, and nothing asks for another host.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlsplit

from addresses import AddressError, Addresses, read
from reading import description
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

UNKNOWN = "404"  # the page that hosts show at addresses they do not know
CARD = "_static/card.png"
CARD_SAYS = ("The sentence “The animal didn't cross the street because it was too tired”, twice: lines lead from its words to the "
             "words they attend to, as wide as the weights. The line set off in amber leads from “it” to “animal”.")
LIBRARY = "attnlib"


def find_addresses(app: Sphinx, config) -> None:
    """Read the addresses, once; Sphinx makes the canonical links itself if it knows the published one."""
    options = config.html_theme_options
    try:
        app.addresses = read(options.get("repository_url"), options.get("repository_branch"), config.html_baseurl)
    except AddressError as error:
        raise ExtensionError(str(error)) from None
    config.html_baseurl = app.addresses.site


# --- What a page says about itself ------------------------------------------------------------------------------------

def source_file(app: Sphinx, pagename: str) -> str:
    """The file that a page is written in, from the top of the repository: a chapter's is its .py, not the notebook made from it."""
    path = Path(app.env.doc2path(pagename, base=False))
    source = path.with_suffix(".py")
    return (source if path.suffix == ".ipynb" and (Path(app.srcdir) / source).exists() else path).as_posix()


def offer(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Give the templates the entries of the page's menu, `page_menu`: (words, address, icon)."""
    context["page_menu"] = menu = []
    found: Addresses = app.addresses
    if pagename == UNKNOWN:
        context["pageurl"] = None  # it has no address of its own
    if not found.repository or pagename not in app.env.found_docs:
        return
    title = app.env.titles[pagename].astext()
    if context.get("notebook"):
        file = Path(app.env.doc2path(pagename, base=False)).as_posix()
        menu += [("Open in Colab", found.colab(file), "fa-solid fa-arrow-up-right-from-square"),
                 ("Open in Binder", found.binder(file), "fa-solid fa-arrow-up-right-from-square")]
    menu += [("Edit this page", found.edit(source_file(app, pagename)), "fa-solid fa-pen"),
             ("Open an issue", found.issue(f"“{title}”: "), "fa-solid fa-circle-exclamation")]
    menu += [("Repository", found.repository, "fa-solid fa-code-branch")]
    context["page_menu"] = [entry for entry in menu if entry[1]]
    app.add_js_file("publishing/menu.mjs", type="module")  # for this page alone


def describe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """The card of a page, for those who share its address. Without a published address there is nothing to share."""
    found: Addresses = app.addresses
    if not found.site or pagename not in app.env.found_docs:
        return
    title, root = app.env.titles[pagename].astext(), app.config.root_doc
    number = app.env.toc_secnumbers.get(pagename, {}).get("")
    context["metatags"] = context.get("metatags", "") + card(
        app, f"{number[0]}. {title}" if number else title, context.get("description") or app.config.html_title, found.page(f"{pagename}.html"),
        "website" if pagename == root else "article")


def card(app: Sphinx, title: str, description: str, address: str, kind: str = "website") -> str:
    """The `og:` and `twitter:` elements of one page."""
    says = [("property", "og:type", kind), ("property", "og:site_name", app.config.html_title), ("property", "og:title", title),
            ("property", "og:description", description), ("property", "og:url", address),
            ("property", "og:image", app.addresses.page(CARD)), ("property", "og:image:width", "1200"),
            ("property", "og:image:height", "630"), ("property", "og:image:alt", CARD_SAYS),
            ("name", "twitter:card", "summary_large_image")]
    return "".join(f'\n    <meta {key}="{name}" content="{html.escape(value)}" />' for key, name, value in says)


# --- The page for unknown addresses -----------------------------------------------------------------------------------

def contents(app: Sphinx) -> list[tuple[str, list[tuple[str, str]]]]:
    """The parts of the book with their pages: (part, [(title with its number, page)])."""
    parts = []
    for tree in app.env.get_doctree(app.config.root_doc).findall(addnodes.toctree):
        pages = []
        for title, name in tree["entries"]:
            number = app.env.toc_secnumbers.get(name, {}).get("")
            pages.append(((f"{number[0]}. " if number else "") + (title or app.env.titles[name].astext()), name))
        parts.append((tree.get("caption") or app.config.html_title, pages))
    return parts


def unknown_page(app: Sphinx):
    """A page like the others, called 404."""
    yield UNKNOWN, {"title": "There is no such page", "pagetitle": "There is no such page", "contents": contents(app), "page_menu": [], "notebook": None}, "not_found.html"


ATTRIBUTE = re.compile(r'(<(a|link|script|form|img)\b[^>]*?)\s(href|src|action)="([^"]*)"')


def detached(text: str, found: Addresses, logo: bytes, script: str, folders: list[str]) -> str:
    """Make the unknown page independent of the address that it is shown at, where every relative address is wrong.

    Addresses of links are absolute if the published address is known, so they work without scripts; what a page loads waits
    in `data-address` until the script has found the top of the site: nothing is asked for at a wrong place, and a copy of
    the site elsewhere (on this machine, say) loads nothing from the published one. The picture is in the page.
    """
    picture = "data:image/svg+xml;base64," + b64encode(logo).decode()

    def place(match: re.Match) -> str:
        before, tag, attribute, address = match.groups()
        if address.startswith(("#", "data:")) or urlsplit(address).scheme:
            return match[0]
        if tag == "img" or 'rel="icon"' in before:
            return f'{before} {attribute}="{picture}"'
        kept = f' data-attribute="{attribute}" data-address="{address}"'
        if tag in ("a", "form"):
            return f'{before} {attribute}="{found.page("") + address}"{kept}'
        return f"{before}{kept}"

    text = re.sub(r'\s*<link rel="preload"[^>]*>', "", text)
    text = ATTRIBUTE.sub(place, text)
    text = re.sub(r"\s*<script>DOCUMENTATION_OPTIONS\.[^<]*</script>", "", text)  # corrections of a file that is not there yet
    styles = re.findall(r'<link\b[^>]*data-address="([^"]+\.css[^"]*)"[^>]*rel="stylesheet"'
                        r'|<link\b[^>]*rel="stylesheet"[^>]*data-address="([^"]+)"', text)
    without = ("<noscript>" + "".join(f'<link rel="stylesheet" href="{found.page("")}{a or b}" />' for a, b in styles) + "</noscript>"
               if found.site else "")
    known = json.dumps({"site": found.site, "folders": folders})
    return text.replace("</head>", f'{without}<meta name="robots" content="noindex" /></head>', 1).replace(
        "</body>", f'<script id="find-the-site" type="application/json">{known}</script>\n<script>\n{script}</script>\n</body>', 1)


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Write what stands beside the pages, and finish the unknown page."""
    if exception is not None or app.builder.format != "html":
        return
    out, source, found = Path(app.outdir), Path(app.srcdir), app.addresses
    (out / ".nojekyll").touch()  # else GitHub Pages, publishing from a branch, leaves out folders that begin with _
    page = out / f"{UNKNOWN}.html"
    folders = sorted({Path(name).parts[0] for name in app.env.found_docs if "/" in name} | {"_static", "_images", "_sources"})
    page.write_text(detached(page.read_text("utf-8"), found, (source / "_static" / "logo.svg").read_bytes(),
                             (source / "_static" / "publishing" / "not_found.mjs").read_text("utf-8"), folders), "utf-8")
    robots = "User-agent: *\nDisallow:\n"
    root = app.config.root_doc
    if found.site:
        pages = [root, *sorted(set(app.env.found_docs) - {root})]
        listed = "".join(f"  <url><loc>{html.escape(found.page(f'{name}.html'))}</loc></url>\n" for name in pages)
        (out / "sitemap.xml").write_text('<?xml version="1.0" encoding="utf-8"?>\n'
                                         f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{listed}</urlset>\n', "utf-8")
        robots += f"\nSitemap: {found.page('sitemap.xml')}\n"
    (out / "robots.txt").write_text(robots, "utf-8")
    first, says = f"{root}.html", description(app, root, app.env.get_doctree(root))
    about = f'\n<meta name="description" content="{html.escape(says)}" />'
    if found.site:
        about += f'\n<link rel="canonical" href="{found.page(first)}" />' + card(app, app.config.html_title, says, found.page(first))
    icon = app.config.html_favicon  # without one, browsers ask the host's top folder for theirs
    icon = f'\n<link rel="icon" href="_static/{Path(icon).name}" />' if icon else ""
    (out / "index.html").write_text(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n<title>{html.escape(app.config.html_title)}</title>\n'
        f'<meta http-equiv="refresh" content="0; url={first}" />{icon}{about}\n</head>\n'
        f'<body><p><a href="{first}">{html.escape(app.config.html_title)}</a></p></body>\n</html>\n', "utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", find_addresses)
    app.connect("html-collect-pages", unknown_page)
    app.connect("html-page-context", offer, priority=700)     # after the page's notebook is known
    app.connect("html-page-context", describe, priority=800)  # after whoever writes descriptions
    app.connect("build-finished", finish, priority=100)       # before the title page's redirection is written for us
    return {"parallel_read_safe": True, "parallel_write_safe": True}
