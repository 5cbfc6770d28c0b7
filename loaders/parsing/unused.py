"""Fields that no row makes use of, though their names sound as if they should count."""

import re
from collections import Counter

from loaders.parsing.columns import Columns, field_of

_EXPECTED = re.compile(r"(?:^|[^a-z])(?:pos|neg|title|score|label|answer)", re.IGNORECASE)


def suspicious(unused: Counter[str], columns: Columns) -> Counter[str]:
    """Those of the unused fields of which one expects that they count.

    Args:
        unused: Name -> times; of a field in the objects of another, ``other.name``.
        columns: Say which fields those others are.
    """
    found: Counter[str] = Counter()
    for name, count in unused.items():
        outer, _, inner = name.rpartition(".")
        within = outer in columns.columns or field_of(outer) is not None
        if _EXPECTED.search(inner if within else name):
            found[name] = count
    return found
