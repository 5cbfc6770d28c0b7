"""Texts to tokens; those for which a model has no row would read foreign memory on a GPU."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.prompts import QueryTokens, padded
from encoders.unpadding import cut_by_tokens


class TokenWithoutEmbedding(ValueError):
    """A text has a token beyond the embedding matrix; the message names it."""


def tokens_without_embedding(tokenizer: PreTrainedTokenizerBase, model: Any) -> list[int]:
    """The tokenizer's ids beyond the embedding matrix, ascending; ids may have gaps."""
    rows = len(model.get_input_embeddings().weight)
    return sorted(number for number in tokenizer.get_vocab().values() if number >= rows)


def check_tokens(input_ids: Tensor, unknown: list[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse token ids that are ``unknown`` to the model.

    Raises:
        TokenWithoutEmbedding: The message names the token.
    """
    if unknown and bool((found := input_ids[input_ids >= unknown[0]]).numel()):
        number = int(found[0])
        name = tokenizer.convert_ids_to_tokens(number)
        raise TokenWithoutEmbedding(
            f"a text has the token {name!r} ({number}), for which the model has no row: its "
            f"embeddings end before {unknown[0]}; take the token out, or add rows with "
            f"resize_token_embeddings({unknown[-1] + 1})"
        )


def batches(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[list[str]],
    budget: int,
    truncation: str | bool,
    max_length: int,
    query_tokens: QueryTokens | None = None,
) -> Iterator[tuple[list[int], Any]]:
    """Yield batches of texts (or pairs): the places of their texts, and padded tensors.

    Args:
        tokenizer: The model's.
        texts: One list, or two for pairs.
        budget: About so many tokens in a batch.
        truncation: How the tokenizer cuts.
        max_length: To how many tokens.
        query_tokens: How texts that are queries are expanded.
    """
    tokens: Any = tokenizer(*texts, truncation=truncation, max_length=max_length)
    if query_tokens is not None:
        tokens = query_tokens.expand(tokens)
    for piece in cut_by_tokens([len(ids) for ids in tokens["input_ids"]], budget):
        chosen = {name: [tokens[name][at] for at in piece] for name in tokens}
        yield piece, padded(tokenizer, chosen)
