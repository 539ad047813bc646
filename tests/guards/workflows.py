"""What runs on a host of repositories: it does what it names, may do no more than it needs, and cannot be green while failing.

These files cannot be run here, so what can be known by reading them is checked: every command, target, file, action,
permission and reference of `.github/workflows/*.yml`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.guards import Finding

WRITES = {"pages": "deploy-pages", "id-token": "deploy-pages", "issues": "gh issue"}  # permission to write -> what needs it
RUNNERS = re.compile(r"(ubuntu-\d\d\.04|macos-\d\d|windows-\d{4})$")                    # not `latest`: it changes by itself
PINNED = re.compile(r"actions/[a-z-]+@v\d+\.\d+\.\d+$")                               # the host's own actions, by full version
SWALLOWED = re.compile(r"\|\|\s*(?:true|:|exit 0)|set \+e|--exit-zero|;\s*true\s*$", re.MULTILINE)
UNTRUSTED = re.compile(r"\$\{\{")                                                     # a value pasted into a script; pass it by env


def read(path: Path) -> dict:
    """A workflow; YAML takes the key `on` for true."""
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        raise yaml.YAMLError("is no mapping")
    return {("on" if key is True else key): value for key, value in loaded.items()}


def workflows(root: Path) -> list[Finding]:
    """Every fault of every workflow."""
    found = []
    for path in sorted((root / ".github" / "workflows").glob("*.y*ml")):
        name = path.relative_to(root).as_posix()
        try:
            about = read(path)
        except yaml.YAMLError as error:
            found.append(Finding(name, f"cannot be read: {error}"))
            continue
        found += [Finding(name, text) for text in faults(root, about, path.read_text(encoding="utf-8"))]
    return found


def faults(root: Path, about: dict, text: str) -> Iterator[str]:
    """The faults of one workflow, each as a sentence."""
    for key in ("name", "on", "permissions", "jobs"):
        if not about.get(key):
            yield f"has no {key}"
    if "secrets." in text:
        yield "uses a secret"
    if about.get("permissions") and about["permissions"] != {"contents": "read"}:
        yield f"asks for {about['permissions']} for all its jobs, not for contents: read alone"
    jobs = about.get("jobs") or {}
    for label, job in jobs.items():
        for fault in job_faults(root, job, jobs):
            yield f"job {label} {fault}"


def job_faults(root: Path, job: dict, jobs: dict) -> Iterator[str]:
    """The faults of one job."""
    steps, matrix = job.get("steps") or [], (job.get("strategy") or {}).get("matrix") or {}
    text = yaml.safe_dump(job, width=10_000)
    if "timeout-minutes" not in job:
        yield "has no timeout-minutes"
    runners = matrix.get("os", []) if "matrix.os" in str(job.get("runs-on")) else [job.get("runs-on")]
    yield from (f"runs on {runner!r}, not a version of a runner" for runner in runners or ["nothing"] if not RUNNERS.match(str(runner)))
    yield from (f"uses matrix.{used}, which its matrix lacks" for used in sorted({*re.findall(r"matrix\.(\w+)", text)} - {*matrix}))
    needs = job.get("needs") or []
    yield from (f"needs {each}, which is no job" for each in ([needs] if isinstance(needs, str) else needs) if each not in jobs)
    ids = {step.get("id") for step in steps}
    yield from (f"uses steps.{used}, which is no step" for used in sorted({*re.findall(r"steps\.(\w+)", text)} - ids))
    for permission, level in (job.get("permissions") or {}).items():
        if level == "write" and WRITES.get(permission, "\0") not in text:
            yield f"may write {permission} and does not need to"
    if "continue-on-error" in text:
        yield "goes on after an error"
    windows = any(str(runner).startswith("windows") for runner in runners)
    shell = ((job.get("defaults") or {}).get("run") or {}).get("shell")
    for step in steps:
        if uses := step.get("uses"):
            if not PINNED.match(uses):
                yield f"uses {uses}, not one of actions/ by its full version"
            if uses.startswith("actions/checkout") and (step.get("with") or {}).get("persist-credentials") is not False:
                yield "leaves its token in the checkout (persist-credentials: false)"
            if uses.startswith("actions/setup-python"):
                yield from python_faults(root, (step.get("with") or {}).get("python-version"))
        if script := step.get("run"):
            yield from (f"runs {script.splitlines()[0]!r}: {fault}" for fault in script_faults(root, script, windows))
            if windows and (step.get("shell") or shell) != "bash":
                yield f"runs {script.splitlines()[0]!r} on Windows without shell: bash"


def python_faults(root: Path, version: object) -> Iterator[str]:
    """The Python that is set up is the oldest that the project promises, as a text (3.10 is not 3.1)."""
    oldest = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"].removeprefix(">=")
    if version != oldest:
        yield f"sets up Python {version!r}, not {oldest!r}"


def script_faults(root: Path, script: str, windows: bool) -> Iterator[str]:
    """The faults of one `run:`."""
    makefile = (root / "Makefile").read_text(encoding="utf-8") if (root / "Makefile").exists() else ""
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for asked in re.findall(r"(?:^|[;&|]\s*|\s)make +([a-z-]+)", script):
        if asked not in targets:
            yield f"there is no make {asked}"
        if windows:
            yield "there is no make on Windows"
    for module in re.findall(r"-m (tools[\w.]*)", script):
        if not any((root / (module.replace(".", "/") + end)).exists() for end in (".py", "/__main__.py")):
            yield f"there is no {module}"
    for file in re.findall(r"(?<![\w/.])((?:tools|tests|\.ci|\.binder)/[\w./-]+)", script):
        if not (root / file).exists():
            yield f"there is no {file}"
    if SWALLOWED.search(script):
        yield "a failure is swallowed"
    if UNTRUSTED.search(script):
        yield "a value is pasted into the script; hand it over by env"
