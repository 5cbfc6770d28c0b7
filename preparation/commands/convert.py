"""Convert training files of any form to one file of another.

scored: query, doc, rel (weight, key, prompt). pairs: query, pos_doc (negatives, prompt).
groups: query, pos, neg (pos_scores, neg_scores, prompt). hits: query, hits (prompt).
tsv: query, document and relevance without a header. The suffix of the output is its format.

All rows are read once before anything is written. What the new form cannot hold is told with
counts, and stops the conversion unless --allow_loss is given. Scored pairs of one query, wherever
they stand, make one group.

    python scripts/prepare_data.py convert --input graded.tsv --to groups --output groups.jsonl
    python scripts/prepare_data.py convert --input groups.jsonl --to scored --output scored.parquet
    python scripts/prepare_data.py convert --input sts.csv --label_range 0 5 --to scored \\
        --output sts.jsonl
    python scripts/prepare_data.py convert --input a.jsonl b.parquet --to pairs \\
        --output pairs.csv --allow_loss
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.flags import option, required
from loaders.parsing.row_stream import RowStream
from loaders.settings import RowSettings
from preparation.commands.settings import InputSettings, check_not_read, check_output_file, progress
from preparation.convert import Survey, convert, table_of


@dataclass(kw_only=True)
class ConvertSettings(InputSettings, RowSettings):
    """From any form of training rows to any other."""

    to: Literal["scored", "pairs", "groups", "hits", "tsv"] = required("The form of the rows.")
    output: Path = required("A file that ends in .jsonl, .json, .csv, .tsv or .parquet.")
    overwrite: bool = option(False, "Replace the file, if it is there already.")
    allow_loss: bool = option(False, "Go on though something is lost.")


def run(args: ConvertSettings) -> None:
    """Survey all rows, then convert them."""
    table = table_of(args.to, args.output)
    check_output_file(args.output, args.overwrite)
    stream = RowStream(args.input, args.read_options())
    check_not_read(args.output, args.input, stream.sources)
    survey = Survey(progress(stream, "reading"), args.to, table, args.positive_threshold)
    tell_default_labels(stream)
    refuse_loss(survey.lost(stream.parser.unused), args.allow_loss)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with tempfile.TemporaryDirectory(dir=args.output.parent, prefix=".convert-") as staging:
        for _ in progress(convert(stream, survey, args.output, Path(staging)), "writing"):
            written += 1
    print(f"{args.output}: {written} rows, made of {survey.counts['rows']}")
    if args.to == "groups" and survey.has_scores:
        print(
            'pos_scores and neg_scores are relevances: train with "relevance_from_scores": true, '
            f'"positive_threshold": {args.positive_threshold!r}'
        )


def tell_default_labels(stream: RowStream) -> None:
    """Report labels that were read as grades by default, and rows that were skipped."""
    if count := stream.parser.labels.mapped_by_default:
        print(
            f"{count} labels are read as grades: 3, 2, 1, 0 are the relevances 1, 0.75, 0.5, 0.25; "
            "give --label_map or --label_range to change that"
        )
    if stream.bad:
        print(f"{stream.bad} of {stream.bad + stream.good} rows are bad and skipped; the first: "
            f"{stream.reasons[0]}")  # fmt: skip


def refuse_loss(lost: list[str], allowed: bool) -> None:
    """Report what will be lost, before it is.

    Raises:
        ValueError: If anything is, and it is not allowed.
    """
    if lost and not allowed:
        listed = "".join(f"\n  {phrase}" for phrase in lost)
        raise ValueError(f"this would be lost (--allow_loss converts anyway):{listed}")
    if lost:
        print("lost, as allowed:")
        print("".join(f"  {phrase}\n" for phrase in lost), end="")
