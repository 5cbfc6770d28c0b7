"""Keys of other clients: what they mean here, what is ignored, and that it is said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from encoders import Embedder
from served import BODIES, served
from tiny import TEXTS

IGNORED = "X-Tandem-Ignored"
ALL = BODIES | {
    "/": {"inputs": "a cat"},
    "/invocations": {"query": "a", "texts": ["b"]},
    "/embed ": {"inputs": ["a cat"]},
    "/rerank ": {"query": "a", "texts": ["b", "c"]},
    "/score ": {"text_1": "a", "text_2": ["b", "c"]},
    "/v1/score": {"queries": ["a"], "documents": ["b"]},
}


@pytest.fixture(scope="module")
def client(tiny_bert: Path, tiny_classifier: Path) -> Iterator[httpx.Client]:
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier}
    with served(folders) as (url, _), httpx.Client(base_url=url, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> Embedder:
    return Embedder.from_pretrained(tiny_bert, prompts={"query": "the cat ", "document": "dog "})


@pytest.fixture(scope="module")
def prompted(model: Embedder, tmp_path_factory: Any) -> Iterator[httpx.Client]:
    """An embedder with prompts, which takes token ids."""
    folder = tmp_path_factory.mktemp("prompted") / "model"
    model.save_pretrained(folder)
    with (
        served({"embedder": folder}, accept_token_ids=True) as (url, _),
        httpx.Client(base_url=url, timeout=60) as found,
    ):
        yield found


def numbers(content: Any) -> list[float]:
    if isinstance(content, float):
        return [content]
    parts = content.values() if isinstance(content, dict) else content
    return [x for part in parts for x in numbers(part)] if isinstance(content, dict | list) else []


@pytest.mark.parametrize("path", ALL)
def test_unknown_keys_are_ignored_and_named(client: httpx.Client, path: str) -> None:
    body, path_ = ALL[path], path.strip()
    plain = client.post(path_, json=body)
    assert plain.status_code == 200
    assert IGNORED not in plain.headers
    extra = {
        "promt": "query",
        "mm_processor_kwargs": {},
        "k" * 500: 1,
        "é\n": 0,
        "": [],
        "no": None,
    }
    found = client.post(path_, json=body | extra)
    assert found.status_code == 200, found.text
    assert numbers(found.json()) == pytest.approx(numbers(plain.json()), abs=1e-5)
    assert found.headers[IGNORED].split(", ") == [
        "promt", "mm_processor_kwargs", "k" * 60, "??", '""'
    ]  # fmt: skip


def test_many_unknown_keys_are_counted(client: httpx.Client) -> None:
    found = client.post("/embed", json={"text": "a"} | {f"key_{n}": n for n in range(500)})
    assert found.headers[IGNORED].endswith("key_19, and 480 more")


def test_keys_inside_are_named_by_their_place(client: httpx.Client) -> None:
    sentences = {"source_sentence": "a", "sentences": ["b"], "lang": "en"}
    body = {"inputs": sentences, "parameters": {"top": 1, "truncate": None, "prompt_name": None}}
    found = client.post("/similarity", json=body)
    assert found.headers[IGNORED] == "inputs.lang, parameters.top"
    documents = ["a", {"text": "b", "title": "t"}, {"text": "c", "url": "u"}]
    found = client.post("/v1/rerank", json={"query": "q", "documents": documents})
    assert found.headers[IGNORED] == "documents.title, documents.url"
    assert "field 'documents.title' was ignored" in found.json()["meta"]["warnings"]


@pytest.mark.parametrize("path", ALL)
def test_null_is_the_default_of_every_key(client: httpx.Client, path: str) -> None:
    body, path_ = ALL[path], path.strip()
    page = client.get("/openapi.json").json()["components"]["schemas"]
    names = {name for schema in page.values() for name in schema.get("properties", {})}
    plain, found = (
        client.post(path_, json=given)
        for given in (body, dict.fromkeys(names - body.keys()) | body)
    )
    assert found.status_code == 200, found.text
    assert numbers(found.json()) == pytest.approx(numbers(plain.json()), abs=1e-5)
    assert IGNORED not in found.headers


MISSING: list[tuple[str, dict[str, Any], str]] = [
    ("/embed", {}, "text"),
    ("/embed", {"text": None}, "text"),
    ("/embed_batch", {"dimensions": 3}, "texts"),
    ("/v1/embeddings", {"model": "m"}, "input"),
    ("/v1/embeddings", {"input": None}, "input"),
    ("/rerank", {"documents": ["a"]}, "query"),
    ("/rerank", {"query": "a"}, "documents"),
    ("/rerank", {"texts": ["a"]}, "query"),
    ("/v1/rerank", {"query": "a", "documents": None}, "documents"),
    ("/v2/rerank", {"documents": ["a"]}, "query"),
    ("/v1/rerank", {"query": "a", "documents": ["b", {"txt": "c"}]}, "documents.1"),
    ("/score", {"query": "a"}, "doc"),
    ("/score", {"text_1": "a"}, "text_2"),
    ("/v1/score", {"queries": ["a"]}, "documents"),
    ("/score", {"data_2": "a"}, "data_1"),
    ("/score_batch", {"query": "a"}, "docs"),
    ("/similarity", {}, "inputs"),
    ("/similarity", {"inputs": {"sentences": ["a"]}}, "inputs.source_sentence"),
    ("/tokenize", {}, "inputs"),
    ("/search", {}, "query"),
    ("/search", {"query": "a"}, "documents"),
    ("/compare", {"query": "a"}, "documents"),
    ("/", {}, "inputs"),
    ("/", {"query": "a"}, "texts"),
    ("/invocations", {"inputs": {}}, "inputs.source_sentence"),
]


@pytest.mark.parametrize(("path", "body", "field"), MISSING)
def test_the_missing_field_is_named(
    client: httpx.Client, path: str, body: dict[str, Any], field: str
) -> None:
    found = client.post(path, json=body)
    assert found.status_code in (400, 422)
    error = found.json()["error"]
    param, message = (
        (found.json()["param"], error)
        if isinstance(error, str)
        else (error["param"], error["message"])
    )
    assert param == field
    assert field in message


WORDS = [
    ("query", ["query", "search_query", "QUERY", "retrieval_query"]),
    ("document", ["document", "passage", "search_document", "RETRIEVAL_DOCUMENT"]),
    (None, ["classification", "clustering"]),
]


@pytest.mark.parametrize(("prompt", "words"), WORDS)
def test_input_type_chooses_the_prompt(
    prompted: httpx.Client, model: Embedder, prompt: str | None, words: list[str]
) -> None:
    wanted = model.encode(TEXTS[:2], prompt_name=prompt)
    for word in words:
        for path, name in (("/v1/embeddings", "input"), ("/embed_batch", "texts"), ("/", "inputs")):
            found = prompted.post(path, json={name: TEXTS[:2], "input_type": word})
            np.testing.assert_allclose(vectors(found.json()), wanted, atol=1e-5)
            assert found.headers.get(IGNORED) == (None if prompt else "input_type")


def vectors(content: Any) -> Any:
    if isinstance(content, list):
        return content
    return content.get("embeddings") or [entry["embedding"] for entry in content["data"]]


def test_words_for_other_tasks_leave_out_the_default_prompt(
    model: Embedder, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    file = tmp_path / "config_sentence_transformers.json"
    settings = json.loads(file.read_text(encoding="utf-8")) | {"default_prompt_name": "query"}
    file.write_text(json.dumps(settings), encoding="utf-8")
    with (
        served({"embedder": tmp_path}, accept_token_ids=True) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for given, prompt in (
            ({}, "the cat "),
            ({"input_type": "clustering"}, ""),
            ({"task": "classification"}, ""),
            ({"task": "whatever"}, "the cat "),
            ({"input_type": "document", "task": "classification"}, "dog "),
        ):
            found = client.post("/v1/embeddings", json={"input": TEXTS[:2], **given})
            wanted = model.encode([prompt + text for text in TEXTS[:2]])
            np.testing.assert_allclose(vectors(found.json()), wanted, atol=1e-5)
            ignored = "task" if given == {"task": "whatever"} else None
            assert found.headers.get(IGNORED) == ignored
            ids = client.post("/v1/embeddings", json={"input": [5, 6], **given})
            assert ids.status_code == (400 if prompt else 200), ids.text


def test_jinas_task_chooses_the_prompt(prompted: httpx.Client, model: Embedder) -> None:
    for task, prompt in (("retrieval.query", "query"), ("retrieval.passage", "document")):
        found = prompted.post("/v1/embeddings", json={"input": TEXTS[:2], "task": task})
        wanted = model.encode(TEXTS[:2], prompt_name=prompt)
        np.testing.assert_allclose(vectors(found.json()), wanted, atol=1e-5)
        assert IGNORED not in found.headers
    found = prompted.post("/v1/embeddings", json={"input": TEXTS[:2], "task": "text-matching"})
    np.testing.assert_allclose(vectors(found.json()), model.encode(TEXTS[:2]), atol=1e-5)
    assert found.headers[IGNORED] == "task"


def test_input_types_that_cannot_be_are_refused(prompted: httpx.Client) -> None:
    wrong = prompted.post("/v1/embeddings", json={"input": "a", "input_type": "qurey"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "input_type")
    both = {"input": "a", "input_type": "query", "task": "retrieval.passage"}
    assert "give one" in prompted.post("/v1/embeddings", json=both).text
    ids = prompted.post("/v1/embeddings", json={"input": [5, 6], "input_type": "query"})
    assert (ids.status_code, "token ids" in ids.text) == (400, True)
    assert prompted.post("/v1/embeddings", json={"input": [5, 6]}).status_code == 200


def test_a_choice_among_no_prompts_is_named(client: httpx.Client) -> None:
    for key in ("input_type", "prompt"):
        found = client.post("/embed", json={"text": "a", key: "query"})
        assert found.headers[IGNORED] == key
    found = client.post("/embed", json={"inputs": "a", "prompt_name": "query"})
    assert found.headers[IGNORED] == "prompt_name"


def test_truncate_in_the_words_of_others(client: httpx.Client, tiny_bert: Path) -> None:
    long = " ".join(TEXTS) * 20
    end, start, right = (
        client.post("/v1/embeddings", json={"input": long, **given})
        for given in ({"truncate": "END"}, {"truncate": "start"}, {"truncation": True})
    )
    assert [found.headers["X-Truncated"] for found in (end, start, right)] == ["1"] * 3
    assert [found.headers.get(IGNORED) for found in (end, start, right)] == ["truncate", None, None]
    assert numbers(end.json()) == numbers(right.json()) != numbers(start.json())
    left = client.post("/v1/embeddings", json={"input": long, "truncation_side": "left"})
    assert numbers(left.json()) == numbers(start.json())
    for given in ({"truncate": "NONE"}, {"truncation": False}, {"truncate": "false"}):
        refused = client.post("/v1/embeddings", json={"input": ["a", long], **given})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "input.1"
    wrong = client.post("/v1/embeddings", json={"input": "a", "truncate": "MIDDLE"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "truncate")
    # A word for a side, or none to cut at all, leaves nothing to say to another key.
    for given in ({"truncate": "START"}, {"truncate": "END"}, {"truncation": False}):
        body = {"input": "a", "truncation_side": "left", **given}
        found = client.post("/v1/embeddings", json=body)
        assert found.headers[IGNORED].split(", ")[-1] == "truncation_direction"
    # What the client itself wants cut is not too long.
    asked: dict[str, Any] = {
        "query": "cat",
        "documents": [" ".join(["cat"] * 40), "dog"],
        "max_tokens_per_doc": 10,
    }
    for given in ({}, {"truncate": False}):
        found = client.post("/v2/rerank", json=asked | given)
        assert (found.status_code, found.headers["X-Truncated"]) == (200, "1"), found.text
    refused = client.post("/v2/rerank", json=asked | {"query": long, "truncate": False})
    assert "documents.0: has more than the 128 tokens" in refused.text
    with served({"embedder": tiny_bert}, truncate=False) as (url, _):
        for names, raw in (
            (("query", "doc"), {"raw_scores": True}),
            (("text_1", "text_2"), {"use_activation": False}),
        ):
            found = httpx.post(f"{url}/score", json=dict.fromkeys(names, "a") | raw)
            assert found.headers[IGNORED] == next(iter(raw))
        found = httpx.post(f"{url}/v1/embeddings", json={"input": long, "truncate": "END"})
        assert (found.status_code, found.headers.get(IGNORED)) == (200, None)
