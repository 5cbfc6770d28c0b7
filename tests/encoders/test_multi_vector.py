"""Multi-vector encoders give the vectors and scores of sentence-transformers, and it theirs."""

import string
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import MultiVectorEncoder as Theirs
from sentence_transformers.base.modules import Module, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import (
    HierarchicalTokenPooling,
    MultiVectorMask,
)
from torch.testing import assert_close

from encoders import Embedder, MultiVectorEncoder, Reranker
from encoders.kinds import detect_kind, open_model
from zoo import ENCODED, LONG, PAIRS, WIDTH, backbone, change_json, dense, embedder

TOKENS: dict[str, Any] = {"module_input_name": "token_embeddings"}
PROMPTS = {"query": "how to ", "document": "the dog "}
SENTENCES = [*ENCODED, "a cat, a dog. Paris!", LONG]
PUNCTUATION = MultiVectorMask(list(string.punctuation))


def expansion(strategy: str, attend: bool, length: int = 12) -> dict[str, Any]:
    return {"query_expansion": {"strategy": strategy, "attend": attend, "length": length}}


def saved(
    folder: Path, base: Path, *after: Module, similarity: str = "maxsim", **settings: Any
) -> Path:
    """A folder of sentence-transformers'; ``settings`` are of its ``Transformer``."""
    modules = [Transformer(str(base), **settings), *after]
    model = Theirs(modules=modules, prompts=PROMPTS, similarity_fn_name=similarity, device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def normalized(*modules: Module) -> list[Module]:
    return [*modules, Normalize(module_input_name="token_embeddings")]


def assert_equal(ours: MultiVectorEncoder, folder: Path) -> None:
    """Vectors of both sides, and scores."""
    theirs = Theirs(str(folder), device="cpu")
    wanted = [theirs.encode_query(SENTENCES), theirs.encode_document(SENTENCES)]
    found = [ours.encode(SENTENCES, side="query"), ours.encode(SENTENCES, side="document")]
    for mine, other in zip(found, wanted, strict=True):
        for one, two in zip(mine, other, strict=True):
            assert one.shape[1] == ours.dimension and one.dtype == torch.float32
            assert_close(one, two, atol=1e-5, rtol=1e-5)
    queries, documents = [query for query, _ in PAIRS], [document for _, document in PAIRS]
    scores = theirs.similarity_pairwise(
        theirs.encode_query(queries), theirs.encode_document(documents)
    )
    assert_close(ours.score_pairs(queries, documents), scores, atol=1e-4, rtol=1e-5)


CASES: dict[str, tuple[str, dict[str, Any], list[Module]]] = {
    "plain": ("maxsim", {}, normalized()),
    "projections, skiplist": (
        "maxsim",
        {"query_length": 6, "document_length": 20},
        normalized(dense(WIDTH, 16, **TOKENS), dense(16, 8, **TOKENS), PUNCTUATION),
    ),
    "attended": (
        "meanmaxsim", expansion("fixed", True), normalized(dense(WIDTH, 8, **TOKENS), PUNCTUATION)
    ),
    "not attended": ("maxsim", expansion("fixed", False), normalized(PUNCTUATION)),
    "at least, not attended": (
        "maxsim",
        {**expansion("min", False), "query_length": 15},
        [dense(WIDTH, 8, **TOKENS), MultiVectorMask(["the", "."], skiplist_tasks=["query"])],
    ),
    "few tokens": ("maxsim", {}, normalized(MultiVectorMask(keep_only_token_ids=[7, 8, 9, 20]))),
    "at least, attended": ("meanmaxsim", expansion("min", True), normalized(PUNCTUATION)),
    "at least, and cut before": (
        "maxsim", {**expansion("min", True), "max_seq_length": 6}, normalized(PUNCTUATION)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_vectors_and_scores_of_sentence_transformers(case: str, tmp_path: Path) -> None:
    similarity, settings, modules = CASES[case]
    family = "roberta" if case.startswith("at least") else "bert"
    base = backbone(tmp_path / "base", family)
    folder = saved(tmp_path / "model", base, *modules, similarity=similarity, **settings)
    assert detect_kind(folder) == "multi_vector"
    model = MultiVectorEncoder.from_pretrained(folder)
    assert model.similarity == similarity and model.prompts == PROMPTS
    assert model.unpadded == ("not attended" not in case)
    assert_equal(model, folder)
    model.save_pretrained(tmp_path / "again")
    assert_equal(model, tmp_path / "again")
    assert_equal(MultiVectorEncoder.from_pretrained(tmp_path / "again"), folder)


def test_a_decoder(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", backbone(tmp_path / "base", "qwen3"), *normalized())
    assert_equal(MultiVectorEncoder.from_pretrained(folder), folder)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", backbone(tmp_path / "base"),
                   *normalized(dense(WIDTH, 8, **TOKENS), PUNCTUATION))  # fmt: skip
    one = MultiVectorEncoder.from_pretrained(folder)
    other = MultiVectorEncoder.from_pretrained(folder, unpad_inputs=False)
    assert one.unpadded and not other.unpadded
    together = one.encode(SENTENCES, side="query")
    for at, text in enumerate(SENTENCES):
        (alone,) = other.encode([text], side="query", tokens_per_batch=1)
        assert_close(together[at], alone, atol=1e-5, rtol=1e-5)
    assert one.encode([], side="document") == []


def test_an_embedder_is_opened_by_its_backbone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), dense(WIDTH, 16),
                      prompts=PROMPTS)  # fmt: skip
    model = open_model(folder, "multi_vector")
    assert isinstance(model, MultiVectorEncoder)
    assert "only its backbone" in caplog.text
    assert (model.dimension, model.prompts, model.new_weights) == (WIDTH, PROMPTS, set())
    (found,) = model.encode(["a cat."], side="query", prompt="")
    assert_close(found.norm(dim=1), torch.ones(len(found)))
    projected = MultiVectorEncoder.from_pretrained(folder, projection_dim=8)
    assert projected.dimension == 8 and set(projected.new_weights) < set(projected.state_dict())
    projected.save_pretrained(tmp_path / "saved")
    assert_equal(projected, tmp_path / "saved")
    with pytest.raises(ValueError, match=r"projection_dim: .* has a projection already"):
        MultiVectorEncoder.from_pretrained(tmp_path / "saved", projection_dim=4)


def test_lengths_of_both_sides(tmp_path: Path) -> None:
    base = backbone(tmp_path / "base")
    folder = saved(tmp_path / "model", base, *normalized(), query_length=6, document_length=9)
    model = MultiVectorEncoder.from_pretrained(folder)

    def tokens(side: Any, **settings: Any) -> int:
        return len(model.encode([LONG], side=side, **settings)[0])

    assert (tokens("query"), tokens("document"), tokens("query", max_length=20)) == (6, 9, 20)
    model.replace_lengths(7, None)
    model.save_pretrained(tmp_path / "saved")
    model = MultiVectorEncoder.from_pretrained(tmp_path / "saved")
    assert (tokens("query"), tokens("document")) == (7, 9)
    model = MultiVectorEncoder.from_pretrained(folder, max_length=12)
    assert (tokens("query"), tokens("document")) == (12, 12)
    fixed = saved(tmp_path / "fixed", base, *normalized(PUNCTUATION), **expansion("fixed", True))
    model = MultiVectorEncoder.from_pretrained(fixed, max_length=20)
    assert (tokens("query"), tokens("document")) == (12, 20)
    with pytest.raises(ValueError, match="query_max_length: queries of this model have 12 tokens"):
        tokens("query", max_length=8)


def test_what_cannot_be_computed_is_refused(tmp_path: Path) -> None:
    base = backbone(tmp_path / "base")

    def refused(name: str, *words: str) -> None:
        with pytest.raises(ValueError) as error:
            MultiVectorEncoder.from_pretrained(tmp_path / name)
        assert all(word in str(error.value) for word in (*words, name)), error.value

    saved(tmp_path / "pooled", base, *normalized(PUNCTUATION), HierarchicalTokenPooling())
    refused("pooled", "modules.json", "HierarchicalTokenPooling", "cannot be trained or run here")
    saved(tmp_path / "sentences", base, *normalized(dense(WIDTH, 8)))
    refused("sentences", "modules.json", "Dense", "sentence_embedding")
    saved(tmp_path / "wide", base, dense(WIDTH, 16, **TOKENS), dense(WIDTH, 8, **TOKENS))
    refused("wide", "modules.json", "Dense takes 32", "given 16")
    saved(tmp_path / "unscored", base, *normalized(), **expansion("fixed", True))
    refused("unscored", "sentence_bert_config.json", "query_expansion", "MultiVectorMask")
    saved(tmp_path / "far", base, *normalized(PUNCTUATION), **expansion("min", True, length=99))
    refused("far", "sentence_bert_config.json", "queries get 99 tokens", "takes at most 66")
    folder = saved(tmp_path / "pylate", base, *normalized())
    change_json(folder / "config_sentence_transformers.json", model_type="ColBERT")
    refused("pylate", "PyLate", "MultiVectorEncoder and save it again")


def test_other_kinds_name_this_one(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", backbone(tmp_path / "base"), *normalized(PUNCTUATION))
    for kind in (Embedder, Reranker):
        with pytest.raises(ValueError, match="to be opened as kind multi_vector"):
            kind.from_pretrained(folder)
