"""Faults of a real run: a full disk, a read-only folder, signals, kills; and what goes on then."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trainers.checkpoints.trainer
from common.run_files import CONFIG_FILE
from forked import Copy
from launching import start
from runs import assert_same_weights, losses, six_steps, train, write_format
from trainers.checkpoints.files import checkpoints_in, find_damage, make_empty
from trainers.contrastive import ContrastiveTrainer


def recipe(model: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """Of two batches each: an epoch has two of the six steps."""
    return six_steps(model, folder, gradient_accumulation_steps=2, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """The undisturbed run. Do not write to it."""
    folder = tmp_path_factory.mktemp("whole")
    return train(folder / "run", **recipe(tiny_bert, folder))


Stopped = Callable[..., str]


@pytest.fixture
def stopped(capsys: pytest.CaptureFixture[str]) -> Stopped:
    """Train a run that ends early; returns what it wrote to stderr."""

    def run(code: int, output_dir: Path, **settings: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as raised:
            train(output_dir, **settings)
        error = capsys.readouterr().err
        assert raised.value.code == code
        assert "Traceback" not in error
        return error

    return run


# A disk that takes no more


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """``mount`` with arguments, the last of which is the folder; undone afterwards."""
    mounted: list[str] = []

    def run(*arguments: object) -> None:
        command = ["mount", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"only root may mount: {done.stderr.strip()}")
        mounted.append(str(arguments[-1]))

    yield run
    for folder in dict.fromkeys(mounted):
        # Lazily, as a model that was read from there may still hold its file.
        subprocess.run(["umount", "--lazy", folder], check=True)


def size(folder: Path) -> int:
    """Bytes, in the pages that a tmpfs keeps them in."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*"))


def test_a_full_disk(
    whole: Path, tiny_bert: Path, tmp_path: Path, stopped: Stopped, mount: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Others fill the disk: room for the first checkpoint and half of the second."""
    run = tmp_path / "run"
    run.mkdir()
    room = int(1.5 * size(whole / "checkpoint-2"))
    mount("-t", "tmpfs", "-o", f"size={10 * room}", "tmpfs", run)

    def filled(folder: Path) -> None:
        if folder.name == ".checkpoint-4.part":
            mount("-o", f"remount,size={room}", run)
        make_empty(folder)

    settings = recipe(tiny_bert, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trainers.checkpoints.trainer, "make_empty", filled)
        line = stopped(2, run, **settings)
    assert re.fullmatch(
        rf"error: checkpoint-4 could not be saved in {run}: (No space left on device|a file could "
        r"not be written completely); free space \(\d+ MB are free\) or make it writable, then "
        r"resume from checkpoint-2 with --resume_from_checkpoint true\n",
        line,
    )
    assert {path.name for path in run.iterdir()} == {
        "checkpoint-2",
        "finetune.log",
        "train_config.json",
    }
    assert find_damage(run / "checkpoint-2") is None
    mount("-o", f"remount,size={10 * room}", run)
    train(run, **settings, resume_from_checkpoint=True)
    assert_same_weights(whole, run)


def test_no_room_for_the_final_model(
    whole: Path, tiny_bert: Path, tmp_path: Path, stopped: Stopped, mount: Callable[..., None]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    room = int(1.1 * size(whole / "checkpoint-6"))
    mount("-t", "tmpfs", "-o", f"size={room}", "tmpfs", run)
    settings = recipe(tiny_bert, tmp_path, save_steps=6)
    line = stopped(2, run, **settings)
    assert f"error: the model could not be saved in {run}: " in line
    assert "resume from checkpoint-6" in line
    assert not (run / CONFIG_FILE).exists()
    assert not list(run.glob(".*"))
    mount("-o", f"remount,size={10 * room}", run)
    train(run, **settings, resume_from_checkpoint=True)
    assert_same_weights(whole, run)


def test_a_folder_that_becomes_read_only(
    whole: Path, tiny_bert: Path, tmp_path: Path, stopped: Stopped, mount: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = tmp_path / "run"

    def closed(folder: Path) -> None:
        if folder.name == ".checkpoint-4.part":
            mount("--bind", run, run)
            mount("-o", "remount,bind,ro", run)
        make_empty(folder)

    settings = recipe(tiny_bert, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trainers.checkpoints.trainer, "make_empty", closed)
        line = stopped(2, run, **settings)
    assert f"error: checkpoint-4 could not be saved in {run}: Read-only file system; " in line
    assert "resume from checkpoint-2" in line
    assert "output_dir: " in stopped(2, run, **settings, resume_from_checkpoint=True)
    mount("-o", "remount,bind,rw", run)
    train(run, **settings, resume_from_checkpoint=True)
    assert_same_weights(whole, run)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt"])
def test_a_file_larger_than_allowed(
    file: str, whole: Path, tiny_bert: Path, tmp_path: Path, stopped: Stopped
) -> None:
    """safetensors and torch tell of it in their own ways; this needs no root."""
    most = (whole / "checkpoint-2" / file).stat().st_size - 1
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        line = stopped(2, tmp_path / "run", **recipe(tiny_bert, tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    if file == "model.safetensors":  # which is tried before the first step
        expected = f"error: output_dir: the model cannot be written to {tmp_path / 'run'} (File too"
    else:
        expected = f"error: checkpoint-2 could not be saved in {tmp_path / 'run'}: "
        assert "start again, as there is no checkpoint yet" in line
    assert line.startswith(expected)
    assert line.count("\n") == 1
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"finetune.log", "train_config.json"}


def test_a_log_that_cannot_be_written_stops_no_run(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "finetune.log").symlink_to("/dev/full")
    train(run, **recipe(tiny_bert, tmp_path, max_steps=1))
    error = capsys.readouterr().err
    assert error.count("finetune.log lacks lines: [Errno 28] No space left on device") == 1
    assert (run / CONFIG_FILE).is_file()


# Signals


def signalled_at(
    batch: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], int]:
    """Send the signal in the computation of a batch; returns how many were computed."""
    computed = 0
    compute = ContrastiveTrainer.compute_loss

    def told(self: ContrastiveTrainer, model: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal computed
        computed += model.training
        if model.training and computed == batch:
            os.kill(os.getpid(), number)
        return compute(self, model, *args, **kwargs)

    monkeypatch.setattr(ContrastiveTrainer, "compute_loss", told)
    return lambda: computed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_at_a_checkpoint(
    number: signal.Signals, code: int, whole: Path, tiny_bert: Path, tmp_path: Path,
    stopped: Stopped, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In the first of the two batches of step 3; the run saves no checkpoints of its own."""
    before = signal.getsignal(number)
    settings = recipe(tiny_bert, tmp_path, save_strategy="no")
    with monkeypatch.context() as patch:
        computed = signalled_at(5, number, patch)
        stopped(code, tmp_path / "run", **settings)
    assert computed() == 6
    assert list(checkpoints_in(tmp_path / "run")) == [3]
    assert not (tmp_path / "run" / CONFIG_FILE).exists()
    log = (tmp_path / "run" / "finetune.log").read_text(encoding="utf-8")
    line = f"stopped by {number.name}; resume from checkpoint-3 with --resume_from_checkpoint true"
    assert line in log
    assert signal.getsignal(number) is before
    train(tmp_path / "run", **settings, resume_from_checkpoint=True)
    assert_same_weights(whole, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(whole)


@pytest.mark.parametrize("batch", [2, 4])
def test_a_signal_adds_no_evaluation_and_leaves_none_out(
    batch: int, tiny_bert: Path, tmp_path: Path, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, and in its last step, after which both are due."""
    settings = recipe(
        tiny_bert, tmp_path, save_strategy="epoch", eval_strategy="epoch", eval_metrics=[],
        eval_file=write_format("pairs", tmp_path), load_best_model_at_end=True, save_total_limit=1,
    )  # fmt: skip
    whole = train(tmp_path / "whole", **settings)
    assert len(losses(whole, "eval_loss")) == 3
    with monkeypatch.context() as patch:
        signalled_at(batch, signal.SIGTERM, patch)
        stopped(143, tmp_path / "run", **settings)
    assert list(checkpoints_in(tmp_path / "run")) == [batch // 2]
    train(tmp_path / "run", **settings, resume_from_checkpoint=True)
    assert_same_weights(whole, tmp_path / "run")
    assert losses(tmp_path / "run", "eval_loss") == losses(whole, "eval_loss")


def test_a_group_of_processes_is_told_and_then_told_again(tiny_bert: Path, tmp_path: Path) -> None:
    """Ctrl-C goes to the dataloader's workers too. The second one does not wait for anything."""
    rows = tmp_path / "many.jsonl"
    rows.write_text((write_format("pairs", tmp_path)).read_text(encoding="utf-8") * 1500)
    settings = recipe(
        tiny_bert, tmp_path, save_strategy="no", eval_file=rows, eval_strategy="steps",
        eval_steps=3, eval_metrics=[], dataloader_num_workers=1, disable_tqdm=True,
        output_dir=tmp_path / "run", logging_steps=1,
    )  # fmt: skip
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(settings, default=str), encoding="utf-8")
    process = start([sys.executable, "scripts/train.py", "--config", str(file)])
    assert process.stdout is not None
    for line in process.stdout:
        if "step 3/6" in line:  # and now it evaluates, for long
            break
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1.5)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    said = "SIGINT: finishing the step and saving; send it again to stop at once\n"
    assert said in error  # a worker may tell besides that its process was gone
    assert error.count("SIGINT") == 1
    assert not checkpoints_in(tmp_path / "run")


# Kills


def test_killed_runs_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    """Two of the campaign's, in one process and in two, by SIGKILL and SIGTERM."""
    command = ["benchmarks/faults/kills.py", "--kills", "2", "--signals", "KILL", "TERM"]
    chosen = ["reranker_margin_mse: bf16, two processes", "mse: best of all, one kept"]
    done = Copy([*command, "--only", *chosen])
    assert done.wait() == 0, done.output + done.errors
    found = re.search(
        r"^(\d+) kills \(KILL, TERM\) of (\d+) runs, .*; (\d+) of (\d+)", done.output, re.M
    )
    assert found is not None
    kills, runs, same, of = map(int, found.groups())
    assert kills == 2
    assert same == of == runs >= 2
