"""Grading one question of one submission: what is sent through the wall, and what is made of the answers."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import asdict, dataclass, field

from coursework import PUBLIC_SEED, assign
from coursework.assign import Assignment, Question
from coursework.grading import slicing
from coursework.grading.sandbox import Sandbox
from coursework.grading.submissions import Submission
from coursework.judging import Verdict, expected, judge, score
from coursework.running import Outcome
from coursework.wire import WireError, decode_outcome, encode

HIDDEN_SEEDS = 2
MEGABYTES = 1024
TOGETHER = 3.0                         # seconds for all light questions of a submission in one process
COPIES = 4                             # of its arguments, which `call` makes to see whether they were changed
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

    def request(self, asked: list[tuple[Question, list[str]]], public: bool, seconds: float) -> tuple[dict, dict]:
        """What is sent to a worker for some (question, pieces of code), and for each question the (set, place) of its inputs."""
        jobs, orders = [], {}
        for question, parts in asked:
            sets, exercise = self.sets[question.name], question.exercise
            heavy = len(sets) - 1 if exercise.heavy else -1
            places = [(s, i) for s, (cases, _) in enumerate(sets) for i in range(len(cases)) if (s == 0) == public]
            order = [p for p in places if p[0] != heavy]
            random.Random(self.seed).shuffle(order)
            order += [p for p in places if p[0] == heavy]      # last: their memory limit stays
            sent = []
            for number, (s, i) in enumerate(order):
                case = sets[s][0][i]
                held = (case.memory + COPIES * _bytes(case.args)) / (1 << 20) + SLACK if s == heavy and case.memory else None
                sent.append([number, encode(case.args), encode(case.kwargs), None if held else case.memory, held])
            jobs.append({"name": question.name, "parts": parts, "drive": driver(question), "cases": sent})
            orders[question.name] = order
        needs = sorted(set().union(*(q.exercise.needs for q, _ in asked)))
        return {"kind": "run", "needs": ["numpy", *needs], "jobs": jobs, "seconds": seconds,
                "megabytes": MEGABYTES * (4 if needs else 1)}, orders


def _bytes(args: tuple) -> int:
    """Bytes of all arrays among the arguments."""
    return sum(getattr(a, "nbytes", 0) for a in args)


def driver(question: Question) -> list[str]:
    """Source of the exercise's `drive` and of what it needs, to be run beside the learner's code."""
    if question.exercise.drive is None:
        return []
    found, _ = slicing.statements([question.base.text])
    part = [s for s in slicing.needed(found, "drive") if (getattr(s.node, "module", None) or "").split(".")[0] != "coursework"
            or s.node.module == "coursework.running"]
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


def attempt(sandbox: Sandbox, paper: Paper, asked: list[tuple[Question, list[str]]], public: bool = False,
            seconds: float | None = None) -> dict[str, Attempt]:
    """Run answers, in one process of their own, on the hidden inputs of their questions or on the public ones."""
    seconds = max(q.exercise.seconds for q, _ in asked) if seconds is None else seconds
    request, orders = paper.request(asked, public, seconds)
    ending = sandbox.run(request, seconds + 1)
    replies: dict[str, dict[int, Outcome]] = {name: {} for name in orders}
    for line in ending.lines:
        try:
            name, number, outcome = json.loads(line)
            if type(number) is int and number == len(replies[name]):     # in order, each once: what comes besides is noise
                replies[name][number] = decode_outcome(outcome)
        except (ValueError, TypeError, KeyError, WireError, RecursionError, MemoryError):
            continue
    return {q.name: _verdicts(paper, q, orders[q.name], replies[q.name], public, ending, seconds) for q, _ in asked}


def _verdicts(paper, question, order, replies, public, ending, seconds) -> Attempt:
    """Judge the replies to one question, set by set."""
    ran_out = ending.stopped == "time" or ending.seconds >= seconds
    stopped = "" if len(replies) == len(order) else "time" if ran_out else ending.stopped or "crash"
    results: dict = {place: replies.get(number, Outcome(error=NO_REPLY)) for number, place in enumerate(order)}
    verdicts = []
    for s in sorted({s for s, _ in order}):
        cases, wants = paper.sets[question.name][s]
        outcomes = [results[s, i] for i in range(len(cases))]
        verdicts.append(judge(question.exercise, cases, outcomes, wants, *(() if public else ([],)),
                              seed=PUBLIC_SEED if public else None))
    return Attempt(verdicts, ending.seconds, stopped if stopped in STOPPED or not stopped else "crash")


def mark(sandbox: Sandbox, paper: Paper, question: Question, parts: list[str]) -> Mark:
    """Points from the hidden inputs; where they are not full, a hint from a second process that sees the public ones only.

    So nothing that a learner's code says about hidden inputs can reach its author.
    """
    tried = attempt(sandbox, paper, [(question, parts)])[question.name]
    points = min(score(question.exercise, v, question.points) for v in tried.verdicts)
    made = Mark(question.name, points, question.points, "right", seconds=tried.seconds)
    if all(v.right for v in tried.verdicts):
        return made
    made.status = "wrong"
    if tried.stopped in STOPPED:
        made.status, made.hint = tried.stopped, STOPPED[tried.stopped].format(seconds=question.exercise.seconds)
        return made
    shown = attempt(sandbox, paper, [(question, parts)], public=True)[question.name]
    made.seconds += shown.seconds
    public = shown.verdicts[0]
    if public.status == "not attempted":
        made.status, made.hint = "not attempted", "It still raises NotImplementedError."
    else:
        made.hint = UNSEEN if public.right else public.hint
    return made


def together(sandbox: Sandbox, paper: Paper, asked: list[tuple[Question, list[str]]]) -> dict[str, Mark]:
    """Marks of those answers that are right when all are tried in one process, which is fast.

    Whatever is not right here is tried again alone, so an answer that loops, crashes or meddles costs the others nothing. Answers that
    need large packages or have limits that stay are left to that second round at once.
    """
    light = [(q, parts) for q, parts in asked if not q.exercise.needs and not q.exercise.heavy]
    if len(light) < 2:
        return {}
    tried = attempt(sandbox, paper, light, seconds=TOGETHER)
    return {q.name: Mark(q.name, q.points, q.points, "right", seconds=tried[q.name].seconds / len(light))
            for q, _ in light if all(v.right for v in tried[q.name].verdicts)}


def grade(sandbox: Sandbox, paper: Paper, submission: Submission) -> dict:
    """Grade one submission.

    Returns
    -------
    dict
        "student", "status" ("graded" or "unreadable"), "problem", "broken" (cells), "points", "of", "marks", "seconds"; JSON-ready.
    """
    questions = paper.assignment.questions
    names = [q.name for q in questions]
    found = read(sandbox, submission, [*names, *(q.base.name for q in questions if q.base.name not in names)])
    report = {"student": submission.student, "status": "graded", "problem": "", "of": paper.assignment.points}
    if "functions" not in found:
        return {**report, "status": "unreadable", "problem": found.get("unreadable", "reading it crashed"), "broken": {},
                "points": None, "marks": [], "seconds": 0.0}
    functions = found["functions"]
    begins = {q.name: assign.given(q.exercise, without=names) for q in questions}

    def parts(question: Question, *more: str) -> list[str]:
        return [begins[question.name], functions[question.name]["source"], *more]

    marks = together(sandbox, paper, [(q, parts(q)) for q in questions if q.name in functions])
    for question in questions:
        mine = functions.get(question.name)
        if not mine:
            other = f" There is one called {question.base.name}; is it meant?" if question.base.name in functions else ""
            marks[question.name] = Mark(question.name, 0.0, question.points, "missing",
                                        f"There is no function called {question.name} that could be read.{other}")
            continue
        made = marks.get(question.name) or mark(sandbox, paper, question, parts(question))
        made.review = mine["review"]
        if made.review and paper.assignment.library == "refuse" and made.points:
            made = Mark(question.name, 0.0, question.points, "refused", "Library shortcuts are not allowed here: "
                        + ", ".join(made.review), review=made.review, seconds=made.seconds)
        marks[question.name] = made
    marks = {name: marks[name] for name in names}
    for question in questions:                                    # credit for what only an earlier fault spoilt
        mine, made = functions.get(question.name), marks[question.name]
        faulty = [n for n in (mine or {}).get("uses", []) if n in marks and marks[n].status not in ("right", "refused")]
        if faulty and made.points < made.of and made.status not in ("refused", "not attempted"):
            own = {q.name: q for q in questions}
            instead = [assign.given(own[n].exercise) + "\n\n" + own[n].solution for n in faulty]
            again = mark(sandbox, paper, question, parts(question, *instead))
            made.seconds += again.seconds
            if again.points > made.points:
                made.points, made.carried, made.status = again.points, True, "carried"
                made.hint = f"It fails only through your {' and '.join(faulty)}."
    total = sum(m.points for m in marks.values())
    if not set(names) & set(functions):
        report["problem"] = "none of the functions asked for is in it"
    return {**report, "broken": found.get("broken", {}), "points": round(total, 2), "marks": [asdict(m) for m in marks.values()],
            "seconds": round(sum(m.seconds for m in marks.values()), 3)}


def trial(sandbox: Sandbox, paper: Paper) -> list[str]:
    """Grade the reference through the same wall; return what keeps it from full marks (nothing, if all is well)."""
    source = "\n\n# %%\n".join(assign.given(q.exercise) + "\n\n" + q.solution for q in paper.assignment.questions)
    separate = []
    for question in paper.assignment.questions:
        made = mark(sandbox, paper, question, [assign.given(question.exercise), question.solution])
        if made.points != question.points:
            separate.append(f"{question.name}: {made.points:g} of {question.points} points ({made.status}) {made.hint}")
    whole = read(sandbox, Submission("reference", source.encode(), ".py"), [q.name for q in paper.assignment.questions])
    lost = [q.name for q in paper.assignment.questions if q.name not in whole.get("functions", {})]
    return separate + [f"{name}: not found in the reference notebook" for name in lost]
