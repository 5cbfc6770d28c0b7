"""Write an evaluation set in the BEIR layout."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from loaders.formats.row_file import as_json, open_output, whole_file

QRELS_HEADER = "query-id\tcorpus-id\tscore"


class BeirFolder:
    """Writer of ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``: all of them or none.

    Ids must be given once each; whoever writes sees to that.

    Args:
        folder: Where to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exits = ExitStack()
        self.documents = self.queries = self.judgements = 0
        self.qrels: dict[str, IO[str]] = {}

    def __enter__(self) -> Self:
        self.corpus_file = self._open("corpus.jsonl")
        self.queries_file = self._open("queries.jsonl")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.exits.__exit__(kind, error, traceback)

    def add_document(self, document_id: str, text: str) -> None:
        """Add a document, with an empty title: training rows have titles as part of their texts."""
        record = {"_id": document_id, "title": "", "text": text}
        self.corpus_file.write(as_json(record) + "\n")
        self.documents += 1

    def add_query(self, query_id: str, text: str) -> None:
        """Add a query."""
        self.queries_file.write(as_json({"_id": query_id, "text": text}) + "\n")
        self.queries += 1

    def judge(self, split: str, query_id: str, document_id: str, grade: int) -> None:
        """Add a relevance judgement to a split."""
        if split not in self.qrels:
            self.qrels[split] = self._open(f"qrels/{split}.tsv")
            self.qrels[split].write(QRELS_HEADER + "\n")
        self.qrels[split].write(f"{query_id}\t{document_id}\t{grade}\n")
        self.judgements += 1

    def _open(self, name: str) -> IO[str]:
        beside = self.exits.enter_context(whole_file(self.folder / name))
        return self.exits.enter_context(open_output(beside))
