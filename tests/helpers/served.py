"""Real servers on 127.0.0.1: in a thread, or scripts/serve.py as a process of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import torch

from encoders.kinds import Kind
from encoders.opening.model_name import is_multi_vector
from forked import Copy
from serving.app import build_app
from serving.engine.engine import Engine
from serving.engine.limits import Limits
from serving.engine.model import ServedModel, open_model
from serving.engine.placement import Placement
from serving.engine.replicated import ReplicatedEngine
from serving.engine.tokenization import Tokens
from serving.http.metrics import Metrics
from serving.http.server import Server, listen

ROOT = Path(__file__).resolve().parents[2]
JSON = {"Content-Type": "application/json"}
START = 180.0  # seconds in which a server is bound to start, on a busy machine too
# A request to each route that takes one; tests change them.
BODIES: dict[str, Any] = {
    "/embed": {"text": "how to read a csv"},
    "/embed_batch": {"texts": ["感冒发烧", "a"]},
    "/score": {"query": "q", "doc": "d"},
    "/score_batch": {"query": "感冒", "docs": ["多喝水", "d"]},
    "/rerank": {"query": "q", "documents": ["a", "b"], "top_n": 1, "model": "reranker"},
    "/v1/rerank": {"query": "q", "documents": ["a", {"text": "b"}], "model": "reranker"},
    "/v2/rerank": {"query": "q", "documents": ["a", "b"], "model": "reranker"},
    "/v1/embeddings": {"input": ["a", "今天"], "encoding_format": "base64", "model": "embedder"},
    "/v1/embed": {"texts": ["a", "今天"], "embedding_types": ["int8", "base64"]},
    "/v2/embed": {"texts": ["a", "今天"], "model": "embedder"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}},
    "/predict": {"inputs": [["q", "d"], ["感冒", "多喝水"]]},
    "/tokenize": {"inputs": "a b"},
    "/decode": {"ids": [[5, 6], [7]]},
    "/search": {"query": "csv", "documents": ["a", "b"]},
    "/compare": {"query": "q", "documents": ["a", "b"]},
}


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that is bound to happen."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


class Held:
    """A model which waits before each batch until it is let go.

    Attributes:
        batches: What it was given, each time.
        fault: Called with each batch before it is computed; may raise, or change the result.
    """

    def __init__(self, model: ServedModel) -> None:
        self.batches: list[list[Tokens]] = []
        self.free = threading.Event()
        self.free.set()
        self.fault: Callable[[Sequence[Tokens]], None] = lambda batch: None
        self._compute = model.compute
        model.compute = self.compute  # type: ignore[method-assign]

    def compute(self, batch: Sequence[Tokens]) -> Any:
        """The model's own results."""
        self.batches.append(list(batch))
        assert self.free.wait(60)
        self.fault(batch)
        return self._compute(batch)


def hold(engine: Engine) -> Held:
    """Stop the embedder at a first batch, which is taken up before this returns."""
    model = engine.models["embedder"]
    held = Held(model)
    held.free.clear()
    engine.submit(model, model.tokenizer.texts(["the"]))
    until(lambda: len(held.batches) == 1)
    return held


@contextmanager
def engine_of(
    folders: Mapping[str, Path],
    ready: bool = True,
    documents: Any = None,
    open_stored: Any = None,
    **limits: Any,
) -> Iterator[Engine]:
    """An engine with models by role."""

    load = partial(open_folders, folders, limits.get("max_batch_tokens"))
    placements = [Placement("cpu", torch.get_num_threads(), [])]
    engine = Engine(
        load, placements, Limits(**limits), Metrics(), documents=documents, open_stored=open_stored
    )
    with started(engine, ready):
        yield engine


@contextmanager
def replicated(
    folders: Mapping[str, Path],
    ready: bool = True,
    documents: Any = None,
    open_stored: Any = None,
    **limits: Any,
) -> Iterator[ReplicatedEngine]:
    """The same with two replicas of one thread each, in which words of ``FATE`` do harm."""
    load = partial(open_doomed, folders, limits.get("max_batch_tokens"))
    placements = [Placement("cpu", 1, [])] * 2
    engine = ReplicatedEngine(
        load, placements, Limits(**limits), Metrics(), documents=documents, open_stored=open_stored
    )
    with started(engine, ready):
        yield engine


@contextmanager
def started(engine: Engine, ready: bool) -> Iterator[None]:
    """Start an engine, and stop it at the end."""
    engine.start()
    try:
        if ready:
            until(lambda: engine.health()[0] != "loading")
            assert engine.health() == ("ready", ""), engine.start_error
        yield
    finally:
        engine.stop()
        engine.join(30)
        assert not engine._thread.is_alive()


def open_folders(
    folders: Mapping[str, Path], max_batch_tokens: int | None, device: str = "cpu"
) -> dict[str, ServedModel]:
    """Models by role."""
    kinds: dict[str, Kind] = {"embedder": "embedder", "reranker": "reranker"}
    return {
        role: open_model(
            "multi_vector" if is_multi_vector(folder) else kinds[role.partition("_")[0]],
            folder,
            folder.name,
            device=device,
            max_batch_tokens=max_batch_tokens,
        )
        for role, folder in folders.items()
    }


def _raise() -> None:
    raise RuntimeError("poison")


# What a process does that is given a text with one of these words.
FATE: dict[str, Callable[[], Any]] = {
    "fever": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "cough": lambda: time.sleep(1000),
    "headache": _raise,
}


def open_doomed(
    folders: Mapping[str, Path], max_batch_tokens: int | None, device: str
) -> dict[str, ServedModel]:
    """The same, with ``FATE``."""
    models = open_folders(folders, max_batch_tokens, device)
    for model in models.values():
        held = Held(model)
        ids = {word: model.tokenizer.raw.token_to_id(word) for word in FATE}

        def fault(batch: Sequence[Tokens], ids: dict[str, int | None] = ids) -> None:
            for word, fate in FATE.items():
                if any(ids[word] in text.input_ids for text in batch):
                    fate()

        held.fault = fault
    return models


@contextmanager
def running(
    engine: Engine,
    roles: Sequence[str],
    keys: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    **options: Any,
) -> Iterator[tuple[str, Server]]:
    """A server in a thread: its address, and itself; ``options`` are those of ``build_app``."""
    app = build_app(engine, roles, keys=keys, cors_origins=cors_origins, **options)
    socket = listen("127.0.0.1", 0)
    server = Server(app, engine)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    port = socket.getsockname()[1]
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def served(
    folders: Mapping[str, Path],
    keys: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    documents: Any = None,
    open_stored: Any = None,
    embeds: bool | None = None,
    **limits: Any,
) -> Iterator[tuple[str, Engine]]:
    """A server in a thread: its address and its engine."""
    with engine_of(folders, documents=documents, open_stored=open_stored, **limits) as engine:
        roles = [role for role in folders if "_" not in role]
        options: Any = {"stores": bool(open_stored), "embeds": embeds}
        with running(engine, roles, keys, cors_origins, **options) as (url, _):
            yield url, engine


class Process:
    """scripts/serve.py on a port of its own.

    Args:
        flags: Of the script.
        key: The one that clients must give.
        fresh: Started by the interpreter; else a copy of a process that has imported everything.
    """

    def __init__(
        self, folder: Path, *flags: object, key: str | None = None, fresh: bool = False
    ) -> None:
        self.log = folder / f"serve-{time.monotonic_ns()}.log"
        environment = {"OMP_DISPLAY_ENV": "VERBOSE"} | ({"TANDEM_API_KEY": key} if key else {})
        command = ["scripts/serve.py", "--port", "0", *map(str, flags)]
        self.process: Copy | subprocess.Popen[bytes]
        if fresh:
            with self.log.open("w") as log:
                self.process = subprocess.Popen(
                    [sys.executable, *command],
                    cwd=ROOT,
                    env=os.environ | environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        else:
            self.process = Copy(command, **environment)
        until(lambda: "listening at" in self.text or self.process.poll() is not None, START)
        assert self.process.poll() is None, self.text
        (self.url,) = re.findall(r"listening at (http://[\w.]+:\d+)", self.text)

    @property
    def text(self) -> str:
        """The log so far."""
        if isinstance(self.process, Copy):
            return self.process.output + self.process.errors
        return self.log.read_text(encoding="utf-8")

    def __enter__(self) -> "Process":
        try:
            until(lambda: httpx.get(f"{self.url}/health").status_code == 200, START)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
