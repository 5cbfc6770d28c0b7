"""BM25 against the formula worked out word by word, its order of ties, and its words."""

import math
import random
import unicodedata

import pytest

from common import bm25
from common.bm25 import BM25, tokenize

DOCUMENTS = [
    "the cat sat on the mat",
    "a dog and a cat",
    "检索模型的训练数据",
    "dog dog dog",
    "",
    "训练一个重排模型 with the cat",
]


def naive_score(query: str, document: str, documents: list[str]) -> float:
    k1, b = 1.2, 0.75
    words = [tokenize(text) for text in documents]
    mean_length = sum(len(text) for text in words) / len(words)
    document_words = tokenize(document)
    score = 0.0
    for word in tokenize(query):
        frequency = sum(word in text for text in words)
        idf = math.log(1 + (len(words) - frequency + 0.5) / (frequency + 0.5))
        tf = document_words.count(word)
        length = 1 - b + b * len(document_words) / mean_length
        score += idf * tf * (k1 + 1) / (tf + k1 * length)
    return score


def expected(query: str, documents: list[str]) -> list[tuple[int, float]]:
    scores = [naive_score(query, document, documents) for document in documents]
    places = sorted(range(len(documents)), key=lambda place: (-round(scores[place], 9), place))
    return [(place, scores[place]) for place in places if scores[place] > 0]


@pytest.mark.parametrize("query", ["cat", "dog cat dog", "训练模型", "the CAT 检索", "zebra", ""])
def test_scores_are_those_of_the_formula(query: str) -> None:
    (hits,) = BM25(DOCUMENTS).search([query], top_k=len(DOCUMENTS))
    wanted = expected(query, DOCUMENTS)
    assert [place for place, _ in hits] == [place for place, _ in wanted]
    assert [score for _, score in hits] == pytest.approx([score for _, score in wanted], rel=1e-5)


def test_blocks_do_not_change_the_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    words = [f"w{number}" for number in range(30)]
    documents = [" ".join(rng.choices(words, k=12)) for _ in range(50)]
    queries = [" ".join(rng.choices(words, k=3)) for _ in range(20)]
    index = BM25(documents)
    whole = list(index.search(queries, top_k=7))
    monkeypatch.setattr(bm25, "_BLOCK_BYTES", 4 * len(documents) * 3)  # three queries at a time
    assert list(index.search(queries, top_k=7)) == whole
    assert all(len(hits) == 7 for hits in whole)


def test_ties_are_ordered_by_place_and_cut_at_top_k() -> None:
    (hits,) = BM25(["other words"] + ["same text"] * 5).search(["same"], top_k=3)
    assert [place for place, _ in hits] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The Cat's mat_1", ["the", "cat", "s", "mat_1"]),
        ("训练模型", ["训", "练", "模", "型", "训练", "练模", "模型"]),
        ("用BERT微调", ["用", "bert", "微", "调", "微调"]),
        ("查", ["查"]),
        ("ＢＭ２５", ["bm25"]),  # full-width
        ("Größe naïve", ["größe", "naïve"]),
        ("。,!", []),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are marks
        ("தமிழ் भाषा", ["தமிழ்", "भाषा"]),
        ("ไทย။ ฿", ["ไ", "ท", "ย", "ไท", "ทย"]),  # without spaces, as Chinese
        ("İstanbul", ["i\u0307stanbul"]),
        ("1\ufe0f\u20e3 ❤\ufe0f ok", ["1", "ok"]),  # emoji
    ],
)
def test_words_and_chinese_characters(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


def test_words_with_marks_are_highlighted_whole() -> None:
    assert bm25.highlights("यह हिन्दी है", "हिन्दी") == [(3, 9)]
    decomposed = unicodedata.normalize("NFD", "これはがっこう")
    assert bm25.highlights(decomposed, "がっこう") == [(3, 8)]


def test_a_chinese_query_finds_its_document() -> None:
    (hits,) = BM25(DOCUMENTS).search(["检索的训练"], top_k=1)
    assert hits[0][0] == 2


@pytest.mark.parametrize("documents", [[], ["", "  "], ["。"]])
def test_documents_without_a_word_are_refused(documents: list[str]) -> None:
    with pytest.raises(ValueError, match="found no word"):
        BM25(documents)


def test_top_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        list(BM25(["cat"]).search(["cat"], top_k=0))
