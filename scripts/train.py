"""Fine-tune an embedder or a reranker.

    accelerate launch scripts/train.py --config configs/reranker.json [--key value ...]

Flags win over the recipe; --help lists every key. The model is written to ``output_dir``, with
checkpoints in ``checkpoint-N`` below it.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
import transformers
from transformers import PrinterCallback, ProgressCallback, set_seed

from encoders import Embedder, Reranker
from encoders.cpu import prepare_cpu
from loaders import ReadOptions, detect_shape, load_rows
from trainers import TandemArguments, parse_arguments
from trainers.base import LossTrainer
from trainers.callbacks import LogLines, ProgressBar, set_up_logging
from trainers.epochs import EpochRows
from trainers.output import prepare_output, write_run_file

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Tell the run: arguments, rows, model, trainer; train, evaluate, save, push."""
    try:
        args = parse_arguments(argv)
        checkpoint = set_up(args)
        rows = {"train": read_rows(args, args.train_file, "rejected_rows.jsonl")}
        if args.eval_file:
            rows["eval"] = read_rows(args, args.eval_file, "rejected_eval_rows.jsonl")
        model = open_model(args)
        collator = build_collator(args, model)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None

    write_run_file(args)
    report_lengths(collator, rows["train"])
    trainer: LossTrainer = args.row_of_table.trainer(
        model=model,
        args=args,
        loss=args.row_of_table.loss(**args.loss_args),
        data_collator=collator,
        train_dataset=rows["train"],
        eval_dataset=rows.get("eval"),
        callbacks=[ProgressBar(), LogLines()],
    )
    trainer.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
    trainer.train(resume_from_checkpoint=checkpoint)
    if "eval" in rows and args.eval_strategy == "no":
        trainer.evaluate()
    trainer.save_state()
    trainer.save_model()  # also pushes to the Hub, if push_to_hub says so
    logger.info("the model is in %s", args.output_dir)
    if args.push_to_hub:
        logger.info("pushed to the Hub as %s", trainer.hub_model_id)
    trainer.accelerator.end_training()


def set_up(args: TandemArguments) -> str | None:
    """Check the output folder and start the log; returns the checkpoint to go on from."""
    with args.main_process_first(desc="checking output_dir"):
        checkpoint = prepare_output(args)
    set_up_logging(Path(args.output_dir), main_process=args.process_index == 0)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    prepare_cpu()
    set_seed(args.seed)
    return checkpoint


def read_rows(args: TandemArguments, files: Sequence[str], rejected: str) -> Any:
    """Rows in a shape that the objective can be given; bad rows go to the file ``rejected``."""
    objective = args.row_of_table
    lowest, highest = args.label_range or (0.0, 1.0)
    options = ReadOptions(
        label_map=args.label_map,
        label_range=(lowest, highest) if args.label_range else None,
        relevance_from_scores=args.relevance_from_scores,
        positive_threshold=args.positive_threshold,
        needs_negatives=objective.needs_negatives,
        on_bad_rows=args.on_bad_rows,
        rejected_file=Path(args.output_dir) / rejected,
    )
    with args.main_process_first(desc="reading rows"):
        found = detect_shape(files, options)
        shape = found if found in objective.rows else objective.rows[0]
        rows = load_rows(files, shape, options)
    logger.info("%s: %d rows (%s)", ", ".join(files), len(rows), shape.replace("_", " "))
    return rows


def open_model(args: TandemArguments) -> Embedder | Reranker:
    """The model to train, from a folder, an installed package or the Hub."""
    given = {"query": args.query_prompt, "document": args.document_prompt}
    prompts = {name: text for name, text in given.items() if text is not None}
    common: dict[str, Any] = {
        "prompts": prompts or None,
        "unpad_inputs": args.unpad_inputs,
        "revision": args.model_revision,
        "trust_remote_code": args.trust_remote_code,
    }
    if args.row_of_table.model == "reranker":
        return Reranker.from_pretrained(
            args.model_name_or_path, max_length=args.max_length, **common
        )
    lengths = args.query_max_length, args.document_max_length
    return Embedder.from_pretrained(
        args.model_name_or_path,
        pooling=args.pooling,
        projection_dim=args.projection_dim,
        normalize=args.normalize,
        max_length=None if None in lengths else max(length or 0 for length in lengths),
        **common,
    )


def build_collator(args: TandemArguments, model: Embedder | Reranker) -> Any:
    """The objective's collator; its fields say which of the settings it takes."""
    settings = {
        "query_max_length": args.query_max_length or model.max_length,
        "document_max_length": args.document_max_length or model.max_length,
        "max_length": model.max_length,
        "query_prompt": model.prompts.get("query", ""),
        "document_prompt": model.prompts.get("document", ""),
        "train_group_size": args.train_group_size,
        "seed": args.seed,
    }
    kind = args.row_of_table.collator
    taken = {field.name for field in fields(kind)} & settings.keys()
    return kind(model.tokenizer, **{name: settings[name] for name in taken})


def report_lengths(collator: Any, rows: Any, sample: int = 1000) -> None:
    """Say how many texts the maximum lengths cut, by a look at some of the rows."""
    numbered = EpochRows(rows)
    step = max(1, len(numbered) // sample)
    looked_at = [numbered[row] for row in range(0, len(numbered), step)]
    for setting, (cut, total) in collator.count_cut(looked_at).items():
        if cut:
            limit = getattr(collator, setting)
            share = 100 * cut / total
            logger.info(
                "%s: %d of %d texts looked at (%.0f %%) are longer than %d tokens and are cut",
                setting, cut, total, share, limit,
            )  # fmt: skip


if __name__ == "__main__":
    main()
