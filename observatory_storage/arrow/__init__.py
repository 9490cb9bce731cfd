"""Rows and results as Apache Arrow: their columns, and their conversion (extra ``arrow``)."""

from observatory_storage.arrow.arrow_results import ArrowData, ResultList
from observatory_storage.arrow.copied_rows import copied_columns, table_of_copied
from observatory_storage.arrow.shapes import (
    Shape,
    arrow_module,
    shape_of_model,
    shape_of_results,
)

__all__ = [
    "ArrowData",
    "ResultList",
    "Shape",
    "arrow_module",
    "copied_columns",
    "shape_of_model",
    "shape_of_results",
    "table_of_copied",
]
