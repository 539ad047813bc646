"""Exercise: an exam of associative recall at one distance, whose answers cannot be guessed."""

import inspect

import numpy as np

from coursework import case, wrong

TITLE = "An exam at one distance"
CHAPTER = "01_why_attention"
POINTS, EDGE_POINTS = 3, 1
PROMPT = r"""
`make_recall(rng, batch, pairs)` makes stories of letters (tokens 0 to 7) and digits (tokens 8 to 15), `a 3 c 1 ...`, and asks for each of
their letters once. Write `recall_at(rng, batch, distance)`: stories of 8 pairs with **one** question each. The question comes after the
16 tokens of the story, and stands `distance` tokens after the value it asks for: 1 for the last token of the story. Return `story`
(batch, 16), `asked` (batch, 1), the letters, and `answers` (batch, 1), the digits as numbers from 0 to 7, as `make_recall` does. Letters and digits are drawn
from `rng`, afresh for every story. For a distance that cannot be had, raise a `ValueError`.
"""
RETURNS = ("story", "asked", "answers")

KEYS = VALUES = 8


def make_recall(rng, batch, pairs):
    letters = np.tile(np.arange(KEYS), (batch, 1))
    keys = rng.permuted(letters, axis=1)[:, :pairs]         # (batch, pairs)
    values = rng.integers(VALUES, size=(batch, pairs))
    story = np.stack([keys, KEYS + values], axis=-1)        # a 3, c 1, ...
    return story.reshape(batch, 2 * pairs), keys, values  # all keys are asked


GIVEN = "import numpy as np\n\nKEYS = VALUES = 8\n\n\n" + inspect.getsource(make_recall)


def recall_at(rng, batch, distance):
    # BEGIN SOLUTION
    if distance not in range(1, 16, 2):  # values stand 1, 3, ... 15 back
        raise ValueError(f"distance is {distance}, expected 1, 3, ... or 15")
    story, keys, values = make_recall(rng, batch, 8)
    pair = 8 - (distance + 1) // 2                 # distance 1: the last pair
    return story, keys[:, [pair]], values[:, [pair]]
    # END SOLUTION


def drive(f, seed, batch, distances):
    """For each distance three exams: two from generators in the same state, one from another state."""
    return [{name: f(np.random.default_rng([seed, number]), batch, distance)
             for name, number in (("exam", 0), ("again", 0), ("other", 1))} for distance in distances]


def cases(rng):
    batch = int(rng.integers(300, 400))

    def at(label, *distances, batch=batch, **more):
        return case(label, int(rng.integers(2**32)), batch, distances, dims={"batch": batch}, **more)

    yield at("distances 3, 5 and 7", 3, 5, 7)
    yield at("distances 9, 11 and 13", 9, 11, 13)
    yield at("distance 1, the last pair", 1)
    yield at("distance 15, the first pair", 15)
    yield at("a batch of two", 3, batch=2)
    yield at("distance 0", 0, edge=True, raises=ValueError)
    yield at("an even distance", 2 * int(rng.integers(1, 8)), edge=True, raises=ValueError)
    yield at("a distance beyond the story", 17 + 2 * int(rng.integers(4)), edge=True, raises=ValueError)
    yield at("a negative distance", -1 - 2 * int(rng.integers(3)), edge=True, raises=ValueError)


def _faulty(exam, batch):
    """What is wrong with an exam as a thing, before its questions are looked at."""
    if exam is None:
        return "The function returns None. Is there a `return`?"
    if not isinstance(exam, tuple | list) or len(exam) != 3:
        what = f"{len(exam)} results" if isinstance(exam, tuple | list) else "one result"
        return f"Your function returns {what}, expected three: story, asked, answers."
    for name, part, wide, low, high in zip(RETURNS, exam, (16, 1, 1), (0, 0, 0), (15, 7, 7), strict=True):
        if not isinstance(part, np.ndarray) or part.dtype.kind not in "iu":
            kind = f"an array of {part.dtype}" if isinstance(part, np.ndarray) else f"a {type(part).__name__}"
            return f"`{name}` is {kind}, expected an array of whole numbers."
        if part.shape != (batch, wide):
            shown = str(part.shape).replace(str(batch), f"batch={batch}")
            more = {(batch,): " An axis of length 1 is missing: one question is still a row of questions.",
                    (batch, 8): " That is eight questions for each story; one is asked for.", (1, batch): " The axes are exchanged."}
            return f"`{name}` has shape {shown}, expected (batch={batch}, {wide}).{more.get(part.shape, '') if wide == 1 else ''}"
        if part.min() < low or part.max() > high:
            why = " Are these tokens? The answer to a question is the digit itself, 0 to 7." if name == "answers" and part.min() >= 8 else ""
            why = " These are digits; what is asked for is a letter." if name == "asked" and part.min() >= 8 else why
            return f"`{name}` holds numbers from {part.min()} to {part.max()}, expected {low} to {high}.{why}"
    return None


def verify(case, got):
    _, batch, distances = case.args
    if not isinstance(got, list) or len(got) != len(distances) or not all(isinstance(exams, dict) for exams in got):
        return "The function's result cannot be read."
    for distance, exams in zip(distances, got, strict=True):
        said = next(filter(None, (_faulty(exams.get(name), batch) for name in ("exam", "again", "other"))), None)
        said = said or _questions(*exams["exam"], distance) or _fresh(*exams["exam"]) or _source(exams, batch)
        if said:
            return said
    return None


def _questions(story, asked, answers, distance):
    """Whether each question asks for what stands where it should."""
    letters, digits = story[:, ::2], story[:, 1::2]
    asked, answers = asked[:, 0], answers[:, 0]
    if letters.max() > 7 or digits.min() < 8:
        return "A story should go letter, digit, letter, digit, ... (tokens 0 to 7, then 8 to 15); yours does not."
    if (np.sort(letters, axis=1) != np.arange(8)).any():
        return "Each of the 8 letters should occur once in a story of 8 pairs; in yours some occur twice."
    place = (letters == asked[:, None]).argmax(axis=1)
    true = np.take_along_axis(digits, place[:, None], axis=1)[:, 0] - 8
    stands = 16 - (2 * place + 1)
    if (stands != distance).any():
        if (stands == stands[0]).all():
            letter = f" (The **letter** stands {stands[0] + 1} back.)" if stands[0] + 1 == distance or stands[0] - 1 == distance else ""
            front = " Is the distance counted from the front of the story?" if stands[0] == 16 - distance else ""
            return (f"Asked for: a value {distance} tokens before the question. The value that belongs to your letters "
                    f"stands {stands[0]} before it, in every story.{letter}{front}")
        return (f"Asked for: a value {distance} tokens before the question. The values that belong to your letters stand "
                f"{stands.min()} to {stands.max()} before it.")
    if (answers != true).any():
        i = int((answers != true).argmax())
        return (f"You ask for the right letters, but not all answers are right: in story {i} the digit behind letter {asked[i]} is {true[i]}, "
                f"your answer {answers[i]}.")
    return None


def _fresh(story, asked, answers):
    """Whether what is drawn is free: with 300 stories or more, chance does not do what is complained of here."""
    letters, digits = story[:, ::2], story[:, 1::2] - 8
    if len(story) < 300:
        return None
    if (story == story[0]).all():
        return "All of your stories are one and the same. Each should be drawn afresh."
    if all(len(np.unique(digits[letters == letter])) == 1 for letter in range(8)):
        return "In all of your stories a letter has the same digit: that table can be learned by heart, and the story is not needed."
    if len(np.unique(asked)) < 8:
        return f"Only the letters {sorted(np.unique(asked).tolist())} are ever asked for, in {len(story)} stories: the letters should be free."
    if len(np.unique(answers)) < 8:
        return f"Only the answers {sorted(np.unique(answers).tolist())} occur in {len(story)} stories: the digits should be free."
    repeats = (np.sort(digits, axis=1)[:, 1:] == np.sort(digits, axis=1)[:, :-1]).any(axis=1)
    if not repeats.any():
        return "No digit occurs twice in any of your stories. Drawn freely, eight digits are nearly never all different."
    order = [tuple(row) for row in letters[:20]]
    if len(set(order)) == 1:
        return "The letters stand in the same order in all of your stories; it should be drawn afresh."
    return None


def _source(got, batch):
    """Whether all chance comes from the generator that was handed in."""
    exam, again, other = (got[key] for key in ("exam", "again", "other"))
    if not all(np.array_equal(a, b) for a, b in zip(exam, again, strict=True)):
        return "Two generators in the same state give two different exams: some of your chance does not come from `rng`."
    if batch >= 300 and np.array_equal(exam[0], other[0]):
        return "Two generators in different states give the same stories: yours do not depend on `rng`."
    return None


@wrong("Pairs are counted from the front here: distance 1 is the **last** token of the story, right before the question.")
def from_the_front(rng, batch, distance):
    if distance not in range(1, 16, 2):
        raise ValueError(distance)
    story, keys, values = make_recall(rng, batch, 8)
    pair = (distance - 1) // 2
    return story, keys[:, [pair]], values[:, [pair]]


@wrong("Right for the distances that exist; the others are accepted too. At an even distance there stands a letter, and before the "
       "first token nothing: say so with a ValueError.")
def accepts_all(rng, batch, distance):
    story, keys, values = make_recall(rng, batch, 8)
    pair = (8 - (distance + 1) // 2) % 8
    return story, keys[:, [pair]], values[:, [pair]]


@wrong("`assert` raises an AssertionError, and not at all under `python -O`. Here a ValueError is asked for: an argument has a value "
       "that makes no sense.")
def asserts(rng, batch, distance):
    assert distance in range(1, 16, 2)
    return recall_at(rng, batch, distance)


@wrong("Your `asked` and `answers` have one axis. One question for each story is still a row of questions: (batch, 1). What does "
       "`keys[:, 3]` do to the second axis?")
def drops_the_axis(rng, batch, distance):
    story, asked, answers = recall_at(rng, batch, distance)
    return story, asked[:, 0], answers[:, 0]


@wrong("Your answers are tokens, 8 to 15. The answer is the digit itself, 0 to 7, as `make_recall` returns it.")
def tokens_for_digits(rng, batch, distance):
    story, asked, answers = recall_at(rng, batch, distance)
    return story, asked, answers + KEYS


@wrong("All eight letters of a story are asked for, as in make_recall. Here each story has one question.")
def asks_all(rng, batch, distance):
    recall_at(rng, batch, distance)
    return make_recall(rng, batch, 8)


@wrong("You refuse 15. The first pair's value stands there: `range` leaves its end out.")
def refuses_the_first(rng, batch, distance):
    if distance not in range(1, 15, 2):
        raise ValueError(distance)
    return recall_at(rng, batch, distance)


@wrong("You make a generator of your own, so that the exam is the same whatever `rng` is handed in. All chance should come from "
       "`rng`.")
def own_generator(rng, batch, distance):
    return recall_at(np.random.default_rng(0), batch, distance)


@wrong("The question asks for the pair before the right one: its value stands two tokens too far back. Which pair is the last one, counted "
       "from 0?")
def one_pair_too_far(rng, batch, distance):
    if distance not in range(1, 16, 2):
        raise ValueError(distance)
    story, keys, values = make_recall(rng, batch, 8)
    pair = 7 - (distance + 1) // 2
    return story, keys[:, [pair]], values[:, [pair]]


@wrong("Even distances, 0 and 17 upwards are refused, negative ones are not: they count from the other end of the story.")
def negative_allowed(rng, batch, distance):
    if distance % 2 == 0 or distance > 15:
        raise ValueError(distance)
    story, keys, values = make_recall(rng, batch, 8)
    pair = (8 - (distance + 1) // 2) % 8
    return story, keys[:, [pair]], values[:, [pair]]


@wrong("Your stories are cut so that their first pair stands at the distance asked for. Every story should have 8 pairs, whatever the "
       "distance.")
def short_stories(rng, batch, distance):
    if distance not in range(1, 16, 2):
        raise ValueError(distance)
    story, keys, values = make_recall(rng, batch, (distance + 1) // 2)
    return story, keys[:, :1], values[:, :1]
