"""Who may import whom, and what importing the library brings with it."""

import json
import subprocess
import sys

import pytest

from tests.guards import show
from tests.guards.rooms import NUMPY, ROOMS, import_rules, room_of
from tools.chapters import ROOT, Chapter

NUMPY_ROOMS = sorted(room for room, rule in ROOMS.items() if rule is NUMPY)


def test_every_import_is_allowed():
    assert not import_rules(ROOT), show(import_rules(ROOT))


@pytest.mark.parametrize(("room", "code", "message"), [
    ("reference", "import torch", "'reference' imports torch"),
    ("reference", "def f():\n    import torch", "'reference' imports torch"),
    ("reference", "import scipy.special", "imports scipy"),
    ("masks", "from attnlib.layers import attention", "imports attnlib.layers"),
    ("masks", "from attnlib import layers", "imports attnlib.layers"),
    ("masks", "from .layers import attention", "imports attnlib.layers"),
    ("masks", "from . import layers", "imports attnlib.layers"),
    ("costs", "import importlib\nimportlib.import_module('torch')", "imports torch"),
    ("_shapes", "import torch", "imports torch"),
    ("layers", "from attnlib.reference import attention", "'layers' imports attnlib.reference"),
    ("layers", "def f():\n    from attnlib import reference", "'layers' imports attnlib.reference"),
    ("layers", "import attnlib.plots.style", "imports attnlib.plots"),
    ("flash", "import triton", "imports triton"),
    ("plots/new", "from attnlib.reference import attention", "'plots' imports attnlib.reference"),
    ("plots/new", "from ..masks import causal", "imports attnlib.masks"),
    ("plots/new", "import torch", "'plots' imports torch"),
    ("widgets/new", "from attnlib import layers", "'widgets' imports attnlib.layers"),
    ("kernels/new", "from attnlib.reference import attention", "'kernels' imports attnlib.reference"),
    ("data/new", "import torch", "imports torch at the top"),
    ("layers", "import coursework", "attnlib stands alone"),
    ("layers", "from tools import serve", "attnlib stands alone"),
    ("__init__", "import numpy", "'attnlib' imports numpy"),
    ("__init__", "from attnlib import reference", "imports attnlib.reference"),
])
def test_a_broken_rule_is_caught(book: Chapter, room: str, code: str, message: str):
    path = book.root / "attnlib" / f"{room}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(code + "\n")
    findings = import_rules(book.root)
    assert any(message in str(finding) for finding in findings), show(findings)


@pytest.mark.parametrize(("room", "code"), [
    ("layers", "import torch\nfrom attnlib import masks, costs\nfrom attnlib._shapes import takes"),
    ("layers", "from attnlib.flash import flash_attention"),
    ("masks", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ("data/new", "def load():\n    import torch"),
    ("plots/new", "import matplotlib.pyplot\nfrom attnlib.plots.style import colours\nfrom .style import colours"),
    ("kernels/new", "import triton\nfrom attnlib import masks"),
])
def test_an_allowed_import_is_allowed(book: Chapter, room: str, code: str):
    path = book.root / "attnlib" / f"{room}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(code + "\n")
    assert not import_rules(book.root), show(import_rules(book.root))


def brought_by(statement: str) -> set[str]:
    """The packages outside the standard library that a fresh Python has loaded after `statement`."""
    code = f"import sys\nbefore = set(sys.modules)\n{statement}\nimport json\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    tops = {name.split(".")[0] for name in json.loads(done.stdout)}
    return {name for name in tops if name not in sys.stdlib_module_names and not name.startswith(("_", "attnlib"))}


def test_importing_the_library_brings_nothing():
    assert brought_by("import attnlib") == set()


@pytest.mark.parametrize("room", NUMPY_ROOMS)
def test_a_numpy_room_brings_numpy_alone(room: str):
    assert brought_by(f"import attnlib.{room}") <= {"numpy"}


def test_data_brings_numpy_alone():
    assert brought_by("import attnlib.data") <= {"numpy"}


def test_layers_bring_torch():
    """So that the tests above can fail."""
    assert "torch" in brought_by("import attnlib.layers")


def test_every_file_is_in_a_room_that_is_known():
    """A new room is decided about in tests/guards/rooms.py; the torch families need no entry."""
    families = {"layers", "cache", "flash", "sparse", "hierarchy", "span", "linear", "memory", "measure", "parallel", "ring"}
    rooms = {room_of(path, ROOT) for path in (ROOT / "attnlib").rglob("*.py")}
    assert {room for room in rooms if not room.startswith("_")} <= {*ROOMS, *families}
