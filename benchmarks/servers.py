"""How fast does a server answer, next to others on this machine, and what does it stand?

    python benchmarks/servers.py embed                  # one text a request
    python benchmarks/servers.py rerank                 # one query and 8 documents a request
    python benchmarks/servers.py embed --infinity /path/to/venv/bin/infinity_emb \\
        --int8 outputs/embedding_int8               # what scripts/export.py wrote
    python benchmarks/servers.py hold                   # load, overload, bulk work, memory

Servers run one at a time, with the same model, texts and length limit, each in a process of its
own: ``scripts/serve.py``, benchmarks/obvious_server.py, and infinity-emb from an environment of its
own (infinity-emb[server,torch] 0.0.77 wants transformers 4.48.3, sentence-transformers 3.4.1,
optimum 1.24.0 and a click before 8.2). For each number of clients every server is asked the same
requests, after a warm-up. Rows are those of ``make quickstart``, or of ``--data`` in any training
format.
"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from http_load import Connection, Load, arrivals, load
from results import BASE, machine, record, versions

from encoders import Reranker
from encoders.source import find_model
from loaders import ReadOptions, load_rows

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = 8
TANDEM, INT8 = "Tandem", "Tandem, int8"
OBVIOUS, INFINITY = "FastAPI + sentence-transformers", "infinity-emb"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("task", choices=["embed", "rerank", "hold"])
    add("--model", help="default: all-MiniLM-L6-v2, as embedder or with a new scoring head")
    add("--data", nargs="+", default=["data/docstrings/train_pairs.jsonl"])
    add("--infinity", help="the program infinity_emb of another environment")
    add("--int8", type=Path, help="the same model, exported in 8 bits, for a row of its own")
    add("--clients", nargs="+", type=int, default=[1, 8, 32, 128])
    add("--seconds", type=float, default=20.0, help="for each number of clients")
    add("--requests", type=int, default=10_000, help="hold: for the growth of memory")
    add("--flags", default="", help="more flags for scripts/serve.py, in one string")
    add("--about", default="", help="a sentence for the table: versions of infinity, flags")
    add("--record", action="store_true", help="write the table to RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.task == "hold":
            return hold(args, Path(scratch))
        compare(args, Path(scratch))
    return 0


def compare(args: argparse.Namespace, scratch: Path) -> None:
    """All servers, one after the other, and a table."""
    folder, bodies = find_folder(args, scratch), request_bodies(args)
    servers = {TANDEM: folder, OBVIOUS: folder}
    if args.int8:
        servers[INT8] = args.int8
    if args.infinity:
        servers[INFINITY] = folder
    lines = [
        f"## serving, {args.task}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions()}. {args.model or BASE} in fp32, "
        f"texts of the docstrings, clients that ask again as soon as they are answered, "
        f"{args.seconds:g} s for each number of them. {args.about}".rstrip(),
        "",
        "| server | clients | requests/s | p50, ms | p99, ms | not 200 | memory, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines[-2:]))
    for server, model in servers.items():
        with running(server, args, model) as (url, process):
            path = "/embeddings" if (server, args.task) == (INFINITY, "embed") else f"/{args.task}"
            asked = [as_asked(server, args.task, body, folder) for body in bodies]
            asyncio.run(load(url, path, asked, 4, seconds=args.seconds / 4))
            for clients in args.clients:
                found = asyncio.run(load(url, path, asked, clients, seconds=args.seconds))
                wrong = sum(found.statuses.values()) - found.statuses[200]
                lines.append(
                    f"| {server} | {clients} | {found.rate:.1f} "
                    f"| {1000 * found.quantile(0.5):.0f} | {1000 * found.quantile(0.99):.0f} "
                    f"| {wrong} | {memory(process):.0f} |"
                )
                print(lines[-1], flush=True)
    if args.record:
        record(lines[0].removeprefix("## "), "\n".join(lines) + "\n")


def hold(args: argparse.Namespace, scratch: Path) -> int:
    """What must be so under any load; the status is 1 if something is not."""
    args.task = "embed"
    folder, texts = find_folder(args, scratch), [body["text"] for body in request_bodies(args)]
    bodies = [{"text": text} for text in texts]
    results: list[bool] = []

    def check(what: str, well: bool, seen: str) -> None:
        results.append(well)
        print(f"{'ok  ' if well else 'BAD '} {what}: {seen}", flush=True)

    with running(TANDEM, args, folder) as (url, process):
        asyncio.run(check_load(url, args, bodies, check))
        asyncio.run(check_bulk(url, args, texts, check))
        before = memory(process)
        found = asyncio.run(load(url, "/embed", bodies, 32, requests=args.requests))
        grown = memory(process) / before - 1
        check(f"memory after {args.requests} requests", grown < 0.05, f"{grown:+.1%}")
        wrong = {status: n for status, n in found.statuses.items() if status not in (200, 429)}
        check("only 200 and 429", not wrong, str(dict(found.statuses)))
    with running(TANDEM, args, folder, "--max_wait", "1") as (url, process):
        asyncio.run(check_overload(url, args, bodies, process, check))
    return 0 if all(results) else 1


async def check_load(url: str, args: argparse.Namespace, bodies: list[Any], check: Any) -> None:
    """No request hangs or fails, and ``/live`` answers at once."""
    rates = {}
    for clients in args.clients:
        work = asyncio.create_task(load(url, "/embed", bodies, clients, seconds=args.seconds))
        live: list[float] = []
        connection = Connection(url)
        while not work.done():
            begun = time.perf_counter()
            await connection.ask("/live", None)
            live.append(time.perf_counter() - begun)
            await asyncio.sleep(0.05)
        connection.close()
        found = work.result()
        rates[clients] = found.rate
        wrong = {status: n for status, n in found.statuses.items() if status not in (200, 429)}
        check(f"{clients} clients, only 200 and 429", not wrong, str(dict(found.statuses)))
        p99 = sorted(live)[int(0.99 * len(live))]
        check(f"{clients} clients, /live p99 < 100 ms", p99 < 0.1, f"{1000 * p99:.0f} ms")
    most = max(rates)
    better = rates[most] >= rates[min(rates)]
    check("batches are no slower than one at a time", better, f"{rates} requests/s")


async def check_bulk(url: str, args: argparse.Namespace, texts: list[str], check: Any) -> None:
    """Single queries beside bulk work wait for a batch or two, not for the bulk."""
    queries = [{"text": text[:60]} for text in texts]
    idle = await load(url, "/embed", queries, 1, seconds=args.seconds / 2)
    bulk = [{"texts": texts[:256]}]
    alone = await load(url, "/embed_batch", bulk, 1, requests=1)
    work = asyncio.create_task(load(url, "/embed_batch", bulk, 4, seconds=args.seconds))
    await asyncio.sleep(1)
    beside = await load(url, "/embed", queries, 1, seconds=args.seconds / 2)
    done: Load = await work
    tokens = sum(map(len, texts[:256])) / 4  # about
    batch = alone.seconds * min(1.0, 1024 / tokens)
    allowed = 3 * idle.quantile(0.95) + 2 * batch
    seen = f"{1000 * beside.quantile(0.95):.0f} ms, idle {1000 * idle.quantile(0.95):.0f} ms"
    check("p95 beside bulk work", beside.quantile(0.95) <= allowed, seen)
    check("bulk work goes on", done.statuses[200] > 0, str(dict(done.statuses)))


async def check_overload(
    url: str, args: argparse.Namespace, bodies: list[Any], process: Any, check: Any
) -> None:
    """Five times what it can do: some are refused with 429, those let in are answered in time."""
    able = (await load(url, "/embed", bodies, 32, seconds=args.seconds / 2)).rate
    before = memory(process)
    found = await arrivals(url, "/embed", bodies, 5 * able, seconds=args.seconds)
    wrong = {status: n for status, n in found.statuses.items() if status not in (200, 429)}
    check(f"{5 * able:.0f} requests/s, only 200 and 429", not wrong, str(dict(found.statuses)))
    p99 = found.quantile(0.99)
    check("p99 of those let in <= max_wait + 2 s", p99 <= 3, f"{p99:.1f} s")
    await asyncio.sleep(3)
    after = await load(url, "/embed", bodies, 1, requests=20)
    check("after it all is well", after.statuses[200] == 20, str(dict(after.statuses)))
    grown = memory(process) / before - 1
    check("memory after it", grown < 0.1, f"{grown:+.1%}")


def find_folder(args: argparse.Namespace, scratch: Path) -> Path:
    """The model's folder; a reranker is made of the base where none is given."""
    if args.task == "embed" or args.model:
        return find_model(args.model or BASE)
    Reranker.from_pretrained(BASE).save_pretrained(scratch / "reranker")
    return scratch / "reranker"


def request_bodies(args: argparse.Namespace) -> list[Any]:
    """Requests in Tandem's form: texts of mixed length, the same for all servers."""
    rows = load_rows(args.data, "positive_pair", ReadOptions())
    chosen = random.Random(0).sample(range(len(rows)), min(1024, len(rows)))
    pairs = [(rows[at]["query"], rows[at]["pos_doc"]) for at in chosen]
    if args.task != "rerank":
        return [{"text": text} for pair in pairs for text in pair]
    documents = [document for _, document in pairs]
    return [
        {
            "query": query,
            "documents": [documents[(at + n) % len(documents)] for n in range(DOCUMENTS)],
        }
        for at, (query, _) in enumerate(pairs)
    ]


def as_asked(server: str, task: str, body: Any, folder: Path) -> Any:
    """A request as the server wants it."""
    if server == INFINITY and task == "embed":
        return {"input": [body["text"]], "model": str(folder)}
    if server == INFINITY:
        return body | {"model": str(folder)}
    return body


@contextmanager
def running(
    server: str, args: argparse.Namespace, folder: Path, *flags: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server's address and process, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ours = f"scripts/serve.py --port {port} {args.flags}".split()
    theirs = f"--port {port} --device cpu --engine torch --no-bettertransformer".split()
    tandem = [sys.executable, *ours, "--model", folder, *flags]
    commands = {
        TANDEM: tandem,
        INT8: tandem,
        OBVIOUS: [sys.executable, "benchmarks/obvious_server.py", args.task, folder, port],
        INFINITY: [args.infinity, "v2", "--model-id", folder, *theirs],
    }
    command = list(map(str, commands[server]))
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_up(url, process)
            yield url, process
        finally:
            process.terminate()
            process.wait(60)


def wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until ``/health`` says 200."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        if process.poll() is not None:
            break
    raise SystemExit(f"the server did not start: {json.dumps(process.args, default=str)}")


def memory(process: subprocess.Popen[bytes]) -> float:
    """MiB that the process and its children hold."""
    whole = psutil.Process(process.pid)
    all_of_them = [whole, *whole.children(recursive=True)]
    return float(sum(each.memory_info().rss for each in all_of_them)) / 2**20


if __name__ == "__main__":
    sys.exit(main())
