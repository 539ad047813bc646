"""Attention over several devices: each holds a piece of the sequence, keys and values go round the ring.

Queries stay where they are. In every step each device (a *rank* of a `torch.distributed` group) attends to the keys and
values it has at the moment, while they already travel on to the next; partial results are merged by their log-sum-exp.
"""

from attnlib.ring.attention import count_sent, ring_attention
from attnlib.ring.launching import torchrun
from attnlib.ring.placing import chunk_pairs, chunks_of, zigzag_merge, zigzag_split

__all__ = ["chunk_pairs", "chunks_of", "count_sent", "ring_attention", "torchrun", "zigzag_merge", "zigzag_split"]
