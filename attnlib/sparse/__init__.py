"""Sparse attention that skips what it does not need: windows, dilated windows, global tokens, blocks, chosen blocks."""

from attnlib.flash.merging import merge_partial
from attnlib.sparse.blocks import BlockMap, bigbird_attention, block_map, block_sparse_attention
from attnlib.sparse.readable import (
    block_sparse_in_rows,
    chosen_in_rows,
    dilated_in_classes,
    touched_blocks,
    window_in_blocks,
)
from attnlib.sparse.selection import top_k_block_attention
from attnlib.sparse.window import dilated_attention, global_window_attention, sliding_window_attention

__all__ = ["BlockMap", "bigbird_attention", "block_map", "block_sparse_attention", "block_sparse_in_rows", "chosen_in_rows",
           "dilated_attention", "dilated_in_classes", "global_window_attention", "merge_partial", "sliding_window_attention",
           "top_k_block_attention", "touched_blocks", "window_in_blocks"]
