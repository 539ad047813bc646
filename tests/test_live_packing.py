"""What is fetched and packed for the cells that run on the page, and what runs them, without a browser."""

import ast
import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path

import pytest

from tests.pages.book import ROOT
from tests.pages.live import need_pyodide
from tools import pyodide

sys.path.insert(0, str(ROOT / "_ext"))

import live_cells
import live_runtime

# --- Fetching ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def release(tmp_path: Path, monkeypatch) -> dict[str, bytes]:
    """A small release in place of Pyodide's: the same files and sums of its own."""
    files = {name: name.encode() for name in pyodide.CORE}
    wheels = {f"{name}.whl": f"wheel {name}".encode() for name in pyodide.PACKAGES}
    listed = {name: {"file_name": f"{name}.whl", "sha256": hashlib.sha256(wheels[f"{name}.whl"]).hexdigest()} for name in pyodide.PACKAGES}
    files[pyodide.LOCK] = json.dumps({"packages": listed}).encode()
    monkeypatch.setattr(pyodide, "CORE", {name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    return files | wheels


def source(files: dict[str, bytes], asked: list):
    def fetch(names):
        for name in names:
            asked.append(name)
            if name not in files:
                raise OSError(f"no {name} here")
            yield name, files[name]
    return fetch


def test_fetching_brings_everything_once(tmp_path: Path, release: dict):
    asked = []
    pyodide.bring(tmp_path, {"one": source(release, asked)})
    assert pyodide.missing(tmp_path) == [] and sorted(asked) == sorted(release)
    pyodide.bring(tmp_path, {"one": source({}, asked)})
    assert len(asked) == len(release), "what is there is not fetched again"


def test_an_interrupted_fetch_goes_on(tmp_path: Path, release: dict):
    asked = []
    with pytest.raises(pyodide.Missing, match=r"numpy\.whl"):
        pyodide.bring(tmp_path, {"one": source({k: v for k, v in release.items() if k != "numpy.whl"}, asked)})
    already = {path.name for path in tmp_path.iterdir()}
    asked.clear()
    pyodide.bring(tmp_path, {"one": source(release, asked)})
    assert not already & set(asked) and pyodide.missing(tmp_path) == []


def test_a_file_with_another_sum_is_refused(tmp_path: Path, release: dict):
    false = {**release, "numpy.whl": b"not NumPy"}
    with pytest.raises(pyodide.Missing, match="another checksum"):
        pyodide.bring(tmp_path, {"one": source(false, [])})
    assert not (tmp_path / "numpy.whl").exists() and not list(tmp_path.glob(".*"))
    pyodide.bring(tmp_path, {"one": source(false, []), "two": source(release, [])})
    (tmp_path / "numpy.whl").write_bytes(b"changed since")
    assert pyodide.missing(tmp_path) == ["numpy.whl"]


def test_offline_the_message_says_what_to_do(tmp_path: Path, monkeypatch, capsys):
    def offline(names):
        raise OSError("no network")

    monkeypatch.setattr(pyodide, "SOURCES", {"the release": offline})
    monkeypatch.setattr(pyodide, "missing", lambda folder=None: ["pyodide.mjs"])
    assert pyodide.tried() is False
    said = capsys.readouterr().out
    assert "no network" in said and "--from FOLDER" in said and "built without it" in said


# --- Packing ----------------------------------------------------------------------------------------------------------

def test_the_wheel_is_the_same_for_the_same_tree():
    assert live_cells.wheel() == live_cells.wheel()


def test_the_wheel_holds_nothing_that_needs_torch():
    with zipfile.ZipFile(io.BytesIO(live_cells.wheel())) as archive:
        names = archive.namelist()
        texts = {name: archive.read(name).decode() for name in names if name.endswith(".py")}
    assert {"attnlib/reference.py", "coursework/pool/soften.py", "live_runtime.py", "attnlib/data/minilm.json"} <= set(names)
    assert not [name for name in names if "kernel" in name and "pool" in name]
    for name, text in texts.items():
        top = [a.name if isinstance(node, ast.Import) else node.module for node in ast.parse(text).body
               if isinstance(node, ast.Import | ast.ImportFrom) for a in node.names]
        assert not {"torch", "triton", "yaml", "nbformat", "tqdm"} & {module.split(".")[0] for module in top if module}, name


def test_the_lock_names_what_is_served():
    need_pyodide()
    own = live_cells.wheel()
    said = live_cells.lock(own, "attnlib.whl", pyodide.VENDOR)["packages"]
    assert set(said) == {"attnlib", *pyodide.PACKAGES}
    assert said["attnlib"]["sha256"] == hashlib.sha256(own).hexdigest()
    assert all(needed in said for entry in said.values() for needed in entry["depends"])


KINDS = [
    ("import numpy as np\nfrom attnlib.plots import softmax as plots\nimport matplotlib.pyplot as plt", (), {"kind": "cell", "makes": ["np", "plots", "plt"]}),
    ("rng = np.random.default_rng(0)\nx = rng.normal(size=3)", (), {"kind": "cell", "makes": ["rng", "x"]}),
    ("plots.bars(x)\nplt.show()", (), {"kind": "drawing"}),
    ("y = x + 1\nplots.bars(y)\nplt.show()", (), {"kind": "cell", "makes": ["y"]}),  # y is used below
    ("plots.bars(y, rng.normal())\nplt.show()", (), {"kind": "cell"}),  # leaving it out would change what rng gives below
    ("plots.bars(y)\nplt.show()\nprint(y)", (), {"kind": "cell"}),
    ("fast = time(x)", ("nbval-ignore-output",), {"kind": "measured", "makes": ["fast"]}),
    ("noisy = rng.normal()", ("nbval-ignore-output",), {"kind": "cell", "makes": ["noisy"]}),
    ("import torch\nx = torch.ones(2)", ("torch-check",), {"kind": "elsewhere", "needs": "PyTorch"}),
    ("x", (), {"kind": "cell"}),
    ("from attnlib.layers import attention\nout = attention(x, x, x)", (), {"kind": "elsewhere", "needs": "PyTorch"}),
    ("out", (), {"kind": "elsewhere", "needs": "PyTorch"}),
    ("def soften(x):\n    raise NotImplementedError", ("ex:soften", "ex-stub"), {"kind": "stub", "of": "soften"}),
    ("check(soften)", ("ex:soften", "ex-check"), {"kind": "check", "of": "soften"}),
]


def test_kinds_of_cells():
    found = live_cells.kinds([(source, set(tags)) for source, tags, _ in KINDS], everywhere=True)
    for (source, _, wanted), kind in zip(KINDS, found, strict=True):
        assert kind == wanted, source


def test_elsewhere_a_cell_is_live_by_its_tag():
    assert live_cells.kinds([("x = 1", set()), ("x", {"live"})], everywhere=False) == [{}, {"kind": "cell"}]


# --- Running ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def run(monkeypatch):
    """Run cells with the page's runtime; give what they show."""
    monkeypatch.setattr(live_runtime, "space", type(live_runtime.space)("__main__"))

    def one(source: str, number: int = 1) -> list[tuple[str, object]]:
        shown = []
        live_runtime.run(number, source, lambda kind, data: shown.append((kind, data)))
        return shown

    return one


def test_what_a_cell_shows(run):
    assert run("x = 2\nprint('a')\nx") == [("stdout", "a"), ("stdout", "\n"), ("result", "2")]
    assert run("x + 1") == [("result", "3")]
    assert run("None") == run("") == run("x;y = 1") == []
    assert run("import sys\nprint('a')\nprint('b', file=sys.stderr)")[2:] == [("stderr", "b"), ("stderr", "\n")]
    assert run("class T:\n    def _repr_html_(self): return '<b>t</b>'\nT()") == [("html", "<b>t</b>")]
    assert run("import inspect\ndef f(): return 1\ninspect.getsource(f)", 7) == [("result", "'def f(): return 1\\n'")]


@pytest.mark.parametrize(("source", "wanted"), [
    ("1/0", "cell 3, line 1\n    1/0\nZeroDivisionError: division by zero"),
    ("def f():\n    return unknown\n\nf()", "cell 3, line 4\n    f()\ncell 3, line 2, in f\n    return unknown\nNameError: name 'unknown' is not defined"),
    ("import json\njson.loads('{')", "cell 3, line 2\n    json.loads('{')\njson.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ("raise SystemExit", "cell 3, line 1\n    raise SystemExit\nSystemExit"),
    ("input()", "cell 3, line 1\n    input()\nEOFError: "),
])
def test_errors_name_the_reader_s_lines(run, monkeypatch, source: str, wanted: str):
    monkeypatch.setattr("builtins.input", live_runtime._no_input)
    (kind, said), = run(source, 3)
    assert kind == "error" and said.startswith(wanted)


def test_deep_recursion_is_cut(run):
    (_, said), = run("def f(n):\n    return f(n + 1)\n\nf(0)")
    assert said.count("\n") < 20 and "more" in said and "RecursionError" in said


@pytest.mark.parametrize("source", ["while True: print(1)", "while True:\n  try: print(1)\n  except Exception: pass",
                                    "print('x' * 10**7)", "for _ in range(10**6): display('x' * 1000)"])
def test_output_has_a_bound(run, source: str):
    shown = run(source)
    assert shown[-1][0] == "error" and "100,000" in shown[-1][1]
    assert sum(len(data) for _, data in shown) <= 2 * live_runtime.MOST_TEXT + 2000 and len(shown) < 1500
    assert run("1") == [("result", "1")]


def test_matplotlib_is_asked_for_when_something_is_drawn(run, monkeypatch):
    later = live_runtime._Finder()
    monkeypatch.setattr(live_runtime, "_later", later)
    monkeypatch.setattr(live_runtime, "_here", set())
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "matplotlib" or name.startswith("attnlib.plots")}
    import attnlib

    monkeypatch.delattr(attnlib, "plots", raising=False)
    monkeypatch.setattr(sys, "meta_path", [later, *sys.meta_path])
    try:
        first = "import matplotlib.pyplot as plt\nfrom attnlib.plots import softmax as plots\nx = 1"
        assert live_runtime.needs(first) == [] and run(first) == []
        assert live_runtime.needs("x + 1") == [] and live_runtime.needs("plt.show()") == live_runtime.needs("plots.f") == ["matplotlib"]
        assert run("def draw():\n    return [plt.plot(x) for _ in range(2)]") == [] and live_runtime.needs("draw()") == ["matplotlib"]
        assert live_runtime.needs("from matplotlib.pyplot import plot") == ["matplotlib"]
        assert live_runtime.needs("import matplotlib.pyplot as p\np.plot(1)") == ["matplotlib"]
        assert "Run it again" in run("getattr(globals()['plt'], 'plot')")[-1][1]
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib" or name.startswith("attnlib.plots")]:
            del sys.modules[name]
        sys.modules.update(kept)
