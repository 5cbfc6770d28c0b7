"""All that is wrong with an evaluation set, said at once."""

from collections.abc import Iterable

SHOWN = 10


class Problems:
    """What a reader has found wrong so far; it reads on, and all is told in one error."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.others: list[str] = []

    def __len__(self) -> int:
        return len(self.lines) + len(self.others)

    def add_line(self, text: str) -> None:
        """A line that is not what it should be; ``text`` begins with ``file:line``."""
        self.lines.append(text)

    def add(self, text: str) -> None:
        """A mistake of the whole file."""
        self.others.append(text)

    def check(self) -> None:
        """End the reading.

        Raises:
            ValueError: There was a mistake.
        """
        more = len(self.lines) - SHOWN
        hidden = [f"and {more} more lines like these"] if more > 0 else []
        found = self.lines[:SHOWN] + hidden + self.others
        if found:
            raise ValueError("; ".join(found))


def listed(items: Iterable[str]) -> str:
    """The first ten, in quotes.

    >>> listed(["d1", "d2"])
    "'d1', 'd2'"
    """
    known = list(items)
    more = [f"and {len(known) - SHOWN} more"] if len(known) > SHOWN else []
    return ", ".join([repr(item) for item in known[:SHOWN]] + more)
