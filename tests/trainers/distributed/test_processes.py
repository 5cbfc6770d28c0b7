"""A step of several processes is the step of one: real processes through ``accelerate launch``."""

import os
from pathlib import Path
from typing import Any

import pytest

from launching import LAUNCH, TWO_PROCESSES, finish, seen, start, train_all, write_recipes
from runs import TOPICS, assert_same_weights, train, weights, write_format
from tiny import save_backbone, save_classifier
from trainers import OBJECTIVES

TEXTS = [text for topic, documents in TOPICS.items() for text in [topic, *documents]]
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# Rows for each objective: weights, hard negatives and texts that repeat across processes are in.
FORMATS = {
    "weighted_mse": "scored",
    "cosent": "scored",
    "contrastive": "groups",
    "bce": "scored",
    "mse": "scored",
    "pairwise": "groups",
    "listwise": "groups",
    "distillation": "taught",
    "margin_mse": "taught",
    "reranker_distillation": "taught",
    "reranker_margin_mse": "taught",
}
PREFIXES = {"matryoshka_dims": [32, 8], "matryoshka_weights": [1.0, 0.5], "learning_rate": 0.01}
# What else a step may hold; each is compared with one process that does the same.
VARIANTS: dict[str, dict[str, Any]] = {
    **{objective: {"objective": objective} for objective in FORMATS},
    "symmetric": {"objective": "contrastive", "loss_args": {"symmetric": True}},
    "in_chunks": {"objective": "contrastive", "gradient_cache_chunk_size": 3},
    "contrastive_prefixes": {"objective": "contrastive", **PREFIXES},
    "cosent_prefixes": {"objective": "cosent", **PREFIXES},
    "bce_on_groups": {"objective": "bce", "format": "groups"},
}


# Again with two cores for each of two processes: a row on each.
BY_CORES = ["contrastive", "in_chunks", "bce", "cosent_prefixes"]
SAVED = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}


def recipe(variant: str, folder: Path, per_device: int, **more: Any) -> dict[str, Any]:
    settings = dict(VARIANTS[variant])
    objective = settings["objective"]
    kind = settings.pop("format", FORMATS[objective])
    return {
        "model_name_or_path": folder / OBJECTIVES[objective].model,
        "train_file": folder / f"{kind}.jsonl",
        "per_device_train_batch_size": per_device,
        "train_group_size": 3,
        "max_steps": 1,
        "warmup_steps": 0,
        "learning_rate": 0.05,
        "optim": "sgd",  # Adam turns gradients that are nearly 0 into steps of full length.
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        **settings,
        **more,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and rows."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "1").mkdir()
    save_backbone(folder / "embedder", TEXTS, **NO_DROPOUT)
    save_classifier(folder / "reranker", TEXTS, **NO_DROPOUT)
    for kind in ("scored", "groups", "taught"):
        write_format(kind, folder)
    return folder


@pytest.fixture(scope="module")
def launched(folder: Path) -> Path:
    """All variants by 2 processes and by 4, a launch for each."""
    two = {variant: recipe(variant, folder, 4) for variant in VARIANTS}
    two["alone"] = recipe("contrastive", folder, 4, negatives_across_processes=False)
    two["accumulated"] = recipe("weighted_mse", folder, 2, gradient_accumulation_steps=2)
    two["accumulated_cosent"] = recipe("cosent", folder, 4, gradient_accumulation_steps=2)
    two["saved"] = recipe("bce", folder, 4, **SAVED)
    by_cores = {f"{variant}_by_cores": two[variant] for variant in BY_CORES}
    cores = {f"{BY_CORES[0]}_by_cores": ["CORES=2"]}
    train_all(two | by_cores, folder / "2", variables=cores)
    four = {variant: recipe(variant, folder, 2) for variant in VARIANTS}
    train_all(four, folder / "4", [*TWO_PROCESSES, "--num_processes", "4"])
    return folder


def check_step(one: Path, other: Path, base: Path) -> None:
    """The same weights, but for gradients summed up in another order.

    An entry of a sum is rounded in proportion to the whole, so what two orders may differ by grows
    with the length of the step: 1e-6 is 8 units in the last place of a step of length 1.
    """
    before, after = weights(base), weights(one)
    moved = sum(float((after[name] - before[name]).square().sum()) for name in after) ** 0.5
    assert_same_weights(one, other, tolerance=1e-6 * max(1.0, moved))


def test_every_objective_is_compared() -> None:
    assert FORMATS.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_2_and_4_processes_take_the_step_of_one(variant: str, launched: Path) -> None:
    one = train(launched / "1" / variant, **recipe(variant, launched, 8))
    base = launched / OBJECTIVES[VARIANTS[variant]["objective"]].model
    for processes in (2, 4):
        check_step(one, launched / str(processes) / variant, base)


@pytest.mark.parametrize("variant", BY_CORES)
def test_processes_may_have_several_cores(variant: str, launched: Path) -> None:
    two = launched / "2" / f"{variant}_by_cores"
    assert [note["workers"] for note in seen(two)] == [2, 2]
    assert [note["workers"] for note in seen(launched / "2" / variant)] == [0, 0]
    one = train(launched / "1" / two.name, **recipe(variant, launched, 8))
    check_step(one, two, launched / OBJECTIVES[VARIANTS[variant]["objective"]].model)


def test_accumulated_batches_are_part_of_the_step(launched: Path) -> None:
    one = train(launched / "1" / "of_8", **recipe("weighted_mse", launched, 8))
    assert_same_weights(one, launched / "2" / "accumulated", tolerance=1e-6)
    more = {"gradient_accumulation_steps": 2}
    one = train(launched / "1" / "of_16", **recipe("cosent", launched, 8, **more))
    assert_same_weights(one, launched / "2" / "accumulated_cosent", tolerance=1e-6)


def test_without_negatives_across_processes_the_step_is_another(launched: Path) -> None:
    """What the tests above show can fail."""
    one = train(launched / "1" / "alone", **recipe("contrastive", launched, 8))
    with pytest.raises(AssertionError, match="apart"):
        assert_same_weights(one, launched / "2" / "alone", tolerance=1e-6)


def test_a_run_goes_on_with_another_number_of_processes(launched: Path) -> None:
    """Where they were if a step takes as many rows; a warning says what changes."""
    two = launched / "2" / "saved"
    more = SAVED | {"resume_from_checkpoint": two / "checkpoint-2"}
    one = train(launched / "1" / "saved", **recipe("bce", launched, 8, **more))
    assert_same_weights(one, two, tolerance=1e-6)
    log = (one / "finetune.log").read_text(encoding="utf-8")
    assert "checkpoint-2 is of a run of 2 processes, this one has 1: the order of the" in log
    smaller = train(launched / "1" / "smaller", **recipe("bce", launched, 4, **more))
    log = (smaller / "finetune.log").read_text(encoding="utf-8")
    assert "a step takes 4 rows instead of 8" in log


def test_two_machines_take_the_step_of_one(folder: Path) -> None:
    """The launch file for several machines, with an agent for each on this one."""
    common = recipe("contrastive", folder, 4)
    port = str(20_000 + os.getpid() % 10_000)
    command = [*LAUNCH, "--config_file", "configs/accelerate/multi_node.yaml"]
    command += ["--num_processes", "2", "--main_process_ip", "127.0.0.1"]
    command += ["--main_process_port", port, "--machine_rank"]
    files = write_recipes({"machines": common}, folder / "nodes")
    script = ["scripts/train.py", "--config", *files, "--use_cpu", "true"]
    machines = [start([*command, str(rank), *script]) for rank in (0, 1)]
    for machine in machines:
        done = finish(machine)
        assert done.returncode == 0, done.stdout + done.stderr
    one = train(folder / "1" / "of_8_on_machines", **recipe("contrastive", folder, 8))
    assert_same_weights(one, folder / "nodes" / "machines", tolerance=1e-6)
