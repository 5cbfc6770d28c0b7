"""Distillation: the arithmetic, the batches, and rows that have no teacher's scores."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from collators import EmbedderDistillationCollator, RerankerDistillationCollator
from loaders import ReadOptions, load_rows
from losses import (
    DistillationLoss,
    EmbedderDistillationLoss,
    EmbedderMarginMSELoss,
    MarginMSELoss,
)

SIZES = [3, 2, 1]
SCORES = torch.tensor([0.3, -1.2, 2.0, 0.7, 0.1, 1.5])
TEACHER = torch.tensor([[4.0, -3.0, 0.5], [-1.0, 2.0, 99.0], [7.0, 99.0, 99.0]])
MASK = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])


def groups() -> list[tuple[list[float], list[float]]]:
    values = iter(SCORES.tolist())
    return [
        ([next(values) for _ in range(size)], teacher[:size])
        for size, teacher in zip(SIZES, TEACHER.tolist(), strict=True)
    ]


def softmax(values: list[float]) -> list[float]:
    total = sum(map(math.exp, values))
    return [math.exp(value) / total for value in values]


def test_distillation_is_the_naive_sum() -> None:
    total = 0.0
    for student, teacher in groups():
        wanted = softmax([value / 3 for value in teacher])
        found = softmax([value / 0.5 for value in student])
        total += sum(t * (math.log(t) - math.log(s)) for t, s in zip(wanted, found, strict=True))
    loss = DistillationLoss(0.5, 3.0)(SCORES, TEACHER, MASK)
    assert loss.item() == pytest.approx(total / 3, abs=1e-6)


def test_margin_mse_is_the_naive_sum() -> None:
    total = 0.0
    for student, teacher in groups():
        errors = [
            (2 * (student[0] - student[at]) - (teacher[0] - teacher[at])) ** 2
            for at in range(1, len(student))
        ]
        total += sum(errors) / max(1, len(errors))
    loss = MarginMSELoss(2.0)(SCORES, TEACHER, MASK)
    assert loss.item() == pytest.approx(total / 3, abs=1e-5)


@pytest.mark.parametrize("loss", [DistillationLoss(), MarginMSELoss()])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(loss: Any) -> None:
    """Also shifted by a constant: only differences within a group count."""
    scores = (TEACHER[MASK] + 3).requires_grad_()
    value = loss(scores, TEACHER, MASK)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert scores.grad is not None
    assert scores.grad.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("of_embeddings", "of_scores"),
    [
        (EmbedderDistillationLoss(0.1, 2.0), DistillationLoss(0.1, 2.0)),
        (EmbedderMarginMSELoss(5.0), MarginMSELoss(5.0)),
        (EmbedderDistillationLoss(0.1, 2.0, similarity="dot"), DistillationLoss(0.1, 2.0)),
        (EmbedderMarginMSELoss(5.0, similarity="dot"), MarginMSELoss(5.0)),
    ],
)
def test_of_embeddings_it_is_that_of_their_similarities(of_embeddings: Any, of_scores: Any) -> None:
    random = torch.Generator().manual_seed(0)
    queries, documents = torch.randn(2, 6, 8, generator=random)
    scores: Tensor = F.cosine_similarity(queries, documents, dim=-1)
    if of_embeddings.similarity == "dot":
        scores = torch.stack([q @ d for q, d in zip(queries, documents, strict=True)])
    found = of_embeddings(queries, documents, TEACHER, MASK)
    torch.testing.assert_close(found, of_scores(scores, TEACHER, MASK))


ROW: dict[str, Any] = {
    "query": "a cat",
    "pos": ["the cat sat", "a cat slept"],
    "neg": ["a dog", "how to read", "the mat"],
    "pos_scores": [5.0, 4.0],
    "neg_scores": [-1.0, -2.0, -3.0],
    "prompt": None,
    "graded": False,
    "row": 0,
    "epoch": 0,
}
JUDGED = dict(
    zip([*ROW["pos"], *ROW["neg"]], [*ROW["pos_scores"], *ROW["neg_scores"]], strict=True)
)


def test_batches_of_the_embedder(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    collate = EmbedderDistillationCollator(tiny_tokenizer, 16, 16, train_group_size=4)
    batch = collate([ROW, {**ROW, "row": 1, "query": "a dog"}])
    assert batch["mask"].tolist() == [[True] * 4] * 2
    assert batch["queries"].tolist() == [batch["queries"][0]] * 4 + [batch["queries"][4]] * 4
    words = tiny_tokenizer.batch_decode(batch["texts"]["input_ids"], skip_special_tokens=True)
    assert len(set(words)) == len(words)  # each text once
    documents = [words[at] for at in batch["documents"]]
    assert [JUDGED[text] for text in documents] == batch["relevances"].flatten().tolist()
    assert documents[0] in ROW["pos"]
    assert documents[4] in ROW["pos"]
    assert words[batch["queries"][0]] == "a cat"
    assert words[batch["queries"][4]] == "a dog"


def test_batches_of_the_reranker(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    collate = RerankerDistillationCollator(tiny_tokenizer, 32, train_group_size=3)
    batch = collate([ROW])
    pairs = tiny_tokenizer.batch_decode(batch["texts"]["input_ids"], skip_special_tokens=True)
    found = [JUDGED[pair.removeprefix("a cat ")] for pair in pairs]
    assert [found] == batch["relevances"].tolist()
    assert found[0] in ROW["pos_scores"]
    again = [collate([{**ROW, "epoch": epoch}])["relevances"].tolist() for epoch in range(8)]
    assert len({str(drawn) for drawn in again}) > 1  # drawn anew
    assert collate([ROW])["relevances"].tolist() == [found]  # and the same again


@pytest.mark.parametrize(
    ("row", "missing"),
    [
        ({"query": "q", "pos": ["p"], "neg": ["n"]}, "pos_scores"),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1]}, "neg_scores"),
        ({"query": "q", "pos_doc": "p"}, "pos_scores"),
    ],
)
def test_rows_without_a_teacher_are_told(row: dict[str, Any], missing: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f'"{missing}" is missing.*score_with_teacher.py'):
        load_rows(str(tmp_path / "rows.jsonl"), "candidate_group", ReadOptions(needs_scores=True))


def test_scored_pairs_are_a_teachers_judgements(tmp_path: Path) -> None:
    lines = [{"query": "q", "doc": f"d{at}", "rel": at / 4} for at in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    options = ReadOptions(needs_scores=True)
    (group,) = load_rows(str(tmp_path / "rows.jsonl"), "candidate_group", options)
    assert (group["pos_scores"], group["neg_scores"]) == ([0.5, 0.75], [0.0, 0.25])
