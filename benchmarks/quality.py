"""What is a way of training worth? Models trained in several ways, measured on held-out queries.

    python benchmarks/quality.py embedder
    python benchmarks/quality.py reranker --seeds 0 1 2 --record
    python benchmarks/quality.py embedder --data ../shared/data/scifact --peer --record \\
        --document_max_length 128 --flags "--max_steps -1 --num_train_epochs 1"

Each run goes through the scripts, with the quick start's recipes, and differs from its neighbours
in one thing:

embedder   in-batch negatives only; with --peer the same by sentence-transformers' own trainer; one
           negative more for each pair, mined by the base model; the same, mined by the embedder of
           the first line (a second round; of the first seed only)
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
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from results import BASE, machine, quiet, record, versions
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.losses import MultipleNegativesRankingLoss

from encoders import Embedder, Reranker
from encoders.cpu import prepare_cpu
from encoders.source import find_model
from evaluation import compare, read_beir
from evaluation.data import RetrievalData
from evaluation.measure import FirstStage, How, measure_ranking
from evaluation.retrieval import retrieve
from trainers import parse_arguments

ROOT = Path(__file__).resolve().parent.parent
DOCSTRINGS = ROOT / "data" / "docstrings"
METRIC = "ndcg@10"
IN_BATCH, PEER = "in-batch only", "in-batch only, sentence-transformers"
MINED, AGAIN = "mined by the base", "mined by the first round"
RANDOM = "random"


def main() -> None:
    """Train, measure and print, seed after seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("kind", choices=["embedder", "reranker"])
    add("--data", type=Path, default=DOCSTRINGS, help="a BEIR folder (default: the docstrings)")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--query_max_length", type=int, default=64)
    add("--document_max_length", type=int, default=96, help="for rerankers: of the pair")
    add("--top_k", type=int, default=20, help="that rerankers order")
    add("--max_queries", type=int, default=200, help="that rerankers get")
    add("--flags", default="", help="more flags for train.py, in one string")
    add("--peer", action="store_true", help="train an embedder by sentence-transformers too")
    add("--record", action="store_true", help="write the table to RESULTS.md")
    add("--train_peer", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    quiet()
    if args.train_peer:
        train_peer(*args.train_peer)
        return
    prepare_cpu()
    with tempfile.TemporaryDirectory() as folder:
        task = Task(args, Path(folder))
        embedders(task) if args.kind == "embedder" else rerankers(task)
        report = table(task)
    print(report)
    if args.record:
        record(name_of(args), report)


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

    def timed(self, name: str, work: Callable[[], Path]) -> Path:
        """Processor time of the scripts that ``work`` runs."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        output = work()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        self.seconds[name].append(seconds)
        return output


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
            peer = task.timed(PEER, lambda seed=seed: start_peer(task, seed))  # type: ignore[misc]
            task.keep(PEER, measure_embedder(task, str(peer)))
        rows = {MINED: scratch / "mined.jsonl"}
        if seed == args.seeds[0]:  # the second round takes as long as the first
            rows[AGAIN] = scratch / "again.jsonl"
            mine(task, rows[AGAIN], str(first))
        for name, file in rows.items():
            group = ("--train_group_size", "2")
            tuned = train(task, name, "embedding_contrastive", seed, file, *group)
            task.keep(name, measure_embedder(task, str(tuned)))


def rerankers(task: Task) -> None:
    """Random negatives and mined ones."""
    scratch, top_k = task.scratch, task.args.top_k
    data = task.data.sample(task.args.max_queries)
    found = retrieve(Embedder.from_pretrained(BASE), data, top_k, **task.lengths)
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
    given += ["--overwrite_output_dir", "true", "--on_bad_rows", "skip"]
    task.timed(name, lambda: run("train", *given) or output)
    return output


def flags_of(task: Task, recipe: str, seed: int) -> list[str]:
    """What all trainings by a recipe have in common, as flags of train.py."""
    given = ["--config", str(ROOT / f"configs/{recipe}.json"), "--eval_file", "null"]
    given += ["--seed", str(seed), "--save_strategy", "no", "--disable_tqdm", "true"]
    limits = {"max_length": task.args.document_max_length} if recipe == "reranker" else task.lengths
    given += [f"--{name}={value}" for name, value in limits.items()]
    return given + task.args.flags.split()


def start_peer(task: Task, seed: int) -> Path:
    """sentence-transformers' trainer in a process of its own, with the same settings."""
    args = parse_arguments(flags_of(task, "embedding_contrastive", seed))
    output = task.scratch / "peer"
    settings = {
        "output_dir": str(output),
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "learning_rate": args.learning_rate,
        "max_steps": args.max_steps,
        "num_train_epochs": args.num_train_epochs,
        "seed": seed,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    length = str(max(task.lengths.values()))
    what = [json.dumps(settings), str(task.pairs), length]
    command = [sys.executable, __file__, "embedder", "--train_peer", *what]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return output


def train_peer(settings: str, pairs: str, length: str) -> None:
    """Its loss with its default scale of 20, which is the recipe's temperature of 0.05."""
    rows = [json.loads(line) for line in Path(pairs).read_text(encoding="utf-8").splitlines()]
    model = SentenceTransformer(str(find_model(BASE)))
    model.max_seq_length = int(length)
    args = SentenceTransformerTrainingArguments(**json.loads(settings))
    SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list([{k: r[k] for k in ("query", "pos_doc")} for r in rows]),
        loss=MultipleNegativesRankingLoss(model),
    ).train()
    model.save(str(args.output_dir))


def run(script: str, *flags: str | Path) -> None:
    """A script, as a user runs it."""
    command = [sys.executable, f"scripts/{script}.py", *map(str, flags)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def measure_embedder(task: Task, model: str) -> Any:
    """A value per query [Q]."""
    embedder = Embedder.from_pretrained(model)
    return measure_ranking(embedder, task.data, [METRIC], How(**task.lengths)).values[METRIC]


def name_of(args: argparse.Namespace) -> str:
    """Of the table."""
    return f"quality, {args.kind} on {args.data.name}"


def table(task: Task) -> str:
    """Means, and each line's difference to the first trained one, in Markdown."""
    args = task.args
    seeds = ", ".join(map(str, args.seeds))
    lines = [
        f"## {name_of(args)}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions()}.",
        f"{BASE} trained on {args.data.name} by the quick start's recipe {args.flags}, seeds "
        f"{seeds}, documents (rerankers: pairs) cut at {args.document_max_length} tokens; {METRIC} "
        "on held-out queries. Differences are to the first trained line, of the means over the "
        "same seeds, with the 95 % interval over the queries. Processor time is that of the whole "
        "training script, the start of its process included.",
        "",
        "| negatives | of each seed | mean | difference [95 % interval] | p | processor time, s |",
        "|---|---|---|---|---|---|",
    ]
    usual = next(name for name in task.values if name != "base")
    for name, runs in task.values.items():
        mean = np.mean(runs, axis=0)
        of_seeds = "" if name == "base" else " ".join(f"{each.mean():.4f}" for each in runs)
        told = ["", ""]
        if name != usual:
            one = compare(np.mean(task.values[usual][: len(runs)], axis=0), mean)
            interval = f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
            told = [interval, f"{one.p_value:.4f}"]
        seconds = f"{np.median(task.seconds[name]):.0f}" if task.seconds[name] else ""
        lines.append(f"| {' | '.join([name, of_seeds, f'{mean.mean():.4f}', *told, seconds])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
