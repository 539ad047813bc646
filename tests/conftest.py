"""A sample book, small and in order, which tests copy and then break."""

import os
import shutil
from pathlib import Path

import pytest

from tools import notebooks
from tools.chapters import Chapter

if os.environ.get("KERNELS_ON", "cpu") == "cpu":  # "cuda" by `make test-gpu`
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: kernels run without a GPU in the tests
SAMPLE = Path(__file__).parent / "sample"


@pytest.fixture(scope="session")
def built_sample(tmp_path_factory) -> Path:
    """The sample book with its notebook executed, once per test run, however many workers share it."""
    import fcntl  # not on Windows, where only tests of the library run

    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    tree, done = shared / "sample", shared / "sample.done"
    with open(shared / "sample.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.copytree(SAMPLE, tree, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            assert notebooks.build([Chapter(tree, "04_sample")]) == 0
            done.touch()
    return tree


@pytest.fixture
def book(built_sample: Path, tmp_path: Path) -> Chapter:
    """A copy of the sample book that the test may break; its one chapter."""
    shutil.copytree(built_sample, tmp_path / "book")
    return Chapter(tmp_path / "book", "04_sample")
