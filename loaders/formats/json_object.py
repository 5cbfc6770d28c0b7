"""JSON objects, in which a name must not stand twice: a plain decoder keeps the last value only."""

import json
from collections import Counter
from typing import Any


class RepeatedName:
    """Stands in the place of an object that has one name twice, and so no one value for it.

    Args:
        name: The first that is repeated.
        fields: The object as a plain decoder gives it.
    """

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.fields = fields

    def __repr__(self) -> str:
        return f'an object with two "{self.name}"'


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | RepeatedName:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    counts = Counter(name for name, _ in pairs)
    return RepeatedName(next(name for name, count in counts.items() if count > 1), fields)


DECODER = json.JSONDecoder(object_pairs_hook=_object)
