"""Figures that answer: each one Python file and one ES module, alive in JupyterLab and on a page without a kernel.

What a figure shows is computed by its module in the reader's browser; ``computed()`` says what `attnlib` makes of the
same state, and a test compares the two. Needs anywidget.
"""

from importlib import import_module

_FIGURES = {
    "AttentionExplorer": "attention_explorer",
    "CostCalculator": "cost_calculator",
    "FlashStepper": "flash_stepper",
    "PatternExplorer": "pattern_explorer",
    "ScoreGeometry": "score_geometry",
    "SoftmaxExplorer": "softmax_explorer",
}

__all__ = list(_FIGURES)


def __getattr__(name: str) -> type:
    """Load a figure when it is first asked for; the others stay where they are."""
    if name not in _FIGURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FIGURES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
