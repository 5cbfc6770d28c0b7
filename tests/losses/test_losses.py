"""Each loss against a naive loop in plain Python, and its promises."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from common.similarity import Similarity, all_pairs, pairwise
from losses import (
    BCELoss,
    ContrastiveLoss,
    CoSENTLoss,
    DistillationLoss,
    EmbedderDistillationLoss,
    EmbedderMarginMSELoss,
    ListwiseLoss,
    MSELoss,
    PairwiseLoss,
    WeightedMSELoss,
)
from losses.contrastive import in_batch_accuracy

torch.manual_seed(0)


def vectors(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float((a @ b) / (a.norm() * b.norm()))


def dot(a: Tensor, b: Tensor) -> float:
    return float(a.double() @ b.double())


Compare = Callable[[Tensor, Tensor], float]
SIMILARITIES: list[tuple[Similarity, Compare]] = [("cosine", cosine), ("dot", dot)]
by_similarity = pytest.mark.parametrize(("similarity", "compare"), SIMILARITIES)


Q, D = vectors(6, 1), vectors(6, 2)
REL = torch.tensor([1.0, 0.75, 0.0, 0.25, 0.5, 0.5])
W = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])


# Similarities


@pytest.mark.parametrize("loss", [WeightedMSELoss, CoSENTLoss])
def test_the_default_is_the_cosine_and_halves_are_compared_in_fp32(loss: Any) -> None:
    halves = Q.bfloat16(), D.bfloat16()
    found = loss()(*halves, REL, W)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(similarity="cosine")(*map(Tensor.float, halves), REL, W))
    assert not torch.equal(found, loss(similarity="dot")(*halves, REL, W))


@by_similarity
def test_similarities_are_those_of_the_naive_loop(similarity: Similarity, compare: Compare) -> None:
    matrix = torch.tensor([[compare(q, d) for d in D] for q in Q])
    torch.testing.assert_close(all_pairs(Q, D, similarity), matrix)
    torch.testing.assert_close(pairwise(Q, D, similarity), matrix.diag())


# Graded pairs


@by_similarity
def test_weighted_mse_is_the_naive_sum(similarity: Similarity, compare: Compare) -> None:
    total = sum(
        float(w) * (compare(q, d) - float(r)) ** 2 for q, d, r, w in zip(Q, D, REL, W, strict=True)
    )
    expected = total / float(W.sum())
    found = WeightedMSELoss(similarity)(Q, D, REL, W).item()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@by_similarity
def test_cosent_is_the_naive_sum(similarity: Similarity, compare: Compare) -> None:
    total = 1.0
    for i in range(6):
        for j in range(6):
            if REL[i] > REL[j]:
                wrong = (compare(Q[j], D[j]) - compare(Q[i], D[i])) / 0.05
                total += float(W[i] * W[j]) * math.exp(wrong)
    found = CoSENTLoss(similarity=similarity)(Q, D, REL, W).item()
    assert found == pytest.approx(math.log(total), abs=1e-4)


def test_cosent_without_order_is_zero_and_connected() -> None:
    queries = Q.clone().requires_grad_()
    loss = CoSENTLoss()(queries, D, torch.full((6,), 0.5), W)
    loss.backward()
    assert loss.item() == 0.0
    assert queries.grad is not None
    assert torch.equal(queries.grad, torch.zeros_like(Q))


@pytest.mark.parametrize("loss", [WeightedMSELoss(), CoSENTLoss()])
def test_a_row_of_weight_two_is_two_rows(loss: Callable[..., Tensor]) -> None:
    twice = [0, 1, 2, 3, 4, 5, 1]
    weighted = loss(Q, D, REL, torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0, 1.0]))
    repeated = loss(Q[twice], D[twice], REL[twice], torch.ones(7))
    assert weighted.item() == pytest.approx(repeated.item(), abs=1e-5)


# Contrastive


def naive_contrastive(
    queries: Tensor,
    documents: Tensor,
    positives: list[int],
    excluded: Tensor,
    temperature: float,
    compare: Compare = cosine,
) -> float:
    total = 0.0
    for i, own in enumerate(positives):
        scores = {
            j: compare(queries[i], documents[j]) / temperature
            for j in range(len(documents))
            if not excluded[i, j]
        }
        total -= scores[own] - math.log(sum(math.exp(score) for score in scores.values()))
    return total / len(positives)


@by_similarity
def test_contrastive_is_the_naive_sum_with_negatives_and_exclusions(
    similarity: Similarity, compare: Compare
) -> None:
    documents = vectors(9, 3)
    positives = [0, 1, 2, 3, 4, 4]  # two queries share a document
    excluded = torch.zeros(6, 9, dtype=torch.bool)
    excluded[0, 1] = excluded[2, 7] = True
    loss = ContrastiveLoss(temperature=0.1, similarity=similarity)
    found = loss(Q, documents, torch.tensor(positives), excluded).item()
    expected = naive_contrastive(Q, documents, positives, excluded, 0.1, compare)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


@by_similarity
def test_symmetric_contrastive_adds_the_naive_other_direction(
    similarity: Similarity, compare: Compare
) -> None:
    documents = vectors(8, 3)
    positives = [0, 1, 2, 3, 4, 4]
    excluded = torch.zeros(6, 8, dtype=torch.bool)
    excluded[0, 1] = True  # document 1 is relevant to query 0 as well
    loss = ContrastiveLoss(0.1, symmetric=True, similarity=similarity)
    found = loss(Q, documents, torch.tensor(positives), excluded).item()
    backward = 0.0
    for i, own in enumerate(positives):
        scores = {
            k: compare(Q[k], documents[own]) / 0.1
            for k in range(6)
            if k == i or not (excluded[k, own] or positives[k] == own)
        }
        backward -= scores[i] - math.log(sum(math.exp(score) for score in scores.values()))
    forward = naive_contrastive(Q, documents, positives, excluded, 0.1, compare)
    assert found == pytest.approx((forward + backward / 6) / 2, rel=1e-5, abs=1e-5)


def test_an_excluded_document_gets_no_gradient() -> None:
    documents = vectors(3, 5).requires_grad_()
    excluded = torch.tensor([[False, False, True]])
    ContrastiveLoss()(Q[:1], documents, torch.tensor([0]), excluded).backward()
    assert documents.grad is not None
    assert torch.equal(documents.grad[2], torch.zeros(5))
    assert documents.grad[1].abs().sum() > 0


def test_in_batch_accuracy_counts_queries_whose_document_wins() -> None:
    queries = torch.eye(3)
    documents = torch.tensor([[1.0, 0, 0], [1.0, 0, 0.1], [0, 0, 1.0], [0, 9.0, 0]])
    none = torch.zeros(3, 4, dtype=torch.bool)
    positives = torch.tensor([0, 1, 2])
    assert in_batch_accuracy(queries, documents, positives, none).item() == pytest.approx(2 / 3)
    none[1, 3] = True  # the document that beat query 1's own is relevant to it too
    assert in_batch_accuracy(queries, documents, positives, none).item() == pytest.approx(2 / 3)
    documents[1] = torch.tensor([0.9, 0.1, 0])
    assert in_batch_accuracy(queries, documents, positives, none).item() == pytest.approx(1.0)
    documents[3] = torch.tensor([9.0, 0, 0])  # the cosine of document 0, and a longer vector
    by_dot = in_batch_accuracy(queries, documents, positives, none, "dot")
    assert by_dot.item() == pytest.approx(2 / 3)


# Rerankers

SCORES = torch.tensor([2.0, -1.0, 0.3, 0.0, 4.0, -3.0])


def test_bce_is_the_naive_sum() -> None:
    total = 0.0
    for score, relevance, weight in zip(SCORES, REL, W, strict=True):
        p = 1 / (1 + math.exp(-float(score)))
        log_loss = float(relevance) * math.log(p) + (1 - float(relevance)) * math.log(1 - p)
        total -= float(weight) * log_loss
    assert BCELoss()(SCORES, REL, W).item() == pytest.approx(total / float(W.sum()), abs=1e-6)


def test_mse_is_the_naive_sum() -> None:
    total = sum(
        float(w) * (1 / (1 + math.exp(-float(s))) - float(r)) ** 2
        for s, r, w in zip(SCORES, REL, W, strict=True)
    )
    assert MSELoss()(SCORES, REL, W).item() == pytest.approx(total / float(W.sum()), abs=1e-6)


GROUPS = [[1.0, 0.0, 0.5], [0.0, 1.0], [0.5]]  # the last one carries no order
MASK = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
GRADES = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 9.0], [0.5, 9.0, 9.0]])  # 9: padding


def groups_of(scores: Tensor) -> list[list[float]]:
    values = scores.tolist()
    return [values[0:3], values[3:5], values[5:6]]


@pytest.mark.parametrize("margin", [None, 1.5])
def test_pairwise_is_the_naive_sum(margin: float | None) -> None:
    total = 0.0
    for scores, relevances in zip(groups_of(SCORES), GROUPS, strict=True):
        pairs = []
        for s_i, rel_i in zip(scores, relevances, strict=True):
            for s_j, rel_j in zip(scores, relevances, strict=True):
                if rel_i > rel_j:
                    gap = s_i - s_j
                    cost = math.log1p(math.exp(-gap)) if margin is None else max(0, margin - gap)
                    pairs.append((rel_i - rel_j) * cost)
        total += sum(pairs) / len(pairs) if pairs else 0.0
    loss = PairwiseLoss(margin)(SCORES, GRADES, MASK)
    assert loss.item() == pytest.approx(total / 3, abs=1e-6)


def test_listwise_is_the_naive_sum() -> None:
    total = 0.0
    for scores, relevances in zip(groups_of(SCORES), GROUPS, strict=True):
        if len(set(relevances)) == 1:
            continue
        normaliser = math.log(sum(math.exp(score / 2) for score in scores))
        for score, relevance in zip(scores, relevances, strict=True):
            total -= relevance / sum(relevances) * (score / 2 - normaliser)
    loss = ListwiseLoss(temperature=2.0)(SCORES, GRADES, MASK)
    assert loss.item() == pytest.approx(total / 3, abs=1e-6)


@pytest.mark.parametrize("loss", [PairwiseLoss(), PairwiseLoss(1.0), ListwiseLoss()])
@pytest.mark.parametrize("relevance", [0.0, 0.5, 1.0])
def test_groups_without_signal_give_a_connected_zero(
    loss: Callable[..., Tensor], relevance: float
) -> None:
    scores = SCORES.clone().requires_grad_()
    value = loss(scores, torch.full((3, 3), relevance), MASK)
    value.backward()
    assert value.item() == 0.0
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros(6))


@pytest.mark.parametrize("loss", [PairwiseLoss(), PairwiseLoss(1.0), ListwiseLoss()])
def test_padding_and_the_order_of_candidates_do_not_matter(loss: Callable[..., Tensor]) -> None:
    wide = torch.cat([MASK, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    grades = torch.cat([GRADES, torch.full((3, 4), -7.0)], dim=1)
    order = [1, 2, 0]
    turned = SCORES[[*order, 3, 4, 5]]
    grades_turned = torch.stack([GRADES[0, order], GRADES[1], GRADES[2]])
    value = loss(SCORES, GRADES, MASK).item()
    assert loss(SCORES, grades, wide).item() == pytest.approx(value, abs=1e-6)
    assert loss(turned, grades_turned, MASK).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (ContrastiveLoss, "temperature"),
        (CoSENTLoss, "temperature"),
        (ListwiseLoss, "temperature"),
        (PairwiseLoss, "margin"),
        (DistillationLoss, "temperature"),
        (EmbedderDistillationLoss, "teacher_temperature"),
        (EmbedderMarginMSELoss, "scale"),
    ],
)
def test_impossible_settings_are_refused(loss: Any, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be above 0"):
        loss(**{name: value})
