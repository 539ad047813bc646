"""What a chapter's code may not do: download, silence warnings, draw unseeded numbers, lean on torch unasked."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.guards import Finding, at, code_cells, dotted, exercise, tags
from tools import chapters
from tools.chapters import Chapter

NUMPY_ONLY = range(2, 8)  # chapters in which torch is a cross-check alone
NETWORK = {"urllib", "requests", "httpx", "http", "socket", "ftplib", "huggingface_hub", "subprocess", "wget", "gdown"}
HIDDEN = {"os.environ", "os.putenv", "os.system", "os.popen", "np.seterr", "numpy.seterr", "sys.path", "sys.modules",
          "globals", "exec", "eval", "get_ipython"}
INTERPRET = "os.environ['TRITON_INTERPRET'] = '1'"  # the one setting that has no other place: Triton reads it when it is imported
SEEDED = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox"}  # of numpy.random: fine when given a seed
TORCH_RANDOM = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like",
                "empty"}


def downloads(chapter: Chapter) -> list[Finding]:
    """No cell reaches the network or another process."""
    source, found = chapters.read_source(chapter), []
    for index, _, tree in code_cells(source):
        for node in ast.walk(tree):
            for name in imports(node):
                if name.split(".")[0] in NETWORK:
                    found.append(Finding(at(chapter, source, index), f"imports {name}", "ship the data in attnlib.data"))
            name = dotted(node.func) if isinstance(node, ast.Call) else ""
            if name.startswith("torch.hub.") or name.endswith((".from_pretrained", ".hf_hub_download", ".urlretrieve")):
                found.append(Finding(at(chapter, source, index), f"calls {name}", "ship the data in attnlib.data"))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "://" in node.value:
                found.append(Finding(at(chapter, source, index), f"holds an address: {node.value[:60]}", "cite it in the text"))
    return found


def quiet(chapter: Chapter) -> list[Finding]:
    """No cell filters warnings or changes state that a reader does not see."""
    source, found = chapters.read_source(chapter), []
    for index, _, tree in code_cells(source):
        fine = {id(node.targets[0].value) for node in ast.walk(tree) if isinstance(node, ast.Assign) and ast.unparse(node) == INTERPRET}
        for node in ast.walk(tree):
            if any(name.split(".")[0] == "warnings" for name in imports(node)):
                found.append(Finding(at(chapter, source, index), "imports warnings",
                                     "mend the cause; where overflow is the subject, with np.errstate(...)"))
            name = dotted(node)
            if (name in HIDDEN and id(node) not in fine) or name.endswith((".filterwarnings", ".simplefilter")):
                found.append(Finding(at(chapter, source, index), f"uses {name}", "no hidden state in a chapter"))
    return found


def seeded(chapter: Chapter) -> list[Finding]:
    """Every random number comes from a generator with a seed, and one generator serves the chapter."""
    source, found = chapters.read_source(chapter), []
    generators, torch_seeded, torch_used = [], False, []
    for index, cell, tree in code_cells(source):
        place = at(chapter, source, index)
        outside_functions = set(walk_outside_functions(tree))
        for node in ast.walk(tree):
            if any(name.split(".")[0] == "random" for name in imports(node)):
                found.append(Finding(place, "imports random", "rng = np.random.default_rng(0), once"))
            if isinstance(node, ast.ImportFrom) and node.module == "numpy.random":
                found.append(Finding(place, "imports from numpy.random", "rng = np.random.default_rng(0), once"))
            if not isinstance(node, ast.Call):
                continue
            name = dotted(node.func)
            owner, _, last = name.rpartition(".")
            if owner in ("np.random", "numpy.random"):
                if last not in SEEDED:
                    found.append(Finding(place, f"calls {name}", "draw from rng = np.random.default_rng(0)"))
                elif not node.args and not node.keywords:
                    found.append(Finding(place, f"calls {name}() without a seed", "np.random.default_rng(0)"))
                elif last == "default_rng" and node in outside_functions and not exercise(cell):
                    generators.append(index)  # inside a function it takes the seed it was handed
            torch_seeded |= name in ("torch.manual_seed",) or last == "manual_seed"
            keywords = {keyword.arg for keyword in node.keywords}
            draws = owner == "torch" and last in TORCH_RANDOM - {"empty"} and "generator" not in keywords
            layer = owner in ("nn", "torch.nn") and last in ("Linear", "Embedding", "GRU", "LSTM", "RNN", "Conv1d", "Conv2d",
                                                             "MultiheadAttention", "TransformerEncoderLayer")
            if (draws or layer) and not torch_seeded:
                torch_used.append((index, name))
    for index in generators[1:]:
        found.append(Finding(at(chapter, source, index), "makes a second generator", "one for the chapter, handed on"))
    # Functions and classes are defined before they are called: their seed may come later, but must come.
    for index, name in torch_used:
        if not torch_seeded:
            found.append(Finding(at(chapter, source, index), f"draws from torch ({name}) without a seed",
                                 "torch.manual_seed(0) first, or generator=..."))
    return found


def torch_aside(chapter: Chapter) -> list[Finding]:
    """In chapters 02 to 07 torch stays in cells tagged torch-check, and nothing else leans on those."""
    if int(chapter.name[:2]) not in NUMPY_ONLY:
        return []
    source, found = chapters.read_source(chapter), []
    aside: dict[str, int] = {}  # names that only tagged cells define
    main: set[str] = set()
    for index, cell, tree in code_cells(source):
        place = at(chapter, source, index)
        made, used = bound(tree), loaded(tree)
        if "torch-check" in tags(cell):
            for name in sorted(made & main):
                found.append(Finding(place, f"binds {name}, which other cells made, in a torch-check cell", "another name"))
            aside |= {name: index for name in made}
            continue
        for node in ast.walk(tree):
            for name in imports(node):
                if name.split(".")[0] == "torch" or name.startswith(("attnlib.layers", "attnlib.flash", "attnlib.sparse")):
                    found.append(Finding(place, f"imports {name}", "tag the cell torch-check, or do without"))
        main |= made
        for name in sorted(used & set(aside) - main):
            found.append(Finding(place, f"uses {name}, made in a torch-check cell",
                                 "the chapter must run without those cells"))
    return found


def imports(node: ast.AST) -> list[str]:
    """The modules that one statement imports, `from attnlib import layers` as `attnlib.layers`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module or ''}.{alias.name}" for alias in node.names]
    return []


def walk_outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """Like ast.walk, but not into functions."""
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from walk_outside_functions(child)


def bound(tree: ast.Module) -> set[str]:
    """The names that a cell defines for the cells after it."""
    names: set[str] = set()
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)  # what is bound inside stays inside
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            continue
        else:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            todo += ast.iter_child_nodes(node)
    return names


def loaded(tree: ast.Module) -> set[str]:
    """The names that a cell reads, in its functions too, its own parameters and locals aside."""
    reads = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    own = {arg.arg for node in ast.walk(tree) if isinstance(node, ast.arguments)
           for arg in [*node.posonlyargs, *node.args, *node.kwonlyargs, *filter(None, [node.vararg, node.kwarg])]}
    inner = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return reads - own - inner
