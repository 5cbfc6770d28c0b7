"""A model's first position and number of positions."""

from typing import Any

from torch import nn


def position_offset(backbone: nn.Module) -> int:
    """The position of a text's first token: RoBERTa and similar models start at padding id + 1."""
    table = _position_table(backbone)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def position_limit(backbone: Any) -> int | None:
    """The most tokens for which the model has positions; None: no limit."""
    stated = getattr(backbone.config, "max_position_embeddings", None)
    table = _position_table(backbone)
    limits = [stated] if isinstance(stated, int) and stated > 0 else []
    if table is not None:
        limits.append(table.num_embeddings - position_offset(backbone))
    return min(limits, default=None)


def check_positions(backbone: Any, max_length: int) -> None:
    """Refuse more tokens than the model has positions for.

    Raises:
        ValueError: The message names both numbers.
    """
    limit = position_limit(backbone)
    if limit is not None and max_length > limit:
        raise ValueError(
            f"max_length: {max_length} tokens are asked for, but {backbone.config.model_type} "
            f"takes at most {limit}; give {limit} or less"
        )


def _position_table(backbone: nn.Module) -> Any:
    """The matrix of learnt absolute positions, if there is one."""
    for name, module in backbone.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and hasattr(module, "num_embeddings"):
            return module
    return None
