"""The engine with several replicas: processes that take batches from one queue."""

import gc
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import forkserver

from serving.engine.batch import Result
from serving.engine.engine import Engine, State
from serving.engine.job import Item, Job
from serving.engine.limits import Limits
from serving.engine.model import Precision, ServedModel
from serving.engine.model_sets import ModelSet, embed_by_jobs
from serving.engine.placement import Placement
from serving.engine.replica import Load, Replica, ReplicaLost
from serving.engine.tokenization import Tokens
from serving.http.errors import ServingError
from serving.http.metrics import Metrics
from serving.stored_corpus import StoredCorpus

logger = logging.getLogger(__name__)

# Seconds before a replica that has ended is restarted; doubled as long as none of its batches
# gets done.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0


class ReplicatedEngine(Engine):
    """An engine whose batches are computed by processes, each driven by a thread of its own.

    Whichever is free takes the next batch. The texts of a replica that has died, or hangs, are
    computed again one by one; a text that kills a second replica is answered with an error.

    Args as of ``Engine``, of which ``load`` is called in each process.
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
        super().__init__(load, placements, limits, metrics, precision, documents, open_stored)
        self.processes: dict[int, Replica] = {}  # by number
        # Those that replicas have or are to open, by number; how; and what came of it.
        self._known: dict[int, ModelSet] = {}
        self._loads: dict[int, Load] = {}
        self._open_errors: dict[int, Exception] = {}
        self._updating: int | None = None  # the ready replica that opens or drops models
        self._ready: set[int] = set()  # the replicas that compute
        self._start_errors: dict[int, Exception] = {}

    def health(self) -> tuple[State, str]:
        """The state, and its reason; "loading" while there is no replica."""
        if self._state == "ready" and not self._ready:
            return "loading", "no replica is alive; all are being restarted"
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

    def forget(self, model_set: ModelSet) -> None:
        """Have the replicas drop the models of an unloaded set."""
        with self._changed:
            del self._loads[model_set.number], self._known[model_set.number]
            self._open_errors.pop(model_set.number, None)
            self._changed.notify_all()

    def _serve(self) -> None:
        if self._placements[0].device == "cpu":
            forkserver.ensure_running()  # it imports all while this process opens the models
        model_set = self._open_without_weights(None, self._load)
        threads = [
            threading.Thread(target=self._keep_running, args=(number,), name=f"replica {number}")
            for number in range(len(self._placements))
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self.start_error or self._stopped)
        if self._ready:
            self._embed_corpus(model_set)
            for number, error in self._start_errors.items():
                logger.error("replica %d could not be started", number, exc_info=error)
            self._become_ready(model_set)
        for thread in threads:
            thread.join()

    def _open_models(self, name: str | None, load: Load) -> ModelSet:
        """Open models without weights here, and whole in one replica after the other."""
        model_set = self._open_without_weights(name, load)
        try:
            with self._changed:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._is_open(model_set) or self._stopped)
                if error := self._open_errors.get(model_set.number):
                    raise error
            self._embed_corpus(model_set)
        except BaseException:
            self.forget(model_set)
            raise
        return model_set

    def _is_open(self, model_set: ModelSet) -> bool:
        """Whether every replica has opened a model set, or one could not."""
        alive = [self.processes[number] for number in self._ready]
        everywhere = bool(alive) and all(model_set.number in each.model_sets for each in alive)
        return everywhere or model_set.number in self._open_errors

    def _open_without_weights(self, name: str | None, load: Load) -> ModelSet:
        # This process needs all of the models but their weights.
        model_set = self._open(name, load("cpu"))
        for model in model_set.models.values():
            model.drop_weights()
            model.device = ", ".join(dict.fromkeys(each.device for each in self._placements))
        gc.collect()
        with self._changed:
            self._known[model_set.number], self._loads[model_set.number] = model_set, load
        return model_set

    def _embed_corpus(self, model_set: ModelSet) -> None:
        if not self._documents:
            return
        try:
            embed_by_jobs(model_set, self._documents, self._submit_block, 2 * len(self._placements))
        except ServingError:
            if self._state in ("loading", "ready"):
                raise

    def _submit_block(self, job: Job) -> None:
        with self._changed:
            if self._state not in ("loading", "ready"):
                raise ServingError("draining", self._reason)
            self._add(job)

    # In the thread of a replica

    def _keep_running(self, number: int) -> None:
        """Start a replica, and restart it whenever it ends, until the engine stops."""
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
        replica = Replica(self._placements[number], self.precision, self._measure_replicas)
        self.processes[number] = replica
        has_computed = False
        try:
            while replica.alive and not self._stopped:
                self._update(number, replica)
                batch = self._take(partial(self._can_take_batch, number, replica))
                if not batch:
                    continue
                try:
                    self._answer(batch, partial(self._ask, replica))
                    has_computed = True
                except Exception:
                    self._put_back(batch, replica.has_begun)
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

    def _can_take_batch(self, number: int, replica: Replica) -> bool:
        """Whether it can take a batch; it cannot while it is its turn to open or drop models."""
        up_to_date = replica.model_sets == self._loads.keys()
        return replica.alive and (up_to_date or self._updating not in (None, number))

    def _update(self, number: int, replica: Replica) -> None:
        """Open the models that a replica lacks, and drop those that were unloaded.

        Only one at a time of those that compute, so that the others go on.
        """
        with self._changed:
            if number in self._ready:
                if self._updating is not None or replica.model_sets == self._loads.keys():
                    return
                self._updating = number
            loads = dict(self._loads)
        try:
            for old in sorted(replica.model_sets - loads.keys()):
                replica.close(old)
            for new in sorted(loads.keys() - replica.model_sets):
                self._open_in_replica(number, replica, new, loads[new])
            if number not in self._ready:
                self._mark_ready(number, replica)
        finally:
            with self._changed:
                if self._updating == number:
                    self._updating = None
                self._changed.notify_all()

    def _open_in_replica(self, number: int, replica: Replica, new: int, load: Load) -> None:
        try:
            opened = replica.open(new, load)
        except Exception as error:
            is_served = any(model_set.number == new for model_set in self.model_sets.ready.values())
            if is_served or not self.model_sets.ready:
                raise
            # Of a model set beside those that are served: it is given up, and they are not.
            with self._changed:
                self._open_errors[new] = error
            if isinstance(error, ReplicaLost):
                raise
            replica.model_sets.add(new)  # until it is told to drop it
            return
        with self._changed:
            self.metrics.loading.set(opened.seconds)
            others = [self.processes[other] for other in self._ready - {number}]
            model_set = self._known.get(new)  # None: it was unloaded meanwhile
            if model_set is None or any(new in other.model_sets for other in others):
                return
            self.bf16 = opened.bf16
            for role, model in model_set.models.items():
                model.max_batch_tokens = opened.max_batch_tokens[role]
                model.latency = opened.latency[role]

    def _mark_ready(self, number: int, replica: Replica) -> None:
        with self._changed:
            self._ready.add(number)
            self._start_errors.pop(number, None)
            self._measure_replicas()
        logger.info("replica %d is ready (process %d)", number, replica.pid)

    def _note_end(self, number: int, error: Exception) -> None:
        with self._changed:
            was_ready = number in self._ready
            self._ready.discard(number)
            self._measure_replicas()
            if self._stopped:
                return
            if was_ready or (self._state != "loading" and isinstance(error, ReplicaLost)):
                logger.error("replica %d %s; restarting it", number, error)
            elif self._state != "loading":
                logger.error("replica %d could not be started", number, exc_info=error)
            else:
                self._start_errors[number] = error
            if len(self._start_errors) == len(self._placements):
                self._give_up(error)
                self._stopped = True

    def _measure_replicas(self) -> None:
        with self._changed:
            self.metrics.replicas.set(len(self._ready))
            self._changed.notify_all()

    def _ask(self, replica: Replica, model: ServedModel, batch: Sequence[Tokens]) -> list[Result]:
        model_set, role = next(
            (model_set, role)
            for model_set in list(self._known.values())
            for role, known in model_set.models.items()
            if known is model
        )
        answer = replica.compute(model_set.number, role, batch, self.limits.stall_timeout)
        for kind in answer.failures:
            self.metrics.count_error(kind)
        model.max_batch_tokens = min(model.max_batch_tokens, answer.max_batch_tokens)
        return answer.results

    def _put_back(self, batch: list[Item], begun: bool) -> None:
        """Queue the texts of a lost batch again; fail a text that has killed two processes."""
        for item in batch:
            if item.suspect and begun:
                error = ServingError("inference_error", "the model's process ended on this text")
                self._fail(item, error)
            else:
                with self._changed:
                    self._queue.put_back(item._replace(suspect=begun or item.suspect))
                    self._measure_queue()
                    self._changed.notify_all()
