"""The model that a run began with: measured, compared, merged with, kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from encoders import Embedder
from evaluation.data.from_rows import retrieval_from_groups
from evaluation.measure import Evaluator
from evaluation.merging import STEPS, Trial, Trials
from evaluation.search.distributed import InferenceSettings
from loaders import ReadOptions, load_rows
from runs import assert_same_weights, losses, refused, train, weights, write_format

METRIC = "ndcg@10"
HARMFUL = {"learning_rate": 0.5, "max_grad_norm": 1000.0, "max_steps": 4}


@pytest.fixture(scope="module")
def good(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows its topics, so that it has something to lose."""
    folder = tmp_path_factory.mktemp("good")
    given = recipe(models["embedder"], folder, max_steps=60, eval_strategy="no")
    return train(folder / "good", **given)


def recipe(model: Path, folder: Path, **more: Any) -> dict[str, Any]:
    file = write_format("pairs", folder)
    return {
        "objective": "contrastive",
        "model_name_or_path": model,
        "train_file": file,
        "eval_file": file,
        "eval_metrics": [METRIC],
        "eval_strategy": "steps",
        "eval_steps": 2,
        "max_steps": 4,
        **more,
    }


def compared(output: Path) -> list[dict[str, Any]]:
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry["base"] | {"step": entry["step"]}
            for entry in state["log_history"] if "base" in entry]  # fmt: skip


def log(output: Path) -> list[str]:
    """The lines of a run's log, without their times."""
    lines = (output / "finetune.log").read_text(encoding="utf-8").splitlines()
    return [line.split(" ", 2)[2] for line in lines]


def evaluator(folder: Path) -> Evaluator:
    rows = load_rows([str(write_format("pairs", folder))], "candidate_group", ReadOptions())
    return Evaluator(retrieval_from_groups(rows, None, 0.5), [METRIC], InferenceSettings())


def test_each_evaluation_is_compared_with_the_base(models: dict[str, Path], tmp_path: Path) -> None:
    output = train(tmp_path / "run", **recipe(models["embedder"], tmp_path))
    by = evaluator(tmp_path)
    judged = [by.evaluate(Embedder.from_pretrained(each)) for each in (models["embedder"], output)]
    expected = by.compare(*judged)
    found = compared(output)
    assert [each["step"] for each in found] == [2, 4]
    for name, value in expected._asdict().items():
        assert found[-1][name] == pytest.approx(value, abs=1e-9)
    card = (output / "README.md").read_text(encoding="utf-8")
    assert f", base {expected.base:.4f}: " in card
    assert "**Warning:**" not in card


@pytest.mark.parametrize("on_worse", ["warn", "error", "keep_base"])
def test_a_run_that_hurts_says_so(good: Path, tmp_path: Path, on_worse: str) -> None:
    given = recipe(good, tmp_path, on_worse=on_worse, **HARMFUL)
    if on_worse == "error":
        with pytest.raises(SystemExit) as stopped:
            train(tmp_path / "run", **given)
        assert stopped.value.code == 1
    else:
        train(tmp_path / "run", **given)
    output = tmp_path / "run"
    assert compared(output)[1]["high"] < 0
    assert "the model is worse than its base on eval_file" in log(output)[-1]
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "**Warning:** the model is worse than its base" in card
    found = evaluator(tmp_path)(Embedder.from_pretrained(output))[METRIC]
    assert f"| `eval_{METRIC} (step 4)` | `{found:.4g}` |" in card
    if on_worse == "keep_base":
        assert "the base is saved instead" in log(output)[-1]
        assert_same_weights(output, good)
    else:
        assert "try a lower learning_rate" in log(output)[-1]


def test_a_run_that_ends_before_its_first_evaluation_is_judged(good: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(
            tmp_path / "run",
            **recipe(good, tmp_path, on_worse="error", eval_delay=9, **HARMFUL),
        )
    assert compared(tmp_path / "run")[-1]["high"] < 0


def test_wrong_labels_hurt_and_the_base_is_kept(good: Path, tmp_path: Path) -> None:
    """Each query with a document of another topic; eval_file has the right ones."""
    given = recipe(good, tmp_path, max_steps=30, eval_steps=30, on_worse="keep_base")
    lines = Path(given["train_file"]).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    half = len(rows) // 2
    for row, other in zip(rows, rows[half:] + rows[:half], strict=True):
        row["wrong"] = other["pos_doc"]
    wrong = [{"query": row["query"], "pos_doc": row["wrong"]} for row in rows]
    given["train_file"] = tmp_path / "wrong.jsonl"
    given["train_file"].write_text("\n".join(map(json.dumps, wrong)), encoding="utf-8")
    output = train(tmp_path / "run", **given, learning_rate=1e-2)
    assert compared(output)[0]["high"] < 0
    assert "the base is saved instead" in log(output)[-1]
    assert_same_weights(output, good)


@pytest.mark.parametrize("more", [{}, {"lora_r": 2}], ids=["whole", "lora"])
def test_a_given_share(models: dict[str, Path], tmp_path: Path, more: dict[str, Any]) -> None:
    """The merge of a run is that of the base and of the same run without it."""
    given = recipe(models["embedder"], tmp_path, learning_rate=1e-2, **more)
    tuned = weights(train(tmp_path / "tuned", **given))
    merged = weights(train(tmp_path / "merged", **given, merge_with_base=0.25))
    base = weights(models["embedder"])
    named = {name.removeprefix("./"): weight for name, weight in base.items()}
    checked = 0
    for name, weight in named.items():
        own = next((n for n in tuned if n.endswith(name) and "adapter" not in n), None)
        if own is None:
            continue
        expected = 0.75 * weight + 0.25 * tuned[own]
        assert (merged[own] - expected).abs().max() < 1e-6
        checked += bool((tuned[own] - weight).abs().max() > 1e-4)
    assert checked > 3


def test_the_best_share_is_found_and_found_again_when_resumed(
    models: dict[str, Path], tmp_path: Path
) -> None:
    given = recipe(
        models["embedder"],
        tmp_path,
        learning_rate=1e-2,
        merge_with_base="auto",
        guard_file=str(write_format("groups", tmp_path)),
        save_strategy="steps",
        save_steps=2,
    )
    output = train(tmp_path / "run", **given)
    told = [line for line in log(output) if line.startswith("merge_with_base")]
    for share in STEPS:
        assert any(f"merge_with_base {share:g}: {METRIC}" in line for line in told)
    values = [float(line.split(METRIC)[1].split(",")[0].split()[0]) for line in told[:-1]]
    by = evaluator(tmp_path)
    assert by(Embedder.from_pretrained(output))[METRIC] == pytest.approx(max(values), abs=1e-4)
    assert compared(output)[-1]["tuned"] == pytest.approx(max(values), abs=1e-4)
    # A run killed after its first checkpoint.
    again = tmp_path / "again"
    shutil.copytree(output / "checkpoint-2", again / "checkpoint-2")
    shutil.copy(output / "train_config.json", again)
    train(again, **given, resume_from_checkpoint=True)
    assert_same_weights(output, again)


def recipe_with_head(models: dict[str, Path], folder: Path, **more: Any) -> dict[str, Any]:
    """A run whose model has a new projection, which learns much in a few steps."""
    given = {"projection_dim": 16, "learning_rate": 1e-2, "head_learning_rate": 0.1}
    return recipe(models["embedder without dropout"], folder, **given, **more)


def test_the_base_that_is_kept_has_the_head_that_the_run_began_with(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """Merged with 0 of the fine-tuned model; what it is worth is what was measured of the base."""
    given = recipe_with_head(models, tmp_path)
    started = train(tmp_path / "started", **given | {"learning_rate": 0.0, "head_learning_rate": 0})
    output = train(tmp_path / "run", **given, merge_with_base=0.0)
    assert_same_weights(started, output)
    (*_, last) = compared(output)
    assert last["tuned"] == last["base"]
    assert compared(output)[0]["difference"] != 0


def test_auto_compares_with_the_base_that_was_measured(
    models: dict[str, Path], tmp_path: Path
) -> None:
    output = train(tmp_path / "run", **recipe_with_head(models, tmp_path, merge_with_base="auto"))
    (before,) = (line for line in log(output) if line.startswith("base: "))
    value = before.split()[-1]
    assert any(line.startswith(f"merge_with_base 0: {METRIC} {value}") for line in log(output))
    assert {f"{each['base']:.4f}" for each in compared(output)} == {value}


@pytest.mark.parametrize("share", [0.5, "auto"])
def test_the_card_tells_of_the_merged_model(
    models: dict[str, Path], tmp_path: Path, share: Any
) -> None:
    given = recipe(models["embedder"], tmp_path, learning_rate=1e-2, merge_with_base=share)
    given |= {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
    given |= {"metric_for_best_model": "loss", "greater_is_better": True}  # the first, not the last
    output = train(tmp_path / "run", **given)
    found = evaluator(tmp_path)(Embedder.from_pretrained(output))[METRIC]
    card = (output / "README.md").read_text(encoding="utf-8")
    assert f"| `eval_{METRIC} (step 4)` | `{found:.4g}` |" in card
    assert losses(output, f"eval_{METRIC}")[-1] == pytest.approx(found)


def test_a_merged_model_has_its_own_loss_where_nothing_else_is_measured(
    models: dict[str, Path], tmp_path: Path
) -> None:
    given = recipe(models["embedder"], tmp_path, eval_metrics=[], eval_on_start=True)
    output = train(tmp_path / "run", **given, merge_with_base=0.0)
    base, *_, tuned, merged = losses(output, "eval_loss")
    assert merged == base != tuned


def test_data_that_do_not_allow_auto_are_seen_before_the_first_step(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = recipe(models["embedder"], tmp_path, eval_strategy="no", merge_with_base="auto")
    one = tmp_path / "one.jsonl"
    one.write_text(Path(given["eval_file"]).read_text(encoding="utf-8").splitlines()[0] + "\n")
    line = refused(capsys, tmp_path / "run", **given | {"eval_file": one})
    assert "merge_with_base: auto cannot compare models on eval_file: " in line
    scored = write_format("scored", tmp_path)
    rows = map(json.loads, scored.read_text(encoding="utf-8").splitlines())
    relevant = [json.dumps(row) for row in rows if row["rel"] == 1]
    one.write_text("\n".join(relevant), encoding="utf-8")
    given |= {"objective": "cosent", "train_file": scored, "eval_file": scored}
    line = refused(capsys, tmp_path / "other", **given | {"guard_file": one, "eval_metrics": None})
    assert "merge_with_base: auto cannot compare models on guard_file: " in line
    for name in ("run", "other"):
        assert not list((tmp_path / name).rglob("*.safetensors"))


def test_the_tuned_model_outlives_a_comparison_that_fails(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    given = recipe(models["embedder"], tmp_path, merge_with_base="auto", learning_rate=1e-2)
    given |= {"save_strategy": "steps", "save_steps": 4, "load_best_model_at_end": True}
    given |= {"eval_steps": 4}

    def fails(self: Trials) -> Trial:
        self.merge((0.5, 0.5))
        raise RuntimeError("out of something")

    with monkeypatch.context() as patch:
        patch.setattr(Trials, "find", fails)
        line = refused(capsys, tmp_path / "run", **given)
    assert "merge_with_base: auto cannot compare the merges: RuntimeError" in line
    assert_same_weights(tmp_path / "run", tmp_path / "run" / "checkpoint-4")
    whole = train(tmp_path / "whole", **given)
    train(tmp_path / "run", **given, resume_from_checkpoint=True)
    assert_same_weights(tmp_path / "run", whole)


def test_mistakes(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = recipe(models["embedder"], tmp_path)
    without = {**given, "eval_file": None, "eval_strategy": "no", "eval_metrics": None}
    output = tmp_path / "run"
    assert "auto needs metrics" in refused(capsys, output, **without, merge_with_base="auto")
    assert "must be from 0 to 1" in refused(capsys, output, **given, merge_with_base=1.5)
    assert "is for merge_with_base" in refused(capsys, output, **given, guard_file="x.jsonl")
    assert "needs metrics" in refused(capsys, output, **without, on_worse="keep_base")
