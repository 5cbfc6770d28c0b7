"""Open UTF-8 text, packed or not, and say what is wrong with a file that cannot be read.

The guess at Chinese encodings is our own: charset-normalizer misses GB18030 where the text is mixed
with English or code (nine of ten such files of 200 rows), which is what our users have.
"""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.typed_values import one_line

# Longer marks first: that of UTF-32-LE begins with that of UTF-16-LE.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_FURTHER = 8  # four Chinese characters; of GB18030 or Big5, hardly one in seven is UTF-8 as well
_LFS = b"version https://git-lfs.github.com/spec/"
# Magic numbers of files that are no text, whatever their name says.
_OTHER_FILES = {
    b"PK\x03\x04": "a zip file, as Excel writes them",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "packed by gzip",
}


class BrokenFile(ValueError):
    """Nothing can be read from ``line`` on, whatever ``on_bad_rows`` says."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(one_line(reason))
        self.line = line


def _open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """Open the file's bytes, unpacked if it is ``.gz``."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def check_fetched(path: Path) -> None:
    """Refuse a pointer of Git LFS, which stands for a file that is not fetched.

    Raises:
        ValueError: It says how to fetch the file.
    """
    with path.open("rb") as stream:
        if stream.read(len(_LFS)) == _LFS:
            raise ValueError(
                f"{path} is a pointer of Git LFS, not the data; fetch it: git lfs pull"
            )


def open_text(path: Path, newline: str) -> io.TextIOWrapper:
    """Open a UTF-8 file as text, with or without byte order mark.

    Raises:
        ValueError: If the file begins like UTF-16, UTF-32 or a file that is no text. Other
            encodings raise ``UnicodeDecodeError`` while reading; see ``read_errors``.
    """
    with _open_bytes(path) as stream:
        head = stream.read(4096)
    for begin, kind in _OTHER_FILES.items():
        if head.startswith(begin):
            raise ValueError(
                f"{path} is {kind}, not text; save it as text, or give it the suffix of its format"
            )
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            raise _wrong_encoding(path, name)
    # In UTF-16 every ASCII character has a zero byte: all the punctuation of JSON and CSV.
    if head[1::2].count(0) > len(head) / 8:
        raise _wrong_encoding(path, "UTF-16LE")
    if head[0::2].count(0) > len(head) / 8:
        raise _wrong_encoding(path, "UTF-16BE")
    return io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig", newline=newline)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn whatever ends the reading of a file into a ``ValueError`` that names it."""
    try:
        try:
            yield
        except BrokenFile as error:
            raise ValueError(f"{path}:{error.line}: {error}") from None
        except UnicodeDecodeError:
            raise _not_utf8(path) from None  # which reads a packed file again, and may fail at that
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}; fetch or pack it again") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _not_utf8(path: Path) -> ValueError:
    """The error for a file that is not valid UTF-8: its encoding, or the line of the bad byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    further = 0  # bytes after the first of characters that are UTF-8: other encodings have few
    with _open_bytes(path) as stream:
        while chunk := stream.read(1 << 20):
            try:
                text = decoder.decode(chunk)
                line += text.count("\n")
                further += len(chunk) - len(text)
            except UnicodeDecodeError as error:
                good = error.object[: error.start]
                further += len(good) - len(good.decode())
                if further < _FURTHER and (name := _chinese_encoding(error.object)):
                    return ValueError(
                        f"{path} is not in UTF-8 but probably in {name}, which is a guess: "
                        "Shift-JIS and EUC look alike; convert it, with its encoding after -f: "
                        + _iconv(path, name)
                    )
                line += good.count(b"\n")
                byte = error.object[error.start]
                return ValueError(
                    f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; repair the line, or convert "
                    "the file if all of it is in another encoding"
                )
    return ValueError(f"{path}:{line}: the file ends within a character; repair the line")


def _chinese_encoding(sample: bytes) -> str:
    """GB18030, Big5, or empty if it is neither.

    That a text decodes proves little: other encodings decode as either by accident. But in GB18030
    the second byte of almost every Chinese character is above 127, in Big5 that of about half of
    them, and in German or French, where accented letters stand between plain ones, hardly any.
    """
    pairs = re.findall(rb"[\x80-\xff][\x00-\xff]", sample)
    share = sum(pair[1] >= 128 for pair in pairs) / max(len(pairs), 1)
    if share < 1 / 3:
        return ""
    name = "GB18030" if share >= 2 / 3 else "Big5"
    try:
        codecs.getincrementaldecoder(name)().decode(sample)  # it may end within a character
    except UnicodeDecodeError:
        return ""
    return name


def _wrong_encoding(path: Path, name: str) -> ValueError:
    return ValueError(
        f"{path} is encoded in {name}, not in UTF-8; convert it: {_iconv(path, name)}"
    )


def _iconv(path: Path, name: str) -> str:
    return f"iconv -f {name} -t UTF-8 '{path}' > utf8_{path.name}"
