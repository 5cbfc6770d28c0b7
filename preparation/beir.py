"""Write evaluation sets in the BEIR layout, and turn them into training groups."""

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from common.hashing import text_hash
from loaders.beir.files import qrels_files
from loaders.formats.row_file import RowFile
from loaders.parsing.fields import show
from loaders.parsing.row_stream import LocatedRow
from loaders.shapes.conversions import judged_documents

_MOST_GRADES = 100


class BeirFolder(ExitStack):
    """Writer of ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``: all of them or none.

    Ids must be given once each; whoever writes sees to that.

    Raises:
        ValueError: Judgements of other than the ``splits`` are there: the new documents would get
            the ids of those that they judge.
    """

    def __init__(self, folder: Path, splits: Collection[str]) -> None:
        super().__init__()
        for split, files in qrels_files(folder).items():
            if split not in splits:
                raise ValueError(
                    f"{files[0]} judges documents that would be replaced; give another output_dir"
                )
        self.folder = folder
        self.qrels: dict[str, RowFile] = {}

    def __enter__(self) -> Self:
        self.corpus = self._open("corpus.jsonl", "_id", "title", "text")
        self.queries = self._open("queries.jsonl", "_id", "text")
        return super().__enter__()

    def add_document(self, document_id: str, text: str) -> None:
        """Add a document, with an empty title: training rows have titles as part of their texts."""
        self.corpus.write({"_id": document_id, "title": "", "text": text})

    def add_query(self, query_id: str, text: str) -> None:
        """Add a query."""
        self.queries.write({"_id": query_id, "text": text})

    def judge(self, split: str, query_id: str, document_id: str, grade: int) -> None:
        """Add a relevance judgement to a split."""
        if split not in self.qrels:
            name = f"qrels/{split}.tsv"
            self.qrels[split] = self._open(name, "query-id", "corpus-id", "score")
        record = {"query-id": query_id, "corpus-id": document_id, "score": grade}
        self.qrels[split].write(record)

    def summary(self) -> str:
        """What was written."""
        judgements = sum(file.rows for file in self.qrels.values())
        return (
            f"{self.folder}: {self.corpus.rows} documents, {self.queries.rows} queries, "
            f"{judgements} judgements"
        )

    def _open(self, name: str, *columns: str) -> RowFile:
        return self.enter_context(RowFile(self.folder / name, columns))


def group(
    query: str, judged: dict[str, float], texts: dict[str, str], threshold: float, highest: float
) -> dict[str, Any]:
    """Build the training group of a query.

    Args:
        query: Its text.
        judged: Document id -> grade.
        texts: Document id -> text.
        threshold: The least grade of a positive.
        highest: The highest grade of the set, by which grades are divided to give the scores, in
            [0, 1] (those below 0 count as 0); 0: without scores.
    """
    pos = {document: grade for document, grade in judged.items() if grade >= threshold}
    neg = {document: grade for document, grade in judged.items() if grade < threshold}
    sides = {"pos": pos, "neg": neg}
    record: dict[str, Any] = {"query": query}
    record |= {side: [texts[document] for document in found] for side, found in sides.items()}
    if highest:
        for side, found in sides.items():
            record[f"{side}_scores"] = [max(grade, 0.0) / highest for grade in found.values()]
    return record


def smallest_grade_count(relevances: Counter[float]) -> int:
    """Find the smallest number of grades that represents all relevances without rounding.

    >>> smallest_grade_count(Counter([0.5, 0.75]))
    4

    Raises:
        ValueError: If there is none up to 100.
    """
    for grades in range(1, _MOST_GRADES + 1):
        if not count_rounded(relevances, grades):
            return grades
    some = ", ".join(f"{relevance:g}" for relevance in list(relevances)[:3])
    raise ValueError(
        f"a judgement is a whole grade, and the relevances ({some}, ...) are not multiples of one "
        "number; give --grades 4 to have them rounded to quarters"
    )


def count_rounded(relevances: Counter[float], grades: int) -> int:
    """Count the relevances that are no whole multiple of 1 / ``grades``."""
    return sum(
        count
        for relevance, count in relevances.items()
        if abs(relevance * grades - round(relevance * grades)) > 1e-6
    )


def write_rows(
    read: Callable[[], Iterable[LocatedRow]], written: BeirFolder, split: str, grades: int
) -> int:
    """Write training rows to a BEIR folder; return how many judgements were repetitions.

    Each different query and document text gets an id, ``q1`` and ``d1`` and so on, in the order
    in which they appear. A relevance is judged ``round(relevance * grades)``; a document that is
    judged for a query more than once stands there once.

    Raises:
        ValueError: If one document has two grades for one query.
    """
    queries: dict[int, int] = {}  # the hash of a text -> its number
    documents: dict[int, int] = {}
    judged = (array("q"), array("q"), array("q"))  # query, document, grade
    for _, _, row in read():
        query = text_hash(row.query)
        if query not in queries:
            queries[query] = len(queries) + 1
            written.add_query(f"q{queries[query]}", row.query)
        for text, relevance in judged_documents(row):
            document = text_hash(text)
            if document not in documents:
                documents[document] = len(documents) + 1
                written.add_document(f"d{documents[document]}", text)
            triple = (queries[query], documents[document], round(relevance * grades))
            for column, number in zip(judged, triple, strict=True):
                column.append(number)
    columns = [np.frombuffer(column, dtype=np.int64) for column in judged]
    unique = np.unique(np.stack(columns, axis=1), axis=0)  # by query, document, grade
    same = (unique[1:, :2] == unique[:-1, :2]).all(axis=1)
    if same.any():
        twice = unique[:-1][same]
        first = next(each for each in read() if queries[text_hash(each.row.query)] == twice[0, 0])
        raise ValueError(
            f"{len(twice)} documents have two grades for one query, the first for "
            f"{show(first.row.query)} ({first.file}:{first.record.line}); repair them: "
            "prepare_data.py validate shows where they are"
        )
    for number, document, grade in unique.tolist():
        written.judge(split, f"q{number}", f"d{document}", grade)
    return len(columns[0]) - len(unique)
