"""Attention that remembers what has left its segment: recurrence over segments with relative positions, compressed
memory, sinks, and a memory of keys and values searched for the nearest.

A text is read segment by segment. A memory here holds rows of earlier segments, oldest first, without gradient.
"""

from attnlib.memory.recurrence import (
    SegmentLayer,
    distance_vectors,
    masked_weights,
    relative_attention,
    relative_shift,
)
from attnlib.memory.search import fetch_rows, knn_attention, nearest_keys, shared_weights
from attnlib.memory.stores import CompressiveMemory, NearestMemory, SegmentMemory, SinkMemory, compress

__all__ = [
    "CompressiveMemory", "NearestMemory", "SegmentLayer", "SegmentMemory", "SinkMemory", "compress",
    "distance_vectors", "fetch_rows", "knn_attention", "masked_weights", "nearest_keys", "relative_attention",
    "relative_shift", "shared_weights",
]
