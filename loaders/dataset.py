"""Data files to rows: found, opened and read once each, whatever shapes are asked for."""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Literal, overload

import datasets
from datasets import Dataset
from filelock import FileLock

from common.hashing import source_code
from common.json_files import read_json, write_json
from loaders.build import DIGEST, NOTES, REJECTED, ROWS, Build, Note
from loaders.formats.sources import Source, find_sources
from loaders.in_place import IndexBuild, RowsInPlace
from loaders.options import ReadOptions
from loaders.parsing.fields import RowError, show
from loaders.parsing.row_parser import RowParser
from loaders.parsing.row_stream import copy_rejected
from loaders.shapes.judged_groups import find_contradictions
from loaders.shapes.positive_pairs import PositivePairs
from loaders.shapes.rows import PositivePair, Row, ScoredPair, Shape

logger = logging.getLogger(__name__)

CONTRADICTIONS = "contradictions.json"


class DataFiles:
    """The files of a ``train_file`` or ``eval_file``, whose rows may be asked for in any shape.

    The rows lie in the cache of ``datasets``; they are read anew when a file, an option or this
    package changes.

    Args:
        files: A path, a folder, a data set of the Hub, or a list of them; see ``find_sources``.
        options: See ``ReadOptions``.

    Attributes:
        digest: Of the content of the rows that were read last, whatever their shape.

    Raises:
        ValueError: Here or by a method, for whatever the user has to repair, with file, line and
            reason.
    """

    def __init__(self, files: str | Sequence[str], options: ReadOptions) -> None:
        self.options = options
        self.sources: list[Source] = find_sources(files, options.split, options.evaluates)
        self._told: set[Note] = set()
        self.folder = Path()  # of these rows in the cache
        self.digest = ""

    @cached_property
    def _first(self) -> tuple[Row | None, str]:
        """The first good row; or None, and what is wrong with the rows."""
        parser, source, reason = RowParser(self.options), self.sources[0], ""
        for record in source.records(self.options.columns or ()):
            try:
                return parser.parse(record), ""
            except RowError as error:
                reason = reason or f"no row is good; the first is in line {record.line}: {error}"
        parser.columns.check()
        return None, f"{source.name}: {reason or 'there is no row in it'}"

    @cached_property
    def shape(self) -> Shape:
        """The shape of the first good row of the first file."""
        row, problem = self._first
        if row is None:
            raise ValueError(problem)
        if isinstance(row, ScoredPair):
            return "scored_pair"
        return "positive_pair" if isinstance(row, PositivePair) else "candidate_group"

    def choose_shape(self, wanted: Sequence[Shape]) -> Shape:
        """The files' own shape if it is among the wanted ones, else the first of these.

        A file without a good row has none: reading it then lists the bad ones.
        """
        if len(wanted) == 1 or self._first[0] is None:
            return wanted[0]
        return self.shape if self.shape in wanted else wanted[0]

    @overload
    def rows(self, shape: Literal["scored_pair", "candidate_group"]) -> Dataset: ...
    @overload
    def rows(self, shape: Literal["positive_pair"]) -> PositivePairs: ...
    def rows(self, shape: Shape) -> Dataset | PositivePairs:
        """All rows in one shape: ``PositivePairs`` for ``positive_pair``, otherwise a ``Dataset``.

        Both have a length and are indexed by row.
        """
        # Positive pairs are a view of groups, and share their copy in the cache.
        folder = self._read(Build, "candidate_group" if shape == "positive_pair" else shape)
        stored = Dataset.from_file(str(folder / ROWS))
        rows = PositivePairs(stored) if shape == "positive_pair" else stored
        self._report(folder, rows)
        return rows

    def rows_in_place(self, shape: Shape) -> RowsInPlace | PositivePairs:
        """The rows of ``rows``, in its order, without a copy of them; see ``RowsInPlace``.

        The cache holds an index of 32 bytes per row, and 8 per positive for ``positive_pair``.
        The files must be JSON Lines, and scored pairs in them can be had as ``scored_pair`` only:
        nothing is united.
        """
        folder = self._read(IndexBuild, shape)
        rows = RowsInPlace(self.sources, shape, self.options, folder / ROWS)
        view = PositivePairs(rows) if shape == "positive_pair" else rows
        self._report(folder, view)
        return view

    def tell_contradictions(self, rows: Dataset | RowsInPlace) -> None:
        """Warn where groups of one query disagree about a document; they are compared once.

        Args:
            rows: Groups that were read last.
        """
        file = self.folder / CONTRADICTIONS
        kept = read_json(file)
        if not kept:
            found = find_contradictions(rows)
            kept = [len(found), *found[:1]]
            with suppress(OSError):  # they are compared again the next time
                write_json(file, kept)
        count, *first = kept
        if first:
            logger.warning(
                "%d rows have a negative that another row of the same query has as a positive, and "
                "it is learned as both; the first is row %d (from 0), of the query %s",
                count, first[0], show(rows[first[0]]["query"]),
            )  # fmt: skip

    def _read(self, build: type[Build], shape: Shape) -> Path:
        """Read and check the files unless that is done; return the folder with the outcome."""
        folder = self._cache_folder(build, shape)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            beside = folder.with_name(f"{folder.name}.building")  # renamed when it is complete
            # All processes of a run get here at once: one reads, the others wait and share.
            with FileLock(f"{folder}.lock"):
                if not folder.exists():
                    shutil.rmtree(beside, ignore_errors=True)  # left by a process that was killed
                    beside.mkdir()
                    try:
                        build(self.sources, shape, self.options, beside).run()
                        beside.rename(folder)
                    finally:
                        shutil.rmtree(beside, ignore_errors=True)
        except OSError as error:
            raise ValueError(
                f"the cache of rows, {folder.parent}, cannot be written: {error}; make room, or "
                "name another place (HF_DATASETS_CACHE)"
            ) from None
        self.folder = folder
        self.digest = (folder / DIGEST).read_text(encoding="utf-8")
        return folder

    def _cache_folder(self, build: type[Build], shape: Shape) -> Path:
        """A folder named by a hash of everything that the rows depend on."""
        chosen = asdict(self.options)
        del chosen["rejected_file"]
        parts = [build.__name__, shape, chosen, [source.identity() for source in self.sources]]
        digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16)
        for code in source_code(Path(__file__).parent):
            digest.update(code)
        return Path(datasets.config.HF_DATASETS_CACHE) / "tandem" / digest.hexdigest()

    def _report(self, folder: Path, rows: Dataset | RowsInPlace | PositivePairs) -> None:
        """Log the notes that concern these rows, each once, and put the bad rows in their file."""
        notes = [Note(*note) for note in json.loads((folder / NOTES).read_text(encoding="utf-8"))]
        if isinstance(rows, PositivePairs):
            notes = [note for note in notes if not note.of_groups]
            if rows.without_positives:
                left_out = (
                    f"{rows.without_positives} queries are left out: none of their documents has "
                    f"a relevance of at least {self.options.positive_threshold:g} "
                    "(positive_threshold)"
                )
                if not len(rows):
                    raise ValueError(f"no row is left to train on: {left_out}")
                notes.append(Note(logging.WARNING, left_out))
        for note in notes:
            if note not in self._told:
                logger.log(note.level, note.text)
        self._told.update(notes)
        if copy_rejected(folder / REJECTED, self.options):
            logger.warning("skipped rows and the reasons: %s", self.options.rejected_file)


@overload
def load_rows(
    files: str | Sequence[str],
    shape: Literal["scored_pair", "candidate_group"],
    options: ReadOptions,
) -> Dataset: ...
@overload
def load_rows(
    files: str | Sequence[str], shape: Literal["positive_pair"], options: ReadOptions
) -> PositivePairs: ...
def load_rows(
    files: str | Sequence[str], shape: Shape, options: ReadOptions
) -> Dataset | PositivePairs:
    """Read files into rows of one shape, whatever shapes they have; see ``DataFiles``."""
    return DataFiles(files, options).rows(shape)


def load_rows_in_place(
    files: str | Sequence[str], shape: Shape, options: ReadOptions
) -> RowsInPlace | PositivePairs:
    """The rows of ``load_rows``, left in their files; see ``DataFiles.rows_in_place``."""
    return DataFiles(files, options).rows_in_place(shape)


def detect_shape(files: str | Sequence[str], options: ReadOptions) -> Shape:
    """The shape of the first good row of the first file."""
    return DataFiles(files, options).shape
