"""Convert rows of any form to a file of another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from loaders.build import ROWS, Build
from loaders.formats.records import check_format
from loaders.formats.row_file import TABLES, RowFile
from loaders.options import ReadOptions
from loaders.parsing.row_stream import RowStream
from loaders.shapes.rows import Shape
from preparation.survey import Survey, Target

_SHAPES: dict[Target, Shape] = {
    "scored": "scored_pair",
    "tsv": "scored_pair",
    "pairs": "positive_pair",
    "groups": "candidate_group",
    "hits": "candidate_group",
}


@dataclass(frozen=True)
class Conversion:
    """Convert files of any form to one file.

    Args:
        stream: The rows to convert.
        target: ``scored``, ``pairs``, ``groups``, ``hits``, or ``tsv``: query, document and
            relevance without a header.
        output: The file; its suffix is its format.

    Raises:
        ValueError: If the format cannot hold the target.
    """

    stream: RowStream
    target: Target
    output: Path

    def __post_init__(self) -> None:
        suffix = check_format(self.output)
        if self.target in ("groups", "hits") and suffix in TABLES:
            raise ValueError(
                f"{self.output}: {self.target} hold lists, and a table has no place for them; "
                "give .jsonl, .json or .parquet"
            )
        if self.target == "tsv" and TABLES.get(suffix) != "tsv":
            raise ValueError(f"{self.output}: --to tsv writes .tsv or .txt files")

    @property
    def options(self) -> ReadOptions:
        """The options with which the rows are read."""
        return self.stream.options

    def survey(self, rows: Iterator[Any]) -> Survey:
        """Survey all rows; ``rows`` is the stream, perhaps wrapped in a progress bar."""
        table = TABLES.get(check_format(self.output), "")
        survey = Survey(self.target, table, self.options.positive_threshold)
        for located in rows:
            survey.add(located.row)
        survey.finish()
        return survey

    def write(self, survey: Survey, staging: Path) -> Iterator[None]:
        """Write the file; yield after each record.

        Args:
            survey: Of the same rows; it says which columns are needed.
            staging: An empty folder for the rows on their way.
        """
        Build(self.stream.sources, _SHAPES[self.target], self.options, staging).run()
        rows = Dataset.from_file(str(staging / ROWS))
        with RowFile(self.output, _columns(survey), header=self.target != "tsv") as file:
            for row in rows:
                for record in _records(row, survey):
                    file.write(record)
                    yield
            if not file.rows:
                raise ValueError("no row is left to write: no query has a positive")


def _columns(survey: Survey) -> list[str]:
    """Return the columns of the target form that these rows need."""
    counts = survey.counts
    prompt = ["prompt"] if counts["prompts"] else []
    if survey.target == "tsv":
        return ["query", "doc", "rel"]
    if survey.target == "scored":
        weight = ["weight"] if counts["weights"] else []
        key = ["key"] if counts["keys"] else []
        return ["query", "doc", "rel", *weight, *key, *prompt]
    if survey.target == "pairs":
        return ["query", "pos_doc", *([] if survey.table else ["negatives"]), *prompt]
    if survey.target == "hits":
        return ["query", "hits", *prompt]
    scores = survey.has_scores or survey.counts["teacher"]
    return ["query", "pos", "neg", *(["pos_scores", "neg_scores"] if scores else []), *prompt]


def _records(row: dict[str, Any], survey: Survey) -> Iterator[dict[str, Any]]:
    """Yield the target records of a row, whose shape is that of the target."""
    query, prompt = row["query"], row["prompt"]
    if survey.target in ("scored", "tsv"):
        weight = row["weight"] if survey.counts["weights"] else None
        record = {"query": query, "doc": row["doc"], "rel": row["rel"], "weight": weight}
        yield record | {"key": row["key"], "prompt": prompt}
    elif survey.target == "pairs":
        for pos_doc in row["pos"]:
            negatives = row["neg"] or None
            yield {"query": query, "pos_doc": pos_doc, "negatives": negatives, "prompt": prompt}
    elif survey.target == "hits":
        relevances = _relevances(row)
        hits = [
            {"content": document, "label": relevance}
            for document, relevance in zip(row["pos"] + row["neg"], relevances, strict=True)
        ]
        yield {"query": query, "hits": hits, "prompt": prompt}
    else:
        record = {"query": query, "pos": row["pos"], "neg": row["neg"]}
        if survey.has_scores:
            relevances, at = _relevances(row), len(row["pos"])
            record |= {"pos_scores": relevances[:at], "neg_scores": relevances[at:]}
        elif not row["graded"]:
            record |= {"pos_scores": row["pos_scores"], "neg_scores": row["neg_scores"]}
        yield record | {"prompt": prompt}


def _relevances(group: dict[str, Any]) -> list[float]:
    """Return the scores of the positives, then of the negatives."""
    if group["graded"]:
        relevances: list[float] = (group["pos_scores"] or []) + (group["neg_scores"] or [])
        return relevances
    return [1.0] * len(group["pos"]) + [0.0] * len(group["neg"])
