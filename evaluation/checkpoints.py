"""The checkpoints of a run, and which of them is the best."""

import filecmp
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.json_files import write_json
from common.run_files import BEST_FILE, RUN_FILE, STATE_FILE
from evaluation.metrics.pairs import MetricValue

WEIGHTS = "model.safetensors"


def find_checkpoints(run: Path) -> dict[str, Path]:
    """Return the folders of a run's models by name, the earliest first; "." is the final one.

    The final model is left out where its weights are those of a checkpoint.

    Raises:
        ValueError: There is no checkpoint.
    """
    steps = [path for path in run.glob("checkpoint-*") if path.name[11:].isdigit()]
    found = {path.name: path for path in sorted(steps, key=lambda path: int(path.name[11:]))}
    if not found:
        raise ValueError(
            f"checkpoints: there is no checkpoint-N folder in {run}; give the output_dir of a "
            "run that saves checkpoints (save_strategy, save_total_limit)"
        )
    final = run / WEIGHTS
    known = (path / WEIGHTS for path in found.values())
    if final.is_file() and not any(
        path.is_file() and filecmp.cmp(path, final, shallow=False) for path in known
    ):
        found["."] = run
    return found


def find_recipe(folder: Path) -> dict[str, Any] | None:
    """Return the recipe of the run whose output folder, or checkpoint, a folder is; or None."""
    for place in (folder, folder.resolve().parent):
        if (place / RUN_FILE).is_file():
            recipe: dict[str, Any] = json.loads((place / RUN_FILE).read_text(encoding="utf-8"))
            return recipe
    return None


def read_train_config(folder: Path) -> dict[str, Any]:
    """Return the recipe of the run whose output folder, or checkpoint, a folder is.

    Raises:
        ValueError: It is neither.
    """
    recipe = find_recipe(folder)
    if recipe is not None:
        return recipe
    raise ValueError(
        f"{folder} is not a checkpoint of a run: neither it nor the folder above it has a "
        f"{RUN_FILE}"
    )


def choose_best(values: Mapping[str, MetricValue], lower_is_better: bool) -> str | None:
    """Return the name with the best value; of equal ones the first, which is the least trained.

    None if the metric is undefined for all of them.
    """
    known = {name: value for name, value in values.items() if not isinstance(value, str)}
    sign = -1 if lower_is_better else 1
    return max(known, key=lambda name: sign * known[name], default=None)


def write_best(
    run: Path, name: str, metric: str, values: Mapping[str, MetricValue], data: str
) -> None:
    """Write which of a run's models is to be served, and why; null where a value is undefined."""
    content = {
        "checkpoint": name,
        "metric": metric,
        "value": values[name],
        "data": data,
        "all": {n: None if isinstance(value, str) else value for n, value in values.items()},
    }
    write_json(run / BEST_FILE, content)


def read_log(folder: Path) -> list[dict[str, Any]] | None:
    """Return the training log of a run's model; None for other models."""
    file = folder / STATE_FILE
    if not file.is_file():
        return None
    log: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["log_history"]
    return log
