"""Measure a model of either kind on data of either kind."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.backbone import Encoder
from encoders.kinds import retrieves, shown
from evaluation.data.sets import PairData, RetrievalData
from evaluation.metrics.pairs import Figure, Scores, figure, pair_statistics
from evaluation.metrics.ranking import Run, per_query, undefined
from evaluation.search.faiss_index import IndexKind
from evaluation.search.reranking import rerank
from evaluation.search.retrieval import retrieve

Model = Encoder

FEW = 8  # rows that are measured before a run, to see whether that can be done
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

    def scoring(self) -> dict[str, Any]:
        """What ``score_pairs`` takes."""
        names = ("query_max_length", "document_max_length", "max_length")
        return self.common() | {name: getattr(self, name) for name in names}

    def search(self) -> dict[str, Any]:
        """What ``retrieve`` takes."""
        names = ("query_max_length", "document_max_length", "index")
        return self.common() | {name: getattr(self, name) for name in names}


class Ranked(NamedTuple):
    """A model's rankings, and each metric as one value per query [Q], in the order of qrels.

    Attributes:
        undefined: Metrics that say nothing on these data, with the reason.
    """

    run: Run
    values: dict[str, NDArray[np.float64]]
    undefined: dict[str, str]

    def means(self) -> dict[str, Figure]:
        """Each metric's mean over the queries, or the reason why it has none."""
        return {
            name: self.undefined.get(name, float(value.mean()))
            for name, value in self.values.items()
        }


class PairScores(NamedTuple):
    """Scores of pairs [N]: cosines, or a reranker's logits and their sigmoids.

    Attributes:
        ranking: What orders pairs: sigmoids of high logits are all 1.
        shown: What users see.
    """

    ranking: Scores
    shown: Scores

    def of(self, metric: str) -> Scores:
        """What a metric is computed from."""
        return self.shown if metric == "pearson" else self.ranking

    def figures(self, judged: Scores) -> dict[str, Figure]:
        """The metrics that suit the judgements [N]."""
        statistics = pair_statistics(judged)
        return {name: figure(each, self.of(name), judged) for name, each in statistics.items()}


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
    if retrieves(model):
        run: Run = retrieve(model, data, depth(metrics), **how.search())
    else:
        found, top_k = (first.run, first.top_k) if first else (None, EVERYTHING)
        run = rerank(model, data, found, top_k, max_length=how.max_length, **how.common())
    return judge(run, data, metrics)


def judge(run: Run, data: RetrievalData, metrics: Sequence[str]) -> Ranked:
    """Measure rankings."""
    values = per_query(run, data.qrels, metrics, data.relevant_from)
    return Ranked(run, values, undefined(data.qrels, metrics, data.relevant_from))


def score_pairs(model: Model, data: PairData, how: How) -> PairScores:
    """Return a score for each pair: the cosine of an embedder, the logit of a reranker.

    Raises:
        ValueError: A score is not finite.
    """
    scores = model.score_pairs(
        data.queries, data.documents, query_prompts=data.prompts, **how.scoring()
    )
    wrong = (~scores.isfinite()).nonzero()[:, 0]
    if len(wrong):
        text = data.documents[int(wrong[0])][:60]
        raise ValueError(
            f"the model's scores of {len(wrong)} pairs are NaN or infinite (the first: {text!r}): "
            "it has diverged"
        )
    ranking: Scores = scores.double().numpy()
    return PairScores(ranking, shown(model, ranking))


@dataclass(frozen=True)
class Measure:
    """What a model is measured by at every evaluation of a training run.

    Args:
        data: What it is measured on.
        metrics: Their names.
        how: How it is run.
    """

    data: RetrievalData | PairData
    metrics: Sequence[str]
    how: How

    def __call__(self, model: Model) -> dict[str, Figure]:
        """Each metric's value, or the reason why it has none."""
        if isinstance(self.data, RetrievalData):
            return measure_ranking(model, self.data, self.metrics, self.how).means()
        figures = score_pairs(model, self.data, self.how).figures(self.data.judged())
        return {name: figures[name] for name in self.metrics}

    def few(self) -> "Measure":
        """The same on a few rows, the longest texts among them, to see whether it can be done."""
        return replace(self, data=self.data.few(FEW))
