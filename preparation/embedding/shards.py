"""The shards of a corpus, and those of its vectors: written one by one, each in whole or not."""

import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from common.hashing import file_digest
from loaders.beir.texts import FORMATS, fields_of, read_records
from loaders.formats.folders import everything_in
from loaders.formats.records import data_suffix
from loaders.parsing.fields import RowError
from preparation.embedding.documents import EmbedDocuments, read_document

METADATA = b"tandem"  # key of the schema's metadata: what the vectors depend on
DOCUMENTS_AT_ONCE = 4096  # read, embedded and written; a row group


class Shard(NamedTuple):
    """A file of documents, and the file of their vectors."""

    source: Path
    target: Path


def find_shards(names: Sequence[str], folder: Path) -> list[Shard]:
    """The shards that files, folders and patterns name, and where in a folder their vectors go.

    Raises:
        ValueError: A name stands for no file, two shards would have one target, or the folder is
            among the shards.
    """
    found: dict[Path, Path] = {}
    for name in names:
        top = Path(name).expanduser()
        matching = map(Path, glob.glob(str(top), recursive=True))
        paths = everything_in(top) if top.is_dir() else matching
        files = [path for path in paths if path.is_file() and data_suffix(path) in FORMATS]
        # Links first: of a shard and links to it, the last one stays.
        files.sort(key=lambda path: (path.resolve() == path.absolute(), path))
        files = sorted({path.resolve(): path for path in files}.values())
        if not files:
            raise ValueError(f"input: {name} names no file that ends in {', '.join(FORMATS)}")
        if top.is_dir() and folder.resolve().is_relative_to(top.resolve()):
            raise ValueError(
                f"output_dir: {folder} is within {name}, whose files are all read; give a folder "
                "outside of it"
            )
        for file in files:
            place = file.relative_to(top) if top.is_dir() else Path(file.name)
            target = folder / place.with_name(place.name.removesuffix(".gz"))
            target = target.with_suffix(".parquet")
            if target.resolve() == file.resolve():
                raise ValueError(
                    f"output_dir: {folder} is where {file} is, which vectors would replace; give "
                    "another folder"
                )
            if target in found:
                raise ValueError(
                    f"input: the vectors of {found[target]} and {file} would both be {target}; "
                    "embed them into folders of their own"
                )
            found[target] = file
    return [Shard(source, target) for target, source in found.items()]


def is_written(shard: Shard, identity: Mapping[str, Any]) -> bool:
    """Whether the vectors of a shard are there already.

    Raises:
        ValueError: They are not those of this model, these settings or this shard.
    """
    if not shard.target.exists():
        return False
    try:
        kept = (pq.read_schema(shard.target).metadata or {}).get(METADATA)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{shard.target} cannot be read: {error}; remove it") from None
    found, wanted = json.loads(kept or "{}"), _about(shard, identity)
    other = [name.replace("_", " ") for name, value in wanted.items() if found.get(name) != value]
    if other:
        raise ValueError(
            f"{shard.target} is there already, of another {', '.join(other)}; remove it, or give "
            "another output_dir"
        )
    return True


def embed_shard(shard: Shard, embed: EmbedDocuments, identity: Mapping[str, Any]) -> int:
    """Write the vectors of a shard, aside until they are on disk; the number of documents.

    Raises:
        ValueError: The shard cannot be read, or has a row that is no document.
    """
    shard.target.parent.mkdir(parents=True, exist_ok=True)
    part = shard.target.with_name(f".{shard.target.name}.part")
    schema = embed.schema.with_metadata({METADATA: json.dumps(_about(shard, identity))})
    documents, count = read_documents(shard.source), 0
    with part.open("wb") as file:
        with pq.ParquetWriter(file, schema) as writer:
            while rows := list(islice(documents, DOCUMENTS_AT_ONCE)):
                ids, texts = zip(*rows, strict=True)
                writer.write_table(embed.embed(ids, texts).cast(schema))
                count += len(rows)
        file.flush()
        os.fsync(file.fileno())
    part.replace(shard.target)
    return count


def read_documents(path: Path) -> Iterator[tuple[str, str]]:
    """Yield id and text of each document of a file.

    Raises:
        ValueError: A row is no document: file, line and reason.
    """
    for record in read_records(path):
        try:
            yield read_document(fields_of(record))
        except RowError as error:
            raise ValueError(f"{path}:{record.line}: {error}") from None


def _about(shard: Shard, identity: Mapping[str, Any]) -> dict[str, Any]:
    return {**identity, "input": file_digest(shard.source)}
