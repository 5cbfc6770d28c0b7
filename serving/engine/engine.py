"""The engine: one thread that owns the models and computes what is queued, in batches.

When it is free it takes the oldest text, and those after it up to a budget of tokens: continuous
batching without a waiting time. Batches are not padded (see ``encoders.unpadding``), so
texts of all lengths go together.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch

from serving.engine.batch import compute_batch
from serving.engine.job import Item, Job, Queue
from serving.engine.limits import Limits
from serving.engine.model import Precision, ServedModel, check_fusion, inference, use_bf16
from serving.engine.similarity import Corpus
from serving.engine.tokenization import Tokens
from serving.http.errors import ServingError
from serving.http.metrics import Metrics
from serving.stored_corpus import StoredCorpus

logger = logging.getLogger(__name__)

State = Literal["loading", "ready", "draining", "unhealthy"]


class Engine:
    """The model thread, its queue, and its health.

    Args:
        load: Called in the model thread; returns the models by role ("embedder", ...).
        limits: Of the server.
        metrics: What is counted.
        precision: "auto" is bf16 on devices that have it.
        threads: Of the CPU for one forward; None: torch's own choice.
        documents: By id; embedded at start-up, to be searched.
        open_stored: Opens the documents of a store for the embedder, in the model thread.
    """

    def __init__(
        self,
        load: Callable[[], dict[str, ServedModel]],
        limits: Limits,
        metrics: Metrics,
        precision: Precision = "float32",
        threads: int | None = None,
        documents: Mapping[str, str] | None = None,
        open_stored: Callable[[ServedModel], StoredCorpus] | None = None,
    ) -> None:
        self.corpus: Corpus | None = None
        self.stored: StoredCorpus | None = None
        self.models: dict[str, ServedModel] = {}
        self.limits = limits
        self.metrics = metrics
        self.precision = precision
        self.bf16 = False
        self.start_error: Exception | None = None
        self._load = load
        self._threads = threads
        self._documents = documents
        self._open_stored = open_stored
        self._queue = Queue()
        self._changed = threading.Condition()
        self._state: State = "loading"
        self._reason = "the model is being loaded"
        self._batch: list[Item] = []
        self._busy_since: float | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the model thread, which loads the models first."""
        self._thread.start()

    def health(self) -> tuple[State, str]:
        """The state, and its reason."""
        busy = self._busy_since
        if self._state == "ready" and busy is not None:
            seconds = time.monotonic() - busy
            if seconds > self.limits.stall_timeout:
                return "unhealthy", f"the model has been at one batch for {seconds:.0f} s"
        return self._state, self._reason

    @property
    def idle(self) -> bool:
        """Whether no request is queued or being computed."""
        with self._changed:
            return not len(self._queue) and not self._batch

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return len(self._queue)

    def wait_seconds(self) -> float:
        """Estimated seconds until the queue is empty."""
        with self._changed:
            return self._queue.seconds()

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
            self._admit(job)
            self._queue.of(job).add(job)
            self._measure_queue()
            self._changed.notify()
        return job

    def withdraw(self, job: Job) -> None:
        """Drop what is left of a job whose client has gone."""
        with self._changed:
            if self._queue.of(job).remove(job):
                self.metrics.dropped.inc()
                self._measure_queue()

    def drain(self) -> None:
        """Refuse new work and finish what is queued."""
        with self._changed:
            if self._state in ("ready", "loading"):
                self._set_state("draining", "the server is shutting down")
            self._changed.notify()

    def stop(self) -> None:
        """Fail all queued requests with 503, and end the thread after its batch."""
        with self._changed:
            self._end("draining", "the server is shutting down")
            self._stopped = True
            self._changed.notify()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout)

    def _admit(self, job: Job) -> None:
        limits = self.limits
        own = job.model.latency.seconds(job.waiting_tokens, job.model.max_batch_tokens)
        wait = self._queue.wait(job)
        if own > limits.request_timeout:
            self.metrics.rejected.labels("too_much_work").inc()
            raise ServingError(
                "too_much_work",
                f"these {len(job.items)} texts of {job.waiting_tokens} tokens would take about "
                f"{math.ceil(own)} s, and a request may take {limits.request_timeout:g} s; send "
                "fewer at once",
            )
        if wait > limits.max_wait or wait + own > limits.request_timeout:
            self.metrics.rejected.labels("overloaded").inc()
            raise ServingError(
                "overloaded",
                f"the queue is about {math.ceil(wait)} s long; try again later",
                retry_after=wait,
            )

    def _set_state(self, state: State, reason: str) -> None:
        self._state, self._reason = state, reason
        self.metrics.ready.set(state == "ready")

    def _measure_queue(self) -> None:
        self.metrics.queue_items.set(len(self._queue))
        self.metrics.queue_tokens.set(self._queue.tokens())

    def _end(self, state: Literal["draining", "unhealthy"], reason: str) -> None:
        """Fail what is queued or being computed; take nothing on any more."""
        self._set_state(state, reason)
        error = ServingError(state, reason, retry_after=5, headers={"Connection": "close"})
        for job in [*self._queue.clear(), *(item.job for item in self._batch)]:
            job.fail(error)
        self._measure_queue()

    # In the model thread

    def _run(self) -> None:
        try:
            device = self._open()
            with inference(device, self.bf16):
                self._prepare()
                with self._changed:
                    if self._state == "loading":
                        self._set_state("ready", "")
                self._work()
        except BaseException as error:  # whatever ended the thread, no request may wait for it
            with self._changed:
                if self._state == "loading" and isinstance(error, Exception):
                    self.start_error = error
                else:
                    logger.critical("the model thread has ended", exc_info=error)
                reason = f"the model thread has ended ({type(error).__name__}); restart the server"
                self._end("unhealthy", reason)

    def _open(self) -> torch.device:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        begun = time.monotonic()
        self.models = self._load()
        check_fusion(self.models)
        self.metrics.loading.set(time.monotonic() - begun)
        device = next(iter(self.models.values())).encoder.device
        self.bf16 = use_bf16(self.precision, device)
        return device

    def _prepare(self) -> None:
        for model in self.models.values():
            model.warm_up()
        if self._open_stored is not None:
            self.stored = self._open_stored(self.models["embedder"])
        if self._documents:
            model = self.models["embedder"]
            embedder = model.embedder
            logger.info("embedding %d documents of the corpus", len(self._documents))
            texts = list(self._documents.values())
            vectors = embedder.encode(
                texts, prompt_name="document", bf16=self.bf16, show_progress=True
            ).numpy()
            self.corpus = Corpus(
                texts, vectors, embedder.similarity, list(self._documents), model.bm25_weight
            )

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._queue) or self._stopped)
                if self._stopped:
                    return
                self._batch = self._queue.take()
                self._busy_since = time.monotonic()
                self._measure_queue()
            self._answer(self._batch)
            self._busy_since = None
            self._batch = []

    def _answer(self, batch: list[Item]) -> None:
        begun = time.monotonic()
        jobs = {item.job for item in batch}
        for job in jobs:
            if job.started is None:
                job.started = begun
                self.metrics.queued.observe(job.queued)
        model = batch[0].job.model
        results = compute_batch(model, [item.tokens for item in batch], self.metrics)
        seconds = time.monotonic() - begun
        tokens = sum(len(item.tokens) for item in batch)
        model.latency.note(tokens, seconds)
        self.metrics.note_batch(len(batch), tokens, seconds)
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
            self._queue.of(item.job).remove(item.job)
            self._measure_queue()
