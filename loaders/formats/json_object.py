"""Decode JSON objects and detect repeated names, of which a plain decoder keeps only the last."""

import json
from collections import Counter
from typing import Any


class RepeatedName:
    """Takes the place of an object in which a name is repeated.

    Args:
        name: The first repeated one.
        fields: The object as a plain decoder reads it.
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
