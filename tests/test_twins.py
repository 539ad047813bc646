"""The chapters and the library are one text."""

import pytest

from tests.guards import show
from tests.guards.twins import twins
from tools import chapters
from tools.chapters import ROOT, Chapter

CHAPTERS = chapters.find(ROOT)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)
def test_what_chapter_and_library_both_define_is_the_same_code(chapter: Chapter):
    assert not twins(chapter), show(twins(chapter))


def edit(book: Chapter, old: str, new: str) -> list[str]:
    text = book.source.read_text(encoding="utf-8")
    assert old in text
    book.source.write_text(text.replace(old, new, 1), encoding="utf-8")
    return [str(finding) for finding in twins(book)]


def test_the_sample_has_a_twin_and_it_is_the_same(book: Chapter):
    assert "def softmax" in book.source.read_text() and not twins(book)


def test_a_drifted_twin_is_caught(book: Chapter):
    (message,) = edit(book, "scores - scores.max(axis=-1, keepdims=True)", "scores - scores.max()")
    assert "softmax is not the code of attnlib.reference.softmax" in message and "+    powers" in message


def test_a_drifted_library_is_caught(book: Chapter):
    path = book.root / "attnlib" / "reference.py"
    path.write_text(path.read_text().replace("return powers /", "return 1 * powers /"))
    assert len(twins(book)) == 1


@pytest.mark.parametrize("new", [
    "def softmax(scores: np.ndarray) -> np.ndarray:",
    "@np.vectorize\ndef softmax(scores):",
    "def softmax(scores):  # a comment",
])
def test_annotations_decorators_docstrings_and_comments_may_differ(book: Chapter, new: str):
    assert edit(book, "def softmax(scores):", new) == []


@pytest.mark.parametrize("new", [
    "def softmax(scores, axis=-1):",   # a default more
    "def softmax(values):",            # another name for the argument
    "def softmax(*scores):",
    "async def softmax(scores):",
])
def test_a_changed_signature_is_caught(book: Chapter, new: str):
    assert edit(book, "def softmax(scores):", new)


def test_another_name_may_differ(book: Chapter):
    assert edit(book, "def softmax(scores):", "def softmax_naive(scores):") == []


def test_a_lambda_is_caught(book: Chapter):
    (message,) = edit(book, "print(len(scores))", "softmax = lambda scores: scores")
    assert "is a lambda" in message


def test_a_twin_that_the_text_does_not_mention_is_caught(book: Chapter):
    (message,) = edit(book, "`attnlib.reference.softmax`", "in the library")
    assert "the text never says" in message


def test_a_room_that_is_a_folder_may_be_named_whole(book: Chapter):
    folder = book.root / "attnlib" / "large"
    folder.mkdir()
    (folder / "part.py").write_text("def half(x):\n    return x / 2\n")
    text = book.source.read_text().replace("print(len(scores))", "def half(x):\n    return x / 2\n\n\nprint(half(len(scores)))")
    for words, found in (("`attnlib.reference.softmax`", 1), ("`attnlib.reference.softmax` `attnlib.large.half`", 0),
                         ("`attnlib.reference.softmax` `attnlib.large.part.half`", 0), ("`attnlib.reference.softmax` `attnlib.larger.half`", 1)):
        book.source.write_text(text.replace("`attnlib.reference.softmax`", words))
        assert len(twins(book)) == found, (words, show(twins(book)))


def test_an_exercise_is_compared_in_its_solution_not_in_its_stub(book: Chapter):
    path = book.root / "attnlib" / "reference.py"
    same = ("\n\ndef padding_mask(lengths: int, seq_k: int) -> int:\n    real = np.arange(seq_k) < lengths[:, None]\n"
            "    return real[:, None, None, :]\n")
    path.write_text(path.read_text() + same)
    assert not twins(book), show(twins(book))
    path.write_text(path.read_text().replace("return real[:, None, None, :]", "return real[:, None, None]"))
    assert ["padding_mask is not the code of attnlib.reference.padding_mask"] == [finding.what for finding in twins(book)]


def test_one_of_several_rooms_is_enough(book: Chapter):
    (book.root / "attnlib" / "layers.py").write_text("def softmax(scores):\n    return scores.softmax(-1)\n")
    assert not twins(book), show(twins(book))


def test_classes_are_compared(book: Chapter):
    (book.root / "attnlib" / "layers.py").write_text("class Layer:\n    size: int\n\n    def forward(self, x):\n        return x\n")
    mine = "class Layer:\n    '''Own words.'''\n\n    size: float\n\n    def forward(self, x: int):\n        return {}\n"
    text = book.source.read_text()
    book.source.write_text(text.replace("print(len(scores))", mine.format("x")).replace("`attnlib.ref", "`attnlib.layers.Layer` `attnlib.ref"))
    assert not twins(book), show(twins(book))
    book.source.write_text(book.source.read_text().replace("return x\n", "return -x\n"))
    assert len(twins(book)) == 1
