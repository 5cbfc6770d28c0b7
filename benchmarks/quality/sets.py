"""The data sets on which ways of training are compared, with the model each starts from."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.speed.results import BASE, ROOT
from evaluation import read_beir
from evaluation.data.resolve import open_data
from evaluation.data.sets import RetrievalData
from loaders import ReadOptions

DOCSTRINGS = ROOT / "data" / "docstrings"
OTHERS = 2_000  # documents that are searched besides the relevant ones, where a corpus is cut


@dataclass(frozen=True)
class DataSet:
    """Rows to train on, and queries kept aside.

    Args:
        base: The model that is trained.
        learning_rate: That suits an embedder on these rows.
        pairs: Positive pairs, or None where there are groups only.
        groups: Groups with graded candidates of their own, or None where negatives are mined.
        corpus: Where negatives are mined, besides the rows.
        test: What is measured.
        steps: Of 64 pairs.
        group_steps: Of 8 groups, for a reranker.
        group_learning_rate: Of a reranker.
    """

    base: str
    learning_rate: float
    pairs: Path | None
    groups: Path | None
    corpus: Path | None
    test: RetrievalData
    steps: int
    group_steps: int
    group_learning_rate: float


def open_set(name: str, shared: Path, scratch: Path) -> DataSet:
    """Read a set, and write its training rows into ``scratch``.

    Args:
        name: "docstrings" (``make quickstart`` has made them), "scifact", "cn_medical_qa" or
            "t2ranking_100".
        shared: The folder of the last three, and of their Chinese model.
        scratch: A folder.
    """
    chinese = str(shared / "e5_small_zh_en")
    if name == "docstrings":
        pairs, test = DOCSTRINGS / "train_pairs.jsonl", read_beir(DOCSTRINGS / "heldout", "test")
        return DataSet(BASE, 1e-4, pairs, None, None, test, 24, 24, 2e-4)
    if name == "t2ranking_100":
        return _t2ranking(shared / name / "t2rank_100_distill_standard.jsonl", chinese, scratch)
    folder = shared / name
    pairs = _pairs(read_beir(folder, "train"), scratch / "pairs.jsonl")
    corpus = folder / "corpus.jsonl"
    if name == "scifact":
        test = _cut(read_beir(folder, "test"))
        return DataSet(BASE, 2e-5, pairs, None, corpus, test, 15, 40, 2e-4)
    test = _cut(read_beir(folder, "dev"))
    return DataSet(chinese, 2e-5, pairs, None, corpus, test, 12, 12, 1e-4)


def _pairs(data: RetrievalData, output: Path) -> Path:
    """The relevant documents of each query, a pair each."""
    rows = (
        {"query": data.queries[query], "pos_doc": data.documents[document]}
        for query, judged in data.qrels.items()
        for document in judged
    )
    return _write(rows, output)


def _cut(data: RetrievalData) -> RetrievalData:
    """With fewer of the documents that answer none of the queries."""
    relevant = {document for judged in data.qrels.values() for document in judged}
    others = islice((name for name in data.documents if name not in relevant), OTHERS)
    kept = relevant | set(others)
    return replace(data, documents={d: text for d, text in data.documents.items() if d in kept})


def _t2ranking(file: Path, base: str, scratch: Path) -> DataSet:
    """Every other query is trained on, the others are measured."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    groups = _write(rows[::2], scratch / "groups.jsonl")
    test = open_data([str(_write(rows[1::2], scratch / "test.jsonl"))], "reranker", ReadOptions())
    assert isinstance(test, RetrievalData)
    return DataSet(base, 5e-5, None, groups, None, test, 12, 12, 1e-4)


def _write(rows: Iterable[dict[str, Any]], output: Path) -> Path:
    output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return output
