"""Embedding in chunks: the gradients of embedding at once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from collators import ContrastiveCollator
from collators.texts import model_inputs
from encoders import Embedder, MultiVectorEncoder
from encoders.backbone import Encoder
from losses import ContrastiveLoss, MultiVectorContrastiveLoss
from runs import NO_DROPOUT, TEXTS, TOPICS, assert_same_weights, train, write_format
from tiny import save_backbone
from trainers.distributed.gradient_cache import embed_in_chunks
from trainers.similarity import by_side


def batch(model: Encoder, collator: ContrastiveCollator | None = None) -> dict[str, Any]:
    rows = [
        {
            "query": topic,
            "pos_doc": documents[0],
            "negatives": documents[1:],
            "other_positives": [],
            "prompt": None,
            "row": at,
            "epoch": 0,
        }
        for at, (topic, documents) in enumerate(TOPICS.items())
    ]
    return (collator or ContrastiveCollator(model.tokenizer, 16, 32))(rows)


def gradients(
    model: Encoder,
    inputs: dict[str, Any],
    embeddings: Tensor,
    loss: ContrastiveLoss | None = None,
) -> list[Tensor]:
    model.zero_grad()
    queries, documents = by_side(embeddings, inputs)
    targets = inputs["positives"], inputs["false_negative_mask"]
    (loss or ContrastiveLoss())(queries, documents, *targets).backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_gradients_are_those_of_one_forward(chunk_size: int, tmp_path: Path) -> None:
    model = Embedder.from_pretrained(save_backbone(tmp_path, TEXTS, **NO_DROPOUT)).double().train()
    inputs = batch(model)
    at_once = gradients(model, inputs, model(**inputs["texts"]))
    in_chunks = gradients(model, inputs, embed_in_chunks(model, inputs["texts"], chunk_size))
    assert len(at_once) == len(in_chunks) > 0
    for one, other in zip(at_once, in_chunks, strict=True):
        assert torch.allclose(one, other, atol=1e-7, rtol=0)  # a loss is computed in fp32


@pytest.mark.parametrize("attend", [None, True, False])
def test_vectors_of_tokens_are_those_of_one_forward(attend: bool | None, tmp_path: Path) -> None:
    """Chunks differ in width, and what nothing attends to is there although it is masked."""
    plain = MultiVectorEncoder.from_pretrained(save_backbone(tmp_path / "a", TEXTS, **NO_DROPOUT))
    expansion = {"strategy": "fixed", "attend": attend, "token": None, "length": 12}
    model = MultiVectorEncoder(
        plain.backbone, plain.tokenizer, modules=plain.head, unpad_inputs=False,
        by_side={} if attend is None else {"query_expansion": expansion},
    ).double().train()  # fmt: skip
    collator = ContrastiveCollator(model.tokenizer, 12, 32, query_tokens=model.query_tokens)
    inputs = batch(model, collator)
    loss = MultiVectorContrastiveLoss()
    at_once = gradients(model, inputs, model(**inputs["texts"]), loss)
    in_chunks = gradients(model, inputs, embed_in_chunks(model, inputs["texts"], 3), loss)
    assert len(at_once) == len(in_chunks) > 0
    for one, other in zip(at_once, in_chunks, strict=True):
        assert torch.allclose(one, other, atol=2e-6, rtol=0)


def test_dropout_is_drawn_again_as_it_was(tmp_path: Path) -> None:
    """Against the same chunks, with all that they need held in memory."""
    model = Embedder.from_pretrained(save_backbone(tmp_path, TEXTS)).train()
    texts = (inputs := batch(model))["texts"]
    torch.manual_seed(3)
    held = [
        model(**{name: values[at : at + 4] for name, values in texts.items()})
        for at in range(0, len(texts["input_ids"]), 4)
    ]
    next_of_held = torch.rand(1)
    expected = gradients(model, inputs, torch.cat(held))
    torch.manual_seed(3)
    embeddings = embed_in_chunks(model, texts, 4)
    assert torch.equal(embeddings, torch.cat(held))
    assert torch.equal(torch.rand(1), next_of_held)
    state = torch.get_rng_state()
    found = gradients(model, inputs, embeddings)
    assert torch.equal(state, torch.get_rng_state())  # the backward draws nothing of its own
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, atol=1e-6, rtol=0)


def test_dropout_is_drawn_again_over_more_tokens_than_inference_takes_at_once(
    tmp_path: Path,
) -> None:
    """The first pass, without gradients, has to cut a chunk into the rows that the second has."""
    wide = {"hidden_size": 1024, "intermediate_size": 8, "num_hidden_layers": 1}
    model = Embedder.from_pretrained(save_backbone(tmp_path, TEXTS, **wide)).train()
    mask = torch.ones(20, 100, dtype=torch.long)
    texts = model_inputs({"input_ids": torch.randint(5, 40, (20, 100)), "attention_mask": mask})
    torch.manual_seed(3)
    held = model(**texts)
    torch.manual_seed(3)
    assert torch.equal(embed_in_chunks(model, texts, 20), held)


def test_a_run_in_chunks_is_the_run_without(tmp_path: Path) -> None:
    model = save_backbone(tmp_path / "model", TEXTS, **NO_DROPOUT)
    common: dict[str, Any] = {
        "objective": "contrastive",
        "model_name_or_path": model,
        "train_file": write_format("groups", tmp_path),
        "train_group_size": 3,
        "gradient_accumulation_steps": 2,
        "max_steps": 3,
        "optim": "sgd",
    }
    plain = train(tmp_path / "plain", **common)
    chunked = train(tmp_path / "chunked", **common, gradient_cache_chunk_size=3)
    assert_same_weights(plain, chunked, tolerance=1e-6)
