"""Ingesting and exporting each signal, and what is stored meanwhile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import select

from observatory_storage import (
    StoragePool,
    export_logs,
    export_metrics,
    export_traces,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)
from observatory_storage.models import Base
from tests.otlp.otlp import meaning

INGEST: dict[str, Any] = {
    "traces": ingest_traces,
    "metrics": ingest_metrics,
    "logs": ingest_logs,
}
EXPORT: dict[str, Any] = {
    "traces": export_traces,
    "metrics": export_metrics,
    "logs": export_logs,
}


def all_rows(pool: StoragePool) -> dict[str, list[tuple[Any, ...]]]:
    """Every value of every row. jsonb is read as text, since 1 equals 1.0 in Python."""
    with pool.engine.connect() as connection:
        return {
            table.name: sorted(
                (tuple(repr(value) for value in row) for row in connection.execute(select(table))),
            )
            for table in Base.metadata.sorted_tables
        }


def clear(pool: StoragePool) -> None:
    with pool.engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            connection.execute(table.delete())


def comes_back(pool: StoragePool, signal: str, payload: Message | Mapping[str, Any]) -> None:
    clear(pool)
    expected = meaning(signal, [payload])
    first = INGEST[signal](pool, payload)
    assert first.rejected == []
    assert meaning(signal, EXPORT[signal](pool)) == expected
    before = all_rows(pool)
    again = INGEST[signal](pool, payload)
    assert (again.accepted, again.rejected) == (first.accepted, [])
    # Ingesting the exported requests changes nothing either.
    for request in list(EXPORT[signal](pool, batch_size=3)):
        INGEST[signal](pool, json.dumps(request))
    assert all_rows(pool) == before
