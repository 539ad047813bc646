"""Attention as Triton kernels, and what they compile to. Importing this needs neither Triton nor a GPU."""

__all__ = []
