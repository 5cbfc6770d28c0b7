"""What a model is measured on and how, from flags: shared by evaluate.py and export.py."""

import argparse
import json
import sys
from dataclasses import fields

from accelerate import PartialState

from common.bm25 import BM25
from encoders import Embedder, Reranker
from encoders.kinds import Kind
from evaluation.data.sets import PairData, RetrievalData
from evaluation.data.sources import open_data
from evaluation.measure import FirstStage, How, Model
from evaluation.metrics.ranking import DEFAULT_METRICS, check_metrics
from evaluation.search.retrieval import retrieve
from loaders import ReadOptions
from preparation.commands.flags import columns

Data = RetrievalData | PairData


def add_data(parser: argparse.ArgumentParser) -> None:
    """What they are measured on."""
    add = parser.add_argument
    add("--data", nargs="+", required=True, help="a BEIR folder, files in any training format, or "
        "mteb:TASK")  # fmt: skip
    add("--split", help="of a folder or Hub data set that has several; BEIR: which file of qrels/ "
        "(default: test)")  # fmt: skip
    add("--columns", type=columns, metavar="JSON", help='columns to fields: {"question": "query", '
        '"answers.text": "pos"}')  # fmt: skip
    add("--corpus", help="training formats: more documents to search (corpus.jsonl or its folder)")
    add("--allow_unknown", action="store_true", help="skip judgements of unknown ids, counted")
    add("--keep_identical_ids", action="store_true", help="a document with the id of the query "
        "counts as a result of it (BEIR leaves it out)")  # fmt: skip
    add("--as_groups", action="store_true", help="scored pairs: rank the documents of each query")
    add("--label_map", type=json.loads, help='labels to relevances: {"good": 1, "bad": 0}')
    add("--label_range", nargs=2, type=float, help="lowest and highest of scores: 0 5")
    add("--positive_threshold", type=float, default=0.5, help="relevance of a positive (0.5)")
    add("--metrics", nargs="+", default=list(DEFAULT_METRICS), help="such as ndcg@10 recall@100")
    add("--max_queries", type=int, help="take so many queries, evenly spread (default: all)")


def add_lengths(parser: argparse.ArgumentParser) -> None:
    """How models are run."""
    add = parser.add_argument
    add("--query_max_length", type=int, help="embedder: tokens of a query (default: the model's)")
    add("--document_max_length", type=int, help="embedder: tokens of a document")
    add(
        "--query_prompt", help="before queries without a prompt of their own (default: the model's)"
    )
    add("--document_prompt", help="before documents (default: the model's)")
    add("--truncate_dim", type=int, help="embedder: keep so many of an embedding's dimensions")
    add("--max_length", type=int, help="reranker: tokens of a pair (default: the model's)")
    add("--index", choices=["flat", "ivf", "hnsw"], help="search by FAISS, for large corpora")
    add("--tokens_per_batch", type=int, help="about so many tokens in one forward")
    add("--bf16", action="store_true", help="compute in bf16, on devices that have it")


def add_first_stage(parser: argparse.ArgumentParser) -> None:
    """What a reranker is given to order."""
    add = parser.add_argument
    add("--first_stage", default="bm25", help="reranker: an embedder, or bm25 (default)")
    add("--top_k", type=int, default=100, help="reranker: documents of it to order (default: 100)")


def check_numbers(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse counts below 1 and metrics that do not exist."""
    for name, value in vars(args).items():
        if type(value) is int and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    try:
        check_metrics(args.metrics)
    except ValueError as error:
        parser.error(str(error))


def read_data(args: argparse.Namespace, kind: Kind) -> Data:
    """What to measure on."""
    options = ReadOptions(
        label_map=args.label_map,
        label_range=tuple(args.label_range) if args.label_range else None,
        positive_threshold=args.positive_threshold,
        columns=args.columns,
        split=args.split,
        evaluates=True,
    )
    data = open_data(
        args.data,
        kind,
        options,
        split=args.split or "test",
        corpus=args.corpus,
        allow_unknown=args.allow_unknown,
        as_groups=args.as_groups,
        keep_identical_ids=args.keep_identical_ids,
    )
    return data if isinstance(data, PairData) else data.sample(args.max_queries)


def open_model(name: str, kind: Kind, args: argparse.Namespace) -> Model:
    """The model, on the GPU if there is one, with the prompts and dimensions that are asked for."""
    model: Model
    if kind == "reranker":
        model = Reranker.from_pretrained(name, trust_remote_code=args.trust_remote_code)
    else:
        model = Embedder.from_pretrained(
            name, truncate_dim=args.truncate_dim, trust_remote_code=args.trust_remote_code
        )
    model.replace_prompts(args.query_prompt, args.document_prompt)
    return model.to(PartialState().device)


def how(args: argparse.Namespace) -> How:
    """How models are run."""
    names = [known.name for known in fields(How) if known.name != "show_progress"]
    shown = PartialState().is_main_process and sys.stderr.isatty()
    return How(**{name: getattr(args, name) for name in names}, show_progress=shown)


def find_first_stage(
    args: argparse.Namespace, kind: Kind, data: RetrievalData
) -> FirstStage | None:
    """What a reranker is to order, unless the data say it."""
    if kind == "embedder" or data.candidates is not None:
        return None
    if args.first_stage != "bm25":
        embedder = Embedder.from_pretrained(
            args.first_stage, trust_remote_code=args.trust_remote_code
        ).to(PartialState().device)
        run = retrieve(embedder, data, args.top_k, **how(args).search())
        return FirstStage(run, args.top_k)
    ids = list(data.documents)
    wanted = args.top_k + bool(data.own_documents)
    hits = BM25(list(data.documents.values())).search(list(data.queries.values()), wanted)
    run = {}
    for query, found in zip(data.queries, hits, strict=True):
        scores = {ids[at]: score for at, score in found if not data.is_query(query, ids[at])}
        run[query] = dict(list(scores.items())[: args.top_k])
    return FirstStage(run, args.top_k)
