"""The HTTP layer: bodies, errors, authentication, logs, metrics."""
