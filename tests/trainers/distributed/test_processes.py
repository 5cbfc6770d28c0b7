"""A step of several processes is the step of one: real processes through ``accelerate launch``.

TANDEM_EVERY_SIZE=1: 1 to 40 rows in ``test_every_process_takes_the_same_steps``.
"""

import json
import os
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch

from collators.epochs import EpochSampler
from common.hardware import multiplies_in_bf16
from forked import together
from launching import launch_machines, seen, write_recipes
from runs import (
    FORMAT_OF,
    NO_DROPOUT,
    TEXTS,
    assert_same_weights,
    losses,
    losses_by_source,
    scored,
    train,
    weights,
    write_format,
)
from tiny import save_backbone, save_classifier
from trainers import OBJECTIVES

# Rows for each objective: weights, hard negatives and texts that repeat across processes are in.
FORMATS = FORMAT_OF | {"contrastive": "groups"}
PREFIXES = {"matryoshka_dims": [32, 8], "matryoshka_weights": [1.0, 0.5], "learning_rate": 0.01}
# What else a step may hold; each is compared with one process that does the same.
VARIANTS: dict[str, dict[str, Any]] = {
    **{objective: {"objective": objective} for objective in FORMATS},
    "symmetric": {"objective": "contrastive", "loss_args": {"symmetric": True}},
    "in_chunks": {"objective": "contrastive", "gradient_cache_chunk_size": 3},
    "tokens_in_chunks": {
        "objective": "multi_vector_contrastive",
        "loss_args": {"similarity": "meanmaxsim", "symmetric": True, "relative_margin": -0.02},
        "gradient_cache_chunk_size": 3,
    },
    "compiled": {"objective": "contrastive", "torch_compile_backend": "aot_eager"},
    "contrastive_prefixes": {"objective": "contrastive", **PREFIXES},
    "cosent_prefixes": {"objective": "cosent", **PREFIXES},
    "bce_on_groups": {"objective": "bce", "format": "groups"},
    "own_margins": {
        "objective": "contrastive",
        "loss_args": {
            "relative_margin": -0.02,
            "symmetric": True,
            "contrast_queries": True,
            "contrast_documents": True,
            "hardness": 3.0,
        },
    },
    "guided": {
        "objective": "contrastive",
        "loss_args": {"absolute_margin": 0.02, "contrast_queries": True, "symmetric": True},
        "guide_model": "guide",
        "gradient_cache_chunk_size": 3,
    },
}


# By four processes: vectors of all processes, scores of all, and a sum of weights over all.
BY_FOUR = ["contrastive", "in_chunks", "cosent", "weighted_mse"]
# Again with two cores for each of two processes: a packed row on each.
BY_CORES = ["contrastive", "in_chunks", "bce", "cosent_prefixes"]
SAVED = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
# Fewer rows than processes; whole batches and steps (of 6, 12 and 24 rows), and others.
SIZES = {2: [1, 2, 3, 5, 6, 12, 13, 18, 24, 25], 4: [3, 12, 25]}
if os.environ.get("TANDEM_EVERY_SIZE"):
    SIZES = {processes: list(range(1, 41)) for processes in SIZES}


def recipe(variant: str, folder: Path, per_device: int, **more: Any) -> dict[str, Any]:
    settings = dict(VARIANTS[variant])
    objective = settings["objective"]
    kind = settings.pop("format", FORMATS[objective])
    if "guide_model" in settings:
        settings["guide_model"] = folder / settings["guide_model"]
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


def mixture(folder: Path, per_device: int) -> dict[str, Any]:
    """Three sources with an objective each, over accumulated batches."""
    paths = {name: str(folder / f"{name}.jsonl") for name in ("groups", "scored_groups", "graded")}
    sources: list[dict[str, Any]] = [
        {
            "path": paths["groups"],
            "loss_args": {"temperature": 0.1, "symmetric": True},
            "query_prompt": "检索 ",
            "document_prompt": "mat ",
        },
        {"path": paths["scored_groups"], "objective": "margin_mse", "train_group_size": 4},
        {"path": paths["graded"], "objective": "weighted_mse", "query_prompt": ""},
    ]
    found = recipe("contrastive", folder, per_device, gradient_accumulation_steps=2)
    del found["train_file"]
    # Past the epoch's 6 steps.
    return {**found, "train_files": sources, "learning_rate": 0.01, "max_steps": 7}


def sizes(folder: Path) -> dict[str, Any]:
    """What is most likely to hang: negatives of all processes, and embedding in chunks."""
    most = max(map(max, SIZES.values()))
    rows = [{"query": TEXTS[at % 18], "pos_doc": TEXTS[(at * 5 + 1) % 18]} for at in range(most)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "sizes.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {
        "objective": "contrastive",
        "model_name_or_path": folder / "embedder",
        "train_file": folder / "sizes.jsonl",
        "eval_file": folder / "sizes.jsonl",
        "per_device_train_batch_size": 3,
        "per_device_eval_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "gradient_cache_chunk_size": 4,
        "num_train_epochs": 1,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
    }


# Rows whose weights together are more than a float32 holds: a batch with both has no finite loss.
HEAVY = {2, 8}


def heavy(folder: Path) -> dict[str, Any]:
    """Twelve rows, six in a step, for four epochs."""
    rows = [
        row | {"weight": 3e38 if at in HEAVY else 1.0}
        for at, row in enumerate(islice(scored(), 12))
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "heavy.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {
        "objective": "weighted_mse",
        "model_name_or_path": folder / "embedder",
        "train_file": folder / "heavy.jsonl",
        "per_device_train_batch_size": 3,
        "num_train_epochs": 4,
        "save_strategy": "steps",
        "save_steps": 1,
        "logging_steps": 1,
        "on_bad_loss": "skip",
    }


def single(folder: Path) -> dict[str, dict[str, Any]]:
    """Batches of one row on each process, from which a model may learn nothing."""
    rows = [{"query": f"query {at}", "pos_doc": f"document {at}"} for at in range(4)]
    files = {"pairs": rows, "same": [{**row, "pos_doc": "the document"} for row in rows]}
    for name, content in files.items():
        lines = [json.dumps(row) for row in content]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    common = {
        "objective": "contrastive",
        "model_name_or_path": folder / "embedder",
        "num_train_epochs": 1,
        "logging_steps": 1,
        "per_device_train_batch_size": 1,
    }
    given = {**common, "train_file": folder / "pairs.jsonl"}
    return {
        "together": given,
        "apart": {**given, "negatives_across_processes": False},
        "same": {**common, "train_file": folder / "same.jsonl"},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and rows."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "1").mkdir()
    for kind in ("embedder", "multi_vector"):
        save_backbone(folder / kind, TEXTS, **NO_DROPOUT)
    save_classifier(folder / "reranker", TEXTS, **NO_DROPOUT)
    save_backbone(folder / "guide", TEXTS, seed=7)
    for kind in ("scored", "groups", "scored_groups"):
        write_format(kind, folder)
    lines = [json.dumps(row, ensure_ascii=False) for row in islice(scored(), 12)]
    (folder / "graded.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def launched(folder: Path) -> Path:
    """All variants by 2 processes, which take themselves for machines, and some by 4."""
    two = {variant: recipe(variant, folder, 4) for variant in VARIANTS}
    two["alone"] = recipe("contrastive", folder, 4, negatives_across_processes=False)
    two["accumulated"] = recipe("weighted_mse", folder, 2, gradient_accumulation_steps=2)
    two["accumulated_cosent"] = recipe("cosent", folder, 4, gradient_accumulation_steps=2)
    two["saved"] = recipe("bce", folder, 4, **SAVED, eval_file=folder / "scored.jsonl")
    two["bf16"] = recipe("contrastive", folder, 4, bf16=True)
    two["mixture"] = mixture(folder, 2)
    two["sizes"] = sizes(folder)
    two["heavy"] = heavy(folder)
    two |= single(folder)
    by_cores = {f"{variant}_by_cores": two[variant] for variant in BY_CORES}
    words = {
        processes: {"sizes": [f"SIZES={','.join(map(str, sizes))}"]}
        for processes, sizes in SIZES.items()
    }
    others = {f"{BY_CORES[0]}_by_cores": ["CORES=2"], "heavy": ["LARGEST=3.4e38"]}
    launch_machines(write_recipes(two | by_cores, folder / "2", words[2] | others))
    four = {variant: recipe(variant, folder, 2) for variant in BY_FOUR} | {"sizes": sizes(folder)}
    together(4, write_recipes(four, folder / "4", words[4]))
    return folder


def by_one(variant: str, folder: Path, **more: Any) -> Path:
    """The run of one process, made once."""
    name = "-".join([variant, *map(str, more.values())])
    if not (folder / "1" / name).exists():
        train(folder / "1" / name, **recipe(variant, folder, 8, **more))
    return folder / "1" / name


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
    """Four do nothing that two do not; what is gathered is tried with four all the same."""
    one = by_one(variant, launched)
    base = launched / OBJECTIVES[VARIANTS[variant]["objective"]].model
    for processes in (2, 4) if variant in BY_FOUR else (2,):
        check_step(one, launched / str(processes) / variant, base)


@pytest.mark.parametrize("variant", ["own_margins", "guided"])
def test_margins_find_the_same_false_negatives(variant: str, launched: Path) -> None:
    (one,) = losses(by_one(variant, launched), "false_negatives")
    (two,) = losses(launched / "2" / variant, "false_negatives")
    assert 0 < one < 1
    assert two == pytest.approx(one, abs=1e-6)


def test_the_launch_file_starts_its_processes_and_leaves_the_precision_alone(
    launched: Path,
) -> None:
    plain, half = (seen(launched / "2" / name) for name in ("contrastive", "bf16"))
    assert [note["processes"] for note in plain] == [2, 2]
    assert [note["autocast"] for note in plain] == [False, False]
    # A run in bf16 is one in fp32 on a processor that does not multiply in it.
    assert [note["autocast"] for note in half] == [multiplies_in_bf16()] * 2
    assert [note["processes"] for note in seen(launched / "4" / "contrastive")] == [4] * 4


@pytest.mark.parametrize("variant", BY_CORES)
def test_processes_may_have_several_cores(variant: str, launched: Path) -> None:
    two = launched / "2" / f"{variant}_by_cores"
    assert [note["workers"] for note in seen(two)] == [2, 2]
    assert [note["workers"] for note in seen(launched / "2" / variant)] == [0, 0]
    base = launched / OBJECTIVES[VARIANTS[variant]["objective"]].model
    check_step(by_one(variant, launched), two, base)


def test_accumulated_batches_are_part_of_the_step(launched: Path) -> None:
    one = by_one("weighted_mse", launched)
    assert_same_weights(one, launched / "2" / "accumulated", tolerance=1e-6)
    one = by_one("cosent", launched, gradient_accumulation_steps=2)
    assert_same_weights(one, launched / "2" / "accumulated_cosent", tolerance=1e-6)


def test_several_sources_take_the_steps_of_one_process(launched: Path) -> None:
    """All processes have the same source in each step."""
    two = launched / "2" / "mixture"
    one = train(launched / "1" / "mixture", **mixture(launched, 4))
    assert_same_weights(one, two, tolerance=1e-6)
    expected, found = losses_by_source(one), losses_by_source(two)
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert len({name for name, _ in found}) == 3
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], abs=1e-4)


@pytest.mark.parametrize("processes", [2, 4])
def test_every_process_takes_the_same_steps(processes: int, launched: Path) -> None:
    """No number of rows hangs: every process takes the same steps, evaluates and saves."""
    batches = [ceil(size / (3 * processes)) for size in SIZES[processes]]
    expected = [ceil(count / 2) for count in batches]
    folder = launched / str(processes)
    assert seen(folder / "sizes") == [expected] * processes
    for size, steps in zip(SIZES[processes], expected, strict=True):
        saved = folder / f"sizes-{size}" / f"checkpoint-{steps}"
        assert (saved / "model.safetensors").is_file()


def test_all_processes_skip_a_step_that_is_bad_on_one(launched: Path) -> None:
    sampler, halves = EpochSampler(12, seed=42), []
    for sampler.epoch in range(4):
        order = [index % 12 for index in sampler]
        halves += [(order[at : at + 3], order[at + 3 : at + 6]) for at in (0, 6)]
    bad = [at for at, two in enumerate(halves, 1) if any(set(rows) >= HEAVY for rows in two)]
    assert bad
    run = launched / "2" / "heavy"
    assert losses(run, "skipped_steps") == list(range(1, len(bad) + 1))
    log = (run / "finetune.log").read_text(encoding="utf-8")
    for step in bad:
        rows = next(rows for rows in halves[step - 1] if set(rows) >= HEAVY)
        assert f"step {step}: the loss is nan on the batch of rows {rows[0]} " in log
        old, new = (weights(run / f"checkpoint-{at}") for at in (step - 1, step))
        assert all(torch.equal(value, new[name]) for name, value in old.items())


def test_a_batch_of_one_learns_from_the_documents_of_all_processes(launched: Path) -> None:
    """Without them, every step is idle, and so it is where they are all the same."""
    counted = {name: losses(launched / "2" / name, "idle_steps")[-1:] for name in single(launched)}
    assert counted == {"together": [], "apart": [2], "same": [2]}


def test_one_process_logs_and_evaluates_for_all(launched: Path) -> None:
    saved = launched / "2" / "saved"
    assert len(losses(saved, "eval_loss")) == 1
    log = (saved / "finetune.log").read_text(encoding="utf-8")
    assert log.count("step 4/4  loss") == 1


def test_without_negatives_across_processes_the_step_is_another(launched: Path) -> None:
    """What the tests above show can fail."""
    one = by_one("contrastive", launched)
    with pytest.raises(AssertionError, match="apart"):
        assert_same_weights(one, launched / "2" / "alone", tolerance=1e-6)


def test_a_run_goes_on_with_another_number_of_processes(launched: Path) -> None:
    """Where they were if a step takes as many rows; a warning says what changes."""
    two = launched / "2" / "saved"
    more = SAVED | {"resume_from_checkpoint": two / "checkpoint-2"}
    one = train(launched / "1" / "saved", **recipe("bce", launched, 8, **more))
    assert_same_weights(one, two, tolerance=1e-6)
    log = (one / "finetune.log").read_text(encoding="utf-8")
    assert "checkpoint-2 is of a run on 2 processes, and this one has 1: the order of the" in log
    smaller = train(launched / "1" / "smaller", **recipe("bce", launched, 4, **more))
    log = (smaller / "finetune.log").read_text(encoding="utf-8")
    assert "a step takes 4 rows instead of 8" in log
