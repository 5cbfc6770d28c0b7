"""Arguments with their objective, of a run and of its sources: checked against each other."""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

from torch import nn

from common.flags import check_key
from common.typed_values import typed
from encoders.kinds import KINDS, ModelKind
from losses import MatryoshkaLoss
from trainers.config.arguments import TandemArguments, check_labels
from trainers.config.fields import SOURCE_SETTINGS
from trainers.contrastive import ContrastiveTrainer
from trainers.objectives import OBJECTIVES, Objective

# Settings of models that retrieve, of those that read each text alone, and of the others.
ONLY_FOR: list[tuple[Callable[[ModelKind], bool], tuple[str, ...]]] = [
    (
        lambda kind: kind.retrieves,
        ("eval_corpus", "matryoshka_dims", "matryoshka_weights", "pooling", "normalize",
         "append_eos_token"),
    ),
    (
        lambda kind: not kind.reads_pairs,
        ("projection_dim", "query_max_length", "document_max_length"),
    ),
    (lambda kind: kind.reads_pairs, ("max_length",)),
]  # fmt: skip
# Own settings of a source that rows of one batch must have in common.
SHARED_IN_A_BATCH = ("objective", "loss_args", "document_prompt", "train_group_size")


@dataclass(frozen=True)
class TrainingTask:
    """An objective with its arguments: what a ``Run`` and each ``TrainingSource`` of it are.

    Args:
        args: The run's arguments, or a source's: the run's with the source's own settings.
        objective: The row of ``OBJECTIVES`` that ``args.objective`` names.
    """

    args: TandemArguments
    objective: Objective

    def build_loss(self) -> nn.Module:
        """The objective's loss with the arguments' ``loss_args``."""
        loss = self.objective.loss(**self.args.loss_args)
        if self.args.matryoshka_dims is None:
            return loss
        return MatryoshkaLoss(loss, self.args.matryoshka_dims, self.args.matryoshka_weights)


def find_objective(args: TandemArguments) -> Objective:
    """The objective that the arguments name; ``loss_args`` are converted to its types.

    Raises:
        ValueError: It does not exist, or a setting does not go with it; begins with the key.
    """
    if args.objective not in OBJECTIVES:
        raise ValueError(f"objective: {args.objective!r} is not one of {', '.join(OBJECTIVES)}")
    objective = OBJECTIVES[args.objective]
    contrastive = objective.trainer is ContrastiveTrainer
    if args.gradient_cache_chunk_size is not None and not contrastive:
        raise ValueError(
            "gradient_cache_chunk_size: is for contrastive objectives; for others accumulate "
            "batches (gradient_accumulation_steps), which gives the same gradients"
        )
    alone = args.per_device_train_batch_size == args.train_group_size == 1
    if contrastive and alone:
        raise ValueError(
            "per_device_train_batch_size: 1 with train_group_size 1 leaves contrastive without any "
            "negative; raise one of them"
        )
    smallest = 2 if objective.needs_negatives or objective.needs_scores else 1
    if args.train_group_size < smallest:
        raise ValueError(
            f"train_group_size: must be at least {smallest} for objective {args.objective}, got "
            f"{args.train_group_size}"
        )
    _check_loss_args(args, objective)
    takes_groups = "candidate_group" in objective.shapes and not objective.needs_scores
    if args.in_batch_negatives and not (KINDS[objective.model].reads_pairs and takes_groups):
        raise ValueError(
            "in_batch_negatives: is for rerankers that learn from groups without a teacher's "
            f"scores, not for objective {args.objective}; leave it out"
        )
    has_margin = {"absolute_margin", "relative_margin"} & args.loss_args.keys()
    if args.guide_model is not None and not (contrastive and has_margin):
        raise ValueError(
            "guide_model: finds false negatives of contrastive objectives by a margin; give "
            'loss_args {"absolute_margin": 0}, or leave guide_model out'
        )
    return objective


def check_kind(task: TrainingTask) -> None:
    """Refuse settings of another kind of model.

    Raises:
        ValueError: It begins with the key.
    """
    trained = KINDS[task.objective.model]
    for takes, names in ONLY_FOR:
        for name in names:
            if getattr(task.args, name) is not None and not takes(trained):
                takers = [f"the {row.labels['en']}" for row in KINDS.values() if takes(row)]
                raise ValueError(
                    f"{name}: is for {' and '.join(takers)}, but objective {task.args.objective} "
                    f"trains the {trained.labels['en']}; leave it out"
                )


def _check_loss_args(args: TandemArguments, objective: Objective) -> None:
    loss = objective.loss
    allowed = [name for name in signature(loss).parameters if name not in {"args", "kwargs"}]
    for name in args.loss_args:
        if name not in allowed:
            takes = ", ".join(allowed) or "no arguments"
            raise ValueError(f"loss_args: {name}: {args.objective} takes {takes}")
        hint = get_type_hints(loss.__init__)[name]
        args.loss_args[name] = typed(f"loss_args: {name}", args.loss_args[name], hint)
    try:
        loss(**args.loss_args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"loss_args: {error}") from None


@dataclass(frozen=True)
class TrainingSource(TrainingTask):
    """One entry of ``train_files``: files, an objective to train them by, a weight.

    Its ``args`` are the run's, with the source's files as ``train_file`` and its own settings in
    place of the run's.

    Args:
        name: In logs and messages; different from those of the other sources.
        weight: How often an epoch takes each of its rows.
    """

    name: str
    weight: float


def build_sources(run: TrainingTask) -> list[TrainingSource]:
    """The sources that a run's ``train_files`` names; none for a run with one ``train_file``.

    Raises:
        ValueError: An entry that cannot work; it names entry and key.
    """
    sources: list[TrainingSource] = []
    for number, entry in enumerate(run.args.train_files or []):
        source = _build(f"train_files[{number}]", entry, run)
        for other, known in enumerate(sources):
            if known.name == source.name:
                raise ValueError(
                    f"train_files[{number}].name: {source.name!r} is the name of train_files"
                    f"[{other}] too; give one of them another name"
                )
        sources.append(source)
    return sources


def _build(place: str, entry: str | Mapping[str, Any], run: TrainingTask) -> TrainingSource:
    args = run.args
    given = _typed_entry(place, {"path": entry} if isinstance(entry, str) else entry, type(args))
    if not given.get("path"):
        raise ValueError(f"{place}.path: is missing; give a path, a list, a folder or a data set")
    path = given.pop("path")
    files = [path] if isinstance(path, str) else path
    # Part of a file's name and of a log's key.
    name = given.pop("name", None) or re.sub(r"[^\w.-]", "_", Path(files[0]).stem)
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{place}.name: {name!r} may contain only letters, digits, _ - and .")
    weight = given.pop("weight", 1.0)
    if weight <= 0:
        raise ValueError(
            f"{place}.weight: must be above 0, got {weight:g}; leave the source out to train "
            "without it"
        )
    if args.batches_from == "all_sources":
        _check_shared(place, given, args)
    own, objective = _own_settings(place, run, {**given, "train_file": files})
    return TrainingSource(own, objective, name, weight)


def _typed_entry(place: str, entry: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The entry's keys with checked values; null is as if the key were not there."""
    hints: dict[str, Any] = {"path": list[str] | str, "name": str, "weight": float}
    settings = get_type_hints(kind)
    hints |= {name: settings[name] for name in SOURCE_SETTINGS}
    values = {}
    for name, value in entry.items():
        check_key(f"{place}.{name}", name, hints, hint=f"a source has {', '.join(hints)}")
        if value is not None:
            values[name] = typed(f"{place}.{name}", value, hints[name])
    return values


def _check_shared(place: str, given: Mapping[str, Any], args: TandemArguments) -> None:
    for name in SHARED_IN_A_BATCH:
        if name in given and given[name] != getattr(args, name):
            raise ValueError(
                f"{place}.{name}: cannot differ between sources whose rows share batches; give "
                'batches_from "one_source", or leave it out'
            )


def _own_settings(
    place: str, run: TrainingTask, given: dict[str, Any]
) -> tuple[TandemArguments, Objective]:
    own = copy.copy(run.args)
    own.train_files = None
    if "objective" in given:  # the run's loss_args are of another loss
        own.loss_args = {}
    for name, value in given.items():
        setattr(own, name, value)
    own.loss_args = dict(own.loss_args)
    try:
        check_labels(own)
        objective = find_objective(own)
    except ValueError as error:
        raise ValueError(f"{place}.{error}") from None
    if objective.model != run.objective.model:
        raise ValueError(
            f"{place}.objective: {own.objective} trains the {objective.model}, but the run's "
            f"objective {run.args.objective} trains the {run.objective.model}; one run trains one "
            "model"
        )
    return own, objective
