"""The documents of a row with their relevances, whatever its shape."""

from loaders.shapes.conversions import to_scored_pairs
from loaders.shapes.rows import Row


def judged_documents(row: Row) -> list[tuple[str, float]]:
    """(document, relevance) of a row, positives first: 1 and 0 where it has no relevances."""
    return [(pair["doc"], pair["rel"]) for pair in to_scored_pairs(row)]
