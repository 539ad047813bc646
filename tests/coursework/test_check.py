"""What `check` says: verdicts, and one observation that is true."""

import numpy as np
import pytest

import coursework
from coursework import Mistaken, check, form, observing, require, verdict
from coursework.form import Exercise, case
from coursework.judging import judge
from coursework.running import Noticed, Strange, call, plain


def exercise(reference, *cases, **more):
    return Exercise(name="f", title="F", prompt="", points=2, given="", reference=reference, cases=lambda rng: iter(cases),
                    wrongs=[], observers=[], **more)


def said(reference, answer, *cases, **more):
    made = exercise(reference, *cases, **more)
    drawn = made.draw(0)
    return judge(made, drawn, [call(answer, c.args, c.kwargs, made.drive, c.memory) for c in drawn])


RNG = np.random.default_rng(0)
S = {"seq_q": 4, "seq_k": 6, "dim_head": 9}
SCORES = RNG.normal(size=(4, 6))
SQUARE = RNG.normal(size=(5, 5))


def double(x):
    return 2 * x


def weights(x):
    powers = np.exp(x)
    return powers / powers.sum(axis=-1, keepdims=True)


# answer, reference, argument, and a piece of what should be said
OBSERVATIONS = [
    (lambda x: None, double, SCORES, "returns None"),
    (lambda x: 3, double, SCORES, "is an int, expected an array"),
    (lambda x: [1, 2], double, SCORES, "is a list"),
    (lambda x: object(), double, SCORES, "is an object"),
    (lambda x: (x, x), double, SCORES, "is a tuple"),
    (lambda x: 2 * x.T, double, SCORES, "other order it would be right"),
    (lambda x: (2 * x)[None], double, SCORES, "an axis of length 1 too many"),
    (lambda x: (2 * x).reshape(3, 8), double, SCORES, "as many numbers, arranged otherwise"),
    (lambda x: (2 * x).sum(-1), double, SCORES, "shape (seq_q=4,), expected (seq_q=4, seq_k=6)"),
    (lambda x: (2 * x).astype(int), double, SCORES, "whole numbers"),
    (lambda x: 2 * x + 0j, double, SCORES, "complex numbers"),
    (lambda x: np.where(x > 1, np.nan, 2 * x), double, SCORES, "holds NaN"),
    (lambda x: np.where(np.arange(4)[:, None] == 1, np.inf, 2 * x), double, SCORES, "infinity in 1 of 4 rows"),
    (lambda x: x, double, SCORES, "equals argument 1"),
    (lambda x: 0 * x, double, SCORES, "all zeros"),
    (lambda x: -2 * x, double, SCORES, "opposite sign"),
    (lambda x: 2 * x / 9**0.5, double, SCORES, "1/√dim_head"),
    (lambda x: 2 * x * 6, double, SCORES, "that is seq_k"),
    (lambda x: 2 * x + 4, double, SCORES, "larger than expected by the same number everywhere: 4"),
    (lambda x: weights(x.T).T, weights, SCORES, "columns sum to 1, your rows do not"),
    (lambda x: np.exp(x) / np.exp(x).sum(), weights, SCORES, "together sums to 1"),
    (lambda x: 2 * x[:, ::-1], double, SCORES, "reverse order along axis -1"),
    (lambda x: np.roll(2 * x, 1, 0), double, SCORES, "shifted by one along axis -2"),
    (lambda x: 2 * x[[2, 0, 3, 1]], double, SCORES, "in another order"),
    (lambda x: 2 * x.T, double, SQUARE, "exchanged"),
    (lambda x: 2 * x + np.triu(np.ones((5, 5)), 1), double, SQUARE, "above the diagonal"),
    (lambda x: 2 * x + (np.arange(4) == 0)[:, None], double, SCORES, "in the first row"),
    (lambda x: 2 * x + 1e-6 * np.sin(x), double, SCORES, "nearly right"),
    (lambda x: x <= 0, lambda x: x > 0, SCORES, "True exactly where it should be False"),
    (lambda x: (x > 0).astype(float), lambda x: x > 0, SCORES, "real numbers (float64), expected booleans"),
    (lambda x: (x > 0) | (np.arange(6) == 0), lambda x: (x > 0) & (np.arange(6) > 0), SCORES, "in the first column"),
    (lambda x: x + np.sin(x), double, SCORES, "expected"),
]


@pytest.mark.parametrize(("answer", "reference", "argument", "piece"), OBSERVATIONS, ids=[o[3] for o in OBSERVATIONS])
def test_observation(answer, reference, argument, piece):
    result = said(reference, answer, case("plain", argument, dims=S))
    assert not result.right and piece in result.hint, result.hint
    assert said(reference, reference, case("plain", argument, dims=S)).right


def test_observers_survive_anything():
    """Whatever comes back, something is said and nothing raises."""
    strange = [np.zeros(0), np.zeros((0, 3)), np.array(3), np.full((4, 6), np.nan), np.full((4, 6), np.inf), np.zeros((4, 6), bool), "x",
               {"a": 1}, [], (), 1e400, -1, True, 1j, np.array(["a"]), np.ma.masked_array([1.0]), type, lambda: 0, b"x"]
    for thing in strange:
        for reference in (double, weights, lambda x: x > 0, lambda x: (x, x), lambda x: 3, lambda x: 1.5, lambda x: {"a": x}):
            result = said(reference, lambda x, thing=thing: thing, case("plain", SCORES, dims=S), returns=("out", "weights"))
            assert result.right or result.hint


def test_exceptions_name_the_line_and_the_arguments():
    def answer(x):
        y = x + 1
        return y @ y

    result = said(double, answer, case("plain", SCORES, dims=S))
    assert "ValueError" in result.hint and "line 3 of your function" in result.hint and "x (seq_q=4, seq_k=6)" in result.hint


def test_changed_arguments_are_refused():
    def answer(x):
        x *= 2
        return x

    result = said(double, answer, case("plain", SCORES))
    assert "changes its argument `x`" in result.hint
    assert np.array_equal(SCORES, np.random.default_rng(0).normal(size=(4, 6)))   # the case itself is untouched


def test_wanted_exceptions():
    def reference(n):
        if n < 0:
            raise ValueError("n")
        return n

    cases = case("a right size", 3), case("a negative size", -1, raises=ValueError)
    assert said(reference, reference, *cases).right
    assert "returns something" in said(reference, lambda n: n, *cases).hint

    def other(n):
        raise KeyError(n) if n < 0 else NotImplementedError

    assert "a ValueError is asked for" in said(reference, lambda n: n if n >= 0 else {}[n], *cases).hint
    assert not said(reference, other, *cases).right


def test_a_subclass_of_the_wanted_exception_is_one():
    def reference(n):
        raise ValueError

    def answer(n):
        raise UnicodeError("a ValueError too")

    assert said(reference, answer, case("any", 1, raises=ValueError)).right


def test_memory_is_measured():
    def sums(x):
        return np.array([np.outer(row, x[0]).sum() for row in x])

    def at_once(x):
        return np.stack([np.outer(row, x[0]) for row in x]).sum(axis=(1, 2))

    big = np.ones((64, 64))
    limited = case("little memory", big, memory=300_000)
    assert said(sums, sums, limited).right
    result = said(sums, at_once, limited)
    assert not result.right and "MB at once" in result.hint


def test_leading_axes_are_said_first_and_only_where_they_are_it():
    both = case("a matrix", SCORES), case("a batch", np.stack([SCORES, -SCORES]))
    assert said(double, lambda x: 2 * x if x.ndim == 2 else 3 * x, *both).hint.startswith("Right without leading axes, wrong with them. ")
    assert not said(double, lambda x: 3 * x, *both).hint.startswith("Right without")
    assert not said(double, lambda x: 3 * x if x.ndim == 2 else 2 * x, *both).hint.startswith("Right without")


def test_a_gross_case_is_heard_before_a_nearly_right_one():
    cases = case("small", SCORES), case("large", SCORES + 100)
    result = said(double, lambda x: 2 * x + 1e-6 * np.sin(x) if x.max() < 50 else -2 * x, *cases)
    assert "opposite sign" in result.hint and "In other cases it is nearly right" in result.hint
    assert said(double, lambda x: 2 * x + 1e-6 * np.sin(x), *cases).hint.startswith("The result is nearly right")


def test_nan_is_told_what_exp_could_not_hold():
    naive = said(weights, lambda x: np.full_like(x, np.nan), case("plain", SCORES)).hint
    assert "exp of that" not in naive

    def stable(x):
        return weights(x - x.max())

    with np.errstate(all="ignore"):
        assert "Numbers up to 1,00" in said(stable, weights, case("large", SCORES + 1000)).hint
        down = said(stable, weights, case("small", SCORES - 1000)).hint
    assert "Numbers down to -1,00" in down and "exp of that is 0" in down


def test_a_drive_can_speak_for_itself():
    def drive(f, x):
        if f is double:
            return f(x)
        raise Noticed("the cache was full, and something was written")

    assert said(double, weights, case("plain", SCORES), drive=drive).hint == "The cache was full, and something was written"
    wanted = case("plain", SCORES, raises=ValueError)
    assert said(double, weights, wanted, drive=drive).hint == "The cache was full, and something was written"


def test_counts_are_exact():
    assert "counts are exact" in said(lambda n: 2 * n, lambda n: 2.0 * n, case("a count", 3)).hint
    assert said(lambda n: 2 * n, lambda n: np.int64(2 * n), case("a count", 3)).right
    assert not said(lambda n: 2 * n, lambda n: True, case("a count", 3)).right


def test_edge_cases_are_told_apart():
    def answer(x):
        return 2 * x if x.size > 1 else x + np.nan

    made = exercise(double, case("usual", SCORES), case("one number", np.ones((1, 1)), edge=True), edge_points=1)
    result = judge(made, made.draw(0), [call(answer, c.args, {}) for c in made.draw(0)])
    assert result.core and not result.right and result.passed == ("usual",)


def test_float32_is_judged_as_float32():
    x = SCORES.astype(np.float32)
    assert said(double, lambda x: x + x * np.float32(1 + 1e-7), case("float32", x)).right
    assert not said(double, lambda x: x + x * np.float32(1.01), case("float32", x)).right


def test_check_prints_and_require_raises(capsys):
    reference = form.get("stable_softmax").reference
    check(reference)
    assert capsys.readouterr().out.startswith("✓ stable_softmax: right in all")

    def stable_softmax(scores):
        return scores

    check(stable_softmax)
    assert capsys.readouterr().out.startswith("✗ stable_softmax: not yet.")
    with pytest.raises(Mistaken, match="stable_softmax: not yet"):
        require(stable_softmax)
    require(reference)

    def mine(scores):
        raise NotImplementedError

    check(mine, "stable_softmax")
    assert "not attempted yet" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no exercise called 'mine'"):
        check(mine)
    with pytest.raises(ValueError, match="Did you mean stable_softmax"):
        check(mine, "stable_softmx")
    with pytest.raises(ValueError, match=r"check\(f\), not check\(f\(\.\.\.\)\)"):
        check(np.ones(3))
    assert verdict(np.ones(3), "stable_softmax").hint.startswith("This is a ndarray")


def test_what_is_not_data_becomes_strange():
    assert isinstance(plain(object()), Strange) and isinstance(plain(np.array([object()])), Strange)
    assert plain([np.float64(1.5), (True, None)]) == [1.5, (True, None)]
    deep: list = []
    deep.append(deep)
    plain(deep)                                         # ends

    class Sub(np.ndarray):
        pass

    assert type(plain(np.ones(3).view(Sub))) is np.ndarray


def test_sizes_are_distinct_and_say_when_they_cannot_be():
    for seed in range(20):
        made = vars(coursework.sizes(np.random.default_rng(seed), "a b c d e f"))
        assert len(set(made.values())) == 6
    with pytest.raises(ValueError, match="3 names, but only 2 sizes"):
        coursework.sizes(np.random.default_rng(0), "a b c", least=3, most=4)


def test_named_shapes():
    assert observing.named((4, 7), {"seq_q": 4}) == "(seq_q=4, 7)"
    assert observing.named((4,), {}) == "(4,)"


def test_a_broken_file_says_what_is_missing(tmp_path):
    file = tmp_path / "thing.py"
    file.write_text("TITLE = 'x'\n")
    with pytest.raises(form.FormError, match="lacks PROMPT, POINTS, cases, thing"):
        form.read(file)
    file.write_text("1 / 0\n")
    with pytest.raises(form.FormError, match="cannot be imported: ZeroDivisionError"):
        form.read(file)
    file.write_text("TITLE = PROMPT = 'x'\nPOINTS = EDGE_POINTS = 2\ndef cases(rng): ...\ndef thing(x): return x\n")
    with pytest.raises(form.FormError, match="EDGE_POINTS is 2"):
        form.read(file)
