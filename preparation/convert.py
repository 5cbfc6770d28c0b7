"""Convert rows of any form to a file of another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from loaders.build import ROWS, Build
from loaders.formats.records import check_format
from loaders.formats.row_file import TABLES, RowFile
from loaders.parsing.row_stream import RowStream
from loaders.shapes.rows import CandidateGroup, ScoredPair, Shape
from preparation.survey import Survey, Target

# The shape in which rows are read for a form, and all columns that it may have, in order.
_FORMS: dict[Target, tuple[Shape, tuple[str, ...]]] = {
    "scored": ("scored_pair", ("query", "doc", "rel", "weight", "key", "prompt")),
    "tsv": ("scored_pair", ("query", "doc", "rel")),
    "pairs": ("positive_pair", ("query", "pos_doc", "negatives", "prompt")),
    "groups": ("candidate_group", ("query", "pos", "neg", "pos_scores", "neg_scores", "prompt")),
    "hits": ("candidate_group", ("query", "hits", "prompt")),
}


def table_of(target: Target, output: Path) -> str:
    """Return "csv" or "tsv" if a file is a table, whose cells hold no lists, else "".

    Raises:
        ValueError: If its format is unknown, or cannot hold the target.
    """
    suffix = check_format(output)
    table = TABLES.get(suffix, "")
    if target in ("groups", "hits") and table:
        raise ValueError(
            f"{output}: {target} hold lists, and a table has no place for them; "
            "give .jsonl, .json or .parquet"
        )
    if target == "tsv" and table != "tsv":
        raise ValueError(f"{output}: --to tsv writes .tsv or .txt files")
    return table


def convert(stream: RowStream, survey: Survey, output: Path, staging: Path) -> Iterator[None]:
    """Write the rows to one file; yield after each record.

    Args:
        stream: The rows to convert.
        survey: Of the same rows; it says what they become, and which columns are needed.
        output: The file; its suffix is its format.
        staging: An empty folder for the rows on their way.
    """
    shape, _ = _FORMS[survey.target]
    kind = ScoredPair if shape == "scored_pair" else CandidateGroup
    Build(stream.sources, shape, stream.options, staging).run()
    columns = _columns(survey)
    with RowFile(output, columns, header=survey.target != "tsv") as file:
        for fields in Dataset.from_file(str(staging / ROWS)):
            for record in _records(kind(**fields), survey):
                file.write({name: record[name] for name in columns})
                yield
        if not file.rows:
            raise ValueError("no row is left to write: no query has a positive")


def _columns(survey: Survey) -> list[str]:
    """Return the columns of the target form that these rows need."""
    counts = survey.counts
    scores = survey.has_scores or counts["teacher"]
    needed = {
        "weight": counts["weights"],
        "key": counts["keys"],
        "prompt": counts["prompts"],
        "negatives": not survey.table,
        "pos_scores": scores,
        "neg_scores": scores,
    }
    return [name for name in _FORMS[survey.target][1] if needed.get(name, True)]


def _records(row: ScoredPair | CandidateGroup, survey: Survey) -> Iterator[dict[str, Any]]:
    """Yield the target records of a row, with more fields than are written."""
    record = row._asdict()
    if isinstance(row, ScoredPair):
        yield record
    elif survey.target == "pairs":
        for pos_doc in row.pos:
            yield record | {"pos_doc": pos_doc, "negatives": row.neg or None}
    elif survey.target == "hits":
        judged = zip(row.pos + row.neg, row.relevances(), strict=True)
        yield record | {"hits": [{"content": text, "label": label} for text, label in judged]}
    else:
        if survey.has_scores:
            relevances, at = row.relevances(), len(row.pos)
            record |= {"pos_scores": relevances[:at], "neg_scores": relevances[at:]}
        elif row.graded:  # 1 and 0, which need not be said
            record |= {"pos_scores": None, "neg_scores": None}
        yield record
