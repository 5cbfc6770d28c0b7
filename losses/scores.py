"""What losses of candidate groups share: checked settings, scores laid out by group."""

import math

from torch import Tensor

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups.


def check_positive(**settings: float) -> None:
    """Refuse a setting that divides or multiplies scores and is not above 0.

    Raises:
        ValueError: It names the setting.
    """
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, got {value}")


def by_group(scores: Tensor, mask: Tensor, padding: float = 0.0) -> Tensor:
    """Scores [P], group after group, as fp32 [G, C]; ``padding`` where ``mask`` [G, C] is False."""
    scores = scores.float()
    return scores.new_full(mask.shape, padding).masked_scatter(mask, scores)
