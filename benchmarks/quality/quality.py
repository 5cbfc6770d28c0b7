"""What does a change of training gain? Models trained in several ways, on held-out queries.

    python benchmarks/quality/quality.py embedder
    python benchmarks/quality/quality.py reranker --seeds 0 1 2 --record
    python benchmarks/quality/quality.py embedder --data ../shared/data/scifact --peer --record \\
        --document_max_length 128 --flags "--max_steps -1 --num_train_epochs 1"

Each run uses the scripts and the quick start's recipes, and differs from its neighbours in one
thing:

embedder   in-batch negatives only; with --peer the same by sentence-transformers' own trainer; one
           negative more for each pair, mined by the base model; the same, mined by the embedder of
           the first line (a second round; of the first seed only)
precision  an embedder with in-batch negatives in fp32 and in bf16; with --peer also by
           sentence-transformers' own trainer in bf16
reranker   random documents as negatives; mined ones, by the base embedder

Data are the docstrings (all models are measured on held-out modules) or a folder in the BEIR layout
with qrels/train.tsv and test.tsv. Embedders search all documents, rerankers order the best that the
base embedder finds. A difference is that of a query's mean over the seeds, with its 95 % interval
over the queries. ``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.emulated_bf16 import lacks_bf16
from benchmarks.speed.results import BASE, ROOT, new_parser, publish, quiet
from common.hardware import prepare_cpu
from encoders import Embedder, Reranker
from evaluation import compare, read_beir
from evaluation.data.sets import RetrievalData
from evaluation.measure import FirstStage, measure_ranking
from evaluation.search.distributed import How
from evaluation.search.retrieval import retrieve
from trainers import parse_run

DOCSTRINGS = ROOT / "data" / "docstrings"
METRIC = "ndcg@10"
IN_BATCH, PEER = "in-batch only", "in-batch only, sentence-transformers"
MINED, AGAIN = "mined by the base", "mined by the first round"
BF16, PEER_BF16 = f"{IN_BATCH}, bf16", f"{PEER}, bf16"
RANDOM = "random"


def main() -> None:
    """Train, measure and print, seed after seed."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("kind", choices=["embedder", "precision", "reranker"])
    add("--data", type=Path, default=DOCSTRINGS, help="a BEIR folder (default: the docstrings)")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--query_max_length", type=int, default=64)
    add("--document_max_length", type=int, default=96, help="for rerankers: of the pair")
    add("--top_k", type=int, default=20, help="that rerankers order")
    add("--max_queries", type=int, default=200, help="that rerankers get")
    add("--flags", default="", help="more flags for train.py, in one string")
    add("--peer", action="store_true", help="train an embedder by sentence-transformers too")
    args = parser.parse_args()
    quiet()
    prepare_cpu(training=True)
    with tempfile.TemporaryDirectory() as folder:
        task = Task(args, Path(folder))
        {"embedder": embedders, "precision": precisions, "reranker": rerankers}[args.kind](task)
    tell(task)


class Task:
    """One comparison: its data, and what was measured so far.

    ``values`` holds for each way of training one array [Q] a seed, ``seconds`` the processor time
    of each training, which other work on the machine does not lengthen as it does the clock's.
    """

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        self.args, self.scratch = args, scratch
        self.values: dict[str, list[Any]] = defaultdict(list)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.lengths = {name: getattr(args, name) for name in LENGTHS}
        self.corpus: list[str | Path] = []
        if args.data == DOCSTRINGS:
            self.pairs, beir = DOCSTRINGS / "train_pairs.jsonl", DOCSTRINGS / "heldout"
        else:
            beir = args.data.resolve()
            self.pairs = scratch / "pairs.jsonl"
            self.corpus = ["--corpus", beir / "corpus.jsonl"]
            run("prepare_data", "beir", "--input", beir, "--output_dir", scratch, "--split=train")
            rows, to = ["--input", scratch / "train.jsonl"], ["--output", self.pairs]
            run("prepare_data", "convert", *rows, *to, "--to", "pairs", "--allow_loss")
        self.data: RetrievalData = read_beir(beir, "test")

    def keep(self, name: str, found: Any) -> None:
        """Note and tell."""
        self.values[name].append(found)
        seconds = "".join(f", {s:.0f} s of processor time" for s in self.seconds[name][-1:])
        number = len(self.values[name])
        print(f"{name}, seed number {number}: {METRIC} {found.mean():.4f}{seconds}", flush=True)

    def timed(self, name: str, *command: str | Path) -> None:
        """Run a training; its processor time counts where products in bf16 are not emulated."""
        in_bf16 = name in (BF16, PEER_BF16)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python(*(["benchmarks/speed/emulated_bf16.py"] if in_bf16 else []), *command)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        self.seconds[name] += [] if in_bf16 and lacks_bf16() else [seconds]


LENGTHS = ("query_max_length", "document_max_length")


def embedders(task: Task) -> None:
    """In-batch negatives, mined ones, and mined ones of a second round."""
    args, scratch = task.args, task.scratch
    mine(task, scratch / "mined.jsonl", BASE)
    task.keep("base", measure_embedder(task, BASE))
    for seed in args.seeds:
        first = train(task, IN_BATCH, "embedding_contrastive", seed, task.pairs)
        task.keep(IN_BATCH, measure_embedder(task, str(first)))
        if args.peer:
            peer = start_peer(task, PEER, seed)
            task.keep(PEER, measure_embedder(task, str(peer)))
        rows = {MINED: scratch / "mined.jsonl"}
        if seed == args.seeds[0]:  # the second round takes as long as the first
            rows[AGAIN] = scratch / "again.jsonl"
            mine(task, rows[AGAIN], str(first))
        for name, file in rows.items():
            group = ("--train_group_size", "2")
            tuned = train(task, name, "embedding_contrastive", seed, file, *group)
            task.keep(name, measure_embedder(task, str(tuned)))


def precisions(task: Task) -> None:
    """In-batch negatives in fp32 and in bf16."""
    task.keep("base", measure_embedder(task, BASE))
    for seed in task.args.seeds:
        for name, bf16 in ((IN_BATCH, "false"), (BF16, "true")):
            tuned = train(task, name, "embedding_contrastive", seed, task.pairs, "--bf16", bf16)
            task.keep(name, measure_embedder(task, str(tuned)))
        if task.args.peer:
            peer = start_peer(task, PEER_BF16, seed)
            task.keep(PEER_BF16, measure_embedder(task, str(peer)))


def rerankers(task: Task) -> None:
    """Random negatives and mined ones."""
    scratch, top_k = task.scratch, task.args.top_k
    data = task.data.sample(task.args.max_queries)
    found = retrieve(Embedder.from_pretrained(BASE), data, top_k, How(**task.lengths))
    first = FirstStage(found, top_k)
    rows = {RANDOM: scratch / "random.jsonl", MINED: scratch / "mined.jsonl"}
    output = ["--input", task.pairs, "--output", rows[RANDOM], *task.corpus]
    run("mine_negatives", *output, "--bm25", "--random_share", "1")
    mine(task, rows[MINED], BASE)
    how = How(max_length=task.args.document_max_length)
    for seed in task.args.seeds:
        for name, file in rows.items():
            model = Reranker.from_pretrained(train(task, name, "reranker", seed, file))
            task.keep(name, measure_ranking(model, data, [METRIC], how, first).values[METRIC])


def mine(task: Task, output: Path, embedder: str) -> None:
    """Seven negatives for each pair, the default ranks, margin 0.05."""
    limits = [f"--{name}={value}" for name, value in task.lengths.items()]
    flags = ["--embedder", embedder, "--relative_margin", "0.05", *limits, *task.corpus]
    run("mine_negatives", "--input", task.pairs, "--output", output, *flags)


def train(task: Task, name: str, recipe: str, seed: int, rows: Path, *flags: str) -> Path:
    """A model by the quick start's recipe, on these rows."""
    output = task.scratch / name.replace(" ", "-")
    given = flags_of(task, recipe, seed)
    given += ["--train_file", str(rows), "--output_dir", str(output), *flags]
    # Of some queries, all that is found may be too near to the positive to be a negative.
    given += ["--overwrite", "true", "--on_bad_rows", "skip"]
    task.timed(name, "scripts/train.py", *given)
    return output


def flags_of(task: Task, recipe: str, seed: int) -> list[str]:
    """What all trainings by a recipe have in common, as flags of train.py."""
    given = ["--config", str(ROOT / f"configs/{recipe}.json"), "--eval_file", "null"]
    given += ["--seed", str(seed), "--save_strategy", "no", "--disable_tqdm", "true"]
    limits = {"max_length": task.args.document_max_length} if recipe == "reranker" else task.lengths
    given += [f"--{name}={value}" for name, value in limits.items()]
    return given + task.args.flags.split()


def start_peer(task: Task, name: str, seed: int) -> Path:
    """sentence-transformers' trainer in a process of its own, with the same settings."""
    args = parse_run(flags_of(task, "embedding_contrastive", seed)).args
    output = task.scratch / "peer"
    settings = {
        "output_dir": str(output),
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "learning_rate": args.learning_rate,
        "max_steps": args.max_steps,
        "num_train_epochs": args.num_train_epochs,
        "seed": seed,
        "bf16": args.bf16 or name == PEER_BF16,
        "use_cpu": args.use_cpu,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    length = str(max(task.lengths.values()))
    task.timed(name, "benchmarks/speed/peer_training.py", json.dumps(settings), task.pairs, length)
    return output


def run(script: str, *flags: str | Path) -> None:
    """A script, as a user runs it."""
    python(f"scripts/{script}.py", *flags)


def python(*command: str | Path) -> None:
    """Run it in the project's folder, without its standard output."""
    given = [sys.executable, *map(str, command)]
    subprocess.run(given, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def measure_embedder(task: Task, model: str) -> Any:
    """A value per query [Q]."""
    embedder = Embedder.from_pretrained(model)
    return measure_ranking(embedder, task.data, [METRIC], How(**task.lengths)).values[METRIC]


def tell(task: Task) -> None:
    """Means, and each line's difference to the first trained one."""
    args = task.args
    usual = next(name for name in task.values if name != "base")
    rows = []
    for name, runs in task.values.items():
        mean = np.mean(runs, axis=0)
        of_seeds = "" if name == "base" else " ".join(f"{each.mean():.4f}" for each in runs)
        told = ["", ""]
        if name != usual:
            one = compare(np.mean(task.values[usual][: len(runs)], axis=0), mean)
            interval = f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
            told = [interval, f"{one.p_value:.4f}"]
        seconds = f"{np.median(task.seconds[name]):.0f}" if task.seconds[name] else ""
        rows.append([name, of_seeds, f"{mean.mean():.4f}", *told, seconds])
    emulated = args.kind == "precision" and lacks_bf16()
    note = " Products in bf16 were emulated (benchmarks/speed/emulated_bf16.py): no time to tell."
    publish(
        args,
        f"quality, {args.kind} on {args.data.name}",
        f"{BASE} trained on {args.data.name} by the quick start's recipe {args.flags}, seeds "
        f"{', '.join(map(str, args.seeds))}, documents (rerankers: pairs) cut at "
        f"{args.document_max_length} tokens; {METRIC} on held-out queries. Differences are to the "
        "first trained line, of the means over the same seeds, with the 95 % interval over the "
        "queries. Processor time is that of the whole training script, the start of its process "
        f"included.{note if emulated else ''}",
        [
            "negatives",
            "of each seed",
            "mean",
            "difference [95 % interval]",
            "p",
            "processor time, s",
        ],
        rows,
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
