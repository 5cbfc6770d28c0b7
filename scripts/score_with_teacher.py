"""Add a teacher's scores to rows, for the objective distillation.

    python scripts/score_with_teacher.py --input data/docstrings/train_groups.jsonl \\
        --output data/docstrings/train_scores.jsonl --model outputs/reranker --max_length 128
    # an embedder's cosines
    python scripts/score_with_teacher.py --input data/qa.jsonl --output scored.jsonl \\
        --model BAAI/bge-large-zh-v1.5

Rows in any training format are written as groups with pos_scores and neg_scores, in the order in
which they are read. accelerate launch shares the work among processes or GPUs; the file is the
same. A run that was killed continues when the same command is started again.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset

from common.flags import exit_code, parse
from encoders.kinds import KINDS, Kind, detect_kind
from loaders import load_rows
from loaders.formats.sources import find_sources
from mining.assembly import (
    Digests,
    check_output,
    embed,
    identity,
    on_all_processes,
    open_teacher,
    shows_progress,
    write_settings,
)
from mining.data.corpus import build_corpus
from mining.data.documents import training_documents
from mining.data.queries import Queries
from mining.data.records import (
    Rows,
    Score,
    Survey,
    TeacherScores,
    make_groups,
    rounded,
    write_groups,
)
from mining.search.index import VectorIndex
from mining.settings import EMBEDDER_SETTINGS, ScoringSettings
from mining.teacher import score_all
from mining.work import work_folder

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after a one-line error."""
    return exit_code(lambda: on_all_processes(score, parse(ScoringSettings, argv, __doc__)))


def score(args: ScoringSettings) -> None:
    """Read rows, score their pairs, and write them as groups."""
    sources = find_sources(args.input, args.split)
    check_output(args, args.input, sources)
    kind = detect_kind(args.model)
    check_settings(args, kind)
    rows = load_rows(args.input, "candidate_group", args.read_options())
    survey = Survey(rows)
    for phrase in survey.lost(keep=True, judged=True):
        logger.warning("lost: %s", phrase)
    digests: Digests = {}
    with work_folder(args.cache_dir, identity(args, sources)) as work:
        scores: Score
        if KINDS[kind].retrieves:
            scores = by_embedder(args, rows, work, digests)
        else:
            teacher = open_teacher(args, args.model, digests)
            score_all(teacher, rows, shows_progress())
            scores = TeacherScores(teacher, args.scores, args.relabel_from)
        if not PartialState().is_main_process:
            return
        groups = make_groups(rows, scores)
        write_groups(args.output, groups, survey, scored=True, show_progress=shows_progress())
        if isinstance(scores, TeacherScores) and scores.relabel_from is not None:
            logger.info("%d negatives became positives", scores.relabelled)
    path = write_settings(args, sources, digests, rows=len(rows))
    print(f"{args.output}: {len(rows):,} rows; settings and digests are in {path}")


def check_settings(args: ScoringSettings, kind: Kind) -> None:
    """Refuse settings of the other kind of model."""
    defaults: dict[str, str | None] = dict.fromkeys(EMBEDDER_SETTINGS)
    if KINDS[kind].retrieves:
        defaults = {"max_length": None, "scores": "raw", "relabel_from": None}
    for name, value in defaults.items():
        if getattr(args, name) != value:
            raise ValueError(
                f"{name}: does not apply to {args.model}, which is of kind {kind}; leave it out"
            )


def by_embedder(args: ScoringSettings, rows: Dataset, work: Path, digests: Digests) -> Score:
    """Encode all texts; return what scores groups by their similarities."""
    documents = training_documents(args.input, args.read_options())
    corpus = build_corpus(work / "corpus", documents, [])
    queries = Queries(rows, corpus, keep=True)
    query_vectors, vectors = embed(args, args.model, queries, corpus, digests)
    index = VectorIndex(query_vectors, vectors, len(corpus), PartialState().device)

    def score(numbers: range, _: Rows, groups: Rows) -> list[float]:
        found: list[float] = []
        for number, group in zip(numbers, groups, strict=True):
            places = corpus.find(group["pos"] + group["neg"]).tolist()
            found += rounded(index.scores(int(queries.query_of[number]), places))
        return found

    return score


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.exit(main())
