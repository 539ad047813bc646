"""FlashAttention in torch: exact attention tile by tile, forward and backward, and the merging of partial results."""

from attnlib.flash.attention import flash_attention
from attnlib.flash.merging import merge_partial

__all__ = ["flash_attention", "merge_partial"]
