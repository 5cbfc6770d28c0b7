"""Convert rows between shapes, where nothing has to be invented.

Rows are stored as scored pairs or as candidate groups. A positive pair is a group of one positive:
``PositivePairs`` is a view of groups.
"""

from loaders.shapes.rows import CandidateGroup, PositivePair, Row, ScoredPair


def to_group(row: Row, positive_threshold: float) -> CandidateGroup:
    """The candidate group of a row; a scored pair becomes a graded group of one document.

    Args:
        row: Any row.
        positive_threshold: The lowest relevance of a positive.
    """
    if isinstance(row, CandidateGroup):
        return row
    if isinstance(row, PositivePair):
        return CandidateGroup(
            row.query, [row.pos_doc], row.negatives, None, None, row.prompt, graded=False
        )
    if row.rel >= positive_threshold:
        return CandidateGroup(row.query, [row.doc], [], [row.rel], [], row.prompt, graded=True)
    return CandidateGroup(row.query, [], [row.doc], [], [row.rel], row.prompt, graded=True)


def to_scored_pairs(row: Row) -> list[ScoredPair]:
    """One scored pair per document, positives first: 1 and 0 where the row has no relevances."""
    if isinstance(row, ScoredPair):
        return [row]
    group = to_group(row, 1.0)
    return [
        ScoredPair(row.query, document, relevance, 1.0, None, row.prompt)
        for document, relevance in zip(group.pos + group.neg, group.relevances(), strict=True)
    ]


def judged_documents(row: Row) -> list[tuple[str, float]]:
    """(document, relevance) of a row; see ``to_scored_pairs``."""
    return [(pair.doc, pair.rel) for pair in to_scored_pairs(row)]
