"""Split training files so that nothing of one part stands in another.

Writes train.jsonl, validation.jsonl and test.jsonl. Rows that share a text stay together, and so
do rows whose texts are near-duplicates, and rows linked by other rows. --by says which texts link:
"query" only the queries; "positive" queries and positive documents; "document" all queries and
documents. Case, width, spacing and punctuation of sentences do not matter.

JSON and Parquet records are written as they are. Rows of CSV and TSV files become JSON objects
with relevances from 0 to 1; with --columns all rows do, and the parts are read without it. The
same files, options and seed give the same parts.

Near-duplicates are looked for in the first 2,000 characters of each text. That takes some 60 bytes
of memory a word; with --near_duplicates 0 next to none.

    python scripts/prepare_data.py split --input all.jsonl --output_dir data/parts
    # mined negatives are shared by many queries: look at queries and positives only
    python scripts/prepare_data.py split --input mined.jsonl --output_dir data/parts --by positive
    python scripts/prepare_data.py split --input qa.csv --output_dir data/parts \\
        --shares 0.9 0.1 --by query --seed 7
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.flags import option
from common.hashing import text_hash
from loaders.formats.row_file import RowFile
from loaders.parsing.columns import field_of
from loaders.parsing.fields import ALIASES
from loaders.parsing.row_parser import RowParser
from loaders.parsing.row_stream import LocatedRow, RowStream
from loaders.settings import RowSettings
from loaders.shapes.conversions import judged_documents
from loaders.shapes.rows import PositivePair, Row, ScoredPair
from preparation.commands.convert import tell_default_labels
from preparation.commands.settings import InputSettings, OutputSettings, progress
from preparation.splitting import By, Components, assign_to_parts

# Columns of these names may stand beside a row without being part of it.
_BESIDE = {"key", "weight"}

PARTS = {2: ("train", "test"), 3: ("train", "validation", "test")}


@dataclass(kw_only=True)
class SplitSettings(InputSettings, OutputSettings, RowSettings):
    """Training, validation and test parts without a leak between them."""

    shares: list[float] = option(
        [0.8, 0.1, 0.1], "Of train, validation and test, or of train and test."
    )
    by: By = option("document", "Which texts link rows.")
    near_duplicates: float = option(
        0.8,
        "Texts that share this fraction of their word trigrams count as one; 0: only equal texts.",
    )
    seed: int = option(42, "Decides which rows go to which part.")

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = self.shares
        if len(shares) not in PARTS:
            raise ValueError(f"shares: takes two or three numbers, got {len(shares)}")
        if min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            given = " ".join(f"{share:g}" for share in shares)
            raise ValueError(f"shares: must be above 0 and add up to 1, got {given}")
        if not 0 <= self.near_duplicates <= 1:
            raise ValueError(f"near_duplicates: must be from 0 to 1, got {self.near_duplicates:g}")


def run(args: SplitSettings) -> None:
    """Group linked rows, assign the groups to parts, and write the parts."""
    names = PARTS[len(args.shares)]
    args.check_output(f"{name}.jsonl" for name in names)
    for name in set(PARTS[3]) - set(names):
        if (stale := args.output_dir / f"{name}.jsonl").exists():
            raise ValueError(
                f"{stale} is of another split, and its rows may be in these parts too; remove it, "
                "or give another output_dir"
            )
    stream = RowStream(args.input, args.read_options())
    passes = iter(("reading", "near-duplicate queries", "near-duplicate documents"))

    def read() -> Iterator[Row]:
        for located in progress(stream, next(passes)):
            yield located.row

    components = Components(read, args.by, args.near_duplicates, args.positive_threshold)
    tell_default_labels(stream)
    made = assign_to_parts(components.labels, args.shares, args.seed)
    # Hashes of the texts of each part.
    queries, documents = [array("Q") for _ in names], [array("Q") for _ in names]
    left_out: Counter[str] = Counter()
    with ExitStack() as stack:
        paths = [args.output_dir / f"{name}.jsonl" for name in names]
        files = [stack.enter_context(RowFile(path, ["query"])) for path in paths]
        for part, located in zip(made.part_of, progress(stream, "writing"), strict=True):
            files[part].write(_part_record(located, stream.parser, left_out))
            queries[part].append(text_hash(located.row.query))
            documents[part].extend(text_hash(text) for text, _ in judged_documents(located.row))
    total = len(made.part_of)
    print(f"{'part':<12}{'rows':>10}{'share':>8}{'asked':>8}{'queries':>10}")
    for name, size, share, own in zip(names, made.sizes, args.shares, queries, strict=True):
        different = len(np.unique(own))
        print(f"{name:<12}{size:>10}{size / total:>8.1%}{share:>8.1%}{different:>10}")
    print(
        f"{total} rows form {made.components} components, the largest of "
        f"{made.largest} rows; {components.near_duplicates} pairs of near-duplicate texts"
    )
    if off := [names[part] for part in made.off_target()]:
        print(
            f"the shares of {', '.join(off)} are not met: the largest component has "
            f"{made.largest / total:.1%} of the rows and is not split; --by positive or "
            "--by query link fewer rows"
        )
    for column, count in left_out.items():
        print(
            f'the column "{column}" of {count} rows is left out: its name stands for '
            f'"{field_of(column)}", which the row does not need; rename it to keep it'
        )
    found = np.concatenate([np.unique(own) for own in documents])
    if in_several := len(found) - len(np.unique(found)):
        print(f"--by {args.by}: {in_several} documents are in several parts")


def _part_record(located: LocatedRow, parser: RowParser, left_out: Counter[str]) -> dict[str, Any]:
    """Return the JSON record of a row.

    From JSON and Parquet it is what stands there. A row of a table, whose labels are texts that
    only the reading options explain, gives its fields under their own names with relevances from
    0 to 1, and all other columns as texts. So does any row where ``columns`` name the fields: the
    parts are read without them. A second column for a field, which would be read in place of the
    first, is left out and counted.
    """
    fields, row, columns = located.record.fields, located.row, parser.columns
    if not located.record.from_text and not columns.columns:
        return dict(fields)
    mapped = columns.with_mapped(fields)
    own = row._asdict()
    if isinstance(row, ScoredPair):
        own["weight"] = row.weight if row.weight != 1 else None
    elif isinstance(row, PositivePair):
        own["negatives"] = row.negatives or None
    else:
        del own["graded"]
    found = [columns.find(mapped, field) for field in ALIASES if field not in _BESIDE - own.keys()]
    used = [*filter(None, found), *columns.negatives(mapped)]
    others = {
        name: value
        for name, value in fields.items()
        if name not in used and field_of(name) in (None, *(_BESIDE - own.keys()))
    }
    unused = [name for name, value in fields.items() if value and name in parser.unused]
    left_out.update(name for name in unused if name not in others)
    return own | others
