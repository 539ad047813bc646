"""Windows against a mask over the whole grid and against the Swin of `transformers`; two levels against a loop; what costs what."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from attnlib import costs, hierarchy, layers
from attnlib.measure import flops
from tests.contracts import rounding
from tests.variants.hierarchy import mean_rounding, two_levels_by_hand, zeros

GRIDS = [((8,), (4,), (2,)), ((7,), (4,), (1,)), ((3,), (5,), (2,)), ((1,), (1,), (0,)), ((8, 8), (4, 4), (2, 2)), ((7, 9), (4, 3), (2, 1)),
         ((3, 2), (4, 4), (3, 2)), ((6, 4), (3, 2), (0, 1)), ((5, 4, 3), (2, 3, 2), (1, 2, 0))]


def draw(grid, seed=0, heads=2, widths=(5, 5, 3)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, heads, *grid, width, dtype=torch.float64, generator=generator) for width in widths]


def same_window(grid, window, shift):
    """(tokens, tokens) bool, with Python ints: on each axis no cut lies between the two; cuts lie before shift, shift + m, ..."""
    tokens = list(itertools.product(*map(range, grid)))
    seen = np.zeros((len(tokens), len(tokens)), bool)
    for (i, a), (j, b) in itertools.product(enumerate(tokens), repeat=2):
        seen[i, j] = all(not any(min(x, y) < cut <= max(x, y) for cut in range(s, size + m, m)) for x, y, size, m, s in
                         zip(a, b, grid, window, shift, strict=True))
    return torch.from_numpy(seen)


def on_whole_grid(q, k, v, window, shift, bias=None):
    """The same attention with a mask over all pairs of the grid, and the bias looked up pair by pair."""
    grid = q.shape[2:-1]
    q, k, v = (x.flatten(2, -2) for x in (q, k, v))
    mask = same_window(grid, window, shift)
    added = torch.zeros(q.shape[1], *mask.shape, dtype=q.dtype)
    if bias is not None:
        tokens, places = list(itertools.product(*map(range, grid))), list(itertools.product(*map(range, window)))
        for (i, a), (j, b) in itertools.product(enumerate(tokens), repeat=2):
            if mask[i, j]:
                inside = [tuple((x - s) % m for x, s, m in zip(each, shift, window, strict=True)) for each in (a, b)]
                added[:, i, j] = bias[:, places.index(inside[0]), places.index(inside[1])]
    scores = (q @ k.mT / q.shape[-1] ** 0.5 + added).masked_fill(~mask, -torch.inf)
    return (torch.softmax(scores, -1) @ v).unflatten(-2, grid)


def bound(q, k, v):
    return rounding(*(x.detach().numpy() for x in (q, k, v)))


# --- windows -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("grid", "window", "shift"), GRIDS)
@pytest.mark.parametrize("biased", [False, True])
def test_windows_equal_a_mask_over_the_whole_grid(grid, window, shift, biased):
    q, k, v = (x.requires_grad_() for x in draw(grid))
    tokens = math.prod(window)
    bias = torch.randn(2, tokens, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) if biased else None
    out, expected = (attend(q, k, v, window, shift, bias) for attend in (hierarchy.shifted_window_attention, on_whole_grid))
    assert (out - expected).abs().max() <= 2 * bound(q, k, v)          # a bias of a few units rounds like the scores
    d_out = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for mine, other in zip(torch.autograd.grad(out, (q, k, v), d_out), torch.autograd.grad(expected, (q, k, v), d_out), strict=True):
        assert (mine - other).abs().max() <= 100 * bound(q, k, v)      # sums over all queries of products of three factors


def test_windows_without_the_mask_would_differ(monkeypatch):
    """The plant: with every pair of a rolled window allowed, the comparison above fails."""
    q, k, v = draw((8, 8))
    right = hierarchy.shifted_window_attention(q, k, v, (4, 4), (2, 2))
    whole = hierarchy.shift_mask
    monkeypatch.setattr(hierarchy, "shift_mask", lambda *sizes: torch.ones_like(whole(*sizes)))
    leaky = hierarchy.shifted_window_attention(q, k, v, (4, 4), (2, 2))
    differs = (leaky - right).abs().amax(dim=(0, 1, -1)) > 1e-3
    assert differs[[0, 1, -1, -2]].all() and differs[:, [0, 1, -1, -2]].all() and not differs[2:-2, 2:-2].any()


@pytest.mark.parametrize(("grid", "window", "shift"), GRIDS)
def test_what_is_outside_the_window_changes_nothing(grid, window, shift):
    q, k, v = draw(grid)
    clean, seen = hierarchy.shifted_window_attention(q, k, v, window, shift), same_window(grid, window, shift)
    for j, place in enumerate(itertools.product(*map(range, grid))):
        k2, v2 = k.clone(), v.clone()
        k2[(..., *place, slice(None))] += 3
        v2[(..., *place, slice(None))] -= 5
        changed = (hierarchy.shifted_window_attention(q, k2, v2, window, shift) != clean).any(-1).flatten(2).any(1).any(0)
        assert torch.equal(changed, seen[:, j])


@pytest.mark.parametrize(("grid", "window", "shift"), GRIDS)
def test_partition_and_merge_are_inverse(grid, window, shift):
    padded = tuple(size + -size % m for size, m in zip(grid, window, strict=True))
    x = torch.arange(2 * math.prod(padded) * 3).reshape(2, *padded, 3)
    windows = hierarchy.window_partition(x, window)
    assert windows.shape == (2, math.prod(padded) // math.prod(window), math.prod(window), 3)
    assert torch.equal(hierarchy.window_merge(windows, window, padded), x)


def test_partition_in_the_order_of_the_grid():
    x = torch.tensor([[10 * row + column for column in range(6)] for row in range(4)])[..., None]
    windows = hierarchy.window_partition(x, (2, 3))[..., 0].tolist()
    assert windows == [[0, 1, 2, 10, 11, 12], [3, 4, 5, 13, 14, 15], [20, 21, 22, 30, 31, 32], [23, 24, 25, 33, 34, 35]]


def test_shift_mask_of_a_line():
    """Eight tokens in windows of four, rolled by two: the second window holds 6, 7, 0, 1, of which two and two belong together."""
    first, second = hierarchy.shift_mask((8,), (4,), (2,))
    assert first.all() and second.tolist() == [[True, True, False, False]] * 2 + [[False, False, True, True]] * 2
    assert hierarchy.shift_mask((8,), (4,), (0,)).all()


def test_relative_position_index_is_one_number_for_each_offset():
    index, places = hierarchy.relative_position_index((3, 4)), list(itertools.product(range(3), range(4)))
    offsets = {}
    for (i, a), (j, b) in itertools.product(enumerate(places), repeat=2):
        assert offsets.setdefault((a[0] - b[0], a[1] - b[1]), index[i, j].item()) == index[i, j].item()
    assert sorted(offsets.values()) == list(range(5 * 7))


def test_gradcheck_of_the_windows():
    q, k, v = (x[:1, :1].requires_grad_() for x in draw((3, 3), widths=(2, 2, 2)))
    bias = torch.randn(1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k, v, b: hierarchy.shifted_window_attention(q, k, v, (2, 2), (1, 1), b), (q, k, v, bias))


@pytest.mark.parametrize("sides", [[64], [16, 24], [15, 22]])
def test_windows_compute_no_more_than_they_say(sides):
    q, k, v = draw(sides)
    window, pairs = (4,) * len(sides), costs.shifted_window_pairs(sides, 4 ** 1)
    counted = flops(lambda: hierarchy.shifted_window_attention(q, k, v, window, (2,) * len(sides)))
    windows = math.prod(-(-side // 4) for side in sides)
    assert counted == 2 * 2 * 2 * (5 + 3) * windows * math.prod(window) ** 2    # batch, heads, multiply and add, two products
    if len(sides) == 1:
        assert counted == 2 * 2 * 2 * (5 + 3) * pairs


# --- the layers, and Swin's own ------------------------------------------------------------------------------------

SWIN = pytest.importorskip("transformers.models.swin.modeling_swin", reason="the comparison needs transformers (requirements.txt, test)")


def swin(shift, dim=12, heads=3, window=4):
    """A layer of transformers' Swin with random weights, and ours with the same."""
    from transformers import SwinConfig
    torch.manual_seed(0)
    config = SwinConfig(embed_dim=dim, num_heads=[heads], depths=[2], window_size=window, drop_path_rate=0.0, attn_implementation="sdpa")
    theirs = SWIN.SwinLayer(config, dim, (8, 8), heads, shift_size=shift).double().eval()
    ours = hierarchy.ShiftedWindowAttention(dim, heads, (window, window), (shift, shift)).double()
    theirs.attention.relative_position_bias.relative_position_bias_table.data.normal_()
    with torch.no_grad():
        pairs = zip((ours.to_q, ours.to_k, ours.to_v, ours.to_out), ("q", "k", "v", "o"), strict=True)
        for linear, letter in pairs:
            linear.load_state_dict(getattr(theirs.attention, f"{letter}_proj").state_dict())
        ours.table.copy_(theirs.attention.relative_position_bias.relative_position_bias_table.T)
    return theirs, ours


def swin_attention(theirs, x):
    """What their layer computes between its norm and its residual sum, on x (batch, height, width, dim)."""
    height, width, _ = x.shape[1:]
    theirs.layernorm_before = torch.nn.Identity()
    for zeroed in theirs.layernorm_after, theirs.mlp:
        for parameter in zeroed.parameters():
            parameter.data.zero_()                           # leaves x + attention(x)
    return (theirs(x.flatten(1, 2), (height, width))[0] - x.flatten(1, 2)).unflatten(1, (height, width))


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("grid", [(8, 8), (12, 8)])
def test_layer_equals_transformers_swin(shift, grid):
    theirs, ours = swin(shift)
    x = torch.randn(2, *grid, 12, dtype=torch.float64)
    expected = swin_attention(theirs, x)
    assert (ours(x) - expected).abs().max() <= 1e-12 * expected.abs().max()     # their mask is -100: exp(-100) = 4e-44


def test_transformers_swin_sees_its_padding():
    """Where the window does not divide the grid, they pad with zeros which then take part as keys; ours are seen by nobody."""
    theirs, ours = swin(0)
    x = torch.randn(1, 6, 6, 12, dtype=torch.float64)
    assert (ours(x) - swin_attention(theirs, x)).abs().max() > 1e-3
    whole = ours(x[:, :4, :4])                               # the window that needs no padding
    assert (ours(x)[:, :4, :4] - whole).abs().max() <= 1e-12 * whole.abs().max()
    assert (swin_attention(theirs, x)[:, :4, :4] - whole).abs().max() <= 1e-12 * whole.abs().max()


@pytest.mark.parametrize("grid", [(8, 6), (7, 5), (1, 1)])
def test_merging_equals_transformers_swin(grid):
    theirs, ours = SWIN.SwinPatchMerging(6).double(), hierarchy.PatchMerging(6).double()
    theirs.norm.weight.data.normal_()
    with torch.no_grad():
        for mine, other in ((ours.reduce.weight, theirs.reduction.weight), (ours.norm.weight, theirs.norm.weight)):
            mine.copy_(other.unflatten(-1, (4, 6))[..., [0, 2, 1, 3], :].flatten(-2))    # theirs has columns first
    x = torch.randn(2, *grid, 6, dtype=torch.float64)
    expected = theirs(x.flatten(1, 2), grid)
    assert ours(x).shape == (2, -(-grid[0] // 2), -(-grid[1] // 2), 12)
    assert (ours(x).flatten(1, 2) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_merging_a_line():
    layer, x = hierarchy.PatchMerging(6, axes=1).double(), torch.randn(3, 7, 6, dtype=torch.float64)
    pairs = F.pad(x, (0, 0, 0, 1)).reshape(3, 4, 12)
    assert torch.equal(layer(x), layer.reduce(layer.norm(pairs)))


def test_layer_takes_lines_and_any_leading_axes():
    layer = hierarchy.ShiftedWindowAttention(6, 2, (4,), (2,)).double()
    x = torch.randn(2, 3, 9, 6, dtype=torch.float64)
    assert (layer(x)[1, 2] - layer(x[1, 2])).abs().max() <= 1e-12
    assert hierarchy.ShiftedWindowAttention(6, 2, (4,)).shift == (0,)


def test_shifted_layers_pass_on_what_one_layer_cannot():
    """Gradient reach on a line of 32 with windows of 8: alternate shifts let it grow, equal cuts never do."""
    def reach(shifts):
        torch.manual_seed(0)
        x = torch.randn(32, 6, dtype=torch.float64, requires_grad=True)
        y = x
        for shift in shifts:
            y = y + hierarchy.ShiftedWindowAttention(6, 2, (8,), (shift,)).double()(y)
        return torch.autograd.grad(y[15].sum(), x)[0].any(-1).nonzero().flatten().tolist()

    assert reach([0, 0, 0]) == list(range(8, 16)) == reach([0])
    assert reach([0, 4]) == list(range(8, 24)) and reach([0, 4, 0, 4]) == list(range(32))


# --- two levels ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("seq_q", "seq_k"), [(13, 13), (1, 13), (5, 13), (13, 5), (4, 0), (0, 4), (0, 0)])
@pytest.mark.parametrize("block_size", [1, 3, 4, 20])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("near", [0, 1, 2])
def test_two_levels_by_hand(seq_q, seq_k, block_size, causal, near):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, 2, seq, width)) for seq, width in ((seq_q, 5), (seq_k, 5), (seq_k, 3)))
    out = hierarchy.two_level_attention(*map(torch.from_numpy, (q, k, v)), block_size, causal, near)
    expected, _ = two_levels_by_hand(block_size, near)(q, k, v, (lambda i, j: j <= i) if causal else None)
    assert out.shape == expected.shape and np.abs(out.numpy() - expected).max(initial=0) <= mean_rounding(block_size)(q, k, v)


@pytest.mark.parametrize("causal", [False, True])
def test_blocks_of_equal_tokens_are_summarised_without_loss(causal):
    torch.manual_seed(0)
    k, v = (torch.randn(6, width, dtype=torch.float64).repeat_interleave(4, 0)[:22] for width in (5, 3))
    q = torch.randn(22, 5, dtype=torch.float64)
    mask = torch.ones(22, 22, dtype=torch.bool).tril() if causal else None
    out = hierarchy.two_level_attention(q, k, v, 4, causal, near=0)
    assert (out - layers.attention(q, k, v, mask)[0]).abs().max() <= bound(q, k, v) * 4


@pytest.mark.parametrize("causal", [False, True])
def test_gradcheck_of_two_levels(causal):
    torch.manual_seed(0)
    q, k, v = (torch.randn(seq, 2, dtype=torch.float64, requires_grad=True) for seq in (6, 8, 8))
    assert torch.autograd.gradcheck(lambda q, k, v: hierarchy.two_level_attention(q, k, v, 3, causal, near=0), (q, k, v))


def test_the_future_reaches_nobody():
    """A causal summary must not hold a token that is still to come, in whichever place of its block the query stands."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(17, 4, dtype=torch.float64) for _ in range(3))
    for near, j in itertools.product((0, 1), range(17)):
        clean = hierarchy.two_level_attention(q, k, v, 4, True, near)
        k2, v2 = k.clone(), v.clone()
        k2[j], v2[j] = 9, -9
        changed = (hierarchy.two_level_attention(q, k2, v2, 4, True, near) != clean).any(-1)
        assert changed.tolist() == [i >= j for i in range(17)]


@pytest.mark.parametrize("near", [0, 1, 2])
def test_two_levels_compute_what_they_say_and_little_more(near):
    q, k, v = (torch.randn(512, 8) for _ in range(3))
    counted = flops(lambda: hierarchy.two_level_attention(q, k, v, 16, near=near))
    ideal = 2 * 16 * costs.two_level_pairs(512, near, 16)
    at_edges = 2 * 16 * 2 * (2 * near + 1) * 16 * 16 * max(near, 1)             # neighbours beyond the ends
    also_summaries_near_by = 2 * 16 * 512 * (2 * near + 1)
    assert ideal <= counted <= ideal + at_edges + also_summaries_near_by


def test_block_means():
    x = torch.arange(14.0).reshape(7, 2)
    means, counts = hierarchy.block_means(x, 3)
    assert means.tolist() == [[2, 3], [8, 9], [12, 13]] and counts.tolist() == [3, 3, 1]


# --- wrong calls ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "message"), [
    (lambda: hierarchy.window_partition(zeros(2, 7, 6, 3), (2, 3)), "window_partition: window is (2, 3), expected divisors of the grid (7, 6)"),
    (lambda: hierarchy.window_partition(zeros(6, 3), (2, 3)), "window_partition: x has shape (6, 3), expected"),
    (lambda: hierarchy.window_partition(zeros(6, 3), 2), "window_partition: window is 2, expected a tuple"),
    (lambda: hierarchy.window_merge(zeros(3, 4, 5), (2, 2), (4, 4)), "window_merge: windows has shape (3, 4, 5), expected (..., 4, 4, dim)"),
    (lambda: hierarchy.window_merge(zeros(4, 4, 5), (2, 2), (5, 4)), "window_merge: windows has shape (4, 4, 5), expected"),
    (lambda: hierarchy.shift_mask((4, 4), (2, 2), (2, 0)), "shift_mask: shift is (2, 0), expected less than window = (2, 2)"),
    (lambda: hierarchy.shift_mask((4,), (2, 2), (1, 0)), "shift_mask: grid is (4,), expected"),
    (lambda: hierarchy.relative_position_index((True, 2)), "relative_position_index: window is (True, 2), expected"),
    (lambda: hierarchy.ShiftedWindowAttention(12, 5, (4,)), "ShiftedWindowAttention: heads is 5, expected a positive divisor of dim = 12"),
    (lambda: hierarchy.ShiftedWindowAttention(12, 3, (4,), (4,)), "ShiftedWindowAttention: shift is (4,), expected"),
    (lambda: hierarchy.ShiftedWindowAttention(12, 3, (4,))(zeros(9, 11)), "ShiftedWindowAttention: x has shape (9, 11), expected"),
    (lambda: hierarchy.PatchMerging(12, 0), "PatchMerging: axes is 0, expected"),
    (lambda: hierarchy.block_means(zeros(7, 2), 0), "block_means: block_size is 0, expected"),
    (lambda: hierarchy.two_level_mask(zeros(2, 2), 4, 2), "two_level_mask: rows has shape (2, 2), expected (rows,)"),
])
def test_wrong_calls_are_refused_by_name(call, message):
    with pytest.raises((ValueError, TypeError)) as refused:
        call()
    assert message in str(refused.value)
