"""How models are called: lengths, lists and prompts that they are given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from collators import ScoredPairCollator
from common.prompts import with_prompt
from encoders import Embedder, Reranker
from mining.cache.vectors import VectorCache
from mining.search.encode import EncodingSettings, encode_all
from zoo import ENCODED, backbone, by_sentence_transformers, embedder

LONG = "the cat sat on the mat " * 60


@pytest.fixture
def model(tiny_bert: Path) -> Embedder:
    return Embedder.from_pretrained(tiny_bert)


@pytest.fixture
def reranker(tiny_classifier: Path) -> Reranker:
    return Reranker.from_pretrained(tiny_classifier)


def test_lengths_that_a_model_does_not_have(model: Embedder, reranker: Reranker) -> None:
    with pytest.raises(ValueError, match=r"max_length: 200 .* bert takes at most 128"):
        model.encode([LONG], max_length=200)
    with pytest.raises(ValueError, match=r"max_length: 200 .* bert takes at most 128"):
        model.score_pairs(["a"], [LONG], document_max_length=200)
    for length in (0, 1, 2):
        with pytest.raises(ValueError, match=rf"max_length: {length} leaves .* give at least 3"):
            model.encode([LONG], max_length=length)
    with pytest.raises(ValueError, match="max_length: 4 leaves no room for a query and a document"):
        reranker.score([("a", LONG)], max_length=4)
    one, other = model.encode(["a cat", "dog"], max_length=3)
    assert not torch.equal(one, other)
    assert reranker.score([("a", LONG)], max_length=5).shape == (1,)


def test_one_text_is_no_list(model: Embedder, reranker: Reranker) -> None:
    calls: list[tuple[str, Callable[..., Any], Any]] = [
        ("texts", model.encode, ["天气很好"]),
        ("queries", model.score_pairs, ["天气", "北京"]),
        ("documents", model.score_pairs, [["天气", "北京"], "北京"]),
        ("queries", reranker.score_pairs, ["天气", "北京"]),
        ("pairs", reranker.score, [["天气", "北京"]]),
    ]
    for name, call, given in calls:
        with pytest.raises(ValueError, match=rf"^{name}: .* is one text; give "):
            call(*given)


def test_pairs_have_two_sides(model: Embedder, reranker: Reranker) -> None:
    for scorer in (model, reranker):
        with pytest.raises(ValueError, match="documents: 3 queries and 1 documents make no pairs"):
            scorer.score_pairs(["a", "b", "c"], ["d"])


@pytest.mark.parametrize("unpad", [False, True])
def test_texts_of_which_none_has_a_token(unpad: bool, tiny_bert: Path) -> None:
    model = Embedder.from_pretrained(tiny_bert, unpad_inputs=unpad)
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A")
    assert model.tokenizer("")["input_ids"] == []
    beside = model.encode(["", "a cat sat"])[0]
    torch.testing.assert_close(model.encode([""])[0], beside, atol=1e-6, rtol=1e-5)


# Prompts that are left out of pooling


@pytest.fixture
def without_prompts(tmp_path: Path) -> Path:
    """A folder whose pooling leaves prompts out; it has none of its own."""
    return embedder(tmp_path / "model", backbone(tmp_path / "base"), include_prompt=False)


def test_a_text_is_not_a_prompt_because_another_had_it(without_prompts: Path) -> None:
    model = Embedder.from_pretrained(without_prompts)
    texts = ["how to read a cat", *ENCODED]
    before = model.encode(texts, prompt="")
    prompted = model.encode(texts, prompt="how to ")
    wanted = by_sentence_transformers(without_prompts, texts, prompt="how to ")
    torch.testing.assert_close(prompted, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(model.encode(texts, prompt=""), before)
    torch.testing.assert_close(
        before, by_sentence_transformers(without_prompts, texts), atol=1e-5, rtol=1e-5
    )


def test_a_querys_own_prompt_is_left_out(without_prompts: Path, tmp_path: Path) -> None:
    """Wherever texts come from: pairs, the miner's cache, a batch of training."""
    model = Embedder.from_pretrained(without_prompts)
    wanted = model.encode(["read a cat"], prompt="how to ")
    other = model.encode(["how to read a cat"])
    assert not torch.allclose(wanted, other, atol=1e-3)

    own = model.score_pairs(["read a cat"], ["dog"], query_prompts=["how to "])
    shared = model.score_pairs(["read a cat"], ["dog"], prompts={"query": "how to "})
    torch.testing.assert_close(own, shared)

    text = with_prompt("read a cat", "", "how to ")
    with VectorCache(tmp_path / "cache", model.dimension) as cache:
        found = encode_all(model, 1, lambda a, b: [text][a:b], cache, EncodingSettings(), "texts")
        unit = torch.nn.functional.normalize(wanted, dim=-1)
        torch.testing.assert_close(found.slice(0, 1), unit, atol=1e-5, rtol=1e-5)

    row = {"query": "read a cat", "prompt": "how to ", "doc": "how to read a cat"}
    batch = ScoredPairCollator(model.tokenizer, 32, 32)([{**row, "rel": 1.0, "weight": 1.0}])
    with torch.no_grad():
        embeddings = model(**batch["texts"])
    torch.testing.assert_close(embeddings[batch["queries"]], wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(embeddings[batch["documents"]], other, atol=1e-5, rtol=1e-5)


def test_a_prompt_that_fills_the_text_is_pooled(without_prompts: Path) -> None:
    """It is all that there is."""
    model = Embedder.from_pretrained(without_prompts)
    found = model.encode(["cat"], prompt="how to read a csv file ", max_length=5)
    wanted = model.encode(["how to read a csv file cat"], max_length=5)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
