"""A run that is resumed from a checkpoint ends as one that was not interrupted, bit by bit.

On a GPU this needs ``full_determinism``: without it the kernels of attention and pooling add up in
whatever order their threads come.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.on_gpu.rows import FAILED, Given, Rows, print_rows, row_or_failure
from scripts.train import main


def resume(given: Given) -> Rows:
    """With dropout, in both precisions."""
    yield ["resumed from step 3 of 6", "weights that differ", "losses that differ"]
    for exact in (False, True):
        for bf16 in (False, True):
            name = ("bf16" if bf16 else "fp32") + ", full_determinism" * exact
            yield row_or_failure([name], compare, given, bf16, exact)
    torch.use_deterministic_algorithms(False)


def compare(given: Given, bf16: bool, exact: bool) -> list[Any]:
    """Train without and with an interruption, and compare weights and losses."""
    name = f"{bf16}-{exact}"
    whole, resumed = given.folder / f"whole-{name}", given.folder / f"resumed-{name}"
    recipe: dict[str, Any] = {
        "objective": "contrastive",
        "model_name_or_path": str(given.folder / "bert"),
        "train_file": str(given.folder / "pairs.jsonl"),
        "output_dir": str(whole),
        "per_device_train_batch_size": 8 if given.tiny else 32,
        "max_steps": 6,
        "bf16": bf16,
        "full_determinism": exact,
        "save_steps": 3,
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    run(recipe)
    checkpoint = str(whole / "checkpoint-3")
    run(recipe | {"output_dir": str(resumed), "resume_from_checkpoint": checkpoint})
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    differ = sum(not torch.equal(one[name], two[name]) for name in one)
    moved = losses(whole) != losses(resumed)
    must = exact or given.device == "cpu"
    return [FAILED, differ, moved] if must and (differ or moved) else [differ, moved]


def run(recipe: dict[str, Any]) -> None:
    """Run scripts/train.py with a recipe."""
    file = Path(recipe["output_dir"]).with_suffix(".json")
    file.write_text(json.dumps(recipe), encoding="utf-8")
    main(["--config", str(file)])


def losses(folder: Path) -> list[float]:
    """The logged losses of all steps."""
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


if __name__ == "__main__":
    print_rows(resume)
