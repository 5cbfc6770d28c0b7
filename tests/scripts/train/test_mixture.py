"""Training on several sources by the real script: each step is the step of its source alone."""

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from evaluation.report.report import trained_on
from runs import assert_same_weights, losses, losses_by_source, scored, train, write_format
from trainers.config.assembly import evaluation_loss

# Steps that depend on nothing but the weights and the batch.
PLAIN_STEPS = {
    "optim": "sgd",
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "max_grad_norm": 0.0,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three sources of 12 rows."""
    folder = tmp_path_factory.mktemp("files")
    graded = folder / "分级.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in islice(scored(), 12)]
    graded.write_text("\n".join(lines), encoding="utf-8")
    found = {kind: str(write_format(kind, folder)) for kind in ("groups", "scored_groups")}
    return {**found, "graded": str(graded)}


def with_files(files: dict[str, str], entries: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    return [{**entry, "path": files[entry["path"]]} for entry in entries]


EMBEDDER: tuple[dict[str, Any], ...] = (
    {
        "path": "groups",
        "loss_args": {"temperature": 0.1, "symmetric": True},
        "train_group_size": 3,
        "query_prompt": "检索 ",
        "document_prompt": "mat ",
    },
    {"path": "scored_groups", "objective": "margin_mse", "train_group_size": 4},
    {"path": "graded", "objective": "cosent", "loss_args": {"temperature": 0.2}},
)
RERANKER: tuple[dict[str, Any], ...] = (
    {"path": "groups", "loss_args": {"temperature": 2.0}, "train_group_size": 4},
    {"path": "graded", "objective": "bce", "query_prompt": "检索 ", "document_prompt": "mat "},
)


@pytest.mark.parametrize(
    ("kind", "objective", "entries"),
    [("embedder", "contrastive", EMBEDDER), ("reranker", "listwise", RERANKER)],
)
def test_a_step_is_that_of_its_source_alone(
    kind: str,
    objective: str,
    entries: tuple[dict[str, Any], ...],
    models: dict[str, Path],
    files: dict[str, str],
    tmp_path: Path,
) -> None:
    """A chain of runs, each a step on one source, gives the weights of the run on all."""
    common = {"objective": objective, **PLAIN_STEPS, "per_device_train_batch_size": 12}
    sources = with_files(files, entries)
    whole = train(
        tmp_path / "whole",
        **common,
        model_name_or_path=models[f"{kind} without dropout"],
        train_files=sources,
        num_train_epochs=1,
        eval_file=files["groups"],
        eval_metrics=[],
    )
    model, by_name = (
        models[f"{kind} without dropout"],
        {Path(source["path"]).stem: source for source in sources},
    )
    assert sorted(name for name, _ in losses_by_source(whole)) == sorted(by_name)
    for name, loss in losses_by_source(whole):
        own = {"query_prompt": "", "document_prompt": "", **by_name[name]}
        own["train_file"] = own.pop("path")
        own = {**common, **own, "model_name_or_path": model, "max_steps": 1}
        model = train(tmp_path / name, **own)
        assert loss == pytest.approx(losses(model)[0], abs=1e-4)
    assert_same_weights(whole, model, tolerance=1e-6)
    # Evaluation is by the run's own objective.
    recipe = json.loads((whole / "train_config.json").read_text(encoding="utf-8"))
    others = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_on_start": True}
    for given in (recipe | others, recipe | {"train_files": None, "train_file": ["not read"]}):
        again = evaluation_loss(given, str(whole), [files["groups"]], str(tmp_path / "evaluation"))
        assert losses(whole, "eval_loss") == pytest.approx([again], abs=1e-5)


def test_mixed_rows_are_those_of_one_file(
    models: dict[str, Path], files: dict[str, str], tmp_path: Path
) -> None:
    common = {
        **PLAIN_STEPS,
        "objective": "cosent",
        "model_name_or_path": models["embedder without dropout"],
    }
    common |= {"per_device_train_batch_size": 24, "max_steps": 1}
    both = [files["graded"], files["groups"]]
    one = train(tmp_path / "one", **common, train_file=both)
    mixed = train(tmp_path / "mixed", **common, train_files=both, batches_from="all_sources")
    # 12 pairs, and 12 groups of 11 candidates as pairs.
    assert losses(mixed) != losses(one)  # another order
    full = {**common, "per_device_train_batch_size": 144}
    one = train(tmp_path / "one full", **full, train_file=both)
    mixed = train(tmp_path / "mixed full", **full, train_files=both, batches_from="all_sources")
    assert_same_weights(one, mixed, tolerance=1e-6)


def test_a_resumed_run_is_bit_identical_with_any_workers(
    models: dict[str, Path], files: dict[str, str], tmp_path: Path
) -> None:
    weighted = ({**EMBEDDER[0], "weight": 1.7}, EMBEDDER[1], {**EMBEDDER[2], "weight": 0.5})
    common = {
        "objective": "contrastive",
        "model_name_or_path": models["embedder"],
        "train_files": with_files(files, weighted),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "document_max_length": 8,
        "max_steps": 21,
    }
    whole = train(tmp_path / "whole", **common, save_strategy="steps", save_steps=5)
    # 5, 3 and 2 steps of 4 rows in an epoch: from its middle, from its end, from the last one.
    assert json.loads((whole / "checkpoint-10" / "trainer_state.json").read_text())["epoch"] == 1
    for step in (5, 10, 20):
        start = str(whole / f"checkpoint-{step}")
        more = {"resume_from_checkpoint": start, "dataloader_num_workers": 2 * (step == 5)}
        resumed = train(tmp_path / f"from {step}", **common, **more)
        assert_same_weights(whole, resumed)
        assert losses_by_source(whole)[step:] == losses_by_source(resumed)[-(21 - step) :]
    # What was written down is a recipe itself, and the card names every source.
    again = json.loads((whole / "train_config.json").read_text(encoding="utf-8"))
    assert trained_on(again) == list(files.values())
    again |= {"save_strategy": "no"}
    del again["output_dir"]
    assert_same_weights(whole, train(tmp_path / "again", **again))
    card = (whole / "README.md").read_text(encoding="utf-8")
    assert f"- trained on: `{files['groups']}` (12 rows, weight 1.7, objective contrastive)" in card
    assert f"- trained on: `{files['graded']}` (12 rows, weight 0.5, objective cosent)" in card
    assert re.findall("Objective: `(.*)`", card) == ["contrastive", "margin_mse", "cosent"]
    log = (whole / "finetune.log").read_text(encoding="utf-8")
    assert re.search(r"分级: document_max_length: [1-9]\d* of 12 sampled texts", log)
    assert "分级: 12 rows, weight 0.5: 8 rows in an epoch (0.667 times each), 20.0 % of all" in log
