"""The small library behind the book *Self-Attention, Step by Step*.

room            what                                                                       needs
--------------  -------------------------------------------------------------------------  ------------------
reference       the truth: scores, softmax, attention, heads, online softmax               numpy
positions       sinusoids, rotary positions (RoPE), linear biases (ALiBi)                   numpy
masks           who may attend to whom, as predicates; how they combine and become arrays   numpy
costs           exact counts in Python ints: FLOPs, traffic, parameters, memory             numpy (std library)
layers          the same as torch modules: MHA, GQA, MQA, cross-attention                   torch
flash           exact attention in tiles, memory linear in the length; merging of parts    torch
kernels         Triton kernels for GPUs, and what they compile to, read without a GPU      torch, triton
ring            attention over several devices: keys and values go round                   torch
sparse          windows, dilated, global, blocks, chosen blocks: what is masked is skipped  torch
hierarchy       shifted windows and merging; near by in full, far away in summaries         torch
span            heads that learn how far back they look, and compute no further             torch
linear          linear attention, its gated and delta-rule kin: a state of fixed size       torch
memory          recurrence over segments, compressed and searched memories, sinks          torch
cache           generating: a KV cache allocated once, a streaming one with sinks           torch
measure         CPU time in turns and as ratios, peak memory, allocated bytes, records      torch
data            the book's running example: a real sentence in a real encoder's heads       numpy
plots           one figure, one function; the house style                                   matplotlib
widgets         figures that answer, in JupyterLab and on a page without a kernel           numpy, anywidget

Importing `attnlib` imports none of them: `from attnlib import masks, reference`.
"""
