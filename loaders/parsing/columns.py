"""Map the columns of a record to fields: by their names, or by the option ``columns``."""

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from loaders.parsing.fields import ALIASES, RowError, show

# negative_1, negative_2, ... as sentence-transformers' mine_hard_negatives writes them.
_NUMBERED = re.compile(r"(?:hard_)?neg(?:ative)?s?_?(\d+)")
# A row has exactly one of these fields.
_DOCUMENTS = ("hits", "pos", "pos_doc", "doc")
_MOST_RECORDS = 100  # whose columns are listed when a mapped one is missing
_SHOWN = 20
_ABSENT = object()


def field_of(name: str) -> str | None:
    """The field that a column is read as; ``negative_3`` for a numbered negative; or None."""
    number = _NUMBERED.fullmatch(name)
    if number is not None:
        return f"negative_{int(number[1])}"
    return next((field for field, names in ALIASES.items() if name in names), None)


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuse columns for unknown fields, and two columns for one field.

    Raises:
        ValueError: It names the column.
    """
    taken: dict[str, str] = {}
    for column, target in columns.items():
        field = field_of(target)
        if field is None:
            known = [*ALIASES, "negative_1"]
            close = difflib.get_close_matches(target, known, n=1)
            meant = f"did you mean {close[0]}?" if close else f"fields are {', '.join(known)}"
            raise ValueError(
                f'columns: cannot map "{column}" to "{target}", an unknown field; {meant}'
            )
        if field in taken:
            raise ValueError(
                f'columns: "{taken[field]}" and "{column}" are both mapped to "{field}"; keep one'
            )
        taken[field] = column


class Columns:
    """Finds the fields of records.

    By default a field is read from any of its names in ``ALIASES``. A column in ``columns`` is read
    as the given field only, whatever its name, and that field is read from no other column. A dot
    descends into an object, or into the objects of a list (``answers.text``); a column whose name
    itself has the dot takes precedence.

    Args:
        columns: Column -> field.
    """

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        self.columns = dict(columns or {})
        fields = {field_of(target): column for column, target in self.columns.items()}
        documents = any(field in fields for field in _DOCUMENTS)
        self.names: dict[str, tuple[str, ...]] = {}
        for field, aliases in ALIASES.items():
            free = tuple(name for name in aliases if name not in self.columns)
            hidden = documents and field in _DOCUMENTS
            self.names[field] = (fields[field],) if field in fields else () if hidden else free
        self._numbers: dict[str, int | None] = {}  # column -> number of the negative, if it is one
        for target, column in fields.items():
            if target is not None and target not in ALIASES:
                self._numbers[column] = int(target.removeprefix("negative_"))
        self._taken = {number for number in self._numbers.values() if number is not None}
        # For ``check``: mapped columns that no record has had, and what the first records have.
        self._not_found = set(self.columns)
        self._names_seen: dict[str, None] = {}
        self._records_seen = 0

    def with_mapped(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The record, with the values of mapped columns added by their names, dots and all."""
        if not self.columns:
            return fields
        if self._not_found and self._records_seen < _MOST_RECORDS:
            self._records_seen += 1
            self._names_seen |= dict.fromkeys(_leaves(fields))
        found = dict(fields)
        for column in self.columns:
            value = _at(fields, column)
            if value is not _ABSENT:
                self._not_found.discard(column)
                found[column] = value
        return found

    def find(self, fields: Mapping[str, Any], field: str) -> str | None:
        """The name under which a record has a field; None if it is absent or null."""
        return next((name for name in self.names[field] if fields.get(name) is not None), None)

    def require(self, fields: Mapping[str, Any], field: str) -> str:
        """The name under which a record has a field.

        Raises:
            RowError: If it has none.
        """
        name = self.find(fields, field)
        if name is None:
            first, *others = self.names[field] or (field,)
            if first in self.columns:
                raise RowError(f'missing column "{first}", which columns maps to "{field}"')
            if empty := [given for given in self.names[field] if given in fields]:
                raise RowError(f'"{empty[0]}" is empty')
            also = f" (also read from {', '.join(others)})" if others else ""
            raise RowError(f'missing field "{first}"{also}{self.hint(fields, field)}')
        return name

    def hint(self, fields: Mapping[str, Any], field: str) -> str:
        """How ``columns`` may find a field that a record lacks; empty if nothing may be it."""
        may_be_it = (str, float) if field == "rel" else (str,)
        for column, value in fields.items():
            if field_of(column) is not None:
                continue
            first = next(iter(value), None) if isinstance(value, list) else value
            if isinstance(value, list) and isinstance(first, dict):
                return f'; if "{column}" holds the rows, give that list alone as the file'
            if isinstance(first, may_be_it):
                return f"; map its column: columns {_as_json({column: field})}"
        if field == "rel" and (doc := self.find(fields, "doc")):
            mapped = _as_json({doc: "pos_doc"})
            return f"; if each document answers its query, give columns {mapped}"
        return ""

    def negatives(self, fields: Mapping[str, Any]) -> list[str]:
        """The columns with a record's negatives: the plain one, then the numbered ones in order."""
        plain = self.find(fields, "neg")
        numbered = [
            (number, name)
            for name, value in fields.items()
            if value is not None and (number := self._number(name)) is not None
        ]
        return ([plain] if plain else []) + [name for _, name in sorted(numbered)]

    def _number(self, name: str) -> int | None:
        if name not in self._numbers:
            match = None if name in self.columns else _NUMBERED.fullmatch(name)
            number = int(match[1]) if match and len(match[1]) < 10 else None
            self._numbers[name] = None if number in self._taken else number
        return self._numbers[name]

    def is_used(self, name: str, used: list[str]) -> bool:
        """Whether a column is one of the ``used`` ones, or contains one."""
        return name in used or any(
            column.startswith(f"{name}.") for column in self.columns if column in used
        )

    def check(self) -> None:
        """Refuse a column that no record had.

        Raises:
            ValueError: It lists the columns there are.
        """
        if not self._not_found or not self._records_seen:
            return
        missing = min(self._not_found)
        close = difflib.get_close_matches(missing, self._names_seen, n=1)
        meant = f' (did you mean "{close[0]}"?)' if close else ""
        more = ", ..." if len(self._names_seen) > _SHOWN else ""
        there = ", ".join(show(name) for name in list(self._names_seen)[:_SHOWN]) + more
        raise ValueError(f'columns: no row has "{missing}"{meant}; there are {there}')


def _as_json(columns: dict[str, str]) -> str:
    return json.dumps(columns, ensure_ascii=False)


def _at(value: Any, path: str) -> Any:
    """The value at a path, flattened over the objects of a list; ``_ABSENT`` if there is none."""
    if value is None:
        return None
    if isinstance(value, dict):
        if path in value:
            return value[path]
        for at in reversed([at for at, character in enumerate(path) if character == "."]):
            if path[:at] in value:
                found = _at(value[path[:at]], path[at + 1 :])
                if found is not _ABSENT:
                    return found
        return _ABSENT
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return _ABSENT
    items = [_at(item, path) for item in value]
    if items and all(item is _ABSENT for item in items):
        return _ABSENT
    # A missing value is kept as None, so that parallel lists stay aligned.
    filled = [None if item is _ABSENT else item for item in items]
    return [part for item in filled for part in (item if isinstance(item, list) else [item])]


def _leaves(fields: Mapping[str, Any]) -> list[str]:
    """The names of a record's columns, dotted ones for those that are objects."""
    names = []
    for name, value in fields.items():
        item = next(iter(value), None) if isinstance(value, list) else value
        names += [f"{name}.{inner}" for inner in item] if isinstance(item, dict) else [name]
    return names
