"""A multi-vector encoder in Qdrant: indexed, measured and served, by MaxSim as the model has it."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient

from encoders.kinds import open_model
from encoders.multi_vector import MultiVectorEncoder
from evaluation import read_beir
from evaluation.search.distributed import InferenceSettings
from forked import together
from scripts import evaluate, index
from served import served
from serving.engine.model import ServedModel
from serving.served_models import find_models
from serving.stored_corpus import StoredCorpus
from stores import open_store
from stores.collection import find_live
from stores.measure import StoreEvaluation, measure_store
from stores.store import Layout
from tiny import TEXTS, save_backbone, save_classifier

DOCUMENTS = [{"_id": f"d{at}", "text": text, "n": at} for at, text in enumerate(TEXTS)]
QUERY = "how to read a csv"


def save(folder: Path, seed: int) -> Path:
    backbone = save_backbone(folder / "base", seed=seed)
    prompts = {"query": "a: ", "document": "the: "}
    model = open_model(backbone, "multi_vector", prompts=prompts)
    assert isinstance(model, MultiVectorEncoder)
    model.compare_by("meanmaxsim")
    model.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models"), seed=0)


@pytest.fixture(params=["qdrant", pytest.param("qdrant engine", marks=pytest.mark.slow)])
def two_urls(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> tuple[str, str]:
    """Of empty stores."""
    return new_url(request.param), new_url(request.param)


@pytest.fixture
def url(two_urls: tuple[str, str]) -> str:
    return two_urls[0]


def fill(
    url: str, model: Path, corpus: Path, rows: Sequence[Mapping[str, Any]] = DOCUMENTS, **flags: Any
) -> int:
    corpus.mkdir(exist_ok=True)
    (corpus / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [f"--{name}={value}" for name, value in flags.items()]
    command = ["--store", url, "--model", str(model), "--corpus", str(corpus)]
    return index.main([*command, *given])


def contents(url: str) -> dict[str, tuple[Any, list[Any]]]:
    """The documents that are live, with their vectors."""
    store = open_store(url)
    about = find_live(store, "docs")
    table = store.open(about["table"], Layout(**about["layout"]))
    ids = [identity for block in table.ids(4) for identity, *_ in block]
    documents, vectors = table.documents(ids), table.vectors(ids)
    store.close()
    return {each: (documents[each], vectors[each].tolist()) for each in sorted(ids)}


def test_a_run_that_is_killed_ends_equal(
    model: Path, two_urls: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:  # fmt: skip
    url, whole = two_urls
    upsert, writes = QdrantClient.upsert, list[int]()
    changed = [row | {"text": "changed"} if row["n"] == 1 else row for row in DOCUMENTS[:-1]]
    changed[2] = changed[2] | {"n": -1}
    for each in (url, whole):
        assert fill(each, model, tmp_path / "c", block_size=4) == 0
    assert fill(whole, model, tmp_path / "c", changed) == 0
    assert "docs: 1 embedded, 1 updated, 7 unchanged, 1 deleted" in capsys.readouterr().out

    def killing(*given: Any, **more: Any) -> Any:
        writes.append(len(writes))
        if len(writes) == 2:
            raise KeyboardInterrupt
        return upsert(*given, **more)

    monkeypatch.setattr(QdrantClient, "upsert", killing)
    with pytest.raises(KeyboardInterrupt):
        fill(url, model, tmp_path / "c", changed, block_size=4)
    monkeypatch.undo()
    assert contents(url) != contents(whole)
    assert fill(url, model, tmp_path / "c", changed, block_size=4) == 0
    assert contents(url) == contents(whole)
    opened = open_model(model)
    assert isinstance(opened, MultiVectorEncoder)
    for document, vectors in contents(url).values():
        (wanted,) = opened.encode([document.text], side="document")
        np.testing.assert_allclose(vectors, wanted.numpy(), atol=1e-6)


def test_two_processes_make_the_same(
    model: Path, two_urls: tuple[str, str], tmp_path: Path
) -> None:
    url, two = two_urls
    assert fill(url, model, tmp_path / "c", block_size=4) == 0
    command = ["scripts/index.py", "--model", model, "--corpus", tmp_path / "c", "--block_size", 4]
    together(2, [*command, "--store", two])
    assert contents(two) == contents(url)


def test_a_model_that_has_diverged_is_told(
    model: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    encode = MultiVectorEncoder.encode

    def broken(self: MultiVectorEncoder, texts: Sequence[str], **given: Any) -> Any:
        found = encode(self, texts, **given)
        found[list(texts).index(TEXTS[3])][1:3] = np.nan
        return found

    monkeypatch.setattr(MultiVectorEncoder, "encode", broken)
    assert fill(url, model, tmp_path / "c") == 2
    assert "the vectors of 1 texts contain NaN or infinity (the first is the document 'd3')" in (
        capsys.readouterr().err
    )


def test_other_models_and_stores_are_refused(
    model: Path, url: str, tmp_path: Path, capsys: Any
) -> None:
    assert fill(url, model, tmp_path / "c") == 0
    other = save(tmp_path, seed=1)
    assert fill(url, other, tmp_path / "c") == 2
    error = capsys.readouterr().err
    assert "was indexed otherwise (by model): the weights, tokenizer or configuration" in error
    assert fill(url, other, tmp_path / "c", migrate="true") == 0
    assert fill(str(tmp_path / "lance"), model, tmp_path / "c") == 2
    assert "LanceDB keeps one vector of a document" in capsys.readouterr().err
    reranker = save_classifier(tmp_path / "reranker")
    command = ["--model", str(reranker), "--store", url, "--data", str(beir(tmp_path / "c"))]
    assert evaluate.main(command) == 2
    assert "is of kind reranker; give an embedder or multi-vector" in capsys.readouterr().err


def beir(folder: Path) -> Path:
    """The corpus as a BEIR folder with two queries."""
    queries = [{"_id": "q1", "text": TEXTS[6]}, {"_id": "q2", "text": QUERY}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels").mkdir()
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td6\t1\nq2\td0\t1\n")
    return folder


def similarities(model: Path, query: str) -> dict[str, float]:
    opened = open_model(model)
    scores = opened.score_pairs([query] * len(TEXTS), TEXTS).tolist()
    return {f"d{at}": score for at, score in enumerate(scores)}


def test_measured_it_ranks_as_the_model(model: Path, url: str, tmp_path: Path) -> None:
    fill(url, model, tmp_path / "c")
    opened, store = open_model(model), open_store(url)
    assert isinstance(opened, MultiVectorEncoder)
    given = StoreEvaluation(
        opened, read_beir(beir(tmp_path / "c")), ["ndcg@10"], InferenceSettings()
    )
    exact, dense, *_ = measure_store(store, "docs", given)
    store.close()
    assert exact.ranked.run == dense.ranked.run and dense.recall == 1
    for query, text in (("q1", TEXTS[6]), ("q2", QUERY)):
        assert exact.ranked.run[query] == pytest.approx(similarities(model, text), abs=1e-5)


@contextlib.contextmanager
def client_of(url: str, **folders: Path) -> Iterator[httpx.Client]:
    store = open_store(url)

    def open_stored(model: ServedModel) -> StoredCorpus:
        return StoredCorpus(store, "docs", model.vector_model, 0.1, True)

    with (
        served(folders, open_stored=open_stored, embeds=False) as (address, _),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client
    store.close()


def test_served_it_searches_and_is_written(model: Path, url: str, tmp_path: Path) -> None:
    fill(url, model, tmp_path / "c")
    with client_of(url, embedder=model, reranker=save_classifier(tmp_path / "r")) as client:

        def search(**body: Any) -> list[dict[str, Any]]:
            answer = client.post("/search", json={"query": QUERY, "top_n": 20} | body)
            assert answer.status_code == 200, answer.text
            return list(answer.json()["results"])

        found = {each["id"]: each["meanmaxsim"] for each in search(mode="dense")}
        assert found == pytest.approx(similarities(model, QUERY), abs=1e-5)
        results = search(mode="hybrid", filter={"n": {"lt": 5}})
        assert {each["id"] for each in results} == {f"d{at}" for at in range(5)}
        first = min(results, key=lambda each: each["embedder_rank"])
        assert first["id"] == "d0" and first["bm25"] > 0
        # Of different lengths, and long ones.
        new = [{"id": f"n{at}", "text": "zebra " * at} for at in (1, 3, 200)]
        assert client.post("/documents", json={"documents": new}).json()["truncated"] == [2]
        assert client.post("/documents/delete", json={"ids": ["d0"]}).json() == {"deleted": ["d0"]}
        there = {f"d{at}" for at in range(1, 10)} | {"n1", "n3", "n200"}
        assert {each["id"] for each in search(mode="dense")} == there
        refused = client.post("/search", json={"query": QUERY, "documents": ["a"]})
        assert refused.status_code == 422 and "searches its store" in refused.text
        assert client.post("/v1/embeddings", json={"input": ["a"]}).status_code == 404


def test_alone_it_scores_and_makes_no_embeddings(model: Path, url: str, tmp_path: Path) -> None:
    fill(url, model, tmp_path / "c")
    with client_of(url, embedder=model) as client:
        body = {"query": [QUERY] * len(TEXTS), "doc": list(TEXTS)}
        scores = client.post("/score", json=body).json()["scores"]
        wanted = list(similarities(model, QUERY).values())
        assert scores == pytest.approx(wanted, abs=1e-5)
        for path in ("/v1/embeddings", "/similarity", "/rerank", "/"):
            assert client.post(path, json={"input": "a"}).status_code in (404, 405)


def test_it_has_an_embedders_role_where_it_searches(model: Path, tmp_path: Path) -> None:
    reranker, name = str(save_classifier(tmp_path / "r")), str(model)
    both = find_models([(name, "embedder"), (reranker, "reranker")], None, None, stores=True)
    assert {role: each.folder for role, each in both.items()} == {
        "embedder": name, "reranker": reranker,
    }  # fmt: skip
    assert list(find_models([(name, None)], None, None, stores=True)) == ["embedder"]
    assert list(find_models([(name, None)], None, None)) == ["reranker"]
    # What a baseline is compared with is the model of its kind.
    embedder = str(save_backbone(tmp_path / "e"))
    found = find_models([(embedder, "embedder"), (name, "reranker")], name, None, stores=True)
    assert list(found) == ["embedder", "reranker", "reranker_baseline"]
    with pytest.raises(ValueError, match="cannot be served as embedder"):
        find_models([(name, "embedder"), (reranker, "reranker")], None, None)
