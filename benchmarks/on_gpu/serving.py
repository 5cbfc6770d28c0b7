"""Requests a second of the server, against FastAPI and sentence-transformers."""

import asyncio
import sys

import torch

from benchmarks.on_gpu.rows import Given, Rows, print_rows
from benchmarks.serving.http_load import load
from benchmarks.serving.servers import BASELINE, BASELINE_BF16, PORT, TANDEM, running
from benchmarks.speed.results import device
from common.hardware import bf16_is_fast

CLIENTS = (1, 32, 256)


def serving(given: Given) -> Rows:
    """One text a request, by both servers in turn."""
    seconds = 1.0 if given.tiny else 5.0
    model = str(given.folder / "bert")
    bodies = [{"text": row["doc"]} for row in given.pairs(64 if given.tiny else 1024)]
    ours = [sys.executable, "scripts/serve.py", "--embedder", model, "--port", PORT]
    baseline = [sys.executable, "benchmarks/serving/baseline_server.py", "embed", model, PORT]
    servers = {TANDEM: ours, BASELINE: baseline}
    if bf16_is_fast(torch.device(device())):
        servers[BASELINE_BF16] = [*baseline, "bfloat16"]
    yield ["", "clients", "requests/s", "p50, ms", "p99, ms", "not 200"]
    for server, command in servers.items():
        with running(command, sys.stderr) as (url, _):
            asyncio.run(load(url, "/embed", bodies, 4, seconds=seconds / 4))
            for clients in CLIENTS:
                found = asyncio.run(load(url, "/embed", bodies, clients, seconds=seconds))
                wrong = sum(found.statuses.values()) - found.statuses[200]
                times = (f"{1000 * found.quantile(share):.0f}" for share in (0.5, 0.99))
                yield [server, clients, f"{found.rate:.1f}", *times, wrong]


if __name__ == "__main__":
    print_rows(serving)
