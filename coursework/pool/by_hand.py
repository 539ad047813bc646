"""Exercise: solve associative recall with two attention calls and nothing learned."""

import inspect

import numpy as np

from coursework import case, observe, wrong

TITLE = "A reader with no parameters"
CHAPTER = "01_why_attention"
POINTS = 6
PROMPT = r"""
A story lists pairs, a letter (tokens 0 to 7) and a digit (tokens 8 to 15), each letter at most once; the last token is one of its
letters again, the question. The answer is the digit behind that letter. Solve the task with **two calls of `attention` and nothing
learned**. Write `by_hand(tokens, attend)` for one row of token numbers, a story of any number of pairs and then the question, shape
`(2·pairs + 1,)`; `attend(q, k, v)` is `attention`, which returns the result and the weights, handed in so that the calls can be
counted. (It divides the scores by $\sqrt{\textit{dim}}$, which one-hot vectors can ignore.) Return the answer, an int from 0 to 7. Choose `q`, `k`, `v` from two kinds of one-hot vectors: what a token is,
`np.eye(16)[tokens]`, and where it stands, `np.eye(len(tokens))`. Large factors make a look sharp. First let every token fetch the one
before it; then match.
"""
RETURNS = ("answers", "calls", "used")

KEYS = VALUES = 8


def make_recall(rng, batch, pairs):
    letters = np.tile(np.arange(KEYS), (batch, 1))
    keys = rng.permuted(letters, axis=1)[:, :pairs]         # (batch, pairs)
    values = rng.integers(VALUES, size=(batch, pairs))
    story = np.stack([keys, KEYS + values], axis=-1)        # a 3, c 1, ...
    return story.reshape(batch, 2 * pairs), keys, values  # all keys are asked


def attention(q, k, v):
    scores = q @ k.T / np.sqrt(k.shape[-1])                 # (seq_q, seq_k)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    return weights @ v, weights


GIVEN = "\n\n\n".join(["import numpy as np\n\nKEYS = VALUES = 8", inspect.getsource(make_recall).strip(),
                       inspect.getsource(attention)])


def by_hand(tokens, attend):
    # BEGIN SOLUTION
    content, place = np.eye(KEYS + VALUES)[tokens], np.eye(len(tokens))
    ask_left = np.eye(len(tokens), k=-1)  # place i asks for place i - 1
    before, _ = attend(1000 * ask_left, place, content)      # (seq, 16)
    answer, _ = attend(1000 * content[-1:], before, content)
    return int(answer[0].argmax()) - KEYS  # who has my letter before it?
    # END SOLUTION


def drive(f, questions):
    """The answers, the calls of each, and whether any answer changes when one call looks at the wrong tokens.

    A call that is led astray hands over the neighbour of the key that it should have looked at. A reader that uses what its
    calls return cannot then keep its answers to eight pairs (it may also stop with an error); shorter stories leave too few
    digits to tell.
    """
    def attend(q, k, v, mask=None, *, astray=False):
        for name, a in zip("qkv", (q, k, v), strict=True):
            if isinstance(a, tuple):
                raise TypeError(f"attend: {name} is a tuple, expected an array (attend returns two arrays, the result and the weights)")
        q, k, v = (np.asarray(a, dtype=float) for a in (q, k, v))
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(k.shape[-1])
        if mask is not None:
            scores = np.where(mask, scores, -np.inf)
        top = scores.max(axis=-1, keepdims=True)
        powers = np.exp(scores - np.where(np.isneginf(top), 0, top))
        total = powers.sum(axis=-1, keepdims=True)
        weights = powers / np.where(total == 0, 1, total)
        if astray:
            weights = np.eye(weights.shape[-1])[(weights.argmax(axis=-1) + 1) % weights.shape[-1]]
        return weights @ v, weights

    def ask(tokens, wrong_call):
        calls = 0

        def counted(*args, **kwargs):
            nonlocal calls
            calls += 1
            return attend(*args, **kwargs, astray=calls == wrong_call)

        return f(tokens.copy(), counted), calls

    answers, calls = zip(*(ask(tokens, 0) for tokens in questions), strict=True)
    if questions.shape[1] < 17:
        return list(answers), list(calls)
    changed = []
    for wrong_call in (1, 2):
        found = []
        for tokens in questions:
            try:
                found.append(ask(tokens, wrong_call)[0])
            except Exception:
                found.append("an error")
        changed.append(any(type(a) is str or np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(found, answers, strict=True)))
    return list(answers), list(calls), changed


def cases(rng):
    def ask(pairs):
        story, keys, _ = make_recall(rng, max(8, 2 * pairs), pairs)
        which = np.arange(len(story))
        return np.concatenate([story, keys[which, which % pairs][:, None]], axis=1)     # every place is asked

    words = ("one pair", "two pairs", "three pairs", "four pairs", "five pairs", "six pairs", "seven pairs", "eight pairs")
    for pairs in range(8, 0, -1):
        questions = ask(pairs)
        yield case(words[pairs - 1], questions, dims={"questions": len(questions), "seq": 2 * pairs + 1})
    same = ask(5)
    same[:, 1:-1:2] = KEYS + rng.integers(1, VALUES, size=(len(same), 1))
    yield case("the same digit behind every letter", same, dims={"questions": len(same), "seq": 11})


@wrong("The answers are right, and no call of `attend` was needed for them: you look the letter up in NumPy. What would a layer of attention "
       "have to fetch?")
def looks_up(tokens, attend):
    return int(tokens[np.flatnonzero(tokens[:-1] == tokens[-1])[0] + 1]) - KEYS


@wrong("Your first look is done by hand (by a shift or an index), so `attend` is called once. The look at the token before is a look like any "
       "other: let the places do it.")
def shifts(tokens, attend):
    content = np.eye(KEYS + VALUES)[tokens]
    before = np.concatenate([np.zeros((1, KEYS + VALUES)), content[:-1]])
    answer, _ = attend(1000 * content[-1:], before, content)
    return int(answer[0].argmax()) - KEYS


@wrong("Your looks are soft: scores of 1 against 0, divided by a root, spread the weight over nearly everyone, and the token that occurs most "
       "often wins. How do you make one score stand out?")
def soft(tokens, attend):
    content, place = np.eye(KEYS + VALUES)[tokens], np.eye(len(tokens))
    before, _ = attend(np.eye(len(tokens), k=-1), place, content)
    answer, _ = attend(content[-1:], before, content)
    return int(answer[0].argmax()) - KEYS


@wrong("Your tokens fetch the one **after** them. A letter then holds its digit, but your second look asks who has the letter beside it, and "
       "finds the digit of the pair before.")
def fetches_the_next(tokens, attend):
    content, place = np.eye(KEYS + VALUES)[tokens], np.eye(len(tokens))
    after, _ = attend(1000 * np.eye(len(tokens), k=1), place, content)
    answer, _ = attend(1000 * content[-1:], after, content)
    return int(answer[0].argmax()) - KEYS


@wrong("Your answer is the letter that is asked for (its token, less 8). With what does your second look compare the question, and which vector of "
       "the token that it finds does it hand over: what it is, or what it has fetched?")
def hands_over_the_letter(tokens, attend):
    content, place = np.eye(KEYS + VALUES)[tokens], np.eye(len(tokens))
    before, _ = attend(1000 * np.eye(len(tokens), k=-1), place, content)
    answer, _ = attend(1000 * content[-1:], before, before)
    return int(answer[0].argmax()) - KEYS


@wrong("You return the token, 8 to 15; the answer is the digit, 0 to 7.")
def returns_the_token(tokens, attend):
    return by_hand(tokens, attend) + KEYS


@wrong("Every token asks in your second look, and you read the row of the first. The question is the last token.")
def reads_the_first_row(tokens, attend):
    content, place = np.eye(KEYS + VALUES)[tokens], np.eye(len(tokens))
    before, _ = attend(1000 * np.eye(len(tokens), k=-1), place, content)
    answer, _ = attend(1000 * content, before, content)
    return int(answer[0].argmax()) - KEYS


@wrong("The two calls are made for show: your answer does not depend on what they return.")
def for_show(tokens, attend):
    content = np.eye(KEYS + VALUES)[tokens]
    attend(content, content, content)
    attend(content, content, content)
    return looks_up(tokens, attend)


@wrong("Your first look asks for the token's own place: everyone fetches itself. The diagonal of ones has to move by one place.")
def fetches_itself(tokens, attend):
    content, place = np.eye(KEYS + VALUES)[tokens], np.eye(len(tokens))
    before, _ = attend(1000 * place, place, content)
    answer, _ = attend(1000 * content[-1:], before, content)
    return int(answer[0].argmax()) - KEYS


@wrong("Your places are those of a story of eight pairs, 17 of them. A story may be shorter: `len(tokens)` says how many places there are.")
def only_eight_pairs(tokens, attend):
    content, place = np.eye(KEYS + VALUES)[tokens], np.eye(17)
    before, _ = attend(1000 * np.eye(17, k=-1), place, content)
    answer, _ = attend(1000 * content[-1:], before, content)
    return int(answer[0].argmax()) - KEYS


def _name(token):
    return "abcdefgh01234567"[token]


def _story(tokens):
    return " ".join(map(_name, tokens[:-1])) + f"  {_name(tokens[-1])}?"


@observe
def calls_made(case, got, want):
    calls = got[1]
    if got[0] == want[0] and set(calls) != {2}:
        most = max(set(calls), key=calls.count)
        return f"The answers are right, but `attend` is called {most} {'time' if most == 1 else 'times'} for a question; two looks are asked for."
    return None


@observe
def not_used(case, got, want):
    if len(got) < 3 or got[0] != want[0] or got[2] == want[2]:
        return None
    if not any(got[2]):
        return ("The answers are right, and they stay the same if `attend` hands over other tokens than it is asked for: they do "
                "not come out of its results.")
    which = 1 if not got[2][0] else 2
    return f"The answers are right, but they stay the same if call {which} of `attend` hands over other tokens: its result is not used."


@observe
def out_of_range(case, got, want):
    for tokens, mine, right in zip(case.args[0], got[0], want[0], strict=True):
        if mine != right and not 0 <= mine <= 7:
            letter = f" As a token, {mine + 8} is the letter {_name(mine + 8)}." if -8 <= mine < 0 else ""
            return f"Story {_story(tokens)}: your answer is {mine}, expected a digit from 0 to 7, here {right}.{letter}"
    return None


@observe
def always_the_same(case, got, want):
    if len(set(got[0])) == 1 and len(set(want[0])) > 1:
        return f"Your answer is {got[0][0]} to all {len(got[0])} questions: it does not depend on the story."
    return None


@observe
def which_digit(case, got, want):
    questions, mine, right = case.args[0], got[0], want[0]
    if mine == right:
        return None
    digits, letters = questions[:, 1:-1:2] - 8, questions[:, :-1:2]
    pair = (letters == questions[:, -1:]).argmax(axis=1)
    most = [np.bincount(row, minlength=8).max() for row in digits]
    story = next(_story(t) for t, m, r in zip(questions, mine, right, strict=True) if m != r)
    wrong_one = next(m for m, r in zip(mine, right, strict=True) if m != r)
    tail = f" One of them: {story} -> {wrong_one}."
    bad = sum(m != r for m, r in zip(mine, right, strict=True))
    many = f"{bad} of {len(right)} answers {'is' if bad == 1 else 'are'} wrong"
    for said, at in (("the first digit of the story", 0 * pair), ("the last digit of the story", 0 * pair - 1)):
        if digits.shape[1] > 1 and (digits[np.arange(len(pair)), at] == mine).all():
            return f"{many}: you always name {said}.{tail}"
    for said, step in (("the pair before the right one", -1), ("the pair after the right one", 1)):
        inside = (pair + step >= 0) & (pair + step < digits.shape[1])
        if inside.sum() > 1 and (digits[inside, (pair + step)[inside]] == np.array(mine)[inside]).all():
            return f"{many}: you name the digit of {said}.{tail}"
    places = np.unique([p for p, m, r in zip(pair, mine, right, strict=True) if m != r])
    if len(places) == 1 and digits.shape[1] > 2 and bad > 1:
        where = {0: "the first pair", digits.shape[1] - 1: "the last pair"}.get(int(places[0]), f"pair {places[0]} (from 0)")
        return f"{many}, and all of these ask for {where} of the story; the other places are answered right.{tail}"
    if digits.shape[1] > 2 and all(0 <= m <= 7 and np.bincount(row, minlength=8)[m] == top for row, m, top in zip(digits, mine, most, strict=True)):
        return f"{many}: you always name a digit that is most frequent in the story. Is a look so soft that all digits are mixed?{tail}"
    wrong_ones = [(row, m, r) for row, m, r in zip(digits, mine, right, strict=True) if m != r]
    if all((row == m).sum() > (row == r).sum() for row, m, r in wrong_ones):
        return (f"{many}, each time with a digit that occurs more often in the story than the right one: it seems to win by its number. "
                f"Is each look sharp enough?{tail}")
    if all(m in row for m, row in zip(mine, digits, strict=True)):
        return f"{many}: your digits do occur in their stories, but not behind the letter asked for.{tail}"
    return f"{many}, and some of your digits do not even occur in their story.{tail}"


@wrong("Your first look goes two tokens back: letters fetch letters, digits fetch digits, and no token gets to know the other half "
       "of its pair.")
def two_back(tokens, attend):
    content, place = np.eye(KEYS + VALUES)[tokens], np.eye(len(tokens))
    before, _ = attend(1000 * np.eye(len(tokens), k=-2), place, content)
    answer, _ = attend(1000 * content[-1:], before, content)
    return int(answer[0].argmax()) - KEYS


@wrong("The scores of your second look have the wrong sign: it goes to the tokens that match least. A large score is a good match.")
def wrong_sign(tokens, attend):
    content, place = np.eye(KEYS + VALUES)[tokens], np.eye(len(tokens))
    before, _ = attend(1000 * np.eye(len(tokens), k=-1), place, content)
    answer, _ = attend(-1000 * content[-1:], before, content)
    return int(answer[0].argmax()) - KEYS
