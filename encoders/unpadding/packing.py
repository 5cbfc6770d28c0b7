"""Decide which texts of a batch are packed into one sequence.

On a GPU a batch is one packed sequence. On a CPU several are faster: the buffers of one are reused
by the next while they are still in the cache, and each core can compute sequences of its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from encoders.unpadding.transfer import to_device

# Matrix products of fewer tokens than this are slower per token.
MIN_TOKENS = 128
# In training every packed sequence has gradients for all weights, which have to be added up.
MIN_TOKENS_IN_TRAINING = 1024
# Most values in the token states of a packed sequence: 4 MiB of fp32. Training runs several times
# as many operations on each, which have to be worth their overhead.
MAX_STATES = 2**20
MAX_STATES_IN_TRAINING = 2**22
# One core per sequence, unless the largest has more than this times its fair share of tokens: then
# the other cores would wait for it, and all cores compute each sequence together.
MAX_IMBALANCE = 1.25
# Without gradients, the tokens of a packed sequence are rounded up to a multiple of this.
STEP = 16


def pack_texts(lengths: Sequence[int], width: int, cores: int, training: bool) -> list[list[int]]:
    """The texts of each packed sequence, by index, on a CPU.

    Sequences of a size that suits the cache are made first. Where these are fewer than the cores,
    and always in training, texts are balanced among a multiple of the cores if that keeps all busy.

    Args:
        lengths: Tokens of each text.
        width: Hidden size.
        cores: Sequences computed in parallel.
        training: Whether gradients will be computed.
    """
    states, shortest = (
        (MAX_STATES_IN_TRAINING, MIN_TOKENS_IN_TRAINING) if training else (MAX_STATES, MIN_TOKENS)
    )
    pieces = cut_by_tokens(lengths, max(256, states // width))
    if len(pieces) < cores or (training and cores > 1):
        bins = -(-len(pieces) // cores) * cores
        balanced = balance(lengths, max(1, min(bins, sum(lengths) // shortest)))
        if is_even([sum(lengths[text] for text in piece) for piece in balanced], cores):
            return balanced
    return pieces


def is_even(tokens: list[int], cores: int) -> bool:
    """Whether sequences of these token counts keep all cores about equally busy."""
    return max(tokens) * cores <= MAX_IMBALANCE * sum(tokens)


def cut_by_tokens(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Sort texts by length and cut them into pieces of at most ``tokens`` tokens, or of one text.

    Returns:
        The indices of each piece's texts, the shortest first.
    """
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


def balance(lengths: Sequence[int], bins: int) -> list[list[int]]:
    """Partition text indices into bins of about equal token count, each sorted by length.

    "Longest processing time first" (Graham, 1969): the longest remaining text goes to the bin with
    the fewest tokens. Empty bins are left out.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    pieces: list[list[int]] = [[] for _ in range(bins)]
    tokens = [0] * bins
    for text in order:
        least = tokens.index(min(tokens))
        pieces[least].append(text)
        tokens[least] += lengths[text]
    return [piece[::-1] for piece in pieces if piece]


def round_up(values: Tensor) -> Tensor:
    """Pad [1, T, ..] with zeros to a multiple of ``STEP`` tokens.

    oneDNN compiles a kernel for each T and each size of weights, which takes longer than to run it,
    and those of all T that a server meets would fill the memory.
    """
    rest = -values.shape[1] % STEP
    if not rest:
        return values
    return torch.cat([values, values.new_zeros(1, rest, *values.shape[2:])], dim=1)


def without_rest(output: ModelOutput, tokens: int) -> ModelOutput:
    """A backbone's output, with states [1, T, H], without what ``round_up`` added."""

    def cut(states: Any) -> Any:
        if isinstance(states, tuple):
            return tuple(map(cut, states))
        return states[:, :tokens] if states.dim() == 3 else states

    for name in list(output):
        output[name] = cut(output[name])
    return output


def padded_output(
    outputs: list[ModelOutput], index: Tensor, order: list[int], shape: torch.Size
) -> ModelOutput:
    """Packed states [1, T, H] to [B, L, H]; ``index`` has each token's place in [B * L]."""

    def padded(states: tuple[Tensor, ...]) -> Tensor:
        tokens = torch.cat(states, dim=1)[0]
        flat = tokens.new_zeros(shape.numel(), tokens.shape[-1])
        return flat.index_copy(0, index, tokens).view(*shape, -1)

    output = outputs[0]
    for name in list(output):
        values = [other[name] for other in outputs]
        if isinstance(values[0], tuple):
            output[name] = tuple(padded(layer) for layer in zip(*values, strict=True))
        elif values[0].dim() == 3:
            output[name] = padded(tuple(values))
        else:  # the pooler's, one for each text
            places = to_device(torch.tensor(order).argsort(), index.device)
            output[name] = torch.cat(values)[places]
    return output
