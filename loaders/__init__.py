"""Files and Hub datasets in, validated rows out, streamed to Arrow."""

from loaders.dataset import DataFiles, detect_shape, load_rows, load_rows_in_place
from loaders.options import ReadOptions, Shape
from loaders.shapes.positive_pairs import PositivePairs

__all__ = [
    "DataFiles",
    "PositivePairs",
    "ReadOptions",
    "Shape",
    "detect_shape",
    "load_rows",
    "load_rows_in_place",
]
