"""Spans of many partitions in databases of several states, and what their lists have."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from observatory_storage import CopyWriter, SessionFilters, StoragePool
from observatory_storage.lifecycle.rollups import keep_rollups_before, refresh_rollups
from observatory_storage.lifecycle.run import Run
from tests.repositories.samples import DAY, SECOND, Row, a_span, span_key

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
# Midnights and moments beside them, two days ahead, and months ago.
DAYS = [*range(-12, 1), 2, -200]
MOMENTS = [timedelta(0), timedelta(microseconds=1), 12 * SECOND, DAY - timedelta(microseconds=1)]


def some_spans(seed: int, traces: range) -> list[Row]:
    """Traces of one to four spans, of which some begin days before their other spans."""
    rng = random.Random(seed)
    rows = []
    for trace in traces:
        begins = TODAY + rng.choice(DAYS) * DAY + rng.choice(MOMENTS)
        for number in range(rng.randrange(1, 5)):
            later = rng.choice([0, 0, 0, 1, 4]) * DAY + rng.choice([0, 0, 1]) * SECOND
            start = begins + (later if number else timedelta(0))
            row = a_span(
                trace,
                trace * 10 + number,
                start,
                start_ns=rng.choice([0, 0, 7]),
                name=rng.choice(["chat", "plan"]),
                kind=rng.choice(["internal", "client"]),
                service_name=rng.choice(["api", "api", "worker"]),
                status=rng.choice(["ok", "error", "unset"]),
                provider=rng.choice([None, "openai", "local"]),
                model=rng.choice([None, "large", "small"]),
                user_id=rng.choice([None, "ann", "bob"]),
                session_id=rng.choice([None, *(f"s{n}" for n in range(12))]),
                attributes=rng.choice([{}, {"k": 1}]),
            )
            row["end_time"] = start + SECOND
            if number:
                row["parent_span_id"] = span_key(trace * 10)
            if trace % 20 == 0:
                row |= {"user_id": "rare", "service_name": "seldom", "name": f"once {number}"}
            rows.append(row)
    return rows


def refresh(pool: StoragePool) -> None:
    run = Run(pool, now=TODAY + 4 * DAY)
    assert refresh_rollups(run, grace=timedelta(0)).is_complete


def without_rollups(pool: StoragePool) -> list[Row]:
    rows = some_spans(1, range(1, 61))
    CopyWriter(pool).write_spans(rows)
    return rows


def rolled_up(pool: StoragePool) -> list[Row]:
    rows = without_rollups(pool)
    refresh(pool)
    return rows


def with_late_spans(pool: StoragePool) -> list[Row]:
    """Some days are marked as changed. A user, a service and operations are new there."""
    rows = rolled_up(pool)
    late = some_spans(2, range(61, 70))
    for row in late:
        row |= {"user_id": "late", "service_name": "late", "session_id": "s11"}
    start = rows[0]["start_time"] + DAY
    one = {"start_time": start, "end_time": start, "user_id": "rare", "session_id": "s1"}
    late.append({**rows[0], "span_id": span_key(19), "parent_span_id": rows[0]["span_id"], **one})
    CopyWriter(pool).write_spans(late)
    return [*rows, *late]


def with_dropped_spans(pool: StoragePool) -> list[Row]:
    """Rollups stay when the oldest traces go, of which some had names of their own."""
    rows = rolled_up(pool)
    moment = TODAY - 5 * DAY
    last: dict[str, datetime] = defaultdict(lambda: datetime.min.replace(tzinfo=UTC))
    for row in rows:
        last[row["trace_id"]] = max(last[row["trace_id"]], row["start_time"])
    gone = [key for key in last if last[key] < moment]
    with pool.engine.begin() as connection:
        assert keep_rollups_before(connection, moment)
        for table, column in (("trace_spans", "trace_id"), ("traces", "id")):
            statement = sa.text(f"DELETE FROM {table} WHERE {column} = ANY(CAST(:keys AS uuid[]))")
            connection.execute(statement, {"keys": gone})
    assert gone
    return [row for row in rows if row["trace_id"] not in gone]


STATES = (without_rollups, rolled_up, with_late_spans, with_dropped_spans)


def last_starts(rows: list[Row], filters: SessionFilters) -> list[tuple[datetime, str]]:
    """The sessions that match and when they were last active, in the order of the list."""
    spans = defaultdict(list)
    for row in rows:
        low, high = filters.start_time, filters.end_time
        in_range = (low is None or row["start_time"] >= low) and (
            high is None or row["start_time"] < high
        )
        if row.get("session_id") is not None and in_range:
            spans[row["session_id"]].append(row)
    wanted = {"user_id": filters.user_id, "service_name": filters.service_name}
    given = {name: value for name, value in wanted.items() if value is not None}
    return sorted(
        (
            (max(row["start_time"] for row in own), session)
            for session, own in spans.items()
            if any(all(row.get(k) == v for k, v in given.items()) for row in own)
        ),
        reverse=True,
    )
