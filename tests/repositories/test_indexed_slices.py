"""Searches of open partitions use the indexes of finished slices, and need none of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage import CopyWriter, StoragePool, UnitOfWork
from observatory_storage.index_builder import IndexBuilder
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import TraceSpan
from observatory_storage.repositories import LogFilters, SpanFilters, TraceFilters
from observatory_storage.repositories.reading.indexed_slices import _pieces, forget_slices
from observatory_storage.slice_catalog import disjoint
from tests import citus
from tests.repositories.plans import Plan, plans_of, walk_first
from tests.repositories.populated import analyse
from tests.repositories.samples import DAY, a_log, a_span, span_key, statements, trace_key
from tests.repositories.slices import index_slices

Ask = Callable[[UnitOfWork], Any]

# Of late, for partitions of a day.
BEGIN = (datetime.now(UTC) - 20 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
TABLES = ("trace_spans", "trace_events", "logs")
SPANS, EVENTS, LOGS = (f"{table}_p{BEGIN:%Y%m%d}" for table in TABLES)
ROWS = 4000
STEP = DAY / ROWS
# Slices end at 10:00, 18:00 and 22:00. The rows of the last two hours are in none.
INDEXED_AT = [BEGIN + timedelta(hours=hour, minutes=5) for hour in (10, 18, 22)]
OF_SLICES, NEWEST, LATE = 900, 3950, 5000


def write(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(span(n, BEGIN + n * STEP) for n in range(1, ROWS))
    CopyWriter(pool).write_logs(log(n, BEGIN + n * STEP) for n in range(1, ROWS))


def span(n: int, start: datetime) -> dict[str, Any]:
    return a_span(
        n,
        n,
        start,
        attributes={"request": f"r{n}", "all": True, "gen_ai.prompt": f"river w{n:x}z"},
        events=[{"name": "e", "timestamp": start, "attributes": {"event": f"e{n}"}}],
    )


def log(n: int, timestamp: datetime) -> dict[str, Any]:
    message = {
        "event_name": "gen_ai.user.message",
        "body_json": {"content": f"heron m{n:x}z"},
        "trace_id": trace_key(n),
        "span_id": span_key(n),
    }
    return a_log(
        n,
        timestamp,
        attributes={"number": n, "all": True},
        **(message if n % 2 == 0 else {"body": f"line m{n:x}z"}),
    )


def write_late(pool: StoragePool) -> None:
    """Rows of a slice that has been indexed before."""
    start = BEGIN + DAY / 6 + timedelta(microseconds=1)
    CopyWriter(pool).write_spans([span(LATE, start)])
    CopyWriter(pool).write_logs([log(LATE, start)])


@pytest.fixture(scope="module")
def sliced(shared_pool: StoragePool) -> StoragePool:
    write(shared_pool)
    assert len(index_slices(shared_pool, INDEXED_AT)) == 3 * len(TABLES)
    write_late(shared_pool)
    analyse(shared_pool)
    return shared_pool


def numbers(page: Any) -> list[int]:
    """The numbers of spans, traces or log records."""
    return [
        int(row.span_id, 16) if isinstance(row, TraceSpan) else UUID(str(row.id)).int
        for row in page
    ]


def rare(n: int) -> list[tuple[str, str, Ask]]:
    """Questions that one span, trace or log record answers: table, purpose of the index."""
    attributes: dict[str, Any] = {"attributes": {"request": f"r{n}"}}
    of_event: dict[str, Any] = {"attributes": {"event": f"e{n}"}}
    words: dict[str, Any] = {"text": f"w{n:x}z"}
    message: dict[str, Any] = {"text": f"m{n:x}z"}
    return [
        ("trace_spans", "attributes", lambda uow: uow.traces.list(TraceFilters(**attributes))),
        ("trace_spans", "attributes", lambda uow: uow.traces.list_spans(SpanFilters(**attributes))),
        ("trace_events", "attributes", lambda uow: uow.traces.list(TraceFilters(**of_event))),
        ("trace_spans", "content", lambda uow: uow.traces.list(TraceFilters(**words))),
        ("trace_spans", "content", lambda uow: uow.traces.list_spans(SpanFilters(**words))),
        ("logs", "content", lambda uow: uow.traces.list_spans(SpanFilters(**message))),
        ("logs", "content", lambda uow: uow.logs.list(LogFilters(**message))),
        ("logs", "attributes", lambda uow: uow.logs.list(attributes={"number": n})),
        ("logs", "content", lambda uow: uow.logs.search_text(f"m{n:x}z", order="rank")),
    ]


def used(plans: list[Plan], table: str, purpose: str) -> set[str]:
    beginning = f"ix_{table}_p{BEGIN:%Y%m%d}_{purpose}_slice_"
    return {name for plan in plans for name in plan.indexes if name.startswith(beginning)}


@citus.not_there("shards have plans of their own")
@pytest.mark.parametrize("n", [OF_SLICES, LATE], ids=["in time", "late"])
def test_a_rare_value_is_found_by_the_indexes_of_slices(
    sliced: StoragePool, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    walk_first(monkeypatch, 20)
    for table, purpose, ask in rare(n):
        with sliced.unit_of_work() as uow:
            assert numbers(ask(uow)) == [n], (table, purpose)
        plans = plans_of(sliced, ask)
        assert used(plans, table, purpose), "\n".join(plan.text for plan in plans)
        # The newest rows are read, which are a twelfth of all. Events have too few pages for BRIN.
        assert not {name for plan in plans for name in plan.read_whole} & {SPANS, LOGS}
        read = [scan for plan in plans for scan in plan.run if scan.relation in (SPANS, LOGS)]
        assert sum(scan.rows for scan in read) < ROWS / 4


def test_the_newest_rows_are_found_too(
    sliced: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk_first(monkeypatch, 20)
    with sliced.unit_of_work() as uow:
        for n in (NEWEST, ROWS - 2, 2):
            assert [numbers(ask(uow)) for *_, ask in rare(n)] == [[n]] * 9


@pytest.mark.parametrize("asked", [{"attributes": {"all": True}}, {"text": "river"}], ids=str)
def test_a_frequent_value_is_found_by_reading_in_order(
    sliced: StoragePool, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    walk_first(monkeypatch, 100)
    asks: list[Ask] = [
        lambda uow: uow.traces.list(TraceFilters(**asked)),
        lambda uow: uow.traces.list_spans(SpanFilters(**asked)),
        lambda uow: uow.logs.list(LogFilters(**asked)),
    ]
    for ask in asks[: 3 if "attributes" in asked else 2]:
        plans = plans_of(sliced, ask)
        assert not any(used(plans, table, p) for table in TABLES for p in ("attributes", "content"))
        assert sum(plan.blocks for plan in plans) < 2_000


def answers(pool: StoragePool) -> list[list[int]]:
    """The answers to questions of several kinds, and all pages of some."""
    bounds: dict[str, Any] = {"start_time": BEGIN + DAY / 3, "end_time": BEGIN + DAY}
    with pool.unit_of_work() as uow:
        found = [numbers(ask(uow)) for n in (OF_SLICES, NEWEST, LATE) for *_, ask in rare(n)]
        found.append(numbers(uow.traces.list(attributes={"event": f"e{OF_SLICES}"}, **bounds)))
        found.append(numbers(uow.traces.iterate_spans(text="w1*", start_time=BEGIN)))
        found.append(numbers(uow.logs.iterate(text="m1*", start_time=BEGIN)))
        last = uow.logs.list(text="heron -m1*", limit=7, **bounds)
        found += [
            numbers(last),
            numbers(uow.logs.list(text="heron -m1*", limit=7, after=last.next, **bounds)),
        ]
        found += [numbers(uow.logs.search_text("heron", limit=30, order="rank", **bounds))]
        assert len(found[-4]) > 200
    return found


def test_answers_do_not_depend_on_the_indexes(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk_first(monkeypatch, 20)
    write(pool)
    write_late(pool)
    expected = answers(pool)
    assert index_slices(pool, INDEXED_AT)
    assert answers(pool) == expected
    builder = IndexBuilder(pool)
    with builder.opened():  # slices are remembered that are no longer there
        for table, partition in zip(TABLES, (SPANS, EVENTS, LOGS), strict=True):
            builder.drop_slices(table, partition)
    assert len(builder.done.dropped) == 2 * 3 * 3 + 1
    assert answers(pool) == expected
    # Others are there than those that are remembered, and then those of closed partitions.
    index_slices(pool, [BEGIN + DAY / 2])
    answers(pool)
    assert close_partitions(Run(pool, BEGIN + 2 * DAY)).is_complete
    assert answers(pool) == expected


def test_the_catalog_is_asked_once_a_minute(sliced: StoragePool) -> None:
    def asked() -> int:
        with sliced.unit_of_work() as uow, statements(sliced.engine, of_catalog=True) as seen:
            uow.traces.list(attributes={"request": "none"})
        return sum("indpred" in statement for statement in seen)

    forget_slices(sliced.engine)
    assert asked() == 2  # of spans and of events
    assert asked() == 0


MOMENTS = st.integers(0, 40).map(lambda hour: BEGIN + timedelta(hours=hour))
RANGES = st.lists(st.tuples(MOMENTS, MOMENTS).filter(lambda one: one[0] < one[1]), max_size=8)
BOUNDS = st.none() | MOMENTS


@given(RANGES, BOUNDS, BOUNDS)
def test_pieces_cover_the_range_once_and_each_lies_within_a_slice_or_beside_all(
    ranges: list[tuple[datetime, datetime]], start: datetime | None, end: datetime | None
) -> None:
    slices = disjoint(ranges)
    assert all(one[1] <= other[0] for one, other in pairwise(slices))
    assert all(any(a <= low and high <= b for a, b in ranges) for low, high in slices)
    pieces = _pieces(slices, start, end)
    assert (pieces[0][0], pieces[-1][1]) == (start, end)
    assert all(one[1] == other[0] for one, other in pairwise(pieces))
    least, most = BEGIN - DAY, BEGIN + 3 * DAY
    for low, high in pieces:
        begin, stop = low or least, high or most
        inside = any(a <= begin and stop <= b for a, b in slices)
        assert inside or not any(max(a, begin) < min(b, stop) for a, b in slices)
