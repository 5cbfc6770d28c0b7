"""Build what a run is made of: rows, model and collator; the loss of a checkpoint."""

import logging
from collections.abc import Sequence
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

from collators.epochs import EpochRows
from collators.mixture import MixtureRows, SourceCollator, SourceRows
from encoders import kinds
from encoders.backbone import Encoder
from encoders.export.onnx_backbone import is_onnx
from encoders.modules.settings import is_unit_length
from encoders.opening.model_name import resolve_model
from encoders.unpadding import set_attention_dropout
from evaluation.metrics.pairs import MetricValue
from loaders import DataFiles, ReadOptions
from loaders.shapes.judged_groups import JudgedGroups
from mining.guide import GuideEmbeddings, encode_texts
from trainers.config.arguments import OWN_FIELDS, TandemArguments
from trainers.config.task import TrainingTask
from trainers.distributed.sharding import launches_fsdp
from trainers.run import Run, build_run

logger = logging.getLogger(__name__)


def read_rows(
    task: TrainingTask,
    files: Sequence[str],
    rejected: str,
    in_place: bool = False,
    evaluates: bool = False,
) -> EpochRows:
    """Rows in a shape that the objective takes; bad rows go to the file ``rejected``."""
    options = read_options(task, rejected, evaluates)
    # The others then find the rows in the cache.
    with task.args.main_process_first(desc="reading rows"):
        opened = DataFiles(files, options)
        shape = opened.choose_shape(task.objective.shapes)
        if task.args.in_batch_negatives and shape == "scored_pair" and not evaluates:
            raise ValueError(
                f"in_batch_negatives: adds candidates to groups, but {files[0]} has scored pairs; "
                "set it to 0, or give groups"
            )
        rows: Any = opened.rows_in_place(shape) if in_place else opened.rows(shape)
        is_grouped, learns_labels = shape == "candidate_group", not task.objective.needs_scores
        if is_grouped and learns_labels and not evaluates:
            opened.tell_contradictions(rows)
    logger.info("%s: %d rows (%s)", ", ".join(files), len(rows), shape.replace("_", " "))
    if task.args.in_batch_negatives and is_grouped:
        rows = JudgedGroups(rows)
    return EpochRows(rows, opened.digest)


def read_train_rows(run: Run) -> EpochRows:
    """The rows to train on: of ``train_file``, or of all ``train_files``."""
    in_place = run.args.streaming
    if not run.sources:
        return read_rows(run, run.args.train_file, "rejected_rows.jsonl", in_place)
    sources = []
    for source in run.sources:
        rejected = f"rejected_rows_{source.name}.jsonl"
        rows = read_rows(source, source.args.train_file, rejected, in_place)
        sources.append(SourceRows(source.name, rows, source.weight, source.args.query_prompt))
    return MixtureRows(sources, one_source=run.args.batches_from == "one_source")


def read_eval_rows(run: Run) -> EpochRows:
    """The rows of ``eval_file``."""
    return read_rows(run, run.args.eval_file or [], "rejected_eval_rows.jsonl", evaluates=True)


def read_options(task: TrainingTask, rejected: str, evaluates: bool = False) -> ReadOptions:
    """How files are read: those to train on, or, with its own settings, ``eval_file``.

    Args:
        rejected: Name of the file for bad rows, in the run's folder.
    """
    args = task.args
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
        needs_negatives=task.objective.needs_negatives,
        needs_scores=task.objective.needs_scores,
        on_bad_rows=args.on_bad_rows,
        rejected_file=Path(args.output_dir) / rejected,
    )


def open_model(run: Run) -> Encoder:
    """The model to train, from a folder, an installed package or the Hub.

    Raises:
        ValueError: It cannot be trained, or not with these settings.
    """
    args, model = run.args, open_base_model(run)
    if args.head_learning_rate is not None and not model.new_weights:
        raise ValueError(
            f"head_learning_rate: {args.model_name_or_path} has no new weights (such as an "
            "untrained scoring head) to use it for; leave it out"
        )
    if args.attention_dropout is not None:
        set_attention_dropout(model.backbone, args.attention_dropout)
    if args.lora_r is not None:
        model.add_lora(
            args.model_name_or_path,
            # FSDP shards the weights of a layer together, and they must be of one type.
            frozen_in_bf16=args.bf16 and not launches_fsdp(),
            r=args.lora_r,
            alpha=args.lora_alpha or 2 * args.lora_r,
            dropout=args.lora_dropout,
            target_modules=args.lora_target_modules,
            classifier=kinds.kind_of(model).reads_pairs,
        )
    return model


def open_base_model(run: Run) -> Encoder:
    """The base: the model before training, without adapters; raises as ``open_model``."""
    args = run.args
    if is_onnx(resolve_model(args.model_name_or_path, args.model_revision)):
        raise ValueError(
            f"model_name_or_path: {args.model_name_or_path} is an ONNX model, which cannot be "
            "trained; give the model that it was exported from"
        )
    lengths = args.query_max_length, args.document_max_length
    longest = None if None in lengths else max(length or 0 for length in lengths)
    model = kinds.open_model(
        args.model_name_or_path,
        run.objective.model,
        pooling=args.pooling,
        projection_dim=args.projection_dim,
        normalize=args.normalize,
        append_eos_token=bool(args.append_eos_token),
        max_length=args.max_length or longest,
        unpad_inputs=args.unpad_inputs,
        revision=args.model_revision,
        trust_remote_code=args.trust_remote_code,
    )
    if not kinds.kind_of(model).reads_pairs:
        _check_sizes(args, model)
        _set_similarity(run, model)
    model.replace_prompts(args.query_prompt, args.document_prompt)
    model.replace_lengths(args.query_max_length, args.document_max_length)
    return model


def _check_sizes(args: TandemArguments, model: Any) -> None:
    widest = max(args.matryoshka_dims or [0])
    if widest > model.dimension:
        raise ValueError(
            f"matryoshka_dims: {widest} is more than the {model.dimension} dimensions of the "
            "model's embeddings"
        )
    for name in ("query_max_length", "document_max_length"):
        if (getattr(args, name) or 0) > model.max_length:
            raise ValueError(
                f"{name}: {getattr(args, name)} tokens are asked for, but the folder states "
                f"{model.max_length}; give {model.max_length} or less, or query_max_length and "
                "document_max_length both, to go beyond that"
            )


def _set_similarity(run: Run, model: Any) -> None:
    """Let the saved model be compared, in search and serving, as its losses compare it."""
    given = [task.args.loss_args.get("similarity") for task in (*run.sources, run)]
    usual = signature(run.objective.loss).parameters["similarity"].default
    if not any(given):
        if model.similarity != usual:
            raise ValueError(
                f'loss_args: the model is made for the similarity "{model.similarity}", and the '
                f'loss compares by "{usual}"; give {{"similarity": "{model.similarity}"}} to keep '
                f'it, or {{"similarity": "{usual}"}} to change it'
            )
        return
    chosen = {similarity or usual for similarity in given}
    if len(chosen) > 1:
        raise ValueError(
            "loss_args: similarity: the losses of a run must compare alike; give all sources, and "
            "the run, the same"
        )
    if run.args.matryoshka_dims and "dot" in chosen and is_unit_length(model.head[-1]):
        raise ValueError(
            'loss_args: similarity: "dot" would compare prefixes (matryoshka_dims) at the lengths '
            "that they have, but this model is served with prefixes of unit length; give "
            '"cosine", or normalize false'
        )
    model.compare_by(chosen.pop())


def build_collator(run: Run, model: Encoder, rows: Sequence[Any] = ()) -> Any:
    """The objective's collator, or that of sources which have one each.

    Args:
        rows: Of training, of evaluation: those whose texts a guide model encodes.
    """
    guide = None
    if (name := run.args.guide_model) is not None:
        guide = encode_texts(name, rows, run.args.bf16, run.args.trust_remote_code)
    own = task_collator(run, model, guide)
    if not run.one_source_per_step:
        return own
    return SourceCollator([task_collator(source, model, guide) for source in run.sources], own)


def task_collator(task: TrainingTask, model: Encoder, guide: GuideEmbeddings | None) -> Any:
    """The objective's collator; its fields say which of the settings it takes."""
    args = task.args
    document_prompt = args.document_prompt
    if document_prompt is None:
        document_prompt = model.prompts.get("document", "")
    settings = {
        "query_max_length": model.find_length("query", args.query_max_length),
        "document_max_length": model.find_length("document", args.document_max_length),
        "query_tokens": model.query_tokens,
        "max_length": model.max_length,
        "query_prompt": model.prompts.get("query", ""),
        "document_prompt": document_prompt,
        "train_group_size": args.train_group_size,
        "seed": args.seed,
        "guide": guide,
        "in_batch_negatives": args.in_batch_negatives,
    }
    collator = task.objective.collator
    taken = {field.name for field in fields(collator)} & settings.keys()
    return collator(model.tokenizer, **{name: settings[name] for name in taken})


def evaluation_loss(
    recipe: dict[str, Any], model: str, files: Sequence[str], folder: str
) -> MetricValue:
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
        "early_stopping_patience": None,
        "projection_dim": None,  # the model has it by now
        "append_eos_token": None,
        "head_learning_rate": None,
        "lora_r": None,  # and these are merged
        "lora_alpha": None,
        "lora_dropout": 0.0,
        "lora_target_modules": None,
        "on_worse": "warn",
        "merge_with_base": None,
        "guard_file": None,
        "disable_tqdm": True,
        "output_dir": folder,
    }
    # Of transformers' keys those that it is computed with; the others are about training.
    names = {known.name for known in OWN_FIELDS} | given.keys()
    names |= {"seed", "bf16", "fp16", "use_cpu", "tf32", "per_device_eval_batch_size"}
    run = build_run(TandemArguments(**{k: v for k, v in (recipe | given).items() if k in names}))
    opened, rows = open_model(run), read_eval_rows(run)
    trainer = run.build_trainer(
        model=opened, data_collator=build_collator(run, opened, [rows]), eval_dataset=rows
    )
    found = trainer.evaluate()
    return found["eval_loss"] if "eval_loss" in found else trainer.undefined.reasons["eval_loss"]
