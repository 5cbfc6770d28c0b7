"""An evaluation costs no run: figures without a value, failures, and what is saved before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from encoders import Embedder
from evaluation.measure import EvaluatedRun, Evaluator
from evaluation.metrics.pairs import BINARY
from runs import TEXTS, TOPICS, assert_same_weights, losses, refused, train, write_format
from tiny import save_backbone, save_classifier
from trainers.checkpoints.trainer import CheckpointTrainer


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    file = write_format("pairs", tmp_path)
    return {
        "objective": "contrastive",
        "model_name_or_path": save_backbone(tmp_path / "model", TEXTS),
        "train_file": file,
        "eval_file": file,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "max_steps": 4,
    }


@pytest.fixture
def constant(tmp_path: Path) -> dict[str, Any]:
    """A reranker that gives all pairs one score, at first."""
    model = save_classifier(tmp_path / "model", TEXTS)
    classifier = AutoModelForSequenceClassification.from_pretrained(model)
    torch.nn.init.zeros_(classifier.classifier.weight)
    classifier.save_pretrained(model)
    rows = [
        {"query": topic, "doc": text, "label": int(text in documents)}
        for topic, documents in TOPICS.items()
        for text in TEXTS[1::4]
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return {
        "objective": "bce",
        "model_name_or_path": model,
        "train_file": file,
        "eval_file": file,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "max_steps": 4,
        "learning_rate": 1e-60,
    }


def state(run: Path) -> dict[str, Any]:
    """The run's state, which must be strict JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = (run / "trainer_state.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


# Before the first step: the base on few rows and on all, the preflight on few.
BEFORE = 3


def failing(message: str, error: type[Exception], calls: int) -> Callable[..., EvaluatedRun]:
    """A way to measure that fails after so many calls."""
    seen: list[int] = []

    def evaluate(self: Evaluator, model: Any) -> EvaluatedRun:
        seen.append(1)
        if len(seen) > calls:
            raise error(message)
        return EvaluatedRun({}, {name: np.array([0.5, 0.5]) for name in self.metrics}, {})

    return evaluate


def test_figures_without_a_value_are_logged_with_the_reason(
    constant: dict[str, Any], tmp_path: Path
) -> None:
    run = train(tmp_path / "run", **constant)
    assert len(losses(run, "eval_loss")) == 2 and not losses(run, "eval_auc")
    undefined = [entry for entry in state(run)["log_history"] if "undefined" in entry]
    assert [entry["step"] for entry in undefined] == [2, 4]
    for entry in undefined:
        assert set(entry["undefined"]) == {f"eval_{name}" for name in BINARY}
        assert all("all 30 scores are " in reason for reason in entry["undefined"].values())
    log = (run / "finetune.log").read_text(encoding="utf-8")
    assert "step 2: undefined: eval_auc, eval_average_precision, eval_accuracy (all 30 sc" in log
    assert "eval_auc" not in (run / "README.md").read_text(encoding="utf-8")


def test_labels_of_one_class(constant: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"query": topic, "doc": text, "label": 1} for topic, (text, _) in TOPICS.items()]
    file = tmp_path / "ones.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    run = train(tmp_path / "run", **(constant | {"eval_file": file, "learning_rate": 1e-3}))
    (_, reasons) = (entry for entry in state(run)["log_history"] if "undefined" in entry)
    assert reasons["undefined"]["eval_accuracy"] == "all 6 judgements are 1"


def test_the_best_model_is_not_chosen_by_what_has_no_value(
    constant: dict[str, Any], tmp_path: Path
) -> None:
    settings = constant | {
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "auc",
        "early_stopping_patience": 1,
    }
    run = train(tmp_path / "run", **settings)
    found = state(run)
    assert (found["best_metric"], found["best_model_checkpoint"]) == (None, None)
    assert found["global_step"] == 4  # early stopping did not count what it cannot compare
    log = (run / "finetune.log").read_text(encoding="utf-8")
    assert "step 2: without eval_auc (metric_for_best_model) this model is not compared" in log
    assert "load_best_model_at_end: no evaluation gave eval_auc a value" in log
    assert_same_weights(run, run / "checkpoint-4")


def test_a_scheduler_that_waits_for_a_metric_goes_without(
    constant: dict[str, Any], tmp_path: Path
) -> None:
    settings = {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "eval_auc"}
    run = train(tmp_path / "run", **(constant | settings))
    assert state(run)["global_step"] == 4


def test_such_a_scheduler_lets_a_metric_rise(recipe: dict[str, Any], tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "lr_scheduler_kwargs": {"patience": 0},
    }
    more |= {"eval_steps": 1, "eval_metrics": ["ndcg@10"], "metric_for_best_model": "ndcg@10"}
    run = train(tmp_path / "run", **recipe | more)
    first, second, *_ = losses(run, "eval_ndcg@10")
    assert first < second
    assert len({*losses(run, "learning_rate")[:3]}) == 1
    more |= {"lr_scheduler_kwargs": {"patience": 5}, "max_steps": 6}
    rows = recipe["eval_file"]
    rows.write_text(rows.read_text(encoding="utf-8").replace("slept", "sat"), encoding="utf-8")
    run = train(run, **recipe | more, resume_from_checkpoint=True)
    log = (run / "finetune.log").read_text(encoding="utf-8")
    said = "except lr_scheduler_kwargs: the state of optimizer and schedule keeps the old value"
    assert said in log
    assert "the rows of eval_file are not those that the run had" in log


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError, "the evaluation after step 2 failed: no luck; the last"),
        (torch.OutOfMemoryError, "failed: OutOfMemoryError in test_evaluations.py:"),
    ],
)
def test_a_failure_leaves_a_checkpoint_to_go_on_from(
    error: type[Exception],
    said: str,
    recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Even where none was to be saved yet, and the run goes on as if nothing had been."""
    whole = train(tmp_path / "whole", **recipe, eval_metrics=["ndcg@10"])
    settings = recipe | {"save_steps": 4, "eval_metrics": ["ndcg@10"]}
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", failing("no luck", error, BEFORE))
        line = refused(capsys, tmp_path / "run", **settings)
    assert said in line and line.endswith("run/checkpoint-2"), line
    run = train(tmp_path / "run", **settings, resume_from_checkpoint=True)
    assert_same_weights(run, whole)


@pytest.mark.parametrize("strategy", ["no", "steps"])
def test_the_model_is_saved_before_the_last_evaluation(
    strategy: str,
    recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = recipe | {"eval_strategy": strategy, "save_strategy": "no"}
    whole = train(tmp_path / "whole", **settings)
    calls = BEFORE + (strategy == "steps")
    monkeypatch.setattr(Evaluator, "evaluate", failing("no luck", RuntimeError, calls))
    line = refused(capsys, tmp_path / "run", **settings)
    assert "the evaluation after step 4 failed: RuntimeError" in line
    assert_same_weights(tmp_path / "run", whole)
    assert Embedder.from_pretrained(tmp_path / "run").encode(["a"]).isfinite().all()


# Preflight


def test_what_cannot_be_measured_ends_before_the_first_step(
    recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Evaluator, "evaluate", failing("no luck", TypeError, 0))
    line = refused(capsys, tmp_path / "run", **recipe)
    assert "error: the base cannot be measured on eval_file: TypeError in test_evaluations" in line
    assert "step 1/" not in (tmp_path / "run" / "finetune.log").read_text(encoding="utf-8")


def test_the_metrics_are_tried_on_few_rows(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(f'{{"_id": {n}, "text": "text {n}"}}' for n in range(100)))
    sizes = []
    evaluate = Evaluator.evaluate

    def watched(self: Any, model: Any) -> Any:
        sizes.append(len(self.data.documents))
        return evaluate(self, model)

    monkeypatch.setattr(Evaluator, "evaluate", watched)
    train(tmp_path / "run", **recipe, eval_corpus=corpus)
    few = sizes[0]
    assert few <= 6 * 2 + 8 and sizes[:BEFORE] == [few, 112, few] and set(sizes[BEFORE:]) == {112}


WRITE = CheckpointTrainer._write_model


def write_another(self: CheckpointTrainer, folder: Path, state: Any) -> None:
    own = {name: value.clone() for name, value in self.model.state_dict().items()}
    for weight in self.model.parameters():
        torch.nn.init.normal_(weight)
    WRITE(self, folder, state)
    self.model.load_state_dict(own)


def write_part(self: CheckpointTrainer, folder: Path, state: Any) -> None:
    WRITE(self, folder, state)
    (folder / "config.json").unlink()


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
@pytest.mark.parametrize(
    ("written", "said"),
    [
        (write_another, "the saved model is not the model that is trained: their outputs for"),
        (write_part, "the model cannot be opened again once it is saved: "),
    ],
)
def test_a_model_that_is_not_what_was_saved_ends_before_the_first_step(
    kind: str,
    written: Any,
    said: str,
    recipe: dict[str, Any],
    constant: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(CheckpointTrainer, "_write_model", written)
    settings = recipe if kind == "embedder" else constant
    assert said in refused(capsys, tmp_path / "run", **settings)
