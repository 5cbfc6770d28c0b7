"""UTF-8 text from files, packed or not; anything else is named, not guessed through."""

import codecs
import gzip
import io
from pathlib import Path

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """The file's bytes, unpacked if it is ``.gz``."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def open_text(path: Path, newline: str) -> io.TextIOWrapper:
    """The text of a UTF-8 file, with or without byte order mark.

    Raises:
        ValueError: If the file begins like UTF-16 or UTF-32. Later on, whoever reads meets a
            ``UnicodeDecodeError``, which ``not_utf8`` explains.
    """
    with open_bytes(path) as stream:
        head = stream.read(4096)
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            raise _wrong_encoding(path, name)
    # In UTF-16 every ASCII character, so all of JSON's and CSV's punctuation, has a zero byte.
    if head[1::2].count(0) > len(head) / 8:
        raise _wrong_encoding(path, "UTF-16LE")
    if head[0::2].count(0) > len(head) / 8:
        raise _wrong_encoding(path, "UTF-16BE")
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline=newline)


def not_utf8(path: Path) -> ValueError:
    """The error for a file that a decoder of UTF-8 has stumbled over."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with open_bytes(path) as stream:
        while chunk := stream.read(1 << 20):
            try:
                line += decoder.decode(chunk).count("\n")
            except UnicodeDecodeError as error:
                if _is_gb18030(error.object):
                    return _wrong_encoding(path, "GB18030")
                line += error.object[: error.start].count(b"\n")
                byte = error.object[error.start]
                return ValueError(f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; repair the line")
    return ValueError(f"{path}:{line}: the file ends within a character; repair the line")


def _is_gb18030(sample: bytes) -> bool:
    """Whether it decodes; a megabyte of another encoding hardly ever does by accident."""
    try:
        codecs.getincrementaldecoder("gb18030")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _wrong_encoding(path: Path, name: str) -> ValueError:
    return ValueError(
        f"{path} is encoded in {name}, not in UTF-8; convert it: "
        f"iconv -f {name} -t UTF-8 '{path}' > utf8_{path.name}"
    )
