"""Erasure: everything of a trace, a user or a session goes, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from observatory_storage import (
    CopyWriter,
    DeletedRows,
    NotFound,
    StoragePool,
    UnitOfWork,
    ValidationError,
    export_metrics,
    ingest_metrics,
)
from observatory_storage.llm.aliases import holding
from observatory_storage.llm.dialects import ALIASES
from observatory_storage.models import MetricDataPoint, TraceSpan
from observatory_storage.repositories.traces import deletion
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_log,
    a_span,
    an_event,
    span_key,
    statements,
    trace_key,
)
from tests.writers.helpers import contents, fetch

NOTHING = DeletedRows(0, 0, 0, 0, 0, 0)
METRIC = UUID(int=7)

Erase = Callable[[UnitOfWork, str], DeletedRows]


def erase_user(uow: UnitOfWork, user: str) -> DeletedRows:
    return uow.traces.delete_user(user)


def erase_session(uow: UnitOfWork, session: str) -> DeletedRows:
    return uow.traces.delete_session(session)


EITHER = pytest.mark.parametrize(
    ("column", "erase"),
    [("user_id", erase_user), ("session_id", erase_session)],
    ids=["user", "session"],
)


def a_point(number: int, **columns: Any) -> Row:
    time = START + number * SECOND
    return {"metric_id": METRIC, "timestamp": time, "value": 1.0, **columns}


def an_exemplar(value: float, trace: int | None = None, **attributes: Any) -> Row:
    named = {} if trace is None else {"trace_id": trace_key(trace), "span_id": span_key(1)}
    return {"time_unix_nano": 1, "value": value, "attributes": attributes, **named}


def test_a_trace_goes_with_its_spans_events_and_logs(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_spans([a_span(2, 1, events=[an_event()])])
    writer.write_logs([a_log(1, body="of no trace"), a_log(2, trace_id=trace_key(2))])
    before = contents(pool)
    writer.write_spans(
        [
            a_span(1, 1, events=[an_event(), an_event()]),
            a_span(1, 2, START + DAY, events=[an_event()]),
        ]
    )
    late = [a_log(3, START - DAY, trace_id=trace_key(1)), a_log(4, START + 9 * DAY)]
    writer.write_logs([late[0], {**late[1], "trace_id": trace_key(1), "span_id": span_key(9)}])
    with pool.unit_of_work() as uow:
        deleted = uow.traces.delete(trace_key(1))
        assert (deleted.spans, deleted.events, deleted.logs) == (2, 3, 2)
        uow.rollback()
        assert uow.traces.delete(trace_key(1)) == deleted
        uow.commit()
        with pytest.raises(NotFound):
            uow.traces.delete(trace_key(1))
    assert contents(pool) == before


def test_rows_of_a_trace_without_its_own_row_are_deleted(pool: StoragePool) -> None:
    CopyWriter(pool).write_logs([a_log(1, trace_id=trace_key(1))])
    pool.partitions.ensure("trace_spans", [START])
    with pool.unit_of_work() as uow:
        # By itself: only the writers make traces of spans.
        uow.session.add(TraceSpan(**{**a_span(2, 1), "trace_id": UUID(trace_key(2))}))
        uow.commit()
        assert uow.traces.delete(trace_key(1)).logs == 1
        assert uow.traces.delete(trace_key(2)).spans == 1
        uow.commit()
    assert not any(contents(pool).values())


def _of_others(pool: StoragePool, column: str, name: str) -> None:
    """Rows that nearly match."""
    writer = CopyWriter(pool)
    keys = ALIASES[column]
    near = [name.upper(), name + "%", name + " ", "other"]
    writer.write_spans(
        [
            a_span(100 + n, 1, START + n * DAY, events=[an_event()], **{column: text})
            for n, text in enumerate([*near, None])
        ]
    )
    writer.write_traces([_silent(200, **{keys[0]: "other"})])
    writer.write_logs(
        [
            a_log(100 + n, attributes=attributes, trace_id=trace_key(100))
            for n, attributes in enumerate(
                [{}, {keys[0]: near[0]}, {"key": name}, {keys[1]: [name]}, {keys[0]: {"x": name}}]
            )
        ]
    )
    writer.write_data_points(
        [
            a_point(100, attributes={"key": name}),
            a_point(101, exemplars=[an_exemplar(1.5, 100, key=name)], otlp={"flags": 1}),
        ]
    )


def _silent(trace: int, **attributes: Any) -> Row:
    return {
        "trace_id": trace_key(trace),
        "service_name": "service",
        "start_time": START,
        "attributes": attributes,
    }


@EITHER
@pytest.mark.parametrize("at_a_time", [1, 2, 500])
def test_the_whole_user_is_erased_and_nothing_else(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch, column: str, erase: Erase, at_a_time: int
) -> None:
    monkeypatch.setattr(deletion, "_TRACES_AT_A_TIME", at_a_time)
    name = "ann o'%_\\"
    _of_others(pool, column, name)
    before = contents(pool)
    writer, keys = CopyWriter(pool), ALIASES[column]
    writer.write_spans(
        [
            # The user's span is neither the first nor the last of its trace.
            a_span(1, 1, START - 40 * DAY, events=[an_event(), an_event()]),
            a_span(1, 2, START, events=[an_event()], **{column: name}),
            a_span(1, 3, START + 40 * DAY, events=[an_event()], **{column: "other"}),
            *(
                a_span(n, 1, START + n * DAY, start_ns=5, end_ns=5, attributes=holding(key, name))
                for n, key in enumerate(keys, 2)
            ),
        ]
    )
    writer.write_traces([_silent(90, **holding(keys[-1], name))])
    writer.write_logs(
        [
            a_log(1, START - 90 * DAY, trace_id=trace_key(1)),
            a_log(2, trace_id=trace_key(90)),
            a_log(3, trace_id=trace_key(2), attributes={keys[0]: name}),
            *(a_log(n, attributes=holding(key, name) | {"k": 1}) for n, key in enumerate(keys, 4)),
            a_log(50, START + 90 * DAY, trace_id=trace_key(100), attributes={keys[1]: name}),
        ]
    )
    writer.write_data_points(
        [a_point(n, attributes=holding(key, name)) for n, key in enumerate(keys)]
    )
    with pool.unit_of_work() as uow:
        deleted = erase(uow, name)
        uow.rollback()
        assert erase(uow, name) == deleted
        assert erase(uow, name) == NOTHING  # in the same transaction
        uow.commit()
    assert contents(pool) == before
    assert deleted == DeletedRows(
        traces=2 + len(keys),
        spans=3 + len(keys),
        events=4,
        logs=4 + len(keys),
        data_points=len(keys),
        redacted_data_points=0,
    )


@EITHER
def test_nothing_to_erase_is_no_error(pool: StoragePool, column: str, erase: Erase) -> None:
    with pool.unit_of_work() as uow:
        assert erase(uow, "nobody") == NOTHING
    _of_others(pool, column, "ann")
    before = contents(pool)
    with pool.unit_of_work() as uow:
        assert erase(uow, "ann") == NOTHING
        uow.commit()
        for bad in ("", None, 5, b"ann"):
            with pytest.raises(ValidationError, match=column):
                erase(uow, bad)  # type: ignore[arg-type]  # what is tried here
    assert contents(pool) == before


def test_points_that_stay_lose_the_exemplars_of_the_user(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_spans([a_span(1, 1, user_id="ann"), a_span(0xABC, 1, user_id="ann")])
    shouted = {**an_exemplar(5.5), "trace_id": trace_key(0xABC).upper()}
    writer.write_data_points(
        [
            a_point(1, exemplars=[an_exemplar(1.5, 1)]),
            a_point(2, exemplars=[an_exemplar(2.5, 2), shouted, an_exemplar(3.5)]),
            a_point(3, exemplars=[an_exemplar(4.5, 2, **{"enduser.id": "ann"})]),
            a_point(4, exemplars=[an_exemplar(4.5, 2, **{"user.id": "bob"})]),
            a_point(5, exemplars=[]),
            a_point(6),
            a_point(7, exemplars=[an_exemplar(1.5, 1)], attributes={"user.id": "ann"}),
        ]
    )
    with pool.unit_of_work() as uow:
        deleted = uow.traces.delete_user("ann")
        uow.commit()
    assert deleted == DeletedRows(2, 2, 0, 0, 1, 3)
    points = fetch(pool, MetricDataPoint, "timestamp")
    assert [point["exemplars"] for point in points] == [
        None,
        [an_exemplar(2.5, 2), an_exemplar(3.5)],
        None,
        [an_exemplar(4.5, 2, **{"user.id": "bob"})],
        [],
        None,
    ]


def test_the_exemplars_that_stay_are_exported_as_they_came(pool: StoragePool) -> None:
    """Of some a note beside them says what JSON cannot; it moves with its exemplar."""
    values: list[dict[str, Any]] = [
        {"asDouble": 1e16},
        {"asInt": "9223372036854775807"},
        {"asDouble": -0.0},
        {"asDouble": 2.5},
        {"asDouble": 1e17},
    ]
    tag = {"key": "b", "value": {"bytesValue": "AAEC"}}
    given = [
        {
            "timeUnixNano": str(n),
            "filteredAttributes": [tag],
            "traceId": trace_key(1 + n % 2),
            "spanId": span_key(1),
            **value,
        }
        for n, value in enumerate(values, 1)
    ]

    def request(exemplars: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        nanoseconds = str(int(START.timestamp()) * 10**9)
        point = {"timeUnixNano": nanoseconds, "asDouble": 1.0, **more}
        point |= {"exemplars": exemplars} if exemplars else {}
        metric = {"name": "m", "gauge": {"dataPoints": [point]}}
        return {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}

    def exported() -> Any:
        (one,) = export_metrics(pool)
        (metric,) = one["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
        (point,) = metric["gauge"]["dataPoints"]
        return point.get("exemplars", [])

    ingest_metrics(pool, request(given, flags=1))
    assert exported() == given
    for trace, left in ((1, given[0::2]), (2, [])):
        CopyWriter(pool).write_spans([a_span(trace, 1, session_id="s")])
        with pool.unit_of_work() as uow:
            assert uow.traces.delete_session("s").redacted_data_points == 1
            uow.commit()
        assert exported() == left
    (point,) = fetch(pool, MetricDataPoint)
    assert "exemplars" not in (point["otlp"] or {})


def test_erasing_runs_a_number_of_statements_for_each_batch_of_traces(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_TRACES_AT_A_TIME", 30)
    CopyWriter(pool).write_spans([a_span(n, 1, user_id="ann") for n in range(1, 91)])
    counted = []
    with pool.unit_of_work() as uow:
        for user in ("nobody", "ann"):
            with statements(pool.engine) as seen:
                uow.traces.delete_user(user)
            counted.append(len(seen))
    assert counted[1] - counted[0] == 3 * 6
