"""Evaluate embedders and rerankers: metrics, retrieval, reranking, significance tests."""

from evaluation.data.resolve import read_beir, read_corpus
from evaluation.data.sets import PairData, RetrievalData
from evaluation.data.trec import read_run, write_run
from evaluation.metrics.comparison import Comparison, compare
from evaluation.metrics.ranking import DEFAULT_METRICS, Qrels, Run, per_query
from evaluation.search.distributed import InferenceSettings
from evaluation.search.reranking import rerank
from evaluation.search.retrieval import retrieve

__all__ = [
    "DEFAULT_METRICS",
    "Comparison",
    "InferenceSettings",
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
