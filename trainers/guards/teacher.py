"""Whether a teacher knows more than its student: both order the groups of the evaluation set."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from encoders.backbone import Encoder
from evaluation.data.from_rows import retrieval_from_groups, text_id
from evaluation.measure import evaluate_run, measure_ranking
from evaluation.metrics.comparison import compare
from evaluation.search.distributed import InferenceSettings
from trainers.guards.evaluations import EvaluationFailed, describe

logger = logging.getLogger(__name__)

METRIC = "ndcg@10"


def check_teacher(
    rows: Iterable[Mapping[str, Any]], model: Encoder, inference: InferenceSettings
) -> None:
    """Refuse a teacher whose scores order the documents no better than the model does already.

    Args:
        rows: Groups with the teacher's scores; positives count 1, negatives 0.
        model: Before training.
        inference: Settings of inference.

    Raises:
        EvaluationFailed: It does not beat the model.
    """
    groups = [{**row, "graded": False} for row in rows if row["pos"] and row["neg"]]
    if len({(row["query"], row.get("prompt")) for row in groups}) < 2:
        logger.warning("eval_file: has too few queries with negatives to compare the teacher by")
        return
    data = retrieval_from_groups(groups, candidates=True)
    teacher: dict[str, dict[str, float]] = {query: {} for query in data.queries}
    for row in groups:
        prompt = row.get("prompt")
        query = text_id(row["query"]) if prompt is None else text_id(prompt, row["query"])
        for side in ("pos", "neg"):
            for text, score in zip(row[side], row[f"{side}_scores"], strict=True):
                teacher[query][text_id(text)] = score
    by_teacher = evaluate_run(teacher, data, [METRIC]).values[METRIC]
    try:
        by_student = measure_ranking(model, data, [METRIC], inference).values[METRIC]
    except Exception as error:
        raise EvaluationFailed(
            f"the model cannot be measured on eval_file: {describe(error)}; nothing was trained"
        ) from error
    by = compare(by_student, by_teacher)
    figures = (
        f"{METRIC} of its scores {by.tuned:.4f}, of the base {by.base:.4f}: "
        f"{by.difference:+.4f} [{by.low:+.4f}, {by.high:+.4f}]"
    )
    if by.difference <= 0:
        raise EvaluationFailed(
            f"the teacher orders the groups of eval_file no better than the model does: {figures}; "
            "it has nothing to teach; take a better teacher, or set allow_weak_teacher to true"
        )
    logger.info("the teacher on the groups of eval_file: %s", figures)
