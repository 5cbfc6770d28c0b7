"""Write rows to an Arrow or Parquet file, batch by batch."""

from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List, Value

_TEXT, _NUMBER = Value("string"), Value("float64")

# Fixed, never inferred: integer scores in one file and fractions in another are the same column.
SCORED_PAIR = Features(query=_TEXT, doc=_TEXT, rel=_NUMBER, weight=_NUMBER, key=_TEXT, prompt=_TEXT)
GROUP = Features(
    query=_TEXT,
    pos=List(_TEXT),
    neg=List(_TEXT),
    pos_scores=List(_NUMBER),
    neg_scores=List(_NUMBER),
    prompt=_TEXT,
    graded=Value("bool"),
)

_BATCH_ROWS = 1000
_BATCH_CHARACTERS = 1 << 23


class ArrowFile:
    """Writes rows to a file that ``datasets.Dataset.from_file`` maps into memory, or to Parquet.

    Args:
        path: The file.
        schema: The columns; a row's other values are not written.
        parquet: Whether it is a Parquet file.
    """

    def __init__(self, path: Path, schema: pa.Schema, parquet: bool = False) -> None:
        self.schema = schema
        self.waiting: list[dict[str, Any]] = []
        self.characters = 0
        open_writer = pq.ParquetWriter if parquet else pa.ipc.new_stream
        self.writer = open_writer(str(path), schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self.writer.close()

    def write(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self.waiting.append(row)
        self.characters += _characters(row)
        if len(self.waiting) >= _BATCH_ROWS or self.characters >= _BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        self.writer.write_batch(pa.RecordBatch.from_pylist(self.waiting, schema=self.schema))
        self.waiting = []
        self.characters = 0


def _characters(value: Any) -> int:
    """The length of all texts in a value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 0
    return sum(map(_characters, value))
