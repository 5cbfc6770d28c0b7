"""Limits of a server on size, time and waiting, and how long its batches will take."""

from dataclasses import dataclass, fields

from common.flags import option

# Weight of the newest batch in the running averages of seen and expected times.
NEWEST = 0.1


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


class LatencyEstimator:
    """Seconds of a batch as ``overhead + tokens * per_token``, scaled by recent observations.

    The line is fitted to two batches at start-up. A rate in tokens per second alone would mistake
    single short queries, which are all overhead, for a slow machine.

    Args:
        small: Tokens and seconds of a small batch.
        large: The same of a large one.
    """

    def __init__(self, small: tuple[int, float], large: tuple[int, float]) -> None:
        per_token = (large[1] - small[1]) / max(1, large[0] - small[0])
        self.per_token = max(per_token, large[1] / large[0] / 10)
        self.overhead = max(0.0, small[1] - small[0] * self.per_token)
        self._expected = self._seen = self.overhead + large[0] * self.per_token

    def seconds(self, tokens: int, batch: int) -> float:
        """Estimated seconds for ``tokens`` in batches of ``batch`` tokens."""
        batches = -(-tokens // batch)
        expected = batches * self.overhead + tokens * self.per_token
        return expected * self._seen / self._expected

    def note(self, tokens: int, seconds: float) -> None:
        """Update with a batch; the machine may have become busier."""
        expected = self.overhead + tokens * self.per_token
        # Sums, so that a long batch weighs more than a short one.
        self._expected += NEWEST * (expected - self._expected)
        self._seen += NEWEST * (seconds - self._seen)
