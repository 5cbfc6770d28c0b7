"""Stores and layouts of vectors: seconds, bytes, recall, and the speed of searches.

    python benchmarks/stores/layouts.py --record
    python benchmarks/stores/layouts.py --rows 1000000 --stores lancedb --layouts float16
    # your own documents, queries and judgements (a BEIR folder), with NDCG
    python benchmarks/stores/layouts.py --data data/docstrings/heldout \\
        --model outputs/embedding_contrastive --dimensions 384 192 96 --index_from 1000

Each store and layout is filled, indexed and searched in a process of its own, and PostgreSQL's
server is one of its own too. Recall is the share of the 10 best by exact search; each filter is
passed by a tenth of the documents. Searches follow one another, in one thread.
``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import psutil

from benchmarks.speed.results import new_parser, publish, quiet
from benchmarks.stores.corpora import FILTERS, Corpus, Found, cut, embedded, synthetic
from benchmarks.stores.databases import KINDS, opened
from common.bm25 import tokenize
from evaluation import per_query
from stores.databases import lance, postgres_table
from stores.store import Hit, Layout, Table

K = 10
WARM_UP = 20  # searches of a kind that are not counted, unless they take too long
SECONDS = 5.0  # after which no further search of a kind is begun, except dense ones
LAYOUTS = {
    "float32": ("float32", "none"),
    "float16": ("float16", "none"),
    "int8": ("float16", "int8"),
    "binary": ("float16", "binary"),
}
SEARCHES = {
    "dense": "dense",
    "lang": "lang = zh",
    "year": "year >= 2023",
    "bm25": "BM25",
    "exact": "exact",
}


@dataclass(frozen=True)
class Job:
    """A store and a layout to measure.

    Args:
        kind: Of store.
        layout: Its name.
        dimensions: Of the vectors that are kept.
        corpus: What it is filled with.
        best: What exact search finds, by kind of search.
        index_from: Documents from which on the vectors are indexed; None: the store's own number.
    """

    kind: str
    layout: str
    dimensions: int
    corpus: Corpus
    best: dict[str, Found]
    index_from: int | None


def main() -> None:
    """Make the corpus, measure one after the other, print, record."""
    args = read_flags()
    quiet()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if args.data:
            corpus = embedded(folder, args.data, args.model)
        else:
            corpus = synthetic(folder, args.rows, args.queries)
        rows = []
        for job in jobs(args, corpus):
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                rows.append(process.submit(measure, job).result())
            print(*rows[-1], flush=True)
    show(args, corpus, rows)


def read_flags() -> argparse.Namespace:
    """The flags, checked together."""
    parser = new_parser(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="synthetic documents")
    parser.add_argument("--queries", type=int, default=200, help="synthetic queries")
    parser.add_argument("--stores", nargs="+", choices=KINDS, default=list(KINDS[:2]))
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--data", help="a BEIR folder, in place of synthetic documents")
    parser.add_argument("--model", help="--data: the embedder")
    parser.add_argument("--dimensions", nargs="+", type=int, help="of a vector; default: all")
    parser.add_argument("--index_from", type=int, help="index the vectors of so many documents")
    parser.add_argument("--note", default="", help="a sentence for the caption")
    args = parser.parse_args()
    if bool(args.data) != bool(args.model):
        parser.error("--data and --model go together: give both, or neither")
    return args


def jobs(args: argparse.Namespace, corpus: Corpus) -> Iterator[Job]:
    """All that was asked for, the same dimensions after one another."""
    for dimensions in args.dimensions or [corpus.queries.shape[1]]:
        best = corpus.best(dimensions, K)
        for kind, layout in product(args.stores, args.layouts):
            if (kind, layout) == ("postgresql", "int8"):
                print("postgresql has no int8")
            else:
                yield Job(kind, layout, dimensions, corpus, best, args.index_from)


def measure(job: Job) -> list[str]:
    """The cells of a row."""
    if job.index_from is not None:
        lance.INDEX_FROM = postgres_table.INDEX_FROM = job.index_from
    dtype, quantization = LAYOUTS[job.layout]
    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as scratch, opened(job.kind, Path(scratch)) as at:
        layout = Layout(job.dimensions, dtype, quantization)  # type: ignore[arg-type]
        table = at.store.open("t", layout, create=True)
        writing = write(table, job)
        begun = time.perf_counter()
        table.build_index()
        indexing = time.perf_counter() - begun
        disk = at.disk()
        found = {name: ask(table, job, name) for name in SEARCHES}
        held = most_held() - before
        server = at.server_memory
    figures = [writing, indexing, disk / 2**20, held / 2**20]
    return [
        job.kind,
        job.layout,
        f"{job.dimensions}",
        *(f"{figure:,.0f}" for figure in figures),
        "" if server is None else f"{server / 2**20:,.0f}",
        *([f"{ndcg(job.corpus, found['dense'][0]):.4f}"] if job.corpus.qrels else []),
        *(f"{recall(found[name][0], best):.3f}" for name, best in job.best.items()),
        *(speed(seconds) for _, seconds in found.values()),
    ]


def most_held() -> int:
    """The most bytes that this process has held; ``getrusage`` counts those of its parent too."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def write(table: Table, job: Job) -> float:
    """Fill a table; return the seconds."""
    seconds = 0.0
    blocks = zip(job.corpus.documents(), job.corpus.vectors(job.dimensions), strict=True)
    for documents, vectors in blocks:
        begun = time.perf_counter()
        table.upsert(documents, vectors)
        seconds += time.perf_counter() - begun
    return seconds


def ask(table: Table, job: Job, name: str) -> tuple[Found, list[float]]:
    """Make searches of a kind: what they found by query, and the seconds of each."""
    vectors = dict(zip(job.corpus.texts, cut(job.corpus.queries, job.dimensions), strict=True))

    def search(query: str) -> list[Hit]:
        if name == "bm25":
            return table.search_words(tokenize(job.corpus.texts[query]), K)
        return table.search(vectors[query], K, FILTERS.get(name), exact=name == "exact")

    queries = list(vectors)
    timed(search, queries[:WARM_UP], SECONDS)
    return timed(search, queries, float("inf") if name == "dense" else SECONDS)


def timed(
    search: Callable[[str], list[Hit]], queries: Sequence[str], most: float
) -> tuple[Found, list[float]]:
    """Search for one query after the other until so many seconds have passed."""
    found: Found = {}
    seconds: list[float] = []
    for query in queries:
        begun = time.perf_counter()
        found[query] = dict(search(query))
        seconds.append(time.perf_counter() - begun)
        if sum(seconds) > most:
            break
    return found, seconds


def recall(found: Found, best: Found) -> float:
    """The share of the best documents that was found."""
    return float(np.mean([len(hits.keys() & best[q].keys()) / len(best[q])
                          for q, hits in found.items()]))  # fmt: skip


def ndcg(corpus: Corpus, found: Found) -> float:
    """NDCG@10."""
    return float(per_query(found, corpus.qrels, ["ndcg@10"])["ndcg@10"].mean())


def speed(seconds: Sequence[float]) -> str:
    """Searches per second, and milliseconds within which 95 % of them were answered."""
    per_second = len(seconds) / sum(seconds)
    return (
        f"{per_second:.{0 if per_second >= 10 else 1}f} ({1000 * np.percentile(seconds, 95):.0f})"
    )


def show(args: argparse.Namespace, corpus: Corpus, rows: list[list[str]]) -> None:
    """Print the table, and record it."""
    about = f"{corpus.rows:,} documents, {len(corpus.texts):,} queries, one thread. "
    about += "Memory: the most held by this process beyond its start, and by the server. "
    about += f"Searches: per second (milliseconds within which 95 % were done), for {K} documents."
    about += f" All but dense ones without a filter end after {SECONDS:.0f} s."
    if args.data:
        title = f"stores on {Path(args.data).name}"
        about = f"{args.model} on {args.data}: {about}"
    else:
        title = f"stores, {corpus.rows:,} documents"
    if len(args.stores) == 1:
        title += f", {args.stores[0]}"
    if args.index_from is not None:
        about += f" Vectors indexed from {args.index_from:,} documents on."
    columns = ["store", "layout", "H", "write, s", "index, s", "disk, MiB", "process, MiB"]
    columns += ["server, MiB", *(["ndcg@10"] if corpus.qrels else [])]
    columns += [f"recall@10, {SEARCHES[name]}" for name in ("dense", *FILTERS)]
    publish(args, title, f"{about} {args.note}".strip(), [*columns, *SEARCHES.values()], rows)


if __name__ == "__main__":
    main()
