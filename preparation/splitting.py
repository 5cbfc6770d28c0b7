"""Split rows into parts without leakage: what shares a text, or nearly does, stays together."""

import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from loaders.shapes.conversions import judged_documents
from loaders.shapes.rows import Row
from preparation.duplicates.near_duplicates import similar_pairs
from preparation.duplicates.normalized import normalized_hash

# Letters: R rows, T places of texts in rows, U different texts, C components, P parts.

By = Literal["query", "positive", "document"]

# Near-duplicates are looked for in the beginnings of long texts: it bounds memory, and whole
# copies, cut or extended ones too, begin alike.
NEAR_CHARACTERS = 2000

# A component above this share of the rows is placed first, while every part has room.
_LARGE = 0.01
# How far a part may be from its share before it is said: of the share, and in rows.
_TOLERANCE = 0.1


class Components:
    """Rows as a graph, of which each connected component must stay in one part.

    Rows are linked by a text that, normalised, stands in both, as query or as document; and by
    near-duplicates: queries that are almost the same, documents that are almost the same. Kept in
    memory are some 50 bytes for each place of a text, and while near-duplicates are looked for
    some 60 for each word in the first ``NEAR_CHARACTERS`` of each different text; no text.

    Args:
        read: Gives the rows, the same ones each time; it is called once or three times.
        by: Which texts link: the query; the query and the positives; all of a row's texts.
        threshold: How alike near-duplicates are, in (0, 1]; 0: only same texts link.
        positive_threshold: The least relevance of a positive.

    Attributes:
        labels: Number of the component of each row, [R].
        near_duplicates: How many pairs of texts were almost, but not quite, the same.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Row]],
        by: By,
        threshold: float,
        positive_threshold: float,
    ) -> None:
        self.read = read
        self.by = by
        self.positive_threshold = positive_threshold
        keys, rows = array("Q"), array("q")
        queries = array("B")
        count = 0
        for row in read():
            for text, is_query in self._texts(row):
                keys.append(normalized_hash(text))
                rows.append(count)
                queries.append(is_query)
            count += 1
        different, self.text_of = np.unique(  # [U], [T]
            np.frombuffer(keys, dtype=np.uint64), return_inverse=True
        )
        self.is_query = np.frombuffer(queries, dtype=np.uint8).astype(bool)  # [T]
        edges = [np.stack([np.frombuffer(rows, dtype=np.int64), self.text_of + count])]  # [2, T]
        self.near_duplicates = 0
        if threshold:
            for of_queries in (True, False):
                edges.append(self._alike(of_queries, threshold) + count)
        self.labels = _components(np.concatenate(edges, axis=1), count, len(different))

    def _texts(self, row: Row) -> Iterator[tuple[str, bool]]:
        """Yield (text, whether it is the query) for every text that links the row."""
        yield row.query, True
        if self.by != "query":
            for document, relevance in judged_documents(row):
                if self.by == "document" or relevance >= self.positive_threshold:
                    yield document, False

    def _alike(self, of_queries: bool, threshold: float) -> NDArray[np.int64]:
        """Find near-duplicate queries or documents, as pairs of indices [2, pairs].

        Of n texts that are all alike, n - 1 pairs are kept.
        """
        places = np.flatnonzero(self.is_query == of_queries)
        _, at = np.unique(self.text_of[places], return_index=True)
        wanted = np.zeros(len(self.text_of), dtype=bool)
        wanted[places[at]] = True  # the first place of each of these texts
        if not len(places):
            return np.empty((2, 0), dtype=np.int64)
        known = _Sets(len(at))
        pairs = array("q")
        for one, two, _ in similar_pairs(self._at(wanted), threshold):
            self.near_duplicates += 1
            if known.unite(one, two):
                pairs.extend((one, two))
        text_of = self.text_of[np.flatnonzero(wanted)]
        alike: NDArray[np.int64] = text_of[np.frombuffer(pairs, dtype=np.int64).reshape(-1, 2).T]
        return alike

    def _at(self, wanted: NDArray[np.bool_]) -> Iterator[str]:
        """Read the texts at some indices again."""
        place = 0
        for row in self.read():
            for text, _ in self._texts(row):
                if wanted[place]:
                    yield text[:NEAR_CHARACTERS]
                place += 1


class _Sets:
    """Union-find over the numbers below ``count``."""

    def __init__(self, count: int) -> None:
        self.parent = array("q", range(count))

    def unite(self, one: int, two: int) -> bool:
        """Unite the sets of two numbers; return False if they were one already."""
        one, two = self._root(one), self._root(two)
        self.parent[one] = two
        return one != two

    def _root(self, number: int) -> int:
        parent = self.parent
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number


def _components(edges: NDArray[np.int64], rows: int, texts: int) -> NDArray[np.int64]:
    """Number of the component of each row, in the order in which they first appear: [R]."""
    size = rows + texts
    graph = coo_matrix((np.ones(edges.shape[1], dtype=np.int32), edges), shape=(size, size))
    _, labels = connected_components(graph.tocsr(), directed=False)
    _, first, inverse = np.unique(labels[:rows], return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


@dataclass(frozen=True)
class Split:
    """The part of each row.

    Attributes:
        part_of: Number of the part of each row, [R].
        sizes: Rows of each part, [P].
        wanted: Rows that each part was to have, [P].
        components: How many there are.
        largest: Rows of the largest component.
    """

    part_of: NDArray[np.int64]
    sizes: list[int]
    wanted: list[float]
    components: int
    largest: int

    def off_target(self) -> list[int]:
        """List the parts whose size is off by more than one row and a tenth of what was wanted."""
        return [
            part
            for part, (size, wanted) in enumerate(zip(self.sizes, self.wanted, strict=True))
            if abs(size - wanted) > max(1.0, _TOLERANCE * wanted)
        ]


def assign_to_parts(labels: NDArray[np.int64], shares: Sequence[float], seed: int) -> Split:
    """Assign each component to a part.

    Large components come first and go where most room is left; the others come in random order
    and go to a part at random, in proportion to the room that is left. Deterministic in
    (labels, shares, seed).

    Args:
        labels: Number of the component of each row, [R].
        shares: Of each part, in (0, 1); their sum is 1.
        seed: Of the order and the choice.

    Raises:
        ValueError: If a part gets no row.
    """
    sizes = np.bincount(labels)  # [C]
    wanted = [share * len(labels) for share in shares]
    room = list(wanted)
    rng = random.Random(seed)
    order = list(range(len(sizes)))
    rng.shuffle(order)
    large = _LARGE * len(labels)
    order.sort(key=lambda component: -sizes[component] if sizes[component] > large else 0)
    part_of_component = np.empty(len(sizes), dtype=np.int64)
    for component in order:
        size = int(sizes[component])
        fitting = [left if left >= size else 0.0 for left in room]
        if size > large or not any(fitting):
            part = room.index(max(room))
        else:
            (part,) = rng.choices(range(len(room)), fitting)
        part_of_component[component] = part
        room[part] -= size
    part_of = part_of_component[labels]
    filled = np.bincount(part_of, minlength=len(shares)).tolist()
    if 0 in filled:
        raise ValueError(_empty_part(len(labels), sizes, shares[filled.index(0)]))
    return Split(part_of, filled, wanted, len(sizes), int(sizes.max()))


def _empty_part(rows: int, sizes: NDArray[np.int64], share: float) -> str:
    largest = int(sizes.max())
    found = f"the part of {share:g} gets none of the {rows} rows"
    if largest <= max(1, share * rows):
        return f"{found}; give it a larger share, or give more rows"
    return (
        f"{found}: they form {len(sizes)} components, the largest of {largest} rows "
        f"({largest / rows:.0%}), and a component is never split; link fewer rows "
        "(--by positive, --by query), or set --near_duplicates higher or to 0"
    )
