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
# # Why attention?
#
# *The animal didn't cross the street because it was too tired.* Who was tired? You looked back for the answer, past
# seven tokens that do not contain it, to one that does. Change the last word to *wide* and the answer lies somewhere else. This
# chapter asks what a network must be able to do to look back like that. You build three readers, set all three the same task, and
# measure what each of them can reach.
#
# :::{admonition} Before you start
# :class: note
# **You need** Python, matrix products, and to have seen a network train. **You will build** a reader with a fixed window, a
# recurrent reader, and a reader with {term}`attention`, and one more that answers perfectly with no training at all. **Time** about
# 70 minutes, with a good place for a break before *How far does a gradient reach?*; the cells run in about half a minute.
# The first figure shows the kind of look we are after.
# :::

# %%
import json

import matplotlib.pyplot as plt
import numpy as np

from attnlib.data import real_head
from attnlib.plots import why_attention as plots
from attnlib.reference import attention

rng = np.random.default_rng(0)
np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# The sentence has gone through part of a real pretrained encoder (all-MiniLM-L6-v2, a descendant of MiniLM {cite}`wang2020b`). One of its attention
# {term}`heads <head>` (layer 3, head 1, counted from zero) distributes, for every {term}`token`, a budget of exactly 1 over
# all tokens of the sentence. The shares are called {term}`weights <weight>`. `attnlib` is this book's own small package, and it ships the
# numbers of this head; the model itself adds the marks `[CLS]` and `[SEP]` around the sentence. These are the model's own weights:

# %%
head = real_head("pronoun")
it, animal, street = map(head.tokens.index, ("it", "animal", "street"))
row = head.weights[it]                             # (seq_k,)
print(head.tokens)
print(f"from it: animal {row[animal]:.2f}, street {row[street]:.2f}")
print(f"animal stands {it - animal} tokens back, street {it - street}")

# %% mystnb={"image": {"alt": "The 15 tokens in a row, with arcs from “it” to every other token. The arc to “animal”, eight tokens back, is by far the thickest and is labelled 0.64; [CLS] gets 0.12, and the rest are hairlines or thin. A shaded band over “it” and the four tokens before it does not contain “animal”."}, "figure": {"caption": "Where one head of a real encoder looks when it reads “it”: most of the weight goes eight tokens back, over the edge of a window of four.", "name": "fig-looking-back"}}
plots.looking_back(row, head.tokens, query=it, left=4)
plt.show()

# %% [markdown]
# A reader that sees only the last four tokens has one noun to choose from, the wrong one. How far would it have to see?

# %%
for left in (4, 7, 8):
    seen = head.tokens[it - left:it]               # `left` tokens before "it"
    found = "animal" if "animal" in seen else "no animal"
    print(f"window of {left}:", " ".join(seen), "|", found)
assert "animal" not in head.tokens[it - 7:it]

# %% [markdown]
# "Then take a window of 8" is no answer, because no distance is the right one. When the sentence ends in *wide*, *it* should
# mean the street, two tokens back, and in the next sentence the noun may stand thirty tokens back. **What** matters depends on the content; **where**
# it stands follows from that.
#
# Before the next cell: when the last word becomes *wide*, does this head turn to the street?

# %%
wide = real_head("pronoun", ending="wide")
row_wide = wide.weights[it]
print(f"tired: animal {row[animal]:.2f}, street {row[street]:.2f}")
print(f"wide : animal {row_wide[animal]:.2f}, street {row_wide[street]:.2f}")
# it moves, but it does not flip:
assert row[animal] / 2 > row_wide[animal] > row_wide[street] > 2 * row[street]

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Halfway. The weight on *animal* falls by more than half and *street* more than doubles, but *animal* stays ahead. One head is not the
# model's opinion about the pronoun, and a weight is not an explanation (a later chapter tests what heads really do). We use this head
# because it shows a *long look that depends on content*, no more.
# :::
#
# ## A task that is nothing but looking back
#
# Language mixes a hundred difficulties. We want one: find, far back, the thing that goes with what is in front of you. That is
# {term}`associative recall` {cite}`ba2016`. A **story** lists pairs, a letter and a digit. Then comes a **question**, one of the letters; the answer
# is the digit that stood behind it.
#
# Letters are tokens 0 to 7, digits tokens 8 to 15. Each letter occurs at most once in a story; the digits are drawn afresh for every
# story, so nothing can be learned by heart.

# %%
KEYS = VALUES = 8
NAMES = list("abcdefgh") + list("01234567")


def make_recall(rng, batch, pairs):
    letters = np.tile(np.arange(KEYS), (batch, 1))
    keys = rng.permuted(letters, axis=1)[:, :pairs]         # (batch, pairs)
    values = rng.integers(VALUES, size=(batch, pairs))
    story = np.stack([keys, KEYS + values], axis=-1)        # a 3, c 1, ...
    return story.reshape(batch, 2 * pairs), keys, values  # all keys are asked


story, asked, answers = make_recall(rng, batch=2, pairs=8)
for i in range(2):
    listed = " ".join(NAMES[token] for token in story[i])
    print(listed, f"  {NAMES[asked[i, 0]]}?  ->", answers[i, 0])

# %% [markdown]
# Every letter of a story is asked once, each as a separate question about the same story: eight lessons from one story.
#
# What is *not knowing* worth? A blind guess is right one time in eight. But a reader that has noticed **which digits occur**, and
# not which letter each belongs to, can do better: it names the most frequent digit. By how much?

# %%
def most_frequent(pairs):
    _, _, values = make_recall(np.random.default_rng(1), 20_000, pairs)
    counts = (values[:, :, None] == np.arange(VALUES)).sum(axis=1)
    return (counts.max(axis=1) / pairs).mean()     # counts: (batch, VALUES)


# %%
guess = np.array([most_frequent(pairs) for pairs in range(1, 9)])
print("blind guess", 1 / VALUES)
print("most frequent digit, 1 to 8 pairs:", guess.round(2))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# With eight pairs it is right about one time in three, more than twice the blind guess, without having tied a single letter to
# a single digit. Any result below has to be held against **this** line, not against 1/8.
# :::
#
# ## The frame for the readers
#
# This is the only chapter of Part I that leans on PyTorch, and all you need of it is this paragraph. A *tensor* is an array that remembers how it was
# computed; `loss.backward()` follows that memory back and leaves in each parameter's `.grad` the derivative of the loss; the
# *optimiser* uses it for a small step downhill. `nn.Embedding` is a table with one learned vector per token (an {term}`embedding`), `nn.Linear` a learned matrix
# (and a bias). From [chapter 2](02_queries_keys_values.ipynb) on Part I is NumPy; PyTorch only checks it.

# %%
import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)      # so small, they gain nothing from more
torch.manual_seed(0)


class Reader(nn.Module):
    def forward(self, story, asked):  # numbers -> (batch, asked, VALUES)
        return self.read(self.embed(story), self.embed(asked))


def one_row_each(story, asked):
    copies = story.repeat_interleave(asked.shape[1], dim=0)
    questions = asked.flatten(0, 1)[:, None]  # (batch·asked, 1, dim)
    return torch.cat([copies, questions], dim=1)


# %% [markdown]
# A reader turns token vectors into one {term}`logit` per digit for every question. The three differ in `embed` and `read` alone, which come below; task, training and exam
# are the same. `one_row_each` puts each question behind its own copy of the story, so that a batch of 128 stories with 8 questions becomes 1024 rows.

# %%
def train(reader, steps, make=make_recall, lr=0.01):
    optimiser = torch.optim.Adam(reader.parameters(), lr)
    for _ in range(steps):
        made = make(rng, 128, int(rng.integers(1, 9)))
        story, asked, answers = map(torch.from_numpy, made)
        logits = reader(story, asked).flatten(0, 1)
        loss = F.cross_entropy(logits, answers.flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()


# %% [markdown]
# (Recurrent networks are usually trained with clipped gradients; the others bear it.) The exam is the same for all: 1000 stories, and the share of right answers for each place, that is, for the first pair of the story, the second, and so on.

# %%
@torch.no_grad()
def exam(reader, pairs=8, make=make_recall):
    made = make(np.random.default_rng(1), 1000, pairs)     # the same for all
    story, asked, answers = map(torch.from_numpy, made)
    right = reader(story, asked).argmax(dim=-1) == answers
    return right.float().mean(dim=0).numpy()  # (pairs,): by place


def parameters(reader):
    return sum(p.numel() for p in reader.parameters())

# %% [markdown]
# Stories have 1 to 8 pairs, mixed, so that everyone may begin with the easy ones. All readers train with the same
# optimiser and see 128 stories a step; the step size is, of the three we tried, the one that suits the recurrent reader best (the record below has the numbers).
#
# ## A window
#
# The first reader puts the vectors of the last few tokens side by side and lets a small network decide. Ours sees the
# question and a {term}`window` of the 8 tokens before it: four of the eight pairs.

# %%
class WindowReader(Reader):
    def __init__(self, left, dim=16, hidden=192):
        super().__init__()
        self.left, self.embed = left, nn.Embedding(KEYS + VALUES, dim)
        self.decide = nn.Sequential(
            nn.Linear((left + 1) * dim, hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, VALUES))

    def read(self, story, asked):
        rows = one_row_each(story, asked)[:, -self.left - 1:]   # all it sees
        short = self.left + 1 - rows.shape[1]
        rows = F.pad(rows, (0, 0, short, 0))  # zeros in front
        logits = self.decide(rows.flatten(1))       # (batch·asked, VALUES)
        return logits.unflatten(0, asked.shape[:2])  # (batch, asked, VALUES)


# %% [markdown]
# Four pairs in sight, eight to ask about. What share of right answers do you expect, on average? And for each of the eight places?

# %% tags=["nbval-ignore-output"]
window = WindowReader(left=8)
train(window, 600)
by_place = exam(window)                  # first pair of the story first
print(f"mean {by_place.mean():.2f}, by place", by_place)
assert by_place[4:].min() > 0.9          # inside the window: solved
assert by_place[:4].max() < 0.2          # outside: a blind guess, 1/8 = 0.125

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# A half plus a half of one eighth: $\tfrac12 \cdot 1 + \tfrac12 \cdot \tfrac18 = 0.56$. The mean looks like a reader that is right a bit more
# often than not. In truth there is no such reader: it knows all of the nearest four pairs and *nothing* about the others, and no training will change
# that. A mean over distances hides exactly what this chapter is about.
# :::
#
# ## A state
#
# A recurrent reader sees everything, one token after another, and carries a **state** along: a vector that it updates at each token. Ours is
# a GRU {cite}`cho2014`, with gates that let it keep, overwrite or ignore; like the LSTM {cite}`hochreiter1997`, it was made for remembering far.
# `state` is all that is left of the story when the question comes.

# %%
class RecurrentReader(Reader):
    def __init__(self, width, dim=32):
        super().__init__()
        self.embed = nn.Embedding(KEYS + VALUES, dim)
        self.out = nn.Linear(width, VALUES)
        self.gru = nn.GRU(dim, width, batch_first=True)

    def read(self, story, asked):
        _, state = self.gru(story)  # (1, batch, width): all it keeps
        state = state.repeat_interleave(asked.shape[1], dim=1)
        questions = asked.flatten(0, 1)[:, None]
        _, state = self.gru(questions, state)   # one step more
        return self.out(state[0]).unflatten(0, asked.shape[:2])


# %% [markdown]
# It gets 1000 steps, and we look in halfway.

# %% tags=["nbval-ignore-output"]
gru = RecurrentReader(width=64)
train(gru, 500)
halfway = exam(gru).mean()
train(gru, 500)
by_place_gru = exam(gru)
print(f"{parameters(gru)} parameters")
print(f"500 steps {halfway:.2f}, 1000 steps {by_place_gru.mean():.2f}")
assert halfway + 0.05 < by_place_gru.mean() < 0.95  # partial, still improving
assert by_place_gru.min() > guess[-1] + 0.05  # everywhere above counting

# %% [markdown]
# Partial, at every distance, and still improving when we stop. So be careful with the conclusion: this does **not** show that a GRU *cannot* do it. We
# come back to what limits it.
#
# ## A look back
#
# The third reader keeps every token's vector and, when it needs one, **compares** and fetches. In each layer every token sends out a {term}`query`
# $q$, shows a {term}`key` $k$ and holds ready a {term}`value` $v$, three linear functions of its vector. It then receives the mean of the values of all tokens up to
# itself, weighted by how well its query matches their keys (a {term}`softmax` of the matches: $e$ to the power of each, divided by the sum of these), and adds it to its vector. PyTorch calls this `scaled_dot_product_attention`; the next six
# chapters take it apart. A learned vector per place tells the reader where each token stands.

# %%
class AttentionReader(Reader):
    def __init__(self, layers, dim=32, longest=17):
        super().__init__()
        self.embed = nn.Embedding(KEYS + VALUES, dim)
        self.place = nn.Embedding(longest, dim)  # 17: 8 pairs, a question
        self.layers = nn.ModuleList(
            nn.Linear(dim, 3 * dim, bias=False) for _ in range(layers))
        self.out = nn.Linear(dim, VALUES)

    def read(self, story, asked):
        x = one_row_each(story, asked)
        x = x + self.place.weight[:x.shape[1]]    # (rows, seq, dim)
        for layer in self.layers:
            q, k, v = layer(x).chunk(3, dim=-1)   # each token looks back:
            x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(x[:, -1]).unflatten(0, asked.shape[:2])


# %% tags=["nbval-ignore-output"]
two_layers = AttentionReader(layers=2)
train(two_layers, 200)
by_place_attention = exam(two_layers)
print(f"{parameters(two_layers)} parameters: {by_place_attention.mean():.3f}")
assert by_place_attention.min() > 0.95
assert parameters(two_layers) < parameters(gru) / 2

# %% mystnb={"image": {"alt": "Right answers over the distance to the value, from 1 to 15 tokens. Attention stays at 1 throughout. The GRU runs level at about three quarters. The window is at 1 up to distance 7, then drops at once to the dashed line of a blind guess at one eighth."}, "figure": {"caption": "The window falls off a cliff, the recurrent state is equally vague everywhere, attention is right at every distance.", "name": "fig-readers-by-distance"}}
distances = 2 * np.arange(8) + 1  # the last value stands 1 before the question
rates = {"window of 8": by_place[::-1], "GRU, width 64": by_place_gru[::-1],
         "attention": by_place_attention[::-1]}
plots.by_distance(distances, rates, chance=1 / VALUES)
plt.show()

# %% [markdown]
# With less than half of the GRU's parameters and a fifth of its steps, attention answers (nearly) everything. In language models, too, recall is where attention
# leads: {cite:t}`arora2023` trace most of the gap in how well the next token is predicted, between attention and gated convolutions, to tokens that repeat something said before.
#
# ## Does one look suffice?
#
# The reader above has two attention layers. Every question sees every token already in the *first*. So one layer should be enough, shouldn't it?

# %% tags=["nbval-ignore-output"]
one_layer = AttentionReader(layers=1)
train(one_layer, 200)
share_one = exam(one_layer).mean()
print(f"one layer: {share_one:.2f}, most frequent digit: {guess[-1]:.2f}")
assert abs(share_one - guess[-1]) < 0.05

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It stays on the line of the reader that counts digits and ties none of them to a letter. A question *a?* finds the letter *a* in the story, but *a* knows nothing of
# its neighbour; and it sees all the digits, but a digit does not know whose it is.
# :::
#
# No number of steps makes it perfect, and there is a proof in four stories. Ask each of them for *a*:
#
# | story | a0 b1 | b0 a1 | a1 b0 | b1 a0 |
# |---|---|---|---|---|
# | answer | 0 | 1 | 1 | 0 |
#
# Take one layer with one head and a linear read-out, as ours. Call the logit of 0 minus the logit of 1 the *lead* of answer 0. The reader answers from a
# weighted mean, and the weights are softmax's: a sum over the tokens, divided by a positive number. Multiply the lead by that number (its sign stays), and it is a
# **sum with one term per token**, where each term depends on that token, its place and the question, on nothing else. The outer two stories
# together contain exactly the same tokens at the same places as the inner two, so their two multiplied leads add up to the same total. But all four
# answers are right only if that total is positive for the outer two and negative for the inner two. Impossible: at most three can be right, with
# *any* parameters. (Three would beat counting, which gets two on average; so the proof does not explain why training stops as low as that.) We put all
# choices of two letters and two digits to both readers. For what share of them are all four answers right?

# %%
@torch.no_grad()
def all_four_right(reader):
    eight = torch.arange(8)
    a, b, x, y = torch.cartesian_prod(eight, eight, eight, eight).T
    keep = (a != b) & (x < y)            # two letters, two digits
    a, b, x, y = a[keep], b[keep], x[keep] + KEYS, y[keep] + KEYS
    right = torch.ones(len(a), dtype=torch.bool)
    for story, yes, no in (((a, x, b, y), x, y), ((b, x, a, y), y, x),
                           ((a, y, b, x), y, x), ((b, y, a, x), x, y)):
        logits = reader(torch.stack(story, dim=-1), a[:, None])[:, 0]
        row = torch.arange(len(a))
        right &= logits[row, yes - KEYS] > logits[row, no - KEYS]
    return right.float().mean().item()


# %% tags=["nbval-ignore-output"]
of_four = {"one layer": all_four_right(one_layer),
           "two layers": all_four_right(two_layers)}
print({name: f"{share:.2f}" for name, share in of_four.items()})
assert of_four["one layer"] == 0 and of_four["two layers"] > 0.9  # 0: the proof

# %% [markdown]
# (Several heads, or a small network after the layer, step outside this proof; the pairing still has to be computed somewhere. For a close relative of this
# task, a single layer of any kind needs exponentially more size than two layers do {cite}`sanford2024`.) How do two layers get around it? We
# look inside, with the function that [chapter 5](05_self_attention.ipynb) builds and that also returns the weights. `is_causal=True` above means that no token
# sees those after it; here that is the {term}`mask`.

# %%
def look_inside(reader, tokens):
    x = reader.embed(tokens) + reader.place.weight[:tokens.shape[1]]
    x = x.detach().numpy()                             # (batch, seq, dim)
    earlier = np.tri(tokens.shape[1], dtype=bool)      # True = may look
    maps = []
    for layer in reader.layers:
        q, k, v = np.split(x @ layer.weight.detach().numpy().T, 3, axis=-1)
        out, weights = attention(q, k, v, mask=earlier)
        x, maps = x + out, [*maps, weights]
    return maps  # (batch, seq_q, seq_k) each


test_story, test_asked, _ = make_recall(rng, 500, 8)
tokens = np.concatenate([test_story, test_asked[:, 2:3]], axis=1)  # the third pair
first, second = look_inside(two_layers, torch.from_numpy(tokens))

# %% mystnb={"image": {"alt": "Two 17 by 17 maps for one story. In layer 1 every digit's row has one dark cell just left of the diagonal, on its own letter; the letters' rows are spread. In layer 2 the last row, the question, has one dark cell: the digit behind the letter it asks for."}, "figure": {"caption": "What training found: in layer 1 every digit looks at the letter before it; in layer 2 the question looks at the digit that has taken up its letter.", "name": "fig-two-looks"}}
labels = [NAMES[token] for token in tokens[0]]
labels[-1] += "?"
maps = {"layer 1": first[0], "layer 2": second[0]}
plots.weight_maps(maps, labels, height=3.4)
plt.show()

# %% [markdown]
# (Of layer 2 only the last row is used; nothing ever asked the others to make sense.) First a step to the left: each digit fetches the letter before it and adds it to its own vector. Now one token holds both halves of a pair. Then a match:
# the question compares itself with what the digits have fetched. Is that so on average over 500 stories?

# %% tags=["nbval-ignore-output"]
digits, letters = np.arange(1, 16, 2), np.arange(0, 16, 2)
back = first[:, digits, letters].mean()   # from places 1, 3, ... to 0, 2, ...
match = second[:, 16, 5].mean()           # from the question to the third digit
print(f"layer 1, digit to its letter      : {back:.2f}")
print(f"layer 2, question to its own digit: {match:.2f}")
assert back > 0.8 and match > 0.8

# %% [markdown]
# Nobody told it to. The same two steps, *previous token, then match*, form in language models; {cite:t}`olsson2022` call the second step an **induction head**, take
# it apart in small models and argue that it matters in large ones. A later chapter finds some in a real one.
#
# ## What can a state hold?
#
# Back to the GRU. How does it fare with fewer pairs, and would a wider state help? A narrow one for comparison:

# %% tags=["nbval-ignore-output"]
narrow = RecurrentReader(width=16)
train(narrow, 1000)
pairs = np.arange(1, 9)
readers = {"GRU, width 16": narrow, "GRU, width 64": gru,
           "attention": two_layers}
curves = {name: np.array([exam(reader, n).mean() for n in pairs])
          for name, reader in readers.items()}
small, large = curves["GRU, width 16"], curves["GRU, width 64"]
print("width 16", small, "\nwidth 64", large)
assert small[-1] + 0.1 < large[-1] < large[1]
assert np.abs(small - guess).max() < 0.1  # the narrow one: counting

# %% mystnb={"image": {"alt": "Right answers over the number of pairs, 1 to 8. Attention stays at 1. The GRU of width 64 is near 1 up to about three pairs and falls to about three quarters at eight. The GRU of width 16 lies on the broad grey curve of the most frequent digit, which falls from 1 to about 0.3."}, "figure": {"caption": "After 1000 steps, a narrow GRU has learned which digits occur, a wider one also most of the pairing. Width and training buy it more.", "name": "fig-readers-by-pairs"}}
plots.by_pairs(pairs, curves, guess)
plt.show()

# %% [markdown]
# Is it short of *room*? Count. The digits behind eight given letters can be chosen in $8^8$ ways, and the state must be different for each,
# or two stories would get the same answers. How many bits is that, how many does the state have, and how many pairs could it hold at best?

# %%
bits_needed = 8 * np.log2(VALUES)
bits_there = 64 * 32                        # width 64, float32
most = bits_there // np.log2(VALUES)
print(f"needed {bits_needed:.0f} bits, there are {bits_there}:", end=" ")
print(f"enough for at most {most:.0f} pairs")
layers, tokens_read, width = len(two_layers.layers), 16, 32
print("numbers kept after 8 pairs: GRU", 64, end="   ")
print("attention", layers * 2 * tokens_read * width)      # 2: k and v

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It needs 24 bits and has two thousand. Eight pairs are far from the limit, so what stops our GRU is that training has not (yet) found a way to
# *address* its state. The limit itself is real: with an alphabet large enough, however it is trained, beyond 682 pairs it **must** give two stories the same answers. What attention keeps grows
# with what it reads; that is why it escapes this count, and also its price.
# :::
#
# Does training find a way in the end? We let the GRU of width 64 go on to six times as many steps, from three seeds. That takes minutes, so here we read
# the record (`python -m tools.record_recall_gru` makes it anew, from the cells above).

# %%
with open("data/01_recall_gru.json") as file:
    record = json.load(file)
print("steps ", record["steps"])
for seed, share in zip(record["seeds"], record["share_right"], strict=True):
    print("seed", seed, share)
print("after 1000 steps, by step size:")
print(record["after_1000_steps_by_step_size"])
shares = np.array(record["share_right"])                  # (seeds, steps)
assert (shares[:, 0] < 0.8).all() and (shares[:, 2:] > 0.9).all()

# %% [markdown]
# (The run in this chapter is a fourth draw, and a luckier one.) It does: from every seed it passes 90% by step 3000, fifteen times the steps of the attention reader, with over twice its parameters. So the result, in exact terms: on eight pairs a GRU is not unable, it is
# **slow to learn**; and attention is quick because comparing and fetching is what it is made of.
#
# We can take training out of the comparison. Give every letter a vector $k$, every digit a one-hot vector $v$, and build two readers by hand that are
# asked with the letter's own vector. The first has a state, a matrix to which each pair adds the outer product of its two vectors {cite}`ba2016,schlag2021`. The second is attention, where every letter asks with its own vector, made long so that the best match takes all the weight.

# %%
def by_state(k, v):
    state = np.zeros((k.shape[1], v.shape[1]))     # (dim, VALUES), any pairs
    for k_i, v_i in zip(k, v, strict=True):
        state += np.outer(k_i, v_i)                # one step per pair
    return k @ state                               # ask for every letter once


def by_attention(k, v):
    sharp = 100 * k.shape[1] ** 0.5   # attention divides by √dim (chapter 3)
    return attention(sharp * k, k, v)[0]  # the best match takes all


one_hot = np.eye(8)
digits_now = one_hot[rng.integers(8, size=8)]
assert np.array_equal(by_state(one_hot, digits_now), digits_now)
assert np.allclose(by_attention(one_hot, digits_now), digits_now)

# %% [markdown]
# With eight perpendicular letter vectors both are perfect, and the state holds $8 \times 8 = 64$ numbers, as many as our GRU (which would also have to hold each letter until its digit
# comes). Nothing in recurrence forbids the solution; it has to be *found*, or built in. Now let the alphabet grow: more letters than dimensions, so their vectors (random directions) can no longer all be perpendicular.

# %%
def right_share(read, dim, pairs, trials=20):
    right = []
    for _ in range(trials):
        k = rng.normal(size=(pairs, dim))
        k /= np.linalg.norm(k, axis=1, keepdims=True)  # a direction per letter
        digits = rng.integers(VALUES, size=pairs)
        right.append(read(k, np.eye(VALUES)[digits]).argmax(axis=1) == digits)
    return np.mean(right)


# %%
stored = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256])
readers_by_hand = {"state of 8 × 8": (by_state, 8),
                   "state of 32 × 8": (by_state, 32),
                   "attention, width 8": (by_attention, 8)}
memory = {name: np.array([right_share(read, dim, n) for n in stored])
          for name, (read, dim) in readers_by_hand.items()}
later = memory["state of 32 × 8"][2:] - memory["state of 8 × 8"][:-2]
assert np.abs(later).max() < 0.12  # four times the state and pairs
for name, share in memory.items():
    print(f"{name:18}", share[[2, 5, 8]].round(2), "at 4, 32, 256 pairs")

# %% mystnb={"image": {"alt": "Right answers over pairs stored, 1 to 256 on a logarithmic axis. A state of 8 by 8 numbers starts at 1 and has fallen to about one half at 32 pairs; one of 32 by 8 gets there at about 128. Attention with vectors of width 8 stays close to 1 up to 256 pairs."}, "figure": {"caption": "No training, the same vectors, two ways to keep them. A sum of fixed size blurs as it fills; four times the state holds about four times the pairs. Keeping every pair and comparing does not blur, and costs memory that grows with the story.", "name": "fig-capacity"}}
plots.capacity(stored, memory, chance=1 / VALUES)
plt.show()

# %% [markdown]
# **Sum up or keep**: this choice runs through the sequence models of Part III, which returns to states that are written more cleverly
# (the fourth exercise makes a start) and to what they save.
#
# ## How far does a gradient reach?
#
# A network learns a connection only if the error at the answer sends a signal back to the token that matters. Measure it: how much does the answer
# change when the vector of the token at distance $t$ changes a little? We take the norm of $\partial\,\text{logits} / \partial x_t$ and call it the
# {term}`gradient reach`. It has one row for each of the eight logits; instead of eight backward passes, one pass for a random mix of the logits does, since the square of what comes back
# is, on average, the square of the norm.

# %%
def reach(reader, story, asked):
    x = reader.embed(story).detach().requires_grad_()
    logits = reader.read(x, reader.embed(asked))
    direction = torch.randn(logits.shape)              # the random mix
    (logits * direction).sum().backward()
    square = x.grad.double().square().sum(dim=-1)  # float32 would underflow
    return square.mean(dim=0).sqrt().flip(0).numpy()  # at distance 1, 2, ...


# %% [markdown]
# First untrained, as PyTorch initialises them, on 128 random tokens. Sketch the three curves before you run it, on a logarithmic axis.

# %% tags=["nbval-ignore-output"]
names = ("window of 8", "GRU, width 64", "attention, 2 layers")
noise = torch.from_numpy(rng.integers(KEYS + VALUES, size=(64, 129)))
fresh = (WindowReader(left=8), RecurrentReader(width=64),
         AttentionReader(layers=2, longest=129))
untrained = {name: reach(reader, noise[:, :128], noise[:, 128:])
             for name, reader in zip(names, fresh, strict=True)}
print("at distance             1      8      9     32    128")
for name, size in untrained.items():
    print(f"{name:20}", *(f"{size[t - 1]:6.0e}" for t in (1, 8, 9, 32, 128)))
on_window, on_gru, on_attention = untrained.values()
per_token = (on_gru[31] / on_gru[7]) ** (1 / 24)
print(f"the GRU keeps {per_token:.2f} of it per token")
assert (on_window[8:] == 0).all()                  # exactly zero, not small
assert 0 < on_gru[127] < 1e-9 * on_gru[0]          # tiny, and not zero
assert on_attention[127] > 0.1 * on_attention[0]

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# The window: level for eight tokens, then **exactly zero**. The GRU: a straight line downwards, that is, the same loss by about a third at every token:
# after 128 of them there is no signal that training could use, though it is not zero. Attention: level, if ragged. No token is farther than any other; one weighted sum leads from each of them to the question.
# (Levels depend on the start. A recurrent network whose gates begin at *keep* falls more slowly. And attention's level sinks as the story grows, because untrained weights share out their 1 about evenly.)
# :::
#
# And after training? We ask all 500 test stories for their third pair, which stands 12 and 11 tokens before the question.

# %% tags=["nbval-ignore-output"]
third = torch.from_numpy(test_story), torch.from_numpy(test_asked[:, 2:3])
trained = {name: reach(reader, *third)
           for name, reader in zip(names, (window, gru, two_layers), strict=True)}
contrast = {name: size[11 - 1] / np.median(size)         # the value asked for
            for name, size in trained.items()}
print({name: f"{ratio:.1f}" for name, ratio in contrast.items()})
held = trained["GRU, width 64"]
assert (trained["window of 8"][8:] == 0).all()     # no training moves this
assert held[15] > 0.1 * held[0]  # training has taught it to hold
assert contrast["attention, 2 layers"] > 2 * contrast["GRU, width 64"]

# %% mystnb={"image": {"alt": "Two panels of gradient norm, logarithmic, over distance. Before training, on 128 tokens: the window's line is level up to 8 and ends; the GRU's falls in a straight line from 0.2 to below 1e-11 at about 60 tokens; attention's is level near 0.02 as far as 128. After training, on 16 tokens: the window still ends at 8; the GRU is nearly level; attention is jagged, with a tall peak at distances 11 and 12, a shaded band that marks the pair asked for."}, "figure": {"caption": "Before training, reach is a matter of architecture and initialisation. Training teaches the GRU to hold on to everything alike, attention to answer to the pair that was asked for, and the window nothing beyond its edge.", "name": "fig-reach"}}
panels = {"before training, 128 random tokens": untrained,
          "after training, 8 pairs (shaded: the one asked for)": trained}
plots.reaches(panels, asked=(11, 12))
plt.show()

# %% [markdown]
# The lower panel says something the upper one cannot. Holding is no longer the GRU's problem: its gradient reaches the first token as well as the last. What it lacks is
# *choice*: the digit asked for moves its answer less than twice as much as the median token does. Attention's answer hangs on one pair.
#
# ### What the famous table says
#
# {cite:t}`vaswani2017` compare layers by the longest path a signal must take between any two positions, and by how many steps must wait for one another (their Table 1; $n$ tokens, kernels of
# $k$, neighbourhoods of $r$):
#
# | layer | sequential operations | maximum {term}`path length` |
# |---|---|---|
# | self-attention | $O(1)$ | $O(1)$ |
# | recurrent | $O(n)$ | $O(n)$ |
# | convolutional | $O(1)$ | $O(\log_k n)$ |
# | self-attention restricted to $r$ neighbours | $O(1)$ | $O(n/r)$ |
#
# Read it with four notes. The $\log_k n$ is for *dilated* convolutions; with contiguous kernels it is $n/k$, as their text says. A path length is a count of layers or steps, not a strength: our GRU has the same path length before
# and after training. Nor does it say how many steps the *answer* takes: one layer of attention has path length 1 to every token, and failed. And the table's remaining column, the cost of a layer,
# leaves out the projections; [chapter 14](14_complexity.ipynb) counts everything.
#
# ## Windows, stacked
#
# A window is cheap, and one can put a window on a window. The {term}`receptive field` then grows with each layer. With a window of 4 to the left, how many layers does *it* need to hear
# of *animal*, 8 tokens back?

# %%
def farthest(layers, left, seq=40):
    q_idx, k_idx = np.ogrid[:seq, :seq]
    near = (k_idx <= q_idx) & (k_idx >= q_idx - left)    # (seq_q, seq_k)
    heard = np.eye(seq, dtype=bool)  # at first every token knows only itself
    for _ in range(layers):
        heard = near @ heard  # who is heard by someone in my window
    return seq - 1 - heard[-1].argmax()  # how far back the last token hears


print({stack: int(farthest(stack, left=4)) for stack in (1, 2, 3, 4)})
assert all(farthest(stack, left) == stack * left
           for stack in (1, 2, 3, 5) for left in (1, 4, 7))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Two, because each layer adds `left`. That is Table 1's $n/r$: the distance, divided by the window. But hearing *of* a token is not the same as hearing it: what arrives from 8 back has passed through the
# vector of a token in the middle, which had to keep it among its own affairs. A stack of windows is a short recurrence, along the layers.
# :::
#
# ## Two sequences, or one?
#
# Attention did not begin inside one sequence. The encoder–decoder networks of 2014 read the source into one fixed vector and wrote the target from it {cite}`cho2014`: our recurrent reader. {cite:t}`bahdanau2014`
# suspected this vector to be the bottleneck and let the {term}`decoder` *ask*. Before each word it writes, its state (the query) is scored against the vectors of all source words (the keys) by a small network; softmax
# turns the scores into weights; and what it receives is the weighted mean of the same vectors (the values). They called the weights a soft **alignment** between two sentences.
#
# Where is the difference to {term}`self-attention`? Here is our head again, as a function of two arguments: who asks, and who is asked, the **context**.

# %% tags=["nbval-ignore-output"]
def look(x, context):
    q = x @ head.w_q + head.b_q         # (seq_q, dim_head)  who asks
    k = context @ head.w_k + head.b_k  # (seq_k, dim_head)  by what it is found
    v = context @ head.w_v + head.b_v  # (seq_k, dim_head)  what is handed over
    return attention(q, k, v)


out, weights = look(head.x, head.x)  # a sequence asks itself: self-attention
print("out", out.shape, "weights", weights.shape)
print(f"to the model's own: {np.abs(weights - head.weights).max():.0e}")
assert np.allclose(weights, head.weights, atol=1e-5)  # float32: about 7 digits

# %% [markdown]
# To let one sequence ask *another*, not a line has to change. Take the vector of *it* from the sentence that ends in *tired*, and let it ask the sentence that ends in *wide*. Will its row look like
# the row of *tired* (0.64 on *animal*) or like the row of *wide* (0.27)?

# %%
_, [tired_asks_wide] = look(head.x[[it]], context=wide.x)  # (1, 15): one query,
_, [wide_asks_tired] = look(wide.x[[it]], context=head.x)   # another's keys
rows = {"tired asks wide": tired_asks_wide, "wide asks tired": wide_asks_tired}
for name, found in rows.items():
    print(f"{name}: animal {found[animal]:.2f}, street {found[street]:.2f}")
assert tired_asks_wide[animal] > 0.5 > wide_asks_tired[animal]

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Like the row of the sentence the *query* comes from: 0.68 and 0.25, against 0.64 and 0.27 at home. The two sentences offer this head much the same keys; what the last word has changed, for this row, is mostly
# the query. You have learned something about a real model by swapping one argument.
# :::
#
# (This head was never trained to look across; it works here because both sentences come out of the same model.) So the difference between attending across and attending within is **where the keys and
# values come from**, and nothing else. (How a score is computed is another matter; [chapter 3](03_scores.ipynb) compares Bahdanau's with the dot product.)
#
# | | queries from | keys and values from |
# |---|---|---|
# | alignment in translation {cite}`bahdanau2014`, {term}`cross-attention` | what is being written | the source |
# | {term}`self-attention` | the sequence | the same sequence |
# | sentence embedding of {cite:t}`lin2017` | learned parameters | the sentence |
#
# The move inside took three years. {cite:t}`cheng2016` let each word that an LSTM reads attend to the words before it (*intra-attention*); {cite:t}`parikh2016` dropped recurrence, aligned two sentences
# with each other and, as an option, each with itself; {cite:t}`lin2017` attended over a recurrent network's states with learned queries. {cite:t}`vaswani2017` built encoder and decoder out of attention with no recurrence and no
# convolution; between the two, Bahdanau's step is still there.
#
# ## The trap in the task
#
# One more reader, to end on a warning. It sees *only the question*, no story at all, and we write a generator with a mistake that is easy to make:

# %%
table = rng.integers(VALUES, size=KEYS)  # drawn once, outside the function


def make_recall_wrong(rng, batch, pairs):
    story, asked, _ = make_recall(rng, batch, pairs)
    story[:, 1::2] = KEYS + table[story[:, ::2]]
    return story, asked, table[asked]

# %% [markdown]
# Training stories and exam stories are drawn separately, as they should be. What will a reader score that cannot see them? Then set it the right exam.

# %% tags=["nbval-ignore-output"]
blind = WindowReader(left=0)
train(blind, 60, make=make_recall_wrong)
leaky, honest = exam(blind, make=make_recall_wrong).mean(), exam(blind).mean()
print(f"exam with the mistake {leaky:.2f}, without {honest:.2f}")
assert leaky > 0.95 and honest < 0.2

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# Everything, and then one in eight. Every story used the same table, so the table was learned into the parameters, and the story is not needed. The exam measured memory of the *training data* and called it recall from
# the *context*. Before you believe that a model looks something up, ask it with the context taken away.
# :::

# %% [markdown]
# ## What to remember
#
# | reader | what it keeps | reach | on our task |
# |---|---|---|---|
# | window | the last tokens | exactly zero beyond its edge; $L$ layers reach $L$ times as far | all inside, a blind guess outside |
# | recurrent | a state of fixed size | falls with distance at first; can be trained to hold | partial after 1000 steps, nearly all after 6000 |
# | attention, 1 layer | every token | the same to all | no better than counting digits; perfect it cannot be, provably |
# | attention, 2 layers | every token, twice | the same to all | solved in 200 steps: previous token, then match |
# | by hand: sum | a matrix of fixed size | – | exact for perpendicular keys, then it blurs |
#
# **In practice.** Real models stack many layers with many heads and put a small network (an MLP) after each. To save memory many mix kinds of layer: some with windows, or with states, and some that see everything; associative recall, with many
# questions per story as here, is a common exam for such mixtures {cite}`arora2023`.
#
# **Shortcut taken here.** One head, no norms, no MLP, a vocabulary of 16, and questions that repeat the letter exactly. Each reader was trained once, in a size that runs in seconds; the assertions
# leave room for other processors and seeds: in the record, the GRU's share after 1000 steps varies by a tenth between seeds, and the chapter's own run did better than all three, so do not compare its digits. Equal steps are not equal seconds: our attention reader reads the story again for every question, the GRU reads it once.

# %% [markdown]
# ## What you can now do
#
# :::{div} can-do
# - Predict the mean score of a reader that sees only some of the pairs, and say why no single place of the story is
#   answered at that rate.
# - Work out what a recall task pays for counting digits, with no letter tied to any of them, and hold every result
#   against that.
# - Show with four stories that one layer with one head and a linear read-out cannot answer them all, and name the two
#   looks by which two layers do.
# - Count the bits that a state needs to answer eight questions, and tell a state that is too small from one that is
#   slow to learn.
# - Sketch how the gradient falls with distance in an untrained window, GRU and attention reader, and measure it with
#   one backward pass.
# - Find out whether a model looks something up or has learned it by heart, by taking the context away.
# :::

# %% [markdown]
# ## Exercises
#
# Replace the line that raises, and run the cell with `check`: it tries your function on several inputs and names one thing it saw. The solution is folded below it. More in {doc}`/appendix/exercises`.

# %%
from coursework import check, require

# %% [markdown] tags=["ex:recall_at", "ex-prompt"]
# ```{exercise} An exam at one distance
# :label: ex-recall-at
# `make_recall(rng, batch, pairs)` makes stories of letters (tokens 0 to 7) and digits (tokens 8 to 15), `a 3 c 1 ...`, and asks for each of
# their letters once. Write `recall_at(rng, batch, distance)`: stories of 8 pairs with **one** question each. The question comes after the
# 16 tokens of the story, and stands `distance` tokens after the value it asks for: 1 for the last token of the story. Return `story`
# (batch, 16), `asked` (batch, 1), the letters, and `answers` (batch, 1), the digits as numbers from 0 to 7, as `make_recall` does. Letters and digits are drawn
# from `rng`, afresh for every story. For a distance that cannot be had, raise a `ValueError`.
# ```


# %% tags=["ex:recall_at", "ex-stub"]
def recall_at(rng, batch, distance):
    raise NotImplementedError("replace this line")

# %% tags=["ex:recall_at", "ex-check"]
check(recall_at)

# %% tags=["ex:recall_at", "ex-solution", "hide-cell"]
def recall_at(rng, batch, distance):
    if distance not in range(1, 16, 2):  # values stand 1, 3, ... 15 back
        raise ValueError(f"distance is {distance}, expected 1, 3, ... or 15")
    story, keys, values = make_recall(rng, batch, 8)
    pair = 8 - (distance + 1) // 2                 # distance 1: the last pair
    return story, keys[:, [pair]], values[:, [pair]]


require(recall_at)
inside = exam(window, make=lambda rng, batch, pairs: recall_at(rng, batch, 7))
outside = exam(window, make=lambda rng, batch, pairs: recall_at(rng, batch, 9))
assert inside.mean() > 0.9 and outside.mean() < 0.2  # the window's edge

# %% [markdown] tags=["ex:by_hand", "ex-prompt"]
# ```{exercise} A reader with no parameters
# :label: ex-by-hand
# A story lists pairs, a letter (tokens 0 to 7) and a digit (tokens 8 to 15), each letter at most once; the last token is one of its
# letters again, the question. The answer is the digit behind that letter. Solve the task with **two calls of `attention` and nothing
# learned**. Write `by_hand(tokens, attend)` for one row of token numbers, a story of any number of pairs and then the question, shape
# `(2·pairs + 1,)`; `attend(q, k, v)` is `attention`, which returns the result and the weights, handed in so that the calls can be
# counted. (It divides the scores by $\sqrt{\textit{dim}}$, which one-hot vectors can ignore.) Return the answer, an int from 0 to 7. Choose `q`, `k`, `v` from two kinds of one-hot vectors: what a token is,
# `np.eye(16)[tokens]`, and where it stands, `np.eye(len(tokens))`. Large factors make a look sharp. First let every token fetch the one
# before it; then match.
# ```


# %% tags=["ex:by_hand", "ex-stub"]
def by_hand(tokens, attend):
    raise NotImplementedError("replace this line")

# %% tags=["ex:by_hand", "ex-check"]
check(by_hand)

# %% tags=["ex:by_hand", "ex-solution", "hide-cell"]
def by_hand(tokens, attend):
    content, place = np.eye(KEYS + VALUES)[tokens], np.eye(len(tokens))
    ask_left = np.eye(len(tokens), k=-1)  # place i asks for place i - 1
    before, _ = attend(1000 * ask_left, place, content)      # (seq, 16)
    answer, _ = attend(1000 * content[-1:], before, content)
    return int(answer[0].argmax()) - KEYS  # who has my letter before it?


require(by_hand)

# %% [markdown] tags=["ex:layers_needed", "ex-prompt"]
# ```{exercise} How many layers?
# :label: ex-layers-needed
# Every layer of a network sees a window: itself and `left` places to the left. Write `layers_needed(distance, left, dilated=False)`:
# the smallest number of layers (an int) after which a token hears of the one `distance` back. Contiguous: every layer sees the tokens
# 0, 1, … `left` back. Dilated: layer $l = 0, 1, \dots$ sees those $0, s, 2s, \dots, \textit{left}\cdot s$ back, with
# $s = (\textit{left}+1)^l$. `distance` is an int from 0 to 99,999, `left` an int from 1. Distance 0 needs no layer. Beware of logarithms in
# floating point.
# ```


# %% tags=["ex:layers_needed", "ex-stub"]
def layers_needed(distance, left, dilated=False):
    raise NotImplementedError("replace this line")

# %% tags=["ex:layers_needed", "ex-check"]
check(layers_needed)

# %% tags=["ex:layers_needed", "ex-solution", "hide-cell"]
def layers_needed(distance, left, dilated=False):
    layers, reached, step = 0, 0, 1
    while reached < distance:
        layers, reached = layers + 1, reached + left * step
        step *= left + 1 if dilated else 1
    return layers          # dilated: reached is (left + 1)^layers - 1


require(layers_needed)

# %% [markdown] tags=["ex:overwrite", "ex-prompt"]
# ```{exercise} A state that can change its mind
# :label: ex-overwrite
# A story says *a 3* and later *a 5*. A state (dim, values) that sums the outer products of keys and values answers a key `k` with
# `k @ state`, so it returns the mixture of both. Write `overwrite(state, k, v)`, which returns a **new** state (dim, values) that answers
# the unit vector `k` (dim,) with exactly `v` (values,), whatever it answered before, and answers every vector perpendicular to `k` as before.
# `state` itself stays as it is. Hint: what does the old state say to `k`, and what is missing?
# ```


# %% tags=["ex:overwrite", "ex-stub"]
def overwrite(state, k, v):
    raise NotImplementedError("replace this line")

# %% tags=["ex:overwrite", "ex-check"]
check(overwrite)

# %% tags=["ex:overwrite", "ex-solution", "hide-cell"]
def overwrite(state, k, v):
    return state + np.outer(k, v - k @ state)      # add what is missing


require(overwrite)

# %% [markdown]
# This update is the *delta rule*; {cite:t}`schlag2021` give it to a fast recurrent layer, and Part III builds it.

# %% [markdown] tags=["ex:explore_gru", "ex-prompt", "ex-open"]
# ```{exercise} Explore: a fair chance
# :label: ex-explore-gru
# Give the recurrent reader what it wants: width 128, more steps, an LSTM, two layers, another step size. What is the smallest network that answers 95% of eight pairs after 1000 steps? Then find its limits from the other side: enlarge `KEYS` (and
# `VALUES`) to 16 and let stories have up to 16 pairs (mind `longest` and the numbers in `train`). Which reader suffers more? What does the baseline of the most frequent digit do?
# ```

# %% [markdown]
# **Sources.** Attention between two sequences: {cite:t}`bahdanau2014`; inside one: {cite:t}`cheng2016`, {cite:t}`parikh2016`, {cite:t}`lin2017`, {cite:t}`vaswani2017` (Table 1 and Section 4 for path lengths). Associative recall as a
# test of memory: {cite:t}`ba2016`, {cite:t}`arora2023`. Outer-product states: {cite:t}`schlag2021`. Induction: {cite:t}`olsson2022`. Recurrent networks with gates: {cite:t}`hochreiter1997`, {cite:t}`cho2014`.
