"""Worker processes of dataloaders: they do not outlive a run, however it ends."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from forked import Copy
from runs import assert_same_weights, six_steps, train, write_format

WORKERS = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}


def recipe(model: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """With evaluations, whose workers are others."""
    settings: dict[str, Any] = {
        "eval_file": write_format("pairs", folder),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return six_steps(model, folder, **settings | more)


def started(given: dict[str, Any], folder: Path) -> Copy:
    file = folder / "recipe.json"
    file.write_text(json.dumps(given | {"output_dir": folder / "run"}, default=str))
    return Copy(["scripts/train.py", "--config", file])


def alive(process: Copy) -> list[str]:
    """Processes of its session, which it has made for itself."""
    command = ["ps", "-s", str(process.pid), "-o", "stat=,pid=,args="]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if not line.startswith("Z")]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (WORKERS, 0),
        ({"dataloader_num_workers": 2}, 0),
        # Ends in the middle of an epoch, whose workers nobody has ended.
        ({"dataloader_num_workers": 2, "learning_rate": 1e30, "max_grad_norm": 1e30}, 2),
    ],
    ids=["persistent", "of an epoch", "after an error"],
)
def test_a_run_with_workers_ends(
    more: dict[str, Any], status: int, tiny_bert: Path, tmp_path: Path
) -> None:
    process = started(recipe(tiny_bert, tmp_path, **more), tmp_path)
    assert process.wait(60) == status, process.errors
    assert alive(process) == []


def test_workers_leave_a_signal_to_the_run(tiny_bert: Path, tmp_path: Path) -> None:
    """A SIGTERM for the whole group: the run finishes its step, for which it needs its workers."""
    rows = tmp_path / "many.jsonl"
    rows.write_text(write_format("pairs", tmp_path).read_text(encoding="utf-8") * 200)
    given = recipe(tiny_bert, tmp_path, **WORKERS, max_steps=500, logging_steps=1)
    given |= {"train_file": rows, "eval_file": None, "eval_strategy": "no"}
    process = started(given, tmp_path)
    while "step 3/500" not in process.output:
        assert process.poll() is None, process.errors
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in process.output + process.errors
    assert "Traceback" not in process.errors
    assert alive(process) == []


def test_workers_do_not_change_a_run(tiny_bert: Path, tmp_path: Path) -> None:
    given = recipe(tiny_bert, tmp_path)
    with_workers = train(tmp_path / "with", **given, **WORKERS)
    assert_same_weights(train(tmp_path / "without", **given), with_workers)
