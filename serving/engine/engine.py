"""The engine: one thread that owns the models and computes what is queued, in batches.

When it is free it takes the oldest text, and those after it up to a budget of tokens: continuous
batching without a waiting time. Batches are not padded (see ``encoders.unpadding``), so
texts of all lengths go together.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch

from serving.engine.batch import Result, compute_batch
from serving.engine.job import Item, Job, Queue, Running, refusal
from serving.engine.limits import Limits
from serving.engine.model import Precision, ServedModel, check_fusion, inference, warm_up
from serving.engine.model_sets import ModelSet, ModelSets, embed_at_once
from serving.engine.placement import Placement, use_bf16
from serving.engine.replica import Load
from serving.engine.tokenization import Tokens
from serving.http.errors import ServingError
from serving.http.metrics import Metrics
from serving.stored_corpus import StoredCorpus

logger = logging.getLogger(__name__)

State = Literal["loading", "ready", "draining", "unhealthy"]
Compute = Callable[[ServedModel, Sequence[Tokens]], list[Result]]


class Engine:
    """The model thread, its queue, and its health.

    Args:
        load: Opens the first models.
        placements: Where they compute; this class takes the first.
        limits: Of the server.
        metrics: What is counted.
        precision: "auto" is bf16 on devices that have it.
        documents: By id; embedded at start-up, to be searched.
        open_stored: Opens the documents of a store for an embedder.
    """

    def __init__(
        self,
        load: Load,
        placements: Sequence[Placement],
        limits: Limits,
        metrics: Metrics,
        precision: Precision = "float32",
        documents: Mapping[str, str] | None = None,
        open_stored: Callable[[ServedModel], StoredCorpus] | None = None,
    ) -> None:
        self.model_sets = ModelSets()
        self.limits = limits
        self.metrics = metrics
        self.precision = precision
        self.bf16 = False
        self.start_error: Exception | None = None
        self._load = load
        self._placements = placements
        self._documents = documents
        self._open_stored = open_stored
        self._queue = Queue()
        self._changed = threading.Condition()
        self._state: State = "loading"
        self._reason = "the model is being loaded"
        self._running: dict[int, Running] = {}  # by thread
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the model thread, which loads the models first."""
        self._thread.start()

    def health(self) -> tuple[State, str]:
        """The state, and its reason."""
        for running in list(self._running.values()):
            seconds = time.monotonic() - running.since
            if self._state == "ready" and seconds > self.limits.stall_timeout:
                return "unhealthy", f"the model has been computing one batch for {seconds:.0f} s"
        return self._state, self._reason

    @property
    def models(self) -> dict[str, ServedModel]:
        """Those of the current request, by role; {} while the first ones are being loaded."""
        return self.model_sets.current.models

    @property
    def replicas(self) -> int:
        """How many copies of the models compute."""
        return int(self._state in ("ready", "draining"))

    @property
    def idle(self) -> bool:
        """Whether no request is queued or being computed."""
        with self._changed:
            return not len(self._queue) and not self._running

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return len(self._queue)

    def wait_seconds(self) -> float:
        """Estimated seconds until the queue is empty."""
        with self._changed:
            return self._queue.seconds() / max(1, self.replicas)

    def check_open(self) -> None:
        """Refuse work unless the state is "ready".

        Raises:
            ServingError: 503 with Retry-After.
        """
        state, reason = self.health()
        if state != "ready":
            headers = {"Connection": "close"} if state == "draining" else None
            raise ServingError(state, reason, retry_after=5, headers=headers)

    def submit(self, model: ServedModel, items: Sequence[Tokens]) -> Job:
        """Queue all texts of a request, or none.

        Raises:
            ServingError: It would have to wait too long (429), would take too long (413), or the
                engine is not open (503).
        """
        job = Job(model, items)
        with self._changed:
            self.check_open()
            refused = refusal(job, self._queue, self.limits, max(1, self.replicas))
            if refused is not None:
                self.metrics.rejected.labels(refused.code).inc()
                raise refused
            self._add(job)
        return job

    def withdraw(self, job: Job) -> None:
        """Drop what is left of a job whose client has disconnected."""
        with self._changed:
            if self._queue.remove(job):
                self.metrics.dropped.inc()
                self._measure_queue()

    def drain(self) -> None:
        """Refuse new work and finish what is queued."""
        with self._changed:
            if self._state in ("ready", "loading"):
                self._set_state("draining", "the server is shutting down")
            self._changed.notify_all()

    def stop(self) -> None:
        """Fail all queued requests with 503, and end the thread after its batch."""
        with self._changed:
            self._end("draining", "the server is shutting down")
            self._stopped = True
            self._changed.notify_all()

    def load_models(self, name: str, load: Load) -> None:
        """Load models beside those that are served; returns at once.

        Raises:
            ServingError: There are some of this name, or others are being loaded.
        """
        self.check_open()
        self.model_sets.load(name, partial(self._open_models, name, load))

    def forget(self, model_set: ModelSet) -> None:
        """Called when a model set is unloaded, after its last request."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout)

    def _add(self, job: Job) -> None:
        self._queue.of(job).add(job)
        self._measure_queue()
        self._changed.notify_all()

    def _set_state(self, state: State, reason: str) -> None:
        self._state, self._reason = state, reason
        self.metrics.replicas.set(self.replicas)

    def _measure_queue(self) -> None:
        self.metrics.queue_items.set(len(self._queue))
        self.metrics.queue_tokens.set(self._queue.tokens())

    def _end(self, state: Literal["draining", "unhealthy"], reason: str) -> None:
        """Fail what is queued or being computed, and admit nothing any more."""
        self._set_state(state, reason)
        error = ServingError(state, reason, retry_after=5, headers={"Connection": "close"})
        computed = [item.job for running in self._running.values() for item in running.batch]
        for job in [*self._queue.clear(), *computed]:
            job.fail(error)
        self._measure_queue()

    # In the model thread

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # whatever ended the thread, no request may wait for it
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        with self._changed:
            if self._state == "loading" and isinstance(error, Exception):
                self.start_error = error
            else:
                logger.critical("the model thread has ended", exc_info=error)
            reason = f"the model thread has ended ({type(error).__name__}); restart the server"
            self._end("unhealthy", reason)

    def _serve(self) -> None:
        torch.set_num_threads(self._placements[0].threads)
        model_set = self._open_models(None, self._load)
        self._become_ready(model_set)
        with inference(model_set.device, self.bf16):
            while batch := self._take():
                self._answer(batch, self._compute)
                self._done()

    def _become_ready(self, model_set: ModelSet) -> None:
        with self._changed:
            if self._state == "loading":
                self.model_sets.add(model_set)
                self._set_state("ready", "")

    def _open_models(self, name: str | None, load: Load) -> ModelSet:
        """Open models and embed the documents; of no name: named after the first model."""
        begun = time.monotonic()
        model_set = self._open(name, load(self._placements[0].device))
        self.metrics.loading.set(time.monotonic() - begun)
        self.bf16 = use_bf16(self.precision, model_set.device)
        warm_up(model_set.models.values(), model_set.device, self.bf16)
        if self._documents:
            embed_at_once(model_set, self._documents, self.bf16)
        return model_set

    def _open(self, name: str | None, models: dict[str, ServedModel]) -> ModelSet:
        """Check models while their weights are there to be told by, and open their store."""
        check_fusion(models)
        stored = self._open_stored(models["embedder"]) if self._open_stored else None
        return ModelSet(name or next(iter(models.values())).name, models, stored)

    def _compute(self, model: ServedModel, batch: Sequence[Tokens]) -> list[Result]:
        return compute_batch(model, batch, self.metrics.count_error)

    def _take(self, usable: Callable[[], bool] = lambda: True) -> list[Item]:
        """The next batch, as soon as there is one; none: the thread shall not compute any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._queue) or self._stopped or not usable())
            if self._stopped or not usable():
                return []
            batch = self._queue.take()
            self._running[threading.get_ident()] = Running(batch, time.monotonic())
            self._measure_queue()
            return batch

    def _done(self) -> None:
        del self._running[threading.get_ident()]

    def _answer(self, batch: list[Item], compute: Compute) -> None:
        begun = time.monotonic()
        jobs = {item.job for item in batch}
        for job in jobs:
            if job.started is None:
                job.started = begun
                self.metrics.queued.observe(job.queued)
        model = batch[0].job.model
        results = compute(model, [item.tokens for item in batch])
        seconds = time.monotonic() - begun
        tokens = sum(len(item.tokens) for item in batch)
        self.metrics.note_batch(len(batch), tokens, seconds)
        with self._changed:
            model.latency.note(tokens, seconds)
            for job in jobs:
                job.inference += seconds
        for item, result in zip(batch, results, strict=True):
            if isinstance(result, ServingError):
                self._fail(item, result)
            else:
                item.job.put(item.at, result)

    def _fail(self, item: Item, error: ServingError) -> None:
        """Fail one text's request, naming the text where there are several."""
        if len(item.job.items) > 1:
            error = ServingError(error.code, f"{error.message} (number {item.at})")
        item.job.fail(error)
        with self._changed:
            self._queue.remove(item.job)
            self._measure_queue()
