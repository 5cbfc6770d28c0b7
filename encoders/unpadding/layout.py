"""Group the texts of a packed sequence by length: attention is one batched matmul per group."""

from collections.abc import Iterator
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from encoders.unpadding.transfer import to_device

# Shapes: T tokens of a packed sequence, A attention heads, D width of a head; S tokens with the
# padding of groups; of one group: n texts, padded to l tokens each.

# Texts are padded to a multiple of this, and those of the same padded length form a group. Fewer
# groups mean fewer calls, and processors multiply matrices of such sizes best.
STEP = 16


class Rule(NamedTuple):
    """How a token attends: only to those before it, to those less than a window away, and how much.

    Args:
        causal: A token does not look ahead.
        window: None: there is none.
        dropout: Probability; 0 in evaluation.
        scaling: Of the scores.
    """

    causal: bool
    window: int | None
    dropout: float
    scaling: float


class Group:
    """Consecutive texts of the same padded length.

    Args:
        lengths: Tokens of each text, [n].
        places: l, the padded length.
        start: Padded tokens of all groups before.
    """

    def __init__(self, lengths: list[int], places: int, start: int, device: torch.device) -> None:
        self.count, self.places, self.start = len(lengths), places, start
        self.on_host = torch.tensor(lengths)
        self.lengths = to_device(self.on_host, device)
        self.full = min(lengths) == places

    def rows(self, heads: int) -> slice:
        """The group's rows in [S * A, D]."""
        first = self.start * heads
        return slice(first, first + self.count * self.places * heads)


class TextLayout:
    """The groups of a packed sequence, S padded tokens in all.

    States [T, A, D] become [S * A, D], head by head within each text, so that the matrices of all
    texts of a group are a view.

    Args:
        lengths: Of the texts, ascending, in their order in T.
        dropout: Of attention, instead of the layers' own; None: theirs.
        rest: Tokens after the texts, which attend to nothing and get any finite states.
    """

    def __init__(
        self,
        lengths: list[int],
        device: torch.device,
        dropout: float | None = None,
        rest: int = 0,
    ) -> None:
        self.dropout, self.rest = dropout, rest
        self.longest = lengths[-1]
        self.is_single = len(lengths) == 1
        self.device = device
        self.bounds_on_host = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        self.bounds = to_device(self.bounds_on_host, device)
        self.lengths = lengths
        self._rows: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    @cached_property
    def groups(self) -> list[Group]:
        """Texts of the same padded length, the shortest first; not every kernel needs them."""
        found: list[Group] = []
        start = 0
        for places, same in groupby(self.lengths, lambda length: -(-length // STEP) * STEP):
            found.append(Group(list(same), places, start, self.device))
            start += found[-1].count * places
        return found

    def pack(self, states: Tensor, heads: int, zeros: bool = False) -> Tensor:
        """[T, A or fewer, D] to [S * A, D]; fewer heads are repeated, each for its share of A.

        Padding holds copies of other tokens, or 0 with ``zeros``.
        """
        given = states.shape[1]
        sources, padding, _ = self._index(heads, given)
        padded = states.reshape(-1, states.shape[-1]).index_select(0, sources)
        return padded.index_fill_(0, padding, 0) if zeros else padded

    def unpack(self, padded: Tensor, heads: int) -> Tensor:
        """[S * A, D] to [T, A, D], without padding; T includes ``rest``."""
        _, _, places = self._index(heads, heads)
        return padded.index_select(0, places).view(-1, heads, padded.shape[-1])

    def tiles(self, heads: int, scores: int) -> Iterator[tuple[Group, slice]]:
        """Cut each group into tiles of at most ``scores`` scores, or of one text and head."""
        for group in self.groups:
            rows = group.rows(heads)
            step = max(1, scores // group.places**2) * group.places
            for first in range(rows.start, rows.stop, step):
                yield group, slice(first, min(first + step, rows.stop))

    def mask(self, scores: Tensor, group: Group, rows: slice, heads: int, rule: Rule) -> None:
        """Mask, in place, scores [M, l, l] of ``rows`` where a token must not attend."""
        bias = position_bias(group.places, rule, scores)
        if bias is not None:
            scores += bias
        if not group.full:
            first = group.start * heads
            numbers = torch.arange(
                (rows.start - first) // group.places, (rows.stop - first) // group.places
            )
            lengths = group.lengths[numbers.to(self.device) // heads]
            # Only the last STEP places of a text can be padding.
            at = torch.arange(group.places - STEP, group.places, device=self.device)
            padding = (at >= lengths[:, None])[:, None]  # [M, 1, STEP]
            scores[..., -STEP:] += padding * mask_value(scores)

    def bias(self, group: Group, like: Tensor, rule: Rule) -> Tensor | None:
        """The same mask for a whole group, to be added to the scores: at most [n, 1, l, l]."""
        bias = position_bias(group.places, rule, like)
        if group.full:
            return bias
        at = torch.arange(group.places, device=self.device)
        padding = (at >= group.lengths[:, None])[:, None, None]  # [n, 1, 1, l]
        keys = padding * mask_value(like)
        return keys if bias is None else keys + bias

    def _index(self, heads: int, given: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of [T * given] that make [S * A], which of these are padding, and the way back.

        Computed once for all layers, on the host, which knows the lengths.
        """
        if (heads, given) not in self._rows:
            own = torch.arange(heads)
            shared = own // (heads // given)
            sources, padding, places = [], [], []
            token = 0
            for group in self.groups:
                at, lengths = torch.arange(group.places), group.on_host
                ends = token + lengths.cumsum(0)[:, None]  # [n, 1]
                real = at < lengths[:, None]  # [n, l]
                tokens = (ends - lengths[:, None] + at).minimum(ends - 1)
                sources.append((tokens[:, None] * given + shared[:, None]).flatten())
                padding.append((~real)[:, None].expand(-1, heads, -1).flatten())
                texts = torch.arange(group.count)[:, None, None]
                rows = (texts * heads + own) * group.places + at[:, None]  # [n, l, A]
                places.append((rows[real] + group.start * heads).flatten())
                token += int(lengths.sum())
            where = torch.cat(padding).nonzero()[:, 0]
            places.append(torch.zeros(self.rest * heads, dtype=torch.long))
            self._rows[heads, given] = (
                to_device(torch.cat(sources), self.device),
                to_device(where, self.device),
                to_device(torch.cat(places), self.device),
            )
        return self._rows[heads, given]


def position_bias(places: int, rule: Rule, like: Tensor) -> Tensor | None:
    """Added to scores [.., l, l] of causal or windowed attention; None: neither limits anything."""
    reach = places if rule.window is None else min(rule.window, places)
    if not rule.causal and reach == places:
        return None
    at = torch.arange(places, device=like.device)
    distance = at[:, None] - at[None, :]
    seen = distance.abs() < reach
    if rule.causal:
        seen &= distance >= 0
    return ~seen * mask_value(like)


def mask_value(like: Tensor) -> Tensor:
    """Added to a masked score: its exponential is 0, and two of them are finite.

    A padding token may attend to nothing but padding; with infinities its softmax would be NaN.
    """
    return torch.tensor(torch.finfo(like.dtype).min / 4, dtype=like.dtype, device=like.device)
