"""Jobs (one per request and model), and the queues in which they wait."""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from serving.engine.limits import Limits
from serving.engine.model import ServedModel
from serving.engine.tokenization import Tokens
from serving.http.errors import ServingError

# An interactive request has at most so many texts: somebody waits for it.
INTERACTIVE = 4
# Interactive batches for each batch of bulk work, when both wait.
INTERACTIVE_PER_BULK = 3


class Job:
    """The texts of one request for one model.

    Its ``future`` gets embeddings [N, H], scores [N] or N matrices, or a ``ServingError``.
    """

    def __init__(self, model: ServedModel, items: Sequence[Tokens]) -> None:
        self.model = model
        self.items = items
        self.future: Future[np.ndarray] = Future()
        self.next = 0  # the first item that the model has not yet got
        self.waiting_tokens = sum(map(len, items))
        self.submitted = time.monotonic()
        self.started: float | None = None
        self.inference = 0.0  # seconds of the batches that it was in
        self._results: dict[int, np.ndarray] = {}

    @property
    def interactive(self) -> bool:
        """Whether it goes before bulk work."""
        return len(self.items) <= INTERACTIVE

    @property
    def queued(self) -> float:
        """Seconds from its arrival until the model started on its first text."""
        return (self.started or time.monotonic()) - self.submitted

    def put(self, at: int, result: np.ndarray) -> None:
        """Store the result of item ``at``; the last one completes the future."""
        self._results[at] = result
        if len(self._results) == len(self.items):
            found = [self._results[n] for n in range(len(self.items))]
            with suppress(InvalidStateError):  # nobody waits for it any more
                self.future.set_result(stack(found))

    def fail(self, error: ServingError) -> None:
        """Answer the request with an error."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


def stack(results: Sequence[np.ndarray]) -> np.ndarray:
    """Results as one array [N, ...]; matrices of different heights as an array of objects [N]."""
    if len({each.shape for each in results}) == 1:
        return np.stack(results)
    found = np.empty(len(results), dtype=object)
    found[:] = results
    return found


class Item(NamedTuple):
    """One text of a job.

    Args:
        job: The job.
        at: Its number there.
        suspect: Whether a process died while it computed a batch with this text.
    """

    job: Job
    at: int
    suspect: bool = False

    @property
    def tokens(self) -> Tokens:
        return self.job.items[self.at]


class PriorityQueue:
    """Jobs of one priority, first in, first out."""

    def __init__(self) -> None:
        self.jobs: dict[Job, None] = {}  # a set that keeps its order
        self.items = 0
        self.tokens: dict[ServedModel, int] = {}

    def add(self, job: Job) -> None:
        self.jobs[job] = None
        self._count(job, 1)

    def remove(self, job: Job) -> bool:
        """Remove what is left of a job; False if nothing is."""
        if job not in self.jobs:
            return False
        del self.jobs[job]
        self._count(job, -1)
        return True

    def take(self) -> list[Item]:
        """The next batch: the oldest item and later ones of its model, up to its token budget."""
        model = next(iter(self.jobs)).model
        batch = list(self._fitting(model, model.max_batch_tokens))
        for item in batch:
            job = item.job
            self.items -= 1
            self._count_tokens(model, -len(item.tokens))
            job.waiting_tokens -= len(item.tokens)
            job.next = item.at + 1
            if job.next == len(job.items):
                del self.jobs[job]
        return batch

    def seconds(self) -> float:
        """Estimated seconds to compute all that waits here."""
        return sum(
            model.latency.seconds(tokens, model.max_batch_tokens)
            for model, tokens in self.tokens.items()
        )

    def _fitting(self, model: ServedModel, budget: int) -> Iterator[Item]:
        room = budget
        for job in self.jobs:
            if job.model is not model:
                continue
            for at in range(job.next, len(job.items)):
                size = len(job.items[at])
                if size > room and room < budget:
                    return
                yield Item(job, at)
                room -= size

    def _count(self, job: Job, sign: int) -> None:
        self.items += sign * (len(job.items) - job.next)
        self._count_tokens(job.model, sign * job.waiting_tokens)

    def _count_tokens(self, model: ServedModel, more: int) -> None:
        """A model of which none wait is forgotten: it may have been unloaded."""
        self.tokens[model] = self.tokens.get(model, 0) + more
        if not self.tokens[model]:
            del self.tokens[model]


class Running(NamedTuple):
    """A batch that is being computed, and since when."""

    batch: list[Item]
    since: float


class Queue:
    """Two priorities: interactive and bulk, which gets every fourth batch when both wait.

    Before them go texts whose batch was lost with its process, each by itself.
    """

    def __init__(self) -> None:
        self.interactive = PriorityQueue()
        self.bulk = PriorityQueue()
        self._lost: deque[Item] = deque()
        self._turns = 0  # interactive batches since the last of bulk work

    def __len__(self) -> int:
        return len(self._lost) + self.interactive.items + self.bulk.items

    def of(self, job: Job) -> PriorityQueue:
        """The queue of a job's priority."""
        return self.interactive if job.interactive else self.bulk

    def put_back(self, item: Item) -> None:
        """Queue a text again, unless nobody waits for it any more."""
        if not item.job.future.done():
            self._lost.append(item)

    def remove(self, job: Job) -> bool:
        """Remove what is left of a job; False if nothing is."""
        kept = deque(item for item in self._lost if item.job is not job)
        found = len(kept) < len(self._lost)
        self._lost = kept
        return self.of(job).remove(job) or found

    def tokens(self) -> int:
        """Tokens of all jobs."""
        return sum(sum(queue.tokens.values()) for queue in (self.interactive, self.bulk))

    def seconds(self) -> float:
        """Estimated seconds to compute all that waits."""
        return self.interactive.seconds() + self.bulk.seconds()

    def clear(self) -> list[Job]:
        """Remove and return all jobs."""
        jobs = [*self.interactive.jobs, *self.bulk.jobs, *(item.job for item in self._lost)]
        self.interactive, self.bulk = PriorityQueue(), PriorityQueue()
        self._lost.clear()
        return jobs

    def wait(self, job: Job) -> float:
        """Estimated seconds until ``job`` would start."""
        if not job.interactive:
            return self.seconds()
        share = (INTERACTIVE_PER_BULK + 1) / INTERACTIVE_PER_BULK if self.bulk.items else 1
        return self.interactive.seconds() * share

    def take(self) -> list[Item]:
        """The next batch, of one model; something must be waiting."""
        if self._lost:
            return [self._lost.popleft()]
        both = bool(self.interactive.items and self.bulk.items)
        first = bool(self.interactive.items) and not (both and self._turns == INTERACTIVE_PER_BULK)
        self._turns = self._turns + 1 if both and first else 0
        return (self.interactive if first else self.bulk).take()


def refusal(job: Job, queue: Queue, limits: Limits, replicas: int) -> ServingError | None:
    """Why a job is not admitted: it would take too long (413), or wait too long (429).

    Args:
        job: The job.
        queue: What it would have to wait for.
        limits: Of the server.
        replicas: Copies of the models that compute at the same time.
    """
    own = job.model.latency.seconds(job.waiting_tokens, job.model.max_batch_tokens) / replicas
    wait = queue.wait(job) / replicas
    if own > limits.request_timeout:
        return ServingError(
            "too_much_work",
            f"these {len(job.items)} texts of {job.waiting_tokens} tokens would take about "
            f"{math.ceil(own)} s, and a request may take {limits.request_timeout:g} s; send "
            "fewer at once",
        )
    if wait > limits.max_wait or wait + own > limits.request_timeout:
        return ServingError(
            "overloaded",
            f"the queue is about {math.ceil(wait)} s long; try again later",
            retry_after=wait,
        )
    return None
