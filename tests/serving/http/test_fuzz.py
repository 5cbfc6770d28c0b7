"""Hostile bodies to every route: an answer or a refusal; and no text in one is taken for a path."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from served import BODIES, JSON, served

PIECES = [b"\0", b"\xff\xfe", b"\xef\xbb\xbf", rb"\ud800", b"1e999", b"NaN", b"[" * 2000, b'"']
PIECES += [b"}", b"9" * 5000, b'{"a":' * 2000, b"\x80", b",", b"null", "长".encode() * 3000]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "inputs", "texts", "query", "documents", "input", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def client(tiny_bert: Path, tiny_classifier: Path) -> Iterator[httpx.Client]:
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier}
    with served(folders) as (url, _), httpx.Client(base_url=url, timeout=60) as found:
        yield found


def test_changed_bodies_are_answered_or_refused(client: httpx.Client) -> None:
    draw = random.Random(7)
    for path, body in BODIES.items():
        assert client.post(path, json=body).status_code == 200, path
        for _ in range(40):
            data = json.dumps(body, ensure_ascii=False).encode()
            for _ in range(draw.randint(1, 3)):
                at = draw.randrange(len(data) + 1)
                data = data[:at] + draw.choice(PIECES) + data[at + draw.choice([0, 1, 8]) :]
            response = client.post(path, content=data, headers=JSON)
            assert response.status_code in (200, 400, 413, 422), (path, data[:300])
            assert response.status_code == 200 or response.json(), (path, data[:300])
    assert client.get("/health").status_code == 200


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([*BODIES, "/health", "/none"]),
    body=st.binary(max_size=60) | VALUES.map(json.dumps),
)
def test_whatever_is_sent_is_no_mistake_of_the_server(
    client: httpx.Client, path: str, body: bytes | str
) -> None:
    content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    response = client.post(path, content=content, headers=JSON)
    assert response.status_code < 500, response.text
    assert response.json()


def test_no_text_of_a_request_is_opened_as_a_file(client: httpx.Client, tmp_path: Path) -> None:
    """Python tells of every file that is opened; in one piece, and as a file:// address."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"text": "hunted"}')
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    for path, body in BODIES.items():
        for name in (str(secret), f"file://{secret}", f"../../../..{secret}"):
            response = client.post(path, json=with_texts(body, name))
            assert response.status_code in (200, 400, 404, 422), (path, response.text)
            assert "hunted" not in response.text
    for name in (f"/{secret}", f"/page/..%2f..%2f{secret}", f"//{secret}", "/../setup.cfg"):
        response = client.get(name)
        assert response.status_code == 404 and "hunted" not in response.text
    assert not [name for name in opened if "secret" in name]
    secret.read_text()  # the watch does see it
    assert [name for name in opened if "secret" in name]


def with_texts(value: Any, text: str) -> Any:
    """``value`` with each of its texts replaced."""
    if isinstance(value, dict):
        return {name: with_texts(item, text) for name, item in value.items()}
    if isinstance(value, list):
        return [with_texts(item, text) for item in value]
    return text if isinstance(value, str) else value
