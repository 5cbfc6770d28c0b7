"""Add a teacher's scores to rows, for the objective distillation.

    python scripts/score_with_teacher.py --input data/docstrings/train_groups.jsonl \\
        --output data/docstrings/train_scores.jsonl --model outputs/reranker --max_length 128
    # an embedder's cosines
    python scripts/score_with_teacher.py --input data/qa.jsonl --output scored.jsonl \\
        --model BAAI/bge-large-zh-v1.5

Rows in any training format are written as groups with pos_scores and neg_scores, in the order in
which they are read. accelerate launch shares the work among processes or GPUs; the file is the
same. A run that was killed goes on when the same command is started again.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from tqdm import tqdm

from common.flags import exit_code, parse
from encoders.kinds import KINDS, Kind, detect_kind
from loaders import load_rows
from loaders.formats.row_file import RowFile
from loaders.formats.sources import find_sources
from mining.assembly import (
    Digests,
    check_output,
    identity,
    on_all_processes,
    open_embedder,
    open_reranker,
    shows_progress,
    write_settings,
)
from mining.data.documents import training_documents
from mining.data.queries import Queries
from mining.data.records import DIGITS, Survey, add_scores
from mining.scoring.pair_scores import score_all
from mining.search.index import VectorIndex
from mining.settings import OF_EMBEDDER, ScoringSettings
from mining.work import build_corpus, work_folder

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 256

Records = list[dict[str, Any]]
AddScores = Callable[[Records, Records], None]  # rows, and the records that get their scores


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after a one-line error."""
    return exit_code(lambda: on_all_processes(score, parse(ScoringSettings, argv, __doc__)))


def score(args: ScoringSettings) -> None:
    """Read rows, score their pairs, and write them as groups."""
    check_output(args)
    kind = detect_kind(args.model)
    check_settings(args, kind)
    rows = load_rows(args.input, "candidate_group", args.read_options())
    survey = Survey.of(rows)
    for phrase in survey.lost(keep=True, judged=True):
        logger.warning("lost: %s", phrase)
    digests: Digests = {}
    with work_folder(args.cache_dir, identity(args, find_sources(args.input, args.split))) as work:
        prepare = by_embedder if KINDS[kind].retrieves else by_reranker
        add = prepare(args, rows, work, digests)
        if not PartialState().is_main_process:
            return
        prompt = ["prompt"] if survey.counts["prompts"] else []
        columns = ["query", "pos", "neg", "pos_scores", "neg_scores", *prompt]
        scored = tqdm(records(rows, add), "writing", len(rows), disable=not shows_progress())
        with RowFile(args.output, columns) as file:
            for record in scored:
                file.write(record)
    path = write_settings(args, find_sources(args.input, args.split), digests, rows=len(rows))
    print(f"{args.output}: {len(rows):,} rows; settings and digests are in {path}")


def check_settings(args: ScoringSettings, kind: Kind) -> None:
    """Refuse settings of the other kind of model."""
    usual: dict[str, str | None] = dict.fromkeys(OF_EMBEDDER)
    if KINDS[kind].retrieves:
        usual = {"max_length": None, "scores": "raw"}
    for name, value in usual.items():
        if getattr(args, name) != value:
            raise ValueError(f"{name}: is no setting of {args.model}, which is of kind {kind}")


def by_reranker(args: ScoringSettings, rows: Dataset, work: Path, digests: Digests) -> AddScores:
    """Score all pairs; return the function that adds the scores to records."""
    teacher, digests["reranker"] = open_reranker(args, args.model)
    score_all(teacher, rows, shows_progress())
    return lambda some, records: add_scores(teacher, some, records, args.scores)


def by_embedder(args: ScoringSettings, rows: Dataset, work: Path, digests: Digests) -> AddScores:
    """Encode all texts; return the function that adds the cosines to records."""
    options = args.read_options()
    corpus, _ = build_corpus(work / "corpus", training_documents(args.input, options), [])
    queries = Queries(rows, corpus, keep=True)
    model = open_embedder(args, args.model)
    digests["embedder"] = model.digest
    documents = model.documents(corpus, args.document_max_length)
    asked = model.queries(queries, args.query_max_length)
    index = VectorIndex(asked, documents, len(corpus), PartialState().device)

    def add(some: Records, records: Records) -> None:
        for row, record in zip(some, records, strict=True):
            places = corpus.find(record["pos"] + record["neg"]).tolist()
            found = iter(index.scores(int(queries.query_of[row["at"]]), places))
            for side in ("pos", "neg"):
                record[f"{side}_scores"] = [round(next(found), DIGITS) for _ in record[side]]

    return add


def records(rows: Dataset, add: AddScores) -> Iterator[dict[str, Any]]:
    """Yield the scored records of all rows."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        numbers = range(start, min(start + ROWS_AT_ONCE, len(rows)))
        some = [{**rows[at], "at": at} for at in numbers]
        made = [{name: row[name] for name in ("query", "pos", "neg")} for row in some]
        add(some, made)
        for row, record in zip(some, made, strict=True):
            yield record | {"prompt": row["prompt"]}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.exit(main())
