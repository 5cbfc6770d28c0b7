"""Emulate bf16 matrix products on a CPU without bf16 instructions: for results, not for time.

    python benchmarks/speed/emulated_bf16.py scripts/train.py --config configs/reranker.json

A processor with such instructions multiplies bf16 numbers exactly, accumulates in fp32 and rounds
the sum to bf16. Here the same numbers are multiplied in fp32 and the product is rounded: only the
order of summation may differ. torch's own kernels take up to a hundred times as long.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm}


class EmulatedProducts(TorchDispatchMode):
    """Within it, products of bf16 matrices are computed in fp32 and rounded."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """One operation of torch."""
        kwargs = dict(kwargs or {})
        if func.overloadpacket not in PRODUCTS or args[-1].dtype != torch.bfloat16:
            return func(*args, **kwargs)
        out = kwargs.pop("out", None)
        full = (value.float() if isinstance(value, Tensor) else value for value in args)
        found = func.overloadpacket(*full, **kwargs).bfloat16()
        return found if out is None else out.copy_(found)


def lacks_bf16() -> bool:
    """Whether this machine could only emulate."""
    return not (torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported())


def main() -> None:
    """Run the script that the first argument names with the others as its own."""
    del sys.argv[0]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    if lacks_bf16():
        # So that Tandem does not fall back to fp32.
        torch.cpu._is_avx512_bf16_supported = lambda: True
        EmulatedProducts().__enter__()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
