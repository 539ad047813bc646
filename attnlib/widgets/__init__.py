"""Figures that answer: each one Python file and one ES module, alive in JupyterLab and on a page without a kernel.

What a figure shows is computed by its module in the reader's browser; ``computed()`` says what `attnlib` makes of the
same state, and a test compares the two. Needs anywidget.
"""

from attnlib.widgets.score_geometry import ScoreGeometry
from attnlib.widgets.softmax_explorer import SoftmaxExplorer

__all__ = ["ScoreGeometry", "SoftmaxExplorer"]
