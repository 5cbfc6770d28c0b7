"""Write the model card: what a saved model is, how it was trained, its metrics, how to load it."""

import inspect
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData, metadata_load, try_to_load_from_cache

from common.run_files import CARD_FILE, EVALUATION_FILE
from encoders.kinds import KINDS
from evaluation.results import Results
from trainers.config.arguments import TandemArguments
from trainers.config.task import TrainingSource, TrainingTask
from trainers.guards.base_comparison import find_comparison, in_words
from trainers.model_card.code import code_blocks, server_commands
from trainers.model_card.evaluation import add_evaluation, as_code
from trainers.run import Run

logger = logging.getLogger(__name__)

Log = Sequence[Mapping[str, Any]]  # the ``log_history`` of a trainer's state

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# A data set on the Hub as train_file names it, with a configuration and a split.
HUB_DATA = re.compile(rf"({HUB_NAME.pattern})(:[\w.-]+)?(@[\w.-]+)?")
FILE_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".gz")
TIMES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")

SETTINGS = (
    "seed", "per_device_train_batch_size", "gradient_accumulation_steps", "world_size",
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim",
    "train_group_size", "query_max_length", "document_max_length", "max_length", "query_prompt",
    "document_prompt", "projection_dim", "matryoshka_dims", "lora_r", "lora_alpha", "lora_dropout",
    "bf16", "fp16",
)  # fmt: skip


def write_model_card(
    run: Run,
    folder: Path,
    log_history: Log | None = None,
    counts: Sequence[int] | None = None,
) -> None:
    """Write ``README.md``, with metadata that the Hub understands.

    An ``evaluation.json`` in the folder is included, unless the weights are newer than it.

    Args:
        run: The run that trained the model.
        folder: The saved model.
        log_history: What the run has logged up to these weights.
        counts: How many rows each of its sources has.
    """
    args, kind = run.args, run.objective.model
    name = args.hub_model_id or args.output_dir
    lines = [
        f"# {args.hub_model_id or Path(args.output_dir).name}",
        "",
        f"{KINDS[kind].summary}. Fine-tuned from {as_code(args.model_name_or_path)} with Tandem.",
        "",
        "## Use",
    ]
    for library, code in code_blocks(folder, kind, name, args.trust_remote_code).items():
        lines += ["", f"With {library}:", "", "```python", code, "```"]
    lines += ["", "With Tandem's server:", "", "```bash", server_commands(kind, name), "```"]
    lines += ["", "## Training", "", *_data(run, counts)]
    for task in _losses(run):
        lines += ["", *_objective(task)]
    lines += ["", *_table("setting", _settings(args))]
    if log_history:
        figures, step = _figures(log_history)
        lines += ["", *_table("at the end of training", figures)]
        if compared := find_comparison(log_history, step):
            lines += ["", f"On `eval_file`: {in_words(compared)} (95 % interval)."]
        for worse in [entry["worse"] for entry in log_history if "worse" in entry][-1:]:
            lines += ["", f"**Warning:** {worse}."]
    card = ModelCard(f"---\n{_metadata(run).to_yaml()}\n---\n\n" + "\n".join(lines) + "\n")
    card.save(folder / CARD_FILE)
    results = _current_evaluation(folder)
    if results is not None:
        add_evaluation(folder, results)


# Metadata


def _metadata(run: Run) -> ModelCardData:
    """Only what is known: the owner chooses the license."""
    kind, base = KINDS[run.objective.model], run.args.model_name_or_path
    files = [file for task in _tasks(run) for file in task.args.train_file]
    hub_data = {match[1]: None for file in files if (match := _hub_data(file))}
    return ModelCardData(
        language=_language(run.args),
        library_name=kind.library,
        pipeline_tag=kind.pipeline_tag,
        tags=[
            "tandem",
            kind.library,
            *kind.tags,
            *dict.fromkeys(task.args.objective for task in _losses(run)),
        ],
        # The Hub can link to its own models only.
        base_model=base if _on_hub(base) else None,
        datasets=list(hub_data) or None,
    )


def _on_hub(model: str) -> bool:
    """Whether a name is one on the Hub, given that the model could be opened."""
    local = "://" in model or Path(model).expanduser().exists()
    return not local and (HUB_NAME.fullmatch(model) is not None or "/" not in model)


def _hub_data(file: str) -> re.Match[str] | None:
    local = file.lower().endswith(FILE_ENDINGS) or Path(file).expanduser().exists()
    return None if local else HUB_DATA.fullmatch(file)


def _language(args: TandemArguments) -> str | list[str] | None:
    """The languages of the base model, if its own card is available locally and names them."""
    base = args.model_name_or_path
    card: Any = Path(base).expanduser() / "README.md"
    if _on_hub(base):
        card = try_to_load_from_cache(base, "README.md", revision=args.model_revision)
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return None
    try:
        found: str | list[str] | None = (metadata_load(card) or {}).get("language")
    except (ValueError, yaml.YAMLError) as error:
        logger.warning("model card: no language, because %s cannot be read: %s", card, error)
        return None
    return found


# Sections


def _tasks(run: Run) -> Sequence[TrainingTask]:
    """The run's sources, or the run itself."""
    return run.sources or [run]


def _losses(run: Run) -> list[TrainingTask]:
    """One task for each different loss of the run."""
    found: list[TrainingTask] = []
    for task in _tasks(run):
        same = [task.args.objective, task.args.loss_args]
        if all([known.args.objective, known.args.loss_args] != same for known in found):
            found.append(task)
    return found


def _data(run: Run, counts: Sequence[int] | None) -> list[str]:
    """What the model was trained on, and evaluated on during training."""
    args = run.args
    lines = [f"- base model: {as_code(args.model_name_or_path)}"]
    for number, task in enumerate(_tasks(run)):
        details = [] if counts is None else [f"{counts[number]:,} rows"]
        if isinstance(task, TrainingSource):
            details += [f"weight {task.weight:g}", f"objective {task.args.objective}"]
        about = f" ({', '.join(details)})" if details else ""
        lines.append(f"- trained on: {_files(task.args.train_file)}{about}")
    if run.sources:
        every = {"one_source": "one of these", "all_sources": "all of these, mixed"}
        lines.append(f"- each step: rows of {every[args.batches_from]}")
    if args.eval_file:
        lines.append(f"- evaluated in training on: {_files(args.eval_file)}")
    length = f"{args.max_steps:,} steps"
    if args.max_steps <= 0:
        length = f"{args.num_train_epochs:g} epochs"
    return [*lines, f"- length: {length}"]


def _files(files: Iterable[str]) -> str:
    return ", ".join(map(as_code, files))


def _objective(task: TrainingTask) -> list[str]:
    """The docstring of the loss, which has its formula, and its arguments."""
    loss = task.objective.loss
    about = inspect.cleandoc(loss.__doc__ or "").partition("\nArgs:")[0].strip()
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(loss).parameters.items()
        if parameter.default is not parameter.empty
    }
    lines = [f"Objective: `{task.args.objective}`.", "", about.replace("``", "`")]
    values = defaults | task.args.loss_args
    return [*lines, "", *_table("argument of the loss", values)] if values else lines


def _settings(args: TandemArguments) -> dict[str, Any]:
    """The hyperparameters that are set, and the libraries' versions."""
    values = {name: getattr(args, name) for name in SETTINGS}
    given = {k: v for k, v in values.items() if v is not None and v is not False and v != ""}
    return given | {name: version(name) for name in ("torch", "transformers")}


def _figures(log: Log) -> tuple[dict[str, Any], int]:
    """The last training loss and the last evaluation; its step."""
    losses = [entry for entry in log if "loss" in entry]
    figures = {f"loss (step {entry['step']})": f"{entry['loss']:.4g}" for entry in losses[-1:]}
    evaluations = [entry for entry in log if "eval_loss" in entry]
    for entry in evaluations[-1:]:
        for name, value in entry.items():
            if name.startswith("eval_") and not name.endswith(TIMES):
                figures[f"{name} (step {entry['step']})"] = f"{value:.4g}"
    return figures, evaluations[-1]["step"] if evaluations else -1


def _table(heading: str, values: Mapping[str, Any]) -> list[str]:
    rows = [f"| {as_code(name)} | {as_code(_shown(value))} |" for name, value in values.items()]
    return [f"| {heading} | value |", "|---|---|", *rows]


def _shown(value: Any) -> str:
    value = getattr(value, "value", value)  # of an enum member
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _current_evaluation(folder: Path) -> Results | None:
    """The ``evaluation.json`` of these very weights."""
    file = folder / EVALUATION_FILE
    if not file.is_file():
        return None
    weights = [path.stat().st_mtime_ns for path in folder.glob("*.safetensors")]
    if file.stat().st_mtime_ns < max(weights, default=0):
        logger.info("%s is older than the weights; the model card omits it", file)
        return None
    return Results.from_json(json.loads(file.read_text(encoding="utf-8")))
