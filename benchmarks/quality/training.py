"""Trainings by the scripts, for benchmarks/quality/quality.py, and what is kept of them."""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.sets import DataSet, open_set
from benchmarks.speed.emulated_bf16 import lacks_bf16
from benchmarks.speed.results import ROOT
from evaluation.search.distributed import InferenceSettings

METRIC = "ndcg@10"
PAIRS, GROUPS = 64, 8  # a step
LIMITS = {"query_max_length": 64, "document_max_length": 128}
Flags = dict[str, Any]


class Task:
    """One comparison on one set, and what was measured of it so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder: Path = args.folder / args.comparison / args.set
        self.folder.mkdir(parents=True, exist_ok=True)
        self.set: DataSet = open_set(args.set, args.shared.resolve(), self.folder)

    def inference(self, **limits: Any) -> InferenceSettings:
        """How models are measured."""
        return InferenceSettings(bf16=self.args.bf16, **limits)

    def file(self, name: str, seed: int | str) -> Path:
        """Where a line's figures of a seed are kept."""
        return self.folder / f"{name}-{seed}.npy"

    def keep(self, name: str, seed: int | str, found: Any) -> None:
        """Keep a value per query [Q], and tell."""
        np.save(self.file(name, seed), found)
        print(f"{name}, seed {seed}: {METRIC} {found.mean():.4f}", flush=True)

    def values(self, name: str) -> list[Any]:
        """What is kept of a line: an array [Q] a seed, or one of a line without training."""
        return [
            np.load(file)
            for seed in ("", *self.args.seeds)
            if (file := self.file(name, seed)).exists()
        ]


def mine(task: Task, name: str, flags: Flags) -> Path:
    """Seven negatives for each pair, by the base model from the default ranks."""
    output = task.folder / f"{name}.jsonl"
    if not output.exists():
        corpus = {"corpus": task.set.corpus} if task.set.corpus else {}
        given = LIMITS | corpus | {"random_share": 0.0, "bf16": task.args.bf16} | flags
        given |= {"input": task.set.pairs, "output": output, "embedder": task.set.base}
        python("scripts/mine_negatives.py", *as_flags(given))
    return output


def train(task: Task, recipe: str, flags: Flags, seed: int, rows: Path | None, batch: int) -> Path:
    """A model by a recipe of the quick start, on these rows."""
    output = task.folder / "model"
    shutil.rmtree(output, ignore_errors=True)  # left by a run that was stopped
    given: Flags = {"learning_rate": task.set.learning_rate} | flags
    for key, value in given.items():
        given[key] = task.set.base if value == "BASE" else value
    given |= {"model_name_or_path": task.set.base, "train_file": rows, "output_dir": output}
    steps = task.set.group_steps if batch == GROUPS else task.set.steps
    given |= {"per_device_train_batch_size": batch, "max_steps": steps, "seed": seed}
    given |= {"eval_file": "null", "save_strategy": "no", "disable_tqdm": True}
    # Of some queries, all that is found may be too near to the positive to be a negative.
    given = {"bf16": task.args.bf16, "on_bad_rows": "skip"} | given
    config = ROOT / f"configs/{recipe}.json"
    python(*emulator(given["bf16"]), "scripts/train.py", "--config", config, *as_flags(given))
    return output


def train_peer(task: Task, flags: Flags, seed: int) -> Path:
    """sentence-transformers' trainer in a process of its own, with the same settings."""
    output = task.folder / "peer"
    settings = {
        "output_dir": str(output),
        "per_device_train_batch_size": PAIRS,
        "learning_rate": task.set.learning_rate,
        "max_steps": task.set.steps,
        "seed": seed,
        "bf16": flags.get("bf16", task.args.bf16),
        "use_cpu": not torch.accelerator.is_available(),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    length = LIMITS["document_max_length"]
    given = [json.dumps(settings), task.set.base, task.set.pairs, length]
    python(*emulator(settings["bf16"]), "benchmarks/speed/peer_training.py", *given)
    return output


def emulator(bf16: bool) -> list[str]:
    """What runs a script in bf16 on a processor that has none."""
    return ["benchmarks/speed/emulated_bf16.py"] if bf16 and lacks_bf16() else []


def as_flags(given: Flags) -> list[str]:
    """Flags of a script."""
    texts = {k: v if isinstance(v, str) else json.dumps(v, default=str) for k, v in given.items()}
    return [f"--{key}={text.strip(chr(34))}" for key, text in texts.items()]


def python(*command: object) -> None:
    """Run it in the project's folder, without its standard output."""
    given = [sys.executable, *map(str, command)]
    subprocess.run(given, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
