"""Filters at random on metadata at random: each database finds what a plain reading finds."""

import random
from typing import Any

import numpy as np

from stores import Document, Store
from stores.filters import AnyOf, Compared, Filter, parse_filter
from stores.store import Layout

NAMES = ("a", "A", "b-c", "年", "n1", "IN", "_x", "é")
TEXTS = ("", "a", "A", "1", "1.0", "true", "null", "年", "a'b", 'q"q', "\\", "%", "$", "\n", " a",
         "é", "e\u0301", "\U0001f600", "x" * 300)  # fmt: skip
NUMBERS = (0, -0.0, 1, 1.0, -1, 1.5, 0.1, 0.1 + 0.2, 1e-320, 2**53 - 1, 1 - 2**53)
BOOLEANS = (True, False)
LARGE = (2**60, 1e16, 1e300, -1e300)  # metadata may have them, and filters not
SIGNS = {
    "gt": lambda a, b: a > b, "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b, "lte": lambda a, b: a <= b,
}  # fmt: skip


def metadata(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.random()
    if depth == 0 or (depth < 4 and kind < 0.25):
        names = draw.sample(NAMES, draw.randint(0, 4))
        return {name: metadata(draw, depth + 1) for name in names}
    if depth < 4 and kind < 0.5:
        return [metadata(draw, depth + 1) for _ in range(draw.randint(0, 3))]
    return draw.choice((*TEXTS, *NUMBERS, *BOOLEANS, *LARGE, None))


def condition(draw: random.Random) -> Any:
    if draw.random() < 0.3:
        signs = draw.sample(sorted(SIGNS), draw.randint(1, 2))
        return {sign: draw.choice(NUMBERS) for sign in signs}
    values: Any = draw.sample((*TEXTS, *NUMBERS, *BOOLEANS), draw.randint(1, 4))
    values = values[0] if draw.random() < 0.5 else values
    return {"not": values} if draw.random() < 0.4 else values


def random_filter(draw: random.Random) -> dict[str, Any]:
    paths = (".".join(draw.choices(NAMES, k=draw.choice((1, 1, 1, 2, 3)))) for _ in range(2))
    return {path: condition(draw) for path in list(paths)[: draw.randint(1, 2)]}


def values_at(found: Any, path: tuple[str, ...]) -> list[Any]:
    items = found if isinstance(found, list) else [found]
    if path:
        inner = [each[path[0]] for each in items if isinstance(each, dict) and path[0] in each]
        return [value for each in inner for value in values_at(each, path[1:])]
    flat = [value for each in items for value in (each if isinstance(each, list) else [each])]
    return [value for value in flat if not isinstance(value, dict | list)]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(one: Any, other: Any) -> bool:
    if is_number(one) and is_number(other):
        return bool(one == other)
    return type(one) is type(other) and bool(one == other)


def passes(found: dict[str, Any], where: Filter) -> bool:
    def holds(each: AnyOf | Compared) -> bool:
        values = values_at(found, each.path)
        if isinstance(each, Compared):
            numbers = filter(is_number, values)
            return any(SIGNS[each.by](number, each.value) for number in numbers)
        return each.negated != any(equal(a, b) for a in values for b in each.values)

    return all(map(holds, where))


def test_each_database_finds_what_a_plain_reading_finds(store: Store) -> None:
    draw = random.Random(2)
    kept = {f"d{at}": metadata(draw) for at in range(250)}
    vectors = np.random.default_rng(0).standard_normal((len(kept), 8), np.float32)
    table = store.open("t", Layout(8), create=True)
    table.upsert([Document(name, "word", each) for name, each in kept.items()], vectors)
    table.build_index()
    assert {name: each.metadata for name, each in table.documents(list(kept)).items()} == kept
    passed = 0
    for given in (random_filter(draw) for _ in range(150)):
        where = parse_filter(given)
        wanted = {name for name, each in kept.items() if passes(each, where)}
        passed += len(wanted)
        for hits in (
            table.search(vectors[0], len(kept), where),
            table.search_words(["word"], len(kept), where),
        ):
            assert {hit.id for hit in hits} == wanted, given
    assert 2000 < passed < 30_000
