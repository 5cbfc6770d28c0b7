"""Run scripts/train.py in forked processes that report their progress and can be killed."""

import json
import mmap
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import trainers.checkpoints.trainer
from scripts.train import main as train
from trainers.base import BaseTrainer

# A place within another counts as the later one of this list.
PLACES = ["start", "between", "batch", "step", "evaluation", "model", "checkpoint", "rename"]


@dataclass
class Plan:
    """When a run gets a signal: so long after it has come to a place for the n-th time."""

    place: int
    entry: int
    delay: float
    signal: signal.Signals


class Run:
    """A run of ``scripts/train.py`` in forked processes.

    Args:
        recipe: The run's.
        folder: Its output folder.
        name: Of the configuration, which says whether there are two processes.
        plan: When it will be killed.
    """

    def __init__(
        self, recipe: dict[str, Any], folder: Path, name: str, plan: Plan | None = None
    ) -> None:
        self.log, self.times = folder.with_suffix(".log"), folder.with_suffix(".times")
        file = folder.with_suffix(".json")
        file.write_text(json.dumps(recipe | {"output_dir": str(folder)}, ensure_ascii=False))
        self.plan = plan
        self.place = mmap.mmap(-1, 1)
        self.notified, tell = os.pipe()
        processes = 2 if "two processes" in name else 1
        # The one of the two that is killed; it is as often the one that writes.
        chosen = plan.entry % processes if plan else 0
        port = free_port()
        self.log.write_text("")
        self.pids = []
        for rank in range(processes):
            environment = {
                **({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
                **({"WORLD_SIZE": str(processes)} if processes > 1 else {}),
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
                **{"GLOO_SOCKET_IFNAME": "lo"},
            }
            pid = os.fork()
            if pid == 0:
                os.environ |= environment
                self.run(file, tell if rank == chosen else None, writes_times=rank == 0)
            self.pids.append(pid)
        self.pids.insert(0, self.pids.pop(chosen))
        os.close(tell)

    def run(self, file: Path, tell: int | None, writes_times: bool) -> None:
        """The whole life of a forked process."""
        code = 1
        try:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            torch.cpu._is_avx512_bf16_supported = lambda: True  # emulated: slow, and the same
            watch = Watch(self.place if tell is not None else mmap.mmap(-1, 1), self.plan, tell)
            train(["--config", str(file)])
            watch.entered(None)
            if writes_times:
                self.times.write_text(json.dumps(watch.seconds))
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except KeyboardInterrupt:
            code = 128 + signal.SIGINT
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def stop_as_planned(self) -> tuple[str | None, int]:
        """The place that was hit, or None for a run that ended before; and its exit status.

        SIGTERM goes to one process, which has to tell the other; whoever kills one kills both.
        """
        select.select([self.notified], [], [])
        if self.plan is None or os.read(self.notified, 1) == b"":
            return None, self.wait()
        time.sleep(self.plan.delay)
        for pid in self.pids[: None if self.plan.signal == signal.SIGKILL else 1]:
            os.kill(pid, self.plan.signal)
        place = PLACES[self.place[0]]
        status = self.wait()
        stopped = status in (-self.plan.signal, 128 + self.plan.signal)
        return (place if stopped else None), status

    def wait(self) -> int:
        """The exit status of the process that may be killed, once all have ended.

        When it fails, the other is told to end, as torchrun does it.
        """
        os.close(self.notified)
        first, *others = self.pids
        status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        for pid in others:
            if status != 0:
                os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        return status


class Watch:
    """Says from within a run where it is.

    Args:
        place: One byte of shared memory: an index of ``PLACES``.
        plan: Tell when its place is entered for the n-th time.
        tell: The pipe to tell it by.
    """

    def __init__(self, place: mmap.mmap, plan: Plan | None, tell: int | None) -> None:
        self.place, self.plan, self.tell = place, plan, tell
        self.seconds: list[list[float]] = [[] for _ in PLACES]
        self.since = time.perf_counter()
        self.counts: Counter[int] = Counter()
        self.entered(0)
        for owner, method, name in [
            (BaseTrainer, "train", "between"),
            (BaseTrainer, "get_batch_samples", "batch"),
            (BaseTrainer, "training_step", "step"),
            (BaseTrainer, "evaluation_loop", "evaluation"),
            (BaseTrainer, "save_model", "model"),
            (BaseTrainer, "_save_checkpoint", "checkpoint"),
            (trainers.checkpoints.trainer, "put_in_place", "rename"),
            (trainers.checkpoints.trainer, "put_model_in_place", "rename"),
            (trainers.checkpoints.trainer, "rotate", "rename"),
        ]:
            setattr(owner, method, self.marked(getattr(owner, method), PLACES.index(name)))

    def marked(self, work: Callable[..., Any], place: int) -> Callable[..., Any]:
        """``work``, with the place noted while it lasts."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            before = self.place[0]
            if place < before:
                return work(*args, **kwargs)
            self.entered(place)
            try:
                return work(*args, **kwargs)
            finally:
                self.entered(before)

        return noted

    def entered(self, place: int | None) -> None:
        """Note a place, and the seconds of the one before; None: the end."""
        now = time.perf_counter()
        if self.counts:
            self.seconds[self.place[0]].append(now - self.since)
        self.since = now
        if place is None:
            return
        self.place[0] = place
        planned = self.plan is not None and place == self.plan.place
        if planned and self.counts[place] == self.plan.entry and self.tell is not None:
            os.write(self.tell, b"!")
        self.counts[place] += 1


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
