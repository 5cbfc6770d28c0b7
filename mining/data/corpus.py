"""The corpus on disk: each distinct text once, in a fixed order."""

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Value
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from common.hashing import text_hash
from loaders.shapes.arrow import ArrowFile
from mining.cache.text_digest import KeyTable, text_keys

# Letters: N texts as they were added, D different texts.

TEXTS, ARRAYS, STAGED = "texts.arrow", "arrays.npz", "staged.arrow"
_SLICE = 1000


class Corpus:
    """Documents by their place, from 0 to D - 1.

    Args:
        folder: What a ``CorpusBuilder`` has written.

    Attributes:
        searchable: How many of them, the first ones, may become negatives. The others are
            positives that are not part of the corpus.
        digest: Of all texts, their order and their ids.
    """

    def __init__(self, folder: Path) -> None:
        self.rows = Dataset.from_file(str(folder / TEXTS))
        with np.load(folder / ARRAYS) as arrays:
            keys = arrays["keys"]
            self.document = arrays["document"]
            self.searchable = int(arrays["searchable"])
        self.table = KeyTable(keys)
        digest = hashlib.blake2b(keys.tobytes(), digest_size=16)
        digest.update(self.document.tobytes() + str(self.searchable).encode())
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> list[str]:
        """Return the texts ``start:stop``."""
        return list(self.rows[start:stop]["text"])

    def at(self, places: Sequence[int]) -> list[str]:
        """Return the texts at some indices."""
        return list(self.rows[list(places)]["text"])

    def find(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the indices of texts, -1 for those that are not in the corpus."""
        return self.table.find(text_keys(texts))

    def document_of(self, place: int) -> int:
        """Return the document number of a text: texts with one id share it."""
        return int(self.document[place]) if len(self.document) else place


class CorpusBuilder:
    """Builder of a corpus, with some 60 bytes of memory for each document.

    Args:
        folder: An empty folder, which ``Corpus`` opens in the end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = array("Q")  # two for each text
        self.ids = array("Q")  # 0: none
        self.searchable: int | None = None
        self.staged = ArrowFile(folder / STAGED, _SCHEMA)

    def add(self, text: str, identifier: str | None = None) -> None:
        """Add a document. A repeated text is stored once, with all its ids."""
        self.staged.write({"text": text})
        self.keys.frombytes(text_keys([text]).tobytes())
        self.ids.append(0 if identifier is None else text_hash(identifier) or 1)

    def close_search(self) -> None:
        """Exclude from the search what is added from now on, unless it is there already."""
        self.searchable = len(self.ids)

    def finish(self) -> int:
        """Write the corpus; return how many added texts were repeats."""
        self.staged.__exit__(None, None, None)
        keys = np.frombuffer(self.keys, dtype=np.uint64).reshape(-1, 2)  # [N, 2]
        first = KeyTable(keys).find(keys)  # [N]: where each text stands for the first time
        kept = np.flatnonzero(first == np.arange(len(first)))  # [D]
        number = np.searchsorted(kept, first)  # [N]: its place in the corpus
        end = len(first) if self.searchable is None else self.searchable
        ids = np.frombuffer(self.ids, dtype=np.uint64)
        np.savez(
            self.folder / ARRAYS,
            keys=keys[kept],
            document=_documents(number, ids, len(kept)),
            searchable=int(np.searchsorted(kept, end)),
        )
        self._write(kept)
        return len(first) - len(kept)

    def _write(self, kept: NDArray[np.int64]) -> None:
        staged = self.folder / STAGED
        rows = Dataset.from_file(str(staged))
        if len(kept) == len(rows):
            staged.rename(self.folder / TEXTS)
            return
        with ArrowFile(self.folder / TEXTS, _SCHEMA) as file:
            for start in range(0, len(kept), _SLICE):
                for text in rows[kept[start : start + _SLICE].tolist()]["text"]:
                    file.write({"text": text})
        staged.unlink()


_SCHEMA = Features(text=Value("string")).arrow_schema


def _documents(number: NDArray[np.int64], ids: NDArray[np.uint64], size: int) -> NDArray[np.int32]:
    """A number for each of D texts; those linked by an id have the same. Empty without ids.

    Args:
        number: Place of each text as it was added [N].
        ids: Its id [N], 0 for none.
        size: D.
    """
    named = np.flatnonzero(ids)
    if not len(named):
        return np.empty(0, dtype=np.int32)
    different, id_number = np.unique(ids[named], return_inverse=True)
    ends = (number[named], id_number + size)
    total = size + len(different)
    graph = coo_matrix((np.ones(len(named), dtype=np.int8), ends), shape=(total, total))
    _, labels = connected_components(graph.tocsr(), directed=False)
    linked: NDArray[np.int32] = labels[:size].astype(np.int32)
    return linked
