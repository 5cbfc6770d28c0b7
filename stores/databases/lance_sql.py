"""Filters as LanceDB's SQL, and metadata as its JSON paths can compare them."""

import json
import struct
from collections.abc import Sequence
from typing import Any

from stores.filters import SIGNS, AnyOf, Compared


def sql(condition: AnyOf | Compared) -> str:
    """A condition in SQL, by JSON paths."""
    # "[*]": also of the items of a list.
    path = "$" + "".join(f'."{step}"[*]' for step in condition.path)
    if isinstance(condition, Compared):
        tests = [f"@ {SIGNS[condition.by]} {sortable(condition.value)}"]
    else:
        values = (json.dumps(sortable(each), ensure_ascii=False) for each in condition.values)
        tests = [f"@ == {value}" for value in values]
    # Not "||" in one path: between values of several types it is never true.
    any_of = " OR ".join(f"json_exists(metadata, {quoted(f'{path} ? ({test})')})" for test in tests)
    negated = isinstance(condition, AnyOf) and condition.negated
    return f"{'NOT ' if negated else ''}({any_of})"


def sortable(value: Any) -> Any:
    """Metadata or a value of a filter, as Lance's JSON paths can compare them.

    They know no decimals and no empty text: numbers become whole ones of the same order. Of a list
    in a list they compare the items by the type of the first: its items move up into the outer one,
    as far as a filter can ask for them.
    """
    if isinstance(value, dict):
        return {name: sortable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [sortable(item) for each in value for item in _items(each)]
    if value == "":
        return "\0"  # no other text has it
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    # The bits of floats above 0 rise with them.
    (bits,) = struct.unpack("<q", struct.pack("<d", abs(value)))
    return bits if value >= 0 else -bits


def _items(value: Any) -> list[Any]:
    """Of an item of a list: itself, or the texts, numbers and booleans of an inner list."""
    if not isinstance(value, list):
        return [value]
    return [item for item in value if not isinstance(item, dict | list)]


def sql_in(values: Sequence[str], what: str = "id") -> str:
    """The condition that an id, or ``what``, is one of these."""
    return f"{what} IN ({', '.join(map(quoted, values))})" if values else "false"


def quoted(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"
