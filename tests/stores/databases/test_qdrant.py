"""Qdrant's client: what it raises becomes our error."""

from contextlib import nullcontext

import httpx
import pytest

from stores.databases.qdrant import guarded
from stores.store import StoreUnavailable


def test_an_error_without_words_has_its_name() -> None:
    with (
        pytest.raises(StoreUnavailable, match="store: Qdrant: PoolTimeout"),
        guarded(nullcontext()),
    ):
        raise httpx.PoolTimeout("")
