"""Serialise a row back to its JSON record, for split files."""

from typing import Any

from loaders.parsing.columns import Columns, field_of
from loaders.parsing.fields import ALIASES
from loaders.parsing.row_stream import LocatedRow
from loaders.shapes.rows import PositivePair, ScoredPair

# Columns of these names may stand beside a row without being part of it.
_BESIDE = {"key", "weight"}


def part_record(located: LocatedRow, columns: Columns) -> dict[str, Any]:
    """Return the JSON record of a row.

    From JSON and Parquet it is what stands there. A row of a table, whose labels are texts that
    only the reading options explain, gives its fields under their own names with relevances from
    0 to 1, and all other columns as texts. So does any row where ``columns`` name the fields: the
    parts are read without them.
    """
    fields, row = located.record.fields, located.row
    if located.record.labels == "typed" and not columns.columns:
        return dict(fields)
    view = columns.view(fields)
    own: dict[str, Any] = {"query": row.query}
    if isinstance(row, ScoredPair):
        own |= {"doc": row.doc, "rel": row.rel, "key": row.key}
        own["weight"] = row.weight if row.weight != 1 else None
    elif isinstance(row, PositivePair):
        own |= {"pos_doc": row.pos_doc, "negatives": row.negatives or None}
    else:
        own |= {"pos": row.pos, "neg": row.neg}
        own |= {"pos_scores": row.pos_scores, "neg_scores": row.neg_scores}
    found = [columns.find(view, field) for field in ALIASES if field not in _BESIDE - own.keys()]
    used = [*filter(None, found), *columns.negatives(view)]
    others = {
        name: value
        for name, value in fields.items()
        if name not in used and field_of(name) in (None, *(_BESIDE - own.keys()))
    }
    return own | {"prompt": row.prompt} | others
