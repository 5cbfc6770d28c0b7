"""PostgreSQL with pgvector: a database, its connections, and the catalog."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb, set_json_loads
from psycopg_pool import ConnectionPool, PoolTimeout

from stores.databases.postgres_table import MOST_DIMENSIONS, PostgresTable
from stores.databases.postgres_words import lock_key, sql_of, words_of
from stores.store import Layout, Store, StoreUnavailable, first_line

CATALOG = "tandem_collections"
WAIT = 10.0  # seconds for a connection
# libpq's settings, unless the URL has others: of a host that is gone, TCP alone would be told after
# a quarter of an hour.
SETTINGS = {"connect_timeout": int(WAIT), "keepalives_idle": 30, "tcp_user_timeout": 30_000}


class PostgresStore(Store):
    """A database, and its schema ``public`` unless the URL names another.

    Args:
        url: As libpq reads it. What it leaves out comes from the environment (PGPASSWORD) and
            ``~/.pgpass``.

    Raises:
        StoreUnavailable: The server does not answer, or refuses the user.
        ValueError: It has no pgvector.
    """

    def __init__(self, url: str) -> None:
        try:
            settings: dict[str, Any] = SETTINGS | conninfo_to_dict(url)
            conninfo = make_conninfo(**settings)
            with psycopg.connect(conninfo, autocommit=True) as connection:
                # To search what is there, a user needs no right to create.
                if CATALOG not in _tables(connection):
                    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                    connection.execute(
                        f"CREATE TABLE IF NOT EXISTS {CATALOG} (name text PRIMARY KEY, about jsonb "
                        "NOT NULL)"
                    )
        except psycopg.OperationalError as error:
            raise StoreUnavailable(f"store: {first_line(error)}") from None
        except psycopg.Error as error:
            raise ValueError(
                f"store: {first_line(error)}; the database needs the extension pgvector, and its "
                "user the right to create tables"
            ) from None
        self.pool = ConnectionPool(
            conninfo, min_size=1, max_size=16, timeout=WAIT, open=True, configure=_configure,
            check=ConnectionPool.check_connection,
        )  # fmt: skip

    @contextmanager
    def connection(self) -> Iterator[Connection[TupleRow]]:
        """A connection, in a transaction.

        Raises:
            StoreUnavailable: There is none to be had, or it broke.
        """
        try:
            with self.pool.connection() as connection:
                yield connection
        except (PoolTimeout, psycopg.OperationalError) as error:
            raise StoreUnavailable(f"store: {first_line(error)}") from None

    def catalog(self) -> dict[str, dict[str, Any]]:
        with self.connection() as connection:
            return dict(connection.execute(f"SELECT name, about FROM {CATALOG}").fetchall())

    def publish(self, collection: str, about: dict[str, Any]) -> None:
        with self.connection() as connection:
            connection.execute(
                f"INSERT INTO {CATALOG} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET about = "
                "excluded.about",
                [collection, Jsonb(about)],
            )

    def tables(self) -> list[str]:
        with self.connection() as connection:
            return _tables(connection)

    def open(self, table: str, layout: Layout, create: bool = False) -> "PostgresTable":
        layout.check_one_vector("PostgreSQL")
        if layout.quantization == "int8":
            raise ValueError(
                "quantization: pgvector has no int8; give binary, or dtype float16 (halfvec)"
            )
        if layout.dimensions > (most := MOST_DIMENSIONS[layout.dtype]):
            raise ValueError(
                f"dimensions: pgvector holds up to {most:,} of {layout.dtype}, and the model has "
                f"{layout.dimensions:,}; give --truncate_dim, --dtype float16 (up to "
                f"{MOST_DIMENSIONS['float16']:,}), or another store"
            )
        opened = PostgresTable(self.connection, table, layout)
        if create:
            opened.create()
        return opened

    def drop(self, table: str) -> None:
        with self.connection() as connection:
            for name in (table, words_of(table)):
                connection.execute(sql_of("DROP TABLE IF EXISTS {}", name))

    @contextmanager
    def lock(self, collection: str) -> Iterator[None]:
        with self.connection() as connection:
            key = [lock_key(f"index {collection}")]
            got = connection.execute("SELECT pg_try_advisory_lock(%s)", key).fetchone()
            if got is None or not got[0]:
                raise ValueError(
                    f"store: another process is indexing the collection {collection!r}; wait for it"
                )
            connection.commit()
            try:
                yield
            finally:
                if not connection.broken:
                    connection.execute("SELECT pg_advisory_unlock(%s)", key)

    def close(self) -> None:
        self.pool.close()


def _tables(connection: Connection[TupleRow]) -> list[str]:
    """The names of the tables of the schema."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    return [name for (name,) in connection.execute(query)]


def _configure(connection: Connection[TupleRow]) -> None:
    register_vector(connection)
    connection.commit()
    set_json_loads(_loads, connection)
    # A plan that is kept serves exact searches and others, and all filters, alike.
    connection.prepare_threshold = None


def _loads(text: str | bytes) -> Any:
    """Read jsonb, which returns 1e20 as an integer; the server writes none above 64 bits."""
    return json.loads(text, parse_int=_number)


def _number(digits: str) -> int | float:
    value = int(digits)
    return value if abs(value) < 2**63 else float(value)
