"""Runs with ``torch_compile``: the model of a run without it, resumed bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from runs import NO_DROPOUT, TEXTS, assert_same_weights, losses, train, write_format
from tiny import save_backbone

pytestmark = pytest.mark.usefixtures("no_graphs_of_other_tests")


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Six steps, an evaluation and a checkpoint after each second."""
    rows = write_format("pairs", folder)
    return {
        "objective": "contrastive",
        "model_name_or_path": save_backbone(folder / "model", TEXTS, **changes),
        "train_file": rows,
        "eval_file": rows,
        "per_device_train_batch_size": 5,
        "max_steps": 6,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
    }


@pytest.mark.parametrize(
    "settings",
    [{"gradient_cache_chunk_size": 3}, {"activation_checkpointing": True, "lora_r": 2}],
    ids=str,
)
def test_the_model_of_a_run_without_it(settings: dict[str, Any], tmp_path: Path) -> None:
    given = recipe(tmp_path, **NO_DROPOUT) | settings
    plain = train(tmp_path / "plain", **given)
    assert not counters["stats"]
    compiled = train(tmp_path / "compiled", **given, torch_compile_backend="aot_eager")
    # A graph without gradients is for the cache's first pass.
    assert counters["stats"]["unique_graphs"] == 1 + ("gradient_cache_chunk_size" in settings)
    assert not counters["graph_break"]
    assert_same_weights(plain, compiled, tolerance=1e-5)
    for name in ("loss", "eval_loss"):
        assert losses(compiled, name) == pytest.approx(losses(plain, name), abs=1e-4)


def test_a_resumed_run_ends_bit_identical(tmp_path: Path) -> None:
    """With dropout and batches of many tokens and of few, of which the resumed run sees few first.

    Sums of more than 4,096 tokens are another graph, which is made before it sees a batch.
    """
    rows = [
        {"query": f"query {at} {TEXTS[0]}", "pos_doc": f"document {at} {TEXTS[0]}"}
        for at in range(205)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = recipe(tmp_path) | {"train_file": file, "eval_strategy": "no", "torch_compile": True}
    given |= {"per_device_train_batch_size": 200, "max_steps": 4, "save_steps": 1}
    whole = train(tmp_path / "whole", **given)
    assert counters["stats"]["unique_graphs"] == 2
    log = (whole / "finetune.log").read_text(encoding="utf-8")
    assert log.count("compiling the layers") == 2
    torch._dynamo.reset()
    start = str(whole / "checkpoint-1")
    resumed = train(tmp_path / "resumed", **given, resume_from_checkpoint=start)
    assert counters["stats"]["unique_graphs"] == 2 + 2
    assert_same_weights(whole, resumed)
    assert losses(whole)[1:] == losses(resumed)[-3:]


def test_a_padded_model_is_compiled_as_a_whole(tmp_path: Path) -> None:
    """By accelerate, as without Tandem."""
    given = recipe(tmp_path, **NO_DROPOUT) | {"max_steps": 2, "unpad_inputs": False}
    given |= {"eval_strategy": "no", "save_strategy": "no"}
    plain = train(tmp_path / "plain", **given)
    compiled = train(tmp_path / "compiled", **given, torch_compile_backend="eager")
    assert counters["stats"]["unique_graphs"] > 0
    assert_same_weights(plain, compiled, tolerance=1e-5)
