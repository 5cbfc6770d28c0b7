"""What are mined negatives worth? Models trained with them and without, on the docstring data.

    python benchmarks/negatives_quality.py embedder
    python benchmarks/negatives_quality.py reranker --seeds 0 1 2 --record

Each run goes through the scripts, with the quick start's recipes, and differs from its neighbours
in one thing:

embedder   in-batch negatives only; one negative more for each pair, mined by the base model; the
           same, mined by the embedder of the first line (a second round; of the first seed only)
reranker   random documents as negatives; mined ones, by the base embedder

All models are measured on the held-out modules: embedders search all documents, rerankers order
the twenty that the base embedder finds. A difference is that of a query's mean over the seeds, with
its 95 % interval over the queries. ``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import BASE, machine, quiet, record, versions

from encoders import Embedder, Reranker
from encoders.cpu import prepare_cpu
from evaluation import compare, read_beir
from evaluation.data import RetrievalData
from evaluation.measure import FirstStage, How, measure_ranking
from evaluation.retrieval import retrieve

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data" / "docstrings"
PAIRS = DATA / "train_pairs.jsonl"
METRIC = "ndcg@10"
LENGTH = 96  # tokens of a document, and of a pair, as in the recipes
TOP_K = 20

Values = dict[str, list[Any]]  # by the kind of negatives: for each seed a value per query [Q]


def main() -> None:
    """Train, measure and print, seed after seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["embedder", "reranker"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max_queries", type=int, default=200, help="that rerankers get")
    parser.add_argument("--flags", default="", help="more flags for train.py, in one string")
    parser.add_argument("--record", action="store_true", help="write the table to RESULTS.md")
    args = parser.parse_args()
    quiet()
    prepare_cpu()
    data = read_beir(DATA / "heldout", "test")
    with tempfile.TemporaryDirectory() as folder:
        work = embedders if args.kind == "embedder" else rerankers
        report = table(args, work(args, data, Path(folder)))
    print(report)
    if args.record:
        record(name_of(args), report)


def embedders(args: argparse.Namespace, data: RetrievalData, scratch: Path) -> Values:
    """In-batch negatives, mined ones, and mined ones of a second round."""
    values: Values = {"base": [], "in-batch only": [], "mined by the base": []}
    values["mined by the first round"] = []
    mine(scratch / "mined.jsonl", BASE)
    start = [measure_embedder(BASE, data)]
    for seed in args.seeds:
        values["base"] += start
        first = train(args, "embedding_contrastive", scratch / f"first-{seed}", seed, PAIRS)
        keep(values, "in-batch only", measure_embedder(str(first), data))
        rows = {"mined by the base": scratch / "mined.jsonl"}
        if seed == args.seeds[0]:  # the second round takes as long as the first
            rows["mined by the first round"] = scratch / "again.jsonl"
            mine(scratch / "again.jsonl", str(first))
        for name, file in rows.items():
            flags = ["--train_group_size", "2"]
            tuned = train(args, "embedding_contrastive", scratch / "other", seed, file, *flags)
            keep(values, name, measure_embedder(str(tuned), data))
    return values


def rerankers(args: argparse.Namespace, data: RetrievalData, scratch: Path) -> Values:
    """Random negatives and mined ones."""
    data = data.sample(args.max_queries)
    first = FirstStage(retrieve(Embedder.from_pretrained(BASE), data, TOP_K, **lengths()), TOP_K)
    values: Values = {"random": [], "mined by the base": []}
    flags = ["--bm25", "--random_share", "1"]
    run("mine_negatives", "--input", PAIRS, "--output", scratch / "random.jsonl", *flags)
    if not (scratch / "mined.jsonl").exists():
        mine(scratch / "mined.jsonl", BASE)
    for seed in args.seeds:
        for name, file in (("random", "random"), ("mined by the base", "mined")):
            tuned = train(args, "reranker", scratch / "other", seed, scratch / f"{file}.jsonl")
            model = Reranker.from_pretrained(tuned)
            how = How(max_length=LENGTH)
            keep(values, name, measure_ranking(model, data, [METRIC], how, first).values[METRIC])
    return values


def mine(output: Path, embedder: str) -> None:
    """Seven negatives for each pair, the default ranks, margin 0.05."""
    limits = [f"--{name}={value}" for name, value in lengths().items()]
    flags = ["--embedder", embedder, "--relative_margin", "0.05", *limits]
    run("mine_negatives", "--input", PAIRS, "--output", output, *flags)


def train(
    args: argparse.Namespace, recipe: str, output: Path, seed: int, rows: Path, *flags: str
) -> Path:
    """A model by the quick start's recipe, on these rows."""
    given = ["--config", f"configs/{recipe}.json", "--train_file", rows, "--eval_file", "null"]
    given += ["--output_dir", output, "--overwrite_output_dir", "true", "--seed", str(seed)]
    # Of some queries, all that is found may be too near to the positive to be a negative.
    given += ["--save_strategy", "no", "--disable_tqdm", "true", "--on_bad_rows", "skip"]
    run("train", *given, *flags, *args.flags.split())
    return output


def run(script: str, *flags: str | Path) -> None:
    """A script, as a user runs it."""
    command = [sys.executable, f"scripts/{script}.py", *map(str, flags)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def measure_embedder(model: str, data: RetrievalData) -> Any:
    """A value per query [Q]."""
    embedder = Embedder.from_pretrained(model)
    return measure_ranking(embedder, data, [METRIC], How(**lengths())).values[METRIC]


def lengths() -> dict[str, int]:
    """Of the recipes."""
    return {"query_max_length": 64, "document_max_length": LENGTH}


def keep(values: Values, name: str, found: Any) -> None:
    """Note and tell."""
    values[name].append(found)
    print(f"{name}, seed number {len(values[name])}: {METRIC} {found.mean():.4f}", flush=True)


def name_of(args: argparse.Namespace) -> str:
    """Of the table."""
    return f"negatives for the {args.kind}, quality"


def table(args: argparse.Namespace, values: Values) -> str:
    """Means, and each line's difference to the first trained one, in Markdown."""
    seeds = ", ".join(map(str, args.seeds))
    lines = [
        f"## {name_of(args)}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions()}.",
        f"{BASE} trained on the docstrings by the quick start's recipe {args.flags}, seeds "
        f"{seeds}; {METRIC} on held-out modules. Differences are to the first trained line, of "
        "the means over the same seeds, with the 95 % interval over the queries.",
        "",
        "| negatives | of each seed | mean | difference [95 % interval] | p |",
        "|---|---|---|---|---|",
    ]
    usual = next(name for name in values if name != "base")
    for name, runs in values.items():
        mean = np.mean(runs, axis=0)
        of_seeds = "" if name == "base" else " ".join(f"{each.mean():.4f}" for each in runs)
        told = ["", ""]
        if name != usual:
            one = compare(np.mean(values[usual][: len(runs)], axis=0), mean)
            interval = f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
            told = [interval, f"{one.p_value:.4f}"]
        lines.append(f"| {' | '.join([name, of_seeds, f'{mean.mean():.4f}', *told])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
