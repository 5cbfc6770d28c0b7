"""Filters: what no database can compare is refused, with the field and the reason."""

from typing import Any

import pytest

from stores.filters import AnyOf, Compared, parse_filter


def test_read() -> None:
    assert parse_filter({"a.b": ["x", 2], "n": {"gte": 1, "not": 1 - 2**53}}) == (
        AnyOf(("a", "b"), ("x", 2)),
        Compared(("n",), "gte", 1),
        AnyOf(("n",), (1 - 2**53,), negated=True),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a b": 1}, "filter: 'a b' is not a valid field"),
        ({"a.b.c.d.e.f": 1}, "up to four dots"),
        ({"id": "a"}, "filter: id: is a document's own field, and filters are of its metadata"),
        ({"metadata.year": 1}, "filter: metadata.year: write year; all fields of a filter are"),
        ({"n": {}}, "filter: n: is empty"),
        ({"n": {"is": 1}}, "filter: n: unknown condition 'is'; known are gt, gte, lt, lte, not"),
        ({"n": {"gt": "1"}}, "filter: n: gt compares numbers, got '1'"),
        ({"n": {"gt": True}}, "filter: n: gt compares numbers, got True"),
        ({"n": {"lt": float("nan")}}, "filter: n: nan is not a number to compare with"),
        ({"n": float("inf")}, "filter: n: inf is not a number to compare with"),
        ({"n": []}, "got an empty list"),
        ({"n": [1, None]}, "got None"),
        ({"n": 2**53}, "filter: n: 9007199254740992 is 2^53 or more"),
        ({"n": {"lt": -(10**400)}}, "is 2^53 or more"),
        ({"n": {"gt": 1e16}}, "filter: n: 1e+16 is 2^53 or more"),
        ({"n": "a\0"}, 'filter: "n" contains a NUL character'),
        ({"n": {"not": ["\ud800"]}}, 'filter: "n" contains \\ud800, one half of a surrogate pair'),
    ],
)
def test_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_filter(given)
    assert message in str(error.value)
