"""Measure a model of either kind on data of either kind."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from encoders import Embedder, Reranker
from evaluation.data import PairData, RetrievalData
from evaluation.faiss_index import IndexKind
from evaluation.metrics import Run, per_query
from evaluation.reranking import rerank
from evaluation.retrieval import retrieve

Model = Embedder | Reranker

EVERYTHING = 1_000  # documents of a ranking where a metric has no cut-off, as trec_eval's runs have


@dataclass(frozen=True)
class How:
    """How a model is run.

    Args:
        bf16: Compute in bf16, on devices that have it.
        query_max_length: Embedder: tokens of a query; None: the model's limit.
        document_max_length: Embedder: tokens of a document.
        max_length: Reranker: tokens of a pair.
        tokens_per_batch: About so many tokens in one forward; None: what suits the device.
        index: Embedder: a kind of FAISS index for large corpora; None: exact search.
        show_progress: Show progress bars.
    """

    bf16: bool = False
    query_max_length: int | None = None
    document_max_length: int | None = None
    max_length: int | None = None
    tokens_per_batch: int | None = None
    index: IndexKind | None = None
    show_progress: bool = False

    def common(self) -> dict[str, Any]:
        """What both kinds of model take."""
        names = ("bf16", "tokens_per_batch", "show_progress")
        return {name: getattr(self, name) for name in names}

    def search(self) -> dict[str, Any]:
        """What ``retrieve`` takes."""
        names = ("query_max_length", "document_max_length", "index")
        return self.common() | {name: getattr(self, name) for name in names}


class Ranked(NamedTuple):
    """A model's rankings, and each metric as one value per query [Q], in the order of qrels."""

    run: Run
    values: dict[str, NDArray[np.float64]]

    def means(self) -> dict[str, float]:
        """Each metric's mean over the queries."""
        return {name: float(value.mean()) for name, value in self.values.items()}


@dataclass(frozen=True)
class FirstStage:
    """What a reranker is given to order.

    Args:
        run: The documents that were found for each query.
        top_k: How many of them are scored.
    """

    run: Run = field(default_factory=dict)
    top_k: int = 100


def depth(metrics: Sequence[str]) -> int:
    """The number of documents that these metrics look at."""
    cuts = [int(name.partition("@")[2] or EVERYTHING) for name in metrics]
    return max(cuts, default=EVERYTHING)


def measure_ranking(
    model: Model,
    data: RetrievalData,
    metrics: Sequence[str],
    how: How,
    first: FirstStage | None = None,
) -> Ranked:
    """Let an embedder find, or a reranker order, and judge it.

    A reranker orders ``data.candidates``, or what ``first`` has found.
    """
    if isinstance(model, Embedder):
        run: Run = retrieve(model, data, depth(metrics), **how.search())
    else:
        found, top_k = (first.run, first.top_k) if first else (None, EVERYTHING)
        run = rerank(model, data, found, top_k, max_length=how.max_length, **how.common())
    return Ranked(run, per_query(run, data.qrels, metrics, data.relevant_from))


def score_pairs(model: Model, data: PairData, how: How) -> NDArray[np.float64]:
    """Return a score for each pair [N]: the cosine of an embedder, the probability of a reranker.

    Raises:
        ValueError: A score is not finite.
    """
    queries = data.prompted(model.prompts.get("query", ""))
    if isinstance(model, Embedder):
        asked = model.encode(queries, max_length=how.query_max_length, **how.common())
        found = model.encode(
            data.documents,
            prompt_name="document",
            max_length=how.document_max_length,
            **how.common(),
        )
        scores = F.cosine_similarity(asked, found, dim=-1)
    else:
        before = model.prompts.get("document", "")
        pairs = [(q, before + d) for q, d in zip(queries, data.documents, strict=True)]
        scores = model.score(pairs, prompts={}, max_length=how.max_length, **how.common())
    wrong = (~scores.isfinite()).nonzero()[:, 0]
    if len(wrong):
        text = data.documents[int(wrong[0])][:60]
        raise ValueError(
            f"the model's scores of {len(wrong)} pairs are NaN or infinite (the first: {text!r}): "
            "it has diverged"
        )
    return scores.double().numpy()
