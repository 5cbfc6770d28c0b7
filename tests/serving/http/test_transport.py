"""HTTP as clients and proxies really speak it: HEAD, CORS, packed bodies, the root, names."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient

from encoders import Embedder
from served import JSON, served
from serving.http.body_reader import ENCODINGS, unpack
from serving.http.errors import ServingError
from tiny import TEXTS

SITE = "https://a.example"
MOST = 100_000


@pytest.fixture(scope="module")
def folders(tiny_bert: Path, tiny_classifier: Path) -> dict[str, Path]:
    return {"embedder": tiny_bert, "reranker": tiny_classifier}


@pytest.fixture(scope="module")
def client(folders: dict[str, Path]) -> Iterator[httpx.Client]:
    with (
        served(folders, keys=["k"], cors_origins=[SITE], max_body_bytes=MOST) as (url, engine),
        httpx.Client(base_url=url, timeout=60, headers={"X-API-Key": "k"}) as found,
    ):
        engine.models["embedder"].name = "our team/embedder: v1"
        yield found


def test_head_is_get_without_a_body(client: httpx.Client) -> None:
    page = client.get("/openapi.json").json()
    paths = [path for path, methods in page["paths"].items() if "get" in methods]
    paths += ["/ping", "/models", "/openapi.json", "/", "/docs", "/static/style.css", "/nothing"]
    name = client.get("/v1/models").json()["data"][0]["id"]
    for path in paths:
        path = path.replace("{model}", name)
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
    assert client.head("/embed").status_code == client.get("/embed").status_code == 405
    assert client.head("/info", headers={"X-API-Key": "no"}).status_code == 401
    assert client.get("/live").status_code == 200  # the connection is fine


def test_a_named_site_gets_what_it_asks_for(client: httpx.Client) -> None:
    for method in ("GET", "HEAD", "POST"):
        asked = {
            "Origin": SITE,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "authorization,x-stainless-os,traceparent",
            "Access-Control-Request-Private-Network": "true",
        }
        found = client.options("/v1/embeddings", headers=asked)
        assert found.status_code == 200, found.text
        allowed = found.headers["Access-Control-Allow-Headers"].lower()
        assert {"authorization", "x-stainless-os", "traceparent"} <= set(allowed.split(","))
        assert found.headers["Access-Control-Allow-Private-Network"] == "true"
        other = client.options("/v1/embeddings", headers=asked | {"Origin": "https://b.example"})
        assert "Access-Control-Allow-Origin" not in other.headers


def test_a_named_site_may_read_our_headers(client: httpx.Client) -> None:
    body = {"text": "a", "unknown": 1}
    for content in (body, {"text": ""}):
        found = client.post("/embed", json=content, headers={"Origin": SITE})
        exposed = set(found.headers["Access-Control-Expose-Headers"].lower().split(", "))
        ours = {name for name in found.headers if name.startswith("x-")}
        assert ours - {"x-content-type-options"} <= exposed
    assert {"retry-after", "x-tandem-ignored", "x-truncated"} <= exposed


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "two members": ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("Deflate", raw),
    "identity": ("identity", bytes),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_bodies_are_unpacked(client: httpx.Client, name: str) -> None:
    encoding, pack = PACKED[name]
    content = pack(json.dumps({"texts": list(TEXTS)}).encode())
    headers = JSON | {"Content-Encoding": encoding}
    plain = client.post("/embed_batch", json={"texts": list(TEXTS)}).json()
    whole = client.post("/embed_batch", content=content, headers=headers)
    parts = (content[at : at + 7] for at in range(0, len(content), 7))
    in_chunks = client.post("/embed_batch", content=parts, headers=headers)
    for found in (whole, in_chunks):
        assert found.status_code == 200, found.text
        np.testing.assert_allclose(found.json()["embeddings"], plain["embeddings"], atol=1e-6)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "gzip;q=1"])
def test_other_encodings_are_refused_by_name(client: httpx.Client, encoding: str) -> None:
    headers = JSON | {"Content-Encoding": encoding}
    found = client.post("/embed", content=b"{}", headers=headers)
    assert found.status_code == 415
    assert found.headers["Accept-Encoding"] == "gzip, deflate"
    assert "Content-Encoding: must be gzip or deflate" in found.text


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_broken_and_endless_bodies_are_refused(client: httpx.Client, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    headers, good = JSON | {"Content-Encoding": encoding}, pack(b'{"text": "a"}')
    spoilt = bytes([*good[:-4], *(255 - byte for byte in good[-4:])])
    for content in (b"", b"{}", good[:-3], good + b"more", spoilt, b"\x1f\x8b" + b"\0" * 50):
        found = client.post("/embed", content=content, headers=headers)
        assert found.status_code == 400, content
        assert found.json()["error"]["code"] == "invalid_content_encoding"
    for bomb in (pack(b" " * (MOST + 1)), pack(b" " * 50_000_000)):
        found = client.post("/embed", content=bomb, headers=headers)
        assert (found.status_code, f"{MOST} bytes" in found.text) == (413, True)
    exact = pack(b'{"text": "a"}' + b" " * (MOST - 13))
    assert client.post("/embed", content=exact, headers=headers).status_code == 200


def test_a_bomb_is_not_unpacked_beyond_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 100_000_000)
    tracemalloc.start()
    with pytest.raises(ServingError, match="larger"):
        unpack(bomb, "gzip", MOST)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 * MOST


def test_models_by_their_names(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert "/" in listed[0]["id"]
    with openai.OpenAI(
        base_url=f"{client.base_url}/v1", api_key="k", max_retries=0
    ) as openai_client:
        for model in listed:
            assert openai_client.models.retrieve(model["id"]).id == model["id"]
            assert client.get(f"/models/{model['id']}").json() == model
        with pytest.raises(openai.NotFoundError) as unknown:
            openai_client.models.retrieve("gpt/4")
    assert isinstance(unknown.value.body, dict)
    error = {name: unknown.value.body[name] for name in ("type", "param", "code")}
    assert error == {
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def post(client: httpx.Client, path: str, body: Any) -> Any:
    found = client.post(path, json=body)
    assert found.status_code == 200, found.text
    return found.json()


SENTENCES = {"source_sentence": TEXTS[0], "sentences": list(TEXTS[1:4])}
RANKED = {"query": TEXTS[0], "texts": list(TEXTS[1:4])}


def test_the_root_does_what_the_body_is_for(client: httpx.Client) -> None:
    for root in ("/", "/invocations"):
        for path, body in (
            ("/embed", {"inputs": list(TEXTS[:2]), "dimensions": 8}),
            ("/similarity", {"inputs": SENTENCES}),
            ("/rerank", RANKED),
        ):
            assert post(client, root, body) == post(client, path, body)
    refused = client.post("/", json={"inputs": "a"}, headers={"X-API-Key": "no"})
    assert refused.status_code == 401  # the page there is open, the work is not
    assert client.get("/", headers={"X-API-Key": "no"}).status_code == 200
    wrong = client.post("/", json={"inputs": [""]})
    assert (wrong.status_code, wrong.json()["error_type"]) == (422, "Validation")


@pytest.mark.parametrize("role", ["embedder", "reranker"])
def test_the_root_of_a_server_with_one_model(folders: dict[str, Path], role: str) -> None:
    with (
        served({role: folders[role]}) as (url, _),
        httpx.Client(base_url=url, timeout=60) as alone,
    ):
        body, path = ({"inputs": "a"}, "/embed") if role == "embedder" else (RANKED, "/rerank")
        assert post(alone, "/", body) == post(alone, path, body)
        other = RANKED if role == "embedder" else {"inputs": "a"}
        found = alone.post("/", json=other)
        assert found.status_code == 422
        assert found.json()["param"] == ("inputs" if role == "embedder" else "query")


def test_huggingface_hub_asks_the_root(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would not ask 127.0.0.1 either.
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    with served({"embedder": folders["embedder"]}, keys=["k"]) as (url, _):
        hub = InferenceClient(url, token="k")
        wanted = Embedder.from_pretrained(folders["embedder"]).encode(TEXTS[:4]).numpy()
        np.testing.assert_allclose(hub.feature_extraction(TEXTS[0]), wanted[:1], atol=1e-5)
        similar = hub.sentence_similarity(TEXTS[0], list(TEXTS[1:4]))
        np.testing.assert_allclose(similar, wanted[1:] @ wanted[0], atol=1e-5)
