"""Every architecture of the tests: what it computes without padding against the padded model."""

import sys
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel

from benchmarks.on_gpu.rows import Given, Rows, print_rows, row_or_failure
from benchmarks.speed.results import ROOT
from encoders.unpadding import unpad_inputs

sys.path.append(str(ROOT / "tests/helpers"))

LENGTHS = [9, 1, 30, 4, 40, 40]


def architectures(given: Given) -> Rows:
    """Largest differences, as shares of the largest value."""
    from unpadded import CONFIGS

    yield ["architecture", "precision", "of the states", "of the gradients"]
    for name in list(CONFIGS)[: 2 if given.tiny else None]:
        for bf16 in (False, True):
            yield row_or_failure(
                [name, "bf16" if bf16 else "fp32"], differences, name, bf16, given.device
            )


def differences(name: str, bf16: bool, device: str) -> list[Any]:
    """The largest differences of the states, and of the gradients of all weights."""
    padded, plain = (computed(name, bf16, device, unpadded) for unpadded in (False, True))
    found = []
    for one, other in zip(padded, plain, strict=True):
        found.append(f"{float((one - other).abs().max() / one.abs().max()):.1e}")
    return found


def computed(name: str, bf16: bool, device: str, unpadded: bool) -> tuple[Tensor, Tensor]:
    """States of the real tokens, and all gradients in one."""
    from unpadded import batch, make

    model: Any = make(name, AutoModel)
    model.to(device, torch.float32)
    inputs = {key: value.to(device) for key, value in batch(LENGTHS).items()}
    if unpadded and not unpad_inputs(model):
        raise ValueError("it cannot be run without padding")
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        states = model(**inputs).last_hidden_state
    states = states.double() * inputs["attention_mask"][..., None]
    weight = torch.cos(torch.arange(states.numel(), device=device).double()).view_as(states)
    (states * weight).sum().backward()
    grads = [p.grad.double().flatten() for p in model.parameters() if p.grad is not None]
    return states.detach(), torch.cat(grads)


if __name__ == "__main__":
    print_rows(architectures)
