"""A small stand-in for the Hugging Face Hub, on this machine: repositories, commits, LFS files."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Hub(ThreadingHTTPServer):
    """What was created and uploaded.

    ``repos`` maps a repository's name to its settings, ``files`` (name, path) to the content,
    ``tokens`` holds every token that was seen.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, Any]] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[repo, value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[repo, value["path"]] = self.objects[value["oid"]]


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self._body()
        self.server.tokens.add(self.headers.get("Authorization", ""))
        parts = self.path.split("?")[0].strip("/").split("/")
        if self.path == "/api/repos/create":
            settings = json.loads(body)
            name = f"{settings.get('organization') or 'someone'}/{settings['name']}"
            self.server.repos[name] = settings
            self._answer({"url": f"{self.server.url}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "preupload" in parts:
            kinds = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": kinds})
        elif parts[-1] == "batch":
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        else:
            assert "commit" in parts, self.path
            repo = "/".join(parts[2:4])
            self.server.commit(repo, [json.loads(line) for line in body.splitlines()])
            oid = "0" * 40
            url = f"{self.server.url}/{repo}/commit/{oid}"
            self._answer({"commitUrl": url, "commitOid": oid, "success": True})

    def do_PUT(self) -> None:
        body = self._body()
        assert hashlib.sha256(body).hexdigest() == self.path.rpartition("/")[2]
        self.server.objects[self.path.rpartition("/")[2]] = body
        self._answer({})

    def do_GET(self) -> None:
        if self.path == "/api/whoami-v2":
            self._tell_account()
            return
        name = self.path.removeprefix("/api/models/")
        self._answer({"id": name, "siblings": [], "sha": "0" * 40})

    def _tell_account(self) -> None:
        """``hf_wrong`` is no token, and ``hf_reader`` one that may only read."""
        self.server.tokens.add(self.headers.get("Authorization", ""))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == "hf_wrong":
            self._answer({"error": "Invalid username or password."}, 401)
            return
        role = "read" if token == "hf_reader" else "write"
        self._answer({"name": "someone", "auth": {"accessToken": {"role": role}}})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def stand_in_hub() -> Iterator[Hub]:
    """Serve an empty Hub while the block runs."""
    hub = Hub()
    thread = Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
