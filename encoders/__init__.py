"""The models of a search stack: an embedder retrieves, a reranker orders what was retrieved."""

from encoders.embedder import Embedder
from encoders.reranker import Reranker

__all__ = ["Embedder", "Reranker"]
