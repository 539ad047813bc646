"""Cells that run on the page: put their scripts, Python and the book's own library into the site, for the chapters opted in.

`live_cells` in `_config.yml` lists those chapters (names as in `_toc.yml`, `*` allowed). Pyodide's files come from
`_vendor/pyodide` (`python -m tools.pyodide`); where they are missing the book is built all the same, and its buttons say so.
"""

import fnmatch
import gzip
import html
import io
import json
import re
import shutil
import zipfile
from functools import cache
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parent.parent
PARTS, VENDOR = ROOT / "_live", ROOT / "_vendor" / "pyodide"
ROOMS = ("__init__.py", "_shapes.py", "reference.py", "positions.py", "masks.py", "costs", "data/__init__.py", "data/minilm.json",
         "data/minilm_heads.npz", "plots")
LATER = {"minilm_layer0.npz": re.compile(r"real_layer|\"same_word\"|\"previous\""), "minilm_attention.npz": re.compile(r"real_attention")}
CODE = re.compile(r'<div class="highlight-i?python3? .*?<pre>(.*?)</pre>', re.DOTALL)
STARTS_WITH = ("pyodide.mjs", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip", "numpy-")  # the rest waits for a figure
STAMP = (1980, 1, 1, 0, 0, 0)
logger = logging.getLogger(__name__)


def opted_in(app: Sphinx, pagename: str) -> bool:
    return any(fnmatch.fnmatch(pagename, pattern) for pattern in app.config.live_cells)


def library_files(chapters: list[str]) -> dict[str, Path]:
    """What the page's Python imports: attnlib's NumPy rooms, coursework with the exercises of `chapters`, and the runner."""
    found = {"runner.py": PARTS / "runner.py"}
    for room in ROOMS:
        path = ROOT / "attnlib" / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found[file.relative_to(ROOT).as_posix()] = file
    for file in sorted((ROOT / "coursework").glob("*.py")):
        found[file.relative_to(ROOT).as_posix()] = file
    for file in sorted((ROOT / "coursework" / "pool").glob("*.py")):
        chapter = re.search(r'^CHAPTER = "([^"]+)"', file.read_text(encoding="utf8"), re.MULTILINE)
        if chapter is None or any(fnmatch.fnmatch(f"chapters/{chapter.group(1)}", pattern) for pattern in chapters):
            found[file.relative_to(ROOT).as_posix()] = file
    return found


def library(chapters: list[str]) -> bytes:
    """The same files as one archive, byte for byte the same for the same files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in library_files(chapters).items():
            archive.writestr(zipfile.ZipInfo(name, STAMP), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def complete() -> bool:
    """Whether Pyodide's files are there (their checksums were seen to when they were fetched)."""
    packages = json.loads((PARTS / "pyodide-lock.json").read_text(encoding="utf8"))["packages"].values()
    return all((VENDOR / name).is_file() for name in (*STARTS_WITH[:4], *(each["file_name"] for each in packages)))


@cache
def over_the_wire(path: Path) -> int:
    """Bytes of a file as a server sends it that compresses."""
    data = path.read_bytes()
    return len(data if path.suffix in (".whl", ".zip", ".npz") else gzip.compress(data, 6))


def facts(app: Sphinx, body: str) -> dict:
    """What the page's script is told: whether Python is there, what the first Run fetches, which data the page needs besides."""
    code = "\n".join(html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in CODE.findall(body))
    extras = [name for name, pattern in LATER.items() if pattern.search(code)]
    if not complete():
        return {"ready": False, "megabytes": 0, "extras": extras}
    core = sum(over_the_wire(path) for path in VENDOR.iterdir() if path.name.startswith(STARTS_WITH))
    own = len(library(app.config.live_cells)) + sum(over_the_wire(ROOT / "attnlib" / "data" / name) for name in extras)
    return {"ready": True, "megabytes": round((core + own) / 1e6), "extras": extras}


def add_scripts(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """The pages opted in load the script and the style, and know what a Run would fetch; no other page does."""
    if opted_in(app, pagename) and "cell_input" in context.get("body", ""):
        content = html.escape(json.dumps(facts(app, context["body"])))
        context["metatags"] = context.get("metatags", "") + f'\n<meta name="live-cells" content="{content}" />'
        app.add_css_file("live/live.css")
        app.add_js_file("live/live.mjs", type="module")


def copy_parts(app: Sphinx, exception: Exception | None) -> None:
    """Put the scripts, the library, the data and Pyodide beside each other under `_static/live`."""
    if exception is not None or app.builder.format != "html" or not app.config.live_cells:
        return
    target = Path(app.outdir) / "_static" / "live"
    (target / "data").mkdir(parents=True, exist_ok=True)
    for name in ("live.mjs", "worker.mjs", "live.css"):
        shutil.copyfile(PARTS / name, target / name)
    (target / "book.zip").write_bytes(library(app.config.live_cells))
    for name in LATER:
        shutil.copyfile(ROOT / "attnlib" / "data" / name, target / "data" / name)
    if complete():
        (target / "pyodide").mkdir(exist_ok=True)
        shutil.copyfile(PARTS / "pyodide-lock.json", target / "pyodide" / "pyodide-lock.json")
        for path in VENDOR.iterdir():
            shutil.copyfile(path, target / "pyodide" / path.name)
    else:
        logger.info("Pyodide is not in _vendor/pyodide: cells cannot be run on the pages (python -m tools.pyodide)")


def setup(app: Sphinx) -> dict:
    app.add_config_value("live_cells", [], "html", [list])
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", copy_parts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
