"""The check that every count shares: sizes are ints, as their annotations say, and become Python ints."""

import functools
import inspect
import operator


def counts(*positive):
    """Check each parameter annotated `int` of the decorated function: an int from 0, or from 1 if named here.

    NumPy's ints are turned into Python's, which do not overflow. None is passed over where it is the default.
    """

    def decorate(function):
        signature = inspect.signature(function)
        sizes = [name for name, parameter in signature.parameters.items() if parameter.annotation in (int, int | None)]
        lists = [name for name, parameter in signature.parameters.items() if parameter.annotation == list[int]]

        @functools.wraps(function)
        def checked(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            for name in sizes:
                size = bound.arguments[name]
                if size is not None or signature.parameters[name].default is not None:
                    bound.arguments[name] = _size(function.__name__, name, size, int(name in positive))
            for name in lists:
                entries = bound.arguments[name]
                if not isinstance(entries, list | tuple):
                    raise TypeError(f"{function.__name__}: {name} is of type {type(entries).__name__}, expected a list of ints")
                bound.arguments[name] = [_size(function.__name__, f"{name}[{i}]", size, int(name in positive))
                                         for i, size in enumerate(entries)]
            return function(*bound.args, **bound.kwargs)

        return checked

    return decorate


def _size(where, name, size, least):
    try:
        if isinstance(size, bool):
            raise TypeError
        size = operator.index(size)
    except TypeError:
        raise TypeError(f"{where}: {name} is of type {type(size).__name__}, expected an int") from None
    if size < least:
        raise ValueError(f"{where}: {name} is {size}, expected at least {least}")
    return size
