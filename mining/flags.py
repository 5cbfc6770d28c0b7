"""The flags of mine_negatives.py, and those that score_with_teacher.py shares."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mining.policy.policy import Limits, Policy
from mining.work import default_cache_dir
from preparation.commands.flags import (
    add_bad_rows,
    add_input,
    add_overwrite,
    add_read_options,
    add_trust,
    positive,
)


def add_files(parser: argparse.ArgumentParser) -> None:
    """What is read and written."""
    add_input(parser, "rows in any training format: files, folders, Hub data sets")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the groups: "
        ".jsonl, .json or .parquet")  # fmt: skip
    add_overwrite(parser)


def add_search(parser: argparse.ArgumentParser) -> None:
    """Who searches, and where."""
    group = parser.add_argument_group("search")
    add = group.add_argument
    add("--corpus", nargs="+", metavar="FILE", help="where negatives come from: corpus.jsonl (_id "
        "or docid, title, text) or its folder, or training files (default: --input)")  # fmt: skip
    who = group.add_mutually_exclusive_group(required=True)
    who.add_argument("--embedder", metavar="MODEL", help="a folder, Hub name or package://…")
    who.add_argument("--bm25", action="store_true", help="search by words, without a model")
    add("--faiss", action="store_true", help="with --embedder: approximate search, for corpora too "
        "large for an exact one (needs the extra faiss)")  # fmt: skip
    add_embedder_settings(group)


def add_embedder_settings(group: argparse._ArgumentGroup) -> None:
    """How an embedder reads texts."""
    add = group.add_argument
    add("--query_max_length", type=positive, metavar="N", help="tokens of a query (default: the "
        "model's limit)")  # fmt: skip
    add("--document_max_length", type=positive, metavar="N", help="tokens of a document")
    add("--query_prompt", metavar="TEXT", help="before queries without a prompt of their own "
        "(default: the model's)")  # fmt: skip
    add("--document_prompt", metavar="TEXT", help="before documents (default: the model's)")


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Which documents become negatives. Defaults are those of ``Policy``."""
    usual = Policy()
    add = parser.add_argument_group("negatives").add_argument
    add("--num_negatives", type=positive, default=usual.num_negatives, metavar="N", help="to mine "
        "for each query (default: %(default)s)")  # fmt: skip
    add("--rank_range", nargs=2, type=positive, default=list(usual.rank_range),
        metavar=("FIRST", "LAST"), help="ranks of hard negatives; 1 is the best hit (default: 2 "
        "200)")  # fmt: skip
    add("--sampling", choices=("random", "top"), default=usual.sampling, help="draw from the range "
        "at random, or take the best that may be taken (default: %(default)s)")  # fmt: skip
    add("--random_share", type=float, default=usual.random_share, metavar="SHARE", help="of the "
        "negatives that are random documents instead (default: 0)")  # fmt: skip
    add("--random_from", type=positive, metavar="RANK", help="draw random ones from ranks above "
        "this (default: from the whole corpus)")  # fmt: skip
    add("--existing", choices=("keep", "replace"), default="keep", help="what becomes of negatives "
        "that rows have already (default: %(default)s)")  # fmt: skip
    add("--seed", type=int, default=usual.seed, help="(default: %(default)s)")
    add = parser.add_argument_group("what is removed, beside positives by id and text").add_argument
    add("--max_score", type=float, metavar="S", help="documents that score more than S")
    add("--absolute_margin", type=float, metavar="M", help="those that score more than the lowest "
        "positive's score - M")  # fmt: skip
    add("--relative_margin", type=float, metavar="M", help="those above (1 - M) of that score; "
        "0.05 keeps up to 95%% of it")  # fmt: skip
    add("--near_duplicates", type=float, default=usual.near_duplicates, metavar="SHARE",
        help="those that share so many of their runs of three words with a positive or the query "
        "(default: %(default)s; 0: off)")  # fmt: skip


def add_reranker(parser: argparse.ArgumentParser) -> None:
    """A second look at what the search found."""
    add = parser.add_argument_group(
        "reranker", "its scores are written as pos_scores and neg_scores; limits are on a scale "
        "from 0 to 1"
    ).add_argument  # fmt: skip
    add("--reranker", metavar="MODEL", help="scores positives and negatives, as a teacher")
    for name in ("max_score", "absolute_margin", "relative_margin"):
        add(f"--reranker_{name}", type=float, metavar="S", help=f"--{name} for its scores")
    add("--max_length", type=positive, metavar="N", help="tokens of a pair (default: the model's "
        "limit)")  # fmt: skip
    add_scale(parser)


def add_scale(parser: argparse.ArgumentParser) -> None:
    """How a reranker's scores are written."""
    parser.add_argument("--scores", choices=("raw", "sigmoid"), default="raw", help="written as "
        "the reranker gives them, or from 0 to 1 (default: %(default)s)")  # fmt: skip


def add_running(parser: argparse.ArgumentParser) -> None:
    """How the work is done."""
    add = parser.add_argument_group("running").add_argument
    add("--cache_dir", type=Path, default=default_cache_dir(), metavar="DIR", help="of vectors and "
        "scores, so that no text is encoded twice (default: %(default)s)")  # fmt: skip
    add("--bf16", action="store_true", help="compute in bf16, on devices that have it")
    add(
        "--tokens_per_batch", type=positive, metavar="N", help="about so many tokens in one forward"
    )
    add_trust(parser)


def parse_mining(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of mine_negatives.py; ``--help`` explains each."""
    parser = new_parser(description)
    add_files(parser)
    add_search(parser)
    add_policy(parser)
    add_reranker(parser)
    add_running(parser)
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="queries to show with "
        "their negatives at the end (default: %(default)s)")  # fmt: skip
    add_read_options(parser)
    add_bad_rows(parser)
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def parse_scoring(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of score_with_teacher.py; ``--help`` explains each."""
    parser = new_parser(description)
    add_files(parser)
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL", help="a reranker or an embedder: a folder, Hub "
        "name or package://…")  # fmt: skip
    add("--max_length", type=positive, metavar="N", help="reranker: tokens of a pair (default: the "
        "model's limit)")  # fmt: skip
    add_scale(parser)
    add_embedder_settings(parser.add_argument_group("embedder"))
    add_running(parser)
    add_read_options(parser)
    add_bad_rows(parser)
    return parser.parse_args(argv)


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that takes no abbreviations and shows the description as it is."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what cannot be before anything is opened."""
    limited = any(value is not None for value in vars(reranker_limits(args)).values())
    if args.reranker is None and (limited or args.scores != "raw" or args.max_length):
        parser.error("--reranker_* limits, --scores and --max_length need --reranker MODEL")
    of_embedder = ("query_max_length", "document_max_length", "query_prompt", "document_prompt")
    given = [name for name in of_embedder if getattr(args, name) is not None]
    if args.bm25 and (given or args.faiss):
        parser.error(f"--{(given or ['faiss'])[0]} needs --embedder MODEL")


def read_policy(args: argparse.Namespace) -> Policy:
    """What may become a negative."""
    names = ("num_negatives", "sampling", "random_share", "random_from", "seed")
    return Policy(
        **{name: getattr(args, name) for name in names},
        rank_range=tuple(args.rank_range),
        near_duplicates=args.near_duplicates or None,
        limits=Limits(args.max_score, args.absolute_margin, args.relative_margin),
    )


def reranker_limits(args: argparse.Namespace) -> Limits:
    """What a reranker removes."""
    return Limits(
        args.reranker_max_score, args.reranker_absolute_margin, args.reranker_relative_margin
    )
