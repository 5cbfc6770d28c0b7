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
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from benchmarks.speed.results import BASE, device, new_parser, publish, quiet
from benchmarks.speed.turns import TANDEM, THEIRS
from encoders import Embedder
from encoders.opening.model_name import resolve_model
from evaluation import RetrievalData, per_query, read_beir, retrieve
from evaluation.search.distributed import InferenceSettings

Figures = dict[str, float]

METRICS = ["ndcg@10", "recall@1", "recall@10", "recall@100", "precision@10", "mrr@10", "map@100"]
DEPTH = 100
PUBLISHED = "ndcg@10 of all-MiniLM-L6-v2 on SciFact as published: 0.645"


def main() -> None:
    """Measure both in turns, print, record."""
    parser = new_parser(__doc__)
    parser.add_argument("--data", required=True, help="a folder in the BEIR layout")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default=BASE)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=32, help="of sentence-transformers")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    quiet()
    data = read_beir(args.data, args.split)
    runs = {TANDEM: ours(args, data), THEIRS: theirs(args, data)}
    seconds: dict[str, list[float]] = defaultdict(list)
    figures: dict[str, Figures] = {}
    for turn in range(args.rounds):
        for name in list(runs)[:: 1 if turn % 2 else -1]:  # who begins changes
            begun = time.perf_counter()
            figures[name] = runs[name]()
            seconds[name].append(time.perf_counter() - begun)
            print(f"round {turn}  {name}: {seconds[name][-1]:.1f} s", flush=True)
    middle = {name: statistics.median(seconds[name]) for name in runs}
    publish(
        args,
        "evaluation",
        f"{args.model} in fp32 on {Path(args.data).name} ({args.split}): {len(data.documents):,} "
        f"documents, {len(data.queries):,} queries, at most {args.max_length} tokens, best "
        f"{DEPTH}. Medians of {args.rounds} turns, from texts to figures. ({PUBLISHED}.)",
        ["", "seconds", "against sentence-transformers", *METRICS],
        [
            (
                name,
                f"{taken:.1f}",
                f"{middle[THEIRS] / taken:.2f} x",
                *(f"{figures[name][metric]:.4f}" for metric in METRICS),
            )
            for name, taken in middle.items()
        ],
    )


def ours(args: argparse.Namespace, data: RetrievalData) -> Callable[[], Figures]:
    """Tandem: texts to figures."""
    embedder = Embedder.from_pretrained(args.model).to(device())
    inference = InferenceSettings(
        query_max_length=args.max_length, document_max_length=args.max_length
    )

    def run() -> Figures:
        found = retrieve(embedder, data, DEPTH, inference)
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


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
