"""Fuse the scores of two rankings: a model's own, and BM25's or those of a first stage.

The fused score is ``own + weight * other``: a linear combination, for which one weight suffices and
which keeps how far apart scores are. (Bruch, Gai and Ingber, "An Analysis of Fusion Functions for
Hybrid Retrieval", ACM TOIS 42(1), 2023.)
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.json_files import write_json
from common.run_files import FUSION_FILE
from encoders.backbone import Encoder
from encoders.opening.model_digest import model_digest
from encoders.opening.model_name import resolve_model
from evaluation.data.sets import RetrievalData
from evaluation.metrics.comparison import Comparison, compare
from evaluation.metrics.ranking import Run, order, per_query, undefined_metrics

logger = logging.getLogger(__name__)

BM25_SCORES = "bm25"
# Weights that are tried, times the one with which both scores spread alike.
MULTIPLES = (0.0, *(2.0**power for power in range(-5, 5)))


@dataclass(frozen=True)
class Fusion:
    """What a model's scores are fused with, kept in its folder.

    Args:
        weight: Of the other score; above 0.
        other: Whose score: ``bm25``, or what ``first_stage_digest`` says of a first stage.
        first_stage: The first stage's name, for messages.
        settings: The model's when the weight was chosen, see ``settings_of``.
    """

    weight: float
    other: str
    first_stage: str = BM25_SCORES
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``fusion.json`` into a model's folder."""
        write_json(folder / FUSION_FILE, vars(self))

    def first_stage_mismatch(self, digest: str, name: str) -> str | None:
        """Why the weight does not hold for a first stage, given by digest and name; None: it does.

        It was chosen for the scores of one model; those of another have another scale.
        """
        if digest == self.other:
            return None
        return (
            f"{FUSION_FILE}: the weight was chosen for the scores of {self.first_stage} as it was "
            f"then, not for those of {name}; run scripts/fuse.py again, or delete the file"
        )

    def model_mismatch(self, model: Encoder) -> str | None:
        """Why the weight does not hold for a model's scores; None: it does."""
        if self.settings == (now := settings_of(model)):
            return None
        return (
            f"{FUSION_FILE}: the weight was chosen with {json.dumps(self.settings)}, not with "
            f"{json.dumps(now)}; run scripts/fuse.py again with these settings"
        )


def settings_of(model: Encoder) -> dict[str, Any]:
    """The settings of a model that change the scale of its scores."""
    return {"prompts": model.prompts, "truncate_dim": getattr(model, "truncate_dim", None)}


def read_fusion(model: str, opened: Encoder | None = None) -> Fusion | None:
    """What the scores of a model are fused with; None: with nothing.

    Args:
        model: Its name.
        opened: The opened model; if the weight was chosen for other settings of it, there is a
            warning and no fusion. None: the settings are not compared.

    Raises:
        ValueError: The file is damaged.
    """
    file = resolve_model(model) / FUSION_FILE
    if not file.is_file():
        return None
    try:
        fusion = Fusion(**json.loads(file.read_text(encoding="utf-8")))
        valid = 0 < fusion.weight < np.inf and isinstance(fusion.other, str)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"{file} is damaged; run scripts/fuse.py again, or delete it")
    if opened is not None and (reason := fusion.model_mismatch(opened)):
        logger.warning("scores are not fused: %s", reason)
        return None
    return fusion


def bm25_weight(fusion: Fusion | None) -> float:
    """How much BM25 counts beside a model's similarity in a search; 0: no weight was chosen."""
    return fusion.weight if fusion is not None and fusion.other == BM25_SCORES else 0.0


def first_stage_digest(model: Encoder, fusion: Fusion | None) -> str:
    """A digest of all that decides a first stage's scores: model, prompts and fusion."""
    digest = hashlib.blake2b(model_digest(model).encode(), digest_size=16)
    digest.update(json.dumps(sorted(model.prompts.items())).encode())
    found = digest.hexdigest()
    return found if fusion is None else f"{found} + {fusion.weight:g} {fusion.other}"


class TwoScores(NamedTuple):
    """Two scores of the documents of each query, and what the model finds without the other."""

    own: Run
    other: Run
    alone: Run


def fuse(own: Run, other: Run, weight: float) -> dict[str, dict[str, float]]:
    """Every document of ``own`` by its fused score, best first; absent from ``other`` means 0."""
    fused = {}
    for query, scores in own.items():
        beside = other[query]
        sums = {d: score + weight * beside.get(d, 0.0) for d, score in scores.items()}
        fused[query] = {document: sums[document] for document in order(sums)}
    return fused


def best(run: Run, k: int) -> dict[str, dict[str, float]]:
    """The k best documents of each query, best first."""
    return {
        query: {document: scores[document] for document in order(scores)[:k]}
        for query, scores in run.items()
    }


class WeightTrial(NamedTuple):
    """What a weight is worth: a metric, and its difference to either score alone."""

    weight: float
    value: float
    to_own: Comparison
    to_other: Comparison


def try_weights(
    scores: TwoScores, data: RetrievalData, metric: str, weights: Sequence[float] | None = None
) -> Iterator[WeightTrial]:
    """Measure fusions by each weight; None: 0, and powers of 2 around that of equal spread.

    Args:
        scores: Of the model and of the other.
        data: The judgements.
        metric: Such as ``ndcg@10``.
        weights: To try.

    Raises:
        ValueError: One of the two scores is the same for all documents of each query, or the metric
            is undefined on the data.
    """
    if reason := undefined_metrics(data.qrels, [metric], data.relevant_from).get(metric):
        raise ValueError(f"data: {metric} is undefined on it ({reason}); give other data")

    def values(run: Run) -> np.ndarray:
        return per_query(run, data.qrels, [metric], data.relevant_from)[metric]

    own, other, alone = scores
    nothing = {query: dict.fromkeys(found, 0.0) for query, found in own.items()}
    by_itself, by_the_other = values(alone), values(fuse(nothing, other, 1))
    spread = equal_spread(own, other)
    for weight in weights or [multiple * spread for multiple in MULTIPLES]:
        fused = values(fuse(own, other, weight)) if weight else by_itself
        yield WeightTrial(
            weight, float(fused.mean()), compare(by_itself, fused), compare(by_the_other, fused)
        )


def equal_spread(own: Run, other: Run) -> float:
    """The weight with which both scores spread alike over a query's documents, on average."""
    spread = np.zeros(2)
    for query, scores in own.items():
        pairs = [(score, other[query].get(document, 0.0)) for document, score in scores.items()]
        spread += np.std(pairs, axis=0) if pairs else 0
    if not spread.all():
        raise ValueError("the scores of all documents are equal: there is nothing to fuse")
    return float(spread[0] / spread[1])
