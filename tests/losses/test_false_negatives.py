"""In-batch negatives: margins, guides, more terms, hardness; naive loops, sentence-transformers."""

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    GISTEmbedLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn

from encoders import Embedder
from losses import ContrastiveLoss, MatryoshkaLoss
from losses.contrastive import GatheredQueries, Guide
from tiny import TEXTS, save_backbone


def vectors(rows: int, seed: int, width: int = 5) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


Q, D = vectors(6, 1), vectors(9, 2)
POSITIVES = [0, 1, 2, 3, 4, 4]
KNOWN = torch.zeros(6, 9, dtype=torch.bool)
KNOWN[0, 1] = KNOWN[2, 7] = True
GUIDE = Guide(
    *(nn.functional.normalize(vectors(n, seed, 3), dim=1) for n, seed in ((6, 3), (9, 4), (6, 3)))
)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


def naive(settings: dict[str, Any], guide: Guide | None) -> float:
    """The loss as its docstring has it, pair by pair."""
    temperature, total, backward = 0.2, 0.0, 0.0
    absolute, relative = settings.get("absolute_margin"), settings.get("relative_margin")
    queries, documents = (Q, D) if guide is None else guide[:2]

    def is_near(i: int, a: Tensor, b: Tensor) -> bool:
        own = cosine(queries[i], documents[POSITIVES[i]])
        limits = [math.inf]
        limits += [] if absolute is None else [own - absolute]
        limits += [] if relative is None else [own - relative * abs(own)]
        return cosine(a, b) > min(limits)

    def asks_the_same(i: int, k: int) -> bool:
        return POSITIVES[i] == POSITIVES[k] or bool(KNOWN[k, POSITIVES[i]])

    for i, own in enumerate(POSITIVES):
        terms = [math.exp(cosine(Q[i], D[own]) / temperature)]
        for j in range(len(D)):
            if j == own or KNOWN[i, j]:
                continue
            if not is_near(i, queries[i], documents[j]):
                similar = cosine(Q[i], D[j])
                terms.append(
                    math.exp(similar / temperature + settings.get("hardness", 0) * similar)
                )
            if settings.get("contrast_documents") and not is_near(i, documents[own], documents[j]):
                terms.append(math.exp(cosine(D[own], D[j]) / temperature))
        others = [k for k in range(len(Q)) if k != i and not asks_the_same(i, k)]
        for k in others:
            if settings.get("contrast_queries") and not is_near(i, queries[i], queries[k]):
                terms.append(math.exp(cosine(Q[i], Q[k]) / temperature))
        total -= math.log(terms[0] / sum(terms))
        other_side = [
            cosine(Q[k], D[own]) / temperature
            for k in others
            if not is_near(i, queries[k], documents[own])
        ]
        first = cosine(Q[i], D[own]) / temperature
        backward -= first - math.log(sum(map(math.exp, [first, *other_side])))
    if settings.get("symmetric"):
        total = (total + backward) / 2
    return total / len(Q)


MARGINS: list[dict[str, Any]] = [
    {},
    {"absolute_margin": 0.0},
    {"absolute_margin": -0.3},
    {"relative_margin": 0.1},
    {"absolute_margin": 0.05, "relative_margin": 0.3},
]
TERMS: list[dict[str, Any]] = [
    {},
    {"contrast_queries": True},
    {"contrast_documents": True, "hardness": 5.0},
    {"contrast_queries": True, "contrast_documents": True, "symmetric": True},
]


@pytest.mark.parametrize("guide", [None, GUIDE], ids=["own", "guided"])
@pytest.mark.parametrize(("margins", "terms"), list(product(MARGINS, TERMS)))
def test_the_loss_is_the_naive_sum(
    margins: dict[str, Any], terms: dict[str, Any], guide: Guide | None
) -> None:
    loss = ContrastiveLoss(0.2, **margins, **terms)
    found = loss(Q, D, torch.tensor(POSITIVES), KNOWN, guide=guide)
    assert found.item() == pytest.approx(naive({**margins, **terms}, guide), rel=1e-5)


def test_margins_change_what_they_should() -> None:
    """So the naive sums above are of different sets of negatives."""
    found = {
        naive({**margins, **terms}, guide)
        for margins, terms, guide in product(MARGINS, TERMS, (None, GUIDE))
    }
    assert len(found) >= 28


def graded(compute: Callable[[list[Tensor]], Tensor], given: list[Tensor]) -> list[Tensor]:
    """The loss and its gradient for each tensor."""
    leaves = [each.clone().requires_grad_() for each in given]
    loss = compute(leaves)
    loss.backward()
    return [loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"contrast_queries": True}, {"directions": ("query_to_doc", "query_to_query")}),
        (
            {"contrast_queries": True, "contrast_documents": True},
            {"directions": ("query_to_doc", "query_to_query", "doc_to_doc")},
        ),
        (
            {"symmetric": True},
            {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
        ),
        ({"hardness": 9.0}, {"hardness_mode": "all_negatives", "hardness_strength": 9.0}),
    ],
)
def test_terms_are_those_of_sentence_transformers(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """Of pairs; with hardness, also of triplets."""
    sides = [vectors(6, seed) for seed in ((1, 2, 3) if "hardness" in ours else (1, 2))]
    model: Any = nn.Identity()
    other = MultipleNegativesRankingLoss(model, scale=20.0, **theirs)
    expected = graded(lambda given: other.compute_loss_from_embeddings(given, Q), sides)
    loss = ContrastiveLoss(0.05, **ours)
    nothing = torch.zeros(6, 6 * (len(sides) - 1), dtype=torch.bool)
    found = graded(
        lambda given: loss(given[0], torch.cat(given[1:]), torch.arange(6), nothing), sides
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["absolute", "relative"])
@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize("contrasts", [True, False])
def test_guided_is_gist_of_sentence_transformers(
    strategy: Any, margin: float, contrasts: bool, tiny_bert: Path, tmp_path: Path
) -> None:
    """With real models: their loss and its gradient for every weight."""
    other = save_backbone(tmp_path / "guide", seed=5)
    student, guide = SentenceTransformer(str(tiny_bert)), SentenceTransformer(str(other))
    queries, documents = list(TEXTS[:5]), list(TEXTS[5:])
    gist = GISTEmbedLoss(student, guide, 0.05, strategy, margin, contrasts, contrasts)
    student.eval()
    features = [student.preprocess(texts) for texts in (queries, documents)]
    expected = gist(features, torch.empty(0))
    expected.backward()

    ours, judge = Embedder.from_pretrained(tiny_bert), Embedder.from_pretrained(other)
    texts = dict(ours.tokenizer([*queries, *documents], padding=True, return_tensors="pt"))
    found = ours(**texts)
    asked, given = judge.encode(queries), judge.encode(documents)
    margins: dict[str, Any] = {f"{strategy}_margin": margin}
    loss = ContrastiveLoss(
        0.05, contrast_queries=contrasts, contrast_documents=contrasts, **margins
    )
    value = loss(
        found[:5],
        found[5:],
        torch.arange(5),
        torch.zeros(5, 5, dtype=torch.bool),
        guide=Guide(asked, given, asked),
    )
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    theirs = {
        name.rpartition("auto_model.")[2].rpartition("0.model.")[2]: weight.grad
        for name, weight in student.named_parameters()
    }
    compared = 0
    for name, weight in ours.backbone.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, theirs[name], rtol=1e-4, atol=1e-6)
            compared += 1
    assert compared > 20


def test_the_widened_mask_and_its_gradient() -> None:
    """What a margin leaves out gets no gradient, and margins let none through themselves."""
    loss = ContrastiveLoss(0.2, absolute_margin=0.1)
    mask = loss.widen_mask(Q, D, torch.tensor(POSITIVES), KNOWN)
    assert (mask & KNOWN).equal(KNOWN)
    assert not mask[range(6), POSITIVES].any()
    assert mask.sum() > KNOWN.sum()
    positives, plain = torch.tensor(POSITIVES), ContrastiveLoss(0.2)
    found = graded(lambda given: loss(*given, positives, KNOWN), [Q, D])
    torch.testing.assert_close(found, graded(lambda given: plain(*given, positives, mask), [Q, D]))
    guided = loss.widen_mask(Q, D, torch.tensor(POSITIVES), KNOWN, GUIDE)
    assert not guided.equal(mask)
    inside = MatryoshkaLoss(loss, [3, 5])
    expected = sum(loss(Q[:, :m], D[:, :m], torch.tensor(POSITIVES), KNOWN).item() for m in (3, 5))
    assert inside(Q, D, torch.tensor(POSITIVES), KNOWN).item() == pytest.approx(expected, rel=1e-6)


def test_queries_of_other_processes_are_negatives_too() -> None:
    """The same loss when the queries are gathered in another order."""
    loss = ContrastiveLoss(0.2, contrast_queries=True, absolute_margin=0.0)
    positives = torch.tensor(POSITIVES)
    gathered = GatheredQueries.of_batch(Q, positives, KNOWN)
    turned = GatheredQueries(
        gathered.queries.flip(0), 5 - gathered.own, gathered.false_negative_mask.flip(1)
    )
    guide = GUIDE._replace(gathered_queries=GUIDE.gathered_queries.flip(0))
    for own, other in ((None, None), (GUIDE, guide)):
        expected = loss(Q, D, positives, KNOWN, guide=own)
        torch.testing.assert_close(loss(Q, D, positives, KNOWN, turned, other), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"relative_margin": 1.0}, "relative_margin must be below 1"),
        ({"hardness": -1.0}, "hardness must be 0 or above"),
        ({"hardness": math.nan}, "hardness must be 0 or above"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastiveLoss(**settings)
