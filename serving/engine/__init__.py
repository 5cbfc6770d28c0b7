"""The inference engine: tokenization, queue, batching, models."""
