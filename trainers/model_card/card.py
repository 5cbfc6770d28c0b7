"""The README.md of a saved model: what it is, how it was made, how good it is, how to load it."""

import inspect
import json
import logging
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import ModelCard, ModelCardData, metadata_load, try_to_load_from_cache

from evaluation.results import Results
from trainers.checkpoints.files import MODEL_PART
from trainers.model_card.code import code_blocks, server_commands
from trainers.model_card.evaluation import add_evaluation, as_code

if TYPE_CHECKING:
    from trainers.config.arguments import TandemArguments

__all__ = ["add_evaluation", "write_model_card"]

logger = logging.getLogger(__name__)

Log = Sequence[Mapping[str, Any]]  # the ``log_history`` of a trainer's state

EVALUATION = "evaluation.json"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# A data set on the Hub as train_file names it: with a configuration and a split.
HUB_DATA = re.compile(rf"({HUB_NAME.pattern})(:[\w.-]+)?(@[\w.-]+)?")
FILE_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".gz")
TIMES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")

SETTINGS = (
    "seed",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "train_group_size",
    "query_max_length",
    "document_max_length",
    "max_length",
    "query_prompt",
    "document_prompt",
    "projection_dim",
    "matryoshka_dims",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "bf16",
    "fp16",
)
WHAT = {
    "embedder": "An embedder: it turns texts into vectors whose cosine says how well they match",
    "reranker": "A reranker: it gives a query and a document a score from 0 to 1",
}


def write_model_card(
    folder: Path,
    args: "TandemArguments",
    log_history: Log | None = None,
    counts: Sequence[int] | None = None,
) -> None:
    """Write ``README.md``, with metadata that the Hub understands.

    An ``evaluation.json`` in the folder is told of, unless the weights are newer: it is then
    about other ones.

    Args:
        folder: The saved model.
        args: The run's arguments.
        log_history: What the run has logged so far.
        counts: How many rows each of its sources has.
    """
    kind = args.objective_spec.model
    name = args.hub_model_id or args.output_dir
    lines = [
        f"# {args.hub_model_id or Path(args.output_dir).name}",
        "",
        f"{WHAT[kind]}. Fine-tuned from {as_code(args.model_name_or_path)} with Tandem.",
        "",
        "## Use",
    ]
    for library, code in code_blocks(folder, kind, name, args.trust_remote_code).items():
        lines += ["", f"With {library}:", "", "```python", code, "```"]
    lines += ["", "With Tandem's server:", "", "```bash", server_commands(kind, name), "```"]
    lines += ["", "## Training", "", *_data(args, counts)]
    for loss in _losses(args):
        lines += ["", *_objective(loss)]
    lines += ["", *_table("setting", _settings(args))]
    if log_history:
        lines += ["", *_table("at the end of training", _figures(folder, args, log_history))]
    card = ModelCard(f"---\n{_metadata(args).to_yaml()}\n---\n\n" + "\n".join(lines) + "\n")
    card.save(folder / "README.md")
    results = _current_evaluation(folder)
    if results is not None:
        add_evaluation(folder, results)


# Metadata


def _metadata(args: "TandemArguments") -> ModelCardData:
    """Only what is known: the license is for the owner to give."""
    kind = args.objective_spec.model
    base = args.model_name_or_path
    files = [file for source in _trained_on(args) for file in source.train_file]
    hub_data = {match[1]: None for file in files if (match := _hub_data(file))}
    return ModelCardData(
        language=_language(args),
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity" if kind == "embedder" else "text-ranking",
        tags=[
            "tandem",
            "sentence-transformers",
            "feature-extraction" if kind == "embedder" else "cross-encoder",
            kind,
            *dict.fromkeys(loss.objective for loss in _losses(args)),
        ],
        # A folder or a package is no base model on the Hub.
        base_model=base if _on_hub(base) else None,
        datasets=list(hub_data) or None,
    )


def _on_hub(model: str) -> bool:
    """Whether a model that could be opened came from the Hub."""
    local = "://" in model or Path(model).expanduser().exists()
    return not local and (HUB_NAME.fullmatch(model) is not None or "/" not in model)


def _hub_data(file: str) -> re.Match[str] | None:
    local = file.lower().endswith(FILE_ENDINGS) or Path(file).expanduser().exists()
    return None if local else HUB_DATA.fullmatch(file)


def _language(args: "TandemArguments") -> str | list[str] | None:
    """The languages of the base model, if its own card is at hand and says them."""
    base = args.model_name_or_path
    card: Any = Path(base).expanduser() / "README.md"
    if _on_hub(base):
        card = try_to_load_from_cache(base, "README.md", revision=args.model_revision)
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return None
    try:
        found: str | list[str] | None = (metadata_load(card) or {}).get("language")
    except (ValueError, yaml.YAMLError) as error:
        logger.warning("model card: the language is left out, %s cannot be read: %s", card, error)
        return None
    return found


# Sections


def _trained_on(args: "TandemArguments") -> list["TandemArguments"]:
    """The run's arguments, or those of each of its sources."""
    return [source.args for source in args.build_sources()] or [args]


def _losses(args: "TandemArguments") -> list["TandemArguments"]:
    """Of each different loss of the run, the arguments of one source that has it."""
    found: list[TandemArguments] = []
    for source in _trained_on(args):
        same = [source.objective, source.loss_args]
        if all([known.objective, known.loss_args] != same for known in found):
            found.append(source)
    return found


def _data(args: "TandemArguments", counts: Sequence[int] | None) -> list[str]:
    """What it was trained on and evaluated on in the run."""
    lines = [f"- base model: {as_code(args.model_name_or_path)}"]
    sources = args.build_sources()
    for number, source in enumerate(_trained_on(args)):
        said = [] if counts is None else [f"{counts[number]:,} rows"]
        if sources:
            said += [f"weight {sources[number].weight:g}", f"objective {source.objective}"]
        about = f" ({', '.join(said)})" if said else ""
        lines.append(f"- trained on: {_files(source.train_file)}{about}")
    if sources:
        every = {"one_source": "one of these", "all_sources": "all of these, mixed"}
        lines.append(f"- each step: rows of {every[args.batches_from]}")
    if args.eval_file:
        lines.append(f"- evaluated in training on: {_files(args.eval_file)}")
    length = f"{args.max_steps:,} steps"
    if args.max_steps <= 0:
        length = f"{args.num_train_epochs:g} epochs"
    return [*lines, f"- length: {length}"]


def _files(files: str | list[str]) -> str:
    return ", ".join(as_code(file) for file in ([files] if isinstance(files, str) else files))


def _objective(args: "TandemArguments") -> list[str]:
    """The loss in its own words, which hold its formula, and its arguments."""
    loss = args.objective_spec.loss
    about = inspect.cleandoc(loss.__doc__ or "").partition("\nArgs:")[0].strip()
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(loss).parameters.items()
        if parameter.default is not parameter.empty
    }
    lines = [f"Objective: `{args.objective}`.", "", about.replace("``", "`")]
    values = defaults | args.loss_args
    return [*lines, "", *_table("argument of the loss", values)] if values else lines


def _settings(args: "TandemArguments") -> dict[str, Any]:
    """The hyper-parameters, and the versions that they were given to."""
    values = {name: getattr(args, name) for name in SETTINGS}
    said = {k: v for k, v in values.items() if v is not None and v is not False and v != ""}
    return said | {name: version(name) for name in ("torch", "transformers")}


def _figures(folder: Path, args: "TandemArguments", log: Log) -> dict[str, Any]:
    """The last loss of training, and the evaluation of the weights that were saved."""
    losses = [entry for entry in log if "loss" in entry]
    figures = {f"loss (step {entry['step']})": f"{entry['loss']:.4g}" for entry in losses[-1:]}
    evaluations = [entry for entry in log if "eval_loss" in entry]
    metric = f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}"
    run = Path(args.output_dir).resolve()
    ended = folder.resolve() in (run, run / MODEL_PART)
    known = [entry for entry in evaluations if metric in entry]  # where it was not undefined
    if ended and args.load_best_model_at_end and known:
        sign = 1 if args.greater_is_better else -1
        evaluations = [max(known, key=lambda entry: sign * entry[metric])]
    for entry in evaluations[-1:]:
        for name, value in entry.items():
            if name.startswith("eval_") and not name.endswith(TIMES):
                figures[f"{name} (step {entry['step']})"] = f"{value:.4g}"
    return figures


def _table(heading: str, values: Mapping[str, Any]) -> list[str]:
    rows = [f"| {as_code(name)} | {as_code(_shown(value))} |" for name, value in values.items()]
    return [f"| {heading} | value |", "|---|---|", *rows]


def _shown(value: Any) -> str:
    value = getattr(value, "value", value)  # of an enumeration
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _current_evaluation(folder: Path) -> Results | None:
    """What was measured of these very weights."""
    file = folder / EVALUATION
    if not file.is_file():
        return None
    weights = [path.stat().st_mtime_ns for path in folder.glob("*.safetensors")]
    if file.stat().st_mtime_ns < max(weights, default=0):
        logger.info("%s is older than the weights: the model card leaves it out", file)
        return None
    return Results.from_json(json.loads(file.read_text(encoding="utf-8")))
