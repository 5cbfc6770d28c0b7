"""Decompress request bodies (``Content-Encoding``)."""

import zlib

from serving.http.errors import ServingError

ENCODINGS = ("gzip", "deflate")
# Most members of a gzip body; one is usual.
MOST_MEMBERS = 64
GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class TooLarge(Exception):
    """The decompressed body is over the limit."""


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
            headers={"Accept-Encoding": ", ".join(ENCODINGS), "Connection": "close"},
        )
    return name


def unpack(body: bytes, encoding: str, most: int) -> bytes:
    """Decompress a body; stop beyond ``most`` bytes.

    Raises:
        ServingError: The body is broken or incomplete (400).
        TooLarge: There are more.
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
            "invalid_content_encoding", f"the body is not {encoding}, or not all of it"
        ) from None


def _inflate(body: bytes, form: int, most: int) -> bytes:
    unpacked = bytearray()
    for _ in range(MOST_MEMBERS if form == GZIP else 1):
        inflater = zlib.decompressobj(form)
        # One byte more than allowed shows that there are too many.
        unpacked += inflater.decompress(body, most + 1 - len(unpacked))
        if len(unpacked) > most:
            raise TooLarge
        if not inflater.eof:
            raise zlib.error("incomplete")
        body = inflater.unused_data
        if not body:
            return bytes(unpacked)
    raise zlib.error("more behind its end")
