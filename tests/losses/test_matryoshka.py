"""Matryoshka: a loss over prefixes, through the arithmetic, the script and the models it makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from encoders import Embedder
from losses import ContrastiveLoss, CoSENTLoss, MatryoshkaLoss, WeightedMSELoss
from losses.contrastive import GatheredQueries
from runs import TOPICS, losses, train, write_format
from tiny import save_backbone
from trainers import TandemArguments, build_run

TEXTS = [text for topic, documents in TOPICS.items() for text in [topic, *documents]]


def vectors(rows: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 8, generator=random, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("loss", [WeightedMSELoss(), CoSENTLoss()])
def test_it_is_the_weighted_sum_over_prefixes(loss: Any) -> None:
    queries, documents = vectors(6, 0), vectors(6, 1)
    judged = torch.linspace(0, 1, 6), torch.linspace(1, 2, 6)
    found = MatryoshkaLoss(loss, [8, 3, 1], [1.0, 0.5, 2.0])(queries, documents, *judged)
    wanted = loss(queries, documents, *judged)
    wanted = wanted + 0.5 * loss(queries[:, :3], documents[:, :3], *judged)
    wanted = wanted + 2 * loss(queries[:, :1], documents[:, :1], *judged)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("symmetric", [False, True])
def test_contrastive_over_prefixes_with_the_queries_of_other_processes(symmetric: bool) -> None:
    loss = ContrastiveLoss(symmetric=symmetric)
    queries, documents = vectors(3, 0), vectors(5, 1)
    all_queries = torch.cat([vectors(2, 2), queries])
    own = torch.tensor([2, 3, 4])
    others = GatheredQueries(all_queries, own, torch.zeros(3, 5, dtype=torch.bool))
    batch = {
        "positives": torch.tensor([0, 2, 4]),
        "false_negative_mask": torch.zeros(3, 5, dtype=torch.bool),
    }
    found = MatryoshkaLoss(loss, [8, 4])(queries, documents, **batch, gathered_queries=others)
    halves = others._replace(queries=all_queries[:, :4])
    wanted = loss(queries, documents, **batch, gathered_queries=others)
    wanted = wanted + loss(queries[:, :4], documents[:, :4], **batch, gathered_queries=halves)
    torch.testing.assert_close(found, wanted)


def test_a_prefix_alone_sends_no_gradient_beyond_itself() -> None:
    queries, documents = vectors(6, 0), vectors(6, 1)
    judged = torch.linspace(0, 1, 6), torch.ones(6)
    MatryoshkaLoss(WeightedMSELoss(), [2])(queries, documents, *judged).backward()
    assert queries.grad is not None
    assert queries.grad[:, :2].abs().min() > 0
    assert queries.grad[:, 2:].abs().max() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"matryoshka_weights": [1.0]}, "matryoshka_weights: needs matryoshka_dims"),
        ({"matryoshka_dims": []}, "must be different lengths of 1 or more, got \\[\\]"),
        ({"matryoshka_dims": [4, 4]}, "must be different lengths"),
        ({"matryoshka_dims": [4, 0]}, "must be different lengths"),
        ({"matryoshka_dims": [4, 2], "matryoshka_weights": [1.0]}, "must be 2 numbers above 0"),
        ({"matryoshka_dims": [4], "matryoshka_weights": [0.0]}, "must be 1 numbers above 0"),
        ({"objective": "bce", "matryoshka_dims": [4]}, "matryoshka_dims: is for the embedder"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {"objective": "contrastive", "model_name_or_path": "x", "train_file": "y"}
    with pytest.raises(ValueError, match=message):
        build_run(TandemArguments(**(given | {"output_dir": str(tmp_path)} | settings)))


@pytest.mark.parametrize("objective", ["contrastive", "cosent"])
def test_prefixes_of_a_model_trained_so_are_better(objective: str, tmp_path: Path) -> None:
    """After a few steps the loss of a prefix is lower than with the plain objective."""
    base = save_backbone(
        tmp_path / "base", TEXTS, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    rows = write_format("pairs" if objective == "contrastive" else "scored", tmp_path)
    settings: dict[str, Any] = {
        "objective": objective,
        "model_name_or_path": base,
        "train_file": rows,
        "per_device_train_batch_size": 8,
        "learning_rate": 3e-3,
        "max_steps": 60,
    }
    plain = train(tmp_path / "plain", **settings)
    tuned = train(tmp_path / "tuned", **settings, matryoshka_dims=[32, 4])
    assert losses(tuned)[0] > losses(plain)[0]  # two terms
    assert of_prefix(tuned) > of_prefix(plain)


def of_prefix(folder: Path) -> float:
    """How much nearer topics are to their own documents than to others, by 4 dimensions."""
    model = Embedder.from_pretrained(folder, truncate_dim=4)
    queries = model.encode(list(TOPICS))
    own = torch.stack([model.encode(documents).mean(dim=0) for documents in TOPICS.values()])
    scores = queries @ own.T
    return float(scores.diag().mean() - scores.mean())


def test_cut_embeddings_are_those_of_sentence_transformers(tmp_path: Path) -> None:
    Embedder.from_pretrained(save_backbone(tmp_path / "base")).save_pretrained(tmp_path / "saved")
    ours = Embedder.from_pretrained(tmp_path / "saved", truncate_dim=5)
    theirs = SentenceTransformer(str(tmp_path / "saved"), truncate_dim=5, device="cpu")
    found = ours.encode(TEXTS)
    assert found.shape == (len(TEXTS), ours.dimension) == (len(TEXTS), 5)
    torch.testing.assert_close(
        found, torch.tensor(theirs.encode(TEXTS, normalize_embeddings=True)), atol=1e-5, rtol=0
    )
    for wrong in (0, 33):
        with pytest.raises(ValueError, match="truncate_dim: must be from 1 to the model's 32"):
            Embedder.from_pretrained(tmp_path / "saved", truncate_dim=wrong)


def test_more_dimensions_than_there_are(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        train(
            tmp_path / "run",
            objective="contrastive",
            model_name_or_path=save_backbone(tmp_path / "base", TEXTS),
            train_file=write_format("pairs", tmp_path),
            matryoshka_dims=[64, 32],
        )
    assert "matryoshka_dims: 64 is more than the 32 dimensions" in capsys.readouterr().err
