"""A data set of the Hub, read from a stand-in server on this machine."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

ROOT = Path(__file__).resolve().parents[3]
REPO, REVISION = "org/toy", "a" * 40
GROUPS: list[dict[str, Any]] = [
    {"query": "北京在哪里", "pos": ["华北"], "neg": []},
    {"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1], "neg_scores": [0.5]},
]
CONTENT = "".join(json.dumps(group, ensure_ascii=False) + "\n" for group in GROUPS).encode()


class Hub(BaseHTTPRequestHandler):
    """One repository with one file, ``train.jsonl``."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        if path.startswith(f"/api/datasets/{REPO}/tree/"):
            entry = {"type": "file", "path": "train.jsonl", "size": len(CONTENT), "oid": "b" * 40}
            self.reply(200, json.dumps([entry]).encode())
        elif path.startswith(f"/api/datasets/{REPO}"):
            info = {"id": REPO, "sha": REVISION, "siblings": [{"rfilename": "train.jsonl"}]}
            self.reply(200, json.dumps(info).encode())
        elif path == f"/datasets/{REPO}/resolve/{REVISION}/train.jsonl":
            self.reply(200, CONTENT)
        else:
            known = path.startswith(f"/datasets/{REPO}/")
            self.reply(404, b"", error="EntryNotFound" if known else "RepoNotFound")

    def reply(self, status: int, body: bytes, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", '"e"')
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


CODE = """
import json, sys
from loaders import ReadOptions, load_rows
results = []
for name in sys.argv[1:]:
    try:
        results.append(list(load_rows(name, "candidate_group", ReadOptions())))
    except ValueError as error:
        results.append(str(error))
print(json.dumps(results))
"""


def test_hub(endpoint: str, tmp_path: Path) -> None:
    # The endpoint is read when the libraries are imported, so this needs a process of its own.
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path),
        "HF_DATASETS_CACHE": str(tmp_path / "datasets"),
        "NO_PROXY": "127.0.0.1",
    }
    names = ["org/toy", "org/toy:default@train", "org/toy@test", "org/toy:other", "org/none"]
    process = subprocess.run(
        [sys.executable, "-c", CODE, *names],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    plain, full, no_split, no_config, no_repo = json.loads(process.stdout)
    assert plain == full
    assert plain == [
        {**GROUPS[0], "pos_scores": None, "neg_scores": None, "prompt": None, "graded": False},
        {**GROUPS[1], "prompt": None, "graded": False},
    ]
    assert no_split.startswith("org/toy@test cannot be read after row 0: Bad split: test")
    start = "no such file or folder here, and no data set of that name could be opened on the Hub: "
    assert no_config.startswith(f"org/toy:other: {start}BuilderConfig 'other' not found")
    assert no_repo.startswith(f"org/none: {start}Dataset 'org/none' doesn't exist")
