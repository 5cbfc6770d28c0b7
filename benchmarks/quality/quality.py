"""What does a way of training gain? Models trained in several ways, measured on queries kept aside.

    python benchmarks/quality/quality.py masks scifact
    python benchmarks/quality/quality.py objectives docstrings --seeds 0 1 2 --record

A comparison is several lines, which differ in one thing:

masks       contrastive training: no masks, by the model's own similarities, by a guide; and
            sentence-transformers' trainer on the same rows
mining      contrastive training with one mined negative for each pair: any of ranks 2-200, only
            those under 95 % of the positive's score, half of them random
merging     an embedder tuned on the set, and merged with its base: half and half, and by weights
            found on rows kept aside, with the docstrings as a guard
objectives  rerankers on the same groups
matryoshka  contrastive training with matryoshka_dims and without, by fewer and fewer dimensions
quickstart  the quick start's embedder, alone and fused with BM25 as ``make quickstart`` does it
dropout     contrastive training with the model's dropout of attention weights and without it
precision   contrastive training in fp32 and in bf16, and sentence-transformers' trainer in bf16

Embedders search all documents; rerankers order the best 20 that the base embedder finds, or the
candidates of the set. A difference is that of a query's mean over the seeds, with its 95 % interval
over the queries. What is measured is kept in --folder, so a command that was stopped goes on.
``--record`` puts the table into benchmarks/RESULTS.md.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.sets import open_set
from benchmarks.quality.training import (
    GROUPS,
    LIMITS,
    METRIC,
    PAIRS,
    Flags,
    Task,
    mine,
    python,
    train,
    train_peer,
)
from benchmarks.speed.results import ROOT, new_parser, publish, quiet
from common.hardware import prepare_cpu
from encoders import Embedder, Reranker
from evaluation import compare
from evaluation.data.sets import RetrievalData
from evaluation.measure import FirstStage, evaluate_run, measure_fused, measure_ranking
from evaluation.search.distributed import InferenceSettings
from evaluation.search.fusion import read_fusion
from evaluation.search.retrieval import retrieve

GUARD = "docstrings"
QUERIES = 150  # that rerankers get
PAIR_LIMIT = {"max_length": 128}
PEER = "sentence-transformers"

MASKS: dict[str, Flags] = {
    "no masks": {},
    "own, absolute 0": {"loss_args": {"absolute_margin": 0.0}},
    "own, relative 0.05": {"loss_args": {"relative_margin": 0.05}},
    "guide (the base), absolute 0": {"guide_model": "BASE", "loss_args": {"absolute_margin": 0.0}},
    PEER: {},
}
MINING: dict[str, Flags] = {
    "in-batch only": {},
    "mined": {},
    "mined, under 95 %": {"relative_margin": 0.05},
    "mined, under 95 %, half random": {"relative_margin": 0.05, "random_share": 0.5},
}
OBJECTIVES: dict[str, Flags] = {
    "bce": {"objective": "bce"},
    "pairwise": {"objective": "pairwise"},
    "listwise": {"objective": "listwise"},
    "listmle": {"objective": "listmle"},
    "lambda_loss": {"objective": "lambda_loss"},
    "listwise, groups of 8": {"objective": "listwise", "train_group_size": 8},
    "listwise, 4 in-batch negatives": {"objective": "listwise", "in_batch_negatives": 4},
}
FROM_SCORES: dict[str, Flags] = {
    "reranker_distillation": {"objective": "reranker_distillation"},
    "reranker_margin_mse": {"objective": "reranker_margin_mse"},
    "reranker_adr_mse": {"objective": "reranker_adr_mse"},
}
PRECISION: dict[str, Flags] = {"fp32": {}, "bf16": {"bf16": True}, PEER: {"bf16": True}}
DROPOUT: dict[str, Flags] = {"the model's": {}, "without": {"attention_dropout": 0.0}}
EMBEDDERS = {"masks": MASKS, "mining": MINING, "precision": PRECISION, "dropout": DROPOUT}
DIMS = [384, 192, 96, 48]
FIRST = "the embedder's order, no reranker"
BASE_LINE, TUNED, HALF, FOUND = "base", "tuned", "half base, half tuned", "weights found"


def main() -> None:
    """Train, measure and print, seed after seed."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("comparison", choices=list(COMPARISONS))
    add("set", choices=["docstrings", "scifact", "cn_medical_qa", "t2ranking_100"])
    add("--bf16", action="store_true", help="train and measure in bf16, not in fp32")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--shared", type=Path, default=ROOT.parent / "shared/data", help="the public data sets")
    add("--folder", type=Path, default=ROOT / "outputs/quality", help="where figures are kept")
    args = parser.parse_args()
    quiet()
    prepare_cpu(training=True)
    task = Task(args)
    COMPARISONS[args.comparison](task)


def embedders(task: Task) -> None:
    """Train by each line and search."""
    lines, inference = EMBEDDERS[task.args.comparison], task.inference(**LIMITS)
    if not task.file(BASE_LINE, "").exists():
        task.keep(BASE_LINE, "", search(task.set.base, task.set.test, inference))
    for seed in task.args.seeds:
        for name, flags in lines.items():
            if not task.file(name, seed).exists():
                model = train_embedder(task, name, flags, seed)
                task.keep(name, seed, search(model, task.set.test, inference))
    report(task, [BASE_LINE, *lines])


def train_embedder(task: Task, name: str, flags: Flags, seed: int) -> Path:
    """By one line of a comparison."""
    if name == PEER:
        return train_peer(task, flags, seed)
    if task.args.comparison != "mining" or not name.startswith("mined"):
        return train(task, "embedding_contrastive", LIMITS | flags, seed, task.set.pairs, PAIRS)
    rows = mine(task, name, flags)
    group = LIMITS | {"train_group_size": 2}
    return train(task, "embedding_contrastive", group, seed, rows, PAIRS)


def rerankers(task: Task) -> None:
    """Train by each objective on the same groups, and order the same candidates."""
    lines = OBJECTIVES | (FROM_SCORES if task.set.groups else {})
    rows = task.set.groups or mine(task, "groups", {"relative_margin": 0.05})
    data = task.set.test.sample(QUERIES)
    found = retrieve(Embedder.from_pretrained(task.set.base), data, 20, task.inference(**LIMITS))
    task.keep(FIRST, "", evaluate_run(found, data, [METRIC]).values[METRIC])
    first = FirstStage(found, 20) if data.candidates is None else None
    rate: Flags = {"learning_rate": task.set.group_learning_rate, "head_learning_rate": 1e-3}
    for seed in task.args.seeds:
        for name, flags in lines.items():
            if not task.file(name, seed).exists():
                given = PAIR_LIMIT | rate | {"in_batch_negatives": 0} | flags
                trained = train(task, "reranker", given, seed, rows, GROUPS)
                model = Reranker.from_pretrained(trained)
                ranked = measure_ranking(model, data, [METRIC], task.inference(**PAIR_LIMIT), first)
                task.keep(name, seed, ranked.values[METRIC])
    report(task, [FIRST, *lines], reference="listwise")


def merging(task: Task) -> None:
    """Train, merge with the base, and search the set and the guard."""
    held, dev = task.folder / "train.jsonl", task.folder / "dev.jsonl"
    assert task.set.pairs is not None
    pairs = task.set.pairs.read_text(encoding="utf-8").splitlines(keepends=True)
    dev.write_text("".join(pairs[::5]), encoding="utf-8")
    held.write_text("".join(pair for at, pair in enumerate(pairs) if at % 5), encoding="utf-8")
    guard = open_set(GUARD, task.args.shared, task.folder)
    assert guard.pairs is not None
    tests = {"": task.set.test, f", on {GUARD}": guard.test}

    def measure(name: str, seed: int | str, model: str) -> None:
        for end, data in tests.items():
            task.keep(name + end, seed, search(model, data, task.inference(**LIMITS)))

    if not task.file(BASE_LINE, "").exists():
        measure(BASE_LINE, "", task.set.base)
    for seed in task.args.seeds:
        if task.file(FOUND, seed).exists():
            continue
        tuned = train(task, "embedding_contrastive", LIMITS, seed, held, PAIRS)
        measure(TUNED, seed, str(tuned))
        on_guard = ["--guard_data", guard.pairs.with_name("dev_pairs.jsonl")]
        found = ["--data", dev, *on_guard]
        for name, flags in ((HALF, ["--weights", "0.5", "0.5"]), (FOUND, found)):
            merged = task.folder / "merged"
            shutil.rmtree(merged, ignore_errors=True)
            given = ["--models", task.set.base, tuned, "--output_dir", merged, *flags]
            python("scripts/merge.py", *given)
            measure(name, seed, str(merged))
    lines = (BASE_LINE, TUNED, HALF, FOUND)
    report(task, [name + end for end in tests for name in lines], reference=BASE_LINE)


def matryoshka(task: Task) -> None:
    """Train both and search by the first dimensions of the same vectors."""
    plain, nested = "contrastive", "contrastive with matryoshka_dims"
    for seed in task.args.seeds:
        for name, flags in ((plain, {}), (nested, {"matryoshka_dims": DIMS})):
            if task.file(f"{name}, {DIMS[-1]} dimensions", seed).exists():
                continue
            model = train(
                task, "embedding_contrastive", LIMITS | flags, seed, task.set.pairs, PAIRS
            )
            for dim in DIMS:
                embedder = Embedder.from_pretrained(model, truncate_dim=dim)
                found = measure_ranking(embedder, task.set.test, [METRIC], task.inference(**LIMITS))
                task.keep(f"{name}, {dim} dimensions", seed, found.values[METRIC])
    names = [f"{name}, {dim} dimensions" for dim in DIMS for name in (plain, nested)]
    report(task, names, reference=names[0])


def search(model: str | Path, data: RetrievalData, inference: InferenceSettings) -> Any:
    """A value per query [Q]."""
    return measure_ranking(Embedder.from_pretrained(model), data, [METRIC], inference).values[
        METRIC
    ]


def quick_start(task: Task) -> None:
    """Train by the recipe as it is, and choose BM25's weight on the pairs kept aside for it."""
    assert task.set.pairs is not None
    inference, dev = (
        task.inference(document_max_length=96),
        task.set.pairs.with_name("dev_pairs.jsonl"),
    )
    alone, fused = "tuned", "tuned, fused with BM25"
    if not task.file(BASE_LINE, "").exists():
        task.keep(BASE_LINE, "", search(task.set.base, task.set.test, inference))
    for seed in task.args.seeds:
        if task.file(fused, seed).exists():
            continue
        output = task.folder / "model"
        given = ["--output_dir", output, "--seed", seed, "--eval_file", "null", "--overwrite=true"]
        recipe = ROOT / "configs/embedding_contrastive.json"
        python("scripts/train.py", "--config", recipe, *given)
        python("scripts/fuse.py", "--model", output, "--data", dev, "--document_max_length", 96)
        embedder, fusion = Embedder.from_pretrained(output), read_fusion(str(output))
        assert fusion is not None
        found = measure_fused(embedder, task.set.test, [METRIC], inference, fusion)
        for name, ranked in zip((alone, fused), found, strict=True):
            task.keep(name, seed, ranked.values[METRIC])
    report(task, [BASE_LINE, alone, fused], reference=alone)


def report(task: Task, names: list[str], reference: str | None = None) -> None:
    """Means, and each line's difference to the reference line (else the first that was trained)."""
    args, rows = task.args, []
    for name in names:
        runs = task.values(name)
        end = name[name.index(", on ") :] if ", on " in name else ""
        own_reference = (reference or names[1]) + end
        told = ["", ""]
        if name != own_reference:
            against = np.mean(task.values(own_reference), axis=0)
            one = compare(against, np.mean(runs, axis=0))
            interval = f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
            told = [interval, f"{one.p_value:.4f}"]
        of_seeds = " ".join(f"{each.mean():.4f}" for each in runs) if len(runs) > 1 else ""
        rows.append([name, of_seeds, f"{np.mean(runs):.4f}", *told])
    sizes = dict.fromkeys(len(task.values(name)[0]) for name in names)
    base = Path(task.set.base).name if Path(task.set.base).exists() else task.set.base
    publish(
        args,
        f"quality, {args.comparison} on {args.set}",
        f"{base}, {trained_how(task)}, seeds {', '.join(map(str, args.seeds))}; {METRIC} on "
        f"{' and '.join(map(str, sizes))} queries kept aside. Differences are to "
        f'"{reference or names[1]}", of the means over the same seeds, with the 95 % interval over '
        "the queries.",
        ["", "of each seed", "mean", "difference [95 % interval]", "p"],
        rows,
    )


def trained_how(task: Task) -> str:
    """How the models of a comparison were trained, in words."""
    if task.args.comparison == "quickstart":
        return "trained by configs/embedding_contrastive.json"
    steps, unit, rate = task.set.steps, f"{PAIRS} pairs", f"{task.set.learning_rate:g}"
    if task.args.comparison == "objectives":
        steps, unit = task.set.group_steps, f"{GROUPS} groups"
        rate = f"{task.set.group_learning_rate:g} and 1e-3 for the new head"
    return (
        f"{steps} steps of {unit}, documents cut at {LIMITS['document_max_length']} "
        f"tokens, learning rate {rate}{', in bf16' if task.args.bf16 else ''}"
    )


COMPARISONS = {
    "masks": embedders,
    "mining": embedders,
    "merging": merging,
    "objectives": rerankers,
    "precision": embedders,
    "dropout": embedders,
    "matryoshka": matryoshka,
    "quickstart": quick_start,
}

if __name__ == "__main__":
    torch.manual_seed(0)
    main()
