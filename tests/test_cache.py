"""The caches: what they hold, that nothing is copied or allocated again, and decoding against the whole text at once."""

import numpy as np
import pytest
import torch

from attnlib import layers, masks, measure, positions
from attnlib.cache import KVCache, StreamingCache, apply_rope, decode_attention
from tests.contracts import rounding

DOUBLE = dict(dtype=torch.float64)


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=shape)) for shape in shapes]


def close(q, k, v):
    return rounding(*(each.numpy() for each in (q, k, v)))


# --- KVCache -------------------------------------------------------------------------------------------------------

def test_tokens_are_written_in_place_and_read_as_views():
    cache, (k, v) = KVCache(2, 3, 10, 4, 5, **DOUBLE), draw((2, 3, 10, 4), (2, 3, 10, 5))
    before = cache.k.data_ptr(), cache.v.data_ptr()
    for start, stop in ((0, 4), (4, 5), (5, 5), (5, 10)):
        keys, values = cache.append(k[:, :, start:stop], v[:, :, start:stop])
        assert cache.length == stop and torch.equal(keys, k[:, :, :stop]) and torch.equal(values, v[:, :, :stop])
        assert (keys.data_ptr(), values.data_ptr()) == before            # nothing moves
        assert torch.equal(cache.keys, keys) and torch.equal(cache.values, values)


def test_a_step_allocates_nothing_that_grows():
    """Beside the new row's scores: as much for a cache of 64 tokens as for one of 4096, times 64."""
    used = {}
    for length in (64, 4096):
        cache, k, v, q = KVCache(1, 2, length, 16), *torch.zeros(2, 1, 2, 1, 16), torch.zeros(1, 4, 1, 16)
        cache.append(torch.zeros(1, 2, length - 1, 16), torch.zeros(1, 2, length - 1, 16))
        assert measure.allocated_bytes(lambda cache=cache, k=k, v=v: cache.append(k, v)) == 0
        used[length] = measure.allocated_bytes(lambda cache=cache, q=q: decode_attention(q, cache.keys, cache.values))
    row = 4 * 4096 * 4                                                   # 4 heads, float32
    assert row <= used[4096] <= 3 * row + 4096                           # scores twice and weights, never keys: those are 8 times a row
    assert used[64] < 1.1 * used[4096] / 64 + 4096


def test_overflow_is_refused_and_writes_nothing():
    cache, (k, v) = KVCache(1, 1, 3, 2, **DOUBLE), draw((1, 1, 4, 2), (1, 1, 4, 2))
    cache.append(k[:, :, :2], v[:, :, :2])
    held = cache.k.clone(), cache.v.clone()
    with pytest.raises(ValueError, match=r"KVCache.append: k has 2 tokens, expected at most 1: 2 of 3 places are taken"):
        cache.append(k[:, :, 2:], v[:, :, 2:])
    assert cache.length == 2 and all(torch.equal(a, b) for a, b in zip(held, (cache.k, cache.v), strict=True))
    cache.append(k[:, :, 2:3], v[:, :, 2:3])                             # the last place is a place
    assert torch.equal(cache.keys, k[:, :, :3])


def test_rewinding_forgets_and_generates_differently():
    cache, (k, v, k2, v2) = KVCache(1, 1, 6, 2, **DOUBLE), draw(*[(1, 1, 6, 2)] * 4)
    cache.append(k, v)
    cache.rewind(2)
    keys, _ = cache.append(k2[:, :, :3], v2[:, :, :3])
    assert torch.equal(keys, torch.cat([k[:, :, :2], k2[:, :, :3]], -2))
    cache.rewind()
    assert cache.length == 0 and cache.keys.shape == (1, 1, 0, 2)


def test_no_history_of_gradients_grows():
    cache, (k, v) = KVCache(1, 1, 4, 2, **DOUBLE), draw((1, 1, 2, 2), (1, 1, 2, 2))
    stream = StreamingCache(1, 1, 1, 2, 2, **DOUBLE)
    for held in (cache, stream):
        held.append(k.requires_grad_(), v.requires_grad_())
        assert not (held.keys.requires_grad or held.values.requires_grad or held.k.requires_grad)
    q = draw((1, 1, 1, 2))[0].requires_grad_()
    decode_attention(q, cache.keys, cache.values).sum().backward()       # a query may still have one
    assert q.grad is not None


# --- decoding ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("heads", [(6, 6), (6, 3), (6, 1)])
@pytest.mark.parametrize("sizes", [(1, 9), (3, 9), (9, 9), (9, 5), (1, 0)])
def test_decoding_equals_attention_with_repeated_heads(heads, sizes):
    (heads, kv_heads), (seq_q, seq_k) = heads, sizes
    q, k, v = draw((2, heads, seq_q, 4), (2, kv_heads, seq_k, 4), (2, kv_heads, seq_k, 5), seed=seq_k)
    mask = torch.from_numpy(masks.to_array(masks.causal, seq_q, seq_k))
    repeated = (each.repeat_interleave(heads // kv_heads, dim=1) for each in (k, v))
    expected, _ = layers.attention(q, *repeated, mask)
    assert (decode_attention(q, k, v) - expected).abs().max() <= close(q, k, v)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_any_leading_axes(lead):
    q, k, v = draw((*lead, 4, 3, 6), (*lead, 2, 5, 6), (*lead, 2, 5, 7))
    out = decode_attention(q, k, v)
    assert out.shape == (*lead, 4, 3, 7)
    for index in np.ndindex(lead):
        assert (out[index] - decode_attention(q[index], k[index], v[index])).abs().max() <= close(q, k, v)


def test_shared_keys_are_not_repeated():
    """8 heads on 1: repeating would make 8 copies of the keys, 2 MiB; scores, twice, and weights take 32 KiB each."""
    q, k, v = torch.zeros(1, 8, 1, 64), torch.zeros(1, 1, 1024, 64), torch.zeros(1, 1, 1024, 64)
    assert measure.allocated_bytes(lambda: decode_attention(q, k, v)) < 3.5 * 8 * 1024 * 4
    assert measure.allocated_bytes(lambda: k.repeat_interleave(8, 1)) == 8 * 1024 * 64 * 4  # so that the line above can fail


@pytest.mark.parametrize("chunks", [[20], [7, 13], [19, 1], [1] * 20, [16, 1, 1, 2]])
def test_a_text_in_chunks_equals_the_text(chunks):
    q, k, v = draw((2, 4, 20, 6), (2, 2, 20, 6), (2, 2, 20, 6))
    cache, outs, at = KVCache(2, 2, 32, 6, **DOUBLE), [], 0
    for size in chunks:
        new = slice(at, at + size)
        outs.append(decode_attention(q[:, :, new], *cache.append(k[:, :, new], v[:, :, new])))
        at += size
    whole = decode_attention(q, k, v)
    assert (torch.cat(outs, -2) - whole).abs().max() <= close(q, k, v)


def test_the_layer_with_a_cache_equals_the_layer():
    """MultiHeadAttention's own projections, one token at a time."""
    layer, (x,) = layers.MultiHeadAttention(12, 4, 2).double(), draw((2, 7, 12))
    whole, _ = layer(x, mask=torch.from_numpy(masks.to_array(masks.causal, 7)))
    cache, outs = KVCache(2, 2, 7, 3, **DOUBLE), []
    for token in x.split(1, dim=1):
        q, k, v = (to(token).unflatten(-1, (heads, -1)).transpose(1, 2)
                   for to, heads in ((layer.to_q, 4), (layer.to_k, 2), (layer.to_v, 2)))
        outs.append(layer.to_out(decode_attention(q, *cache.append(k, v)).transpose(1, 2).flatten(-2)))
    # two float64 products of 12 numbers each on top of attention's own rounding; 1e3 units in the last place cover all of them
    assert (torch.cat(outs, 1) - whole).abs().max() <= 1e3 * np.finfo(float).eps * whole.abs().max()


# --- StreamingCache ------------------------------------------------------------------------------------------------

def held(length, sinks, window):
    """Which tokens the paper keeps of `length`, in order."""
    return [t for t in range(length) if t < sinks or t >= length - window]


@pytest.mark.parametrize(("sinks", "window"), [(0, 1), (0, 4), (1, 1), (2, 3), (4, 8), (5, 2)])
@pytest.mark.parametrize("step", [1, 2, 7, 40])
def test_it_holds_the_first_and_the_last_tokens_in_order(sinks, window, step):
    cache = StreamingCache(1, 1, sinks, window, 1, **DOUBLE)
    before = cache.k.data_ptr()
    for start in range(0, 40, step):
        numbers = torch.arange(start, min(start + step, 40), **DOUBLE).view(1, 1, -1, 1)
        cache.append(numbers, -numbers)
        tokens = held(cache.seen, sinks, window)
        order = cache.positions.argsort()
        assert cache.positions.sort().values.tolist() == list(range(len(tokens)))  # places in the cache, each once
        assert cache.keys[0, 0, order, 0].tolist() == tokens
        assert cache.values[0, 0, order, 0].tolist() == [-t for t in tokens]
    assert cache.k.data_ptr() == before and cache.k.shape[2] == sinks + window
    cache.reset()
    assert cache.seen == 0 and cache.positions.tolist() == [] and cache.keys.shape[2] == 0


@pytest.mark.parametrize(("sinks", "window"), [(0, 5), (2, 3), (4, 8)])
def test_streaming_equals_attention_over_what_is_held_with_positions_of_the_cache(sinks, window):
    """Token by token against the reference: the tokens that are held, rotated by their places in the cache."""
    q, k, v = draw((1, 4, 20, 6), (1, 2, 20, 6), (1, 2, 20, 6))
    cache = StreamingCache(1, 2, sinks, window, 6, **DOUBLE)
    for t in range(20):
        new = slice(t, t + 1)
        cache.append(k[:, :, new], v[:, :, new])
        at = cache.positions
        out = decode_attention(apply_rope(q[:, :, new], at.amax().view(1)), apply_rope(cache.keys, at), cache.values)
        tokens = held(t + 1, sinks, window)
        place = np.arange(len(tokens))
        rotated = torch.from_numpy(positions.apply_rope(k[:, :, tokens].numpy(), place))
        query = torch.from_numpy(positions.apply_rope(q[:, :, new].numpy(), place[-1:]))
        expected = decode_attention(query, rotated, v[:, :, tokens])
        assert (out - expected).abs().max() <= 2 * close(q, k, v)        # the rotation rounds once more


def test_while_nothing_has_left_it_is_ordinary_attention():
    """Then places in the cache are positions in the text."""
    q, k, v = draw((1, 2, 9, 6), (1, 2, 9, 6), (1, 2, 9, 6))
    place, cache, outs = torch.arange(9), StreamingCache(1, 2, 4, 5, 6, **DOUBLE), []
    for t in range(9):
        new = slice(t, t + 1)
        cache.append(k[:, :, new], v[:, :, new])
        at = cache.positions
        outs.append(decode_attention(apply_rope(q[:, :, new], at.amax().view(1)), apply_rope(cache.keys, at), cache.values))
    whole = decode_attention(apply_rope(q, place), apply_rope(k, place), v)
    assert (torch.cat(outs, -2) - whole).abs().max() <= 2 * close(q, k, v)


def test_memory_is_constant():
    cache, (k, v) = StreamingCache(1, 2, 4, 60, 8), torch.zeros(2, 1, 2, 1, 8)
    used = set()
    for number in range(300):
        if number in (64, 100, 127, 128, 299):               # full, and then anywhere in the ring
            used.add(measure.allocated_bytes(lambda: (cache.append(k, v), apply_rope(cache.keys, cache.positions))))
        else:
            cache.append(k, v)
    assert len(used) == 1 and cache.k.nbytes == 2 * 64 * 8 * 4


# --- rotation ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_apply_rope_equals_chapter_7(base):
    (x,), place = draw((2, 3, 7, 6)), torch.tensor([0, 1, 2, 5, 100, 31, 4])
    expected = positions.apply_rope(x.numpy(), place.numpy(), base)
    assert np.abs(apply_rope(x, place, base).numpy() - expected).max() <= 1e-12  # an angle of 100 in float64 errs by 1e-14
    assert apply_rope(x.float(), place).dtype == torch.float32


@pytest.mark.parametrize(("change", "error", "message"), [
    (dict(x=torch.zeros(3, 5)), ValueError, "apply_rope: dim is 5, expected an even number"),
    (dict(positions=torch.arange(4)), ValueError, r"apply_rope: positions has shape \(4,\)"),
    (dict(base=0), ValueError, "apply_rope: base is 0"), (dict(x=torch.zeros(3, 4).long()), TypeError, "apply_rope: x has dtype int64"),
])
def test_wrong_rotations_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        apply_rope(**{"x": torch.zeros(3, 4), "positions": torch.arange(3), **change})
