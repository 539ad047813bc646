"""What a kernel compiles to, read without a GPU: registers, spills, shared memory, matrix instructions, and every stage's text.

Compiling needs Triton but no driver; its package brings NVIDIA's assembler and disassembler. It is done in a process of its
own, because a process that runs kernels in Triton's interpreter cannot compile any.
"""

import functools
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CompileReport", "compile_report", "compile_reports"]

# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": warps, programs (there: blocks), and KiB of shared
# memory, of a multiprocessor
LIMITS = {(8, 0): (64, 32, 164), (8, 6): (48, 16, 100), (8, 7): (48, 16, 164), (8, 9): (48, 24, 100), (9, 0): (64, 32, 228),
          (10, 0): (64, 32, 228), (12, 0): (48, 24, 100)}
REGISTERS = 65536  # of 32 bits, of a multiprocessor, the same for all of these
MATRIX = re.compile(r"^(HGMMA|QGMMA|IGMMA|BGMMA|HMMA|IMMA|DMMA|QMMA|UTC\w*MMA)\b")
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)


@dataclass(frozen=True)
class CompileReport:
    """What one kernel became for one architecture.

    Attributes
    ----------
    kernel : str
        Name of the kernel.
    capability : (int, int)
        Compute capability it was compiled for.
    registers : int
        Registers of 32 bits per thread; 255 is the most there are.
    spill_stores, spill_loads : int
        Bytes per thread that did not fit into registers and are written to and read from memory instead.
    shared : int
        Bytes of shared memory per program.
    warps, stages : int
        Warps of 32 threads per program, and stages of the pipeline, as asked for.
    matrix_instructions : dict of str to int
        Instructions for the matrix units in the program text, by name (HGMMA on 9.0, HMMA on 8.x); empty if it has none.
    instructions : int
        Instructions in the program text.
    text : dict of str to str
        The program at each stage: ttir, ttgir, llir, ptx, sass.
    """

    kernel: str
    capability: tuple[int, int]
    registers: int
    spill_stores: int
    spill_loads: int
    shared: int
    warps: int
    stages: int
    matrix_instructions: dict[str, int]
    instructions: int
    text: dict[str, str]

    @property
    def programs_per_multiprocessor(self) -> int:
        """How many programs fit into one multiprocessor at once, by registers, shared memory, warps, and their own number.

        Returns
        -------
        int
            0 if not even one fits. Registers are handed out 8 at a time for each thread, and each program takes 1 KiB of shared
            memory beyond its own, from compute capability 8.0 on.
        """
        warps, programs, kib = LIMITS[self.capability]
        by_registers = REGISTERS // (self.warps * 32 * -(-self.registers // 8) * 8)
        return min(programs, by_registers, warps // self.warps, kib * 1024 // (self.shared + 1024))

    def __str__(self) -> str:
        """A few lines that name the numbers."""
        units = ", ".join(f"{count} {name}" for name, count in self.matrix_instructions.items()) or "none"
        return (f"{self.kernel} for {self.capability[0]}.{self.capability[1]}, {self.warps} warps, {self.stages} stages\n"
                f"  registers {self.registers} per thread, spilled {self.spill_stores} B written and {self.spill_loads} B read\n"
                f"  shared memory {self.shared} B, programs per multiprocessor {self.programs_per_multiprocessor}\n"
                f"  matrix instructions {units}, of {self.instructions} in all")

    def __repr__(self) -> str:
        """The same without the texts, which are long."""
        return str(self)


def compile_report(
    kernel: Callable, capability: tuple[int, int] = (9, 0), *, signature: Mapping[str, str], constexprs: Mapping | None = None,
    attrs: Mapping | None = None, num_warps: int = 4, num_stages: int = 3,
) -> CompileReport:
    """Compile a Triton kernel for a GPU that need not be there, and read what came out.

    Parameters
    ----------
    kernel : function decorated with `triton.jit`
        With its source at hand (a file or a notebook's cell). Other such functions that it calls are taken along.
    capability : (int, int)
        Compute capability: (8, 0) is an A100, (9, 0) an H100 or H200, (10, 0) a B200.
    signature : dict of str to str
        Type of every argument in Triton's notation: ``"*bf16"`` a pointer, ``"i32"``, ``"fp32"``, ``"constexpr"``; a tuple of
        types for a tuple.
    constexprs : dict
        Values of the arguments of type ``"constexpr"``, by name (or by position, a tuple for a place inside a tuple).
    attrs : dict, optional
        As Triton takes them, position -> attributes. Default: every pointer is a multiple of 16 bytes, which PyTorch's are
        (a slice may not be) and without which Triton loads nothing ahead.
    num_warps, num_stages : int
        As at a launch.

    Returns
    -------
    CompileReport

    Raises
    ------
    ImportError
        If Triton is not installed.
    ValueError, TypeError
        If the kernel is no Triton kernel, the capability is not known here, or an argument has no type.
    RuntimeError
        If the compiler refuses the kernel; its first lines are quoted.
    """
    return compile_reports([dict(kernel=kernel, capability=capability, signature=signature, constexprs=constexprs, attrs=attrs,
                                 num_warps=num_warps, num_stages=num_stages)])[0]


def compile_reports(requests: Iterable[Mapping[str, Any]]) -> list[CompileReport]:
    """Several reports from one process, which saves its start.

    Parameters
    ----------
    requests : iterable of dict
        The arguments of `compile_report`, by name.

    Returns
    -------
    list of CompileReport
        In the order of the requests.

    Raises
    ------
    ImportError, ValueError, TypeError, RuntimeError
        As `compile_report` does.
    """
    asked = [_request(**request) for request in requests]
    if importlib.util.find_spec("triton") is None:
        raise ImportError("compile_report: Triton is not installed, expected for compiling: pip install triton (Linux)")
    return _compiled(tuple(json.dumps(each, sort_keys=True) for each in asked))


def _request(kernel, capability=(9, 0), *, signature, constexprs=None, attrs=None, num_warps=4, num_stages=3):
    """One request as JSON can hold it, checked."""
    function = getattr(kernel, "fn", None)
    if not inspect.isfunction(function):
        raise TypeError(f"compile_report: kernel is of type {type(kernel).__name__}, expected a function decorated with triton.jit")
    capability = tuple(capability)
    if capability not in LIMITS:
        known = ", ".join(f"{major}.{minor}" for major, minor in LIMITS)
        raise ValueError(f"compile_report: capability is {'.'.join(map(str, capability))}, expected one of {known}")
    names = list(inspect.signature(function).parameters)
    if missing := [name for name in names if name not in signature]:
        raise ValueError(f"compile_report: signature lacks {', '.join(missing)}, expected a type for every argument of {function.__name__}")
    if attrs is None:
        attrs = {(names.index(name),): [["tt.divisibility", 16]] for name, kind in signature.items() if str(kind).startswith("*")}
    return {"source": _source(function), "kernel": function.__name__, "capability": capability, "num_warps": num_warps,
            "num_stages": num_stages, "signature": [[name, signature[name]] for name in names],
            "constexprs": [[key, value] for key, value in (constexprs or {}).items()],
            "attrs": [[list(key), value] for key, value in attrs.items()]}


def _source(function):
    """One file with the kernel, the kernels it calls, and the constants it reads."""
    parts, waiting, constants = {}, [function], {}
    while waiting:
        one = waiting.pop()
        if one.__name__ in parts:
            continue
        parts[one.__name__] = textwrap.dedent(inspect.getsource(one))
        for name in one.__code__.co_names:
            found = one.__globals__.get(name)
            if inspect.isfunction(getattr(found, "fn", None)):
                waiting.append(found.fn)
            elif type(found).__name__ == "constexpr":
                constants[name] = found.value
    head = ["import triton", "import triton.language as tl", *(f"{name} = tl.constexpr({value!r})" for name, value in constants.items())]
    return "\n".join([*head, *reversed(parts.values())])


@functools.cache
def _compiled(requests):
    """The reports of requests in JSON, from one fresh process."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILE], input=f"[{','.join(requests)}]", env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"compile_report: the compiler's process failed: {done.stderr.strip()[-800:]}")
    found = []
    for request, answer in zip(map(json.loads, requests), json.loads(done.stdout.splitlines()[-1]), strict=True):
        if "error" in answer:
            raise RuntimeError(f"compile_report: {request['kernel']} does not compile for {'.'.join(map(str, request['capability']))}: "
                               f"{answer['error'][:800]}")
        found.append(_read(request, answer))
    return found


def _read(request, answer):
    """A report from what the tools printed."""
    registers = int(re.search(r"REG:(\d+)", answer["usage"])[1])
    stores, loads = (int(each) for each in re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", answer["assembler"]).groups())
    names, matrix = INSTRUCTION.findall(answer["text"]["sass"]), {}
    for name in names:
        if MATRIX.match(name):
            matrix[name] = matrix.get(name, 0) + 1
    return CompileReport(request["kernel"], tuple(request["capability"]), registers, stores, loads, answer["shared"],
                         request["num_warps"], request["num_stages"], matrix, len(names), answer["text"])


COMPILE = '''
import importlib.util, json, os, pathlib, subprocess, sys, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

tools = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def say(name, *arguments):
    done = subprocess.run([str(tools / name), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout + done.stderr


def compiled(request, folder, number):
    path = folder / f"kernel_{number}.py"
    path.write_text(request["source"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    major, minor = request["capability"]
    key = lambda each: tuple(each) if isinstance(each, list) else each
    source = ASTSource(fn=getattr(module, request["kernel"]), signature={name: key(kind) for name, kind in request["signature"]},
                       constexprs={key(k): v for k, v in request["constexprs"]}, attrs={key(k): v for k, v in request["attrs"]})
    made = triton.compile(source, target=GPUTarget("cuda", 10 * major + minor, 32),
                          options={"num_warps": request["num_warps"], "num_stages": request["num_stages"]})
    cubin, ptx = folder / "kernel.cubin", folder / "kernel.ptx"
    cubin.write_bytes(made.asm["cubin"])
    ptx.write_text(made.asm["ptx"])
    architecture = f"sm_{10 * major + minor}{'a' if major >= 9 else ''}"
    assembler = "ptxas-blackwell" if major >= 10 and (tools / "ptxas-blackwell").exists() else "ptxas"
    return {"usage": say("cuobjdump", "-res-usage", cubin), "shared": made.metadata.shared,
            "assembler": say(assembler, "-v", f"-arch={architecture}", ptx, "-o", folder / "again.cubin"),
            "text": {stage: made.asm[stage] for stage in ("ttir", "ttgir", "llir", "ptx")} | {"sass": say("nvdisasm", cubin)}}


answers = []
with tempfile.TemporaryDirectory() as name:
    for number, request in enumerate(json.load(sys.stdin)):
        try:
            answers.append(compiled(request, pathlib.Path(name), number))
        except Exception as error:
            answers.append({"error": f"{type(error).__name__}: {error}"})
print(json.dumps(answers))
'''
