"""The base of a run: merge the fine-tuned model with it, or go back to it."""

import logging
from collections.abc import Callable
from typing import Any

from encoders.backbone import Encoder
from encoders.weights.merging import merge_with_base
from encoders.weights.sharding import shard_like
from evaluation.measure import Evaluator
from evaluation.merging import Shares, Trials
from trainers.base import BaseTrainer
from trainers.config.assembly import open_base_model
from trainers.guards.base_comparison import add_comparison, find_comparison, warning
from trainers.guards.evaluations import EvaluationFailed, describe
from trainers.run import Run

logger = logging.getLogger(__name__)


def merge_or_restore_base(
    run: Run, trainer: BaseTrainer, guard: Evaluator | None = None
) -> str | None:
    """Do what ``merge_with_base`` says, and ``on_worse`` if the model is worse than its base.

    Collective. The trainer's model has the chosen weights afterwards, and is not saved yet.

    Args:
        run: The run, which has ended.
        trainer: Its trainer.
        guard: Measures on ``guard_file``.

    Returns:
        What is to be said at the end of a model that is surely worse than its base; else None.
    """
    args = run.args
    share = args.merge_with_base
    if share == "auto":
        _find_share(run, trainer, guard)
    elif share is not None:
        _blend(run, trainer)(share)
        logger.info("merge_with_base: the model is %g of the fine-tuned one, the rest base", share)
        if trainer.eval_dataset is not None:
            trainer.evaluate()
    step = trainer.weights_step or trainer.state.global_step
    compared = find_comparison(trainer.state.log_history, step)
    if compared is None or compared["high"] >= 0:
        return None
    worse = warning(compared, args)
    entry: Any = {"worse": worse, "epoch": trainer.state.epoch, "step": step}
    trainer.state.log_history.append(entry)  # for the card
    if args.on_worse == "keep_base":
        _blend(run, trainer)(0.0)
        trainer.evaluate()
    return worse


def _find_share(run: Run, trainer: BaseTrainer, guard: Evaluator | None) -> None:
    """Give the model the weights that are best on ``eval_file``, and tell of the others."""
    assert trainer.evaluator is not None
    blend = _blend(run, trainer)
    model: Encoder = trainer.accelerator.unwrap_model(trainer.model)

    def merged(shares: Shares) -> Encoder:
        blend(shares[1])
        return model

    trials = Trials(merged, 2, trainer.evaluator, guard, trainer.run_evaluator)
    try:
        best = trials.find()
    except Exception as error:
        blend(1.0)
        raise EvaluationFailed(
            f"merge_with_base: auto cannot compare the merges: {describe(error)}; the model in "
            f"{run.args.output_dir} is the fine-tuned one, unmerged"
        ) from error
    for trial in trials.tried.values():
        guarded = "" if trial.guard is None else f", on guard_file {trial.guard:.4f}"
        refused = "" if trial.is_allowed else " (worse than the base there)"
        logger.info(
            "merge_with_base %g: %s %.4f%s%s",
            trial.shares[1], trainer.evaluator.metrics[0], trial.value, guarded, refused,
        )  # fmt: skip
    blend(best.shares[1])
    logger.info("merge_with_base: %g of the fine-tuned model is best, and is saved", best.shares[1])
    trainer.evaluate()
    if trainer.base_comparison is None:  # which adds it with the evaluation
        add_comparison(trainer.state, trainer.evaluator.metrics[0], best.difference)


def _blend(run: Run, trainer: BaseTrainer) -> Callable[[float], Any]:
    """What gives the model ``1 - share`` of its base's weights.

    A new head stays as trained, but with share 0 the model is the one that the run began with.
    """
    model: Encoder = trainer.accelerator.unwrap_model(trainer.model)
    tuned = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    base = shard_like(open_base_model(run).state_dict() | trainer.initial_new_weights, tuned)
    base = {name: w.to(tuned[name].device) for name, w in base.items() if name in tuned}
    return lambda share: model.load_state_dict(
        merge_with_base(tuned, base, share, trainer.initial_new_weights if share else ())
    )
