"""Collect the problems of an evaluation set, to report all of them in one error."""

from collections.abc import Iterable

SHOWN = 10


class Problems:
    """The problems found so far; reading goes on, and ``check`` reports them all at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.others: list[str] = []

    def __len__(self) -> int:
        return len(self.lines) + len(self.others)

    def add_line(self, text: str) -> None:
        """Add an invalid line; ``text`` begins with ``file:line``."""
        self.lines.append(text)

    def add(self, text: str) -> None:
        """Add a problem of a whole file."""
        self.others.append(text)

    def check(self) -> None:
        """Report the problems.

        Raises:
            ValueError: There are some.
        """
        more = len(self.lines) - SHOWN
        hidden = [f"and {more} more lines like these"] if more > 0 else []
        found = self.lines[:SHOWN] + hidden + self.others
        if found:
            raise ValueError("; ".join(found))


def listed(items: Iterable[str]) -> str:
    """The first ten items, quoted, and the number of the others.

    >>> listed(["d1", "d2"])
    "'d1', 'd2'"
    """
    known = list(items)
    more = [f"and {len(known) - SHOWN} more"] if len(known) > SHOWN else []
    return ", ".join([repr(item) for item in known[:SHOWN]] + more)
