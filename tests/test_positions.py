"""Positions against their formulas, an independent complex-number RoPE, and the published ALiBi slopes."""

import cmath
import itertools
import math

import numpy as np
import pytest

from attnlib import masks, positions, reference

EPS = np.finfo(np.float64).eps


def angle_rounding(largest_position):
    """Angles reach the largest position; an angle of size a is off by a few a·u, sine and cosine by as much."""
    return 8 * EPS * max(1, largest_position)


# --- sinusoids -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("seq", "dim"), [(1, 2), (7, 6), (50, 16), (0, 4), (3, 0)])
def test_sinusoids_entry_by_entry(seq, dim):
    vectors = positions.sinusoids(seq, dim)
    assert vectors.shape == (seq, dim)
    for p, column in np.ndindex(vectors.shape):
        angle = p / 10000 ** (2 * (column // 2) / dim)       # Vaswani et al., Section 3.5
        expected = math.cos(angle) if column % 2 else math.sin(angle)
        assert abs(vectors[p, column] - expected) <= angle_rounding(seq)


@pytest.mark.parametrize("shift", [1, 5, 100])
def test_a_shift_of_sinusoids_is_one_rotation_for_all_positions(shift):
    dim, vectors = 12, positions.sinusoids(200, 12)
    rotation = np.zeros((dim, dim))
    for pair in range(dim // 2):
        turn = shift / 10000 ** (2 * pair / dim)
        c, s = math.cos(turn), math.sin(turn)
        rotation[2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2] = [[c, s], [-s, c]]  # acts on (sin, cos)
    assert np.abs(vectors[:-shift] @ rotation.T - vectors[shift:]).max() <= angle_rounding(200)
    assert np.abs(rotation @ rotation.T - np.eye(dim)).max() <= 8 * EPS


def test_wavelengths_run_from_two_pi_almost_to_two_pi_times_base():
    speeds = positions.position_angles(np.array([1.0]), 512)[0]
    wavelengths = 2 * math.pi / speeds
    assert np.isclose(wavelengths[0], 2 * math.pi)
    assert 0.95 * 10000 < wavelengths[-1] / (2 * math.pi) < 10000
    assert np.allclose(np.diff(np.log(wavelengths)), np.log(10000) * 2 / 512)  # a geometric progression
    assert np.isclose(positions.position_angles(np.array([3.0]), 4, base=100.0)[0, 1], 3 / 10)


# --- RoPE --------------------------------------------------------------------------------------------------------

def rope_by_complex_numbers(x, where, base=10000.0, interleaved=False):
    """Each pair of columns as one complex number, multiplied by exp(i · position · speed)."""
    dim, turned = x.shape[-1], np.empty_like(x)
    for *row, pair in np.ndindex(*x.shape[:-1], dim // 2):
        first, second = (2 * pair, 2 * pair + 1) if interleaved else (pair, pair + dim // 2)
        z = complex(x[*row, first], x[*row, second])
        z *= cmath.exp(1j * float(np.broadcast_to(where, x.shape[:-1])[*row]) * base ** (-2 * pair / dim))
        turned[*row, first], turned[*row, second] = z.real, z.imag
    return turned


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("shape", "base"), [((5, 6), 10000.0), ((2, 3, 7, 10), 500.0), ((1, 2), 10000.0), ((4, 0, 8), 10.0)])
def test_rope_is_multiplication_by_a_complex_number(shape, base, interleaved):
    rng = np.random.default_rng(len(shape))
    x, where = rng.normal(size=shape), rng.integers(0, 1000, size=shape[-2])
    got = positions.apply_rope(x, where, base, interleaved)
    expected = rope_by_complex_numbers(x, where, base, interleaved)
    assert np.abs(got - expected).max(initial=0) <= angle_rounding(1000) * np.abs(x).max(initial=1)


@pytest.mark.parametrize("interleaved", [False, True])
def test_positions_may_differ_from_sequence_to_sequence(interleaved):
    rng = np.random.default_rng(4)
    x, where = rng.normal(size=(3, 5, 6)), rng.integers(0, 50, size=(2, 1, 5))  # a batch of positions, one set of heads
    got = positions.apply_rope(x, where, interleaved=interleaved)
    assert got.shape == (2, 3, 5, 6)
    for b in range(2):
        assert np.array_equal(got[b], positions.apply_rope(x, where[b, 0], interleaved=interleaved))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_scores_depend_on_the_difference_alone(interleaved):
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 1, 8))

    def score(q_at, k_at):
        turn = [positions.apply_rope(x, np.array([at]), interleaved=interleaved) for x, at in ((q, q_at), (k, k_at))]
        return (turn[0] @ turn[1].T).item()

    size = np.linalg.norm(q) * np.linalg.norm(k)
    for shift in (1, 17, 500):
        assert abs(score(3, 9) - score(3 + shift, 9 + shift)) <= angle_rounding(600) * size
    assert abs(score(3, 9) - score(3, 10)) > 0.01 * size     # another difference, another score
    assert abs(score(3, 9) - score(9, 3)) > 0.01 * size      # its sign matters
    assert abs(score(4, 4) - (q @ k.T).item()) <= angle_rounding(4) * size


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rope_keeps_lengths_and_dtype(interleaved, dtype):
    x = np.random.default_rng(1).normal(size=(3, 7, 10)).astype(dtype)
    turned = positions.apply_rope(x, np.arange(7), interleaved=interleaved)
    assert turned.dtype == dtype and np.array_equal(turned[:, 0], x[:, 0])  # position 0 turns by nothing
    lengths, before = (np.linalg.norm(each, axis=-1) for each in (turned, x))
    assert np.abs(lengths / before - 1).max() <= 8 * np.finfo(dtype).eps


def test_the_two_layouts_are_one_idea_on_permuted_columns():
    x, where = np.random.default_rng(2).normal(size=(5, 8)), np.arange(1, 6)
    to_half_split = np.array([0, 2, 4, 6, 1, 3, 5, 7])       # first members of all pairs, then second members
    interleaved = positions.apply_rope(x, where, interleaved=True)
    half_split = positions.apply_rope(x[:, to_half_split], where)
    assert np.array_equal(interleaved[:, to_half_split], half_split)
    assert np.abs(positions.apply_rope(x, where) - interleaved).max() > 0.1  # and not interchangeable as they are


def test_sinusoids_are_rope_applied_to_a_constant():
    """RoPE (interleaved) turns (0, 1) by -angle into (sin, cos): one set of speeds serves both."""
    constant = np.tile([0.0, 1.0], (9, 3))
    turned = positions.apply_rope(constant, -np.arange(9), interleaved=True)
    assert np.abs(turned - positions.sinusoids(9, 6)).max() <= angle_rounding(9)


# --- ALiBi -----------------------------------------------------------------------------------------------------

EIGHT = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]  # arXiv 2108.12409, Section 3
# the authors' code for 12 heads: the 8 of a model with 8 heads, then 1st, 3rd, 5th, 7th of one with 16
TWELVE = [*EIGHT, 0.7071067811865476, 0.35355339059327384, 0.17677669529663692, 0.08838834764831849]


def authors_slopes(n):
    """The function get_slopes of the paper's repository (ofirpress/attention_with_linear_biases), as published."""
    def power_of_2(n):
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(n).is_integer():
        return power_of_2(n)
    closest = 2 ** math.floor(math.log2(n))
    return power_of_2(closest) + authors_slopes(2 * closest)[0::2][: n - closest]


def test_published_slopes():
    assert positions.alibi_slopes(8).tolist() == EIGHT       # powers of two, exact
    assert np.abs(positions.alibi_slopes(12) / TWELVE - 1).max() <= 4 * EPS
    assert np.abs(positions.alibi_slopes(16)[::2] / [2 ** -(0.5 + i) for i in range(8)] - 1).max() <= 4 * EPS


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 6, 7, 8, 12, 20, 32, 33, 112])
def test_slopes_equal_the_authors_code(heads):
    slopes = positions.alibi_slopes(heads)
    assert slopes.shape == (heads,)
    assert np.abs(slopes / authors_slopes(heads) - 1).max() <= 2 * heads * EPS  # theirs multiplies `heads` times
    assert np.array_equal(slopes, positions.alibi_slopes(np.int64(heads)))


@pytest.mark.parametrize(("seq_q", "seq_k"), [(5, 5), (3, 7), (1, 9), (0, 4), (7, 3)])
def test_alibi_bias_entry_by_entry_aligned_to_the_end(seq_q, seq_k):
    bias, slopes = positions.alibi_bias(3, seq_q, seq_k), authors_slopes(3)
    assert bias.shape == (3, seq_q, seq_k)
    for h, i, j in np.ndindex(bias.shape):
        assert abs(bias[h, i, j] + slopes[h] * abs(seq_k - seq_q + i - j)) <= 8 * EPS * seq_k
    if 0 < seq_q <= seq_k:
        assert not bias[:, -1, -1].any()                     # the last query stands at the last key
    if seq_q == seq_k:
        assert np.array_equal(bias, positions.alibi_bias(3, seq_q))


def test_alibi_in_chunks_equals_whole():
    whole = positions.alibi_bias(4, 7)
    for start, stop in itertools.pairwise((0, 2, 3, 7)):
        assert np.array_equal(positions.alibi_bias(4, stop - start, stop), whole[:, start:stop, :stop])


# --- what positions are for ------------------------------------------------------------------------------------------

def test_attention_is_blind_to_order_until_it_gets_positions():
    rng = np.random.default_rng(3)
    x, order = rng.normal(size=(6, 8)), rng.permutation(6)

    def attend(x):
        return reference.attention(x, x, x)[0]

    def attend_with_rope(x):
        turned = positions.apply_rope(x, np.arange(6))
        return reference.attention(turned, turned, x)[0]

    def attend_causally(x):
        return reference.attention(x, x, x, masks.to_array(masks.causal, 6))[0]

    assert np.allclose(attend(x[order]), attend(x)[order], rtol=0, atol=64 * EPS)  # six terms, a few roundings each
    for ordered in (attend_with_rope, attend_causally, lambda x: attend(x + positions.sinusoids(6, 8))):
        assert np.abs(ordered(x[order]) - ordered(x)[order]).max() > 0.1
