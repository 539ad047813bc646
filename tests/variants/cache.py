"""The cache room's variants: causal attention on plain tensors, and through the two caches, token by token and in chunks."""

import numpy as np
import torch

from attnlib import masks
from attnlib.cache import KVCache, StreamingCache, decode_attention
from tests.contracts import Variant, alike, torch_variant, untouched

ALL_SEEN = "attention is causal and the last query sees every key: none is hidden from all queries"
HIDDEN = {"6 NaN that nobody may see reaches no result": ALL_SEEN, "6 NaN that nobody may see reaches no gradient": ALL_SEEN}
NO_GRADIENTS = HIDDEN | dict.fromkeys(
    ["3 what a query may not see gets no gradient from it", "5 a query that sees nothing has zero gradients",
     "8 gradients match finite differences"],
    "a cache is for generating: it keeps keys and values without their gradients; those of decode_attention are tested above")


def decode(q, k, v, mask):
    if mask is not None:                                     # `causal`, the one mask that is asked for
        return decode_attention(q, k, v), None
    return one_by_one(q, k, v), None


def one_by_one(q, k, v):
    """Every query as if it were the newest: it sees all keys."""
    return torch.cat([q[:, :, :0] @ k.new_zeros(q.shape[-1], v.shape[-1]),
                      *(decode_attention(each, k, v) for each in q.split(1, dim=-2) if q.shape[-2])], -2)


def first_seen(q, k):
    """How many keys stand before the first query, and how many queries before the first key."""
    ahead = k.shape[-2] - q.shape[-2]
    return max(ahead, 0), max(-ahead, 0)


def through_kv_cache(q, k, v, predicate):
    """Prefill in two chunks, then three tokens together, then one by one."""
    assert predicate is None or alike(predicate, masks.causal)
    q, k, v = (torch.from_numpy(each) for each in (q, k, v))
    (batch, kv_heads, seq_k, dim_head), dim_v = k.shape, v.shape[-1]
    cache, (ahead, blind) = KVCache(batch, kv_heads, seq_k + 2, dim_head, dim_v, dtype=k.dtype), first_seen(q, k)
    cache.k.fill_(torch.nan), cache.v.fill_(torch.nan)       # what stands in places not yet taken reaches nothing
    if predicate is None:
        return one_by_one(q, *cache.append(k, v)).numpy(), None
    outs = [decode_attention(q[:, :, :blind], cache.keys, cache.values)]
    with untouched(q, k, v):
        for start, stop in ((0, ahead // 2), (ahead // 2, ahead)):
            cache.append(k[:, :, start:stop], v[:, :, start:stop])
        at = blind
        while at < q.shape[-2]:
            step = 3 if at == blind and q.shape[-2] - at >= 3 else 1
            new = slice(at + ahead - blind, at + ahead - blind + step)
            outs.append(decode_attention(q[:, :, at : at + step], *cache.append(k[:, :, new], v[:, :, new])))
            at += step
    return torch.cat(outs, -2).numpy(), None


def through_streaming_cache(q, k, v, predicate):
    """Two sinks and room for all tokens but those: nothing ever leaves, so attention is causal."""
    assert predicate is None or alike(predicate, masks.causal)
    q, k, v = (torch.from_numpy(each) for each in (q, k, v))
    (batch, kv_heads, seq_k, dim_head), dim_v = k.shape, v.shape[-1]
    cache = StreamingCache(batch, kv_heads, 2, max(seq_k - 2, 1), dim_head, dim_v, dtype=k.dtype)
    if predicate is None:
        cache.append(k, v)
        return one_by_one(q, cache.keys, cache.values).numpy(), None
    ahead, blind = first_seen(q, k)
    outs = [decode_attention(q[:, :, :blind], cache.keys, cache.values)]
    cache.append(k[:, :, :ahead], v[:, :, :ahead])
    for at in range(blind, q.shape[-2]):
        new = slice(at + ahead - blind, at + ahead - blind + 1)
        cache.append(k[:, :, new], v[:, :, new])
        outs.append(decode_attention(q[:, :, at : at + 1], cache.keys, cache.values))
    return torch.cat(outs, -2).numpy(), None


def bad_decode_calls():
    def z(*shape, dtype=torch.float64):
        return torch.zeros(shape, dtype=dtype)

    good = {"q": z(2, 6, 5, 8), "k": z(2, 3, 7, 8), "v": z(2, 3, 7, 4)}
    bad = [
        ("k", z(2, 3, 7, 9), "(2, 3, 7, 9)"), ("k", z(4, 3, 7, 8), "(4,)"),
        ("v", z(2, 3, 6, 4), "(2, 3, 6, 4)"), ("v", z(2, 1, 7, 4), "(2, 1, 7, 4)"), ("q", z(5, 8), "(5, 8)"),
        ("k", z(2, 3, 7, 8, dtype=torch.float32), "float32"), ("q", z(2, 6, 5, 8, dtype=torch.int64), "int64"),
        ("q", np.zeros((2, 6, 5, 8)), "ndarray"), ("q", [[0.0]], "list"), ("v", None, "None"), ("k", z(2, 3, 7, 8).to("meta"), "meta"),
    ]
    calls = [(lambda change={name: value}: decode_attention(**{**good, **change}), name, was) for name, value, was in bad]
    shared = z(2, 4, 7, 8), z(2, 4, 7, 4)
    return [*calls, (lambda: decode_attention(good["q"], *shared), "k", "4 heads")]


def bad_cache_calls():
    def z(*shape, dtype=torch.float32):
        return torch.zeros(shape, dtype=dtype)

    calls = []
    for make in (lambda **sizes: KVCache(**{**dict(batch=2, kv_heads=3, max_seq=5, dim_head=8, dim_v=4), **sizes}),
                 lambda **sizes: StreamingCache(**{**dict(batch=2, kv_heads=3, sinks=2, window=3, dim_head=8, dim_v=4), **sizes})):
        for name, value, was in (("batch", 0, "0"), ("kv_heads", 1.5, "float"), ("dim_head", 0, "0"), ("dim_v", "4", "str"),
                                 ("batch", None, "None")):
            calls.append((lambda make=make, sizes={name: value}: make(**sizes), name, was))
        for name, k, v, was in (
            ("k", z(2, 3, 1, 9), z(2, 3, 1, 4), "(2, 3, 1, 9)"), ("v", z(2, 3, 1, 8), z(2, 3, 1, 8), "(2, 3, 1, 8)"),
            ("v", z(2, 3, 2, 8), z(2, 3, 1, 4), "(2, 3, 1, 4)"), ("k", z(2, 6, 1, 8), z(2, 6, 1, 4), "(2, 6, 1, 8)"),
            ("k", z(1, 3, 1, 8), z(1, 3, 1, 4), "(1, 3, 1, 8)"), ("k", z(3, 1, 8), z(3, 1, 4), "(3, 1, 8)"),
            ("k", z(2, 3, 1, 8, dtype=torch.float64), z(2, 3, 1, 4, dtype=torch.float64), "float64"),
            ("k", np.zeros((2, 3, 1, 8), "float32"), z(2, 3, 1, 4), "ndarray"), ("k", None, z(2, 3, 1, 4), "None"),
        ):
            calls.append((lambda make=make, k=k, v=v: make().append(k, v), name, was))
    kv = dict(batch=1, kv_heads=1, max_seq=5, dim_head=2)
    return calls + [
        (lambda: KVCache(**{**kv, "max_seq": -1}), "max_seq", "-1"), (lambda: KVCache(**kv).append(z(1, 1, 6, 2), z(1, 1, 6, 2)), "k", "6 tokens"),
        (lambda: KVCache(**kv).rewind(1), "length", "1"), (lambda: KVCache(**kv).rewind(-1), "length", "-1"),
        (lambda: StreamingCache(1, 1, 0, 0, 2), "window", "0"), (lambda: StreamingCache(1, 1, -1, 1, 2), "sinks", "-1"),
    ]


def through(name, run, **about):
    return Variant(name, run, bad_cache_calls(), patterns=("full", "causal"), exempt=NO_GRADIENTS, **about)


VARIANTS = [
    torch_variant("cache.decode_attention", decode, patterns=("full", "causal"), exempt=HIDDEN, bad_calls=bad_decode_calls()),
    torch_variant("cache.decode_attention (grouped)", decode, heads=(6, 3), patterns=("full", "causal"),
                  exempt=HIDDEN, bad_calls=bad_decode_calls()),
    torch_variant("cache.decode_attention (multi-query)", decode, heads=(3, 1), patterns=("full", "causal"),
                  exempt=HIDDEN, bad_calls=bad_decode_calls()),
    through("cache.decode_attention (through KVCache)", through_kv_cache),
    through("cache.decode_attention (through KVCache, grouped)", through_kv_cache, heads=(6, 3)),
    through("cache.decode_attention (through StreamingCache)", through_streaming_cache, heads=(4, 2)),
]
