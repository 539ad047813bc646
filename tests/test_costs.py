"""Costs against running programs: PyTorch's FLOP counter, the numbers each operation reads and writes, what autograd keeps."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from attnlib import cache, costs, hierarchy, layers, linear, masks, memory, sparse
from attnlib.costs import Cost
from tools import chapters, record_complexity, record_recall_gru

SHAPES = [  # seq, dim, heads, kv_heads, dim_head
    (7, 12, 3, None, None), (5, 12, 4, 2, None), (9, 12, 6, 1, None), (1, 5, 1, 1, None), (6, 10, 3, 3, 4), (3, 8, 4, 2, 5),
]
WITHOUT_COPY = {"t", "transpose", "view", "_unsafe_view", "expand", "unsqueeze", "squeeze", "detach", "permute", "slice", "select", "split",
                "unbind", "alias", "as_strided", "chunk"}
CPU_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FUSED = {  # PyTorch's counter knows the fused attention of GPUs; this hands it the same formulas for that of CPUs
    CPU_FLASH: lambda q, k, v, *_, out_shape=None, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        lambda d_out, q, k, v, *_, out_shape=None, **__: sdpa_backward_flop_count(d_out, q, k, v),
}


class Traffic(TorchDispatchMode):
    """Adds up the numbers that every operation reads and writes; operations that only look differently at memory are free."""

    def __init__(self):
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function._schema.name.split("::")[1] not in WITHOUT_COPY:
            every = torch.utils._pytree.tree_leaves((args, kwargs, result))
            self.moved += sum(each.numel() for each in every if isinstance(each, torch.Tensor))
        return result


def observed(program, *inputs, parameters=()):
    """Run a program forward and backward and return what it took, as a Cost without exponentials."""
    storages, own = {}, {each.untyped_storage().data_ptr() for each in parameters}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if tensor.dtype.is_floating_point and storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward, traffic = FlopCounterMode(display=False, custom_mapping=FUSED), Traffic()
        with forward, traffic:
            out = program(*inputs)
    ones, backward, back_traffic = torch.ones_like(out), FlopCounterMode(display=False, custom_mapping=FUSED), Traffic()
    with backward, back_traffic:
        torch.autograd.grad(out, [*inputs, *parameters], ones)
    return Cost(forward.get_total_flops(), backward.get_total_flops(), 0, traffic.moved, back_traffic.moved,
                sum(each.numel() for each in parameters), sum(storages.values()))


def agree(cost, seen, *fields):
    """The counts in which a cost equals what was seen."""
    return {field for field in fields if getattr(cost, field) == getattr(seen, field)} == set(fields)


FLOPS = ("flops", "backward_flops", "parameters")
ALL = (*FLOPS, "moved", "backward_moved", "kept")


def grown(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_()


def product_flops(rows, inner, columns):
    """FLOPs of a matrix product, one multiplication and one addition at a time."""
    flops = 0
    for _ in range(rows * columns):
        for _ in range(inner):
            flops += 2
    return flops


# --- steps -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("copies", "rows", "inner", "columns"), [(3, 4, 5, 7), (1, 1, 6, 2), (2, 3, 1, 1)])
def test_a_product(copies, rows, inner, columns):
    cost = costs.matmul_cost(rows, inner, columns, copies)
    assert cost.flops == copies * product_flops(rows, inner, columns)
    assert agree(cost, observed(torch.bmm, grown(copies, rows, inner), grown(copies, inner, columns)), *ALL)


@pytest.mark.parametrize(("tokens", "dim_in", "dim_out"), [(4, 5, 7), (1, 6, 2), (3, 1, 1)])
def test_a_projection(tokens, dim_in, dim_out):
    module = nn.Linear(dim_in, dim_out, bias=False)
    assert agree(costs.linear_cost(tokens, dim_in, dim_out), observed(module, grown(tokens, dim_in), parameters=[module.weight]), *ALL)
    with_bias = nn.Linear(dim_in, dim_out)
    seen = observed(with_bias, grown(tokens, dim_in), parameters=[*with_bias.parameters()])
    assert agree(costs.linear_cost(tokens, dim_in, dim_out, bias=True), seen, *FLOPS, "moved", "kept")


def test_softmax_and_norms_and_pointwise():
    assert agree(costs.softmax_cost(4, 7), observed(lambda s: s.softmax(-1), grown(4, 7)), *ALL)
    assert agree(costs.pointwise_cost(28, kept=1), observed(F.gelu, grown(4, 7)), *ALL)
    assert agree(costs.pointwise_cost(28, reads=2, kept=2), observed(torch.mul, grown(4, 7), grown(4, 7)), *FLOPS, "moved", "kept")
    norm = nn.LayerNorm(7)
    assert agree(costs.norm_cost(4, 7), observed(norm, grown(4, 7), parameters=[*norm.parameters()]), *ALL)
    rms = nn.RMSNorm(7)
    assert costs.norm_cost(4, 7, centred=False).parameters == sum(p.numel() for p in rms.parameters())


@pytest.mark.parametrize("field", ALL)
def test_one_too_many_is_noticed(field):
    """Planted: each count off by one, in a program that agrees otherwise."""
    module, x = nn.Linear(5, 7, bias=False), grown(4, 5)
    cost = costs.linear_cost(4, 5, 7)
    wrong = replace(cost, **{field: getattr(cost, field) + 1})
    seen = observed(module, x, parameters=[module.weight])
    assert agree(cost, seen, *ALL) and not agree(wrong, seen, *ALL)


def test_costs_add_up():
    one, other = costs.matmul_cost(2, 3, 4), costs.linear_cost(5, 6, 7, bias=True)
    both = one + other
    assert all(getattr(both, field) == getattr(one, field) + getattr(other, field) for field in (*ALL, "exponentials"))
    assert 3 * other == sum([other, other, other]) and 0 * other == Cost()
    for nonsense in (lambda: one + 1, lambda: 1.5 * one, lambda: True * one):
        with pytest.raises(TypeError):
            nonsense()


# --- attention ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("heads", "seq_q", "seq_k", "dim_head", "dim_v"), [(3, 5, 7, 6, 4), (1, 1, 9, 2, 2), (2, 4, 0, 3, 3), (5, 2, 3, 4, None)])
def test_attention_flops_equal_counting(heads, seq_q, seq_k, dim_head, dim_v):
    wide = dim_head if dim_v is None else dim_v
    counted = heads * (product_flops(seq_q, dim_head, seq_k) + product_flops(seq_q, seq_k, wide))
    assert costs.attention_flops(heads, seq_q, seq_k, dim_head, dim_v) == counted
    for fused in (False, True):
        assert costs.attention_cost(heads, seq_q, seq_k, dim_head, dim_v, fused=fused).flops == counted


def naive(q, k, v):
    return torch.softmax(q @ k.mT, -1) @ v  # the scale would be one more pass over the scores


@pytest.mark.parametrize(("batch", "heads", "seq_q", "seq_k", "dim_head", "dim_v"), [(2, 3, 5, 7, 6, 4), (1, 1, 1, 9, 2, 2), (1, 2, 6, 6, 4, 4)])
def test_naive_attention(batch, heads, seq_q, seq_k, dim_head, dim_v):
    q, k, v = grown(batch * heads, seq_q, dim_head), grown(batch * heads, seq_k, dim_head), grown(batch * heads, seq_k, dim_v)
    cost = costs.attention_cost(heads, seq_q, seq_k, dim_head, dim_v, batch=batch)
    assert agree(cost, observed(naive, q, k, v), *ALL)
    steps = costs.attention_steps(heads, seq_q, seq_k, dim_head, dim_v, batch=batch)
    assert cost == steps["scores"] + steps["softmax"] + steps["values"]
    assert cost.exponentials == batch * heads * seq_q * seq_k


def test_fused_attention():
    """The fused attention of this machine reads its inputs and writes its results once, and keeps no weights."""
    q, k, v = grown(2, 3, 5, 8), grown(2, 3, 7, 8), grown(2, 3, 7, 8)
    cost, seen = costs.attention_cost(3, 5, 7, 8, fused=True, batch=2), observed(F.scaled_dot_product_attention, q, k, v)
    assert agree(cost, seen, *ALL)
    assert cost.backward_flops * 2 == cost.flops * 5  # five products for two


def test_fusing_pays_where_the_map_is_large():
    naive_, fused = (costs.attention_cost(8, 4096, 4096, 64, fused=fused) for fused in (False, True))
    assert naive_.flops == fused.flops and naive_.moved == fused.moved - 8 * 4096 + 4 * 8 * 4096**2
    assert naive_.kept - fused.kept == 8 * 4096**2 - 8 * 4096 * (64 + 1)  # weights, against out and a log-sum-exp


@pytest.mark.parametrize(("seq", "dim", "heads", "kv_heads", "dim_head"), SHAPES)
def test_layer_costs_equal_pytorch_on_our_layer(seq, dim, heads, kv_heads, dim_head):
    layer = layers.MultiHeadAttention(dim, heads, kv_heads, dim_head=dim_head, bias=False)
    seen = observed(lambda x: layer(x)[0], grown(2, seq, dim), parameters=[*layer.parameters()])
    cost = costs.attention_layer_cost(seq, dim, heads, kv_heads, dim_head, batch=2)
    assert agree(cost, seen, *FLOPS)
    if kv_heads in (None, heads):  # shared heads are repeated there, and blanking blind rows makes a second map of weights
        assert cost.kept == seen.kept - 2 * heads * seq**2
    assert costs.attention_parameters(dim, heads, kv_heads, dim_head) == seen.parameters
    assert 2 * costs.attention_layer_flops(seq, dim, heads, kv_heads, dim_head) == seen.flops


class Layer(layers.MultiHeadAttention):
    """Our layer around another attention, without its contract for queries that see nothing."""

    def __init__(self, dim, heads, core):
        super().__init__(dim, heads)
        self.core = core

    def forward(self, x, context=None):
        context = x if context is None else context
        q, k, v = (to(y).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for to, y in ((self.to_q, x), (self.to_k, context), (self.to_v, context)))
        return self.to_out(self.core(q, k, v).transpose(-2, -3).flatten(-2))


@pytest.mark.parametrize("fused", [False, True])
def test_a_whole_layer(fused):
    layer = Layer(16, 2, F.scaled_dot_product_attention if fused else naive)
    itself = observed(layer, grown(3, 5, 16), parameters=[*layer.parameters()])
    assert agree(costs.attention_layer_cost(5, 16, 2, fused=fused, bias=True, batch=3), itself, *FLOPS, "kept")
    cross = observed(layer, grown(3, 5, 16), grown(3, 9, 16), parameters=[*layer.parameters()])
    assert agree(costs.attention_layer_cost(5, 16, 2, context=9, fused=fused, bias=True, batch=3), cross, *FLOPS, "kept")


def test_layer_costs_equal_pytorch_on_its_own_layer():
    module = nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
    seen = observed(lambda x: module(x, x, x)[0], grown(1, 7, 12), parameters=[*module.parameters()])
    assert agree(costs.attention_layer_cost(7, 12, 3), seen, *FLOPS)
    assert costs.attention_layer_flops(7, 12, 3) == seen.flops


def test_decoding_reads_the_cache_once():
    cost = costs.decode_cost(32, 4096, 128, kv_heads=8)
    assert cost.flops == costs.attention_flops(32, 1, 4096, 128)
    assert 2 * cost.moved == costs.kv_cache_bytes(1, 8, 128, 4096) + 2 * 2 * 32 * 128
    assert 3.9 < cost.intensity(2) < 4  # queries per key/value head
    q, keys = torch.zeros(2, 8, 1, 4), torch.zeros(2, 2, 9, 4)
    assert costs.decode_cost(8, 9, 4, kv_heads=2, batch=2).flops == counted(lambda: cache.decode_attention(q, keys, keys))


# --- other layers ------------------------------------------------------------------------------------------------

RECURRENT = [(nn.RNN, costs.rnn_cost), (nn.GRU, costs.gru_cost), (nn.LSTM, costs.lstm_cost)]


@pytest.mark.parametrize(("module", "cost"), RECURRENT)
@pytest.mark.parametrize(("batch", "seq", "dim_in", "dim"), [(2, 5, 6, 6), (1, 3, 4, 8), (3, 1, 5, 2)])
def test_recurrent_layers(module, cost, batch, seq, dim_in, dim):
    layer = module(dim_in, dim, batch_first=True).double()  # the counter does not see into the float32 LSTM of oneDNN
    starts, parameters = [grown(1, batch, dim).double() for _ in range(1 + (module is nn.LSTM))], [*layer.parameters()]
    seen = observed(lambda x, *h: layer(x, h if module is nn.LSTM else h[0])[0], grown(batch, seq, dim_in).double(), *starts, parameters=parameters)
    assert agree(cost(seq, dim, dim_in, bias=True, batch=batch), seen, *FLOPS)


def unrolled(gates, cell):
    """A recurrent layer written out: the input's products at once, then one step for each token."""
    def program(x, w, u, *state):
        for each in (x @ w).chunk(x.shape[0]):
            state = cell(each, u, *state)
        return state[0]
    return program


def rnn_cell(x, u, h):
    return (torch.tanh(x + h @ u),)


def gru_cell(x, u, h):
    (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, -1), (h @ u).tensor_split(3, -1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n.clone())
    return (h + z * (n - h),)


def lstm_cell(x, u, h, c):
    i, f, g, o = (x + h @ u).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@pytest.mark.parametrize(("gates", "states", "cell", "cost"), [(1, 1, rnn_cell, costs.rnn_cost), (3, 1, gru_cell, costs.gru_cost), (4, 2, lstm_cell, costs.lstm_cost)])
def test_recurrent_layers_keep_every_state(gates, states, cell, cost):
    x, w, u, start = grown(5, 6), grown(6, gates * 6), grown(6, gates * 6), [grown(1, 6) for _ in range(states)]
    seen = observed(unrolled(gates, cell), x, w, u, *start)
    expected = cost(5, 6)
    assert agree(expected, seen, "flops", "backward_flops")
    assert seen.kept - 2 * gates * 36 == expected.kept  # here w and u are inputs, and kept


def test_recurrent_traffic_reads_the_matrix_at_every_step():
    short, long = costs.lstm_cost(10, 64), costs.lstm_cost(11, 64)
    assert 4 * 64 * 64 < long.moved - short.moved < 4 * 64 * 64 + 64 * 64
    assert costs.lstm_cost(10, 64, batch=8).moved < 8 * short.moved / 4  # a batch shares what is read


@pytest.mark.parametrize(("batch", "seq", "dim_in", "dim", "kernel"), [(2, 7, 4, 6, 3), (1, 5, 3, 3, 1), (1, 4, 2, 8, 5)])
def test_convolution(batch, seq, dim_in, dim, kernel):
    layer = nn.Conv1d(dim_in, dim, kernel, padding=kernel // 2)
    seen = observed(layer, grown(batch, dim_in, seq), parameters=[*layer.parameters()])
    assert agree(costs.convolution_cost(seq, dim, kernel, dim_in, bias=True, batch=batch), seen, *FLOPS, "moved", "kept")


def test_depthwise_convolution():
    layer = nn.Conv1d(6, 6, 3, padding=1, groups=6)
    seen = observed(layer, grown(1, 6, 8), parameters=[*layer.parameters()])
    assert agree(costs.convolution_cost(8, 6, 3, depthwise=True, bias=True), seen, "flops", "parameters", "moved", "kept")
    assert seen.backward_flops > 2 * seen.flops  # PyTorch's counter overlooks the groups in the gradient of the weights


class Gated(nn.Module):
    def __init__(self, dim, hidden, bias=False):
        super().__init__()
        self.up, self.down = nn.Linear(dim, 2 * hidden, bias=bias), nn.Linear(hidden, dim, bias=bias)

    def forward(self, x):
        gate, up = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


@pytest.mark.parametrize("bias", [False, True])
def test_mlp(bias):
    plain = nn.Sequential(nn.Linear(6, 10, bias=bias), nn.GELU(), nn.Linear(10, 6, bias=bias))
    seen = observed(plain, grown(2, 5, 6), parameters=[*plain.parameters()])
    assert agree(costs.mlp_cost(10, 6, 10, bias=bias), seen, *FLOPS, "kept")
    gated = Gated(6, 10, bias)
    seen = observed(gated, grown(2, 5, 6), parameters=[*gated.parameters()])
    assert agree(costs.mlp_cost(10, 6, 10, gated=True, bias=bias), seen, *FLOPS, "kept")


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim, heads):
        super().__init__()
        self.first, self.second, self.attend = nn.LayerNorm(dim), nn.LayerNorm(dim), Layer(dim, heads, naive)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        x = x + self.attend(self.first(x))
        return x + self.mlp(self.second(x))


def test_block():
    block = Block(12, 3)
    seen = observed(block, grown(2, 7, 12), parameters=[*block.parameters()])
    assert agree(costs.block_cost(7, 12, 3, bias=True, batch=2), seen, *FLOPS, "kept")


def test_pytorchs_own_blocks():
    encoder = nn.TransformerEncoderLayer(12, 3, 48, dropout=0.0, batch_first=True)
    seen = observed(encoder, grown(2, 7, 12), parameters=[*encoder.parameters()])
    assert agree(costs.block_cost(7, 12, 3, bias=True, batch=2), seen, *FLOPS[:1], "parameters")
    decoder = nn.TransformerDecoderLayer(12, 3, 48, dropout=0.0, batch_first=True)
    seen = observed(decoder, grown(2, 7, 12), grown(2, 9, 12), parameters=[*decoder.parameters()])
    assert agree(costs.decoder_block_cost(7, 9, 12, 3, bias=True, batch=2), seen, "flops", "parameters")


def test_a_published_model():
    """Llama-3-8B: its shape (arXiv 2407.21783, Table 3, with 256 special tokens) gives the numbers in its released files."""
    block = costs.block_cost(1, 4096, 32, 14336, 8, gated=True, centred=False)
    tables = 2 * 128256 * 4096  # embedding and unembedding
    assert 32 * block.parameters + tables + costs.norm_cost(1, 4096, centred=False).parameters == 8_030_261_248


# --- patterns ----------------------------------------------------------------------------------------------------

LENGTHS = [(0, 0), (1, 1), (7, 7), (3, 8), (1, 9), (12, 5), (4, 0), (11, 11)]


@pytest.mark.parametrize(("seq_q", "seq_k"), LENGTHS)
def test_patterns_equal_their_predicates(seq_q, seq_k):
    def allowed(predicate):
        return int(masks.to_array(predicate, seq_q, seq_k).sum())

    assert costs.causal_pairs(seq_q, seq_k) == allowed(masks.causal)
    for left, right in product((0, 1, 4, 20), repeat=2):
        assert costs.window_pairs(seq_q, seq_k, left, right) == allowed(masks.sliding_window(left, right))
        assert costs.dilated_pairs(seq_q, seq_k, left, right + 1) == allowed(masks.dilated(left, right + 1))
        if seq_q == seq_k:
            both = masks.either(masks.global_tokens(right), masks.sliding_window(left, 2))
            assert costs.global_window_pairs(seq_q, right, left, 2) == allowed(both)


def tiles(allowed, block_q, block_k):
    """Scores in the tiles that hold an allowed pair."""
    return sum(tile.numel() for rows in allowed.split(block_q) for tile in rows.split(block_k, dim=1) if tile.any())


@pytest.mark.parametrize(("seq_q", "seq_k"), [(7, 7), (16, 16), (5, 13), (1, 9), (9, 4)])
@pytest.mark.parametrize(("block_q", "block_k"), [(1, 1), (4, 4), (3, 5), (16, 2)])
def test_causal_tiles(seq_q, seq_k, block_q, block_k):
    allowed = torch.tensor(masks.to_array(masks.causal, seq_q, seq_k))
    assert costs.causal_pairs(seq_q, seq_k, block_q, block_k) == tiles(allowed, block_q, block_k)


def counted(call):
    """FLOPs of the products in a call, as PyTorch counts them."""
    counter = FlopCounterMode(display=False, custom_mapping=FUSED)
    with counter:
        call()
    return counter.get_total_flops()


def test_blocks():
    window = masks.sliding_window(5, 2)
    allowed = torch.tensor(masks.to_array(window, 24))
    blocks = sum(bool(tile.any()) for rows in allowed.split(4) for tile in rows.split(4, dim=1))
    assert costs.block_pairs(blocks, 4) == tiles(allowed, 4, 4) and costs.block_pairs(3, 4, 5) == 60
    wide = torch.tensor(masks.to_array(masks.bigbird(64, 4, window=1, n_global=1, n_random=2), 64))
    assert tiles(wide, 4, 4) <= costs.block_pairs(16 * (2 * 1 + 1 + 2 * 1 + 2), 4)  # the bound stated for Big Bird


@pytest.mark.parametrize("predicate", [masks.sliding_window(40), masks.bigbird(256, 32), masks.dilated(3, 32)])
def test_what_block_sparse_attention_computes(predicate):
    """attnlib.sparse skips the blocks that hold no allowed pair, and computes the others once."""
    x, allowed = torch.zeros(2, 256, 8), torch.tensor(masks.to_array(predicate, 256))
    blocks = sum(bool(tile.any()) for rows in allowed.split(32) for tile in rows.split(32, dim=1))
    expected = costs.attention_cost(2, 256, 256, 8, pairs=costs.block_pairs(blocks, 32))
    assert counted(lambda: sparse.block_sparse_attention(x, x, x, predicate, block_size=32)) == expected.flops


@pytest.mark.parametrize(("left", "right"), [(255, 0), (64, 64), (511, 0)])
def test_no_window_is_cheaper_than_its_pairs(left, right):
    x = torch.zeros(2, 2048, 8)
    least = costs.attention_cost(2, 2048, 2048, 8, pairs=costs.window_pairs(2048, 2048, left, right)).flops
    assert least <= counted(lambda: sparse.sliding_window_attention(x, x, x, left, right)) < costs.attention_flops(2, 2048, 2048, 8)


@pytest.mark.parametrize(("sides", "window"), [([12], 4), ([10], 4), ([6, 9], 3), ([5, 7], 4), ([4, 4, 5], 2)])
def test_local_windows(sides, window):
    count = 0
    for cell in product(*(range(-(-side // window)) for side in sides)):  # every window, padded
        count += (window ** len(cell)) ** 2
    assert costs.shifted_window_pairs(sides, window) == count
    x, sizes, shift = torch.zeros(2, *sides, 8), (window,) * len(sides), (window // 2,) * len(sides)
    assert counted(lambda: hierarchy.shifted_window_attention(x, x, x, sizes, shift)) == costs.attention_cost(2, 1, 1, 8, pairs=count).flops


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("seq", "near", "block"), [(12, 0, 3), (13, 1, 4), (5, 1, 8), (20, 2, 3), (9, 0, 1)])
def test_two_levels(seq, near, block, causal):
    x, pairs = torch.zeros(2, seq, 8), costs.two_level_pairs(seq, near, block, causal=causal)
    assert counted(lambda: hierarchy.two_level_attention(x, x, x, block, causal, near)) == costs.attention_cost(2, seq, seq, 8, pairs=pairs).flops
    best = round((1024 / (2 * near + 1)) ** 0.5)             # the block size that the docstring names
    assert costs.two_level_pairs(1024, near, best) <= min(costs.two_level_pairs(1024, near, b) for b in (best // 2, 2 * best))


def test_spans_and_streams():
    assert costs.adaptive_span_pairs(9, [0, 3, 20]) == 9 + costs.window_pairs(9, 9, 3) + costs.causal_pairs(9)
    assert costs.attention_cost(1, 9, 9, 4, pairs=costs.adaptive_span_pairs(9, [8] * 3)).flops == costs.attention_cost(3, 9, 9, 4, pairs=45).flops
    for seq in range(12):
        met = [min(i + 1, 2 + 5) for i in range(seq)]  # each token meets what is kept, itself included
        assert costs.streaming_pairs(seq, 2, 5) == sum(met)


def test_skipping_scores_saves_in_proportion():
    dense, half = (costs.attention_cost(4, 64, 64, 8, pairs=pairs) for pairs in (64 * 64, 32 * 64))
    assert dense == costs.attention_cost(4, 64, 64, 8) and 2 * half.flops == dense.flops and 2 * half.backward_flops == dense.backward_flops


# --- families ----------------------------------------------------------------------------------------------------

def in_chunks(step, chunk, *sequences):
    """FLOPs, forward and backward, of what attnlib.linear really computes for three heads, with a state before the first token."""
    state, results = grown(3, 5, 6), []
    forward = counted(lambda: results.append(linear.in_chunks(step, state, chunk, *sequences)))
    backward = counted(lambda: torch.autograd.grad(sum(each.sum() for each in results[0]), [state, *sequences]))
    return forward, backward


@pytest.mark.parametrize(("seq", "chunk"), [(12, 4), (10, 4), (3, 8), (5, 1)])
def test_linear_attention_in_chunks(seq, chunk):
    """The normaliser is one more column of values."""
    seen = in_chunks(linear.linear_chunk, chunk, grown(3, seq, 5), grown(3, seq, 5), grown(3, seq, 6))
    for cost in (costs.linear_attention_cost(3, seq, 5, 5, chunk), costs.linear_attention_cost(3, seq, 5, 6, chunk, normalised=False)):
        assert (cost.flops, cost.backward_flops) == seen


def test_linear_attention_without_chunks():
    q, k, v = grown(3, 9, 5), grown(3, 9, 5), grown(3, 9, 6)
    seen = observed(lambda q, k, v: q @ (k.mT @ v), q, k, v)  # not causal: one state
    assert agree(costs.linear_attention_cost(3, 9, 5, 5), seen, "flops", "backward_flops")
    long, longer = (costs.linear_attention_cost(8, n, 64, 64, 128).flops for n in (4096, 8192))
    assert longer == 2 * long and long < costs.attention_flops(8, 4096, 4096, 64) / 10
    assert costs.linear_attention_cost(2, 8, 4, 4, gated=True).exponentials == 2 * 2 * 8 * 4


@pytest.mark.parametrize(("seq", "chunk"), [(12, 4), (10, 4), (3, 8), (5, 1)])
def test_delta_rule(seq, chunk):
    """PyTorch does not count the triangular systems, one forward and one backward; here they are, by substitution."""
    seen = in_chunks(linear.delta_chunk, chunk, grown(3, seq, 5), grown(3, seq, 5), grown(3, seq, 6), grown(3, seq, 1))
    sizes = [min(chunk, seq - first) for first in range(0, seq, chunk)]
    solved = 3 * sum(product_flops(1, i, 6) for size in sizes for i in range(size))  # row i of a chunk meets the i before it
    cost = costs.delta_rule_cost(3, seq, 5, 6, chunk)
    assert (cost.flops - solved, cost.backward_flops - solved) == seen
    assert costs.delta_rule_cost(3, seq, 5, 6).flops == 6 * 3 * seq * 5 * 6


@pytest.mark.parametrize(("heads", "kv_heads", "k", "causal"), [(4, 4, 1, True), (4, 2, 3, True), (4, 1, 8, True), (4, 2, 3, False)])
def test_top_k_blocks(heads, kv_heads, k, causal):
    """As attnlib.sparse computes it: groups of as many queries as a block has keys choose together."""
    cost = costs.top_k_block_cost(heads, 256, 8, 32, k, kv_heads=kv_heads, group=32, causal=causal)
    q, kv = torch.zeros(heads, 256, 8), torch.zeros(kv_heads, 256, 8)
    assert cost.flops == counted(lambda: sparse.top_k_block_attention(q, kv, kv, k, block_size=32, causal=causal))
    read = sum(min(k, i + 1) if causal else k for i in range(8))
    chosen = costs.attention_cost(heads, 256, 256, 8, pairs=costs.block_pairs(read, 32), fused=True)
    assert cost.flops - chosen.flops == heads * product_flops(8, 8, 8)
    assert cost.backward_flops == chosen.backward_flops      # the choice has no gradient
    with pytest.raises(ValueError, match="top_k_block_cost: k is 9, expected at most the number of blocks, 8"):
        costs.top_k_block_cost(4, 256, 8, 32, 9)


def test_transformer_xl():
    layer = memory.SegmentLayer(12, 3)
    seen = observed(lambda x, old: layer(x, old)[0], grown(2, 5, 12), grown(2, 7, 12), parameters=[*layer.parameters()])
    cost = costs.transformer_xl_cost(5, 7, 12, 3, batch=2)
    assert agree(cost, seen, "flops", "parameters")
    table = 2 * (5 + 7) * 12 * 12                            # no gradient flows into the table of distances
    assert cost.backward_flops - seen.backward_flops == table


def test_compression_and_lookup():
    layer = nn.Conv1d(6, 6, 3, stride=3, bias=False)
    seen = observed(layer, grown(2, 6, 12), parameters=[layer.weight])
    assert agree(costs.compression_cost(12, 6, 3, batch=2), seen, *FLOPS, "moved", "kept")
    assert costs.compression_cost(12, 6, 3, learned=False).flops == 0
    x, old = torch.zeros(3, 5, 4), torch.zeros(3, 20, 4)
    seen = counted(lambda: memory.knn_attention(x, x, x, old, old, top_k=2))
    assert costs.knn_memory_cost(3, 5, 20, 2, 4).flops + costs.attention_flops(3, 5, 5, 4) == seen
    for call, message in ((lambda: costs.compression_cost(10, 6, 3), "tokens is 10"), (lambda: costs.knn_memory_cost(3, 5, 20, 21, 4), "k is 21")):
        with pytest.raises(ValueError, match=message):
            call()


# --- where costs meet --------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("dim", "heads"), [(8, 1), (64, 4), (512, 8)])
def test_the_textbook_formulas(dim, heads):
    d = dim
    assert costs.attention_parameters(d, heads) == 4 * d**2
    for n in (1, 16, 100):
        assert costs.attention_flops(heads, n, n, d // heads) == 4 * n**2 * d
        assert costs.attention_layer_flops(n, d, heads) == 8 * n * d**2 + 4 * n**2 * d
        assert costs.block_cost(n, d, heads).flops == 24 * n * d**2 + 4 * n**2 * d
        assert [cost(n, d).flops for cost in (costs.rnn_cost, costs.gru_cost, costs.lstm_cost)] == [4 * n * d**2, 12 * n * d**2, 16 * n * d**2]
        assert costs.convolution_cost(n, d, 3).flops == 6 * n * d**2

    def attention(n):
        return costs.attention_layer_flops(n, d, heads)

    assert [costs.meeting_point(attention, lambda n, cost=cost: cost(n, d).flops) for cost in (costs.lstm_cost, costs.gru_cost, costs.rnn_cost)] == [
        2 * d, d, 1]  # never below a plain RNN

    def scores(n):
        return costs.attention_flops(heads, n, n, d // heads)

    def skipped(n):
        return costs.attention_cost(heads, n, n, d // heads, pairs=costs.causal_pairs(n)).flops

    def block(n):
        return costs.block_cost(n, d, heads, pairs=0).flops

    assert costs.meeting_point(scores, lambda n: costs.attention_layer_cost(n, d, heads, pairs=0).flops) == 2 * d
    assert (costs.meeting_point(scores, block), costs.meeting_point(skipped, block)) == (6 * d, 12 * d - 1)


def test_a_meeting_point_is_the_first():
    for wanted in (1, 2, 3, 7, 8, 9, 1000):
        assert costs.meeting_point(lambda n: n * n, lambda n, wanted=wanted: wanted * n) == wanted
    assert costs.meeting_point(lambda n: n, lambda n: n + 1) is None and costs.meeting_point(lambda n: n, lambda n: 100, most=50) is None


def test_published_cache_sizes():
    kib = 1024
    assert costs.kv_cache_bytes(32, 32, 128, 1) == 512 * kib             # Llama-2-7B, fp16, per token
    assert costs.kv_cache_bytes(32, 8, 128, 1) == 128 * kib              # Llama-3-8B: 8 KV heads for 32
    assert costs.kv_cache_bytes(32, 8, 128, 8192, batch=16) == 16 * kib**3  # 16 GiB
    assert costs.kv_cache_bytes(32, 32, 128, 1, bytes_per_number=4) == 1024 * kib


def test_cache_size_equals_the_tensors():
    caches = [cache.KVCache(batch=3, kv_heads=5, max_seq=7, dim_head=4, dtype=torch.bfloat16) for _ in range(6)]
    assert costs.kv_cache_bytes(6, 5, 4, 7, batch=3) == sum(t.untyped_storage().nbytes() for each in caches for t in (each.k, each.v))


def test_counts_are_python_ints_of_any_size():
    huge = costs.attention_flops(10**6, 10**9, 10**9, 10**6)
    assert huge == 4 * 10**30 and type(huge) is int          # 64 bits hold no more than 9.2 · 10^18
    from_numpy = costs.attention_cost(*masks.np.array([10**6, 10**9, 10**9, 10**6]))
    assert from_numpy.flops == huge and type(from_numpy.flops) is int


def test_the_record_is_made_by_the_chapters_own_cells():
    """The script that records chapter 14 finds the cells it executes, each name bound once, and they run."""
    (chapter,) = chapters.find(chapters.ROOT, [record_complexity.CHAPTER])
    cells = [cell.source for cell in chapters.read_source(chapter).cells if cell.cell_type == "code"]
    for name in record_complexity.NEEDED:
        assert sum(name in record_recall_gru.bound(source) for source in cells) == 1, name
    names = record_complexity.definitions()
    made = names["build"](8, 2)
    assert names["COSTS"].keys() == made.keys() and all(callable(made[name]) for name in made)
