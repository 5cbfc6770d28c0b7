"""What would fail late fails before the first step, and a run that is well is the same."""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from torch import nn

from hub import Hub, stand_in_hub
from runs import assert_same_weights, losses, refused, train, weights, write_format
from trainers import TandemArguments, build_run
from trainers.base import BaseTrainer
from trainers.config.assembly import build_collator, open_model, read_rows
from trainers.guards.preflight import TRIED, Preflight, PreflightError, check_hub, sizes


@pytest.fixture
def recipe(tiny_bert: Path, tmp_path: Path) -> dict[str, Any]:
    rows = write_format("groups", tmp_path)
    return {
        "objective": "contrastive",
        "model_name_or_path": tiny_bert,
        "train_file": rows,
        "eval_file": rows,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "train_group_size": 3,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
    }


def refused_at_once(capsys: pytest.CaptureFixture[str], run: Path, **settings: Any) -> str:
    """The one line of a run that does not take a step."""
    line = refused(capsys, run, **settings)
    assert "step 1/" not in (run / "finetune.log").read_text(encoding="utf-8")
    assert not list(run.rglob("*.safetensors"))
    return line


def test_a_run_is_bit_identical_without_it(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, sampled negatives, a fresh projection, and workers in the loaders are on."""
    settings = recipe | {"projection_dim": 8, "dataloader_num_workers": 1}
    tried = train(tmp_path / "tried", **settings)
    assert "preflight passed in" in (tried / "finetune.log").read_text(encoding="utf-8")
    assert not (tried / TRIED).exists()
    monkeypatch.setattr(Preflight, "on_train_begin", lambda *_, **__: None)
    plain = train(tmp_path / "plain", **settings)
    assert_same_weights(tried, plain)
    assert_same_weights(tried / "checkpoint-2", plain / "checkpoint-2")
    for name in ("loss", "grad_norm", "eval_loss", "eval_ndcg@10"):
        assert losses(tried, name) == losses(plain, name)
    states = [torch.load(run / "checkpoint-4" / "optimizer.pt") for run in (tried, plain)]
    assert torch.equal(states[0]["state"][0]["exp_avg"], states[1]["state"][0]["exp_avg"])


def test_too_many_checkpoints_for_the_disk(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No disk holds a million million checkpoints of whatever size; with a limit it does."""
    many = recipe | {"max_steps": 10**12, "save_steps": 1, "eval_strategy": "no"}
    line = refused_at_once(capsys, tmp_path / "run", **many)
    assert "output_dir: " in line and " GB free, but this run needs " in line
    assert "1000000000000 checkpoints of " in line and "save_total_limit" in line, line


def test_the_sizes_are_those_of_the_files(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = train(tmp_path / "run", **recipe)
    trainer = trainer_of(recipe, tmp_path / "other")
    model, checkpoint = sizes(trainer)
    files = run / "checkpoint-4"
    written = (files / "model.safetensors").stat().st_size
    assert model == sum(value.nbytes for value in weights(run).values())
    assert model < written < 1.1 * model
    moments = (files / "optimizer.pt").stat().st_size
    assert checkpoint - model < moments < 1.2 * (checkpoint - model) + 2**15


def test_a_model_that_cannot_be_written(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system refuses files above 100 kB, as it does where a quota or the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        line = refused_at_once(capsys, tmp_path / "run", **recipe)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"output_dir: the model cannot be written to {tmp_path / 'run'} (" in line
    assert "File too large" in line
    assert not (tmp_path / "run" / TRIED).exists()


def trainer_of(recipe: dict[str, Any], folder: Path, loss: nn.Module | None = None) -> BaseTrainer:
    """The trainer of a run, put together as scripts/train.py does."""
    given: dict[str, Any] = {n: str(v) if isinstance(v, Path) else v for n, v in recipe.items()}
    args = TandemArguments(**given, output_dir=str(folder), disable_tqdm=True)
    run = build_run(args)
    model = open_model(run)
    trainer = run.objective.trainer(
        model=model,
        args=args,
        loss=loss or run.build_loss(),
        data_collator=build_collator(run, model),
        train_dataset=read_rows(run, args.train_file, "rejected.jsonl"),
        eval_dataset=read_rows(run, args.eval_file or [], "rejected.jsonl"),
    )
    trainer.add_callback(Preflight(trainer))
    return trainer


class TooLarge(nn.Module):
    """A loss whose evaluation does not fit."""

    def forward(self, queries: Any, documents: Any, **_: Any) -> Any:
        if not torch.is_grad_enabled():
            raise torch.OutOfMemoryError("out of memory")
        return queries.sum()


def test_an_evaluation_that_does_not_fit(recipe: dict[str, Any], tmp_path: Path) -> None:
    trainer = trainer_of(recipe, tmp_path / "run", TooLarge())
    with pytest.raises(PreflightError, match="per_device_eval_batch_size: a batch of 8 does not"):
        trainer.train()
    assert trainer.state.global_step == 0


class Steep(nn.Module):
    """A finite loss without a finite gradient: that of a root at 0."""

    def forward(self, queries: Any, documents: Any, **_: Any) -> Any:
        return queries.mean() + (queries * 0).sqrt().sum()


def test_a_gradient_that_is_not_finite(recipe: dict[str, Any], tmp_path: Path) -> None:
    trainer = trainer_of(recipe, tmp_path / "run", Steep())
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(ValueError, match="step 1: the gradient is not finite, but the loss is, on"):
        trainer.train()
    after = trainer.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


# The Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with stand_in_hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found


def arguments(tmp_path: Path, token: str | None) -> TandemArguments:
    return TandemArguments(
        objective="contrastive",
        model_name_or_path="a/b",
        train_file="rows.jsonl",
        output_dir=str(tmp_path),
        push_to_hub=True,
        hub_token=token,
    )


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (
            "hf_wrong",
            r"push_to_hub: the Hub rejects the token \(Invalid user token.\); log in",
        ),
        ("hf_reader", "push_to_hub: the token of someone may only read; give one that may write"),
        (None, "push_to_hub: there is no token; log in with `hf auth login`, or set HF_TOKEN"),
    ],
)
def test_tokens_that_cannot_push(
    token: str | None, expected: str, hub: Hub, tmp_path: Path
) -> None:
    with pytest.raises(PreflightError, match=expected) as error:
        check_hub(arguments(tmp_path, token))
    assert "\n" not in str(error.value)


def test_a_token_that_can_push(hub: Hub, tmp_path: Path) -> None:
    check_hub(arguments(tmp_path, "hf_writer"))
    assert hub.tokens == {"Bearer hf_writer"}  # it was asked


def test_a_hub_that_is_not_there(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PreflightError, match="push_to_hub: the Hub rejects"):
        check_hub(arguments(tmp_path, "hf_writer"))
