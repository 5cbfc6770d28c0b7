"""A folder's default prompt: before texts for which none is chosen, and before no other."""

from pathlib import Path

import httpx
import pytest
import torch
from torch.nn import functional as F

from encoders import Embedder
from evaluation.data.sets import PairData
from evaluation.measure import score_pairs
from evaluation.search.distributed import InferenceSettings
from mining.cache.vectors import VectorCache
from mining.search.encode import EncodingSettings, encode_all
from served import served
from zoo import ENCODED, backbone, by_sentence_transformers, embedder

PROMPTS = {"query": "how to ", "document": "the dog ", "clustering": "a cat on "}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = backbone(tmp_path / "base")
    return embedder(tmp_path / "model", base, prompts=PROMPTS, default_prompt_name="clustering")


def test_encode_uses_it_as_sentence_transformers_does(folder: Path) -> None:
    model = Embedder.from_pretrained(folder)
    wanted = by_sentence_transformers(folder, ENCODED)
    torch.testing.assert_close(model.encode(ENCODED), wanted, atol=1e-5, rtol=1e-5)
    none = by_sentence_transformers(folder, ENCODED, prompt="")
    torch.testing.assert_close(model.encode(ENCODED, prompt=""), none, atol=1e-5, rtol=1e-5)


def test_pairs_are_measured_without_it(folder: Path) -> None:
    model = Embedder.from_pretrained(folder)
    found = score_pairs(model, PairData([ENCODED[0]], [ENCODED[1]], [1.0]), InferenceSettings())
    asked = model.encode([ENCODED[0]], prompt_name="query")
    answered = model.encode([ENCODED[1]], prompt_name="document")
    assert found[0] == pytest.approx(F.cosine_similarity(asked, answered).item(), abs=1e-6)


def test_mining_encodes_without_it(folder: Path, tmp_path: Path) -> None:
    """Its texts bring their prompts."""
    model = Embedder.from_pretrained(folder)
    texts = [PROMPTS["query"] + text for text in ENCODED]
    with VectorCache(tmp_path, 32) as cache:
        found = encode_all(
            model, len(texts), lambda a, b: texts[a:b], cache, EncodingSettings(), "texts"
        )
        wanted = F.normalize(model.encode(ENCODED, prompt_name="query"), dim=-1)
        torch.testing.assert_close(found.slice(0, len(texts)), wanted, atol=1e-6, rtol=1e-5)


def test_the_server_uses_it_as_encode_does(folder: Path) -> None:
    model = Embedder.from_pretrained(folder)
    openai = {"input": ENCODED[0], "model": "m"}
    with (
        served({"embedder": folder}) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        found = client.post("/embed", json={"inputs": ENCODED[0], "normalize": None}).json()[0]
        torch.testing.assert_close(
            F.normalize(torch.tensor(found), dim=0),
            F.normalize(model.encode([ENCODED[0]])[0], dim=0),
            atol=1e-5,
            rtol=1e-4,
        )
        for prompt in ("query", "document"):
            body = openai | {"input_type": prompt}
            answer = client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
            torch.testing.assert_close(
                F.normalize(torch.tensor(answer), dim=0),
                F.normalize(model.encode([ENCODED[0]], prompt_name=prompt)[0], dim=0),
                atol=1e-5,
                rtol=1e-4,
            )
        pair = {"query": ENCODED[0], "doc": ENCODED[1]}
        asked = model.encode([ENCODED[0]], prompt_name="query")
        answered = model.encode([ENCODED[1]], prompt_name="document")
        wanted = F.cosine_similarity(asked, answered).item()
        assert client.post("/score", json=pair).json()["score"] == pytest.approx(wanted, abs=1e-5)
