"""Build the site from the committed notebooks, if anything it is made from has changed.

    python -m tools.site            build; the exit code is 0 only if there was no warning
    python -m tools.site --serve    build, then serve it on this machine

The build always starts from nothing, beside the old site, and replaces it when it is done: pages of deleted
chapters, old menus and old search entries cannot remain. When no input changed, nothing is built.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools import pyodide, serve

ROOT = Path(__file__).resolve().parents[1]
NOT_PAGES = {".git", ".venv", ".ci", "_build", "build", "tests", "tools", "Makefile", "LICENSE", "README.md", "CONTRIBUTING.md",
             "CHANGELOG.md"}  # at the top; everything else may be part of the site


def fingerprint(root: Path = ROOT) -> str:
    """One fingerprint of every file the site can depend on, names included."""
    sha = hashlib.sha256(sys.version.encode())
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        derived = any(part.startswith(".") or part in ("__pycache__", "_vendor") or part.endswith(".egg-info") for part in parts)
        if parts[0] in NOT_PAGES or derived or not path.is_file() or (parts[0] == "chapters" and path.suffix == ".py"):
            continue
        sha.update(path.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    sha.update(repr(pyodide.missing(root / "_vendor" / "pyodide")).encode())  # the pages say whether their cells can run
    return sha.hexdigest()


def command(output: Path, root: Path = ROOT) -> list[str]:
    """The Jupyter Book command: from nothing, every warning an error, every reference checked."""
    return [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(root), "--path-output", str(output), "--all", "-W", "-n",
            "--keep-going"]


def build(root: Path = ROOT) -> bool:
    """Bring `_build/html` up to date; return whether that went without a warning."""
    site, fresh, stamp = root / "_build" / "html", root / "_build" / "next", root / "_build" / "built-from"
    wanted = fingerprint(root)
    if stamp.exists() and stamp.read_text() == wanted and (site / "index.html").exists():
        print("The site is up to date.", flush=True)
        return True
    stamp.unlink(missing_ok=True)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    print("Building the site ...", flush=True)
    began, shown = time.monotonic(), ""
    process = subprocess.Popen(command(fresh, root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root,
                               env={**os.environ, "PYTHONUNBUFFERED": "1"})
    log = []
    for raw in process.stdout:
        line = re.sub(r"\x1b\[[0-9;]*m", "", raw).replace(f"{root}/", "")
        log.append(line)
        step = line.split("...")[0].strip() if "%" in line else ""
        if any(word in line for word in ("WARNING", "ERROR", "Traceback")):
            print("    " + line.rstrip(), flush=True)
        elif step in ("reading sources", "writing output") and step != shown:
            shown = step
            print(f"    {time.monotonic() - began:4.0f} s  {step}", flush=True)
    good = process.wait() == 0
    made = fresh / "_build" / "html"
    if not (made / "index.html").exists():
        print("".join(log[-25:]), file=sys.stderr)
        print("The site could not be built.", file=sys.stderr)
        return False
    shutil.rmtree(site, ignore_errors=True)
    made.rename(site)
    shutil.rmtree(fresh)
    if good and fingerprint(root) == wanted:  # nothing was edited while it was built
        stamp.write_text(wanted)
    print(f"    {time.monotonic() - began:4.0f} s  done" + ("" if good else ", with the warnings above (`make test` refuses them)"),
          flush=True)
    return good


def main() -> int:
    """Read the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="serve the site afterwards, warnings or not")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    pyodide.tried()
    good = build()
    if options.serve and (ROOT / "_build" / "html" / "index.html").exists():
        return serve.serve(ROOT / "_build" / "html", options.port)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
