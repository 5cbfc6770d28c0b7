"""The two kinds of model of a search stack: the embedder that finds, the reranker that orders."""

from encoders.embedder import Embedder
from encoders.reranker import Reranker

__all__ = ["Embedder", "Reranker"]
