"""Pins, file lengths, docstrings, and no traces of a machine in any text file."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.guards import Finding, tracked

LINES = 200  # of code in a file of attnlib
EXACT = re.compile(r"^[A-Za-z0-9_.-]+==[^=*<>~!,;\s]+( ; sys_platform == 'linux')?$")
# Written in parts, so that this file does not find itself.
PLACES = re.compile(r"(?<![\w.:/~$})-])/(?:" + "|".join(["home", "root", "Users", "tmp", "work", "opt", "private"])
                    + r")/[A-Za-z0-9_.-]+")
HOSTS = re.compile(r"\b(?:files\.)?python" + r"hosted\.org|\bpypi\." + r"org|registry\.npm" + r"js\.org")
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".bib", ".cfg", ".json", ".ipynb", ".js", ".mjs", ".css", ".html",
        ".svg", ".sh", ""}


def requirements(root: Path) -> list[tuple[str, int, str]]:
    """Every requirement of the requirements files: (file, line, text)."""
    return [(name, number, line.split("#")[0].strip())
            for name in ("requirements.txt", "requirements-models.txt")
            for number, line in enumerate((root / name).read_text(encoding="utf-8").splitlines(), start=1)
            if line.split("#")[0].strip()]


def exact_pins(root: Path) -> list[Finding]:
    """Each requirement names one version, and each package stands in one place."""
    found, seen = [], {}
    for file, line, text in requirements(root):
        if not EXACT.match(text):
            found.append(Finding(f"{file}:{line}", f"{text} is not an exact pin", "name==version"))
        name = re.split(r"[=<>~!\[ ]", text)[0].lower().replace("_", "-")
        if name in seen:
            found.append(Finding(f"{file}:{line}", f"{name} is pinned at {seen[name]} already", "keep one"))
        seen[name] = f"{file}:{line}"
    return found


def pyproject_agrees(root: Path) -> list[Finding]:
    """What pyproject.toml asks for, with its extras, is met by the pins."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {text.split("==")[0].lower(): text.split("==")[1].split(";")[0].strip() for _, _, text in requirements(root)
            if "==" in text}
    asked = [*project.get("dependencies", []),
             *(text for extra in project.get("optional-dependencies", {}).values() for text in extra)]
    found = []
    if not project.get("dependencies"):
        found.append(Finding("pyproject.toml", "declares no dependencies", 'dependencies = ["numpy>=2"]'))
    for text in asked:
        wanted = Requirement(text)
        pin = pins.get(wanted.name.lower())
        if pin is None:
            found.append(Finding("pyproject.toml", f"asks for {text}, which requirements.txt does not pin", "pin it"))
        elif not wanted.specifier.contains(pin, prereleases=True):
            found.append(Finding("pyproject.toml", f"asks for {text}, but {wanted.name}=={pin} is pinned", "make them agree"))
    return found


def imports_are_pinned(root: Path) -> list[Finding]:
    """Every package that the project's own Python imports is pinned; Sphinx comes with Jupyter Book, as it needs it."""
    pins = {text.split("==")[0].lower().replace("_", "-") for _, _, text in requirements(root)} | {"sphinx", "docutils"}
    own = {"attnlib", "coursework"} | {path.name for path in root.iterdir()} | {path.stem for path in (root / "_ext").glob("*.py")}
    packages, found = metadata.packages_distributions(), []
    for path in tracked(root):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {name.split(".")[0] for name in names} - own - {"__future__"}:
                if top not in sys.stdlib_module_names and not pins & {
                        name.lower().replace("_", "-") for name in packages.get(top, [top])}:
                    found.append(Finding(f"{path.relative_to(root).as_posix()}:{node.lineno}", f"imports {top}, which "
                                         "requirements.txt does not pin", "pin it in the section that needs it"))
    return found


def installed_equal_pins(root: Path, levels: tuple[str, ...] = ("book", "run", "test")) -> list[Finding]:
    """The environment holds the pinned versions (a build's local part, as in 2.13.0+cpu, does not count)."""
    text = (root / "requirements.txt").read_text(encoding="utf-8")
    sections = re.split(r"^# --- (\w+)", text, flags=re.MULTILINE)
    wanted = {name: body for name, body in zip(sections[1::2], sections[2::2], strict=True)}
    missing = [level for level in levels if level not in wanted]
    found = [Finding("requirements.txt", f"has no section `# --- {level}`") for level in missing]
    for level in levels:
        for name, version, linux in re.findall(r"^([A-Za-z0-9_.-]+)==([^\s#]+)( ; sys_platform == 'linux')?",
                                               wanted.get(level, ""), re.MULTILINE):
            if linux and sys.platform != "linux":
                continue
            try:
                there = metadata.version(name).split("+")[0]
            except metadata.PackageNotFoundError:
                there = "nothing"
            if there != version:
                found.append(Finding("requirements.txt", f"pins {name}=={version}, installed is {there}", "make test"))
    return found


def file_lengths(root: Path) -> list[Finding]:
    """No file of attnlib holds more than about 200 lines of code; docstrings are as long as they need to be."""
    found = []
    for path in sorted((root / "attnlib").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        count = sum(bool(line.strip()) for line in text.splitlines()) - documentation(ast.parse(text))
        if count > LINES:
            found.append(Finding(path.relative_to(root).as_posix(),
                                 f"has {count} lines of code, the limit is {LINES}", "make it a folder, one topic a file"))
    return found


def documentation(tree: ast.Module) -> int:
    """Count the lines of all docstrings, blank ones left out."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    texts = [ast.get_docstring(node, clean=False) or "" for node in nodes]
    return sum(bool(line.strip()) for text in texts for line in text.splitlines())


def docstrings(root: Path) -> list[Finding]:
    """Every public function says what it takes and returns, and is annotated."""
    found = []
    for path in sorted((root / "attnlib").rglob("*.py")):
        name = path.relative_to(root).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            found.append(Finding(name, "has no docstring", "say what the room holds"))
        if any(part.startswith("_") and part != "__init__" for part in path.relative_to(root).with_suffix("").parts):
            continue
        for node in tree.body:
            found += _documented(name, node, "")
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                for method in node.body:
                    found += _documented(name, method, f"{node.name}.")
    return found


def _documented(file: str, node: ast.AST, owner: str) -> list[Finding]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return []
    where, text = f"{file}:{node.lineno} {owner}{node.name}", ast.get_docstring(node) or ""
    if not text:
        return [Finding(where, "has no docstring", "one sentence, Parameters, Returns, Raises, the paper and equation")]
    if isinstance(node, ast.ClassDef) or any(ast.unparse(each) == "triton.jit" for each in node.decorator_list):
        return []                                            # a kernel is launched, not called: Triton reads its annotations
    spec, found = node.args, []
    every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, [spec.vararg, spec.kwarg])]
    params = [arg for arg in every if not (owner and arg.arg in ("self", "cls"))]
    section = re.search(r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    listed = set(re.findall(r"\*{0,2}(\w+)", " ".join(re.findall(r"^(\S[^:\n]*?)(?: :|$)", section[1] if section else "",
                                                                re.MULTILINE))))
    for arg in params:
        if arg.arg not in listed:
            found.append(Finding(where, f"its Parameters do not list {arg.arg}", "name : shape or type"))
        if arg.annotation is None:
            found.append(Finding(where, f"{arg.arg} has no annotation"))
    returns = ast.unparse(node.returns) if node.returns else ""
    if not returns:
        found.append(Finding(where, "has no annotation of what it returns"))
    elif returns != "None" and not re.search(r"^(Returns|Yields)\n-+$", text, re.MULTILINE):
        found.append(Finding(where, "has no Returns section", "Returns, with the shape"))
    return found


def no_machine(root: Path) -> list[Finding]:
    """No text file names a folder of one machine or the host of a package registry."""
    found = []
    for path in tracked(root):
        if path.suffix not in TEXT:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path.suffix == ".ipynb":
            text = re.sub(r'"image/(?:png|jpeg)": "[^"]*"', "", text)
        for number, line in enumerate(text.splitlines(), start=1):
            for match in [*PLACES.finditer(line), *HOSTS.finditer(line)]:
                found.append(Finding(f"{path.relative_to(root).as_posix()}:{number}", f"names {match[0]}",
                                     "a path relative to the repository; temporary folders by API"))
    return found


def links(root: Path) -> list[Finding]:
    """What README, CONTRIBUTING and CHANGELOG link to or show is there."""
    found = []
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (root / page).read_text(encoding="utf-8") if (root / page).exists() else ""
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
            if "://" not in target and not (root / target).exists():
                found.append(Finding(page, f"links to {target}, which does not exist"))
    return found


def records(root: Path) -> list[Finding]:
    """A recorded measurement says what was measured, by which command, on what, with which versions, and when."""
    found = []
    for path in sorted((root / "chapters" / "data").glob("*.json")):
        name = path.relative_to(root).as_posix()
        record = json.loads(path.read_text(encoding="utf-8"))
        for key in ("what", "command", "device", "versions", "date"):
            if not record.get(key):
                found.append(Finding(name, f"does not say its {key}", f'add "{key}", or record it again'))
        module = re.fullmatch(r"python -m ([\w.]+)( .*)?", record.get("command", ""))
        if module and not any((root / (module[1].replace(".", "/") + end)).exists() for end in (".py", "/__main__.py")):
            found.append(Finding(name, f"was made by {module[1]}, which does not exist", "name the script that makes it"))
    return found
