"""What do a server's clients see when things go wrong? Real faults, on the real server.

    python benchmarks/faults/faults.py                    # all of them
    python benchmarks/faults/faults.py order --requests 10000

order     so many requests at once, each with another text: every answer is its own text's vector
full      more clients than the queue takes
gone      clients that leave before they are answered
sigterm   the server is told to end, under load
kill      the server is killed (-9), under load

The end of the model thread cannot be caused from outside; tests/serving/http/test_faults.py
causes it.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np

from benchmarks.serving.http_load import Connection, load
from benchmarks.serving.servers import request_bodies, running, tandem
from benchmarks.speed.results import BASE
from encoders import Embedder
from encoders.opening.source import resolve_model

CLIENTS = 32
Told = Coroutine[Any, Any, str]


def main() -> None:
    """One line for each fault: what clients saw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    faults: dict[str, tuple[Callable[..., Told], list[str]]] = {
        "order": (order, ["--max_wait", "3600", "--request_timeout", "3600"]),
        "full": (full, ["--max_wait", "1"]),
        "gone": (gone, []),
        "sigterm": (ended(signal.SIGTERM), []),
        "kill": (ended(signal.SIGKILL), []),
    }
    add("faults", nargs="*", metavar="FAULT", help="of those above (default: all)")
    add("--model", default=BASE)
    add("--data", nargs="+", default=["data/docstrings/train_pairs.jsonl"])
    add("--requests", type=int, default=10_000, help="of order")
    add("--seconds", type=float, default=10.0, help="of load")
    add("--flags", default="", help="more flags for scripts/serve.py, in one string")
    args = parser.parse_args()
    args.task = "embed"
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for name in args.faults or faults:
        work, flags = faults[name]
        command = tandem(resolve_model(args.model), *args.flags.split(), *flags)
        with running(command) as (url, process):
            print(f"{name:8}", asyncio.run(work(args, url, process)), flush=True)


async def order(args: argparse.Namespace, url: str, _: object) -> str:
    """Every request at once, on a connection of its own."""
    words = [body["text"].split() for body in request_bodies(args)]
    texts = [" ".join([str(n), *words[n % len(words)][:12]]) for n in range(args.requests)]
    model = Embedder.from_pretrained(resolve_model(args.model))
    begun = time.perf_counter()

    async def ask(text: str) -> tuple[int, bytes]:
        connection = Connection(url)
        found = await connection.ask("/embed", json.dumps({"text": text}).encode())
        connection.close()
        return found

    answers = await asyncio.gather(*map(ask, texts))
    seconds = time.perf_counter() - begun
    statuses = Counter(status for status, _ in answers)
    if statuses != {200: len(texts)}:
        return f"BAD: {dict(statuses)}"
    found = np.array([json.loads(body)["embedding"] for _, body in answers])
    wanted = model.encode(texts).numpy()
    blocks = range(0, len(texts), 500)
    nearest = [(found[at : at + 500] @ wanted.T).argmax(axis=1) for at in blocks]
    own = int((np.concatenate(nearest) == np.arange(len(texts))).sum())
    return (
        f"{len(texts):,} requests at once, all 200 in {seconds:.0f} s; {own:,} answers are nearest "
        f"to their own text's vector, which differs by at most {abs(found - wanted).max():.1e}"
    )


async def full(args: argparse.Namespace, url: str, _: object) -> str:
    """A thousand clients."""
    found = await load(url, "/embed", request_bodies(args), 1000, seconds=args.seconds)
    return (
        f"1,000 clients: {dict(found.statuses)}; those let in waited {found.quantile(0.5):.2f} s, "
        f"99 % at most {found.quantile(0.99):.2f} s"
    )


async def gone(args: argparse.Namespace, url: str, _: object) -> str:
    """Ask, and hang up at once; beside it others ask as ever."""
    bodies = [json.dumps(body).encode() for body in request_bodies(args)]
    work = asyncio.create_task(
        load(url, "/embed", request_bodies(args), CLIENTS, seconds=args.seconds)
    )
    left = 0
    while not work.done():
        tasks = [asyncio.create_task(Connection(url).ask("/embed", body)) for body in bodies[:50]]
        await asyncio.sleep(0.2)
        left += sum(not task.done() for task in tasks)
        for task in tasks:
            task.cancel()
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    dropped = next(line for line in lines if line.startswith("tandem_dropped_total"))
    return f"{left} left while they waited ({dropped}); the others: {dict(work.result().statuses)}"


def ended(number: signal.Signals) -> Callable[..., Told]:
    """The server gets this signal in the middle of the load."""

    async def run(args: argparse.Namespace, url: str, process: subprocess.Popen[bytes]) -> str:
        work = asyncio.create_task(
            load(url, "/embed", request_bodies(args), CLIENTS, seconds=args.seconds)
        )
        await asyncio.sleep(args.seconds / 2)
        begun = time.perf_counter()
        os.kill(process.pid, number)
        status = await asyncio.to_thread(process.wait)
        seconds = time.perf_counter() - begun
        found = await work
        statuses = dict(found.statuses)
        late = statuses.pop(0, 0)
        return (
            f"{CLIENTS} clients: {statuses}; ended after {seconds:.1f} s with status {status}; "
            f"{late:,} attempts found no server, or their connection closed"
        )

    return run


if __name__ == "__main__":
    main()
