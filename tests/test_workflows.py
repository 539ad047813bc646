"""The workflows hold together as far as reading them can tell; each check of them catches what is planted; their tools work."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guards import show
from tests.guards.workflows import read, workflows
from tools import newest, portable
from tools.chapters import ROOT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the workflows name, to be broken."""
    for name in ("Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy2(ROOT / name, tmp_path / name)
    for name in (".github", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_workflows():
    assert {path.stem for path in (ROOT / ".github" / "workflows").iterdir()} >= {"pages", "test", "newest"}
    assert not workflows(ROOT), show(workflows(ROOT))


def test_what_each_is_for():
    pages, test, new = (read(ROOT / ".github" / "workflows" / f"{name}.yml") for name in ("pages", "test", "newest"))
    assert any("make site" in step.get("run", "") for step in pages["jobs"]["build"]["steps"])
    assert any("make test" in step.get("run", "") for step in test["jobs"]["book"]["steps"])
    systems = [name.split("-")[0] for name in test["jobs"]["library"]["strategy"]["matrix"]["os"]]
    assert systems == ["ubuntu", "macos", "windows"]
    assert new["on"]["schedule"]
    asked = [step.get("if") for step in new["jobs"]["newest"]["steps"]]
    assert asked[-2:] == ["failure()", "success()"]  # a failing run is reported, and stays red


PLANTS = [  # file, what is replaced, by what, what the finding says
    ("pages", "make site", "make sight", "there is no make sight"),
    ("pages", "actions/checkout@v5.0.0", "actions/checkout@v5", "not one of actions/ by its full version"),
    ("pages", "actions/checkout@v5.0.0", "someone/checkout@v5.0.0", "not one of actions/ by its full version"),
    ("pages", "permissions:\n  contents: read\n\n", "", "has no permissions"),
    ("pages", "permissions:\n  contents: read\n\n", "permissions: write-all\n\n", "not for contents: read alone"),
    ("pages", "      pages: write\n", "      pages: write\n      packages: write\n", "may write packages and does not need to"),
    ("pages", "needs: build", "needs: built", "needs built, which is no job"),
    ("pages", "id: deployment", "id: deploy", "uses steps.deployment, which is no step"),
    ("pages", "    timeout-minutes: 30\n", "", "has no timeout-minutes"),
    ("pages", "ubuntu-24.04", "ubuntu-latest", "not a version of a runner"),
    ("pages", 'python-version: "3.11"', "python-version: 3.1", "sets up Python 3.1, not '3.11'"),
    ("pages", "persist-credentials: false", "persist-credentials: true", "leaves its token in the checkout"),
    ("pages", "run: make site", "run: make site || true", "a failure is swallowed"),
    ("pages", "run: make site", "run: echo ${{ github.head_ref }}", "a value is pasted into the script"),
    ("pages", "run: make site", "run: make site\n        env: {KEY: '${{ secrets.KEY }}'}", "uses a secret"),
    ("pages", "name: pages\n\non:", "name: pages\n\n{on:", "cannot be read"),
    ("test", "run: make test", "run: make test\n        continue-on-error: true", "goes on after an error"),
    ("test", "matrix.os }}\n", "matrix.system }}\n", "uses matrix.system, which its matrix lacks"),
    ("test", "-m tools.portable", "-m tools.portabel", "there is no tools.portabel"),
    ("test", "python tools/setup.py book", "python tools/set_up.py book", "there is no tools/set_up.py"),
    ("test", "python tools/setup.py book run test", "make notebooks", "there is no make on Windows"),
    ("test", "        shell: bash\n", "        working-directory: .\n", "on Windows without shell: bash"),
    ("newest", "      issues: write", "      contents: write", "may write contents and does not need to"),
    ("newest", "tools.newest run report.md", "tools.newest run report.md; true", "a failure is swallowed"),
]


@pytest.mark.parametrize(("file", "old", "new", "message"), PLANTS)
def test_planted(tree: Path, file: str, old: str, new: str, message: str):
    assert not workflows(tree), show(workflows(tree))
    path = tree / ".github" / "workflows" / f"{file}.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert any(message in str(finding) for finding in workflows(tree)), show(workflows(tree))


# --- What the workflows run --------------------------------------------------------------------------------------

def test_what_runs_on_which_system():
    here = [portable.choose(ROOT, platform, triton) for platform, triton in (("linux", True), ("darwin", False), ("win32", False))]
    everything = {*here[0][0], *here[0][1]}
    assert here[0][2] == {}  # on Linux nothing is left out
    assert {path.name for path in (ROOT / "chapters").glob("*.ipynb")} == {Path(name).name for name in here[0][1]}
    for tests, notebooks, left_out in here:
        assert {*tests, *notebooks, *left_out} == everything
    assert {"tests/test_reference.py", "tests/test_layers.py", "tests/test_flash.py"} <= {*here[2][0]}
    assert {"tests/test_kernels.py", "tests/test_kernels_decode.py", "tests/test_kernels_compiled.py"} <= {*here[1][2]}
    assert {name for name in here[1][2] if name.startswith("chapters/")} == {
        f"chapters/{path.stem}.ipynb" for path in (ROOT / "chapters").glob("*.py") if "\nimport triton\n" in path.read_text(encoding="utf-8")}
    assert {*here[2][2]} - {*here[1][2]} == {"tests/test_ring.py", "chapters/24_many_devices.ipynb"}


def test_the_library_s_tests_import_nothing_that_windows_lacks():
    """Neither fcntl nor resource is asked for when a test of the library is collected; the plant shows that this would be seen."""
    code = ("import sys\nfor name in ('fcntl', 'resource', 'grp', 'pwd'): sys.modules[name] = None\n{}\n"
            "import pytest\nsys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))")
    for before, wanted in (("", 0), ("import types; sys.modules['attnlib.masks'] = None", 2)):
        done = subprocess.run([sys.executable, "-c", code.format(before), "tests/test_masks.py", "tests/test_reference.py"],
                              cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == wanted, done.stdout[-2000:]


def test_pins_are_loosened_but_for_what_is_held():
    pins = ["jupyter-book==1.0.4.post1", "numpy==2.4.6", "triton==3.7.1 ; sys_platform == 'linux'"]
    assert newest.loosened(pins) == ["jupyter-book<2", "numpy", "triton ; sys_platform == 'linux'"]
    levels = newest.sections()
    every = [pin for level in newest.LEVELS for pin in levels[level]]
    assert len(newest.loosened(every)) == len(every) and not any("==" in text.split(";")[0] for text in newest.loosened(every))


def test_the_report_names_what_differs_and_what_fails():
    versions = newest.versions(["numpy==2.4.6", "torch==2.13.0"], {"numpy": "3.0.0", "torch": "2.13.0"}.get)
    assert versions == [("numpy", "2.4.6", "3.0.0")]
    bad = newest.report([newest.Part("site", 0, "fine"), newest.Part("tests", 1, "x" * 50_000 + "\nassert 1 == 2\n```")], versions)
    assert "**tests** failed" in bad and "| numpy | 2.4.6 | 3.0.0 |" in bad and "assert 1 == 2" in bad
    assert "site: exit code" not in bad and len(bad) < 65_536 and bad.count("```") == 2
    assert "Everything passed" in newest.report([newest.Part("site", 0, "fine")], [])


def test_a_failing_part_fails_the_run(monkeypatch, tmp_path):
    for codes, wanted in (((0, 0, 0), 0), ((0, 3, 0), 1)):
        parts = {str(i): [sys.executable, "-c", f"print('said {i}'); raise SystemExit({code})"] for i, code in enumerate(codes)}
        monkeypatch.setattr(newest, "commands", lambda parts=parts: parts)
        monkeypatch.setattr(sys, "argv", ["newest", "run", str(tmp_path / "report.md")])
        assert newest.main() == wanted
        assert ("exit code 3" in (tmp_path / "report.md").read_text()) == bool(wanted)


def test_the_tests_left_out_on_purpose_exist():
    """A renamed test would otherwise fail every week, or another one be left out."""
    done = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", *newest.PINS], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0 and all(test in done.stdout for test in newest.PINS), done.stdout


def test_binder_installs_what_the_notebooks_need(tmp_path):
    """postBuild with a pip that only writes down what it is asked for. (No image has been built.)"""
    log, fake = tmp_path / "log", tmp_path / "python"
    fake.write_text('#!/bin/sh\nshift 3\nfor word; do [ -f "$word" ] && cat "$word" || echo "$word"; done >> ' + f'"{log}"\n')
    fake.chmod(0o755)
    subprocess.run(["bash", str(ROOT / ".binder" / "postBuild")], cwd=ROOT, check=True,
                   env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path)})
    asked = log.read_text().split("\n")
    levels = newest.sections()
    assert {pin for pin in levels["run"]} <= {*asked}
    assert {"numpy==" + next(p for p in levels["book"] if p.startswith("numpy")).split("==")[1], "--editable"} <= {*asked}
    assert sum(line.startswith("torch==") for line in asked) == 1  # and that from the index without CUDA
    assert asked.index(next(line for line in asked if line.startswith("torch=="))) == asked.index("--index-url") + 2


@pytest.mark.parametrize("open_issue", ["", "7"])
def test_a_failure_opens_one_issue_or_updates_it(tmp_path, open_issue):
    """The script of the workflow, with a `gh` that only writes down what it is asked and answers with an open issue or none."""
    steps = {step.get("name"): step for step in read(ROOT / ".github" / "workflows" / "newest.yml")["jobs"]["newest"]["steps"]}
    (tmp_path / "gh").write_text(f'#!/bin/sh\necho "$1 $2 $3" >> log\ncase "$1 $2" in "issue list") echo "{open_issue}";; esac\n')
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "report.md").write_text("what failed\n")

    def run(name: str) -> list[str]:
        (tmp_path / "log").write_text("")
        subprocess.run(["bash", "-e", "-o", "pipefail", "-c", steps[name]["run"]], cwd=tmp_path, check=True,
                       env={"PATH": f"{tmp_path}:/usr/bin:/bin", "RUN": "https://example.org/run/1"})
        return (tmp_path / "log").read_text().splitlines()

    asked = run("Report a failure")
    assert (tmp_path / "report.md").read_text() == "what failed\n\nhttps://example.org/run/1\n"
    assert asked == ["label create newest-dependencies", "issue list --label", "issue edit 7" if open_issue else "issue create --title"]
    assert run("Close the issue of an earlier failure") == ["issue list --label", *(["issue close 7"] if open_issue else [])]


def test_on_linux_nothing_is_skipped_for_want_of_a_tool():
    """Every REQUIRE_... that turns a skipped test into a failure is set where the whole book is tested, here and there."""
    known = {name for folder in ("tests", "tools") for path in (ROOT / folder).rglob("*.py")
             for name in re.findall(r"""environ(?:\.get\(|\[)["'](REQUIRE_[A-Z]+)["']""", path.read_text(encoding="utf-8"))}
    job = read(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["book"]
    assert known and known == {name for name, value in job["env"].items() if value == "1"}
    assert known <= {*re.findall(r"REQUIRE_[A-Z]+", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))}
