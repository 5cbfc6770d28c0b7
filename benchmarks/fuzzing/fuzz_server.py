"""Fuzz the server with valid and invalid requests, for ``benchmarks/fuzzing/fuzz.py``."""

import argparse
import gzip
import json
import random
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error

from benchmarks.fuzzing.hostile import ROWS, Mutator
from benchmarks.serving.servers import PORT, running
from benchmarks.speed.results import BASE, ROOT

sys.path.append(str(ROOT / "tests" / "helpers"))

from encoders import Reranker
from served import BODIES

PARTS: list[Any] = [
    *("", " ", "\0", "\ud800", "\u202eabc", "\ufeff", "长" * 100_000, "x" * 1_000_000),
    *("../../etc/passwd", "file:///etc/passwd", "\n" * 1000, "a\u0301" * 500, "[MASK][SEP]"),
    *(0, -1, 2**31, 2**63 - 1, 2**64, 10**30, 1e308, -1e308, 0.5, True, False, None, float("inf")),
    *([], {}, [[]], ["a"] * 3000, [1, 2], [[1, 2], [3]], [2**40], [-1], {"text": "a"}, [None]),
]  # fmt: skip
JSON = {"Content-Type": "application/json"}
# Keys of other clients, some of them known; values may be anything.
KEYS: dict[str, list[Any]] = {
    "input_type": ["query", "passage", "search_document", "clustering", "qurey", "", 5, None],
    "task": ["retrieval.query", "text-matching", [], None],
    "truncate": ["NONE", "START", "END", "start", True, False, None, "x", 1],
    "truncation_side": ["left", "RIGHT", None, 0],
    "prompt_name": ["query", "nothing", None],
    "mm_processor_kwargs": [{}, None], "user": ["u"], "": [1], "\n\x00é": [1], "input": ["a"],
}  # fmt: skip
PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", lambda data: data[2:-4]),
    ("gzip", bytes), ("br", bytes), ("identity", bytes),
]  # fmt: skip
READ = ["/", "/health", "/info", "/metrics", "/v1/models", "/v1/models/a", "/models/a/b", "/docs"]


class ServerFuzzer:
    """What a server was asked, and what it answered.

    Args:
        args: The command's.
        url: The server's address.
    """

    def __init__(self, args: argparse.Namespace, url: str) -> None:
        self.args, self.url = args, url
        self.client = httpx.Client(base_url=url, timeout=args.seconds)
        self.statuses: Counter[str] = Counter()
        self.findings: dict[str, str] = {}
        self.slowest = 0.0

    def bodies(self, minutes: float) -> None:
        """Bodies changed at random, to every route."""
        draw, mutator = random.Random(self.args.seed), Mutator(self.args.seed)
        end = time.perf_counter() + 60 * minutes
        while time.perf_counter() < end:
            method, path, body, headers = request(draw, mutator)
            begun = time.perf_counter()
            try:
                answer = self.client.request(method, path, content=body, headers=headers)
                status = answer.status_code
            except httpx.HTTPError as error:
                self.note(f"{type(error).__name__} {path}", body)
                status = 0
            self.slowest = max(self.slowest, time.perf_counter() - begun)
            self.statuses[str(status)] += 1
            if status >= 500:
                self.note(f"{status} {path}", body)

    def schema(self, minutes: float) -> None:
        """Requests that the page allows, and some that it does not."""
        schema = schemathesis.openapi.from_url(f"{self.url}/openapi.json")
        operations: list[Any] = [result.ok() for result in schema.get_all_operations()]
        end, round_ = time.perf_counter() + 60 * minutes, self.args.seed
        while time.perf_counter() < end:
            for operation in operations:
                self._ask(operation, round_)
            round_ += 1

    def _ask(self, operation: Any, round_: int) -> None:
        @seed(round_)
        @settings(
            max_examples=20, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(operation.as_strategy())
        def ask(case: Any) -> None:
            response = case.call(base_url=self.url, timeout=self.args.seconds)
            self.statuses[f"page {response.status_code}"] += 1
            case.validate_response(response, checks=[not_a_server_error])

        try:
            ask()
        except Exception as error:  # schemathesis tells what it found by what it raises
            self.note(f"{type(error).__name__} {operation.label}", repr(error).encode())

    def note(self, kind: str, content: bytes) -> None:
        """Keep the first input of each kind of finding."""
        if kind not in self.findings:
            self.findings[kind] = f"{len(self.findings) + 1}.body"
            (self.args.findings / self.findings[kind]).write_bytes(content)
            print(f"{self.findings[kind]}: {kind}: {content[:200]!r}", flush=True)


def request(draw: random.Random, mutator: Mutator) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers: mostly a body, changed, with other keys, packed."""
    if draw.random() < 0.1:
        path = mutator.change(draw.choice(READ).encode()).decode("latin-1")
        path = "/" + "".join(letter for letter in path[:500] if " " < letter < "\x7f").lstrip("/")
        asked = {"Origin": "http://a", "Access-Control-Request-Method": "POST"}
        return draw.choice(["GET", "HEAD", "OPTIONS"]), path, b"", draw.choice([{}, asked])
    path = draw.choice([*BODIES, "/"])
    content = dict(BODIES.get(path) or draw.choice([BODIES["/similarity"], {"inputs": "a"}]))
    for name in draw.sample(list(KEYS), draw.choice([0, 0, 1, 3])):
        content[name] = draw.choice(KEYS[name])
    changed = with_other(content, draw) if draw.random() < 0.3 else content
    body = json.dumps(changed, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    if draw.random() < 0.7:
        body = mutator.change(body)
    if draw.random() < 0.7:
        return "POST", path, body, JSON
    encoding, pack = draw.choice(PACKERS)
    body = pack(body)
    body = mutator.change(body) if draw.random() < 0.3 else body
    return "POST", path, body, JSON | {"Content-Encoding": encoding}


def with_other(value: Any, draw: random.Random) -> Any:
    """``value`` with one of its parts replaced, now and then two."""
    if draw.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return draw.choice(PARTS)
    changed = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    name = draw.choice(list(changed))
    changed[name] = with_other(changed[name], draw)
    return changed if isinstance(value, dict) else list(changed.values())


def fuzz_server(args: argparse.Namespace) -> int:
    """Half of the time for each; then the server must still be well."""
    with serving(args) as (url, process):
        fuzzer = ServerFuzzer(args, url)
        fuzzer.bodies(0.02)
        before = process.memory_info().rss / 2**20
        fuzzer.schema(args.minutes / 2)
        fuzzer.bodies(args.minutes / 2)
        after = process.memory_info().rss / 2**20
        well = httpx.get(f"{url}/health", timeout=30).status_code == 200
    told = ", ".join(f"{count:,} {name}" for name, count in fuzzer.statuses.most_common())
    print(
        f"server: {fuzzer.statuses.total():,} requests ({told}), slowest {fuzzer.slowest:.2f} s, "
        f"memory {before:.0f} -> {after:.0f} MiB, {'well' if well else 'NOT WELL'} at the end, "
        f"{len(fuzzer.findings)} kinds of finding"
    )
    return 0 if well and not fuzzer.findings else 1


@contextmanager
def serving(args: argparse.Namespace) -> Iterator[tuple[str, psutil.Process]]:
    """scripts/serve.py with both models and a corpus, and an end to its memory."""
    with tempfile.TemporaryDirectory() as scratch, (args.findings / "serve.log").open("w") as log:
        reranker, corpus = Path(scratch, "reranker"), Path(scratch, "corpus.jsonl")
        Reranker.from_pretrained(BASE).save_pretrained(reranker)
        texts = [json.dumps(row, ensure_ascii=False) for row in ROWS]
        documents = [{"_id": str(n), "text": text} for n, text in enumerate(texts)]
        corpus.write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
        command = [sys.executable, "scripts/serve.py", "--port", PORT, "--embedder", BASE]
        command += ["--reranker", reranker, "--corpus", corpus, "--max_length", 64]
        command += ["--text_max_length", 64]
        with running(command, log) as (url, process):
            watched = psutil.Process(process.pid)
            limit = int(args.gigabytes * 2**30)
            watched.rlimit(psutil.RLIMIT_AS, (limit, limit))
            yield url, watched
