"""What a script calls: data files to a data set of rows."""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, overload

import datasets
from datasets import Dataset
from filelock import FileLock

from common.hashing import source_code
from common.types import Shape
from loaders.build import NOTES, REJECTED, ROWS, Build
from loaders.formats.sources import Source, find_sources
from loaders.in_place import IndexBuild, RowsInPlace
from loaders.options import ReadOptions
from loaders.parsing.fields import RowError
from loaders.parsing.rejected import copy_rejected
from loaders.parsing.row_parser import RowParser
from loaders.shapes.positive_pairs import PositivePairs
from loaders.shapes.rows import PositivePair, Row, ScoredPair

logger = logging.getLogger(__name__)


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
@overload
def load_rows(
    files: str | Sequence[str], shape: Shape, options: ReadOptions
) -> Dataset | PositivePairs: ...
def load_rows(
    files: str | Sequence[str], shape: Shape, options: ReadOptions
) -> Dataset | PositivePairs:
    """Read files into rows of one shape, whatever shapes they have.

    Args:
        files: A path, a folder, a data set of the Hub, or a list of them; see ``find_sources``.
        shape: ``scored_pair`` and ``candidate_group`` give a ``Dataset``, ``positive_pair`` gives
            ``PositivePairs``. All have a length and are indexed by row.
        options: See ``ReadOptions``.

    The rows lie in the cache of ``datasets`` and are read anew when a file, an option or this
    package changes.

    Raises:
        ValueError: For whatever the user has to repair, with file, line and reason.
    """
    path = _read(Build, find_sources(files, options.split, options.evaluates), shape, options)
    rows = Dataset.from_file(str(path))
    return PositivePairs.of(rows) if shape == "positive_pair" else rows


def load_rows_in_place(
    files: str | Sequence[str], shape: Shape, options: ReadOptions
) -> RowsInPlace | PositivePairs:
    """The rows of ``load_rows``, in its order, without a copy of them; see ``RowsInPlace``.

    In the cache of ``datasets`` lies an index of 32 bytes per row.

    Args:
        files: As for ``load_rows``, but of JSON Lines only.
        shape: Scored pairs in the files go with ``scored_pair`` only: nothing is united.
        options: See ``ReadOptions``.

    Raises:
        ValueError: For whatever the user has to repair, with file, line and reason.
    """
    sources = find_sources(files, options.split, options.evaluates)
    rows = RowsInPlace(sources, shape, options, _read(IndexBuild, sources, shape, options))
    return PositivePairs.of(rows) if shape == "positive_pair" else rows


def detect_shape(files: str | Sequence[str], options: ReadOptions) -> Shape:
    """The shape of the first good row of the first file."""
    row = _first_row(files, options)
    if isinstance(row, ScoredPair):
        return "scored_pair"
    return "positive_pair" if isinstance(row, PositivePair) else "candidate_group"


def _first_row(files: str | Sequence[str], options: ReadOptions) -> Row:
    source = find_sources(files, options.split, options.evaluates)[0]
    parser = RowParser(options)
    reason = ""
    for record in source.records(options.columns or ()):
        try:
            return parser.parse(record)
        except RowError as error:
            reason = reason or f"no row is good; the first is in line {record.line}: {error}"
    parser.columns.check()
    raise ValueError(f"{source.name}: {reason or 'there is no row in it'}")


def _read(build: type[Build], sources: list[Source], shape: Shape, options: ReadOptions) -> Path:
    """Read and check the files unless that is done; return the file that was made of them."""
    folder = _cache_folder(build, sources, shape, options)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The processes of a run all come here at once; one reads, the others wait and share.
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _fill(folder, build, sources, shape, options)
    for level, text in json.loads((folder / NOTES).read_text(encoding="utf-8")):
        logger.log(level, text)
    if copy_rejected(folder / REJECTED, options):
        logger.warning("the skipped rows and the reasons are in %s", options.rejected_file)
    return folder / ROWS


def _cache_folder(
    build: type[Build], sources: list[Source], shape: Shape, options: ReadOptions
) -> Path:
    """A folder whose name is a hash of everything that decides about the rows."""
    chosen = asdict(options)
    del chosen["rejected_file"]
    digest = hashlib.blake2b(digest_size=16)
    parts = [build.__name__, shape, chosen, [source.identity() for source in sources]]
    digest.update(json.dumps(parts).encode())
    for code in source_code(Path(__file__).parent):
        digest.update(code)
    return Path(datasets.config.HF_DATASETS_CACHE) / "tandem" / digest.hexdigest()


def _fill(
    folder: Path, build: type[Build], sources: list[Source], shape: Shape, options: ReadOptions
) -> None:
    """Fill ``folder``, which appears only when it is complete."""
    beside = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(beside, ignore_errors=True)  # left by a process that was killed
    beside.mkdir()
    try:
        build(sources, shape, options, beside).run()
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
