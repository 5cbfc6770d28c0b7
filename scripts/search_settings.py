"""Search the settings of a recipe: several runs, each with values that a sampler chooses.

    python scripts/search_settings.py --recipe configs/search.json --trials 20 \\
        --output_dir outputs/search

In the recipe, ranges stand in place of values: {"learning_rate": {"log": [1e-5, 2e-4]},
"train_group_size": {"uniform": [2, 8]}, "loss_args": {"temperature": {"choice": [0.02, 0.05]}}}.
Each trial is a run of scripts/train.py in a folder of its own; what counts is a metric of its
eval_file at its last evaluation. Optuna chooses the values (TPE) and ends runs early that fall
behind the median of the others (--prune false: never). All is kept in study.db: a search that was
stopped continues when the same command is started again. The best recipe is best_recipe.json, the
best model best/; the other trials keep their logs only. accelerate launch runs each trial on
several processes.
"""

import gc
import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback

from common.flags import Settings, exit_code, option, parse, required
from common.recipe import read_recipe
from common.run_files import CARD_FILE, RUN_FILE, WEIGHT_FILES
from scripts.train import train
from trainers import parse_run
from trainers.base import BaseTrainer
from trainers.config.search_space import (
    Range,
    TrialReporter,
    broadcast,
    fill,
    find_metric,
    find_ranges,
)

FIRST_SIGNAL = 128  # of the exit codes: what is above was a signal
WEIGHTS = ("checkpoint-*", *WEIGHT_FILES, "adapter")
# Keys of every trial's recipe: only the best model may be pushed, and by hand.
TRIAL = {"overwrite": True, "push_to_hub": False, "on_worse": "warn"}
MOST_FAILED = 3  # trials at the beginning: then the recipe is wrong, not the values
RECIPE_FILE = "best_recipe.json"
STUDY_FILE = "study.db"
BEST_FOLDER = "best"

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class SearchSettings(Settings):
    """Search."""

    recipe: Path = required("A recipe of train.py with ranges, and an eval_file.")
    output_dir: Path = required("For the trials, the study and the best recipe.")
    trials: int = option(20, "How many trials, including those of earlier calls.", least=1)
    metric: str | None = option(
        None, "A metric of eval_file, or loss (lower is better); null: its first metric."
    )
    prune: bool = option(True, "End runs early if they fall behind.")
    seed: int = option(0, "Of the sampler.")


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after a one-line error."""
    return exit_code(lambda: search(parse(SearchSettings, argv, __doc__)))


def search(args: SearchSettings) -> None:
    """Run the trials that are missing, then show all of them and write the best recipe."""
    recipe = read_recipe(args.recipe, "recipe")
    ranges = find_ranges(recipe)
    if not ranges:
        raise ValueError(
            f'recipe: {args.recipe} has no range; give one, such as "learning_rate": '
            '{"log": [1e-5, 2e-4]}'
        )
    os.environ["FORK_LAUNCHED"] = "1"  # accelerate then leaves the processes' group to the next run
    # Under accelerate launch, the processes find each other here.
    PartialState(cpu=not torch.accelerator.is_available())
    study = None
    if PartialState().is_main_process:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(args.output_dir / ".lock")
        try:
            lock.acquire(timeout=0)  # until the process ends
        except Timeout:
            raise ValueError(f"output_dir: another search runs in {args.output_dir}") from None
        study = open_study(args, recipe)
    while broadcast(study is not None and count_ended(study) < args.trials):
        run_trial(args, recipe, ranges, study)
    if study is not None:
        finish(args, recipe, study)
    if PartialState().num_processes > 1:
        PartialState().wait_for_everyone()
        PartialState().destroy_process_group()
        time.sleep(0.5)  # as in scripts/train.py


def open_study(args: SearchSettings, recipe: dict[str, Any]) -> Any:
    """The study in the output folder; trials that did not end are queued again.

    Raises:
        ValueError: Optuna is not installed, or the study is of another recipe or metric.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError(
            "search_settings.py needs optuna: pip install -c constraints.txt -e '.[search]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = args.output_dir / STUDY_FILE
    study = optuna.create_study(
        storage=f"sqlite:///{file}",
        study_name="search",
        direction="minimize" if args.metric == "loss" else "maximize",
        load_if_exists=True,
    )
    about = {"metric": args.metric, "recipe": recipe}
    has_values = any(trial.value is not None for trial in study.trials)
    if has_values and study.user_attrs.get("about") != about:
        raise ValueError(
            f"recipe: {file} belongs to a search with another recipe or metric; give the same "
            "ones again, or another output_dir"
        )
    study.set_user_attr("about", about)
    if not has_values:  # nothing went well yet: failures say nothing of the values
        study.set_user_attr("mistakes", [t.number for t in study.trials if t.state.is_finished()])
    study.sampler = optuna.samplers.TPESampler(seed=args.seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner() if args.prune else optuna.pruners.NopPruner()
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        # The processes of that search are gone.
        study._storage.set_trial_user_attr(trial._trial_id, "again", True)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if has_values or len(trial.params) == len(find_ranges(recipe)):
            study.enqueue_trial(trial.params)
    tidy(args.output_dir, study)
    return study


def counted(study: Any) -> list[Any]:
    """Trials but those that are run again, and those that an earlier recipe's mistake cost."""
    mistakes = study.user_attrs.get("mistakes", [])
    return [t for t in study.trials if "again" not in t.user_attrs and t.number not in mistakes]


def count_ended(study: Any) -> int:
    """Trials that ended: with a value, given up, or with an error."""
    return sum(trial.state.is_finished() for trial in counted(study))


def run_trial(
    args: SearchSettings, recipe: dict[str, Any], ranges: Sequence[Range], study: Any
) -> None:
    """Train with new values, and tell the study what they are worth."""
    from optuna.trial import TrialState

    trial = None if study is None else study.ask()
    drawn = {} if trial is None else {own.name: own.draw(trial) for own in ranges}
    number, values = broadcast((trial and trial.number, drawn))
    folder = args.output_dir / f"trial-{number}"
    file = folder.with_suffix(".json")
    if trial is not None:
        write_recipe(file, fill(recipe, values) | TRIAL | {"output_dir": str(folder)})
        logger.info("trial %d: %s", number, in_words(values))
    PartialState().wait_for_everyone()
    reporters: list[TrialReporter] = []

    def callbacks(trainer: BaseTrainer) -> list[TrainerCallback]:
        reporters.append(TrialReporter(trial, f"eval_{find_metric(args.metric, trainer)}"))
        return [*reporters]

    reason, value = None, None
    try:
        run = parse_run(["--config", str(file)])
        if run.args.merge_with_base is not None:
            raise ValueError(
                "merge_with_base: changes the model after its last evaluation; leave it out, and "
                "merge the best model by scripts/merge.py"
            )
        remedy = f"trial {number} will run again when the same search is restarted"
        trainer = train(run, callbacks, lambda _: remedy)
        value = reporters[0].value(trainer.state, run.args.load_best_model_at_end)
    except ValueError as error:
        reason = str(error)
    except torch.OutOfMemoryError:
        reason = "the device ran out of memory"
    except SystemExit as stop:
        if int(stop.code or 0) >= FIRST_SIGNAL:
            raise
        reason = f"see {folder}"
    gc.collect()
    if trial is None:
        return
    pruned = bool(reporters) and reporters[0].pruned
    if reason is None and (pruned or value is not None):
        study.tell(trial, None if pruned else value, TrialState.PRUNED if pruned else None)
    else:
        reason = reason or "its metric is undefined"
        study.tell(trial, state=TrialState.FAIL)
        logger.warning("trial %d failed: %s", number, reason)
    tidy(args.output_dir, study)
    ended = counted(study)
    if len(ended) == MOST_FAILED and all(trial.state == TrialState.FAIL for trial in ended):
        raise ValueError(f"recipe: the first {MOST_FAILED} trials failed; the last: {reason}")


def tidy(output: Path, study: Any) -> None:
    """Have the best trial's folder at ``best``; drop the weights of the others that ended.

    Also what a search that was killed meanwhile has left undone.
    """
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    complete = [trial for trial in ended if trial.state.name == "COMPLETE"]
    best = output / BEST_FOLDER
    number = study.best_trial.number if complete else None
    if number is not None and (output / f"trial-{number}").is_dir():
        if best.is_dir():
            # What it was called when it was written, which no kill can separate from it.
            before = json.loads((best / RUN_FILE).read_text(encoding="utf-8"))["output_dir"]
            best.rename(output / Path(before).name)
        name_in_card(output / f"trial-{number}", best)
        (output / f"trial-{number}").rename(best)
    for folder in (output / f"trial-{trial.number}" for trial in ended):
        for path in (path for pattern in WEIGHTS for path in folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def name_in_card(folder: Path, name: Path) -> None:
    """Let the model card in a folder speak of the folder that this one becomes."""
    card = folder / CARD_FILE
    if card.is_file():
        text = card.read_text(encoding="utf-8").replace(str(folder), str(name))
        text = text.replace(f"\n# {folder.name}\n", f"\n# {name.name}\n")
        card.write_text(text, encoding="utf-8")


def finish(args: SearchSettings, recipe: dict[str, Any], study: Any) -> None:
    """Show all trials, the best first, and write the best recipe.

    Raises:
        ValueError: No trial came to its end.
    """
    names = list(dict.fromkeys(name for trial in study.trials for name in trial.params))
    table = Table("trial", "value", "state", *names)
    sign = 1 if args.metric == "loss" else -1
    ended = counted(study)
    for trial in sorted(ended, key=lambda t: math.inf if t.value is None else sign * t.value):
        value = "" if trial.value is None else f"{trial.value:.4f}"
        cells = [in_words({"": trial.params.get(name, "")}).strip("= ") for name in names]
        table.add_row(str(trial.number), value, trial.state.name.lower(), *cells)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if not any(trial.state.name == "COMPLETE" for trial in ended):
        raise ValueError(f"trials: none finished; see the logs in {args.output_dir}")
    best, file = study.best_trial, args.output_dir / RECIPE_FILE
    write_recipe(file, fill(recipe, best.params))
    print(f"best: trial {best.number}, {best.value:.4f}; {file}, {args.output_dir / BEST_FOLDER}")


def write_recipe(file: Path, recipe: dict[str, Any]) -> None:
    """Write a recipe as JSON."""
    text = json.dumps(recipe, ensure_ascii=False, indent=2)
    file.write_text(text + "\n", encoding="utf-8")


def in_words(values: dict[str, Any]) -> str:
    """Settings in a line."""
    shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in values.items()}
    return ", ".join(f"{name} = {value}" for name, value in shown.items())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
