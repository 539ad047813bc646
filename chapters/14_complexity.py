# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # What does a layer cost?
#
# "Attention is quadratic, an RNN is linear." Both are true, and neither tells you which of the two is cheaper for your sentence. In this chapter you count
# exactly what attention, recurrent networks and convolutions compute, move and keep; you find the lengths at which one overtakes the other;
# and then you run them all: where the counts predict the clock, where they put the meeting of two layers wrong by more than a factor of five, and which second model does better.
#
# :::{admonition} Before you start
# :class: note
# **You need** chapters 5 and 6 (the layer, its heads) and a little PyTorch: modules, `torch.no_grad`. **You will build** a cost model in exact whole numbers, a counter of memory
# traffic, and a predictor of time from measured rates. **Time** about 100 minutes. {numref}`fig-meetings` shows where we are going.
# :::

# %%
import json
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from attnlib import costs, measure
from attnlib.costs import Cost, softmax_cost
from attnlib.plots import complexity as plots

torch.manual_seed(0)
np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# ## What does one product cost?
#
# Nearly all the work of a network is in matrix products, so we count those. Take a (3, 4) by a (4, 5) matrix: 15 results, each a sum of 4 products. By convention a multiplication and an
# addition are two {term}`FLOPs <FLOP>`, also where the first addition is to zero.

# %%
rows, inner, columns = 3, 4, 5
flops = 0
for _ in range(rows * columns):
    for _ in range(inner):
        flops += 2  # one multiplication, one addition
print(flops, "=", 2 * rows * inner * columns)

# %% [markdown]
# FLOPs are not the only cost. The product reads both factors from memory and writes its result: that is its *traffic*. If we train, both factors must be *kept* until the backward pass. And what does that pass
# compute? Call the factors $A$ and $B$, the product $C = AB$ and the gradient of the loss with respect to it $\bar C$.
#
# :::{dropdown} Your prediction, then ours
# Twice the forward pass. $\bar A = \bar C B^\top$ and $\bar B = A^\top \bar C$ are two products of the same three sizes.
# :::
#
# Write it down once, as a function from sizes to counts. `Cost` is a record of such counts that can be added up; the numbers are plain Python ints, which are exact and never overflow.

# %%
def matmul_cost(rows, inner, columns, copies=1):
    flops = 2 * copies * rows * inner * columns
    factors = copies * (rows * inner + inner * columns)
    moved = factors + copies * rows * columns
    return Cost(
        flops, 2 * flops, moved=moved, backward_moved=2 * moved, kept=factors
    )


matmul_cost(3, 4, 5)

# %% [markdown]
# 47 numbers cross: 12 + 20 are read, 15 written. The backward pass moves the same three arrays once for each of its two products. (What the other entries count comes later.) This is `attnlib.costs.matmul_cost`. Ask PyTorch, which has a counter of its own:

# %%
a, b = torch.randn(3, 4).requires_grad_(), torch.randn(4, 5).requires_grad_()
forward = measure.flops(lambda: a @ b)
both = measure.flops(lambda: (a @ b).sum().backward())
print("forward", forward, " backward", both - forward)

# %% [markdown]
# ## Where is the square?
#
# Attention over $n$ queries and $n$ keys is two products for each head: $QK^\top$, and the weights times $V$.

# %%
def attention_flops(heads, seq_q, seq_k, dim_head, dim_v=None):
    dim_v = dim_head if dim_v is None else dim_v
    return 2 * heads * seq_q * seq_k * (dim_head + dim_v)


for n in (128, 256, 512, 1024):
    print(n, f"{attention_flops(4, n, n, 64) / 1e6:6.0f} MFLOP")

# %% [markdown]
# In this chapter $d$ is the width of the *layer* ($D$ elsewhere in this book), because the formulas are known with that letter. With $h$ heads of width $d/h$ the two products take $4n^2d$, whatever the number of heads. It is `attnlib.costs.attention_flops`. But the layer also has four projections, each $n$ rows by a $d \times d$ matrix: $8nd^2$ FLOPs. Together
#
# $$\text{self-attention} = \underbrace{8nd^2}_{\text{projections}} + \underbrace{4n^2d}_{\text{scores, values}}$$
#
# So the layer is *linear* in $n$ at first and quadratic later. At which length do the two parts weigh the same, for $d = 256$? And doubling $n$ there: by which factor does the cost grow, two or four?

# %%
def scores(n):
    return attention_flops(4, n, n, 64)


def layer(n):
    return costs.attention_layer_flops(n, dim=256, heads=4)


even = costs.meeting_point(scores, lambda n: layer(n) - scores(n))
print(f"n = {even}; doubled: {layer(2 * even) / layer(even)} times the FLOPs")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# $4n^2d = 8nd^2$ at $n = 2d$, exactly. Doubling from there costs three times as much: half of the cost doubles, the other half grows fourfold. (`meeting_point` searches the first whole $n$ at which one cost is no longer below
# the other.)
# :::
#
# In a transformer block an MLP follows the layer: two matrices, $d \times 4d$ and $4d \times d$, so $16nd^2$ more. And a causal mask forbids half of the pairs, which a kernel can skip. Where does the quadratic part pass all the rest now? (`pairs` says how many scores each head computes: all $n^2$ if it is not given, none if it is 0.)

# %%
def rest(n):
    return costs.block_cost(n, dim=256, heads=4, pairs=0).flops  # 24nd²


def skipped(n):
    return costs.attention_cost(4, n, n, 64, pairs=costs.causal_pairs(n)).flops


print("block:", costs.meeting_point(scores, rest))
print("causal:", costs.meeting_point(skipped, rest))

# %% [markdown]
# At $n = 6d$, and at $12d$ less one token if the future is skipped, for $n(n+1)/2$ pairs are left of $n^2$.
#
# So "quadratic" is what happens in the limit. For the layer alone, the slope of the cost on a log–log scale, which is the exponent you would fit there, moves from 1 to 2, and at $n = 2d$ it is 1.5:

# %%
for n in (even // 16, even, 16 * even):
    fitted = measure.slope([n, n + 1], [layer(n), layer(n + 1)])
    print(f"n = {n:5}: exponent {fitted.exponent:.2f}")

# %% [markdown]
# ## Is attention cheaper than an RNN?
#
# A plain recurrent layer, $h_t = \tanh(x_t W + h_{t-1} U)$, has two $d \times d$ products a token: $4nd^2$. A GRU {cite}`cho2014` has three such pairs (two gates and a candidate for the new state), an LSTM {cite}`hochreiter1997` in today's form, with a forget gate, four. A convolution that looks
# at three neighbours has one product with a $3d \times d$ matrix. Before you run the cell: from which length on is attention the most expensive of all? Is it ever the cheapest?

# %%
D = 256
rivals = {
    "LSTM": lambda n: costs.lstm_cost(n, D).flops,
    "GRU": lambda n: costs.gru_cost(n, D).flops,
    "convolution": lambda n: costs.convolution_cost(n, D, kernel=3).flops,
    "RNN": lambda n: costs.rnn_cost(n, D).flops,
}
for name, rival in rivals.items():
    n = costs.meeting_point(layer, rival)
    each = rival(1) // D**2
    print(f"{name:11} {each:2}nd²; attention costs as much or more from n = {n} on")

# %% mystnb={"image": {"alt": "FLOPs per token against 16 to 4096 tokens, log–log. Four horizontal dashed lines, in squared widths: RNN at 4, convolution at 6, GRU at 12, LSTM at 16. The line of attention starts just above 8, stays nearly flat to 100 tokens, then rises; it crosses the GRU at 256 and the LSTM at 512 tokens and ends at 72 for 4096."}, "figure": {"caption": "FLOPs per token, width 256. Recurrence and convolution pay the same for every token. Attention’s price per token grows with the length, and even for a single token it is above that of a plain RNN.", "name": "fig-flops-by-length"}}
lengths = [2**i for i in range(4, 13)]
per_token = {
    name: [flops(n) / n / D**2 for n in lengths]
    for name, flops in {**rivals, "attention": layer}.items()
}
points = {"n = d": (D, 12), "n = 2d": (2 * D, 16)}
plots.flops_by_length(lengths, per_token, points)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Attention is below an LSTM for $n < 2d$ and below a GRU for $n < d$. It is **never** below a plain RNN or this convolution: its projections alone cost $8nd^2$. So from $2d$ on it is the most expensive of the five, and the cheapest at no length.
# :::
#
# You may have read that a self-attention layer is cheaper than a recurrent one as soon as $n < d$. The table that says so {cite}`vaswani2017` lists $O(n^2 d)$ for the one and $O(n d^2)$ for the other: orders of growth, without constants, and without
# the projections, which are $O(nd^2)$ as well. As orders both entries stand. As prices they mislead.
#
# ## Does the program do what we counted?
#
# Counting formulas is cheap; count a running program. Our attention layer takes its core as an argument: `naive` is the textbook's three lines, `fused` is PyTorch's function for the same.

# %%
def naive(q, k, v):
    q = q / q.shape[-1] ** 0.5  # (batch, heads, seq, dim_head)
    return torch.softmax(q @ k.mT, dim=-1) @ v


fused = F.scaled_dot_product_attention

# %%
class Layer(nn.Module):
    def __init__(self, dim, heads, core):
        super().__init__()
        self.heads, self.core = heads, core
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        qkv = self.to_qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (batch, heads, seq, dim_head)
        out = self.core(q, k, v)
        out = out.transpose(1, 2).flatten(-2)  # (batch, seq, dim)
        return self.to_out(out)

# %% [markdown]
# Beside the two layers we build their rivals, and the parts that we shall want to time alone: `rest` is a block without its scores, that is projections and MLP; `core` is scores and values only. (There one array serves as $Q$, $K$ and $V$, which changes no cost.)

# %%
def build(dim, heads):
    kinds = (nn.LSTM, nn.GRU, nn.RNN)
    made = {kind.__name__: kind(dim, dim, batch_first=True) for kind in kinds}
    made["naive"] = Layer(dim, heads, naive)
    made["fused"] = whole = Layer(dim, heads, fused)
    conv = nn.Conv1d(dim, dim, 3, padding=1)
    up, down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def core(x):
        each = x.unflatten(-1, (heads, -1)).transpose(1, 2)
        return fused(each, each, each)

    made["convolution"] = lambda x: conv(x.mT)
    made["projections"] = lambda x: (whole.to_qkv(x), whole.to_out(x))
    made["rest"] = lambda x: (*made["projections"](x), down(F.gelu(up(x))))
    made["core"] = core
    return made

# %% [markdown]
# And to each name its cost, a function of length, width, heads and batch.

# %%
attention = costs.attention_layer_cost
COSTS = {
    "LSTM": lambda n, d, h, b: costs.lstm_cost(n, d, batch=b),
    "GRU": lambda n, d, h, b: costs.gru_cost(n, d, batch=b),
    "RNN": lambda n, d, h, b: costs.rnn_cost(n, d, batch=b),
    "naive": lambda n, d, h, b: attention(n, d, h, batch=b),
    "fused": lambda n, d, h, b: attention(n, d, h, fused=True, batch=b),
    "convolution": lambda n, d, h, b: costs.convolution_cost(n, d, 3, batch=b),
    "projections": lambda n, d, h, b: attention(n, d, h, pairs=0, batch=b),
    "rest": lambda n, d, h, b: costs.block_cost(n, d, h, pairs=0, batch=b),
    "core": lambda n, d, h, b: costs.attention_cost(h, n, n, d // h, batch=b),
}

# %% [markdown]
# Now the counter of PyTorch, which watches every operation that is executed and looks up a formula for it in a table. Some of our nine run as one large operation. What can go wrong?

# %%
made, x = build(D, heads=4), torch.randn(1, 100, D)
for name, module in made.items():
    with FlopCounterMode(display=False) as counter:
        module(x)
    ours, theirs = COSTS[name](100, D, 4, 1).flops, counter.get_total_flops()
    print(f"{name:11} ours {ours:11,}  PyTorch's {theirs:11,}",
          "" if ours == theirs else "  <--")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Six agree to the last digit. For the LSTM PyTorch counts **zero**, for the fused core too, and so for the fused layer only its projections. These run as single operations (the LSTM in the library oneDNN, attention in a kernel for CPUs) that the counter has no formula for,
# and what it does not know it counts as nothing, without a warning. (A build of PyTorch without oneDNN sees the LSTM's products, and the first arrow is gone.)
# :::
#
# A profile that shows an LSTM as free is the classic way to fool oneself here. So make the unknown operations known. `measure.flops` hands the counter the formula for fused attention; and in float64 the LSTM takes another road, through products that the counter sees.

# %%
fused_count = measure.flops(lambda: made["fused"](x))
lstm_64 = nn.LSTM(D, D, batch_first=True).double()
lstm_count = measure.flops(lambda: lstm_64(x.double()))
assert fused_count == COSTS["fused"](100, D, 4, 1).flops
assert lstm_count == COSTS["LSTM"](100, D, 4, 1).flops
print(f"fused {fused_count:,}   LSTM {lstm_count:,}")

# %% [markdown]
# ## What is moved, and what is kept?
#
# A processor computes faster than memory delivers. So count the numbers that cross between the two. Naive attention has three steps, and each reads its inputs from memory and leaves its result there {cite}`dao2022`:

# %%
def attention_steps(heads, seq_q, seq_k, dim_head, dim_v=None, *, batch=1):
    dim_v = dim_head if dim_v is None else dim_v
    copies = batch * heads
    weights_kept = Cost(kept=-copies * seq_q * seq_k)  # not counted twice
    return {
        "scores": matmul_cost(seq_q, dim_head, seq_k, copies),
        "softmax": softmax_cost(copies * seq_q, seq_k),
        "values": matmul_cost(seq_q, seq_k, dim_v, copies) + weights_kept,
    }


steps = attention_steps(heads=4, seq_q=1024, seq_k=1024, dim_head=64)
for name, step in (steps | {"all": sum(steps.values())}).items():
    print(f"{name:8} {step.flops / 1e6:5.0f} MFLOP,",
          f"{4 * step.moved / 2**20:5.1f} MiB moved,",
          f"{step.intensity():5.1f} FLOP/byte,",
          f"{4 * step.kept / 2**20:5.1f} MiB kept")

# %% [markdown]
# It is `attnlib.costs.attention_steps`; each number is 4 bytes in float32. The map of scores, 16 MiB for the 4 heads, crosses four times: written, read, written as weights, read. The third column says how many FLOPs there are
# for each byte, the {term}`arithmetic intensity`; softmax has none, by our convention.
#
# Does the program run the steps of the list, and no others? Watch the operations once more, and add up the sizes of what each reads and writes. (Operations that only look differently at the same memory are free. How much of this really goes to memory and how much a cache spares, nobody sees from outside an operation.)

# %%
FREE = ("view", "expand", "transpose", "unsqueeze", "squeeze", "permute",
        "split", "chunk", "unbind", "select", "slice", "aten.t.")


class Traffic(TorchDispatchMode):
    moved = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not any(word in str(function) for word in FREE):
            every = torch.utils._pytree.tree_leaves((args, result))
            self.moved += sum(t.numel() for t in every if torch.is_tensor(t))
        return result


def moved(program, *inputs):
    with torch.no_grad(), Traffic() as traffic:
        program(*inputs)
    return traffic.moved

# %%
q, k, v = torch.randn(3, 1, 4, 1024, 64)  # (batch, heads, seq, dim_head) each
listed = sum(steps.values()).moved
print(f"program {moved(naive, q, k, v):,}   list {listed:,}")
assert moved(naive, q, k, v) == listed + 2 * q.numel()  # q is scaled

# %% [markdown]
# The program moves what the list says, and the scaled queries. A fused kernel can do without the map: it computes the scores of a small tile, uses them, and forgets them. At the least it reads $Q, K, V$ once and writes the result and one number for each row.
# By which factor is that less, for this head?

# %%
whole = costs.attention_cost(4, 1024, 1024, 64)
tiled = costs.attention_cost(4, 1024, 1024, 64, fused=True)
assert whole == sum(steps.values()) and whole.flops == tiled.flops
print(f"moved: {whole.moved / tiled.moved:.0f} times less,",
      f"kept: {whole.kept / tiled.kept:.1f} times less")
print("backward FLOPs:", tiled.backward_flops / whole.backward_flops, "times")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# 17 times. The naive one moves $4n^2$ numbers a head besides its inputs; the fused one has nothing that grows with $n^2$ to move. It is still $4n^2d$ FLOPs: *fused does not mean linear time*. And it pays for what it does not keep: in the
# backward pass the scores are computed again, five products instead of four.
# :::
#
# This least traffic is a bound and not a measurement: a kernel whose tiles do not fit in fast memory reads $K$ and $V$ several times (a later part counts how often). But for each *operation* we can compare. All six layers, counted and seen, and the exponent of what is seen from 256 to 1024 tokens:

# %%
SIX = ("naive", "fused", "LSTM", "GRU", "RNN", "convolution")
for name in SIX:
    seen = [moved(made[name], torch.randn(1, n, D)) for n in (256, 1024)]
    listed = COSTS[name](1024, D, 4, 1).moved
    print(f"{name:11} counted {4 * listed / 2**20:6.1f} MiB,",
          f"seen {4 * seen[1] / 2**20:5.1f},",
          f"exponent {measure.slope([256, 1024], seen).exponent:.2f}")

# %% [markdown]
# With half of the FLOPs of the fused layer the GRU moves more than seventy times its bytes: its three matrices $U$, $3 \cdot 256^2$ numbers or 0.75 MiB together, are read again for each of the 1024 tokens. Our count for the LSTM says the same, but seen from outside its one operation reads the matrices once; what it keeps in fast memory inside, no count of ours can know. We shall see it in the time.
# (Where the exponent lies below 1, matrices that are read once still outweigh the tokens. The naive layer moves a little more than its list because it copies $Q$, $K$ and $V$ into order and scales $Q$.)
#
# What we can measure exactly is **memory**: the most bytes of tensors alive at any one time. Predict the naive forward pass: how many maps of
# $4hn^2$ bytes exist at once?

# %%
def peaks(core, n):
    q, k, v, grad_out = torch.randn(4, 1, 4, n, 64)
    inputs = [each.requires_grad_() for each in (q, k, v)]
    grad = torch.autograd.grad
    forward = measure.allocated_bytes(torch.no_grad()(partial(core, q, k, v)))
    both = measure.allocated_bytes(lambda: grad(core(*inputs), inputs, grad_out))
    return forward, both


sizes = [256, 512, 1024, 2048]
peak = {each: np.array([peaks(each, n) for n in sizes])
        for each in (naive, fused)}
for n, peaks_of_n in zip(sizes, peak[naive], strict=True):
    in_maps = peaks_of_n / (4 * 4 * n**2)
    print(f"n = {n:4}: forward {in_maps[0]:.2f} maps,",
          f"with backward {in_maps[1]:.2f}")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Two: softmax reads the scores while it writes the weights. With the backward pass three: the kept weights, their gradient, and that of the scores. (The rest, less and less, are arrays of the size of $Q$.)
# :::

# %%
one_map = 4 * 4 * np.array(sizes) ** 2  # bytes, 4 heads
like_q = 4 * 4 * np.array(sizes) * 64   # bytes of Q, K, V or the result
predicted = {
    "naive forward": 2 * one_map + like_q,            # Q, scaled
    "naive with backward": 3 * one_map + 3 * like_q,  # + result, a gradient
    "fused forward": like_q * 65 / 64,                # result, log-sum-exp
    "fused with backward": 5 * like_q,                # + four gradients
}

# %% tags=["nbval-ignore-output"]
measured = {
    "naive forward": peak[naive][:, 0],
    "naive with backward": peak[naive][:, 1],
    "fused forward": peak[fused][:, 0],
    "fused with backward": peak[fused][:, 1],
}
for name, values in measured.items():
    print(f"{name:20} slope {measure.slope(sizes, values).exponent:.2f}",
          " measured / predicted:", np.round(values / predicted[name], 2))
    rtol, atol = (0, 64) if "naive" in name else (1, 0)  # kernel's scratch
    assert np.allclose(values, predicted[name], rtol, atol)

# %% mystnb={"image": {"alt": "Bytes allocated at most, from 256 to 2048 tokens, log–log. The two naive lines rise with slope 2 from 2 and 4 MiB to 130 and 200 MiB, points on the lines. The two fused lines rise with slope 1 from 0.3 and 1.4 MiB to 2.6 and 11 MiB."}, "figure": {"caption": "Naive attention needs two maps of n² numbers, three with the backward pass, predictable almost to the byte; fused attention needs arrays of the size of its inputs, and scratch space that no line contains. Lines: predicted, points: measured.", "name": "fig-memory-by-length"}}
plots.memory_by_length(sizes, measured, predicted)
plt.show()

# %% [markdown]
# The naive predictions hold to within 64 bytes. The fused kernel allocates scratch space beside its results: less than they take themselves, and how much depends on the length and the processor. (That the slopes fitted for naive attention stay below 2 is no error of measurement: at 256 tokens the arrays of size $n$ still
# count.) And does the operating system see the same? By how much a fresh process grows was recorded with the times that you will meet below, to about 1 MiB:

# %%
with open("data/14_complexity.json") as file:
    record = json.load(file)
for name, grown in record["peak_bytes"].items():
    words = [f"{n}: {each / 2**20:.0f} MiB" for n, each in grown.items()]
    exponent = measure.slope([*map(int, grown)], [*grown.values()]).exponent
    print(f"{name:5} forward,", ", ".join(words), f"  slope {exponent:.2f}")

# %% [markdown]
# (The fused core grows a process by so few MiB that the resolution bends its slope.)
#
# Over a whole network, activation memory is what is *kept*. Large transformers drop the maps and compute them again rather than keep them {cite}`korthikanti2022`, as fused attention does by itself. For a block of width 256:

# %%
for n in (256, 1024, 4096):
    kept = [4 * costs.block_cost(n, D, 4, fused=way).kept / 2**20
            for way in (False, True)]
    print(f"n = {n:4}: {kept[0]:6.1f} MiB kept naively, {kept[1]:5.1f} fused")

# %% [markdown]
# ## How long does it take?
#
# The simplest model of time: FLOPs divided by **one rate**, that of a large matrix product. All measurements here are CPU time on one thread, several programs in turns and medians, so that another program on the machine disturbs all alike.

# %%
def run_all(made, lengths, dim, batch=1, repeats=5, largest=2**27):
    times = {}
    for n in lengths:
        x = torch.randn(batch, n, dim)
        calls = {name: torch.no_grad()(partial(module, x))
                 for name, module in made.items()}
        if 16 * batch * n**2 > largest:  # bytes of 4 maps
            del calls["naive"]
        times[n] = measure.cpu_times(calls, repeats, matmul=512)
    return times


# %% tags=["nbval-ignore-output"]
lengths = [128, 256, 512, 1024, 2048]
times = run_all(made, lengths, D)
rates = np.array([measure.matmul_rate(times[n]) for n in lengths])
rate = np.median(rates)
print(f"one product of 512 × 512 matrices: {rate / 1e9:.0f} GFLOP/s")
assert 1e9 < rate < 1e13  # FLOP/s, plausible for one core

# %% [markdown]
# How far is each program from that rate, and with which exponent does it grow? Predict first: which of the six will be worst?

# %% tags=["nbval-ignore-output"]
off = {}
print(" " * 12, "time / (FLOPs / rate)       exponent: counted, timed")
for name in SIX:
    seconds = [measure.medians(times[n])[name] for n in lengths]
    flops = [COSTS[name](n, D, 4, 1).flops for n in lengths]
    off[name] = np.array(seconds) * rates / flops  # each length has its rate
    exponents = [round(measure.slope(lengths, each).exponent, 2)
                 for each in (flops, seconds)]
    print(f"{name:11}", np.round(off[name], 1), "   ", exponents)
assert off["fused"][-1] < 3  # near the rate
assert off["GRU"][-1] > 2    # far from it

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# One rate is a good model of the fused layer and of the convolution, and wrong by factors for the recurrent layers: the GRU and the plain RNN take several times as long as their FLOPs would. The GRU, with three quarters of the LSTM's FLOPs, takes *longer* than the LSTM.
# And the naive layer loses its rate on the longest texts: its exponent lies above the counted one. You will see why when we time exponentials.
# :::
#
# A script has run the same programs at three widths and up to longer texts, and its record is stored with the book. Each length has the rate of the product that was timed in the same rounds, as the machine is not equally fast at all times. (Where the naive layer ends, its maps pass the 128 MiB that `run_all` allows.) Width 256:

# %%
print(record["device"], "\n" + record["date"], record["versions"])

# %% mystnb={"image": {"alt": "Six panels, milliseconds against tokens from 128 to 4096, log–log, each with a grey dashed prediction. Naive lies above its prediction, most at 2048, its last point. Fused and convolution stay close to theirs. LSTM lies two times above or more, GRU and RNN about four times or more, roughly parallel to it."}, "figure": {"caption": "Time of one layer of width 256, one sequence, against FLOPs divided by the rate of one large product (dashed). The rate fits where the work is a few large products, and fails where it is many small ones, or large arrays made anew.", "name": "fig-times-by-length"}}
run = record["runs"]["d=256 batch=1"]
sizes = run["lengths"]
recorded = run["seconds"]
rates = 2 * 512**3 / np.array(recorded["matmul"])  # timed in the same rounds
predicted = {
    name: np.array([COSTS[name](n, D, 4, 1).flops for n in sizes]) / rates
    for name in SIX
}
measured = {name: recorded[name] for name in SIX}
plots.times_by_length(sizes, measured, predicted)
plt.show()

# %% [markdown]
# ## Why does a recurrent step run slowly?
#
# For one sequence, a step multiplies one row of 256 numbers with a matrix: every number of the matrix is read for two FLOPs, where a product of 256 rows gets 512 out of it. Let the number of rows grow, which is the *batch*. Guess before you run: at 4 rows, at 16 or at 64, does a step have half of the rate of the largest?

# %% tags=["nbval-ignore-output"]
u, calls = torch.randn(D, 4 * D), {}
for batch in (1, 4, 16, 64, 256):
    calls[batch] = partial(torch.mm, torch.randn(batch, D), u)
step_seconds = measure.medians(measure.cpu_times(calls, 7))
for batch, seconds in step_seconds.items():
    cost = costs.linear_cost(batch, D, 4 * D)
    print(f"batch {batch:3}: {cost.flops / seconds / 1e9:6.1f} GFLOP/s,",
          f"{cost.intensity():5.1f} FLOP/byte")
assert 64 * step_seconds[1] > 2 * step_seconds[64]  # one by one is slower

# %% [markdown]
# One row runs at a fraction of the rate; sixty-four are enough for most of it. So a model that knows the rate of one large product cannot know what a step costs. (PyTorch's LSTM hands the whole sequence to oneDNN as one operation, which can prepare the matrix once for all steps; its GRU and RNN call ordinary operations one after the other, for every token.)
#
# A batch is what recurrent networks need to be fast. Attention over one sequence brings its own: all its tokens are rows of the same product.
#
# ## Where do they meet in time?
#
# FLOPs said: scores pass projections at $n = 2d = 512$; in a whole block, with its MLP of $16nd^2$, at $n = 6d = 1536$. An attention layer passes an LSTM at 512, a GRU at 256, and is never below a plain RNN. To look between the lengths we have timed, take at each the logarithm of *time of the first / time of the second*: it is negative while the first is faster. Between the two lengths where the sign changes, draw a straight line over $\log n$; where it is zero, they meet. (`measure.ratios` divides within each round, so what slows a whole round cancels.)

# %%
PAIRS = {
    "scores pass projections": ("core", "projections"),
    "scores pass the rest of a block": ("core", "rest"),
    "attention passes an LSTM": ("fused", "LSTM"),
    "attention passes a GRU": ("fused", "GRU"),
    "attention passes an RNN": ("fused", "RNN"),
}

# %%
def meets(times, first, second):
    lengths = list(times)
    logs = [np.log(measure.ratios(times[n], to=second)[first].median)
            for n in lengths]
    if logs[0] >= 0:
        return lengths[0]  # or before
    for i in range(1, len(lengths)):
        if logs[i - 1] < 0 <= logs[i]:  # from here on the first takes longer
            share = logs[i - 1] / (logs[i - 1] - logs[i])
            return lengths[i - 1] * (lengths[i] / lengths[i - 1]) ** share
    return None  # beyond the longest

# %% [markdown]
# And predict better. Keep the formulas, but give each piece **its own rate**, measured on *short* sequences only, of one width of tokens (and a recurrent layer of half a width too, to tell its start from its tokens): a projection costs so much a token, the scores so much a pair, a recurrent layer so much for a start
# and so much a token. Then ask where these lines meet, far beyond the lengths they were measured at. (All short runs are timed in turns: what two runs differ by is easily lost in what else the machine does.)

# %%
def from_rates(made, dim, batch=1, repeats=15):
    short, long, calls = dim // 2, dim, {}
    for n in (short, long):
        x = torch.randn(batch, n, dim)
        for name in ("projections", "rest", "core", "LSTM", "GRU", "RNN"):
            calls[name, n] = torch.no_grad()(partial(made[name], x))
    t = measure.medians(measure.cpu_times(calls, repeats))
    model = {name: (0, t[name, long] / long, 0)
             for name in ("projections", "rest")}
    model["core"] = (0, 0, t["core", long] / long**2)
    model["fused"] = tuple(np.add(model["core"], model["projections"]))
    for name in ("LSTM", "GRU", "RNN"):
        token = (t[name, long] - t[name, short]) / (long - short)
        model[name] = (max(0, t[name, long] - token * long), token, 0)
    return model  # name -> seconds at the start, per token, per pair

# %%
def seconds_of(parts, n):
    return parts[0] + parts[1] * n + parts[2] * n**2


# %%
def all_meetings(times, model, dim, heads, batch=1):
    def flops_of(name, n):
        return COSTS[name](n, dim, heads, batch).flops

    found = {}
    for name, pair in PAIRS.items():
        counted = [partial(flops_of, each) for each in pair]
        timed = [partial(seconds_of, model[each]) for each in pair]
        found[name] = {
            "counted": costs.meeting_point(*counted),
            "from rates": costs.meeting_point(*timed, most=10**6),
            "measured": meets(times, *pair),
        }
    return found


# %% tags=["nbval-ignore-output"]
live = all_meetings(times, from_rates(made, D), D, 4)
for name, kinds in live.items():
    print(f"{name:32}", {kind: n and round(n) for kind, n in kinds.items()})
scores_pass = live["scores pass projections"]["measured"]
assert 512 / 3 < scores_pass < 3 * 512  # as counted, give or take

# %% [markdown]
# (None: not up to the longest text.) Here is the record for width 256, with texts up to 4096 tokens and, for the last two rows, batches of 16 texts. Before you look: a batch makes the LSTM faster. To which side will its row move?

# %%
rows = dict(record["runs"]["d=256 batch=1"]["meetings"])
sixteen = record["runs"]["d=256 batch=16"]["meetings"]
for name in ("attention passes an LSTM", "attention passes an RNN"):
    rows[f"{name}, batch 16"] = sixteen[name]
for name, kinds in rows.items():
    print(f"{name:36}", {kind: n and round(n) for kind, n in kinds.items()})

# %% mystnb={"image": {"alt": "Seven rows of markers on an axis from an eighth to sixteen widths. For scores against projections, and against the rest of a block, three markers lie close together at two and at six widths. For the LSTM the count says two widths, rates and measurement more than four; for the GRU one against about ten; for the RNN an arrow at the left edge against one and a half to two. With a batch of 16 the LSTM’s markers lie near one width, left of the count, and the RNN’s are at the left edge or at half a width."}, "figure": {"caption": "From which length on one cost is above another, at width d = 256. Between two kinds of large products the count of FLOPs is nearly right. Against recurrent layers it misses by factors, and measured rates come close for one text.", "name": "fig-meetings"}}
plots.meetings(rows, width=D)
plt.show()

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# To the left. One text at a time, attention stays below the LSTM to more than four widths instead of two. With sixteen the LSTM runs about as fast as a large product, the attention layer does not quite, and so it passes the LSTM *before* $2d$. (Half of the LSTM's FLOPs, those of $x_tW$, wait for no other token.)
# :::

# %%
run = record["runs"]["d=256 batch=16"]
rates = 2 * 512**3 / np.array(run["seconds"]["matmul"])
for name in ("LSTM", "fused"):
    flops = [COSTS[name](n, D, 4, 16).flops for n in run["lengths"]]
    off = run["seconds"][name] * rates / flops
    print(f"{name:5} at batch 16: time / (FLOPs / rate)", np.round(off, 2))

# %%
one = rows["attention passes an LSTM"]
many = rows["attention passes an LSTM, batch 16"]
assert many["measured"] < many["counted"] < one["measured"] / 1.5

# %% [markdown]
# Read it row by row. **Scores against projections, and against the rest of a block**: 2d and 6d are found about where they were counted, because both sides are large products and run at nearly the same rate. **Against an LSTM, a GRU**: the count misses by factors, because a recurrent step runs so much slower than a large product. **Against a plain RNN**:
# counted, attention is never cheaper; by the clock it is, up to one and a half or two widths of tokens here. For this pair the count is right again with a batch of 16: attention was slower already at the shortest length tried, half a width, where its point therefore stands.
#
# How good is the second model, over everything recorded: three widths for one text, two for sixteen? (Where a model says "from the first token" no factor can be given, and the pair is left out of its line: that spares the count every plain RNN.)

# %%
def misses(kind, batch):
    factors = []
    for name, run in record["runs"].items():
        for each in run["meetings"].values():
            n, seen = each["measured"], (each[kind] or 0) > 1  # 1: at once
            seen = seen and n and n > run["lengths"][0]
            if seen and name.endswith(f"batch={batch}"):
                factors.append(max(each[kind] / n, n / each[kind]))
    return factors


for batch in (1, 16):
    for kind in ("counted", "from rates"):
        factors = misses(kind, batch)
        print(f"batch {batch:2}, {kind:10}: off by a factor of",
              f"{np.median(factors):.2f} (median), {max(factors):.1f} (worst)")
assert np.median(misses("from rates", 1)) < np.median(misses("counted", 1))
assert max(misses("counted", 1)) > 5

# %% [markdown]
# Rates from short runs say more than the count does, about lengths up to ten times as long. They err where something changes on the way, as the size of the arrays does. And where two lines are nearly parallel, as those of attention and of a plain RNN are on short texts, a few per cent in a rate move the meeting far. **A rate holds for a size and a shape.** That is the general lesson: count first;
# if the clock disagrees, measure the rate of each piece at its own shape; if it still disagrees, look for the size at which memory changes.
#
# ## What do exponentials cost?
#
# By convention they cost nothing: FLOPs are those of products. A softmax takes one exponential a score, $hn^2$ in all, and a score with its share of the values takes $4d_h$ FLOPs at head width $d_h$. (The gates and outputs of an LSTM have five such functions a number, $5nd$, which is linear in $n$.) So what is an exponential worth? Guess: nearer to 1, to 10 or to 100 FLOPs?

# %% tags=["nbval-ignore-output"]
maps = {f"{n**2 // 2**16} MiB": torch.randn(4, n, n) for n in (256, 2048)}
calls = {size: partial(torch.softmax, each, -1) for size, each in maps.items()}
maps["64 MiB, reused"] = large = maps["64 MiB"]
there = torch.empty_like(large)  # memory for the result, made once
calls["64 MiB, reused"] = lambda: torch.softmax(large, -1, out=there)
timed = measure.medians(measure.cpu_times(calls, 7))
per_score = {size: timed[size] / each.numel() for size, each in maps.items()}
for size, each in per_score.items():
    print(f"map of {size:14}: {each * 1e9:.2f} ns a score,",
          f"as long as {each * rate:.0f} FLOPs of a product")
assert per_score["1 MiB"] * rate > 10  # far from free

# %% [markdown]
# In a small map an exponential (with the reading, subtracting, summing and dividing around it) takes as long as dozens of FLOPs of a product; fifty to eighty in our runs. At a head width of 64 a score costs 256 FLOPs, so softmax then adds a fifth to a third to the time of the core, and half of that to a layer at $n = 2d$: tolerable to leave out. In a large map the same exponential takes several times as long. The traffic? The third line reads
# and writes just as much, into memory that is there already, and takes hardly longer than the small map. The rest goes to the operating system, which hands out a new large array as fresh pages, each zeroed when it is first touched, and takes them back at the end of the call. The naive layer pays for that at its longest texts. (How much depends on the system. On a GPU PyTorch keeps the memory it has allocated; there it is the traffic of the map that counts {cite}`dao2022`.)
#
# Chapter 6 said that more heads are free in FLOPs and not free in exponentials. Cut the width of 256 into 1, 4, 16 and 64 heads. Predict the times from the two rates, then look.

# %% tags=["nbval-ignore-output"]
n, calls = 512, {}
for heads in (1, 4, 16, 64):
    q, k, v = torch.randn(3, 1, heads, n, D // heads)
    calls[heads] = partial(fused, q, k, v)
timed = measure.medians(measure.cpu_times(calls, 7))
for heads, took in timed.items():
    count = costs.attention_cost(heads, n, n, D // heads)
    alone = count.flops / rate
    both = alone + count.exponentials * per_score["1 MiB"]
    print(f"{heads:2} heads, {count.exponentials / 1e6:4.1f} M exponentials:",
          f"FLOPs alone {alone * 1e3:.1f} ms,",
          f"with them {both * 1e3:4.1f}, measured {took * 1e3:4.1f}")
assert timed[64] > 2 * timed[1]  # the same FLOPs

# %% [markdown]
# :::{dropdown} Our predictions, and where they end
# To 16 heads, which are 16 wide, the two rates together predict the time, and FLOPs alone fall short of it. At 64 heads both are wrong: products with an inner size of 4 do not run at the rate of a large product. A rate holds for a shape. (On GPUs the gap is wider: an A100 is 16 times faster at FLOPs of products than at others {cite}`dao2023`.)
# :::
#
# ## What no count of FLOPs shows
#
# FLOPs say how much there is to do, not how much of it can be done **at once**. In PyTorch's record of a computation, follow the products that wait for one another. Two questions: how long is the *longest* chain of products, the number of steps that remain however many processors
# you have (a whole product counts as one step)? And how long is the *shortest* way from the first token to the last result, the {term}`path length` that a gradient has to travel? Each result keeps the operation that made it (`grad_fn`), and that one the operations before it (`next_functions`); at a leaf the way ends. `known` remembers what was found for each, and None there means: no way to the goal.

# %%
PRODUCTS = {"MmBackward0", "BmmBackward0", "AddmmBackward0"}


def products(node, pick, goal, known):
    """Products on the longest (pick=max) or shortest (min) way to a leaf."""
    if node not in known:
        ways = [products(before, pick, goal, known)
                for before, _ in node.next_functions if before]
        ways = [way for way in ways if way is not None]
        own = node.name() in PRODUCTS
        at_goal = goal is None or getattr(node, "variable", None) is goal
        if ways:
            known[node] = own + pick(ways)
        else:
            known[node] = 0 if at_goal else None
    return known[node]

# %% [markdown]
# Three networks, as small as can be, on $n$ tokens that are leaves of their own. A convolution over three neighbours passes a token on by one position a layer, so it gets as many layers as it needs.

# %%
def attend(tokens, w):
    x = torch.cat(tokens)  # (seq, dim)
    weights = torch.softmax((x @ w) @ (x @ w).T, dim=-1)
    return (weights @ (x @ w) @ w)[-1]

# %%
def recur(tokens, w):
    h = torch.zeros_like(tokens[0])
    for token in tokens:
        h = torch.tanh(token @ w + h @ w)
    return h


def convolve(tokens, w):
    pad, three = torch.zeros_like(tokens[0]), torch.cat([w, w, w])
    for _ in range(len(tokens) - 1):
        padded = [pad, *tokens, pad]
        tokens = [torch.cat(padded[i : i + 3], 1) @ three
                  for i in range(len(tokens))]
    return tokens[-1]

# %%
w = torch.randn(4, 4)
print("each pair: longest chain, shortest path")
print(f"{'':9} {'attention':>12} {'RNN':>12} {'convolution':>12}")
for n in (4, 8, 16, 32):
    words = []
    for network in (attend, recur, convolve):
        tokens = [torch.randn(1, 4).requires_grad_() for _ in range(n)]
        last = network(tokens, w).grad_fn
        chain = products(last, max, None, {})
        path = products(last, min, tokens[0], {})
        words.append(f"{chain:8},{path:3}")
    print(f"{n:2} tokens", *words)

# %% [markdown]
# In attention both are constants: four products after one another (projection, scores, weights times values, output), and three from any token to any result (value projection, weights times values, output projection). In a recurrent network both grow with $n$ (for a state that is updated linearly there are shortcuts, in [chapter 17](17_linear.ipynb)). The table that compares the layers' orders of growth has columns for these two as well {cite}`vaswani2017`, and they need no constants to be
# right. (Convolutions do better than ours if they skip: with dilations that grow from layer to layer the number of layers grows like $\log n$.)
#
# At $n = 2d$ attention and the LSTM have the same FLOPs. How much of them could run at the same time, on a machine with enough processors?

# %%
n = 2 * D
for name, steps_in_a_row in (("fused", 4), ("LSTM", n)):
    flops = COSTS[name](n, D, 4, 1).flops
    print(f"{name:5} {flops / 1e6:.0f} MFLOP in {steps_in_a_row:3} steps:",
          f"{flops / steps_in_a_row / 1e6:6.1f} MFLOP can be done at once")

# %% [markdown]
# More than a hundred times as much. One thread, as here, sees only a faint image of that, in the rate of its steps; a GPU with thousands of lanes sees much more of it. But note *when*: all positions at once is how a model reads and how it is trained. While it **generates**, each token waits for the one before, for attention as for any RNN.
#
# ## Where does a real model spend its FLOPs?
#
# Take the shape of Llama-3-8B {cite}`grattafiori2024`: 32 blocks of width 4096, 32 query heads of 128 that share 8 key/value heads, a gated MLP of 14,336 (three matrices instead of two), norms that subtract no mean (`centred=False`), a vocabulary of 128,256. First: is it the published size?

# %%
shape = dict(dim=4096, heads=32, kv_heads=8, hidden=14336)
block = partial(costs.block_cost, **shape, gated=True, centred=False)
table = costs.linear_cost(1, 4096, 128_256).parameters
parameters = 32 * block(1).parameters + 2 * table + 4096  # and a last norm
print(f"{parameters:,}")
assert parameters == 8_030_261_248

# %% [markdown]
# It is the number of parameters in the released files, to the last one. Now guess: reading a text of 8,192 tokens, which share of the FLOPs is quadratic? And of 131,072?

# %%
def llama(n):
    half = costs.causal_pairs(n)  # the future is skipped
    core = costs.attention_cost(32, n, n, 128, pairs=half).flops
    none = costs.attention_layer_cost(n, 4096, 32, 8, pairs=0).flops
    return {
        "scores and values": 32 * core,
        "projections": 32 * none,
        "MLP": 32 * costs.mlp_cost(n, 4096, 14336, gated=True).flops,
        "vocabulary": costs.linear_cost(n, 4096, 128_256).flops,
    }


texts = {f"{n:,} tokens": llama(n) for n in (1024, 8192, 32_768, 131_072)}
for length, parts in texts.items():
    every = sum(parts.values())
    print(f"{length:>14}: {every / 1e12:6,.0f} TFLOP,",
          f"quadratic {parts['scores and values'] / every:.0%}")

# %% mystnb={"image": {"alt": "Four stacked bars. At 1,024 tokens the MLP takes three quarters and scores and values hardly anything; at 8,192 an eighth; at 32,768 more than a third; at 131,072 more than two thirds."}, "figure": {"caption": "A model of Llama-3-8B’s shape reading one text. At the lengths of a chat the MLP is the cost; the quadratic part takes over from some sixty thousand tokens on.", "name": "fig-shares"}}
plots.shares(texts)
plt.show()

# %%
def quadratic(n):
    return llama(n)["scores and values"]


takes_over = costs.meeting_point(
    quadratic, lambda n: sum(llama(n).values()) - quadratic(n)
)
print(f"half of all from n = {takes_over:,} on, {takes_over / 4096:.1f} widths")

# %% [markdown]
# Fourteen widths, not six. For each token and block the MLP takes $21d^2$, the projections $5d^2$ (keys and values are shared), the vocabulary's share is $2d^2$, and the pairs take $2nd$, as half are skipped: $28d^2 = 2nd$ at $n = 14d$. (The vocabulary is scored at every token, as in training.) That is why estimates for language models leave the quadratic part out while the text is much shorter than twelve widths, and count two FLOPs for each parameter and token, six in training {cite}`kaplan2020`. Check it against our exact count, at 2,048 tokens:

# %%
n = 2048
exact = 32 * block(n, pairs=costs.causal_pairs(n))
exact += costs.linear_cost(n, 4096, 128_256)
rule = 6 * (parameters - table) * n  # looking a row up costs no product
share = rule / (exact.flops + exact.backward_flops)
print(f"six per parameter and token: {share:.1%} of the exact count")

# %% [markdown]
# And generating? One token at a time, the FLOPs are few and the bytes are many: all parameters (of the input table one row) and the whole {term}`KV cache` are read for every token (of one text; a batch shares the parameters and not the caches) {cite}`pope2022`. At which length does the cache weigh more than the model?

# %%
even = costs.meeting_point(
    lambda n: costs.kv_cache_bytes(32, 8, 128, n), lambda n: 2 * parameters  # bfloat16
)
print(f"the cache is as large as the parameters at {even:,} tokens")
one_token = costs.linear_cost(1, 4096, 4096)
cached = costs.decode_cost(32, 8192, 128, kv_heads=8)
print(f"FLOP per byte in bfloat16: projection {one_token.intensity(2):.1f},",
      f"attention {cached.intensity(2):.1f}")

# %% [markdown]
# One FLOP for each byte of the parameters and four for each byte of the cache (four queries share each key). An A100 computes up to 312 TFLOP/s in 16-bit products and reads 1.5 to 2 TB/s {cite}`dao2023`, more than a hundred FLOPs for each byte. There decoding is bound by memory, and shared key/value heads help because they are fewer bytes {cite}`shazeer2019,ainslie2023`.
#
# ### Other shapes
#
# The same counts for any shape, with those of six published models to begin with. **Predict** first. Which of the six keeps most bytes of cache for each token of its text? And the length from which on the products of attention are the larger part: is it always about a dozen widths, from GPT-2 {cite}`radford2019` to 405 billion parameters?

# %%
from attnlib.widgets import CostCalculator

CostCalculator(
    context=8192,
    caption="Choose a model or give a shape; the dashed line is the context. The bars are one forward pass over the whole text, the first curves one token more at its end, which meets all pairs of its row, where the tokens of a pass meet half as many on average: so the curves cross at half the length. The last curves are what generating has to hold. All counts are whole and exact, in the table too. The numbers behind the names are those of the papers on arXiv.")

# %%
from attnlib.widgets.cost_calculator import PRESETS

widths, kept = {}, {}
for name, sizes in PRESETS.items():
    counts = CostCalculator(name, context=1).computed()  # in text: some are beyond 2^53
    widths[name], kept[name] = int(counts["meeting"]) / sizes["dim"], int(counts["cache"])
    print(f"{name:25} products the larger part from {widths[name]:4.1f} widths on; cache of one token {kept[name]:9,} bytes")
assert sorted(widths.values())[-1] == widths["GPT-2 (2019)"] and max(kept, key=kept.get).startswith("GPT-3")

# %% [markdown]
# :::{dropdown} Your predictions, then ours
# GPT-3 {cite}`brown2020`, of 2020, with nine times as many as a model of more than twice its size from 2024: 96 layers whose 96 heads share no key, instead of 126 layers with 8 shared ones. (We count every layer as a dense one; every second one of GPT-3 is banded, and needs the keys of its window only.) And yes, about: twelve to fourteen widths. The exception is GPT-2: with twelve narrow layers, its vocabulary is nearly a third of the work that grows with the length only.
# :::
#
# ## What to remember
#
# | claim | what the counts and the clock say | where |
# |---|---|---|
# | attention is quadratic | $8nd^2 + 4n^2d$: exponent 1.5 at $n = 2d$, where scores pass projections; in a block at $6d$, if the future is skipped at $12d$ | {numref}`fig-flops-by-length` |
# | attention is cheaper than an RNN | in FLOPs: than an LSTM below $2d$, a GRU below $d$, a plain RNN never; by the clock it depends on the rate of a step, hence on the batch | {numref}`fig-meetings` |
# | the counter says so | it counts what it knows, and an unknown operation as nothing | LSTM: 0 |
# | attention needs $n^2$ memory | two maps forward, three with backward, if naive; fused $O(n)$, with the same FLOPs and a quarter more backward | {numref}`fig-memory-by-length` |
# | softmax is free | dozens of FLOPs an exponential; large maps made anew cost several times that, for fresh memory | exponentials |
# | FLOPs predict time | where the work is large products; else count, and use the rate of each piece at its shape | {numref}`fig-times-by-length` |
# | the true win | four steps in a row and a path of three, for any length | chains |
#
# **In practice.** FLOPs and bytes together say whether a computation is bound by the processor or by memory; the drawing that shows it is called a roofline, and a later part makes one for each step of attention on a GPU. Papers report *model FLOPs utilisation*, the counted FLOPs divided by time and by the peak rate: our `time / (FLOPs / rate)` upside down. There is probably no way around the
# square: for arbitrary inputs attention cannot be computed in much less than quadratic time, exactly or nearly so, unless the strong exponential time hypothesis is false {cite}`keles2022`; if all entries are small enough, it can {cite}`alman2023`. So the next chapters compute something else: fewer pairs, coarser pairs, or a state.
#
# **Shortcut taken here.** One thread of one processor, float32, forward. On a GPU rates differ more between shapes, and a recurrent step at batch 1 is usually worse off than here. Our recurrent layers are PyTorch's; a kernel written for the GRU would move its row. And a layer that costs less may also learn less: no line of this chapter says what a FLOP *buys*.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Count what a matrix product computes, moves and keeps, forward and backward, and check the FLOPs against PyTorch's
#   counter.
# - Name the lengths at which, in FLOPs, scores pass the projections and the rest of a block, and at which attention
#   passes an LSTM and a GRU.
# - Notice that a FLOP counter has counted an operation as nothing, and make the operation known to it.
# - Predict the peak memory of naive attention in maps of scores, without and with the backward pass.
# - Predict where two layers meet in time from rates measured on short runs, and say for which pairs the count of FLOPs
#   will be far off.
# - Find the longest chain of products and the shortest path from first token to last result in a recorded computation.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:crossover", "ex-prompt"]
# ```{exercise} When does the square matter?
# :label: ex-crossover
# A transformer layer of width `dim` reads n tokens. Count the FLOPs of its matrix products, 2abc for an (a, b) by a (b, c) matrix, of
# which there are two kinds. *Weights*: the projections to queries and back (`dim` × `dim` each), those to keys and values
# (`dim` × `kv_heads` · dim_head each, where dim_head = `dim` / `heads`, a whole number), and `ff_matrices` matrices of the feed-forward
# network (`dim` × `ff` or `ff` × `dim`: 2 of them, or 3 where it is gated). *Pairs*: the scores $QK^\mathsf T$ and the weighted
# values $AV$ of all `heads` heads over all n² pairs; no mask saves anything. Write `crossover(dim, heads, kv_heads, ff, ff_matrices)`: the
# smallest whole n for which the pairs cost **at least** as much as the weights, as an `int`. For plain attention without feed-forward
# network it is 2 · `dim`, with one of the usual size (`ff` = 4 · `dim`) it is 6 · `dim`.
# ```

# %% tags=["ex:crossover", "ex-stub"]
def crossover(dim, heads, kv_heads, ff, ff_matrices):
    raise NotImplementedError("replace this line")

# %% tags=["ex:crossover", "ex-check"]
check(crossover)

# %% tags=["ex:crossover", "ex-solution", "hide-cell"]
def crossover(dim, heads, kv_heads, ff, ff_matrices):
    dim_kv = kv_heads * dim // heads
    weights = 2 * (2 * dim * dim + 2 * dim * dim_kv + ff_matrices * dim * ff)
    pairs = 4 * dim  # n * weights <= n * n * pairs
    return -(-weights // pairs)  # division that rounds up


require(crossover)

# %% [markdown] tags=["ex:largest_batch", "ex-prompt"]
# ```{exercise} How many readers at once?
# :label: ex-largest-batch
# A machine with `memory` bytes serves a language model. The model's `parameters` numbers must fit, once for all; what is left holds, for every
# sequence that is being generated, the key and the value of each of its tokens, in every layer and for every key/value head. Write
# `largest_batch(memory, parameters, layers, kv_heads, dim_head, seq, bytes_per_number)`: how many sequences of `seq` tokens each fit at the same
# time, with keys and values of width `dim_head` per head and `bytes_per_number` bytes for each number of parameters, keys and values. Return a
# whole number as an `int`, 0 if not one fits. All sizes are at least 1 and may be so large that a float would not hold them exactly.
# ```

# %% tags=["ex:largest_batch", "ex-stub"]
def largest_batch(
    memory, parameters, layers, kv_heads, dim_head, seq, bytes_per_number
):
    raise NotImplementedError("replace this line")

# %% tags=["ex:largest_batch", "ex-check"]
check(largest_batch)

# %% tags=["ex:largest_batch", "ex-solution", "hide-cell"]
def largest_batch(
    memory, parameters, layers, kv_heads, dim_head, seq, bytes_per_number
):
    left = memory - parameters * bytes_per_number
    one = 2 * layers * kv_heads * dim_head * seq * bytes_per_number  # k and v
    return max(0, left // one)


require(largest_batch)

# %% [markdown] tags=["ex:cost_of_lstm", "ex-prompt"]
# ```{exercise} What a recurrent network costs, and how long it waits
# :label: ex-cost-of-lstm
# An LSTM layer {cite}`hochreiter1997`, in today's form with a forget gate, reads `seq` tokens one after the other. For each token it computes three gates and one candidate, each
# $W x_t + U h_{t-1}$ with matrices of its own: $W$ takes the layer's input to `dim` numbers, $U$ takes the layer's state, `dim` numbers, to
# `dim` numbers. `layers` such layers are stacked: the first reads inputs of width `dim_in`, every other reads the states of the one below. Write
# `cost_of_lstm(seq, dim_in, dim, layers)`, which returns two exact `int`s, `(flops, steps)`. `flops`: 2abc for a product of an (a, b) by a
# (b, c) matrix, the first state counted like all others; biases and everything done number by number are left out. `steps`: a layer at token t
# can start once the same layer at token t − 1 and the layer below at token t are done, and takes one step; any number of them may run in
# the same step. After how many steps, at the earliest, are all done? With no token at all both results are 0.
# ```


# %% tags=["ex:cost_of_lstm", "ex-stub"]
def cost_of_lstm(seq, dim_in, dim, layers):
    raise NotImplementedError("replace this line")

# %% tags=["ex:cost_of_lstm", "ex-check"]
check(cost_of_lstm)

# %% tags=["ex:cost_of_lstm", "ex-solution", "hide-cell"]
def cost_of_lstm(seq, dim_in, dim, layers):
    first = 4 * dim * (dim_in + dim)  # numbers in W and U, four of each
    others = (layers - 1) * 4 * dim * (dim + dim)
    flops = 2 * seq * (first + others)  # each is used once per token
    steps = seq + layers - 1 if seq else 0  # layer l runs l steps later
    return flops, steps


require(cost_of_lstm)

# %% [markdown] tags=["ex:explore_machine", "ex-prompt", "ex-open"]
# ```{exercise} Explore: your machine
# :label: ex-explore-machine
# Run this chapter's `run_all`, `from_rates` and `all_meetings` on your own machine, for a width of 128 and batches of 1, 4 and 16; start from `made = build(128, heads=2)` and pass 128 as `dim`. **Predict** first from the table of steps (which batch brings a step to the rate of a large product?) for which of them attention passes the LSTM near $2d$. Then use all your cores. `measure.cpu_times` always takes
# one thread, so time some of the calls yourself: after `torch.set_num_threads(os.cpu_count())`, with `time.perf_counter` around a loop of calls (CPU time would add the cores up). Which side of each pair gains, and does the gain fit the lengths of the chains?
# ```

# %% [markdown] tags=["ex:explore_training", "ex-prompt", "ex-open"]
# ```{exercise} Explore: the backward pass by the clock
# :label: ex-explore-training
# Counted, the backward pass takes twice the forward FLOPs, and two and a half times for fused attention. Time forward and backward of `naive`, `fused` and the LSTM for doubling lengths. Which of them keeps the counted ratio? Where it does not, use `moved` and `backward_moved` of `costs.attention_steps` to say why.
# ```

# %% [markdown]
# **Sources.** Orders of growth, sequential steps and path lengths: {cite:t}`vaswani2017`. FLOPs of language models: {cite:t}`kaplan2020`. Traffic of attention, and what GPUs do in the meantime: {cite:t}`dao2022`, {cite:t}`dao2023`; what training keeps: {cite:t}`korthikanti2022`. Decoding: {cite:t}`shazeer2019`, {cite:t}`pope2022`, {cite:t}`ainslie2023`. The lower bound and its limits: {cite:t}`keles2022`, {cite:t}`alman2023`. The model's shape:
# {cite:t}`grattafiori2024`. Recurrent layers: {cite:t}`hochreiter1997`, {cite:t}`cho2014`.
