"""Prometheus metrics."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536)
REASONS = ("overloaded", "too_much_work")
ERRORS = ("exception", "out_of_memory", "not_finite")


class Metrics:
    """All metrics of one server, in their own registry."""

    def __init__(self) -> None:
        disable_created_metrics()  # no _created series
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, open files

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"tandem_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(f"tandem_{name}", about, registry=registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"tandem_{name}", about, labels, registry=registry, buckets=buckets)

        self.requests = counter("requests", "Requests by route and status", "route", "status")
        self.request_seconds = histogram(
            "request_seconds", "Seconds from a request's arrival to its answer", SECONDS, "route"
        )
        self.queued = histogram(
            "queue_seconds", "Seconds that a request waited in the queue", SECONDS
        )
        self.inference = histogram("inference_seconds", "Seconds to compute a batch", SECONDS)
        self.tokenizing = histogram("tokenize_seconds", "Seconds to tokenize a request", SECONDS)
        self.batch_items = histogram("batch_items", "Texts of a batch", ITEMS)
        self.batch_tokens = histogram("batch_tokens", "Tokens of a batch", TOKENS)
        self.input_tokens = counter("input_tokens", "Tokens computed")
        self.truncated = counter("truncated", "Truncated texts")
        self.rejected = counter(
            "rejected", "Requests rejected because they would wait or take too long", "reason"
        )
        self.dropped = counter(
            "dropped", "Queued requests dropped: the client disconnected, or timed out"
        )
        self.model_errors = counter("model_errors", "Failures of the model, by kind", "kind")
        self.queue_items = gauge("queue_items", "Texts in the queue")
        self.queue_tokens = gauge("queue_tokens", "Tokens in the queue")
        self.wait = gauge("estimated_wait_seconds", "Estimated seconds until the queue is empty")
        self.ready = gauge("ready", "1 if the server accepts requests")
        self.replicas = gauge("replicas", "Replicas that are ready")
        self.restarts = counter("replica_restarts", "Restarted replica processes")
        self.loading = gauge("model_load_seconds", "Seconds to load the models")
        for reason in REASONS:  # zeros from the start
            self.rejected.labels(reason)
        for kind in ERRORS:
            self.model_errors.labels(kind)

    def count_error(self, kind: str) -> None:
        """Count a failure of a model."""
        self.model_errors.labels(kind).inc()

    def note_batch(self, items: int, tokens: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_items.observe(items)
        self.batch_tokens.observe(tokens)
        self.inference.observe(seconds)
        self.input_tokens.inc(tokens)

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)
