"""Dropout as torch's, drawn several times faster on a CPU."""

import torch
from torch import Tensor, nn

BITS = 16


def dropped(like: Tensor, probability: float) -> Tensor:
    """1 where a value is dropped and 0 where it stays, in the shape and type of ``like``.

    Each is drawn from 16 random bits, four to a word; ``bernoulli_`` draws them one by one, with
    numbers of twice the length, and takes about eight times as long. The probability is met to
    1 / 131,072; ``scale`` is what its inverse really is.
    """
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: like.numel()].view(like.shape)
    return torch.lt(bits, _threshold(probability) - 2 ** (BITS - 1), out=torch.empty_like(like))


def scale(probability: float) -> float:
    """What the values that stay are multiplied by, so that the mean is what it was."""
    return 1 / (1 - _threshold(probability) / 2**BITS)


def _threshold(probability: float) -> int:
    return round(probability * 2**BITS)


class Dropout(nn.Dropout):
    """``nn.Dropout`` with the same distribution; on other devices it is that."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop values while training."""
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return super().forward(input)
        by = scale(self.p)
        return input * dropped(input, self.p).mul_(-by).add_(by)


def speed_up_dropout(model: nn.Module) -> None:
    """Put ``Dropout`` in the place of every ``nn.Dropout`` of ``model``."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout and child.p < 1:
                setattr(module, name, Dropout(child.p))
