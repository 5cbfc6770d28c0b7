"""Settings of ``Trainer`` that would change a run in silence, or stop it halfway, are refused."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from runs import assert_same_weights, losses, refused, six_steps, train
from trainers.config.trainer_settings import FIXED, WHY_FIXED

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"bf16_full_eval": True}, "bf16_full_eval: is always false here (the model would be saved"),
    ({"fp16_full_eval": True}, "fp16_full_eval: is always false here"),
    ({"neftune_noise_alpha": 5}, "neftune_noise_alpha: is always null here"),
    ({"neftune_noise_alpha": 0}, "neftune_noise_alpha: is always null here"),
    ({"auto_find_batch_size": True}, "auto_find_batch_size: is always false here (a smaller"),
    ({"label_names": ["labels"]}, "label_names: is always null"),
    ({"include_for_metrics": ["inputs"]}, "include_for_metrics: is always [] here (eval_metrics"),
    ({"include_num_input_tokens_seen": "all"}, 'include_num_input_tokens_seen: is always "no"'),
    ({"use_liger_kernel": True}, "use_liger_kernel: is always false"),
    ({"deepspeed": {"zero_optimization": {}}}, "deepspeed: is always null here (to shard a model"),
    ({"dataloader_in_order": False}, "dataloader_in_order: is always true here"),
    ({"enable_jit_checkpoint": True}, "enable_jit_checkpoint: is always false here"),
    ({"average_tokens_across_devices": False}, "average_tokens_across_devices: is always true"),
    ({"do_predict": True}, "do_predict: is always false here (scripts/evaluate.py measures"),
    ({"fsdp_config": {"min_num_params": 9}}, "fsdp_config: is set at launch"),
    ({"torch_compile_mode": "fast"}, "torch_compile_mode: 'fast' is not one of default, reduce"),
    ({"torch_compile_backend": "no"}, "torch_compile_backend: 'no' is not one of eager, aot_eager"),
    ({"accelerator_config": {"split_batches": True}}, "accelerator_config: takes only non_block"),
    (
        {"accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 2}}},
        "accelerator_config: takes only non_blocking",
    ),
    ({"accelerator_config": "file.json"}, "accelerator_config: takes only non_blocking here"),
    ({"save_steps": 0}, "save_steps: must be above 0, got 0"),
    ({"eval_steps": 0}, "eval_steps: must be above 0, got 0"),
    ({"logging_steps": -1}, "logging_steps: must be above 0, got -1"),
    ({"save_total_limit": 0}, "save_total_limit: must be at least 1, got 0"),
    ({"dataloader_persistent_workers": True}, "needs dataloader_num_workers"),
    ({"log_level": "loud"}, "log_level: 'loud' is not one of detail, debug"),
    (
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"reentrant": True}},
        "activation_checkpointing_kwargs: reentrant is not one of context_fn",
    ),
    (
        {"activation_checkpointing_kwargs": {"offload": True}},
        "needs activation_checkpointing; give",
    ),
    ({"dataloader_multiprocessing_context": "spawn"}, "context: needs dataloader_num_workers"),
    ({"ddp_backend": "gloo"}, "ddp_backend: is for several processes"),
    ({"report_to": "mlflow"}, "report_to: mlflow is not installed"),
    ({"optim": "lion_32bit"}, "optim: lion_32bit: You need to install `bitsandbytes`"),
    ({"optim": "grokadamw"}, "optim: grokadamw: Please install"),
    ({"adam_beta1": 1.5}, "Invalid beta parameter"),
    ({"adam_epsilon": -1}, "Invalid epsilon value"),
    ({"optim_args": "betas=(0.5,0.9)"}, "optim_args: 'betas=(0.5,0.9)' must be name=value"),
    ({"optim_args": "foo=3"}, "optim_args: foo=3 has no effect on adamw_torch"),
    ({"optim_args": "lr=3"}, "optim_args: lr=3 has no effect on adamw_torch"),
    ({"lr_scheduler_kwargs": {"bogus": 1}}, "lr_scheduler_kwargs: "),
    ({"eval_on_start": True}, "eval_on_start: needs an eval_file"),
    ({"metric_for_best_model": "loss"}, "metric_for_best_model: needs evaluations during"),
    ({"save_strategy": "best"}, "save_strategy: best needs metric_for_best_model"),
    ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_kwargs: One of min_lr"),
]


@pytest.mark.parametrize(("mistake", "expected"), MISTAKES, ids=lambda value: str(value)[:40])
def test_one_clear_sentence(
    mistake: dict[str, Any],
    expected: str,
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(capsys, tmp_path / "run", **six_steps(tiny_bert, tmp_path, **mistake))
    assert expected in line


def test_torch_compile_needs_a_compiler(
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    given = six_steps(tiny_bert, tmp_path, torch_compile=True)
    assert "torch_compile: needs a C++ compiler" in refused(capsys, tmp_path / "run", **given)


def test_settings_of_an_optimizer_and_a_schedule_that_have_an_effect(
    tiny_bert: Path, tmp_path: Path
) -> None:
    plain = six_steps(tiny_bert, tmp_path, optim="sgd", learning_rate=0.1)
    pushed = plain | {"optim_args": "momentum=0.9, nesterov=True"}
    first, second = (losses(train(tmp_path / str(at), **r)) for at, r in enumerate((plain, pushed)))
    assert first[0] == second[0] and first[1:] != second[1:]
    scheduled = plain | {"lr_scheduler_type": "cosine_with_min_lr"}
    scheduled["lr_scheduler_kwargs"] = {"min_lr": 0.01}
    train(tmp_path / "scheduled", **scheduled)


def test_trying_the_optimizer_changes_nothing(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = six_steps(tiny_bert, tmp_path)
    tried = train(tmp_path / "tried", **given)
    monkeypatch.setattr("scripts.train.check_optimization", lambda *_: None)
    assert_same_weights(tried, train(tmp_path / "not", **given))


def test_what_is_fixed_is_a_setting_of_trainer() -> None:
    assert WHY_FIXED.keys() <= FIXED.keys() <= {field.name for field in fields(TrainingArguments)}
