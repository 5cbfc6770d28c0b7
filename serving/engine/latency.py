"""Estimate how long a model takes, to express the length of a queue in seconds."""

# Weight of the newest batch in the running averages of seen and expected times.
NEWEST = 0.1


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
