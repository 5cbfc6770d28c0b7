"""Measure the answers of a store: their quality, what its index loses, and how long they take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from encoders.kinds import VectorModel
from evaluation.data.sets import RetrievalData
from evaluation.measure import EvaluatedRun, depth_of, evaluate_run
from evaluation.metrics.pairs import MetricValue
from evaluation.metrics.ranking import Run, order
from evaluation.report.tables import UNDEFINED
from evaluation.search.distributed import InferenceSettings
from loaders.beir.problems import listed
from stores.collection import open_live
from stores.embedding import TextEmbedder
from stores.fingerprint import fingerprint
from stores.search import Mode, search
from stores.store import Store, Table, Vectors

# Shapes: Q queries, H dimensions of a vector.

BLOCK = 10_000  # documents that are looked up at once
# The search modes that are measured, each with whether it is exact: without the vector index.
SEARCH_MODES: dict[str, tuple[Mode, bool]] = {
    "dense, exact": ("dense", True),
    "dense": ("dense", False),
    "bm25": ("bm25", False),
    "hybrid": ("hybrid", False),
}


@dataclass(frozen=True)
class StoreEvaluation:
    """What a store is evaluated on, and with which settings.

    Args:
        model: That of the collection.
        data: Queries and judgements.
        metrics: Such as ``ndcg@10``.
        inference: Settings of inference.
        bm25_weight: Of BM25 in hybrid search; 0: reciprocal ranks.
    """

    model: VectorModel
    data: RetrievalData
    metrics: Sequence[str]
    inference: InferenceSettings
    bm25_weight: float = 0.0


class ModeResult(NamedTuple):
    """How well and how fast a store answers in one search mode.

    Args:
        name: Of the mode.
        ranked: Its rankings and metrics.
        recall: The share of the documents of an exact search that it finds; None: another search.
        milliseconds: Of each query [Q], without embedding it.
    """

    name: str
    ranked: EvaluatedRun
    recall: float | None
    milliseconds: np.ndarray


def measure_store(store: Store, collection: str, evaluation: StoreEvaluation) -> list[ModeResult]:
    """Search the live table of a collection in every mode.

    Raises:
        ValueError: There is no such collection, another model made it, or it lacks judged
            documents.
    """
    table = open_live(store, collection, fingerprint(evaluation.model))
    _check_documents(table, evaluation.data, collection)
    texts = list(evaluation.data.prompted(evaluation.model.find_prompt("query")).values())
    vectors = TextEmbedder(evaluation.model, evaluation.inference).queries(texts)
    k = depth_of(evaluation.metrics)
    found: list[ModeResult] = []
    for name, (mode, exact) in SEARCH_MODES.items():
        run, milliseconds = _search(table, evaluation, vectors, k, mode, exact)
        recall = None
        if mode == "dense":
            first = found[0].ranked.run if found else run
            recall = float(np.mean([_share(run[query], first[query]) for query in run]))
        ranked = evaluate_run(run, evaluation.data, evaluation.metrics)
        found.append(ModeResult(name, ranked, recall, milliseconds))
    return found


def _check_documents(table: Table, data: RetrievalData, collection: str) -> None:
    """Refuse judgements of documents that are not there: they would count as not found."""
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


def _search(
    table: Table,
    evaluation: StoreEvaluation,
    vectors: Sequence[Vectors],
    k: int,
    mode: Mode,
    exact: bool,
) -> tuple[Run, np.ndarray]:
    data, run, milliseconds = evaluation.data, {}, []
    weight, wanted = evaluation.bm25_weight, k + bool(data.identical_documents)
    for vector, (query, text) in zip(vectors, data.queries.items(), strict=True):
        begun = time.perf_counter()
        hits = search(table, vector, text, wanted, mode=mode, bm25_weight=weight, exact=exact)
        milliseconds.append(1000 * (time.perf_counter() - begun))
        scores = {hit.id: hit.score for hit in hits if not data.is_identical(query, hit.id)}
        run[query] = {document: scores[document] for document in order(scores)[:k]}
    return run, np.array(milliseconds)


def _share(found: Mapping[str, float], wanted: Mapping[str, float]) -> float:
    return len(found.keys() & wanted.keys()) / max(1, len(wanted))


def show_store(results: Sequence[ModeResult], console: Console) -> None:
    """Print a line for each search mode."""
    metrics = list(results[0].ranked.values)
    grid = Grid("search", *metrics, "of exact", "median ms", "95 % ms")
    for result in results:
        means = result.ranked.means()
        recall = "" if result.recall is None else f"{result.recall:.1%}"
        times = [f"{np.percentile(result.milliseconds, share):.1f}" for share in (50, 95)]
        grid.add_row(result.name, *(_cell(means[name]) for name in metrics), recall, *times)
    console.print(grid)


def _cell(value: MetricValue) -> str:
    return UNDEFINED if isinstance(value, str) else f"{value:.3f}"
