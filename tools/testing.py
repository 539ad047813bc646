"""Run every test of the book: the linter, the tests, and each notebook's cells compared with what they printed.

    python -m tools.testing                    everything; the exit code is 0 only if all of it passed
    python -m tools.testing ruff tests chapters    some of it
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from tools import chapters
from tools.notebooks import CELL_SECONDS, kernel_environment

STEPS = ("ruff", "tests", "chapters")
WORKERS = 2


@dataclass
class Result:
    """How one step ended."""

    name: str
    code: int
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""


def pytest(*arguments: str) -> list[str]:
    """The command that runs pytest in this environment."""
    return [sys.executable, "-m", "pytest", "-q", *arguments]


def nbval_command(*notebooks: str) -> list[str]:
    """The command that executes notebooks again and compares every output, a kernel for each."""
    workers = ["-n", str(WORKERS), "--dist", "loadfile"] if len(notebooks) > 1 else []
    return pytest("--nbval", "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}", *workers, *notebooks)


def counts(report: Path) -> tuple[int, int, int]:
    """Read passed, failed and skipped from a JUnit report; a missing report counts as one failure."""
    if not report.exists():
        return 0, 1, 0
    total = failed = skipped = 0
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return total - failed - skipped, failed, skipped


def run(name: str, command: list[str], folder: Path, environment: dict[str, str] | None = None) -> Result:
    """Run one step, its output shown as it comes, and read its counts."""
    print(f"\n--- {name}: {' '.join(['python', *command[1:]])}", flush=True)
    report = folder / f"{name}.xml"
    counted = [f"--junitxml={report}"] if "pytest" in command else []
    began = time.perf_counter()
    code = subprocess.run([*command, *counted], cwd=chapters.ROOT, env=environment, check=False).returncode
    result = Result(name, code, time.perf_counter() - began)
    if counted:
        result.passed, result.failed, result.skipped = counts(report)
    return result


def run_chapters(folder: Path) -> Result:
    """Compare every cell of every notebook; a cell that nbval did not see is a failure."""
    wanted = chapters.find(chapters.ROOT)
    stored = {c: nb for c in wanted if (nb := chapters.read_notebook(c))}
    if not stored:
        return Result("chapters", 1, 0.0, failed=1, note="there are no notebooks: run `make notebooks`")
    code = [cell for nb in stored.values() for cell in nb.cells if cell.cell_type == "code"]
    own = sum("nbval-ignore-output" in cell.metadata.get("tags", []) for cell in code)
    with tempfile.TemporaryDirectory() as private:
        result = run("chapters", nbval_command(*(str(c.notebook.relative_to(chapters.ROOT)) for c in stored)), folder,
                     kernel_environment(private))
    seen = result.passed + result.failed + result.skipped
    result.note = f"{seen} of {len(code)} code cells in {len(stored)} notebooks compared, {own} of them by their own assertion"
    if seen != len(code) or result.skipped:
        result.code = result.code or 1
        result.note += ": NOT ALL COMPARED"
    if len(stored) < len(wanted):
        result.code = result.code or 1
        result.note += f"; {len(wanted) - len(stored)} notebooks are missing: run `make notebooks`"
    return result


def summary(results: list[Result]) -> str:
    """One table, and one closing line with the totals."""
    lines = ["", "--- summary"]
    for r in results:
        numbers = f"{r.passed} passed, {r.failed} failed, {r.skipped} skipped" if r.name != "ruff" else ""
        lines.append(f"{r.name:<9} {'ok' if r.code == 0 else f'FAILED ({r.code})':<11} {r.seconds:6.1f} s  "
                     + "; ".join(filter(None, [numbers, r.note])))
    lines.append(f"{'total':<21} {sum(r.seconds for r in results):6.1f} s")
    lines.append(f"{sum(r.passed for r in results)} passed, "
                 f"{sum(r.failed or int(r.code != 0) for r in results)} failed, {sum(r.skipped for r in results)} skipped")
    return "\n".join(lines)


def main() -> int:
    """Run the steps asked for, all of them to the end, and return 0 if every one passed."""
    parser = argparse.ArgumentParser(prog="python -m tools.testing", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}; all by default")
    asked = parser.parse_args().steps or list(STEPS)
    if unknown := set(asked) - set(STEPS):
        parser.error(f"no step {', '.join(unknown)}")
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for step in asked:
            if step == "ruff":
                results.append(run("ruff", [sys.executable, "-m", "ruff", "check", "."], folder))
            elif step == "tests":
                results.append(run("tests", pytest("-n", str(WORKERS), "--dist", "loadgroup", "tests"), folder))
            else:
                results.append(run_chapters(folder))
    print(summary(results), flush=True)
    return 1 if any(r.code for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
