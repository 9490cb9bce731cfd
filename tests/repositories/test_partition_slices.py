"""Lists that are read slice by slice of the partitions have the rows of those that are not."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    LogFilters,
    Not,
    OneOf,
    Page,
    Prefix,
    SessionFilters,
    SpanFilters,
    StoragePool,
    TraceFilters,
    UnitOfWork,
)
from observatory_storage.lifecycle.rollups import keep_rollups_before, refresh_rollups
from observatory_storage.lifecycle.run import Run
from observatory_storage.repositories.reading import page_rates, partition_slices
from tests.repositories.samples import (
    DAY,
    SECOND,
    Row,
    a_log,
    a_span,
    backwards,
    forwards,
    ids_of,
    keys,
    newest_records,
    newest_spans,
    newest_traces,
    span_key,
    statements,
)

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
# Midnights and moments beside them, two days ahead, and months ago.
DAYS = [*range(-12, 1), 2, -200]
MOMENTS = [timedelta(0), timedelta(microseconds=1), 12 * SECOND, DAY - timedelta(microseconds=1)]

TRACES: list[dict[str, Any]] = [
    {},
    {"user_id": "ann"},
    {"user_id": "rare"},
    {"user_id": "nobody"},
    {"user_id": ["rare", "late"]},
    {"user_id": Prefix("r")},
    {"session_id": "s1"},
    {"session_id": OneOf("s1", "s11")},
    {"model": "large"},
    {"service_name": "api"},
    {"service_name": "seldom"},
    {"status": "error"},
    {"service_name": "api", "status": "error"},
    {"service_name": "api", "operation": "chat"},
    {"provider": "local"},
    {"model": Not("small")},
    {"user_id": "ann", "model": Not("small")},
    {"attributes": {"k": 1}},
    {"attributes": {"k": 1}, "model": Not("small")},
    {"user_id": "ann", "start_time": TODAY - 9 * DAY, "end_time": TODAY - 2 * DAY},
    {"service_name": "api", "end_time": TODAY - 3 * DAY},
]
SPANS: list[dict[str, Any]] = [
    {},
    {"user_id": "ann"},
    {"user_id": "rare"},
    {"session_id": "s1"},
    {"model": "large", "start_time": TODAY - 9 * DAY},
    {"trace_id": Not(f"{1:032x}")},
]
SESSIONS: list[dict[str, Any]] = [
    {},
    {"user_id": "ann"},
    {"user_id": "rare"},
    {"user_id": "nobody"},
    {"service_name": "seldom"},
    {"start_time": TODAY - 9 * DAY, "end_time": TODAY - 2 * DAY},
]


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


@pytest.fixture(params=STATES, ids=lambda state: state.__name__.replace("_", " "))
def rows(request: pytest.FixtureRequest, pool: StoragePool) -> list[Row]:
    written: list[Row] = request.param(pool)
    return written


@pytest.fixture
def _slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first slice is one partition."""
    monkeypatch.setattr(partition_slices, "_FEW", 2)
    monkeypatch.setattr(partition_slices, "_FIRST", 1)
    monkeypatch.setattr(partition_slices, "_GROWTH", 2)


def walked(page_at: Callable[..., Page[Any]], limits: tuple[int, ...]) -> list[Any]:
    """All rows of a list: the same ones forwards, backwards and at once."""
    pages = forwards(partial(page_at, limit=limits[0]))
    assert [list(p) for p in backwards(partial(page_at, limit=limits[0]), pages[-1])] == [
        list(page) for page in pages
    ]
    found = [row for page in pages for row in page]
    for limit in limits[1:]:
        assert list(page_at(limit=limit)) == found[:limit]
    return found


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


@pytest.mark.usefixtures("_slices")
def test_traces_are_those_of_the_spans(pool: StoragePool, rows: list[Row]) -> None:
    with pool.unit_of_work() as uow:
        for given in TRACES:
            filters = TraceFilters(**given)

            def page_at(given: dict[str, Any] = given, **asked: Any) -> Page[str]:
                page = uow.traces.list(TraceFilters(**given, limit=asked.pop("limit")), **asked)
                return Page(tuple(t.trace_id for t in page), page.next, page.previous)

            assert walked(page_at, (9, 100)) == newest_traces(rows, filters), given


@pytest.mark.usefixtures("_slices")
def test_spans_are_those_that_match(pool: StoragePool, rows: list[Row]) -> None:
    with pool.unit_of_work() as uow:
        for given in SPANS:

            def page_at(given: dict[str, Any] = given, **asked: Any) -> Page[Any]:
                page = uow.traces.list_spans(
                    SpanFilters(**given, limit=asked.pop("limit")), **asked
                )
                return Page(tuple(keys(page)), page.next, page.previous)

            expected = newest_spans(rows, SpanFilters(**given))
            assert walked(page_at, (30, 300)) == expected, given
            oldest = uow.traces.iterate_spans(SpanFilters(**given), 40, oldest_first=True)
            assert keys(oldest) == expected[::-1]


@pytest.mark.usefixtures("_slices")
def test_sessions_have_the_totals_of_all_their_spans(
    pool: StoragePool, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pool.unit_of_work() as uow:
        found = {}
        for number, given in enumerate(SESSIONS):

            def page_at(given: dict[str, Any] = given, **asked: Any) -> Page[Any]:
                return uow.traces.list_sessions(
                    SessionFilters(**given, limit=asked.pop("limit")), **asked
                )

            found[number] = walked(page_at, (5, 3, 50))
            listed = [(one.last_start_time, one.session_id) for one in found[number]]
            assert listed == last_starts(rows, SessionFilters(**given)), given
            for one in found[number][:3]:
                if not given:
                    assert uow.traces.get_session(one.session_id) == one
        monkeypatch.setattr(partition_slices, "_FEW", 1000)
        for number, given in enumerate(SESSIONS):
            assert list(uow.traces.list_sessions(SessionFilters(**given))) == found[number]


@pytest.mark.usefixtures("_slices")
def test_services_and_operations_are_those_of_the_spans(pool: StoragePool, rows: list[Row]) -> None:
    with pool.unit_of_work() as uow:
        services = sorted({row["service_name"] for row in rows})
        assert uow.traces.services() == services
        for service in [*services, "nobody"]:
            own = {
                (row["name"], row.get("kind", "internal"))
                for row in rows
                if row["service_name"] == service
            }
            assert [(o.name, o.kind) for o in uow.traces.operations(service)] == sorted(own)


@pytest.mark.usefixtures("_slices")
def test_logs_and_points_come_in_their_order(pool: StoragePool) -> None:
    rng = random.Random(3)
    writer = CopyWriter(pool)
    moments = [TODAY + rng.choice(DAYS) * DAY + rng.choice(MOMENTS) for _ in range(80)]
    services = [rng.choice(["api", "worker"]) for _ in moments]
    logs = [
        a_log(number, moment, service_name=services[number], body="a word")
        for number, moment in enumerate(moments)
    ]
    writer.write_logs(logs)
    writer.write_metrics([{"name": "m", "metric_type": "gauge", "service_name": "api"}])
    with pool.unit_of_work() as uow:
        (metric,) = uow.metrics.list()
        assert uow.metrics.get_latest_data_point(metric.id) is None
        times = sorted(set(moments))
        writer.write_data_points(
            {"metric_id": metric.id, "timestamp": moment, "value": number}
            for number, moment in enumerate(times)
        )

        for given in ({}, {"service_name": "api"}, {"text": "word"}, {"end_time": TODAY}):

            def page_at(given: Any = given, **asked: Any) -> Page[Any]:
                page = uow.logs.list(LogFilters(**given, limit=asked.pop("limit")), **asked)
                return Page(tuple(ids_of(page)), page.next, page.previous)

            wanted = (
                row
                for row in logs
                if row["service_name"] == given.get("service_name", row["service_name"])
                and ("end_time" not in given or row["timestamp"] < TODAY)
            )
            assert walked(page_at, (11, 100)) == newest_records(wanted)

        def points(**asked: Any) -> Page[Any]:
            page = uow.metrics.get_data_points(metric.id, **asked)
            return Page(tuple(point.value for point in page), page.next, page.previous)

        assert walked(points, (7, 100)) == list(range(len(times)))
        latest = uow.metrics.get_latest_data_point(metric.id)
        assert latest is not None
        assert latest.timestamp == times[-1]


@pytest.mark.usefixtures("_slices")
def test_partitions_that_appear_meanwhile_are_read(pool: StoragePool) -> None:
    """What is known of partitions decides how a list is read, not what it has."""
    writer = CopyWriter(pool)
    writer.write_spans([a_span(n, n, TODAY - n * DAY, user_id="ann") for n in range(1, 7)])
    with pool.unit_of_work() as uow:
        assert len(uow.traces.list(user_id="ann")) == 6
        days = (-40, -20, 3, 20)
        writer.write_spans([a_span(100 + n, n + 100, TODAY + n * DAY, user_id="ann") for n in days])
        traces, spans = uow.traces.list(user_id="ann"), uow.traces.list_spans(user_id="ann")
        for starts in ([t.start_time for t in traces], [s.start_time for s in spans]):
            assert len(starts) == 10
            assert all(one > other for one, other in pairwise(starts))


def test_a_page_does_not_depend_on_the_pages_before(pool: StoragePool) -> None:
    """Those of users with many, few and no traces, each asked for after each other one."""
    rng = random.Random(5)
    rows = []
    for trace in range(1, 241):
        is_dense = trace % 6 > 0
        start = TODAY - rng.randrange(32) * DAY + rng.choice(MOMENTS)
        for number in range(rng.randrange(1, 4) if is_dense else 6):
            later = timedelta(0) if is_dense else rng.randrange(4) * number * DAY
            rows.append(
                a_span(
                    trace,
                    trace * 10 + number,
                    start + later,
                    end_time=start + later + SECOND,
                    parent_span_id=span_key(trace * 10) if number else None,
                    user_id="dense" if is_dense else "sparse",
                    session_id=f"s{trace // 2}" if is_dense else f"long{trace % 18}",
                )
            )
    CopyWriter(pool).write_spans(rows)
    refresh(pool)
    users: list[str | None] = ["dense", "sparse", "nobody"]
    with pool.unit_of_work() as uow:
        for limit, other in ((20, 60), (60, 20)):
            for user in users:
                filters = TraceFilters(user_id=user, limit=limit)
                expected = newest_traces(rows, filters)[:limit]
                for before in users:
                    uow.traces.list(user_id=before, limit=other)
                    assert [t.trace_id for t in uow.traces.list(filters)] == expected
            for given in (None, *users):
                wanted = SessionFilters(user_id=given, limit=limit)
                page_rates.forget_rates(pool.engine)
                alone = uow.traces.list_sessions(wanted)
                assert [(one.last_start_time, one.session_id) for one in alone] == last_starts(
                    rows, wanted
                )[:limit]
                for before in (None, *users):
                    uow.traces.list_sessions(user_id=before, limit=other)
                    assert uow.traces.list_sessions(wanted) == alone


@pytest.mark.usefixtures("_slices")
def test_sessions_of_the_same_moment_are_not_mixed_up(pool: StoragePool) -> None:
    """More of them end at one moment than there are spans in the first statement."""
    rows = [a_span(n, n, TODAY, session_id=f"s{n:02}") for n in range(1, 61)]
    rows += [a_span(100 + n, 100 + n, TODAY - n * DAY, session_id=f"old{n}") for n in range(1, 6)]
    CopyWriter(pool).write_spans(rows)
    with pool.unit_of_work() as uow:
        for _ in range(2):
            found = [one.session_id for one in uow.traces.list_sessions(limit=2)]
            assert found == ["s60", "s59"]


def test_the_catalog_is_asked_once_a_minute(pool: StoragePool) -> None:
    def asked(ask: Callable[[UnitOfWork], object]) -> int:
        with pool.unit_of_work() as uow, statements(pool.engine, of_catalog=True) as seen:
            ask(uow)
        return sum("pg_inherits" in statement for statement in seen)

    assert asked(lambda uow: uow.traces.list_spans()) == 1
    assert asked(lambda uow: uow.traces.list_spans(user_id="ann")) == 0
    partition_slices.forget_partitions(pool.engine)
    assert asked(lambda uow: uow.traces.list_spans()) == 1
