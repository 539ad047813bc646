"""Print the whole book from the built site into one PDF, `_build/book.pdf`.

    python -m tools.pdf                      build the site if anything changed, then print it (A4)
    python -m tools.pdf --paper letter       on American paper
    python -m tools.pdf --site DIR --out F   print a site that is there already

All pages become one document, which Chromium prints at once: links between chapters work inside the file, fonts and formulas are
embedded once, and page numbers run through. It is printed at least twice: where each chapter, section and solution begins is read
from the result, written into the table of contents, and printed again until nothing moves. The file is then checked against its
own text, and replaces an older one only if it is right. No server, no other host: the browser's requests are answered from the
site's folder, and any other ends the run.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import mimetypes
import os
import re
import shutil
import sys
import time
import unicodedata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools import site as whole_site

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
OUT = ROOT / "_build" / "book.pdf"
ORIGIN = "http://book.invalid/"  # nobody's: every request to it is answered from the site's folder
AUTHOR = "the contributors"
SUBTITLE = "Every idea built in small cells, run on a real model, broken once on purpose"
# Left out: what is of use with a search field or a checkout beside it only.
SKIP = ("appendix/api", "appendix/publishing", "appendix/instructors")
# Millimetres: the paper, and the text's width, which is the paper less the margins in pdf.css.
PAPERS = {"a4": ("A4", 210.0, 297.0), "letter": ("letter", 215.9, 279.4)}
MARGINS = 52.0
PX = 96 / 25.4  # CSS pixels in a millimetre
FONTS = {"SourceSerif": ("font_source_serif_pro", "files"), "SourceSans": ("font_source_sans_pro", "files"),
         "IBMPlexMono": ("fontpkg_ibm_plex_mono", "files")}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND")
IMPRINT = ("Printed from the online edition. Predictions are answered where they are asked; solutions of exercises are at the end. "
           "Interactive figures show their first state. In the file, the contents and every reference are links.")
PASSES = 5
MOST = 20  # faults named
HEAD = 62.0  # points from the top; the running title is in them
MINUTES = 10


class Unprintable(Exception):
    """The book cannot be printed, or what was printed is wrong; the message says why."""


def find_chromium() -> str:
    """The path of the system's Chromium."""
    named = os.environ.get("CHROMIUM")
    found = named if named and Path(named).exists() else None
    if not named:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        raise Unprintable(f"There is no Chromium{' at ' + named if named else ''}. Printing needs it: install the package chromium, or set "
                          "CHROMIUM to its path.")
    return found


def needed() -> None:
    """Complain in one sentence about what is not installed."""
    packages = ("playwright", "pikepdf", "pypdfium2", *(package for package, _ in FONTS.values()))
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Unprintable(f"Printing needs {', '.join(missing)}, of the test section of requirements.txt: `make pdf` installs it.")


def font(name: str) -> Path | None:
    """The file of a font that pdf.css asks for, in the package that brings it."""
    for start, (package, folder) in FONTS.items():
        if name.startswith(start):
            return Path(importlib.util.find_spec(package).origin).parent / folder / name
    return None


def answer(html: Path, refused: list[str]):
    """A function that answers the browser's requests from the site's folder, and refuses and notes every other."""
    root = os.path.abspath(html)

    def find(path: str) -> bytes | None:
        if path == "/":
            return b"<!DOCTYPE html><html><head></head><body></body></html>"
        if path in ("/--/pdf.css", "/--/pdf.mjs"):
            return (HERE / path.removeprefix("/--/")).read_bytes()
        held = font(path.removeprefix("/--/fonts/")) if path.startswith("/--/fonts/") else Path(os.path.normpath(f"{root}/{path}"))
        if held is None or not held.is_file() or not (path.startswith("/--/") or held.is_relative_to(root)):
            return None
        return held.read_bytes()

    def respond(route) -> None:
        url = urlsplit(route.request.url)
        content = find(unquote(url.path)) if route.request.url.startswith(ORIGIN) else None
        if content is None:
            refused.append(route.request.url)
            route.abort()
            return
        kind = "text/javascript" if url.path.endswith(".mjs") else mimetypes.guess_type(url.path)[0]
        route.fulfill(body=content, content_type="text/html" if url.path == "/" else kind or "application/octet-stream")

    return respond


def places(pdf: bytes) -> dict[str, tuple[int, float]]:
    """Where every name that a link of the PDF points to is: its page, counted from 1, and its height on it in points."""
    import pikepdf

    with pikepdf.open(io.BytesIO(pdf)) as made:
        number = {page.objgen: index for index, page in enumerate(made.pages, start=1)}
        return {unquote(str(name).lstrip("/")): (number[where[0].objgen], float(where[3])) for name, where in made.Root.get("/Dests", {}).items()}


def plain(text: str) -> str:
    """Letters and digits alone: PDF text has its own spaces, hyphens and ligatures."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).lower()


def check(pdf: bytes, toc: list[dict], pages: dict[str, int]) -> list[str]:
    """Compare the PDF with its own text: headings, page numbers in the contents and at the head, empty pages."""
    import pypdfium2

    document = pypdfium2.PdfDocument(pdf)
    texts, faults, after = [], [], 0
    for number, page in enumerate(document, start=1):
        held = page.get_textpage()
        texts.append(held.get_text_range())
        if not held.count_chars() and not next(page.get_objects(), None):
            faults.append(f"page {number} is empty")
        top = held.get_text_bounded(bottom=page.get_height() - HEAD)
        outer = re.search(r"(\d+)\s*$" if number % 2 else r"^\s*(\d+)", top)
        if top.strip() and (outer is None or outer[1] != str(number)):
            faults.append(f"page {number} says “{top.strip()}” at its head")
    first = min((pages[entry["id"]] for entry in toc if entry["id"] in pages), default=1)
    printed = plain("".join(texts[: first - 1]))
    for entry in toc:
        page = pages.get(entry["id"])
        if page is None:
            faults.append(f"“{entry['title']}” has no place in the PDF")
            continue
        if plain(entry["title"]) not in plain(texts[page - 1]):
            faults.append(f"“{entry['title']}” is not on page {page}")
        found = printed.find(plain(entry["title"]) + str(page), after)
        if found < 0:
            faults.append(f"the contents do not give page {page} for “{entry['title']}”")
        else:
            after = found + 1
    return faults


def finish(pdf: bytes, toc: list[dict], title: str, where: dict[str, tuple[int, float]]) -> bytes:
    """Add the outline, the title, the author and how a viewer opens the file; pack it."""
    import pikepdf

    with pikepdf.open(io.BytesIO(pdf)) as made:
        with made.open_outline() as outline:
            branches = [outline.root]
            for entry in [{"id": "contents", "title": "Contents", "level": 0}, *toc]:
                page, top = where[entry["id"]]
                item = pikepdf.OutlineItem(entry["title"], page - 1, "XYZ", left=0, top=top)
                item.is_closed = entry["level"] > 0
                del branches[entry["level"] + 1:]
                branches[-1].append(item)
                branches.append(item.children)
        made.docinfo["/Title"], made.docinfo["/Author"], made.docinfo["/Subject"] = title, AUTHOR, SUBTITLE
        del made.docinfo["/Creator"]  # the browser's, with the system it ran on
        made.Root.Lang = "en-GB"
        made.Root.PageMode = pikepdf.Name.UseOutlines
        made.Root.ViewerPreferences = pikepdf.Dictionary(DisplayDocTitle=True)
        packed = io.BytesIO()
        made.save(packed, object_stream_mode=pikepdf.ObjectStreamMode.generate, recompress_flate=True)
        return packed.getvalue()


def say(began: float, text: str) -> None:
    print(f"    {time.monotonic() - began:4.0f} s  {text}", flush=True)


def printed(browser, html: Path, paper: str = "a4", skip: tuple[str, ...] = SKIP) -> tuple[bytes, dict]:
    """Print the site in `html` with a running browser; return the PDF and what is known about it, its contents and places among it."""
    import pikepdf
    from playwright.sync_api import Error

    if not (html / "index.html").is_file():
        raise Unprintable("There is no built site to print: `make site`.")
    size, width, height = PAPERS[paper]
    began = time.monotonic()
    refused: list[str] = []
    # The width of the text on paper, so that what is measured is what is printed.
    tab = browser.new_page(viewport={"width": round((width - MARGINS) * PX), "height": round(height * PX)}, color_scheme="light",
                           reduced_motion="reduce")
    try:
        tab.set_default_timeout(MINUTES * 60_000)
        tab.route("**/*", answer(html, refused))
        tab.goto(ORIGIN)
        tab.emulate_media(media="print", color_scheme="light", reduced_motion="reduce")
        facts = tab.evaluate("async (how) => { window.book = await import('/--/pdf.mjs'); return book.assemble(how) }",
                             {"skip": list(skip), "size": size, "subtitle": SUBTITLE, "author": AUTHOR, "imprint": IMPRINT})
        say(began, f"{len(facts['pages'])} pages of the site are one document")
        faults = facts["problems"] + tab.evaluate("(mathjax) => book.typeset(mathjax)", facts["mathjax"])
        say(began, "formulas and figures are drawn")
        fitted = tab.evaluate("book.fit()")
        faults += fitted["out"]
        pages: dict[str, int] = {}
        for _ in range(PASSES):
            unknown = tab.evaluate("(pages) => book.number(pages)", pages)
            pdf = tab.pdf(prefer_css_page_size=True, print_background=True, tagged=True, outline=False)
            where = places(pdf)
            found = {name: page for name, (page, _) in where.items()}
            wrong = sum(pages.get(name) != page for name, page in found.items())
            say(began, "printed; " + (f"{wrong} page numbers to write" if wrong else "the page numbers are right"))
            if found == pages:
                break
            pages = found
        else:
            raise Unprintable(f"Page numbers still move after {PASSES} times.")
    except Error as problem:
        raise Unprintable(f"The browser stopped: {str(problem).splitlines()[0]}"
                          + (f" It was refused {', '.join(refused[:3])}." if refused else "")) from problem
    finally:
        tab.close()
    faults += [f"no page number for {name}" for name in sorted(set(unknown))]
    faults += [f"asked for {url}, which the site does not hold" for url in refused]
    faults += check(pdf, facts["toc"], pages)
    if faults:
        raise Unprintable("The PDF is not right:\n    " + "\n    ".join(faults[:MOST]) + ("\n    ..." if len(faults) > MOST else ""))
    made = finish(pdf, facts["toc"], facts["title"], where)
    with pikepdf.open(io.BytesIO(made)) as whole:
        return made, {**facts, "small": fitted["small"], "places": pages, "sheets": len(whole.pages)}


def book(html: Path, paper: str = "a4") -> tuple[bytes, dict]:
    """Print the site in `html`, with a browser of its own."""
    needed()
    chromium = find_chromium()
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        except Error as problem:
            raise Unprintable(f"{chromium} does not start: {str(problem).splitlines()[0]}") from problem
        try:
            return printed(browser, html, paper)
        finally:
            browser.close()


def write(pdf: bytes, out: Path) -> None:
    """Replace the file at once, or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(out.name + ".part")
    beside.write_bytes(pdf)
    beside.replace(out)


def main(arguments: list[str] | None = None) -> int:
    """Read the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.pdf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", choices=PAPERS, default="a4")
    parser.add_argument("--site", type=Path, help="a built site to print instead of the book's own")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        needed()
        find_chromium()  # before a minute is spent on building
        if options.site is None and not whole_site.build():
            return 1
        print("Printing the book ...", flush=True)
        pdf, facts = book(options.site or ROOT / "_build" / "html", options.paper)
    except Unprintable as problem:
        print(problem, file=sys.stderr)
        return 1
    write(pdf, options.out)
    for line in facts["small"]:
        print(f"    small: {line}")
    print(f"{options.out}: {facts['sheets']} pages, {len(pdf) / 1e6:.1f} MB, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
