"""The book's running example: one sentence inside real heads of a pretrained encoder.

The numbers are all-MiniLM-L6-v2's own (Apache-2.0), extracted by `tools/extract_running_example.py`;
`minilm.json` beside this file holds where they come from and the checksums.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

__all__ = ["RealAttention", "RealHead", "RealLayer", "provenance", "real_attention", "real_head", "real_layer"]

_FOLDER = resources.files(__name__)
_LAYER0_HEADS = {"previous": 2, "same_word": 8}


@dataclass(frozen=True)
class RealHead:
    """One attention head of the encoder, reading the sentence.

    Attributes
    ----------
    name : str
        What the book calls it.
    layer, head : int
        Where it sits in the model, from 0.
    tokens : list of str
        The sentence's 15 tokens, ``[CLS]`` first and ``[SEP]`` last.
    x : (15, 384) float32
        Token vectors: the input of the layer.
    w_q, w_k, w_v : (384, 32) float32
        Projections, used as ``x @ w_q + b_q``.
    b_q, b_k, b_v : (32,) float32
        Their biases.
    weights : (15, 15) float32
        The attention weights the model itself computes.
    """

    name: str
    layer: int
    head: int
    tokens: list[str]
    x: np.ndarray
    w_q: np.ndarray
    w_k: np.ndarray
    w_v: np.ndarray
    b_q: np.ndarray
    b_k: np.ndarray
    b_v: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class RealLayer:
    """The whole attention of the encoder's first layer, and the vectors that enter it.

    Attributes
    ----------
    tokens : list of str
        The sentence's 15 tokens.
    x : (15, 384) float32
        Input of the layer: ``layer_norm(word_vectors + position_vectors + segment_vector)``.
    heads : int
        12, each 32 wide.
    w_q, w_k, w_v, w_o : (384, 384) float32
        Projections, used as ``x @ w``.
    b_q, b_k, b_v, b_o : (384,) float32
        Their biases.
    weights : (12, 15, 15) float32
        The model's own attention weights.
    out : (15, 384) float32
        The model's own result after the output projection, before the residual and the norm.
    word_vectors, position_vectors : (15, 384) float32
        Rows of the model's embedding tables for these tokens and positions.
    segment_vector, norm_scale, norm_shift : (384,) float32
        The rest of the embedding layer.
    norm_epsilon : float
        Added to the variance in the norm.
    """

    tokens: list[str]
    x: np.ndarray
    w_q: np.ndarray
    w_k: np.ndarray
    w_v: np.ndarray
    w_o: np.ndarray
    b_q: np.ndarray
    b_k: np.ndarray
    b_v: np.ndarray
    b_o: np.ndarray
    weights: np.ndarray
    out: np.ndarray
    word_vectors: np.ndarray
    position_vectors: np.ndarray
    segment_vector: np.ndarray
    norm_scale: np.ndarray
    norm_shift: np.ndarray
    norm_epsilon: float
    heads: int = 12


@dataclass(frozen=True)
class RealAttention:
    """What every head of the encoder does with the sentence.

    Attributes
    ----------
    tokens : list of str
        The sentence's 15 tokens.
    weights : (6, 12, 15, 15) float32
        The model's own attention weights, by layer and head.
    norms : (6, 12, 15) float32
        How long each token's value is when it reaches the result of the layer, ``‖(x w_v + b_v) w_o‖``, by layer and
        head. A weight times this length is how much the token adds (Kobayashi et al. 2020, "Attention is Not Only a
        Weight").
    """

    tokens: list[str]
    weights: np.ndarray
    norms: np.ndarray


def provenance() -> dict:
    """Where the running example comes from: model, licence, checksums, tokens, versions.

    Returns
    -------
    dict
    """
    return json.loads((_FOLDER / "minilm.json").read_text(encoding="utf-8"))


def real_head(name: str = "pronoun", ending: str = "tired") -> RealHead:
    """A head that does one easily told job, reading the running sentence.

    Parameters
    ----------
    name : {"pronoun", "sink", "previous", "same_word"}
        ``pronoun`` (layer 3, head 1): *it* and the first *the* look at *animal*;
        ``sink`` (layer 3, head 5): almost everything looks at ``[CLS]``;
        ``previous`` (layer 0, head 2): every token looks one to the left;
        ``same_word`` (layer 0, head 8): equal words look at each other.
    ending : {"tired", "wide"}
        The last word of the sentence; ``wide`` for the heads of layer 3 only.

    Returns
    -------
    RealHead

    Raises
    ------
    ValueError
        If there is no such head or ending.
    """
    if ending not in ("tired", "wide"):
        raise ValueError(f"real_head: ending is {ending!r}, expected 'tired' or 'wide'")
    about = provenance()
    if name in _LAYER0_HEADS:
        if ending == "wide":
            raise ValueError(f"real_head: ending is 'wide', expected 'tired': head {name!r} is stored for that sentence only")
        return _head_of_layer0(name, about)
    if name not in about["heads"]:
        raise ValueError(f"real_head: name is {name!r}, expected one of {sorted({*about['heads'], *_LAYER0_HEADS})}")
    arrays, suffix = _load("minilm_heads.npz"), "_wide" if ending == "wide" else ""
    own = {key: arrays[f"{name}/{key}"] for key in ("w_q", "w_k", "w_v", "b_q", "b_k", "b_v")}
    return RealHead(name, **about["heads"][name], tokens=about["tokens" + suffix], x=arrays["x" + suffix],
                    weights=arrays[f"{name}/weights{suffix}"], **own)


def real_layer() -> RealLayer:
    """The attention of the encoder's first layer, whole: 12 heads and the output projection.

    Returns
    -------
    RealLayer
    """
    about = provenance()
    return RealLayer(tokens=about["tokens"], norm_epsilon=about["norm_epsilon"], **_load("minilm_layer0.npz"))


def real_attention(ending: str = "tired") -> RealAttention:
    """All 72 heads of the encoder, reading the running sentence.

    Parameters
    ----------
    ending : {"tired", "wide"}
        The last word of the sentence.

    Returns
    -------
    RealAttention

    Raises
    ------
    ValueError
        If there is no such ending.
    """
    if ending not in ("tired", "wide"):
        raise ValueError(f"real_attention: ending is {ending!r}, expected 'tired' or 'wide'")
    suffix, arrays = "_wide" if ending == "wide" else "", _load("minilm_attention.npz")
    return RealAttention(provenance()["tokens" + suffix], arrays["weights" + suffix], arrays["norms" + suffix])


def _head_of_layer0(name, about):
    layer, head = real_layer(), _LAYER0_HEADS[name]
    columns = slice(head * 32, (head + 1) * 32)
    own = {f"w_{c}": getattr(layer, f"w_{c}")[:, columns] for c in "qkv"}
    own |= {f"b_{c}": getattr(layer, f"b_{c}")[columns] for c in "qkv"}
    return RealHead(name, layer=0, head=head, tokens=about["tokens"], x=layer.x, weights=layer.weights[head], **own)


@cache
def _load(name):
    with np.load(_FOLDER / name) as arrays:
        loaded = {key: arrays[key] for key in arrays.files}
    for array in loaded.values():
        array.flags.writeable = False  # shared between callers
    return loaded
