"""Rows made ready to write: checked, completed, and in the order of their table's columns.

What comes in is an ORM instance or a plain mapping with the columns' names; what goes out is a
`Row` whose values COPY takes as they are, with JSON already encoded, so that nothing that a caller
changes later changes what is written.
"""

from observatory_storage.rows.prepare import (
    Row,
    as_mapping,
    prepare_data_point,
    prepare_event,
    prepare_log,
    prepare_metric,
    prepare_span,
    prepare_trace,
    remember_id,
)
from observatory_storage.rows.tables import COLUMNS, UNKNOWN_SERVICE
from observatory_storage.rows.together import (
    PART,
    SpanColumns,
    prepare_all,
    prepare_many,
    prepare_span_columns,
)

__all__ = [
    "COLUMNS",
    "PART",
    "UNKNOWN_SERVICE",
    "Row",
    "SpanColumns",
    "as_mapping",
    "prepare_all",
    "prepare_data_point",
    "prepare_event",
    "prepare_log",
    "prepare_many",
    "prepare_metric",
    "prepare_span",
    "prepare_span_columns",
    "prepare_trace",
    "remember_id",
]
