"""Disconnecting, slow and malformed clients; server shutdown."""

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import pytest

from served import Held, Process, engine_of, hold, running, served, until
from serving.engine.engine import Engine

BODY = json.dumps({"text": "a cat"}).encode()
HEAD = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture
def server(tiny_bert: Path) -> Iterator[tuple[str, Engine]]:
    with served({"embedder": tiny_bert}, body_timeout=0.5, request_timeout=20) as found:
        yield found


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def talk(url: str, *parts: bytes) -> bytes:
    """Send parts, and read until the server closes or has nothing more to say."""
    with connect(url) as opened:
        found = b""
        with suppress(TimeoutError, ConnectionError):
            for part in parts:
                opened.sendall(part)
            opened.settimeout(1)
            while piece := opened.recv(65536):
                found += piece
        return found


def sized(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_who_goes_leaves_the_queue(server: tuple[str, Engine]) -> None:
    url, engine = server
    held = hold(engine)
    clients = [connect(url) for _ in range(100)]
    for client in clients:
        client.sendall(sized(BODY))
    until(lambda: engine.waiting == 100)
    for client in clients[:-1]:
        client.close()
    until(lambda: engine.waiting == 1)
    held.free.set()
    assert clients[-1].recv(100).startswith(b"HTTP/1.1 200")
    clients[-1].close()
    assert [len(batch) for batch in held.batches] == [1, 1]
    dropped = engine.metrics.registry.get_sample_value("tandem_dropped_total")
    assert dropped == 99
    labels = {"route": "/embed", "status": "499"}
    count = engine.metrics.registry.get_sample_value
    until(lambda: count("tandem_requests_total", labels) == 99)


def test_who_waits_too_long_is_told(tiny_bert: Path) -> None:
    with served({"embedder": tiny_bert}, request_timeout=0.3) as (url, engine):
        held = hold(engine)
        found = httpx.post(f"{url}/embed", json={"text": "a"}, timeout=30)
        assert (found.status_code, found.json()["error"]["code"]) == (504, "timeout")
        assert found.headers["Retry-After"] == "1"
        assert engine.waiting == 0
        held.free.set()


def test_all_that_a_request_asks_models_for_has_one_deadline(
    tiny_bert: Path, tiny_classifier: Path
) -> None:
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier}
    with served(folders, request_timeout=1.0) as (url, engine):
        for model in engine.models.values():
            Held(model).fault = lambda batch: time.sleep(0.8)
        for path in ("/search", "/compare"):
            body = {"query": "a", "documents": ["b", "c"]}
            found = httpx.post(f"{url}{path}", json=body, timeout=30)
            assert (found.status_code, found.json()["error"]["code"]) == (504, "timeout")


def threads_since(before: set[threading.Thread]) -> set[threading.Thread]:
    return set(threading.enumerate()) - before


def test_a_store_that_hangs_has_a_deadline_and_stops_nothing_else(tiny_bert: Path) -> None:
    free, before = threading.Event(), set(threading.enumerate())

    class Hanging:
        bm25_weight = 0.0
        allow_writes = True

        def hang(self, *_: Any) -> Any:
            assert free.wait(60)

        search = read = delete = hang

    with (
        served({"embedder": tiny_bert}, open_stored=lambda _: Hanging(), request_timeout=3.0) as (
            url,
            _,
        ),
        httpx.Client(base_url=url, timeout=30) as client,
        concurrent.futures.ThreadPoolExecutor(3) as pool,
    ):
        asked = [
            pool.submit(client.post, "/search", json={"query": "a"}),
            pool.submit(client.post, "/documents/delete", json={"ids": ["a"]}),
            pool.submit(client.get, "/documents/a"),
        ]
        # Those of other tests' servers may not have ended yet.
        until(lambda: sum(t.name.startswith("blocking") for t in threads_since(before)) == 3)
        # Too long to be tokenized without a thread.
        found = client.post("/embed_batch", json={"texts": ["a cat " * 1000]})
        assert found.status_code == 200, found.text
        for answer in asked:
            found = answer.result(30)
            assert (found.status_code, found.json()["error"]["code"]) == (504, "timeout")
        free.set()


def test_a_dead_model_thread_is_told_at_once(server: tuple[str, Engine]) -> None:
    url, engine = server
    held = hold(engine)

    def fault(batch: Any) -> None:
        raise SystemExit

    held.fault = fault
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        asked = [
            pool.submit(httpx.post, f"{url}/embed", json={"text": "a"}, timeout=30)
            for _ in range(10)
        ]
        until(lambda: engine.waiting == 10)
        held.free.set()
        for answer in asked:
            found = answer.result(30)
            assert (found.status_code, found.json()["error"]["code"]) == (503, "unhealthy")
    assert httpx.get(f"{url}/health").status_code == 503
    assert httpx.get(f"{url}/ready").status_code == 503
    assert httpx.get(f"{url}/live").status_code == 200
    tei = httpx.post(f"{url}/embed", json={"inputs": "a"}, timeout=30)
    assert (tei.status_code, tei.json()["error_type"]) == (503, "Unhealthy")


def test_a_model_that_hangs_is_seen_by_prometheus(tiny_bert: Path) -> None:
    with served({"embedder": tiny_bert}, stall_timeout=0.05) as (url, engine):
        held = hold(engine)
        until(lambda: httpx.get(f"{url}/health").status_code == 503)
        assert "\ntandem_ready 0.0\n" in httpx.get(f"{url}/metrics").text
        held.free.set()
        until(lambda: "\ntandem_ready 1.0\n" in httpx.get(f"{url}/metrics").text)


def test_a_poisoned_text_among_others(server: tuple[str, Engine]) -> None:
    url, engine = server
    model = engine.models["embedder"]
    bad = model.tokenizer.texts(["fever"])[0]
    held = hold(engine)

    def fault(batch: Any) -> None:
        if bad in batch:
            raise RuntimeError("poison with a secret text")

    held.fault = fault
    texts = ["a cat"] * 9 + ["fever"]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        asked = [
            pool.submit(httpx.post, f"{url}/embed", json={"text": text}, timeout=30)
            for text in texts
        ]
        until(lambda: engine.waiting == 10)
        held.free.set()
        found = [answer.result(30) for answer in asked]
    assert [answer.status_code for answer in found] == [200] * 9 + [500]
    assert found[-1].json()["error"]["code"] == "inference_error"
    assert "secret" not in found[-1].text
    tei = httpx.post(f"{url}/embed", json={"inputs": "fever"}, timeout=30)
    assert (tei.status_code, tei.json()["error_type"]) == (424, "Backend")


def test_slow_and_half_bodies(server: tuple[str, Engine]) -> None:
    url, engine = server
    half = HEAD + b"Content-Length: 100\r\n\r\n" + BODY
    found = talk(url, half)
    assert found.startswith(b"HTTP/1.1 408")
    assert b'"code":"body_timeout"' in found
    with connect(url) as gone:
        gone.sendall(half)
    until(lambda: not engine.waiting)


def test_unusual_ways_to_send_a_body(server: tuple[str, Engine]) -> None:
    url, _ = server
    two = talk(url, sized(BODY) + sized(BODY))  # pipelined
    assert two.count(b"HTTP/1.1 200") == 2
    old = talk(url, sized(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert old.count(b"200 OK") == 1
    careful = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    with connect(url) as opened:
        opened.sendall(careful)
        assert opened.recv(1000).startswith(b"HTTP/1.1 100")
        opened.sendall(BODY)
        assert opened.recv(1000).startswith(b"HTTP/1.1 200")
    large = HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n"
    assert talk(url, large).startswith(b"HTTP/1.1 413")
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    assert talk(url, chunked).startswith(b"HTTP/1.1 200")
    lying = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n"
    assert b"HTTP/1.1 400" in talk(url, lying)
    both = HEAD + b"Content-Length: abc\r\n\r\n"
    assert b"HTTP/1.1 400" in talk(url, both)
    many = b"GET /live HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 2**20 + b"\r\n\r\n"
    assert b" 200 " not in talk(url, many)
    assert httpx.get(f"{url}/health").status_code == 200


def test_sigterm_finishes_what_waits(tiny_bert: Path, tmp_path: Path) -> None:
    """Under load: whoever was let in is answered, health says 503, the status is 0."""
    with Process(tmp_path, "--model", tiny_bert) as server:
        texts = {"texts": ["a cat sat on the mat"] * 20}
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            asked = [
                pool.submit(httpx.post, f"{server.url}/embed_batch", json=texts, timeout=60)
                for _ in range(32)
            ]
            until(lambda: any(answer.done() for answer in asked))
            server.terminate()
            statuses = []
            for answer in asked:
                try:
                    statuses.append(answer.result(60).status_code)
                except (httpx.ConnectError, httpx.RemoteProtocolError):
                    statuses.append(503)  # the server ended before it read the request
        assert set(statuses) <= {200, 503}
        assert server.process.wait(40) == 0
        answered = re.findall("route=/embed_batch status=200", server.text)
        assert len(answered) == statuses.count(200) > 0
    assert "Traceback" not in server.text


def test_draining_is_told_and_a_second_signal_ends_it(tiny_bert: Path) -> None:
    """As the signals' handler sees them; the grace is 25 s."""
    with (
        engine_of({"embedder": tiny_bert}) as engine,
        running(engine, ["embedder"]) as (url, server),
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        held = hold(engine)
        waiting = pool.submit(httpx.post, f"{url}/embed", json={"text": "a"}, timeout=30)
        until(lambda: engine.waiting == 1)
        server.handle_exit(signal.SIGTERM, None)
        until(lambda: engine.health()[0] == "draining")
        assert httpx.get(f"{url}/health").json()["status"] == "draining"
        late = httpx.post(f"{url}/embed", json={"text": "a"}, timeout=30)
        assert (late.status_code, late.json()["error"]["code"]) == (503, "draining")
        assert late.headers["Connection"] == "close"
        assert "Retry-After" in late.headers
        assert not server.should_exit  # somebody waits
        server.handle_exit(signal.SIGTERM, None)
        assert server.force_exit
        with suppress(httpx.HTTPError):
            assert waiting.result(30).status_code >= 500
        held.free.set()


def test_after_the_grace_what_waits_is_refused(tiny_bert: Path) -> None:
    with (
        engine_of({"embedder": tiny_bert}, grace=0.3) as engine,
        running(engine, ["embedder"]) as (url, server),
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        held = hold(engine)
        waiting = pool.submit(httpx.post, f"{url}/embed", json={"text": "a"}, timeout=30)
        until(lambda: engine.waiting == 1)
        server.handle_exit(signal.SIGTERM, None)
        found = waiting.result(30)
        assert (found.status_code, found.json()["error"]["code"]) == (503, "draining")
        assert server.should_exit
        held.free.set()


def test_killing_one_server_leaves_the_other(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    with (
        served({"reranker": tiny_classifier}) as (url, _),
        Process(tmp_path, "--model", tiny_bert) as embedder,
    ):
        embedder.process.send_signal(signal.SIGKILL)
        embedder.process.wait(20)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{embedder.url}/health")
        body = {"query": "a", "doc": "b"}
        assert httpx.post(f"{url}/score", json=body, timeout=30).status_code == 200


# Its own network, which reaches nothing: the loopback is up, and there is no route.
NO_NETWORK = ["unshare", "--map-root-user", "--net", sys.executable, "-c"]
LOOPBACK_UP = """
import fcntl, socket, struct
SIOCSIFFLAGS, UP = 0x8914, 1
with socket.socket() as opened:
    fcntl.ioctl(opened, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", UP))
"""
# Not by what the other tests import, which takes seconds.
START_AND_ASK = r"""
import json, re, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path
log = Path(sys.argv[1], "log")
server = subprocess.Popen(
    [sys.executable, "scripts/serve.py", "--port", "0", "--model", sys.argv[2]],
    stdout=log.open("w"), stderr=subprocess.STDOUT,
)
try:
    while not (url := re.search(r"listening at (http://[\w.]+:\d+)", log.read_text())):
        assert server.poll() is None, log.read_text()
        time.sleep(0.05)
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{url[1]}/embed", b'{"text": "a cat"}', headers)
    while True:
        try:
            answer = urllib.request.urlopen(asked, timeout=30)
            break
        except urllib.error.HTTPError as error:
            assert error.code == 503, error.read()  # it loads
            time.sleep(0.05)
    print(answer.status, len(json.load(answer)["embedding"]))
finally:
    server.kill()
"""


def test_a_server_without_any_network_starts_and_serves(tiny_bert: Path, tmp_path: Path) -> None:
    if not which("unshare") or subprocess.run([*NO_NETWORK, LOOPBACK_UP]).returncode:
        pytest.skip("this machine does not let a process have a network of its own")
    online = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    found = subprocess.run(
        [*NO_NETWORK, LOOPBACK_UP + START_AND_ASK, str(tmp_path), str(tiny_bert)],
        cwd=Path(__file__).resolve().parents[3],
        env=online | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.stdout.split() == ["200", "32"], found.stderr
