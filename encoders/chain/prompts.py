"""Count the prompt tokens of each text, for poolings that exclude prompts."""

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

    Texts already have their prompts in front, so a prompt is recognised by its tokens; a text that
    happens to begin with the same words counts as having it. A space at the prompt's end may have
    been merged into the next word's token; it counts anyway, as in sentence-transformers.

    Args:
        tokenizer: The model's.
        prompts: All that may be in front of a text.
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
    """The tokens of a prompt by itself, without a special token at the end."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    return ids[:-1] if ids[-1] in tokenizer.all_special_ids else ids


def _ends_in_a_space(tokenizer: PreTrainedTokenizerBase, own: list[int], text: list[int]) -> bool:
    bare = not str(tokenizer.decode(own[-1:])).strip()
    return bare and len(own) > 1 and text[: len(own) - 1] == own[:-1]
