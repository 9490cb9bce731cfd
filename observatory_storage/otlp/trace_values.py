"""What a trace has of its own, which OTLP has no place for: rows of `write_trace`.

An archive keeps it in a request without spans, in a field that receivers of OTLP ignore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.rows import prepare_trace
from observatory_storage.serialization import to_json
from observatory_storage.storing import Source
from observatory_storage.storing.store import store
from observatory_storage.tables import TRACES

__all__ = ["FIELD", "has_trace_values", "store_trace_values", "trace_values_request"]

FIELD: Final = "observatoryTraces"
_BEGINNING: Final = b'{"' + FIELD.encode() + b'":'
_TIMES: Final = ("start_time", "end_time")


def trace_values_request(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A request with the rows of some traces, which have the columns that writers give."""
    given = [
        {name: to_json(row[name]) for name in TRACES.columns if row[name] is not None}
        for row in rows
    ]
    return {FIELD: given, "resourceSpans": []}


def has_trace_values(payload: bytes) -> bool:
    """Whether a payload is such a request."""
    return payload.startswith(_BEGINNING)


def store_trace_values(pool: Source, payload: bytes) -> int:
    """Write the traces of such a request, as `write_trace` does. Returns their number.

    Raises:
        ValidationError: the request is damaged.
        StorageError: the database cannot be written to.
    """
    try:
        request = jsonb.loads(payload)
        rows = [prepare_trace(_restored(row)) for row in request[FIELD]]
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise ValidationError(FIELD, None, f"cannot be read: {error}") from error
    return store(pool, rows).committed


def _restored(row: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(row)
    for name in _TIMES:
        if name in values:
            values[name] = datetime.fromisoformat(values[name])
    if "total_cost_usd" in values:
        values["total_cost_usd"] = Decimal(values["total_cost_usd"])
    del values["id"]  # it is computed from the trace id
    return values
