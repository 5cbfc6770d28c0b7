"""Logging: one line for each event, as text or JSON."""

import json
import logging
import sys
import time
from typing import Any


class LineFormatter(logging.Formatter):
    """Time, level, message, and the fields of a request; or all of them as one object."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line (of text: and a traceback, if there is one)."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        timestamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        timestamp += f".{int(record.msecs):03d}"
        if self.as_json:
            about = {"time": timestamp, "level": record.levelname, "event": record.getMessage()}
            if record.exc_info:
                about["error"] = self.formatException(record.exc_info)
            return json.dumps(about | fields, ensure_ascii=False)
        line = " ".join(
            [timestamp, record.levelname.lower(), record.getMessage()]
            + [f"{name}={value}" for name, value in fields.items()]
        )
        return line + "\n" + self.formatException(record.exc_info) if record.exc_info else line


def set_up_logging(as_json: bool) -> None:
    """All loggers to stderr, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("httpx", "uvicorn"):  # uvicorn tells what we tell
        logging.getLogger(name).setLevel(logging.WARNING)
