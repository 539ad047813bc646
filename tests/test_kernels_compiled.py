"""What the kernels compile to, for GPUs that are not here."""

import itertools
import subprocess
import sys

import pytest
import triton
import triton.language as tl

from attnlib.kernels import CompileReport, compile_report, compile_reports, reading, shipped
from attnlib.kernels.backward import dkdv_kernel, dq_kernel
from attnlib.kernels.blocks import blocks_dkdv_kernel, blocks_dq_kernel, blocks_forward_kernel
from attnlib.kernels.decode import split_kernel
from attnlib.kernels.forward import forward_kernel

KERNELS = {"forward": forward_kernel, "dkdv": dkdv_kernel, "dq": dq_kernel}
CAPABILITIES = {"8.0": (8, 0), "9.0": (9, 0)}
SHIPPED = [(capability, *key, tile) for capability, table in shipped.TILES.items()
           for key, tiles in {**shipped.EXACT, **table}.items() for tile in tiles]


def named(case):
    capability, kernel, bits, width, tile = case
    return f"{capability} {kernel} {bits} {width} {tile.block_q}x{tile.block_k} {tile.warps} warps"


@pytest.fixture(scope="module")
def reports():
    """Two reports for each shipped tile, causal and not, for either may hold more; one process compiles them all."""
    asked = []
    for capability, kernel, bits, width, tile in SHIPPED:
        for causal in (True, False):
            arguments = shipped.compile_arguments(KERNELS[kernel], tile, "bf16" if bits == 16 else "fp32", width, causal=causal)
            asked.append({"kernel": KERNELS[kernel], "capability": CAPABILITIES[capability], **arguments})
    found = compile_reports(asked)
    return dict(zip(SHIPPED, zip(found[::2], found[1::2], strict=True), strict=True))


@pytest.mark.xdist_group("compiled")
@pytest.mark.parametrize("case", SHIPPED, ids=named)
def test_no_shipped_tile_spills_and_half_precision_uses_the_matrix_units(reports, case):
    capability, kernel, bits, width, tile = case
    unit = {"8.0": "HMMA", "9.0": "HGMMA"}[capability]
    unit = "HMMA" if (capability, kernel, width) == ("9.0", "dkdv", 256) else unit   # its 32 keys are half of what HGMMA takes
    for report in reports[case]:
        assert report.spill_stores == report.spill_loads == 0, report
        assert report.registers <= 255 and report.programs_per_multiprocessor >= 1, report
        assert report.warps == tile.warps and report.shared <= (99 if capability == "8.0" else 227) * 1024, report
        assert bool(report.matrix_instructions) == (bits == 16), report  # float32 is multiplied exactly, by ordinary instructions
        assert bits == 32 or set(report.matrix_instructions) == {unit}, report


BLOCK_KERNELS = {"forward": blocks_forward_kernel, "dkdv": blocks_dkdv_kernel, "dq": blocks_dq_kernel}
IN_BLOCKS = [(capability, kernel, bits, width, tile, size)
             for size, kinds in ((128, (16, 32)), (64, (16,))) for capability in CAPABILITIES for kernel in BLOCK_KERNELS for bits in kinds
             for width in (64, 128, 256) for tile in shipped.shipped_for_blocks(kernel, CAPABILITIES[capability], bits, width, size)]


@pytest.fixture(scope="module")
def block_reports():
    """The same for the block-sparse kernels."""
    asked = []
    for capability, kernel, bits, width, tile, size in IN_BLOCKS:
        arguments = shipped.compile_arguments(BLOCK_KERNELS[kernel], tile, "bf16" if bits == 16 else "fp32", width, block_size=size)
        asked.append({"kernel": BLOCK_KERNELS[kernel], "capability": CAPABILITIES[capability], **arguments})
    return dict(zip(IN_BLOCKS, compile_reports(asked), strict=True))


@pytest.mark.xdist_group("compiled")
@pytest.mark.parametrize("case", IN_BLOCKS, ids=lambda case: f"{named(case[:5])} blocks of {case[5]}")
def test_no_tile_of_a_block_spills_and_half_precision_uses_the_matrix_units(block_reports, case):
    capability, kernel, bits, _, tile, _ = case
    report = block_reports[case]
    assert report.spill_stores == report.spill_loads == 0, report
    assert report.shared <= (99 if capability == "8.0" else 227) * 1024 and report.programs_per_multiprocessor >= 1, report
    rows = tile.block_k if kernel == "dkdv" else tile.block_q            # HGMMA takes 64 rows at once; of fewer, HMMA 16
    unit = "HGMMA" if capability == "9.0" and rows >= 64 else "HMMA"
    assert set(report.matrix_instructions) == ({unit} if bits == 16 else set()), report
    assert bits == 32 or tile.stages == 1 or "cp.async" in report.text["ptx"], "nothing is loaded ahead through the list"


DECODE = [(capability, width) for capability in CAPABILITIES for width in (64, 128, 256)]


@pytest.fixture(scope="module")
def decode_reports():
    """The kernel that reads a part of the keys, as it is launched on contiguous tensors in bfloat16."""
    asked = []
    for capability, width in DECODE:
        known = {**shipped.constants(width, width), "RAGGED": True, "BLOCK_Q": 16, "BLOCK_K": 32 if width > 128 else 64}
        strides, signature, constexprs, attrs = ("i32", "i32", "i32", "constexpr"), {}, dict(known), {}
        for i, name in enumerate(split_kernel.arg_names):
            pointer = name in ("q", "k", "v", "part_out", "part_lse2", "lengths")
            kind = {"part_out": "*fp32", "part_lse2": "*fp32", "lengths": "*i64"}.get(name, "*bf16") if pointer else "i32"
            signature[name] = "constexpr" if name in known else strides if name.endswith("strides") else "fp32" if name == "scale" else kind
            if name.endswith("strides"):
                constexprs[i, 3] = 1
                attrs.update({(i, axis): [["tt.divisibility", 16]] for axis in range(3)})
            elif pointer:
                attrs[i,] = [["tt.divisibility", 16]]
        asked.append({"kernel": split_kernel, "capability": CAPABILITIES[capability], "signature": signature, "constexprs": constexprs, "attrs": attrs})
    return dict(zip(DECODE, compile_reports(asked), strict=True))


@pytest.mark.xdist_group("compiled")
@pytest.mark.parametrize("case", DECODE, ids=str)
def test_decoding_does_not_spill_and_uses_the_matrix_units(decode_reports, case):
    report = decode_reports[case]
    assert report.spill_stores == report.spill_loads == 0 and report.matrix_instructions, report
    assert report.shared <= (99 if case[0] == "8.0" else 227) * 1024 and "cp.async" in report.text["ptx"], report


# --- small kernels whose answers are known -----------------------------------------------------------------------

@triton.jit
def add_one(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + 1, mask=at < n)


@triton.jit
def product(a, b):
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def multiply(a, b, out, steps, SIZE: tl.constexpr):
    rows, columns = tl.arange(0, SIZE)[:, None], tl.arange(0, SIZE)[None, :]
    total = tl.zeros([SIZE, SIZE], tl.float32)
    for step in range(steps):
        at = step * SIZE * SIZE + rows * SIZE + columns
        total += product(tl.load(a + at), tl.load(b + at))
    tl.store(out + rows * SIZE + columns, total)


def multiplied(size, kind="bf16", capability=(9, 0), **options):
    signature = {"a": f"*{kind}", "b": f"*{kind}", "out": "*fp32", "steps": "i32", "SIZE": "constexpr"}
    return compile_report(multiply, capability, signature=signature, constexprs={"SIZE": size}, **options)


ADD = dict(signature={"x": "*fp32", "out": "*fp32", "n": "i32", "BLOCK": "constexpr"}, constexprs={"BLOCK": 128})


def test_a_small_kernel_is_read():
    report = compile_report(add_one, (8, 0), **ADD)
    assert isinstance(report, CompileReport) and report.kernel == "add_one" and report.capability == (8, 0)
    assert 4 <= report.registers <= 32 and report.spill_stores == 0 and report.shared == 0
    assert report.matrix_instructions == {} and 10 < report.instructions < 200
    assert set(report.text) == {"ttir", "ttgir", "llir", "ptx", "sass"}
    assert "tt.func" in report.text["ttir"] and ".visible .entry add_one" in report.text["ptx"] and "EXIT" in report.text["sass"]
    assert "registers" in str(report) and str(report) == repr(report)


def test_matrix_units_are_counted_and_float32_takes_none():
    assert set(multiplied(64).matrix_instructions) == {"HGMMA"}
    assert set(multiplied(64, capability=(8, 0)).matrix_instructions) == {"HMMA"}
    assert multiplied(64, "fp32").matrix_instructions == {}


def test_a_tile_too_large_is_seen_to_spill():
    """Planted: 256 by 256 sums in float32 are 512 registers for each of 128 threads."""
    report = multiplied(256, capability=(8, 0), num_warps=4, num_stages=1)
    assert report.spill_stores > 1000 and report.spill_loads > 1000
    assert report.programs_per_multiprocessor == 0           # nor does its shared memory fit


def test_without_alignment_nothing_is_loaded_ahead():
    aligned, unknown = multiplied(64, capability=(8, 0)), multiplied(64, capability=(8, 0), attrs={})
    assert "cp.async" in aligned.text["ptx"] and "cp.async" not in unknown.text["ptx"]


def test_programs_per_multiprocessor():
    """By hand: 65536 registers, 64 warps, 228 KiB on 9.0."""
    def report(registers, shared, warps, capability=(9, 0)):
        return CompileReport("k", capability, registers, 0, 0, shared, warps, 1, {}, 1, {})
    assert report(32, 0, 4).programs_per_multiprocessor == 16          # warps: 64 / 4
    assert report(255, 0, 8).programs_per_multiprocessor == 1          # registers: 65536 / (256 · 256)
    assert report(168, 0, 4).programs_per_multiprocessor == 3          # registers: 65536 / (128 · 168) = 3.05
    assert report(32, 100_000, 4).programs_per_multiprocessor == 2     # shared: 228 KiB / (100,000 + 1024 B) = 2.3
    assert report(32, 0, 4, (12, 0)).programs_per_multiprocessor == 12
    assert report(16, 0, 1).programs_per_multiprocessor == 32          # 64 warps would fit, 32 programs may


@pytest.mark.parametrize(("change", "error", "says"), [
    ({"kernel": len}, TypeError, "kernel is of type builtin_function_or_method, expected"),
    ({"capability": (7, 0)}, ValueError, "capability is 7.0, expected one of 8.0"),
    ({"signature": {"x": "*fp32"}}, ValueError, "signature lacks out, n, BLOCK, expected"),
    ({"constexprs": {"BLOCK": 100}}, RuntimeError, "add_one does not compile for 9.0: .*power of 2"),
])
def test_wrong_requests(change, error, says):
    with pytest.raises(error, match=f"(?s)compile_report: {says}"):
        compile_report(**{"kernel": add_one, **ADD, **change})


def test_without_triton_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr(reading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"Triton is not installed, expected for compiling: pip install triton"):
        compile_report(add_one, **ADD)


def test_every_combination_is_shipped():
    """Something for each kernel, precision, width and architecture."""
    for kernel, bits, width, capability in itertools.product(KERNELS, (16, 32), (16, 64, 80, 128, 192, 256), ((8, 0), (8, 6), (9, 0), (10, 0), (12, 0))):
        assert shipped.shipped(kernel, capability, bits, width)


def test_importing_the_room_needs_no_triton():
    code = ("import sys; sys.modules['triton'] = None\nimport attnlib.kernels\nimport torch\nx = torch.zeros(1, 2, 3, 4)\n"
            "assert attnlib.kernels.attention(x, x, x).shape == x.shape\nassert not any(n.startswith('triton.') for n in sys.modules)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
