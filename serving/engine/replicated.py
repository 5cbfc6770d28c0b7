"""The engine with several replicas: processes that take batches from one queue."""

import gc
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import forkserver

import numpy as np

from common.prompts import with_prompt
from serving.engine.batch import Result
from serving.engine.engine import Engine, State
from serving.engine.job import Item, Job
from serving.engine.limits import Limits
from serving.engine.model import Precision, ServedModel, check_fusion
from serving.engine.placement import Place
from serving.engine.replica import Load, Opened, Replica, ReplicaLost
from serving.engine.tokenization import Tokens
from serving.http.errors import ServingError
from serving.http.metrics import Metrics
from serving.stored_corpus import StoredCorpus

logger = logging.getLogger(__name__)

# Seconds before a replica that has ended is started anew; doubled as long as none of its batches
# gets done.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
# Documents of the corpus that are tokenized and queued at once.
BLOCK = 1024


class ReplicatedEngine(Engine):
    """An engine whose batches are computed by processes, each asked by a thread of its own.

    Whichever is free takes the next batch. The texts of a replica that has ended, or hangs, are
    computed anew one by one; a text that ends a second one is answered with an error.

    Args:
        load: Opens the models, by role, on a device; called in each process.
        places: Where the replicas compute.
        limits: Of the server.
        metrics: What is counted.
        precision: "auto" is bf16 on devices that have it.
        documents: By id; embedded at start-up, to be searched.
        open_stored: Opens the documents of a store for the embedder.
    """

    def __init__(
        self,
        load: Load,
        places: Sequence[Place],
        limits: Limits,
        metrics: Metrics,
        precision: Precision = "float32",
        documents: Mapping[str, str] | None = None,
        open_stored: Callable[[ServedModel], StoredCorpus] | None = None,
    ) -> None:
        # This process needs all of the models but their weights.
        super().__init__(
            partial(load, "cpu"),
            limits,
            metrics,
            precision,
            documents=documents,
            open_stored=open_stored,
        )
        self._load_there = load
        self._places = places
        self.processes: dict[int, Replica] = {}  # by number
        self._ready: set[int] = set()  # the replicas that compute
        self._start_errors: dict[int, Exception] = {}

    def health(self) -> tuple[State, str]:
        """The state, and its reason; "loading" while there is no replica."""
        if self._state == "ready" and not self._ready:
            return "loading", "no replica is alive; all are being started anew"
        return self._state, self._reason

    @property
    def replicas(self) -> int:
        """How many copies of the models compute."""
        return len(self._ready)

    def stop(self) -> None:
        """Fail all queued requests with 503, and end the processes at once."""
        super().stop()
        for replica in list(self.processes.values()):
            replica.kill()

    def _serve(self) -> None:
        if self._places[0].device == "cpu":
            forkserver.ensure_running()  # it imports all while this process opens the models
        self._open_without_weights()
        threads = [
            threading.Thread(target=self._keep, args=(number,), name=f"replica {number}")
            for number in range(len(self._places))
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self.start_error or self._stopped)
        if self._ready:
            self._embed_corpus()
            for number, error in self._start_errors.items():
                logger.error("replica %d could not be started", number, exc_info=error)
            self._be_ready()
        for thread in threads:
            thread.join()

    def _open_without_weights(self) -> None:
        models = self._load()
        check_fusion(models)
        self._connect(models)
        for model in models.values():
            model.drop_weights()
            model.device = ", ".join(dict.fromkeys(place.device for place in self._places))
        gc.collect()
        self.models = models

    def _embed_corpus(self) -> None:
        if not self._documents:
            return
        logger.info("embedding %d documents of the corpus", len(self._documents))
        model, texts = self.models["embedder"], list(self._documents.values())
        prompt = model.encoder.find_prompt("document")

        def embed(start: int) -> np.ndarray:
            block = [with_prompt(text, prompt) for text in texts[start : start + BLOCK]]
            job = Job(model, model.tokenizer.texts(block))
            with self._changed:
                if self._state != "loading":
                    raise ServingError("draining", self._reason)
                self._add(job)
            return job.future.result()

        try:
            with ThreadPoolExecutor(2 * len(self._places)) as pool:
                vectors = list(pool.map(embed, range(0, len(texts), BLOCK)))
        except ServingError:
            if self._state == "loading":
                raise
        else:
            self.corpus = self._searched(model, np.concatenate(vectors))

    # In the thread of a replica

    def _keep(self, number: int) -> None:
        """Start a replica, again and again, until the engine stops."""
        pause = 0.0
        try:
            while not self._stopped:
                has_computed = self._run_replica(number)
                pause = min(2 * pause, LONGEST_PAUSE) if pause and not has_computed else FIRST_PAUSE
                with self._changed:
                    if not self._changed.wait_for(lambda: self._stopped, pause):
                        self.metrics.restarts.inc()
        except BaseException as error:  # no request may wait for a thread that has ended
            self._give_up(error)

    def _run_replica(self, number: int) -> bool:
        """Start a replica and have it compute until it ends; whether it has computed anything."""
        replica = Replica(self._places[number], self._load_there, self.precision, self._wake)
        self.processes[number] = replica
        has_computed = False
        try:
            if self._stopped:  # before it could be killed
                return False
            self._welcome(number, replica.opened())
            logger.info("replica %d is ready (process %d)", number, replica.pid)
            while batch := self._take(lambda: replica.alive):
                try:
                    self._answer(batch, partial(self._ask, replica))
                    has_computed = True
                except Exception:
                    self._put_back(batch)
                    raise
                finally:
                    self._done()
            if not self._stopped:
                raise ReplicaLost("has ended while it was idle")
        except Exception as error:
            self._note_end(number, error)
        finally:
            replica.kill()
        return has_computed

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _welcome(self, number: int, opened: Opened) -> None:
        with self._changed:
            if not self._ready:
                self.bf16 = opened.bf16
                for role, model in self.models.items():
                    model.max_batch_tokens = opened.max_batch_tokens[role]
                    model.latency = opened.latency[role]
            self.metrics.loading.set(opened.seconds)
            self._ready.add(number)
            self._start_errors.pop(number, None)
            self._measure_replicas()

    def _note_end(self, number: int, error: Exception) -> None:
        with self._changed:
            was_ready = number in self._ready
            self._ready.discard(number)
            self._measure_replicas()
            if self._stopped:
                return
            if was_ready or (self._state != "loading" and isinstance(error, ReplicaLost)):
                logger.error("replica %d %s; it is started anew", number, error)
            elif self._state != "loading":
                logger.error("replica %d could not be started", number, exc_info=error)
            else:
                self._start_errors[number] = error
            if len(self._start_errors) == len(self._places):
                self._give_up(error)
                self._stopped = True

    def _measure_replicas(self) -> None:
        self.metrics.replicas.set(len(self._ready))
        self.metrics.ready.set(self.health()[0] == "ready")
        self._changed.notify_all()

    def _ask(self, replica: Replica, model: ServedModel, batch: Sequence[Tokens]) -> list[Result]:
        role = next(role for role, known in self.models.items() if known is model)
        answer = replica.compute(role, batch, self.limits.stall_timeout)
        for kind in answer.failures:
            self.metrics.count_error(kind)
        model.max_batch_tokens = min(model.max_batch_tokens, answer.max_batch_tokens)
        return answer.results

    def _put_back(self, batch: list[Item]) -> None:
        """Queue texts anew whose batch was lost; fail one that has ended two processes."""
        for item in batch:
            if item.suspect:
                error = ServingError("inference_error", "the model's process ended on this text")
                self._fail(item, error)
            else:
                with self._changed:
                    self._queue.put_back(item)
                    self._measure_queue()
                    self._changed.notify_all()
