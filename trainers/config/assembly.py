"""What a recipe names, put together: rows, model, collator, and what the model is measured by."""

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from collators.mixture import MixtureRows
from collators.sources import SourceCollator
from encoders import Embedder, Reranker
from encoders.export.onnx_backbone import is_onnx
from encoders.opening.source import resolve_model
from evaluation.data.sets import RetrievalData
from evaluation.data.sources import open_data
from evaluation.measure import How, Measure
from evaluation.metrics.pairs import Figure, pair_statistics
from evaluation.metrics.ranking import DEFAULT_METRICS, check_metrics
from loaders import DataFiles, ReadOptions
from trainers import TandemArguments
from trainers.multi_source import MultiSourceTrainer

logger = logging.getLogger(__name__)


def read_rows(
    args: TandemArguments,
    files: Sequence[str],
    rejected: str,
    in_place: bool = False,
    evaluates: bool = False,
) -> Any:
    """Rows in a shape that the objective can be given; bad rows go to the file ``rejected``."""
    objective, options = args.objective_spec, read_options(args, rejected, evaluates)
    with args.main_process_first(desc="reading rows"):
        opened = DataFiles(files, options)
        shape = opened.choose(objective.rows)
        rows = opened.rows_in_place(shape) if in_place else opened.rows(shape)
    logger.info("%s: %d rows (%s)", ", ".join(files), len(rows), shape.replace("_", " "))
    return rows


def read_train_rows(args: TandemArguments) -> Any:
    """The rows to train on: of ``train_file``, or of all ``train_files``."""
    sources = args.build_sources()
    if not sources:
        return read_rows(args, args.train_file, "rejected_rows.jsonl", args.streaming)
    rows = [
        read_rows(
            source.args,
            source.args.train_file,
            f"rejected_{source.name}_rows.jsonl",
            args.streaming,
        )
        for source in sources
    ]
    return MixtureRows(rows, sources, one_source=args.batches_from == "one_source")


def read_eval_rows(args: TandemArguments) -> Any:
    """The rows of ``eval_file``."""
    return read_rows(args, args.eval_file or [], "rejected_eval_rows.jsonl", evaluates=True)


def read_options(args: TandemArguments, rejected: str, evaluates: bool = False) -> ReadOptions:
    """How the run's files are read, or those that it ``evaluates`` on; bad rows go to a file."""
    columns, split = args.columns, args.split
    if evaluates:
        columns = columns if args.eval_columns is None else args.eval_columns
        split = args.eval_split
    lowest, highest = args.label_range or (0.0, 1.0)
    return ReadOptions(
        label_map=args.label_map,
        label_range=(lowest, highest) if args.label_range else None,
        relevance_from_scores=args.relevance_from_scores,
        positive_threshold=args.positive_threshold,
        columns=columns,
        split=split,
        evaluates=evaluates,
        needs_negatives=args.objective_spec.needs_negatives,
        needs_scores=args.objective_spec.needs_scores,
        on_bad_rows=args.on_bad_rows,
        rejected_file=Path(args.output_dir) / rejected,
    )


def open_model(args: TandemArguments) -> Embedder | Reranker:
    """The model to train, from a folder, an installed package or the Hub."""
    model = open_whole_model(args)
    if args.lora_r is not None:
        model.add_lora(
            args.model_name_or_path,
            r=args.lora_r,
            alpha=args.lora_alpha or 2 * args.lora_r,
            dropout=args.lora_dropout,
            target_modules=args.lora_target_modules,
            classifier=args.objective_spec.model == "reranker",
        )
    return model


def open_whole_model(args: TandemArguments) -> Embedder | Reranker:
    """The model as it is before training."""
    if is_onnx(resolve_model(args.model_name_or_path, args.model_revision)):
        raise ValueError(
            f"model_name_or_path: {args.model_name_or_path} is an ONNX model, which cannot be "
            "trained; give the model that it was exported from"
        )
    model = open_by_kind(args)
    model.replace_prompts(args.query_prompt, args.document_prompt)
    return model


def open_by_kind(args: TandemArguments) -> Embedder | Reranker:
    """The model, with its own prompts."""
    common: dict[str, Any] = {
        "unpad_inputs": args.unpad_inputs,
        "revision": args.model_revision,
        "trust_remote_code": args.trust_remote_code,
    }
    if args.objective_spec.model == "reranker":
        return Reranker.from_pretrained(
            args.model_name_or_path, max_length=args.max_length, **common
        )
    lengths = args.query_max_length, args.document_max_length
    embedder = Embedder.from_pretrained(
        args.model_name_or_path,
        pooling=args.pooling,
        projection_dim=args.projection_dim,
        normalize=args.normalize,
        append_eos_token=bool(args.append_eos_token),
        max_length=None if None in lengths else max(length or 0 for length in lengths),
        **common,
    )
    widest = max(args.matryoshka_dims or [0])
    if widest > embedder.dimension:
        raise ValueError(
            f"matryoshka_dims: {widest} is more than the {embedder.dimension} dimensions of the "
            "model's embeddings"
        )
    for name in ("query_max_length", "document_max_length"):
        if (getattr(args, name) or 0) > embedder.max_length:
            raise ValueError(
                f"{name}: {getattr(args, name)} tokens are asked for, but the model takes at most "
                f"{embedder.max_length}; give {embedder.max_length} or less"
            )
    return embedder


def build_collator(args: TandemArguments, model: Embedder | Reranker) -> Any:
    """The objective's collator, or that of sources which have one each."""
    own = objective_collator(args, model)
    if args.trainer is not MultiSourceTrainer:
        return own
    sources = args.build_sources()
    return SourceCollator([objective_collator(source.args, model) for source in sources], own)


def objective_collator(args: TandemArguments, model: Embedder | Reranker) -> Any:
    """The objective's collator; its fields say which of the settings it takes."""
    document_prompt = args.document_prompt
    if document_prompt is None:
        document_prompt = model.prompts.get("document", "")
    settings = {
        "query_max_length": args.query_max_length or model.max_length,
        "document_max_length": args.document_max_length or model.max_length,
        "max_length": model.max_length,
        "query_prompt": model.prompts.get("query", ""),
        "document_prompt": document_prompt,
        "train_group_size": args.train_group_size,
        "seed": args.seed,
    }
    kind = args.objective_spec.collator
    taken = {field.name for field in fields(kind)} & settings.keys()
    return kind(model.tokenizer, **{name: settings[name] for name in taken})


def build_measure(args: TandemArguments) -> Measure | None:
    """What a model is measured by at every evaluation of a run, beside the loss.

    Raises:
        ValueError: A metric that does not exist, or that ``eval_file`` does not give.
    """
    if not args.eval_file or args.eval_metrics == []:
        check_best_metric(args, [])
        return None
    how = How(
        bf16=args.bf16,
        query_max_length=args.query_max_length,
        document_max_length=args.document_max_length,
    )
    with args.main_process_first(desc="reading evaluation data"):
        data = open_data(
            args.eval_file,
            args.objective_spec.model,
            read_options(args, "rejected_eval_rows.jsonl", evaluates=True),
            split=args.eval_split or "test",
            corpus=args.eval_corpus,
            as_groups=args.objective_spec.rows[0] != "scored_pair",
        )
    if isinstance(data, RetrievalData):
        names = args.eval_metrics or list(DEFAULT_METRICS)
        check_metrics(names)
    else:
        statistics = pair_statistics(data.judged())
        names = args.eval_metrics or list(statistics)
        for name in names:
            if name not in statistics:
                raise ValueError(
                    f"eval_metrics: {name!r} is not one of {', '.join(statistics)}, which scored "
                    "pairs with these labels give"
                )
    check_best_metric(args, names)
    return Measure(data, names, how)


def check_best_metric(args: TandemArguments, names: Sequence[str]) -> None:
    """Refuse a ``metric_for_best_model`` that no evaluation of the run will give."""
    wanted = args.metric_for_best_model
    known = ["loss", *args.objective_spec.trainer.observed, *names]
    if wanted is not None and wanted.removeprefix("eval_") not in known:
        raise ValueError(
            f"metric_for_best_model: {wanted!r} is not measured in this run; what is measured: "
            f"{', '.join(f'eval_{name}' for name in known)}"
        )


def evaluation_loss(
    recipe: dict[str, Any], model: str, files: Sequence[str], folder: str
) -> Figure:
    """The loss of a run's objective on other rows, or the reason why it has no value.

    Args:
        recipe: The run's, as in its ``train_config.json``.
        model: The model's folder, which may be a checkpoint.
        files: Rows in any training format that the objective can be given.
        folder: For what a run writes.
    """
    given = {
        "model_name_or_path": model,
        "eval_file": list(files),
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "early_stopping_patience": None,
        "projection_dim": None,  # the model has it by now
        "append_eos_token": None,
        "lora_r": None,  # and these are merged
        "lora_alpha": None,
        "lora_dropout": 0.0,
        "lora_target_modules": None,
        "push_to_hub": False,
        "report_to": "none",
        "disable_tqdm": True,
        "output_dir": folder,
    }
    names = {known.name for known in fields(TandemArguments) if known.init}
    args = TandemArguments(**{k: v for k, v in (recipe | given).items() if k in names})
    opened = open_model(args)
    trainer = args.objective_spec.trainer(
        model=opened,
        args=args,
        loss=args.build_loss(),
        data_collator=build_collator(args, opened),
        eval_dataset=read_eval_rows(args),
    )
    found = trainer.evaluate()
    return found["eval_loss"] if "eval_loss" in found else str(trainer.undefined["eval_loss"])
