"""The error for a file that cannot be read on."""


class BrokenFile(ValueError):
    """From ``line`` on nothing can be read, whatever is done about bad rows."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
