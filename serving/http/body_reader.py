"""Limits on body size and time; decompression; cancellation when the client disconnects."""

import asyncio
import re
import zlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.engine.limits import Limits
from serving.http.errors import ServingError

JSON = re.compile(r"application/(.*\+)?json")
CLOSE = {"Connection": "close"}
ENCODINGS = ("gzip", "deflate")
# Most members of a gzip body; one is usual.
MOST_MEMBERS = 64
GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
# How many bodies of the largest size may be in memory at once.
LARGEST_AT_ONCE = 16


class BodyReader:
    """Reads the whole body before the app sees the request, and holds the app to its time."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self._held = 0  # bytes of bodies whose requests are not yet answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse with 400, 408, 413, 415, 429 or 504."""
        headers = Headers(scope=scope)
        if scope["method"] not in ("POST", "PUT") or not _has_body(headers):
            await self._answer_in_time(scope, receive, send)
            return
        self._check_headers(headers)
        encoding = check_encoding(headers.get("content-encoding", ""))
        body, held = bytearray(), 0
        try:
            async with asyncio.timeout(self.limits.body_timeout):
                await self._read(receive, body)
        except TimeoutError:
            raise ServingError(
                "body_timeout",
                f"the body did not arrive within {self.limits.body_timeout:g} s",
                headers=CLOSE,
            ) from None
        else:
            content = bytes(body)
            if encoding is not None:
                most = self.limits.max_body_bytes
                content = await asyncio.to_thread(unpack, content, encoding, most)
                held = len(content)
                self._held += held
            await self._answer(scope, receive, send, content)
        finally:
            self._held -= len(body) + held

    def _check_headers(self, headers: Headers) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if not JSON.fullmatch(kind):
            raise ServingError(
                "unsupported_media_type",
                "the body must be JSON; send it with Content-Type: application/json",
                headers=CLOSE,
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > self.limits.max_body_bytes:
            raise too_large(self.limits.max_body_bytes)

    async def _read(self, receive: Receive, body: bytearray) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ServingError("client_closed_request", "the client disconnected")
            part = message.get("body", b"")
            body += part
            self._held += len(part)
            more = message.get("more_body", False)
            if len(body) > self.limits.max_body_bytes:
                raise too_large(self.limits.max_body_bytes)
            if self._held > LARGEST_AT_ONCE * self.limits.max_body_bytes:
                raise ServingError(
                    "overloaded",
                    "too many request bodies at once; try again later",
                    retry_after=1,
                    headers=CLOSE,
                )

    async def _answer(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Run the app until it has answered or the client has disconnected, whichever is first."""
        first: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> Message:
            nonlocal first
            if first is None:
                return await receive()
            message, first = first, None
            return message

        answer = asyncio.ensure_future(self._answer_in_time(scope, replay, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ServingError("client_closed_request", "the client disconnected")
            await answer
        finally:
            for task in (answer, gone):
                task.cancel()

    async def _answer_in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, which must begin to answer in time; the client may read as long as it likes.

        Raises:
            ServingError: It has not (504).
        """
        most = self.limits.request_timeout
        deadline = asyncio.timeout(most if scope["state"]["settings"].timed else None)

        async def send_and_go_on(message: Message) -> None:
            if not deadline.expired():
                deadline.reschedule(None)
            await send(message)

        try:
            async with deadline:
                await self.app(scope, receive, send_and_go_on)
        except TimeoutError:
            if not deadline.expired():
                raise
            reason = f"there was no answer within {most:g} s"
            raise ServingError("timeout", reason, retry_after=1) from None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def too_large(most: int) -> ServingError:
    """The error of a body of more than ``most`` bytes."""
    return ServingError(
        "payload_too_large",
        f"the body is larger than {most} bytes; send the texts in several requests",
        headers=CLOSE,
    )


def _has_body(headers: Headers) -> bool:
    told = "content-type" in headers or "transfer-encoding" in headers
    return told or headers.get("content-length", "0") != "0"


def check_encoding(encoding: str) -> str | None:
    """The encoding as one of ``ENCODINGS``; None: the body is not compressed.

    Raises:
        ServingError: It is another one (415).
    """
    name = encoding.strip().lower().removeprefix("x-")
    if name in ("", "identity"):
        return None
    if name not in ENCODINGS:
        raise ServingError(
            "unsupported_media_type",
            "Content-Encoding: must be gzip or deflate, or left out",
            headers={"Accept-Encoding": ", ".join(ENCODINGS), **CLOSE},
        )
    return name


def unpack(body: bytes, encoding: str, most: int) -> bytes:
    """Decompress a body; stop beyond ``most`` bytes.

    Raises:
        ServingError: The body is broken or incomplete (400), or there are more (413).
    """
    try:
        if encoding == "gzip":
            return _inflate(body, GZIP, most)
        try:
            return _inflate(body, ZLIB, most)
        except zlib.error:  # many send "deflate" without zlib's header
            return _inflate(body, RAW, most)
    except zlib.error:
        raise ServingError(
            "invalid_content_encoding", f"the body is not valid {encoding}, or is incomplete"
        ) from None


def _inflate(body: bytes, form: int, most: int) -> bytes:
    unpacked = bytearray()
    for _ in range(MOST_MEMBERS if form == GZIP else 1):
        inflater = zlib.decompressobj(form)
        # One byte more than allowed shows that there are too many.
        unpacked += inflater.decompress(body, most + 1 - len(unpacked))
        if len(unpacked) > most:
            raise too_large(most)
        if not inflater.eof:
            raise zlib.error("incomplete")
        body = inflater.unused_data
        if not body:
            return bytes(unpacked)
    raise zlib.error("more behind its end")
