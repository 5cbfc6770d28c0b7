"""Read files and data sets of the Hub into validated rows, streamed to Arrow."""

from loaders.dataset import DataFiles, detect_shape, load_rows, load_rows_in_place
from loaders.options import ReadOptions
from loaders.shapes.positive_pairs import PositivePairs
from loaders.shapes.rows import Shape

__all__ = [
    "DataFiles",
    "PositivePairs",
    "ReadOptions",
    "Shape",
    "detect_shape",
    "load_rows",
    "load_rows_in_place",
]
