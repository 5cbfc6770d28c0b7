"""Emulated bf16 products, with which benchmarks/quality/quality.py runs on any processor."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "speed" / "emulated_bf16.py"
ULP = 2**-7  # of bf16, relative: sums in another order may be rounded the other way


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape).bfloat16().requires_grad_()


def with_gradients(product: str) -> list[Tensor]:
    """A product and the gradients of what goes in."""
    torch.manual_seed(0)
    if product == "linear":
        given = [drawn(3, 11, 16), drawn(9, 16), drawn(9)]
        found = torch.nn.functional.linear(*given)
    elif product == "mm":
        given = [drawn(7, 16), drawn(16, 5)]
        found = given[0] @ given[1]
    else:
        given = [drawn(4, 7, 16), drawn(4, 16, 5)]
        found = torch.bmm(*given)
    return [found, *torch.autograd.grad(found.sum(), given)]


class Kernels(TorchDispatchMode):
    """The types that products are computed in below this."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm):
            self.types.add(args[-1].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("product", ["linear", "mm", "bmm"])
def test_emulated_products_are_those_of_bf16(product: str) -> None:
    native = with_gradients(product)
    with Kernels() as kernels, runpy.run_path(str(SCRIPT))["EmulatedProducts"]():
        found = with_gradients(product)
    assert kernels.types == {torch.float32}
    for one, other in zip(found, native, strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.allclose(one.float(), other.float(), rtol=ULP, atol=ULP / 4)


def test_products_into_given_memory_and_those_of_other_types_are_right() -> None:
    left, right = torch.randn(2, 3, 8).bfloat16(), torch.randn(2, 8, 5).bfloat16()
    out = torch.empty(2, 3, 5, dtype=torch.bfloat16)
    exact = (left.double() @ right.double()).float()
    with runpy.run_path(str(SCRIPT))["EmulatedProducts"]():
        assert torch.bmm(left, right, out=out) is out
        full = left.double() @ right.double()
    assert torch.allclose(out.float(), exact, rtol=ULP, atol=0)
    assert full.dtype == torch.float64 and torch.equal(full.float(), exact)
