"""Documents cut into passages by the rule, and the passages that match a query."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.bm25 import BM25
from preparation.passages import best_passages, bm25_scores, split_passages


def test_whole_lines_are_packed() -> None:
    text = "aaaa aaaa\nbbbb\n\ncccc cccc\ndd"
    assert split_passages(text, 15) == ["aaaa aaaa\nbbbb", "cccc cccc\ndd"]
    assert split_passages(text, len(text)) == [text]
    assert split_passages("  short \n", 100) == ["short"]


def test_a_long_paragraph_ends_after_a_sentence() -> None:
    text = "One is 3.14 here. Two is there! Three is “the end.” Four?"
    assert split_passages(text, 32) == [
        "One is 3.14 here. Two is there!",
        "Three is “the end.” Four?",
    ]
    # Only a sentence in the second half is taken: the first passage is not "One is 3.14 here."
    assert split_passages(text, 30)[0] == "One is 3.14 here."
    assert split_passages("Ok. " + "word " * 20, 40)[0] == "Ok. word word word word word word word"


def test_chinese_sentences() -> None:
    text = "感冒了要多喝水。发烧时应当休息！“可以吃药吗？”可以；但要问医生。"
    assert split_passages(text, 16) == [
        "感冒了要多喝水。发烧时应当休息！",
        "“可以吃药吗？”可以；",
        "但要问医生。",
    ]
    assert split_passages(text, 18)[0] == "感冒了要多喝水。发烧时应当休息！"


def test_without_any_boundary_it_is_cut_at_the_size() -> None:
    assert split_passages("检" * 25, 10) == ["检" * 10, "检" * 10, "检" * 5]
    with pytest.raises(ValueError, match="at least 2 characters, got 1"):
        split_passages("text", 1)


@given(
    text=st.text(alphabet="ab 检索。！\n.?！”\t", max_size=300),
    size=st.integers(min_value=2, max_value=40),
)
def test_nothing_is_lost_and_no_passage_is_too_long(text: str, size: int) -> None:
    passages = split_passages(text, size)
    assert "".join("".join(passages).split()) == "".join(text.split())
    assert all(0 < len(passage) <= size and passage == passage.strip() for passage in passages)
    if not any(letter.isspace() for letter in text):
        assert all(len(passage) >= size / 2 for passage in passages[:-1])


WORDS = st.lists(st.sampled_from(["cat", "dog", "the", "检索", "模型", "检"]), max_size=8)


@given(query=WORDS, passages=st.lists(WORDS, min_size=1, max_size=6))
def test_scores_are_those_of_the_index(query: list[str], passages: list[list[str]]) -> None:
    texts = [" ".join(words) for words in passages]
    scores = bm25_scores(" ".join(query), texts)
    expected = [0.0] * len(texts)
    if any(texts):
        for place, score in next(BM25(texts).search([" ".join(query)], len(texts))):
            expected[place] = score
    assert scores == pytest.approx(expected, rel=1e-5)


def test_the_best_passages_in_the_order_of_the_text() -> None:
    documents = [
        ["the cat sat", "dogs sleep", "a cat and a cat", "nothing here"],
        ["kein Treffer", "auch nicht"],
        ["only", "cat"],
    ]
    assert best_passages("cat", documents, 1) == ([[2], [0], [1]], 1)
    assert best_passages("cat", documents, 2) == ([[0, 2], [0, 1], [0, 1]], 1)
    assert best_passages("猫", [["狗", "猫"]], 1) == ([[1]], 0)
