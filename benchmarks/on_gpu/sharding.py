"""FSDP2 on one GPU: the losses of a run without it."""

import json
import subprocess
import sys
from typing import Any

import torch

from benchmarks.on_gpu.resume import losses, run
from benchmarks.on_gpu.rows import FAILED, Given, Rows, print_rows, row_or_failure
from benchmarks.speed.results import ROOT

LAUNCH = ["-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/fsdp2.yaml"]


def sharding(given: Given) -> Rows:
    """A few steps, in fp32."""
    yield ["FSDP2, one process", "steps", "largest difference of a loss"]
    if not torch.cuda.is_available():
        yield ["not run: there is no GPU"]
        return
    yield row_or_failure(["bert, fp32"], compare, given)


def compare(given: Given) -> list[Any]:
    """Train with it and without."""
    recipe: dict[str, Any] = {
        "objective": "contrastive",
        "model_name_or_path": str(given.folder / "bert_without_dropout"),
        "train_file": str(given.folder / "pairs.jsonl"),
        "output_dir": str(given.folder / "plain"),
        "per_device_train_batch_size": 32,
        "max_steps": 4,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    run(recipe)
    file, output = given.folder / "sharded.json", given.folder / "sharded"
    file.write_text(json.dumps(recipe | {"output_dir": str(output)}), encoding="utf-8")
    script = ["--num_processes", "1", "scripts/train.py", "--config", str(file)]
    subprocess.run([sys.executable, *LAUNCH, *script], cwd=ROOT, check=True, stdout=sys.stderr)
    pairs = list(zip(losses(given.folder / "plain"), losses(output), strict=True))
    worst = max(abs(one - other) for one, other in pairs)
    return [*([] if worst < 1e-3 else [FAILED]), len(pairs), f"{worst:.1e}"]


if __name__ == "__main__":
    print_rows(sharding)
