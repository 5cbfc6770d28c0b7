"""Store matrices in bf16 wherever that loses nothing, as in most decoders, which were saved in it.

They take half the memory, and autocast need not convert them in every forward pass. What a model
computes is the same, bit by bit, under autocast and without it.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Model = TypeVar("Model", bound=nn.Module)


class BF16Linear(nn.Linear):
    """A linear layer whose weight is stored in bf16; its products are those of fp32."""

    def forward(self, input: Tensor) -> Tensor:
        """[.., in] to [.., out]."""
        weight = self.weight
        if not torch.is_autocast_enabled(input.device.type):
            weight = weight.to(input.dtype)
        return F.linear(input, weight, self.bias)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        given = state_dict.get(f"{prefix}weight")
        if given is not None and not _fits_bf16(given):
            raise ValueError(
                f"{prefix}weight is stored in bf16, which would round what it is given"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)


def store_in_bf16(model: nn.Module, trainable: bool = False) -> None:
    """Store the frozen matrices in bf16 where that loses nothing; with ``trainable``, all of them.

    Nothing that bf16 would round can be loaded into them afterwards.
    """
    for module in model.modules():
        weight = module.weight if type(module) is nn.Linear else None
        if weight is None or (weight.requires_grad and not trainable) or not _fits_bf16(weight):
            continue
        stored = weight.detach().bfloat16()
        module.weight = nn.Parameter(stored, requires_grad=weight.requires_grad)
        module.__class__ = BF16Linear


def place_for_inference(model: Model, device: torch.device | str) -> Model:
    """Move a model, which is not trained, to its device; to a GPU with its matrices in bf16.

    A CPU keeps them: without bf16 instructions it would convert them back for every product.
    """
    if torch.device(device).type != "cpu":
        store_in_bf16(model, trainable=True)
    return model.to(device)


def _fits_bf16(weight: Tensor) -> bool:
    """Whether bf16 holds it without loss."""
    return weight.detach().bfloat16().to(weight.dtype).equal(weight.detach())


def weights_in_bf16(model: nn.Module) -> set[str]:
    """The names of the weights that are stored in bf16."""
    modules = model.named_modules()
    return {f"{name}.weight" for name, module in modules if isinstance(module, BF16Linear)}
