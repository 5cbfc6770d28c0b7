"""Tokens for which a model has no row: on a GPU they would read foreign memory."""

from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase


class TokenWithoutRow(ValueError):
    """A text has a token beyond the embedding matrix; the message names it."""


def tokens_without_a_row(tokenizer: PreTrainedTokenizerBase, model: Any) -> list[int]:
    """The tokenizer's ids beyond the embedding matrix, ascending."""
    rows = model.get_input_embeddings().num_embeddings
    if max(len(tokenizer), *tokenizer.added_tokens_decoder, 0) <= rows:
        return []
    return sorted(number for number in tokenizer.get_vocab().values() if number >= rows)


def check_tokens(input_ids: Tensor, unknown: list[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse token ids that are ``unknown`` to the model.

    Raises:
        TokenWithoutRow: The message names the token.
    """
    if unknown and bool((found := input_ids[input_ids >= unknown[0]]).numel()):
        number = int(found[0])
        name = tokenizer.convert_ids_to_tokens(number)
        raise TokenWithoutRow(
            f"a text has the token {name!r} ({number}), for which the model has no row: its "
            f"embeddings have {unknown[0]}; take the token out, or add rows with "
            f"resize_token_embeddings({unknown[-1] + 1})"
        )
