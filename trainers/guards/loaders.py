"""Dataloaders whose worker processes neither disturb a run nor outlive it."""

import signal
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader


class IsolatedLoaders:
    """The loaders of a run. Their workers draw no random numbers, ignore signals, and end with it.

    multiprocessing ends workers by a SIGTERM, which these ignore, and then waits for them without a
    limit; and where the garbage collector meets an iterator, it may close the queues by which torch
    tells workers to end. So they are ended here.
    """

    def __init__(self) -> None:
        self._loaders: list[Any] = []
        self._iterators: WeakSet[Any] = WeakSet()
        self._workers: list[BaseProcess] = []
        # Before multiprocessing waits for them, where nobody has ended them.
        Finalize(None, self.end_workers, exitpriority=100)

    def add(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """Give a loader a generator of its own for its workers' seeds; its workers ignore signals.

        Seeds drawn from the global generator, as is usual, would shift dropout's random numbers by
        the number of iterators made: runs with persistent workers, resumed runs and runs with
        evaluations would differ. The workers draw no random numbers, so nothing has to be seeded in
        them.
        """
        inner: Any = getattr(loader, "base_dataloader", loader)
        inner.generator = torch.Generator()
        if inner not in self._loaders:  # Trainer keeps those of evaluations
            self._loaders.append(inner)
            inner.worker_init_fn = ignore_signals
            make_iterator = inner._get_iterator

            def noted() -> Any:
                iterator = make_iterator()
                self._iterators.add(iterator)
                alive = [worker for worker in self._workers if worker.is_alive()]
                self._workers = alive + getattr(iterator, "_workers", [])
                return iterator

            inner._get_iterator = noted
        return loader

    def end_workers(self) -> None:
        """End all workers."""
        for iterator in list(self._iterators):
            if hasattr(iterator, "_shutdown_workers"):
                iterator._shutdown_workers()
        for loader in self._loaders:
            loader._iterator = None  # what is still to come starts new ones
        for worker in self._workers:
            worker.kill()
            worker.join()
        self._workers = []


def ignore_signals(_: int) -> None:
    """In a worker: leave signals to the run, which finishes its step.

    They reach workers too where a process group gets them.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
