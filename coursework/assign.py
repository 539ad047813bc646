"""An assignment: exercises from the pool or an instructor's own folder, with points and variations, read from YAML.

    title: Problem set 1
    exercises_from: own/            # optional: a folder with exercises in the form of coursework.form
    library: review                 # shortcuts through libraries: allow, review (default) or refuse
    questions:
      - exercise: stable_softmax
        points: 5                   # default: the exercise's own
      - exercise: causal_mask
        name: who_may_see           # what the function is called in this assignment
        rename: {seq_q: queries}    # what its arguments are called
        variant: from_the_start     # another convention, if the exercise has one
"""

from __future__ import annotations

import ast
import dataclasses
import keyword
import re
from dataclasses import dataclass, field
from pathlib import Path

from coursework import form
from coursework.form import Exercise, FormError, Wrong
from coursework.grading import slicing

ATTNLIB = Path(__file__).resolve().parents[1] / "attnlib"
RESERVED = {"check", "require", "np", "coursework"}
POLICIES = ("allow", "review", "refuse")


@dataclass
class Question:
    """One question of an assignment: an exercise as it is asked there.

    Attributes
    ----------
    exercise : Exercise
        With the names and the convention of this assignment.
    points : int
    base : Exercise
        As it stands in the pool.
    variant : str
    rename : dict of str to str
    """

    exercise: Exercise
    points: int
    base: Exercise
    variant: str = ""
    rename: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the function is called here."""
        return self.exercise.name

    @property
    def prompt(self) -> str:
        """The prompt, with this assignment's names and convention."""
        says = ""
        if self.variant:
            says = ("\n\n**In this assignment another convention holds, also where something else is said above.** "
                    + self.base.variants[self.variant].says)
        return re.sub(r"`[^`\n]+`", lambda span: self._renamed(span[0]), self.base.prompt + says)     # names, not words

    @property
    def stub(self) -> str:
        """The stub, with this assignment's names."""
        return self._renamed(self.base.stub)

    @property
    def solution(self) -> str:
        """Code that answers the question, for an instructor's eyes and for grading the reference."""
        if not self.variant:
            return self._renamed(self.base.solution)
        lines = [self.base.solution, "", f"_book = {self.base.name}", SHIM]
        found, _ = slicing.statements([self.base.text])
        lines += [s.text for s in slicing.needed(found, "VARIANTS")
                  if not (isinstance(s.node, ast.ImportFrom) and (s.node.module or "").startswith("coursework"))]
        lines += [f"\n\ndef {self.name}(*args, _variant=VARIANTS[{self.variant!r}]):",
                  "    return _variant.result(_book(*_variant.args(*args)))"]
        return "\n".join(lines)

    def _renamed(self, text: str) -> str:
        names = {**self.rename, self.base.name: self.name}
        for old, new in names.items():
            if old != new:
                text = re.sub(rf"(?<![\w.]){re.escape(old)}\b(?!\s*=\s*{re.escape(old)}\b)", new, text)
        return text


SHIM = """
class Variant:
    def __init__(self, says="", args=lambda *args: args, result=lambda result: result, hint=""):
        self.args, self.result = args, result
"""


@dataclass
class Assignment:
    """A list of questions with a title and a policy."""

    name: str
    title: str
    questions: list[Question]
    library: str = "review"
    path: Path | None = None

    @property
    def points(self) -> int:
        """Points in all."""
        return sum(q.points for q in self.questions)


def read(path: Path) -> Assignment:
    """Read an assignment.

    Raises
    ------
    FormError
        If the file cannot be read or says something that is not known; the message names the key and what is possible.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FormError(f"there is no file {path}")
    try:
        said = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(said, dict) or not isinstance(said.get("questions"), list) or not said["questions"]:
        raise FormError(f"{path.name}: expected `questions:`, a list with at least one entry")
    _keys(path.name, said, {"title", "exercises_from", "library", "questions"})
    library = said.get("library", "review")
    if library not in POLICIES:
        raise FormError(f"{path.name}: library is {library!r}, expected one of {', '.join(POLICIES)}")
    own = path.parent / said["exercises_from"] if said.get("exercises_from") else None
    if own and not own.is_dir():
        raise FormError(f"{path.name}: exercises_from is {said['exercises_from']!r}, which is no folder beside it")
    questions = [_question(f"{path.name}, question {i}", q, own) for i, q in enumerate(said["questions"], start=1)]
    named = [q.name for q in questions]
    helpers: dict = {}
    for q in questions:
        for piece in given(q.exercise, without=named).split("\n\n\n"):
            helper = re.match(r"\s*def (\w+)", piece)
            if helper and helpers.setdefault(helper[1], (piece.strip(), q.name))[0] != piece.strip():
                raise FormError(f"{path.name}: questions {helpers[helper[1]][1]} and {q.name} are given different versions of {helper[1]}; "
                                "one notebook cannot hold both")
    for q in questions:
        for other in questions:
            if (q.name != q.base.name or q.variant) and re.search(rf"(?m)^def {q.base.name}\(", given(other.exercise)):
                raise FormError(f"{path.name}: question {other.name} hands out {q.base.name}, which solves question {q.name}. Leave one of "
                                "them out, or keep the name and the convention of the second, so that the learner's own is used")
    _solved_by_helpers(path.name, questions)
    if len(set(named)) < len(named):
        raise FormError(f"{path.name}: two questions have one name: {', '.join(sorted({n for n in named if named.count(n) > 1}))}")
    return Assignment(path.stem, said.get("title", path.stem), questions, library, path)


def _solved_by_helpers(where: str, questions: list[Question]) -> None:
    """Refuse an assignment in which what one question is given does what another asks for, whatever its name."""
    from coursework.judging import judge
    from coursework.running import call

    named, tried = [q.name for q in questions], set()
    for giver in questions:
        text = given(giver.exercise, without=named)
        defined = {n.name: len(n.args.args) for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name not in tried}
        if not defined or giver.exercise.needs:
            continue
        space: dict = {"__name__": "given"}
        exec(text, space)
        for helper, count in defined.items():
            tried.add(helper)
            for q in questions:
                if q.exercise.needs or q.exercise.drive or len(q.exercise.arguments) != count:
                    continue
                cases = q.exercise.draw(0)
                if judge(q.exercise, cases, [call(space[helper], c.args, c.kwargs) for c in cases], known=[]).right:
                    raise FormError(f"{where}: question {giver.name} is given {helper}, which solves question {q.name}. Leave one of them out, or "
                                    f"call the second {helper}: then the learner's own is used")


def _keys(where: str, said: dict, known: set) -> None:
    if strange := sorted(set(map(str, said)) - known):
        raise FormError(f"{where}: unknown {', '.join(strange)}; known are {', '.join(sorted(known))}")


def _question(where: str, said: dict, own: Path | None) -> Question:
    said = {"exercise": said} if isinstance(said, str) else said
    if not isinstance(said, dict) or "exercise" not in said:
        raise FormError(f"{where}: expected `exercise: NAME`")
    _keys(where, said, {"exercise", "points", "name", "rename", "variant"})
    wanted = str(said["exercise"])
    private = own / f"{wanted}.py" if own else None
    try:
        base = form.read(private) if private and private.exists() else form.get(wanted)
    except ValueError as error:
        raise FormError(f"{where}: {error}") from error
    points = said.get("points", base.points)
    if isinstance(points, bool) or not isinstance(points, int) or points < 1:
        raise FormError(f"{where}: points is {points!r}, expected an int from 1")
    name, rename, variant = said.get("name", base.name), said.get("rename") or {}, said.get("variant") or ""
    if not isinstance(rename, dict):
        raise FormError(f"{where}: rename is {rename!r}, expected a mapping as in {{seq_q: queries}}")
    for new in (name, *rename.values()):
        if not str(new).isidentifier() or keyword.iskeyword(str(new)) or new in RESERVED:
            raise FormError(f"{where}: {new!r} cannot be the name of a function or an argument here")
    after = [rename.get(a, a) for a in base.arguments]
    if len(set(after)) < len(after):
        raise FormError(f"{where}: after renaming, the arguments are {', '.join(after)}: two of one name")
    if strange := sorted(set(rename) - set(base.arguments)):
        raise FormError(f"{where}: rename has {', '.join(strange)}; {wanted} takes {', '.join(base.arguments)}")
    if variant and variant not in base.variants:
        raise FormError(f"{where}: variant is {variant!r}; {wanted} has {', '.join(base.variants) or 'none'}")
    return Question(varied(base, name, rename, variant), points, base, variant, rename)


def varied(base: Exercise, name: str, rename: dict, variant: str) -> Exercise:
    """The exercise under another name, with other argument names, in another convention."""
    def renamed_cases(rng):
        for c in base.cases(rng):
            label = re.sub(rf"\b{base.name}\(", f"{name}(", c.label)
            yield dataclasses.replace(c, label=label, kwargs={rename.get(k, k): v for k, v in c.kwargs.items()})

    made = dataclasses.replace(base, name=name, cases=renamed_cases)
    if rename or name != base.name:
        back = {new: old for old, new in rename.items()}

        def plainly(function):
            return lambda *args, **kwargs: function(*args, **{back.get(k, k): v for k, v in kwargs.items()})

        made = dataclasses.replace(made, reference=_signed(plainly(base.reference), [rename.get(a, a) for a in base.arguments]),
                                   wrongs=[Wrong(w.name, w.hint, plainly(w.function)) for w in base.wrongs])
    if variant:
        v = base.variants[variant]

        def other(function):
            return lambda *args: v.result(function(*v.args(*args)))

        made = dataclasses.replace(
            made, reference=_signed(other(base.reference), [rename.get(a, a) for a in base.arguments]), observers=[],
            wrongs=[Wrong("book", v.hint, base.reference), *(Wrong(w.name, w.hint, other(w.function)) for w in base.wrongs)])
    return made


def _signed(function, arguments: list[str]):
    import inspect

    function.__signature__ = inspect.Signature(
        [inspect.Parameter(a, inspect.Parameter.POSITIONAL_OR_KEYWORD) for a in arguments])
    return function


def given(exercise: Exercise, without: list[str] | None = None) -> str:
    """What the learner is given, standing on NumPy alone: what comes from `attnlib` is spelt out.

    Functions in `without` are left out: they are questions of the same assignment, and the learner's own are used.
    """
    pieces = ["import numpy as np"]
    for node in ast.parse(exercise.given).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("attnlib."):
            made = spell_out(node.module, [a.name for a in node.names])
        else:
            made = [ast.get_source_segment(exercise.given, node) or ast.unparse(node)]
        made = [piece for piece in made if not piece.startswith(tuple(f"def {name}(" for name in without or [])) or not without]
        pieces += [piece for piece in made if piece not in pieces]
    return "\n".join(f"\n\n{piece}\n" if piece.startswith(("def ", "class ", "@")) else piece for piece in pieces).strip()


def spell_out(module: str, wanted: list[str]) -> list[str]:
    """Source of functions of `attnlib` and of what they need, without decorators and docstrings."""
    text = (ATTNLIB / f"{module.removeprefix('attnlib.').replace('.', '/')}.py").read_text("utf-8")
    found, _ = slicing.statements([text])
    pieces = []
    for name in wanted:
        part = slicing.needed(found, name)
        if not part:
            raise FormError(f"{module} defines no {name}")
        for s in part:
            if isinstance(s.node, ast.ImportFrom) and s.node.module == "attnlib._shapes":
                continue
            piece = _bare(text, s.node) if isinstance(s.node, ast.FunctionDef) else s.text
            if piece not in pieces:
                pieces.append(piece)
    return pieces


def _bare(text: str, node: ast.FunctionDef) -> str:
    """A function without decorators, docstring and annotations of its head."""
    first = node.body[1] if ast.get_docstring(node) else node.body[0]
    body = text.splitlines()[first.lineno - 1: node.end_lineno]
    head = ast.parse(ast.unparse(node)).body[0]
    head.decorator_list, head.returns, head.body = [], None, [ast.Pass()]
    for argument in [*head.args.args, *head.args.kwonlyargs]:
        argument.annotation = None
    return "\n".join([ast.unparse(head).splitlines()[0], *body])
