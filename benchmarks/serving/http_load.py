"""Clients that ask a server: each one after the other, or all together so often a second."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Load:
    """What clients saw.

    Args:
        seconds: From the first request to the last answer.
        statuses: Answers by status; 0 is a connection that broke.
        latencies: Seconds of each request that was answered by 200, rising.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def note(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(seconds)

    @property
    def rate(self) -> float:
        """Requests a second that were answered by 200."""
        return self.statuses[200] / self.seconds

    @property
    def failed(self) -> dict[int, int]:
        """Answers that neither gave what was asked for nor said to come again later (429)."""
        return {status: n for status, n in self.statuses.items() if status not in (200, 429)}

    def quantile(self, share: float) -> float:
        """Seconds in which that share of requests was answered."""
        if not self.latencies:
            return float("nan")
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


class Connection:
    """One client's connection, kept open. Written by hand: it must not be what is measured."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self.host, self.port = parts.hostname, parts.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Status and body of an answer; POST if there is a body to send."""
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {self.host}\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self.host, self.port)
            reader, writer = self._streams
            writer.write(head.encode() + b"\r\n" + (body or b""))
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            headers = dict(line.split(b": ", 1) for line in lines[1:] if line)
            content = await reader.readexactly(int(headers[b"content-length"]))
        except (OSError, EOFError):
            self.close()
            return 0, b""
        if headers.get(b"connection") == b"close":
            self.close()
        return int(lines[0].split()[1]), content

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def load(
    url: str,
    path: str,
    bodies: Sequence[Any],
    clients: int,
    *,
    requests: int | None = None,
    seconds: float | None = None,
) -> Load:
    """Let ``clients`` ask, each as soon as it has its answer, so often or so long in all.

    Args:
        url: The server.
        path: The route.
        bodies: Taken in turn.
        clients: At once.
        requests: In all.
        seconds: Or for so long.
    """
    found = Load()
    contents = itertools.cycle([json.dumps(body).encode() for body in bodies])
    end = time.perf_counter() + (float("inf") if seconds is None else seconds)
    numbers: Iterator[int] = iter(range(10**9 if requests is None else requests))

    async def client() -> None:
        connection = Connection(url)
        for _ in numbers:
            begun = time.perf_counter()
            if begun > end:
                break
            status, _ = await connection.ask(path, next(contents))
            found.note(status, time.perf_counter() - begun)
            if status == 0:
                await asyncio.sleep(0.1)  # the server may have gone
        connection.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    found.seconds = time.perf_counter() - begun
    found.latencies.sort()
    return found


async def arrivals(
    url: str, path: str, bodies: Sequence[Any], a_second: float, *, seconds: float
) -> Load:
    """Ask ``a_second`` times a second, whether or not the server has answered the others.

    Args:
        url: The server.
        path: The route.
        bodies: Taken in turn.
        a_second: Requests.
        seconds: For so long.
    """
    found = Load()
    contents = itertools.cycle([json.dumps(body).encode() for body in bodies])
    free: list[Connection] = []

    async def ask() -> None:
        connection = free.pop() if free else Connection(url)
        begun = time.perf_counter()
        status, _ = await connection.ask(path, next(contents))
        found.note(status, time.perf_counter() - begun)
        free.append(connection)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(a_second * seconds)):
            await asyncio.sleep(begun + number / a_second - time.perf_counter())
            tasks.create_task(ask())
    found.seconds = time.perf_counter() - begun
    found.latencies.sort()
    for connection in free:
        connection.close()
    return found
