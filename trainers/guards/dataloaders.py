"""Dataloaders whose worker processes neither disturb a run nor outlive it.

The workers ignore signals, so multiprocessing, which ends them by SIGTERM and then waits for them
without a limit, would wait for ever; and where the garbage collector meets an iterator, it may
close the queues by which torch tells workers to end. So they are ended here.
"""

import signal
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import DataLoader

_workers: list[BaseProcess] = []  # of all loaders


class IsolatedDataLoaders:
    """The loaders of a run. Their workers draw no random numbers, ignore signals, end with it."""

    def __init__(self) -> None:
        self._loader_of: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # by iterator

    def add(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """Give a loader a generator of its own for its workers' seeds; its workers ignore signals.

        Seeds drawn from the global generator, as is usual, would shift dropout's random numbers by
        the number of iterators made: runs with persistent workers, resumed runs and runs with
        evaluations would differ. The workers draw no random numbers, so nothing has to be seeded in
        them.
        """
        inner: Any = getattr(loader, "base_dataloader", loader)
        inner.generator = torch.Generator()
        if inner.worker_init_fn is not ignore_signals:  # Trainer keeps the loaders of evaluations
            inner.worker_init_fn = ignore_signals
            make_iterator = inner._get_iterator

            def noted() -> Any:
                iterator = make_iterator()
                self._loader_of[iterator] = inner
                _workers[:] = filter(BaseProcess.is_alive, _workers)
                _workers.extend(getattr(iterator, "_workers", []))
                return iterator

            inner._get_iterator = noted
        return loader

    def end_workers(self) -> None:
        """End the workers; what is still to come starts new ones."""
        for iterator, loader in list(self._loader_of.items()):
            if hasattr(iterator, "_shutdown_workers"):
                iterator._shutdown_workers()
            if loader._iterator is iterator:
                loader._iterator = None
        self._loader_of.clear()


def ignore_signals(_: int) -> None:
    """In a worker: leave signals to the run, which finishes its step.

    They reach workers too where a process group gets them.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _kill_workers() -> None:
    """Those that nobody has ended."""
    for worker in _workers:
        worker.kill()
        worker.join()
    _workers.clear()


Finalize(None, _kill_workers, exitpriority=100)  # before multiprocessing waits for them
