"""Every kind of model is opened, scores pairs and joins prompts by the same calls."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from common.prompts import with_prompt
from common.run_files import BEST_FILE
from common.similarity import for_dot_product
from encoders import Embedder, Reranker
from encoders.kinds import KINDS, detect_kind, displayed_scores, kind_of, open_model, retrieves
from zoo import ENCODED, PAIRS, backbone, change_json, embedder

QUERIES = [query for query, _ in PAIRS]
DOCUMENTS = [document for _, document in PAIRS]
PROMPTS = {"query": "how to ", "document": "the dog "}


def test_a_models_class_and_its_row_name_the_same_kind() -> None:
    for kind, row in KINDS.items():
        assert row.model.kind == kind


def test_folders_open_as_what_they_are(tiny_bert: Path, tiny_classifier: Path) -> None:
    one, other = open_model(tiny_bert, truncate_dim=8), open_model(tiny_classifier, pooling=None)
    assert type(one) is Embedder and type(other) is Reranker
    assert one.dimension == 8
    with pytest.raises(ValueError, match=r"truncate_dim: .* of kind reranker, which has no such"):
        open_model(tiny_classifier, truncate_dim=8)
    assert retrieves(one) and not retrieves(other)
    assert not kind_of(one).reads_pairs and kind_of(other).reads_pairs
    assert type(open_model(tiny_classifier, "embedder")) is Embedder
    with pytest.raises(ValueError, match="no-such-model"):
        open_model("no-such-model")


def test_whatever_opens_a_run_tells_once_that_a_checkpoint_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = backbone(tmp_path / "run")
    (run / BEST_FILE).write_text('{"checkpoint": "checkpoint-2"}')
    for _ in range(2):
        open_model(run)
    told = f"{run}: using its final model, although scripts/serve.py serves its checkpoint-2"
    assert caplog.text.count(told) == 1


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    folder = backbone(tmp_path / "model")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        detect_kind(folder)


def test_a_backbone_in_a_folder_of_its_own_is_an_embedders(tmp_path: Path) -> None:
    (tmp_path / "0_Transformer").mkdir()
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "0_Transformer" / "model.safetensors").touch()
    assert detect_kind(tmp_path) == "embedder"


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_an_embedder_scores_pairs_by_its_similarity(similarity: str, tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), prompts=PROMPTS,
                      similarity_fn_name=similarity)  # fmt: skip
    model = open_model(folder)
    theirs = SentenceTransformer(str(folder), device="cpu")
    wanted = theirs.similarity_pairwise(
        torch.tensor(theirs.encode(QUERIES, prompt=PROMPTS["query"])),
        torch.tensor(theirs.encode(DOCUMENTS, prompt=PROMPTS["document"])),
    )
    found = model.score_pairs(QUERIES, DOCUMENTS)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert retrieves(model) and model.similarity == similarity
    prepared = for_dot_product(model.encode(ENCODED, prompt=""), model.similarity)
    wanted = theirs.similarity(theirs.encode(ENCODED), theirs.encode(ENCODED))
    torch.testing.assert_close(prepared @ prepared.T, wanted, atol=1e-4, rtol=1e-5)
    scores = found.numpy()
    assert displayed_scores(model, scores) is scores


def test_a_reranker_scores_pairs_by_its_logit(tiny_classifier: Path) -> None:
    model = open_model(tiny_classifier)
    theirs = CrossEncoder(str(tiny_classifier), device="cpu")
    logits = theirs.predict(PAIRS, activation_fn=torch.nn.Identity())
    found = model.score_pairs(QUERIES, DOCUMENTS).numpy()
    np.testing.assert_allclose(found, logits, atol=1e-5)
    np.testing.assert_allclose(displayed_scores(model, found), theirs.predict(PAIRS), atol=1e-5)


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_prompts_of_pairs(kind: str, tiny_bert: Path, tiny_classifier: Path) -> None:
    """A query's own prompt wins over those given for all, and these over the model's."""
    folder = tiny_bert if kind == "embedder" else tiny_classifier
    model = open_model(folder, prompts=PROMPTS)
    plain = open_model(folder)

    def expect(found: torch.Tensor, queries: list[str], document: str) -> None:
        documents = [document + text for text in DOCUMENTS]
        wanted = plain.score_pairs(queries, documents)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)

    expect(model.score_pairs(QUERIES, DOCUMENTS), ["how to " + q for q in QUERIES], "the dog ")
    other = {"query": "a cat "}
    expect(
        model.score_pairs(QUERIES, DOCUMENTS, prompts=other), ["a cat " + q for q in QUERIES], ""
    )
    expect(model.score_pairs(QUERIES, DOCUMENTS, prompts={}), QUERIES, "")
    own = ["a dog ", None, "", None, None]
    queries = [
        with_prompt(query, "how to ", mine) for query, mine in zip(QUERIES, own, strict=True)
    ]
    assert queries[0].startswith("a dog ") and queries[2] == QUERIES[2]
    expect(model.score_pairs(QUERIES, DOCUMENTS, query_prompts=own), queries, "the dog ")


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_an_unknown_setting_is_an_error(kind: str, tiny_bert: Path, tiny_classifier: Path) -> None:
    """Read by name from a mapping, it would be ignored in silence."""
    model = open_model(tiny_bert if kind == "embedder" else tiny_classifier)
    settings: dict[str, Any] = {"max_lenght": 8}
    with pytest.raises(TypeError, match=r"score_pairs\(\) has no setting max_lenght"):
        model.score_pairs(QUERIES, DOCUMENTS, **settings)


def test_a_dot_model_of_unit_vectors_is_compared_by_the_cosine(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), similarity_fn_name="dot")
    assert Embedder.from_pretrained(folder, normalize=True).similarity == "cosine"


def test_a_similarity_that_search_does_not_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"))
    change_json(folder / "config_sentence_transformers.json", similarity_fn_name="euclidean")
    assert Embedder.from_pretrained(folder).similarity == "cosine"
    assert "'euclidean'" in caplog.text
