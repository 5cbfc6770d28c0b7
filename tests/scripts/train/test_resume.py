"""A run that goes on from a checkpoint, by the real script: bit for bit the run without a break."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from collators import ContrastiveCollator
from runs import (
    FORMAT_OF,
    assert_same_weights,
    base_recipe,
    losses,
    six_steps,
    train,
    write_format,
)
from trainers import OBJECTIVES

# Where to go on from is the trainer's affair, not the objective's: all points for one embedder and
# one reranker; for the others the middle of an epoch after the first, which is the hardest.
AT_EVERY_POINT = ("contrastive", "listwise")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_resumed_run_ends_bit_identical(
    objective: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """Dropout, shuffling, sampled negatives, accumulation and a short last batch are on."""
    settings = {
        **base_recipe(objective, models),
        "train_file": write_format(FORMAT_OF[objective], tmp_path),
        "train_group_size": 3,
        "per_device_train_batch_size": 5,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 3,
        "save_strategy": "steps",
        "save_steps": 1,
    }
    if OBJECTIVES[objective].model != "reranker":
        settings |= {"projection_dim": 8, "head_learning_rate": 0.003}
    whole = train(tmp_path / "whole", **settings)
    checkpoints = sorted(whole.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    last = int(checkpoints[-1].name[11:])
    assert last >= 6
    # In the first epoch, at the end of one, and in the last; or in the second.
    points = (1, last // 3, last - 1) if objective in AT_EVERY_POINT else (last // 3 + 1,)
    for step in points:
        resumed = train(
            tmp_path / f"from-{step}",
            **settings,
            resume_from_checkpoint=str(whole / f"checkpoint-{step}"),
        )
        assert_same_weights(whole, resumed)
        assert losses(whole)[step:] == losses(resumed)[-(last - step) :]


def test_resume_true_takes_the_last_checkpoint_of_the_folder(
    models: dict[str, Path], tmp_path: Path
) -> None:
    settings = {
        **base_recipe("contrastive", models),
        "train_file": write_format("pairs", tmp_path),
        "max_steps": 8,
    }
    whole = train(tmp_path / "whole", **settings)
    stopped = tmp_path / "stopped"
    train(stopped, **settings, save_strategy="steps", save_steps=3)
    # As a run that was killed after its second checkpoint leaves it.
    for file in stopped.iterdir():
        if file.is_file() and file.name != "train_config.json":
            file.unlink()
    shutil.rmtree(stopped / "checkpoint-8")
    with pytest.raises(SystemExit):
        train(stopped, **settings)
    train(stopped, **settings, resume_from_checkpoint=True)
    assert_same_weights(whole, stopped)


def test_a_resumed_run_saves_and_logs_as_often_as_its_own_recipe_says(
    models: dict[str, Path], tmp_path: Path
) -> None:
    settings = six_steps(models["embedder"], tmp_path)
    train(tmp_path / "run", **settings, logging_steps=2)
    more = {"max_steps": 9, "save_steps": 1, "resume_from_checkpoint": True}
    run = train(tmp_path / "run", **settings | more)
    saved = sorted(path.name for path in run.glob("checkpoint-*"))
    assert saved == [f"checkpoint-{step}" for step in (2, 4, 6, 7, 8, 9)]
    assert len(losses(run)) == 3 + 3


def test_a_resumed_run_makes_no_batch_of_what_was_done(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipped batches are neither read nor tokenized."""
    settings = {
        **base_recipe("contrastive", models),
        "train_file": write_format("pairs", tmp_path),
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 4,
    }
    whole = train(tmp_path / "whole", **settings)
    made = []
    make = ContrastiveCollator.__call__

    def counted(self: ContrastiveCollator, rows: list[dict[str, Any]]) -> dict[str, Any]:
        made.append(len(rows))
        return make(self, rows)

    monkeypatch.setattr(ContrastiveCollator, "__call__", counted)
    start = str(whole / "checkpoint-4")
    resumed = train(tmp_path / "resumed", **settings, resume_from_checkpoint=start)
    assert len(made) == 2
    assert_same_weights(whole, resumed)
