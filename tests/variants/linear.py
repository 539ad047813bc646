"""The linear family: linear attention with two feature maps, gated, and with the delta rule.

None of them is softmax attention, so each brings its own truth (its quadratic form or its recurrence, pair by pair
and number by number in float64), its own bound on rounding, and its own plain PyTorch operations as a baseline.
Decays and betas are functions of the keys, as in models, so that the gradients of keys go through them.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

from attnlib import linear, masks
from tests.contracts import Variant, alike, untouched, who_sees_whom

U = np.finfo(np.float64).eps / 2

# --- truths ------------------------------------------------------------------------------------------------------


def phi(x):
    return [y + 1 if y > 0 else math.exp(y) for y in x]


def linear_by_hand(q, k, v, predicate):
    """Weights φ(q)·φ(k) over their sum, one pair at a time."""
    q, k, v = (each.astype(np.float64) for each in (q, k, v))
    (batch, heads, seq_q, _), (kv_heads, seq_k, dim_v) = q.shape, v.shape[1:]
    seen = who_sees_whom(predicate, batch, seq_q, seq_k)
    out = np.zeros((batch, heads, seq_q, dim_v))
    for b, h, i in np.ndindex(batch, heads, seq_q):
        g = h * kv_heads // heads
        raw = [math.fsum(x * y for x, y in zip(phi(q[b, h, i]), phi(k[b, g, j]), strict=True)) if seen[b, i, j] else 0.0
               for j in range(seq_k)]
        total = math.fsum(raw)
        for c in range(dim_v if total else 0):
            out[b, h, i, c] = math.fsum(w * x for w, x in zip(raw, v[b, g, :, c], strict=True)) / total
    return out, None


def softplus(x):
    return np.logaddexp(0, x)


def recurrent_by_hand(channels, delta):
    """(q, k, v, predicate) -> out of the gated or the delta rule, token by token; causal whatever the predicate."""
    def truth(q, k, v, predicate):
        q, k, v = (each.astype(np.float64) for each in (q, k, v))
        (batch, heads, seq_q, dim_head), (kv_heads, seq_k, dim_v) = q.shape, v.shape[1:]
        out = np.zeros((batch, heads, seq_q, dim_v))
        for b, h in np.ndindex(batch, heads):
            g, state = h * kv_heads // heads, np.zeros((dim_head, dim_v))
            for t in range(seq_k):
                key, value, beta = k[b, g, t], v[b, g, t], 1 / (1 + math.exp(-k[b, g, t].sum()))
                if channels:
                    fade = np.exp(-softplus(key[:channels] if channels == 1 else key))
                    state = fade[:, None] * state
                if delta:
                    key = key / np.linalg.norm(key)
                    value = beta * (value - np.array([math.fsum(key * column) for column in state.T]))
                state = state + np.outer(key, value)
                i = t - (seq_k - seq_q)
                if i >= 0:
                    out[b, h, i] = [math.fsum(q[b, h, i] * column) for column in state.T]
        return out, None

    return truth


# --- bounds on rounding ------------------------------------------------------------------------------------------

def positive_rounding(q, k, v=None):
    """All terms are positive, so relative errors stay relative: φ a few u, sums as many u as they have terms; both sides err."""
    terms = 2 * (q.shape[-1] + k.shape[-2]) + 40
    return 2 * terms * U * _largest(v)


def _largest(v):
    return 1.0 if v is None else np.abs(v).max(initial=0)


def signed_rounding(q, k, v=None):
    """Sums of q·k·v over channels and keys err by u per term and per fading step, relative to the sum of magnitudes."""
    size = math.prod(np.linalg.norm(each, axis=-1).max(initial=0) for each in (q, k)) * _largest(v)
    return 2 * (q.shape[-1] + 4 * k.shape[-2] + 40) * U * k.shape[-2] * size


def delta_rounding(q, k, v=None):
    """As above with keys of length 1 and with writes for values: a write is at most |v| and what stands in the state.

    A step does not lengthen the state's columns (β and decay up to 1), so after t steps they are at most t·|v| long, and
    an error made once is never amplified: seq_k errors, each relative to seq_k·|v|.
    """
    size = np.linalg.norm(q, axis=-1).max(initial=0) * k.shape[-2] * _largest(v)
    return 2 * (2 * q.shape[-1] + 4 * k.shape[-2] + 40) * U * k.shape[-2] * size


# --- plain PyTorch, in the precision of the inputs ---------------------------------------------------------------

def linear_baseline(q, k, v):
    q, k, v = map(torch.from_numpy, (q, k, v))
    q, k = (torch.where(x > 0, x + 1, x.exp()) for x in (q, k))
    raw = q @ k.mT.repeat_interleave(q.shape[1] // k.shape[1], 1)
    return (raw @ v.repeat_interleave(q.shape[1] // k.shape[1], 1) / raw.sum(-1, keepdim=True)).numpy()


def recurrent_baseline(channels, delta):
    def baseline(q, k, v):
        group = q.shape[1] // k.shape[1]
        q, k, v = torch.from_numpy(q), *(torch.from_numpy(each).repeat_interleave(group, 1) for each in (k, v))
        k, log_decay, beta = made_of(k, channels, delta)
        state, outs = q.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]), []
        for t in range(k.shape[2]):
            if channels:
                state = log_decay[:, :, t, :, None].exp() * state
            value = v[:, :, t, None]
            if delta:
                value = beta[:, :, t, None, None] * (value - k[:, :, t, None] @ state)
            state = state + k[:, :, t, :, None] @ value
            outs.append(state)
        return torch.cat([q[:, :, i, None] @ state for i, state in enumerate(outs[-q.shape[2]:])], 2).numpy()

    return baseline


# --- how they are called -----------------------------------------------------------------------------------------

def made_of(k, channels, delta):
    """Keys, logarithms of decays and betas, all made of the keys."""
    log_decay = -F.softplus(k[..., :1] if channels == 1 else k)
    beta = torch.sigmoid(k.sum(dim=-1))
    return (k / k.norm(dim=-1, keepdim=True) if delta else k), log_decay, beta


def gated(q, k, v, predicate):
    k, log_decay, _ = made_of(k, "all", False)
    return linear.gated_linear_attention(q, k, v, log_decay, chunk=4)[0]


def gated_as_a_whole(q, k, v, predicate):
    k, log_decay, _ = made_of(k, 1, False)
    return linear.gated_linear_attention(q, k, v, log_decay, chunk=3)[0]


def delta(q, k, v, predicate):
    k, _, beta = made_of(k, 0, True)
    return linear.delta_rule_attention(q, k, v, beta, chunk=3)[0]


def gated_delta(q, k, v, predicate):
    k, log_decay, beta = made_of(k, "all", True)
    return linear.delta_rule_attention(q, k, v, beta, log_decay, chunk=4)[0]


def plain(**options):
    def attend(q, k, v, predicate):
        causal = predicate is not None
        assert alike(predicate, masks.causal if causal else None)
        return linear.linear_attention(q, k, v, causal, **options)[0]

    return attend


def variant(name, attend, **about):
    def run(q, k, v, predicate):
        tensors = [torch.from_numpy(each) for each in (q, k, v)]
        with untouched(*tensors):
            return attend(*tensors, predicate).numpy(), None

    def gradients(q, k, v, predicate, d_out):
        leaves = [torch.from_numpy(each).requires_grad_() for each in (q, k, v)]
        out = attend(*leaves, predicate)
        return [each.numpy() for each in torch.autograd.grad(out, leaves, torch.from_numpy(d_out), materialize_grads=True)]

    return Variant(name, run, gradients=gradients, **about)


def bad_calls(function, **more):
    """Wrong calls: those every function of the family refuses, and `more`, name -> list of (value, was)."""
    def zeros(*shape, dtype=torch.float64, device=None):
        return torch.zeros(shape, dtype=dtype, device=device)

    good = {"q": zeros(2, 4, 5, 6), "k": zeros(2, 2, 7, 6), "v": zeros(2, 2, 7, 3)}
    good |= {name: zeros(2, 2, 7, *width) for name, width in (("beta", ()), ("log_decay", (6,))) if name in more}
    wrong = {
        "q": [(zeros(6), "(6,)"), (zeros(2, 4, 5, 6, dtype=torch.int64), "int64"), ([[0.0]], "list"), (np.zeros((2, 4, 5, 6)), "ndarray")],
        "k": [(zeros(2, 2, 7, 5), "(2, 2, 7, 5)"), (zeros(3, 2, 7, 6), "(3,)"), (zeros(2, 2, 7, 6, dtype=torch.float32), "float32")],
        "v": [(zeros(2, 2, 5, 3), "(2, 2, 5, 3)"), (zeros(2, 4, 7, 3), "(2, 4, 7, 3)"), (None, "None"), (zeros(2, 2, 7, 3, device="meta"), "meta")],
        "chunk": [(0, "0"), (2.0, "float"), (-1, "-1")],
        "state": [(zeros(2, 2, 6, 9), "(2, 2, 6, 9)"), (zeros(2, 3, 6, 3), "(2, 3, 6, 3)"), ([0.0], "list")],
    }
    wrong = {name: wrong.get(name, []) + more.get(name, []) for name in {**wrong, **more}}
    calls = [(lambda name=name, value=value: function(**{**good, name: value}), name, was)
             for name, values in wrong.items() for value, was in values]
    calls.append((lambda: function(**{**good, "k": zeros(2, 3, 7, 6), "v": zeros(2, 3, 7, 3),
                                      **{name: zeros(2, 3, 7, *good[name].shape[3:]) for name in ("beta", "log_decay") if name in good}}),
                  "k", "(2, 3, 7, 6)"))  # 3 does not divide 4
    columns = 4 if function is linear.linear_attention else 3
    calls.append((lambda: function(**{**good, "q": zeros(2, 4, 9, 6), "state": zeros(2, 2, 6, columns)}), "q", "(2, 4, 9, 6)"))
    calls.append((lambda: function(**{**good, "state": zeros(2, 2, 6, columns, dtype=torch.float32)}), "state", "float32"))
    return calls


NO_MASK = "every key is seen by the last query: there is no mask but the causal one that could hide it"
NO_MASKS = {"6 NaN that nobody may see reaches no result": NO_MASK, "6 NaN that nobody may see reaches no gradient": NO_MASK}
CAUSAL_ONLY = {
    **NO_MASKS,
    "2 rows of weights sum to 1": "there is no normaliser: what is read is a sum, whose size the model's norm layers settle",
    "2 the order of keys does not matter": "the state fades, or is overwritten, in the order of the keys",
}
LINEAR = dict(patterns=("full", "causal"), exempt=NO_MASKS, truth=linear_by_hand, bound=positive_rounding, baseline=linear_baseline,
              bad_calls=bad_calls(linear.linear_attention))


def causal_only(name, attend, channels, delta, function, **more):
    return variant(name, attend, heads=(4, 2), patterns=("causal",), exempt=CAUSAL_ONLY, truth=recurrent_by_hand(channels, delta),
                   bound=delta_rounding if delta else signed_rounding, baseline=recurrent_baseline(channels, delta),
                   bad_calls=bad_calls(function, **more))


DECAYS = [(torch.zeros(2, 2, 7, 5, dtype=torch.float64), "(2, 2, 7, 5)"), (torch.zeros(2, 2, 6, 6, dtype=torch.float64), "(2, 2, 6, 6)"),
          (torch.zeros(2, 2, 7, 6), "float32")]
BETAS = [(torch.zeros(2, 2, 6, dtype=torch.float64), "(2, 2, 6)"), (torch.zeros(2, 2, 7), "float32"), (None, "None")]

VARIANTS = [
    variant("linear.linear_attention", plain(), **LINEAR),
    variant("linear.linear_attention (chunks of 3, grouped)", plain(chunk=3), heads=(6, 2), **LINEAR),
    variant("linear.linear_attention (token by token, multi-query)", plain(chunk=1), heads=(3, 1), **LINEAR),
    causal_only("linear.gated_linear_attention", gated, "all", False, linear.gated_linear_attention, log_decay=DECAYS),
    causal_only("linear.gated_linear_attention (one decay per head)", gated_as_a_whole, 1, False, linear.gated_linear_attention, log_decay=DECAYS),
    causal_only("linear.delta_rule_attention", delta, 0, True, linear.delta_rule_attention, beta=BETAS),
    causal_only("linear.delta_rule_attention (gated)", gated_delta, "all", True, linear.delta_rule_attention, beta=BETAS, log_decay=DECAYS),
]
