"""Suites: several tasks measured one after the other, resumed task by task, and their mean."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from rich.console import Console
from rich.table import Table

from common.json_files import write_json
from common.prompts import Side
from common.run_files import SUITE_FILE
from encoders.kinds import detect_kind
from evaluation.data.mteb_task import SUITES, benchmark_tasks
from evaluation.data.resolve import MTEB
from evaluation.report.tables import UNDEFINED
from evaluation.results import BASE, TUNED, MetricResult, Results
from evaluation.search.fusion import BM25_SCORES, first_stage_digest, read_fusion
from evaluation.settings import EvaluationSettings, open_model
from loaders.formats.folders import everything_in
from loaders.formats.opening import open_text, read_errors

# Settings that change no figure, and those of which the models' own digests tell.
NOT_MEASURED = (
    "data", "suite", "output_dir", "language", "show_queries", "tokens_per_batch", "model",
    "baseline", "checkpoint_dir", "first_stage",
)  # fmt: skip
_OF_FOLDER = re.compile(r"(:[\w.-]+)?(@[\w.+-]+)?$")  # behind its name: :config and @split
IDENTITY_FILE = "measured.json"  # in a task's folder: what its evaluation is of


class SuiteTask(NamedTuple):
    """One task: what to give as ``data``, and its weight in the mean."""

    data: str
    weight: float


def read_suite(suite: str) -> list[SuiteTask]:
    """The tasks of a suite by name, or of a file that lists BEIR folders and ``mteb:TASK``.

    Parts of a task that stands for several (CQADupstack) count together as one.

    Args:
        suite: One of ``SUITES``, or a file: a JSON list, or one entry a line.

    Raises:
        ValueError: There is no such suite or file, or it names nothing, or one thing twice.
    """
    if suite in SUITES:
        groups = [[MTEB + name for name in parts] for parts in benchmark_tasks(SUITES[suite])]
    elif (file := Path(suite).expanduser()).is_file():
        groups = [[name] for name in _read_list(file)]
    else:
        raise ValueError(
            f"suite: {suite!r} is neither a file nor one of {', '.join(SUITES)}; give a file that "
            "lists BEIR folders and mteb:TASK, one a line"
        )
    names = [name for group in groups for name in group]
    if not names or len(set(names)) < len(names):
        repeated = next((name for name in names if names.count(name) > 1), None)
        reason = "names no task" if repeated is None else f"names {repeated} more than once"
        raise ValueError(f"suite: {suite} {reason}")
    tasks = [SuiteTask(name, 1 / len(groups) / len(group)) for group in groups for name in group]
    folders: dict[str, str] = {}
    for task in tasks:
        if not folder_of(task):
            raise ValueError(f"suite: the folder of {task.data} has no name; give its whole path")
        other = folders.setdefault(folder_of(task), task.data)
        if other != task.data:
            raise ValueError(
                f"suite: {other} and {task.data} would have their results in one folder; rename one"
            )
    return tasks


def _read_list(file: Path) -> list[str]:
    with read_errors(file), open_text(file, newline="\n") as stream:
        text = stream.read()
    if not text.lstrip().startswith("["):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"suite: {file} is not JSON: {error}") from None
    if not all(isinstance(name, str) for name in found):
        raise ValueError(f"suite: {file} must be a list of texts")
    return [str(name) for name in found]


def files_of(name: str) -> list[list[Any]]:
    """Name, size and time of a file, or of each in a folder: changed data are measured anew."""
    given = Path(name).expanduser()
    if not given.exists():
        given = Path(_OF_FOLDER.sub("", name)).expanduser()
    files = [path for path in (given, *sorted(everything_in(given))) if path.is_file()]
    found = [(path.as_posix(), path.stat()) for path in files]
    # The last time is the only one that copying and unpacking cannot set to that of before.
    return [[name, of.st_size, of.st_mtime_ns, of.st_ctime_ns] for name, of in found]


def identity_of(args: EvaluationSettings, models: Sequence[str]) -> dict[str, Any]:
    """What the figures of a task depend on beside its data: models by content, and settings."""
    identity = []
    for name in models:
        if name == BM25_SCORES:
            identity.append(name)
            continue
        model = open_model(name, detect_kind(name), args)
        digest = first_stage_digest(model, read_fusion(name, model))
        lengths = dict.fromkeys(str(model.find_length(side)) for side in get_args(Side))
        identity.append(f"{digest}, {' '.join(lengths)} tokens")
    settings = {k: str(v) for k, v in vars(args).items() if k not in NOT_MEASURED}
    found = {"models": identity, "settings": settings}
    return found | ({"corpus": files_of(args.corpus)} if args.corpus else {})


def folder_of(task: SuiteTask) -> str:
    """The name of a task's folder, readable."""
    return re.sub(r"[^\w.-]+", "_", task.data.removeprefix(MTEB)).strip("_.")


def read_measured(folder: Path, identity: Mapping[str, Any]) -> Results | None:
    """The results in a task's folder, if they are of these models and settings."""
    try:
        known = json.loads((folder / IDENTITY_FILE).read_text(encoding="utf-8"))
        if known != {"identity": identity, "results": known.get("results")}:
            return None
        return Results.from_json(known["results"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not measured yet, or killed while it was written


def write_measured(folder: Path, identity: Mapping[str, Any], results: Results) -> None:
    """Keep a task's results, of which the next run asks."""
    write_json(folder / IDENTITY_FILE, {"identity": identity, "results": results.to_json()})


def mean_of(found: Sequence[Results], weights: Sequence[float], metric: str) -> dict[str, Any]:
    """A metric's mean over the tasks, by model; with a base, the difference and its interval.

    The tasks are given, not drawn: the interval is that of other queries to the same tasks, which
    are independent, so that half its length is the root of the sum of (weight * half-length)^2.

    Raises:
        ValueError: The metric has no value on one of them.
    """
    for results in found:
        if metric not in results.metrics:
            raise ValueError(f"{metric} is not measured on {results.data}")
    values = [results.metrics[metric] for results in found]
    for results, own in zip(found, values, strict=True):
        if own.undefined is not None:
            raise ValueError(f"{metric} is undefined on {results.data}: {own.undefined}")
    pairs = list(zip(weights, values, strict=True))
    mean: dict[str, Any] = {
        which: sum(weight * (own.values[which] or 0.0) for weight, own in pairs)
        for which in values[0].values
    }
    compared = [(weight, own.comparison) for weight, own in pairs if own.comparison is not None]
    if compared and len(compared) == len(pairs):
        difference = sum(weight * by.difference for weight, by in compared)
        half = sum((weight * (by.high - by.low) / 2) ** 2 for weight, by in compared) ** 0.5
        mean |= {"difference": difference, "low": difference - half, "high": difference + half}
    return mean


def run_suite(
    tasks: Sequence[SuiteTask],
    output: Path,
    identity: Mapping[str, Any],
    measure: Callable[[str, Path], Results],
    show: Callable[[Results], None],
) -> None:
    """Measure the tasks whose results are not in ``output`` yet; print and write the mean.

    Args:
        tasks: Of the suite.
        output: The folder for all of them.
        identity: See ``identity_of``.
        measure: From a task's data and folder to its results, which it prints.
        show: Prints the results that are there.
    """
    found: dict[str, Results] = {}
    for task in tasks:
        folder, own = output / folder_of(task), {**identity, "files": files_of(task.data)}
        # The first process decides for all: the others may be on machines without its folder.
        (results,) = broadcast_object_list([read_measured(folder, own)])
        if results is None:
            if PartialState().is_main_process:
                (output / SUITE_FILE).unlink(missing_ok=True)  # of what was there before
            results = measure(task.data, folder)
            if PartialState().is_main_process:
                write_measured(folder, own, results)
        elif PartialState().is_main_process:
            show(results)
        PartialState().wait_for_everyone()
        found[task.data] = results
    if not PartialState().is_main_process:
        return
    metric, mean = next(iter(found.values())).main_metric, {}
    try:
        mean = mean_of(list(found.values()), [task.weight for task in tasks], metric)
    except ValueError as reason:
        print(f"there is no mean: {reason}")
    show_suite(found, mean, metric, Console())
    file = output / SUITE_FILE
    write_json(file, {"metric": metric, "mean": mean, "tasks": list(found)})
    print(f"the mean is in {file}")


def show_suite(
    found: Mapping[str, Results], mean: Mapping[str, Any], metric: str, console: Console
) -> None:
    """Print a row for each task, and the mean."""
    compared = all(results.compared for results in found.values())
    names = [BASE, TUNED, "difference [95 % interval]"] if compared else [TUNED]
    table = Table("task", "queries", "documents", *names, title=metric, title_justify="left")
    for task, results in found.items():
        own = results.metrics.get(metric, MetricResult({}))
        cells = [f"{results.counts.get(name, 0):,}" for name in ("queries", "documents")]
        cells += [_figure(own.values.get(which)) for which in names[: 1 + compared]]
        by = own.comparison
        table.add_row(task, *cells, *([_interval(by._asdict()) if by else ""] * compared))
    if mean:
        cells = ["", "", *(_figure(mean[which]) for which in names[: 1 + compared])]
        table.add_row(
            "mean", *cells, *([_interval(mean)] if "difference" in mean else []), style="bold"
        )
    console.print(table)


def _figure(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.4f}"


def _interval(by: Mapping[str, Any]) -> str:
    return f"{by['difference']:+.4f} [{by['low']:+.4f}, {by['high']:+.4f}]"
