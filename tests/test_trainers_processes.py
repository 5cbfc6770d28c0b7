"""A step of several processes is the step of one: real processes through ``accelerate launch``."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runs import ROOT, TOPICS, assert_same_weights, train, write_format

from tiny import save_backbone, save_classifier
from trainers import OBJECTIVES

TEXTS = [text for topic, documents in TOPICS.items() for text in [topic, *documents]]
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FORMATS = {
    "weighted_mse": "scored",
    "contrastive": "groups",
    "bce": "scored",
    "mse": "scored",
    "pairwise": "groups",
    "listwise": "groups",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "embedder": save_backbone(folder / "embedder", TEXTS, **NO_DROPOUT),
        "reranker": save_classifier(folder / "reranker", TEXTS, **NO_DROPOUT),
    }


def launch(processes: int, output: Path, recipe: dict[str, Any]) -> Path:
    """Train as a user does on so many processes; returns the output folder."""
    file = output.parent / f"{output.name}.json"
    recipe = {name: str(v) if isinstance(v, Path) else v for name, v in recipe.items()}
    file.write_text(json.dumps({**recipe, "output_dir": str(output)}), encoding="utf-8")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += ["configs/accelerate/two_cpu_processes.yaml", "--num_processes", str(processes)]
    done = subprocess.run(
        [*command, "scripts/train.py", "--config", str(file)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return output


def recipe(objective: str, models: dict[str, Path], folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "objective": objective,
        "model_name_or_path": models[OBJECTIVES[objective].model],
        "train_file": write_format(FORMATS[objective], folder),
        "train_group_size": 3,
        "max_steps": 1,
        "warmup_steps": 0,
        "learning_rate": 0.05,
        "optim": "sgd",  # Adam turns gradients that are nearly 0 into steps of full length.
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        **more,
    }


@pytest.mark.parametrize("objective", FORMATS)
def test_two_processes_take_the_step_of_one(
    objective: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """Weights, hard negatives and texts that repeat across processes are in it."""
    more = {"loss_args": {"symmetric": True}} if objective == "contrastive" else {}
    common = recipe(objective, models, tmp_path, **more)
    one = train(tmp_path / "one", **common | {"per_device_train_batch_size": 8})
    two = launch(2, tmp_path / "two", common | {"per_device_train_batch_size": 4})
    assert_same_weights(one, two, tolerance=1e-6)
    if objective == "contrastive":
        small = {"per_device_train_batch_size": 4, "gradient_cache_chunk_size": 2}
        assert_same_weights(one, launch(2, tmp_path / "chunks", common | small), tolerance=1e-6)


def test_four_processes_with_accumulated_batches_take_the_step_of_one(
    models: dict[str, Path], tmp_path: Path
) -> None:
    common = recipe("weighted_mse", models, tmp_path)
    one = train(tmp_path / "one", **common | {"per_device_train_batch_size": 16})
    four = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert_same_weights(one, launch(4, tmp_path / "four", common | four), tolerance=1e-6)


def test_without_negatives_across_processes_the_step_is_another(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """What the test above shows for ``contrastive`` can fail."""
    common = recipe("contrastive", models, tmp_path, negatives_across_processes=False)
    one = train(tmp_path / "one", **common | {"per_device_train_batch_size": 8})
    two = launch(2, tmp_path / "two", common | {"per_device_train_batch_size": 4})
    with pytest.raises(AssertionError):
        assert_same_weights(one, two, tolerance=1e-6)
