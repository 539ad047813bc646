"""Attention over several devices: each holds a piece of the sequence, keys and values go round the ring."""

__all__ = []
