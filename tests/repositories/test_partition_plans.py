"""Questions without a time range are planned for few of many partitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool, TraceFilters, UnitOfWork
from observatory_storage.layout import PARTITIONED
from observatory_storage.lifecycle.rollups import refresh_rollups
from observatory_storage.lifecycle.run import Run
from observatory_storage.repositories.reading import partition_slices
from tests import citus
from tests.repositories.samples import DAY, SECOND, a_log, a_span, span_key, trace_key

pytestmark = citus.not_there("shards have plans of their own")

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAYS = 40
A_DAY = 12
# A rare user and session have spans on this day alone.
THAT_DAY = 30
PAGE = 20

Ask = Callable[[UnitOfWork], Any]


@pytest.fixture(scope="module")
def filled(shared_pool: StoragePool) -> StoragePool:
    """Forty days of a few traces each. Rollups are up to date."""
    spans, logs = [], []
    for day in range(DAYS):
        for number in range(A_DAY):
            trace = day * A_DAY + number + 1
            start = TODAY - day * DAY + number * SECOND
            rare = day == THAT_DAY and number < 2
            span = a_span(
                trace,
                trace,
                start,
                end_time=start + timedelta(milliseconds=1),
                user_id="rare" if rare else f"user{number % 2}",
                session_id="rare" if rare else f"session{trace}",
                model="model",
                status="error" if number % 3 == 0 else "ok",
            )
            spans.append(span)
            logs.append(a_log(trace, start, body="a word"))
    writer = CopyWriter(shared_pool)
    writer.write_spans(spans)
    writer.write_logs(logs)
    refresh_rollups(Run(shared_pool, now=TODAY + 2 * DAY))
    return shared_pool


def planned(pool: StoragePool, ask: Ask) -> tuple[Any, int, int]:
    """The answer, the most partitions in the plan of a statement, and the number of statements."""
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _k: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        sent.append((statement, parameters))

    with pool.unit_of_work() as uow:
        sa.event.listen(pool.engine, "before_cursor_execute", note)
        try:
            answer = ask(uow)
        finally:
            sa.event.remove(pool.engine, "before_cursor_execute", note)
        connection = uow.session.connection()
        most = 0
        for statement, parameters in sent:
            ((document,),) = connection.exec_driver_sql(
                f"EXPLAIN (FORMAT JSON) {statement}", parameters
            )
            names = set(_relations(document[0]["Plan"]))
            most = max(most, *(sum(n.startswith(f"{t}_p") for n in names) for t in PARTITIONED))
    return answer, most, len(sent)


def _relations(node: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from _relations(child)


def cursor(pool: StoragePool, **fields: Any) -> str | None:
    with pool.unit_of_work() as uow:
        return uow.traces.list(TraceFilters(**fields)).next


NEAR: dict[str, Ask] = {
    "spans": lambda uow: uow.traces.list_spans(limit=PAGE),
    "spans of a user": lambda uow: uow.traces.list_spans(user_id="user1", limit=PAGE),
    "logs": lambda uow: uow.logs.list(limit=PAGE),
    "logs of a service": lambda uow: uow.logs.list(service_name="service", limit=PAGE),
    "logs with a word": lambda uow: uow.logs.search_text("word", limit=PAGE),
    "traces of a user": lambda uow: uow.traces.list(user_id="user1", limit=PAGE),
    "traces of a model": lambda uow: uow.traces.list(model="model", limit=PAGE),
    "traces of a service": lambda uow: uow.traces.list(service_name="service", limit=PAGE),
    "failed traces": lambda uow: uow.traces.list(status="error", limit=PAGE),
    "failed traces of a service": lambda uow: uow.traces.list(
        service_name="service", status="error", limit=PAGE
    ),
    "sessions": lambda uow: uow.traces.list_sessions(limit=PAGE),
}
RARE: dict[str, Ask] = {
    "traces of a session": lambda uow: uow.traces.list(session_id="rare"),
    "spans of a user": lambda uow: uow.traces.list_spans(user_id="rare"),
    "a session": lambda uow: [uow.traces.get_session("rare")],
    "sessions of a user": lambda uow: uow.traces.list_sessions(user_id="rare"),
}


@pytest.mark.parametrize("name", NEAR)
def test_a_first_page_is_planned_for_few_partitions(filled: StoragePool, name: str) -> None:
    planned(filled, NEAR[name])
    answer, most, statements = planned(filled, NEAR[name])
    assert len(answer) == PAGE
    assert 0 < most <= 12
    assert statements <= 5 + 1  # which looks for words in payload frames


@pytest.mark.parametrize("name", RARE)
def test_what_is_rare_is_searched_on_its_days(filled: StoragePool, name: str) -> None:
    planned(filled, RARE[name])
    answer, most, statements = planned(filled, RARE[name])
    assert 0 < len(answer) <= 2
    # The slices before the days are asked for are wider.
    assert most <= (20 if name == "spans of a user" else 8)
    assert statements <= 4


def test_a_user_without_spans_costs_no_search_of_all_days(filled: StoragePool) -> None:
    ask: Ask = lambda uow: uow.traces.list(user_id="nobody")  # noqa: E731
    planned(filled, ask)
    answer, most, statements = planned(filled, ask)
    assert not answer
    assert most <= 8
    assert statements <= 4


def test_names_are_read_from_rollups(filled: StoragePool) -> None:
    for ask in (lambda uow: uow.traces.services(), lambda uow: uow.traces.operations("service")):
        answer, most, statements = planned(filled, ask)
        assert len(answer) == 1
        assert most == 0
        assert statements <= 3


@pytest.mark.parametrize("fields", [{"user_id": "user1"}, {"service_name": "service"}], ids=str)
def test_a_following_page_is_planned_for_few_partitions(
    filled: StoragePool, fields: dict[str, Any]
) -> None:
    after = cursor(filled, **fields, limit=PAGE)
    answer, most, _ = planned(
        filled, lambda uow: uow.traces.list(**fields, limit=PAGE, after=after)
    )
    assert len(answer) == PAGE
    assert most <= 16


def test_a_trace_is_read_from_its_own_days(filled: StoragePool) -> None:
    key = trace_key(DAYS // 2 * A_DAY)
    for ask in (
        lambda uow: uow.traces.get_spans(key, with_events=True),
        lambda uow: uow.traces.get_tree(key).roots,
        lambda uow: uow.traces.list_spans(trace_id=key),
    ):
        answer, most, _ = planned(filled, ask)
        assert len(answer) == 1
        assert most == 1


def test_a_store_with_few_partitions_is_read_by_one_statement(
    filled: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_slices, "_FEW", DAYS)
    planned(filled, NEAR["spans of a user"])
    for name in ("spans of a user", "logs", "traces of a user", "failed traces"):
        _, most, statements = planned(filled, NEAR[name])
        assert (most, statements) == (DAYS, 1)


def test_a_page_is_read_as_wide_as_the_last_one(pool: StoragePool) -> None:
    """A sparse user has two long traces a day, each of its own session, a dense one has eight."""
    spans = []
    for day in range(DAYS):
        for number in range(10):
            trace, is_sparse = day * 10 + number + 1, number < 2
            for place in range(12 if is_sparse else 1):
                span = a_span(
                    trace,
                    trace * 100 + place,
                    TODAY - day * DAY + number * SECOND,
                    user_id="sparse" if is_sparse else "dense",
                    session_id=f"session{trace}" if is_sparse else None,
                    status="error",
                )
                spans.append({**span, "parent_span_id": span_key(trace * 100) if place else None})
    CopyWriter(pool).write_spans(spans)
    refresh_rollups(Run(pool, now=TODAY + 2 * DAY))

    def of_user(name: str) -> tuple[int, int]:
        ask: Ask = lambda uow: uow.traces.list(user_id=name, limit=PAGE)  # noqa: E731
        return planned(pool, ask)[1:]

    first, second = of_user("sparse"), of_user("sparse")
    assert first[1] > second[1] == 1
    assert second[0] <= 14
    # It is not read wider than needed, whatever has been asked for before.
    for name in ("dense", "nobody"):
        of_user("sparse")
        assert of_user(name)[0] > 8
        assert of_user(name)[0] <= 8
    sessions, failed = NEAR["sessions"], NEAR["failed traces"]
    assert planned(pool, sessions)[2] > 3
    assert planned(pool, sessions)[2] == 3
    assert planned(pool, failed)[1] > planned(pool, failed)[1]
