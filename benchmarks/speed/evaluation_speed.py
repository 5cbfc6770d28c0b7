"""Speed and metrics of evaluation, against sentence-transformers' evaluator.

    python benchmarks/speed/evaluation_speed.py --data ../shared/data/scifact
    python benchmarks/speed/evaluation_speed.py --data ../shared/data/scifact --rounds 3 --record

Both evaluate the same model on the same BEIR folder, from texts to metrics, in one process and in
turns, so that a noisy neighbour slows both. Prints the median times, their ratio, and the metrics
of both. ``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from benchmarks.speed.results import BASE, device, machine, quiet, record, versions
from benchmarks.speed.speed import TANDEM, THEIRS
from encoders import Embedder
from encoders.opening.source import resolve_model
from evaluation import RetrievalData, per_query, read_beir, retrieve
from evaluation.search.distributed import How

Figures = dict[str, float]

METRICS = ["ndcg@10", "recall@1", "recall@10", "recall@100", "precision@10", "mrr@10", "map@100"]
DEPTH = 100
PUBLISHED = "ndcg@10 of all-MiniLM-L6-v2 on SciFact as published: 0.645"


def main() -> None:
    """Measure both in turns, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a folder in the BEIR layout")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default=BASE)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=32, help="of sentence-transformers")
    parser.add_argument("--documents", type=int, help="so many, the judged ones among them")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="write the table to RESULTS.md")
    args = parser.parse_args()
    quiet()
    data = cut(read_beir(args.data, args.split), args.documents)
    runs = {TANDEM: ours(args, data), THEIRS: theirs(args, data)}
    seconds, figures = measure(runs, args.rounds)
    report = table(args, data, seconds, figures)
    print(report)
    if args.record:
        record("evaluation", report)


def cut(data: RetrievalData, count: int | None) -> RetrievalData:
    """At most so many documents: the judged ones, and others evenly taken."""
    if count is None:
        return data
    judged = [document for found in data.qrels.values() for document in found]
    step = max(1, len(data.documents) // count)
    chosen = list(dict.fromkeys([*judged, *list(data.documents)[::step]]))[:count]
    kept = {document: data.documents[document] for document in chosen}
    qrels = {
        query: {document: value for document, value in found.items() if document in kept}
        for query, found in data.qrels.items()
    }
    return replace(data, documents=kept, qrels=qrels)


def ours(args: argparse.Namespace, data: RetrievalData) -> Callable[[], Figures]:
    """Tandem: texts to figures."""
    embedder = Embedder.from_pretrained(args.model).to(device())
    how = How(query_max_length=args.max_length, document_max_length=args.max_length)

    def run() -> Figures:
        found = retrieve(embedder, data, DEPTH, how)
        values = per_query(found, data.qrels, METRICS)
        return {name: float(value.mean()) for name, value in values.items()}

    return run


def theirs(args: argparse.Namespace, data: RetrievalData) -> Callable[[], Figures]:
    """sentence-transformers' evaluator: texts to figures."""
    model = SentenceTransformer(str(resolve_model(args.model)), device=device())
    model.max_seq_length = args.max_length
    relevant = {
        query: {document for document, value in found.items() if value > 0}
        for query, found in data.qrels.items()
    }
    evaluator = InformationRetrievalEvaluator(
        data.queries,
        data.documents,
        relevant,
        batch_size=args.batch_size,
        precision_recall_at_k=[1, 10, 100],
        mrr_at_k=[10],
        ndcg_at_k=[10],
        map_at_k=[100],
        accuracy_at_k=[1],
        show_progress_bar=False,
        write_csv=False,
    )

    def run() -> Figures:
        found = evaluator(model)
        return {name: float(found[f"cosine_{name}"]) for name in METRICS}

    return run


def measure(
    runs: dict[str, Callable[[], Figures]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Figures]]:
    """Seconds of each turn, and the figures; who begins changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    figures: dict[str, Figures] = {}
    for turn in range(rounds):
        for name in list(runs)[:: 1 if turn % 2 else -1]:
            begun = time.perf_counter()
            figures[name] = runs[name]()
            seconds[name].append(time.perf_counter() - begun)
            print(f"round {turn}  {name}: {seconds[name][-1]:.1f} s")
    return seconds, figures


def table(
    args: argparse.Namespace,
    data: RetrievalData,
    seconds: dict[str, list[float]],
    figures: dict[str, Figures],
) -> str:
    """Medians, their ratio and the figures, in Markdown."""
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    lines = [
        "## evaluation",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions()}.",
        f"{args.model} in fp32 on {Path(args.data).name} ({args.split}): {len(data.documents):,} "
        f"documents, {len(data.queries):,} queries, at most {args.max_length} tokens, best "
        f"{DEPTH}. Medians of {args.rounds} turns, from texts to figures. ({PUBLISHED}.)",
        "",
        f"| | seconds | against sentence-transformers | {' | '.join(METRICS)} |",
        f"|{'---|' * (3 + len(METRICS))}",
    ]
    for name, taken in middle.items():
        values = [f"{figures[name][metric]:.4f}" for metric in METRICS]
        cells = [name, f"{taken:.1f}", f"{middle[THEIRS] / taken:.2f} x", *values]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
