"""The least valid row of each table, and the functions that prepare rows.

A new table needs a row in `LEAST`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from observatory_storage import rows
from observatory_storage.models import Base
from observatory_storage.tables import TABLES

SPANS, EVENTS, POINTS = "trace_spans", "trace_events", "metric_data_points"
FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
TRACE = "5b8efff798038103d269b633813fc60c"
SPAN = "eee19b7ec3c1b174"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MAX_INT64 = 2**63 - 1

MODELS: dict[str, type[Base]] = {name: table.model for name, table in TABLES.items()}
LEAST: dict[str, dict[str, Any]] = {
    "traces": {"trace_id": TRACE, "start_time": NOON},
    "trace_spans": {"trace_id": TRACE, "span_id": SPAN, "name": "chat", "start_time": NOON},
    "trace_events": {
        "trace_id": TRACE,
        "span_id": SPAN,
        "span_start_time": NOON,
        "position": 0,
        "name": "token",
        "timestamp": NOON,
    },
    "metrics": {"name": "requests", "metric_type": "counter"},
    "metric_data_points": {"metric_id": TRACE, "timestamp": NOON},
    "logs": {"timestamp": NOON},
}
PREPARE: dict[str, Callable[[Any], rows.Row]] = {
    name: partial(rows.prepare, table) for name, table in TABLES.items()
}


def prepared(table: str, **given: Any) -> dict[str, Any]:
    """The least row of the table with what is given, prepared, by the columns' names."""
    return PREPARE[table](LEAST[table] | given).as_dict()
