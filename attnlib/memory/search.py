"""A memory that is searched: attention to the nearest of many keys (Memorizing Transformers, arXiv 2203.08913)."""

import torch

from attnlib._shapes import takes
from attnlib.memory.recurrence import masked_weights

__all__ = ["fetch_rows", "knn_attention", "nearest_keys", "shared_weights"]


@takes(q="float ... seq_q dim_head", memory_k="float ... n_mem dim_head", top_k="count", memory_mask="bool ... seq_q n_mem")
def nearest_keys(
    q: torch.Tensor, memory_k: torch.Tensor, top_k: int, memory_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys with the largest scores for each query, found by looking at all of them.

    Parameters
    ----------
    q : (..., seq_q, dim_head)
        Queries.
    memory_k : (..., n_mem, dim_head)
        Keys to search.
    top_k : int
        How many to find; where the memory holds fewer, all of them.
    memory_mask : bool, broadcasts to (..., seq_q, n_mem), optional
        True where a query may attend.

    Returns
    -------
    found : (..., seq_q, min(top_k, n_mem)) int
        Places in the memory, largest score first. No gradient flows through the choice.
    visible : bool, same shape
        False where a query may see fewer keys than it was to find.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or the mask's kind do not fit, or `top_k` is negative or not an int.
    """
    scores = q.detach() @ memory_k.detach().mT               # (..., seq_q, n_mem)
    if memory_mask is not None:
        scores = scores.masked_fill(~memory_mask, -torch.inf)
    best = scores.topk(min(top_k, memory_k.shape[-2]), dim=-1)
    return best.indices, best.values > -torch.inf


@takes(rows="float ... n_mem dim", found="... seq_q found", visible="bool ... seq_q found")
def fetch_rows(rows: torch.Tensor, found: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """The rows of a memory that each query found.

    Parameters
    ----------
    rows : (..., n_mem, dim)
        Keys or values.
    found : (..., seq_q, found) int
        Places in the memory.
    visible : bool, broadcasts to (..., seq_q, found)
        False where a row is to be zeros instead.

    Returns
    -------
    (..., seq_q, found, dim)

    Raises
    ------
    ValueError, TypeError
        If shapes or kinds do not fit.
    """
    rows = rows.expand(*found.shape[:-2], *rows.shape[-2:]).unsqueeze(-3)  # (..., 1, n_mem, dim)
    fetched = torch.take_along_dim(rows, found.unsqueeze(-1), dim=-2)      # (..., seq_q, found, dim)
    return fetched.masked_fill(~visible.unsqueeze(-1), 0)


@takes(far="float ... seq_q found", near="float ... seq_q seq_k", visible="bool ... seq_q found", mask="bool ... seq_q seq_k",
       gate="float ...")
def shared_weights(
    far: torch.Tensor, near: torch.Tensor, visible: torch.Tensor, mask: torch.Tensor, gate: torch.Tensor | None = None
) -> torch.Tensor:
    """Weights over found and local keys: one softmax over both, or two and a gate (arXiv 2203.08913, Section 3.2).

    Parameters
    ----------
    far : (..., seq_q, found)
        Scores of the keys that were found in the memory, scaled.
    near : (..., seq_q, seq_k)
        Scores of the local keys, scaled.
    visible, mask : bool, the shapes of `far` and of `near`
        True where a query may attend.
    gate : (...), optional
        Share of the memory, between 0 and 1, one number per head. Where one side has no key for a query, the other side gets all.

    Returns
    -------
    (..., seq_q, found + seq_k)
        Each row sums to 1, or to 0 for a query that may see no key.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or kinds do not fit.
    """
    if gate is None:
        return masked_weights(torch.cat([far, near], dim=-1), torch.cat([visible, mask], dim=-1))
    share = torch.where(visible.any(dim=-1, keepdim=True), gate[..., None, None], 0)  # (..., seq_q, 1)
    share = torch.where(mask.any(dim=-1, keepdim=True), share, 1)
    return torch.cat([share * masked_weights(far, visible), (1 - share) * masked_weights(near, mask)], dim=-1)


@takes(q="float ... seq_q dim_head", k="float ... seq_k dim_head", v="float ... seq_k dim_v",
       memory_k="float ... n_mem dim_head", memory_v="float ... n_mem dim_v", top_k="count", gate="float ...",
       mask="bool ... seq_q seq_k", memory_mask="bool ... seq_q n_mem")
def knn_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, memory_k: torch.Tensor, memory_v: torch.Tensor, top_k: int,
    gate: torch.Tensor | None = None, mask: torch.Tensor | None = None, memory_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention to local keys and to the nearest keys of a memory (Memorizing Transformers, arXiv 2203.08913, Section 3).

    With a gate, two softmaxes are blended (the paper's Section 3.2); without, one softmax runs over the found
    and the local keys, which for a `top_k` that finds all is attention to everything.

    Parameters
    ----------
    q : (..., seq_q, dim_head)
        Queries.
    k, v : (..., seq_k, dim_head), (..., seq_k, dim_v)
        Local keys and values.
    memory_k, memory_v : (..., n_mem, dim_head), (..., n_mem, dim_v)
        Keys and values of the past.
    top_k : int
        Keys of the memory per query and head, all if the memory holds fewer.
    gate : (...), optional
        Share of the memory, between 0 and 1, one number per head. Where one side has no key for a query, the other
        side gets all.
    mask : bool, broadcasts to (..., seq_q, seq_k), optional
        True where a query may attend to a local key; causal models give a causal mask, aligned to the end.
    memory_mask : bool, broadcasts to (..., seq_q, n_mem), optional
        True where a query may attend to a key of the memory.

    Returns
    -------
    out : (..., seq_q, dim_v)
        Zeros, with zero gradients, for a query that may see no key.
    weights : (..., seq_q, found + seq_k)
        Of the found keys, then of the local ones. Each row sums to 1, or to 0 for a query that may see no key.
    found : (..., seq_q, min(top_k, n_mem)) int
        Which keys of the memory; weight 0 where a query may see fewer.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes, devices or a mask's kind do not fit, or `top_k` is negative or not an int.

    Notes
    -----
    Keys and values that no query may see are replaced by zeros: NaN or infinity there reaches neither a
    result nor a gradient. The search looks at every key; the paper approximates it.
    """
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device) if mask is None else mask
    lead = torch.broadcast_shapes(*(each.shape[:-2] for each in (q, k, v, memory_k, memory_v, mask)))
    q = q.expand(*lead, *q.shape[-2:])
    mask = mask.expand(*lead, q.shape[-2], k.shape[-2])
    seen = mask.any(dim=-2).unsqueeze(-1)                    # (..., seq_k, 1): does any query see this key?
    k, v = k.masked_fill(~seen, 0), v.masked_fill(~seen, 0)
    near = q @ k.mT / q.shape[-1] ** 0.5                     # (..., seq_q, seq_k)
    found, visible = nearest_keys(q, memory_k, top_k, memory_mask)        # (..., seq_q, found)
    found_k = fetch_rows(memory_k, found, visible)           # (..., seq_q, found, dim_head): each query has keys of its own
    found_v = fetch_rows(memory_v, found, visible)
    far = (found_k @ q.unsqueeze(-1)).squeeze(-1) / q.shape[-1] ** 0.5    # (..., seq_q, found)

    weights = shared_weights(far, near, visible, mask, gate)
    of_found, of_local = weights.split([found.shape[-1], k.shape[-2]], dim=-1)
    out = (of_found.unsqueeze(-2) @ found_v).squeeze(-2) + of_local @ v
    return out, weights, found
