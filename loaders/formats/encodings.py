"""Open UTF-8 text, packed or not; a file in another encoding is refused with its name.

The guess at Chinese encodings is our own: charset-normalizer misses GB18030 where the text is mixed
with English or code (nine of ten such files of 200 rows), which is what our users have.
"""

import codecs
import gzip
import io
from pathlib import Path

# Longer marks first: that of UTF-32-LE begins with that of UTF-16-LE.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LFS = b"version https://git-lfs.github.com/spec/"
# Magic numbers of files that are no text, whatever their name says.
_OTHER_FILES = {
    b"PK\x03\x04": "a zip file, as Excel writes them",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "packed by gzip",
}


def open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
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
            encodings raise ``UnicodeDecodeError`` while reading; see ``not_utf8``.
    """
    with open_bytes(path) as stream:
        head = stream.read(4096)
    for begin, kind in _OTHER_FILES.items():
        if head.startswith(begin):
            raise ValueError(f"{path} is {kind}, not text; save it as text, or name it as it is")
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            raise _wrong_encoding(path, name)
    # In UTF-16 every ASCII character has a zero byte: all the punctuation of JSON and CSV.
    if head[1::2].count(0) > len(head) / 8:
        raise _wrong_encoding(path, "UTF-16LE")
    if head[0::2].count(0) > len(head) / 8:
        raise _wrong_encoding(path, "UTF-16BE")
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline=newline)


def not_utf8(path: Path) -> ValueError:
    """The error for a file that is not valid UTF-8: its encoding, or the line of the bad byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with open_bytes(path) as stream:
        while chunk := stream.read(1 << 20):
            try:
                line += decoder.decode(chunk).count("\n")
            except UnicodeDecodeError as error:
                if name := _chinese_encoding(error.object):
                    return _wrong_encoding(path, name)
                line += error.object[: error.start].count(b"\n")
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
    firsts = seconds = at = 0
    while at < len(sample) - 1:
        if sample[at] < 128:
            at += 1
            continue
        firsts += 1
        seconds += sample[at + 1] >= 128
        at += 2
    if 3 * seconds >= 2 * firsts:
        return "GB18030" if _decodes(sample, "gb18030") else ""
    return "Big5" if 3 * seconds >= firsts and _decodes(sample, "big5") else ""


def _decodes(sample: bytes, encoding: str) -> bool:
    """Whether the whole sample decodes; it may end within a character."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _wrong_encoding(path: Path, name: str) -> ValueError:
    return ValueError(
        f"{path} is encoded in {name}, not in UTF-8; convert it: "
        f"iconv -f {name} -t UTF-8 '{path}' > utf8_{path.name}"
    )
