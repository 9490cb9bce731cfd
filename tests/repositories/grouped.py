"""Rows by group and time, and the sums of their columns, in plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.repositories.samples import START, Row

MIDNIGHT = START - timedelta(hours=12)
COLUMNS = {
    "service_name": "service_name",
    "operation": "name",
    "kind": "kind",
    "status": "status",
    "provider": "provider",
    "model": "model",
    "environment": "environment",
    "user_id": "user_id",
    "session_id": "session_id",
    "gen_ai_operation": "operation",
    "response_model": "response_model",
    "agent_name": "agent_name",
    "tool_name": "tool_name",
    "finish_reason": "finish_reason",
    "error_type": "error_type",
    "prompt_name": "prompt_name",
}


def add(rows: Iterable[Row], column: str) -> Any:
    values = [row[column] for row in rows if row.get(column) is not None]
    return sum(values, Decimal()) if "cost" in column and values else sum(values) or _zero(values)


def _zero(values: list[Any]) -> int | None:
    return 0 if values else None


def by_group(
    rows: Iterable[Row], group_by: Sequence[str], width: timedelta | None
) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        bucket = None
        if width is not None:
            bucket = row["start_time"] - (row["start_time"] - MIDNIGHT) % width
        found.setdefault((bucket, *(row[COLUMNS[name]] for name in group_by)), []).append(row)
    return found
