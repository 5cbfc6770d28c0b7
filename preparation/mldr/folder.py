"""Write MLDR rows and corpus as an evaluation set in the BEIR layout."""

from pathlib import Path
from types import TracebackType
from typing import Self

from common.hashing import text_hash
from preparation.beir.folder import BeirFolder
from preparation.mldr.rows import Document, MldrRow, Shortening


class MldrFolder:
    """Writer of MLDR as BEIR: each document and query once, positives judged 1, negatives 0.

    With passages, the corpus holds passages, and those of a positive document that are its
    positives in training are judged 1; its others are not judged.

    Args:
        folder: Where to.
        shortening: Of the documents.

    Raises:
        ValueError: Where one id stands for two texts, or a query is judged twice in a split.
    """

    def __init__(self, folder: Path, shortening: Shortening) -> None:
        self.written = BeirFolder(folder)
        self.shortening = shortening
        # An id, and a hash in place of the text.
        self.documents: dict[str, int] = {}
        self.queries: dict[str, int] = {}
        self.judged: dict[str, set[str]] = {}

    def __enter__(self) -> Self:
        self.written.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.written.__exit__(kind, error, traceback)

    def add_document(self, document: Document) -> bool:
        """Add a document, unless it is there; return whether it was new."""
        if not _is_new(self.documents, "document", document.id, document.text):
            return False
        for piece in self.shortening.pieces(document):
            self.written.add_document(piece.id, piece.text)
        return True

    def add_row(self, split: str, row: MldrRow, shortened: MldrRow) -> int:
        """Add a query with its judgements; return how many of its documents were new.

        Args:
            split: What it is judged in.
            row: Names the whole documents.
            shortened: Names what is judged of them.
        """
        if row.id in self.judged.setdefault(split, set()):
            raise ValueError(f"the query_id {row.id} stands in {split} twice; give each its own id")
        self.judged[split].add(row.id)
        if _is_new(self.queries, "query", row.id, row.query):
            self.written.add_query(row.id, row.query)
        new = sum([self.add_document(each) for each in row.positives + row.negatives])
        for grade, pieces in ((1, shortened.positives), (0, shortened.negatives)):
            for piece_id in dict.fromkeys(piece.id for piece in pieces):
                self.written.judge(split, row.id, piece_id, grade)
        return new


def _is_new(known: dict[str, int], kind: str, identifier: str, text: str) -> bool:
    digest = text_hash(text)
    if identifier not in known:
        known[identifier] = digest
        return True
    if known[identifier] != digest:
        raise ValueError(f"the {kind} {identifier} has two different texts; give each its own id")
    return False
