"""How well a model finds and orders documents: metrics, retrieval, reranking, comparison."""

from evaluation.beir import RetrievalData, read_beir
from evaluation.comparison import Difference, paired_difference
from evaluation.metrics import METRICS, Judgements, per_query
from evaluation.reranking import rerank
from evaluation.retrieval import Rankings, retrieve

__all__ = [
    "METRICS",
    "Difference",
    "Judgements",
    "Rankings",
    "RetrievalData",
    "paired_difference",
    "per_query",
    "read_beir",
    "rerank",
    "retrieve",
]
