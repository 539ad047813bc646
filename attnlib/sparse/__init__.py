"""Sparse attention that skips what it does not need: windows, dilated windows, global tokens, blocks, chosen blocks."""

from attnlib.sparse.parts import merge_partial
from attnlib.sparse.window import dilated_attention, global_window_attention, sliding_window_attention

__all__ = ["dilated_attention", "global_window_attention", "merge_partial", "sliding_window_attention"]
