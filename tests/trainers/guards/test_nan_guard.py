"""NaN in a run: the step is named or skipped, and no weight and no checkpoint ever has it.

On two processes: tests/trainers/distributed/test_processes.py.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from collators.epochs import EpochSampler
from runs import TEXTS, assert_same_weights, losses, refused, scored, train, weights
from tiny import save_backbone

HEAVY = (2, 8)  # rows whose weights together are more than a float32 holds


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("model"), TEXTS)


@pytest.fixture
def recipe(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Twelve rows, six in a step: a step that has both heavy rows in it has no finite loss."""
    monkeypatch.setattr("loaders.parsing.fields.LARGEST", 3.4e38)  # else they would be refused
    rows = [dict(row) for row, _ in zip(scored(), range(12), strict=False)]
    for at, row in enumerate(rows):
        row["weight"] = 3e38 if at in HEAVY else 1.0
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text("\n".join(lines), encoding="utf-8")
    return {
        "objective": "weighted_mse",
        "model_name_or_path": model,
        "train_file": file,
        "per_device_train_batch_size": 6,
        "num_train_epochs": 4,
        "save_strategy": "steps",
        "save_steps": 1,
    }


def steps(size: int, epochs: int = 4) -> Iterator[list[int]]:
    """The rows of each step of a run on twelve rows."""
    sampler = EpochSampler(12, seed=42)
    for sampler.epoch in range(epochs):
        order = [index % 12 for index in sampler]
        yield from (order[at : at + size] for at in range(0, 12, size))


BAD = [step for step, rows in enumerate(steps(6), start=1) if set(HEAVY) <= set(rows)]


def test_the_run_has_good_and_bad_steps() -> None:
    assert BAD[0] > 1 and 0 < len(BAD) < 7


def test_a_bad_step_ends_the_run_and_is_named(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, tmp_path / "run", **recipe)
    rows = list(steps(6))[BAD[0] - 1]
    query = json.loads(recipe["train_file"].read_text("utf-8").splitlines()[rows[0]])["query"]
    assert line.startswith(f"error: step {BAD[0]}: the loss is nan on the batch of rows {rows[0]} ")
    assert f'{rows[0]} ("{query}")' in line
    assert [int(n) for n in re.findall(r"(\d+) \(\"", line)] == rows[:5] and "and 1 more" in line
    assert 'set on_bad_loss to "skip"' in line
    assert line.endswith(f"the last checkpoint is {tmp_path / 'run' / f'checkpoint-{BAD[0] - 1}'}")
    assert not (tmp_path / "run" / f"checkpoint-{BAD[0]}").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_skipped_step_changes_nothing_and_is_counted(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    run = train(tmp_path / "run", **recipe, on_bad_loss="skip")
    for step in range(2, 9):
        before, after = (run / f"checkpoint-{at}" for at in (step - 1, step))
        old, new = weights(before), weights(after)
        same = all(torch.equal(value, new[name]) for name, value in old.items())
        assert same == (step in BAD), step
        states = [torch.load(at / "optimizer.pt")["state"] for at in (before, after)]
        moments = [state["exp_avg"] for state in states[1].values()]
        assert all(tensor.isfinite().all() for tensor in moments)
        if step in BAD:
            for name, state in states[0].items():
                assert all(torch.equal(state[key], states[1][name][key]) for key in state)
    assert losses(run, "skipped_steps") == list(range(1, len(BAD) + 1))
    logged = losses(run)  # one for each step that was taken
    assert len(logged) == 8 - len(BAD) and all(0 < loss < 2 for loss in logged)
    assert 0 < losses(run, "train_loss")[0] < 2
    log = (run / "finetune.log").read_text(encoding="utf-8")
    assert f"step {BAD[0]}: the loss is nan on the batch of rows" in log
    assert f"{len(BAD)} of 8 steps were skipped" in log

    resumed = train(
        tmp_path / "resumed",
        **recipe,
        on_bad_loss="skip",
        resume_from_checkpoint=str(run / f"checkpoint-{BAD[0]}"),
    )
    assert_same_weights(run, resumed)
    assert losses(resumed, "skipped_steps") == losses(run, "skipped_steps")


def test_a_loss_logged_over_several_steps_is_that_of_those_taken(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    light = {**recipe, "save_strategy": "no", "max_steps": 2, "on_bad_loss": "skip"}
    assert BAD[0] == 2
    each = train(tmp_path / "each", **light)
    once = train(tmp_path / "once", **light | {"logging_steps": 2})
    assert losses(once) == losses(each)


@pytest.mark.parametrize(
    ("on_bad_loss", "save_steps", "expected"),
    [
        ("skip", 1, "step 1: the weights are not finite, and are not saved; lower learning_rate"),
        ("skip", 4, "step 2: the loss is nan on the batch of rows 10 "),
        ("error", 4, "step 2: the loss is nan on the batch of rows 10 "),
    ],
)
def test_weights_that_are_not_finite_are_never_written(
    on_bad_loss: str,
    save_steps: int,
    expected: str,
    recipe: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first step is finite, and its update is not: to skip the others would be no remedy."""
    blown = {"learning_rate": 1e38, "warmup_steps": 0, "save_steps": save_steps}
    settings = recipe | blown | {"on_bad_loss": on_bad_loss}
    line = refused(capsys, tmp_path / "run", **settings)
    assert line.startswith(f"error: {expected}") and "lower learning_rate" in line
    assert "weights are not finite" in line and line.endswith("there is no checkpoint yet")
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_a_model_that_is_not_finite_to_begin_with(
    recipe: dict[str, Any], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(model, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][5, 0] = torch.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    line = refused(capsys, tmp_path / "run", **recipe | {"model_name_or_path": broken})
    assert line.startswith("error: step 0: the weights are not finite, and are not saved; model_na")
