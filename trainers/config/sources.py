"""The sources of ``train_files``: files, weight, and settings of their own."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from common.flags import check_key
from common.typed_values import typed
from trainers.config.argument_checks import check_labels
from trainers.config.arguments import TandemArguments
from trainers.config.fields import OWN_SETTINGS
from trainers.config.task import Task, find_objective

# Own settings that rows of one batch must have in common.
SHARED_IN_A_BATCH = ("objective", "loss_args", "document_prompt", "train_group_size")


@dataclass(frozen=True)
class Source(Task):
    """One entry of ``train_files``.

    Its ``args`` are the run's, with the source's files as ``train_file`` and its own settings in
    place of the run's.

    Args:
        name: In logs and messages; different from those of the other sources.
        weight: How often an epoch takes each of its rows.
    """

    name: str
    weight: float


def build_sources(run: Task) -> list[Source]:
    """The sources that a run's ``train_files`` names; none for a run with one ``train_file``.

    Raises:
        ValueError: An entry that cannot work; it names entry and key.
    """
    sources: list[Source] = []
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


def _build(place: str, entry: str | Mapping[str, Any], run: Task) -> Source:
    args = run.args
    given = _typed_entry(place, {"path": entry} if isinstance(entry, str) else entry, type(args))
    if not given.get("path"):
        raise ValueError(f"{place}.path: is missing; give a path, a list, a folder or a data set")
    path = given.pop("path")
    files = [path] if isinstance(path, str) else path
    # Part of a file's name and of a log's key.
    name = given.pop("name", None) or re.sub(r"[^\w.-]", "_", Path(files[0]).stem)
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{place}.name: {name!r} may have letters, digits, _ - and . only")
    weight = given.pop("weight", 1.0)
    if weight <= 0:
        raise ValueError(
            f"{place}.weight: must be above 0, got {weight:g}; leave the source out to train "
            "without it"
        )
    if args.batches_from == "all_sources":
        _check_shared(place, given, args)
    own = _own_task(place, run, {**given, "train_file": files})
    return Source(own.args, own.objective, name, weight)


def _typed_entry(place: str, entry: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The entry's keys with checked values; null is as if the key were not there."""
    hints: dict[str, Any] = {"path": list[str] | str, "name": str, "weight": float}
    settings = get_type_hints(kind)
    hints |= {name: settings[name] for name in OWN_SETTINGS}
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
                f"{place}.{name}: a source has no {name} of its own where the rows of all sources "
                'share batches; give batches_from "one_source", or leave it out'
            )


def _own_task(place: str, run: Task, given: dict[str, Any]) -> Task:
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
            f"objective {run.args.objective} the {run.objective.model}; one run trains one model"
        )
    return Task(own, objective)
