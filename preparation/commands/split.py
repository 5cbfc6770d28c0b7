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
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from common.flags import option
from common.hashing import text_hash
from loaders.formats.row_file import RowFile
from loaders.parsing.row_stream import RowStream
from loaders.settings import RowSettings
from loaders.shapes.conversions import judged_documents
from loaders.shapes.rows import Row
from preparation.commands.convert import tell_default_labels
from preparation.commands.settings import InputSettings, OutputSettings, progress
from preparation.splitting.components import By, Components
from preparation.splitting.part_record import part_record
from preparation.splitting.parts import Split, share_out

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
        "Texts that have this share of their runs of three words in common are one; 0: the same "
        "texts only.",
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
    output_dir = args.output_dir
    args.check_output(f"{name}.jsonl" for name in names)
    stream = RowStream(args.input, args.read_options())
    passes = iter(("reading", "near-duplicate queries", "near-duplicate documents"))

    def read() -> Iterator[Row]:
        for located in progress(stream, next(passes)):
            yield located.row

    components = Components(read, args.by, args.near_duplicates, args.positive_threshold)
    tell_default_labels(stream)
    made = share_out(components.labels, args.shares, args.seed)
    parts = [PartTexts() for _ in names]
    with ExitStack() as stack:
        paths = [output_dir / f"{name}.jsonl" for name in names]
        files = [stack.enter_context(RowFile(path, ["query"])) for path in paths]
        for part, located in zip(made.part_of, progress(stream, "writing"), strict=True):
            files[part].write(part_record(located, stream.parser.columns))
            parts[part].add(located.row)
    _tell(args, components, made, names, parts)


class PartTexts:
    """Text hashes of a part, to count distinct queries and shared documents."""

    def __init__(self) -> None:
        self.queries, self.documents = array("Q"), array("Q")

    def add(self, row: Row) -> None:
        """Add a row's texts."""
        self.queries.append(text_hash(row.query))
        self.documents.extend(text_hash(text) for text, _ in judged_documents(row))


def _tell(
    args: SplitSettings,
    components: Components,
    made: Split,
    names: tuple[str, ...],
    parts: list[PartTexts],
) -> None:
    total = len(made.part_of)
    print(f"{'part':<12}{'rows':>10}{'share':>8}{'asked':>8}{'queries':>10}")
    for name, size, share, part in zip(names, made.sizes, args.shares, parts, strict=True):
        queries = len(np.unique(part.queries))
        print(f"{name:<12}{size:>10}{size / total:>8.1%}{share:>8.1%}{queries:>10}")
    print(
        f"{total} rows form {made.components} components, the largest of "
        f"{made.largest} rows; {components.near_duplicates} pairs of near-duplicate texts"
    )
    if off := [names[part] for part in made.off()]:
        print(
            f"the shares of {', '.join(off)} are not met: the largest component has "
            f"{made.largest / total:.1%} of the rows and is not split; --by positive or "
            "--by query link fewer rows"
        )
    documents = [np.unique(part.documents) for part in parts]
    in_several = len(np.concatenate(documents)) - len(np.unique(np.concatenate(documents)))
    if in_several:
        print(f"--by {args.by}: {in_several} documents are in several parts")
