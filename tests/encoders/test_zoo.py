"""Models as people have them give what sentence-transformers gives: opened, saved and trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch import Tensor, nn
from transformers import BigBirdConfig

import zoo
from encoders import Embedder, Reranker
from zoo import CHAINS, ENCODED, FAMILIES, PAIRS, by_cross_encoder, by_sentence_transformers

STEPS, RATE = 3, 0.01


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return zoo.backbone(tmp_path / "base")


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    """The same, in the scale of what is there."""
    assert found.shape == wanted.shape
    scale = max(1.0, float(wanted.abs().max()))
    assert float((found - wanted).abs().max()) <= tolerance * scale


def check_embedder(folder: Path) -> None:
    """Opened, after our saving in both, and after three steps of training in both."""
    theirs = SentenceTransformer(str(folder), device="cpu")
    wanted = torch.tensor(theirs.encode(ENCODED))
    model = Embedder.from_pretrained(folder)
    close(model.encode(ENCODED), wanted)
    close(Embedder.from_pretrained(folder, unpad_inputs=False).encode(ENCODED), wanted)
    saved = folder.with_name("saved")
    model.save_pretrained(saved)
    close(by_sentence_transformers(saved, ENCODED), wanted)
    close(Embedder.from_pretrained(saved).encode(ENCODED), wanted)
    train_theirs(theirs)
    train(
        model, model.tokenizer(ENCODED[:6], padding=True, return_tensors="pt"), lambda b: model(**b)
    )
    assert (model.encode(ENCODED) - wanted).abs().max() > 1e-3  # it has learnt something
    close(model.encode(ENCODED), torch.tensor(theirs.encode(ENCODED)), 1e-4)
    model.save_pretrained(saved)
    close(by_sentence_transformers(saved, ENCODED), model.encode(ENCODED))


def train(model: nn.Module, batch: Any, forward: Callable[[Any], Tensor]) -> None:
    """Three steps of plain gradient descent; without dropout, so that two libraries can agree."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    target = torch.linspace(-1, 1, 6)
    for _ in range(STEPS):
        optimizer.zero_grad()
        found = forward(dict(batch))
        scores = found if found.dim() == 1 else found.sum(dim=1) + found[:, 0]
        (scores[: len(target)] - target[: len(scores)]).tanh().square().mean().backward()
        optimizer.step()
    model.eval()


def train_theirs(model: SentenceTransformer) -> None:
    for name, weight in model.named_parameters():
        weight.requires_grad_("pooler" not in name)
    cut = model.truncate_dim

    def forward(batch: Any) -> Tensor:
        embeddings: Tensor = model(batch)["sentence_embedding"]
        return embeddings[:, :cut]

    train(model, model.tokenizer(ENCODED[:6], padding=True, return_tensors="pt"), forward)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_backbone(family: str, tmp_path: Path) -> None:
    folder = zoo.backbone(tmp_path / "model", family)
    wanted = by_sentence_transformers(folder, ENCODED)
    close(Embedder.from_pretrained(folder, normalize=False).encode(ENCODED), wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_embedder_of_each_family(family: str, tmp_path: Path) -> None:
    base = zoo.backbone(tmp_path / "base", family)
    pooling = "lasttoken" if FAMILIES[family][3] == "words" else "mean"
    check_embedder(zoo.embedder(tmp_path / "model", base, zoo.dense(32, 16), pooling=pooling))


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_of_modules(chain: str, tmp_path: Path, bert: Path) -> None:
    check_embedder(CHAINS[chain](tmp_path / "model", bert))


def test_sparse_attention_does_not_depend_on_what_came_before(tmp_path: Path) -> None:
    """transformers gives it up at the first batch of short texts, and not before."""
    sparse = {"attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1}
    FAMILIES["big bird"] = (BigBirdConfig, {**zoo.SIZES, **sparse}, 0, "bert")
    folder = zoo.backbone(tmp_path / "model", "big bird")
    model = Embedder.from_pretrained(folder, unpad_inputs=False)
    FAMILIES.pop("big bird")
    before, _, after = (model.encode([text]) for text in (zoo.LONG, "a", zoo.LONG))
    assert torch.equal(before, after)


EMBEDDERS = ("t5", "mt5", "umt5", "gemma3 bidirectional", "embeddinggemma 2")
RERANKERS = [name for name in FAMILIES if name not in EMBEDDERS]


@pytest.mark.parametrize("family", RERANKERS)
def test_a_reranker_of_each_family(family: str, tmp_path: Path) -> None:
    folder = zoo.backbone(tmp_path / "model", family, labels=1)
    theirs = CrossEncoder(str(folder), device="cpu")
    alone = torch.cat([torch.tensor(theirs.predict([pair])) for pair in PAIRS])
    model = Reranker.from_pretrained(folder)
    close(model.score(PAIRS), alone)
    model.save_pretrained(tmp_path / "saved")
    close(by_cross_encoder(tmp_path / "saved", PAIRS), alone)
    close(Reranker.from_pretrained(tmp_path / "saved").score(PAIRS), alone)

    for own in (theirs, model):
        tokens = model.tokenizer(*zip(*PAIRS, strict=True), truncation=True, padding=True,
                                 return_tensors="pt")  # fmt: skip
        train(own, tokens, model_forward(own))
    assert (model.score(PAIRS) - alone).abs().max() > 1e-4
    close(model.score(PAIRS), torch.tensor(theirs.predict(PAIRS)), 1e-4)
    model.save_pretrained(tmp_path / "saved")
    close(by_cross_encoder(tmp_path / "saved", PAIRS), model.score(PAIRS))


@pytest.mark.parametrize("unpad_inputs", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_trains_in_bf16(family: str, unpad_inputs: bool, tmp_path: Path) -> None:
    """Under autocast, which layers between two products may leave in several types."""
    labels = 1 if family in RERANKERS else None
    folder = zoo.backbone(tmp_path / "model", family, labels=labels)
    kind = Reranker if labels else Embedder
    model = kind.from_pretrained(folder, unpad_inputs=unpad_inputs)
    texts = zip(*PAIRS, strict=True) if labels else [ENCODED]
    batch = model.tokenizer(*texts, truncation=True, padding=True, return_tensors="pt")
    gradients = {}
    for bf16 in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            states = model.eval()(**batch).float()
        (states * torch.arange(states.numel()).view_as(states).cos()).sum().backward()
        gradients[bf16] = torch.cat(
            [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        )
        model.zero_grad()
    assert torch.cosine_similarity(gradients[True], gradients[False], dim=0) > 0.98
    with torch.autocast("cpu", torch.bfloat16):  # and with dropout
        model.train()(**batch).float().sum().backward()


def model_forward(model: Any) -> Callable[[Any], Tensor]:
    if isinstance(model, Reranker):
        return lambda batch: model(**batch)
    return lambda batch: model(batch)["scores"].squeeze(-1)
