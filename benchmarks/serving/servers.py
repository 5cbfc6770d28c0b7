"""Throughput and latency of the server, against others on this machine.

    python benchmarks/serving/servers.py embed  # one text a request
    python benchmarks/serving/servers.py rerank  # one query and 8 documents a request
    python benchmarks/serving/servers.py embed --infinity /path/to/venv/bin/infinity_emb \\
        --int8 outputs/embedding_int8               # what scripts/export.py wrote

Servers run one at a time, with the same model, texts and length limit, each in a process of its
own: ``scripts/serve.py``, benchmarks/serving/baseline_server.py, and infinity-emb from its own
environment (infinity-emb[server,torch] 0.0.77 wants transformers 4.48.3, sentence-transformers
3.4.1, optimum 1.24.0 and a click before 8.2). For each number of clients every server is asked the
same requests, after a warm-up. Rows are those of ``make quickstart``, or of ``--data`` in any
training format.
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
from pathlib import Path
from typing import IO, Any

import psutil
import torch

from benchmarks.serving.http_load import load
from benchmarks.speed.results import BASE, PAIRS, ROOT, device, new_parser, publish
from common.hardware import bf16_is_fast
from encoders import Embedder, Reranker
from encoders.opening.model_name import resolve_model
from loaders import ReadOptions, load_rows

DOCUMENTS = 8
PORT = "PORT"
TANDEM, INT8 = "Tandem", "Tandem, int8"
BASELINE, INFINITY = "FastAPI + sentence-transformers", "infinity-emb"
BASELINE_BF16 = f"{BASELINE}, bf16"


def main() -> int:
    """Measure and print."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("task", choices=["embed", "rerank"])
    add("--model", help="default: all-MiniLM-L6-v2, as embedder or with a new scoring head")
    add("--data", nargs="+", default=[PAIRS])
    add("--infinity", help="the program infinity_emb of another environment")
    add("--int8", type=Path, help="the same model, exported in 8 bits, for a row of its own")
    add("--clients", nargs="+", type=int, default=[1, 8, 32, 128])
    add("--seconds", type=float, default=20.0, help="for each number of clients")
    add("--flags", default="", help="more flags for scripts/serve.py, in one string")
    add("--about", default="", help="a sentence for the table: versions of infinity, flags")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        compare(args, Path(scratch))
    return 0


def compare(args: argparse.Namespace, scratch: Path) -> None:
    """All servers, one after the other, and a table."""
    folder, bodies = find_folder(args, scratch), request_bodies(args)
    servers = {TANDEM: folder, BASELINE: folder}
    bf16 = bf16_is_fast(torch.device(device()))  # Tandem's server then uses it by itself
    if bf16:
        servers[BASELINE_BF16] = folder
    if args.int8:
        check_lengths(args.task, folder, args.int8)
        servers[INT8] = args.int8
    if args.infinity:
        servers[INFINITY] = folder
    rows: list[tuple[str, ...]] = []
    for server, model in servers.items():
        with running(command(server, args, model)) as (url, process):
            path = "/embeddings" if (server, args.task) == (INFINITY, "embed") else f"/{args.task}"
            asked = [as_asked(server, args.task, body, folder) for body in bodies]
            asyncio.run(load(url, path, asked, 4, seconds=args.seconds / 4))
            for clients in args.clients:
                found = asyncio.run(load(url, path, asked, clients, seconds=args.seconds))
                wrong = sum(found.statuses.values()) - found.statuses[200]
                rows.append(
                    (
                        server,
                        str(clients),
                        f"{found.rate:.1f}",
                        f"{1000 * found.quantile(0.5):.0f}",
                        f"{1000 * found.quantile(0.99):.0f}",
                        str(wrong),
                        f"{memory(process):.0f}",
                    )
                )
                print(*rows[-1], flush=True)
    publish(
        args,
        f"serving, {args.task}{', bf16' if bf16 else ''}",  # of other processors than fp32
        f"{args.model or BASE} in {'fp32, Tandem in bf16' if bf16 else 'fp32'}, texts of "
        f"the docstrings, clients that ask again as soon as "
        f"they are answered, {args.seconds:g} s for each number of them. {args.about}".rstrip(),
        ["server", "clients", "requests/s", "p50, ms", "p99, ms", "not 200", "memory, MiB"],
        rows,
    )


def check_lengths(task: str, *folders: Path) -> None:
    """Stop where one server would cut texts shorter than another: it would seem faster."""
    opened = Reranker if task == "rerank" else Embedder
    lengths = {str(folder): opened.from_pretrained(folder).max_length for folder in folders}
    if len(set(lengths.values())) > 1:
        raise SystemExit(f"the models do not cut texts at one length: {lengths}")


def find_folder(args: argparse.Namespace, scratch: Path) -> Path:
    """The model's folder; a reranker is made of the base where none is given."""
    if args.task == "embed" or args.model:
        return resolve_model(args.model or BASE)
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


def command(server: str, args: argparse.Namespace, folder: Path) -> list[Any]:
    """How a server is started."""
    if server in (BASELINE, BASELINE_BF16):
        dtype = "bfloat16" if server == BASELINE_BF16 else "float32"
        script = "benchmarks/serving/baseline_server.py"
        return [sys.executable, script, args.task, folder, PORT, dtype]
    if server == INFINITY:
        flags = f"--port {PORT} --device cpu --engine torch --no-bettertransformer".split()
        return [args.infinity, "v2", "--model-id", folder, *flags]
    flags = args.flags.split()
    return [sys.executable, "scripts/serve.py", "--model", folder, "--port", PORT, *flags]


@contextmanager
def running(
    command: list[Any], log: int | IO[Any] = subprocess.DEVNULL
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server's address and process, once it answers; a free port takes the place of PORT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [port if word == PORT else str(word) for word in command]
    process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log)
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
