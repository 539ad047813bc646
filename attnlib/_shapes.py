"""Argument checks for the library's functions, kept out of their bodies.

The bodies of `attnlib` are the lines a chapter develops, so they hold no checks. A decorator
states the shapes instead, in the notation of the book, and turns a wrong call into one sentence
that names the argument, what came and what was expected::

    @takes(q="float ... seq_q dim_head", k="float ... seq_k dim_head", mask="bool ... seq_q seq_k")
    def scores(q: np.ndarray, k: np.ndarray, mask: np.ndarray | None = None): ...

For arrays, a word stands for one axis and must mean the same size everywhere; `...` stands for any
leading axes, which must broadcast together. ``heads*dim_head`` is an axis that the int argument
`heads` divides. A leading `float` asks for floating-point entries, of one dtype throughout (but for
torch's autocast, which mixes them on purpose); a leading `bool` marks a mask, which may also
broadcast to its axes. Notes separated by commas describe a tuple whose entries are arrays or 0.
Annotations say which library an array must come from. Works on NumPy arrays and torch tensors alike,
without importing torch.

For numbers: `count` (an int from 0), `positive` (an int from 1), ``divides width`` (a positive int that
divides the axis or int argument `width`; None stands for `width` itself), `even` (an axis or an int
argument), `above 0` (a real number).

Arguments that are None are passed over where None is their default. A dotted name such as ``self.to_q.weight`` is looked up on
the argument.
"""

import functools
import inspect
import sys
from numbers import Real

import numpy as np

_LEAST = {"count": 0, "positive": 1, "even": 0}


def takes(**notes):
    """Check the named arguments of the decorated function against notes.

    Parameters
    ----------
    **notes : str
        Argument name -> note such as ``"float ... seq dim"``, see above.

    Returns
    -------
    callable
        A decorator. The wrapped function raises `TypeError` where an argument has the wrong type or
        holds the wrong kind of entries, and `ValueError` where a size, a shape or a device does not fit.
    """
    number_notes = {n: note for n, note in notes.items() if note.split()[0] in (*_LEAST, "divides", "above")}
    array_notes = {n: [_parse(part) for part in note.split(",")] for n, note in notes.items() if n not in number_notes}

    def decorate(function):
        signature = inspect.signature(function)
        where = function.__qualname__.split("<locals>.")[-1].removesuffix(".__init__").removesuffix(".forward")

        @functools.wraps(function)
        def checked(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            for name in notes:
                if name in given and given[name] is None and signature.parameters[name].default is not None:
                    expected = "an int" if name in number_notes else notes[name]
                    raise TypeError(f"{where}: {name} is None, expected {expected}")
            given = {name: value for name, value in given.items() if value is not None}
            numbers = {name: given[name] for name in number_notes if name in given}
            for name, number in numbers.items():
                _check_number(where, name, number, number_notes[name])
                _check_divisible(where, name, number_notes[name], numbers)
            for name, note in number_notes.items():  # None stands for what it divides
                if note.startswith("divides") and note.split()[1] in numbers:
                    numbers.setdefault(name, numbers[note.split()[1]])
            sizes = check_shapes(where, _arrays(where, given, array_notes, signature), numbers)
            for name, note in number_notes.items():
                _check_divisible(where, name, note, {**sizes, **numbers})
            return function(*args, **kwargs)

        return checked

    return decorate


def check_shapes(where, arrays, numbers):
    """Raise unless every array fits its note; return the size of each named axis.

    Parameters
    ----------
    where : str
        What the message begins with: the caller's name.
    arrays : list of (name, array, note)
        Notes as `_parse` returns them.
    numbers : dict of str to int
        Counts that notes such as ``heads*dim_head`` refer to.
    """
    sizes, leading, device, dtype = {n: (size, n) for n, size in numbers.items()}, None, None, None  # and who said so
    for name, array, (kind, open_ended, axes) in arrays:
        shape, expected = tuple(array.shape), _expected(open_ended, axes)
        _check_kind(where, name, array, kind)
        if kind == "bool":
            expected = "one that broadcasts to " + expected
            axes = axes[max(0, len(axes) - len(shape)):]     # a mask may lack leading ones
        elif len(shape) < len(axes) or (len(shape) > len(axes) and not open_ended):
            raise ValueError(f"{where}: {name} has shape {shape}, expected {expected}")
        for axis, size in zip(axes, shape[len(shape) - len(axes):], strict=True):
            *count, axis = axis.split("*")
            if count and size % numbers[count[0]]:
                raise ValueError(f"{where}: {name} has shape {shape}, expected {expected} with {count[0]} = {numbers[count[0]]}")
            size = size // numbers[count[0]] if count else size
            if kind == "bool" and (size == 1 or axis not in sizes):
                continue
            known, said_by = sizes.setdefault(axis, (size, name))
            if size != known:
                raise ValueError(
                    f"{where}: {name} has shape {shape}, expected {expected} with {axis} = {known}, as in {said_by}")
        if open_ended:
            leading = _check_leading(where, name, shape[: len(shape) - len(axes)], leading)
        device = _check_same(where, name, "device", str(getattr(array, "device", "cpu")), device)
        if kind == "float" and not _autocast(device[0]):
            dtype = _check_same(where, name, "dtype", str(array.dtype), dtype)
    return {axis: size for axis, (size, _) in sizes.items()}


def _parse(note):
    words = note.split()
    kind = words.pop(0) if words[0] in ("bool", "float") else "any"
    open_ended = words[:1] == ["..."]
    return kind, open_ended, words[1:] if open_ended else words


def _expected(open_ended, axes):
    words = (["..."] if open_ended else []) + axes
    return "(" + ", ".join(words) + ("," if len(words) == 1 else "") + ")"


def _arrays(where, given, notes, signature):
    """The arrays to check, as (name, array, note), after a look at their types."""
    found = []
    for name, parts in notes.items():
        first, *attributes = name.split(".")
        if first not in given:
            continue
        value = functools.reduce(getattr, attributes, given[first])
        if len(parts) == 1:
            wanted = inspect.Parameter.empty if attributes else signature.parameters[name].annotation
            _check_array(where, name, value, wanted)
            found.append((name, value, parts[0]))
            continue
        if not isinstance(value, tuple | list):
            raise TypeError(f"{where}: {name} is of type {type(value).__name__}, expected a tuple of {len(parts)}")
        if len(value) != len(parts):
            raise ValueError(f"{where}: {name} has {len(value)} entries, expected {len(parts)}")
        for i, (entry, part) in enumerate(zip(value, parts, strict=True)):
            if not (isinstance(entry, Real) and entry == 0):
                _check_array(where, f"{name}[{i}]", entry, inspect.Parameter.empty)
                found.append((f"{name}[{i}]", entry, part))
    return found


def _check_array(where, name, value, wanted):
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(f"{where}: {name} is of type {type(value).__name__}, expected an array or tensor")
    if wanted is not inspect.Parameter.empty and not isinstance(value, wanted):
        wanted = getattr(wanted, "__args__", [wanted])[0]    # `ndarray | None`: None was passed over
        library = wanted.__module__.split(".")[0]
        raise TypeError(f"{where}: {name} is of type {type(value).__name__}, expected a {library}.{wanted.__name__}")


def _check_kind(where, name, array, kind):
    text = str(array.dtype).removeprefix("torch.")
    is_kind = {"any": True, "bool": text == "bool", "float": text.startswith(("float", "bfloat"))}[kind]
    if not is_kind:
        wanted = "bool, True where a query may attend" if kind == "bool" else "a floating-point dtype"
        raise TypeError(f"{where}: {name} has dtype {text}, expected {wanted}")


def _check_number(where, name, number, note):
    wanted, what = (Real, "a number") if note == "above 0" else (int | np.integer, "an int")
    if isinstance(number, bool) or not isinstance(number, wanted):
        raise TypeError(f"{where}: {name} is of type {type(number).__name__}, expected {what}")
    if note == "above 0" and not number > 0:
        raise ValueError(f"{where}: {name} is {number}, expected a number above 0")
    if number < _LEAST.get(note, -np.inf):
        raise ValueError(f"{where}: {name} is {number}, expected at least {_LEAST[note]}")


def _check_divisible(where, name, note, sizes):
    number = sizes.get(name)
    if note == "even" and number is not None and number % 2:
        raise ValueError(f"{where}: {name} is {number}, expected an even number")
    if note.startswith("divides") and number is not None:
        of = note.split()[1]
        if number < 1 or (of in sizes and sizes[of] % number):
            size = f" = {sizes[of]}" if of in sizes else ""
            raise ValueError(f"{where}: {name} is {number}, expected a positive divisor of {of}{size}")


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


def _autocast(device):
    torch = sys.modules.get("torch")
    return torch is not None and torch.is_autocast_enabled(device.split(":")[0])
