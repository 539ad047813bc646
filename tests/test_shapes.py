"""Wrong calls of public functions are refused in one sentence: the argument, what it was, what was expected.

Attention itself is in the contracts (number 12); here stand all other public functions, and the notes of
the decorator that does the checking.
"""

import importlib
import inspect

import numpy as np
import pytest
import torch

from attnlib import costs, data, masks, positions, reference
from attnlib._shapes import takes
from tests.variants import VARIANTS

ROOMS = ("reference", "positions", "masks", "costs", "layers", "data")


def zeros(*shape, dtype="float64"):
    return np.zeros(shape, dtype)


X = zeros(2, 5, 12)
STATE = dict(row_max=zeros(2, 5), row_sum=zeros(2, 5), out=zeros(2, 5, 4), scores=zeros(2, 5, 3), v=zeros(2, 3, 4))
BACKWARD = dict(d_out=zeros(5, 4), q=zeros(5, 6), k=zeros(7, 6), v=zeros(7, 4), weights=zeros(5, 7))

# function -> wrong calls, as (arguments, the argument to blame, what it was)
WRONG = {
    reference.attention_scores: [
        (dict(q=zeros(5, 6), k=zeros(7, 4)), "k", "(7, 4)"), (dict(q=zeros(5, 6), k=zeros(7, 6, dtype="float32")), "k", "float32"),
        (dict(q=zeros(2, 5, 6), k=zeros(3, 7, 6)), "k", "(3,)"), (dict(q=zeros(5, 6, dtype=int), k=zeros(7, 6)), "q", "int64"),
        (dict(q=[[1.0]], k=zeros(7, 6)), "q", "list"), (dict(q=torch.zeros(5, 6), k=zeros(7, 6)), "q", "Tensor")],
    reference.softmax: [
        (dict(scores=zeros(3, dtype=int)), "scores", "int64"), (dict(scores=[1.0, 2.0]), "scores", "list"),
        (dict(scores=np.array(1.0)), "scores", "()"), (dict(scores=None), "scores", "None"), (dict(scores=zeros(3, dtype=complex)), "scores", "complex128")],
    reference.entropy: [(dict(weights=zeros(3, dtype=bool)), "weights", "bool"), (dict(weights=1.0), "weights", "float")],
    reference.softmax_backward: [
        (dict(weights=zeros(5, 7), d_weights=zeros(5, 6)), "d_weights", "(5, 6)"),
        (dict(weights=zeros(5, 7), d_weights=zeros(4, 7)), "d_weights", "(4,)"),
        (dict(weights=zeros(5, 7), d_weights=zeros(5, 7, dtype=int)), "d_weights", "int64")],
    reference.attention_backward: [
        ({**BACKWARD, "d_out": zeros(5, 3)}, "v", "(7, 4)"), ({**BACKWARD, "k": zeros(6, 6)}, "v", "(7, 4)"),
        ({**BACKWARD, "weights": zeros(7, 5)}, "weights", "(7, 5)"), ({**BACKWARD, "q": zeros(5, 6, dtype="float32")}, "q", "float32"),
        ({**BACKWARD, "weights": None}, "weights", "None")],
    reference.split_heads: [
        (dict(x=X, heads=5), "heads", "5"), (dict(x=X, heads=0), "heads", "0"), (dict(x=X, heads=-3), "heads", "-3"),
        (dict(x=X, heads=3.0), "heads", "float"), (dict(x=X, heads=True), "heads", "bool"), (dict(x=X, heads=None), "heads", "None"),
        (dict(x=zeros(12), heads=3), "x", "(12,)"), (dict(x="abc", heads=3), "x", "str")],
    reference.merge_heads: [(dict(x=zeros(5, 4)), "x", "(5, 4)"), (dict(x=torch.zeros(3, 5, 4)), "x", "Tensor")],
    reference.online_softmax_update: [
        ({**STATE, "v": zeros(2, 4, 4)}, "v", "(2, 4, 4)"), ({**STATE, "row_max": zeros(2, 4)}, "row_max", "(2, 4)"),
        ({**STATE, "row_sum": zeros(3, 5)}, "row_sum", "(3,)"), ({**STATE, "out": zeros(2, 5, 5)}, "out", "(2, 5, 5)"),
        ({**STATE, "out": zeros(2, 5, 4, dtype="float32")}, "out", "float32"), ({**STATE, "row_max": 0.0}, "row_max", "float")],
    positions.position_angles: [
        (dict(positions=np.arange(3), dim=5), "dim", "5"), (dict(positions=np.arange(3), dim=-2), "dim", "-2"),
        (dict(positions=np.arange(3), dim="4"), "dim", "str"), (dict(positions=[0, 1], dim=4), "positions", "list"),
        (dict(positions=np.array(3), dim=4), "positions", "()"), (dict(positions=np.arange(3), dim=4, base=0), "base", "0"),
        (dict(positions=np.arange(3), dim=4, base="e"), "base", "str"), (dict(positions=np.arange(3), dim=4, base=float("nan")), "base", "nan")],
    positions.sinusoids: [
        (dict(seq=-1, dim=4), "seq", "-1"), (dict(seq=2.0, dim=4), "seq", "float"), (dict(seq=3, dim=5), "dim", "5"), (dict(seq=3, dim=None), "dim", "None")],
    positions.apply_rope: [
        (dict(x=zeros(5, 7), positions=np.arange(5)), "dim", "7"), (dict(x=zeros(5, 6), positions=np.arange(4)), "positions", "(4,)"),
        (dict(x=zeros(3, 5, 6), positions=zeros(2, 5)), "positions", "(2,)"), (dict(x=zeros(5, 6, dtype=int), positions=np.arange(5)), "x", "int64"),
        (dict(x=torch.zeros(5, 6), positions=np.arange(5)), "x", "Tensor"), (dict(x=zeros(5, 6), positions=range(5)), "positions", "range"),
        (dict(x=zeros(5, 6), positions=np.arange(5), base=-2), "base", "-2")],
    positions.alibi_slopes: [(dict(heads=0), "heads", "0"), (dict(heads=8.0), "heads", "float"), (dict(heads=None), "heads", "None")],
    positions.alibi_bias: [
        (dict(heads=0, seq_q=3), "heads", "0"), (dict(heads=2, seq_q=-1), "seq_q", "-1"), (dict(heads=2, seq_q=1, seq_k=2.5), "seq_k", "float")],
    masks.sliding_window: [(dict(left=-1), "left", "-1"), (dict(left=1, right=-2), "right", "-2"), (dict(left=1.5), "left", "float"), (dict(left=True), "left", "bool")],
    masks.dilated: [(dict(left=-1, step=2), "left", "-1"), (dict(left=1, step=0), "step", "0"), (dict(left=1, step="2"), "step", "str")],
    masks.global_tokens: [(dict(n=-1), "n", "-1"), (dict(n=None), "n", "NoneType")],
    masks.bigbird: [
        (dict(seq=0, block_size=2), "seq", "0"), (dict(seq=8, block_size=0), "block_size", "0"), (dict(seq=8, block_size=2, window=-1), "window", "-1"),
        (dict(seq=8, block_size=2, n_global=1.0), "n_global", "float"), (dict(seq=8, block_size=2, n_random=-1), "n_random", "-1"),
        (dict(seq=8, block_size=2, seed=-1), "seed", "-1"), (dict(seq=8, block_size=2, seed="0"), "seed", "str")],
    masks.padding: [
        (dict(lengths=[3, 4]), "lengths", "list"), (dict(lengths=zeros(2, 2, dtype=int)), "lengths", "(2, 2)"), (dict(lengths=zeros(2)), "lengths", "float64"),
        (dict(lengths=torch.zeros(2)), "lengths", "float32")],
    masks.to_array: [
        (dict(predicate=masks.causal, seq_q=-1), "seq_q", "-1"), (dict(predicate=masks.causal, seq_q=2, seq_k=-3), "seq_k", "-3"),
        (dict(predicate=masks.causal, seq_q=2.0), "seq_q", "float"), (dict(predicate=zeros(3, 3), seq_q=3), "predicate", "ndarray")],
    masks.as_mask_mod: [
        (dict(predicate=masks.causal, seq_q=-1), "seq_q", "-1"), (dict(predicate=masks.causal, seq_q=2, seq_k="3"), "seq_k", "str"),
        (dict(predicate=None, seq_q=3), "predicate", "NoneType")],
    masks.negate: [(dict(predicate=np.eye(3)), "predicate", "ndarray")],
    costs.attention_flops: [
        (dict(heads=-1, seq_q=5, seq_k=5, dim_head=2), "heads", "-1"), (dict(heads=1, seq_q=5.0, seq_k=5, dim_head=2), "seq_q", "float"),
        (dict(heads=1, seq_q=5, seq_k=5, dim_head=2, dim_v="2"), "dim_v", "str")],
    costs.attention_parameters: [
        (dict(dim=12, heads=5), "heads", "5"), (dict(dim=12, heads=0), "heads", "0"), (dict(dim="12", heads=3), "dim", "str"),
        (dict(dim=12, heads="3"), "heads", "str"), (dict(dim=12, heads=3, kv_heads=-1), "kv_heads", "-1"), (dict(dim=12, heads=3, dim_head=1.5), "dim_head", "float")],
    costs.attention_layer_flops: [
        (dict(seq=-1, dim=12, heads=3), "seq", "-1"), (dict(seq=5, dim=12, heads=5), "heads", "5"), (dict(seq=5, dim=12, heads=0), "heads", "0"),
        (dict(seq=5, dim=None, heads=3), "dim", "NoneType"), (dict(seq=True, dim=12, heads=3), "seq", "bool")],
    costs.kv_cache_bytes: [
        (dict(layers=-1, kv_heads=1, dim_head=2, seq=3), "layers", "-1"), (dict(layers=1, kv_heads=1, dim_head=2, seq=3.0), "seq", "float"),
        (dict(layers=1, kv_heads=1, dim_head=2, seq=3, batch=None), "batch", "NoneType"), (dict(layers=1, kv_heads=1, dim_head=2, seq=3, bytes_per_number=0.5), "bytes_per_number", "float")],
    data.real_head: [
        (dict(name="nobody"), "name", "'nobody'"), (dict(ending="tall"), "ending", "'tall'"), (dict(name="previous", ending="wide"), "ending", "'wide'"),
        (dict(name=3), "name", "3")],
    data.real_attention: [(dict(ending="tall"), "ending", "'tall'"), (dict(ending=2), "ending", "2")],
}
POSITIONAL = {  # functions of any number of arguments
    masks.both: [((), "predicates", "no predicates"), ((masks.causal, 3), "predicate", "int")],
    masks.either: [((), "predicates", "no predicates"), ((zeros(3, 3),), "predicate", "ndarray")],
}
RIGHT_COSTS = {  # function -> a right call; one argument at a time is made wrong
    costs.matmul_cost: dict(rows=2, inner=3, columns=4, copies=5), costs.linear_cost: dict(tokens=2, dim_in=3, dim_out=4), costs.softmax_cost: dict(rows=2, columns=3),
    costs.pointwise_cost: dict(numbers=2, reads=1, kept=1, exponentials=1), costs.norm_cost: dict(tokens=2, dim=3),
    costs.attention_steps: dict(heads=2, seq_q=3, seq_k=4, dim_head=5, dim_v=6, batch=1),
    costs.attention_cost: dict(heads=2, seq_q=3, seq_k=4, dim_head=5, dim_v=6, kv_heads=1, pairs=7, batch=1),
    costs.attention_layer_cost: dict(seq=3, dim=12, heads=2, kv_heads=1, dim_head=5, context=4, pairs=6, batch=1),
    costs.decode_cost: dict(heads=2, seq_k=3, dim_head=4, kv_heads=1, batch=1), costs.causal_pairs: dict(seq_q=3, seq_k=4, block_q=2, block_k=2),
    costs.window_pairs: dict(seq_q=3, seq_k=4, left=1, right=1), costs.dilated_pairs: dict(seq_q=3, seq_k=4, left=1, step=2),
    costs.global_window_pairs: dict(seq=3, n_global=1, left=1, right=1), costs.block_pairs: dict(blocks=3, block_q=2, block_k=2),
    costs.shifted_window_pairs: dict(window=2, sides=[4, 5]), costs.two_level_pairs: dict(seq=9, near=1, block=2), costs.adaptive_span_pairs: dict(seq=9, spans=[1, 2]),
    costs.streaming_pairs: dict(seq=9, sinks=1, window=2), costs.top_k_block_cost: dict(heads=2, seq=9, dim_head=3, block_size=2, k=2, kv_heads=1, group=2, batch=1),
    costs.linear_attention_cost: dict(heads=2, seq=9, dim_features=3, dim_v=4, chunk=2, batch=1), costs.delta_rule_cost: dict(heads=2, seq=9, dim_head=3, dim_v=4, chunk=2, batch=1),
    costs.ring_steps: dict(seq=12, ranks=3), costs.ring_bytes: dict(ranks=3, kv_heads=2, seq=12, dim_head=4, dim_v=5, batch=1, bytes_per_number=2, bytes_per_gradient=4),
    costs.ulysses_bytes: dict(ranks=2, heads=4, seq=12, dim_head=3, kv_heads=2, dim_v=4, batch=1, bytes_per_number=2),
    costs.transformer_xl_cost: dict(seq=3, memory=4, dim=12, heads=2, batch=1), costs.compression_cost: dict(tokens=6, dim=3, rate=2, batch=1),
    costs.knn_memory_cost: dict(heads=2, seq=3, memory=9, k=2, dim_head=3, batch=1), costs.rnn_cost: dict(seq=3, dim=4, dim_in=5, batch=1),
    costs.gru_cost: dict(seq=3, dim=4, dim_in=5, batch=1), costs.lstm_cost: dict(seq=3, dim=4, dim_in=5, batch=1),
    costs.convolution_cost: dict(seq=3, dim=4, kernel=3, dim_in=5, batch=1), costs.mlp_cost: dict(tokens=3, dim=4, hidden=5),
    costs.block_cost: dict(seq=3, dim=12, heads=2, hidden=5, kv_heads=1, dim_head=4, pairs=6, batch=1), costs.decoder_block_cost: dict(seq=3, context=4, dim=12, heads=2, hidden=5, batch=1),
}
for each, right in RIGHT_COSTS.items():
    scalars = [name for name, size in right.items() if isinstance(size, int)]
    WRONG[each] = [(right | {name: wrong}, name, was) for name in scalars for wrong, was in ((-1, "-1"), (2.0, "float"))]
WRONG[costs.transformer_xl_cost].append((dict(seq=3, memory=4, dim=12, heads=5), "heads", "5"))
WRONG[costs.attention_layer_cost].append((dict(seq=3, dim=12, heads=5), "heads", "5"))
WRONG[costs.compression_cost].append((dict(tokens=7, dim=3, rate=2), "tokens", "7"))
WRONG[costs.shifted_window_pairs] += [(dict(sides=4, window=2), "sides", "int"), (dict(sides=[4, -1], window=2), "sides[1]", "-1")]
WRONG[costs.ring_steps] += [(dict(seq=9, ranks=3), "seq", "9"), (dict(seq=10, ranks=4, zigzag=False), "seq", "10"), (dict(seq=8, ranks=0), "ranks", "0")]
WRONG[costs.ring_bytes] += [(RIGHT_COSTS[costs.ring_bytes] | {"seq": 10}, "seq", "10"), (RIGHT_COSTS[costs.ring_bytes] | {"ranks": 0}, "ranks", "0")]
WRONG[costs.ulysses_bytes] += [(RIGHT_COSTS[costs.ulysses_bytes] | {name: 7}, name, "7") for name in ("heads", "kv_heads", "seq")]
WRONG[costs.meeting_point] = [(dict(rising=3, other=int), "rising", "int"), (dict(rising=int, other=None), "other", "NoneType")]
for each, tiles in {costs.causal_pairs: ("block_q", "block_k"), costs.block_pairs: ("block_q", "block_k"), costs.dilated_pairs: ("step",), costs.convolution_cost: ("kernel",),
                    costs.shifted_window_pairs: ("window",), costs.two_level_pairs: ("block",), costs.linear_attention_cost: ("chunk",),
                    costs.delta_rule_cost: ("chunk",), costs.compression_cost: ("rate",), costs.top_k_block_cost: ("block_size", "group")}.items():
    WRONG[each] += [(RIGHT_COSTS[each] | {name: 0}, name, "0") for name in tiles]
NOTHING_TO_GET_WRONG = {"costs.Cost", "masks.causal", "data.RealAttention", "data.RealHead", "data.RealLayer", "data.provenance", "data.real_layer"}

CALLS = [(f"{f.__module__.split('.')[1]}.{f.__name__}", lambda f=f, a=a: f(**a), blamed, was) for f, calls in WRONG.items() for a, blamed, was in calls]
CALLS += [(f"{f.__module__.split('.')[1]}.{f.__name__}", lambda f=f, a=a: f(*a), blamed, was) for f, calls in POSITIONAL.items() for a, blamed, was in calls]


def assert_refused(call, blamed, was):
    with pytest.raises((ValueError, TypeError)) as refusal:
        call()
    message = str(refusal.value)
    function, rest = message.split(": ", 1)                  # who complains comes first
    assert function.isidentifier(), message
    assert rest.startswith((f"{blamed} ", f"got no {blamed}")), message
    assert was in rest and "expected" in rest, message
    assert "\n" not in message and len(message) < 200, message


@pytest.mark.parametrize(("name", "call", "blamed", "was"), CALLS, ids=[f"{name}-{blamed}-{was}" for name, _, blamed, was in CALLS])
def test_a_wrong_call_is_refused_by_name(name, call, blamed, was):
    assert_refused(call, blamed, was)


def test_every_public_function_has_wrong_calls():
    public = {f"{room}.{name}" for room in ROOMS for name in importlib.import_module(f"attnlib.{room}").__all__}
    in_contracts = {variant.name.split(" (")[0] for variant in VARIANTS if variant.name.split(".")[0] in ROOMS}
    tried = {name for name, *_ in CALLS} | in_contracts | NOTHING_TO_GET_WRONG
    assert public == tried                                   # and nothing is listed that does not exist
    assert NOTHING_TO_GET_WRONG.isdisjoint({name for name, *_ in CALLS} | in_contracts)


TORCH_ROOMS = ("sparse", "hierarchy", "span", "linear", "memory", "cache")  # their own tests have more wrong calls
UNCHECKED = {
    "sparse.BlockMap",  # a record, made by block_map
    "memory.NearestMemory",  # every argument has a default
    # one chunk, called for every chunk by the functions that check
    "linear.linear_chunk", "linear.gated_chunk", "linear.delta_chunk", "linear.gated_delta_chunk", "linear.decayed_scores",
    "linear.in_chunks",
}


def nonsense(function):
    """Call a function with something that is no array and no number for every argument that it needs."""
    needed = [each for each in inspect.signature(function).parameters.values() if each.default is each.empty]
    by_name = {each.name: object() for each in needed if each.kind is each.KEYWORD_ONLY}
    return function(*(object() for each in needed if each.kind is not each.KEYWORD_ONLY), **by_name)


@pytest.mark.parametrize("name", [f"{room}.{name}" for room in TORCH_ROOMS
                                  for name in importlib.import_module(f"attnlib.{room}").__all__])
def test_functions_of_the_families_say_what_they_expected(name: str):
    room, _, own = name.partition(".")
    function = getattr(importlib.import_module(f"attnlib.{room}"), own)
    try:
        nonsense(function)
    except (TypeError, ValueError) as error:
        clear = own in str(error) and "expected" in str(error)
    except Exception:
        clear = False
    else:
        clear = False
    assert clear != (name in UNCHECKED), f"{name} does not say what came and what it expected"


def unchecked(q, k):
    return q @ k.T


def vague(q, k):
    raise ValueError("vague: shapes do not fit")


@pytest.mark.parametrize("function", [unchecked, vague])
def test_a_function_without_checks_is_caught(function):
    """Planted: NumPy's own complaint and a vague one do not pass for a good message."""
    with pytest.raises(AssertionError):
        assert_refused(lambda: function(zeros(5, 6), zeros(7, 4)), "k", "(7, 4)")


def test_a_wrong_call_that_passes_is_caught():
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        assert_refused(lambda: unchecked(zeros(5, 6), zeros(7, 6)), "k", "(7, 6)")


# --- the decorator -----------------------------------------------------------------------------------------------

@takes(x="float ... seq dim", w="float dim heads*width", heads="positive", shared="divides heads", mask="bool ... seq seq",
       pair="float dim, float width", scale="above 0")
def sample(x: np.ndarray, w: np.ndarray | None = None, heads: int = 1, shared: int | None = None, mask=None, pair: tuple = (0, 0), scale=1.0):
    """A docstring."""
    return "called"


@pytest.mark.parametrize("arguments", [
    dict(x=X), dict(x=X, w=zeros(12, 6), heads=3), dict(x=X, w=zeros(12, 6), heads=np.int64(2), shared=1), dict(x=zeros(12, 12), w=None),
    dict(x=X, mask=zeros(5, 5, dtype=bool)), dict(x=X, mask=zeros(5, dtype=bool)), dict(x=X, mask=zeros(1, 5, dtype=bool)),
    dict(x=X, mask=zeros(5, 1, dtype=bool)), dict(x=X, mask=np.array(True)), dict(x=X, mask=zeros(2, 1, 5, dtype=bool)),
    dict(x=X, mask=zeros(7, 1, 5, 5, dtype=bool)), dict(x=zeros(0, 12)), dict(x=X, pair=(zeros(12), 0)), dict(x=X, pair=[0.0, zeros(3)]),
    dict(x=X, w=zeros(12, 6), heads=2, pair=(zeros(12), zeros(3))), dict(x=X, scale=np.float32(2))])
def test_right_calls_pass(arguments):
    assert sample(**arguments) == "called"


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(x=X, w=zeros(12, 7), heads=3), "w has shape (12, 7), expected (dim, heads*width) with heads = 3"),
    (dict(x=X, w=zeros(11, 6)), "w has shape (11, 6), expected (dim, heads*width) with dim = 12, as in x"),
    (dict(x=X, w=zeros(12)), "w has shape (12,), expected (dim, heads*width)"),
    (dict(x=X, w=zeros(2, 12, 6)), "w has shape (2, 12, 6), expected (dim, heads*width)"),
    (dict(x=X, heads=3, shared=2), "shared is 2, expected a positive divisor of heads = 3"),
    (dict(x=X, mask=zeros(4, 5, dtype=bool)), "mask has shape (4, 5), expected one that broadcasts to (..., seq, seq) with seq = 5, as in x"),
    (dict(x=X, mask=zeros(3, 5, 5, dtype=bool)), "mask has leading axes (3,), expected axes that broadcast with (2,), as in x"),
    (dict(x=X, mask=zeros(5, 5)), "mask has dtype float64, expected bool, True where a query may attend"),
    (dict(x=X, pair=(0,)), "pair has 1 entries, expected 2"),
    (dict(x=X, pair=zeros(2)), "pair is of type ndarray, expected a tuple of 2"),
    (dict(x=X, pair=(zeros(11), 0)), "pair[0] has shape (11,), expected (dim,) with dim = 12, as in x"),
    (dict(x=X, pair=(1, 0)), "pair[0] is of type int, expected an array or tensor"),
    (dict(x=X, scale=0), "scale is 0, expected a number above 0"),
    (dict(x=X, w=zeros(12, 6, dtype="float32")), "w has dtype float32, expected float64, as in x"),
    (dict(x=torch.zeros(5, 12)), "x is of type Tensor, expected a numpy.ndarray"),
    (dict(x=X, w=torch.zeros(12, 6)), "w is of type Tensor, expected a numpy.ndarray"),
    (dict(x=None), "x is None, expected float ... seq dim"),
    (dict(x=X, heads=None), "heads is None, expected an int"),
])
def test_what_the_messages_say(arguments, message):
    with pytest.raises((ValueError, TypeError)) as refusal:
        sample(**arguments)
    assert str(refusal.value) == f"sample: {message}"


@pytest.mark.parametrize("arguments", [{}, {"y": 1}, {"x": X, "y": 1}])
def test_python_itself_names_missing_and_unknown_arguments(arguments):
    with pytest.raises(TypeError, match=r"'x'|'y'"):
        sample(**arguments)


def test_the_decorator_leaves_the_function_as_it_reads():
    assert sample.__doc__ == "A docstring." and sample.__name__ == "sample"
    assert list(inspect.signature(sample).parameters) == ["x", "w", "heads", "shared", "mask", "pair", "scale"]
    assert "return \"called\"" in inspect.getsource(sample)


def test_arrays_of_two_devices_are_refused():
    @takes(a="seq", b="seq")
    def pair(a, b): ...

    with pytest.raises(ValueError, match="pair: b has device meta, expected cpu, as in a"):
        pair(torch.zeros(3), torch.zeros(3, device="meta"))
