"""What the calls of this room are checked for, and how without a line in the functions that the chapter shows."""

import functools

import torch

from attnlib.flash._parts import check_count


def after(check):
    """Decorate a function: `check` is called with its arguments first, so that its body stays the chapter's."""
    def decorate(function):
        @functools.wraps(function)
        def checked(*args, **kwargs):
            check(*args, **kwargs)
            return function(*args, **kwargs)
        return checked
    return decorate


def check_pieces(x, ranks, axis=-2, where="zigzag_split"):
    """Raise unless 2 · ranks divides the length of x along the axis."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{where}: x is of type {type(x).__name__}, expected a torch.Tensor")
    check_count(where, 1, ranks=ranks)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{where}: axis is {axis}, expected an axis of x, which has shape {tuple(x.shape)}")
    if x.shape[axis] % (2 * ranks):
        raise ValueError(f"{where}: x has {x.shape[axis]} tokens, expected a multiple of 2 · ranks = {2 * ranks}")


def check_all_pieces(pieces, axis=-2):
    """Raise unless these are tensors of one shape and of even length along the axis."""
    if not isinstance(pieces, list | tuple):
        raise TypeError(f"zigzag_merge: pieces is of type {type(pieces).__name__}, expected a list of tensors")
    if not pieces:
        raise ValueError("zigzag_merge: pieces is empty, expected one a rank")
    for piece in pieces:
        check_pieces(piece, 1, axis, "zigzag_merge")
        if piece.shape != pieces[0].shape:
            raise ValueError(f"zigzag_merge: pieces has shapes {tuple(pieces[0].shape)} and {tuple(piece.shape)}, expected one")


def check_placement(q, k, v, causal, zigzag):
    """Raise unless the leading axes are the same, and lengths are such as causal attention needs."""
    for name, x in (("k", k), ("v", v)):
        if x.shape[:-3] != q.shape[:-3]:
            raise ValueError(f"ring_attention: {name} has leading axes {tuple(x.shape[:-3])}, expected those of q, {tuple(q.shape[:-3])}")
    if causal and q.shape[-2] != k.shape[-2]:
        raise ValueError(f"ring_attention: k has {k.shape[-2]} tokens, expected the {q.shape[-2]} of q: causal attention needs as many")
    if causal and zigzag and q.shape[-2] % 2:
        raise ValueError(f"ring_attention: q has {q.shape[-2]} tokens, expected an even number: two stretches, see zigzag_split")
