"""What every figure shares: the ES module it runs, the state it starts from, and what is left without a script."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import ClassVar

import anywidget
import numpy as np
import traitlets

FOLDER = Path(__file__).parent
SHARED = re.compile(r'^import \{[^}]*\} from "\./common\.mjs";\n', re.MULTILINE)
EXPORTED = re.compile(r"^export (?=(?:async )?(?:function|const|class) )", re.MULTILINE)
Value = float | int | bool | str | list


def bundled(name: str) -> str:
    """One module out of two: ``name.mjs`` with the shared ``common.mjs`` in place of its import.

    JupyterLab receives a widget's module as one text, which cannot import a file beside it. On the page the two
    files are loaded as they are.

    Parameters
    ----------
    name : str
        File name of a figure's module, without ``.mjs``.

    Returns
    -------
    str
        The source of one ES module.
    """
    shared = EXPORTED.sub("", (FOLDER / "common.mjs").read_text(encoding="utf-8"))
    own, found = SHARED.subn("", (FOLDER / f"{name}.mjs").read_text(encoding="utf-8"))
    if found != 1:
        raise ValueError(f"{name}.mjs: {found} import lines from ./common.mjs, expected exactly one")
    return f"{shared}\n{own}"


class Figure(anywidget.AnyWidget):
    """A figure that answers: the same object in JupyterLab, where Python follows it, and on a page without a kernel.

    A subclass names its ES module, the traits that make up its state (`fields`), and what `attnlib` computes from
    them (`computed`, `rows`). The module computes the same in the reader's browser; a test compares the two.

    Attributes
    ----------
    caption : str
        What the figure lets the reader see; stands below it.
    """

    module: ClassVar[str] = ""
    title: ClassVar[str] = ""
    fields: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[str, ...]] = ()

    caption = traitlets.Unicode("").tag(sync=True)

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Give each figure its module and the style they share."""
        if "module" in cls.__dict__:
            cls._esm = bundled(cls.module)
            cls._css = (FOLDER / "figure.css").read_text(encoding="utf-8")
        super().__init_subclass__(**kwargs)

    def state(self) -> dict[str, Value]:
        """The figure's whole state, as plain JSON values.

        Returns
        -------
        dict of str to value
            What the ES module is given on a page without a kernel.
        """
        return {name: getattr(self, name) for name in ("caption", *self.fields)}

    def computed(self) -> dict[str, Value]:
        """What `attnlib` computes for the present state.

        Returns
        -------
        dict of str to value
            Plain numbers and lists, under the names that the module's own ``computed(state)`` uses.
        """
        raise NotImplementedError(f"{type(self).__name__}: computed() is missing")

    def rows(self) -> list[list[str]]:
        """The figure in numbers: the rows of a table with the headings `columns`.

        Returns
        -------
        list of list of str
            Rounded, as a reader without the picture gets them.
        """
        raise NotImplementedError(f"{type(self).__name__}: rows() is missing")

    def static(self) -> str:
        """The figure without a script: its state, its caption and its numbers, as HTML.

        Returns
        -------
        str
            A ``<figure>`` that the page's loader, or nobody, brings to life.
        """
        def cells(tag: str, row: tuple[str, ...] | list[str]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in row) + "</tr>"

        state = html.escape(json.dumps(self.state(), separators=(",", ":"), ensure_ascii=False))
        return (f'<figure class="live-figure" data-figure="{self.module}" data-state="{state}">'
                f'<table class="lf-table"><caption>{html.escape(self.title)}, in numbers</caption><thead>{cells("th", self.columns)}</thead>'
                f'<tbody>{"".join(cells("td", row) for row in self.rows())}</tbody></table>'
                f'<figcaption>{html.escape(self.caption)}</figcaption></figure>')

    def __repr__(self) -> str:
        """The class and its title; the state may be long."""
        return f"<{type(self).__name__}: {self.title}>"

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict] | dict | None:
        shown = super()._repr_mimebundle_(**kwargs)
        if shown is None:
            return None
        data, metadata = shown if isinstance(shown, tuple) else (shown, {})
        return {**data, "text/plain": repr(self), "text/html": self.static()}, metadata


def vectors(who: str, name: str, given: object, count: int | None = None) -> list[list[float]]:
    """Read points in the plane from what the caller gave.

    Parameters
    ----------
    who, name : str
        The figure and its argument, for the message.
    given : array-like, (n, 2)
        The points.
    count : int, optional
        How many there have to be.

    Returns
    -------
    list of [x, y]
    """
    points = np.asarray(given, dtype=float)
    if points.ndim != 2 or points.shape[1] != 2 or (count is not None and len(points) != count) or not len(points):
        wanted = f"({count}, 2)" if count is not None else "(n, 2), n at least 1"
        raise ValueError(f"{who}: {name} has shape {points.shape}, expected {wanted}")
    if not np.isfinite(points).all():
        raise ValueError(f"{who}: {name} holds {points[~np.isfinite(points)][0]}, expected finite numbers")
    return np.round(points, 4).tolist()


def fixed(number: float, digits: int = 2) -> str:
    """A number as the figures write it: rounded, with a true minus sign, never a negative zero.

    Parameters
    ----------
    number : float
        Any finite number.
    digits : int
        After the point.

    Returns
    -------
    str
    """
    text = f"{number:.{digits}f}"
    return (text.replace("-", "\N{MINUS SIGN}") if float(text) else text.lstrip("-"))
