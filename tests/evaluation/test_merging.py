"""The merge that is chosen: the best by the data, never one that the guard refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders import Embedder
from encoders.backbone import Encoder
from encoders.weights.merging import merge_weights
from evaluation.data.sets import PairData, RetrievalData
from evaluation.measure import Evaluator
from evaluation.merging import STEPS, Shares, Trials
from evaluation.search.distributed import InferenceSettings
from tiny import TEXTS

QUERIES = {f"q{at}": text for at, text in enumerate(TEXTS)}
DOCUMENTS = {f"d{at}": " ".join(text.split()[::-1]) for at, text in enumerate(TEXTS)}


def data(shift: int) -> RetrievalData:
    """Each text's own document is relevant, or another's."""
    count = len(TEXTS)
    qrels = {f"q{at}": {f"d{(at + shift) % count}": 1.0} for at in range(count)}
    return RetrievalData(DOCUMENTS, QUERIES, qrels)


def evaluator(shift: int) -> Evaluator:
    return Evaluator(data(shift), ["ndcg@10"], InferenceSettings())


@pytest.fixture
def models(tiny_bert: Path) -> Iterator[tuple[Embedder, list[dict[str, torch.Tensor]]]]:
    """A model, and the weights of three that differ from it by more and more noise."""
    model = Embedder.from_pretrained(tiny_bert)
    first = {name: weight.clone() for name, weight in model.state_dict().items()}
    made = torch.Generator().manual_seed(0)
    states = [first]
    for noise in (0.05, 0.2):
        states.append(
            {
                name: weight + noise * torch.randn(weight.shape, generator=made)
                if weight.is_floating_point()
                else weight
                for name, weight in first.items()
            }
        )
    yield model, states


def merging(model: Embedder, states: list[dict[str, torch.Tensor]]) -> Any:
    def merge(shares: Shares) -> Encoder:
        model.load_state_dict(merge_weights(states, shares))
        return model

    return merge


def value(merge: Any, shares: Shares, by: Evaluator) -> float:
    found = by(merge(shares))["ndcg@10"]
    assert isinstance(found, float)
    return found


def test_of_two_models_the_best_step_is_found(models: Any) -> None:
    merge = merging(models[0], models[1][:2])
    trials = Trials(merge, 2, evaluator(0))
    best = trials.find()
    expected = {(1 - step, step): value(merge, (1 - step, step), evaluator(0)) for step in STEPS}
    assert {shares: trial.value for shares, trial in trials.tried.items()} == expected
    assert best.value == max(expected.values())
    first = expected[1.0, 0.0]
    for trial in trials.tried.values():
        assert trial.difference.difference == pytest.approx(trial.value - first)
        assert trial.difference.low <= trial.difference.difference <= trial.difference.high


def test_what_is_worse_on_the_guard_is_not_taken(models: Any) -> None:
    """With the judgements of another set, some merge that would win is worse than the base."""
    merge = merging(models[0], [models[1][0], models[1][2]])
    shares = [(1 - step, step) for step in STEPS]
    refused = 0
    for shift in (1, 3):
        for guarded in (0, 2, 5):
            by, guard = evaluator(shift), evaluator(guarded)
            trials = Trials(merge, 2, by, guard)
            best = trials.find()
            lowest = value(merge, (1.0, 0.0), guard)
            allowed = {s: value(merge, s, by) for s in shares if value(merge, s, guard) >= lowest}
            assert best.value == max(allowed.values())
            assert best.shares in allowed
            refused += len(allowed) < len(shares)
    assert refused


def test_a_greedy_soup_grows_while_it_gets_better(models: Any) -> None:
    merge = merging(*models)
    trials = Trials(merge, 3, evaluator(0))
    best = trials.find()
    alone = {at: value(merge, trials.average([at]), evaluator(0)) for at in range(3)}
    ranked = sorted(alone, key=lambda at: -alone[at])
    soup, highest = ranked[:1], alone[ranked[0]]
    for at in ranked[1:]:
        found = value(merge, trials.average([*soup, at]), evaluator(0))
        if found > highest:
            soup, highest = [*soup, at], found
    assert best.shares == trials.average(soup)
    assert best.value == highest


def test_of_judged_pairs_the_correlation_decides(models: Any) -> None:
    merge = merging(models[0], models[1][:2])
    relevances = [at / len(TEXTS) for at in range(len(TEXTS))]
    pairs = PairData(list(TEXTS), list(TEXTS[::-1]), relevances)
    trials = Trials(merge, 2, Evaluator(pairs, ["spearman"], InferenceSettings()))
    best = trials.find()
    assert best.value == max(trial.value for trial in trials.tried.values())
    assert trials.tried[1.0, 0.0].difference.difference == 0
