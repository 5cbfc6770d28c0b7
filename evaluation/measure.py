"""Evaluate a model on retrieval data or on judged pairs."""

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

FEW = 8  # rows of the trial evaluation before a training run
EVERYTHING = 1_000  # documents of a ranking where a metric has no cut-off, as in TREC runs


@dataclass(frozen=True)
class How:
    """Settings of inference.

    Args:
        bf16: Compute in bf16, on devices that have it.
        query_max_length: Embedder: tokens of a query; None: the model's limit.
        document_max_length: Embedder: tokens of a document.
        max_length: Reranker: tokens of a pair.
        tokens_per_batch: Approximate number of tokens per forward; None: by device.
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
        """Arguments of both ``retrieve`` and ``rerank``."""
        names = ("bf16", "tokens_per_batch", "show_progress")
        return {name: getattr(self, name) for name in names}

    def scoring(self) -> dict[str, Any]:
        """What ``score_pairs`` takes."""
        names = ("query_max_length", "document_max_length", "max_length")
        return self.common() | {name: getattr(self, name) for name in names}

    def search(self) -> dict[str, Any]:
        """Arguments of ``retrieve``."""
        names = ("query_max_length", "document_max_length", "index")
        return self.common() | {name: getattr(self, name) for name in names}


class Ranked(NamedTuple):
    """A model's rankings, and its metrics per query.

    Args:
        run: The rankings.
        values: Each metric by name: [Q], in the order of the judgements.
        undefined: Metrics that have no value on these data, with the reason.
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

    Args:
        ranking: For metrics of order. Logits: the sigmoids of high ones are all 1, and would tie.
        shown: On the scale that users see.
    """

    ranking: Scores
    shown: Scores

    def of(self, metric: str) -> Scores:
        """The scores from which a metric is computed."""
        return self.shown if metric == "pearson" else self.ranking

    def figures(self, judged: Scores) -> dict[str, Figure]:
        """The metrics that suit the judgements [N], by name."""
        statistics = pair_statistics(judged)
        return {name: figure(each, self.of(name), judged) for name, each in statistics.items()}


@dataclass(frozen=True)
class FirstStage:
    """The first stage of a reranker.

    Args:
        run: The documents found for each query.
        top_k: How many of them the reranker scores.
    """

    run: Run = field(default_factory=dict)
    top_k: int = 100


def depth(metrics: Sequence[str]) -> int:
    """How many documents per query these metrics look at."""
    cuts = [int(name.partition("@")[2] or EVERYTHING) for name in metrics]
    return max(cuts, default=EVERYTHING)


def measure_ranking(
    model: Model,
    data: RetrievalData,
    metrics: Sequence[str],
    how: How,
    first: FirstStage | None = None,
) -> Ranked:
    """Retrieve with an embedder, or rerank with a reranker, and compute metrics.

    A reranker orders ``data.candidates``, or what ``first`` has found.
    """
    if retrieves(model):
        run: Run = retrieve(model, data, depth(metrics), **how.search())
    else:
        found, top_k = (first.run, first.top_k) if first else (None, EVERYTHING)
        run = rerank(model, data, found, top_k, max_length=how.max_length, **how.common())
    return judge(run, data, metrics)


def judge(run: Run, data: RetrievalData, metrics: Sequence[str]) -> Ranked:
    """Compute metrics of rankings."""
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
    """The evaluation of a model at intervals of a training run.

    Args:
        data: The evaluation set.
        metrics: Names of metrics that suit the data.
        how: Settings of inference.
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
        """A trial on a few rows with the longest texts, which shows whether memory will do."""
        return replace(self, data=self.data.few(FEW))
