"""The small JSON files of a model's folder."""

import json
from pathlib import Path
from typing import Any


def read_json(file: Path) -> Any:
    """A file's content; nothing where there is no file.

    Raises:
        ValueError: It is no JSON.
    """
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from None


def write_json(file: Path, content: Any) -> None:
    """Write a file."""
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
