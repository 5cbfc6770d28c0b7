"""Count the tokens of texts with a model's tokenizer."""

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from encoders.opening.source import PACKAGE, resolve_model


def open_tokenizer(model: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Open the tokenizer of a model.

    Args:
        model: A folder, ``package://<module>/<path>`` or a name on the Hub.
        trust_remote_code: Whether Python code of the folder may run.

    Raises:
        ValueError: If there is no such model, or it has no tokenizer.
    """
    name = resolve_model(model) if model.startswith(PACKAGE) else model
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        reason = f" ({str(error).partition(chr(10))[0]})" if isinstance(error, OSError) else ""
        raise ValueError(
            f"model: {model}: no tokenizer can be opened there; give a folder that has one, "
            f"package://<module>/<path> or a name on the Hub{reason}"
        ) from None
    # It warns of texts longer than the model; those are what is being counted.
    tokenizer.model_max_length = int(1e30)
    return tokenizer


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[int]:
    """Count the tokens of each text, without special ones."""
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return [len(ids) for ids in encoded["input_ids"]]


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return how many special tokens are added to one text, and to a pair."""
    return (
        tokenizer.num_special_tokens_to_add(pair=False),
        tokenizer.num_special_tokens_to_add(pair=True),
    )
