"""Linear attention and its gated and delta-rule descendants: a state of fixed size instead of all keys and values.

Three rules for writing into a state S of shape (features, dim_v), which a query then reads as ``q @ S``:

- add:           S ← S + kᵀ v                            `linear_chunk`
- fade, add:     S ← diag(decay) S + kᵀ v                `gated_chunk`
- correct:       S ← S + kᵀ β (v - k S)                  `delta_chunk`, and with fading `gated_delta_chunk`

Each stands here as a step over a *chunk* of tokens: a chunk of one token is the recurrence, a chunk as long as the
sequence is the quadratic form, and one between them is fast. `in_chunks` walks through a sequence with any of them.
The functions whose names end in `attention` add heads, shared keys and values, alignment and checks.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from attnlib._shapes import takes

__all__ = [
    "decayed_scores",
    "delta_chunk",
    "delta_rule_attention",
    "elu_plus_one",
    "gated_chunk",
    "gated_delta_chunk",
    "gated_linear_attention",
    "in_chunks",
    "linear_attention",
    "linear_chunk",
    "positive_random_features",
    "random_directions",
    "taylor_features",
]


# --- feature maps: exp(q · k / √d) becomes a product of two vectors ------------------------------------------------

@takes(x="float ... dim_head")
def elu_plus_one(x: torch.Tensor) -> torch.Tensor:
    """The feature map φ(x) = elu(x) + 1, number by number (Katharopoulos et al., arXiv 2006.16236, Eq. 7).

    Parameters
    ----------
    x : (..., dim_head)

    Returns
    -------
    (..., dim_head)
        x + 1 where x is positive, eˣ elsewhere, to full precision: 0 only where eˣ underflows.

    Raises
    ------
    TypeError
        If `x` is not a floating-point tensor.
    """
    return x.clamp(max=0).exp() + x.relu()                    # F.elu(x) + 1 would round eˣ to a multiple of 1e-7


@takes(features="positive", dim_head="positive", seed="count")
def random_directions(features: int, dim_head: int, seed: int = 0) -> torch.Tensor:
    """Gaussian directions for `positive_random_features`, perpendicular in groups of `dim_head` (arXiv 2009.14794, Section 2.4).

    Parameters
    ----------
    features : int
        How many.
    dim_head : int
        Width of queries and keys.
    seed : int
        Of the draw.

    Returns
    -------
    (features, dim_head)
        Each row alone is distributed as a vector of independent standard normal numbers.

    Raises
    ------
    ValueError, TypeError
        If a size is not a positive int or the seed not an int from 0.
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(-(-features // dim_head), dim_head, dim_head, generator=generator)
    turned, r = torch.linalg.qr(gaussian)
    turned = turned * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)  # uniform among all rotations
    lengths = torch.randn(features, dim_head, generator=generator).norm(dim=-1, keepdim=True)
    return lengths * turned.flatten(0, 1)[:features]          # (features, dim_head)


@takes(x="float ... dim_head", directions="float features dim_head")
def positive_random_features(x: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Random features whose products are exp(q · k / √d) on average (Performers, arXiv 2009.14794, Lemma 1).

    Parameters
    ----------
    x : (..., dim_head)
        Queries or keys, not scaled: the factor 1 / √d is in here.
    directions : (features, dim_head)
        From `random_directions`; the same for queries and keys.

    Returns
    -------
    (..., features)
        Never negative. Features of very long vectors underflow together: in float32 where ‖x‖² / √d passes about 200.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit.
    """
    x = x / x.shape[-1] ** 0.25                               # a quarter each: q · k is divided by √d
    exponents = x @ directions.mT - x.square().sum(dim=-1, keepdim=True) / 2  # (..., features)
    return exponents.exp() / len(directions) ** 0.5


@takes(x="float ... dim_head")
def taylor_features(x: torch.Tensor) -> torch.Tensor:
    """Features whose products are 1 + s + s²/2, the beginning of exp(s), with s = q · k / √d (Based, arXiv 2402.18668).

    Parameters
    ----------
    x : (..., dim_head)
        Queries or keys, not scaled.

    Returns
    -------
    (..., 1 + dim_head + dim_head²)
        Their products are at least 1/2, though single features may be negative.

    Raises
    ------
    TypeError
        If `x` is not a floating-point tensor.
    """
    x = x / x.shape[-1] ** 0.25
    squares = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) / 2**0.5  # (..., dim_head²)
    return torch.cat([torch.ones_like(x[..., :1]), x, squares], dim=-1)


# --- one chunk of tokens: what its queries read, and the state after it --------------------------------------------

def linear_chunk(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add every token of a chunk to the state, S ← S + kᵀ v (arXiv 2006.16236, Eqs. 18-20, without the normaliser).

    Parameters
    ----------
    q, k : (..., seq, features)
        Queries and keys, or their features.
    v : (..., seq, dim_v)
        Values.
    state : (..., features, dim_v)
        The sum over everything before the chunk.

    Returns
    -------
    out : (..., seq, dim_v)
        What each query reads: the state with all tokens up to its own.
    state : (..., features, dim_v)
        The state after the chunk.
    """
    scores = (q @ k.mT).tril()                                # (..., seq, seq): inside the chunk
    return q @ state + scores @ v, state + k.mT @ v


def decayed_scores(q: torch.Tensor, k: torch.Tensor, log_decay: torch.Tensor) -> torch.Tensor:
    """Scores in which a key has faded since it was written: Σ_c q_ic k_jc exp(g_(j+1)c + ... + g_ic) for j ≤ i.

    Every exponent is a sum of logarithms of decays, never a difference of sums: nothing overflows, nothing is
    divided by what has underflowed, and a decay of exactly 0 (a logarithm of -inf) is exact.

    Parameters
    ----------
    q, k : (..., seq, dim_head)
        Queries and keys.
    log_decay : (..., seq, dim_head) or (..., seq, 1)
        Logarithms of the decays g, at most 0: one per channel (arXiv 2312.06635), or one for all (2405.21060).

    Returns
    -------
    (..., seq, seq)
        0 above the diagonal.
    """
    seq = q.shape[-2]
    if log_decay.shape[-1] == 1:
        steps = log_decay.expand(*log_decay.shape[:-1], seq).tril(-1)  # (..., i, j): g_i where i > j
        return (q @ k.mT) * steps.cumsum(dim=-2).exp().tril()
    missing = 2 ** (seq - 1).bit_length() - seq if seq else 1  # up to a power of two
    q, k, log_decay = (F.pad(each, (0, 0, 0, missing)) for each in (q, k, log_decay))
    scores = (q * k).sum(dim=-1)[..., None, None]             # (..., seq, 1, 1): blocks of one token
    while (size := scores.shape[-1]) < q.shape[-2]:           # join neighbouring blocks
        (_, late_q), (early_k, _), (early, late) = (
            each.unflatten(-2, (-1, 2, size)).unbind(-3) for each in (q, k, log_decay))
        late_q = late_q * late.cumsum(dim=-2).exp()           # (..., blocks, size, dim_head): faded since the border
        early_k = early_k * _sum_after(early).exp()           # faded up to the border
        top, bottom = scores.unflatten(-3, (-1, 2)).unbind(-3)
        bottom = torch.cat([late_q @ early_k.mT, bottom], dim=-1)
        scores = torch.cat([F.pad(top, (0, size)), bottom], dim=-2)  # (..., blocks, 2·size, 2·size)
    return scores.squeeze(-3)[..., :seq, :seq]


def _sum_after(log_decay):
    """Sum over all later steps of the chunk, for every step."""
    later = F.pad(log_decay, (0, 0, 0, 1))[..., 1:, :]
    return later.flip(-2).cumsum(dim=-2).flip(-2)


def gated_chunk(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log_decay: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fade the state and add, token by token: S ← diag(exp g) S + kᵀ v (GLA, arXiv 2312.06635, Section 4).

    Parameters
    ----------
    q, k : (..., seq, dim_head)
    v : (..., seq, dim_v)
    log_decay : (..., seq, dim_head) or (..., seq, 1)
        Logarithms of the decays, at most 0.
    state : (..., dim_head, dim_v)
        The state before the chunk.

    Returns
    -------
    out : (..., seq, dim_v)
    state : (..., dim_head, dim_v)
    """
    since_start = log_decay.cumsum(dim=-2).exp()              # (..., seq, dim_head): what is left of the state
    out = (q * since_start) @ state + decayed_scores(q, k, log_decay) @ v
    whole = log_decay.sum(dim=-2, keepdim=True).exp().mT      # (..., dim_head, 1)
    return out, whole * state + (k * _sum_after(log_decay).exp()).mT @ v


def delta_chunk(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write what is missing, token by token: S ← S + kᵀ β (v - k S) (DeltaNet, arXiv 2102.11174, Section 4.2).

    What each token writes depends on what those before it wrote: a triangular system, solved at once for the whole
    chunk (arXiv 2406.06484). With the solution in place of the values it is `linear_chunk`.

    Parameters
    ----------
    q, k : (..., seq, dim_head)
        Keys usually of length 1.
    v : (..., seq, dim_v)
    beta : (..., seq, 1)
        How much of the difference is written.
    state : (..., dim_head, dim_v)
        The state before the chunk.

    Returns
    -------
    out : (..., seq, dim_v)
    state : (..., dim_head, dim_v)
    """
    overlap = beta * (k @ k.mT).tril(-1)                      # (..., seq, seq): how far earlier keys meet mine
    missing = beta * (v - k @ state)                          # (..., seq, dim_v): as far as the state knows
    writes = torch.linalg.solve_triangular(overlap, missing, upper=False, unitriangular=True)
    return linear_chunk(q, k, writes, state)


def gated_delta_chunk(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, log_decay: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fade, then write what is missing (Gated DeltaNet, arXiv 2412.06464; one decay per channel: 2510.26692).

    Parameters
    ----------
    q, k : (..., seq, dim_head)
        Keys usually of length 1.
    v : (..., seq, dim_v)
    beta : (..., seq, 1)
        How much of the difference is written.
    log_decay : (..., seq, dim_head) or (..., seq, 1)
        Logarithms of the decays, at most 0.
    state : (..., dim_head, dim_v)
        The state before the chunk.

    Returns
    -------
    out : (..., seq, dim_v)
    state : (..., dim_head, dim_v)
    """
    overlap = beta * decayed_scores(k, k, log_decay).tril(-1)
    missing = beta * (v - (k * log_decay.cumsum(dim=-2).exp()) @ state)
    writes = torch.linalg.solve_triangular(overlap, missing, upper=False, unitriangular=True)
    return gated_chunk(q, k, writes, log_decay, state)


def in_chunks(
    step: Callable, state: torch.Tensor, chunk: int, *sequences: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Walk through sequences chunk by chunk, handing a state on.

    Parameters
    ----------
    step : callable
        One of the chunk functions above: ``step(*parts, state) -> (out, state)``.
    state : tensor
        Before the first token.
    chunk : int
        Tokens per step; the last one may be shorter.
    *sequences : (..., seq, width)
        What `step` takes, cut along `seq`.

    Returns
    -------
    out : (..., seq, dim_v)
    state : tensor
        After the last token.
    """
    outs = []
    cut = (each.split(chunk, dim=-2) for each in sequences)
    for parts in zip(*cut, strict=True):
        out, state = step(*parts, state)
        outs.append(out)
    return torch.cat(outs, dim=-2), state


# --- with heads, alignment and checks ------------------------------------------------------------------------------

@takes(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v",
       state="... kv_heads features columns", chunk="positive")
def linear_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = True, feature_map: Callable = elu_plus_one,
    *, state: torch.Tensor | None = None, chunk: int = 64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention with exp(q · k / √d) replaced by φ(q) · φ(k) (Katharopoulos et al., arXiv 2006.16236).

    Time and memory grow as the sequence, forward and backward. There is no scale: what scale there is, is the
    feature map's.

    Parameters
    ----------
    q : (..., heads, seq_q, dim_head)
        Queries.
    k : (..., kv_heads, seq_k, dim_head)
        Keys; `kv_heads` divides `heads`, and neighbouring query heads share one.
    v : (..., kv_heads, seq_k, dim_v)
        Values.
    causal : bool
        Whether a query sees the keys up to its own place only. Where seq_q ≠ seq_k that is aligned to the end: the
        last query sees the last key. False: every query sees every key.
    feature_map : callable
        φ, (..., dim_head) -> (..., features). The products φ(q) · φ(k) have to be positive. It gets float32 where
        the inputs are of half precision.
    state : (..., kv_heads, features, dim_v + 1), optional
        What an earlier call returned: its keys and values come before these. Default: nothing.
    chunk : int
        Tokens per step; changes rounding, time and memory only.

    Returns
    -------
    out : (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query that sees no key.
    state : (..., kv_heads, features, dim_v + 1)
        Σ φ(k)ᵀ v, and in the last column Σ φ(k)ᵀ, over all keys so far; float32 for half-precision inputs.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit; the message names the argument.
    """
    _check_heads("linear_attention", q, k)
    features = feature_map(k[..., :0, :].to(_wide(k))).shape[-1]
    state = _ready("linear_attention", q, k, v, state, features, v.shape[-1] + 1, causal)

    def step(q, k, v, state):
        q, k, v = feature_map(q), feature_map(k), F.pad(v, (0, 1), value=1.0)  # a value that is always 1
        if causal:
            out, state = linear_chunk(q, k, v, state)
        else:
            state = state + k.mT @ v
            out = q @ state
        total = out[..., -1:]                                 # what that value becomes: the sum of the weights
        return out[..., :-1] / total.where(total != 0, 1), state

    return _run(step, state, chunk if causal else None, q, k, v)


@takes(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v",
       log_decay="float ... kv_heads seq_k decays", state="... kv_heads dim_head dim_v", chunk="positive")
def gated_linear_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log_decay: torch.Tensor,
    *, state: torch.Tensor | None = None, chunk: int = 64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal linear attention whose state fades, per channel or as a whole (GLA, arXiv 2312.06635, Section 4).

    One decay per head and step is the rule of Mamba-2 (2405.21060), a constant one that of RetNet (2307.08621).
    There is no scale, no feature map and no normaliser: weights may be negative, and their sum is not 1.

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        As in `linear_attention`; aligned to the end.
    log_decay : (..., kv_heads, seq_k, dim_head) or (..., kv_heads, seq_k, 1)
        Logarithms of the decays, at most 0 (not checked; above 0 the state grows). -inf forgets everything.
    state : (..., kv_heads, dim_head, dim_v), optional
        What an earlier call returned.
    chunk : int
        Tokens per step; changes rounding, time and memory only. Per-channel decays like a power of two.

    Returns
    -------
    out : (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query that sees no key.
    state : (..., kv_heads, dim_head, dim_v)
        After the last key; float32 for half-precision inputs.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit; the message names the argument.
    """
    _check_heads("gated_linear_attention", q, k)
    _check_decays("gated_linear_attention", log_decay, k)
    state = _ready("gated_linear_attention", q, k, v, state, k.shape[-1], v.shape[-1])
    return _run(gated_chunk, state, chunk, q, k, v, log_decay)


@takes(q="float ... heads seq_q dim_head", k="float ... kv_heads seq_k dim_head", v="float ... kv_heads seq_k dim_v",
       beta="float ... kv_heads seq_k", log_decay="float ... kv_heads seq_k decays",
       state="... kv_heads dim_head dim_v", chunk="positive")
def delta_rule_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, log_decay: torch.Tensor | None = None,
    *, state: torch.Tensor | None = None, chunk: int = 64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal linear attention that overwrites: a key's old value is replaced (DeltaNet, arXiv 2102.11174, 2406.06484).

    With `log_decay` it is Gated DeltaNet (2412.06464), or with one decay per channel Kimi Delta Attention (2510.26692).
    There is no scale, no feature map and no normaliser.

    Parameters
    ----------
    q, k, v : (..., heads, seq_q, dim_head), (..., kv_heads, seq_k, dim_head), (..., kv_heads, seq_k, dim_v)
        As in `linear_attention`; aligned to the end. Give keys length 1: the state is stable as long as
        β ‖k‖² lies between 0 and 2.
    beta : (..., kv_heads, seq_k)
        How much of the difference each token writes: 0 nothing, 1 all of it.
    log_decay : (..., kv_heads, seq_k, dim_head) or (..., kv_heads, seq_k, 1), optional
        Logarithms of the decays, at most 0 (not checked). Default: no fading.
    state : (..., kv_heads, dim_head, dim_v), optional
        What an earlier call returned.
    chunk : int
        Tokens per step; changes rounding, time and memory only.

    Returns
    -------
    out : (..., heads, seq_q, dim_v)
        Zeros, with zero gradients, for a query that sees no key.
    state : (..., kv_heads, dim_head, dim_v)
        After the last key; float32 for half-precision inputs.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or devices do not fit; the message names the argument.
    """
    _check_heads("delta_rule_attention", q, k)
    state = _ready("delta_rule_attention", q, k, v, state, k.shape[-1], v.shape[-1])
    if log_decay is None:
        return _run(delta_chunk, state, chunk, q, k, v, beta.unsqueeze(-1))
    _check_decays("delta_rule_attention", log_decay, k)
    return _run(gated_delta_chunk, state, chunk, q, k, v, beta.unsqueeze(-1), log_decay)


def _run(step, state, chunk, q, *per_key):
    """`in_chunks` with shared heads and with queries aligned to the end; chunk None: everything sees everything."""
    (heads, seq_q), (kv_heads, seq_k), given = q.shape[-3:-1], per_key[0].shape[-3:-1], q.dtype
    blind, before = (0, 0) if chunk is None else (max(seq_q - seq_k, 0), max(seq_k - seq_q, 0))
    q = q[..., blind:, :]
    if before:
        q = F.pad(q, (0, 0, before, 0))                       # queries that nobody will read, for the keys before
    q = q.unflatten(-3, (kv_heads, heads // kv_heads)).to(state.dtype)  # (..., kv_heads, group, seq, dim_head)
    per_key = [each.unsqueeze(-3).to(state.dtype) for each in per_key]
    out, state = step(q, *per_key, state) if chunk is None else in_chunks(step, state, chunk, q, *per_key)
    out = out.flatten(-4, -3)[..., before:, :]
    if blind:
        out = F.pad(out, (0, 0, blind, 0))
    return out.to(given), state.squeeze(-3)


def _ready(where, q, k, v, state, features, columns, causal=True):
    """The state before the first token, with an axis for the group; sums are kept in float32 at least."""
    lead, wide = torch.broadcast_shapes(k.shape[:-2], v.shape[:-2]), _wide(q)
    if state is None:
        return q.new_zeros(*lead, 1, features, columns, dtype=wide)
    if state.shape[-2:] != (features, columns):
        raise ValueError(f"{where}: state has shape {tuple(state.shape)}, expected (..., kv_heads, {features}, {columns})")
    if state.dtype != wide:
        raise TypeError(f"{where}: state has dtype {state.dtype}, expected {wide} for {q.dtype}")
    if causal and q.shape[-2] > k.shape[-2]:
        raise ValueError(f"{where}: q has shape {tuple(q.shape)}, expected at most seq_k = {k.shape[-2]} queries with a state")
    return state.unsqueeze(-3)


def _wide(x):
    return torch.promote_types(x.dtype, torch.float32)


def _check_heads(where, q, k):
    heads, kv_heads = q.shape[-3], k.shape[-3]
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(f"{where}: k has shape {tuple(k.shape)}, expected (..., kv_heads, seq_k, dim_head) with kv_heads a "
                         f"divisor of heads = {heads}, as in q")


def _check_decays(where, log_decay, k):
    if log_decay.shape[-1] not in (1, k.shape[-1]):
        raise ValueError(f"{where}: log_decay has shape {tuple(log_decay.shape)}, expected (..., kv_heads, seq_k, decays) "
                         f"with decays = 1 or dim_head = {k.shape[-1]}")
