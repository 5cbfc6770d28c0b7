"""Detect unused fields whose names suggest that they matter."""

import re
from collections import Counter

from loaders.parsing.columns import Columns, field_of

_EXPECTED = re.compile(r"(?:^|[^a-z])(?:pos|neg|title|score|label|answer)", re.IGNORECASE)


def suspicious(unused: Counter[str], columns: Columns) -> Counter[str]:
    """The unused fields whose names suggest that they matter.

    Args:
        unused: Field name -> times; ``outer.inner`` for a field of nested objects.
        columns: Tell whether ``outer`` is itself a field.
    """
    found: Counter[str] = Counter()
    for name, count in unused.items():
        outer, _, inner = name.rpartition(".")
        within = outer in columns.columns or field_of(outer) is not None
        if _EXPECTED.search(inner if within else name):
            found[name] = count
    return found
