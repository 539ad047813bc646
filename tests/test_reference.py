"""The NumPy reference against PyTorch, which shares no code with it, and against the definitions."""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch

from attnlib import masks, reference
from tests.contracts import rounding

# Two right float64 results of a layer differ by the rounding of four chained matrix products; with at most 60
# terms each, about ten times the size of their sum, that stays below 4 · 60 · 10 last digits.
LAYER = 2400 * np.finfo(np.float64).eps


def random_sizes(seed):
    """batch, heads, seq_q, seq_k, dim_head, dim_v, all different."""
    return [int(n) for n in np.random.default_rng(seed).permutation(np.arange(2, 14))[:6]]


def draw(seed):
    rng = np.random.default_rng(seed)
    batch, heads, seq_q, seq_k, dim_head, dim_v = random_sizes(seed)
    shapes = (batch, heads, seq_q, dim_head), (batch, heads, seq_k, dim_head), (batch, heads, seq_k, dim_v)
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_scaled_dot_product_attention(seed, masked):
    q, k, v = draw(seed)
    mask = None
    if masked:
        mask = np.random.default_rng([seed, 1]).random((q.shape[0], 1, q.shape[2], k.shape[2])) < 0.6
        mask[..., 0] |= ~mask.any(-1)                        # PyTorch promises nothing for an empty row
    tensors = [torch.from_numpy(each) for each in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *tensors, attn_mask=None if mask is None else torch.from_numpy(mask)).numpy()
    out, _ = reference.attention(q, k, v, mask)
    assert np.abs(out - expected).max() <= rounding(q, k, v)


def copied_weights(module):
    """w_q, w_k, w_v, w_o and the four biases of nn.MultiheadAttention, to be used as x @ w."""
    in_weights = [w.T.detach().numpy() for w in module.in_proj_weight.chunk(3)]
    in_biases = [b.detach().numpy() for b in module.in_proj_bias.chunk(3)]
    return [*in_weights, module.out_proj.weight.T.detach().numpy()], (*in_biases, module.out_proj.bias.detach().numpy())


@pytest.mark.parametrize(("seed", "heads", "dim_head"), [(0, 1, 5), (1, 3, 4), (2, 4, 15), (3, 5, 2)])
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention_equals_torch_module(seed, heads, dim_head, cross, masked):
    rng, dim = np.random.default_rng(seed), heads * dim_head
    torch.manual_seed(seed)
    module = torch.nn.MultiheadAttention(dim, heads, batch_first=True, dtype=torch.float64)
    with torch.no_grad():                                    # its biases begin as zeros, which would hide mistakes
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape) / dim**0.5))
    x = rng.normal(size=(2, 7, dim))
    context = rng.normal(size=(2, 9, dim)) if cross else x
    mask = masks.to_array(masks.causal, 7, context.shape[1]) if masked else None
    expected, expected_weights = module(
        torch.from_numpy(x), torch.from_numpy(context), torch.from_numpy(context), average_attn_weights=False,
        attn_mask=None if mask is None else torch.from_numpy(~mask))  # there, True is ignored
    projections, biases = copied_weights(module)
    out, weights = reference.multi_head_attention(
        x, *projections, heads, mask, context=context if cross else None, biases=biases)
    assert np.abs(out - expected.detach().numpy()).max() <= LAYER * np.abs(out).max()
    assert np.abs(weights - expected_weights.detach().numpy()).max() <= LAYER


def test_a_wrong_bias_order_is_seen():
    """The comparison above can fail: it sees biases of q and k exchanged."""
    rng = np.random.default_rng(5)
    x, ws = rng.normal(size=(7, 12)), rng.normal(size=(4, 12, 12)) / 12**0.5
    b_q, b_k, b_v, b_o = rng.normal(size=(4, 12))
    right, _ = reference.multi_head_attention(x, *ws, 3, biases=(b_q, b_k, b_v, b_o))
    wrong, _ = reference.multi_head_attention(x, *ws, 3, biases=(b_k, b_q, b_v, b_o))
    assert np.abs(right - wrong).max() > 1e6 * LAYER


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_shared_heads_equal_a_layer_whose_heads_are_written_out(kv_heads):
    rng, dim_head = np.random.default_rng(kv_heads), 3
    x, w_q, w_o = rng.normal(size=(2, 5, 10)), rng.normal(size=(10, 12)), rng.normal(size=(12, 10))
    w_k, w_v = rng.normal(size=(2, 10, kv_heads * dim_head))
    grouped, _ = reference.multi_head_attention(x, w_q, w_k, w_v, w_o, 4, kv_heads=kv_heads)
    owner = [h * kv_heads // 4 for h in range(4)]            # which key/value head query head h reads
    full_k, full_v = (np.concatenate([w[:, g * 3 : g * 3 + 3] for g in owner], axis=1) for w in (w_k, w_v))
    written_out, _ = reference.multi_head_attention(x, w_q, full_k, full_v, w_o, 4)
    assert np.abs(grouped - written_out).max() <= LAYER * np.abs(grouped).max()


@pytest.mark.parametrize("seed", range(8))
def test_attention_backward_equals_autograd(seed):
    q, k, v = draw(seed)
    mask = np.random.default_rng([seed, 2]).random((q.shape[2], k.shape[2])) < 0.5
    mask[:, 0] = True
    d_out = np.random.default_rng([seed, 3]).normal(size=(*q.shape[:-1], v.shape[-1]))
    leaves = [torch.from_numpy(each).requires_grad_() for each in (q, k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(*leaves, attn_mask=torch.from_numpy(mask))
    expected = torch.autograd.grad(out, leaves, torch.from_numpy(d_out))
    got = reference.attention_backward(d_out, q, k, v, reference.attention(q, k, v, mask)[1])
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        assert np.abs(mine - theirs.numpy()).max() <= LAYER * max(1, np.abs(mine).max())


# --- softmax and entropy -----------------------------------------------------------------------------------------

def test_softmax_equals_torch_and_its_definition():
    scores = np.random.default_rng(0).normal(size=(3, 5, 7)) * 3
    weights = reference.softmax(scores)
    u = np.finfo(np.float64).eps
    assert np.abs(weights - torch.softmax(torch.from_numpy(scores), -1).numpy()).max() <= 16 * u  # a few roundings, all ≤ 1
    for row, expected in zip(scores.reshape(-1, 7), weights.reshape(-1, 7), strict=True):
        powers = [math.exp(score) for score in row]
        assert np.abs(expected - np.array(powers) / math.fsum(powers)).max() <= 32 * u  # exp errs by |score|·u more


def test_softmax_forgets_a_shift():
    scores = np.random.default_rng(1).integers(-20, 20, size=(4, 6)).astype(float)
    assert np.array_equal(reference.softmax(scores), reference.softmax(scores + 2.0**20))  # exact: integers below 2^53


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_softmax_of_extreme_rows(dtype):
    low, high = np.finfo(dtype).min, np.finfo(dtype).max
    rows = np.array([[-np.inf] * 3, [low, low, low], [high, 0, low], [-np.inf, 5, -np.inf], [-np.inf, low, -np.inf]], dtype)
    expected = [[0, 0, 0], [1 / 3] * 3, [1, 0, 0], [0, 1, 0], [0, 1, 0]]
    with np.errstate(over="ignore"):                         # low - high is -inf, whose power is the right 0
        weights = reference.softmax(rows)
    assert weights.dtype == dtype
    assert np.abs(weights - expected).max() <= np.finfo(dtype).eps
    assert reference.softmax(np.zeros((2, 0), dtype)).shape == (2, 0)


def test_softmax_backward_is_the_jacobian():
    rng = np.random.default_rng(2)
    weights, d_weights = reference.softmax(rng.normal(size=(4, 6))), rng.normal(size=(4, 6))
    got = reference.softmax_backward(weights, d_weights)
    for p, d, mine in zip(weights, d_weights, got, strict=True):
        assert np.abs((np.diag(p) - np.outer(p, p)) @ d - mine).max() <= 64 * np.finfo(float).eps
        assert abs(mine.sum()) <= 64 * np.finfo(float).eps   # six terms below 10, a few roundings each


def test_entropy_of_known_rows():
    rows = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [0, 0, 0, 0]], float)
    assert np.abs(reference.entropy(rows) - [0, math.log(4), math.log(2), 0]).max() <= 4 * np.finfo(float).eps
    weights = reference.softmax(np.random.default_rng(3).normal(size=(2, 3, 9)))
    expected = torch.distributions.Categorical(torch.from_numpy(weights)).entropy().numpy()
    assert np.abs(reference.entropy(weights) - expected).max() <= 64 * np.finfo(float).eps


# --- heads ---------------------------------------------------------------------------------------------------------

def test_a_head_owns_neighbouring_columns():
    x = np.arange(2 * 5 * 12).reshape(2, 5, 12)
    heads = reference.split_heads(x, 3)
    assert heads.shape == (2, 3, 5, 4)
    for h in range(3):
        assert np.array_equal(heads[:, h], x[:, :, 4 * h : 4 * h + 4])
    assert np.array_equal(reference.merge_heads(heads), x)
    assert np.array_equal(reference.merge_heads(reference.split_heads(x[0], 6)), x[0])  # no batch axis


def test_reshaping_alone_does_not_split_heads():
    x = np.arange(5 * 12).reshape(5, 12)
    assert not np.array_equal(reference.split_heads(x, 3), x.reshape(3, 5, 4))


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (1, 3, 2)])
def test_any_leading_axes(lead):
    rng = np.random.default_rng(7)
    q, k, v = rng.normal(size=(*lead, 5, 6)), rng.normal(size=(7, 6)), rng.normal(size=(*lead, 7, 4))
    out, weights = reference.attention(q, k, v)              # one set of keys for all
    assert out.shape == (*lead, 5, 4) and weights.shape == (*lead, 5, 7)
    for index in np.ndindex(lead):
        alone, _ = reference.attention(q[index], k, v[index])
        assert np.abs(out[index] - alone).max() <= rounding(q, k, v)


# --- online softmax --------------------------------------------------------------------------------------------------

def in_blocks(scores, v, edges):
    lead = scores.shape[:-1]
    state = np.full(lead, -np.inf), np.zeros(lead), np.zeros((*lead, v.shape[-1]))
    for start, stop in itertools.pairwise(edges):
        state = reference.online_softmax_update(*state, scores[..., start:stop], v[..., start:stop, :])
    return state


@pytest.mark.parametrize("edges", [[0, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 4, 9], [0, 0, 7, 7, 9]])
@pytest.mark.parametrize("masked", [False, True])
def test_online_softmax_equals_attention_whatever_the_blocks(edges, masked):
    rng = np.random.default_rng(11)
    q, k, v = rng.normal(size=(2, 5, 6)), rng.normal(size=(2, 9, 6)), rng.normal(size=(2, 9, 4))
    mask = masks.to_array(masks.both(masks.causal, lambda q, k: q != 6), 5, 9) if masked else np.ones((5, 9), bool)
    scores = np.where(mask, reference.attention_scores(q, k), -np.inf)
    row_max, row_sum, out = in_blocks(scores, v, edges)
    expected, _ = reference.attention(q, k, v, mask)
    with np.errstate(divide="ignore"):                       # log 0 of the empty row
        lse, true_lse = row_max + np.log(row_sum), torch.logsumexp(torch.from_numpy(scores), -1).numpy()
    blind = ~mask.any(-1)
    assert blind.any() == masked
    assert np.abs(out / np.where(row_sum == 0, 1, row_sum)[..., None] - expected).max() <= 2 * rounding(q, k, v)
    assert np.abs(lse[:, ~blind] - true_lse[:, ~blind]).max() <= 2 * rounding(q, k)
    assert np.isneginf(lse[:, blind]).all() and not out[:, blind].any()


def test_online_softmax_survives_a_growing_maximum():
    scores = np.array([[-1e4, 0.0, 1e4, 1e4 + 1]])
    v = np.eye(4)
    with np.errstate(over="raise", invalid="raise"):
        row_max, row_sum, out = in_blocks(scores, v, [0, 1, 2, 3, 4])
    assert row_max == 1e4 + 1
    assert np.abs(out / row_sum - reference.softmax(scores)).max() <= 8 * np.finfo(float).eps


def test_online_softmax_leaves_its_arguments():
    rng = np.random.default_rng(12)
    given = [rng.normal(size=5), np.ones(5), rng.normal(size=(5, 4)), rng.normal(size=(5, 3)), rng.normal(size=(3, 4))]
    for array in given:
        array.flags.writeable = False                        # writing would raise
    reference.online_softmax_update(*given)


def test_every_public_function_states_shapes_raises_and_where_it_comes_from():
    for name in reference.__all__:
        doc = inspect.getdoc(getattr(reference, name))
        for section in ("Parameters\n---", "Returns\n---", "Raises\n---"):
            assert section in doc, f"{name}: no {section.split()[0]}"
