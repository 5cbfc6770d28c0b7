"""The distinct queries of a run, each with all its known positives."""

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from common.text_digest import KeyTable, pair_keys
from mining.data.corpus import Corpus
from preparation.duplicates.normalized import normalized_hash

# Letters: R rows, Q different queries, T documents of all rows.

_SLICE = 1000


class RaggedLists:
    """Lists of numbers of different lengths, one for each owner, in flat arrays.

    Args:
        owners: The owner of each number [T].
        numbers: [T].
        count: How many owners there are.
    """

    def __init__(self, owners: NDArray[np.int64], numbers: NDArray[np.int64], count: int) -> None:
        self.numbers = numbers[np.argsort(owners, kind="stable")]
        self.ends = np.cumsum(np.bincount(owners, minlength=count))

    def __getitem__(self, owner: int) -> list[int]:
        """Return the numbers of an owner, in order."""
        start = self.ends[owner - 1] if owner else 0
        found: list[int] = self.numbers[start : self.ends[owner]].tolist()
        return found


class Queries:
    """The distinct queries of rows, in order of first appearance.

    Queries differ by text or by prompt. What answers a query is known from all rows that ask the
    same, in whatever case, width and punctuation. In memory are only numbers.

    Args:
        rows: Of the shape ``candidate_group``.
        corpus: Holds all positives of the rows.
        keep: Whether the negatives that rows have are kept.

    Attributes:
        query_of: The query of each row [R].
        first_row: The first row of each query [Q].
        rows_of: The rows of each query.
        kept: The indices of the negatives that each query keeps.
    """

    def __init__(self, rows: Dataset, corpus: Corpus, keep: bool) -> None:
        self.rows = rows
        self.keep = keep
        keys, same, positives, kept = [], [], [], []
        for batch in rows.iter(batch_size=_SLICE):
            with_prompts = list(zip(map(_marked, batch["prompt"]), batch["query"], strict=True))
            keys.append(pair_keys(with_prompts))
            same += [normalized_hash(query) for query in batch["query"]]
            positives.append(_places(corpus, batch["pos"]))
            kept.append(_places(corpus, batch["neg"] if keep else [[]] * len(batch["neg"])))
        joined = np.concatenate(keys)
        self.first_row, self.query_of = np.unique(
            KeyTable(joined).find(joined), return_inverse=True
        )
        _, meaning = np.unique(np.array(same, dtype=np.uint64), return_inverse=True)  # [R]
        self.meaning = meaning[self.first_row]  # [Q]: equal for queries that ask the same
        self.rows_of = RaggedLists(self.query_of, np.arange(len(rows)), len(self))
        self.answers = _lists(meaning, positives)
        self.kept = _lists(self.query_of, kept)

    def __len__(self) -> int:
        return len(self.first_row)

    def positives(self, query: int) -> list[int]:
        """Return the indices of a query's positives, over all rows with that query."""
        return self.answers[int(self.meaning[query])]

    def kept_texts(self, query: int) -> list[str]:
        """Return the kept negatives as texts, those missing from the corpus too."""
        if not self.keep:
            return []
        lists = self.rows[self.rows_of[query]]["neg"]
        return list(dict.fromkeys(text for texts in lists for text in texts))

    def texts(self, start: int, stop: int) -> list[str]:
        """Return the queries ``start:stop``."""
        return [query for query, _ in self.with_prompts(start, stop)]

    def with_prompts(self, start: int, stop: int) -> list[tuple[str, str | None]]:
        """Return (query, own prompt or None) of the queries ``start:stop``."""
        columns = self.rows[self.first_row[start:stop].tolist()]
        return list(zip(columns["query"], columns["prompt"], strict=True))


def _marked(prompt: str | None) -> str:
    """Encode a prompt so that a missing one differs from an empty one."""
    return "-" if prompt is None else f"+{prompt}"


def _places(corpus: Corpus, lists: list[list[str]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of documents of each row, and their indices."""
    texts = [text for each in lists for text in each]
    return np.array([len(each) for each in lists], dtype=np.int64), corpus.find(texts)


def _lists(
    owner_of: NDArray[np.int64], found: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> RaggedLists:
    """Return each owner's distinct indices in rising order, without those not in the corpus."""
    counts = np.concatenate([each for each, _ in found])
    places = np.concatenate([each for _, each in found])
    pairs = np.stack([np.repeat(owner_of, counts), places], axis=1)[places >= 0]
    owners, numbers = np.unique(pairs, axis=0).T
    return RaggedLists(owners, numbers, int(owner_of.max()) + 1)
