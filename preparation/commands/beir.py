"""Convert a BEIR folder to training groups; with --to_beir the other way.

From a BEIR folder (corpus.jsonl, queries.jsonl, qrels/<split>.tsv) each split becomes
OUTPUT_DIR/<split>.jsonl. Documents judged above 0, or min_grade or more, are positives; those
judged less, below 0 too, are negatives; documents that are not judged are left out. A document is
its title and its text. Where there is more than one grade above 0, groups have scores too: the
grade divided by the highest of all. Kept in memory are the judgements and the texts of judged
documents.

With --to_beir training files of any form become a BEIR folder. Equal texts get one id.

    python scripts/prepare_data.py beir --input data/scifact --output_dir data/scifact_groups
    python scripts/prepare_data.py beir --input data/trec --output_dir data/trec_groups \\
        --split test --min_grade 2
    # back: an evaluation set of any training files
    python scripts/prepare_data.py beir --to_beir --input dev.jsonl --output_dir data/dev \\
        --split dev
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from common.flags import option, required
from loaders.beir.evaluation_set import find_splits, read_set
from loaders.formats.row_file import RowFile
from loaders.parsing.row_stream import LocatedRow, RowStream
from loaders.settings import RowSettings
from preparation.beir import BeirFolder, count_rounded, group, smallest_grade_count, write_rows
from preparation.commands.convert import refuse_loss, tell_default_labels
from preparation.commands.settings import InputSettings, OutputSettings, progress
from preparation.convert import Survey

# Keys that only one of the two ways knows: whether it is the way to BEIR.
_DIRECTIONS = {"grades": True, "allow_loss": True, "min_grade": False, "allow_unknown": False,
               "keep_identical_ids": False}  # fmt: skip
_DIRECTIONS |= {known.name: True for known in fields(RowSettings) if known.name != "split"}


@dataclass(kw_only=True)
class BeirSettings(InputSettings, OutputSettings, RowSettings):
    """From the BEIR layout to training groups, and back."""

    input: list[str] = required("A folder in the BEIR layout; with to_beir training files.")
    split: str | None = option(None, "File of qrels/; null: all; with to_beir: test.")
    min_grade: int | None = option(
        None, "The lowest grade of a positive; null: all above 0.", least=1
    )
    allow_unknown: bool = option(False, "Skip judgements of unknown ids, counted.")
    keep_identical_ids: bool = option(
        False, "A document with the id of its query may be a negative of it."
    )
    to_beir: bool = option(False, "From training files to a BEIR folder.")
    grades: int | None = option(
        None,
        "With to_beir: judge round(relevance x grades); null: the smallest number that rounds "
        "nothing.",
        least=1,
    )
    allow_loss: bool = option(False, "With to_beir: go on though something is lost.")

    def __post_init__(self) -> None:
        super().__post_init__()
        defaults = {known.name: known.default for known in fields(BeirSettings)}
        for name, of_to_beir in _DIRECTIONS.items():
            if getattr(self, name) != defaults[name] and of_to_beir != self.to_beir:
                way = "to" if of_to_beir else "from"
                raise ValueError(f"{name}: is for the way {way} BEIR only; leave it out")


def run(args: BeirSettings) -> None:
    """Convert in the direction asked for."""
    if args.to_beir:
        _to_beir(args)
    else:
        _to_groups(args)


def _to_groups(args: BeirSettings) -> None:
    if len(args.input) > 1:
        raise ValueError(f"input: give one BEIR folder, got {len(args.input)}")
    folder = Path(args.input[0]).expanduser()
    splits = [args.split] if args.split else find_splits(folder)
    args.check_output(f"{split}.jsonl" for split in splits)
    documents, queries, qrels = read_set(
        folder,
        splits,
        allow_unknown=args.allow_unknown,
        for_training=True,
        watch=lambda records, name: progress(records, name, "text"),
    )
    every = [judged for of_split in qrels.values() for judged in of_split.values()]
    grades = {grade for judged in every for grade in judged.values() if grade > 0}
    highest = max(grades) if len(grades) > 1 else 0.0
    min_grade = args.min_grade or min(grades, default=1)
    for split in splits:
        path = args.output_dir / f"{split}.jsonl"
        own = with_positive = 0
        with RowFile(path, ["query", "pos", "neg"]) as file:
            for query, judged in qrels[split].items():
                if not args.keep_identical_ids and judged.get(query, min_grade) < min_grade:
                    judged = {known: grade for known, grade in judged.items() if known != query}
                    own += 1
                record = group(queries[query], judged, documents, min_grade, highest)
                with_positive += bool(record["pos"])
                if record["pos"] or (highest and record["neg"]):
                    file.write(record)
            if not with_positive:
                raise ValueError(f"{path}: no query has a document of grade {min_grade:g} or more")
        print(f"{path}: {file.rows} groups")
        if left_out := len(qrels[split]) - file.rows:
            print(f"{left_out} queries were left out: none of their documents is a positive")
        if own:
            print(
                f"{own} documents with the id of their query are not used as its negatives "
                "(--keep_identical_ids uses them)"
            )
    if highest:
        print(
            f"pos_scores and neg_scores are grades divided by {highest:g}; to train on them set "
            f'"relevance_from_scores": true, "positive_threshold": {min_grade / highest!r}'
        )


def _to_beir(args: BeirSettings) -> None:
    split = args.split or "test"
    args.check_output(["corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv"])
    stream = RowStream(args.input, args.read_options(split=None))
    survey = Survey(progress(stream, "reading"), "beir", "", args.positive_threshold)
    lost = survey.lost(stream.parser.unused)
    grades = args.grades or smallest_grade_count(survey.relevances)
    if count := count_rounded(survey.relevances, grades):
        lost.append(f"what lies between the grades of {count} relevances, which are rounded")
    tell_default_labels(stream)
    refuse_loss(lost, args.allow_loss)

    def read() -> Iterator[LocatedRow]:
        return progress(stream, "writing")

    with BeirFolder(args.output_dir, [split]) as written:
        repeated = write_rows(read, written, split, grades)
    print(f"{written.summary()} with grades up to {grades}")
    if repeated:
        print(f"{repeated} judgements were duplicates and are written once")
