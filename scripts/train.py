"""Fine-tune an embedder or a reranker.

    accelerate launch scripts/train.py --config configs/reranker.json [--key value ...]

Flags win over the recipe; --help lists every key. The model is written to ``output_dir``, with
checkpoints in ``checkpoint-N`` below it.

Exit codes: 1 if the model is worse than its base (``on_worse: error``); 2 for a user error or a
failed write, with one line on stderr; 143 (SIGTERM) and 130 (Ctrl-C) after a signal, when the run
has stopped at a checkpoint.
"""

import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

gc.disable()  # as in serve.py: the imports take a quarter less

import datasets
import transformers
from filelock import FileLock
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    set_seed,
)

from collators.epochs import as_epoch_rows
from collators.mixture import SourceCollator
from common.hardware import prepare_cpu
from common.run_files import LOCK_FILE
from encoders.opening.tokens import TokenWithoutEmbedding
from evaluation.measure import Evaluator
from loaders.in_place import RowsChanged
from trainers import Run, TandemArguments, parse_run
from trainers.base import BaseTrainer
from trainers.checkpoints.output import lock_folder, prepare_output, unlock_folder, write_run_file
from trainers.checkpoints.resume import compare_runs, evaluated
from trainers.checkpoints.run_log import RunLog, set_up_logging
from trainers.checkpoints.write_errors import SavingFailed, how_to_resume
from trainers.config.assembly import (
    build_collator,
    open_model,
    read_eval_rows,
    read_train_rows,
)
from trainers.config.evaluators import build_evaluator, build_guard
from trainers.config.optimization import check_optimization
from trainers.distributed.sharding import check_layers, check_sharding
from trainers.guards.base_model import merge_or_restore_base
from trainers.guards.evaluations import EvaluationFailed
from trainers.guards.idle_steps import count_idle
from trainers.guards.interruption import Interrupted, Interruption
from trainers.guards.nan_guard import NonFiniteError, count_skipped
from trainers.guards.preflight import Preflight, PreflightError, check_hub, on_main_process
from trainers.guards.teacher import check_teacher
from trainers.model_card.card import write_model_card
from trainers.run import check_steps

gc.freeze()
gc.enable()

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Read a recipe and flags, and train."""
    try:
        run = parse_run(argv)
    except ValueError as error:
        complain(error)
        raise SystemExit(2) from None
    train(run)


def train(
    run: Run,
    callbacks: Callable[[BaseTrainer], Iterable[TrainerCallback]] = lambda trainer: (),
    remedy: Callable[[Path], str] = how_to_resume,
) -> BaseTrainer:
    """Open rows and model; train, evaluate, save, push.

    Args:
        run: What to train.
        callbacks: More of them, for the trainer.
        remedy: Says how a run in this folder that was interrupted is resumed.
    """
    with locked_output_folder(run.args):
        return train_in_folder(run, callbacks, remedy)


def train_in_folder(
    run: Run,
    callbacks: Callable[[BaseTrainer], Iterable[TrainerCallback]],
    remedy: Callable[[Path], str],
) -> BaseTrainer:
    """Do what ``train`` does, in the locked output folder."""
    try:
        args = run.args
        checkpoint = set_up(run)
        rows = {"train": read_train_rows(run)}
        check_steps(args, rows["train"])
        if args.eval_file:
            rows["eval"] = read_eval_rows(run)
        evaluator, guard = build_evaluator(run), build_guard(run)
        model = open_model(run)
        check_layers(model)
        check_optimization(args, model)
        collator = build_collator(run, model, list(rows.values()))
    except ValueError as error:
        complain(error)
        raise SystemExit(2) from None

    interruption = Interruption()
    write_run_file(args, checkpoint)
    report_lengths(collator, rows["train"])
    with exit_on_failure(args, remedy):
        trainer = run.build_trainer(
            model=model,
            data_collator=collator,
            train_dataset=rows["train"],
            eval_dataset=rows.get("eval"),
            evaluator=evaluator,
            write_card=partial(write_model_card, run),
            callbacks=[RunLog(), interruption, *early_stopping(args)],
        )
    for callback in (Preflight(trainer, guard), *callbacks(trainer)):
        trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
    with exit_on_failure(args, remedy), interruption.listening():
        try:
            worse = fit(run, trainer, rows, checkpoint, guard)
        finally:
            trainer.dataloaders.end_workers()
    end(run, trainer, worse)
    return trainer


def fit(
    run: Run,
    trainer: BaseTrainer,
    rows: dict[str, Any],
    checkpoint: str | None,
    guard: Evaluator | None,
) -> str | None:
    """Train, evaluate, save, push; why the model is worse than the base, if it is."""
    args, evaluator = run.args, trainer.evaluator
    distils = run.objective.needs_scores and not args.allow_weak_teacher
    if distils and trainer.base_comparison and evaluator and checkpoint is None:
        student = trainer.accelerator.unwrap_model(trainer.model)
        check_teacher(rows["eval"], student, evaluator.inference)
    trainer.train(resume_from_checkpoint=checkpoint)
    if "eval" in rows and trainer.state.global_step not in evaluated(trainer.state.log_history):
        trainer.save_model(_internal_call=True)  # before an evaluation that may fail
        trainer.save_state()
        trainer.evaluate()
    try:
        worse = merge_or_restore_base(run, trainer, guard)
    except EvaluationFailed as error:
        # Saving is collective, and only what is wrong with the data is so on all processes.
        if args.world_size == 1 or isinstance(error.__cause__, ValueError):
            trainer.save_model(_internal_call=True)
        raise
    trainer.save_model(_internal_call=True)
    trainer.save_state()  # by which the run is complete
    if args.push_to_hub:
        trainer.push_to_hub()
    return worse


def end(run: Run, trainer: BaseTrainer, worse: str | None) -> None:
    """Say what became of the run; an error, if ``on_worse`` makes a worse model one."""
    args, steps = run.args, trainer.state.global_step
    if skipped := count_skipped(trainer.state):
        logger.warning("%d of %d steps were skipped", skipped, steps)
    if idle := count_idle(trainer.state):
        logger.warning("nothing could be learned from %d of %d steps", idle, steps)
    logger.info("the model is in %s", args.output_dir)
    if args.push_to_hub:
        logger.info("pushed to the Hub as %s", trainer.hub_model_id)
    trainer.accelerator.end_training()
    if worse:
        logger.warning(worse)
        if args.on_worse == "error":
            raise SystemExit(1)


def complain(error: Exception) -> None:
    """Print one line, from one process of each machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"error: {error}", file=sys.stderr)


@contextmanager
def locked_output_folder(args: TandemArguments) -> Iterator[None]:
    """Create the output folder and keep it locked: no other run may write into it meanwhile."""
    lock = FileLock(Path(args.output_dir) / LOCK_FILE)
    try:
        check_sharding(args)
        on_main_process(args, lambda: lock_folder(Path(args.output_dir), lock))
    except ValueError as error:
        complain(error)
        raise SystemExit(2) from None
    try:
        yield
    finally:
        unlock_folder(lock)


def set_up(run: Run) -> str | None:
    """Check the output folder, start the log; return the checkpoint to resume from."""
    args = run.args
    checkpoint = on_main_process(args, lambda: prepare_output(args, run.objective.model))
    set_up_logging(Path(args.output_dir), main_process=args.process_index == 0)
    check_hub(args)
    if checkpoint is not None:
        compare_runs(args, Path(checkpoint))
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    prepare_cpu(training=True)
    set_seed(args.seed)
    return checkpoint


@contextmanager
def exit_on_failure(args: TandemArguments, remedy: Callable[[Path], str]) -> Iterator[None]:
    """Exit with one line and a code where a run cannot continue or was interrupted."""
    try:
        yield
    except (
        PreflightError,
        NonFiniteError,
        SavingFailed,
        EvaluationFailed,
        TokenWithoutEmbedding,
        Interrupted,
    ) as stop:
        stop.__traceback__ = None  # its frames keep the dataloader's workers alive
        if isinstance(stop, Interrupted):
            logger.info("stopped by %s; %s", stop, remedy(Path(args.output_dir)))
            raise SystemExit(128 + stop.number) from None
        complain(stop)
        raise SystemExit(2) from None
    except RowsChanged as stop:  # of a worker: behind its traceback
        complain(ValueError(str(stop).strip().rpartition("RowsChanged: ")[2]))
        raise SystemExit(2) from None


def early_stopping(args: TandemArguments) -> list[TrainerCallback]:
    """The callback that stops a run without improvement, if the recipe asks for it."""
    patience = args.early_stopping_patience
    return [] if patience is None else [EarlyStoppingCallback(patience)]


def report_lengths(collator: Any, rows: Any, sample: int = 1000) -> None:
    """Log how many texts the maximum lengths truncate, estimated from some of the rows."""
    known = as_epoch_rows(rows)
    sampled = [known[row] for row in range(0, len(known), max(1, len(known) // sample))]
    if isinstance(collator, SourceCollator):
        for number, own in enumerate(collator.sources):
            its = [row for row in sampled if row["source"] == number]
            report_cut(own, its, f"{rows.sources[number].name}: ")
    else:
        report_cut(collator, sampled)


def report_cut(collator: Any, rows: list[dict[str, Any]], source: str = "") -> None:
    """Log how many texts of ``rows`` the maximum lengths truncate."""
    for setting, (cut, total) in collator.count_truncated(rows).items() if rows else ():
        if cut:
            limit = getattr(collator, setting)
            share = 100 * cut / total
            logger.info(
                "%s%s: %d of %d sampled texts (%.0f %%) are longer than %d tokens and truncated",
                source, setting, cut, total, share, limit,
            )  # fmt: skip


if __name__ == "__main__":
    main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # gloo's threads need the GIL to release tensors, and at exit torch joins them while holding
        # it: give them time to finish first, or the process may hang.
        time.sleep(0.5)
