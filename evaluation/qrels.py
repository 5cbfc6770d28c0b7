"""Read who answers whom: the judgements of an evaluation set."""

import logging
import math
from collections import Counter
from collections.abc import Container
from pathlib import Path

from evaluation.lines import read_lines
from evaluation.mistakes import Mistakes, listed

logger = logging.getLogger(__name__)

Qrels = dict[str, dict[str, float]]

HEADER = {"score", "relevance", "rel", "label"}  # the last cell of a first line that is a header


def read_qrels(path: Path, mistakes: Mistakes) -> Qrels:
    """Read ``query-id \\t corpus-id \\t score`` lines, or the four columns of TREC.

    The first kind may have a header. TREC's are ``query-id iteration document-id relevance``, with
    any space between. Relevances may be fractions.
    """
    qrels: Qrels = {}
    for at, (where, line) in enumerate(read_lines(path, mistakes)):
        cells = line.split("\t")
        if len(cells) != 3:
            cells = line.split()
            if len(cells) != 4:
                mistakes.add_line(
                    f"{where}: expected query-id, corpus-id and score with tabs between, or the "
                    f"four columns of TREC qrels, got {line!r}"
                )
                continue
            del cells[1]
        query, document, score = cells
        if at == 0 and score.strip().casefold() in HEADER:
            continue
        relevance = _number(score)
        if math.isfinite(relevance):
            known = qrels.setdefault(query, {}).setdefault(document, relevance)
            if known != relevance:
                mistakes.add_line(
                    f"{where}: query {query!r} and document {document!r} are judged twice, "
                    f"{known:g} and {relevance:g}; keep one"
                )
        else:
            mistakes.add_line(f"{where}: the score must be a number, got {score!r}")
    return qrels


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


class Unknown:
    """Judgements that name a query or document that does not exist.

    Args:
        qrels: All judgements.
        queries: The ids there are; None: not known, for their file could not be read.
        documents: The same.
    """

    def __init__(
        self, qrels: Qrels, queries: Container[str] | None, documents: Container[str] | None
    ) -> None:
        self.queries: Counter[str] = Counter()
        self.documents: Counter[str] = Counter()
        self.rest: Qrels = {}  # the judgements without them
        for query, judged in qrels.items():
            if queries is not None and query not in queries:
                self.queries[query] = len(judged)
                continue
            for document, relevance in judged.items():
                if documents is not None and document not in documents:
                    self.documents[document] += 1
                else:
                    self.rest.setdefault(query, {})[document] = relevance

    def sentences(self, path: Path) -> list[str]:
        """What is to be said about them."""
        return [
            f"{path}: {counts.total()} judgements name {len(counts)} {kind} that {file} does not "
            f"have: {listed(counts)}"
            for kind, file, counts in (
                ("queries", "queries.jsonl", self.queries),
                ("documents", "corpus.jsonl", self.documents),
            )
            if counts
        ]
