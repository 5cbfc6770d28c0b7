"""evaluate.py --store: the figures are those of the model itself where the search is exact."""

import json
from pathlib import Path

import pytest

from encoders import Embedder
from evaluation import read_beir
from evaluation.measure import measure_fused, measure_ranking
from evaluation.search.distributed import InferenceSettings
from evaluation.search.fusion import BM25_SCORES, Fusion
from scripts import evaluate, index
from stores import open_store
from stores.measure import StoreEvaluation, measure_store
from tiny import TEXTS, save_backbone
from zoo import embedder

METRICS = ["ndcg@3", "recall@2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return embedder(folder / "model", save_backbone(folder / "base"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A BEIR folder; the first query is a document too."""
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{at}", "text": text} for at, text in enumerate(TEXTS)]
    queries = [{"_id": name, "text": TEXTS[at]} for name, at in (("d0", 0), ("q1", 6), ("q2", 3))]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "d0\td2\t1\nq1\td6\t1\nq1\td4\t1\nq2\td8\t1\n"
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def fill(url: str, model: Path, data: Path) -> None:
    given = ["--store", url, "--model", str(model), "--corpus", str(data)]
    assert index.main(given) == 0


def test_figures_are_those_of_evaluate(url: str, model: Path, data: Path) -> None:
    fill(url, model, data)
    opened, given = Embedder.from_pretrained(model), read_beir(data)
    alone = measure_ranking(opened, given, METRICS, InferenceSettings())
    fused = measure_fused(opened, given, METRICS, InferenceSettings(), Fusion(0.05, BM25_SCORES))[1]
    store = open_store(url)
    exact, dense, words, hybrid = measure_store(
        store,
        "docs",
        StoreEvaluation(opened, given, METRICS, InferenceSettings(), bm25_weight=0.05),
    )
    store.close()
    for ranked, wanted in ((exact, alone), (dense, alone), (hybrid, fused)):
        assert [list(ids) for ids in ranked.ranked.run.values()] == [
            list(ids) for ids in wanted.run.values()
        ]
        assert ranked.ranked.means() == pytest.approx(wanted.means())
    assert (exact.recall, dense.recall, words.recall) == (1, 1, None)
    assert len(words.milliseconds) == 3


def test_the_script_shows_a_line_for_each_way(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "store")
    fill(url, model, data)
    command = ["--model", str(model), "--data", str(data), "--store", url]
    assert evaluate.main(command) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("dense, exact", "bm25", "hybrid", "ndcg@10", "100.0%"))
    rows = (data / "corpus.jsonl").read_text().splitlines(keepends=True)
    (data / "corpus.jsonl").write_text("".join(rows[:8]))
    fill(url, model, data)
    (data / "corpus.jsonl").write_text("".join(rows))
    assert evaluate.main(command) == 2
    error = capsys.readouterr().err
    assert "1 of the 4 judged documents are not in 'docs' ('d8')" in error
