"""Smaller vectors: 8 bits or one bit for each dimension instead of 32."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

# Shapes: N texts, H dimensions of an embedding.

OutputDtype = Literal["float", "int8", "uint8", "binary", "ubinary"]

# How many times the root mean square of a vector the largest integer stands for.
RANGE = 4


def quantize(vectors: ArrayLike, output_dtype: OutputDtype) -> np.ndarray:
    """Embeddings in fewer bits, each vector by itself: no calibration data is needed.

    ``int8`` multiplies a vector so that 127 stands for four times the root mean square of its
    entries (at unit length: by 127 · √H / 4), rounds, and clips at ±127. The length of the vector
    is lost, its direction stays: cosines of the integers are close to those of the vectors.
    ``uint8`` is ``int8`` + 128. ``ubinary`` is one bit for each dimension, 1 where the entry is
    above 0, packed into bytes from the highest bit on; ``binary`` is ``ubinary`` - 128. Compare
    these by the number of bits that differ (the Hamming distance).

    Args:
        vectors: [N, H], or one vector [H]; on the CPU.
        output_dtype: What comes back.

    Returns:
        float32, int8 or uint8 of the same shape; for ``binary`` (int8) and ``ubinary`` (uint8)
        [N, ⌈H / 8⌉], where the last bits are 0 if H is no multiple of 8.

    Raises:
        ValueError: There is no such type, or a number is NaN or infinite.
    """
    if output_dtype not in get_args(OutputDtype):
        known = ", ".join(get_args(OutputDtype))
        raise ValueError(f"output_dtype: {output_dtype!r} is not one of {known}")
    floats = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(floats).all():
        raise ValueError("vectors: NaN or infinity cannot be quantized; look for where it arises")
    if output_dtype == "float":
        return floats
    # A byte with its highest bit flipped is, read as a signed number, smaller by 128.
    if output_dtype in ("binary", "ubinary"):
        packed = np.packbits(floats > 0, axis=-1)
        return packed if output_dtype == "ubinary" else (packed ^ 128).view(np.int8)
    root_mean_square = np.sqrt(np.mean(floats**2, axis=-1, keepdims=True))
    scaled = floats / np.maximum(RANGE * root_mean_square, np.finfo(np.float32).tiny) * 127
    integers: np.ndarray = np.rint(scaled).clip(-127, 127).astype(np.int8)
    return integers if output_dtype == "int8" else integers.view(np.uint8) ^ 128
