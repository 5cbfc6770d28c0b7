"""From the vectors of a text's tokens to one vector for the text."""

from typing import Literal, get_args

import torch
from torch import Tensor

# Shapes: T tokens of N texts, one text after the other, H dimensions.

Pooling = Literal["cls", "mean", "last"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


def pool(states: Tensor, lengths: Tensor, pooling: Pooling) -> Tensor:
    """Pool ``states`` [T, H] of texts with so many tokens each (``lengths`` [N]) to [N, H].

    ``cls`` takes the first token, ``mean`` the average over all tokens, ``last`` the last token.
    """
    ends = lengths.cumsum(0)
    if pooling == "cls":
        return states[ends - lengths]
    if pooling == "last":
        return states[ends - 1]
    states = states.to(torch.promote_types(states.dtype, torch.float32))
    texts = torch.arange(len(lengths), device=states.device).repeat_interleave(lengths)
    sums = states.new_zeros(len(lengths), states.shape[-1]).index_add(0, texts, states)
    return sums / lengths[:, None]
