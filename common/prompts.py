"""How texts are given to a model: behind their prompts, and padded. Each rule exists once, here."""

from typing import Any, Final

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
    return (prompt if own is None else own) + text
