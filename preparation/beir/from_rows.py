"""Write training rows as an evaluation set in the BEIR layout."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from common.hashing import text_hash
from loaders.parsing.fields import show
from loaders.parsing.row_stream import LocatedRow
from loaders.shapes.conversions import judged_documents
from preparation.beir.folder import BeirFolder

_MOST_GRADES = 100


def whole_grades(relevances: Counter[float]) -> int:
    """Find the smallest number of grades that represents all relevances without rounding.

    >>> whole_grades(Counter([0.5, 0.75]))
    4

    Raises:
        ValueError: If there is none up to 100.
    """
    for grades in range(1, _MOST_GRADES + 1):
        if not rounded(relevances, grades):
            return grades
    some = ", ".join(f"{relevance:g}" for relevance in list(relevances)[:3])
    raise ValueError(
        f"a judgement is a whole grade, and the relevances ({some}, ...) are no multiples of one "
        "number; give --grades 4 to have them rounded to quarters"
    )


def rounded(relevances: Counter[float], grades: int) -> int:
    """Count the relevances that are no whole multiple of 1 / ``grades``."""
    return sum(
        count
        for relevance, count in relevances.items()
        if abs(relevance * grades - round(relevance * grades)) > 1e-6
    )


Read = Callable[[], Iterable[LocatedRow]]


def write_beir(read: Read, folder: Path, split: str, grades: int) -> tuple[BeirFolder, int]:
    """Write rows as a BEIR folder.

    Each different query and document text gets an id, ``q1`` and ``d1`` and so on, in the order
    in which they appear. A relevance is judged ``round(relevance * grades)``; a document that is
    judged for a query more than once stands there once.

    Returns:
        What was written, and how many judgements were repetitions.

    Raises:
        ValueError: If one document has two grades for one query.
    """
    queries: dict[int, int] = {}  # the hash of a text -> its number
    documents: dict[int, int] = {}
    judged = (array("q"), array("q"), array("q"))  # query, document, grade
    with BeirFolder(folder) as written:
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
            raise ValueError(_two_grades(read, queries, unique[:-1][same]))
        for number, document, grade in unique.tolist():
            written.judge(split, f"q{number}", f"d{document}", grade)
    return written, len(columns[0]) - len(unique)


def _two_grades(read: Read, queries: dict[int, int], found: np.ndarray) -> str:
    wanted = int(found[0, 0])
    first = next(each for each in read() if queries[text_hash(each.row.query)] == wanted)
    return (
        f"{len(found)} documents have two grades for one query, the first for "
        f"{show(first.row.query)} ({first.file}:{first.record.line}); repair them: "
        "prepare_data.py validate shows where they are"
    )
