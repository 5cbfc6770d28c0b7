"""Documents and their vectors in a vector database: LanceDB, PostgreSQL with pgvector, Qdrant."""

from stores.opening import open_store
from stores.store import Document, Hit, Store, StoreUnavailable, Table

__all__ = ["Document", "Hit", "Store", "StoreUnavailable", "Table", "open_store"]
