"""Filters on metadata as Qdrant can index them.

Its own conditions on nested fields would have to name every place where a list may be, and only
some of these could be indexed. So each document keeps what a filter can ask for: a key for each of
its values, and its numbers by field.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qdrant_client import models

from stores.databases.qdrant_ids import point_id
from stores.filters import NAME, AnyOf, Compared, Filter, Value

# Of a point's payload.
KEYS, NUMBERS = "keys", "numbers"

Path = tuple[str, ...]


def filterable(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept beside a document's metadata, to filter by."""
    keys, numbers = set[str](), dict[str, set[int | float]]()
    for path, value in _values(metadata, ()):
        keys.add(_key(path, value))
        if not isinstance(value, str | bool):
            numbers.setdefault(".".join(path), set()).add(_number(value))
    return {
        KEYS: sorted(keys),
        NUMBERS: {field: sorted(values) for field, values in numbers.items()},
    }


def number_field(name: str) -> str:
    """Where the numbers of a field are in a point's payload, as Qdrant spells it.

    ``name``: with dots.
    """
    return f'{NUMBERS}."{name}"' if "." in name else f"{NUMBERS}.{name}"


def as_filter(where: Filter | None, ids: Sequence[str] | None) -> models.Filter | None:
    """The filter of a search."""
    must: list[Any] = []
    must_not: list[Any] = []
    for condition in where or ():
        negated = isinstance(condition, AnyOf) and condition.negated
        (must_not if negated else must).append(_condition(condition))
    if ids is not None:
        must.append(models.HasIdCondition(has_id=[point_id(each) for each in ids]))
    return models.Filter(must=must, must_not=must_not) if must or must_not else None


def _condition(condition: AnyOf | Compared) -> models.FieldCondition:
    if isinstance(condition, Compared):
        return models.FieldCondition(
            key=number_field(".".join(condition.path)),
            range=models.Range(**{condition.by: condition.value}),
        )
    keys = [_key(condition.path, value) for value in condition.values]
    return models.FieldCondition(key=KEYS, match=models.MatchAny(any=keys))


def _values(found: Any, path: Path) -> Iterator[tuple[Path, Value]]:
    """Each text, number and boolean with its path, as far as a filter can ask for it.

    A step leads to a value or to a list of these; a list in a list counts as its items.
    """
    for each in found if isinstance(found, list) else [found]:
        if isinstance(each, dict):
            for name, inner in each.items():
                if NAME.fullmatch(".".join((*path, name))):
                    yield from _values(inner, (*path, name))
        for value in each if isinstance(each, list) else [each]:
            if isinstance(value, Value):
                yield path, value


def _number(value: float) -> int | float:
    """Whole numbers as integers: Qdrant parses only 15 digits of a decimal number exactly."""
    value = float(value)
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


def _key(path: Path, value: Value) -> str:
    """Of equal length for all; 1 is 1.0, and neither is true or "1"."""
    if not isinstance(value, str | bool):
        value = float(value) + 0.0  # and -0.0 is 0
    text = json.dumps([path, value], ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
