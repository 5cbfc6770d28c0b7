"""Keep the host ahead of a GPU: nothing here waits for what the device has still to do.

A batch is packed by its mask, so the host has to know the mask. Reading it from the device would
wait for all kernels that are queued there. Collators therefore hand over the mask twice, once as an
array that stays on the host; without it, the mask is read from the device.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

# Shapes: B texts, L tokens of the longest.

HostMask = NDArray[Any]
_known = threading.local()


@contextmanager
def known_mask(mask: HostMask | None) -> Iterator[None]:
    """Within this thread, ``mask`` [B, L] is the attention mask of the batch that is run."""
    _known.mask = mask
    try:
        yield
    finally:
        _known.mask = None


def mask_on_host(input_ids: Tensor, mask: Tensor | None) -> Tensor:
    """The attention mask [B, L] on the CPU, from ``known_mask`` or else from the device."""
    known = getattr(_known, "mask", None)
    if known is not None:
        assert known.shape == tuple(input_ids.shape), "host_mask is of another batch"
        return torch.from_numpy(known)
    return torch.ones(input_ids.shape, dtype=torch.long) if mask is None else mask.cpu()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy from the CPU; to a GPU from pinned memory, behind the kernels that are queued there."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def at_least_one_token(mask: Tensor) -> Tensor:
    """The mask [B, L], with the first token of texts that have none.

    Some tokenizers return no token for an empty text; it is then one token of padding.
    """
    first = torch.zeros_like(mask)
    first[:, 0] = 1
    return torch.where(mask.any(dim=1, keepdim=True), mask, first)
