"""A row as one part of a split has it: the record it was, in JSON."""

from typing import Any

from loaders.fields import ALIASES, find
from loaders.row_stream import LocatedRow
from loaders.rows import PositivePair, ScoredPair


def part_record(located: LocatedRow) -> dict[str, Any]:
    """The record of a row.

    From JSON and Parquet it is what stands there. A row of a table, whose labels are texts that
    only the reading options explain, gives its fields under their own names with relevances from
    0 to 1, and all other columns as texts.
    """
    fields, row = located.record.fields, located.row
    if located.record.labels == "typed":
        return dict(fields)
    used = {find(fields, field) for field in ALIASES}
    others = {name: cell for name, cell in fields.items() if name not in used}
    own: dict[str, Any] = {"query": row.query}
    if isinstance(row, ScoredPair):
        own |= {"doc": row.doc, "rel": row.rel, "key": row.key}
        own["weight"] = row.weight if row.weight != 1 else None
    elif isinstance(row, PositivePair):
        own |= {"pos_doc": row.pos_doc, "negatives": row.negatives or None}
    else:
        own |= {"pos": row.pos, "neg": row.neg}
        own |= {"pos_scores": row.pos_scores, "neg_scores": row.neg_scores}
    return own | {"prompt": row.prompt} | others
