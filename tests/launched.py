"""Run recipes one after the other in the processes of one launch, which take long to start.

    accelerate launch ... tests/launched.py jobs.json      (or torchrun, for sharded)

``jobs.json`` is a list of jobs: a ``recipe``, and an ``environment`` for it. Beside the output
folder of each, every process writes what it saw (``seen``).
"""

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

# Read by accelerate: the group of processes outlives a run, for the next one.
os.environ["FORK_LAUNCHED"] = "1"

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import distributed
from torch.distributed.tensor import DTensor

from trainers.base import LossTrainer

ROOT = Path(__file__).resolve().parent.parent


def shard_on_the_cpu() -> None:
    """Let accelerate believe that Gloo serves GPUs: it shards nothing on a CPU otherwise."""

    def backend(*_: Any, **__: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_GPU

    def device(state: Any) -> None:
        state.device = torch.device("cpu")

    distributed.init_process_group("gloo")
    PartialState._prepare_backend = backend
    PartialState.set_device = device


def note_trainers() -> list[LossTrainer]:
    """A list to which every trainer is added as it begins to train."""
    trainers: list[LossTrainer] = []
    train = LossTrainer.train

    def noted(trainer: LossTrainer, *args: Any, **kwargs: Any) -> Any:
        trainers.append(trainer)
        return train(trainer, *args, **kwargs)

    LossTrainer.train = noted
    return trainers


def seen(trainer: LossTrainer) -> dict[str, Any]:
    """Steps and losses; weights that are shared out, with this process's part of each."""
    weights = dict(trainer.model.named_parameters())
    return {
        "steps": trainer.state.global_step,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "whole": [name for name, weight in weights.items() if not isinstance(weight, DTensor)],
        "own": sum(
            weight.to_local().numel() for weight in weights.values() if isinstance(weight, DTensor)
        ),
        "all": sum(weight.numel() for weight in weights.values()),
        "shards": sorted(
            type(module).__name__
            for module in trainer.model.modules()
            if hasattr(module, "unshard")
        ),
    }


def run(jobs: list[dict[str, Any]]) -> None:
    """Train by each recipe with the real script."""
    main = runpy.run_path(str(ROOT / "scripts" / "train.py"))["main"]
    trainers = note_trainers()
    for job in jobs:
        os.environ.update(job["environment"])
        output = Path(job["recipe"]["output_dir"])
        main(["--config", job["file"]])
        rank = distributed.get_rank()
        output.with_name(f"{output.name}-{rank}.json").write_text(json.dumps(seen(trainers.pop())))
    distributed.destroy_process_group()


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        shard_on_the_cpu()
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
