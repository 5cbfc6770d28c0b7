"""Limits of a server on size, time and waiting."""

from dataclasses import dataclass, field, fields
from typing import Any


def _limit(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class Limits:
    """All limits of a server; the help of each field explains it."""

    max_items: int = _limit(2048, "Texts (or pairs) of one request.")
    max_characters: int = _limit(1_000_000, "Characters of one text.")
    max_body_bytes: int = _limit(8 * 2**20, "Bytes of one request's body.")
    max_batch_tokens: int | None = _limit(
        None,
        "Tokens of one forward; null: 1,024 on a CPU, 16,384 elsewhere. A longer text runs alone.",
    )
    max_wait: float = _limit(
        10.0, "Seconds; a request that would wait longer in the queue is refused (429)."
    )
    request_timeout: float = _limit(30.0, "Seconds from a request's arrival to its answer.")
    body_timeout: float = _limit(30.0, "Seconds in which a body must have arrived.")
    stall_timeout: float = _limit(
        30.0, "Seconds of one forward after which the server calls itself unhealthy."
    )
    grace: float = _limit(25.0, "Seconds that waiting requests get after SIGTERM.")
    truncate: bool = _limit(
        True,
        "Cut texts that are too long, and report it, where a request does not say; else they are "
        "refused.",
    )
    accept_token_ids: bool = _limit(
        False,
        "Take token ids instead of texts. They must be of the model's own tokenizer, and most "
        "clients that send ids have them from another.",
    )

    def __post_init__(self) -> None:
        for known in fields(Limits):
            value = getattr(self, known.name)
            if value is not None and not isinstance(value, bool) and value <= 0:
                raise ValueError(f"{known.name}: must be more than 0, got {value}")
