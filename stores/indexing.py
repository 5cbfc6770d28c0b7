"""Synchronize a table with a corpus: embed what is new or changed, delete what is gone."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray

from common.text_digest import KeyTable, text_keys
from evaluation.search.exact import check_finite
from stores.embedding import TextEmbedder
from stores.store import Document, Table

# Shapes: N documents.

T = TypeVar("T")
OnProgress = Callable[[int], None]  # is called with the number of documents just done
TEXT_DIGEST = 32  # characters of a document's digest


def synchronize(
    table: Table | None,
    documents: Iterable[Document],
    embedder: TextEmbedder,
    block: int,
    on_progress: OnProgress,
) -> Counter[str]:
    """Embed and write the documents that a table lacks, or has with another text or metadata.

    Collective: all processes of a run read the documents; the main one alone has the table.

    Returns:
        How many were "unchanged", "embedded", or had other metadata only ("updated"); and how many
        of these took the place of another source's.
    """
    counts: Counter[str] = Counter()
    for chunk in chunks(documents, block):
        missing, changed, taken = broadcast(lambda chunk=chunk: _changes(table, chunk))  # type: ignore[misc]
        vectors = embedder.documents([chunk[at].text for at in missing])
        lengths = torch.tensor([float(torch.from_numpy(each).norm()) for each in vectors])
        check_finite(lengths[:, None], [chunk[at].id for at in missing], "document")
        if table is not None:
            new = [chunk[at] for at in missing]
            if new:
                table.upsert(new, vectors)
            same = [chunk[at] for at in changed]
            there = table.vectors([each.id for each in same])
            digests = table.digests(list(there))
            # One may have been deleted in between, or got another text, and with it a vector.
            same = [each for each in same if is_of_text(each, digests.get(each.id))]
            if same:
                table.upsert(same, [there[each.id] for each in same])
        counts["embedded"] += len(missing)
        counts["updated"] += len(changed)
        counts["unchanged"] += len(chunk) - len(missing) - len(changed)
        if taken:
            counts["taken over from other sources"] += taken
        on_progress(len(chunk))
    return counts


def _changes(table: Table | None, chunk: Sequence[Document]) -> tuple[list[int], list[int], int]:
    """The places of documents to embed, and of those of which only the metadata differ.

    Also how many of both are another source's.
    """
    assert table is not None
    known = table.digests([each.id for each in chunk])
    missing, changed = [], []
    for at, each in enumerate(chunk):
        there = known.get(each.id)
        if not is_of_text(each, there):
            missing.append(at)
        elif there != each.digest:
            changed.append(at)
    stale = {chunk[at].id: chunk[at] for at in (*missing, *changed) if chunk[at].id in known}
    old = table.documents(list(stale)) if stale else {}
    return missing, changed, sum(stale[each].source != of.source for each, of in old.items())


def is_of_text(document: Document, digest: str | None) -> bool:
    """Whether a digest is there, and that of a document with the same text."""
    return digest is not None and digest[:TEXT_DIGEST] == document.digest[:TEXT_DIGEST]


def delete_gone(
    table: Table, keys: NDArray[np.uint64], is_own: Callable[[str], bool], block: int
) -> int:
    """Delete the documents of some sources that are not among those with the given keys [N, 2].

    Returns:
        How many; what others wrote anew in the meantime is left.
    """
    kept, gone = KeyTable(keys), list[tuple[str, str]]()
    for chunk in table.ids(block):
        own = [(identity, digest) for identity, source, digest in chunk if is_own(source)]
        places = kept.find(text_keys([identity for identity, _ in own]))
        gone += [each for each, place in zip(own, places, strict=True) if place < 0]
    spared = 0
    for start in range(0, len(gone), block):
        ids, digests = zip(*gone[start : start + block], strict=True)
        table.delete(ids, digests)
        spared += len(table.digests(ids))
    return len(gone) - spared


def move_others(
    old: Table | None,
    new: Table | None,
    keys: NDArray[np.uint64],
    source: str | None,
    embedder: TextEmbedder,
    block: int,
) -> Counter[str]:
    """Copy the documents of all sources but one from an older table into a new one.

    Collective: the main process has the tables.

    Args:
        old: What is read; None: nothing.
        new: What is written; of other sources it has nothing else afterwards.
        keys: Of documents that stay as they are [N, 2].
        source: Whose documents are left; None: all are given.
        embedder: Embeds them.
        block: Documents at once.
    """
    stay, found = KeyTable(keys), list[NDArray[np.uint64]]()

    def read() -> Iterator[Document]:
        for chunk in [] if old is None else old.ids(block):
            ids = [identity for identity, of, _ in chunk if of != source]
            others = [ids[at] for at in np.flatnonzero(stay.find(text_keys(ids)) < 0)]
            # One may have been deleted since it was listed.
            there = old.documents(others) if old and others else {}
            found.append(text_keys(list(there)))
            yield from there.values()

    def everywhere() -> Iterator[Document]:
        blocks = chunks(read(), block)
        while chunk := broadcast(lambda: next(blocks, [])):
            yield from chunk

    counts = synchronize(new, everywhere(), embedder, block, lambda _: None)
    if old is not None and new is not None:
        there = np.concatenate([*found, keys[: 0 if source is not None else None]])
        counts["deleted"] = delete_gone(new, there, lambda of: of != source, block)
    return counts


def broadcast(compute: Callable[[], T]) -> T:
    """Compute in the main process, and return the result in all processes."""
    state = PartialState()
    if state.num_processes == 1:
        return compute()
    box: list[Any] = [compute() if state.is_main_process else None]
    broadcast_object_list(box)
    found: T = box[0]
    return found


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to ``size`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
