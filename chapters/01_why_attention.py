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
# 45 minutes; the cells run in about half a minute.
# The first figure shows the kind of look we are after.
# :::

# %%
import matplotlib.pyplot as plt
import numpy as np

from attnlib.data import real_head
from attnlib.plots import why_attention as plots
from attnlib.reference import attention

rng = np.random.default_rng(0)
np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# The sentence has gone through part of a real pretrained encoder, MiniLM {cite}`wang2020b`. One of its 72 attention
# {term}`heads <head>` (fourth layer, second head; counted from zero, layer 3, head 1) distributes, for every {term}`token`, a budget of exactly 1 over
# all tokens of the sentence. The
# shares are called {term}`weights <weight>`. These are the model's own:

# %%
head = real_head("pronoun")
it, animal, street = (head.tokens.index(word) for word in ("it", "animal", "street"))
print(head.tokens)
print(f"from it: animal {head.weights[it, animal]:.2f}, street {head.weights[it, street]:.2f}")
print(f"animal stands {it - animal} tokens back, street {it - street}")

# %% mystnb={"image": {"alt": "The 15 tokens in a row, with arcs from “it” to every other token. The arc to “animal”, eight tokens back, is by far the thickest and is labelled 0.64; [CLS] gets 0.12, and the rest are hairlines or thin. A shaded band over “it” and the four tokens before it does not contain “animal”."}, "figure": {"caption": "Where one head of a real encoder looks when it reads “it”: most of the weight goes eight tokens back, over the edge of a window of four.", "name": "fig-looking-back"}}
plots.looking_back(head.weights[it], head.tokens, query=it, left=4)
plt.show()

# %% [markdown]
# A reader that sees only the last few tokens has nothing to choose from. What would it have to see?

# %%
for left in (4, 7, 8):
    seen = head.tokens[it - left:it]               # a window: `left` tokens before "it"
    print(f"window of {left}:", " ".join(seen), "| animal" if "animal" in seen else "| no animal")
assert "animal" not in head.tokens[it - 7:it]

# %% [markdown]
# "Then take a window of 8" is no answer, because no distance is the right one. When the sentence ends in *wide*, *it* should
# mean the street, two tokens back, and in the next sentence the noun may stand thirty tokens back. **What** matters depends on the content; **where**
# it stands follows from that.
#
# Before the next cell: when the last word becomes *wide*, does this head turn to the street?

# %%
wide = real_head("pronoun", ending="wide")
print(f"tired: animal {head.weights[it, animal]:.2f}, street {head.weights[it, street]:.2f}")
print(f"wide : animal {wide.weights[it, animal]:.2f}, street {wide.weights[it, street]:.2f}")
assert wide.weights[it, animal] > wide.weights[it, street]   # it moves, but it does not flip

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
    keys = rng.permuted(np.tile(np.arange(KEYS), (batch, 1)), axis=1)[:, :pairs]
    values = rng.integers(VALUES, size=(batch, pairs))
    story = np.stack([keys, KEYS + values], axis=-1).reshape(batch, 2 * pairs)  # a 3 c 1 ...
    return story, keys, values  # (batch, 2·pairs), (batch, pairs), (batch, pairs): every letter is asked once


story, asked, answers = make_recall(rng, batch=2, pairs=8)
for row in range(2):
    print(" ".join(NAMES[token] for token in story[row]), f"  {NAMES[asked[row, 0]]}?  ->", answers[row, 0])

# %% [markdown]
# Every letter of a story is asked once, each as a separate question about the same story: eight lessons from one reading.
#
# What is *not knowing* worth? A blind guess is right one time in eight. But a reader that has noticed **which digits occur**, and
# not which letter each belongs to, can do better: it names the most frequent digit. By how much?

# %%
def most_frequent(pairs):
    _, _, values = make_recall(np.random.default_rng(1), 20_000, pairs)
    counts = (values[:, :, None] == np.arange(VALUES)).sum(axis=1)    # (batch, VALUES)
    return (counts.max(axis=1) / pairs).mean()                        # each letter is asked once


guess = np.array([most_frequent(pairs) for pairs in range(1, 9)])
print("blind guess", 1 / VALUES, "  most frequent digit, 1 to 8 pairs:", guess.round(2))

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# With eight pairs it is right about one time in three, nearly three times the blind guess, without having tied a single letter to
# a single digit. Any result below has to be held against **this** line, not against 1/8.
# :::
#
# ## The frame for the readers
#
# This is the only chapter of Part I that leans on PyTorch, and all you need of it is this paragraph. A *tensor* is an array that remembers how it was
# computed; `loss.backward()` follows that memory back and leaves in each parameter's `.grad` the derivative of the loss; the
# *optimiser* takes a small step against it. `nn.Embedding` is a table with one learned vector per token (an {term}`embedding`), `nn.Linear` a learned matrix
# (and a bias). From chapter 2 on everything is NumPy.

# %%
import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)      # matrices this small gain nothing from a second core
torch.manual_seed(0)


class Reader(nn.Module):
    def forward(self, story, asked):                            # token numbers
        return self.read(self.embed(story), self.embed(asked))  # token vectors -> (batch, asked, VALUES)


def one_row_each(story, asked):
    questions = asked.flatten(0, 1)[:, None]                    # (batch·asked, 1, dim)
    return torch.cat([story.repeat_interleave(asked.shape[1], dim=0), questions], dim=1)


# %% [markdown]
# A reader turns token vectors into one {term}`logit` per digit for every question. The three differ in `read` alone; task, training and exam
# are the same. `one_row_each` puts each question behind its own copy of the story.

# %%
def train(reader, steps, make=make_recall):
    optimiser = torch.optim.Adam(reader.parameters(), lr=0.01)
    for _ in range(steps):
        story, asked, answers = map(torch.from_numpy, make(rng, 128, int(rng.integers(1, 9))))
        loss = F.cross_entropy(reader(story, asked).flatten(0, 1), answers.flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)      # no step longer than 1: kind to recurrence
        optimiser.step()


@torch.no_grad()
def exam(reader, pairs=8, make=make_recall):
    story, asked, answers = map(torch.from_numpy, make(np.random.default_rng(1), 1000, pairs))  # same for all
    right = reader(story, asked).argmax(dim=-1) == answers
    return right.float().mean(dim=0).numpy()                    # (pairs,): share of right answers per place


def parameters(reader):
    return sum(p.numel() for p in reader.parameters())

# %% [markdown]
# Stories have 1 to 8 pairs, mixed, so that everyone may begin with the easy ones. All readers train with the same optimiser; the step size is, of the three
# we tried, the one that suits the recurrent reader best.
#
# ## A window
#
# The oldest neural language models read the last few tokens, put their vectors side by side and let a network decide. Ours sees the
# question and the 8 tokens before it: four of the eight pairs.

# %%
class WindowReader(Reader):
    def __init__(self, left, dim=16, hidden=192):
        super().__init__()
        self.left, self.embed = left, nn.Embedding(KEYS + VALUES, dim)
        self.decide = nn.Sequential(nn.Linear((left + 1) * dim, hidden), nn.ReLU(),
                                    nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, VALUES))

    def read(self, story, asked):
        rows = one_row_each(story, asked)[:, -self.left - 1:]         # the rest does not exist for it
        rows = F.pad(rows, (0, 0, self.left + 1 - rows.shape[1], 0))  # a short story: zeros in front
        return self.decide(rows.flatten(1)).unflatten(0, asked.shape[:2])


# %% [markdown]
# Four pairs in sight, eight to ask about. What share of right answers do you expect, on average? And for each of the eight places?

# %% tags=["nbval-ignore-output"]
window = WindowReader(left=8)
train(window, 600)
by_place = exam(window)                  # first pair of the story first
print(f"{parameters(window)} parameters, mean {by_place.mean():.2f}, by place", by_place)
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
        self.embed, self.out = nn.Embedding(KEYS + VALUES, dim), nn.Linear(width, VALUES)
        self.gru = nn.GRU(dim, width, batch_first=True)

    def read(self, story, asked):
        _, state = self.gru(story)                                # (1, batch, width): all it keeps
        state = state.repeat_interleave(asked.shape[1], dim=1)    # every question meets the same state
        _, state = self.gru(asked.flatten(0, 1)[:, None], state)  # one step more: the question
        return self.out(state[0]).unflatten(0, asked.shape[:2])


# %% [markdown]
# It gets 1000 steps, and we look twice on the way.

# %% tags=["nbval-ignore-output"]
gru = RecurrentReader(width=64)
train(gru, 500)
halfway = exam(gru).mean()
train(gru, 500)
by_place_gru = exam(gru)
print(f"{parameters(gru)} parameters, 500 steps {halfway:.2f}, 1000 steps {by_place_gru.mean():.2f}")
assert by_place_gru.mean() > halfway + 0.1 and 0.5 < by_place_gru.mean() < 0.9   # partial, and still improving
assert np.ptp(by_place_gru) < 0.25                                              # no place is out of its sight

# %% [markdown]
# Partial, at every distance, and still improving when we stop. So be careful with the conclusion: this does **not** show that a GRU *cannot* do it. We
# come back to what limits it.
#
# ## A look back
#
# The third reader keeps every token's vector and, when it needs one, **compares** and fetches. In each layer every token sends out a {term}`query`
# $q$, shows a {term}`key` $k$ and holds ready a {term}`value` $v$, three linear functions of its vector. It then receives the mean of the values of all tokens up to
# itself, weighted by how well its query matches their keys. PyTorch calls this `scaled_dot_product_attention`; the next six
# chapters take it apart. A learned vector per place tells the reader where each token stands.

# %%
class AttentionReader(Reader):
    def __init__(self, layers, dim=32, longest=17):
        super().__init__()
        self.embed, self.place = nn.Embedding(KEYS + VALUES, dim), nn.Embedding(longest, dim)
        self.layers = nn.ModuleList(nn.Linear(dim, 3 * dim, bias=False) for _ in range(layers))
        self.out = nn.Linear(dim, VALUES)

    def read(self, story, asked):
        x = one_row_each(story, asked)
        x = x + self.place.weight[:x.shape[1]]                                # (rows, seq, dim)
        for layer in self.layers:
            q, k, v = layer(x).chunk(3, dim=-1)
            x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True)   # each token looks back
        return self.out(x[:, -1]).unflatten(0, asked.shape[:2])


# %% tags=["nbval-ignore-output"]
two_layers = AttentionReader(layers=2)
train(two_layers, 200)
by_place_attention = exam(two_layers)
print(f"{parameters(two_layers)} parameters, 200 steps: {by_place_attention.mean():.3f}")
assert by_place_attention.min() > 0.95
assert parameters(two_layers) < parameters(gru) / 2

# %% mystnb={"image": {"alt": "Right answers over the distance to the value, from 1 to 15 tokens. Attention stays at 1 throughout. The GRU runs level at about 0.7. The window is at 1 up to distance 7, then drops at once to the dashed line of a blind guess at one eighth."}, "figure": {"caption": "The window falls off a cliff, the recurrent state is equally vague everywhere, attention is right at every distance.", "name": "fig-readers-by-distance"}}
distances = 2 * np.arange(8) + 1                     # nearest pair: its value stands right before the question
rates = {"window of 8": by_place[::-1], "GRU, width 64": by_place_gru[::-1], "attention": by_place_attention[::-1]}
plots.by_distance(distances, rates, chance=1 / VALUES)
plt.show()

# %% [markdown]
# With less than half of the GRU's parameters and a fifth of its steps, attention answers everything. In real models, too, recall of what was said
# before is where attention leads: it accounts for most of the gap between attention and the gated convolutions that {cite:t}`arora2023` compared.
#
# ## Does one look suffice?
#
# The reader above has two attention layers. Every question sees every token already in the *first*. So one layer should be enough, shouldn't it?

# %% tags=["nbval-ignore-output"]
one_layer = AttentionReader(layers=1)
train(one_layer, 200)
print(f"one layer: {exam(one_layer).mean():.2f}   naming the most frequent digit: {guess[-1]:.2f}")
assert abs(exam(one_layer).mean() - guess[-1]) < 0.05

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It stays on the line of the reader that counts digits and ties none of them to a letter. A question *a?* finds the letter *a* in the story, but *a* knows nothing of
# its neighbour; and it sees all the digits, but a digit does not know whose it is.
# :::
#
# More steps do not help, and there is a proof in four stories. Ask each of them for *a*:
#
# | story | a0 b1 | b0 a1 | a1 b0 | b1 a0 |
# |---|---|---|---|---|
# | answer | 0 | 1 | 1 | 0 |
#
# With one layer, one head and a linear read-out, the lead of answer 0 over answer 1 (times softmax's denominator, which is positive) is a **sum of
# one term per token**, and each term depends on that token, its place and the question, on nothing else. The outer two stories together contain exactly the same
# tokens at the same places as the inner two. So their leads have the same total; yet all four answers are right only if it is positive for the outer two and negative for the inner two. Impossible:
# at most three can be right, with *any* parameters. We check all pairs of letters and digits:

# %%
def four_stories(a, b, x, y):
    x, y = KEYS + x, KEYS + y
    return torch.tensor([[a, x, b, y], [b, x, a, y], [a, y, b, x], [b, y, a, x]])


@torch.no_grad()
def most_right(reader):
    best = 0
    for a, b, x, y in [(a, b, x, y) for a in range(8) for b in range(8) for x in range(8) for y in range(x) if a != b]:
        logits = reader(four_stories(a, b, x, y), torch.full((4, 1), a))[:, 0]
        lead = logits[:, x] - logits[:, y]
        best = max(best, int((lead * torch.tensor([1, -1, -1, 1]) > 0).sum()))
    return best


print("of four, at most right: one layer", most_right(one_layer), "  two layers", most_right(two_layers))
assert most_right(one_layer) <= 3 and most_right(two_layers) == 4

# %% [markdown]
# (An MLP after the layer, or several heads, would step outside this proof; the pairing still has to be computed somewhere.) How do two layers get around it? We look inside, with the
# function that chapter 5 builds and that gives us the weights. `is_causal=True` above means that no token sees those after it; here that is the `mask`.

# %%
def look_inside(reader, tokens):
    x = (reader.embed(tokens) + reader.place.weight[:tokens.shape[1]]).detach().numpy()
    earlier = np.tri(tokens.shape[1], dtype=bool)           # (seq_q, seq_k), True = may look
    maps = []
    for layer in reader.layers:
        q, k, v = np.split(x @ layer.weight.detach().numpy().T, 3, axis=-1)
        out, weights = attention(q, k, v, mask=earlier)
        x, maps = x + out, [*maps, weights]
    return maps                                             # per layer (batch, seq_q, seq_k)


test_story, test_asked, _ = make_recall(np.random.default_rng(2), 500, 8)
tokens = np.concatenate([test_story, test_asked[:, 5:6]], axis=1)   # every question asks for the sixth pair
first, second = look_inside(two_layers, torch.from_numpy(tokens))

# %% mystnb={"image": {"alt": "Two 17 by 17 maps for one story. In layer 1 every digit's row has one dark cell just left of the diagonal, on its own letter; the letters' rows are spread. In layer 2 the last row, the question, has one dark cell: the digit behind the letter it asks for."}, "figure": {"caption": "What training found: in layer 1 every digit looks at the letter before it; in layer 2 the question looks at the digit that has taken up its letter.", "name": "fig-two-looks"}}
labels = [NAMES[token] for token in tokens[0, :-1]] + [NAMES[tokens[0, -1]] + "?"]
plots.weight_maps({"layer 1": first[0], "layer 2": second[0]}, labels, height=3.4)
plt.show()

# %% [markdown]
# First a step to the left: each digit fetches the letter before it and adds it to its own vector. Now one token holds both halves of a pair. Then a match:
# the question compares itself with what the digits have fetched. Is that so in all 500 stories?

# %% tags=["nbval-ignore-output"]
digits, letters = np.arange(1, 16, 2), np.arange(0, 16, 2)
print(f"layer 1, digit to its letter      : {first[:, digits, letters].mean():.2f}")
print(f"layer 2, question to its own digit: {second[:, 16, 11].mean():.2f}")
assert first[:, digits, letters].mean() > 0.8 and second[:, 16, 11].mean() > 0.8

# %% [markdown]
# Nobody told it to. The same two steps, *previous token, then match*, appear in language models of every size, where they are called **induction heads**
# {cite}`olsson2022`; a later chapter finds them in a real one.
#
# ## What can a state hold?
#
# Back to the GRU. How does it fare with fewer pairs, and would a wider state help? A narrow one for comparison:

# %% tags=["nbval-ignore-output"]
narrow = RecurrentReader(width=16)
train(narrow, 1000)
pairs = np.arange(1, 9)
curves = {name: np.array([exam(reader, n).mean() for n in pairs])
          for name, reader in {"GRU, width 16": narrow, "GRU, width 64": gru, "attention": two_layers}.items()}
print("width 16", curves["GRU, width 16"], "\nwidth 64", curves["GRU, width 64"])
assert curves["GRU, width 16"][-1] + 0.1 < curves["GRU, width 64"][-1] < curves["GRU, width 64"][1]

# %% mystnb={"image": {"alt": "Right answers over the number of pairs, 1 to 8. Attention stays at 1. The GRU of width 64 is near 1 up to about three pairs and falls to about 0.7 at eight. The GRU of width 16 lies on the dashed curve of the most frequent value, which falls from 1 to about 0.3."}, "figure": {"caption": "After 1000 steps, a narrow GRU has learned which digits occur, a wider one also most of the pairing. Width and training buy it more; attention needed neither.", "name": "fig-readers-by-pairs"}}
plots.by_pairs(pairs, curves, guess)
plt.show()

# %% [markdown]
# Is it short of *room*? Count. The digits behind eight given letters can be chosen in $8^8$ ways, and the state must be different for each,
# or two stories would get the same answers. How many bits is that, how many does the state have, and how many pairs could it hold at best?

# %%
bits_needed = 8 * np.log2(VALUES)
bits_there = 64 * 32                        # width 64, float32
print(f"needed {bits_needed:.0f} bits, there are {bits_there}, enough for at most {bits_there // np.log2(VALUES):.0f} pairs")
print("numbers kept after 8 pairs: GRU", 64, "  attention", 2 * 2 * 16 * 32)    # layers · (k and v) · tokens · width

# %% [markdown]
# :::{dropdown} Your prediction, then ours
# It needs 24 bits and has two thousand. Eight pairs are far from the limit, so what stops our GRU is that training has not (yet) found a way to
# *address* its state. The limit itself is real: however it is trained, beyond 682 letters it **must** confuse two stories. Attention has no such
# limit because it keeps more the more it reads. That is also its price.
# :::
#
# We can take training out of the comparison. Give every letter a vector $k$, every digit a one-hot vector $v$, and build two readers by hand that are
# asked with the letter's own vector. The first has a state, a matrix to which each pair adds the outer product of its two vectors {cite}`ba2016,schlag2021`. The second is attention.

# %%
def by_state(k, v):
    state = np.zeros((k.shape[1], v.shape[1]))     # (dim, VALUES), however many pairs there are
    for k_i, v_i in zip(k, v, strict=True):
        state += np.outer(k_i, v_i)                # one step per pair
    return k @ state                               # ask for every letter once


def by_attention(k, v):
    sharp = 100 * k.shape[1] ** 0.5                # high scores: the best match takes nearly all the weight
    return attention(sharp * k, k, v)[0]           # queries are the letters themselves


one_hot = np.eye(8)
digits_now = one_hot[rng.integers(8, size=8)]
assert np.array_equal(by_state(one_hot, digits_now), digits_now)   # perpendicular letters: exact
assert np.allclose(by_attention(one_hot, digits_now), digits_now)

# %% [markdown]
# With eight perpendicular letter vectors both are perfect, and the state holds $8 \times 8 = 64$ numbers, as many as our GRU. Nothing in recurrence forbids the solution; it has to be
# *found*, or built in. Now let the alphabet grow: more letters than dimensions, so their vectors (random directions) can no longer all be perpendicular.

# %%
def right_share(read, dim, pairs, trials=20):
    right = []
    for _ in range(trials):
        k = rng.normal(size=(pairs, dim))
        k /= np.linalg.norm(k, axis=1, keepdims=True)         # one random direction per letter
        digits = rng.integers(VALUES, size=pairs)
        right.append(read(k, np.eye(VALUES)[digits]).argmax(axis=1) == digits)
    return np.mean(right)


stored = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256])
memory = {f"state of {dim} × 8": np.array([right_share(by_state, dim, n) for n in stored]) for dim in (8, 32)}
memory["attention, width 8"] = np.array([right_share(by_attention, 8, n) for n in stored])
print({name: share[[2, 5, 8]].round(2).tolist() for name, share in memory.items()})   # 4, 32, 256 pairs

# %% mystnb={"image": {"alt": "Right answers over pairs stored, 1 to 256 on a logarithmic axis. A state of 8 by 8 numbers starts at 1 and falls below one half by about 32 pairs; one of 32 by 8 falls later, by about four times as many pairs. Attention with vectors of width 8 stays close to 1 up to 256 pairs."}, "figure": {"caption": "No training, the same vectors, two ways to keep them. A sum of fixed size blurs as it fills; four times the state holds about four times the pairs. Keeping every pair and comparing does not blur, and costs memory that grows with the story.", "name": "fig-capacity"}}
plots.capacity(stored, memory, chance=1 / VALUES)
plt.show()

# %% [markdown]
# This is the choice behind every sequence model since: **sum up or keep**. Part III returns to states that are written more cleverly
# (the last exercise makes a start) and to what they save.
#
# ## How far does a gradient reach?
#
# A network learns a connection only if the error at the answer sends a signal back to the token that matters. Measure it: how much does the answer
# change when the vector of the token at distance $t$ changes a little? We take the norm of $\partial\,\text{logits} / \partial x_t$, its {term}`gradient reach`.

# %%
def reach(reader, story, asked):
    x = reader.embed(story).detach().requires_grad_()
    logits = reader.read(x, reader.embed(asked))
    direction = torch.randn(logits.shape)                # on average over directions: the norm of the Jacobian
    (logits * direction).sum().backward()
    return x.grad.square().sum(dim=-1).mean(dim=0).sqrt().flip(0).numpy()   # distance 1, 2, ... from the question


def reaches(window, gru, attention, story, asked):
    readers = {"window of 8": window, "GRU, width 64": gru, "attention, 2 layers": attention}
    return {name: reach(reader, story, asked) for name, reader in readers.items()}


# %% [markdown]
# First untrained, fresh from PyTorch's initialisation, on 128 random tokens. Sketch the three curves before you run it, on a logarithmic axis.

# %% tags=["nbval-ignore-output"]
noise = torch.from_numpy(rng.integers(KEYS + VALUES, size=(64, 129)))
fresh = (WindowReader(left=8), RecurrentReader(width=64), AttentionReader(layers=2, longest=129))
untrained = reaches(*fresh, noise[:, :128], noise[:, 128:])
for name, size in untrained.items():
    print(f"{name:20}", " ".join(f"{size[t - 1]:8.0e}" for t in (1, 8, 9, 32, 128)), "at distance 1, 8, 9, 32, 128")
assert (untrained["window of 8"][8:] == 0).all()                                 # exactly zero, not small
assert untrained["GRU, width 64"][31] < 1e-3 * untrained["GRU, width 64"][0]
assert untrained["attention, 2 layers"][127] > 0.1 * untrained["attention, 2 layers"][0]

# %% tags=["nbval-ignore-output"]
recall = torch.from_numpy(test_story), torch.from_numpy(test_asked[:, rng.integers(8, size=1)])
trained = reaches(window, gru, two_layers, *recall)
for name, size in trained.items():
    print(f"{name:20}", " ".join(f"{size[t - 1]:8.0e}" for t in (1, 8, 9, 16)), "at distance 1, 8, 9, 16")

# %% mystnb={"image": {"alt": "x"}, "figure": {"caption": "x", "name": "fig-reach"}}
plots.reaches({"before training, 128 random tokens": untrained, "after training, stories of 8 pairs": trained})
plt.show()
