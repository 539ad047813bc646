"""Cells that run on the page: which ones, what is packed for them, and the scripts that a page with such cells loads.

Opted in are the code cells of the pages that ``live_cells_pages`` in ``_config.yml`` matches, and any cell tagged
``live``. At the end of the build three things are put beside the pages, all served by the site itself:

- ``_static/pyodide/``: what `tools.pyodide` fetched, if it is there;
- a wheel of this tree (`attnlib`'s NumPy rooms, its figures, the coursework checks), the same bytes for the same tree;
- Pyodide's own lock, cut to the packages that are served, with an entry for that wheel.

Names with a checksum in them, so that no browser puts an old file beside a new one.
"""

from __future__ import annotations

import ast
import fnmatch
import gzip
import hashlib
import io
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import pyodide  # noqa: E402

logger = logging.getLogger(__name__)

ROOMS = ("__init__.py", "_shapes.py", "reference.py", "positions.py", "masks.py", "costs/*", "data/*", "plots/*", "widgets/*")
CHECKS = ("__init__.py", "form.py", "judging.py", "observing.py", "running.py", "wire.py", "pool/*.py")
OWN = {"live_runtime.py": "live_runtime.py", "live_anywidget.py": "anywidget.py"}  # of _ext, and what they are called there
NOT_IN_A_BROWSER = re.compile(r"^\s*(?:import|from) (?:torch|triton)\b", re.MULTILINE)
ELSEWHERE = {"torch": "PyTorch", "triton": "Triton", "ipywidgets": "ipywidgets"}
FOLDER = "live-cells"
EPOCH = (1980, 1, 1, 0, 0, 0)


# --- What kind of cell --------------------------------------------------------------------------------------------

def read(tree: ast.AST) -> set[str]:
    """Names that are read somewhere in a tree."""
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def bound(tree: ast.AST) -> set[str]:
    """Names that a cell leaves behind: not those inside its functions and comprehensions."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(a.asname or a.name).split(".")[0] for a in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            found |= bound(node)
    return found - {"_"}


def only_draws(tree: ast.Module, later: set[str]) -> bool:
    """Whether leaving this cell out changes nothing below: it calls `plots` and `plt`, and binds no name used later.

    Such cells are not run on the way to a cell further down, so that nobody waits for figures not asked for.
    """
    called = {n.func.value.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
              and isinstance(n.func.value, ast.Name)}
    own = bound(tree)
    for node in tree.body:
        if isinstance(node, ast.Assign) and all(isinstance(t, ast.Name | ast.Tuple) for t in node.targets):
            continue
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            return False
    return {"plots", "plt"} <= called and not own & later and "rng" not in read(tree) and "print" not in read(tree)


def kinds(cells: list[tuple[str, set[str]]], everywhere: bool) -> list[dict]:
    """For each code cell (source, tags) what the page has to know of it, in order.

    Returns
    -------
    list of dict
        ``{}`` for a cell that is not live; otherwise ``kind``: ``cell``; ``drawing`` (not run on the way to others);
        ``measured`` (a timing or a training, run on the way only to who uses the names it ``makes``); ``stub``, ``check``,
        ``solution`` (of the exercise ``of``); or ``elsewhere`` (with ``needs``, what a browser does not have).
    """
    trees = []
    for source, _ in cells:
        try:
            trees.append(ast.parse(source))
        except SyntaxError:
            trees.append(ast.parse(""))
    missing: dict[str, str] = {}  # names made from what is not there, and what that is
    found = []
    for i, (tree, (_, tags)) in enumerate(zip(trees, cells, strict=True)):
        needs = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                asked = [getattr(node, "module", None) or a.name for a in node.names]
                rooms = {"torch" for name in asked if name.startswith("attnlib.") and not served(name)}
                for room in {name.split(".")[0] for name in asked} & set(ELSEWHERE) | rooms:
                    needs.add(ELSEWHERE[room])
                    missing.update({(a.asname or a.name).split(".")[0]: ELSEWHERE[room] for a in node.names})
        needs |= {missing[name] for name in read(tree) if name in missing}
        made = bound(tree)
        if "torch-check" in tags:  # nothing that such a cell makes is used elsewhere: a guard sees to it
            needs, missing = {"PyTorch"}, {name: what for name, what in missing.items() if name not in made}
        elif needs:
            missing.update({name: sorted(needs)[0] for name in made})
        else:
            missing = {name: what for name, what in missing.items() if name not in made}
        exercise = next((part for part in ("stub", "check", "solution") if f"ex-{part}" in tags), "")
        if not (everywhere or "live" in tags):
            found.append({})
        elif needs:
            found.append({"kind": "elsewhere", "needs": " and ".join(sorted(needs))})
        elif exercise:
            found.append({"kind": exercise, "of": next((tag[3:] for tag in tags if tag.startswith("ex:")), "")})
        else:
            later = set().union(*(read(other) for other in trees[i + 1:]))
            kind = "drawing" if only_draws(tree, later) else "cell"
            if kind == "cell" and "nbval-ignore-output" in tags and "rng" not in read(tree):
                kind = "measured"
            found.append({"kind": kind} | ({"makes": sorted(made)} if made and kind != "drawing" else {}))
    return found


def served(module: str) -> bool:
    """Whether a module of attnlib is in the pages' wheel."""
    room = module.split(".")[1]
    return any(pattern.split("/")[0].removesuffix(".py") == room for pattern in ROOMS)


def read_cells(app: Sphinx, doctree: nodes.document) -> None:
    """Note a page's code cells, if any of them is live."""
    page = app.env.docname
    everywhere = any(fnmatch.fnmatch(page, pattern) for pattern in app.config.live_cells_pages)
    cells = []
    for cell in doctree.findall(nodes.container):
        if "cell" in cell.get("classes", ()):
            tags = {name.removeprefix("tag_") for name in cell["classes"] if name.startswith("tag_")}
            source = next((code.astext() for code in cell.findall(nodes.literal_block)), "")
            cells.append((source, tags))
    found = kinds(cells, everywhere)
    doctree["live_cells"] = found if any(found) else []


def add_scripts(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """A page with live cells says which they are, and loads the script; no other page does."""
    cells = doctree.get("live_cells") if doctree is not None else None
    if not cells:
        return
    said = {**packed(app), "cells": cells}
    text = json.dumps(said, separators=(",", ":")).replace("<", "\\u003c")
    context["body"] += f'<script type="application/json" id="live-cells">{text}</script>'
    app.add_js_file(f"{FOLDER}/page.mjs", type="module")
    app.add_js_file(f"{FOLDER}/from-a-file.mjs")


# --- What is packed -------------------------------------------------------------------------------------------------

def members(root: Path = ROOT) -> dict[str, Path]:
    """Name inside the wheel -> file of this tree. An exercise that needs torch is left out."""
    found: dict[str, Path] = {}
    for package, patterns in (("attnlib", ROOMS), ("coursework", CHECKS)):
        for pattern in patterns:
            for path in (root / package).glob(pattern):
                if not path.is_file() or path.suffix == ".pyc":
                    continue
                if path.parent.name == "pool" and NOT_IN_A_BROWSER.search(path.read_text("utf-8")):
                    continue
                found[path.relative_to(root).as_posix()] = path
    return found | {name: root / "_ext" / own for own, name in OWN.items()}


def wheel(root: Path = ROOT) -> bytes:
    """A wheel of what the pages need of this tree; the same tree gives the same bytes."""
    files = {name: path.read_bytes() for name, path in members(root).items()}
    info = "attnlib-0.dist-info"
    files[f"{info}/METADATA"] = b"Metadata-Version: 2.1\nName: attnlib\nVersion: 0\n"
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: book\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*sorted(files), f"{info}/RECORD"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def lock(own: bytes, name: str, vendor: Path) -> dict:
    """Pyodide's own lock, cut to what is served, and an entry for the wheel of this tree."""
    whole = json.loads((vendor / pyodide.LOCK).read_text("utf-8"))
    kept = {key: entry for key, entry in whole["packages"].items() if key in pyodide.PACKAGES}
    for key, entry in kept.items():
        kept[key] = {**entry, "depends": [d for d in entry["depends"] if d not in pyodide.UNUSED], "unvendored_tests": False}
    kept["attnlib"] = {
        "name": "attnlib", "version": "0", "file_name": name, "install_dir": "site", "package_type": "package", "depends": ["numpy"],
        "sha256": hashlib.sha256(own).hexdigest(), "imports": ["attnlib", "coursework", "live_runtime", "anywidget"],
        "unvendored_tests": False, "shared_library": False,
    }
    return {"info": whole["info"], "packages": kept}


def megabytes(files: list[bytes]) -> float:
    """What these transfer from a server that compresses."""
    return sum(len(data if data[:2] == b"PK" else gzip.compress(data, 6)) for data in files) / 1e6


def packed(app: Sphinx) -> dict:
    """What a page has to know: the lock's name and the sizes; ``lock`` is empty where Pyodide has not been fetched."""
    if (said := getattr(app, "_live_cells", None)) is None:
        vendor = Path(app.srcdir) / "_vendor" / "pyodide"
        lacking = pyodide.missing(vendor)
        sources = [path.read_bytes() for path in sorted((Path(app.srcdir) / "_static" / FOLDER).glob("*.mjs"))]
        said = {"lock": "", "version": hashlib.sha256(b"".join(sources)).hexdigest()[:8]}
        if lacking:
            logger.info("live cells: Pyodide is not in _vendor; the buttons will say so (python -m tools.pyodide)")
        else:
            own = wheel(Path(app.srcdir))
            name = f"attnlib-0.{int(hashlib.sha256(own).hexdigest()[:8], 16)}-py3-none-any.whl"
            text = json.dumps(lock(own, name, vendor), separators=(",", ":"), sort_keys=True).encode()
            known = json.loads((vendor / pyodide.LOCK).read_text("utf-8"))["packages"]
            core = [(vendor / file).read_bytes() for file in pyodide.CORE if file != pyodide.LOCK]
            wheels = {key: (vendor / known[key]["file_name"]).read_bytes() for key in pyodide.PACKAGES}
            said |= {"lock": f"lock-{hashlib.sha256(text).hexdigest()[:8]}.json",
                     "megabytes": round(megabytes([*core, own, text, wheels["numpy"]])),
                     "figures": round(megabytes([wheels[key] for key in pyodide.FIGURES]))}
            app._live_files = {name: own, said["lock"]: text}
        app._live_cells = said
    return said


def copy_files(app: Sphinx, exception: Exception | None) -> None:
    """Put Pyodide, the wheel and the lock beside the pages."""
    if exception is not None or app.builder.format != "html" or not packed(app)["lock"]:
        return
    target, vendor = Path(app.outdir) / "_static" / "pyodide", Path(app.srcdir) / "_vendor" / "pyodide"
    target.mkdir(parents=True, exist_ok=True)
    for name in pyodide.wanted(vendor):
        if name != pyodide.LOCK:
            shutil.copyfile(vendor / name, target / name)
    for name, data in app._live_files.items():
        (target / name).write_bytes(data)


def setup(app: Sphinx) -> dict:
    app.add_config_value("live_cells_pages", [], "env")
    app.connect("doctree-read", read_cells, priority=400)
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": False, "env_version": 1}
