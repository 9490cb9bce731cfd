"""Sessions: which are listed, in which order, with which totals."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    NotFound,
    SessionFilters,
    SessionSummary,
    StoragePool,
    TraceFilters,
    ValidationError,
)
from observatory_storage.repositories.traces import sessions
from tests import citus
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_span,
    backwards,
    count_once,
    forwards,
    span_key,
    statements,
)

FILTERS: list[dict[str, Any]] = [
    {},
    {"user_id": "ann"},
    {"user_id": "nobody"},
    {"service_name": "worker"},
    {"environment": "test", "service_name": "api"},
    {"start_time": START + DAY, "end_time": START + 2 * DAY},
    {"user_id": "bob", "end_time": START + 10 * SECOND},
    {"start_time": START + DAY, "end_time": START + DAY},
]


@pytest.fixture(scope="module")
def rows(shared_pool: StoragePool) -> list[Row]:
    """Spans of 30 sessions in `shared_pool`, of which many begin or end at the same moment."""
    source = random.Random(11)
    made = []
    for trace in range(1, 121):
        session = f"s{source.randrange(30)}"
        begins = START + source.choice([0, 0, 1, 2]) * DAY + source.randrange(12) * SECOND
        for number in range(source.randrange(1, 5)):
            tokens = source.choice([None, 0, 7])
            made.append(
                a_span(
                    trace,
                    number + 1,
                    begins + source.randrange(3) * SECOND,
                    end_time=None,
                    parent_span_id=span_key(1) if number else None,
                    # Mostly the root alone says it, and now and then a span says another one.
                    session_id=session
                    if not number
                    else source.choice([None, None, session, f"s{source.randrange(30)}"]),
                    user_id=source.choice([None, "ann", "bob"]),
                    service_name=source.choice(["api", "worker"]),
                    environment=source.choice([None, "test"]),
                    status=source.choice(["unset", "ok", "error"]),
                    total_tokens=tokens,
                    total_cost_usd=None if tokens is None else Decimal(tokens) / 1000,
                )
            )
    CopyWriter(shared_pool).write_spans(count_once(made))
    return made


@pytest.fixture(params=["few spans", "many spans"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to find the sessions, whatever their number."""
    if request.param == "many spans":
        monkeypatch.setattr(sessions, "_FEW_SPANS", 0)
    monkeypatch.setattr(sessions, "_SPANS_A_SESSION", (1, 2))


def expected(rows: list[Row], **asked: Any) -> list[SessionSummary]:
    """What the list should be, by plain Python."""
    start, end = asked.pop("start_time", None), asked.pop("end_time", None)
    of_session: dict[str, list[Row]] = {}
    of_trace: dict[str, list[Row]] = {}
    for row in rows:
        of_trace.setdefault(row["trace_id"], []).append(row)
        if row.get("session_id") is not None and _within(row["start_time"], start, end):
            of_session.setdefault(row["session_id"], []).append(row)
    found = []
    for session, spans in of_session.items():
        if not any(all(row[k] == v for k, v in asked.items()) for row in spans):
            continue
        starts = [row["start_time"] for row in spans]
        traces = {row["trace_id"]: of_trace[row["trace_id"]] for row in spans}
        whole = [row for each in traces.values() for row in each]
        tokens = [row["total_tokens"] for row in whole if row["total_tokens"] is not None]
        costs = [row["total_cost_usd"] for row in whole if row["total_cost_usd"] is not None]
        found.append(
            SessionSummary(
                session,
                min(starts),
                max(starts),
                tuple(sorted({row["user_id"] for row in spans} - {None})),
                tuple(sorted({row["service_name"] for row in spans})),
                len(traces),
                sum(any(r["status"] == "error" for r in each) for each in traces.values()),
                len(whole),
                sum(row["status"] == "error" for row in whole),
                sum(tokens) if tokens else None,
                sum(costs, Decimal()) if costs else None,
            )
        )
    return sorted(found, key=lambda s: (s.last_start_time, s.session_id), reverse=True)


def _within(time: datetime, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or time >= start) and (end is None or time < end)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("asked", FILTERS, ids=str)
@pytest.mark.parametrize("limit", [1, 4, 50])
def test_pages_agree_with_plain_python(
    shared_pool: StoragePool, rows: list[Row], asked: dict[str, Any], limit: int
) -> None:
    wanted = expected(rows, **asked)
    filters = SessionFilters(**asked, limit=limit)
    with shared_pool.unit_of_work() as uow:
        pages = forwards(lambda **at: uow.traces.list_sessions(filters, **at))
        assert [session for page in pages for session in page] == wanted
        assert all(len(page) == limit for page in pages[:-1])
        back = backwards(lambda **at: uow.traces.list_sessions(filters, **at), pages[-1])
        assert [page.rows for page in back] == [page.rows for page in pages]
        page = uow.traces.list_sessions(filters, total="exact")
        assert (page.total, page.total_kind) == (len(wanted), "exact")
        assert list(uow.traces.iterate_sessions(filters, 3)) == wanted


def test_get_session_equals_the_session_in_the_list(
    shared_pool: StoragePool, rows: list[Row]
) -> None:
    day = {"start_time": START + DAY, "end_time": START + 2 * DAY}
    with shared_pool.unit_of_work() as uow:
        for session in expected(rows):
            assert uow.traces.get_session(session.session_id) == session
            filters = TraceFilters(session_id=session.session_id)
            assert len(uow.traces.list(filters)) == session.trace_count
            stats = uow.traces.get_stats(filters)
            assert stats.total_tokens == session.total_tokens
            assert stats.total_cost_usd == session.total_cost_usd
        for session in expected(rows, **day):
            assert uow.traces.get_session(session.session_id, **day) == session


def test_a_missing_session_is_not_found(shared_pool: StoragePool, rows: list[Row]) -> None:
    with shared_pool.unit_of_work() as uow:
        for name in ("nothing", "", "s%", "S1"):
            with pytest.raises(NotFound):
                uow.traces.get_session(name)
        with pytest.raises(NotFound):
            uow.traces.get_session("s1", end_time=START - DAY)
        with pytest.raises(ValidationError, match="session_id"):
            uow.traces.get_session(None)  # type: ignore[arg-type]  # what is tried here
        with pytest.raises(ValidationError, match="end_time"):
            uow.traces.get_session("s1", start_time=START, end_time=START - DAY)


@pytest.mark.usefixtures("either_way")
def test_without_spans_there_are_no_sessions(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        assert list(uow.traces.list_sessions()) == list(uow.traces.iterate_sessions()) == []
    CopyWriter(pool).write_spans([a_span(1, 1)])
    with pool.unit_of_work() as uow:
        page = uow.traces.list_sessions()
    assert (page.rows, page.next, page.previous) == ((), None, None)


@pytest.mark.usefixtures("either_way")
def test_the_whole_traces_count_each_once(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(
        [
            a_span(1, 1, session_id="s", total_tokens=1),
            a_span(1, 2, session_id="s", total_tokens=10),
            a_span(1, 3, START + DAY, total_tokens=100, status="error", service_name="model"),
            a_span(2, 4, START - DAY, session_id="s", user_id="ann"),
            a_span(3, 5, total_tokens=1000),
        ]
    )
    with pool.unit_of_work() as uow:
        (session,) = uow.traces.list_sessions()
    assert session == SessionSummary(
        session_id="s",
        first_start_time=START - DAY,
        last_start_time=START,
        user_ids=("ann",),
        service_names=("service",),
        trace_count=2,
        error_trace_count=1,
        span_count=4,
        error_span_count=1,
        total_tokens=111,
        total_cost_usd=None,
    )


@pytest.mark.usefixtures("either_way")
def test_the_last_active_come_first_and_those_active_together_by_their_ids(
    pool: StoragePool,
) -> None:
    CopyWriter(pool).write_spans(
        [
            a_span(1, 1, START, session_id="b"),
            a_span(2, 1, START + SECOND, session_id="a"),
            a_span(2, 2, START + SECOND, session_id="a"),
            a_span(3, 1, START + SECOND, session_id="c"),
            a_span(4, 1, START + 2 * SECOND, session_id="b"),
            a_span(5, 1, START + 2 * SECOND, start_ns=9, end_ns=9, session_id="b"),
        ]
    )

    def listed() -> Iterator[str]:
        for page in forwards(lambda **at: uow.traces.list_sessions(SessionFilters(limit=1), **at)):
            yield from (session.session_id for session in page)

    with pool.unit_of_work() as uow:
        assert list(listed()) == ["b", "c", "a"]


@pytest.mark.usefixtures("either_way")
def test_the_number_of_statements_does_not_depend_on_the_size_of_the_page(
    shared_pool: StoragePool, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared_pool.unit_of_work() as uow:
        uow.traces.list_sessions()
        with statements(shared_pool.engine) as seen:
            assert len(uow.traces.list_sessions()) > 20
        assert len(seen) == (3 if citus.URL else 4)
        monkeypatch.setattr(sessions, "_SPANS_A_SESSION", (1000,))
        with statements(shared_pool.engine) as seen:
            assert uow.traces.list_sessions(SessionFilters(limit=5)).next is not None
        assert len(seen) == 1
        with statements(shared_pool.engine) as seen:
            uow.traces.get_session("s1")
        assert len(seen) == 1
        assert not any("attributes" in statement for statement in seen)


def test_bad_arguments_are_refused(shared_pool: StoragePool, rows: list[Row]) -> None:
    for bad in ({"limit": 0}, {"user_id": 5}, {"start_time": datetime(2026, 1, 1)}):  # noqa: DTZ001
        with pytest.raises(ValidationError):
            SessionFilters(**bad)
    with pytest.raises(ValidationError, match="end_time"):
        SessionFilters(start_time=START, end_time=START - timedelta(microseconds=1))
    with shared_pool.unit_of_work() as uow:
        page = uow.traces.list_sessions(SessionFilters(limit=2))
        with pytest.raises(ValidationError, match="another query"):
            uow.traces.list_sessions(SessionFilters(user_id="ann"), after=page.next)
        with pytest.raises(ValidationError, match="another query"):
            uow.traces.list(after=page.next)
        with pytest.raises(ValidationError, match="must be SessionFilters"):
            uow.traces.list_sessions(TraceFilters())  # type: ignore[arg-type]  # as above
        with pytest.raises(ValidationError, match="total"):
            uow.traces.list_sessions(total="all")  # type: ignore[arg-type]  # as above
        with pytest.raises(ValidationError, match="batch_size"):
            next(uow.traces.iterate_sessions(batch_size=0))


def test_a_page_may_be_of_any_size(shared_pool: StoragePool, rows: list[Row]) -> None:
    with shared_pool.unit_of_work() as uow:
        everything = uow.traces.list_sessions(SessionFilters(limit=2**31 - 1))
        assert len(everything) == uow.traces.list_sessions(total="exact").total
        assert list(uow.traces.iterate_sessions(batch_size=2**31 - 1)) == list(everything)
