"""Evaluation data by name: what is searched, what is ranked, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from encoders.kinds import Kind
from evaluation.data.resolve import open_data
from evaluation.data.sets import RetrievalData
from loaders import ReadOptions
from runs import WORDS, write_format, write_set


def opened(*names: object, kind: Kind = "reranker", **options: Any) -> RetrievalData:
    data = open_data([str(name) for name in names], kind, ReadOptions(), **options)
    assert isinstance(data, RetrievalData)
    return data


def corpus_in(folder: Path) -> str:
    file = folder / "corpus.jsonl"
    file.write_text('{"_id": "more", "text": "another document"}\n', encoding="utf-8")
    return str(file)


def test_a_reranker_orders_the_documents_of_groups(tmp_path: Path) -> None:
    data = opened(write_format("groups", tmp_path))
    assert data.candidates is not None
    assert all(set(data.candidates[query]) == set(own) for query, own in data.qrels.items())


@pytest.mark.parametrize("kind", ["reranker", "embedder"])
def test_rows_without_negatives_are_searched_by_either_kind(kind: Kind, tmp_path: Path) -> None:
    """A reranker that orders one positive is always right."""
    file = write_format("pairs", tmp_path)
    data, larger = opened(file, kind=kind), opened(file, kind=kind, corpus=corpus_in(tmp_path))
    assert data.candidates is None and larger.candidates is None
    assert larger.documents == data.documents | {"more": "another document"}


def test_queries_that_tell_nothing_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_format("groups", tmp_path)
    with file.open("a", encoding="utf-8") as more:
        more.write('{"query": "only", "pos": ["one", "two"], "neg": []}\n')
    assert opened(file).candidates is not None
    assert "1 queries have documents of one relevance only" in caplog.text


@pytest.mark.parametrize("name", ["mteb:SciFact", "set"])
def test_several_sets_are_not_taken_for_one(name: str, tmp_path: Path) -> None:
    write_set(tmp_path / "set", WORDS[:4])
    names = [name if ":" in name else tmp_path / name, "mteb:NFCorpus"]
    for given in (names, names[::-1], [write_format("pairs", tmp_path), names[0]]):
        with pytest.raises(
            ValueError, match="is a complete evaluation set, and only one is measured"
        ):
            opened(*given, kind="embedder")


def test_a_corpus_that_would_not_be_searched_is_refused(tmp_path: Path) -> None:
    scored = write_format("scored", tmp_path)
    for file in (write_set(tmp_path / "set"), write_format("groups", tmp_path), scored):
        with pytest.raises(ValueError, match=r"corpus: .*corpus\.jsonl can only be added"):
            opened(file, corpus=corpus_in(tmp_path))


def test_the_split_that_was_read_is_known(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "dev.tsv")
    assert opened(folder, split="dev").split == "dev"
    assert opened(write_format("pairs", tmp_path)).split is None
