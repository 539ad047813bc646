"""Run what has to work on Linux, macOS and Windows: the library's tests, and every notebook from top to bottom.

    python -m tools.portable            both; the exit code is 0 only if all of it passed
    python -m tools.portable --list     say what would run here, and what is left out and why

The notebooks run with nbval-lax: each cell must run and its assertions hold; outputs are not compared, since other systems print
other paths and last digits. The tests of the book itself (pages, coursework, tools) need make, a sandbox and Chromium: `make test`.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import chapters
from tools.inputs import imported, module_file
from tools.notebooks import CELL_SECONDS, kernel_environment
from tools.testing import WORKERS, pytest

BOOK = {"tests.guards", "tests.pages", "tools.bench", "tools.notebooks", "tools.testing", "tools.newest", "tools.portable", "_ext"}  # whoever imports these tests the book
LIBRARY = "attnlib"
PROCESSES = "attnlib.ring"  # starts several processes, which PyTorch's Windows build does not do reliably


def reason(names: set[str], platform: str, triton: bool) -> str:
    """Say why something that imports `names` cannot run on a system, or return an empty string."""
    if "triton" in names and not triton:
        return "Triton is made for Linux"
    if PROCESSES in names and platform == "win32":
        return "several processes of PyTorch on Windows"
    return ""


def names_of(code: str, package: str = "") -> set[str]:
    """Every name that some Python imports when it is loaded; what it imports later, in a function, it may never need."""
    loaded = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return imported(ast.Module(loaded, []), package)


def reached(root: Path, names: set[str]) -> set[str]:
    """These names, and all that attnlib imports when they are loaded."""
    seen, queue = set(), [*names]
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            if file := module_file(root, name):
                queue += names_of(file.read_text(encoding="utf-8"), name if file.name == "__init__.py" else name.rpartition(".")[0])
    return seen


def choose(root: Path, platform: str = sys.platform, triton: bool | None = None) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the test files and the notebooks that run here, and what is left out with its reason."""
    triton = importlib.util.find_spec("triton") is not None if triton is None else triton
    tests, notebooks, left_out = [], [], {}
    for path in sorted((root / "tests").glob("test_*.py")):
        names = names_of(path.read_text(encoding="utf-8"))
        if LIBRARY in names and not names & BOOK:
            name = path.relative_to(root).as_posix()
            if why := reason(reached(root, names), platform, triton):
                left_out[name] = why
            else:
                tests.append(name)
    for chapter in chapters.find(root):
        code = [cell.source for cell in chapters.read_source(chapter).cells if cell.cell_type == "code"]
        name = chapter.notebook.relative_to(root).as_posix()
        if why := reason(reached(root, names_of("\n".join(code))), platform, triton):
            left_out[name] = why
        else:
            notebooks.append(name)
    return tests, notebooks, left_out


def main() -> int:
    """Run the tests, then the notebooks, both to the end."""
    parser = argparse.ArgumentParser(prog="python -m tools.portable", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="run nothing")
    options = parser.parse_args()
    tests, notebooks, left_out = choose(chapters.ROOT)
    for name, why in left_out.items():
        print(f"left out: {name} ({why})", flush=True)
    if options.list:
        print(*tests, *notebooks, sep="\n")
        return 0
    workers = ["-n", str(WORKERS), "--dist"]
    with tempfile.TemporaryDirectory() as private:
        codes = [subprocess.run(command, cwd=chapters.ROOT, env=environment, check=False).returncode for command, environment in (
            (pytest(*workers, "loadgroup", *tests), None),
            (pytest("--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}", *workers, "loadfile", *notebooks),
             kernel_environment(private)))]
    print(f"tests: {'ok' if codes[0] == 0 else 'FAILED'}, notebooks: {'ok' if codes[1] == 0 else 'FAILED'}, "
          f"{len(left_out)} left out", flush=True)
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
