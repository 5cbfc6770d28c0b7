"""The error for a file that cannot be read any further."""


class BrokenFile(ValueError):
    """Nothing can be read from ``line`` on, whatever ``on_bad_rows`` says."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
