"""Rows that stay in their JSON Lines files; an index says where each one is."""

import struct
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from common.hashing import text_hash, text_hashes
from loaders.build import ROWS, Build
from loaders.formats.json_text import DECODER
from loaders.formats.local import FileSource, SavedSource
from loaders.formats.opening import open_text, read_errors
from loaders.formats.records import Record
from loaders.formats.sources import Source
from loaders.options import ReadOptions
from loaders.parsing.row_parser import RowParser
from loaders.shapes.conversions import to_group, to_scored_pairs
from loaders.shapes.rows import CandidateGroup, Row, ScoredPair, Shape

# Where a row is: number of its file, first byte, length and CRC of its line; the hash of its query.
# "count" is a group's number of positives, or which of the line's scored pairs the row is.
_PLACE = np.dtype(
    {
        "names": ["file", "count", "begin", "bytes", "crc", "query"],
        "formats": ["<u4", "<u4", "<u8", "<u4", "<u4", "<u8"],
    }
)
_ENTRY = struct.Struct("<IIQIIQ")  # a place, as it is written
_POSITIVES = "positives.bin"
# Scored pairs of a long line are asked for one after the other: the last such lines stay parsed.
_LONG, _RECENT = 1 << 14, 4


class RowsChanged(ValueError):
    """A file is no longer what it was when the run began; the message says which."""


class RowsInPlace:
    """Scored pairs or candidate groups, each read from its file when it is asked for.

    Nothing is copied, to memory or to disk, but 32 bytes per row (and 8 per positive for the shape
    ``positive_pair``). Access is random, so that training may shuffle as with rows in the cache.

    Args:
        sources: JSON Lines files.
        shape: ``positive_pair`` gives the candidate groups that ``PositivePairs`` is a view of.
        options: Those that the index was built with.
        index: The file that ``IndexBuild`` wrote.
    """

    def __init__(
        self, sources: list[Source], shape: Shape, options: ReadOptions, index: Path
    ) -> None:
        self.paths = [source.path for source in sources if isinstance(source, FileSource)]
        self.shape = shape
        self.options = options
        self.parser = RowParser(options)
        self.index = index
        self.recent: dict[tuple[int, int], list[dict[str, Any]]] = {}
        self.places: NDArray[np.void] = np.memmap(index, _PLACE, mode="r")

    def __len__(self) -> int:
        return len(self.places)

    def positive_hashes(self) -> NDArray[np.int64]:
        """Hashes of all positives [P], group after group; for the shape ``positive_pair`` only."""
        hashes: NDArray[np.int64] = np.fromfile(self.index.with_name(_POSITIVES), dtype=np.int64)
        return hashes

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row at ``index``, which may count from the end.

        Raises:
            RowsChanged: If the file has changed since the run began.
        """
        file, count, begin, size, crc, _ = self.places[index].tolist()
        try:
            rows = self.recent.get((file, begin)) or self._rows_at(file, begin, size, crc)
        except (OSError, ValueError) as error:
            raise RowsChanged(
                f"{self.paths[file]} has changed since the run began to read it, or cannot be read "
                f"any more ({error}); start the run again"
            ) from error
        return rows[count if self.shape == "scored_pair" else 0]

    def _rows_at(self, file: int, begin: int, size: int, crc: int) -> list[dict[str, Any]]:
        # Opened anew each time: forked processes that share a descriptor share its position.
        with self.paths[file].open("rb") as stream:
            stream.seek(begin)
            line = stream.read(size)
        if crc32(line) != crc:
            raise ValueError("another line stands where the row was")
        rows = self._rows_of(self.parser.parse(Record(0, DECODER.decode(line.decode("utf-8-sig")))))
        if size >= _LONG:
            while len(self.recent) >= _RECENT:
                del self.recent[next(iter(self.recent))]
            self.recent[file, begin] = rows
        return rows

    def _rows_of(self, row: Row) -> list[dict[str, Any]]:
        if self.shape == "scored_pair":
            return [pair._asdict() for pair in to_scored_pairs(row)]
        return [to_group(row, self.options.positive_threshold)._asdict()]


class IndexBuild(Build):
    """Reads and checks all rows as ``Build`` does, and writes only where they are.

    Raises:
        ValueError: A source whose rows cannot be read in place.
    """

    def __init__(
        self, sources: list[Source], shape: Shape, options: ReadOptions, folder: Path
    ) -> None:
        super().__init__(sources, shape, options, folder)
        self.paths = [_lines_file(source) for source in sources]
        self.place = (0, 0, 0, 0)  # of the row just read: number of its file, first byte, ...

    def _write_scored_pairs(self) -> None:
        with (self.folder / ROWS).open("wb") as file:
            for pairs in self._scored_pairs():
                for count, pair in enumerate(pairs):
                    file.write(self._entry(count, pair.query))

    def _write_groups(self) -> None:
        pairs = self.shape == "positive_pair"
        hashes = (self.folder / _POSITIVES).open("wb") if pairs else nullcontext()
        with (self.folder / ROWS).open("wb") as file, hashes as positives:
            for group in self._counted(self._groups()):
                file.write(self._entry(len(group.pos), group.query))
                if positives is not None:
                    positives.write(text_hashes(group.pos).tobytes())

    def _entry(self, count: int, query: str) -> bytes:
        file, *line = self.place
        return _ENTRY.pack(file, count, *line, text_hash(query))

    def _groups(self) -> Iterator[CandidateGroup]:
        for row in self._rows():
            if isinstance(row, ScoredPair):
                raise ValueError(
                    f"streaming: {self.paths[self.place[0]]} has scored pairs, which this "
                    "objective unites by query; write groups of them (prepare_data.py convert "
                    "--to groups), or leave streaming out"
                )
            yield to_group(row, self.options.positive_threshold)

    def _rows(self) -> Iterator[Row]:
        for number, located_rows in groupby(self._located(), key=lambda _: self.stream.number):
            with self.paths[number].open("rb") as stream:
                line, begin, text = 0, 0, b""
                for located in located_rows:
                    while line < located.record.line:
                        begin += len(text)
                        text = stream.readline()
                        line += 1
                    self.place = (number, begin, len(text), crc32(text))
                    yield located.row


def _lines_file(source: Source) -> Path:
    """The file of a source; refuse what is not one row a line in an unpacked file of JSON."""
    if isinstance(source, SavedSource):
        raise ValueError(
            f"streaming: {source.name} is a folder of save_to_disk, not JSON Lines; write them "
            "(prepare_data.py convert), or leave streaming out"
        )
    if not isinstance(source, FileSource):
        raise ValueError(
            f"streaming: {source.name} is on the Hub, not a file here; fetch its files, or leave "
            "streaming out"
        )
    suffix = source.path.suffix.lower()
    if suffix == ".gz":
        raise ValueError(
            f"streaming: {source.name} is packed, so that no row can be found in it; unpack it "
            "(gunzip), or leave streaming out"
        )
    if suffix not in (".json", ".jsonl", ".ndjson") or _first_character(source.path) == "[":
        raise ValueError(
            f"streaming: {source.name} is not JSON Lines, one row a line; write them "
            "(prepare_data.py convert), or leave streaming out"
        )
    return source.path


def _first_character(path: Path) -> str:
    with read_errors(path), open_text(path, newline="\n") as stream:
        return next((line.strip()[0] for line in stream if not line.isspace()), "")
