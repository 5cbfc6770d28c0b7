"""Preflight: try before the first step what would fail after hours: disk, save, evaluation."""

import gc
import logging
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate.utils import broadcast_object_list
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError  # type: ignore[attr-defined]
from torch.utils.data import Subset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.training_args import OptimizerNames

from collators.epochs import EpochRows
from encoders.kinds import retrieves
from evaluation.measure import Evaluator
from trainers.base import BaseTrainer
from trainers.checkpoints.files import checkpoints_in
from trainers.checkpoints.write_errors import system_reason
from trainers.config.arguments import TandemArguments
from trainers.guards.evaluations import describe

logger = logging.getLogger(__name__)

T = TypeVar("T")
# An unfinished checkpoint as far as others can see: cleared up like any if the run is killed.
TRIED = ".checkpoint-0.part"
GB = 1e9
TEXT = "A text that the model and its saved copy are compared on: 一段文字。"
# Largest difference of their outputs (relative above 1): merging LoRA and half precision round.
TOLERANCE = 0.02
MOMENTS = 8  # bytes per trained weight: AdamW keeps two fp32 moments


class PreflightError(ValueError):
    """A run that would fail later; the message names the key, the numbers and the remedy."""


class Preflight(TrainerCallback):
    """Tries one batch of the evaluation, the metrics, and a save of the model.

    None of it changes a weight or draws a random number: the run is the same without it.
    """

    def __init__(self, trainer: BaseTrainer, guard: Evaluator | None = None) -> None:
        self.trainer, self.guard = trainer, guard

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Run all checks; a collective operation.

        Raises:
            PreflightError: The run would fail later; on all processes.
        """
        begun = time.perf_counter()
        on_main_process(self.trainer.args, lambda: check_disk(self.trainer))
        if self.trainer.eval_dataset is not None:
            try_evaluation(self.trainer)
        if self.trainer.evaluator is not None:
            try_evaluator(self.trainer, self.trainer.evaluator)
            if self.trainer.args.merge_with_base == "auto":
                try_comparison(self.trainer, self.trainer.evaluator, self.guard)
        try_save(self.trainer)
        logger.info("preflight passed in %.1f s", time.perf_counter() - begun)


def on_main_process(args: TandemArguments, work: Callable[[], T]) -> T:
    """Do something on the main process; what it returns or its ``ValueError`` is for all."""
    found: list[Any] = [None]
    if args.process_index == 0:
        try:
            found = [work()]
        except ValueError as error:
            found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], ValueError):
        raise found[0]
    result: T = found[0]
    return result


def check_disk(trainer: BaseTrainer) -> None:
    """Refuse a run whose checkpoints and model need more disk space than is free.

    ``save_total_limit`` checkpoints and one more: the next is written before the oldest is deleted.
    """
    args = trainer.args
    model, checkpoint = sizes(trainer)
    count = planned_checkpoints(args, trainer.state)
    if args.save_total_limit is not None:
        there = len(checkpoints_in(Path(args.output_dir)))
        count = min(count, max(1, args.save_total_limit + 1 - there))
    needed, free = count * checkpoint + model, shutil.disk_usage(args.output_dir).free
    if needed > free:
        raise PreflightError(
            f"output_dir: {args.output_dir} has {free / GB:.3g} GB free, but this run needs "
            f"{needed / GB:.3g} GB ({count} checkpoints of {checkpoint / GB:.3g} GB, and the model "
            f"of {model / GB:.3g} GB); free space, give another folder, or set save_total_limit, a "
            "larger save_steps, or save_only_model"
        )


def sizes(trainer: BaseTrainer) -> tuple[int, int]:
    """Bytes of the model's weights and of a checkpoint, at least.

    Optimizer states are counted for AdamW alone: a lower bound refuses no run that would fit.
    """
    args, weights = trainer.args, list(trainer.model.parameters())
    model = sum(weight.numel() * weight.element_size() for weight in weights)
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    adamw = OptimizerNames(args.optim).value.startswith("adamw_torch")
    return model, model + (MOMENTS * trained if adamw and not args.save_only_model else 0)


def planned_checkpoints(args: TandemArguments, state: TrainerState) -> int:
    """How many the rest of the run will write, at least."""
    if args.save_strategy == "no":
        return 0
    if args.save_strategy == "steps":
        # One more at the end, where there is not one already.
        total, done = state.max_steps / state.save_steps, state.global_step / state.save_steps
        return math.ceil(total) - math.floor(done)
    if args.save_strategy == "epoch":
        return math.ceil(state.num_train_epochs - (state.epoch or 0))
    return 1  # "best": unknown


def try_evaluation(trainer: BaseTrainer) -> None:
    """Run the evaluation loop on the first batch."""
    args, rows = trainer.args, cast(EpochRows, trainer.eval_dataset)
    first = Subset(rows, range(min(len(rows), args.eval_batch_size * args.world_size)))
    loader = trainer.get_eval_dataloader(first)
    try:
        # Trainer's own loop: ours would go on to measure the model on all data.
        Trainer.evaluation_loop(trainer, loader, "preflight", prediction_loss_only=True)
    except torch.OutOfMemoryError:
        raise PreflightError(
            f"per_device_eval_batch_size: a batch of {args.per_device_eval_batch_size} does not "
            "fit into the device's memory; give less"
        ) from None


def try_evaluator(trainer: BaseTrainer, evaluator: Evaluator) -> None:
    """Compute all metrics on a few rows."""
    try:
        trainer.run_evaluator(evaluator.few())
    except torch.OutOfMemoryError:
        raise PreflightError(
            "eval_file: the metrics of its longest texts do not fit into the device's memory; give "
            "lower maximum lengths, or eval_metrics [] to go without"
        ) from None
    except Exception as error:
        raise PreflightError(f"eval_file: measuring on it failed: {describe(error)}") from error


def try_comparison(trainer: BaseTrainer, evaluator: Evaluator, guard: Evaluator | None) -> None:
    """Compare as ``merge_with_base`` will, which some data do not allow: one query, one label."""
    found = None if trainer.base_comparison is None else trainer.base_comparison.base
    on = "eval_file"
    try:
        found = found or trainer.run_evaluator(evaluator)
        evaluator.main_value(found)
        evaluator.compare(found, found)
        if guard is not None:
            on = "guard_file"
            guard.main_value(trainer.run_evaluator(guard))
    except Exception as error:
        raise PreflightError(
            f"merge_with_base: auto cannot compare models on {on}: {describe(error)}; give other "
            "data, or a number in place of auto"
        ) from error


def try_save(trainer: BaseTrainer) -> None:
    """Write the model as a checkpoint would, open it again, and remove it."""
    args = trainer.args
    folder = Path(args.output_dir) / TRIED
    try:
        trainer.save_model(str(folder), _internal_call=True)
        on_main_process(args, lambda: try_open(trainer, folder))
    except PreflightError:
        raise
    except Exception as error:
        reason = system_reason(error)
        if reason is None:
            raise
        raise PreflightError(
            f"output_dir: the model cannot be written to {args.output_dir} ({reason}); give "
            "another folder"
        ) from None
    finally:
        if args.process_index == 0:
            shutil.rmtree(folder, ignore_errors=True)


def try_open(trainer: BaseTrainer, folder: Path) -> None:
    """Open what was saved; unless the model is sharded, compare its output with the model's."""
    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    cuda = [args.device] if args.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(cuda):
            saved: Any = type(model).from_pretrained(
                folder, trust_remote_code=args.trust_remote_code
            )
        if trainer.is_fsdp_enabled:
            return
        ours, theirs = output(model), output(saved)
        difference = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))
    except Exception as error:
        raise PreflightError(
            "model_name_or_path: the model cannot be opened again once it is saved: "
            f"{describe(error)}"
        ) from error
    finally:
        saved = None
        gc.collect()  # memory-mapped weights keep their file from being deleted
    if not difference <= TOLERANCE:  # also if it is NaN
        raise PreflightError(
            "model_name_or_path: the saved model is not the model that is trained: their outputs "
            f"for one text differ by {difference:.3g}"
        )


def output(model: Any) -> torch.Tensor:
    """The vector of a text [1, H], or the score of a pair [1], in fp32 on the CPU."""
    found: torch.Tensor = (
        model.encode([TEXT]) if retrieves(model) else model.score_pairs([TEXT], [TEXT])
    )
    return found.float()


def check_hub(args: TandemArguments) -> None:
    """Refuse a run that is to be pushed to the Hub with a token that may not write.

    Raises:
        PreflightError: On all processes.
    """
    if args.push_to_hub:
        on_main_process(args, lambda: _check_token(args))


def _check_token(args: TandemArguments) -> None:
    try:
        account = HfApi().whoami(token=args.hub_token)
    except LocalTokenNotFoundError:
        raise PreflightError(
            "push_to_hub: there is no token; log in with `hf auth login`, or set HF_TOKEN"
        ) from None
    except (HTTPError, OSError) as error:  # no connection, or rejected
        reason = " ".join(str(error).split())
        raise PreflightError(
            f"push_to_hub: the Hub rejects the token ({reason}); log in with `hf auth "
            "login`, or leave push_to_hub out"
        ) from None
    token = (account.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise PreflightError(
            f"push_to_hub: the token of {account.get('name')} may only read; give one that may "
            "write (hub_token, HF_TOKEN)"
        )
