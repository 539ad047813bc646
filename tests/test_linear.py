"""The linear family beyond its contracts: forms that agree, states handed on, decays that underflow, memory, features."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from attnlib import linear
from tests.contracts import rounding
from tests.variants.linear import made_of, positive_rounding, signed_rounding

RULES = ["linear", "linear, taylor", "linear, random", "gated", "gated, whole", "delta", "gated delta", "gated delta, whole"]


def make(rule, seq_q=19, seq_k=19, dim_head=6, dim_v=5, dtype=torch.float64, heads=(4, 2), seed=0):
    """(function of (q, k, v, per key..., **options), q, k, v, per key...)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(2, *shape, generator=generator, dtype=torch.float64).to(dtype)

    q, k, v = draw(heads[0], seq_q, dim_head), draw(heads[1], seq_k, dim_head), draw(heads[1], seq_k, dim_v)
    k, log_decay, beta = made_of(k, 1 if "whole" in rule else "all", "delta" in rule)
    if rule.startswith("linear"):
        directions = linear.random_directions(2 * dim_head, dim_head)
        maps = {"taylor": linear.taylor_features, "random": lambda x: linear.positive_random_features(x, directions.to(x.dtype))}
        phi = maps.get(rule.split()[-1], linear.elu_plus_one)
        return (lambda q, k, v, **options: linear.linear_attention(q, k, v, feature_map=phi, **options)), q, k, v
    if rule.startswith("gated delta"):
        return linear.delta_rule_attention, q, k, v, beta, log_decay
    return (linear.delta_rule_attention, q, k, v, beta) if rule == "delta" else (linear.gated_linear_attention, q, k, v, log_decay)


def with_gradients(function, inputs, **options):
    """out, state, and the gradients of a fixed mix of both."""
    leaves = [each.detach().requires_grad_() for each in inputs]
    out, state = function(*leaves, **options)
    mix = [torch.arange(each.numel(), dtype=each.dtype).sin().reshape(each.shape) for each in (out, state)]
    return out, state, *torch.autograd.grad((out * mix[0]).sum() + (state * mix[1]).sum(), leaves)


def largest_difference(some, others):
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in zip(some, others, strict=True))


# --- one rule, three forms ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lengths", [(19, 19), (1, 19), (7, 19), (19, 7), (64, 64)])
def test_recurrent_chunked_and_quadratic_forms_agree_forward_and_backward(rule, lengths):
    function, *inputs = make(rule, *lengths)
    token_by_token = with_gradients(function, inputs, chunk=1)
    for chunk in (2, 3, 4, 5, 8, 16, 64, 1000):
        difference = largest_difference(with_gradients(function, inputs, chunk=chunk), token_by_token)
        assert difference < 1e-12, f"chunk {chunk}: {difference:.1e}"  # 64 steps, 6 channels, some 100 operations of 1e-16 each


@pytest.mark.parametrize("rule", RULES)
def test_forms_agree_in_float32(rule):
    function, *inputs = make(rule, 300, 300, dim_head=32, dim_v=32, dtype=torch.float32, heads=(2, 2))
    outs = [function(*inputs, chunk=chunk)[0] for chunk in (1, 64, 300)]
    for out, other in itertools.combinations(outs, 2):
        assert largest_difference([out], [other]) < 1e-5


def test_a_step_that_fades_at_the_wrong_time_does_not_agree():
    """The planted mistake of the comparison above: new tokens fade with the old ones."""
    _, q, k, v, log_decay = make("gated")
    k_too = k * log_decay.exp()
    out, _ = linear.gated_linear_attention(q, k_too, v, log_decay)
    assert largest_difference([out], [linear.gated_linear_attention(q, k, v, log_decay)[0]]) > 0.01


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("edges", [(0, 7, 19), (0, 1, 2, 19), range(20), (0, 0, 19, 19)])
def test_a_state_handed_on_equals_one_call(rule, edges):
    function, q, k, v, *more = make(rule)
    whole, last = function(q, k, v, *more, chunk=4)
    state, outs = None, []
    for start, stop in itertools.pairwise(edges):
        part = [each[:, :, start:stop] for each in (q, k, v, *more)]
        out, state = function(*part, state=state, chunk=4)
        outs.append(out)
    assert largest_difference([torch.cat(outs, 2), state], [whole, last]) < 1e-12


@pytest.mark.parametrize("rule", ["linear", "linear, taylor"])
def test_everything_seen_may_come_in_two_calls(rule):
    function, q, k, v = make(rule)
    whole, last = function(q, k, v, causal=False)
    _, state = function(q, k[:, :, :8], v[:, :, :8], causal=False)
    out, state = function(q, k[:, :, 8:], v[:, :, 8:], causal=False, state=state)
    assert largest_difference([out, state], [whole, last]) < 1e-12
    assert largest_difference([function(q[:, :, :3], k, v, causal=False)[0]], [whole[:, :, :3]]) < 1e-12


@pytest.mark.parametrize("rule", RULES)
def test_prefix_without_state_equals_prefix_as_state(rule):
    function, q, k, v, *more = make(rule)
    whole, last = function(q[:, :, 12:], k, v, *more)
    _, state = function(q[:, :, :0], *(each[:, :, :12] for each in (k, v, *more)))
    out, end = function(q[:, :, 12:], *(each[:, :, 12:] for each in (k, v, *more)), state=state)
    assert largest_difference([out, end], [whole, last]) < 1e-12


@pytest.mark.parametrize("rule", RULES)
def test_shared_heads_equal_repeated_ones(rule):
    function, q, k, v, *more = make(rule, heads=(6, 2))
    shared, state = function(q, k, v, *more)
    repeated, states = function(q, *(each.repeat_interleave(3, 1) for each in (k, v, *more)))
    assert largest_difference([shared, state.repeat_interleave(3, 1)], [repeated, states]) < 1e-13
    assert state.shape[1] == 2  # what is kept is per key head


@pytest.mark.parametrize("rule", RULES)
def test_any_leading_axes(rule):
    function, q, k, v, *more = make(rule)
    whole, state = function(q, k, v, *more)
    alone = function(*(each[1] for each in (q, k, v, *more)))
    assert largest_difference(alone, [whole[1], state[1]]) < 1e-14
    deeper = function(*(each[None, :, None] for each in (q, k, v, *more)))
    assert largest_difference(deeper, [whole[None, :, None], state[None, :, None]]) < 1e-14


@pytest.mark.parametrize("rule", RULES)
def test_nothing_in_gives_nothing_out(rule):
    function, *inputs = make(rule, 3, 0)
    out, state = function(*inputs)
    assert not out.any() and not state.any() and out.shape == (2, 4, 3, 5)
    function, *inputs = make(rule, 0, 3)
    out, state = function(*inputs)
    assert out.shape == (2, 4, 0, 5) and state.any()


@pytest.mark.parametrize("rule", RULES)
def test_gradcheck_of_everything(rule):
    function, *inputs = make(rule, 5, 6, 3, 2, heads=(2, 1))
    state = function(*inputs)[1].detach()
    leaves = [each[:1].detach().requires_grad_() for each in (*inputs, state)]
    leaves[0] = inputs[0][:1, :, :5].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: function(*given[:-1], state=given[-1], chunk=4), leaves)


@pytest.mark.parametrize("rule", RULES)
def test_half_precision_keeps_its_state_in_float32(rule):
    function, *inputs = make(rule, 150, 150, dtype=torch.bfloat16)
    out, state = function(*inputs)
    truth, _ = function(*(each.double() for each in inputs))
    assert out.dtype == torch.bfloat16 and state.dtype == torch.float32
    kept = largest_difference([out.double()], [truth.to(torch.bfloat16).double()])
    assert kept <= 2 ** -7  # at most a rounding step of bfloat16, at the largest entry
    assert function(*inputs, state=state)[0].dtype == torch.bfloat16


# --- decays -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seq", [*range(10), 16, 17, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_decayed_scores_are_the_sum_they_say(seq, channels):
    torch.manual_seed(seq)
    q, k, log_decay = torch.randn(2, seq, 3).double(), torch.randn(2, seq, 3).double(), -torch.rand(2, seq, channels).double() * 5
    expected = torch.zeros(2, seq, seq, dtype=torch.float64)
    for j, i in itertools.combinations_with_replacement(range(seq), 2):
        expected[:, i, j] = (q[:, i] * k[:, j] * log_decay[:, j + 1 : i + 1].sum(1).exp()).sum(-1)
    assert torch.allclose(linear.decayed_scores(q, k, log_decay), expected, rtol=0, atol=1e-13)
    assert linear.decayed_scores(q, k, log_decay).shape == expected.shape


def naive_decayed_scores(q, k, log_decay):
    total = log_decay.cumsum(-2)
    return ((q * total.exp()) @ (k / total.exp()).mT).tril()


@pytest.mark.parametrize("channels", [1, 6])
def test_strong_decays_neither_overflow_nor_lose_digits(channels):
    torch.manual_seed(0)
    q, k = torch.randn(2, 64, 6), torch.randn(2, 64, 6)
    log_decay = -5 * torch.rand(2, 64, channels)
    truth = linear.decayed_scores(q.double(), k.double(), log_decay.double())
    bound = 64 * 2e-7 * (q.abs() @ k.abs().mT).max()
    assert (linear.decayed_scores(q, k, log_decay) - truth).abs().max() < bound
    assert not (naive_decayed_scores(q, k, log_decay) - truth).abs().max() < bound  # NaN or far off: the test can fail


@pytest.mark.parametrize("rule", ["gated", "gated, whole", "gated delta", "gated delta, whole"])
@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_a_decay_of_zero_forgets_exactly_and_has_finite_gradients(rule, chunk):
    function, q, k, v, *more = make(rule)
    more[-1][:, :, 7] = -torch.inf
    out, state = function(q, k, v, *more, chunk=chunk)
    fresh = [each[:, :, 7:].clone() for each in (q, k, v, *more)]
    fresh[-1][:, :, 0] = 0  # nothing before to forget
    fresh_out, fresh_state = function(*fresh, chunk=chunk)
    assert largest_difference([out[:, :, 7:], state], [fresh_out, fresh_state]) < 1e-13
    assert all(each.isfinite().all() for each in with_gradients(function, (q, k, v, *more), chunk=chunk))


def test_no_decay_is_no_gate():
    _, q, k, v, beta, log_decay = make("gated delta")
    still = torch.zeros_like(log_decay)
    gated, without = linear.delta_rule_attention(q, k, v, beta, still), linear.delta_rule_attention(q, k, v, beta)
    assert largest_difference(gated, without) < 1e-13
    gated = linear.gated_linear_attention(q, k, v, still)
    expected = (q @ k.repeat_interleave(2, 1).mT).tril() @ v.repeat_interleave(2, 1)
    assert largest_difference(gated[:1], [expected]) < 1e-13
    assert largest_difference(linear.gated_linear_attention(q, k, v, still[..., :1]), gated) < 1e-13


# --- the delta rule -----------------------------------------------------------------------------------------------

def test_the_last_value_of_a_key_is_what_it_answers():
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    which = torch.tensor([0, 1, 2, 0, 3, 1, 1, 5])
    v = torch.randn(1, 8, 4, dtype=torch.float64)
    _, state = linear.delta_rule_attention(basis[which][None], basis[which][None], v, torch.ones(1, 8, dtype=torch.float64), chunk=3)
    answers = basis @ state[0]
    for key, last in {0: 3, 1: 6, 2: 2, 3: 4, 5: 7}.items():
        assert (answers[key] - v[0, last]).abs().max() < 1e-14
    assert answers[4].abs().max() < 1e-14
    _, added = linear.gated_linear_attention(basis[which][None], basis[which][None], v, torch.zeros(1, 8, 1, dtype=torch.float64))
    assert ((basis @ added[0])[0] - v[0, 3]).abs().max() > 0.1  # adding mixes the two values of key 0


def test_writes_stay_bounded_with_unit_keys():
    function, q, k, v, beta = make("delta", 500, 500)
    _, state = function(q, k, v, 2 * beta)                    # β up to 2: a reflection, still no growth per step
    longest = k.shape[2] * v.norm(dim=-1).max() * 2
    assert state.isfinite().all() and state.abs().max() < longest


# --- features -----------------------------------------------------------------------------------------------------

def test_elu_plus_one_keeps_its_digits_where_the_sum_would_lose_them():
    x = torch.linspace(-80, 80, 1001)
    truth = torch.where(x > 0, x.double() + 1, x.double().exp())
    step = 2e-7 * truth
    assert ((linear.elu_plus_one(x) - truth).abs() < step * (1 + x.abs())).all()  # exp(x) errs by its argument's rounding
    assert not (F.elu(x) + 1)[x < -20].any()                  # the literal formula has nothing left
    at_zero = torch.zeros(1, requires_grad=True)
    assert torch.autograd.grad(linear.elu_plus_one(at_zero).sum(), at_zero)[0] == 1


def test_taylor_features_multiply_to_the_polynomial():
    torch.manual_seed(0)
    q, k = torch.randn(2, 50, 7, dtype=torch.float64)
    s = q @ k.mT / 7**0.5
    products = linear.taylor_features(q) @ linear.taylor_features(k).mT
    assert linear.taylor_features(q).shape == (50, 1 + 7 + 49)
    assert (products - (1 + s + s**2 / 2)).abs().max() < 1e-13
    assert products.min() >= 0.5 - 1e-13


def test_random_features_are_right_on_average_and_better_when_perpendicular():
    torch.manual_seed(0)
    q, k = torch.randn(2, 20, 8, dtype=torch.float64) / 2      # longer ones have errors with tails too heavy for 300 draws
    truth = (q @ k.mT / 8**0.5).exp()
    errors = {True: [], False: []}
    for seed in range(300):
        for perpendicular in errors:
            directions = linear.random_directions(16, 8, seed) if perpendicular else torch.randn(16, 8)
            phi_q, phi_k = (linear.positive_random_features(x, directions.double()) for x in (q, k))
            errors[perpendicular].append(phi_q @ phi_k.mT / truth - 1)
    for each in map(torch.stack, (errors[True], errors[False])):
        spread = each.std(0) / 300**0.5                       # of the mean
        assert (each.mean(0).abs() < 5 * spread).float().mean() > 0.97
    square = {how: torch.stack(each).square().mean() for how, each in errors.items()}
    assert square[True] < square[False]


def test_random_directions_are_perpendicular_seeded_and_of_gaussian_length():
    directions = linear.random_directions(10, 4, seed=3).double()
    assert directions.shape == (10, 4)
    for start, stop in ((0, 4), (4, 8), (8, 10)):
        block = F.normalize(directions[start:stop], dim=-1)
        assert (block @ block.mT - torch.eye(stop - start)).abs().max() < 1e-6
    assert torch.equal(linear.random_directions(10, 4, 3), linear.random_directions(10, 4, 3))
    assert not torch.equal(linear.random_directions(10, 4, 3), linear.random_directions(10, 4, 4))
    many = linear.random_directions(4000, 4)
    assert (many.mT @ many / 4000 - torch.eye(4)).abs().max() < 0.1   # covariance of standard normal vectors
    assert abs(many.square().sum(-1).mean() - 4) < 0.2                 # 4000 draws: standard error 0.045


@pytest.mark.parametrize(("call", "argument", "was"), [
    (lambda: linear.elu_plus_one(torch.arange(3)), "x", "int64"),
    (lambda: linear.taylor_features(torch.zeros(2, 3).int()), "x", "int32"),
    (lambda: linear.random_directions(0, 4), "features", "0"),
    (lambda: linear.random_directions(4, 4, -1), "seed", "-1"),
    (lambda: linear.positive_random_features(torch.zeros(2, 3), torch.zeros(5, 4)), "directions", "(5, 4)"),
])
def test_wrong_calls_of_feature_maps(call, argument, was):
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert f": {argument} " in str(error.value) and was in str(error.value)


# --- what is kept, and how precisely ------------------------------------------------------------------------------

def saved_numbers(function, inputs, **options):
    """Numbers that autograd keeps for the backward pass, each storage once, the inputs not counted."""
    own, kept = {each.untyped_storage().data_ptr() for each in inputs}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor                 # holding it keeps its address from being used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(*(each.requires_grad_() for each in inputs), **options)
    return sum(each.untyped_storage().nbytes() // each.element_size() for each in kept.values())


@pytest.mark.parametrize("rule", ["linear", "gated", "gated, whole", "delta", "gated delta"])
def test_the_backward_pass_keeps_no_state_per_token(rule):
    kept = {}
    for seq in (128, 256, 512):
        function, *inputs = make(rule, seq, seq, 64, 64, heads=(1, 1))
        kept[seq] = saved_numbers(function, inputs)
    assert kept[512] - kept[256] == 2 * (kept[256] - kept[128])        # linear, exactly
    assert (kept[512] - kept[256]) / 256 / 2 < 64 * 64                 # per token of two sequences: less than one state
    function, *inputs = make(rule, 64, 64, 64, 64, heads=(1, 1))
    assert saved_numbers(function, inputs, chunk=1) / 64 / 2 > 64 * 64  # token by token it does keep them


def test_float32_stays_close_over_long_sequences():
    function, *inputs = make("linear", 30_000, 30_000, 4, 3, dtype=torch.float32, heads=(1, 1))
    inputs[2] += 10                                            # values far from 0
    out, _ = function(*inputs)
    truth, _ = function(*(each.double() for each in inputs))
    assert ((out - truth).abs() / truth.abs()).max() < 500 * 1.2e-7   # 30000 / 64 states added up, at most a rounding each


@pytest.mark.parametrize("rule", RULES)
def test_arguments_and_state_are_left_as_they_were(rule):
    function, *inputs = make(rule)
    state = function(*inputs)[1]
    before = [each.clone() for each in (*inputs, state)]
    function(*inputs, state=state)
    assert all(map(torch.equal, (*inputs, state), before))


def test_the_bounds_of_the_table_are_tight_enough_to_see_float32():
    """A float64 result rounded to float32 breaks them: what the contracts allow is far less than a lost precision."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, 1, 7, 6)) for _ in range(3))
    for bound in (positive_rounding, signed_rounding, rounding):
        assert bound(q, k, v) < 1e-10 < math.ulp(1.0) * 2**29 * np.abs(v).max()
