"""What calls the kernels: on CUDA tensors Triton, on others torch in tiles, and one sentence for what neither can do."""

import math

import torch

from attnlib._shapes import takes
from attnlib.flash import flash_attention
from attnlib.flash._parts import check_heads

LARGEST = 256  # numbers to a head: the results of a tile are held in registers
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@takes(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v")
def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False, return_lse: bool = False, backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Exact softmax attention: Triton kernels on a GPU, `attnlib.flash` elsewhere (arXiv 2307.08691, Algorithms 1 and 2).

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        Queries, keys and values; `kv_heads` divides `heads`, neighbouring query heads share a key head. The kernels take
        float16, bfloat16 and float32, `dim_head` and `dim_v` from 1 to 256 (at least 16 is what the hardware multiplies:
        smaller ones are padded), and strides as they come.
    causal : bool
        Whether a query sees only what does not come after it. Where seq_q ≠ seq_k queries are aligned to the end:
        the last query sees the last key.
    return_lse : bool
        Whether to return the log-sum-exp too, for `attnlib.flash.merge_partial`.
    backend : {None, "triton", "torch"}
        None: Triton for tensors on a GPU, torch for others. With "triton" tensors on a CPU are computed in Triton's
        interpreter, if it is on.

    Returns
    -------
    out : (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query that may see no key.
    lse : (..., heads, seq_q)
        If asked for: the natural logarithm of the sum of e^score over the keys seen, -inf where there is none; float32
        for half precision.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit, the heads do not divide, or the backend cannot do what is asked.
    ImportError
        If Triton is asked for and missing.

    Notes
    -----
    Memory beyond the result is linear in the sequence, forward and backward. Each sum is made by one program, in one order: with the
    same tiles the same bits. (On a GPU the tiles are chosen by timing, anew in each process.)
    The kernels multiply weights of zero too, inside a tile on the diagonal: NaN or infinity in a key or value reaches
    the queries of its tile, also those that may not see it. Gradients of gradients are refused.
    """
    check_heads("attention", q, k)
    if not _by_triton("attention", "q", q, backend):
        return flash_attention(q, k, v, causal, return_lse=return_lse)
    _check_widths("attention", q, v)
    lead = torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3])
    q, k, v = (x.expand(*lead, *x.shape[-3:]).reshape(lead.numel(), *x.shape[-3:]) for x in (q, k, v))  # (batch, heads, seq, width)
    from attnlib.kernels._launch import Kernels

    out, lse = Kernels.apply(q, k, v, bool(causal))
    out, lse = (x.reshape(*lead, *x.shape[1:]) for x in (out, lse))
    return (out, lse) if return_lse else out


@takes(scores="float ... n_cols")
def row_softmax(scores: torch.Tensor, backend: str | None = None) -> torch.Tensor:
    """Softmax over the last axis: a first kernel, which holds a whole row in one program.

    Parameters
    ----------
    scores : (..., n_cols)
        float16, bfloat16 or float32; for the kernel at most 32768 columns, which still fit into the registers of 1024 threads.
    backend : {None, "triton", "torch"}
        As for `attention`.

    Returns
    -------
    weights : (..., n_cols)
        Rows sum to 1; a row of -inf alone gives zeros. Not differentiable.

    Raises
    ------
    ValueError, TypeError, ImportError
        As for `attention`.
    """
    if not _by_triton("row_softmax", "scores", scores, backend):
        blind = (scores == -torch.inf).all(-1, keepdim=True)
        return torch.softmax(scores.masked_fill(blind, 0), -1).masked_fill(blind, 0)
    n_cols = scores.shape[-1]
    if n_cols > 32768:
        raise ValueError(f"row_softmax: scores has {n_cols} columns, expected at most 32768: a row must fit into the registers of one program")
    from attnlib.kernels._launch import launch_softmax

    rows = scores.reshape(math.prod(scores.shape[:-1]), n_cols)
    rows = rows if rows.stride(-1) == 1 else rows.contiguous()
    out = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
    launch_softmax(rows, out)
    return out.view(scores.shape)


def _check_widths(where, q, v):
    """Raise where a head is wider than the kernels take."""
    for name, width, size in (("q", "dim_head", q.shape[-1]), ("v", "dim_v", v.shape[-1])):
        if not 1 <= size <= LARGEST:
            raise ValueError(f"{where}: {name} has {width} = {size}, expected 1 to {LARGEST} for the Triton kernels")


def _by_triton(where, name, x, backend):
    """Whether Triton computes this, from the tensor x (the argument `name` of `where`); raise where it cannot."""
    if backend not in (None, "triton", "torch"):
        raise ValueError(f'{where}: backend is {backend!r}, expected None, "triton" or "torch"')
    if backend == "torch" or (backend is None and x.device.type != "cuda"):
        return False
    try:
        import triton
    except ImportError:
        raise ImportError(f"{where}: Triton is not installed, expected for {x.device}: pip install triton (Linux), "
                          'or ask for backend="torch"') from None
    if x.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise ValueError(f'{where}: {name} is on {x.device}, expected a CUDA device for backend="triton" (or Triton\'s interpreter: '
                         "TRITON_INTERPRET=1 in the environment before Triton is imported)")
    if x.dtype not in DTYPES:
        raise TypeError(f"{where}: {name} has dtype {str(x.dtype).removeprefix('torch.')}, expected float16, bfloat16 or float32 "
                        "for the Triton kernels")
    if x.dtype == torch.bfloat16 and triton.knobs.runtime.interpret:
        raise TypeError(f"{where}: {name} has dtype bfloat16, expected float16 or float32: Triton's interpreter computes bfloat16 wrongly")
    return True
