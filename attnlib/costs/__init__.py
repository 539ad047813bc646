"""Exact counts in Python ints: FLOPs, traffic, parameters, activation memory. A multiplication and an addition are two FLOPs.

FLOPs cover matrix products only, as is usual; exponentials are counted apart, and chapter 14 measures what they
add. Python ints never overflow, also in a browser.

`Cost` holds the counts of one computation, forward and backward; costs add up. A pattern that skips scores is a
number of pairs (the functions whose names end so), which `attention_cost` and the layers around it take. Multiply `moved` and
`kept` by the bytes of a number.
"""

from attnlib.costs.attention import (
    attention_cost,
    attention_flops,
    attention_layer_cost,
    attention_layer_flops,
    attention_parameters,
    attention_steps,
    decode_cost,
    kv_cache_bytes,
)
from attnlib.costs.devices import ring_bytes, ring_steps, ulysses_bytes
from attnlib.costs.families import (
    compression_cost,
    delta_rule_cost,
    knn_memory_cost,
    linear_attention_cost,
    top_k_block_cost,
    transformer_xl_cost,
)
from attnlib.costs.networks import (
    block_cost,
    convolution_cost,
    decoder_block_cost,
    gru_cost,
    lstm_cost,
    meeting_point,
    mlp_cost,
    rnn_cost,
)
from attnlib.costs.patterns import (
    adaptive_span_pairs,
    block_pairs,
    causal_pairs,
    dilated_pairs,
    global_window_pairs,
    shifted_window_pairs,
    streaming_pairs,
    two_level_pairs,
    window_pairs,
)
from attnlib.costs.steps import Cost, linear_cost, matmul_cost, norm_cost, pointwise_cost, softmax_cost

__all__ = [
    "Cost",
    "adaptive_span_pairs",
    "attention_cost",
    "attention_flops",
    "attention_layer_cost",
    "attention_layer_flops",
    "attention_parameters",
    "attention_steps",
    "block_cost",
    "block_pairs",
    "causal_pairs",
    "compression_cost",
    "convolution_cost",
    "decode_cost",
    "decoder_block_cost",
    "delta_rule_cost",
    "dilated_pairs",
    "global_window_pairs",
    "gru_cost",
    "knn_memory_cost",
    "kv_cache_bytes",
    "linear_attention_cost",
    "linear_cost",
    "lstm_cost",
    "matmul_cost",
    "meeting_point",
    "mlp_cost",
    "norm_cost",
    "pointwise_cost",
    "ring_bytes",
    "ring_steps",
    "rnn_cost",
    "shifted_window_pairs",
    "softmax_cost",
    "streaming_pairs",
    "top_k_block_cost",
    "transformer_xl_cost",
    "two_level_pairs",
    "ulysses_bytes",
    "window_pairs",
]
