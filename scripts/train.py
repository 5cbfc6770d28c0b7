"""Fine-tune an embedder or a reranker.

    accelerate launch scripts/train.py --config configs/reranker.json [--key value ...]

Flags win over the recipe; --help lists every key. The model is written to ``output_dir``, with
checkpoints in ``checkpoint-N`` below it.

Exit codes: 2 for a mistake or a disk that takes no more, told in one line; 143 (SIGTERM) and 130
(Ctrl-C) when the run has stopped at a checkpoint because it was told to.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import transformers
from accelerate.utils import broadcast_object_list
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    set_seed,
)

from collators.epochs import EpochRows
from collators.sources import SourceCollator
from common.hardware import prepare_cpu
from encoders.opening.transformer import TokenWithoutRow
from trainers import TandemArguments, parse_arguments
from trainers.base import LossTrainer
from trainers.checkpoints.output import prepare_output, write_run_file
from trainers.checkpoints.resume_compat import compare_launch, compare_settings
from trainers.checkpoints.run_log import LogLines, ProgressBar, set_up_logging
from trainers.checkpoints.write_errors import SavingFailed
from trainers.config.assembly import (
    build_collator,
    build_measure,
    open_model,
    read_eval_rows,
    read_train_rows,
)
from trainers.config.limits import check_steps
from trainers.distributed.sharding import check_layers, check_sharding
from trainers.guards.evaluating import EvaluationFailed
from trainers.guards.interruption import Interrupted, Interruption
from trainers.guards.nan_guard import NotFiniteError
from trainers.guards.preflight import Preflight, PreflightError, check_hub

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Tell the run: arguments, rows, model, trainer; train, evaluate, save, push."""
    try:
        args = parse_arguments(argv)
        checkpoint = set_up(args)
        rows = {"train": read_train_rows(args)}
        check_steps(args, rows["train"])
        if args.eval_file:
            rows["eval"] = read_eval_rows(args)
        measure = build_measure(args)
        model = open_model(args)
        check_layers(model)
        collator = build_collator(args, model)
    except ValueError as error:
        complain(error)
        raise SystemExit(2) from None

    interruption = Interruption()
    write_run_file(args)
    report_lengths(collator, rows["train"])
    trainer: LossTrainer = args.trainer(
        model=model,
        args=args,
        loss=args.build_loss(),
        data_collator=collator,
        train_dataset=rows["train"],
        eval_dataset=rows.get("eval"),
        measure=measure,
        callbacks=[ProgressBar(), LogLines(), interruption, *early_stopping(args)],
    )
    trainer.add_callback(Preflight(trainer))
    trainer.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
    with ending(), interruption.listening():
        trainer.train(resume_from_checkpoint=checkpoint)
        if "eval" in rows and args.eval_strategy == "no":
            trainer.save_state()
            trainer.save_model(_internal_call=True)  # whatever becomes of the evaluation
            trainer.evaluate()
        trainer.save_state()
        trainer.save_model()  # also pushes to the Hub, if push_to_hub says so
    if skipped := trainer.skipped_steps:
        logger.warning("%d of %d steps were skipped", skipped, trainer.state.global_step)
    if idle := trainer.idle_steps:
        logger.warning(
            "nothing could be learned from %d of %d steps", idle, trainer.state.global_step
        )
    logger.info("the model is in %s", args.output_dir)
    if args.push_to_hub:
        logger.info("pushed to the Hub as %s", trainer.hub_model_id)
    trainer.accelerator.end_training()


def complain(error: Exception) -> None:
    """One line, by one of the processes of a machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"error: {error}", file=sys.stderr)


def set_up(args: TandemArguments) -> str | None:
    """Check the launch and the output folder, start the log; the checkpoint to go on from."""
    check_sharding(args)
    checkpoint = on_first_process(args)
    set_up_logging(Path(args.output_dir), main_process=args.process_index == 0)
    check_hub(args)
    if checkpoint is not None:
        compare_launch(args, Path(checkpoint))
        compare_settings(args, Path(checkpoint))
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    prepare_cpu(training=True)
    set_seed(args.seed)
    return checkpoint


def on_first_process(args: TandemArguments) -> str | None:
    """What the first process finds in the output folder, or refuses, for all of them."""
    found: list[Any] = [None]
    if args.process_index == 0:
        try:
            found = [prepare_output(args)]
        except ValueError as error:
            found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], ValueError):
        raise found[0]
    checkpoint: str | None = found[0]
    return checkpoint


@contextmanager
def ending() -> Iterator[None]:
    """How a run ends that cannot go on, or was told not to: one line and an exit code."""
    try:
        yield
    except (
        PreflightError,
        NotFiniteError,
        SavingFailed,
        EvaluationFailed,
        TokenWithoutRow,
        Interrupted,
    ) as stop:
        stop.__traceback__ = None  # which holds the dataloader, whose workers are to end now
        if isinstance(stop, Interrupted):
            logger.info("stopped by %s; --resume_from_checkpoint true goes on", stop)
            raise SystemExit(128 + stop.number) from None
        complain(stop)
        raise SystemExit(2) from None


def early_stopping(args: TandemArguments) -> list[TrainerCallback]:
    """Stops a run that no longer gets better, if the recipe asks for it."""
    patience = args.early_stopping_patience
    return [] if patience is None else [EarlyStoppingCallback(patience)]


def report_lengths(collator: Any, rows: Any, sample: int = 1000) -> None:
    """Say how many texts the maximum lengths cut, by a look at some of the rows."""
    numbered = rows if isinstance(rows, EpochRows) else EpochRows(rows)
    step = max(1, len(numbered) // sample)
    looked_at = [numbered[row] for row in range(0, len(numbered), step)]
    if isinstance(collator, SourceCollator):
        for number, own in enumerate(collator.sources):
            its = [row for row in looked_at if row["source"] == number]
            report_cut(own, its, f"{rows.sources[number].name}: ")
    else:
        report_cut(collator, looked_at)


def report_cut(collator: Any, rows: list[dict[str, Any]], source: str = "") -> None:
    """Say how many texts of ``rows`` the maximum lengths cut."""
    for setting, (cut, total) in collator.count_cut(rows).items() if rows else ():
        if cut:
            limit = getattr(collator, setting)
            share = 100 * cut / total
            logger.info(
                "%s%s: %d of %d texts looked at (%.0f %%) are longer than %d tokens and are cut",
                source, setting, cut, total, share, limit,
            )  # fmt: skip


if __name__ == "__main__":
    main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # gloo's threads let go of tensors only with Python's lock, and torch waits for them at the
        # end with that lock held: what is left must be done before.
        time.sleep(0.5)
