"""Lists that are read slice by slice of the partitions have the rows of those that are not."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

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
)
from observatory_storage.repositories.reading import partition_slices
from tests.repositories.partition_states import DAYS, MOMENTS, STATES, TODAY, last_starts
from tests.repositories.samples import (
    DAY,
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
)

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


@pytest.fixture(params=STATES, ids=lambda state: state.__name__.replace("_", " "))
def rows(request: pytest.FixtureRequest, pool: StoragePool) -> list[Row]:
    written: list[Row] = request.param(pool)
    return written


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
def test_sessions_of_the_same_moment_are_not_mixed_up(pool: StoragePool) -> None:
    """More of them end at one moment than there are spans in the first statement."""
    rows = [a_span(n, n, TODAY, session_id=f"s{n:02}") for n in range(1, 61)]
    rows += [a_span(100 + n, 100 + n, TODAY - n * DAY, session_id=f"old{n}") for n in range(1, 6)]
    CopyWriter(pool).write_spans(rows)
    with pool.unit_of_work() as uow:
        for _ in range(2):
            found = [one.session_id for one in uow.traces.list_sessions(limit=2)]
            assert found == ["s60", "s59"]
