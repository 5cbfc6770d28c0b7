"""Collect bad rows with their reasons, for a file and for the error message."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any, Self

from loaders.formats.records import Record
from loaders.options import ReadOptions

_SHOWN = 20


class RejectedRows:
    """Writes the bad rows of a reading to a JSON Lines file; only the first stay in memory.

    Args:
        path: The file; each line has ``file``, ``line``, ``reason``, ``record``.
        options: Whether bad rows are an error, and where to publish them.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.path = path
        self.options = options
        self.count = 0
        self.first: list[str] = []
        self.last = ""
        self.stream = path.open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def add(self, file: str, record: Record, reason: str) -> None:
        """Add one bad row."""
        self.count += 1
        self.last = f"{file}:{record.line}: {reason}"
        if len(self.first) < _SHOWN:
            self.first.append(self.last)
        row = {"file": file, "line": record.line, "reason": reason, "record": record.fields}
        self.stream.write(_as_json(row) + "\n")

    def publish(self) -> str:
        """Copy all to the options' ``rejected_file``; return a phrase that says where they are."""
        self.stream.flush()
        copy_rejected(self.path, self.options)
        if self.options.rejected_file is None:
            return "give rejected_file to have all of them written"
        return f"all of them are in {self.options.rejected_file}"

    def error(self, good: int) -> ValueError:
        """The error that lists the bad rows."""
        more = [f"... and {self.count - _SHOWN} more"] if self.count > _SHOWN else []
        return ValueError(
            f"{self.count} of {self.count + good} rows are bad ({self.publish()}); repair them, "
            'or set on_bad_rows to "skip" to go on without them:\n  '
            + "\n  ".join(self.first + more)
        )


def copy_rejected(path: Path, options: ReadOptions) -> bool:
    """Copy the rejected rows to ``rejected_file`` atomically; return whether there are any."""
    target = options.rejected_file
    if target is None or path.stat().st_size == 0:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    # All processes of a run may do this at once.
    beside = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copyfile(path, beside)
    beside.replace(target)
    return True


def _as_json(row: dict[str, Any]) -> str:
    try:
        text = json.dumps(_plain(row), ensure_ascii=False)
        text.encode()
    except RecursionError:
        return json.dumps(row | {"record": "(nested too deeply to be shown)"})
    except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 does not have
        return json.dumps(_plain(row))
    return text


def _plain(value: Any) -> Any:
    """``value`` as JSON types: dates and the like become text, and so does NaN."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)
