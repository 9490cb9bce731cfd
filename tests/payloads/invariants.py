"""What is true of payload frames after every transaction, and rows with their whole values."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from observatory_storage import jsonb
from observatory_storage.models import PayloadFrame, TraceEvent, TraceSpan
from observatory_storage.payloads import (
    FrameKey,
    Owner,
    digest_of,
    hour_of,
    owner_of,
    preview_of,
    put_back,
    unpack,
)
from observatory_storage.pool import StoragePool

__all__ = ["check_payloads", "framed_rows", "whole_rows"]

_TIMES_OF_WRITING = frozenset({"created_at", "updated_at", "unsettled_since"})
_PAYLOAD_COLUMNS = frozenset({"payload_frame", "payload_digests"})


def check_payloads(pool: StoragePool) -> int:
    """Check that frames have exactly the values that rows refer to, by key and digest.

    Returns:
        How many values are in frames.
    """
    frames = _frames(pool)
    referred: dict[FrameKey, dict[Owner, dict[str, str]]] = {key: {} for key in frames}
    for owner, key, row in _owned(pool):
        digests = row["payload_digests"]
        assert (key is None) == (digests is None), row
        if key is None:
            continue
        assert digests, row
        assert key in frames, f"{key} is missing: {row}"
        referred[key][owner] = digests
        for name in digests:
            assert row["attributes"][name] == preview_of(frames[key][owner][name])
    for key, frame in frames.items():
        assert frame, f"{key} is empty"
        found = {
            owner: {name: digest_of(value) for name, value in values.items()}
            for owner, values in frame.items()
        }
        assert found == referred[key]
    return sum(len(values) for frame in frames.values() for values in frame.values())


def framed_rows(pool: StoragePool) -> int:
    """How many spans and events have values in frames."""
    return sum(key is not None for _, key, _ in _owned(pool))


def whole_rows(pool: StoragePool) -> dict[str, list[Any]]:
    """The spans, events and traces with their whole values, without times of writing."""
    frames = _frames(pool)
    found: dict[str, list[Any]] = {"trace_spans": [], "trace_events": []}
    for owner, key, row in _owned(pool):
        if key is not None:
            row["attributes"] = put_back(row["attributes"], frames[key][owner])
        name = "trace_spans" if owner.position is None else "trace_events"
        # As text, in which 1 and 1.0 differ.
        row["attributes"] = jsonb.canonical(row["attributes"])
        kept = row.keys() - _TIMES_OF_WRITING - _PAYLOAD_COLUMNS
        found[name].append((row["trace_id"], owner, {name: row[name] for name in kept}))
    for rows in found.values():
        rows.sort(key=lambda each: (each[0], each[1]))
    with pool.engine.connect() as connection:
        traces = connection.execute(sa.text("SELECT * FROM traces ORDER BY id")).mappings()
        found["traces"] = [
            {name: row[name] for name in row if name not in _TIMES_OF_WRITING} for row in traces
        ]
    return found


def _frames(pool: StoragePool) -> dict[FrameKey, Any]:
    table = PayloadFrame.__table__
    with pool.engine.connect() as connection:
        rows = connection.execute(sa.select(table)).all()
    frames = {}
    for row in rows:
        key = FrameKey(row.trace_id, row.start_time, row.id)
        assert key.start_time == hour_of(key.start_time)
        frames[key] = unpack(row.data)
        sizes = [len(value) for values in frames[key].values() for value in values.values()]
        assert sum(sizes) == row.value_bytes
    return frames


def _owned(pool: StoragePool) -> list[tuple[Owner, FrameKey | None, dict[str, Any]]]:
    found = []
    for model, start, start_ns in (
        (TraceSpan, "start_time", "start_ns"),
        (TraceEvent, "span_start_time", "span_start_ns"),
    ):
        with pool.engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(sa.select(model.__table__)).mappings()]
        for row in rows:
            owner = owner_of(row["span_id"], row[start], row[start_ns], row.get("position"))
            frame = row["payload_frame"]
            key = None if frame is None else FrameKey(row["trace_id"], hour_of(row[start]), frame)
            found.append((owner, key, row))
    return found
