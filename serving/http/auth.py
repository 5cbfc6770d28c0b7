"""API keys."""

import hmac
import os
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http.errors import ServingError

VARIABLE = "TANDEM_API_KEY"


def read_keys(file: str | Path | None) -> list[str]:
    """Keys from a file, one a line, or else from the environment; [] if there are none.

    Raises:
        ValueError: The file cannot be read, or holds none.
    """
    if file is None:
        keys = os.environ.get(VARIABLE, "").split()
        if VARIABLE in os.environ and not keys:
            raise ValueError(f"{VARIABLE}: is set, and holds no key; give one, or unset it")
        return keys
    try:
        keys = Path(file).read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"api_key_file: {file} cannot be read: {error}") from None
    if not keys:
        raise ValueError(f"api_key_file: {file} holds no key; write one on each line")
    return keys


class KeyCheck:
    """Lets requests with any of the keys through.

    They are sent as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self.keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with 401."""
        # Only to GET: text-embeddings-inference's clients POST to "/", which is a page too.
        reads = scope["method"] in ("GET", "HEAD")
        if not (reads and scope["state"]["settings"].open):
            self._check(Headers(scope=scope))
        await self.app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (bearer.strip() if kind.lower() == "bearer" else "")
        # All keys are compared, so that the time does not reveal which one nearly matched.
        sent = given.encode("latin-1")  # as the bytes of a header are read
        same = [hmac.compare_digest(sent, key) for key in self.keys]
        if not any(same):
            raise ServingError(
                "invalid_api_key",
                "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
