"""Exercise: a test that catches a layer which looks ahead, however slyly."""

import numpy as np

from coursework import case, observe, sizes, wrong

TITLE = "The test that was missing"
CHAPTER = "03_scores"
POINTS = 5
PROMPT = r"""
Write `leaks_future(layer, x)`. `layer` is any function from token vectors (seq, dim) to results (seq, dim_v), and you cannot look inside.
Return `True` if the result of any position depends on a **later** token, else `False`. Do not change `x`; tokens in it may repeat, or be all zeros.
A leak of a few thousandths counts; rounding noise, a few millionths, does not. Your test is tried on layers that are in order and on layers
that leak, some of them slyly: by one position, only from far away, only between the first tokens, at a single position, through a single
number of a token, through the sum of a late mask, behind a normalisation, and outside of the attention altogether. A LayerNorm takes the
mean of a token's numbers away and divides by their spread, so choose with care how you change a token.
"""


def leaks_future(layer, x):
    # BEGIN SOLUTION
    before = layer(x)
    for t in range(1, len(x)):         # each in turn: a leak may start anywhere
        other = x.copy()
        other[t] = x[t, ::-1] + 1      # no sign, mean or length hides this
        if not np.allclose(layer(other)[:t], before[:t], atol=1e-4):
            return True                # a position before t has noticed
    return False
    # END SOLUTION


def make(spec):
    """The layer that a description stands for."""
    kind, place = spec["kind"], spec["place"]
    sees = {
        "everything": lambda q, k: k == k,
        "inverted": lambda q, k: k > q,
        "one ahead": lambda q, k: k <= q + 1,
        "far ahead": lambda q, k: (k <= q) | ((q == 2) & (k == place)),
        "first two": lambda q, k: (k <= q) | ((q < 2) & (k < 2)),
        "one row": lambda q, k: k <= q + (q == place),
        "late window": lambda q, k: (k <= q) & (q - k <= 3),
    }.get(kind, lambda q, k: k <= q)

    def attend(x, then_mask=False):
        allowed = sees(np.arange(len(x))[:, None], np.arange(len(x))) & np.ones((len(x), 1), bool)
        scores = (x @ spec["w_q"]) @ (x @ spec["w_k"]).T / spec["w_q"].shape[1] ** 0.5
        scores = scores if then_mask else np.where(allowed, scores, -np.inf)
        highest = scores.max(axis=-1, keepdims=True)
        powers = np.exp(scores - np.where(np.isfinite(highest), highest, 0))
        powers = powers / np.maximum(powers.sum(axis=-1, keepdims=True), np.float32(1e-30))
        return (powers * allowed if then_mask else powers) @ (x @ spec["w_v"])

    def normalised(x):  # as LayerNorm does, each token for itself
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)

    def two_sums(x):  # up to each position: all there is less what comes after, and how far that is from adding up
        raised = x + 1
        total = raised.sum(axis=0) - raised[::-1].cumsum(axis=0)[::-1] + raised
        return np.hstack([total, total - raised.cumsum(axis=0)])

    def summary(x):  # zeros, and at one position the mean of all up to there
        at = np.arange(len(x))[:, None] == place
        return at * (x[:place + 1].mean(axis=0) @ spec["w_v"])

    def one_number(x, sign):  # one result for each token, and one of these sees one number of the next token
        own = (x @ spec["w_v"]).mean(axis=-1, keepdims=True)
        if place + 1 < len(x):
            own[place] += sign * x[place + 1, 1]
        return own

    return {
        "one number up": lambda x: one_number(x, 1),
        "one number down": lambda x: one_number(x, -1),
        "late window": lambda x: np.vstack([0 * x[:1] @ spec["w_v"], attend(x)[:-1]]),
        "zero": lambda x: np.zeros((len(x), spec["w_v"].shape[1]), x.dtype),
        "noisy": two_sums,
        "summary": summary,
        "late mask": lambda x: attend(x, then_mask=True),
        "trace": lambda x: attend(x) + np.float32(spec["size"]) * np.tanh(x.mean(axis=0) @ spec["w_v"]),
        "tokens alone": lambda x: normalised(x) @ spec["w_v"],
        "LayerNorm, one ahead": lambda x: attend(normalised(x)) + np.roll(normalised(x) @ spec["w_v"], -1, axis=0),
        "over the sequence": lambda x: attend(x / np.sqrt((x**2).mean(axis=0) + 1e-12)),
    }.get(kind, attend)


def drive(f, spec, x):
    return f(make(spec), x)


def cases(rng):
    s = sizes(rng, "dim dim_head dim_v", least=4, most=8)
    seq = int(rng.integers(10, 14))
    x = rng.normal(size=(seq, s.dim)).astype(np.float32)
    w_q, w_k = (rng.normal(size=(2, s.dim, s.dim_head)) / s.dim**0.5).astype(np.float32)
    w_v = (rng.normal(size=(s.dim, s.dim_v)) / s.dim**0.5).astype(np.float32)
    dims = {"seq": seq, **vars(s)}

    def given(label, kind, x=x, place=0, size=0.0):
        spec = {"kind": kind, "place": place, "size": size, "w_q": w_q, "w_k": w_k, "w_v": w_v}
        return case(label, spec, x, dims=dims if len(x) == seq else {})

    yield given("causal attention", "causal")
    yield given("a causal window, its results one place late", "late window")
    yield given("each token for itself, behind a LayerNorm", "tokens alone")
    yield given("results that are always 0", "zero")
    yield given("a summary of all at the last position", "summary", place=seq - 1)
    yield given("sums over the past, with rounding noise", "noisy")
    yield given("no mask", "everything")
    yield given("a mask the wrong way round", "inverted")
    yield given("a mask after softmax", "late mask")
    yield given("one position ahead", "one ahead")
    yield given("position 2 sees a token near the end", "far ahead", place=seq - 2)
    yield given("the first two tokens see each other", "first two")
    place = int(rng.integers(4, seq - 3))
    gap = x.copy()
    gap[place + 1] = 0
    yield given(f"position {place} sees {place + 1}, a token of zeros", "one row", gap, place)
    yield given("position 2 sees a token in the middle", "far ahead", place=seq - 4)
    yield given("the last position but one sees the last", "one row", place=seq - 2)
    twins = x.copy()
    twins[place + 1] = twins[place]
    yield given(f"position {place} sees {place + 1}, a token equal to its own", "one row", twins, place)
    alike = x.copy()
    alike[place + 1] = alike[0]
    yield given(f"position {place} sees {place + 1}, a token equal to the first", "one row", alike, place)
    place = int(rng.integers(3, seq - 3))
    clear = x.copy()
    clear[place + 1, [1, -2]] = 3, -1  # no change that alters this number leaves it where it was by chance
    yield given(f"position {place} adds the second number of token {place + 1}", "one number up", clear, place)
    yield given(f"position {place} takes the second number of token {place + 1} away", "one number down", clear, place)
    yield given("one ahead, behind a LayerNorm", "LayerNorm, one ahead")
    yield given("normalised over the sequence", "over the sequence")
    moved = max(np.abs(np.tanh(other.mean(axis=0) @ w_v) - np.tanh(x.mean(axis=0) @ w_v)).max() for other in _changed(x))
    yield given("a trace of the mean of all tokens", "trace", size=0.005 / float(moved))
    yield given("a single token, which has no future", "everything", x[:1])


def _changed(x):
    for t in range(1, len(x)):
        other = x.copy()
        other[t] = x[t, ::-1] + 1
        yield other


def _test(layer, x, tokens=None, change=lambda token: token[::-1] + 1, looks=lambda r, t: r[:t], tolerance=1e-4):
    """The solution with other parts."""
    before = layer(x)
    for t in range(1, len(x)) if tokens is None else tokens:
        other = x.copy()
        other[t] = change(x[t])
        if not np.allclose(looks(layer(other), t), looks(before, t), rtol=1e-5, atol=tolerance):
            return True
    return False


@wrong("True and False are exchanged: you say True of layers in order and False of those that leak. Which of the two does the name ask "
       "about?")
def exchanged(layer, x):
    return not leaks_future(layer, x)


@wrong("You change the last token only. A leak among the first tokens, or at one position, never touches it: which tokens may "
       "somebody have looked ahead to?")
def only_the_last(layer, x):
    return _test(layer, x, [len(x) - 1] if len(x) > 1 else [])


@wrong("You change one token in the middle only. Leaks that lie wholly before it or wholly after it go unnoticed.")
def only_the_middle(layer, x):
    return _test(layer, x, [len(x) // 2] if len(x) > 1 else [])


@wrong("Leaks at later positions go unnoticed. Do you look at the first result only, or return before every token has had its turn?")
def only_the_first_result(layer, x):
    return _test(layer, x, looks=lambda r, t: r[:1])


@wrong("You compare the one result just before the changed token. A leak from far away shows in an earlier one.")
def only_the_neighbour(layer, x):
    return _test(layer, x, looks=lambda r, t: r[t - 1])


@wrong("You call it a leak when the result of the changed token itself moves. A position may see itself: where does the past of token t "
       "end?")
def counts_itself(layer, x):
    return _test(layer, x, looks=lambda r, t: r[:t + 1])


@wrong("You compare all results, those at and after the changed token too. These may move: they lie in the present and the future of "
       "that token.")
def compares_everything(layer, x):
    return _test(layer, x, looks=lambda r, t: r)


@wrong("You look at the results **after** a changed token. These may depend on it; the question is about those before it.")
def wrong_direction(layer, x):
    return _test(layer, x, looks=lambda r, t: r[t + 1:])


@wrong("You put the token before it in its place. Tokens may repeat: where the two are equal, nothing has changed, and nothing can be noticed.")
def the_token_before(layer, x):
    before = layer(x)
    for t in range(1, len(x)):
        other = x.copy()
        other[t] = x[t - 1]
        if not np.allclose(layer(other)[:t], before[:t], atol=1e-4):
            return True
    return False


@wrong("You put the first token in its place. Tokens may repeat: where the two are equal, nothing has changed, and nothing can be noticed.")
def the_first_token(layer, x):
    return _test(layer, x, change=lambda token: x[0])


@wrong("The result just before the changed token is not among those you compare: a layer that sees one position ahead passes.")
def skips_the_neighbour(layer, x):
    return _test(layer, x, looks=lambda r, t: r[:t - 1])


@wrong("You compare exactly, or almost. A layer in order may add the same numbers in another order, and float32 then differs by a few "
       "millionths (by more, if you put in enormous numbers): that is to be allowed.")
def exact(layer, x):
    before = layer(x)
    for t, other in enumerate(_changed(x), start=1):
        if not np.array_equal(layer(other)[:t], before[:t]):
            return True
    return False


@wrong("A leak of a few thousandths passes your test. Your tolerance is wider than that, or the change you make is too small to show.")
def too_tolerant(layer, x):
    return _test(layer, x, tolerance=0.01)


@wrong("You add the same to all numbers of a token, or only make it longer. A layer that begins with a LayerNorm takes that away again: "
       "the change has to alter the direction of a token.")
def adds_one(layer, x):
    return _test(layer, x, change=lambda token: token + 1)


@wrong("You turn a token into its negative. Its square stays the same, so a mean square over the sequence does not notice; and the "
       "negative of a token of zeros is no change at all.")
def negates(layer, x):
    return _test(layer, x, change=lambda token: -token)


@wrong("A token that is all zeros stays as it was under your change: zeros put in the place of its numbers, or these multiplied, or put in another "
       "order. Which change alters every token?")
def zeros(layer, x):
    return _test(layer, x, change=np.zeros_like)


@wrong("Your changes pile up: when token t has its turn, those before it are still changed, and the results in between move rightly. Each "
       "trial needs a fresh copy.")
def piles_up(layer, x):
    before, other = layer(x), x.copy()
    for t in range(1, len(x)):
        other[t] = x[t, ::-1] + 1
        if not np.allclose(layer(other)[:t], before[:t], atol=1e-4):
            return True
    return False


@wrong("The array `x` that was handed in is changed by your function: `other = x` is a second name for it, not a copy.")
def no_copy(layer, x):
    before = layer(x)
    for t in range(1, len(x)):
        other = x
        other[t] = x[t, ::-1] + 1
        if not np.allclose(layer(other)[:t], before[:t], atol=1e-4):
            return True
    return False


def _leaks(case):
    """By how much at most each result moves when a token is replaced: [result, token]."""
    spec, x = case.args
    layer = make(spec)
    before = layer(x)
    found = np.zeros((len(x), len(x)))
    for t, other in enumerate(_changed(x), start=1):
        found[:, t] = np.abs(layer(other) - before).max(axis=-1)
    return found


def _span(numbers):
    numbers = sorted({int(n) for n in numbers})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


@wrong("You change one number of a token. A leak may run through another of its numbers: change them all.")
def one_feature(layer, x):
    return _test(layer, x, change=lambda token: np.where(np.arange(len(token)) == 0, token + 1, token))


@wrong("Results that rise give a leak away in your test, results that fall do not. A difference has a sign, and here either one counts.")
def without_abs(layer, x):
    before = layer(x)
    return any((layer(other)[:t] - before[:t]).max() > 1e-4 for t, other in enumerate(_changed(x), start=1))


@wrong("You put NaN in the place of a token and look where it comes out. 0 · NaN is NaN, so a weight of exactly 0 seems to leak: "
       "replace the token by numbers.")
def nan_marks(layer, x):
    return any(np.isnan(layer(np.where(np.arange(len(x))[:, None] == t, np.nan, x))[:t]).any() for t in range(1, len(x)))


@wrong("A leak from token 1 to token 0 goes unnoticed. Does token 1 have its turn? Which is the first token that lies in somebody's future?")
def from_the_third(layer, x):
    return _test(layer, x, range(2, len(x)))


@wrong("A leak from the last token passes, if there is no other. Does the last token have its turn? It lies in the future of all others.")
def not_the_last(layer, x):
    return _test(layer, x, range(1, len(x) - 1))


@wrong("You say False of every layer: your test never fires. Does it compare results that could differ, and is there an answer `True` "
       "that it can reach?")
def never(layer, x):
    return False


@wrong("You say True of every layer, even of one whose results are always 0.")
def always(layer, x):
    return True


@observe
def no_future(case, got, want):
    if len(case.args[1]) == 1 and got is not False:
        return "There is a single token here, so nothing lies in its future, and you say True."


@observe
def false_alarm(case, got, want):
    if want or got is False or len(case.args[1]) == 1:
        return None
    moves = _leaks(case)
    early = max(moves[:t, t].max() for t in range(1, len(moves)))
    after = max(moves[t:, t].max() for t in range(1, len(moves)))
    if early == 0 and after == 0:
        return "You say True of a layer whose results never move, whatever its tokens are."
    if early == 0:
        return ("You say True of a layer in order: with one token replaced, no result before it moves at all. Results at that token and "
                f"after it do, by up to {after:.2g}, and may.")
    return (f"You say True of a layer in which results before a replaced token move by {early:.0e} at most, where the numbers are near "
            f"{np.abs(make(case.args[0])(case.args[1])).max():.0f}: that is rounding in float32. If you replace a token by far larger "
            "numbers, the rounding grows with them.")


@observe
def unseen_change(case, got, want):
    kind = case.args[0]["kind"]
    if want and not got and kind == "LayerNorm, one ahead":
        return ("You say False of a layer that brings every token to mean 0 and spread 1 and then looks one token ahead. It cannot tell "
                "a token from the same token plus 1, or times 2.")
    if want and not got and kind == "over the sequence":
        return ("You say False of a layer that divides each feature by the root of its mean square over the whole sequence. Any change of a "
                "later token moves that mean, unless the squares stay as they are.")


@observe
def missed(case, got, want):
    if got or not want:
        return None
    moves = np.triu(_leaks(case), k=1)
    rows, tokens = np.nonzero(moves > 1e-3)
    much = f"by up to {moves.max():.2g}"
    if len(rows) == 1:
        zero = ", which is all zeros in `x`" if not case.args[1][tokens[0]].any() else ""
        return (f"You say False of a layer in which result {rows[0]} moves, {much}, when token {tokens[0]}{zero} is replaced by another "
                "vector. No other pair leaks.")
    ahead = set((tokens - rows).tolist())
    if ahead == {1}:
        return f"You say False of a layer in which every result but the last sees the next token: it moves, {much}, and no other leak is there."
    return f"You say False of a layer in which results {_span(rows)} move, {much}, when one of the tokens {_span(tokens)} is replaced."
