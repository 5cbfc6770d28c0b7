"""Training through the real script: what a run draws, shows, leaves behind, and ends with."""

import json
import shutil
from pathlib import Path

import pytest

from runs import (
    FORMAT_OF,
    assert_same_weights,
    base_recipe,
    losses,
    refused,
    train,
    write_format,
)


def test_the_epoch_decides_what_is_drawn(models: dict[str, Path], tmp_path: Path) -> None:
    settings = {
        **base_recipe("listwise", models, dropout=False),
        "train_file": write_format("groups", tmp_path),
        "train_group_size": 2,
        "per_device_train_batch_size": 12,
        "learning_rate": 0.0,
        "num_train_epochs": 3,
    }
    # The model stands still, so that different losses mean different negatives.
    assert len(set(losses(train(tmp_path / "run", **settings)))) == 3


def test_the_eval_loss_is_the_mean_over_all_rows(models: dict[str, Path], tmp_path: Path) -> None:
    file = write_format("scored", tmp_path)
    settings = {
        **base_recipe("weighted_mse", models, dropout=False),
        "train_file": file,
        "eval_file": file,
        "learning_rate": 0.0,
        "max_steps": 1,
    }
    values = [
        losses(train(tmp_path / f"of-{size}", **settings, per_device_eval_batch_size=size),
               "eval_loss")[0]
        for size in (64, 7)
    ]  # fmt: skip
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_what_a_run_shows_and_leaves(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_format("pairs", tmp_path)
    output = train(
        tmp_path / "run",
        **base_recipe("contrastive", models),
        train_file=file,
        eval_file=file,
        eval_strategy="epoch",
        num_train_epochs=2,
        report_to=["tensorboard"],
        disable_tqdm=False,
        save_strategy="epoch",
    )
    seen = capsys.readouterr()
    log = (output / "finetune.log").read_text(encoding="utf-8").splitlines()
    assert all(line in seen.out for line in log)
    steps = [line for line in log if "in_batch_accuracy" in line and " loss " in line]
    assert len(steps) == 6
    assert "step 6/6" in steps[-1]
    assert any("eval_in_batch_accuracy" in line for line in log)
    assert "loss=" in seen.err
    assert "in_batch_accuracy=" in seen.err
    assert list(output.rglob("events.out.tfevents.*"))
    assert sorted(path.name for path in output.glob("checkpoint-*")) == [
        "checkpoint-3",
        "checkpoint-6",
    ]
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: sentence-similarity" in card
    assert not list(output.rglob("*.bin"))


def test_the_saved_config_is_a_recipe_that_gives_the_same_model(
    models: dict[str, Path], tmp_path: Path
) -> None:
    settings = {**base_recipe("bce", models), "train_file": write_format("groups", tmp_path)}
    first = train(tmp_path / "first", **settings, max_steps=3)
    saved = json.loads((first / "train_config.json").read_text(encoding="utf-8"))
    assert saved["max_steps"] == 3
    assert saved["weight_decay"] == 0.0
    again = train(tmp_path / "again", **{k: v for k, v in saved.items() if k != "output_dir"})
    assert_same_weights(first, again)


def test_several_dataloader_workers_give_the_same_model(
    models: dict[str, Path], tmp_path: Path
) -> None:
    settings = {
        **base_recipe("pairwise", models),
        "train_file": write_format("groups", tmp_path),
        "train_group_size": 3,
        "num_train_epochs": 3,
    }
    workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    alone = train(tmp_path / "alone", **settings)
    whole = train(tmp_path / "whole", **settings, **workers, save_strategy="steps", save_steps=2)
    assert_same_weights(alone, whole)
    start = whole / "checkpoint-4"  # in the second epoch
    resumed = train(tmp_path / "resumed", **settings, **workers, resume_from_checkpoint=str(start))
    assert_same_weights(alone, resumed)


def test_the_best_checkpoint_is_loaded_at_the_end(models: dict[str, Path], tmp_path: Path) -> None:
    file = write_format("pairs", tmp_path)
    output = train(
        tmp_path / "run",
        **base_recipe("contrastive", models),
        train_file=file,
        eval_file=file,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        max_steps=6,
        learning_rate=0.3,  # so high that the last model is not the best
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    best = Path(state["best_model_checkpoint"])
    assert state["best_metric"] == min(losses(output, "eval_loss"))
    assert_same_weights(output, best)


def with_dropout(base: Path, folder: Path, probability: float) -> Path:
    """The model with another dropout of attention in its configuration."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    config["attention_probs_dropout_prob"] = probability
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("objective", ["contrastive", "bce"])
@pytest.mark.parametrize("probability", [0.0, 0.4])
def test_attention_dropout_is_that_of_the_recipe(
    objective: str, probability: float, models: dict[str, Path], tmp_path: Path
) -> None:
    """As if it stood in the model's configuration, which stays."""
    recipe = base_recipe(objective, models) | {"max_steps": 3}
    base = Path(recipe["model_name_or_path"])
    recipe["train_file"] = write_format(FORMAT_OF[objective], tmp_path)
    given = train(tmp_path / "given", **recipe, attention_dropout=probability)
    other = with_dropout(base, tmp_path / "model", probability)
    stands = train(tmp_path / "stands", **recipe | {"model_name_or_path": other})
    assert_same_weights(given, stands)
    plain = train(tmp_path / "plain", **recipe)
    with pytest.raises(AssertionError, match="LayerNorm"):
        assert_same_weights(given, plain)
    saved = json.loads((given / "config.json").read_text())
    assert saved["attention_probs_dropout_prob"] == 0.1


def test_attention_dropout_needs_a_model_that_runs_unpadded(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = base_recipe("contrastive", models) | {"train_file": write_format("pairs", tmp_path)}
    said = refused(capsys, tmp_path / "run", **recipe, unpad_inputs=False, attention_dropout=0.0)
    assert "attention_dropout: bert runs padded" in said
    for wrong in (-0.1, 1.0):
        said = refused(capsys, tmp_path / "run", **recipe, attention_dropout=wrong)
        assert f"attention_dropout: must be in [0, 1), got {wrong:g}" in said
