"""Steps from which nothing can be learned: counted for every objective, and told of once.

On two processes: tests/trainers/distributed/test_processes.py.
"""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runs import losses, refused, train
from trainers.guards.idle_steps import groups_differ

PAIRS = [{"query": f"query {at}", "pos_doc": f"document {at}"} for at in range(4)]
ONE_QUERY = [{**row, "query": "the query"} for row in PAIRS]
ONE_DOCUMENT = [{**row, "pos_doc": "the document"} for row in PAIRS]
SCORED = [{"query": "a cat", "doc": f"the mat {at}", "rel": 0.5} for at in range(4)]
GRADED = [
    {
        "query": f"cat {at}",
        "pos": ["on the mat"],
        "neg": ["csv"],
        "pos_scores": [s],
        "neg_scores": [s],
    }
    for at, s in enumerate([0.5, 1.0, 0.5, 1.0])
]
SCORED_GROUPS = [
    {"query": f"cat {at}", "pos": ["on the mat"], "pos_scores": [2.5]} for at in range(4)
]
ONE = {"per_device_train_batch_size": 1}
GRADES = {"relevance_from_scores": True}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("objective", "rows", "settings", "idle"),
    [
        ("contrastive", PAIRS, ONE, 4),
        ("contrastive", PAIRS, {**ONE, "gradient_accumulation_steps": 2}, 2),
        ("contrastive", PAIRS, {"per_device_train_batch_size": 3}, 1),  # a last batch of one
        ("contrastive", ONE_QUERY, {}, 1),
        ("contrastive", ONE_DOCUMENT, {"loss_args": {"symmetric": True}}, 1),
        ("contrastive", [{**row, "negatives": ["no"]} for row in PAIRS], ONE, 0),
        ("contrastive", PAIRS, {}, 0),
        ("cosent", SCORED, {}, 1),
        ("cosent", [*SCORED[:3], {**SCORED[3], "rel": 1}], {}, 0),
        ("weighted_mse", SCORED, {}, 0),
        ("distillation", SCORED_GROUPS, {}, 1),
        ("distillation", GRADED, {}, 0),
        ("margin_mse", SCORED_GROUPS, ONE, 4),
        ("pairwise", GRADED, GRADES, 1),
        ("pairwise", GRADED, {}, 0),
        ("listwise", GRADED, {**GRADES, "per_device_train_batch_size": 2}, 2),
        ("reranker_distillation", SCORED_GROUPS, {}, 1),
        ("reranker_margin_mse", GRADED, {}, 0),
        ("bce", SCORED, {}, 0),
    ],
)
def test_steps_are_counted(
    objective: str, rows: Any, settings: dict[str, Any], idle: int, tiny_bert: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """In an epoch, there are so many idle steps, and an idle step has no gradient at all."""
    caplog.set_level(logging.WARNING, "trainers.guards.idle_steps")
    file = write(tmp_path / "rows.jsonl", rows)
    given = {"objective": objective, "model_name_or_path": tiny_bert, "train_file": file}
    run = train(tmp_path / "run", num_train_epochs=1, **given, **settings)
    log = (run / "finetune.log").read_text(encoding="utf-8")
    assert log.count("nothing can be learned from step") == bool(idle)
    steps = json.loads((run / "trainer_state.json").read_text())["global_step"]
    assert losses(run, "idle_steps")[-1:] == ([idle] if idle else [])
    assert (f"nothing could be learned from {idle} of {steps} steps" in log) == bool(idle)
    norms = losses(run, "grad_norm")
    assert sum(norm < 1e-9 for norm in norms) == idle


def test_what_an_untouched_run_counts_goes_on_after_a_resume(
    tiny_bert: Path, tmp_path: Path
) -> None:
    given = {
        "objective": "contrastive", "model_name_or_path": tiny_bert, "save_strategy": "steps",
        "train_file": write(tmp_path / "rows.jsonl", PAIRS), "save_steps": 2, **ONE,
    }  # fmt: skip
    train(tmp_path / "run", max_steps=2, **given)
    run = train(tmp_path / "run", max_steps=4, resume_from_checkpoint=True, **given)
    assert losses(run, "idle_steps")[-1] == 4
    assert "nothing could be learned from 4 of 4 steps" in (run / "finetune.log").read_text()


def test_groups_differ_by_their_candidates_alone() -> None:
    relevances = torch.tensor([[1.0, 1.0, 0.0], [0.5, 0.5, 0.5]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert not groups_differ(relevances, mask)
    assert groups_differ(relevances, torch.ones(2, 3, dtype=torch.bool))


DROP = {"dataloader_drop_last": True, "per_device_train_batch_size": 8}


@pytest.mark.parametrize(
    ("rows", "settings", "count"),
    [
        ({"train_file": [PAIRS]}, {}, 4),
        ({"train_files": [PAIRS, ONE_QUERY[:3]]}, {"batches_from": "all_sources"}, 7),
    ],
)
def test_an_epoch_without_a_whole_batch(
    rows: Any, settings: Any, count: int, tiny_bert: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    ((key, parts),) = rows.items()
    files = [str(write(tmp_path / f"{at}.jsonl", part)) for at, part in enumerate(parts)]
    given = {"objective": "contrastive", "model_name_or_path": "/nowhere/to/be/opened", key: files}
    assert refused(capsys, tmp_path / "run", **given, **DROP, **settings) == (
        f"error: dataloader_drop_last: an epoch of {count} rows has no whole batch of 8 "
        "(per_device_train_batch_size 8), so that nothing would be trained; lower "
        "per_device_train_batch_size, or leave dataloader_drop_last out"
    )


def test_dropping_the_last_batch_drops_nothing_of_an_evaluation(
    tiny_bert: Path, tmp_path: Path
) -> None:
    given = {
        "objective": "weighted_mse", "model_name_or_path": tiny_bert, "max_steps": 1,
        "learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 1, "eval_metrics": [],
        "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2,
    }  # fmt: skip
    scored = [{"query": f"cat {at}", "doc": "the mat", "rel": at / 3} for at in range(3)]
    file = write(tmp_path / "rows.jsonl", scored)
    runs = [
        train(
            tmp_path / str(drop),
            train_file=file,
            eval_file=file,
            dataloader_drop_last=drop,
            **given,
        )
        for drop in (False, True)
    ]
    assert losses(runs[0], "eval_loss") == losses(runs[1], "eval_loss") != []
    assert all(torch.isfinite(w).all() for w in load_file(runs[1] / "model.safetensors").values())
