"""Dropout with torch's distribution, drawn several times faster on a CPU."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from encoders.unpadding.parts import parts

BITS = 16
_thread = threading.local()


@contextmanager
def seeded(seed: int | Sequence[int]) -> Iterator[None]:
    """Within this thread, draw from a generator of its own, independent of other threads."""
    _thread.generator = np.random.Generator(np.random.SFC64(seed))
    try:
        yield
    finally:
        _thread.generator = None


def draw_layer_seed() -> None:
    """Draw the seed of all masks of a compiled layer, whatever their order in its graph."""
    _thread.layer = int(torch.randint(2**63 - 1, ()))


def layer_seed() -> int:
    """The seed that ``draw_layer_seed`` has drawn in this thread."""
    seed: int = _thread.layer
    return seed


def dropout_mask(like: Tensor, probability: float) -> Tensor:
    """1 where a value is dropped and 0 where it stays, in the shape and type of ``like``.

    Each value uses 16 random bits, four to a word of NumPy's fastest generator. ``bernoulli_``
    draws one at a time, from twice as many bits, and takes about eight times as long. The
    probability is rounded to 1 / 65,536; ``scale`` is the inverse of the rounded one.
    """
    return torch.lt(_bits(like), _bound(probability), out=torch.empty_like(like))


def dropped(like: Tensor, probability: float) -> Tensor:
    """``dropout_mask`` as booleans."""
    return torch.lt(_bits(like), _bound(probability))


def _bits(like: Tensor) -> Tensor:
    generator = getattr(_thread, "generator", None)
    if generator is None:  # outside ``seeded``: a new one, seeded by torch's
        seed = int(torch.randint(2**63 - 1, ()))
        generator = np.random.Generator(np.random.SFC64(seed))
    lowest, highest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    words = generator.integers(lowest, highest, like.numel() // 4 + 1, np.int64, endpoint=True)
    return torch.from_numpy(words).view(torch.int16)[: like.numel()].view(like.shape)


def scale(probability: float) -> float:
    """The factor for values that stay, which keeps the mean: 1 / (1 - probability), as rounded."""
    return float(1 / (1 - _threshold(probability) / 2**BITS))


def _bound(probability: float) -> int:
    return _threshold(probability) - (1 << (BITS - 1))


def _threshold(probability: float) -> int:
    scaled: float = probability * 2**BITS
    return round(scaled)


class Dropout(nn.Dropout):
    """``nn.Dropout`` with a faster mask on a CPU; on other devices it is ``nn.Dropout``.

    Attributes:
        site: Its number in a compiled layer, from 1 on.
    """

    site = 0

    def forward(self, input: Tensor) -> Tensor:
        """Drop values while training."""
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return super().forward(input)
        by = scale(self.p)
        if torch.compiler.is_compiling():
            dropped = torch.ops.tandem.dropped(input, self.p, self.site)
            return input.masked_fill(dropped, 0) * by
        return input * dropout_mask(input, self.p).mul_(-by).add_(by)


def speed_up_dropout(model: nn.Module) -> None:
    """Replace every ``nn.Dropout`` of ``model`` by ``Dropout``, in place."""
    if not parts.fast_dropout:
        return
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout and child.p < 1:
                setattr(module, name, Dropout(child.p))
