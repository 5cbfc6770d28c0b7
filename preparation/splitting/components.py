"""Group rows into connected components: linked by equal or nearly equal texts."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from loaders.shapes.conversions import judged_documents
from loaders.shapes.rows import Row
from preparation.duplicates.near_duplicates import similar_pairs
from preparation.duplicates.normalized import normalized_hash

# Letters: R rows, T places of texts in rows, U different texts.

By = Literal["query", "positive", "document"]

# Near-duplicates are looked for in the beginnings of long texts: it bounds memory, and whole
# copies, cut or extended ones too, begin alike.
NEAR_CHARACTERS = 2000


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
