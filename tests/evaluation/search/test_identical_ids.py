"""A document with the id of the query is no result of it, as in BEIR; on every way to measure."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
import torch

from encoders import Embedder, Reranker
from evaluation.data.from_rows import retrieval_from_groups
from evaluation.data.resolve import open_data
from evaluation.data.sets import RetrievalData
from evaluation.measure import FirstStage, measure_ranking
from evaluation.search.distributed import InferenceSettings
from evaluation.search.retrieval import retrieve
from evaluation.settings import EvaluationSettings, find_first_stage
from loaders import ReadOptions
from tiny import save_backbone, save_classifier

TOPICS = ["cat", "mat", "bread", "winter", "sky", "csv", "感冒", "北京"]
METRICS = {"ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "map@10": "map_cut_10"}


@pytest.fixture(scope="module")
def arguana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every query is an argument of the corpus; its answer is the counter-argument."""
    folder = tmp_path_factory.mktemp("arguana")
    pro = [
        {"_id": f"{t}-pro", "title": "", "text": f"the {t} is good {n}"}
        for n, t in enumerate(TOPICS)
    ]
    con = [{"_id": f"{t}-con", "title": "", "text": f"no {t} , bad {t}"} for t in TOPICS]
    (folder / "qrels").mkdir()
    for name, rows in (("corpus", pro + con), ("queries", [pro[at] for at in range(len(pro))])):
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    judged = "".join(f"{t}-pro\t{t}-con\t1\n" for t in TOPICS)
    (folder / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder.from_pretrained(save_backbone(tmp_path_factory.mktemp("embedder"), TOPICS))


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    return Reranker.from_pretrained(save_classifier(tmp_path_factory.mktemp("reranker"), TOPICS))


def read(folder: Path, keep: bool = False) -> RetrievalData:
    data = open_data([str(folder)], "embedder", ReadOptions(), keep_identical_ids=keep)
    assert isinstance(data, RetrievalData)
    return data


def beir_figures(run: Mapping[str, Mapping[str, float]], data: RetrievalData) -> dict[str, float]:
    """What BEIR's ``EvaluateRetrieval.evaluate`` does: identical ids out, then pytrec_eval."""
    results = {q: {d: s for d, s in found.items() if d != q} for q, found in run.items()}
    qrels = {q: {d: int(grade) for d, grade in own.items()} for q, own in data.qrels.items()}
    found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut", "recall", "map_cut"}).evaluate(
        results
    )
    return {
        n: float(np.mean([own[theirs] for own in found.values()])) for n, theirs in METRICS.items()
    }


def test_the_figures_are_those_of_beir(arguana: Path, embedder: Embedder) -> None:
    data = read(arguana)
    vectors = embedder.encode([*data.queries.values(), *data.documents.values()])
    scores = vectors[: len(data.queries)].double() @ vectors[len(data.queries) :].double().T
    run = {
        query: dict(zip(data.documents, row, strict=True))
        for query, row in zip(data.queries, scores.tolist(), strict=True)
    }
    found = measure_ranking(embedder, data, list(METRICS), InferenceSettings()).means()
    assert found == pytest.approx(beir_figures(run, data), abs=1e-6)
    kept = measure_ranking(
        embedder, read(arguana, keep=True), list(METRICS), InferenceSettings()
    ).means()
    assert kept["ndcg@10"] < found["ndcg@10"]  # type: ignore[operator]


def test_it_is_said_in_a_line(
    arguana: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(arguana, keep=True)
    assert "ignore_identical_ids" not in caplog.text
    read(arguana)
    (line,) = [r.getMessage() for r in caplog.records if "ignore_identical_ids" in r.getMessage()]
    assert line.startswith("8 queries are documents of the set too")
    assert line.endswith("--keep_identical_ids leaves them in") and "judged" not in line
    caplog.clear()
    for name in ("corpus", "queries"):
        text = "\n".join(f'{{"_id": {n}, "text": "text {n}"}}' for n in (1, 2))
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("1\t1\t1\n2\t1\t1")
    read(tmp_path)
    assert "1 of them are judged relevant to themselves and count as not found" in caplog.text


def test_a_reranker_is_not_given_them(
    arguana: Path, embedder: Embedder, reranker: Reranker
) -> None:
    """Whether the first stage is BM25, an embedder or a run from elsewhere."""
    data = read(arguana)
    args = EvaluationSettings(data=["arguana"], first_stage="bm25", top_k=3)
    by_words = find_first_stage(args, "reranker", data)
    assert by_words is not None
    whole = {query: dict.fromkeys(data.documents, 1.0) for query in data.queries}
    for first in (by_words, FirstStage(retrieve(embedder, data, 3), 3), FirstStage(whole, 100)):
        run = measure_ranking(reranker, data, ["ndcg@10"], InferenceSettings(), first).run
        assert all(query not in found for query, found in run.items())
        assert all(run.values())
    assert all(query not in found for query, found in by_words.run.items())
    assert {len(found) for found in by_words.run.values()} <= {1, 2, 3}


def test_rows_have_no_ids_but_texts(
    arguana: Path, embedder: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    """In training, eval_corpus is searched: a query that stands in it is no answer to itself."""
    data = read(arguana)
    groups = [
        {"query": data.queries[query], "pos": [data.documents[d] for d in judged], "neg": []}
        for query, judged in data.qrels.items()
    ]
    mine = retrieval_from_groups(groups, data.documents)
    found = measure_ranking(embedder, mine, list(METRICS), InferenceSettings()).means()
    assert found == pytest.approx(
        measure_ranking(embedder, data, list(METRICS), InferenceSettings()).means()
    )
    same = [{"query": "a", "pos": ["a"], "neg": ["b"]}]  # judged, so it is a result as any other
    assert retrieval_from_groups(same).identical_documents == {}
    assert retrieval_from_groups(groups, candidates=True).identical_documents == {}


def test_a_sample_keeps_what_is_known_of_its_queries(arguana: Path, embedder: Embedder) -> None:
    data = read(arguana)
    assert data.sample(3).identical_documents == {q: q for q in data.sample(3).queries}
    few = data.few(2)
    assert len(few.queries) == 2 and set(few.qrels) == set(few.queries)
    assert all(d in few.documents for judged in few.qrels.values() for d in judged)
    assert torch.isfinite(
        torch.tensor(
            list(measure_ranking(embedder, few, ["mrr"], InferenceSettings()).means().values())
        )
    ).all()
