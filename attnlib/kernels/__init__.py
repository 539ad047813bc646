"""Attention as Triton kernels, and what they compile to. Importing this needs neither Triton nor a GPU.

`attention` and its kin choose for themselves: Triton for tensors on a GPU, torch for others. The kernels themselves are in
`attnlib.kernels.softmax`, `.forward`, `.backward`, `.blocks` and `.decode`; importing one of those needs Triton.
"""

import importlib

_FROM = {
    "CompileReport": "reading",
    "attention": "dispatch",
    "block_sparse_attention": "block_sparse",
    "compile_report": "reading",
    "compile_reports": "reading",
    "decode_attention": "decoding",
    "row_softmax": "dispatch",
}
__all__ = sorted(_FROM)


def __getattr__(name):
    """The public name, from the file that defines it, imported when it is first asked for."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


def __dir__():
    """The public names."""
    return __all__
