"""How many of a text's tokens are its prompt, for poolings that leave prompts out."""

from collections.abc import Collection

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


def prompt_lengths(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Collection[str],
    input_ids: Tensor,
    attention_mask: Tensor,
) -> Tensor:
    """Tokens of each text's prompt, [N]; 0 where it has none.

    Texts come with their prompts already before them, so a prompt is known by its tokens (a text
    that begins with the same words is taken to have it). A space at its end may have become part
    of the next word; it counts all the same, as in sentence-transformers.

    Args:
        tokenizer: The model's.
        prompts: Those that may stand before a text.
        input_ids: [N, L].
        attention_mask: [N, L].
    """
    known = sorted((_tokens(tokenizer, prompt) for prompt in prompts), key=len, reverse=True)
    found = []
    for ids, mask in zip(input_ids.tolist(), attention_mask.bool().tolist(), strict=True):
        text = [token for token, real in zip(ids, mask, strict=True) if real]
        matches = [own for own in known if text[: len(own)] == own]
        spaces = [own for own in known if _ends_in_a_space(tokenizer, own, text)]
        found.append(len((matches or spaces or [[]])[0]))
    return torch.tensor(found, device=input_ids.device)


def _tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Of a prompt by itself, without a special one at the end."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    return ids[:-1] if ids[-1] in tokenizer.all_special_ids else ids


def _ends_in_a_space(tokenizer: PreTrainedTokenizerBase, own: list[int], text: list[int]) -> bool:
    bare = not str(tokenizer.decode(own[-1:])).strip()
    return bare and len(own) > 1 and text[: len(own) - 1] == own[:-1]
