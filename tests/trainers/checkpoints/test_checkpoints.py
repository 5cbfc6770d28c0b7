"""Checkpoints: whole or not there, known when damaged, never deleted before the next is whole."""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import trainers.checkpoints.trainer
from common.run_files import BEST_FILE, CONFIG_FILE, FUSION_FILE, MANIFEST_FILE, MODEL_PART
from runs import assert_same_weights, losses, refused, six_steps, train, write_format
from trainers.checkpoints.files import (
    checkpoints_in,
    clear_up,
    find_damage,
    part_path,
    put_in_place,
    put_model_in_place,
    rotate,
    write_manifest,
)
from trainers.checkpoints.write_errors import how_to_resume, system_reason

FILES = {
    "model.safetensors": b"\x00" * 5000,
    "1_Pooling/config.json": b"{}",
    "说明.md": "好".encode(),
}


def make_checkpoint(run: Path, step: int, name: str = "checkpoint-{}") -> Path:
    folder = run / name.format(step)
    for file, content in FILES.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    write_manifest(folder)
    return folder


# What is wrong with a checkpoint


def test_a_manifest_holds_sizes_and_checksums_of_all_files(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 2)
    manifest = json.loads((checkpoint / MANIFEST_FILE).read_text(encoding="utf-8"))
    assert manifest.keys() == FILES.keys()
    digest = hashlib.sha256(b"{}").hexdigest()
    assert manifest["1_Pooling/config.json"] == {"bytes": 2, "sha256": digest}
    assert find_damage(checkpoint) is None


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (
        lambda folder: (folder / "1_Pooling/config.json").unlink(),
        "1_Pooling/config.json is missing",
    ),
    "cut": (
        lambda folder: os.truncate(folder / "model.safetensors", 4096),
        "model.safetensors has 4096 bytes instead of 5000",
    ),
    "bit": (
        lambda folder: flip(folder / "model.safetensors", 4999),
        f"model.safetensors is not what was written (its SHA-256 differs from {MANIFEST_FILE}'s)",
    ),
    "no manifest": (
        lambda folder: (folder / MANIFEST_FILE).unlink(),
        f"{MANIFEST_FILE} is missing, which is written last",
    ),
    "manifest cut": (
        lambda folder: os.truncate(folder / MANIFEST_FILE, 100),
        f"{MANIFEST_FILE} is damaged",
    ),
    "manifest of something else": (
        lambda folder: (folder / MANIFEST_FILE).write_text('{"model.safetensors": 5000}'),
        f"{MANIFEST_FILE} is damaged",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(damage: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 2)
    harm, expected = DAMAGES[damage]
    harm(checkpoint)
    assert find_damage(checkpoint) == expected


def test_every_flipped_bit_of_a_manifest_is_seen_or_harmless(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 2)
    before = (checkpoint / MANIFEST_FILE).read_bytes()
    for at in range(len(before)):
        flip(checkpoint / MANIFEST_FILE, at)
        if find_damage(checkpoint) is None:  # white space, or a number written otherwise
            after = json.loads((checkpoint / MANIFEST_FILE).read_text(encoding="utf-8"))
            assert after == json.loads(before)
        (checkpoint / MANIFEST_FILE).write_bytes(before)


# What a killed run leaves


def test_leftovers_are_finished_or_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_checkpoint(tmp_path, 2)
    make_checkpoint(tmp_path, 4, ".checkpoint-{}.part")  # only its name was missing
    torn = make_checkpoint(tmp_path, 6, ".checkpoint-{}.part")
    (torn / MANIFEST_FILE).unlink()
    make_checkpoint(tmp_path, 1, ".checkpoint-{}.old")
    (tmp_path / MODEL_PART).mkdir()
    (tmp_path / ".mine").mkdir()
    clear_up(tmp_path, resume=True)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-4", ".mine"}
    names = ".checkpoint-1.old, .checkpoint-6.part, .model.part"
    assert caplog.messages == [
        f"Removed incomplete files of an interrupted run in {tmp_path}: {names}"
    ]


def test_a_fresh_run_goes_on_from_nothing(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 4, ".checkpoint-{}.part")
    clear_up(tmp_path, resume=False)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_takes_the_place_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_checkpoint(tmp_path, 4)
    (old / MANIFEST_FILE).unlink()
    part = make_checkpoint(tmp_path, 4, ".checkpoint-{}.part")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    # Killed before the part gets its name: the next run gives it.
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            put_in_place(part, old)
    shutil.rmtree(old)
    clear_up(tmp_path, resume=True)
    assert find_damage(old) is None
    # Undisturbed:
    put_in_place(make_checkpoint(tmp_path, 4, ".checkpoint-{}.part"), old)
    assert find_damage(old) is None
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, 2, [2, 4, 6, 10]),
        (4, 2, [2, 4, 6, 10]),
        (3, 10, [4, 6, 10]),
        (2, 2, [2, 6]),
        (1, 2, [2, 6]),
        (1, 6, [6]),
    ],
)
def test_rotation_spares_the_last_written_and_the_best(
    limit: int | None, best: int, left: list[int], tmp_path: Path
) -> None:
    """checkpoint-10 is a later attempt's: 6 was written last."""
    found = {step: make_checkpoint(tmp_path, step) for step in (2, 4, 6, 10)}
    rotate(tmp_path, limit, kept=(found[6], found[best]))
    assert list(checkpoints_in(tmp_path)) == left


def test_half_a_final_model_opens_by_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever file the run is killed, config.json is there only when all of it is."""
    new = {
        "a.json": "new",
        "1_Pooling/config.json": "new",
        CONFIG_FILE: "new",
        "model.safetensors": "",
    }
    replace = Path.replace
    for stop in range(len(new) + 1):
        run = tmp_path / str(stop)
        stale = dict.fromkeys(("model-00001-of-00002.safetensors", FUSION_FILE, BEST_FILE), "")
        for file, text in (new | stale).items():
            (run / file).parent.mkdir(parents=True, exist_ok=True)
            (run / file).write_text("old")
            (run / MODEL_PART / file).parent.mkdir(parents=True, exist_ok=True)
            if file in new:
                (run / MODEL_PART / file).write_text(text)
        (run / MODEL_PART / "2_Normalize").mkdir()
        left = iter(range(stop))

        def one_more(self: Path, target: Path, left: Any = left) -> Path:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", one_more)
        if stop < len(new):
            with pytest.raises(KeyboardInterrupt):
                put_model_in_place(run)
            assert not (run / CONFIG_FILE).exists()
        else:
            put_model_in_place(run)
            files = {
                p.relative_to(run).as_posix(): p.read_text()
                for p in run.rglob("*.*")
                if p.is_file()
            }
            assert files == new
            assert (run / "2_Normalize").is_dir()


# In a run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A run with LoRA adapters of 6 steps, with checkpoints at 2, 4 and 6. Do not write to it."""
    folder = tmp_path_factory.mktemp("finished")
    return train(folder / "run", **six_steps(tiny_bert, folder, lora_r=2))


def stopped(finished: Path, folder: Path) -> Path:
    """The run as it was before its final model was saved."""
    run = Path(shutil.copytree(finished, folder / "run"))
    for path in run.iterdir():
        if path.is_file() and path.name != "train_config.json":
            path.unlink()
    return run


def test_checkpoints_are_whole_and_name_all_their_files(finished: Path) -> None:
    assert list(checkpoints_in(finished)) == [2, 4, 6]
    for checkpoint in checkpoints_in(finished).values():
        assert find_damage(checkpoint) is None
        manifest = json.loads((checkpoint / MANIFEST_FILE).read_text(encoding="utf-8"))
        written = {
            p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()
        }
        assert manifest.keys() == written - {MANIFEST_FILE}
        assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"} <= written
        assert {"trainer_state.json", "tokenizer.json"} <= written
        assert "adapter/adapter_model.safetensors" in written
    assert not list(finished.glob(".*"))


def test_the_newest_whole_checkpoint_is_taken(
    finished: Path, tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = stopped(finished, tmp_path)
    flip(run / "checkpoint-6" / "optimizer.pt", 3000)
    os.truncate(run / "checkpoint-4" / "adapter" / "adapter_model.safetensors", 100)
    settings = six_steps(tiny_bert, tmp_path, lora_r=2)
    # By its path, it is refused:
    by_path = settings | {"resume_from_checkpoint": run / "checkpoint-6"}
    assert refused(capsys, run, **by_path) == (
        f"error: resume_from_checkpoint: {run}/checkpoint-6/optimizer.pt is not what was written "
        f"(its SHA-256 differs from {MANIFEST_FILE}'s); give true for the last complete one in "
        f"{run}, or start a new run from its model: --model_name_or_path {run}/checkpoint-6"
    )
    part = part_path(run / "checkpoint-8")
    part.mkdir()
    train(run, **settings, resume_from_checkpoint=True)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    size = (finished / "checkpoint-4" / "adapter" / "adapter_model.safetensors").stat().st_size
    assert said[:3] == [
        f"Removed incomplete files of an interrupted run in {run}: {part.name}",
        "checkpoint-6 is damaged: optimizer.pt is not what was written (its SHA-256 differs from "
        f"{MANIFEST_FILE}'s); resuming from checkpoint-2",
        "checkpoint-4 is damaged: adapter/adapter_model.safetensors has 100 bytes instead of "
        f"{size}; resuming from checkpoint-2",
    ]
    assert_same_weights(finished, run)
    assert [find_damage(path) for path in checkpoints_in(run).values()] == [None] * 3


def test_no_whole_checkpoint_at_all(
    finished: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stopped(finished, tmp_path)
    for checkpoint in checkpoints_in(run).values():
        (checkpoint / MANIFEST_FILE).unlink()  # as earlier versions wrote them
    settings = six_steps(tiny_bert, tmp_path, lora_r=2, resume_from_checkpoint=True)
    line = refused(capsys, run, **settings)
    assert f"no checkpoint in {run} is complete (checkpoint-6 is damaged: {MANIFEST_FILE}" in line


def test_a_run_killed_before_its_model_was_saved_goes_on_to_it(
    finished: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """All steps are done, and none is done again."""
    run = stopped(finished, tmp_path)
    train(run, **six_steps(tiny_bert, tmp_path, lora_r=2), resume_from_checkpoint=True)
    assert_same_weights(finished, run)
    assert losses(run) == losses(finished)


def test_early_stopping_counts_on(tiny_bert: Path, tmp_path: Path) -> None:
    """Of three evaluations without improvement one comes before the kill and two after it."""
    settings = six_steps(
        tiny_bert, tmp_path, max_steps=12, eval_file=write_format("pairs", tmp_path),
        eval_strategy="steps", eval_steps=1, save_steps=1, learning_rate=0.3, eval_metrics=[],
        load_best_model_at_end=True, metric_for_best_model="eval_loss", early_stopping_patience=3,
    )  # fmt: skip
    whole = train(tmp_path / "whole", **settings)
    state = json.loads((whole / "trainer_state.json").read_text(encoding="utf-8"))
    best, last = state["best_global_step"], max(checkpoints_in(whole))
    assert last == best + 3 < 12
    resumed = tmp_path / "resumed"
    for step in (best, best + 1):
        shutil.copytree(whole / f"checkpoint-{step}", resumed / f"checkpoint-{step}")
    train(resumed, **settings, save_total_limit=1, resume_from_checkpoint=True)
    # The last was kept until the model was saved, and the best beside it.
    assert list(checkpoints_in(resumed)) == [best, last]
    assert_same_weights(whole, resumed)
    assert losses(whole, "eval_loss") == losses(resumed, "eval_loss")
    # Stopped early, and killed before the model was saved: no further step is taken either.
    run = stopped(whole, tmp_path / "again")
    train(run, **settings, resume_from_checkpoint=True)
    assert_same_weights(whole, run)
    assert losses(run) == losses(whole)


def test_the_last_checkpoint_outlives_a_save_that_fails(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With save_total_limit 1, killed (here: failed) while the next is put in place."""
    settings = six_steps(tiny_bert, tmp_path, save_total_limit=1)

    def full(part: Path, checkpoint: Path) -> None:
        if checkpoint.name == "checkpoint-4":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        put_in_place(part, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(trainers.checkpoints.trainer, "put_in_place", full)
        line = refused(capsys, tmp_path / "run", **settings)
    assert f"error: checkpoint-4 could not be saved in {tmp_path / 'run'}: Disk quota" in line
    assert "resume from checkpoint-2 with --resume_from_checkpoint true" in line
    assert list(checkpoints_in(tmp_path / "run")) == [2]
    assert not list((tmp_path / "run").glob(".*"))
    train(tmp_path / "run", **settings, resume_from_checkpoint=True)
    assert list(checkpoints_in(tmp_path / "run")) == [6]
    assert_same_weights(train(tmp_path / "whole", **settings), tmp_path / "run")


def test_refusals_of_all_libraries_are_known(tmp_path: Path, tiny_tokenizer: Any) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "a"
    full = Path("/dev/full")
    writes: list[tuple[Callable[[], Any], str]] = [
        (lambda: save_file({"a": torch.zeros(3)}, below), "Not a directory"),
        (lambda: tiny_tokenizer.backend_tokenizer.save(str(below)), "Not a directory"),
        (lambda: below.write_text("a"), "Not a directory"),
        (lambda: full.write_text("a"), "No space left on device"),
        (lambda: torch.save({"a": torch.zeros(9)}, full), "a file could not be written completely"),
    ]
    for write, reason in writes:
        with pytest.raises(Exception) as raised:
            write()
        assert system_reason(raised.value) == reason
    assert system_reason(RuntimeError("CUDA out of memory")) is None


def test_other_settings_and_other_rows_are_told(tiny_bert: Path, tmp_path: Path) -> None:
    settings = six_steps(tiny_bert, tmp_path)
    whole = train(tmp_path / "whole", **settings)
    same, edited, run = (stopped(whole, tmp_path / name) for name in ("same", "edited", "other"))
    for folder in (same, edited, run):
        shutil.rmtree(folder / "checkpoint-6")
    more: dict[str, Any] = {"resume_from_checkpoint": True}
    train(same, **settings, **more, dataloader_num_workers=1, streaming=True)
    assert "resume_from_checkpoint" not in (same / "finetune.log").read_text(encoding="utf-8")
    rows = Path(settings["train_file"])
    text = rows.read_text(encoding="utf-8")
    rows.write_text(text.replace("dog slept", "dog sat"), encoding="utf-8")
    train(edited, **settings, **more)
    told = "the training rows are as many as the run had, but not the same; the result matches"
    assert told in (edited / "finetune.log").read_text(encoding="utf-8")
    rows.write_text(text + text.splitlines(keepends=True)[0], encoding="utf-8")
    more |= {"learning_rate": 2e-3, "loss_args": {"symmetric": True}}
    train(run, **settings, **more)
    log = (run / "finetune.log").read_text(encoding="utf-8").splitlines()
    # It is so: the rates of the schedule go on.
    assert losses(run, "learning_rate") == losses(whole, "learning_rate")
    checkpoint = run / "checkpoint-4"
    assert [line[20:] for line in log if "resume_from" in line] == [
        f"resume_from_checkpoint: {checkpoint} is of a run with other settings: loss_args "
        "{'symmetric': True} (it had {}), learning_rate 0.002 (it had 0.001). The remaining "
        "steps use the new settings, except learning_rate: the state of optimizer and schedule "
        "keeps the old value; the result matches neither run",
        "resume_from_checkpoint: the run had 12 training rows and now has 13: the remaining "
        "steps take them in another order; the result matches neither run",
    ]


def test_a_run_that_was_moved_ends_with_its_best_model(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed after its last checkpoint, or in the middle; a best one that is gone is named."""
    settings = six_steps(
        tiny_bert, tmp_path, eval_file=write_format("pairs", tmp_path), eval_strategy="steps",
        eval_steps=2, eval_metrics=[], load_best_model_at_end=True, metric_for_best_model="loss",
        greater_is_better=True,
    )  # fmt: skip
    whole = train(tmp_path / "whole", **settings)
    best = json.loads((whole / "trainer_state.json").read_text(encoding="utf-8"))[
        "best_global_step"
    ]
    assert best == 2
    run, middle = stopped(whole, tmp_path / "moved"), stopped(whole, tmp_path / "earlier")
    gone = stopped(whole, tmp_path / "gone")
    whole.rename(tmp_path / "away")
    shutil.rmtree(middle / "checkpoint-6")
    shutil.rmtree(gone / "checkpoint-2")
    for folder in (run, middle):
        train(folder, **settings, resume_from_checkpoint=True)
        assert_same_weights(folder, tmp_path / "away")
    line = refused(capsys, gone, **settings, resume_from_checkpoint=True)
    assert "checkpoint-2, the best so far, is missing" in line
    train(gone, **settings | {"load_best_model_at_end": False}, resume_from_checkpoint=True)


def test_another_metric_or_optimizer_cannot_go_on(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = six_steps(
        tiny_bert, tmp_path, eval_file=write_format("pairs", tmp_path), eval_strategy="steps",
        eval_steps=2, eval_metrics=["mrr@10"], load_best_model_at_end=True,
    )  # fmt: skip
    run = train(tmp_path / "run", **settings, metric_for_best_model="mrr@10")
    settings |= {"resume_from_checkpoint": True, "max_steps": 8}
    assert "with metric_for_best_model mrr@10, this one's is None" in refused(
        capsys, run, **settings
    )
    settings["metric_for_best_model"] = "eval_mrr@10"
    assert "with optim adamw_torch_fused, this one's is sgd" in refused(
        capsys, run, **settings, optim="sgd"
    )
    assert "with lr_scheduler_type linear, this one's is greedy" in refused(
        capsys, run, **settings, lr_scheduler_type="greedy"
    )
    train(run, **settings)


def test_without_an_optimizer_no_resuming_is_advised(tiny_bert: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", **six_steps(tiny_bert, tmp_path, save_only_model=True))
    last = run / "checkpoint-6"
    assert how_to_resume(run) == (
        f"start a new run from checkpoint-6 (save_only_model): --model_name_or_path {last}"
    )
    assert how_to_resume(tmp_path) == "start again, as there is no checkpoint yet"
