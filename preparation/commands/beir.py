"""From the BEIR layout to training groups, and back."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loaders.beir.evaluation_set import find_splits, read_set
from loaders.formats.row_file import RowFile
from loaders.parsing.row_stream import LocatedRow
from preparation.beir.from_rows import rounded, whole_grades, write_beir
from preparation.beir.to_groups import group
from preparation.commands.convert import refuse_loss, tell_default_labels
from preparation.commands.flags import (
    add_bad_rows,
    add_command,
    add_input,
    add_output_dir,
    add_read_options,
    open_rows,
    output_dir_of,
    positive,
    progress,
    read_options,
)
from preparation.survey import Survey

EXAMPLES = """\
  python scripts/prepare_data.py beir --input data/scifact --output_dir data/scifact_groups
  python scripts/prepare_data.py beir --input data/trec --output_dir data/trec_groups \\
      --split test --min_grade 2
  # back: an evaluation set of any training files
  python scripts/prepare_data.py beir --to_beir --input dev.jsonl --output_dir data/dev \\
      --split dev"""


# Flags that only one of the two ways knows: whether it is the way to BEIR.
_DIRECTIONS = {"grades": True, "allow_loss": True, "min_grade": False, "allow_unknown": False,
               "keep_identical_ids": False}  # fmt: skip


def add(commands: Any) -> None:
    """Add the sub-command."""
    command = add_command(commands, "beir", beir, EXAMPLES)
    add_input(command, "a folder in the BEIR layout; with --to_beir training files")
    add_output_dir(command, seed=False)
    add = command.add_argument
    add("--split", metavar="NAME", help="file of qrels/ (default: all; with --to_beir: test)")
    add("--min_grade", type=positive, metavar="N", help="least grade of a positive "
        "(default: all above 0)")  # fmt: skip
    add("--allow_unknown", action="store_true", help="skip judgements of unknown ids, counted")
    add("--keep_identical_ids", action="store_true", help="a document with the id of its query may "
        "be a negative of it")  # fmt: skip
    add("--to_beir", action="store_true", help="from training files to a BEIR folder")
    add("--grades", type=positive, metavar="N", help="with --to_beir: judge round(relevance x N) "
        "(default: the least N without rounding)")  # fmt: skip
    add("--allow_loss", action="store_true", help="with --to_beir: go on though something is lost")
    add_read_options(command, split=False)
    add_bad_rows(command)


def beir(args: argparse.Namespace) -> None:
    """Turn judged documents into training groups; with --to_beir the other way.

    From a BEIR folder (corpus.jsonl, queries.jsonl, qrels/<split>.tsv) each split becomes
    DIR/<split>.jsonl. Documents judged above 0, or N or more (--min_grade N), are positives; those
    judged less, below 0 too, are negatives; documents that are not judged are left out. A document
    is its title and its text. Where there is more than one grade above 0, groups have scores too:
    the grade divided by the highest of all. Kept in memory are the judgements and the texts of
    judged documents.

    With --to_beir training files of any form become a BEIR folder. Equal texts get one id.
    """
    for flag, of_to_beir in _DIRECTIONS.items():
        if getattr(args, flag) and of_to_beir != args.to_beir:
            raise ValueError(f"--{flag} is for the way {'to' if of_to_beir else 'from'} BEIR only")
    if args.to_beir:
        _to_beir(args)
    else:
        _to_groups(args)


def _to_groups(args: argparse.Namespace) -> None:
    if len(args.input) > 1:
        raise ValueError(f"--input: give one BEIR folder, got {len(args.input)}")
    folder = Path(args.input[0])
    splits = [args.split] if args.split else find_splits(folder)
    output_dir = output_dir_of(args, [f"{split}.jsonl" for split in splits])
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
        path = output_dir / f"{split}.jsonl"
        own = 0
        with RowFile(path, ["query", "pos", "neg"]) as file:
            for query, judged in qrels[split].items():
                if not args.keep_identical_ids and judged.get(query, min_grade) < min_grade:
                    judged = {known: grade for known, grade in judged.items() if known != query}
                    own += 1
                record = group(queries[query], judged, documents, min_grade, highest)
                if record["pos"] or (highest and record["neg"]):
                    file.write(record)
            if not file.rows:
                raise ValueError(f"{path}: no query has a document of grade {min_grade:g} or more")
        print(f"{path}: {file.rows} groups")
        if left_out := len(qrels[split]) - file.rows:
            print(f"{left_out} queries were left out: none of their documents is a positive")
        if own:
            print(f"{own} documents with the id of their query are no negatives of it "
                  "(--keep_identical_ids makes them some)")  # fmt: skip
    if highest:
        threshold = min_grade / highest
        print(
            f"pos_scores and neg_scores are grades divided by {highest:g}; to train on them set "
            f'"relevance_from_scores": true, "positive_threshold": {threshold:.3g}'
        )


def _to_beir(args: argparse.Namespace) -> None:
    split = args.split or "test"
    files = ["corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv"]
    output_dir = output_dir_of(args, files)
    stream = open_rows(args.input, read_options(args, split=None))
    survey = Survey("beir", "", args.positive_threshold)
    for located in progress(stream, "reading"):
        survey.add(located.row)
    survey.finish()
    lost = survey.lost(stream.parser.unused)
    grades = args.grades or whole_grades(survey.relevances)
    if count := rounded(survey.relevances, grades):
        lost.append(f"what lies between the grades of {count} relevances, which are rounded")
    tell_default_labels(stream)
    refuse_loss(lost, args.allow_loss)

    def read() -> Iterator[LocatedRow]:
        return progress(stream, "writing")

    written, repeated = write_beir(read, output_dir, split, grades)
    print(
        f"{output_dir}: {written.documents} documents, {written.queries} queries, "
        f"{written.judgements} judgements with grades up to {grades}"
    )
    if repeated:
        print(f"{repeated} judgements repeat others and stand there once")
