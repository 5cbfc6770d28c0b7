"""Integer types: bits as sentence-transformers packs them, 8 bits as a naive loop counts them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.util import quantize_embeddings

from common.quantization import quantize


def vectors(dimensions: int = 48, length: float | None = 1.0, count: int = 60) -> np.ndarray:
    drawn = np.random.default_rng(5).standard_normal((count, dimensions)).astype(np.float32)
    drawn[0, :4] = 0  # neither above nor below
    return drawn if length is None else drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("dimensions", [8, 48, 50, 5])
@pytest.mark.parametrize("output_dtype", ["binary", "ubinary"])
def test_bits_are_those_of_sentence_transformers(dimensions: int, output_dtype: Any) -> None:
    given = vectors(dimensions)
    wanted = quantize_embeddings(given, output_dtype)
    found = quantize(given, output_dtype)
    assert isinstance(wanted, np.ndarray)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(quantize(given[3], output_dtype), wanted[3])


def naive(vector: list[float]) -> list[int]:
    """At unit length, by 127 · √H / 4."""
    length = math.sqrt(sum(x * x for x in vector))
    scale = 127 * math.sqrt(len(vector)) / 4
    return [max(-127, min(127, round(x / length * scale))) for x in vector]


@pytest.mark.parametrize("length", [1.0, None])
def test_8_bits_are_those_of_a_naive_loop(length: float | None) -> None:
    given = vectors(length=length)
    given[1, 0] = 9 * given[1].std()  # clipped
    wanted = [naive([float(x) for x in vector]) for vector in given]
    found, unsigned = quantize(given, "int8"), quantize(given, "uint8")
    assert found.dtype == np.int8
    assert unsigned.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(unsigned, np.array(wanted) + 128)
    assert (found[1, 0], unsigned[1, 0]) == (127, 255)
    np.testing.assert_array_equal(quantize(given[3], "int8"), wanted[3])


@pytest.mark.parametrize("dimensions", [48, 384, 1024])
def test_8_bits_keep_the_cosine(dimensions: int) -> None:
    given = vectors(dimensions)
    small = quantize(given, "int8").astype(np.float32)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    np.testing.assert_allclose(small @ small.T, given @ given.T, atol=0.02)


def test_a_vector_of_zeros_and_no_vectors_at_all() -> None:
    zeros = np.zeros((1, 16), dtype=np.float32)
    assert quantize(zeros, "int8").tolist() == [[0] * 16]
    assert quantize(zeros, "uint8").tolist() == [[128] * 16]
    assert quantize(zeros, "binary").tolist() == [[-128] * 2]
    assert quantize(np.zeros((0, 16)), "int8").shape == (0, 16)
    assert quantize(np.zeros((0, 16)), "ubinary").shape == (0, 2)


def test_tensors_and_lists_are_taken() -> None:
    given = vectors()
    for same in (torch.from_numpy(given), given.tolist(), given.astype(np.float64)):
        np.testing.assert_array_equal(quantize(same, "int8"), quantize(given, "int8"))
        np.testing.assert_array_equal(quantize(same, "float"), given)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="output_dtype: 'int4' is not one of float, int8"):
        quantize(vectors(), "int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize([[1.0, math.nan]], "binary")
