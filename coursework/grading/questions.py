"""Grading one question of one submission: what is sent through the wall, and what is made of the answers."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import asdict, dataclass, field

from coursework import PUBLIC_SEED, assign
from coursework.assign import Assignment, Question
from coursework.grading import slicing
from coursework.grading.sandbox import Ending, Sandbox
from coursework.grading.submissions import Submission
from coursework.judging import Verdict, expected, judge, score
from coursework.running import Outcome
from coursework.wire import WireError, decode_outcome, encode

HIDDEN_SEEDS = 2
MEGABYTES = 1024
SLACK = 24                             # megabytes beside a case's own limit, for Python and NumPy themselves
NO_REPLY = "NoReply"
STOPPED = {"time": "It did not finish within {seconds:g} s. Is there a loop that never ends?",
           "output": "It returned far more than was asked for.", "crash": "The process ended before it answered."}
UNSEEN = "Right on the inputs that `check` uses, wrong on others. Does something depend on particular sizes or values?"


@dataclass
class Mark:
    """The result for one question."""

    question: str
    points: float
    of: int
    status: str
    hint: str = ""
    carried: bool = False
    review: list = field(default_factory=list)
    seconds: float = 0.0


class Paper:
    """An assignment made ready to grade with: inputs, expected values, known wrong answers.

    Parameters
    ----------
    assignment : Assignment
    seed : int
        Secret; the hidden inputs are drawn from it.
    """

    def __init__(self, assignment: Assignment, seed: int):
        self.assignment, self.seed = assignment, seed
        self.sets = {q.name: self._prepare(q) for q in assignment.questions}

    def _prepare(self, question: Question) -> list[tuple]:
        """(cases, expected values) for the public inputs and for each set of hidden ones."""
        exercise = question.exercise
        seeds = [PUBLIC_SEED, *(self.seed * 1000 + i for i in range(1, HIDDEN_SEEDS + 1))]
        drawn = [exercise.draw(seed) for seed in seeds]
        if exercise.heavy:
            import numpy as np

            drawn.append(list(exercise.heavy(np.random.default_rng(self.seed))))
        return [(cases, expected(exercise, cases)) for cases in drawn]

    def request(self, question: Question, parts: list[str], public: bool) -> tuple[dict, list]:
        """What is sent to a worker, and for each case in it (set, place)."""
        sets = self.sets[question.name]
        heavy = len(sets) - 1 if question.exercise.heavy else -1
        places = [(s, i) for s, (cases, _) in enumerate(sets) for i in range(len(cases)) if (s == 0) == public]
        order = [p for p in places if p[0] != heavy]
        random.Random(self.seed).shuffle(order)
        order += [p for p in places if p[0] == heavy]          # last: their memory limit stays
        sent = []
        for number, (s, i) in enumerate(order):
            case = sets[s][0][i]
            held = case.memory / (1 << 20) + SLACK if s == heavy and case.memory else None
            sent.append([number, encode(case.args), encode(case.kwargs), None if held else case.memory, held])
        exercise = question.exercise
        megabytes = 4 * MEGABYTES if set(exercise.needs) & {"torch", "triton"} else MEGABYTES
        return {"kind": "run", "needs": ["numpy", *exercise.needs], "cases": sent, "seconds": exercise.seconds,
                "megabytes": megabytes, "parts": [assign.given(exercise), *parts], "name": question.name,
                "drive": driver(question)}, order


def driver(question: Question) -> list[str]:
    """Source of the exercise's `drive` and of what it needs, to be run beside the learner's code."""
    if question.exercise.drive is None:
        return []
    found, _ = slicing.statements([question.base.text])
    part = [s for s in slicing.needed(found, "drive") if "coursework" not in (getattr(s.node, "module", None) or "")]
    header = assign.given(_only_imports(question.base, part))
    return [header, "\n\n".join(s.text for s in part if not s.text.startswith("from attnlib"))]


def _only_imports(base, part):
    import dataclasses

    return dataclasses.replace(base, given="\n".join(s.text for s in part if s.text.startswith("from attnlib")))


def read(sandbox: Sandbox, submission: Submission, names: list[str]) -> dict:
    """Survey a submission inside the sandbox: which functions it defines, what they need, which cells are broken."""
    if submission.problem:
        return {"unreadable": submission.problem}
    ending = sandbox.run({"kind": "survey", "data": base64.b64encode(submission.data).decode(), "suffix": submission.suffix,
                          "names": names, "seconds": 10}, 10)
    try:
        found = json.loads(ending.lines[0])
        return found if isinstance(found, dict) else {}
    except (IndexError, ValueError, RecursionError):
        return {"unreadable": "reading it took too long" if ending.stopped == "time" else "reading it crashed"}


@dataclass
class Attempt:
    """Verdicts for the sets of inputs that were tried, the seconds it took, and why it was stopped, if it was."""

    verdicts: list[Verdict]
    seconds: float
    stopped: str = ""


def attempt(sandbox: Sandbox, paper: Paper, question: Question, parts: list[str], public: bool = False) -> Attempt:
    """Run an answer, in a process of its own, on the hidden inputs of a question or on the public ones."""
    request, order = paper.request(question, parts, public)
    ending = sandbox.run(request, question.exercise.seconds + 1)
    replies: dict[int, Outcome] = {}
    for line in ending.lines:
        try:
            number, outcome = json.loads(line)
            if type(number) is int and number == len(replies):     # in order, each once: what comes besides is noise
                replies[number] = decode_outcome(outcome)
        except (ValueError, TypeError, WireError, RecursionError, MemoryError):
            continue
    stopped = "" if len(replies) == len(order) else "time" if _ran_out(ending, question) else ending.stopped or "crash"
    results: dict = {place: replies.get(number, Outcome(error=NO_REPLY)) for number, place in enumerate(order)}
    verdicts = []
    for s in sorted({s for s, _ in order}):
        cases, wants = paper.sets[question.name][s]
        outcomes = [results[s, i] for i in range(len(cases))]
        verdicts.append(judge(question.exercise, cases, outcomes, wants, *(() if public else ([],)),
                              seed=PUBLIC_SEED if public else None))
    return Attempt(verdicts, ending.seconds, stopped)


def _ran_out(ending: Ending, question: Question) -> bool:
    return ending.stopped == "time" or ending.seconds >= question.exercise.seconds


def mark(sandbox: Sandbox, paper: Paper, question: Question, parts: list[str]) -> Mark:
    """Points from the hidden inputs; where they are not full, a hint from a second process that sees the public ones only.

    So nothing that a learner's code says about hidden inputs can reach its author.
    """
    tried = attempt(sandbox, paper, question, parts)
    points = min(score(question.exercise, v, question.points) for v in tried.verdicts)
    made = Mark(question.name, points, question.points, "right", seconds=tried.seconds)
    if all(v.right for v in tried.verdicts):
        return made
    made.status = "wrong"
    if tried.stopped in STOPPED:
        made.status, made.hint = tried.stopped, STOPPED[tried.stopped].format(seconds=question.exercise.seconds)
        return made
    shown = attempt(sandbox, paper, question, parts, public=True)
    made.seconds += shown.seconds
    public = shown.verdicts[0]
    if public.status == "not attempted":
        made.status, made.hint = "not attempted", "It still raises NotImplementedError."
    else:
        made.hint = UNSEEN if public.right else public.hint
    return made


def grade(sandbox: Sandbox, paper: Paper, submission: Submission) -> dict:
    """Grade one submission.

    Returns
    -------
    dict
        "student", "status" ("graded" or "unreadable"), "problem", "broken" (cells), "points", "of", "marks", "seconds"; JSON-ready.
    """
    questions = paper.assignment.questions
    names = [q.name for q in questions]
    found = read(sandbox, submission, names)
    report = {"student": submission.student, "status": "graded", "problem": "", "of": paper.assignment.points}
    if "functions" not in found:
        return {**report, "status": "unreadable", "problem": found.get("unreadable", "reading it crashed"), "broken": {},
                "points": None, "marks": [], "seconds": 0.0}
    marks: dict[str, Mark] = {}
    functions = found["functions"]
    for question in questions:
        mine = functions.get(question.name)
        if not mine:
            marks[question.name] = Mark(question.name, 0.0, question.points, "missing",
                                        f"There is no function called {question.name} that could be read.")
            continue
        made = mark(sandbox, paper, question, [mine["source"]])
        made.review = mine["review"]
        if made.review and paper.assignment.library == "refuse" and made.points:
            made = Mark(question.name, 0.0, question.points, "refused", "Library shortcuts are not allowed here: "
                        + ", ".join(made.review), review=made.review, seconds=made.seconds)
        marks[question.name] = made
    for question in questions:                                    # credit for what only an earlier fault spoilt
        mine, made = functions.get(question.name), marks[question.name]
        faulty = [n for n in (mine or {}).get("uses", []) if marks[n].status not in ("right", "refused")]
        if mine and faulty and made.points < made.of and made.status not in ("refused", "not attempted"):
            own = {q.name: q for q in questions}
            instead = [assign.given(own[n].exercise) + "\n\n" + own[n].solution for n in faulty]
            again = mark(sandbox, paper, question, [mine["source"], *instead])
            made.seconds += again.seconds
            if again.points > made.points:
                made.points, made.carried, made.status = again.points, True, "carried"
                made.hint = f"Right with a right {' and '.join(faulty)}: it fails only through the earlier function."
    total = sum(m.points for m in marks.values())
    if not functions:
        report["problem"] = "none of the functions asked for is in it"
    return {**report, "broken": found.get("broken", {}), "points": round(total, 2), "marks": [asdict(m) for m in marks.values()],
            "seconds": round(sum(m.seconds for m in marks.values()), 3)}


def trial(sandbox: Sandbox, paper: Paper) -> list[str]:
    """Grade the reference through the same wall; return what keeps it from full marks (nothing, if all is well)."""
    source = "\n\n# %%\n".join(assign.given(q.exercise) + "\n\n" + q.solution for q in paper.assignment.questions)
    separate = []
    for question in paper.assignment.questions:
        made = mark(sandbox, paper, question, [question.solution])
        if made.points != question.points:
            separate.append(f"{question.name}: {made.points:g} of {question.points} points ({made.status}) {made.hint}")
    whole = read(sandbox, Submission("reference", source.encode(), ".py"), [q.name for q in paper.assignment.questions])
    lost = [q.name for q in paper.assignment.questions if q.name not in whole.get("functions", {})]
    return separate + [f"{name}: not found in the reference notebook" for name in lost]
