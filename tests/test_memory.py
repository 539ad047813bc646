"""The memory room: distances counted by hand, what each memory keeps, and who may still see what."""

import inspect
import json
import re

import numpy as np
import pytest
import torch

from attnlib import layers, memory, positions
from tests.contracts import rounding
from tools import chapters, record_memory


def draw(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def numbered(start, stop):
    """Rows whose first entry says which they are."""
    return torch.arange(start, stop, dtype=torch.float64)[:, None] * torch.tensor([1.0, -1.0])


# --- the relative shift ---------------------------------------------------------------------------------------------

SIZES = [(1, 1), (1, 5), (3, 3), (4, 9), (7, 3)]


@pytest.mark.parametrize(("seq_q", "seq_k"), SIZES)
@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_the_shift_finds_each_distance(seq_q, seq_k, lead):
    scores = draw(*lead, seq_q, seq_k)
    shifted = memory.relative_shift(scores)
    assert shifted.shape == scores.shape
    for i, j in np.ndindex(seq_q, seq_k):
        distance = i + seq_k - seq_q - j
        if distance >= 0:
            assert torch.equal(shifted[..., i, j], scores[..., i, seq_k - 1 - distance])


def test_what_the_shift_leaves_above_the_diagonal_belongs_to_others():
    """The docstring's warning is needed: without the causal mask a query would be judged by the next query's scores."""
    shifted = memory.relative_shift(torch.arange(9.0).reshape(3, 3))
    assert shifted.tolist() == [[2, 0, 3], [4, 5, 0], [6, 7, 8]]


def test_the_shift_of_nothing():
    for shape in ((0, 4), (3, 0), (2, 0, 0)):
        assert memory.relative_shift(torch.zeros(shape)).shape == shape


def test_gradients_of_the_shift():
    scores = draw(2, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(memory.relative_shift, scores)


def test_a_mask_never_shows_what_comes_later():
    q, k, v, r = (draw(2, n, 4, seed=n) for n in (3, 5, 5, 5))
    u, w = draw(2, 4, seed=8), draw(2, 4, seed=9)
    plain = memory.relative_attention(q, k, v, r, u, w)
    generous = memory.relative_attention(q, k, v, r, u, w, torch.ones(3, 5, dtype=torch.bool))
    assert all(map(torch.equal, plain, generous))


@pytest.mark.parametrize("dim", [2, 6, 64])
def test_distance_vectors_are_the_sinusoids_backwards(dim):
    ours = memory.distance_vectors(9, dim)
    assert np.abs(ours.numpy() - positions.sinusoids(9, dim)[::-1]).max() < 9 * np.finfo(np.float32).eps  # angles up to 8, float32
    assert memory.distance_vectors(0, dim).shape == (0, dim)


# --- the layer, and recurrence over segments ------------------------------------------------------------------------

def make_layer(dim=12, heads=3, seed=0):
    layer = memory.SegmentLayer(dim, heads).double()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape) / dim**0.5))
    return layer


@pytest.mark.parametrize("n_mem", [0, 1, 5])
def test_the_layer_equals_a_loop_over_pairs_with_the_vector_of_each_distance(n_mem):
    layer, rows = make_layer(), draw(2, n_mem + 4, 12)
    with torch.no_grad():
        out, weights = layer(rows[:, n_mem:], rows[:, :n_mem] if n_mem else None)
    w_q, w_k, w_v, w_r, w_o = (each.weight.detach().numpy().T for each in
                               (layer.to_q, layer.to_k, layer.to_v, layer.to_r, layer.to_out))
    u, w = layer.content_bias.detach().numpy(), layer.position_bias.detach().numpy()
    x, vectors = rows.numpy(), positions.sinusoids(n_mem + 4, 12)
    for b, i in np.ndindex(2, 4):
        heads = []
        for h in range(3):
            cut = slice(4 * h, 4 * h + 4)
            at, scores = n_mem + i, []
            for j in range(at + 1):
                q, k, r = x[b, at] @ w_q[:, cut], x[b, j] @ w_k[:, cut], vectors[at - j] @ w_r[:, cut]
                scores.append((q @ k + q @ r + u[h] @ k + w[h] @ r) / 2)
            powers = np.exp(scores - np.max(scores))
            share = powers / powers.sum()
            # the vectors of distances are made in float32, here and there: their angles, up to 8, carry an error of 1e-6
            assert np.allclose(weights[b, h, i].numpy(), np.pad(share, (0, n_mem + 3 - at)), atol=1e-5)
            heads.append(sum(s * x[b, j] @ w_v[:, cut] for j, s in enumerate(share)))
        assert np.allclose(out[b, i].numpy(), np.concatenate(heads) @ w_o, atol=1e-5)


def test_a_memory_of_everything_equals_reading_in_one_piece():
    layer, x = make_layer(), draw(2, 15, 12)
    whole, kept, parts = layer(x)[0], memory.SegmentMemory(100), []
    for segment in x.split([4, 1, 6, 4], dim=1):
        parts.append(layer(segment, kept.rows)[0])
        kept.push(segment)
    # seven digits: sinusoids are float32, and equal for equal distances, so only sums differ
    assert torch.allclose(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)


def read(blocks, x, length, seq):
    """Every segment through every layer, each layer with a memory of its own inputs: (batch, seq, dim)."""
    memories, out = [memory.SegmentMemory(length) for _ in blocks], []
    for segment in x.split(seq, dim=-2):
        for block, kept in zip(blocks, memories, strict=True):
            before, segment = segment, segment + block(segment, kept.rows)[0]
            kept.push(before)
        out.append(segment)
    return torch.cat(out, dim=-2)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_each_layer_sees_one_memory_further(depth):
    blocks, x = [make_layer(seed=i) for i in range(depth)], draw(24, 12)
    with torch.no_grad():
        base, reached = read(blocks, x, 4, 4)[-4:], set()
        for j in range(24):
            changed = x.clone()
            changed[j] += 1
            if (read(blocks, changed, 4, 4)[-4:] != base).any():
                reached.add(j // 4)
    assert reached == set(range(5 - depth, 6))  # a segment, and one more to the left for each layer


def test_no_gradient_reaches_the_segment_before():
    layer, x = make_layer(), draw(8, 12).requires_grad_()
    kept = memory.SegmentMemory(4)
    kept.push(x[:4])
    layer(x[4:], kept.rows)[0].sum().backward()
    assert not x.grad[:4].any()
    assert x.grad[4:].all()


# --- what a memory keeps --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pieces", [[10], [1] * 10, [3, 4, 3], [0, 10, 0]])
def test_first_in_first_out(pieces):
    kept, out = memory.SegmentMemory(4), []
    for piece in numbered(0, 10).split(pieces):
        out.append(kept.push(piece))
    assert torch.equal(kept.rows, numbered(6, 10))
    assert torch.equal(torch.cat(out), numbered(0, 6))


def test_rows_leave_in_whole_steps():
    kept, fallen = memory.SegmentMemory(3, step=4), []
    for piece in numbered(0, 14).split([2, 5, 1, 6]):
        fallen += kept.push(piece)[:, 0].tolist()
        assert len(fallen) % 4 == 0
        assert 3 <= kept.rows.shape[0] < 7 or not fallen
    assert fallen == list(range(8))


def test_what_falls_out_is_freed():
    kept = memory.SegmentMemory(2)
    kept.push(numbered(0, 1000))
    assert kept.rows.untyped_storage().nbytes() == kept.rows.nbytes == 2 * 2 * 8


def test_compress_is_the_mean_or_a_convolution():
    x, kernel = draw(2, 12, 5), draw(3, 5, 4, seed=1)
    assert torch.allclose(memory.compress(x, 3), torch.nn.functional.avg_pool1d(x.mT, 3).mT, rtol=0, atol=1e-15)
    theirs = torch.nn.functional.conv1d(x.mT, kernel.permute(2, 1, 0), stride=3).mT
    assert torch.allclose(memory.compress(x, 3, kernel), theirs, rtol=0, atol=1e-13)  # sums of 15 products
    mean = torch.eye(5, dtype=torch.float64).expand(3, 5, 5) / 3
    assert torch.allclose(memory.compress(x, 3, mean), memory.compress(x, 3), rtol=0, atol=1e-15)
    assert torch.equal(memory.compress(x, 1), x)
    assert memory.compress(x[:, :0], 3).shape == (2, 0, 5)


@pytest.mark.parametrize("pieces", [[40], [8] * 5, [3, 9, 5, 20, 3], [1] * 40])
def test_compressive_memory_holds_means_and_then_rows(pieces):
    kept = memory.CompressiveMemory(length=6, slots=4, rate=4)
    for piece in numbered(0, 40).split(pieces):
        kept.push(piece)
    assert kept.rows[:, 0].tolist() == [17.5, 21.5, 25.5, 29.5, *range(32, 40)]  # two rows wait for a full slot


def test_compressive_memory_lets_slots_go_and_says_which():
    kept = memory.CompressiveMemory(length=0, slots=1, rate=2)
    assert kept.push(numbered(0, 6))[:, 0].tolist() == [0.5, 2.5]


def test_compressive_memory_without_slots_or_without_rows():
    kept = memory.CompressiveMemory(4, 0, 2)
    kept.push(numbered(0, 10))
    assert torch.equal(kept.rows, numbered(6, 10))
    kept = memory.CompressiveMemory(0, 2, 2)
    kept.push(numbered(0, 10))
    assert kept.rows[:, 0].tolist() == [6.5, 8.5]


@pytest.mark.parametrize("pieces", [[20], [1] * 20, [2, 3, 15]])
def test_sinks_stay_and_the_rest_moves_on(pieces):
    kept, out = memory.SinkMemory(3, 4), []
    for piece in numbered(0, 20).split(pieces):
        out.append(kept.push(piece))
    assert kept.rows[:, 0].tolist() == [0, 1, 2, 16, 17, 18, 19]
    assert torch.equal(torch.cat(out), numbered(3, 16))


def test_a_sink_is_never_held_twice():
    kept = memory.SinkMemory(3, 4)
    for n in range(1, 8):
        kept.push(numbered(n - 1, n))
        assert kept.rows[:, 0].tolist() == list(range(n))


@pytest.mark.parametrize("kept", [memory.SegmentMemory(9), memory.CompressiveMemory(4, 4, 2), memory.SinkMemory(2, 4)],
                         ids=lambda kept: type(kept).__name__)
def test_every_memory_stops_gradients_and_refuses_what_does_not_fit(kept):
    assert kept.rows is None
    x = draw(2, 8, 6).requires_grad_()
    kept.push(x)
    assert not kept.rows.requires_grad
    before, name = kept.rows, type(kept).__name__
    for bad, error, said in ((draw(2, 8, 5), ValueError, r"(2, 8, 5), expected (2, seq, 6)"), (draw(3, 8, 6), ValueError, "(3, 8, 6)"),
                             (draw(6), ValueError, "(6,)"), (draw(2, 8, 6).float(), TypeError, "float32"),
                             (np.zeros((2, 8, 6)), TypeError, "ndarray"), (draw(2, 8, 6).to("meta"), ValueError, "meta")):
        with pytest.raises(error) as raised:
            kept.push(bad)
        assert said in str(raised.value)
        assert f"{name}.push: x " in str(raised.value)
    assert torch.equal(kept.rows, before)
    changed = kept.rows.clone()
    with torch.no_grad():
        x += 1
    assert torch.equal(kept.rows, changed), "the memory shares numbers with what was pushed"


# --- the memory that is searched ------------------------------------------------------------------------------------

def test_the_nearest_are_those_with_the_largest_scores():
    q, keys = draw(2, 3, 4, 6), draw(2, 3, 20, 6, seed=1)
    found, visible = memory.nearest_keys(q, keys, 5)
    scores = (q @ keys.mT).numpy()
    assert found.shape == (2, 3, 4, 5)
    assert visible.all()
    for at in np.ndindex(2, 3, 4):
        assert found[at].tolist() == np.argsort(-scores[at])[:5].tolist()


def test_the_search_passes_over_what_a_query_may_not_see():
    q, keys, mask = draw(4, 6), draw(8, 6, seed=1), torch.ones(4, 8, dtype=torch.bool).tril(-1)
    found, visible = memory.nearest_keys(q, keys, 3, mask)
    assert visible.sum(-1).tolist() == [0, 1, 2, 3]
    assert all(found[i, n] < i for i in range(4) for n in range(3) if visible[i, n])


def test_finding_everything_is_full_attention():
    q, k, v = draw(2, 3, 4, 6), draw(2, 3, 11, 6, seed=1), draw(2, 3, 11, 5, seed=2)
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    out, weights, found = memory.knn_attention(q, k[..., 7:, :], v[..., 7:, :], k[..., :7, :], v[..., :7, :], 7, mask=causal)
    everything = torch.cat([torch.ones(4, 7, dtype=torch.bool), causal], -1)
    true_out, true_weights = layers.attention(q, k, v, everything)
    assert (out - true_out).abs().max() <= rounding(q.numpy(), k.numpy(), v.numpy())
    placed = torch.zeros(2, 3, 4, 7, dtype=torch.float64).scatter(-1, found, weights[..., :7])
    assert (placed - true_weights[..., :7]).abs().max() <= rounding(q.numpy(), k.numpy())


def test_the_best_key_is_found_among_many():
    """The share that a few found keys hold is the share they hold among all, but for those left out."""
    q, keys, values = draw(1, 16), draw(1000, 16, seed=1), draw(1000, 3, seed=2)
    q = q + 4 * keys[123]
    nothing = torch.zeros(0, 16, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.float64)
    out, _, found = memory.knn_attention(q, *nothing, keys, values, 4)
    assert found[0, 0] == 123
    full, _ = layers.attention(q, keys, values)
    left_out = 1 - layers.attention(q, keys, values)[1][0, found[0]].sum()
    assert (out - full).abs().max() <= 2 * left_out * values.abs().max()


@pytest.mark.parametrize("gate", [0.0, 0.3, 1.0])
def test_the_gate_blends_two_softmaxes_head_by_head(gate):
    q, k, v, old_k, old_v = (draw(3, n, 4, seed=n) for n in (2, 5, 5, 6, 6))
    gates = torch.tensor([gate, 0.5, 1 - gate], dtype=torch.float64)
    out, weights, _ = memory.knn_attention(q, k, v, old_k, old_v, 6, gates)
    far, near = layers.attention(q, old_k, old_v)[0], layers.attention(q, k, v)[0]
    assert torch.allclose(out, gates[:, None, None] * far + (1 - gates)[:, None, None] * near, rtol=0, atol=1e-13)
    assert torch.allclose(weights[..., :6].sum(-1), gates[:, None].expand(3, 2))


def test_an_empty_memory_leaves_local_attention():
    q, k, v = draw(3, 4, 6), draw(3, 4, 6, seed=1), draw(3, 4, 5, seed=2)
    for gates in (None, torch.full((3,), 0.9, dtype=torch.float64)):
        for nothing in ((q[:, :0], v[:, :0], 5), (k, v, 0)):
            out, _, found = memory.knn_attention(q, k, v, *nothing, gates)
            assert found.shape == (3, 4, 0)
            assert (out - layers.attention(q, k, v)[0]).abs().max() <= rounding(q.numpy(), k.numpy(), v.numpy())


def test_gradients_of_the_gate_and_of_the_memory():
    q, k, v, old_k, old_v = (draw(2, n, 3, seed=n).requires_grad_() for n in (3, 4, 4, 6, 6))
    gates = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *each: memory.knn_attention(*each[:5], 2, each[5])[0], (q, k, v, old_k, old_v, gates))


def test_leading_axes_broadcast():
    q, k, v, old_k, old_v = draw(2, 3, 4, 6), draw(3, 5, 6), draw(5, 6), draw(3, 7, 6), draw(2, 1, 7, 6)
    mask = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    out, _, _ = memory.knn_attention(q, k, v, old_k, old_v, 2, mask=mask)
    wide = [each.expand(2, 3, *each.shape[-2:]) for each in (q, k, v, old_k, old_v)]
    assert torch.equal(out, memory.knn_attention(*wide, 2, mask=mask.expand(2, 3, 4, 5))[0])
    assert memory.knn_attention(q[0, 0], k[0], v, old_k[0], old_v[0, 0], 2, mask=mask)[0].shape == (2, 1, 4, 6)


@pytest.mark.parametrize("chunks", [[6], [1] * 6, [2, 3, 1]])
def test_queries_in_chunks_with_one_memory(chunks):
    q, k, v, old_k, old_v = (draw(2, n, 4, seed=n) for n in (6, 7, 7, 9, 9))
    whole, parts, at = memory.knn_attention(q, k, v, old_k, old_v, 3)[0], [], 0
    for n in chunks:
        parts.append(memory.knn_attention(q[:, at:at + n], k, v, old_k, old_v, 3)[0])
        at += n
    assert torch.allclose(torch.cat(parts, 1), whole, rtol=0, atol=1e-13)


def test_a_memory_of_keys_and_values_moves_on():
    kept = memory.NearestMemory(5)
    x = draw(8, 2).requires_grad_()
    kept.push(x[:3], numbered(0, 3))
    kept.push(x[3:], numbered(3, 8))
    assert torch.equal(kept.keys.rows, x[3:].detach())
    assert torch.equal(kept.values.rows, numbered(3, 8))
    assert not kept.keys.rows.requires_grad
    forever = memory.NearestMemory()
    for start in range(0, 50, 5):
        forever.push(numbered(start, start + 5), numbered(start, start + 5))
    assert torch.equal(forever.keys.rows, numbered(0, 50))
    with pytest.raises(ValueError, match="v has shape"):
        forever.push(numbered(0, 3), numbered(0, 4))


# --- wrong calls ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "said"), [
    (lambda: memory.SegmentMemory(-1), "SegmentMemory: length is -1, expected at least 0"),
    (lambda: memory.SegmentMemory(4, step=0), "SegmentMemory: step is 0, expected at least 1"),
    (lambda: memory.CompressiveMemory(4, -2, 2), "CompressiveMemory: slots is -2"),
    (lambda: memory.CompressiveMemory(4, 2, 0), "CompressiveMemory: rate is 0"),
    (lambda: memory.SinkMemory(-4, 2), "SinkMemory: sinks is -4"),
    (lambda: memory.NearestMemory(-1), "NearestMemory: capacity is -1"),
    (lambda: memory.compress(numbered(0, 7), 3), "compress: rate is 3, expected a positive divisor of seq = 7"),
    (lambda: memory.compress(numbered(0, 6), 3, draw(2, 2, 2)), "compress: kernel has shape (2, 2, 2)"),
    (lambda: memory.SegmentLayer(12, 5), "SegmentLayer: heads is 5, expected a positive divisor of dim = 12"),
    (lambda: memory.SegmentLayer(9, 3), "SegmentLayer: dim is 9, expected an even number"),
    (lambda: make_layer()(draw(2, 4, 10)), "SegmentLayer: x has shape (2, 4, 10)"),
    (lambda: make_layer()(draw(2, 4, 12), draw(2, 4, 10)), "SegmentLayer: memory has shape (2, 4, 10)"),
    (lambda: memory.distance_vectors(4, 5), "distance_vectors: dim is 5, expected an even number"),
    (lambda: memory.relative_shift(draw(5)), "relative_shift: scores has shape (5,)"),
    (lambda: memory.nearest_keys(draw(2, 4), draw(5, 4), -1), "nearest_keys: top_k is -1"),
])
def test_wrong_calls(call, said):
    with pytest.raises((ValueError, TypeError)) as raised:
        call()
    assert said in str(raised.value)


def test_everything_public_is_listed():
    own = {name for name, each in vars(memory).items() if (getattr(each, "__module__", None) or "").startswith("attnlib.memory")
           and not name.startswith("_") and (inspect.isfunction(each) or inspect.isclass(each))}
    assert own == set(memory.__all__)


# --- the record of chapter 18 ---------------------------------------------------------------------------------------

def test_the_record_is_of_the_chapters_own_readers():
    """What the chapter trains live, and for how long, is what was recorded with three seeds."""
    names = record_memory.definitions()
    assert names["SEGMENTS"] == 6
    source = (chapters.ROOT / "chapters" / f"{record_memory.CHAPTER}.py").read_text(encoding="utf-8")
    live = {(make, int(steps)) for make, steps in re.findall(r"^train\(\w+, (\w+), (\d+), rng\)", source, re.MULTILINE)}
    assert live == {(make, steps) for _, make, steps, layers in record_memory.READERS.values() if layers == 1}
    record = json.loads(record_memory.OUT.read_text(encoding="utf-8"))
    told = {name: (of["steps"], of["layers"]) for name, of in record["steps_and_layers"].items()}
    assert told == {name: (steps, depth) for name, (_, _, steps, depth) in record_memory.READERS.items()}
    assert all(len(runs) == len(record_memory.SEEDS) and {len(run) for run in runs} == {6} for runs in record["recall"].values())
