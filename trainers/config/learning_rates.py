"""Give some weights a learning rate of their own."""

from collections.abc import Set

import torch
from torch import Tensor


def set_learning_rate(
    optimizer: torch.optim.Optimizer, weights: Set[Tensor], learning_rate: float
) -> None:
    """Move weights into parameter groups like their own, but for the learning rate."""
    for group in list(optimizer.param_groups):
        own = [weight for weight in group["params"] if weight in weights]
        if own:
            group["params"] = [weight for weight in group["params"] if weight not in weights]
            optimizer.add_param_group({**group, "params": own, "lr": learning_rate})
