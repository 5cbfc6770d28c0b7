"""Settings of inference: how texts are embedded, and how pairs are scored."""

from collections.abc import Mapping, Sequence
from typing import TypedDict


class InferenceSettings(TypedDict, total=False):
    """How ``Encoder.forward_in_batches`` computes.

    Args:
        max_length: Tokens after which a text (or pair) is cut; None: the model's own limit.
        tokens_per_batch: About so many tokens in one forward; None: what suits the device.
        bf16: Compute in bf16, on devices that have it.
        show_progress: Show a progress bar.
    """

    max_length: int | None
    tokens_per_batch: int | None
    bf16: bool
    show_progress: bool


class ScoreSettings(InferenceSettings, total=False):
    """How ``Encoder.score_pairs`` scores. Kinds take no notice of the lengths of other kinds.

    Args:
        prompts: For "query" and "document"; None: the model's own. {}: none, as for texts that
            have them already.
        query_prompts: One per query, which wins over ``prompts``; None: it has none of its own.
        query_max_length: Tokens of a query, where it is read alone; None: the model's limit.
        document_max_length: The same for a document. ``max_length`` is of a pair, where both are
            read together.
    """

    prompts: Mapping[str, str] | None
    query_prompts: Sequence[str | None]
    query_max_length: int | None
    document_max_length: int | None


def inference_settings(settings: ScoreSettings, max_length: int | None) -> InferenceSettings:
    """What ``score_pairs`` passes on to ``forward_in_batches``, with this limit.

    Raises:
        TypeError: There is no such setting.
    """
    if unknown := sorted(settings.keys() - ScoreSettings.__annotations__.keys()):
        raise TypeError(f"score_pairs() has no setting {', '.join(unknown)}")
    return {
        "max_length": max_length,
        "tokens_per_batch": settings.get("tokens_per_batch"),
        "bf16": settings.get("bf16", False),
        "show_progress": settings.get("show_progress", False),
    }
