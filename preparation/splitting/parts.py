"""Assign components of rows to the parts of a split, by size and seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Letters: R rows, C components, P parts.

# A component above this share of the rows is placed first, while every part has room.
_LARGE = 0.01
# How far a part may be from its share before it is said: of the share, and in rows.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Split:
    """The part of each row.

    Attributes:
        part_of: Number of the part of each row, [R].
        sizes: Rows of each part, [P].
        wanted: Rows that each part was to have, [P].
        components: How many there are.
        largest: Rows of the largest component.
    """

    part_of: NDArray[np.int64]
    sizes: list[int]
    wanted: list[float]
    components: int
    largest: int

    def off(self) -> list[int]:
        """List the parts whose size is off by more than one row and a tenth of what was wanted."""
        return [
            part
            for part, (size, wanted) in enumerate(zip(self.sizes, self.wanted, strict=True))
            if abs(size - wanted) > max(1.0, _TOLERANCE * wanted)
        ]


def share_out(labels: NDArray[np.int64], shares: Sequence[float], seed: int) -> Split:
    """Assign each component to a part.

    Large components come first and go where most room is left; the others come in random order
    and go to a part at random, in proportion to the room that is left. Deterministic in
    (labels, shares, seed).

    Args:
        labels: Number of the component of each row, [R].
        shares: Of each part, in (0, 1); their sum is 1.
        seed: Of the order and the choice.

    Raises:
        ValueError: If a part gets no row.
    """
    sizes = np.bincount(labels)  # [C]
    wanted = [share * len(labels) for share in shares]
    room = list(wanted)
    rng = random.Random(seed)
    order = list(range(len(sizes)))
    rng.shuffle(order)
    large = _LARGE * len(labels)
    order.sort(key=lambda component: -sizes[component] if sizes[component] > large else 0)
    part_of_component = np.empty(len(sizes), dtype=np.int64)
    for component in order:
        size = int(sizes[component])
        fitting = [left if left >= size else 0.0 for left in room]
        if size > large or not any(fitting):
            part = room.index(max(room))
        else:
            (part,) = rng.choices(range(len(room)), fitting)
        part_of_component[component] = part
        room[part] -= size
    part_of = part_of_component[labels]
    filled = np.bincount(part_of, minlength=len(shares)).tolist()
    if 0 in filled:
        raise ValueError(_empty_part(len(labels), sizes, shares[filled.index(0)]))
    return Split(part_of, filled, wanted, len(sizes), int(sizes.max()))


def _empty_part(rows: int, sizes: NDArray[np.int64], share: float) -> str:
    largest = int(sizes.max())
    found = f"the part of {share:g} gets none of the {rows} rows"
    if largest <= max(1, share * rows):
        return f"{found}; give it a larger share, or give more rows"
    return (
        f"{found}: they form {len(sizes)} components, the largest of {largest} rows "
        f"({largest / rows:.0%}), and a component is never split; link fewer rows "
        "(--by positive, --by query), or set --near_duplicates higher or to 0"
    )
