"""Visit pages in headless Chromium and write down everything that is wrong with them."""

import atexit
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
COLOUR_RULES = ("color-contrast", "link-in-text-block")  # axe's rules that look at colours
NEEDS = ("The page tests are skipped: they need Chromium (the Debian package chromium, or set CHROMIUM to its path) "
         "and the packages playwright and axe-playwright-python.")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")  # whatever asks for another host finds none

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


# Boxes that scroll sideways, out of reach of the keyboard in browsers that do not focus them by themselves.
MOUSE_ONLY = """() => [...document.querySelectorAll("main *")]
  .filter((box) => ["auto", "scroll"].includes(getComputedStyle(box).overflowX) && box.scrollWidth > box.clientWidth + 1
    && box.clientWidth > 0 && box.tabIndex < 0 && !box.querySelector("a, button, input, [tabindex='0']"))
  .map((box) => `<${box.tagName.toLowerCase()} class="${box.className}">`).slice(0, 5)"""
# axe's time grows with the number of elements, and a chapter has thousands of coloured words of code and of drawn
# parts of formulas. Of each class of word in each kind of code box one is kept, the others become plain text;
# a formula keeps what a screen reader reads. Done after the measurements, for axe alone.
SIMPLIFY = """() => {
  const seen = new Set();
  for (const word of document.querySelectorAll(".highlight pre span")) {
    const look = word.className + word.style.cssText + "/" + (word.closest(".cell_input, .cell_output, .highlight")?.className ?? "");
    if (seen.has(look) || look.startsWith("/")) word.replaceWith(...word.childNodes);
    else seen.add(look);
  }
  for (const drawn of document.querySelectorAll("mjx-container > mjx-math")) drawn.replaceChildren();
}"""


@dataclass
class Findings:
    """What one visit found; each list is empty on a good page."""

    external: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    sticking_out: list[str] = field(default_factory=list)
    mouse_only: list[str] = field(default_factory=list)
    accessibility: list[str] = field(default_factory=list)
    theme: str = ""
    loaded: set[str] = field(default_factory=set)

    def faults(self) -> list[str]:
        kinds = ("external", "console", "missing", "sticking_out", "mouse_only", "accessibility")
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
        import playwright.sync_api  # noqa: F401
    except ImportError:
        path = None
    if path is None:
        (pytest.fail if os.environ.get("REQUIRE_CHROMIUM") == "1" else pytest.skip)(NEEDS)
    return running(path)


@cache
def running(path: str):
    """One browser for the whole process, however many test files ask for it: a second one cannot be started beside it."""
    from playwright.sync_api import sync_playwright

    playwright = sync_playwright().start()
    browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
    atexit.register(lambda: (browser.close(), playwright.stop()))
    return browser


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


def accessibility(tab, rules: tuple[str, ...] = ()) -> list[str]:
    """Run axe (every rule, or the rules named) on the page as it stands; name the violations and their elements."""
    if not tab.evaluate("'axe' in window"):
        tab.evaluate(SIMPLIFY)
        tab.evaluate(axe_script())
    only = f", runOnly: {list(rules)}" if rules else ""
    found = tab.evaluate(f"axe.run(document, {{resultTypes: ['violations'], preload: false{only}}})"
                         ".then((result) => result.violations)")
    return [f"{rule['id']}: " + "; ".join(f"{node['target'][0]} {node['html'][:120]}" for node in rule["nodes"][:3])
            for rule in found]


@contextlib.contextmanager
def opened(chromium, base: str, page: str, width: int = 1280, mode: str = "light", findings: Findings | None = None):
    """Open a page in a fresh context, noting every request that would leave the site and every complaint."""
    findings = findings if findings is not None else Findings()
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=mode,
                                   reduced_motion="reduce")  # no colour is caught half way
    ours = (base, "data:", "blob:")
    try:
        tab = context.new_page()
        tab.on("request", lambda asked: asked.url.startswith(ours) or findings.external.append(asked.url))
        tab.on("console", lambda said: said.type in ("error", "warning") and findings.console.append(said.text))
        tab.on("pageerror", lambda error: findings.console.append(str(error)))
        tab.on("response", lambda answer: findings.missing.append(answer.url) if answer.status >= 400
               else findings.loaded.add(answer.url))
        tab.goto(f"{base}{page}.html", wait_until="load")
        tab.evaluate(TYPESET)
        yield tab
    finally:
        context.close()


def settle(tab) -> None:
    """Let a change of size or colour come to rest: the page's own scripts wait 200 ms after the last resize."""
    tab.evaluate("new Promise((done) => setTimeout(done, 350))")


def visit(chromium, base: str, page: str, width: int, modes=MODES) -> dict[str, Findings]:
    """Open a page at a width, unfold it, and look for everything at once.

    The first colour mode is checked in full; switching to another changes colours only, so there the
    measurements are not repeated and axe runs the rules about colour.
    """
    from playwright.sync_api import TimeoutError as Late

    seen = {mode: Findings() for mode in modes}
    with opened(chromium, base, page, width, modes[0], seen[modes[0]]) as tab:
        tab.evaluate(OPEN_DETAILS)
        for mode, found in seen.items():
            tab.emulate_media(color_scheme=mode,
                                   reduced_motion="reduce")  # no colour is caught half way
            with contextlib.suppress(Late):  # a busy machine is late; a page that never follows is found below
                tab.wait_for_function("(mode) => document.documentElement.dataset.theme === mode", arg=mode, timeout=5000)
            settle(tab)
            found.theme = tab.evaluate("document.documentElement.dataset.theme ?? ''")
            if mode == modes[0]:
                found.sticking_out = tab.evaluate(STICKING_OUT)
                found.mouse_only = tab.evaluate(MOUSE_ONLY)
            found.accessibility = accessibility(tab, () if mode == modes[0] else COLOUR_RULES)
    return seen


def gzipped_kb(html: Path, base: str, loaded: set[str]) -> float:
    """What a visit transfers if the server compresses, in kB (fonts and pictures are compressed already)."""
    files = {html / unquote(urlsplit(url).path).lstrip("/") for url in loaded if url.startswith(base)}
    done = (".woff", ".woff2", ".png")
    return sum(len(data if path.suffix in done else gzip.compress(data, 6))
               for path in files if path.is_file() for data in [path.read_bytes()]) / 1000
