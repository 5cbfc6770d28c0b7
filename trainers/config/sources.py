"""The sources of ``train_files``: which rows, how often, and with which settings of their own."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

from common.flags import check_key
from common.typed_values import typed

if TYPE_CHECKING:
    from trainers.config.arguments import TandemArguments

# Keys of a recipe that a source may have its own value of.
OWN_SETTINGS = (
    "objective",
    "loss_args",
    "query_prompt",
    "document_prompt",
    "train_group_size",
    "label_map",
    "label_range",
    "relevance_from_scores",
    "positive_threshold",
    "columns",
    "split",
)
# Those of them that rows of one batch must have in common.
SHARED_IN_A_BATCH = ("objective", "loss_args", "document_prompt", "train_group_size")


class Source(NamedTuple):
    """One entry of ``train_files``.

    Args:
        name: In logs and messages; different from those of the other sources.
        weight: How often an epoch takes each of its rows.
        args: The run's arguments, with the source's files as ``train_file`` and its own settings
            in the place of the run's.
    """

    name: str
    weight: float
    args: "TandemArguments"


def build_sources(args: "TandemArguments") -> list[Source]:
    """The sources that a run's ``train_files`` names; none for a run with one ``train_file``.

    Raises:
        ValueError: An entry that cannot be; it names entry and key.
    """
    sources: list[Source] = []
    for number, entry in enumerate(args.train_files or []):
        source = _build(f"train_files[{number}]", entry, args)
        for other, known in enumerate(sources):
            if known.name == source.name:
                raise ValueError(
                    f"train_files[{number}].name: {source.name!r} is the name of train_files"
                    f"[{other}] too; give one of them another name"
                )
        sources.append(source)
    return sources


def _build(place: str, entry: str | Mapping[str, Any], args: "TandemArguments") -> Source:
    given = _typed_entry(place, {"path": entry} if isinstance(entry, str) else entry, type(args))
    if not given.get("path"):
        raise ValueError(f"{place}.path: is missing; give a path, a list, a folder or a data set")
    path = given.pop("path")
    files = [path] if isinstance(path, str) else path
    # As a file and as a log's key it must do.
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
    return Source(name, weight, _own_arguments(place, args, {**given, "train_file": files}))


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


def _check_shared(place: str, given: Mapping[str, Any], args: "TandemArguments") -> None:
    for name in SHARED_IN_A_BATCH:
        if name in given and given[name] != getattr(args, name):
            raise ValueError(
                f"{place}.{name}: a source has no {name} of its own where the rows of all sources "
                'share batches; give batches_from "one_source", or leave it out'
            )


def _own_arguments(place: str, args: "TandemArguments", given: dict[str, Any]) -> "TandemArguments":
    own = copy.copy(args)
    own.train_files = None
    if "objective" in given:  # the run's arguments of the loss are of another loss
        own.loss_args = {}
    for name, value in given.items():
        setattr(own, name, value)
    own.loss_args = dict(own.loss_args)
    try:
        own.check_objective()
    except ValueError as error:
        raise ValueError(f"{place}.{error}") from None
    if own.objective_spec.model != args.objective_spec.model:
        raise ValueError(
            f"{place}.objective: {own.objective} trains the {own.objective_spec.model}, but the "
            f"run's objective {args.objective} the {args.objective_spec.model}; one run trains one "
            "model"
        )
    return own
