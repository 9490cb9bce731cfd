"""Log records with large values, and what is true of their frames after every transaction."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool, jsonb
from observatory_storage.config import PayloadMode
from observatory_storage.lifecycle.payload_check import check_payloads
from observatory_storage.models import LogFrame, LogRecord
from observatory_storage.payloads import OF_LOGS, unpack
from tests.payloads.framed import START, a_text
from tests.writers.helpers import span_id, trace_id

__all__ = [
    "DETAILS",
    "a_record",
    "check_logs",
    "framed_logs",
    "log_frame_count",
    "records",
    "stored_logs",
    "whole_logs",
    "write_logs",
]

DETAILS = "gen_ai.client.inference.operation.details"
_OF_WRITING = frozenset({"created_at", "payload_frame", "payload_digests"})


def a_record(
    trace: int | None, number: int, start: datetime = START, **given: Any
) -> dict[str, Any]:
    """An event with a prompt among its attributes; every other one has the answer as its body."""
    prompt = [
        {"role": "user", "parts": [{"type": "text", "content": a_text((trace or 0) * 100 + turn)}]}
        for turn in range(1, number + 1)
    ]
    body = {"role": "assistant", "content": f"secret-{trace} " + a_text(number)}
    return {
        "id": UUID(int=(trace or 0) * 1000 + number),
        "timestamp": start + timedelta(seconds=number),
        "trace_id": None if trace is None else trace_id(trace),
        "span_id": span_id(number),
        "service_name": "shop",
        "severity_number": 9 + 4 * (number % 3),
        "event_name": DETAILS if number % 3 else "cart.filled",
        "body": None if number % 2 else f"turn {number}",
        "body_json": body if number % 2 else None,
        "attributes": {
            "user.id": f"user-{trace}",
            "session.id": f"session-{trace}",
            "turn": number,
            "gen_ai.input.messages": prompt,
            "note": f"secret-{trace} " + a_text(number, 600),
        },
        **given,
    }


def records(
    traces: Iterable[int], count: int, start: datetime = START
) -> list[list[dict[str, Any]]]:
    """Flushes: the first records of all traces, then the second ones, and so on."""
    return [[a_record(trace, n, start) for trace in traces] for n in range(1, count + 1)]


def write_logs(
    pool: StoragePool, *flushes: Iterable[dict[str, Any]], payloads: PayloadMode = "compressed"
) -> None:
    """Write each flush in a transaction of its own."""
    for rows in flushes:
        CopyWriter(pool, payloads=payloads).write_logs(rows)


def log_frame_count(pool: StoragePool) -> int:
    with pool.engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(LogFrame)) or 0


def stored_logs(pool: StoragePool) -> list[dict[str, Any]]:
    """The records as SQL sees them."""
    table = LogRecord.__table__
    with pool.engine.connect() as connection:
        rows = connection.execute(sa.select(table).order_by(*table.primary_key))
        return [dict(row) for row in rows.mappings()]


def framed_logs(pool: StoragePool) -> int:
    """How many records have values in frames."""
    return sum(row["payload_frame"] is not None for row in stored_logs(pool))


def whole_logs(pool: StoragePool) -> list[dict[str, Any]]:
    """The records as a repository reads them, without times of writing, JSON as text."""
    with pool.unit_of_work() as uow:
        rows = [row.to_dict() for row in uow.logs.iterate(payload=True)]
    found = []
    for row in sorted(rows, key=lambda row: (row["timestamp"], row["id"])):
        assert row["payload_frame"] is None, row
        # As text, in which 1 and 1.0 differ.
        texts = {name: jsonb.canonical(row[name]) for name in ("attributes", "body_json")}
        found.append({name: row[name] for name in row.keys() - _OF_WRITING} | texts)
    return found


def check_logs(pool: StoragePool) -> int:
    """Check that frames have exactly the values that records refer to.

    Returns:
        How many values are in frames.
    """
    checked = check_payloads(pool)
    assert checked.problems == (), checked.problems
    for row in stored_logs(pool):
        assert (row["payload_frame"] is None) == (row["payload_digests"] is None)
    values = 0
    with pool.engine.connect() as connection:
        for frame in connection.execute(sa.select(LogFrame.__table__)):
            assert frame.start_time == OF_LOGS.key(*frame[:3]).start_time
            content = unpack(frame.data)
            assert content
            sizes = [len(text) for owned in content.values() for text in owned.values()]
            assert sum(sizes) == frame.value_bytes
            values += len(sizes)
    return values
