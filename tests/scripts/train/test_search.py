"""scripts/search_settings.py: what it draws, keeps, gives up, and goes on with."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from common.run_files import LOG_FILE
from forked import together
from launching import TWO_PROCESSES, launched_environment
from runs import assert_same_weights, losses, train, write_format
from scripts.search_settings import main, tidy
from trainers.config.search_space import Range, TrialReporter, fill, find_ranges

optuna = pytest.importorskip("optuna")


def test_ranges_are_found_drawn_and_filled_in() -> None:
    recipe = {
        "learning_rate": {"log": [1e-5, 1e-3]},
        "train_group_size": {"uniform": [2, 8]},
        "weight_decay": {"uniform": [0, 0.5]},
        "loss_args": {"temperature": {"choice": [0.02, 0.05]}, "symmetric": True},
        "columns": {"choice": "query"},
        "label_map": {"log": 1.0},
    }
    ranges = find_ranges(recipe)
    assert [own.name for own in ranges] == [
        "learning_rate",
        "train_group_size",
        "weight_decay",
        "loss_args.temperature",
    ]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = []
    for _ in range(200):
        trial = study.ask()
        drawn.append({own.name: own.draw(trial) for own in ranges})
    rates = sorted(values["learning_rate"] for values in drawn)
    assert 1e-5 <= rates[0] < rates[-1] <= 1e-3
    assert 5e-5 < rates[100] < 2e-4  # the middle of a log range is the geometric mean
    assert {values["train_group_size"] for values in drawn} == set(range(2, 9))
    assert all(isinstance(values["weight_decay"], float) for values in drawn)
    filled = fill(recipe, drawn[0])
    assert filled["loss_args"] == {
        "temperature": drawn[0]["loss_args.temperature"],
        "symmetric": True,
    }
    assert filled["columns"] == recipe["columns"]
    dotted = {"label_map": {"0.5": {"uniform": [0.1, 0.9]}, "0": 0.0}}
    (own,) = find_ranges(dotted)
    assert fill(dotted, {own.name: 0.7}) == {"label_map": {"0.5": 0.7, "0": 0.0}}
    assert recipe["loss_args"] != filled["loss_args"]


@pytest.mark.parametrize(
    ("form", "values", "message"),
    [
        ("log", (0, 1), "rate: log needs a lower end above 0, got 0"),
        ("uniform", (2, 1), "rate: uniform takes two numbers, the lower first"),
        ("uniform", (1, 2, 3), "rate: uniform takes two numbers"),
        ("log", ("a", "b"), "rate: log takes two numbers"),
        ("choice", (1,), "rate: choice needs two values or more"),
    ],
)
def test_ranges_that_cannot_be(form: Any, values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Range("rate", form, values)


@pytest.fixture
def recipe(tiny_bert: Path, tmp_path: Path) -> dict[str, Any]:
    rows = str(write_format("pairs", tmp_path))
    return {
        "objective": "contrastive",
        "model_name_or_path": str(tiny_bert),
        "train_file": rows,
        "eval_file": rows,
        "output_dir": str(tmp_path / "unused"),
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "no",
        "disable_tqdm": True,
        "learning_rate": {"log": [1e-4, 1e-1]},
        "loss_args": {"temperature": {"choice": [0.05, 0.5]}},
    }


def search(folder: Path, recipe: dict[str, Any], *flags: object) -> int:
    file = folder / "recipe.json"
    file.write_text(json.dumps(recipe), encoding="utf-8")
    output = folder / "search"
    return main([f"--recipe={file}", f"--output_dir={output}", *map(str, flags)])


def study_in(folder: Path) -> Any:
    return optuna.load_study(
        study_name="search", storage=f"sqlite:///{folder / 'search' / 'study.db'}"
    )


def test_the_best_recipe_gives_the_best_model(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(tmp_path, recipe, "--trials=2", "--metric=loss") == 0
    assert search(tmp_path, recipe, "--trials=3", "--metric=loss") == 0  # goes on
    study, output = study_in(tmp_path), tmp_path / "search"
    values = [trial.value for trial in study.trials]
    assert len(values) == 3 and study.best_value == min(values)
    best = json.loads((output / "best_recipe.json").read_text(encoding="utf-8"))
    assert best["learning_rate"] == study.best_params["learning_rate"]
    assert best["loss_args"] == {"temperature": study.best_params["loss_args.temperature"]}
    assert best["output_dir"] == recipe["output_dir"]
    # The recipe alone gives the model that was kept, and its value.
    again = train(tmp_path / "again", **{k: v for k, v in best.items() if k != "output_dir"})
    assert_same_weights(again, output / "best")
    card = (output / "best" / "README.md").read_text(encoding="utf-8")
    assert "\n# best\n" in card and f'("{output / "best"}")' in card and "trial-" not in card
    assert losses(again, "eval_loss")[-1] == study.best_value
    others = {folder for folder in output.glob("trial-*") if folder.is_dir()}
    assert others == {output / f"trial-{n}" for n in range(3) if n != study.best_trial.number}
    for folder in others:
        assert (folder / LOG_FILE).is_file() and not list(folder.glob("*.safetensors"))
    assert f"best: trial {study.best_trial.number}" in capsys.readouterr().out


def test_a_trial_that_was_killed_is_run_again_with_its_values(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe["max_steps"] = 1
    assert search(tmp_path, recipe, "--trials=1") == 0
    study = study_in(tmp_path)
    killed = study.ask()
    values = {own.name: own.draw(killed) for own in find_ranges(recipe)}
    assert search(tmp_path, recipe, "--trials=2") == 0
    trials = study_in(tmp_path).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials[2].params == values


def test_a_search_that_is_stopped_says_how_it_goes_on(
    recipe: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            TrialReporter, "on_evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
        )
        with pytest.raises(SystemExit, match="143"):
            search(tmp_path, recipe, "--trials=1")
    told = capsys.readouterr().out
    assert "stopped by SIGTERM; trial 0 will run again when the same search" in told
    assert "resume_from_checkpoint" not in told
    assert search(tmp_path, recipe, "--trials=1") == 0


def test_a_run_that_falls_behind_is_given_up(recipe: dict[str, Any], tmp_path: Path) -> None:
    """The median pruner waits for five trials: they were perfect from their first evaluation."""
    recipe["max_steps"] = 20
    assert search(tmp_path, recipe, "--trials=1", "--metric=mrr@10") == 0
    study = study_in(tmp_path)
    for _ in range(5):
        study.add_trial(
            optuna.trial.create_trial(
                value=2.0,
                params=study.trials[0].params,
                distributions=study.trials[0].distributions,
                intermediate_values={2: 2.0, 4: 2.0},
            )
        )
    assert search(tmp_path, recipe, "--trials=7", "--metric=mrr@10") == 0
    last = study_in(tmp_path).trials[-1]
    assert last.state.name == "PRUNED" and list(last.intermediate_values) == [2]
    assert search(tmp_path, recipe, "--trials=8", "--metric=mrr@10", "--prune=false") == 0
    last = study_in(tmp_path).trials[-1]
    assert last.state.name == "COMPLETE" and len(last.intermediate_values) == 10


def test_a_trial_that_diverges_fails_and_the_search_goes_on(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe |= {"learning_rate": {"choice": [1e-3, 1e38]}, "max_grad_norm": 0.0, "optim": "sgd"}
    assert search(tmp_path, recipe, "--trials=5") == 0
    states = {
        trial.params["learning_rate"]: trial.state.name for trial in study_in(tmp_path).trials
    }
    assert states == {1e-3: "COMPLETE", 1e38: "FAIL"}
    assert "best: trial" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({"learning_rate": 1e-3, "loss_args": {}}, [], "has no range; give one"),
        ({"learning_rate": {"log": [1, 0]}}, [], "learning_rate: log takes two numbers"),
        ({"eval_file": None, "eval_strategy": "no"}, [], "eval_file: is missing in the recipe"),
        ({"eval_metrics": []}, [], "measures nothing but the loss; give --metric loss"),
        ({"merge_with_base": 0.5}, [], "merge_with_base: changes the model after its last"),
        ({}, ["--metric=spearman"], "metric: spearman is not measured"),
        ({"learning_rates": 1}, [], "learning_rates"),
        ({"train_file": "nowhere.jsonl"}, [], "the first 3 trials failed"),
        ({}, ["--trials=0"], "trials: must be at least 1"),
    ],
)
def test_one_clear_sentence(
    changes: dict[str, Any],
    flags: list[str],
    message: str,
    recipe: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert search(tmp_path, recipe | changes, *flags) == 2
    assert message in capsys.readouterr().err


def test_a_recipe_that_is_not_there_is_named_by_its_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--recipe", "nowhere.json", "--output_dir", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "error: --recipe: there is no file nowhere.json\n"


def test_another_search_in_the_same_folder_is_refused(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(tmp_path, {**recipe, "max_steps": 1}, "--trials=1") == 0
    other = {**recipe, "learning_rate": {"log": [1e-4, 1e-2]}}
    assert search(tmp_path, other, "--trials=2") == 2
    assert "belongs to a search with another recipe" in capsys.readouterr().err


def test_the_value_is_that_of_the_model_that_is_kept(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    """The best checkpoint's, where the run loads it: not that of its last evaluation."""
    recipe |= {
        "learning_rate": {"choice": [0.3, 0.4]},
        "max_steps": 6,
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "optim": "sgd",
    }
    assert search(tmp_path, recipe, "--trials=1", "--metric=loss") == 0
    (trial,) = study_in(tmp_path).trials
    seen = trial.intermediate_values
    assert trial.value == min(seen.values())
    assert len(seen) == 6


def test_what_a_killed_search_left_undone_is_done(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Killed between telling the study and moving the folder of its best trial."""
    recipe["max_steps"] = 2
    assert search(tmp_path, recipe, "--trials=2") == 0
    output, number = tmp_path / "search", study_in(tmp_path).best_trial.number
    (output / "best").rename(output / f"trial-{number}")
    other = output / f"trial-{1 - number}"
    (other / "model.safetensors").write_text("left by a kill")
    assert search(tmp_path, recipe, "--trials=2") == 0
    assert (output / "best" / "model.safetensors").is_file()
    assert not (other / "model.safetensors").exists()


def test_trials_that_a_mistake_cost_are_not_counted(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["max_steps"] = 1
    assert search(tmp_path, recipe | {"train_filee": "x"}, "--trials=2") == 2
    assert search(tmp_path, recipe, "--trials=2") == 0
    states = [trial.state.name for trial in study_in(tmp_path).trials]
    assert states == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert search(tmp_path, recipe, "--trials=2") == 0
    assert len(study_in(tmp_path).trials) == 4


def test_a_kill_while_the_best_is_moved_is_made_good(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each rename; then a better trial takes the place of the best."""
    recipe["max_steps"] = 2
    assert search(tmp_path, recipe, "--trials=2") == 0
    output, study = tmp_path / "search", study_in(tmp_path)
    best = study.best_trial.number
    study.add_trial(optuna.trial.create_trial(
        value=2.0, params=study.trials[0].params, distributions=study.trials[0].distributions,
    ))  # fmt: skip
    better = output / "trial-2"
    better.mkdir()
    (better / "train_config.json").write_text(json.dumps({"output_dir": str(better)}))
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        rename(self, target)
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed)
            with pytest.raises(KeyboardInterrupt):
                tidy(output, study)
    tidy(output, study)
    assert (output / f"trial-{best}" / LOG_FILE).is_file()
    assert json.loads((output / "best" / "train_config.json").read_text())["output_dir"] == str(
        better
    )
    assert not better.exists()
    # And an even better one:
    study.add_trial(optuna.trial.create_trial(
        value=3.0, params=study.trials[0].params, distributions=study.trials[0].distributions,
    ))  # fmt: skip
    (output / "trial-3").mkdir()
    tidy(output, study)
    assert better.is_dir()


def test_two_searches_do_not_share_a_folder(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "search").mkdir()
    with FileLock(tmp_path / "search" / ".lock"):
        assert search(tmp_path, recipe, "--trials=1") == 2
    assert "another search runs in" in capsys.readouterr().err


def test_two_processes_run_each_trial_together(recipe: dict[str, Any], tmp_path: Path) -> None:
    """One of them keeps the study, and tells the other the values and when to stop."""
    recipe |= {"use_cpu": True, "max_steps": 2, "per_device_train_batch_size": 2}
    file, output = tmp_path / "recipe.json", tmp_path / "search"
    file.write_text(json.dumps(recipe), encoding="utf-8")
    flags = ["--recipe", str(file), "--output_dir", str(output), "--trials", "2"]
    together(2, ["scripts/search_settings.py", *flags], **launched_environment(TWO_PROCESSES))
    assert [trial.state.name for trial in study_in(tmp_path).trials] == ["COMPLETE"] * 2
    best = json.loads((output / "best_recipe.json").read_text(encoding="utf-8"))
    rate = study_in(tmp_path).best_params["learning_rate"]
    saved = json.loads((output / "best" / "train_config.json").read_text(encoding="utf-8"))
    assert best["learning_rate"] == saved["learning_rate"] == rate
    assert (output / "best" / "model.safetensors").is_file()
