"""Join prompts to texts. Every other file calls ``with_prompt``, so that the rule exists once."""


def with_prompt(text: str, prompt: str, own: str | None = None) -> str:
    """Put a prompt directly in front of a text, without a separator.

    Args:
        text: A query or a document.
        prompt: The prompt for its side: the model's, unless the caller was given another.
        own: The prompt that comes with this text (a row's ``prompt``); wins over ``prompt``.
            None: it has none; "": nothing goes in front.
    """
    return (prompt if own is None else own) + text
