"""Models that are loaded beside those that are served, go live, and are unloaded."""

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from encoders import Embedder
from scripts.index import main as index
from served import Held, engine_of, open_folders, replicated, running, started, until
from serving.engine.engine import Engine
from serving.engine.limits import Limits
from serving.engine.model import ServedModel
from serving.engine.placement import Placement
from serving.engine.replica import Load
from serving.engine.similarity import similarities
from serving.http.metrics import Metrics
from serving.routes.openai import LoadBody
from serving.stored_corpus import StoredCorpus
from stores import open_store
from tiny import TEXTS, save_backbone

# Without the words of ``served.FATE``.
HARMLESS = [text for text in TEXTS if "fever" not in text]
DOCUMENTS = {f"d{number}": text for number, text in enumerate(HARMLESS)}
ENGINES = {"one": engine_of, "several": replicated}
CLIENTS = 8


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: save_backbone(root / name, seed=at) for at, name in enumerate("abc")}


@pytest.fixture(scope="module")
def vectors(folders: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Of ``HARMLESS``, by each model."""
    return {
        name: Embedder.from_pretrained(folder).encode(HARMLESS).numpy()
        for name, folder in folders.items()
    }


def find(name: str, asked: LoadBody) -> Load:
    assert asked.model is not None
    if not Path(asked.model).is_dir():
        raise ValueError(f"{asked.model}: no such folder")
    return partial(open_named, name, asked.model)


def open_named(name: str, folder: str, device: str) -> dict[str, Any]:
    models = open_folders({"embedder": Path(folder)}, None, device)
    models["embedder"].name = name
    return models


@contextmanager
def server(
    folder: Path, engines: str = "one", documents: Any = None
) -> Iterator[tuple[httpx.Client, Engine]]:
    with (
        ENGINES[engines]({"embedder": folder}, documents=documents) as engine,
        running(engine, ["embedder"], find_models=find) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client, engine


@pytest.fixture
def client(folders: Mapping[str, Path]) -> Iterator[httpx.Client]:
    with server(folders["a"]) as (found, _):
        yield found


def load(client: httpx.Client, name: str, folder: Path) -> None:
    answer = client.put(f"/models/{name}", json={"model": str(folder)})
    assert (answer.status_code, answer.json()["state"]) == (200, "loading")
    until(lambda: state(client, name) != "loading")


def state(client: httpx.Client, name: str) -> str:
    found: str = client.get(f"/v1/models/{name}").json()["state"]
    return found


def embedded(client: httpx.Client, path: str = "/embed", **more: str) -> np.ndarray:
    answer = client.post(path, json={"text": HARMLESS[0], **more})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["embedding"])


@pytest.mark.parametrize("engines", ENGINES)
def test_a_model_goes_live_and_back_and_nobody_gets_an_error(
    engines: str, folders: Mapping[str, Path], vectors: Mapping[str, np.ndarray]
) -> None:
    """Each answer is one model's alone: embeddings by its name, and the similarities of /search."""
    over, wrong, answered = threading.Event(), [], [0] * CLIENTS
    scores = {
        name: similarities(rows, rows[:1], "cosine").tolist() for name, rows in vectors.items()
    }

    def ask(url: str, number: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as own:
            while not over.is_set():
                if number % 2:
                    answer = own.post("/v1/embeddings", json={"input": HARMLESS[0], "model": "a"})
                    found = answer.json().get("data", [{}])[0].get("embedding", 0)
                    right = np.allclose(found, vectors["a"][0], atol=1e-5)
                else:
                    answer = own.post("/search", json={"query": HARMLESS[0], "top_n": 100})
                    hits = sorted(answer.json()["results"], key=lambda hit: int(hit["id"][1:]))
                    (name,) = answer.json()["models"].values()
                    right = np.allclose([hit["score"] for hit in hits], scores[name], atol=1e-5)
                if answer.status_code != 200 or not right:
                    wrong.append(answer.text)
                answered[number] += 1

    def all_ask_again() -> None:
        before = list(answered)
        until(lambda: all(now >= old + 3 for now, old in zip(answered, before, strict=True)))

    with (
        server(folders["a"], engines, DOCUMENTS) as (client, engine),
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        try:
            url = str(client.base_url)
            asked = [pool.submit(ask, url, number) for number in range(CLIENTS)]
            load(client, "b", folders["b"])
            all_ask_again()
            for name in ("b", "a", "b", "a"):
                answer = client.post(f"/models/{name}/activate")
                assert answer.json().get("state") == "live", answer.text
                np.testing.assert_allclose(embedded(client), vectors[name][0], atol=1e-5)
                all_ask_again()
            assert client.delete("/models/b").json()["deleted"]
            all_ask_again()
            load(client, "b", folders["c"])  # another one of the same name
            np.testing.assert_allclose(embedded(client, model="b"), vectors["c"][0], atol=1e-5)
        finally:
            over.set()
        for each in asked:
            each.result(60)
        assert wrong == []
        assert {model.name for model in engine.models.values()} == {"a"}


def test_a_version_is_asked_for_by_path_or_by_name(
    client: httpx.Client, folders: Mapping[str, Path], vectors: Mapping[str, np.ndarray]
) -> None:
    load(client, "b", folders["b"])
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["a", "b"]
    assert (state(client, "a"), state(client, "b")) == ("live", "ready")
    for wanted, path, more in (
        ("a", "/embed", {}),
        ("b", "/embed", {"model": "b"}),
        ("b", "/models/b/embed", {}),
        ("a", "/models/a/embed", {"model": "b"}),
    ):
        np.testing.assert_allclose(embedded(client, path, **more), vectors[wanted][0], atol=1e-5)
    openai = client.post("/models/b/v1/embeddings", json={"input": "a", "model": "x"}).json()
    assert openai["model"] == "b"
    assert client.get("/models/b/info").json()["model_id"] == "b"
    # The dialect of the errors is that of the route.
    tei = client.post("/models/b/embed", json={"inputs": []})
    assert tei.json()["error_type"] == "Empty"


def test_a_baseline_is_for_the_page_alone(folders: Mapping[str, Path]) -> None:
    with (
        engine_of({"embedder": folders["a"], "embedder_baseline": folders["b"]}) as engine,
        running(engine, ["embedder"], find_models=find) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["a"]
        for answer in (
            client.post("/embed", json={"text": "a", "model": "b"}),
            client.post("/models/b/embed", json={"text": "a"}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_what_is_wrong_is_said(client: httpx.Client, folders: Mapping[str, Path]) -> None:
    load(client, "b", folders["b"])
    body = {"model": str(folders["c"])}
    for status, code, answer in (
        (404, "model_not_found", client.post("/embed", json={"text": "a", "model": "x"})),
        (404, "model_not_found", client.post("/models/x/embed", json={"text": "a"})),
        (404, "model_not_found", client.post("/models/x/activate")),
        (404, "model_not_found", client.delete("/models/x")),
        (404, "model_not_found", client.get("/models/x")),
        (409, "model_conflict", client.put("/models/b", json=body)),
        (409, "model_conflict", client.delete("/models/a")),
        (422, "validation_error", client.put("/models/a b", json=body)),
        (422, "validation_error", client.put("/models/c", json={"model": "/nowhere"})),
    ):
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["code"] == code
    assert "/nowhere: no such folder" in answer.text


@pytest.mark.parametrize("loads", [True, False])
def test_a_model_that_is_asked_for_by_name_is_loading(
    folders: Mapping[str, Path], loads: bool
) -> None:
    go = threading.Event()

    def load_later(device: str) -> dict[str, ServedModel]:
        assert go.wait(60)
        return open_folders({"embedder": folders["a"]}, None, device)

    engine = Engine(load_later, [Placement("cpu", 1, [])], Limits(), Metrics())
    with (
        started(engine, ready=False),
        running(engine, ["embedder"], find_models=find if loads else None) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for path, more in (("/embed", {"model": "a"}), ("/models/a/embed", {}), ("/embed", {})):
            answer = client.post(path, json={"text": "a", **more})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loading")
            assert answer.headers["Retry-After"] == "5"
        go.set()
        until(lambda: engine.health()[0] == "ready")
        embedded(client, "/models/a/embed")


def test_clients_of_an_ordinary_server_load_nothing(folders: Mapping[str, Path]) -> None:
    with (
        engine_of({"embedder": folders["a"]}) as engine,
        running(engine, ["embedder"]) as (url, _),
        httpx.Client(base_url=url) as client,
    ):
        for answer in (
            client.put("/models/b", json={"model": str(folders["b"])}),
            client.post("/models/a/activate"),
            client.delete("/models/a"),
        ):
            assert answer.status_code == 403
            assert "--allow_loading true" in answer.text
        # Any name is taken, as clients send one of their own.
        embedded(client, model="text-embedding-3-small")


@pytest.mark.parametrize("engines", ENGINES)
def test_a_broken_model_leaves_the_live_one_alone(
    engines: str, folders: Mapping[str, Path], tmp_path: Path, vectors: Mapping[str, np.ndarray]
) -> None:
    broken = Embedder.from_pretrained(folders["b"])
    for weight in broken.backbone.parameters():
        weight.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "nan")
    save_backbone(tmp_path / "empty")
    (tmp_path / "empty/model.safetensors").unlink()
    with server(folders["a"], engines) as (client, engine):
        for name in ("nan", "empty"):
            load(client, name, tmp_path / name)
            about = client.get(f"/models/{name}").json()
            assert (about["state"], name == "nan") == ("failed", "not finite" in about["reason"])
            np.testing.assert_allclose(embedded(client), vectors["a"][0], atol=1e-5)
        load(client, "nan", folders["b"])  # mended
        assert state(client, "nan") == "ready"
        assert engine.replicas == len(engine._placements)


def test_a_request_keeps_to_the_model_that_it_began_with(
    folders: Mapping[str, Path], vectors: Mapping[str, np.ndarray]
) -> None:
    with server(folders["a"]) as (client, engine), ThreadPoolExecutor(1) as pool:
        load(client, "b", folders["b"])
        held, model_set = Held(engine.models["embedder"]), engine.model_sets.live
        held.free.clear()
        begun = pool.submit(embedded, client)
        until(lambda: len(held.batches) == 1)
        assert model_set.requests == 1
        client.post("/models/b/activate")
        assert client.delete("/models/a").json()["deleted"]
        assert client.post("/embed", json={"text": "a", "model": "a"}).status_code == 404
        held.free.set()
        np.testing.assert_allclose(begun.result(60), vectors["a"][0], atol=1e-5)
        until(lambda: model_set.requests == 0)
        np.testing.assert_allclose(embedded(client), vectors["b"][0], atol=1e-5)


def test_after_a_migration_the_store_has_the_vectors_of_the_new_model(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    """One server goes over to them and back; clients write to the live collection alone."""
    corpus, url = tmp_path / "corpus.jsonl", str(tmp_path / "store")
    rows = [{"_id": each, "text": text} for each, text in DOCUMENTS.items()]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--store", url, "--corpus", str(corpus), "--model"]
    assert index([*flags, str(folders["a"])]) == 0
    store = open_store(url)

    def open_stored(model: ServedModel) -> StoredCorpus:
        return StoredCorpus(store, "docs", model.embedder, allow_writes=True)

    def first(client: httpx.Client, text: str) -> Any:
        answer = client.post("/search", json={"query": text, "top_n": 1}).json()
        return answer["models"]["embedder"], *answer["results"][0]["id"]

    new = {"documents": [{"id": "n", "text": "a new document of the client"}]}
    with (
        engine_of({"embedder": folders["a"]}, open_stored=open_stored) as engine,
        running(engine, ["embedder"], find_models=find, stores=True) as (address, _),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        load(client, "b", folders["b"])
        assert state(client, "b") == "failed"  # the vectors are the other model's
        assert index([*flags, str(folders["b"]), "--migrate", "true"]) == 0
        assert first(client, HARMLESS[3]) == ("a", "d", "3")
        load(client, "b", folders["b"])
        assert client.post("/documents", json=new).json()["error"]["code"] == "collection_moved"
        client.post("/models/b/activate")
        assert client.post("/documents", json=new).status_code == 200
        assert first(client, new["documents"][0]["text"]) == ("b", "n")
        assert first(client, HARMLESS[3]) == ("b", "d", "3")
        client.post("/models/a/activate")
        assert first(client, HARMLESS[3]) == ("a", "d", "3")
    store.close()
