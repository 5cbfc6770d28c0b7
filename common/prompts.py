"""How texts are given to a model: behind their prompts, and padded. Each rule exists once, here."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Shapes: N texts, L tokens of the longest.

Side = Literal["query", "document"]

# How a tokenizer pads a batch, whatever its folder says, so that no result depends on neighbours:
# on the left, padding would shift positions and stand where a head looks for the first token;
# without a mask it would be read as text.
PADDED: Final[dict[str, Any]] = {
    "padding_side": "right",
    "return_attention_mask": True,
    "return_tensors": "pt",
}


def with_prompt(text: str, prompt: str, own: str | None = None) -> str:
    """Put a prompt directly in front of a text, without a separator.

    Args:
        text: A query or a document.
        prompt: The prompt for its side: the model's, unless the caller was given another.
        own: The prompt that comes with this text (a row's ``prompt``); wins over ``prompt``.
            None: it has none; "": nothing goes in front.
    """
    before = prompt if own is None else own
    if not before:
        return text
    found = Prompted(before + text)
    found.prompt = before + prompt_of(text)
    return found


class Prompted(str):
    """A text behind its prompt, of which it knows: some models leave prompts out of pooling."""

    __slots__ = ("prompt",)
    prompt: str


def prompt_of(text: str) -> str:
    """The prompt that ``with_prompt`` has put in front of a text; "": none."""
    return getattr(text, "prompt", "")


def prompt_mask(tokenizer: Any, texts: Sequence[str], batch: Mapping[str, Any]) -> Tensor:
    """Which tokens of a batch are those of prompts: bool [N, L].

    Counted as in sentence-transformers: a prompt has as many tokens as it has alone, with what the
    tokenizer puts in front, even if its last space was merged into the next word's token.

    Args:
        tokenizer: The model's.
        texts: From ``with_prompt``.
        batch: Of the tokenizer, padded on the right.
    """
    counts = {"": 0}
    for prompt in {prompt_of(text) for text in texts} - {""}:
        ids = tokenizer(prompt)["input_ids"]
        counts[prompt] = len(ids) - (ids[-1:] != [] and ids[-1] in tokenizer.all_special_ids)
    lengths = torch.tensor([counts[prompt_of(text)] for text in texts])
    return torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]


class QueryTokens(NamedTuple):
    """What becomes of a query's tokens, in models that read queries otherwise than documents.

    Args:
        length: A shorter query is expanded to so many tokens.
        token: Which are added.
        attended: Whether the others attend to these; they count in the comparison anyway.
    """

    length: int = 0
    token: int = 0
    attended: bool = False

    def expand(self, tokens: Mapping[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        """The tokenizer's lists of each query, at least ``length`` long."""
        added = {"input_ids": self.token, "attention_mask": int(self.attended)}
        return {
            name: [row + [added.get(name, 0)] * (self.length - len(row)) for row in rows]
            for name, rows in tokens.items()
        }

    def mask(self, attention_mask: NDArray[Any]) -> NDArray[np.bool_]:
        """Which positions of padded queries [N, L] are tokens, expanded ones included."""
        lengths = np.maximum(attention_mask.sum(axis=1), max(1, self.length))
        is_token: NDArray[np.bool_] = np.arange(attention_mask.shape[1]) < lengths[:, None]
        return is_token


def padded(tokenizer: Any, tokens: Any) -> Any:
    """Tokens of N texts as tensors [N, L]; L is 1 where no text has any token."""
    ids = tokens["input_ids"] if isinstance(tokens, Mapping) else [t["input_ids"] for t in tokens]
    longest = max(1, *map(len, ids))
    return tokenizer.pad(tokens, padding="max_length", max_length=longest, **PADDED)


def check_room(tokenizer: Any, name: str, max_length: int, pair: bool = False) -> None:
    """Refuse a length with no room for text: tokenizers would silently exceed it.

    Raises:
        ValueError: The message begins with ``name``, that of the setting.
    """
    special = tokenizer.num_special_tokens_to_add(pair=pair)
    least = special + (2 if pair else 1)
    if max_length < least:
        texts = "a query and a document" if pair else "a text"
        raise ValueError(
            f"{name}: {max_length} leaves no room for {texts} beside the {special} special "
            f"tokens; give at least {least}"
        )


def check_lists(**given: Sequence[str]) -> None:
    """Refuse one text where a list is taken: each of its characters would be a text.

    Raises:
        ValueError: The message begins with the name of the argument.
    """
    for name, texts in given.items():
        if isinstance(texts, str):
            raise ValueError(f"{name}: {texts[:40]!r} is one text; give a list, [{texts[:40]!r}]")


def check_pairs(queries: Sequence[str], documents: Sequence[str]) -> None:
    """Refuse queries and documents that do not stand side by side.

    Raises:
        ValueError: One is no list, or there are not as many of the one as of the other.
    """
    check_lists(queries=queries, documents=documents)
    if len(queries) != len(documents):
        raise ValueError(
            f"documents: {len(queries)} queries and {len(documents)} documents make no pairs; "
            "give one document for each query"
        )
