"""Measure the answers of a store: their quality, what its index loses, and how long they take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from common.similarity import for_dot_product
from encoders import Embedder
from evaluation.data.sets import RetrievalData
from evaluation.measure import EvaluatedRun, depth_of, evaluate_run
from evaluation.metrics.pairs import MetricValue
from evaluation.metrics.ranking import Run, order
from evaluation.report.tables import UNDEFINED
from evaluation.search.distributed import How
from loaders.beir.problems import listed
from stores.collection import open_live
from stores.fingerprint import fingerprint
from stores.search import Mode, search
from stores.store import Store, Table

# Shapes: Q queries, H dimensions of a vector.

BLOCK = 10_000  # documents that are looked up at once
# How a store is searched: by an index, if it has one, or exactly.
WAYS: dict[str, tuple[Mode, bool]] = {
    "dense, exact": ("dense", True),
    "dense": ("dense", False),
    "bm25": ("bm25", False),
    "hybrid": ("hybrid", False),
}


@dataclass(frozen=True)
class Asked:
    """What a store is asked, and how its answers are judged.

    Args:
        embedder: That of the collection.
        data: Queries and judgements.
        metrics: Such as ``ndcg@10``.
        how: Settings of inference.
        bm25_weight: Of BM25 in hybrid search; 0: reciprocal ranks.
    """

    embedder: Embedder
    data: RetrievalData
    metrics: Sequence[str]
    how: How
    bm25_weight: float = 0.0


class Measured(NamedTuple):
    """One way to search.

    Args:
        name: Of the way.
        ranked: Its rankings and metrics.
        recall: The share of the documents of an exact search that it finds; None: another search.
        milliseconds: Of each query [Q], without embedding it.
    """

    name: str
    ranked: EvaluatedRun
    recall: float | None
    milliseconds: np.ndarray


def measure_store(store: Store, collection: str, asked: Asked) -> list[Measured]:
    """Search the live table of a collection in every way.

    Raises:
        ValueError: There is no such collection, another model made it, or it lacks judged
            documents.
    """
    table = open_live(store, collection, fingerprint(asked.embedder))
    _check_documents(table, asked.data, collection)
    vectors = _vectors(asked)
    k = depth_of(asked.metrics)
    found: list[Measured] = []
    for name, (mode, exact) in WAYS.items():
        run, milliseconds = _search(table, asked, vectors, k, mode, exact)
        recall = None
        if mode == "dense":
            first = found[0].ranked.run if found else run
            recall = float(np.mean([_share(run[query], first[query]) for query in run]))
        ranked = evaluate_run(run, asked.data, asked.metrics)
        found.append(Measured(name, ranked, recall, milliseconds))
    return found


def _check_documents(table: Table, data: RetrievalData, collection: str) -> None:
    """Judgements of documents that are not there would count as not found."""
    judged = list(dict.fromkeys(each for documents in data.qrels.values() for each in documents))
    missing: list[str] = []
    for start in range(0, len(judged), BLOCK):
        block = judged[start : start + BLOCK]
        there = table.digests(block)
        missing += [each for each in block if each not in there]
    if missing:
        raise ValueError(
            f"collection: {len(missing)} of the {len(judged)} judged documents are not in "
            f"{collection!r} ({listed(missing)}); index the corpus of these data"
        )


def _vectors(asked: Asked) -> np.ndarray:
    """Of the queries [Q, H], to compare by dot product."""
    texts = list(asked.data.prompted(asked.embedder.find_prompt("query")).values())
    vectors = asked.embedder.encode(
        texts,
        prompt="",
        max_length=asked.how.query_max_length,
        tokens_per_batch=asked.how.tokens_per_batch,
        bf16=asked.how.bf16,
    )
    prepared: np.ndarray = for_dot_product(vectors, asked.embedder.similarity).numpy()
    return prepared


def _search(
    table: Table, asked: Asked, vectors: np.ndarray, k: int, mode: Mode, exact: bool
) -> tuple[Run, np.ndarray]:
    data, run, milliseconds = asked.data, {}, []
    weight, wanted = asked.bm25_weight, k + bool(data.own_documents)
    for vector, (query, text) in zip(vectors, data.queries.items(), strict=True):
        begun = time.perf_counter()
        hits = search(table, vector, text, wanted, mode=mode, bm25_weight=weight, exact=exact)
        milliseconds.append(1000 * (time.perf_counter() - begun))
        scores = {hit.id: hit.score for hit in hits if not data.is_query(query, hit.id)}
        run[query] = {document: scores[document] for document in order(scores)[:k]}
    return run, np.array(milliseconds)


def _share(found: Mapping[str, float], wanted: Mapping[str, float]) -> float:
    return len(found.keys() & wanted.keys()) / max(1, len(wanted))


def show_store(measured: Sequence[Measured], console: Console) -> None:
    """Print a line for each way to search."""
    metrics = list(measured[0].ranked.values)
    grid = Grid("search", *metrics, "of exact", "median ms", "95 % ms")
    for way in measured:
        means = way.ranked.means()
        recall = "" if way.recall is None else f"{way.recall:.1%}"
        times = [f"{np.percentile(way.milliseconds, share):.1f}" for share in (50, 95)]
        grid.add_row(way.name, *(_cell(means[name]) for name in metrics), recall, *times)
    console.print(grid)


def _cell(figure: MetricValue) -> str:
    return UNDEFINED if isinstance(figure, str) else f"{figure:.3f}"
