"""Closed-loop HTTP clients: each sends its next request when the last one is answered."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Load:
    """What the clients saw.

    Args:
        seconds: From the first request to the last response.
        statuses: Responses by status; 0 is a broken connection.
        latencies: Seconds of each request with status 200, ascending.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def note(self, status: int, seconds: float) -> None:
        """Count a response."""
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(seconds)

    @property
    def rate(self) -> float:
        """Requests with status 200 per second."""
        return self.statuses[200] / self.seconds

    def quantile(self, share: float) -> float:
        """The latency, in seconds, that this share of requests did not exceed."""
        if not self.latencies:
            return float("nan")
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


class Connection:
    """A client's keep-alive connection; hand-written, so that the client is no bottleneck."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self.host, self.port = parts.hostname, parts.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> int:
        """Post JSON and return the status of the response, 0 if the connection broke."""
        head = f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self.host, self.port)
            reader, writer = self._streams
            writer.write(head.encode() + b"\r\n" + body)
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            headers = dict(line.split(b": ", 1) for line in lines[1:] if line)
            await reader.readexactly(int(headers[b"content-length"]))
        except (OSError, EOFError):
            self.close()
            return 0
        if headers.get(b"connection") == b"close":
            self.close()
        return int(lines[0].split()[1])

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def load(url: str, path: str, bodies: Sequence[Any], clients: int, *, seconds: float) -> Load:
    """Let ``clients`` send requests for so long.

    Args:
        url: The server.
        path: The route.
        bodies: Sent in turn.
        clients: At once.
        seconds: How long.
    """
    found = Load()
    contents = itertools.cycle([json.dumps(body).encode() for body in bodies])
    begun = time.perf_counter()

    async def client() -> None:
        connection = Connection(url)
        while (sent := time.perf_counter()) <= begun + seconds:
            status = await connection.post(path, next(contents))
            found.note(status, time.perf_counter() - sent)
            if status == 0:
                await asyncio.sleep(0.1)  # the server may be gone
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    found.seconds = time.perf_counter() - begun
    found.latencies.sort()
    return found
