"""A replica: a process with its own copy of the models, and the server's handle of it."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import torch

from common.hardware import prepare_cpu
from serving.engine.batch import Result, compute_batch
from serving.engine.limits import LatencyEstimator
from serving.engine.model import (
    Precision,
    ServedModel,
    find_device,
    inference,
    warm_up,
)
from serving.engine.placement import Placement, use_bf16
from serving.engine.tokenization import Tokens

# Opens models, by role, on a device. It is pickled.
Load = Callable[[str], dict[str, ServedModel]]
Models = dict[int, dict[str, ServedModel]]  # by number of the model set, and role


BEGUN = "begun"  # what a replica sends as soon as it has received a request


class Opened(NamedTuple):
    """A replica's answer once models are ready: batch budgets, estimates of latency by role."""

    bf16: bool
    seconds: float
    max_batch_tokens: dict[str, int]
    latency: dict[str, LatencyEstimator]


class Answer(NamedTuple):
    """A computed batch: its results, kinds of failures, and the budget of the next one."""

    results: list[Result]
    failures: list[str]
    max_batch_tokens: int


class ReplicaLost(Exception):
    """The process has ended, or hangs."""


class Replica:
    """A started process. Only one thread may send requests to it; any may kill it.

    Args:
        placement: Where it computes.
        precision: "auto" is bf16 on devices that have it.
        on_end: Called once it has ended, in a thread of its own.

    Attributes:
        model_sets: The numbers of the model sets that it has opened.
        alive: Whether it has not ended.
        has_begun: Whether it has received the last request.
    """

    def __init__(
        self, placement: Placement, precision: Precision, on_end: Callable[[], None]
    ) -> None:
        # Processes begin as copies of one that has imported everything, and share its memory. CUDA
        # does not survive that, if an import has so much as counted the GPUs.
        context: ForkServerContext | SpawnContext = (
            multiprocessing.get_context("forkserver")
            if placement.device == "cpu"
            else multiprocessing.get_context("spawn")
        )
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=run, args=(theirs, placement, precision))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        theirs.close()  # now the pipe ends with the process
        self.model_sets: set[int] = set()
        self.alive = True
        self.has_begun = False
        self._on_end = on_end
        self._received: SimpleQueue[Any] = SimpleQueue()
        self._asked: SimpleQueue[Any] = SimpleQueue()
        # A large batch fills the pipe, and a process that hangs does not empty it.
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()
        threading.Thread(target=self._receive, daemon=True).start()

    def open(self, number: int, load: Load) -> Opened:
        """Have it open the models of a model set, by its number, and wait.

        Raises:
            ReplicaLost: It has ended.
            ValueError, RuntimeError: It could not open the models.
        """
        answer = self._ask((_open, number, load), None)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Opened)
        self.model_sets.add(number)
        return answer

    def close(self, number: int) -> None:
        """Have it drop the models of a model set."""
        self._ask((_close, number), None)
        self.model_sets.discard(number)

    def compute(self, number: int, role: str, batch: Sequence[Tokens], seconds: float) -> Answer:
        """Compute a batch within so many seconds.

        Raises:
            ReplicaLost: It has ended, or takes longer.
        """
        answer = self._ask((_compute, number, role, batch), seconds)
        assert isinstance(answer, Answer)
        return answer

    def kill(self) -> None:
        """End it at once; nothing if it has ended."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _ask(self, request: tuple[Any, ...], seconds: float | None) -> Any:
        self.has_begun = False
        self._asked.put(request)
        try:
            message = self._received.get(timeout=seconds)
        except Empty:
            raise ReplicaLost(f"has been computing one batch for {seconds:g} s") from None
        if message is None:
            self._process.join(1)  # for its exit code, which comes a little later
            raise ReplicaLost(f"has ended with exit code {self._process.exitcode}")
        return message

    def _send(self) -> None:
        with suppress(OSError):  # it has ended, as the next message says
            while (request := self._asked.get()) is not None:
                self._pipe.send(request)

    def _receive(self) -> None:
        try:
            with suppress(EOFError, OSError):
                while True:
                    message = self._pipe.recv()
                    if message == BEGUN:
                        self.has_begun = True
                    else:
                        self._received.put(message)
        finally:
            self.alive = False
            self._received.put(None)
            self._asked.put(None)
            self._on_end()
            self._sender.join()
            self._pipe.close()


# In the process


def run(pipe: Connection, placement: Placement, precision: Precision) -> None:
    """Open models and compute batches, one after the other, until the server is gone."""
    # A service manager may signal all processes, but it is the server that ends this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    if placement.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, placement.cores)
    os.environ["OMP_NUM_THREADS"] = str(placement.threads)
    prepare_cpu()
    torch.set_num_threads(placement.threads)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        models: Models = {}
        while True:
            work, *about = pipe.recv()
            pipe.send(BEGUN)
            pipe.send(work(models, placement, precision, *about))


def _end_with_the_server() -> None:
    server = multiprocessing.parent_process()
    assert server is not None
    server.join()
    os._exit(1)


# The requests to it: functions of its models, its placement and its precision.


def _open(
    models: Models, placement: Placement, precision: Precision, number: int, load: Load
) -> Opened | Exception:
    begun = time.monotonic()
    try:
        device = find_device(placement.device)
        if device.index is not None:
            torch.accelerator.set_device_index(device.index)
        bf16 = use_bf16(precision, device)
        opened = load(placement.device)
        seconds = time.monotonic() - begun
        warm_up(opened.values(), device, bf16)
    except Exception as error:
        return _portable(error)
    models[number] = opened
    budgets = {role: model.max_batch_tokens for role, model in opened.items()}
    return Opened(bf16, seconds, budgets, {r: model.latency for r, model in opened.items()})


def _close(models: Models, placement: Placement, precision: Precision, number: int) -> bool:
    return models.pop(number, None) is not None


def _compute(
    models: Models,
    placement: Placement,
    precision: Precision,
    number: int,
    role: str,
    batch: Sequence[Tokens],
) -> Answer:
    model, failures = models[number][role], list[str]()
    device = model.encoder.device
    with inference(device, use_bf16(precision, device)):
        results = compute_batch(model, batch, failures.append)
    return Answer(results, failures, model.max_batch_tokens)


def _portable(error: Exception) -> Exception:
    """An error that can be pickled: a user's mistake, or else all that is known of it."""
    if isinstance(error, ValueError):
        return ValueError(str(error))
    return RuntimeError("".join(traceback.format_exception(error)))
