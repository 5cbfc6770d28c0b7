"""How well a model finds and orders documents: metrics, retrieval, reranking, comparison."""

from evaluation.beir import read_beir, read_corpus
from evaluation.comparison import Comparison, compare
from evaluation.data import PairData, RetrievalData
from evaluation.metrics import DEFAULT_METRICS, Qrels, Run, per_query
from evaluation.reranking import rerank
from evaluation.retrieval import retrieve
from evaluation.trec import read_run, write_run

__all__ = [
    "DEFAULT_METRICS",
    "Comparison",
    "PairData",
    "Qrels",
    "RetrievalData",
    "Run",
    "compare",
    "per_query",
    "read_beir",
    "read_corpus",
    "read_run",
    "rerank",
    "retrieve",
    "write_run",
]
