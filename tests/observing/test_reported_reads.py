"""What repositories, erasure and maintenance tell hooks."""

from __future__ import annotations

import inspect

import pytest

from observatory_storage.errors import NotFound, ValidationError
from observatory_storage.lifecycle.steps import STEPS
from observatory_storage.pool import StoragePool
from observatory_storage.repositories import LogRepository, MetricRepository, TraceRepository
from observatory_storage.writers import LogWriter, TraceWriter
from tests.observing.conftest import Seen
from tests.writers.helpers import a_log, a_span, trace_id


@pytest.fixture
def filled(pool: StoragePool) -> StoragePool:
    with TraceWriter(pool) as traces, LogWriter(pool) as logs:
        traces.write_spans([a_span(trace, user_id="ann") for trace in (1, 2, 3)])
        logs.write_logs([a_log(number) for number in range(5)])
    return pool


def test_a_call_of_a_repository_is_reported(filled: StoragePool, seen: Seen) -> None:
    with filled.unit_of_work() as uow:
        assert len(uow.traces.list()) == 3
    query = seen.one("query")
    assert (query.table, query.method, query.rows, query.outcome) == ("traces", "list", 3, "ok")
    assert query.seconds > 0


def test_rows_of_a_query_are_what_it_returns(filled: StoragePool, seen: Seen) -> None:
    with filled.unit_of_work() as uow:
        uow.traces.get_by_trace_id(trace_id(1))
        uow.traces.get_stats()
        uow.traces.pinned()
        uow.logs.count_by_level()
        uow.metrics.list()
    rows = [(one.table, one.method, one.rows) for one in seen.of("query")]
    assert rows == [
        ("traces", "get_by_trace_id", 1),
        ("traces", "get_stats", 1),
        ("traces", "pinned", 0),
        ("logs", "count_by_level", 1),
        ("metrics", "list", 0),
    ]


def test_a_method_that_calls_another_one_is_one_query(filled: StoragePool, seen: Seen) -> None:
    with filled.unit_of_work() as uow, pytest.raises(NotFound):
        uow.metrics.query_time_series(
            metric_id="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            start_time=a_span()["start_time"],
            end_time=a_span()["end_time"],
        )
    assert [(one.method, one.outcome) for one in seen.of("query")] == [
        ("query_time_series", "NotFound")
    ]


def test_an_error_of_a_query_is_its_outcome(filled: StoragePool, seen: Seen) -> None:
    with filled.unit_of_work() as uow, pytest.raises(ValidationError):
        uow.logs.list(limit=-1)
    assert (seen.one("query").outcome, seen.one("query").rows) == ("ValidationError", 0)


def test_an_iterator_is_reported_at_its_end(filled: StoragePool, seen: Seen) -> None:
    with filled.unit_of_work() as uow:
        rows = uow.logs.iterate()
        next(rows)
        assert seen.of("query") == []
        assert len(list(rows)) == 4
    query = seen.one("query")
    assert (query.table, query.method, query.rows, query.outcome) == ("logs", "iterate", 5, "ok")


def test_an_iterator_that_is_left_early_is_reported_when_it_is_closed(
    filled: StoragePool, seen: Seen
) -> None:
    with filled.unit_of_work() as uow:
        for _ in uow.logs.iterate():
            break
    assert (seen.one("query").rows, seen.one("query").outcome) == (1, "ok")


def test_an_iterator_whose_transaction_has_ended_is_reported_with_its_error(
    filled: StoragePool, seen: Seen
) -> None:
    with filled.unit_of_work() as uow:
        rows = uow.traces.iterate(batch_size=1)
        next(rows)
    with pytest.raises(Exception, match="ended"):
        list(rows)
    assert (seen.one("query").rows, seen.one("query").outcome) == (1, "StorageError")


def test_queries_in_the_loop_over_an_iterator_are_reported(filled: StoragePool, seen: Seen) -> None:
    with filled.unit_of_work() as uow:
        for trace in uow.traces.iterate():
            uow.traces.get_spans(trace)
    methods = [one.method for one in seen.of("query")]
    assert methods == ["get_spans"] * 3 + ["iterate"]


def test_erasure_is_reported_with_the_rows_that_it_deleted(filled: StoragePool, seen: Seen) -> None:
    with filled.unit_of_work() as uow:
        one = uow.traces.delete(trace_id(1))
        rest = uow.traces.delete_user("ann")
        uow.commit()
    assert [(each.method, each.rows) for each in seen.of("erase")] == [
        ("delete", one.spans + one.events + one.logs),
        ("delete_user", sum(rest.to_dict().values())),
    ]


@pytest.mark.parametrize("repository", [TraceRepository, MetricRepository, LogRepository])
def test_every_public_method_of_a_repository_is_reported(repository: type) -> None:
    methods = inspect.getmembers(repository, inspect.isfunction)
    public = [(name, method) for name, method in methods if not name.startswith("_")]
    assert public
    assert [name for name, method in public if not hasattr(method, "__wrapped__")] == []


def test_every_step_of_maintenance_is_reported(pool: StoragePool, seen: Seen) -> None:
    report = pool.maintain()
    steps = seen.of("maintain")
    assert [one.method for one in steps] == [name for name, _ in STEPS]
    assert [one.outcome for one in steps] == ["ok"] * len(report.steps)


def test_calls_that_mend_stored_spans_are_reported(filled: StoragePool, seen: Seen) -> None:
    settled, refreshed = filled.settle_usage(), filled.refresh_facts()
    assert [(one.method, one.rows) for one in seen.of("maintain")] == [
        ("settle_usage", settled.traces),
        ("refresh_facts", refreshed.spans),
    ]
    assert refreshed.spans == 3
