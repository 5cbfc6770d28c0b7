"""Open a store by its URL."""

import importlib
import re

from stores.store import Store, StoreUnavailable, first_line

# What a URL begins with -> the module and class, and the extra that brings its package.
KINDS = {
    "postgresql": ("stores.databases.postgres", "PostgresStore", "postgres"),
    "postgres": ("stores.databases.postgres", "PostgresStore", "postgres"),
    "qdrant": ("stores.databases.qdrant", "QdrantStore", "qdrant"),
    "qdrant+http": ("stores.databases.qdrant", "QdrantStore", "qdrant"),
    "qdrant+https": ("stores.databases.qdrant", "QdrantStore", "qdrant"),
}
LANCE = ("stores.databases.lance", "LanceStore", "lancedb")
# Where LanceDB keeps tables, besides folders.
OBJECT_STORES = ("s3", "gs", "az")


def open_store(url: str) -> Store:
    """Open the store at a URL.

    Args:
        url: A folder (LanceDB; also ``s3://``, ``gs://``, ``az://``), ``postgresql://...``,
            ``qdrant+http://host:6333``, ``qdrant+https://...`` or ``qdrant:folder``.

    Raises:
        ValueError: The URL has another form, or a package is missing.
        StoreUnavailable: The database does not answer.
    """
    if url in ("", "qdrant:"):
        raise ValueError(f"store: {url!r} names no folder; give one")
    scheme = re.match(r"([a-z][a-z0-9+]+):", url)
    if scheme is None or scheme[1] in OBJECT_STORES:
        module, name, extra = LANCE
    elif scheme[1] in KINDS:
        module, name, extra = KINDS[scheme[1]]
    else:
        raise ValueError(
            f"store: {redacted(url)}: unknown kind of store {scheme[1]!r}; give a folder "
            "(LanceDB), postgresql://user@host/database, qdrant+http://host:6333 or qdrant:folder"
        )
    try:
        kind = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ValueError(
            f"store: {redacted(url)}: the package {error.name} is missing; install it with "
            f"pip install -c constraints.txt -e '.[{extra}]'"
        ) from None
    try:
        store: Store = kind(url)
        store.tables()  # only now does LanceDB reach for an object store
    except RuntimeError as error:
        raise StoreUnavailable(
            f"store: {redacted(url)}: {first_line(error).partition(', /')[0]}; an object store "
            "needs the variables that LanceDB reads, such as AWS_REGION and AWS_ACCESS_KEY_ID"
        ) from None
    return store


def redacted(url: str) -> str:
    """A URL without its password, for messages."""
    url = re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)
    return re.sub(r"(password=)[^&]*", r"\1***", url)
