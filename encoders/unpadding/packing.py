"""Which texts of a batch stand in a row together.

On a CPU there are several rows, because what a row needs is taken from memory that the row before
has left and that is still near, and because each core can compute rows of its own.
"""

from collections.abc import Sequence

# Products of fewer tokens are slower for each of them.
SHORTEST_ROW = 128
# In training each row has gradients of all weights, which have to be added up.
SHORTEST_TRAINED_ROW = 1024
# States of a layer in a row, in numbers: 4 MiB of fp32; training runs several times as many
# operations on each row, which have to be worth it.
STATES = 2**20
TRAINED_STATES = 2**22
# Rows go to a core each unless one has more than so many times its share; then cores share them.
UNEVEN = 1.25


def row_pieces(lengths: Sequence[int], width: int, cores: int, training: bool) -> list[list[int]]:
    """The texts of each row, by number, on a CPU.

    Texts are dealt out to the cores if there are fewer rows than cores, in training also if some
    core would have a row less.

    Args:
        lengths: Tokens of each text.
        width: Numbers in the state of a token.
        cores: Rows that are computed at once.
        training: Whether gradients will be wanted.
    """
    states, shortest = (
        (TRAINED_STATES, SHORTEST_TRAINED_ROW) if training else (STATES, SHORTEST_ROW)
    )
    pieces = cut_by_tokens(lengths, max(256, states // width))
    if len(pieces) < cores or (training and cores > 1):
        hands = -(-len(pieces) // cores) * cores
        dealt = balance(lengths, max(1, min(hands, sum(lengths) // shortest)))
        if is_even([sum(lengths[text] for text in piece) for piece in dealt], cores):
            return dealt
    return pieces


def is_even(tokens: list[int], cores: int) -> bool:
    """Whether rows of so many tokens keep the cores busy alike, each with rows of its own."""
    return max(tokens) * cores <= UNEVEN * sum(tokens)


def cut_by_tokens(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Texts by number, the shortest first, in pieces of about so many tokens, or of one text."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    pieces: list[list[int]] = []
    room = 0
    for text in order:
        if lengths[text] > room or not pieces:
            pieces.append([])
            room = tokens
        pieces[-1].append(text)
        room -= lengths[text]
    return pieces


def balance(lengths: Sequence[int], hands: int) -> list[list[int]]:
    """Texts by number in so many pieces of about as many tokens, in each the shortest first.

    The longest is dealt first, each to the piece that has least ("longest processing time first",
    Graham 1969). Pieces that get none are left out.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    pieces: list[list[int]] = [[] for _ in range(hands)]
    tokens = [0] * hands
    for text in order:
        least = tokens.index(min(tokens))
        pieces[least].append(text)
        tokens[least] += lengths[text]
    return [piece[::-1] for piece in pieces if piece]
