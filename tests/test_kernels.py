"""The kernels in Triton's interpreter: forward and backward against float64, and mistakes planted in their source.

What the interpreter shows is that the arithmetic is right, for float32 and float16 (it computes bfloat16 wrongly). That the
kernels compile and fit onto a GPU is the matter of tests/test_kernels_compiled.py.
"""

import importlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import attnlib.kernels
from attnlib import kernels
from attnlib.flash import flash_attention

pytest.importorskip("triton")
from attnlib.kernels import _launch, dispatch
from tests.kernel_rule import DEVICE, HALF, draw, here, judge, planted_file

torch.set_num_threads(1)

#        batch, heads, kv_heads, seq_q, seq_k, dim, dim_v, causal
CASES = [(1, 1, 1, 64, 64, 32, 32, False),                      # whole tiles only
         (1, 2, 2, 37, 53, 24, 40, False),                      # odd lengths, widths that are no powers of two
         (1, 2, 1, 37, 53, 24, 40, True),                       # the same, causal, and a group of heads
         (2, 4, 2, 33, 33, 16, 16, True),
         (2, 2, 2, 1, 70, 64, 64, True),                        # decoding: the last query sees the last key
         (1, 2, 1, 70, 33, 20, 8, True),                        # more queries than keys: the first ones see nothing
         (1, 1, 1, 33, 1, 16, 16, False),                       # one key
         (1, 3, 1, 65, 97, 80, 96, True)]
TILES = [(16, 16), (32, 16), (16, 64)]


def ours(q, k, v, d_out, d_lse, causal, tile):
    """The same by the kernels."""
    out, lse2 = _launch.launch_forward(q, k, v, causal, tile)
    d_q, d_k, d_v = _launch.launch_backward(q, k, v, out, lse2, d_out, d_lse, causal, tile)
    return {"out": out, "lse": lse2 * math.log(2), "d_q": d_q, "d_k": d_k, "d_v": d_v}


def check(case, dtype, tile):
    """The rule, for one case."""
    *inputs, causal = *draw(case, dtype), case[-1]
    seq_q, seq_k = case[3:5]
    seen = torch.ones(seq_q, seq_k, dtype=torch.bool, device=DEVICE)
    return judge(inputs, dtype, seen.tril(seq_k - seq_q) if causal else seen, ours(*inputs, causal, tile))


@pytest.mark.parametrize(("case", "tile"), [(case, tile) for i, case in enumerate(CASES) for tile in (TILES[0], TILES[1 + i % 2])], ids=str)
def test_float32_errs_at_most_twice_as_much_as_pytorch(case, tile):
    print(f"{check(case, torch.float32, tile):.2f} times PyTorch's own error")


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision_errs_at_most_twice_as_much_as_pytorch(case, dtype):
    print(f"{check(case, dtype, (16, 32)):.2f} times PyTorch's own error")


@pytest.mark.skipif(DEVICE == "cpu", reason="what is shipped is for GPUs")
@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_shipped_tiles_err_at_most_twice_as_much_as_pytorch(case, dtype):
    check(case, dtype, None)


PLANTS = [  # what is changed in which file, and the case that must notice
    ("forward", "out * rescale[:, None]", "out", 1),         # the rescale is forgotten
    ("forward", "row_sum * rescale + tl.sum", "row_sum + tl.sum", 1),
    ("forward", "(keys <= first_q", "(keys < first_q", 2),   # causal, off by one
    ("forward", "+ tl.arange(0, BLOCK_Q)[:, None] + seq_k - seq_q)", "+ tl.arange(0, BLOCK_Q)[:, None])", 2),   # aligned to the start
    ("forward", "seen = keys < seq_k", "seen = keys < seq_k + 16", 1),       # what lies behind the last key takes part
    ("forward", "return whole // BLOCK_K * BLOCK_K, stop", "return tl.cdiv(whole, BLOCK_K) * BLOCK_K, stop", 2),
    ("forward", "head_start(k, batch, head // group, k_strides)", "head_start(k, batch, head % (heads // group), k_strides)", 3),
    ("forward", "tl.maximum(row_sum, 1e-30)", "row_sum", 5),     # 0 / 0 for a query that sees no key
    ("backward", " - tl.load(d_lse + at, mask=rows < seq_q, other=0.0)", "", 1),
    ("backward", "d_scores = weights * (d_weights - row_delta[None, :])", "d_scores = weights * d_weights", 1),
    ("backward", "d_scores = weights * (d_weights - row_delta[:, None])", "d_scores = weights * d_weights", 1),
    ("backward", "acc_k * (scale / LOG2E)", "acc_k * scale", 1),
    ("backward", "tl.load(lse2 + rows, mask=rows < seq_q, other=0.0)", "tl.load(lse2 + rows, mask=rows < seq_q, other=0.0) * LOG2E", 1),
    ("backward", "range(group * steps)", "range(steps)", 3),  # only the first head of each group
    ("backward", "// BLOCK_Q * BLOCK_Q    #", "// BLOCK_Q * BLOCK_Q + BLOCK_Q    #", 3),        # the tile on the diagonal is left out
    ("backward", "acc * (scale / LOG2E)", "acc * scale", 1),
]


@pytest.mark.parametrize(("file", "right", "wrong", "case"), PLANTS, ids=lambda text: str(text)[:40])
def test_a_planted_mistake_is_noticed(file, right, wrong, case, tmp_path, monkeypatch):
    planted = planted_file(importlib.import_module(f"attnlib.kernels.{file}"), right, wrong, tmp_path)
    for name in ("delta_kernel",):
        monkeypatch.setattr(_launch, name, getattr(planted, name, getattr(_launch, name)))
    for name, kernel in list(_launch.KERNELS.items()):
        monkeypatch.setitem(_launch.KERNELS, name, getattr(planted, f"{name}_kernel", kernel))
    with pytest.raises(AssertionError, match=r"error|not finite|-inf"), np.errstate(all="ignore"):
        check(CASES[case], torch.float32, (16, 16))


def test_one_key_with_a_large_score_keeps_its_value():
    """On a GPU its power is not 1: the product is not rounded before the maximum is subtracted. Its quotient by itself is."""
    q, v = torch.full((1, 1, 40, 64), 50.0, device=DEVICE), torch.full((1, 1, 1, 64), 3.0, device=DEVICE)
    k = torch.linspace(20, 30, 40, device=DEVICE)[:, None, None, None] * torch.ones_like(v)          # scores of 8,000 to 12,000
    out = kernels.attention(q.expand(40, -1, -1, -1), k, v.expand(40, -1, -1, -1), backend="triton")
    torch.testing.assert_close(out, torch.full_like(out, 3.0), rtol=1e-6, atol=0)                    # a product and a quotient


def layouts():
    """name -> (batch, heads, seq, dim) tensor made from a contiguous one, with other strides."""
    return {
        "heads behind the sequence": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        "every second column": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
        "columns before rows": lambda x: x.mT.contiguous().mT,
        "cut from a larger one": lambda x: torch.nn.functional.pad(x, (3, 2, 1, 4))[..., 1:-4, 3:-2],
    }


@pytest.mark.parametrize("name", layouts())
def test_strides_come_as_they_are(name):
    q, k, v, d_out, d_lse = draw(CASES[2])
    other = [layouts()[name](x) for x in (q, k, v, d_out)]
    assert any(a.stride() != b.stride() for a, b in zip(other, (q, k, v, d_out), strict=True))
    assert all(_launch._near(x) is x for x in other), "copied"
    plain, strided = (ours(*x, d_lse, True, (16, 16)) for x in ((q, k, v, d_out), other))
    assert all(torch.equal(plain[each], strided[each]) for each in plain)


def test_what_is_spread_too_far_is_copied():
    far = torch.empty(1).expand(1, 1, 1, 2).as_strided((1, 1, 1, 1), (0, 0, 2**31 // 256, 1))
    assert _launch._near(far) is not far and _launch._near(far).stride(-2) == 1


def test_any_leading_axes_and_autograd():
    q, k, v, *_ = draw(CASES[3])
    q, k, v = q[:, None].repeat(1, 3, 1, 1, 1).requires_grad_(), k[:, None].requires_grad_(), v[:, None].requires_grad_()
    results = []
    for backend in ("triton", "torch"):
        out, lse = kernels.attention(q, k, v, True, return_lse=True, backend=backend)
        results.append([out, lse, *torch.autograd.grad(out.square().sum() + lse.square().sum(), (q, k, v))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)   # float32 both: sums of 50 terms up to 10
    out = kernels.attention(q[0, 0], k[0, 0], v[0, 0], backend="triton")
    torch.testing.assert_close(out, flash_attention(q[0, 0], k[0, 0], v[0, 0]))


def test_what_is_saved_grows_with_the_sequence_and_not_with_its_square():
    q, k, v, *_ = (x.requires_grad_() for x in draw(CASES[3]))
    out = kernels.attention(q, k, v, backend="triton")
    saved = out.grad_fn.next_functions[0][0].saved_tensors if not hasattr(out.grad_fn, "causal") else out.grad_fn.saved_tensors
    assert sum(x.numel() for x in saved) == q.numel() + k.numel() + v.numel() + out.numel() + out[..., 0].numel()


@here
def test_on_a_cpu_it_is_flash_attention():
    q, k, v, *_ = draw(CASES[2], torch.float64)
    got, want = (f(q, k, v, causal=True, return_lse=True) for f in (kernels.attention, flash_attention))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_gradients_of_gradients_are_refused():
    q, k, v = (torch.ones(1, 1, 4, 16, requires_grad=True, device=DEVICE) for _ in range(3))
    (slope,) = torch.autograd.grad(kernels.attention(q, k, v, backend="triton").square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize(("changed", "error", "said"), [
    ({"q": (1, 1, 4, 512), "k": (1, 1, 4, 512)}, ValueError, "q has dim_head = 512, expected 1 to 256"),
    ({"q": (1, 1, 4, 0), "k": (1, 1, 4, 0)}, ValueError, "q has dim_head = 0, expected 1 to 256"),
    ({"v": (1, 1, 4, 300)}, ValueError, "v has dim_v = 300, expected 1 to 256"),
    ({"dtype": torch.float64}, TypeError, "q has dtype float64, expected float16, bfloat16 or float32"),
    pytest.param({"dtype": torch.bfloat16}, TypeError, "q has dtype bfloat16, expected float16 or float32: Triton's interpreter", marks=here),
    ({"backend": "gpu"}, ValueError, "backend is 'gpu', expected None, \"triton\" or \"torch\""),
])
def test_what_is_unsupported_is_said_in_one_sentence(changed, error, said):
    shapes = [changed.get(name, (1, 1, 4, 16)) for name in "qkv"]
    q, k, v = (torch.zeros(shape, dtype=changed.get("dtype", torch.float32), device=DEVICE) for shape in shapes)
    with pytest.raises(error) as caught:
        kernels.attention(q, k, v, backend=changed.get("backend", "triton"))
    assert said in str(caught.value) and str(caught.value).startswith("attention: ")


def alone(code, interpret):
    """What a fresh Python prints, with or without the interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1], check=False)
    return done.stdout + done.stderr


@here
def test_a_cpu_tensor_without_interpreter_is_refused():
    said = alone("import torch; from attnlib.kernels import attention; x = torch.zeros(1, 1, 4, 16); attention(x, x, x); print('torch');"
                 "attention(x, x, x, backend='triton')", False)
    assert "torch\n" in said and 'ValueError: attention: q is on cpu, expected a CUDA device for backend="triton"' in said


@here
def test_without_triton_all_but_the_kernels_works():
    said = alone("import sys; sys.modules['triton'] = None; import attnlib.kernels; import torch; from attnlib.kernels import attention;"
                 "x = torch.zeros(1, 1, 4, 16); attention(x, x, x); print('torch'); attention(x, x, x, backend='triton')", True)
    assert "torch\n" in said and "ImportError: attention: Triton is not installed" in said and "pip install triton" in said


@here
def test_importing_the_room_brings_neither_torch_nor_triton():
    assert alone("import sys, attnlib.kernels; print('torch' in sys.modules, 'triton' in sys.modules)", True) == "False False\n"
    with pytest.raises(AttributeError, match="no attribute 'atention'"):
        attnlib.kernels.atention  # noqa: B018
    assert {*kernels.__all__} <= {*dir(kernels)}


@pytest.mark.parametrize("shape", [(5, 64), (5, 65), (2, 3, 1), (1, 1000), (0, 4), (3, 0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_row_softmax(shape, dtype):
    scores = 5 * torch.from_numpy(np.random.default_rng(1).normal(size=shape)).to(DEVICE, dtype)
    if scores.numel() and shape[-1] > 1:
        scores[..., 0] += 10000
        scores[0, ..., :] = -torch.inf                       # a row that sees nothing
    got, plain = (kernels.row_softmax(scores, backend) for backend in ("triton", "torch"))
    true = scores.double().softmax(-1).nan_to_num(0)
    assert got.dtype == dtype and got.shape == scores.shape
    for each in (got, plain):                                # weights up to 1: half a last digit each for power, sum, quotient
        assert ((each - true).abs() <= 2 * torch.finfo(dtype).eps * true + torch.finfo(dtype).smallest_normal).all()


def test_row_softmax_leaves_what_stands_between_rows():
    base = torch.full((4, 24), torch.nan, device=DEVICE)
    base[:, :9] = torch.arange(36.0, device=DEVICE).view(4, 9)
    torch.testing.assert_close(kernels.row_softmax(base[:, :9], "triton"), base[:, :9].softmax(-1))
    torch.testing.assert_close(kernels.row_softmax(base[:, :9].T, "triton"), base[:, :9].T.softmax(-1))
    with pytest.raises(ValueError, match="32769 columns, expected at most 32768"):
        kernels.row_softmax(torch.zeros(1, 32769, device=DEVICE), "triton")


def test_shipped_tiles_are_there_for_every_gpu_and_width():
    from attnlib.kernels.shipped import shipped
    for kernel in ("forward", "dkdv", "dq"):
        for capability in ((8, 0), (8, 9), (9, 0), (10, 0), (12, 0)):
            assert all(shipped(kernel, capability, bits, width) for bits in (16, 32) for width in (1, 64, 65, 129, 256))
    with pytest.raises(ValueError, match=r"capability is 7\.5, expected 8.0 or higher"):
        shipped("forward", (7, 5), 16, 64)
    assert dispatch.LARGEST == 256


@here
def test_the_small_kernels_compile_without_spills():
    """Softmax of long rows, and delta of the widest heads; the large kernels are compiled in tests/test_kernels_compiled.py."""
    from attnlib.kernels.backward import delta_kernel
    from attnlib.kernels.softmax import softmax_kernel
    rows = {"x_ptr": "*fp32", "out_ptr": "*fp32", "x_stride": "i32", "out_stride": "i32", "n_cols": "i32", "BLOCK": "constexpr"}
    strides = ("i32", "i32", "i32", "constexpr")
    delta = {"out": "*bf16", "d_out": "*bf16", "d_lse": "*fp32", "delta": "*fp32", "out_strides": strides, "d_out_strides": strides,
             "heads": "i32", "seq_q": "i32", "DIM_V": "constexpr", "BLOCK_V": "constexpr", "BLOCK_Q": "constexpr"}
    places = {(list(delta).index(name), 3): 1 for name in ("out_strides", "d_out_strides")}
    asked = []
    for capability in ((8, 0), (9, 0)):
        asked += [{"kernel": softmax_kernel, "capability": capability, "signature": rows, "constexprs": {"BLOCK": block},
                   "num_warps": _launch.softmax_warps(block)} for block in (32, 4096, 32768)]
        asked += [{"kernel": delta_kernel, "capability": capability, "signature": delta,
                   "constexprs": {"DIM_V": 256, "BLOCK_V": 256, "BLOCK_Q": 16, **places}}]
    for report in kernels.compile_reports(asked):
        assert report.spill_stores == report.spill_loads == 0, report
