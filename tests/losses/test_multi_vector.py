"""MaxSim and its losses against naive loops, in value and gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

import common.similarity
from common.similarity import all_pairs, pairwise, token_vectors, widen
from losses import (
    MultiVectorContrastiveLoss,
    MultiVectorDistillationLoss,
    MultiVectorMarginMSELoss,
)
from losses.distillation import DistillationLoss, MarginMSELoss

QUERIES, DOCUMENTS = [3, 1, 4], [5, 2, 6, 4, 3]  # tokens of each


def texts(lengths: list[int], seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    made = [F.normalize(torch.randn(n, 4, generator=draw), dim=1) for n in lengths]
    return [one.requires_grad_() for one in made]


def padded(own: list[Tensor], is_query: bool, width: int = 8) -> Tensor:
    """As the model gives them: what stands in padding is of no account."""
    rows = torch.stack([F.pad(one, (0, 0, 0, width - len(one)), value=0.7) for one in own])
    scored = torch.stack([torch.arange(width) < len(one) for one in own])
    return token_vectors(rows, scored, torch.full((len(own),), is_query))


def naive(query: Tensor, document: Tensor, similarity: str) -> Tensor:
    best = torch.stack([torch.stack([t @ d for d in document]).max() for t in query])
    return best.mean() if similarity == "meanmaxsim" else best.sum()


def naive_matrix(queries: list[Tensor], documents: list[Tensor], similarity: str) -> Tensor:
    rows = [[naive(q, d, similarity) for d in documents] for q in queries]
    return torch.stack([torch.stack(row) for row in rows])


def gradients(value: Tensor, own: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(value, own))


@pytest.mark.parametrize("similarity", ["maxsim", "meanmaxsim"])
@pytest.mark.parametrize("at_once", [1, 2**24])
def test_maxsim_is_the_naive_loop(
    similarity: Any, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common.similarity, "SIMILARITIES_AT_ONCE", at_once)
    queries, documents = texts(QUERIES, 1), texts(DOCUMENTS, 2)
    wanted = naive_matrix(queries, documents, similarity)
    weights = torch.linspace(-1, 1, wanted.numel()).view_as(wanted)
    with torch.autocast("cpu", torch.bfloat16):  # which does not reach it
        found = all_pairs(padded(queries, True), padded(documents, False), similarity)
        wide = widen(padded(queries, True), 11), widen(padded(documents, False), 13)
        assert_close(all_pairs(*wide, similarity), found)
        pairs = pairwise(padded(queries, True), padded(documents[:3], False), similarity)
    assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    assert_close(pairs, wanted.diagonal(), atol=1e-6, rtol=1e-6)
    own = [*queries, *documents]
    for one, other in zip(
        gradients((weights * found).sum(), own), gradients((weights * wanted).sum(), own),
        strict=True,
    ):  # fmt: skip
        assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
def test_contrastive_is_the_naive_loop(symmetric: bool) -> None:
    queries, documents = texts(QUERIES, 3), texts(DOCUMENTS, 4)
    positives, mask = torch.tensor([4, 0, 2]), torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 1] = True
    loss = MultiVectorContrastiveLoss(temperature=0.5, symmetric=symmetric)
    found = loss(padded(queries, True), padded(documents, False), positives, mask)
    similar = naive_matrix(queries, documents, "maxsim") / 0.5
    wanted = F.cross_entropy(similar.masked_fill(mask, float("-inf")), positives)
    if symmetric:
        turned = similar[:, positives].T  # a row for each query's own document
        wanted = (wanted + F.cross_entropy(turned, torch.arange(3))) / 2
    assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    own = [*queries, *documents]
    for one, other in zip(gradients(found, own), gradients(wanted, own), strict=True):
        assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_margins_and_hardness_go_by_maxsim() -> None:
    queries, documents = texts(QUERIES, 5), texts(DOCUMENTS, 6)
    positives, mask = torch.tensor([0, 1, 2]), torch.zeros(3, 5, dtype=torch.bool)
    similar = naive_matrix(queries, documents, "meanmaxsim").detach()
    given: Any = {"absolute_margin": 0.3, "similarity": "meanmaxsim", "hardness": 2.0}
    loss = MultiVectorContrastiveLoss(temperature=0.1, **given)
    sides = padded(queries, True), padded(documents, False)
    near = similar > similar.diagonal()[:, None] - 0.3
    near[range(3), range(3)] = False
    assert near.any() and not near.all(dim=1).any()
    assert torch.equal(loss.widen_mask(*sides, positives, mask), near)
    harder = (similar / 0.1 + 2 * similar * (1 - torch.eye(3, 5))).masked_fill(near, float("-inf"))
    assert_close(loss(*sides, positives, mask), F.cross_entropy(harder, positives))


def test_a_teachers_scores_are_learned_by_maxsim() -> None:
    queries, documents = texts([3, 3, 1, 1, 1], 7), texts(DOCUMENTS, 8)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    teacher = torch.tensor([[3.0, 1.0, 0.0], [2.0, 0.5, -1.0]])
    sides = padded(queries, True), padded(documents, False)
    scores = naive_matrix(queries, documents, "maxsim").diagonal()
    found = MultiVectorDistillationLoss(temperature=0.5)(*sides, teacher, mask)
    assert_close(found, DistillationLoss(0.5)(scores, teacher, mask))
    found = MultiVectorMarginMSELoss(scale=2.0)(*sides, teacher, mask)
    assert_close(found, MarginMSELoss(2.0)(scores, teacher, mask))
