"""Real clients of OpenAI and Cohere, and what other clients send, as they send it."""

import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
import requests

from common.flags import parse
from encoders import Embedder, Reranker
from encoders.kinds import detect_kind
from scripts.serve import find_port
from served import JSON, hold, served, until
from serving.engine.engine import Engine
from serving.engine.limits import LatencyEstimator
from serving.served_models import find_models
from serving.settings import ServeSettings
from tiny import TEXTS
from trainers.model_card.code import server_commands


@pytest.fixture(scope="module")
def server(tiny_bert: Path, tiny_classifier: Path) -> Iterator[tuple[str, Engine]]:
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier}
    with served(folders, keys=["key"]) as found:
        yield found


@pytest.fixture(scope="module")
def vectors(tiny_bert: Path) -> np.ndarray:
    return Embedder.from_pretrained(tiny_bert).encode(TEXTS).numpy()


@pytest.fixture(scope="module")
def scores(tiny_classifier: Path) -> np.ndarray:
    """Of the first text with each."""
    model = Reranker.from_pretrained(tiny_classifier)
    return model.score([(TEXTS[0], text) for text in TEXTS]).numpy()


@pytest.fixture
def client(server: tuple[str, Engine]) -> Iterator[httpx.Client]:
    key = {"Authorization": "Bearer key"}
    with httpx.Client(base_url=server[0], headers=key, timeout=60) as found:
        yield found


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as found:
        yield found


def open_ai(server: tuple[str, Engine], key: str = "key", **settings: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server[0]}/v1", api_key=key, **settings)


def test_openai_embeds(server: tuple[str, Engine], vectors: np.ndarray) -> None:
    with open_ai(server) as client:
        many = client.embeddings.create(model="any", input=list(TEXTS))  # it asks for base64
        plain = client.embeddings.create(model="any", input=list(TEXTS), encoding_format="float")
        both = [[entry.embedding for entry in found.data] for found in (many, plain)]
        bits = [np.array(rows, dtype=np.float32).tobytes() for rows in both]
        assert bits[0] == bits[1]
        assert [entry.index for entry in many.data] == list(range(len(TEXTS)))
        np.testing.assert_allclose([e.embedding for e in many.data], vectors, atol=1e-5)
        assert many.usage.prompt_tokens == many.usage.total_tokens > 0
        one = client.embeddings.create(model="any", input=TEXTS[5], dimensions=4)
        cut = vectors[5, :4] / np.linalg.norm(vectors[5, :4])
        np.testing.assert_allclose(one.data[0].embedding, cut, atol=1e-5)
        names = [model.id for model in client.models.list()]
        assert names == [model.name for model in server[1].models.values()]
        assert many.model == names[0]


def test_openai_errors_have_their_class_and_say_something(server: tuple[str, Engine]) -> None:
    with open_ai(server, max_retries=0) as client:
        for body in ("", [], ["a", ""], [[1, 2]], [1, 2]):
            with pytest.raises(openai.BadRequestError) as wrong:
                client.embeddings.create(model="any", input=body)
            assert isinstance(wrong.value.body, dict)
            assert wrong.value.body["message"] in str(wrong.value)
            assert wrong.value.type == "invalid_request_error"
        assert "check_embedding_ctx_length=False" in str(wrong.value)
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            client.embeddings.create(model="any", input="a", dimensions=4000)
        with pytest.raises(openai.NotFoundError, match="no such route"):
            client.chat.completions.create(model="any", messages=[])
        with pytest.raises(openai.APIStatusError) as large:
            client.embeddings.create(model="any", input=["a"] * 2049)
        assert large.value.status_code == 413
    with open_ai(server, key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.embeddings.create(model="any", input="a")


def test_openai_tries_again_where_it_helps(tiny_bert: Path, tiny_classifier: Path) -> None:
    """Refused with Retry-After, they come back, and are answered once the queue is shorter."""
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier}
    with served(folders, max_wait=0.5) as (url, engine):
        model = engine.models["embedder"]
        held = hold(engine)
        model.latency = LatencyEstimator((1, 0.02), (100, 2.0))
        full = engine.submit(model, model.tokenizer.texts(["a cat sat on the mat"] * 4))
        with openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as client:
            with pytest.raises(openai.RateLimitError) as refused:
                client.embeddings.create(model="any", input="a")
            assert refused.value.response.headers["retry-after"] == "1"
            rejected = engine.metrics.rejected.labels("overloaded")

            def refused_again() -> bool:
                return bool(rejected._value.get() >= 2)

            def let_go() -> None:
                until(refused_again)
                held.free.set()

            helper = threading.Thread(target=let_go)
            helper.start()
            patient = client.with_options(max_retries=5)
            assert len(patient.embeddings.create(model="any", input="a").data) == 1
            helper.join()
        full.future.result(60)


def test_cohere_version_2(
    server: tuple[str, Engine], http: httpx.Client, scores: np.ndarray
) -> None:
    client = cohere.ClientV2(api_key="key", base_url=server[0], httpx_client=http)
    found = client.rerank(model="any", query=TEXTS[0], documents=list(TEXTS))
    values = [result.relevance_score for result in found.results]
    assert values == sorted(values, reverse=True)
    by_index = {result.index: result.relevance_score for result in found.results}
    np.testing.assert_allclose([by_index[at] for at in range(len(TEXTS))], scores, atol=1e-5)
    assert found.meta is not None and found.meta.api_version is not None
    assert found.meta.api_version.version == "2"
    few = client.rerank(model="any", query="a", documents=["b", "c"], top_n=1, max_tokens_per_doc=9)
    assert len(few.results) == 1
    with pytest.raises(cohere.BadRequestError, match="documents"):
        client.rerank(model="any", query="a", documents=[])
    wrong = cohere.ClientV2(api_key="no", base_url=server[0], httpx_client=http)
    with pytest.raises(cohere.UnauthorizedError):
        wrong.rerank(model="any", query="a", documents=["b"])


def test_cohere_version_1(
    server: tuple[str, Engine], http: httpx.Client, scores: np.ndarray
) -> None:
    client = cohere.Client(api_key="key", base_url=server[0], httpx_client=http)
    documents: list[Any] = [*TEXTS[:-1], {"text": TEXTS[-1]}]
    found = client.rerank(query=TEXTS[0], documents=documents, return_documents=True)
    for result in found.results:
        assert result.relevance_score == pytest.approx(scores[result.index], abs=1e-5)
        assert result.document is not None
        assert result.document.text == TEXTS[result.index]
    plain = client.rerank(query=TEXTS[0], documents=documents)
    assert plain.results[0].document is None


def test_document_is_absent_unless_asked_for(client: httpx.Client) -> None:
    body = {"query": "a", "documents": ["b", "c"]}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        plain = client.post(path, json=body).json()
        assert set(plain["results"][0]) == {"index", "relevance_score"}
        asked = client.post(path, json=body | {"return_documents": "true"}).json()
        assert {entry["document"]["text"] for entry in asked["results"]} == {"b", "c"}
        assert plain["usage"]["total_tokens"] == plain["meta"]["tokens"]["input_tokens"] == 10
        assert "warnings" not in plain["meta"]


# Bodies as these clients send them, from their sources.
RERANK: dict[str, tuple[str, dict[str, Any]]] = {
    "Jina (LangChain JinaRerank)": (
        "/v1/rerank",
        {"query": "q", "documents": ["b", "c"], "model": "jina-reranker-v2", "top_n": 2},
    ),
    "RAGFlow JinaRerank": (
        "/v1/rerank",
        {"model": "m", "query": "q", "documents": ["b", "c"], "top_n": 2},
    ),
    "RAGFlow XInferenceRerank": (
        "/v1/rerank",
        {
            "model": "m",
            "query": "q",
            "return_documents": "true",
            "return_len": "true",
            "documents": ["b", "c"],
        },
    ),
    "LiteLLM 1.110.2 (hosted_vllm)": (
        "/v1/rerank",
        {"model": "m", "query": "q", "top_n": 2, "documents": ["b", "c"], "return_documents": True},
    ),
    "LiteLLM 1.110.2 (infinity)": (
        "/rerank",
        {"model": "m", "query": "q", "documents": ["b", "c"], "return_documents": False},
    ),
    "vLLM": ("/v2/rerank", {"model": "m", "query": "q", "documents": ["b", "c"], "top_n": 0}),
    # langgenius/dify-official-plugins, models/openai_api_compatible/models/rerank/rerank.py
    "Dify": (
        "/v1/rerank",
        {
            "model": "m",
            "query": "q",
            "documents": ["b", "c"],
            "top_n": 2,
            "return_documents": True,
            "score_threshold": 0.8,
        },
    ),
    # open-webui/open-webui, backend/open_webui/retrieval/models/external.py
    "Open WebUI": (
        "/v1/rerank",
        {"model": "m", "query": "q", "documents": ["b", "c"], "top_n": 2},
    ),
}


@pytest.mark.parametrize("name", RERANK)
def test_rerank_bodies_of_other_clients(client: httpx.Client, name: str) -> None:
    path, body = RERANK[name]
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    found = response.json()
    assert sorted(entry["index"] for entry in found["results"]) == [0, 1]
    assert found["results"][0]["relevance_score"] >= found["results"][1]["relevance_score"]
    assert found["usage"]["total_tokens"] > 0
    unknown = [
        f"field {key!r} was ignored" for key in ("return_len", "score_threshold") if key in body
    ]
    assert found["meta"].get("warnings", []) == unknown
    if body.get("return_documents"):
        assert {entry["document"]["text"] for entry in found["results"]} == {"b", "c"}


EMBED: dict[str, tuple[str, dict[str, Any], Any]] = {
    "LangChain HuggingFaceEndpointEmbeddings": (
        "/embed",
        {"inputs": ["a cat", "a dog"], "truncate": True, "truncation_direction": "Right"},
        lambda found: found,
    ),
    "LlamaIndex TextEmbeddingsInference": (
        "/embed",
        {"inputs": ["a cat", "a dog"], "truncate": True},
        lambda found: found,
    ),
    "LangChain OpenAIEmbeddings(check_embedding_ctx_length=False)": (
        "/v1/embeddings",
        {"input": ["a cat", "a dog"], "model": "m", "encoding_format": "float"},
        lambda found: [entry["embedding"] for entry in found["data"]],
    ),
    "LiteLLM 1.110.2": (
        "/v1/embeddings",
        {"model": "m", "input": ["a cat", "a dog"]},
        lambda found: [entry["embedding"] for entry in found["data"]],
    ),
    "infinity_client 0.0.78": (
        "/embeddings",
        {"input": ["a cat", "a dog"], "model": "m", "dimensions": 0, "modality": "text"},
        lambda found: [entry["embedding"] for entry in found["data"]],
    ),
    # open-webui/open-webui, backend/open_webui/retrieval/utils.py
    "Open WebUI": (
        "/v1/embeddings",
        {"input": ["a cat", "a dog"], "model": "m"},
        lambda found: [entry["embedding"] for entry in found["data"]],
    ),
}


@pytest.mark.parametrize("name", EMBED)
def test_embedding_bodies_of_other_clients(
    client: httpx.Client, name: str, tiny_bert: Path
) -> None:
    path, body, vectors = EMBED[name]
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    wanted = Embedder.from_pretrained(tiny_bert).encode(["a cat", "a dog"])
    np.testing.assert_allclose(vectors(response.json()), wanted, atol=1e-5)


def test_infinitys_modality_and_models(client: httpx.Client) -> None:
    image = {"input": "http://127.0.0.1/cat.png", "modality": "image"}
    refused = client.post("/embeddings", json=image)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "modality"
    found = client.get("/models").json()["data"]
    assert [model["capabilities"] for model in found] == [["embed"], ["rerank"]]
    assert found[0]["stats"] == {"queue_fraction": 0, "queue_absolute": 0}


def test_difys_embedding_requests(client: httpx.Client, vectors: np.ndarray) -> None:
    """One text per request (langgenius/dify-official-plugins, openai_api_compatible)."""
    ping = client.post("/v1/embeddings", json={"input": "ping", "model": "m"})
    assert ping.status_code == 200
    assert "model" in ping.json()
    body = {"model": "m", "input": TEXTS[0], "encoding_format": "float"}
    found = client.post("/v1/embeddings", json=body).json()
    np.testing.assert_allclose(found["data"][0]["embedding"], vectors[0], atol=1e-5)
    assert found["usage"]["prompt_tokens"] > 0


def test_a_client_without_a_key_may_send_an_empty_one(
    tiny_bert: Path, tiny_classifier: Path
) -> None:
    """Dify's header is empty then, Open WebUI's ends after "Bearer", which httpx does not send."""
    with served({"embedder": tiny_bert, "reranker": tiny_classifier}) as (url, _):
        for key in ("", "Bearer "):
            found = requests.post(
                f"{url}/v1/embeddings", json={"input": "a"}, headers={"Authorization": key}
            )
            assert found.status_code == 200, found.text


def test_open_webui_names_the_side_of_a_text(tiny_bert: Path, tmp_path: Path) -> None:
    """RAG_EMBEDDING_PREFIX_FIELD_NAME=input_type puts its prefix into that field."""
    model = Embedder.from_pretrained(tiny_bert, prompts={"query": "the cat ", "document": "dog "})
    model.save_pretrained(tmp_path / "model")
    with served({"embedder": tmp_path / "model"}) as (url, _):
        for side in ("query", "document"):
            body = {"input": TEXTS[:2], "model": "m", "input_type": side}
            found = httpx.post(f"{url}/v1/embeddings", json=body).json()["data"]
            wanted = model.encode(TEXTS[:2], prompt_name=side)
            np.testing.assert_allclose([e["embedding"] for e in found], wanted, atol=1e-5)


def test_tei(client: httpx.Client, vectors: np.ndarray, scores: np.ndarray) -> None:
    one = client.post("/embed", json={"inputs": TEXTS[0]}).json()
    np.testing.assert_allclose(one, vectors[:1], atol=1e-5)
    body = {"query": TEXTS[0], "texts": list(TEXTS), "return_text": True, "raw_scores": False}
    found = client.post("/rerank", json=body).json()
    assert [entry["score"] for entry in found] == sorted(
        (entry["score"] for entry in found), reverse=True
    )
    assert found[0]["text"] == TEXTS[found[0]["index"]]
    for entry in found:
        assert entry["score"] == pytest.approx(scores[entry["index"]], abs=1e-5)
    sentences = {"source_sentence": TEXTS[0], "sentences": list(TEXTS[1:])}
    similar = client.post("/similarity", json={"inputs": sentences}).json()
    np.testing.assert_allclose(similar, vectors[1:] @ vectors[0], atol=1e-5)
    pieces = client.post("/tokenize", json={"inputs": ["a 猫"]}).json()
    assert pieces[0][2] | {"id": 0} == {
        "id": 0,
        "text": "猫",
        "special": False,
        "start": 2,
        "stop": 5,
    }
    empty = client.post("/embed", json={"inputs": []})
    assert (empty.status_code, empty.json()["error_type"]) == (400, "Empty")
    wrong = client.post("/embed", json={"inputs": "a", "truncation_direction": "up"})
    assert (wrong.status_code, wrong.json()["error_type"]) == (422, "Validation")


@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")]
)
def test_vllm_scores(client: httpx.Client, scores: np.ndarray, names: tuple[str, str]) -> None:
    left, right = names
    one = {"model": "m", "encoding_format": "float", left: TEXTS[0], right: TEXTS[1]}
    for path in ("/score", "/v1/score"):
        found = client.post(path, json=one).json()
        assert found["data"][0]["score"] == pytest.approx(scores[1], abs=1e-5)
        assert (found["object"], found["data"][0]["object"]) == ("list", "score")
    many = client.post("/score", json={left: TEXTS[0], right: list(TEXTS)}).json()
    assert [entry["index"] for entry in many["data"]] == list(range(len(TEXTS)))
    np.testing.assert_allclose([e["score"] for e in many["data"]], scores, atol=1e-5)
    pairs = client.post("/score", json={left: [TEXTS[0]] * 2, right: list(TEXTS[:2])}).json()
    np.testing.assert_allclose([e["score"] for e in pairs["data"]], scores[:2], atol=1e-5)
    uneven = client.post("/score", json={left: ["a", "b"], right: ["a", "b", "c"]})
    assert uneven.status_code == 422
    assert client.post("/score", json={left: "a"}).status_code == 422


# What we tell people to write


def test_the_commands_of_a_model_card(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    for folder in (tiny_bert, tiny_classifier):
        name = tmp_path / f"my {folder.name} 模型"
        name.symlink_to(folder)
        kind = detect_kind(name)
        serve, ask = map(shlex.split, server_commands(kind, str(name)).splitlines())
        args = parse(ServeSettings, serve[2:], None)
        assert Path(args.model or "") == name
        models = find_models(args.given(), None, None)
        (url,) = (word for word in ask if word.startswith("http"))
        assert httpx.URL(url).port == find_port(args, models)
        with served({kind: folder}) as (address, _):
            answer = httpx.post(
                address + httpx.URL(url).path, content=ask[-1].encode(), headers=JSON
            )
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["embeddings" if kind == "embedder" else "scores"]) == 2
