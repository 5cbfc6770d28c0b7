"""The models of a search stack: an embedder retrieves, a reranker orders what was retrieved.

A multi-vector encoder, too, orders what was retrieved, but reads queries and documents apart.
"""

from encoders.embedder import Embedder
from encoders.multi_vector import MultiVectorEncoder
from encoders.reranker import Reranker

__all__ = ["Embedder", "MultiVectorEncoder", "Reranker"]
