"""Train by one recipe after the other in the processes of one launch, which take long to start.

    accelerate launch ... tests/helpers/launched.py [NAME=VALUE] recipe.json ...

An environment variable is set for the recipes after it; CORES=2 makes torch take so many and give
each a packed row even of the smallest batch; SIZES=1,2,3 trains by the next recipe on that many of
its rows, one after the other; LARGEST=3e38 lets rows have such weights. Beside the output folder of
each recipe, every process writes what it saw. Where FSDP is asked for, accelerate is made to
believe that Gloo serves GPUs: on a CPU it would shard nothing.
"""

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

gc.disable()  # as in scripts/train.py

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils.data import Subset
from transformers import PrinterCallback

from encoders.unpadding import packing
from loaders.parsing import fields
from runs import main
from trainers import parse_run
from trainers.base import BaseTrainer
from trainers.config.assembly import build_collator, open_model, read_rows
from trainers.config.evaluators import build_evaluator


def steps_of_sizes(recipe: str, sizes: list[int]) -> list[int]:
    """Train and evaluate on so many rows; the steps of each run. The model trains on and on."""
    run = parse_run(["--config", recipe])
    model, output = open_model(run), run.args.output_dir
    rows = read_rows(run, run.args.train_file, "rejected_rows.jsonl")
    collator, evaluator = build_collator(run, model), build_evaluator(run)
    steps = []
    for size in sizes:
        run = parse_run(["--config", recipe, "--output_dir", f"{output}-{size}"])
        some = Subset(rows, range(size))
        trainer = run.build_trainer(
            model=model,
            data_collator=collator,
            train_dataset=some,
            eval_dataset=some,
            evaluator=evaluator,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        steps.append(trainer.state.global_step)
    return steps


def shard_on_the_cpu() -> None:
    """Let accelerate shard models with Gloo."""

    def backend(*_: Any, **__: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_GPU

    def device(state: Any) -> None:
        state.device = torch.device("cpu")

    distributed.init_process_group("gloo")
    PartialState._prepare_backend = backend
    PartialState.set_device = device


def note_trainers() -> list[BaseTrainer]:
    """A list to which every trainer is added when it begins to train."""
    trainers: list[BaseTrainer] = []
    train = BaseTrainer.train

    def noted(trainer: BaseTrainer, *args: Any, **kwargs: Any) -> Any:
        trainers.append(trainer)
        return train(trainer, *args, **kwargs)

    BaseTrainer.train = noted  # type: ignore[assignment, method-assign]
    return trainers


def seen(trainer: BaseTrainer) -> dict[str, Any]:
    """Steps, and how the weights are shared out: how many of them this process holds."""
    weights = dict(trainer.model.named_parameters())
    parts = {name: weight for name, weight in weights.items() if isinstance(weight, DTensor)}
    return {
        "steps": trainer.state.global_step,
        "sharded": sum(weight.numel() for weight in parts.values()),
        "own": sum(weight.to_local().numel() for weight in parts.values()),
        "all": sum(weight.numel() for weight in weights.values()),
        "units": [
            name for name, module in trainer.model.named_modules() if isinstance(module, FSDPModule)
        ],
        "workers": sum(thread.name.startswith("compute") for thread in threading.enumerate()),
        "processes": trainer.args.world_size,
        "autocast": trainer.accelerator.native_amp,
    }


def run(words: Sequence[str]) -> None:
    """Train by each recipe with the real script."""
    trainers, rank = note_trainers(), os.environ["RANK"]
    sizes: list[int] = []
    for word in words:
        name, is_variable, value = word.partition("=")
        if name == "SIZES":
            sizes = [int(size) for size in value.split(",")]
            continue
        if name == "LARGEST":
            fields.LARGEST = float(value)
            continue
        if is_variable:
            os.environ[name] = value
            if name == "CORES":
                os.environ["OMP_NUM_THREADS"] = value  # as a user who wants so many
                torch.set_num_threads(int(value))
                packing.MIN_TOKENS_IN_TRAINING, packing.MAX_IMBALANCE = 1, 0.99 * float(value)
            continue
        output = Path(json.loads(Path(word).read_text(encoding="utf-8"))["output_dir"])
        note = output.with_name(f"{output.name}.rank{rank}")
        if sizes:
            note.write_text(json.dumps(steps_of_sizes(word, sizes)))
            sizes = []
            continue
        main(["--config", word])
        note.write_text(json.dumps(seen(trainers.pop())))


if __name__ == "__main__":
    os.environ["FORK_LAUNCHED"] = "1"  # accelerate then leaves the processes' group to the next run
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        shard_on_the_cpu()
    gc.freeze()  # as in conftest.py
    run(sys.argv[1:])
    distributed.destroy_process_group()
    time.sleep(0.5)  # as in scripts/train.py
