"""Qdrant's engine behind the routes of its server that stores/databases/qdrant.py asks.

    python -m benchmarks.stores.qdrant_engine FOLDER PORT

No package has the server itself; Qdrant Edge is its engine (segments, HNSW, quantization, sparse
vectors, filters, write-ahead log) as a library. A request is read by the client's own models. A
path before ``/collections`` is a store of its own. The server builds indexes in the background,
and here that begins when a collection's state is asked for; until they are built, other requests
for that collection wait.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Annotated, Any

import orjson
import qdrant_edge as edge
import uvicorn
from fastapi import APIRouter, BackgroundTasks, Body, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from qdrant_client import models

from benchmarks.stores.qdrant_types import (
    config,
    filter_of,
    params_of,
    points_of,
    records,
    state,
    vectors_of,
)

PLACE = "/{space}/collections"
LARGEST = 32 * 2**20  # bytes of a request
CREATED = "created.json"  # of a collection: what it was made with
OPTIMIZE = """
import qdrant_edge, sys
shard = qdrant_edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.close()
"""


class Server:
    """Collections, each in a folder.

    Args:
        folder: Of all of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: dict[str, edge.EdgeShard] = {}
        self.locks = defaultdict[str, RLock](RLock)
        self.written = set[str]()  # since their indexes were built

    def names(self, space: str) -> list[str]:
        """The collections of a store."""
        return sorted(path.parent.name for path in (self.folder / space).glob(f"*/{CREATED}"))

    def created(self, space: str, name: str) -> models.CreateCollection:
        """What a collection was made with."""
        path = self.folder / space / name / CREATED
        if not path.exists():
            raise HTTPException(404, f"Not found: Collection `{name}` doesn't exist!")
        return models.CreateCollection.model_validate_json(path.read_text())

    def create(self, space: str, name: str, given: models.CreateCollection) -> None:
        """Make an empty collection, or note anew what it was made with."""
        folder = self.folder / space / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "new").write_text(given.model_dump_json())
        (folder / "new").replace(folder / CREATED)

    @contextmanager
    def shard(self, space: str, name: str) -> Iterator[edge.EdgeShard]:
        """The points of a collection, for one request at a time."""
        key = f"{space}/{name}"
        with self.locks[key]:
            given = self.created(space, name)
            if key not in self.shards:
                folder = self.folder / key / "shard"
                make = edge.EdgeShard.load if folder.exists() else edge.EdgeShard.create
                self.shards[key] = make(str(folder), config(given))
            yield self.shards[key]

    def write(self, space: str, name: str, operation: edge.UpdateOperation) -> None:
        """Change the points of a collection."""
        with self.shard(space, name) as shard:
            shard.update(operation)
        self.written.add(f"{space}/{name}")

    def build_indexes(self, space: str, name: str) -> None:
        """Build those of a collection, in another process, as the library keeps this one's lock."""
        key = f"{space}/{name}"
        with self.shard(space, name) as shard:
            shard.close()
            del self.shards[key]
            subprocess.run(
                [sys.executable, "-c", OPTIMIZE, self.folder / key / "shard"], check=True
            )
            self.written.discard(key)

    def drop(self, space: str, name: str) -> None:
        """Delete a collection."""
        key = f"{space}/{name}"
        with self.locks[key]:
            self.written.discard(key)
            if key in self.shards:
                self.shards.pop(key).close()
            shutil.rmtree(self.folder / key, ignore_errors=True)


def answer(result: Any) -> dict[str, Any]:
    """An answer as the server gives it."""
    return {"result": result, "status": "ok", "time": 0.0}


def app(folder: Path) -> FastAPI:
    """The routes.

    Args:
        folder: Of all collections.
    """
    server, routes = Server(folder), FastAPI()
    routes.include_router(of_collections(server))
    routes.include_router(of_points(server))

    @routes.middleware("http")
    async def bounded(request: Request, call: Any) -> Any:
        if int(request.headers.get("content-length", 0)) > LARGEST:
            error = f"JSON payload is larger than allowed (limit: {LARGEST} bytes)."
            return JSONResponse({"status": {"error": error}, "time": 0.0}, 413)
        return await call(request)

    @routes.exception_handler(HTTPException)
    def not_there(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"status": {"error": error.detail}, "time": 0.0}, error.status_code)

    @routes.exception_handler(Exception)
    def refused(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"status": {"error": str(error)}, "time": 0.0}, 400)

    return routes


def of_collections(server: Server) -> APIRouter:
    """Routes for collections."""
    routes = APIRouter()

    @routes.get(PLACE)
    def collections(space: str) -> Any:
        return answer({"collections": [{"name": name} for name in server.names(space)]})

    @routes.put(PLACE + "/{name}")
    def create(space: str, name: str, given: Annotated[models.CreateCollection, Body()]) -> Any:
        if name in server.names(space):
            raise HTTPException(409, f"Wrong input: Collection `{name}` already exists!")
        server.create(space, name, given)
        return answer(True)

    @routes.patch(PLACE + "/{name}")
    def update(space: str, name: str, given: Annotated[models.UpdateCollection, Body()]) -> Any:
        created = server.created(space, name)
        created.metadata = (created.metadata or {}) | (given.metadata or {})
        server.create(space, name, created)
        return answer(True)

    @routes.delete(PLACE + "/{name}")
    def drop(space: str, name: str) -> Any:
        server.drop(space, name)
        return answer(True)

    @routes.get(PLACE + "/{name}")
    def info(space: str, name: str, later: BackgroundTasks) -> Any:
        created, about = server.created(space, name), dict[str, Any]()
        if f"{space}/{name}" not in server.written:
            with server.shard(space, name) as shard:
                about = points_of(shard.info())
        elif server.locks[f"{space}/{name}"].acquire(blocking=False):
            server.locks[f"{space}/{name}"].release()
            later.add_task(server.build_indexes, space, name)
        return answer(state(created) | about)

    @routes.put(PLACE + "/{name}/index")
    def index(space: str, name: str, given: Annotated[models.CreateFieldIndex, Body()]) -> Any:
        schema: Any = edge.FloatIndexParams()
        if given.field_schema != models.PayloadSchemaType.FLOAT:
            assert isinstance(given.field_schema, models.KeywordIndexParams)
            schema = edge.KeywordIndexParams(on_disk=given.field_schema.on_disk)
        server.write(space, name, edge.UpdateOperation.create_field_index(given.field_name, schema))
        return answer({"status": "completed", "operation_id": 0})

    return routes


def of_points(server: Server) -> APIRouter:
    """Routes for the points of a collection."""
    routes = APIRouter()

    @routes.put(PLACE + "/{name}/points")
    async def upsert(space: str, name: str, request: Request) -> Any:
        given = orjson.loads(await request.body())  # the client's models take twice the time
        points = [edge.Point(each["id"], vectors_of(each["vector"]), each["payload"])
                  for each in given["points"]]  # fmt: skip
        operation = edge.UpdateOperation.upsert_points(points)
        await run_in_threadpool(server.write, space, name, operation)
        return answer({"status": "completed", "operation_id": 0})

    @routes.post(PLACE + "/{name}/points/delete")
    def delete(space: str, name: str, given: Annotated[models.FilterSelector, Body()]) -> Any:
        chosen = filter_of(given.filter)
        assert chosen is not None
        server.write(space, name, edge.UpdateOperation.delete_points_by_filter(chosen))
        return answer({"status": "completed", "operation_id": 0})

    @routes.post(PLACE + "/{name}/points")
    def retrieve(space: str, name: str, given: Annotated[models.PointRequest, Body()]) -> Any:
        with server.shard(space, name) as shard:
            found = shard.retrieve(list(given.ids), given.with_payload, given.with_vector)
        return answer(records(found, vectors=bool(given.with_vector)))

    @routes.post(PLACE + "/{name}/points/scroll")
    def scroll(space: str, name: str, given: Annotated[models.ScrollRequest, Body()]) -> Any:
        asked = edge.ScrollRequest(given.offset, given.limit, with_payload=given.with_payload)
        with server.shard(space, name) as shard:
            found, following = shard.scroll(asked)
        after = None if following is None else str(following)
        return answer({"points": records(found), "next_page_offset": after})

    @routes.post(PLACE + "/{name}/points/count")
    def count(space: str, name: str) -> Any:
        with server.shard(space, name) as shard:
            number = shard.count(edge.CountRequest(exact=True))
        return answer({"count": number})

    @routes.post(PLACE + "/{name}/points/query")
    def query(space: str, name: str, given: Annotated[models.QueryRequest, Body()]) -> Any:
        asked: Any = given.query
        if isinstance(asked, models.NearestQuery):
            asked = asked.nearest
        request = edge.QueryRequest(
            limit=given.limit,
            query=edge.Query.Nearest(vectors_of(asked), using=given.using),
            with_payload=given.with_payload,
            filter=filter_of(given.filter),
            params=params_of(given.params),
        )
        with server.shard(space, name) as shard:
            found = shard.query(request)
        return answer({"points": records(found)})

    return routes


@contextmanager
def running(folder: Path, port: int = 0) -> Iterator[tuple[str, int]]:
    """The URL and the id of a process that serves a folder; a path after the URL is a store.

    ``port``: 0: one that is free.
    """
    if not port:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            port = listening.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.stores.qdrant_engine", str(folder), str(port)]
    process = subprocess.Popen(command)
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.05)
    yield f"qdrant+http://127.0.0.1:{port}", process.pid
    process.terminate()
    process.wait()


def main() -> None:
    """Serve a folder on loopback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    args = parser.parse_args()
    uvicorn.run(app(args.folder), host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
