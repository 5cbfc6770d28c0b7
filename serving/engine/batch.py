"""Compute a batch; isolate texts that fail, and detect a model that is broken."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch

from encoders.opening.tokens import TokenWithoutEmbedding
from serving.engine.model import SHORT, ServedModel
from serving.engine.tokenization import Tokens
from serving.http.errors import ServingError

logger = logging.getLogger(__name__)

# Tokens of a batch, below which lack of memory no longer halves the budget.
SMALLEST_BUDGET = 64
Result = np.ndarray | ServingError
# Told the kind of each failure of a model: one of ``metrics.ERRORS``.
Count = Callable[[str], None]


def compute_batch(model: ServedModel, batch: Sequence[Tokens], count: Count) -> list[Result]:
    """One result for each text: embeddings [H] or [T, H], a score [], or what went wrong.

    If the batch fails, each text is tried alone. If all of them fail, the cause may be the model:
    a text that passed at start-up tells, and whatever is wrong with that is raised.
    """
    try:
        values = model.compute(batch)
        if np.isfinite(np.concatenate(values, axis=None)).all():  # perhaps of matrices
            return list(values)
    except TokenWithoutEmbedding:
        pass  # trying each alone shows which text it is
    except Exception as error:
        _note(model, error, count)
    results = [_alone(model, tokens, count) for tokens in batch]
    failed = all(isinstance(result, ServingError) for result in results)
    if failed and not np.isfinite(model.compute([model.example(SHORT)])).all():
        raise FloatingPointError(f"{model.name} gives values that are not finite")
    return results


def _alone(model: ServedModel, tokens: Tokens, count: Count) -> Result:
    try:
        value: np.ndarray = model.compute([tokens])[0]
    except TokenWithoutEmbedding as error:
        return ServingError("validation_error", str(error))
    except Exception as error:
        _note(model, error, count)
        return ServingError("inference_error", "the model failed on this text")
    if not np.isfinite(value).all():
        count("not_finite")
        return ServingError(
            "model_output_not_finite", "the model's output for this text is not finite"
        )
    return value


def _note(model: ServedModel, error: Exception, count: Count) -> None:
    """Count and log a failure; after running out of memory, halve the batches from now on."""
    if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
        count("exception")
        logger.error("%s failed on a batch", model.name, exc_info=error)
        return
    count("out_of_memory")
    model.max_batch_tokens = max(SMALLEST_BUDGET, model.max_batch_tokens // 2)
    logger.warning(
        "%s ran out of memory; batches are limited to %d tokens from now on",
        model.name,
        model.max_batch_tokens,
    )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
