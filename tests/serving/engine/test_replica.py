"""Processes of replicas: they end with their server, and not before."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from served import START, Process, until

CLIENTS = 16


@contextmanager
def server(model: Path, folder: Path, fresh: bool = False) -> Iterator[Process]:
    """scripts/serve.py with two replicas that both compute; ``fresh``: as a user starts it."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # a worker of pytest-xdist may have one
    try:
        if len(os.sched_getaffinity(0)) < 2:
            pytest.skip("this machine has one core")
        flags = ("--model", model, "--replicas", 2, "--threads", 1)
        started = Process(folder, *flags, fresh=fresh)
    finally:
        os.sched_setaffinity(0, own)
    with started:
        until(lambda: replicas(started) == 2, START)
        yield started


def replicas(started: Process) -> int:
    found: int = httpx.get(f"{started.url}/health").json()["replicas"]
    return found


def family(pid: int) -> set[int]:
    """All processes that came from one and live, itself included."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if state != "Z":
            parents[int(file.parent.name)] = int(parent)
    found = {pid} & parents.keys()
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def is_running(pid: int) -> bool:
    return pid in family(pid)


def test_sigterm_to_all_of_them_loses_no_request(tiny_bert: Path, tmp_path: Path) -> None:
    """A service manager signals every process; the server's finish what waits, and end."""
    texts = {"texts": ["a cat sat on the mat"] * 20}
    with server(tiny_bert, tmp_path) as started, ThreadPoolExecutor(CLIENTS) as pool:
        pids = family(started.process.pid)
        assert len(pids) >= 3
        asked = [
            pool.submit(httpx.post, f"{started.url}/embed_batch", json=texts, timeout=60)
            for _ in range(4 * CLIENTS)
        ]
        until(lambda: any(answer.done() for answer in asked))
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        statuses = []
        for answer in asked:
            try:
                statuses.append(answer.result(60).status_code)
            except httpx.TransportError:  # it came after the end: the server has not seen it
                continue
        assert set(statuses) <= {200, 503}
        assert 200 in statuses
        assert started.process.wait(40) == 0
        until(lambda: not any(map(is_running, pids)))
        seen = re.findall(r"route=/embed_batch status=(\d+)", started.text)
        assert sorted(map(int, seen)) == sorted(statuses)
        assert "the grace period is over" not in started.text
        assert "Traceback" not in started.text
        assert "restarting" not in started.text


def test_a_killed_server_leaves_no_process(tiny_bert: Path, tmp_path: Path) -> None:
    with server(tiny_bert, tmp_path, fresh=True) as started:
        pids = family(started.process.pid)
        assert len(pids) >= 3  # itself and two replicas
        started.process.send_signal(signal.SIGKILL)
        started.process.wait(30)
        until(lambda: not any(map(is_running, pids)))
