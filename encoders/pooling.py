"""From the vectors of a text's tokens to one vector for the text."""

from typing import Literal, get_args

from torch import Tensor

# Shapes: N texts, L tokens of the longest, H dimensions.

Pooling = Literal["cls", "mean", "last"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


def pool(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool ``states`` [N, L, H] under ``attention_mask`` [N, L] (1 for tokens) to [N, H].

    ``cls`` takes the first token, ``mean`` the average over all tokens, ``last`` the last token;
    each counts tokens only, so that padding on either side makes no difference.
    """
    if pooling == "mean":
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
    if pooling == "cls":
        position = attention_mask.int().argmax(dim=1)
    else:
        position = attention_mask.shape[1] - 1 - attention_mask.flip(1).int().argmax(dim=1)
    index = position[:, None, None].expand(-1, 1, states.shape[-1])
    return states.gather(1, index).squeeze(1)
