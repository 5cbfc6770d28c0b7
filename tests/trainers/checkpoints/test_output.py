"""The folder of a run: what is refused, what is deleted, and from where a run goes on."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import runs
import trainers.checkpoints.trainer
from runs import assert_same_weights, losses, main, train, weights, write_format
from trainers.base import BaseTrainer
from trainers.checkpoints.files import put_model_in_place


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A contrastive run of 4 steps with checkpoints at 2 and 4. Do not write to it."""
    folder = tmp_path_factory.mktemp("finished")
    return train(folder / "run", **recipe(tiny_bert, folder), save_strategy="steps", save_steps=2)


def recipe(model: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """``save_strategy`` and the like are the test's own."""
    given = {"objective": "contrastive", "model_name_or_path": model, "max_steps": 4}
    return {**given, "train_file": write_format("pairs", folder), **more}


def copy(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / run.name))


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Train with a mistake; returns the one line that it earns."""
    return partial(runs.refused, capsys)


# Overwriting


def test_overwriting_deletes_a_run_and_nothing_else(
    finished: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    run = copy(finished, tmp_path)
    (run / "my_rows.jsonl").write_text("mine")
    (run / "notes").mkdir()
    (run / "rejected_rows.jsonl").write_text("of the old run")
    train(run, **recipe(tiny_bert, tmp_path, max_steps=1), overwrite=True)
    assert (run / "my_rows.jsonl").read_text() == "mine"
    assert (run / "notes").is_dir()
    assert not list(run.glob("checkpoint-*"))
    assert not (run / "rejected_rows.jsonl").exists()
    state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 1
    log = (run / "finetune.log").read_text(encoding="utf-8")
    assert "kept files not written by a run: my_rows.jsonl, notes" in log


@pytest.mark.parametrize(
    "mistake",
    [
        {"train_file": "typo.jsonl"},
        {"model_name_or_path": "/nowhere"},
        {"query_max_length": 999, "document_max_length": 9},
    ],
)
def test_a_mistake_costs_no_old_run(
    mistake: dict[str, Any], finished: Path, tiny_bert: Path, tmp_path: Path, refused: Refused
) -> None:
    run = copy(finished, tmp_path)
    before = weights(run)
    settings = {**recipe(tiny_bert, tmp_path), **mistake}
    refused(run, **settings, overwrite=True)
    assert weights(run).keys() == before.keys()
    assert (run / "checkpoint-4" / "model.safetensors").is_file()
    assert (run / "train_config.json").is_file()


@pytest.mark.parametrize("part", ["", "checkpoint-2"])
def test_a_run_never_deletes_the_model_it_begins_with(
    part: str, finished: Path, tmp_path: Path, refused: Refused
) -> None:
    run = copy(finished, tmp_path)
    line = refused(run, **recipe(run / part, tmp_path), overwrite=True)
    assert "model_name_or_path:" in line and "lies in output_dir" in line
    assert (run / part / "model.safetensors").is_file()


# Folders that cannot be


def test_a_readme_of_the_users_is_not_written_over(
    tiny_bert: Path, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "README.md").write_text("我的项目")
    line = refused(tmp_path, **recipe(tiny_bert, tmp_path))
    assert "holds a README.md that no run wrote" in line
    assert (tmp_path / "README.md").read_text() == "我的项目"


def test_files_of_the_users_stay(tiny_bert: Path, tmp_path: Path, refused: Refused) -> None:
    """Also one that is named much as weights are; what the model would write over is refused."""
    run = tmp_path / "run"
    run.mkdir()
    mine = run / "model-v1.safetensors"
    mine.write_text("mine")
    (run / "vocab.txt").write_text("mine too")
    settings = recipe(tiny_bert, tmp_path)
    assert "holds a vocab.txt that no run wrote" in refused(run, **settings)
    (run / "vocab.txt").unlink()
    train(run, **settings)
    train(run, **settings, overwrite=True)
    assert mine.read_text() == "mine"


def test_rejected_rows_are_not_read_from_where_they_are_written(
    tiny_bert: Path, tmp_path: Path, refused: Refused
) -> None:
    settings = recipe(tiny_bert, tmp_path)
    with settings["train_file"].open("a", encoding="utf-8") as rows:
        rows.write('{"query": "without a document"}\n')
    run = train(tmp_path / "run", **settings, on_bad_rows="skip")
    rejected = run / "rejected_rows.jsonl"
    rejected.write_text('{"query": "a cat", "pos_doc": "mended"}\n', encoding="utf-8")
    given: dict[str, dict[str, Any]] = {
        "train_file": {"train_file": [str(settings["train_file"]), str(rejected)]},
        "train_files[0].path": {"train_file": [], "train_files": [str(rejected)]},
        "guard_file": {"guard_file": str(rejected), "merge_with_base": "auto"},
        "eval_file": {"eval_file": str(run)},
    }
    given["guard_file"]["eval_file"] = settings["train_file"]
    for key, files in given.items():
        line = refused(run, **settings | files, overwrite=True)
        assert line.startswith(f"error: {key}: {run}")
        assert f"would be overwritten by the run in {run}" in line
    assert "mended" in rejected.read_text(encoding="utf-8")
    moved = rejected.rename(tmp_path / "mended.jsonl")
    train(run, **settings | {"train_file": str(moved), "overwrite": True})


def test_two_runs_do_not_share_a_folder(tiny_bert: Path, tmp_path: Path, refused: Refused) -> None:
    settings, run = recipe(tiny_bert, tmp_path), tmp_path / "run"
    part = run / ".checkpoint-2.part"
    part.mkdir(parents=True)
    with FileLock(run / ".lock"):
        assert f"output_dir: another run is writing into {run}" in refused(run, **settings)
        assert part.is_dir()
    train(run, **settings)
    assert not list(run.glob(".*"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("文件", "is a file; give a folder"),
        ("文件/run", "cannot be written to (Not a directory); give another folder"),
        ("closed/run", "cannot be written to (Permission denied); give another folder"),
    ],
)
def test_folders_that_cannot_be_written_to(
    name: str, expected: str, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.startswith("closed") and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "文件").write_text("")
    (tmp_path / "closed").mkdir(mode=0o500)
    output_dir = tmp_path / name
    settings = recipe(tiny_bert, tmp_path, output_dir=output_dir)
    with pytest.raises(SystemExit):
        main([f"--{key}={value}" for key, value in settings.items()])
    assert capsys.readouterr().err == f"error: output_dir: {output_dir} {expected}\n"


# Going on


def test_a_run_does_not_go_on_as_another(
    finished: Path, tiny_bert: Path, tiny_classifier: Path, tmp_path: Path, refused: Refused
) -> None:
    checkpoint = finished / "checkpoint-2"
    settings = {**recipe(tiny_bert, tmp_path), "resume_from_checkpoint": str(checkpoint)}
    scored = {"objective": "cosent", "train_file": write_format("scored", tmp_path)}
    assert refused(tmp_path / "run", **{**settings, **scored}) == (
        f"error: resume_from_checkpoint: {checkpoint} is of a run with objective contrastive, "
        "this one's is cosent; give objective contrastive, or start a new run from its model: "
        f"--model_name_or_path {checkpoint}"
    )
    alone = copy(checkpoint, tmp_path)  # without the folder that says its objective
    groups = {"objective": "pairwise", "train_file": write_format("groups", tmp_path)}
    groups |= {"model_name_or_path": tiny_classifier, "resume_from_checkpoint": str(alone)}
    line = refused(tmp_path / "run", **{**settings, **groups})
    assert "holds an embedder and objective pairwise trains another kind of model" in line


@pytest.mark.parametrize(("limit", "value"), [("max_steps", 4), ("num_train_epochs", 1)])
def test_a_finished_run_takes_no_further_step(
    limit: str, value: int, finished: Path, tiny_bert: Path, tmp_path: Path, refused: Refused
) -> None:
    run = copy(finished, tmp_path)
    before = (run / "model.safetensors").read_bytes()
    settings = {**recipe(tiny_bert, tmp_path), "max_steps": -1, limit: value}
    line = refused(run, **settings, resume_from_checkpoint=True)
    assert f"{run / 'checkpoint-4'} is the end of the run (step 4, epoch 1.33333), whose" in line
    assert f"raise {limit} above {value}" in line
    assert (run / "model.safetensors").read_bytes() == before
    train(run, **{**settings, limit: value + 2}, resume_from_checkpoint=True)
    assert (run / "model.safetensors").read_bytes() != before


def test_checkpoints_from_which_a_run_cannot_go_on(
    finished: Path, tiny_bert: Path, tmp_path: Path, refused: Refused
) -> None:
    settings = recipe(tiny_bert, tmp_path, max_steps=6)
    models = {"save_only_model": True, "save_strategy": "steps", "save_steps": 2}
    run = train(tmp_path / "run", **{**settings, **models, "max_steps": 2})
    line = refused(run, **settings, resume_from_checkpoint=True)
    assert "holds no optimizer state (save_only_model)" in line
    line = refused(run, **settings, resume_from_checkpoint=str(run / "checkpoint-4"))
    assert f"there is no folder {run / 'checkpoint-4'}; give true for the last complete one" in line


def test_going_on_from_elsewhere_spares_the_run_in_output_dir(
    finished: Path, tiny_bert: Path, tmp_path: Path, refused: Refused
) -> None:
    other = train(tmp_path / "other", **recipe(tiny_bert, tmp_path, max_steps=1))
    settings = recipe(tiny_bert, tmp_path, resume_from_checkpoint=str(finished / "checkpoint-2"))
    assert "already holds a finished run" in refused(other, **settings)


@pytest.mark.parametrize("left", ["no state", "the state of a shorter run"])
def test_a_run_killed_between_its_last_checkpoint_and_its_state_is_finished(
    left: str, finished: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """Its model may be in place by then: it is saved before the last evaluation."""
    run = copy(finished, tmp_path)
    state, weights = run / "trainer_state.json", (run / "model.safetensors").read_bytes()
    whole = json.loads(state.read_text(encoding="utf-8"))
    if left == "no state":
        state.unlink()
    else:
        state.write_text(json.dumps(whole | {"global_step": 2}), encoding="utf-8")
    train(run, **recipe(tiny_bert, tmp_path), resume_from_checkpoint=True)
    assert json.loads(state.read_text(encoding="utf-8"))["global_step"] == whole["global_step"]
    assert (run / "model.safetensors").read_bytes() == weights


def test_a_run_killed_in_the_evaluation_after_training_is_evaluated(
    tiny_bert: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model and its state are saved by then."""
    settings = recipe(tiny_bert, tmp_path, eval_file=write_format("pairs", tmp_path))
    settings |= {"save_strategy": "steps", "save_steps": 4}
    whole, run = train(tmp_path / "whole", **settings), tmp_path / "run"

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BaseTrainer, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            train(run, **settings)
    assert losses(run, "train_loss") and not losses(run, "eval_loss")
    train(run, **settings, resume_from_checkpoint=True)
    for name in ("eval_loss", "eval_ndcg@10"):
        assert losses(run, name) == losses(whole, name) != []
    assert_same_weights(run, whole)
    assert "is the end of the run" in refused(run, **settings, resume_from_checkpoint=True)


class Saves:
    """Puts final models in place, but one of them finds the disk full."""

    def __init__(self, failing: int) -> None:
        self.failing, self.count = failing, 0

    def __call__(self, output_dir: Path) -> None:
        self.count += 1
        if self.count == self.failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put_model_in_place(output_dir)


def test_a_run_that_fails_at_its_last_save_is_finished(
    tiny_bert: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last evaluation has saved the model before, but unmerged."""
    settings = recipe(tiny_bert, tmp_path, eval_file=write_format("pairs", tmp_path))
    settings |= {"save_strategy": "steps", "save_steps": 4, "merge_with_base": 0.25}
    settings |= {"eval_strategy": "steps", "eval_steps": 2}
    whole, run, saves = train(tmp_path / "whole", **settings), tmp_path / "run", Saves(2)
    with monkeypatch.context() as patch:
        patch.setattr(trainers.checkpoints.trainer, "put_model_in_place", saves)
        assert "the model could not be saved" in refused(run, **settings)
    assert saves.count == 2
    train(run, **settings, resume_from_checkpoint=True)
    assert_same_weights(run, whole)
    assert "is the end of the run" in refused(run, **settings, resume_from_checkpoint=True)


def test_a_model_of_the_same_step_by_another_way_does_not_end_a_run(
    finished: Path, tiny_bert: Path, tmp_path: Path, refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = copy(finished, tmp_path)
    settings = recipe(tiny_bert, tmp_path, loss_args={"temperature": 0.5})
    settings |= {"save_strategy": "steps", "save_steps": 2}
    back = settings | {"resume_from_checkpoint": str(run / "checkpoint-2")}
    with monkeypatch.context() as patch:
        patch.setattr(trainers.checkpoints.trainer, "put_model_in_place", Saves(1))
        assert "the model could not be saved" in refused(run, **back)
    assert_same_weights(run, finished)
    train(run, **settings, resume_from_checkpoint=True)
    assert_same_weights(run, run / "checkpoint-4")


def test_going_back_sets_the_later_checkpoints_aside(
    finished: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """Or the next ``resume_from_checkpoint true`` would go on from those of the way given up."""
    run = copy(finished, tmp_path)
    settings = recipe(tiny_bert, tmp_path, save_strategy="steps", save_steps=1)
    damaged = run / "checkpoint-2" / "optimizer.pt"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"")
    with pytest.raises(SystemExit):  # refused: nothing is moved
        train(run, **settings, resume_from_checkpoint=str(run / "checkpoint-2"))
    damaged.write_bytes(whole)
    assert {path.name for path in run.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    back = settings | {"resume_from_checkpoint": str(run / "checkpoint-2"), "max_steps": 3}
    train(run, **back)
    assert {path.name for path in run.glob("checkpoint-*")} == {
        "checkpoint-2", "checkpoint-3", "checkpoint-4.aside-1",
    }  # fmt: skip
    train(run, **settings, resume_from_checkpoint=True)
    log = (run / "finetune.log").read_text(encoding="utf-8")
    assert "later checkpoints are set aside: checkpoint-4.aside-1" in log
    assert f"resuming from {run / 'checkpoint-3'}\n" in log
    train(run, **back)
    assert {path.name for path in run.glob("*aside*")} == {
        "checkpoint-3.aside-1", "checkpoint-4.aside-1", "checkpoint-4.aside-2",
    }  # fmt: skip
