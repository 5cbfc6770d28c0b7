"""A learning rate of their own for weights that the base does not have."""

from pathlib import Path
from typing import Any

import pytest
import torch

from runs import refused, train, weights, write_format
from scripts import evaluate

RATES = {"none": 0.0, "as the rest": None, "five times": 0.25}


@pytest.mark.parametrize(
    ("objective", "rows", "settings", "optimizer"),
    [
        ("listwise", "groups", {}, "adamw_torch"),
        ("contrastive", "pairs", {"projection_dim": 8}, "sgd"),
        ("listwise", "groups", {"lora_r": 2}, "sgd"),
    ],
)
def test_only_new_weights_take_longer_steps(
    objective: str,
    rows: str,
    settings: dict[str, Any],
    optimizer: str,
    tiny_bert: Path,
    tmp_path: Path,
) -> None:
    runs = {
        name: weights(
            train(
                tmp_path / name,
                objective=objective,
                model_name_or_path=tiny_bert,
                train_file=write_format(rows, tmp_path),
                learning_rate=0.05,
                head_learning_rate=rate,
                weight_decay=0.0,
                max_steps=1,
                warmup_steps=0,
                optim=optimizer,
                max_grad_norm=0.0,
                save_strategy="no",
                **settings,
            )
        )
        for name, rate in RATES.items()
    }
    none, same, longer = runs.values()
    heads = {name for name in same if "classifier" in name or "linear" in name}
    assert heads
    for name, weight in same.items():
        moved, further = weight - none[name], longer[name] - none[name]
        if name in heads:
            assert moved.abs().sum() > 0
            torch.testing.assert_close(further, 5 * moved, rtol=1e-3, atol=1e-6)
        else:
            assert moved.abs().max() == further.abs().max() == 0


def test_its_checkpoints_are_measured_and_resumed_alike(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint has no new weights: they are trained by now."""
    groups = write_format("groups", tmp_path)
    run = train(
        tmp_path / "run",
        objective="listwise",
        model_name_or_path=tiny_bert,
        train_file=groups,
        head_learning_rate=0.01,
        max_steps=1,
        save_strategy="steps",
        save_steps=1,
    )
    settings: dict[str, Any] = {
        "objective": "listwise",
        "model_name_or_path": tiny_bert,
        "train_file": groups,
        "max_steps": 2,
        "resume_from_checkpoint": str(run / "checkpoint-1"),
    }
    line = refused(capsys, tmp_path / "other", **settings)
    assert "was made with head_learning_rate 0.01" in line
    flags = ["--data", str(groups), "--checkpoints", str(run), "--metric", "loss"]
    assert evaluate.main(flags) == 0


def test_a_model_without_new_weights_needs_none(
    tiny_classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train(
            tmp_path / "run",
            objective="listwise",
            model_name_or_path=tiny_classifier,
            train_file=write_format("groups", tmp_path),
            head_learning_rate=0.1,
        )
    assert "head_learning_rate: " in capsys.readouterr().err
