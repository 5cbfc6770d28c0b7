"""Read relevance judgements (qrels)."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loaders.beir.problems import Problems
from loaders.beir.texts import as_id
from loaders.formats.opening import open_text, read_errors
from loaders.formats.records import read_file
from loaders.parsing.fields import LARGEST, RowError, show

Qrels = dict[str, dict[str, float]]  # query id -> document id -> relevance

# Words of a header, lower-cased, letters only.
WORDS = {
    "query": {"query", "queryid", "qid", "topic", "topicid", "topicno", "question", "questionid"},
    "document": {"corpus", "corpusid", "doc", "docid", "docno", "did", "document", "documentid",
                 "pid", "passage", "passageid", "paragraphid"},
    "relevance": {"score", "rel", "relevance", "relevancy", "relevancescore", "relevancelabel",
                  "label", "grade", "rating", "judgement", "judgment", "gain"},
}  # fmt: skip
RECORDS = (".jsonl", ".jsonl.gz", ".parquet")  # every row has field names


class QrelsColumns(NamedTuple):
    """Where a row has its query, document and relevance: cell numbers, or names.

    Attributes:
        relevance: None: there is no such column, and all listed documents are relevant.
        width: The most cells a row may have.
    """

    query: Any
    document: Any
    relevance: Any
    width: int

    def fit(self, cells: Any) -> bool:
        """Whether a row has these columns."""
        if isinstance(cells, dict):
            return True
        last: int = max(self.query, self.document, self.relevance or 0)
        return last < len(cells) <= self.width


PLAIN, TREC = QrelsColumns(0, 1, 2, 3), QrelsColumns(0, 2, 3, 4)
# Line, cells (or what is wrong), and the columns of the header, if there is one.
QrelsRow = tuple[int, Any, QrelsColumns | None]


def read_qrels(files: Sequence[Path], problems: Problems) -> Qrels:
    """Read judgements: the three columns of BEIR or the four of TREC, with or without a header.

    Columns are separated by tabs or, in a line without tabs, by white space. A header tells which
    column is which; JSON Lines and Parquet use the same names for fields. Relevances may be
    fractions; one below 0 means judged and not relevant.

    Args:
        files: Of one split, perhaps packed (``.gz``).
        problems: Collects the problems.
    """
    qrels: Qrels = {}
    before = len(problems)
    for path in files:
        rows = _records(path) if path.name.endswith(RECORDS) else _table(path)
        try:
            for number, cells, columns in rows:
                try:
                    _add(qrels, cells, columns)
                except RowError as error:
                    problems.add_line(f"{path}:{number}: {error}")
        except RowError as error:  # of the header
            problems.add(f"{path}: {error}")
        except ValueError as error:
            problems.add(str(error))
    if not qrels and len(problems) == before:
        problems.add(f"{files[0]} has no judgements")
    return qrels


def _add(qrels: Qrels, cells: Any, columns: QrelsColumns | None) -> None:
    if isinstance(cells, str):
        raise RowError(cells)
    if columns is None:
        columns = {3: PLAIN, 4: TREC}.get(len(cells))
    if columns is None or not columns.fit(cells):
        raise RowError(
            "expected query-id, corpus-id and score with tabs between, or the four columns of TREC "
            f"qrels, got {show(cells)}"
        )
    query = as_id(cells[columns.query], "query-id")
    document = as_id(cells[columns.document], "corpus-id")
    cell = 1 if columns.relevance is None else cells[columns.relevance]
    relevance = _number(cell)
    if not abs(relevance) <= LARGEST:
        raise RowError(f"the score must be a number up to {LARGEST:g}, got {show(cell)}")
    known = qrels.setdefault(query, {}).setdefault(document, relevance)
    if known != relevance:
        raise RowError(
            f"query {query!r} and document {document!r} are judged twice, {known:g} and "
            f"{relevance:g}; keep one"
        )


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _table(path: Path) -> Iterator[QrelsRow]:
    header, is_first = None, True
    with read_errors(path), open_text(path, newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            cells = [cell.strip() for cell in line.rstrip().split("\t")]
            if len(cells) < 3:
                cells = line.split()
            if is_first and math.isnan(_number(cells[-1])):
                header = _header(cells, range(len(cells)))
            if header is None or not is_first:
                yield number, cells, header
            is_first = False


def _records(path: Path) -> Iterator[QrelsRow]:
    stated = None  # whether the file states relevances
    for record in read_file(path):
        fields, columns, problem = record.fields, None, record.problem
        if problem is None and isinstance(fields, dict):
            columns = _header(list(fields), list(fields))
        if columns is not None:
            states = columns.relevance is not None
            stated = states if stated is None else stated
            if states != stated:
                problem = f"{show(fields)} has {'a' if states else 'no'} score, unlike those before"
        elif problem is None:
            problem = f"expected the fields query-id, corpus-id and score, got {show(fields)}"
        yield record.line, problem or fields, columns


def _header(names: Sequence[str], places: Sequence[Any]) -> QrelsColumns | None:
    """The columns that a header names; None if it is no header."""
    words = [re.sub("[^a-z]", "", name.casefold()) for name in names]
    found = {
        role: next((p for p, word in zip(places, words, strict=True) if word in known), None)
        for role, known in WORDS.items()
    }
    columns = QrelsColumns(**found, width=len(names))
    if columns.query is not None and columns.document is not None:
        others = [place for place in places if place not in found.values()]
        if columns.relevance is None and len(others) == 1:
            return columns._replace(relevance=others[0])
        if columns.relevance is None and others:
            raise RowError(
                f"no column of {show(list(names))} is known to be the relevance; name it score"
            )
        return columns
    # With an unknown name among them, the order decides, if the last one names a relevance.
    by_place = {3: PLAIN, 4: TREC}.get(len(names))
    if by_place is None or not isinstance(places, range):
        return None
    return by_place if columns.relevance == places[-1] else None
