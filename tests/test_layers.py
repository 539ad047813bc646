"""The torch layers against PyTorch's own, against the NumPy reference, and their gradients."""

import copy
import pickle

import numpy as np
import pytest
import torch

from attnlib import layers, masks, reference
from tests.contracts import rounding
from tests.test_reference import LAYER, copied_weights, draw

# layer arguments: dim, heads, kv_heads, dim_head
LAYERS = [(12, 3, None, None), (12, 4, 2, None), (12, 6, 1, None), (10, 3, 3, 4), (8, 4, 2, 5), (5, 1, 1, None)]


def make(dim, heads, kv_heads=None, dim_head=None, bias=True, seed=0):
    """A float64 layer whose weights and biases are all random."""
    layer = layers.MultiHeadAttention(dim, heads, kv_heads, dim_head=dim_head, bias=bias).double()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape) / dim**0.5))
    return layer


def causal(seq_q, seq_k):
    return torch.from_numpy(masks.to_array(masks.causal, seq_q, seq_k))


def some_blind(seq_q, seq_k):
    return torch.from_numpy(masks.to_array(lambda q, k: (k <= q) & (q % 3 != 1) & (k != 2), seq_q, seq_k))


# --- attention -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(20))
def test_attention_equals_the_reference_and_pytorch(seed):
    q, k, v = draw(seed)
    mask = np.random.default_rng([seed, 1]).random((q.shape[0], 1, q.shape[2], k.shape[2])) < 0.5
    tensors = [torch.from_numpy(each) for each in (q, k, v)]
    out, weights = layers.attention(*tensors, torch.from_numpy(mask))
    true_out, true_weights = reference.attention(q, k, v, mask)
    assert np.abs(out.numpy() - true_out).max() <= rounding(q, k, v)
    assert np.abs(weights.numpy() - true_weights).max() <= rounding(q, k)
    sighted = torch.from_numpy(mask.any(-1)).expand(out.shape[:-1])
    theirs = torch.nn.functional.scaled_dot_product_attention(*tensors, attn_mask=torch.from_numpy(mask))
    assert (out - theirs)[sighted].abs().max() <= rounding(q, k, v)


@pytest.mark.parametrize("mask", [None, causal(3, 4), some_blind(3, 4), causal(3, 4)[None, None].expand(2, 1, 3, 4)],
                         ids=["full", "causal", "some blind", "batch"])
def test_gradcheck_of_attention(mask):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, seq, width, dtype=torch.float64, requires_grad=True) for seq, width in ((3, 5), (4, 5), (4, 2)))
    assert torch.autograd.gradcheck(lambda q, k, v: layers.attention(q, k, v, mask), (q, k, v))


@pytest.mark.parametrize("form", [lambda m: m, lambda m: m[None], lambda m: m[:1], lambda m: m[0], lambda m: m[:, :1], lambda m: m[0, 0]])
def test_masks_broadcast(form):
    q, k, v = (torch.from_numpy(each) for each in draw(3))
    mask = form(some_blind(q.shape[2], k.shape[2]))
    whole = torch.broadcast_to(mask, (*q.shape[:-1], k.shape[2])).contiguous()
    for got, expected in zip(layers.attention(q, k, v, mask), layers.attention(q, k, v, whole), strict=True):
        assert torch.equal(got, expected)


# --- the layer -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("heads", "dim_head"), [(1, 5), (3, 4), (5, 2)])
def test_layer_and_its_gradients_equal_torch_module(heads, dim_head, cross, masked):
    dim, rng = heads * dim_head, np.random.default_rng(heads)
    layer, module = make(dim, heads), torch.nn.MultiheadAttention(dim, heads, batch_first=True, dtype=torch.float64)
    linears = layer.to_q, layer.to_k, layer.to_v
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.cat([linear.weight for linear in linears]))
        module.in_proj_bias.copy_(torch.cat([linear.bias for linear in linears]))
    module.out_proj.load_state_dict(layer.to_out.state_dict())
    x = torch.from_numpy(rng.normal(size=(2, 7, dim)))
    context = torch.from_numpy(rng.normal(size=(2, 9, dim))) if cross else x
    mask = causal(7, context.shape[1]) if masked else None
    out, weights = layer(x, context if cross else None, mask)
    theirs, their_weights = module(
        x, context, context, average_attn_weights=False, attn_mask=None if mask is None else ~mask)  # there, True is ignored
    assert (out - theirs).abs().max() <= LAYER * out.abs().max()
    assert (weights - their_weights).abs().max() <= LAYER
    d_out = torch.from_numpy(rng.normal(size=out.shape))
    out.backward(d_out)
    theirs.backward(d_out)
    expected = [*module.in_proj_weight.grad.chunk(3), *module.in_proj_bias.grad.chunk(3),
                module.out_proj.weight.grad, module.out_proj.bias.grad]
    got = [linear.weight.grad for linear in linears] + [linear.bias.grad for linear in linears] + [
        layer.to_out.weight.grad, layer.to_out.bias.grad]
    size = max(each.abs().max() for each in expected)        # the keys' bias has gradient 0: compare with the largest
    for mine, other in zip(got, expected, strict=True):
        assert (mine - other).abs().max() <= LAYER * size


@pytest.mark.parametrize("sizes", LAYERS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_layer_equals_the_reference(sizes, bias, cross):
    dim, heads, kv_heads, _ = sizes
    layer, rng = make(*sizes, bias=bias), np.random.default_rng(1)
    x, context = rng.normal(size=(2, 5, dim)), rng.normal(size=(2, 7, dim)) if cross else None
    mask = some_blind(5, 7 if cross else 5)
    out, weights = layer(torch.from_numpy(x), None if context is None else torch.from_numpy(context), mask)
    linears = layer.to_q, layer.to_k, layer.to_v, layer.to_out
    biases = tuple(linear.bias.detach().numpy() for linear in linears) if bias else (0, 0, 0, 0)
    true_out, true_weights = reference.multi_head_attention(
        x, *(linear.weight.detach().numpy().T for linear in linears), heads, mask.numpy(),
        context=context, kv_heads=kv_heads, biases=biases)
    assert np.abs(out.detach().numpy() - true_out).max() <= LAYER * max(1, np.abs(true_out).max())
    assert np.abs(weights.detach().numpy() - true_weights).max() <= LAYER


def test_grouped_heads_equal_scaled_dot_product_attention():
    layer, x = make(12, 6, 2), torch.from_numpy(np.random.default_rng(2).normal(size=(2, 7, 12)))
    q, k, v = (linear(x).reshape(2, 7, heads, 2).transpose(1, 2) for linear, heads in ((layer.to_q, 6), (layer.to_k, 2), (layer.to_v, 2)))
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True, is_causal=True)
    expected = layer.to_out(theirs.transpose(1, 2).reshape(2, 7, 12))
    assert (layer(x, mask=causal(7, 7))[0] - expected).abs().max() <= LAYER * expected.abs().max()


@pytest.mark.parametrize("sizes", LAYERS[:3])
def test_gradcheck_of_the_layer(sizes):
    layer = make(*sizes)
    x, context = (torch.from_numpy(np.random.default_rng(3).normal(size=(1, seq, sizes[0]))).requires_grad_() for seq in (3, 4))
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def call(x, context, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, context, some_blind(3, 4)))

    assert torch.autograd.gradcheck(call, (x, context, *parameters))


@pytest.mark.parametrize("sizes", LAYERS)
def test_self_attention_is_cross_attention_to_oneself(sizes):
    layer, x = make(*sizes), torch.from_numpy(np.random.default_rng(4).normal(size=(2, 5, sizes[0])))
    for alone, explicit in zip(layer(x), layer(x, x.clone()), strict=True):
        assert torch.equal(alone, explicit)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_layer_takes_any_leading_axes(lead):
    layer, x = make(12, 4, 2), torch.from_numpy(np.random.default_rng(5).normal(size=(*lead, 5, 12)))
    out, weights = layer(x)
    assert out.shape == x.shape and weights.shape == (*lead, 4, 5, 5)
    for index in np.ndindex(lead):
        assert (layer(x[index])[0] - out[index]).abs().max() <= LAYER * out.abs().max()


def test_layer_keeps_nothing_of_a_call():
    layer = make(12, 3)
    before = set(vars(layer)), layer.state_dict().keys(), [name for name, _ in layer.named_buffers()]
    layer(torch.zeros(2, 5, 12).double())
    assert (set(vars(layer)), layer.state_dict().keys(), [name for name, _ in layer.named_buffers()]) == before
    assert sorted(layer.state_dict()) == sorted(f"to_{part}.{kind}" for part in ("q", "k", "v", "out") for kind in ("weight", "bias"))


def test_layer_survives_copying_and_pickling():
    layer, x = make(12, 4, 2), torch.zeros(2, 5, 12).double()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x)[0], layer(x)[0])


def test_autocast_may_mix_dtypes():
    """The argument checks ask for one dtype, but under autocast mixing is the purpose."""
    layer, x = make(12, 4, 2).float(), torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    exact, _ = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (x, x.bfloat16()):
            out, _ = layer(given)
            assert out.dtype == torch.bfloat16
            # bfloat16 keeps 8 bits: a few hundredths of the largest entry after four chained products
            assert (out.float() - exact).abs().max() <= 4 * 2**-7 * exact.abs().max()
    with pytest.raises(TypeError, match="x has dtype"):
        layer(x.bfloat16())


def test_layer_compiles_in_one_piece():
    layer, x = make(12, 4, 2), torch.from_numpy(np.random.default_rng(6).normal(size=(2, 5, 12)))
    compiled = torch.compile(layer, backend="eager", fullgraph=True)  # raises where Python would have to step in
    assert torch.equal(compiled(x, mask=causal(5, 5))[0], layer(x, mask=causal(5, 5))[0])


def test_copied_weights_reads_the_module_right():
    """The helper behind the comparisons: one projection at a time, by calling the module's own parameters."""
    module = torch.nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64)
    (w_q, w_k, w_v, w_o), _ = copied_weights(module)
    assert np.array_equal(np.concatenate([w_q, w_k, w_v], axis=1), module.in_proj_weight.detach().numpy().T)
    assert np.array_equal(w_o, module.out_proj.weight.detach().numpy().T)
