"""What losses of candidate groups share: checked settings, scores laid out by group."""

from torch import Tensor

LARGEST = 1e6  # factor of scores

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups.


def check_positive(**settings: float) -> None:
    """Refuse a setting that divides or multiplies scores and leaves nothing to learn of them.

    Far from 1 the gradient would be 0 in float32, or not finite.

    Raises:
        ValueError: It names the setting.
    """
    for name, value in settings.items():
        if not 1 / LARGEST <= value <= LARGEST:
            allowed = f"from {1 / LARGEST:g} to {LARGEST:g}"
            raise ValueError(f"{name} must be above 0, {allowed}, got {value:g}")


def by_group(scores: Tensor, mask: Tensor, padding: float = 0.0) -> Tensor:
    """Scores [P], group after group, as fp32 [G, C]; ``padding`` where ``mask`` [G, C] is False."""
    scores = scores.float()
    return scores.new_full(mask.shape, padding).masked_scatter(mask, scores)
