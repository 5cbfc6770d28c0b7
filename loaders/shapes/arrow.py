"""Write rows to an Arrow file, batch by batch."""

from pathlib import Path
from typing import Any, Self

import pyarrow as pa
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
    """Writes rows to a file that ``datasets.Dataset.from_file`` maps into memory.

    Attributes:
        rows: How many were written.
    """

    def __init__(self, path: Path, features: Features) -> None:
        self.rows = 0
        self.schema = features.arrow_schema
        self.waiting: list[dict[str, Any]] = []
        self.characters = 0
        self.writer = pa.ipc.new_stream(str(path), self.schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self.writer.close()

    def write(self, row: dict[str, Any]) -> None:
        """Add a row that has all the features."""
        self.rows += 1
        self.waiting.append(row)
        for value in row.values():
            if isinstance(value, str):
                self.characters += len(value)
            elif isinstance(value, list):
                self.characters += sum(len(item) for item in value if isinstance(item, str))
        if len(self.waiting) >= _BATCH_ROWS or self.characters >= _BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        self.writer.write_batch(pa.RecordBatch.from_pylist(self.waiting, schema=self.schema))
        self.waiting = []
        self.characters = 0
