"""Row shapes into each other, where nothing has to be invented."""

from typing import Any

from loaders.shapes.rows import CandidateGroup, PositivePair, Row, ScoredPair


def to_scored_pairs(row: Row) -> list[dict[str, Any]]:
    """Scored pairs of a row: its relevances, or 1 for a positive and 0 for a negative."""
    if isinstance(row, ScoredPair):
        return [_scored_pair(row, row.doc, row.rel, row.weight, row.key)]
    if isinstance(row, PositivePair):
        documents, relevances = [row.pos_doc, *row.negatives], [1.0] + [0.0] * len(row.negatives)
    else:
        documents, relevances = row.pos + row.neg, _relevances(row)
    return [
        _scored_pair(row, document, relevance, 1.0, None)
        for document, relevance in zip(documents, relevances, strict=True)
    ]


def to_group(row: Row, positive_threshold: float) -> dict[str, Any]:
    """The candidate group of a row. A scored pair gives a group of one document.

    Where ``graded`` is true the scores are relevances in [0, 1]; elsewhere relevances are 1 and
    0, and scores, if any, are a teacher's.

    Args:
        row: Any row.
        positive_threshold: The least relevance of a positive.
    """
    if isinstance(row, ScoredPair):
        docs, scores = [row.doc], [row.rel]
        if row.rel >= positive_threshold:
            return _group(row, docs, [], scores, [], graded=True)
        return _group(row, [], docs, [], scores, graded=True)
    if isinstance(row, CandidateGroup):
        return _group(row, row.pos, row.neg, row.pos_scores, row.neg_scores, row.graded)
    return _group(row, [row.pos_doc], row.negatives, None, None, graded=False)


def _relevances(group: CandidateGroup) -> list[float]:
    if group.graded:
        return (group.pos_scores or []) + (group.neg_scores or [])
    return [1.0] * len(group.pos) + [0.0] * len(group.neg)


def _scored_pair(row: Row, doc: str, rel: float, weight: float, key: str | None) -> dict[str, Any]:
    return {
        "query": row.query,
        "doc": doc,
        "rel": rel,
        "weight": weight,
        "key": key,
        "prompt": row.prompt,
    }


def _group(
    row: Row,
    pos: list[str],
    neg: list[str],
    pos_scores: list[float] | None,
    neg_scores: list[float] | None,
    graded: bool,
) -> dict[str, Any]:
    return {
        "query": row.query,
        "pos": pos,
        "neg": neg,
        "pos_scores": pos_scores,
        "neg_scores": neg_scores,
        "prompt": row.prompt,
        "graded": graded,
    }
