"""Read and write TREC run files, which ``trec_eval`` and other tools of the field read."""

import math
from pathlib import Path

from evaluation.data.sets import RetrievalData
from evaluation.metrics.ranking import Run, order
from loaders.beir.problems import listed


def write_run(path: str | Path, run: Run, tag: str = "tandem") -> None:
    """Write a run: a line ``query-id Q0 document-id rank score tag`` for each document found.

    The lines of a query stand in the order that ``trec_eval`` gives them (see ``order``), with
    ranks from 1. Scores are written to the last bit.

    Raises:
        ValueError: An id or the tag is empty or has a space in it, which the format cannot hold,
            or a score is NaN.
    """
    _check_word("tag", tag)
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for query, scores in run.items():
            _check_word("query-id", query)
            for rank, document in enumerate(order(scores), start=1):
                _check_word("document-id", document)
                score = float(scores[document])
                file.write(f"{query} Q0 {document} {rank} {score!r} {tag}\n")


def ids_with_blanks(data: RetrievalData) -> str | None:
    """The reason why a set's ids cannot be written to a TREC file; None: they can."""
    wrong = [name for name in (*data.queries, *data.documents) if name.split() != [name]]
    if not wrong:
        return None
    return f"{len(wrong)} ids have a space in them, which no TREC file can hold: {listed(wrong)}"


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Read a run that ``write_run`` or another tool wrote; the order of its lines is kept.

    Raises:
        ValueError: The file is missing, empty or not UTF-8, or a line is malformed; file and
            line are named.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a run in TREC format")
    run: dict[str, dict[str, float]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                if line.strip():
                    _add(line.decode("utf-8-sig" if number == 1 else "utf-8"), run)
            except UnicodeDecodeError:
                raise ValueError(f"{path}:{number}: not UTF-8; convert the file first") from None
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
    if not run:
        raise ValueError(f"{path} is empty: there is no run in it")
    return run


def _add(line: str, run: dict[str, dict[str, float]]) -> None:
    cells = line.split()
    if len(cells) != 6:
        raise ValueError(
            f"expected query-id, Q0, document-id, rank, score and tag, got {line.strip()!r}"
        )
    query, _, document, _, text, _ = cells
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if math.isnan(score):
        raise ValueError(f"the score must be a number, got {text!r}")
    if document in run.setdefault(query, {}):
        raise ValueError(f"the document {document!r} is listed twice for the query {query!r}")
    run[query][document] = score


def _check_word(name: str, word: str) -> None:
    if word.split() != [word]:
        raise ValueError(
            f"{name}: {word!r} cannot be written to a TREC file; use one without spaces"
        )
