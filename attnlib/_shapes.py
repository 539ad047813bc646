"""Argument checks for the library's functions, kept out of their bodies.

The bodies of `attnlib` are the lines a chapter develops, so they hold no checks. A decorator
states the shapes instead, in the notation of the book, and turns a wrong call into one sentence
that names the argument, what came and what was expected::

    @takes(q="... seq_q dim_head", k="... seq_k dim_head", v="... seq_k dim_v", mask="bool ...")
    def attention(q, k, v, mask=None): ...

A word stands for one axis and must mean the same size everywhere; `...` stands for any leading
axes, which must broadcast together. A leading `bool` or `float` asks for that kind of entries.
`divides width` asks for a positive int that divides the axis, or the int argument, `width`;
`even` for an axis or an int argument that is even.
Arguments that are None are passed over. Works on NumPy arrays and torch tensors alike, without
importing torch.
"""

import functools
import inspect

import numpy as np


def takes(**shapes):
    """Check the named arguments of the decorated function against shape notes.

    Parameters
    ----------
    **shapes : str
        Argument name -> note such as ``"float ... seq dim"``.

    Returns
    -------
    callable
        A decorator. The wrapped function raises `TypeError` where an argument is not an array or
        holds the wrong kind of entries, and `ValueError` where a shape does not fit.
    """
    divisors = {name: note.split()[1] for name, note in shapes.items() if note.startswith("divides ")}
    even = [name for name, note in shapes.items() if note == "even"]
    arrays = {name: _parse(note) for name, note in shapes.items() if name not in divisors and name not in even}

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args, **kwargs):
            given = signature.bind(*args, **kwargs).arguments
            given = {name: value for name, value in given.items() if value is not None}
            sizes = check_shapes(function.__name__, {n: given[n] for n in arrays if n in given}, arrays)
            for name in divisors.keys() & given.keys():
                _check_divides(function.__name__, name, given[name], divisors[name], {**given, **sizes})
            for name in even:
                size = given.get(name, sizes.get(name))
                if size % 2:
                    raise ValueError(f"{function.__name__}: {name} is {size}, expected an even number")
            return function(*args, **kwargs)

        return checked

    return decorate


def check_shapes(where, given, notes):
    """Raise unless every array in `given` fits its note; return the size of each named axis."""
    sizes, leading, device, floats = {}, None, None, None  # each remembers who said it first
    for name, array in given.items():
        kind, open_ended, axes = notes[name]
        _check_kind(where, name, array, kind)
        shape = tuple(array.shape)
        expected = "(" + ", ".join((["..."] if open_ended else []) + axes) + ")"
        if len(shape) < len(axes) or (len(shape) > len(axes) and not open_ended):
            raise ValueError(f"{where}: {name} has shape {shape}, expected {expected}")
        for axis, size in zip(axes, shape[len(shape) - len(axes):], strict=True):
            known, said_by = sizes.setdefault(axis, (size, name))
            if size != known:
                raise ValueError(
                    f"{where}: {name} has shape {shape}, expected {expected} with {axis} = {known}, as in {said_by}")
        if open_ended and kind != "bool":
            leading = _check_leading(where, name, shape[: len(shape) - len(axes)], leading)
        device = _check_same(where, name, "device", str(getattr(array, "device", "cpu")), device)
        if kind == "float":
            floats = _check_same(where, name, "dtype", str(array.dtype), floats)
    return {axis: size for axis, (size, _) in sizes.items()}


def _parse(note):
    words = note.split()
    kind = words.pop(0) if words[0] in ("bool", "float") else "any"
    open_ended = words[:1] == ["..."]
    return kind, open_ended, words[1:] if open_ended else words


def _check_kind(where, name, array, kind):
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise TypeError(f"{where}: {name} is a {type(array).__name__}, expected an array or tensor")
    text = str(array.dtype).removeprefix("torch.")
    is_kind = {"any": True, "bool": text == "bool", "float": text.startswith(("float", "bfloat"))}[kind]
    if not is_kind:
        wanted = "bool, True where a query may attend" if kind == "bool" else "a floating-point dtype"
        raise TypeError(f"{where}: {name} has dtype {text}, expected {wanted}")


def _check_divides(where, name, number, of, sizes):
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise TypeError(f"{where}: {name} is a {type(number).__name__}, expected an int")
    if number < 1 or (of in sizes and sizes[of] % number):
        raise ValueError(f"{where}: {name} is {number}, expected a positive divisor of {of} = {sizes.get(of)}")


def _check_leading(where, name, lead, known):
    if known is None:
        return lead, name
    before, said_by = known
    try:
        return np.broadcast_shapes(before, lead), said_by
    except ValueError:
        raise ValueError(
            f"{where}: {name} has leading axes {lead}, expected axes that broadcast with {before}, as in {said_by}"
        ) from None


def _check_same(where, name, what, value, known):
    if known is None:
        return value, name
    if value != known[0]:
        error = ValueError if what == "device" else TypeError
        raise error(f"{where}: {name} has {what} {value}, expected {known[0]}, as in {known[1]}")
    return known
