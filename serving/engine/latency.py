"""How long a model takes, so that a queue can be measured in seconds."""

# Weight of the newest batch against those before it, in what was seen against what was expected.
NEWEST = 0.1


class LatencyEstimator:
    """Seconds of a batch as ``overhead + tokens * per_token``, and what has become of it since.

    Fitted to two batches at start-up: a rate in tokens per second alone would take single short
    queries, which are all overhead, for a slow machine.

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
        """What ``tokens`` in batches of ``batch`` will take."""
        batches = -(-tokens // batch)
        expected = batches * self.overhead + tokens * self.per_token
        return expected * self._seen / self._expected

    def note(self, tokens: int, seconds: float) -> None:
        """Take a batch into account; a machine may have got busier."""
        expected = self.overhead + tokens * self.per_token
        # Sums, so that a long batch weighs more than a short one.
        self._expected += NEWEST * (expected - self._expected)
        self._seen += NEWEST * (seconds - self._seen)
