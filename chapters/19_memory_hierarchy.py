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
# # What does attention wait for?
#
# A processor does two things: it computes, and it waits for numbers. Chapter 14 counted the arithmetic of attention; here you count what has to be carried, and find out for every step which of the two decides its time. The answer is the reason for everything in this part of the book.
#
# :::{admonition} Before you start
# :class: note
# **You need** [chapter 14](14_complexity.ipynb) (FLOPs, traffic, arithmetic intensity) and [chapter 5](05_self_attention.ipynb). **You will build** a roofline of your own processor, put each step of attention on it, and predict, for GPUs that need not be here, what fusing the steps can save and what it cannot. **Time** about 40 minutes; the cells run in
# half a minute. {numref}`fig-roofline` is the chapter in one image.
# :::

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from attnlib import costs, measure
from attnlib.plots import roofline as plots

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randn(shape, generator=generator)

# %% [markdown]
# ## Two limits
#
# Take two matrices of 1024 by 1024. Add them, or form their matrix product: both read two matrices and write one. How much longer does the product take, if it has two thousand times the arithmetic?

# %%
a, b, c = (draw(1024, 1024) for _ in range(3))
arithmetic = {"sum": 1024**2, "product": 2 * 1024**3}
print(f"the product has {arithmetic['product'] / arithmetic['sum']:.0f} times the arithmetic of the sum")

# %% tags=["nbval-ignore-output"]
times = measure.medians(measure.cpu_times({"sum": lambda: torch.add(a, b, out=c), "product": lambda: torch.mm(a, b, out=c)}, repeats=9))
longer = times["product"] / times["sum"]
print(f"and takes {longer:.0f} times as long")
assert longer < 1024  # less than half of what its arithmetic says

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Far less than two thousand times as long. The sum uses a small part of the arithmetic that the processor could do: it waits for its 12 MiB to come and go, even if they come from a cache. The product reads each number once from far away and uses it a thousand times.
# :::
#
# So there are two speeds: arithmetic per second, and bytes per second. Measure both, each with work that asks for little else: a large product, and a sum, in place, of arrays that fit into no cache. (A copy would look slower: many processors first read the memory that they are about to overwrite, and nobody counts that.)

# %% tags=["nbval-ignore-output"]
far = torch.zeros(2**26)                                     # 256 MiB
near = torch.empty_like(far)
calls = {"copy": lambda: near.copy_(far), "sum": lambda: torch.add(near, far, out=near)}
samples = measure.cpu_times(calls, repeats=5, matmul=1024)   # a product of 1024 by 1024 is timed in turn
peak = samples.matmul_flops / min(samples["matmul"])           # FLOP/s, in the fastest round: a roof is what was reached at best
sizes = measure.medians(samples)
bandwidth = 3 * far.nbytes / sizes["sum"]                    # bytes/s: two arrays read, one of them written back
print(f"a copy, read and written: {2 * far.nbytes / sizes['copy'] / 1e9:.1f} GB/s; a sum in place: {bandwidth / 1e9:.1f} GB/s")
print(f"{peak / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s: {peak / bandwidth:.1f} FLOPs in the time of a byte")
assert 1 < peak / bandwidth < 100

# %% [markdown]
# Their quotient is the *balance* of the machine. Work that does fewer FLOPs for each byte than that is **bound by memory**: it could compute faster, if only the numbers came. Work that does more is **bound by arithmetic**. FLOPs per byte are the {term}`arithmetic intensity` of the work, and the rate that it
# can reach at most is

# %%
def roofline(intensity, peak, bandwidth):
    return np.minimum(peak, intensity * bandwidth)           # FLOP/s

# %% [markdown]
# which, drawn over the intensity, looks like a roof {cite}`williams2009`. It bends at the balance; the point is called the *ridge*.
#
# ## Where are the steps of attention?
#
# Naive attention has three: scores, softmax, values. Chapter 14 counted what each reads and writes. What is the intensity of each, for a long text?

# %%
heads, n, d = 4, 2048, 64
steps = costs.attention_steps(heads, n, n, d)
for name, cost in steps.items():
    print(f"{name:8} {cost.flops / 1e9:5.2f} GFLOP, {4 * cost.moved / 1e6:6.1f} MB moved, {cost.intensity():5.1f} FLOP/byte")  # moved: numbers

# %% [markdown]
# (Softmax has none in this count, which takes only the products, as chapter 14 does; its exponentials get a count of their own below.) For $n \gg d$ the product $QK^\top$ does $2n^2 d$ FLOPs and writes $n^2$ numbers: at most $d/2$ FLOPs for each byte of float32, however long the text. No length makes it more worth while; only a wider head does, or smaller numbers.
#
# Do the programs name the arrays that we counted? PyTorch can call a function of ours for every operation. Let it add up the bytes of all arrays that come in and go out. (This checks the book-keeping. What really crosses the bus, only counters in the hardware see.)

# %%
class Traffic(TorchDispatchMode):
    moved = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        arrays = [x for x in (*args, out) if isinstance(x, torch.Tensor)]
        if not function.is_view:                             # a view moves nothing
            self.moved += sum(x.nbytes for x in arrays)
        return out


def bytes_moved(call):
    with Traffic() as traffic:
        call()
    return traffic.moved

# %%
q, k, v = (draw(heads, n, d) for _ in range(3))
scaled, scores, weights = q / d**0.5, draw(heads, n, n), torch.softmax(draw(heads, n, n), -1)
out = torch.empty_like(v)                                    # fresh memory would cost more than its traffic
programs = {"scores": lambda: torch.bmm(scaled, k.mT, out=scores), "softmax": lambda: torch.softmax(scores, -1, out=weights),
            "values": lambda: torch.bmm(weights, v, out=out)}
for name, program in programs.items():
    assert bytes_moved(program) == 4 * steps[name].moved
print("each step takes in and gives out what was counted, to the byte")

# %% [markdown]
# Now predict: which of the three is bound by memory *here*, and does any come close to its roof?

# %% tags=["nbval-ignore-output"]
turns = measure.cpu_times(programs, repeats=7)
measured = measure.medians(turns)
peak = max(peak, *(steps[name].flops / min(turns[name]) for name in steps))  # another product may be faster than that of 1024
bounds = {name: max(cost.flops / peak, 4 * cost.moved / bandwidth) for name, cost in steps.items()}
for name in steps:
    by = "arithmetic" if steps[name].flops / peak > 4 * steps[name].moved / bandwidth else "memory"
    print(f"{name:8} at least {1000 * bounds[name]:5.1f} ms by {by:10}, measured {1000 * measured[name]:5.1f} ms")
assert all(measured[name] > 0.7 * bounds[name] for name in steps)  # the bandwidth is a median, and other programs may share this core

# %% mystnb={"image": {"alt": "A roofline on logarithmic axes: a slope that bends into a level line. Sums of two arrays lie far down, a large one on the slope and a small one above it; the two products of attention and a large product lie under the level part, close to it."}, "figure": {"caption": "The roof of this processor, from its two measured speeds, and steps of attention under it. The large sum lies on the slope, which was measured with it. The small one stands above: its arrays fit into a cache, and main memory is not what it waits for. Softmax is missing: an intensity of 0 has no place on this axis.", "name": "fig-roofline"}} tags=["nbval-ignore-output"]
points = {name: (steps[name].intensity(), steps[name].flops / measured[name]) for name in ("scores", "values")}
points["product of 1024"] = (2 * 1024**3 / (12 * 1024**2), arithmetic["product"] / times["product"])
points["sum, 256 MiB each"] = (1 / 12, far.numel() / sizes["sum"])
points["sum, 4 MiB each"] = (1 / 12, arithmetic["sum"] / times["sum"])
plots.roof(peak, bandwidth, points)
plt.show()
assert peak / bandwidth < points["product of 1024"][0]  # the large product stands beyond the ridge

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# By the roofline softmax waits for memory, having no products at all, and the two products, with 30 FLOPs for a byte, are bound by arithmetic on a core like this. The products come near their roof. Softmax does not, and no faster memory would help it: it is bound by a third thing that this drawing leaves out (see *What fusing does not remove*). On a GPU the
# products fall on the other side.
# :::
#
# ## A machine that computes faster than it reads
#
# Published figures of three GPUs, for dense products in bfloat16, and for their main memory {cite}`nvidia2020,nvidia2022,nvidia2024`. (*Dense*: the makers also quote twice the rate, for matrices with prescribed zeros. *SXM* is the form of the module.)

# %%
GPUS = {  # FLOP/s, bytes/s
    "A100 SXM": (312e12, 2.04e12),                           # the one with 80 GB
    "H100 SXM": (989e12, 3.35e12),
    "H200": (989e12, 4.8e12),
}
for name, (gpu_peak, gpu_bandwidth) in GPUS.items():
    print(f"{name:11} balance {gpu_peak / gpu_bandwidth:4.0f} FLOP/byte")

# %% [markdown]
# Attention with heads of 64 in bfloat16 does at most $d = 64$ FLOPs per byte in its products; with heads of 128, 128. What share of its arithmetic can an H100 use?

# %%
h100_peak, h100_bandwidth = GPUS["H100 SXM"]
for width in (64, 128):
    cost = costs.attention_steps(1, 16384, 16384, width)["scores"]
    share = roofline(cost.intensity(2), h100_peak, h100_bandwidth) / h100_peak   # 2 bytes a number
    print(f"heads of {width:3}: {cost.intensity(2):5.1f} FLOP/byte, at most {share:.0%} of the arithmetic")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# A fifth, or two fifths; and softmax, between the two products, uses none at all. **For heads of up to 128 all three steps of naive attention are bound by memory** on these GPUs, at any length at which the scores do not fit into a cache. Making the arithmetic faster would change nothing.
# :::
#
# The whole bill: what naive attention takes at least, and what it would take if only its inputs and its result were moved. A GPU's program is called a *kernel*; a *fused* kernel does all three steps in one and never writes scores or weights to memory. (How that is possible at all is the matter of chapter 20; here ask what it would save.)

# %%
def least_seconds(cost, peak=h100_peak, bandwidth=h100_bandwidth):
    return max(cost.flops / peak, 2 * cost.moved / bandwidth)  # bfloat16: two bytes a number


lengths = [2**i for i in range(9, 16)]
naive, fused = {}, {}
for seq in lengths:
    naive[seq] = sum(least_seconds(cost) for cost in costs.attention_steps(16, seq, seq, 128).values())
    fused[seq] = least_seconds(costs.attention_cost(16, seq, seq, 128, fused=True))
for seq in lengths[::2]:
    print(f"{seq:6} tokens: {1e6 * naive[seq]:9.1f} µs in three steps through main memory, at least {1e6 * fused[seq]:8.1f} µs fused: {naive[seq] / fused[seq]:.1f} times")

# %% mystnb={"image": {"alt": "Least time over length on logarithmic axes for an H100: three steps above, fused below; the lines run in parallel beyond about a thousand tokens."}, "figure": {"caption": "What an H100 needs by its published speeds if everything comes from main memory, 16 heads of 128 in bfloat16. Not measured yet: no GPU was at hand.", "name": "fig-fused-bound"}}
plots.bounds(lengths, {"three steps": [1e3 * naive[seq] for seq in lengths], "fused": [1e3 * fused[seq] for seq in lengths]})
plt.show()

# %% [markdown]
# The quotient hardly depends on the length. In the limit it is the time of $8n^2$ bytes (scores written and read, weights written and read) over that of $4n^2d$ FLOPs: $2/d$ times the balance, 4.6 for heads of 128.
#
# Fused attention must read $3nd$ numbers at least and write $nd$: its intensity is at most $4n^2d$ FLOPs over $8nd$ bytes, $n/2$. It may *grow* with the length, and beyond about 600 tokens, twice the balance, could be bound by arithmetic on an H100.

# %%
ridge = h100_peak / h100_bandwidth
for seq in (256, 512, 1024):
    cost = costs.attention_cost(16, seq, seq, 128, fused=True)
    print(f"{seq:5} tokens: {cost.intensity(2):4.0f} FLOP/byte, {'above' if cost.intensity(2) > ridge else 'below'} the ridge at {ridge:.0f}")

# %% [markdown]
# That is the least that *any* kernel must move. A kernel works in *tiles*, blocks of consecutive rows, and reads all keys and values again for each tile of queries ([chapter 20](20_flash.ipynb)). What if all of that came from main memory?

# %%
tokens, width = 16384, 128
for rows in (64, 128, 256):
    tiled = 2 * (2 * tokens * width + 2 * (tokens // rows) * tokens * width)   # bytes: queries, result; keys and values for each tile
    print(f"tiles of {rows:3} queries: {costs.attention_flops(1, tokens, tokens, width) / tiled:4.0f} FLOP/byte, the ridge at {ridge:.0f}")
print(f"keys and values of one head: {4 * tokens * width / 1e6:.1f} MB")

# %% [markdown]
# About one FLOP a byte for each query of the tile, whatever the length: below the ridge. So a fused kernel is bound by arithmetic only if most of these reads end in a cache. The keys and values of one head fit into the 50 MB of an H100's L2 cache {cite}`nvidia2022`, and tiles that run at the same time share them.
#
# These are predictions from published figures. The GPU measurements of this book are **not taken yet**; when they are, they will stand in `chapters/data/gpu-roofline.json` beside these lines. Here is the same comparison on this processor, where it can be measured:

# %% tags=["nbval-ignore-output"]
def in_steps():
    for program in programs.values():                        # into the arrays that are there already
        program()


def in_fresh_memory():
    return torch.bmm(torch.softmax(torch.bmm(scaled, k.mT), -1), v)


ways = {"steps": in_steps, "fresh": in_fresh_memory, "fused": lambda: F.scaled_dot_product_attention(q[None], k[None], v[None])}
both = measure.medians(measure.cpu_times(ways, repeats=7))
least = sum(bounds.values()) / max(4 * n * n * heads * d / peak, 16 * n * heads * d / bandwidth)
print(f"three steps take {both['steps'] / both['fused']:.1f} times as long as fused, {both['fresh'] / both['fused']:.1f} times in fresh memory; by the roofline {least:.1f}")
assert both["steps"] > 1.05 * both["fused"] and both["fresh"] > both["steps"]

# %% [markdown]
# Little is saved here, and the roofline says why: on a core like this the products, which both must compute, are the larger part. (On a CPU, PyTorch takes fresh memory for scores and weights each time if it is not told otherwise. That costs more than their traffic: it is the price of new pages.)

# %% [markdown]
# ## Where do the numbers live?
#
# "Memory" is a staircase. The nearer the step, the smaller and the faster. A GPU consists of *multiprocessors*, 132 in an H100, each a small processor with *registers*, which hold the numbers it is computing with, and with *shared memory*, which the program fills. All of them share a cache (L2) and the main memory. A kernel's tiles have to fit into shared memory. Sizes {cite}`nvidia2022`:

# %%
LEVELS = {  # MB on the whole chip
    "registers": 132 * 256 * 1024 / 1e6,                     # 132 multiprocessors of 256 KiB
    "shared memory and L1": 132 * 256 * 1024 / 1e6,
    "L2 cache": 50,
    "main memory": 80_000,
}
print({name: f"{size:,.0f} MB" for name, size in LEVELS.items()})

# %% mystnb={"image": {"alt": "Squares whose areas are the sizes of the memories of an H100 and of one head's scores: main memory is a large square, the scores a small one, and registers, shared memory and L2 cache are specks beside them."}, "figure": {"caption": "The memories of an H100 to scale. The scores of one head at 16,384 tokens, in bfloat16, are drawn beside them.", "name": "fig-hierarchy"}}
plots.hierarchy({**LEVELS, "scores of one head, 16k tokens": 2 * 16384**2 / 1e6})
plt.show()

# %% [markdown]
# {numref}`fig-hierarchy` draws the sizes as areas: the scores of one head are ten times the L2 cache. What fits into the 228 KiB of shared memory that one multiprocessor has (227 of them for one program; the rest of its 256 is a cache)? A tile of queries, a tile of keys, a tile of values, and the tile of scores between them must be there at the same time. How large can tiles of as many queries as keys be, with heads of 128 in bfloat16 and scores in float32?

# %%
for tile in (64, 128, 256):
    kib = (3 * tile * 128 * 2 + tile * tile * 4) / 1024
    print(f"tiles of {tile:3}: {kib:5.0f} KiB")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Between 128 and 256. Real kernels keep the scores in registers, and use the room for the next tiles of keys and values, which arrive meanwhile; their tiles are of the same order, not square and not always powers of two. How large they may be is no law of attention: it is a matter of 228 KiB of shared memory and 256 KiB of registers.
# :::
#
# ## Compute it again, or read it back?
#
# The backward pass needs the weights. To keep them is to write and read two bytes for each pair; to compute the score behind one again is $2d$ FLOPs (its exponential comes in the next section). Which is faster, on an H100 and here?

# %%
def picoseconds(flops_per_s, bytes_per_s, width, bytes_per_number):
    return 1e12 * 2 * width / flops_per_s, 1e12 * 2 * bytes_per_number / bytes_per_s


again, back = picoseconds(*GPUS["H100 SXM"], 64, 2)
print(f"H100, heads of 64: {again:.2f} ps to compute a score again, {back:.2f} ps to write it and read it back")
assert again < back / 4

# %% tags=["nbval-ignore-output"]
again_here, back_here = picoseconds(peak, bandwidth, 64, 4)
print(f"one core here: {again_here:.0f} ps to compute it again, {back_here:.0f} ps to write it and read it back")
assert abs(again_here / back_here / (16 * bandwidth / peak) - 1) < 1e-9  # 2d FLOPs against 8 bytes: 16 over the balance, for d = 64

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# On the GPU computing is nine times cheaper: recomputation, which sounds like waste, *is* the saving {cite}`dao2022`. By these two rates it is the other way round on the core that made this page. (Two rates are not a timing: to keep the weights also costs fresh memory, and its size.) Whether recomputing pays is a property of the machine: $2d$ FLOPs against $2b$ bytes for numbers of $b$ bytes, so that the time of the first over that of the second is $d/b$ over the balance. Below 1, recompute.
# :::
#
# ## What fusing does not remove
#
# The exponentials. Here first: softmax inside a cache, beside the softmax from main memory that was timed above.

# %% tags=["nbval-ignore-output"]
small, near_by = draw(256, 1024), torch.empty(256, 1024)     # 1 MiB each
inside = measure.medians(measure.cpu_times({"softmax": lambda: torch.softmax(small, -1, out=near_by)}, repeats=9))["softmax"] / small.numel()
far_away = measured["softmax"] / (heads * n * n)
print(f"{1e9 * inside:.2f} ns a number in a cache, {1e9 * far_away:.2f} ns from main memory, whose 8 bytes take {8e9 / bandwidth:.2f} ns")
assert far_away < 2 * inside and 8 / bandwidth < 0.8 * far_away  # it was not for memory that softmax waited

# %% [markdown]
# No faster in the cache, so it was not memory that softmax waited for. On GPUs, too, this third limit exists: a multiprocessor of an H100 computes 16 exponentials per clock and 4096 FLOPs of dense bfloat16 products; the whole chip 3.9 · 10¹² exponentials a second {cite}`shah2024,nvidia2022`. Each pair needs one, beside its $4d$ FLOPs. For which width of head do they take as long as the products?

# %%
exponentials = 3.9e12
for width in (32, 64, 128, 256):
    products, powers = 1e12 * 4 * width / h100_peak, 1e12 / exponentials
    print(f"heads of {width:3}: products {products:.2f} ps a pair, exponential {powers:.2f} ps")
print(f"a weight computed again, heads of 64: {again + powers:.2f} ps, read back: {back:.2f} ps")
assert again + powers < back / 2

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# At 64: in the time of one exponential go 4096 / 16 = 256 FLOPs, and a pair has $4d$. Its exponentials alone make softmax, the step without a single product, take as much time as both products together at that width, and half as much at 128. (A weight that is computed again needs its exponential too: it is still three times cheaper than reading it back.) So the fastest kernels compute the exponentials of one tile *while* the matrix units multiply another {cite}`shah2024`. On the next generation of GPUs, Blackwell, the matrix units double and the exponential units do not: there the width at which the two take equally long moves to 128, and FlashAttention-4 computes a part of its exponentials as polynomials, in the units for ordinary arithmetic {cite}`zadouri2026`.
# :::
#
# ### A roof that was not the roof
#
# One mistake is easily made: to take the bytes of the *inputs and results* for the bytes that a program moves. By that count, three steps and one kernel would be the same.

# %%
ideal = costs.attention_cost(heads, n, n, d, fused=True)
moved_by_steps = bytes_moved(in_steps)
print(f"inputs and result {4 * ideal.moved / 1e6:.1f} MB: {ideal.intensity():.0f} FLOP/byte; moved in three steps {moved_by_steps / 1e6:.0f} MB: {ideal.flops / moved_by_steps:.0f} FLOP/byte")
assert moved_by_steps > 30 * 4 * ideal.moved

# %% [markdown]
# By its inputs this would lie far right of the ridges of all three GPUs; by what the program moves, far left of them. A profiler that divides FLOPs by the size of the inputs would call naive attention bound by arithmetic on a GPU. It is the program that has an intensity, not the formula.
#
# ## One query at a time
#
# When a model generates, there is one query, and every key and value is read for it. What is the intensity of that?

# %%
for kv_heads in (32, 8, 1):
    cost = costs.decode_cost(32, 32768, 128, kv_heads=kv_heads)
    seconds = least_seconds(cost)
    print(f"{kv_heads:2} key heads for 32: {cost.intensity(2):4.1f} FLOP/byte, at least {1e6 * seconds:5.0f} µs for 32,768 tokens on an H100")

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# One FLOP per byte if every head has its own keys: each number of the *key-value cache* (the keys and values kept from earlier tokens; no relation of the caches above) is two bytes and takes part in one multiplication and one addition. Three hundred times below the ridge. Sharing keys between heads ([chapter 6](06_multi_head.ipynb)) raises it in proportion if the kernel reads each key once for all its heads, and so does checking several guessed tokens in one pass: what is read serves them all. Otherwise only a smaller key-value cache lowers this bound; to come near it, the keys must be split over all multiprocessors ([chapter 23](23_block_sparse_kernel.ipynb)).
# :::
#
# ## What to remember
#
# | claim | what decides | what showed it |
# |---|---|---|
# | time is at least FLOPs / peak and bytes / bandwidth | the larger of the two | the sum and the product |
# | $QK^\top$ has $d/2$ FLOPs per byte in float32, $d$ in bfloat16 | the width of a head, not the length | counted from the arrays |
# | naive attention is bound by memory on GPUs, for heads of up to 128 | their balance is 150 to 300 | published speeds |
# | fused attention *can be* bound by arithmetic, beyond some hundred tokens | large tiles, and keys and values that stay in a cache | 128, 256, 511 FLOP/byte against 295; 64, 127, 252 without the cache |
# | recomputing beats reading | on GPUs, several times; not on a core with a low balance | picoseconds |
# | exponentials are not free | at heads of 64 they cost as much as the products | 3.9 · 10¹² a second |
# | decoding waits for the key-value cache | one FLOP per byte | one query |
#
# **In practice.** Kernel authors start from this drawing: it says how far a kernel is from the best that *any* kernel could do, and of which kind the distance is. Vendors' profilers draw it from counters in the hardware, which see the caches too.
#
# **Shortcut taken here.** One level of memory and one kind of arithmetic. Caches soften the roof (scores of a short text never leave the L2 cache), peak rates are not sustained (clocks fall under load), and reading and computing overlap fully only if the program leaves the hardware enough to do meanwhile, or arranges it itself, which is what the following chapters are about.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Measure the peak and the bandwidth of a processor, and draw its roofline.
# - Say for each step of attention which limit it meets, on a core and on a GPU of published figures, and for which
#   widths of head.
# - Compute what fusing the three steps can save at most on a GPU, and name the third limit that it leaves.
# - Decide from $d$, the bytes of a number and a machine's balance whether to compute a score again or to read it back.
# - Explain why one query at a time waits for memory, and what sharing keys between heads changes.
# :::

# %% [markdown]
# ## Exercises

# %%
from coursework import check, require

# %% [markdown] tags=["ex:least_time", "ex-prompt"]
# ```{exercise} How fast could it be?
# :label: ex-least-time
# A program computes `flops` floating-point operations and moves `nbytes` bytes to and from memory. The processor computes at most `peak` operations a
# second and moves at most `bandwidth` bytes a second, and it can do both at the same time. Write `least_time(flops, nbytes, peak, bandwidth)`, which returns
# the least number of seconds that the program can take {cite}`williams2009`. All four may be numbers or arrays of one shape; `flops` or `nbytes` may be 0.
# ```

# %% tags=["ex:least_time", "ex-stub"]
def least_time(flops, nbytes, peak, bandwidth):
    raise NotImplementedError("replace this line")

# %% tags=["ex:least_time", "ex-check"]
check(least_time)

# %% tags=["ex:least_time", "ex-solution", "hide-cell"]
def least_time(flops, nbytes, peak, bandwidth):
    return np.maximum(flops / peak, nbytes / bandwidth)


require(least_time)

# %% [markdown] tags=["ex:naive_intensity", "ex-prompt"]
# ```{exercise} FLOPs per byte
# :label: ex-naive-intensity
# Write `naive_intensity(seq_q, seq_k, dim, nbytes, fused)`: the {term}`arithmetic intensity` of attention, in FLOPs per byte moved, for one head of width
# `dim` (queries, keys and values alike) with numbers of `nbytes` bytes. A multiplication and an addition are two FLOPs; count the two matrix products only. If `fused` is False, there are three
# steps, $QK^\mathsf T$, softmax and $AV$, and each reads its inputs from memory and writes its result there {cite}`dao2022`. If it is True, the queries, keys and values
# are read once and the result is written once, and nothing else is moved.
# ```

# %% tags=["ex:naive_intensity", "ex-stub"]
def naive_intensity(seq_q, seq_k, dim, nbytes, fused):
    raise NotImplementedError("replace this line")

# %% tags=["ex:naive_intensity", "ex-check"]
check(naive_intensity)

# %% tags=["ex:naive_intensity", "ex-solution", "hide-cell"]
def naive_intensity(seq_q, seq_k, dim, nbytes, fused):
    flops = 2 * seq_q * seq_k * (dim + dim)
    moved = 2 * seq_q * dim + 2 * seq_k * dim  # queries and result, keys and values
    if not fused:
        moved += 4 * seq_q * seq_k  # scores written, read; weights written, read
    return flops / (moved * nbytes)


require(naive_intensity)

# %% [markdown] tags=["ex:largest_tile", "ex-prompt"]
# ```{exercise} How large may a tile be?
# :label: ex-largest-tile
# A program of a GPU has `memory` bytes of fast memory. For attention in square tiles it must hold at the same time a tile of queries, one of keys and one of values, each
# `tile` rows of `dim` numbers of `nbytes` bytes, and the tile of scores between them, `tile` by `tile` numbers of 4 bytes. Write `largest_tile(memory, dim, nbytes)`, which
# returns the largest `tile` that fits and is a power of two, as kernels want it, at least 16; and 0 if not even 16 fits. Exactly full is allowed. (Python ints.)
# ```

# %% tags=["ex:largest_tile", "ex-stub"]
def largest_tile(memory, dim, nbytes):
    raise NotImplementedError("replace this line")

# %% tags=["ex:largest_tile", "ex-check"]
check(largest_tile)

# %% tags=["ex:largest_tile", "ex-solution", "hide-cell"]
def largest_tile(memory, dim, nbytes):
    tile = 0
    size = 16
    while 3 * size * dim * nbytes + 4 * size * size <= memory:
        tile, size = size, 2 * size
    return tile


require(largest_tile)

# %% [markdown] tags=["ex:explore_balance", "ex-prompt", "ex-open"]
# ```{exercise} Explore: where the cache ends
# :label: ex-explore-balance
# Time a sum in place, `torch.add(x, y, out=y)`, of arrays from 16 KiB to 256 MiB, and divide the bytes moved (three times the size of one) by the time. Where does the rate fall, and which sizes of your processor's caches do the steps show? Then do the same with softmax. Why does it show hardly any step?
# ```

# %% [markdown]
# **Sources.** The roofline: {cite:t}`williams2009`. Counting the traffic of attention: {cite:t}`dao2022`; exponentials: {cite:t}`shah2024`, {cite:t}`zadouri2026`. Figures of the GPUs: {cite:t}`nvidia2020`, {cite:t}`nvidia2022`, and for the H200 its [data sheet](https://www.nvidia.com/en-us/data-center/h200/).
