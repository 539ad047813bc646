"""A first kernel: softmax of the rows of a matrix, one program to a row."""

import triton
import triton.language as tl


@triton.jit
def softmax_kernel(x_ptr, out_ptr, x_stride, out_stride, n_cols, BLOCK: tl.constexpr):
    """Softmax of row `program_id(0)` of x (rows, n_cols), which fits into one block; zeros for a row of -inf alone."""
    row = tl.program_id(0).to(tl.int64)                      # 64 bits: row · stride may pass 2^31
    columns = tl.arange(0, BLOCK)
    inside = columns < n_cols
    scores = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=-float("inf")).to(tl.float32)
    row_max = tl.maximum(tl.max(scores, axis=0), -3e38)      # finite, also where every score is -inf
    powers = tl.exp(scores - row_max)                        # the largest is 1, so the sum is at least 1
    weights = powers / tl.maximum(tl.sum(powers, axis=0), 1)
    tl.store(out_ptr + row * out_stride + columns, weights.to(out_ptr.dtype.element_ty), mask=inside)
