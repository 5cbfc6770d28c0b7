"""Lengths of texts: in characters, or in the tokens of a model."""

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_BATCH = 512

Count = Callable[[list[str]], list[int]]


def count_characters(texts: list[str]) -> list[int]:
    """The number of characters of each text."""
    return [len(text) for text in texts]


def token_counter(model: str, trust_remote_code: bool) -> tuple[Count, tuple[int, int]]:
    """Return a function that counts tokens, without special ones, and the number of special ones.

    Args:
        model: A folder, ``package://<module>/<path>`` or a name on the Hub.
        trust_remote_code: Whether Python code of the folder may run.

    Returns:
        The function; how many special tokens are added to one text, and to a pair.

    Raises:
        ValueError: If there is no such model, or it has no tokenizer.
    """
    # Only here, because they take seconds to import.
    from transformers import AutoTokenizer

    from encoders.opening.model_name import PACKAGE, resolve_model

    name = resolve_model(model) if model.startswith(PACKAGE) else os.path.expanduser(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        reason = f" ({str(error).partition(chr(10))[0]})" if isinstance(error, OSError) else ""
        raise ValueError(
            f"model: {model}: no tokenizer can be opened there; give a folder that has one, "
            f"package://<module>/<path> or a name on the Hub{reason}"
        ) from None
    # It warns of texts longer than the model; those are what is being counted.
    tokenizer.model_max_length = int(1e30)

    def count(texts: list[str]) -> list[int]:
        encoded = tokenizer(
            texts,
            add_special_tokens=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [len(ids) for ids in encoded["input_ids"]]

    special = [tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True)]
    return count, (special[0], special[1])


class TextLengths:
    """Lengths of distinct texts, by key."""

    def __init__(self, count: Count) -> None:
        self.count = count
        self.known: dict[int, int] = {}
        self.waiting: dict[int, str] = {}

    def add(self, key: int, text: str) -> None:
        """Add a text, unless its key is known."""
        if key not in self.known and key not in self.waiting:
            self.waiting[key] = text
            if len(self.waiting) == _BATCH:
                self._count()

    def _count(self) -> None:
        if self.waiting:
            lengths = self.count(list(self.waiting.values()))
            self.known.update(zip(self.waiting, lengths, strict=True))
            self.waiting = {}

    def all(self) -> NDArray[np.int64]:
        """The length of each distinct text."""
        self._count()
        return np.fromiter(self.known.values(), dtype=np.int64, count=len(self.known))

    def of(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The length of the text of each key."""
        lengths = self.all()
        known = np.fromiter(self.known, dtype=np.uint64, count=len(self.known))
        order = np.argsort(known)
        found: NDArray[np.int64] = lengths[order[np.searchsorted(known, keys, sorter=order)]]
        return found
