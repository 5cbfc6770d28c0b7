"""Integer types of embeddings, as OpenAI's, Voyage's, Jina's and Cohere's clients ask for them."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import cohere
import httpx
import numpy as np
import openai
import pytest
from sentence_transformers.util import quantize_embeddings

from common.quantization import OutputDtype, quantize
from encoders import Embedder
from served import served
from tiny import TEXTS
from zoo import backbone, embedder

IGNORED = "X-Tandem-Ignored"
INTEGERS = [name for name in get_args(OutputDtype) if name != "float"]

WORD = "key"  # that clients give


@pytest.fixture(scope="module")
def url(tiny_bert: Path) -> Iterator[str]:
    with served({"embedder": tiny_bert}, keys=["key"]) as (found, _):
        yield found


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer key"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as found:
        yield found


@pytest.fixture
def v2(url: str) -> Iterator[cohere.ClientV2]:
    with httpx.Client(timeout=60) as http:
        yield cohere.ClientV2(api_key=WORD, base_url=url, httpx_client=http)


@pytest.fixture
def v1(url: str) -> Iterator[cohere.Client]:
    with httpx.Client(timeout=60) as http:
        yield cohere.Client(api_key=WORD, base_url=url, httpx_client=http)


@pytest.fixture(scope="module")
def vectors(tiny_bert: Path) -> np.ndarray:
    return Embedder.from_pretrained(tiny_bert).encode(TEXTS).numpy()


def assert_close(found: Any, vectors: np.ndarray, output_dtype: Any) -> None:
    """Equal but for rounding: batches of other texts give other last bits of a float."""
    wanted = quantize(vectors, output_dtype).astype(int)
    assert np.shape(found) == wanted.shape
    if output_dtype in ("int8", "uint8"):
        assert np.abs(np.array(found) - wanted).max() <= 1
    else:
        assert (np.array(found) == wanted).mean() > 0.99


def assert_floats(found: Any, vectors: np.ndarray) -> None:
    np.testing.assert_allclose(found, vectors, atol=1e-5)


def data(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.text
    assert IGNORED not in response.headers
    return [entry["embedding"] for entry in response.json()["data"]]


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_made_of_the_floats_of_the_same_request(
    v2: cohere.ClientV2, name: Any
) -> None:
    """Both come from one run of the model, so they agree bit for bit."""
    found = v2.embed(
        model="any", texts=TEXTS, input_type="search_query", embedding_types=["float", name]
    ).embeddings
    floats = np.array(found.float_, dtype=np.float32)
    np.testing.assert_array_equal(getattr(found, name), quantize(floats, name))
    if name.endswith("binary"):
        np.testing.assert_array_equal(getattr(found, name), quantize_embeddings(floats, name))


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("key", ["output_dtype", "embedding_type"])
def test_voyages_and_jinas_fields(
    client: httpx.Client, vectors: np.ndarray, key: str, name: Any
) -> None:
    body = {"input": TEXTS, key: name}
    plain = data(client.post("/v1/embeddings", json=body))
    assert_close(plain, vectors, name)
    coded = data(client.post("/v1/embeddings", json=body | {"encoding_format": "base64"}))
    number = np.uint8 if name.startswith("u") else np.int8
    rows = [np.frombuffer(base64.b64decode(row), dtype=number) for row in coded]
    assert np.array_equal(rows, plain)


def test_jinas_base64_is_float(client: httpx.Client) -> None:
    plain = data(client.post("/v1/embeddings", json={"input": TEXTS, "embedding_type": "float"}))
    coded = data(client.post("/v1/embeddings", json={"input": TEXTS, "embedding_type": "base64"}))
    assert np.array_equal([np.frombuffer(base64.b64decode(row), dtype="<f4") for row in coded],
                          np.array(plain, dtype=np.float32))  # fmt: skip


def test_output_dimension_is_dimensions(client: httpx.Client, vectors: np.ndarray) -> None:
    found = data(client.post("/v1/embeddings", json={"input": TEXTS, "output_dimension": 8}))
    cut = vectors[:, :8] / np.linalg.norm(vectors[:, :8], axis=1, keepdims=True)
    assert_floats(found, cut)
    body = {"input": TEXTS, "output_dimension": 8, "output_dtype": "int8"}
    assert_close(data(client.post("/v1/embeddings", json=body)), vectors[:, :8], "int8")


def test_the_second_of_two_names_is_ignored_and_named(client: httpx.Client) -> None:
    body = {"input": "a", "output_dtype": "int8", "embedding_type": "float", "dimensions": 8}
    found = client.post("/v1/embeddings", json=body | {"output_dimension": 16})
    assert set(found.headers[IGNORED].split(", ")) == {"embedding_type", "output_dimension"}
    (row,) = [entry["embedding"] for entry in found.json()["data"]]
    assert len(row) == 8
    assert all(isinstance(number, int) for number in row)


def test_openais_client(url: str, vectors: np.ndarray) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=WORD) as client:
        for name in INTEGERS:
            found = client.embeddings.create(
                model="any",
                input=TEXTS,
                encoding_format="float",
                extra_body={"output_dtype": name, "output_dimension": 16},
            )
            assert_close([entry.embedding for entry in found.data], vectors[:, :16], name)


@pytest.mark.parametrize("name", INTEGERS)
def test_our_own_routes(client: httpx.Client, vectors: np.ndarray, name: Any) -> None:
    one = client.post("/embed", json={"text": TEXTS[5], "output_dtype": name}).json()
    assert_close(one["embedding"], vectors[5], name)
    many = client.post("/embed_batch", json={"texts": TEXTS, "output_dtype": name}).json()
    assert_close(many["embeddings"], vectors, name)
    assert one["dim"] == many["dim"] == vectors.shape[1]


def test_cohere_version_2(v2: cohere.ClientV2, vectors: np.ndarray) -> None:
    asked: Any = ["float", "base64", *INTEGERS]
    found = v2.embed(
        model="any",
        texts=TEXTS,
        input_type="search_document",
        embedding_types=asked,
        output_dimension=16,
        truncate="END",
    )
    cut = vectors[:, :16] / np.linalg.norm(vectors[:, :16], axis=1, keepdims=True)
    assert_floats(found.embeddings.float_, cut)
    rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in found.embeddings.base64 or []]
    assert np.array_equal(rows, np.array(found.embeddings.float_, dtype=np.float32))
    assert found.texts == list(TEXTS)
    assert found.response_type == "embeddings_by_type"
    assert found.meta is not None and found.meta.billed_units is not None
    assert (found.meta.billed_units.input_tokens or 0) > len(TEXTS)
    assert found.meta.warnings is not None  # the model has no prompts
    assert "field 'input_type' was ignored" in found.meta.warnings
    plain = v2.embed(model="any", texts=TEXTS, input_type="search_document").embeddings
    assert_floats(plain.float_, vectors)
    assert plain.int8 is None


# Cohere's client merges its batches by functions that pydantic has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_cohere_version_1(v1: cohere.Client, vectors: np.ndarray) -> None:
    plain = v1.embed(texts=TEXTS, model="any", input_type="search_query")
    assert plain.response_type == "embeddings_floats"
    assert_floats(plain.embeddings, vectors)
    assert plain.texts == list(TEXTS)
    typed = v1.embed(texts=TEXTS, embedding_types=["int8", "ubinary"])
    assert typed.response_type == "embeddings_by_type"
    assert_close(typed.embeddings.int8, vectors, "int8")
    assert_close(typed.embeddings.ubinary, vectors, "ubinary")
    assert typed.embeddings.float_ is None


def test_coheres_inputs(v2: cohere.ClientV2, vectors: np.ndarray) -> None:
    inputs: Any = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    found = v2.embed(model="any", inputs=inputs, input_type="search_document")
    assert_floats(found.embeddings.float_, vectors)
    words = TEXTS[0].split()
    parts: Any = [{"content": [{"type": "text", "text": word} for word in words]}]
    found = v2.embed(model="any", inputs=parts, input_type="search_document")
    assert_floats(found.embeddings.float_, vectors[:1])
    assert found.texts == ["\n".join(words)]


def test_what_is_cut_or_ignored_is_in_the_warnings(client: httpx.Client) -> None:
    body = {"texts": ["a", " ".join(TEXTS) * 20], "priority": 3}
    found = client.post("/v2/embed", json=body)
    assert found.headers[IGNORED] == "priority"
    assert found.headers["X-Truncated"] == "1"
    warnings = ["field 'priority' was ignored", "texts [1] were truncated"]
    assert found.json()["meta"]["warnings"] == warnings


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
TEXT = {"type": "text", "text": "a"}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/embeddings", {"input": "a", "output_dtype": "int4"}, "output_dtype"),
    ("/v1/embeddings", {"input": "a", "embedding_type": "float16"}, "embedding_type"),
    ("/v1/embeddings", {"input": "a", "embedding_type": ["int8"]}, "embedding_type"),
    ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ("/v1/embeddings", {"input": "a", "output_dimension": -1}, "output_dimension"),
    ("/v1/embeddings", {"input": "a", "output_dimension": 4000}, "dimensions"),
    ("/embed", {"text": "a", "output_dtype": 8}, "output_dtype"),
    ("/embed_batch", {"texts": ["a"], "output_dtype": "bits"}, "output_dtype"),
    ("/v2/embed", {"texts": ["a"], "embedding_types": ["int8", "int4"]}, "embedding_types.1"),
    ("/v2/embed", {"texts": ["a"], "embedding_types": "int8"}, "embedding_types"),
    ("/v1/embed", {"texts": ["a"], "embedding_types": []}, "embedding_types"),
    ("/v2/embed", {"texts": ["a"], "input_type": "image"}, "input_type"),
    ("/v2/embed", {"texts": ["a"], "truncate": "MIDDLE"}, "truncate"),
    ("/v2/embed", {"texts": ["a", ""]}, "texts.1"),
    ("/v2/embed", {"texts": []}, "texts"),
    ("/v2/embed", {}, "texts"),
    ("/v2/embed", {"texts": ["a"], "inputs": [{"content": [TEXT]}]}, "texts"),
    ("/v2/embed", {"images": ["data:image/png;base64,AA=="]}, "images"),
    ("/v2/embed", {"texts": ["a"], "images": ["data:image/png;base64,AA=="]}, "images"),
    ("/v2/embed", {"inputs": [{"content": [TEXT]}, {"content": [IMAGE]}]}, "inputs.1.content.0"),
    ("/v2/embed", {"inputs": [{"content": [TEXT | IMAGE]}]}, "inputs.0.content.0"),
    ("/v2/embed", {"inputs": [{"content": [{"type": "text"}]}]}, "inputs.0.content.0"),
    ("/v2/embed", {"inputs": [{"content": []}]}, "inputs.0.content"),
    ("/v2/embed", {"texts": ["a"], "documents": ["b"]}, "documents"),
]


@pytest.mark.parametrize(("path", "body", "field"), WRONG)
def test_a_wrong_value_is_one_error_that_names_the_field(
    client: httpx.Client, path: str, body: dict[str, Any], field: str
) -> None:
    found = client.post(path, json=body)
    assert found.status_code in (400, 422)
    error = found.json()["error"]
    assert error["param"] == field
    assert re.findall(r"(?:^|; )([\w.]+)(?:: | cannot)", error["message"]) == [field]
    if path.endswith("/embed") and path != "/embed":
        assert (found.status_code, found.json()["message"]) == (400, error["message"])


def test_coheres_client_shows_the_error(v2: cohere.ClientV2) -> None:
    with pytest.raises(cohere.BadRequestError, match="images cannot be embedded"):
        v2.embed(model="any", input_type="image", images=["data:image/png;base64,AA=="])


def test_integers_lose_the_length_that_a_dot_product_needs(tmp_path: Path) -> None:
    base = backbone(tmp_path / "base")
    folder = embedder(tmp_path / "model", base, similarity_fn_name="dot")
    wanted = Embedder.from_pretrained(folder).encode(["a cat"]).numpy()
    with served({"embedder": folder}) as (url, _), httpx.Client(base_url=url) as client:
        for path, body, field in (
            ("/v1/embeddings", {"input": "a cat", "output_dtype": "int8"}, "output_dtype"),
            ("/embed", {"text": "a cat", "output_dtype": "binary"}, "output_dtype"),
            ("/v2/embed", {"texts": ["a cat"], "embedding_types": ["float", "uint8"]},
             "embedding_types"),
        ):  # fmt: skip
            found = client.post(path, json=body)
            assert found.status_code in (400, 422)
            assert found.json()["error"]["param"] == field
            assert "dot product" in found.json()["error"]["message"]
        unit = {"text": "a cat", "output_dtype": "int8", "normalize": True}
        found = client.post("/embed", json=unit)
        assert_close(found.json()["embedding"], wanted[0], "int8")
        floats = {"texts": ["a cat"], "embedding_types": ["float", "base64"]}
        assert client.post("/v2/embed", json=floats).status_code == 200


def test_integers_of_a_model_compared_by_cosine_need_no_unit_length(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"))
    wanted = Embedder.from_pretrained(folder).encode(["a cat"]).numpy()
    assert abs(np.linalg.norm(wanted) - 1) > 0.1
    with served({"embedder": folder}) as (url, _):
        body = {"text": "a cat", "output_dtype": "int8"}
        found = httpx.post(f"{url}/embed", json=body).json()["embedding"]
        assert_close(found, wanted[0], "int8")
