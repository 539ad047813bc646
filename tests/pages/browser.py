"""Visit pages in headless Chromium and write down everything that is wrong with them."""

import contextlib
import gzip
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

WIDTHS = {"desktop": 1280, "phone": 360}
MODES = ("light", "dark")
NEEDS = ("The page tests are skipped: they need Chromium (the Debian package chromium, or set CHROMIUM to its path) "
         "and the packages playwright and axe-playwright-python.")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")

# Open what is collapsed, so that it is checked too.
OPEN_DETAILS = "document.querySelectorAll('main details').forEach((box) => { box.open = true })"
TYPESET = "window.MathJax?.startup?.promise?.then(() => true) ?? true"
# What sticks out of the page: further right than the window and in no box that scrolls. Hidden copies
# for screen readers are positioned outside on purpose.
STICKING_OUT = """() => {
  const wide = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > wide) found.push(`the page is ${document.documentElement.scrollWidth} px wide`);
  for (const element of document.querySelectorAll("main *")) {
    if (element.closest("mjx-assistive-mml, .sr-only, .visually-hidden, svg, dialog, .bd-sidebar-secondary")) continue;
    const box = element.getBoundingClientRect();
    if (box.width === 0 || box.right <= wide + 1) continue;
    let scrolls = false;
    for (let up = element.parentElement; up && up.tagName !== "MAIN"; up = up.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) { scrolls = true; break; }
    if (!scrolls) found.push(`<${element.tagName.toLowerCase()} class="${element.className}"> ends at ${Math.round(box.right)} px`);
  }
  return found.slice(0, 5);
}"""


@dataclass
class Findings:
    """What one visit found; each list is empty on a good page."""

    external: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    sticking_out: list[str] = field(default_factory=list)
    accessibility: list[str] = field(default_factory=list)
    theme: str = ""
    loaded: set[str] = field(default_factory=set)

    def faults(self) -> list[str]:
        kinds = ("external", "console", "missing", "sticking_out", "accessibility")
        return [f"{kind}: {fault}" for kind in kinds for fault in getattr(self, kind)]


def find_chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    if named:
        return named if Path(named).exists() else None
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def chromium():
    """A running browser; without one the tests are skipped, or fail where REQUIRE_CHROMIUM=1 is set."""
    path = find_chromium()
    try:
        import axe_playwright_python  # noqa: F401
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        (pytest.fail if os.environ.get("REQUIRE_CHROMIUM") == "1" else pytest.skip)(NEEDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free loopback port and give its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@cache
def axe_script() -> str:
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf8")


def accessibility(page) -> list[str]:
    """Run every rule of axe on the page as it stands and name each violation with its first elements."""
    page.evaluate(axe_script())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
    return [f"{rule['id']}: " + "; ".join(f"{node['target'][0]} {node['html'][:120]}" for node in rule["nodes"][:3])
            for rule in found]


@contextlib.contextmanager
def opened(chromium, base: str, page: str, width: int = 1280, mode: str = "light", findings: Findings | None = None):
    """Open a page in a fresh context, blocking and noting whatever would leave the site."""
    findings = findings if findings is not None else Findings()
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=mode)

    def stop(route) -> None:
        findings.external.append(route.request.url)
        route.abort()

    try:
        context.route(lambda url: not url.startswith((base, "data:", "blob:")), stop)
        tab = context.new_page()
        tab.on("console", lambda said: said.type in ("error", "warning") and findings.console.append(said.text))
        tab.on("pageerror", lambda error: findings.console.append(str(error)))
        tab.on("response", lambda answer: findings.missing.append(answer.url) if answer.status >= 400
               else findings.loaded.add(answer.url))
        tab.goto(f"{base}{page}.html", wait_until="load")
        tab.evaluate(TYPESET)
        yield tab
    finally:
        context.close()


def visit(chromium, base: str, page: str, width: int, mode: str) -> Findings:
    """Open a page at a width and in a colour mode, unfold it, and look for everything at once."""
    findings = Findings()
    with opened(chromium, base, page, width, mode, findings) as tab:
        tab.evaluate(OPEN_DETAILS)
        tab.evaluate("new Promise((done) => setTimeout(done, 350))")  # figures, tooltips and boxes settle
        findings.theme = tab.evaluate("document.documentElement.dataset.theme ?? ''")
        findings.sticking_out = tab.evaluate(STICKING_OUT)
        findings.accessibility = accessibility(tab)
    return findings


def gzipped_kb(html: Path, base: str, loaded: set[str]) -> float:
    """What a visit transfers if the server compresses, in kB (fonts and pictures are compressed already)."""
    files = {html / unquote(urlsplit(url).path).lstrip("/") for url in loaded if url.startswith(base)}
    done = (".woff", ".woff2", ".png")
    return sum(len(data if path.suffix in done else gzip.compress(data, 6))
               for path in files if path.is_file() for data in [path.read_bytes()]) / 1000
