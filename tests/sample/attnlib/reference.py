"""The one function that the sample chapter develops."""

import numpy as np


def softmax(scores: np.ndarray) -> np.ndarray:
    """Turn each row of scores into weights.

    Parameters
    ----------
    scores : (..., seq_k)
        Any real numbers.

    Returns
    -------
    weights : (..., seq_k)
        Each row sums to 1.
    """
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
