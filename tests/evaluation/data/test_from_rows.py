"""Evaluation sets made of training rows: what becomes a document, a query, a judgement."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.data.from_rows import (
    pairs_from_rows,
    retrieval_from_groups,
    text_id,
)
from loaders import ReadOptions, load_rows
from runs import TOPICS, write_format


def group(query: str, pos: list[str], neg: list[str], **changes: Any) -> dict[str, Any]:
    return {
        "query": query,
        "pos": pos,
        "neg": neg,
        "pos_scores": None,
        "neg_scores": None,
        "prompt": None,
        "graded": False,
    } | changes


GROUPS = [
    group("首都", ["北京"], ["猫", "Paris"]),
    group("capital", ["Paris"], ["猫"], pos_scores=[7.5], neg_scores=[-3.0]),
    group("首都", ["东京"], ["北京", "狗"]),
]


def test_equal_texts_are_one_document_and_equal_queries_one_query() -> None:
    data = retrieval_from_groups(GROUPS)
    assert list(data.documents.values()) == ["北京", "猫", "Paris", "东京", "狗"]
    assert list(data.queries.values()) == ["首都", "capital"]
    judged = {
        data.queries[query]: {data.documents[document]: r for document, r in found.items()}
        for query, found in data.qrels.items()
    }
    # 北京 is a positive of the first group: the negative of the third says nothing against it.
    # A teacher's scores are no relevances.
    assert judged == {
        "首都": {"北京": 1, "猫": 0, "Paris": 0, "东京": 1, "狗": 0},
        "capital": {"Paris": 1, "猫": 0},
    }
    assert (data.relevant_from, data.candidates, data.prompts) == (None, None, {})


def test_ids_depend_on_the_text_alone() -> None:
    one = retrieval_from_groups(GROUPS)
    other = retrieval_from_groups(GROUPS[::-1])
    assert (one.documents, one.queries, one.qrels) == (other.documents, other.queries, other.qrels)
    assert text_id("北京") == "8b46e39fbdb99dc0a8d8"
    assert text_id("ab", "c") != text_id("a", "bc")


def test_a_corpus_keeps_its_ids() -> None:
    corpus = {"c1": "Paris", "c2": "London", "c3": "Paris"}
    data = retrieval_from_groups(GROUPS, corpus)
    assert data.documents["c1"] == "Paris"
    assert sorted(data.documents.values()) == sorted(
        ["Paris", "London", "北京", "猫", "东京", "狗"]
    )
    assert data.qrels[text_id("capital")] == {"c1": 1, text_id("猫"): 0}


def test_graded_groups_give_graded_relevances() -> None:
    graded = group(
        "q", ["好", "half"], ["不"], pos_scores=[1.0, 0.6], neg_scores=[0.25], graded=True
    )
    for candidates in (False, True):
        data = retrieval_from_groups([graded], None, 0.6, candidates)
        assert data.qrels == {
            text_id("q"): {text_id("好"): 1.0, text_id("half"): 0.6, text_id("不"): 0.25}
        }
        assert [data.is_relevant(value) for value in (1.0, 0.6, 0.25)] == [True, True, False]


def test_a_prompt_is_part_of_what_makes_a_query() -> None:
    rows = [group("q", ["a"], []), group("q", ["b"], [], prompt="find: ")]
    data = retrieval_from_groups(rows)
    assert list(data.prompted("query: ").values()) == ["query: q", "find: q"]
    assert data.sample(1).prompts == {}


def test_candidates_are_those_of_the_groups() -> None:
    data = retrieval_from_groups(GROUPS, candidates=True)
    assert data.candidates is not None
    named = {
        data.queries[query]: [data.documents[document] for document in own]
        for query, own in data.candidates.items()
    }
    assert named == {
        "首都": ["北京", "猫", "Paris", "东京", "狗"],
        "capital": ["Paris", "猫"],
    }
    assert data.sample(1).candidates == {text_id("首都"): data.candidates[text_id("首都")]}


def test_queries_without_a_relevant_document_are_told(caplog: pytest.LogCaptureFixture) -> None:
    retrieval_from_groups([group("q", [], ["a"]), group("p", ["a"], [])])
    assert "1 queries have no relevant document" in caplog.text


def test_pairs_keep_texts_grades_and_prompts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rows = [
        {"query": "一", "doc": "二", "rel": 0.25, "weight": 1.0, "key": None, "prompt": None},
        {"query": "one", "doc": "two", "rel": 1, "weight": 3.0, "key": "k", "prompt": "p: "},
    ]
    data = pairs_from_rows(rows)
    assert (data.queries, data.documents) == (["一", "one"], ["二", "two"])
    assert data.judged().tolist() == [0.25, 1.0]
    assert data.prompts == [None, "p: "]
    assert "1 pairs have a weight" in caplog.text


def test_pairs_are_sampled_by_their_queries() -> None:
    rows = [{"query": f"q{n // 2}", "doc": f"d{n}", "rel": n % 2, "prompt": "p"} for n in range(10)]
    data = pairs_from_rows(rows)
    sample = data.sample(3)
    assert sample.documents == ["d0", "d1", "d4", "d5", "d8", "d9"]
    assert (sample.queries[2], sample.relevances[:2]) == ("q2", [0.0, 1.0])
    assert len(sample.prompts) == 6
    assert data.sample(None) is data.sample(5) is data


def test_no_rows_are_refused() -> None:
    for make in (retrieval_from_groups, pairs_from_rows):
        with pytest.raises(ValueError, match="to evaluate on"):
            make([])


@pytest.mark.parametrize("kind", ["pairs", "groups", "hits", "scored", "tsv"])
def test_rows_of_every_format(kind: str, tmp_path: Path) -> None:
    """The topics, whatever they were written as: each text is there once."""
    rows = load_rows(str(write_format(kind, tmp_path)), "candidate_group", ReadOptions())
    data = retrieval_from_groups(rows)
    assert sorted(data.queries.values()) == sorted(TOPICS)
    texts = {text for documents in TOPICS.values() for text in documents}
    assert texts <= set(data.documents.values())
    assert len(set(data.documents.values())) == len(data.documents)
    for query, judged in data.qrels.items():
        relevant = {data.documents[d] for d, relevance in judged.items() if relevance == 1}
        assert relevant == set(TOPICS[data.queries[query]])


@pytest.mark.realdata
def test_t2ranking_groups(realdata: Callable[[str], Path]) -> None:
    """Chinese queries with 505 positives and 1,500 negatives."""
    file = realdata("t2ranking_100/t2rank_100.jsonl")
    raw = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    data = retrieval_from_groups(
        load_rows(str(file), "candidate_group", ReadOptions()), candidates=True
    )
    assert data.candidates is not None
    for row in raw:
        query = text_id(row["query"])
        assert data.qrels[query] == {
            **{text_id(text): 0.0 for text in row["neg"]},
            **{text_id(text): 1.0 for text in row["pos"]},
        }
        assert set(data.candidates[query]) == data.qrels[query].keys()
