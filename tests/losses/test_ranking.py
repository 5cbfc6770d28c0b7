"""LambdaLoss, ListMLE and ADR-MSE: naive loops, sentence-transformers' own, closed forms."""

import math
from typing import Any

import pytest
import torch
from sentence_transformers.cross_encoder import losses as theirs
from torch import Tensor, nn

from losses import ADRMSELoss, LambdaLoss, ListMLELoss, ListwiseLoss

SIZES = [5, 3, 4, 1]  # candidates of the groups
GRADES = [[0.0, 1.0, 2.0, 0.0, 1.0], [1.0, 0.0, 0.5], [0.25, 0.0, 0.0, 1.0], [1.0]]
DISTINCT = [[0.1, 0.9, 2.0, 0.0, 1.0], [1.0, 0.0, 0.5], [0.25, 0.1, 0.0, 1.0], [1.0]]
ALL = [LambdaLoss(), LambdaLoss(k=2), ListMLELoss(), ListMLELoss(False), ADRMSELoss()]


def logits(seed: int = 0) -> list[Tensor]:
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=made) for size in SIZES]


def batch(groups: list[Tensor], grades: list[list[float]]) -> tuple[Tensor, Tensor, Tensor]:
    widest = max(map(len, groups))
    mask = torch.tensor([[at < len(own) for at in range(widest)] for own in groups])
    relevances = torch.full(mask.shape, 7.0)  # padding holds anything
    for row, own in zip(relevances, grades, strict=True):
        row[: len(own)] = torch.tensor(own)
    return torch.cat(groups), relevances, mask


class GivenScores(nn.Module):
    """A CrossEncoder that gives the scores it was made with: only the losses are compared."""

    device = torch.device("cpu")

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores, self.at = scores, 0

    def preprocess(self, pairs: list[Any], **_: Any) -> dict[str, Tensor]:
        self.at += len(pairs)
        return {"rows": torch.arange(self.at - len(pairs), self.at)}

    def forward(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"scores": self.scores[tokens["rows"]]}


def by_sentence_transformers(
    loss: Any, scores: Tensor, grades: list[float], **settings: Any
) -> tuple[float, Tensor]:
    """Their loss of one group, and its gradient."""
    scores = scores.clone().requires_grad_()
    # Its constructor wants a whole CrossEncoder; its forward only what is given here.
    made = loss.__new__(loss)
    nn.Module.__init__(made)
    made.__dict__.update(vars(loss(_NoModel(), **settings)))
    made.model = GivenScores(scores)
    documents = [[f"d{at}" for at in range(len(scores))]]
    found = made([["q"], documents], [torch.tensor(grades)])
    found.backward()
    assert scores.grad is not None
    return found.item(), scores.grad


class _NoModel:
    num_labels = 1


def check_against_theirs(
    ours: nn.Module, loss: Any, grades: list[list[float]], **settings: Any
) -> None:
    for seed in range(5):
        for scores, own in zip(logits(seed), grades, strict=True):
            if len(own) < 2:
                continue  # nothing to rank
            expected, gradient = by_sentence_transformers(loss, scores, own, **settings)
            leaf = scores.clone().requires_grad_()
            found = ours(*batch([leaf], [own]))
            found.backward()
            assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
            torch.testing.assert_close(leaf.grad, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [None, 2])
def test_lambda_loss_is_that_of_sentence_transformers(k: int | None) -> None:
    check_against_theirs(LambdaLoss(k=k), theirs.LambdaLoss, GRADES, k=k)


def test_listmle_is_that_of_sentence_transformers_where_no_grades_are_equal() -> None:
    settings = {"respect_input_order": False}
    check_against_theirs(ListMLELoss(), theirs.PListMLELoss, DISTINCT, **settings)
    check_against_theirs(ListMLELoss(False), theirs.ListMLELoss, DISTINCT, **settings)


def test_adr_mse_is_that_of_sentence_transformers() -> None:
    check_against_theirs(ADRMSELoss(), theirs.ADRMSELoss, GRADES)
    check_against_theirs(ADRMSELoss(temperature=0.5), theirs.ADRMSELoss, GRADES, alpha=2.0)


def naive_lambda(scores: list[float], grades: list[float], k: int | None, mu: float = 10) -> float:
    def discount(place: int) -> float:
        return 1 / math.log2(1 + place)

    count, k = len(scores), k or len(scores)
    ideal = sorted(grades, reverse=True)[:k]
    best = sum((2**grade - 1) * discount(at) for at, grade in enumerate(ideal, start=1))
    place = {at: 1 + sum(scores[o] > scores[at] for o in range(count)) for at in range(count)}
    losses = []
    for i in range(count):
        for j in range(count):
            if grades[i] <= grades[j] or min(place[i], place[j]) > k:
                continue
            apart = abs(place[i] - place[j])
            weight = mu * (discount(apart) - discount(apart + 1))
            weight += abs(discount(place[i]) - discount(place[j]))
            weight *= abs(2 ** grades[i] - 2 ** grades[j]) / best
            losses.append(weight * math.log2(1 + math.exp(scores[j] - scores[i])))
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("k", [None, 1, 3])
def test_lambda_loss_is_the_naive_mean(k: int | None) -> None:
    groups = logits()
    expected = [
        naive_lambda(own.tolist(), grades, k) for own, grades in zip(groups, GRADES, strict=True)
    ]
    found = LambdaLoss(k=k)(*batch(groups, GRADES))
    assert found.item() == pytest.approx(sum(expected) / len(groups), rel=1e-5)


def naive_listmle(scores: list[float], grades: list[float], position_aware: bool) -> float:
    count = len(scores)
    order = sorted(range(count), key=lambda at: -grades[at])
    weights = {at: 2.0 ** (count - place) - 1 for place, at in enumerate(order, start=1)}
    total = 0.0
    for i in range(count):
        equal = [at for at in range(count) if grades[at] == grades[i]]
        weight = sum(weights[at] for at in equal) / len(equal) / (sum(weights.values()) or 1)
        rivals = [scores[j] for j in range(count) if grades[j] < grades[i]]
        likelihood = math.exp(scores[i]) / sum(map(math.exp, [scores[i], *rivals]))
        total -= (weight if position_aware else 1) * math.log(likelihood)
    return total


@pytest.mark.parametrize("position_aware", [True, False])
def test_listmle_is_the_naive_mean(position_aware: bool) -> None:
    groups = logits()
    expected = [
        naive_listmle(own.tolist(), grades, position_aware)
        for own, grades in zip(groups, GRADES, strict=True)
    ]
    found = ListMLELoss(position_aware)(*batch(groups, GRADES))
    assert found.item() == pytest.approx(sum(expected) / len(groups), rel=1e-5)


def test_listmle_with_one_positive_is_listwise() -> None:
    scores = torch.randn(6)
    given = batch([scores], [[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
    assert float(ListMLELoss(False)(*given)) == pytest.approx(
        float(ListwiseLoss()(*given)), rel=1e-6
    )


def test_adr_mse_is_the_naive_mean() -> None:
    groups, total = logits(), 0.0
    for scores, grades in zip(groups, GRADES, strict=True):
        errors = []
        for i, grade in enumerate(grades):
            equal, higher = grades.count(grade), sum(other > grade for other in grades)
            rank = higher + (equal + 1) / 2
            student = 1 + sum(
                1 / (1 + math.exp(float(scores[i] - scores[j])))
                for j in range(len(grades))
                if j != i
            )
            errors.append((rank - student) ** 2 / math.log2(1 + rank))
        total += sum(errors) / len(errors)
    found = ADRMSELoss()(*batch(groups, GRADES))
    assert found.item() == pytest.approx(total / len(groups), rel=1e-5)


@pytest.mark.parametrize("grades", [[3.0, 2.0, 1.0], [2.0, 1.0, 1.0]])
def test_a_student_in_the_teachers_order_has_nothing_to_learn_by_adr_mse(
    grades: list[float],
) -> None:
    scores = torch.tensor(grades)
    assert float(ADRMSELoss(temperature=1e-3)(*batch([scores], [grades]))) == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_padding_and_the_order_of_candidates_do_not_matter(loss: nn.Module) -> None:
    groups = logits()
    leaves = [own.clone().requires_grad_() for own in groups]
    found = loss(*batch(leaves, GRADES))
    found.backward()
    alone = torch.stack([loss(*batch([own], [g])) for own, g in zip(groups, GRADES, strict=True)])
    torch.testing.assert_close(found, alone.mean())
    turned = loss(*batch([own.flip(0) for own in groups], [grades[::-1] for grades in GRADES]))
    torch.testing.assert_close(found, turned)
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("loss", ALL[:4], ids=repr)
def test_groups_of_equal_relevance_give_a_connected_zero(loss: nn.Module) -> None:
    scores = torch.randn(5, requires_grad=True)
    found = loss(scores, torch.ones(2, 3), torch.tensor([[True] * 3, [True, True, False]]))
    assert found.item() == 0
    found.backward()
    assert scores.grad is not None
    assert not scores.grad.any()


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_long_groups_and_extreme_scores_stay_finite(loss: nn.Module) -> None:
    scores = (1e4 * torch.randn(400, generator=torch.Generator().manual_seed(1))).requires_grad_()
    grades = torch.linspace(0, 1, 400)[None]
    found = loss(scores, grades, torch.ones(1, 400, dtype=torch.bool))
    found.backward()
    assert found.isfinite()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LambdaLoss(k=0), "k must be at least 1"),
        (lambda: LambdaLoss(mu=-1), "mu must be at least 0"),
        (lambda: LambdaLoss(temperature=0), "temperature must be above 0"),
        (lambda: ListMLELoss(temperature=math.inf), "temperature must be above 0"),
        (lambda: ListMLELoss(temperature=1e30), "temperature must be above 0, from 1e-06 to 1e"),
        (lambda: ADRMSELoss(temperature=-1), "temperature must be above 0"),
    ],
)
def test_impossible_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
