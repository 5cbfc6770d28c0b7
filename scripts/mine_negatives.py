"""Mine hard negatives: documents that a search ranks high for a query but do not answer it.

    # by an embedder, among the documents of the rows themselves
    python scripts/mine_negatives.py --input data/docstrings/train_pairs.jsonl \\
        --output data/docstrings/mined.jsonl --embedder outputs/embedding_contrastive
    # by BM25 in a corpus: 7 of 10 from ranks 2-20, 3 at random from ranks beyond 1,000
    python scripts/mine_negatives.py --input data/qa.jsonl --output mined.jsonl --bm25 \\
        --corpus data/corpus.jsonl --num_negatives 10 --rank_range 2 20 \\
        --random_share 0.3 --random_from 1000
    # with a reranker that removes what may be an answer, and writes its scores for distillation
    python scripts/mine_negatives.py --input data/qa.jsonl --output mined.jsonl \\
        --embedder BAAI/bge-base-zh-v1.5 --relative_margin 0.05 \\
        --reranker BAAI/bge-reranker-base --reranker_max_score 0.5

Rows are written as groups in the order in which they are read. accelerate launch shares the work
among processes or GPUs; the file is the same. A run that was killed continues when the same command
is started again.
"""

import logging
import sys
from collections.abc import Sequence

from accelerate import PartialState
from rich.console import Console

from common.flags import exit_code, parse
from common.text_digest import combined_digest
from loaders import load_rows
from loaders.formats.sources import find_sources
from mining.assembly import (
    Digests,
    check_output,
    check_ranks,
    identity,
    measure_recall,
    on_all_processes,
    open_index,
    open_teacher,
    read_corpus,
    shows_progress,
    write_settings,
)
from mining.data.corpus import Corpus
from mining.data.documents import corpus_sources
from mining.data.queries import Queries
from mining.data.records import (
    Score,
    Survey,
    TeacherScores,
    Texts,
    make_groups,
    relevances,
    write_groups,
)
from mining.miner import Miner
from mining.settings import MiningSettings
from mining.summary import show, show_examples, summarize
from mining.teacher import Teacher
from mining.work import Blocks, work_folder

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after a one-line error."""
    return exit_code(lambda: on_all_processes(mine, parse(MiningSettings, argv, __doc__)))


def mine(args: MiningSettings) -> None:
    """Read rows and corpus, search, choose negatives, and write the groups."""
    sources = find_sources(args.input, args.split) + corpus_sources(args.corpus)
    check_output(args, [*args.input, *args.corpus], sources)
    options, keep = args.read_options(), args.existing == "keep"
    rows = load_rows(args.input, "candidate_group", options)
    survey = Survey(rows)
    for phrase in survey.lost(keep, args.reranker is not None):
        logger.warning("lost: %s", phrase)
    with work_folder(args.cache_dir, identity(args, sources)) as work:
        corpus = read_corpus(args, options, work)
        check_ranks(args, corpus.searchable)
        queries = Queries(rows, corpus, keep)
        digests: Digests = {"documents": corpus.digest}
        reranker = None
        if args.reranker is not None:
            reranker = open_teacher(args, args.reranker, digests)
        index = open_index(args, queries, corpus, work, digests)
        blocks = Blocks(work / combined_digest(list(digests.values())), len(queries))
        miner = Miner(
            queries, corpus, index, args, reranker, args.reranker_limits, args.relabel_from
        )
        blocks.mine(miner, shows_progress())
        if not PartialState().is_main_process:
            return
        write(args, survey, queries, corpus, blocks, reranker)
        summary = summarize(blocks, args.num_negatives)
        summary["faiss_recall"] = measure_recall(index, len(queries), args.depth)
        console = Console()
        console = console if console.is_terminal else Console(width=120)
        show(summary, console)
        show_examples(queries, corpus, blocks, args.examples, console)
    path = write_settings(args, sources, digests, rows=len(rows), summary=summary)
    print(f"{args.output}: {len(rows):,} rows; settings and digests are in {path}")


def write(
    args: MiningSettings,
    survey: Survey,
    queries: Queries,
    corpus: Corpus,
    blocks: Blocks,
    reranker: Teacher | None,
) -> None:
    """Write the rows with their negatives.

    Scores are the reranker's, if there is one. Otherwise they are the relevances where these say
    more than ``pos`` and ``neg`` do.
    """
    score: Score | None = relevances(queries.keep) if survey.graded else None
    if reranker is not None:
        reranker.cache.refresh()
        score = TeacherScores(reranker, args.scores, args.relabel_from)

    def mined(numbers: range) -> list[Texts]:
        found = [blocks[int(queries.query_of[row])] for row in numbers]
        places = [each.place for one in found for each in one.negatives + one.positives]
        texts = iter(corpus.at(places))
        return [
            ([next(texts) for _ in one.negatives], [next(texts) for _ in one.positives])
            for one in found
        ]

    groups = make_groups(queries.rows, score, queries.keep, mined)
    write_groups(args.output, groups, survey, score is not None, shows_progress())
    if isinstance(score, TeacherScores) and score.relabel_from is not None:
        mined_ones = sum(len(one.positives) for one in blocks)
        logger.info(
            "%d mined documents and %d negatives of the rows are positives now, as the reranker "
            "scores them %g or more",
            mined_ones, score.relabelled, score.relabel_from,
        )  # fmt: skip
    if survey.graded and reranker is None:
        logger.warning(
            "pos_scores and neg_scores of %s are relevances, 0 for mined negatives; read it with "
            '"relevance_from_scores": true, "positive_threshold": %r',
            args.output, args.positive_threshold,
        )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.exit(main())
