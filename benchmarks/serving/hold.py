"""What does scripts/serve.py stand? Load, overload, bulk work, and many requests.

    python benchmarks/serving/hold.py --clients 1 8 32 128 --seconds 60     # 12 minutes

Says "ok" or "BAD" of each thing that must be so; the status is 1 if something is not.
"""

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.serving.http_load import Connection, Load, arrivals, load
from benchmarks.serving.servers import memory, request_bodies, running, tandem
from benchmarks.speed.results import BASE
from common.hardware import prepare_cpu
from encoders.opening.source import resolve_model
from serving.engine.model import inference, open_model

TEXTS_ALONE = 256  # computed without a server


def main() -> int:
    """Ask, and print what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default=BASE, help="an embedder")
    add("--data", nargs="+", default=["data/docstrings/train_pairs.jsonl"])
    add("--clients", nargs="+", type=int, default=[1, 8, 32, 128])
    add("--seconds", type=float, default=60.0, help="for each number of clients")
    add("--requests", type=int, default=10_000, help="for the growth of memory")
    add("--flags", default="", help="more flags for scripts/serve.py, in one string")
    args = parser.parse_args()
    args.task = "embed"
    return hold(args)


def hold(args: argparse.Namespace) -> int:
    """What must be so under any load; the status is 1 if something is not."""
    folder = resolve_model(args.model)
    texts = [body["text"] for body in request_bodies(args)]
    bodies, flags = [{"text": text} for text in texts], args.flags.split()
    results: list[bool] = []

    def check(what: str, well: bool, seen: str) -> None:
        results.append(well)
        print(f"{'ok  ' if well else 'BAD '} {what}: {seen}", flush=True)

    # Machines are noisy: the model without a server is measured before and after the load.
    before = rate_alone(folder, texts)
    with running(tandem(folder, *flags)) as (url, process):
        most = asyncio.run(check_load(url, args, bodies, check))
        alone = (before + rate_alone(folder, texts)) / 2
        seen = f"{most / alone:.0%} of {alone:.1f} a second"
        check("85 % of the model without a server", most >= 0.85 * alone, seen)
        asyncio.run(check_bulk(url, args, texts, check))
        server = psutil.Process(process.pid)
        held, had = memory(process), (server.num_fds(), server.num_threads())
        found = asyncio.run(load(url, "/embed", bodies, 32, requests=args.requests))
        grown = memory(process) / held - 1
        check(f"memory after {args.requests} requests", grown < 0.05, f"{grown:+.1%}")
        has = (server.num_fds(), server.num_threads())
        more = any(now > then for now, then in zip(has, had, strict=True))
        check("no more open files and threads", not more, f"{had} before, {has} after")
        check("only 200 and 429", not found.failed, str(dict(found.statuses)))
    with running(tandem(folder, *flags, "--max_wait", "1")) as (url, process):
        asyncio.run(check_overload(url, args, bodies, process, check))
    return 0 if all(results) else 1


def rate_alone(folder: Path, texts: list[str]) -> float:
    """Texts of mean length a second without a server, in batches as the server's."""
    prepare_cpu(training=True)
    model = open_model("embedder", folder, "alone", device="cpu")
    tokenized = model.tokenizer.texts(texts)
    batches: list[list[Any]] = [[]]
    for tokens in tokenized[:TEXTS_ALONE]:
        if sum(map(len, batches[-1])) + len(tokens) > model.max_batch_tokens:
            batches.append([])
        batches[-1].append(tokens)
    size = sum(map(len, tokenized[:TEXTS_ALONE]))
    rates = []
    with inference(torch.device("cpu"), False):
        model.warm_up()
        for _ in range(3):
            begun = time.perf_counter()
            for batch in batches:
                model.compute(batch)
            rates.append(size / (time.perf_counter() - begun))
    return statistics.median(rates) * len(texts) / sum(map(len, tokenized))


async def check_load(url: str, args: argparse.Namespace, bodies: list[Any], check: Any) -> float:
    """No request hangs or fails, and ``/live`` answers at once; the most requests a second."""
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
        check(f"{clients} clients, only 200 and 429", not found.failed, str(dict(found.statuses)))
        p99 = sorted(live)[int(0.99 * len(live))]
        check(f"{clients} clients, /live p99 < 100 ms", p99 < 0.1, f"{1000 * p99:.0f} ms")
    most = max(rates)
    seen = ", ".join(f"{clients}: {rate:.1f}" for clients, rate in rates.items())
    better = rates[most] >= rates[min(rates)]
    check("batches are no slower than one at a time", better, f"{seen} requests/s by clients")
    return max(rates.values())


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
    check(
        f"{5 * able:.0f} requests/s, only 200 and 429", not found.failed, str(dict(found.statuses))
    )
    p99 = found.quantile(0.99)
    check("p99 of those let in <= max_wait + 2 s", p99 <= 3, f"{p99:.1f} s")
    await asyncio.sleep(3)
    after = await load(url, "/embed", bodies, 1, requests=20)
    check("after it all is well", after.statuses[200] == 20, str(dict(after.statuses)))
    grown = memory(process) / before - 1
    check("memory after it", grown < 0.1, f"{grown:+.1%}")


if __name__ == "__main__":
    sys.exit(main())
