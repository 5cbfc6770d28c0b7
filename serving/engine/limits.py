"""Limits of a server on size, time and waiting."""

from dataclasses import dataclass, fields

from common.flags import option


@dataclass
class Limits:
    """Limits of the server."""

    max_items: int = option(2048, "Texts (or pairs) of one request.")
    max_characters: int = option(1_000_000, "Characters of one text.")
    max_body_bytes: int = option(8 * 2**20, "Bytes of one request's body.")
    max_batch_tokens: int | None = option(
        None,
        "Tokens of one forward; null: 1,024 on a CPU, 16,384 elsewhere. A longer text runs alone.",
    )
    max_wait: float = option(
        10.0, "Seconds; a request that would wait longer in the queue is refused (429)."
    )
    request_timeout: float = option(
        30.0, "Seconds from when a request has arrived, body included, to its answer."
    )
    body_timeout: float = option(30.0, "Seconds in which a body must have arrived.")
    stall_timeout: float = option(
        30.0, "Seconds of one forward after which the server reports itself unhealthy."
    )
    grace: float = option(25.0, "Seconds that waiting requests get after SIGTERM.")
    truncate: bool = option(
        True,
        "Truncate texts that are too long, and report it; false: refuse them. A request can "
        "override it.",
    )
    accept_token_ids: bool = option(
        False,
        "Accept token ids as input. They must come from the model's own tokenizer; most clients "
        "that send ids use another one.",
    )

    def __post_init__(self) -> None:
        for known in fields(Limits):
            value = getattr(self, known.name)
            if value is not None and not isinstance(value, bool) and value <= 0:
                raise ValueError(f"{known.name}: must be more than 0, got {value}")
