"""Is a run that is killed and resumed bit-identical to an undisturbed one?

    python benchmarks/faults/kills.py                     # 100 kills over all configurations
    python benchmarks/faults/kills.py --kills 20 --only lora "two processes" --record

Each configuration is trained once undisturbed. Then it is trained again and killed with SIGKILL at
a random phase (a step, an evaluation, a checkpoint, ...) and a random moment of it; resumed,
perhaps killed again, and resumed until it ends. Its weights, log and best checkpoint must equal
those of the undisturbed run.

Every run is forked from a process that has imported everything, so that it takes about a second.
Two processes are started as torchrun starts them; one is killed, and then the other, as torchrun
does.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))

import torch

from benchmarks.faults.forked_runs import PLACES, Plan, Run
from benchmarks.speed.results import new_parser, publish
from runs import TOPICS, write_format
from tiny import save_backbone, save_classifier
from trainers import OBJECTIVES

TEXTS = [text for topic, documents in TOPICS.items() for text in [topic, *documents]]
KINDS = {"scored_pair": "scored", "positive_pair": "pairs", "candidate_group": "groups"}
BEST = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
CACHED = {"gradient_cache_chunk_size": 3}
LORA = {"lora_r": 4, "lora_dropout": 0.1}
WORKERS = {"dataloader_num_workers": 2}
BY_EPOCH = {"save_strategy": "epoch", "eval_strategy": "epoch"}

# objective, what it is called, what is particular to it
CONFIGURATIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("contrastive", "gradient cache", CACHED),
    ("contrastive", "lora, gradient cache", LORA | CACHED),
    ("contrastive", "two processes, gradient cache", CACHED),
    ("weighted_mse", "accumulation, projection", {"projection_dim": 8}),
    ("cosent", "bf16, by epoch", {"bf16": True, **BY_EPOCH}),
    ("bce", "two workers", WORKERS),
    ("mse", "best of all, one kept", BEST | {"save_total_limit": 1}),
    ("pairwise", "two workers, best of all", WORKERS | BEST),
    ("listwise", "bf16, lora", {"bf16": True, **LORA}),
    ("listwise", "two processes, two workers", WORKERS),
    ("distillation", "early stopping", BEST | {"early_stopping_patience": 2, "learning_rate": 0.1}),
    ("margin_mse", "lora, by epoch", LORA | BY_EPOCH),
    ("reranker_distillation", "saved after every step", {"save_steps": 1}),
    ("reranker_margin_mse", "bf16, two processes", {"bf16": True}),
]


@dataclass
class Tally:
    """What became of a configuration's runs."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    identical: int = 0
    seconds: float = 0.0


def main() -> None:
    """Print a table of outcomes; exit 1 if a run ended otherwise than the undisturbed one."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--kills", type=int, default=100)
    add("--seed", type=int, default=0)
    add("--signals", nargs="+", default=["KILL"], choices=["KILL", "TERM", "INT"])
    add("--only", nargs="+", default=[""], help="parts of the configurations' names")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        tallies = campaign(args, Path(scratch))
    report(args, tallies)
    raise SystemExit(any(tally.runs > tally.identical for tally in tallies.values()))


def campaign(args: argparse.Namespace, scratch: Path) -> dict[str, Tally]:
    """Kill, resume and compare runs; what became of them by configuration."""
    draw = random.Random(args.seed)
    names = {f"{objective}: {about}": settings for objective, about, settings in CONFIGURATIONS}
    chosen = [name for name in names if any(part in name for part in args.only)]
    tallies = {name: Tally() for name in chosen}
    references: dict[str, tuple[Path, list[list[float]]]] = {}
    models = {
        "embedder": save_backbone(scratch / "embedder", TEXTS),
        "reranker": save_classifier(scratch / "reranker", TEXTS),
    }
    while (done := sum(tally.kills.total() for tally in tallies.values())) < args.kills:
        name = min(chosen, key=lambda name: tallies[name].kills.total())
        recipe = make_recipe(name, names[name], models, scratch)
        if name not in references:
            folder = scratch / f"whole-{len(references)}"
            references[name] = folder, undisturbed(recipe, folder, name)
        whole, times = references[name]
        begun = time.perf_counter()
        disturbed = scratch / "disturbed"
        hit = disturb(recipe, disturbed, name, times, draw, args.signals, args.kills - done)
        difference = compare(whole, disturbed)
        tally = tallies[name]
        tally.kills.update(hit)
        tally.runs += 1
        tally.identical += difference is None
        tally.seconds += time.perf_counter() - begun
        print(f"{name}: killed in {', '.join(hit) or 'no place'}: {difference or 'identical'}")
        sys.stdout.flush()
        if difference is None:
            shutil.rmtree(disturbed)
        else:
            disturbed.rename(disturbed.with_name(f"bad-{done}"))
    return tallies


def make_recipe(
    name: str, particular: dict[str, Any], models: dict[str, Path], scratch: Path
) -> dict[str, Any]:
    """Dropout, a short last batch, accumulation, negatives drawn by epoch, three epochs."""
    objective = name.partition(":")[0]
    row = OBJECTIVES[objective]
    rows = write_format("scored_groups" if row.needs_scores else KINDS[row.shapes[0]], scratch)
    two = "two processes" in name
    return {
        "objective": objective,
        "model_name_or_path": str(models[row.model]),
        "train_file": str(rows),
        "eval_file": str(rows),
        "eval_metrics": [],
        "train_group_size": 3,
        "per_device_train_batch_size": 2 if two else 3,
        "gradient_accumulation_steps": 1 if two else 2,
        "num_train_epochs": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": particular.get("save_steps", 2),
        "disable_tqdm": True,
        "use_cpu": True,
    } | particular


def undisturbed(recipe: dict[str, Any], folder: Path, name: str) -> list[list[float]]:
    """Train to the end; returns the seconds of every entry of each place."""
    run = Run(recipe, folder, name)
    if run.wait() != 0:
        raise SystemExit(f"{name}: an undisturbed run failed:\n{run.log.read_text()}")
    times: list[list[float]] = json.loads(run.times.read_text())
    return times


def disturb(
    recipe: dict[str, Any],
    folder: Path,
    name: str,
    times: list[list[float]],
    draw: random.Random,
    signals: list[str],
    most: int,
) -> list[str]:
    """Train, killed at least once and at most ``most`` times; returns where."""
    hit: list[str] = []
    while True:
        plan = None
        if len(hit) < most and (not hit or draw.random() < 0.4):
            place = draw.choice([at for at, entries in enumerate(times) if entries])
            entry = draw.randrange(len(times[place]))
            number = signal.Signals[f"SIG{draw.choice(signals)}"]
            plan = Plan(place, entry, draw.random() * times[place][entry], number)
        go_on = any(folder.glob("checkpoint-*")) or any(folder.glob(".checkpoint-*.part"))
        run = Run(recipe | ({"resume_from_checkpoint": True} if go_on else {}), folder, name, plan)
        place_hit, status = run.stop_as_planned()
        output = run.log.read_text()
        if place_hit is not None:
            hit.append(place_hit)
        elif status == 2 and "no checkpoint" in output and "is whole" not in output:
            continue  # the part was not whole, and is gone: the next is a fresh run
        elif status == 2 and "is the end of the run" in output:
            return hit  # the model was in place when it was killed
        elif status != 0:
            raise SystemExit(f"{name}: a resumed run failed ({status}):\n{output}")
        else:
            return hit


def compare(whole: Path, other: Path) -> str | None:
    """How two runs differ: in a file of weights, the log, or the best checkpoint."""
    for path in [*whole.glob("*.safetensors"), *whole.glob("[!c]*/*.safetensors")]:
        found = other / path.relative_to(whole)
        if not found.is_file() or found.read_bytes() != path.read_bytes():
            return f"{path.relative_to(whole)} differs"
    states = [
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        for folder in (whole, other)
    ]
    logs = [
        [
            {
                key: value
                for key, value in entry.items()
                if "runtime" not in key and "per" not in key
            }
            for entry in state["log_history"]
            if "train_runtime" not in entry
        ]
        for state in states
    ]
    if logs[0] != logs[1]:
        return "the log differs"
    if states[0]["best_global_step"] != states[1]["best_global_step"]:
        return "the best checkpoint differs"
    return None


def report(args: argparse.Namespace, tallies: dict[str, Tally]) -> None:
    """One line for each configuration, and one for all."""
    whole = Tally()
    for tally in tallies.values():
        whole.kills += tally.kills
        whole.runs += tally.runs
        whole.identical += tally.identical
        whole.seconds += tally.seconds
    kills = whole.kills.total()
    publish(
        args,
        "kills",
        f"{kills} kills ({', '.join(args.signals)}) of {whole.runs} runs, seed {args.seed}; "
        f"{whole.identical} of {whole.runs} runs ended with the weights, the log and the best "
        f"checkpoint of the undisturbed run, bit by bit. {whole.seconds / max(1, kills):.1f} s a "
        "kill.",
        ["objective: configuration", "kills", *PLACES, "runs", "identical"],
        [
            (
                name,
                tally.kills.total(),
                *(tally.kills[place] for place in PLACES),
                tally.runs,
                tally.identical,
            )
            for name, tally in {**tallies, "all": whole}.items()
        ],
    )


if __name__ == "__main__":
    main()
