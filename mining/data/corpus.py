"""The corpus on disk: each distinct text once, in a fixed order."""

import hashlib
import shutil
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from accelerate import PartialState
from datasets import Dataset, Features, Value
from numpy.typing import NDArray

from common.hashing import text_hash
from common.text_digest import KeyTable, text_keys
from loaders.shapes.arrow import ArrowFile
from mining.data.documents import Document

# Letters: N texts as they were added, D different texts.

TEXTS, ARRAYS, STAGED = "texts.arrow", "arrays.npz", "staged.arrow"
_SCHEMA = Features(text=Value("string")).arrow_schema
_SLICE = 1000


class Corpus:
    """Documents by their place, from 0 to D - 1.

    Args:
        folder: Where ``build_corpus`` has written it.

    Attributes:
        searchable: How many of them, the first ones, may become negatives. The others are
            positives that are not part of the corpus.
        empty: How many documents had no text and were left out.
        digest: Of all texts, their order and their ids.

    Raises:
        ValueError: It is not there.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(
                f"{folder}, which the first process has written, is not here; give a cache_dir "
                "that all machines share"
            )
        self.rows = Dataset.from_file(str(folder / TEXTS))
        with np.load(folder / ARRAYS) as arrays:
            keys = arrays["keys"]
            self.ids, self.ends = arrays["ids"], arrays["ends"]
            self.searchable, self.empty = int(arrays["searchable"]), int(arrays["empty"])
        self.table = KeyTable(keys)
        digest = hashlib.blake2b(keys.tobytes(), digest_size=16)
        digest.update(self.ids.tobytes() + self.ends.tobytes() + str(self.searchable).encode())
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

    def ids_of(self, place: int) -> set[int]:
        """Return the numbers of a text's ids: one, or several where the text is repeated."""
        start = self.ends[place - 1] if place else 0
        return set(self.ids[start : self.ends[place]].tolist())


def build_corpus(
    folder: Path, documents: Iterable[Document], positives: Iterable[Document]
) -> Corpus:
    """Build the corpus of a run in its main process; collective: all processes call it.

    Args:
        folder: Where to; what is there from before a kill is used.
        documents: May become negatives.
        positives: Documents that must be known beside them, and are not searched.

    Raises:
        ValueError: There is no document.
    """
    state = PartialState()
    if state.is_main_process and not folder.exists():
        beside = folder.with_name(f"{folder.name}.building")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        _write(beside, documents, positives)
        beside.rename(folder)
    state.wait_for_everyone()
    return Corpus(folder)


def _write(folder: Path, documents: Iterable[Document], positives: Iterable[Document]) -> None:
    """Write a corpus, with some 60 bytes of memory for each document.

    A repeated text is stored once, with all its ids.
    """
    keys = array("Q")  # two for each text
    ids = array("Q")  # 0: none
    empty = 0
    with ArrowFile(folder / STAGED, _SCHEMA) as staged:

        def add(document: Document) -> None:
            staged.write({"text": document.text})
            keys.frombytes(text_keys([document.text]).tobytes())
            ids.append(0 if document.id is None else text_hash(document.id) or 1)

        for document in documents:
            if document.text:
                add(document)
            else:
                empty += 1
        searched = len(ids)
        if not searched:
            raise ValueError("the corpus has no document with a text")
        for document in positives:
            add(document)
    all_keys = np.frombuffer(keys, dtype=np.uint64).reshape(-1, 2)  # [N, 2]
    first = KeyTable(all_keys).find(all_keys)  # [N]: where each text stands for the first time
    kept = np.flatnonzero(first == np.arange(len(first)))  # [D]
    number = np.searchsorted(kept, first)  # [N]: its place in the corpus
    id_numbers, ends = _ids(number, np.frombuffer(ids, dtype=np.uint64), len(kept))
    np.savez(
        folder / ARRAYS,
        keys=all_keys[kept],
        ids=id_numbers,
        ends=ends,
        searchable=np.searchsorted(kept, searched),
        empty=empty,
    )
    if len(kept) == len(first):
        (folder / STAGED).rename(folder / TEXTS)
        return
    rows = Dataset.from_file(str(folder / STAGED))
    with ArrowFile(folder / TEXTS, _SCHEMA) as file:
        for start in range(0, len(kept), _SLICE):
            for text in rows[kept[start : start + _SLICE].tolist()]["text"]:
                file.write({"text": text})
    (folder / STAGED).unlink()


def _ids(
    number: NDArray[np.int64], ids: NDArray[np.uint64], size: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The numbers of the different ids of each of D texts, one text after the other, and [D] ends.

    Args:
        number: Place of each text as it was added [N].
        ids: Its id [N], 0 for none.
        size: D.
    """
    named = np.flatnonzero(ids)
    different, id_number = np.unique(ids[named], return_inverse=True)
    # Place and id in one number, so that repeated pairs are found by a plain sort.
    pairs = np.unique(number[named] * max(len(different), 1) + id_number)
    places, numbers = np.divmod(pairs, max(len(different), 1))
    return numbers.astype(np.int32), np.cumsum(np.bincount(places, minlength=size))
