"""Training on rows that stay in their files, by the real script, is training on copies of them."""

from pathlib import Path
from typing import Any

import pytest

from runs import TEXTS, assert_same_weights, refused, six_steps, train, write_format
from tiny import save_backbone, save_classifier
from trainers.base import BaseTrainer


@pytest.mark.parametrize(
    ("objective", "kind"),
    [("contrastive", "groups"), ("weighted_mse", "scored"), ("pairwise", "groups")],
)
def test_streaming_trains_the_same_model(objective: str, kind: str, tmp_path: Path) -> None:
    save = save_classifier if objective == "pairwise" else save_backbone
    settings: dict[str, Any] = {
        "objective": objective,
        "model_name_or_path": save(tmp_path / "model", TEXTS),
        "train_file": write_format(kind, tmp_path),
        "train_group_size": 3,
        "num_train_epochs": 2,
    }
    copied = train(tmp_path / "copied", **settings)
    workers = 2 if objective == "contrastive" else 0
    settings |= {"streaming": True, "dataloader_num_workers": workers}
    assert_same_weights(copied, train(tmp_path / "in_place", **settings))


def test_streaming_with_several_sources(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "objective": "contrastive",
        "model_name_or_path": save_backbone(tmp_path / "model", TEXTS),
        "train_files": [
            {"path": str(write_format("groups", tmp_path)), "weight": 2},
            {"path": str(write_format("scored", tmp_path)), "objective": "cosent"},
        ],
        "num_train_epochs": 1,
    }
    copied = train(tmp_path / "copied", **settings)
    assert_same_weights(copied, train(tmp_path / "in_place", **settings, streaming=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_row_that_is_edited_ends_the_run_in_one_line(
    workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    rows = write_format("pairs", tmp_path)
    step = BaseTrainer.training_step

    def edited(*args: Any, **kwargs: Any) -> Any:
        rows.write_text(rows.read_text(encoding="utf-8").replace("slept", "sat"), encoding="utf-8")
        return step(*args, **kwargs)

    monkeypatch.setattr(BaseTrainer, "training_step", edited)
    settings = six_steps(save_backbone(tmp_path / "model", TEXTS), tmp_path, max_steps=20)
    more = {"dataloader_num_workers": workers, "streaming": True}
    with pytest.raises(SystemExit):
        train(tmp_path / "run", **settings, **more)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {rows} has changed since the run began")


def test_what_cannot_be_streamed_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(
        capsys,
        tmp_path / "run",
        objective="bce",
        model_name_or_path=save_classifier(tmp_path / "model", TEXTS),
        train_file=write_format("tsv", tmp_path),
        streaming=True,
    )
    assert line.startswith("error: streaming: ") and "rows.tsv is not JSON Lines" in line
