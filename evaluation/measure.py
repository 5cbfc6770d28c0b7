"""Evaluate a model on retrieval data or on judged pairs."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.run_files import FUSION_FILE
from encoders.backbone import Encoder
from encoders.kinds import displayed_scores, retrieves
from evaluation.data.sets import PairData, RetrievalData
from evaluation.metrics.comparison import Comparison, compare, compare_statistic
from evaluation.metrics.pairs import MetricValue, Scores, metric_value, pair_statistics
from evaluation.metrics.ranking import Run, per_query, undefined_metrics
from evaluation.search.distributed import InferenceSettings
from evaluation.search.fusion import BM25_SCORES, Fusion, TwoScores, best, fuse, read_fusion
from evaluation.search.reranking import check_scores, rerank
from evaluation.search.retrieval import retrieve, retrieve_with_bm25

logger = logging.getLogger(__name__)

RESAMPLES = 300  # of judged pairs, where each takes a sort: enough for a line in the log
FEW = 8  # rows of the trial evaluation before a training run
UNCUT_DEPTH = 1_000  # documents of a ranking where a metric has no cut-off, as in TREC runs


class EvaluatedRun(NamedTuple):
    """A run (a model's ranking for each query), and its metrics per query."""

    run: Run
    values: dict[str, NDArray[np.float64]]  # each metric by name: [Q], in the judgements' order
    undefined: dict[str, str]  # metrics that have no value on these data, with the reason

    def means(self) -> dict[str, MetricValue]:
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

    def metric_values(self, judged: Scores) -> dict[str, MetricValue]:
        """The metrics that suit the judgements [N], by name."""
        statistics = pair_statistics(judged)
        return {
            name: metric_value(each, self.of(name), judged) for name, each in statistics.items()
        }


# What a model gave on an evaluation set.
Evaluated = EvaluatedRun | PairScores


class FirstStage(NamedTuple):
    """What a reranker orders: the documents found for each query, and how many it scores.

    ``digest`` tells what found them, see ``evaluation.search.fusion.first_stage_digest``.
    """

    run: Run
    top_k: int
    digest: str = BM25_SCORES


def measure_ranking(
    model: Encoder,
    data: RetrievalData,
    metrics: Sequence[str],
    inference: InferenceSettings,
    first: FirstStage | None = None,
) -> EvaluatedRun:
    """Retrieve with an embedder, or rerank with a reranker, and compute metrics.

    A reranker orders ``data.candidates``, or what ``first`` has found.
    """
    if retrieves(model):
        run: Run = retrieve(model, data, depth_of(metrics), inference)
    else:
        found, top_k = (None, UNCUT_DEPTH) if first is None else first[:2]
        run = rerank(model, data, found, top_k, inference)
    return evaluate_run(run, data, metrics)


def measure_fused(
    model: Encoder,
    data: RetrievalData,
    metrics: Sequence[str],
    inference: InferenceSettings,
    fusion: Fusion,
    first: FirstStage | None = None,
) -> tuple[EvaluatedRun, EvaluatedRun]:
    """The metrics of a model alone, and with its scores fused."""
    scores, k = both_scores(model, data, metrics, inference, first), depth_of(metrics)
    fused = fuse(scores.own, scores.other, fusion.weight)
    return evaluate_run(best(scores.alone, k), data, metrics), evaluate_run(
        best(fused, k), data, metrics
    )


def usable_fusion(
    name: str, model: Encoder, first: FirstStage | None, first_name: str
) -> Fusion | None:
    """What a model's scores are fused with, unless its other scores are not at hand here."""
    fusion = read_fusion(name, model)
    if fusion is None or retrieves(model):
        return fusion
    reason: str | None = f"{FUSION_FILE}: the data give candidates without scores"
    if first is not None:
        reason = fusion.first_stage_mismatch(first.digest, first_name)
    if reason:
        logger.warning("scores are not fused: %s", reason)
    return None if reason else fusion


def both_scores(
    model: Encoder,
    data: RetrievalData,
    metrics: Sequence[str],
    inference: InferenceSettings,
    first: FirstStage | None = None,
) -> TwoScores:
    """A model's own scores of documents, and those to fuse them with.

    An embedder's are beside BM25's, a reranker's beside those of its first stage.
    """
    if retrieves(model):
        return retrieve_with_bm25(model, data, depth_of(metrics), inference)
    assert first is not None
    found = best(first.run, first.top_k)
    own = rerank(model, data, found, first.top_k, inference)
    return TwoScores(own, found, own)


def depth_of(metrics: Sequence[str]) -> int:
    """How many documents of a ranking the metrics look at."""
    cuts = [int(name.partition("@")[2] or UNCUT_DEPTH) for name in metrics]
    return max(cuts, default=UNCUT_DEPTH)


def evaluate_run(run: Run, data: RetrievalData, metrics: Sequence[str]) -> EvaluatedRun:
    """Compute the metrics of a run."""
    values = per_query(run, data.qrels, metrics, data.relevant_from)
    return EvaluatedRun(run, values, undefined_metrics(data.qrels, metrics, data.relevant_from))


def score_pairs(model: Encoder, data: PairData, inference: InferenceSettings) -> PairScores:
    """Return a score for each pair: the cosine of an embedder, the logit of a reranker.

    Raises:
        ValueError: A score is not finite.
    """
    settings = asdict(inference)
    del settings["index"]  # of a search
    scores = model.score_pairs(data.queries, data.documents, query_prompts=data.prompts, **settings)
    check_scores(scores, lambda at: repr(data.documents[at][:60]))
    ranking: Scores = scores.double().numpy()
    return PairScores(ranking, displayed_scores(model, ranking))


@dataclass(frozen=True)
class Evaluator:
    """Evaluates models on one evaluation set, such as the model of a training run at intervals."""

    data: RetrievalData | PairData
    metrics: Sequence[str]  # that suit the data
    inference: InferenceSettings
    first: FirstStage | None = None  # see ``measure_ranking``

    def __call__(self, model: Encoder) -> dict[str, MetricValue]:
        """Each metric's value, or the reason why it has none."""
        return self.metric_values(self.evaluate(model))

    def evaluate(self, model: Encoder) -> Evaluated:
        """The model's rankings, or its scores of the pairs."""
        if isinstance(self.data, RetrievalData):
            return measure_ranking(model, self.data, self.metrics, self.inference, self.first)
        return score_pairs(model, self.data, self.inference)

    def metric_values(self, found: Evaluated) -> dict[str, MetricValue]:
        """Each metric's value, or the reason why it has none."""
        if isinstance(found, EvaluatedRun):
            return found.means()
        assert isinstance(self.data, PairData)
        values = found.metric_values(self.data.judged())
        return {name: values[name] for name in self.metrics}

    def main_value(self, found: Evaluated) -> float:
        """The value of the first metric.

        Raises:
            ValueError: It has none, so that models cannot be compared by it.
        """
        name, value = next(iter(self.metric_values(found).items()))
        if isinstance(value, str):
            raise ValueError(f"{name} is undefined on the data ({value}); give other data")
        return value

    def compare(self, base: Evaluated, other: Evaluated) -> Comparison:
        """The first metric of two models, with the interval of its difference."""
        name = self.metrics[0]
        if isinstance(base, EvaluatedRun) and isinstance(other, EvaluatedRun):
            return compare(base.values[name], other.values[name])
        assert isinstance(self.data, PairData)
        assert isinstance(base, PairScores)
        assert isinstance(other, PairScores)
        judged = self.data.judged()
        statistic = pair_statistics(judged)[name]
        return compare_statistic(statistic, base.of(name), other.of(name), judged, RESAMPLES)

    def few(self) -> "Evaluator":
        """A trial on a few rows with the longest texts, which shows whether memory will do."""
        return replace(self, data=self.data.few(FEW))
