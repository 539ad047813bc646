"""Stands for anywidget inside the page's Python, packed as `anywidget`: a figure has its traits and its static form.

The page shows that form and brings it to life with the figure's own ES module, as it does with the stored one; the
channel between a kernel and a widget, which is what anywidget is for, does not exist there.
"""

import traitlets


class AnyWidget(traitlets.HasTraits):
    """Traits that are set by keyword, and a display without a view."""

    def __init__(self, **traits: object) -> None:
        super().__init__()
        for name, value in traits.items():
            setattr(self, name, value)

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        return {"text/plain": repr(self)}, {}
