"""Rows made ready to write: checked, completed, and in the order of their table's columns.

The input is an ORM instance or a plain mapping with the columns' names. The output is a `Row` with
its JSON encoded, so that later changes by the caller do not change what is written.
"""

from observatory_storage.rows.columnar import PART, prepare_all, prepare_many
from observatory_storage.rows.prepare import (
    prepare,
    prepare_data_point,
    prepare_event,
    prepare_log,
    prepare_metric,
    prepare_trace,
)
from observatory_storage.rows.prepare_span import (
    SUMS,
    prepare_llm_span,
    prepare_span,
    total_of,
    with_error_message,
)
from observatory_storage.rows.row import Row, as_mapping, remember_id
from observatory_storage.rows.rules import Rules
from observatory_storage.rows.span_columns import prepare_span_columns
from observatory_storage.rows.table_checks import CHECKS, UNKNOWN_SERVICE

__all__ = [
    "CHECKS",
    "PART",
    "SUMS",
    "UNKNOWN_SERVICE",
    "Row",
    "Rules",
    "as_mapping",
    "prepare",
    "prepare_all",
    "prepare_data_point",
    "prepare_event",
    "prepare_llm_span",
    "prepare_log",
    "prepare_many",
    "prepare_metric",
    "prepare_span",
    "prepare_span_columns",
    "prepare_trace",
    "remember_id",
    "total_of",
    "with_error_message",
]
