"""Try the book with the newest versions of what it depends on, and write down what differs and what fails.

    python -m tools.newest install            the direct dependencies, without their pins, into this environment
    python -m tools.newest run report.md      build, test, execute; the exit code is 0 only if everything passed

Meant for an environment of its own. The report is Markdown, for an issue: a failing part first, then every version that
differs from its pin. Notebooks are executed but their outputs are not compared: a new last digit is not a fault.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tools.setup import sections

ROOT = Path(__file__).resolve().parents[1]
LEVELS = ("book", "run", "test")
HELD = {"jupyter-book": "jupyter-book<2"}  # Jupyter Book 2 is another program: it ignores _config.yml
PINS = ("tests/test_house.py::test_house[installed_equal_pins]", "tests/test_house.py::test_house[pyproject_agrees]")  # differ on purpose
SHOWN = 12_000  # characters of a failing part's output: an issue holds 65,536


@dataclass
class Part:
    """How one part went: its name, its exit code and the end of what it printed."""

    name: str
    code: int
    output: str = ""


def loosened(pins: list[str]) -> list[str]:
    """Requirements without their versions, but for what is held."""
    names = [re.match(r"([A-Za-z0-9_.-]+)==[^\s;]+\s*(;.*)?$", pin) for pin in pins]
    return [HELD.get(found[1], found[1] + (f" {found[2]}" if found[2] else "")) for found in names if found]


def commands(python: str = sys.executable) -> dict[str, list[str]]:
    """The parts, each a command."""
    skipped = [f"--deselect={test}" for test in PINS]
    return {
        "site": [python, "-m", "tools.site"],
        "tests": [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", *skipped, "tests"],
        "notebooks": [python, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", "-n", "2", "--dist", "loadfile", "chapters"],
    }


def run(name: str, command: list[str]) -> Part:
    """Run one part, showing what it prints as it comes."""
    print(f"\n--- {name}", flush=True)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return Part(name, process.wait(), "".join(lines))


def installed(name: str) -> str:
    """The version of a package here."""
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return "not installed"


def versions(pins: list[str], here: Callable[[str], str] = installed) -> list[tuple[str, str, str]]:
    """(package, pinned, here) of everything that differs."""
    found = [re.match(r"([A-Za-z0-9_.-]+)==([^\s;]+)", pin) for pin in pins]
    each = [(match[1], match[2], here(match[1])) for match in found if match]
    return [(name, pinned, now) for name, pinned, now in each if pinned != now]


def report(parts: list[Part], differing: list[tuple[str, str, str]]) -> str:
    """The text of the issue."""
    failed = [part for part in parts if part.code]
    text = ["The book was built and tested with the newest versions of its direct dependencies "
            "(`.github/workflows/newest.yml`). " + (
                "**" + ", ".join(part.name for part in failed) + "** failed." if failed else "Everything passed: the pins can be moved.")]
    text += ["", "| package | pinned | newest |", "|---|---|---|"] + [f"| {name} | {old} | {new} |" for name, old, new in differing]
    if not differing:
        text += ["| (no version differs) | | |"]
    for part in failed:
        end = re.sub(r"\x1b\[[0-9;]*m", "", part.output)[-SHOWN:].replace("```", "'''")
        text += ["", f"<details><summary>{part.name}: exit code {part.code}, the end of its output</summary>", "", "```text",
                 end.strip(), "```", "", "</details>"]
    return "\n".join(text) + "\n"


def main() -> int:
    """Read the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.newest", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("install", "run"))
    parser.add_argument("report", nargs="?", type=Path, help="where `run` writes its report")
    options = parser.parse_args()
    levels = sections()
    pins = [pin for level in LEVELS for pin in levels[level]]
    if options.command == "install":
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        for arguments in (loosened(pins), ["--no-deps", *levels["models"]], ["--no-deps", "--editable", "."]):
            if code := subprocess.run([*pip, *arguments], cwd=ROOT, check=False).returncode:
                return code
        return 0
    if options.report is None:
        parser.error("run needs a file for its report")
    parts = [run(name, command) for name, command in commands().items()]
    options.report.write_text(report(parts, versions(pins)), encoding="utf-8")
    return 1 if any(part.code for part in parts) else 0


if __name__ == "__main__":
    sys.exit(main())
