"""Mask predicates against loops, on every kind of index, as arrays and as flex_attention's mask_mods."""

import random

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from attnlib import masks, reference

LENGTHS = [3, 0, 7]


def in_bigbird(i, j, blocks, size, window, n_global, n_random, seed):
    """The structure in words; the random part is asked of the library's own draw, one int at a time."""
    q, k, rng = i // size, j // size, random.Random(seed)
    drawn = {masks._scramble(q, [int(rng.random() * 2**20) for _ in range(3)]) % blocks for _ in range(n_random)}
    return abs(q - k) <= window or q < n_global or k < n_global or k in drawn


# name -> (predicate, the same in words: (i, j) -> bool)
PREDICATES = {
    "causal": (masks.causal, lambda i, j: j in range(0, i + 1)),
    "window 2": (masks.sliding_window(2), lambda i, j: j in (i - 2, i - 1, i)),
    "window 1, 3": (masks.sliding_window(1, 3), lambda i, j: j in range(i - 1, i + 4)),
    "window 0": (masks.sliding_window(0), lambda i, j: i == j),
    "dilated 2, 3": (masks.dilated(2, 3), lambda i, j: j in (i, i - 3, i - 6)),
    "dilated 3, 1": (masks.dilated(3, 1), lambda i, j: j in (i, i - 1, i - 2, i - 3)),
    "dilated 0, 2": (masks.dilated(0, 2), lambda i, j: i == j),
    "global 2": (masks.global_tokens(2), lambda i, j: i in (0, 1) or j in (0, 1)),
    "global 0": (masks.global_tokens(0), lambda i, j: False),
    "bigbird": (masks.bigbird(13, 3, seed=4), lambda i, j: in_bigbird(i, j, 5, 3, 1, 1, 1, 4)),
    "bigbird wide": (masks.bigbird(13, 2, 0, 2, 3), lambda i, j: in_bigbird(i, j, 7, 2, 0, 2, 3, 0)),
    "both": (masks.both(masks.causal, masks.sliding_window(2, 9), masks.negate(masks.dilated(1, 2))),
             lambda i, j: j <= i and j >= i - 2 and j not in (i, i - 2)),
    "either": (masks.either(masks.sliding_window(1), masks.global_tokens(1)), lambda i, j: j in (i, i - 1) or i == 0 or j == 0),
    "negate": (masks.negate(masks.causal), lambda i, j: j > i),
    "one of both": (masks.both(masks.causal), lambda i, j: j <= i),
}
BY_NAME = pytest.mark.parametrize(("predicate", "words"), PREDICATES.values(), ids=PREDICATES)


@BY_NAME
@pytest.mark.parametrize(("seq_q", "seq_k"), [(13, 13), (4, 13), (1, 13), (1, 1), (0, 5)])
def test_array_equals_a_loop_aligned_to_the_end(predicate, words, seq_q, seq_k):
    array = masks.to_array(predicate, seq_q, seq_k)
    assert array.dtype == bool and array.shape == (seq_q, seq_k) and array.flags.owndata
    for i, j in np.ndindex(array.shape):
        assert array[i, j] == words(seq_k - seq_q + i, j), (i, j)
    if seq_q == seq_k:
        assert np.array_equal(array, masks.to_array(predicate, seq_q))


@BY_NAME
def test_every_kind_of_index_gives_the_same(predicate, words):
    expected = masks.to_array(predicate, 13)
    for dtype in ("int32", "int64"):                         # a browser's NumPy counts in 32 bits
        q_idx, k_idx = np.ogrid[:13, :13]
        got = predicate(q_idx.astype(dtype), k_idx.astype(dtype))
        assert np.array_equal(np.broadcast_to(got, (13, 13)), expected), dtype
        tensors = (torch.from_numpy(idx.astype(dtype)) for idx in (q_idx, k_idx))
        got = predicate(*tensors)
        assert got.dtype == torch.bool and np.array_equal(got.expand(13, 13).numpy(), expected), dtype
    for i, j in np.ndindex(13, 13):
        assert bool(predicate(i, j)) == expected[i, j] and predicate(i, j) in (True, False)


@BY_NAME
@pytest.mark.parametrize("seq_q", [13, 4])
def test_flex_attention_makes_the_same_mask(predicate, words, seq_q):
    mask_mod = masks.as_mask_mod(predicate, seq_q, 13)
    dense = create_mask(mask_mod, None, None, seq_q, 13, device="cpu")
    assert np.array_equal(dense.numpy()[0, 0], masks.to_array(predicate, seq_q, 13))
    blocks = create_block_mask(mask_mod, None, None, seq_q, 13, device="cpu", BLOCK_SIZE=4)
    padded = np.zeros((-(-seq_q // 4) * 4, 16), bool)
    padded[:seq_q, :13] = dense[0, 0].numpy()
    occupied = padded.reshape(-1, 4, 4, 4).any(axis=(1, 3))  # (query blocks, key blocks)
    assert np.array_equal(blocks.to_dense()[0, 0].numpy().astype(bool), occupied)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_runs_on_our_masks():
    rng, both = np.random.default_rng(0), masks.both(masks.causal, masks.padding(torch.tensor([9, 13])))
    q, k, v = (torch.from_numpy(rng.normal(size=(2, 3, seq, 8))) for seq in (6, 13, 13))
    blocks = create_block_mask(masks.as_mask_mod(both, 6, 13), 2, None, 6, 13, device="cpu")
    out = flex_attention(q, k, v, block_mask=blocks)
    expected, _ = reference.attention(*(each.numpy() for each in (q, k, v)), masks.to_array(both, 6, 13))
    assert np.abs(out.numpy() - expected).max() <= 1e-13     # 13 keys of width 8: some hundred roundings of 1e-16


# --- padding -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lengths", [np.array(LENGTHS), np.array(LENGTHS, "int32"), torch.tensor(LENGTHS)], ids=["int64", "int32", "torch"])
@pytest.mark.parametrize("wrap", [
    lambda p: p, lambda p: masks.both(masks.causal, p), lambda p: masks.either(masks.sliding_window(0), p),
    lambda p: masks.negate(p), lambda p: masks.both(p, masks.negate(masks.both(p, masks.causal)))])
def test_padding_has_one_mask_per_sequence(lengths, wrap):
    predicate = wrap(masks.padding(lengths))
    array = masks.to_array(predicate, 5, 7)
    assert array.shape == (3, 1, 5, 7) and array.dtype == bool
    alone = [masks.to_array(wrap(lambda q, k, n=n: (k < n) & (q == q)), 5, 7) for n in LENGTHS]
    assert np.array_equal(array[:, 0], alone)
    for b, i, j in np.ndindex(3, 5, 7):                      # one pair of ints at a time, batch index given
        assert bool(predicate(i + 2, j, b)) == array[b, 0, i, j]


def test_padding_in_flex_attention():
    predicate = masks.both(masks.causal, masks.padding(torch.tensor(LENGTHS)))
    dense = create_mask(masks.as_mask_mod(predicate, 5, 7), 3, 1, 5, 7, device="cpu")
    assert np.array_equal(dense.numpy(), masks.to_array(predicate, 5, 7))


# --- combinations ----------------------------------------------------------------------------------------------------

def test_de_morgan():
    a, b, pad = masks.sliding_window(2, 1), masks.dilated(2, 2), masks.padding(np.array([3, 5]))
    for x, y in ((a, b), (a, pad), (pad, masks.negate(pad))):
        not_both = masks.to_array(masks.negate(masks.both(x, y)), 6)
        assert np.array_equal(not_both, masks.to_array(masks.either(masks.negate(x), masks.negate(y)), 6))
        neither = masks.to_array(masks.negate(masks.either(x, y)), 6)
        assert np.array_equal(neither, masks.to_array(masks.both(masks.negate(x), masks.negate(y)), 6))
    assert np.array_equal(masks.to_array(masks.negate(masks.negate(a)), 6), masks.to_array(a, 6))
    assert masks.to_array(masks.either(a, masks.negate(a)), 6).all()
    assert not masks.to_array(masks.both(a, masks.negate(a)), 6).any()


def test_a_window_does_not_count_the_query_itself():
    array = masks.to_array(masks.sliding_window(3), 10)
    assert array.sum(axis=1).tolist() == [1, 2, 3, 4, 4, 4, 4, 4, 4, 4]
    both_sides = masks.to_array(masks.sliding_window(2, 1), 10)
    assert both_sides.sum(axis=1).tolist() == [2, 3, 4, 4, 4, 4, 4, 4, 4, 3]


# --- bigbird -----------------------------------------------------------------------------------------------------------

def block_view(predicate, blocks, size):
    return masks.to_array(predicate, blocks * size).reshape(blocks, size, blocks, size).any(axis=(1, 3))


def test_bigbird_is_window_and_global_and_random():
    blocks, size = 16, 4
    for window, n_global, n_random in ((1, 1, 2), (0, 0, 3), (2, 3, 0), (0, 0, 0)):
        array = masks.to_array(masks.bigbird(blocks * size, size, window, n_global, n_random, seed=1), blocks * size)
        seen = array.reshape(blocks, size, blocks, size)
        assert np.array_equal(seen.any(axis=(1, 3)), seen.all(axis=(1, 3)))  # whole blocks
        seen = seen.any(axis=(1, 3))
        q, k = np.ogrid[:blocks, :blocks]
        fixed = (np.abs(q - k) <= window) | (q < n_global) | (k < n_global)
        assert seen[fixed].all()
        extra = (seen & ~fixed).sum(axis=1)
        assert (extra <= n_random).all() and (extra.sum() > 0) == (n_random > 0)


def test_bigbird_depends_on_its_seed_and_on_nothing_else():
    def pattern(seed):
        return block_view(masks.bigbird(64, 2, 0, 0, 2, seed), 32, 2)

    assert np.array_equal(pattern(3), pattern(3))
    patterns = {pattern(seed).tobytes() for seed in (0, 1, 2, 3, 4095, 4096, 8192, 2**40, 2**40 + 1)}
    assert len(patterns) == 9                                # every seed its own, also the large ones
    assert np.array_equal(pattern(7), pattern(np.int64(7)))


@pytest.mark.parametrize("blocks", [13, 32, 100])
def test_bigbird_draws_look_random(blocks):
    """Draws, and steps from one query block or one seed to the next, spread evenly (chi-square per degree of freedom).

    For even draws the figure has mean 1 and standard deviation sqrt(2 / dof), so 1 + 6 sqrt(2 / dof) is six deviations
    away. A draw that walks along diagonals, as linear congruences do, reaches hundreds.
    """
    q, k = np.ogrid[:blocks, :blocks]
    away = np.array([masks.bigbird(blocks, 1, 0, 0, 1, seed)(q, k) & (q != k) for seed in range(400)])
    draws = np.where(away.any(-1), away.argmax(-1), q[:, 0])  # (seeds, query blocks); none seen: it drew its own block

    def chi_square(values):
        expected = values.size / blocks
        return ((np.bincount(values.ravel(), minlength=blocks) - expected) ** 2 / expected).sum() / (blocks - 1)

    limit = 1 + 6 * (2 / (blocks - 1)) ** 0.5
    steps = draws[:, 1:] - draws[:, :-1], draws[1:] - draws[:-1], draws[1:, 1:] - draws[:-1, :-1]
    for values in (draws, *(step % blocks for step in steps)):
        assert chi_square(values) < limit
    diagonal = (np.arange(blocks) + 5 * np.arange(400)[:, None]) % blocks  # what the figure must refuse
    assert chi_square((diagonal[:, 1:] - diagonal[:, :-1]) % blocks) > limit


def test_bigbird_stays_within_32_bits():
    far = np.array([2**31 - 1, 2**20, 0], "int32")
    for salts in ([0, 0, 0], [2**20 - 1] * 3):
        narrow = masks._scramble(far, salts)
        assert narrow.dtype == np.int32 and narrow.min() >= 0
        assert narrow.tolist() == masks._scramble(far.astype("int64"), salts).tolist()
        assert narrow.tolist() == [masks._scramble(int(number), salts) for number in far]
    worst = max((2**20 - 1) * factor + 2**20 - 1 for factor in (1597, 2039, 1861))
    assert worst < 2**31                                     # whatever the state and the salt


def test_causal_bigbird_of_a_chunk_equals_rows_of_the_whole():
    predicate = masks.both(masks.causal, masks.bigbird(24, 3, seed=2))
    assert np.array_equal(masks.to_array(predicate, 5, 17), masks.to_array(predicate, 24)[12:17, :17])


# --- polarity ------------------------------------------------------------------------------------------------------------

def test_true_attends_as_in_scaled_dot_product_attention_and_unlike_multihead_attention():
    mask = torch.from_numpy(masks.to_array(masks.causal, 4))
    x = torch.eye(4).reshape(1, 1, 4, 4)
    first = torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    assert torch.equal(first, torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True))
    assert not first[0, 0].triu(1).any()                     # values are unit vectors: these are the weights
    module = torch.nn.MultiheadAttention(4, 1, batch_first=True)
    _, weights = module(x[0], x[0], x[0], attn_mask=~mask)
    assert torch.equal(weights[0] > 0, mask)
