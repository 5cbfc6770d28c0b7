"""Metrics that have no value on some data, as tables, page and figures tell of them."""

from collections.abc import Mapping
from typing import Any

Metrics = Mapping[str, Mapping[str, Any]]  # as in ``evaluation.json``


def by_reason(metrics: Metrics) -> dict[str, str]:
    """Each reason why something has no value, with the names of the metrics.

    >>> by_reason({"auc": {"undefined": "one class"}, "accuracy": {"undefined": "one class"}})
    {'one class': 'auc, accuracy'}
    """
    found: dict[str, str] = {}
    for name, values in metrics.items():
        if reason := values.get("undefined"):
            found[reason] = f"{found[reason]}, {name}" if reason in found else name
    return found


def defined(metrics: Metrics) -> dict[str, Mapping[str, Any]]:
    """The metrics of which everything has a value."""
    return {name: values for name, values in metrics.items() if "undefined" not in values}
