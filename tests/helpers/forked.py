"""Run scripts in copies of one process that has imported everything.

Importing takes 8 seconds of a core, and a run of the tests starts some forty processes. What a
fresh process does differently (settings that libraries read on import, the seed of string hashes)
is tested by those that ``launching.start`` starts.
"""

import atexit
import gc
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from runs import ROOT

PRELOADED = [
    "peft",
    "pytest",
    "scripts.evaluate",
    "scripts.index",
    "scripts.mine_negatives",
    "scripts.prepare_data",
    "scripts.score_with_teacher",
    "scripts.serve",
    "scripts.train",
]
_COPIES = multiprocessing.get_context("forkserver")
_COPIES.set_forkserver_preload(PRELOADED)


class Copy:
    """A script in a process of its own, like one that ``subprocess.Popen`` starts.

    Args:
        command: The script's path in the repository, and its arguments.
        environment: Variables beside those of this process.
    """

    def __init__(self, command: Sequence[object], **environment: str) -> None:
        self.command = [str(word) for word in command]
        sys.audit("tests.copy", self.command)  # see slow.py
        self.folder = Path(tempfile.mkdtemp(dir=os.environ["HF_HOME"]))
        given = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", **environment}
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self.process: BaseProcess = _COPIES.Process(
            target=_run, args=(self.command, given, self.folder, cores)
        )
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._text("output")

    @property
    def errors(self) -> str:
        """The same of its standard error."""
        return self._text("errors")

    def _text(self, name: str) -> str:
        file = self.folder / name
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def poll(self) -> int | None:
        """Its exit code; None: it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Only to it, not to processes that it has started."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, seconds: int = 300) -> int:
        """Wait for its end; the exit code. Where it hangs, the test fails."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            pytest.fail(f"no end after {seconds} s:\n{self.output}\n{self.errors}")
        return self.process.exitcode


def copies(processes: int, command: Sequence[object], **environment: str) -> list[Copy]:
    """So many processes that find each other as those of ``accelerate launch`` on a CPU do.

    ``{rank}`` in a value of ``environment`` stands for a process's own.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": processes}
    shared |= {"LOCAL_WORLD_SIZE": processes, "ACCELERATE_USE_CPU": "true"}
    given = {name: str(value) for name, value in shared.items()} | environment
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return [
        Copy(command, **{k: v.replace("{rank}", rank["RANK"]) for k, v in given.items()}, **rank)
        for rank in ranks
    ]


def together(processes: int, command: Sequence[object], **environment: str) -> str:
    """Run in so many processes; returns what they printed, the first one's first."""
    started = copies(processes, command, **environment)
    for copy in started:
        assert copy.wait() == 0, copy.output + copy.errors
    return "".join(copy.output + copy.errors for copy in started)


def _run(command: list[str], environment: dict[str, str], folder: Path, cores: set[int]) -> None:
    """Become the script."""
    os.setsid()  # signals to its group reach its own workers, and nothing else
    if cores:
        os.sched_setaffinity(0, cores)
    for name, stream in (("output", sys.stdout), ("errors", sys.stderr)):
        stream.flush()
        with (folder / name).open("w", encoding="utf-8") as file:
            os.dup2(file.fileno(), stream.fileno())
        assert hasattr(stream, "reconfigure")
        stream.reconfigure(line_buffering=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    multiprocessing.set_start_method("fork", force=True)  # a copy would have the one it came by
    sys.argv = command
    gc.freeze()  # as in conftest.py
    atexit._clear()
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a process of multiprocessing ends without
